//! The counters as Python sees them.

use std::collections::BTreeMap;

use eir_core::UnixTime;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::node::Node;
use crate::stats::{BUCKETS_NS, PeerStats};

/// Everything that is counted or measured, in one dict; the keys are those of `eir/_core.pyi`.
pub(super) fn stats<'py>(py: Python<'py>, node: &Node, now: UnixTime) -> PyResult<Bound<'py, PyDict>> {
    let (stats, journal, grey) = (node.stats(), node.journal().stats(), node.grey());
    let (buckets, sum_ns) = stats.answer_times();
    let dict = PyDict::new(py);
    let peers = PyDict::new(py);
    for (name, peer) in stats.peers() {
        let overload = node.peer(&name).and_then(|peer| peer.limiter.overload(now)).map_or(0, |told| told.percentage);
        let dict = peer_stats(py, &peer)?;
        dict.set_item("overload", overload)?;
        peers.set_item(name, dict)?;
    }
    dict.set_item("peers", peers)?;
    let before_open = peer_stats(py, &node.before_open().stats)?;
    before_open.set_item("overload", 0)?;
    dict.set_item("before_open", before_open)?;
    let refused = node.gate().refused();
    dict.set_item("refused", refused.iter().map(|(_, count)| count).sum::<u64>())?;
    dict.set_item("refused_by", refused.into_iter().collect::<BTreeMap<_, _>>())?;
    dict.set_item("load", node.load())?;
    dict.set_item("answer_bounds_ns", BUCKETS_NS.to_vec())?;
    dict.set_item("answer_buckets", buckets)?;
    dict.set_item("answer_sum_ns", sum_ns)?;
    dict.set_item("connections", node.connections().len())?;
    for (name, counter) in [
        ("accepted", &stats.accepted),
        ("tls_failures", &stats.tls_failures),
        ("unframeable", &stats.unframeable),
        ("stuck", &stats.stuck),
    ] {
        dict.set_item(name, counter.get())?;
    }
    dict.set_item("journal_available", journal.available)?;
    dict.set_item("journal_bytes", journal.bytes)?;
    dict.set_item("journal_depth", journal.depth)?;
    dict.set_item("journal_records", journal.records)?;
    dict.set_item("journal_syncs", journal.syncs)?;
    dict.set_item("journal_failures", journal.failures)?;
    dict.set_item("journal_skipped", journal.skipped)?;
    dict.set_item("timers", grey.len())?;
    dict.set_item("timers_running", grey.running(now))?;
    dict.set_item("breaker_tripped", grey.tripped())?;
    dict.set_item("overlay_entries", node.overlay_len())?;
    let in_use = node.in_use();
    dict.set_item("in_use_pairs", in_use.len())?;
    dict.set_item("in_use_dropped", in_use.dropped())?;
    dict.set_item("in_use_bytes", in_use.octets())?;
    Ok(dict)
}

fn peer_stats<'py>(py: Python<'py>, peer: &PeerStats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("answers", peer.answers())?;
    for (name, counter) in [
        ("watchdogs", &peer.watchdogs),
        ("not_started", &peer.not_started),
        ("hold_timeouts", &peer.hold_timeouts),
        ("lost", &peer.lost),
        ("limited", &peer.limited),
        ("punted", &peer.punted),
        ("discarded", &peer.discarded),
    ] {
        dict.set_item(name, counter.get())?;
    }
    Ok(dict)
}
