//! A peer's octets through framing, the ECR parser and the door, with a journal that takes everything.
//!
//! What must hold: the same messages however the stream is cut; at most one answer a message, which frames as exactly
//! one message with the request's identifiers; the answer to the same message again has the same status. A caller that is
//! bound, limited and told of the node's load gets an answer of the same kind, a refusal, or none.

#![no_main]

use std::cell::{Cell, RefCell};
use std::io::Cursor;

use eir_core::diameter::avp::Avps;
use eir_core::diameter::eca::Answers;
use eir_core::diameter::ecr::Ecr;
use eir_core::diameter::framing::{ERROR, Frame, Header, PROXIABLE, frame};
use eir_core::diameter::limit::Limiter;
use eir_core::diameter::s13::{Answered, Caller, Door, Outcome};
use eir_core::diameter::terms::{Sender, Terms};
use eir_core::grey::GreyTable;
use eir_core::in_use::InUse;
use eir_core::journal::{Event, Journal, Progress};
use eir_core::lists::{BuildOptions, FileKind, Overlay, Snapshot, SnapshotBuilder};
use eir_core::policy::{Policy, Status};
use eir_core::recent::Recent;
use eir_core::verdict::Facts;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 64 << 10;

/// Counts the records; they are safe as soon as they are taken.
#[derive(Default)]
struct Counting {
    records: Cell<u64>,
    safe: Cell<u64>,
}

impl Journal for Counting {
    fn append(&self, _: &Event) -> Option<u64> {
        self.records.set(self.records.get() + 1);
        Some(self.records.get())
    }
    fn available(&self) -> bool {
        true
    }
    fn progress(&self) -> Progress {
        Progress { written: self.safe.get(), durable: self.safe.get() }
    }
}

struct World {
    snapshot: Snapshot,
    overlay: Overlay,
    grey: GreyTable,
    policy: Policy,
    answers: Answers,
    journal: Counting,
    in_use: InUse,
    recent: Recent,
}

impl World {
    fn new() -> Self {
        let files = [
            (FileKind::Devices, "imei,list,reason\n35209900176148,white,\n35209900176149,black,stolen\n"),
            (FileKind::Ranges, "from,to,list,reason\n35209901,35209902,black,\n"),
            (FileKind::Pairs, "imei,imsi\n35209900176149,001010000000001\n"),
        ];
        let mut builder = SnapshotBuilder::new(BuildOptions::default());
        for (kind, text) in files {
            builder.add(kind, "seed", text.as_bytes(), &mut |_| {}).unwrap();
        }
        let mut file = Cursor::new(Vec::new());
        builder.finish(&mut file).unwrap();
        Self {
            snapshot: Snapshot::open(Box::new(file.into_inner())).unwrap(),
            overlay: Overlay::default(),
            grey: GreyTable::default(),
            policy: Policy { home_mccs: vec![1], hard_reasons: vec!["stolen".into()], ..Policy::default() },
            answers: Answers::new("eir.test", "test", 1),
            journal: Counting::default(),
            in_use: InUse::new(1 << 16, 0),
            recent: Recent::default(),
        }
    }

    /// Forgets what earlier inputs started, so that each input is by itself.
    fn reset(&mut self) {
        if self.journal.records.take() > 0 {
            self.grey = GreyTable::default();
        }
        self.journal.safe.set(0);
    }

    fn handle(&self, message: &[u8], caller: Caller<'_>) -> Option<Answered> {
        let facts = Facts {
            snapshot: Some(&self.snapshot),
            deltas: None,
            overlay: &self.overlay,
            grey: &self.grey,
            policy: &self.policy,
            now: 1_000,
        };
        let door = Door {
            facts,
            answers: &self.answers,
            journal: &self.journal,
            in_use: Some(&self.in_use),
            recent: Some(&self.recent),
            caller,
            ticks: 0,
        };
        let mut out = Vec::new();
        let mut outcome = Outcome::Punt;
        door.handle(&[message], &mut out, |_, became, _| outcome = became);
        if let Outcome::Held(hold) = outcome {
            assert!(out.is_empty());
            self.journal.safe.set(self.journal.records.get());
            assert!(hold.over(self.journal.progress()));
            outcome = door.release(message, &hold, &mut out);
            assert!(matches!(outcome, Outcome::Answered(_)));
        }
        match outcome {
            Outcome::Punt => assert!(out.is_empty()),
            Outcome::Limited => check_answer(message, &out, ERROR),
            _ => check_answer(message, &out, 0),
        }
        match outcome {
            Outcome::Answered(answered) => {
                assert!(Ecr::read(message).is_ok());
                Some(answered)
            }
            _ => None,
        }
    }
}

fn check_answer(message: &[u8], out: &[u8], error: u8) {
    assert_eq!(frame(out, 2 * LIMIT), Frame::Complete(out.len()));
    let ((request, _), (answer, avps)) = (Header::read(message).unwrap(), Header::read(out).unwrap());
    assert_eq!(answer.flags, request.flags & PROXIABLE | error);
    assert_eq!(
        (answer.command, answer.application, answer.identifiers),
        (request.command, request.application, request.identifiers)
    );
    assert!(out.len() % 4 == 0 && Avps::new(avps).all(|avp| avp.is_ok()));
}

/// The messages at the front of a stream.
fn cut(stream: &[u8]) -> Vec<&[u8]> {
    let (mut messages, mut rest) = (Vec::new(), stream);
    while let Frame::Complete(length) = frame(rest, LIMIT) {
        let (message, behind) = rest.split_at(length);
        messages.push(message);
        rest = behind;
    }
    messages
}

/// The same, as they are found while the stream comes octet by octet.
fn cut_as_it_comes(stream: &[u8]) -> Vec<&[u8]> {
    let (mut messages, mut start) = (Vec::new(), 0);
    for end in 0..=stream.len() {
        match frame(&stream[start..end], LIMIT) {
            Frame::Complete(length) => {
                assert_eq!(length, end - start);
                messages.push(&stream[start..end]);
                start = end;
            }
            Frame::Incomplete(length) => assert!(length > end - start),
            Frame::Unframeable => break,
        }
    }
    messages
}

/// An ECR's header with the right length, and these octets as its AVPs: past framing without luck.
fn in_a_message(body: &[u8]) -> Vec<u8> {
    let length = (20 + body.len()).next_multiple_of(4);
    let words = [1 << 24 | length as u32, 0xC000_0144, 0x0100_0024, 1, 2];
    let mut message: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).chain(body.iter().copied()).collect();
    message.resize(length, 0);
    message
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

fuzz_target!(|stream: &[u8]| {
    let messages = cut(stream);
    assert_eq!(messages, cut_as_it_comes(stream));
    WORLD.with_borrow_mut(|world| {
        world.reset();
        let whole = in_a_message(stream);
        for message in messages.into_iter().chain([&whole[..]]) {
            let status = |answered: Option<Answered>| answered.map(|answered| answered.status);
            let first = status(world.handle(message, Caller::anyone()));
            assert_eq!(status(world.handle(message, Caller::anyone())), first);
            let sender = Sender::ItselfOrRouted("mme.test".into());
            let terms = Terms { requests_per_second: 2, load: true, grey: Status::White, ..Terms::STANDARD };
            let (limiter, node) = (Limiter::new(), Limiter::new());
            let caller =
                Caller { sender: &sender, terms: &terms, limiter: &limiter, node: (&node, 3), load: 7 };
            for _ in 0..4 {
                if let Some(told) = status(world.handle(message, caller)) {
                    assert_eq!(Some(told), first.map(|status| terms.told(status, None)));
                }
            }
        }
    });
});
