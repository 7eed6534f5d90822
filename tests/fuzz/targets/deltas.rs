//! Deltas one after the other above a snapshot answer as a snapshot of the full list does.
//!
//! An input is changes of four octets: what it is and where a delta or the snapshot ends, the device, the list with its
//! reason, the day.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io::Cursor;

use eir_core::grey::GreyTable;
use eir_core::imei::{Imei, Imsi};
use eir_core::lists::{BuildOptions, DeltaReader, Deltas, FileKind, Overlay, Snapshot, SnapshotBuilder, Zone};
use eir_core::policy::Policy;
use eir_core::verdict::{Facts, Request, verdict};
use libfuzzer_sys::fuzz_target;

const DEVICES: u64 = 48;
const SUBSCRIBERS: u64 = 3;
const NOW: u32 = 1_800_000_000;
const OPTIONS: BuildOptions =
    BuildOptions { strict: true, max_bad_share: 0.0, sequence: 1, created_at: NOW, tac_as_of: 0, run_rows: 1_000 };

/// Each device's row without its IMEI, and the pairs.
#[derive(Clone, Default)]
struct Full {
    devices: BTreeMap<u64, String>,
    pairs: BTreeSet<(u64, u64)>,
}

fn imei(device: u64) -> u64 {
    // Two TACs.
    35_209_900_000_000 + device % 2 * 1_000_000 + device / 2 * 7
}

fn imsi(subscriber: u64) -> String {
    format!("00101000000000{subscriber}")
}

impl Full {
    fn snapshot(&self) -> Snapshot {
        let mut builder = SnapshotBuilder::new(OPTIONS);
        let mut devices = "imei,list,reason,until\n".to_owned();
        self.devices.iter().for_each(|(device, row)| writeln!(devices, "{},{row}", imei(*device)).unwrap());
        let mut pairs = "imei,imsi\n".to_owned();
        self.pairs.iter().for_each(|(device, one)| writeln!(pairs, "{},{}", imei(*device), imsi(*one)).unwrap());
        builder.add(FileKind::Devices, "devices", devices.as_bytes(), &mut |_| {}).unwrap();
        builder.add(FileKind::Pairs, "pairs", pairs.as_bytes(), &mut |_| {}).unwrap();
        let mut file = Cursor::new(Vec::new());
        builder.finish(&mut file).unwrap();
        Snapshot::open(Box::new(file.into_inner())).unwrap()
    }
}

/// One delta's rows, by what they are about: the last counts, as a delta says one thing of each.
#[derive(Default)]
struct Changes {
    devices: BTreeMap<u64, Option<String>>,
    pairs: BTreeMap<(u64, u64), bool>,
}

impl Changes {
    fn apply(&self, deltas: &Deltas, full: &mut Full) -> Deltas {
        let mut reader = DeltaReader::new(Zone::default(), 0.0, u64::MAX);
        let mut text = "change_type,imei,list,reason,until\n".to_owned();
        for (device, row) in &self.devices {
            match row {
                Some(row) => writeln!(text, "set,{},{row}", imei(*device)).unwrap(),
                None => writeln!(text, "remove,{},,,", imei(*device)).unwrap(),
            }
            match row {
                Some(row) => drop(full.devices.insert(*device, row.clone())),
                None => drop(full.devices.remove(device)),
            }
        }
        reader.add(FileKind::of_delta("devices").unwrap(), "devices", text.as_bytes()).unwrap();
        let mut text = "change_type,imei,imsi\n".to_owned();
        for ((device, subscriber), present) in &self.pairs {
            let change = if *present { "set" } else { "remove" };
            writeln!(text, "{change},{},{}", imei(*device), imsi(*subscriber)).unwrap();
            if *present {
                full.pairs.insert((*device, *subscriber));
            } else {
                full.pairs.remove(&(*device, *subscriber));
            }
        }
        reader.add(FileKind::of_delta("pairs").unwrap(), "pairs", text.as_bytes()).unwrap();
        let delta = reader.finish().unwrap();
        deltas.apply(&delta.devices, &delta.pairs, deltas.sequence() + 1, NOW).unwrap()
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut full, mut changes) = (Full::default(), Changes::default());
    let mut snapshot = full.snapshot();
    let mut deltas = Deltas::above(1, NOW);
    for &[what, device, said, day] in data.as_chunks::<4>().0.iter().take(200) {
        let device = u64::from(device) % DEVICES;
        match what & 3 {
            0 => drop(changes.devices.insert(device, None)),
            1 => drop(changes.pairs.insert((device, u64::from(said) % SUBSCRIBERS), day & 1 == 0)),
            _ => {
                let row = match said % 3 {
                    0 => "white,,".to_owned(),
                    1 => format!("black,{},", ["", "stolen", "court", "lost"][usize::from(said / 3) % 4]),
                    _ if day == 0 => "grey,,".to_owned(),
                    // On both sides of now.
                    _ => format!("grey,,2027{:02}{:02}", 1 + day % 2, 1 + day / 2 % 28),
                };
                changes.devices.insert(device, Some(row));
            }
        }
        if what & 4 != 0 {
            deltas = std::mem::take(&mut changes).apply(&deltas, &mut full);
        }
        if what & 24 == 24 {
            // A snapshot of what there is: the deltas go.
            (snapshot, deltas) = (full.snapshot(), Deltas::above(deltas.sequence(), NOW));
        }
    }
    deltas = changes.apply(&deltas, &mut full);

    let (overlay, grey, policy) = (Overlay::default(), GreyTable::default(), Policy::default());
    let layered = Facts {
        snapshot: Some(&snapshot),
        deltas: Some(&deltas),
        overlay: &overlay,
        grey: &grey,
        policy: &policy,
        now: NOW,
    };
    let whole = full.snapshot();
    let expected = Facts { snapshot: Some(&whole), deltas: None, ..layered };
    for device in 0..DEVICES {
        let imei = Imei::from_number(imei(device)).unwrap();
        assert_eq!(layered.national(imei), expected.national(imei));
        for subscriber in 0..SUBSCRIBERS {
            let imsi = Imsi::from_digits(imsi(subscriber).as_bytes());
            let request = Request { imei: Ok(imei), imsi };
            assert_eq!(verdict(&request, &layered), verdict(&request, &expected));
        }
    }
});
