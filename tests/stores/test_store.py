"""What `eir.timers.store.Store` promises, asked of every store.

On a divided store a commit moves only the cursors of the parts that it touches, so `position` may lag until `mark`. A
store for many nodes may keep changes longer than it is asked to, and may tell a node what it knows already.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from eir.audit_chain import Head
from eir.timers import grey
from eir.timers.grey import NEVER, Act, Acted, Device, Expired, Expiry, Shift
from eir.timers.store import BehindError, Counts, Memory, Message, Position, Store, memory
from support.stores import DAY, FIRST_IMEI, NOON, RULES, Nodes, change, device, message, put


def imei(number: int) -> int:
    return FIRST_IMEI + number


def act(number: int, kind: grey.ActKind, at: int = NOON + 60) -> Acted:
    return Acted(imei(number), Act(at, f"{kind}-{at}", kind, 3, "an agent", "a reason"))


def expired(of: Device) -> Device:
    timer = grey.timer(of, RULES)
    assert timer is not None and timer.deadline is not None
    return grey.apply(of, Expired(of.imei, Expiry(timer.deadline, timer.deadline)))


def shift(name: str, first: int = 0, last: int = NEVER) -> Shift:
    return Shift(NOON, name, first, last, 7, "an agent", "an amnesty")


async def one(store: Store, number: int) -> tuple[Device, int]:
    """A device that must be there, and its version."""
    return (await store.load([imei(number)]))[imei(number)]


async def update(store: Store, of: Device) -> None:
    """Makes a stored device another."""
    stored = await store.load([of.imei])
    await put(store, [change(of, stored[of.imei].version)])


async def all_changes(store: Store, after: Position, most: int = 3) -> tuple[list[Memory], Position]:
    """Everything after a position, read in pages."""
    found: list[Memory] = []
    while True:
        page, after = await store.changes(after, most, 0)
        assert len(page) <= most
        if not page:
            return found, after
        found += page


async def scanned(store: Store, most: int, first: int = 0, last: int = NEVER) -> list[int]:
    """The IMEIs that a whole scan gives, in its order."""
    found: list[int] = []
    after: bytes | None = None
    while True:
        page = await store.scan(after, most, first, last)
        found += [stored.device.imei for stored in page.devices]
        if page.next is None:
            return found
        after = page.next


async def keys(store: Store) -> set[tuple[str, int, str, int]]:
    return {waiting.key for waiting in await store.queued(1000)}


# --- devices ---------------------------------------------------------------------------------------------------------


async def test_an_empty_store_has_nothing(nodes: Nodes) -> None:
    store = await nodes.open()
    assert await store.load([1, imei(1)]) == {}
    assert await store.load([]) == {}
    assert await store.counts() == Counts(0, 0, 0, 0)
    assert await store.due(NEVER, 10) == []
    assert await store.queued(10) == []
    assert await scanned(store, 10) == []
    assert await scanned(store, 10, NOON, NOON) == []
    assert await store.position("journal:a") == 0
    assert await store.shifts() == (0, ())
    assert await store.setting("fingerprint") is None
    assert await store.heads() == []
    assert await all_changes(store, await store.end_of_changes()) == ([], await store.end_of_changes())
    assert await store.problems() == []


async def test_what_is_committed_is_there(nodes: Nodes) -> None:
    store = await nodes.open()
    devices = [
        device(1),
        device(2, grey.Started(imei(2), NOON + 5, "001010000000001", "999000000001"), act(2, "freeze")),
        device(3, start=None),
        device(4, grey.Timed(imei(4), grey.National(7, NOON - 5, NOON + DAY)), grey.Ended(imei(4), grey.End(1))),
    ]
    await put(store, map(change, devices))
    for of in (store, await nodes.another(store)):
        loaded = await of.load([imei(number) for number in range(9)])
        assert {number: stored.device for number, stored in loaded.items()} == {one.imei: one for one in devices}
        assert all(stored.version > 0 for stored in loaded.values())


async def test_what_is_committed_is_there_after_a_restart(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(1), messages=(message(1),))], "journal:a", 7)
    await store.mark("journal:a", 7)
    await store.put_shift(shift("s"))
    await store.set_setting("fingerprint", b"\0\xff")
    await store.publish(Head("a", 4, "ab"))
    before = await store.load([imei(1)])
    store = await nodes.reopen(store)
    assert await store.load([imei(1)]) == before
    assert await store.position("journal:a") == 7
    assert await store.shifts() == (1, (shift("s"),))
    assert await store.setting("fingerprint") == b"\0\xff"
    assert await store.heads() == [Head("a", 4, "ab")]
    assert await store.queued(10) == [message(1)]
    assert await store.counts() == Counts(1, 0, 0, 1)


async def test_many_devices_at_once(nodes: Nodes) -> None:
    store = await nodes.open()
    devices = [device(number * 7919 % 3001) for number in range(3001)]
    await put(store, [change(one, messages=(message(one.imei - FIRST_IMEI),)) for one in devices])
    loaded = await store.load({one.imei for one in devices})
    assert [loaded[one.imei].device for one in devices] == devices
    assert await store.counts() == Counts(3001, 0, 0, 3001)


@pytest.mark.parametrize("step", [-1, 1, 1000])
async def test_a_change_of_another_version_is_refused(nodes: Nodes, step: int) -> None:
    store = await nodes.open()
    await put(store, [change(device(1))])
    await update(store, device(1, act(1, "freeze")))
    of, version = await one(store, 1)
    other = await nodes.another(store)
    wrong = change(device(1, act(1, "lift")), version + step, messages=(message(1),))
    assert await other.commit([wrong], 0) == {imei(1)}
    assert await one(store, 1) == (of, version)
    assert await store.queued(10) == []
    assert await store.counts() == Counts(0, 1, 0, 0)


async def test_a_device_is_new_once(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(1))])
    assert await store.commit([change(device(1, act(1, "lift")))], 0) == {imei(1)}
    assert await store.commit([change(device(2), 1)], 0) == {imei(2)}
    assert await store.load([imei(2)]) == {}


async def test_the_version_rises_with_every_change(nodes: Nodes) -> None:
    store = await nodes.open()
    versions = [0]
    for _ in range(3):
        await put(store, [change(device(1), versions[-1])])
        versions.append((await one(store, 1))[1])
    assert versions == sorted(set(versions))


async def test_of_nodes_that_change_a_device_at_once_one_is_refused(nodes: Nodes) -> None:
    store = await nodes.open()
    other = await nodes.another(store)
    await put(store, [change(device(1))])
    _, version = await one(store, 1)
    refused = await asyncio.gather(
        store.commit([change(device(1, act(1, "lift")), version)], 0),
        other.commit([change(device(1, act(1, "freeze")), version)], 0),
    )
    assert sorted(map(len, refused)) == [0, 1]
    wins = "lift" if not refused[0] else "freeze"
    assert [one.kind for one in (await one(store, 1))[0].acts] == [wins]


async def test_what_was_not_refused_is_written(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(number)) for number in range(5)])
    versions = {number: (await one(store, number))[1] for number in range(5)}
    lifted = [change(device(number, act(number, "lift")), versions[number]) for number in range(5)]
    await update(store, device(2, act(2, "freeze")))
    refused = await store.commit(lifted, 0)
    assert imei(2) in refused
    assert await store.load([imei(9)]) == {}
    for number in range(5):
        kinds = [act.kind for act in (await one(store, number))[0].acts]
        assert kinds == (["freeze"] if number == 2 else [] if imei(number) in refused else ["lift"])
    assert (await store.counts()).stopped == 1 + 5 - len(refused)


# --- cursors ---------------------------------------------------------------------------------------------------------


async def test_a_cursor_moves_with_its_commit(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(1))], "journal:a", 5)
    assert await store.position("journal:a") in ({0, 5} if nodes.shared else {5})
    await store.mark("journal:a", 5)
    other = await nodes.another(store)
    assert await other.position("journal:a") == 5
    assert await other.position("journal:b") == await other.position("journal:") == 0


async def test_a_refused_change_does_not_move_the_cursor(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(1))], "journal:a", 5)
    await store.mark("journal:a", 5)
    assert await store.commit([change(device(1)), change(device(2))], 0, "journal:a", 9) >= {imei(1)}
    assert await store.position("journal:a") == 5
    assert await store.commit([change(device(3))], 1, "journal:a", 9) == {imei(3)}
    assert await store.position("journal:a") == 5


async def test_a_cursor_never_goes_back(nodes: Nodes) -> None:
    store = await nodes.open()
    await store.mark("audit:a", 1 << 40)
    await store.mark("audit:a", 3)
    assert await store.position("audit:a") == 1 << 40
    await put(store, [change(device(1))], "audit:a", 4)
    assert await store.position("audit:a") == 1 << 40
    assert imei(1) in await store.load([imei(1)])


async def test_a_commit_without_changes_moves_the_cursor_or_nothing(nodes: Nodes) -> None:
    store = await nodes.open()
    assert await store.commit([], 0, "journal:a", 8) == frozenset()
    assert await store.position("journal:a") in {0, 8}
    assert await store.commit([], 0) == frozenset()


async def test_a_commit_without_a_source_moves_no_cursor(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(1))], "", 8)
    assert await store.position("") == 0


# --- messages --------------------------------------------------------------------------------------------------------


async def test_a_message_is_put_once(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(1), messages=(message(1), message(1, NOON + 1)))])
    assert await store.queued(10) == [message(1)]
    await put(store, [change(device(1), (await one(store, 1))[1], messages=(message(1, NOON + 2),))])
    assert await store.queued(10) == [message(1)]
    assert (await store.counts()).queued == 1


async def test_messages_with_other_keys_are_others(nodes: Nodes) -> None:
    store = await nodes.open()
    different = (
        message(1),
        message(1, subscriber=2),
        message(1, mark=NOON),
        message(1, kind="black-expired"),
        message(2),
    )
    await put(store, [change(device(1), messages=different[:4]), change(device(2), messages=different[4:])])
    assert await keys(store) == {one.key for one in different}
    assert sorted(await store.queued(10), key=repr) == sorted(different, key=repr)


async def test_a_report_has_no_subscriber(nodes: Nodes) -> None:
    store = await nodes.open()
    report = Message("report-expired", imei(1), "", 0, NOON)
    await put(store, [change(device(1), messages=(report,))])
    assert await store.queued(10) == [report]


async def test_the_oldest_messages_come_first(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(n), messages=(message(n, NOON + n),)) for n in range(20)])
    queue = [waiting.at - NOON for waiting in await store.queued(5)]
    assert queue == [0, 1, 2, 3, 4]


async def test_a_withdrawn_message_does_not_wait_and_never_comes_back(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(1), messages=(message(1), message(1, subscriber=2)))])
    await put(store, [change(device(1), (await one(store, 1))[1], withdrawn=(message(1).key,))])
    assert await keys(store) == {message(1, subscriber=2).key}
    assert (await store.counts()).queued == 1
    again = change(device(1), (await one(store, 1))[1], messages=(message(1),), withdrawn=(message(1).key,))
    await put(store, [again])
    await put(store, [change(device(1), (await one(store, 1))[1], messages=(message(1, NOON + DAY),))])
    assert await keys(store) == {message(1, subscriber=2).key}
    assert (await store.counts()).queued == 1


async def test_withdrawing_what_was_never_put_changes_nothing(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(1), withdrawn=(message(1).key,))])
    assert await store.counts() == Counts(1, 0, 0, 0)
    await put(store, [change(device(1), (await one(store, 1))[1], messages=(message(1),))])
    assert await store.queued(10) == [message(1)]


async def test_a_change_puts_before_it_withdraws(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(1), messages=(message(1),), withdrawn=(message(1).key,))])
    assert await store.queued(10) == []


async def test_a_message_apart_waits_for_its_time(nodes: Nodes) -> None:
    store = await nodes.open()
    # (after so many seconds an attempt, whether it is told of). What is earlier than the last never is: an event that
    # is replayed must not be told of again, and it cannot be known from one that comes late.
    attempts = [(0, True), (0, False), (1, False), (DAY - 1, False), (-DAY, False), (-3 * DAY, False), (DAY, True)]
    attempts += [(0, False), (2 * DAY - 1, False), (5 * DAY, True), (4 * DAY, False), (3 * DAY, False), (DAY, False)]
    last = 0
    for after, told in attempts:
        stored = await store.load([imei(1)])
        version = stored[imei(1)].version if stored else 0
        attempt = message(1, NOON + after, "black-attempt", apart=DAY)
        await put(store, [change(device(1, start=None), version, messages=(attempt,))])
        last = after if told else last
        # One with this key waits: the last.
        assert await store.queued(10) == [message(1, NOON + last, "black-attempt", apart=DAY)], after
        assert (await store.counts()).queued == 1


async def test_messages_apart_within_one_commit(nodes: Nodes) -> None:
    store = await nodes.open()
    attempts = tuple(message(1, NOON + after, "black-attempt", apart=DAY) for after in (5, 0, DAY, DAY + 5, 2 * DAY))
    await put(store, [change(device(1, start=None), messages=attempts)])
    assert await store.queued(10) == [attempts[3]]


async def test_a_withdrawn_message_apart_may_come_again(nodes: Nodes) -> None:
    store = await nodes.open()
    attempt = message(1, NOON, "black-attempt", apart=DAY)
    await put(store, [change(device(1), messages=(attempt,), withdrawn=(attempt.key,))])
    for after, told in ((0, False), (DAY - 1, False), (DAY, True)):
        attempt = message(1, NOON + after, "black-attempt", apart=DAY)
        await put(store, [change(device(1), (await one(store, 1))[1], messages=(attempt,))])
        assert await store.queued(10) == ([attempt] if told else [])


# --- shifts ----------------------------------------------------------------------------------------------------------


async def test_a_shift_is_added_once(nodes: Nodes) -> None:
    store = await nodes.open()
    other = await nodes.another(store)
    await store.put_shift(shift("a", 5, NEVER))
    await other.put_shift(shift("b"))
    await other.put_shift(shift("a"))
    revision, shifts = await store.shifts()
    assert (revision, sorted(shifts)) == (2, sorted([shift("a", 5, NEVER), shift("b")]))
    assert await other.shifts() == (revision, shifts)


async def test_a_shift_that_was_taken_away_never_comes_back(nodes: Nodes) -> None:
    store = await nodes.open()
    await store.put_shift(shift("a"))
    await store.remove_shift("a")
    assert await store.shifts() == (2, ())
    await store.put_shift(shift("a"))
    await store.remove_shift("a")
    assert await store.shifts() == (2, ())
    store = await nodes.reopen(store)
    await store.put_shift(shift("a"))
    assert await store.shifts() == (2, ())


async def test_a_shift_may_be_taken_away_before_it_comes(nodes: Nodes) -> None:
    store = await nodes.open()
    await store.remove_shift("a")
    await store.put_shift(shift("a"))
    assert (await store.shifts())[1] == ()


async def test_a_commit_for_other_shifts_is_refused(nodes: Nodes) -> None:
    store = await nodes.open()
    other = await nodes.another(store)
    await other.put_shift(shift("a"))
    refused = await store.commit([change(device(1), messages=(message(1),)), change(device(2))], 0, "journal:a", 4)
    assert refused == {imei(1), imei(2)}
    assert await store.load([imei(1), imei(2)]) == {}
    assert await store.counts() == Counts(0, 0, 0, 0)
    assert await store.position("journal:a") == 0
    await put(store, [change(device(1))])
    assert await store.commit([change(device(2))], 5) == {imei(2)}


# --- deadlines -------------------------------------------------------------------------------------------------------


async def test_what_is_due(nodes: Nodes) -> None:
    store = await nodes.open()
    days = [5, 3, 9, 1, 7]
    await put(store, [change(device(n, start=NOON + day * DAY)) for n, day in enumerate(days)])
    until = RULES.deadline(NOON + 5 * DAY)
    assert await store.due(until, 10) == [imei(3), imei(1), imei(0)]
    assert await store.due(until, 2) == [imei(3), imei(1)]
    assert await store.due(until - 1, 10) == [imei(3), imei(1)]
    assert await store.due(RULES.deadline(NOON), 10) == []
    other = await nodes.another(store)
    assert await other.due(NEVER, 10) == [imei(n) for n in (3, 1, 0, 4, 2)]
    assert await other.due(NEVER, 0) == []


async def test_only_running_timers_are_due(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(number)) for number in range(6)])
    await update(store, device(0, act(0, "freeze")))
    await update(store, device(1, act(1, "lift")))
    await update(store, device(2, grey.Ended(imei(2), grey.End(NOON + 1, "verified", 3))))
    await update(store, expired(device(3)))
    await update(store, device(4, act(4, "extend")))
    assert await store.due(NEVER, 10) == [imei(5), imei(4)]
    assert await store.counts() == Counts(running=2, stopped=2, expired=1, queued=0)
    await update(store, device(0, act(0, "freeze"), act(0, "unfreeze", NOON + 61)))
    await update(store, device(2, start=NOON - DAY))
    due = await store.due(NEVER, 10)
    assert (due[0], sorted(due[1:3]), due[3]) == (imei(2), [imei(0), imei(5)], imei(4))
    assert await store.counts() == Counts(running=4, stopped=1, expired=1, queued=0)


# --- scans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 7, 1000])
async def test_a_scan_gives_everything_once(nodes: Nodes, most: int) -> None:
    store = await nodes.open()
    devices = [device(number, start=NOON + number % 10 * DAY) for number in range(100)]
    devices += [device(number, start=None) for number in range(100, 110)]
    devices += [device(number, act(number, "freeze")) for number in range(110, 120)]
    devices += [expired(device(number, start=NOON + number % 10 * DAY)) for number in range(120, 150)]
    await put(store, map(change, devices))
    assert sorted(await scanned(store, most)) == [one.imei for one in devices]
    first, last = RULES.deadline(NOON + 2 * DAY), RULES.deadline(NOON + 4 * DAY)
    within = [imei(n) for n in [*range(100), *range(120, 150)] if 2 <= n % 10 <= 4]
    assert sorted(await scanned(store, most, first, last)) == within
    assert sorted(await scanned(store, most, first + 1, last - 1)) == [number for number in within if number % 10 == 3]
    assert await scanned(store, most, 1, NOON) == []
    # With a range, however wide, only timers that have a deadline.
    assert len(await scanned(store, most, 1)) == len(await scanned(store, most, 0, NEVER - 1)) == 130


async def test_a_scan_gives_devices_with_their_versions(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(number)) for number in range(3)])
    await update(store, device(1, act(1, "extend")))
    for bounds in ((0, NEVER), (1, NEVER)):
        page = await store.scan(None, 100, *bounds)
        assert {one.device.imei: one for one in page.devices} == await store.load([imei(n) for n in range(3)])


async def test_a_scan_survives_changes(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(number)) for number in range(0, 200, 2)])
    found: list[int] = []
    after, number = None, 1
    while True:
        page = await store.scan(after, 10)
        found += [stored.device.imei for stored in page.devices]
        if page.next is None:
            break
        after = page.next
        await put(store, [change(device(number))])
        await update(store, device(number - 1, act(number - 1, "lift")))
        number += 2
    untouched = [imei(other) for other in range(number - 1, 200, 2)]
    assert [other for other in sorted(found) if other in untouched] == untouched


async def test_a_scan_goes_on_after_a_restart(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(number)) for number in range(50)])
    page = await store.scan(None, 10)
    found = [one.device.imei for one in page.devices]
    store = await nodes.reopen(store)
    while page.next is not None:
        page = await store.scan(page.next, 10)
        found += [one.device.imei for one in page.devices]
    assert sorted(found) == [imei(number) for number in range(50)]


# --- the stream of changes -------------------------------------------------------------------------------------------


async def test_changes_come_after_their_position(nodes: Nodes) -> None:
    store = await nodes.open()
    reader = await nodes.another(store)
    begin = await reader.end_of_changes()
    devices = [device(1), device(2, act(2, "freeze")), device(3, start=None), device(4)]
    for made in devices:
        await put(store, [change(made)])
    expected = [memory(made, grey.timer(made, RULES)) for made in devices]
    found, end = await all_changes(reader, begin)
    assert sorted(found) == sorted(expected)
    assert {one.imei: (one.start, one.deadline) for one in found} == {
        imei(1): (NOON, RULES.deadline(NOON)),
        imei(2): (NOON, NEVER),
        imei(3): (0, 0),
        imei(4): (NOON, RULES.deadline(NOON)),
    }
    assert await all_changes(reader, end) == ([], end)
    await update(store, device(4, act(4, "lift")))
    assert (await all_changes(reader, end))[0] == [Memory(imei(4), NOON, NEVER)]
    assert (await all_changes(reader, await reader.end_of_changes()))[0] == []


async def test_the_last_change_of_a_device_comes_last(nodes: Nodes) -> None:
    store = await nodes.open()
    begin = await store.end_of_changes()
    await put(store, [change(device(number)) for number in range(10)])
    for number in range(10):
        await update(store, device(number, act(number, "freeze")))
    await put(store, [change(device(11, start=None))])
    for most in (1, 4, 100):
        last = {one.imei: one for one in (await all_changes(store, begin, most))[0]}
        assert last == {imei(n): Memory(imei(n), NOON, NEVER) for n in range(10)} | {imei(11): Memory(imei(11), 0, 0)}


async def test_who_is_told(nodes: Nodes) -> None:
    store = await nodes.open()
    other = await nodes.another(store)
    begin, begin_of_other = await store.end_of_changes(), await other.end_of_changes()
    await put(store, [change(device(1), tell="none"), change(device(2), tell="others"), change(device(3))])
    seen = {one.imei for one in (await all_changes(store, begin))[0]}
    assert imei(3) in seen and imei(1) not in seen
    if nodes.shared:
        seen = {one.imei for one in (await all_changes(other, begin_of_other))[0]}
        assert seen == {imei(2), imei(3)}


async def test_refused_changes_are_told_to_nobody(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(1))])
    begin = await store.end_of_changes()
    await store.commit([change(device(1))], 0)
    await store.commit([change(device(2))], 3)
    assert (await all_changes(store, begin))[0] == []


async def test_waiting_for_changes_ends_with_the_first(nodes: Nodes) -> None:
    store = await nodes.open()
    reader = await nodes.another(store)
    begin = await reader.end_of_changes()
    waiting = asyncio.create_task(reader.changes(begin, 10, 60))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    # Waiting must not be in the way of anything else.
    assert await reader.load([imei(1)]) == {}
    await put(store, [change(device(1))])
    found, _ = await asyncio.wait_for(waiting, 10)
    assert [one.imei for one in found] == [imei(1)]


async def test_waiting_for_changes_has_an_end(nodes: Nodes) -> None:
    store = await nodes.open()
    begin = await store.end_of_changes()
    before = time.monotonic()
    found, position = await store.changes(begin, 10, 0.3)
    assert found == []
    assert 0.25 < time.monotonic() - before < 10
    await put(store, [change(device(1))])
    assert [one.imei for one in (await all_changes(store, position))[0]] == [imei(1)]


async def test_waiting_for_changes_can_be_given_up(nodes: Nodes) -> None:
    store = await nodes.open()
    begin = await store.end_of_changes()
    waiting = asyncio.create_task(store.changes(begin, 10, 60))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await put(store, [change(device(1))])
    assert [one.imei for one in (await all_changes(store, begin))[0]] == [imei(1)]


async def test_changes_that_are_forgotten(nodes: Nodes) -> None:
    store = await nodes.open()
    begin = await store.end_of_changes()
    await put(store, [change(device(1))])
    middle = await store.end_of_changes()
    await put(store, [change(device(2))])
    await store.trim_changes(middle)
    assert [one.imei for one in (await all_changes(store, middle))[0]] == [imei(2)]
    try:
        found, _ = await all_changes(store, begin)
    except BehindError:
        pass
    else:
        assert nodes.shared and sorted(one.imei for one in found) == [imei(1), imei(2)]
    end = await store.end_of_changes()
    await store.trim_changes(end)
    await store.trim_changes(middle)
    store = await nodes.reopen(store)
    assert await all_changes(store, end) == ([], end)
    await put(store, [change(device(3))])
    assert [one.imei for one in (await all_changes(store, end))[0]] == [imei(3)]


@pytest.mark.parametrize("position", [b"", b"\0", b"nonsense", b"\xff" * 16])
async def test_a_position_of_another_store_is_behind(nodes: Nodes, position: bytes) -> None:
    store = await nodes.open()
    await put(store, [change(device(1))])
    with pytest.raises(BehindError):
        await store.changes(position, 10, 0)


# --- settings, leases, heads -----------------------------------------------------------------------------------------


async def test_settings_are_kept(nodes: Nodes) -> None:
    store = await nodes.open()
    other = await nodes.another(store)
    await store.set_setting("a", b"1")
    await store.set_setting("b", b"")
    await other.set_setting("a", bytes(range(256)))
    assert (await store.setting("a"), await store.setting("b"), await store.setting("c")) == (
        bytes(range(256)),
        b"",
        None,
    )


async def test_a_lease_has_one_holder(nodes: Nodes) -> None:
    store = await nodes.open()
    other = await nodes.another(store)
    assert await store.lease("sweep", "a", 60)
    assert not await other.lease("sweep", "b", 60)
    assert await store.lease("sweep", "a", 60)
    assert await other.lease("report", "b", 60)
    assert not await store.lease("report", "a", 60)


async def test_a_lease_runs_out(nodes: Nodes) -> None:
    store = await nodes.open()
    other = await nodes.another(store)
    assert await store.lease("sweep", "a", 0.5)
    assert not await other.lease("sweep", "b", 60)
    await asyncio.sleep(0.3)
    assert await store.lease("sweep", "a", 0.5)
    await asyncio.sleep(0.3)
    assert not await other.lease("sweep", "b", 60)
    await asyncio.sleep(0.4)
    assert await other.lease("sweep", "b", 60)
    assert not await store.lease("sweep", "a", 60)


async def test_heads_are_shown(nodes: Nodes) -> None:
    store = await nodes.open()
    other = await nodes.another(store)
    await store.publish(Head("a", 1, "00"))
    await other.publish(Head("b", 7, "ff"))
    await store.publish(Head("a", 2, "01"))
    assert sorted(await other.heads()) == [Head("a", 2, "01"), Head("b", 7, "ff")]


# --- lifecycle -------------------------------------------------------------------------------------------------------


async def test_closing_twice_is_nothing(nodes: Nodes) -> None:
    store = await nodes.open()
    await store.close()
    await store.close()


async def test_a_sound_store_has_no_problems(nodes: Nodes) -> None:
    store = await nodes.open()
    await put(store, [change(device(n), messages=(message(n),)) for n in range(50)], "journal:a", 3)
    await put(
        store, [change(device(60, act(60, "freeze"))), change(expired(device(61))), change(device(62, start=None))]
    )
    await update(store, device(3, act(3, "lift")))
    await store.put_shift(shift("a"))
    await store.remove_shift("a")
    await store.trim_changes(await store.end_of_changes())
    assert await store.problems() == []
