//! Building: what memory does not hold, dates until which there is access, disks that are full.

#![allow(clippy::unwrap_used, reason = "clippy's exemption for tests does not reach the functions that tests share")]

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use eir_core::imei::Imei;
use eir_core::lists::{BuildError, BuildOptions, BuildReport, List, Runs, Snapshot, SnapshotBuilder, Zone};
use proptest::prelude::*;

/// Runs in memory, for so many octets.
struct Memory {
    octets: Vec<u8>,
    most: usize,
}

impl Runs for Memory {
    fn append(&mut self, octets: &[u8]) -> io::Result<()> {
        if self.octets.len() + octets.len() > self.most {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.octets.extend(octets);
        Ok(())
    }

    fn read_at(&self, octets: &mut [u8], at: u64) -> io::Result<()> {
        self.octets.get(at as usize..).unwrap_or_default().read_exact(octets)
    }
}

/// Files built with so many rows in memory, or all of them.
fn built_by_runs(run_rows: Option<usize>, files: &[String]) -> Result<(BuildReport, Vec<u8>), BuildError> {
    let mut builder = SnapshotBuilder::new(BuildOptions { run_rows: run_rows.unwrap_or(0), ..BuildOptions::default() });
    if run_rows.is_some() {
        builder.put_aside(Box::new(Memory { octets: Vec::new(), most: usize::MAX }));
    }
    for text in files {
        builder.devices("test.csv", text.as_bytes(), &mut |_| {})?;
    }
    let mut out = Cursor::new(Vec::new());
    builder.finish(&mut out).map(|report| (report, out.into_inner()))
}

proptest! {
    #[test]
    fn what_is_put_aside_and_merged_is_what_memory_would_have_held(
        rows in prop::collection::vec((0u64..3, 0u64..9, 0u8..3, 0u8..3, 0u32..4), 0..120),
        files in 1usize..4,
        run_rows in 0usize..20,
    ) {
        let text = |&(tac, snr, list, reason, until): &(u64, u64, u8, u8, u32)| {
            let imei = (35_209_900 + tac) * 1_000_000 + snr;
            let list = List::from_number(list).unwrap();
            let reason = ["", "stolen", "other"][usize::from(reason)];
            let until = if list == List::Grey && until > 0 { format!("202605{until:02}") } else { String::new() };
            format!("{imei},{list},{reason},{until}\n")
        };
        let files: Vec<String> = rows
            .chunks(rows.len().div_ceil(files).max(1))
            .map(|rows| format!("imei,list,reason,until\n{}", rows.iter().map(text).collect::<String>()))
            .collect();
        let (whole, file) = built_by_runs(None, &files).unwrap();
        let (parts, merged) = built_by_runs(Some(run_rows), &files).unwrap();
        prop_assert_eq!(&parts, &whole);
        prop_assert_eq!(merged, file);
    }
}

#[test]
fn of_the_deadlines_of_a_grey_device_the_earliest_stands() {
    let text = "imei,list,reason,until\n35209900000001,grey,,20260503\n35209900000001,grey,,20260501\n\
                35209900000001,grey,,20260502\n35209900000002,grey,,\n35209900000002,grey,seen,20260502\n\
                35209900000003,grey,,20260501\n35209900000003,white,,\n35209900000004,grey,,\n";
    let (report, file) = built_by_runs(None, &[text.to_owned()]).unwrap();
    assert_eq!((report.duplicates, report.contradictions, report.counts.deadlines), (2, 2, 2));
    let snapshot = Snapshot::open(Box::new(file)).unwrap();
    let end = |day| Some(Zone::default().end_of(day));
    let deadlines = [1, 2, 3, 4].map(|snr| snapshot.deadline(Imei::from_number(35_209_900_000_000 + snr).unwrap()));
    assert_eq!(deadlines, [end(20_574), end(20_575), None, None]);
}

#[test]
fn dates_are_meant_in_the_country_also_when_its_clocks_change() {
    // An hour ahead up to 25 October 2026, 01:00 UTC, and then none.
    let zone = Zone::new(vec![(0, 3_600), (1_792_890_000, 0)]).unwrap();
    let mut builder = SnapshotBuilder::new(BuildOptions::default());
    builder.set_zone(zone);
    let rows = "imei,list,reason,until\n35209900000001,grey,,20261023\n35209900000002,grey,,20261024\n\
                35209900000003,grey,,20261025\n";
    builder.devices("test.csv", rows.as_bytes(), &mut |_| ()).unwrap();
    let mut file = Cursor::new(Vec::new());
    builder.finish(&mut file).unwrap();
    let snapshot = Snapshot::open(Box::new(file.into_inner())).unwrap();
    let deadlines = [1, 2, 3].map(|snr| snapshot.deadline(Imei::from_number(35_209_900_000_000 + snr).unwrap()));
    assert_eq!(deadlines, [Some(1_792_796_400), Some(1_792_882_800), Some(1_792_972_800)]);
}

#[test]
fn too_many_different_deadlines_refuse_the_file() {
    let date = |number: u32| format!("{}{:02}{:02}", 1970 + number / 336, number / 28 % 12 + 1, number % 28 + 1);
    let rows = |count| (0..count).map(|number| format!("35209900000001,grey,,{}\n", date(number))).collect::<String>();
    let text = |count| format!("imei,list,reason,until\n{}", rows(count));
    let mut builder = SnapshotBuilder::new(BuildOptions::default());
    builder.devices("a.csv", text(4_096).as_bytes(), &mut |_| ()).unwrap();
    let error = builder.devices("b.csv", text(4_097).as_bytes(), &mut |_| ()).unwrap_err().to_string();
    assert_eq!(error, "b.csv: brings more than 4096 different dates until which there is access");
}

/// A file that takes so many writes, and then is full.
struct Limited {
    file: Cursor<Vec<u8>>,
    writes: usize,
}

impl Write for Limited {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.writes = self.writes.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        // In parts, so that it ends anywhere.
        self.file.write(octets.get(..100).unwrap_or(octets))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Limited {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[test]
fn a_full_disk_is_an_error_wherever_it_comes_and_what_was_written_is_no_snapshot() {
    let rows: String = (1..500).map(|snr| format!("35209900{snr:06},grey,,20260501\n")).collect();
    let text = format!("imei,list,reason,until\n{rows}");
    for writes in 0.. {
        let mut builder = SnapshotBuilder::new(BuildOptions::default());
        builder.devices("test.csv", text.as_bytes(), &mut |_| {}).unwrap();
        let mut out = Limited { file: Cursor::new(Vec::new()), writes };
        match builder.finish(&mut out) {
            Err(BuildError::Write(error)) => assert_eq!(error.kind(), io::ErrorKind::StorageFull),
            Err(error) => panic!("{error}"),
            Ok(_) => {
                assert!(writes > 20);
                Snapshot::open(Box::new(out.file.into_inner())).unwrap().verify().unwrap();
                break;
            }
        }
        assert!(Snapshot::open(Box::new(out.file.into_inner())).is_err());
    }
}

#[test]
fn a_full_place_for_what_memory_does_not_hold_refuses_the_file() {
    let mut builder = SnapshotBuilder::new(BuildOptions { run_rows: 2, ..BuildOptions::default() });
    builder.put_aside(Box::new(Memory { octets: Vec::new(), most: 20 }));
    let rows = b"imei,list,reason\n35209900000001,white,\n35209900000002,white,\n35209900000003,white,\n\
                 35209900000004,white,\n35209900000005,white,\n";
    let error = builder.devices("test.csv", &rows[..], &mut |_| ()).unwrap_err().to_string();
    assert!(error.starts_with("test.csv: its rows cannot be put aside while the snapshot is built: "), "{error}");
    assert!(matches!(builder.finish(&mut Cursor::new(Vec::new())), Err(BuildError::Incomplete)));
}
