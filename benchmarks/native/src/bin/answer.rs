//! Bytes in to bytes out, in process: what one ECR costs without sockets.
//!
//! `answer SNAPSHOT LISTED TACS COUNT IN_USE`: asks about COUNT devices drawn at random from the LISTED ones that the program
//! `lists` put over TACS TACs, but for a tenth of them, which no list knows and whose timer runs; prints one JSON line
//! with the percentiles of the time that one answer takes. As in a node, it is noted which devices are in use: in a table
//! of IN_USE octets (0: switched off) in which nine devices in ten have been seen today, and the others before. Reading the clock costs a good part of an answer's time, so
//! times are taken over groups of eight answers and divided. Every other block of some thousand requests has all that may be in
//! one (`full`).

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use eir_bench::lists::{Devices, mix};
use eir_bench::messages::{SUBSCRIBER, Shape, ecr};
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

/// Requests of one shape before it is the other's turn.
const BLOCK: usize = 1000 * GROUP;

const ORIGIN_HOST: &str = "mme-0001.epc.mnc001.mcc001.3gppnetwork.org";

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

/// The requests of one shape, in a few hot buffers as off a socket: what is cold is what the answer looks up.
struct Asked {
    requests: [Vec<u8>; GROUP],
    /// Where the IMEI is in them.
    digits: usize,
    times: Vec<f64>,
}

impl Asked {
    fn new(shape: Shape, some: Imei) -> Self {
        let requests: [Vec<u8>; GROUP] = std::array::from_fn(|number| ecr(ORIGIN_HOST, some, number as u32, shape));
        let digits = requests[0].windows(15).position(|part| part == format!("{some}0").as_bytes()).expect("an IMEI");
        Self { requests, digits, times: Vec::new() }
    }

    /// Asks about a group of devices and notes the time.
    fn ask(&mut self, group: &[Imei], door: &Door<'_, NoJournal>, out: &mut Vec<u8>) {
        for (request, imei) in self.requests.iter_mut().zip(group) {
            write!(&mut request[self.digits..], "{imei}").expect("place for an IMEI");
        }
        out.clear();
        let begin = Instant::now();
        for request in &self.requests {
            door.handle(&[request.as_slice()], out, |_, outcome, _| {
                assert!(matches!(outcome, Outcome::Answered(_)), "not answered: {outcome:?}");
            });
        }
        self.times.push(begin.elapsed().as_nanos() as f64 / GROUP as f64);
        std::hint::black_box(&out);
    }

    /// The time that so great a share of the answers stays below.
    fn at(&mut self, share: f64) -> f64 {
        self.times.sort_by(f64::total_cmp);
        self.times[((self.times.len() - 1) as f64 * share) as usize]
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [path, listed, tacs, count, octets] = arguments.as_slice() else {
        panic!("answer SNAPSHOT LISTED TACS COUNT IN_USE")
    };
    let number = |text: &String| text.parse::<u64>().expect("a number");
    let (devices, count) = (Devices { count: number(listed), tacs: number(tacs) }, number(count));
    let snapshot = snapshot_file::open(Path::new(path), true).expect("a snapshot");
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
        deltas: None,
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
    let (mut plain, mut full) = (Asked::new(Shape::Plain, drawn[0]), Asked::new(Shape::Full, drawn[0]));
    let mut out = Vec::with_capacity(1 << 16);
    for pair in drawn.chunks_exact(2 * BLOCK) {
        let (first, second) = pair.split_at(BLOCK);
        first.chunks_exact(GROUP).for_each(|group| plain.ask(group, &door, &mut out));
        second.chunks_exact(GROUP).for_each(|group| full.ask(group, &door, &mut out));
    }
    println!(
        "{{\"answer_ns_p50\": {:.1}, \"answer_ns_p99\": {:.1}, \"full_ns_p50\": {:.1}, \"full_ns_p99\": {:.1}, \
         \"answers\": {}, \"request_octets\": {}, \"full_octets\": {}, \"in_use\": {}}}",
        plain.at(0.5),
        plain.at(0.99),
        full.at(0.5),
        full.at(0.99),
        plain.times.len() * GROUP,
        plain.requests[0].len(),
        full.requests[0].len(),
        in_use.len()
    );
}
