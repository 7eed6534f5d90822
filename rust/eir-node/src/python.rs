//! `eir._core`: the data plane and the bulk work as Python sees them. Typed in `eir/_core.pyi`.
//!
//! Calls that take time let go of the GIL; no thread of the data plane ever takes it.

mod load;

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eir_core::UnixTime;
use eir_core::diameter::VENDOR_3GPP;
use eir_core::diameter::ecr::{Ecr, KNOWN_3GPP, KNOWN_IETF};
use eir_core::grey::{BreakerLimits, GreyTable, Schedule};
use eir_core::imei::{Imei, Imsi, Msisdn};
use eir_core::in_use::Day;
use eir_core::journal::{Event as Record, Journal, OverlayChange};
use eir_core::lists::{self, BuildOptions, FileKind, List};
use eir_core::policy::{self, Prefix, Status};
use eir_core::recent::Answer;
use eir_core::verdict::{Facts, Request, Rule};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::events::Event;
use crate::image_file::Found;
use crate::journal_writer::{JournalConfig, replay_directory};
use crate::node::{self, Explanation, NodeConfig};
use crate::pairs_file;
use crate::snapshot_file;
use crate::stats::{BUCKETS_NS, PeerStats};

create_exception!(_core, SnapshotError, PyException, "A snapshot file cannot be read or is not sound.");
create_exception!(_core, BuildError, PyException, "List files were refused, or the snapshot cannot be written.");

/// (at, IMSI, status, rule).
type RecentAnswer = (UnixTime, Option<String>, &'static str, &'static str);

/// Journal records of one call: more would be a list that nobody wants to hold.
const MOST_RECORDS: usize = 100_000;

/// The settings that the verdict goes by.
#[pyclass(frozen, module = "eir._core")]
struct Policy(policy::Policy);

fn status(name: &str) -> PyResult<Status> {
    Status::from_name(name).ok_or_else(|| PyValueError::new_err(format!("{name:?} is no status")))
}

fn prefixes(texts: &[String], read: fn(&str) -> Option<Prefix>) -> PyResult<Vec<Prefix>> {
    let wrong = |text: &String| PyValueError::new_err(format!("{text:?} is no prefix"));
    texts.iter().map(|text| read(text).ok_or_else(|| wrong(text))).collect()
}

#[pymethods]
impl Policy {
    #[new]
    #[pyo3(signature = (*, all_white, no_list, malformed, home_mccs, roamer_plmns, non_roamer_plmns, hard_reasons,
        test_tacs, tac_max_age, stale_after, schedule, grey_seconds, starts_per_minute, running))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python constructor")]
    fn new(
        all_white: bool,
        no_list: &str,
        malformed: &str,
        home_mccs: Vec<u16>,
        roamer_plmns: Vec<String>,
        non_roamer_plmns: Vec<String>,
        hard_reasons: Vec<String>,
        test_tacs: Vec<String>,
        tac_max_age: UnixTime,
        stale_after: UnixTime,
        schedule: Vec<(UnixTime, UnixTime)>,
        grey_seconds: UnixTime,
        starts_per_minute: u64,
        running: u64,
    ) -> PyResult<Self> {
        Ok(Self(policy::Policy {
            all_white,
            no_list: status(no_list)?,
            malformed: status(malformed)?,
            home_mccs,
            roamer_plmns: prefixes(&roamer_plmns, Prefix::of_imsi)?,
            non_roamer_plmns: prefixes(&non_roamer_plmns, Prefix::of_imsi)?,
            hard_reasons,
            test_tacs: prefixes(&test_tacs, Prefix::of_tac)?,
            tac_max_age,
            stale_after,
            schedule: Schedule::new(schedule, grey_seconds),
            breaker: BreakerLimits { starts_per_minute, running },
        }))
    }
}

/// A mapped snapshot file.
#[pyclass(frozen, module = "eir._core")]
struct Snapshot(Arc<lists::Snapshot>);

#[pymethods]
impl Snapshot {
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let opened = py.detach(|| snapshot_file::open(&path));
        opened.map(|snapshot| Self(Arc::new(snapshot))).map_err(|error| SnapshotError::new_err(error.to_string()))
    }

    /// What the snapshot says of itself.
    #[getter]
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let header = self.0.header();
        let info = PyDict::new(py);
        info.set_item("sequence", header.sequence)?;
        info.set_item("created_at", header.created_at)?;
        info.set_item("tac_as_of", header.tac_as_of)?;
        info.set_item("counts", counts(py, &header.counts)?)?;
        Ok(info)
    }

    /// The verdict of this snapshot alone, without timers and overlay.
    fn explain<'py>(
        &self,
        py: Python<'py>,
        imei: &str,
        imsi: Option<&str>,
        policy: &Policy,
        now: UnixTime,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (overlay, grey) = (lists::Overlay::default(), GreyTable::default());
        let facts = Facts { snapshot: Some(&*self.0), overlay: &overlay, grey: &grey, policy: &policy.0, now };
        explanation(py, &node::explain(&request(imei, imsi)?, &facts))
    }
}

fn counts<'py>(py: Python<'py>, counts: &lists::Counts) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, count) in [
        ("white", counts.white),
        ("black", counts.black),
        ("grey", counts.grey),
        ("ranges", counts.ranges),
        ("exempt_tacs", counts.exempt_tacs),
        ("allocated_tacs", counts.allocated_tacs),
        ("exempt_imsis", counts.exempt_imsis),
        ("pairs", counts.pairs),
    ] {
        dict.set_item(name, count)?;
    }
    Ok(dict)
}

fn request(imei: &str, imsi: Option<&str>) -> PyResult<Request> {
    let imsi = imsi.map(|text| {
        Imsi::from_digits(text.as_bytes()).ok_or_else(|| PyValueError::new_err("an IMSI has 6 to 15 digits"))
    });
    Ok(Request { imei: Imei::from_digits(imei.as_bytes()), imsi: imsi.transpose()? })
}

fn explanation<'py>(py: Python<'py>, explanation: &Explanation) -> PyResult<Bound<'py, PyDict>> {
    let Explanation { verdict, asked, listing, range } = explanation;
    let dict = PyDict::new(py);
    dict.set_item("status", verdict.status.name())?;
    dict.set_item("rule", verdict.rule.name())?;
    dict.set_item("asked", asked.iter().map(|rule| rule.name()).collect::<Vec<_>>())?;
    dict.set_item("timer", verdict.timer.map(|(timer, _)| (timer.start, timer.deadline)))?;
    dict.set_item("listing", listing.as_ref().map(|(list, reason, overlay)| (*list, reason, *overlay)))?;
    dict.set_item("range", range.as_ref().map(|(list, reason)| (*list, reason)))?;
    Ok(dict)
}

/// A running data plane.
#[pyclass(frozen, module = "eir._core")]
struct Node(node::Node);

#[pymethods]
impl Node {
    #[new]
    #[pyo3(signature = (*, origin_host, origin_realm, origin_state_id, workers, max_connections, max_events, hold_ms,
        journal_directory, journal_segment_bytes, journal_max_bytes, policy, image=None, in_use_bytes=0))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python constructor")]
    fn new(
        py: Python<'_>,
        origin_host: String,
        origin_realm: String,
        origin_state_id: u32,
        workers: usize,
        max_connections: usize,
        max_events: usize,
        hold_ms: u64,
        journal_directory: PathBuf,
        journal_segment_bytes: u64,
        journal_max_bytes: u64,
        policy: &Policy,
        image: Option<PathBuf>,
        in_use_bytes: usize,
    ) -> PyResult<Self> {
        let config = NodeConfig {
            origin_host,
            origin_realm,
            origin_state_id,
            workers,
            max_connections,
            max_events,
            hold: Duration::from_millis(hold_ms),
            journal: JournalConfig {
                directory: journal_directory,
                segment_bytes: journal_segment_bytes,
                max_bytes: journal_max_bytes,
            },
            image,
            in_use_bytes,
        };
        Ok(Self(py.detach(|| node::Node::start(config, policy.0.clone()))?))
    }

    /// (sound records, damaged records, torn octets) that the replay of the journal met at start.
    #[getter]
    fn replayed(&self) -> (u64, u64, u64) {
        let replayed = self.0.replayed();
        (replayed.records, replayed.damaged, replayed.torn)
    }

    /// What became of the image at start: `none`, `loaded`, or what is wrong with it.
    #[getter]
    fn image_state(&self) -> String {
        match self.0.image() {
            Found::None => "none".into(),
            Found::Loaded(_) => "loaded".into(),
            Found::Damaged(why) => format!("damaged: {why}"),
        }
    }

    /// The position in the store that came with the image.
    #[getter]
    fn image_follow<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        match self.0.image() {
            Found::Loaded(covered) => Some(PyBytes::new(py, &covered.follow)),
            _ => None,
        }
    }

    fn write_image(&self, py: Python<'_>, path: PathBuf, follow: Vec<u8>) -> PyResult<u64> {
        py.detach(|| self.0.write_image(&path, follow)).map_err(Into::into)
    }

    fn journal_fileno(&self) -> i32 {
        self.0.journal().grown().descriptor()
    }

    fn clear_journal_event(&self) {
        self.0.journal().grown().clear();
    }

    fn journal_position(&self) -> u64 {
        self.0.journal().progress().durable
    }

    fn read_journal<'py>(&self, py: Python<'py>, after: u64, most: usize) -> PyResult<(Bound<'py, PyList>, u64)> {
        let mut records = Vec::new();
        let most = most.min(MOST_RECORDS);
        let reached = py.detach(|| self.0.read_journal(after, most, |_, event| records.push(event)))?;
        let list = PyList::empty(py);
        for record in &records {
            if let Some(tuple) = journal_record(py, record)? {
                list.append(tuple)?;
            }
        }
        Ok((list, reached))
    }

    fn trim_journal(&self, py: Python<'_>, before: u64) -> PyResult<u64> {
        py.detach(|| self.0.journal().trim(before)).map_err(Into::into)
    }

    fn set_timers(&self, py: Python<'_>, entries: Vec<(u64, UnixTime, UnixTime)>) {
        py.detach(|| self.0.set_timers(entries));
    }

    fn timers_listed(&self, py: Python<'_>, now: UnixTime) -> Vec<(u64, UnixTime, &'static str)> {
        let listed = py.detach(|| self.0.timers_listed(now));
        listed.into_iter().map(|(imei, start, rule)| (imei.number(), start, rule.name())).collect()
    }

    fn listen(&self, host: IpAddr, port: u16) -> PyResult<(String, u16)> {
        let address = self.0.listen(SocketAddr::new(host, port))?;
        Ok((address.ip().to_string(), address.port()))
    }

    fn stop_listening(&self) {
        self.0.stop_listening();
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }

    fn events_fileno(&self) -> i32 {
        self.0.events().descriptor()
    }

    fn take_events<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Bound<'py, PyList>> {
        let events = self.0.events().take(most);
        let tuples = events.into_iter().map(|event| match event {
            Event::Connected { connection, remote, local } => {
                ("connected", connection, remote.ip().to_string(), remote.port(), local.ip().to_string())
                    .into_pyobject(py)
            }
            Event::Message { connection, bytes, .. } => {
                ("message", connection, PyBytes::new(py, &bytes)).into_pyobject(py)
            }
            Event::Closed { connection, reason } => ("closed", connection, reason).into_pyobject(py),
        });
        PyList::new(py, tuples.collect::<PyResult<Vec<Bound<'py, PyTuple>>>>()?)
    }

    fn send(&self, connection: u64, data: &[u8]) -> bool {
        self.0.send(connection, data.to_vec())
    }

    fn open(&self, connection: u64, data: &[u8], origin_host: &str) -> bool {
        self.0.open(connection, data.to_vec(), origin_host)
    }

    fn close(&self, connection: u64, data: &[u8]) -> bool {
        self.0.close(connection, data.to_vec())
    }

    fn idle_seconds(&self, connection: u64) -> Option<f64> {
        self.0.idle(connection).map(|idle| idle.as_secs_f64())
    }

    fn set_policy(&self, py: Python<'_>, policy: &Policy) {
        py.detach(|| self.0.set_policy(policy.0.clone()));
    }

    fn set_snapshot(&self, py: Python<'_>, snapshot: &Snapshot) {
        py.detach(|| self.0.set_snapshot(Arc::clone(&snapshot.0)));
    }

    /// What the snapshot in force says of itself.
    fn snapshot_info<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.0.snapshot().map(|snapshot| Snapshot(snapshot).info(py)).transpose()
    }

    fn set_overlay(&self, py: Python<'_>, imei: &str, change: &str, reason: &str, at: UnixTime) -> PyResult<()> {
        let imei = person_imei(imei)?;
        let change = match change {
            "unlisted" => OverlayChange::Unlisted,
            "withdrawn" => OverlayChange::Withdrawn,
            list => OverlayChange::Listed(
                List::from_name(list).ok_or_else(|| PyValueError::new_err(format!("{list:?} is no list")))?,
            ),
        };
        py.detach(|| self.0.set_overlay(imei, change, reason, at)).map_err(Into::into)
    }

    fn set_breaker(&self, py: Python<'_>, tripped: bool, at: UnixTime) -> PyResult<()> {
        py.detach(|| self.0.set_breaker(tripped, at)).map_err(Into::into)
    }

    fn explain<'py>(
        &self,
        py: Python<'py>,
        imei: &str,
        imsi: Option<&str>,
        now: UnixTime,
    ) -> PyResult<Bound<'py, PyDict>> {
        explanation(py, &self.0.explain(&request(imei, imsi)?, now))
    }

    fn prune(&self, py: Python<'_>, now: UnixTime) {
        py.detach(|| self.0.grey().prune(now));
    }

    /// (at, IMSI, status, rule) of the last answers to a device that were not white.
    fn recent(&self, py: Python<'_>, imei: u64) -> PyResult<Vec<RecentAnswer>> {
        let imei = key_imei(imei)?;
        let answers = py.detach(|| self.0.recent().for_device(imei));
        let tuple =
            |answer: Answer| (answer.at, answer.imsi.map(Imsi::digits), answer.status.name(), answer.rule.name());
        Ok(answers.into_iter().map(tuple).collect())
    }

    fn last_seen(&self, imei: u64) -> PyResult<Option<Day>> {
        Ok(self.0.in_use().last_day(key_imei(imei)?))
    }

    fn rotate_in_use(&self, py: Python<'_>, day: Day) {
        py.detach(|| self.0.in_use().rotate(day));
    }

    fn write_pairs(&self, py: Python<'_>, day: Day, path: PathBuf) -> PyResult<u64> {
        py.detach(|| pairs_file::write(self.0.in_use(), day, &path)).map_err(Into::into)
    }

    /// Everything that is counted or measured, in one dict; the keys are those of `eir/_core.pyi`.
    fn stats<'py>(&self, py: Python<'py>, now: UnixTime) -> PyResult<Bound<'py, PyDict>> {
        let (stats, journal, grey) = (self.0.stats(), self.0.journal().stats(), self.0.grey());
        let (buckets, sum_ns) = stats.answer_times();
        let dict = PyDict::new(py);
        let peers = PyDict::new(py);
        for (name, peer) in stats.peers() {
            peers.set_item(name, peer_stats(py, &peer)?)?;
        }
        dict.set_item("peers", peers)?;
        dict.set_item("before_open", peer_stats(py, self.0.before_open())?)?;
        dict.set_item("answer_bounds_ns", BUCKETS_NS.to_vec())?;
        dict.set_item("answer_buckets", buckets)?;
        dict.set_item("answer_sum_ns", sum_ns)?;
        dict.set_item("connections", self.0.connections().len())?;
        for (name, counter) in [
            ("accepted", &stats.accepted),
            ("refused", &stats.refused),
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
        dict.set_item("overlay_entries", self.0.overlay_len())?;
        let in_use = self.0.in_use();
        dict.set_item("in_use_pairs", in_use.len())?;
        dict.set_item("in_use_dropped", in_use.dropped())?;
        dict.set_item("in_use_bytes", in_use.octets())?;
        Ok(dict)
    }
}

/// A journal record as the control plane has it; `None` for what it has no use for.
fn journal_record<'py>(py: Python<'py>, record: &Record) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let digits = |imsi: &Option<Imsi>| imsi.map(Imsi::digits);
    let number = |msisdn: &Option<Msisdn>| msisdn.map(Msisdn::digits);
    let tuple = match record {
        Record::Start { imei, imsi, msisdn, timer } => {
            ("start", imei.number(), timer.start, digits(imsi), number(msisdn), timer.deadline).into_pyobject(py)?
        }
        Record::Seen { imei, imsi, msisdn, at } => {
            ("seen", imei.number(), *at, imsi.digits(), number(msisdn)).into_pyobject(py)?
        }
        Record::BlackAttempt { imei, imsi, msisdn, at, rule } => {
            let rule = Rule::ALL.get(usize::from(*rule)).map_or("unknown", |rule| rule.name());
            ("attempt", imei.number(), *at, digits(imsi), number(msisdn), rule).into_pyobject(py)?
        }
        Record::Cancel { imei, at } => ("cancel", imei.number(), *at).into_pyobject(py)?,
        Record::Breaker { .. } | Record::Overlay { .. } => return Ok(None),
    };
    Ok(Some(tuple))
}

fn person_imei(text: &str) -> PyResult<Imei> {
    Imei::from_person(text).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn key_imei(key: u64) -> PyResult<Imei> {
    Imei::from_number(key).ok_or_else(|| PyValueError::new_err("an IMEI has 14 digits, not all zero"))
}

fn peer_stats<'py>(py: Python<'py>, peer: &PeerStats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("answers", peer.answers())?;
    for (name, counter) in [
        ("watchdogs", &peer.watchdogs),
        ("not_started", &peer.not_started),
        ("hold_timeouts", &peer.hold_timeouts),
        ("lost", &peer.lost),
        ("punted", &peer.punted),
        ("discarded", &peer.discarded),
    ] {
        dict.set_item(name, counter.get())?;
    }
    Ok(dict)
}

/// List files on their way into a snapshot.
#[pyclass(module = "eir._core")]
struct SnapshotBuilder(Option<lists::SnapshotBuilder>);

/// A file that stops giving when the progress callback has raised.
struct Stoppable<'a> {
    file: File,
    raised: &'a std::cell::RefCell<Option<PyErr>>,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, place: &mut [u8]) -> io::Result<usize> {
        if self.raised.borrow().is_some() {
            return Err(io::Error::other("stopped"));
        }
        self.file.read(place)
    }
}

#[pymethods]
impl SnapshotBuilder {
    #[new]
    #[pyo3(signature = (*, strict, max_bad_share, sequence, created_at, tac_as_of, hard_reasons))]
    fn new(
        strict: bool,
        max_bad_share: f64,
        sequence: u64,
        created_at: UnixTime,
        tac_as_of: UnixTime,
        hard_reasons: Vec<String>,
    ) -> PyResult<Self> {
        let options = BuildOptions { strict, max_bad_share, sequence, created_at, tac_as_of };
        let mut builder = lists::SnapshotBuilder::new(options);
        if !builder.keep_black_reasons(&hard_reasons) {
            return Err(PyValueError::new_err("a snapshot has no place for so many hard reasons"));
        }
        Ok(Self(Some(builder)))
    }

    fn add(&mut self, py: Python<'_>, kind: &str, path: PathBuf, progress: Py<PyAny>) -> PyResult<()> {
        let kind = match kind {
            "devices" => FileKind::Devices,
            "ranges" => FileKind::Ranges,
            "allocated-tacs" => FileKind::AllocatedTacs,
            "exempt-tacs" => FileKind::ExemptTacs,
            "exempt-imsis" => FileKind::ExemptImsis,
            "pairs" => FileKind::Pairs,
            _ => return Err(PyValueError::new_err(format!("{kind:?} is no kind of list file"))),
        };
        let builder = self.0.as_mut().ok_or_else(finished)?;
        let name = path.display().to_string();
        let file = File::open(&path).map_err(|error| PyOSError::new_err(format!("{name}: {error}")))?;
        let (added, raised) = py.detach(|| {
            let raised = std::cell::RefCell::new(None);
            let added = builder.add(kind, &name, Stoppable { file, raised: &raised }, &mut |bytes| {
                Python::attach(|py| {
                    if let Err(error) = progress.call1(py, (bytes,)) {
                        raised.borrow_mut().get_or_insert(error);
                    }
                });
            });
            (added, raised.into_inner())
        });
        match raised {
            Some(error) => Err(error),
            None => added.map_err(|error| BuildError::new_err(error.to_string())),
        }
    }

    fn finish<'py>(&mut self, py: Python<'py>, path: PathBuf) -> PyResult<Bound<'py, PyDict>> {
        let builder = self.0.take().ok_or_else(finished)?;
        let report = py
            .detach(|| snapshot_file::write(builder, &path))
            .map_err(|error| BuildError::new_err(error.to_string()))?;
        let dict = PyDict::new(py);
        dict.set_item("rows", report.files.iter().map(|file| file.rows).sum::<u64>())?;
        dict.set_item("wrong_rows", report.wrong_rows())?;
        let first: Vec<_> =
            report.first_wrong_rows().map(|row| (&row.file, row.line, row.reason.to_string())).collect();
        dict.set_item("first_wrong_rows", first)?;
        dict.set_item("check_digit_mismatches", report.check_digit_mismatches())?;
        dict.set_item("duplicates", report.duplicates)?;
        dict.set_item("contradictions", report.contradictions)?;
        let first: Vec<_> = report.first_contradictions.iter().map(ToString::to_string).collect();
        dict.set_item("first_contradictions", first)?;
        dict.set_item("dropped_reasons", report.dropped_reasons)?;
        dict.set_item("counts", counts(py, &report.counts)?)?;
        dict.set_item("bytes", report.bytes)?;
        Ok(dict)
    }
}

fn finished() -> PyErr {
    PyValueError::new_err("the snapshot is finished")
}

/// The 14-digit key of what a person typed.
#[pyfunction]
fn imei_key(text: &str) -> PyResult<String> {
    person_imei(text).map(|imei| imei.to_string())
}

/// Whether the data plane answers this ECR itself.
#[pyfunction]
fn answerable(data: &[u8]) -> bool {
    Ecr::read(data).is_ok()
}

/// (sound records, damaged records, torn octets, timers started) of a journal directory; changes nothing.
#[pyfunction]
fn inspect_journal(py: Python<'_>, directory: PathBuf) -> PyResult<(u64, u64, u64, u64)> {
    let mut starts = 0;
    let replayed = py.detach(|| {
        replay_directory(&directory, 0, |_, event| starts += u64::from(matches!(event, Record::Start { .. })))
    });
    let (replayed, _) = replayed?;
    Ok((replayed.records, replayed.damaged, replayed.torn, starts))
}

/// The extension module.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Policy>()?;
    module.add_class::<Snapshot>()?;
    module.add_class::<Node>()?;
    module.add_class::<SnapshotBuilder>()?;
    module.add("SnapshotError", module.py().get_type::<SnapshotError>())?;
    module.add("BuildError", module.py().get_type::<BuildError>())?;
    module.add_function(wrap_pyfunction!(answerable, module)?)?;
    module.add_function(wrap_pyfunction!(imei_key, module)?)?;
    module.add_function(wrap_pyfunction!(load::run_load, module)?)?;
    module.add_function(wrap_pyfunction!(inspect_journal, module)?)?;
    let of_vendor = |vendor: u32, codes: &[u32]| codes.iter().map(|code| (vendor, *code)).collect::<Vec<_>>();
    module.add("KNOWN_AVPS", [of_vendor(0, KNOWN_IETF), of_vendor(VENDOR_3GPP, KNOWN_3GPP)].concat())?;
    Ok(())
}
