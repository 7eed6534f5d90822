//! The encoding of the deadlines section: until when devices on the grey list have access, as the national database has
//! it.
//!
//! Its one job: write the section and look deadlines up in it. The builder and the snapshot call it. It never knows how
//! a deadline came to be.
//!
//! ```text
//! head      16 bytes: number of different deadlines u32, of TACs u32, of devices u64
//! table     the different deadlines u32
//! TACs      rising u32; then for each the number of devices before it u64, and at the end the number of devices
//! devices   a u32 each: the SNR, times 4,096, plus the place of the deadline in the table; rising in each TAC
//! ```
//!
//! A section of no devices has length 0.

use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::Range;

use super::layout::BadSection;
use super::le::{u32_at, u64_at};
use super::runs::Shelf;
use crate::UnixTime;
use crate::imei::{Imei, SNRS_PER_TAC, TAC_LIMIT};

/// How many different deadlines a snapshot holds.
pub(super) const MOST: usize = 1 << PLACE_BITS;
/// Bits of a device that are its deadline's place.
const PLACE_BITS: u32 = 12;
/// Bytes of the section's head.
const HEAD: usize = 16;
/// Bytes of devices that are held before they are put aside.
const HELD: usize = 1 << 24;
/// Bytes of devices that are copied at once.
const COPIED: usize = 1 << 20;

/// The different deadlines of a snapshot that is being built.
#[derive(Debug, Default)]
pub(super) struct Table {
    deadlines: Vec<UnixTime>,
    places: HashMap<UnixTime, u16>,
}

impl Table {
    /// The place of a deadline, counted from 1, given now if it is new; `None` where there is none left.
    pub fn place(&mut self, deadline: UnixTime) -> Option<u16> {
        if let Some(place) = self.places.get(&deadline) {
            return Some(*place);
        }
        if self.deadlines.len() == MOST {
            return None;
        }
        self.deadlines.push(deadline);
        let place = self.deadlines.len() as u16;
        self.places.insert(deadline, place);
        Some(place)
    }

    /// Which of two places, where 0 is no deadline, has the earlier deadline.
    pub fn earlier(&self, one: u16, other: u16) -> u16 {
        let deadline = |place: u16| {
            let place = usize::from(place).checked_sub(1)?;
            self.deadlines.get(place).copied()
        };
        match (deadline(one), deadline(other)) {
            (Some(first), Some(second)) if second < first => other,
            (None, Some(_)) => other,
            _ => one,
        }
    }
}

/// A section that is being built.
#[derive(Debug, Default)]
pub(super) struct Builder {
    tacs: Vec<u32>,
    /// For each TAC the number of devices before it.
    starts: Vec<u64>,
    count: u64,
    held: Vec<u8>,
    /// Where the parts lie that were put aside, and their bytes.
    aside: Vec<(u64, usize)>,
}

impl Builder {
    /// Put a device with its deadline's place, counted from 1, behind those before it in the order of IMEIs.
    pub fn push(&mut self, imei: Imei, place: u16, shelf: &mut Shelf) -> io::Result<()> {
        if self.tacs.last() != Some(&imei.tac()) {
            self.tacs.push(imei.tac());
            self.starts.push(self.count);
        }
        self.count += 1;
        let place = u32::from(place.saturating_sub(1));
        self.held.extend((imei.snr() << PLACE_BITS | place).to_le_bytes());
        if self.held.len() >= HELD && shelf.is_there() {
            let at = shelf.put(&self.held)?;
            self.aside.push((at, self.held.len()));
            self.held.clear();
        }
        Ok(())
    }

    /// Write the section; gives the number of devices, or which of the two ways failed.
    pub fn finish(self, table: &Table, shelf: &Shelf, out: &mut impl Write) -> Result<u64, Failure> {
        if self.count == 0 {
            return Ok(0);
        }
        let mut head = Vec::with_capacity(HEAD + 4 * table.deadlines.len() + 12 * self.tacs.len() + 8);
        head.extend((table.deadlines.len() as u32).to_le_bytes());
        head.extend((self.tacs.len() as u32).to_le_bytes());
        head.extend(self.count.to_le_bytes());
        head.extend(table.deadlines.iter().chain(&self.tacs).flat_map(|number| number.to_le_bytes()));
        head.extend(self.starts.iter().chain([&self.count]).flat_map(|start| start.to_le_bytes()));
        out.write_all(&head).map_err(Failure::Write)?;
        let mut octets = Vec::new();
        for (at, length) in self.aside {
            for from in (0..length).step_by(COPIED) {
                octets.resize(COPIED.min(length - from), 0);
                shelf.read(&mut octets, at + from as u64).map_err(Failure::Read)?;
                out.write_all(&octets).map_err(Failure::Write)?;
            }
        }
        out.write_all(&self.held).map_err(Failure::Write)?;
        Ok(self.count)
    }
}

/// What failed while a section was written.
#[derive(Debug)]
pub(super) enum Failure {
    /// Reading what was put aside.
    Read(io::Error),
    /// Writing the section.
    Write(io::Error),
}

/// Where the parts of a deadlines section are.
#[derive(Debug, Clone)]
pub(super) struct Deadlines {
    tacs: usize,
    tacs_at: usize,
    starts_at: usize,
    devices_at: usize,
    count: u64,
}

impl Deadlines {
    /// The part of a section that leads to the rest: all but the devices. `None` where its head says what cannot be.
    pub fn small(section: &[u8]) -> Option<Range<usize>> {
        if section.is_empty() {
            return Some(0..0);
        }
        let (deadlines, tacs) = (u32_at(section, 0)? as usize, u32_at(section, 4)? as usize);
        if !(1..=MOST).contains(&deadlines) || !(1..=TAC_LIMIT as usize).contains(&tacs) {
            return None;
        }
        let end = HEAD + 4 * deadlines + 12 * tacs + 8;
        (end <= section.len()).then_some(0..end)
    }

    /// Find the parts of a section and check what [`small`](Self::small) tells of; the devices are not read.
    pub fn open(section: &[u8]) -> Result<Self, BadSection> {
        let devices_at = Self::small(section).ok_or(BadSection("shorter than its head says"))?.end;
        if section.is_empty() {
            return Ok(Self { tacs: 0, tacs_at: 0, starts_at: 0, devices_at, count: 0 });
        }
        let head = |at| u32_at(section, at).unwrap_or_default() as usize;
        let (deadlines, tacs) = (head(0), head(4));
        let count = u64_at(section, 8).unwrap_or_default();
        if (section.len() - devices_at) as u64 != count.saturating_mul(4) {
            return Err(BadSection("not as many devices as its head says"));
        }
        let tacs_at = HEAD + 4 * deadlines;
        let starts_at = tacs_at + 4 * tacs;
        let found = Self { tacs, tacs_at, starts_at, devices_at, count };
        let rising = |at: usize, width: usize| {
            let number = |place: usize| match width {
                4 => u32_at(section, at + 4 * place).map(u64::from),
                _ => u64_at(section, at + 8 * place),
            };
            (1..tacs).all(|place| number(place - 1) < number(place))
        };
        let last = found.tac(section, tacs - 1).is_some_and(|tac| tac < TAC_LIMIT);
        let ends = [found.start(section, 0), found.start(section, tacs)] == [Some(0), Some(count)];
        let last_start = found.start(section, tacs - 1).is_some_and(|start| start < count);
        if !(rising(tacs_at, 4) && last && rising(starts_at, 8) && ends && last_start) {
            return Err(BadSection("the TACs are not in order"));
        }
        Ok(found)
    }

    /// Check every device.
    pub fn check(&self, section: &[u8]) -> Result<(), BadSection> {
        let deadlines = u32_at(section, 0).unwrap_or_default();
        let sound = |&device: &u32| {
            u64::from(device >> PLACE_BITS) < SNRS_PER_TAC && device & ((1 << PLACE_BITS) - 1) < deadlines
        };
        for tac in 0..self.tacs {
            let devices = self.devices(section, tac).ok_or(BadSection("the TACs are not in order"))?;
            let numbers = devices.iter().map(|device| u32::from_le_bytes(*device));
            let rising = numbers.clone().is_sorted_by(|one, next| one >> PLACE_BITS < next >> PLACE_BITS);
            if !rising || !numbers.clone().all(|device| sound(&device)) {
                return Err(BadSection("the devices of a TAC are not in order"));
            }
        }
        Ok(())
    }

    /// How many devices have a deadline.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// A device's deadline. `section` is what was opened.
    pub fn get(&self, section: &[u8], imei: Imei) -> Option<UnixTime> {
        let (mut from, mut to) = (0, self.tacs);
        while from < to {
            let middle = from.midpoint(to);
            if self.tac(section, middle)? < imei.tac() {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        if from == self.tacs || self.tac(section, from)? != imei.tac() {
            return None;
        }
        let devices = self.devices(section, from)?;
        let at = devices.partition_point(|device| u32::from_le_bytes(*device) >> PLACE_BITS < imei.snr());
        let device = u32::from_le_bytes(*devices.get(at)?);
        if device >> PLACE_BITS != imei.snr() {
            return None;
        }
        let place = (device & ((1 << PLACE_BITS) - 1)) as usize;
        if HEAD + 4 * place >= self.tacs_at {
            return None;
        }
        u32_at(section, HEAD + 4 * place)
    }

    fn tac(&self, section: &[u8], number: usize) -> Option<u32> {
        u32_at(section, self.tacs_at + 4 * number)
    }

    fn start(&self, section: &[u8], number: usize) -> Option<u64> {
        u64_at(section, self.starts_at + 8 * number)
    }

    /// The devices of the TAC of that number.
    fn devices<'s>(&self, section: &'s [u8], tac: usize) -> Option<&'s [[u8; 4]]> {
        let (devices, _) = section.get(self.devices_at..)?.as_chunks();
        let start = usize::try_from(self.start(section, tac)?).ok()?;
        devices.get(start..usize::try_from(self.start(section, tac + 1)?).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::runs::tests::shelf;
    use super::*;

    fn section(model: &BTreeMap<u64, UnixTime>) -> Vec<u8> {
        let (mut table, mut builder, mut shelf) = (Table::default(), Builder::default(), Shelf::default());
        for (&key, &deadline) in model {
            let place = table.place(deadline).unwrap();
            builder.push(Imei::from_number(key).unwrap(), place, &mut shelf).unwrap();
        }
        let mut section = Vec::new();
        assert_eq!(builder.finish(&table, &shelf, &mut section).unwrap(), model.len() as u64);
        section
    }

    #[test]
    fn no_deadlines_take_no_bytes() {
        let section = section(&BTreeMap::new());
        assert!(section.is_empty());
        let deadlines = Deadlines::open(&section).unwrap();
        deadlines.check(&section).unwrap();
        assert_eq!(deadlines.get(&section, Imei::from_number(1).unwrap()), None);
    }

    #[test]
    fn so_many_different_deadlines_fit_and_no_more() {
        let mut table = Table::default();
        for deadline in 1..=4096 {
            assert_eq!(table.place(deadline), Some(deadline as u16));
        }
        assert_eq!((table.place(4097), table.place(4096)), (None, Some(4096)));
    }

    #[test]
    fn the_earlier_of_two_is_the_earlier_deadline_and_none_is_the_latest() {
        let mut table = Table::default();
        let (late, early) = (table.place(200).unwrap(), table.place(100).unwrap());
        for (one, other, earlier) in
            [(late, early, early), (early, late, early), (0, late, late), (late, 0, late), (0, 0, 0)]
        {
            assert_eq!(table.earlier(one, other), earlier);
        }
    }

    #[test]
    fn what_is_put_aside_comes_back_in_its_place() {
        // Somewhat more than is held twice.
        const DEVICES: u64 = 2 * (HELD as u64 / 4) + 5_000;
        let device = |number: u64| Imei::from_number(35_209_900_000_000 + number).unwrap();
        let (mut table, mut shelf) = (Table::default(), shelf(usize::MAX));
        let places = [100, 200, 300].map(|deadline| table.place(deadline).unwrap());
        let mut builder = Builder::default();
        for number in 0..DEVICES {
            builder.push(device(number), places[number as usize % 3], &mut shelf).unwrap();
        }
        assert_eq!(builder.aside.len(), 2);
        let mut section = Vec::new();
        builder.finish(&table, &shelf, &mut section).unwrap();
        let deadlines = Deadlines::open(&section).unwrap();
        deadlines.check(&section).unwrap();
        for number in (0..DEVICES).step_by(997).chain([DEVICES - 1]) {
            let found = deadlines.get(&section, device(number));
            assert_eq!(found, Some([100, 200, 300][number as usize % 3]));
        }
        assert_eq!(deadlines.get(&section, device(DEVICES)), None);
    }

    proptest! {
        #[test]
        fn what_was_built_is_found_and_nothing_else(
            model in prop::collection::btree_map((0u64..6, 0u64..40), 1u32..20, 0..200)
        ) {
            let key = |(tac, snr): (u64, u64)| (35_209_900 + tac) * 1_000_000 + snr * 25_641;
            let model: BTreeMap<u64, UnixTime> = model.into_iter().map(|(place, at)| (key(place), at)).collect();
            let section = section(&model);
            let deadlines = Deadlines::open(&section).unwrap();
            deadlines.check(&section).unwrap();
            prop_assert_eq!(deadlines.len(), model.len() as u64);
            for number in (0..7).flat_map(|tac| (0..40).map(move |snr| key((tac, snr)))) {
                for number in [number, number + 1] {
                    let found = deadlines.get(&section, Imei::from_number(number).unwrap());
                    prop_assert_eq!(found, model.get(&number).copied());
                }
            }
        }

        #[test]
        fn garbage_in_a_section_never_panics(
            model in prop::collection::btree_map(35_209_900_000_000u64..35_209_905_000_000, 1u32..9, 1..50),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let good = section(&model);
            let opened_before = Deadlines::open(&good).unwrap();
            let mut bad = good.clone();
            for (at, byte) in changes {
                let at = at.index(bad.len());
                bad[at] = byte;
            }
            for section in [&bad[..], &good[..cut.index(good.len())]] {
                for &key in model.keys() {
                    let imei = Imei::from_number(key).unwrap();
                    let _ = opened_before.get(section, imei);
                    if let Ok(deadlines) = Deadlines::open(section) {
                        let _ = (deadlines.get(section, imei), deadlines.check(section));
                    }
                }
            }
        }
    }
}
