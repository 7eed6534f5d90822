//! Sorted tables that are searched where they lie: sets of TACs, and disjoint intervals of IMEIs or IMSIs.
//!
//! Its one job: encode such tables, check them, search them, and flatten overlapping ranges into disjoint intervals.
//! The builder and the snapshot call it. It never knows whether a number is an IMEI or an IMSI.
//!
//! A TAC set is its TACs as u32. An interval is `from << 4 | tag` and `to` (inclusive) as u64; intervals that know no
//! tag have tag 0.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::layout::BadSection;
use super::le::u64_at;
use super::tag::Tag;

/// Bytes of an encoded interval.
const INTERVAL: usize = 16;
/// Numbers of an interval must leave room for the tag.
const LIMIT: u64 = 1 << 60;

/// The numbers from `from` to `to`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval {
    /// The first number.
    pub from: u64,
    /// The last number, not below `from`.
    pub to: u64,
    /// What it says of them.
    pub tag: Tag,
}

/// Resolve overlaps: for each number the narrowest interval over it counts, of equally narrow ones the one whose tag
/// has the lowest `rank`. Gives disjoint intervals, sorted, as few as possible.
pub(super) fn flatten(mut intervals: Vec<Interval>, rank: impl Fn(Tag) -> u8) -> Vec<Interval> {
    intervals.sort_unstable();
    // What covers a number changes only where an interval starts and after one ends.
    let mut borders: Vec<u64> = intervals.iter().flat_map(|interval| [interval.from, interval.to + 1]).collect();
    borders.sort_unstable();
    borders.dedup();

    let mut flat: Vec<Interval> = Vec::new();
    let mut waiting = intervals.iter().peekable();
    // Those that began, the winner on top.
    let mut begun = BinaryHeap::new();
    for (&from, &next) in borders.iter().zip(borders.iter().skip(1)) {
        while let Some(interval) = waiting.next_if(|interval| interval.from == from) {
            let width = interval.to - interval.from;
            begun.push(Reverse((width, rank(interval.tag), interval)));
        }
        while begun.peek().is_some_and(|Reverse((_, _, interval))| interval.to < from) {
            begun.pop();
        }
        let Some(Reverse((_, _, winner))) = begun.peek() else { continue };
        match flat.last_mut() {
            Some(last) if last.tag == winner.tag && last.to + 1 == from => last.to = next - 1,
            _ => flat.push(Interval { from, to: next - 1, tag: winner.tag }),
        }
    }
    flat
}

/// The section of disjoint, sorted intervals.
pub(super) fn encode_intervals(intervals: &[Interval]) -> Vec<u8> {
    let mut section = Vec::with_capacity(intervals.len() * INTERVAL);
    for interval in intervals {
        section.extend((interval.from << 4 | u64::from(interval.tag.number())).to_le_bytes());
        section.extend(interval.to.to_le_bytes());
    }
    section
}

/// Check that a section holds disjoint, sorted intervals; gives how many.
pub(super) fn check_intervals(section: &[u8]) -> Result<u64, BadSection> {
    let (intervals, rest) = section.as_chunks::<INTERVAL>();
    if !rest.is_empty() {
        return Err(BadSection("not a whole number of intervals"));
    }
    let mut free_from = 0;
    for encoded in intervals {
        let interval = decode_interval(encoded).ok_or(BadSection("an interval is cut"))?;
        if interval.from < free_from || interval.to < interval.from || interval.to >= LIMIT {
            return Err(BadSection("the intervals are not disjoint and sorted"));
        }
        free_from = interval.to + 1;
    }
    Ok(intervals.len() as u64)
}

/// The tag of the interval over `number`.
#[inline]
pub(super) fn find_interval(section: &[u8], number: u64) -> Option<Tag> {
    let (intervals, _) = section.as_chunks::<INTERVAL>();
    let after =
        intervals.partition_point(|encoded| decode_interval(encoded).is_some_and(|interval| interval.from <= number));
    let interval = decode_interval(intervals.get(after.checked_sub(1)?)?)?;
    (number <= interval.to).then_some(interval.tag)
}

/// All intervals of a section, in order.
pub(super) fn intervals(section: &[u8]) -> impl Iterator<Item = Interval> {
    let (intervals, _) = section.as_chunks::<INTERVAL>();
    intervals.iter().filter_map(decode_interval)
}

#[inline]
fn decode_interval(encoded: &[u8; INTERVAL]) -> Option<Interval> {
    let (from, to) = (u64_at(encoded, 0)?, u64_at(encoded, 8)?);
    Some(Interval { from: from >> 4, to, tag: Tag::from_low_bits(from) })
}

/// The TACs of a set, in order.
pub struct Tacs<'a>(std::slice::Iter<'a, [u8; 4]>);

impl Iterator for Tacs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        self.0.next().map(|tac| u32::from_le_bytes(*tac))
    }
}

/// All TACs of a section.
pub(super) fn tacs(section: &[u8]) -> Tacs<'_> {
    let (tacs, _) = section.as_chunks::<4>();
    Tacs(tacs.iter())
}

/// The section of a set of TACs, sorted and without duplicates.
pub(super) fn encode_tacs(tacs: &[u32]) -> Vec<u8> {
    tacs.iter().flat_map(|tac| tac.to_le_bytes()).collect()
}

/// Check that a section is a sorted set of TACs; gives how many.
pub(super) fn check_tacs(section: &[u8]) -> Result<u64, BadSection> {
    let (tacs, rest) = section.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(BadSection("not a whole number of TACs"));
    }
    if !tacs.is_sorted_by(|a, b| u32::from_le_bytes(*a) < u32::from_le_bytes(*b)) {
        return Err(BadSection("the TACs are not sorted"));
    }
    Ok(tacs.len() as u64)
}

/// Whether a set of TACs holds this one.
#[inline]
pub(super) fn has_tac(section: &[u8], tac: u32) -> bool {
    let (tacs, _) = section.as_chunks::<4>();
    tacs.binary_search_by_key(&tac, |encoded| u32::from_le_bytes(*encoded)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interval(from: u64, to: u64, tag: u64) -> Interval {
        Interval { from, to, tag: Tag::from_low_bits(tag) }
    }

    #[test]
    fn the_narrowest_wins_and_the_wider_goes_on_after_it() {
        let flat = flatten(vec![interval(0, 99, 0), interval(10, 19, 1), interval(15, 15, 0)], Tag::number);
        let expected =
            [interval(0, 9, 0), interval(10, 14, 1), interval(15, 15, 0), interval(16, 19, 1), interval(20, 99, 0)];
        assert_eq!(flat, expected);
    }

    #[test]
    fn touching_intervals_of_one_tag_become_one() {
        let flat = flatten(vec![interval(5, 9, 3), interval(0, 4, 3), interval(11, 12, 3)], Tag::number);
        assert_eq!(flat, [interval(0, 9, 3), interval(11, 12, 3)]);
        assert_eq!(flatten(Vec::new(), Tag::number), []);
    }

    #[test]
    fn the_ends_of_an_interval_are_in_it() {
        let section = encode_intervals(&[interval(10, 19, 1), interval(30, 30, 2)]);
        assert_eq!(check_intervals(&section), Ok(2));
        let tags = [9, 10, 19, 20, 29, 30, 31].map(|number| find_interval(&section, number).map(Tag::number));
        assert_eq!(tags, [None, Some(1), Some(1), None, None, Some(2), None]);
        assert_eq!(find_interval(&[], 10), None);
    }

    #[test]
    fn what_is_not_sorted_is_refused() {
        let bad = [
            vec![interval(10, 19, 1), interval(19, 30, 1)],
            vec![interval(10, 9, 1)],
            vec![interval(10, 19, 1), interval(0, 5, 1)],
            vec![interval(0, u64::MAX, 1)],
        ];
        for intervals in bad {
            assert!(check_intervals(&encode_intervals(&intervals)).is_err());
        }
        assert!(check_intervals(&[0; 15]).is_err());
        assert!(check_tacs(&[1, 0, 0, 0, 1, 0, 0, 0]).is_err());
        assert!(check_tacs(&[0; 5]).is_err());
    }

    #[test]
    fn a_tac_is_in_its_set() {
        let section = encode_tacs(&[1, 35_209_900, 99_999_999]);
        assert_eq!(check_tacs(&section), Ok(3));
        let held = [0, 1, 2, 35_209_900, 99_999_999].map(|tac| has_tac(&section, tac));
        assert_eq!(held, [false, true, false, true, true]);
        assert!(!has_tac(&[], 1));
    }

    proptest! {
        #[test]
        fn flattening_equals_asking_every_interval(
            ranges in proptest::collection::vec((0u64..60, 0u64..30, 0u64..5), 0..25)
        ) {
            let intervals: Vec<Interval> =
                ranges.iter().map(|&(from, width, tag)| interval(from, from + width, tag)).collect();
            let flat = flatten(intervals.clone(), Tag::number);
            prop_assert!(flat.is_sorted_by(|a, b| a.to < b.from));
            let section = encode_intervals(&flat);
            prop_assert_eq!(check_intervals(&section), Ok(flat.len() as u64));
            for number in 0..100 {
                let over = intervals.iter().filter(|i| i.from <= number && number <= i.to);
                let narrowest = over.min_by_key(|i| (i.to - i.from, i.tag)).map(|i| i.tag);
                prop_assert_eq!(find_interval(&section, number), narrowest);
            }
        }
    }
}
