"""The desk: what people ask about timers, and what they do to them.

Every act is a line of the audit trail first, with who and why; the store and the memories of all nodes follow. Called
by `app` for the commands of the local socket: takes and gives plain values. Raises ValueError for what cannot be done,
in words for the person who asked. Subscribers are shown masked unless told otherwise.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Final

from eir import _core
from eir.subscribers.directory import Directory, DirectoryError, Subscriber, mask
from eir.timers import grey, projection
from eir.timers.grey import NEVER, Act, Device, Rules, Shift, Timer
from eir.timers.keeper import Keeper
from eir.timers.store import Stored, StoreError, pages

_MOST_DAYS: Final = 3650
_MOST_DEVICES: Final = 1000
"""Devices of one question, and of one audit line."""
_PAGE: Final = 4000
_MOST_SKEW: Final = 3600
"""Seconds that another node's clock may be ahead."""
_PATIENCE: Final = 10.0
"""Seconds that an answer waits for what was recorded to be in the store."""
_ACTS: Final = ("freeze", "unfreeze", "extend", "lift")

Ask = Mapping[str, Any]


class Desk:
    """The desk of one node."""

    def __init__(self, node: _core.Node, keeper: Keeper, directory: Directory) -> None:
        self._node = node
        self._keeper = keeper
        self._directory = directory

    # Questions.

    async def page(self, ask: Ask) -> dict[str, Any]:
        """Timers: `state` (or all), `first` and `last` day of access (ISO dates, or none), `after` a page, `most`."""
        zone = self._keeper.rules.zone
        state, most = ask.get("state"), min(int(ask.get("most", 100)), _PAGE)
        after = bytes.fromhex(ask["after"]) if ask.get("after") else None
        bounds: tuple[int, ...] = ()
        if ask.get("first") or ask.get("last"):
            first, last = _day(ask.get("first") or "1971-01-01"), _day(ask.get("last") or "2105-12-31")
            bounds = grey.day_bounds(first, last, zone)
        rows: list[dict[str, Any]] = []
        while True:
            # Of a state that few are in, many must be looked at.
            page = await self._keeper.store.scan(after, most if state is None else _PAGE, *bounds)
            for device, _ in page.devices:
                timer = grey.timer(device, self._keeper.rules)
                if timer is not None and state in (None, self._state(timer)):
                    rows.append({"imei": f"{device.imei:014}", **self._timer(timer), "subscribers": len(device.seen)})
            after = page.next
            if after is None or len(rows) >= most:
                return {"timers": rows, "next": after.hex() if after is not None else None}

    async def show(self, ask: Ask) -> dict[str, Any]:
        """One device as the store has it."""
        imei = _imei(ask["imei"])
        stored = (await self._keeper.store.load([imei])).get(imei)
        if stored is None:
            raise ValueError("the store knows nothing of this device")
        return await self._device(stored.device, unmask=bool(ask.get("unmask")))

    async def why(self, ask: Ask) -> dict[str, Any]:
        """Everything that bears on what a device is answered: verdict, lists, timer and its history, last answers."""
        imei, now, unmask = _imei(ask["imei"]), int(time.time()), bool(ask.get("unmask"))
        position = self._node.lists_position()
        told: dict[str, Any] = {
            "imei": f"{imei:014}",
            "now": now,
            "verdict": self._node.explain(f"{imei:014}", ask.get("imsi"), now),
            "lists": position and {"sequence": position["sequence"], "created_at": position["as_of"]},
            "device": None,
            "store_error": None,
            "last_seen": self._node.last_seen(imei),
            "answers": [
                {"at": at, "imsi": imsi if unmask or imsi is None else mask(imsi), "status": status, "rule": rule}
                for at, imsi, status, rule in self._node.recent(imei)
            ],
        }
        try:
            stored = (await self._keeper.store.load([imei])).get(imei)
            if stored is not None:
                told["device"] = await self._device(stored.device, unmask)
        except StoreError as error:
            told["store_error"] = str(error)
        return told

    async def shifts(self, _: Ask) -> list[dict[str, Any]]:
        """The shifts in force, and whether every deadline is as they say."""
        applied = self._keeper.state.audit_position
        own = self._keeper.name
        shifts = (await self._keeper.store.shifts())[1]
        return [{**self._shift(shift), "applied": _applied(shift, own, applied)} for shift in shifts]

    # Acts.

    async def act(self, ask: Ask) -> dict[str, Any]:
        """Freezes, unfreezes, extends (by `days`) or lifts timers of `imeis`; `dry_run`: only says what would be."""
        kind, agent, reason = ask["act"], *_signed(ask)
        if kind not in _ACTS:
            raise ValueError(f"{kind!r} is no act")
        days = _days(ask, least=1) if kind == "extend" else 0
        imeis = list(dict.fromkeys(_imei(text) for text in ask["imeis"]))
        if not 0 < len(imeis) <= _MOST_DEVICES:
            raise ValueError(f"1 to {_MOST_DEVICES} devices at a time")
        now = int(time.time())
        try:
            stored = await self._keeper.store.load(imeis)
        except StoreError as error:
            if ask.get("dry_run"):
                raise ValueError(f"the store cannot be asked: {error}") from error
            return await self._recorded(
                [
                    {
                        "kind": kind,
                        "imeis": [f"{imei:014}" for imei in imeis],
                        "days": days,
                        "agent": agent,
                        "reason": reason,
                    }
                ]
            )
        # Behind everything that the timers have seen so far, also by the clocks of other nodes.
        at = max(now, 0, *(_last_moment(one.device) + 1 for one in stored.values()))
        if at > now + _MOST_SKEW:
            raise ValueError("another node's clock is, or was, more than an hour ahead of this one's")
        act = Act(at, "~", kind, days, agent, reason)
        timers, without = [], []
        for imei in imeis:
            before, after = self._before_and_after(stored.get(imei), act)
            if before is None or (kind == "freeze" and self._state(before) == "expired"):
                # The clock of one that has run out cannot be stopped: that would give it access without end.
                without.append(f"{imei:014}")
            else:
                timers.append({"imei": f"{imei:014}", "before": self._timer(before), "after": self._timer(after)})
        told = {"timers": timers, "without": without}
        if ask.get("dry_run") or not timers:
            return {**told, "recorded": False}
        touched = [row["imei"] for row in timers]
        entry = {"kind": kind, "imeis": touched, "days": days, "agent": agent, "reason": reason}
        return {**told, **await self._recorded([entry], at)}

    async def replace(self, ask: Ask) -> dict[str, Any]:
        """Carries the timer of IMEI `old` over to `new`: a service centre has changed the device's IMEI."""
        old, new = _imei(ask["old"]), _imei(ask["new"])
        agent, reason = _signed(ask)
        if old == new:
            raise ValueError("the two are the same")
        stored = (await self._keeper.store.load([old])).get(old)
        if stored is None or grey.timer(stored.device, self._keeper.rules) is None:
            raise ValueError("the old IMEI has no timer; lists carry over by themselves")
        entry = {
            "kind": "replaced",
            "old": f"{old:014}",
            "new": f"{new:014}",
            "device": projection.carried_over(stored.device),
        }
        at = max(int(time.time()), _last_moment(stored.device) + 1)
        return await self._recorded([{**entry, "agent": agent, "reason": reason}], at)

    async def shift(self, ask: Ask) -> dict[str, Any]:
        """Moves the deadlines of timers whose last day of access is from `first` to `last` by `days`."""
        agent, reason = _signed(ask)
        days = _days(ask, least=-_MOST_DAYS)
        if not days:
            raise ValueError("0 days move nothing")
        first, last = grey.day_bounds(_day(ask["first"]), _day(ask["last"]), self._keeper.rules.zone)
        if first > last:
            raise ValueError("the first day is behind the last")
        at = int(time.time())
        shift = Shift(at, "~", first, last, days, agent, reason)
        rules = self._keeper.rules
        if ask.get("dry_run"):
            return await self._preview(rules.with_shifts((*rules.shifts, shift)), first, last)
        entry = {"kind": "shift", "first": first, "last": last, "days": days, "agent": agent, "reason": reason}
        return await self._recorded([entry])

    async def unshift(self, ask: Ask) -> dict[str, Any]:
        """Takes a shift back: every deadline is what it would be without it."""
        agent, reason = _signed(ask)
        rules = self._keeper.rules.with_shifts((await self._keeper.store.shifts())[1])
        kept = tuple(shift for shift in rules.shifts if shift.id != ask["id"])
        if len(kept) == len(rules.shifts):
            raise ValueError(f"no shift {ask['id']} is in force")
        if ask.get("dry_run"):
            return await self._preview(rules.with_shifts(kept), 0, NEVER)
        return await self._recorded([{"kind": "unshift", "shift": ask["id"], "agent": agent, "reason": reason}])

    async def _preview(self, rules: Rules, first: int, last: int) -> dict[str, Any]:
        """Counts what other rules would do to the timers with a deadline in a range, or to all."""
        now, counts = int(time.time()), Counter[str]()
        samples: list[dict[str, Any]] = []
        async for devices in pages(self._keeper.store, _PAGE, first, last):
            for device, _ in devices:
                before, then = grey.timer(device, self._keeper.rules), grey.timer(device, rules)
                if before is None or then is None or before == then:
                    continue
                counts["moved"] += 1
                was_over, is_over = (until is not None and until <= now for until in (before.deadline, then.deadline))
                counts["would_expire"] += is_over and not was_over
                counts["would_return"] += was_over and not is_over
                if len(samples) < 10:
                    row = {"imei": f"{device.imei:014}", "before": self._timer(before), "after": self._timer(then)}
                    samples.append(row)
        names = ("moved", "would_expire", "would_return")
        return {"recorded": False, **{name: counts[name] for name in names}, "samples": samples}

    async def _recorded(self, entries: Sequence[Mapping[str, Any]], at: int | None = None) -> dict[str, Any]:
        """Puts acts on record; they hold from then on, and are in force once the store has them."""
        line = await self._keeper.record(entries, at)
        up = self._keeper.state.store_up
        in_force = up and await self._keeper.projected(line, _PATIENCE)
        return {"recorded": True, "line": line, "in_force": in_force}

    # How things are shown.

    def _before_and_after(self, stored: Stored | None, act: Act) -> tuple[Timer | None, Timer | None]:
        if stored is None:
            return None, None
        rules = self._keeper.rules
        after = grey.apply(stored.device, grey.Acted(stored.device.imei, act))
        if after is stored.device:
            raise ValueError(f"{stored.device.imei:014} has had as many acts as a timer may have")
        return grey.timer(stored.device, rules), grey.timer(after, rules)

    def _state(self, timer: Timer) -> str:
        """The state for people: a deadline that has passed has passed, noted by the sweep or not."""
        over = timer.deadline is not None and timer.deadline <= time.time()
        return "expired" if over else "running" if timer.state == "expired" else timer.state

    def _timer(self, timer: Timer | None) -> dict[str, Any]:
        if timer is None:
            return {}
        until = timer.deadline
        day = None if until is None else grey.last_day(until, self._keeper.rules.zone).isoformat()
        return {"state": self._state(timer), "start": timer.start, "deadline": until, "last_day": day}

    def _shift(self, shift: Shift) -> dict[str, Any]:
        zone = self._keeper.rules.zone
        return {
            "id": shift.id,
            "at": shift.at,
            "first": grey.last_day(shift.first, zone).isoformat(),
            "last": grey.last_day(shift.last, zone).isoformat(),
            "days": shift.days,
            "agent": shift.agent,
            "reason": shift.reason,
        }

    async def _device(self, device: Device, unmask: bool) -> dict[str, Any]:
        rules = self._keeper.rules
        timer = grey.timer(device, rules)
        in_force = () if timer is None else _that_count(device, timer, rules)
        known, trouble = await self._who([seen.imsi for seen in device.seen])
        return {
            "imei": f"{device.imei:014}",
            "timer": None if timer is None else self._timer(timer),
            "starts": list(device.starts),
            "acts": [
                {"at": a.at, "act": a.kind, "days": a.days, "agent": a.agent, "reason": a.reason} for a in device.acts
            ],
            "shifts": [self._shift(shift) for shift in in_force],
            "national": device.national
            and {"sequence": device.national.sequence, "deadline": device.national.deadline},
            "expiry_noted_at": device.expiry.at or None,
            "last_end": {"at": device.end.at, "why": device.end.why} if device.end.why else None,
            "subscribers": [_subscriber(seen, known.get(seen.imsi), unmask) for seen in device.seen],
            "subscribers_error": trouble,
        }

    async def _who(self, imsis: Iterable[str]) -> tuple[Mapping[str, Subscriber], str | None]:
        try:
            return await self._directory.find(list(imsis)), None
        except DirectoryError as error:
            return {}, str(error)


def _subscriber(seen: grey.Seen, known: Subscriber | None, unmask: bool) -> dict[str, Any]:
    msisdn = seen.msisdn or (known.msisdn if known is not None else None) or None
    return {
        "imsi": seen.imsi if unmask else mask(seen.imsi),
        "msisdn": msisdn if unmask or msisdn is None else mask(msisdn),
        "language": known.language if known is not None else None,
        "at": seen.at,
    }


def _that_count(device: Device, timer: Timer, rules: Rules) -> tuple[Shift, ...]:
    """The shifts without which the deadline would be another."""
    return tuple(
        shift
        for shift in rules.shifts
        if grey.timer(device, rules.with_shifts(tuple(one for one in rules.shifts if one != shift))) != timer
    )


def _applied(shift: Shift, own: str, position: int) -> bool | None:
    """Whether the deadlines are as a shift says; None for another node's, which knows."""
    node, _, line = shift.id.rpartition(":")
    return int(line) <= position if node == own else None


def _last_moment(device: Device) -> int:
    return max((device.end.at, *device.starts, *(act.at for act in device.acts)))


def _imei(text: str) -> int:
    return int(_core.imei_key(text))


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no day: YYYY-MM-DD") from None


def _days(ask: Ask, least: int) -> int:
    days = ask["days"]
    if not isinstance(days, int) or not least <= days <= _MOST_DAYS:
        raise ValueError(f"days: {least} to {_MOST_DAYS}")
    return days


def _signed(ask: Ask) -> tuple[str, str]:
    """Who acts, and why: nothing is done without."""
    signed = []
    for name, most in (("agent", 64), ("reason", 200)):
        text = str(ask.get(name) or "").strip()
        if not text or len(text) > most or not text.isprintable():
            raise ValueError(f"{name}: 1 to {most} printable characters")
        signed.append(text)
    return signed[0], signed[1]
