//! Looking IMEIs up in a mapped section that `test_set` has written.
//!
//! `lookup --section FILE --shape uniform|clustered --imeis N [--tacs N] [--seed N] [--probes N]`, of the same set:
//! prints one JSON line. `start_s` is from before the file is mapped to after the first answer. Then the section is
//! checked, which also brings it into memory; then walked; then asked in random order, one IMEI after the other, every
//! other one not listed but of a TAC that is. Reading the clock costs a good part of a look-up's time, so times are
//! taken over groups of eight and divided. Three kinds of groups take turns: `lookup_ns_p50`, look-ups alone;
//! `grouped_ns_p50`, asked for in advance as a node does for requests that came together; `memory_ns_p50`, no look-ups
//! but one byte of the section at random, each read waiting for the one before: what this machine takes for a cache
//! miss, which no look-up can be without.

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use eir_bench::arguments::Arguments;
use eir_bench::test_sets::{Random, TestSet};
use eir_core::imei::{Imei, SNRS_PER_TAC};
use eir_core::lists::imei_set::ImeiSet;
use eir_node::snapshot_file;

/// Look-ups timed together.
const GROUP: usize = 8;

/// What to look up and where.
struct Wanted {
    set: TestSet,
    section: PathBuf,
    probes: u64,
}

impl Wanted {
    fn of_process() -> Result<Self, String> {
        let mut given = Arguments::of_process()?;
        let set = TestSet {
            shape: given.get("shape")?.ok_or("which --shape?")?,
            imeis: given.get("imeis")?.ok_or("how many --imeis?")?,
            tacs: given.get("tacs")?.unwrap_or(20_000),
            seed: given.get("seed")?.unwrap_or(1),
        };
        let section = given.get("section")?.ok_or("which --section?")?;
        let wanted = Self { set, section, probes: given.get("probes")?.unwrap_or(2_000_000) };
        given.finish()?;
        Ok(wanted)
    }
}

/// As many IMEIs of every TAC that are listed as of those that are not, in random order.
fn draw(set: &TestSet, count: u64) -> Vec<Imei> {
    let mut random = Random::new(set.seed + 1);
    let of_tac = (count / 2 / set.tacs()).max(1);
    let mut probes = Vec::new();
    for tac in 0..set.tacs() {
        let listed = set.of_tac(tac);
        for _ in 0..of_tac {
            probes.push(listed[random.below(listed.len() as u64) as usize].0);
        }
        let mut left = of_tac;
        while left > 0 {
            let imei = set.imei(tac, random.below(SNRS_PER_TAC));
            if listed.binary_search_by_key(&imei, |entry| entry.0).is_err() {
                probes.push(imei);
                left -= 1;
            }
        }
    }
    random.shuffle(&mut probes);
    probes
}

/// The time that so great a share of look-ups stays below.
fn at(times: &mut [f64], share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * share) as usize]
}

fn main() {
    let Wanted { set, section: path, probes: count } = Wanted::of_process().unwrap_or_else(|fault| panic!("{fault}"));
    let probes = draw(&set, count);

    let begin = Instant::now();
    let file = File::open(path).expect("a section");
    let section = snapshot_file::map(&file).expect("a mapped section");
    let imeis = ImeiSet::open(&section).expect("a section");
    std::hint::black_box(imeis.get(&section, probes[0]));
    let start = begin.elapsed();
    assert_eq!(imeis.len(), set.imeis);

    let begin = Instant::now();
    imeis.check(&section).expect("a sound section");
    let check = begin.elapsed();
    let begin = Instant::now();
    assert_eq!(imeis.iter(&section).count() as u64, set.imeis);
    let walk = begin.elapsed();

    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let mut random = Random::new(set.seed + 2);
    let (mut found, mut asked, mut after) = (0, 0, 0);
    for group in probes.chunks_exact(2 * GROUP) {
        for (half, times) in group.chunks_exact(GROUP).zip(&mut times) {
            let begin = Instant::now();
            if asked % (2 * GROUP) != 0 {
                half.iter().for_each(|&imei| imeis.warm_index(&section, imei));
                half.iter().for_each(|&imei| imeis.warm_entries(&section, imei));
            }
            found += half.iter().filter(|&&imei| imeis.get(&section, imei).is_some()).count();
            times.push(begin.elapsed().as_nanos() as f64 / GROUP as f64);
            asked += GROUP;
        }
        let begin = Instant::now();
        for _ in 0..GROUP {
            // Always the next place; only the processor does not know.
            let place = random.below(section.len() as u64 - 1) as usize + after;
            after = std::hint::black_box(usize::from(section[place])) >> 8;
        }
        times[2].push(begin.elapsed().as_nanos() as f64 / GROUP as f64);
    }
    let [mut single, mut grouped, mut memory] = times;
    assert!(found.abs_diff(asked / 2) <= 2 * GROUP, "{found} of {asked} found");
    println!(
        "{{\"lookup_ns_p50\": {:.1}, \"lookup_ns_p99\": {:.1}, \"grouped_ns_p50\": {:.1}, \"memory_ns_p50\": {:.1}, \
         \"start_s\": {:.4}, \"check_s\": {:.2}, \"walked_per_s\": {:.0}}}",
        at(&mut single, 0.5),
        at(&mut single, 0.99),
        at(&mut grouped, 0.5),
        at(&mut memory, 0.5),
        start.as_secs_f64(),
        check.as_secs_f64(),
        set.imeis as f64 / walk.as_secs_f64()
    );
}
