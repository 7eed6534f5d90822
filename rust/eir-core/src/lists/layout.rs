//! The snapshot file as a container: header, section table, checksums (docs/formats.md has the layout byte by byte).
//!
//! Its one job: write sections into a file and find them again, with every byte accounted for. The builder calls
//! [`write`], the snapshot calls [`read`]. It never looks into a section.

use std::fmt;
use std::io::{self, Write};
use std::ops::Range;

use super::le::{bytes_at, u32_at, u64_at};
use crate::UnixTime;

/// First bytes of a snapshot file.
const MAGIC: &[u8; 8] = b"EIRLISTS";
/// Version of the whole format; any change of any section's encoding raises it.
const VERSION: u32 = 2;
/// Sections start at multiples of this: a cache line.
const ALIGNMENT: usize = 64;
/// Where the section table starts: after magic, version, section count, file length, sequence, two times, eight counts.
const TABLE_AT: usize = 104;
/// Bytes of one row of the section table: kind u32, CRC-32 u32, offset u64, length u64.
const TABLE_ROW: usize = 24;
/// Where the header's CRC-32 is: after the section table.
const HEADER_CRC_AT: usize = TABLE_AT + TABLE_ROW * SectionKind::ALL.len();
/// Bytes of the header.
const HEADER_LENGTH: usize = HEADER_CRC_AT + 4;

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
}

impl SectionKind {
    /// Every section, in the order of the file.
    pub const ALL: [Self; 7] =
        [Self::Tags, Self::Imeis, Self::Ranges, Self::ExemptTacs, Self::AllocatedTacs, Self::ExemptImsis, Self::Pairs];
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
    /// The section table does not list the seven sections in order.
    BadTable,
    /// A section lies outside the file.
    OutOfBounds(SectionKind),
    /// A section's checksum is wrong.
    SectionChecksum(SectionKind),
    /// A section's content is not what its kind demands, though its checksum is right.
    BadSection(SectionKind, BadSection),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort(length) => write!(f, "too short for a snapshot: {length} bytes"),
            Self::BadMagic => f.write_str("not a snapshot file"),
            Self::UnknownVersion(version) => {
                write!(f, "snapshot format version {version}, where this program knows {VERSION}")
            }
            Self::HeaderChecksum => f.write_str("the header's checksum is wrong"),
            Self::WrongLength { expected, found } => {
                write!(f, "{found} bytes long, where the header says {expected}: cut?")
            }
            Self::BadTable => f.write_str("the section table does not list the sections in order"),
            Self::OutOfBounds(section) => write!(f, "section {section} lies outside the file"),
            Self::SectionChecksum(section) => write!(f, "the checksum of section {section} is wrong"),
            Self::BadSection(section, fault) => write!(f, "section {section}: {fault}"),
        }
    }
}

impl std::error::Error for SnapshotError {}

/// Where each section lies in the file, in the order of [`SectionKind::ALL`].
pub(super) type Sections = [Range<usize>; SectionKind::ALL.len()];

/// Write a snapshot file of the sections' contents, given in the order of [`SectionKind::ALL`]; gives its length in
/// bytes.
pub(super) fn write(
    out: &mut impl Write,
    header: &Header,
    sections: &[Vec<u8>; SectionKind::ALL.len()],
) -> io::Result<u64> {
    let mut table = Vec::with_capacity(TABLE_ROW * SectionKind::ALL.len());
    let mut end = HEADER_LENGTH;
    for (kind, section) in SectionKind::ALL.into_iter().zip(sections) {
        let offset = end.next_multiple_of(ALIGNMENT);
        table.extend((kind as u32).to_le_bytes());
        table.extend(crc32fast::hash(section).to_le_bytes());
        table.extend((offset as u64).to_le_bytes());
        table.extend((section.len() as u64).to_le_bytes());
        end = offset + section.len();
    }

    let mut head = Vec::with_capacity(HEADER_LENGTH);
    head.extend(MAGIC);
    head.extend(VERSION.to_le_bytes());
    head.extend((SectionKind::ALL.len() as u32).to_le_bytes());
    head.extend((end as u64).to_le_bytes());
    head.extend(header.sequence.to_le_bytes());
    head.extend(header.created_at.to_le_bytes());
    head.extend(header.tac_as_of.to_le_bytes());
    let Counts { white, black, grey, ranges, exempt_tacs, allocated_tacs, exempt_imsis, pairs } = header.counts;
    for count in [white, black, grey, ranges, exempt_tacs, allocated_tacs, exempt_imsis, pairs] {
        head.extend(count.to_le_bytes());
    }
    head.extend(table);
    head.extend(crc32fast::hash(&head).to_le_bytes());

    out.write_all(&head)?;
    let mut at = head.len();
    for section in sections {
        let gap = at.next_multiple_of(ALIGNMENT) - at;
        out.write_all([0; ALIGNMENT].get(..gap).unwrap_or_default())?;
        out.write_all(section)?;
        at += gap + section.len();
    }
    out.flush()?;
    Ok(at as u64)
}

/// The header and the places of the sections of a file, whose checksums are all right.
pub(super) fn read(file: &[u8]) -> Result<(Header, Sections), SnapshotError> {
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

    let mut sections: Sections = Default::default();
    if u32_at(head, 12) != Some(sections.len() as u32) {
        return Err(SnapshotError::BadTable);
    }
    let mut row_at = TABLE_AT;
    for (kind, place) in SectionKind::ALL.into_iter().zip(&mut sections) {
        if u32_at(head, row_at) != Some(kind as u32) {
            return Err(SnapshotError::BadTable);
        }
        *place = read_place(head, row_at).ok_or(SnapshotError::OutOfBounds(kind))?;
        let section = file.get(place.clone()).ok_or(SnapshotError::OutOfBounds(kind))?;
        if u32_at(head, row_at + 4) != Some(crc32fast::hash(section)) {
            return Err(SnapshotError::SectionChecksum(kind));
        }
        row_at += TABLE_ROW;
    }
    Ok((header, sections))
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
    use super::*;

    const HEADER: Header = Header { sequence: 7, created_at: 1_700_000_000, tac_as_of: 0, counts: COUNTS };
    const COUNTS: Counts =
        Counts { white: 1, black: 2, grey: 3, ranges: 4, exempt_tacs: 5, allocated_tacs: 6, exempt_imsis: 7, pairs: 8 };

    fn sample() -> Vec<u8> {
        let mut file = Vec::new();
        let sections = [1, 0, 64, 65, 0, 3, 2].map(|length| vec![0xa5; length]);
        assert_eq!(write(&mut file, &HEADER, &sections).unwrap(), file.len() as u64);
        file
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
        let file = sample();
        let (header, sections) = read(&file).unwrap();
        assert_eq!(header, HEADER);
        assert_eq!(sections.each_ref().map(Range::len), [1, 0, 64, 65, 0, 3, 2]);
        for place in &sections {
            assert_eq!(place.start % ALIGNMENT, 0);
            assert!(file[place.clone()].iter().all(|&byte| byte == 0xa5));
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let file = sample();
        assert_eq!(read(&file[..7]), Err(SnapshotError::TooShort(7)));
        assert_eq!(read(&file[..100]), Err(SnapshotError::TooShort(100)));
        assert_eq!(read(b"PK\x03\x04 something else"), Err(SnapshotError::BadMagic));
        assert_eq!(read(&crafted(|head| head[8] = 9)), Err(SnapshotError::UnknownVersion(9)));
        let (expected, found) = (file.len() as u64, file.len() - 1);
        assert_eq!(read(&file[..found]), Err(SnapshotError::WrongLength { expected, found }));
        let mut flipped = file.clone();
        flipped[30] ^= 1;
        assert_eq!(read(&flipped), Err(SnapshotError::HeaderChecksum));
        let mut flipped = file;
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        assert_eq!(read(&flipped), Err(SnapshotError::SectionChecksum(SectionKind::Pairs)));
    }

    #[test]
    fn a_crafted_table_cannot_reach_outside_the_file() {
        let row = TABLE_AT + TABLE_ROW;
        for (at, value) in [(row + 8, u64::MAX), (row + 16, u64::MAX), (row + 8, 1 << 40), (row + 16, 1 << 40)] {
            let file = crafted(|head| head[at..at + 8].copy_from_slice(&value.to_le_bytes()));
            assert_eq!(read(&file), Err(SnapshotError::OutOfBounds(SectionKind::Imeis)));
        }
        assert_eq!(read(&crafted(|head| head[row] = 1)), Err(SnapshotError::BadTable));
        assert_eq!(read(&crafted(|head| head[12] = 8)), Err(SnapshotError::BadTable));
    }
}
