//! Single changes above the snapshot: what the operator says of one device, at once.
//!
//! An entry hides what the snapshot says of the same device. Entries are kept in the journal and come back from it at
//! start. Read by [`crate::verdict`], changed through the control plane; it never touches the snapshot.

use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::List;
use crate::imei::Imei;
use crate::journal::OverlayChange;
use crate::table::Table;

/// How many different reasons entries may have; later ones are kept as this one's last.
const MAX_REASONS: usize = 4096;

/// The overlay.
#[derive(Default)]
pub struct Overlay {
    /// IMEI -> change and place of the reason.
    entries: Table<1>,
    reasons: ArcSwap<Vec<String>>,
    adding: Mutex<()>,
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
        let reason = self.reasons.load().get((word >> 8) as usize).cloned().unwrap_or_default();
        Some(OverlayEntry { list, reason })
    }

    /// Sets, hides or withdraws a device's entry.
    pub fn set(&self, imei: Imei, change: OverlayChange, reason: &str) {
        let list = match change {
            OverlayChange::Withdrawn => {
                self.entries.remove_if(imei.number(), |_| true);
                return;
            }
            OverlayChange::Unlisted => u64::from(u8::MAX),
            OverlayChange::Listed(list) => list as u64,
        };
        let word = (self.reason(reason) as u64) << 8 | list;
        self.entries.update(imei.number(), |_| Some([word]));
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
    fn reason(&self, reason: &str) -> usize {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.reasons.load();
        if let Some(place) = known.iter().position(|present| present == reason) {
            return place;
        }
        if known.len() == MAX_REASONS {
            return MAX_REASONS - 1;
        }
        let mut more = known.to_vec();
        more.push(reason.to_owned());
        self.reasons.store(more.into());
        known.len()
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
}
