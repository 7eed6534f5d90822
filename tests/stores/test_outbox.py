"""The outbox on every store: what waits is said once, in its words, to whom it concerns, whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial

import pytest

from eir.timers.grey import End, Ended, Started
from eir.timers.queue import Step
from eir.timers.store import Message, MessageKey, Store, StoreError
from sms import progress as progresses
from sms import receipts
from sms.gateway import Part, Receipt
from sms.outbox import PAUSED, Outbox
from support.messages import FakeGateway, Outcome, Sending, crash, running, wait_for
from support.stores import DAY, FIRST_IMEI, NOON, Nodes, change, device, message, put


def imsi(number: int) -> str:
    return f"00101{number:010}"


async def granted(nodes: Nodes, count: int = 1) -> Sending:
    """A store with devices that wait to be told of their timer; device n has subscriber n, in Russian."""
    store = await nodes.open()
    sending = Sending(store)
    await queue(store, range(1, count + 1))
    for number in range(1, count + 1):
        sending.subscribers.add(imsi(number), f"999{number:09}")
    return sending


async def queue(store: Store, numbers: range) -> None:
    of = [
        change(
            device(n, Started(FIRST_IMEI + n, NOON, imsi(n), first=False)),
            messages=(message(n, subscriber=n),),
        )
        for n in numbers
    ]
    await put(store, of)


def has_submitted(gateway: FakeGateway, parts: int) -> bool:
    return len(gateway.submitted) >= parts


def over_count(outbox: Outbox) -> int:
    return sum(outbox.state.outcomes.values())


def over(outbox: Outbox, count: int) -> bool:
    return over_count(outbox) >= count


async def progress(store: Store, of: Message) -> progresses.Progress | None:
    found = await store.queue.find([of.key])
    return progresses.decode(found[of.key].progress) if of.key in found else None


async def test_what_waits_is_said_once(nodes: Nodes) -> None:
    sending = await granted(nodes, 30)
    outbox = sending.outbox()
    await sending.run(outbox, lambda: over(outbox, 30))
    texts = sending.gateway.texts()
    assert len(texts) == 30 and all(len(said) == 1 for said in texts.values())
    [said] = texts["999000000007"]
    assert said.startswith("Перезагрузите устройство") and "352099000000075" not in said
    assert outbox.state.outcomes == {("grey-granted", "accepted", ""): 30}
    assert (await sending.store.counts()).queued == 0
    again = sending.outbox()
    sending.gateway.submitted.clear()
    await sending.run(again, lambda: again.state.leading)
    assert sending.gateway.submitted == []


async def test_both_languages_where_none_is_known(nodes: Nodes) -> None:
    sending = await granted(nodes)
    sending.subscribers.known.clear()
    outbox = sending.outbox()
    await sending.run(outbox, lambda: over(outbox, 1))
    [kazakh, russian] = sending.gateway.texts()["999000000001"]
    assert kazakh.startswith("Құрылғы") and russian.startswith("Перезагрузите")


async def test_receipts_say_what_became_of_it(nodes: Nodes) -> None:
    sending = await granted(nodes, 2)
    outbox = sending.outbox()
    async with running(outbox):
        await wait_for(lambda: over(outbox, 2), 20, outbox)
        # A receipt that nobody waits for, and one that comes twice, do no harm.
        for name in [*sending.gateway.names, "unknown", sending.gateway.names[0]]:
            sending.gateway.receipt(name)
        await wait_for(lambda: outbox.state.outcomes["grey-granted", "delivered", ""] == 2, 20, outbox)
        for number in (1, 2):
            known = await progress(sending.store, message(number, subscriber=number))
            assert known is not None and known.state == "delivered" and not known.texts and not known.to


async def test_a_receipt_that_comes_while_the_message_is_sent_is_not_lost(nodes: Nodes) -> None:
    sending = await granted(nodes, 5)
    gateway = sending.gateway
    gateway.delay = 0.02
    outbox = sending.outbox()
    async with running(outbox):
        received = 0
        while outbox.state.outcomes["grey-granted", "delivered", ""] < 5:
            for name in gateway.names[received:]:
                gateway.receipt(name)
            received = len(gateway.names)
            await asyncio.sleep(0.005)


async def test_a_receipt_of_failure_is_told(nodes: Nodes) -> None:
    sending = await granted(nodes)
    outbox = sending.outbox()
    async with running(outbox):
        await wait_for(lambda: over(outbox, 1), 20, outbox)
        for name in sending.gateway.names:
            sending.gateway.receipt(name, "failed" if name == "m0" else "delivered")
        await wait_for(lambda: outbox.state.outcomes["grey-granted", "failed", "fake:failed"] == 1, 20, outbox)


async def test_what_is_true_no_more_is_not_said(nodes: Nodes) -> None:
    sending = await granted(nodes, 6)
    store = sending.store
    sending.verdicts[FIRST_IMEI + 1] = "white"
    sending.verdicts[FIRST_IMEI + 2] = "black"
    sending.subscribers.add(imsi(3), "999000000003", m2m=True)
    stored = (await store.load([FIRST_IMEI + 4]))[FIRST_IMEI + 4]
    await put(store, [change(device(4, Ended(FIRST_IMEI + 4, End(NOON + 9, "verified"))), stored.version)])
    sending.settings = sending.settings._replace(stop_list=frozenset({"999000000005", imsi(9)}))
    outbox = sending.outbox()
    await sending.run(outbox, lambda: over(outbox, 5))
    assert list(sending.gateway.texts()) == ["999000000006"]
    assert {reason: count for (_, state, reason), count in outbox.state.outcomes.items() if state == "cancelled"} == {
        "is-white": 1,
        "m2m": 1,
        "timer-over": 1,
        "stop-list": 1,
    }


async def test_a_switch_in_between_cancels_nothing(nodes: Nodes) -> None:
    sending = await granted(nodes, 20)
    outbox = sending.outbox()
    # Without lists everything is answered white.
    sending.verdicts = defaultdict(lambda: "white")
    asked = 0

    def stopped() -> str:
        nonlocal asked
        asked += 1
        return "" if asked == 1 else "no valid lists"

    outbox._stopped = stopped
    async with running(outbox):
        await wait_for(lambda: asked > 5, 10)
    assert over_count(outbox) == 0 and (await sending.store.counts()).queued == 20


async def test_a_claim_that_was_written_but_not_acknowledged_is_sent(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = await granted(nodes, 3)
    step, failures = sending.store.queue.step, 4

    async def failing(steps: Sequence[Step]) -> frozenset[MessageKey]:
        nonlocal failures
        refused = await step(steps)
        failures -= 1
        if failures >= 0:
            raise StoreError("gone in the midst")
        return refused

    monkeypatch.setattr(sending.store.queue, "step", failing)
    outbox = sending.outbox()
    await sending.run(outbox, lambda: over(outbox, 3))
    assert {len(said) for said in sending.gateway.texts().values()} == {1}
    assert outbox.state.outcomes == {("grey-granted", "accepted", ""): 3}


async def test_an_answer_is_on_record_while_the_next_part_waits_for_its_turn(nodes: Nodes) -> None:
    sending = await granted(nodes)
    gateway = sending.gateway
    outbox = sending.outbox()
    task = asyncio.create_task(outbox.run())

    def answer(_: Part) -> Outcome:
        gateway.full = True
        return "accepted"

    gateway.answer = answer
    await wait_for(lambda: len(gateway.submitted) == 1, 5)
    known = await progress(sending.store, message(1, subscriber=1))
    while known is None or known.parts[0].state != "accepted":
        await asyncio.sleep(0.01)
        known = await progress(sending.store, message(1, subscriber=1))
    await crash(outbox, task)
    second = FakeGateway()
    again = sending.outbox(gateway=second)
    await sending.run(again, lambda: over(again, 1))
    assert again.state.outcomes == {("grey-granted", "accepted", ""): 1} and not again.state.parts["unanswered"]


async def test_sent_again_by_policy_it_has_an_end(nodes: Nodes) -> None:
    sending = await granted(nodes)
    sending.settings = sending.settings._replace(unanswered="again")
    sending.gateway.answer = lambda part: "unanswered" if part.number == 2 else "accepted"
    outbox = sending.outbox()
    async with running(outbox):
        while not over(outbox, 1):
            sending.now += 0.5
            await asyncio.sleep(0.01)
            assert sending.now < NOON + 600
    assert Counter(part.number for part in sending.gateway.submitted)[2] == 4
    assert outbox.state.outcomes == {("grey-granted", "failed", "unanswered"): 1}


async def test_what_one_node_remembers_is_not_put_over_what_another_has_done(nodes: Nodes) -> None:
    sending = await granted(nodes)
    first = sending.gateway
    first.answer = lambda part: "not-taken" if part.number == 3 else "accepted"
    one = sending.outbox("eir1.test")
    await sending.run(one, lambda: one.state.parts["not-taken"] > 0)
    sending.now += 60
    second = FakeGateway()
    second.answer = lambda part: "not-taken" if part.number == 5 else "accepted"
    two = sending.outbox("eir2.test", second, await nodes.another(sending.store))
    await sending.run(two, lambda: two.state.parts["not-taken"] > 0)
    sending.now += 60
    first.answer = lambda part: "accepted"
    one._ending = False
    await sending.run(one, lambda: over(one, 1))
    numbers = [part.number for part in (*first.submitted, *second.submitted)]
    assert sorted(numbers) == list(range(1, first.submitted[0].of + 1))


async def test_without_a_number_it_waits_until_one_is_known_or_it_is_too_late(nodes: Nodes) -> None:
    store = await nodes.open()
    sending = Sending(store)
    of = device(1, Started(FIRST_IMEI + 1, NOON, imsi(1), first=False))
    await put(store, [change(of, messages=(Message("grey-granted", of.imei, imsi(1), 0, NOON),))])
    outbox = sending.outbox()
    async with running(outbox):
        key = ("grey-granted", of.imei, imsi(1), 0)
        while not (await store.queue.find([key]))[key].progress:
            await asyncio.sleep(0.01)
        assert (await store.queue.find([key]))[key].due == NOON + 3600
        sending.subscribers.add(imsi(1), "999000000001")
        sending.now += 3600
        await wait_for(lambda: over(outbox, 1), 20, outbox)
        assert sending.gateway.texts()["999000000001"]


async def test_what_is_too_late_is_not_said(nodes: Nodes) -> None:
    sending = await granted(nodes)
    sending.now += sending.settings.validity
    outbox = sending.outbox()
    await sending.run(outbox, lambda: over(outbox, 1))
    assert outbox.state.outcomes == {("grey-granted", "expired", "too-late"): 1}
    assert sending.gateway.submitted == []


async def test_quiet_hours_a_pause_and_a_reason_to_stop_hold_everything(nodes: Nodes) -> None:
    sending = await granted(nodes)
    sending.stopped = "breaker"
    outbox = sending.outbox()
    async with running(outbox):
        await wait_for(lambda: outbox.state.stopped == "breaker", 5)
        await sending.store.set_setting(PAUSED, b"an agent")
        sending.stopped = ""
        await wait_for(lambda: outbox.state.stopped == "paused", 5)
        assert sending.gateway.submitted == []
        await sending.store.set_setting(PAUSED, b"")
        await wait_for(lambda: over(outbox, 1), 5, outbox)


async def test_a_subscriber_gets_so_many_a_day(nodes: Nodes) -> None:
    sending = await granted(nodes, 0)
    store = sending.store
    for n in range(1, 6):
        of = device(n, Started(FIRST_IMEI + n, NOON, imsi(1), first=False))
        await put(store, [change(of, messages=(message(n, NOON + n, subscriber=1),))])
    sending.settings = sending.settings._replace(daily_cap=3)
    sending.now += 60
    outbox = sending.outbox()
    async with running(outbox):
        await wait_for(lambda: over(outbox, 3), 5, outbox)
        await asyncio.sleep(0.2)
        assert sum(outbox.state.outcomes.values()) == 3
        # The others wait for the next day.
        assert (await store.counts()).queued == 2
        sending.now += DAY
        await wait_for(lambda: over(outbox, 5), 5, outbox)


async def test_what_is_not_taken_is_submitted_later_and_what_is_refused_is_not(nodes: Nodes) -> None:
    sending = await granted(nodes, 3)
    left = Counter({"999000000001": 2})

    def answer(part: Part) -> Outcome:
        if part.to == "999000000002":
            return "refused"
        if left[part.to]:
            left[part.to] -= 1
            return "not-taken"
        return "accepted"

    sending.gateway.answer = answer
    outbox = sending.outbox()
    async with running(outbox):
        while not over(outbox, 3):
            sending.now += 0.5
            await asyncio.sleep(0.02)
        assert set(sending.gateway.texts()) == {"999000000001", "999000000003"}
        assert outbox.state.outcomes["grey-granted", "failed", "fake:0x0000000b"] == 1


async def test_an_unanswered_part_is_not_sent_again_but_the_rest_is(nodes: Nodes) -> None:
    sending = await granted(nodes)
    sending.gateway.answer = lambda part: "unanswered" if part.number == 2 else "accepted"
    outbox = sending.outbox()
    await sending.run(outbox, lambda: over(outbox, 1))
    numbers = [part.number for part in sending.gateway.submitted]
    assert numbers == list(range(1, sending.gateway.submitted[0].of + 1))
    assert outbox.state.outcomes == {("grey-granted", "failed", "unanswered"): 1}
    assert outbox.state.parts["unanswered"] == 1


async def test_by_policy_an_unanswered_part_is_sent_again(nodes: Nodes) -> None:
    sending = await granted(nodes)
    sending.settings = sending.settings._replace(unanswered="again")
    lost = [True]

    def answer(part: Part) -> Outcome:
        return "unanswered" if part.number == 2 and lost.pop(0) else "accepted"

    lost = [True, False]
    sending.gateway.answer = answer
    outbox = sending.outbox()
    async with running(outbox):
        while not over(outbox, 1):
            sending.now += 0.5
            await asyncio.sleep(0.02)
        assert Counter(part.number for part in sending.gateway.submitted)[2] == 2
        assert len({part.reference for part in sending.gateway.submitted}) == 1
        assert outbox.state.outcomes == {("grey-granted", "accepted", ""): 1}


async def test_a_crash_between_two_parts_goes_on_with_the_same_reference(nodes: Nodes) -> None:
    sending = await granted(nodes)
    first = sending.gateway
    first.answer = lambda part: "never" if part.number == 3 else "accepted"
    outbox = sending.outbox()
    task = asyncio.create_task(outbox.run())
    await wait_for(lambda: len(first.submitted) == 3, 5)
    await crash(outbox, task)
    second = FakeGateway()
    again = sending.outbox(gateway=second)
    await sending.run(again, lambda: over(again, 1))
    submitted = [*first.submitted, *second.submitted]
    assert [part.number for part in submitted] == list(range(1, first.submitted[0].of + 1))
    assert len({part.reference for part in submitted}) == 1
    assert again.state.outcomes == {("grey-granted", "failed", "unanswered"): 1}
    assert again.state.parts["unanswered"] == 1


async def test_a_stop_in_between_loses_nothing(nodes: Nodes) -> None:
    sending = await granted(nodes, 20)
    gateway = sending.gateway
    gateway.delay = 0.02
    parts = 1
    while (before := len(gateway.submitted)) < parts:
        outbox = sending.outbox()
        await sending.run(outbox, partial(has_submitted, gateway, min(before + 9, parts) if parts > 1 else 9))
        parts = 20 * gateway.submitted[0].of
    texts = gateway.texts()
    assert len(texts) == 20 and all(len(said) == 1 for said in texts.values())
    assert await sending.store.queue.due("sending", NOON + DAY, 99) == []


async def test_of_two_nodes_one_sends_and_the_other_takes_over(nodes: Nodes) -> None:
    sending = await granted(nodes, 40)
    other_store = await nodes.another(sending.store)
    gateways = [FakeGateway(2, delay=0.02), FakeGateway(2, delay=0.02)]
    one, two = sending.outbox("eir1.test", gateways[0]), sending.outbox("eir2.test", gateways[1], other_store)
    task = asyncio.create_task(one.run())
    await wait_for(lambda: over(one, 5), 10, one)
    async with running(two):
        await wait_for(lambda: over(one, 10), 10, one)
        assert not gateways[1].submitted
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await wait_for(lambda: over_count(one) + over_count(two) >= 40, 20, two)
    both = FakeGateway()
    both.submitted = [part for gateway in gateways for part in gateway.submitted]
    texts = both.texts()
    assert len(texts) == 40 and all(len(said) == 1 for said in texts.values())


async def test_two_that_both_believe_they_lead_send_each_message_once(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = await granted(nodes, 40)
    store = sending.store

    async def always(*_: object) -> bool:
        return True

    monkeypatch.setattr(type(store), "lease", always)
    gateways = [FakeGateway(5, delay=0.005), FakeGateway(5, delay=0.005)]
    outboxes = [sending.outbox(f"eir{n}.test", gateway) for n, gateway in enumerate(gateways)]
    async with running(outboxes[0]), running(outboxes[1]):
        await wait_for(lambda: sum(map(over_count, outboxes)) >= 40, 20, outboxes[0])
    both = FakeGateway()
    both.submitted = [part for gateway in gateways for part in gateway.submitted]
    texts = both.texts()
    assert len(texts) == 40 and all(len(said) == 1 for said in texts.values())
    assert all(gateway.submitted for gateway in gateways)


async def test_an_attempt_of_the_next_day_is_told_again(nodes: Nodes) -> None:
    sending = await granted(nodes, 0)
    store = sending.store
    sending.subscribers.add(imsi(1), "999000000001")
    sending.verdicts[FIRST_IMEI + 1] = "black"
    outbox = sending.outbox()
    async with running(outbox):
        for day in range(3):
            one = message(1, NOON + day * DAY, "black-attempt", subscriber=1, apart=DAY)
            stored = (await store.load([FIRST_IMEI + 1])).get(FIRST_IMEI + 1)
            await put(store, [change(device(1), stored.version if stored else 0, messages=(one,))])
            sending.now = NOON + day * DAY + 5
            await wait_for(lambda day=day: over(outbox, day + 1), 5, outbox)  # type: ignore[misc]
    assert len(sending.gateway.texts()["999000000001"]) == 3


async def test_what_a_store_forgot_is_not_sent_again(nodes: Nodes) -> None:
    sending = await granted(nodes, 3)
    store = sending.store
    outbox = sending.outbox()
    async with running(outbox):
        await wait_for(lambda: over(outbox, 3), 5, outbox)
        keys = [message(n, subscriber=n).key for n in (1, 2, 3)]
        # As after a failover that lost what was written last.
        back = [
            Step(key, "over", one.progress, "waiting", b"\x90", NOON)
            for key, one in (await store.queue.find(keys)).items()
        ]
        assert await store.queue.step(back) == frozenset()
        while await store.queue.due("waiting", NOON, 9):
            await asyncio.sleep(0.01)
    assert all(len(said) == 1 for said in sending.gateway.texts().values())
    assert set(await store.queue.find(keys)) == {one.message.key for one in await store.queue.due("over", NOON, 9)}


async def test_what_could_not_be_sent_at_once_counts_once_for_the_day(nodes: Nodes) -> None:
    sending = await granted(nodes)
    sending.settings = sending.settings._replace(daily_cap=1)
    refusals = [0]

    def answer(_: Part) -> Outcome:
        refusals[0] += 1
        return "not-taken" if refusals[0] < 5 else "accepted"

    sending.gateway.answer = answer
    outbox = sending.outbox()
    async with running(outbox):
        while not over(outbox, 1):
            sending.now += 0.5
            await asyncio.sleep(0.02)
            assert sending.now < NOON + 3600
    assert outbox.state.outcomes == {("grey-granted", "accepted", ""): 1}


async def test_a_flood_of_unknown_receipts_holds_up_nothing(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "_MOST", 3000)
    monkeypatch.setattr(receipts, "_EARLY", 0.5)
    sending = await granted(nodes, 3)
    outbox = sending.outbox()
    async with running(outbox):
        for number in range(10_000):
            outbox.receipts.take(Receipt("fake", f"x{number}", "delivered"))
        await wait_for(lambda: over(outbox, 3), 10, outbox)
        await wait_for(lambda: outbox.receipts.unknown == 10_000, 20, outbox)
        for name in sending.gateway.names:
            sending.gateway.receipt(name)
        await wait_for(lambda: outbox.state.outcomes["grey-granted", "delivered", ""] == 3, 10, outbox)
