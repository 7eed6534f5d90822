"""How fast, and when again: the rate of a way out, and the time before something is tried once more. Pure."""

from __future__ import annotations

from random import Random


class Delay:
    """Seconds to wait, twice as many each time, with chance in them so that not all come at once."""

    def __init__(self, rng: Random, least: float, most: float) -> None:
        self._rng, self._least, self._most = rng, least, most
        self._next = least

    def next(self) -> float:
        """Seconds to wait now."""
        seconds, self._next = self._next, min(2 * self._next, self._most)
        return max(self._least, seconds * self._rng.uniform(0.5, 1.0))

    def reset(self) -> None:
        """It went well."""
        self._next = self._least


class Bucket:
    """How many short messages a rate allows now; what was saved up is a tenth of a second's, at most."""

    def __init__(self, rate: float) -> None:
        """`rate` a second; 0: no limit."""
        self._rate = rate
        self._most = max(1.0, rate / 10)
        self._tokens = self._most
        self._at = 0.0

    def delay(self, now: float) -> float:
        """Seconds until something may be taken."""
        if not self._rate:
            return 0.0
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        # A token less a rounding error is a token; else a timer could come a moment early for ever.
        return max(0.0, (1 - 1e-6 - self._tokens) / self._rate)

    def take(self, weight: int) -> None:
        """Takes it; what is heavier than all there is leaves a debt."""
        if self._rate:
            self._tokens -= weight
