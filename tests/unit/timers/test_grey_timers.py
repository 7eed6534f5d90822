"""`eir.timers.grey`: what starts, agents, amnesties, the national database, ends and new IMEIs make of a timer.

Unless said otherwise: a start on 23 November 2026, so the last day is 23 December.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import reduce
from itertools import permutations
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eir.timers.grey import (
    MOST_ACTS,
    MOST_STARTS,
    MOST_SUBSCRIBERS,
    Act,
    Acted,
    ActKind,
    Attempted,
    Device,
    End,
    Ended,
    Event,
    Expired,
    Expiry,
    Inherited,
    National,
    Rules,
    Seen,
    Shift,
    Started,
    Timed,
    Timer,
    apply,
    day_bounds,
    last_day,
    timer,
)

ALMATY = ZoneInfo("Asia/Almaty")
ZONES = [ZoneInfo(name) for name in ("Asia/Almaty", "America/Santiago", "Africa/Cairo", "Europe/Kyiv")]
# 2025 to 2037: as far as tzdata writes changes out one by one.
MOMENTS = st.integers(1_735_689_600, 2_145_916_800)


def at(text: str, zone: ZoneInfo = ALMATY) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp())


def local_day(moment: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(moment, zone).date()


IMEI = 1_010_000_000_001
ONE, TWO = "001010000000001", "001010000000002"
START = at("2026-11-23 10:00:00")
RULES = Rules(30, ALMATY)


def shift(
    number: int, moment: str, days: int, first: date = date(2026, 12, 20), last: date = date(2026, 12, 25)
) -> Shift:
    return Shift(at(moment), f"{number}", *day_bounds(first, last, ALMATY), days, "agent", "reason")


def acted(moment: str, kind: ActKind, days: int = 0, identity: str = "5") -> Acted:
    return Acted(IMEI, Act(at(moment), identity, kind, days, "agent", "reason"))


def device(*events: Event) -> Device:
    return reduce(apply, events, Device(IMEI))


def orders(*events: Event) -> Iterator[tuple[Event, ...]]:
    return permutations(events)


def started(*events: Event, rules: Rules = RULES) -> Timer:
    found = timer(device(Started(IMEI, START, ONE), *events), rules)
    assert found is not None
    return found


def until(day: str) -> Timer:
    """Running, with access until a day begins."""
    return Timer(START, at(f"{day} 00:00:00"), "running")


def noticed(day: str) -> Expired:
    return Expired(IMEI, Expiry(at(f"{day} 00:00:00"), at(f"{day} 00:00:30")))


def test_without_a_start_there_is_no_timer() -> None:
    assert timer(Device(IMEI), RULES) is None
    assert timer(device(Started(IMEI, START, ONE, first=False), acted("2026-12-01 12:00:00", "lift")), RULES) is None


def test_the_clock_runs_from_the_first_activation() -> None:
    assert started() == until("2026-12-24")
    again = Started(IMEI, at("2026-11-25 10:00:00"), ONE)
    assert started(again) == until("2026-12-24")


def test_another_sim_gets_the_same_deadline() -> None:
    other = Started(IMEI, at("2026-12-20 10:00:00"), TWO, "10002", first=False)
    assert started(other) == until("2026-12-24")
    both = device(Started(IMEI, START, ONE), other)
    assert both.seen == (Seen(ONE, START), Seen(TWO, at("2026-12-20 10:00:00"), "10002"))


def test_an_attempt_changes_nothing() -> None:
    one = device(Started(IMEI, START, ONE))
    assert apply(one, Attempted(IMEI, START + 1, TWO)) is one


def test_a_clock_set_back_or_forward() -> None:
    assert started(Started(IMEI, START - 3 * 86400)) == (START - 3 * 86400, at("2026-12-21 00:00:00"), "running")
    assert started(Started(IMEI, START + 10**8)) == until("2026-12-24")


def test_the_date_that_is_told_is_true() -> None:
    end = started().deadline
    assert end is not None
    assert last_day(end, ALMATY) == date(2026, 12, 23)
    assert datetime.fromtimestamp(end - 1, ALMATY).isoformat() == "2026-12-23T23:59:59+05:00"
    assert datetime.fromtimestamp(end, ALMATY).isoformat() == "2026-12-24T00:00:00+05:00"


@given(MOMENTS, st.sampled_from([30, 60, 90, 120]), st.integers(-200, 200), st.sampled_from(ZONES))
def test_the_date_that_is_told_is_true_after_an_extension(start: int, days: int, more: int, zone: ZoneInfo) -> None:
    act = Act(start, "5", "extend", more, "agent", "reason")
    found = timer(device(Started(IMEI, start), Acted(IMEI, act)), Rules(days, zone))
    assert found is not None
    assert found.deadline is not None
    day = last_day(found.deadline, zone)
    assert day == local_day(start, zone) + timedelta(days=days + more)
    # A whole day: the next one begins with the deadline.
    assert local_day(found.deadline, zone) == day + timedelta(days=1)
    assert day_bounds(day, day, zone)[1] == found.deadline


def test_thirty_days_pass() -> None:
    one = device(Started(IMEI, START, ONE))
    access, states = [], []
    for hour in range(24 * 35):
        now = START + 3600 * hour
        found = timer(one, RULES)
        assert found is not None
        assert found.deadline is not None
        access.append((local_day(now, ALMATY), now < found.deadline))
        if found.state == "running" and found.deadline <= now:
            one = apply(one, Expired(IMEI, Expiry(found.deadline, now)))
            found = timer(one, RULES)
            assert found is not None
        states.append(found.state)
    assert {day for day, has in access if has} == {date(2026, 11, 23) + timedelta(days=n) for n in range(31)}
    assert {day for day, has in access if not has} == {date(2026, 12, 24) + timedelta(days=n) for n in range(5)}
    assert states == ["running"] * (30 * 24 + 14) + ["expired"] * (5 * 24 - 14)


def test_an_expiry_is_of_its_deadline() -> None:
    assert started(noticed("2026-12-24")).state == "expired"
    assert started(noticed("2026-12-23")).state == "running"
    one = device(noticed("2026-12-24"), Started(IMEI, START))
    assert timer(one, RULES) == (START, at("2026-12-24 00:00:00"), "expired")


# What agents do.


@pytest.mark.parametrize("order", list(permutations(["freeze", "unfreeze", "extend", "lift"])), ids="-".join)
def test_acts_in_every_order(order: tuple[ActKind, ...]) -> None:
    """A freeze is worth the days until the unfreeze behind it, an extension its days; a lift lasts until one."""
    day = {kind: number for number, kind in enumerate(order, 1)}
    found = started(*(acted(f"2026-12-0{day[kind]} 12:00:00", kind, 10) for kind in order))
    if day["lift"] > day["extend"]:
        assert found == (START, None, "lifted")
    elif day["freeze"] > day["unfreeze"]:
        assert found == (START, None, "frozen")
    else:
        more = 10 + day["unfreeze"] - day["freeze"]
        assert found.deadline == at("2026-12-24 00:00:00") + more * 86400


@pytest.mark.parametrize(
    ("acts", "day"),
    [
        ([("2026-12-01 23:59:59", "freeze"), ("2026-12-08 00:00:00", "unfreeze")], "2026-12-31"),
        ([("2026-12-01 00:00:00", "freeze"), ("2026-12-01 23:59:59", "unfreeze")], "2026-12-24"),
        (
            [
                ("2026-12-01 12:00:00", "freeze"),
                ("2026-12-03 12:00:00", "freeze"),
                ("2026-12-08 12:00:00", "unfreeze"),
                ("2026-12-15 12:00:00", "unfreeze"),
            ],
            "2026-12-31",
        ),
        # Frozen on its last day, it has that day again.
        ([("2026-12-23 12:00:00", "freeze"), ("2027-01-05 12:00:00", "unfreeze")], "2027-01-06"),
        # Frozen when it had run out: it has run out again.
        ([("2027-01-05 12:00:00", "freeze"), ("2027-01-09 12:00:00", "unfreeze")], "2026-12-28"),
        ([("2026-12-01 12:00:00", "extend")], "2027-01-03"),
        ([("2026-12-23 23:59:59", "extend")], "2027-01-03"),
        # Run out: as many days as a start on the day of the act would have.
        ([("2026-12-24 00:00:00", "extend")], "2027-01-04"),
        ([("2027-01-05 12:00:00", "extend")], "2027-01-16"),
        ([("2026-12-01 12:00:00", "extend"), ("2026-12-02 12:00:00", "extend")], "2027-01-13"),
        ([("2026-12-01 12:00:00", "lift"), ("2026-12-05 12:00:00", "extend")], "2027-01-03"),
        ([("2026-12-01 12:00:00", "lift"), ("2027-01-05 12:00:00", "extend")], "2027-01-16"),
        # It does not run out while it is frozen: 22 days were left, and are.
        (
            [
                ("2026-12-01 12:00:00", "freeze"),
                ("2027-01-10 12:00:00", "extend"),
                ("2027-01-20 12:00:00", "unfreeze"),
            ],
            "2027-02-22",
        ),
        (
            [
                ("2027-01-05 12:00:00", "freeze"),
                ("2027-01-07 12:00:00", "extend"),
                ("2027-01-09 12:00:00", "unfreeze"),
            ],
            "2027-01-20",
        ),
    ],
)
def test_acts(acts: list[tuple[str, ActKind]], day: str) -> None:
    assert started(*(acted(moment, kind, 10) for moment, kind in acts)) == until(day)


def test_a_frozen_or_lifted_timer_has_no_deadline_before_and_after_expiry() -> None:
    for moment in ("2026-12-01 12:00:00", "2027-01-05 12:00:00"):
        assert started(noticed("2026-12-24"), acted(moment, "freeze")) == (START, None, "frozen")
        assert started(noticed("2026-12-24"), acted(moment, "lift")) == (START, None, "lifted")


def test_an_extension_after_expiry_can_expire_too() -> None:
    more = acted("2027-01-05 12:00:00", "extend", 10)
    assert started(noticed("2026-12-24"), more) == until("2027-01-16")
    assert started(noticed("2026-12-24"), more, noticed("2027-01-16")).state == "expired"
    assert started(noticed("2027-01-16"), more, noticed("2026-12-24")).state == "expired"


def test_acts_of_one_second_go_by_their_ids() -> None:
    freeze, unfreeze = (acted("2026-12-01 12:00:00", kind, identity=kind[0]) for kind in ("freeze", "unfreeze"))
    assert started(unfreeze, freeze) == until("2026-12-24")
    later = acted("2026-12-01 12:00:00", "freeze", identity="v")
    assert started(later, unfreeze) == (START, None, "frozen")


def test_days_that_begin_at_one_o_clock_move_to_days_that_begin_at_midnight() -> None:
    santiago = ZoneInfo("America/Santiago")
    utc = ZoneInfo("UTC")
    for start, days, end in (
        ("2026-08-06 12:00:00", 7, "2026-09-13 03:00:00"),
        ("2026-07-30 12:00:00", 7, "2026-09-06 04:00:00"),
        ("2026-08-06 12:00:00", -7, "2026-08-30 04:00:00"),
    ):
        act = Act(at(start, santiago), "5", "extend", days, "agent", "reason")
        found = timer(device(Started(IMEI, at(start, santiago)), Acted(IMEI, act)), Rules(30, santiago))
        assert found is not None
        assert found.deadline == at(end, utc)


# Amnesties.


@pytest.mark.parametrize(
    ("start", "day"),
    [
        ("2026-11-19 23:59:59", "2026-12-20"),
        ("2026-11-20 00:00:00", "2026-12-28"),
        ("2026-11-25 23:59:59", "2027-01-02"),
        ("2026-11-26 00:00:00", "2026-12-27"),
    ],
)
def test_a_shift_moves_the_last_days_of_a_range(start: str, day: str) -> None:
    rules = RULES.with_shifts((shift(1, "2026-12-01 12:00:00", 7),))
    found = timer(device(Started(IMEI, at(start))), rules)
    assert found is not None
    assert found.deadline == at(f"{day} 00:00:00")


def test_a_shift_is_taken_back() -> None:
    rules = RULES.with_shifts((shift(1, "2026-12-01 12:00:00", 7),))
    assert started(rules=rules) == until("2026-12-31")
    assert started(rules=rules.with_shifts(())) == until("2026-12-24")


def test_a_shift_does_not_count_for_later_starts() -> None:
    assert started(rules=RULES.with_shifts((shift(1, "2026-11-23 09:59:59", 7),))) == until("2026-12-24")
    assert started(rules=RULES.with_shifts((shift(1, "2026-11-23 10:00:00", 7),))) == until("2026-12-31")


def test_a_shift_back_ends_access_earlier() -> None:
    assert started(rules=RULES.with_shifts((shift(1, "2026-12-01 12:00:00", -3),))) == until("2026-12-21")


def test_a_shift_brings_back_what_has_run_out() -> None:
    rules = RULES.with_shifts((shift(1, "2026-12-26 12:00:00", 7),))
    assert started(noticed("2026-12-24"), rules=rules) == until("2026-12-31")


def test_shifts_go_in_their_order() -> None:
    one = shift(1, "2026-12-01 12:00:00", 7)
    for moment, day in (("2026-12-02 12:00:00", "2027-01-05"), ("2026-11-30 12:00:00", "2026-12-31")):
        two = shift(2, moment, 5, date(2026, 12, 28), date(2026, 12, 31))
        assert started(rules=RULES.with_shifts((one, two))) == until(day)
        assert started(rules=RULES.with_shifts((two, one))) == until(day)


@pytest.mark.parametrize(
    ("moment", "identity", "day"),
    [
        ("2026-12-01 11:59:59", "5", "2027-01-03"),
        ("2026-12-01 12:00:00", "0", "2027-01-03"),
        ("2026-12-01 12:00:00", "5", "2027-01-10"),
        ("2026-12-01 12:00:01", "0", "2027-01-10"),
    ],
)
def test_shifts_and_acts_go_in_their_order(moment: str, identity: str, day: str) -> None:
    rules = RULES.with_shifts((shift(1, "2026-12-01 12:00:00", 7),))
    assert started(acted(moment, "extend", 10, identity), rules=rules) == until(day)


def test_a_shift_moves_frozen_timers_and_not_lifted_ones() -> None:
    rules = RULES.with_shifts((shift(1, "2026-12-02 12:00:00", 7),))
    freeze, unfreeze = acted("2026-12-01 12:00:00", "freeze"), acted("2026-12-03 12:00:00", "unfreeze")
    assert started(freeze, unfreeze, rules=rules) == until("2027-01-02")
    assert started(acted("2026-12-01 12:00:00", "lift"), rules=rules) == (START, None, "lifted")


# The national database.


def national(sequence: int, day: str, start: int = START) -> Timed:
    return Timed(IMEI, National(sequence, start, at(f"{day} 00:00:00")))


@pytest.mark.parametrize("day", ["2026-12-01", "2027-01-31"])
def test_the_national_deadline_replaces_ours(day: str) -> None:
    assert started(national(1, day)) == until(day)
    assert started(national(1, day, START + 86400)) == until(day)
    earlier = Timer(START - 86400, at(f"{day} 00:00:00"), "running")
    assert started(national(1, day, START - 86400)) == earlier
    assert timer(device(national(1, day, START - 86400)), RULES) == earlier


def test_the_latest_national_word_counts() -> None:
    assert started(national(2, "2026-12-10"), national(1, "2026-12-01")) == until("2026-12-10")


def test_what_agents_do_comes_on_top_of_the_national_deadline() -> None:
    more = acted("2026-11-30 12:00:00", "extend", 5)
    assert started(more, national(1, "2026-12-10")) == until("2026-12-15")
    rules = RULES.with_shifts((shift(1, "2026-12-01 12:00:00", 7, date(2026, 12, 14), date(2026, 12, 14)),))
    assert started(more, national(1, "2026-12-10"), rules=rules) == until("2026-12-22")


def test_a_national_deadline_within_a_day_is_of_that_day() -> None:
    noon = Timed(IMEI, National(1, START, at("2026-12-10 12:00:00")))
    assert started(noon).deadline == at("2026-12-10 12:00:00")
    assert last_day(at("2026-12-10 12:00:00"), ALMATY) == date(2026, 12, 10)
    rules = RULES.with_shifts((shift(1, "2026-12-01 12:00:00", 7, date(2026, 12, 10), date(2026, 12, 10)),))
    assert started(noon, rules=rules).deadline == at("2026-12-17 12:00:00")


# Ends, and new IMEIs.


def test_an_end_ends_everything_before_it() -> None:
    end = Ended(IMEI, End(START + 100, "verified", 7))
    told: list[Event] = [
        Started(IMEI, START, ONE, "10001"),
        acted("2026-11-23 10:00:10", "lift"),
        national(7, "2026-12-01"),
        end,
    ]
    for order in orders(*told):
        assert timer(device(*order), RULES) is None
        assert device(*order) == Device(IMEI, end=End(START + 100, "verified", 7))


def test_a_start_behind_an_end_is_another_timer_also_where_the_end_is_told_of_late() -> None:
    end, again = Ended(IMEI, End(START + 100, "verified")), Started(IMEI, START + 86400, TWO)
    for order in orders(Started(IMEI, START, ONE), end, again, noticed("2026-12-24")):
        one = device(*order)
        assert timer(one, RULES) == (START + 86400, at("2026-12-25 00:00:00"), "running")
        assert one.seen == (Seen(TWO, START + 86400),)


def test_what_comes_in_the_second_of_an_end_comes_behind_it() -> None:
    end = Ended(IMEI, End(START, "verified"))
    assert started(end) == until("2026-12-24")
    assert started(end, acted("2026-11-23 10:00:00", "freeze")) == (START, None, "frozen")


def test_a_national_word_behind_an_end_counts() -> None:
    for order in orders(Ended(IMEI, End(START, "verified", 7)), national(8, "2026-12-01"), national(6, "2027-01-01")):
        assert timer(device(*order), RULES) == until("2026-12-01")


def test_an_end_by_older_lists_does_not_bring_national_words_back() -> None:
    ends = [Ended(IMEI, End(START, "verified", 7)), Ended(IMEI, End(START + 100, "replaced"))]
    for order in orders(*ends, national(6, "2026-12-01")):
        assert timer(device(*order), RULES) is None


def test_another_imei_keeps_the_deadline() -> None:
    more = acted("2026-12-01 12:00:00", "extend", 10)
    old = device(Started(IMEI, START, ONE, "10001"), more)
    inherited = Inherited(IMEI + 1, old)
    new = Device(IMEI + 1)
    assert timer(apply(new, inherited), RULES) == until("2027-01-03")
    own = Started(IMEI + 1, at("2026-12-05 10:00:00"), TWO)
    for order in orders(own, inherited, own, inherited):
        one = reduce(apply, order, new)
        assert timer(one, RULES) == until("2027-01-03")
        assert [seen.imsi for seen in one.seen] == [ONE, TWO]


def test_another_imei_keeps_an_expiry() -> None:
    old = device(Started(IMEI, START, ONE), noticed("2026-12-24"))
    found = timer(apply(Device(IMEI + 1), Inherited(IMEI + 1, old)), RULES)
    assert found == (START, at("2026-12-24 00:00:00"), "expired")


def test_the_number_that_was_told_last_is_kept() -> None:
    told: list[Event] = [
        Started(IMEI, START, ONE, "10009"),
        Started(IMEI, START + 60, ONE, "10001", first=False),
        Started(IMEI, START + 90, ONE, first=False),
    ]
    for order in orders(*told):
        assert device(*order).seen == (Seen(ONE, START + 90, "10001", 30),)
    for order in orders(*told, Ended(IMEI, End(START + 70))):
        assert device(*order).seen == (Seen(ONE, START + 90),)


# What a record holds at most.


def test_a_record_does_not_grow_without_end() -> None:
    one = device(*(Started(IMEI, START + number, f"00101{number:010}") for number in reversed(range(100))))
    assert one.starts == tuple(range(START, START + MOST_STARTS))
    assert len(one.seen) == MOST_SUBSCRIBERS
    many = (acted("2026-12-01 12:00:00", "extend", 1, f"{number:03}") for number in range(100))
    full = device(*many)
    assert len(full.acts) == MOST_ACTS
    assert apply(full, acted("2026-12-02 12:00:00", "lift")) is full
