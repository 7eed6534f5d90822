//! The national lists of a node: a snapshot, the deltas above it, and what another one would change.
//!
//! Called from the control plane, which keeps what is put in force here; nothing of it waits for an answer, or an answer
//! for it. It never reads a list file.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use eir_core::UnixTime;
use eir_core::imei::{Imei, Imsi};
use eir_core::journal::OverlayChange;
use eir_core::lists::{Change, Deltas, Entry, List, Overlay, Snapshot, TooMany};
use eir_core::policy::Status;
use eir_core::verdict::{Facts, Request, Rule, verdict};

use super::{Node, World, lock};

/// How many devices a forecast names.
pub const NAMED: usize = 20;

/// Why a delta is not put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeltaError {
    /// There is no snapshot that it could change.
    NoSnapshot,
    /// No more is taken above this snapshot.
    TooMany(TooMany),
}

impl fmt::Display for DeltaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSnapshot => f.write_str("there is no snapshot that it could change"),
            Self::TooMany(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DeltaError {}

/// What other lists would change for devices in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Devices in use that are answered black now.
    pub black: usize,
    /// Devices in use that are not, and would be.
    pub turned_black: usize,
    /// Devices in use that are black now, and would not be.
    pub freed: usize,
    /// The first of those that would turn black.
    pub first: Vec<Imei>,
    /// Devices that leave each list, and that come to it, by [`List`]; of lists anew all.
    pub moved: [(u64, u64); 3],
}

/// Devices by what would become of them, each once whatever number of subscribers it has.
#[derive(Default)]
struct Found {
    black: BTreeSet<Imei>,
    turned_black: BTreeSet<Imei>,
    freed: BTreeSet<Imei>,
}

impl Found {
    fn note(&mut self, imei: Imei, now: Status, then: Status) {
        match (now == Status::Black, then == Status::Black) {
            (false, false) => {}
            (false, true) => drop(self.turned_black.insert(imei)),
            (true, after) => {
                self.black.insert(imei);
                if !after {
                    self.freed.insert(imei);
                }
            }
        }
    }
}

impl From<Found> for Forecast {
    fn from(found: Found) -> Self {
        Self {
            black: found.black.len(),
            turned_black: found.turned_black.len(),
            freed: found.freed.len(),
            first: found.turned_black.into_iter().take(NAMED).collect(),
            moved: [(0, 0); 3],
        }
    }
}

impl Node {
    /// Puts a snapshot in force, with no deltas above it.
    pub fn set_snapshot(&self, snapshot: Arc<Snapshot>) {
        self.set_lists(snapshot, None);
    }

    /// Puts a snapshot and the deltas above it in force, at once.
    pub fn set_lists(&self, snapshot: Arc<Snapshot>, deltas: Option<Deltas>) {
        let _alone = lock(&self.shared.following);
        self.replace(|old| World { policy: old.policy.clone(), snapshot: Some(snapshot), deltas });
    }

    /// The snapshot in force.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.shared.world.load().snapshot.clone()
    }

    /// The deltas in force; none above the snapshot where there are none, and nothing where there is no snapshot.
    #[must_use]
    pub fn deltas(&self) -> Option<Deltas> {
        let world = self.shared.world.load();
        world.deltas.clone().or_else(|| world.snapshot.as_deref().map(none_above))
    }

    /// Puts a delta in force as a whole, behind those that there are.
    ///
    /// # Errors
    /// Where there is no snapshot, or no more deltas above it are taken; then nothing changes.
    pub fn apply_delta(
        &self,
        changes: &[Change],
        pairs: &[(Imei, Imsi, bool)],
        sequence: u64,
        as_of: UnixTime,
    ) -> Result<(), DeltaError> {
        let _alone = lock(&self.shared.following);
        let present = self.deltas().ok_or(DeltaError::NoSnapshot)?;
        let next = present.apply(changes, pairs, sequence, as_of).map_err(DeltaError::TooMany)?;
        self.replace(|old| World { policy: old.policy.clone(), snapshot: old.snapshot.clone(), deltas: Some(next) });
        Ok(())
    }

    /// Devices on each of the national lists, by [`List`].
    #[must_use]
    pub fn lists_counts(&self) -> [u64; 3] {
        let world = self.shared.world.load_full();
        world.snapshot.as_deref().map_or([0; 3], |snapshot| counts(snapshot, world.deltas.as_ref()))
    }

    /// (IMEI, list or none, reason) of every entry of the operator's own, by IMEI.
    #[must_use]
    pub fn own_entries(&self) -> Vec<(String, Option<&'static str>, String)> {
        let mut found = Vec::new();
        self.shared.overlay.for_each(|imei, entry| {
            found.push((imei.to_string(), entry.list.map(List::name), entry.reason.clone()));
        });
        found.sort_unstable();
        found
    }

    /// What other lists would change for the devices in use, each with each of its subscribers.
    #[must_use]
    pub fn foresee_lists(&self, snapshot: &Snapshot, deltas: Option<&Deltas>, now: UnixTime) -> Forecast {
        let world = self.shared.world.load_full();
        let before = self.shared.facts(&world, now);
        // As of now: that lists are stale is not what they would change.
        let after = Facts { snapshot: Some(snapshot), deltas, ..before };
        let gone = self.lists_counts();
        let mut moved = [(0, 0); 3];
        for (place, both) in moved.iter_mut().zip(gone.into_iter().zip(counts(snapshot, deltas))) {
            *place = both;
        }
        let mut found = Found::default();
        self.shared.in_use.for_each(|imei, imsi| {
            let request = Request { imei: Ok(imei), imsi };
            found.note(imei, verdict(&request, &before).status, verdict(&request, &after).status);
        });
        Forecast { moved, ..found.into() }
    }

    /// What a delta would change: of the lists, and for the devices in use as far as its entries decide.
    #[must_use]
    pub fn foresee_delta(&self, changes: &[Change], now: UnixTime) -> Forecast {
        let world = self.shared.world.load_full();
        let facts = self.shared.facts(&world, now);
        let mut found = Found::default();
        let mut moved = [(0, 0); 3];
        let mut alone = Overlay::default();
        for (imei, said) in changes {
            let before = facts.national(*imei).map(|listing| listing.list);
            let after = said.as_ref().map(|entry| entry.list);
            if before != after {
                if let Some((gone, _)) = before.and_then(|list| moved.get_mut(list as usize)) {
                    *gone += 1;
                }
                if let Some((_, come)) = after.and_then(|list| moved.get_mut(list as usize)) {
                    *come += 1;
                }
            }
            if self.shared.in_use.last_day(*imei).is_none() {
                continue;
            }
            let status = verdict(&Request { imei: Ok(*imei), imsi: None }, &facts).status;
            // An entry of the operator's own hides what the delta says.
            if facts.overlay.is_empty() || facts.overlay.get(*imei).is_none() {
                found.note(*imei, status, foreseen(*imei, said.as_ref(), &facts, &mut alone));
            }
        }
        Forecast { moved, ..found.into() }
    }
}

/// What a device would be answered if a delta said this of it. `alone` is to be used again; it holds no device between.
fn foreseen(imei: Imei, said: Option<&Entry>, facts: &Facts<'_>, alone: &mut Overlay) -> Status {
    // What is grey is asked for as if it were on no list, so that its timer may run out; the national deadline comes first.
    let change = match said.map(|entry| entry.list) {
        Some(list @ (List::White | List::Black)) => OverlayChange::Listed(list),
        Some(List::Grey) | None => OverlayChange::Unlisted,
    };
    let reason = said.map_or("", |entry| &entry.reason);
    if !alone.set(imei, change, reason) {
        // It has had as many reasons as it takes.
        *alone = Overlay::default();
        alone.set(imei, change, reason);
    }
    let verdict = verdict(&Request { imei: Ok(imei), imsi: None }, &Facts { overlay: alone, ..*facts });
    alone.set(imei, OverlayChange::Withdrawn, "");
    match said.filter(|entry| entry.list == List::Grey).map(|entry| entry.until) {
        Some(_) if matches!(verdict.rule, Rule::Unallocated) => Status::Grey,
        Some(Some(until)) if matches!(verdict.rule, Rule::Grey | Rule::Expired | Rule::FirstAttach) => {
            if until <= facts.now { Status::Black } else { Status::Grey }
        }
        _ => verdict.status,
    }
}

fn counts(snapshot: &Snapshot, deltas: Option<&Deltas>) -> [u64; 3] {
    deltas.map_or_else(|| none_above(snapshot).counts(snapshot), |deltas| deltas.counts(snapshot))
}

fn none_above(snapshot: &Snapshot) -> Deltas {
    Deltas::above(snapshot.header().sequence, snapshot.header().created_at)
}
