//! A connection's socket, in clear or with TLS inside it.
//!
//! Used by `opening` and `peer`, which see octets of Diameter and nothing else. One call reads once, or writes until the
//! socket takes no more.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

use super::LoadPlan;
use super::answers::MAX_MESSAGE;
use super::peer::Gone;
use super::tls::{MAX_RECORD, Over, Session};

/// What all connections read into, one after the other.
pub(super) struct Buffers {
    /// Octets of Diameter: the front of a message, and what one read gave.
    pub plain: Vec<u8>,
    /// What one read gave, where it is not in clear.
    sealed: Vec<u8>,
    chunk: usize,
}

impl Buffers {
    /// Room for one message and one read of the plan's size.
    pub(super) fn new(plan: &LoadPlan) -> Self {
        let (record, sealed) = if plan.tls.is_some() { (MAX_RECORD, plan.read_chunk) } else { (0, 0) };
        Self { plain: vec![0; MAX_MESSAGE + plan.read_chunk + record], sealed: vec![0; sealed], chunk: plan.read_chunk }
    }
}

/// What one read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Came {
    /// Octets of Diameter.
    pub count: usize,
    /// The socket may have more, of which no event will tell.
    pub more: bool,
}

/// An open socket.
pub(super) struct Wire {
    /// Registered by `driver`.
    pub stream: TcpStream,
    tls: Option<Box<Session>>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, tls: Option<Session>) -> Self {
        Self { stream, tls: tls.map(Box::new) }
    }

    /// Whether the socket has taken all that was given to [`Wire::flush`].
    pub(super) fn is_flushed(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.sealed.is_empty())
    }

    /// Octets that were given to [`Wire::flush`] and wait here for the socket.
    pub(super) fn waiting(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.sealed.len())
    }

    /// Reads once, to `at` of the plain buffer; `None` where nothing is there.
    #[inline]
    pub(super) fn read(&mut self, buffers: &mut Buffers, at: usize) -> Result<Option<Came>, Gone> {
        let Buffers { plain, sealed, chunk } = buffers;
        let Some(tls) = &mut self.tls else {
            let space = plain.get_mut(at..at + *chunk).unwrap_or_default();
            let came = read(&mut self.stream, space)?;
            return Ok(came.map(|count| Came { count, more: count == space.len() }));
        };
        match tls.over.take() {
            None => {}
            Some(Over::Closed) => return Err(Gone::Closed),
            Some(Over::Failed(error)) => return Err(Gone::Tls(error)),
        }
        let Some(octets) = read(&mut self.stream, sealed)? else {
            return Ok(None);
        };
        let came = sealed.get(..octets).unwrap_or_default();
        let count = tls.open(came, plain.get_mut(at..).unwrap_or_default())?;
        // The end that TLS told of is found by the next read, and no event tells of it.
        Ok(Some(Came { count, more: octets == sealed.len() || tls.over.is_some() }))
    }

    /// Writes as much of `backlog` as the socket takes; the rest stays there, or sealed here.
    pub(super) fn flush(&mut self, backlog: &mut Vec<u8>) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return write(&mut self.stream, backlog);
        };
        let sealed = tls.seal(backlog);
        backlog.clear();
        // What was sealed before it failed may be the alert that says why.
        write(&mut self.stream, &mut tls.sealed).and(sealed)
    }
}

/// Reads once; `None` where nothing is there.
#[inline]
fn read(stream: &mut TcpStream, space: &mut [u8]) -> Result<Option<usize>, Gone> {
    loop {
        match stream.read(space) {
            Ok(0) => return Err(Gone::Closed),
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes until the socket takes no more, and removes what it took.
fn write(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut written = 0;
    let mut outcome = Ok(());
    while let Some(rest @ [_, ..]) = bytes.get(written..) {
        match stream.write(rest) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                outcome = Err(error);
                written = bytes.len();
            }
        }
    }
    bytes.drain(..written);
    outcome
}
