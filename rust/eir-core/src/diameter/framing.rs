//! Cuts a byte stream into Diameter messages by their length field (RFC 6733 clause 3), and reads the header.

/// Octets of a message header.
pub const HEADER: usize = 20;
/// Command flag: request.
pub const REQUEST: u8 = 0x80;
/// Command flag: proxiable.
pub const PROXIABLE: u8 = 0x40;
/// Command flag: error.
pub const ERROR: u8 = 0x20;

/// What stands at the front of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// A whole message of so many octets.
    Complete(usize),
    /// Not all of it is there yet; it will have so many octets in all (the header's, while that is not whole).
    Incomplete(usize),
    /// A length below the header's or above the limit: there is no way to find the next message.
    Unframeable,
}

/// Looks at the front of `bytes` for a message of at most `limit` octets.
#[inline]
#[must_use]
pub fn frame(bytes: &[u8], limit: usize) -> Frame {
    let Some(&[_, high, middle, low]) = bytes.first_chunk::<4>() else {
        return Frame::Incomplete(HEADER);
    };
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if length < HEADER || length > limit {
        Frame::Unframeable
    } else if bytes.len() < length {
        Frame::Incomplete(length)
    } else {
        Frame::Complete(length)
    }
}

/// A message's header; its length is the slice's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// 1 in every message that is one.
    pub version: u8,
    /// R, P, E, T and four reserved bits.
    pub flags: u8,
    /// Command code.
    pub command: u32,
    /// Application id.
    pub application: u32,
    /// Hop-by-Hop and End-to-End identifiers as they go back in the answer.
    pub identifiers: [u8; 8],
}

impl Header {
    /// The header of a message, and what follows it; `None` below 20 octets.
    #[inline]
    #[must_use]
    pub fn read(message: &[u8]) -> Option<(Self, &[u8])> {
        let (&[version, _, _, _, flags, c1, c2, c3, a1, a2, a3, a4, i1, i2, i3, i4, i5, i6, i7, i8], avps) =
            message.split_first_chunk::<HEADER>()?;
        let header = Self {
            version,
            flags,
            command: u32::from_be_bytes([0, c1, c2, c3]),
            application: u32::from_be_bytes([a1, a2, a3, a4]),
            identifiers: [i1, i2, i3, i4, i5, i6, i7, i8],
        };
        Some((header, avps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_by_length_and_refuses_what_has_none() {
        let mut message = vec![0; 40];
        message[..4].copy_from_slice(&[1, 0, 0, 24]);
        assert_eq!(frame(&message, 4096), Frame::Complete(24));
        assert_eq!(frame(&message[..23], 4096), Frame::Incomplete(24));
        assert_eq!(frame(&message[..3], 4096), Frame::Incomplete(20));
        assert_eq!(frame(&[], 4096), Frame::Incomplete(20));
        assert_eq!(frame(&message, 20), Frame::Unframeable);
        message[3] = 19;
        assert_eq!(frame(&message, 4096), Frame::Unframeable);
        message[1] = 255;
        assert_eq!(frame(&message, 4096), Frame::Unframeable);
        assert_eq!(frame(b"GET / HTTP/1.1\r\n", 65536), Frame::Unframeable);
    }

    #[test]
    fn reads_a_header() {
        let bytes: Vec<u8> = (1..=22).collect();
        let (header, avps) = Header::read(&bytes).unwrap();
        assert_eq!((header.version, header.flags, header.command), (1, 5, 0x0006_0708));
        assert_eq!((header.application, header.identifiers), (0x090a_0b0c, [13, 14, 15, 16, 17, 18, 19, 20]));
        assert_eq!(avps, [21, 22]);
        assert_eq!(Header::read(&bytes[..19]), None);
    }
}
