"""Turns of a way out that takes so many parts at a time, and so many a second."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from sms.gateway import Accepted, Part
from sms.rate import Bucket

_LOOK: Final = 0.5
"""Seconds after which whoever waits looks for himself, whatever he was told."""


class Waiters:
    """Those who wait for room, woken one by one as there is some."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self, delay: float = 0.0) -> None:
        """Until woken, or for half a second; if there is a `delay`, at most for that."""
        woken = asyncio.get_running_loop().create_future()
        self._waiting.append(woken)
        try:
            await asyncio.wait((woken,), timeout=min(delay, _LOOK) if delay else _LOOK)
        finally:
            if not woken.done():
                self._waiting.remove(woken)

    def wake(self, count: int) -> None:
        """Wakes so many of those who have waited longest."""
        while count > 0 and self._waiting:
            self._waiting.popleft().set_result(None)
            count -= 1


class Slots:
    """Turns for `submit`: `most` at a time, as fast as the bucket says."""

    def __init__(self, submit: Callable[[Part], Awaitable[Accepted]], most: int, rate: float = 0.0) -> None:
        self._submit = submit
        self._free = most
        self._bucket = Bucket(rate)
        self._waiters = Waiters()

    def take(self) -> TurnSlot | None:
        """A turn, if there is one now."""
        if self._free <= 0 or self._bucket.delay(asyncio.get_running_loop().time()):
            return None
        self._free -= 1
        self._bucket.take(1)
        return TurnSlot(self)

    async def room(self) -> None:
        """Waits until there may be a turn."""
        delay = self._bucket.delay(asyncio.get_running_loop().time())
        if self._free <= 0 or delay:
            await self._waiters.wait(delay)

    async def use(self, part: Part) -> Accepted:
        """Submits in a turn that was taken, and gives it back."""
        self._bucket.take(part.weight - 1)
        try:
            return await self._submit(part)
        finally:
            self.give_back()

    def give_back(self, unused: bool = False) -> None:
        """The turn is over."""
        self._free += 1
        if unused:
            self._bucket.take(-1)
        self._waiters.wake(1)


class TurnSlot:
    """A turn of `Slots`."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    async def submit(self, part: Part) -> Accepted:
        """Submits the part. Raises what the way out does."""
        return await self._slots.use(part)

    def release(self) -> None:
        """Gives the turn back, unused."""
        self._slots.give_back(unused=True)
