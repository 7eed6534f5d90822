//! The load generator: many MMEs in one thread, asking `ECR` and timing the answers (3GPP TS 29.272 clause 6.2).
//!
//! Called by `eir load` and the tests through the Python binding, and by the benchmarks directly. It shares no code with
//! the node's own codec, so that a mistake there is not made twice and found by nobody. It never decides what an answer
//! ought to have been: it counts, times and, on request, records.
//!
//! One run: connect, over TLS where wanted, and exchange capabilities on every connection, send for the warm-up and the measured time, wait for
//! what is still out, then disconnect by DPR. Requests of the warm-up are asked and answered like any other but counted
//! nowhere.

mod answers;
mod driver;
mod identities;
mod messages;
mod opening;
mod outstanding;
mod peer;
mod report;
mod tls;
mod wire;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use identities::{ImeiSource, ImsiPick, ImsiSource};
pub use report::{Answer, Latency, LoadReport, Status};
pub use tls::{ClientTls, TlsFiles, TlsVersion};

/// The most requests that one connection can have outstanding: a slot number is 16 bits of the Hop-by-Hop Identifier.
pub const MAX_WINDOW: usize = 1 << 16;

/// When the next request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadMode {
    /// A request for each answer: every connection always has `window` requests outstanding.
    Closed {
        /// Outstanding requests per connection, 1 to [`MAX_WINDOW`].
        window: usize,
    },
    /// A fixed schedule that does not wait for answers. Latency is counted from the scheduled time, so a node that stalls
    /// is charged for every request that it delayed (no coordinated omission).
    Open {
        /// Requests per second over all connections.
        rate: u64,
        /// The most requests outstanding over all connections; what falls due beyond it is counted as unsent.
        max_outstanding: usize,
    },
}

/// How many digits the IMEI AVP has (3GPP TS 29.272 clause 7.3.4: 14, and the 15th is tolerated).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImeiDigits {
    /// TAC and SNR alone.
    Fourteen,
    /// With the spare digit, which is sent as 0 (3GPP TS 23.003 clause 6.2.1).
    Fifteen,
}

/// What one run does.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// The node's Diameter address.
    pub target: SocketAddr,
    /// Number of connections, each a peer with an Origin-Host of its own.
    pub connections: usize,
    /// Open or closed loop.
    pub mode: LoadMode,
    /// Measured time, after the warm-up.
    pub duration: Duration,
    /// Time before the measured time, at the same load.
    pub warm_up: Duration,
    /// How long to wait, after the last request, for answers that are still out.
    pub grace: Duration,
    /// Origin-Host is `<origin_prefix>-0001.<origin_realm>` and so on.
    pub origin_prefix: String,
    /// Origin-Realm.
    pub origin_realm: String,
    /// Destination-Realm: the node's.
    pub destination_realm: String,
    /// TLS from the first octet; without, everything goes in clear.
    pub tls: Option<ClientTls>,
    /// The devices asked about.
    pub imeis: ImeiSource,
    /// How their IMEIs are written.
    pub imei_digits: ImeiDigits,
    /// The subscribers in them; without, requests carry no User-Name.
    pub imsis: Option<ImsiSource>,
    /// Requests with everything that an agent and a talkative client add: ten optional AVPs with the subscriber's, a
    /// Proxy-Info and a Route-Record.
    pub full: bool,
    /// Seed of every random choice; equal plans ask the same questions in the same order.
    pub seed: u64,
    /// Spin instead of sleeping while nothing is there to be read. Costs a core, and measures the node instead of this
    /// thread's wake-up.
    pub busy_poll: bool,
    /// The most bytes taken by one read. Small enough that the node works on one part of the window while this thread
    /// works on another: 16 KiB is best, 64 KiB on both sides halves the rate at window 256.
    pub read_chunk: usize,
    /// Keep every answer in [`LoadReport::answers`].
    pub record_answers: bool,
}

impl LoadPlan {
    /// A plan with one connection and ten seconds, whose other fields can then be set.
    #[must_use]
    pub fn new(target: SocketAddr, mode: LoadMode, imeis: ImeiSource) -> Self {
        Self {
            target,
            connections: 1,
            mode,
            duration: Duration::from_secs(10),
            warm_up: Duration::ZERO,
            grace: Duration::from_secs(3),
            origin_prefix: "load".to_owned(),
            origin_realm: "epc.test".to_owned(),
            destination_realm: "eir.test".to_owned(),
            tls: None,
            imeis,
            imei_digits: ImeiDigits::Fifteen,
            imsis: None,
            full: false,
            seed: 1,
            busy_poll: false,
            read_chunk: 16 * 1024,
            record_answers: false,
        }
    }

    /// Refuses what cannot be run.
    fn check(&self) -> Result<(), LoadError> {
        let sound = |holds: bool, what| if holds { Ok(()) } else { Err(LoadError::Plan(what)) };
        sound((1..=MAX_WINDOW).contains(&self.connections), "connections must be 1 to 65536")?;
        sound((1024..=1 << 24).contains(&self.read_chunk), "read_chunk must be 1 KiB to 16 MiB")?;
        match self.mode {
            LoadMode::Closed { window } => {
                sound((1..=MAX_WINDOW).contains(&window), "window must be 1 to 65536")?;
            }
            LoadMode::Open { rate, max_outstanding } => {
                sound((1..=1_000_000_000).contains(&rate), "rate must be 1 to 10^9 a second")?;
                sound(max_outstanding >= 1, "max_outstanding must be at least 1")?;
            }
        }
        // A Diameter identity longer than a domain name is none, and the template's lengths rely on it being short.
        let longest = self.origin_prefix.len() + self.origin_realm.len().max(self.destination_realm.len());
        sound(longest <= 200, "the prefix and realms must be shorter than 200 octets")?;
        self.imeis.check().map_err(LoadError::Plan)?;
        self.imsis.as_ref().map_or(Ok(()), |source| source.check().map_err(LoadError::Plan))
    }

    /// Outstanding requests that one connection can have.
    fn slots_per_connection(&self) -> usize {
        match self.mode {
            LoadMode::Closed { window } => window,
            LoadMode::Open { max_outstanding, .. } => max_outstanding.div_ceil(self.connections.max(1)).min(MAX_WINDOW),
        }
    }
}

/// Why no run took place. What goes wrong after the capability exchange is part of the report instead.
#[derive(Debug)]
pub enum LoadError {
    /// The plan cannot be run, and why.
    Plan(&'static str),
    /// TLS cannot be spoken with these files, and why.
    Tls(String),
    /// The connection of this Origin-Host could not be opened, or broke during the capability exchange.
    Connect(String, io::Error),
    /// The CEA to this Origin-Host had another Result-Code than 2001, or none.
    Refused(String, Option<u32>),
    /// What came to this Origin-Host instead of a CEA.
    Handshake(String, &'static str),
    /// The event queue failed.
    Poll(io::Error),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(what) => write!(f, "cannot run this load: {what}"),
            Self::Tls(what) => write!(f, "cannot run this load: {what}"),
            Self::Connect(host, error) => write!(f, "{host} could not connect: {error}"),
            Self::Refused(host, Some(code)) => write!(f, "{host} was refused: Result-Code {code}"),
            Self::Refused(host, None) => write!(f, "{host} got a CEA without a Result-Code"),
            Self::Handshake(host, what) => write!(f, "{host} got no CEA: {what}"),
            Self::Poll(error) => write!(f, "the event queue failed: {error}"),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(_, error) | Self::Poll(error) => Some(error),
            Self::Plan(_) | Self::Tls(_) | Self::Refused(..) | Self::Handshake(..) => None,
        }
    }
}

/// A run whose connections are open and wait.
pub struct Connected<'a>(driver::Driver<'a>);

impl Connected<'_> {
    /// Goes on as [`run`] does.
    ///
    /// # Errors
    /// [`LoadError::Poll`].
    pub fn run(self, cancel: &AtomicBool) -> Result<LoadReport, LoadError> {
        self.0.run(cancel)
    }
}

/// Opens every connection of the plan and exchanges capabilities on it. Nothing is asked, and nobody's watchdog
/// answered, until [`Connected::run`] is called.
///
/// # Errors
/// As [`run`]'s.
pub fn connect(plan: &LoadPlan) -> Result<Connected<'_>, LoadError> {
    plan.check()?;
    driver::Driver::connect(plan).map(Connected)
}

/// Runs the plan in the calling thread until its time is over, its IMEIs are used up, no connection is left or `cancel`
/// is set.
///
/// # Errors
/// [`LoadError`] where the plan cannot be run or a connection could not be opened. A connection that is lost later ends
/// up in [`LoadReport::connections_lost`], with all that was counted and recorded up to then.
pub fn run(plan: &LoadPlan, cancel: &AtomicBool) -> Result<LoadReport, LoadError> {
    connect(plan)?.run(cancel)
}
