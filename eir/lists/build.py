"""`eir lists build`: list files into one snapshot, with a progress bar and a report for people.

Called by `cli`. The work is done by `_core.SnapshotBuilder`; this gives it the files and shows how it goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from eir import _core
from eir.lists.zone import transitions

_SHOWN = 20
"""Wrong rows and contradictions that are shown; all are counted."""


def build(
    files: Mapping[str, Sequence[Path]],
    output: Path,
    *,
    strict: bool,
    max_bad_share: float,
    sequence: int,
    created_at: int,
    tac_as_of: int,
    hard_reasons: Sequence[str],
    zone: ZoneInfo,
    console: Console,
    aside: Path | None = None,
) -> _core.BuildReport:
    """Compiles list files, by kind, into the snapshot `output`; dates in them are meant in `zone`.

    Devices that do not fit into memory lie meanwhile in the directory `aside`, else in that of `output`. Raises
    BuildError and OSError."""
    builder = _core.SnapshotBuilder(
        strict=strict,
        max_bad_share=max_bad_share,
        sequence=sequence,
        created_at=created_at,
        tac_as_of=tac_as_of,
        hard_reasons=list(hard_reasons),
        zone=transitions(zone),
        aside=aside or output.parent,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        for kind, paths in files.items():
            for path in paths:
                task = progress.add_task(f"{kind} {path.name}", total=path.stat().st_size)
                builder.add(kind, path, partial(_advance, progress, task))
        task = progress.add_task(f"write {output.name}", total=None)
        report = builder.finish(output)
        progress.update(task, total=report["bytes"], completed=report["bytes"])
    return report


def _advance(progress: Progress, task: TaskID, octets: int) -> None:
    progress.update(task, completed=octets)


def show(report: _core.BuildReport, output: Path, console: Console) -> None:
    """Prints what a build did, and what was wrong with its input."""
    for file, line, reason in report["first_wrong_rows"][:_SHOWN]:
        console.print(f"{file}:{line}: {reason}", style="yellow", markup=False, highlight=False)
    for imei in report["first_contradictions"][:_SHOWN]:
        console.print(f"{imei}: contradictory entries; the strictest stands", style="yellow", highlight=False)
    counts = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in report["counts"].items() if count)
    console.print(
        f"{output}: {counts or 'empty'}; {report['bytes']} octets from {report['rows']} rows "
        f"({report['wrong_rows']} wrong, {report['duplicates']} repeated, {report['contradictions']} contradictory, "
        f"{report['check_digit_mismatches']} with another check digit)",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if report["not_decimal"] or report["left_out"]:
        console.print(
            f"{report['not_decimal']} rows have an IMEI with signs that are no digits, "
            f"{report['left_out']} say nothing of the lists",
            highlight=False,
        )
    if report["dropped_reasons"]:
        console.print(f"{report['dropped_reasons']} rows lost their reason: a snapshot holds 13", style="yellow")
