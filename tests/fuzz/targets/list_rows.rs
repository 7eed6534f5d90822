//! Any text as list files: read or refused, and what was read is found in the snapshot that is built of it.
//!
//! An input is files, one after the other, parted by 0xFF: the first octet is the kind and whether the right header is
//! put before the rest.

#![no_main]

use std::io::{self, Cursor};

use eir_core::imei::Imei;
use eir_core::lists::{BuildOptions, BuildReport, FileKind, Runs, Snapshot, SnapshotBuilder, parse_reason};
use libfuzzer_sys::fuzz_target;

const KINDS: [FileKind; 6] = [
    FileKind::Devices,
    FileKind::Ranges,
    FileKind::AllocatedTacs,
    FileKind::ExemptTacs,
    FileKind::ExemptImsis,
    FileKind::Pairs,
];

/// A file of an input, with the octet that says what it is.
fn file(part: &[u8]) -> Option<(FileKind, Vec<u8>)> {
    let (&first, text) = part.split_first()?;
    let kind = KINDS[usize::from(first & 0x0F) % KINDS.len()];
    let header = if first & 0x80 == 0 { kind.columns().join(",") + "\n" } else { String::new() };
    Some((kind, [header.as_bytes(), text].concat()))
}

/// What a build puts aside.
struct Aside(Vec<u8>);

impl Runs for Aside {
    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        self.0.extend(octets);
        Ok(())
    }

    fn read_at(&self, octets: &mut [u8], at: u64) -> io::Result<()> {
        let at = at as usize;
        octets.copy_from_slice(&self.0[at..at + octets.len()]);
        Ok(())
    }
}

/// The snapshot of those files that are not refused; with `run_rows` no more devices than that are held in memory.
fn build(files: &[(FileKind, Vec<u8>)], max_bad_share: f64, run_rows: usize) -> Option<(BuildReport, Vec<u8>)> {
    let options = BuildOptions { max_bad_share, created_at: 1, tac_as_of: 1, run_rows, ..BuildOptions::default() };
    let mut builder = SnapshotBuilder::new(options);
    if run_rows > 0 {
        builder.put_aside(Box::new(Aside(Vec::new())));
    }
    for (kind, text) in files {
        builder.add(*kind, "input", &text[..], &mut |_| {}).ok()?;
    }
    let mut out = Cursor::new(Vec::new());
    let report = builder.finish(&mut out).ok()?;
    assert_eq!(report.bytes, out.get_ref().len() as u64);
    Some((report, out.into_inner()))
}

/// Devices that a plain reading of the text finds: lines of three values, where nothing is quoted or a comment.
fn devices(text: &[u8]) -> Vec<Imei> {
    if text.iter().any(|octet| b"\"#\r".contains(octet)) || !text.starts_with(b"imei,list,reason\n") {
        return Vec::new();
    }
    let device = |line: &[u8]| match line.split(|octet| *octet == b',').collect::<Vec<_>>()[..] {
        [imei, list, reason] => {
            let imei = Imei::from_digits(imei.trim_ascii()).ok()?;
            let known =
                ["white", "black", "grey"].iter().any(|name| list.trim_ascii().eq_ignore_ascii_case(name.as_bytes()));
            (known && parse_reason(reason).is_some()).then_some(imei)
        }
        _ => None,
    };
    text.split(|octet| *octet == b'\n').filter_map(device).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let files: Vec<_> = bytes.split(|octet| *octet == 0xFF).filter_map(file).collect();
    let _ = build(&files, 0.001, 0);
    let Some((report, first)) = build(&files, 1.0, 0) else { return };
    let (merged, second) = build(&files, 1.0, 3).unwrap();
    assert_eq!(report, merged);
    assert_eq!(first, second, "the same files give the same bytes");

    let snapshot = Snapshot::open(Box::new(first)).unwrap();
    snapshot.verify().unwrap();
    assert_eq!(snapshot.header().counts, report.counts);
    let mut listed = 0;
    for (kind, text) in &files {
        if *kind == FileKind::Devices {
            let found = devices(text);
            listed += found.len() as u64;
            assert!(found.iter().all(|imei| snapshot.imei(*imei).is_some()));
        }
    }
    let rows: u64 = report.files.0.iter().filter(|file| file.kind == FileKind::Devices).map(|file| file.rows).sum();
    assert!(listed <= rows);
});
