"""`eir.timers.grey`: the last day is a whole day of the country's calendar, whatever its clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eir.timers.grey import AHEAD_DAYS, deadline, schedule

ALMATY = ZoneInfo("Asia/Almaty")
# Where clocks go forward at midnight, so that a day begins at one o'clock; where they go back to it; and the others.
ZONES = [
    ZoneInfo(name)
    for name in (
        "Asia/Almaty",
        "UTC",
        "America/Santiago",
        "Africa/Cairo",
        "America/Havana",
        "Asia/Beirut",
        "Europe/Kyiv",
        "Europe/Istanbul",
        "Asia/Karachi",
        "Australia/Lord_Howe",
        "America/Nuuk",
    )
]
# 2025 to 2037: as far as tzdata writes changes out one by one.
MOMENTS = st.integers(1_735_689_600, 2_145_916_800)


def at(text: str, zone: ZoneInfo = ALMATY) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp())


def local_day(moment: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(moment, zone).date()


@pytest.mark.parametrize(
    ("start", "days", "end"),
    [
        ("2026-05-01 00:00:00", 30, "2026-06-01 00:00:00"),
        ("2026-05-01 23:59:59", 30, "2026-06-01 00:00:00"),
        ("2026-05-02 00:00:00", 30, "2026-06-02 00:00:00"),
        ("2028-02-28 12:00:00", 30, "2028-03-30 00:00:00"),
        ("2028-02-29 12:00:00", 30, "2028-03-31 00:00:00"),
        ("2026-02-28 12:00:00", 30, "2026-03-31 00:00:00"),
        ("2028-02-28 12:00:00", 1, "2028-03-01 00:00:00"),
        ("2026-12-31 12:00:00", 1, "2027-01-02 00:00:00"),
        ("2026-05-01 12:00:00", 120, "2026-08-30 00:00:00"),
    ],
)
def test_access_ends_with_the_last_day(start: str, days: int, end: str) -> None:
    assert deadline(at(start), days, ALMATY) == at(end)


def test_almaty_is_five_hours_ahead() -> None:
    # Since 1 March 2024 the whole country has one time, UTC+5.
    assert deadline(at("2026-05-01 12:00:00"), 30, ALMATY) == at("2026-05-31 19:00:00", ZoneInfo("UTC"))


@pytest.mark.parametrize(
    ("zone", "start", "first_second"),
    [
        ("America/Santiago", "2026-09-04 12:00:00", "2026-09-06 04:00:00"),
        ("Africa/Cairo", "2026-04-22 12:00:00", "2026-04-23 22:00:00"),
        ("Africa/Cairo", "2026-10-28 12:00:00", "2026-10-29 22:00:00"),
        ("America/Havana", "2026-10-30 12:00:00", "2026-11-01 04:00:00"),
    ],
    ids=["Santiago forward", "Cairo forward", "Cairo back", "Havana twice"],
)
def test_a_midnight_that_does_not_exist_or_exists_twice(zone: str, start: str, first_second: str) -> None:
    place = ZoneInfo(zone)
    end = deadline(at(start, place), 1, place)
    assert end == at(first_second, ZoneInfo("UTC"))
    assert local_day(end, place) == local_day(end - 1, place) + timedelta(days=1)


@given(MOMENTS, st.integers(1, 120), st.sampled_from(ZONES))
def test_every_second_of_the_last_day_has_access_and_none_after(start: int, days: int, zone: ZoneInfo) -> None:
    end = deadline(start, days, zone)
    assert local_day(end - 1, zone) == local_day(start, zone) + timedelta(days=days)
    assert local_day(end, zone) == local_day(start, zone) + timedelta(days=days + 1)


@given(MOMENTS, st.sampled_from([1, 30, 60, 90, 120]), st.sampled_from(ZONES), st.data())
def test_a_schedule_gives_every_second_its_deadline(now: int, days: int, zone: ZoneInfo, data: st.DataObject) -> None:
    steps = schedule(now, days, zone)
    firsts = [first for first, _ in steps]
    assert firsts == sorted(set(firsts))
    assert firsts[1] <= now < firsts[2]
    second = data.draw(st.integers(now - 86400 // 2, now + (AHEAD_DAYS - 1) * 86400))
    assert [end for first, end in steps if first <= second][-1] == deadline(second, days, zone)


def test_every_zone_there_is_has_a_schedule() -> None:
    now = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
    for name in available_timezones():
        steps = schedule(now, 30, ZoneInfo(name))
        assert len(steps) == AHEAD_DAYS + 2
        assert all(22 * 3600 <= later - first <= 26 * 3600 for (first, _), (later, _) in pairwise(steps))
