//! The encoding of the pairs section: which subscriber may use which cloned or locked IMEI.
//!
//! Its one job: [`encode`] the pairs and tell whether one is among them. The builder and the snapshot call it. It never
//! shows an IMSI.
//!
//! ```text
//! head     16 bytes: log2 of the buckets u32, pairs u32, zeros
//! offsets  for each bucket the number of pairs before it u32, then the number of pairs u32; padded to 16 bytes
//! entries  a pair: IMEI u64, packed IMSI u64; sorted by bucket, IMEI, IMSI
//! ```
//!
//! A bucket is a hash of the IMEI, so a look-up reads one offset and one bucket: one or two cache misses. A section of
//! no pairs has length 0.

use std::ops::Range;

use super::layout::BadSection;
use super::le::{u32_at, u64_at};
use crate::imei::{Imei, Imsi};

/// Bytes of the section's head.
const HEAD: usize = 16;
/// Bytes of a pair.
const PAIR: usize = 16;

/// The bucket of an IMEI, of `1 << bits`. `bits` is from 1 to 31.
#[inline]
fn bucket(imei: u64, bits: u32) -> usize {
    // 2^64 / golden ratio.
    (imei.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as usize
}

/// Log2 of the buckets: about one pair in each.
fn bucket_bits(pairs: usize) -> u32 {
    pairs.next_power_of_two().trailing_zeros().max(1)
}

/// Where the entries start.
fn entries_at(bits: u32) -> usize {
    (HEAD + 4 * ((1 << bits) + 1)).next_multiple_of(PAIR)
}

/// The section of these pairs, which must be sorted, without duplicates, and fewer than 2^31.
pub(super) fn encode(mut pairs: Vec<(Imei, Imsi)>) -> Vec<u8> {
    if pairs.is_empty() {
        return Vec::new();
    }
    let bits = bucket_bits(pairs.len());
    // Stable, so that a bucket stays sorted by IMEI and IMSI.
    pairs.sort_by_key(|(imei, _)| bucket(imei.number(), bits));

    let entries_at = entries_at(bits);
    let mut section = Vec::with_capacity(entries_at + PAIR * pairs.len());
    section.extend(bits.to_le_bytes());
    section.extend((pairs.len() as u32).to_le_bytes());
    section.resize(HEAD, 0);
    let mut written = 0;
    let mut rest = pairs.iter().peekable();
    for number in 0..1 << bits {
        section.extend(u32::to_le_bytes(written));
        while rest.next_if(|(imei, _)| bucket(imei.number(), bits) == number).is_some() {
            written += 1;
        }
    }
    section.extend(written.to_le_bytes());
    section.resize(entries_at, 0);
    for (imei, imsi) in &pairs {
        section.extend(imei.number().to_le_bytes());
        section.extend(imsi.packed().to_le_bytes());
    }
    section
}

/// Where the parts of a pairs section are.
#[derive(Debug, Clone)]
pub(super) struct Pairs {
    bits: u32,
    entries_at: usize,
    count: u32,
}

impl Pairs {
    /// Find the parts of a section; its head and length are checked, offsets and pairs are not read.
    pub fn open(section: &[u8]) -> Result<Self, BadSection> {
        if section.is_empty() {
            return Ok(Self { bits: 1, entries_at: 0, count: 0 });
        }
        let cut = BadSection("shorter than its head says");
        let bits = u32_at(section, 0).ok_or(cut)?;
        let count = u32_at(section, 4).ok_or(cut)?;
        if count == 0 || count >= 1 << 31 || bits != bucket_bits(count as usize) {
            return Err(BadSection("the number of buckets does not fit the number of pairs"));
        }
        let entries_at = entries_at(bits);
        if section.len().checked_sub(entries_at) != Some(PAIR * count as usize) {
            return Err(BadSection("not as many pairs as its head says"));
        }
        Ok(Self { bits, entries_at, count })
    }

    /// The part of a section that [`open`](Self::open) reads.
    pub fn small(section: &[u8]) -> Range<usize> {
        0..section.len().min(HEAD)
    }

    /// Check that the offsets lead nowhere outside the section, and each bucket's order.
    pub fn check(&self, section: &[u8]) -> Result<(), BadSection> {
        if self.count == 0 {
            return Ok(());
        }
        let (offsets, _) = section.get(HEAD..self.entries_at).unwrap_or_default().as_chunks::<4>();
        let offsets = offsets.get(..=1 << self.bits).unwrap_or_default();
        if !offsets.is_sorted_by_key(|offset| u32::from_le_bytes(*offset))
            || offsets.last().is_none_or(|last| u32::from_le_bytes(*last) != self.count)
        {
            return Err(BadSection("the buckets are not in order"));
        }
        let (pairs, _) = section.get(self.entries_at..).unwrap_or_default().as_chunks::<PAIR>();
        let place = |pair: &[u8; PAIR]| {
            let (imei, imsi) = decode_pair(pair);
            (bucket(imei, self.bits), imei, imsi)
        };
        if !pairs.is_sorted_by(|one, next| place(one) < place(next)) {
            return Err(BadSection("the pairs are not in order"));
        }
        Ok(())
    }

    /// How many pairs there are.
    pub fn len(&self) -> u64 {
        self.count.into()
    }

    /// Whether this subscriber may use this device. `section` is what was opened.
    #[inline]
    pub fn contains(&self, section: &[u8], imei: Imei, imsi: Imsi) -> bool {
        self.count != 0
            && self.bucket_of(section, imei).is_some_and(|bucket| {
                let wanted = (imei.number(), imsi.packed());
                bucket.binary_search_by_key(&wanted, decode_pair).is_ok()
            })
    }

    /// All pairs, by bucket. Where the section is damaged, those that can be.
    pub fn iter(&self, section: &[u8]) -> impl Iterator<Item = (Imei, Imsi)> {
        let (pairs, _) = section.get(self.entries_at..).unwrap_or_default().as_chunks::<PAIR>();
        pairs.iter().filter_map(|pair| {
            let (imei, imsi) = decode_pair(pair);
            Some((Imei::from_number(imei)?, Imsi::from_packed(imsi)?))
        })
    }

    #[inline]
    fn bucket_of<'s>(&self, section: &'s [u8], imei: Imei) -> Option<&'s [[u8; PAIR]]> {
        let at = HEAD + 4 * bucket(imei.number(), self.bits);
        let (start, end) = (u32_at(section, at)? as usize, u32_at(section, at + 4)? as usize);
        let (entries, _) = section.get(self.entries_at..)?.as_chunks();
        entries.get(start..end)
    }
}

/// The numbers of a pair.
#[inline]
fn decode_pair(pair: &[u8; PAIR]) -> (u64, u64) {
    (u64_at(pair, 0).unwrap_or_default(), u64_at(pair, 8).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn pair(device: u64, subscriber: u64) -> (Imei, Imsi) {
        let imsi = Imsi::from_digits(format!("00101{subscriber:010}").as_bytes());
        (Imei::from_number(35_209_900_000_001 + device).unwrap(), imsi.unwrap())
    }

    #[test]
    fn no_pairs_take_no_bytes() {
        let section = encode(Vec::new());
        assert!(section.is_empty());
        let (imei, imsi) = pair(1, 1);
        assert!(!Pairs::open(&section).unwrap().contains(&section, imei, imsi));
    }

    #[test]
    fn one_imei_may_have_many_subscribers() {
        let section = encode((0..5_000).map(|subscriber| pair(7, subscriber)).collect());
        let pairs = Pairs::open(&section).unwrap();
        assert_eq!(pairs.len(), 5_000);
        for (device, subscriber, held) in [(7, 0, true), (7, 4_999, true), (7, 5_000, false), (8, 0, false)] {
            let (imei, imsi) = pair(device, subscriber);
            assert_eq!(pairs.contains(&section, imei, imsi), held);
        }
    }

    proptest! {
        #[test]
        fn what_was_built_is_found_and_nothing_else(
            model in proptest::collection::btree_set((0u64..50, 0u64..20), 0..200)
        ) {
            let section = encode(model.iter().map(|&(device, subscriber)| pair(device, subscriber)).collect());
            let pairs = Pairs::open(&section).unwrap();
            prop_assert_eq!(pairs.len(), model.len() as u64);
            prop_assert_eq!(pairs.check(&section), Ok(()));
            for device in 0..50 {
                for subscriber in 0..20 {
                    let (imei, imsi) = pair(device, subscriber);
                    prop_assert_eq!(pairs.contains(&section, imei, imsi), model.contains(&(device, subscriber)));
                }
            }
        }

        #[test]
        fn garbage_in_a_section_never_panics(
            model in proptest::collection::btree_set((0u64..50, 0u64..20), 1..50),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        ) {
            let model: BTreeSet<(Imei, Imsi)> = model.into_iter().map(|(d, s)| pair(d, s)).collect();
            let mut section = encode(model.iter().copied().collect());
            let opened_before = Pairs::open(&section).unwrap();
            for (at, byte) in changes {
                let at = at.index(section.len());
                section[at] = byte;
            }
            for &(imei, imsi) in &model {
                opened_before.contains(&section, imei, imsi);
                opened_before.contains(&section[..section.len() / 2], imei, imsi);
                if let Ok(pairs) = Pairs::open(&section) {
                    pairs.contains(&section, imei, imsi);
                    let _ = pairs.check(&section);
                }
            }
        }
    }
}
