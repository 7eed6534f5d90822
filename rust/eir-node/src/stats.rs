//! Counters: every request ends in exactly one of them.
//!
//! Written by connections with relaxed atomics, read when Prometheus asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eir_core::diameter::s13::Answered;
use eir_core::policy::Status;
use eir_core::verdict::Rule;

/// Upper bounds of the answer-time histogram's buckets, in nanoseconds; one more bucket is above them.
pub const BUCKETS_NS: [u64; 19] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
];

/// Peers with counters of their own; those above share the last.
const MAX_PEERS: usize = 1_000;
/// The name that peers above [`MAX_PEERS`] are counted under.
pub const OTHER_PEERS: &str = "(others)";
/// Rules and, last, what no rule decides: a 3GPP2-MEID alone.
const RULES: usize = Rule::ALL.len() + 1;

/// A counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// How many there were.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted for one peer, by its Origin-Host.
#[derive(Debug)]
pub struct PeerStats {
    answers: [[Counter; Status::ALL.len()]; RULES],
    /// Device-Watchdog-Requests that were answered.
    pub watchdogs: Counter,
    /// First attaches that started nothing: journal failing, or breaker tripped.
    pub not_started: Counter,
    /// Answers that left before their record was safe.
    pub hold_timeouts: Counter,
    /// Requests whose connection was gone before their answer could leave.
    pub lost: Counter,
    /// Requests above a limit, answered 3004.
    pub limited: Counter,
    /// Messages handed to the control plane.
    pub punted: Counter,
    /// Messages discarded because the control plane had too many before it.
    pub discarded: Counter,
}

impl Default for PeerStats {
    fn default() -> Self {
        Self {
            answers: std::array::from_fn(|_| std::array::from_fn(|_| Counter::default())),
            watchdogs: Counter::default(),
            not_started: Counter::default(),
            hold_timeouts: Counter::default(),
            lost: Counter::default(),
            limited: Counter::default(),
            punted: Counter::default(),
            discarded: Counter::default(),
        }
    }
}

impl PeerStats {
    /// Counts an answer.
    #[inline]
    pub fn answered(&self, answer: &Answered) {
        let rule = answer.rule.map_or(RULES - 1, |rule| rule as usize);
        if let Some(counter) = self.answers.get(rule).and_then(|row| row.get(answer.status as usize)) {
            counter.add(1);
        }
        if answer.not_started {
            self.not_started.add(1);
        }
    }

    /// (rule, list, count) of every kind of answer that was given.
    #[must_use]
    pub fn answers(&self) -> Vec<(&'static str, &'static str, u64)> {
        let names = Rule::ALL.iter().map(|rule| rule.name()).chain(["meid"]);
        let row = |(name, row): (&'static str, &[Counter; 4])| {
            let counts = Status::ALL.iter().zip(row).map(move |(status, counter)| (name, status.name(), counter.get()));
            counts.filter(|(_, _, count)| *count > 0).collect::<Vec<_>>()
        };
        names.zip(&self.answers).flat_map(row).collect()
    }
}

/// What is counted for the node.
#[derive(Debug, Default)]
pub struct Stats {
    peers: Mutex<BTreeMap<String, Arc<PeerStats>>>,
    buckets: [Counter; BUCKETS_NS.len() + 1],
    answer_ns: Counter,
    /// Connections that were accepted.
    pub accepted: Counter,
    /// Connections closed because TLS failed.
    pub tls_failures: Counter,
    /// Connections closed because the stream could not be cut into messages.
    pub unframeable: Counter,
    /// Connections closed because the peer did not take its answers.
    pub stuck: Counter,
}

impl Stats {
    /// The counters of the peer with this Origin-Host.
    #[must_use]
    pub fn peer(&self, origin_host: &str) -> Arc<PeerStats> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let name = origin_host.to_ascii_lowercase();
        let name = if peers.len() < MAX_PEERS || peers.contains_key(&name) { name } else { OTHER_PEERS.to_owned() };
        Arc::clone(peers.entry(name).or_default())
    }

    /// Every peer that ever opened, with its counters.
    #[must_use]
    pub fn peers(&self) -> Vec<(String, Arc<PeerStats>)> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().map(|(name, stats)| (name.clone(), Arc::clone(stats))).collect()
    }

    /// Counts answers that took this long from read to write.
    #[inline]
    pub fn took(&self, time: Duration, answers: u64) {
        let ns = time.as_nanos() as u64;
        let bucket = BUCKETS_NS.partition_point(|bound| *bound < ns);
        if let Some(counter) = self.buckets.get(bucket) {
            counter.add(answers);
        }
        self.answer_ns.add(ns.saturating_mul(answers));
    }

    /// Counts of the answer-time histogram's buckets, each by itself, and the sum of all times in nanoseconds.
    #[must_use]
    pub fn answer_times(&self) -> (Vec<u64>, u64) {
        (self.buckets.iter().map(Counter::get).collect(), self.answer_ns.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_counted_by_name_whatever_its_case_up_to_a_limit() {
        let stats = Stats::default();
        stats.peer("MME.example").watchdogs.add(1);
        stats.peer("mme.EXAMPLE").watchdogs.add(1);
        assert_eq!(stats.peers().len(), 1);
        for number in 0..2 * MAX_PEERS {
            let _ = stats.peer(&format!("mme{number}"));
        }
        assert_eq!(stats.peers().len(), MAX_PEERS + 1);
        assert!(stats.peers().iter().any(|(name, _)| name == OTHER_PEERS));
    }

    #[test]
    fn answers_fall_into_their_bucket_and_rule() {
        let stats = Stats::default();
        stats.took(Duration::from_nanos(1_000), 3);
        stats.took(Duration::from_nanos(1_001), 1);
        stats.took(Duration::from_secs(5), 1);
        let (buckets, sum) = stats.answer_times();
        assert_eq!((buckets[0], buckets[1], buckets[BUCKETS_NS.len()]), (3, 1, 1));
        assert_eq!(sum, 3 * 1_000 + 1_001 + 5_000_000_000);
        let peer = stats.peer("a");
        peer.answered(&Answered { status: Status::Grey, rule: Some(Rule::FirstAttach), not_started: true });
        peer.answered(&Answered { status: Status::Unknown, rule: None, not_started: false });
        assert_eq!(peer.answers(), [("first-attach", "grey", 1), ("meid", "unknown", 1)]);
        assert_eq!(peer.not_started.get(), 1);
    }
}
