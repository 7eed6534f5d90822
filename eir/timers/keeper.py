"""Keeps journal, audit trail, store and memory in step: the tasks behind a node's timers.

Journal and audit trail are projected into the store; what the store has changed, by this node or another, goes into the
data plane's memory; deadlines that have passed and devices that a list now decides are noted in the audit trail; the
memory's image is written, and journal that nobody needs any more is let go. Whatever fails with the store: everything
that hangs on it begins again, from where the store says it is. Nothing here is waited for by an answer.

Called by `app` and `desk`. The rules are `grey`'s, what follows from events is `projection`'s.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eir import _core
from eir.audit import AuditLog
from eir.audit_chain import Head
from eir.log import Log
from eir.timers import grey, projection
from eir.timers.grey import Rules
from eir.timers.projection import Recorded, ShiftRemoved, ShiftSet
from eir.timers.store import BehindError, Change, Position, Store, StoreError, StoreVersionError, memory, pages

_BATCH: Final = 20_000
"""Journal records that are projected together: the more, the fewer pages of the store are written twice."""
_PAGE: Final = 4000
"""Devices that are read together."""
_LINES: Final = 200
"""Audit lines that are read together."""
_GATHER: Final = 0.005
"""Seconds in which more may come to a batch: a commit costs more than a record."""
_RETRY: Final = 1.0
_PUBLISH: Final = 60.0

log = Log(__name__)


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """`name`: this node's, its own among those of a store. Times in seconds."""

    name: str
    image: Path
    image_interval: float
    journal_source: str
    audit_source: str
    """What the store calls this node's journal and its audit trail: others, where they begin anew."""
    journal_keep: float
    journal_max_bytes: int


@dataclass(slots=True)
class KeeperState:
    """What the keeper tells of itself."""

    store_up: bool = False
    store_error: str = "not opened yet"
    journal_position: int = 0
    audit_position: int = 0
    projected: int = 0
    """Journal records projected since start."""
    refused: int = 0
    """Changes that another node was faster with."""
    not_understood: int = 0
    """Audit lines that were passed over."""
    store_failures: int = 0
    image_at: float = 0.0
    image_error: str = ""


class Keeper:
    """The timers of one node. `besides` is more work that needs the store and begins again with it: the sweep."""

    def __init__(
        self,
        node: _core.Node,
        store: Store,
        audit: AuditLog,
        settings: KeeperSettings,
        rules: Rules,
    ) -> None:
        self.state = KeeperState()
        self.store = store
        self.audit = audit
        self._node = node
        self._settings = settings
        self._rules = rules
        self.revision = 0
        self.besides: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._following: Position | None = node.image_follow
        self._caught_up = asyncio.Event()
        self._journal_grown = asyncio.Event()
        self._audit_grown = asyncio.Event()
        self._audit_projected = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._covered: deque[tuple[float, int]] = deque()
        """(when, up to which journal record) of images that were written and projected."""
        self._writing_image = asyncio.Lock()

    @property
    def name(self) -> str:
        """This node's name among those of the store."""
        return self._settings.name

    @property
    def rules(self) -> Rules:
        """The country's rules, with the shifts in force."""
        return self._rules

    def set_calendar(self, rules: Rules) -> None:
        """Puts another country profile in force; the sweep sees that it is another, and has deadlines made anew."""
        self._rules = rules.with_shifts(self._rules.shifts)

    async def start(self, patience: float) -> None:
        """Begins, and waits until memory is in step with the store, or `patience` is over.

        Without an image there is nothing to go by but the store, which is then waited for longer.
        """
        loop = asyncio.get_running_loop()
        loop.add_reader(self._node.journal_fileno(), self._grown)
        self._task = asyncio.create_task(self._run())
        waiting = patience if self._following is not None else 10 * patience
        await _set_or_after(self._caught_up, waiting)
        if not self.state.store_up:
            log.error("the store is not there: timers go by this node's own memory", error=self.state.store_error)

    async def stop(self) -> None:
        """Ends, with an image written."""
        asyncio.get_running_loop().remove_reader(self._node.journal_fileno())
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.write_image()
        await self.store.close()

    def _grown(self) -> None:
        self._node.clear_journal_event()
        self._journal_grown.set()

    # What people and the sweep do.

    async def record(self, entries: Sequence[Mapping[str, Any]], at: int | None = None) -> int:
        """Appends to the audit trail, on the disk when this returns; gives the last line's number.

        `at`: when what is said counts from, now if not given. Raises OSError and ValueError.
        """
        _, last = await asyncio.to_thread(self.audit.append, int(time.time()) if at is None else at, entries)
        self._audit_grown.set()
        return last

    async def projected(self, line: int, patience: float | None) -> bool:
        """Waits until a line of the audit trail is in the store and in memory; False where that takes too long."""

        try:
            async with asyncio.timeout(patience), self._audit_projected:
                await self._audit_projected.wait_for(lambda: self.state.audit_position >= line)
        except TimeoutError:
            return False
        return True

    # The tasks.

    async def _run(self) -> None:
        """Everything, again and again: the store may come and go."""
        async with _background(self._keep_image()):
            while True:
                try:
                    await self._with_store()
                except StoreVersionError as error:
                    self._down(error)
                    log.error("the store is of another version", error=str(error))
                    await asyncio.sleep(60 * _RETRY)
                except StoreError as error:
                    self._down(error)
                    await asyncio.sleep(_RETRY)
                except OSError as error:
                    # The audit trail, or the journal, cannot be read.
                    self._down(error)
                    await asyncio.sleep(_RETRY)
                except Exception as error:
                    # A fault of ours: it must not end the timers of a country for good. Where it is, but not its text,
                    # in which a subscriber could be.
                    frames = traceback.extract_tb(error.__traceback__)[-4:]
                    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
                    log.error("a fault in the timers' tasks", fault=type(error).__name__, where=where)
                    self._down(RuntimeError(f"a fault: {type(error).__name__} in {where}"))
                    await asyncio.sleep(10 * _RETRY)

    def _down(self, error: Exception) -> None:
        if self.state.store_up or self.state.store_error != str(error):
            log.warning("the store fails", error=str(error))
        self.state.store_up = False
        self.state.store_error = str(error)
        self.state.store_failures += 1

    async def _with_store(self) -> None:
        await self.store.close()
        await self.store.open()
        await self.take_shifts()
        if self._following is None:
            await self._read_all()
        works = [self._follow(), self._project_journal(), self._project_audit(), self._publish()]
        if self.besides is not None:
            works.append(self.besides())
        tasks = [asyncio.create_task(work) for work in works]
        self.state.store_up, self.state.store_error = True, ""
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def take_shifts(self) -> None:
        """Takes the shifts as the store has them: after a commit was refused, they may have changed."""
        revision, shifts = await self.store.shifts()
        if revision != self.revision or shifts != self._rules.shifts:
            self.revision, self._rules = revision, self._rules.with_shifts(shifts)

    # From the store into memory.

    async def _read_all(self) -> None:
        """Puts every timer of the store into memory."""
        log.info("every timer is read from the store")
        position = await self.store.end_of_changes()
        async for devices in pages(self.store, _PAGE):
            entries = [memory(device, grey.timer(device, self._rules)) for device, _ in devices]
            await asyncio.to_thread(self._node.set_timers, entries)
        self._following = position

    async def _follow(self) -> None:
        while True:
            assert self._following is not None
            wait = 5.0 if self._caught_up.is_set() else 0.0
            try:
                entries, reached = await self.store.changes(self._following, _PAGE, wait)
            except BehindError:
                await self._read_all()
                continue
            if entries:
                await asyncio.to_thread(self._node.set_timers, entries)
            elif not self._caught_up.is_set():
                self._caught_up.set()
            self._following = reached

    # From journal and audit trail into the store.

    async def _commit(self, recorded: Sequence[Recorded], source: str, reached: int) -> None:
        """Projects events, again where another node has changed a device meanwhile."""
        while True:
            stored = await self.store.load({event.imei for event, _ in recorded})
            # In a thread: thousands of events take a good part of a second, and there are peers to be answered.
            planned = await asyncio.to_thread(projection.changes, recorded, stored, self._rules)
            refused = await self.store.commit(planned, self.revision, source, reached)
            # What this node's memory lacks comes back with the stream of changes; who waits for an act need not.
            told = [
                memory(change.device, change.timer)
                for change in planned
                if change.tell == "all" and change.device.imei not in refused
            ]
            if told:
                await asyncio.to_thread(self._node.set_timers, told)
            if not refused:
                return
            self.state.refused += len(refused)
            await self.take_shifts()
            recorded = [one for one in recorded if one.event.imei in refused]

    async def _project_journal(self) -> None:
        source = self._settings.journal_source
        position = marked = await self.store.position(source)
        self.state.journal_position = position
        while True:
            self._journal_grown.clear()
            recorded, reached = await asyncio.to_thread(self._read_journal, position)
            if recorded:
                await self._commit(recorded, source, reached)
                self.state.projected += len(recorded)
            if reached > position:
                self.state.journal_position = position = reached
                continue
            if marked < position:
                await self.store.mark(source, position)
                marked = position
            await _set_or_after(self._journal_grown, 5.0)
            await asyncio.sleep(_GATHER)

    def _read_journal(self, position: int) -> tuple[list[Recorded], int]:
        records, reached = self._node.read_journal(position, _BATCH)
        return [projection.from_journal(record) for record in records], reached

    async def _project_audit(self) -> None:
        source = self._settings.audit_source
        position = await self.store.position(source)
        await self._audited(position)
        while True:
            self._audit_grown.clear()
            lines: list[dict[str, Any]] = await asyncio.to_thread(self.audit.read, position, _LINES)
            waiting: list[Recorded] = []
            for line in lines:
                for event in self._understood(line):
                    if isinstance(event, ShiftSet | ShiftRemoved):
                        await self._commit(waiting, source, line["n"] - 1)
                        waiting = []
                        await self._shift(event)
                    else:
                        waiting.append(Recorded(event))
                if len(waiting) >= _BATCH:
                    await self._commit(waiting, source, line["n"])
                    waiting = []
            if lines:
                position = lines[-1]["n"]
                await self._commit(waiting, source, position)
                await self.store.mark(source, position)
                await self._audited(position)
            else:
                await _set_or_after(self._audit_grown, 5.0)

    def _understood(self, line: Mapping[str, Any]) -> Iterable[Any]:
        try:
            return projection.from_audit(line)
        except ValueError as error:
            self.state.not_understood += 1
            log.error("an audit line is passed over", error=str(error))
            return ()

    async def _audited(self, position: int) -> None:
        async with self._audit_projected:
            self.state.audit_position = position
            self._audit_projected.notify_all()

    async def _shift(self, event: ShiftSet | ShiftRemoved) -> None:
        """Puts a shift in force, or out of it, and brings the stores' index of deadlines up to date."""
        before = self._rules
        if isinstance(event, ShiftSet):
            await self.store.put_shift(event.shift)
            await self.take_shifts()
            # A crash may have come between: then the shift is in force already, and part of the index is not.
            before = before.with_shifts(tuple(one for one in before.shifts if one.id != event.shift.id))
            await self.reindex(before)
        else:
            taken = [one for one in before.shifts if one.id == event.id]
            await self.store.remove_shift(event.id)
            await self.take_shifts()
            # Where it is not in force any more, nobody knows how far the index had come.
            await self.reindex(before if taken else None)

    async def reindex(self, before: Rules | None) -> None:
        """Commits all devices anew whose timer is another than by the rules of before; None: all of them."""
        async for todo in pages(self.store, _PAGE):
            while todo:
                if before is None:
                    changes = [Change(device, version, grey.timer(device, self._rules)) for device, version in todo]
                else:
                    changes = projection.reindexed(todo, before, self._rules)
                refused = await self.store.commit(changes, self.revision)
                if refused:
                    await self.take_shifts()
                todo = list((await self.store.load(refused)).values()) if refused else []

    # The audit trail shown to the others, and the image.

    async def _publish(self) -> None:
        """Shows where this audit trail stands, and keeps where the others do: what they saw cannot be rewritten."""
        shown = 0
        while True:
            n, digest = self.audit.head
            if n != shown:
                await self.store.publish(Head(self._settings.name, n, digest))
                shown = n
            for head in await self.store.heads():
                if head.node != self._settings.name:
                    await asyncio.to_thread(self.audit.witness, head)
            # Another node may have put a shift in force; commits notice, and people who only look must see it too.
            await self.take_shifts()
            await asyncio.sleep(_PUBLISH)

    async def _keep_image(self) -> None:
        while True:
            await asyncio.sleep(self._settings.image_interval)
            await self.write_image()

    async def write_image(self) -> None:
        """Writes the image and lets go of journal that is in it, and in the store, and has been for long enough."""
        following = self._following
        if following is None:
            # What the store has was never read: an image would claim that it was.
            return
        async with self._writing_image:
            try:
                covered = await asyncio.to_thread(self._node.write_image, self._settings.image, following)
            except OSError as error:
                if self.state.image_error != str(error):
                    log.error("the image of the timers cannot be written", error=str(error))
                self.state.image_error = str(error)
                return
            self.state.image_at, self.state.image_error = time.time(), ""
            await self._trim(min(covered, self.state.journal_position))
        if self.state.store_up:
            with suppress(StoreError):
                await self.store.trim_changes(following)

    async def _trim(self, covered: int) -> None:
        """Lets go of journal up to a record that image and store have had for `journal_keep` seconds.

        A store that loses what it had acknowledged is offered the journal again, so some of it is kept; not where
        there is little room left.
        """
        now = time.monotonic()
        self._covered.append((now, covered))
        short = self._node.stats(0)["journal_bytes"] > self._settings.journal_max_bytes // 2
        before = covered if short else 0
        while self._covered and self._covered[0][0] <= now - self._settings.journal_keep:
            before = max(before, self._covered.popleft()[1])
        if before:
            await asyncio.to_thread(self._node.trim_journal, before)


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Has a task run for as long as the block does."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _set_or_after(event: asyncio.Event, seconds: float) -> None:
    # Not `wait_for`: a cancellation that comes together with the event is lost in it, and the task goes on for ever.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
