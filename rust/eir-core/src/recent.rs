//! The last answers that were not white: what a device was told, for whoever asks why it is blocked.
//!
//! A ring of fixed size, written by the doors for every such answer and read rarely. A writer takes a number and writes
//! its slot between two changes of the slot's sequence word, so that a reader sees that a slot was written meanwhile,
//! and skips it. Two writers that meet in one slot, a whole turn of the ring apart, see each other by the same word:
//! the later one writes nothing.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::UnixTime;
use crate::imei::{Imei, Imsi};
use crate::policy::Status;
use crate::verdict::Rule;

/// Answers that are remembered.
pub const SLOTS: usize = 65_536;

/// Set in the sequence word of a slot that is being written.
const WRITING: u64 = 1 << 63;
/// Where status (2 bits) and rule stand in a slot's last word, above the packed IMSI, which has 54 bits.
const STATUS_AT: u32 = 54;
const RULE_AT: u32 = 56;

/// An answer that was not white.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// When it was given.
    pub at: UnixTime,
    /// The subscriber, where the request named one.
    pub imsi: Option<Imsi>,
    /// What was answered.
    pub status: Status,
    /// The rule that decided.
    pub rule: Rule,
}

#[derive(Default)]
#[repr(align(32))]
struct Slot {
    /// The number of the answer, counted from 1; 0: never used.
    sequence: AtomicU64,
    imei: AtomicU64,
    at: AtomicU64,
    /// IMSI, status, rule.
    answer: AtomicU64,
}

/// The ring.
pub struct Recent {
    slots: Box<[Slot]>,
    /// Answers that were written, ever.
    written: AtomicU64,
}

impl Default for Recent {
    fn default() -> Self {
        Self { slots: std::iter::repeat_with(Slot::default).take(SLOTS).collect(), written: AtomicU64::new(0) }
    }
}

impl Recent {
    /// Notes an answer.
    #[inline]
    pub fn note(&self, imei: Imei, answer: &Answer) {
        let number = self.written.fetch_add(1, Ordering::Relaxed) + 1;
        let Some(slot) = self.slots.get(number as usize % self.slots.len().max(1)) else { return };
        let before = slot.sequence.load(Ordering::Relaxed);
        // Somebody is in it, or was faster by a whole turn.
        if before & WRITING != 0 || before > number {
            return;
        }
        let mine = slot.sequence.compare_exchange(before, number | WRITING, Ordering::Acquire, Ordering::Relaxed);
        if mine.is_err() {
            return;
        }
        // No reader sees what follows without the sequence word above.
        fence(Ordering::Release);
        slot.imei.store(imei.number(), Ordering::Relaxed);
        slot.at.store(u64::from(answer.at), Ordering::Relaxed);
        let subscriber = answer.imsi.map_or(0, Imsi::packed);
        let word = subscriber | (answer.status as u64) << STATUS_AT | (answer.rule as u64) << RULE_AT;
        slot.answer.store(word, Ordering::Relaxed);
        slot.sequence.store(number, Ordering::Release);
    }

    /// What a device was answered, the newest first.
    #[must_use]
    pub fn for_device(&self, imei: Imei) -> Vec<Answer> {
        let mut found: Vec<_> = self.slots.iter().filter_map(|slot| slot.read(imei)).collect();
        found.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        found.into_iter().map(|(_, answer)| answer).collect()
    }
}

impl Slot {
    /// The answer's number and the answer, where it was this device's and is whole.
    fn read(&self, imei: Imei) -> Option<(u64, Answer)> {
        let number = self.sequence.load(Ordering::Acquire);
        if number == 0 || number & WRITING != 0 || self.imei.load(Ordering::Relaxed) != imei.number() {
            return None;
        }
        let (at, word) = (self.at.load(Ordering::Relaxed), self.answer.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        if self.sequence.load(Ordering::Relaxed) != number {
            return None;
        }
        let answer = Answer {
            at: at as UnixTime,
            imsi: Imsi::from_packed(word & ((1 << STATUS_AT) - 1)),
            status: *Status::ALL.get((word >> STATUS_AT & 3) as usize)?,
            rule: *Rule::ALL.get((word >> RULE_AT) as usize)?,
        };
        Some((number, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imei(number: u64) -> Imei {
        Imei::from_number(number).unwrap()
    }

    /// An answer all of whose parts follow from a number.
    fn answer(number: u64) -> Answer {
        Answer {
            at: number as UnixTime,
            imsi: (!number.is_multiple_of(3))
                .then(|| Imsi::from_digits(format!("00101{number:010}").as_bytes()).unwrap()),
            status: Status::ALL[number as usize % 4],
            rule: Rule::ALL[number as usize % 17],
        }
    }

    #[test]
    fn a_device_s_answers_come_back_newest_first() {
        let recent = Recent::default();
        for number in 1..=100 {
            recent.note(imei(1 + number % 2), &answer(number));
        }
        let expected: Vec<_> = (1..=100).rev().filter(|number| number % 2 == 0).map(answer).collect();
        assert_eq!(recent.for_device(imei(1)), expected);
        assert_eq!(recent.for_device(imei(3)), []);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let recent = Recent::default();
        recent.note(imei(1), &answer(1));
        recent.note(imei(1), &answer(2));
        for number in 2..SLOTS as u64 + 1 {
            recent.note(imei(2), &answer(number));
        }
        assert_eq!(recent.for_device(imei(1)), [answer(2)]);
        assert_eq!(recent.for_device(imei(2)).len(), SLOTS - 1);
    }

    #[test]
    fn what_is_written_meanwhile_is_whole_or_not_there() {
        let recent = Recent { slots: (0..8).map(|_| Slot::default()).collect(), ..Recent::default() };
        let recent = &recent;
        std::thread::scope(|scope| {
            for thread in 0..3u64 {
                scope.spawn(move || {
                    for number in 0..200_000 {
                        let number = 1 + number * 3 + thread;
                        recent.note(imei(number % 2 + 1), &answer(number));
                    }
                });
            }
            scope.spawn(|| {
                for turn in 0..20_000 {
                    for found in recent.for_device(imei(turn % 2 + 1)) {
                        assert_eq!(found, answer(u64::from(found.at)));
                        assert_eq!(u64::from(found.at) % 2, turn % 2);
                    }
                }
            });
        });
        assert!(!recent.for_device(imei(1)).is_empty());
    }
}
