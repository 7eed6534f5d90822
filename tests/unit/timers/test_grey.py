"""`eir.timers.grey`: the last day is a whole day of the country's calendar, whatever its clocks do."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from io import BytesIO
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eir.timers.grey import AHEAD_DAYS, Rules, Shift, day_bounds, deadline, last_day, schedule

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
        ("2026-11-23 23:59:59", 30, "2026-12-24 00:00:00"),
        ("2026-11-24 00:00:00", 30, "2026-12-25 00:00:00"),
        ("2026-12-02 12:00:00", 30, "2027-01-02 00:00:00"),
        ("2028-01-29 12:00:00", 30, "2028-02-29 00:00:00"),
        ("2028-01-30 12:00:00", 30, "2028-03-01 00:00:00"),
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


@pytest.mark.parametrize(
    ("zone", "days", "start", "end"),
    [
        ("Asia/Tehran", 30, "2022-02-19 12:00:00", "2022-03-21 20:30:00"),
        ("Asia/Tehran", 30, "2022-08-22 12:00:00", "2022-09-21 20:30:00"),
        ("America/Santiago", 30, "2026-08-06 12:00:00", "2026-09-06 04:00:00"),
        ("America/Santiago", 30, "2026-03-05 12:00:00", "2026-04-05 04:00:00"),
        ("America/Havana", 30, "2026-10-01 12:00:00", "2026-11-01 04:00:00"),
        ("Europe/Kyiv", 90, "2026-01-15 12:00:00", "2026-04-15 21:00:00"),
        ("Europe/Kyiv", 90, "2026-09-15 12:00:00", "2026-12-14 22:00:00"),
        ("Asia/Karachi", 60, "2026-07-01 23:59:59", "2026-08-30 19:00:00"),
        ("Europe/Istanbul", 120, "2026-11-01 00:00:00", "2027-03-01 21:00:00"),
        # The country went from six hours ahead to five when 29 February 2024 was over: that day had 25 hours.
        ("Asia/Almaty", 30, "2024-01-29 23:59:59", "2024-02-28 18:00:00"),
        ("Asia/Almaty", 30, "2024-01-30 00:00:00", "2024-02-29 19:00:00"),
        ("Asia/Almaty", 30, "2024-02-10 12:00:00", "2024-03-11 19:00:00"),
    ],
)
def test_deadlines_of_other_countries_and_across_changes(zone: str, days: int, start: str, end: str) -> None:
    place = ZoneInfo(zone)
    assert deadline(at(start, place), days, place) == at(end, ZoneInfo("UTC"))
    assert Rules(days, place).deadline(at(start, place)) == at(end, ZoneInfo("UTC"))


@given(MOMENTS, st.sampled_from(ZONES))
def test_the_bounds_of_a_day_are_the_deadlines_that_are_told_as_that_day(moment: int, zone: ZoneInfo) -> None:
    day = last_day(moment, zone)
    first, last = day_bounds(day, day, zone)
    assert first <= moment <= last
    assert last_day(first, zone) == last_day(last, zone) == day
    assert last_day(first - 1, zone) == day - timedelta(days=1)
    assert last_day(last + 1, zone) == day + timedelta(days=1)


# Another zone's rules under the same name, as another version of tzdata would have them.


def old_almaty() -> ZoneInfo:
    with (files("tzdata.zoneinfo.Etc") / "GMT-6").open("rb") as file:
        return ZoneInfo.from_file(file, key="Asia/Almaty")


def zone_by_rule(rule: str) -> ZoneInfo:
    """A zone that goes by a rule as in POSIX's TZ, at all times."""
    block = b"TZif2" + bytes(15) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbB", 0, 0, 0) + b"UTC\0"
    return ZoneInfo.from_file(BytesIO(block + block + f"\n{rule}\n".encode()))


def test_other_rules_of_a_zone_give_other_deadlines_and_another_fingerprint() -> None:
    now, start = at("2024-02-01 12:00:00"), at("2024-01-30 12:00:00", ZoneInfo("UTC"))
    before, after = Rules(30, old_almaty()), Rules(30, ALMATY)
    assert after.deadline(start) - before.deadline(start) == 3600
    assert last_day(before.deadline(start), before.zone) == last_day(after.deadline(start), ALMATY) == date(2024, 2, 29)
    assert before.fingerprint(now) != after.fingerprint(now)


def test_a_fingerprint_differs_where_any_deadline_does() -> None:
    now = at("2026-07-01 12:00:00")
    rule = "AAA-2BBB,M3.{week}.0/2,M10.{autumn}.0/3"
    known = Rules(30, zone_by_rule(rule.format(week=3, autumn=2)))
    # Both before and after the change clocks go forward in the same month: firsts of months do not tell.
    for week, autumn in ((2, 2), (4, 2), (3, 1), (3, 3)):
        other = Rules(30, zone_by_rule(rule.format(week=week, autumn=autumn)))
        assert other.fingerprint(now) != known.fingerprint(now)
    assert Rules(31, known.zone).fingerprint(now) != known.fingerprint(now)
    assert Rules(30, zone_by_rule("AAA-2")).fingerprint(now) != Rules(30, zone_by_rule("AAA-3")).fingerprint(now)


def test_a_fingerprint_stays_when_only_time_goes_by() -> None:
    known = Rules(30, ZoneInfo("Europe/Kyiv")).fingerprint(at("2026-07-01 12:00:00"))
    for moment in ("2026-07-02 12:00:00", "2026-12-31 23:59:59", "2027-01-01 12:00:00", "2029-12-31 12:00:00"):
        assert Rules(30, ZoneInfo("Europe/Kyiv")).fingerprint(at(moment)) == known
    shifted = Rules(30, ZoneInfo("Europe/Kyiv"), (Shift(0, "1", 0, 1, 7, "agent", "reason"),))
    assert shifted.fingerprint(at("2026-07-01 12:00:00")) == known
