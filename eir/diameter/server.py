"""Between the data plane's connections and their state machines: the control plane's half of Diameter.

Takes the data plane's events, hands each message to its connection's `Peer` and carries out what it says; keeps the
peers' timers. Called by `app`. It decodes nothing and decides nothing about messages.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

from eir import _core
from eir.diameter.answer import Identity
from eir.diameter.capabilities import PeerPolicy
from eir.diameter.dictionary import SUCCESS
from eir.diameter.peer import (
    Action,
    Close,
    Discard,
    DisconnectCause,
    Peer,
    PeerState,
    PeerTimers,
    Reason,
    Send,
    SendAndClose,
    SendAndOpen,
)
from eir.log import Log

_EVENTS_AT_ONCE = 256
"""Events taken before other tasks get their turn."""

_MOST_REFUSED = 1000
"""(peer, Result-Code) pairs that are counted by themselves: a peer may call itself what it likes."""

log = Log(__name__)


@dataclass(slots=True)
class _Connection:
    number: int
    remote: str
    since: float
    peer: Peer
    timer: asyncio.TimerHandle | None = None
    closed_for: str | None = None


@dataclass(frozen=True, slots=True)
class PeerView:
    """A connection as people see it; `since` and `idle` in seconds ago."""

    origin_host: str
    remote: str
    state: str
    watchdog: str
    since: float
    idle: float


@dataclass(slots=True)
class Outcomes:
    """What became of messages that the data plane handed up, and of connections."""

    refused: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Answers other than 2001, by peer and Result-Code."""
    discarded: Counter[str] = field(default_factory=Counter)
    """Messages dropped, by reason."""
    undelivered: int = 0
    """Messages of ours that a connection did not take: gone, or its queue full."""
    closed: Counter[str] = field(default_factory=Counter)
    """Connections ended, by reason."""


class DiameterServer:
    """The peers of one data plane. `policy` may be replaced at any time; it is asked at each CER."""

    def __init__(self, node: _core.Node, identity: Identity, policy: PeerPolicy, timers: PeerTimers) -> None:
        self.policy = policy
        self.outcomes = Outcomes()
        self._node = node
        self._identity = identity
        self._timers = timers
        self._connections: dict[int, _Connection] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begins to take events."""
        self._loop.add_reader(self._node.events_fileno(), self._take_events)

    def stop(self) -> None:
        """Takes no more events."""
        self._loop.remove_reader(self._node.events_fileno())

    async def disconnect_all(self, cause: DisconnectCause, within: float) -> None:
        """Sends a DPR to every open peer, closes the others, and waits, so many seconds at most, until all are gone."""
        for connection in list(self._connections.values()):
            self._carry_out(connection, connection.peer.disconnect(cause, self._loop.time()))
        try:
            await asyncio.wait_for(self._empty.wait(), within)
        except TimeoutError:
            log.warning("peers did not disconnect in time", connections=len(self._connections))

    def peers(self) -> Iterator[PeerView]:
        """Every connection."""
        now = self._loop.time()
        for connection in self._connections.values():
            yield PeerView(
                origin_host=connection.peer.origin_host or "",
                remote=connection.remote,
                state=connection.peer.state.name.lower(),
                watchdog=connection.peer.watchdog_state.name.lower(),
                since=now - connection.since,
                idle=self._node.idle_seconds(connection.number) or 0.0,
            )

    def open_peers(self) -> int:
        """How many connections are open."""
        # A copy: Prometheus asks from a thread of its own.
        return sum(connection.peer.state is PeerState.OPEN for connection in list(self._connections.values()))

    def _take_events(self) -> None:
        for event in self._node.take_events(_EVENTS_AT_ONCE):
            # One connection's trouble must not cost the others their events.
            try:
                self._take(event)
            except Exception:
                log.error("event not handled", exc_info=True, kind=event[0], connection=event[1])
                self._node.close(event[1], b"")

    def _take(self, event: _core.Event) -> None:
        if event[0] == "connected":
            _, number, host, port, local = event
            now = self._loop.time()
            peer = Peer(
                self._identity, self.policy, ip_address(local), ip_address(host), now, random.random, self._timers
            )
            remote = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            connection = self._connections[number] = _Connection(number, remote, now, peer)
            self._empty.clear()
            if self.policy.knows(ip_address(host)):
                self._set_timer(connection)
            else:
                # It would be refused at its CER; until then it would hold a place that a peer may need.
                self._carry_out(connection, [Close(Reason.ADDRESS_NOT_ALLOWED)])
            return
        if (found := self._connections.get(event[1])) is None:
            return
        if event[0] == "message":
            self._carry_out(found, found.peer.receive(event[2], self._loop.time()))
        else:
            self._forget(found, event[2])

    def _forget(self, connection: _Connection, reason: str) -> None:
        del self._connections[connection.number]
        if connection.timer is not None:
            connection.timer.cancel()
        connection.peer.connection_lost()
        reason = connection.closed_for or reason
        self.outcomes.closed[reason] += 1
        log.info("connection closed", peer=connection.peer.origin_host or "", remote=connection.remote, reason=reason)
        if not self._connections:
            self._empty.set()

    def _carry_out(self, connection: _Connection, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(data, result_code):
                    self._count(connection, result_code)
                    self._delivered(self._node.send(connection.number, data))
                case SendAndOpen(data, origin_host):
                    log.info("peer open", peer=origin_host, remote=connection.remote)
                    self._delivered(self._node.open(connection.number, data, origin_host))
                case SendAndClose(data, reason, result_code):
                    self._count(connection, result_code)
                    connection.closed_for = reason
                    self._delivered(self._node.close(connection.number, data))
                case Close(reason):
                    connection.closed_for = reason
                    self._node.close(connection.number, b"")
                case Discard(reason):
                    self.outcomes.discarded[reason] += 1
        self._set_timer(connection)

    def _count(self, connection: _Connection, result_code: int | None) -> None:
        if result_code is not None and result_code != SUCCESS:
            key = (connection.peer.origin_host or "", result_code)
            full = len(self.outcomes.refused) >= _MOST_REFUSED and key not in self.outcomes.refused
            self.outcomes.refused[("(others)", result_code) if full else key] += 1

    def _delivered(self, delivered: bool) -> None:
        self.outcomes.undelivered += not delivered

    def _set_timer(self, connection: _Connection) -> None:
        if connection.timer is not None:
            connection.timer.cancel()
        at = connection.peer.timer()
        connection.timer = None if at is None else self._loop.call_at(at, self._handle_timer, connection)

    def _handle_timer(self, connection: _Connection) -> None:
        now = self._loop.time()
        idle = self._node.idle_seconds(connection.number)
        last_received = connection.since if idle is None else now - idle
        self._carry_out(connection, connection.peer.handle_timer(now, last_received))
