"""The rules of grey timers: events in, a device's state and its deadline out, pure.

A `Device` is what is known of one IMEI: the starts that were seen, what ended its last timer, agents' acts, the
national database's word, the subscribers seen in it. `apply` puts one event into it. Events may come in any order and
any number of times, from several nodes: the same events give the same device, as long as all of them together are
within the caps `MOST_*`. `timer` then says since when it has temporary access and until when: the deadline is a
function of start, country and ordered adjustments, and is never stored as a truth of its own. Called by `projection`,
`sweep` and `desk`; it has no clock and touches nothing.

Why order does not matter: every part of a device is a set, or a greatest element, and an end only takes away what is
older than itself, by the same measure that decides which element is the greatest.

Times are seconds since 1970, spans are calendar days of the country's time zone.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import chain, pairwise
from typing import Final, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from msgspec import Struct, structs

AHEAD_DAYS: Final = 40
"""Days that a schedule reaches into the future: what is lost if nobody renews it is the calendar's odd hours."""
NEVER: Final = 0xFFFF_FFFF
"""The deadline of what does not run out, as the data plane has it: frozen and lifted timers."""
MOST_STARTS: Final = 16
MOST_SUBSCRIBERS: Final = 32
"""Subscribers that a timer knows; a device that sees more is a SIM box, and its record must not grow without end."""
MOST_ACTS: Final = 64
_MOST_DAYS: Final = NEVER // 86400

ActKind = Literal["freeze", "unfreeze", "extend", "lift"]
EndReason = Literal["verified", "blacklisted", "replaced", ""]
State = Literal["running", "frozen", "lifted", "expired"]


class Act(Struct, frozen=True, array_like=True, order=True, gc=False):
    """What an agent did to one timer. Acts count in the order of `at`, then of `id`, which is the same everywhere.

    So of two acts of one second, the id of the later must be the greater, as a string.
    """

    at: int
    id: str
    kind: ActKind
    days: int
    agent: str
    reason: str


class Shift(Struct, frozen=True, array_like=True, order=True, gc=False):
    """Moves all deadlines from `first` to `last`, inclusive, by some days: an amnesty.

    It counts for timers that had started by `at`, and in the order of `at` among a timer's acts. One record for all
    timers, so it holds for all or none, and taking it back is taking the record away.
    """

    at: int
    id: str
    first: int
    last: int
    days: int
    agent: str
    reason: str


class End(Struct, frozen=True, array_like=True, order=True, gc=False):
    """What ended a device's last timer: of starts, those before `at` are over. `why` goes with `at`.

    `sequence` is the lists' that said so; in a device the highest of all ends, which need not be that of the last one.
    """

    at: int = 0
    why: EndReason = ""
    sequence: int = 0


class National(Struct, frozen=True, array_like=True, order=True, gc=False):
    """The national database's word on a timer, as of a sequence of its lists; it replaces what was worked out here."""

    sequence: int
    start: int
    deadline: int


class Expiry(Struct, frozen=True, array_like=True, order=True, gc=False):
    """That the sweep has noticed, at `at`, that this deadline has passed.

    No end takes it away: the deadlines of later timers are later. So a notice is never lost, and never made twice.
    """

    deadline: int = 0
    at: int = 0


class Seen(Struct, frozen=True, array_like=True, order=True, gc=False):
    """A subscriber in the device, when it was last told of, and the last number that a request had for it.

    `age` is how many seconds before `at` the number was told: with it, an end can tell what is older than itself.
    """

    imsi: str
    at: int
    msisdn: str = ""
    age: int = 0


class Device(Struct, frozen=True, array_like=True, gc=False):
    """Everything known of one IMEI (14 digits as a number). All collections are sorted, without repetition."""

    imei: int
    starts: tuple[int, ...] = ()
    end: End = End()
    acts: tuple[Act, ...] = ()
    national: National | None = None
    expiry: Expiry = Expiry()
    seen: tuple[Seen, ...] = ()


class Started(Struct, frozen=True, gc=False):
    """A first attach, or a further subscriber (`first` False), recorded by a node."""

    imei: int
    at: int
    imsi: str | None = None
    msisdn: str | None = None
    first: bool = True


class Attempted(Struct, frozen=True, gc=False):
    """A blacklisted device tried to register."""

    imei: int
    at: int
    imsi: str | None = None
    msisdn: str | None = None
    rule: str = ""


class Acted(Struct, frozen=True, gc=False):
    """An agent's act."""

    imei: int
    act: Act


class Ended(Struct, frozen=True, gc=False):
    """A list, or a replacement, ended the timer."""

    imei: int
    end: End


class Timed(Struct, frozen=True, gc=False):
    """The national database said how long."""

    imei: int
    national: National


class Expired(Struct, frozen=True, gc=False):
    """A node's sweep noticed that the deadline has passed."""

    imei: int
    expiry: Expiry


class Inherited(Struct, frozen=True, gc=False):
    """The device got the IMEI `imei` in place of another, and brings along what was known under that.

    It is the device as the event has it that counts, whatever is learnt of the other IMEI later, so its own end is not
    asked any more. An end of `imei` takes away what came from the other IMEI like its own.
    """

    imei: int
    device: Device


Event: TypeAlias = Started | Attempted | Acted | Ended | Timed | Expired | Inherited


class Timer(NamedTuple):
    """A device's temporary access: since when, until when (the first second without; None: no end), how it stands."""

    start: int
    deadline: int | None
    state: State


class Rules:
    """A country's calendar, with the shifts in force. Immutable; made anew when one of them changes."""

    def __init__(self, days: int, zone: ZoneInfo, shifts: tuple[Shift, ...] = ()) -> None:
        self.days = days
        self.zone = zone
        self.shifts = tuple(sorted(shifts))
        self._deadlines: dict[date, int] = {}
        self._fingerprints: dict[int, tuple[int, ...]] = {}

    def with_shifts(self, shifts: tuple[Shift, ...]) -> Rules:
        """The same country with other shifts."""
        return Rules(self.days, self.zone, shifts)

    def deadline(self, start: int) -> int:
        """The deadline of a timer that nobody has touched."""
        day = datetime.fromtimestamp(start, self.zone).date()
        known = self._deadlines.get(day)
        if known is None:
            if len(self._deadlines) > 4096:
                self._deadlines.clear()
            known = self._deadlines[day] = deadline(start, self.days, self.zone)
        return known

    def fingerprint(self, now: int) -> tuple[int, ...]:
        """Changes when deadlines do: with the number of days, with the zone or with its rules.

        It is made of where all local days begin, from a year before this decade to two years after it: the first of
        them, and those with more or fewer than 24 hours. Deadlines follow from that alone. It takes milliseconds the
        first time, and is the same for the whole decade, so that what is made anew when it differs is not when only
        time goes by.
        """
        decade = datetime.fromtimestamp(now, self.zone).year // 10 * 10
        if (known := self._fingerprints.get(decade)) is not None:
            return known
        first, last = date(decade - 1, 1, 1), date(decade + 12, 1, 1)
        begins = [_midnight(first + timedelta(days=day), self.zone) for day in range((last - first).days)]
        odd = [(one, following) for one, following in pairwise(begins) if following - one != 86400]
        known = self._fingerprints[decade] = (self.days, begins[0], *chain.from_iterable(odd))
        return known


def apply(device: Device, event: Event) -> Device:
    """The device with the event put in; the same object where it says nothing new."""
    match event:
        case Started():
            return _started(device, event)
        case Expired(expiry=expiry):
            return device if expiry <= device.expiry else structs.replace(device, expiry=expiry)
        case Acted(act=act):
            if act.at < device.end.at or act in device.acts or len(device.acts) >= MOST_ACTS:
                return device
            return structs.replace(device, acts=tuple(sorted((*device.acts, act))))
        case Ended(end=end):
            known = device.end
            last = max(known, end)
            end = End(last.at, last.why, max(known.sequence, end.sequence))
            return device if end == known else _ended(structs.replace(device, end=end))
        case Timed(national=national):
            if national.sequence <= device.end.sequence:
                return device
            if device.national is not None and national <= device.national:
                return device
            return structs.replace(device, national=national)
        case Inherited(device=other):
            return _inherited(device, other)
        case Attempted():
            return device


def _started(device: Device, event: Started) -> Device:
    if event.at < device.end.at:
        return device
    starts, seen = device.starts, device.seen
    if event.first:
        starts = _first(starts, event.at)
    if event.imsi is not None:
        seen = _seen(seen, Seen(event.imsi, event.at, event.msisdn or ""))
    if starts is device.starts and seen is device.seen:
        return device
    return structs.replace(device, starts=starts, seen=seen)


def _first(starts: tuple[int, ...], at: int) -> tuple[int, ...]:
    """The earliest starts with one more. All are kept, not their minimum: an end that is told of late divides them."""
    if at in starts or (len(starts) >= MOST_STARTS and at > starts[-1]):
        return starts
    return tuple(sorted((*starts, at)))[:MOST_STARTS]


def _seen(seen: tuple[Seen, ...], new: Seen) -> tuple[Seen, ...]:
    for number, old in enumerate(seen):
        if old.imsi == new.imsi:
            at = max(old.at, new.at)
            numbers = [(one.at - one.age, one.msisdn) for one in (old, new) if one.msisdn]
            told, msisdn = max(numbers, default=(at, ""))
            merged = Seen(new.imsi, at, msisdn, at - told)
            return seen if merged == old else (*seen[:number], merged, *seen[number + 1 :])
    return seen if len(seen) >= MOST_SUBSCRIBERS else tuple(sorted((*seen, new)))


def _ended(device: Device) -> Device:
    """Without what the end put an end to."""
    at = device.end.at
    national = device.national
    return structs.replace(
        device,
        starts=tuple(start for start in device.starts if start >= at),
        acts=tuple(act for act in device.acts if act.at >= at),
        national=None if national is not None and national.sequence <= device.end.sequence else national,
        seen=tuple(
            seen if seen.at - seen.age >= at else Seen(seen.imsi, seen.at) for seen in device.seen if seen.at >= at
        ),
    )


def _inherited(device: Device, other: Device) -> Device:
    starts, seen, national = device.starts, device.seen, device.national
    for start in other.starts:
        starts = _first(starts, start)
    for subscriber in other.seen:
        seen = _seen(seen, subscriber)
    if other.national is not None and (national is None or other.national > national):
        national = other.national
    merged = structs.replace(
        device,
        starts=starts,
        acts=tuple(sorted({*device.acts, *other.acts}))[:MOST_ACTS],
        national=national,
        expiry=max(device.expiry, other.expiry),
        seen=seen,
    )
    merged = _ended(merged)
    return device if merged == device else merged


def timer(device: Device, rules: Rules) -> Timer | None:
    """The device's timer; None where it has none."""
    national = device.national
    if device.starts:
        start = device.starts[0] if national is None else min(device.starts[0], national.start)
    elif national is not None:
        start = national.start
    else:
        return None
    until = rules.deadline(start) if national is None else min(max(national.deadline, 1), NEVER - 1)
    frozen: int | None = None
    lifted = False
    adjustments: tuple[Act | Shift, ...] = device.acts or rules.shifts
    if device.acts and rules.shifts:
        adjustments = tuple(sorted((*device.acts, *rules.shifts), key=lambda one: (one.at, one.id)))
    for one in adjustments:
        if one.at < start:
            # Of the timer before, whose end was told of late; or an amnesty for those who had started by then.
            continue
        if isinstance(one, Shift):
            if not lifted and one.first <= until <= one.last:
                until = _moved(until, one.days, rules.zone)
        elif one.kind == "freeze":
            frozen = one.at if frozen is None else frozen
        elif one.kind == "unfreeze" and frozen is not None:
            until = _moved(until, _days_between(frozen, one.at, rules.zone), rules.zone)
            frozen = None
        elif one.kind == "extend":
            # What has run out, also while it was lifted, is given days from the day of the act on. A frozen timer does
            # not run out: it stands at the day when it was frozen, and the days since then come with `unfreeze`.
            lifted = False
            today = one.at if frozen is None else frozen
            until = _moved(max(until, _end_of_day(today, rules.zone)), one.days, rules.zone)
        elif one.kind == "lift":
            lifted = True
    if lifted:
        return Timer(start, None, "lifted")
    if frozen is not None:
        return Timer(start, None, "frozen")
    return Timer(start, until, "expired" if until <= device.expiry.deadline else "running")


def deadline(start: int, days: int, zone: ZoneInfo) -> int:
    """The first second without access, for a timer that starts at `start` and lasts `days` calendar days.

    A start on 1 May with 30 days has access up to and including 31 May, local time.
    """
    first_day = datetime.fromtimestamp(start, zone).date()
    return _midnight(first_day + timedelta(days=days + 1), zone)


def schedule(now: int, days: int, zone: ZoneInfo) -> list[tuple[int, int]]:
    """(first second, deadline) for the starts of every local day from yesterday to `AHEAD_DAYS` ahead."""
    today = datetime.fromtimestamp(now, zone).date()
    starts = (_midnight(today + timedelta(days=ahead), zone) for ahead in range(-1, AHEAD_DAYS + 1))
    return [(start, deadline(start, days, zone)) for start in starts]


def day_bounds(first: date, last: date, zone: ZoneInfo) -> tuple[int, int]:
    """The earliest and the latest deadline with a last day of access from `first` to `last`, inclusive."""
    return _midnight(first, zone) + 1, _midnight(last + timedelta(days=1), zone)


def last_day(until: int, zone: ZoneInfo) -> date:
    """The last local day with access, for a deadline: the date that people are told."""
    return datetime.fromtimestamp(until - 1, zone).date()


def _moved(until: int, days: int, zone: ZoneInfo) -> int:
    """The same local time some calendar days later; from where a day begins, to where one begins."""
    local = _local(until, zone)
    # More days than there are in the range of times are as good as that many.
    later = timedelta(days=min(max(days, -_MOST_DAYS), _MOST_DAYS))
    if until == _midnight(local.date(), zone):
        moved = _midnight(local.date() + later, zone)
    else:
        moved = int((local.replace(fold=0) + later).astimezone(UTC).timestamp())
    return min(max(moved, 1), NEVER - 1)


def _days_between(first: int, last: int, zone: ZoneInfo) -> int:
    return (_local(last, zone).date() - _local(first, zone).date()).days


def _end_of_day(at: int, zone: ZoneInfo) -> int:
    return _midnight(_local(at, zone).date() + timedelta(days=1), zone)


def _local(at: int, zone: ZoneInfo) -> datetime:
    """Local time, of what was typed or received too: none is too large for it."""
    return datetime.fromtimestamp(min(max(at, 0), NEVER), zone)


def _midnight(day: date, zone: ZoneInfo) -> int:
    """The first second of a local day, also where clocks jump over midnight."""
    local = datetime.combine(day, time(), zone)
    # A midnight that does not exist, or exists twice, is mapped by its offset before the change: there and back is the
    # first second that does.
    return int(local.astimezone(UTC).timestamp())
