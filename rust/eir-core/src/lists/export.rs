//! From a snapshot back to list files (docs/formats.md).
//!
//! Its one job: write rows of one kind, as they are read again, or as others read them. The command line calls it. It
//! holds one row at a time and never opens a file.

use std::io::{self, Write};

use super::foreign::{BARRED, STOLEN};
use super::zone::Zone;
use super::{List, Snapshot};
use crate::imei::SNRS_PER_TAC;

/// What is written of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportKind {
    /// All listed devices.
    Devices,
    /// IMEI ranges, their overlaps resolved.
    Ranges,
    /// The TACs that the GSMA has allocated.
    AllocatedTacs,
    /// TACs of devices that need no verification.
    ExemptTacs,
    /// Ranges of IMSIs that need no verified device.
    ExemptImsis,
    /// Subscribers that may use a cloned or locked IMEI.
    Pairs,
    /// The IMEIs on a list, one a line.
    Plain(List),
    /// Black devices as DIRBS gives them out.
    DirbsBlacklist,
    /// Pairs as DIRBS gives them out.
    DirbsExceptions,
    /// Grey devices with a deadline as DIRBS gives them out.
    DirbsNotifications,
    /// Black devices that are stolen, as DIRBS is given them.
    Stolen,
    /// Black devices that are barred, as DIRBS is given them.
    Barred,
    /// TACs whose devices are all barred, as DIRBS is given them.
    BarredTacs,
    /// White devices, as DIRBS is given those that are never blocked.
    Golden,
    /// White devices, as DIRBS is given those that are registered.
    Registration,
    /// Pairs as DIRBS is given them.
    Pairing,
    /// Allocated TACs as the GSMA gives them out.
    GsmaTacs,
}

const KINDS: [(&str, ExportKind); 19] = [
    ("devices", ExportKind::Devices),
    ("ranges", ExportKind::Ranges),
    ("allocated-tacs", ExportKind::AllocatedTacs),
    ("exempt-tacs", ExportKind::ExemptTacs),
    ("exempt-imsis", ExportKind::ExemptImsis),
    ("pairs", ExportKind::Pairs),
    ("plain-white", ExportKind::Plain(List::White)),
    ("plain-black", ExportKind::Plain(List::Black)),
    ("plain-grey", ExportKind::Plain(List::Grey)),
    ("dirbs-blacklist", ExportKind::DirbsBlacklist),
    ("dirbs-exceptions", ExportKind::DirbsExceptions),
    ("dirbs-notifications", ExportKind::DirbsNotifications),
    ("stolen", ExportKind::Stolen),
    ("barred", ExportKind::Barred),
    ("barred-tac", ExportKind::BarredTacs),
    ("golden", ExportKind::Golden),
    ("registration", ExportKind::Registration),
    ("pairing", ExportKind::Pairing),
    ("gsma-tac", ExportKind::GsmaTacs),
];

impl ExportKind {
    /// The kind by the name that people give it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    fn header(self) -> &'static str {
        match self {
            Self::Devices => "imei,list,reason,until\n",
            Self::Ranges => "from,to,list,reason\n",
            Self::AllocatedTacs | Self::ExemptTacs | Self::BarredTacs => "tac\n",
            Self::ExemptImsis => "imsi_from,imsi_to\n",
            Self::Pairs | Self::Pairing => "imei,imsi\n",
            Self::Plain(_) => "",
            Self::DirbsBlacklist => "imei,block_date,reasons\n",
            Self::DirbsExceptions => "imei,imsi,msisdn\n",
            Self::DirbsNotifications => "imei,imsi,msisdn,block_date,reasons\n",
            Self::Stolen => "imei,reporting_date,status\n",
            Self::Barred => "imei\n",
            Self::Golden => "golden_imei\n",
            Self::Registration => {
                "approved_imei,make,model,status,model_number,brand_name,device_type,radio_interface,device_id\n"
            }
            Self::GsmaTacs => "TAC|Manufacturer|Model_Name|Bands|Allocation_Date|Device_Type|Optional_Fields\n",
        }
    }
}

/// Write all rows of a kind, and the header that it has; gives the rows. Days are those of `zone`.
///
/// # Errors
/// Those of `out`, which must be thrown away then.
pub fn export(snapshot: &Snapshot, kind: ExportKind, zone: &Zone, out: &mut dyn Write) -> io::Result<u64> {
    out.write_all(kind.header().as_bytes())?;
    let mut rows = 0;
    match kind {
        ExportKind::Ranges => {
            for (from, to, tag) in snapshot.ranges() {
                let info = snapshot.tag_info(tag);
                writeln!(out, "{from:014},{to:014},{},{}", info.list, info.reason)?;
                rows += 1;
            }
        }
        ExportKind::AllocatedTacs | ExportKind::GsmaTacs | ExportKind::ExemptTacs => {
            let exempt = kind == ExportKind::ExemptTacs;
            let end = if kind == ExportKind::GsmaTacs { "||||||" } else { "" };
            for tac in if exempt { snapshot.exempt_tacs() } else { snapshot.allocated_tacs() } {
                writeln!(out, "{tac:08}{end}")?;
                rows += 1;
            }
        }
        ExportKind::BarredTacs => {
            let barred = |tag| {
                let info = snapshot.tag_info(tag);
                info.list == List::Black && info.reason == BARRED
            };
            for (from, to, _) in snapshot.ranges().filter(|(_, _, tag)| barred(*tag)) {
                for tac in from.div_ceil(SNRS_PER_TAC)..(to + 1) / SNRS_PER_TAC {
                    writeln!(out, "{tac:08}")?;
                    rows += 1;
                }
            }
        }
        ExportKind::ExemptImsis => {
            for (from, to) in snapshot.exempt_imsis() {
                writeln!(out, "{from:015},{to:015}")?;
                rows += 1;
            }
        }
        ExportKind::Pairs | ExportKind::Pairing | ExportKind::DirbsExceptions => {
            let end = if kind == ExportKind::DirbsExceptions { "," } else { "" };
            for (imei, imsi) in snapshot.pairs() {
                writeln!(out, "{imei},{}{end}", imsi.digits())?;
                rows += 1;
            }
        }
        _ => {
            // A snapshot does not say since when a device is black.
            let as_of = zone.last_day(snapshot.header().created_at.saturating_add(1)).date();
            for (imei, tag) in snapshot.devices() {
                let info = snapshot.tag_info(tag);
                let (list, reason) = (info.list, &info.reason);
                let until = || snapshot.said(imei, tag).until.map(|until| zone.last_day(until).date());
                match kind {
                    ExportKind::Devices => writeln!(out, "{imei},{list},{reason},{}", until().unwrap_or_default())?,
                    ExportKind::Plain(wanted) if wanted == list => writeln!(out, "{imei}")?,
                    ExportKind::DirbsBlacklist if list == List::Black => writeln!(out, "{imei},{as_of},{reason}")?,
                    ExportKind::DirbsNotifications if list == List::Grey => match until() {
                        Some(until) => writeln!(out, "{imei},,,{until},{reason}")?,
                        None => continue,
                    },
                    ExportKind::Stolen if list == List::Black && reason == STOLEN => {
                        writeln!(out, "{imei},,blacklist")?
                    }
                    ExportKind::Barred if list == List::Black && reason == BARRED => writeln!(out, "{imei}")?,
                    ExportKind::Golden if list == List::White => writeln!(out, "{imei}")?,
                    ExportKind::Registration if list == List::White => {
                        writeln!(out, "{imei},,,whitelist,,,,,{imei}")?;
                    }
                    _ => continue,
                }
                rows += 1;
            }
        }
    }
    Ok(rows)
}
