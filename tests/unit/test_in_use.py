"""`eir.in_use`: what is done when the day changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from eir import in_use

if TYPE_CHECKING:
    from eir import _core

TODAY = 20_454
"""2026-01-01."""


class FakeNode:
    """The two calls of a node that a change of day makes."""

    def __init__(self) -> None:
        self.days: list[int] = []

    def rotate_in_use(self, day: int) -> None:
        self.days.append(day)

    def write_pairs(self, day: int, path: Path) -> int:
        path.write_text(f"{day}\n")
        return day


def turn(node: FakeNode, directory: Path, report_days: int, before: int, day: int) -> list[str]:
    """Changes the day; the files that are then there."""
    in_use.turn(cast("_core.Node", node), directory, report_days, before, day)
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_without_reports_the_table_is_only_turned(tmp_path: Path) -> None:
    node = FakeNode()
    assert turn(node, tmp_path / "pairs", 0, TODAY - 1, TODAY) == []
    assert (node.days, (tmp_path / "pairs").exists()) == ([TODAY], False)


def test_the_day_before_is_written_and_so_many_files_are_kept(tmp_path: Path) -> None:
    node, directory = FakeNode(), tmp_path / "pairs"
    assert turn(node, directory, 2, TODAY - 3, TODAY - 2) == ["2025-12-29.csv"]
    (directory / "notes.csv").touch()
    assert turn(node, directory, 2, TODAY - 2, TODAY - 1) == ["2025-12-29.csv", "2025-12-30.csv", "notes.csv"]
    assert turn(node, directory, 2, TODAY - 1, TODAY) == ["2025-12-30.csv", "2025-12-31.csv", "notes.csv"]
    assert (directory / "2025-12-31.csv").read_text() == f"{TODAY - 1}\n"


def test_a_disk_that_fails_is_only_logged(tmp_path: Path) -> None:
    node = FakeNode()
    (tmp_path / "pairs").write_text("in the way")
    in_use.turn(cast("_core.Node", node), tmp_path / "pairs", 1, TODAY - 1, TODAY)
    assert node.days == [TODAY]
