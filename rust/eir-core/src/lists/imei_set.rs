//! The encoding of the IMEI section: millions of IMEIs with their tags in little more than two bytes each.
//!
//! Its one job: write the section ([`Writer`]) and look IMEIs up in it. The builder and the snapshot call it; no other module
//! knows the encoding. It never parses the section into memory of its own: it reads from the mapped bytes, and a
//! crafted section gives wrong answers, never a panic or an endless loop.
//!
//! Listed devices cluster by TAC, so the TAC is stored once and an entry is what is left of the SNR:
//!
//! ```text
//! head       64 bytes: TACs u32, log2 of the directory's slots u32, IMEIs u64, zeros
//! directory  a slot: TAC u32 (all ones: empty), block number u32; multiply-shift hash, linear probing, at most half
//!            full
//! blocks     one a TAC: 16 chunks of 65,536 SNRs, then the index just after its last entry u32
//!            a chunk: the index of its first entry u32, then for each of its 16 buckets of 4,096 SNRs the number of
//!            the chunk's entries before it u16
//! entries    one an IMEI, u16: the low 12 bits of the SNR, then 4 bits of tag; sorted
//! ```
//!
//! A look-up reads one slot, one chunk and one bucket: about three cache misses, whatever the size of the lists.

use std::io::{self, Write};
use std::ops::Range;

use super::layout::BadSection;
use super::le::{bytes_at, prefetch, u16_at, u32_at, u64_at};
use super::tag::Tag;
use crate::imei::{Imei, TAC_LIMIT};

/// Bytes of the section's head.
const HEAD: usize = 64;
/// Bytes of a directory slot.
const SLOT: usize = 8;
/// The TAC of an empty slot.
const EMPTY: u32 = u32::MAX;
/// Bits of an SNR that choose the chunk, the bucket in it, and the entry in that.
const CHUNK_BITS: u32 = 16;
/// Bits of an SNR that an entry keeps.
const ENTRY_BITS: u32 = 12;
/// Chunks of a block: SNRs end at 999,999, which is in the sixteenth.
const CHUNKS: usize = 16;
/// Buckets of a chunk.
const BUCKETS: usize = 1 << (CHUNK_BITS - ENTRY_BITS);
/// Bytes of a chunk's index.
const CHUNK: usize = 4 + 2 * BUCKETS;
/// Bytes of a block: its chunks' indexes and the end of the last.
const BLOCK: usize = CHUNKS * CHUNK + 4;
/// Bits of an entry that are the tag.
const TAG_BITS: u32 = 4;

/// Writes the section of IMEIs that come rising, fewer than 2^32.
pub struct Writer<W> {
    out: W,
    tacs: Vec<u32>,
    blocks: Vec<u8>,
    entries: Vec<u8>,
    block: BlockCounts,
}

impl<W: Write> Writer<W> {
    /// An empty section that goes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, tacs: Vec::new(), blocks: Vec::new(), entries: Vec::new(), block: BlockCounts::starting_at(0) }
    }

    /// Put an IMEI behind those before it.
    ///
    /// # Errors
    /// Those of `out`.
    #[inline]
    pub fn push(&mut self, imei: Imei, tag: Tag) -> io::Result<()> {
        let (tac, snr) = (imei.tac(), imei.snr());
        if self.tacs.last() != Some(&tac) {
            debug_assert!(self.tacs.last().is_none_or(|&last| last < tac), "IMEIs are not sorted");
            self.end_block();
            self.tacs.push(tac);
        }
        self.block.count(snr);
        let low = (snr << TAG_BITS) as u16;
        self.entries.extend((low | u16::from(tag.number())).to_le_bytes());
        Ok(())
    }

    /// Write what is still to be written; gives `out` back.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_block();
        let bits = directory_bits(self.tacs.len());
        let mut head = Vec::with_capacity(HEAD + (SLOT << bits));
        head.extend((self.tacs.len() as u32).to_le_bytes());
        head.extend(bits.to_le_bytes());
        head.extend((self.entries.len() as u64 / 2).to_le_bytes());
        head.resize(HEAD, 0);
        for (tac, number) in directory(&self.tacs, bits) {
            head.extend(tac.to_le_bytes());
            head.extend(number.to_le_bytes());
        }
        for part in [&head, &self.blocks, &self.entries] {
            self.out.write_all(part)?;
        }
        Ok(self.out)
    }

    fn end_block(&mut self) {
        if !self.tacs.is_empty() {
            let block = std::mem::replace(&mut self.block, BlockCounts::starting_at(0));
            self.block = block.finish(&mut self.blocks);
        }
    }
}

/// How many IMEIs each bucket of the TAC being written has.
struct BlockCounts {
    first: u32,
    buckets: [u32; CHUNKS * BUCKETS],
}

impl BlockCounts {
    fn starting_at(first: u32) -> Self {
        Self { first, buckets: [0; CHUNKS * BUCKETS] }
    }

    fn count(&mut self, snr: u32) {
        // An SNR is below 1,000,000, so there is such a bucket.
        if let Some(count) = self.buckets.get_mut((snr >> ENTRY_BITS) as usize) {
            *count += 1;
        }
    }

    /// Append the block; gives the counts of the next, empty.
    fn finish(self, blocks: &mut Vec<u8>) -> Self {
        let mut index = self.first;
        for chunk in self.buckets.chunks(BUCKETS) {
            blocks.extend(index.to_le_bytes());
            let mut before = 0;
            for &count in chunk {
                // At most 15 buckets of 4,096 come before a bucket.
                blocks.extend((before as u16).to_le_bytes());
                before += count;
            }
            index += before;
        }
        blocks.extend(index.to_le_bytes());
        Self::starting_at(index)
    }
}

/// Log2 of the directory's slots: at least twice the TACs, so that probing is short and meets an empty slot.
fn directory_bits(tacs: usize) -> u32 {
    (2 * tacs).next_power_of_two().trailing_zeros().max(1)
}

/// The slot at which the search for a TAC starts, in a directory of `1 << bits` slots. `bits` is from 1 to 31.
#[inline]
fn first_slot(tac: u32, bits: u32) -> usize {
    // 2^32 / golden ratio: spreads the consecutive TACs that a manufacturer gets.
    (tac.wrapping_mul(0x9e37_79b1) >> (32 - bits)) as usize
}

/// The directory's slots: (TAC, block number).
fn directory(tacs: &[u32], bits: u32) -> Vec<(u32, u32)> {
    let mask = (1usize << bits) - 1;
    let mut slots = vec![(EMPTY, 0); mask + 1];
    for (number, &tac) in (0u32..).zip(tacs) {
        let mut at = first_slot(tac, bits);
        while slots.get(at).is_some_and(|slot| slot.0 != EMPTY) {
            at = (at + 1) & mask;
        }
        if let Some(slot) = slots.get_mut(at) {
            *slot = (tac, number);
        }
    }
    slots
}

/// Where the parts of an IMEI section are. Look-ups are given the section's bytes each time.
#[derive(Debug, Clone)]
pub struct ImeiSet {
    bits: u32,
    blocks_at: usize,
    entries_at: usize,
    imeis: u64,
}

impl ImeiSet {
    /// Find the parts of a section and check that its indexes lead nowhere outside it.
    ///
    /// # Errors
    /// [`BadSection`] with what is wrong. The order of the entries in a bucket is not checked.
    pub fn open(section: &[u8]) -> Result<Self, BadSection> {
        let cut = BadSection("shorter than its head says");
        let tacs = u32_at(section, 0).ok_or(cut)?;
        let bits = u32_at(section, 4).ok_or(cut)?;
        let imeis = u64_at(section, 8).ok_or(cut)?;
        if tacs >= TAC_LIMIT || bits != directory_bits(tacs as usize) {
            return Err(BadSection("the directory's size does not fit the number of TACs"));
        }
        let blocks_at = HEAD + (SLOT << bits);
        let entries_at = blocks_at + BLOCK * tacs as usize;
        let entries = section.get(entries_at..).ok_or(cut)?;
        if entries.len() as u64 != imeis.checked_mul(2).ok_or(cut)? {
            return Err(BadSection("not as many entries as its head says"));
        }

        let blocks = section.get(blocks_at..entries_at).ok_or(cut)?;
        let mut index = 0;
        for block in blocks.chunks_exact(BLOCK) {
            index = check_block(block, index).ok_or(BadSection("a TAC's index is not in order"))?;
        }
        if u64::from(index) != imeis {
            return Err(BadSection("the TACs' indexes do not end with the last entry"));
        }

        let mut used = 0;
        for slot in section.get(HEAD..blocks_at).ok_or(cut)?.chunks_exact(SLOT) {
            if u32_at(slot, 0) != Some(EMPTY) {
                used += 1;
                if u32_at(slot, 4).is_none_or(|number| number >= tacs) {
                    return Err(BadSection("the directory names a block that is not there"));
                }
            }
        }
        if used != tacs {
            return Err(BadSection("the directory does not hold as many TACs as its head says"));
        }
        Ok(Self { bits, blocks_at, entries_at, imeis })
    }

    /// The part of a section that leads to the rest: all but the entries.
    #[must_use]
    pub fn small(section: &[u8]) -> Option<Range<usize>> {
        let (tacs, bits) = (u32_at(section, 0)?, u32_at(section, 4)?);
        if tacs >= TAC_LIMIT || bits != directory_bits(tacs as usize) {
            return None;
        }
        let entries_at = HEAD + (SLOT << bits) + BLOCK * tacs as usize;
        (entries_at <= section.len()).then_some(0..entries_at)
    }

    /// Check every entry.
    ///
    /// # Errors
    /// [`BadSection`] with what is wrong.
    pub fn check(&self, section: &[u8]) -> Result<(), BadSection> {
        Self::open(section).map(|_| ())
    }

    /// How many IMEIs there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.imeis
    }

    /// Whether there is no IMEI.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.imeis == 0
    }

    /// The tag of an IMEI; `None` where it is not listed. `section` is what was opened.
    #[inline]
    #[must_use]
    pub fn get(&self, section: &[u8], imei: Imei) -> Option<Tag> {
        let block = self.block(section, imei.tac())?;
        let snr = imei.snr();
        let entries = section.get(self.bucket(section, block, snr)?)?;
        let (entries, _) = entries.as_chunks::<2>();

        let wanted = snr as u16 & ((1 << ENTRY_BITS) - 1);
        let before = |entry: &[u8; 2]| u16::from_le_bytes(*entry) >> TAG_BITS < wanted;
        // Where there is about a cache line of entries, a branch that is mispredicted costs more than counting all.
        let at = match entries.len() {
            ..64 => entries.iter().filter(|entry| before(entry)).count(),
            _ => entries.partition_point(before),
        };
        let entry = u16::from_le_bytes(*entries.get(at)?);
        (entry >> TAG_BITS == wanted).then(|| Tag::from_low_bits(u64::from(entry)))
    }

    /// Ask the processor for what [`warm_entries`](Self::warm_entries) will read of an IMEI. Changes no answer: it lets the
    /// cache misses of several look-ups pass at the same time.
    #[inline]
    pub fn warm_index(&self, section: &[u8], imei: Imei) {
        if let Some(block) = self.block(section, imei.tac()) {
            let at = self.blocks_at + BLOCK * block + CHUNK * (imei.snr() >> CHUNK_BITS) as usize;
            prefetch(section, at);
            prefetch(section, at + CHUNK);
        }
    }

    /// Ask the processor for what [`get`](Self::get) will read of an IMEI.
    #[inline]
    pub fn warm_entries(&self, section: &[u8], imei: Imei) {
        let block = self.block(section, imei.tac());
        if let Some(range) = block.and_then(|block| self.bucket(section, block, imei.snr())) {
            prefetch(section, range.start);
            prefetch(section, range.end);
        }
    }

    /// The number of a TAC's block.
    #[inline]
    fn block(&self, section: &[u8], tac: u32) -> Option<usize> {
        let slots = 1usize << self.bits;
        let first = first_slot(tac, self.bits);
        for step in 0..slots {
            let at = HEAD + SLOT * ((first + step) & (slots - 1));
            match u32_at(section, at)? {
                found if found == tac => return u32_at(section, at + 4).map(|number| number as usize),
                EMPTY => return None,
                _ => {}
            }
        }
        None
    }

    /// Where the entries of an SNR's bucket are in the section.
    #[inline]
    fn bucket(&self, section: &[u8], block: usize, snr: u32) -> Option<Range<usize>> {
        let chunk = (snr >> CHUNK_BITS) as usize;
        let bucket = (snr >> ENTRY_BITS) as usize % BUCKETS;
        // One check of bounds for the chunk's index and the four bytes after it: where the next chunk, if any, begins.
        let index: &[u8; CHUNK + 4] = bytes_at(section, self.blocks_at + BLOCK * block + CHUNK * chunk)?;
        let base = u32_at(index, 0)? as usize;
        let start = base + usize::from(u16_at(index, 4 + 2 * bucket)?);
        let end = if bucket + 1 == BUCKETS {
            u32_at(index, CHUNK)? as usize
        } else {
            base + usize::from(u16_at(index, 6 + 2 * bucket)?)
        };
        Some(self.entries_at + 2 * start..self.entries_at + 2 * end)
    }
}

/// Check that a block's indexes rise from `index` on; gives the index after its last entry.
fn check_block(block: &[u8], mut index: u32) -> Option<u32> {
    for chunk in 0..CHUNKS {
        let chunk_at = CHUNK * chunk;
        let base = u32_at(block, chunk_at)?;
        let mut before = 0;
        for bucket in 0..BUCKETS {
            let next = u16_at(block, chunk_at + 4 + 2 * bucket)?;
            if next < before {
                return None;
            }
            before = next;
        }
        let next = u32_at(block, chunk_at + CHUNK)?;
        if base != index || next.checked_sub(base)? < u32::from(before) {
            return None;
        }
        index = next;
    }
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    fn section(model: &BTreeMap<u64, u8>) -> Vec<u8> {
        let imeis = model.iter().map(|(&key, &tag)| (Imei::from_number(key).unwrap(), Tag::from_low_bits(tag.into())));
        let mut writer = Writer::new(Vec::new());
        imeis.for_each(|(imei, tag)| writer.push(imei, tag).unwrap());
        writer.finish().unwrap()
    }

    fn look_up(section: &[u8], key: u64) -> Option<u8> {
        let set = ImeiSet::open(section).unwrap();
        set.get(section, Imei::from_number(key).unwrap()).map(Tag::number)
    }

    #[test]
    fn an_empty_set_holds_nothing() {
        let section = section(&BTreeMap::new());
        assert!(ImeiSet::open(&section).unwrap().is_empty());
        assert_eq!(look_up(&section, 1), None);
    }

    #[test]
    fn the_borders_of_tacs_chunks_and_buckets_are_found() {
        let mut model = BTreeMap::new();
        for tac in [0u64, 1, 35_209_900, 35_209_901, 99_999_999] {
            for snr in [0, 1, 4_095, 4_096, 65_535, 65_536, 983_039, 983_040, 999_998, 999_999] {
                model.insert((tac * 1_000_000 + snr).max(2), (snr % 16) as u8);
            }
        }
        let section = section(&model);
        assert_eq!(ImeiSet::open(&section).unwrap().len(), model.len() as u64);
        for (&key, &tag) in &model {
            assert_eq!(look_up(&section, key), Some(tag), "{key}");
            let next = (key + 1).min(99_999_999_999_999);
            assert_eq!(look_up(&section, next), model.get(&next).copied(), "{next}");
        }
    }

    #[test]
    fn a_full_chunk_is_counted_in_sixteen_bits() {
        let model: BTreeMap<u64, u8> = (0..200_000).map(|snr| (35_209_900_000_000 + snr, 1)).collect();
        let section = section(&model);
        for snr in [0, 61_440, 65_535, 65_536, 131_071, 199_999] {
            assert_eq!(look_up(&section, 35_209_900_000_000 + snr), Some(1), "{snr}");
        }
        assert_eq!(look_up(&section, 35_209_900_200_000), None);
    }

    #[test]
    fn an_imei_takes_little_more_than_two_bytes() {
        let model: BTreeMap<u64, u8> = (0..100_000).map(|n| (35_209_900_000_000 + n * 50, 0)).collect();
        assert!((section(&model).len() as f64) < 2.2 * 100_000.0);
    }

    #[test]
    fn a_crafted_directory_without_an_empty_slot_ends() {
        let mut section = section(&BTreeMap::from([(35_209_900_000_001, 1)]));
        let set = ImeiSet::open(&section).unwrap();
        for slot in section[HEAD..set.blocks_at].chunks_mut(SLOT) {
            slot[..4].fill(7);
        }
        assert_eq!(set.get(&section, Imei::from_number(1).unwrap()), None);
        assert!(ImeiSet::open(&section).is_err());
    }

    proptest! {
        #[test]
        fn what_was_built_is_found_and_nothing_else(
            // Few TACs and a narrow span of SNRs, so that buckets fill and near misses happen.
            model in proptest::collection::btree_map((35_000_000u64..35_000_040, 60_000u64..70_000), 0u8..16, 0..400),
            probes in proptest::collection::vec((35_000_000u64..35_000_040, 60_000u64..70_000), 0..100),
        ) {
            let model: BTreeMap<u64, u8> =
                model.into_iter().map(|((tac, snr), tag)| (tac * 1_000_000 + snr, tag)).collect();
            let section = section(&model);
            let set = ImeiSet::open(&section).unwrap();
            let probes = probes.into_iter().map(|(tac, snr)| tac * 1_000_000 + snr);
            for key in model.keys().copied().chain(probes) {
                let found = set.get(&section, Imei::from_number(key).unwrap());
                prop_assert_eq!(found.map(Tag::number), model.get(&key).copied());
            }
        }

        #[test]
        fn garbage_in_a_section_never_panics(
            keys in proptest::collection::btree_map(1u64..100_000_000_000_000, 0u8..16, 0..50),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let good = section(&keys);
            let opened_before = ImeiSet::open(&good).unwrap();
            let mut bad = good.clone();
            for (at, byte) in changes {
                let at = at.index(bad.len());
                bad[at] = byte;
            }
            let cut = &good[..cut.index(good.len())];
            prop_assert!(ImeiSet::open(cut).is_err());
            for &key in keys.keys() {
                let imei = Imei::from_number(key).unwrap();
                let _ = opened_before.get(&bad, imei);
                let _ = opened_before.get(cut, imei);
                if let Ok(set) = ImeiSet::open(&bad) {
                    let _ = set.get(&bad, imei);
                }
            }
        }
    }
}
