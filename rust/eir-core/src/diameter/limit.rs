//! How many requests a second are answered, and what a sender of too many is told.
//!
//! Called by the door of S13 for each request of a peer that has a limit, and of a node that has one. Neither knows a
//! clock: time comes in. Who is above the limit is answered DIAMETER_TOO_BUSY (RFC 6733 clause 7.1.3); who speaks
//! overload control (RFC 7683) is also told by how much to send less.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::UnixTime;

const SECOND: u64 = 1_000_000_000;
/// DRMP of a request that has none (RFC 7944 clause 8).
pub const DEFAULT_PRIORITY: u8 = 10;
/// Seconds that an overload report is good for (OC-Validity-Duration, RFC 7683 clause 7.5: 30 is its default).
pub const VALIDITY: u32 = 30;
/// Percent by which what is asked for has to differ from what was, to be asked for anew.
const STEP: u64 = 5;

/// What an overload report says (RFC 7683 clause 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overload {
    /// Rises with every report that says something new.
    pub sequence: u64,
    /// By how many percent to send less; 0: the overload is over.
    pub percentage: u8,
}

impl Overload {
    /// The one that asks for more, of a peer's own and the node's. Who is told both in turn sees the sequence rise.
    #[must_use]
    pub fn heavier(own: Option<Self>, all: Option<Self>) -> Option<Self> {
        let (Some(own), Some(all)) = (own, all) else { return own.or(all) };
        let percentage = own.percentage.max(all.percentage);
        Some(Self { sequence: own.sequence.max(all.sequence), percentage })
    }
}

/// When something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Nanoseconds on a clock that never goes back.
    pub ticks: u64,
    /// The time of the day.
    pub now: UnixTime,
}

/// The requests of one sender, held to a rate. Shared by threads; waits for none.
///
/// The rate is kept as a virtual schedule (GCRA): each request takes the next place, and is refused when that place lies
/// further ahead than a second's burst. Of that second the less important may use less, so that what is
/// important still finds a place.
#[derive(Debug, Default)]
pub struct Limiter {
    /// The next place on the schedule, in ticks.
    next: AtomicU64,
    /// The second that `offered` counts, by the ticks.
    second: AtomicU64,
    offered: AtomicU64,
    /// When the report last changed, in Unix seconds, times 256; and its percentage.
    report: AtomicU64,
    /// The second, by the ticks, in which it last changed: the time of the day may be put back.
    renewed: AtomicU64,
}

impl Limiter {
    /// One that has seen no request.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next: AtomicU64::new(0),
            second: AtomicU64::new(0),
            offered: AtomicU64::new(0),
            report: AtomicU64::new(0),
            renewed: AtomicU64::new(0),
        }
    }

    /// Whether a request of this priority (DRMP, 0 the most important to 15) is to be answered; `rate` is requests a
    /// second, 0 for no limit.
    #[inline]
    pub fn admits(&self, rate: u64, priority: u8, moment: Moment) -> bool {
        rate == 0 || self.takes_place(rate, priority, moment)
    }

    fn takes_place(&self, rate: u64, priority: u8, moment: Moment) -> bool {
        self.count(rate, moment);
        let apart = (SECOND / rate).max(1);
        let burst = SECOND - SECOND / 32 * u64::from(priority.min(15));
        let mut next = self.next.load(Ordering::Relaxed);
        loop {
            let place = next.max(moment.ticks);
            if place - moment.ticks > burst {
                return false;
            }
            match self.next.compare_exchange_weak(next, place + apart, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => next = now,
            }
        }
    }

    /// What the sender is to be told; nothing where it never sent too much, or that is long over.
    #[inline]
    #[must_use]
    pub fn overload(&self, now: UnixTime) -> Option<Overload> {
        let report = self.report.load(Ordering::Relaxed);
        if report == 0 {
            return None;
        }
        let (changed, percentage) = (report >> 8, report as u8);
        // That it is over is said as long as the last report may still be believed.
        let old = percentage == 0 && changed + u64::from(VALIDITY) <= u64::from(now);
        (!old).then_some(Overload { sequence: changed, percentage })
    }

    /// Counts a request, and with the first of a new second looks back on those before.
    fn count(&self, rate: u64, moment: Moment) {
        let (second, present) = (self.second.load(Ordering::Relaxed), moment.ticks / SECOND);
        // A request that another thread has read a moment earlier belongs to the second that is over.
        if present > second
            && self.second.compare_exchange(second, present, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let offered = self.offered.swap(0, Ordering::Relaxed) / present.saturating_sub(second).max(1);
            self.look_back(rate, offered, moment.now, present);
        }
        self.offered.fetch_add(1, Ordering::Relaxed);
    }

    fn look_back(&self, rate: u64, offered: u64, now: UnixTime, second: u64) {
        let report = self.report.load(Ordering::Relaxed);
        let (changed, asked) = (report >> 8, report & 0xff);
        // Who obeys sends this share of what it would; that it is below the limit now does not mean that all is well.
        let wanted = if offered > rate { offered } else { offered.saturating_mul(100) / (100 - asked.min(99)) };
        let percentage = (100 - (rate.saturating_mul(100) / wanted.max(rate).max(1))).min(99);
        let renewed = second >= self.renewed.load(Ordering::Relaxed) + u64::from(VALIDITY) / 2;
        let differs = percentage.abs_diff(asked) >= STEP || (percentage == 0) != (asked == 0);
        if differs || (percentage > 0 && renewed) {
            // A sequence number must rise, also where two changes fall into one second.
            self.report.store(u64::from(now).max(changed + 1) << 8 | percentage, Ordering::Relaxed);
            self.renewed.store(second, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixTime = 1_800_000_000;

    fn at(ticks: u64) -> Moment {
        Moment { ticks, now: START + (ticks / SECOND) as UnixTime }
    }

    /// How many of `count` requests spread over one second are admitted.
    fn second(limiter: &Limiter, rate: u64, count: u64, priority: u8, number: u64) -> u64 {
        let spread = |n: u64| at(number * SECOND + n * SECOND / count);
        (0..count).filter(|n| limiter.admits(rate, priority, spread(*n))).count() as u64
    }

    #[test]
    fn a_rate_is_kept_and_what_is_below_it_never_refused() {
        let limiter = Limiter::default();
        assert_eq!(second(&limiter, 1_000, 900, DEFAULT_PRIORITY, 1), 900);
        let first = second(&limiter, 1_000, 100_000, DEFAULT_PRIORITY, 2);
        assert!((1_500..1_800).contains(&first), "{first}");
        for number in 3..10 {
            let count = second(&limiter, 1_000, 100_000, DEFAULT_PRIORITY, number);
            assert!((999..=1_001).contains(&count), "{count}");
        }
        assert_eq!(second(&limiter, 1_000, 1_000, DEFAULT_PRIORITY, 20), 1_000, "it is forgiven");
        assert_eq!(second(&limiter, 0, 5_000_000, DEFAULT_PRIORITY, 21), 5_000_000, "no limit");
    }

    #[test]
    fn what_is_important_passes_while_the_rest_is_refused() {
        let limiter = Limiter::default();
        let (mut important, mut ordinary) = (0, 0);
        for number in 0..1_000_000u64 {
            let moment = at(SECOND + number * 10_000);
            if number % 500 == 0 {
                important += u64::from(limiter.admits(1_000, 0, moment));
            } else {
                ordinary += u64::from(limiter.admits(1_000, DEFAULT_PRIORITY, moment));
            }
        }
        assert_eq!(important, 2_000);
        assert!((8_000..9_800).contains(&ordinary), "{ordinary}");
    }

    #[test]
    fn a_sender_is_told_how_much_less_to_send_until_it_wants_less() {
        let limiter = Limiter::default();
        assert_eq!(limiter.overload(START), None);
        second(&limiter, 1_000, 4_000, DEFAULT_PRIORITY, 1);
        second(&limiter, 1_000, 4_000, DEFAULT_PRIORITY, 2);
        let told = limiter.overload(START + 2).unwrap();
        assert_eq!(told.percentage, 75);
        // It obeys, and still wants as much.
        for number in 3..10 {
            second(&limiter, 1_000, 1_000, DEFAULT_PRIORITY, number);
            assert_eq!(limiter.overload(START + 10).unwrap().percentage, 75);
        }
        // A report that goes on is renewed before it runs out.
        for number in 10..40 {
            second(&limiter, 1_000, 1_000, DEFAULT_PRIORITY, number);
        }
        let renewed = limiter.overload(START + 40).unwrap();
        assert!(renewed.sequence > told.sequence && renewed.percentage == 75);
        // It wants less, and sends a quarter of that.
        for number in 40..44 {
            second(&limiter, 1_000, 200, DEFAULT_PRIORITY, number);
        }
        let over = limiter.overload(START + 44).unwrap();
        assert!(over.percentage == 0 && over.sequence > renewed.sequence);
        assert_eq!(limiter.overload(START + 44 + VALIDITY), None);
    }

    #[test]
    fn what_another_thread_read_a_moment_before_does_not_count_as_a_second() {
        let limiter = Limiter::default();
        for number in 1..20 {
            second(&limiter, 1_000, 4_000, DEFAULT_PRIORITY, number);
            limiter.admits(1_000, DEFAULT_PRIORITY, at((number + 1) * SECOND));
            limiter.admits(1_000, DEFAULT_PRIORITY, at((number + 1) * SECOND - 2_000_000));
            if number > 2 {
                // A second of its own would be one with a single request.
                assert!((75..=76).contains(&limiter.overload(START).unwrap().percentage));
            }
        }
    }

    #[test]
    fn a_clock_that_is_put_back_does_not_keep_a_report_from_being_renewed() {
        let limiter = Limiter::default();
        let back = |ticks: u64| Moment { ticks, now: START - 3_600 + (ticks / SECOND) as UnixTime };
        second(&limiter, 1_000, 4_000, DEFAULT_PRIORITY, 1);
        second(&limiter, 1_000, 4_000, DEFAULT_PRIORITY, 2);
        let told = limiter.overload(START).unwrap();
        for number in 0..80_000u64 {
            limiter.admits(1_000, DEFAULT_PRIORITY, back(3 * SECOND + number * SECOND / 4_000));
        }
        let renewed = limiter.overload(START - 3_580).unwrap();
        assert!(renewed.sequence > told.sequence && renewed.percentage == 75);
    }

    #[test]
    fn a_long_silence_is_no_load() {
        let limiter = Limiter::default();
        second(&limiter, 10, 4_000, DEFAULT_PRIORITY, 1);
        second(&limiter, 10, 1, DEFAULT_PRIORITY, 4_000);
        second(&limiter, 10, 1, DEFAULT_PRIORITY, 8_000);
        second(&limiter, 10, 1, DEFAULT_PRIORITY, 12_000);
        assert_eq!(limiter.overload(START + 20_000), None);
    }
}
