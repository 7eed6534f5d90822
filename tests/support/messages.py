"""Messages under test: a way out that does what it is told, subscribers, and outboxes over a store."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from eir.subscribers.directory import Subscriber
from eir.timers.store import Store
from sms.gateway import Accepted, NotTakenError, OnReceipt, Part, Receipt, RefusedError, Slot, UnansweredError
from sms.hours import Hours
from sms.outbox import Outbox, OutboxSettings
from sms.setup import read_texts
from support.stores import NOON, RULES

TEXTS = Path(__file__).parents[2] / "config" / "sms" / "kz.toml"
TEMPLATES = read_texts(TEXTS, "friendly", "")

Outcome = Literal["accepted", "refused", "not-taken", "unanswered", "never"]
ALL_DAY = Hours(OutboxSettings().quiet.begin, OutboxSettings().quiet.begin)
"""No quiet hours."""


class FakeGateway:
    """Notes what is submitted; `answer` decides what comes of it, at random where there is a `random`."""

    whole = False

    def __init__(self, window: int = 10, name: str = "fake", delay: float = 0.0) -> None:
        self.name = name
        self.submitted: list[Part] = []
        self.answer: Callable[[Part], Outcome] = lambda _: "accepted"
        self.delay = delay
        self.down = False
        self.full = False
        self.names: list[str] = []
        self._free = window
        self._on_receipt: OnReceipt | None = None
        self.closed = False

    async def start(self, on_receipt: OnReceipt) -> None:
        self._on_receipt = on_receipt

    def take(self) -> Slot | None:
        if self._free <= 0 or self.down or self.full:
            return None
        self._free -= 1
        return _FakeSlot(self)

    def give(self) -> None:
        self._free += 1

    async def room(self) -> None:
        if self.down:
            raise NotTakenError("down", 0.05)
        if self._free <= 0 or self.full:
            await asyncio.sleep(0.001)

    def receipt(self, name: str, state: Literal["delivered", "failed", "expired"] = "delivered") -> None:
        assert self._on_receipt is not None
        self._on_receipt(Receipt(self.name, name, state))

    def status(self) -> list[dict[str, object]]:
        return []

    async def close(self) -> None:
        self.closed = True

    def texts(self) -> dict[str, list[str]]:
        """What each number was sent: texts put together from their parts, in which none may be twice."""
        parts: dict[tuple[str, int], dict[int, Part]] = defaultdict(dict)
        for part in self.submitted:
            whole = parts[part.to, part.reference]
            assert part.number not in whole, "a part was submitted twice"
            whole[part.number] = part
        found: dict[str, list[str]] = defaultdict(list)
        for (to, _), whole in parts.items():
            if len(whole) == next(iter(whole.values())).of:
                found[to].append("".join(whole[number].text for number in sorted(whole)))
        return found


class _FakeSlot:
    def __init__(self, gateway: FakeGateway) -> None:
        self._gateway = gateway

    async def submit(self, part: Part) -> Accepted:
        gateway = self._gateway
        try:
            outcome = gateway.answer(part)
            if outcome == "not-taken":
                raise NotTakenError("full", 0.05)
            gateway.submitted.append(part)
            await asyncio.sleep(gateway.delay * random.random())
            if outcome == "never":
                await asyncio.sleep(3600)
            if outcome == "refused":
                raise RefusedError(gateway.name, "0x0000000b")
            if outcome == "unanswered":
                raise UnansweredError(gateway.name, "timeout")
            name = f"m{len(gateway.names)}"
            gateway.names.append(name)
            return Accepted(gateway.name, name)
        finally:
            gateway.give()

    def release(self) -> None:
        self._gateway.give()


class Subscribers:
    """A directory in memory."""

    def __init__(self) -> None:
        self.known: dict[str, Subscriber] = {}

    def add(
        self, imsi: str, msisdn: str | None, language: Literal["kk", "ru"] | None = "ru", m2m: bool = False
    ) -> None:
        self.known[imsi] = Subscriber(imsi, msisdn, None, language, m2m)

    async def find(self, imsis: Iterable[str]) -> dict[str, Subscriber]:
        return {imsi: self.known[imsi] for imsi in imsis if imsi in self.known}

    async def close(self) -> None:
        """Nothing is open."""


class Sending:
    """A store's outboxes, with a clock, verdicts and subscribers that tests set."""

    def __init__(self, store: Store, settings: OutboxSettings | None = None) -> None:
        self.store = store
        self.now = float(NOON)
        self.settings = settings or OutboxSettings(quiet=ALL_DAY)
        self.subscribers = Subscribers()
        self.verdicts: dict[int, str] = defaultdict(lambda: "grey")
        self.stopped = ""
        self.gateway = FakeGateway()

    def outbox(self, name: str = "eir1.test", gateway: FakeGateway | None = None, store: Store | None = None) -> Outbox:
        return Outbox(
            store or self.store,
            gateway or self.gateway,
            self.subscribers,
            TEMPLATES,
            self.settings,
            name,
            rules=lambda: RULES,
            verdict=lambda imei, imsi: self.verdicts[imei],
            stopped=lambda: self.stopped,
            now=lambda: self.now,
        )

    async def run(self, outbox: Outbox, until: Callable[[], bool], seconds: float = 20.0) -> None:
        """Lets an outbox work until something holds, and stops it in good order."""
        async with running(outbox):
            await wait_for(until, seconds, outbox)


@asynccontextmanager
async def running(outbox: Outbox) -> AsyncIterator[asyncio.Task[None]]:
    """An outbox at work, stopped in good order at the end."""
    task = asyncio.create_task(outbox.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def crash(outbox: Outbox, task: asyncio.Task[None]) -> None:
    """Ends an outbox as if its process had ended: what is under way does not get into the store any more."""
    for sending in outbox._tasks:
        sending.cancel()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def wait_for(until: Callable[[], bool], seconds: float, outbox: Outbox | None = None) -> None:
    """Waits until something holds."""
    end = asyncio.get_running_loop().time() + seconds
    while not until():
        assert asyncio.get_running_loop().time() < end, outbox.state if outbox is not None else "not in time"
        await asyncio.sleep(0.01)
