//! The lists: what the national database and the operator say of devices.
//!
//! List files go in at [`SnapshotBuilder`], which writes one immutable file; [`Snapshot`] answers from that file where
//! it is mapped. `docs/formats.md` describes both. Nothing here decides: the verdict asks and applies policy.

mod builder;
mod compare;
mod deadlines;
mod delta;
mod deltas;
mod devices;
mod export;
mod feed;
mod file_writer;
mod foreign;
mod formats;
pub mod imei_set;
mod layout;
pub(crate) mod le;
mod overlay;
mod pairs;
mod report;
mod rows;
mod runs;
mod snapshot;
mod sorted;
mod tag;
mod utf16;
mod zone;

use std::fmt;

pub use builder::{BuildOptions, SnapshotBuilder};
pub use compare::{Comparison, DeltaKind, Said, compare, write_delta};
pub use delta::{Delta, DeltaReader};
pub use deltas::{Change, Deltas, Entry, TooMany};
pub use export::{ExportKind, export};
pub use formats::FileKind;
pub use layout::{BadSection, Counts, Header, SectionKind, SnapshotError};
pub use overlay::{Overlay, OverlayEntry};
pub use report::{BadRow, BuildError, BuildReport, FileError, FileFault, FileReport, FileReports, KEPT, WrongRow};
pub use runs::Runs;
pub use snapshot::Snapshot;
pub use tag::{MAX_REASON, Tag, TagInfo, TagTable, parse_reason};
pub use zone::{LocalDay, Zone, parse_day};

/// One of the three national lists. The words are the same in files, metrics, logs and the CLI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum List {
    /// Verified: use without limit.
    White = 0,
    /// Blocked.
    Black = 1,
    /// Temporary access, timed by the national database.
    Grey = 2,
}

impl List {
    /// `white`, `black` or `grey`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::White => "white",
            Self::Black => "black",
            Self::Grey => "grey",
        }
    }

    /// The list of that name, in lower case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::White, Self::Black, Self::Grey].into_iter().find(|list| list.name() == name)
    }

    /// The list of that number in files.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::White, Self::Black, Self::Grey].into_iter().find(|list| *list as u8 == number)
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
