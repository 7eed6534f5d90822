"""`eir.lists.report_pairs`: every pair of every day once at least, the same again after a crash."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eir.lists import report_pairs
from eir.lists.report_pairs import PairReporter

PAIRS = [[f"{35_000_000_000_000 + number}", f"00101{number:010}" if number % 3 else ""] for number in range(25)]


class Upward:
    """The broker."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.up = True

    async def publish(self, octets: bytes) -> None:
        self.batches.append(msgspec.msgpack.decode(octets))
        if not self.up:
            raise ConnectionError("no broker")


@pytest.fixture
def upward() -> Upward:
    return Upward()


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_pairs, "_MOST", 10)


def write(directory: Path, day: str, pairs: list[list[str]]) -> None:
    directory.mkdir(exist_ok=True)
    (directory / f"{day}.csv").write_text("imei,imsi\n" + "".join(f"{','.join(pair)}\n" for pair in pairs))


def reporter(tmp_path: Path, upward: Upward) -> PairReporter:
    return PairReporter(tmp_path / "pairs", tmp_path / "reports", node="eir.test", country="kz", publish=upward.publish)


def report_all(tmp_path: Path, upward: Upward) -> None:
    one = reporter(tmp_path, upward)
    while asyncio.run(one.report()):
        pass


def told(upward: Upward) -> list[list[str]]:
    return [pair for batch in upward.batches for record in batch["records"] for pair in record["pairs"]]


def test_day_after_day_in_batches(tmp_path: Path, upward: Upward) -> None:
    report_all(tmp_path, upward)
    write(tmp_path / "pairs", "2027-01-15", PAIRS)
    (tmp_path / "pairs" / "2027-01-16.csv.99.part").write_text("imei,imsi\n1,2\n")
    report_all(tmp_path, upward)
    assert told(upward) == PAIRS
    first = upward.batches[0]
    assert {name: first[name] for name in ("format", "country", "node", "id")} == {
        "format": 1,
        "country": "kz",
        "node": "eir.test",
        "id": f"pairs:2027-01-15:0-{10 + sum(len(','.join(pair)) + 1 for pair in PAIRS[:10])}",
    }
    assert [batch["records"][0]["at"] for batch in upward.batches] == [1_799_971_200] * 3
    assert len({batch["id"] for batch in upward.batches}) == 3
    write(tmp_path / "pairs", "2027-01-16", [])
    write(tmp_path / "pairs", "2027-01-17", PAIRS[:3])
    (tmp_path / "pairs" / "2027-01-15.csv").unlink()
    report_all(tmp_path, upward)
    assert told(upward) == PAIRS + PAIRS[:3]


def test_what_was_not_acknowledged_is_the_same_again(tmp_path: Path, upward: Upward) -> None:
    write(tmp_path / "pairs", "2027-01-15", PAIRS)
    assert asyncio.run(reporter(tmp_path, upward).report())
    upward.up = False
    with pytest.raises(ConnectionError):
        asyncio.run(reporter(tmp_path, upward).report())
    upward.up = True
    report_all(tmp_path, upward)
    assert upward.batches[1] == upward.batches[2]
    assert told(upward) == PAIRS[:20] + PAIRS[10:]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff"])
def test_a_position_that_is_damaged_reports_all_again(tmp_path: Path, upward: Upward, damage: bytes) -> None:
    write(tmp_path / "pairs", "2027-01-15", PAIRS[:5])
    report_all(tmp_path, upward)
    (tmp_path / "reports" / "pairs-position").write_bytes(damage)
    report_all(tmp_path, upward)
    assert told(upward) == PAIRS[:5] * 2
