"""All peers: whose an incoming connection is, whether it may come in, and what changes when the policy does.

Implements what RFC 6733 5.6.1 keeps apart from the state machine, the wait for a CER on a connection that could be
anyone's, with the answers to CERs that will not do (5.3: 3010, 5010; 6.10: 5017), and the peer table (2.6). Each peer
is a `Peer`; one with several addresses, or that may have several connections, is several of them. Called by `server`
with what happens to connections, and with the time.

A peer that the policy names is there as long as it is named. Others come with their first connection and go with the
last. Nothing a peer sends raises. It never touches a socket and has no clock; what it must know of a connection (its
certificate, how long it has been silent) it asks of its owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from eir.diameter import dictionary
from eir.diameter.actions import Action, Close, Connect, Discard, Reason, SendAndClose, SetTerms
from eir.diameter.answer import Identity
from eir.diameter.capabilities import Capabilities, Incoming, build_cea_refusal, read_cer
from eir.diameter.deadlines import Deadlines
from eir.diameter.dictionary import DisconnectCause
from eir.diameter.message import DiameterError, peek_header
from eir.diameter.peer import Peer
from eir.diameter.peer_fsm import PeerState
from eir.diameter.peer_policy import Address, Endpoint, PeerEntry, PeerPolicy, unmapped
from eir.diameter.peer_timers import DEFAULT_TIMERS, PeerTimers
from eir.diameter.peer_view import ConnectionView, PeerView, StateChanges, text_of_endpoint, view_of, view_of_disabled

_FREE: Final = frozenset({PeerState.CLOSED, PeerState.WAIT_CONN_ACK, PeerState.WAIT_I_CEA})
"""States in which a connection of the peer's is taken in, to be held against ours or not."""


@dataclass(frozen=True, slots=True)
class Security:
    """How connections may be secured: `inband`: a CER may ask for TLS; `certificates_required` of those who connect."""

    inband: bool = False
    certificates_required: bool = True


@dataclass(frozen=True, slots=True)
class Owner:
    """What the owner of the connections tells when asked.

    `certified`: whether a connection's certificate is valid for a name; None where there is no TLS or no certificate.
    `idle`: seconds since the last message on it; None where it is gone. `random`: a number from 0 up to 1.
    """

    certified: Callable[[int, str], bool | None]
    idle: Callable[[int], float | None]
    random: Callable[[], float]


@dataclass(slots=True, eq=False)
class _Connection:
    """A transport connection from its event "connected", or our attempt, to its event "closed"."""

    number: int
    remote: Address
    port: int
    local: Address | None
    since: float
    outgoing: bool
    tls: bool
    cer_deadline: float | None = None
    """Until the CER is there, and with it the peer."""
    peer: Peer | None = None

    def timer(self) -> float | None:
        return self.cer_deadline


@dataclass(slots=True, eq=False)
class _Group:
    """The state machines of one name."""

    origin_host: str
    named: bool
    terms: PeerEntry | None = None
    """The entry whose terms are in force."""
    places: int = 1
    """How many of them are kept though they are closed."""
    peers: list[Peer] = field(default_factory=list)


class Peers:
    """The peer table of this node. Times are seconds on the caller's clock, any clock that never goes back. What it is
    told returns what there is to do, in that order."""

    def __init__(
        self,
        identity: Identity,
        policy: PeerPolicy,
        owner: Owner,
        timers: PeerTimers = DEFAULT_TIMERS,
        security: Security = Security(),
    ) -> None:
        self.security = security
        """May be replaced; it is asked at each CER."""
        self.changes: Final = StateChanges()
        self._identity = identity
        self._policy = policy
        self._owner = owner
        self._timers = timers
        self._connections: dict[int, _Connection] = {}
        self._groups: dict[str, _Group] = {}
        self._deadlines: Deadlines[Peer | _Connection] = Deadlines()
        self._stopping = False

    @property
    def policy(self) -> PeerPolicy:
        """The policy in force."""
        return self._policy

    # Connections.

    def connected(
        self, number: int, remote: Endpoint, local: Address, now: float, *, outgoing: bool, tls: bool
    ) -> list[Action]:
        """A connection is there: one of ours, or one on which a CER is now waited for."""
        if outgoing:
            found = self._connections.get(number)
            if found is None or found.peer is None:
                return []
            found.local, found.since = local, now
            return self._after(found.peer, found.peer.connected(number, local, now))
        address = unmapped(remote[0])
        connection = _Connection(number, address, remote[1], local, now, outgoing=False, tls=tls)
        self._connections[number] = connection
        if self._stopping:
            return [Close(number, Reason.STOPPED)]
        if not self._policy.knows(address):
            # It would be refused at its CER; until then it would hold a place that a peer may need.
            return [Close(number, Reason.ADDRESS_NOT_ALLOWED)]
        connection.cer_deadline = now + self._timers.cer_timeout
        self._deadlines.watch(connection)
        return []

    def connecting(self, connect: Connect, number: int | None, now: float) -> list[Action]:
        """The number that `Connect` has led to; None where it was not even begun."""
        endpoint = (connect.address, connect.port)
        group = self._groups.get(connect.origin_host.lower())
        peer = next((peer for peer in group.peers if peer.connect == endpoint), None) if group else None
        if number is not None:
            tls = connect.tls_name is not None
            self._connections[number] = _Connection(number, *endpoint, None, now, outgoing=True, tls=tls, peer=peer)
        if peer is None:
            return [] if number is None else [Close(number, Reason.STOPPED)]
        return self._after(peer, peer.connecting(number, now))

    def receive(self, number: int, data: bytes, now: float) -> list[Action]:
        """What to do about one message, from its first octet to its last. Never raises."""
        connection = self._connections.get(number)
        if connection is None:
            return []
        if connection.peer is not None:
            return self._after(connection.peer, connection.peer.receive(number, data, now))
        if connection.cer_deadline is None:
            return [Discard(number, Reason.CLOSED)]
        connection.cer_deadline = None
        self._deadlines.forget(connection)
        return self._receive_first(connection, data, now)

    def secured(self, number: int, now: float) -> list[Action]:
        """The TLS handshake behind a CEA has ended well."""
        connection = self._connections.get(number)
        if connection is None or connection.peer is None:
            return []
        connection.tls = True
        peer = connection.peer
        return self._after(peer, peer.secured(now, certified=self._certified(number, peer.origin_host, peer.entry)))

    def closed(self, number: int, now: float) -> list[Action]:
        """A connection is gone, or was not made."""
        connection = self._connections.pop(number, None)
        if connection is None:
            return []
        self._deadlines.forget(connection)
        return [] if connection.peer is None else self._after(connection.peer, connection.peer.closed(number, now))

    def timer(self) -> float | None:
        """When to call `handle_timer`, at the latest; None: nothing to wait for. Ask again after every other call."""
        return self._deadlines.first()

    def handle_timer(self, now: float) -> list[Action]:
        """What to do at `now`. Called too early it does nothing."""
        out: list[Action] = []
        for due in self._deadlines.take(now):
            if isinstance(due, Peer):
                out += self._after(due, due.handle_timer(now, self._last_received(due, now)))
            else:
                due.cer_deadline = None
                out.append(Close(due.number, Reason.CER_TIMEOUT))
        return out

    # Incoming connections before they are a peer's.

    def _receive_first(self, connection: _Connection, cer: bytes, now: float) -> list[Action]:
        """The message that should be the CER (RFC 6733 5.6.1)."""
        number, local = connection.number, connection.local
        header = peek_header(cer)
        if header is None or not header.is_request or header.command != dictionary.CAPABILITIES_EXCHANGE.code:
            return [Close(number, Reason.NOT_CER)]
        assert local is not None
        try:
            said = read_cer(cer)
            entry = self._admit(connection, said)
            inband = self._secures(connection, said, entry)
        except DiameterError as error:
            cea = build_cea_refusal(cer, self._identity, local, error)
            return [SendAndClose(number, cea, Reason.CER_REFUSED, error.result_code)]
        return self._accept(connection, Incoming(number, local, connection.remote, cer, said, inband), entry, now)

    def _admit(self, connection: _Connection, said: Capabilities) -> PeerEntry:
        """The entry by which a peer is let in. Raises `DiameterError` with 3010 or 5010 (RFC 6733 5.3)."""
        entry = self._policy.find(said.origin_host, connection.remote)
        # Nobody else has this node's name, and with it there could be no election.
        if entry is None or said.origin_host.lower() == self._identity.origin_host.lower():
            raise DiameterError(dictionary.UNKNOWN_PEER, None, "unknown peer")
        if connection.tls and not self._certified(connection.number, said.origin_host, entry):
            raise DiameterError(dictionary.UNKNOWN_PEER, None, "no certificate for this Origin-Host")
        if not said.common_application:
            raise DiameterError(dictionary.NO_COMMON_APPLICATION, None, "no common application")
        return entry

    def _secures(self, connection: _Connection, said: Capabilities, entry: PeerEntry) -> bool:
        """Whether TLS is to begin behind the CEA. Raises `DiameterError` with 5017 (RFC 6733 6.10).

        With TLS before the CER, what the CER says of TLS means nothing.
        """
        if connection.tls:
            if entry.tls == "never":
                raise DiameterError(dictionary.NO_COMMON_SECURITY, None, "TLS is not for this peer")
            return False
        if said.offers_tls and self.security.inband and entry.tls != "never":
            return True
        if entry.tls == "required" or not said.accepts_clear:
            raise DiameterError(dictionary.NO_COMMON_SECURITY, None, "no common security")
        return False

    def _certified(self, number: int, origin_host: str, entry: PeerEntry) -> bool:
        """Whether the certificate will do; none at all will where none is asked for."""
        certified = self._owner.certified(number, origin_host)
        if certified is None:
            return entry.tls != "required" or not self.security.certificates_required
        return certified

    def _accept(self, connection: _Connection, incoming: Incoming, entry: PeerEntry, now: float) -> list[Action]:
        """Finds the state machine that the connection is for, or has it refused."""
        name = incoming.capabilities.origin_host
        group = self._groups.get(name.lower())
        if group is None:
            group = self._groups[name.lower()] = _Group(name, named=False)
        busy = [peer for peer in group.peers if peer.has_incoming]
        peer = self._free_place(group, entry, incoming) if len(busy) < entry.connections else None
        left: list[Action] = []
        if peer is None:
            peer = next((peer for peer in busy or group.peers if self._gives_way(peer, incoming, now)), None)
            if peer is None:
                # By whichever: none of them takes it in.
                return self._after(group.peers[0], [group.peers[0].reject(incoming)])
            left = self._left(peer.give_way(now))
        peer.entry = entry
        connection.peer = peer
        return [*left, *self._set_terms(group), *self._after(peer, peer.accept(incoming, now))]

    def _gives_way(self, peer: Peer, incoming: Incoming, now: float) -> bool:
        if (number := peer.number) is None:
            return False
        present = self._connections.get(number)
        here = present is not None and present.remote == incoming.remote
        trusted = here or self._owner.certified(incoming.number, incoming.capabilities.origin_host) is True
        return peer.gives_way(incoming, self._owner.idle(number), now, trusted=trusted)

    def _free_place(self, group: _Group, entry: PeerEntry, incoming: Incoming) -> Peer | None:
        """The state machine for another connection: one that connects to where this comes from, one that is closed, one
        that is being connected to, or a new one where there may be more.

        A connection that has yet to show its certificate is held against none of ours: an election could cost us ours.
        """
        free = [
            peer
            for peer in group.peers
            if peer.state is PeerState.CLOSED or (peer.state in _FREE and not incoming.inband_tls)
        ]
        for peer in free:
            if peer.connect is not None and peer.connect[0] == incoming.remote:
                return peer
        free.sort(key=lambda peer: peer.state is not PeerState.CLOSED)
        if free:
            return free[0]
        return self._add(group, entry) if len(group.peers) < max(group.places, entry.connections) else None

    # The policy.

    def start(self, now: float) -> list[Action]:
        """Begins with the peers that the policy names."""
        return self.set_policy(self._policy, now)

    def set_policy(self, policy: PeerPolicy, now: float) -> list[Action]:
        """Another policy: peers come and go, and the terms of those that stay are the new ones at once.

        One that may not be connected any more is told DO_NOT_WANT_TO_TALK_TO_YOU. That TLS is now required, or that
        fewer connections are allowed, holds for the next connection.
        """
        self._policy = policy
        out: list[Action] = []
        named = policy.named
        for name, entries in named.items():
            out += self._name(name, entries, now)
        for name, group in list(self._groups.items()):
            group.named = name in named
            for peer in list(group.peers):
                out += self._review(group, peer, now)
            out += self._tidy(group)
        for connection in list(self._connections.values()):
            if connection.cer_deadline is not None and not policy.knows(connection.remote):
                out += self._give_up(connection, Reason.ADDRESS_NOT_ALLOWED)
        return out

    def terms(self) -> list[Action]:
        """The terms in force, once more."""
        return [SetTerms(group.origin_host, group.terms) for group in self._groups.values() if group.terms is not None]

    def connect_now(self, origin_host: str, now: float) -> list[Action]:
        """Somebody says so: connect to a peer at once, whatever it or this node had said before."""
        group = self._groups.get(origin_host.lower())
        if group is None or self._stopping:
            return []
        return [action for peer in list(group.peers) for action in self._after(peer, peer.start(now))]

    def disconnect_all(self, cause: DisconnectCause, now: float) -> list[Action]:
        """Sends a DPR to every open peer and closes the others. Nobody is let in any more, or connected to."""
        self._stopping = True
        out: list[Action] = []
        for connection in list(self._connections.values()):
            if connection.cer_deadline is not None:
                out += self._give_up(connection, Reason.STOPPED)
        for group in list(self._groups.values()):
            for peer in list(group.peers):
                peer.forget_address()
                out += self._after(peer, peer.disconnect(cause, now))
        return out

    def _name(self, name: str, entries: list[PeerEntry], now: float) -> list[Action]:
        """Sees that a named peer is there, with a state machine for each of its addresses."""
        out: list[Action] = []
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(entries[0].origin_host, named=True)
            out += self._set_terms(group)
        group.named = True
        addresses = {endpoint: entry for entry in entries for endpoint in entry.connect}
        group.places = max(len(addresses), *(entry.connections for entry in entries))
        present = {peer.connect for peer in group.peers}
        for endpoint, entry in addresses.items():
            if endpoint not in present and not self._stopping:
                peer = self._add(group, entry, endpoint)
                out += self._after(peer, peer.start(now))
        if not group.peers:
            self._add(group, entries[0])
        return out

    def _review(self, group: _Group, peer: Peer, now: float) -> list[Action]:
        """Holds one peer to the policy that is now in force."""
        entries = self._policy.named.get(group.origin_host.lower(), [])
        entry = next((entry for entry in entries if peer.connect in entry.connect), None)
        if entry is None:
            peer.forget_address()
            known = [self._connections[number] for number in peer.numbers if number in self._connections]
            incoming = [connection for connection in known if not connection.outgoing]
            if incoming:
                entry = self._policy.find(peer.origin_host, incoming[0].remote)
            elif not peer.numbers:
                entry = next(iter(entries), None)
        if entry is None:
            return self._after(peer, peer.disconnect(DisconnectCause.DO_NOT_WANT_TO_TALK_TO_YOU, now))
        peer.entry = entry
        return []

    def _set_terms(self, group: _Group) -> list[Action]:
        """Tells the terms of a peer where they have changed: those of its first entry, or that let it in first."""
        own = self._policy.named.get(group.origin_host.lower())
        entry = own[0] if own else group.peers[0].entry
        if entry == group.terms:
            return []
        group.terms = entry
        return [SetTerms(group.origin_host, entry)]

    def _add(self, group: _Group, entry: PeerEntry, connect: Endpoint | None = None) -> Peer:
        peer = Peer(
            self._identity,
            group.origin_host,
            entry,
            self._owner.random,
            self._timers,
            connect=connect,
            changes=self.changes,
        )
        group.peers.append(peer)
        return peer

    # What follows from what a peer does.

    def _after(self, peer: Peer, actions: list[Action]) -> list[Action]:
        """What a peer wants done, when it is noted what that changes here."""
        self._left(actions)
        self._deadlines.watch(peer)
        group = self._groups.get(peer.origin_host.lower())
        return actions if group is None else [*actions, *self._tidy(group)]

    def _left(self, actions: list[Action]) -> list[Action]:
        """Connections that are closed are nobody's any more, until they are gone."""
        for action in actions:
            if isinstance(action, Close | SendAndClose) and (left := self._connections.get(action.number)):
                left.peer = None
        return actions

    def _tidy(self, group: _Group) -> list[Action]:
        """Forgets the state machines that nothing keeps, and with the last of them the peer."""
        keep = group.places if group.named else 0
        for peer in reversed(group.peers):
            if len(group.peers) <= keep:
                break
            if peer.state is PeerState.CLOSED and peer.connect is None:
                group.peers = [other for other in group.peers if other is not peer]
                self._deadlines.forget(peer)
        if self._groups.get(group.origin_host.lower()) is not group:
            return []
        if group.peers:
            return self._set_terms(group)
        del self._groups[group.origin_host.lower()]
        return [SetTerms(group.origin_host, None)]

    def _give_up(self, connection: _Connection, reason: Reason) -> list[Action]:
        connection.cer_deadline = None
        self._deadlines.forget(connection)
        return [Close(connection.number, reason)]

    def _last_received(self, peer: Peer, now: float) -> float:
        connection = None if peer.number is None else self._connections.get(peer.number)
        if connection is None:
            return now
        idle = self._owner.idle(connection.number)
        return connection.since if idle is None else now - idle

    # Views.

    def open_peers(self) -> int:
        """How many state machines serve a connection."""
        # Copies: Prometheus asks from a thread of its own.
        return sum(peer.is_open for group in list(self._groups.values()) for peer in list(group.peers))

    def table(self, now: float) -> Iterator[PeerView]:
        """Every peer there is, and those that are kept out."""
        for group in list(self._groups.values()):
            for peer in list(group.peers):
                found = (self._connections.get(number) for number in list(peer.numbers))
                shown = tuple(self._view(connection, now) for connection in found if connection is not None)
                yield view_of(peer, shown, named=group.named)
        entries = {entry.origin_host.lower(): entry for entry in self._policy.entries}
        for name in sorted(self._policy.disabled - self._groups.keys()):
            yield view_of_disabled(name, entries.get(name))

    def waiting(self, now: float) -> Iterator[ConnectionView]:
        """Connections whose CER has not come."""
        for connection in list(self._connections.values()):
            if connection.cer_deadline is not None:
                yield self._view(connection, now)

    def _view(self, connection: _Connection, now: float) -> ConnectionView:
        return ConnectionView(
            number=connection.number,
            remote=text_of_endpoint((connection.remote, connection.port)),
            direction="out" if connection.outgoing else "in",
            tls=connection.tls,
            since=now - connection.since,
            idle=self._owner.idle(connection.number) or 0.0,
        )
