//! Building a snapshot from list files.
//!
//! Its one job: collect the rows of the files, settle what contradicts, and write the snapshot. The command line calls
//! it, on a thread of its own. It never opens a file or reads a clock, and the same files in the same order give the
//! same bytes.

use std::io::{Read, Write};

use super::List;
use super::imei_set;
use super::layout::{self, Counts, Header};
use super::pairs;
use super::report::{BuildError, BuildReport, FileError, FileFault, KEPT};
use super::rows::{self, FileKind, Row, Tolerance};
use super::sorted::{Interval, encode_intervals, encode_tacs, flatten};
use super::tag::{Tag, TagTable};
use crate::UnixTime;
use crate::imei::{Imei, Imsi};

/// Most device rows: 2 GiB while building. A file that unpacks to more is damaged or hostile.
const MAX_DEVICES: usize = 1 << 28;
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
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self { strict: false, max_bad_share: 0.001, sequence: 0, created_at: 0, tac_as_of: 0 }
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

    /// Settle contradictions and write the snapshot file.
    ///
    /// # Errors
    /// [`BuildError`]; what was written by then must be thrown away.
    pub fn finish(mut self, out: &mut impl Write) -> Result<BuildReport, BuildError> {
        if self.incomplete {
            return Err(BuildError::Incomplete);
        }
        let has_allocated = !self.collected.allocated_tacs.is_empty();
        if has_allocated && self.options.tac_as_of == 0 {
            return Err(BuildError::NoTacDate);
        }
        self.settle_devices();
        if self.options.strict && self.collected.dropped_reasons > 0 {
            return Err(BuildError::DroppedReasons(self.collected.dropped_reasons));
        }
        if self.options.strict && self.report.contradictions > 0 {
            let BuildReport { contradictions: count, first_contradictions: first, .. } = self.report;
            return Err(BuildError::Contradictions { count, first });
        }

        let Collected { tags, devices, ranges, exempt_tacs, allocated_tacs, exempt_imsis, pairs, dropped_reasons } =
            self.collected;
        let ranges = flatten(ranges, |tag| tags.rank(tag));
        let exempt_imsis = flatten(exempt_imsis, Tag::number);
        let (exempt_tacs, allocated_tacs) = (sorted_unique(exempt_tacs), sorted_unique(allocated_tacs));
        let pairs = sorted_unique(pairs);
        let mut counts = Counts {
            ranges: ranges.len() as u64,
            exempt_tacs: exempt_tacs.len() as u64,
            allocated_tacs: allocated_tacs.len() as u64,
            exempt_imsis: exempt_imsis.len() as u64,
            pairs: pairs.len() as u64,
            ..Counts::default()
        };
        let imeis =
            imei_set::build(devices.into_iter().filter_map(unpack).inspect(|&(_, tag)| match tags.info(tag).list {
                List::White => counts.white += 1,
                List::Black => counts.black += 1,
                List::Grey => counts.grey += 1,
            }));

        let header = Header {
            sequence: self.options.sequence,
            created_at: self.options.created_at,
            tac_as_of: if has_allocated { self.options.tac_as_of } else { 0 },
            counts,
        };
        let sections = [
            tags.encode(),
            imeis,
            encode_intervals(&ranges),
            encode_tacs(&exempt_tacs),
            encode_tacs(&allocated_tacs),
            encode_intervals(&exempt_imsis),
            pairs::encode(pairs),
        ];
        let bytes = layout::write(out, &header, &sections).map_err(BuildError::Write)?;
        Ok(BuildReport { counts, dropped_reasons, bytes, ..self.report })
    }

    /// Sort the devices and leave one entry of each, counting what went.
    fn settle_devices(&mut self) {
        let Self { collected: Collected { devices, tags, .. }, report, .. } = self;
        devices.sort_unstable();
        let mut contradicted = None;
        devices.dedup_by(|next, kept| {
            if *next >> TAG_BITS != *kept >> TAG_BITS {
                return false;
            }
            if next == kept {
                report.duplicates += 1;
                return true;
            }
            let imei = Imei::from_number(*next >> TAG_BITS);
            if contradicted != imei {
                contradicted = imei;
                report.contradictions += 1;
                if report.first_contradictions.len() < KEPT {
                    report.first_contradictions.extend(imei);
                }
            }
            let rank = |device: u64| tags.rank(Tag::from_low_bits(device));
            if rank(*next) < rank(*kept) {
                *kept = *next;
            }
            true
        });
    }
}

/// The right rows of all files.
#[derive(Debug, Default)]
struct Collected {
    tags: TagTable,
    /// As [`pack`] packs them: eight bytes a row is what building takes.
    devices: Vec<u64>,
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
            Row::Device { imei, list, reason } => {
                let tag = self.tag(list, &reason);
                push(&mut self.devices, pack(imei, tag), MAX_DEVICES)
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

/// Bits of a packed device that are the tag; the key's 47 are above them, so that packed devices sort by key.
const TAG_BITS: u32 = 4;

fn pack(imei: Imei, tag: Tag) -> u64 {
    imei.number() << TAG_BITS | u64::from(tag.number())
}

fn unpack(device: u64) -> Option<(Imei, Tag)> {
    Imei::from_number(device >> TAG_BITS).map(|imei| (imei, Tag::from_low_bits(device)))
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
    use super::*;

    fn built(options: BuildOptions, files: &[(FileKind, &str)]) -> Result<(BuildReport, Vec<u8>), BuildError> {
        let mut builder = SnapshotBuilder::new(options);
        for (kind, text) in files {
            builder.add(*kind, "test.csv", text.as_bytes(), &mut |_| {})?;
        }
        let mut out = Vec::new();
        builder.finish(&mut out).map(|report| (report, out))
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
        let mut out = Vec::new();
        assert!(matches!(builder.finish(&mut out), Err(BuildError::Incomplete)));
        assert!(out.is_empty());
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
        let mut bytes = Vec::new();
        builder.finish(&mut bytes).unwrap();
        let snapshot = crate::lists::Snapshot::open(Box::new(bytes)).unwrap();
        let tag = snapshot.imei(Imei::from_number(35_900_200_000_077).unwrap()).unwrap();
        assert_eq!(snapshot.tag_info(tag).reason, "stolen");
        let many: Vec<String> = (0..20).map(|number| format!("why-{number}")).collect();
        assert!(!SnapshotBuilder::new(BuildOptions::default()).keep_black_reasons(&many));
    }
}
