//! What a build tells whoever started it: how many rows of what, which were wrong, and why a file was refused.
//!
//! Its one job: the words. `rows` and `builder` fill these in; the command line shows them. It never holds or shows an
//! IMSI: an IMEI names a device, an IMSI a person.

use std::fmt;
use std::io;

use super::Counts;
use super::formats::FileKind;
use crate::imei::Imei;

/// How many wrong rows and contradictory IMEIs are kept in full; all are counted.
pub const KEPT: usize = 100;

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrongRow {
    /// It has this many fields, and the header another number.
    Fields(usize),
    /// The change is neither `set` nor `remove`.
    ChangeType,
    /// The change is none that DIRBS knows.
    DirbsChangeType,
    /// The IMEI is not 14 to 16 digits, or all zero.
    Imei,
    /// The IMEI has signs that networks record and that no IMEI has: `A` to `F`, `*` and `#`.
    NotDecimal,
    /// The day of the first sighting is no date.
    FirstSeen,
    /// The TAC is not eight digits.
    Tac,
    /// The IMSI is not 6 to 15 digits.
    Imsi,
    /// The list is not one that this kind of file may name.
    List,
    /// The reason is not at most 32 of `a-z`, `0-9`, `-`.
    Reason,
    /// The last day with access is no date.
    Until,
    /// A last day with access of a device that is not on the grey list.
    UntilOfOthers,
    /// An end of the range is neither an IMEI of 14 to 16 digits nor a TAC of eight.
    RangeEnd,
    /// An end of the range is not 5 to 15 digits of an IMSI.
    ImsiRangeEnd,
    /// One end of the range is a TAC and the other an IMEI.
    MixedRange,
    /// The range ends before it starts.
    Backwards,
}

impl fmt::Display for WrongRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fields(found) => write!(f, "{found} fields, not as many as the header has"),
            Self::ChangeType => f.write_str("not a change: set or remove"),
            Self::DirbsChangeType => f.write_str("not a change that DIRBS knows"),
            Self::NotDecimal => f.write_str("not an IMEI: signs that are no digits"),
            Self::FirstSeen => f.write_str("not a date of a first sighting: YYYYMMDD or YYYY-MM-DD"),
            Self::Imei => f.write_str("not an IMEI: 14 to 16 digits, not all zero"),
            Self::Tac => f.write_str("not a TAC: 8 digits"),
            Self::Imsi => f.write_str("not an IMSI: 6 to 15 digits"),
            Self::List => f.write_str("not a list that may stand here"),
            Self::Reason => f.write_str("not a reason: at most 32 of a-z, 0-9 and -"),
            Self::Until => f.write_str("not a date until which there is access: YYYYMMDD or YYYY-MM-DD"),
            Self::UntilOfOthers => f.write_str("a date until which there is access, and not on the grey list"),
            Self::RangeEnd => f.write_str("not the end of a range: an IMEI of 14 to 16 digits or a TAC of 8"),
            Self::ImsiRangeEnd => f.write_str("not the end of a range of IMSIs: 5 to 15 digits"),
            Self::MixedRange => f.write_str("a range from a TAC to an IMEI, or the other way round"),
            Self::Backwards => f.write_str("the range ends before it starts"),
        }
    }
}

/// A wrong row and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// The file's name, as given to the builder.
    pub file: String,
    /// The line on which the row starts, from 1.
    pub line: u64,
    /// What is wrong.
    pub reason: WrongRow,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.reason)
    }
}

/// What was read of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// The file's name, as given to the builder.
    pub file: String,
    /// What kind of file it is.
    pub kind: FileKind,
    /// Rows, right or wrong, without header and comments.
    pub rows: u64,
    /// Wrong rows.
    pub wrong_rows: u64,
    /// The first [`KEPT`] wrong rows.
    pub first_wrong_rows: Vec<BadRow>,
    /// Rows whose IMEI is not decimal, which are no [`wrong_rows`](Self::wrong_rows): such files have them.
    pub not_decimal: u64,
    /// Rows that are right and that say nothing of the lists, as their kind has it.
    pub left_out: u64,
    /// IMEIs of 15 digits whose last is neither 0 nor the check digit. They are taken all the same.
    pub check_digit_mismatches: u64,
}

/// What was read of several files, in the order in which they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileReports(pub Vec<FileReport>);

impl FileReports {
    /// Rows, right or wrong.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.sum(|file| file.rows)
    }

    /// Wrong rows.
    #[must_use]
    pub fn wrong_rows(&self) -> u64 {
        self.sum(|file| file.wrong_rows)
    }

    /// The first [`KEPT`] wrong rows.
    pub fn first_wrong_rows(&self) -> impl Iterator<Item = &BadRow> {
        self.0.iter().flat_map(|file| &file.first_wrong_rows).take(KEPT)
    }

    /// Rows whose IMEI is not decimal.
    #[must_use]
    pub fn not_decimal(&self) -> u64 {
        self.sum(|file| file.not_decimal)
    }

    /// Rows that were left out.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.sum(|file| file.left_out)
    }

    /// Check-digit mismatches.
    #[must_use]
    pub fn check_digit_mismatches(&self) -> u64 {
        self.sum(|file| file.check_digit_mismatches)
    }

    fn sum(&self, count: impl Fn(&FileReport) -> u64) -> u64 {
        self.0.iter().map(count).sum()
    }
}

/// Why a whole file was refused.
#[derive(Debug)]
pub enum FileFault {
    /// Reading or decompressing failed: a damaged or cut gzip or zstd file, or the disk.
    Read(io::Error),
    /// There is not even a header.
    Empty,
    /// The header lacks columns that this kind of file needs, or has one twice.
    Header {
        /// The kind the file was given as.
        kind: FileKind,
        /// The header line's start, or what is wrong with it.
        found: String,
    },
    /// A record is longer than 64 KiB: a quote that is not closed, or no list file at all.
    LongRecord {
        /// The line on which it starts.
        line: u64,
    },
    /// A record goes on in the next line: a quote that is not closed may have taken any number of rows into it.
    SplitRecord {
        /// The line on which it starts.
        line: u64,
    },
    /// A record has more than 256 fields.
    ManyFields {
        /// The line on which it starts.
        line: u64,
    },
    /// There is more text in it than any list has.
    Oversized,
    /// It brings more rows of its kind than a snapshot takes.
    TooManyRows,
    /// It brings more different dates until which there is access than a snapshot takes.
    TooManyDeadlines,
    /// What does not fit into memory cannot be put aside.
    Aside(io::Error),
    /// It holds no TAC, and it is a list of allocated ones.
    NoTacs,
    /// Its first wrong row, in a strict build.
    WrongRow(BadRow),
    /// More wrong rows than `max_bad_share` allows.
    WrongRows(Box<FileReport>),
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "cannot be read: {error}"),
            Self::Empty => f.write_str("is empty; it needs at least a header"),
            Self::Header { kind, found } => {
                write!(f, "is no file of {kind}: its header must have {}", kind.columns().join(","))?;
                if !kind.others().is_empty() {
                    write!(f, " and not {}", kind.others().join(","))?;
                }
                write!(f, "; found {found}")
            }
            Self::LongRecord { line } => write!(f, "line {line}: a row longer than 64 KiB: a quote not closed?"),
            Self::SplitRecord { line } => {
                write!(f, "line {line}: a row that goes on in the next line: a quote not closed?")
            }
            Self::ManyFields { line } => write!(f, "line {line}: a row of more than 256 fields"),
            Self::Oversized => f.write_str("holds more text than any list has"),
            Self::TooManyRows => f.write_str("brings more rows than are taken"),
            Self::TooManyDeadlines => f.write_str("brings more than 4096 different dates until which there is access"),
            Self::Aside(error) => write!(f, "its rows cannot be put aside while the snapshot is built: {error}"),
            Self::NoTacs => f.write_str("holds no TAC; with it every device would be unallocated"),
            Self::WrongRow(row) => write!(f, "line {}: {}", row.line, row.reason),
            Self::WrongRows(report) => {
                write!(f, "{} of {} rows are wrong", report.wrong_rows, report.rows)?;
                report.first_wrong_rows.first().map_or(Ok(()), |row| write!(f, "; line {}: {}", row.line, row.reason))
            }
        }
    }
}

/// A file that was refused.
#[derive(Debug)]
pub struct FileError {
    /// The file's name, as given to the builder.
    pub file: String,
    /// Why.
    pub fault: FileFault,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.fault)
    }
}

impl std::error::Error for FileError {}

/// Why no snapshot was built.
#[derive(Debug)]
pub enum BuildError {
    /// A file was refused.
    File(FileError),
    /// A file was refused before, so the lists are not whole.
    Incomplete,
    /// There is an allocated-TAC list, but its date was not given.
    NoTacDate,
    /// Contradictory entries for IMEIs, in a strict build.
    Contradictions {
        /// How many IMEIs.
        count: u64,
        /// The first [`KEPT`] of them.
        first: Vec<Imei>,
    },
    /// Rows whose reason had no place any more, in a strict build.
    DroppedReasons(u64),
    /// What was put aside while the files were read is not to be had, or no more can be put there.
    Aside(io::Error),
    /// Writing the snapshot failed.
    Write(io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Incomplete => f.write_str("a file was refused, so there is no whole list to write"),
            Self::NoTacDate => f.write_str("the date of the allocated-TAC list is not given"),
            Self::Contradictions { count, first } => {
                write!(f, "{count} IMEIs have contradictory entries")?;
                first.first().map_or(Ok(()), |imei| write!(f, ", the first of them {imei}"))
            }
            Self::DroppedReasons(count) => write!(f, "{count} rows would lose their reason: a snapshot holds 13"),
            Self::Aside(error) => write!(f, "rows that were put aside cannot be sorted: {error}"),
            Self::Write(error) => write!(f, "the snapshot cannot be written: {error}"),
        }
    }
}

impl std::error::Error for BuildError {}

/// What a build did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildReport {
    /// What was read.
    pub files: FileReports,
    /// What the snapshot holds.
    pub counts: Counts,
    /// Rows that said of an IMEI what another row had said.
    pub duplicates: u64,
    /// IMEIs with entries that contradict each other. Black won over white, white over grey.
    pub contradictions: u64,
    /// The first [`KEPT`] of them, sorted.
    pub first_contradictions: Vec<Imei>,
    /// Rows whose reason was dropped because 13 others had been met before.
    pub dropped_reasons: u64,
    /// Length of the snapshot file in bytes.
    pub bytes: u64,
}
