"""`eir.lists.reports`: everything once at least, the same again after a crash, and nobody's subscriber."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eir.lists.reports import Reporter


@dataclass
class Records:
    """A journal and an audit trail."""

    journal: list[tuple[Any, ...]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def read_journal(self, after: int, most: int) -> tuple[Sequence[Any], int]:
        found = self.journal[after : after + most]
        return found, after + len(found)

    def read(self, after: int, most: int) -> Sequence[Mapping[str, Any]]:
        return [line for line in self.lines if line["n"] > after][:most]


@dataclass
class Upward:
    """The broker."""

    batches: list[Any] = field(default_factory=list)
    up: bool = True
    lost: bool = False
    """What it has taken, the node is not told of."""

    async def publish(self, octets: bytes) -> None:
        if self.up or self.lost:
            self.batches.append(msgspec.msgpack.decode(octets))
        if not self.up or self.lost:
            raise ConnectionError("no broker")


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def upward() -> Upward:
    return Upward()


def reporter(records: Records, upward: Upward, directory: Path, journal_id: str = "journal:a") -> Reporter:
    return Reporter(
        records,
        records,
        directory,
        node="eir.test",
        country="kz",
        journal_id=journal_id,
        audit_id="audit:b",
        publish=upward.publish,
        clock=lambda: 1_800_000_000.0,
    )


def attach(number: int) -> tuple[Any, ...]:
    return "start", 35_000_000_000_000 + number, 1_800_000_000 + number, "001010000000001", "999", 1_900_000_000


def test_first_attaches_flips_and_acts_without_subscribers(records: Records, upward: Upward, tmp_path: Path) -> None:
    records.journal = [attach(1), ("seen", 1, 2, "001010000000002", ""), ("cancel", 35_000_000_000_001, 5)]
    records.lines = [
        {"n": 1, "kind": "expired", "at": 7, "devices": [["35000000000009", 6]]},
        {"n": 2, "kind": "trace", "at": 8, "agent": "noc"},
        {"n": 3, "kind": "extend", "at": 9, "imeis": ["35000000000009"], "days": 3, "agent": "care", "reason": "x"},
    ]
    reports = reporter(records, upward, tmp_path / "reports")
    assert asyncio.run(reports.report())
    assert not asyncio.run(reports.report())
    (batch,) = upward.batches
    assert (batch["format"], batch["country"], batch["node"]) == (1, "kz", "eir.test")
    assert batch["id"] == "journal:a:0-3/audit:b:0-3"
    assert batch["records"] == [
        {"kind": "first-attach", "imei": "35000000000001", "at": 1_800_000_001},
        {"kind": "first-attach-cancelled", "imei": "35000000000001", "at": 5},
        {"kind": "expired", "at": 7, "devices": [["35000000000009", 6]]},
        {"kind": "extend", "at": 9, "imeis": ["35000000000009"], "days": 3, "agent": "care"},
    ]
    written = (tmp_path / "reports" / "2027-01-15.jsonl").read_text()
    assert [json.loads(line)["kind"] for line in written.splitlines()] == [one["kind"] for one in batch["records"]]
    assert "00101" not in written
    assert reports.reported == 4


def test_what_was_not_acknowledged_is_the_same_again(records: Records, upward: Upward, tmp_path: Path) -> None:
    records.journal = [attach(number) for number in range(5)]
    upward.lost = True
    with pytest.raises(ConnectionError):
        asyncio.run(reporter(records, upward, tmp_path).report())
    # More has come meanwhile, and the node was killed.
    records.journal += [attach(number) for number in range(5, 8)]
    upward.lost = False
    again = reporter(records, upward, tmp_path)
    while asyncio.run(again.report()):
        pass
    first, second, third = upward.batches
    assert first == second
    assert [len(batch["records"]) for batch in upward.batches] == [5, 5, 3]
    assert third["id"] == "journal:a:5-8/audit:b:0-0"


def test_a_journal_that_begins_anew_is_reported_from_its_beginning(
    records: Records, upward: Upward, tmp_path: Path
) -> None:
    records.journal = [attach(1)]
    asyncio.run(reporter(records, upward, tmp_path).report())
    records.journal = [attach(2)]
    asyncio.run(reporter(records, upward, tmp_path, "journal:c").report())
    assert [batch["id"] for batch in upward.batches] == ["journal:a:0-1/audit:b:0-0", "journal:c:0-1/audit:b:0-0"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff"])
def test_a_position_that_is_damaged_reports_all_again(
    records: Records, upward: Upward, tmp_path: Path, damage: bytes
) -> None:
    records.journal = [attach(1)]
    asyncio.run(reporter(records, upward, tmp_path).report())
    (tmp_path / "position").write_bytes(damage)
    asyncio.run(reporter(records, upward, tmp_path).report())
    assert len(upward.batches) == 2


def test_without_a_broker_it_waits_and_says_so(records: Records, upward: Upward, tmp_path: Path) -> None:
    records.journal = [attach(1)]
    upward.up = False

    async def watch() -> None:
        reports = reporter(records, upward, tmp_path)
        running = asyncio.create_task(reports.run())
        while not reports.error:
            await asyncio.sleep(0.01)
        upward.up = True
        while reports.error:
            await asyncio.sleep(0.01)
        running.cancel()

    asyncio.run(asyncio.wait_for(watch(), 20))
    assert len(upward.batches) == 1


@pytest.mark.parametrize("torn", [b'{"kind":"first-a', b"x" * 200_000])
def test_a_line_that_was_cut_off_spoils_no_other(records: Records, upward: Upward, tmp_path: Path, torn: bytes) -> None:
    one = reporter(records, upward, tmp_path)
    records.journal.append(attach(1))
    asyncio.run(one.report())
    (path,) = tmp_path.glob("*.jsonl")
    for before in (path.read_bytes(), b""):
        path.write_bytes(before + torn)
        records.journal.append(attach(len(records.journal) + 1))
        asyncio.run(one.report())
        lines = path.read_bytes().splitlines()
        assert [json.loads(line)["kind"] for line in lines] == ["first-attach"] * (2 if before else 1)
