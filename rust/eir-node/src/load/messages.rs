//! What the load generator sends: capability exchange, watchdog answer, disconnect, and the ECR.
//!
//! RFC 6733 clauses 5.3 to 5.5 and 3GPP TS 29.272 clause 6.2.1.1. Called by `peer`. The rare messages are built AVP by
//! AVP; an ECR is a template of its connection with the changing digits written over, so that one costs a copy and a few
//! stores.

use std::net::IpAddr;

use super::answers::{HEADER, Message};
use super::identities::Identity;
use super::{ImeiDigits, LoadPlan};

/// Capabilities-Exchange.
pub(super) const CAPABILITIES_EXCHANGE: u32 = 257;
/// Device-Watchdog.
pub(super) const DEVICE_WATCHDOG: u32 = 280;
/// Disconnect-Peer.
pub(super) const DISCONNECT_PEER: u32 = 282;
/// ME-Identity-Check.
pub(super) const ME_IDENTITY_CHECK: u32 = 324;

/// DIAMETER_SUCCESS.
pub(super) const SUCCESS: u32 = 2001;

const S13: u32 = 16_777_252;
const VENDOR_3GPP: u32 = 10415;

const REQUEST: u8 = 0x80;
const REQUEST_PROXIABLE: u8 = 0xC0;
const ANSWER: u8 = 0;

const MANDATORY: u8 = 0x40;
const VENDOR: u8 = 0x80;

const USER_NAME: u32 = 1;
const HOST_IP_ADDRESS: u32 = 257;
const AUTH_APPLICATION_ID: u32 = 258;
const VENDOR_SPECIFIC_APPLICATION_ID: u32 = 260;
const SESSION_ID: u32 = 263;
const ORIGIN_HOST: u32 = 264;
const SUPPORTED_VENDOR_ID: u32 = 265;
const VENDOR_ID: u32 = 266;
const RESULT_CODE: u32 = 268;
const PRODUCT_NAME: u32 = 269;
const DISCONNECT_CAUSE: u32 = 273;
const AUTH_SESSION_STATE: u32 = 277;
const ORIGIN_STATE_ID: u32 = 278;
const DESTINATION_REALM: u32 = 283;
const ORIGIN_REALM: u32 = 296;
const TERMINAL_INFORMATION: u32 = 1401;
const IMEI: u32 = 1402;
const SOFTWARE_VERSION: u32 = 1403;
const PROXY_STATE: u32 = 33;
const PROXY_HOST: u32 = 280;
const ROUTE_RECORD: u32 = 282;
const PROXY_INFO: u32 = 284;
const DESTINATION_HOST: u32 = 293;
const DRMP: u32 = 301;
const OC_SUPPORTED_FEATURES: u32 = 621;
const OC_FEATURE_VECTOR: u32 = 622;
const SUPPORTED_FEATURES: u32 = 628;
const FEATURE_LIST_ID: u32 = 629;
const FEATURE_LIST: u32 = 630;
const SOURCE_ID: u32 = 649;
const LOAD: u32 = 650;
const LOAD_TYPE: u32 = 651;
const LOAD_VALUE: u32 = 652;
const MSISDN: u32 = 701;
/// A code of 3GPP's that no specification uses.
const OF_NO_STANDARD: u32 = 65_000;

/// PRIORITY_10, which is that of a request that says nothing (RFC 7944 clause 9.1).
const ORDINARY: u32 = 10;
/// +999 123456789 in TBCD (3GPP TS 29.329 clause 6.3.2): 999 is nobody's country code.
const TEST_MSISDN: [u8; 6] = [0x99, 0x19, 0x32, 0x54, 0x76, 0x98];

/// NO_STATE_MAINTAINED.
const NO_STATE: u32 = 1;
/// DO_NOT_WANT_TO_TALK_TO_YOU: the connection is not needed any more (RFC 6733 clause 5.4.3).
const NOT_NEEDED: u32 = 2;

/// Who one connection says it is.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// Origin-Host.
    pub host: String,
    /// Origin-Realm.
    pub realm: String,
    /// Origin-State-Id, and the high half of its Session-Ids: the second at which the run began.
    pub state: u32,
}

impl Origin {
    /// The CER, with S13 as the only application.
    pub(super) fn cer(&self, local: IpAddr, hop_by_hop: u32) -> Vec<u8> {
        let mut cer = Builder::new(REQUEST, CAPABILITIES_EXCHANGE, 0, hop_by_hop, hop_by_hop);
        self.write(&mut cer);
        // Address (RFC 6733 clause 4.3.1): the family's number, then the octets.
        let address = match local {
            IpAddr::V4(address) => [&[0, 1], &address.octets()[..]].concat(),
            IpAddr::V6(address) => [&[0, 2], &address.octets()[..]].concat(),
        };
        cer.avp(HOST_IP_ADDRESS, MANDATORY, &address);
        cer.number(VENDOR_ID, 0);
        cer.avp(PRODUCT_NAME, 0, b"eir load");
        cer.number(ORIGIN_STATE_ID, self.state);
        cer.number(SUPPORTED_VENDOR_ID, VENDOR_3GPP);
        cer.s13();
        cer.finish()
    }

    /// The DPR with which a connection ends.
    pub(super) fn dpr(&self, hop_by_hop: u32) -> Vec<u8> {
        let mut dpr = Builder::new(REQUEST, DISCONNECT_PEER, 0, hop_by_hop, hop_by_hop);
        self.write(&mut dpr);
        dpr.number(DISCONNECT_CAUSE, NOT_NEEDED);
        dpr.finish()
    }

    /// A DWA or DPA to the peer's request.
    pub(super) fn success(&self, request: &Message<'_>) -> Vec<u8> {
        let mut answer = Builder::new(ANSWER, request.command, 0, request.hop_by_hop, request.end_to_end);
        answer.number(RESULT_CODE, SUCCESS);
        self.write(&mut answer);
        if request.command == DEVICE_WATCHDOG {
            answer.number(ORIGIN_STATE_ID, self.state);
        }
        answer.finish()
    }

    fn write(&self, message: &mut Builder) {
        message.avp(ORIGIN_HOST, MANDATORY, self.host.as_bytes());
        message.avp(ORIGIN_REALM, MANDATORY, self.realm.as_bytes());
    }
}

/// The ECR of one connection, and where in it the changing octets are.
pub(super) struct EcrTemplate {
    bytes: Vec<u8>,
    serial_at: usize,
    imsi_at: Option<usize>,
    imei_at: usize,
}

impl EcrTemplate {
    pub(super) fn new(origin: &Origin, plan: &LoadPlan) -> Self {
        let mut ecr = Builder::new(REQUEST_PROXIABLE, ME_IDENTITY_CHECK, S13, 0, 0);
        // RFC 6733 clause 8.8: <DiameterIdentity>;<high 32 bits>;<low 32 bits>, of which the low ones change.
        let session = format!("{};{};", origin.host, origin.state);
        let serial_at = ecr.avp(SESSION_ID, MANDATORY, format!("{session}0000000000").as_bytes()) + session.len();
        if plan.full {
            ecr.avp(DRMP, 0, &ORDINARY.to_be_bytes());
        }
        ecr.s13();
        ecr.number(AUTH_SESSION_STATE, NO_STATE);
        origin.write(&mut ecr);
        if plan.full {
            ecr.avp(DESTINATION_HOST, MANDATORY, format!("eir.{}", plan.destination_realm).as_bytes());
        }
        ecr.avp(DESTINATION_REALM, MANDATORY, plan.destination_realm.as_bytes());
        let imsi_at = plan.imsis.is_some().then(|| ecr.avp(USER_NAME, MANDATORY, &[b'0'; 15]));
        let terminal = ecr.open_group(TERMINAL_INFORMATION, MANDATORY | VENDOR);
        let imei_at = match plan.imei_digits {
            ImeiDigits::Fourteen => ecr.avp(IMEI, MANDATORY | VENDOR, &[b'0'; 14]),
            ImeiDigits::Fifteen => ecr.avp(IMEI, MANDATORY | VENDOR, &[b'0'; 15]),
        };
        ecr.avp(SOFTWARE_VERSION, MANDATORY | VENDOR, b"01");
        ecr.close_group(terminal);
        if plan.full {
            ecr.more(origin);
        }
        Self { bytes: ecr.finish(), serial_at, imsi_at, imei_at }
    }

    /// Appends one ECR. `serial` becomes the End-to-End Identifier and the end of the Session-Id, so it must not repeat
    /// within a run for a long time.
    #[inline]
    pub(super) fn append(&self, out: &mut Vec<u8>, hop_by_hop: u32, serial: u32, identity: Identity) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        // The copy is patched, not the template: a copy right after narrow stores would wait for them.
        let message = out.get_mut(start..).unwrap_or_default();
        put(message, 12, hop_by_hop.to_be_bytes());
        put(message, 16, serial.to_be_bytes());
        put(message, self.serial_at, digits::<10>(u64::from(serial)));
        if let Some(at) = self.imsi_at {
            put(message, at, digits::<15>(identity.imsi));
        }
        // A 15th digit stays the template's 0.
        put(message, self.imei_at, digits::<14>(identity.imei));
    }

    /// Octets of one ECR.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// The last `N` (at most 16) decimal digits of a number below 10^16, in ASCII.
#[inline]
fn digits<const N: usize>(number: u64) -> [u8; N] {
    let [high, low] = [number / 100_000_000, number % 100_000_000].map(eight_digits);
    let all = (u128::from(high) | u128::from(low) << 64).to_le_bytes();
    all.last_chunk().copied().unwrap_or([b'0'; N])
}

/// Eight digits of a number below 10^8, the first in the lowest octet: halves, quarters and eighths are divided in the
/// lanes of one register, because digit by digit each division would wait for the one before.
#[inline]
fn eight_digits(number: u64) -> u64 {
    let halves = (number / 10_000) | (number % 10_000) << 32;
    let hundreds = ((halves * 10_486) >> 20) & 0x0000_007F_0000_007F;
    let quarters = hundreds | (halves - 100 * hundreds) << 16;
    let tens = ((quarters * 103) >> 10) & 0x000F_000F_000F_000F;
    let eighths = tens | (quarters - 10 * tens) << 8;
    eighths | 0x3030_3030_3030_3030
}

/// Overwrites `N` octets. The template's own offsets are always inside it.
#[inline]
fn put<const N: usize>(message: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = message.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value;
    }
}

/// A message in the making. Lengths are small by [`super::LoadPlan`]'s check and fit their 24 bits.
struct Builder(Vec<u8>);

impl Builder {
    fn new(flags: u8, command: u32, application: u32, hop_by_hop: u32, end_to_end: u32) -> Self {
        let mut bytes = Vec::with_capacity(512);
        for word in [1 << 24, u32::from(flags) << 24 | command, application, hop_by_hop, end_to_end] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        debug_assert_eq!(bytes.len(), HEADER);
        Self(bytes)
    }

    /// Appends an AVP and returns where its data begins. AVPs with the V bit are 3GPP's.
    fn avp(&mut self, code: u32, flags: u8, data: &[u8]) -> usize {
        let group = self.open_group(code, flags);
        let data_at = self.0.len();
        self.0.extend_from_slice(data);
        self.close_group(group);
        data_at
    }

    fn number(&mut self, code: u32, value: u32) {
        self.avp(code, MANDATORY, &value.to_be_bytes());
    }

    fn s13(&mut self) {
        let group = self.open_group(VENDOR_SPECIFIC_APPLICATION_ID, MANDATORY);
        self.number(VENDOR_ID, VENDOR_3GPP);
        self.number(AUTH_APPLICATION_ID, S13);
        self.close_group(group);
    }

    /// What clients add to an ECR without its being asked for, and what agents do.
    fn more(&mut self, origin: &Origin) {
        self.avp(MSISDN, MANDATORY | VENDOR, &TEST_MSISDN);
        let overload = self.open_group(OC_SUPPORTED_FEATURES, 0);
        self.avp(OC_FEATURE_VECTOR, 0, &1u64.to_be_bytes());
        self.close_group(overload);
        let features = self.open_group(SUPPORTED_FEATURES, VENDOR);
        self.number(VENDOR_ID, VENDOR_3GPP);
        self.avp(FEATURE_LIST_ID, VENDOR, &1u32.to_be_bytes());
        self.avp(FEATURE_LIST, VENDOR, &1u32.to_be_bytes());
        self.close_group(features);
        let load = self.open_group(LOAD, 0);
        self.avp(LOAD_TYPE, 0, &1u32.to_be_bytes());
        self.avp(LOAD_VALUE, 0, &32_768u64.to_be_bytes());
        self.avp(SOURCE_ID, 0, origin.host.as_bytes());
        self.close_group(load);
        self.avp(OF_NO_STANDARD, VENDOR, b"vendor's own");
        let proxy = self.open_group(PROXY_INFO, MANDATORY);
        self.avp(PROXY_HOST, MANDATORY, format!("dra.{}", origin.realm).as_bytes());
        self.avp(PROXY_STATE, MANDATORY, b"0123456789abcdef");
        self.close_group(proxy);
        self.avp(ROUTE_RECORD, MANDATORY, origin.host.as_bytes());
    }

    /// Begins a grouped AVP; what is appended until [`Builder::close_group`] is inside it.
    fn open_group(&mut self, code: u32, flags: u8) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&code.to_be_bytes());
        self.0.extend_from_slice(&[flags, 0, 0, 0]);
        if flags & VENDOR != 0 {
            self.0.extend_from_slice(&VENDOR_3GPP.to_be_bytes());
        }
        start
    }

    fn close_group(&mut self, start: usize) {
        let [_, length @ ..] = ((self.0.len() - start) as u32).to_be_bytes();
        put(&mut self.0, start + 5, length);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let [_, length @ ..] = (self.0.len() as u32).to_be_bytes();
        put(&mut self.0, 1, length);
        self.0
    }
}

/// Octets of a vector in hexadecimal, in which spaces and line ends are ignored.
#[cfg(test)]
pub(super) fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::answers::next_message;
    use super::super::{ImeiSource, ImsiPick, ImsiSource, LoadMode};
    use super::*;
    use eir_core::diameter::avp::Avps;
    use eir_core::diameter::ecr::{Ecr, ProxyInfos};

    fn origin() -> Origin {
        Origin { host: "l-0001.test".to_owned(), realm: "test".to_owned(), state: 1_700_000_000 }
    }

    fn plan(imsis: Option<ImsiSource>, imei_digits: ImeiDigits, destination_realm: &str) -> LoadPlan {
        let mode = LoadMode::Closed { window: 1 };
        let mut plan = LoadPlan::new(([127, 0, 0, 1], 3868).into(), mode, ImeiSource::Walk(0..1));
        (plan.imsis, plan.imei_digits) = (imsis, imei_digits);
        plan.destination_realm = destination_realm.to_owned();
        plan
    }

    const SOME_IMSI: Option<ImsiSource> =
        Some(ImsiSource { base: 1_010_000_000_000, count: 1, pick: ImsiPick::PerDevice });

    /// Written by hand after RFC 6733 clause 5.3.1: Origin-Host, Origin-Realm, Host-IP-Address 127.0.0.1, Vendor-Id 0,
    /// Product-Name "eir load" (no M), Origin-State-Id, Supported-Vendor-Id 10415, S13 in the VSAI.
    #[test]
    fn a_cer_is_what_the_rfc_says() {
        let expected = from_hex(
            "01000098 80000101 00000000 00000007 00000007 \
             00000108 40000013 6c2d3030 30312e74 65737400  00000128 4000000c 74657374 \
             00000101 4000000e 00017f00 00010000  0000010a 4000000c 00000000 \
             0000010d 00000010 65697220 6c6f6164  00000116 4000000c 6553f100 \
             00000109 4000000c 000028af  00000104 40000020 0000010a 4000000c 000028af 00000102 4000000c 01000024",
        );
        assert_eq!(origin().cer(IpAddr::from([127, 0, 0, 1]), 7), expected);
    }

    #[test]
    fn a_watchdog_is_answered_with_its_identifiers() {
        let dwr = from_hex("01000014 80000118 00000000 deadbeef 01020304");
        let (request, _) = next_message(&dwr).unwrap().unwrap();
        let expected = from_hex(
            "0100004c 00000118 00000000 deadbeef 01020304  0000010c 4000000c 000007d1 \
             00000108 40000013 6c2d3030 30312e74 65737400  00000128 4000000c 74657374  00000116 4000000c 6553f100",
        );
        assert_eq!(origin().success(&request), expected);
    }

    /// Written by hand after 3GPP TS 29.272 clause 6.2.1.1: Session-Id "l-0001.test;1700000000;0000000042", VSAI,
    /// Auth-Session-State 1, origin, Destination-Realm "eir", User-Name 001010123456789, Terminal-Information
    /// {IMEI 352099001761480, Software-Version 01}.
    #[test]
    fn an_ecr_carries_the_identity_in_its_template() {
        let template = EcrTemplate::new(&origin(), &plan(SOME_IMSI, ImeiDigits::Fifteen, "eir"));
        let mut out = b"before".to_vec();
        template.append(&mut out, 0x0003_0001, 42, Identity { imei: 35_209_900_176_148, imsi: 1_010_123_456_789 });
        let expected = from_hex(
            "010000e8 c0000144 01000024 00030001 0000002a \
             00000107 40000029 6c2d3030 30312e74 6573743b 31373030 30303030 30303b30 30303030 30303034 32000000 \
             00000104 40000020 0000010a 4000000c 000028af 00000102 4000000c 01000024  00000115 4000000c 00000001 \
             00000108 40000013 6c2d3030 30312e74 65737400  00000128 4000000c 74657374  0000011b 4000000b 65697200 \
             00000001 40000017 30303130 31303132 33343536 37383900 \
             00000579 c0000038 000028af  0000057a c000001b 000028af 33353230 39393030 31373631 34383000 \
             0000057b c000000e 000028af 30310000",
        );
        assert_eq!(out.split_off(6), expected);
        assert_eq!(template.len(), expected.len());
    }

    #[test]
    fn an_imei_of_14_digits_and_no_imsi() {
        let template = EcrTemplate::new(&origin(), &plan(None, ImeiDigits::Fourteen, "eir"));
        let mut out = Vec::new();
        template.append(&mut out, 0, 0, Identity { imei: 1, imsi: 0 });
        let tail = from_hex(
            "00000579 c0000038 000028af  0000057a c000001a 000028af 30303030 30303030 30303030 30310000 \
             0000057b c000000e 000028af 30310000",
        );
        assert!(out.ends_with(&tail));
        assert_eq!(out.len(), 232 - 24);
    }

    #[test]
    fn a_full_ecr_has_ten_optional_avps_and_what_agents_add() {
        let mut plan = plan(SOME_IMSI, ImeiDigits::Fifteen, "eir");
        plan.full = true;
        let mut out = Vec::new();
        let identity = Identity { imei: 35_209_900_176_148, imsi: 1_010_123_456_789 };
        EcrTemplate::new(&origin(), &plan).append(&mut out, 1, 1, identity);
        let codes: Vec<u32> = Avps::new(&out[HEADER..]).map(|avp| avp.unwrap().code).collect();
        let expected = [263, 301, 260, 277, 264, 296, 293, 283, 1, 1401, 701, 621, 628, 650, 65_000, 284, 282];
        assert_eq!(codes, expected);
        // Mandatory are six of them, Terminal-Information with a Software-Version inside it, which is the tenth.
        let ecr = Ecr::read(&out).unwrap();
        assert_eq!(ecr.imei.unwrap().unwrap().number(), identity.imei);
        assert!(ecr.imsi.is_some() && ecr.msisdn.is_some() && ecr.proxy_infos != ProxyInfos::None);
    }

    #[test]
    fn digits_are_those_that_format_writes() {
        for number in [0, 7, 99, 12_345_678, 99_999_999, 100_000_000, 35_209_900_176_148, 9_999_999_999_999_999] {
            assert_eq!(digits::<16>(number), format!("{number:016}").as_bytes(), "{number}");
        }
        for number in (0..100_000_000).step_by(977) {
            assert_eq!(eight_digits(number).to_le_bytes(), format!("{number:08}").as_bytes(), "{number}");
        }
        assert_eq!(&digits::<14>(35_209_900_176_148), b"35209900176148");
    }
}
