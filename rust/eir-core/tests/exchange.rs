//! Snapshots written out and read again: as list files, and as the delta from one to another.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use eir_core::imei::{Imei, Imsi};
use eir_core::lists::{
    BuildOptions, Comparison, DeltaKind, DeltaReader, Deltas, ExportKind, FileKind, List, Snapshot, SnapshotBuilder,
    Zone, compare, export, write_delta,
};
use proptest::prelude::*;

/// Moves its clocks over midnight.
fn zone() -> Zone {
    Zone::new(vec![(0, 6 * 3600), (1_709_229_600, 5 * 3600)]).unwrap()
}

fn built(files: &[(&str, String)]) -> Snapshot {
    let options = BuildOptions { tac_as_of: 1, created_at: 1_780_000_000, strict: true, ..BuildOptions::default() };
    let mut builder = SnapshotBuilder::new(options);
    builder.set_zone(zone());
    for (kind, text) in files {
        builder.add(FileKind::of_snapshot(kind).unwrap(), kind, text.as_bytes(), &mut |_| {}).unwrap();
    }
    let mut out = Cursor::new(Vec::new());
    builder.finish(&mut out).unwrap();
    let snapshot = Snapshot::open(Box::new(out.into_inner())).unwrap();
    snapshot.verify().unwrap();
    snapshot
}

fn exported(snapshot: &Snapshot, kind: &str) -> String {
    let mut out = Vec::new();
    let rows = export(snapshot, ExportKind::from_name(kind).unwrap(), &zone(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().count() as u64, rows + u64::from(!kind.starts_with("plain")));
    text
}

/// Lists with something of every kind.
fn example() -> Snapshot {
    let devices = "imei,list,reason,until\n35209900000002,black,stolen,\n35209900000001,white,,\n\
                   35209900000003,grey,dup,20260501\n35209900000004,grey,,\n";
    built(&[
        ("devices", devices.to_owned()),
        ("ranges", "from,to,list,reason\n35209900,35209901,black,x\n35209900000500,35209900000600,white,\n".to_owned()),
        ("allocated-tacs", "tac\n00100000\n35209900\n".to_owned()),
        ("exempt-tacs", "tac\n86000099\n".to_owned()),
        ("exempt-imsis", "imsi_from,imsi_to\n00101,00102\n".to_owned()),
        ("pairs", "imei,imsi\n35209900000002,00101000000001\n".to_owned()),
    ])
}

#[test]
fn each_kind_is_written_as_it_is_documented() {
    let snapshot = example();
    for (kind, text) in [
        (
            "devices",
            "imei,list,reason,until\n35209900000001,white,,\n35209900000002,black,stolen,\n\
             35209900000003,grey,dup,20260501\n35209900000004,grey,,\n",
        ),
        (
            "ranges",
            "from,to,list,reason\n35209900000000,35209900000499,black,x\n35209900000500,35209900000600,white,\n\
             35209900000601,35209901999999,black,x\n",
        ),
        ("allocated-tacs", "tac\n00100000\n35209900\n"),
        ("exempt-tacs", "tac\n86000099\n"),
        ("exempt-imsis", "imsi_from,imsi_to\n001010000000000,001029999999999\n"),
        ("pairs", "imei,imsi\n35209900000002,00101000000001\n"),
        ("plain-white", "35209900000001\n"),
        ("plain-black", "35209900000002\n"),
        ("plain-grey", "35209900000003\n35209900000004\n"),
        // The day of the snapshot.
        ("dirbs-blacklist", "imei,block_date,reasons\n35209900000002,20260529,stolen\n"),
        ("dirbs-exceptions", "imei,imsi,msisdn\n35209900000002,00101000000001,\n"),
        ("dirbs-notifications", "imei,imsi,msisdn,block_date,reasons\n35209900000003,,,20260501,dup\n"),
    ] {
        assert_eq!(exported(&snapshot, kind), text, "{kind}");
    }
    assert_eq!(ExportKind::from_name("everything"), None);
}

#[test]
fn what_is_exported_builds_the_same_lists() {
    let snapshot = example();
    let own = ["devices", "ranges", "allocated-tacs", "exempt-tacs", "exempt-imsis", "pairs"];
    let again = built(&own.map(|kind| (kind, exported(&snapshot, kind))));
    assert_eq!(again.header().counts, snapshot.header().counts);
    let same = compare(&snapshot, &again);
    assert!(same.others.is_empty() && same.changed + same.pairs_come + same.pairs_gone == 0, "{same:?}");
    let dirbs = ["dirbs-blacklist", "dirbs-notifications", "dirbs-exceptions"];
    let again = built(&dirbs.map(|kind| (kind, exported(&snapshot, kind))));
    let moved: Vec<_> = compare(&snapshot, &again).moved().collect();
    let [white, black, grey] = [List::White, List::Black, List::Grey].map(Some);
    assert_eq!(moved, [(white, None, 1), (black, black, 1), (grey, grey, 1), (grey, None, 1)]);
}

#[test]
fn a_comparison_tells_what_a_delta_does_not_bring() {
    let found = compare(&example(), &built(&[]));
    assert_eq!(found.others, ["ranges", "exempt_tacs", "allocated_tacs", "exempt_imsis"]);
    assert_eq!((found.changed, found.pairs_gone, found.pairs_come), (0, 1, 0));
    assert_eq!(found.moved().map(|(_, to, count)| (to, count)).collect::<Vec<_>>(), [(None, 1), (None, 1), (None, 2)]);
    let same = compare(&example(), &example());
    assert_eq!(same.moved().filter(|(from, to, _)| from != to).count(), 0);
    assert_eq!(compare(&built(&[]), &built(&[])), Comparison::default());
}

type Devices = BTreeMap<u64, (usize, usize, usize)>;
type Pairs = BTreeSet<(u64, u64)>;

fn devices() -> impl Strategy<Value = Devices> {
    let key = (0u64..3, 0u64..40).prop_map(|(tac, snr)| 35_209_900_000_001 + tac * 1_000_000 + snr);
    proptest::collection::btree_map(key, (0..3usize, 0..3usize, 0..4usize), 0..60)
}

fn pairs() -> impl Strategy<Value = Pairs> {
    proptest::collection::btree_set((0u64..10, 0u64..5), 0..20)
}

fn snapshot_of(devices: &Devices, pairs: &Pairs) -> Snapshot {
    let mut text = "imei,list,reason,until\n".to_owned();
    for (key, &(list, reason, until)) in devices {
        let until = if list == 2 { ["", "20240229", "20240301", "21060205"][until] } else { "" };
        let [list, reason] = [["white", "black", "grey"][list], ["", "stolen", "dup"][reason]];
        text += &format!("{key},{list},{reason},{until}\n");
    }
    let mut of_pairs = "imei,imsi\n".to_owned();
    for (device, subscriber) in pairs {
        of_pairs += &format!("{},00101{subscriber:09}\n", 35_209_900_000_001 + device);
    }
    built(&[("devices", text), ("pairs", of_pairs)])
}

/// A file of the delta from one snapshot to another, and its rows.
fn delta_file(old: &Snapshot, new: &Snapshot, kind: &str) -> (Vec<u8>, u64) {
    let mut file = Vec::new();
    let rows = write_delta(old, new, DeltaKind::from_name(kind).unwrap(), &zone(), &mut file).unwrap();
    (file, rows)
}

/// What a delta's files bring above a snapshot.
fn above(files: &[(&str, Vec<u8>)]) -> Deltas {
    let mut reader = DeltaReader::new(zone(), 0.0, u64::MAX);
    for (kind, file) in files {
        reader.add(FileKind::of_delta(kind).unwrap(), kind, &file[..]).unwrap();
    }
    let delta = reader.finish().unwrap();
    Deltas::above(1, 1).apply(&delta.devices, &delta.pairs, 2, 2).unwrap()
}

fn listed(snapshot: &Snapshot, imei: Imei) -> Option<(List, String, Option<u32>)> {
    let said = snapshot.said(imei, snapshot.imei(imei)?);
    Some((said.list, said.reason.to_owned(), said.until))
}

fn listed_above(deltas: &Deltas, snapshot: &Snapshot, imei: Imei) -> Option<(List, String, Option<u32>)> {
    match deltas.get(imei) {
        Some(said) => said.map(|entry| (entry.list, entry.reason.to_string(), entry.until)),
        None => listed(snapshot, imei),
    }
}

proptest! {
    #[test]
    fn a_delta_leads_from_the_one_to_the_other(
        (old_devices, new_devices) in (devices(), devices()),
        (old_pairs, new_pairs) in (pairs(), pairs()),
    ) {
        let (old, new) = (snapshot_of(&old_devices, &old_pairs), snapshot_of(&new_devices, &new_pairs));
        let (devices, changed) = delta_file(&old, &new, "devices");
        let (pairs, pairs_changed) = delta_file(&old, &new, "pairs");
        let found = compare(&old, &new);
        let moved: u64 = found.moved().filter(|(from, to, _)| from != to).map(|(_, _, count)| count).sum();
        prop_assert_eq!(changed, moved + found.changed);
        prop_assert_eq!(pairs_changed, found.pairs_come + found.pairs_gone);

        let above = above(&[("devices", devices), ("pairs", pairs)]);
        for &key in old_devices.keys().chain(new_devices.keys()) {
            let imei = Imei::from_number(key).unwrap();
            prop_assert_eq!(listed_above(&above, &old, imei), listed(&new, imei));
        }
        prop_assert_eq!(above.counts(&old), Deltas::above(1, 1).counts(&new));
        for (device, subscriber) in (0..10).flat_map(|device| (0..5).map(move |subscriber| (device, subscriber))) {
            let imei = Imei::from_number(35_209_900_000_001 + device).unwrap();
            let imsi = Imsi::from_digits(format!("00101{subscriber:09}").as_bytes()).unwrap();
            let now = above.paired(imei, imsi).unwrap_or(old.paired(imei, imsi));
            prop_assert_eq!(now, new.paired(imei, imsi));
        }

        let again = built(&["devices", "pairs"].map(|kind| (kind, exported(&new, kind))));
        let same = compare(&new, &again);
        prop_assert!(same.moved().all(|(from, to, _)| from == to));
        prop_assert_eq!((same.changed, same.pairs_come, same.pairs_gone), (0, 0, 0));
    }

    #[test]
    fn a_delta_of_dirbs_leads_to_what_dirbs_says(
        (old_devices, new_devices) in (devices(), devices()),
        (old_pairs, new_pairs) in (pairs(), pairs()),
    ) {
        let (old, new) = (snapshot_of(&old_devices, &old_pairs), snapshot_of(&new_devices, &new_pairs));
        let files = ["dirbs-blacklist", "dirbs-notifications", "dirbs-exceptions"]
            .map(|kind| (kind, delta_file(&old, &new, kind).0));
        let above = above(&files);
        // DIRBS says whom it blocks and will block; of those it has let go, nothing more.
        let of_dirbs = |listed: &(List, String, Option<u32>)| listed.0 == List::Black || listed.2.is_some();
        for &key in old_devices.keys().chain(new_devices.keys()) {
            let imei = Imei::from_number(key).unwrap();
            let now = listed_above(&above, &old, imei);
            prop_assert_eq!(now.filter(of_dirbs), listed(&new, imei).filter(of_dirbs));
        }
        for (imei, imsi) in old.pairs().chain(new.pairs()) {
            prop_assert_eq!(above.paired(imei, imsi).unwrap_or(old.paired(imei, imsi)), new.paired(imei, imsi));
        }
    }
}
