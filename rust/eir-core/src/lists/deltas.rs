//! What has changed since the snapshot: the deltas of the national database, one after the other, as one layer.
//!
//! A delta comes into force whole: while its changes are written nobody sees them, and when a reader is given the new
//! [`Deltas`] he sees them all. So an entry knows which delta made it, and what was there before; readers of the
//! [`Deltas`] before that still find the latter. Read by [`crate::verdict`]; the node replaces its `Deltas` and keeps
//! callers of [`Deltas::apply`] apart. Nothing here is durable, and nothing of a snapshot is ever touched.

use std::collections::HashMap;
use std::sync::Arc;

use super::layout::Counts;
use super::{List, Snapshot};
use crate::UnixTime;
use crate::imei::{Imei, Imsi};
use crate::table::Table;

/// Bits of an entry that are the number of an [`Entry`]: what holds now, and what held before.
const ENTRY_BITS: u32 = 20;
const ENTRY: u64 = (1 << ENTRY_BITS) - 1;
/// Different entries that there may be.
const MOST_ENTRIES: usize = 1 << ENTRY_BITS;
/// Deltas above one snapshot.
const MOST_DELTAS: u32 = (1 << (u64::BITS - 2 * ENTRY_BITS)) - 1;
/// No delta speaks of the device.
const ABSENT: u64 = 0;
/// The device is on no list.
const UNLISTED: u64 = 1;

/// What a list says of a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The list.
    pub list: List,
    /// Why; empty where nothing is said.
    pub reason: Arc<str>,
    /// When a grey device becomes black.
    pub until: Option<UnixTime>,
}

/// A change of what is said of a device: another entry, or none at all.
pub type Change = (Imei, Option<Entry>);

/// Why a delta cannot be put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooMany {
    /// More different reasons and deadlines than there are numbers for.
    Entries,
    /// More deltas above one snapshot than there are numbers for.
    Deltas,
}

impl std::fmt::Display for TooMany {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Entries => f.write_str("too many different reasons and deadlines since the snapshot"),
            Self::Deltas => f.write_str("too many deltas since the snapshot; a new snapshot is needed"),
        }
    }
}

impl std::error::Error for TooMany {}

/// The deltas above a snapshot, as of one of them. Cheap to clone.
#[derive(Clone)]
pub struct Deltas {
    /// IMEI -> the delta that was last to speak of it, what it said, and what was said before.
    devices: Arc<Table<1>>,
    /// By number; the first two are never asked for.
    entries: Arc<Vec<Entry>>,
    numbers: Arc<HashMap<Entry, u64>>,
    pairs: Arc<HashMap<(Imei, Imsi), bool>>,
    /// Deltas since the snapshot.
    count: u32,
    sequence: u64,
    as_of: UnixTime,
}

impl Deltas {
    /// No delta above a snapshot of that sequence, which was true at `as_of`.
    #[must_use]
    pub fn above(sequence: u64, as_of: UnixTime) -> Self {
        let nothing = Entry { list: List::White, reason: "".into(), until: None };
        Self {
            devices: Arc::default(),
            entries: Arc::new(vec![nothing.clone(), nothing]),
            numbers: Arc::default(),
            pairs: Arc::default(),
            count: 0,
            sequence,
            as_of,
        }
    }

    /// The sequence of the last delta, or of the snapshot where there is none.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When the lists were last known to be true.
    #[must_use]
    pub fn as_of(&self) -> UnixTime {
        self.as_of
    }

    /// How many deltas there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many devices they speak of, those of a delta that is being applied included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Whether they speak of no device.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// What is said of a device: `None` nothing, `Some(None)` that it is on no list.
    #[inline]
    #[must_use]
    pub fn get(&self, imei: Imei) -> Option<Option<&Entry>> {
        let [word] = self.devices.get(imei.number())?;
        match self.seen(word) {
            ABSENT => None,
            UNLISTED => Some(None),
            number => self.entries.get(number as usize).map(Some),
        }
    }

    /// Whether they speak of any pair.
    #[inline]
    #[must_use]
    pub fn have_pairs(&self) -> bool {
        !self.pairs.is_empty()
    }

    /// Whether this subscriber may use this device whatever is said of it; `None`: they do not say.
    #[inline]
    #[must_use]
    pub fn paired(&self, imei: Imei, imsi: Imsi) -> Option<bool> {
        if self.pairs.is_empty() { None } else { self.pairs.get(&(imei, imsi)).copied() }
    }

    /// Calls `visit` for every device that they speak of.
    pub fn for_each(&self, mut visit: impl FnMut(Imei, Option<&Entry>)) {
        self.devices.for_each(|key, _| {
            if let Some(imei) = Imei::from_number(key)
                && let Some(said) = self.get(imei)
            {
                visit(imei, said);
            }
        });
    }

    /// Devices on each list, by [`List`], in a snapshot with these above it.
    #[must_use]
    pub fn counts(&self, snapshot: &Snapshot) -> [u64; 3] {
        let Counts { white, black, grey, .. } = snapshot.header().counts;
        let mut counts = [white, black, grey];
        let mut add = |list: List, change: i64| {
            if let Some(count) = counts.get_mut(list as usize) {
                *count = count.saturating_add_signed(change);
            }
        };
        self.for_each(|imei, said| {
            if let Some(tag) = snapshot.imei(imei) {
                add(snapshot.tag_info(tag).list, -1);
            }
            if let Some(entry) = said {
                add(entry.list, 1);
            }
        });
        counts
    }

    /// Calls `visit` for every pair that they speak of, and whether it is one.
    pub fn for_each_pair(&self, mut visit: impl FnMut(Imei, Imsi, bool)) {
        for ((imei, imsi), present) in &*self.pairs {
            visit(*imei, *imsi, *present);
        }
    }

    /// These and one delta more. Readers of these see nothing of it.
    ///
    /// Only one may be applied at a time, and its result is what the next is applied to.
    ///
    /// # Errors
    /// [`TooMany`]; then nothing is changed.
    pub fn apply(
        &self,
        changes: &[Change],
        pairs: &[(Imei, Imsi, bool)],
        sequence: u64,
        as_of: UnixTime,
    ) -> Result<Self, TooMany> {
        let count = self.count + 1;
        if count > MOST_DELTAS {
            return Err(TooMany::Deltas);
        }
        let mut new = Self { count, sequence, as_of: as_of.max(self.as_of), ..self.clone() };
        let mut numbered = Vec::with_capacity(changes.len());
        for (imei, said) in changes {
            let number = said.as_ref().map_or(Ok(UNLISTED), |entry| new.number(entry))?;
            numbered.push((imei.number(), number));
        }
        for (key, number) in numbered {
            self.devices.update(key, |word| {
                let before = word.map_or(ABSENT, |[word]| self.seen(word));
                Some([u64::from(count) << (2 * ENTRY_BITS) | before << ENTRY_BITS | number])
            });
        }
        if !pairs.is_empty() {
            let all = Arc::make_mut(&mut new.pairs);
            all.extend(pairs.iter().map(|(imei, imsi, present)| ((*imei, *imsi), *present)));
        }
        Ok(new)
    }

    /// The number of the entry that a reader of these sees.
    #[inline]
    fn seen(&self, word: u64) -> u64 {
        let made_by = (word >> (2 * ENTRY_BITS)) as u32;
        if made_by > self.count { word >> ENTRY_BITS & ENTRY } else { word & ENTRY }
    }

    fn number(&mut self, entry: &Entry) -> Result<u64, TooMany> {
        if let Some(number) = self.numbers.get(entry) {
            return Ok(*number);
        }
        if self.entries.len() == MOST_ENTRIES {
            return Err(TooMany::Entries);
        }
        let number = self.entries.len() as u64;
        Arc::make_mut(&mut self.entries).push(entry.clone());
        Arc::make_mut(&mut self.numbers).insert(entry.clone(), number);
        Ok(number)
    }
}

/// How far they are; what they say is too long to show.
impl std::fmt::Debug for Deltas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, sequence, as_of, .. } = self;
        f.debug_struct("Deltas")
            .field("count", count)
            .field("sequence", sequence)
            .field("as_of", as_of)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;

    use super::*;

    fn imei(number: u64) -> Imei {
        Imei::from_number(35_000_000_000_000 + number).unwrap()
    }

    fn imsi(number: u64) -> Imsi {
        Imsi::from_digits(format!("00101{number:010}").as_bytes()).unwrap()
    }

    fn entry(list: List, reason: &str, until: Option<UnixTime>) -> Entry {
        Entry { list, reason: reason.into(), until }
    }

    #[test]
    fn each_delta_is_seen_by_who_was_given_it() {
        let white = entry(List::White, "", None);
        let grey = entry(List::Grey, "", Some(1_800_000_000));
        let none = Deltas::above(7, 100);
        let first = none.apply(&[(imei(1), Some(white.clone())), (imei(2), None)], &[], 8, 110).unwrap();
        assert_eq!((none.get(imei(1)), none.get(imei(2))), (None, None));
        assert_eq!(
            (first.get(imei(1)), first.get(imei(2)), first.get(imei(3))),
            (Some(Some(&white)), Some(None), None)
        );
        let second = first.apply(&[(imei(1), Some(grey.clone()))], &[(imei(1), imsi(1), true)], 9, 90).unwrap();
        assert_eq!((first.get(imei(1)), first.paired(imei(1), imsi(1))), (Some(Some(&white)), None));
        assert_eq!((second.get(imei(1)), second.paired(imei(1), imsi(1))), (Some(Some(&grey)), Some(true)));
        assert_eq!(second.get(imei(2)), Some(None));
        assert_eq!((second.sequence(), second.as_of(), second.count(), second.len()), (9, 110, 2, 2));
        let third = second.apply(&[], &[(imei(1), imsi(1), false)], 10, 120).unwrap();
        assert_eq!((third.paired(imei(1), imsi(1)), third.paired(imei(1), imsi(2))), (Some(false), None));
    }

    #[test]
    fn entries_that_have_no_number_refuse_the_whole_delta() {
        let reasons = |from: usize, count: usize| -> Vec<Change> {
            let said = |number| entry(List::Black, &format!("case-{number}"), None);
            (from..from + count).map(|number| (imei(number as u64), Some(said(number)))).collect()
        };
        let full = Deltas::above(1, 0).apply(&reasons(0, MOST_ENTRIES - 2), &[], 2, 0).unwrap();
        let again = entry(List::Black, "case-7", None);
        let one_more = [(imei(1), Some(again.clone())), reasons(MOST_ENTRIES, 1).remove(0)];
        assert_eq!(full.apply(&one_more, &[], 3, 0).unwrap_err(), TooMany::Entries);
        assert_eq!(full.get(imei(1)), Some(Some(&entry(List::Black, "case-1", None))));
        assert_eq!(full.apply(&one_more[..1], &[], 3, 0).unwrap().get(imei(1)), Some(Some(&again)));
        let late = Deltas { count: MOST_DELTAS, ..full };
        assert_eq!(late.apply(&[], &[], 3, 0).unwrap_err(), TooMany::Deltas);
    }

    #[test]
    fn a_reader_never_sees_half_of_a_delta() {
        const DEVICES: u64 = 2_000;
        let said = |number: u32| Some(entry(List::Grey, "", Some(number)));
        let current = Mutex::new(Deltas::above(0, 0));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 1..300 {
                    let changes: Vec<_> = (0..DEVICES).map(|device| (imei(device), said(number))).collect();
                    let present = current.lock().unwrap().clone();
                    let next = present.apply(&changes, &[], u64::from(number), number).unwrap();
                    *current.lock().unwrap() = next;
                }
                over.store(true, Ordering::Release);
            });
            while !over.load(Ordering::Acquire) {
                let seen = current.lock().unwrap().clone();
                let expected = (seen.count() > 0).then(|| said(seen.count()));
                for device in (0..DEVICES).step_by(97) {
                    let found = seen.get(imei(device)).map(Option::<&Entry>::cloned);
                    // Until the next is given out, the one after it is not begun.
                    if current.lock().unwrap().count() == seen.count() {
                        assert_eq!(found, expected);
                    }
                }
            }
        });
    }

    proptest! {
        #[test]
        fn deltas_one_after_the_other_are_a_map(
            deltas in prop::collection::vec(
                (
                    prop::collection::vec((0u64..40, prop::option::of((0u8..3, 0u8..3, prop::option::of(1u32..4)))), 0..30),
                    prop::collection::vec((0u64..5, 0u64..5, any::<bool>()), 0..5),
                ),
                0..12,
            )
        ) {
            let (mut model, mut pair_model) = (BTreeMap::new(), BTreeMap::new());
            let mut layer = Deltas::above(1, 5);
            for (number, (changes, pairs)) in (2u64..).zip(deltas) {
                // A delta speaks once of a device.
                let changes: BTreeMap<u64, _> = changes.into_iter().collect();
                let changes: Vec<Change> = changes
                    .into_iter()
                    .map(|(device, said)| {
                        let said = said.map(|(list, reason, until)| {
                            entry(List::from_number(list).unwrap(), &format!("r{reason}"), until)
                        });
                        (imei(device), said)
                    })
                    .collect();
                let pairs: Vec<_> = pairs.into_iter().map(|(d, s, present)| (imei(d), imsi(s), present)).collect();
                let before: Vec<_> = (0..40).map(|d| layer.get(imei(d)).map(Option::<&Entry>::cloned)).collect();
                let next = layer.apply(&changes, &pairs, number, 5).unwrap();
                let still: Vec<_> = (0..40).map(|d| layer.get(imei(d)).map(Option::<&Entry>::cloned)).collect();
                prop_assert_eq!(before, still);
                layer = next;
                model.extend(changes);
                pair_model.extend(pairs.into_iter().map(|(imei, imsi, present)| ((imei, imsi), present)));
                for device in 0..40 {
                    let found = layer.get(imei(device)).map(Option::<&Entry>::cloned);
                    prop_assert_eq!(found, model.get(&imei(device)).cloned());
                }
                for (d, s) in (0..5).flat_map(|d| (0..5).map(move |s| (d, s))) {
                    prop_assert_eq!(layer.paired(imei(d), imsi(s)), pair_model.get(&(imei(d), imsi(s))).copied());
                }
            }
            let mut seen = BTreeMap::new();
            layer.for_each(|imei, said| drop(seen.insert(imei, said.cloned())));
            prop_assert_eq!(seen, model);
        }
    }
}
