"""Whether a message still has to be said, to whom, and in which words: pure.

Asked just before a message is sent, with the device as it stands then: what was queued may be true no more.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Final, NamedTuple, TypeAlias

from eir.subscribers.directory import Subscriber
from eir.timers import grey
from eir.timers.grey import Device, Rules
from eir.timers.store import Message
from sms.templates import Templates, Values

_AGAIN: Final = 3600
"""Seconds after which a number that was not known, or a timer that stood still, is looked at again."""
_BEHIND: Final = 4
"""Times that a refused device may be white here, while lists come in, before its message is given up."""
_LANGUAGES: Final = ("kk", "ru")
"""Both are said where a subscriber's language is not known, in this order."""

Verdict: TypeAlias = Callable[[int, str], str]
"""What a device with a subscriber is answered now: white, grey, black or unknown."""


class Say(NamedTuple):
    """It has to be said: texts to a number."""

    to: str
    texts: tuple[str, ...]


class Leave(NamedTuple):
    """It is not to be said any more."""

    reason: str


class Wait(NamedTuple):
    """It cannot be said yet: to be asked again in so many seconds."""

    seconds: int
    reason: str


def day_of(mark: int) -> date:
    """The local day of a reminder, whose mark is the day as YYYYMMDD. Raises ValueError."""
    return date(mark // 10_000, mark // 100 % 100, mark % 100)


def mark_of(day: date) -> int:
    """A day as the mark of its reminders."""
    return day.year * 10_000 + day.month * 100 + day.day


def wording(
    message: Message,
    device: Device | None,
    subscriber: Subscriber | None,
    verdict: Verdict,
    rules: Rules,
    templates: Templates,
    now: int,
    tries: int = 0,
) -> Say | Leave | Wait:
    """What is to be done about a message now, that has waited so many times. Stop lists, hours and caps are not its
    concern.

    A verdict that does not fit may be one of a node that is behind: only a device that is white is done with, and one
    whose attempt another node refused not at once.
    """
    if message.kind == "report-expired":
        return Leave("no-message")
    timer = None if device is None else grey.timer(device, rules)
    reason = _over(message, device, timer, rules, now)
    if message.kind != "black-attempt" and not reason and timer is not None and timer.state == "frozen":
        # It has no end that could be told, but may have one again.
        return Wait(_AGAIN, "frozen")
    if not reason:
        expected = "grey" if message.kind in ("grey-granted", "reminder") else "black"
        found = verdict(message.imei, message.imsi)
        if found == "white" and (message.kind != "black-attempt" or tries >= _BEHIND):
            reason = "is-white"
        elif found != expected:
            return Wait(min(60 << tries, _AGAIN), f"is-{found}")
    if not reason and subscriber is not None and subscriber.m2m:
        reason = "m2m"
    if reason:
        return Leave(reason)
    to = (subscriber.msisdn if subscriber is not None else None) or message.msisdn
    if not to:
        return Wait(_AGAIN, "no-number")
    iin = (subscriber.iin if subscriber is not None else None) or ""
    until = None
    if timer is not None and timer.deadline is not None:
        # The deadline is the first second without access.
        until = datetime.fromtimestamp(timer.deadline - 1, rules.zone).date()
    values = Values(imei=f"{message.imei:014}", msisdn=to, iin=iin, date=until)
    known = subscriber.language if subscriber is not None else None
    languages = (known,) if known is not None else _LANGUAGES
    return Say(to, tuple(templates.render(message.kind, language, values) for language in languages))


def _over(message: Message, device: Device | None, timer: grey.Timer | None, rules: Rules, now: int) -> str:
    """Why nobody waits for a message any more; empty: somebody does."""
    if message.kind == "black-attempt":
        return ""
    if device is None or timer is None:
        return "timer-over"
    if message.kind == "reminder":
        today = mark_of(datetime.fromtimestamp(now, rules.zone).date())
        if message.mark != today:
            return "day-over"
    elif message.mark != device.end.at:
        return "timer-over"
    expected = ("expired",) if message.kind == "black-expired" else ("running", "frozen")
    return "" if timer.state in expected else f"timer-{timer.state}"
