//! A file that was made to deceive: opened, and asked about everything, without a panic, a read outside it or an
//! endless loop.
//!
//! The checksums are made right first (docs/formats.md has their places), so that the checks behind them are met.

#![no_main]

use eir_core::imei::{Imei, Imsi};
use eir_core::lists::Snapshot;
use libfuzzer_sys::fuzz_target;

const LENGTH_AT: usize = 16;
const CHECKSUMS_AT: usize = 112;
const TABLE_AT: usize = 128;
const TABLE_ROW: usize = 24;
const SECTIONS: usize = 8;
const HEADER_CRC_AT: usize = TABLE_AT + TABLE_ROW * SECTIONS;

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Makes the length and the checksums right: a file of less than a MiB has one, at its end.
fn made_right(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut file = bytes.to_vec();
    if file.len() <= HEADER_CRC_AT + 8 {
        return None;
    }
    put(&mut file, 0, b"EIRLISTS\x02\0\0\0\x08\0\0\0");
    let checksums_at = file.len() - 4;
    let checksum = crc32fast::hash(&file[HEADER_CRC_AT + 4..checksums_at]).to_le_bytes();
    put(&mut file, checksums_at, &checksum);
    let length = file.len() as u64;
    put(&mut file, LENGTH_AT, &length.to_le_bytes());
    put(&mut file, CHECKSUMS_AT, &(checksums_at as u64).to_le_bytes());
    put(&mut file, CHECKSUMS_AT + 8, &crc32fast::hash(&checksum).to_le_bytes());
    let crc = crc32fast::hash(&file[..HEADER_CRC_AT]);
    put(&mut file, HEADER_CRC_AT, &crc.to_le_bytes());
    Some(file)
}

/// Asks for devices and subscribers of which the file itself speaks, and for the first and last that there can be.
fn ask(file: Vec<u8>) {
    let words: Vec<u64> = file
        .as_chunks::<8>()
        .0
        .iter()
        .map(|word| u64::from_le_bytes(*word))
        .chain([1, 99_999_999_999_999, 35_209_900_000_001])
        .collect();
    let Ok(snapshot) = Snapshot::open(Box::new(file)) else { return };
    for (_, info) in snapshot.tags().iter() {
        assert!(info.reason.len() <= eir_core::lists::MAX_REASON);
    }
    let _ = snapshot.verify();
    let imsi = Imsi::from_digits(b"001010000000001").unwrap();
    for word in words {
        let tac = (word as u32) % 100_000_000;
        let imeis = [word, word >> 4, u64::from(tac) * 1_000_000, u64::from(tac) * 1_000_000 + 999_999];
        for imei in imeis.into_iter().filter_map(Imei::from_number) {
            for tag in [snapshot.imei(imei), snapshot.range(imei)].into_iter().flatten() {
                let _ = snapshot.tag_info(tag);
            }
            let _ = (snapshot.paired(imei, imsi), snapshot.deadline(imei));
        }
        let _ = (snapshot.exempt_tac(tac), snapshot.allocated_tac(tac));
        if let Some(imsi) = Imsi::from_packed(word) {
            let _ = snapshot.exempt_imsi(imsi);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = Snapshot::open(Box::new(bytes.to_vec()));
    if let Some(file) = made_right(bytes) {
        ask(file);
    }
});
