//! The snapshot file as a container: header, section table, checksums (docs/formats.md has the layout byte by byte).
//!
//! Its one job: say what a file is made of, and find its sections with every byte accounted for. The snapshot calls
//! [`read`] and [`Layout`]; `file_writer` writes what they read. It never looks into a section.

use std::fmt;
use std::ops::Range;

use super::le::{bytes_at, u32_at, u64_at};
use crate::UnixTime;

/// First bytes of a snapshot file.
pub(super) const MAGIC: &[u8; 8] = b"EIRLISTS";
/// Version of the whole format; any change of any section's encoding raises it.
pub(super) const VERSION: u32 = 2;
/// Sections start at multiples of this: a cache line.
pub(super) const ALIGNMENT: u64 = 64;
/// Bytes that one checksum is of.
pub(super) const PIECE: usize = 1 << 20;
/// Where the place of the checksums is: after magic, version, section count, file length, sequence, two times, nine
/// counts. After it their own checksum, and zeros.
const CHECKSUMS_AT: usize = 112;
/// Where the section table starts.
pub(super) const TABLE_AT: usize = 128;
/// Bytes of one row of the section table: kind u32, zeros u32, offset u64, length u64.
const TABLE_ROW: usize = 24;
/// Where the header's CRC-32 is: after the section table.
const HEADER_CRC_AT: usize = TABLE_AT + TABLE_ROW * SectionKind::ALL.len();
/// Bytes of the header.
pub(super) const HEADER_LENGTH: usize = HEADER_CRC_AT + 4;

/// What a section holds. Every file has all of them, in this order; one may be of length 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum SectionKind {
    /// What the tags mean.
    Tags = 1,
    /// Listed IMEIs with their tags.
    Imeis = 2,
    /// Disjoint IMEI ranges with their tags.
    Ranges = 3,
    /// TACs of devices that need no verification.
    ExemptTacs = 4,
    /// TACs that the GSMA has allocated.
    AllocatedTacs = 5,
    /// Disjoint ranges of exempt IMSIs.
    ExemptImsis = 6,
    /// Pairs of IMEI and IMSI.
    Pairs = 7,
    /// Until when grey devices have access, where the national database says so.
    Deadlines = 8,
}

impl SectionKind {
    /// Every section, in the order of the file.
    pub const ALL: [Self; 8] = [
        Self::Tags,
        Self::Imeis,
        Self::Ranges,
        Self::ExemptTacs,
        Self::AllocatedTacs,
        Self::ExemptImsis,
        Self::Pairs,
        Self::Deadlines,
    ];
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tags => "tags",
            Self::Imeis => "imeis",
            Self::Ranges => "ranges",
            Self::ExemptTacs => "exempt TACs",
            Self::AllocatedTacs => "allocated TACs",
            Self::ExemptImsis => "exempt IMSIs",
            Self::Pairs => "pairs",
            Self::Deadlines => "deadlines",
        })
    }
}

/// How many entries a snapshot holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// IMEIs on the white list.
    pub white: u64,
    /// IMEIs on the black list.
    pub black: u64,
    /// IMEIs on the grey list.
    pub grey: u64,
    /// Disjoint IMEI ranges, after overlaps were resolved.
    pub ranges: u64,
    /// Exempt TACs.
    pub exempt_tacs: u64,
    /// Allocated TACs.
    pub allocated_tacs: u64,
    /// Disjoint ranges of exempt IMSIs.
    pub exempt_imsis: u64,
    /// Pairs of IMEI and IMSI.
    pub pairs: u64,
    /// IMEIs on the grey list with a deadline.
    pub deadlines: u64,
}

/// What a snapshot says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which state of the national lists this is; deltas count on from here.
    pub sequence: u64,
    /// When it was built.
    pub created_at: UnixTime,
    /// The date of the allocated-TAC list; 0 where the snapshot has none.
    pub tac_as_of: UnixTime,
    /// How many entries it holds.
    pub counts: Counts,
}

/// A section's content is not what its kind demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadSection(pub &'static str);

impl fmt::Display for BadSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadSection {}

/// Why a file was not taken as a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotError {
    /// Shorter than a header, in bytes.
    TooShort(usize),
    /// It does not begin as a snapshot does.
    BadMagic,
    /// Written by a newer or older program.
    UnknownVersion(u32),
    /// The header's checksum is wrong.
    HeaderChecksum,
    /// The file is not as long as its header says: cut, or something was appended.
    WrongLength {
        /// What the header says, in bytes.
        expected: u64,
        /// What there is, in bytes.
        found: usize,
    },
    /// The section table does not list the sections in order.
    BadTable,
    /// A section lies outside the file.
    OutOfBounds(SectionKind),
    /// The checksum of the checksums is wrong, or they are not where they must be.
    Checksums,
    /// The checksum of these bytes is wrong.
    Damaged {
        /// The first.
        from: usize,
        /// The one behind the last.
        to: usize,
    },
    /// A section's content is not what its kind demands, though its checksum is right.
    BadSection(SectionKind, BadSection),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(length) => write!(f, "too short for a snapshot: {length} bytes"),
            Self::BadMagic => f.write_str("not a snapshot file"),
            Self::UnknownVersion(version @ ..VERSION) => {
                write!(f, "snapshot format version {version}, of an older program: build it anew from the list files")
            }
            Self::UnknownVersion(version) => {
                write!(f, "snapshot format version {version}, where this program knows {VERSION}")
            }
            Self::HeaderChecksum => f.write_str("the header's checksum is wrong"),
            Self::WrongLength { expected, found } => {
                write!(f, "{found} bytes long, where the header says {expected}: cut?")
            }
            Self::BadTable => f.write_str("the section table does not list the sections in order"),
            Self::OutOfBounds(section) => write!(f, "section {section} lies outside the file"),
            Self::Checksums => f.write_str("the table of checksums is damaged"),
            Self::Damaged { from, to } => write!(f, "damaged: the checksum of bytes {from} to {to} is wrong"),
            Self::BadSection(section, fault) => write!(f, "section {section}: {fault}"),
        }
    }
}

impl std::error::Error for SnapshotError {}

/// Where each section lies in the file, in the order of [`SectionKind::ALL`].
pub(super) type Sections = [Range<usize>; SectionKind::ALL.len()];

/// What a file's header leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// What the file says of itself.
    pub header: Header,
    /// Where the sections are.
    pub sections: Sections,
    /// Where the checksums are, which are the end of the file; all before them but the header is what they are of.
    checksums: Range<usize>,
}

impl Layout {
    /// Check the pieces that these bytes of the file are in.
    pub fn check(&self, file: &[u8], places: impl IntoIterator<Item = Range<usize>>) -> Result<(), SnapshotError> {
        let mut next = 0;
        let mut places: Vec<_> = places.into_iter().filter(|place| !place.is_empty()).collect();
        places.sort_unstable_by_key(|place| place.start);
        for place in places {
            let behind = place.end.div_ceil(PIECE);
            for piece in next.max(place.start / PIECE)..behind {
                self.check_piece(file, piece)?;
            }
            next = next.max(behind);
        }
        Ok(())
    }

    /// Check the pieces from the one with byte `from` on, for about `budget` bytes; gives where to go on, `None` at the
    /// end. From 0 on, header and table of checksums are checked too.
    pub fn scrub(&self, file: &[u8], from: usize, budget: usize) -> Result<Option<usize>, SnapshotError> {
        if from == 0 && read(file)? != *self {
            return Err(SnapshotError::HeaderChecksum);
        }
        let first = from / PIECE;
        let behind = first.saturating_add(budget.div_ceil(PIECE).max(1)).min(self.checksums.start.div_ceil(PIECE));
        (first..behind).try_for_each(|piece| self.check_piece(file, piece))?;
        Ok(Some(behind.max(first).saturating_mul(PIECE)).filter(|&next| next < self.checksums.start))
    }

    fn check_piece(&self, file: &[u8], piece: usize) -> Result<(), SnapshotError> {
        let from = (piece * PIECE).max(HEADER_LENGTH);
        let to = (piece * PIECE).saturating_add(PIECE).min(self.checksums.start);
        let expected = u32_at(file, self.checksums.start + 4 * piece);
        match file.get(from..to) {
            Some(octets) if expected == Some(crc32fast::hash(octets)) => Ok(()),
            _ => Err(SnapshotError::Damaged { from, to }),
        }
    }
}

/// The header and the places of the sections of a file. Only the header and the table of checksums are checked.
pub(super) fn read(file: &[u8]) -> Result<Layout, SnapshotError> {
    let too_short = SnapshotError::TooShort(file.len());
    if bytes_at(file, 0).ok_or(too_short)? != MAGIC {
        return Err(SnapshotError::BadMagic);
    }
    let version = u32_at(file, 8).ok_or(too_short)?;
    if version != VERSION {
        return Err(SnapshotError::UnknownVersion(version));
    }
    let (head, crc) = file.split_at_checked(HEADER_CRC_AT).ok_or(too_short)?;
    if u32_at(crc, 0).ok_or(too_short)? != crc32fast::hash(head) {
        return Err(SnapshotError::HeaderChecksum);
    }
    let (header, expected) = read_header(head).ok_or(too_short)?;
    if expected != file.len() as u64 {
        return Err(SnapshotError::WrongLength { expected, found: file.len() });
    }

    let checksums_at = u64_at(head, CHECKSUMS_AT).and_then(|at| usize::try_from(at).ok());
    let checksums = checksums_at.and_then(|at| Some((at, file.get(at..)?))).ok_or(SnapshotError::Checksums)?;
    let (checksums_at, checksums) = checksums;
    if checksums_at <= HEADER_LENGTH
        || checksums.len() != 4 * checksums_at.div_ceil(PIECE)
        || u32_at(head, CHECKSUMS_AT + 8) != Some(crc32fast::hash(checksums))
    {
        return Err(SnapshotError::Checksums);
    }

    let mut sections: Sections = Default::default();
    if u32_at(head, 12) != Some(sections.len() as u32) {
        return Err(SnapshotError::BadTable);
    }
    let (mut row_at, mut end) = (TABLE_AT, HEADER_LENGTH);
    for (kind, place) in SectionKind::ALL.into_iter().zip(&mut sections) {
        if u32_at(head, row_at) != Some(kind as u32) {
            return Err(SnapshotError::BadTable);
        }
        let found = read_place(head, row_at).filter(|found| found.start >= end && found.end <= checksums_at);
        *place = found.ok_or(SnapshotError::OutOfBounds(kind))?;
        end = place.end;
        row_at += TABLE_ROW;
    }
    Ok(Layout { header, sections, checksums: checksums_at..file.len() })
}

/// What the header says, and the length of the file as it says it.
fn read_header(head: &[u8]) -> Option<(Header, u64)> {
    let count = |index: usize| u64_at(head, 40 + 8 * index);
    let counts = Counts {
        white: count(0)?,
        black: count(1)?,
        grey: count(2)?,
        ranges: count(3)?,
        exempt_tacs: count(4)?,
        allocated_tacs: count(5)?,
        exempt_imsis: count(6)?,
        pairs: count(7)?,
        deadlines: count(8)?,
    };
    let sequence = u64_at(head, 24)?;
    let header = Header { sequence, created_at: u32_at(head, 32)?, tac_as_of: u32_at(head, 36)?, counts };
    Some((header, u64_at(head, 16)?))
}

/// Where the section of the table's row at `row_at` says it lies; `None` where that overflows.
fn read_place(head: &[u8], row_at: usize) -> Option<Range<usize>> {
    let offset = usize::try_from(u64_at(head, row_at + 8)?).ok()?;
    let length = usize::try_from(u64_at(head, row_at + 16)?).ok()?;
    Some(offset..offset.checked_add(length)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::super::file_writer::FileWriter;
    use super::*;

    const HEADER: Header = Header { sequence: 7, created_at: 1_700_000_000, tac_as_of: 0, counts: COUNTS };
    const COUNTS: Counts = Counts {
        white: 1,
        black: 2,
        grey: 3,
        ranges: 4,
        exempt_tacs: 5,
        allocated_tacs: 6,
        exempt_imsis: 7,
        pairs: 8,
        deadlines: 9,
    };
    const LENGTHS: [usize; 8] = [1, 0, 64, 65, 0, 3, 2, 5];

    fn sample_of(lengths: [usize; 8]) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        let mut writer = FileWriter::new(&mut file);
        for length in lengths {
            writer.begin().unwrap();
            for part in vec![0xa5; length].chunks(1 << 19 | 3) {
                writer.write_all(part).unwrap();
            }
        }
        let length = writer.finish(&HEADER).unwrap();
        assert_eq!(length, file.get_ref().len() as u64);
        file.into_inner()
    }

    fn sample() -> Vec<u8> {
        sample_of(LENGTHS)
    }

    fn scrubbed(file: &[u8]) -> Result<(), SnapshotError> {
        read(file)?.scrub(file, 0, usize::MAX).map(|next| assert_eq!(next, None))
    }

    /// The file with its header changed and the header's checksum made right again.
    fn crafted(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut file = sample();
        change(&mut file[..HEADER_CRC_AT]);
        let crc = crc32fast::hash(&file[..HEADER_CRC_AT]);
        file[HEADER_CRC_AT..HEADER_LENGTH].copy_from_slice(&crc.to_le_bytes());
        file
    }

    #[test]
    fn what_was_written_is_read() {
        for lengths in [LENGTHS, [PIECE - HEADER_LENGTH, 1, 0, PIECE, 3 * PIECE + 5, 64, 0, PIECE - 64], [0; 8]] {
            let file = sample_of(lengths);
            let layout = read(&file).unwrap();
            assert_eq!(layout.header, HEADER);
            assert_eq!(layout.sections.each_ref().map(Range::len), lengths);
            for place in &layout.sections {
                assert_eq!(place.start % ALIGNMENT as usize, 0);
                assert!(file[place.clone()].iter().all(|&byte| byte == 0xa5));
            }
            scrubbed(&file).unwrap();
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let file = sample();
        assert_eq!(read(&file[..7]), Err(SnapshotError::TooShort(7)));
        assert_eq!(read(&file[..100]), Err(SnapshotError::TooShort(100)));
        assert_eq!(read(b"PK\x03\x04 something else"), Err(SnapshotError::BadMagic));
        assert_eq!(read(&crafted(|head| head[8] = 9)), Err(SnapshotError::UnknownVersion(9)));
        let old = read(&crafted(|head| head[8] = 1)).unwrap_err().to_string();
        assert_eq!(old, "snapshot format version 1, of an older program: build it anew from the list files");
        let (expected, found) = (file.len() as u64, file.len() - 1);
        assert_eq!(read(&file[..found]), Err(SnapshotError::WrongLength { expected, found }));
        let flipped = |at: usize| {
            let mut file = file.clone();
            file[at] ^= 1;
            scrubbed(&file)
        };
        assert_eq!(flipped(30), Err(SnapshotError::HeaderChecksum));
        assert_eq!(flipped(file.len() - 1), Err(SnapshotError::Checksums));
        let damaged = Err(SnapshotError::Damaged { from: HEADER_LENGTH, to: file.len() - 4 });
        assert_eq!(flipped(HEADER_LENGTH), damaged);
        assert_eq!(flipped(file.len() - 5), damaged);
    }

    #[test]
    fn only_the_pieces_asked_for_are_checked_and_a_scrub_finds_the_others() {
        let mut file = sample_of([3 * PIECE, 64, 2 * PIECE, 0, 0, 0, 0, 64]);
        let layout = read(&file).unwrap();
        file[PIECE + 7] ^= 1;
        let [first, second, .., last] = layout.sections.clone();
        assert_eq!(layout.check(&file, [last, 0..0, second, PIECE + 8..PIECE + 8]), Ok(()));
        let damaged = Err(SnapshotError::Damaged { from: PIECE, to: 2 * PIECE });
        assert_eq!(layout.check(&file, [first]), damaged);
        assert_eq!(layout.scrub(&file, 0, 1), Ok(Some(PIECE)));
        assert_eq!(layout.scrub(&file, PIECE, 1).map(|_| ()), damaged);
        assert_eq!(layout.scrub(&file, 2 * PIECE + 5, 2 * PIECE), Ok(Some(4 * PIECE)));
        assert_eq!(layout.scrub(&file, 4 * PIECE, usize::MAX), Ok(None));
        assert_eq!(layout.scrub(&file, usize::MAX, usize::MAX), Ok(None));
    }

    #[test]
    fn a_crafted_table_cannot_reach_outside_the_file() {
        let row = TABLE_AT + TABLE_ROW;
        for (at, value) in
            [(row + 8, u64::MAX), (row + 16, u64::MAX), (row + 8, 1 << 40), (row + 8, 0), (row + 16, 1 << 40)]
        {
            let file = crafted(|head| head[at..at + 8].copy_from_slice(&value.to_le_bytes()));
            assert_eq!(read(&file), Err(SnapshotError::OutOfBounds(SectionKind::Imeis)));
        }
        for at in [0, 1 << 40, u64::MAX, sample().len() as u64] {
            let file = crafted(|head| head[CHECKSUMS_AT..CHECKSUMS_AT + 8].copy_from_slice(&at.to_le_bytes()));
            assert_eq!(read(&file), Err(SnapshotError::Checksums));
        }
        assert_eq!(read(&crafted(|head| head[row] = 1)), Err(SnapshotError::BadTable));
        assert_eq!(read(&crafted(|head| head[12] = 7)), Err(SnapshotError::BadTable));
    }
}
