//! Reads a ME-Identity-Check-Request (3GPP TS 29.272 clause 7.2.19).
//!
//! Takes every request that can be answered with an equipment status, and nothing else: whatever is wrong with a
//! message, [`Ecr::read`] says only that it is, and the control plane, which has the dictionary, finds out what and
//! writes the error answer. The two agree: a test sends the same messages to both.
//!
//! Destination-Host and Destination-Realm are not compared with the node's own: it is an end point, not a router, and
//! what has reached it is for it.

use super::avp::{Avp, Avps, MANDATORY};
use super::framing::{ERROR, Header, REQUEST};
use super::{APPLICATION_S13, COMMAND_ME_IDENTITY_CHECK, VENDOR_3GPP};
use crate::imei::{Imei, Imsi, Malformed, Msisdn};

/// Codes, ascending, of the IETF's AVPs that may carry the M bit in a request without being refused with 5001: what the
/// base protocol defines, and what is tolerated anywhere. The control plane's dictionary holds the same.
pub const KNOWN_IETF: &[u32] = &[
    1, 25, 27, 33, 44, 50, 55, 85, 257, 258, 259, 260, 261, 262, 263, 264, 265, 266, 267, 268, 269, 270, 271, 272, 273,
    274, 276, 277, 278, 279, 280, 281, 282, 283, 284, 285, 287, 291, 292, 293, 294, 295, 296, 297, 298, 299, 301, 480,
    483, 485, 621, 622, 623, 624, 625, 626, 627, 649, 650, 651, 652,
];
/// The same for 3GPP's AVPs.
pub const KNOWN_3GPP: &[u32] = &[628, 629, 630, 701, 1401, 1402, 1403, 1445, 1471];

/// The message is no ECR that can be answered with an equipment status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnswerable;

/// What the answer needs of a request.
#[derive(Debug, Clone, Copy)]
pub struct Ecr<'a> {
    /// The header.
    pub header: Header,
    /// The Session-Id AVP, header and padding included, as it goes back.
    pub session_id: &'a [u8],
    /// The device; `None` where there is only a 3GPP2-MEID.
    pub imei: Option<Result<Imei, Malformed>>,
    /// The subscriber, where User-Name is an IMSI.
    pub imsi: Option<Imsi>,
    /// The subscriber's number, where the request has a sound one.
    pub msisdn: Option<Msisdn>,
    /// Who asks.
    pub origin_host: &'a [u8],
    /// Whether the request has passed an agent: it has a Route-Record (RFC 6733 clause 6.7.1).
    pub routed: bool,
    /// DRMP (RFC 7944 clause 9.1), where the request has a sound one: 0, the most important, to 15.
    pub priority: Option<u8>,
    /// Whether the sender would obey a report of overload by the default algorithm (RFC 7683 clause 7.1).
    pub overload_control: bool,
    /// What must go back unchanged and in order.
    pub proxy_infos: ProxyInfos<'a>,
}

/// The Proxy-Info AVPs of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyInfos<'a> {
    /// There is none.
    None,
    /// There is one: header, value and padding.
    One(&'a [u8]),
    /// There are several: the octets from the first to the end of the last, with other AVPs perhaps among them.
    Several(&'a [u8]),
}

/// AVPs of which there may be one only, as bits.
mod once {
    pub const AUTH_SESSION_STATE: u16 = 1 << 0;
    pub const ORIGIN_HOST: u16 = 1 << 1;
    pub const ORIGIN_REALM: u16 = 1 << 2;
    pub const DESTINATION_REALM: u16 = 1 << 3;
    pub const TERMINAL_INFORMATION: u16 = 1 << 4;
    pub const REQUIRED: u16 = (1 << 5) - 1;
    pub const DESTINATION_HOST: u16 = 1 << 5;
    pub const USER_NAME: u16 = 1 << 6;
    pub const VENDOR_SPECIFIC_APPLICATION_ID: u16 = 1 << 7;
    pub const SESSION_ID: u16 = 1 << 8;
}

impl<'a> Ecr<'a> {
    /// Reads a whole message.
    ///
    /// # Errors
    /// [`NotAnswerable`] for anything but an ECR that S13 lets be answered with a status.
    #[inline]
    pub fn read(message: &'a [u8]) -> Result<Self, NotAnswerable> {
        let (header, body) = Header::read(message).ok_or(NotAnswerable)?;
        let right = header.version == 1
            && header.flags & (REQUEST | ERROR) == REQUEST
            && header.command == COMMAND_ME_IDENTITY_CHECK
            && header.application == APPLICATION_S13
            && message.len().is_multiple_of(4);
        let mut avps = Avps::new(body);
        let session_id = match avps.next() {
            Some(Ok(first)) if first.code == 263 && first.vendor == 0 && utf8(first.data) => first.whole,
            _ => return Err(NotAnswerable),
        };
        if !right {
            return Err(NotAnswerable);
        }
        let mut ecr = Self {
            header,
            session_id,
            imei: None,
            imsi: None,
            msisdn: None,
            origin_host: &[],
            routed: false,
            priority: None,
            overload_control: false,
            proxy_infos: ProxyInfos::None,
        };
        let mut seen = once::SESSION_ID;
        for avp in avps {
            let bit = ecr.take(&avp.map_err(|_| NotAnswerable)?, body)?;
            if seen & bit != 0 {
                return Err(NotAnswerable);
            }
            seen |= bit;
        }
        if seen & once::REQUIRED == once::REQUIRED { Ok(ecr) } else { Err(NotAnswerable) }
    }

    /// Takes one AVP in; its bit where it may come only once.
    #[inline]
    fn take(&mut self, avp: &Avp<'a>, body: &'a [u8]) -> Result<u16, NotAnswerable> {
        let bit = match (avp.vendor, avp.code) {
            (0, 264) => {
                self.origin_host = avp.data;
                once::ORIGIN_HOST
            }
            (0, 296) => once::ORIGIN_REALM,
            (0, 283) => once::DESTINATION_REALM,
            (0, 293) => once::DESTINATION_HOST,
            (0, 277) => {
                check(matches!(avp.unsigned32(), Some(0 | 1)))?;
                return Ok(once::AUTH_SESSION_STATE);
            }
            (0, 1) => {
                check(utf8(avp.data))?;
                self.imsi = Imsi::from_digits(avp.data);
                return Ok(once::USER_NAME);
            }
            (0, 260) => {
                for child in Avps::new(avp.data) {
                    let child = child.map_err(|_| NotAnswerable)?;
                    let id = child.vendor == 0 && matches!(child.code, 258 | 259 | 266);
                    check(if id { child.data.len() == 4 } else { tolerated(&child) })?;
                }
                return Ok(once::VENDOR_SPECIFIC_APPLICATION_ID);
            }
            (VENDOR_3GPP, 1401) => {
                self.terminal_information(avp.data)?;
                return Ok(once::TERMINAL_INFORMATION);
            }
            (VENDOR_3GPP, 701) => {
                // For messages to the subscriber only: one that is not sound is as none.
                self.msisdn = self.msisdn.or_else(|| Msisdn::from_tbcd(avp.data));
                return Ok(0);
            }
            (0, 263) => return Err(NotAnswerable),
            (0, 284) => {
                self.proxy_infos = self.proxy_infos.and(avp.whole, body);
                return Ok(0);
            }
            (0, 282) => {
                self.routed = true;
                return Ok(0);
            }
            _ => return self.take_other(avp),
        };
        // DiameterIdentity: at least one octet, US-ASCII (RFC 6733 clause 4.3.1).
        check(!avp.data.is_empty() && avp.data.is_ascii())?;
        Ok(bit)
    }

    /// Takes in what few requests have; out of line, so that it does not slow down those that have none of it.
    #[inline(never)]
    fn take_other(&mut self, avp: &Avp<'a>) -> Result<u16, NotAnswerable> {
        match (avp.vendor, avp.code) {
            // Advice: one that is not sound is as none (RFC 7944 clause 8).
            (0, 301) => {
                self.priority = avp.unsigned32().and_then(|priority| u8::try_from(priority).ok()).filter(|p| *p < 16);
            }
            (0, 621) => self.overload_control = default_algorithm(avp.data),
            _ => check(tolerated(avp))?,
        }
        Ok(0)
    }

    #[inline]
    fn terminal_information(&mut self, group: &'a [u8]) -> Result<(), NotAnswerable> {
        let (mut meid, mut software_version) = (false, false);
        for child in Avps::new(group) {
            let child = child.map_err(|_| NotAnswerable)?;
            match (child.vendor, child.code) {
                (VENDOR_3GPP, 1402) => {
                    check(self.imei.is_none() && utf8(child.data))?;
                    self.imei = Some(Imei::from_digits(child.data));
                }
                (VENDOR_3GPP, 1403) => check(!std::mem::replace(&mut software_version, true) && utf8(child.data))?,
                (VENDOR_3GPP, 1471) => check(!std::mem::replace(&mut meid, true))?,
                _ => check(tolerated(&child))?,
            }
        }
        check(self.imei.is_some() || meid)
    }
}

impl<'a> ProxyInfos<'a> {
    /// These and one more, which lies behind them in `body`.
    fn and(self, whole: &'a [u8], body: &'a [u8]) -> Self {
        let offset = |part: &[u8]| part.as_ptr().addr().wrapping_sub(body.as_ptr().addr());
        match self {
            Self::None => Self::One(whole),
            Self::One(first) | Self::Several(first) => {
                let span = body.get(offset(first)..offset(whole) + whole.len());
                span.map_or(Self::One(whole), Self::Several)
            }
        }
    }
}

/// Whether an OC-Supported-Features offers the loss algorithm: it is the default, and bit 0 of OC-Feature-Vector.
fn default_algorithm(group: &[u8]) -> bool {
    let mut vectors = Avps::new(group).flatten().filter(|avp| (avp.vendor, avp.code) == (0, 622));
    vectors.next().is_none_or(|vector| vector.data.len() == 8 && vector.data.last().is_some_and(|bits| bits & 1 == 1))
}

#[inline]
fn check(condition: bool) -> Result<(), NotAnswerable> {
    if condition { Ok(()) } else { Err(NotAnswerable) }
}

#[inline]
fn utf8(data: &[u8]) -> bool {
    data.is_ascii() || std::str::from_utf8(data).is_ok()
}

fn tolerated(avp: &Avp<'_>) -> bool {
    let known = match avp.vendor {
        0 => KNOWN_IETF,
        VENDOR_3GPP => KNOWN_3GPP,
        _ => &[],
    };
    avp.flags & MANDATORY == 0 || known.binary_search(&avp.code).is_ok()
}
