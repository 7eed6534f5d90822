//! Single changes above the snapshot: what the operator says of one device, at once.
//!
//! An entry hides what the snapshot says of the same device. Entries are kept in the journal and come back from it at
//! start. Read by [`crate::verdict`], changed through the control plane; it never touches the snapshot.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use super::List;
use crate::imei::Imei;
use crate::journal::OverlayChange;
use crate::table::Table;

/// How many different reasons entries may have had, since reasons are never forgotten.
const MAX_REASONS: usize = 1 << 16;

/// The overlay.
#[derive(Default)]
pub struct Overlay {
    /// IMEI -> change and place of the reason.
    entries: Table<1>,
    /// Read where a device has an entry, which is rare.
    reasons: RwLock<Reasons>,
}

#[derive(Default)]
struct Reasons {
    texts: Vec<String>,
    places: HashMap<String, usize>,
}

/// What the overlay says of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayEntry {
    /// The list, or `None` where the device is to be on no list.
    pub list: Option<List>,
    /// Why.
    pub reason: String,
}

impl Overlay {
    /// What the overlay says of a device, if anything.
    #[inline]
    #[must_use]
    pub fn get(&self, imei: Imei) -> Option<OverlayEntry> {
        let [word] = self.entries.get(imei.number())?;
        let list = List::from_number((word & 0xff) as u8);
        let reasons = self.reasons.read().unwrap_or_else(PoisonError::into_inner);
        let reason = reasons.texts.get((word >> 8) as usize).cloned().unwrap_or_default();
        Some(OverlayEntry { list, reason })
    }

    /// Whether an entry with this reason can be set: it is known, or there is place for one more.
    #[must_use]
    pub fn has_place_for(&self, reason: &str) -> bool {
        let reasons = self.reasons.read().unwrap_or_else(PoisonError::into_inner);
        reasons.texts.len() < MAX_REASONS || reasons.places.contains_key(reason)
    }

    /// Sets, hides or withdraws a device's entry; whether that could be done ([`Overlay::has_place_for`]).
    pub fn set(&self, imei: Imei, change: OverlayChange, reason: &str) -> bool {
        let list = match change {
            OverlayChange::Withdrawn => {
                self.entries.remove_if(imei.number(), |_| true);
                return true;
            }
            OverlayChange::Unlisted => u64::from(u8::MAX),
            OverlayChange::Listed(list) => list as u64,
        };
        let Some(place) = self.place(reason) else { return false };
        self.entries.update(imei.number(), |_| Some([(place as u64) << 8 | list]));
        true
    }

    /// Calls `visit` for every device with an entry.
    pub fn for_each(&self, mut visit: impl FnMut(Imei, &OverlayEntry)) {
        self.entries.for_each_shard(|entries| {
            for (key, _) in entries {
                if let Some(imei) = Imei::from_number(*key)
                    && let Some(entry) = self.get(imei)
                {
                    visit(imei, &entry);
                }
            }
        });
    }

    /// How many devices have an entry.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no device has an entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The place of a reason, added if it is new.
    fn place(&self, reason: &str) -> Option<usize> {
        let mut reasons = self.reasons.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = reasons.places.get(reason) {
            return Some(*place);
        }
        let place = reasons.texts.len();
        if place == MAX_REASONS {
            return None;
        }
        reasons.texts.push(reason.to_owned());
        reasons.places.insert(reason.to_owned(), place);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_set_hidden_and_withdrawn() {
        let overlay = Overlay::default();
        let imei = Imei::from_number(35_000_000_000_001).unwrap();
        assert_eq!(overlay.get(imei), None);
        for (change, list) in [
            (OverlayChange::Listed(List::Black), Some(List::Black)),
            (OverlayChange::Listed(List::White), Some(List::White)),
            (OverlayChange::Unlisted, None),
        ] {
            overlay.set(imei, change, "court");
            assert_eq!(overlay.get(imei), Some(OverlayEntry { list, reason: "court".into() }));
        }
        assert_eq!(overlay.len(), 1);
        overlay.set(imei, OverlayChange::Withdrawn, "");
        assert_eq!(overlay.get(imei), None);
        assert!(overlay.is_empty());
    }

    #[test]
    fn a_reason_that_has_no_place_is_refused_and_not_exchanged_for_another() {
        let overlay = Overlay::default();
        let imei = Imei::from_number(35_000_000_000_001).unwrap();
        for number in 0..MAX_REASONS {
            assert!(overlay.set(imei, OverlayChange::Listed(List::Black), &format!("case-{number}")));
        }
        assert!(!overlay.has_place_for("stolen"));
        assert!(!overlay.set(imei, OverlayChange::Listed(List::Black), "stolen"));
        assert!(overlay.set(imei, OverlayChange::Listed(List::Black), "case-7"));
        assert_eq!(overlay.get(imei).unwrap().reason, "case-7");
    }
}
