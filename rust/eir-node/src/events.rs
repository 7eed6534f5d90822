//! The way up: a bounded queue of what the control plane must see, and an eventfd that wakes it.
//!
//! Connections put events in and never wait; the control plane takes all that is there in one call. A connection that
//! sends more than its share is cut short, so that it cannot keep the others' events out.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use eir_core::diameter::framing::Header;
use eir_core::diameter::{COMMAND_DEVICE_WATCHDOG, COMMAND_DISCONNECT_PEER};

use crate::wake::Wake;

/// Messages of one connection that may wait.
const MESSAGES_PER_CONNECTION: usize = 64;
/// Octets of them; one message may always wait.
const OCTETS_PER_CONNECTION: usize = 16 << 10;
/// Octets of all messages that wait.
const OCTETS: usize = 16 << 20;
/// A message longer than this is not urgent.
const SHORT: usize = 1 << 10;

/// What the control plane is told.
#[derive(Debug)]
pub enum Event {
    /// A connection was accepted, or one that this node made has succeeded.
    Connected {
        /// Its number, never used again.
        connection: u64,
        /// The peer's address.
        remote: SocketAddr,
        /// The node's address on this connection.
        local: SocketAddr,
        /// Who made it, and how.
        kind: Kind,
    },
    /// A TLS handshake has ended well that came after the first message.
    Secured {
        /// The connection.
        connection: u64,
    },
    /// A whole message that the data plane does not answer.
    Message {
        /// The connection it came on.
        connection: u64,
        /// Its octets.
        bytes: Vec<u8>,
        /// What of this connection waits; counted down when it is taken.
        waiting: Arc<Waiting>,
    },
    /// A connection is gone.
    Closed {
        /// Its number.
        connection: u64,
        /// Why, in a word.
        reason: &'static str,
    },
}

/// What of one connection waits.
#[derive(Debug, Default)]
pub struct Waiting {
    messages: AtomicUsize,
    octets: AtomicUsize,
}

#[derive(Debug, Default)]
struct Lanes {
    /// What keeps connections going: it is never behind messages that are only to be refused.
    urgent: VecDeque<Event>,
    ordinary: VecDeque<Event>,
    octets: usize,
}

impl Lanes {
    fn len(&self) -> usize {
        self.urgent.len() + self.ordinary.len()
    }
}

/// How a connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The peer made it.
    In,
    /// The peer made it, with TLS.
    InTls,
    /// This node made it.
    Out,
    /// This node made it, with TLS.
    OutTls,
}

impl Kind {
    /// `in`, `in-tls`, `out` or `out-tls`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::InTls => "in-tls",
            Self::Out => "out",
            Self::OutTls => "out-tls",
        }
    }
}

/// The queue.
#[derive(Debug)]
pub struct Events {
    queue: Mutex<Lanes>,
    limit: usize,
    wake: Wake,
}

impl Events {
    /// A queue of at most `limit` events of each kind, urgent or not, closings not counted.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new(limit: usize) -> io::Result<Self> {
        Ok(Self { queue: Mutex::default(), limit, wake: Wake::new()? })
    }

    /// Readable when there are events.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.wake.descriptor()
    }

    /// Tells of a new connection; whether there was place.
    #[must_use]
    pub fn connected(&self, connection: u64, remote: SocketAddr, local: SocketAddr, kind: Kind) -> bool {
        self.push(Event::Connected { connection, remote, local, kind }, true, true)
    }

    /// Tells that a connection is secured. Always has a place: one at most for each connection.
    pub fn secured(&self, connection: u64) {
        self.push(Event::Secured { connection }, true, false);
    }

    /// Hands a message over; whether there was place. What is urgent, and short or the first of its connection, overtakes
    /// what is not.
    #[must_use]
    pub fn message(&self, connection: u64, bytes: &[u8], urgent: bool, waiting: &Arc<Waiting>) -> bool {
        let octets = waiting.octets.load(Ordering::Relaxed);
        if waiting.messages.load(Ordering::Relaxed) >= MESSAGES_PER_CONNECTION
            || (octets > 0 && octets + bytes.len() > OCTETS_PER_CONNECTION)
        {
            return false;
        }
        let message = Event::Message { connection, bytes: bytes.to_vec(), waiting: Arc::clone(waiting) };
        // Counted first: it may be taken before this goes on.
        waiting.messages.fetch_add(1, Ordering::Relaxed);
        waiting.octets.fetch_add(bytes.len(), Ordering::Relaxed);
        let taken = self.push(message, urgent, true);
        if !taken {
            waiting.messages.fetch_sub(1, Ordering::Relaxed);
            waiting.octets.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
        taken
    }

    /// Whether a message on an open connection is one that keeps it going: DWA, DPR, DPA.
    #[must_use]
    pub fn is_urgent(bytes: &[u8]) -> bool {
        bytes.len() <= SHORT
            && Header::read(bytes).is_some_and(|(header, _)| {
                header.application == 0 && matches!(header.command, COMMAND_DEVICE_WATCHDOG | COMMAND_DISCONNECT_PEER)
            })
    }

    /// Tells that a connection is gone. Always has a place: there are no more of these than there were connections.
    pub fn closed(&self, connection: u64, reason: &'static str) {
        self.push(Event::Closed { connection, reason }, true, false);
    }

    /// Takes up to `most` events, the urgent before the others, the oldest of each first.
    #[must_use]
    pub fn take(&self, most: usize) -> Vec<Event> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.wake.clear();
        let count = queue.urgent.len().min(most);
        let mut taken: Vec<_> = queue.urgent.drain(..count).collect();
        let count = queue.ordinary.len().min(most - count);
        taken.extend(queue.ordinary.drain(..count));
        for event in &taken {
            if let Event::Message { bytes, waiting, .. } = event {
                queue.octets -= bytes.len();
                waiting.messages.fetch_sub(1, Ordering::Relaxed);
                waiting.octets.fetch_sub(bytes.len(), Ordering::Relaxed);
            }
        }
        if queue.len() > 0 {
            self.wake.wake();
        }
        taken
    }

    fn push(&self, event: Event, urgent: bool, bounded: bool) -> bool {
        let octets = if let Event::Message { bytes, .. } = &event { bytes.len() } else { 0 };
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = if urgent { queue.urgent.len() } else { queue.ordinary.len() };
        if bounded && (waiting >= self.limit || (!urgent && queue.octets + octets > OCTETS)) {
            return false;
        }
        queue.octets += octets;
        if urgent { &mut queue.urgent } else { &mut queue.ordinary }.push_back(event);
        if queue.len() == 1 {
            self.wake.wake();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_cannot_fill_the_queue_and_closings_always_have_a_place() {
        let events = Events::new(100).unwrap();
        let waiting = Arc::default();
        let taken = (0..200).filter(|_| events.message(1, &[1], false, &waiting)).count();
        assert_eq!(taken, MESSAGES_PER_CONNECTION);
        let other = Arc::default();
        let address = "127.0.0.1:1".parse().unwrap();
        assert!(events.connected(2, address, address, Kind::In));
        assert_eq!((0..200).filter(|_| events.message(2, &[2], false, &other)).count(), 100 - MESSAGES_PER_CONNECTION);
        events.closed(1, "peer closed");
        // What is urgent comes first.
        let first = events.take(10);
        assert_eq!(first.len(), 10);
        assert!(matches!(first[..2], [Event::Connected { .. }, Event::Closed { .. }]));
        assert_eq!(waiting.messages.load(Ordering::Relaxed), MESSAGES_PER_CONNECTION - 8);
        assert_eq!(events.take(1000).len(), 92);
        assert!(events.take(1000).is_empty());
    }

    #[test]
    fn octets_that_wait_are_bounded_for_each_and_all_and_given_back() {
        let events = Events::new(10_000).unwrap();
        let long = vec![0; 10 << 10];
        let waiting = Arc::default();
        assert!(events.message(1, &vec![0; 60 << 10], false, &waiting), "one may always wait");
        assert!(!events.message(1, &[1], false, &waiting));
        assert_eq!(events.take(10).len(), 1);
        assert!(events.message(1, &long, false, &waiting) && !events.message(1, &long, false, &waiting));
        let many: Vec<Arc<Waiting>> = (0..5_000).map(|_| Arc::default()).collect();
        let taken = many.iter().filter(|waiting| events.message(2, &long, false, waiting)).count();
        assert_eq!(taken, OCTETS / long.len() - 1);
        // A CER still finds its place, and comes first.
        assert!(events.message(3, &long, true, &Arc::default()));
        assert!(matches!(events.take(1)[..], [Event::Message { connection: 3, .. }]));
        assert_eq!(events.take(10_000).len(), taken + 1);
        assert!(many.iter().all(|waiting| waiting.octets.load(Ordering::Relaxed) == 0));
        assert!(events.message(2, &long, false, &many[0]));
    }
}
