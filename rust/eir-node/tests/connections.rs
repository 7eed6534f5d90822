//! A running node and its peers: what arrives how, what is answered when, and who does not disturb whom.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eir_core::diameter::terms::{Sender, Terms};
use eir_core::policy::Policy;
use eir_node::events::{Event, Kind};
use eir_node::gate::GateSettings;
use eir_node::trace::Filter;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use socket2::{Domain, Socket, Type};
use support::messages::{BLACK, GREY, Message, WHITE, cer, dwr, ecr};
use support::*;

/// Requests that are answered at once, each in its own way, once `warm` was called.
fn kinds() -> Vec<Message> {
    vec![
        ecr(WHITE_DEVICE, SUBSCRIBER),
        ecr(BLACK_DEVICE, SUBSCRIBER),
        ecr(&new_device(1), SUBSCRIBER),
        ecr(b"no IMEI", SUBSCRIBER),
        ecr(&[b'1'; 1_000], SUBSCRIBER),
        dwr(),
        // Not answered by the data plane: between the others nothing must be missing.
        Message { command: 282, ..dwr() },
    ]
}

/// Has the records written that the first answers wait for, so that later ones come in the order of their requests.
fn warm(peer: &mut Peer) {
    for device in [BLACK_DEVICE, &new_device(1)] {
        peer.ask(&request(device, 0));
    }
}

#[test]
fn however_a_stream_is_cut_its_answers_are_the_same() {
    let rig = Rig::new();
    warm(&mut rig.peer());
    let kinds = kinds();
    let cases = (
        prop::collection::vec(prop::sample::select(kinds), 1..12),
        prop::collection::vec(prop_oneof![1usize..8, 1usize..400], 1..20),
    );
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&cases, |(messages, pieces)| {
        let end = dwr().numbered(u64::MAX);
        let messages: Vec<_> =
            (0..).zip(messages).map(|(number, message)| message.numbered(number)).chain([end]).collect();
        let stream: Vec<u8> = messages.iter().flat_map(Message::bytes).collect();
        let answers = |peer: &mut Peer| {
            let mut answers = Vec::new();
            while answers.last().is_none_or(|answer: &Vec<u8>| answer[12..20] != [0xFF; 8]) {
                answers.push(peer.message());
            }
            answers
        };
        let mut whole = rig.peer();
        whole.send(&stream);
        let mut cut = rig.peer();
        let (mut rest, mut pieces) = (&stream[..], pieces.into_iter().cycle());
        while let Some(piece) = pieces.next().filter(|_| !rest.is_empty()) {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            cut.send(now);
            rest = later;
        }
        let expected = answers(&mut whole);
        prop_assert_eq!(answers(&mut cut), &expected[..]);
        let answered = messages.iter().filter(|message| message.command != 282).map(|message| message.identifiers);
        prop_assert!(expected.iter().map(|answer| &answer[12..20]).eq(answered), "in the order of the requests");
        Ok(())
    });
    run.unwrap();
}

#[test]
fn a_stream_that_comes_octet_by_octet_is_answered_as_one_that_comes_whole() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    warm(&mut peer);
    let stream: Vec<u8> =
        (1..).zip(&kinds()[..3]).flat_map(|(number, message)| message.clone().numbered(number).bytes()).collect();
    for octet in &stream {
        peer.send(&[*octet]);
        // Most of them are read by themselves.
        std::thread::sleep(Duration::from_micros(50));
    }
    let one_by_one: Vec<_> = (0..3).map(|_| peer.message()).collect();
    peer.send(&stream);
    let at_once: Vec<_> = (0..3).map(|_| peer.message()).collect();
    assert_eq!(one_by_one, at_once);
    assert!(peer.is_silent());
}

#[test]
fn three_hundred_requests_in_one_write_get_three_hundred_answers_in_their_order() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    let stream: Vec<u8> = (0..300).flat_map(|number| request(WHITE_DEVICE, number).bytes()).collect();
    peer.send(&stream);
    for number in 0..300u64 {
        let answer = peer.answer();
        assert_eq!((answer.identifiers, answer.status()), (number.to_be_bytes(), WHITE));
    }
    assert_eq!(rig.answers("white"), 300);
}

/// A hundred first attaches, as one stream.
fn first_attaches() -> Vec<u8> {
    (0..100).flat_map(|number| request(&new_device(number), u64::from(number)).bytes()).collect()
}

#[test]
fn a_peer_that_has_said_its_last_still_gets_what_is_held() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    peer.send(&first_attaches());
    peer.stream.shutdown(Shutdown::Write).unwrap();
    for _ in 0..100 {
        assert_eq!(peer.answer().status(), GREY);
    }
    assert_eq!((peer.closed_after(), rig.end_of(&peer)), (0, "peer closed"));
}

#[test]
fn what_the_control_plane_sends_and_its_close_come_behind_held_answers() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    let number = rig.number(&peer);
    peer.send(&[first_attaches(), Message { command: 282, ..dwr() }.bytes()].concat());
    wait_until("the DPR", || rig.messages_of(&peer).iter().any(|message| message[7] == 282u32 as u8));
    assert!(rig.node.send(number, cea()));
    assert!(rig.node.close(number, Vec::new()));
    for _ in 0..100 {
        assert_eq!(peer.answer().status(), GREY);
    }
    assert_eq!(peer.message(), cea());
    assert_eq!((peer.closed_after(), rig.end_of(&peer)), (0, "closed"));
}

#[test]
fn three_hundred_first_attaches_in_one_write_each_get_one_answer() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    let stream: Vec<u8> = (0..300).flat_map(|number| request(&new_device(number), u64::from(number)).bytes()).collect();
    peer.send(&stream);
    let mut numbers: Vec<_> = (0..300)
        .map(|_| peer.answer())
        .inspect(|answer| assert_eq!(answer.status(), GREY))
        .map(|answer| u64::from_be_bytes(answer.identifiers))
        .collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..300));
    assert_eq!((rig.answers("first-attach"), rig.node.grey().len()), (300, 300));
}

#[test]
fn each_device_gets_the_answer_of_its_list() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    for _ in 0..2 {
        for (device, status) in [(WHITE_DEVICE, WHITE), (BLACK_DEVICE, BLACK), (&new_device(7), GREY)] {
            assert_eq!(peer.ask(&request(device, 5)).status(), status);
        }
    }
    assert_eq!(peer.ask(&dwr()).result_code(), Some(2001));
    let stats = rig.node.stats().peer(PEER);
    assert_eq!(stats.watchdogs.get(), 1);
    let expected = [("black", "black", 2), ("white", "white", 2), ("grey", "grey", 1), ("first-attach", "grey", 1)];
    assert_eq!(stats.answers(), expected);
}

#[test]
fn without_lists_everything_is_answered_as_the_policy_says_and_nothing_starts() {
    let place = Place::new();
    let node = eir_node::node::Node::start(config(&place), Policy::default()).unwrap();
    let address = node.listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
    let mut peer = Peer::new(TcpStream::connect(address).unwrap());
    peer.send(&cer().bytes());
    wait_until("the connection", || node.open(1, cea(), PEER, Sender::Anyone));
    assert_eq!(peer.message(), cea());
    assert_eq!(peer.ask(&request(BLACK_DEVICE, 1)).status(), WHITE);
    assert!(node.grey().is_empty());
}

#[test]
fn what_follows_the_first_message_waits_for_the_control_plane() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    let behind: Vec<u8> = (1..=3).flat_map(|number| request(WHITE_DEVICE, number).bytes()).collect();
    // The last one is not whole.
    peer.send(&[cer().bytes(), behind[..behind.len() - 10].to_vec()].concat());
    let (connection, first) = rig.first_message(&peer);
    assert_eq!(first, cer().bytes());
    assert!(peer.is_silent());
    assert_eq!(rig.messages_of(&peer).len(), 1, "the rest is not handed up either");
    assert!(rig.node.open(connection, cea(), PEER, Sender::Anyone));
    assert_eq!(peer.message(), cea(), "before any answer");
    peer.send(&behind[behind.len() - 10..]);
    for number in 1..=3u64 {
        assert_eq!(peer.answer().identifiers, number.to_be_bytes());
    }
}

#[test]
fn a_connection_that_is_refused_gets_no_other_answer() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    peer.send(&[cer().bytes(), request(WHITE_DEVICE, 1).bytes()].concat());
    let (connection, _) = rig.first_message(&peer);
    assert!(rig.node.close(connection, cea()));
    assert_eq!(peer.closed_after(), cea().len());
    assert_eq!((rig.end_of(&peer), rig.answers("white")), ("closed", 0));
    assert!(!rig.node.send(connection, cea()), "it is gone");
}

#[test]
fn a_first_message_of_any_kind_is_handed_up_and_nothing_is_answered() {
    let rig = Rig::new();
    for first in [request(WHITE_DEVICE, 1), dwr()] {
        let mut peer = rig.connect();
        peer.send(&first.bytes());
        assert_eq!(rig.first_message(&peer).1, first.bytes());
        assert!(peer.is_silent());
    }
    assert_eq!(rig.node.before_open().stats.punted.get(), 2);
}

#[test]
fn behind_the_first_message_nothing_is_read() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    peer.send(&cer().bytes());
    rig.first_message(&peer);
    peer.stream.set_nonblocking(true).unwrap();
    let megabyte = vec![0; 1 << 20];
    let (mut taken, mut last) = (0, Instant::now());
    // The kernels' buffers take some megabytes; then it must stick.
    while last.elapsed() < NEVER {
        match peer.stream.write(&megabyte) {
            Ok(count) => (taken, last) = (taken + count, Instant::now()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(taken < 256 << 20, "the node reads on");
    }
    assert_eq!(rig.messages_of(&peer).len(), 1);
}

#[test]
fn messages_that_are_not_answered_are_handed_up_in_order() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    let strange: Vec<_> =
        (1..=5).map(|number| Message { command: 300, ..request(WHITE_DEVICE, number) }.bytes()).collect();
    peer.send(&strange.concat());
    wait_until("five messages", || rig.messages_of(&peer).len() == 6);
    assert_eq!(rig.messages_of(&peer)[1..], strange);
    assert!(peer.is_silent());
    assert_eq!(rig.node.stats().peer(PEER).punted.get(), 5);
    assert!(rig.node.send(rig.number(&peer), b"answer".to_vec()));
    let mut answer = [0; 6];
    peer.stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

#[test]
fn what_the_control_plane_has_no_place_for_is_refused_at_once() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    // Nobody takes events before the rig is asked for them.
    let strange = |number| Message { command: 300, ..request(WHITE_DEVICE, number) }.bytes();
    peer.send(&(1..=100).flat_map(strange).collect::<Vec<u8>>());
    for _ in 64..100 {
        let answer = peer.answer();
        assert_eq!((answer.command, answer.result_code()), (300, Some(3004)));
    }
    assert!(peer.is_silent());
    let stats = rig.node.stats().peer(PEER);
    assert_eq!((stats.limited.get(), stats.punted.get()), (36, 64));
    wait_until("the others", || rig.messages_of(&peer).len() == 65);
}

#[test]
fn a_stream_that_cannot_be_framed_is_closed_after_the_answers_before_it() {
    let rig = Rig::new();
    let over = (1 << 24 | (eir_node::connection::MAX_MESSAGE as u32 + 1)).to_be_bytes();
    for broken in [&[1, 0, 0, 19][..], &[1, 0, 0, 0], &over, b"GET / HTTP/1.1\r\n\r\n"] {
        let mut peer = rig.peer();
        peer.send(&[&request(WHITE_DEVICE, 1).bytes(), broken].concat());
        assert_eq!(peer.answer().status(), WHITE);
        assert_eq!(peer.closed_after(), 0);
        assert_eq!(rig.end_of(&peer), "unframeable");

        let mut stranger = rig.connect();
        stranger.send(broken);
        assert_eq!(stranger.closed_after(), 0);
        assert_eq!(rig.end_of(&stranger), "unframeable");
        assert!(rig.messages_of(&stranger).is_empty());
    }
    assert_eq!(rig.node.stats().unframeable.get(), 8);
}

#[test]
fn the_longest_message_is_taken() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    let room = eir_node::connection::MAX_MESSAGE - request(WHITE_DEVICE, 1).bytes().len() - 8;
    let longest = request(WHITE_DEVICE, 1).with(support::messages::avp(70_000, 0, 0, &vec![b'x'; room]));
    assert_eq!(longest.bytes().len(), eir_node::connection::MAX_MESSAGE);
    peer.send(&[longest.bytes(), longest.bytes(), request(BLACK_DEVICE, 2).bytes()].concat());
    assert_eq!([WHITE, WHITE, BLACK], [(); 3].map(|()| peer.answer().status()));
}

#[test]
fn more_connections_than_allowed_are_closed_at_once_and_a_place_that_falls_free_is_given() {
    let rig = Rig::new();
    rig.node.gate().set(GateSettings { max_connections: 2, ..GateSettings::default() });
    let (first, mut second) = (rig.peer(), rig.peer());
    let mut third = rig.connect();
    assert_eq!(third.closed_after(), 0);
    assert_eq!(rig.node.stats().accepted.get(), 3);
    assert_eq!(rig.node.gate().refused()[1], ("connections", 1));
    assert_eq!(second.ask(&request(WHITE_DEVICE, 1)).status(), WHITE, "those that are open go on");
    assert_eq!(rig.node.connections().len(), 2);
    drop(first.stream.shutdown(std::net::Shutdown::Both));
    assert_eq!(rig.end_of(&first), "peer closed");
    let mut fourth = rig.peer();
    assert_eq!(fourth.ask(&request(WHITE_DEVICE, 2)).status(), WHITE);
}

#[test]
fn a_peer_that_does_not_read_stops_no_other_and_finds_every_answer_when_it_does() {
    let rig = Rig::with(|config| config.workers = 1);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&rig.address.into()).unwrap();
    let mut slow = rig.open(Peer::new(socket.into()));
    let mut other = rig.peer();

    let batch: Vec<u8> = (0..100).flat_map(|_| request(WHITE_DEVICE, 1).bytes()).collect();
    let one = batch.len() / 100;
    let (mut sent, mut last) = (0, Instant::now());
    slow.stream.set_nonblocking(true).unwrap();
    while last.elapsed() < NEVER {
        match slow.stream.write(&batch[sent % one..]) {
            Ok(count) => (sent, last) = (sent + count, Instant::now()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    slow.stream.set_nonblocking(false).unwrap();
    let asked = Instant::now();
    for number in 0..20 {
        assert_eq!(other.ask(&request(WHITE_DEVICE, number)).status(), WHITE);
    }
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    for _ in 0..sent / one {
        assert_eq!(slow.message()[12..20], 1u64.to_be_bytes());
    }
    assert!(slow.is_silent());
}

#[test]
fn each_request_of_a_peer_that_leaves_early_is_counted_as_answered_or_lost() {
    let rig = Rig::new();
    for number in 0..20 {
        let mut peer = rig.peer();
        peer.send(&request(&new_device(number), 1).bytes());
        drop(peer);
    }
    wait_until("the connections' ends", || rig.node.connections().is_empty());
    let stats = rig.node.stats().peer(PEER);
    // Some answers may have left before the peer did.
    assert_eq!(stats.lost.get() + rig.answers("first-attach"), 20);
    assert_eq!(rig.peer().ask(&request(WHITE_DEVICE, 1)).status(), WHITE);
}

#[test]
fn idle_tells_how_long_ago_the_last_octet_came() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    let connection = rig.number(&peer);
    std::thread::sleep(NEVER);
    let before = rig.node.idle(connection).unwrap();
    assert!(before >= NEVER);
    peer.ask(&dwr());
    // The time is noted when the answer has been written.
    wait_until("the new time", || rig.node.idle(connection).unwrap() < before);
    assert_eq!(rig.node.idle(connection + 1), None);
}

/// Swaps of the lists, counted before each and when it has returned. After an even number the device is white.
#[derive(Default)]
struct Swaps {
    begun: AtomicU64,
    done: AtomicU64,
    are_over: AtomicBool,
}

/// Asks for one device in batches until the swaps are over; each answer must be of a list that was in force between its
/// request and itself. Returns how many there were.
fn ask_while_lists_are_swapped(mut peer: Peer, swaps: &Swaps) -> u64 {
    const BATCH: u64 = 20;
    let mut asked = 0;
    while !swaps.are_over.load(Ordering::Acquire) {
        let oldest = swaps.done.load(Ordering::Acquire);
        let numbers = asked..asked + BATCH;
        peer.send(&numbers.clone().flat_map(|number| request(b"35209902000001", number).bytes()).collect::<Vec<_>>());
        // A black attempt may be held, and be overtaken.
        let mut answered: Vec<_> = (0..BATCH)
            .map(|_| {
                let answer = peer.answer();
                let newest = swaps.begun.load(Ordering::Acquire);
                let in_force = |swap: u64| answer.status() == if swap.is_multiple_of(2) { WHITE } else { BLACK };
                assert!((oldest..=newest).any(in_force), "{:?} is of no list in force", answer.status());
                u64::from_be_bytes(answer.identifiers)
            })
            .collect();
        answered.sort_unstable();
        assert!(answered.into_iter().eq(numbers), "each request has one answer");
        asked += BATCH;
    }
    asked
}

#[test]
fn no_answer_is_lost_or_older_than_its_request_while_lists_are_swapped() {
    let rig = Rig::new();
    let (white, black) = (lists("35209902000001,white,"), lists("35209902000001,black,"));
    rig.node.set_snapshot(white.clone());
    let swaps = Swaps::default();
    let asked: u64 = std::thread::scope(|scope| {
        let peers = [rig.peer(), rig.peer()];
        let asking = peers.map(|peer| scope.spawn(|| ask_while_lists_are_swapped(peer, &swaps)));
        for swap in 1..=60 {
            std::thread::sleep(Duration::from_millis(5));
            swaps.begun.store(swap, Ordering::Release);
            rig.node.set_snapshot(if swap % 2 == 0 { white.clone() } else { black.clone() });
            swaps.done.store(swap, Ordering::Release);
        }
        swaps.are_over.store(true, Ordering::Release);
        asking.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(rig.answers("white") + rig.answers("black"), asked);
    assert!(rig.answers("white") > 0 && rig.answers("black") > 0, "both lists were asked");
}

#[test]
fn settings_and_lists_are_replaced_apart_from_each_other() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    assert_eq!(peer.ask(&request(BLACK_DEVICE, 1)).status(), BLACK);
    rig.node.set_policy(Policy { all_white: true, ..Policy::default() });
    assert_eq!(peer.ask(&request(BLACK_DEVICE, 2)).status(), WHITE);
    rig.node.set_snapshot(lists(""));
    assert_eq!(peer.ask(&request(BLACK_DEVICE, 3)).status(), WHITE);
    rig.node.set_policy(Policy::default());
    assert_eq!(peer.ask(&request(BLACK_DEVICE, 4)).status(), BLACK);
}

#[test]
fn a_stopped_node_closes_its_connections_and_answers_no_more() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    rig.node.stop();
    assert_eq!(peer.closed_after(), 0);
    assert!(TcpStream::connect(rig.address).is_err());
    assert!(rig.node.listen("127.0.0.1:0".parse().unwrap(), false).is_err());
    rig.node.stop();
}

#[test]
fn a_node_that_no_longer_listens_goes_on_with_its_peers() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    rig.node.stop_listening();
    wait_until("the end of listening", || TcpStream::connect(rig.address).is_err());
    assert_eq!(peer.ask(&request(WHITE_DEVICE, 1)).status(), WHITE);
}

#[test]
fn a_first_message_that_no_cer_is_as_long_as_ends_the_connection() {
    let rig = Rig::new();
    for (length, taken) in [(16 << 10, true), ((16 << 10) + 4, false)] {
        let mut peer = rig.connect();
        let mut message = vec![0; length];
        message[..4].copy_from_slice(&(1 << 24 | length as u32).to_be_bytes());
        peer.send(&message);
        if taken {
            assert_eq!(rig.first_message(&peer).1.len(), length);
        } else {
            assert_eq!((peer.closed_after(), rig.end_of(&peer)), (0, "unframeable"));
        }
    }
}

#[test]
fn a_peer_that_reads_an_octet_now_and_then_is_cut_off_like_one_that_reads_nothing() {
    let rig = Rig::new();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&rig.address.into()).unwrap();
    let mut slow = rig.open(Peer::new(socket.into()));
    let batch: Vec<u8> = (0..1_000).flat_map(|_| request(WHITE_DEVICE, 1).bytes()).collect();
    slow.stream.set_nonblocking(true).unwrap();
    let started = Instant::now();
    while rig.node.stats().stuck.get() == 0 {
        assert!(started.elapsed() < Duration::from_secs(30), "it is never cut off");
        let _ = slow.stream.write(&batch);
        let _ = slow.stream.read(&mut [0; 1]);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(rig.end_of(&slow), "peer does not read");
}

#[test]
fn half_a_message_now_and_then_is_no_sign_of_life() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    let number = rig.number(&peer);
    let message = dwr().bytes();
    for octet in &message[..message.len() - 1] {
        peer.send(&[*octet]);
        std::thread::sleep(Duration::from_millis(5));
    }
    let idle = rig.node.idle(number).unwrap();
    assert!(idle >= Duration::from_millis(5 * (message.len() as u64 - 2)), "{idle:?}");
    peer.send(&message[message.len() - 1..]);
    assert_eq!(peer.answer().result_code(), Some(2001));
    assert!(rig.node.idle(number).unwrap() < idle);
}

#[test]
fn a_peer_above_its_limit_is_told_so_and_others_are_not() {
    let rig = Rig::new();
    rig.node.set_terms(PEER, Some(Terms { requests_per_second: 10, ..Terms::default() }));
    let mut peer = rig.peer();
    let ask = |peer: &mut Peer| (0..50).map(|number| peer.ask(&request(WHITE_DEVICE, number))).collect::<Vec<_>>();
    let refused = ask(&mut peer).iter().filter(|answer| answer.result_code() == Some(3004)).count();
    assert!(refused >= 40, "{refused}");
    assert_eq!(rig.node.stats().peer(PEER).limited.get(), refused as u64);
    let mut other = rig.connect();
    other.send(&cer().bytes());
    let (number, _) = rig.first_message(&other);
    assert!(rig.node.open(number, cea(), "other.test", Sender::Anyone));
    assert_eq!(other.message(), cea());
    assert!(ask(&mut other).iter().all(|answer| answer.status() == WHITE));
    // Other terms hold at once, on connections that are there.
    rig.node.set_terms(PEER, None);
    assert!(ask(&mut peer).iter().all(|answer| answer.status() == WHITE));
    rig.node.set_limit(10);
    assert!(ask(&mut other).iter().any(|answer| answer.result_code() == Some(3004)));
}

#[test]
fn who_speaks_for_another_is_handed_up() {
    let rig = Rig::new();
    let mut peer = rig.connect();
    peer.send(&cer().bytes());
    let (number, _) = rig.first_message(&peer);
    assert!(rig.node.open(number, cea(), "other.test", Sender::Itself("other.test".into())));
    assert_eq!(peer.message(), cea());
    peer.send(&request(WHITE_DEVICE, 1).bytes());
    wait_until("the request", || rig.messages_of(&peer).len() == 2);
    assert!(peer.is_silent());
}

#[test]
fn a_trace_has_what_fits_it_and_nothing_when_it_is_over() {
    let rig = Rig::new();
    let mut peer = rig.peer();
    let about = |device: &[u8]| eir_core::imei::Imei::from_digits(device).ok();
    let traces = rig.node.traces();
    let all = traces.start(Filter { peer: Some(PEER.to_uppercase()), ..Filter::default() }, 3).unwrap();
    let one = traces.start(Filter { imei: about(&new_device(3)), ..Filter::default() }, 100).unwrap();
    let none = traces.start(Filter { peer: Some("other.test".into()), ..Filter::default() }, 100).unwrap();
    let asked = request(&new_device(3), 1);
    let answers = [request(WHITE_DEVICE, 1), asked.clone(), dwr()].map(|asked| {
        peer.send(&asked.bytes());
        peer.message().len()
    });
    peer.ask(&request(BLACK_DEVICE, 1));
    let (found, left_out) = traces.take(all).unwrap();
    assert_eq!(left_out, 1);
    assert_eq!(found.iter().map(|one| one.answer.len()).collect::<Vec<_>>(), answers);
    assert_eq!(found.iter().map(|one| one.outcome).collect::<Vec<_>>(), ["answered", "answered", "watchdog"]);
    let (found, _) = traces.take(one).unwrap();
    assert_eq!((found.len(), &found[0].request), (1, &asked.bytes()));
    assert_eq!(found[0].rule.map(|rule| rule.name()), Some("first-attach"));
    assert!(traces.take(none).unwrap().0.is_empty());
    assert!(traces.stop(all) && traces.stop(one) && !traces.stop(one) && traces.stop(none));
    assert!(!traces.are_active() && traces.take(all).is_none());
}

#[test]
fn a_connection_of_the_nodes_own_is_like_any_other() {
    let rig = Rig::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let number = rig.node.connect(listener.local_addr().unwrap(), None).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut peer = Peer::new(stream);
    let kind = rig.event("the connection", |event| match event {
        Event::Connected { connection, kind, .. } if *connection == number => Some(*kind),
        _ => None,
    });
    assert_eq!(kind, Kind::Out);
    assert!(rig.node.send(number, cer().bytes()));
    assert_eq!(peer.message(), cer().bytes());
    peer.send(&cea());
    assert_eq!(rig.first_message(&peer), (number, cea()));
    assert!(rig.node.open(number, Vec::new(), PEER, Sender::Anyone));
    assert_eq!(peer.ask(&request(WHITE_DEVICE, 1)).status(), WHITE);
    drop(peer);
    let ended = |number| {
        rig.event("its end", |event| match event {
            Event::Closed { connection, reason } if *connection == number => Some(*reason),
            _ => None,
        })
    };
    assert!(["peer closed", "connection lost"].contains(&ended(number)));
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(ended(rig.node.connect(address, None).unwrap()), "connect refused");
    assert!(rig.node.connect(address, Some("dra.test")).is_err(), "there are no certificates");
}
