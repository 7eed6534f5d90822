"""`eir.lists.reporting` and `eir.lists.reports`: what is told, by which way, at least once and from where it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eir.lists import reporting
from eir.lists.reporting import BrokerWay, DayFiles, Reporter, Sources
from eir.lists.reports import Report, ReportError, of_audit, of_journal, read_reports, write_reports
from eir.lists.sync_mqtt import MqttSettings
from support.mosquitto import Mosquitto

NODE = "eir1.example.org"
IMEI = 35900000000001
IMSI = "001010000000001"
START = ("start", IMEI, 1_790_000_000, IMSI, None, 1_792_591_999)
FLIP = {"n": 1, "at": 1_792_592_000, "node": NODE, "kind": "expired", "devices": [[f"{IMEI}", 1_792_591_999]]}
ACT = {
    **{"n": 2, "at": 1_792_592_100, "node": NODE, "kind": "extend", "imeis": [f"{IMEI}"], "days": 5},
    **{"agent": "a.agent", "reason": "repair"},
}
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(limited())


class Told:
    """A journal and an audit trail in memory."""

    def __init__(self) -> None:
        self.records: list[Sequence[Any]] = [START]
        self.lines: list[Mapping[str, Any]] = [FLIP, ACT]

    def read_journal(self, after: int, most: int) -> tuple[Sequence[Any], int]:
        return self.records[after : after + most], min(len(self.records), after + most)

    def read(self, after: int, most: int) -> Sequence[Mapping[str, Any]]:
        return [line for line in self.lines if line["n"] > after][:most]


class Taker:
    """A way out that fails as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.batches: list[list[Report]] = []

    async def take(self, node: str, reports: Sequence[Report]) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("not now")
        self.batches.append(list(reports))

    async def close(self) -> None:
        pass

    @property
    def kinds(self) -> list[str]:
        return [report.kind for batch in self.batches for report in batch]


@pytest.fixture
def told() -> Told:
    return Told()


def sources(told: Told, tmp_path: Path, journal: str = "journal") -> Sources:
    return Sources(NODE, told, told, tmp_path / "pairs", journal, "audit")


def reporter(told: Told, tmp_path: Path, way: Any, journal: str = "journal") -> Reporter:
    return Reporter("test", sources(told, tmp_path, journal), way, tmp_path / "cursor.json", lambda: 0.0)


async def drain(one: Reporter) -> None:
    while await one.step():
        pass


def test_first_attaches_flips_acts_and_pairs_are_told(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "_PAIRS", 2)
    (tmp_path / "pairs").mkdir()
    rows = [f"{IMEI + n},{IMSI if n != 1 else ''}\n" for n in range(5)]
    (tmp_path / "pairs" / "2026-11-22.csv").write_text("imei,imsi\n" + "".join(rows))
    (tmp_path / "pairs" / "2026-11-23.csv").write_text("imei,imsi\n")
    way = Taker()
    run(drain(reporter(told, tmp_path, way)))
    assert way.kinds == ["first-attach", "flip", "act", "pairs", "pairs", "pairs"]
    first, flip, act, *pairs = [report for batch in way.batches for report in batch]
    assert (first.imei, first.at, first.deadline) == (str(IMEI), 1_790_000_000, 1_792_591_999)
    assert (flip.imei, flip.deadline) == (str(IMEI), 1_792_591_999)
    assert (act.act, act.agent, act.reason, act.days, act.imeis) == ("extend", "a.agent", "repair", 5, (str(IMEI),))
    assert [pair for piece in pairs for pair in piece.pairs] == [(str(IMEI + n), IMSI) for n in (0, 2, 3, 4)]
    assert len({report.id for batch in way.batches for report in batch}) == 6
    # A file that comes is told, those that were are not.
    (tmp_path / "pairs" / "2026-11-24.csv").write_text("imei,imsi\n" + rows[0])
    again = Taker()
    run(drain(reporter(told, tmp_path, again)))
    assert [report.day for batch in again.batches for report in batch] == ["2026-11-24"]


def test_what_was_not_taken_comes_again_the_same(told: Told, tmp_path: Path) -> None:
    async def work() -> None:
        way = Taker(failures=1)
        one = reporter(told, tmp_path, way)
        with pytest.raises(OSError, match="not now"):
            await one.step()
        await drain(one)
        assert way.kinds == ["first-attach", "flip", "act"]
        told.records.append(("cancel", IMEI, 1_790_000_001))
        fresh = Taker()
        await drain(reporter(told, tmp_path, fresh))
        assert fresh.kinds == ["cancelled"]

    run(work())


def test_a_journal_that_begins_anew_is_told_from_its_beginning(told: Told, tmp_path: Path) -> None:
    first, second = Taker(), Taker()
    run(drain(reporter(told, tmp_path, first)))
    run(drain(reporter(told, tmp_path, second, "another")))
    assert second.batches == [first.batches[0]]


def test_a_cursor_that_cannot_be_read_costs_repeats(told: Told, tmp_path: Path) -> None:
    (tmp_path / "cursor.json").write_text("{")
    way = Taker()
    run(drain(reporter(told, tmp_path, way)))
    assert way.kinds == ["first-attach", "flip", "act"]


@pytest.mark.parametrize(
    "line",
    [{}, {"node": NODE, "n": 1, "at": 1, "kind": "expired"}, {**FLIP, "devices": [["x", 1]]}, {**ACT, "kind": "head"}],
)
def test_lines_of_no_use_are_passed_over(line: Mapping[str, Any]) -> None:
    assert of_audit(line) == []


def test_subscribers_are_named_in_pairs_only() -> None:
    octets = write_reports(NODE, [*of_journal(NODE, [START, ("seen", IMEI, 1, IMSI, None)]), *of_audit(ACT)])
    assert IMSI.encode() not in octets
    assert [report.node for report in read_reports(octets)] == [NODE, NODE]


@given(st.binary(max_size=200))
def test_octets_that_are_no_batch_are_refused(octets: bytes) -> None:
    with suppress(ReportError):
        read_reports(octets)


class TestDayFiles:
    def test_a_days_file_is_whole_when_it_has_its_name(self, tmp_path: Path) -> None:
        now = 1_790_000_000.0
        files = DayFiles(tmp_path / "out", lambda: now)
        report = of_journal(NODE, [START])
        run(files.take(NODE, report))
        part = tmp_path / "out" / "reports-2026-09-21.jsonl.part"
        with part.open("ab") as torn:
            torn.write(b'{"node":"cut o')
        run(files.take(NODE, report))
        lines = [json.loads(line) for line in part.read_text().splitlines()]
        assert [line["kind"] for line in lines] == ["first-attach"] * 2
        with part.open("ab") as torn:
            torn.write(b"x" * 100_000)
        now += 86400
        run(files.take(NODE, report))
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "reports-2026-09-21.jsonl",
            "reports-2026-09-22.jsonl.part",
        ]
        assert len((tmp_path / "out" / "reports-2026-09-21.jsonl").read_text().splitlines()) == 2


class TestBroker:
    def test_a_batch_is_taken_when_the_broker_has_it(self, told: Told, tmp_path: Path) -> None:
        broker = Mosquitto(tmp_path / "broker")
        settings = MqttSettings("127.0.0.1", broker.port, "eir-test", "test", keepalive=2)

        async def work() -> None:
            one = reporter(told, tmp_path, BrokerWay(settings))
            task = asyncio.create_task(one.run(0.05))
            while not one.counts["failed"]:
                await asyncio.sleep(0.01)
            broker.start()
            async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
                await client.subscribe("eir/test/reports/+", qos=1)
                while one.counts["act"] < 1:
                    await asyncio.sleep(0.01)
                told.lines.append({**ACT, "n": 3})
                seen: set[str] = set()
                async for message in client.messages:
                    assert str(message.topic) == f"eir/test/reports/{NODE}"
                    seen |= {report.id for report in read_reports(bytes(message.payload))}
                    if f"{NODE}/audit/3" in seen:
                        break
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        try:
            run(work())
        finally:
            broker.stop()
