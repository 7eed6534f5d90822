"""`eir.lists.build`: a country's zone as the builder is given it."""

from __future__ import annotations

import random
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from eir import _core, config
from eir.app import build_policy
from eir.lists.build import build
from eir.lists.zone import transitions
from eir.timers import grey
from support import lists
from support.node import write_config

ZONES = (
    "UTC",
    "Asia/Almaty",
    "Europe/Kyiv",
    "Asia/Karachi",
    # Half an hour of summer time; clocks that jump over midnight, or back to before it; a day that was left out.
    "Australia/Lord_Howe",
    "America/Asuncion",
    "Asia/Beirut",
    "Africa/Cairo",
    "Pacific/Apia",
    "Africa/Casablanca",
)


@pytest.mark.parametrize("name", ZONES)
def test_the_transitions_are_the_zone(name: str) -> None:
    zone = ZoneInfo(name)
    found = transitions(zone)
    assert found[0][0] == 0
    seconds = [second for second, _ in found]
    assert seconds == sorted(set(seconds))
    random_ = random.Random(1)
    asked = [random_.randrange(1 << 32) for _ in range(2_000)]
    asked += [second + beside for second in seconds[1:] for beside in (-1, 0)]
    for second in asked:
        offset = next(offset for start, offset in reversed(found) if start <= second)
        assert datetime.fromtimestamp(second, zone).utcoffset() == timedelta(seconds=offset)


def test_almaty_moved_to_another_offset_in_2024() -> None:
    assert transitions(ZoneInfo("Asia/Almaty"))[-1] == (1_709_229_600, 5 * 3600)
    assert transitions(ZoneInfo("UTC")) == [(0, 0)]


@pytest.mark.parametrize("name", ZONES)
def test_a_date_ends_where_the_timers_say_that_the_next_day_begins(tmp_path: Path, name: str) -> None:
    zone = ZoneInfo(name)
    first = date(2009, 1, 1)
    days = [first + timedelta(days=number) for number in range(4_000)]
    rows = zip(lists.new_devices(len(days)), days, strict=True)
    devices = tmp_path / "devices.csv"
    devices.write_text("imei,list,reason,until\n" + "".join(f"{imei},grey,,{day:%Y%m%d}\n" for imei, day in rows))
    output = tmp_path / "lists.eirs"
    report = build(
        {"devices": [devices]},
        output,
        strict=True,
        max_bad_share=0.0,
        sequence=1,
        created_at=int(time.time()),
        tac_as_of=0,
        hard_reasons=[],
        zone=zone,
        console=Console(quiet=True),
    )
    assert report["counts"]["deadlines"] == len(days)
    snapshot = _core.Snapshot.open(output)
    policy = build_policy(*config.load(write_config(tmp_path)), 1_800_000_000)
    for imei, day in zip(lists.new_devices(len(days)), days, strict=True):
        noon = int(datetime(day.year, day.month, day.day, 12, tzinfo=zone).astimezone(UTC).timestamp())
        if datetime.fromtimestamp(noon, zone).date() != day:
            continue  # A day that a country has left out.
        assert snapshot.explain(imei, None, policy, 0)["deadline"] == grey.deadline(noon, 0, zone), day


def test_too_many_dates_are_refused(tmp_path: Path) -> None:
    days = [date(1970, 1, 1) + timedelta(days=number) for number in range(4_097)]
    rows = [f"{imei},grey,,{day}\n" for imei, day in zip(lists.new_devices(len(days)), days, strict=True)]
    text = "imei,list,reason,until\n"
    assert lists.build(tmp_path / "a", {"devices": text + "".join(rows[:-1])})["counts"]["deadlines"] == 4_096
    with pytest.raises(_core.BuildError, match="more than 4096 different dates"):
        lists.build(tmp_path / "b", {"devices": text + "".join(rows)})


def test_what_is_no_zone_is_refused() -> None:
    for zone in ([(5, 0), (5, 3600)], [(0, 90_000)]):
        with pytest.raises(ValueError, match="zone"):
            _core.SnapshotBuilder(
                strict=True, max_bad_share=0, sequence=1, created_at=1, tac_as_of=0, hard_reasons=[], zone=zone
            )
