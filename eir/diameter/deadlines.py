"""Which of many deadlines is the next: a heap of those who have one, which may change at any time.

Used by `peers`, so that one timer of the event loop does for all peers, and a deadline that moves costs no search.
It has no clock and calls nobody.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """Something that has to be seen to at some time. Told apart by identity."""

    def timer(self) -> float | None:
        """When; None: not at all."""


_T = TypeVar("_T", bound=Timed)

_SPARE = 64


class Deadlines(Generic[_T]):
    """The deadlines of everything that is watched. What was said of one is old once it is said anew: it stays in the
    heap, and is dropped when its turn comes or when such entries are more than half."""

    __slots__ = ("_at", "_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _T]] = []
        self._at: dict[_T, float] = {}
        self._order = count()

    def watch(self, timed: _T) -> None:
        """Notes when it is due now."""
        at = timed.timer()
        if at is None:
            self._at.pop(timed, None)
        elif self._at.get(timed) != at:
            self._at[timed] = at
            heapq.heappush(self._heap, (at, next(self._order), timed))
            if len(self._heap) > 2 * len(self._at) + _SPARE:
                self._heap = [(at, next(self._order), timed) for timed, at in self._at.items()]
                heapq.heapify(self._heap)

    def forget(self, timed: _T) -> None:
        """It is gone."""
        self._at.pop(timed, None)

    def first(self) -> float | None:
        """The next deadline of all."""
        while self._heap and self._is_old(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> Iterator[_T]:
        """Those that are due, one after the other; whether it is due again is for `watch` to be told meanwhile.

        Ends even where that is always at once.
        """
        for _ in range(len(self._at)):
            at = self.first()
            if at is None or at > now:
                return
            _, _, timed = heapq.heappop(self._heap)
            del self._at[timed]
            yield timed

    def _is_old(self, entry: tuple[float, int, _T]) -> bool:
        at, _, timed = entry
        return self._at.get(timed) != at
