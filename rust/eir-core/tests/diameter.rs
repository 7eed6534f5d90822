//! ME-Identity-Check and Device-Watchdog on the fast path, octet by octet: what is answered, how, and what is left to
//! the control plane.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use eir_core::diameter::avp::Avps;
use eir_core::diameter::eca::Answers;
use eir_core::diameter::ecr::{Ecr, KNOWN_3GPP, KNOWN_IETF, NotAnswerable};
use eir_core::diameter::framing::{Frame, Header, frame};
use eir_core::diameter::s13::{Answered, Caller, Door, Outcome};
use eir_core::grey::GreyTable;
use eir_core::imei::Malformed;
use eir_core::in_use::InUse;
use eir_core::journal::{Event, Journal, Progress};
use eir_core::lists::{BuildOptions, FileKind, Overlay, Snapshot};
use eir_core::policy::{Policy, Status};
use eir_core::recent::Recent;
use eir_core::verdict::{Facts, Rule};
use proptest::prelude::*;
use support::*;

const DEVICE: &[u8] = b"352099001761481";
const SUBSCRIBER: &str = "001010000000001";
const OTHER_VENDOR: u32 = 193;

/// A journal that is always down: no answer here is about timers.
struct NoJournal;

impl Journal for NoJournal {
    fn append(&self, _: &Event) -> Option<u64> {
        None
    }
    fn available(&self) -> bool {
        false
    }
    fn progress(&self) -> Progress {
        Progress::default()
    }
}

/// What a door needs: one white and one black device, all others are first attaches.
struct Desk {
    snapshot: std::sync::Arc<Snapshot>,
    overlay: Overlay,
    grey: GreyTable,
    policy: Policy,
    answers: Answers,
    in_use: InUse,
    recent: Recent,
}

impl Desk {
    fn new() -> Self {
        let devices = [(FileKind::Devices, "35209900176148,white,\n35209900176149,black,\n")];
        Self {
            snapshot: snapshot(BuildOptions { created_at: 1_000, ..BuildOptions::default() }, &devices),
            overlay: Overlay::default(),
            grey: GreyTable::default(),
            policy: Policy::default(),
            answers: Answers::new("eir.test", "test", 0x5555_AAAA),
            in_use: InUse::new(1 << 16, 0),
            recent: Recent::default(),
        }
    }

    fn handle(&self, message: &[u8]) -> (Outcome, Vec<u8>) {
        let (snapshot, now) = (Some(&*self.snapshot), 1_000);
        let facts =
            Facts { snapshot, deltas: None, overlay: &self.overlay, grey: &self.grey, policy: &self.policy, now };
        let door = Door {
            facts,
            answers: &self.answers,
            journal: &NoJournal,
            in_use: Some(&self.in_use),
            recent: Some(&self.recent),
            caller: Caller::anyone(),
            ticks: 0,
        };
        let together = |messages: &[&[u8]]| {
            let (mut out, mut outcomes) = (Vec::new(), Vec::new());
            door.handle(messages, &mut out, |_, outcome, _| outcomes.push(outcome));
            (outcomes, out)
        };
        let (mut outcomes, out) = together(&[message]);
        // In a group it is answered as it is alone.
        assert_eq!(together(&[message; 3]), (outcomes.repeat(3), out.repeat(3)));
        (outcomes.remove(0), out)
    }

    /// The answer to a request that must get one.
    fn answer(&self, request: &Message) -> Answer {
        let (outcome, out) = self.handle(&request.bytes());
        assert!(matches!(outcome, Outcome::Answered(_) | Outcome::Watchdog), "{outcome:?}");
        read_answer(&out)
    }

    fn assert_punted(&self, message: &[u8], what: &str) {
        assert_eq!(self.handle(message), (Outcome::Punt, Vec::new()), "{what}");
    }
}

/// Octets from hexadecimal text; what stands behind `#` is a comment.
fn hex(text: &str) -> Vec<u8> {
    let digits: String =
        text.lines().flat_map(|line| line.split('#').take(1)).flat_map(str::split_whitespace).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

// The vectors were written by hand, field by field, from RFC 6733 clauses 3 and 4 and the tables of
// 3GPP TS 29.272 clauses 7.2.19, 7.2.20 and 7.3; no encoder had a part in them.

const ECR_VECTOR: &str = "
    01 0000e8                    # version 1, 232 octets
    c0 000144                    # request, proxiable; 324 ME-Identity-Check
    01000024                     # 16777252 S13
    a1b2c3d4 00112233            # Hop-by-Hop, End-to-End
    00000107 40 000014           # Session-Id, 12 octets
      6d6d652e746573743b313b32   # mme.test;1;2
    00000104 40 000020           # Vendor-Specific-Application-Id
      0000010a 40 00000c 000028af  # Vendor-Id 10415
      00000102 40 00000c 01000024  # Auth-Application-Id 16777252
    00000115 40 00000c 00000001  # Auth-Session-State NO_STATE_MAINTAINED
    00000108 40 000010           # Origin-Host
      6d6d652e74657374           # mme.test
    00000128 40 00000c 74657374  # Origin-Realm test
    0000011b 40 00000c 74657374  # Destination-Realm test
    00000579 c0 000038 000028af  # Terminal-Information
      0000057a c0 00001b 000028af  # IMEI, 15 octets
        333532303939303031373631343831 00
      0000057b c0 00000e 000028af  # Software-Version, 2 octets
        3031 0000
    00000001 40 000017           # User-Name, 15 octets
      303031303130303030303030303031 00
    0000011c 40 00001c           # Proxy-Info
      00000118 40 000009 61 000000 # Proxy-Host a
      00000021 40 000008           # Proxy-State, empty
";

const ECA_VECTOR: &str = "
    01 0000a8                    # version 1, 168 octets
    40 000144                    # proxiable as the request; 324
    01000024
    a1b2c3d4 00112233            # as they came
    00000107 40 000014 6d6d652e746573743b313b32  # Session-Id as it came
    00000104 40 000020           # Vendor-Specific-Application-Id
      0000010a 40 00000c 000028af
      00000102 40 00000c 01000024
    0000010c 40 00000c 000007d1  # Result-Code 2001
    00000115 40 00000c 00000001  # Auth-Session-State NO_STATE_MAINTAINED
    00000108 40 000010 6569722e74657374  # Origin-Host eir.test
    00000128 40 00000c 74657374  # Origin-Realm test
    000005a5 c0 000010 000028af 00000000 # Equipment-Status WHITELISTED
    0000011c 40 00001c           # Proxy-Info as it came
      00000118 40 000009 61 000000
      00000021 40 000008
";

/// Of a 3GPP2-MEID alone: DIAMETER_ERROR_EQUIPMENT_UNKNOWN (3GPP TS 29.272 clause 7.4.3.2), hence neither Result-Code
/// nor Equipment-Status.
const UNKNOWN_VECTOR: &str = "
    01 000090                    # version 1, 144 octets
    40 000144 01000024 a1b2c3d4 00112233
    00000107 40 000014 6d6d652e746573743b313b32
    00000104 40 000020 0000010a 40 00000c 000028af 00000102 40 00000c 01000024
    00000129 40 000020           # Experimental-Result
      0000010a 40 00000c 000028af  # Vendor-Id 10415
      0000012a 40 00000c 0000152e  # Experimental-Result-Code 5422
    00000115 40 00000c 00000001
    00000108 40 000010 6569722e74657374
    00000128 40 00000c 74657374
";

const DWR_VECTOR: &str = "
    01 00003c 80 000118 00000000 00000001 00000002  # Device-Watchdog-Request, application 0
    00000108 40 000010 6d6d652e74657374  # Origin-Host
    00000128 40 00000c 74657374          # Origin-Realm
    00000116 40 00000c 00000007          # Origin-State-Id
";

const DWA_VECTOR: &str = "
    01 000048 00 000118 00000000 00000001 00000002
    0000010c 40 00000c 000007d1          # Result-Code 2001
    00000108 40 000010 6569722e74657374
    00000128 40 00000c 74657374
    00000116 40 00000c 5555aaaa          # Origin-State-Id of this start
";

#[test]
fn an_ecr_gets_this_eca_octet_by_octet() {
    let (outcome, out) = Desk::new().handle(&hex(ECR_VECTOR));
    let white = Answered { status: Status::White, rule: Some(Rule::White), not_started: false };
    assert_eq!(outcome, Outcome::Answered(white));
    assert_eq!(out, hex(ECA_VECTOR));
}

#[test]
fn a_meid_alone_gets_equipment_unknown_octet_by_octet() {
    let mut request = ecr_about(&[tgpp(1471, &[0xA0; 7])], SUBSCRIBER);
    request.identifiers = [0xA1, 0xB2, 0xC3, 0xD4, 0x00, 0x11, 0x22, 0x33];
    let (outcome, out) = Desk::new().handle(&request.bytes());
    let unknown = Answered { status: Status::Unknown, rule: None, not_started: false };
    assert_eq!(outcome, Outcome::Answered(unknown));
    assert_eq!(out, hex(UNKNOWN_VECTOR));
}

#[test]
fn a_dwr_gets_this_dwa_octet_by_octet() {
    assert_eq!(Desk::new().handle(&hex(DWR_VECTOR)), (Outcome::Watchdog, hex(DWA_VECTOR)));
}

#[test]
fn each_status_is_answered_with_its_number() {
    let desk = Desk::new();
    for (device, status) in [("35209900176148", WHITE), ("35209900176149", BLACK), ("35209900176150", GREY)] {
        let answer = desk.answer(&ecr(device.as_bytes(), SUBSCRIBER));
        assert_eq!((answer.status(), answer.result_code(), answer.experimental_result()), (status, Some(2001), None));
    }
}

#[test]
fn the_unknown_policy_answers_5422_and_no_status() {
    let mut desk = Desk::new();
    desk.policy.malformed = Status::Unknown;
    let answer = desk.answer(&ecr(b"no IMEI", SUBSCRIBER));
    assert_eq!(answer.experimental_result(), Some((TGPP, 5422)));
    assert_eq!((answer.status(), answer.result_code()), (None, None));
}

#[test]
fn an_answer_takes_over_p_and_identifiers_and_nothing_else_of_the_header() {
    let desk = Desk::new();
    // RFC 6733 clause 3: the reserved bits are ignored. R and T are never set in an answer, P is copied.
    for reserved_and_t in 0..ERROR {
        for proxiable in [0, PROXIABLE] {
            for message in [ecr(DEVICE, SUBSCRIBER), dwr()] {
                let request = Message { flags: REQUEST | proxiable | reserved_and_t, ..message }.numbered(77);
                let answer = desk.answer(&request);
                assert_eq!((answer.flags, answer.identifiers), (proxiable, 77u64.to_be_bytes()));
                assert_eq!((answer.command, answer.application), (request.command, request.application));
            }
        }
    }
}

#[test]
fn every_answer_has_each_avp_once_and_session_id_first() {
    let answer = Desk::new().answer(&ecr(DEVICE, SUBSCRIBER));
    let codes: Vec<_> = answer.avps.iter().map(|avp| avp.code).collect();
    assert_eq!(codes, [263, 260, 268, 277, 264, 296, 1445]);
    assert!(answer.avps.iter().all(|avp| avp.flags & M != 0), "each has the M bit");
    assert_eq!(answer.all(0, 263), [b"mme.test;1;2"]);
}

#[test]
fn what_real_clients_leave_out_is_not_missed() {
    let desk = Desk::new();
    for (left_out, message) in [
        ("nothing", ecr(DEVICE, SUBSCRIBER)),
        ("Vendor-Specific-Application-Id", ecr(DEVICE, SUBSCRIBER).without(260)),
        ("Destination-Host", ecr(DEVICE, SUBSCRIBER).without(293)),
        ("User-Name", ecr(DEVICE, SUBSCRIBER).without(1)),
        ("Software-Version", ecr_about(&[imei_avp(DEVICE)], SUBSCRIBER)),
        ("everything optional", bare_ecr(DEVICE)),
    ] {
        assert_eq!(desk.answer(&message).status(), WHITE, "without {left_out}");
    }
}

#[test]
fn what_s13_requires_is_required() {
    let desk = Desk::new();
    for code in [263, 277, 264, 296, 283, 1401] {
        desk.assert_punted(&ecr(DEVICE, SUBSCRIBER).without(code).bytes(), &format!("without {code}"));
    }
    desk.assert_punted(&ecr_about(&[], SUBSCRIBER).bytes(), "an empty Terminal-Information");
    desk.assert_punted(&ecr_about(&[software_version()], SUBSCRIBER).bytes(), "a Software-Version alone");
}

#[test]
fn what_is_tolerated_anywhere_does_not_change_the_answer() {
    let desk = Desk::new();
    let plain = desk.answer(&ecr(DEVICE, SUBSCRIBER));
    let features = [base(266, &TGPP.to_be_bytes()), avp(629, V, TGPP, &[0; 4]), avp(630, V, TGPP, &[0; 4])].concat();
    for (what, extra) in [
        ("Supported-Features", tgpp(628, &features)),
        ("a DRMP of no such priority", avp(301, 0, 0, &[0, 0, 0, 16])),
        ("a DRMP of no number", avp(301, 0, 0, &[5])),
        ("OC-OLR", base(623, &[])),
        ("Load", avp(650, 0, 0, &[])),
        ("MSISDN", tgpp(701, &[0x77, 0x10, 0x00, 0x00, 0x00, 0xF1])),
        ("a vendor's AVP without M", avp(9_999, V, OTHER_VENDOR, b"anything")),
        ("an unknown AVP without M", avp(70_000, 0, 0, b"x")),
        ("an empty unknown AVP", avp(70_001, 0, 0, b"")),
        ("Route-Record", base(282, b"dra.test")),
        ("two Route-Records", [base(282, b"dra1.test"), base(282, b"dra2.test")].concat()),
    ] {
        for place in 1..=9 {
            let mut message = ecr(DEVICE, SUBSCRIBER);
            message.avps.insert(place, extra.clone());
            assert_eq!(desk.answer(&message), plain, "{what} at {place}");
        }
    }
    let within = [avp(9_999, V, OTHER_VENDOR, b"anything"), imei_avp(DEVICE), avp(70_000, 0, 0, b"x")];
    assert_eq!(desk.answer(&ecr_about(&within, SUBSCRIBER)), plain, "within Terminal-Information");
}

#[test]
fn an_unknown_avp_with_the_m_bit_is_not_for_the_fast_path() {
    let desk = Desk::new();
    for (what, unknown) in [
        ("the IETF's", avp(70_000, M, 0, b"x")),
        ("3GPP's", avp(1, V | M, TGPP, b"x")),
        ("another vendor's with a code that 3GPP has", avp(1402, V | M, OTHER_VENDOR, DEVICE)),
        ("3GPP's code without a vendor", avp(1402, M, 0, DEVICE)),
    ] {
        desk.assert_punted(&ecr(DEVICE, SUBSCRIBER).with(unknown.clone()).bytes(), what);
        let inside = ecr_about(&[imei_avp(DEVICE), unknown], SUBSCRIBER);
        desk.assert_punted(&inside.bytes(), &format!("{what}, in Terminal-Information"));
    }
    for known in [KNOWN_IETF, KNOWN_3GPP] {
        assert!(known.is_sorted(), "it is searched by halves");
    }
}

#[test]
fn proxy_infos_go_back_unchanged_and_in_order_wherever_they_stand() {
    let desk = Desk::new();
    let proxy = |name: &str, state: &[u8]| base(284, &[base(280, name.as_bytes()), base(33, state)].concat());
    // The flags of the last say P, and its length is no multiple of four.
    let proxies = [proxy("a", &[0xFF, 0, 1]), proxy("b", b""), avp(284, M | 0x20, 0, &[1, 2, 3, 4, 5])];
    for places in [[1, 2, 3], [1, 5, 11], [9, 10, 11], [9, 3, 1]] {
        let mut message = ecr(DEVICE, SUBSCRIBER);
        for (place, proxy) in places.into_iter().zip(&proxies) {
            message.avps.insert(place, proxy.clone());
        }
        let order: Vec<_> = message.avps.iter().filter(|avp| avp[..4] == 284u32.to_be_bytes()).cloned().collect();
        let (_, out) = desk.handle(&message.bytes());
        assert!(out.ends_with(&order.concat()), "{places:?}");
        let answer = read_answer(&out);
        assert_eq!(answer.all(0, 284).len(), 3);
        assert_eq!(answer.status(), WHITE);
    }
    assert!(desk.answer(&ecr(DEVICE, SUBSCRIBER)).all(0, 284).is_empty());
}

#[test]
fn an_imei_has_14_to_16_digits_and_its_check_digit_says_nothing() {
    let desk = Desk::new();
    for digits in ["35209900176148", "352099001761481", "352099001761480", "352099001761489", "3520990017614899"] {
        assert_eq!(desk.answer(&ecr(digits.as_bytes(), SUBSCRIBER)).status(), WHITE, "{digits}");
    }
}

#[test]
fn what_is_no_imei_is_a_verdict_with_an_ordinary_answer() {
    let desk = Desk::new();
    for (what, octets) in [
        ("none", &b""[..]),
        ("13 digits", b"3520990017614"),
        ("17 digits", b"35209900176148123"),
        ("1000 digits", &[b'3'; 1000]),
        ("letters", b"35209900F761481"),
        ("all zero", b"000000000000000"),
        ("NULs", &[0; 15]),
        ("digits of another script", "٣٥٢٠٩٩٠".as_bytes()),
        ("a space", b"35209900 761481"),
        ("a sign", b"+35209900176148"),
    ] {
        let (outcome, out) = desk.handle(&ecr(octets, SUBSCRIBER).bytes());
        let malformed = Answered { status: Status::Black, rule: Some(Rule::Malformed), not_started: false };
        assert_eq!(outcome, Outcome::Answered(malformed), "{what}");
        assert_eq!(read_answer(&out).status(), BLACK);
    }
}

#[test]
fn text_that_is_not_utf8_cannot_be_decoded() {
    let desk = Desk::new();
    for broken in [&[0xFF; 15][..], &[0xC3], b"35209900176148\xFF", &[0xED, 0xA0, 0x80]] {
        desk.assert_punted(&ecr(broken, SUBSCRIBER).bytes(), "IMEI");
        desk.assert_punted(&ecr_about(&[imei_avp(DEVICE), tgpp(1403, broken)], SUBSCRIBER).bytes(), "Software-Version");
        desk.assert_punted(&ecr(DEVICE, SUBSCRIBER).without(1).with(base(1, broken)).bytes(), "User-Name");
        let mut message = ecr(DEVICE, SUBSCRIBER);
        message.avps[0] = base(263, broken);
        desk.assert_punted(&message.bytes(), "Session-Id");
    }
    // A 3GPP2-MEID is an OctetString.
    assert_eq!(desk.answer(&ecr_about(&[imei_avp(DEVICE), tgpp(1471, &[0xFF; 7])], SUBSCRIBER)).status(), WHITE);
}

#[test]
fn the_subscriber_is_read_where_user_name_is_an_imsi() {
    let read = |name: &str| Ecr::read(&ecr(DEVICE, name).bytes()).unwrap().imsi;
    assert_eq!(read(SUBSCRIBER), Some(imsi(SUBSCRIBER)));
    assert_eq!(read("00101012345678"), Some(imsi("00101012345678")));
    for name in ["", "00101", "0010100000000001", "001010000000001@test", "somebody", "٠٠١٠١٠"] {
        assert_eq!(read(name), None, "{name}");
    }
    assert_eq!(Ecr::read(&bare_ecr(DEVICE).bytes()).unwrap().imsi, None);
}

#[test]
fn an_imei_counts_before_a_meid_beside_it() {
    let meid = || tgpp(1471, &[1; 7]);
    let desk = Desk::new();
    for children in [[imei_avp(DEVICE), meid()], [meid(), imei_avp(DEVICE)]] {
        assert_eq!(desk.answer(&ecr_about(&children, SUBSCRIBER)).status(), WHITE);
    }
    let bytes = ecr_about(&[meid(), imei_avp(b"x")], SUBSCRIBER).bytes();
    assert_eq!(Ecr::read(&bytes).unwrap().imei, Some(Err(Malformed)));
}

#[test]
fn what_may_be_there_once_is_not_there_twice() {
    let desk = Desk::new();
    let whole = ecr(DEVICE, SUBSCRIBER);
    for twice in &whole.avps {
        desk.assert_punted(&whole.clone().with(twice.clone()).bytes(), &format!("{:?}", &twice[..4]));
    }
    let crowd = (0..64).fold(whole.clone(), |message, _| message.with(origin_host()));
    desk.assert_punted(&crowd.bytes(), "65 Origin-Hosts");
    for child in [imei_avp(DEVICE), software_version(), tgpp(1471, &[1; 7])] {
        let children = [imei_avp(DEVICE), software_version(), tgpp(1471, &[1; 7]), child.clone()];
        desk.assert_punted(&ecr_about(&children, SUBSCRIBER).bytes(), &format!("{:?} in the group", &child[..4]));
    }
}

#[test]
fn values_that_are_none_are_not_answered() {
    let desk = Desk::new();
    let with = |code: u32, data: &[u8]| ecr(DEVICE, SUBSCRIBER).without(code).with(base(code, data)).bytes();
    for (what, message) in [
        ("Auth-Session-State 2", with(277, &2u32.to_be_bytes())),
        ("Auth-Session-State of 3 octets", with(277, &[0, 0, 1])),
        ("Auth-Session-State of 8 octets", with(277, &[0; 8])),
        ("an empty Origin-Host", with(264, b"")),
        ("an Origin-Realm beyond ASCII", with(296, "тест".as_bytes())),
        ("an empty Destination-Realm", with(283, b"")),
        ("an empty Destination-Host", with(293, b"")),
        ("an application id of 2 octets", with(260, &base(258, &[0, 1]))),
        ("an unknown AVP with M among application ids", with(260, &base(70_000, &[]))),
    ] {
        desk.assert_punted(&message, what);
    }
    assert_eq!(read_answer(&desk.handle(&with(277, &0u32.to_be_bytes())).1).status(), WHITE, "STATE_MAINTAINED");
}

#[test]
fn other_headers_are_not_for_the_fast_path() {
    let desk = Desk::new();
    let message = || ecr(DEVICE, SUBSCRIBER);
    desk.assert_punted(&Message { flags: PROXIABLE, ..message() }.bytes(), "an answer");
    desk.assert_punted(&Message { flags: REQUEST | ERROR, ..message() }.bytes(), "a request with E");
    desk.assert_punted(&Message { application: 0, ..message() }.bytes(), "of another application");
    desk.assert_punted(&Message { application: S13 + 1, ..message() }.bytes(), "of another application");
    for command in [0, 257, 282, 316, 323, 325, 0xFF_FFFF] {
        desk.assert_punted(&Message { command, ..message() }.bytes(), "another command");
    }
    let mut version = message().bytes();
    for number in [0, 2, 255] {
        version[0] = number;
        desk.assert_punted(&version, "another version");
    }
}

#[test]
fn lengths_that_lie_are_never_believed() {
    let desk = Desk::new();
    for length in [0, 1, 7, 8, 11, 12, 13, 26, 28, 0xFF_FFFF] {
        // 27 would be right: 12 octets of header and 15 of digits.
        let lying = raw_avp(1402, V | M, length, TGPP, b"352099001761481\0");
        let message = ecr_about(std::slice::from_ref(&lying), SUBSCRIBER);
        let (outcome, out) = desk.handle(&message.bytes());
        match length {
            // Cut digits, and NULs taken for digits: no IMEI. 12 leaves none, and the rest cannot be walked.
            26 | 28 => assert!(matches!(outcome, Outcome::Answered(_)), "{length}: {outcome:?}"),
            _ => assert_eq!((outcome, out), (Outcome::Punt, Vec::new()), "{length}"),
        }
    }
    for code in [263, 264, 296, 283, 277, 1, 284, 282, 70_000] {
        for length in [0, 7, 0xFF_FFFF] {
            let lying = raw_avp(code, M, length, 0, b"mme.test");
            desk.assert_punted(&ecr(DEVICE, SUBSCRIBER).without(code).with(lying).bytes(), &format!("{code} {length}"));
        }
    }
    desk.assert_punted(&ecr(DEVICE, SUBSCRIBER).with(vec![0; 4]).bytes(), "four octets behind the last AVP");
    desk.assert_punted(&ecr(DEVICE, SUBSCRIBER).with(vec![0; 8]).bytes(), "an AVP of length 0");
    desk.assert_punted(&ecr(DEVICE, SUBSCRIBER).with(raw_avp(282, M, 9, 0, b"a")).bytes(), "no padding at the end");
}

#[test]
fn a_group_in_a_group_in_a_group_is_walked_no_deeper_than_needed() {
    let desk = Desk::new();
    let nested = (0..2_000).fold(Vec::new(), |inner, _| avp(1401, V, TGPP, &inner));
    desk.assert_punted(&ecr(DEVICE, SUBSCRIBER).without(1401).with(nested.clone()).bytes(), "no IMEI in it");
    assert_eq!(desk.answer(&ecr_about(&[imei_avp(DEVICE), nested], SUBSCRIBER)).status(), WHITE);
}

#[test]
fn a_message_cut_anywhere_is_punted_and_never_answered() {
    let desk = Desk::new();
    let whole = hex(ECR_VECTOR);
    for length in 0..whole.len() {
        let mut cut = whole[..length].to_vec();
        if length >= 4 {
            cut[..4].copy_from_slice(&(1 << 24 | length as u32).to_be_bytes());
        }
        let (outcome, out) = desk.handle(&cut);
        // The last two AVPs, User-Name (24 octets) and Proxy-Info (28), are optional: without them a message is whole.
        if [whole.len() - 28, whole.len() - 28 - 24].contains(&length) {
            assert_eq!(read_answer(&out).status(), WHITE);
        } else {
            assert_eq!((outcome, out.len()), (Outcome::Punt, 0), "cut to {length}");
        }
    }
}

#[test]
fn only_an_ordinary_watchdog_is_answered() {
    let desk = Desk::new();
    assert_eq!(desk.answer(&dwr()).result_code(), Some(2001));
    assert_eq!(desk.answer(&dwr().without(278)).result_code(), Some(2001), "Origin-State-Id is optional");
    for (what, message) in [
        ("no Origin-Host", dwr().without(264)),
        ("no Origin-Realm", dwr().without(296)),
        ("two Origin-Hosts", dwr().with(origin_host())),
        ("an empty Origin-Host", dwr().without(264).with(base(264, b""))),
        ("an Origin-State-Id of 3 octets", dwr().without(278).with(base(278, &[0, 0, 1]))),
        ("an AVP that has no place in it", dwr().with(session_id())),
        ("an answer", Message { flags: 0, ..dwr() }),
        ("the E bit", Message { flags: REQUEST | ERROR, ..dwr() }),
        ("another application", Message { application: S13, ..dwr() }),
        ("an overlong AVP", dwr().with(raw_avp(278, M, 13, 0, &[0; 4]))),
    ] {
        desk.assert_punted(&message.bytes(), what);
    }
}

#[test]
fn nothing_below_a_header_is_a_message() {
    let desk = Desk::new();
    for length in 0..20 {
        desk.assert_punted(&hex(ECR_VECTOR)[..length], "a part of a header");
    }
    desk.assert_punted(&hex(ECR_VECTOR)[..20], "a header alone");
}

/// AVPs that do not change the answer, in any number.
fn harmless() -> impl Strategy<Value = Vec<u8>> {
    let data = prop::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        (70_000u32..80_000, data.clone()).prop_map(|(code, data)| avp(code, 0, 0, &data)),
        (any::<u32>(), data.clone()).prop_map(|(code, data)| avp(code, V, OTHER_VENDOR, &data)),
        data.clone().prop_map(|data| base(282, &data)),
        data.prop_map(|data| tgpp(701, &data)),
    ]
}

/// Damage as a stream or a peer may do it.
#[derive(Debug, Clone)]
enum Damage {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, prop::sample::Index),
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            4 => (index(), any::<u8>()).prop_map(|(at, octet)| Self::Set(at, octet)),
            1 => index().prop_map(Self::Cut),
            1 => (index(), prop::collection::vec(any::<u8>(), 1..12)).prop_map(|(at, octets)| Self::Insert(at, octets)),
            1 => (index(), index()).prop_map(|(from, to)| Self::Repeat(from, to)),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Set(at, octet) => bytes[at.index(length)] = *octet,
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Insert(at, octets) => {
                let at = at.index(length);
                bytes.splice(at..at, octets.iter().copied());
            }
            Self::Repeat(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.extend(part);
            }
        }
    }
}

/// Whatever went in: nothing was written, or exactly one answer that a strict reader takes.
fn assert_one_answer_or_none(message: &[u8], outcome: Outcome, out: &[u8]) -> Result<(), TestCaseError> {
    match outcome {
        Outcome::Punt => prop_assert!(out.is_empty()),
        Outcome::Held(_) => prop_assert!(false, "nothing is held where the journal is down"),
        Outcome::Limited => prop_assert!(false, "nothing is limited"),
        Outcome::Answered(_) | Outcome::Watchdog => {
            prop_assert_eq!(frame(out, 1 << 24), Frame::Complete(out.len()));
            let answer = read_answer(out);
            prop_assert_eq!(&answer.identifiers[..], &message[12..20]);
            prop_assert_eq!(answer.flags, message[4] & PROXIABLE);
            prop_assert!(Avps::new(&out[20..]).all(|avp| avp.is_ok()));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_order_of_avps_behind_session_id_gets_the_same_answer(
        order in Just((1..9).collect::<Vec<usize>>()).prop_shuffle(),
        extra in prop::collection::vec((harmless(), any::<prop::sample::Index>()), 0..5),
        children in Just(vec![imei_avp(DEVICE), software_version(), tgpp(1471, &[7; 7])]).prop_shuffle(),
    ) {
        let desk = Desk::new();
        let plain = ecr_about(&children, SUBSCRIBER);
        let mut avps: Vec<_> = [0].into_iter().chain(order).map(|place| plain.avps[place].clone()).collect();
        for (avp, place) in extra {
            avps.insert(1 + place.index(avps.len()), avp);
        }
        let shuffled = Message { avps, ..plain.clone() };
        prop_assert_eq!(desk.answer(&shuffled), desk.answer(&plain));
        let bytes = shuffled.bytes();
        let read = Ecr::read(&bytes).unwrap();
        prop_assert_eq!((read.imei, read.imsi), (Some(Ok(imei("35209900176148"))), Some(imsi(SUBSCRIBER))));
    }

    #[test]
    fn any_imei_octets_are_answered_or_not_utf8(octets in prop::collection::vec(any::<u8>(), 0..40)) {
        let (outcome, out) = Desk::new().handle(&ecr(&octets, SUBSCRIBER).bytes());
        prop_assert_eq!(matches!(outcome, Outcome::Answered(_)), std::str::from_utf8(&octets).is_ok());
        prop_assert_eq!(out.is_empty(), outcome == Outcome::Punt);
    }

    #[test]
    fn any_session_id_and_identifiers_go_back(text in "\\PC{0,60}", identifiers: [u8; 8]) {
        let mut message = ecr(DEVICE, SUBSCRIBER);
        message.identifiers = identifiers;
        message.avps[0] = base(263, text.as_bytes());
        let answer = Desk::new().answer(&message);
        prop_assert_eq!(answer.identifiers, identifiers);
        prop_assert_eq!(answer.all(0, 263), [text.as_bytes()]);
        prop_assert_eq!(answer.avps[0].code, 263);
    }

    #[test]
    fn any_bytes_are_answered_once_or_punted(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (outcome, out) = Desk::new().handle(&bytes);
        assert_one_answer_or_none(&bytes, outcome, &out)?;
        // The same bytes behind a header that leads further in.
        let message = Message { avps: vec![session_id(), bytes], ..ecr(DEVICE, SUBSCRIBER) }.bytes();
        let (outcome, out) = Desk::new().handle(&message);
        assert_one_answer_or_none(&message, outcome, &out)?;
    }

    #[test]
    fn a_damaged_message_is_answered_once_or_punted(
        is_watchdog in prop::bool::weighted(0.2),
        damages in prop::collection::vec(Damage::any(), 1..6),
    ) {
        let mut bytes = hex(if is_watchdog { DWR_VECTOR } else { ECR_VECTOR });
        for damage in damages {
            damage.apply(&mut bytes);
        }
        let (outcome, out) = Desk::new().handle(&bytes);
        assert_one_answer_or_none(&bytes, outcome, &out)?;
        if Header::read(&bytes).is_none() {
            prop_assert_eq!(Ecr::read(&bytes).err(), Some(NotAnswerable));
        }
    }

    #[test]
    fn a_stream_is_cut_into_the_same_messages_however_it_arrives(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..8),
        pieces in prop::collection::vec(1usize..40, 1..60),
    ) {
        let messages: Vec<_> = bodies.into_iter().map(|body| Message { avps: vec![body], ..dwr() }.bytes()).collect();
        let stream = messages.concat();
        let (mut buffer, mut found, mut at) = (Vec::new(), Vec::new(), 0);
        for piece in pieces.into_iter().cycle().take(stream.len()) {
            let end = stream.len().min(at + piece);
            buffer.extend_from_slice(&stream[at..end]);
            at = end;
            loop {
                match frame(&buffer, 4096) {
                    Frame::Complete(length) => found.push(buffer.drain(..length).collect::<Vec<_>>()),
                    Frame::Incomplete(length) => {
                        prop_assert!(length > buffer.len());
                        break;
                    }
                    Frame::Unframeable => panic!("a sound stream"),
                }
            }
        }
        prop_assert_eq!(found, messages);
        prop_assert!(buffer.is_empty());
    }
}
