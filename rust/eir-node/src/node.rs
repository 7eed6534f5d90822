//! A running data plane: the runtime, the listeners, the lists in force, and what the control plane can do to them.

pub mod lists;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use eir_core::UnixTime;
use eir_core::diameter::eca::Answers;
use eir_core::diameter::limit::Limiter;
use eir_core::diameter::s13::{Caller, Door};
use eir_core::diameter::terms::{Sender, Terms};
use eir_core::grey::{GreyTable, Timer};
use eir_core::image::Covered;
use eir_core::imei::Imei;
use eir_core::in_use::InUse;
use eir_core::journal::{self, Event as Record, Journal, MAX_REASON, OverlayChange, Replayed};
use eir_core::lists::{Deltas, Overlay, Snapshot};
use eir_core::policy::Policy;
use eir_core::recent::Recent;
use eir_core::verdict::{Facts, Request, Rule, Verdict, verdict, verdict_observed};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle as Threads, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::connection::{Command, Connection, Handle, now};
use crate::events::{Events, Kind};
use crate::gate::{Gate, Place, Refused};
use crate::image_file::{self, Found};
use crate::journal_reader::JournalReader;
use crate::journal_writer::{JournalConfig, JournalWriter};
use crate::peers::{Peer, Peers};
use crate::priority;
use crate::stats::Stats;
use crate::tls::{Secured, Tls, is_valid_for};
use crate::trace::Traces;

/// Messages from the control plane that may wait for one connection.
const COMMANDS_PER_CONNECTION: usize = 256;
const BACKLOG: i32 = 1024;
/// How long a connection of this node's own may take to come about; who asked for it may give it up before.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the control plane's own records may take to the disk.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

const DAY: UnixTime = 24 * 3600;

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The node's DiameterIdentity.
    pub origin_host: String,
    /// Its realm.
    pub origin_realm: String,
    /// Rises with every start (RFC 6733 clause 8.16).
    pub origin_state_id: u32,
    /// Threads that own the sockets.
    pub workers: usize,
    /// Events that may wait for the control plane.
    pub max_events: usize,
    /// How long the answer to a first attach may wait for the disk.
    pub hold: Duration,
    /// Where the journal goes.
    pub journal: JournalConfig,
    /// The image that memory is restored from at start, where there is one.
    pub image: Option<PathBuf>,
    /// Octets of the table of devices in use; 0: none is kept.
    pub in_use_bytes: usize,
}

/// The lists and settings in force; replaced whole.
pub(crate) struct World {
    policy: Policy,
    snapshot: Option<Arc<Snapshot>>,
    /// Those above this snapshot, if there are any.
    deltas: Option<Deltas>,
}

/// What connections share.
pub(crate) struct Shared {
    pub(crate) config: NodeConfig,
    pub(crate) world: ArcSwap<World>,
    pub(crate) journal: JournalWriter,
    pub(crate) events: Events,
    pub(crate) stats: Stats,
    /// What connections that are not open yet have in the place of a peer.
    pub(crate) before_open: Arc<Peer>,
    pub(crate) traces: Traces,
    peers: Peers,
    gate: Arc<Gate>,
    tls: ArcSwapOption<Tls>,
    /// Everybody's requests, and how many a second are answered.
    limiter: Limiter,
    limit: AtomicU64,
    /// The share of their time that the threads were busy in the last second, 0 to 65535.
    load: AtomicU16,
    answers: Answers,
    overlay: Overlay,
    grey: Arc<GreyTable>,
    in_use: InUse,
    recent: Recent,
    connections: Mutex<HashMap<u64, Arc<Handle>>>,
    next_connection: AtomicU64,
    started: Instant,
    /// Whoever replaces the world does it alone.
    replacing: Mutex<()>,
    /// Held while lists change: a delta is for what it follows.
    following: Mutex<()>,
    /// Held from the record of an operator's change until the change is made: an image must not fall between.
    changing: Mutex<()>,
    reader: Mutex<JournalReader>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The door as it stands now, for who asks; `read_at` is when it was asked.
    #[inline]
    pub(crate) fn door<'a>(
        &'a self,
        world: &'a World,
        caller: Caller<'a>,
        now: UnixTime,
        read_at: Instant,
    ) -> Door<'a, JournalWriter> {
        let in_use = (self.config.in_use_bytes != 0).then_some(&self.in_use);
        let (facts, recent) = (self.facts(world, now), Some(&self.recent));
        let ticks = read_at.duration_since(self.started).as_nanos() as u64;
        Door { facts, answers: &self.answers, journal: &self.journal, in_use, recent, caller, ticks }
    }

    #[inline]
    pub(crate) fn caller<'a>(&'a self, peer: &'a Peer, terms: &'a Terms, sender: &'a Sender) -> Caller<'a> {
        let node = (&self.limiter, self.limit.load(Ordering::Relaxed));
        Caller { sender, terms, limiter: &peer.limiter, node, load: self.load.load(Ordering::Relaxed) }
    }

    #[inline]
    fn facts<'a>(&'a self, world: &'a World, now: UnixTime) -> Facts<'a> {
        let World { policy, snapshot, deltas } = world;
        let (snapshot, deltas) = (snapshot.as_deref(), deltas.as_ref());
        Facts { snapshot, deltas, overlay: &self.overlay, grey: &self.grey, policy, now }
    }

    pub(crate) fn elapsed_ms(&self, time: Instant) -> u64 {
        time.duration_since(self.started).as_millis() as u64
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<u64, Arc<Handle>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, tls: bool) {
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => Arc::clone(&self).admit(stream, remote, tls),
                Err(_) => {
                    // Most likely no descriptor is left: those that are open go on meanwhile.
                    self.gate.refuse(Refused::NoPlace);
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn admit(self: Arc<Self>, stream: TcpStream, remote: SocketAddr, tls: bool) {
        self.stats.accepted.add(1);
        let Ok(place) = self.gate.enter(remote.ip()) else { return };
        let secured = self.tls.load().as_deref().filter(|_| tls).and_then(Secured::server);
        let kind = if tls { Kind::InTls } else { Kind::In };
        let (number, handle, commands) = self.register(remote);
        // A listener for TLS without certificates is none.
        if tls && secured.is_none() || !self.begin(number, &stream, kind) {
            self.gate.refuse(Refused::NoPlace);
            self.connections().remove(&number);
            return;
        }
        tokio::spawn(self.serve(number, stream, secured, Some(place), handle, commands));
    }

    fn register(&self, remote: SocketAddr) -> (u64, Arc<Handle>, mpsc::Receiver<Command>) {
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let (sender, commands) = mpsc::channel(COMMANDS_PER_CONNECTION);
        let last_received_ms = AtomicU64::new(self.elapsed_ms(Instant::now()));
        let handle = Arc::new(Handle { commands: sender, remote, last_received_ms, shown: OnceLock::new() });
        self.connections().insert(number, Arc::clone(&handle));
        (number, handle, commands)
    }

    /// Tells the control plane of a connection; whether there was place.
    fn begin(&self, number: u64, stream: &TcpStream, kind: Kind) -> bool {
        let addresses = stream.peer_addr().and_then(|remote| Ok((remote, stream.local_addr()?)));
        let ready = stream.set_nodelay(true).is_ok();
        addresses.is_ok_and(|(remote, local)| ready && self.events.connected(number, remote, local, kind))
    }

    async fn serve(
        self: Arc<Self>,
        number: u64,
        stream: TcpStream,
        secured: Option<Secured>,
        place: Option<Place>,
        handle: Arc<Handle>,
        commands: mpsc::Receiver<Command>,
    ) {
        let connection = Connection::new(Arc::clone(&self), number, stream, secured, place, handle, commands);
        let reason = connection.serve().await;
        self.connections().remove(&number);
        self.events.closed(number, reason);
    }

    /// Makes a connection, unless it is given up by any command.
    async fn reach(
        self: Arc<Self>,
        number: u64,
        secured: Option<Secured>,
        handle: Arc<Handle>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let kind = if secured.is_some() { Kind::OutTls } else { Kind::Out };
        let connected = tokio::select! {
            biased;
            _ = commands.recv() => Err("closed"),
            connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(handle.remote)) => match connected {
                Ok(Ok(stream)) if self.begin(number, &stream, kind) => Ok(stream),
                Ok(Ok(_)) => Err("connect failed"),
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err("connect refused"),
                Ok(Err(_)) => Err("connect failed"),
                Err(_) => Err("connect timeout"),
            },
        };
        match connected {
            Ok(stream) => self.serve(number, stream, secured, None, handle, commands).await,
            Err(reason) => {
                self.connections().remove(&number);
                self.events.closed(number, reason);
            }
        }
    }

    /// Measures every second how busy the threads are.
    async fn measure_load(self: Arc<Self>) {
        let (metrics, workers) = (Threads::current().metrics(), self.config.workers.max(1));
        let busy = || (0..workers).map(|worker| metrics.worker_total_busy_duration(worker)).sum::<Duration>();
        let mut every = interval(Duration::from_secs(1));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut before, mut at) = (busy(), Instant::now());
        loop {
            every.tick().await;
            let (present, time) = (busy(), Instant::now());
            let whole = time.duration_since(at).as_secs_f64() * workers as f64;
            if whole > 0.0 {
                let share = (present.saturating_sub(before).as_secs_f64() / whole).min(1.0);
                self.load.store((share * f64::from(u16::MAX)) as u16, Ordering::Relaxed);
            }
            (before, at) = (present, time);
        }
    }
}

/// What the node says of one device, and how it came to it.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The decision.
    pub verdict: Verdict,
    /// The rules in the order in which they were asked; the last decided.
    pub asked: Vec<Rule>,
    /// (list, reason, whether by the overlay): the device's own entry.
    pub listing: Option<(&'static str, String, bool)>,
    /// Until when the national database's grey list gives it access.
    pub deadline: Option<UnixTime>,
    /// (list, reason): the narrowest range that holds the device.
    pub range: Option<(&'static str, String)>,
}

/// A running data plane.
pub struct Node {
    shared: Arc<Shared>,
    runtime: Mutex<Option<Runtime>>,
    listeners: Mutex<Vec<JoinHandle<()>>>,
    image: Found,
    replayed: Replayed,
    stopped: AtomicBool,
}

impl Node {
    /// Replays the journal and starts the threads. Nothing is listened on yet, and there is no list.
    ///
    /// # Errors
    /// Where the journal's directory is not to be used, or the system refuses threads or descriptors.
    pub fn start(config: NodeConfig, policy: Policy) -> io::Result<Self> {
        let (grey, overlay) = (Arc::new(GreyTable::default()), Overlay::default());
        let image = config.image.as_ref().map_or(Found::None, |path| image_file::load(path, &grey, &overlay));
        let after = if let Found::Loaded(covered) = &image { covered.position } else { 0 };
        let (journal, replayed) =
            JournalWriter::open(config.journal.clone(), Arc::clone(&grey), after, |sequence, event| {
                journal::apply(sequence, &event, &grey, &overlay);
            })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.workers)
            .thread_name("eir-data")
            .on_thread_start(priority::wake_soon)
            .enable_io()
            .enable_time()
            .build()?;
        let shared = Arc::new(Shared {
            world: ArcSwap::from_pointee(World { policy, snapshot: None, deltas: None }),
            journal,
            events: Events::new(config.max_events)?,
            stats: Stats::default(),
            before_open: Arc::default(),
            traces: Traces::default(),
            peers: Peers::default(),
            gate: Arc::default(),
            tls: ArcSwapOption::empty(),
            limiter: Limiter::new(),
            limit: AtomicU64::new(0),
            load: AtomicU16::new(0),
            answers: Answers::new(&config.origin_host, &config.origin_realm, config.origin_state_id),
            overlay,
            grey,
            in_use: InUse::new(config.in_use_bytes, now() / DAY),
            recent: Recent::default(),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(1),
            started: Instant::now(),
            replacing: Mutex::new(()),
            following: Mutex::new(()),
            changing: Mutex::new(()),
            reader: Mutex::new(JournalReader::new(&config.journal.directory)),
            config,
        });
        runtime.spawn(Arc::clone(&shared).measure_load());
        Ok(Self {
            shared,
            runtime: Mutex::new(Some(runtime)),
            listeners: Mutex::default(),
            image,
            replayed,
            stopped: AtomicBool::new(false),
        })
    }

    /// What became of the image at start.
    #[must_use]
    pub fn image(&self) -> &Found {
        &self.image
    }

    /// What the replay of the journal met at start.
    #[must_use]
    pub fn replayed(&self) -> Replayed {
        self.replayed
    }

    /// Listens on an address, with TLS or without; port 0 takes a free one. Returns the address.
    ///
    /// # Errors
    /// Where the address cannot be had, or the node is stopped.
    pub fn listen(&self, address: SocketAddr, tls: bool) -> io::Result<SocketAddr> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // IPv4 has listeners of its own, so that a peer's address is always of the kind that it is written in.
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let runtime = self.threads()?;
        let _inside = runtime.enter();
        let listener = TcpListener::from_std(socket.into())?;
        let bound = listener.local_addr()?;
        let task = runtime.spawn(Arc::clone(&self.shared).accept(listener, tls));
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        Ok(bound)
    }

    fn threads(&self) -> io::Result<Threads> {
        let runtime = lock(&self.runtime);
        let runtime = runtime.as_ref().ok_or_else(|| io::Error::other("the node is stopped"))?;
        Ok(runtime.handle().clone())
    }

    /// Begins to make a connection to a peer, and returns its number; an event tells what became of it. With a name it is
    /// secured, and the peer must show a certificate for that name.
    ///
    /// # Errors
    /// Where the node is stopped, there are no certificates, or the name can be in none.
    pub fn connect(&self, address: SocketAddr, tls_name: Option<&str>) -> io::Result<u64> {
        let runtime = self.threads()?;
        let secured = match tls_name {
            None => None,
            Some(name) => {
                let tls = self.shared.tls.load();
                let tls = tls.as_deref().ok_or_else(|| io::Error::other("there are no certificates"))?;
                let secured = Secured::client(tls, name);
                Some(secured.ok_or_else(|| io::Error::other("no certificate can be for that name"))?)
            }
        };
        let (number, handle, commands) = self.shared.register(address);
        runtime.spawn(Arc::clone(&self.shared).reach(number, secured, handle, commands));
        Ok(number)
    }

    /// Secures connections with this from now on; those that are there keep what they have.
    pub fn set_tls(&self, tls: Tls) {
        self.shared.tls.store(Some(Arc::new(tls)));
    }

    /// When this node's certificate expires, in Unix seconds.
    #[must_use]
    pub fn tls_expires(&self) -> Option<i64> {
        self.shared.tls.load().as_ref()?.expires
    }

    /// The gate.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// The traces.
    #[must_use]
    pub fn traces(&self) -> &Traces {
        &self.shared.traces
    }

    /// Puts terms of a peer in force; `None`: the standard's.
    pub fn set_terms(&self, origin_host: &str, terms: Option<Terms>) {
        self.shared.peers.set_terms(origin_host, terms, &self.shared.stats);
    }

    /// The peer of that name, if it is known.
    #[must_use]
    pub fn peer(&self, origin_host: &str) -> Option<Arc<Peer>> {
        self.shared.peers.find(origin_host)
    }

    /// How many requests a second are answered with a status, of all peers together; 0: all.
    pub fn set_limit(&self, requests_per_second: u64) {
        self.shared.limit.store(requests_per_second, Ordering::Relaxed);
    }

    /// The share of their time that the threads were busy in the last second, 0 to 65535.
    #[must_use]
    pub fn load(&self) -> u16 {
        self.shared.load.load(Ordering::Relaxed)
    }

    /// Takes no more connections; those that are open go on.
    pub fn stop_listening(&self) {
        for task in self.listeners.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }

    /// Closes every connection and stops the threads. When this returns the journal is on the disk, unless the disk has not
    /// answered for some seconds.
    pub fn stop(&self) {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        self.stop_listening();
        // Held answers leave when their records are safe; only then does the runtime end.
        self.shared.journal.settle(RECORD_TIMEOUT);
        if let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        self.shared.journal.settle(RECORD_TIMEOUT);
    }

    /// The queue of what the control plane must see.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    /// Writes to a connection; whether it was there and could take it.
    pub fn send(&self, connection: u64, bytes: Vec<u8>) -> bool {
        self.command(connection, Command::Send(bytes))
    }

    /// Writes to a connection and opens it for this peer, who may speak for `sender`; whether it was there.
    pub fn open(&self, connection: u64, bytes: Vec<u8>, origin_host: &str, sender: Sender) -> bool {
        let peer = self.shared.peers.get(origin_host, &self.shared.stats);
        self.command(connection, Command::Open(bytes, peer, sender))
    }

    /// Writes to a connection in clear text and has TLS follow; an event tells when it is there. Whether the connection
    /// was there, and there are certificates.
    pub fn secure(&self, connection: u64, bytes: Vec<u8>) -> bool {
        let secured = self.shared.tls.load().as_deref().and_then(Secured::server);
        secured.is_some_and(|secured| self.command(connection, Command::Secure(bytes, Box::new(secured))))
    }

    /// Whether the certificate that the peer has shown is valid for that name; `None` where it has shown none.
    #[must_use]
    pub fn is_certified(&self, connection: u64, origin_host: &str) -> Option<bool> {
        let handle = self.shared.connections().get(&connection).map(Arc::clone)?;
        let certificate = handle.shown.get()?.0.as_ref()?;
        Some(is_valid_for(certificate, origin_host))
    }

    /// The version of TLS on a connection, `1.2` or `1.3`; `None` without.
    #[must_use]
    pub fn tls_version(&self, connection: u64) -> Option<&'static str> {
        self.shared.connections().get(&connection).map(Arc::clone)?.shown.get()?.1
    }

    /// Writes to a connection and closes it; whether it was there.
    pub fn close(&self, connection: u64, bytes: Vec<u8>) -> bool {
        self.command(connection, Command::Close(bytes, "closed"))
    }

    fn command(&self, connection: u64, command: Command) -> bool {
        let handle = self.shared.connections().get(&connection).map(Arc::clone);
        handle.is_some_and(|handle| handle.commands.try_send(command).is_ok())
    }

    /// How long ago the last octet came on a connection; `None` if it is gone.
    #[must_use]
    pub fn idle(&self, connection: u64) -> Option<Duration> {
        let handle = self.shared.connections().get(&connection).map(Arc::clone)?;
        let now = self.shared.elapsed_ms(Instant::now());
        Some(Duration::from_millis(now.saturating_sub(handle.last_received_ms.load(Ordering::Relaxed))))
    }

    /// (number, address) of every connection.
    #[must_use]
    pub fn connections(&self) -> Vec<(u64, SocketAddr)> {
        self.shared.connections().iter().map(|(number, handle)| (*number, handle.remote)).collect()
    }

    /// Puts other settings in force; the lists stay.
    pub fn set_policy(&self, policy: Policy) {
        self.replace(|old| World { policy, snapshot: old.snapshot.clone(), deltas: old.deltas.clone() });
    }

    fn replace(&self, make: impl FnOnce(&World) -> World) {
        let _alone = self.shared.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Arc::new(make(&self.shared.world.load()));
        let old = self.shared.world.swap(new);
        // The last to let go unmaps the old lists, which takes time: it must be this thread, not one that answers.
        while Arc::strong_count(&old) > 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Changes what the operator says of one device.
    ///
    /// # Errors
    /// Where the reason is too long or the change cannot be recorded; then nothing changes.
    pub fn set_overlay(&self, imei: Imei, change: OverlayChange, reason: &str, at: UnixTime) -> io::Result<()> {
        if reason.len() > MAX_REASON || reason.bytes().any(|byte| byte == 0) {
            return Err(io::Error::other(format!("a reason has at most {MAX_REASON} octets and no NUL")));
        }
        if !self.shared.overlay.has_place_for(reason) {
            return Err(io::Error::other("the overlay has had too many different reasons; use one that it knows"));
        }
        let _alone = lock(&self.shared.changing);
        let record = Record::Overlay { imei, change, reason: reason.to_owned(), at };
        self.shared.journal.append_durably(&record, RECORD_TIMEOUT)?;
        self.shared.overlay.set(imei, change, reason);
        Ok(())
    }

    /// How many devices the overlay speaks of.
    #[must_use]
    pub fn overlay_len(&self) -> usize {
        self.shared.overlay.len()
    }

    /// Trips the breaker, or lets timers start again.
    ///
    /// # Errors
    /// Where that cannot be recorded; then nothing changes.
    pub fn set_breaker(&self, tripped: bool, at: UnixTime) -> io::Result<()> {
        let _alone = lock(&self.shared.changing);
        self.shared.journal.append_durably(&Record::Breaker { tripped, at }, RECORD_TIMEOUT)?;
        self.shared.grey.set_tripped(tripped);
        Ok(())
    }

    /// Writes the data plane's tables to a file, with the control plane's position in its store, while answers go on.
    /// Returns the number of the journal's record up to which everything is in it, and on the disk.
    ///
    /// # Errors
    /// Where the file cannot be written, or the journal's disk does not answer; the image of before is then still there.
    pub fn write_image(&self, path: &Path, follow: Vec<u8>) -> io::Result<u64> {
        let Shared { journal, grey, overlay, changing, .. } = &*self.shared;
        let failures = journal.stats().failures;
        // What has a number by now is in the tables, or will be before the part it belongs to is read: records are taken
        // in under the lock of their part.
        let position = {
            let _nobody_changes = lock(changing);
            journal.last()
        };
        let covered = Covered { position, follow };
        image_file::write(path, &covered, grey, overlay, || {
            if !journal.settle_to(position, RECORD_TIMEOUT) {
                return Err(io::Error::other("the journal's disk does not answer"));
            }
            // Else a start could be in it that was lost, and taken back.
            if journal.stats().failures != failures {
                return Err(io::Error::other("the journal has failed meanwhile"));
            }
            Ok(())
        })?;
        Ok(position)
    }

    /// Hands over journal records that are on the disk; see [`JournalReader::read`]. From then on who waits for the
    /// journal's growth is woken by the next record.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn read_journal(&self, after: u64, most: usize, then: impl FnMut(u64, Record)) -> io::Result<u64> {
        let Shared { journal, reader, .. } = &*self.shared;
        journal.wait_for_growth();
        lock(reader).read(after, journal.progress().durable, most, then)
    }

    /// Puts timers as the control plane has them: (IMEI, start, deadline), start 0 for none. What is no IMEI is left out.
    pub fn set_timers(&self, entries: impl IntoIterator<Item = (u64, UnixTime, UnixTime)>) {
        for (imei, start, deadline) in entries {
            if let Some(imei) = Imei::from_number(imei) {
                self.shared.grey.set(imei, (start > 0).then_some(Timer { start, deadline }));
            }
        }
    }

    /// Every timer whose device the lists now decide, whoever its subscriber, with its start and the rule; none without lists, or where
    /// everything is answered white.
    #[must_use]
    pub fn timers_listed(&self, now: UnixTime) -> Vec<(Imei, UnixTime, Rule)> {
        let world = self.shared.world.load_full();
        let facts = self.shared.facts(&world, now);
        let mut found = Vec::new();
        self.shared.grey.for_each(|imei, timer| {
            let rule = verdict(&Request { imei: Ok(imei), imsi: None }, &facts).rule;
            let listed = matches!(
                rule,
                Rule::BlackHard
                    | Rule::TestImei
                    | Rule::Black
                    | Rule::White
                    | Rule::ExemptDevice
                    | Rule::BlackRange
                    | Rule::WhiteRange
            );
            if listed {
                found.push((imei, timer.start, rule));
            }
        });
        found
    }

    /// The timers.
    #[must_use]
    pub fn grey(&self) -> &GreyTable {
        &self.shared.grey
    }

    /// Which devices are in use.
    #[must_use]
    pub fn in_use(&self) -> &InUse {
        &self.shared.in_use
    }

    /// The last answers that were not white.
    #[must_use]
    pub fn recent(&self) -> &Recent {
        &self.shared.recent
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &JournalWriter {
        &self.shared.journal
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// What is counted for connections that are not open yet.
    #[must_use]
    pub fn before_open(&self) -> &Peer {
        &self.shared.before_open
    }

    /// What the node would answer now, and why. Starts nothing.
    #[must_use]
    pub fn explain(&self, request: &Request, now: UnixTime) -> Explanation {
        let world = self.shared.world.load();
        explain(request, &self.shared.facts(&world, now))
    }
}

/// The verdict with everything that a person may want to see of it.
#[must_use]
pub fn explain(request: &Request, facts: &Facts<'_>) -> Explanation {
    let mut asked = Vec::new();
    let verdict = verdict_observed(request, facts, |rule| asked.push(rule));
    let imei = request.imei.ok();
    let listing = imei.and_then(|imei| facts.listing(imei));
    let range = facts.snapshot.zip(imei).and_then(|(snapshot, imei)| {
        let info = snapshot.tag_info(snapshot.range(imei)?);
        Some((info.list.name(), info.reason.clone()))
    });
    let deadline = listing.as_ref().and_then(|listing| listing.deadline);
    let listing = listing.map(|listing| (listing.list.name(), listing.reason.into_owned(), listing.overlay));
    Explanation { verdict, asked, listing, deadline, range }
}
