//! Writing the IMEI section as the IMEIs come.
//!
//! Its one job: a section out of sorted IMEIs, written front to back. The builder calls it. It holds one TAC's entries and the
//! index, never the section.

use std::io::{self, Write};

use super::bits::BitWriter;
use super::pack::{self, Entry, RANK_BITS};
use super::tag_code::TagCode;
use super::{ALIGNMENT, BLOCK, EMPTY, INDEX_HEAD, INDEX_UNIT, KEY_BITS, PADDING, TAIL, directory_bits, first_slot};
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
    /// Every TAC and where it is in the index.
    places: Vec<(u32, u64)>,
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
            places: Vec::new(),
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
    /// What is written to has failed; or the index has grown over 32 GiB.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(last) = self.last {
            self.write_tac(last.tac())?;
            self.write_zeros(PADDING)?;
            self.align(ALIGNMENT)?;
        }
        let bits = directory_bits(self.places.len());
        for (tac, place) in directory(&self.places, bits) {
            let unit = u32::try_from(place / INDEX_UNIT as u64).map_err(io::Error::other)?;
            self.out.write_all(&tac.to_le_bytes())?;
            self.out.write_all(&unit.to_le_bytes())?;
        }
        self.out.write_all(&self.index)?;
        let mut tail = Vec::with_capacity(TAIL);
        tail.extend(self.imeis.to_le_bytes());
        tail.extend((self.places.len() as u32).to_le_bytes());
        tail.extend(bits.to_le_bytes());
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
            let tag = *entry & ((1 << RANK_BITS) - 1);
            *entry = *entry ^ tag | u32::from(ranks.get(tag as usize).copied().unwrap_or_default());
        }

        let place = self.index.len();
        self.index.resize(place + INDEX_HEAD, 0);
        self.blocks.clear();
        let mut rest = self.entries.as_slice();
        let mut blocks = 0u32;
        while let Some(&first) = rest.first() {
            self.blocks.resize(blocks as usize * BLOCK, 0);
            self.index.extend(((pack::snr(first) >> KEY_BITS) as u16).to_le_bytes());
            let taken = pack::write(rest, &code, &mut self.bits, &mut self.blocks);
            // A block has room for every SNR that shares its key, so some are taken.
            debug_assert!(taken > 0);
            rest = rest.get(taken.max(1)..).unwrap_or_default();
            blocks += 1;
        }
        self.index.resize(self.index.len().next_multiple_of(INDEX_UNIT), 0);
        if self.blocks.len() > ALIGNMENT {
            self.align(ALIGNMENT)?;
        }

        let mut head = Vec::with_capacity(INDEX_HEAD);
        head.extend(tac.to_le_bytes());
        head.extend((self.entries.len() as u32).to_le_bytes());
        head.extend(self.at.to_le_bytes());
        head.extend(code.order.to_le_bytes());
        head.extend(blocks.to_le_bytes());
        head.extend([code.levels, code.width, 0, 0]);
        if let Some(space) = self.index.get_mut(place..place + INDEX_HEAD) {
            space.copy_from_slice(&head);
        }
        self.places.push((tac, place as u64));
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

/// The directory's slots: TAC and place in the index.
fn directory(places: &[(u32, u64)], bits: u32) -> Vec<(u32, u64)> {
    let mask = (1usize << bits) - 1;
    let mut slots = vec![(EMPTY, 0); mask + 1];
    for &(tac, place) in places {
        let mut at = first_slot(tac, bits);
        while slots.get(at).is_some_and(|slot| slot.0 != EMPTY) {
            at = (at + 1) & mask;
        }
        if let Some(slot) = slots.get_mut(at) {
            *slot = (tac, place);
        }
    }
    slots
}
