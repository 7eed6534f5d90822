//! The image: the data plane's tables in a file, so that a start needs neither the whole journal nor a store.
//!
//! A header of 24 octets, then blocks, each with its kind, the count of its entries and a checksum; the last block says
//! how many entries there were in all, so an image that was cut off is known for one. Everything is little endian; the
//! layout is in docs/formats.md. Written by the node while it answers: what is in the tables by the journal's record
//! `position`, and maybe what came after, is in it. Files are the caller's.

use std::io::{self, Write};

use crate::UnixTime;
use crate::grey::{GreyTable, Timer};
use crate::imei::Imei;
use crate::journal::{MAX_REASON, OverlayChange};
use crate::lists::{List, Overlay};

const MAGIC: [u8; 8] = *b"EIRIMAG1";
const HEADER: usize = 24;
const BLOCK_HEADER: usize = 16;
/// Octets of a block beyond which another is begun.
const BLOCK: usize = 1 << 20;
/// Longest that `follow` may be.
pub const MAX_FOLLOW: usize = 64 << 10;

const FOLLOW: u32 = 1;
const TIMERS: u32 = 2;
const SEEN: u32 = 3;
const ATTEMPTS: u32 = 4;
const OVERLAY: u32 = 5;
const END: u32 = 6;

/// Why an image is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsound(pub &'static str);

impl std::fmt::Display for Unsound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    /// Every journal record up to this one is in it.
    pub position: u64,
    /// How far the control plane had followed its store; its own words.
    pub follow: Vec<u8>,
}

/// Writes blocks of one kind after the other.
struct Blocks<W> {
    out: W,
    kind: u32,
    entries: u32,
    payload: Vec<u8>,
    total: u64,
    result: io::Result<()>,
}

impl<W: Write> Blocks<W> {
    fn entry(&mut self, kind: u32, parts: &[&[u8]]) {
        if kind != self.kind || self.payload.len() >= BLOCK {
            self.finish();
            self.kind = kind;
        }
        for part in parts {
            self.payload.extend_from_slice(part);
        }
        self.entries += 1;
    }

    fn finish(&mut self) {
        if self.entries > 0 && self.result.is_ok() {
            let mut header = [0; BLOCK_HEADER];
            let fields = [self.kind, self.entries, self.payload.len() as u32];
            for (place, field) in header.chunks_exact_mut(4).zip(fields) {
                place.copy_from_slice(&field.to_le_bytes());
            }
            let mut checksum = crc32fast::Hasher::new();
            checksum.update(header.get(..BLOCK_HEADER - 4).unwrap_or_default());
            checksum.update(&self.payload);
            if let Some(place) = header.last_chunk_mut() {
                *place = checksum.finalize().to_le_bytes();
            }
            self.result = self.out.write_all(&header).and_then(|()| self.out.write_all(&self.payload));
        }
        self.total += u64::from(self.entries);
        self.entries = 0;
        self.payload.clear();
    }
}

/// Writes the tables as an image that covers the journal up to `position`: everything up to that record must have been
/// put into the tables, or be about to be under the lock of its shard.
///
/// # Errors
/// Where `out` fails, or `follow` is too long.
pub fn write(out: impl Write, covered: &Covered, grey: &GreyTable, overlay: &Overlay) -> io::Result<()> {
    if covered.follow.len() > MAX_FOLLOW {
        return Err(io::Error::other("the position in the store is too long for an image"));
    }
    let mut blocks = Blocks { out, kind: 0, entries: 0, payload: Vec::new(), total: 0, result: Ok(()) };
    let mut header = [0; HEADER];
    let flags = u32::from(grey.tripped()).to_le_bytes();
    let parts: [&[u8]; 3] = [&MAGIC, &covered.position.to_le_bytes(), &flags];
    for (place, octet) in header.iter_mut().zip(parts.concat()) {
        *place = octet;
    }
    let checksum = crc32fast::hash(header.get(..HEADER - 4).unwrap_or_default());
    if let Some(place) = header.last_chunk_mut() {
        *place = checksum.to_le_bytes();
    }
    blocks.out.write_all(&header)?;
    blocks.entry(FOLLOW, &[&covered.follow]);
    let shared = std::cell::RefCell::new(&mut blocks);
    grey.dump(
        |part| {
            for (imei, timer) in part {
                let words =
                    [imei.to_le_bytes(), (u64::from(timer.deadline) << 32 | u64::from(timer.start)).to_le_bytes()];
                shared.borrow_mut().entry(TIMERS, &[&words[0], &words[1]]);
            }
        },
        |part| part.for_each(|pair| shared.borrow_mut().entry(SEEN, &[&pair.to_le_bytes()])),
        |part| {
            part.for_each(|(pair, last)| {
                shared.borrow_mut().entry(ATTEMPTS, &[&pair.to_le_bytes(), &last.to_le_bytes()]);
            });
        },
    );
    overlay.for_each(|imei, entry| {
        let list = entry.list.map_or(u8::MAX, |list| list as u8);
        let head = [list, entry.reason.len() as u8];
        blocks.entry(OVERLAY, &[&imei.number().to_le_bytes(), &head, entry.reason.as_bytes()]);
    });
    blocks.finish();
    let total = blocks.total.to_le_bytes();
    blocks.entry(END, &[&total]);
    blocks.finish();
    blocks.result?;
    blocks.out.flush()
}

/// Reads from the front of octets.
fn take<const N: usize>(octets: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = octets.split_first_chunk()?;
    *octets = rest;
    Some(*first)
}

fn word(octets: &mut &[u8]) -> Option<u64> {
    take(octets).map(u64::from_le_bytes)
}

/// (kind, entries, payload) of the block at the front; `None` where it is not whole and sound.
fn block<'a>(octets: &mut &'a [u8]) -> Option<(u32, u32, &'a [u8])> {
    let (header, rest) = octets.split_first_chunk::<BLOCK_HEADER>()?;
    let mut fields = &header[..];
    let [kind, entries, length, checksum] = [(); 4].map(|()| take(&mut fields).map(u32::from_le_bytes));
    let (payload, rest) = rest.split_at_checked(length? as usize)?;
    let mut found = crc32fast::Hasher::new();
    found.update(header.get(..BLOCK_HEADER - 4)?);
    found.update(payload);
    *octets = rest;
    (found.finalize() == checksum?).then_some((kind?, entries?, payload))
}

/// Checks an image whole, and only then puts what it holds into the tables, which must be new.
///
/// # Errors
/// [`Unsound`]; then the tables are as they were.
pub fn read(image: &[u8], grey: &GreyTable, overlay: &Overlay) -> Result<Covered, Unsound> {
    let (header, blocks) = image.split_first_chunk::<HEADER>().ok_or(Unsound("it is too short"))?;
    let mut fields = &header[..];
    let magic = take::<8>(&mut fields);
    if magic != Some(MAGIC) {
        return Err(Unsound("it is no image, or of another version"));
    }
    let checksum = header.last_chunk().map(|octets| u32::from_le_bytes(*octets));
    if checksum != Some(crc32fast::hash(header.get(..HEADER - 4).unwrap_or_default())) {
        return Err(Unsound("its header is damaged"));
    }
    let position = word(&mut fields).unwrap_or_default();
    let tripped = take(&mut fields).map(u32::from_le_bytes) == Some(1);
    let (mut rest, mut total) = (blocks, 0);
    let mut follow = Vec::new();
    loop {
        let (kind, entries, mut payload) = block(&mut rest).ok_or(Unsound("a block of it is damaged, or missing"))?;
        match kind {
            END if word(&mut payload) == Some(total) && rest.is_empty() => break,
            END => return Err(Unsound("it has not as many entries as it says")),
            FOLLOW => follow = payload.to_vec(),
            _ => visit(kind, entries, payload, |_| ()).ok_or(Unsound("an entry of it is not sound"))?,
        }
        total += u64::from(entries);
    }
    let mut rest = blocks;
    while let Some((kind, entries, payload)) = block(&mut rest) {
        if (TIMERS..=OVERLAY).contains(&kind) {
            visit(kind, entries, payload, |entry| put(entry, grey, overlay));
        }
    }
    if tripped {
        grey.set_tripped(true);
    }
    Ok(Covered { position, follow })
}

/// One entry of a table.
enum Entry<'a> {
    Timer(Imei, Timer),
    Seen(u64),
    Attempt(u64, u64),
    Overlay(Imei, OverlayChange, &'a str),
}

/// Hands over every entry of a block; `None` where it holds something else than it says.
fn visit<'a>(kind: u32, entries: u32, mut payload: &'a [u8], mut then: impl FnMut(Entry<'a>)) -> Option<()> {
    for _ in 0..entries {
        let first = word(&mut payload)?;
        then(match kind {
            TIMERS => {
                let times = word(&mut payload)?;
                let timer = Timer { start: times as UnixTime, deadline: (times >> 32) as UnixTime };
                Entry::Timer(Imei::from_number(first)?, timer)
            }
            SEEN => Entry::Seen(first),
            ATTEMPTS => Entry::Attempt(first, word(&mut payload)?),
            OVERLAY => {
                let [list, length] = take(&mut payload)?;
                let (reason, rest) = payload.split_at_checked(usize::from(length))?;
                payload = rest;
                let change = match list {
                    u8::MAX => OverlayChange::Unlisted,
                    number => OverlayChange::Listed(List::from_number(number)?),
                };
                let reason = std::str::from_utf8(reason).ok().filter(|text| text.len() <= MAX_REASON)?;
                Entry::Overlay(Imei::from_number(first)?, change, reason)
            }
            _ => return None,
        });
    }
    payload.is_empty().then_some(())
}

fn put(entry: Entry<'_>, grey: &GreyTable, overlay: &Overlay) {
    match entry {
        Entry::Timer(imei, timer) => grey.set(imei, Some(timer)),
        Entry::Seen(pair) => grey.restore_seen(pair),
        Entry::Attempt(pair, last) => grey.restore_attempt(pair, last),
        Entry::Overlay(imei, change, reason) => {
            overlay.set(imei, change, reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::imei::Imsi;
    use crate::journal::{Event, apply};

    fn imei(number: u64) -> Imei {
        Imei::from_number(number).unwrap()
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let imsi = |number: u64| Imsi::from_digits(format!("0010100000{number:05}").as_bytes()).unwrap();
        let event = prop_oneof![
            (1u64..9, 0u64..4, 1u32..99, 1u32..99).prop_map(move |(device, subscriber, start, deadline)| {
                Event::Start {
                    imei: imei(device),
                    imsi: Some(imsi(subscriber)),
                    msisdn: None,
                    timer: Timer { start, deadline },
                }
            }),
            (1u64..9, 0u64..4).prop_map(move |(device, subscriber)| Event::Seen {
                imei: imei(device),
                imsi: imsi(subscriber),
                msisdn: None,
                at: 5
            }),
            (1u64..9, 1u32..200_000).prop_map(|(device, at)| Event::BlackAttempt {
                imei: imei(device),
                imsi: None,
                msisdn: None,
                at,
                rule: 7
            }),
            (1u64..9).prop_map(|device| Event::Cancel { imei: imei(device), at: 9 }),
            any::<bool>().prop_map(|tripped| Event::Breaker { tripped, at: 9 }),
            (1u64..9, 0u8..3, "[a-z]{0,8}").prop_map(|(device, list, reason)| Event::Overlay {
                imei: imei(device),
                change: OverlayChange::Listed(List::from_number(list).unwrap()),
                reason,
                at: 9,
            }),
        ];
        prop::collection::vec(event, 0..40)
    }

    /// Subscribers seen, and everything else.
    fn state(grey: &GreyTable, overlay: &Overlay) -> (BTreeSet<u64>, impl PartialEq + std::fmt::Debug + use<>) {
        let devices = (1..9).map(imei);
        let timers: Vec<_> = devices.clone().map(|imei| grey.timer(imei).map(|(timer, _)| timer)).collect();
        let listed: Vec<_> = devices.map(|imei| overlay.get(imei)).collect();
        let (seen, attempts) = (std::cell::RefCell::new(Vec::new()), std::cell::RefCell::new(Vec::new()));
        grey.dump(|_| (), |part| seen.borrow_mut().extend(part), |part| attempts.borrow_mut().extend(part));
        let mut attempts = attempts.into_inner();
        attempts.sort_unstable();
        (seen.into_inner().into_iter().collect(), (timers, listed, attempts, grey.tripped(), grey.running(0)))
    }

    fn image_of(grey: &GreyTable, overlay: &Overlay, position: u64) -> Vec<u8> {
        let mut image = Vec::new();
        write(&mut image, &Covered { position, follow: b"there".to_vec() }, grey, overlay).unwrap();
        image
    }

    proptest! {
        #[test]
        fn an_image_and_the_records_behind_it_are_the_whole_journal(events in events(), at in 0usize..40, late in 0usize..5) {
            let at = at.min(events.len());
            let numbered = || (1u64..).zip(&events);
            let (whole, all) = (GreyTable::default(), Overlay::default());
            numbered().for_each(|(sequence, event)| apply(sequence, event, &whole, &all));
            // The tables are a little ahead of the position that the image claims.
            let (grey, overlay) = (GreyTable::default(), Overlay::default());
            numbered().take(at).for_each(|(sequence, event)| apply(sequence, event, &grey, &overlay));
            let position = at.saturating_sub(late) as u64;
            let image = image_of(&grey, &overlay, position);
            let (grey, overlay) = (GreyTable::default(), Overlay::default());
            let covered = read(&image, &grey, &overlay).unwrap();
            prop_assert_eq!((covered.position, covered.follow.as_slice()), (position, &b"there"[..]));
            for (sequence, event) in numbered().skip(position as usize) {
                apply(sequence, event, &grey, &overlay);
            }
            let ((seen, found), (seen_once, expected)) = (state(&grey, &overlay), state(&whole, &all));
            prop_assert_eq!(found, expected);
            // Whoever was seen before the start was put right is known of both starts where the record is read again.
            prop_assert!(seen.is_superset(&seen_once));
        }

        #[test]
        fn a_flipped_bit_or_a_cut_is_seen(events in events(), bit: prop::sample::Index, cut: prop::sample::Index) {
            let (grey, overlay) = (GreyTable::default(), Overlay::default());
            (1..).zip(&events).for_each(|(sequence, event)| apply(sequence, event, &grey, &overlay));
            let mut image = image_of(&grey, &overlay, 7);
            let (fresh, unlisted) = (GreyTable::default(), Overlay::default());
            prop_assert!(read(&image[..cut.index(image.len())], &fresh, &unlisted).is_err());
            let bit = bit.index(image.len() * 8);
            image[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(read(&image, &fresh, &unlisted).is_err());
            prop_assert!(fresh.is_empty() && unlisted.is_empty());
        }

        #[test]
        fn any_octets_are_refused(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(&octets, &GreyTable::default(), &Overlay::default()).is_err());
        }
    }
}
