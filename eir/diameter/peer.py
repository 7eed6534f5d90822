"""One incoming connection, from its first message to its end: what to send, and when to open or close it.

Implements the responder's half of the peer state machine of RFC 6733 5.6, with 5.3 (capabilities), 5.4
(disconnecting) and 5.5 (watchdog, in `watchdog`). Called by the server with the messages that the data plane hands
up, whole and one at a time, and with the time; the data plane answers ECRs and DWRs of an open connection itself, so
this sees the rest.

Every request gives exactly one action, so it is either answered, refused with a code, discarded, or closed upon, and
can be counted as that; so does every answer but the DWA that was asked for. Nothing a peer sends raises. It never
touches a socket, has no clock, and knows no other connection: whether a peer may be connected twice is for the server
to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum, auto
from types import MappingProxyType
from typing import Final, TypeAlias

from eir.diameter import dictionary
from eir.diameter.answer import Identity, build_answer, build_refusal
from eir.diameter.capabilities import Address, PeerPolicy, build_cea, build_cea_refusal, check_cer
from eir.diameter.dictionary import CommandDefinition
from eir.diameter.message import (
    REQUEST,
    Avp,
    DiameterError,
    Header,
    check_grammar,
    check_header,
    command_of,
    decode,
    encode,
    encode_avps,
    make_avp,
    peek_header,
)
from eir.diameter.s13 import refuse, refuse_for
from eir.diameter.watchdog import DEFAULT_TW, Watchdog, WatchdogAction, WatchdogState


class Reason(StrEnum):
    """Why a connection is closed or a message discarded; the values are for counters and logs."""

    CER_TIMEOUT = "cer-timeout"
    NOT_CER = "not-cer"
    """The first message was something else."""
    CER_REFUSED = "cer-refused"
    ADDRESS_NOT_ALLOWED = "address-not-allowed"
    """No peer may connect from there, whatever it calls itself."""
    WATCHDOG = "watchdog"
    DPA_RECEIVED = "dpa-received"
    DPA_TIMEOUT = "dpa-timeout"
    """Our DPR was not answered in time."""
    DPR_GRACE = "dpr-grace"
    """The peer said it would disconnect, got its DPA, and did not."""
    STOPPED = "stopped"
    """Told to disconnect before the connection was open."""
    UNSOLICITED_ANSWER = "unsolicited-answer"
    UNREADABLE = "unreadable"
    """Shorter than a header, so it cannot even be told whether it is a request."""
    CLOSED = "closed"
    """Came after the connection was closed."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send `data`. `result_code` is what an answer says; None for a request of our own."""

    data: bytes
    result_code: int | None = None


@dataclass(frozen=True, slots=True)
class SendAndOpen:
    """Send `data`, a CEA with 2001, and in the same step let the data plane serve the peer, `origin_host`."""

    data: bytes
    origin_host: str


@dataclass(frozen=True, slots=True)
class SendAndClose:
    """Send `data`, an answer with `result_code`, and close the connection behind it."""

    data: bytes
    reason: Reason
    result_code: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Discard:
    """Do nothing but count: the message was dropped."""

    reason: Reason


Action: TypeAlias = Send | SendAndOpen | SendAndClose | Close | Discard


class DisconnectCause(IntEnum):
    """Disconnect-Cause (RFC 6733 5.4.3)."""

    REBOOTING = 0
    BUSY = 1
    DO_NOT_WANT_TO_TALK_TO_YOU = 2


class PeerState(Enum):
    """The responder's states of RFC 6733 5.6; WAIT_CER is what its table calls Closed until R-Conn-CER."""

    WAIT_CER = auto()
    OPEN = auto()
    CLOSING = auto()
    """A DPA is outstanding, or was sent: the connection is served until it closes."""
    CLOSED = auto()


class PeerEvent(Enum):
    """What happens to a connection. MESSAGE is any that changes no state, answered or discarded."""

    CER_ACCEPTED = auto()
    CER_REFUSED = auto()
    NOT_CER = auto()
    MESSAGE = auto()
    DPR = auto()
    DPA = auto()
    """The answer to our own DPR, and no other."""
    STOP = auto()
    TIMEOUT = auto()
    LOST = auto()


_S = PeerState
_E = PeerEvent

TRANSITIONS: Final[Mapping[PeerState, Mapping[PeerEvent, PeerState]]] = MappingProxyType(
    {
        _S.WAIT_CER: {
            _E.CER_ACCEPTED: _S.OPEN,
            _E.CER_REFUSED: _S.CLOSED,
            _E.NOT_CER: _S.CLOSED,
            _E.STOP: _S.CLOSED,
            _E.TIMEOUT: _S.CLOSED,
            _E.LOST: _S.CLOSED,
        },
        _S.OPEN: {
            _E.MESSAGE: _S.OPEN,
            _E.DPR: _S.CLOSING,
            _E.STOP: _S.CLOSING,
            _E.TIMEOUT: _S.CLOSED,
            _E.LOST: _S.CLOSED,
        },
        # Both ends may send a DPR at once: a DPR is answered here too, and does not make ours void.
        _S.CLOSING: {
            _E.MESSAGE: _S.CLOSING,
            _E.DPR: _S.CLOSING,
            _E.DPA: _S.CLOSED,
            _E.TIMEOUT: _S.CLOSED,
            _E.LOST: _S.CLOSED,
        },
        _S.CLOSED: {
            _E.MESSAGE: _S.CLOSED,
            _E.LOST: _S.CLOSED,
        },
    }
)
"""{state: {event: next state}}. An event that a state does not list does not happen in it."""


@dataclass(frozen=True, slots=True)
class PeerTimers:
    """Seconds to wait for the CER, for the DPA to our DPR, for the close after our DPA; and Tw of the watchdog."""

    cer_timeout: float = 10.0
    dpa_timeout: float = 5.0
    dpr_grace: float = 5.0
    tw: float = DEFAULT_TW


DEFAULT_TIMERS: Final = PeerTimers()

_DWA: Final = (dictionary.APPLICATION_BASE, dictionary.DEVICE_WATCHDOG.code)
_DPA: Final = (dictionary.APPLICATION_BASE, dictionary.DISCONNECT_PEER.code)

_EXCHANGED_ALREADY: Final = DiameterError(dictionary.UNABLE_TO_COMPLY, None, "capabilities are exchanged already")
# Nothing is wrong with the ECR, and yet the data plane did not answer it: that is this node's failure, and said so.
_NOT_ANSWERED: Final = DiameterError(dictionary.UNABLE_TO_COMPLY, None, "cannot be answered")


class Peer:
    """A connection that a peer opened. Times are seconds on the caller's clock, any clock that never goes back."""

    __slots__ = (
        "_deadline",
        "_deadline_reason",
        "_dpr_id",
        "_dwr_id",
        "_identifier",
        "_identity",
        "_local",
        "_origin_host",
        "_policy",
        "_remote",
        "_state",
        "_timers",
        "_watchdog",
    )

    def __init__(
        self,
        identity: Identity,
        policy: PeerPolicy,
        local: Address,
        remote: Address,
        now: float,
        random: Callable[[], float],
        timers: PeerTimers = DEFAULT_TIMERS,
    ) -> None:
        """A connection accepted at `now`, between the addresses `local` (ours) and `remote`.

        `random` gives numbers from 0 up to 1, for the watchdog's jitter and the first identifiers. Raises
        `ValueError` for a Tw that the watchdog refuses.
        """
        self._identity = identity
        self._policy = policy
        self._local = local
        self._remote = remote
        self._timers = timers
        self._state = PeerState.WAIT_CER
        self._origin_host: str | None = None
        self._watchdog = Watchdog(random, timers.tw)
        # RFC 6733 3 wants identifiers that do not repeat soon after a restart: they begin at random and count up.
        self._identifier = int(random() * 0xFFFFFFFF)
        self._dwr_id: int | None = None
        self._dpr_id: int | None = None
        self._deadline: float | None = now + timers.cer_timeout
        self._deadline_reason = Reason.CER_TIMEOUT

    @property
    def state(self) -> PeerState:
        """Where the connection stands."""
        return self._state

    @property
    def watchdog_state(self) -> WatchdogState:
        """Where its watchdog stands."""
        return self._watchdog.state

    @property
    def origin_host(self) -> str | None:
        """The Origin-Host that the connection was opened with, and stays bound to; None before."""
        return self._origin_host

    def receive(self, data: bytes, now: float) -> list[Action]:
        """What to do about one message, from its first octet to its last.

        One action; none only for the DWA that was asked for. Never raises.
        """
        if self._state is PeerState.CLOSED:
            self._move(PeerEvent.MESSAGE)
            return [Discard(Reason.CLOSED)]
        header = peek_header(data)
        if self._state is PeerState.WAIT_CER:
            return [self._receive_first(header, data, now)]
        if header is None:
            self._move(PeerEvent.MESSAGE)
            return [Discard(Reason.UNREADABLE)]
        if not header.is_request:
            return self._receive_answer(header, now)
        return [self._receive_request(header, data, now)]

    def disconnect(self, cause: DisconnectCause, now: float) -> list[Action]:
        """Ask the peer to disconnect, and close at the latest `dpa_timeout` later (RFC 6733 5.4).

        Before the connection is open it is just closed; while it is closing anyway, nothing is to be done.
        """
        if self._state is PeerState.WAIT_CER:
            self._close(PeerEvent.STOP)
            return [Close(Reason.STOPPED)]
        if self._state is not PeerState.OPEN:
            return []
        self._begin_closing(PeerEvent.STOP, now + self._timers.dpa_timeout, Reason.DPA_TIMEOUT)
        own = (*self._identity.avps(), make_avp(dictionary.DISCONNECT_CAUSE, int(cause)))
        self._dpr_id, dpr = self._build_request(dictionary.DISCONNECT_PEER, own)
        return [Send(dpr)]

    def connection_lost(self) -> None:
        """The connection is gone: nothing more will be sent, and what still comes out of a queue is discarded."""
        self._close(PeerEvent.LOST)

    def timer(self) -> float | None:
        """When to call `handle_timer`, at the latest; None: nothing to wait for. Ask again after every other call."""
        return self._watchdog.timer() if self._state is PeerState.OPEN else self._deadline

    def handle_timer(self, now: float, last_received: float) -> list[Action]:
        """What to do at `now`, when the last message of the peer, whoever answered it, came at `last_received`.

        Called too early it does nothing.
        """
        if self._state is PeerState.OPEN:
            return self._handle_watchdog(now, last_received)
        if self._deadline is None or now < self._deadline:
            return []
        reason = self._deadline_reason
        self._close(PeerEvent.TIMEOUT)
        return [Close(reason)]

    def _handle_watchdog(self, now: float, last_received: float) -> list[Action]:
        action = self._watchdog.handle_timer(now, last_received)
        if action is WatchdogAction.SEND_DWR:
            own = (*self._identity.avps(), self._identity.state_avp())
            self._dwr_id, dwr = self._build_request(dictionary.DEVICE_WATCHDOG, own)
            return [Send(dwr)]
        if action is WatchdogAction.CLOSE:
            self._close(PeerEvent.TIMEOUT)
            return [Close(Reason.WATCHDOG)]
        return []

    def _receive_first(self, header: Header | None, cer: bytes, now: float) -> Action:
        """The message that should be the CER (RFC 6733 5.6: R-Conn-CER, the only way out of Closed)."""
        if header is None or not header.is_request or header.command != dictionary.CAPABILITIES_EXCHANGE.code:
            self._close(PeerEvent.NOT_CER)
            return Close(Reason.NOT_CER)
        try:
            command_of(check_header(cer))
            origin_host = check_cer(cer, self._policy, self._remote)
        except DiameterError as error:
            self._close(PeerEvent.CER_REFUSED)
            cea = build_cea_refusal(cer, self._identity, self._local, error)
            return SendAndClose(cea, Reason.CER_REFUSED, error.result_code)
        self._move(PeerEvent.CER_ACCEPTED)
        self._origin_host = origin_host
        self._deadline = None
        self._watchdog.connection_up(now)
        return SendAndOpen(build_cea(cer, self._identity, self._local), origin_host)

    def _receive_answer(self, header: Header, now: float) -> list[Action]:
        """An answer counts by its command and Hop-by-Hop Identifier; what else it says changes nothing."""
        question = (header.application, header.command)
        if question == _DPA and header.hop_by_hop == self._dpr_id:
            # Who receives the DPA is who disconnects (RFC 6733 5.4), whatever Result-Code it carries.
            self._close(PeerEvent.DPA)
            return [Close(Reason.DPA_RECEIVED)]
        self._move(PeerEvent.MESSAGE)
        if question != _DWA or header.hop_by_hop != self._dwr_id:
            return [Discard(Reason.UNSOLICITED_ANSWER)]
        self._dwr_id = None
        # A connection that is closing is not watched any more; its DWA is still the one that was asked for.
        if self._state is PeerState.OPEN:
            self._watchdog.dwa_received(now)
        return []

    def _receive_request(self, header: Header, data: bytes, now: float) -> Action:
        try:
            command = command_of(check_header(data))
            if command is not dictionary.ME_IDENTITY_CHECK:
                check_grammar(command, decode(data).avps)
        except DiameterError as error:
            self._move(PeerEvent.MESSAGE)
            return self._refuse(header, data, error)
        if command is dictionary.DISCONNECT_PEER:
            return self._answer_dpr(data, now)
        self._move(PeerEvent.MESSAGE)
        if command is dictionary.DEVICE_WATCHDOG:
            dwa = build_answer(data, self._identity, dictionary.SUCCESS, (self._identity.state_avp(),))
            return Send(dwa, dictionary.SUCCESS)
        if command is dictionary.CAPABILITIES_EXCHANGE:
            # RFC 6733 1.1.3 took CER out of the open state, and its table has no row for it. It is a request all the
            # same, so it is refused; what was agreed stands.
            return self._refuse(header, data, _EXCHANGED_ALREADY)
        refusal = refuse(data, self._identity) or refuse_for(data, self._identity, _NOT_ANSWERED)
        return Send(refusal.data, refusal.code)

    def _refuse(self, header: Header, data: bytes, error: DiameterError) -> Send:
        """The refusal in the grammar of the command, which the header tells even where it is what was wrong."""
        if header.command == dictionary.ME_IDENTITY_CHECK.code:
            refusal = refuse_for(data, self._identity, error)
            return Send(refusal.data, refusal.code)
        if header.command == dictionary.CAPABILITIES_EXCHANGE.code:
            return Send(build_cea_refusal(data, self._identity, self._local, error), error.result_code)
        return Send(build_refusal(data, self._identity, error), error.result_code)

    def _answer_dpr(self, data: bytes, now: float) -> Action:
        """DPA; then the peer, who receives it, disconnects (RFC 6733 5.4). The grace is for one that does not."""
        if self._state is PeerState.OPEN:
            self._begin_closing(PeerEvent.DPR, now + self._timers.dpr_grace, Reason.DPR_GRACE)
        else:
            self._move(PeerEvent.DPR)
        return Send(build_answer(data, self._identity, dictionary.SUCCESS), dictionary.SUCCESS)

    def _build_request(self, command: CommandDefinition, own: tuple[Avp, ...]) -> tuple[int, bytes]:
        """A request of our own, with the identifier that its answer will carry."""
        self._identifier = (self._identifier + 1) & 0xFFFFFFFF
        header = Header(REQUEST, command.code, command.application, self._identifier, self._identifier)
        return self._identifier, encode(header, encode_avps(own))

    def _begin_closing(self, event: PeerEvent, deadline: float, reason: Reason) -> None:
        self._move(event)
        self._watchdog.connection_down()
        self._deadline = deadline
        self._deadline_reason = reason

    def _close(self, event: PeerEvent) -> None:
        self._move(event)
        self._watchdog.connection_down()
        self._deadline = None

    def _move(self, event: PeerEvent) -> None:
        self._state = TRANSITIONS[self._state][event]
