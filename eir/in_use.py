"""What becomes of the table of devices in use when the UTC day changes: it forgets a day, and one is written down.

Called by `app`, in a thread of its own. The files name subscribers: they lie in the node's directory, and only its user
may read them.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from eir.log import Log

if TYPE_CHECKING:
    from eir import _core

SECONDS_PER_DAY = 86400
DIRECTORY = "pairs"
"""Where the files are, in the node's directory."""

log = Log(__name__)


def name(day: int) -> str:
    """The name of a day's file."""
    return f"{date(1970, 1, 1) + timedelta(days=day)}.csv"


def turn(node: _core.Node, directory: Path, report_days: int, before: int, day: int) -> None:
    """Makes `day` the present one; with `report_days`, writes the pairs of `before` and keeps so many files."""
    node.rotate_in_use(day)
    if not report_days:
        return
    try:
        directory.mkdir(exist_ok=True)
        written = node.write_pairs(before, directory / name(before))
        log.info("pairs written", file=name(before), pairs=written)
        files = sorted(directory.glob("[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].csv"))
        for old in files[:-report_days]:
            old.unlink()
    except OSError as error:
        log.error("pairs not written", file=name(before), error=str(error))
