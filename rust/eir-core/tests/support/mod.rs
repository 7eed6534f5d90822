//! What the tests share: Diameter messages written and read by code of their own, and snapshots from a few rows.
//!
//! Nothing here uses the encoder or the parser under test, so that a mistake in those cannot hide itself.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::io::Cursor;
use std::sync::Arc;

use eir_core::imei::{Imei, Imsi};
use eir_core::lists::{BuildOptions, FileKind, Snapshot, SnapshotBuilder};

pub const REQUEST: u8 = 0x80;
pub const PROXIABLE: u8 = 0x40;
pub const ERROR: u8 = 0x20;

pub const V: u8 = 0x80;
pub const M: u8 = 0x40;
pub const TGPP: u32 = 10_415;

pub const S13: u32 = 16_777_252;
pub const ECR: u32 = 324;
pub const DWR: u32 = 280;

/// An AVP from header to padding; the V bit in `flags` says whether `vendor` is written.
pub fn avp(code: u32, flags: u8, vendor: u32, data: &[u8]) -> Vec<u8> {
    let head = if flags & V == 0 { 8 } else { 12 };
    let mut bytes = raw_avp(code, flags, (head + data.len()) as u32, vendor, data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An AVP that says to have `length` octets, without padding.
pub fn raw_avp(code: u32, flags: u8, length: u32, vendor: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = code.to_be_bytes().to_vec();
    bytes.push(flags);
    bytes.extend(&length.to_be_bytes()[1..]);
    if flags & V != 0 {
        bytes.extend(vendor.to_be_bytes());
    }
    bytes.extend(data);
    bytes
}

/// A base protocol AVP with the M bit.
pub fn base(code: u32, data: &[u8]) -> Vec<u8> {
    avp(code, M, 0, data)
}

/// A 3GPP AVP with the V and M bits.
pub fn tgpp(code: u32, data: &[u8]) -> Vec<u8> {
    avp(code, V | M, TGPP, data)
}

pub fn session_id() -> Vec<u8> {
    base(263, b"mme.test;1;2")
}

pub fn vendor_specific_application_id() -> Vec<u8> {
    base(260, &[base(266, &TGPP.to_be_bytes()), base(258, &S13.to_be_bytes())].concat())
}

pub fn auth_session_state() -> Vec<u8> {
    base(277, &1u32.to_be_bytes())
}

pub fn origin_host() -> Vec<u8> {
    base(264, b"mme.test")
}

pub fn origin_realm() -> Vec<u8> {
    base(296, b"test")
}

pub fn destination_host() -> Vec<u8> {
    base(293, b"eir.test")
}

pub fn destination_realm() -> Vec<u8> {
    base(283, b"test")
}

pub fn imei_avp(digits: &[u8]) -> Vec<u8> {
    tgpp(1402, digits)
}

pub fn software_version() -> Vec<u8> {
    tgpp(1403, b"01")
}

pub fn terminal_information(children: &[Vec<u8>]) -> Vec<u8> {
    tgpp(1401, &children.concat())
}

pub fn user_name(digits: &str) -> Vec<u8> {
    base(1, digits.as_bytes())
}

/// A message with the AVPs in this order.
#[derive(Debug, Clone)]
pub struct Message {
    pub flags: u8,
    pub command: u32,
    pub application: u32,
    pub identifiers: [u8; 8],
    pub avps: Vec<Vec<u8>>,
}

impl Message {
    pub fn bytes(&self) -> Vec<u8> {
        let body = self.avps.concat();
        let length = (20 + body.len()) as u32;
        let mut bytes = (1 << 24 | length).to_be_bytes().to_vec();
        bytes.extend((u32::from(self.flags) << 24 | self.command).to_be_bytes());
        bytes.extend(self.application.to_be_bytes());
        bytes.extend(self.identifiers);
        bytes.extend(body);
        bytes
    }

    /// The same message with this AVP behind the others.
    pub fn with(mut self, avp: Vec<u8>) -> Self {
        self.avps.push(avp);
        self
    }

    /// The same message without its AVPs of this code.
    pub fn without(mut self, code: u32) -> Self {
        self.avps.retain(|avp| avp[..4] != code.to_be_bytes());
        self
    }

    pub fn numbered(mut self, number: u64) -> Self {
        self.identifiers = number.to_be_bytes();
        self
    }
}

/// An ECR as an MME sends it: every AVP that S13 names.
pub fn ecr(imei: &[u8], imsi: &str) -> Message {
    ecr_about(&[imei_avp(imei), software_version()], imsi)
}

/// An ECR with these AVPs in its Terminal-Information.
pub fn ecr_about(terminal: &[Vec<u8>], imsi: &str) -> Message {
    Message {
        flags: REQUEST | PROXIABLE,
        command: ECR,
        application: S13,
        identifiers: [1, 2, 3, 4, 5, 6, 7, 8],
        avps: vec![
            session_id(),
            vendor_specific_application_id(),
            auth_session_state(),
            origin_host(),
            origin_realm(),
            destination_host(),
            destination_realm(),
            terminal_information(terminal),
            user_name(imsi),
        ],
    }
}

/// An ECR from a client that sends no more than it must, without a subscriber.
pub fn bare_ecr(imei: &[u8]) -> Message {
    let mut message = ecr_about(&[imei_avp(imei)], "").without(1);
    for optional in [260, 293] {
        message = message.without(optional);
    }
    message
}

pub fn dwr() -> Message {
    let avps = vec![origin_host(), origin_realm(), base(278, &7u32.to_be_bytes())];
    Message { flags: REQUEST, command: DWR, application: 0, identifiers: [8, 7, 6, 5, 4, 3, 2, 1], avps }
}

pub fn cer() -> Message {
    let avps = vec![origin_host(), origin_realm(), base(258, &S13.to_be_bytes())];
    Message { flags: REQUEST, command: 257, application: 0, identifiers: [9; 8], avps }
}

/// An AVP as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadAvp {
    pub code: u32,
    pub flags: u8,
    pub vendor: u32,
    pub data: Vec<u8>,
}

/// A message as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub flags: u8,
    pub command: u32,
    pub application: u32,
    pub identifiers: [u8; 8],
    pub avps: Vec<ReadAvp>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn read_avps(mut bytes: &[u8]) -> Vec<ReadAvp> {
    let mut avps = Vec::new();
    while !bytes.is_empty() {
        let (flags, length) = (bytes[4], (word(bytes, 4) & 0x00FF_FFFF) as usize);
        let (vendor, head) = if flags & V == 0 { (0, 8) } else { (word(bytes, 8), 12) };
        let padded = length.next_multiple_of(4);
        assert!(bytes[length..padded].iter().all(|octet| *octet == 0), "padding is zero");
        avps.push(ReadAvp { code: word(bytes, 0), flags, vendor, data: bytes[head..length].to_vec() });
        bytes = &bytes[padded..];
    }
    avps
}

/// Reads exactly one message; fails the test where the bytes are anything else.
pub fn read_answer(bytes: &[u8]) -> Answer {
    assert_eq!(word(bytes, 0), 1 << 24 | bytes.len() as u32, "version 1 and the length of all there is");
    assert_eq!(bytes.len() % 4, 0);
    Answer {
        flags: bytes[4],
        command: word(bytes, 4) & 0x00FF_FFFF,
        application: word(bytes, 8),
        identifiers: bytes[12..20].try_into().unwrap(),
        avps: read_avps(&bytes[20..]),
    }
}

/// Takes the first message off the bytes, if it is whole.
pub fn take_message(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = (u32::from_be_bytes(*bytes.first_chunk()?) & 0x00FF_FFFF) as usize;
    (bytes.len() >= length).then(|| bytes.drain(..length).collect())
}

impl Answer {
    pub fn all(&self, vendor: u32, code: u32) -> Vec<&[u8]> {
        let right = |avp: &&ReadAvp| (avp.vendor, avp.code) == (vendor, code);
        self.avps.iter().filter(right).map(|avp| avp.data.as_slice()).collect()
    }

    fn number(&self, vendor: u32, code: u32) -> Option<u32> {
        match self.all(vendor, code)[..] {
            [] => None,
            [data] => Some(word(data, 0)),
            _ => panic!("more than one {code}"),
        }
    }

    /// Equipment-Status: 0 white, 1 black, 2 grey.
    pub fn status(&self) -> Option<u32> {
        self.number(TGPP, 1445)
    }

    pub fn result_code(&self) -> Option<u32> {
        self.number(0, 268)
    }

    /// (Vendor-Id, Experimental-Result-Code).
    pub fn experimental_result(&self) -> Option<(u32, u32)> {
        let group = *self.all(0, 297).first()?;
        match &read_avps(group)[..] {
            [vendor, code] if (vendor.code, code.code) == (266, 298) => {
                Some((word(&vendor.data, 0), word(&code.data, 0)))
            }
            other => panic!("{other:?}"),
        }
    }
}

pub const WHITE: Option<u32> = Some(0);
pub const BLACK: Option<u32> = Some(1);
pub const GREY: Option<u32> = Some(2);

/// A snapshot of these files, each as its kind and rows without a header; a row may leave out what its kind need not have.
pub fn snapshot(options: BuildOptions, files: &[(FileKind, &str)]) -> Arc<Snapshot> {
    let mut builder = SnapshotBuilder::new(BuildOptions { strict: true, ..options });
    for (kind, rows) in files {
        let columns = [kind.columns(), kind.optional()].concat();
        let filled = |row: &str| row.to_owned() + &",".repeat(columns.len() - row.split(',').count()) + "\n";
        let rows: String = rows.lines().map(filled).collect();
        let text = format!("{}\n{rows}", columns.join(","));
        builder.add(*kind, "test.csv", text.as_bytes(), &mut |_| {}).unwrap();
    }
    let mut file = Cursor::new(Vec::new());
    builder.finish(&mut file).unwrap();
    Arc::new(Snapshot::open(Box::new(file.into_inner())).unwrap())
}

pub fn imei(digits: &str) -> Imei {
    Imei::from_digits(digits.as_bytes()).unwrap()
}

pub fn imsi(digits: &str) -> Imsi {
    Imsi::from_digits(digits.as_bytes()).unwrap()
}
