//! Deltas, and the lists in force, as Python sees them.

use std::fs::File;
use std::path::PathBuf;

use eir_core::UnixTime;
use eir_core::lists::{self, DeltaReader, Deltas, FileKind, List, Zone};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::BuildError;
use super::builder::rows_read;
use crate::node::lists::Forecast;

/// What a delta changes.
#[pyclass(frozen, module = "eir._core")]
pub(super) struct Delta(pub(super) lists::Delta);

#[pymethods]
impl Delta {
    #[staticmethod]
    #[pyo3(signature = (files, *, zone, max_bad_share, max_rows=u64::MAX))]
    fn read(
        py: Python<'_>,
        files: Vec<(String, PathBuf)>,
        zone: Vec<(i64, i32)>,
        max_bad_share: f64,
        max_rows: u64,
    ) -> PyResult<Self> {
        let zone = Zone::new(zone).ok_or_else(|| PyValueError::new_err("the zone's transitions do not rise"))?;
        py.detach(|| {
            let mut reader = DeltaReader::new(zone, max_bad_share, max_rows);
            for (kind, path) in files {
                let name = path.display().to_string();
                let file = File::open(&path).map_err(|error| PyOSError::new_err(format!("{name}: {error}")))?;
                let kind = FileKind::of_delta(&kind)
                    .ok_or_else(|| PyValueError::new_err(format!("{kind:?} is no kind of file of a delta")))?;
                reader.add(kind, &name, file).map_err(|error| BuildError::new_err(error.to_string()))?;
            }
            let said_twice = |imei| BuildError::new_err(format!("{imei}: two different things are said of it"));
            reader.finish().map(Self).map_err(said_twice)
        })
    }

    #[getter]
    fn devices(&self) -> usize {
        self.0.devices.len()
    }

    #[getter]
    fn pairs(&self) -> usize {
        self.0.pairs.len()
    }

    /// What was read of its files.
    #[getter]
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        rows_read(py, &self.0.files)
    }
}

/// The deltas above a snapshot as one layer; none where there are none.
pub(super) fn layer(
    py: Python<'_>,
    snapshot: &lists::Snapshot,
    deltas: &[(PyRef<'_, Delta>, u64, UnixTime)],
) -> PyResult<Option<Deltas>> {
    let deltas: Vec<_> = deltas.iter().map(|(delta, sequence, as_of)| (&delta.0, *sequence, *as_of)).collect();
    let header = snapshot.header();
    let layer = py.detach(|| {
        let none = Deltas::above(header.sequence, header.created_at);
        deltas.iter().try_fold(none, |layer, (delta, sequence, as_of)| {
            layer.apply(&delta.devices, &delta.pairs, *sequence, *as_of)
        })
    });
    let layer = layer.map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((layer.count() > 0).then_some(layer))
}

pub(super) fn forecast<'py>(py: Python<'py>, forecast: &Forecast) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("black", forecast.black)?;
    dict.set_item("turned_black", forecast.turned_black)?;
    dict.set_item("freed", forecast.freed)?;
    dict.set_item("first", forecast.first.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    dict.set_item("gone", by_list(py, forecast.moved.map(|(gone, _)| gone))?)?;
    dict.set_item("come", by_list(py, forecast.moved.map(|(_, come)| come))?)?;
    Ok(dict)
}

/// Counts of devices, by the names of the lists.
pub(super) fn by_list(py: Python<'_>, counts: [u64; 3]) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    for (number, count) in (0..).zip(counts) {
        if let Some(list) = List::from_number(number) {
            dict.set_item(list.name(), count)?;
        }
    }
    Ok(dict)
}

pub(super) fn position<'py>(py: Python<'py>, deltas: &Deltas) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("sequence", deltas.sequence())?;
    dict.set_item("as_of", deltas.as_of())?;
    dict.set_item("deltas", deltas.count())?;
    dict.set_item("devices", deltas.len())?;
    Ok(dict)
}
