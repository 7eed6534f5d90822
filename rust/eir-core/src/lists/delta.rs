//! From the files of a delta to what it changes.
//!
//! Its one job: read the files, hold each device and pair to one change, and turn days into seconds. Called by the
//! control plane, which then has [`super::Deltas`] take the changes. It never decides whether a delta is taken.

use std::collections::hash_map::Entry as Place;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::Arc;

use super::List;
use super::deltas::{Change, Entry};
use super::formats::FileKind;
use super::report::{FileError, FileFault, FileReports};
use super::rows::{self, Row, Tolerance};
use super::zone::Zone;
use crate::UnixTime;
use crate::imei::{Imei, Imsi};
use crate::in_use::Day;

/// Most changes of a delta: what is larger comes as a snapshot.
const MOST_CHANGES: u64 = 1 << 26;

/// What a delta changes, each device and pair once, in the order of the devices.
#[derive(Debug, Default)]
pub struct Delta {
    /// Listings.
    pub devices: Vec<Change>,
    /// Pairs, and whether they are there from now on.
    pub pairs: Vec<(Imei, Imsi, bool)>,
    /// What was read.
    pub files: FileReports,
}

/// A delta while its files are read.
#[derive(Debug)]
pub struct DeltaReader {
    zone: Zone,
    tolerance: Tolerance,
    /// Rows that its files may have, and those that were read.
    most: u64,
    rows: u64,
    entries: HashMap<(List, String, Option<Day>), Entry>,
    delta: Delta,
    /// What others' files say: of a device once for each subscriber, and in files that know nothing of each other.
    foreign: BTreeMap<Imei, Option<Entry>>,
    foreign_pairs: BTreeMap<(Imei, Imsi), bool>,
}

impl DeltaReader {
    /// Nothing read yet; dates are meant in `zone`, of each file's rows `max_bad_share` may be wrong, and all files
    /// have `most` rows that say something.
    #[must_use]
    pub fn new(zone: Zone, max_bad_share: f64, most: u64) -> Self {
        let tolerance = Tolerance { strict: false, max_bad_share };
        Self {
            zone,
            tolerance,
            most: most.min(MOST_CHANGES),
            rows: 0,
            entries: HashMap::new(),
            delta: Delta::default(),
            foreign: BTreeMap::new(),
            foreign_pairs: BTreeMap::new(),
        }
    }

    /// Reads a file of changes, of a kind that [`FileKind::of_delta`] gives.
    ///
    /// # Errors
    /// [`FileError`] where the file is refused.
    pub fn add(&mut self, kind: FileKind, file: &str, reader: impl Read) -> Result<(), FileError> {
        let Self { zone, tolerance, most, rows, entries, delta, foreign, foreign_pairs } = self;
        let Delta { devices, pairs, files } = delta;
        let report = rows::read(kind, file, reader, *tolerance, &mut |_| (), |row| {
            if rows == most {
                return Err(FileFault::TooManyRows);
            }
            *rows += 1;
            match row {
                Row::Change { imei, listed } => {
                    let entry = listed.map(|(list, reason, until)| {
                        let key = (list, reason.into_owned(), until);
                        let entry = entries.entry(key).or_insert_with_key(|(list, reason, until)| Entry {
                            list: *list,
                            reason: Arc::from(reason.as_str()),
                            until: until.map(|day| zone.end_of(day)),
                        });
                        entry.clone()
                    });
                    if kind.is_foreign() {
                        let said = foreign.entry(imei).or_insert_with(|| entry.clone());
                        if weight(entry.as_ref()) < weight(said.as_ref()) {
                            *said = entry;
                        }
                    } else {
                        devices.push((imei, entry));
                    }
                }
                Row::PairChange { imei, imsi, present } if kind.is_foreign() => {
                    *foreign_pairs.entry((imei, imsi)).or_default() |= present;
                }
                Row::PairChange { imei, imsi, present } => pairs.push((imei, imsi, present)),
                _ => {}
            }
            Ok(())
        })?;
        files.0.push(report);
        Ok(())
    }

    /// What was read.
    ///
    /// # Errors
    /// The device of which two different things are said, if there is one. The same twice is once.
    pub fn finish(mut self) -> Result<Delta, Imei> {
        let Delta { devices, pairs, .. } = &mut self.delta;
        devices.extend(self.foreign);
        pairs.extend(self.foreign_pairs.into_iter().map(|((imei, imsi), present)| (imei, imsi, present)));
        devices.sort_by_key(|(imei, _)| *imei);
        devices.dedup();
        if let Some(imei) = devices.windows(2).find_map(|two| match two {
            [(one, _), (other, _)] if one == other => Some(*one),
            _ => None,
        }) {
            return Err(imei);
        }
        let mut seen = HashMap::with_capacity(pairs.len());
        for (imei, imsi, present) in &*pairs {
            match seen.entry((*imei, *imsi)) {
                Place::Vacant(place) => drop(place.insert(*present)),
                Place::Occupied(place) if place.get() == present => {}
                Place::Occupied(_) => return Err(*imei),
            }
        }
        Ok(self.delta)
    }
}

/// The order in which changes win that others' files say of one device, the least first: black, then the earliest end
/// of access, and what takes a listing away last.
fn weight(said: Option<&Entry>) -> (u8, UnixTime) {
    match said {
        Some(entry) if entry.list == List::Black => (0, 0),
        Some(entry) => (1, entry.until.unwrap_or(UnixTime::MAX)),
        None => (2, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(devices: &str, pairs: &str) -> Result<Delta, Imei> {
        let mut reader = DeltaReader::new(Zone::new(vec![(0, 5 * 3600)]).unwrap(), 0.5, 100);
        reader.add(FileKind::DeviceChanges, "devices.csv", devices.as_bytes()).unwrap();
        reader.add(FileKind::PairChanges, "pairs.csv", pairs.as_bytes()).unwrap();
        reader.finish()
    }

    #[test]
    fn changes_are_read_in_the_order_of_devices() {
        let devices = "change_type,imei,list,reason,until\nset,35000000000003,grey,,20260501\nremove,35000000000001,,,\n\
                       set,350000000000020,black,stolen,\nset,35000000000003,grey,,2026-05-01\n";
        let delta = read(devices, "change_type,imei,imsi\nset,35000000000001,001010000000001\n").unwrap();
        let shown: Vec<_> = delta.devices.iter().map(|(imei, said)| (imei.snr(), said.as_ref())).collect();
        let black = Entry { list: List::Black, reason: "stolen".into(), until: None };
        // Midnight of the second of May in a zone five hours ahead.
        let grey = Entry { list: List::Grey, reason: "".into(), until: Some(1_777_662_000) };
        assert_eq!(shown, [(1, None), (2, Some(&black)), (3, Some(&grey))]);
        assert_eq!((delta.pairs.len(), delta.files.rows(), delta.files.wrong_rows()), (1, 5, 0));
    }

    #[test]
    fn two_things_said_of_one_are_refused() {
        let header = "change_type,imei,list,reason\n";
        let pairs = "change_type,imei,imsi\n";
        let both = format!("{header}set,35000000000001,white,\nremove,35000000000001,,\n");
        assert_eq!(read(&both, pairs).unwrap_err().snr(), 1);
        let pair = format!("{pairs}set,35000000000002,001010000000001\nremove,35000000000002,001010000000001\n");
        assert_eq!(read(header, &pair).unwrap_err().snr(), 2);
    }

    #[test]
    fn what_is_no_change_is_a_wrong_row() {
        let rows = "change_type,imei,list,reason\nadd,35000000000001,white,\nset,35000000000001,,\nset,x,white,\n\
                    set,35000000000001,white,\nset,35000000000002,white,\nremove,35000000000003,white,\n";
        let delta = read(rows, "change_type,imei,imsi\n").unwrap();
        assert_eq!((delta.devices.len(), delta.files.wrong_rows()), (3, 3));
        assert_eq!(
            delta.files.first_wrong_rows().next().unwrap().to_string(),
            "devices.csv:2: not a change: set or remove"
        );
        let mut reader = DeltaReader::new(Zone::default(), 0.1, 100);
        reader.add(FileKind::DeviceChanges, "a", rows.as_bytes()).unwrap_err();
        reader.add(FileKind::DeviceChanges, "b", &b"imei,list,reason\n"[..]).unwrap_err();
        // Nor is a file of changes a whole list.
        let lax = Tolerance { strict: false, max_bad_share: 1.0 };
        assert!(rows::read(FileKind::Devices, "c", rows.as_bytes(), lax, &mut |_| (), |_| Ok(())).is_err());
    }

    #[test]
    fn of_what_dirbs_says_twice_of_a_device_the_strictest_stands() {
        let (one, two, three) = ("35000000000001", "35000000000002", "35000000000003");
        let mut reader = DeltaReader::new(Zone::default(), 0.0, 100);
        let mut add = |kind: &str, text: String| {
            reader.add(FileKind::of_delta(kind).unwrap(), kind, text.as_bytes()).unwrap();
        };
        add("dirbs-unblocked", format!("imei,block_date,reasons\n{one},20260101,x\n{two},20260101,x\n"));
        add(
            "dirbs-notifications",
            format!(
                "imei,imsi,msisdn,block_date,reasons,change_type\n{one},001010000000001,1,20260601,Not on DB|y,new\n\
                 {one},001010000000002,2,20260501,Not on DB,changed\n{one},001010000000003,,20260501,z,resolved\n\
                 {three},001010000000001,1,20260601,x,new\n{two},001010000000001,1,20260601,x,blacklisted\n"
            ),
        );
        add("dirbs-blocked", format!("imei,block_date,reasons\n{three},20260101,Stolen\n"));
        add("dirbs-removed", format!("imei,imsi,msisdn\n{one},001010000000001,1\n{two},001010000000001,1\n"));
        add("dirbs-exceptions", format!("imei,imsi,change_type\n{one},001010000000001,added\n"));
        let delta = reader.finish().unwrap();
        let grey = Entry { list: List::Grey, reason: "not-on-db".into(), until: Some(20_575 * 86_400) };
        let black = Entry { list: List::Black, reason: "stolen".into(), until: None };
        let said: Vec<_> = delta.devices.iter().map(|(_, said)| said.as_ref()).collect();
        assert_eq!(said, [Some(&grey), None, Some(&black)]);
        assert_eq!(delta.pairs.iter().map(|(_, _, present)| *present).collect::<Vec<_>>(), [true, false]);
        assert_eq!((delta.files.0[1].rows, delta.files.0[1].left_out, delta.files.wrong_rows()), (5, 1, 0));
    }
}
