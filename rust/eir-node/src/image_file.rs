//! The image as a file: read at start, written whole or not at all while the node answers.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;

use eir_core::grey::GreyTable;
use eir_core::image::{self, Covered};
use eir_core::lists::Overlay;

use crate::pieces::{PIECE, Pieces};

/// What became of an image at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There is none.
    None,
    /// Its tables are in memory.
    Loaded(Covered),
    /// It is not sound, or cannot be read, and nothing of it was taken.
    Damaged(String),
}

/// Puts an image's tables into new ones, if it is there and sound.
#[must_use]
pub fn load(path: &Path, grey: &GreyTable, overlay: &Overlay) -> Found {
    match fs::read(path) {
        Ok(octets) => match image::read(&octets, grey, overlay) {
            Ok(covered) => Found::Loaded(covered),
            Err(error) => Found::Damaged(error.to_string()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Found::None,
        Err(error) => Found::Damaged(error.to_string()),
    }
}

/// Writes an image beside its place, calls `before_it_counts`, and renames it into its place.
///
/// # Errors
/// Where it cannot be written, or `before_it_counts` fails; what was at `path` before is then still there.
pub fn write(
    path: &Path,
    covered: &Covered,
    grey: &GreyTable,
    overlay: &Overlay,
    before_it_counts: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let written = write_part(&part, covered, grey, overlay).and_then(|()| {
        before_it_counts()?;
        fs::rename(&part, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    });
    if written.is_err() {
        // Nothing more can be done where even that fails.
        let _ = fs::remove_file(&part);
    }
    written
}

fn write_part(part: &Path, covered: &Covered, grey: &GreyTable, overlay: &Overlay) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(PIECE, Pieces(File::create(part)?));
    image::write(&mut out, covered, grey, overlay)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.0.sync_all()
}
