//! TLS under a connection of the load generator: octets of the socket in, octets of Diameter out, and the way back.
//!
//! RFC 6733 clause 13.1: the handshake comes before the CER. Used by `wire`, which does the reading and writing; rustls
//! holds nothing here but the state, so TLS costs no system call of its own. What the node sends ends in octets, or in
//! the error with which the connection is over.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};

use super::LoadError;

/// The most octets of one TLS record with its header (RFC 5246 clause 6.2.3), of which the front may wait in rustls.
pub(super) const MAX_RECORD: usize = 5 + (16 << 10) + 2048;

/// Versions of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 alone.
    V12,
    /// TLS 1.3 alone.
    V13,
}

/// What a [`ClientTls`] is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who vouches for the node, PEM. Without, whatever certificate the node shows is taken.
    pub ca: Option<PathBuf>,
    /// What is shown to the node, PEM: the certificate, and those between it and the CA.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
    /// The name that the node's certificate must be valid for; without, the address that is connected to.
    pub server_name: Option<String>,
    /// The only version to be offered; without, both are.
    pub version: Option<TlsVersion>,
}

/// How the connections of a run speak TLS. Every handshake is a whole one: no session is taken up again.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`LoadError::Tls`] where one cannot be read or used, or the name is none.
    pub fn new(files: &TlsFiles) -> Result<Self, LoadError> {
        let versions: &[&SupportedProtocolVersion] = match files.version {
            None => &[&TLS12, &TLS13],
            Some(TlsVersion::V12) => &[&TLS12],
            Some(TlsVersion::V13) => &[&TLS13],
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| LoadError::Tls(error.to_string()))?;
        let builder = match &files.ca {
            Some(path) => builder.with_root_certificates(authorities(path)?),
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))),
        };
        let mut config = with_certificate(builder, files)?;
        config.resumption = Resumption::disabled();
        let server_name = match &files.server_name {
            None => None,
            Some(name) => Some(
                ServerName::try_from(name.clone())
                    .map_err(|_| LoadError::Tls(format!("`{name}` is no name of a server")))?,
            ),
        };
        Ok(Self { config: Arc::new(config), server_name })
    }

    /// The state of one connection to `address`.
    pub(super) fn session(&self, address: IpAddr) -> Result<Session, rustls::Error> {
        let name = self.server_name.clone().unwrap_or_else(|| ServerName::from(address));
        let connection = ClientConnection::new(Arc::clone(&self.config), name)?;
        Ok(Session { connection, sealed: Vec::new(), over: None })
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, LoadError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| in_file(path, &error))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found.map_err(|error| in_file(path, &error))? {
        none if none.is_empty() => Err(in_file(path, &"no certificate is in it")),
        some => Ok(some),
    }
}

fn with_certificate(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    files: &TlsFiles,
) -> Result<ClientConfig, LoadError> {
    match (&files.certificate, &files.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(key, &error))?;
            builder.with_client_auth_cert(certificates(certificate)?, private).map_err(|error| in_file(key, &error))
        }
        _ => Err(LoadError::Tls("a certificate and a key come together".to_owned())),
    }
}

fn in_file(path: &Path, what: &dyn fmt::Display) -> LoadError {
    LoadError::Tls(format!("{}: {what}", path.display()))
}

/// Takes every certificate, as long as whoever shows it has its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Why nothing more can come through a session.
#[derive(Debug)]
pub(super) enum Over {
    /// The other side said that this is all.
    Closed,
    /// It broke the protocol, or did not trust this side or was not trusted.
    Failed(rustls::Error),
}

/// One connection's TLS.
pub(super) struct Session {
    connection: ClientConnection,
    /// What is to be written to the socket.
    pub sealed: Vec<u8>,
    /// Nothing that comes is looked at any more.
    pub over: Option<Over>,
}

impl Session {
    /// Seals all of `plain`, behind what the session has to say itself. Before the handshake has ended, rustls keeps it
    /// until then; that is for a CER, and bounded.
    pub(super) fn seal(&mut self, mut plain: &[u8]) -> io::Result<()> {
        loop {
            while self.connection.wants_write() {
                self.connection.write_tls(&mut self.sealed)?;
            }
            if plain.is_empty() {
                return Ok(());
            }
            match self.connection.writer().write(plain)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => plain = plain.get(count..).unwrap_or_default(),
            }
        }
    }

    /// Takes what came from the socket and returns how many octets it put into `plain`, which must have room for all
    /// that came and for [`MAX_RECORD`].
    pub(super) fn open(&mut self, mut came: &[u8], plain: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        while !came.is_empty() && self.over.is_none() {
            if self.connection.read_tls(&mut came)? == 0 {
                self.over = Some(Over::Closed);
                break;
            }
            match self.connection.process_new_packets() {
                Ok(state) if state.peer_has_closed() => self.over = Some(Over::Closed),
                Ok(_) => {}
                // What came whole before it counts all the same.
                Err(error) => self.over = Some(Over::Failed(error)),
            }
            loop {
                match self.connection.reader().read(plain.get_mut(count..).unwrap_or_default()) {
                    Ok(0) => break,
                    Ok(more) => count += more,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(count)
    }
}
