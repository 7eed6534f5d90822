//! Writing the IMEI section as the IMEIs come.
//!
//! Its one job: a section out of sorted IMEIs, written front to back. The builder calls it. It holds one TAC's entries
//! and the index, never the section.

use std::io::{self, Write};

use super::bits::BitWriter;
use super::pack::{self, Entry, RANK_BITS};
use super::tag_code::TagCode;
use super::{
    ALIGNMENT, BLOCK, BLOCKS_BITS, EMPTY, ENTRIES_BITS, KEY_BITS, PADDING, SLOT, TAC_BITS, TAIL, UNIT, first_slot,
    slots,
};
use crate::imei::Imei;
use crate::lists::tag::Tag;

/// A section being written. What it is written to must be at a multiple of 64 bytes in the file.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    /// Bytes written.
    at: u64,
    imeis: u64,
    last: Option<Imei>,
    /// The entries of the last IMEI's TAC: SNR, then four bits of tag.
    entries: Vec<Entry>,
    index: Vec<u8>,
    /// The directory's slot of every TAC.
    slots: Vec<(u32, [u8; SLOT])>,
    bits: BitWriter,
    blocks: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// A section without IMEIs.
    pub fn new(out: W) -> Self {
        Self {
            out,
            at: 0,
            imeis: 0,
            last: None,
            entries: Vec::new(),
            index: Vec::new(),
            slots: Vec::new(),
            bits: BitWriter::default(),
            blocks: Vec::new(),
        }
    }

    /// Append an IMEI, which must be above the one before.
    ///
    /// # Errors
    /// What is written to has failed; or the IMEI is not above the one before.
    pub fn push(&mut self, imei: Imei, tag: Tag) -> io::Result<()> {
        if let Some(last) = self.last {
            if imei <= last {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "IMEIs that are not in rising order"));
            }
            if imei.tac() != last.tac() {
                self.write_tac(last.tac())?;
            }
        }
        self.last = Some(imei);
        self.imeis += 1;
        self.entries.push(imei.snr() << RANK_BITS | u32::from(tag.number()));
        Ok(())
    }

    /// Write what is left: the section's small parts. Gives back what it was written to.
    ///
    /// # Errors
    /// What is written to has failed.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(last) = self.last {
            self.write_tac(last.tac())?;
            self.write_zeros(PADDING)?;
            self.align(ALIGNMENT)?;
        }
        // There are fewer TACs than 2^27.
        let tacs = self.slots.len() as u32;
        for slot in directory(&self.slots, slots(tacs)) {
            self.out.write_all(&slot)?;
        }
        self.out.write_all(&self.index)?;
        let mut tail = Vec::with_capacity(TAIL);
        tail.extend(self.imeis.to_le_bytes());
        tail.extend(tacs.to_le_bytes());
        tail.extend(slots(tacs).to_le_bytes());
        tail.extend(self.at.to_le_bytes());
        tail.extend((self.index.len() as u64).to_le_bytes());
        tail.resize(TAIL, 0);
        self.out.write_all(&tail)?;
        Ok(self.out)
    }

    /// Write the blocks of the entries that were collected, and their part of the index.
    fn write_tac(&mut self, tac: u32) -> io::Result<()> {
        let mut counts = [0; Tag::LIMIT];
        for entry in &self.entries {
            if let Some(count) = counts.get_mut((entry & ((1 << RANK_BITS) - 1)) as usize) {
                *count += 1;
            }
        }
        let code = TagCode::for_counts(&counts);
        let ranks = code.ranks();
        for entry in &mut self.entries {
            let (snr, tag) = (*entry >> RANK_BITS, *entry & ((1 << RANK_BITS) - 1));
            *entry = snr << RANK_BITS | u32::from(ranks.get(tag as usize).copied().unwrap_or_default());
        }

        let index_at = self.index.len() as u64;
        let code_bits = u32::from(code.levels) | u32::from(code.width) << 4;
        self.index.extend(tac.to_le_bytes());
        self.index.extend((self.entries.len() as u32 | code_bits << ENTRIES_BITS).to_le_bytes());
        self.index.extend(code.order.to_le_bytes());
        self.blocks.clear();
        let mut rest = self.entries.as_slice();
        let mut blocks = 0u64;
        while let Some(&first) = rest.first() {
            self.blocks.resize(blocks as usize * BLOCK, 0);
            self.index.extend(((pack::snr(first) >> KEY_BITS) as u16).to_le_bytes());
            let taken = pack::write(rest, &code, &mut self.bits, &mut self.blocks);
            // A block has room for every SNR that shares its key, so some are taken.
            debug_assert!(taken > 0);
            rest = rest.get(taken.max(1)..).unwrap_or_default();
            blocks += 1;
        }
        if self.blocks.len() > ALIGNMENT {
            self.align(ALIGNMENT)?;
        }
        let first = u64::from(tac) | ((self.at / UNIT as u64) << TAC_BITS);
        let second = blocks | (index_at << BLOCKS_BITS);
        let mut slot = [0; SLOT];
        let (low, high) = slot.split_at_mut(8);
        low.copy_from_slice(&first.to_le_bytes());
        high.copy_from_slice(&second.to_le_bytes());
        self.slots.push((tac, slot));
        self.out.write_all(&self.blocks)?;
        self.at += self.blocks.len() as u64;
        self.entries.clear();
        Ok(())
    }

    fn align(&mut self, alignment: usize) -> io::Result<()> {
        self.write_zeros((self.at.next_multiple_of(alignment as u64) - self.at) as usize)
    }

    fn write_zeros(&mut self, count: usize) -> io::Result<()> {
        self.at += count as u64;
        self.out.write_all([0; ALIGNMENT].get(..count).unwrap_or_default())
    }
}

/// The directory: every TAC's slot at the first free place from where its search starts.
fn directory(tacs: &[(u32, [u8; SLOT])], slots: u32) -> Vec<[u8; SLOT]> {
    let mut empty = [0; SLOT];
    empty.split_at_mut(8).0.copy_from_slice(&EMPTY.to_le_bytes());
    let mut directory = vec![empty; slots as usize];
    for (tac, slot) in tacs {
        let (before, from) = directory.split_at_mut(first_slot(*tac, slots) as usize);
        if let Some(free) = from.iter_mut().chain(before).find(|slot| **slot == empty) {
            *free = *slot;
        }
    }
    directory
}
