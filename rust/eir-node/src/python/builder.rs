//! List files on their way into a snapshot, as Python sees it.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use eir_core::UnixTime;
use eir_core::lists::{self, BuildOptions, FileKind, FileReports, Zone};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{BuildError, counts};
use crate::snapshot_file;

/// List files on their way into a snapshot.
#[pyclass(module = "eir._core")]
pub(super) struct SnapshotBuilder(Option<lists::SnapshotBuilder>);

/// A file that stops giving when the progress callback has raised.
struct Stoppable<'a> {
    file: File,
    raised: &'a std::cell::RefCell<Option<PyErr>>,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, place: &mut [u8]) -> io::Result<usize> {
        if self.raised.borrow().is_some() {
            return Err(io::Error::other("stopped"));
        }
        self.file.read(place)
    }
}

#[pymethods]
impl SnapshotBuilder {
    #[new]
    #[pyo3(signature = (*, strict, max_bad_share, sequence, created_at, tac_as_of, hard_reasons, zone=None,
        aside=None, run_rows=None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python constructor")]
    fn new(
        strict: bool,
        max_bad_share: f64,
        sequence: u64,
        created_at: UnixTime,
        tac_as_of: UnixTime,
        hard_reasons: Vec<String>,
        zone: Option<Vec<(i64, i32)>>,
        aside: Option<PathBuf>,
        run_rows: Option<usize>,
    ) -> PyResult<Self> {
        let options =
            BuildOptions { strict, max_bad_share, sequence, created_at, tac_as_of, ..BuildOptions::default() };
        let run_rows = run_rows.unwrap_or(options.run_rows);
        let mut builder = lists::SnapshotBuilder::new(BuildOptions { run_rows, ..options });
        builder.set_zone(
            Zone::new(zone.unwrap_or_default())
                .ok_or_else(|| PyValueError::new_err("the zone's transitions do not rise"))?,
        );
        if let Some(directory) = aside {
            builder.put_aside(snapshot_file::aside(&directory));
        }
        if !builder.keep_black_reasons(&hard_reasons) {
            return Err(PyValueError::new_err("a snapshot has no place for so many hard reasons"));
        }
        Ok(Self(Some(builder)))
    }

    fn add(&mut self, py: Python<'_>, kind: &str, path: PathBuf, progress: Py<PyAny>) -> PyResult<()> {
        let kind = FileKind::of_snapshot(kind)
            .ok_or_else(|| PyValueError::new_err(format!("{kind:?} is no kind of list file")))?;
        let builder = self.0.as_mut().ok_or_else(finished)?;
        let name = path.display().to_string();
        let file = File::open(&path).map_err(|error| PyOSError::new_err(format!("{name}: {error}")))?;
        let (added, raised) = py.detach(|| {
            let raised = std::cell::RefCell::new(None);
            let added = builder.add(kind, &name, Stoppable { file, raised: &raised }, &mut |bytes| {
                Python::attach(|py| {
                    if let Err(error) = progress.call1(py, (bytes,)) {
                        raised.borrow_mut().get_or_insert(error);
                    }
                });
            });
            (added, raised.into_inner())
        });
        match raised {
            Some(error) => Err(error),
            None => added.map_err(|error| BuildError::new_err(error.to_string())),
        }
    }

    fn finish<'py>(&mut self, py: Python<'py>, path: PathBuf) -> PyResult<Bound<'py, PyDict>> {
        let builder = self.0.take().ok_or_else(finished)?;
        let report = py
            .detach(|| snapshot_file::write(builder, &path))
            .map_err(|error| BuildError::new_err(error.to_string()))?;
        let dict = rows_read(py, &report.files)?;
        dict.set_item("duplicates", report.duplicates)?;
        dict.set_item("contradictions", report.contradictions)?;
        let first: Vec<_> = report.first_contradictions.iter().map(ToString::to_string).collect();
        dict.set_item("first_contradictions", first)?;
        dict.set_item("dropped_reasons", report.dropped_reasons)?;
        dict.set_item("counts", counts(py, &report.counts)?)?;
        dict.set_item("bytes", report.bytes)?;
        Ok(dict)
    }
}

/// What was read of list files.
pub(super) fn rows_read<'py>(py: Python<'py>, files: &FileReports) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("rows", files.rows())?;
    dict.set_item("wrong_rows", files.wrong_rows())?;
    let first: Vec<_> = files.first_wrong_rows().map(|row| (&row.file, row.line, row.reason.to_string())).collect();
    dict.set_item("first_wrong_rows", first)?;
    dict.set_item("not_decimal", files.not_decimal())?;
    dict.set_item("left_out", files.left_out())?;
    dict.set_item("check_digit_mismatches", files.check_digit_mismatches())?;
    Ok(dict)
}

fn finished() -> PyErr {
    PyValueError::new_err("the snapshot is finished")
}
