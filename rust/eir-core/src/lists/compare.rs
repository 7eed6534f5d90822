//! Two snapshots side by side: how many devices differ, and the delta that leads from one to the other.
//!
//! Its one job: walk both in one go, in the order of the devices. The command line calls it. It holds one device of each
//! at a time and never opens a file.

use std::cmp::Ordering;
use std::io::{self, Write};

use super::zone::Zone;
use super::{List, Snapshot};
use crate::UnixTime;
use crate::imei::Imei;

/// What a snapshot says of a listed device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<'a> {
    /// The list.
    pub list: List,
    /// Why; empty where nothing is said.
    pub reason: &'a str,
    /// The first second without access, of grey devices.
    pub until: Option<UnixTime>,
}

/// How many differ.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Devices by the list that they leave and that they come to, by the lists' numbers; the fourth is none.
    moved: [[u64; 4]; 4],
    /// Devices that stay on their list with another reason or deadline.
    pub changed: u64,
    /// Pairs that there are no more.
    pub pairs_gone: u64,
    /// New pairs.
    pub pairs_come: u64,
    /// What else differs, which no delta brings, by its name in a snapshot's counts.
    pub others: Vec<&'static str>,
}

impl Comparison {
    /// Every change of a list with how many devices make it: from, to, where `None` is no list. Those that stay on
    /// their list are among them.
    pub fn moved(&self) -> impl Iterator<Item = (Option<List>, Option<List>, u64)> {
        (0..).zip(&self.moved).flat_map(|(from, row)| {
            let counts = (0..).zip(row).filter(|(_, count)| **count > 0);
            counts.map(move |(to, count)| (List::from_number(from), List::from_number(to), *count))
        })
    }
}

/// Where a list is in [`Comparison::moved`].
fn place(said: Option<Said<'_>>) -> usize {
    said.map_or(3, |said| said.list as usize)
}

/// Compare two snapshots.
#[must_use]
pub fn compare(old: &Snapshot, new: &Snapshot) -> Comparison {
    let mut found = Comparison::default();
    // Counting cannot fail.
    let _ = walk(old, new, |_, before, after| {
        if let Some(count) = found.moved.get_mut(place(before)).and_then(|row| row.get_mut(place(after))) {
            *count += 1;
        }
        found.changed += u64::from(place(before) == place(after) && before != after);
        Ok(())
    });
    found.pairs_gone = old.pairs().filter(|(imei, imsi)| !new.paired(*imei, *imsi)).count() as u64;
    found.pairs_come = new.pairs().filter(|(imei, imsi)| !old.paired(*imei, *imsi)).count() as u64;
    let same_ranges = || {
        let ranges = |snapshot| Snapshot::ranges(snapshot).map(|(from, to, tag)| (from, to, snapshot.tag_info(tag)));
        ranges(old).eq(ranges(new))
    };
    for (name, same) in [
        ("ranges", same_ranges()),
        ("exempt_tacs", old.exempt_tacs().eq(new.exempt_tacs())),
        ("allocated_tacs", old.allocated_tacs().eq(new.allocated_tacs())),
        ("exempt_imsis", old.exempt_imsis().eq(new.exempt_imsis())),
    ] {
        if !same {
            found.others.push(name);
        }
    }
    found
}

/// Write the delta's file of devices that leads from one snapshot to another; gives the rows. Days are those of `zone`.
///
/// # Errors
/// Those of `out`, which must be thrown away then.
pub fn write_delta(old: &Snapshot, new: &Snapshot, zone: &Zone, out: &mut dyn Write) -> io::Result<u64> {
    out.write_all(b"change_type,imei,list,reason,until\n")?;
    let mut rows = 0;
    walk(old, new, |imei, before, after| {
        match after {
            _ if before == after => return Ok(()),
            None => writeln!(out, "remove,{imei},,,")?,
            Some(Said { list, reason, until }) => {
                let until = until.map(|until| zone.last_day(until).date()).unwrap_or_default();
                writeln!(out, "set,{imei},{list},{reason},{until}")?;
            }
        }
        rows += 1;
        Ok(())
    })?;
    Ok(rows)
}

/// Write the delta's file of pairs that leads from one snapshot to another; gives the rows.
///
/// # Errors
/// Those of `out`, which must be thrown away then.
pub fn write_pair_delta(old: &Snapshot, new: &Snapshot, out: &mut dyn Write) -> io::Result<u64> {
    out.write_all(b"change_type,imei,imsi\n")?;
    let mut rows = 0;
    for (change, from, to) in [("remove", old, new), ("set", new, old)] {
        for (imei, imsi) in from.pairs().filter(|(imei, imsi)| !to.paired(*imei, *imsi)) {
            writeln!(out, "{change},{imei},{}", imsi.digits())?;
            rows += 1;
        }
    }
    Ok(rows)
}

/// Call `visit` for every device that one of them names, with what each says, in the order of the devices.
fn walk(
    old: &Snapshot,
    new: &Snapshot,
    mut visit: impl FnMut(Imei, Option<Said<'_>>, Option<Said<'_>>) -> io::Result<()>,
) -> io::Result<()> {
    let (mut befores, mut afters) = (old.devices(), new.devices());
    let (mut before, mut after) = (befores.next(), afters.next());
    loop {
        let order = match (before, after) {
            (Some((one, _)), Some((other, _))) => one.cmp(&other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return Ok(()),
        };
        let gone = before.filter(|_| order.is_le()).map(|(imei, tag)| (imei, old.said(imei, tag)));
        let come = after.filter(|_| order.is_ge()).map(|(imei, tag)| (imei, new.said(imei, tag)));
        if let Some((imei, _)) = gone.or(come) {
            visit(imei, gone.map(|(_, said)| said), come.map(|(_, said)| said))?;
        }
        if order.is_le() {
            before = befores.next();
        }
        if order.is_ge() {
            after = afters.next();
        }
    }
}
