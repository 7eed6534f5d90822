//! Builds the lists that the benchmarks ask about, from CSV as an operator would.
//!
//! `lists SNAPSHOT SAMPLE COUNT TACS SEQUENCE`: writes the snapshot, and to SAMPLE a million of its listed devices in
//! random order, one IMEI a line; prints one JSON line, with the memory that building took.

use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use eir_bench::lists::{Devices, mix};
use eir_core::lists::{BuildOptions, SnapshotBuilder};
use eir_node::snapshot_file;

const SAMPLE: u64 = 1_000_000;

/// Every device as a row of CSV.
struct Rows {
    devices: Devices,
    next: u64,
    ready: Vec<u8>,
    given: usize,
}

impl Read for Rows {
    fn read(&mut self, place: &mut [u8]) -> std::io::Result<usize> {
        if self.given == self.ready.len() {
            self.ready.clear();
            self.given = 0;
            for number in self.next..(self.next + 4096).min(self.devices.count) {
                let imei = self.devices.device(number);
                writeln!(self.ready, "{imei},{},", self.devices.list(number))?;
                self.next = number + 1;
            }
        }
        let count = place.len().min(self.ready.len() - self.given);
        place[..count].copy_from_slice(&self.ready[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}

/// The most memory that this process has had, in MB.
fn peak_rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak of its memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024 / 1_000_000
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [snapshot, sample, count, tacs, sequence] = arguments.as_slice() else {
        panic!("lists SNAPSHOT SAMPLE COUNT TACS SEQUENCE");
    };
    let number = |text: &String| text.parse().expect("a number");
    let devices = Devices { count: number(count), tacs: number(tacs) };
    let created_at = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as u32;
    let begin = Instant::now();
    let options = BuildOptions { sequence: number(sequence), created_at, ..BuildOptions::default() };
    let mut builder = SnapshotBuilder::new(options);
    let rows = Rows { devices, next: 0, ready: b"imei,list,reason\n".to_vec(), given: 0 };
    let snapshot = Path::new(snapshot);
    builder.put_aside(snapshot_file::aside(snapshot.parent().expect("a directory")));
    builder.devices("generated", rows, &mut |_| ()).expect("rows in order");
    let report = snapshot_file::write(builder, snapshot).expect("a written snapshot");
    let (seconds, rss) = (begin.elapsed().as_secs_f64(), peak_rss_mb());
    let mut out = BufWriter::new(std::fs::File::create(sample).expect("a sample file"));
    for draw in 0..SAMPLE {
        writeln!(out, "{}", devices.device(mix(draw) % devices.count)).expect("a written sample");
    }
    out.flush().expect("a written sample");
    let per_imei = report.bytes as f64 / devices.count as f64;
    let bytes = report.bytes;
    println!(
        "{{\"snapshot_bytes_per_imei\": {per_imei:.4}, \"bytes\": {bytes}, \"build_s\": {seconds:.2}, \
         \"build_peak_rss_mb\": {rss}}}"
    );
}
