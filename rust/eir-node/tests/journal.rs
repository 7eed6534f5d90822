//! A node and its journal: what survives, what is taken back, and that answers go on whatever becomes of the disk.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eir_core::grey::Timer;
use eir_core::imei::{Imei, Imsi};
use eir_core::journal::{self, Event, Journal, OverlayChange, RECORD, Replayed};
use eir_core::lists::List;
use eir_core::policy::Policy;
use eir_core::verdict::{Request, Rule};
use eir_node::journal_writer::replay_directory;
use eir_node::node::Node;
use support::messages::{self, BLACK, GREY, WHITE, imei, imsi};
use support::*;

/// Octets of a segment of one record: the next record begins a new segment.
const ONE_RECORD: u64 = 2 * RECORD as u64;

fn device(number: u32) -> Imei {
    Imei::from_digits(&new_device(number)).unwrap()
}

fn start(number: u32) -> Event {
    let timer = Timer { start: now() - 60, deadline: now() + 86_400 };
    Event::Start { imei: device(number), imsi: Imsi::from_digits(SUBSCRIBER.as_bytes()), msisdn: None, timer }
}

fn segment(first: u64, events: &[Event]) -> Vec<u8> {
    let number = |at: usize| first.wrapping_add(at as u64);
    let records = events.iter().enumerate().flat_map(|(at, event)| journal::encode(number(at), event));
    journal::segment_header(first).into_iter().chain(records).collect()
}

fn path(place: &Place, first: u64) -> PathBuf {
    place.path().join(format!("{first:020}.eirj"))
}

/// Every event of a journal with its number.
fn events(directory: &Path) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    replay_directory(directory, 0, |sequence, event| events.push((sequence, event))).unwrap();
    events
}

/// The devices whose timers a node has, of those that these tests number.
fn timers(node: &Node) -> Vec<u32> {
    (0..20).filter(|number| node.grey().timer(device(*number)).is_some()).collect()
}

fn first_attach(peer: &mut Peer, number: u32) {
    assert_eq!(peer.ask(&request(&new_device(number), u64::from(number))).status(), GREY);
}

#[test]
fn a_first_attach_is_on_the_disk_before_its_answer_leaves() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    for number in 0..20 {
        let before = now();
        first_attach(&mut peer, number);
        let durable = rig.node.journal().progress().durable;
        let recorded = events(rig.place.path());
        let (sequence, event) = recorded.last().unwrap();
        assert!(*sequence <= durable, "{sequence} is not durable: {durable}");
        match event {
            Event::Start { imei, imsi: subscriber, timer, .. } => {
                assert_eq!((*imei, *subscriber), (device(number), Some(imsi(SUBSCRIBER))));
                assert!((before..=now()).contains(&timer.start));
                assert_eq!(timer.deadline, timer.start + 30 * 86_400);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rig.node.stats().peer(PEER).hold_timeouts.get(), 0);
}

#[test]
fn an_answer_that_carries_another_record_leaves_when_that_is_written() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    assert_eq!(peer.ask(&request(BLACK_DEVICE, 1)).status(), BLACK);
    let recorded = events(rig.place.path());
    assert!(matches!(recorded[..], [(1, Event::BlackAttempt { .. })]), "{recorded:?}");
    assert_eq!(peer.ask(&request(BLACK_DEVICE, 2)).status(), BLACK);
    assert_eq!(rig.node.journal().stats().records, 1, "one attempt a day is recorded");
}

#[test]
fn what_a_killed_node_had_answered_its_successor_knows() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    (0..10).for_each(|number| first_attach(&mut peer, number));
    peer.ask(&request(BLACK_DEVICE, 99));
    rig.node.set_overlay(imei("35209900000001"), OverlayChange::Listed(List::Black), "court", now()).unwrap();
    // The files as a kill -9 would leave them now; the first node has not been told to stop.
    let left = rig.place.copy();
    let next = Rig::on(left, |_| ());
    assert_eq!(next.node.replayed(), Replayed { records: 12, damaged: 0, torn: 0 });
    assert_eq!(timers(&next.node), (0..10).collect::<Vec<_>>());
    for number in 0..10 {
        let timer = |rig: &Rig| rig.node.grey().timer(device(number));
        assert_eq!(timer(&next), timer(&rig));
    }
    let mut peer = next.peer();
    assert_eq!(peer.ask(&request(&new_device(3), 1)).status(), GREY);
    assert_eq!(peer.ask(&request(BLACK_DEVICE, 2)).status(), BLACK);
    assert_eq!(peer.ask(&request(WHITE_DEVICE, 3)).status(), BLACK, "as the operator said");
    assert_eq!(next.answers("grey"), 1);
    assert_eq!(next.answers("first-attach"), 0);
    // Of all this only the last was not recorded before.
    assert_eq!(next.node.journal().stats().records, 1);
}

#[test]
fn a_node_that_was_stopped_has_all_on_the_disk() {
    let rig = Rig::with(|config| config.hold = Duration::ZERO);
    let mut peer = rig.peer();
    let requests: Vec<u8> = (0..200).flat_map(|number| request(&new_device(number), 1).bytes()).collect();
    peer.send(&requests);
    (0..200).for_each(|_| assert_eq!(peer.answer().status(), GREY));
    rig.node.stop();
    assert_eq!(rig.node.journal().progress().durable, 200);
    let Rig { node, place, .. } = rig;
    drop(node);
    assert_eq!(events(place.path()).len(), 200);
}

#[test]
fn sequence_numbers_go_on_from_start_to_start() {
    let mut place = Place::new();
    for run in 0..4u32 {
        let rig = Rig::on(place, |_| ());
        assert_eq!(timers(&rig.node), (0..2 * run).collect::<Vec<_>>());
        let mut peer = rig.peer();
        first_attach(&mut peer, 2 * run);
        first_attach(&mut peer, 2 * run + 1);
        let Rig { node, place: kept, .. } = rig;
        drop(node);
        place = kept;
    }
    let sequences: Vec<_> = events(place.path()).into_iter().map(|(sequence, _)| sequence).collect();
    assert_eq!(sequences, (1..=8).collect::<Vec<_>>());
}

#[test]
fn a_journal_of_many_segments_is_one_journal() {
    let rig = Rig::with(|config| config.journal.segment_bytes = ONE_RECORD);
    let mut peer = rig.peer();
    (0..10).for_each(|number| first_attach(&mut peer, number));
    let next = Rig::on(rig.place.copy(), |_| ());
    assert_eq!(timers(&next.node), (0..10).collect::<Vec<_>>());
    let segments = fs::read_dir(rig.place.path()).unwrap().count() - 1;
    assert_eq!(segments, 10, "one a record, beside the lock");
}

#[test]
fn a_journal_in_use_is_refused_to_a_second_node_until_the_first_is_gone() {
    let rig = Rig::new();
    let refused = Node::start(config(&rig.place), Policy::default()).err().unwrap();
    assert!(refused.to_string().contains("another node uses the journal"), "{refused}");
    assert_eq!(rig.peer().ask(&request(WHITE_DEVICE, 1)).status(), WHITE, "the first is not disturbed");
    let Rig { node, place, .. } = rig;
    drop(node);
    Node::start(config(&place), Policy::default()).unwrap();
}

#[test]
fn a_damaged_record_costs_itself_only() {
    let place = Place::new();
    let mut bytes = segment(1, &[start(0), start(1), start(2)]);
    bytes[2 * RECORD + 30] ^= 1;
    fs::write(path(&place, 1), bytes).unwrap();
    let rig = Rig::on(place, |_| ());
    assert_eq!((timers(&rig.node), rig.node.replayed()), (vec![0, 2], Replayed { records: 2, damaged: 1, torn: 0 }));
    first_attach(&mut rig.peer(), 5);
    assert_eq!(events(rig.place.path()).last().unwrap().0, 4, "no number is given twice");
}

#[test]
fn a_torn_record_is_passed_over_and_what_comes_later_is_kept() {
    for cut in 1..RECORD {
        let place = Place::new();
        let bytes = segment(1, &[start(0), start(1)]);
        fs::write(path(&place, 1), &bytes[..2 * RECORD + cut]).unwrap();
        let node = Node::start(config(&place), Policy::default()).unwrap();
        assert_eq!((timers(&node), node.replayed().torn), (vec![0], cut as u64));
        node.set_breaker(true, 1).unwrap();
        drop(node);
        let kept: Vec<_> = events(place.path()).into_iter().map(|(sequence, _)| sequence).collect();
        assert_eq!(kept, [1, 2]);
    }
}

#[test]
fn a_segment_cut_in_its_header_gives_its_place_to_the_next() {
    for length in [0, 1, RECORD - 1, RECORD] {
        let place = Place::new();
        fs::write(path(&place, 1), segment(1, &[start(0), start(1)])).unwrap();
        fs::write(path(&place, 3), &segment(3, &[])[..length]).unwrap();
        let rig = Rig::on(place, |_| ());
        assert_eq!(timers(&rig.node), [0, 1]);
        first_attach(&mut rig.peer(), 2);
        assert_eq!(events(rig.place.path()).last().unwrap().0, 3);
    }
}

#[test]
fn a_damaged_header_is_made_good_by_the_name() {
    let place = Place::new();
    let mut bytes = segment(7, &[start(0), start(1)]);
    bytes[..RECORD].fill(0xA5);
    fs::write(path(&place, 7), bytes).unwrap();
    let rig = Rig::on(place, |_| ());
    assert_eq!((timers(&rig.node), rig.node.replayed()), (vec![0, 1], Replayed { records: 2, damaged: 1, torn: 0 }));
    first_attach(&mut rig.peer(), 2);
    assert_eq!(events(rig.place.path()).last().unwrap().0, 9);
}

#[test]
fn foreign_files_are_left_alone() {
    let place = Place::new();
    fs::write(path(&place, 1), segment(1, &[start(0)])).unwrap();
    let foreign: [(&str, &[u8]); 5] = [
        ("notes.txt", b"remember the milk"),
        ("x.eirj", b"not a number"),
        ("-1.eirj", b"not a number"),
        (".eirj", b""),
        ("00000000000000000001.eirj.bak", &[0; 200]),
    ];
    for (name, bytes) in foreign {
        fs::write(place.path().join(name), bytes).unwrap();
    }
    let rig = Rig::on(place, |_| ());
    assert_eq!((timers(&rig.node), rig.node.replayed().records), (vec![0], 1));
    first_attach(&mut rig.peer(), 1);
    for (name, bytes) in foreign {
        assert_eq!(fs::read(rig.place.path().join(name)).unwrap(), bytes, "{name}");
    }
}

#[test]
fn no_name_and_no_header_makes_numbers_overflow() {
    for name in [u64::MAX, u64::MAX - 1, 1 << 63] {
        for bytes in [Vec::new(), segment(name, &[]), segment(name, &[start(0)]), vec![0xA5; 3 * RECORD]] {
            let place = Place::new();
            fs::write(path(&place, 1), segment(1, &[start(1)])).unwrap();
            fs::write(path(&place, name), &bytes).unwrap();
            let rig = Rig::on(place, |_| ());
            assert!(timers(&rig.node).contains(&1));
            first_attach(&mut rig.peer(), 2);
            assert_eq!(fs::read(path(&rig.place, name)).unwrap(), bytes);
        }
    }
}

#[test]
fn a_header_with_a_number_that_none_writes_is_damaged() {
    let place = Place::new();
    fs::write(path(&place, 1), segment(u64::MAX - 1, &[start(0), start(1)])).unwrap();
    let rig = Rig::on(place, |_| ());
    assert_eq!(rig.node.replayed(), Replayed { records: 0, damaged: 3, torn: 0 });
    first_attach(&mut rig.peer(), 2);
    assert_eq!(events(rig.place.path()).last().unwrap().0, 3);
}

#[test]
fn a_segment_under_another_name_is_read_and_never_written_over() {
    let place = Place::new();
    // Its records end with number 3, and so the next would be the fourth: the very name that it has.
    fs::write(path(&place, 4), segment(1, &[start(0), start(1), start(2)])).unwrap();
    let rig = Rig::on(place, |_| ());
    assert_eq!(timers(&rig.node), [0, 1, 2]);
    first_attach(&mut rig.peer(), 3);
    let next = Rig::on(rig.place.copy(), |_| ());
    assert_eq!(timers(&next.node), [0, 1, 2, 3]);
}

/// Sends first attaches of these devices and checks that all are answered grey; says how many started.
fn attach(rig: &Rig, peer: &mut Peer, numbers: std::ops::Range<u32>) -> usize {
    let before = rig.node.grey().len();
    numbers.for_each(|number| first_attach(peer, number));
    rig.node.grey().len() - before
}

#[test]
fn a_full_journal_starts_nothing_answers_on_and_recovers_when_there_is_room() {
    const ROOM: u64 = 10 * RECORD as u64;
    let rig = Rig::with(|config| config.journal.max_bytes = ROOM);
    let mut peer = rig.peer();
    assert_eq!(attach(&rig, &mut peer, 0..20), 9, "as many as fit behind the header");
    let stats = rig.node.journal().stats();
    assert!(!stats.available && stats.failures > 0 && stats.bytes <= ROOM, "{stats:?}");
    assert_eq!(peer.ask(&request(WHITE_DEVICE, 1)).status(), WHITE);
    assert_eq!(peer.ask(&request(BLACK_DEVICE, 2)).status(), BLACK);
    assert_eq!(rig.node.stats().peer(PEER).not_started.get(), 11);
    assert!(rig.node.set_overlay(imei("35209900000001"), OverlayChange::Listed(List::Black), "", 1).is_err());
    assert_eq!(peer.ask(&request(WHITE_DEVICE, 3)).status(), WHITE, "what was refused is not in force");

    // An operator carries old segments away.
    fs::rename(path(&rig.place, 1), rig.place.path().join("carried-away")).unwrap();
    wait_until("the journal", || rig.node.journal().available());
    assert_eq!(attach(&rig, &mut peer, 9..12), 3);
}

#[test]
fn a_journal_that_was_full_before_the_start_starts_nothing() {
    let place = Place::new();
    fs::write(path(&place, 1), segment(1, &[start(0)])).unwrap();
    let rig = Rig::on(place, |config| config.journal.max_bytes = ONE_RECORD);
    assert!(!rig.node.journal().available());
    assert_eq!(timers(&rig.node), [0], "what it holds is known");
    assert_eq!(attach(&rig, &mut rig.peer(), 1..4), 0);
}

#[test]
fn a_segment_that_cannot_be_begun_takes_the_start_back_until_it_can() {
    let rig = Rig::with(|config| config.journal.segment_bytes = ONE_RECORD);
    let mut peer = rig.peer();
    // A directory where the second segment would be: opening it fails, whoever runs the test.
    fs::create_dir(path(&rig.place, 2)).unwrap();
    assert_eq!(attach(&rig, &mut peer, 0..1), 1);
    first_attach(&mut peer, 1);
    assert_eq!(timers(&rig.node), [0], "the start that could not be recorded is none");
    assert_eq!(rig.node.stats().peer(PEER).not_started.get(), 1);
    assert!(!rig.node.journal().available());
    fs::remove_dir(path(&rig.place, 2)).unwrap();
    wait_until("the journal", || rig.node.journal().available());
    // It begins anew, with whoever comes first now; who came in vain is a further subscriber then.
    let other = messages::ecr(&new_device(1), "001010000000002");
    assert_eq!(peer.ask(&other).status(), GREY);
    first_attach(&mut peer, 1);
    let recorded: Vec<_> = events(rig.place.path()).into_iter().map(|(_, event)| event).collect();
    assert_eq!(recorded.len(), 3);
    assert!(
        matches!(recorded[1], Event::Start { imei, imsi: Some(by), .. } if (imei, by) == (device(1), imsi("001010000000002")))
    );
    assert!(matches!(recorded[2], Event::Seen { imei, imsi: by, .. } if (imei, by) == (device(1), imsi(SUBSCRIBER))));
}

#[test]
fn a_black_attempt_that_could_not_be_recorded_is_recorded_at_the_next() {
    let rig = Rig::with(|config| config.journal.segment_bytes = ONE_RECORD);
    let mut peer = rig.peer();
    fs::create_dir(path(&rig.place, 2)).unwrap();
    first_attach(&mut peer, 0);
    assert_eq!(peer.ask(&request(BLACK_DEVICE, 1)).status(), BLACK);
    assert!(!rig.node.journal().available());
    fs::remove_dir(path(&rig.place, 2)).unwrap();
    wait_until("the journal", || rig.node.journal().available());
    assert_eq!(peer.ask(&request(BLACK_DEVICE, 2)).status(), BLACK);
    assert!(matches!(events(rig.place.path())[..], [_, (_, Event::BlackAttempt { .. })]));
}

/// A pipe where a segment would be: who opens it for writing waits until somebody reads. So a disk that is stuck looks.
struct Stuck(PathBuf);

impl Stuck {
    fn at(place: &Place, first: u64) -> Self {
        let path = path(place, first);
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the name is a C string that lives until the call returns.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        Self(path)
    }
}

/// The disk answers again, with an error first: a pipe cannot be synced. Also where a test fails, which else would wait
/// for ever.
impl Drop for Stuck {
    fn drop(&mut self) {
        let reader = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&self.0);
        let removed = fs::remove_file(&self.0);
        drop(reader);
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

#[test]
fn a_stuck_disk_delays_a_first_attach_by_the_hold_and_no_other_answer() {
    const HOLD: Duration = Duration::from_millis(100);
    let rig = Rig::with(|config| {
        config.journal.segment_bytes = ONE_RECORD;
        config.hold = HOLD;
    });
    let mut peer = rig.peer();
    let disk = Stuck::at(&rig.place, 2);
    first_attach(&mut peer, 0);
    assert_eq!(rig.node.stats().peer(PEER).hold_timeouts.get(), 0);

    let asked = Instant::now();
    peer.send(&[request(&new_device(1), 1), request(WHITE_DEVICE, 2)].map(|message| message.bytes()).concat());
    let white = peer.answer();
    assert_eq!((white.identifiers, white.status()), (2u64.to_be_bytes(), WHITE), "it overtakes");
    let grey = peer.answer();
    assert_eq!((grey.identifiers, grey.status()), (1u64.to_be_bytes(), GREY));
    assert!(asked.elapsed() >= HOLD, "{:?}", asked.elapsed());
    let stats = rig.node.stats().peer(PEER);
    assert_eq!((stats.hold_timeouts.get(), rig.answers("first-attach")), (1, 2));
    assert_eq!(timers(&rig.node), [0, 1], "its record is still on its way");
    assert!(rig.node.journal().stats().depth >= 1);

    drop(disk);
    wait_until("the start to be taken back", || timers(&rig.node) == [0]);
    wait_until("the journal", || rig.node.journal().available());
    first_attach(&mut peer, 1);
    assert_eq!(timers(&rig.node), [0, 1]);
}

#[test]
fn a_device_verified_while_its_first_answer_is_held_is_white_and_its_timer_is_gone_for_good() {
    let rig = Rig::with(|config| {
        config.journal.segment_bytes = ONE_RECORD;
        config.hold = Duration::from_secs(1);
    });
    let mut peer = rig.peer();
    let disk = Stuck::at(&rig.place, 2);
    first_attach(&mut peer, 0);
    peer.send(&request(&new_device(1), 1).bytes());
    wait_until("the timer", || timers(&rig.node) == [0, 1]);
    rig.node.set_snapshot(lists("35209901000001,white,"));
    assert_eq!(peer.answer().status(), WHITE);
    assert_eq!(timers(&rig.node), [0]);
    assert_eq!(rig.answers("white"), 1);
    drop(disk);
}

#[test]
fn a_control_plane_record_that_cannot_be_kept_changes_nothing() {
    let rig = Rig::with(|config| config.journal.segment_bytes = ONE_RECORD);
    fs::create_dir(path(&rig.place, 2)).unwrap();
    rig.node.set_breaker(true, now()).unwrap();
    assert!(rig.node.set_breaker(false, now()).is_err());
    assert!(rig.node.grey().tripped());
    assert!(rig.node.set_overlay(imei("35209900000001"), OverlayChange::Listed(List::Black), "x", now()).is_err());
    assert_eq!(rig.node.overlay_len(), 0);
    let next = Rig::on(
        {
            fs::remove_dir(path(&rig.place, 2)).unwrap();
            rig.place.copy()
        },
        |_| (),
    );
    assert!(next.node.grey().tripped());
}

#[test]
fn a_reason_that_does_not_fit_a_record_is_refused() {
    let rig = Rig::new();
    let set = |reason: &str| rig.node.set_overlay(imei("35209900000001"), OverlayChange::Unlisted, reason, now());
    assert!(set(&"x".repeat(33)).is_err() && set("a\0b").is_err());
    set(&"x".repeat(32)).unwrap();
    assert_eq!((rig.node.overlay_len(), rig.node.journal().stats().records), (1, 1));
}

#[test]
fn the_breaker_trips_is_recorded_and_stays_tripped_over_a_start() {
    let rig = Rig::new();
    let mut policy = Policy::default();
    policy.breaker.starts_per_minute = 3;
    // The minute may turn while this runs: then more may start, but not twice as many.
    rig.node.set_policy(policy);
    let started = attach(&rig, &mut rig.peer(), 0..10);
    assert!((3..=6).contains(&started), "{started}");
    assert!(rig.node.grey().tripped());
    let tripped = |(_, event): &(u64, Event)| matches!(event, Event::Breaker { tripped: true, .. });
    wait_until("the record", || events(rig.place.path()).iter().filter(|event| tripped(event)).count() == 1);
    let next = Rig::on(rig.place.copy(), |_| ());
    assert!(next.node.grey().tripped());
    assert_eq!(attach(&next, &mut next.peer(), 10..12), 0);
    next.node.set_breaker(false, now()).unwrap();
    assert_eq!(attach(&next, &mut next.peer(), 10..12), 2);
    assert!(!Rig::on(next.place.copy(), |_| ()).node.grey().tripped());
}

#[test]
fn an_explanation_says_what_would_be_answered_and_starts_nothing() {
    let rig = Rig::new();
    let ask = |device: Imei| rig.node.explain(&Request { imei: Ok(device), imsi: None }, now());
    let black = ask(Imei::from_digits(BLACK_DEVICE).unwrap());
    assert_eq!((black.verdict.rule, *black.asked.last().unwrap()), (Rule::Black, Rule::Black));
    assert_eq!(black.listing, Some(("black", "not-verified".into(), false)));
    assert_eq!(ask(device(1)).verdict.rule, Rule::FirstAttach);
    assert!(rig.node.grey().is_empty());
    assert_eq!(rig.node.journal().stats().records, 0);
}
