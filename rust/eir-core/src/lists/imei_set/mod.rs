//! The encoding of the IMEI section: near to what information theory allows, read where it is mapped.
//!
//! Its one job: write the section ([`Writer`], [`build`]), look IMEIs up in it and walk it. The builder and the snapshot
//! call it; no other module knows the encoding (docs/formats.md has it bit by bit, docs/decisions/0010 says why it is so). It never
//! parses the section into memory of its own: it reads from the mapped bytes, and a crafted section gives wrong answers,
//! never a panic or an endless loop.
//!
//! ```text
//! payload    the blocks of each TAC: 128 bytes each, but the last as long as needed (`block.rs`)
//! directory  a slot: TAC u32 (all ones: empty), place in the index in units of eight bytes u32; multiply-shift hash,
//!            linear probing, at most half full
//! index      a TAC: 32 bytes of head, then for each block the high bits of its first SNR u16; in rising order
//! tail       64 bytes: IMEIs u64, TACs u32, log2 of the directory's slots u32, bytes of payload and index u64, zeros
//! ```
//!
//! A look-up reads one slot, a TAC's part of the index, which are small and stay in the processor's caches, and one block:
//! two lines next to each other that are asked for at once, about one cache miss.

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
use crate::imei::{Imei, TAC_LIMIT};

/// Bytes of a block that is not the last of its TAC.
const BLOCK: usize = 128;
/// Bytes that are read as a block: numbers are read eight bytes at a time.
const VIEW: usize = BLOCK + 8;
/// A cache line: what has more bytes begins at a multiple of it.
const ALIGNMENT: usize = 64;
/// Bytes of a directory slot.
const SLOT: usize = 8;
/// The TAC of an empty slot.
const EMPTY: u32 = u32::MAX;
/// Bytes of a TAC's part of the index before the keys of its blocks.
const INDEX_HEAD: usize = 32;
/// What the directory counts the index in.
const INDEX_UNIT: usize = 8;
/// Bits of an SNR that are not in its key, by which the index tells blocks apart.
const KEY_BITS: u32 = 4;
/// Bytes of the tail.
const TAIL: usize = 64;
/// Zeros behind the last block: with the smallest directory and the tail, a view of it ends inside the section.
const PADDING: usize = 64;
/// Keys of a TAC that are compared one and all; in longer indexes first the right so many are looked for.
const COMPARED: usize = 64;

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

/// What the index says of a TAC.
#[derive(Clone, Copy)]
struct Tac<'a> {
    number: u32,
    entries: u32,
    payload_at: u64,
    code: TagCode,
    keys: &'a [[u8; 2]],
}

impl<'a> Tac<'a> {
    #[inline]
    fn read(section: &'a [u8], at: usize) -> Option<Self> {
        let head: &[u8; INDEX_HEAD] = bytes_at(section, at)?;
        let blocks = u32_at(head, 24)? as usize;
        let keys = section.get(at + INDEX_HEAD..)?.get(..2 * blocks)?;
        let &[.., levels, width, _, _] = head;
        // A crafted code stays within four bits.
        let code = TagCode { order: u64_at(head, 16)?, levels: levels & 15, width: width.min(4) };
        let (number, entries, payload_at) = (u32_at(head, 0)?, u32_at(head, 4)?, u64_at(head, 8)?);
        Some(Self { number, entries, payload_at, code, keys: keys.as_chunks().0 })
    }

    /// Bytes of its part of the index.
    fn index_length(&self) -> usize {
        INDEX_HEAD + (2 * self.keys.len()).next_multiple_of(INDEX_UNIT)
    }

    /// The key of a block.
    fn key(&self, block: usize) -> Option<u16> {
        self.keys.get(block).map(|key| u16::from_le_bytes(*key))
    }

    /// The block that an SNR is in if it is listed, and how far behind the block's first SNR it is.
    #[inline]
    fn find(&self, snr: u32) -> Option<(usize, u32)> {
        let wanted = (snr >> KEY_BITS) as u16;
        let reached = |key: &[u8; 2]| u16::from_le_bytes(*key) <= wanted;
        let (mut start, mut keys) = (0, self.keys);
        if keys.len() > 4 * COMPARED {
            let (groups, _) = keys.as_chunks::<COMPARED>();
            start = COMPARED * groups.partition_point(|[first, ..]| reached(first)).saturating_sub(1);
            // What is left behind the last group is compared with it.
            let end = if start + 2 * COMPARED > keys.len() { keys.len() } else { start + COMPARED };
            keys = keys.get(start..end)?;
        }
        // Comparing a few lines' worth costs less than a branch that is mispredicted.
        let before: u16 = keys.iter().map(|key| u16::from(reached(key))).sum();
        let block = (start + usize::from(before)).checked_sub(1)?;
        let first = u32::from(self.key(block)?) << KEY_BITS;
        Some((block, snr.checked_sub(first)?))
    }

    /// Where a block begins in the section.
    #[inline]
    fn block_at(&self, block: usize) -> usize {
        (self.payload_at as usize).saturating_add(BLOCK * block)
    }

    #[inline]
    fn block(&self, section: &'a [u8], block: usize) -> Option<Bits<'a>> {
        bytes_at(section, self.block_at(block)).map(Bits)
    }
}

/// Where the parts of an IMEI section are. Look-ups are given the section's bytes each time.
#[derive(Debug, Clone)]
pub struct ImeiSet {
    bits: u32,
    directory_at: usize,
    index_at: usize,
    tail_at: usize,
    imeis: u64,
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
        let bits = u32_at(section, tail_at + 12).ok_or(cut)?;
        if tacs > TAC_LIMIT || bits != directory_bits(tacs as usize) {
            return Err(BadSection("the directory's size does not fit the number of TACs"));
        }
        let lengths = (u64_at(section, tail_at + 16).ok_or(cut)?, u64_at(section, tail_at + 24).ok_or(cut)?);
        let directory_at = usize::try_from(lengths.0).map_err(|_| cut)?;
        let index_at = directory_at.checked_add(SLOT << bits).ok_or(cut)?;
        let index_length = usize::try_from(lengths.1).map_err(|_| cut)?;
        if index_at.checked_add(index_length) != Some(tail_at) {
            return Err(BadSection("its parts are not as long as its tail says"));
        }
        let set = Self { bits, directory_at, index_at, tail_at, imeis };
        set.check_index(section, tacs)?;
        set.check_directory(section, tacs)?;
        Ok(set)
    }

    /// Check that the TACs' parts of the index follow each other, and name places in the payload in its order.
    fn check_index(&self, section: &[u8], tacs: u32) -> Result<(), BadSection> {
        let mut found = Tacs::new(self, section);
        let (mut count, mut imeis, mut end) = (0, 0u64, 0u64);
        for tac in &mut found {
            // The last block has eight bytes or more.
            let least = (tac.keys.len() as u64 * BLOCK as u64).checked_sub(BLOCK as u64 - 8);
            let bounds = least.and_then(|least| tac.payload_at.checked_add(least));
            let padded = |end: u64| end + PADDING as u64 <= self.directory_at as u64;
            if tac.payload_at < end || tac.entries == 0 || !bounds.is_some_and(padded) {
                return Err(BadSection("a TAC's index leads outside the payload"));
            }
            end = bounds.unwrap_or_default();
            imeis += u64::from(tac.entries);
            count += 1;
        }
        if found.at() != self.tail_at || count != tacs {
            return Err(BadSection("the index does not hold as many TACs as its tail says"));
        }
        if imeis != self.imeis {
            return Err(BadSection("not as many entries as its tail says"));
        }
        Ok(())
    }

    fn check_directory(&self, section: &[u8], tacs: u32) -> Result<(), BadSection> {
        let mut used = 0;
        let slots = section.get(self.directory_at..self.index_at).unwrap_or_default();
        for slot in slots.as_chunks::<SLOT>().0 {
            if u32_at(slot, 0) != Some(EMPTY) {
                used += 1;
                let place = u32_at(slot, 4).map_or(usize::MAX, |unit| INDEX_UNIT * unit as usize);
                if place >= self.tail_at - self.index_at {
                    return Err(BadSection("the directory names a TAC that the index has not"));
                }
            }
        }
        if used != tacs {
            return Err(BadSection("the directory does not hold as many TACs as its tail says"));
        }
        Ok(())
    }

    /// Check the whole section: that it is what a writer makes of the IMEIs that are in it. Reads all of it.
    ///
    /// # Errors
    /// [`BadSection`] with what is wrong.
    pub fn check(&self, section: &[u8]) -> Result<(), BadSection> {
        let mut entries = Vec::new();
        let mut end = 0;
        let payload = section.get(..self.directory_at).unwrap_or_default();
        let zeros = |from: usize, to: usize| payload.get(from..to).is_some_and(|gap| gap.iter().all(|&byte| byte == 0));
        for tac in Tacs::new(self, section) {
            let place = tac.block_at(0);
            if !zeros(end, place) || place - end >= ALIGNMENT {
                return Err(BadSection("the payload has gaps"));
            }
            if self.tac(section, tac.number).is_none_or(|found| found.payload_at != tac.payload_at) {
                return Err(BadSection("the directory does not lead to a TAC of the index"));
            }
            let (mut blocks, mut found) = (Blocks::new(tac, section), 0);
            let mut last_bits = 0;
            while let Some(read) = blocks.read(&mut entries) {
                last_bits = read?;
                found += entries.len();
                if tac.number == 0 && entries.first().is_some_and(|&(snr, _)| snr == 0) {
                    return Err(BadSection("the number 0 is no IMEI"));
                }
            }
            if found as u64 != u64::from(tac.entries) {
                return Err(BadSection("a TAC has not as many entries as the index says"));
            }
            end = tac.block_at(tac.keys.len() - 1) + 8 * (last_bits as usize).div_ceil(64);
        }
        if self.imeis > 0 && self.directory_at != (end + PADDING).next_multiple_of(ALIGNMENT)
            || !zeros(end, self.directory_at)
        {
            return Err(BadSection("the payload does not end behind its last block"));
        }
        Ok(())
    }

    /// Where the small parts of a section are, all that [`open`](Self::open) reads; `None` where its tail makes no sense.
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
        Tacs::new(self, section).map(|tac| (tac.number, tac.entries))
    }

    /// The tag of an IMEI; `None` where it is not listed. `section` is what was opened.
    #[inline]
    #[must_use]
    pub fn get(&self, section: &[u8], imei: Imei) -> Option<Tag> {
        let tac = self.tac(section, imei.tac())?;
        let (block, offset) = tac.find(imei.snr())?;
        // The block's other line is to come at the same time.
        prefetch(section, tac.block_at(block) + ALIGNMENT);
        block::find(tac.block(section, block)?, offset, &tac.code)
    }

    /// Ask the processor for what [`warm_entries`](Self::warm_entries) will read of an IMEI. Changes no answer: it lets the
    /// cache misses of several look-ups pass at the same time.
    #[inline]
    pub fn warm_index(&self, section: &[u8], imei: Imei) {
        if let Some(at) = self.slot(section, imei.tac()) {
            for line in 0..3 {
                prefetch(section, at + ALIGNMENT * line);
            }
        }
    }

    /// Ask the processor for what [`get`](Self::get) will read of an IMEI.
    #[inline]
    pub fn warm_entries(&self, section: &[u8], imei: Imei) {
        if let Some(tac) = self.tac(section, imei.tac())
            && let Some((block, _)) = tac.find(imei.snr())
        {
            prefetch(section, tac.block_at(block));
            prefetch(section, tac.block_at(block) + ALIGNMENT);
        }
    }

    /// What the index says of a TAC.
    #[inline]
    fn tac<'a>(&self, section: &'a [u8], tac: u32) -> Option<Tac<'a>> {
        Tac::read(section, self.slot(section, tac)?)
    }

    /// Where a TAC's part of the index begins.
    #[inline]
    fn slot(&self, section: &[u8], tac: u32) -> Option<usize> {
        let slots = 1usize << self.bits;
        let first = first_slot(tac, self.bits);
        for step in 0..slots {
            let at = self.directory_at + SLOT * ((first + step) & (slots - 1));
            match u32_at(section, at)? {
                found if found == tac => return Some(self.index_at + INDEX_UNIT * u32_at(section, at + 4)? as usize),
                EMPTY => return None,
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
