"""Any sequence of commits, shifts and restarts leaves in a store what it leaves in a few dictionaries."""

from __future__ import annotations

import asyncio
from typing import Literal, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eir.timers import grey
from eir.timers.grey import NEVER, Act, Acted, Device, Event, Expired, Expiry, Shift, Started
from eir.timers.store import Change, Counts, Memory, Message, MessageKey, Position, Store, memory
from support.stores import DAY, FIRST_IMEI, NOON, RULES, MakeNodes, change, message

DEVICES = 6
APART = 2 * DAY


class Step(NamedTuple):
    """A device's event in a commit. `version`: what is added to the right one. `puts`: (subscriber, an attempt?)."""

    number: int
    event: Event
    version: int
    puts: tuple[tuple[int, bool], ...]
    withdraws: tuple[tuple[int, bool], ...]
    tell: Literal["none", "others", "all"]


class Commit(NamedTuple):
    """Steps of different devices, with what is added to the right revision, and a cursor."""

    steps: list[Step]
    revision: int
    source: str
    position: int


class Other(NamedTuple):
    """Anything else that is done to a store."""

    what: Literal["put shift", "remove shift", "reopen", "mark", "trim"]
    number: int


def events(number: int) -> st.SearchStrategy[Event]:
    imei = FIRST_IMEI + number
    times = st.integers(0, 5).map(lambda days: NOON + days * DAY)
    kinds = st.sampled_from(["freeze", "unfreeze", "extend", "lift"])
    return st.one_of(
        times.map(lambda at: Started(imei, at, "001010000000001")),
        st.builds(lambda at, kind: Acted(imei, Act(at, kind, kind, 2, "", "")), times, kinds),
        st.builds(lambda at: grey.Ended(imei, grey.End(at, "verified", at)), times),
        st.builds(lambda at: Expired(imei, Expiry(RULES.deadline(at), NEVER - 1)), times),
    )


NOTICES = st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=3).map(tuple)
STEPS = st.integers(0, DEVICES - 1).flatmap(
    lambda number: st.builds(
        Step,
        st.just(number),
        events(number),
        st.sampled_from([0, 0, 0, 0, 1, -1]),
        NOTICES,
        NOTICES,
        st.sampled_from(["none", "others", "all"]),
    )
)
COMMITS = st.builds(
    Commit,
    st.lists(STEPS, max_size=DEVICES, unique_by=lambda step: step.number),
    st.sampled_from([0, 0, 0, 0, 0, 1]),
    st.sampled_from(["", "journal:a", "audit:a"]),
    st.integers(0, 9),
)
OTHERS = st.builds(Other, st.sampled_from(["put shift", "remove shift", "reopen", "mark", "trim"]), st.integers(0, 3))


class Model:
    """What a store should hold."""

    def __init__(self) -> None:
        self.devices: dict[int, tuple[Device, grey.Timer | None]] = {}
        self.versions: dict[int, int] = {}
        self.put: dict[MessageKey, Message] = {}
        """The last one put with each key."""
        self.waiting: set[MessageKey] = set()
        self.marked: dict[str, int] = {}
        self.shifts: dict[str, Shift | None] = {}
        self.revision = 0
        self.rules = RULES

    def write(self, change: Change) -> None:
        """Puts a change in."""
        self.devices[change.device.imei] = change.device, change.timer
        for put in change.messages:
            last = self.put.get(put.key)
            if last is None or (put.apart and put.at >= last.at + put.apart):
                self.put[put.key] = put
                self.waiting.add(put.key)
        self.waiting -= set(change.withdrawn)

    def shift(self, name: str, shift: Shift | None) -> None:
        """Adds a shift, or takes it away."""
        if shift is None:
            self.revision += self.shifts.get(name) is not None
            self.shifts[name] = None
        elif name not in self.shifts:
            self.revision += 1
            self.shifts[name] = shift
        self.rules = RULES.with_shifts(tuple(one for one in self.shifts.values() if one is not None))

    def counts(self) -> Counts:
        """How many there are."""
        states = [timer.state for _, timer in self.devices.values() if timer is not None]
        stopped = states.count("frozen") + states.count("lifted")
        return Counts(states.count("running"), stopped, states.count("expired"), len(self.waiting))

    def changed(self, step: Step) -> Change:
        """The change that a step is: the event put into the device, and its messages."""
        imei = FIRST_IMEI + step.number
        device = grey.apply(self.devices[imei][0] if imei in self.devices else Device(imei), step.event)
        at = getattr(step.event, "at", NOON)

        def notice(subscriber: int, attempt: bool) -> Message:
            kind: Literal["black-attempt", "grey-granted"] = "black-attempt" if attempt else "grey-granted"
            return message(step.number, at, kind, subscriber, apart=APART * attempt)

        return change(
            device,
            max(self.versions.get(imei, 0) + step.version, 0),
            messages=tuple(notice(*one) for one in step.puts),
            withdrawn=tuple(notice(*one).key for one in step.withdraws),
            tell=step.tell,
            rules=self.rules,
        )


async def commit(store: Store, model: Model, given: Commit) -> list[Change]:
    """Commits to both, and compares what was refused; what was written."""
    changes = [model.changed(step) for step in given.steps]
    before = await store.position(given.source)
    refused = await store.commit(changes, model.revision + given.revision, given.source, given.position)
    wrong = {one.device.imei for one in changes if one.version != model.versions.get(one.device.imei, 0)}
    if given.revision and changes:
        wrong = {one.device.imei for one in changes}
    # A store may refuse more, of the part of it in which one is wrong.
    assert wrong <= refused <= {one.device.imei for one in changes}
    assert bool(wrong) == bool(refused)
    written = [one for one in changes if one.device.imei not in refused]
    for one in written:
        model.write(one)
    after = await store.position(given.source)
    if refused or not given.source:
        assert after == before
    else:
        assert after in (before, max(before, given.position))
        await store.mark(given.source, given.position)
        model.marked[given.source] = max(model.marked.get(given.source, 0), given.position)
    return written


async def compare(store: Store, model: Model) -> None:
    loaded = await store.load([FIRST_IMEI + number for number in range(DEVICES + 1)])
    assert {imei: stored.device for imei, stored in loaded.items()} == {
        imei: device for imei, (device, _) in model.devices.items()
    }
    for imei, stored in loaded.items():
        assert stored.version >= model.versions.get(imei, 0) and stored.version
    model.versions = {imei: stored.version for imei, stored in loaded.items()}
    assert await store.counts() == model.counts()
    assert {one.key: one for one in await store.queued(1000)} == {key: model.put[key] for key in model.waiting}
    assert [await store.position(source) for source in ("journal:a", "audit:a", "")] == [
        model.marked.get(source, 0) for source in ("journal:a", "audit:a", "")
    ]
    revision, shifts = await store.shifts()
    assert sorted(shifts) == sorted(one for one in model.shifts.values() if one)
    # A store may count more than it must: that a shift which nobody knew was taken away.
    assert revision >= model.revision
    model.revision = revision
    deadlines = {imei: timer.deadline for imei, (_, timer) in model.devices.items() if timer and timer.deadline}
    running = [imei for imei, (_, timer) in model.devices.items() if timer and timer.state == "running"]
    due = await store.due(NEVER, 100)
    assert sorted(due) == sorted(running)
    assert [deadlines[imei] for imei in due] == sorted(deadlines[imei] for imei in due)
    middle = RULES.deadline(NOON + 2 * DAY)
    for first, last in ((0, NEVER), (1, NEVER), (1, middle), (middle, middle), (middle + 1, NEVER)):
        found, after = [], None
        while True:
            page = await store.scan(after, 2, first, last)
            found += page.devices
            if page.next is None:
                break
            after = page.next
        expected = deadlines if (first, last) != (0, NEVER) else dict.fromkeys(model.devices, 1)
        assert sorted(one.device.imei for one in found) == sorted(
            imei for imei, deadline in expected.items() if first <= deadline <= last
        )
        assert all(one == loaded[one.device.imei] for one in found)


async def told(store: Store, begin: Position, written: list[Change]) -> Position:
    """Compares what the stream says with the changes that were written; its end."""
    found: list[Memory] = []
    page, end = await store.changes(begin, 2, 0)
    while page:
        found += page
        page, end = await store.changes(end, 2, 0)
    expected = {one.device.imei: memory(one.device, one.timer) for one in written if one.tell == "all"}
    perhaps = {one.device.imei: memory(one.device, one.timer) for one in written if one.tell != "none"}
    last = {one.imei: one for one in found}
    assert expected.items() <= last.items() <= perhaps.items()
    return end


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(COMMITS | COMMITS | OTHERS, max_size=25))
def test_a_store_is_what_a_model_is(make_nodes: MakeNodes, steps: list[Commit | Other]) -> None:
    async def run() -> None:
        async with make_nodes() as nodes:
            store = await nodes.open()
            model = Model()
            seen = await store.end_of_changes()
            for step in steps:
                written: list[Change] = []
                if isinstance(step, Commit):
                    written = await commit(store, model, step)
                elif step.what == "put shift":
                    added = Shift(NOON + DAY, str(step.number), 0, NEVER, 1 + step.number, "", "")
                    await store.put_shift(added)
                    model.shift(added.id, added)
                elif step.what == "remove shift":
                    await store.remove_shift(str(step.number))
                    model.shift(str(step.number), None)
                elif step.what == "reopen":
                    store = await nodes.reopen(store)
                elif step.what == "mark":
                    await store.mark("audit:a", step.number)
                    model.marked["audit:a"] = max(model.marked.get("audit:a", 0), step.number)
                else:
                    await store.trim_changes(seen)
                seen = await told(store, seen, written)
                await compare(store, model)
            assert await store.problems() == []

    asyncio.run(run())
