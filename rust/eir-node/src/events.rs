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

use crate::wake::Wake;

/// Messages of one connection that may wait.
const MESSAGES_PER_CONNECTION: usize = 64;

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
        /// How many of this connection's messages wait; counted down when it is taken.
        waiting: Arc<AtomicUsize>,
    },
    /// A connection is gone.
    Closed {
        /// Its number.
        connection: u64,
        /// Why, in a word.
        reason: &'static str,
    },
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
    queue: Mutex<VecDeque<Event>>,
    limit: usize,
    wake: Wake,
}

impl Events {
    /// A queue of at most `limit` events, closings not counted.
    ///
    /// # Errors
    /// Where the system has no descriptor left.
    pub fn new(limit: usize) -> io::Result<Self> {
        Ok(Self { queue: Mutex::new(VecDeque::new()), limit, wake: Wake::new()? })
    }

    /// Readable when there are events.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.wake.descriptor()
    }

    /// Tells of a new connection; whether there was place.
    #[must_use]
    pub fn connected(&self, connection: u64, remote: SocketAddr, local: SocketAddr, kind: Kind) -> bool {
        self.push(Event::Connected { connection, remote, local, kind }, true)
    }

    /// Tells that a connection is secured. Always has a place: one at most for each connection.
    pub fn secured(&self, connection: u64) {
        self.push(Event::Secured { connection }, false);
    }

    /// Hands a message over; whether there was place.
    #[must_use]
    pub fn message(&self, connection: u64, bytes: &[u8], waiting: &Arc<AtomicUsize>) -> bool {
        if waiting.load(Ordering::Relaxed) >= MESSAGES_PER_CONNECTION {
            return false;
        }
        let message = Event::Message { connection, bytes: bytes.to_vec(), waiting: Arc::clone(waiting) };
        let taken = self.push(message, true);
        if taken {
            waiting.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Tells that a connection is gone. Always has a place: there are no more of these than there were connections.
    pub fn closed(&self, connection: u64, reason: &'static str) {
        self.push(Event::Closed { connection, reason }, false);
    }

    /// Takes up to `most` events, the oldest first.
    #[must_use]
    pub fn take(&self, most: usize) -> Vec<Event> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.wake.clear();
        let count = queue.len().min(most);
        let taken: Vec<_> = queue.drain(..count).collect();
        if !queue.is_empty() {
            self.wake.wake();
        }
        drop(queue);
        for event in &taken {
            if let Event::Message { waiting, .. } = event {
                waiting.fetch_sub(1, Ordering::Relaxed);
            }
        }
        taken
    }

    fn push(&self, event: Event, bounded: bool) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if bounded && queue.len() >= self.limit {
            return false;
        }
        queue.push_back(event);
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
        let taken = (0..200).filter(|_| events.message(1, &[1], &waiting)).count();
        assert_eq!(taken, MESSAGES_PER_CONNECTION);
        let other = Arc::default();
        let address = "127.0.0.1:1".parse().unwrap();
        assert!(events.connected(2, address, address, Kind::In));
        assert_eq!((0..200).filter(|_| events.message(2, &[2], &other)).count(), 100 - MESSAGES_PER_CONNECTION - 1);
        events.closed(1, "peer closed");
        assert_eq!(events.take(10).len(), 10);
        assert_eq!(waiting.load(Ordering::Relaxed), MESSAGES_PER_CONNECTION - 10);
        assert_eq!(events.take(1000).len(), 91);
        assert!(events.take(1000).is_empty());
    }
}
