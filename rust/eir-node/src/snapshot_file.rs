//! Snapshots as files: mapped for the node, written whole or not at all by the builder.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use eir_core::lists::{BuildError, BuildReport, Runs, Snapshot, SnapshotBuilder, SnapshotError};
use memmap2::{Advice, Mmap};

use crate::pieces::Pieces;

/// How the names of files end that are being written.
const PART: &str = ".part";

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

/// Maps a snapshot file and checks it: the whole of it, or only what is small and leads to the rest, which takes no
/// longer for a large file than for a small one.
///
/// # Errors
/// Where the file cannot be read, or is no sound snapshot.
pub fn open(path: &Path, whole: bool) -> Result<Snapshot, SnapshotFileError> {
    // Asked before it is opened: to open a pipe is to wait for who writes into it.
    if !fs::metadata(path).map_err(SnapshotFileError::Io)?.is_file() {
        return Err(SnapshotFileError::Io(io::Error::other("not a regular file")));
    }
    let file = File::open(path).map_err(SnapshotFileError::Io)?;
    let map = map(&file).map_err(SnapshotFileError::Io)?;
    let snapshot = Snapshot::open(Box::new(map)).map_err(SnapshotFileError::Unsound)?;
    if whole {
        snapshot.verify().map_err(SnapshotFileError::Unsound)?;
    }
    Ok(snapshot)
}

/// Maps a file that is only ever replaced by a rename, as `write` below does, never written in place; the operator's
/// guide says so. Who truncates it under a node ends the node with SIGBUS.
///
/// What is not in memory yet is read in pages of 2 MiB, as far as the system has those for files: a look-up at random
/// then has its page's place at hand, where with small pages it must be looked for as the octets must.
///
/// # Errors
/// Where it cannot be mapped.
pub fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: as said above.
    let map = unsafe { Mmap::map(file) }?;
    // Advice, which some systems cannot follow.
    let _ = map.advise(Advice::HugePage);
    Ok(map)
}

/// Puts on the disk what was written, and lets go of the small pages in memory that it was written by, so that it is
/// read again in large ones.
///
/// # Errors
/// Where it cannot be put on the disk.
pub fn settle(file: &File) -> io::Result<()> {
    file.sync_all()?;
    // SAFETY: asks about a descriptor that is open. Advice: nothing depends on it.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    Ok(())
}

/// A file without a name, made where it is first needed: it is gone when it is closed, however that comes to be.
struct Unnamed {
    directory: PathBuf,
    file: Option<File>,
}

impl Runs for Unnamed {
    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => make_unnamed(&self.directory)?,
        };
        Pieces(self.file.insert(file)).write_all(octets)
    }

    fn read_at(&self, octets: &mut [u8], at: u64) -> io::Result<()> {
        self.file.as_ref().ok_or(io::ErrorKind::UnexpectedEof)?.read_exact_at(octets, at)
    }
}

fn make_unnamed(directory: &Path) -> io::Result<File> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let name = directory.join(format!("{}.{}.runs", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&name)?;
    fs::remove_file(&name)?;
    Ok(file)
}

/// A place in that directory for the devices that a build does not hold in memory, eight octets each.
#[must_use]
pub fn aside(directory: &Path) -> Box<dyn Runs> {
    Box::new(Unnamed { directory: directory.to_owned(), file: None })
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Finishes a build into a file that is there whole, on the disk, or not at all.
///
/// # Errors
/// [`BuildError`]; what was at `path` before is then still there.
pub fn write(builder: SnapshotBuilder, path: &Path) -> Result<BuildReport, BuildError> {
    replace(path, BuildError::Write, |part| write_part(builder, part))
}

/// Puts a file in its place, whole and on the disk, that `write` writes beside it; or leaves what is there.
pub(crate) fn replace<T, E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    write: impl FnOnce(&Path) -> Result<T, E>,
) -> Result<T, E> {
    remove_left_parts(path);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}{PART}", std::process::id()));
    let part = path.with_file_name(name);
    let written = write(&part).and_then(|report| {
        fs::rename(&part, path).map_err(&failed)?;
        File::open(directory_of(path)).and_then(|directory| directory.sync_all()).map_err(&failed)?;
        Ok(report)
    });
    if written.is_err() {
        // Nothing more can be done where even that fails.
        let _ = fs::remove_file(&part);
    }
    written
}

/// Removes what builds of the same file have left that were ended while they wrote.
fn remove_left_parts(path: &Path) {
    let Some(name) = path.file_name().and_then(OsStr::to_str) else { return };
    let entries = fs::read_dir(directory_of(path)).into_iter().flatten().flatten();
    for entry in entries {
        let found = entry.file_name();
        let process = found
            .to_str()
            .and_then(|found| found.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(PART))
            .and_then(|process| process.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn write_part(builder: SnapshotBuilder, part: &Path) -> Result<BuildReport, BuildError> {
    // The builder writes a MiB at a time.
    let mut out = Pieces(File::create(part).map_err(BuildError::Write)?);
    let report = builder.finish(&mut out)?;
    settle(&out.0).map_err(BuildError::Write)?;
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
        let snapshot = open(&path, true).unwrap();
        assert_eq!(snapshot.header().sequence, 7);
        assert!(snapshot.imei(Imei::from_number(35_000_000_000_001).unwrap()).is_some());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_put_aside_has_no_name_and_a_left_part_is_removed() {
        let directory = directory("aside");
        let path = directory.join("lists.eirs");
        // No process has such a number.
        fs::write(directory.join("lists.eirs.4294967295.part"), b"left").unwrap();
        fs::write(directory.join(format!("lists.eirs.{}.part", std::os::unix::process::parent_id())), b"").unwrap();
        let mut builder = SnapshotBuilder::new(BuildOptions { run_rows: 10, ..BuildOptions::default() });
        builder.put_aside(aside(&directory));
        let rows: String = (1..100).map(|snr| format!("35000000{snr:06},white,\n")).collect();
        builder.devices("a", format!("imei,list,reason\n{rows}").as_bytes(), &mut |_| ()).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
        write(builder, &path).unwrap();
        assert_eq!(open(&path, true).unwrap().header().counts.white, 99);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
        let mut builder = SnapshotBuilder::new(BuildOptions { run_rows: 10, ..BuildOptions::default() });
        builder.put_aside(aside(&directory.join("none")));
        let error = builder.devices("a", format!("imei,list,reason\n{rows}").as_bytes(), &mut |_| ()).unwrap_err();
        assert!(error.to_string().starts_with("a: its rows cannot be put aside while the snapshot is built: "));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        let directory = directory("refuse");
        for (name, bytes) in [("empty", &b""[..]), ("text", b"imei,list,reason\n")] {
            fs::write(directory.join(name), bytes).unwrap();
            assert!(open(&directory.join(name), false).is_err());
        }
        assert!(open(&directory, true).is_err());
        assert!(open(&directory.join("none"), true).is_err());
        fs::remove_dir_all(directory).unwrap();
    }
}
