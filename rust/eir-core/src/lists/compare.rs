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

impl<'a> Said<'a> {
    /// When and why DIRBS will block it, where it will.
    fn told(self) -> Option<(UnixTime, &'a str)> {
        let until = self.until.filter(|_| self.list == List::Grey)?;
        Some((until, self.reason))
    }
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

/// A file of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeltaKind {
    /// Devices whose listing is another, or none any more.
    Devices,
    /// Pairs that come and go.
    Pairs,
    /// Devices that come to the black list or leave it, or are there for another reason, as DIRBS gives them out.
    DirbsBlacklist,
    /// The same of grey devices with a deadline.
    DirbsNotifications,
    /// Pairs that come and go, as DIRBS gives them out.
    DirbsExceptions,
}

const DELTA_KINDS: [(&str, DeltaKind); 5] = [
    ("devices", DeltaKind::Devices),
    ("pairs", DeltaKind::Pairs),
    ("dirbs-blacklist", DeltaKind::DirbsBlacklist),
    ("dirbs-notifications", DeltaKind::DirbsNotifications),
    ("dirbs-exceptions", DeltaKind::DirbsExceptions),
];

impl DeltaKind {
    /// The kind by the name that people give it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        DELTA_KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    fn header(self) -> &'static str {
        match self {
            Self::Devices => "change_type,imei,list,reason,until\n",
            Self::Pairs => "change_type,imei,imsi\n",
            Self::DirbsBlacklist => "imei,block_date,reasons,change_type\n",
            Self::DirbsNotifications => "imei,imsi,msisdn,block_date,reasons,change_type\n",
            Self::DirbsExceptions => "imei,imsi,msisdn,change_type\n",
        }
    }
}

/// Write a file of the delta that leads from one snapshot to another; gives the rows. Days are those of `zone`.
///
/// # Errors
/// Those of `out`, which must be thrown away then.
pub fn write_delta(
    old: &Snapshot,
    new: &Snapshot,
    kind: DeltaKind,
    zone: &Zone,
    out: &mut dyn Write,
) -> io::Result<u64> {
    out.write_all(kind.header().as_bytes())?;
    if matches!(kind, DeltaKind::Pairs | DeltaKind::DirbsExceptions) {
        return write_pairs(old, new, kind, out);
    }
    let day = |until| zone.last_day(until).date();
    // A snapshot does not say since when a device is black.
    let as_of = day(new.header().created_at.saturating_add(1));
    let mut rows = 0;
    walk(old, new, |imei, before, after| {
        match kind {
            _ if before == after => return Ok(()),
            DeltaKind::DirbsBlacklist => {
                let black = |said: &Said<'_>| said.list == List::Black;
                let (change, reason) = match (before.filter(black), after.filter(black)) {
                    (None, Some(after)) => ("blocked", after.reason),
                    (Some(_), Some(after)) => ("changed", after.reason),
                    (Some(before), None) => ("unblocked", before.reason),
                    (None, None) => return Ok(()),
                };
                writeln!(out, "{imei},{as_of},{reason},{change}")?;
            }
            DeltaKind::DirbsNotifications => {
                let ((until, reason), change) = match (before.and_then(Said::told), after.and_then(Said::told)) {
                    (None, Some(after)) => (after, "new"),
                    (Some(before), Some(after)) if before != after => (after, "changed"),
                    (Some(before), None) if after.is_some_and(|said| said.list == List::Black) => {
                        (before, "blacklisted")
                    }
                    (Some(before), None) => (before, "resolved"),
                    _ => return Ok(()),
                };
                writeln!(out, "{imei},,,{},{reason},{change}", day(until))?;
            }
            _ => match after {
                None => writeln!(out, "remove,{imei},,,")?,
                Some(Said { list, reason, until }) => {
                    writeln!(out, "set,{imei},{list},{reason},{}", until.map(day).unwrap_or_default())?;
                }
            },
        }
        rows += 1;
        Ok(())
    })?;
    Ok(rows)
}

fn write_pairs(old: &Snapshot, new: &Snapshot, kind: DeltaKind, out: &mut dyn Write) -> io::Result<u64> {
    let mut rows = 0;
    for (gone, from, to) in [(true, old, new), (false, new, old)] {
        for (imei, imsi) in from.pairs().filter(|(imei, imsi)| !to.paired(*imei, *imsi)) {
            let imsi = imsi.digits();
            if kind == DeltaKind::Pairs {
                writeln!(out, "{},{imei},{imsi}", if gone { "remove" } else { "set" })?;
            } else {
                writeln!(out, "{imei},{imsi},,{}", if gone { "removed" } else { "added" })?;
            }
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
