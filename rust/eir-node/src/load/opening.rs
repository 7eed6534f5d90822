//! A connection of the load generator until its capability exchange has ended.
//!
//! RFC 6733 clauses 5.3 and 13.1: TCP, TLS where the plan wants it, CER, CEA. Called by `driver` when the socket is ready,
//! so that many open at the same time; it never waits. What goes wrong here ends the run before it has begun.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::answers::{Message, Unframeable, next_message, verdict};
use super::messages::{CAPABILITIES_EXCHANGE, Origin, SUCCESS};
use super::peer::{Gone, Peer};
use super::wire::{Buffers, Wire};
use super::{LoadError, LoadPlan};

/// Longest time for a connection to be open and its CEA to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Identifier of the only CER.
const ONLY_ONE: u32 = 1;

/// A connection that is being opened.
pub(super) struct Opening {
    /// The socket, to be registered by `driver`.
    pub wire: Wire,
    /// When it must be open.
    pub deadline: Instant,
    origin: Origin,
    /// TCP is there, and the CER on its way.
    connected: bool,
    backlog: Vec<u8>,
    input: Vec<u8>,
}

impl Opening {
    /// Begins to connect.
    pub(super) fn start(plan: &LoadPlan, origin: Origin) -> Result<Self, LoadError> {
        let failed = |error| LoadError::Connect(origin.host.clone(), error);
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let stream = TcpStream::connect(plan.target).map_err(failed)?;
        let tls = plan.tls.as_ref().map(|tls| tls.session(plan.target.ip())).transpose();
        let tls = tls.map_err(|error| LoadError::Tls(error.to_string()))?;
        let wire = Wire::new(stream, tls);
        Ok(Self { wire, deadline, origin, connected: false, backlog: Vec::new(), input: Vec::new() })
    }

    /// Does what can be done now; whether the CEA has come.
    pub(super) fn go_on(&mut self, buffers: &mut Buffers) -> Result<bool, LoadError> {
        self.step(buffers).map_err(|stop| match stop {
            Stop::Refused(result) => LoadError::Refused(self.origin.host.clone(), result),
            Stop::Not(what) => LoadError::Handshake(self.origin.host.clone(), what),
            Stop::Gone(Gone::Closed) => {
                LoadError::Handshake(self.origin.host.clone(), "the node closed the connection")
            }
            Stop::Gone(Gone::Io(error)) => LoadError::Connect(self.origin.host.clone(), error),
            Stop::Gone(gone) => LoadError::Connect(self.origin.host.clone(), io::Error::other(gone.to_string())),
        })
    }

    /// The error of a connection whose deadline has passed.
    pub(super) fn too_late(&self) -> LoadError {
        LoadError::Connect(self.origin.host.clone(), io::ErrorKind::TimedOut.into())
    }

    /// The open connection.
    pub(super) fn into_peer(self, plan: &LoadPlan) -> Peer {
        Peer::new(plan, self.origin, self.wire, self.input)
    }

    fn step(&mut self, buffers: &mut Buffers) -> Result<bool, Stop> {
        if !self.connected {
            let Some(local) = self.local()? else {
                return Ok(false);
            };
            self.connected = true;
            self.wire.stream.set_nodelay(true)?;
            self.backlog = self.origin.cer(local.ip(), ONLY_ONE);
        }
        loop {
            // A node that has closed may have said why; what it said is still to be read.
            let written = self.wire.flush(&mut self.backlog);
            let Some(came) = self.wire.read(buffers, 0)? else {
                written?;
                return Ok(false);
            };
            self.input.extend_from_slice(buffers.plain.get(..came.count).unwrap_or_default());
            if let Some((message, after)) = next_message(&self.input)? {
                check_cea(&message)?;
                let length = self.input.len() - after.len();
                self.input.drain(..length);
                return Ok(true);
            }
        }
    }

    /// The address that the connection goes out from; `None` while it does not yet.
    fn local(&self) -> io::Result<Option<SocketAddr>> {
        if let Some(error) = self.wire.stream.take_error()? {
            return Err(error);
        }
        match self.wire.stream.peer_addr() {
            Ok(_) => self.wire.stream.local_addr().map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Why a connection does not open.
enum Stop {
    Gone(Gone),
    Not(&'static str),
    Refused(Option<u32>),
}

impl From<Gone> for Stop {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Gone(error.into())
    }
}

impl From<Unframeable> for Stop {
    fn from(Unframeable: Unframeable) -> Self {
        Self::Not("no Diameter message")
    }
}

fn check_cea(message: &Message<'_>) -> Result<(), Stop> {
    let ours = (message.request, message.command, message.hop_by_hop) == (false, CAPABILITIES_EXCHANGE, ONLY_ONE);
    if !ours {
        return Err(Stop::Not("another message came first"));
    }
    match verdict(message.avps).result {
        Some(SUCCESS) => Ok(()),
        result => Err(Stop::Refused(result)),
    }
}
