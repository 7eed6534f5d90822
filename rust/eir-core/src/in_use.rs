//! Which devices were seen in the last days, and with which subscribers.
//!
//! Marked by the doors for every device that is decided ([`InUse::mark`]); asked by whoever wants to know what a new
//! list would do to the devices that are in use ([`InUse::last_day`]), and for the report of a day
//! ([`InUse::for_each_pair`]). Days are numbers since 1970 in UTC, and come in as arguments.
//!
//! A table of fixed size: one cell of 16 octets for each device and subscriber. A device with one subscriber costs 16
//! octets by the share of the table that is filled: measured, 20 octets where the first pair in a thousand finds no place
//! on its path, and no pair is kept any more where nine tenths are filled (17.8). A pair keeps its cell until all its days
//! are over.
//!
//! All pairs of a device lie within [`PATH`] cells from where its IMEI hashes to. Cells are never freed, only reused,
//! so a look-up ends at the first one that was never used. Whoever adds a pair holds the lock of the device's stripe,
//! so that a pair is never there twice, and takes the cell with a compare-and-swap, because other stripes' devices
//! reach for the same cells. Who marks a pair that is there takes no lock.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::imei::{Imei, Imsi};
use crate::lists::le::prefetch_of;
use crate::scatter::scatter;

/// A day: its number since 1970-01-01, UTC.
pub type Day = u32;

/// Days that a pair is remembered: today and those before.
pub const DAYS: Day = 14;
/// Cells in which a device's pairs may lie.
pub const PATH: usize = 64;
/// Pairs that one device may have: a cloned IMEI with thousands of subscribers does not push its neighbours out.
pub const PAIRS_PER_DEVICE: usize = 32;

/// Days that have a bit. Two more than are remembered: the bits of tomorrow and of the day after are clear already, so
/// that what is marked between midnight and [`InUse::rotate`] is right, and no bit of old is ever taken for today's.
const BITS: Day = 16;
/// Cells that share a cache line; a path begins with a line.
const LINE: usize = 4;
const STRIPES: usize = 256;

/// A cell's first word: the IMEI in the low 47 bits, its days above.
const IMEI_BITS: u32 = 47;
const IMEI: u64 = (1 << IMEI_BITS) - 1;
const DAY_BITS: u64 = ((1 << BITS) - 1) << IMEI_BITS;
/// A cell that was never used.
const FREE: u64 = 0;
/// A cell whose second word is being written.
const TAKEN: u64 = 1 << 63;

#[derive(Default)]
#[repr(align(16))]
struct Cell {
    /// IMEI and days; no day: the pair is over, and the cell may be used again.
    device: AtomicU64,
    /// The packed IMSI, 0 for none.
    subscriber: AtomicU64,
}

/// The table.
pub struct InUse {
    cells: Box<[Cell]>,
    /// Cells before the first one that begins a cache line.
    skipped: usize,
    /// Lines in which a path may begin; 0: switched off.
    lines: u64,
    today: AtomicU32,
    pairs: AtomicUsize,
    most: usize,
    dropped: AtomicU64,
    stripes: Box<[Mutex<()>]>,
    rotating: Mutex<()>,
    /// Drawn at start, so that nobody outside can choose devices that collide.
    seed: u64,
}

impl InUse {
    /// A table of at most `octets`. With less than two paths' worth it is switched off, and marks nothing.
    #[must_use]
    pub fn new(octets: usize, today: Day) -> Self {
        let count = octets / size_of::<Cell>();
        let cells = if count < 2 * PATH { Box::default() } else { zeroed(count) };
        let skipped = cells.as_ptr().align_offset(LINE * size_of::<Cell>()).min(LINE);
        // The last line that begins a path has a whole path behind it.
        let lines = cells.len().saturating_sub(skipped + PATH) / LINE;
        Self {
            most: cells.len() / 10 * 9,
            cells,
            skipped,
            lines: lines as u64,
            today: AtomicU32::new(today),
            pairs: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            stripes: std::iter::repeat_with(Mutex::default).take(STRIPES).collect(),
            rotating: Mutex::default(),
            seed: RandomState::new().hash_one(DAYS),
        }
    }

    /// Pairs that were seen in the last days.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.load(Ordering::Relaxed)
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many times a pair was not kept: no place, or no day that is near the present one.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Octets of the table; 0 where it is switched off.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.cells.len() * size_of::<Cell>()
    }

    /// Ask the processor for what [`mark`](Self::mark) will read of a device.
    #[inline]
    pub fn warm(&self, imei: Imei) {
        if let Some(cell) = self.path(self.hash(imei)).first() {
            prefetch_of(cell);
        }
    }

    /// Notes that a device is in use on this day. Days that are not near the one that was last rotated to are not noted.
    #[inline]
    pub fn mark(&self, imei: Imei, imsi: Option<Imsi>, day: Day) {
        if self.lines == 0 {
            return;
        }
        let hash = self.hash(imei);
        let subscriber = imsi.map_or(0, Imsi::packed);
        let Some(bit) = self.bit(day) else { return self.drop_one() };
        for cell in self.path(hash) {
            let word = cell.device.load(Ordering::Acquire);
            if word & IMEI == imei.number() && cell.subscriber.load(Ordering::Acquire) == subscriber {
                if word & bit != 0 || self.set(cell, word, subscriber, bit) {
                    return;
                }
                break;
            }
            if word == FREE {
                break;
            }
        }
        self.add(hash, imei, subscriber, bit);
    }

    /// The last day on which a device was seen, of those that are remembered.
    #[must_use]
    pub fn last_day(&self, imei: Imei) -> Option<Day> {
        let words = self.path(self.hash(imei)).iter().map(|cell| cell.device.load(Ordering::Acquire));
        let own = words.take_while(|word| *word != FREE).filter(|word| word & IMEI == imei.number());
        let days = own.fold(0, |days, word| days | word & DAY_BITS);
        window(self.today.load(Ordering::Acquire)).rev().find(|day| days & bit_of(*day) != 0)
    }

    /// Visits every pair that was seen on a day; what is marked meanwhile may or may not be visited.
    pub fn for_each_pair(&self, day: Day, mut visit: impl FnMut(Imei, Option<Imsi>)) {
        let Some(bit) = self.bit(day) else { return };
        for cell in &self.cells {
            loop {
                let word = cell.device.load(Ordering::Acquire);
                if word & bit == 0 {
                    break;
                }
                let subscriber = cell.subscriber.load(Ordering::Acquire);
                // Another pair has the cell by now?
                if (cell.device.load(Ordering::Relaxed) ^ word) & IMEI != 0 {
                    continue;
                }
                if let Some(imei) = Imei::from_number(word & IMEI) {
                    visit(imei, Imsi::from_packed(subscriber));
                }
                break;
            }
        }
    }

    /// Visits every pair that is remembered, a device with each of its subscribers; what is marked meanwhile may or may not
    /// be visited.
    pub fn for_each(&self, mut visit: impl FnMut(Imei, Option<Imsi>)) {
        for cell in &self.cells {
            let word = cell.device.load(Ordering::Acquire);
            let subscriber = cell.subscriber.load(Ordering::Acquire);
            // What another pair takes in this moment is visited another time.
            let same = (cell.device.load(Ordering::Relaxed) ^ word) & !DAY_BITS == 0;
            if word & DAY_BITS != 0
                && same
                && let Some(imei) = Imei::from_number(word & IMEI)
            {
                visit(imei, Imsi::from_packed(subscriber));
            }
        }
    }

    /// Makes `today` the present day and forgets days that are then too old; for a thread that is in no hurry, when the
    /// day has changed. No lock is held: marks go on meanwhile.
    pub fn rotate(&self, today: Day) {
        // One at a time: two would not know of each other what they keep.
        let _alone = lock(&self.rotating);
        let kept = window(today).filter_map(|day| self.bit(day)).fold(0, |kept, bit| kept | bit);
        let over = DAY_BITS & !kept;
        for cell in &self.cells {
            if cell.device.load(Ordering::Relaxed) & over != 0 {
                let before = cell.device.fetch_and(!over, Ordering::AcqRel) & DAY_BITS;
                if before != 0 && before & !over == 0 {
                    self.pairs.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
        self.today.store(today, Ordering::Release);
    }

    /// Sets a day's bit of the pair whose cell had `word`; false where another pair has taken the cell.
    fn set(&self, cell: &Cell, mut word: u64, subscriber: u64, bit: u64) -> bool {
        // With a plain `or`, the day could go to a pair that has taken the cell since it was read.
        while let Err(found) = cell.device.compare_exchange_weak(word, word | bit, Ordering::AcqRel, Ordering::Acquire)
        {
            if (found ^ word) & !DAY_BITS != 0 || cell.subscriber.load(Ordering::Acquire) != subscriber {
                return false;
            }
            word = found;
        }
        if word & DAY_BITS == 0 {
            self.pairs.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Adds a pair that was not there: once for each in a fortnight.
    #[cold]
    fn add(&self, hash: u64, imei: Imei, subscriber: u64, bit: u64) {
        if self.len() >= self.most {
            return self.drop_one();
        }
        let Some(stripe) = self.stripes.get(hash as usize % STRIPES) else { return };
        let _alone = lock(stripe);
        // Another stripe's device may be faster, but not for ever.
        for _ in 0..PATH {
            let (mut place, mut own) = (None, 0);
            for cell in self.path(hash) {
                let word = cell.device.load(Ordering::Acquire);
                if word & (DAY_BITS | TAKEN) == 0 && place.is_none() {
                    place = Some((cell, word));
                }
                if word == FREE {
                    break;
                }
                if word & IMEI == imei.number() {
                    let same = cell.subscriber.load(Ordering::Acquire) == subscriber;
                    if same && (word & bit != 0 || self.set(cell, word, subscriber, bit)) {
                        return;
                    }
                    own += usize::from(word & DAY_BITS != 0);
                }
            }
            let Some((cell, word)) = place.filter(|_| own < PAIRS_PER_DEVICE) else { break };
            if cell.device.compare_exchange(word, TAKEN, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                cell.subscriber.store(subscriber, Ordering::Release);
                cell.device.store(imei.number() | bit, Ordering::Release);
                self.pairs.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        self.drop_one();
    }

    #[cold]
    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// A day's bit; `None` where the day is not near the present one.
    #[inline]
    fn bit(&self, day: Day) -> Option<u64> {
        window(self.today.load(Ordering::Acquire)).contains(&day).then(|| bit_of(day))
    }

    #[inline]
    fn hash(&self, imei: Imei) -> u64 {
        scatter(imei.number(), self.seed)
    }

    /// The cells in which a device's pairs lie; none where the table is switched off.
    #[inline]
    fn path(&self, hash: u64) -> &[Cell] {
        let line = (u128::from(hash) * u128::from(self.lines)) >> 64;
        let first = self.skipped + line as usize * LINE;
        self.cells.get(first..first + PATH).unwrap_or_default()
    }
}

/// The days that have a bit while `today` is the present one.
#[inline]
fn window(today: Day) -> std::ops::Range<Day> {
    let first = today.saturating_sub(DAYS - 1);
    first..first.saturating_add(BITS)
}

#[inline]
fn bit_of(day: Day) -> u64 {
    1 << (IMEI_BITS + day % BITS)
}

/// Cells that were never used. The system gives the memory as it is touched, so that a large table costs no time at
/// start.
fn zeroed(count: usize) -> Box<[Cell]> {
    // SAFETY: a cell is two atomic integers, for which all bits zero is a value: a cell that was never used.
    unsafe { Box::<[Cell]>::new_zeroed_slice(count).assume_init() }
}

/// What the locks guard is in the cells, whole at any time; one who panicked left nothing half done.
fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const TODAY: Day = 20_000;

    fn imei(number: u64) -> Imei {
        Imei::from_number(number).unwrap()
    }

    /// An invented subscriber; none for 0.
    fn imsi(number: u64) -> Option<Imsi> {
        (number > 0).then(|| Imsi::from_digits(format!("00101{number:010}").as_bytes()).unwrap())
    }

    fn pairs(table: &InUse, day: Day) -> Vec<(Imei, Option<Imsi>)> {
        let mut found = Vec::new();
        table.for_each_pair(day, |imei, imsi| found.push((imei, imsi)));
        found.sort_unstable();
        found
    }

    /// (device, subscriber) -> days.
    type Model = BTreeMap<(Imei, Option<Imsi>), BTreeSet<Day>>;

    proptest! {
        #[test]
        fn behaves_as_a_map_of_sets_of_days(
            acts in prop::collection::vec((0u8..20, 1u64..40, 0u64..4, 0u32..20), 0..600),
        ) {
            let table = InUse::new(1 << 16, TODAY);
            let (mut model, mut today, mut dropped) = (Model::new(), TODAY, 0);
            for (act, device, subscriber, days) in acts {
                if act == 0 {
                    today = match days {
                        0..15 => today + 1,
                        15..18 => today + days,
                        _ => today - 3,
                    };
                    table.rotate(today);
                    for days in model.values_mut() {
                        days.retain(|day| window(today).contains(day));
                    }
                    model.retain(|_, days| !days.is_empty());
                } else {
                    // From before the window to beyond it; mostly today.
                    let day = if act < 10 { today } else { today + 4 - days };
                    let pair = (imei(device), imsi(subscriber));
                    table.mark(pair.0, pair.1, day);
                    if window(today).contains(&day) {
                        model.entry(pair).or_default().insert(day);
                    } else {
                        dropped += 1;
                    }
                }
                prop_assert_eq!((table.len(), table.dropped()), (model.len(), dropped));
            }
            for day in today - 20..today + 5 {
                let expected: Vec<_> = model.iter().filter(|(_, days)| days.contains(&day)).map(|(pair, _)| *pair).collect();
                prop_assert_eq!(pairs(&table, day), expected);
            }
            for device in 1..40 {
                let of = model.range((imei(device), None)..(imei(device + 1), None));
                prop_assert_eq!(table.last_day(imei(device)), of.flat_map(|(_, days)| days).max().copied());
            }
        }
    }

    #[test]
    fn switched_off_it_marks_nothing() {
        for octets in [0, 1, 100, 2 * PATH * 16 - 1] {
            let table = InUse::new(octets, TODAY);
            table.warm(imei(1));
            table.mark(imei(1), None, TODAY);
            table.rotate(TODAY + 1);
            assert_eq!((table.len(), table.dropped(), table.octets()), (0, 0, 0));
            assert_eq!(table.last_day(imei(1)), None);
        }
    }

    #[test]
    fn the_smallest_table_and_the_largest_identities() {
        let table = InUse::new(2 * PATH * 16, TODAY);
        let (last, most) = (imei(crate::imei::IMEI_LIMIT - 1), Imsi::from_digits(b"999999999999999"));
        table.mark(last, most, TODAY);
        assert_eq!((table.last_day(last), pairs(&table, TODAY)), (Some(TODAY), vec![(last, most)]));
    }

    #[test]
    fn a_day_of_a_fortnight_ago_is_never_taken_for_a_later_one() {
        let table = InUse::new(1 << 16, TODAY);
        table.mark(imei(1), None, TODAY);
        for day in TODAY..TODAY + DAYS {
            // Marked before the rotation, as between midnight and the next look at the clock.
            table.mark(imei(2), None, day);
            assert_eq!(table.last_day(imei(2)), Some(day));
            table.rotate(day);
            assert_eq!(table.last_day(imei(1)), Some(TODAY));
        }
        table.rotate(TODAY + DAYS);
        assert_eq!((table.last_day(imei(1)), table.len()), (None, 1));
    }

    #[test]
    fn a_cloned_device_does_not_push_others_out() {
        let table = InUse::new(1 << 20, TODAY);
        for subscriber in 1..=1_000 {
            table.mark(imei(1), imsi(subscriber), TODAY);
        }
        assert_eq!((table.len(), table.dropped()), (PAIRS_PER_DEVICE, 1_000 - PAIRS_PER_DEVICE as u64));
        assert_eq!(table.last_day(imei(1)), Some(TODAY));
    }

    #[test]
    fn of_pairs_at_twenty_octets_each_one_in_a_thousand_finds_no_place() {
        let table = InUse::new(16 << 20, TODAY);
        // What has no place, in a million, until the table holds a pair in each twenty octets.
        let fill = |stride: u64, day: Day| {
            let (before, mut device) = (table.dropped(), 0);
            while table.len() < table.octets() / 20 {
                device += 1;
                table.mark(imei(35_000_000_000_000 + device * stride), imsi(device), day);
            }
            (table.dropped() - before) * 1_000_000 / device
        };
        // By the seed, measured: between 1,090 and 1,450.
        let scattered = fill(7_919, TODAY);
        assert!((500..2_000).contains(&scattered), "{scattered}");
        // Cells whose days are over are used again.
        table.rotate(TODAY + 2 * DAYS);
        assert!(table.is_empty());
        let in_a_row = fill(1, TODAY + 2 * DAYS);
        assert!((500..2_000).contains(&in_a_row), "{in_a_row}");
    }

    #[test]
    fn threads_mark_while_days_pass() {
        const LAST: Day = TODAY + 40;
        let table = InUse::new(64 << 20, TODAY);
        let now = AtomicU32::new(TODAY);
        std::thread::scope(|scope| {
            for thread in 0..3u64 {
                let (table, now) = (&table, &now);
                scope.spawn(move || {
                    let mut step = thread;
                    while now.load(Ordering::Acquire) < LAST {
                        step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        let draw = step >> 33;
                        // Devices change with the days, so that cells are used again.
                        let day = now.load(Ordering::Acquire);
                        let device = imei(1 + draw % 10_000 + u64::from(day) * 5_000);
                        table.mark(device, imsi(draw >> 14 & 3), day);
                        // Unless it slept for days in between.
                        let seen = table.last_day(device) >= Some(day);
                        assert!(seen || now.load(Ordering::Acquire) > day + 10);
                    }
                });
            }
            for day in TODAY + 1..=LAST {
                std::thread::sleep(std::time::Duration::from_millis(10));
                now.store(day, Ordering::Release);
                std::thread::sleep(std::time::Duration::from_millis(2));
                table.rotate(day);
            }
        });
        let live = table.cells.iter().filter(|cell| cell.device.load(Ordering::Relaxed) & DAY_BITS != 0).count();
        assert_eq!(table.len(), live);
        let mut all = BTreeSet::new();
        for day in window(LAST) {
            let of_day = pairs(&table, day);
            assert!(of_day.windows(2).all(|two| two[0] != two[1]), "a pair is there twice");
            let devices = 1 + u64::from(day) * 5_000..=10_000 + u64::from(day) * 5_000;
            assert!(of_day.iter().all(|(imei, _)| devices.contains(&imei.number())), "a day of another pair");
            all.extend(of_day);
        }
        assert_eq!(all.len(), live);
        table.rotate(LAST + DAYS);
        assert!(table.cells.iter().all(|cell| cell.device.load(Ordering::Relaxed) & (DAY_BITS | TAKEN) == 0));
        assert_eq!(table.len(), 0);
    }
}
