"""One peer: executes RFC 6733 5.6 with the watchdog of RFC 3539, from its first connection to the end of its last.

The table is in `peer_fsm`; this is what its actions do, with 5.3 (capabilities), 5.4 (disconnecting), 5.5 (watchdog,
in `watchdog`), 5.6.4 (election) and 2.1 (connecting again after Tc). Called by `peers`, which knows who an incoming
connection is from, with the messages that the data plane hands up, whole and one at a time, and with the time; the
data plane answers ECRs and DWRs of an open connection itself, so this sees the rest.

A request gives exactly one action: it is answered, refused with a code, discarded, or its connection is closed. So does
an answer, but for the DWA that was asked for. Nothing a peer sends raises. It never touches a socket, has no clock, and
knows no other peer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from eir.diameter import capabilities, dictionary, requests
from eir.diameter.actions import Action, Close, Connect, Discard, Reason, Secure, Send, SendAndClose, SendAndOpen
from eir.diameter.answer import Identity
from eir.diameter.capabilities import Capabilities, Incoming
from eir.diameter.dictionary import DisconnectCause
from eir.diameter.message import DiameterError, Header, peek_header
from eir.diameter.own_requests import OwnRequests
from eir.diameter.peer_fsm import TRANSITIONS, PeerAction, PeerEvent, PeerState
from eir.diameter.peer_policy import Address, Endpoint, PeerEntry
from eir.diameter.peer_timers import DEFAULT_TIMERS, NEVER, SILENCE, PeerTimers, pause_after
from eir.diameter.peer_view import StateChanges
from eir.diameter.watchdog import Watchdog, WatchdogAction, WatchdogState


@dataclass(slots=True)
class _Link:
    """A transport connection: I's or R's."""

    number: int
    local: Address | None = None
    incoming: Incoming | None = None
    """For R's only."""
    capabilities: Capabilities | None = None
    """What the peer said of itself on this connection."""


@dataclass(frozen=True, slots=True)
class _About:
    """What an event is about."""

    reason: Reason = Reason.STOPPED
    incoming: Incoming | None = None
    data: bytes = b""
    code: int | None = None
    cause: DisconnectCause | None = None


_NOTHING: Final = _About()

_DWR: Final = (dictionary.APPLICATION_BASE, dictionary.DEVICE_WATCHDOG.code)

_OPEN: Final = frozenset({PeerState.R_OPEN, PeerState.I_OPEN})
_CONNECTED: Final = _OPEN | {PeerState.CLOSING}
_CONNECTING: Final = frozenset({PeerState.WAIT_CONN_ACK, PeerState.WAIT_CONN_ACK_ELECT})
_AWAITING_CEA: Final = frozenset({PeerState.WAIT_I_CEA, PeerState.WAIT_RETURNS})

_CONNECTED_ALREADY: Final = DiameterError(dictionary.ELECTION_LOST, None, "connected already")


class Peer:
    """A peer, with at most two connections while an election is on. Times are seconds on the caller's clock, any clock
    that never goes back. What it is told returns what there is to do, in that order."""

    __slots__ = (
        "_changes",
        "_deadline",
        "_goodbye",
        "_i",
        "_identity",
        "_late",
        "_own",
        "_r",
        "_random",
        "_securing",
        "_state",
        "_tcs",
        "_timers",
        "_watchdog",
        "connect",
        "entry",
        "origin_host",
    )

    def __init__(
        self,
        identity: Identity,
        origin_host: str,
        entry: PeerEntry,
        random: Callable[[], float],
        timers: PeerTimers = DEFAULT_TIMERS,
        *,
        connect: Endpoint | None = None,
        changes: StateChanges | None = None,
    ) -> None:
        """`entry` is the one that admits the peer, which may be for many; `connect` is where it is connected to.

        `random` gives numbers from 0 up to 1, for jitter and the first identifiers. Raises `ValueError` for a Tw that
        the watchdog refuses.
        """
        self.origin_host: Final = origin_host
        self.entry = entry
        self.connect = connect
        self._identity = identity
        self._random = random
        self._timers = timers
        self._changes = changes or StateChanges()
        self._state = PeerState.CLOSED
        self._watchdog = Watchdog(random, timers.tw, self._changes.watchdogs)
        self._i: _Link | None = None
        self._r: _Link | None = None
        self._own = OwnRequests(identity, random)
        self._securing = False
        self._deadline: float | None = None
        self._late = Reason.CONNECT_TIMEOUT
        # Whether the peer itself said that the connection ends.
        self._goodbye = False
        self._tcs = 1.0

    @property
    def state(self) -> PeerState:
        """Where it stands in the table."""
        return self._state

    @property
    def watchdog_state(self) -> WatchdogState:
        """Where its watchdog stands."""
        return self._watchdog.state

    @property
    def is_open(self) -> bool:
        """Whether it is being served: capabilities are exchanged, and TLS is up where it was asked for."""
        return self._state in _OPEN and not self._securing

    @property
    def number(self) -> int | None:
        """The connection that is open, or closing; None where there is none."""
        link = self._serving()
        return None if link is None else link.number

    @property
    def numbers(self) -> tuple[int, ...]:
        """All its connections, those that are being made among them."""
        return tuple(link.number for link in (self._i, self._r) if link is not None)

    @property
    def has_incoming(self) -> bool:
        """Whether one of its connections is one that the peer opened."""
        return self._r is not None

    @property
    def waits_to_connect(self) -> bool:
        """Whether it will be connected to by and by."""
        return self._state is PeerState.CLOSED and self._deadline is not None

    # What the owner tells.

    def forget_address(self) -> None:
        """Connect to it no more. A connection that there is stays."""
        self.connect = None
        if self._state is PeerState.CLOSED:
            self._deadline = None

    def start(self, now: float) -> list[Action]:
        """Connect now, whatever was agreed about waiting. Without an address, or not closed, nothing is to be done."""
        if self._state is not PeerState.CLOSED or self.connect is None:
            return []
        self._tcs = 1.0
        wanted = self._watchdog.tc_expired(now)
        return self._take(PeerEvent.START, now) if WatchdogAction.ATTEMPT_OPEN in wanted else []

    def connecting(self, number: int | None, now: float) -> list[Action]:
        """The number that `Connect` has led to; None where it was not even begun."""
        if self._state not in _CONNECTING or self._i is not None:
            return [] if number is None else [Close(number, Reason.STOPPED)]
        if number is None:
            return self._take(PeerEvent.I_RCV_CONN_NACK, now)
        self._i = _Link(number)
        return []

    def connected(self, number: int, local: Address, now: float) -> list[Action]:
        """Our connection is made; `local` is our address on it."""
        if self._i is None or self._i.number != number or self._state not in _CONNECTING:
            return []
        self._i.local = local
        return self._take(PeerEvent.I_RCV_CONN_ACK, now)

    def accept(self, incoming: Incoming, now: float) -> list[Action]:
        """A connection of the peer's, with its CER."""
        return self._take(PeerEvent.R_CONN_CER, now, _About(Reason.DUPLICATE, incoming))

    def reject(self, incoming: Incoming) -> Action:
        """Refuses a connection of the peer's, whatever the state (R-Reject)."""
        return self._refuse(incoming, Reason.DUPLICATE)

    def gives_way(self, incoming: Incoming, silent: float | None, now: float, *, trusted: bool) -> bool:
        """Whether the connection there is may be closed for a new one of the peer's.

        A peer that has restarted must not be kept out by what is left of its old connection: so where the watchdog
        suspects that one, it is gone already (`silent` is None) or has said goodbye. A new one that is `trusted` to be
        the same peer's need not wait so long: some seconds of silence will do, or that its Origin-State-Id has grown
        (RFC 6733 8.16). Others could end a live peer by its name. One that has yet to show its certificate keeps nobody
        out.
        """
        link = self._serving()
        if link is None:
            return False
        if self._securing or silent is None or self._goodbye or self._watchdog.suspects(now - silent):
            return True
        before = link.capabilities.origin_state_id if link.capabilities is not None else 0
        return trusted and (silent >= SILENCE or 0 < before < incoming.capabilities.origin_state_id)

    def give_way(self, now: float) -> list[Action]:
        """Closes the open connection, as if it had been lost."""
        about = _About(Reason.REPLACED)
        if self._serving() is None:
            return []
        return self._take(PeerEvent.I_PEER_DISC if self._serves_i() else PeerEvent.R_PEER_DISC, now, about)

    def secured(self, now: float, *, certified: bool) -> list[Action]:
        """The TLS handshake that the CER asked for has ended well; `certified`: the certificate will do."""
        if not self._securing or self._r is None:
            return []
        if not certified:
            return self._take(PeerEvent.R_PEER_DISC, now, _About(Reason.CERTIFICATE_REFUSED))
        self._securing = False
        self._deadline = None
        return self._open(self._r, b"", now)

    def receive(self, number: int, data: bytes, now: float) -> list[Action]:
        """What to do about one message, from its first octet to its last. Never raises."""
        if number not in self.numbers:
            return [Discard(number, Reason.CLOSED)]
        header = peek_header(data)
        if number == self.number and not self._securing:
            return self._receive_open(number, header, data, now)
        if self._i is not None and number == self._i.number and self._state in _AWAITING_CEA:
            return self._receive_cea(self._i, header, data, now)
        return [Discard(number, Reason.NOT_OPEN)]

    def closed(self, number: int, now: float) -> list[Action]:
        """A connection is gone, or was not made."""
        if self._i is not None and self._i.number == number:
            self._i = None
            return self._take(PeerEvent.I_RCV_CONN_NACK if self._state in _CONNECTING else PeerEvent.I_PEER_DISC, now)
        if self._r is not None and self._r.number == number:
            self._r = None
            return self._take(PeerEvent.R_PEER_DISC, now)
        return []

    def disconnect(self, cause: DisconnectCause, now: float) -> list[Action]:
        """End the connection: where it is open by asking, at the latest `dpa_timeout` later (RFC 6733 5.4).

        Connecting again waits for as long as the cause says. What is closing anyway stays as it is.
        """
        self._tcs = max(self._tcs, pause_after(cause))
        if self._state is PeerState.CLOSED:
            self._deadline = None if self._deadline is None else self._next_attempt(now)
            return []
        if self._state is PeerState.CLOSING:
            return []
        if self._securing:
            # In the middle of a handshake there is no asking.
            return self._take(PeerEvent.R_PEER_DISC, now, _About(Reason.STOPPED))
        return self._take(PeerEvent.STOP, now, _About(Reason.STOPPED, cause=cause))

    def timer(self) -> float | None:
        """When to call `handle_timer`, at the latest; None: nothing to wait for. Ask again after every other call."""
        return self._watchdog.timer() if self.is_open else self._deadline

    def handle_timer(self, now: float, last_received: float) -> list[Action]:
        """What to do at `now`, when the last message on the open connection, whoever answered it, came at
        `last_received`.

        Called too early it does nothing.
        """
        if self.is_open:
            return self._obey(self._watchdog.handle_timer(now, last_received), now)
        if self._deadline is None or now < self._deadline:
            return []
        if self._state is PeerState.CLOSED:
            return self.start(now)
        if self._securing:
            return self._take(PeerEvent.R_PEER_DISC, now, _About(Reason.TLS_TIMEOUT))
        return self._take(PeerEvent.TIMEOUT, now, _About(self._late))

    # Messages.

    def _receive_open(self, number: int, header: Header | None, data: bytes, now: float) -> list[Action]:
        if header is None:
            return [Discard(number, Reason.UNREADABLE)]
        if not header.is_request:
            return self._receive_answer(number, header, now)
        link = self._serving()
        assert link is not None and link.local is not None
        outcome = requests.answer(data, header, self._identity, link.local, self._sender(link))
        about = _About(data=outcome.data, code=outcome.code, cause=outcome.disconnect_cause)
        if outcome.disconnect_cause is not None:
            return self._take_there(PeerEvent.I_RCV_DPR, PeerEvent.R_RCV_DPR, now, about)
        if (header.application, header.command) == _DWR:
            return self._take_there(PeerEvent.I_RCV_DWR, PeerEvent.R_RCV_DWR, now, about)
        return self._take_there(PeerEvent.I_RCV_MESSAGE, PeerEvent.R_RCV_MESSAGE, now, about)

    def _receive_answer(self, number: int, header: Header, now: float) -> list[Action]:
        """What an answer says changes nothing, only that it is one."""
        command = self._own.answered(header)
        if command is dictionary.DISCONNECT_PEER:
            # Who receives the DPA is who disconnects (RFC 6733 5.4), whatever Result-Code it carries.
            about = _About(Reason.DPA_RECEIVED)
            return self._take_there(PeerEvent.I_RCV_DPA, PeerEvent.R_RCV_DPA, now, about)
        if command is dictionary.DEVICE_WATCHDOG:
            return self._take_there(PeerEvent.I_RCV_DWA, PeerEvent.R_RCV_DWA, now)
        return [Discard(number, Reason.UNSOLICITED_ANSWER)]

    def _receive_cea(self, link: _Link, header: Header | None, data: bytes, now: float) -> list[Action]:
        """The one message that comes before our connection is open: nothing behind it would be seen before."""
        reason = self._check_cea(link, header, data)
        if reason is None:
            return self._take(PeerEvent.I_RCV_CEA, now, _About(Reason.ELECTION_LOST))
        return self._take(PeerEvent.I_RCV_NON_CEA, now, _About(reason))

    def _check_cea(self, link: _Link, header: Header | None, cea: bytes) -> Reason | None:
        """Why a message is not the CEA that was waited for, or None; then what it says is kept."""
        if header is None or header.is_request or self._own.answered(header) is not dictionary.CAPABILITIES_EXCHANGE:
            return Reason.NOT_CEA
        try:
            code, said = capabilities.read_cea(cea)
        except DiameterError:
            return Reason.NOT_CEA
        if code != dictionary.SUCCESS:
            return Reason.CEA_REFUSED
        # Who answers must be whom this node meant to connect to: an address may be another's by now.
        if said.origin_host.lower() != self.origin_host.lower() or not said.common_application:
            return Reason.NOT_CEA
        link.capabilities = said
        return None

    def _obey(self, wanted: tuple[WatchdogAction, ...], now: float) -> list[Action]:
        """What the watchdog wants done with the open connection."""
        out: list[Action] = []
        for action in wanted:
            if action is WatchdogAction.SEND_WATCHDOG:
                out += self._take(PeerEvent.SEND_MESSAGE, now, _About(data=self._own.dwr()))
            elif action is WatchdogAction.CLOSE_CONNECTION:
                about = _About(Reason.WATCHDOG)
                out += self._take_there(PeerEvent.I_PEER_DISC, PeerEvent.R_PEER_DISC, now, about)
        return out

    # The table.

    def _take_there(self, on_i: PeerEvent, on_r: PeerEvent, now: float, about: _About = _NOTHING) -> list[Action]:
        """An event on the connection that is open or closing."""
        return self._take(on_i if self._serves_i() else on_r, now, about)

    def _take(self, event: PeerEvent, now: float, about: _About = _NOTHING) -> list[Action]:
        """Executes the row for an event: its actions in their order, then what the next state asks for."""
        row = TRANSITIONS[self._state, event]
        before = self._state
        self._state = row.next_state
        if row.next_state is not before:
            self._changes.peers[before.value.lower(), row.next_state.value.lower()] += 1
            self._set_deadline(before, about, now)
        out: list[Action] = []
        for action in row.actions:
            out += self._do(action, about, now)
        if row.next_state is PeerState.I_OPEN and before is not PeerState.I_OPEN:
            assert self._i is not None
            out += self._open(self._i, b"", now)
        return out

    def _do(self, action: PeerAction, about: _About, now: float) -> list[Action]:
        match action:
            case PeerAction.I_SND_CONN_REQ:
                assert self.connect is not None
                tls_name = self.origin_host if self.entry.tls == "required" else None
                return [Connect(self.origin_host, *self.connect, tls_name)]
            case PeerAction.R_ACCEPT:
                assert about.incoming is not None
                incoming = about.incoming
                self._r = _Link(incoming.number, incoming.local, incoming, incoming.capabilities)
            case PeerAction.R_REJECT:
                assert about.incoming is not None
                return [self.reject(about.incoming)]
            case PeerAction.I_SND_CER:
                assert self._i is not None and self._i.local is not None
                return [Send(self._i.number, self._own.cer(self._i.local))]
            case PeerAction.ELECT:
                return self._elect(now)
            case PeerAction.R_SND_CEA:
                return self._send_cea(now)
            case PeerAction.I_DISC:
                return self._close_i(about.reason)
            case PeerAction.R_DISC:
                return self._close_r(about.reason)
            case PeerAction.ERROR | PeerAction.CLEANUP:
                return [*self._close_i(about.reason), *self._close_r(about.reason)]
            case PeerAction.PROCESS_DWA:
                # A connection that is closing is not watched any more; its DWA is still the one that was asked for.
                return self._obey(self._watchdog.dwa_received(now), now)
            case PeerAction.I_SND_DPR | PeerAction.R_SND_DPR:
                assert about.cause is not None
                return self._send(self._own.dpr(about.cause), None)
            case PeerAction.I_SND_DPA | PeerAction.R_SND_DPA:
                self._goodbye = True
                if about.cause is not None:
                    self._tcs = max(self._tcs, pause_after(about.cause))
                return self._send(about.data, about.code)
            case (
                PeerAction.PROCESS
                | PeerAction.I_SND_DWA
                | PeerAction.R_SND_DWA
                | PeerAction.I_SND_MESSAGE
                | PeerAction.R_SND_MESSAGE
            ):
                return self._send(about.data, about.code)
            case PeerAction.PROCESS_CER | PeerAction.PROCESS_CEA | PeerAction.PROCESS_DWR:
                pass  # Done already: whether it is in order decided which event this is.
        return []

    def _set_deadline(self, before: PeerState, about: _About, now: float) -> None:
        timers = self._timers
        match self._state:
            case PeerState.WAIT_CONN_ACK if before is PeerState.CLOSED:
                self._deadline, self._late = now + timers.connect_timeout, Reason.CONNECT_TIMEOUT
            case PeerState.WAIT_I_CEA | PeerState.WAIT_RETURNS if before in _CONNECTING:
                self._deadline, self._late = now + timers.cea_timeout, Reason.CEA_TIMEOUT
            case PeerState.R_OPEN | PeerState.I_OPEN:
                self._deadline = None
                self._tcs = 1.0
            case PeerState.CLOSING:
                self._watchdog.start_over()
                asked = about.code is None
                self._deadline = now + (timers.dpa_timeout if asked else timers.dpr_grace)
                self._late = Reason.DPA_TIMEOUT if asked else Reason.DPR_GRACE
            case PeerState.CLOSED:
                self._watchdog.connection_down(now)
                if not self.entry.is_name:
                    # Who comes by this name next need not be the one that went.
                    self._watchdog.start_over()
                self._own.forget()
                self._goodbye = self._securing = False
                self._deadline = self._next_attempt(now)
            case _:
                pass  # An election goes on against the deadline that it began with.

    def _next_attempt(self, now: float) -> float | None:
        if self.connect is None or self._tcs == NEVER:
            return None
        return now + self._tcs * self._timers.tc_with_jitter(self._random())

    def _elect(self, now: float) -> list[Action]:
        """RFC 6733 5.6.4, held when both connections are there: octets, with letters of either case alike."""
        ours, theirs = self._identity.origin_host.lower().encode(), self.origin_host.lower().encode()
        return self._take(PeerEvent.WIN_ELECTION, now, _About(Reason.ELECTION_WON)) if ours > theirs else []

    def _send_cea(self, now: float) -> list[Action]:
        assert self._r is not None and self._r.incoming is not None
        incoming = self._r.incoming
        cea = capabilities.build_cea(incoming.cer, self._identity, incoming.local, secure=incoming.inband_tls)
        if not incoming.inband_tls:
            return self._open(self._r, cea, now)
        self._securing = True
        self._deadline = now + self._timers.tls_timeout
        return [Secure(incoming.number, cea)]

    def _open(self, link: _Link, data: bytes, now: float) -> list[Action]:
        sender = self._sender(link)
        opened = SendAndOpen(link.number, data, self.origin_host, sender.role, sender.advertised_relay)
        return [opened, *self._obey(self._watchdog.connection_up(now), now)]

    def _close_i(self, reason: Reason) -> list[Action]:
        link, self._i = self._i, None
        return [] if link is None else [Close(link.number, reason)]

    def _close_r(self, reason: Reason) -> list[Action]:
        link, self._r = self._r, None
        if link is None:
            return []
        if reason is Reason.ELECTION_LOST and link.incoming is not None:
            return [self._refuse(link.incoming, reason)]
        return [Close(link.number, reason)]

    def _refuse(self, incoming: Incoming, reason: Reason) -> SendAndClose:
        cea = capabilities.build_cea_refusal(incoming.cer, self._identity, incoming.local, _CONNECTED_ALREADY)
        return SendAndClose(incoming.number, cea, reason, _CONNECTED_ALREADY.result_code)

    def _send(self, data: bytes, code: int | None) -> list[Action]:
        link = self._serving()
        return [] if link is None else [Send(link.number, data, code)]

    def _sender(self, link: _Link) -> requests.Sender:
        said = link.capabilities
        return requests.Sender(self.origin_host, self.entry.role, said is not None and said.relay)

    def _serves_i(self) -> bool:
        return self._i is not None and self._r is None

    def _serving(self) -> _Link | None:
        """The connection that is open or closing: then there is one only."""
        return (self._i or self._r) if self._state in _CONNECTED else None
