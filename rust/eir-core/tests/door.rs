//! What follows from an answer: timers that start, records that are written first, and answers that wait for them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use eir_core::UnixTime;
use eir_core::diameter::eca::Answers;
use eir_core::diameter::s13::{Answered, Caller, Door, Hold, Outcome};
use eir_core::grey::{ATTEMPT_INTERVAL, BreakerLimits, GreyTable, Schedule, Timer};
use eir_core::in_use::InUse;
use eir_core::journal::{self, Event, Journal, OverlayChange, Progress, RECORD};
use eir_core::lists::{BuildOptions, FileKind, List, Overlay, Snapshot};
use eir_core::policy::{Policy, Prefix, Status};
use eir_core::recent::{self, Recent};
use eir_core::verdict::{Facts, Rule};
use proptest::prelude::*;
use support::*;

const NOW: UnixTime = 1_750_000_000;
const DAY: UnixTime = 86_400;
const DEVICE: &str = "35209900176148";
const BLACK_DEVICE: &str = "35209900000001";
const FIRST: &str = "001010000000001";
const SECOND: &str = "001010000000002";
const GRANTED: Timer = Timer { start: NOW, deadline: NOW + 30 * DAY };

/// A journal in memory: what is appended is safe when the test says so.
#[derive(Default)]
struct Memory {
    events: RefCell<Vec<Event>>,
    progress: Cell<Progress>,
    is_down: Cell<bool>,
    is_full: Cell<bool>,
}

impl Memory {
    fn write_all(&self) {
        self.progress.set(Progress { written: self.last(), ..self.progress.get() });
    }

    fn sync_all(&self) {
        self.progress.set(Progress { written: self.last(), durable: self.last() });
    }

    fn last(&self) -> u64 {
        self.events.borrow().len() as u64
    }

    fn take(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }
}

impl Journal for Memory {
    fn append(&self, event: &Event) -> Option<u64> {
        if self.is_down.get() || self.is_full.get() {
            return None;
        }
        self.events.borrow_mut().push(event.clone());
        Some(self.last())
    }
    fn available(&self) -> bool {
        !self.is_down.get()
    }
    fn progress(&self) -> Progress {
        self.progress.get()
    }
}

/// A node without sockets.
struct Desk {
    snapshot: Arc<Snapshot>,
    overlay: Overlay,
    grey: GreyTable,
    policy: Policy,
    answers: Answers,
    journal: Memory,
    in_use: InUse,
    recent: Recent,
    now: Cell<UnixTime>,
}

impl Desk {
    fn new() -> Self {
        Self {
            snapshot: lists(""),
            overlay: Overlay::default(),
            grey: GreyTable::default(),
            policy: Policy { schedule: Schedule::new(Vec::new(), 30 * DAY), ..Policy::default() },
            answers: Answers::new("eir.test", "test", 1),
            journal: Memory::default(),
            in_use: InUse::new(1 << 16, NOW / DAY),
            recent: Recent::default(),
            now: Cell::new(NOW),
        }
    }

    fn with_limits(starts_per_minute: u64, running: u64) -> Self {
        let mut desk = Self::new();
        desk.policy.breaker = BreakerLimits { starts_per_minute, running };
        desk
    }

    fn door(&self) -> Door<'_, Memory> {
        let facts = Facts {
            snapshot: Some(&self.snapshot),
            deltas: None,
            overlay: &self.overlay,
            grey: &self.grey,
            policy: &self.policy,
            now: self.now.get(),
        };
        let (in_use, recent) = (Some(&self.in_use), Some(&self.recent));
        Door {
            facts,
            answers: &self.answers,
            journal: &self.journal,
            in_use,
            recent,
            caller: Caller::anyone(),
            ticks: 0,
        }
    }

    /// Sends an ECR; what became of it, and the status on the wire where there was an answer.
    fn ask(&self, device: &str, subscriber: Option<&str>) -> (Outcome, Option<u32>) {
        let mut out = Vec::new();
        let mut outcomes = Vec::new();
        self.door().handle(&[&request(device, subscriber)], &mut out, |_, outcome, _| outcomes.push(outcome));
        let outcome = outcomes.remove(0);
        let held = matches!(outcome, Outcome::Held(_));
        assert_eq!(out.is_empty(), held, "an answer is written or held, never both");
        (outcome, if held { None } else { read_answer(&out).status() })
    }

    /// Sends an ECR whose answer must be held.
    fn held(&self, device: &str, subscriber: Option<&str>) -> Hold {
        match self.ask(device, subscriber) {
            (Outcome::Held(hold), _) => hold,
            other => panic!("not held: {other:?}"),
        }
    }

    fn release(&self, device: &str, subscriber: Option<&str>, hold: &Hold) -> (Answered, Option<u32>) {
        let mut out = Vec::new();
        match self.door().release(&request(device, subscriber), hold, &mut out) {
            Outcome::Answered(answered) => (answered, read_answer(&out).status()),
            other => panic!("not answered: {other:?}"),
        }
    }

    /// A first attach to its end.
    fn grant(&self, device: &str, subscriber: Option<&str>) {
        let hold = self.held(device, subscriber);
        self.journal.sync_all();
        assert_eq!(self.release(device, subscriber, &hold).0.rule, Some(Rule::FirstAttach));
    }

    fn timer(&self, device: &str) -> Option<Timer> {
        self.grey.timer(imei(device)).map(|(timer, _)| timer)
    }
}

/// Lists with these rows of devices beside one that is black.
fn lists(rows: &str) -> Arc<Snapshot> {
    let rows = format!("{BLACK_DEVICE},black,not-verified\n{rows}");
    snapshot(BuildOptions { created_at: NOW, ..BuildOptions::default() }, &[(FileKind::Devices, &rows)])
}

fn request(device: &str, subscriber: Option<&str>) -> Vec<u8> {
    match subscriber {
        Some(subscriber) => ecr(device.as_bytes(), subscriber).bytes(),
        None => bare_ecr(device.as_bytes()).bytes(),
    }
}

fn answered(status: Status, rule: Rule) -> Answered {
    Answered { status, rule: Some(rule), not_started: false }
}

fn start(subscriber: Option<&str>) -> Event {
    Event::Start { imei: imei(DEVICE), imsi: subscriber.map(imsi), msisdn: None, timer: GRANTED }
}

#[test]
fn a_first_attach_is_held_until_its_start_is_on_the_disk() {
    let desk = Desk::new();
    let hold = desk.held(DEVICE, Some(FIRST));
    assert_eq!(hold, Hold { written: 0, durable: 1, started: Some(1) });
    assert_eq!((desk.journal.take(), desk.timer(DEVICE)), (vec![start(Some(FIRST))], Some(GRANTED)));
    desk.journal.write_all();
    assert!(!hold.over(desk.journal.progress()), "written is not enough");
    desk.journal.sync_all();
    assert!(hold.over(desk.journal.progress()));
    assert_eq!(desk.release(DEVICE, Some(FIRST), &hold), (answered(Status::Grey, Rule::FirstAttach), GREY));
    assert_eq!(desk.journal.last(), 1, "the release records nothing");
}

#[test]
fn a_first_attach_without_a_subscriber_starts_the_timer_all_the_same() {
    let desk = Desk::new();
    let hold = desk.held(DEVICE, None);
    assert_eq!((hold.started, desk.journal.take()), (Some(1), vec![start(None)]));
    desk.journal.sync_all();
    assert_eq!(desk.release(DEVICE, None, &hold).1, GREY);
}

#[test]
fn who_asks_while_the_start_is_under_way_waits_for_it_too() {
    let desk = Desk::new();
    desk.held(DEVICE, Some(FIRST));
    let joined = desk.held(DEVICE, Some(FIRST));
    assert_eq!(joined, Hold { written: 0, durable: 1, started: None });
    let bare = desk.held(DEVICE, None);
    assert_eq!(bare, joined);
    assert_eq!(desk.journal.last(), 1, "the start is recorded once");
    desk.journal.sync_all();
    assert_eq!(desk.release(DEVICE, Some(FIRST), &joined), (answered(Status::Grey, Rule::Grey), GREY));
}

#[test]
fn a_further_subscriber_is_held_until_its_record_is_written_and_is_recorded_once() {
    let desk = Desk::new();
    desk.grant(DEVICE, Some(FIRST));
    let hold = desk.held(DEVICE, Some(SECOND));
    assert_eq!(hold, Hold { written: 2, durable: 1, started: None });
    let seen = Event::Seen { imei: imei(DEVICE), imsi: imsi(SECOND), msisdn: None, at: NOW };
    assert_eq!(desk.journal.take(), [start(Some(FIRST)), seen]);
    desk.journal.write_all();
    assert!(hold.over(desk.journal.progress()), "the disk is not waited for");
    assert_eq!(desk.release(DEVICE, Some(SECOND), &hold), (answered(Status::Grey, Rule::Grey), GREY));
    for subscriber in [Some(FIRST), Some(SECOND), None] {
        let (outcome, status) = desk.ask(DEVICE, subscriber);
        assert_eq!((outcome, status), (Outcome::Answered(answered(Status::Grey, Rule::Grey)), GREY));
    }
    assert_eq!(desk.journal.last(), 2);
}

#[test]
fn another_subscriber_gets_the_same_deadline() {
    let desk = Desk::new();
    desk.grant(DEVICE, Some(FIRST));
    desk.now.set(NOW + 29 * DAY);
    desk.held(DEVICE, Some(SECOND));
    assert_eq!(desk.timer(DEVICE), Some(GRANTED));
}

#[test]
fn a_timer_that_ran_out_is_black_and_its_attempt_is_recorded() {
    let mut desk = Desk::new();
    desk.policy.stale_after = u32::MAX;
    desk.grant(DEVICE, Some(FIRST));
    desk.now.set(GRANTED.deadline - 1);
    assert_eq!(desk.ask(DEVICE, Some(FIRST)).1, GREY);
    desk.now.set(GRANTED.deadline);
    let hold = desk.held(DEVICE, Some(FIRST));
    let (at, rule) = (GRANTED.deadline, Rule::Expired as u8);
    let attempt = Event::BlackAttempt { imei: imei(DEVICE), imsi: Some(imsi(FIRST)), msisdn: None, at, rule };
    assert_eq!(desk.journal.take().last(), Some(&attempt));
    assert_eq!(desk.release(DEVICE, Some(FIRST), &hold), (answered(Status::Black, Rule::Expired), BLACK));
}

#[test]
fn a_black_attempt_is_recorded_once_in_24_hours_for_each_subscriber() {
    let desk = Desk::new();
    let black = answered(Status::Black, Rule::Black);
    let hold = desk.held(BLACK_DEVICE, Some(FIRST));
    assert_eq!(hold, Hold { written: 1, durable: 0, started: None });
    let again = |after: UnixTime| {
        desk.now.set(NOW + after);
        desk.ask(BLACK_DEVICE, Some(FIRST))
    };
    assert_eq!(again(0), (Outcome::Answered(black), BLACK), "the second needs no record and waits for none");
    assert_eq!(again(ATTEMPT_INTERVAL - 1), (Outcome::Answered(black), BLACK));
    assert!(matches!(again(ATTEMPT_INTERVAL).0, Outcome::Held(_)));
    assert_eq!(desk.journal.last(), 2);
    for other in [Some(SECOND), None] {
        desk.held(BLACK_DEVICE, other);
    }
    assert_eq!(desk.journal.last(), 4);
    assert!(desk.grey.is_empty(), "no timer for a black device");
}

#[test]
fn every_black_rule_has_its_attempt_recorded_under_its_number() {
    for rule in [Rule::BlackHard, Rule::TestImei, Rule::Black, Rule::BlackRange, Rule::Expired, Rule::Unallocated] {
        let mut desk = Desk::new();
        let tacs = (FileKind::AllocatedTacs, "35209901");
        let files: &[(FileKind, &str)] = match rule {
            Rule::BlackHard => &[(FileKind::Devices, "35209900176148,black,stolen")],
            Rule::Black => &[(FileKind::Devices, "35209900176148,black,")],
            Rule::BlackRange => &[(FileKind::Ranges, "35209900,35209900,black,")],
            // The day before, and no timer of our own.
            Rule::Expired => &[(FileKind::Devices, "35209900176148,grey,,20250614")],
            Rule::Unallocated => &[tacs],
            _ => &[],
        };
        let options = BuildOptions { created_at: NOW, tac_as_of: NOW, ..BuildOptions::default() };
        desk.snapshot = snapshot(options, files);
        desk.policy.hard_reasons = vec!["stolen".into()];
        if rule == Rule::TestImei {
            desk.policy.test_tacs = vec![Prefix::of_tac("3520").unwrap()];
        }
        desk.held(DEVICE, None);
        let attempt = Event::BlackAttempt { imei: imei(DEVICE), imsi: None, msisdn: None, at: NOW, rule: rule as u8 };
        assert_eq!(desk.journal.take(), [attempt], "{}", rule.name());
    }
}

#[test]
fn a_white_answer_records_nothing_and_waits_for_nothing() {
    let mut desk = Desk::new();
    desk.snapshot = lists("35209900176148,white,");
    desk.journal.is_down.set(true);
    let (outcome, status) = desk.ask(DEVICE, Some(FIRST));
    assert_eq!((outcome, status), (Outcome::Answered(answered(Status::White, Rule::White)), WHITE));
    assert!(desk.grey.is_empty() && desk.journal.take().is_empty());
}

#[test]
fn what_is_no_imei_is_black_and_leaves_no_record() {
    let desk = Desk::new();
    let (outcome, status) = desk.ask("12345", Some(FIRST));
    assert_eq!((outcome, status), (Outcome::Answered(answered(Status::Black, Rule::Malformed)), BLACK));
    assert!(desk.journal.take().is_empty());
}

#[test]
fn a_device_verified_before_its_first_answer_left_is_white_and_its_start_is_taken_back() {
    let mut desk = Desk::new();
    let hold = desk.held(DEVICE, Some(FIRST));
    let joined = desk.held(DEVICE, Some(SECOND));
    desk.snapshot = lists("35209900176148,white,");
    desk.now.set(NOW + 1);
    assert_eq!(desk.release(DEVICE, Some(FIRST), &hold), (answered(Status::White, Rule::White), WHITE));
    assert_eq!(desk.timer(DEVICE), None);
    assert_eq!(desk.journal.take().last(), Some(&Event::Cancel { imei: imei(DEVICE), at: NOW + 1 }));
    let before = desk.journal.last();
    assert_eq!(desk.release(DEVICE, Some(SECOND), &joined), (answered(Status::White, Rule::White), WHITE));
    assert_eq!(desk.journal.last(), before, "who joined takes nothing back");
}

#[test]
fn the_overlay_verifies_a_held_device_too() {
    let desk = Desk::new();
    let hold = desk.held(DEVICE, Some(FIRST));
    desk.overlay.set(imei(DEVICE), OverlayChange::Listed(List::White), "verified");
    assert_eq!(desk.release(DEVICE, Some(FIRST), &hold).1, WHITE);
    assert_eq!(desk.timer(DEVICE), None);
}

#[test]
fn a_switch_that_says_nothing_of_the_device_takes_no_start_back() {
    for change in [(|policy| policy.all_white = true) as fn(&mut Policy), |policy| policy.stale_after = 0] {
        let mut desk = Desk::new();
        let hold = desk.held(DEVICE, Some(FIRST));
        change(&mut desk.policy);
        desk.release(DEVICE, Some(FIRST), &hold);
        assert_eq!((desk.timer(DEVICE), desk.journal.last()), (Some(GRANTED), 1));
    }
}

#[test]
fn a_hold_that_lasted_too_long_is_answered_grey_and_its_timer_stays() {
    let desk = Desk::new();
    let hold = desk.held(DEVICE, Some(FIRST));
    assert!(!hold.over(desk.journal.progress()));
    assert_eq!(desk.release(DEVICE, Some(FIRST), &hold), (answered(Status::Grey, Rule::FirstAttach), GREY));
    assert_eq!(desk.timer(DEVICE), Some(GRANTED));
}

#[test]
fn a_start_that_was_lost_while_it_was_held_is_answered_grey_as_not_started() {
    let desk = Desk::new();
    let hold = desk.held(DEVICE, Some(FIRST));
    desk.grey.cancel(imei(DEVICE), 1);
    let lost = Answered { status: Status::Grey, rule: Some(Rule::FirstAttach), not_started: true };
    assert_eq!(desk.release(DEVICE, Some(FIRST), &hold), (lost, GREY));
    assert!(desk.grey.is_empty());
}

#[test]
fn without_a_journal_a_first_attach_is_answered_grey_and_nothing_starts() {
    for full_only in [false, true] {
        let desk = Desk::new();
        let switch = if full_only { &desk.journal.is_full } else { &desk.journal.is_down };
        switch.set(true);
        let not_started = Answered { status: Status::Grey, rule: Some(Rule::FirstAttach), not_started: true };
        for _ in 0..3 {
            assert_eq!(desk.ask(DEVICE, Some(FIRST)), (Outcome::Answered(not_started), GREY));
        }
        assert!(desk.grey.is_empty());
        switch.set(false);
        assert_eq!(desk.held(DEVICE, Some(FIRST)).started, Some(1), "when the journal is back the timer starts");
    }
}

#[test]
fn what_cannot_start_for_want_of_a_journal_does_not_trip_the_breaker() {
    let desk = Desk::with_limits(1, 1);
    desk.journal.is_down.set(true);
    for number in 10..20 {
        assert_eq!(desk.ask(&format!("352099000000{number}"), None).1, GREY);
    }
    assert!(!desk.grey.tripped());
    desk.journal.is_down.set(false);
    desk.grant(DEVICE, None);
}

#[test]
fn without_a_journal_black_and_grey_devices_are_answered_at_once_and_recorded_later() {
    let desk = Desk::new();
    desk.grant(DEVICE, Some(FIRST));
    desk.journal.is_down.set(true);
    assert_eq!(desk.ask(DEVICE, Some(SECOND)).1, GREY);
    assert_eq!(desk.ask(BLACK_DEVICE, Some(FIRST)).1, BLACK);
    desk.journal.is_down.set(false);
    desk.held(DEVICE, Some(SECOND));
    desk.held(BLACK_DEVICE, Some(FIRST));
    assert_eq!(desk.journal.last(), 3);
}

#[test]
fn the_breaker_trips_once_is_recorded_once_and_stops_all_starts() {
    let desk = Desk::with_limits(2, u64::MAX);
    let devices = ["35209900000011", "35209900000012", "35209900000013", "35209900000014"];
    devices[..2].iter().for_each(|device| desk.grant(device, Some(FIRST)));
    let not_started = Answered { status: Status::Grey, rule: Some(Rule::FirstAttach), not_started: true };
    for device in &devices[2..] {
        assert_eq!(desk.ask(device, Some(FIRST)), (Outcome::Answered(not_started), GREY));
    }
    desk.now.set(NOW + 3_600);
    assert_eq!(desk.ask(devices[2], Some(FIRST)).0, Outcome::Answered(not_started), "it does not heal by itself");
    let events = desk.journal.take();
    assert_eq!(events[2..], [Event::Breaker { tripped: true, at: NOW }]);
    assert_eq!(desk.grey.len(), 2);
    desk.grey.set_tripped(false);
    desk.grant(devices[2], Some(FIRST));
}

#[test]
fn a_tripped_breaker_leaves_timers_that_run_and_black_devices_alone() {
    let desk = Desk::with_limits(1, u64::MAX);
    desk.grant(DEVICE, Some(FIRST));
    assert_eq!(desk.ask("35209900000011", None).1, GREY);
    assert!(desk.grey.tripped());
    assert_eq!(desk.ask(DEVICE, Some(FIRST)).1, GREY);
    desk.held(DEVICE, Some(SECOND));
    desk.held(BLACK_DEVICE, Some(FIRST));
}

#[test]
fn the_breaker_counts_starts_of_one_minute_and_timers_that_run() {
    let desk = Desk::with_limits(2, 5);
    for device in 0..5u32 {
        desk.now.set(NOW + device * 30);
        desk.held(&format!("3520990000001{device}"), None);
    }
    assert!(!desk.grey.tripped());
    desk.now.set(NOW + 10 * 60);
    assert_eq!(desk.ask("35209900000019", None).1, GREY);
    assert!(desk.grey.tripped(), "the sixth that runs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is asked in whatever order: the journal tells the tables, so that a start from it answers the same.
    #[test]
    fn the_journal_brings_back_what_was_answered(
        asks in prop::collection::vec((0u8..4, prop::option::of(0u8..3), 0u8..8, 0u32..40_000), 1..40),
    ) {
        let mut desk = Desk::with_limits(3, 3);
        desk.policy.schedule = Schedule::new(Vec::new(), 2 * DAY);
        desk.policy.stale_after = u32::MAX;
        for (device, subscriber, act, later) in asks {
            desk.now.set(desk.now.get() + later);
            let device = if device == 3 { BLACK_DEVICE.to_owned() } else { format!("3520990000010{device}") };
            let subscriber = subscriber.map(|number| format!("00101000000000{number}"));
            let subscriber = subscriber.as_deref();
            match desk.ask(&device, subscriber) {
                (Outcome::Held(hold), _) => {
                    if act == 0 {
                        desk.overlay.set(imei(&device), OverlayChange::Listed(List::White), "");
                    }
                    desk.release(&device, subscriber, &hold);
                    if act == 0 {
                        desk.overlay.set(imei(&device), OverlayChange::Withdrawn, "");
                    }
                }
                (Outcome::Answered(_), status) => prop_assert!(status.is_some()),
                other => prop_assert!(false, "{other:?}"),
            }
        }

        let bytes: Vec<u8> = (1..).zip(desk.journal.take()).flat_map(|(number, event)| journal::encode(number, &event)).collect();
        prop_assert_eq!(bytes.len(), desk.journal.last() as usize * RECORD);
        let (grey, overlay) = (GreyTable::default(), Overlay::default());
        journal::replay(1, &bytes, |number, event| journal::apply(number, &event, &grey, &overlay));
        for device in 0..3 {
            let device = imei(&format!("3520990000010{device}"));
            prop_assert_eq!(grey.timer(device), desk.grey.timer(device));
        }
        prop_assert_eq!((grey.len(), grey.tripped()), (desk.grey.len(), desk.grey.tripped()));
        prop_assert_eq!(grey.running(desk.now.get()), desk.grey.running(desk.now.get()));
    }
}

#[test]
fn every_device_that_is_decided_is_in_use_with_its_subscriber() {
    let desk = Desk::new();
    let mut out = Vec::new();
    let (black, grey) = (request(BLACK_DEVICE, None), request(DEVICE, Some(FIRST)));
    let (malformed, meid) = (request("3520990017614x", Some(FIRST)), b"nonsense".to_vec());
    desk.door().handle(&[&black, &grey, &malformed, &meid], &mut out, |_, _, _| ());
    desk.ask(DEVICE, Some(SECOND));
    let mut pairs = Vec::new();
    desk.in_use.for_each_pair(NOW / DAY, |imei, imsi| pairs.push((imei, imsi)));
    pairs.sort_unstable();
    let of_device = |subscriber| (imei(DEVICE), Some(imsi(subscriber)));
    assert_eq!(pairs, [(imei(BLACK_DEVICE), None), of_device(FIRST), of_device(SECOND)]);
    desk.now.set(NOW + DAY);
    desk.ask(BLACK_DEVICE, None);
    assert_eq!(desk.in_use.last_day(imei(BLACK_DEVICE)), Some(NOW / DAY + 1));
    assert_eq!(desk.in_use.last_day(imei(DEVICE)), Some(NOW / DAY));
}

#[test]
fn answers_that_are_not_white_are_remembered_when_they_leave() {
    let desk = Desk::new();
    let hold = desk.held(DEVICE, Some(FIRST));
    assert_eq!(desk.recent.for_device(imei(DEVICE)), []);
    desk.journal.sync_all();
    desk.release(DEVICE, Some(FIRST), &hold);
    let answer = |at, imsi, status, rule| recent::Answer { at, imsi, status, rule };
    let first = answer(NOW, Some(imsi(FIRST)), Status::Grey, Rule::FirstAttach);
    assert_eq!(desk.recent.for_device(imei(DEVICE)), [first]);
    desk.overlay.set(imei(DEVICE), OverlayChange::Listed(List::White), "");
    desk.ask(DEVICE, None);
    desk.overlay.set(imei(DEVICE), OverlayChange::Listed(List::Black), "");
    desk.now.set(NOW + 5);
    let hold = desk.held(DEVICE, None);
    desk.now.set(NOW + 6);
    desk.release(DEVICE, None, &hold);
    let second = answer(NOW + 6, None, Status::Black, Rule::Black);
    assert_eq!(desk.recent.for_device(imei(DEVICE)), [second, first]);
}
