"""Times of the day: quiet hours, and the window of reminders. Pure."""

from __future__ import annotations

import re
from datetime import date, datetime, time
from typing import NamedTuple
from zoneinfo import ZoneInfo


def parse_time(text: str) -> time:
    """ "HH:MM" as a time of the day. Raises ValueError."""
    if not re.fullmatch("[0-9]{2}:[0-9]{2}", text):
        raise ValueError(f"{text!r} is no time of the day: HH:MM")
    return time(int(text[:2]), int(text[3:]))


def at(day: date, hour: time, zone: ZoneInfo) -> int:
    """A time of a local day, Unix time."""
    return int(datetime.combine(day, hour, zone).timestamp())


class Hours(NamedTuple):
    """From a time of the day until another, which may be that of the next day; none where they are the same."""

    begin: time
    end: time

    def contain_any(self, first: time, last: time) -> bool:
        """Whether some moment from `first` to `last`, of the same day, is within."""
        return self.contain(first) or (self.begin != self.end and first <= self.begin < last)

    def contain(self, now: time) -> bool:
        """Whether a time of the day is within."""
        if self.begin <= self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end

    def seconds(self) -> int:
        """How long they are, where clocks do not change."""
        minutes = 60 * (self.end.hour - self.begin.hour) + self.end.minute - self.begin.minute
        return minutes % (24 * 60) * 60
