"""Between the data plane's connections and the peers: the control plane's half of Diameter.

Takes the data plane's events, hands each to `Peers` and carries out what it says; keeps the one timer that all peers
share, and counts. Called by `app`. It decodes nothing and decides nothing about messages.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Protocol, TypeVar

from eir.diameter.actions import (
    Action,
    Close,
    Connect,
    Discard,
    Secure,
    Send,
    SendAndClose,
    SendAndOpen,
    SetTerms,
)
from eir.diameter.answer import Identity
from eir.diameter.dictionary import SUCCESS, DisconnectCause
from eir.diameter.message import peek_header
from eir.diameter.peer_policy import PeerEntry, PeerPolicy
from eir.diameter.peer_timers import PeerTimers
from eir.diameter.peer_view import ConnectionView, PeerView, text_of_endpoint
from eir.diameter.peers import Owner, Peers, Security
from eir.log import Log

_EVENTS_AT_ONCE = 8
"""Events taken together: those that come meanwhile and are urgent overtake the others."""

_TURN = 0.005
"""Seconds after which other tasks get their turn."""

_MOST_LABELS = 1000
"""Labels that are counted by themselves where a peer has a say in them: it may call itself what it likes."""

_OTHERS = "(others)"

log = Log(__name__)

_Label = TypeVar("_Label", bound=Hashable)


Observer = Callable[[int, int, str, bytes, bytes | None, str], None]
"""(when it came in nanoseconds since 1970, connection, the peer's Origin-Host if it is known, message, answer, what
became of it)."""


class DataPlane(Protocol):
    """What is asked of `_core.Node` here."""

    def events_fileno(self) -> int:
        """A descriptor that is readable while there are events."""

    def take_events(self, most: int) -> Sequence[tuple[Any, ...]]:
        """Up to `most` events, the oldest first."""

    def send(self, connection: int, data: bytes) -> bool:
        """Writes to a connection; False where it is gone or its queue is full."""

    def open(self, connection: int, data: bytes, origin_host: str, sender: str, advertised_relay: bool) -> bool:
        """Writes to a connection and from then on answers on it; False where it is gone."""

    def secure(self, connection: int, data: bytes) -> bool:
        """Writes to a connection and then expects a TLS handshake; False where it is gone."""

    def close(self, connection: int, data: bytes) -> bool:
        """Writes to a connection and closes it; False where it is gone."""

    def connect(self, host: Any, port: int, tls_name: str | None) -> int:
        """Begins a connection and returns its number. Raises OSError, ValueError."""

    def set_terms(self, origin_host: str, terms: Any) -> None:
        """The terms of a peer from now on; None: forget it."""

    def certified(self, connection: int, origin_host: str) -> bool | None:
        """Whether the certificate is valid for a name; None where there is none."""

    def idle_seconds(self, connection: int) -> float | None:
        """Seconds since the last message came; None where the connection is gone."""


@dataclass(slots=True)
class _Connection:
    remote: str
    origin_host: str = ""
    closed_for: str | None = None


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """A connection as people see it: whose it is, and how it does. `since` and `idle` in seconds ago."""

    origin_host: str
    remote: str
    state: str
    watchdog: str
    since: float
    idle: float
    number: int
    direction: str
    tls: bool


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
    messages: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Messages of the control plane by direction, "in" or "out", and command, such as "CER"."""


class DiameterServer:
    """The peers of one data plane.

    `terms` makes the data plane's terms of an entry; without it the data plane is told none. `security` says how
    connections may be secured.
    """

    def __init__(
        self,
        node: DataPlane,
        identity: Identity,
        policy: PeerPolicy,
        timers: PeerTimers,
        *,
        terms: Callable[[PeerEntry], object] | None = None,
        security: Security | None = None,
    ) -> None:
        self.outcomes = Outcomes()
        self.observe: Observer | None = None
        """Is shown every message that comes here, with its answer, if it has one."""
        self._node = node
        self._terms = terms
        owner = Owner(node.certified, node.idle_seconds, random.random)
        self._peers = Peers(identity, policy, owner, timers, security or Security())
        self._connections: dict[int, _Connection] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    # What `app` asks for.

    @property
    def policy(self) -> PeerPolicy:
        """Who may be a peer. A new one is in force at once: peers come and go by it."""
        return self._peers.policy

    @policy.setter
    def policy(self, policy: PeerPolicy) -> None:
        self._carry_out(self._peers.set_policy(policy, self._loop.time()))

    @property
    def security(self) -> Security:
        """How connections may be secured; a new one holds for the next CER."""
        return self._peers.security

    @security.setter
    def security(self, security: Security) -> None:
        self._peers.security = security

    def start(self) -> None:
        """Begins to take events, and to connect to the peers that the policy has addresses of."""
        self._loop.add_reader(self._node.events_fileno(), self._take_events)
        self._carry_out(self._peers.start(self._loop.time()))

    def stop(self) -> None:
        """Takes no more events."""
        self._loop.remove_reader(self._node.events_fileno())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connect_now(self, origin_host: str) -> None:
        """Connects to a peer at once, whatever it had said about it."""
        self._carry_out(self._peers.connect_now(origin_host, self._loop.time()))

    def set_terms_again(self) -> None:
        """Tells the data plane the terms of every peer anew: what `terms` makes of an entry has changed."""
        self._carry_out(self._peers.terms())

    async def disconnect_all(self, cause: DisconnectCause, within: float) -> None:
        """Sends a DPR to every open peer, closes the others, and waits, so many seconds at most, until all are gone."""
        self._carry_out(self._peers.disconnect_all(cause, self._loop.time()))
        try:
            async with asyncio.timeout(within):
                await self._empty.wait()
        except TimeoutError:
            log.warning("peers did not disconnect in time", connections=len(self._connections))

    # What people and metrics see.

    def peers(self) -> Iterator[ConnectionRow]:
        """Every connection whose end has not been decided."""
        now = self._loop.time()
        for view in self._peers.table(now):
            for connection in view.connections:
                yield _row(connection, view.origin_host, _STATES.get(view.state, "connecting"), view.watchdog)
        for connection in self._peers.waiting(now):
            yield _row(connection, "", "wait_cer", "initial")

    def peer_table(self) -> list[PeerView]:
        """Every peer, connected or not, and those that are kept out."""
        return list(self._peers.table(self._loop.time()))

    def open_peers(self) -> int:
        """How many connections are open."""
        return self._peers.open_peers()

    @property
    def peer_changes(self) -> Counter[tuple[str, str]]:
        """How often a peer went from one state of RFC 6733 5.6 to another."""
        return self._peers.changes.peers

    @property
    def watchdog_changes(self) -> Counter[tuple[str, str]]:
        """How often a watchdog went from one state of RFC 3539 to another."""
        return self._peers.changes.watchdogs

    # Events.

    def _take_events(self) -> None:
        turn_ends = self._loop.time() + _TURN
        while True:
            events = self._node.take_events(_EVENTS_AT_ONCE)
            for event in events:
                # One connection's trouble must not cost the others their events.
                try:
                    self._take(event)
                except Exception:
                    log.error("event not handled", exc_info=True, kind=event[0], connection=event[1])
                    self._node.close(event[1], b"")
            # The descriptor stays readable while there are more.
            if len(events) < _EVENTS_AT_ONCE or self._loop.time() >= turn_ends:
                break
        self._set_timer()

    def _take(self, event: tuple[Any, ...]) -> None:
        kind, number, now = event[0], event[1], self._loop.time()
        if kind == "connected":
            _, _, host, port, local, way = event
            endpoint = (ip_address(host), port)
            self._connections.setdefault(number, _Connection(text_of_endpoint(endpoint)))
            self._empty.clear()
            outgoing, tls = way.startswith("out"), way.endswith("tls")
            self._do(self._peers.connected(number, endpoint, ip_address(local), now, outgoing=outgoing, tls=tls))
        elif kind == "message":
            self._count_message("in", event[2])
            # Before it is answered: what the peer sends after that, the data plane may be quicker to answer.
            came = time.time_ns()
            actions = self._peers.receive(number, event[2], now)
            self._do(actions)
            if self.observe is not None:
                self._show(self.observe, came, number, event[2], actions)
        elif kind == "secured":
            self._do(self._peers.secured(number, now))
        elif (connection := self._connections.pop(number, None)) is not None:
            self._closed(number, connection, event[2], now)

    def _show(self, observe: Observer, came: int, number: int, message: bytes, actions: list[Action]) -> None:
        connection = self._connections.get(number)
        answers = [
            action.data
            for action in actions
            if isinstance(action, Send | SendAndOpen | SendAndClose | Secure) and action.number == number
        ]
        answer, outcome = (answers[0], "answered") if answers else (None, "handed up")
        observe(came, number, connection.origin_host if connection else "", message, answer, outcome)

    def _closed(self, number: int, connection: _Connection, reason: str, now: float) -> None:
        reason = connection.closed_for or reason
        self.outcomes.closed[reason] += 1
        log.info("connection closed", peer=connection.origin_host, remote=connection.remote, reason=reason)
        if not self._connections:
            self._empty.set()
        self._do(self._peers.closed(number, now))

    def _handle_timer(self) -> None:
        self._timer = None
        try:
            self._do(self._peers.handle_timer(self._loop.time()))
        finally:
            self._set_timer()

    def _set_timer(self) -> None:
        at = self._peers.timer()
        if self._timer is not None:
            if self._timer.when() == at:
                return
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._handle_timer)

    # Actions.

    def _carry_out(self, actions: list[Action]) -> None:
        self._do(actions)
        self._set_timer()

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            # One that fails must not cost other peers theirs.
            try:
                self._obey(action)
            except Exception:
                number = getattr(action, "number", None)
                log.error("action not carried out", exc_info=True, action=type(action).__name__, connection=number)
                if number is not None:
                    self._node.close(number, b"")

    def _obey(self, action: Action) -> None:
        match action:
            case Send(number, data, result_code):
                self._count(number, result_code)
                self._count_message("out", data)
                self._delivered(self._node.send(number, data))
            case SendAndOpen(number, data, origin_host, sender, advertised_relay):
                self._count_message("out", data)
                self._open(number, origin_host)
                self._delivered(self._node.open(number, data, origin_host, sender, advertised_relay))
            case Secure(number, data):
                self._count_message("out", data)
                if not self._node.secure(number, data):
                    # Gone, or there are no certificates to do it with.
                    self._delivered(False)
                    self._node.close(number, b"")
            case SendAndClose(number, data, reason, result_code):
                self._count(number, result_code)
                self._count_message("out", data)
                self._close(number, data, reason)
            case Close(number, reason):
                self._close(number, b"", reason)
            case Discard(_, reason):
                self.outcomes.discarded[reason] += 1
            case Connect():
                self._connect(action)
            case SetTerms(origin_host, entry):
                self._set_terms(origin_host, entry)

    def _open(self, number: int, origin_host: str) -> None:
        if (connection := self._connections.get(number)) is not None:
            connection.origin_host = origin_host
            log.info("peer open", peer=origin_host, remote=connection.remote)

    def _close(self, number: int, data: bytes, reason: str) -> None:
        if (connection := self._connections.get(number)) is not None:
            connection.closed_for = reason
        delivered = self._node.close(number, data)
        if data:
            self._delivered(delivered)

    def _connect(self, action: Connect) -> None:
        remote = text_of_endpoint((action.address, action.port))
        number = None
        try:
            number = self._node.connect(action.address, action.port, action.tls_name)
        except (OSError, ValueError) as error:
            log.warning("cannot connect", peer=action.origin_host, remote=remote, error=str(error))
            self.outcomes.closed["connect failed"] += 1
        else:
            self._connections[number] = _Connection(remote, action.origin_host)
            self._empty.clear()
        self._do(self._peers.connecting(action, number, self._loop.time()))

    def _set_terms(self, origin_host: str, entry: PeerEntry | None) -> None:
        if self._terms is not None:
            self._node.set_terms(origin_host, None if entry is None else self._terms(entry))

    # Counters.

    def _count(self, number: int, result_code: int | None) -> None:
        if result_code is not None and result_code != SUCCESS:
            connection = self._connections.get(number)
            label = (connection.origin_host if connection is not None else "", result_code)
            self._add(self.outcomes.refused, label, (_OTHERS, result_code))

    def _add(self, counter: Counter[_Label], label: _Label, otherwise: _Label) -> None:
        full = len(counter) >= _MOST_LABELS and label not in counter
        counter[otherwise if full else label] += 1

    def _count_message(self, direction: str, data: bytes) -> None:
        if data:
            self.outcomes.messages[direction, _command_name(data)] += 1

    def _delivered(self, delivered: bool) -> None:
        self.outcomes.undelivered += not delivered


_STATES = {"R-Open": "open", "I-Open": "open", "Closing": "closing"}


def _row(connection: ConnectionView, origin_host: str, state: str, watchdog: str) -> ConnectionRow:
    return ConnectionRow(
        origin_host=origin_host,
        remote=connection.remote,
        state=state,
        watchdog=watchdog.lower(),
        since=connection.since,
        idle=connection.idle,
        number=connection.number,
        direction=connection.direction,
        tls=connection.tls,
    )


def _command_name(data: bytes) -> str:
    """ "CER", "ECA" and so on; "other" for a command that is not one of ours."""
    header = peek_header(data)
    if header is None or header.command not in _SHORT:
        return "other"
    return _SHORT[header.command] + ("R" if header.is_request else "A")


_SHORT = {257: "CE", 280: "DW", 282: "DP", 324: "EC"}
"""What RFC 6733 and TS 29.272 call the commands, without the last letter."""
