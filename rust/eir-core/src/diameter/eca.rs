//! Writes ME-Identity-Check-Answers (3GPP TS 29.272 clause 7.2.20) and Device-Watchdog-Answers (RFC 6733 clause 5.5.2).
//!
//! Everything that is the same in every answer is written once, at start; an answer is the header, the request's
//! Session-Id, one of five prepared blocks, what its sender has asked to be told of the node's load and, where there are
//! any, the request's Proxy-Info AVPs.

use super::avp::{self, Avp, Avps};
use super::ecr::{Ecr, ProxyInfos};
use super::framing::{ERROR, HEADER, Header, PROXIABLE, REQUEST};
use super::limit::{Overload, VALIDITY};
use super::{APPLICATION_S13, COMMAND_DEVICE_WATCHDOG, COMMAND_ME_IDENTITY_CHECK, VENDOR_3GPP};
use crate::policy::Status;

const SUCCESS: u32 = 2001;
/// DIAMETER_TOO_BUSY (RFC 6733 clause 7.1.3).
const TOO_BUSY: u32 = 3004;
/// HOST (RFC 8583 clause 7.2): the load of the host that answers.
const LOAD_OF_HOST: u32 = 1;
/// DIAMETER_ERROR_EQUIPMENT_UNKNOWN (3GPP TS 29.272 clause 7.4.3.2).
const EQUIPMENT_UNKNOWN: u32 = 5422;

/// The prepared parts of this node's answers.
#[derive(Debug)]
pub struct Answers {
    by_status: [Vec<u8>; 4],
    too_busy: Vec<u8>,
    watchdog: Vec<u8>,
    origin_host: Vec<u8>,
}

/// What an answer says of the node besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// A report of overload, for who understands one.
    pub overload: Option<Overload>,
    /// The node's load, 0 to 65535, for who is to know it.
    pub load: Option<u16>,
}

impl Answers {
    /// Prepares the answers of a node with this identity; `origin_state_id` is its start time.
    #[must_use]
    pub fn new(origin_host: &str, origin_realm: &str, origin_state_id: u32) -> Self {
        let ended = |result: &dyn Fn(&mut Vec<u8>), status: Option<u32>| {
            let mut block = Vec::new();
            let mut application = Vec::new();
            avp::write(&mut application, 266, 0, &VENDOR_3GPP.to_be_bytes());
            avp::write(&mut application, 258, 0, &APPLICATION_S13.to_be_bytes());
            avp::write(&mut block, 260, 0, &application);
            result(&mut block);
            avp::write(&mut block, 277, 0, &1u32.to_be_bytes());
            avp::write(&mut block, 264, 0, origin_host.as_bytes());
            avp::write(&mut block, 296, 0, origin_realm.as_bytes());
            if let Some(status) = status {
                avp::write(&mut block, 1445, VENDOR_3GPP, &status.to_be_bytes());
            }
            block
        };
        let known = |status: Status| {
            ended(&|block| avp::write(block, 268, 0, &SUCCESS.to_be_bytes()), Some(u32::from(status as u8)))
        };
        let unknown = ended(
            &|block| {
                let mut result = Vec::new();
                avp::write(&mut result, 266, 0, &VENDOR_3GPP.to_be_bytes());
                avp::write(&mut result, 298, 0, &EQUIPMENT_UNKNOWN.to_be_bytes());
                avp::write(block, 297, 0, &result);
            },
            None,
        );
        let mut watchdog = Vec::new();
        avp::write(&mut watchdog, 268, 0, &SUCCESS.to_be_bytes());
        avp::write(&mut watchdog, 264, 0, origin_host.as_bytes());
        avp::write(&mut watchdog, 296, 0, origin_realm.as_bytes());
        avp::write(&mut watchdog, 278, 0, &origin_state_id.to_be_bytes());
        let mut too_busy = Vec::new();
        avp::write(&mut too_busy, 268, 0, &TOO_BUSY.to_be_bytes());
        avp::write(&mut too_busy, 264, 0, origin_host.as_bytes());
        avp::write(&mut too_busy, 296, 0, origin_realm.as_bytes());
        let by_status = [known(Status::White), known(Status::Black), known(Status::Grey), unknown];
        Self { by_status, too_busy, watchdog, origin_host: origin_host.as_bytes().to_vec() }
    }

    /// Appends the answer to `ecr`.
    #[inline]
    pub fn write_eca(&self, out: &mut Vec<u8>, ecr: &Ecr<'_>, status: Status, told: &Told) {
        let [white, black, grey, unknown] = &self.by_status;
        let block = match status {
            Status::White => white,
            Status::Black => black,
            Status::Grey => grey,
            Status::Unknown => unknown,
        };
        self.write(out, ecr, 0, block, told);
    }

    /// Appends the refusal of `ecr`, one too many (3004), in the grammar of protocol errors (RFC 6733 clause 7.2).
    pub fn write_too_busy(&self, out: &mut Vec<u8>, ecr: &Ecr<'_>, told: &Told) {
        self.write(out, ecr, ERROR, &self.too_busy, told);
    }

    /// Appends the refusal (3004) of a request that nobody has time to find out more about; whether it is a request.
    pub fn write_too_busy_unread(&self, out: &mut Vec<u8>, message: &[u8]) -> bool {
        let Some((request, body)) = Header::read(message).filter(|(header, _)| header.flags & REQUEST != 0) else {
            return false;
        };
        let start = out.len();
        out.extend(header(&request, ERROR, 0, request.command));
        let first = Avps::new(body).next().and_then(Result::ok).filter(|avp| (avp.vendor, avp.code) == (0, 263));
        if let Some(session_id) = first {
            append_again(out, &session_id);
        }
        out.extend_from_slice(&self.too_busy);
        append_proxy_infos(out, body);
        set_length(out, start);
        true
    }

    #[inline]
    fn write(&self, out: &mut Vec<u8>, ecr: &Ecr<'_>, flags: u8, block: &[u8], told: &Told) {
        let start = out.len();
        let length = HEADER + ecr.session_id.len() + block.len();
        out.extend(header(&ecr.header, flags, length, COMMAND_ME_IDENTITY_CHECK));
        out.extend_from_slice(ecr.session_id);
        out.extend_from_slice(block);
        let plain = ecr.priority.is_none() && !ecr.overload_control && told.load.is_none();
        if !plain {
            self.write_advice(out, ecr, told);
        }
        match ecr.proxy_infos {
            ProxyInfos::None => {}
            ProxyInfos::One(whole) => out.extend_from_slice(whole),
            ProxyInfos::Several(span) => append_proxy_infos(out, span),
        }
        if out.len() - start != length {
            set_length(out, start);
        }
    }

    /// DRMP as it came (RFC 7944), overload (RFC 7683) and load (RFC 8583): advice, and so without the M bit.
    #[inline(never)]
    fn write_advice(&self, out: &mut Vec<u8>, ecr: &Ecr<'_>, told: &Told) {
        if let Some(priority) = ecr.priority {
            avp::write_optional(out, 301, &u32::from(priority).to_be_bytes());
        }
        if ecr.overload_control {
            let mut features = Vec::with_capacity(16);
            avp::write_optional(&mut features, 622, &1u64.to_be_bytes());
            avp::write_optional(out, 621, &features);
            if let Some(Overload { sequence, percentage }) = told.overload {
                let validity = if percentage == 0 { 0 } else { VALIDITY };
                let mut report = Vec::with_capacity(64);
                avp::write_optional(&mut report, 624, &sequence.to_be_bytes());
                avp::write_optional(&mut report, 626, &0u32.to_be_bytes());
                avp::write_optional(&mut report, 627, &u32::from(percentage).to_be_bytes());
                avp::write_optional(&mut report, 625, &validity.to_be_bytes());
                avp::write_optional(out, 623, &report);
            }
        }
        if let Some(load) = told.load {
            let mut report = Vec::with_capacity(96);
            avp::write_optional(&mut report, 651, &LOAD_OF_HOST.to_be_bytes());
            avp::write_optional(&mut report, 652, &u64::from(load).to_be_bytes());
            avp::write_optional(&mut report, 649, &self.origin_host);
            avp::write_optional(out, 650, &report);
        }
    }

    /// Appends the answer to a Device-Watchdog-Request with that header.
    pub fn write_dwa(&self, out: &mut Vec<u8>, request: &Header) {
        out.extend(header(request, 0, HEADER + self.watchdog.len(), COMMAND_DEVICE_WATCHDOG));
        out.extend_from_slice(&self.watchdog);
    }
}

/// The header of an answer: the request's identifiers and P bit, neither R nor T (RFC 6733 clause 6.2), and `flags`.
#[inline]
fn header(request: &Header, flags: u8, length: usize, command: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let flags = request.flags & PROXIABLE | flags;
    let words = [1 << 24 | length as u32, u32::from(flags) << 24 | command, request.application];
    for (place, word) in header.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    if let Some(place) = header.last_chunk_mut::<8>() {
        *place = request.identifiers;
    }
    header
}

/// Writes the length of the message that begins at `start` and is all of what follows into its header.
#[inline]
fn set_length(out: &mut [u8], start: usize) {
    let length = (out.len() - start) as u32;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&(1 << 24 | length).to_be_bytes());
    }
}

/// Appends the Proxy-Info AVPs of `span`, unchanged and in order (RFC 6733 clause 6.2).
fn append_proxy_infos(out: &mut Vec<u8>, span: &[u8]) {
    for avp in Avps::new(span).flatten().filter(|avp| (avp.vendor, avp.code) == (0, 284)) {
        append_again(out, &avp);
    }
}

/// Appends an AVP of a request, unchanged.
fn append_again(out: &mut Vec<u8>, avp: &Avp<'_>) {
    out.extend_from_slice(avp.whole);
    // The last of a message that is not whole may lack its padding.
    out.resize(out.len() + avp.whole.len().next_multiple_of(4) - avp.whole.len(), 0);
}
