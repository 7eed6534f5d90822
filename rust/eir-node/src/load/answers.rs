//! Reading what the node under load sends: framing, the header, and the few AVPs that are counted.
//!
//! RFC 6733 clauses 3 and 4.1 for header and AVP, 3GPP TS 29.272 clause 6.2.1.2 for the ECA. Called by `peer` on every
//! read. It borrows from the read buffer and allocates nothing; bytes that make no sense give an error or "no status",
//! never a panic.

/// Octets of a Diameter header.
pub(super) const HEADER: usize = 20;
/// The longest message accepted. A CEA or an answer with a Failed-AVP is far below it.
pub(super) const MAX_MESSAGE: usize = 16 * 1024;

const RESULT_CODE: u32 = 268;
const EXPERIMENTAL_RESULT: u32 = 297;
const EXPERIMENTAL_RESULT_CODE: u32 = 298;
const EQUIPMENT_STATUS: u32 = 1445;
const VENDOR_3GPP: u32 = 10415;

const FLAG_REQUEST: u8 = 0x80;
const FLAG_VENDOR: u8 = 0x80;

/// The stream cannot be divided into messages any more: another version than 1, or an impossible length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unframeable;

/// One whole message and what of its header the load generator needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// The R bit.
    pub request: bool,
    /// Command-Code.
    pub command: u32,
    /// Hop-by-Hop Identifier.
    pub hop_by_hop: u32,
    /// End-to-End Identifier.
    pub end_to_end: u32,
    /// Everything after the header.
    pub avps: &'a [u8],
}

/// The first message of `bytes` and what follows it; `None` while it is not complete.
#[inline]
pub(super) fn next_message(bytes: &[u8]) -> Result<Option<(Message<'_>, &[u8])>, Unframeable> {
    let Some(head) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let word =
        |at: usize| head.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_be_bytes(*four));
    let (version, length) = (word(0) >> 24, (word(0) & 0x00FF_FFFF) as usize);
    if version != 1 || !(HEADER..=MAX_MESSAGE).contains(&length) || length % 4 != 0 {
        return Err(Unframeable);
    }
    let Some((message, rest)) = bytes.split_at_checked(length) else {
        return Ok(None);
    };
    let message = Message {
        request: (word(4) >> 24) as u8 & FLAG_REQUEST != 0,
        command: word(4) & 0x00FF_FFFF,
        hop_by_hop: word(12),
        end_to_end: word(16),
        avps: message.get(HEADER..).unwrap_or_default(),
    };
    Ok(Some((message, rest)))
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Verdict {
    /// Result-Code, or the Experimental-Result-Code in its place.
    pub result: Option<u32>,
    /// Equipment-Status.
    pub status: Option<u32>,
}

/// Reads the AVPs of an answer up to the first whose length cannot be; AVPs that are not counted are skipped.
#[inline]
pub(super) fn verdict(avps: &[u8]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut rest = avps;
    while let Some((avp, after)) = next_avp(rest) {
        match avp {
            Avp { code: RESULT_CODE, vendor: 0, data } => verdict.result = number(data),
            Avp { code: EQUIPMENT_STATUS, vendor: VENDOR_3GPP, data } => verdict.status = number(data),
            Avp { code: EXPERIMENTAL_RESULT, vendor: 0, data } => verdict.result = experimental(data),
            _ => {}
        }
        rest = after;
    }
    verdict
}

fn experimental(group: &[u8]) -> Option<u32> {
    let mut rest = group;
    while let Some((avp, after)) = next_avp(rest) {
        if avp.code == EXPERIMENTAL_RESULT_CODE && avp.vendor == 0 {
            return number(avp.data);
        }
        rest = after;
    }
    None
}

struct Avp<'a> {
    code: u32,
    vendor: u32,
    data: &'a [u8],
}

/// The first AVP of `bytes` and what follows its padding; `None` at the end or where its length cannot be.
#[inline]
fn next_avp(bytes: &[u8]) -> Option<(Avp<'_>, &[u8])> {
    let [c0, c1, c2, c3, flags, l0, l1, l2] = *bytes.first_chunk()?;
    let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
    let (avp, rest) = bytes.split_at_checked(length)?;
    let (vendor, data) =
        if flags & FLAG_VENDOR == 0 { (0, avp.get(8..)?) } else { (number(avp.get(8..12)?)?, avp.get(12..)?) };
    // The last AVP's padding may be missing; then nothing follows.
    let rest = rest.get(length.wrapping_neg() & 3..).unwrap_or_default();
    Some((Avp { code: u32::from_be_bytes([c0, c1, c2, c3]), vendor, data }, rest))
}

/// An Unsigned32 or Enumerated.
#[inline]
fn number(data: &[u8]) -> Option<u32> {
    data.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::messages::from_hex;

    /// An ECA written by hand after 3GPP TS 29.272 clause 6.2.1.2: Session-Id "a;1;1", Result-Code 2001,
    /// Auth-Session-State 1, Origin-Host "eir", Origin-Realm "test", Equipment-Status 1 (black).
    const ECA_BLACK: &str = "01000064 40000144 01000024 00010002 0000002a \
        00000107 4000000d 613b313b 31000000  0000010c 4000000c 000007d1  00000115 4000000c 00000001 \
        00000108 4000000b 65697200  00000128 4000000c 74657374  000005a5 c0000010 000028af 00000001";

    #[test]
    fn an_eca_gives_its_status() {
        let bytes = from_hex(ECA_BLACK);
        let (message, rest) = next_message(&bytes).unwrap().unwrap();
        assert!(rest.is_empty());
        assert_eq!((message.request, message.command), (false, 324));
        assert_eq!((message.hop_by_hop, message.end_to_end), (0x0001_0002, 42));
        assert_eq!(verdict(message.avps), Verdict { result: Some(2001), status: Some(1) });
    }

    #[test]
    fn unknown_equipment_is_an_experimental_result() {
        // 3GPP TS 29.272 clause 7.4: Experimental-Result {Vendor-Id 10415, Experimental-Result-Code 5422}.
        let avps = from_hex("00000129 40000020 0000010a 4000000c 000028af 0000012a 4000000c 0000152e");
        assert_eq!(verdict(&avps), Verdict { result: Some(5422), status: None });
    }

    #[test]
    fn an_avp_of_another_vendor_is_not_the_status() {
        let avps = from_hex("000005a5 c0000010 0000000a 00000001 000005a5 4000000c 00000002");
        assert_eq!(verdict(&avps), Verdict::default());
    }

    #[test]
    fn a_message_is_taken_only_when_it_is_whole() {
        let bytes = from_hex(ECA_BLACK);
        for cut in 0..bytes.len() {
            assert_eq!(next_message(&bytes[..cut]), Ok(None), "{cut}");
        }
        let twice = [&bytes[..], &bytes[..]].concat();
        assert_eq!(next_message(&twice).unwrap().unwrap().1, &bytes[..]);
    }

    #[test]
    fn what_cannot_be_framed_is_an_error() {
        let bytes = from_hex(ECA_BLACK);
        for head in [[2, 0, 0, 0x64], [1, 0, 0, 0], [1, 0, 0, 19], [1, 0, 0, 0x62], [1, 0xFF, 0xFF, 0xFC]] {
            let hostile = [&head[..], &bytes[4..]].concat();
            assert_eq!(next_message(&hostile), Err(Unframeable), "{head:?}");
        }
    }

    #[test]
    fn avps_cut_anywhere_or_with_any_length_give_no_more_than_was_read() {
        let bytes = from_hex(ECA_BLACK);
        let avps = &bytes[HEADER..];
        for cut in 0..avps.len() {
            let read = verdict(&avps[..cut]);
            assert_eq!(read.status, None, "{cut}");
        }
        let black = verdict(avps);
        for at in 0..avps.len() - 4 {
            for value in 0..=u8::MAX {
                let mut hostile = avps.to_vec();
                hostile[at] = value;
                // Whatever the octet, reading ends and does not panic; outside its value no octet changes the status.
                let status = verdict(&hostile).status;
                assert!(status.is_none() || status == black.status, "{at} {value}: {status:?}");
            }
        }
    }
}
