//! Any octets as a journal: replayed without a panic, and twice to the same state as once.
//!
//! Records are taken as they are and, a second time, with numbers, checksums and a few devices only, so that decoding
//! and the tables are met (`eir_core::journal::encode` has the places).

#![no_main]

use eir_core::grey::{GreyTable, Timer};
use eir_core::imei::Imei;
use eir_core::journal::{self, Event, RECORD, Replayed};
use eir_core::lists::{Overlay, OverlayEntry};
use libfuzzer_sys::fuzz_target;

const DEVICES: u64 = 6;
const FIRST: u64 = 7;

/// The records with everything made right that the fuzzer would have to guess.
fn made_right(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (number, record) in (FIRST..).zip(bytes.as_chunks_mut::<RECORD>().0) {
        // One in sixteen stays as it is: damaged.
        if record[6] == 0x10 {
            continue;
        }
        record[4] %= 8;
        record[8..16].copy_from_slice(&number.to_le_bytes());
        let device = 1 + u64::from(record[16]) % DEVICES;
        record[16..24].copy_from_slice(&device.to_le_bytes());
        // No subscriber, or one of two: six digits, packed.
        let subscriber: u64 = match record[24] % 3 {
            0 => 0,
            number => (1_010_000_000_000 + u64::from(number) * 1_000_000_000) << 4 | 6,
        };
        if record[4] != 6 {
            record[24..32].copy_from_slice(&subscriber.to_le_bytes());
        }
        let crc = crc32fast::hash(&record[4..]);
        record[..4].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

/// All that a verdict could see of the tables.
#[derive(Debug, PartialEq)]
struct State {
    timers: Vec<Option<Timer>>,
    overlay: Vec<Option<OverlayEntry>>,
    counts: (usize, usize, u64),
    tripped: bool,
}

fn state(grey: &GreyTable, overlay: &Overlay) -> State {
    let devices: Vec<_> = (1..=DEVICES).filter_map(Imei::from_number).collect();
    assert!(grey.running(0) <= grey.len() as u64);
    State {
        timers: devices.iter().map(|imei| grey.timer(*imei).map(|(timer, _)| timer)).collect(),
        overlay: devices.iter().map(|imei| overlay.get(*imei)).collect(),
        counts: (grey.len(), overlay.len(), grey.running(0)),
        tripped: grey.tripped(),
    }
}

/// What was decoded is encoded to what says the same.
fn check_encoding(sequence: u64, event: &Event) {
    assert_eq!(journal::decode(sequence, &journal::encode(sequence, event)).as_ref(), Some(event));
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first_chunk::<8>() else { return };
    journal::replay(u64::from_le_bytes(*first), rest, |_, _| ());
    if let Some(header) = bytes.first_chunk::<RECORD>() {
        let _ = journal::read_segment_header(header);
    }
    let records = made_right(bytes);
    journal::replay(FIRST, &records, |sequence, event| check_encoding(sequence, &event));
    let (grey, overlay) = (GreyTable::default(), Overlay::default());
    let replay = || journal::replay(FIRST, &records, |number, event| journal::apply(number, &event, &grey, &overlay));
    let Replayed { records: sound, damaged, torn } = replay();
    assert_eq!((sound + damaged, torn), ((records.len() / RECORD) as u64, (records.len() % RECORD) as u64));
    let once = state(&grey, &overlay);
    assert_eq!(replay(), Replayed { records: sound, damaged, torn });
    assert_eq!(state(&grey, &overlay), once);
});
