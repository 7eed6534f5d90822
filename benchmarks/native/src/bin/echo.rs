//! The bare echo: what the node's I/O costs without the node.
//!
//! One task a connection, one read, an answer to each whole message in it, one write; the answer is the begin of the
//! request with the R bit cleared and the length set. What the node is slower than this, it spends on its own work.
//!
//! With `--certificate` and `--key` (PEM) the same goes through TLS, by rustls: what comes of one read is opened, answered
//! and sealed as a whole. The client is not asked for a certificate.
//!
//! `echo --listen 127.0.0.1:3868 [--reply-bytes 200] [--read-bytes 16384] [--workers 1] [--cpu N]
//! [--certificate FILE --key FILE]`

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use eir_bench::arguments::Arguments;
use eir_bench::processor;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Octets asked of one read, unless --read-bytes says otherwise. With 64 KiB on both sides a window of 256 is one read,
/// and while one side works the other has nothing to do: half the throughput.
const READ_BYTES: usize = 16 * 1024;
/// Octets of an answer, unless --reply-bytes says otherwise: about what an ECA has.
const REPLY_BYTES: usize = 200;
/// A message longer than this is none.
const MAX_MESSAGE: usize = 16 * 1024;
const HEADER: usize = 20;
const CAPABILITIES_EXCHANGE: [u8; 3] = [0, 1, 1];
/// Result-Code 2001.
const SUCCESS: [u8; 12] = [0, 0, 1, 12, 0x40, 0, 0, 12, 0, 0, 7, 0xD1];

/// More than one TLS record with its header has.
const MAX_RECORD: usize = 20 * 1024;

#[derive(Clone)]
struct Options {
    listen: SocketAddr,
    reply_bytes: usize,
    read_bytes: usize,
    workers: usize,
    tls: Option<Arc<ServerConfig>>,
}

fn main() -> ExitCode {
    match options().and_then(|options| serve(options).map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("echo: {what}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut given = Arguments::of_process()?;
    let options = Options {
        listen: given.get("listen")?.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 3868))),
        reply_bytes: given.get("reply-bytes")?.unwrap_or(REPLY_BYTES).next_multiple_of(4).clamp(HEADER, MAX_MESSAGE),
        read_bytes: given.get("read-bytes")?.unwrap_or(READ_BYTES).max(1024),
        workers: given.get("workers")?.unwrap_or(1).max(1),
        tls: match (given.get("certificate")?, given.get("key")?) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(tls(certificate, key)?),
            _ => return Err("--certificate and --key come together".to_owned()),
        },
    };
    if let Some(processor) = given.get("cpu")? {
        processor::pin(processor).map_err(|error| format!("--cpu {processor}: {error}"))?;
    }
    given.finish()?;
    Ok(options)
}

fn serve(options: Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(options.workers).enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(options.listen).await?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            let (stream, peer) = listener.accept().await?;
            let options = options.clone();
            tokio::spawn(async move {
                let echoed = match options.tls.clone() {
                    None => echo(stream, &options).await,
                    Some(config) => echo_tls(stream, &options, config).await,
                };
                if let Err(error) = echoed {
                    eprintln!("echo: {peer}: {error}");
                }
            });
        }
    })
}

async fn echo(mut stream: TcpStream, options: &Options) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = vec![0; options.read_bytes + MAX_MESSAGE];
    let mut held = 0;
    let mut output = Vec::new();
    loop {
        let space = input.get_mut(held..held + options.read_bytes).unwrap_or_default();
        let count = stream.read(space).await?;
        if count == 0 {
            return Ok(());
        }
        let end = held + count;
        let answered = answer(input.get(..end).unwrap_or_default(), options.reply_bytes, &mut output)?;
        input.copy_within(answered..end, 0);
        held = end - answered;
        stream.write_all(&output).await?;
        output.clear();
    }
}

async fn echo_tls(mut stream: TcpStream, options: &Options, config: Arc<ServerConfig>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut sealed = vec![0; options.read_bytes];
    let mut input = vec![0; options.read_bytes + MAX_MESSAGE + MAX_RECORD];
    let mut held = 0;
    let (mut output, mut sealed_output) = (Vec::new(), Vec::new());
    loop {
        let count = stream.read(&mut sealed).await?;
        if count == 0 {
            return Ok(());
        }
        let end = held
            + open(&mut session, sealed.get(..count).unwrap_or_default(), input.get_mut(held..).unwrap_or_default())?;
        let answered = answer(input.get(..end).unwrap_or_default(), options.reply_bytes, &mut output)?;
        input.copy_within(answered..end, 0);
        held = end - answered;
        seal(&mut session, &output, &mut sealed_output)?;
        stream.write_all(&sealed_output).await?;
        output.clear();
        sealed_output.clear();
    }
}

/// Opens what was read; returns how many octets of `plain` it came to.
fn open(session: &mut ServerConnection, mut sealed: &[u8], plain: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while !sealed.is_empty() && session.read_tls(&mut sealed)? > 0 {
        let state = session.process_new_packets().map_err(io::Error::other)?;
        if state.plaintext_bytes_to_read() > 0 {
            count += session.reader().read(plain.get_mut(count..).unwrap_or_default())?;
        }
    }
    Ok(count)
}

/// Appends all of `plain`, sealed, behind what the handshake has to say.
fn seal(session: &mut ServerConnection, mut plain: &[u8], sealed: &mut Vec<u8>) -> io::Result<()> {
    loop {
        while session.wants_write() {
            session.write_tls(sealed)?;
        }
        if plain.is_empty() {
            return Ok(());
        }
        let count = session.writer().write(plain)?;
        plain = plain.get(count..).unwrap_or_default();
    }
}

fn tls(certificate: PathBuf, key: PathBuf) -> Result<Arc<ServerConfig>, String> {
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| format!("--certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("--key: {error}"))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = builder
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    config.map(Arc::new).map_err(|error| error.to_string())
}

/// Appends an answer to each whole message in `input`, and returns where the first that is not whole begins.
fn answer(input: &[u8], reply_bytes: usize, output: &mut Vec<u8>) -> io::Result<usize> {
    let mut rest = input;
    while let Some([_, l0, l1, l2, _, code @ .., _, _, _, _, _, _, _, _, _, _, _, _]) = rest.first_chunk::<HEADER>() {
        let length = u32::from_be_bytes([0, *l0, *l1, *l2]) as usize;
        if !(HEADER..=MAX_MESSAGE).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message with an impossible length"));
        }
        let Some((message, after)) = rest.split_at_checked(length) else {
            break;
        };
        let start = output.len();
        if *code == CAPABILITIES_EXCHANGE {
            output.extend_from_slice(message.get(..HEADER).unwrap_or_default());
            output.extend_from_slice(&SUCCESS);
        } else {
            output.extend_from_slice(message.get(..reply_bytes).unwrap_or(message));
            output.resize(start + reply_bytes, 0);
        }
        let size = (output.len() - start) as u32;
        if let Some([version, l0, l1, l2, flags, ..]) = output.get_mut(start..) {
            [*version, *l0, *l1, *l2] = (1 << 24 | size).to_be_bytes();
            *flags = 0;
        }
        rest = after;
    }
    Ok(input.len() - rest.len())
}
