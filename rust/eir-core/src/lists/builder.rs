//! Building a snapshot from list files.
//!
//! Its one job: collect the rows of the files, settle what contradicts, and write the snapshot. The command line calls
//! it, on a thread of its own. It never opens a file or reads a clock, and the same files in the same order give the
//! same bytes. Of device rows it holds no more than it is told to, where it is given a place for the others.

use std::io::{Read, Seek, Write};

use super::List;
use super::devices::Devices;
use super::file_writer::FileWriter;
use super::formats::FileKind;
use super::layout::{Counts, Header};
use super::pairs;
use super::report::{BuildError, BuildReport, FileError, FileFault};
use super::rows::{self, Row, Tolerance};
use super::runs::Runs;
use super::sorted::{Interval, encode_intervals, encode_tacs, flatten};
use super::tag::{Tag, TagTable};
use super::zone::Zone;
use crate::UnixTime;
use crate::imei::{Imei, Imsi};

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
        self.collected.devices.put_aside(runs, self.options.run_rows);
    }

    /// Give the country's zone, in which dates are meant; without, they are meant in UTC.
    pub fn set_zone(&mut self, zone: Zone) {
        self.collected.devices.set_zone(zone);
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
            if kind.is_of_allocated_tacs() && report.rows == report.wrong_rows {
                return Err(FileError { file: file.to_owned(), fault: FileFault::NoTacs });
            }
            Ok(report)
        });
        self.incomplete |= read.is_err();
        self.report.files.0.push(read.map_err(BuildError::File)?);
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

        let Collected { tags, devices, ranges, exempt_tacs, allocated_tacs, exempt_imsis, pairs, .. } = self.collected;
        let ranges = flatten(ranges, |tag| tags.rank(tag));
        let exempt_imsis = flatten(exempt_imsis, Tag::number);
        let [exempt_tacs, allocated_tacs] = [exempt_tacs, allocated_tacs].map(sorted_unique);
        let pairs = sorted_unique(pairs);
        self.report.counts = Counts {
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
        let deadlines = devices.write(&tags, &mut file, &mut self.report)?;
        if self.options.strict && self.report.contradictions > 0 {
            let BuildReport { contradictions: count, first_contradictions: first, .. } = self.report;
            return Err(BuildError::Contradictions { count, first });
        }
        section(&mut file, &encode_intervals(&ranges))?;
        section(&mut file, &encode_tacs(&exempt_tacs))?;
        section(&mut file, &encode_tacs(&allocated_tacs))?;
        section(&mut file, &encode_intervals(&exempt_imsis))?;
        section(&mut file, &pairs::encode(pairs))?;
        file.begin().map_err(BuildError::Write)?;
        self.report.counts.deadlines = deadlines.write(&mut file)?;

        let header = Header {
            sequence: self.options.sequence,
            created_at: self.options.created_at,
            tac_as_of: if has_allocated { self.options.tac_as_of } else { 0 },
            counts: self.report.counts,
        };
        self.report.bytes = file.finish(&header).map_err(BuildError::Write)?;
        Ok(self.report)
    }
}

/// Write the next section of a file.
fn section<W: Write + Seek>(file: &mut FileWriter<'_, W>, section: &[u8]) -> Result<(), BuildError> {
    file.begin().and_then(|()| file.write_all(section)).map_err(BuildError::Write)
}

/// The right rows of all files.
#[derive(Debug, Default)]
struct Collected {
    tags: TagTable,
    devices: Devices,
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
                self.devices.push(imei, tag, until)
            }
            Row::Range { from, to, list, reason } => {
                let tag = self.tag(list, &reason);
                push(&mut self.ranges, Interval { from, to, tag }, MAX_OTHERS)
            }
            Row::Tac(tac) if kind.is_of_allocated_tacs() => push(&mut self.allocated_tacs, tac, MAX_OTHERS),
            Row::Tac(tac) => push(&mut self.exempt_tacs, tac, MAX_OTHERS),
            Row::ImsiRange { from, to } => {
                push(&mut self.exempt_imsis, Interval { from, to, tag: Tag::from_low_bits(0) }, MAX_OTHERS)
            }
            // The command line has no such files for a snapshot.
            Row::Change { .. } | Row::PairChange { .. } => Ok(()),
            Row::Pair { imei, imsi } => push(&mut self.pairs, (imei, imsi), MAX_OTHERS),
        }
    }

    fn tag(&mut self, list: List, reason: &str) -> Tag {
        self.tags.allot(list, reason).unwrap_or_else(|| {
            self.dropped_reasons += 1;
            Tag::reserved(list)
        })
    }
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
    use std::io::Cursor;

    use super::*;
    use crate::lists::Snapshot;

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
}
