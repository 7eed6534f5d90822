//! The load generator as Python sees it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::load::{
    self, ClientTls, ImeiSource, ImsiPick, ImsiSource, LoadError, LoadMode, LoadPlan, LoadReport, TlsFiles, TlsVersion,
};

/// How often a run looks whether the person at the keyboard has had enough.
const SIGNALS: Duration = Duration::from_millis(100);

/// Runs one load against a node and returns what it found; the keys are those of `eir/_core.pyi`.
#[pyfunction]
#[pyo3(signature = (host, port, *, window=None, rate=None, duration, warm_up=0.0, connections=1, imeis=None,
    imei_range=None, walk=false, imsis=None, max_outstanding=10_000, seed=1, busy_poll=false, record_answers=false,
    realm=None, origin_prefix=None, full=false, tls=false, ca_file=None, certificate_file=None, key_file=None,
    server_name=None, tls_version=None))]
#[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python function")]
pub(super) fn run_load<'py>(
    py: Python<'py>,
    host: IpAddr,
    port: u16,
    window: Option<usize>,
    rate: Option<u64>,
    duration: f64,
    warm_up: f64,
    connections: usize,
    imeis: Option<Vec<u64>>,
    imei_range: Option<(u64, u64)>,
    walk: bool,
    imsis: Option<(u64, u64)>,
    max_outstanding: usize,
    seed: u64,
    busy_poll: bool,
    record_answers: bool,
    realm: Option<String>,
    origin_prefix: Option<String>,
    full: bool,
    tls: bool,
    ca_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    server_name: Option<String>,
    tls_version: Option<&str>,
) -> PyResult<Bound<'py, PyDict>> {
    let mode = match (window, rate) {
        (Some(window), None) => LoadMode::Closed { window },
        (None, Some(rate)) => LoadMode::Open { rate, max_outstanding },
        _ => return Err(PyValueError::new_err("either window or rate")),
    };
    let imeis = match (imeis, imei_range) {
        (Some(listed), None) => ImeiSource::Listed(listed.into()),
        (None, Some((from, to))) if walk => ImeiSource::Walk(from..to),
        (None, Some((from, to))) => ImeiSource::Random(from..to),
        _ => return Err(PyValueError::new_err("either imeis or imei_range")),
    };
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).map_err(|_| PyValueError::new_err("no duration"));
    let mut plan = LoadPlan::new(SocketAddr::new(host, port), mode, imeis);
    plan.duration = seconds(duration)?;
    plan.warm_up = seconds(warm_up)?;
    plan.connections = connections;
    plan.imsis = imsis.map(|(base, count)| ImsiSource { base, count, pick: ImsiPick::PerDevice });
    plan.seed = seed;
    plan.busy_poll = busy_poll;
    plan.record_answers = record_answers;
    if let Some(realm) = realm {
        plan.origin_realm.clone_from(&realm);
        plan.destination_realm = realm;
    }
    plan.origin_prefix = origin_prefix.unwrap_or(plan.origin_prefix);
    plan.full = full;
    let version = match tls_version {
        None => None,
        Some("1.2") => Some(TlsVersion::V12),
        Some("1.3") => Some(TlsVersion::V13),
        Some(_) => return Err(PyValueError::new_err("tls_version is 1.2 or 1.3")),
    };
    let files = TlsFiles { ca: ca_file, certificate: certificate_file, key: key_file, server_name, version };
    if tls {
        plan.tls = Some(ClientTls::new(&files).map_err(as_raised)?);
    } else if files != TlsFiles::default() {
        return Err(PyValueError::new_err("certificates, a server's name and a version are for TLS"));
    }
    let cancel = AtomicBool::new(false);
    let (result, raised) = std::thread::scope(|scope| {
        let run = scope.spawn(|| load::run(&plan, &cancel));
        let mut raised = None;
        while !run.is_finished() {
            py.detach(|| std::thread::sleep(SIGNALS));
            if let Err(error) = py.check_signals() {
                cancel.store(true, Ordering::Relaxed);
                raised.get_or_insert(error);
            }
        }
        (run.join(), raised)
    });
    if let Some(error) = raised {
        return Err(error);
    }
    let report = result.map_err(|_| PyRuntimeError::new_err("the load generator failed"))?;
    as_dict(py, &report.map_err(as_raised)?)
}

fn as_raised(error: LoadError) -> PyErr {
    match error {
        LoadError::Plan(what) => PyValueError::new_err(what),
        LoadError::Tls(what) => PyValueError::new_err(what),
        other => PyOSError::new_err(other.to_string()),
    }
}

fn as_dict<'py>(py: Python<'py>, report: &LoadReport) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, count) in [
        ("sent", report.sent),
        ("answered", report.answered),
        ("white", report.white),
        ("black", report.black),
        ("grey", report.grey),
        ("no_status", report.no_status),
        ("lost", report.lost),
        ("unsent", report.unsent),
        ("unmatched", report.unmatched),
        ("connections_lost", report.connections_lost),
        ("p50_ns", report.latency.p50),
        ("p90_ns", report.latency.p90),
        ("p99_ns", report.latency.p99),
        ("p999_ns", report.latency.p999),
        ("max_ns", report.latency.max),
    ] {
        dict.set_item(name, count)?;
    }
    dict.set_item("errors", &report.errors)?;
    dict.set_item("first_loss", &report.first_loss)?;
    dict.set_item("seconds", report.elapsed.as_secs_f64())?;
    dict.set_item("rate", report.rate)?;
    dict.set_item("mean_ns", report.latency.mean)?;
    let status = |status| match status {
        load::Status::White => Some("white"),
        load::Status::Black => Some("black"),
        load::Status::Grey => Some("grey"),
        load::Status::None => None,
    };
    let answers: Vec<_> = report.answers.iter().map(|answer| (answer.imei, status(answer.status))).collect();
    dict.set_item("answers", answers)?;
    Ok(dict)
}
