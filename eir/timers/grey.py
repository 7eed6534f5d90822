"""When temporary access ends: calendar days of a country, pure.

Temporary access lasts until the end of the day, local time, that lies so many calendar days after the day of the first
attach. The data plane only compares, so deadlines are handed to it in advance, as the steps of `schedule`. Called by
`app`; it has no clock and touches nothing.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

AHEAD_DAYS = 40
"""Days that a schedule reaches into the future: what is lost if nobody renews it is the calendar's odd hours."""


def deadline(start: int, days: int, zone: ZoneInfo) -> int:
    """The first second without access, for a timer that starts at `start` and lasts `days` calendar days.

    Both are seconds since 1970. A start on 1 May with 30 days has access up to and including 31 May, local time.
    """
    first_day = datetime.fromtimestamp(start, zone).date()
    return _midnight(first_day + timedelta(days=days + 1), zone)


def schedule(now: int, days: int, zone: ZoneInfo) -> list[tuple[int, int]]:
    """(first second, deadline) for the starts of every local day from yesterday to `AHEAD_DAYS` ahead."""
    today = datetime.fromtimestamp(now, zone).date()
    starts = (_midnight(today + timedelta(days=ahead), zone) for ahead in range(-1, AHEAD_DAYS + 1))
    return [(start, deadline(start, days, zone)) for start in starts]


def _midnight(day: date, zone: ZoneInfo) -> int:
    """The first second of a local day, also where clocks jump over midnight."""
    local = datetime.combine(day, time(), zone)
    # A midnight that does not exist, or exists twice, is mapped by its offset before the change: there and back is the
    # first second that does.
    return int(local.astimezone(UTC).timestamp())
