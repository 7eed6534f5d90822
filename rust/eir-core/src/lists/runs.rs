//! Sorting more numbers than memory is to hold: runs that are sorted, put aside, and merged.
//!
//! Its one job: take numbers in any order and give them rising, with a bounded number of them in memory. The builder
//! calls it, and says with [`Runs`] where what does not fit goes; it never opens a file itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io;
use std::ops::Range;

/// Bytes written or read at once where there are few runs.
const CHUNK: usize = 1 << 20;
/// Bytes that reading all runs takes together; with very many runs each takes a [`LEAST`] all the same.
const READING: usize = 64 << 20;
/// Bytes read at once where there are many runs.
const LEAST: usize = 1 << 12;
/// Bytes of a number.
const WORD: usize = 8;

/// Where runs lie until they are merged: octets that are appended, and read again from anywhere.
pub trait Runs: Send + Sync {
    /// Put octets behind those that are there.
    ///
    /// # Errors
    /// Where there is no room for them.
    fn append(&mut self, octets: &[u8]) -> io::Result<()>;

    /// Fill `octets` with those that begin at `at`.
    ///
    /// # Errors
    /// Where they are not to be had.
    fn read_at(&self, octets: &mut [u8], at: u64) -> io::Result<()>;
}

/// [`Runs`], if there are any, and how much was put there.
#[derive(Default)]
pub(super) struct Shelf {
    runs: Option<Box<dyn Runs>>,
    length: u64,
}

impl Shelf {
    pub fn new(runs: Box<dyn Runs>) -> Self {
        Self { runs: Some(runs), length: 0 }
    }

    /// Whether anything can be put there.
    pub fn is_there(&self) -> bool {
        self.runs.is_some()
    }

    /// Put octets there; gives where they begin.
    pub fn put(&mut self, octets: &[u8]) -> io::Result<u64> {
        let at = self.length;
        self.runs.as_mut().ok_or(io::ErrorKind::Unsupported)?.append(octets)?;
        self.length += octets.len() as u64;
        Ok(at)
    }

    pub fn read(&self, octets: &mut [u8], at: u64) -> io::Result<()> {
        self.runs.as_ref().ok_or(io::ErrorKind::Unsupported)?.read_at(octets, at)
    }
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Numbers on their way in.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    rows: Vec<u64>,
    /// (place on the shelf, numbers) of each run.
    runs: Vec<(u64, usize)>,
}

impl Sorter {
    /// Numbers in memory.
    pub fn held(&self) -> usize {
        self.rows.len()
    }

    pub fn push(&mut self, row: u64) {
        self.rows.push(row);
    }

    /// Sort what is in memory and put it on the shelf.
    pub fn spill(&mut self, shelf: &mut Shelf) -> io::Result<()> {
        let halves = sort_halves(&mut self.rows);
        let mut octets = Vec::with_capacity(CHUNK);
        for half in halves {
            let half = self.rows.get(half).unwrap_or_default();
            let mut begins = None;
            for part in half.chunks(CHUNK / WORD) {
                octets.clear();
                octets.extend(part.iter().flat_map(|row| row.to_le_bytes()));
                let at = shelf.put(&octets)?;
                begins.get_or_insert(at);
            }
            self.runs.extend(begins.map(|at| (at, half.len())));
        }
        self.rows.clear();
        Ok(())
    }

    /// All numbers, rising; one that came twice is given twice.
    pub fn merge(mut self, shelf: &Shelf) -> io::Result<Merge> {
        let halves = sort_halves(&mut self.rows);
        let chunk = (READING / self.runs.len().max(1)).clamp(LEAST, CHUNK) / WORD;
        let spilled = self.runs.into_iter().map(|(at, left)| Source::Spilled { at, left, chunk, ready: Vec::new() });
        let sources = spilled.chain(halves.map(Source::Held));
        let mut merge = Merge { rows: self.rows, sources: Vec::new(), heads: BinaryHeap::new() };
        for (mut source, number) in sources.zip(0..) {
            if let Some(row) = source.next(&merge.rows, shelf)? {
                merge.heads.push(Reverse((row, number)));
            }
            merge.sources.push(source);
        }
        Ok(merge)
    }
}

/// Sort two halves at the same time; gives where they are.
fn sort_halves(rows: &mut [u64]) -> [Range<usize>; 2] {
    let (length, middle) = (rows.len(), rows.len() / 2);
    let (first, second) = rows.split_at_mut(middle);
    std::thread::scope(|scope| {
        // Not worth a thread below that.
        if length > CHUNK {
            scope.spawn(|| first.sort_unstable());
        } else {
            first.sort_unstable();
        }
        second.sort_unstable();
    });
    [0..middle, middle..length]
}

/// A run that is being read.
#[derive(Debug)]
enum Source {
    /// In memory.
    Held(Range<usize>),
    /// On the shelf: where what was not read yet begins, how many numbers that are, how many are read at once, and
    /// those that were read, falling.
    Spilled { at: u64, left: usize, chunk: usize, ready: Vec<u64> },
}

impl Source {
    #[inline]
    fn next(&mut self, rows: &[u64], shelf: &Shelf) -> io::Result<Option<u64>> {
        match self {
            Self::Held(range) => Ok(range.next().and_then(|place| rows.get(place).copied())),
            Self::Spilled { at, left, chunk, ready } => {
                if ready.is_empty() && *left > 0 {
                    let mut octets = vec![0; WORD * *chunk.min(left)];
                    shelf.read(&mut octets, *at)?;
                    let (words, _) = octets.as_chunks();
                    ready.extend(words.iter().rev().map(|word| u64::from_le_bytes(*word)));
                    *at += octets.len() as u64;
                    *left -= words.len();
                }
                Ok(ready.pop())
            }
        }
    }
}

/// All numbers of all runs on their way out.
#[derive(Debug)]
pub(super) struct Merge {
    rows: Vec<u64>,
    sources: Vec<Source>,
    /// The next number of each source, the least on top.
    heads: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Merge {
    /// The next number, not below the one before.
    #[inline]
    pub fn next(&mut self, shelf: &Shelf) -> io::Result<Option<u64>> {
        let Some(mut head) = self.heads.peek_mut() else { return Ok(None) };
        let Reverse((row, number)) = *head;
        let next = match self.sources.get_mut(number) {
            Some(source) => source.next(&self.rows, shelf)?,
            None => None,
        };
        match next {
            Some(next) => *head = Reverse((next, number)),
            None => drop(PeekMut::pop(head)),
        }
        Ok(Some(row))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs in memory, for so many octets.
    struct Memory {
        octets: Vec<u8>,
        most: usize,
    }

    impl Runs for Memory {
        fn append(&mut self, octets: &[u8]) -> io::Result<()> {
            if self.octets.len() + octets.len() > self.most {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.octets.extend(octets);
            Ok(())
        }

        fn read_at(&self, octets: &mut [u8], at: u64) -> io::Result<()> {
            let from = self.octets.get(at as usize..).and_then(|rest| rest.get(..octets.len()));
            octets.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    /// A shelf for so many octets.
    pub(in crate::lists) fn shelf(most: usize) -> Shelf {
        Shelf::new(Box::new(Memory { octets: Vec::new(), most }))
    }

    proptest! {
        #[test]
        fn runs_merged_are_all_numbers_sorted(
            rows in prop::collection::vec(0u64..500, 0..400),
            most in 1usize..50,
        ) {
            let (mut sorter, mut shelf) = (Sorter::default(), shelf(usize::MAX));
            for row in &rows {
                if sorter.held() == most {
                    sorter.spill(&mut shelf).unwrap();
                }
                sorter.push(*row);
            }
            let mut merge = sorter.merge(&shelf).unwrap();
            let merged: Vec<u64> = std::iter::from_fn(|| merge.next(&shelf).unwrap()).collect();
            let mut sorted = rows;
            sorted.sort_unstable();
            prop_assert_eq!(merged, sorted);
        }
    }

    #[test]
    fn runs_of_more_than_a_chunk_are_read_in_parts() {
        let (mut sorter, mut shelf) = (Sorter::default(), shelf(usize::MAX));
        for row in 0..700_000u64 {
            sorter.push(row.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            if row % 300_000 == 299_999 {
                sorter.spill(&mut shelf).unwrap();
            }
        }
        let mut merge = sorter.merge(&shelf).unwrap();
        let merged: Vec<u64> = std::iter::from_fn(|| merge.next(&shelf).unwrap()).collect();
        assert!(merged.len() == 700_000 && merged.is_sorted());
    }

    #[test]
    fn a_shelf_that_is_full_or_gives_nothing_back_is_an_error() {
        let (mut sorter, mut full) = (Sorter::default(), shelf(15));
        [3, 1, 2].into_iter().for_each(|row| sorter.push(row));
        assert_eq!(sorter.spill(&mut full).unwrap_err().kind(), io::ErrorKind::StorageFull);
        let (mut sorter, mut lost) = (Sorter::default(), shelf(100));
        [3, 1, 2].into_iter().for_each(|row| sorter.push(row));
        sorter.spill(&mut lost).unwrap();
        assert!(sorter.merge(&shelf(100)).is_err());
    }
}
