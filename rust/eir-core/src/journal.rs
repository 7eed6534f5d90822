//! The journal's records and segments: what must not be lost, as bytes.
//!
//! A segment is a header of 64 octets and then records of 64 octets each, so that a damaged record costs itself only and
//! none straddles a disk's sector. Record n of a segment has the segment's first sequence number plus n; the number is
//! part of the record and of its checksum. Everything is little endian; the layout is in docs/formats.md.
//!
//! Written by the data plane through [`Journal`], read at start by [`replay`]. Files and threads are the caller's.

use crate::UnixTime;
use crate::grey::{GreyTable, Timer};
use crate::imei::{Imei, Imsi, Msisdn};
use crate::lists::{List, Overlay};

/// Octets of a record, and of a segment's header.
pub const RECORD: usize = 64;
/// Longest reason of an overlay entry.
pub const MAX_REASON: usize = 32;
const MAGIC: [u8; 8] = *b"EIRJRNL1";

/// Where records go. The data plane's writer implements it, and tests do.
pub trait Journal {
    /// Takes a record in and returns its sequence number; `None` where it cannot be kept (full or failing), and then
    /// nothing may follow from it.
    fn append(&self, event: &Event) -> Option<u64>;
    /// Whether records are being kept.
    fn available(&self) -> bool;
    /// How far records are safe.
    fn progress(&self) -> Progress;
}

/// Up to which sequence number, inclusive, records have been ...
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// ... written: they survive the end of the process.
    pub written: u64,
    /// ... brought to the disk: they survive loss of power.
    pub durable: u64,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A first attach started this timer.
    Start {
        /// The device.
        imei: Imei,
        /// The subscriber, where the request named one.
        imsi: Option<Imsi>,
        /// Its number, where the request had it.
        msisdn: Option<Msisdn>,
        /// The timer.
        timer: Timer,
    },
    /// A further subscriber was seen in a grey device.
    Seen {
        /// The device.
        imei: Imei,
        /// The subscriber.
        imsi: Imsi,
        /// Its number, where the request had it.
        msisdn: Option<Msisdn>,
        /// When.
        at: UnixTime,
    },
    /// A blacklisted device tried to register, for the first time in 24 hours with this subscriber.
    BlackAttempt {
        /// The device.
        imei: Imei,
        /// The subscriber, where the request named one.
        imsi: Option<Imsi>,
        /// Its number, where the request had it.
        msisdn: Option<Msisdn>,
        /// When.
        at: UnixTime,
        /// The verdict's rule, by its number.
        rule: u8,
    },
    /// The timer is taken back: the device was verified before the first answer left.
    Cancel {
        /// The device.
        imei: Imei,
        /// When.
        at: UnixTime,
    },
    /// The breaker tripped, or an operator confirmed that timers may start again.
    Breaker {
        /// Whether timers are kept from starting.
        tripped: bool,
        /// When.
        at: UnixTime,
    },
    /// The operator changed one device's listing.
    Overlay {
        /// The device.
        imei: Imei,
        /// What is now said of it.
        change: OverlayChange,
        /// Why, at most [`MAX_REASON`] octets.
        reason: String,
        /// When.
        at: UnixTime,
    },
}

/// What an overlay entry says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayChange {
    /// It is on this list, whatever the snapshot says.
    Listed(List),
    /// It is on no list, whatever the snapshot says.
    Unlisted,
    /// The entry is withdrawn: the snapshot speaks again.
    Withdrawn,
}

impl OverlayChange {
    fn number(self) -> u8 {
        match self {
            Self::Listed(list) => list as u8,
            Self::Unlisted => 3,
            Self::Withdrawn => 4,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        match number {
            3 => Some(Self::Unlisted),
            4 => Some(Self::Withdrawn),
            list => List::from_number(list).map(Self::Listed),
        }
    }
}

/// Writes into a record's octets one field after the other.
struct Fields<'a>(&'a mut [u8]);

impl Fields<'_> {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        let free = std::mem::take(&mut self.0);
        if let Some((place, rest)) = free.split_at_mut_checked(bytes.len()) {
            place.copy_from_slice(bytes);
            self.0 = rest;
        }
        self
    }
}

/// A record: checksum (4), kind (1), detail (1), zero (2), sequence number (8), IMEI (8), then by kind.
#[must_use]
pub fn encode(sequence: u64, event: &Event) -> [u8; RECORD] {
    let packed = |imsi: &Option<Imsi>| imsi.map_or(0, Imsi::packed).to_le_bytes();
    let number = |msisdn: &Option<Msisdn>| msisdn.map_or(0, Msisdn::packed).to_le_bytes();
    let mut record = [0; RECORD];
    let (kind, detail, imei) = match event {
        Event::Start { imei, .. } => (1, 0, imei.number()),
        Event::Seen { imei, .. } => (2, 0, imei.number()),
        Event::BlackAttempt { imei, rule, .. } => (3, *rule, imei.number()),
        Event::Cancel { imei, .. } => (4, 0, imei.number()),
        Event::Breaker { tripped, .. } => (5, u8::from(*tripped), 0),
        Event::Overlay { imei, change, .. } => (6, change.number(), imei.number()),
    };
    let mut fields = Fields(record.get_mut(4..).unwrap_or_default());
    fields.put(&[kind, detail, 0, 0]).put(&sequence.to_le_bytes()).put(&imei.to_le_bytes());
    match event {
        Event::Start { imsi, msisdn, timer, .. } => {
            let Timer { start, deadline } = timer;
            fields.put(&packed(imsi)).put(&start.to_le_bytes()).put(&deadline.to_le_bytes()).put(&number(msisdn))
        }
        Event::Seen { imsi, msisdn, at, .. } => {
            fields.put(&imsi.packed().to_le_bytes()).put(&at.to_le_bytes()).put(&[0; 4]).put(&number(msisdn))
        }
        Event::BlackAttempt { imsi, msisdn, at, .. } => {
            fields.put(&packed(imsi)).put(&at.to_le_bytes()).put(&[0; 4]).put(&number(msisdn))
        }
        Event::Cancel { at, .. } | Event::Breaker { at, .. } => fields.put(&[0; 8]).put(&at.to_le_bytes()),
        Event::Overlay { reason, at, .. } => {
            let text = reason.as_bytes().get(..MAX_REASON).unwrap_or(reason.as_bytes());
            // Where other records have an IMSI: the time, so that the reason fits behind it.
            fields.put(&at.to_le_bytes()).put(&[0; 4]).put(text)
        }
    };
    let checksum = crc32fast::hash(record.get(4..).unwrap_or_default());
    Fields(&mut record).put(&checksum.to_le_bytes());
    record
}

/// The event in a record that must have this sequence number; `None` if it is damaged.
#[must_use]
pub fn decode(sequence: u64, record: &[u8; RECORD]) -> Option<Event> {
    let (checksum, body) = record.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*checksum) != crc32fast::hash(body) {
        return None;
    }
    let (&[kind, detail, _, _], rest) = body.split_first_chunk::<4>()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (imei, rest) = rest.split_first_chunk::<8>()?;
    let (word, rest) = rest.split_first_chunk::<8>()?;
    let (first, tail) = rest.split_first_chunk::<4>()?;
    let (second, tail) = tail.split_first_chunk::<4>()?;
    let msisdn = Msisdn::from_packed(u64::from_le_bytes(*tail.first_chunk()?));
    if u64::from_le_bytes(*number) != sequence {
        return None;
    }
    let imei = Imei::from_number(u64::from_le_bytes(*imei));
    let at = u32::from_le_bytes(*first);
    let word = u64::from_le_bytes(*word);
    let imsi = Imsi::from_packed(word);
    let imsi_or_none = (word == 0 || imsi.is_some()).then_some(imsi);
    Some(match kind {
        1 => Event::Start {
            imei: imei?,
            imsi: imsi_or_none?,
            msisdn,
            timer: Timer { start: at, deadline: u32::from_le_bytes(*second) },
        },
        2 => Event::Seen { imei: imei?, imsi: imsi?, msisdn, at },
        3 => Event::BlackAttempt { imei: imei?, imsi: imsi_or_none?, msisdn, at, rule: detail },
        4 => Event::Cancel { imei: imei?, at },
        5 => Event::Breaker { tripped: detail != 0, at },
        6 => {
            let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
            Event::Overlay {
                imei: imei?,
                change: OverlayChange::from_number(detail)?,
                reason: String::from_utf8(text.to_vec()).ok()?,
                at: word as u32,
            }
        }
        _ => return None,
    })
}

/// A segment's header: magic (8), first sequence number (8), zero, checksum (the last 4).
#[must_use]
pub fn segment_header(first_sequence: u64) -> [u8; RECORD] {
    let mut header = [0; RECORD];
    Fields(&mut header).put(&MAGIC).put(&first_sequence.to_le_bytes());
    let checksum = crc32fast::hash(header.get(..RECORD - 4).unwrap_or_default());
    if let Some(place) = header.last_chunk_mut() {
        *place = checksum.to_le_bytes();
    }
    header
}

/// The first sequence number of a segment with that header; `None` if it is no segment's.
#[must_use]
pub fn read_segment_header(header: &[u8; RECORD]) -> Option<u64> {
    let (magic, rest) = header.split_first_chunk::<8>()?;
    let first = rest.first_chunk::<8>()?;
    let sound = u32::from_le_bytes(*header.last_chunk()?) == crc32fast::hash(header.get(..RECORD - 4)?);
    (*magic == MAGIC && sound).then(|| u64::from_le_bytes(*first))
}

/// What a replay met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Sound records.
    pub records: u64,
    /// Records whose checksum or number is wrong.
    pub damaged: u64,
    /// Octets behind the last whole record: an append that the end of the process cut off.
    pub torn: u64,
}

/// Reads the records that follow a segment's header and hands each event to `apply` with its sequence number.
///
/// Damaged records are counted and passed over: each costs itself only.
pub fn replay(first_sequence: u64, records: &[u8], mut apply: impl FnMut(u64, Event)) -> Replayed {
    let (whole, torn) = records.as_chunks::<RECORD>();
    let mut replayed = Replayed { torn: torn.len() as u64, ..Replayed::default() };
    for (at, record) in whole.iter().enumerate() {
        // A first number that overflows is not one that was ever written; its records do not fit it.
        let sequence = first_sequence.wrapping_add(at as u64);
        match decode(sequence, record) {
            Some(event) => {
                replayed.records += 1;
                apply(sequence, event);
            }
            None => replayed.damaged += 1,
        }
    }
    replayed
}

/// Brings the tables to the state after an event. Applying one twice changes nothing.
pub fn apply(sequence: u64, event: &Event, grey: &GreyTable, overlay: &Overlay) {
    match event {
        Event::Start { imei, imsi, timer, .. } => {
            // A start that is in the table with a later number came after this one was taken back.
            if grey.timer(*imei).is_none_or(|(_, started)| started <= sequence) {
                grey.start(*imei, *timer, || Some(sequence));
            }
            if let Some(imsi) = imsi {
                grey.see(*imei, timer.start, *imsi, || Some(sequence));
            }
        }
        Event::Seen { imei, imsi, at, .. } => {
            let start = grey.began(*imei);
            // One of a timer before is none of this one's, also where a part of the journal is read once more.
            if start <= *at {
                grey.see(*imei, start, *imsi, || Some(sequence));
            }
        }
        Event::BlackAttempt { imei, imsi, at, .. } => {
            grey.attempt(*imei, *imsi, *at, || Some(sequence));
        }
        Event::Cancel { imei, .. } => {
            // Only a start that came before it: a later one is a new first attach.
            if let Some((_, started)) = grey.timer(*imei)
                && started < sequence
            {
                grey.cancel(*imei, started);
            }
        }
        Event::Breaker { tripped, .. } => grey.set_tripped(*tripped),
        Event::Overlay { imei, change, reason, .. } => {
            overlay.set(*imei, *change, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn imeis() -> impl Strategy<Value = Imei> {
        (1u64..6).prop_map(|number| Imei::from_number(number).unwrap())
    }

    fn imsis() -> impl Strategy<Value = Imsi> {
        (0u64..4).prop_map(|number| Imsi::from_digits(format!("0010100000{number:05}").as_bytes()).unwrap())
    }

    fn msisdns() -> impl Strategy<Value = Option<Msisdn>> {
        prop::option::of(prop::collection::vec(0u8..10, 5..16)).prop_map(|digits| Msisdn::from_tbcd(&tbcd(&digits?)))
    }

    fn tbcd(digits: &[u8]) -> Vec<u8> {
        digits.chunks(2).map(|two| two[0] | two.get(1).unwrap_or(&15) << 4).collect()
    }

    #[test]
    fn a_number_is_read_as_it_was_sent() {
        let sent = [7, 7, 0, 1, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(Msisdn::from_tbcd(&tbcd(&sent)).unwrap().digits(), "77010000001");
        assert_eq!(Msisdn::from_tbcd(&tbcd(&sent[..10])).unwrap().digits(), "7701000000");
        for wrong in [&[][..], &[0x21, 0x43], &[0x21, 0xf3, 0x65], &[0x21; 8], &[0x21, 0x43, 0xa5], &[0xff; 4]] {
            assert_eq!(Msisdn::from_tbcd(wrong), None, "{wrong:?}");
        }
    }

    fn events() -> impl Strategy<Value = Event> {
        let changes = (0u8..5).prop_map(|number| OverlayChange::from_number(number).unwrap());
        prop_oneof![
            (imeis(), prop::option::of(imsis()), msisdns(), any::<u32>(), any::<u32>()).prop_map(
                |(imei, imsi, msisdn, start, deadline)| {
                    Event::Start { imei, imsi, msisdn, timer: Timer { start, deadline } }
                }
            ),
            (imeis(), imsis(), msisdns(), any::<u32>()).prop_map(|(imei, imsi, msisdn, at)| Event::Seen {
                imei,
                imsi,
                msisdn,
                at
            }),
            (imeis(), prop::option::of(imsis()), msisdns(), any::<u32>(), any::<u8>())
                .prop_map(|(imei, imsi, msisdn, at, rule)| Event::BlackAttempt { imei, imsi, msisdn, at, rule }),
            (imeis(), any::<u32>()).prop_map(|(imei, at)| Event::Cancel { imei, at }),
            (any::<bool>(), any::<u32>()).prop_map(|(tripped, at)| Event::Breaker { tripped, at }),
            (imeis(), changes, "[a-z0-9-]{0,32}", any::<u32>()).prop_map(|(imei, change, reason, at)| Event::Overlay {
                imei,
                change,
                reason,
                at
            }),
        ]
    }

    fn segment(events: &[Event]) -> Vec<u8> {
        (1..).zip(events).flat_map(|(sequence, event)| encode(sequence, event)).collect()
    }

    /// All that a verdict or a person could see of the tables.
    fn state(bytes: &[u8], times: usize) -> impl PartialEq + std::fmt::Debug {
        let (grey, overlay) = (GreyTable::default(), Overlay::default());
        for _ in 0..times {
            replay(1, bytes, |sequence, event| apply(sequence, &event, &grey, &overlay));
        }
        let devices = (1..6).map(|number| Imei::from_number(number).unwrap());
        let timers: Vec<_> = devices.clone().map(|imei| grey.timer(imei).map(|(timer, _)| timer)).collect();
        let listed: Vec<_> = devices.map(|imei| overlay.get(imei).map(|entry| format!("{entry:?}"))).collect();
        (timers, listed, grey.tripped(), grey.running(0))
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(sequence: u64, event in events()) {
            let record = encode(sequence, &event);
            prop_assert_eq!(decode(sequence, &record), Some(event));
            prop_assert_eq!(decode(sequence.wrapping_add(1), &record), None);
        }

        #[test]
        fn a_flipped_bit_is_seen(sequence: u64, event in events(), bit in 0usize..RECORD * 8) {
            let mut record = encode(sequence, &event);
            record[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(sequence, &record), None);
            let mut header = segment_header(sequence);
            prop_assert_eq!(read_segment_header(&header), Some(sequence));
            header[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(read_segment_header(&header), None);
        }

        #[test]
        fn replayed_twice_equals_once(events in prop::collection::vec(events(), 0..30)) {
            let bytes = segment(&events);
            prop_assert_eq!(state(&bytes, 2), state(&bytes, 1));
        }

        #[test]
        fn cut_anywhere_it_keeps_all_whole_records(events in prop::collection::vec(events(), 1..10), cut in 0usize..640) {
            let bytes = segment(&events);
            let cut = cut.min(bytes.len());
            let mut kept = Vec::new();
            let replayed = replay(1, &bytes[..cut], |_, event| kept.push(event));
            prop_assert_eq!(kept.as_slice(), &events[..cut / RECORD]);
            prop_assert_eq!(replayed, Replayed { records: (cut / RECORD) as u64, damaged: 0, torn: (cut % RECORD) as u64 });
        }

        #[test]
        fn any_bytes_replay_behind_any_first_number(
            first in prop_oneof![Just(1), (u64::MAX - 6)..=u64::MAX, any::<u64>()],
            bytes in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            prop_assert_eq!(replay(first, &bytes, |_, _| ()).records, 0);
        }
    }

    #[test]
    fn damage_costs_one_record() {
        let event = |number| Event::Cancel { imei: Imei::from_number(number).unwrap(), at: 1 };
        let mut bytes = segment(&[event(1), event(2), event(3)]);
        bytes[RECORD + 20] ^= 1;
        let mut kept = Vec::new();
        let replayed = replay(1, &bytes, |sequence, _| kept.push(sequence));
        assert_eq!((kept, replayed.damaged), (vec![1, 3], 1));
    }
}
