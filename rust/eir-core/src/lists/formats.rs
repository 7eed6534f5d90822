//! The kinds of list files: their names, and the columns that tell one from another (docs/formats.md).
//!
//! Its one job: the table of them. `rows` and `foreign` read their rows by it; who is given files asks it for a kind by
//! name. It never reads a file.

use std::fmt;

use super::zone::parse_day;
use crate::in_use::Day;

/// The column that makes a file one of changes.
pub(super) const CHANGE_TYPE: &str = "change_type";
/// How the name of a kind of records begins; the date that they are held to follows.
const SEEN_BEFORE: &str = "seen-before-";

/// What a list file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Listed devices.
    Devices,
    /// IMEI and TAC ranges, white or black.
    Ranges,
    /// The TACs that the GSMA has allocated.
    AllocatedTacs,
    /// TACs of devices that need no verification (M2M).
    ExemptTacs,
    /// Ranges of IMSIs that need no verified device.
    ExemptImsis,
    /// Subscribers that may use a cloned or locked IMEI.
    Pairs,
    /// Of a delta: devices whose listing is another, or none any more.
    DeviceChanges,
    /// Of a delta: pairs that come and go.
    PairChanges,
    /// IMEIs that are white, one a line.
    PlainWhite,
    /// IMEIs that are black, one a line.
    PlainBlack,
    /// When an operator saw which device first: white those seen before a day, and no others.
    SeenBefore(Day),
    /// The GSMA's device database, for the TACs that it has allocated.
    GsmaTacs,
    /// What DIRBS blocks.
    DirbsBlacklist,
    /// The pairs of DIRBS.
    DirbsExceptions,
    /// What DIRBS will block, and when.
    DirbsNotifications,
    /// Of a delta: changes of what DIRBS blocks, with a column that says which.
    DirbsBlacklistChanges,
    /// Of a delta: what DIRBS blocks from now on, or for other reasons.
    DirbsBlocked,
    /// Of a delta: what DIRBS blocks no more.
    DirbsUnblocked,
    /// Of a delta: changes of the pairs of DIRBS, with a column that says which.
    DirbsExceptionChanges,
    /// Of a delta: new pairs of DIRBS.
    DirbsAdded,
    /// Of a delta: pairs that DIRBS has no more.
    DirbsRemoved,
    /// Of a delta: changes of what DIRBS will block, with a column that says which.
    DirbsNotificationChanges,
    /// Of a delta: what DIRBS will block from now on, or at another time.
    DirbsNew,
    /// Of a delta: what DIRBS will block no more.
    DirbsResolved,
    /// Stolen devices, as DIRBS is given them.
    Stolen,
    /// Barred devices, as DIRBS is given them.
    Barred,
    /// Barred TACs, as DIRBS is given them.
    BarredTacs,
    /// Devices that are never blocked, as DIRBS is given them.
    Golden,
    /// Pairs, as DIRBS is given them.
    Pairing,
    /// Registered devices, as DIRBS is given them.
    Registration,
}

/// Kinds of a snapshot's files by name, but for [`FileKind::SeenBefore`].
const OF_SNAPSHOT: [(&str, FileKind); 18] = [
    ("devices", FileKind::Devices),
    ("ranges", FileKind::Ranges),
    ("allocated-tacs", FileKind::AllocatedTacs),
    ("exempt-tacs", FileKind::ExemptTacs),
    ("exempt-imsis", FileKind::ExemptImsis),
    ("pairs", FileKind::Pairs),
    ("plain-white", FileKind::PlainWhite),
    ("plain-black", FileKind::PlainBlack),
    ("gsma-tac", FileKind::GsmaTacs),
    ("dirbs-blacklist", FileKind::DirbsBlacklist),
    ("dirbs-exceptions", FileKind::DirbsExceptions),
    ("dirbs-notifications", FileKind::DirbsNotifications),
    ("stolen", FileKind::Stolen),
    ("barred", FileKind::Barred),
    ("barred-tac", FileKind::BarredTacs),
    ("golden", FileKind::Golden),
    ("pairing", FileKind::Pairing),
    ("registration", FileKind::Registration),
];

/// Kinds of a delta's files by name.
const OF_DELTA: [(&str, FileKind); 11] = [
    ("devices", FileKind::DeviceChanges),
    ("pairs", FileKind::PairChanges),
    ("dirbs-blacklist", FileKind::DirbsBlacklistChanges),
    ("dirbs-blocked", FileKind::DirbsBlocked),
    ("dirbs-unblocked", FileKind::DirbsUnblocked),
    ("dirbs-exceptions", FileKind::DirbsExceptionChanges),
    ("dirbs-added", FileKind::DirbsAdded),
    ("dirbs-removed", FileKind::DirbsRemoved),
    ("dirbs-notifications", FileKind::DirbsNotificationChanges),
    ("dirbs-new", FileKind::DirbsNew),
    ("dirbs-resolved", FileKind::DirbsResolved),
];

fn named(kinds: &[(&str, FileKind)], name: &str) -> Option<FileKind> {
    kinds.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

impl FileKind {
    /// The kind of a snapshot's file by the name that people give it.
    #[must_use]
    pub fn of_snapshot(name: &str) -> Option<Self> {
        match name.strip_prefix(SEEN_BEFORE) {
            Some(day) => parse_day(day.as_bytes()).map(Self::SeenBefore),
            None => named(&OF_SNAPSHOT, name),
        }
    }

    /// The kind of a delta's file by the name that people give it.
    #[must_use]
    pub fn of_delta(name: &str) -> Option<Self> {
        named(&OF_DELTA, name)
    }

    /// The columns that its header must name, in any order and among any others; none where it has no header.
    #[must_use]
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Devices => &["imei", "list", "reason"],
            Self::Ranges => &["from", "to", "list", "reason"],
            Self::AllocatedTacs | Self::ExemptTacs | Self::GsmaTacs | Self::BarredTacs => &["tac"],
            Self::ExemptImsis => &["imsi_from", "imsi_to"],
            Self::Pairs | Self::Pairing | Self::DirbsExceptions | Self::DirbsAdded | Self::DirbsRemoved => {
                &["imei", "imsi"]
            }
            Self::DeviceChanges => &[CHANGE_TYPE, "imei", "list", "reason"],
            Self::PairChanges => &[CHANGE_TYPE, "imei", "imsi"],
            Self::PlainWhite | Self::PlainBlack => &[],
            Self::SeenBefore(_) => &["imei", "first_seen"],
            Self::DirbsBlacklist | Self::DirbsBlocked | Self::DirbsUnblocked => &["imei", "block_date", "reasons"],
            Self::DirbsNotifications | Self::DirbsNew | Self::DirbsResolved => {
                &["imei", "block_date", "reasons", "imsi"]
            }
            Self::DirbsBlacklistChanges => &["imei", "block_date", "reasons", CHANGE_TYPE],
            Self::DirbsExceptionChanges => &["imei", "imsi", CHANGE_TYPE],
            Self::DirbsNotificationChanges => &["imei", "block_date", "reasons", CHANGE_TYPE, "imsi"],
            Self::Stolen => &["imei", "reporting_date"],
            Self::Barred => &["imei"],
            Self::Golden => &["golden_imei"],
            Self::Registration => &["approved_imei"],
        }
    }

    /// The columns that its header may name too, each at most once.
    #[must_use]
    pub fn optional(self) -> &'static [&'static str] {
        match self {
            Self::Devices | Self::DeviceChanges => &["until"],
            Self::Stolen | Self::Registration => &["status"],
            _ => &[],
        }
    }

    /// The columns that its header must not name: those of another kind that has all of this one's, and means something
    /// else by them.
    #[must_use]
    pub(super) fn others(self) -> &'static [&'static str] {
        match self {
            // Those who are still to be told would be blocked.
            Self::DirbsBlacklist | Self::DirbsBlocked | Self::DirbsUnblocked | Self::DirbsBlacklistChanges => &["imsi"],
            // Who is to be told would be paired.
            Self::Pairing
            | Self::DirbsExceptions
            | Self::DirbsAdded
            | Self::DirbsRemoved
            | Self::DirbsExceptionChanges => &["block_date"],
            Self::Barred => &["imsi", "list", "status", "block_date", "reporting_date", "first_seen"],
            _ => &[],
        }
    }

    /// Whether others make such files, by rules of their own.
    #[must_use]
    pub(super) fn is_foreign(self) -> bool {
        !matches!(
            self,
            Self::Devices
                | Self::Ranges
                | Self::AllocatedTacs
                | Self::ExemptTacs
                | Self::ExemptImsis
                | Self::Pairs
                | Self::DeviceChanges
                | Self::PairChanges
        )
    }

    /// Whether it is one of DIRBS, what it gives out or is given.
    #[must_use]
    pub(super) fn is_of_dirbs(self) -> bool {
        let of_others = matches!(self, Self::PlainWhite | Self::PlainBlack | Self::SeenBefore(_) | Self::GsmaTacs);
        self.is_foreign() && !of_others
    }

    /// Whether its TACs are those that the GSMA has allocated.
    #[must_use]
    pub(super) fn is_of_allocated_tacs(self) -> bool {
        matches!(self, Self::AllocatedTacs | Self::GsmaTacs)
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Devices => "devices",
            Self::Ranges => "ranges",
            Self::AllocatedTacs => "allocated TACs",
            Self::ExemptTacs => "exempt TACs",
            Self::ExemptImsis => "exempt IMSI ranges",
            Self::Pairs => "pairs",
            Self::DeviceChanges => "changes of devices",
            Self::PairChanges => "changes of pairs",
            Self::PlainWhite | Self::PlainBlack => "IMEIs",
            Self::SeenBefore(_) => "first sightings",
            Self::GsmaTacs => "the GSMA's devices",
            Self::DirbsBlacklist => "the blacklist of DIRBS",
            Self::DirbsExceptions => "the exceptions of DIRBS",
            Self::DirbsNotifications => "the notifications of DIRBS",
            Self::DirbsBlacklistChanges | Self::DirbsBlocked | Self::DirbsUnblocked => {
                "changes of the blacklist of DIRBS"
            }
            Self::DirbsExceptionChanges | Self::DirbsAdded | Self::DirbsRemoved => "changes of the exceptions of DIRBS",
            Self::DirbsNotificationChanges | Self::DirbsNew | Self::DirbsResolved => {
                "changes of the notifications of DIRBS"
            }
            Self::Stolen => "stolen devices",
            Self::Barred => "barred devices",
            Self::BarredTacs => "barred TACs",
            Self::Golden => "golden devices",
            Self::Pairing => "pairings",
            Self::Registration => "registered devices",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_name_and_a_sighting_its_day() {
        for (name, kind) in OF_SNAPSHOT {
            assert_eq!(FileKind::of_snapshot(name), Some(kind));
            assert!(kind.others().iter().all(|other| !kind.columns().contains(other)));
        }
        for (name, kind) in OF_DELTA {
            assert_eq!(FileKind::of_delta(name), Some(kind));
        }
        assert_eq!(FileKind::of_snapshot("seen-before-2026-05-01"), Some(FileKind::SeenBefore(20_574)));
        for name in ["seen-before-", "seen-before-2026-02-30", "dirbs-new", "Devices", ""] {
            assert_eq!(FileKind::of_snapshot(name), None);
        }
        assert_eq!(FileKind::of_delta("stolen"), None);
    }
}
