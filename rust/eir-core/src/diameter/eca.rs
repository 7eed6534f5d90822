//! Writes ME-Identity-Check-Answers (3GPP TS 29.272 clause 7.2.20) and Device-Watchdog-Answers (RFC 6733 clause 5.5.2).
//!
//! Everything that is the same in every answer is written once, at start; an answer is the header, the request's
//! Session-Id, one of four prepared blocks and, where there are any, the request's Proxy-Info AVPs.

use super::avp::{self, Avps};
use super::ecr::Ecr;
use super::framing::{HEADER, Header, PROXIABLE};
use super::{APPLICATION_S13, COMMAND_DEVICE_WATCHDOG, COMMAND_ME_IDENTITY_CHECK, VENDOR_3GPP};
use crate::policy::Status;

const SUCCESS: u32 = 2001;
/// DIAMETER_ERROR_EQUIPMENT_UNKNOWN (3GPP TS 29.272 clause 7.4.3.2).
const EQUIPMENT_UNKNOWN: u32 = 5422;

/// The prepared parts of this node's answers.
#[derive(Debug)]
pub struct Answers {
    by_status: [Vec<u8>; 4],
    watchdog: Vec<u8>,
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
        Self { by_status: [known(Status::White), known(Status::Black), known(Status::Grey), unknown], watchdog }
    }

    /// Appends the answer to `ecr`, which was read from `request`.
    #[inline]
    pub fn write_eca(&self, out: &mut Vec<u8>, ecr: &Ecr<'_>, request: &[u8], status: Status) {
        let [white, black, grey, unknown] = &self.by_status;
        let block = match status {
            Status::White => white,
            Status::Black => black,
            Status::Grey => grey,
            Status::Unknown => unknown,
        };
        let start = out.len();
        let length = HEADER + ecr.session_id.len() + block.len();
        out.extend(header(&ecr.header, length, COMMAND_ME_IDENTITY_CHECK));
        out.extend_from_slice(ecr.session_id);
        out.extend_from_slice(block);
        if ecr.has_proxy_info {
            append_proxy_infos(out, request, start);
        }
    }

    /// Appends the answer to a Device-Watchdog-Request with that header.
    pub fn write_dwa(&self, out: &mut Vec<u8>, request: &Header) {
        out.extend(header(request, HEADER + self.watchdog.len(), COMMAND_DEVICE_WATCHDOG));
        out.extend_from_slice(&self.watchdog);
    }
}

/// The header of an answer: the request's identifiers and P bit, neither R nor T (RFC 6733 clause 6.2).
#[inline]
fn header(request: &Header, length: usize, command: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let words = [1 << 24 | length as u32, u32::from(request.flags & PROXIABLE) << 24 | command, request.application];
    for (place, word) in header.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    if let Some(place) = header.last_chunk_mut::<8>() {
        *place = request.identifiers;
    }
    header
}

/// Sends every Proxy-Info back, unchanged and in order (RFC 6733 clause 6.2), and makes the length right.
fn append_proxy_infos(out: &mut Vec<u8>, request: &[u8], start: usize) {
    let body = request.get(HEADER..).unwrap_or_default();
    for avp in Avps::new(body).flatten().filter(|avp| (avp.vendor, avp.code) == (0, 284)) {
        out.extend_from_slice(avp.whole);
    }
    let length = (out.len() - start) as u32;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&(1 << 24 | length).to_be_bytes());
    }
}
