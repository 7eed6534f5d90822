//! Snapshots as files: mapped for the node, written whole or not at all by the builder.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use eir_core::lists::{BuildError, BuildReport, Snapshot, SnapshotBuilder, SnapshotError};
use memmap2::Mmap;

/// Why a snapshot file is not taken.
#[derive(Debug)]
pub enum SnapshotFileError {
    /// It cannot be read.
    Io(io::Error),
    /// It is not a sound snapshot.
    Unsound(SnapshotError),
}

impl std::fmt::Display for SnapshotFileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Unsound(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SnapshotFileError {}

/// Maps a snapshot file and checks it.
///
/// # Errors
/// Where the file cannot be read, or is no sound snapshot.
pub fn open(path: &Path) -> Result<Snapshot, SnapshotFileError> {
    // Asked before it is opened: to open a pipe is to wait for who writes into it.
    if !fs::metadata(path).map_err(SnapshotFileError::Io)?.is_file() {
        return Err(SnapshotFileError::Io(io::Error::other("not a regular file")));
    }
    let file = File::open(path).map_err(SnapshotFileError::Io)?;
    // SAFETY: the file is only ever replaced by a rename, as `write` below does, never written in place; the operator's
    // guide says so. Who truncates it under a node ends the node with SIGBUS.
    let map = unsafe { Mmap::map(&file) }.map_err(SnapshotFileError::Io)?;
    Snapshot::open(Box::new(map)).map_err(SnapshotFileError::Unsound)
}

/// Finishes a build into a file that is there whole, on the disk, or not at all.
///
/// # Errors
/// [`BuildError`]; what was at `path` before is then still there.
pub fn write(builder: SnapshotBuilder, path: &Path) -> Result<BuildReport, BuildError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = write_part(builder, &part).and_then(|report| {
        fs::rename(&part, path).map_err(BuildError::Write)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(BuildError::Write)?;
        Ok(report)
    });
    if written.is_err() {
        // Nothing more can be done where even that fails.
        let _ = fs::remove_file(&part);
    }
    written
}

fn write_part(builder: SnapshotBuilder, part: &Path) -> Result<BuildReport, BuildError> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(part).map_err(BuildError::Write)?);
    let report = builder.finish(&mut out)?;
    out.flush().map_err(BuildError::Write)?;
    out.get_ref().sync_all().map_err(BuildError::Write)?;
    Ok(report)
}

#[cfg(test)]
mod tests {
    use eir_core::imei::Imei;
    use eir_core::lists::BuildOptions;

    use super::*;

    fn directory(name: &str) -> std::path::PathBuf {
        let directory = std::env::temp_dir().join(format!("eir-snapshot-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn a_build_is_written_whole_or_leaves_the_old_file() {
        let directory = directory("write");
        let path = directory.join("lists.eirs");
        let mut builder = SnapshotBuilder::new(BuildOptions { sequence: 7, ..BuildOptions::default() });
        builder.devices("a", &b"imei,list,reason\n35000000000001,white,\n"[..], &mut |_| ()).unwrap();
        write(builder, &path).unwrap();
        let mut refused = SnapshotBuilder::new(BuildOptions::default());
        refused.devices("b", &b"nonsense\n"[..], &mut |_| ()).unwrap_err();
        write(refused, &path).unwrap_err();
        let snapshot = open(&path).unwrap();
        assert_eq!(snapshot.header().sequence, 7);
        assert!(snapshot.imei(Imei::from_number(35_000_000_000_001).unwrap()).is_some());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        let directory = directory("refuse");
        for (name, bytes) in [("empty", &b""[..]), ("text", b"imei,list,reason\n")] {
            fs::write(directory.join(name), bytes).unwrap();
            assert!(open(&directory.join(name)).is_err());
        }
        assert!(open(&directory).is_err());
        assert!(open(&directory.join("none")).is_err());
        fs::remove_dir_all(directory).unwrap();
    }
}
