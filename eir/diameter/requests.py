"""What a request on an open connection is answered with, one way or the other.

Implements the answers to DWR (RFC 6733 5.5.2), DPR (5.4.2) and a CER that comes too late, the refusals of RFC 6733 7
for everything else, and who may speak for whom (5004). Called by `peer`; the data plane answers ECRs and DWRs in
which nothing is out of the ordinary, so this sees the rest.

Every request has one answer, and nothing that is in it raises. It never sees a verdict, keeps nothing, and does not
close: that a DPR came is said in the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eir.diameter import dictionary
from eir.diameter.answer import Identity, build_answer, build_refusal
from eir.diameter.capabilities import build_cea_refusal
from eir.diameter.dictionary import DisconnectCause
from eir.diameter.message import (
    Avp,
    DiameterError,
    Header,
    check_grammar,
    check_header,
    command_of,
    decode,
    invalid_value,
    numbers_of,
    text_of,
)
from eir.diameter.peer_policy import Address, Role
from eir.diameter.s13 import refuse, refuse_for

_EXCHANGED_ALREADY: Final = DiameterError(dictionary.UNABLE_TO_COMPLY, None, "capabilities are exchanged already")
# Nothing is wrong with the ECR, and yet the data plane did not answer it: that is this node's failure, and said so.
_NOT_ANSWERED: Final = DiameterError(dictionary.UNABLE_TO_COMPLY, None, "cannot be answered")


@dataclass(frozen=True, slots=True)
class Sender:
    """Who is at the other end of a connection, and whom it may speak for."""

    origin_host: str
    role: Role = "auto"
    advertised_relay: bool = False

    def may_send(self, avps: tuple[Avp, ...]) -> bool:
        """Whether a request with these AVPs may come from there.

        A `direct` peer speaks for itself, a `relay` for anyone. `auto` speaks for others where it advertised the relay
        application or the request has a Route-Record, which every agent has to add (RFC 6733 6.1.9).
        """
        if self.role == "relay" or text_of(avps, dictionary.ORIGIN_HOST).lower() == self.origin_host.lower():
            return True
        if self.role == "direct":
            return False
        return self.advertised_relay or any(avp.key == dictionary.ROUTE_RECORD.key for avp in avps)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer `data`, the `code` in it, and for a DPR that is in order its Disconnect-Cause."""

    data: bytes
    code: int
    disconnect_cause: DisconnectCause | None = None


def answer(data: bytes, header: Header, identity: Identity, local: Address, sender: Sender) -> Outcome:
    """The answer to a request; `header` is what `peek_header` found in it, `local` our address on the connection."""
    try:
        command = command_of(check_header(data))
        if command is dictionary.ME_IDENTITY_CHECK:
            return _answer_ecr(data, identity, sender)
        avps = decode(data).avps
        check_grammar(command, avps)
    except DiameterError as error:
        return _refuse(data, header, identity, local, error)
    if command is dictionary.DISCONNECT_PEER:
        (cause,) = numbers_of(avps, dictionary.DISCONNECT_CAUSE)
        return Outcome(build_answer(data, identity, dictionary.SUCCESS), dictionary.SUCCESS, DisconnectCause(cause))
    if command is dictionary.DEVICE_WATCHDOG:
        own = (identity.state_avp(),)
        return Outcome(build_answer(data, identity, dictionary.SUCCESS, own), dictionary.SUCCESS)
    # RFC 6733 1.1.3 took CER out of the open state, and its table has no row for it. It is a request all the same, so
    # it is refused; what was agreed stands.
    return _refuse(data, header, identity, local, _EXCHANGED_ALREADY)


def _answer_ecr(data: bytes, identity: Identity, sender: Sender) -> Outcome:
    refusal = refuse(data, identity)
    if refusal is None:
        avps = decode(data).avps
        error = _NOT_ANSWERED
        if not sender.may_send(avps):
            error = invalid_value(avps, dictionary.ORIGIN_HOST, "the peer does not speak for this Origin-Host")
        refusal = refuse_for(data, identity, error)
    return Outcome(refusal.data, refusal.code)


def _refuse(data: bytes, header: Header, identity: Identity, local: Address, error: DiameterError) -> Outcome:
    """The refusal in the grammar of the command, which the header tells even where it is what was wrong."""
    if header.command == dictionary.ME_IDENTITY_CHECK.code:
        return Outcome(refuse_for(data, identity, error).data, error.result_code)
    if header.command == dictionary.CAPABILITIES_EXCHANGE.code:
        return Outcome(build_cea_refusal(data, identity, local, error), error.result_code)
    return Outcome(build_refusal(data, identity, error), error.result_code)
