//! Bytes in to bytes out, in process: what one ECR costs without sockets.
//!
//! `answer SNAPSHOT LISTED TACS COUNT IN_USE`: asks about COUNT devices drawn at random from the LISTED ones that the program
//! `lists` put over TACS TACs, but for a tenth of them, which no list knows and whose timer runs; prints one JSON line
//! with the percentiles of the time that one answer takes. As in a node, it is noted which devices are in use: in a table
//! of IN_USE octets (0: switched off) in which nine devices in ten have been seen today, and the others before. Reading the clock costs a good part of an answer's time, so
//! times are taken over groups of eight answers and divided.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use eir_bench::lists::{Devices, mix};
use eir_core::diameter::avp;
use eir_core::diameter::eca::Answers;
use eir_core::diameter::s13::{Caller, Door, Outcome};
use eir_core::grey::{GreyTable, Timer};
use eir_core::imei::{Imei, Imsi};
use eir_core::in_use::InUse;
use eir_core::journal::{Event, Journal, Progress};
use eir_core::lists::Overlay;
use eir_core::policy::{Policy, Prefix};
use eir_core::recent::Recent;
use eir_core::verdict::Facts;
use eir_node::snapshot_file;

/// Answers timed together.
const GROUP: usize = 8;

const SUBSCRIBER: &[u8] = b"001010000000001";

/// A journal that nothing is written to: every device here is known.
struct NoJournal;

impl Journal for NoJournal {
    fn append(&self, _: &Event) -> Option<u64> {
        None
    }

    fn available(&self) -> bool {
        false
    }

    fn progress(&self) -> Progress {
        Progress { written: u64::MAX, durable: u64::MAX }
    }
}

fn ecr(imei: Imei, number: u32) -> Vec<u8> {
    let mut body = Vec::new();
    avp::write(&mut body, 263, 0, format!("mme-0001.epc.test;1700000000;{number:010};s13").as_bytes());
    let mut application = Vec::new();
    avp::write(&mut application, 266, 0, &10_415u32.to_be_bytes());
    avp::write(&mut application, 258, 0, &16_777_252u32.to_be_bytes());
    avp::write(&mut body, 260, 0, &application);
    avp::write(&mut body, 277, 0, &1u32.to_be_bytes());
    avp::write(&mut body, 264, 0, b"mme-0001.epc.mnc001.mcc001.3gppnetwork.org");
    avp::write(&mut body, 296, 0, b"epc.mnc001.mcc001.3gppnetwork.org");
    avp::write(&mut body, 283, 0, b"epc.mnc001.mcc001.3gppnetwork.org");
    avp::write(&mut body, 1, 0, SUBSCRIBER);
    let mut terminal = Vec::new();
    avp::write(&mut terminal, 1402, 10_415, format!("{imei}0").as_bytes());
    avp::write(&mut terminal, 1403, 10_415, b"01");
    avp::write(&mut body, 1401, 10_415, &terminal);
    let length = (20 + body.len()) as u32;
    let mut message = (1 << 24 | length).to_be_bytes().to_vec();
    message.extend((0xc0 << 24 | 324u32).to_be_bytes());
    message.extend(16_777_252u32.to_be_bytes());
    message.extend(number.to_be_bytes());
    message.extend(number.to_be_bytes());
    message.extend(body);
    message
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [path, listed, tacs, count, octets] = arguments.as_slice() else {
        panic!("answer SNAPSHOT LISTED TACS COUNT IN_USE")
    };
    let number = |text: &String| text.parse::<u64>().expect("a number");
    let (devices, count) = (Devices { count: number(listed), tacs: number(tacs) }, number(count));
    let snapshot = snapshot_file::open(Path::new(path)).expect("a snapshot");
    let grey = GreyTable::default();
    let unlisted = |draw: u64| devices.device(devices.count + draw);
    for draw in (0..count).step_by(10) {
        grey.start(unlisted(draw), Timer { start: 1, deadline: u32::MAX }, || Some(1));
    }
    let policy = Policy {
        home_mccs: vec![1],
        test_tacs: ["0010", "0044", "0086", "0091"].into_iter().filter_map(Prefix::of_tac).collect(),
        ..Policy::default()
    };
    let answers =
        Answers::new("eir.epc.mnc001.mcc001.3gppnetwork.org", "epc.mnc001.mcc001.3gppnetwork.org", 1_700_000_000);
    let facts = Facts {
        snapshot: Some(&snapshot),
        overlay: &Overlay::default(),
        grey: &grey,
        policy: &policy,
        now: snapshot.header().created_at,
    };
    let today = facts.now / 86_400;
    let (in_use, recent) = (InUse::new(number(octets) as usize, today), Recent::default());
    let door = Door {
        facts,
        answers: &answers,
        journal: &NoJournal,
        in_use: Some(&in_use),
        recent: Some(&recent),
        caller: Caller::anyone(),
        ticks: 0,
    };

    let device = |draw| if draw % 10 == 0 { unlisted(draw) } else { devices.device(mix(draw) % devices.count) };
    let drawn: Vec<Imei> = (0..count).map(device).collect();
    for (place, imei) in drawn.iter().enumerate() {
        in_use.mark(*imei, Imsi::from_digits(SUBSCRIBER), today - u32::from(place % 10 == 0));
    }
    // As off a socket, requests lie in a few hot buffers: what is cold is what the answer looks up.
    let mut requests: [Vec<u8>; GROUP] = std::array::from_fn(|number| ecr(drawn[number], number as u32));
    let digits = requests[0].windows(15).position(|part| part == format!("{}0", drawn[0]).as_bytes()).expect("an IMEI");
    let mut out = Vec::with_capacity(1 << 16);
    let mut times = Vec::with_capacity(drawn.len() / GROUP);
    for group in drawn.chunks_exact(GROUP) {
        for (request, imei) in requests.iter_mut().zip(group) {
            write!(&mut request[digits..], "{imei}").expect("place for an IMEI");
        }
        out.clear();
        let begin = Instant::now();
        for request in &requests {
            door.handle(&[request.as_slice()], &mut out, |_, outcome, _| {
                assert!(matches!(outcome, Outcome::Answered(_)), "not answered: {outcome:?}");
            });
        }
        times.push(begin.elapsed().as_nanos() as f64 / GROUP as f64);
        std::hint::black_box(&out);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{{\"answer_ns_p50\": {:.1}, \"answer_ns_p99\": {:.1}, \"answers\": {}, \"request_octets\": {}, \"in_use\": {}}}",
        at(0.5),
        at(0.99),
        times.len() * GROUP,
        requests[0].len(),
        in_use.len()
    );
}
