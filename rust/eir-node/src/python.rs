//! `eir._core`: the data plane and the bulk work as Python sees them. Typed in `eir/_core.pyi`.
//!
//! Calls that take time let go of the GIL; no thread of the data plane ever takes it.

mod builder;
mod exchange;
mod lists_in_force;
mod load;
mod stats;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eir_core::UnixTime;
use eir_core::diameter::VENDOR_3GPP;
use eir_core::diameter::ecr::{Ecr, KNOWN_3GPP, KNOWN_IETF};
use eir_core::diameter::terms::{self, Sender};
use eir_core::grey::{BreakerLimits, GreyTable, Schedule};
use eir_core::imei::{Imei, Imsi, Msisdn};
use eir_core::in_use::Day;
use eir_core::journal::{Event as Record, Journal, OverlayChange};
use eir_core::lists::{self, List};
use eir_core::policy::{self, Prefix, Status};
use eir_core::recent::Answer;
use eir_core::verdict::{Facts, Request, Rule};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::events::Event;
use crate::gate::{GateSettings, Network};
use crate::image_file::Found;
use crate::journal_writer::{JournalConfig, replay_directory};
use crate::node::{self, Explanation, NodeConfig};
use crate::pairs_file;
use crate::snapshot_file;
use crate::tls::{Tls, TlsFiles};
use crate::trace::{Filter, Traced};
use lists_in_force::Delta;

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

/// What a peer may, and how its answers look.
#[pyclass(frozen, module = "eir._core")]
struct Terms(terms::Terms);

#[pymethods]
impl Terms {
    #[new]
    #[pyo3(signature = (*, requests_per_second=0, load=false, grey="grey", unknown="unknown", malformed=None))]
    fn new(requests_per_second: u64, load: bool, grey: &str, unknown: &str, malformed: Option<&str>) -> PyResult<Self> {
        let (grey, unknown, malformed) = (status(grey)?, status(unknown)?, malformed.map(status).transpose()?);
        Ok(Self(terms::Terms { requests_per_second, load, grey, unknown, malformed }))
    }
}

/// A mapped snapshot file.
#[pyclass(frozen, module = "eir._core")]
struct Snapshot(Arc<lists::Snapshot>);

#[pymethods]
impl Snapshot {
    #[staticmethod]
    #[pyo3(signature = (path, whole=true))]
    fn open(py: Python<'_>, path: PathBuf, whole: bool) -> PyResult<Self> {
        let opened = py.detach(|| snapshot_file::open(&path, whole));
        opened.map(|snapshot| Self(Arc::new(snapshot))).map_err(|error| SnapshotError::new_err(error.to_string()))
    }

    /// Checks about so many octets of the file, as it is mapped, from `start` on; gives where to go on.
    #[pyo3(signature = (start, octets, /))]
    fn scrub(&self, py: Python<'_>, start: usize, octets: usize) -> PyResult<Option<usize>> {
        py.detach(|| self.0.scrub(start, octets)).map_err(|error| SnapshotError::new_err(error.to_string()))
    }

    /// Writes one kind of its rows as a list file; gives how many.
    #[pyo3(signature = (kind, path, *, zone))]
    fn export(&self, py: Python<'_>, kind: &str, path: PathBuf, zone: Vec<(i64, i32)>) -> PyResult<u64> {
        exchange::export(py, &self.0, kind, path, zone)
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
        info.set_item("bytes", self.0.length())?;
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
        let facts =
            Facts { snapshot: Some(&*self.0), deltas: None, overlay: &overlay, grey: &grey, policy: &policy.0, now };
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
        ("deadlines", counts.deadlines),
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
    let Explanation { verdict, asked, listing, deadline, range } = explanation;
    let dict = PyDict::new(py);
    dict.set_item("status", verdict.status.name())?;
    dict.set_item("rule", verdict.rule.name())?;
    dict.set_item("asked", asked.iter().map(|rule| rule.name()).collect::<Vec<_>>())?;
    dict.set_item("timer", verdict.timer.map(|(timer, _)| (timer.start, timer.deadline)))?;
    dict.set_item("listing", listing.as_ref().map(|(list, reason, overlay)| (*list, reason, *overlay)))?;
    dict.set_item("deadline", *deadline)?;
    dict.set_item("range", range.as_ref().map(|(list, reason)| (*list, reason)))?;
    Ok(dict)
}

/// A running data plane.
#[pyclass(frozen, module = "eir._core")]
struct Node(node::Node);

#[pymethods]
impl Node {
    #[new]
    #[pyo3(signature = (*, origin_host, origin_realm, origin_state_id, workers, max_events, hold_ms,
        journal_directory, journal_segment_bytes, journal_max_bytes, policy, image=None, in_use_bytes=0))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python constructor")]
    fn new(
        py: Python<'_>,
        origin_host: String,
        origin_realm: String,
        origin_state_id: u32,
        workers: usize,
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

    #[pyo3(signature = (host, port, tls=false))]
    fn listen(&self, host: IpAddr, port: u16, tls: bool) -> PyResult<(String, u16)> {
        let address = self.0.listen(SocketAddr::new(host, port), tls)?;
        Ok((address.ip().to_string(), address.port()))
    }

    fn connect(&self, host: IpAddr, port: u16, tls_name: Option<&str>) -> PyResult<u64> {
        Ok(self.0.connect(SocketAddr::new(host, port), tls_name)?)
    }

    fn set_gate(
        &self,
        networks: Vec<String>,
        max_connections: usize,
        max_per_address: usize,
        max_unopened: usize,
    ) -> PyResult<()> {
        let wrong = |text: &String| PyValueError::new_err(format!("{text:?} is no network"));
        let networks = networks.iter().map(|text| Network::parse(text).ok_or_else(|| wrong(text)));
        let networks = Some(networks.collect::<PyResult<Vec<_>>>()?);
        self.0.gate().set(GateSettings { networks, max_connections, max_per_address, max_unopened });
        Ok(())
    }

    fn set_tls(
        &self,
        py: Python<'_>,
        certificate_file: PathBuf,
        key_file: PathBuf,
        ca_file: PathBuf,
        require_client_certificate: bool,
    ) -> PyResult<()> {
        let files = TlsFiles {
            certificate: &certificate_file,
            key: &key_file,
            authorities: &ca_file,
            client_certificate_required: require_client_certificate,
        };
        self.0.set_tls(py.detach(|| Tls::load(&files)).map_err(PyValueError::new_err)?);
        Ok(())
    }

    fn tls_expires(&self) -> Option<i64> {
        self.0.tls_expires()
    }

    fn set_terms(&self, origin_host: &str, terms: Option<&Terms>) {
        self.0.set_terms(origin_host, terms.map(|terms| terms.0));
    }

    fn set_node_limit(&self, requests_per_second: u64) {
        self.0.set_limit(requests_per_second);
    }

    fn secure(&self, connection: u64, data: &[u8]) -> bool {
        self.0.secure(connection, data.to_vec())
    }

    fn certified(&self, connection: u64, origin_host: &str) -> Option<bool> {
        self.0.is_certified(connection, origin_host)
    }

    fn tls_version(&self, connection: u64) -> Option<&'static str> {
        self.0.tls_version(connection)
    }

    fn trace_start(&self, imei: Option<u64>, imsi: Option<&str>, peer: Option<String>, most: usize) -> PyResult<u64> {
        let imei = imei.map(key_imei).transpose()?;
        let imsi = imsi.map(|text| {
            Imsi::from_digits(text.as_bytes()).ok_or_else(|| PyValueError::new_err("an IMSI has 6 to 15 digits"))
        });
        let started = self.0.traces().start(Filter { imei, imsi: imsi.transpose()?, peer }, most);
        started.ok_or_else(|| PyValueError::new_err("there are too many traces already"))
    }

    fn trace_take<'py>(&self, py: Python<'py>, trace: u64) -> PyResult<(Bound<'py, PyList>, u64)> {
        let found = self.0.traces().take(trace);
        let (found, left_out) = found.ok_or_else(|| PyValueError::new_err("there is no such trace"))?;
        let tuple = |traced: Traced| {
            let Traced { at, connection, peer, request, answer, rule, outcome } = traced;
            let (request, answer) = (PyBytes::new(py, &request), PyBytes::new(py, &answer));
            (at, connection, peer, request, answer, rule.map(Rule::name), outcome).into_pyobject(py)
        };
        let tuples = found.into_iter().map(tuple).collect::<PyResult<Vec<Bound<'py, PyTuple>>>>()?;
        Ok((PyList::new(py, tuples)?, left_out))
    }

    fn trace_stop(&self, trace: u64) -> bool {
        self.0.traces().stop(trace)
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
            Event::Connected { connection, remote, local, kind } => {
                let (host, port, local) = (remote.ip().to_string(), remote.port(), local.ip().to_string());
                ("connected", connection, host, port, local, kind.name()).into_pyobject(py)
            }
            Event::Secured { connection } => ("secured", connection).into_pyobject(py),
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

    fn open(
        &self,
        connection: u64,
        data: &[u8],
        origin_host: &str,
        sender: &str,
        advertised_relay: bool,
    ) -> PyResult<bool> {
        let sender = match sender {
            "relay" => Sender::Anyone,
            "auto" if advertised_relay => Sender::Anyone,
            "auto" => Sender::ItselfOrRouted(origin_host.into()),
            "direct" => Sender::Itself(origin_host.into()),
            _ => return Err(PyValueError::new_err(format!("{sender:?} is no role"))),
        };
        Ok(self.0.open(connection, data.to_vec(), origin_host, sender))
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

    #[pyo3(signature = (snapshot, deltas=Vec::new()))]
    fn set_lists(
        &self,
        py: Python<'_>,
        snapshot: &Snapshot,
        deltas: Vec<(PyRef<'_, Delta>, u64, UnixTime)>,
    ) -> PyResult<()> {
        let layer = lists_in_force::layer(py, &snapshot.0, &deltas)?;
        py.detach(|| self.0.set_lists(Arc::clone(&snapshot.0), layer));
        Ok(())
    }

    fn apply_delta(&self, py: Python<'_>, delta: &Delta, sequence: u64, as_of: UnixTime) -> PyResult<()> {
        let lists::Delta { devices, pairs, .. } = &delta.0;
        let applied = py.detach(|| self.0.apply_delta(devices, pairs, sequence, as_of));
        applied.map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn foresee_lists<'py>(
        &self,
        py: Python<'py>,
        snapshot: &Snapshot,
        deltas: Vec<(PyRef<'py, Delta>, u64, UnixTime)>,
        now: UnixTime,
    ) -> PyResult<Bound<'py, PyDict>> {
        let layer = lists_in_force::layer(py, &snapshot.0, &deltas)?;
        let forecast = py.detach(|| self.0.foresee_lists(&snapshot.0, layer.as_ref(), now));
        lists_in_force::forecast(py, &forecast)
    }

    fn foresee_delta<'py>(&self, py: Python<'py>, delta: &Delta, now: UnixTime) -> PyResult<Bound<'py, PyDict>> {
        let forecast = py.detach(|| self.0.foresee_delta(&delta.0.devices, now));
        lists_in_force::forecast(py, &forecast)
    }

    /// How far the lists in force are; nothing where there are none.
    fn lists_position<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.0.deltas().map(|deltas| lists_in_force::position(py, &deltas)).transpose()
    }

    /// Devices on each of the national lists.
    fn lists_counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = py.detach(|| self.0.lists_counts());
        lists_in_force::by_list(py, counts)
    }

    /// (IMEI, list or none, reason) of every entry of the operator's own.
    fn own_entries(&self, py: Python<'_>) -> Vec<(String, Option<&'static str>, String)> {
        py.detach(|| self.0.own_entries())
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
        stats::stats(py, &self.0, now)
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
    module.add_class::<Terms>()?;
    module.add_class::<Snapshot>()?;
    module.add_class::<Delta>()?;
    module.add_class::<Node>()?;
    module.add_class::<builder::SnapshotBuilder>()?;
    module.add("SnapshotError", module.py().get_type::<SnapshotError>())?;
    module.add("BuildError", module.py().get_type::<BuildError>())?;
    module.add_function(wrap_pyfunction!(answerable, module)?)?;
    module.add_function(wrap_pyfunction!(imei_key, module)?)?;
    module.add_function(wrap_pyfunction!(exchange::compare, module)?)?;
    module.add_function(wrap_pyfunction!(exchange::write_delta, module)?)?;
    module.add_function(wrap_pyfunction!(load::run_load, module)?)?;
    module.add_function(wrap_pyfunction!(inspect_journal, module)?)?;
    let of_vendor = |vendor: u32, codes: &[u32]| codes.iter().map(|code| (vendor, *code)).collect::<Vec<_>>();
    module.add("KNOWN_AVPS", [of_vendor(0, KNOWN_IETF), of_vendor(VENDOR_3GPP, KNOWN_3GPP)].concat())?;
    Ok(())
}
