//! TLS between a peer and a node: who is let in, with what, and what is said over it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eir_core::diameter::terms::Sender;
use eir_node::events::{Event, Kind};
use eir_node::tls::{Tls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned, version};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use support::messages::{WHITE, cer, ecr, read_answer, take_message};
use support::*;

const NODE: &str = "eir.test";

/// An authority, and what it has vouched for.
struct Authority {
    place: Place,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in files and in memory.
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

impl Identity {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_file(&self.certificate).unwrap()]
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key).unwrap()
    }
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let place = Place::new();
        fs::write(place.path().join("ca.pem"), &pem).unwrap();
        Self { place, pem, issuer: Issuer::new(params, key) }
    }

    fn file(&self) -> PathBuf {
        self.place.path().join("ca.pem")
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        roots
    }

    fn vouch(&self, name: &str, last_year: i32) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(last_year, 12, 31);
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        let file = |kind: &str| self.place.path().join(format!("{name}-{last_year}.{kind}"));
        let identity = Identity { certificate: file("pem"), key: file("key") };
        fs::write(&identity.certificate, pem).unwrap();
        fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }

    /// What a node with that identity is secured with.
    fn tls(&self, identity: &Identity, client_certificate_required: bool) -> Tls {
        let files = TlsFiles {
            certificate: &identity.certificate,
            key: &identity.key,
            authorities: &self.file(),
            client_certificate_required,
        };
        Tls::load(&files).unwrap()
    }

    fn client(
        &self,
        identity: Option<&Identity>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots());
        match identity {
            Some(identity) => builder.with_client_auth_cert(identity.chain(), identity.key()).unwrap(),
            None => builder.with_no_client_auth(),
        }
    }
}

struct TlsPeer {
    stream: StreamOwned<ClientConnection, TcpStream>,
    received: Vec<u8>,
}

impl TlsPeer {
    fn over(stream: TcpStream, config: ClientConfig) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from(NODE).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        Self { stream: StreamOwned::new(connection, stream), received: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next message, or what became of the connection instead.
    fn message(&mut self) -> Result<Vec<u8>, String> {
        loop {
            if let Some(message) = take_message(&mut self.received) {
                return Ok(message);
            }
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err("closed".into()),
                Ok(count) => self.received.extend(&chunk[..count]),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

struct TlsRig {
    rig: Rig,
    address: SocketAddr,
}

impl TlsRig {
    fn new(tls: Tls) -> Self {
        let rig = Rig::new();
        rig.node.set_tls(tls);
        let address = rig.node.listen("127.0.0.1:0".parse().unwrap(), true).unwrap();
        Self { rig, address }
    }

    fn peer(&self, config: ClientConfig) -> TlsPeer {
        TlsPeer::over(TcpStream::connect(self.address).unwrap(), config)
    }

    fn event<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> T {
        self.rig.event("an event", pick)
    }

    fn first_message(&self, after: u64) -> u64 {
        self.event(|event| match event {
            Event::Message { connection, .. } if *connection > after => Some(*connection),
            _ => None,
        })
    }

    fn end(&self, number: u64) -> &'static str {
        self.event(|event| match event {
            Event::Closed { connection, reason } if *connection == number => Some(*reason),
            _ => None,
        })
    }
}

#[test]
fn a_whole_conversation_in_both_versions() {
    let authority = Authority::new();
    let rig = TlsRig::new(authority.tls(&authority.vouch(NODE, 2100), true));
    let identity = authority.vouch(PEER, 2100);
    let mut number = 0;
    for (protocol, name) in [(&version::TLS12, "1.2"), (&version::TLS13, "1.3")] {
        let mut peer = rig.peer(authority.client(Some(&identity), &[protocol]));
        peer.send(&[cer().bytes(), ecr(WHITE_DEVICE, SUBSCRIBER).bytes()].concat());
        number = rig.first_message(number);
        assert_eq!(rig.rig.node.tls_version(number), Some(name));
        assert_eq!(rig.rig.node.is_certified(number, &PEER.to_uppercase()), Some(true));
        assert_eq!(rig.rig.node.is_certified(number, "other.test"), Some(false));
        assert!(rig.rig.node.open(number, cea(), PEER, Sender::Anyone));
        assert_eq!(peer.message(), Ok(cea()));
        assert_eq!(read_answer(&peer.message().unwrap()).status(), WHITE);
        // Longer than a record, and than a read.
        let many: Vec<u8> = (0..1_000).flat_map(|number| request(WHITE_DEVICE, number).bytes()).collect();
        peer.send(&many);
        for number in 0..1_000u64 {
            let answer = read_answer(&peer.message().unwrap());
            assert_eq!((answer.identifiers, answer.status()), (number.to_be_bytes(), WHITE));
        }
        assert!(rig.rig.node.close(number, Vec::new()));
        assert_eq!(peer.message(), Err("closed".into()), "by close_notify, not by a cut");
    }
    let kinds = rig.event(|event| match event {
        Event::Connected { connection, kind, .. } if *connection == number => Some(*kind),
        _ => None,
    });
    assert_eq!(kinds, Kind::InTls);
}

#[test]
fn however_the_octets_come_the_answers_do() {
    let authority = Authority::new();
    let rig = TlsRig::new(authority.tls(&authority.vouch(NODE, 2100), false));
    // Octets one by one: the socket of the client is a pipe to a thread that passes them on slowly.
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let (through, target) = (relay.local_addr().unwrap(), rig.address);
    let pass = std::thread::spawn(move || {
        let (mut near, _) = relay.accept().unwrap();
        let mut far = TcpStream::connect(target).unwrap();
        far.set_nodelay(true).unwrap();
        let (mut back, mut home) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back, &mut home));
        let mut octet = [0];
        while near.read(&mut octet).is_ok_and(|count| count == 1) {
            if far.write_all(&octet).is_err() {
                break;
            }
        }
        let _ = far.shutdown(std::net::Shutdown::Both);
    });
    let mut peer = TlsPeer::over(TcpStream::connect(through).unwrap(), authority.client(None, &[&version::TLS13]));
    peer.send(&cer().bytes());
    let number = rig.first_message(0);
    assert_eq!(rig.rig.node.is_certified(number, PEER), None, "it has shown none");
    assert!(rig.rig.node.open(number, cea(), PEER, Sender::Anyone));
    assert_eq!(peer.message(), Ok(cea()));
    for number in 0..5 {
        peer.send(&request(WHITE_DEVICE, number).bytes());
        assert_eq!(read_answer(&peer.message().unwrap()).status(), WHITE);
    }
    drop(peer);
    assert_eq!(rig.end(number), "peer closed");
    pass.join().unwrap();
}

#[test]
fn who_is_not_vouched_for_is_not_let_in_and_the_reason_is_told() {
    let (authority, other) = (Authority::new(), Authority::new());
    let rig = TlsRig::new(authority.tls(&authority.vouch(NODE, 2100), true));
    let (expired, foreign) = (authority.vouch(PEER, 2021), other.vouch(PEER, 2100));
    let mut failures = 0;
    for protocol in [&version::TLS12, &version::TLS13] {
        for (identity, reason) in [
            (None, "tls certificate missing"),
            (Some(&expired), "tls certificate expired"),
            (Some(&foreign), "tls certificate not trusted"),
        ] {
            let mut peer = rig.peer(authority.client(identity, &[protocol]));
            let number = rig.event(|event| match event {
                Event::Connected { connection, .. } if *connection > failures => Some(*connection),
                _ => None,
            });
            failures += 1;
            // In TLS 1.3 the client is told only after it has sent.
            let _ = peer.stream.write_all(&cer().bytes());
            assert!(peer.message().unwrap_err().contains("alert"), "{reason}");
            assert_eq!(rig.end(number), reason);
            assert_eq!(rig.rig.node.stats().tls_failures.get(), failures);
        }
    }
}

#[test]
fn what_is_no_tls_ends_the_connection() {
    let authority = Authority::new();
    let rig = TlsRig::new(authority.tls(&authority.vouch(NODE, 2100), true));
    let mut peer = Peer::new(TcpStream::connect(rig.address).unwrap());
    peer.send(&cer().bytes());
    assert_eq!(rig.rig.end_of(&peer), "tls failed");
    peer.closed_after();
    // A listener for TLS of a node without certificates lets nobody in.
    let bare = Rig::new();
    let address = bare.node.listen("127.0.0.1:0".parse().unwrap(), true).unwrap();
    assert_eq!(Peer::new(TcpStream::connect(address).unwrap()).closed_after(), 0);
}

#[test]
fn other_certificates_are_for_new_connections_and_those_that_are_there_go_on() {
    let (authority, next) = (Authority::new(), Authority::new());
    let rig = TlsRig::new(authority.tls(&authority.vouch(NODE, 2100), false));
    let mut peer = rig.peer(authority.client(None, &[&version::TLS13]));
    peer.send(&cer().bytes());
    let number = rig.first_message(0);
    assert!(rig.rig.node.open(number, cea(), PEER, Sender::Anyone));
    peer.message().unwrap();
    rig.rig.node.set_tls(next.tls(&next.vouch(NODE, 2099), false));
    assert_eq!(rig.rig.node.tls_expires(), Some(4_102_358_400));
    peer.send(&request(WHITE_DEVICE, 1).bytes());
    assert_eq!(read_answer(&peer.message().unwrap()).status(), WHITE);
    let mut newcomer = rig.peer(next.client(None, &[&version::TLS13]));
    newcomer.send(&cer().bytes());
    rig.first_message(number);
    let mut late = rig.peer(authority.client(None, &[&version::TLS13]));
    assert!(
        late.stream.write_all(&cer().bytes()).and_then(|()| late.stream.flush()).is_err() || late.message().is_err()
    );
}

#[test]
fn files_that_are_none_are_refused_with_their_name() {
    let authority = Authority::new();
    let (node, other) = (authority.vouch(NODE, 2100), authority.vouch("other.test", 2100));
    let ca = authority.file();
    let nothing = authority.place.path().join("nothing.pem");
    let empty = authority.place.path().join("empty.pem");
    fs::write(&empty, "no PEM\n").unwrap();
    for (certificate, key, authorities, named) in [
        (&nothing, &node.key, &ca, "nothing.pem"),
        (&empty, &node.key, &ca, "empty.pem"),
        (&node.certificate, &empty, &ca, "empty.pem"),
        (&node.certificate, &other.key, &ca, "eir.test-2100.pem"),
        (&node.certificate, &node.key, &nothing, "nothing.pem"),
        (&node.certificate, &node.key, &empty, "empty.pem"),
    ] {
        let files = TlsFiles { certificate, key, authorities, client_certificate_required: true };
        let error = Tls::load(&files).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn tls_that_a_cer_asked_for_begins_behind_the_cea() {
    let authority = Authority::new();
    let rig = TlsRig::new(authority.tls(&authority.vouch(NODE, 2100), true));
    let identity = authority.vouch(PEER, 2100);
    let mut stream = TcpStream::connect(rig.rig.address).unwrap();
    stream.write_all(&cer().bytes()).unwrap();
    let number = rig.first_message(0);
    assert!(rig.rig.node.secure(number, cea()));
    let mut answer = vec![0; cea().len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, cea());
    let mut peer = TlsPeer::over(stream, authority.client(Some(&identity), &[&version::TLS13]));
    peer.stream.flush().unwrap();
    while peer.stream.conn.is_handshaking() {
        let (connection, socket) = (&mut peer.stream.conn, &mut peer.stream.sock);
        connection.complete_io(socket).unwrap();
    }
    rig.event(|event| matches!(event, Event::Secured { connection } if *connection == number).then_some(()));
    assert_eq!(rig.rig.node.is_certified(number, PEER), Some(true));
    // Nothing is answered before the control plane has looked.
    peer.send(&request(WHITE_DEVICE, 7).bytes());
    std::thread::sleep(NEVER);
    assert_eq!(rig.rig.answers("white"), 0);
    assert!(rig.rig.node.open(number, Vec::new(), PEER, Sender::Anyone));
    assert_eq!(read_answer(&peer.message().unwrap()).status(), WHITE);
}

#[test]
fn what_follows_in_clear_text_a_cer_that_asked_for_tls_is_never_taken_for_a_message() {
    let authority = Authority::new();
    let rig = TlsRig::new(authority.tls(&authority.vouch(NODE, 2100), true));
    let mut peer = rig.rig.connect();
    peer.send(&[cer().bytes(), request(WHITE_DEVICE, 1).bytes()].concat());
    let (number, _) = rig.rig.first_message(&peer);
    assert!(rig.rig.node.secure(number, cea()));
    assert_eq!(rig.end(number), "tls failed");
    assert_eq!(rig.rig.answers("white"), 0);
}

#[test]
fn a_connection_of_the_nodes_own_goes_to_whom_the_certificate_is_for_and_to_nobody_else() {
    let authority = Authority::new();
    let rig = TlsRig::new(authority.tls(&authority.vouch(NODE, 2100), true));
    let server = |identity: &Identity| {
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(identity.chain(), identity.key())
            .unwrap();
        Arc::new(config)
    };
    for (name, reason) in [(PEER, None), ("other.test", Some("tls certificate of another name"))] {
        let config = server(&authority.vouch(name, 2100));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = rig.rig.node.connect(listener.local_addr().unwrap(), Some(PEER)).unwrap();
        assert!(rig.event(|event| match event {
            Event::Connected { connection, kind, .. } if *connection == number => Some(*kind == Kind::OutTls),
            _ => None,
        }));
        // Sent before there are keys, and kept until there are.
        assert!(rig.rig.node.send(number, cer().bytes()));
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
        let mut message = vec![0; cer().bytes().len()];
        let read = stream.read_exact(&mut message);
        if let Some(reason) = reason {
            assert!(read.is_err());
            assert_eq!(rig.end(number), reason);
            continue;
        }
        assert_eq!(message, cer().bytes());
        stream.write_all(&cea()).unwrap();
        rig.first_message(number - 1);
        assert_eq!(rig.rig.node.is_certified(number, PEER), Some(true));
        assert!(rig.rig.node.close(number, Vec::new()));
        assert!(stream.read(&mut message).is_ok_and(|count| count == 0));
    }
    assert!(rig.rig.node.connect(rig.address, Some("no name at all")).is_err());
}
