//! TLS as a step between a socket and the buffers of a thread: octets in, octets out (RFC 8446, RFC 5246; RFC 6733 clause
//! 13.1 for its use).
//!
//! Called by connections, and by the control plane to put other files in force. It never touches a socket; who holds a
//! certificate is told by it, and who may connect with it is the control plane's to say.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, ServerConfig, ServerConnection, WebPkiClientVerifier};
use rustls::{CertificateError, Connection, Error, ProtocolVersion, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// The longest plaintext that octets of a read can become beyond their own number: a record whose front came before.
pub(crate) const LONGEST_RECORD: usize = 18 << 10;

/// Where certificates are.
#[derive(Debug, Clone, Copy)]
pub struct TlsFiles<'a> {
    /// This node's certificate and those between it and the authority, PEM.
    pub certificate: &'a Path,
    /// Its private key, PEM.
    pub key: &'a Path,
    /// The authorities that peers' certificates must come from, PEM.
    pub authorities: &'a Path,
    /// Whether a peer that shows no certificate is refused.
    pub client_certificate_required: bool,
}

/// What new connections are secured with.
#[derive(Debug)]
pub struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// When this node's certificate expires, in Unix seconds; `None` where that cannot be read.
    pub expires: Option<i64>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// A text for people that names the file and says what is wrong with it.
    pub fn load(files: &TlsFiles<'_>) -> Result<Self, String> {
        let chain = certificates(files.certificate)?;
        let key =
            PrivateKeyDer::from_pem_file(files.key).map_err(|error| format!("{}: {error}", files.key.display()))?;
        let expires = chain.first().and_then(|leaf| not_after(leaf));
        let mut roots = RootCertStore::empty();
        for authority in certificates(files.authorities)? {
            let name = files.authorities.display();
            roots.add(authority).map_err(|error| format!("{name}: {error}"))?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
        let wrong = |error: Error| format!("{} and {}: {error}", files.certificate.display(), files.key.display());
        let server = server(&provider, &roots, files.client_certificate_required, chain.clone(), key.clone_key());
        let client = client(provider, roots, chain, key);
        Ok(Self { server: Arc::new(server.map_err(wrong)?), client: Arc::new(client.map_err(wrong)?), expires })
    }
}

fn server(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    client_certificate_required: bool,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider));
    let verifier = if client_certificate_required { verifier } else { verifier.allow_unauthenticated() };
    let verifier = verifier.build().map_err(|error| Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    // Connections last for weeks: to resume one would save nothing, and skip the look at the peer's certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client(
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let name = path.display();
    let found = CertificateDer::pem_file_iter(path).map_err(|error| format!("{name}: {error}"))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| format!("{name}: {error}"))?;
    if found.is_empty() { Err(format!("{name}: there is no certificate in it")) } else { Ok(found) }
}

/// Whether a certificate is valid for a name, by its subjectAltName.
pub(crate) fn is_valid_for(certificate: &[u8], name: &str) -> bool {
    let certificate = CertificateDer::from(certificate);
    let Ok(name) = ServerName::try_from(name) else { return false };
    webpki::EndEntityCert::try_from(&certificate)
        .is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}

/// One secured connection, without its socket.
#[derive(Debug)]
pub(crate) struct Secured {
    connection: Connection,
    /// Whether it was told that the handshake is over.
    told: bool,
}

/// What came of octets off the socket.
pub(crate) struct Received {
    /// So many octets of plaintext were put into the place.
    pub(crate) count: usize,
    /// The peer has said its last.
    pub(crate) closed: bool,
    /// The handshake ended with these octets.
    pub(crate) secured: bool,
}

impl Secured {
    /// For a connection that the peer made.
    pub(crate) fn server(tls: &Tls) -> Option<Self> {
        ServerConnection::new(Arc::clone(&tls.server)).ok().map(|connection| Self::new(Connection::Server(connection)))
    }

    /// For a connection that this node made to the peer of that name; `None` where it can be no certificate's.
    pub(crate) fn client(tls: &Tls, name: &str) -> Option<Self> {
        let name = ServerName::try_from(name.to_owned()).ok()?;
        let connection = ClientConnection::new(Arc::clone(&tls.client), name).ok()?;
        Some(Self::new(Connection::Client(connection)))
    }

    fn new(mut connection: Connection) -> Self {
        // What is written is taken away at once.
        connection.set_buffer_limit(None);
        Self { connection, told: false }
    }

    /// Takes octets off the socket; puts plaintext into `place`, which must be longer than they are by
    /// [`LONGEST_RECORD`], and appends what must go to the peer.
    pub(crate) fn receive(
        &mut self,
        mut octets: &[u8],
        place: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Received, &'static str> {
        let mut received = Received { count: 0, closed: false, secured: false };
        while !octets.is_empty() {
            if self.connection.read_tls(&mut octets).is_err() {
                return Err("tls failed");
            }
            match self.connection.process_new_packets() {
                Ok(state) => received.closed |= state.peer_has_closed(),
                Err(error) => {
                    // The alert that says so.
                    self.flush(out);
                    return Err(reason(&error));
                }
            }
            while let Some(free) = place.get_mut(received.count..).filter(|free| !free.is_empty()) {
                match self.connection.reader().read(free) {
                    Ok(count @ 1..) => received.count += count,
                    _ => break,
                }
            }
            if received.closed {
                break;
            }
        }
        self.flush(out);
        received.secured = !self.told && !self.connection.is_handshaking();
        self.told |= received.secured;
        Ok(received)
    }

    /// Appends what must go to the peer so that it gets this plaintext, as soon as there are keys.
    pub(crate) fn send(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        // A writer without limit takes everything.
        let _ = self.connection.writer().write_all(plaintext);
        self.flush(out);
    }

    /// Appends the end of the conversation.
    pub(crate) fn close(&mut self, out: &mut Vec<u8>) {
        self.connection.send_close_notify();
        self.flush(out);
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // A Vec takes everything.
            if self.connection.write_tls(out).is_err() {
                break;
            }
        }
    }

    /// The certificate that the peer has shown.
    pub(crate) fn certificate(&self) -> Option<Vec<u8>> {
        self.connection.peer_certificates()?.first().map(|certificate| certificate.to_vec())
    }

    /// `1.2` or `1.3`.
    pub(crate) fn version(&self) -> Option<&'static str> {
        match self.connection.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some("1.2"),
            ProtocolVersion::TLSv1_3 => Some("1.3"),
            _ => None,
        }
    }
}

fn reason(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "tls certificate expired"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "tls certificate of another name",
        Error::InvalidCertificate(_) => "tls certificate not trusted",
        Error::NoCertificatesPresented => "tls certificate missing",
        _ => "tls failed",
    }
}

/// notAfter of a certificate (RFC 5280 clause 4.1.2.5), in Unix seconds.
fn not_after(certificate: &[u8]) -> Option<i64> {
    let (tbs, _) = element(element(certificate)?.0)?;
    // [0] version, serialNumber, signature, issuer, validity
    let (_, after_first, tag) = tagged(tbs)?;
    let mut rest = if tag == 0xA0 { after_first } else { tbs };
    for _ in 0..3 {
        rest = element(rest)?.1;
    }
    let (_, rest) = element(element(rest)?.0)?;
    let (time, _, tag) = tagged(rest)?;
    let digits = std::str::from_utf8(time).ok()?;
    // UTCTime has two digits of the year, from 1950 on; GeneralizedTime four.
    let digits = match tag {
        0x17 if digits < "50" => format!("20{digits}"),
        0x17 => format!("19{digits}"),
        _ => digits.to_owned(),
    };
    let part = |from: usize, to: usize| digits.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    // Days since 1970 of a date in the Gregorian calendar, March being the first month.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    Some(((days * 24 + part(8, 10)?) * 60 + part(10, 12)?) * 60 + part(12, 14)?)
}

/// (content, what follows) of the DER element at the front.
fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    tagged(bytes).map(|(content, rest, _)| (content, rest))
}

/// (content, what follows, tag) of the DER element at the front.
fn tagged(bytes: &[u8]) -> Option<(&[u8], &[u8], u8)> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
        if octets.len() > 4 {
            return None;
        }
        (octets.iter().fold(0, |length, octet| length << 8 | usize::from(*octet)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((content, rest, tag))
}
