//! The encoding of the IMEI section: near to what information theory allows, read where it is mapped.
//!
//! Its one job: write the section ([`Writer`], [`build`]), look IMEIs up in it and walk it. The builder and the
//! snapshot call it; no other module knows the encoding (docs/formats.md has it bit by bit, docs/decisions/0010 says
//! why it is so). It never parses the section into memory of its own: it reads from the mapped bytes, and a crafted
//! section gives wrong answers, never a panic or an endless loop.
//!
//! ```text
//! payload    the blocks of each TAC: 128 bytes each, but the last as long as needed (`block.rs`)
//! directory  a slot of 16 bytes for a TAC, below: a hash table with linear probing, at most two thirds full
//! index      for each TAC in rising order 16 bytes of head, then the key of each of its blocks u16
//! tail       64 bytes: IMEIs u64, TACs u32, slots u32, bytes of payload and index u64, zeros
//! ```
//!
//! A look-up reads a slot, a line of the index and a block, two lines next to each other. Where a TAC's SNRs lie evenly
//! the slot alone says nearly where the block is, so that it is asked for at once: about one cache miss is waited for.

mod bits;
mod block;
mod iter;
mod pack;
mod tag_code;
mod writer;

use std::ops::Range;

use self::bits::Bits;
use self::iter::{Blocks, Iter, Tacs};
use self::tag_code::TagCode;
pub use self::writer::Writer;
use super::layout::BadSection;
use super::le::{bytes_at, prefetch, u32_at, u64_at};
use super::tag::Tag;
use crate::imei::{Imei, SNRS_PER_TAC, TAC_LIMIT};

/// Bytes of a block that is not the last of its TAC.
const BLOCK: usize = 128;
/// Bytes that are read as a block: numbers are read eight bytes at a time.
const VIEW: usize = BLOCK + 8;
/// A cache line: what has more bytes begins at a multiple of it.
const ALIGNMENT: usize = 64;
/// Bytes of a directory slot.
const SLOT: usize = 16;
/// The TAC of an empty slot.
const EMPTY: u64 = (1 << TAC_BITS) - 1;
/// Bits of a slot's first number that are the TAC; above them is where its payload begins, in units of eight bytes.
const TAC_BITS: u32 = 27;
/// Bits of a slot's second number that are how many blocks there are; above them is where its index begins, in bytes.
const BLOCKS_BITS: u32 = 16;
/// Bytes of a TAC's part of the index before the keys of its blocks.
const INDEX_HEAD: usize = 16;
/// Bits of the second number of an index's head that are how many entries the TAC has; then four each for its code.
const ENTRIES_BITS: u32 = 24;
/// What the payload of a TAC begins at a multiple of.
const UNIT: usize = 8;
/// Bits of an SNR that are not in its key, by which the index tells blocks apart.
const KEY_BITS: u32 = 4;
/// Bytes of the tail.
const TAIL: usize = 64;
/// Zeros behind the last block: with the tail, a view of it ends inside the section.
const PADDING: usize = 64;
/// Keys that are compared one and all.
const COMPARED: usize = 16;

/// The section of these IMEIs, which must be in rising order.
#[must_use]
pub fn build(imeis: impl Iterator<Item = (Imei, Tag)>) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (imei, tag) in imeis {
        // Memory takes everything, so only the order can be wrong.
        let pushed = writer.push(imei, tag);
        debug_assert!(pushed.is_ok(), "IMEIs are not in rising order");
    }
    writer.finish().unwrap_or_default()
}

/// How many slots a directory of so many TACs has: half as many again, so that probing is short and meets an empty
/// slot.
fn slots(tacs: u32) -> u32 {
    tacs + tacs / 2 + 1
}

/// The slot at which the search for a TAC starts.
#[inline]
fn first_slot(tac: u32, slots: u32) -> u32 {
    // 2^32 / golden ratio: spreads the consecutive TACs that a manufacturer gets.
    ((u64::from(tac.wrapping_mul(0x9e37_79b1)) * u64::from(slots)) >> 32) as u32
}

/// What the directory says of a TAC.
#[derive(Clone, Copy)]
struct Place {
    /// Where its blocks begin in the section.
    blocks_at: usize,
    blocks: usize,
    /// Where its part of the index begins in the section.
    index_at: usize,
}

impl Place {
    /// Where a block begins in the section.
    #[inline]
    fn block_at(&self, block: usize) -> usize {
        self.blocks_at.saturating_add(BLOCK * block)
    }

    #[inline(always)]
    fn block<'a, const BMI2: bool>(&self, section: &'a [u8], block: usize) -> Option<Bits<'a, BMI2>> {
        bytes_at(section, self.block_at(block)).map(Bits)
    }

    /// Ask the processor for a block.
    #[inline]
    fn warm(&self, section: &[u8], block: usize) {
        prefetch(section, self.block_at(block));
        prefetch(section, self.block_at(block) + ALIGNMENT);
    }

    /// The block that an SNR would be in if all lay evenly.
    #[inline]
    fn guess(&self, snr: u32) -> usize {
        // 2^32 / 1,000,000, a little less: below 1 as a part of 2^32.
        (self.blocks * snr as usize * 4294) >> 32
    }

    /// The key of a block.
    #[inline]
    fn key(&self, section: &[u8], block: usize) -> Option<u16> {
        let at = self.index_at + INDEX_HEAD + 2 * block;
        if block < self.blocks { bytes_at(section, at).map(|key| u16::from_le_bytes(*key)) } else { None }
    }

    /// The block that an SNR is in if it is listed, and how far behind the block's first SNR it is.
    #[inline(always)]
    fn find(&self, section: &[u8], snr: u32) -> Option<(usize, u32)> {
        let wanted = (snr >> KEY_BITS) as u16;
        let reached = |key: &[u8; 2]| u16::from_le_bytes(*key) <= wanted;
        let keys_at = self.index_at + INDEX_HEAD;
        // What is read behind the last key lies in the section too, and is not counted.
        let start = self.guess(snr).saturating_sub(COMPARED / 2);
        let keys: &[u8; 2 * COMPARED] = bytes_at(section, keys_at + 2 * start)?;
        let own = (self.blocks - start) as u16;
        // Comparing a line's worth costs less than a branch that is mispredicted.
        let counted = |(key, place): (&[u8; 2], u16)| u16::from(reached(key)) & u16::from(place < own);
        let before: u16 = keys.as_chunks().0.iter().zip(0..).map(counted).sum();
        let mut after = start + usize::from(before);
        if before == 0 || usize::from(before) == COMPARED {
            let keys = section.get(keys_at..keys_at + 2 * self.blocks)?;
            after = keys.as_chunks().0.partition_point(reached);
        }
        let block = after.checked_sub(1)?;
        let first = u32::from(self.key(section, block)?) << KEY_BITS;
        Some((block, snr.checked_sub(first)?))
    }
}

/// What the index says of a TAC.
#[derive(Clone, Copy)]
struct Tac {
    number: u32,
    entries: u32,
    code: TagCode,
}

impl Tac {
    #[inline]
    fn read(section: &[u8], at: usize) -> Option<Self> {
        let head: &[u8; INDEX_HEAD] = bytes_at(section, at)?;
        let (number, packed, order) = (u32_at(head, 0)?, u32_at(head, 4)?, u64_at(head, 8)?);
        // A crafted code stays within four bits.
        let (levels, width) = ((packed >> ENTRIES_BITS & 15) as u8, (packed >> (ENTRIES_BITS + 4)).min(4) as u8);
        Some(Self { number, entries: packed & ((1 << ENTRIES_BITS) - 1), code: TagCode { order, levels, width } })
    }
}

fn has_bmi2() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("bmi2") && std::arch::is_x86_feature_detected!("popcnt");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    has
}

/// Where the parts of an IMEI section are. Look-ups are given the section's bytes each time.
#[derive(Debug, Clone)]
pub struct ImeiSet {
    slots: u32,
    directory_at: usize,
    index_at: usize,
    tail_at: usize,
    imeis: u64,
    /// Whether the processor has popcnt and BMI2.
    has_bmi2: bool,
}

impl ImeiSet {
    /// Find the parts of a section and check that the small ones lead nowhere outside it; the payload is not read.
    ///
    /// # Errors
    /// [`BadSection`] with what is wrong. [`check`](Self::check) looks at the rest.
    pub fn open(section: &[u8]) -> Result<Self, BadSection> {
        let cut = BadSection("shorter than its tail says");
        let tail_at = section.len().checked_sub(TAIL).ok_or(cut)?;
        let (imeis, tacs) = (u64_at(section, tail_at).ok_or(cut)?, u32_at(section, tail_at + 8).ok_or(cut)?);
        let found = u32_at(section, tail_at + 12).ok_or(cut)?;
        if tacs > TAC_LIMIT || found != slots(tacs) {
            return Err(BadSection("the directory's size does not fit the number of TACs"));
        }
        let lengths = (u64_at(section, tail_at + 16).ok_or(cut)?, u64_at(section, tail_at + 24).ok_or(cut)?);
        let directory_at = usize::try_from(lengths.0).map_err(|_| cut)?;
        let index_at = directory_at.checked_add(SLOT * found as usize).ok_or(cut)?;
        let index_length = usize::try_from(lengths.1).map_err(|_| cut)?;
        if index_at.checked_add(index_length) != Some(tail_at) {
            return Err(BadSection("its parts are not as long as its tail says"));
        }
        let set = Self { slots: found, directory_at, index_at, tail_at, imeis, has_bmi2: has_bmi2() };
        set.check_index(section, tacs)?;
        Ok(set)
    }

    /// Check that directory and index are of the same TACs, and name places in the payload that follow each other.
    fn check_index(&self, section: &[u8], tacs: u32) -> Result<(), BadSection> {
        let slots = section.get(self.directory_at..self.index_at).unwrap_or_default();
        let tac_of = |slot: &[u8; SLOT]| u64_at(slot, 0).map_or(EMPTY, |first| first & EMPTY);
        let used = slots.as_chunks::<SLOT>().0.iter().filter(|slot| tac_of(slot) != EMPTY).count();
        if used != tacs as usize {
            return Err(BadSection("the directory does not hold as many TACs as its tail says"));
        }
        let mut found = Tacs::new(self, section);
        let (mut count, mut imeis, mut end) = (0, 0u64, 0usize);
        for (tac, place) in &mut found {
            // The last block has eight bytes or more.
            let least = place.block_at(place.blocks.saturating_sub(1)).saturating_add(UNIT);
            if place.blocks == 0 || place.blocks_at < end || least.saturating_add(PADDING) > self.directory_at {
                return Err(BadSection("the directory leads outside the payload"));
            }
            if u64::from(tac.entries) < place.blocks as u64 || u64::from(tac.entries) > SNRS_PER_TAC {
                return Err(BadSection("a TAC cannot have so many entries"));
            }
            end = least;
            imeis += u64::from(tac.entries);
            count += 1;
        }
        if found.at() != self.tail_at || count != tacs {
            return Err(BadSection("index and directory are not of the same TACs"));
        }
        if imeis != self.imeis {
            return Err(BadSection("not as many entries as its tail says"));
        }
        Ok(())
    }

    /// Check the whole section: that its blocks are sound, in order and without gaps. Reads all of it.
    ///
    /// # Errors
    /// [`BadSection`] with what is wrong.
    pub fn check(&self, section: &[u8]) -> Result<(), BadSection> {
        let mut entries = Vec::new();
        let mut end = 0;
        let payload = section.get(..self.directory_at).unwrap_or_default();
        let zeros = |from: usize, to: usize| payload.get(from..to).is_some_and(|gap| gap.iter().all(|&byte| byte == 0));
        for (tac, place) in Tacs::new(self, section) {
            if !zeros(end, place.blocks_at) || place.blocks_at - end >= ALIGNMENT {
                return Err(BadSection("the payload has gaps"));
            }
            let (mut blocks, mut found) = (Blocks::new(tac, place, section), 0);
            let mut last_bits = 0;
            while let Some(read) = blocks.read(&mut entries) {
                last_bits = read?;
                found += entries.len() as u64;
                if tac.number == 0 && entries.first().is_some_and(|&(snr, _)| snr == 0) {
                    return Err(BadSection("the number 0 is no IMEI"));
                }
            }
            if found != u64::from(tac.entries) {
                return Err(BadSection("a TAC has not as many entries as the index says"));
            }
            end = place.block_at(place.blocks - 1) + UNIT * (last_bits as usize).div_ceil(8 * UNIT);
        }
        let padded = if self.imeis == 0 { 0 } else { (end + PADDING).next_multiple_of(ALIGNMENT) };
        if self.directory_at != padded || !zeros(end, self.directory_at) {
            return Err(BadSection("the payload does not end behind its last block"));
        }
        Ok(())
    }

    /// Where the small parts of a section are, all that [`open`](Self::open) reads; `None` where its tail makes no
    /// sense.
    #[must_use]
    pub fn small(section: &[u8]) -> Option<Range<usize>> {
        let start = usize::try_from(u64_at(section, section.len().checked_sub(TAIL)? + 16)?).ok()?;
        (start <= section.len() - TAIL).then_some(start..section.len())
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

    /// All IMEIs with their tags, in rising order. `section` is what was opened.
    pub fn iter<'a>(&'a self, section: &'a [u8]) -> impl Iterator<Item = (Imei, Tag)> + 'a {
        Iter::new(self, section)
    }

    /// All TACs that have IMEIs, and how many, in rising order; the payload is not read.
    pub fn tacs<'a>(&'a self, section: &'a [u8]) -> impl Iterator<Item = (u32, u32)> + 'a {
        Tacs::new(self, section).map(|(tac, _)| (tac.number, tac.entries))
    }

    /// The tag of an IMEI; `None` where it is not listed. `section` is what was opened.
    #[inline]
    #[must_use]
    pub fn get(&self, section: &[u8], imei: Imei) -> Option<Tag> {
        #[cfg(target_arch = "x86_64")]
        if self.has_bmi2 {
            // SAFETY: it was asked whether the processor has both.
            return unsafe { self.get_with_bmi2(section, imei) };
        }
        self.get_with::<false>(section, imei)
    }

    /// The same in fewer instructions: few enough that the processor goes on to the next look-up while it waits for
    /// memory.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "bmi2,popcnt")]
    fn get_with_bmi2(&self, section: &[u8], imei: Imei) -> Option<Tag> {
        self.get_with::<true>(section, imei)
    }

    #[inline(always)]
    fn get_with<const BMI2: bool>(&self, section: &[u8], imei: Imei) -> Option<Tag> {
        let (place, snr) = (self.place(section, imei.tac())?, imei.snr());
        // Most often right where SNRs lie evenly; elsewhere it costs nothing that is waited for.
        place.warm(section, place.guess(snr));
        prefetch(section, place.index_at);
        let (block, offset) = place.find(section, snr)?;
        prefetch(section, place.block_at(block) + ALIGNMENT);
        let bits = place.block::<BMI2>(section, block)?;
        block::find(bits, offset, || Tac::read(section, place.index_at).map(|tac| tac.code))
    }

    /// Ask the processor for what [`warm_entries`](Self::warm_entries) will read of an IMEI. Changes no answer: it lets
    /// the cache misses of several look-ups pass at the same time.
    #[inline]
    pub fn warm_index(&self, section: &[u8], imei: Imei) {
        if let Some(place) = self.place(section, imei.tac()) {
            let near = place.guess(imei.snr()).saturating_sub(COMPARED / 2);
            prefetch(section, place.index_at);
            prefetch(section, place.index_at + INDEX_HEAD + 2 * near);
            prefetch(section, place.index_at + INDEX_HEAD + 2 * (near + COMPARED));
        }
    }

    /// Ask the processor for what [`get`](Self::get) will read of an IMEI.
    #[inline]
    pub fn warm_entries(&self, section: &[u8], imei: Imei) {
        if let Some(place) = self.place(section, imei.tac())
            && let Some((block, _)) = place.find(section, imei.snr())
        {
            place.warm(section, block);
        }
    }

    /// What the directory says of a TAC.
    #[inline(always)]
    fn place(&self, section: &[u8], tac: u32) -> Option<Place> {
        let mut slot = first_slot(tac, self.slots);
        for _ in 0..self.slots {
            let found: &[u8; SLOT] = bytes_at(section, self.directory_at + SLOT * slot as usize)?;
            let (first, second) = (u64_at(found, 0)?, u64_at(found, 8)?);
            match first & EMPTY {
                number if number == u64::from(tac) => {
                    return Some(Place {
                        blocks_at: UNIT * (first >> TAC_BITS) as usize,
                        blocks: (second & ((1 << BLOCKS_BITS) - 1)) as usize,
                        index_at: self.index_at + (second >> BLOCKS_BITS) as usize,
                    });
                }
                EMPTY => return None,
                _ => slot = if slot + 1 == self.slots { 0 } else { slot + 1 },
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
