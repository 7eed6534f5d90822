"""From what nodes have recorded to what the store must change: pure.

Journal records and audit lines become events; events and the devices that the store has become changes, with the
messages that follow. Called by `keeper`, which does the reading and writing. Events that the store has had change
nothing, so a journal may be offered again from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Struct

from eir.timers import grey
from eir.timers.grey import (
    Act,
    Acted,
    Attempted,
    Device,
    End,
    Ended,
    Event,
    Expired,
    Expiry,
    Inherited,
    National,
    Rules,
    Seen,
    Shift,
    Started,
    Timed,
)
from eir.timers.store import Change, Memory, Message, MessageKey, Stored, memory

ATTEMPT_APART: Final = 24 * 3600
"""Seconds that must lie between two messages about black attempts of a device with a subscriber."""


class Recorded(NamedTuple):
    """An event, and the deadline that the node which recorded it has in memory for a timer that it started."""

    event: Event
    deadline: int | None = None


class ShiftSet(Struct, frozen=True, gc=False):
    """An amnesty comes into force."""

    shift: Shift


class ShiftRemoved(Struct, frozen=True, gc=False):
    """An amnesty is taken back."""

    id: str


class _DeviceLine(Struct, frozen=True, gc=False):
    """What is carried over to the IMEI that replaces another, as it stands in the audit trail: without subscribers."""

    starts: tuple[int, ...]
    acts: tuple[Act, ...]
    national: National | None
    expiry: Expiry


def from_journal(record: Sequence[Any]) -> Recorded:
    """The event of a journal record, as `Node.read_journal` gives it."""
    match record:
        case ("start", imei, at, imsi, msisdn, deadline):
            return Recorded(Started(imei, at, imsi, msisdn), deadline)
        case ("seen", imei, at, imsi, msisdn):
            return Recorded(Started(imei, at, imsi, msisdn, first=False))
        case ("attempt", imei, at, imsi, msisdn, rule):
            return Recorded(Attempted(imei, at, imsi, msisdn, rule))
        case ("cancel", imei, at):
            # The cancel follows its start within the hold, so that start is over, and the next second's is not.
            return Recorded(Ended(imei, End(at + 1, "verified")))
    raise ValueError(f"{record[0]!r} is no journal record")


def from_audit(line: Mapping[str, Any]) -> list[Event | ShiftSet | ShiftRemoved]:
    """What a line of the audit trail changes: nothing, for many kinds. Raises ValueError where it is not understood."""
    # Of two acts of one second the later must have the greater id, as a string.
    identity = f"{line['node']}:{line['n']:012}"
    at, agent, reason = line["at"], line.get("agent", ""), line.get("reason", "")
    try:
        match line["kind"]:
            case "freeze" | "unfreeze" | "extend" | "lift" as kind:
                act = Act(at, identity, kind, line.get("days", 0), agent, reason)
                return [Acted(int(imei), act) for imei in line["imeis"]]
            case "expired":
                return [Expired(int(imei), Expiry(deadline, at)) for imei, deadline in line["devices"]]
            case "ended":
                return [Ended(int(imei), End(over, why, line["sequence"])) for imei, why, over in line["devices"]]
            case "timed":
                return [Timed(int(line["imei"]), National(line["sequence"], line["start"], line["deadline"]))]
            case "replaced":
                carried = msgspec.convert(line["device"], _DeviceLine)
                old = Device(int(line["old"]), carried.starts, End(), carried.acts, carried.national, carried.expiry)
                # With the sequence of what is known of it: what the national database has said of it is over too.
                known = carried.national.sequence if carried.national is not None else 0
                return [Inherited(int(line["new"]), old), Ended(old.imei, End(at, "replaced", known))]
            case "shift":
                first, last, days = line["first"], line["last"], line["days"]
                return [ShiftSet(Shift(at, identity, first, last, days, agent, reason))]
            case "unshift":
                return [ShiftRemoved(line["shift"])]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"line {line['n']} of the audit trail is not understood: {error!r}") from error
    return []


def carried_over(device: Device) -> Any:
    """A device as a `replaced` line of the audit trail has it: subscribers have no place there."""
    return msgspec.to_builtins(_DeviceLine(device.starts, device.acts, device.national, device.expiry))


class _Work:
    """One device while a batch of events is put into it."""

    __slots__ = ("before", "device", "ended", "known", "messages", "version", "withdrawn")

    def __init__(self, imei: int, stored: Stored | None) -> None:
        self.before = self.device = stored.device if stored is not None else Device(imei)
        self.version = stored.version if stored is not None else 0
        self.messages: dict[MessageKey, Message] = {}
        self.withdrawn: list[MessageKey] = []
        self.known: Memory | None = None
        self.ended = False


def changes(recorded: Iterable[Recorded], stored: Mapping[int, Stored], rules: Rules) -> list[Change]:
    """What the store must change for these events, given the devices it has; in order of the devices' first event."""
    works: dict[int, _Work] = {}
    for event, deadline in recorded:
        work = works.get(event.imei)
        if work is None:
            work = works[event.imei] = _Work(event.imei, stored.get(event.imei))
        if deadline is not None and isinstance(event, Started) and (work.known is None or event.at < work.known.start):
            work.known = Memory(event.imei, event.at, deadline)
        _put(work, event, rules)
    return [change for work in works.values() if (change := _change(work, rules)) is not None]


def _put(work: _Work, event: Event, rules: Rules) -> None:
    before = work.device
    work.device = after = grey.apply(before, event)
    work.ended = work.ended or isinstance(event, Ended)
    if isinstance(event, Attempted):
        if event.imsi is not None:
            number = event.msisdn or ""
            _queue(work, Message("black-attempt", event.imei, event.imsi, 0, event.at, number, ATTEMPT_APART))
    elif after is not before:
        # What must be said follows from how the device stands, not from the event: events may come in any order.
        _withdraw(work, before, after)
        timer = grey.timer(after, rules)
        if timer is not None and timer.state == "expired":
            _tell_expired(work, after)
        elif timer is not None:
            # A subscriber may have been told of before the timer was, and of a timer before there may be the same ones.
            fresh = before.end != after.end or grey.timer(before, rules) is None
            for seen in after.seen:
                if fresh or not _knows(before.seen, seen.imsi):
                    _queue(work, Message("grey-granted", after.imei, seen.imsi, after.end.at, seen.at, seen.msisdn))


def _tell_expired(work: _Work, device: Device) -> None:
    mark, at = device.end.at, device.expiry.at
    _queue(work, Message("report-expired", device.imei, "", mark, at))
    for seen in device.seen:
        _queue(work, Message("black-expired", device.imei, seen.imsi, mark, at, seen.msisdn))


def _withdraw(work: _Work, before: Device, after: Device) -> None:
    """Takes back what has not gone out to subscribers of a timer that is over."""
    if before.end == after.end:
        return
    for seen in before.seen:
        if not _knows(after.seen, seen.imsi):
            for kind in ("grey-granted", "black-expired"):
                key = (kind, before.imei, seen.imsi, before.end.at)
                if work.messages.pop(key, None) is None and work.version:
                    work.withdrawn.append(key)


def _knows(subscribers: tuple[Seen, ...], imsi: str) -> bool:
    return any(seen.imsi == imsi for seen in subscribers)


def _queue(work: _Work, message: Message) -> None:
    work.messages.setdefault(message.key, message)


def _change(work: _Work, rules: Rules) -> Change | None:
    timer = grey.timer(work.device, rules)
    wanted = memory(work.device, timer)
    had = memory(work.before, grey.timer(work.before, rules)) if work.version else Memory(work.device.imei, 0, 0)
    tell: Literal["none", "others", "all"]
    if (work.known is not None and wanted != work.known) or (work.ended and not wanted.start):
        # The node that recorded the start has something else in mind, or may have what the store has not.
        tell = "all"
    elif wanted == had:
        tell = "none"
    else:
        # Only what nobody knew before is surely in the memory of the node that recorded it still: in place of any other
        # it may have been given another node's timer meanwhile.
        tell = "others" if work.known is not None and not work.version else "all"
    if work.device is work.before and not work.messages and tell == "none":
        return None
    return Change(work.device, work.version, timer, tuple(work.messages.values()), tuple(work.withdrawn), tell)


def reindexed(devices: Iterable[Stored], old: Rules, new: Rules) -> list[Change]:
    """The changes that other rules make to devices that are otherwise as they were."""
    found = []
    for device, version in devices:
        timer = grey.timer(device, new)
        if timer != grey.timer(device, old):
            found.append(Change(device, version, timer))
    return found
