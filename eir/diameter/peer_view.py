"""Peers and their connections as people and metrics see them: what `peers` shows of itself.

Plain values, made when somebody asks, and counters; nothing follows from them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eir.diameter.peer_policy import Endpoint, PeerEntry

if TYPE_CHECKING:
    from eir.diameter.peer import Peer


@dataclass(slots=True)
class StateChanges:
    """How often peers and their watchdogs went from one state to another; the names in lower case."""

    peers: Counter[tuple[str, str]] = field(default_factory=Counter)
    watchdogs: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class ConnectionView:
    """A connection; `since` and `idle` are seconds ago. `direction` is "in" or "out"."""

    number: int
    remote: str
    direction: str
    tls: bool
    since: float
    idle: float


@dataclass(frozen=True, slots=True)
class PeerView:
    """One state machine, which has two connections while an election is on; with the terms of its entry.

    `state` and `watchdog` are the RFCs' names. `named` is false for a peer that is there by an entry for many names;
    `disabled` is one that is kept out. `connect` is the address that this node connects to, `waiting` whether it will
    by and by. `most_connections` is of those that the peer opens, over all state machines of this name.
    """

    origin_host: str
    role: str
    state: str
    watchdog: str
    named: bool
    disabled: bool
    connect: str | None
    waiting: bool
    connections: tuple[ConnectionView, ...]
    tls: str
    most_connections: int
    requests_per_second: int
    load: bool


def view_of(peer: Peer, connections: tuple[ConnectionView, ...], *, named: bool) -> PeerView:
    """A peer with its connections."""
    entry = peer.entry
    return PeerView(
        origin_host=peer.origin_host,
        role=entry.role,
        state=peer.state.value,
        watchdog=peer.watchdog_state.value,
        named=named,
        disabled=False,
        connect=None if peer.connect is None else text_of_endpoint(peer.connect),
        waiting=peer.waits_to_connect,
        connections=connections,
        tls=entry.tls,
        most_connections=entry.connections,
        requests_per_second=entry.requests_per_second,
        load=entry.load,
    )


def view_of_disabled(origin_host: str, entry: PeerEntry | None) -> PeerView:
    """A peer that is kept out; `entry` is its own, where it has one."""
    return PeerView(
        origin_host=origin_host,
        role=entry.role if entry else "auto",
        state="Closed",
        watchdog="INITIAL",
        named=entry is not None,
        disabled=True,
        connect=None,
        waiting=False,
        connections=(),
        tls=entry.tls if entry else "optional",
        most_connections=entry.connections if entry else 1,
        requests_per_second=entry.requests_per_second if entry else 0,
        load=entry.load if entry else False,
    )


def text_of_endpoint(endpoint: Endpoint) -> str:
    """ "192.0.2.1:3868" or "[2001:db8::1]:3868"."""
    address, port = endpoint
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
