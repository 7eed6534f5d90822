//! Two peers that nobody wants: one sends far more than it may, the other never reads what it is answered.
//!
//! `hostile --target 127.0.0.1:3868 --imei-file FILE [--flood-origin flood.epc.test] [--flood-rate 100000]
//! [--mute-origin mute.epc.test] [--cpu N]`: prints `ready` once both are open, goes on until its standard input ends,
//! and prints one JSON line. It sends what it has prepared and looks at little, because it shares a processor with who
//! measures. Who does not read sends until the node takes no more, and comes back whenever it is thrown out.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use eir_bench::arguments::Arguments;
use eir_bench::messages::{Shape, cer, ecr};
use eir_bench::processor;
use eir_core::diameter::avp::Avps;
use eir_core::imei::Imei;

/// Requests that are prepared, and sent again and again.
const PREPARED: usize = 4096;
/// Between two bursts of who floods.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two looks at what came back.
const LOOK: Duration = Duration::from_millis(10);
/// How long a peer may try to come in.
const PATIENCE: Duration = Duration::from_secs(10);
const HEADER: usize = 20;
const RESULT_CODE: u32 = 268;
const SUCCESS: u32 = 2001;
const TOO_BUSY: u32 = 3004;

static OVER: AtomicBool = AtomicBool::new(false);
static MUTE_CAME_IN: AtomicU64 = AtomicU64::new(0);

struct Options {
    target: SocketAddr,
    flood_origin: String,
    flood_rate: u64,
    mute_origin: String,
    devices: Vec<Imei>,
}

/// What became of who floods.
#[derive(Debug, Default)]
struct Flood {
    sent: u64,
    answered: u64,
    limited: u64,
    seconds: f64,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options).map_err(|error| error.to_string())) {
        Ok(flood) => {
            let Flood { sent, answered, limited, seconds } = flood;
            let came_in = MUTE_CAME_IN.load(Ordering::Relaxed);
            println!(
                "{{\"sent\": {sent}, \"answered\": {answered}, \"limited\": {limited}, \"seconds\": {seconds:.3}, \
                 \"mute_connections\": {came_in}}}"
            );
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("hostile: {what}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut given = Arguments::of_process()?;
    let file: String = given.get("imei-file")?.ok_or("--imei-file is missing")?;
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    let device = |line: &str| line.parse().ok().and_then(Imei::from_number).ok_or(format!("{line:?} is no IMEI"));
    let options = Options {
        target: given.get("target")?.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 3868))),
        flood_origin: given.get("flood-origin")?.unwrap_or_else(|| "flood.epc.test".to_owned()),
        flood_rate: given.get("flood-rate")?.unwrap_or(100_000).max(1),
        mute_origin: given.get("mute-origin")?.unwrap_or_else(|| "mute.epc.test".to_owned()),
        devices: text.lines().take(PREPARED).map(device).collect::<Result<_, _>>()?,
    };
    if let Some(processor) = given.get("cpu")? {
        processor::pin(processor).map_err(|error| format!("--cpu {processor}: {error}"))?;
    }
    given.finish()?;
    Ok(options)
}

fn run(options: &Options) -> io::Result<Flood> {
    let prepared = |origin: &str| -> Vec<Vec<u8>> {
        let requests = options.devices.iter().zip(1..);
        requests.map(|(device, number)| ecr(origin, *device, number, Shape::Plain)).collect()
    };
    let flooding = come_in(options.target, &options.flood_origin)?;
    let silent = come_in(options.target, &options.mute_origin)?;
    println!("ready");
    thread::scope(|scope| {
        let flooder = scope.spawn(|| flood(flooding, &prepared(&options.flood_origin), options.flood_rate));
        scope.spawn(|| never_read(silent, options, &prepared(&options.mute_origin).concat()));
        // Nothing is said to it: only the end counts.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        OVER.store(true, Ordering::Relaxed);
        flooder.join().unwrap_or_else(|_| Err(io::Error::other("who floods panicked")))
    })
}

/// An open connection of this Origin-Host; tries again while the node still has the one before.
fn come_in(target: SocketAddr, origin: &str) -> io::Result<TcpStream> {
    let end = Instant::now() + PATIENCE;
    loop {
        match exchange(target, origin) {
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(100)),
            Ok(stream) => return Ok(stream),
        }
    }
}

fn exchange(target: SocketAddr, origin: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(target)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32;
    let realm = origin.split_once('.').map_or(origin, |(_, realm)| realm);
    stream.write_all(&cer(origin, realm, second))?;
    let mut cea = vec![0; HEADER];
    stream.read_exact(&mut cea)?;
    cea.resize(length_of(&cea).max(HEADER), 0);
    stream.read_exact(&mut cea[HEADER..])?;
    match result_code(&cea) {
        Some(SUCCESS) => Ok(stream),
        result => Err(io::Error::other(format!("{origin} was refused: {result:?}"))),
    }
}

fn length_of(message: &[u8]) -> usize {
    u32::from_be_bytes([0, message[1], message[2], message[3]]) as usize
}

fn result_code(message: &[u8]) -> Option<u32> {
    let avps = Avps::new(&message[HEADER..]).map_while(Result::ok);
    avps.filter(|avp| avp.code == RESULT_CODE && avp.vendor == 0).find_map(|avp| avp.unsigned32())
}

/// Sends so many requests a second, whatever comes back, which it counts.
fn flood(mut stream: TcpStream, requests: &[Vec<u8>], rate: u64) -> io::Result<Flood> {
    stream.set_nonblocking(true)?;
    let mut counted = Flood::default();
    let mut waiting: Vec<u8> = Vec::new();
    let mut input: Vec<u8> = Vec::new();
    let mut chunk = vec![0; 1 << 18];
    let begun = Instant::now();
    let mut looked = begun;
    while !OVER.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000) as u64;
        // What the node does not take is not piled up here: it counts as never sent.
        if waiting.is_empty() {
            let burst = (due - counted.sent.min(due)).min(requests.len() as u64) as usize;
            let first = counted.sent as usize % requests.len();
            requests.iter().cycle().skip(first).take(burst).for_each(|request| waiting.extend_from_slice(request));
            counted.sent += burst as u64;
        }
        match stream.write(&waiting) {
            Ok(count) => drop(waiting.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            take(&mut stream, &mut chunk, &mut input, &mut counted)?;
        }
        thread::sleep(PAUSE);
    }
    counted.seconds = begun.elapsed().as_secs_f64();
    Ok(counted)
}

/// Reads what is there and counts it.
fn take(stream: &mut TcpStream, chunk: &mut [u8], input: &mut Vec<u8>, counted: &mut Flood) -> io::Result<()> {
    loop {
        match stream.read(chunk) {
            Ok(0) => return Err(io::Error::other("the node threw out who floods")),
            Ok(count) => input.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    let mut at = 0;
    while let Some(message) = input.get(at..at + HEADER).and_then(|header| input.get(at..at + length_of(header).max(1)))
    {
        if message.len() < HEADER {
            return Err(io::Error::other("the node sent what is no Diameter message"));
        }
        counted.answered += 1;
        counted.limited += u64::from(result_code(message) == Some(TOO_BUSY));
        at += message.len();
    }
    input.drain(..at);
    Ok(())
}

/// Sends as long as the node takes it, and reads nothing.
fn never_read(first: TcpStream, options: &Options, requests: &[u8]) {
    let mut stream = Some(first);
    while !OVER.load(Ordering::Relaxed) {
        let Some(open) = stream.as_mut() else {
            thread::sleep(Duration::from_millis(100));
            stream = exchange(options.target, &options.mute_origin).ok();
            continue;
        };
        MUTE_CAME_IN.fetch_add(1, Ordering::Relaxed);
        let _ = open.set_write_timeout(Some(Duration::from_millis(200)));
        let mut at = 0;
        while !OVER.load(Ordering::Relaxed) {
            match open.write(&requests[at..]) {
                Ok(count) => at = (at + count) % requests.len(),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        stream = None;
    }
}
