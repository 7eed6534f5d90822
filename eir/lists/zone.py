"""A country's time zone as the builders of lists are given it: every change of its clocks until 2106.

Pure, and known for each zone once it was asked for, which takes a tenth of a second.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo

_DAY = 86_400
_LAST_SECOND = 0xFFFF_FFFF
"""Of those that fit into a snapshot: in 2106."""


@cache
def transitions(zone: ZoneInfo) -> Sequence[tuple[int, int]]:
    """(first second, seconds that local time is ahead of UTC) of each change of a zone's clocks since 1970, rising; the
    first entry counts before it too."""

    def ahead(second: int) -> int:
        offset = datetime.fromtimestamp(second, zone).utcoffset()
        return 0 if offset is None else int(offset.total_seconds())

    found = [(0, ahead(0))]
    for day in range(0, _LAST_SECOND, _DAY):
        if ahead(day + _DAY) == found[-1][1]:
            continue
        # Somewhere on that day; no zone changes its clocks twice on one.
        change = bisect_left(range(day + _DAY), True, lo=day, key=lambda second: ahead(second) != found[-1][1])
        found.append((change, ahead(change)))
    return found
