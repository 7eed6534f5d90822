//! All IMEIs of a section in rising order.
//!
//! Its one job: walk index and blocks front to back. Exporting, comparing and checking call it. It holds one block's
//! entries. A crafted section gives wrong IMEIs, in rising order all the same, and at most as many as there can be.

use super::block;
use super::{INDEX_HEAD, ImeiSet, KEY_BITS, Place, Tac};
use crate::imei::{Imei, SNRS_PER_TAC, TAC_LIMIT};
use crate::lists::layout::BadSection;
use crate::lists::tag::Tag;

/// The TACs of a section with what the index says of them, in rising order.
pub(super) struct Tacs<'a> {
    set: &'a ImeiSet,
    section: &'a [u8],
    at: usize,
    /// The least TAC that the next may be.
    next: u32,
}

impl<'a> Tacs<'a> {
    pub(super) fn new(set: &'a ImeiSet, section: &'a [u8]) -> Self {
        Self { set, section, at: set.index_at, next: 0 }
    }

    /// Where the next TAC's part of the index begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }
}

impl Iterator for Tacs<'_> {
    type Item = (Tac, Place);

    fn next(&mut self) -> Option<(Tac, Place)> {
        if self.at >= self.set.tail_at {
            return None;
        }
        let tac = Tac::read(self.section, self.at)?;
        let place = self.set.place(self.section, tac.number)?;
        if tac.number < self.next || tac.number >= TAC_LIMIT || place.index_at != self.at {
            return None;
        }
        self.next = tac.number + 1;
        self.at += INDEX_HEAD + 2 * place.blocks;
        Some((tac, place))
    }
}

/// The blocks of a TAC, read one by one.
pub(super) struct Blocks<'a> {
    tac: Tac,
    place: Place,
    section: &'a [u8],
    block: usize,
    /// The least SNR that the next entry may have.
    next: u32,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(tac: Tac, place: Place, section: &'a [u8]) -> Self {
        Self { tac, place, section, block: 0, next: 0 }
    }

    /// The entries of the next block, as SNR and tag, into `entries`, and how many bits it has; `None` after the last.
    ///
    /// # Errors
    /// [`BadSection`] where the block is wrong; `entries` are then those that make sense.
    pub(super) fn read(&mut self, entries: &mut Vec<(u32, Tag)>) -> Option<Result<u32, BadSection>> {
        entries.clear();
        let key = self.place.key(self.section, self.block)?;
        let first = u32::from(key) << KEY_BITS;
        let after = self.place.key(self.section, self.block + 1);
        let after = after.map_or(SNRS_PER_TAC as u32, |key| u32::from(key) << KEY_BITS);
        let bits = self.place.block(self.section, self.block);
        self.block += 1;
        let Some(bits) = bits.filter(|_| first >= self.next && first < after) else { return Some(Err(block::BAD)) };
        self.next = after;
        let read = block::read(bits, after - first, &self.tac.code, entries);
        entries.iter_mut().for_each(|(offset, _)| *offset += first);
        Some(read)
    }
}

/// All IMEIs with their tags.
pub(super) struct Iter<'a> {
    section: &'a [u8],
    tacs: Tacs<'a>,
    tac: u64,
    blocks: Option<Blocks<'a>>,
    entries: Vec<(u32, Tag)>,
    given: usize,
}

impl<'a> Iter<'a> {
    pub(super) fn new(set: &'a ImeiSet, section: &'a [u8]) -> Self {
        Self { section, tacs: Tacs::new(set, section), tac: 0, blocks: None, entries: Vec::new(), given: 0 }
    }

    /// Read the next block; `None` at the end.
    fn advance(&mut self) -> Option<()> {
        self.given = 0;
        loop {
            if let Some(blocks) = &mut self.blocks
                && blocks.read(&mut self.entries).is_some()
            {
                return Some(());
            }
            let (tac, place) = self.tacs.next()?;
            self.tac = u64::from(tac.number) * SNRS_PER_TAC;
            self.blocks = Some(Blocks::new(tac, place, self.section));
        }
    }
}

impl Iterator for Iter<'_> {
    type Item = (Imei, Tag);

    #[inline]
    fn next(&mut self) -> Option<(Imei, Tag)> {
        loop {
            while let Some(&(snr, tag)) = self.entries.get(self.given) {
                self.given += 1;
                if let Some(imei) = Imei::from_number(self.tac + u64::from(snr)) {
                    return Some((imei, tag));
                }
            }
            self.advance()?;
        }
    }
}
