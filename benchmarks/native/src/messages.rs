//! Requests as clients write them, plain and with all that may be in one (3GPP TS 29.272 clause 7.2.19).
//!
//! Used by the programs that do not go through the load generator.

use std::net::Ipv4Addr;

use eir_core::diameter::avp;
use eir_core::imei::Imei;

const S13: u32 = 16_777_252;
const VENDOR_3GPP: u32 = 10_415;
const REALM: &str = "epc.mnc001.mcc001.3gppnetwork.org";

/// The subscriber of every request.
pub const SUBSCRIBER: &[u8] = b"001010000000001";

/// Which AVPs an ECR has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// What an MME sends.
    Plain,
    /// Ten optional AVPs, a Proxy-Info and a Route-Record.
    Full,
}

/// The ECR of that number about a device.
#[must_use]
pub fn ecr(origin_host: &str, imei: Imei, number: u32, shape: Shape) -> Vec<u8> {
    let full = shape == Shape::Full;
    let mut body = Vec::new();
    avp::write(&mut body, 263, 0, format!("mme-0001.epc.test;1700000000;{number:010};s13").as_bytes());
    if full {
        optional(&mut body, 301, 0, &10u32.to_be_bytes());
    }
    avp::write(&mut body, 260, 0, &group(&[(266, 0, &VENDOR_3GPP.to_be_bytes()), (258, 0, &S13.to_be_bytes())]));
    avp::write(&mut body, 277, 0, &1u32.to_be_bytes());
    avp::write(&mut body, 264, 0, origin_host.as_bytes());
    avp::write(&mut body, 296, 0, REALM.as_bytes());
    if full {
        avp::write(&mut body, 293, 0, format!("eir.{REALM}").as_bytes());
    }
    avp::write(&mut body, 283, 0, REALM.as_bytes());
    avp::write(&mut body, 1, 0, SUBSCRIBER);
    let terminal = group(&[(1402, VENDOR_3GPP, format!("{imei}0").as_bytes()), (1403, VENDOR_3GPP, b"01")]);
    avp::write(&mut body, 1401, VENDOR_3GPP, &terminal);
    if full {
        more(&mut body, origin_host);
    }
    message(0xc0, 324, S13, number, &body)
}

/// MSISDN, OC-Supported-Features, Supported-Features, Load and an AVP that nobody knows, and what agents add.
fn more(body: &mut Vec<u8>, origin_host: &str) {
    avp::write(body, 701, VENDOR_3GPP, &[0x99, 0x19, 0x32, 0x54, 0x76, 0x98]);
    optional(body, 621, 0, &group(&[(622, 0, &1u64.to_be_bytes())]));
    let features: [(u32, u32, &[u8]); 3] =
        [(266, 0, &VENDOR_3GPP.to_be_bytes()), (629, VENDOR_3GPP, &[0, 0, 0, 1]), (630, VENDOR_3GPP, &[0, 0, 0, 1])];
    optional(body, 628, VENDOR_3GPP, &group(&features));
    let load: [(u32, u32, &[u8]); 3] =
        [(651, 0, &[0, 0, 0, 1]), (652, 0, &32_768u64.to_be_bytes()), (649, 0, origin_host.as_bytes())];
    optional(body, 650, 0, &group(&load));
    optional(body, 65_000, VENDOR_3GPP, b"vendor's own");
    let proxy = group(&[(280, 0, format!("dra.{REALM}").as_bytes()), (33, 0, b"0123456789abcdef")]);
    avp::write(body, 284, 0, &proxy);
    avp::write(body, 282, 0, origin_host.as_bytes());
}

/// A CER of this Origin-Host.
#[must_use]
pub fn cer(origin_host: &str, realm: &str, origin_state: u32) -> Vec<u8> {
    let mut body = Vec::new();
    avp::write(&mut body, 264, 0, origin_host.as_bytes());
    avp::write(&mut body, 296, 0, realm.as_bytes());
    let address = [&[0, 1], &Ipv4Addr::LOCALHOST.octets()[..]].concat();
    avp::write(&mut body, 257, 0, &address);
    avp::write(&mut body, 266, 0, &VENDOR_3GPP.to_be_bytes());
    optional(&mut body, 269, 0, b"benchmark");
    avp::write(&mut body, 278, 0, &origin_state.to_be_bytes());
    avp::write(&mut body, 260, 0, &group(&[(266, 0, &VENDOR_3GPP.to_be_bytes()), (258, 0, &S13.to_be_bytes())]));
    message(0x80, 257, 0, 1, &body)
}

fn group(avps: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (code, vendor, value) in avps {
        avp::write(&mut data, *code, *vendor, value);
    }
    data
}

/// An AVP without the M bit.
fn optional(body: &mut Vec<u8>, code: u32, vendor: u32, data: &[u8]) {
    let flags_at = body.len() + 4;
    avp::write(body, code, vendor, data);
    body[flags_at] &= !avp::MANDATORY;
}

fn message(flags: u32, command: u32, application: u32, number: u32, body: &[u8]) -> Vec<u8> {
    let length = (20 + body.len()) as u32;
    let words = [1 << 24 | length, flags << 24 | command, application, number, number];
    words.into_iter().flat_map(u32::to_be_bytes).chain(body.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use eir_core::diameter::avp::Avps;
    use eir_core::diameter::ecr::{Ecr, ProxyInfos};

    use super::*;

    #[test]
    fn both_shapes_are_requests_that_the_node_answers() {
        let imei = Imei::from_number(35_209_900_176_148).unwrap();
        let [plain, full] = [Shape::Plain, Shape::Full].map(|shape| ecr("mme.test", imei, 7, shape));
        let counts = [&plain, &full].map(|message| Avps::new(&message[20..]).filter_map(Result::ok).count());
        assert_eq!(counts, [8, 17]);
        assert!(Ecr::read(&plain).is_ok_and(|ecr| ecr.msisdn.is_none() && ecr.proxy_infos == ProxyInfos::None));
        assert!(Ecr::read(&full).is_ok_and(|ecr| ecr.msisdn.is_some() && ecr.proxy_infos != ProxyInfos::None));
    }
}
