//! Live copies of chosen requests and their answers, for people who look for a fault.
//!
//! Called by connections for what the data plane answers, while somebody traces; what that costs is paid by those requests
//! that are looked at. It masks nothing: that is done by who shows it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use eir_core::diameter::ecr::Ecr;
use eir_core::diameter::s13::Outcome;
use eir_core::imei::{Imei, Imsi};
use eir_core::verdict::Rule;

/// Octets of one trace that may wait to be taken: a message may have 64 KiB.
const MOST_OCTETS: usize = 4 << 20;
/// Traces that may go on at once.
const MOST_TRACES: usize = 8;

/// Which requests are traced: those that fit everything that is given.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// About this device.
    pub imei: Option<Imei>,
    /// About this subscriber.
    pub imsi: Option<Imsi>,
    /// From this peer, whatever its case.
    pub peer: Option<String>,
}

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// Nanoseconds since 1970 when it was answered.
    pub at: u64,
    /// The connection.
    pub connection: u64,
    /// The peer's Origin-Host.
    pub peer: String,
    /// The request.
    pub request: Vec<u8>,
    /// The answer.
    pub answer: Vec<u8>,
    /// The rule that decided, where one did.
    pub rule: Option<Rule>,
    /// What became of it, in a word.
    pub outcome: &'static str,
}

struct Trace {
    filter: Filter,
    most: usize,
    found: VecDeque<Traced>,
    octets: usize,
    left_out: u64,
}

/// All traces.
#[derive(Default)]
pub struct Traces {
    active: AtomicBool,
    next: AtomicU64,
    traces: Mutex<HashMap<u64, Trace>>,
}

impl Traces {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Trace>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a trace of which at most `most` requests wait to be taken; its number, or `None` where there are too many.
    pub fn start(&self, filter: Filter, most: usize) -> Option<u64> {
        let mut traces = self.lock();
        if traces.len() >= MOST_TRACES {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        traces.insert(number, Trace { filter, most, found: VecDeque::new(), octets: 0, left_out: 0 });
        self.active.store(true, Ordering::Relaxed);
        Some(number)
    }

    /// What has been found since, and how many did not find a place; `None` where there is no such trace.
    pub fn take(&self, number: u64) -> Option<(Vec<Traced>, u64)> {
        let mut traces = self.lock();
        let trace = traces.get_mut(&number)?;
        trace.octets = 0;
        Some((trace.found.drain(..).collect(), std::mem::take(&mut trace.left_out)))
    }

    /// Ends a trace; whether there was one.
    pub fn stop(&self, number: u64) -> bool {
        let mut traces = self.lock();
        let was = traces.remove(&number).is_some();
        self.active.store(!traces.is_empty(), Ordering::Relaxed);
        was
    }

    /// Whether anybody traces.
    #[inline]
    #[must_use]
    pub fn are_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Takes a copy where a trace wants one.
    pub fn offer(&self, at: u64, connection: u64, peer: &str, request: &[u8], outcome: Outcome, answer: &[u8]) {
        let (rule, word) = match outcome {
            Outcome::Answered(answered) => (answered.rule, "answered"),
            Outcome::Limited => (None, "limited"),
            Outcome::Watchdog => (None, "watchdog"),
            // The answer is not there yet, or the control plane's.
            Outcome::Held(_) | Outcome::Punt => return,
        };
        let ecr = Ecr::read(request).ok();
        let (imei, imsi) = (ecr.and_then(|ecr| ecr.imei?.ok()), ecr.and_then(|ecr| ecr.imsi));
        for trace in self.lock().values_mut() {
            let Filter { imei: of_imei, imsi: of_imsi, peer: of_peer } = &trace.filter;
            let fits = (of_imei.is_none() || *of_imei == imei)
                && (of_imsi.is_none() || *of_imsi == imsi)
                && of_peer.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(peer));
            if !fits {
                continue;
            }
            let octets = request.len() + answer.len();
            if trace.found.len() >= trace.most || trace.octets + octets > MOST_OCTETS {
                trace.left_out += 1;
                continue;
            }
            trace.octets += octets;
            let (peer, request, answer) = (peer.to_owned(), request.to_vec(), answer.to_vec());
            trace.found.push_back(Traced { at, connection, peer, request, answer, rule, outcome: word });
        }
    }
}
