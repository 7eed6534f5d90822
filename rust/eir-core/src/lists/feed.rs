//! From the bytes of a list file to its CSV records: decompression, and bounds on what a file can make us hold.
//!
//! Its one job: hand out records with the lines they start on, from plain, gzip or zstd input, UTF-8 or UTF-16, in fixed memory. `rows`
//! calls it. It never knows what a column means.
//!
//! The parser is `csv_core`, the heart of the `csv` crate, because its caller owns the buffers: a record that does not
//! fit is an error, where a growing buffer would let one endless line or unclosed quote take all memory.

use std::cell::Cell;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::rc::Rc;

use csv_core::ReadRecordResult;

use super::report::FileFault;
use super::utf16::Utf16;

/// Bytes read at once, and between two calls of the progress callback.
const CHUNK: usize = 64 * 1024;
/// Longest record, in bytes.
const MAX_RECORD: usize = 64 * 1024;
/// Most fields in a record.
const MAX_FIELDS: usize = 256;
/// Most text in a file, decompressed: that of the largest list that a snapshot takes.
const MAX_TEXT: u64 = 1 << 38;
/// Text that any file may have, and how many times its own length a compressed one may have beyond that: lists of runs
/// shrink to a hundredth, what shrinks to less is made to fill disks.
const FREE_TEXT: u64 = 1 << 30;
const MAX_RATIO: u64 = 256;
/// Largest zstd window, as log2: what `zstd` itself takes without being told otherwise.
const ZSTD_WINDOW_LOG: u32 = 27;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const UTF8_BOM: &[u8] = &[0xef, 0xbb, 0xbf];

/// How a file's text is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Commas, and quotes around what holds some; lines that start with `#` are comments.
    Csv,
    /// The same without comments: what networks record as IMEIs may start with `#`.
    Recorded,
    /// `|`; quotes are signs as any others. Comments as in [`Csv`](Self::Csv).
    Pipes,
}

/// A reader that tells how many bytes went through it.
struct Told<'a, R> {
    inner: R,
    read: Rc<Cell<u64>>,
    told: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let read = self.read.get() + count as u64;
        self.read.set(read);
        let at_end = count == 0 && self.told < read;
        if at_end || read - self.told >= CHUNK as u64 {
            self.told = read;
            (self.progress)(read);
        }
        Ok(count)
    }
}

/// The file's text, whatever it is compressed with; `read` counts the bytes of the file itself. `None` for a file of no
/// bytes.
fn decompressed<'a>(
    reader: impl Read + 'a,
    read: Rc<Cell<u64>>,
    progress: &'a mut dyn FnMut(u64),
) -> io::Result<Option<Box<dyn Read + 'a>>> {
    let mut raw = BufReader::with_capacity(CHUNK, Told { inner: reader, read, told: 0, progress });
    let mut start = Vec::new();
    raw.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut start)?;
    if start.is_empty() {
        return Ok(None);
    }
    let (gzip, zstd) = (start.starts_with(GZIP_MAGIC), start.starts_with(ZSTD_MAGIC));
    let whole = Cursor::new(start).chain(raw);
    Ok(Some(if gzip {
        Box::new(flate2::bufread::MultiGzDecoder::new(whole))
    } else if zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        Box::new(decoder)
    } else {
        Box::new(whole) as Box<dyn Read>
    }))
}

/// One record of a list file.
pub(super) struct Record<'r> {
    /// The line on which it starts, from 1.
    pub line: u64,
    text: &'r [u8],
    ends: &'r [usize],
}

impl<'r> Record<'r> {
    /// How many fields it has.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// A field without quotes and without space around it; empty where there is none of that number.
    #[inline]
    pub fn field(&self, number: usize) -> &'r [u8] {
        let start = match number.checked_sub(1) {
            None => Some(0),
            Some(before) => self.ends.get(before).copied(),
        };
        let field = start.zip(self.ends.get(number)).and_then(|(start, &end)| self.text.get(start..end));
        field.unwrap_or_default().trim_ascii()
    }

    /// Every field, in order.
    pub fn fields(&self) -> impl Iterator<Item = &'r [u8]> {
        (0..self.len()).map(|number| self.field(number))
    }
}

/// The records of a list file, one after the other.
pub(super) struct Feed<'a> {
    source: Box<dyn Read + 'a>,
    /// Bytes read of the file, compressed as they are.
    read: Rc<Cell<u64>>,
    /// What was read and not yet parsed is `buffer[start..end]`.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    text_bytes: u64,
    /// Text that it may have, however short the file.
    free_text: u64,
    parser: csv_core::Reader,
    /// Whether there are comments.
    comments: bool,
    record: Box<[u8]>,
    ends: [usize; MAX_FIELDS],
}

impl<'a> Feed<'a> {
    /// Start to read a file. `progress` is told the bytes read of it, compressed as they are, about every 64 KiB.
    pub fn open(reader: impl Read + 'a, dialect: Dialect, progress: &'a mut dyn FnMut(u64)) -> Result<Self, FileFault> {
        let read = Rc::new(Cell::new(0));
        let source = decompressed(reader, Rc::clone(&read), progress).map_err(FileFault::Read)?;
        let mut feed = Self {
            source: source.ok_or(FileFault::Empty)?,
            read,
            buffer: vec![0; CHUNK].into(),
            start: 0,
            end: 0,
            text_bytes: 0,
            free_text: FREE_TEXT,
            parser: match dialect {
                Dialect::Csv | Dialect::Recorded => csv_core::Reader::new(),
                Dialect::Pipes => csv_core::ReaderBuilder::new().delimiter(b'|').quoting(false).build(),
            },
            comments: dialect != Dialect::Recorded,
            record: vec![0; MAX_RECORD].into(),
            ends: [0; MAX_FIELDS],
        };
        // Three bytes, to see a whole byte-order mark.
        while feed.end < UTF8_BOM.len() && feed.fill()? {}
        if feed.pending().starts_with(UTF8_BOM) {
            feed.start = UTF8_BOM.len();
        } else if let Some(order) = Utf16::order(feed.pending()) {
            let read = Cursor::new(feed.pending().to_vec());
            let source = std::mem::replace(&mut feed.source, Box::new(io::empty()));
            feed.source = Box::new(Utf16::new(read.chain(source), order));
            feed.start = feed.end;
        }
        Ok(feed)
    }

    /// The next record; `None` at the end of the file. Empty lines are passed over, and comments where there are some.
    pub fn next(&mut self) -> Result<Option<Record<'_>>, FileFault> {
        if !self.skip_to_record()? {
            return Ok(None);
        }
        let line = self.parser.line();
        let (mut length, mut fields) = (0, 0);
        loop {
            if self.start == self.end {
                // At the end of the file this leaves nothing pending, which tells the parser so.
                self.fill()?;
            }
            let input = self.buffer.get(self.start..self.end).unwrap_or_default();
            let text = self.record.get_mut(length..).unwrap_or_default();
            let ends = self.ends.get_mut(fields..).unwrap_or_default();
            let (result, read, written, ended) = self.parser.read_record(input, text, ends);
            self.start += read;
            length += written;
            fields += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => return Err(FileFault::LongRecord { line }),
                ReadRecordResult::OutputEndsFull => return Err(FileFault::ManyFields { line }),
                ReadRecordResult::Record => break,
                ReadRecordResult::End => return Ok(None),
            }
        }
        let text = self.record.get(..length).unwrap_or_default();
        if text.contains(&b'\n') {
            return Err(FileFault::SplitRecord { line });
        }
        let ends = self.ends.get(..fields).unwrap_or_default();
        Ok(Some(Record { line, text, ends }))
    }

    /// Pass over empty lines and comments; whether there is a record after them.
    ///
    /// The parser could do so itself, but the line on which the record starts would be lost.
    fn skip_to_record(&mut self) -> Result<bool, FileFault> {
        let mut in_comment = false;
        loop {
            if self.start == self.end && !self.fill()? {
                return Ok(false);
            }
            let pending = self.pending();
            let Some(&byte) = pending.first() else { return Ok(false) };
            if byte == b'\n' {
                self.parser.set_line(self.parser.line() + 1);
                self.start += 1;
                in_comment = false;
            } else if in_comment {
                self.start += pending.iter().position(|&byte| byte == b'\n').unwrap_or(pending.len());
            } else if byte == b'#' && self.comments {
                in_comment = true;
            } else if byte == b'\r' {
                self.start += 1;
            } else {
                return Ok(true);
            }
        }
    }

    fn pending(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Read on; whether there was more. Drops what was parsed; what is pending stays.
    fn fill(&mut self) -> Result<bool, FileFault> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let free = self.buffer.get_mut(self.end..).unwrap_or_default();
        let count = loop {
            match self.source.read(free) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.map_err(FileFault::Read)?,
            }
        };
        self.end += count;
        self.text_bytes += count as u64;
        if self.text_bytes > MAX_TEXT.min(self.free_text + MAX_RATIO * self.read.get()) {
            return Err(FileFault::Oversized);
        }
        Ok(count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    /// Gives its bytes one by one, as a slow pipe might.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(1);
            self.0.read(&mut buffer[..count])
        }
    }

    fn records(reader: impl Read) -> Result<Vec<(u64, Vec<String>)>, FileFault> {
        let mut progress = |_| {};
        let mut feed = Feed::open(reader, Dialect::Csv, &mut progress)?;
        let mut records = Vec::new();
        while let Some(record) = feed.next()? {
            let fields = record.fields().map(|field| String::from_utf8_lossy(field).into_owned());
            records.push((record.line, fields.collect()));
        }
        Ok(records)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn records_know_their_lines() {
        let text = b"\xef\xbb\xbf# made today\r\n\r\na,b\r\n1, 2 \n\n#x\n\"3,\"\"\",4\n5,6";
        let expected = [(3, ["a", "b"]), (4, ["1", "2"]), (7, ["3,\"", "4"]), (8, ["5", "6"])];
        let expected: Vec<(u64, Vec<String>)> =
            expected.into_iter().map(|(line, fields)| (line, fields.map(str::to_owned).into())).collect();
        assert_eq!(records(&text[..]).unwrap(), expected);
        assert_eq!(records(Trickle(text)).unwrap(), expected);
    }

    #[test]
    fn compression_is_told_by_the_first_bytes() {
        let text = b"tac\n35209900\n";
        let plain = records(&text[..]).unwrap();
        let members = [gzip(b"tac\n352"), gzip(b"09900\n")].concat();
        assert_eq!(records(&members[..]).unwrap(), plain);
        assert_eq!(records(Trickle(&members)).unwrap(), plain);
        let frames = [&b"tac\n"[..], b"35209900\n"].map(|text| zstd::encode_all(text, 3).unwrap()).concat();
        assert_eq!(records(&frames[..]).unwrap(), plain);
        assert_eq!(records(Trickle(&frames)).unwrap(), plain);
    }

    #[test]
    fn a_cut_compressed_file_is_an_error() {
        let text = b"tac\n".iter().chain(b"35209900\n".iter().cycle().take(9_000)).copied().collect::<Vec<u8>>();
        for whole in [gzip(&text), zstd::encode_all(&text[..], 3).unwrap()] {
            assert!(records(&whole[..]).is_ok());
            for cut in [5, whole.len() / 2, whole.len() - 1] {
                assert!(matches!(records(&whole[..cut]), Err(FileFault::Read(_))), "{cut}");
            }
        }
    }

    #[test]
    fn an_endless_record_is_an_error_and_an_endless_comment_is_not() {
        let endless = io::repeat(b'7').take(1 << 30);
        assert!(matches!(records(endless), Err(FileFault::LongRecord { line: 1 })));
        let quote = b"a\n\"".chain(io::repeat(b'\n').take(1 << 30));
        assert!(matches!(records(quote), Err(FileFault::LongRecord { line: 2 })));
        let swallowed = b"a,b\n1,\"2\n3,4\n5,6\n";
        assert!(matches!(records(&swallowed[..]), Err(FileFault::SplitRecord { line: 2 })));
        let commas = b"\n".chain(io::repeat(b',').take(1 << 30));
        assert!(matches!(records(commas), Err(FileFault::ManyFields { line: 2 })));
        let comment = b"#".chain(io::repeat(b'#').take(1 << 20)).chain(&b"\na"[..]);
        assert_eq!(records(comment).unwrap(), [(2, vec!["a".to_owned()])]);
    }

    #[test]
    fn progress_counts_the_bytes_of_the_file_not_of_its_text() {
        let text = b"35209900\n".repeat(100_000);
        for file in [gzip(&text), text] {
            let mut calls = Vec::new();
            let mut progress = |read| calls.push(read);
            let mut feed = Feed::open(&file[..], Dialect::Csv, &mut progress).unwrap();
            while feed.next().unwrap().is_some() {}
            drop(feed);
            assert_eq!(calls.last(), Some(&(file.len() as u64)));
            assert!(calls.is_sorted() && calls.len() <= file.len() / CHUNK + 1);
        }
    }

    #[test]
    fn a_file_made_to_fill_the_disk_is_an_error() {
        let text = b"35900000000001\n".repeat(1 << 16);
        let packed = zstd::encode_all(&text[..], 1).unwrap();
        assert!(packed.len() * (MAX_RATIO as usize) < text.len() / 4);
        let read = |file: &[u8]| {
            let mut progress = |_| {};
            let mut feed = Feed::open(file, Dialect::Csv, &mut progress)?;
            feed.free_text = text.len() as u64;
            while feed.next()?.is_some() {}
            Ok(())
        };
        read(&packed).unwrap();
        assert!(matches!(read(&packed.repeat(3)), Err(FileFault::Oversized)));
        read(&text.repeat(3)).unwrap();
    }

    #[test]
    fn a_file_of_nothing_is_empty() {
        assert!(matches!(records(io::empty()), Err(FileFault::Empty)));
        assert_eq!(records(&b"\xef\xbb\xbf\n# nothing\n"[..]).unwrap(), []);
    }
}
