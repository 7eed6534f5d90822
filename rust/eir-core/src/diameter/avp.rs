//! Walks the AVPs of a message or a group (RFC 6733 clause 4), and writes them.

/// AVP flag: a Vendor-Id follows the length.
pub const VENDOR: u8 = 0x80;
/// AVP flag: who does not know this AVP must refuse the message.
pub const MANDATORY: u8 = 0x40;

/// One AVP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Avp<'a> {
    /// AVP code.
    pub code: u32,
    /// V, M, P and five reserved bits.
    pub flags: u8,
    /// Vendor id, 0 without the V bit.
    pub vendor: u32,
    /// The value, without padding.
    pub data: &'a [u8],
    /// Header, value and padding.
    pub whole: &'a [u8],
}

impl Avp<'_> {
    /// An Unsigned32, Integer32 or Enumerated value; `None` unless four octets.
    #[inline]
    #[must_use]
    pub fn unsigned32(&self) -> Option<u32> {
        self.data.try_into().ok().map(u32::from_be_bytes)
    }
}

/// An AVP's length is below its header's or beyond what holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadLength;

/// The AVPs of a message or group, one after the other; ends after the first [`BadLength`].
#[derive(Debug, Clone)]
pub struct Avps<'a>(&'a [u8]);

impl<'a> Avps<'a> {
    /// Walks what follows a message's header, or a grouped AVP's data.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    #[inline]
    fn take(&mut self) -> Option<Avp<'a>> {
        let (&[c1, c2, c3, c4, flags, l1, l2, l3], after) = self.0.split_first_chunk::<8>()?;
        let length = u32::from_be_bytes([0, l1, l2, l3]) as usize;
        let (vendor, head) =
            if flags & VENDOR == 0 { (0, 8) } else { (u32::from_be_bytes(*after.first_chunk::<4>()?), 12) };
        let data = self.0.get(head..length)?;
        // The padding of a group's last AVP may be missing: there are stacks that leave it out.
        let (whole, rest) = self.0.split_at(length.next_multiple_of(4).min(self.0.len()));
        self.0 = rest;
        Some(Avp { code: u32::from_be_bytes([c1, c2, c3, c4]), flags, vendor, data, whole })
    }
}

impl<'a> Iterator for Avps<'a> {
    type Item = Result<Avp<'a>, BadLength>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let avp = self.take();
        if avp.is_none() {
            self.0 = &[];
        }
        Some(avp.ok_or(BadLength))
    }
}

/// Appends an AVP with the M bit, padded; vendor 0 means none.
pub fn write(out: &mut Vec<u8>, code: u32, vendor: u32, data: &[u8]) {
    write_flagged(out, code, MANDATORY, vendor, data);
}

/// Appends an AVP of the IETF's without the M bit, padded.
pub fn write_optional(out: &mut Vec<u8>, code: u32, data: &[u8]) {
    write_flagged(out, code, 0, 0, data);
}

fn write_flagged(out: &mut Vec<u8>, code: u32, flags: u8, vendor: u32, data: &[u8]) {
    let (head, flags) = if vendor == 0 { (8, flags) } else { (12, flags | VENDOR) };
    let length = (head + data.len()) as u32;
    out.extend(code.to_be_bytes());
    out.extend((u32::from(flags) << 24 | (length & 0x00ff_ffff)).to_be_bytes());
    if vendor != 0 {
        out.extend(vendor.to_be_bytes());
    }
    out.extend(data);
    out.resize(out.len() + data.len().next_multiple_of(4) - data.len(), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(avps in prop::collection::vec((any::<u32>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8)) {
            let mut bytes = Vec::new();
            for (code, vendor, data) in &avps {
                write(&mut bytes, *code, *vendor, data);
            }
            let read: Vec<_> = Avps::new(&bytes).map(|avp| avp.map(|avp| (avp.code, avp.vendor, avp.data.to_vec()))).collect();
            prop_assert_eq!(read, avps.into_iter().map(Ok).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_walked_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let walked: usize = Avps::new(&bytes).map(|avp| avp.map_or(0, |avp| avp.whole.len())).sum();
            prop_assert!(walked <= bytes.len());
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_bad() {
        for bytes in [
            &[0, 0, 0, 1, 0, 0, 0][..],
            &[0, 0, 0, 1, 0, 0, 0, 7],
            &[0, 0, 0, 1, 0, 0, 0, 9],
            &[0, 0, 0, 1, 0, 255, 255, 255],
            &[0, 0, 0, 1, VENDOR, 0, 0, 11, 0, 0, 0, 1],
            &[0, 0, 0, 1, VENDOR, 0, 0, 12, 0, 0, 0],
        ] {
            assert_eq!(Avps::new(bytes).collect::<Vec<_>>(), [Err(BadLength)], "{bytes:?}");
        }
    }
}
