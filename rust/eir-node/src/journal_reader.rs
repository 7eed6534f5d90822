//! The journal read again, record by record, by whoever brings it into a store: from anywhere, as often as needed.
//!
//! Keeps the segment that it is in open, so that following a journal that grows costs one read a call. Reads only what the
//! caller says is on the disk; records that were lost, or are damaged, and segments that were let go, are passed over.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use eir_core::journal::{self, Event, RECORD};

use crate::journal_writer::segments;

/// No file has octets beyond.
const FARTHEST: u64 = i64::MAX as u64;

/// A reader of one journal's directory.
pub struct JournalReader {
    directory: PathBuf,
    open: Option<Segment>,
}

struct Segment {
    file: File,
    /// The number that its name says, which is what segments are in order of.
    named: u64,
    /// The number of its first record.
    first: u64,
}

impl JournalReader {
    /// A reader of the journal in `directory`; nothing is opened yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), open: None }
    }

    /// Hands over the events with a number above `after` and up to `until`, looking at `most` records at most; returns the
    /// number up to which everything was looked at: `after`, where there is nothing more.
    ///
    /// # Errors
    /// Where the directory or a segment cannot be read.
    pub fn read(&mut self, after: u64, until: u64, most: usize, mut then: impl FnMut(u64, Event)) -> io::Result<u64> {
        let (mut reached, mut left) = (after, most as u64);
        let mut next = after.saturating_add(1);
        if self.open.as_ref().is_none_or(|segment| next < segment.first) {
            self.enter(next)?;
        }
        while let Some(segment) = &self.open {
            // A gap: what lay there was lost, or let go.
            next = next.max(segment.first);
            let wanted = (until.saturating_add(1).saturating_sub(next)).min(left);
            if wanted == 0 {
                break;
            }
            let mut octets = vec![0; wanted as usize * RECORD];
            let offset = (next - segment.first).saturating_add(1).saturating_mul(RECORD as u64);
            let got = read_at_most(&segment.file, &mut octets, offset.min(FARTHEST))?;
            let whole = (got / RECORD) as u64;
            journal::replay(next, octets.get(..whole as usize * RECORD).unwrap_or_default(), &mut then);
            if whole > 0 {
                left -= whole;
                next += whole;
                reached = next - 1;
            }
            // Segments are gone through in the order of their names, each once: whatever their headers say, this ends.
            if whole < wanted && !self.go_on()? {
                // The last segment: what is missing up to `until` was lost, and does not come any more.
                return Ok(until.max(after));
            }
        }
        Ok(reached)
    }

    /// Opens the segment that holds a record, or else the next that there is.
    fn enter(&mut self, next: u64) -> io::Result<()> {
        let there = segments(&self.directory)?;
        let at = there.partition_point(|(first, _)| *first <= next).saturating_sub(1);
        self.open = there.get(at).map(open).transpose()?;
        Ok(())
    }

    /// Opens the segment after the one that is open; whether there is one.
    fn go_on(&mut self) -> io::Result<bool> {
        let Some(present) = &self.open else { return Ok(false) };
        let there = segments(&self.directory)?;
        let Some(next) = there.iter().find(|(named, _)| *named > present.named) else { return Ok(false) };
        self.open = Some(open(next)?);
        Ok(true)
    }
}

fn open((named, path): &(u64, PathBuf)) -> io::Result<Segment> {
    let file = File::open(path)?;
    let mut header = [0; RECORD];
    let got = read_at_most(&file, &mut header, 0)?;
    // A damaged header is made good by the name, as at a start.
    let first = if got == RECORD { journal::read_segment_header(&header) } else { None };
    Ok(Segment { file, named: *named, first: first.unwrap_or(*named) })
}

/// Fills the place as far as the file goes; how far that was.
fn read_at_most(file: &File, place: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = place.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}
