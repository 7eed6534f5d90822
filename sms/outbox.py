"""The outbox: sends what waits in the store, each message once, whatever crashes.

Before a part is submitted the store says so, and after its answer what came of it: a crash in between leaves a part of
which nobody knows whether it went, and that is not sent again (or is, as set), and counted. One node of a store sends,
by lease; where two believe that they do, the steps that the store takes decide for each message.

Runs as a task of the node's event loop, beside everything else. The store may come and go: what is to be written waits
for it, and nothing new is begun meanwhile.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from typing import Final, Literal, NamedTuple, TypeAlias

from msgspec import structs

from eir.log import Log
from eir.subscribers.directory import Directory, DirectoryError
from eir.timers.grey import Rules
from eir.timers.queue import Outgoing, Step
from eir.timers.store import Message, MessageKey, Store, StoreError
from sms import hours
from sms import progress as progresses
from sms.gateway import Gateway, NotTakenError, Part, Receipt, RefusedError, Slot, UnansweredError
from sms.hours import Hours
from sms.progress import PartProgress, Progress
from sms.receipts import Receipts, Stepped
from sms.segment import Concatenation, segment
from sms.templates import Templates
from sms.wording import Leave, Say, Verdict, Wait, day_of, wording

_LEASE: Final = 15.0
"""Seconds after which another node takes over."""
_LOOK: Final = 1.0
"""Seconds between two looks at what holds for all messages."""
_IDLE: Final = 0.5
_GATHER: Final = 0.025
"""Seconds in which what is to be written comes together."""
_RETRY: Final = 1.0
_REMEMBERED: Final = 100_000
"""Messages whose last step is remembered, should the store forget it."""
_FORGET_EVERY: Final = 60.0
_FORGOTTEN: Final = 2000
_AGAIN: Final = 3
"""Times that a message has parts sent again which were not answered, where that is wanted."""
_EPOCH: Final = date(1970, 1, 1).toordinal()
_PATIENCE: Final = 10.0
"""Seconds that parts which were submitted have to be answered when the node stops."""

PAUSED: Final = "sms-paused"
"""The setting in the store that is there, and not empty, while no node is to send."""

Key: TypeAlias = MessageKey
log = Log(__name__)


class OutboxSettings(NamedTuple):
    """How messages are sent; times of the day are local, spans in seconds."""

    concatenation: Concatenation = "udh8"
    in_flight: int = 100
    """Messages under way at once."""
    quiet: Hours = Hours(time_of_day(22), time_of_day(8))
    late_until: time_of_day = time_of_day(18)
    """After that a day's reminders are not sent any more."""
    daily_cap: int = 10
    """Messages to one subscriber a day; 0: as many as there are."""
    validity: int = 3 * 86400
    unanswered: Literal["skip", "again"] = "skip"
    abandoned: int = 75
    """Without a step for so long a message is not being sent any more by whoever was: longer than any answer takes."""
    kept: int = 7 * 86400
    """How long it is known what became of a message."""
    stop_list: frozenset[str] = frozenset()
    """Numbers and IMSIs that are sent nothing."""


@dataclass(slots=True)
class OutboxState:
    """What the outbox tells of itself, since start."""

    leading: bool = False
    stopped: str = ""
    """Why nothing is begun; empty: it is."""
    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Messages by kind, state and reason."""
    parts: Counter[str] = field(default_factory=Counter)
    """Parts by what came of them."""
    oldest: int = 0
    """When the oldest message that is due was to go out, Unix time; 0: none is due."""
    error: str = ""


class _Written(NamedTuple):
    step: Step
    done: asyncio.Future[bool]


@dataclass(slots=True, eq=False)
class _Active:
    """A message that is being sent by this process."""

    message: Message
    progress: Progress
    stored: bytes
    """What the store has of it."""
    receipts: list[Receipt] = field(default_factory=list)


class Outbox:
    """The outbox of one node.

    `stopped` says why no message may be begun now (no lists, breaker, pause), or is empty. `now` gives Unix time.
    """

    def __init__(
        self,
        store: Store,
        gateway: Gateway,
        directory: Directory,
        templates: Templates,
        settings: OutboxSettings,
        name: str,
        *,
        rules: Callable[[], Rules],
        verdict: Verdict,
        stopped: Callable[[], str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.state = OutboxState()
        self.templates = templates
        self._store = store
        self._gateway = gateway
        self._directory = directory
        self.settings = settings
        self._name = name
        # Tells this process from the one before, whose messages it takes over at once.
        self._sender = f"{name}#{secrets.token_hex(4)}"
        self._rules = rules
        self._verdict = verdict
        self._stopped = stopped
        self._now = now
        self._concatenation: Concatenation = "payload" if gateway.whole else settings.concatenation
        self._active: dict[Key, _Active] = {}
        self._deciding = 0
        """Messages that are being decided about: those that are to be sent are already claimed, and not active yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._steps: deque[_Written] = deque()
        self._written = asyncio.Event()
        self.receipts = Receipts(store, self._collected, self._receipted, self._at)
        self._remembered: OrderedDict[Key, tuple[int, bytes]] = OrderedDict()
        """When the message was put, and its last step: one that may come again is another one then."""
        self._looked = 0.0
        self._led = 0.0
        """When the lease was asked for that this node has."""
        self._freed = asyncio.Event()
        self._ending = False
        self._hold_until = 0.0

    @property
    def active(self) -> int:
        """Messages that are being decided about or sent."""
        return len(self._active) + self._deciding

    async def run(self) -> None:
        """Sends until cancelled; then lets what is under way be answered. Does not raise but for that."""
        await self._gateway.start(self.receipts.take)
        work = [asyncio.create_task(one()) for one in (self._write, self.receipts.run, self._forget)]
        turns = asyncio.create_task(self._turns())
        try:
            ended, _ = await asyncio.wait((turns, *work), return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                # None ends but by a fault.
                task.result()
        finally:
            self._ending = True
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    # What was claimed must also be begun, or it would count as unanswered.
                    await turns
                    while self._tasks:
                        await asyncio.wait(self._tasks)
            await self._gateway.close()
            for task in (turns, *self._tasks, *work):
                task.cancel()
            await asyncio.gather(turns, *self._tasks, *work, return_exceptions=True)
            if self.state.leading:
                self.state.leading = False
                # Another node need not wait until it runs out.
                with suppress(StoreError):
                    await self._store.lease("sms", self._sender, 0)

    async def _turns(self) -> None:
        while not self._ending:
            try:
                begun = await self._turn()
                self.state.error = ""
            except (StoreError, DirectoryError) as error:
                self.state.error, begun = str(error), 0
            except Exception:
                log.error("no message was begun: a fault", exc_info=True)
                self.state.error, begun = "a fault", 0
            if not begun and not self._ending:
                self._freed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_IDLE):
                        await self._freed.wait()
                # Messages that end together make room for as many that are claimed together.
                await asyncio.sleep(_GATHER)

    # --- what is begun -----------------------------------------------------------------------------------------------

    async def _turn(self) -> int:
        """Begins what is due and has room; how many messages it decided about. Raises StoreError and DirectoryError."""
        now = int(self._now())
        if time.monotonic() >= self._looked + _LOOK:
            await self._look(now)
            self._looked = time.monotonic()
        if not self.state.leading or self.state.stopped or time.monotonic() < self._hold_until:
            return 0
        slots = await self._slots()
        try:
            due = await self._store.queue.due("waiting", now, len(slots) + len(self._active)) if slots else []
            due = [one for one in due if one.message.key not in self._active][: len(slots)]
            self._deciding = len(due)
            handled, begun = await self._begin(due, now)
            for active, slot in zip(begun, slots, strict=False):
                self._spawn(active, slot)
            del slots[: len(begun)]
            return handled
        finally:
            self._deciding = 0
            for slot in slots:
                slot.release()

    async def _look(self, now: int) -> None:
        """Whether this node sends, and whether it may. Raises StoreError."""
        asked = time.monotonic()
        leading = await self._store.lease("sms", self._sender, _LEASE)
        if leading != self.state.leading or asked > self._led + _LEASE:
            # Another may have sent meanwhile: what it has done is in the store, and newer than what is known here.
            self._remembered.clear()
        if leading != self.state.leading:
            log.info("this node sends messages" if leading else "another node sends messages")
            self.state.leading = leading
        if not leading:
            self.state.oldest, self.state.stopped = 0, ""
            return
        self._led = asked
        await self._take_over(now)
        self.state.stopped = self._stopped()
        if not self.state.stopped and await self._store.setting(PAUSED):
            self.state.stopped = "paused"
        if not self.state.stopped and self.settings.quiet.contain(self._local(now).time()):
            self.state.stopped = "quiet hours"
        oldest = await self._store.queue.due("waiting", now, 1)
        self.state.oldest = oldest[0].message.at if oldest else 0

    def _local(self, now: float) -> datetime:
        return datetime.fromtimestamp(now, self._rules().zone)

    async def _slots(self) -> list[Slot]:
        """Room for messages to begin; waits a moment for the first."""
        most = self.settings.in_flight - len(self._active)
        if most <= 0:
            return []
        try:
            async with asyncio.timeout(_IDLE):
                await self._gateway.room()
        except TimeoutError:
            return []
        except NotTakenError as error:
            self._hold(error)
            return []
        slots: list[Slot] = []
        while len(slots) < most and (slot := self._gateway.take()) is not None:
            slots.append(slot)
        return slots

    def _hold(self, error: NotTakenError) -> None:
        """Begins nothing for a while: no way out takes anything."""
        self._hold_until = time.monotonic() + min(max(error.after, 0.1), 60.0)

    async def _begin(self, due: Sequence[Outgoing], now: int) -> tuple[int, list[_Active]]:
        """Decides about messages and claims those that are to be said; about how many, and these.

        Raises StoreError and DirectoryError.
        """
        found: list[tuple[Outgoing, Progress]] = []
        fresh: list[Outgoing] = []
        for one in due:
            at, last = self._remembered.get(one.message.key, (0, b""))
            known = progresses.decode(last) if at == one.message.at else None
            present = progresses.decode(one.progress)
            retried = present.retried if present is not None else 0
            if known is not None and known.place != "waiting" and known.retried == retried:
                # The store has lost steps, and says that this one still waits.
                found.append((one, self._resumed(known, now) if known.state == "sent" else known))
            elif self._too_late(one.message, present, now):
                found.append((one, self._expired(present, now)))
            else:
                fresh.append(one)
        found += await self._decide(fresh, now)
        steps: list[Step] = []
        active: list[_Active] = []
        for one, progress in found:
            if progress.state == "sent" and (number := progress.next_part) is not None:
                progress = progresses.with_part(progress, number, "sent")
            step = progresses.step(one.message, "waiting", one.progress, progress, now)
            steps.append(step)
            active.append(_Active(one.message, progress, step.after))
        refused = await self._claim(steps)
        begun: list[_Active] = []
        for (one, _), of, step in zip(found, active, steps, strict=True):
            if step.key in refused:
                continue
            self._remember(one.message, step)
            if of.progress.state == "sent":
                begun.append(of)
            elif of.progress.place == "over":
                self._count(one.message, of.progress)
        return len(steps), begun

    async def _claim(self, steps: Sequence[Step]) -> frozenset[Key]:
        """The keys of steps that were not taken. Waits for the store: a claim that was written and not acknowledged
        would leave parts that count as submitted."""
        while steps:
            try:
                return await self._store.queue.step(steps)
            except StoreError as error:
                self.state.error = str(error)
                await asyncio.sleep(_RETRY)
        return frozenset()

    def _too_late(self, message: Message, known: Progress | None, now: int) -> bool:
        """Whether a message is no longer worth sending."""
        if message.kind != "reminder":
            since = known.since if known is not None and known.since else message.at
            return since + self.settings.validity <= now
        try:
            return now >= hours.at(day_of(message.mark), self.settings.late_until, self._rules().zone)
        except ValueError:
            return True

    def _expired(self, known: Progress | None, now: int) -> Progress:
        if known is None:
            return Progress("expired", now, reason="too-late")
        return progresses.abandoned(known, "expired", known.reason or "too-late", now)

    async def _decide(self, fresh: Sequence[Outgoing], now: int) -> list[tuple[Outgoing, Progress]]:
        """What is to become of messages that nobody has begun. Raises StoreError and DirectoryError."""
        if not fresh:
            return []
        devices = await self._store.load({one.message.imei for one in fresh})
        subscribers = await self._directory.find({one.message.imsi for one in fresh})
        rules = self._rules()
        decided: list[tuple[Outgoing, Progress]] = []
        saying: list[tuple[Outgoing, Say]] = []
        # Not a second ago: with other lists, or none, or a switch, every message would be found to be untrue.
        if self._stopped():
            return []
        for one in fresh:
            message = one.message
            stored = devices.get(message.imei)
            known = subscribers.get(message.imsi)
            device = stored.device if stored is not None else None
            begun = present if (present := progresses.decode(one.progress)) is not None and present.begun else None
            tries = present.tries if present is not None else 0
            try:
                said = wording(message, device, known, self._verdict, rules, self.templates, now, tries)
            except Exception as error:
                # One that cannot be worded must not keep the others from going out.
                log.error("a message cannot be worded: a fault", message=message.kind, error=type(error).__name__)
                said = Leave("fault")
            if isinstance(said, Say) and not self.settings.stop_list.isdisjoint((said.to, message.imsi)):
                said = Leave("stop-list")
            if isinstance(said, Leave):
                decided.append(
                    (one, progresses.abandoned(present or Progress("queued", now), "cancelled", said.reason, now))
                )
            elif isinstance(said, Wait):
                decided.append((one, self._later(one, now, said.seconds, said.reason)))
            elif begun is not None:
                # The rest goes in the words of the parts that have left.
                decided.append((one, structs.replace(begun, state="sent", at=now, sender=self._sender)))
            else:
                saying.append((one, said))
        day = self._local(now).date()
        today = day.toordinal() - _EPOCH
        # One that was counted today and could not be sent is not counted again.
        asked = [one for one, _ in saying if _counted(one) != today]
        over: set[Key] = set()
        if self.settings.daily_cap and asked:
            allowed = await self._store.queue.allow(today, [one.message.imsi for one in asked], self.settings.daily_cap)
            over = {one.message.key for one, may in zip(asked, allowed, strict=True) if not may}
        for one, said in saying:
            if one.message.key not in over:
                decided.append((one, self._sent(one, said, now, today)))
            elif one.message.kind == "reminder":
                decided.append((one, Progress("cancelled", now, reason="daily-cap")))
            else:
                tomorrow = hours.at(day + timedelta(days=1), time_of_day(), rules.zone)
                decided.append((one, self._later(one, now, tomorrow - now, "daily-cap")))
        return decided

    def _later(self, one: Outgoing, now: int, seconds: int, reason: str) -> Progress:
        known = progresses.decode(one.progress) or Progress("queued", now)
        # `at` is when it is to be looked at again.
        return structs.replace(known, state="queued", at=now + seconds, reason=reason, tries=known.tries + 1, sender="")

    def _sent(self, one: Outgoing, said: Say, now: int, today: int) -> Progress:
        known = progresses.decode(one.progress) or Progress("queued", now)
        made = structs.replace(
            known,
            state="sent",
            at=now,
            sender=self._sender,
            reason="",
            reference=known.reference or secrets.randbelow(0xFFFF) + 1,
            to=said.to,
            texts=said.texts,
            counted=today,
        )
        return structs.replace(made, parts=(PartProgress(),) * len(self._parts(made)))

    def _parts(self, progress: Progress) -> list[Part]:
        """All parts of a message, cut as the way out wants them."""
        parts: list[Part] = []
        for number, text in enumerate(progress.texts):
            cut = segment(text, concatenation=self._concatenation)
            reference = (progress.reference + number) & 0xFFFF
            weight = cut.weight if len(cut.parts) == 1 else 1
            parts += [
                Part(progress.to, part, cut.coding, octets, reference, at, len(cut.parts), weight)
                for at, (part, octets) in enumerate(zip(cut.parts, cut.octets, strict=True), 1)
            ]
        return parts

    # --- what is under way -------------------------------------------------------------------------------------------

    def _spawn(self, active: _Active, slot: Slot | None) -> None:
        self._active[active.message.key] = active
        task = asyncio.create_task(self._send(active, slot))
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._freed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            # The message stays marked as being sent, and is taken over as one whose sender has ended.
            log.error("a message was not sent: a fault", kind=type(error).__name__)

    async def _send(self, active: _Active, slot: Slot | None) -> None:
        """Submits the parts of a claimed message, of which the store says which one is being submitted."""
        try:
            parts = self._parts(active.progress)
            if len(parts) != len(active.progress.parts):
                # Texts are cut otherwise than when the message was begun: the parts would not fit together.
                await self._take(active, progresses.abandoned(active.progress, "failed", "cut-otherwise", self._at()))
                return
            while slot is not None:
                number = next(n for n, part in enumerate(active.progress.parts) if part.state == "sent")
                used, slot = slot, None
                after, wait = await self._submit(active, number, parts[number], used)
                following = after.next_part
                if after.state != "sent" or following is None:
                    await self._take(active, after)
                    return
                if not wait and not self._held() and (slot := self._gateway.take()) is None:
                    # An answer is not kept from the disk by the next part's wait for its turn.
                    if not await self._take(active, after):
                        return
                    slot = await self._next_slot()
                if slot is None:
                    after = structs.replace(after, state="queued", at=self._at() + wait, sender="")
                else:
                    after = progresses.with_part(structs.replace(after, at=self._at()), following, "sent")
                if not await self._take(active, after):
                    return
        finally:
            if slot is not None:
                slot.release()
            self._active.pop(active.message.key, None)
            self.receipts.ended(active.message.key, active.receipts)

    async def _submit(self, active: _Active, number: int, part: Part, slot: Slot) -> tuple[Progress, int]:
        """Submits a part; the message as it stands then, and how many seconds to wait where it was not taken."""
        progress = active.progress
        outcome = "accepted"
        wait = 0
        try:
            accepted = await slot.submit(part)
            progress = progresses.with_part(progress, number, "accepted", accepted.name)
        except NotTakenError as error:
            self.state.parts["not-taken"] += 1
            # Others may be taken: only where there is no way out at all everything is held.
            wait = int(min(max(1.0, error.after, 1 << min(progress.tries, 10)), 600.0))
            again = progresses.with_part(progress, number, "")
            return structs.replace(again, state="queued", at=self._at() + wait, tries=progress.tries + 1, sender=""), 0
        except RefusedError as error:
            outcome = "refused"
            progress = progresses.with_part(progress, number, "failed")
            after = progresses.abandoned(progress, "failed", f"{error.smsc}:{error.reason}", self._at())
            self.state.parts[outcome] += 1
            return after, 0
        except UnansweredError:
            outcome = "unanswered"
            if self.settings.unanswered == "again" and progress.tries < _AGAIN:
                progress = progresses.with_part(structs.replace(progress, tries=progress.tries + 1), number, "")
                wait = 1
            else:
                progress = progresses.with_part(progress, number, "unanswered")
        self.state.parts[outcome] += 1
        if progress.next_part is None:
            progress = progresses.submitted(progress, self._at())
        return progress, wait

    def _held(self) -> bool:
        """Whether no part is to be begun now."""
        return self._ending or bool(self.state.stopped)

    async def _next_slot(self) -> Slot | None:
        """Room for the next part; None where there is none for some time."""
        while not self._held():
            if (slot := self._gateway.take()) is not None:
                return slot
            try:
                await self._gateway.room()
            except NotTakenError as error:
                self._hold(error)
                return None
        return None

    async def _take(self, active: _Active, progress: Progress) -> bool:
        """Writes what has become of a message; False where somebody else has it now."""
        if active.receipts:
            receipts, active.receipts = active.receipts, []
            progress = progresses.received(progress, receipts, self._at())
        names = [part.name for part in progress.parts if part.name]
        step = progresses.step(active.message, "sending", active.stored, progress, self._at(), names[-1:])
        if not await self._written_down(step):
            found = await self._lost(active)
            if found is not None:
                known = progresses.decode(found.progress)
                if known is not None:
                    progress = progresses.merged(progress, known)
                place = known.place if known is not None else "waiting"
                step = progresses.step(active.message, place, found.progress, progress, self._at(), names[-1:])
            if found is None or not await self._written_down(step):
                self.state.parts["taken-over"] += 1
                return False
        self._remember(active.message, step)
        active.progress, active.stored = progress, step.after
        if progress.place == "over":
            self._count(active.message, progress)
        return True

    async def _lost(self, active: _Active) -> Outgoing | None:
        """What the store has of a message whose step was refused, if that is older, or a receipt came by another node;
        None: another sends it now."""
        while True:
            try:
                found = (await self._store.queue.find([active.message.key])).get(active.message.key)
                break
            except StoreError as error:
                self.state.error = str(error)
                await asyncio.sleep(_RETRY)
        if found is None:
            return None
        known = progresses.decode(found.progress)
        ours = not found.progress if known is None else known.sender == self._sender
        return found if ours else None

    async def _written_down(self, step: Step) -> bool:
        """Whether the store has taken a step; waits for the store."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._steps.append(_Written(step, done))
        self._written.set()
        return await done

    def _at(self) -> int:
        return int(self._now())

    def _remember(self, message: Message, step: Step) -> None:
        self._remembered[step.key] = message.at, step.after
        self._remembered.move_to_end(step.key)
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)

    def _count(self, message: Message, progress: Progress) -> None:
        self.state.outcomes[message.kind, progress.state, progress.reason] += 1

    async def _write(self) -> None:
        """Writes the steps of all messages under way, those that have come together at a time."""
        while True:
            await self._written.wait()
            # Each time the disk is waited for the processor is busy with it, and steps of a while go together.
            await asyncio.sleep(_GATHER)
            self._written.clear()
            batch = list(self._steps)
            self._steps.clear()
            refused: frozenset[Key] = frozenset()
            while batch:
                try:
                    refused = await self._store.queue.step([written.step for written in batch])
                    break
                except StoreError as error:
                    # What was submitted stays known here until the store is there again: a step may be repeated.
                    self.state.error = str(error)
                    await asyncio.sleep(_RETRY)
            for step, done in batch:
                if not done.done():
                    done.set_result(step.key not in refused)

    async def _take_over(self, now: int) -> None:
        """Goes on with what a process that is no more was sending. Raises StoreError."""
        abandoned = await self._store.queue.due("sending", now, self.settings.in_flight + len(self._active))
        steps: list[Step] = []
        taken: list[tuple[Message, Progress, int]] = []
        for one in abandoned:
            known = progresses.decode(one.progress)
            if one.message.key in self._active:
                continue
            own_before = known is not None and known.sender.rpartition("#")[0] == self._name
            if one.due > now - self.settings.abandoned and not own_before:
                continue
            after = self._resumed(known, now)
            steps.append(progresses.step(one.message, "sending", one.progress, after, now))
            lost = sum(part.state == "sent" for part in known.parts) if known is not None else 0
            taken.append((one.message, after, lost))
        if not steps:
            return
        refused = await self._store.queue.step(steps)
        for step, (message, after, lost) in zip(steps, taken, strict=True):
            if step.key not in refused:
                self._remember(message, step)
                self.state.parts["unanswered"] += lost
                if after.place == "over":
                    self._count(message, after)

    def _resumed(self, known: Progress | None, now: int) -> Progress:
        """What becomes of a message whose sender has ended: it waits, for the parts that are left."""
        if known is None:
            return Progress("failed", now, reason="not-understood")
        state: progresses.PartState = "" if self.settings.unanswered == "again" else "unanswered"
        parts = tuple(PartProgress(state) if part.state == "sent" else part for part in known.parts)
        known = structs.replace(known, parts=parts, state="queued", at=now, sender="")
        return known if known.next_part is not None else progresses.submitted(known, now)

    def _collected(self, key: Key) -> list[Receipt] | None:
        """Where receipts for a message that is being sent are collected."""
        active = self._active.get(key)
        return None if active is None else active.receipts

    def _receipted(self, one: Stepped) -> None:
        """A receipt has changed a message."""
        if self.state.leading:
            self._remember(one.message, one.step)
        if one.after.state != one.before.state:
            self._count(one.message, one.after)

    async def _forget(self) -> None:
        """Lets go, on the node that sends, of what was over long ago."""
        while True:
            await asyncio.sleep(_FORGET_EVERY)
            with suppress(StoreError):
                while self.state.leading:
                    if await self._store.queue.forget(self._at() - self.settings.kept, _FORGOTTEN) < _FORGOTTEN // 2:
                        break


def _counted(one: Outgoing) -> int:
    """The day on which a message was counted as its subscriber's."""
    known = progresses.decode(one.progress)
    return 0 if known is None else known.counted
