"""Receipts: what an SMSC says, later, of what it took, brought to the messages it is about.

A receipt may come before the step that brings its name into the store, while its message is still being sent, twice, or
for nothing that is known. Part of `outbox`, which makes it and gives it what is under way.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from eir.timers.queue import Step
from eir.timers.store import Message, MessageKey, Store, StoreError
from sms import progress as progresses
from sms.gateway import Receipt
from sms.progress import Progress

_BATCH: Final = 1000
_RETRY: Final = 1.0
_EARLY: Final = 30.0
"""Seconds that a receipt waits for the step that brings its name into the store."""
_MOST: Final = 100_000
"""Receipts that may wait: an SMSC can say anything, and as often as it likes."""


class Stepped(NamedTuple):
    """A message that a receipt has changed."""

    message: Message
    step: Step
    before: Progress
    after: Progress


class Receipts:
    """The receipts of an outbox.

    `under_way` gives the list in which receipts for a message that is being sent are collected, None for another;
    `stepped` is told what was changed.
    """

    def __init__(
        self,
        store: Store,
        under_way: Callable[[MessageKey], list[Receipt] | None],
        stepped: Callable[[Stepped], None],
        now: Callable[[], int],
    ) -> None:
        self.unknown = 0
        """Receipts of no message that is known, or too many."""
        self._store = store
        self._under_way = under_way
        self._stepped = stepped
        self._now = now
        self._new: deque[Receipt] = deque()
        self._early: deque[tuple[Receipt, float]] = deque()
        """Those whose name is not in the store, with until when they wait."""
        self._known: dict[MessageKey, list[Receipt]] = {}
        """Those whose message is known, and that are still to be written."""
        self._woken = asyncio.Event()

    def take(self, receipt: Receipt) -> None:
        """One has come."""
        if len(self._new) + len(self._early) >= _MOST:
            self.unknown += 1
            return
        self._new.append(receipt)
        self._woken.set()

    def ended(self, key: MessageKey, receipts: Sequence[Receipt]) -> None:
        """A message is not under way any more; these came for it, and are not in its progress."""
        if receipts:
            self._known.setdefault(key, []).extend(receipts)
        if key in self._known:
            self._woken.set()

    async def run(self) -> None:
        """Brings receipts to their messages; waits for the store where it fails."""
        while True:
            if not self._new:
                self._woken.clear()
                try:
                    async with asyncio.timeout(_RETRY if self._early or self._known else None):
                        await self._woken.wait()
                except TimeoutError:
                    self._again()
            batch = [self._new.popleft() for _ in range(min(len(self._new), _BATCH))]
            try:
                await self._find(batch)
                await self._put()
            except StoreError:
                await asyncio.sleep(_RETRY)

    def _again(self) -> None:
        """Those that came early have another turn, and those that waited long enough are given up."""
        now = time.monotonic()
        early, self._early = self._early, deque()
        for receipt, until in early:
            if until > now:
                self._early.append((receipt, until))
            else:
                self.unknown += 1

    async def _find(self, batch: Sequence[Receipt]) -> None:
        """Finds what receipts are about, these and some that came early. Raises StoreError, and they wait."""
        until = time.monotonic() + _EARLY
        asked = [(receipt, until) for receipt in batch]
        asked += [self._early.popleft() for _ in range(min(len(self._early), _BATCH))]
        if not asked:
            return
        try:
            keys = await self._store.queue.by_receipts({receipt.name for receipt, _ in asked})
        except StoreError:
            self._early.extend(asked)
            raise
        for receipt, end in asked:
            key = keys.get(receipt.name)
            if key is None:
                self._early.append((receipt, end))
            elif (collected := self._under_way(key)) is not None:
                collected.append(receipt)
            else:
                self._known.setdefault(key, []).append(receipt)

    async def _put(self) -> None:
        """Writes receipts whose message is known and not under way. Raises StoreError."""
        by_key = {key: list(receipts) for key, receipts in self._known.items() if self._under_way(key) is None}
        if not by_key:
            return
        found = await self._store.queue.find(by_key.keys())
        changed: dict[MessageKey, Stepped] = {}
        for key, one in found.items():
            before = progresses.decode(one.progress)
            if before is None:
                continue
            after = progresses.received(before, by_key[key], self._now())
            if after != before:
                step = progresses.step(one.message, before.place, one.progress, after, one.due)
                changed[key] = Stepped(one.message, step, before, after)
        refused = await self._store.queue.step([one.step for one in changed.values()]) if changed else frozenset()
        for key, receipts in by_key.items():
            if key in refused:
                # It was changed meanwhile: another look, at the next turn.
                continue
            if key in changed:
                self._stepped(changed[key])
            left = self._known[key][len(receipts) :]
            if left:
                self._known[key] = left
            else:
                del self._known[key]
