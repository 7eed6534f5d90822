//! The load generator against nodes of a few lines: what it counts, and what it does when they misbehave.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's node may fail loudly")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use eir_node::load::{
    self, ClientTls, ImeiSource, ImsiPick, ImsiSource, LoadError, LoadMode, LoadPlan, LoadReport, Status, TlsFiles,
    TlsVersion,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

const CER: u32 = 257;
const DWR: u32 = 280;
const DPR: u32 = 282;
const ECR: u32 = 324;

/// What a node of this test writes for one request.
type Answerer = fn(request: &[u8], number: usize) -> Vec<u8>;

/// A node that gives every whole message to `answer`, until the peer closes or `answer` returns [`CLOSE`].
fn node(answer: Answerer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || converse(stream.unwrap(), answer));
        }
    });
    address
}

/// An answer that makes the node close the connection.
const CLOSE: &[u8] = b"close";

fn converse(stream: TcpStream, answer: Answerer) {
    talk(at_once(stream), answer);
}

/// Without this, an answer could wait in this kernel for an acknowledgement, and a reset would discard it.
fn at_once(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream
}

fn talk(mut stream: impl Read + Write, answer: Answerer) {
    let mut input = Vec::new();
    let mut chunk = [0; 4096];
    let mut number = 0;
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        input.extend_from_slice(&chunk[..count]);
        while let Some(length) = input.get(..4).map(|word| (number_at(word, 0) & 0x00FF_FFFF) as usize) {
            if input.len() < length {
                break;
            }
            let message: Vec<u8> = input.drain(..length).collect();
            let reply = answer(&message, number);
            number += 1;
            if reply == CLOSE || stream.write_all(&reply).is_err() {
                return;
            }
        }
    }
}

fn number_at(message: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(message[at..at + 4].try_into().unwrap())
}

fn command(message: &[u8]) -> u32 {
    number_at(message, 4) & 0x00FF_FFFF
}

/// An answer to `request` with these AVPs.
fn reply(request: &[u8], avps: &[u8]) -> Vec<u8> {
    let length = (20 + avps.len()) as u32 | 1 << 24;
    [&length.to_be_bytes(), &command(request).to_be_bytes(), &request[8..20], avps].concat()
}

fn result_code(code: u32) -> Vec<u8> {
    [0x10C, 0x4000_000C, code].map(u32::to_be_bytes).concat()
}

fn equipment_status(status: u32) -> Vec<u8> {
    [0x5A5, 0xC000_0010, 10415, status].map(u32::to_be_bytes).concat()
}

/// The 14 digits that come after the header of the IMEI AVP (1402, V and M, vendor 10415).
fn imei(ecr: &[u8]) -> u64 {
    let header = [0, 0, 5, 0x7A, 0xC0];
    let at = ecr.windows(5).position(|window| window == header).unwrap() + 12;
    std::str::from_utf8(&ecr[at..at + 14]).unwrap().parse().unwrap()
}

/// White, black, grey, unknown equipment and no status, by the last digit of the IMEI.
fn honest(request: &[u8], _: usize) -> Vec<u8> {
    if command(request) != ECR {
        return reply(request, &result_code(2001));
    }
    let avps = match imei(request) % 5 {
        status @ 0..=2 => [result_code(2001), equipment_status(status as u32)].concat(),
        3 => [0x129, 0x4000_0020, 0x10A, 0x4000_000C, 10415, 0x12A, 0x4000_000C, 5422].map(u32::to_be_bytes).concat(),
        _ => Vec::new(),
    };
    reply(request, &avps)
}

const IMEIS: Range<u64> = 100_000_000_000..100_000_001_000;

fn plan(target: SocketAddr, mode: LoadMode) -> LoadPlan {
    let mut plan = LoadPlan::new(target, mode, ImeiSource::Walk(IMEIS));
    plan.duration = Duration::from_secs(30);
    plan.grace = Duration::from_millis(200);
    plan.imsis = Some(ImsiSource { base: 1_010_000_000_000, count: 1000, pick: ImsiPick::PerDevice });
    plan.record_answers = true;
    plan
}

fn closed(window: usize) -> LoadMode {
    LoadMode::Closed { window }
}

fn run(plan: &LoadPlan) -> LoadReport {
    load::run(plan, &AtomicBool::new(false)).unwrap()
}

fn assert_each_imei_once(report: &LoadReport) {
    assert_eq!((report.sent, report.answered, report.lost, report.unmatched), (1000, 1000, 0, 0));
    assert_eq!((report.white, report.black, report.grey, report.no_status), (200, 200, 200, 200));
    assert_eq!(report.errors, BTreeMap::from([(5422, 200)]));
    assert_eq!((report.connections_lost, report.unsent), (0, 0));
    let mut answers: Vec<u64> = report.answers.iter().map(|answer| answer.imei).collect();
    answers.sort_unstable();
    assert!(answers.into_iter().eq(IMEIS));
    for answer in &report.answers {
        let expected = [Status::White, Status::Black, Status::Grey, Status::None, Status::None];
        assert_eq!(answer.status, expected[(answer.imei % 5) as usize]);
    }
    assert!(report.latency.p50 > 0 && report.latency.max >= report.latency.p999);
}

#[test]
fn a_closed_loop_asks_each_imei_of_a_walk_once() {
    for (connections, window) in [(1, 1), (1, 256), (7, 16)] {
        let mut plan = plan(node(honest), closed(window));
        plan.connections = connections;
        assert_each_imei_once(&run(&plan));
    }
}

#[test]
fn reads_of_any_size_give_the_same_counts() {
    let mut plan = plan(node(honest), closed(256));
    plan.read_chunk = 1024;
    plan.busy_poll = true;
    assert_each_imei_once(&run(&plan));
}

#[test]
fn an_open_loop_keeps_its_schedule() {
    let mut plan = plan(node(honest), LoadMode::Open { rate: 2000, max_outstanding: 1000 });
    plan.connections = 3;
    let report = run(&plan);
    assert_each_imei_once(&report);
    // The 1000th request is due after 499.5 ms; a slow machine is later, none is earlier.
    assert!(report.elapsed >= Duration::from_millis(499), "{:?}", report.elapsed);
}

#[test]
fn the_run_ends_with_its_time_and_the_warm_up_is_not_counted() {
    let mut plan = plan(node(honest), closed(4));
    plan.imeis = ImeiSource::Random(IMEIS);
    plan.warm_up = Duration::from_millis(100);
    plan.duration = Duration::from_millis(100);
    let begun = Instant::now();
    let report = run(&plan);
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert!(report.sent > 0 && report.sent == report.answered);
    assert!((report.answers.len() as u64) > report.answered);
}

#[test]
fn a_run_can_be_cancelled() {
    let cancel = AtomicBool::new(true);
    for mode in [closed(4), LoadMode::Open { rate: 1, max_outstanding: 4 }] {
        let begun = Instant::now();
        let report = load::run(&plan(node(honest), mode), &cancel).unwrap();
        assert_eq!(report.lost, 0);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

/// Sends a DWR before its first answer, one answer twice, and for the right DWA an answer to nothing.
fn talkative(request: &[u8], number: usize) -> Vec<u8> {
    let answer = honest(request, number);
    match (command(request), number) {
        (ECR, 1) => [&[1, 0, 0, 20, 0x80, 0, 1, 0x18, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 9], &answer[..]].concat(),
        (ECR, 20) => answer.repeat(2),
        (DWR, _) if request[4] & 0x80 == 0 && request[12..20] == [0, 0, 0, 9, 0, 0, 0, 9] => {
            [&[1, 0, 0, 20, 0x40, 0, 1, 0x44], &[0; 12][..]].concat()
        }
        (DWR, _) => CLOSE.to_vec(),
        _ => answer,
    }
}

#[test]
fn a_watchdog_is_answered_and_a_repeated_answer_is_not_counted_twice() {
    let report = run(&plan(node(talkative), closed(4)));
    assert_eq!((report.sent, report.answered, report.unmatched), (1000, 1000, 2));
}

/// Disconnects in order after 100 requests: no further request may come, and the DPA must.
fn leaving(request: &[u8], number: usize) -> Vec<u8> {
    match (command(request), number) {
        (ECR, 100) => {
            let dpr = [1, 0, 0, 20, 0x80, 0, 1, 0x1A, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 9];
            [&honest(request, number)[..], &dpr].concat()
        }
        (DPR, _) => CLOSE.to_vec(),
        _ => honest(request, number),
    }
}

#[test]
fn a_node_that_disconnects_ends_the_run() {
    let report = run(&plan(node(leaving), closed(1)));
    assert_eq!((report.sent, report.answered, report.lost), (100, 100, 0));
    assert_eq!(report.connections_lost, 1);
}

fn killed(request: &[u8], number: usize) -> Vec<u8> {
    if number > 500 { CLOSE.to_vec() } else { honest(request, number) }
}

#[test]
fn answers_before_a_lost_connection_are_in_the_report() {
    let report = run(&plan(node(killed), closed(16)));
    assert_eq!((report.connections_lost, report.answered), (1, 500));
    assert_eq!((report.answers.len(), report.lost), (500, report.sent - 500));
    assert_eq!(report.answers.iter().filter(|answer| answer.status == Status::Grey).count(), 100);
    assert!(report.first_loss.is_some());
}

#[test]
fn answers_that_are_here_already_count_although_writing_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plan = plan(listener.local_addr().unwrap(), closed(200));
    // So small that the first requests after the first read meet a closed socket, with most answers still unread.
    plan.read_chunk = 1024;
    let dying = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut input = Vec::new();
        let mut chunk = [0; 4096];
        let mut replies = Vec::new();
        for number in 0..=200 {
            while input.len() < 4 || input.len() < (number_at(&input, 0) & 0x00FF_FFFF) as usize {
                let count = stream.read(&mut chunk).unwrap();
                input.extend_from_slice(&chunk[..count]);
            }
            let length = (number_at(&input, 0) & 0x00FF_FFFF) as usize;
            let request: Vec<u8> = input.drain(..length).collect();
            replies.extend(honest(&request, number));
            if number == 0 || number == 200 {
                stream.write_all(&replies).unwrap();
                replies.clear();
            }
        }
    });
    let report = run(&plan);
    dying.join().unwrap();
    assert_eq!((report.connections_lost, report.answered, report.answers.len()), (1, 200, 200));
    assert!(report.lost > 0);
}

fn silent(request: &[u8], number: usize) -> Vec<u8> {
    if command(request) == ECR { Vec::new() } else { honest(request, number) }
}

#[test]
fn what_is_never_answered_is_lost_and_memory_stays_bounded() {
    let mut plan = plan(node(silent), LoadMode::Open { rate: 1000, max_outstanding: 10 });
    plan.duration = Duration::from_millis(100);
    let report = run(&plan);
    assert_eq!((report.sent, report.lost, report.answered), (10, 10, 0));
    assert_eq!(report.unsent, 90);
}

/// Another version, impossible lengths, and a message that never ends.
fn hostile(request: &[u8], number: usize) -> Vec<u8> {
    if command(request) != ECR {
        return honest(request, number);
    }
    let heads = [[2, 0, 0, 20], [1, 0, 0, 0], [1, 0, 0, 21], [1, 0xFF, 0xFF, 0xFF], [0xFF; 4]];
    let mut reply = honest(request, number);
    reply[..4].copy_from_slice(&heads[imei(request) as usize % 5]);
    reply
}

#[test]
fn bytes_that_are_no_message_end_the_connection_and_nothing_else() {
    for first in IMEIS.take(5) {
        let mut plan = plan(node(hostile), closed(1));
        plan.imeis = ImeiSource::Walk(first..first + 5);
        let report = run(&plan);
        assert_eq!((report.connections_lost, report.answered, report.lost), (1, 0, 1));
        assert_eq!(report.first_loss.as_deref(), Some("the node sent what is no Diameter message"));
    }
}

/// AVPs with lengths that cannot be, in a message whose own length is right.
fn garbled(request: &[u8], number: usize) -> Vec<u8> {
    let mut reply = honest(request, number);
    if command(request) == ECR && reply.len() > 28 {
        reply[25..28].copy_from_slice(&[0xFF, number as u8, 7]);
    }
    reply
}

#[test]
fn an_answer_with_broken_avps_has_no_status() {
    let report = run(&plan(node(garbled), closed(16)));
    assert_eq!((report.answered, report.no_status, report.connections_lost), (1000, 1000, 0));
}

#[test]
fn a_refused_capability_exchange_is_an_error() {
    let refuse: Answerer = |request, _| reply(request, &result_code(3010));
    let outcome = load::run(&plan(node(refuse), closed(1)), &AtomicBool::new(false));
    assert!(matches!(outcome, Err(LoadError::Refused(host, Some(3010))) if host == "load-0001.epc.test"));

    let answers: [Answerer; 3] = [
        |_, _| CLOSE.to_vec(),
        |_, _| vec![0xFF; 64],
        |request, _| {
            let mut dwa = reply(request, &result_code(2001));
            dwa[6..8].copy_from_slice(&[1, 0x18]);
            dwa
        },
    ];
    for answer in answers {
        let outcome = load::run(&plan(node(answer), closed(1)), &AtomicBool::new(false));
        assert!(matches!(outcome, Err(LoadError::Handshake(..))), "{outcome:?}");
    }
    let empty: Answerer = |request, _| reply(request, &[]);
    let outcome = load::run(&plan(node(empty), closed(1)), &AtomicBool::new(false));
    assert!(matches!(outcome, Err(LoadError::Refused(_, None))));
}

#[test]
fn plans_that_cannot_be_run_are_refused() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let refused = |change: fn(&mut LoadPlan)| {
        let mut plan = plan(nowhere, closed(1));
        change(&mut plan);
        matches!(load::run(&plan, &AtomicBool::new(false)), Err(LoadError::Plan(_)))
    };
    assert!(refused(|plan| plan.connections = 0));
    assert!(refused(|plan| plan.mode = closed(0)));
    assert!(refused(|plan| plan.mode = closed(load::MAX_WINDOW + 1)));
    assert!(refused(|plan| plan.mode = LoadMode::Open { rate: 0, max_outstanding: 1 }));
    assert!(refused(|plan| plan.read_chunk = 0));
    assert!(refused(|plan| plan.imeis = ImeiSource::Listed([].into())));
    assert!(refused(|plan| plan.imsis = Some(ImsiSource { base: 0, count: 1, pick: ImsiPick::Random })));
    assert!(!refused(|_| {}), "and this one fails only because nobody listens");
}

#[test]
fn a_capability_exchange_carries_what_the_node_needs() {
    let check: Answerer = |request, number| {
        if command(request) == CER {
            // VSAI {266: 10415, 258: 16777252} and Supported-Vendor-Id 10415.
            let vsai = [0x104, 0x4000_0020, 0x10A, 0x4000_000C, 10415, 0x102, 0x4000_000C, 16_777_252];
            let supported = [0x109, 0x4000_000C, 10415];
            let has = |words: &[u32]| {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
                request.windows(bytes.len()).any(|window| window == bytes)
            };
            if !has(&vsai) || !has(&supported) {
                return reply(request, &result_code(5010));
            }
        }
        honest(request, number)
    };
    assert_each_imei_once(&run(&plan(node(check), closed(16))));
}

#[test]
fn many_connections_open_but_few_at_the_same_time() {
    static OPEN: AtomicUsize = AtomicUsize::new(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plan = plan(listener.local_addr().unwrap(), closed(1));
    plan.connections = 200;
    thread::spawn(move || {
        for stream in listener.incoming() {
            // Who answers nobody yet sees how many come.
            OPEN.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(300));
                OPEN.fetch_sub(1, Ordering::SeqCst);
                converse(stream.unwrap(), honest);
            });
        }
    });
    let watched = thread::spawn(|| {
        let begun = Instant::now();
        let mut most = 0;
        while begun.elapsed() < Duration::from_millis(900) {
            most = most.max(OPEN.load(Ordering::SeqCst));
            thread::sleep(Duration::from_millis(5));
        }
        most
    });
    assert_each_imei_once(&run(&plan));
    let most = watched.join().unwrap();
    assert!((2..=64).contains(&most), "{most}");
}

#[test]
fn a_node_that_never_answers_the_first_message_ends_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plan = plan(listener.local_addr().unwrap(), closed(1));
    plan.connections = 3;
    let outcome = load::run(&plan, &AtomicBool::new(false));
    assert!(matches!(&outcome, Err(LoadError::Connect(..))), "{outcome:?}");
}

/// Certificates of a laboratory: a CA, a node `eir.test`, a client `load`, and another CA.
static LABORATORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("load-certificates");
    std::fs::create_dir_all(&home).unwrap();
    let openssl = |arguments: &str| {
        let done = Command::new("openssl").current_dir(&home).args(arguments.split(' ')).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for authority in ["ca", "other"] {
        openssl(&format!("req -x509 {key} -keyout {authority}.key -out {authority}.pem -subj /CN={authority} -days 2"));
    }
    for (name, subject) in [("eir", "eir.test"), ("load", "load-0001.epc.test")] {
        openssl(&format!(
            "req -x509 -CA ca.pem -CAkey ca.key {key} -keyout {name}.key -out {name}.pem -subj /CN={name} -days 2 \
             -addext subjectAltName=DNS:{subject} -addext basicConstraints=critical,CA:false"
        ));
    }
    home
});

/// A node as [`node`], behind TLS.
fn tls_node(answer: Answerer, mutual: bool) -> SocketAddr {
    let certificate = |name| CertificateDer::from_pem_file(LABORATORY.join(name)).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = if mutual {
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.pem")).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_file(LABORATORY.join("eir.key")).unwrap();
    let config = Arc::new(builder.with_single_cert(vec![certificate("eir.pem")], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            thread::spawn(move || talk(StreamOwned::new(session, at_once(stream.unwrap())), answer));
        }
    });
    address
}

fn files() -> TlsFiles {
    TlsFiles { ca: Some(LABORATORY.join("ca.pem")), server_name: Some("eir.test".to_owned()), ..TlsFiles::default() }
}

fn with_client_certificate() -> TlsFiles {
    TlsFiles { certificate: Some(LABORATORY.join("load.pem")), key: Some(LABORATORY.join("load.key")), ..files() }
}

#[test]
fn over_tls_every_count_is_the_same() {
    for version in [None, Some(TlsVersion::V12), Some(TlsVersion::V13)] {
        for (connections, window) in [(1, 1), (1, 256), (7, 16)] {
            let mut plan = plan(tls_node(honest, true), closed(window));
            plan.tls = Some(ClientTls::new(&TlsFiles { version, ..with_client_certificate() }).unwrap());
            plan.connections = connections;
            assert_each_imei_once(&run(&plan));
            plan.read_chunk = 1024;
            plan.full = true;
            assert_each_imei_once(&run(&plan));
        }
    }
    let mut plan = plan(tls_node(honest, false), LoadMode::Open { rate: 5000, max_outstanding: 1000 });
    // Without a CA whatever the node shows is good enough.
    plan.tls = Some(ClientTls::new(&TlsFiles::default()).unwrap());
    plan.connections = 3;
    assert_each_imei_once(&run(&plan));
}

#[test]
fn answers_before_a_lost_tls_connection_are_in_the_report() {
    let mut plan = plan(tls_node(killed, false), closed(16));
    plan.tls = Some(ClientTls::new(&files()).unwrap());
    let report = run(&plan);
    assert_eq!((report.connections_lost, report.answered, report.lost), (1, 500, report.sent - 500));
}

#[test]
fn tls_that_fails_ends_the_run_before_it_has_begun() {
    let failure = |address, files: &TlsFiles| {
        let mut plan = plan(address, closed(1));
        plan.tls = Some(ClientTls::new(files).unwrap());
        match load::run(&plan, &AtomicBool::new(false)) {
            Err(LoadError::Connect(host, error)) => format!("{host}: {error}"),
            other => panic!("{other:?}"),
        }
    };
    let another = TlsFiles { ca: Some(LABORATORY.join("other.pem")), ..files() };
    assert!(failure(tls_node(honest, false), &another).contains("UnknownIssuer"));
    let misnamed = TlsFiles { server_name: Some("hss.test".to_owned()), ..files() };
    assert!(failure(tls_node(honest, false), &misnamed).contains("not valid for name"));
    for version in [TlsVersion::V12, TlsVersion::V13] {
        let nameless = TlsFiles { version: Some(version), ..files() };
        let why = failure(tls_node(honest, true), &nameless);
        assert!(why.starts_with("load-0001.epc.test: TLS: received fatal alert"), "{why}");
    }
    let clear: Answerer = |_, _| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    assert!(failure(clear_node(clear), &files()).contains("TLS: "));
}

/// A node that answers whatever comes, as if it were whole.
fn clear_node(answer: Answerer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut chunk) {
                stream.write_all(&answer(&chunk[..count], 0)).unwrap();
            }
        }
    });
    address
}

#[test]
fn files_that_cannot_be_used_are_refused() {
    let refused = |files: &TlsFiles| matches!(ClientTls::new(files), Err(LoadError::Tls(_)));
    assert!(refused(&TlsFiles { ca: Some(LABORATORY.join("absent.pem")), ..files() }));
    assert!(refused(&TlsFiles { ca: Some(LABORATORY.join("ca.key")), ..files() }));
    assert!(refused(&TlsFiles { certificate: Some(LABORATORY.join("load.pem")), ..files() }));
    assert!(refused(&TlsFiles { key: Some(LABORATORY.join("eir.key")), ..with_client_certificate() }));
    assert!(refused(&TlsFiles { server_name: Some("no name".to_owned()), ..files() }));
}
