//! Large files written in small pieces.
//!
//! Its one job: bound what one call asks of the system. A kernel that does not preempt itself copies what it is given in
//! one go, and every other thread of that processor waits until it is done, those that answer too.

use std::io::{self, Seek, SeekFrom, Write};

/// Most bytes of a call: some hundred microseconds, where the memory for them must be found first.
pub const PIECE: usize = 1 << 16;

/// Writes no more than a [`PIECE`] at once.
pub struct Pieces<W>(pub W);

impl<W: Write> Write for Pieces<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.write(octets.get(..PIECE).unwrap_or(octets))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Seek> Seek for Pieces<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes how long each write was.
    #[derive(Default)]
    struct Calls(Vec<usize>);

    impl Write for Calls {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.push(octets.len());
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_long_is_written_piece_by_piece() {
        let mut out = Pieces(Calls::default());
        out.write_all(&vec![0; 2 * PIECE + 1]).unwrap();
        assert_eq!(out.0.0, [PIECE, PIECE, 1]);
    }
}
