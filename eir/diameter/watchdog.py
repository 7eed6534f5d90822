"""The watchdog of one connection: has the peer been silent for too long?

Implements RFC 3539 3.4.1 for a connection that the peer opened, with the device watchdog of RFC 6733 5.5 as its
question. Called by `peer`, which sends the DWR and closes the connection. REOPEN, the state of a connection that this
node opens again after a failure, is left out: a responder opens none, and a peer that comes back is a new connection
and a new watchdog. For the same reason nothing is failed over in SUSPECT.

Traffic passes the data plane, not this code, so time is looked at late: `handle_timer` is told when the last message
came, and only then moves the deadline that the message had moved long ago. It never sends, and has no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

DEFAULT_TW: Final = 30.0
MINIMUM_TW: Final = 6.0
"""Seconds; below it the timer may not be set (RFC 3539 3.4.1)."""
JITTER: Final = 2.0
"""Seconds, at most, by which each interval differs from Tw, so that peers do not keep step (RFC 3539 3.4.1)."""


class WatchdogState(Enum):
    """The states of RFC 3539 3.4.1, but for REOPEN."""

    INITIAL = auto()
    """Connected, capabilities not yet exchanged: no watchdog runs."""
    OKAY = auto()
    SUSPECT = auto()
    """A DWR went unanswered for one interval, and nothing else came."""
    DOWN = auto()
    """Closed, or to be closed now. There is no way back."""


class WatchdogEvent(Enum):
    """What happens to a watchdog; the names of RFC 3539's table, where it has them."""

    CONNECTION_UP = auto()
    RECEIVE_DWA = auto()
    RECEIVE_NON_DWA = auto()
    TIMER_EXPIRES = auto()
    """with no DWA outstanding"""
    TIMER_EXPIRES_PENDING = auto()
    """with a DWA outstanding"""
    CONNECTION_DOWN = auto()


class WatchdogAction(Enum):
    """What the owner of the connection has to do."""

    SEND_DWR = auto()
    CLOSE = auto()


_S = WatchdogState
_E = WatchdogEvent

TRANSITIONS: Final[Mapping[WatchdogState, Mapping[WatchdogEvent, tuple[WatchdogState, WatchdogAction | None]]]] = (
    MappingProxyType(
        {
            _S.INITIAL: {
                _E.CONNECTION_UP: (_S.OKAY, None),
                _E.CONNECTION_DOWN: (_S.DOWN, None),
            },
            _S.OKAY: {
                _E.RECEIVE_DWA: (_S.OKAY, None),
                _E.RECEIVE_NON_DWA: (_S.OKAY, None),
                _E.TIMER_EXPIRES: (_S.OKAY, WatchdogAction.SEND_DWR),
                _E.TIMER_EXPIRES_PENDING: (_S.SUSPECT, None),
                _E.CONNECTION_DOWN: (_S.DOWN, None),
            },
            # A DWA is outstanding in SUSPECT as long as it lasts: what clears it leads back to OKAY.
            _S.SUSPECT: {
                _E.RECEIVE_DWA: (_S.OKAY, None),
                _E.RECEIVE_NON_DWA: (_S.OKAY, None),
                _E.TIMER_EXPIRES_PENDING: (_S.DOWN, WatchdogAction.CLOSE),
                _E.CONNECTION_DOWN: (_S.DOWN, None),
            },
            _S.DOWN: {_E.CONNECTION_DOWN: (_S.DOWN, None)},
        }
    )
)
"""{state: {event: (next state, what to do)}}. An event that a state does not list does not happen in it."""


class Watchdog:
    """The watchdog of one connection. Times are seconds on the caller's clock, any clock that never goes back."""

    __slots__ = ("_deadline", "_pending", "_random", "_set_at", "_state", "_tw")

    def __init__(self, random: Callable[[], float], tw: float = DEFAULT_TW) -> None:
        """`random` gives numbers from 0 to 1 for the jitter; `tw` is seconds.

        Raises `ValueError` for `tw` below the minimum.
        """
        if not tw >= MINIMUM_TW:
            raise ValueError(f"tw is {tw}, and may not be below {MINIMUM_TW} seconds")
        self._random = random
        self._tw = tw
        self._state = WatchdogState.INITIAL
        self._pending = False
        self._set_at = 0.0
        self._deadline: float | None = None

    @property
    def state(self) -> WatchdogState:
        """Where it stands. SUSPECT may be out of date by the traffic since the last `handle_timer`."""
        return self._state

    @property
    def pending(self) -> bool:
        """Whether a DWR of ours is unanswered."""
        return self._pending

    def timer(self) -> float | None:
        """When to call `handle_timer`, at the latest; None while no watchdog runs."""
        return self._deadline

    def connection_up(self, now: float) -> None:
        """Capabilities are exchanged: begin."""
        self._move(WatchdogEvent.CONNECTION_UP)
        self._set_watchdog(now)

    def dwa_received(self, now: float) -> None:
        """Our DWR was answered. Only this clears `pending`: other traffic shows life, but leaves the answer owing."""
        self._pending = False
        self._move(WatchdogEvent.RECEIVE_DWA)
        self._set_watchdog(now)

    def connection_down(self) -> None:
        """The connection is closed or closing: watch no more."""
        self._move(WatchdogEvent.CONNECTION_DOWN)
        self._deadline = None

    def handle_timer(self, now: float, last_received: float) -> WatchdogAction | None:
        """What is to be done at `now`, when the last message of the peer came at `last_received`; None: nothing.

        Asked too early it does nothing. Asked much too late it counts one expiry, not several: that this node was
        slow is no sign that the peer is gone.
        """
        if self._deadline is None:
            return None
        if last_received > self._set_at:
            self._move(WatchdogEvent.RECEIVE_NON_DWA)
            self._set_watchdog(min(last_received, now))
        if now < self._deadline:
            return None
        event = WatchdogEvent.TIMER_EXPIRES_PENDING if self._pending else WatchdogEvent.TIMER_EXPIRES
        action = self._move(event)
        self._set_watchdog(now)
        if action is WatchdogAction.SEND_DWR:
            self._pending = True
        elif action is WatchdogAction.CLOSE:
            self._deadline = None
        return action

    def _move(self, event: WatchdogEvent) -> WatchdogAction | None:
        self._state, action = TRANSITIONS[self._state][event]
        return action

    def _set_watchdog(self, now: float) -> None:
        self._set_at = now
        self._deadline = now + self._tw + JITTER * (2.0 * self._random() - 1.0)
