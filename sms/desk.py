"""What people ask about messages: the queue, a pause, a trial, another try, and what a day's reminders come to.

Called by the control socket's commands (`service`). Numbers of subscribers are masked unless they are asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Any, Final, get_args

from msgspec import structs

from eir.subscribers.directory import Directory, DirectoryError, mask
from eir.timers.grey import Rules
from eir.timers.queue import Outgoing, Place, Step
from eir.timers.store import Message, MessageKey, MessageKind, Store, Stored
from sms import progress as progresses
from sms.gateway import Gateway, NotTakenError, Part, RefusedError, UnansweredError, submit
from sms.outbox import PAUSED, Outbox
from sms.progress import Progress
from sms.reminders import Reminders, reminders
from sms.segment import Concatenation, segment
from sms.wording import Say, wording

_PAGE: Final = 1000
_SAMPLES: Final = 3
_TRIAL: Final = 40.0
"""Seconds that a trial may take."""
_PLACES: Final[tuple[Place, ...]] = get_args(Place)

Record = Callable[..., Awaitable[None]]
"""Writes an act into the audit trail."""


class MessageDesk:
    """The desk of one node. Methods take the command's arguments and raise ValueError with a text for whoever asked."""

    def __init__(
        self,
        store: Store,
        gateway: Gateway,
        directory: Directory,
        outbox: Outbox,
        planner: Reminders,
        concatenation: Concatenation,
        *,
        rules: Callable[[], Rules],
        record: Record,
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._directory = directory
        self._outbox = outbox
        self._planner = planner
        self._concatenation = concatenation
        self._rules = rules
        self._record = record

    async def queue(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        """How it stands with messages, and some of them in one place."""
        place = ask.get("place") or "waiting"
        if place not in _PLACES:
            raise ValueError(f"{place!r} is none of {', '.join(_PLACES)}")
        most = ask.get("most", 0)
        if not isinstance(most, int) or not 0 <= most <= 10_000:
            raise ValueError("at most 10,000 messages are shown")
        now = int(time.time())
        found = await self._store.queue.due(place, 1 << 39, most) if most else []
        state = self._outbox.state
        known = {name: getattr(state, name) for name in ("leading", "stopped", "error")}
        planned = self._planner.state.planned
        return {
            "queued": (await self._store.counts()).queued,
            "paused_by": (await self._store.setting(PAUSED) or b"").decode(errors="replace"),
            "oldest_waits": max(0, now - state.oldest) if state.oldest else 0,
            "outbox": {
                **known,
                "active": self._outbox.active,
                "outcomes": [[*what, count] for what, count in sorted(state.outcomes.items())],
                "parts": dict(state.parts),
                "receipts_unknown": self._outbox.receipts.unknown,
            },
            "reminders": {"day": planned.day, "passes": planned.passes, "queued": planned.queued},
            "ways_out": self._gateway.status(),
            "messages": [_shown(one, bool(ask.get("unmask"))) for one in found],
        }

    async def pause(self, ask: Mapping[str, Any]) -> None:
        """Lets no node begin a message until `resume`."""
        agent = str(ask.get("agent") or "")[:64]
        await self._store.set_setting(PAUSED, agent.encode() or b"?")
        await self._record(ask, kind="sms-pause")

    async def resume(self, ask: Mapping[str, Any]) -> None:
        """Lets messages go out again."""
        await self._store.set_setting(PAUSED, b"")
        await self._record(ask, kind="sms-resume")

    async def send_test(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a text to a number by the way out that is configured, past the queue."""
        to, text = ask["to"], ask["text"]
        if not isinstance(to, str) or not isinstance(text, str) or not text:
            raise ValueError("a number and a text are needed")
        to = to.removeprefix("+")
        if not (to.isascii() and to.isdigit() and 5 <= len(to) <= 15):
            raise ValueError("a number has 5 to 15 digits")
        cut = segment(text, concatenation="payload" if self._gateway.whole else self._concatenation)
        await self._record(ask, kind="sms-test")
        reference = int(time.time()) & 0xFFFF
        taken: list[str] = []
        try:
            async with asyncio.timeout(_TRIAL):
                for number, (part, octets) in enumerate(zip(cut.parts, cut.octets, strict=True), 1):
                    weight = cut.weight if len(cut.parts) == 1 else 1
                    one = Part(to, part, cut.coding, octets, reference, number, len(cut.parts), weight)
                    accepted = await submit(self._gateway, one)
                    taken.append(f"{accepted.smsc} {accepted.message_id}".strip())
        except (NotTakenError, RefusedError, UnansweredError, TimeoutError) as error:
            what = str(error) or "no answer in time"
            raise ValueError(f"{len(taken)} of {len(cut.parts)} parts were taken, then: {what}") from None
        return {"coding": cut.coding, "parts": taken, "weight": cut.weight}

    async def retry(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        """Lets messages that failed or came too late wait once more; of one kind, or with one reason, if so asked."""
        kind, reason, dry_run = ask.get("kind"), ask.get("reason_of_failure"), bool(ask.get("dry_run"))
        if kind is not None and kind not in get_args(MessageKind):
            raise ValueError(f"{kind!r} is no kind of message")
        now = int(time.time())
        found: Counter[str] = Counter()
        steps: dict[MessageKey, Step] = {}
        since, most = 0, _PAGE
        while page := await self._store.queue.due("over", now, most, since):
            for one in page:
                known = progresses.decode(one.progress)
                if known is None or known.state not in ("failed", "expired") or kind not in (None, one.message.kind):
                    continue
                if reason not in (None, known.reason) or one.message.key in steps:
                    continue
                found[f"{one.message.kind} {known.state} {known.reason}".strip()] += 1
                again = Progress("queued", now, reason="retry", tries=known.tries, retried=known.retried + 1, since=now)
                steps[one.message.key] = Step(
                    one.message.key, "over", one.progress, "waiting", progresses.encode(again), now
                )
            if len(page) < most:
                break
            # A page that is due at one second would come for ever: a larger one.
            most = _PAGE if page[-1].due > since else 2 * most
            since = page[-1].due
        refused = 0
        if steps and not dry_run:
            await self._record(ask, kind="sms-retry", messages=len(steps))
            todo = list(steps.values())
            for first in range(0, len(todo), _PAGE):
                refused += len(await self._store.queue.step(todo[first : first + _PAGE]))
        return {"found": dict(found), "queued": 0 if dry_run else len(steps) - refused}

    async def reminders(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        """What the reminders of a day come to, if devices, lists and subscribers stay as they are now."""
        try:
            day = date.fromisoformat(str(ask["date"]))
        except ValueError as error:
            raise ValueError(f"{ask['date']!r} is no day: YYYY-MM-DD") from error
        begin, end = self._planner.window(day)
        devices = subscribers = parts = 0
        left: Counter[str] = Counter()
        samples: list[dict[str, Any]] = []
        after: bytes | None = None
        while True:
            page = await self._store.scan(after, _PAGE, first=begin)
            said = await self._said(page.devices, day, begin, end)
            devices += len({message.imei for message, _ in said})
            for message, what in said:
                if not isinstance(what, Say):
                    left[what.reason] += 1
                    continue
                subscribers += 1
                cut = [segment(text, concatenation=self._concatenation) for text in what.texts]
                parts += sum(one.weight for one in cut)
                if len(samples) < _SAMPLES:
                    hidden = what.to if ask.get("unmask") else mask(what.to)
                    texts = [text if ask.get("unmask") else text.replace(what.to, hidden) for text in what.texts]
                    samples.append(
                        {"to": hidden, "at": message.at, "parts": [one.weight for one in cut], "texts": texts}
                    )
            after = page.next
            if after is None:
                break
        return {
            "date": str(day),
            "window": [begin, end],
            "devices": devices,
            "subscribers": subscribers,
            "parts": parts,
            "parts_per_second": round(parts / max(end - begin, 1), 3),
            "left_out": dict(left),
            "samples": samples,
        }

    async def _said(self, found: list[Stored], day: date, begin: int, end: int) -> list[tuple[Message, Any]]:
        rules = self._rules()
        asked = [
            (message, device) for device, _ in found for message in reminders(device, rules, day, begin, (begin, end))
        ]
        try:
            known = await self._directory.find({message.imsi for message, _ in asked})
        except DirectoryError as error:
            raise ValueError(str(error)) from error
        return [
            (message, wording(message, device, known.get(message.imsi), _grey, rules, self._outbox.templates, begin))
            for message, device in asked
        ]


def _grey(_: int, __: str) -> str:
    """What a device with a running timer is answered."""
    return "grey"


def _shown(one: Outgoing, unmask: bool) -> dict[str, Any]:
    known = progresses.decode(one.progress)
    message = one.message
    shown = {
        "kind": message.kind,
        "imei": f"{message.imei:014}",
        "imsi": message.imsi if unmask else mask(message.imsi, 5),
        "due": one.due,
        "state": known.state if known is not None else "queued",
        "reason": known.reason if known is not None else "",
        "tries": known.tries if known is not None else 0,
        "parts": [part.state or "queued" for part in known.parts] if known is not None else [],
    }
    return shown if known is None or not unmask else {**shown, "to": structs.asdict(known)["to"]}
