//! Listed devices on their way into a snapshot: packed, sorted, and settled where rows say different things of one.
//!
//! Its one job: take the rows of devices in any order and write the section of IMEIs of them, with the deadlines of grey
//! ones beside. The builder calls it. It never holds more of them than it is told to, where there is a place for others.

use std::io::{Seek, Write};

use super::List;
use super::deadlines;
use super::file_writer::FileWriter;
use super::imei_set;
use super::report::{BuildError, BuildReport, FileFault, KEPT};
use super::runs::{Runs, Shelf, Sorter};
use super::tag::{Tag, TagTable};
use super::zone::Zone;
use crate::imei::Imei;
use crate::in_use::Day;

/// Most rows in memory where there is no other place for them: 2 GiB.
const MAX_HELD: usize = 1 << 28;
/// Most rows: 64 GiB put aside. A file that unpacks to more is damaged or hostile.
const MOST: u64 = 1 << 33;

/// Bits of a packed device that are its deadline's place, counted from 1; 0: it has none.
const UNTIL_MASK: u64 = (1 << TAG_AT) - 1;
/// Where the tag is in a packed device.
const TAG_AT: u32 = 13;
/// Where the key is, in the 47 bits on top, so that packed devices sort by key and then by tag.
const KEY_AT: u32 = TAG_AT + 4;

fn pack(imei: Imei, tag: Tag, until: u16) -> u64 {
    imei.number() << KEY_AT | u64::from(tag.number()) << TAG_AT | u64::from(until)
}

fn tag_of(device: u64) -> Tag {
    Tag::from_low_bits(device >> TAG_AT)
}

fn until_of(device: u64) -> u16 {
    (device & UNTIL_MASK) as u16
}

fn imei_of(device: u64) -> Option<Imei> {
    Imei::from_number(device >> KEY_AT)
}

/// Rows of devices.
#[derive(Debug, Default)]
pub(super) struct Devices {
    /// As [`pack`] packs them: eight bytes a row is what building takes.
    rows: Sorter,
    /// How many were taken.
    taken: u64,
    /// How many are in memory at most, if there is another place for them; 0: there is none.
    run_rows: usize,
    shelf: Shelf,
    deadlines: deadlines::Table,
    zone: Zone,
}

impl Devices {
    /// Give a place for rows, and how many are to be held in memory.
    pub fn put_aside(&mut self, runs: Box<dyn Runs>, run_rows: usize) {
        self.shelf = Shelf::new(runs);
        self.run_rows = run_rows.max(1);
    }

    /// Give the zone in which days are meant.
    pub fn set_zone(&mut self, zone: Zone) {
        self.zone = zone;
    }

    /// Take a row.
    pub fn push(&mut self, imei: Imei, tag: Tag, until: Option<Day>) -> Result<(), FileFault> {
        let until = match until {
            Some(day) => self.deadlines.place(self.zone.end_of(day)).ok_or(FileFault::TooManyDeadlines)?,
            None => 0,
        };
        match self.run_rows {
            0 if self.rows.held() == MAX_HELD => return Err(FileFault::TooManyRows),
            0 => {}
            _ if self.taken == MOST => return Err(FileFault::TooManyRows),
            most if self.rows.held() >= most => self.rows.spill(&mut self.shelf).map_err(FileFault::Aside)?,
            _ => {}
        }
        self.taken += 1;
        self.rows.push(pack(imei, tag, until));
        Ok(())
    }

    /// Write one entry of each device into the file's section, counting them and what went; gives the deadlines.
    pub fn write<W: Write + Seek>(
        self,
        tags: &TagTable,
        file: &mut FileWriter<'_, W>,
        report: &mut BuildReport,
    ) -> Result<Deadlines, BuildError> {
        let Self { rows, mut shelf, deadlines: table, .. } = self;
        let mut merge = rows.merge(&shelf).map_err(BuildError::Aside)?;
        let mut section = imei_set::Writer::new(file);
        let mut deadlines = deadlines::Builder::default();
        let mut settling = Settling { report, ranks: tags.ranks(), table: &table, contradicted: None };
        let mut kept = merge.next(&shelf).map_err(BuildError::Aside)?;
        while let Some(device) = kept {
            kept = merge.next(&shelf).map_err(BuildError::Aside)?;
            if let Some(next) = kept.filter(|next| next >> KEY_AT == device >> KEY_AT) {
                kept = Some(settling.settle(device, next));
                continue;
            }
            let Some(imei) = imei_of(device) else { continue };
            let (tag, until) = (tag_of(device), until_of(device));
            let list = tags.info(tag).list;
            settling.count(list);
            if until != 0 && list == List::Grey {
                deadlines.push(imei, until, &mut shelf).map_err(BuildError::Aside)?;
            }
            section.push(imei, tag).map_err(BuildError::Write)?;
        }
        section.finish().map_err(BuildError::Write)?;
        Ok(Deadlines { builder: deadlines, table, shelf })
    }
}

/// The deadlines of the devices that were written.
pub(super) struct Deadlines {
    builder: deadlines::Builder,
    table: deadlines::Table,
    shelf: Shelf,
}

impl Deadlines {
    /// Write their section; gives how many there are.
    pub fn write(self, out: &mut impl Write) -> Result<u64, BuildError> {
        self.builder.finish(&self.table, &self.shelf, out).map_err(|failure| match failure {
            deadlines::Failure::Read(error) => BuildError::Aside(error),
            deadlines::Failure::Write(error) => BuildError::Write(error),
        })
    }
}

/// Which of two entries of one device stands.
struct Settling<'a> {
    report: &'a mut BuildReport,
    /// [`TagTable::rank`] of every tag.
    ranks: [u8; Tag::LIMIT],
    table: &'a deadlines::Table,
    /// The last device with contradictory entries.
    contradicted: Option<Imei>,
}

impl Settling<'_> {
    /// The entry that stands of the one kept so far and the next; of deadlines the earliest.
    fn settle(&mut self, kept: u64, next: u64) -> u64 {
        let until = u64::from(self.table.earlier(until_of(kept), until_of(next)));
        let [kept, next] = [kept, next].map(|device| device & !UNTIL_MASK | until);
        if kept == next {
            self.report.duplicates += 1;
            return kept;
        }
        let imei = imei_of(kept);
        if self.contradicted != imei {
            self.contradicted = imei;
            self.report.contradictions += 1;
            if self.report.first_contradictions.len() < KEPT {
                self.report.first_contradictions.extend(imei);
            }
        }
        let rank = |device: u64| self.ranks.get(usize::from(tag_of(device).number()));
        if rank(next) < rank(kept) { next } else { kept }
    }

    fn count(&mut self, list: List) {
        let counts = &mut self.report.counts;
        match list {
            List::White => counts.white += 1,
            List::Black => counts.black += 1,
            List::Grey => counts.grey += 1,
        }
    }
}
