//! What an answer owes to who asks: whom a peer may speak for, how much it may ask, and what its answers say of the node.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use eir_core::UnixTime;
use eir_core::diameter::eca::Answers;
use eir_core::diameter::limit::Limiter;
use eir_core::diameter::s13::{Answered, Caller, Door, Outcome};
use eir_core::diameter::terms::{Sender, Terms};
use eir_core::grey::{GreyTable, Timer};
use eir_core::journal::{Event, Journal, Progress};
use eir_core::lists::{BuildOptions, FileKind, Overlay};
use eir_core::policy::{Policy, Status};
use eir_core::verdict::{Facts, Rule};
use support::*;

const DEVICE: &[u8] = b"35209900176148";
const GREY_DEVICE: &[u8] = b"35209900176150";
const SUBSCRIBER: &str = "001010000000001";
const NOW: UnixTime = 1_800_000_000;
const SECOND: u64 = 1_000_000_000;

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

#[derive(Default)]
struct Asker {
    sender: Sender,
    terms: Terms,
    limiter: Limiter,
    node: Limiter,
    node_rate: u64,
    load: u16,
}

impl Asker {
    /// What becomes of a request at that moment.
    fn ask(&self, message: &Message, ticks: u64) -> (Outcome, Vec<u8>) {
        let rows = "35209900176148,white,\n35209900176149,black,\n";
        let options = BuildOptions { created_at: NOW - 10, ..BuildOptions::default() };
        let (snapshot, overlay) = (snapshot(options, &[(FileKind::Devices, rows)]), Overlay::default());
        let (grey, policy) = (GreyTable::default(), Policy::default());
        grey.start(imei("35209900176150"), Timer { start: NOW - 1, deadline: NOW + 86_400 }, || Some(1));
        let now = NOW + (ticks / SECOND) as UnixTime;
        let door = Door {
            facts: Facts {
                snapshot: Some(&*snapshot),
                deltas: None,
                overlay: &overlay,
                grey: &grey,
                policy: &policy,
                now,
            },
            answers: &Answers::new("eir.test", "test", 1),
            journal: &NoJournal,
            in_use: None,
            recent: None,
            caller: Caller {
                sender: &self.sender,
                terms: &self.terms,
                limiter: &self.limiter,
                node: (&self.node, self.node_rate),
                load: self.load,
            },
            ticks,
        };
        let (mut out, mut outcomes, mut told) = (vec![7; 3], Vec::new(), Vec::new());
        door.handle(&[&message.bytes()], &mut out, |_, outcome, answer| {
            outcomes.push(outcome);
            told = answer.to_vec();
        });
        assert_eq!(told, out[3..]);
        (outcomes.remove(0), told)
    }

    fn status(&self, imei: &[u8]) -> Option<u32> {
        let (outcome, out) = self.ask(&ecr(imei, SUBSCRIBER), 0);
        assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
        read_answer(&out).status()
    }
}

fn number(data: &[u8]) -> u64 {
    data.iter().fold(0, |number, octet| number << 8 | u64::from(*octet))
}

/// The members of a group as (code, number), each without the M bit.
fn members(group: &[u8]) -> Vec<(u32, u64)> {
    let mut found = Vec::new();
    for avp in eir_core::diameter::avp::Avps::new(group) {
        let avp = avp.unwrap();
        assert_eq!((avp.flags, avp.vendor), (0, 0));
        found.push((avp.code, if avp.data.len() > 8 { 0 } else { number(avp.data) }));
    }
    found
}

fn offering(vector: &[u8]) -> Message {
    ecr(DEVICE, SUBSCRIBER).with(avp(621, 0, 0, vector))
}

#[test]
fn a_direct_peer_speaks_for_itself_and_an_agent_for_anyone() {
    let message = ecr(DEVICE, SUBSCRIBER);
    let routed = message.clone().with(base(282, b"dra.test"));
    // The request's Origin-Host, in another case.
    let name = String::from_utf8(read_answer(&message.bytes()).all(0, 264)[0].to_vec()).unwrap().to_uppercase();
    for (sender, plain, by_agent) in [
        (Sender::Anyone, true, true),
        (Sender::Itself(name.as_str().into()), true, true),
        (Sender::Itself("other.test".into()), false, false),
        (Sender::ItselfOrRouted(name.as_str().into()), true, true),
        (Sender::ItselfOrRouted("dra.test".into()), false, true),
    ] {
        let asker = Asker { sender: sender.clone(), ..Asker::default() };
        for (message, allowed) in [(&message, plain), (&routed, by_agent)] {
            let (outcome, out) = asker.ask(message, 0);
            assert_eq!(outcome != Outcome::Punt, allowed, "{sender:?}");
            assert_eq!(out.is_empty(), !allowed);
        }
    }
}

#[test]
fn answers_are_what_the_terms_make_of_the_verdict() {
    let standard = Asker::default();
    assert_eq!((standard.status(GREY_DEVICE), standard.status(b"x")), (GREY, BLACK));
    let terms = Terms { grey: Status::White, malformed: Some(Status::Unknown), ..Terms::default() };
    let asker = Asker { terms, ..Asker::default() };
    assert_eq!((asker.status(GREY_DEVICE), asker.status(DEVICE)), (WHITE, WHITE));
    let (outcome, out) = asker.ask(&ecr(b"x", SUBSCRIBER), 0);
    let malformed = Answered { status: Status::Unknown, rule: Some(Rule::Malformed), not_started: false };
    assert_eq!(outcome, Outcome::Answered(malformed));
    assert_eq!(read_answer(&out).experimental_result(), Some((TGPP, 5422)));
    let meid = ecr_about(&[tgpp(1471, &[1; 7])], SUBSCRIBER);
    assert_eq!(read_answer(&standard.ask(&meid, 0).1).experimental_result(), Some((TGPP, 5422)));
    let asker = Asker { terms: Terms { unknown: Status::White, ..Terms::default() }, ..Asker::default() };
    assert_eq!(read_answer(&asker.ask(&meid, 0).1).status(), WHITE);
}

#[test]
fn one_too_many_is_told_so_in_the_short_grammar() {
    let terms = Terms { requests_per_second: 10, ..Terms::default() };
    // Important to its sender is not important to the node, whose limit all share.
    for (own, node_rate, limited) in [(terms, 0, 22), (Terms::default(), 10, 23)] {
        let asker = Asker { terms: own, node_rate, ..Asker::default() };
        let proxy = base(284, &base(280, b"a"));
        let message = ecr(DEVICE, SUBSCRIBER).with(proxy.clone()).with(avp(301, 0, 0, &[0, 0, 0, 9]));
        let outcomes: Vec<_> = (0..30).map(|_| asker.ask(&message, SECOND).0).collect();
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Limited).count(), limited);
        let (_, out) = asker.ask(&message, SECOND);
        let answer = read_answer(&out);
        assert_eq!(answer.flags, PROXIABLE | ERROR);
        assert_eq!(answer.result_code(), Some(3004));
        assert_eq!(answer.all(0, 263), read_answer(&message.bytes()).all(0, 263));
        assert_eq!((answer.all(0, 264), answer.all(0, 296)), (vec![&b"eir.test"[..]], vec![&b"test"[..]]));
        assert_eq!(answer.all(0, 301), [[0, 0, 0, 9]]);
        assert!(out.ends_with(&proxy));
        assert!(answer.all(0, 277).is_empty() && answer.all(TGPP, 1445).is_empty());
        // A watchdog is no request of that kind.
        assert_eq!(asker.ask(&dwr(), SECOND).0, Outcome::Watchdog);
    }
}

#[test]
fn what_would_only_be_refused_counts_towards_the_limit_too() {
    let terms = Terms { requests_per_second: 10, ..Terms::default() };
    let sender = Sender::Itself("other.test".into());
    let proxy = base(284, &base(280, b"a"));
    let strange = Message { command: 300, ..ecr(DEVICE, SUBSCRIBER) };
    let cut = ecr(DEVICE, SUBSCRIBER).with(vec![0, 0, 0, 1, 0, 0, 0, 7]);
    for message in [ecr(DEVICE, SUBSCRIBER).with(proxy.clone()), strange.with(proxy.clone()), cut] {
        let asker = Asker { terms, sender: sender.clone(), ..Asker::default() };
        let outcomes: Vec<_> = (0..30).map(|_| asker.ask(&message, SECOND).0).collect();
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Punt).count(), 7);
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Limited).count(), 23);
        let (_, out) = asker.ask(&message, SECOND);
        let answer = read_answer(&out);
        assert_eq!((answer.flags & (REQUEST | ERROR), answer.command), (ERROR, message.command));
        assert_eq!(answer.result_code(), Some(3004));
        assert_eq!(answer.all(0, 263), read_answer(&ecr(DEVICE, SUBSCRIBER).bytes()).all(0, 263));
        assert_eq!(out.ends_with(&proxy), message.bytes().ends_with(&proxy));
        // What keeps the connection going is never refused so, nor is an answer.
        for upkeep in [257, 280, 282] {
            let odd = Message { command: upkeep, application: 0, ..ecr(DEVICE, SUBSCRIBER) };
            assert_eq!(asker.ask(&odd, SECOND), (Outcome::Punt, Vec::new()));
        }
        let answer = Message { flags: 0, ..ecr(DEVICE, SUBSCRIBER) };
        assert_eq!(asker.ask(&answer, SECOND).0, Outcome::Punt);
    }
}

#[test]
fn priority_goes_back_as_it_came() {
    let asker = Asker::default();
    for priority in 0..16 {
        let message = ecr(DEVICE, SUBSCRIBER).with(avp(301, M, 0, &[0, 0, 0, priority]));
        assert_eq!(read_answer(&asker.ask(&message, 0).1).all(0, 301), [[0, 0, 0, priority]]);
    }
    assert!(read_answer(&asker.ask(&ecr(DEVICE, SUBSCRIBER), 0).1).all(0, 301).is_empty());
}

#[test]
fn who_speaks_overload_control_is_answered_in_it() {
    let asker = Asker::default();
    let default = avp(622, 0, 0, &1u64.to_be_bytes());
    let more = avp(622, M, 0, &5u64.to_be_bytes());
    for vector in [&[][..], &default, &more] {
        let answer = read_answer(&asker.ask(&offering(vector), 0).1);
        assert_eq!(members(answer.all(0, 621)[0]), [(622, 1)]);
        assert!(answer.all(0, 623).is_empty(), "nothing is overloaded");
        assert_eq!(answer.status(), WHITE);
    }
    for vector in [avp(622, 0, 0, &2u64.to_be_bytes()), avp(622, 0, 0, &[1]), avp(622, 0, 0, &[])] {
        assert!(read_answer(&asker.ask(&offering(&vector), 0).1).all(0, 621).is_empty(), "no common algorithm");
    }
}

#[test]
fn who_sends_too_much_is_told_by_how_much_to_send_less() {
    let terms = Terms { requests_per_second: 10, ..Terms::default() };
    for (own, node_rate) in [(terms, 0), (Terms::default(), 10)] {
        let asker = Asker { terms: own, node_rate, ..Asker::default() };
        let message = offering(&[]);
        for number in 0..40 {
            asker.ask(&message, SECOND + number * SECOND / 40);
        }
        let (outcome, out) = asker.ask(&message, 2 * SECOND);
        assert_eq!(outcome, Outcome::Limited);
        let sequence = u64::from(NOW) + 2;
        let answer = read_answer(&out);
        assert_eq!(members(answer.all(0, 623)[0]), [(624, sequence), (626, 0), (627, 75), (625, 30)]);
        // Who does not speak it is not told.
        assert!(read_answer(&asker.ask(&ecr(DEVICE, SUBSCRIBER), 2 * SECOND).1).all(0, 623).is_empty());
        // A while later all is well again, and that is said too.
        asker.ask(&message, 10 * SECOND);
        asker.ask(&message, 20 * SECOND);
        let answer = read_answer(&asker.ask(&message, 21 * SECOND).1);
        assert_eq!(members(answer.all(0, 623)[0])[2..], [(627, 0), (625, 0)]);
        assert_eq!(answer.status(), WHITE);
        assert!(read_answer(&asker.ask(&message, 60 * SECOND).1).all(0, 623).is_empty());
    }
}

#[test]
fn load_is_told_to_who_is_to_know_it() {
    let terms = Terms { load: true, ..Terms::default() };
    let asker = Asker { terms, load: 40_000, ..Asker::default() };
    let out = asker.ask(&ecr(DEVICE, SUBSCRIBER), 0).1;
    let answer = read_answer(&out);
    assert_eq!(members(answer.all(0, 650)[0]), [(651, 1), (652, 40_000), (649, number(b"eir.test"))]);
    assert_eq!(answer.status(), WHITE);
    let asker = Asker { load: 40_000, ..Asker::default() };
    assert!(read_answer(&asker.ask(&ecr(DEVICE, SUBSCRIBER), 0).1).all(0, 650).is_empty());
}
