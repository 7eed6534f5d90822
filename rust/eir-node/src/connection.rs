//! One connection: read what is there, answer all whole messages in it, write once.
//!
//! The buffers belong to the thread, not to the connection, which keeps only what does not end with a read: the front
//! of a message, and messages whose answers are held. After the first message nothing is read until the control plane
//! opens the connection, so bytes that follow a CER race nothing. TLS, where there is any, lies between the socket and
//! those buffers, and nothing else knows of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eir_core::UnixTime;
use eir_core::diameter::framing::{Frame, frame};
use eir_core::diameter::s13::{GROUP, Hold, Outcome};
use eir_core::diameter::terms::Sender;
use eir_core::journal::{Journal, Progress};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::events::{Events, Waiting};
use crate::gate::Place;
use crate::node::Shared;
use crate::peers::Peer;
use crate::tls::{LONGEST_RECORD, Received, Secured};

/// Octets read at once: enough that a busy peer's messages share a system call, little enough that its next ones are
/// on the way while these are answered.
const READ: usize = 32 << 10;
/// Longest message; an ECR has a few hundred octets.
pub const MAX_MESSAGE: usize = 64 << 10;
/// Longest first message: the control plane reads it before it knows who sent it. A CER that offers a hundred
/// applications has some 4 KiB.
const MAX_FIRST: usize = 16 << 10;
/// What a connection keeps of a buffer that once held the front of a long message.
const MAX_IDLE: usize = 4 << 10;
/// Answers that one connection may have on hold; above, it is not read.
const MAX_HELD: usize = 16 << 10;
/// How much longer than the hold an answer waits for a record that is not even written.
const UNWRITTEN: Duration = Duration::from_secs(1);
/// How long a peer may take to read what one batch of its requests is answered, before it is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the control plane has a connection do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Write this.
    Send(Vec<u8>),
    /// Write this, and from now on answer for this peer.
    Open(Vec<u8>, Arc<Peer>, Sender),
    /// Write this in clear text, and take nothing but TLS from then on.
    Secure(Vec<u8>, Box<Secured>),
    /// Write this and close.
    Close(Vec<u8>, &'static str),
}

/// What others know of a connection.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) remote: SocketAddr,
    /// Milliseconds from the node's start to the last octet that came.
    pub(crate) last_received_ms: AtomicU64,
    /// What the peer has shown in TLS, and its version; set when the handshake is over.
    pub(crate) shown: OnceLock<(Option<Vec<u8>>, Option<&'static str>)>,
}

/// What waits for its turn: a message whose answer waits for its record, or octets that came to be sent behind it.
enum Held {
    Request { message: Box<[u8]>, hold: Hold, read_at: Instant, until: Instant },
    Octets(Vec<u8>),
}

impl Held {
    /// Whether it may go: its records are safe, or it has waited long enough. Loss of power is risked after the hold;
    /// that the record is not even written only where the disk has been stuck for longer.
    fn is_due(&self, progress: Progress, time: Instant) -> bool {
        match self {
            Self::Octets(_) => true,
            Self::Request { hold, until, .. } => {
                let written = hold.written.max(hold.durable) <= progress.written;
                hold.over(progress) || (*until <= time && written) || *until + UNWRITTEN <= time
            }
        }
    }

    /// When it is to be looked at again, if the journal makes no progress.
    fn wake_at(&self, time: Instant) -> Instant {
        match self {
            Self::Octets(_) => time,
            Self::Request { until, .. } if time < *until => *until,
            Self::Request { until, .. } => *until + UNWRITTEN,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has come yet.
    First,
    /// The first message is with the control plane.
    Waiting,
    /// A TLS handshake goes on that the first message asked for.
    Securing,
    /// Requests are answered.
    Open,
}

/// Why a connection ends, as the control plane is told.
type Ended = &'static str;
const PEER_CLOSED: Ended = "peer closed";

struct Scratch {
    input: Box<[u8]>,
    output: Vec<u8>,
    /// Octets off the socket, and for it, where there is TLS between.
    raw: Box<[u8]>,
    sealed: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        input: vec![0; MAX_MESSAGE + READ + LONGEST_RECORD].into_boxed_slice(),
        output: Vec::with_capacity(2 * READ),
        raw: vec![0; READ].into_boxed_slice(),
        sealed: Vec::new(),
    });
}

/// What one batch of messages came to.
#[derive(Default)]
struct Batch {
    answered: u64,
    /// Whether a whole message came.
    received: bool,
    ended: Option<Ended>,
}

/// What a read came to: what the socket did not take at once, and when it was read.
struct Done {
    rest: Vec<u8>,
    batch: Batch,
    read_at: Instant,
}

pub(crate) struct Connection {
    node: Arc<Shared>,
    number: u64,
    stream: TcpStream,
    handle: Arc<Handle>,
    commands: mpsc::Receiver<Command>,
    progress: watch::Receiver<Progress>,
    state: State,
    secured: Option<Box<Secured>>,
    place: Option<Place>,
    peer: Arc<Peer>,
    sender: Sender,
    waiting: Arc<Waiting>,
    /// The front of a message, or what came behind the first one.
    partial: Vec<u8>,
    held: VecDeque<Held>,
    /// So much came with the last read that there is probably more.
    had_enough: bool,
    /// The connection ends when nothing is held any more, for this reason.
    ending: Option<Ended>,
}

impl Connection {
    /// A connection; `place` is its place where it came in by the gate.
    pub(crate) fn new(
        node: Arc<Shared>,
        number: u64,
        stream: TcpStream,
        secured: Option<Secured>,
        place: Option<Place>,
        handle: Arc<Handle>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let progress = node.journal.watch();
        let peer = Arc::clone(&node.before_open);
        Self {
            node,
            number,
            stream,
            handle,
            commands,
            progress,
            state: State::First,
            secured: secured.map(Box::new),
            place,
            peer,
            sender: Sender::Anyone,
            waiting: Arc::default(),
            partial: Vec::new(),
            held: VecDeque::new(),
            had_enough: false,
            ending: None,
        }
    }

    /// Serves the connection to its end and says why it ended.
    pub(crate) async fn serve(mut self) -> Ended {
        // A client of TLS speaks first.
        let mut ended = self.write_all(&[]).await.err();
        let ended = loop {
            if let Some(ended) = ended {
                break ended;
            }
            ended = self.step().await.err();
        };
        if let Some(secured) = &mut self.secured {
            let mut last = Vec::new();
            secured.close(&mut last);
            // As far as the socket takes it: the peer may be long gone.
            let _ = self.stream.try_write(&last);
        }
        let lost = self.held.iter().filter(|held| matches!(held, Held::Request { .. })).count() as u64;
        self.peer.stats.lost.add(lost);
        ended
    }

    async fn step(&mut self) -> Result<(), Ended> {
        // A peer that always has something to read must not keep the others of this thread waiting.
        if std::mem::take(&mut self.had_enough) {
            tokio::task::yield_now().await;
        }
        if !self.held.is_empty() {
            self.progress.borrow_and_update();
            self.release().await?;
        }
        if let (Some(reason), true) = (self.ending, self.held.is_empty()) {
            return Err(reason);
        }
        let hold_until = self.held.front().map(|held| held.wake_at(Instant::now()));
        let reading = self.state != State::Waiting && self.held.len() < MAX_HELD && self.ending.is_none();
        let (front, secured, stream) = (self.partial.len(), self.secured.is_some(), &mut self.stream);
        tokio::select! {
            biased;
            command = self.commands.recv() => self.obey(command).await,
            _ = self.progress.changed(), if hold_until.is_some() => Ok(()),
            () = sleep_until(hold_until.unwrap_or_else(Instant::now)), if hold_until.is_some() => Ok(()),
            read = poll_fn(|context| poll_read(stream, context, front, secured)), if reading => {
                // Before anything else runs on this thread, whose scratch it lies in.
                self.take(read.map_err(|_| "connection lost")?).await
            }
        }
    }

    async fn obey(&mut self, command: Option<Command>) -> Result<(), Ended> {
        match command {
            // Not before answers that are held: a DPA is the last that a peer waits for.
            Some(Command::Send(bytes)) if !self.held.is_empty() => {
                self.held.push_back(Held::Octets(bytes));
                Ok(())
            }
            Some(Command::Send(bytes)) => self.write_all(&bytes).await,
            Some(Command::Secure(bytes, secured)) => {
                self.write_all(&bytes).await?;
                self.secured = Some(secured);
                self.state = State::Securing;
                // What came behind the CER in clear text is no message any more: it is TLS, or the end.
                let early = std::mem::take(&mut self.partial);
                let done = self.with_scratch(|this, scratch| this.unseal(scratch, &early, 0))?;
                self.finish(done).await
            }
            Some(Command::Open(bytes, peer, sender)) => {
                self.write_all(&bytes).await?;
                (self.peer, self.sender) = (peer, sender);
                self.state = State::Open;
                if let Some(place) = &mut self.place {
                    place.open();
                }
                // What came behind the CER is answered now; nothing more may come to wake us.
                let done = self.with_scratch(|this, scratch| {
                    let length = this.partial.len();
                    scratch.input.get_mut(..length).unwrap_or_default().copy_from_slice(&this.partial);
                    this.answer(scratch, length)
                });
                self.finish(done).await
            }
            Some(Command::Close(bytes, reason)) => {
                self.held.push_back(Held::Octets(bytes));
                self.ending.get_or_insert(reason);
                Ok(())
            }
            None => Err("stopped"),
        }
    }

    /// Answers what a read has put into the scratch.
    async fn take(&mut self, count: usize) -> Result<(), Ended> {
        if count == 0 {
            // The peer has said its last; it may still listen for what is held.
            self.ending = Some(PEER_CLOSED);
            return Ok(());
        }
        self.had_enough = count == READ;
        let front = self.partial.len();
        let done = self.with_scratch(|this, scratch| {
            scratch.input.get_mut(..front).unwrap_or_default().copy_from_slice(&this.partial);
            if this.secured.is_none() {
                return Ok(this.answer(scratch, front + count));
            }
            // Out of the scratch for a moment, whose other parts what is in it goes into.
            let raw = std::mem::take(&mut scratch.raw);
            let done = this.unseal(scratch, raw.get(..count).unwrap_or_default(), front);
            scratch.raw = raw;
            done
        })?;
        self.finish(done).await
    }

    /// Takes TLS off octets and answers what is in them, behind the `front` octets of input that are there already.
    fn unseal(&mut self, scratch: &mut Scratch, octets: &[u8], front: usize) -> Result<Done, Ended> {
        let Some(secured) = &mut self.secured else { return Err("tls failed") };
        let place = scratch.input.get_mut(front..).unwrap_or_default();
        let Received { count, closed, secured: done } =
            secured.receive(octets, place, &mut scratch.sealed).inspect_err(|_| {
                self.node.stats.tls_failures.add(1);
                // The alert; there is nobody left to wait for.
                let _ = self.stream.try_write(&scratch.sealed);
            })?;
        if done {
            let _ = self.handle.shown.set((secured.certificate(), secured.version()));
        }
        if closed {
            self.ending = Some(PEER_CLOSED);
        }
        if done && self.state == State::Securing {
            self.state = State::Waiting;
            self.node.events.secured(self.number);
        }
        Ok(self.answer(scratch, front + count))
    }

    fn with_scratch<T>(&mut self, act: impl FnOnce(&mut Self, &mut Scratch) -> T) -> T {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.output.clear();
            scratch.sealed.clear();
            act(self, scratch)
        })
    }

    /// Answers every whole message in the first `length` octets of the input, keeps the rest, and writes as much as the
    /// socket takes; what it does not take is returned.
    fn answer(&mut self, scratch: &mut Scratch, length: usize) -> Done {
        let read_at = Instant::now();
        let node = Arc::clone(&self.node);
        let world = node.world.load();
        let input = scratch.input.get(..length).unwrap_or_default();
        let mut at = 0;
        let mut batch = Batch::default();
        if self.state == State::First {
            match frame(input, MAX_FIRST) {
                Frame::Complete(size) => {
                    self.state = State::Waiting;
                    // Nothing else comes before it is answered, so there is nobody to refuse it to.
                    let _ = self.punt(input.get(..size).unwrap_or_default(), true);
                    at = size;
                }
                Frame::Incomplete(_) => {}
                Frame::Unframeable => batch.ended = Some("unframeable"),
            }
        }
        let (peer, sender) = (Arc::clone(&self.peer), std::mem::take(&mut self.sender));
        let terms = peer.terms.load();
        let caller = node.caller(&peer, &terms, &sender);
        let door = node.door(&world, caller, now(), read_at);
        let mut group: [&[u8]; GROUP] = [&[]; GROUP];
        let mut too_many: Vec<&[u8]> = Vec::new();
        while self.state == State::Open && batch.ended.is_none() {
            let mut count = 0;
            for place in &mut group {
                let rest = input.get(at..).unwrap_or_default();
                match frame(rest, MAX_MESSAGE) {
                    Frame::Complete(size) => *place = rest.get(..size).unwrap_or_default(),
                    Frame::Incomplete(_) => break,
                    Frame::Unframeable => {
                        batch.ended = Some("unframeable");
                        break;
                    }
                }
                at += place.len();
                count += 1;
            }
            let messages = group.get(..count).unwrap_or_default();
            too_many.clear();
            door.handle(messages, &mut scratch.output, |message, outcome, answer| {
                if outcome == Outcome::Punt && !self.punt(message, Events::is_urgent(message)) {
                    too_many.push(message);
                }
                batch.answered += u64::from(self.note(message, outcome, read_at));
                if node.traces.are_active() {
                    node.traces.offer(now_ns(), self.number, &peer.name, message, outcome, answer);
                }
            });
            // The control plane has no time for them: their sender is told that, not left to wait.
            for message in &too_many {
                let told = door.answers.write_too_busy_unread(&mut scratch.output, message);
                let stats = &self.peer.stats;
                if told { &stats.limited } else { &stats.discarded }.add(1);
            }
            if count < GROUP {
                break;
            }
        }
        self.sender = sender;
        batch.received = at > 0;
        if batch.ended.is_some() {
            self.node.stats.unframeable.add(1);
        }
        self.partial.clear();
        self.partial.extend_from_slice(input.get(at..).unwrap_or_default());
        if self.partial.is_empty() && self.partial.capacity() > MAX_IDLE {
            self.partial = Vec::new();
        }
        Done { rest: self.write_now(scratch, &mut batch), batch, read_at }
    }

    /// Notes what became of one message of an open peer; whether an answer was written.
    #[inline]
    fn note(&mut self, message: &[u8], outcome: Outcome, read_at: Instant) -> bool {
        match outcome {
            Outcome::Answered(answered) => {
                self.peer.stats.answered(&answered);
                return true;
            }
            Outcome::Limited => {
                self.peer.stats.limited.add(1);
                return true;
            }
            Outcome::Watchdog => {
                self.peer.stats.watchdogs.add(1);
                return true;
            }
            Outcome::Held(hold) => {
                let until = read_at + self.node.config.hold;
                self.held.push_back(Held::Request { message: message.into(), hold, read_at, until });
            }
            Outcome::Punt => {}
        }
        false
    }

    /// Hands a message up; whether there was place.
    fn punt(&self, message: &[u8], urgent: bool) -> bool {
        let taken = self.node.events.message(self.number, message, urgent, &self.waiting);
        self.peer.stats.punted.add(u64::from(taken));
        taken
    }

    /// Lets answers go whose records are safe, or that have waited long enough.
    async fn release(&mut self) -> Result<(), Ended> {
        let progress = self.node.journal.progress();
        let time = Instant::now();
        if !self.held.front().is_some_and(|held| held.is_due(progress, time)) {
            return Ok(());
        }
        let (rest, batch, times) = self.with_scratch(|this, scratch| {
            let node = Arc::clone(&this.node);
            let (world, terms) = (node.world.load(), this.peer.terms.load());
            let door = node.door(&world, node.caller(&this.peer, &terms, &this.sender), now(), time);
            let mut batch = Batch::default();
            let mut times = Vec::new();
            while let Some(held) = this.held.pop_front_if(|held| held.is_due(progress, time)) {
                match held {
                    Held::Octets(octets) => scratch.output.extend(octets),
                    Held::Request { message, hold, read_at, .. } => {
                        let start = scratch.output.len();
                        let outcome = door.release(&message, &hold, &mut scratch.output);
                        if let Outcome::Answered(answered) = outcome {
                            this.peer.stats.answered(&answered);
                            this.peer.stats.hold_timeouts.add(u64::from(!hold.over(progress)));
                            batch.answered += 1;
                            times.push(read_at);
                        }
                        if node.traces.are_active() {
                            let answer = scratch.output.get(start..).unwrap_or_default();
                            node.traces.offer(now_ns(), this.number, &this.peer.name, &message, outcome, answer);
                        }
                    }
                }
            }
            (this.write_now(scratch, &mut batch), batch, times)
        });
        let written = self.complete(rest, &batch).await;
        times.iter().for_each(|read_at| self.node.stats.took(read_at.elapsed(), 1));
        written
    }

    /// Writes what the socket takes at once of the output, sealed where there is TLS; returns the rest as it must go out.
    fn write_now(&mut self, scratch: &mut Scratch, batch: &mut Batch) -> Vec<u8> {
        let octets = match &mut self.secured {
            Some(secured) => {
                if !scratch.output.is_empty() {
                    secured.send(&scratch.output, &mut scratch.sealed);
                }
                &scratch.sealed
            }
            None => &scratch.output,
        };
        if octets.is_empty() {
            return Vec::new();
        }
        match self.stream.try_write(octets) {
            Ok(count) => octets.get(count..).unwrap_or_default().to_vec(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => octets.clone(),
            Err(_) => {
                batch.ended = Some("connection lost");
                Vec::new()
            }
        }
    }

    async fn finish(&mut self, done: Done) -> Result<(), Ended> {
        let Done { rest, batch, read_at } = done;
        if batch.received {
            self.handle.last_received_ms.store(self.node.elapsed_ms(read_at), Ordering::Relaxed);
        }
        let written = self.complete(rest, &batch).await;
        if batch.answered > 0 {
            self.node.stats.took(read_at.elapsed(), batch.answered);
        }
        written
    }

    async fn complete(&mut self, rest: Vec<u8>, batch: &Batch) -> Result<(), Ended> {
        if !rest.is_empty() {
            self.write_rest(&rest).await?;
        }
        batch.ended.map_or(Ok(()), Err)
    }

    /// Writes this, sealed where there is TLS, and with it what TLS itself has to say.
    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        match &mut self.secured {
            Some(secured) => {
                let mut sealed = Vec::new();
                secured.send(bytes, &mut sealed);
                self.write_rest(&sealed).await
            }
            None => self.write_rest(bytes).await,
        }
    }

    /// Writes all of it, and waits for the peer to take it; meanwhile nothing is read from the peer. A peer that takes a
    /// little now and then has no longer than one that takes nothing.
    async fn write_rest(&self, bytes: &[u8]) -> Result<(), Ended> {
        timeout(WRITE_TIMEOUT, self.write_out(bytes)).await.unwrap_or_else(|_| {
            self.node.stats.stuck.add(1);
            Err("peer does not read")
        })
    }

    async fn write_out(&self, mut bytes: &[u8]) -> Result<(), Ended> {
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stream.writable().await.map_err(|_| "connection lost")?;
                }
                Err(_) => return Err("connection lost"),
            }
        }
        Ok(())
    }
}

/// Reads once into the thread's scratch, behind the `front` octets that the input is to have, or where TLS is taken off.
///
/// Not `try_read`: that learns that there is no more only from another call of the system, for each message that comes
/// alone.
fn poll_read(
    stream: &mut TcpStream,
    context: &mut Context<'_>,
    front: usize,
    secured: bool,
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let place = if secured { scratch.raw.get_mut(..) } else { scratch.input.get_mut(front..front + READ) };
        let mut place = ReadBuf::new(place.unwrap_or_default());
        Pin::new(stream).poll_read(context, &mut place).map_ok(|()| place.filled().len())
    })
}

/// Seconds since 1970; 0 where the clock stands before it.
pub(crate) fn now() -> UnixTime {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as UnixTime)
}

/// The same in nanoseconds.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}
