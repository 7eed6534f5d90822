//! One open connection of the load generator: its backlog, its outstanding requests.
//!
//! RFC 6733 clauses 5.4 and 5.5 from the side that connects. Called by `driver` when the socket is ready or a request is
//! due. One read is answered as a whole: all messages in it are taken, all that follows from them goes out in one write,
//! and the clock is read once. Whatever the node sends, the worst outcome is [`Gone`].

use std::fmt;
use std::io;
use std::time::Instant;

use super::LoadPlan;
use super::answers::{Message, Unframeable, next_message, verdict};
use super::identities::Identities;
use super::messages::{DEVICE_WATCHDOG, DISCONNECT_PEER, EcrTemplate, ME_IDENTITY_CHECK, Origin};
use super::outstanding::{Outstanding, Request};
use super::report::Tally;
use super::wire::{Buffers, Wire};

/// Reads before other connections have their turn.
const READS_PER_TURN: usize = 16;
/// Answers to the node's own requests that may wait for it to read, in octets.
const MAX_OWN_BACKLOG: usize = 1 << 20;
/// What TLS adds to a request that is sealed alone, and more.
const SEAL: usize = 64;
/// Identifier of the only DPR.
const ONLY_ONE: u32 = 1;

/// What the connections of a run share.
pub(super) struct Run {
    pub started: Instant,
    pub identities: Identities,
    pub tally: Tally,
    /// End-to-End Identifier of the next request.
    pub serial: u32,
    /// Each answer is followed by a request, while there is something to ask.
    pub refill: bool,
    /// There is nothing more to ask.
    pub exhausted: bool,
}

impl Run {
    /// Nanoseconds since the start.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }
}

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum Gone {
    /// The node answered the DPR with which this side left.
    Left,
    /// The node closed it.
    Closed,
    /// The node sent what is no Diameter message.
    Unframeable,
    /// The node sends requests and reads no answers.
    NotReading,
    /// TLS failed, or one side did not trust the other.
    Tls(rustls::Error),
    /// The socket failed.
    Io(io::Error),
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("this side disconnected"),
            Self::Closed => f.write_str("the node closed the connection"),
            Self::Unframeable => f.write_str("the node sent what is no Diameter message"),
            Self::NotReading => f.write_str("the node sends requests and reads no answers"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<Unframeable> for Gone {
    fn from(Unframeable: Unframeable) -> Self {
        Self::Unframeable
    }
}

impl From<io::Error> for Gone {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What became of a request that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is in the backlog; [`Peer::flush`] sends it.
    Queued,
    /// This connection can send none now.
    Full,
    /// There is nothing more to ask.
    Exhausted,
}

/// Whether a readable connection has been read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It has; the event queue tells when there is more.
    Drained,
    /// It may have more, and no event will tell.
    More,
}

/// An open connection, after its capability exchange.
pub(super) struct Peer {
    /// `driver` has noted that there is something to be read.
    pub unread: bool,
    /// The node has closed its side: what is there is all there is, and then the end.
    pub ended: bool,
    wire: Wire,
    origin: Origin,
    template: EcrTemplate,
    outstanding: Outstanding,
    /// What the socket has not taken yet, before it is sealed where it is.
    backlog: Vec<u8>,
    /// The begin of a message whose rest has not come.
    partial: Vec<u8>,
    /// No further request: the node, or this side, has sent a DPR.
    closing: bool,
}

impl Peer {
    /// A connection whose CEA has come, and `partial` behind it.
    pub(super) fn new(plan: &LoadPlan, origin: Origin, wire: Wire, partial: Vec<u8>) -> Self {
        Self {
            unread: false,
            ended: false,
            wire,
            template: EcrTemplate::new(&origin, plan),
            outstanding: Outstanding::new(plan.slots_per_connection()),
            backlog: Vec::new(),
            partial,
            closing: false,
            origin,
        }
    }

    /// Number of requests without an answer.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_flushed(&self) -> bool {
        self.backlog.is_empty() && self.wire.is_flushed()
    }

    /// Queues one request that is, or was to be, sent at `time`.
    #[inline]
    pub(super) fn ask(&mut self, run: &mut Run, time: u64) -> Asked {
        if self.closing || self.outstanding.is_full() {
            return Asked::Full;
        }
        let Some(identity) = run.identities.next() else {
            run.exhausted = true;
            return Asked::Exhausted;
        };
        let Some(hop_by_hop) = self.outstanding.insert(Request { sent: time, imei: identity.imei }) else {
            return Asked::Full;
        };
        run.serial = run.serial.wrapping_add(1);
        self.template.append(&mut self.backlog, hop_by_hop, run.serial, identity);
        run.tally.sent(time);
        Asked::Queued
    }

    /// Queues requests until the window is full.
    pub(super) fn fill(&mut self, run: &mut Run, now: u64) {
        while self.ask(run, now) == Asked::Queued {}
    }

    /// Queues the DPR; nothing is asked after it.
    pub(super) fn disconnect(&mut self) {
        self.closing = true;
        self.backlog.extend_from_slice(&self.origin.dpr(ONLY_ONE));
    }

    /// Writes as much as the socket takes. A socket that fails here may still hold answers that came before it did, so
    /// the connection is only asked nothing more; reading it to its end is what ends it.
    pub(super) fn flush(&mut self) {
        if self.wire.flush(&mut self.backlog).is_err() {
            self.closing = true;
        }
    }

    /// Reads what is there, takes it, and writes what follows from it.
    pub(super) fn receive(&mut self, run: &mut Run, buffers: &mut Buffers) -> Result<Progress, Gone> {
        self.unread = false;
        for _ in 0..READS_PER_TURN {
            let held = self.partial.len();
            let Some(came) = self.wire.read(buffers, held)? else {
                return Ok(Progress::Drained);
            };
            let now = run.now();
            if let Some(front) = buffers.plain.get_mut(..held) {
                front.copy_from_slice(&self.partial);
            }
            let rest = self.take(run, buffers.plain.get(..held + came.count).unwrap_or_default(), now)?;
            self.partial.clear();
            self.partial.extend_from_slice(rest);
            if run.refill {
                self.fill(run, now);
            }
            self.flush();
            // With edge-triggered events a short read means that the next octet raises a new event (epoll(7)); but the
            // event of the end may be this one.
            if !came.more && !self.ended {
                return Ok(Progress::Drained);
            }
        }
        Ok(Progress::More)
    }

    /// Takes all whole messages and returns the begin of the next.
    fn take<'a>(&mut self, run: &mut Run, bytes: &'a [u8], now: u64) -> Result<&'a [u8], Gone> {
        let mut rest = bytes;
        while let Some((message, after)) = next_message(rest)? {
            rest = after;
            match (message.request, message.command) {
                (false, ME_IDENTITY_CHECK) => match self.outstanding.remove(message.hop_by_hop) {
                    Some(request) => run.tally.answered(request, verdict(message.avps), now),
                    None => run.tally.unmatched(),
                },
                (true, DEVICE_WATCHDOG) => self.succeed(&message)?,
                (true, DISCONNECT_PEER) => {
                    self.closing = true;
                    self.succeed(&message)?;
                }
                (false, DISCONNECT_PEER) => return Err(Gone::Left),
                _ => run.tally.unmatched(),
            }
        }
        Ok(rest)
    }

    fn succeed(&mut self, request: &Message<'_>) -> Result<(), Gone> {
        let answer = self.origin.success(request);
        self.backlog.extend_from_slice(&answer);
        let requests = self.outstanding.len() * (self.template.len() + SEAL);
        if self.backlog.len() + self.wire.waiting() > requests + MAX_OWN_BACKLOG {
            Err(Gone::NotReading)
        } else {
            Ok(())
        }
    }
}
