//! Lists from file to answer: what is built from CSV is found again, and a damaged snapshot is refused.

#![allow(clippy::unwrap_used, reason = "clippy's exemption for tests does not reach the functions that tests share")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Cursor;

use eir_core::imei::{Imei, Imsi};
use eir_core::lists::{BuildOptions, BuildReport, FileKind, List, Snapshot, SnapshotBuilder, SnapshotError, Tag};
use proptest::prelude::*;

const OPTIONS: BuildOptions = BuildOptions {
    strict: false,
    max_bad_share: 0.001,
    sequence: 42,
    created_at: 1_750_000_000,
    tac_as_of: 1_740_000_000,
    run_rows: 1_000,
};

/// One small file of every kind.
const FILES: [(FileKind, &str); 6] = [
    (
        FileKind::Devices,
        "imei,list,reason,until\n35209900000001,black,stolen,\n35209900000002,white,,\n35209900999999,grey,,\n\
         35209900999998,grey,,20260501\n86000000000001,black,not-verified,\n",
    ),
    (FileKind::Ranges, "from,to,list,reason\n35209900,35209909,white,import\n35209905,35209905,black,forged\n"),
    (FileKind::AllocatedTacs, "tac,name\n35209900,Phone\n86000000,Other\n"),
    (FileKind::ExemptTacs, "tac\n86000099\n"),
    (FileKind::ExemptImsis, "imsi_from,imsi_to\n0010177,0010178\n"),
    (FileKind::Pairs, "imei,imsi\n35209900000001,001010000000001\n"),
];

fn build<'a>(files: impl IntoIterator<Item = (FileKind, &'a str)>) -> (BuildReport, Vec<u8>) {
    let mut builder = SnapshotBuilder::new(OPTIONS);
    for (kind, text) in files {
        builder.add(kind, "test.csv", text.as_bytes(), &mut |_| {}).unwrap();
    }
    let mut file = Cursor::new(Vec::new());
    let report = builder.finish(&mut file).unwrap();
    let file = file.into_inner();
    assert_eq!(report.bytes, file.len() as u64);
    (report, file)
}

fn open(file: &[u8]) -> Result<Snapshot, SnapshotError> {
    Snapshot::open(Box::new(file.to_vec()))
}

fn imei(key: u64) -> Imei {
    Imei::from_number(key).unwrap()
}

fn imsi(digits: &str) -> Imsi {
    Imsi::from_digits(digits.as_bytes()).unwrap()
}

/// What a tag means, as text.
fn meaning(snapshot: &Snapshot, tag: Option<Tag>) -> Option<String> {
    tag.map(|tag| snapshot.tag_info(tag)).map(|info| format!("{} {}", info.list, info.reason))
}

#[test]
fn a_snapshot_says_what_its_files_said() {
    let (report, file) = build(FILES);
    let snapshot = open(&file).unwrap();
    assert_eq!(snapshot.header().counts, report.counts);
    assert_eq!((snapshot.header().sequence, snapshot.header().tac_as_of), (42, 1_740_000_000));

    let listed = |key| meaning(&snapshot, snapshot.imei(imei(key)));
    assert_eq!(listed(35_209_900_000_001).as_deref(), Some("black stolen"));
    assert_eq!(listed(35_209_900_000_002).as_deref(), Some("white "));
    assert_eq!(listed(35_209_900_999_999).as_deref(), Some("grey "));
    assert_eq!(listed(35_209_900_000_003), None);
    assert_eq!(listed(35_209_900_999_998).as_deref(), Some("grey "));
    let deadlines =
        [35_209_900_999_998, 35_209_900_999_999, 35_209_900_000_001].map(|key| snapshot.deadline(imei(key)));
    // 1 May 2026 ends, in UTC.
    assert_eq!(deadlines, [Some(1_777_680_000), None, None]);
    assert_eq!(snapshot.header().counts.deadlines, 1);
    snapshot.verify().unwrap();

    let ranged = |key| meaning(&snapshot, snapshot.range(imei(key)));
    assert_eq!(ranged(35_209_904_999_999).as_deref(), Some("white import"));
    assert_eq!(ranged(35_209_905_000_000).as_deref(), Some("black forged"));
    assert_eq!(ranged(35_209_906_000_000).as_deref(), Some("white import"));
    assert_eq!(ranged(35_209_910_000_000), None);

    assert_eq!([35_209_900, 35_209_901].map(|tac| snapshot.allocated_tac(tac)), [Some(true), Some(false)]);
    assert_eq!([86_000_099, 86_000_000].map(|tac| snapshot.exempt_tac(tac)), [true, false]);
    let exempt = ["001017700000000", "001017899999999", "001017900000000", "0010177"].map(imsi);
    assert_eq!(exempt.map(|imsi| snapshot.exempt_imsi(imsi)), [true, true, false, true]);
    assert!(snapshot.has_pairs());
    assert!(snapshot.paired(imei(35_209_900_000_001), imsi("001010000000001")));
    assert!(!snapshot.paired(imei(35_209_900_000_001), imsi("001010000000002")));
    assert!(!snapshot.paired(imei(35_209_900_000_002), imsi("001010000000001")));
}

#[test]
fn an_empty_snapshot_says_nothing_of_anyone() {
    let (_, file) = build([]);
    let snapshot = open(&file).unwrap();
    assert_eq!(snapshot.header().tac_as_of, 0);
    assert_eq!(snapshot.imei(imei(1)), None);
    assert_eq!(snapshot.range(imei(1)), None);
    assert_eq!(snapshot.allocated_tac(1), None);
    assert!(!snapshot.exempt_tac(1) && !snapshot.exempt_imsi(imsi("001010")) && !snapshot.has_pairs());
}

#[test]
fn the_same_files_give_the_same_bytes() {
    assert_eq!(build(FILES).1, build(FILES).1);
}

#[test]
fn a_snapshot_cut_or_extended_anywhere_is_refused() {
    let (_, file) = build(FILES);
    for length in 0..file.len() {
        assert!(open(&file[..length]).is_err(), "cut to {length}");
    }
    assert!(open(&[&file[..], &[0]].concat()).is_err());
}

#[test]
fn a_flipped_bit_is_refused_wherever_it_is() {
    let (_, file) = build(FILES);
    for at in 0..file.len() {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(open(&flipped).is_err(), "{at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_listed_is_found_and_nothing_else(
        rows in proptest::collection::vec((0u64..8, 0u64..300, 0u8..3, 0u8..3), 0..300)
    ) {
        let lists = [List::Grey, List::White, List::Black];
        let reasons = ["", "verified", "stolen"];
        let mut text = String::from("imei,list,reason\n");
        // Lists in the order in which they win. Which reason wins within a list is the builder's business.
        let mut model: BTreeMap<u64, u8> = BTreeMap::new();
        for (tac, snr, list, reason) in rows {
            let key = (35_209_900 + tac) * 1_000_000 + snr * 3_333;
            writeln!(text, "{key},{},{}", lists[usize::from(list)], reasons[usize::from(reason)]).unwrap();
            let strongest = model.entry(key).or_insert(list);
            *strongest = list.max(*strongest);
        }
        let (report, file) = build([(FileKind::Devices, &text[..])]);
        let counts = report.counts;
        prop_assert_eq!(counts.white + counts.black + counts.grey, model.len() as u64);
        let snapshot = open(&file).unwrap();
        for key in (0..9).flat_map(|tac| (0..300).map(move |snr| (35_209_900 + tac) * 1_000_000 + snr * 3_333)) {
            for key in [key, key + 1] {
                let found = snapshot.imei(imei(key)).map(|tag| snapshot.tag_info(tag).list);
                prop_assert_eq!(found, model.get(&key).map(|&list| lists[usize::from(list)]));
            }
        }
    }

    #[test]
    fn damage_anywhere_never_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let (_, mut file) = build(FILES);
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Ok(snapshot) = open(&file) {
            let _ = snapshot.imei(imei(35_209_900_000_001));
        }
    }
}
