"""The guard: which lists are not taken without somebody having looked at them.

Pure: what is known of the lists comes in, objections go out. Called by `apply` before anything of a package is in
force. A signature, a checksum or a sequence that is wrong is not for the guard: such a package is never taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_DAY = 86_400
GUARDED = ("white", "black")
"""Lists whose size is watched; a grey list comes and goes by days."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may change at once.

    `shrink` and `grow` are shares of a list's devices; fewer than `ignored` devices may come or go whatever the share.
    `turned_black`: devices in use that may become black. `bad_rows`: the share of wrong rows.
    """

    shrink: float
    grow: float
    ignored: int
    turned_black: int
    bad_rows: float


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a package would do. `before` (None without lists) and `after` are devices on each list; `ahead`: seconds by
    which it says that it is of a later time than the node's clock; `miscounted`: how what is in it differs from what it
    says that there is, empty where it does not."""

    before: Mapping[str, int] | None
    after: Mapping[str, int]
    rows: int
    wrong_rows: int
    turned_black: int = 0
    ahead: int = 0
    miscounted: str = ""


def objections(prospect: Prospect, limits: Limits) -> list[str]:
    """Why somebody should look at it first, in words for people; none where it may be taken as it is."""
    return list(_objections(prospect, limits))


def _objections(prospect: Prospect, limits: Limits) -> Iterator[str]:
    if prospect.wrong_rows > limits.bad_rows * prospect.rows:
        yield f"{prospect.wrong_rows} of {prospect.rows} rows are wrong"
    if prospect.miscounted:
        yield f"there are {prospect.miscounted}"
    if prospect.before is not None:
        if sum(prospect.before.values()) and not sum(prospect.after.values()):
            yield f"there is no device in it, and {sum(prospect.before.values())} are in the lists in force"
        for name in GUARDED:
            yield from _change(name, prospect.before.get(name, 0), prospect.after.get(name, 0), limits)
    if prospect.ahead > _DAY:
        # A clock so far behind starts no timers, and lists so far ahead never grow old.
        yield f"it says that it is of {prospect.ahead // 3600} hours ahead of this node's clock"
    if prospect.turned_black > limits.turned_black:
        yield f"{prospect.turned_black} devices in use would turn black, where {limits.turned_black} may"


def _change(name: str, before: int, after: int, limits: Limits) -> Iterator[str]:
    if abs(after - before) <= limits.ignored:
        return
    if after < before * (1 - limits.shrink):
        yield f"the {name} list would shrink from {before} to {after} devices"
    elif before and after > before * (1 + limits.grow):
        yield f"the {name} list would grow from {before} to {after} devices"
