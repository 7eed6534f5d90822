//! Writing a snapshot file: sections as they come, checksums behind them, and the header last.
//!
//! Its one job: bring sections into the form that [`layout`](super::layout) describes, in fixed memory. The builder calls
//! it. It never looks into a section.

use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;

use super::layout::{ALIGNMENT, Counts, HEADER_LENGTH, Header, MAGIC, PIECE, SectionKind, TABLE_AT, VERSION};

/// Writes a snapshot file from its beginning: sections one after the other, in the order of [`SectionKind::ALL`], each
/// as the bytes written after [`begin`](Self::begin).
pub(super) struct FileWriter<'a, W> {
    out: &'a mut W,
    /// Where the sections begin and end; the last one's end is where the file has come to.
    sections: Vec<Range<u64>>,
    /// Bytes of the piece that is being filled.
    piece: Vec<u8>,
    checksums: Vec<u8>,
    /// Bytes of the pieces before.
    written: u64,
}

impl<'a, W: Write + Seek> FileWriter<'a, W> {
    pub fn new(out: &'a mut W) -> Self {
        let mut piece = Vec::with_capacity(PIECE);
        // The header comes last, when everything is known that it says.
        piece.resize(HEADER_LENGTH, 0);
        Self { out, sections: Vec::new(), piece, checksums: Vec::new(), written: 0 }
    }

    /// Begin the next section.
    pub fn begin(&mut self) -> io::Result<()> {
        self.align()?;
        let at = self.length();
        self.sections.push(at..at);
        Ok(())
    }

    /// Write what is still to be written, the header last; gives the length of the file.
    pub fn finish(mut self, header: &Header) -> io::Result<u64> {
        let sections = std::mem::take(&mut self.sections);
        self.align()?;
        self.end_piece()?;
        let checksums_at = self.written;
        self.out.write_all(&self.checksums)?;
        let length = checksums_at + self.checksums.len() as u64;

        let mut head = Vec::with_capacity(HEADER_LENGTH);
        head.extend(MAGIC);
        head.extend(VERSION.to_le_bytes());
        head.extend((SectionKind::ALL.len() as u32).to_le_bytes());
        head.extend(length.to_le_bytes());
        head.extend(header.sequence.to_le_bytes());
        head.extend(header.created_at.to_le_bytes());
        head.extend(header.tac_as_of.to_le_bytes());
        let Counts { white, black, grey, ranges, exempt_tacs, allocated_tacs, exempt_imsis, pairs, deadlines } =
            header.counts;
        for count in [white, black, grey, ranges, exempt_tacs, allocated_tacs, exempt_imsis, pairs, deadlines] {
            head.extend(count.to_le_bytes());
        }
        head.extend(checksums_at.to_le_bytes());
        head.extend(crc32fast::hash(&self.checksums).to_le_bytes());
        head.resize(TABLE_AT, 0);
        for (kind, place) in SectionKind::ALL.into_iter().zip(sections) {
            head.extend((kind as u32).to_le_bytes());
            head.extend([0; 4]);
            head.extend(place.start.to_le_bytes());
            head.extend((place.end - place.start).to_le_bytes());
        }
        head.extend(crc32fast::hash(&head).to_le_bytes());
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&head)?;
        self.out.flush()?;
        Ok(length)
    }

    /// What was written so far.
    fn length(&self) -> u64 {
        self.written + self.piece.len() as u64
    }

    fn align(&mut self) -> io::Result<()> {
        let gap = self.length().next_multiple_of(ALIGNMENT) - self.length();
        self.put([0; ALIGNMENT as usize].get(..gap as usize).unwrap_or_default())
    }

    fn put(&mut self, mut octets: &[u8]) -> io::Result<()> {
        while !octets.is_empty() {
            let (now, later) = octets.split_at(octets.len().min(PIECE - self.piece.len()));
            self.piece.extend_from_slice(now);
            octets = later;
            if self.piece.len() == PIECE {
                self.end_piece()?;
            }
        }
        Ok(())
    }

    fn end_piece(&mut self) -> io::Result<()> {
        let checked = if self.written == 0 { HEADER_LENGTH } else { 0 };
        let checked = self.piece.get(checked..).unwrap_or_default();
        if !checked.is_empty() {
            self.checksums.extend(crc32fast::hash(checked).to_le_bytes());
            self.out.write_all(&self.piece)?;
            self.written += self.piece.len() as u64;
            self.piece.clear();
        }
        Ok(())
    }
}

/// Puts bytes into the section that was begun last.
impl<W: Write + Seek> Write for FileWriter<'_, W> {
    #[inline]
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.put(octets)?;
        let end = self.length();
        if let Some(section) = self.sections.last_mut() {
            section.end = end;
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
