//! The grey table: which devices have temporary access and until when, and which subscribers are known in them.
//!
//! Rebuilt from the journal at start, read at every answer that no list decides. Deadlines are computed elsewhere (they
//! are calendar days of a country) and handed over as a [`Schedule`]; here they are only compared.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::UnixTime;
use crate::imei::{Imei, Imsi};
use crate::table::Table;

/// A black attempt is recorded once per device and subscriber in this many seconds.
pub const ATTEMPT_INTERVAL: UnixTime = 24 * 3600;
/// The deadline of a timer that does not run out: frozen, or lifted.
pub const NEVER: UnixTime = UnixTime::MAX;
const BREAKER_WINDOW: UnixTime = 60;

/// A device's temporary access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer {
    /// When it was first seen.
    pub start: UnixTime,
    /// From this second on it is expired.
    pub deadline: UnixTime,
}

impl Timer {
    /// Merges by minimum, so that all who saw a start agree whatever the order.
    fn merged(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), deadline: self.deadline.min(other.deadline) }
    }

    fn packed(self) -> u64 {
        u64::from(self.start) << 32 | u64::from(self.deadline)
    }

    fn unpacked(word: u64) -> Self {
        Self { start: (word >> 32) as u32, deadline: word as u32 }
    }
}

/// Which deadline a timer gets that starts at a given second: a step function, computed in advance from the country's
/// calendar.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    /// (first second, deadline) of each step, ascending.
    steps: Vec<(UnixTime, UnixTime)>,
    /// For a start outside all steps: this many seconds.
    pub otherwise: UnixTime,
}

impl Schedule {
    /// A schedule of `steps` in any order; a start before the first gets `otherwise` seconds, one after the last the
    /// last one's deadline plus the whole days since.
    #[must_use]
    pub fn new(mut steps: Vec<(UnixTime, UnixTime)>, otherwise: UnixTime) -> Self {
        steps.sort_unstable();
        Self { steps, otherwise }
    }

    /// The deadline of a timer that starts now.
    #[must_use]
    pub fn deadline(&self, start: UnixTime) -> UnixTime {
        const DAY: UnixTime = 24 * 3600;
        let after = self.steps.partition_point(|(from, _)| *from <= start);
        match after.checked_sub(1).and_then(|at| self.steps.get(at)) {
            // Only the last step can be more than a day (25 hours, where clocks change) behind.
            Some((from, deadline)) if after == self.steps.len() => deadline.saturating_add((start - from) / DAY * DAY),
            Some((_, deadline)) => *deadline,
            None => start.saturating_add(self.otherwise),
        }
    }
}

/// When to stop starting timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Starts within one minute.
    pub starts_per_minute: u64,
    /// Timers that have not expired.
    pub running: u64,
}

/// The breaker guards the country: a flood of first attaches means that lists or peers are broken, not phones.
#[derive(Default)]
struct Breaker {
    tripped: AtomicBool,
    count: Mutex<Count>,
}

#[derive(Default)]
struct Count {
    window: UnixTime,
    starts: u64,
    /// Timers by deadline, so that the running ones can be counted without a walk. For a moment less than none, where one
    /// thread is told of a change before another has counted what was there.
    by_deadline: BTreeMap<UnixTime, i64>,
    running: i64,
}

impl Count {
    fn roll(&mut self, now: UnixTime) {
        let window = now - now % BREAKER_WINDOW;
        if window != self.window {
            self.window = window;
            self.starts = 0;
            self.running = self.running_at(now);
        }
    }

    fn running_at(&self, now: UnixTime) -> i64 {
        self.by_deadline.range(now.saturating_add(1)..).map(|(_, timers)| timers).sum()
    }

    /// Counts a timer with this deadline, or one less.
    fn add(&mut self, deadline: UnixTime, timers: i64) {
        let entry = self.by_deadline.entry(deadline).or_default();
        *entry += timers;
        if *entry == 0 {
            self.by_deadline.remove(&deadline);
        }
        // What had run out when the window began is not running; the rest is put right when the next one does.
        if deadline > self.window {
            self.running += timers;
        }
    }
}

/// Why a first attach started no timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The breaker was tripped before.
    Tripped,
    /// This start would be one too many: the breaker trips now.
    TripsNow,
}

/// The grey table.
#[derive(Default)]
pub struct GreyTable {
    /// IMEI -> (timer, journal sequence number of its start).
    timers: Table<2>,
    /// Device, start of its timer and subscriber: who was seen in it while that timer ran.
    seen: Table<0>,
    /// Device and subscriber -> last black attempt that was recorded.
    attempts: Table<1>,
    breaker: Breaker,
}

impl GreyTable {
    /// The device's timer and the journal sequence number of its start.
    #[inline]
    #[must_use]
    pub fn timer(&self, imei: Imei) -> Option<(Timer, u64)> {
        let [timer, sequence] = self.timers.get(imei.number())?;
        Some((Timer::unpacked(timer), sequence))
    }

    /// How many timers there are, expired ones among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether there is no timer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    /// How many timers have not expired at `now`.
    #[must_use]
    pub fn running(&self, now: UnixTime) -> u64 {
        u64::try_from(self.count().running_at(now)).unwrap_or(0)
    }

    /// May a timer start now? Counts the start if so.
    ///
    /// # Errors
    /// [`Refused`] where the breaker is, or is now, tripped.
    pub fn admit(&self, now: UnixTime, limits: BreakerLimits) -> Result<(), Refused> {
        if self.tripped() {
            return Err(Refused::Tripped);
        }
        let mut count = self.count();
        count.roll(now);
        if count.starts >= limits.starts_per_minute || u64::try_from(count.running).unwrap_or(0) >= limits.running {
            self.breaker.tripped.store(true, Ordering::Relaxed);
            return Err(Refused::TripsNow);
        }
        count.starts += 1;
        Ok(())
    }

    /// Starts a timer, or merges by minimum with the one that runs. `record` is called under the lock only where there
    /// was none; it writes the start to the journal and returns its sequence number, or `None` to start nothing.
    ///
    /// Returns the sequence number of the device's start, and whether this call started it.
    pub fn start(&self, imei: Imei, timer: Timer, record: impl FnOnce() -> Option<u64>) -> Option<(u64, bool)> {
        let mut started = false;
        let mut before = None;
        let value = self.timers.update(imei.number(), |present| match present {
            Some([word, sequence]) => {
                before = Some(Timer::unpacked(word));
                Some([Timer::unpacked(word).merged(timer).packed(), sequence])
            }
            None => record().map(|sequence| {
                started = true;
                [timer.packed(), sequence]
            }),
        });
        let [word, sequence] = value?;
        let after = Timer::unpacked(word);
        if before.map(|old| old.deadline) != Some(after.deadline) {
            let mut count = self.count();
            if let Some(old) = before {
                count.add(old.deadline, -1);
            }
            count.add(after.deadline, 1);
        }
        Some((sequence, started))
    }

    /// Takes back the start with that journal sequence number: it was not recorded, or the device was verified before
    /// its answer left.
    pub fn cancel(&self, imei: Imei, sequence: u64) {
        let mut deadline = None;
        let removed = self.timers.remove_if(imei.number(), |[word, started]| {
            deadline = Some(Timer::unpacked(word).deadline);
            started == sequence
        });
        if let (true, Some(deadline)) = (removed, deadline) {
            self.count().add(deadline, -1);
        }
    }

    /// Puts a device's timer as the control plane has it, whatever was there; `None`: it has none. The journal's number
    /// of a start that is there stays, so that who waits for its record goes on doing so.
    pub fn set(&self, imei: Imei, timer: Option<Timer>) {
        let mut before = None;
        match timer {
            Some(timer) => {
                self.timers.update(imei.number(), |present| {
                    before = present.map(|[word, _]| Timer::unpacked(word));
                    Some([timer.packed(), present.map_or(0, |[_, sequence]| sequence)])
                });
            }
            None => {
                self.timers.remove_if(imei.number(), |[word, _]| {
                    before = Some(Timer::unpacked(word));
                    true
                });
            }
        }
        if before.map(|old| old.deadline) != timer.map(|new| new.deadline) {
            let mut count = self.count();
            if let Some(old) = before {
                count.add(old.deadline, -1);
            }
            if let Some(new) = timer {
                count.add(new.deadline, 1);
            }
        }
    }

    /// Calls `visit` for every device with a timer; what changes meanwhile may or may not be seen.
    pub fn for_each(&self, mut visit: impl FnMut(Imei, Timer)) {
        self.timers.for_each(|key, [word, _]| {
            if let Some(imei) = Imei::from_number(key) {
                visit(imei, Timer::unpacked(word));
            }
        });
    }

    /// Calls `timers`, then `seen` and then `attempts` with all that there is of each, part by part: (IMEI, start and
    /// deadline as one word), (pair), (pair, last attempt). What was begun before a part is visited is over by then.
    pub fn dump(
        &self,
        mut timers: impl FnMut(&mut dyn Iterator<Item = (u64, Timer)>),
        mut seen: impl FnMut(&mut dyn Iterator<Item = u64>),
        mut attempts: impl FnMut(&mut dyn Iterator<Item = (u64, u64)>),
    ) {
        self.timers.for_each_shard(|part| {
            timers(&mut part.iter().map(|(imei, [word, _])| (*imei, Timer::unpacked(*word))));
        });
        self.seen.for_each_shard(|part| seen(&mut part.iter().map(|(pair, [])| *pair)));
        self.attempts.for_each_shard(|part| attempts(&mut part.iter().map(|(pair, [last])| (*pair, *last))));
    }

    /// Puts back a pair that [`GreyTable::dump`] gave as seen.
    pub fn restore_seen(&self, pair: u64) {
        self.seen.update(pair, |_| Some([]));
    }

    /// Puts back an attempt that [`GreyTable::dump`] gave; the later of two stays.
    pub fn restore_attempt(&self, pair: u64, last: u64) {
        self.attempts.update(pair, |present| Some([present.map_or(last, |[known]| known.max(last))]));
    }

    /// Octets of the tables.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.timers.bytes() + self.seen.bytes() + self.attempts.bytes()
    }

    /// Notes a subscriber in a device whose timer began at `start`; whether it was new. `record` as in [`GreyTable::start`].
    ///
    /// A device's next timer has its own subscribers. Where the start of one is put right to an earlier second, those who
    /// are there are recorded once more; what follows the journal knows them.
    pub fn see(&self, imei: Imei, start: UnixTime, imsi: Imsi, record: impl FnOnce() -> Option<u64>) -> Option<u64> {
        let key = seen_key(imei, start, imsi);
        if self.seen.get(key).is_some() {
            return None;
        }
        let mut sequence = None;
        self.seen.update(key, |present| {
            if present.is_none() {
                sequence = record();
            }
            sequence.map(|_| [])
        });
        sequence
    }

    /// Notes a blacklisted device's attempt; its journal sequence number if it is the first in 24 hours.
    pub fn attempt(
        &self,
        imei: Imei,
        imsi: Option<Imsi>,
        now: UnixTime,
        record: impl FnOnce() -> Option<u64>,
    ) -> Option<u64> {
        let key = pair(imei, imsi);
        let recent = |[last]: [u64; 1]| u64::from(now) < last + u64::from(ATTEMPT_INTERVAL);
        if self.attempts.get(key).is_some_and(recent) {
            return None;
        }
        let mut sequence = None;
        self.attempts.update(key, |present| {
            if !present.is_some_and(recent) {
                sequence = record();
            }
            sequence.map(|_| [u64::from(now)])
        });
        sequence
    }

    /// Forgets a subscriber's being seen: the record of it could not be written.
    pub fn forget_seen(&self, imei: Imei, start: UnixTime, imsi: Imsi) {
        self.seen.remove_if(seen_key(imei, start, imsi), |_| true);
    }

    /// Forgets a black attempt: the record of it could not be written.
    pub fn forget_attempt(&self, imei: Imei, imsi: Option<Imsi>) {
        self.attempts.remove_if(pair(imei, imsi), |_| true);
    }

    /// When the device's timer began; 0 where it has none.
    #[inline]
    #[must_use]
    pub fn began(&self, imei: Imei) -> UnixTime {
        self.timer(imei).map_or(0, |(timer, _)| timer.start)
    }

    /// Forgets black attempts that no longer count; for a thread that is in no hurry.
    pub fn prune(&self, now: UnixTime) {
        self.attempts.retain(|_, [last]| u64::from(now) < last + u64::from(ATTEMPT_INTERVAL));
    }

    /// Whether the breaker keeps timers from starting.
    #[must_use]
    pub fn tripped(&self) -> bool {
        self.breaker.tripped.load(Ordering::Relaxed)
    }

    /// Trips the breaker (as the journal says at start), or lets timers start again, counting from zero.
    pub fn set_tripped(&self, tripped: bool) {
        self.count().starts = 0;
        self.breaker.tripped.store(tripped, Ordering::Relaxed);
    }

    fn count(&self) -> std::sync::MutexGuard<'_, Count> {
        self.breaker.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One 64-bit key of a device and a subscriber. Two pairs in 10^19 share one, which would leave out one record.
fn pair(imei: Imei, imsi: Option<Imsi>) -> u64 {
    let key = mixed(imei.number() ^ mixed(imsi.map_or(0, Imsi::packed)).rotate_left(23));
    // 0 and all ones are not keys of a table.
    key.clamp(1, u64::MAX - 1)
}

/// As [`pair`], for one of the device's timers.
fn seen_key(imei: Imei, start: UnixTime, imsi: Imsi) -> u64 {
    mixed(pair(imei, Some(imsi)) ^ u64::from(start)).clamp(1, u64::MAX - 1)
}

/// The same in every process: an image is read by the next.
fn mixed(word: u64) -> u64 {
    let product = u128::from(word ^ 0x2545_f491_4f6c_dd1d) * 0xd6e8_feb8_6659_fd93;
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn imei(number: u64) -> Imei {
        Imei::from_number(number).unwrap()
    }

    fn imsi() -> Imsi {
        Imsi::from_digits(b"001010000000001").unwrap()
    }

    const LIMITS: BreakerLimits = BreakerLimits { starts_per_minute: 3, running: 5 };

    proptest! {
        #[test]
        fn starts_in_any_order_agree(mut starts in prop::collection::vec((1u32..1000, 1u32..1000), 1..20)) {
            let merged = |starts: &[(u32, u32)]| {
                let grey = GreyTable::default();
                for (start, deadline) in starts {
                    grey.start(imei(1), Timer { start: *start, deadline: *deadline }, || Some(1));
                }
                assert_eq!(grey.running(0), 1);
                grey.timer(imei(1))
            };
            let first = merged(&starts);
            starts.reverse();
            prop_assert_eq!(merged(&starts), first);
            starts.extend(starts.clone());
            prop_assert_eq!(merged(&starts), first);
        }
    }

    #[test]
    fn a_start_that_could_not_be_recorded_is_none() {
        let grey = GreyTable::default();
        let timer = Timer { start: 1, deadline: 2 };
        assert_eq!(grey.start(imei(1), timer, || None), None);
        assert!(grey.is_empty());
        assert_eq!(grey.start(imei(1), timer, || Some(7)), Some((7, true)));
        assert_eq!(grey.start(imei(1), timer, || unreachable!()), Some((7, false)));
        grey.cancel(imei(1), 8);
        assert_eq!(grey.timer(imei(1)), Some((timer, 7)));
        grey.cancel(imei(1), 7);
        assert_eq!((grey.len(), grey.running(0)), (0, 0));
    }

    #[test]
    fn a_subscriber_is_seen_once_and_an_attempt_once_a_day() {
        let grey = GreyTable::default();
        assert_eq!(grey.see(imei(1), 9, imsi(), || None), None);
        assert_eq!(grey.see(imei(1), 9, imsi(), || Some(4)), Some(4));
        assert_eq!(grey.see(imei(1), 9, imsi(), || unreachable!()), None);
        assert_eq!(grey.see(imei(2), 9, imsi(), || Some(5)), Some(5));
        // The device's next timer has its own subscribers.
        assert_eq!(grey.see(imei(1), 10, imsi(), || Some(6)), Some(6));
        grey.forget_seen(imei(1), 10, imsi());
        assert_eq!(grey.see(imei(1), 9, imsi(), || unreachable!()), None);
        assert_eq!(grey.see(imei(1), 10, imsi(), || Some(7)), Some(7));
        assert_eq!(grey.attempt(imei(1), None, 1000, || Some(1)), Some(1));
        assert_eq!(grey.attempt(imei(1), Some(imsi()), 1000, || Some(2)), Some(2));
        assert_eq!(grey.attempt(imei(1), None, 1000 + ATTEMPT_INTERVAL - 1, || unreachable!()), None);
        assert_eq!(grey.attempt(imei(1), None, 1000 + ATTEMPT_INTERVAL, || Some(3)), Some(3));
        grey.prune(1000 + ATTEMPT_INTERVAL);
        assert_eq!(grey.attempts.len(), 1);
        grey.forget_attempt(imei(1), None);
        assert_eq!(grey.attempt(imei(1), None, 1001 + ATTEMPT_INTERVAL, || Some(6)), Some(6));
    }

    #[test]
    fn the_breaker_trips_on_too_many_starts_in_a_minute_and_stays_tripped() {
        let grey = GreyTable::default();
        for _ in 0..3 {
            assert_eq!(grey.admit(60, LIMITS), Ok(()));
        }
        assert_eq!(grey.admit(119, LIMITS), Err(Refused::TripsNow));
        assert_eq!(grey.admit(500, LIMITS), Err(Refused::Tripped));
        grey.set_tripped(false);
        assert_eq!(grey.admit(500, LIMITS), Ok(()));
    }

    #[test]
    fn the_breaker_counts_running_timers_only() {
        let grey = GreyTable::default();
        for device in 1..=5 {
            grey.start(imei(device), Timer { start: 1, deadline: 1000 }, || Some(device));
        }
        assert_eq!(grey.admit(60, LIMITS), Err(Refused::TripsNow));
        grey.set_tripped(false);
        assert_eq!(grey.running(999), 5);
        assert_eq!(grey.running(1000), 0);
        assert_eq!(grey.admit(1020, LIMITS), Ok(()));
    }

    #[test]
    fn what_the_control_plane_puts_is_what_there_is() {
        let grey = GreyTable::default();
        let timer = |deadline| Some(Timer { start: 5, deadline });
        grey.start(imei(1), Timer { start: 9, deadline: 70 }, || Some(7));
        grey.set(imei(1), timer(90));
        assert_eq!(grey.timer(imei(1)), Some((Timer { start: 5, deadline: 90 }, 7)));
        grey.set(imei(2), timer(NEVER));
        assert_eq!((grey.running(80), grey.running(NEVER - 1)), (2, 1));
        grey.set(imei(1), None);
        grey.set(imei(3), None);
        assert_eq!((grey.timer(imei(1)), grey.len(), grey.running(0)), (None, 1, 1));
    }

    #[test]
    fn timers_that_have_run_out_do_not_trip_the_breaker() {
        let grey = GreyTable::default();
        assert_eq!(grey.admit(600, LIMITS), Ok(()));
        for device in 1..100 {
            grey.set(imei(device), Some(Timer { start: 1, deadline: 500 }));
        }
        assert_eq!(grey.admit(610, LIMITS), Ok(()));
    }

    #[test]
    fn five_million_timers_with_a_subscriber_each_take_their_budget() {
        // The shards fill up alike, so a sample of them tells of all.
        let grey = GreyTable::default();
        let count = 500_000u64;
        for device in 1..=count {
            grey.set(imei(device * 7919), Some(Timer { start: 1, deadline: 2 }));
            grey.see(imei(device * 7919), 1, imsi(), || Some(1));
        }
        assert!(grey.bytes() as u64 <= 64 * count, "{}", grey.bytes() as u64 / count);
    }

    #[test]
    fn a_schedule_steps_and_goes_on_by_days_after_its_end() {
        let day = 86_400;
        let schedule = Schedule::new(vec![(2 * day, 33 * day), (day, 32 * day)], 30 * day);
        assert_eq!(schedule.deadline(day), 32 * day);
        assert_eq!(schedule.deadline(2 * day - 1), 32 * day);
        assert_eq!(schedule.deadline(2 * day), 33 * day);
        assert_eq!(schedule.deadline(5 * day + 1), 36 * day);
        assert_eq!(schedule.deadline(5), 30 * day + 5);
        assert_eq!(schedule.deadline(u32::MAX), u32::MAX);
    }
}
