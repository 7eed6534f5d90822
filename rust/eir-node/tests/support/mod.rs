//! A node on a free port with a journal in a directory that goes with it, and peers of plain sockets.
//!
//! The test plays the control plane: it takes the node's events and opens connections.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

#[path = "../../../eir-core/tests/support/mod.rs"]
pub mod messages;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use eir_core::diameter::terms::Sender;
use eir_core::lists::{BuildOptions, FileKind, Snapshot};
use eir_core::policy::Policy;
use eir_node::events::Event;
use eir_node::journal_writer::JournalConfig;
use eir_node::node::{Node, NodeConfig};

use messages::{Answer, Message, read_answer, take_message};

pub const WHITE_DEVICE: &[u8] = b"352099000000011";
pub const BLACK_DEVICE: &[u8] = b"352099000000021";
pub const SUBSCRIBER: &str = "001010000000001";
pub const PEER: &str = "mme.test";

/// How long anything may take that must happen.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing must happen to be taken for never.
pub const NEVER: Duration = Duration::from_millis(150);

/// A directory that is removed when the test is over.
pub struct Place(PathBuf);

impl Place {
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("eir-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What a sudden end of the process would leave: the files as the kernel has them now.
    pub fn copy(&self) -> Self {
        let copy = Self::new();
        for entry in fs::read_dir(&self.0).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, copy.0.join(from.file_name().unwrap())).unwrap();
        }
        copy
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Leaving a directory behind is no reason to hide why a test failed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn config(journal: &Place) -> NodeConfig {
    NodeConfig {
        origin_host: "eir.test".into(),
        origin_realm: "test".into(),
        origin_state_id: 1,
        workers: 2,
        max_events: 1_000,
        hold: PATIENCE,
        journal: JournalConfig { directory: journal.path().into(), segment_bytes: 1 << 20, max_bytes: 1 << 30 },
        image: None,
        in_use_bytes: 1 << 20,
    }
}

/// The lists of these tests: one white and one black device, and further rows.
pub fn lists(rows: &str) -> Arc<Snapshot> {
    let rows = format!("35209900000001,white,\n35209900000002,black,not-verified\n{rows}");
    messages::snapshot(BuildOptions { created_at: now(), ..BuildOptions::default() }, &[(FileKind::Devices, &rows)])
}

pub fn now() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32
}

/// Asks again and again until there is something.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn wait_until(what: &str, mut ask: impl FnMut() -> bool) {
    wait_for(what, || ask().then_some(()));
}

/// A running node. The order of the fields is the order in which they go: the directory last.
pub struct Rig {
    pub node: Node,
    pub address: SocketAddr,
    seen: Mutex<Vec<Event>>,
    pub place: Place,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut NodeConfig)) -> Self {
        Self::on(Place::new(), change)
    }

    /// A node with the journal that is in `place`.
    pub fn on(place: Place, change: impl FnOnce(&mut NodeConfig)) -> Self {
        let mut config = config(&place);
        change(&mut config);
        let node = Node::start(config, Policy::default()).unwrap();
        node.set_snapshot(lists(""));
        let address = node.listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
        Self { node, address, seen: Mutex::default(), place }
    }

    pub fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(self.address).unwrap())
    }

    /// A peer whose capabilities were exchanged.
    pub fn peer(&self) -> Peer {
        self.open(self.connect())
    }

    /// Exchanges capabilities on a connection.
    pub fn open(&self, mut peer: Peer) -> Peer {
        peer.send(&messages::cer().bytes());
        let (connection, message) = self.first_message(&peer);
        assert_eq!(message, messages::cer().bytes());
        assert!(self.node.open(connection, cea(), PEER, Sender::Anyone));
        assert_eq!(peer.message(), cea());
        peer
    }

    /// The number that the node gave to a peer's connection.
    pub fn number(&self, peer: &Peer) -> u64 {
        let address = peer.stream.local_addr().unwrap();
        self.event("the connection", |event| match event {
            Event::Connected { connection, remote, .. } if *remote == address => Some(*connection),
            _ => None,
        })
    }

    /// The first message that came on a connection, and the connection.
    pub fn first_message(&self, peer: &Peer) -> (u64, Vec<u8>) {
        let number = self.number(peer);
        self.event("the first message", |event| match event {
            Event::Message { connection, bytes, .. } if *connection == number => Some((number, bytes.clone())),
            _ => None,
        })
    }

    /// Why a connection ended.
    pub fn end_of(&self, peer: &Peer) -> &'static str {
        let number = self.number(peer);
        self.event("the end of the connection", |event| match event {
            Event::Closed { connection, reason } if *connection == number => Some(*reason),
            _ => None,
        })
    }

    /// The messages that came on a connection so far.
    pub fn messages_of(&self, peer: &Peer) -> Vec<Vec<u8>> {
        let number = self.number(peer);
        self.take_events();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let right = seen.iter().filter_map(|event| match event {
            Event::Message { connection, bytes, .. } if *connection == number => Some(bytes.clone()),
            _ => None,
        });
        right.collect()
    }

    /// Waits for an event of which `pick` makes something.
    pub fn event<T>(&self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        wait_for(what, || {
            self.take_events();
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().find_map(&pick)
        })
    }

    fn take_events(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).extend(self.node.events().take(1_000));
    }

    /// How many answers by this rule were given to the peers of these tests.
    pub fn answers(&self, rule: &str) -> u64 {
        let answers = self.node.stats().peer(PEER).answers();
        answers.iter().filter(|(name, _, _)| *name == rule).map(|(_, _, count)| count).sum()
    }
}

/// What the control plane answers to a CER; here no more than a header.
pub fn cea() -> Vec<u8> {
    Message { flags: 0, command: 257, application: 0, identifiers: [9; 8], avps: Vec::new() }.bytes()
}

/// A peer's end of a connection.
pub struct Peer {
    pub stream: TcpStream,
    received: Vec<u8>,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, received: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next whole message.
    pub fn message(&mut self) -> Vec<u8> {
        let mut chunk = [0; 64 << 10];
        loop {
            if let Some(message) = take_message(&mut self.received) {
                return message;
            }
            let count = self.stream.read(&mut chunk).expect("an answer");
            assert!(count > 0, "closed, and {} octets of an answer before", self.received.len());
            self.received.extend(chunk.iter().take(count));
        }
    }

    pub fn answer(&mut self) -> Answer {
        read_answer(&self.message())
    }

    /// Sends one request and takes its answer.
    pub fn ask(&mut self, request: &Message) -> Answer {
        self.send(&request.bytes());
        let answer = self.answer();
        assert_eq!(answer.identifiers, request.identifiers);
        answer
    }

    pub fn is_silent(&mut self) -> bool {
        self.stream.set_read_timeout(Some(NEVER)).unwrap();
        let read = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        read.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Waits for the other end to close, and says how many octets came before.
    pub fn closed_after(&mut self) -> usize {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            // What it had not read when it closed makes a reset of it.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("not closed: {error}"),
        }
        self.received.len() + rest.len()
    }
}

/// The device of that number, which no list knows.
pub fn new_device(number: u32) -> Vec<u8> {
    format!("35209901{number:06}0").into_bytes()
}

pub fn request(device: &[u8], number: u64) -> Message {
    messages::ecr(device, SUBSCRIBER).numbered(number)
}
