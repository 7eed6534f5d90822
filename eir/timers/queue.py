"""The messages of a store as who sends them sees them: the interface, and what passes through it. Pure.

A message is put into the store with the change that it follows from, and waits. Whoever sends it moves it, step by
step, from waiting to being sent to over; each step says from where and what was known before, so that of two senders
one wins, and the other does nothing. What a sender knows of a message between its steps (`progress`) is octets here.
Implemented by `sqlite_queue` and `redis_queue`; used by `sms.outbox` and `sms.reminders`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from eir.timers.store import Message, MessageKey

Place: TypeAlias = Literal["waiting", "sending", "over"]

REPORTS_DUE: Final = 1 << 40
"""Seconds that a report upwards is put behind all messages to subscribers, which are not to queue behind it."""


class Outgoing(NamedTuple):
    """A message, what its sender knows of it, and when it is to be looked at (Unix time)."""

    message: Message
    progress: bytes
    """Empty until somebody has begun to send it."""
    due: int


class Step(NamedTuple):
    """What becomes of a message, if it still is in its place and its progress what was read; else nothing does.

    A step that was taken already is taken again without a change, so one that was not acknowledged may be repeated.
    """

    key: MessageKey
    come_from: Place
    before: bytes
    place: Place
    after: bytes
    """Never empty."""
    due: int
    """When it is to be looked at again; for what is over, when it came to be."""
    receipts: tuple[str, ...] = ()
    """Names by which `by_receipts` finds it from now on."""


class Queue(Protocol):
    """The messages of a store. Every method may raise StoreError."""

    async def due(self, place: Place, until: int, most: int, since: int = 0) -> list[Outgoing]:
        """Messages to subscribers in a place that are due from `since` to `until`, inclusive; the earliest first."""

    async def find(self, keys: Collection[MessageKey]) -> dict[MessageKey, Outgoing]:
        """Those that have not been withdrawn or forgotten, of these."""

    async def step(self, steps: Sequence[Step]) -> frozenset[MessageKey]:
        """Takes steps, each by itself; returns the keys of those that were not taken. One step a key."""

    async def put(self, messages: Sequence[Message]) -> int:
        """Puts messages that follow from no change, to devices that the store has; how many were not there before."""

    async def by_receipts(self, names: Collection[str]) -> dict[str, MessageKey]:
        """The messages that receipts name, as far as they are known; once: the names are forgotten."""

    async def allow(self, day: int, imsis: Sequence[str], most: int) -> list[bool]:
        """Counts a message to each of these subscribers on a day, and says for which there were not `most` before.

        Days are numbers since 1970.
        """

    async def forget(self, before: int, most: int) -> int:
        """Forgets progress of what was over before then, of reminders also that they were, and names and counts as old.

        About `most` at a time; how many it was.
        """
