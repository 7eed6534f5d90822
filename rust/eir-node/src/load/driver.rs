//! The run itself: when to send, when to sleep, when to stop.
//!
//! Called once by [`super::run`]. Owns the event queue and the connections, in one thread. It never looks into a message;
//! that is `peer`'s.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Interest, Poll, Token};

use super::identities::Identities;
use super::messages::Origin;
use super::opening::Opening;
use super::peer::{Asked, Peer, Progress, Run};
use super::report::{LoadReport, Tally};
use super::wire::Buffers;
use super::{LoadError, LoadMode, LoadPlan};

/// Longest sleep before `cancel` and the end of the run are looked at again.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);
/// A request due sooner than this is waited for awake: the kernel wakes a sleeper up to 50 us late, and then the
/// processor has to come back up to speed.
const SPIN: Duration = Duration::from_micros(100);
/// Requests sent on a schedule before answers are read again.
const BURST: usize = 1024;
/// How long after the end what was due before it may still be sent, in nanoseconds.
const CATCH_UP: u64 = 100_000_000;
/// Connections that are being opened at the same time.
const OPENING: usize = 64;
/// Longest wait for the DPAs at the end.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// A run with all its connections open.
pub(super) struct Driver<'a> {
    plan: &'a LoadPlan,
    poll: Poll,
    events: Events,
    peers: Peers,
}

impl<'a> Driver<'a> {
    /// Opens every connection of the plan, some of them at the same time.
    pub(super) fn connect(plan: &'a LoadPlan) -> Result<Self, LoadError> {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32;
        let run = Run {
            started: Instant::now(),
            identities: Identities::new(plan.imeis.clone(), plan.imsis, plan.seed),
            tally: Tally::new(nanoseconds(plan.warm_up), plan.record_answers)
                .map_err(|_| LoadError::Plan("the histogram has no such bounds"))?,
            // RFC 6733 clause 3: the time in the high 12 bits, so that a run does not repeat the one before.
            serial: second << 20,
            refill: false,
            exhausted: false,
        };
        let peers = Peers {
            peers: Vec::with_capacity(plan.connections),
            opening: BTreeMap::new(),
            open: 0,
            run,
            buffers: Buffers::new(plan),
            unread: Vec::new(),
            served: Vec::new(),
            next: 0,
            touched: Vec::new(),
            leaving: false,
        };
        let poll = Poll::new().map_err(LoadError::Poll)?;
        let mut driver = Self { plan, poll, events: Events::with_capacity(1024), peers };
        while driver.peers.peers.len() < plan.connections || !driver.peers.opening.is_empty() {
            while driver.peers.peers.len() < plan.connections && driver.peers.opening.len() < OPENING {
                let host = format!("{}-{:04}.{}", plan.origin_prefix, driver.peers.peers.len() + 1, plan.origin_realm);
                driver.start(Origin { host, realm: plan.origin_realm.clone(), state: second })?;
            }
            driver.turn(LONGEST_SLEEP)?;
            driver.peers.check_deadlines()?;
        }
        Ok(driver)
    }

    /// Begins to open the next connection.
    fn start(&mut self, origin: Origin) -> Result<(), LoadError> {
        let mut opening = Opening::start(self.plan, origin)?;
        let index = self.peers.peers.len();
        // Writable once and for all: its edge comes only after a write that the socket did not take.
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut opening.wire.stream, Token(index), interest).map_err(LoadError::Poll)?;
        self.peers.opening.insert(index, opening);
        self.peers.peers.push(None);
        Ok(())
    }

    /// Sends for the plan's time, waits for what is out, disconnects.
    pub(super) fn run(mut self, cancel: &AtomicBool) -> Result<LoadReport, LoadError> {
        let end = nanoseconds(self.plan.warm_up.saturating_add(self.plan.duration));
        self.peers.run.started = Instant::now();
        match self.plan.mode {
            LoadMode::Closed { .. } => self.closed(end, cancel)?,
            LoadMode::Open { rate, .. } => self.open(Schedule::new(rate), end, cancel)?,
        }
        self.peers.run.refill = false;
        self.wait_until(self.plan.grace, |peers| peers.outstanding() == 0)?;
        self.peers.leaving = true;
        for peer in self.peers.peers.iter_mut().flatten() {
            peer.disconnect();
            peer.flush();
        }
        self.wait_until(LEAVE_TIMEOUT, |peers| peers.open == 0)?;
        Ok(self.peers.run.tally.finish())
    }

    /// Keeps every window full.
    fn closed(&mut self, end: u64, cancel: &AtomicBool) -> Result<(), LoadError> {
        self.peers.run.refill = true;
        let now = self.peers.run.now();
        for peer in self.peers.peers.iter_mut().flatten() {
            peer.fill(&mut self.peers.run, now);
            peer.flush();
        }
        while self.peers.goes_on(cancel) && self.peers.run.now() < end {
            self.turn(LONGEST_SLEEP)?;
        }
        Ok(())
    }

    /// Sends by the clock, whatever comes back.
    fn open(&mut self, mut schedule: Schedule, end: u64, cancel: &AtomicBool) -> Result<(), LoadError> {
        while self.peers.goes_on(cancel) && schedule.due < end {
            let now = self.peers.run.now();
            if now >= end.saturating_add(CATCH_UP) {
                // This thread cannot keep up with the rate; the load must not go on for longer than it was asked to.
                self.peers.run.tally.unsent(schedule.due);
                schedule.advance();
                continue;
            }
            self.peers.send_due(&mut schedule, now.min(end - 1));
            let wait = Duration::from_nanos(schedule.due.saturating_sub(self.peers.run.now()));
            if !self.plan.busy_poll && wait > SPIN && self.peers.unread.is_empty() {
                self.sleep((wait - SPIN).min(LONGEST_SLEEP))?;
            }
            self.turn(Duration::ZERO)?;
        }
        Ok(())
    }

    /// Serves the connections until `done`, for at most `limit`.
    fn wait_until(&mut self, limit: Duration, done: impl Fn(&Peers) -> bool) -> Result<(), LoadError> {
        let begun = Instant::now();
        while self.peers.open > 0 && !done(&self.peers) {
            let Some(left) = limit.checked_sub(begun.elapsed()) else {
                break;
            };
            self.turn(left.min(LONGEST_SLEEP))?;
        }
        Ok(())
    }

    /// Serves every connection that is ready, after waiting at most `timeout` for one.
    fn turn(&mut self, timeout: Duration) -> Result<(), LoadError> {
        let awake = self.plan.busy_poll || !self.peers.unread.is_empty();
        match self.poll.poll(&mut self.events, Some(if awake { Duration::ZERO } else { timeout })) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(LoadError::Poll(error)),
            _ => {}
        }
        for event in &self.events {
            let Token(index) = event.token();
            if self.peers.opening.contains_key(&index) {
                self.peers.go_on(index, self.plan)?;
                continue;
            }
            if event.is_writable() {
                self.peers.flush(index);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.peers.readable(index, event.is_read_closed());
            }
        }
        self.peers.receive_all();
        Ok(())
    }

    /// Sleeps until a connection is ready, at most for `time`. The event queue's own timeout counts in milliseconds.
    fn sleep(&self, time: Duration) -> Result<(), LoadError> {
        let mut queue = libc::pollfd { fd: self.poll.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let time = libc::timespec { tv_sec: 0, tv_nsec: i64::from(time.min(LONGEST_SLEEP).subsec_nanos()) };
        // SAFETY: one pollfd and one timespec, both alive and initialised; no signal mask.
        let ready = unsafe { libc::ppoll(&raw mut queue, 1, &raw const time, std::ptr::null()) };
        match io::Error::last_os_error() {
            error if ready < 0 && error.kind() != io::ErrorKind::Interrupted => Err(LoadError::Poll(error)),
            _ => Ok(()),
        }
    }
}

/// The connections of a run, and what they share.
struct Peers {
    /// A connection that is over is dropped; its index stays, as its token.
    peers: Vec<Option<Peer>>,
    /// Connections that are not open yet, by their index.
    opening: BTreeMap<usize, Opening>,
    open: usize,
    run: Run,
    buffers: Buffers,
    /// Connections with something to be read: by an event, or left over from their last turn, of which no event tells.
    unread: Vec<usize>,
    /// The `unread` of the turn before, kept for its memory.
    served: Vec<usize>,
    /// Whose turn it is to send the next scheduled request.
    next: usize,
    /// Connections with something to flush after a burst; empty between bursts.
    touched: Vec<usize>,
    /// Every connection is expected to end.
    leaving: bool,
}

impl Peers {
    fn goes_on(&self, cancel: &AtomicBool) -> bool {
        self.open > 0 && !self.run.exhausted && !cancel.load(Ordering::Relaxed)
    }

    fn outstanding(&self) -> usize {
        self.peers.iter().flatten().map(Peer::outstanding).sum()
    }

    fn flush(&mut self, index: usize) {
        if let Some(Some(peer)) = self.peers.get_mut(index) {
            peer.flush();
        }
    }

    /// Goes on opening a connection, and takes it over once it is open.
    fn go_on(&mut self, index: usize, plan: &LoadPlan) -> Result<(), LoadError> {
        let Some(opening) = self.opening.get_mut(&index) else {
            return Ok(());
        };
        if !opening.go_on(&mut self.buffers)? {
            return Ok(());
        }
        if let (Some(opening), Some(place)) = (self.opening.remove(&index), self.peers.get_mut(index)) {
            *place = Some(opening.into_peer(plan));
            self.open += 1;
            // There may be more behind the CEA, of which no event will tell.
            self.readable(index, false);
        }
        Ok(())
    }

    /// Fails where a connection takes too long to open.
    fn check_deadlines(&self) -> Result<(), LoadError> {
        let now = Instant::now();
        let late = self.opening.values().find(|opening| opening.deadline < now);
        late.map_or(Ok(()), |opening| Err(opening.too_late()))
    }

    /// Notes that a connection has something to be read, or its end.
    fn readable(&mut self, index: usize, ended: bool) {
        let Some(Some(peer)) = self.peers.get_mut(index) else {
            return;
        };
        peer.ended |= ended;
        if !std::mem::replace(&mut peer.unread, true) {
            self.unread.push(index);
        }
    }

    /// Gives every connection in `unread` its turn.
    fn receive_all(&mut self) {
        let mut unread = std::mem::replace(&mut self.unread, std::mem::take(&mut self.served));
        for index in unread.drain(..) {
            self.receive(index);
        }
        self.served = unread;
    }

    /// Gives one connection its turn, and drops it if this was its end.
    fn receive(&mut self, index: usize) {
        let Some(place) = self.peers.get_mut(index) else {
            return;
        };
        match place.as_mut().map(|peer| peer.receive(&mut self.run, &mut self.buffers)) {
            None | Some(Ok(Progress::Drained)) => {}
            Some(Ok(Progress::More)) => self.readable(index, false),
            Some(Err(gone)) => {
                *place = None;
                self.open -= 1;
                if !self.leaving {
                    self.run.tally.connection_lost(|| gone.to_string());
                }
            }
        }
    }

    /// Sends what is due at `now`, a burst at most.
    fn send_due(&mut self, schedule: &mut Schedule, now: u64) {
        for _ in 0..BURST {
            if schedule.due > now || self.run.exhausted {
                break;
            }
            self.ask_any(schedule.due);
            schedule.advance();
        }
        let mut touched = std::mem::take(&mut self.touched);
        for index in touched.drain(..) {
            self.flush(index);
        }
        self.touched = touched;
    }

    /// Queues one request on the next connection that has room for it.
    fn ask_any(&mut self, due: u64) {
        for _ in 0..self.peers.len() {
            let index = self.next;
            self.next = if index + 1 < self.peers.len() { index + 1 } else { 0 };
            let Some(Some(peer)) = self.peers.get_mut(index) else {
                continue;
            };
            let flushed = peer.is_flushed();
            match peer.ask(&mut self.run, due) {
                Asked::Full => continue,
                Asked::Queued if flushed => self.touched.push(index),
                // With a backlog it is among the touched already, or waits for its socket to be writable.
                Asked::Queued | Asked::Exhausted => {}
            }
            return;
        }
        self.run.tally.unsent(due);
    }
}

/// When requests are due: `rate` a second, evenly, without the rounding error adding up.
#[derive(Debug)]
struct Schedule {
    /// Nanoseconds since the start of the run.
    due: u64,
    rate: u64,
    /// What `due` was rounded down by, in units of a nanosecond / `rate`.
    remainder: u64,
}

impl Schedule {
    fn new(rate: u64) -> Self {
        Self { due: 0, rate: rate.max(1), remainder: 0 }
    }

    #[inline]
    fn advance(&mut self) {
        const SECOND: u64 = 1_000_000_000;
        self.due += SECOND / self.rate;
        self.remainder += SECOND % self.rate;
        if self.remainder >= self.rate {
            self.remainder -= self.rate;
            self.due += 1;
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_keeps_its_rate() {
        for rate in [1, 3, 7, 20_000, 999_983, 1_000_000_000] {
            let mut schedule = Schedule::new(rate);
            for _ in 0..rate.min(1_000_000) {
                schedule.advance();
            }
            assert_eq!(schedule.due, rate.min(1_000_000) * 1_000_000_000 / rate, "{rate}");
        }
    }
}
