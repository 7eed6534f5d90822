"""What `eir.timers.queue.Queue` promises, asked of every store."""

from __future__ import annotations

from collections.abc import Sequence

from eir.timers.queue import Outgoing, Place, Queue, Step
from eir.timers.store import Message, MessageKey, Store
from support.stores import DAY, FIRST_IMEI, NOON, Nodes, change, device, message, put


async def with_messages(nodes: Nodes, count: int = 1) -> tuple[Store, Queue]:
    """A store with so many devices, from 1, each with a message that is due a second after the one before."""
    store = await nodes.open()
    await put(store, [change(device(n), messages=(message(n, NOON + n),)) for n in range(1, count + 1)])
    return store, store.queue


def step(
    key: MessageKey,
    after: bytes = b"1",
    come_from: Place = "waiting",
    place: Place = "sending",
    before: bytes = b"",
    due: int = NOON,
    receipts: tuple[str, ...] = (),
) -> Step:
    return Step(key, come_from, before, place, after, due, receipts)


def reminder(number: int, at: int = NOON, day: int = 20260101) -> Message:
    return message(number, at, "reminder", mark=day)


async def where(queue: Queue) -> dict[Place, list[Message]]:
    places: Sequence[Place] = ("waiting", "sending", "over")
    return {place: [found.message for found in await queue.due(place, NOON + DAY, 1000)] for place in places}


async def test_what_is_due_comes_in_its_order_and_no_more_of_it(nodes: Nodes) -> None:
    _, queue = await with_messages(nodes, 100)
    found = await queue.due("waiting", NOON + 60, 40)
    assert found == [Outgoing(message(n, NOON + n), b"", NOON + n) for n in range(1, 41)]
    assert [one.message.imei - FIRST_IMEI for one in await queue.due("waiting", NOON + 3, 40)] == [1, 2, 3]
    assert await queue.due("sending", NOON + DAY, 40) == []


async def test_reports_stand_behind_messages_to_subscribers(nodes: Nodes) -> None:
    store = await nodes.open()
    report = Message("report-expired", FIRST_IMEI + 1, "", 0, NOON - 5)
    await put(store, [change(device(1), messages=(report, message(1)))])
    assert [one.message for one in await store.queue.due("waiting", NOON + DAY, 9)] == [message(1)]
    assert await store.queued(9) == [message(1), report]


async def test_a_message_moves_from_place_to_place(nodes: Nodes) -> None:
    store, queue = await with_messages(nodes)
    key = message(1).key
    assert await queue.step([step(key)]) == frozenset()
    assert await where(queue) == {"waiting": [], "sending": [message(1, NOON + 1)], "over": []}
    assert (await store.counts()).queued == 0
    assert await queue.step([step(key, b"2", "sending", "waiting", b"1", NOON + 9)]) == frozenset()
    assert await queue.due("waiting", NOON + 8, 9) == []
    [found] = await queue.due("waiting", NOON + 9, 9)
    assert (found.progress, found.due, (await store.counts()).queued) == (b"2", NOON + 9, 1)
    assert await queue.step([step(key, b"3", "waiting", "over", b"2")]) == frozenset()
    assert await where(queue) == {"waiting": [], "sending": [], "over": [message(1, NOON + 1)]}
    assert await store.problems() == []


async def test_of_two_senders_one_takes_a_message(nodes: Nodes) -> None:
    store, queue = await with_messages(nodes, 2)
    other = (await nodes.another(store)).queue
    assert await queue.step([step(message(1).key, b"mine")]) == frozenset()
    taken = [step(message(1).key, b"yours"), step(message(2).key, b"yours")]
    assert await other.step(taken) == {message(1).key}
    found = await queue.find([message(1).key, message(2).key])
    assert {key: one.progress for key, one in found.items()} == {message(1).key: b"mine", message(2).key: b"yours"}


async def test_a_step_from_elsewhere_is_not_taken(nodes: Nodes) -> None:
    _, queue = await with_messages(nodes)
    key = message(1).key
    for wrong in (step(key, come_from="sending"), step(key, before=b"0"), step(message(7).key)):
        assert await queue.step([wrong]) == {wrong.key}
    await queue.step([step(key)])
    assert await queue.step([step(key, b"2", "sending", "over")]) == {key}
    assert (await where(queue))["sending"] == [message(1, NOON + 1)]


async def test_a_step_may_be_repeated(nodes: Nodes) -> None:
    store, queue = await with_messages(nodes)
    for _ in range(2):
        assert await queue.step([step(message(1).key)]) == frozenset()
        assert (await store.counts()).queued == 0


async def test_what_was_withdrawn_is_not_sent_and_what_is_being_sent_is_not_withdrawn(nodes: Nodes) -> None:
    store, queue = await with_messages(nodes, 2)
    await queue.step([step(message(2).key)])
    stored = await store.load([FIRST_IMEI + 1, FIRST_IMEI + 2])
    changes = [change(device(n), stored[FIRST_IMEI + n].version, withdrawn=(message(n).key,)) for n in (1, 2)]
    await put(store, changes)
    assert await queue.step([step(message(1).key)]) == {message(1).key}
    assert await queue.step([step(message(2).key, b"2", "sending", "over", b"1")]) == frozenset()
    assert set(await queue.find([message(1).key, message(2).key])) == {message(2).key}


async def test_one_that_may_come_again_begins_anew(nodes: Nodes) -> None:
    store = await nodes.open()
    first = message(1, NOON, "black-attempt", apart=DAY)
    await put(store, [change(device(1), messages=(first,))])
    await store.queue.step([step(first.key)])
    await store.queue.step([step(first.key, b"2", "sending", "over", b"1")])
    version = (await store.load([FIRST_IMEI + 1]))[FIRST_IMEI + 1].version
    again = message(1, NOON + DAY, "black-attempt", apart=DAY)
    await put(store, [change(device(1), version, messages=(again,))])
    assert await store.queue.due("waiting", NOON + DAY, 9) == [Outgoing(again, b"", NOON + DAY)]
    assert await store.queue.due("over", NOON + DAY, 9) == []
    assert await store.queue.step([step(first.key)]) == frozenset()


async def test_what_is_put_without_a_change_is_put_once(nodes: Nodes) -> None:
    store, queue = await with_messages(nodes, 3)
    reminders = [reminder(n, NOON + n) for n in (1, 2, 3)]
    assert await queue.put(reminders) == 3
    assert await queue.put([*reminders, reminder(1, NOON + 9, 20260102)]) == 1
    assert (await store.counts()).queued == 7
    await queue.step([step(reminders[0].key), step(reminder(2).key, place="over")])
    assert await queue.put(reminders) == 0
    assert reminders[1] in (await where(queue))["over"]


async def test_a_receipt_finds_its_message_once(nodes: Nodes) -> None:
    store, queue = await with_messages(nodes, 2)
    await queue.step([step(message(1).key, receipts=("smsc a", "smsc b")), step(message(7).key, receipts=("smsc c",))])
    other = (await nodes.another(store)).queue
    assert await other.by_receipts(["smsc a", "smsc x"]) == {"smsc a": message(1).key}
    assert await queue.by_receipts(["smsc a", "smsc b", "smsc c"]) == {"smsc b": message(1).key}
    assert await queue.by_receipts([]) == {}


async def test_messages_of_a_subscriber_are_counted_by_day(nodes: Nodes) -> None:
    _, queue = await with_messages(nodes)
    imsis = [f"00101{number:010}" for number in range(50)]
    assert await queue.allow(1, [*imsis, imsis[7], imsis[7]], 2) == [True] * 51 + [False]
    assert await queue.allow(1, imsis[6:9], 2) == [True, False, True]
    assert await queue.allow(2, imsis[7:8], 2) == [True]
    assert await queue.allow(1, [], 2) == []


async def test_what_is_long_over_is_forgotten_but_not_that_it_was(nodes: Nodes) -> None:
    store, queue = await with_messages(nodes, 3)
    await queue.put([reminder(1)])
    keys = [message(1).key, message(2).key, reminder(1).key]
    await queue.step([step(key, b"1", place="over", due=NOON - at) for at, key in enumerate(keys)])
    today = NOON // DAY
    assert await queue.allow(today, [message(1).imsi], 1) == [True]
    forgotten = 0
    while found := await queue.forget(NOON, 64):
        forgotten += found
    assert forgotten == 2
    [again] = await queue.allow(today, [message(1).imsi], 1)
    assert not again
    assert set(await queue.find([*keys, message(3).key])) == {message(1).key, message(3).key}
    assert await queue.put([reminder(1)]) == 1
    version = (await store.load([FIRST_IMEI + 2]))[FIRST_IMEI + 2].version
    await put(store, [change(device(2), version, messages=(message(2),))])
    assert message(2).key not in {one.message.key for one in await queue.due("waiting", NOON + DAY, 9)}
    assert await store.problems() == []
