//! Building a snapshot from list files.
//!
//! Its one job: collect the rows of the files, settle what contradicts, and write the snapshot. The command line calls
//! it, on a thread of its own. It never opens a file or reads a clock, and the same files in the same order give the
//! same bytes. Of device rows it holds no more than it is told to, where it is given a place for the others.

use std::io::{Read, Seek, Write};

use super::List;
use super::deadlines::{self, Failure};
use super::imei_set;
use super::layout::{Counts, FileWriter, Header};
use super::pairs;
use super::report::{BuildError, BuildReport, FileError, FileFault, KEPT};
use super::rows::{self, FileKind, Row, Tolerance};
use super::runs::{Runs, Shelf, Sorter};
use super::sorted::{Interval, encode_intervals, encode_tacs, flatten};
use super::tag::{Tag, TagTable};
use super::zone::Zone;
use crate::UnixTime;
use crate::imei::{Imei, Imsi};
use crate::in_use::Day;

/// Most device rows in memory where there is no other place for them: 2 GiB.
const MAX_HELD: usize = 1 << 28;
/// Most device rows: 64 GiB put aside. A file that unpacks to more is damaged or hostile.
const MAX_DEVICES: u64 = 1 << 33;
/// Device rows in memory, where there is a place for others.
const RUN_ROWS: usize = 48_000_000;
/// Most rows of any other kind.
const MAX_OTHERS: usize = 1 << 24;

/// How to build.
#[derive(Debug, Clone, Copy)]
pub struct BuildOptions {
    /// Refuse a file at its first wrong row, and the lists if any IMEI has contradictory entries.
    pub strict: bool,
    /// Otherwise refuse a file when more than this share of its rows is wrong, from 0 to 1.
    pub max_bad_share: f64,
    /// Which state of the national lists this is.
    pub sequence: u64,
    /// Now.
    pub created_at: UnixTime,
    /// The date of the allocated-TAC list; 0 where there is none.
    pub tac_as_of: UnixTime,
    /// How many device rows are held in memory before they are put aside, if there is a place for that. Changes nothing
    /// in what is built.
    pub run_rows: usize,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self { strict: false, max_bad_share: 0.001, sequence: 0, created_at: 0, tac_as_of: 0, run_rows: RUN_ROWS }
    }
}

/// A snapshot being built: give it the files, then [`finish`](Self::finish) it.
///
/// Once a file was refused, the lists are not whole and `finish` refuses too.
#[derive(Debug)]
pub struct SnapshotBuilder {
    options: BuildOptions,
    collected: Collected,
    report: BuildReport,
    incomplete: bool,
}

impl SnapshotBuilder {
    /// Start with empty lists.
    #[must_use]
    pub fn new(options: BuildOptions) -> Self {
        Self { options, collected: Collected::default(), report: BuildReport::default(), incomplete: false }
    }

    /// Give a place for the device rows that memory is not to hold; without, all are held.
    pub fn put_aside(&mut self, runs: Box<dyn Runs>) {
        self.collected.shelf = Shelf::new(runs);
        self.collected.run_rows = self.options.run_rows.max(1);
    }

    /// Give the country's zone, in which dates are meant; without, they are meant in UTC.
    pub fn set_zone(&mut self, zone: Zone) {
        self.collected.zone = zone;
    }

    /// Give the black list's hard reasons, those that no exemption lifts, their places before any file is read: an
    /// entry with one is then never displaced by another reason, and its reason is never dropped. Returns whether there
    /// was place for all.
    #[must_use]
    pub fn keep_black_reasons(&mut self, reasons: &[String]) -> bool {
        reasons.iter().all(|reason| self.collected.tags.allot(List::Black, reason).is_some())
    }

    /// Read a file of listed devices. For the arguments and errors of this and the other kinds see [`add`](Self::add).
    ///
    /// # Errors
    /// [`BuildError::File`].
    pub fn devices(&mut self, file: &str, reader: impl Read, progress: &mut dyn FnMut(u64)) -> Result<(), BuildError> {
        self.add(FileKind::Devices, file, reader, progress)
    }

    /// Read a file of IMEI and TAC ranges.
    ///
    /// # Errors
    /// [`BuildError::File`].
    pub fn ranges(&mut self, file: &str, reader: impl Read, progress: &mut dyn FnMut(u64)) -> Result<(), BuildError> {
        self.add(FileKind::Ranges, file, reader, progress)
    }

    /// Read a file of TACs that the GSMA has allocated.
    ///
    /// # Errors
    /// [`BuildError::File`].
    pub fn allocated_tacs(
        &mut self,
        file: &str,
        reader: impl Read,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), BuildError> {
        self.add(FileKind::AllocatedTacs, file, reader, progress)
    }

    /// Read a file of TACs of devices that need no verification.
    ///
    /// # Errors
    /// [`BuildError::File`].
    pub fn exempt_tacs(
        &mut self,
        file: &str,
        reader: impl Read,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), BuildError> {
        self.add(FileKind::ExemptTacs, file, reader, progress)
    }

    /// Read a file of ranges of IMSIs that need no verified device.
    ///
    /// # Errors
    /// [`BuildError::File`].
    pub fn exempt_imsis(
        &mut self,
        file: &str,
        reader: impl Read,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), BuildError> {
        self.add(FileKind::ExemptImsis, file, reader, progress)
    }

    /// Read a file of pairs of IMEI and IMSI.
    ///
    /// # Errors
    /// [`BuildError::File`].
    pub fn pairs(&mut self, file: &str, reader: impl Read, progress: &mut dyn FnMut(u64)) -> Result<(), BuildError> {
        self.add(FileKind::Pairs, file, reader, progress)
    }

    /// Read a file of any kind, plain, gzip or zstd. Several files of a kind add up.
    ///
    /// `file` is its name in reports. `progress` is told how many bytes of it were read so far, compressed as they are,
    /// about every 64 KiB and at the end.
    ///
    /// # Errors
    /// [`BuildError::File`] where the file is refused as a whole.
    pub fn add(
        &mut self,
        kind: FileKind,
        file: &str,
        reader: impl Read,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), BuildError> {
        let tolerance = Tolerance { strict: self.options.strict, max_bad_share: self.options.max_bad_share };
        let collected = &mut self.collected;
        let read = rows::read(kind, file, reader, tolerance, progress, |row| collected.take(kind, row));
        let read = read.and_then(|report| {
            if kind == FileKind::AllocatedTacs && report.rows == report.wrong_rows {
                return Err(FileError { file: file.to_owned(), fault: FileFault::NoTacs });
            }
            Ok(report)
        });
        self.incomplete |= read.is_err();
        self.report.files.push(read.map_err(BuildError::File)?);
        Ok(())
    }

    /// Settle contradictions and write the snapshot file, from the beginning of `out`.
    ///
    /// # Errors
    /// [`BuildError`]; what was written by then must be thrown away.
    pub fn finish(mut self, out: &mut (impl Write + Seek)) -> Result<BuildReport, BuildError> {
        if self.incomplete {
            return Err(BuildError::Incomplete);
        }
        let has_allocated = !self.collected.allocated_tacs.is_empty();
        if has_allocated && self.options.tac_as_of == 0 {
            return Err(BuildError::NoTacDate);
        }
        self.report.dropped_reasons = self.collected.dropped_reasons;
        if self.options.strict && self.report.dropped_reasons > 0 {
            return Err(BuildError::DroppedReasons(self.report.dropped_reasons));
        }

        let Collected { tags, ranges, exempt_tacs, allocated_tacs, exempt_imsis, pairs, .. } = &mut self.collected;
        let tags = tags.clone();
        let ranges = flatten(std::mem::take(ranges), |tag| tags.rank(tag));
        let exempt_imsis = flatten(std::mem::take(exempt_imsis), Tag::number);
        let [exempt_tacs, allocated_tacs] =
            [exempt_tacs, allocated_tacs].map(|tacs| sorted_unique(std::mem::take(tacs)));
        let pairs = sorted_unique(std::mem::take(pairs));
        let counts = Counts {
            ranges: ranges.len() as u64,
            exempt_tacs: exempt_tacs.len() as u64,
            allocated_tacs: allocated_tacs.len() as u64,
            exempt_imsis: exempt_imsis.len() as u64,
            pairs: pairs.len() as u64,
            ..Counts::default()
        };

        let mut file = FileWriter::new(out);
        section(&mut file, &tags.encode())?;
        file.begin().map_err(BuildError::Write)?;
        let deadlines = self.write_devices(&mut file, counts)?;
        section(&mut file, &encode_intervals(&ranges))?;
        section(&mut file, &encode_tacs(&exempt_tacs))?;
        section(&mut file, &encode_tacs(&allocated_tacs))?;
        section(&mut file, &encode_intervals(&exempt_imsis))?;
        section(&mut file, &pairs::encode(pairs))?;
        file.begin().map_err(BuildError::Write)?;
        let written = deadlines.finish(&self.collected.deadlines, &self.collected.shelf, &mut file);
        self.report.counts.deadlines = written.map_err(|failure| match failure {
            Failure::Read(error) => BuildError::Aside(error),
            Failure::Write(error) => BuildError::Write(error),
        })?;

        let header = Header {
            sequence: self.options.sequence,
            created_at: self.options.created_at,
            tac_as_of: if has_allocated { self.options.tac_as_of } else { 0 },
            counts: self.report.counts,
        };
        self.report.bytes = file.finish(&header).map_err(BuildError::Write)?;
        Ok(self.report)
    }

    /// Write one entry of each device into the file's section, counting what went; gives the deadlines.
    fn write_devices<W: Write + Seek>(
        &mut self,
        file: &mut FileWriter<'_, W>,
        mut counts: Counts,
    ) -> Result<deadlines::Builder, BuildError> {
        let Self { collected, report, options, .. } = self;
        let Collected { tags, devices, shelf, deadlines: table, .. } = collected;
        let mut merge = std::mem::take(devices).merge(shelf).map_err(BuildError::Aside)?;
        let mut section = imei_set::Writer::new(file);
        let mut deadlines = deadlines::Builder::default();
        let ranks = tags.ranks();
        let mut put = |device: u64, shelf: &mut Shelf| {
            let Some((imei, tag, until)) = unpack(device) else { return Ok(()) };
            let list = tags.info(tag).list;
            match list {
                List::White => counts.white += 1,
                List::Black => counts.black += 1,
                List::Grey => counts.grey += 1,
            }
            if until != 0 && list == List::Grey {
                deadlines.push(imei, until, shelf).map_err(BuildError::Aside)?;
            }
            section.push(imei, tag).map_err(BuildError::Write)
        };

        let mut settling = Settling { report, ranks, contradicted: None };
        let mut kept = merge.next(shelf).map_err(BuildError::Aside)?;
        while let Some(device) = kept {
            let next = merge.next(shelf).map_err(BuildError::Aside)?;
            kept = match next {
                Some(next) if next >> KEY_AT == device >> KEY_AT => Some(settling.settle(device, next, table)),
                next => {
                    put(device, shelf)?;
                    next
                }
            };
        }
        section.finish().map_err(BuildError::Write)?;
        report.counts = counts;
        if options.strict && report.contradictions > 0 {
            let BuildReport { contradictions: count, first_contradictions: first, .. } = std::mem::take(report);
            return Err(BuildError::Contradictions { count, first });
        }
        Ok(deadlines)
    }
}

/// Write the next section of a file.
fn section<W: Write + Seek>(file: &mut FileWriter<'_, W>, section: &[u8]) -> Result<(), BuildError> {
    file.begin().and_then(|()| file.write_all(section)).map_err(BuildError::Write)
}

/// Which of two entries of one device stands.
struct Settling<'a> {
    report: &'a mut BuildReport,
    /// [`TagTable::rank`] of every tag.
    ranks: [u8; Tag::LIMIT],
    /// The last device with contradictory entries.
    contradicted: Option<Imei>,
}

impl Settling<'_> {
    /// The entry that stands of the one kept so far and the next; of deadlines the earliest.
    fn settle(&mut self, kept: u64, next: u64, table: &deadlines::Table) -> u64 {
        let [until, next_until] = [kept, next].map(|device| (device & UNTIL_MASK) as u16);
        let until = u64::from(table.earlier(until, next_until));
        let [kept, next] = [kept, next].map(|device| device & !UNTIL_MASK | until);
        if kept == next {
            self.report.duplicates += 1;
            return kept;
        }
        let imei = Imei::from_number(kept >> KEY_AT);
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
}

/// The right rows of all files.
#[derive(Debug, Default)]
struct Collected {
    tags: TagTable,
    /// As [`pack`] packs them.
    devices: Sorter,
    /// How many of them were taken.
    taken: u64,
    /// How many are in memory at most, if there is another place for them; 0: there is none.
    run_rows: usize,
    shelf: Shelf,
    deadlines: deadlines::Table,
    zone: Zone,
    ranges: Vec<Interval>,
    exempt_tacs: Vec<u32>,
    allocated_tacs: Vec<u32>,
    /// In the form of [`Imsi::padded`]; the tags say nothing.
    exempt_imsis: Vec<Interval>,
    pairs: Vec<(Imei, Imsi)>,
    dropped_reasons: u64,
}

impl Collected {
    fn take(&mut self, kind: FileKind, row: Row<'_>) -> Result<(), FileFault> {
        match row {
            Row::Device { imei, list, reason, until } => {
                let tag = self.tag(list, &reason);
                let until = until.map_or(Ok(0), |day| self.until(day))?;
                self.device(pack(imei, tag, until))
            }
            Row::Range { from, to, list, reason } => {
                let tag = self.tag(list, &reason);
                push(&mut self.ranges, Interval { from, to, tag }, MAX_OTHERS)
            }
            Row::Tac(tac) if kind == FileKind::AllocatedTacs => push(&mut self.allocated_tacs, tac, MAX_OTHERS),
            Row::Tac(tac) => push(&mut self.exempt_tacs, tac, MAX_OTHERS),
            Row::ImsiRange { from, to } => {
                push(&mut self.exempt_imsis, Interval { from, to, tag: Tag::from_low_bits(0) }, MAX_OTHERS)
            }
            // The command line has no such files for a snapshot.
            Row::Change { .. } | Row::PairChange { .. } => Ok(()),
            Row::Pair { imei, imsi } => push(&mut self.pairs, (imei, imsi), MAX_OTHERS),
        }
    }

    fn device(&mut self, device: u64) -> Result<(), FileFault> {
        match self.run_rows {
            0 if self.devices.held() == MAX_HELD => return Err(FileFault::TooManyRows),
            0 => {}
            _ if self.taken == MAX_DEVICES => return Err(FileFault::TooManyRows),
            most if self.devices.held() >= most => {
                self.devices.spill(&mut self.shelf).map_err(FileFault::Aside)?;
            }
            _ => {}
        }
        self.taken += 1;
        self.devices.push(device);
        Ok(())
    }

    fn until(&mut self, day: Day) -> Result<u16, FileFault> {
        self.deadlines.place(self.zone.end_of(day)).ok_or(FileFault::TooManyDeadlines)
    }

    fn tag(&mut self, list: List, reason: &str) -> Tag {
        self.tags.allot(list, reason).unwrap_or_else(|| {
            self.dropped_reasons += 1;
            Tag::reserved(list)
        })
    }
}

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

fn unpack(device: u64) -> Option<(Imei, Tag, u16)> {
    Imei::from_number(device >> KEY_AT).map(|imei| (imei, tag_of(device), (device & UNTIL_MASK) as u16))
}

fn push<T>(rows: &mut Vec<T>, row: T, most: usize) -> Result<(), FileFault> {
    if rows.len() == most {
        return Err(FileFault::TooManyRows);
    }
    rows.push(row);
    Ok(())
}

fn sorted_unique<T: Ord>(mut rows: Vec<T>) -> Vec<T> {
    rows.sort_unstable();
    rows.dedup();
    rows
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor, SeekFrom};

    use super::super::runs::tests::Memory;
    use super::*;
    use crate::lists::Snapshot;
    use proptest::prelude::*;

    fn built(options: BuildOptions, files: &[(FileKind, &str)]) -> Result<(BuildReport, Vec<u8>), BuildError> {
        let mut builder = SnapshotBuilder::new(options);
        for (kind, text) in files {
            builder.add(*kind, "test.csv", text.as_bytes(), &mut |_| {})?;
        }
        let mut out = Cursor::new(Vec::new());
        builder.finish(&mut out).map(|report| (report, out.into_inner()))
    }

    #[test]
    fn black_wins_over_white_over_grey_and_contradictions_are_reported() {
        let text = "imei,list,reason\n35209900000001,grey,\n35209900000001,white,\n35209900000002,white,\n\
                    35209900000002,black,\n35209900000002,black,stolen\n35209900000002,white,\n\
                    35209900000003,grey,\n35209900000003,grey,\n";
        let (report, _) = built(BuildOptions::default(), &[(FileKind::Devices, text)]).unwrap();
        let Counts { white, black, grey, .. } = report.counts;
        assert_eq!((white, black, grey), (1, 1, 1));
        assert_eq!(report.contradictions, 2);
        assert_eq!(report.first_contradictions.iter().map(|imei| imei.snr()).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(report.duplicates, 2);

        let strict = BuildOptions { strict: true, ..BuildOptions::default() };
        let error = built(strict, &[(FileKind::Devices, text)]).unwrap_err();
        assert_eq!(error.to_string(), "2 IMEIs have contradictory entries, the first of them 35209900000001");
    }

    #[test]
    fn the_reason_that_finds_no_tag_is_dropped_and_counted() {
        let rows = (0..20).map(|number| format!("352099000000{:02},black,r{number}\n", number + 1));
        let text = format!("imei,list,reason\n{}", rows.collect::<String>());
        let (report, _) = built(BuildOptions::default(), &[(FileKind::Devices, &text)]).unwrap();
        assert_eq!((report.counts.black, report.dropped_reasons), (20, 7));
    }

    #[test]
    fn after_a_refused_file_nothing_is_written() {
        let mut builder = SnapshotBuilder::new(BuildOptions::default());
        assert!(builder.devices("a.csv", &b"imei,list,reason\n"[..], &mut |_| {}).is_ok());
        let error = builder.pairs("b.csv", &b"imei\n"[..], &mut |_| {}).unwrap_err();
        assert!(error.to_string().starts_with("b.csv: is no file of pairs"));
        let mut out = Cursor::new(Vec::new());
        assert!(matches!(builder.finish(&mut out), Err(BuildError::Incomplete)));
        assert!(out.into_inner().is_empty());
    }

    #[test]
    fn a_list_of_allocated_tacs_needs_tacs_and_a_date() {
        let dated = BuildOptions { tac_as_of: 1_700_000_000, ..BuildOptions::default() };
        let tacs = "tac\n35209900\n";
        assert!(built(dated, &[(FileKind::AllocatedTacs, tacs)]).is_ok());
        let error = built(BuildOptions::default(), &[(FileKind::AllocatedTacs, tacs)]).unwrap_err();
        assert!(matches!(error, BuildError::NoTacDate));
        let error = built(dated, &[(FileKind::AllocatedTacs, "tac\n")]).unwrap_err();
        assert!(matches!(error, BuildError::File(FileError { fault: FileFault::NoTacs, .. })));
    }

    #[test]
    fn a_hard_reason_is_neither_displaced_nor_dropped() {
        let rows: String = (0..30).map(|number| format!("359002000000{number:02},black,why-{number}\n")).collect();
        let text = format!("imei,list,reason\n35900200000077,black,unverified\n{rows}35900200000077,black,stolen\n");
        let mut builder = SnapshotBuilder::new(BuildOptions::default());
        assert!(builder.keep_black_reasons(&["stolen".to_owned(), "court".to_owned()]));
        builder.devices("a", text.as_bytes(), &mut |_| ()).unwrap();
        let mut file = Cursor::new(Vec::new());
        builder.finish(&mut file).unwrap();
        let snapshot = Snapshot::open(Box::new(file.into_inner())).unwrap();
        let tag = snapshot.imei(Imei::from_number(35_900_200_000_077).unwrap()).unwrap();
        assert_eq!(snapshot.tag_info(tag).reason, "stolen");
        let many: Vec<String> = (0..20).map(|number| format!("why-{number}")).collect();
        assert!(!SnapshotBuilder::new(BuildOptions::default()).keep_black_reasons(&many));
    }

    /// Files built with so many rows in memory, or all of them.
    fn built_by_runs(run_rows: Option<usize>, files: &[String]) -> Result<(BuildReport, Vec<u8>), BuildError> {
        let mut builder =
            SnapshotBuilder::new(BuildOptions { run_rows: run_rows.unwrap_or(0), ..BuildOptions::default() });
        if run_rows.is_some() {
            builder.put_aside(Box::new(Memory { octets: Vec::new(), most: usize::MAX }));
        }
        for text in files {
            builder.devices("test.csv", text.as_bytes(), &mut |_| {})?;
        }
        let mut out = Cursor::new(Vec::new());
        builder.finish(&mut out).map(|report| (report, out.into_inner()))
    }

    proptest! {
        #[test]
        fn what_is_put_aside_and_merged_is_what_memory_would_have_held(
            rows in prop::collection::vec((0u64..3, 0u64..9, 0u8..3, 0u8..3, 0u32..4), 0..120),
            files in 1usize..4,
            run_rows in 0usize..20,
        ) {
            let text = |&(tac, snr, list, reason, until): &(u64, u64, u8, u8, u32)| {
                let imei = (35_209_900 + tac) * 1_000_000 + snr;
                let list = List::from_number(list).unwrap();
                let reason = ["", "stolen", "other"][usize::from(reason)];
                let until = if list == List::Grey && until > 0 { format!("202605{until:02}") } else { String::new() };
                format!("{imei},{list},{reason},{until}\n")
            };
            let files: Vec<String> = rows
                .chunks(rows.len().div_ceil(files).max(1))
                .map(|rows| format!("imei,list,reason,until\n{}", rows.iter().map(text).collect::<String>()))
                .collect();
            let (whole, file) = built_by_runs(None, &files).unwrap();
            let (parts, merged) = built_by_runs(Some(run_rows), &files).unwrap();
            prop_assert_eq!(&parts, &whole);
            prop_assert_eq!(merged, file);
        }
    }

    #[test]
    fn of_the_deadlines_of_a_grey_device_the_earliest_stands() {
        let text = "imei,list,reason,until\n35209900000001,grey,,20260503\n35209900000001,grey,,20260501\n\
                    35209900000001,grey,,20260502\n35209900000002,grey,,\n35209900000002,grey,seen,20260502\n\
                    35209900000003,grey,,20260501\n35209900000003,white,,\n35209900000004,grey,,\n";
        let (report, file) = built(BuildOptions::default(), &[(FileKind::Devices, text)]).unwrap();
        assert_eq!((report.duplicates, report.contradictions, report.counts.deadlines), (2, 2, 2));
        let snapshot = Snapshot::open(Box::new(file)).unwrap();
        let end = |day| Some(Zone::default().end_of(day));
        let deadlines = [1, 2, 3, 4].map(|snr| snapshot.deadline(Imei::from_number(35_209_900_000_000 + snr).unwrap()));
        assert_eq!(deadlines, [end(20_574), end(20_575), None, None]);
    }

    #[test]
    fn dates_are_meant_in_the_country_also_when_its_clocks_change() {
        // An hour ahead up to 25 October 2026, 01:00 UTC, and then none.
        let zone = Zone::new(vec![(0, 3_600), (1_792_890_000, 0)]).unwrap();
        let mut builder = SnapshotBuilder::new(BuildOptions::default());
        builder.set_zone(zone);
        let rows = "imei,list,reason,until\n35209900000001,grey,,20261023\n35209900000002,grey,,20261024\n\
                    35209900000003,grey,,20261025\n";
        builder.devices("test.csv", rows.as_bytes(), &mut |_| ()).unwrap();
        let mut file = Cursor::new(Vec::new());
        builder.finish(&mut file).unwrap();
        let snapshot = Snapshot::open(Box::new(file.into_inner())).unwrap();
        let deadlines = [1, 2, 3].map(|snr| snapshot.deadline(Imei::from_number(35_209_900_000_000 + snr).unwrap()));
        assert_eq!(deadlines, [Some(1_792_796_400), Some(1_792_882_800), Some(1_792_972_800)]);
    }

    #[test]
    fn too_many_different_deadlines_refuse_the_file() {
        let from = Zone::default();
        let mut builder = SnapshotBuilder::new(BuildOptions::default());
        for day in 0..4096 {
            builder.collected.deadlines.place(from.end_of(day)).unwrap();
        }
        let rows = b"imei,list,reason,until\n35209900000001,grey,,19700101\n35209900000001,grey,,20260501\n";
        let error = builder.devices("test.csv", &rows[..], &mut |_| ()).unwrap_err().to_string();
        assert_eq!(error, "test.csv: brings more than 4096 different dates until which there is access");
    }

    /// A file that takes so many writes, and then is full.
    struct Limited {
        file: Cursor<Vec<u8>>,
        writes: usize,
    }

    impl Write for Limited {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.writes = self.writes.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            // In parts, so that it ends anywhere.
            self.file.write(octets.get(..100).unwrap_or(octets))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Limited {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.file.seek(to)
        }
    }

    #[test]
    fn a_full_disk_is_an_error_wherever_it_comes_and_what_was_written_is_no_snapshot() {
        let rows: String = (1..500).map(|snr| format!("35209900{snr:06},grey,,20260501\n")).collect();
        let text = format!("imei,list,reason,until\n{rows}");
        for writes in 0.. {
            let mut builder = SnapshotBuilder::new(BuildOptions::default());
            builder.devices("test.csv", text.as_bytes(), &mut |_| {}).unwrap();
            let mut out = Limited { file: Cursor::new(Vec::new()), writes };
            match builder.finish(&mut out) {
                Err(BuildError::Write(error)) => assert_eq!(error.kind(), io::ErrorKind::StorageFull),
                Err(error) => panic!("{error}"),
                Ok(_) => {
                    assert!(writes > 20);
                    Snapshot::open(Box::new(out.file.into_inner())).unwrap().verify().unwrap();
                    break;
                }
            }
            assert!(Snapshot::open(Box::new(out.file.into_inner())).is_err());
        }
    }

    #[test]
    fn a_full_place_for_what_memory_does_not_hold_refuses_the_file() {
        let mut builder = SnapshotBuilder::new(BuildOptions { run_rows: 2, ..BuildOptions::default() });
        builder.put_aside(Box::new(Memory { octets: Vec::new(), most: 20 }));
        let rows = b"imei,list,reason\n35209900000001,white,\n35209900000002,white,\n35209900000003,white,\n\
                     35209900000004,white,\n35209900000005,white,\n";
        let error = builder.devices("test.csv", &rows[..], &mut |_| ()).unwrap_err().to_string();
        assert!(error.starts_with("test.csv: its rows cannot be put aside while the snapshot is built: "), "{error}");
        assert!(matches!(builder.finish(&mut Cursor::new(Vec::new())), Err(BuildError::Incomplete)));
    }
}
