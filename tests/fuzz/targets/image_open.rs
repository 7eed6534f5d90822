//! Any octets as an image: refused, or loaded into tables that make an image with the same entries again.
//!
//! Taken as they are and, a second time, as the payloads of blocks whose headers and checksums are right, so that what is
//! behind them is met (docs/formats.md has the places).

#![no_main]

use eir_core::grey::GreyTable;
use eir_core::image::{self, Covered};
use eir_core::lists::Overlay;
use libfuzzer_sys::fuzz_target;

fn block(kind: u32, entries: u32, payload: &[u8]) -> Vec<u8> {
    let head = [kind, entries, payload.len() as u32].map(u32::to_le_bytes).concat();
    let sum = crc32fast::hash(&[&head, payload].concat());
    [&head[..], &sum.to_le_bytes(), payload].concat()
}

/// Blocks of the octets, each begun by its kind, its count and its length, between a header and an end that are right.
fn made_right(mut bytes: &[u8]) -> Vec<u8> {
    let mut file = [&b"EIRIMAG1"[..], &7u64.to_le_bytes(), &0u32.to_le_bytes()].concat();
    file.extend(crc32fast::hash(&file).to_le_bytes());
    let mut total = 0;
    while let [kind, entries, length, rest @ ..] = bytes {
        let (kind, entries) = (1 + u32::from(kind % 5), u32::from(entries % 8));
        let mut payload = rest[..rest.len().min(usize::from(*length))].to_vec();
        bytes = &rest[payload.len()..];
        // An IMEI that can be one, at the front of each entry of a fixed size.
        if kind == 2 {
            payload.chunks_mut(16).for_each(|entry| entry.iter_mut().take(8).skip(5).for_each(|octet| *octet = 0));
        }
        total += u64::from(entries);
        file.extend(block(kind, entries, &payload));
    }
    file.extend(block(6, 1, &total.to_le_bytes()));
    file
}

fn load(bytes: &[u8]) -> Option<(GreyTable, Overlay, Covered)> {
    let (grey, overlay) = (GreyTable::default(), Overlay::default());
    let covered = image::read(bytes, &grey, &overlay).ok();
    if covered.is_none() {
        assert!(grey.is_empty() && overlay.is_empty());
    }
    covered.map(|covered| (grey, overlay, covered))
}

fuzz_target!(|bytes: &[u8]| {
    load(bytes);
    if let Some((grey, overlay, covered)) = load(&made_right(bytes)) {
        let mut written = Vec::new();
        image::write(&mut written, &covered, &grey, &overlay).unwrap();
        let (again, listed, same) = load(&written).unwrap();
        assert_eq!((again.len(), again.running(0), listed.len(), same), (grey.len(), grey.running(0), overlay.len(), covered));
    }
});
