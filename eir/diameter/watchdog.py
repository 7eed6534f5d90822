"""The watchdog of one peer: has it been silent for too long, and is it well again?

Implements RFC 3539 3.4.1 with the state machine of its appendix A, row for row, and the device watchdog of RFC 6733
5.5 as its question. Called by `peer`, which sends the DWR and closes the connection. It belongs to the peer and
outlives its connections: one that comes back after a failure has to answer three times before it is well again
(REOPEN). An orderly goodbye is no failure; `start_over` says so.

Traffic passes the data plane, not this code, so time is looked at late: `handle_timer` is told when the last message
came, and only then moves the deadline that the message had moved long ago. This node only answers, so Failover,
Failback and Throwaway stand in the table and have nothing to do: what a peer asks is answered in REOPEN too. It never
sends, and has no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple

DEFAULT_TW: Final = 30.0
MINIMUM_TW: Final = 6.0
"""Seconds; below it the timer may not be set (RFC 3539 3.4.1)."""
JITTER: Final = 2.0
"""Seconds, at most, by which each interval differs from Tw, so that peers do not keep step (RFC 3539 3.4.1)."""


class WatchdogState(Enum):
    """The states of RFC 3539 3.4.1."""

    INITIAL = "INITIAL"
    """No connection yet, or none since an orderly goodbye."""
    OKAY = "OKAY"
    SUSPECT = "SUSPECT"
    """A DWR went unanswered for one interval, and nothing else came."""
    DOWN = "DOWN"
    """The last connection failed."""
    REOPEN = "REOPEN"
    """Connected again after a failure; not trusted before three DWAs."""


class WatchdogEvent(Enum):
    """The events of RFC 3539's table, each with its condition."""

    RECEIVE_DWA = "Receive DWA"
    RECEIVE_DWA_LAST = "Receive DWA & NumDWA == 2"
    RECEIVE_DWA_EARLIER = "Receive DWA & NumDWA < 2"
    RECEIVE_NON_DWA = "Receive non-DWA"
    TIMER_EXPIRES = "Timer expires"
    TIMER_EXPIRES_NOT_PENDING = "Timer expires & !Pending"
    TIMER_EXPIRES_PENDING = "Timer expires & Pending"
    TIMER_EXPIRES_AGAIN = "Timer expires & Pending & NumDWA < 0"
    TIMER_EXPIRES_ONCE = "Timer expires & Pending & NumDWA >= 0"
    CONNECTION_UP = "Connection up"
    CONNECTION_DOWN = "Connection down"


class WatchdogAction(Enum):
    """The actions of RFC 3539's table. The owner of the connections is told the first three."""

    SEND_WATCHDOG = "SendWatchdog()"
    CLOSE_CONNECTION = "CloseConnection()"
    ATTEMPT_OPEN = "AttemptOpen()"
    SET_WATCHDOG = "SetWatchdog()"
    FAILOVER = "Failover()"
    FAILBACK = "Failback()"
    THROWAWAY = "Throwaway()"
    NOT_PENDING = "Pending = FALSE"
    PENDING = "Pending = TRUE"
    COUNT_DWA = "NumDWA++"
    NO_DWA = "NumDWA = 0"
    DWA_OWED = "NumDWA = -1"


_S = WatchdogState
_E = WatchdogEvent
_A = WatchdogAction

_OUTWARD: Final = frozenset({_A.SEND_WATCHDOG, _A.CLOSE_CONNECTION, _A.ATTEMPT_OPEN})


class WatchdogRow(NamedTuple):
    """One row: in `state`, when `event` happens, do `actions` and go to `next_state`."""

    state: WatchdogState
    event: WatchdogEvent
    actions: tuple[WatchdogAction, ...]
    next_state: WatchdogState


TABLE: Final = (
    WatchdogRow(_S.OKAY, _E.RECEIVE_DWA, (_A.NOT_PENDING, _A.SET_WATCHDOG), _S.OKAY),
    WatchdogRow(_S.OKAY, _E.RECEIVE_NON_DWA, (_A.SET_WATCHDOG,), _S.OKAY),
    WatchdogRow(_S.SUSPECT, _E.RECEIVE_DWA, (_A.NOT_PENDING, _A.FAILBACK, _A.SET_WATCHDOG), _S.OKAY),
    WatchdogRow(_S.SUSPECT, _E.RECEIVE_NON_DWA, (_A.FAILBACK, _A.SET_WATCHDOG), _S.OKAY),
    WatchdogRow(_S.REOPEN, _E.RECEIVE_DWA_LAST, (_A.NOT_PENDING, _A.COUNT_DWA, _A.FAILBACK), _S.OKAY),
    WatchdogRow(_S.REOPEN, _E.RECEIVE_DWA_EARLIER, (_A.NOT_PENDING, _A.COUNT_DWA), _S.REOPEN),
    WatchdogRow(_S.REOPEN, _E.RECEIVE_NON_DWA, (_A.THROWAWAY,), _S.REOPEN),
    WatchdogRow(_S.INITIAL, _E.RECEIVE_DWA, (_A.NOT_PENDING, _A.THROWAWAY), _S.INITIAL),
    WatchdogRow(_S.INITIAL, _E.RECEIVE_NON_DWA, (_A.THROWAWAY,), _S.INITIAL),
    WatchdogRow(_S.DOWN, _E.RECEIVE_DWA, (_A.NOT_PENDING, _A.THROWAWAY), _S.DOWN),
    WatchdogRow(_S.DOWN, _E.RECEIVE_NON_DWA, (_A.THROWAWAY,), _S.DOWN),
    WatchdogRow(_S.OKAY, _E.TIMER_EXPIRES_NOT_PENDING, (_A.SEND_WATCHDOG, _A.SET_WATCHDOG, _A.PENDING), _S.OKAY),
    WatchdogRow(_S.OKAY, _E.TIMER_EXPIRES_PENDING, (_A.FAILOVER, _A.SET_WATCHDOG), _S.SUSPECT),
    WatchdogRow(_S.SUSPECT, _E.TIMER_EXPIRES, (_A.CLOSE_CONNECTION, _A.SET_WATCHDOG), _S.DOWN),
    WatchdogRow(_S.INITIAL, _E.TIMER_EXPIRES, (_A.ATTEMPT_OPEN, _A.SET_WATCHDOG), _S.INITIAL),
    WatchdogRow(_S.DOWN, _E.TIMER_EXPIRES, (_A.ATTEMPT_OPEN, _A.SET_WATCHDOG), _S.DOWN),
    WatchdogRow(_S.REOPEN, _E.TIMER_EXPIRES_NOT_PENDING, (_A.SEND_WATCHDOG, _A.SET_WATCHDOG, _A.PENDING), _S.REOPEN),
    WatchdogRow(_S.REOPEN, _E.TIMER_EXPIRES_AGAIN, (_A.CLOSE_CONNECTION, _A.SET_WATCHDOG), _S.DOWN),
    WatchdogRow(_S.REOPEN, _E.TIMER_EXPIRES_ONCE, (_A.DWA_OWED, _A.SET_WATCHDOG), _S.REOPEN),
    WatchdogRow(_S.INITIAL, _E.CONNECTION_UP, (_A.SET_WATCHDOG,), _S.OKAY),
    WatchdogRow(_S.DOWN, _E.CONNECTION_UP, (_A.NO_DWA, _A.SEND_WATCHDOG, _A.SET_WATCHDOG, _A.PENDING), _S.REOPEN),
    WatchdogRow(_S.OKAY, _E.CONNECTION_DOWN, (_A.CLOSE_CONNECTION, _A.FAILOVER, _A.SET_WATCHDOG), _S.DOWN),
    WatchdogRow(_S.SUSPECT, _E.CONNECTION_DOWN, (_A.CLOSE_CONNECTION, _A.SET_WATCHDOG), _S.DOWN),
    WatchdogRow(_S.REOPEN, _E.CONNECTION_DOWN, (_A.CLOSE_CONNECTION, _A.SET_WATCHDOG), _S.DOWN),
)
"""RFC 3539 appendix A, in its order. An event that a state does not list does not happen in it."""

TRANSITIONS: Final[Mapping[tuple[WatchdogState, WatchdogEvent], WatchdogRow]] = MappingProxyType(
    {(row.state, row.event): row for row in TABLE}
)

_CONNECTED: Final = frozenset({_S.OKAY, _S.SUSPECT, _S.REOPEN})
_NUM_DWA_LAST: Final = 2


class Watchdog:
    """The watchdog of one peer. Times are seconds on the caller's clock, any clock that never goes back.

    Every method returns what the caller has to do, of `SEND_WATCHDOG`, `CLOSE_CONNECTION` and `ATTEMPT_OPEN`.
    """

    __slots__ = ("_changes", "_deadline", "_heard", "_num_dwa", "_pending", "_random", "_set_at", "_state", "_tw")

    def __init__(
        self, random: Callable[[], float], tw: float = DEFAULT_TW, changes: Counter[tuple[str, str]] | None = None
    ) -> None:
        """`random` gives numbers from 0 to 1 for the jitter; `tw` is seconds; `changes` counts (state, next state).

        Raises `ValueError` for `tw` below the minimum.
        """
        if not tw >= MINIMUM_TW:
            raise ValueError(f"tw is {tw}, and may not be below {MINIMUM_TW} seconds")
        self._random = random
        self._tw = tw
        self._changes: Counter[tuple[str, str]] = Counter() if changes is None else changes
        self._state = WatchdogState.INITIAL
        self._pending = False
        self._num_dwa = 0
        self._set_at = 0.0
        self._heard = 0.0
        self._deadline: float | None = None

    @property
    def state(self) -> WatchdogState:
        """Where it stands. SUSPECT may be out of date by the traffic since the last `handle_timer`."""
        return self._state

    @property
    def pending(self) -> bool:
        """Whether a DWR of ours is unanswered."""
        return self._pending

    @property
    def num_dwa(self) -> int:
        """How many DWAs came in REOPEN; -1 where one is overdue."""
        return self._num_dwa

    def timer(self) -> float | None:
        """When to call `handle_timer`, at the latest; None while there is no connection."""
        return self._deadline

    def suspects(self, last_received: float) -> bool:
        """Whether the peer is suspect and nothing has come since that would clear it."""
        return self._state is WatchdogState.SUSPECT and last_received <= self._set_at

    def connection_up(self, now: float) -> tuple[WatchdogAction, ...]:
        """Capabilities are exchanged: begin. After a failure this asks at once."""
        return self._move(WatchdogEvent.CONNECTION_UP, now)

    def dwa_received(self, now: float) -> tuple[WatchdogAction, ...]:
        """Our DWR was answered. Only this clears `pending`: other traffic shows life, but leaves the answer owing."""
        # It is not to count as other traffic too, when that is looked at.
        self._heard = now
        if self._state is not WatchdogState.REOPEN:
            return self._move(WatchdogEvent.RECEIVE_DWA, now)
        last = self._num_dwa >= _NUM_DWA_LAST
        return self._move(WatchdogEvent.RECEIVE_DWA_LAST if last else WatchdogEvent.RECEIVE_DWA_EARLIER, now)

    def connection_down(self, now: float) -> None:
        """The connection is closed: watch no more. Where there was none, nothing has changed."""
        if self._state in _CONNECTED:
            self._move(WatchdogEvent.CONNECTION_DOWN, now)

    def start_over(self) -> None:
        """The connection ended, or ends, as agreed (RFC 6733 5.4), and the next one is to be trusted at once."""
        self._go(WatchdogState.INITIAL)
        self._pending = False
        self._num_dwa = 0

    def tc_expired(self, now: float) -> tuple[WatchdogAction, ...]:
        """Time to connect again. The timer that INITIAL and DOWN wait for is Tc, not Tw: RFC 6733 2.1 paces attempts
        with one of its own, and the peer keeps it."""
        if self._state in _CONNECTED:
            return ()
        return self._move(WatchdogEvent.TIMER_EXPIRES, now)

    def handle_timer(self, now: float, last_received: float) -> tuple[WatchdogAction, ...]:
        """What is to be done at `now`, when the last message of the peer came at `last_received`.

        Asked too early it does nothing. Asked much too late it counts one expiry, not several: that this node was
        slow is no sign that the peer is gone.
        """
        if self._deadline is None:
            return ()
        if last_received > max(self._set_at, self._heard):
            self._move(WatchdogEvent.RECEIVE_NON_DWA, min(last_received, now))
        if now < self._deadline:
            return ()
        return self._move(self._expiry(), now)

    def _expiry(self) -> WatchdogEvent:
        if self._state is WatchdogState.SUSPECT:
            return WatchdogEvent.TIMER_EXPIRES
        if not self._pending:
            return WatchdogEvent.TIMER_EXPIRES_NOT_PENDING
        if self._state is WatchdogState.OKAY:
            return WatchdogEvent.TIMER_EXPIRES_PENDING
        return WatchdogEvent.TIMER_EXPIRES_AGAIN if self._num_dwa < 0 else WatchdogEvent.TIMER_EXPIRES_ONCE

    def _move(self, event: WatchdogEvent, now: float) -> tuple[WatchdogAction, ...]:
        row = TRANSITIONS[self._state, event]
        self._go(row.next_state)
        for action in row.actions:
            match action:
                case WatchdogAction.SET_WATCHDOG if self._state in _CONNECTED:
                    self._set_watchdog(now)
                case WatchdogAction.PENDING | WatchdogAction.NOT_PENDING:
                    self._pending = action is WatchdogAction.PENDING
                case WatchdogAction.COUNT_DWA:
                    self._num_dwa += 1
                case WatchdogAction.NO_DWA:
                    self._num_dwa = 0
                case WatchdogAction.DWA_OWED:
                    self._num_dwa = -1
                case _:
                    pass
        return tuple(action for action in row.actions if action in _OUTWARD)

    def _go(self, state: WatchdogState) -> None:
        if state is not self._state:
            self._changes[self._state.name.lower(), state.name.lower()] += 1
            self._state = state
        if state not in _CONNECTED:
            self._deadline = None

    def _set_watchdog(self, now: float) -> None:
        self._set_at = now
        self._deadline = now + self._tw + JITTER * (2.0 * self._random() - 1.0)
