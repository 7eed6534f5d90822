//! Snapshots written out and compared, as Python sees it.

use std::path::PathBuf;

use eir_core::lists::{self, DeltaKind, ExportKind, List, Zone};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::Snapshot;
use crate::list_file;

/// What a device is called that is on no list.
const UNLISTED: &str = "unlisted";

fn zone_of(transitions: Vec<(i64, i32)>) -> PyResult<Zone> {
    Zone::new(transitions).ok_or_else(|| PyValueError::new_err("the zone's transitions do not rise"))
}

/// Writes one kind of a snapshot's rows as a list file; returns how many.
pub(super) fn export(
    py: Python<'_>,
    snapshot: &lists::Snapshot,
    kind: &str,
    path: PathBuf,
    zone: Vec<(i64, i32)>,
) -> PyResult<u64> {
    let zone = zone_of(zone)?;
    let kind = ExportKind::from_name(kind)
        .ok_or_else(|| PyValueError::new_err(format!("{kind:?} is no kind of list that is exported")))?;
    let written = py.detach(|| list_file::write(&path, |out| lists::export(snapshot, kind, &zone, out)));
    written.map_err(|error| PyOSError::new_err(format!("{}: {error}", path.display())))
}

/// How two snapshots differ.
#[pyfunction]
pub(super) fn compare<'py>(py: Python<'py>, old: &Snapshot, new: &Snapshot) -> PyResult<Bound<'py, PyDict>> {
    let found = py.detach(|| lists::compare(&old.0, &new.0));
    let name = |list: Option<List>| list.map_or(UNLISTED, List::name);
    let moved: Vec<_> = found.moved().map(|(from, to, count)| (name(from), name(to), count)).collect();
    let dict = PyDict::new(py);
    dict.set_item("moved", moved)?;
    dict.set_item("changed", found.changed)?;
    dict.set_item("pairs_gone", found.pairs_gone)?;
    dict.set_item("pairs_come", found.pairs_come)?;
    dict.set_item("others", found.others)?;
    Ok(dict)
}

/// Writes a file of the delta that leads from one snapshot to another; returns how many rows.
#[pyfunction]
#[pyo3(signature = (old, new, kind, path, *, zone))]
pub(super) fn write_delta(
    py: Python<'_>,
    old: &Snapshot,
    new: &Snapshot,
    kind: &str,
    path: PathBuf,
    zone: Vec<(i64, i32)>,
) -> PyResult<u64> {
    let zone = zone_of(zone)?;
    let kind = DeltaKind::from_name(kind)
        .ok_or_else(|| PyValueError::new_err(format!("{kind:?} is no kind of file of a delta that is written")))?;
    let written = py.detach(|| list_file::write(&path, |out| lists::write_delta(&old.0, &new.0, kind, &zone, out)));
    written.map_err(|error| PyOSError::new_err(format!("{}: {error}", path.display())))
}
