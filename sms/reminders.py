"""The daily reminders: who gets one on a day, and at which second of the window. One node of a store plans, by lease.

A day is planned before its window begins, and once more when it has ended, for those who came to have a timer, or were
lost, meanwhile. Planning only queues, by a key that has the day, so that it may be done again from anywhere; where it
was is kept in the store. A node that was down plans late, until the hour after which a day is left out.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from datetime import time as time_of_day
from typing import Final, NamedTuple

from msgspec import Struct, msgpack

from eir.log import Log
from eir.timers import grey
from eir.timers.grey import Device, Rules
from eir.timers.store import Message, Store, Stored, StoreError
from sms import hours
from sms.wording import mark_of

_LEASE: Final = 30.0
_LOOK: Final = 5.0
"""Seconds between two looks at the clock."""
_AHEAD: Final = 1800
"""Seconds before the window at which planning begins."""
_PAGE: Final = 1000
_TOGETHER: Final = 10_000
"""Reminders that are queued at a time, after which it is kept where planning is."""
_FIBONACCI: Final = 0x9E37_79B9_7F4A_7C15
_SETTING: Final = "sms-reminders"

log = Log(__name__)


class ReminderSettings(NamedTuple):
    """When reminders go out, in local time."""

    begin: time_of_day = time_of_day(11)
    end: time_of_day = time_of_day(13)
    late_until: time_of_day = time_of_day(18)
    """After that a day is left out."""


class Planned(Struct, frozen=True, array_like=True):
    """How far a day is planned."""

    day: int = 0
    """As YYYYMMDD."""
    passes: int = 0
    """Times that all devices were gone through."""
    after: bytes | None = None
    """Where the present time goes on; None: at the beginning."""
    queued: int = 0
    """Reminders that were queued for this day."""


@dataclass(slots=True)
class RemindersState:
    """What planning tells of itself."""

    leading: bool = False
    planned: Planned = field(default_factory=Planned)
    error: str = ""


def slot(imei: int, begin: int, end: int) -> int:
    """The second of a window at which a device's turn is: at the same place every day."""
    return begin + ((imei * _FIBONACCI & 0xFFFF_FFFF_FFFF_FFFF) * max(end - begin, 1) >> 64)


def reminders(device: Device, rules: Rules, day: date, begin: int, turns: tuple[int, int]) -> Iterator[Message]:
    """The reminders of a device on a local day whose window has this begin: one for each subscriber, with their turns
    from the first to the last second.

    On every day of a running timer but the first.
    """
    timer = grey.timer(device, rules)
    if timer is None or timer.state != "running" or timer.deadline is None or timer.deadline <= begin:
        return
    if datetime.fromtimestamp(timer.start, rules.zone).date() >= day:
        return
    at = slot(device.imei, *turns)
    for seen in device.seen:
        yield Message("reminder", device.imei, seen.imsi, mark_of(day), at, seen.msisdn)


class Reminders:
    """Plans the reminders of a store on one of its nodes. `name` tells nodes apart; `now` gives Unix time."""

    def __init__(
        self,
        store: Store,
        settings: ReminderSettings,
        name: str,
        *,
        rules: Callable[[], Rules],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.state = RemindersState()
        self._store = store
        self.settings = settings
        # Another process of the same name must not plan at the same time.
        self._name = f"{name}#{secrets.token_hex(4)}"
        self._rules = rules
        self._now = now

    async def run(self) -> None:
        """Goes on until cancelled; waits for the store where it fails."""
        try:
            while True:
                try:
                    await self.turn()
                    self.state.error = ""
                except StoreError as error:
                    self.state.error = str(error)
                await asyncio.sleep(_LOOK)
        finally:
            if self.state.leading:
                # Another node need not wait until it runs out.
                with suppress(StoreError):
                    await self._store.lease("reminders", self._name, 0)

    def window(self, day: date) -> tuple[int, int]:
        """Begin and end of a local day's window, Unix time."""
        zone = self._rules().zone
        return hours.at(day, self.settings.begin, zone), hours.at(day, self.settings.end, zone)

    def window_open(self, seconds: int) -> bool:
        """Whether today's window has been open for so long, and it is not too late for reminders."""
        now, zone = int(self._now()), self._rules().zone
        day = datetime.fromtimestamp(now, zone).date()
        return self.window(day)[0] + seconds < now < hours.at(day, self.settings.late_until, zone)

    async def turn(self) -> None:
        """Plans today's reminders if it is time and they are not planned. Raises StoreError."""
        self.state.leading = await self._store.lease("reminders", self._name, _LEASE)
        now = int(self._now())
        zone = self._rules().zone
        day = datetime.fromtimestamp(now, zone).date()
        planned = _read(await self._store.setting(_SETTING))
        if planned.day != mark_of(day):
            planned = Planned(mark_of(day))
        self.state.planned = planned
        begin, end = self.window(day)
        passes = 0 if now < begin - _AHEAD else 1 if now < end else 2
        if not self.state.leading or now >= hours.at(day, self.settings.late_until, zone) or planned.passes >= passes:
            return
        started = time.monotonic()
        done = await self._plan(planned, day, passes)
        if done:
            seconds = round(time.monotonic() - started, 3)
            log.info("reminders are queued", day=str(day), queued=self.state.planned.queued, seconds=seconds)

    async def _plan(self, planned: Planned, day: date, passes: int) -> bool:
        """Goes through all devices; False where another node goes on with it. Raises StoreError."""
        begin, end = self.window(day)
        # Who is planned late has turns in the time that is left, and not all at once.
        now, late = int(self._now()), hours.at(day, self.settings.late_until, self._rules().zone)
        first, last = max(begin, now), max(end, min(now + end - begin, late)) if now > begin else end
        after, queued = planned.after, planned.queued
        messages: list[Message] = []
        while True:
            found = await self._store.scan(after, _PAGE, first=begin)
            messages += self._of(found.devices, day, begin, (first, last))
            after = found.next
            if after is not None and len(messages) < _TOGETHER:
                continue
            # By their turns: what is put together then lies together in the store's index of turns.
            messages.sort(key=lambda message: message.at)
            queued += await self._store.queue.put(messages) if messages else 0
            messages.clear()
            self.state.planned = Planned(planned.day, planned.passes if after else passes, after, queued)
            await self._store.set_setting(_SETTING, msgpack.encode(self.state.planned))
            if after is None:
                return True
            if not await self._store.lease("reminders", self._name, _LEASE):
                self.state.leading = False
                return False

    def _of(self, devices: Sequence[Stored], day: date, begin: int, turns: tuple[int, int]) -> list[Message]:
        rules = self._rules()
        return [message for device, _ in devices for message in reminders(device, rules, day, begin, turns)]


def _read(value: bytes | None) -> Planned:
    try:
        return msgpack.decode(value, type=Planned) if value else Planned()
    except ValueError:
        return Planned()
