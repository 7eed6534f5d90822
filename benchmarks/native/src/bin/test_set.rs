//! Writes a set of IMEIs as large as a country's.
//!
//! `test_set --shape uniform|clustered --imeis N [--tacs N] [--seed N] [--section FILE] [--csv FILE [--shuffled]]`: as
//! the IMEI section of a snapshot, or as a list file of the node's own format, or both. Shuffled, the TACs come in any
//! order, and the rows of 256 TACs at a time among each other. Prints one JSON line with the section's bytes and the
//! set's entropy in bytes.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Instant;

use eir_bench::arguments::Arguments;
use eir_bench::test_sets::{Entropy, Listed, Random, TestSet};
use eir_core::lists::Tag;
use eir_core::lists::imei_set::Writer;
use eir_node::snapshot_file;

/// TACs whose rows are mixed.
const MIXED: usize = 256;

/// What to write.
struct Wanted {
    set: TestSet,
    section: Option<PathBuf>,
    csv: Option<PathBuf>,
    shuffled: bool,
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
        let (section, csv) = (given.get("section")?, given.get("csv")?);
        let wanted = Self { set, section, csv, shuffled: given.switch("shuffled")? };
        given.finish()?;
        Ok(wanted)
    }
}

fn create(path: &PathBuf) -> BufWriter<File> {
    BufWriter::with_capacity(1 << 20, File::create(path).expect("a file to write to"))
}

fn write_section(set: &TestSet, path: &PathBuf) -> (u64, Entropy) {
    let mut writer = Writer::new(create(path));
    let mut entropy = Entropy::default();
    for tac in 0..set.tacs() {
        let entries = set.of_tac(tac);
        entropy.add(&entries);
        for (imei, list) in entries {
            writer.push(imei, Tag::reserved(list)).expect("a written IMEI");
        }
    }
    let mut out = writer.finish().expect("a written section");
    out.flush().expect("a written section");
    snapshot_file::settle(out.get_ref()).expect("a settled section");
    (out.get_ref().metadata().expect("a file").len(), entropy)
}

fn write_csv(set: &TestSet, path: &PathBuf, shuffled: bool) {
    let mut out = create(path);
    let mut random = Random::new(!set.seed);
    let mut tacs: Vec<u64> = (0..set.tacs()).collect();
    if shuffled {
        random.shuffle(&mut tacs);
    }
    writeln!(out, "imei,list,reason").expect("a written row");
    for some in tacs.chunks(MIXED) {
        let mut rows: Vec<Listed> = some.iter().flat_map(|&tac| set.of_tac(tac)).collect();
        if shuffled {
            random.shuffle(&mut rows);
        }
        for (imei, list) in rows {
            writeln!(out, "{imei},{list},").expect("a written row");
        }
    }
    out.flush().expect("a written file");
}

fn main() {
    let Wanted { set, section, csv, shuffled } = Wanted::of_process().unwrap_or_else(|fault| panic!("{fault}"));
    if let Some(path) = csv {
        write_csv(&set, &path, shuffled);
    }
    let Some(path) = section else { return };
    let begin = Instant::now();
    let (bytes, entropy) = write_section(&set, &path);
    let entropy = entropy.bytes();
    println!(
        "{{\"bytes\": {bytes}, \"bytes_per_imei\": {:.4}, \"entropy_bytes\": {entropy:.0}, \"vs_entropy\": {:.4}, \
         \"write_s\": {:.2}}}",
        bytes as f64 / set.imeis as f64,
        bytes as f64 / entropy,
        begin.elapsed().as_secs_f64()
    );
}
