"""Reminders on every store: once a day for each subscriber, whoever plans and however often."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import pytest

from eir.timers import grey
from eir.timers.grey import Act, Acted, Started
from eir.timers.store import Store
from sms import hours
from sms import reminders as planning
from sms.outbox import Outbox
from sms.reminders import Reminders, ReminderSettings, slot
from sms.wording import mark_of
from support.messages import Sending, running, wait_for
from support.stores import DAY, FIRST_IMEI, NOON, RULES, Nodes, change, device, put

SETTINGS = ReminderSettings(time(11), time(13), time(18))
FIRST_DAY = (datetime.fromtimestamp(NOON, UTC) + timedelta(hours=5)).date()


def clock(days: int, hour: int, minute: int = 0) -> int:
    """A local time, so many days after the first attach."""
    return hours.at(FIRST_DAY + timedelta(days=days), time(hour, minute), RULES.zone)


def imsi(number: int) -> str:
    return f"00101{number:010}"


class Planner(Reminders):
    """One whose clock stands still."""

    def __init__(self, store: Store, name: str = "eir1.test") -> None:
        self.clock = NOON
        super().__init__(store, SETTINGS, name, rules=lambda: RULES, now=lambda: self.clock)

    async def at(self, now: int) -> None:
        self.clock = now
        await self.turn()


async def with_devices(nodes: Nodes, count: int = 40) -> Store:
    """Devices with one subscriber each, seen for the first time on the first day."""
    store = await nodes.open()
    seen = [device(n, Started(FIRST_IMEI + n, NOON, imsi(n), first=False)) for n in range(1, count + 1)]
    await put(store, map(change, seen))
    return store


async def queued(store: Store) -> list[tuple[int, int, int]]:
    """(device, day, when) of all reminders that wait."""
    return [(one.imei - FIRST_IMEI, one.mark, one.at) for one in await store.queued(10_000) if one.kind == "reminder"]


async def test_each_day_but_the_first_at_the_same_place_in_the_window(nodes: Nodes) -> None:
    store = await with_devices(nodes)
    planner = Planner(store)
    places = []
    for day in range(3):
        await planner.at(clock(day, 10, 29))
        assert planner.state.planned.passes == 0
        await planner.at(clock(day, 10, 30))
        assert planner.state.planned.passes == 1
        today = mark_of(FIRST_DAY + timedelta(days=day))
        places.append(sorted((n, at - clock(day, 11)) for n, mark, at in await queued(store) if mark == today))
    assert places[0] == []
    assert [n for n, _ in places[1]] == list(range(1, 41))
    assert places[1] == places[2] and all(0 <= at < 7200 for _, at in places[1])
    assert len({at for _, at in places[1]}) > 20


async def test_planned_again_it_adds_only_those_who_came(nodes: Nodes) -> None:
    store = await with_devices(nodes, 5)
    planner = Planner(store)
    await planner.at(clock(1, 10, 45))
    late = device(9, Started(FIRST_IMEI + 9, NOON, imsi(9), first=False))
    await put(store, [change(late)])
    await planner.at(clock(1, 12))
    assert len(await queued(store)) == 5
    await planner.at(clock(1, 13))
    assert (len(await queued(store)), planner.state.planned.queued, planner.state.planned.passes) == (6, 6, 2)
    await Planner(store, "eir2.test").at(clock(1, 14))
    assert len(await queued(store)) == 6


@pytest.mark.parametrize(("hour", "expected"), [(10, 0), (12, 3), (17, 3), (18, 0), (23, 0)])
async def test_a_node_that_was_down_plans_late_but_not_too_late(nodes: Nodes, hour: int, expected: int) -> None:
    store = await with_devices(nodes, 3)
    await Planner(store).at(clock(1, hour))
    assert len(await queued(store)) == expected


async def test_who_has_no_end_to_be_told_or_no_timer_is_left_out(nodes: Nodes) -> None:
    store = await with_devices(nodes, 0)

    def act(n: int, kind: grey.ActKind) -> Acted:
        return Acted(FIRST_IMEI + n, Act(NOON + 5, f"{n}", kind, 2, "an agent", "a reason"))

    def seen(n: int) -> Started:
        return Started(FIRST_IMEI + n, NOON, imsi(n), first=False)

    devices = [
        device(1, seen(1)),
        device(2, seen(2), act(2, "freeze")),
        device(3, seen(3), act(3, "lift")),
        device(4, seen(4), act(4, "extend")),
        device(5, seen(5), grey.Ended(FIRST_IMEI + 5, grey.End(NOON + 9, "verified"))),
        device(6),
        device(7, seen(7), Started(FIRST_IMEI + 7, NOON, imsi(8), first=False)),
    ]
    await put(store, map(change, devices))
    planner = Planner(store)
    await planner.at(clock(30, 12))
    assert sorted(n for n, _, _ in await queued(store)) == [1, 4, 7, 7]
    # The day after their last one those without more days are expired, if not yet in the store.
    await planner.at(clock(31, 12))
    assert [n for n, mark, _ in await queued(store) if mark == mark_of(FIRST_DAY + timedelta(days=31))] == [4]


async def test_another_goes_on_where_one_was_lost(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "_PAGE", 10)
    monkeypatch.setattr(planning, "_TOGETHER", 10)
    store = await with_devices(nodes, 60)
    first = Planner(store)
    asked = 0

    async def lost(name: str, holder: str, seconds: float) -> bool:
        nonlocal asked
        asked += 1
        return asked < 3

    with monkeypatch.context() as patched:
        patched.setattr(store, "lease", lost)
        await first.at(clock(1, 12))
    before = len(await queued(store))
    assert 0 < before < 60 and first.state.planned.after is not None
    second = Planner(await nodes.another(store), "eir2.test")
    await second.at(clock(1, 12))
    assert len(await queued(store)) == 60 and second.state.planned.queued == 60


async def test_a_reminder_goes_out_in_its_turn_and_not_after_the_late_hour(nodes: Nodes) -> None:
    store = await with_devices(nodes, 20)
    await Planner(store).at(clock(1, 10, 45))
    sending = Sending(store)
    for n in range(1, 21):
        sending.subscribers.add(imsi(n), f"999{n:09}")
    sending.now = clock(1, 12)
    outbox = sending.outbox()
    turn = sum(at <= clock(1, 12) for _, _, at in await queued(store))
    async with running(outbox):
        await wait_for(lambda: outbox.state.outcomes["reminder", "accepted", ""] == turn, 20, outbox)
    assert 0 < turn < 20
    late: Outbox = sending.outbox()
    sending.now = clock(1, 18)
    async with running(late):
        await wait_for(lambda: late.state.outcomes["reminder", "expired", "too-late"] == 20 - turn, 20, late)


def test_places_are_spread_evenly() -> None:
    found = [slot(FIRST_IMEI + n, 0, 100) for n in range(10_000)]
    counts = [found.count(second) for second in range(100)]
    assert min(counts) > 80 and max(counts) < 120


def test_a_day_is_as_long_as_it_is() -> None:
    assert hours.at(date(2026, 3, 29), time(12), RULES.zone) - hours.at(date(2026, 3, 28), time(12), RULES.zone) == DAY
