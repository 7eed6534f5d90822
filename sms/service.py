"""All that a node does about messages, put together: outbox, reminders, way out, commands, alarms.

Made and ended by `eir.app`. Without a way out (`sms.gateway = "off"`) messages wait in the store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from eir import _core
from eir.config import Config
from eir.log import Log
from eir.subscribers.directory import Directory
from eir.timers.grey import Rules
from eir.timers.store import Store
from sms import setup
from sms.desk import MessageDesk, Record
from sms.gateway import Gateway
from sms.hours import Hours
from sms.outbox import Outbox
from sms.reminders import Reminders

_OLD: Final = 3600
"""Seconds that a message which is due may wait before somebody is called."""

log = Log(__name__)


class Messages:
    """A node's messages. Raises ConfigError where the configuration cannot be used."""

    def __init__(
        self,
        path: Path,
        config: Config,
        node: _core.Node,
        store: Store,
        directory: Directory,
        *,
        rules: Callable[[], Rules],
        record: Record,
    ) -> None:
        self._config = config
        self._node = node
        self._store = store
        self._directory = directory
        self._rules = rules
        self._record = record
        self._setup = setup.read(path, config)
        self._tasks: list[asyncio.Task[None]] = []
        self.gateway: Gateway | None = None
        self.outbox: Outbox | None = None
        self.planner: Reminders | None = None
        self._desk: MessageDesk | None = None

    def start(self) -> None:
        """Begins to send and to plan."""
        self.gateway = setup.gateway(self._config)
        if self.gateway is None:
            return
        for kind, language in self._setup.drafts:
            log.warning("a text is a draft that nobody has confirmed", text=kind, language=language)
        name = self._config.node.origin_host
        self.outbox = Outbox(
            self._store,
            self.gateway,
            self._directory,
            self._setup.templates,
            self._setup.outbox,
            name,
            rules=self._rules,
            verdict=self._verdict,
            stopped=self._stopped,
        )
        self.planner = Reminders(self._store, self._setup.reminders, name, rules=self._rules)
        self._desk = MessageDesk(
            self._store,
            self.gateway,
            self._directory,
            self.outbox,
            self.planner,
            self._setup.outbox.concatenation,
            rules=self._rules,
            record=self._record,
        )
        self._tasks = [asyncio.create_task(_guarded(work)) for work in (self.outbox.run, self.planner.run)]

    async def stop(self) -> None:
        """Begins no more messages and lets those that are under way be answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reload(self, path: Path, config: Config) -> Callable[[], None]:
        """Reads texts, times and limits anew, and gives what puts them in force. Raises ConfigError.

        Ways out, and how texts are cut for them, wait for a restart.
        """
        read = setup.read(path, config)

        def take() -> None:
            self._config, self._setup = config, read
            if self.outbox is not None and self.planner is not None:
                self.outbox.templates, self.outbox.settings = read.templates, read.outbox
                self.planner.settings = read.reminders

        return take

    def _verdict(self, imei: int, imsi: str) -> str:
        return self._node.explain(f"{imei:014}", imsi or None, int(time.time()))["status"]

    def _stopped(self) -> str:
        """Why no message may go out now."""
        if self._node.snapshot_info() is None:
            return "no valid lists"
        if self._config.rules.override == "white":
            return "override"
        return "breaker" if self._node.stats(int(time.time()))["breaker_tripped"] else ""

    def alarms(self) -> Iterator[str]:
        """What somebody must be called for."""
        if self.outbox is None or self.planner is None:
            return
        if any(task.done() for task in self._tasks):
            yield "no messages are sent any more: start the node anew"
        state, plan = self.outbox.state, self.planner.state
        if state.leading and state.oldest and not state.stopped and time.time() - state.oldest > _OLD:
            yield "messages wait for more than an hour"
        if self.gateway is not None and all(smsc["state"] != "bound" for smsc in self.gateway.status()):
            yield "no way out takes messages"
        for what, error in (("messages are not sent", state.error), ("reminders are not planned", plan.error)):
            if error:
                yield f"{what}: {error}"
        if plan.leading and not plan.planned.passes and self.planner.window_open(_OLD):
            yield "the day's reminders are not planned an hour after their window began"
        if self.window_use() > 1:
            yield "the window of reminders is too short for the rate of the SMSC"

    def window_use(self) -> float:
        """How much of the window of reminders today's take, if none has a known language; 0 without a rate."""
        if self.planner is None or not self._setup.rate:
            return 0.0
        parts = self.planner.state.planned.queued * self._setup.parts_of_a_reminder
        window = self._setup.reminders
        return parts / (self._setup.rate * Hours(window.begin, window.end).seconds())

    def commands(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """Commands of the control socket."""
        names = ("queue", "pause", "resume", "send_test", "retry", "reminders")
        return {f"sms-{name.replace('_', '-')}": partial(self._asked, name) for name in names}

    async def _asked(self, name: str, ask: Mapping[str, Any]) -> Any:
        if self._desk is None:
            raise ValueError('no messages are sent: sms.gateway is "off"')
        return await getattr(self._desk, name)(ask)


async def _guarded(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Says of a fault what it is; without that nobody would know why no message goes out."""
    try:
        await work()
    except Exception:
        log.error("messages: a task has ended", exc_info=True)
        raise
