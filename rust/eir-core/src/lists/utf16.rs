//! UTF-16 to UTF-8, while it is read.
//!
//! Its one job: text that begins with a byte-order mark of UTF-16 for who reads UTF-8, in fixed memory. `feed` calls it.
//! It never guesses: without the mark a text is none of its own.

use std::io::{self, Read};

/// Octets read at once.
const CHUNK: u64 = 16 * 1024;

/// Which octet of a unit comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Low,
    High,
}

/// A reader of UTF-8 from one of UTF-16, whose byte-order mark it drops.
pub(super) struct Utf16<R> {
    inner: R,
    order: Order,
    /// Octets that were read and are no whole character yet: at most three between two reads.
    octets: Vec<u8>,
    text: String,
    given: usize,
    begun: bool,
}

impl<R: Read> Utf16<R> {
    /// A reader from the text's beginning on, mark included.
    pub fn new(inner: R, order: Order) -> Self {
        Self { inner, order, octets: Vec::new(), text: String::new(), given: 0, begun: false }
    }

    /// Read on, until there is text or the end.
    fn advance(&mut self) -> io::Result<()> {
        self.text.clear();
        self.given = 0;
        while self.text.is_empty() {
            let ended = self.inner.by_ref().take(CHUNK).read_to_end(&mut self.octets)? == 0;
            if ended {
                return if self.octets.is_empty() { Ok(()) } else { Err(wrong()) };
            }
            self.decode()?;
        }
        Ok(())
    }

    fn decode(&mut self) -> io::Result<()> {
        let (pairs, _) = self.octets.as_chunks::<2>();
        let order = self.order;
        let units = pairs.iter().map(|pair| match order {
            Order::Low => u16::from_le_bytes(*pair),
            Order::High => u16::from_be_bytes(*pair),
        });
        // The second half of the last character may not have come yet.
        let half = units.clone().next_back().is_some_and(|unit| (0xd800..0xdc00).contains(&unit));
        let whole = pairs.len() - usize::from(half);
        let skipped = usize::from(!self.begun && whole > 0);
        for character in char::decode_utf16(units.take(whole).skip(skipped)) {
            self.text.push(character.map_err(|_| wrong())?);
        }
        self.begun |= whole > 0;
        self.octets.drain(..2 * whole);
        Ok(())
    }
}

impl Utf16<io::Empty> {
    /// The order of a text that begins with a mark of UTF-16.
    pub fn order(start: &[u8]) -> Option<Order> {
        match start {
            [0xff, 0xfe, ..] => Some(Order::Low),
            [0xfe, 0xff, ..] => Some(Order::High),
            _ => None,
        }
    }
}

impl<R: Read> Read for Utf16<R> {
    fn read(&mut self, place: &mut [u8]) -> io::Result<usize> {
        if self.given == self.text.len() {
            self.advance()?;
        }
        let mut rest = self.text.as_bytes().get(self.given..).unwrap_or_default();
        let count = rest.read(place)?;
        self.given += count;
        Ok(count)
    }
}

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it begins as UTF-16 and goes on otherwise")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str, order: Order) -> Vec<u8> {
        let units = std::iter::once(0xfeff).chain(text.encode_utf16());
        let octets = |unit: u16| if order == Order::Low { unit.to_le_bytes() } else { unit.to_be_bytes() };
        units.flat_map(octets).collect()
    }

    fn decoded(octets: &[u8]) -> io::Result<String> {
        let order = Utf16::order(octets).unwrap();
        let mut text = String::new();
        Utf16::new(octets, order).read_to_string(&mut text).map(|_| text)
    }

    #[test]
    fn both_orders_are_read_over_the_borders_of_what_is_read_at_once() {
        for text in ["", "imei,имя\n1,📱\n", &"x📱".repeat(20_000), &"📱".repeat(20_000)] {
            for order in [Order::Low, Order::High] {
                assert_eq!(decoded(&encoded(text, order)).unwrap(), text);
            }
        }
        assert_eq!(Utf16::order(b"\xef\xbb\xbf"), None);
    }

    #[test]
    fn what_is_cut_or_no_utf16_is_an_error() {
        let text = encoded("imei 📱", Order::Low);
        for cut in [3, text.len() - 1, text.len() - 2] {
            assert!(decoded(&text[..cut]).is_err(), "{cut}");
        }
        assert!(decoded(&[&text[..], &[0, 0xdc, b'x', 0]].concat()).is_err());
    }
}
