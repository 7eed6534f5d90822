"""The sweep: what follows when time passes or lists change. One node of a store does it, another takes over.

The flip itself needs no job: the data plane compares deadlines at each answer. The sweep notes in the audit trail
which deadlines have passed and which timers a list has ended; messages, reports and the store follow from those lines.
It never writes lists. It goes slowly: a day's deadlines all pass at one midnight, and nobody waits for it.

Runs as a task of `keeper`'s, with the store; awaits, but opens nothing itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from msgspec import msgpack

from eir import _core
from eir.log import Log
from eir.timers import grey
from eir.timers.grey import NEVER
from eir.timers.keeper import Keeper
from eir.timers.store import Change, Counts

_BATCH: Final = 500
_LEASE: Final = 15.0
"""Seconds after which another node takes over."""
_RELIST: Final = 600.0
"""Seconds after which timers are compared with the lists although nothing is known to have changed."""
_PAUSE: Final = 20
"""Times as long as a comparison took until the next one: lists may change every second, and timers be millions."""
_VERIFIED: Final = frozenset({"white", "exempt-device", "white-range"})

log = Log(__name__)


@dataclass(slots=True)
class SweepState:
    """What the sweep tells of itself, since start."""

    leading: bool = False
    """Whether this node does it."""
    expired: int = 0
    ended: int = 0
    swept_to: int = 0
    """Deadlines up to here have been noted."""
    counts: Counts | None = None
    error: str = ""
    """Why nothing could be noted at the last turn."""


class Sweep:
    """The sweep of one node. `horizon` gives the second up to which timers expire; None while there are no lists."""

    def __init__(
        self,
        node: _core.Node,
        keeper: Keeper,
        name: str,
        per_second: int,
        horizon: Callable[[int], int | None],
    ) -> None:
        self.state = SweepState()
        self._node = node
        self._keeper = keeper
        self._name = name
        self._per_second = per_second
        self._horizon = horizon
        self._compare_at = 0.0
        self._not_before = 0.0

    def lists_changed(self) -> None:
        """Timers are to be compared with the lists, as soon as the last comparison is some time ago."""
        self._compare_at = 0.0

    async def run(self) -> None:
        """Goes on until the store fails: raises StoreError."""
        try:
            while True:
                if await self._lead():
                    try:
                        await self._recalendar()
                        await self._end_listed()
                        await self._expire()
                        self.state.error = ""
                    except OSError as error:
                        # The audit trail cannot be written: nothing is swept, and everything else goes on.
                        self.state.error = str(error)
                    self.state.counts = await self._keeper.store.counts()
                await asyncio.sleep(1.0)
        finally:
            self.state.leading = False

    async def _lead(self) -> bool:
        leading = await self._keeper.store.lease("sweep", self._name, _LEASE)
        if leading != self.state.leading:
            log.info("this node does the sweep" if leading else "another node does the sweep")
        self.state.leading = leading
        return leading

    async def _note(self, **entry: Any) -> None:
        """Writes a line into the audit trail and waits until the store is as it says."""
        line = await self._keeper.record([entry])
        await self._keeper.projected(line, None)

    async def _expire(self) -> None:
        keeper = self._keeper
        while (horizon := self._horizon(int(time.time()))) is not None:
            due = await keeper.store.due(horizon, _BATCH)
            if not due:
                self.state.swept_to = horizon
                return
            begin = time.monotonic()
            passed: list[tuple[str, int]] = []
            others: list[Change] = []
            for device, version in (await keeper.store.load(due)).values():
                timer = grey.timer(device, keeper.rules)
                if timer is not None and timer.state == "running" and (timer.deadline or NEVER) <= horizon:
                    passed.append((f"{device.imei:014}", timer.deadline or NEVER))
                else:
                    others.append(Change(device, version, timer))
            if others:
                # The index says otherwise than the rules. It is made right, or these would come up for ever.
                await keeper.store.commit(others, keeper.revision)
                await keeper.take_shifts()
            if passed:
                await self._note(kind="expired", devices=passed)
                self.state.expired += len(passed)
            await asyncio.sleep(max(0.0, len(due) / self._per_second - (time.monotonic() - begin)))
            if not await self._lead():
                return

    async def _end_listed(self) -> None:
        """Ends the timers of devices that the lists now decide."""
        now = int(time.time())
        # Stale lists end nothing, as they expire nothing; and a clock that is years ahead makes any lists stale.
        begin = time.monotonic()
        if begin < max(self._compare_at, self._not_before) or self._horizon(now) != now:
            return
        self._compare_at = begin + _RELIST
        position = self._node.lists_position()
        listed = await asyncio.to_thread(self._node.timers_listed, int(time.time()))
        self._not_before = time.monotonic() + _PAUSE * (time.monotonic() - begin)
        for first in range(0, len(listed), _BATCH):
            batch = listed[first : first + _BATCH]
            # Behind the start in any case: one of the same second, or of a clock that was ahead, is over as well.
            devices = [
                (f"{imei:014}", "verified" if rule in _VERIFIED else "blacklisted", max(now, start + 1))
                for imei, start, rule in batch
            ]
            await self._note(
                kind="ended", devices=devices, sequence=position["sequence"] if position is not None else 0
            )
            self.state.ended += len(devices)
            if not await self._lead():
                self._compare_at = 0.0
                return

    async def _recalendar(self) -> None:
        """Makes all deadlines anew where the number of days or the time zone's rules are not those of before."""
        keeper = self._keeper
        calendar = msgpack.encode(keeper.rules.fingerprint(int(time.time())))
        known = await keeper.store.setting("calendar")
        if known == calendar:
            return
        if known is not None:
            log.warning("the country's calendar has changed: all deadlines are made anew")
            await keeper.reindex(None)
        await keeper.store.set_setting("calendar", calendar)
