//! What running timers take in the data plane's memory.
//!
//! `timers COUNT`: starts COUNT timers of devices that lie anywhere, each with a subscriber that is seen, and prints one
//! JSON line with the resident octets that a timer takes, by the process's own size, and those that the tables count.

use eir_bench::lists::mix;
use eir_core::grey::{GreyTable, Timer};
use eir_core::imei::{Imei, Imsi};

/// Resident octets of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc");
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}

fn main() {
    let count: u64 = std::env::args().nth(1).and_then(|count| count.parse().ok()).expect("timers COUNT");
    let grey = GreyTable::default();
    let before = resident();
    for number in 0..count {
        let imei = Imei::from_number(10_000_000_000_000 + mix(number) % 80_000_000_000_000).expect("14 digits");
        let imsi =
            Imsi::from_digits(format!("00101{:010}", mix(!number) % 10_000_000_000).as_bytes()).expect("15 digits");
        let start = 1_795_000_000 + (number % 2_592_000) as u32;
        grey.see(imei, start, imsi, || Some(0));
        grey.start(imei, Timer { start, deadline: start / 86_400 * 86_400 + 31 * 86_400 }, || Some(number));
    }
    let taken = resident() - before;
    let per_timer = taken as f64 / grey.len() as f64;
    println!(
        "{{\"timers\": {}, \"bytes_per_timer\": {per_timer:.1}, \"table_bytes_per_timer\": {:.1}}}",
        grey.len(),
        grey.bytes() as f64 / grey.len() as f64
    );
}
