//! The load generator without Python; prints its report as one line of JSON.
//!
//! `load --target 127.0.0.1:3868 [--connections 1] [--window 256 | --rate R [--max-outstanding 65536]] [--seconds 10]
//! [--warm-up 1] [--first-imei N] [--imeis 1000000] [--walk] [--imei-file FILE] [--imsis 1000000] [--imei-digits 15] [--busy-poll]
//! [--read-chunk 16384] [--seed 1] [--cpu N] [--full] [--origin-prefix load] [--announce]
//! [--tls 1.2|1.3 [--ca FILE] [--certificate FILE --key FILE] [--server-name NAME]]`
//!
//! With `--announce` it prints `open` as soon as all connections are, on a line of its own before the report.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use eir_bench::arguments::Arguments;
use eir_bench::processor;
use eir_node::load::{
    self, ClientTls, ImeiDigits, ImeiSource, ImsiPick, ImsiSource, LoadMode, LoadPlan, LoadReport, TlsFiles, TlsVersion,
};

/// Reporting Body Identifier 00, of test devices (GSMA TS.06), so that no real device is asked about by accident.
const FIRST_IMEI: u64 = 100_000_000_000;
/// Test network 001-01.
const FIRST_IMSI: u64 = 1_010_000_000_000;

fn main() -> ExitCode {
    match plan().and_then(|(plan, announce)| run(&plan, announce)) {
        Ok(report) => {
            println!("{}", json(&report));
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("load: {what}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &LoadPlan, announce: bool) -> Result<LoadReport, String> {
    let connected = load::connect(plan).map_err(|error| error.to_string())?;
    if announce {
        println!("open");
    }
    connected.run(&AtomicBool::new(false)).map_err(|error| error.to_string())
}

/// The plan, and whether it is to be told when all connections are open.
fn plan() -> Result<(LoadPlan, bool), String> {
    let mut given = Arguments::of_process()?;
    let mode = match (given.get("rate")?, given.get("window")?) {
        (Some(rate), None) => {
            LoadMode::Open { rate, max_outstanding: given.get("max-outstanding")?.unwrap_or(load::MAX_WINDOW) }
        }
        (None, window) => LoadMode::Closed { window: window.unwrap_or(256) },
        (Some(_), Some(_)) => return Err("--rate and --window are one or the other".to_owned()),
    };
    let first: u64 = given.get("first-imei")?.unwrap_or(FIRST_IMEI);
    let range = first..first.saturating_add(given.get("imeis")?.unwrap_or(1_000_000));
    let listed = given.get::<String>("imei-file")?.map(|file| read_imeis(&file)).transpose()?;
    let walk = given.switch("walk")?;
    let imeis = match listed {
        Some(imeis) => ImeiSource::Listed(imeis.into()),
        None if walk => ImeiSource::Walk(range),
        None => ImeiSource::Random(range),
    };
    let target = given.get("target")?.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 3868)));

    let mut plan = LoadPlan::new(target, mode, imeis);
    plan.connections = given.get("connections")?.unwrap_or(1);
    plan.duration = seconds(&mut given, "seconds")?.unwrap_or(plan.duration);
    plan.warm_up = seconds(&mut given, "warm-up")?.unwrap_or(Duration::from_secs(1));
    plan.imsis = match given.get("imsis")?.unwrap_or(1_000_000) {
        0 => None,
        count => Some(ImsiSource { base: FIRST_IMSI, count, pick: ImsiPick::PerDevice }),
    };
    plan.imei_digits = match given.get("imei-digits")?.unwrap_or(15) {
        14 => ImeiDigits::Fourteen,
        15 => ImeiDigits::Fifteen,
        _ => return Err("--imei-digits is 14 or 15".to_owned()),
    };
    plan.busy_poll = given.switch("busy-poll")?;
    plan.read_chunk = given.get("read-chunk")?.unwrap_or(plan.read_chunk);
    plan.seed = given.get("seed")?.unwrap_or(plan.seed);
    plan.full = given.switch("full")?;
    plan.origin_prefix = given.get("origin-prefix")?.unwrap_or(plan.origin_prefix);
    plan.tls = tls(&mut given)?;
    let announce = given.switch("announce")?;
    if let Some(processor) = given.get("cpu")? {
        processor::pin(processor).map_err(|error| format!("--cpu {processor}: {error}"))?;
    }
    given.finish()?;
    Ok((plan, announce))
}

fn tls(given: &mut Arguments) -> Result<Option<ClientTls>, String> {
    let version = match given.get::<String>("tls")?.as_deref() {
        None => return Ok(None),
        Some("1.2") => TlsVersion::V12,
        Some("1.3") => TlsVersion::V13,
        Some(_) => return Err("--tls is 1.2 or 1.3".to_owned()),
    };
    let files = TlsFiles {
        ca: given.get("ca")?,
        certificate: given.get("certificate")?,
        key: given.get("key")?,
        server_name: given.get("server-name")?,
        version: Some(version),
    };
    ClientTls::new(&files).map(Some).map_err(|error| error.to_string())
}

/// One IMEI of 14 digits a line.
fn read_imeis(file: &str) -> Result<Vec<u64>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    text.lines().map(|line| line.parse().map_err(|_| format!("{file}: {line:?} is no IMEI"))).collect()
}

fn seconds(given: &mut Arguments, name: &str) -> Result<Option<Duration>, String> {
    let time = given.get(name)?.map(Duration::try_from_secs_f64);
    time.transpose().map_err(|error| format!("--{name}: {error}"))
}

fn json(report: &LoadReport) -> String {
    let errors: Vec<String> = report.errors.iter().map(|(code, count)| format!("\"{code}\": {count}")).collect();
    let latency = &report.latency;
    // `{:?}` of a string escapes as JSON does for the plain text that a loss is told in.
    let loss = report.first_loss.as_ref().map_or("null".to_owned(), |why| format!("{why:?}"));
    format!(
        "{{\"rate\": {:.0}, \"share_answered\": {}, \"elapsed_s\": {:.3}, \"sent\": {}, \"answered\": {}, \"white\": {}, \"black\": {}, \
         \"grey\": {}, \"no_status\": {}, \"errors\": {{{}}}, \"lost\": {}, \"unsent\": {}, \"unmatched\": {}, \
         \"connections_lost\": {}, \"first_loss\": {loss}, \"latency_ns\": {{\"mean\": {:.0}, \"p50\": {}, \
         \"p90\": {}, \"p99\": {}, \"p99.9\": {}, \"max\": {}}}}}",
        report.rate,
        report.share_answered(),
        report.elapsed.as_secs_f64(),
        report.sent,
        report.answered,
        report.white,
        report.black,
        report.grey,
        report.no_status,
        errors.join(", "),
        report.lost,
        report.unsent,
        report.unmatched,
        report.connections_lost,
        latency.mean,
        latency.p50,
        latency.p90,
        latency.p99,
        latency.p999,
        latency.max,
    )
}
