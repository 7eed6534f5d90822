"""S13 on the slow path: what is wrong with an ME-Identity-Check-Request that the data plane could not answer.

Implements 3GPP TS 29.272 6.2.1, 7.2.19-20 (ECR, ECA) and 7.3.3-4 (Terminal-Information, IMEI) with the error rules of
RFC 6733 7. Called by `peer`; the data plane, which answers every ECR that is in order, hands up only those it cannot
read.

It never looks at a list: there is no verdict here. What the verdict decides is no error here either, an IMEI that is
text but no IMEI (a `malformed` device) or a 3GPP2-MEID without IMEI (5422, unknown equipment). A Destination-Host or
Destination-Realm that names someone else is tolerated: this node is an end point and routes nothing, so what reached
it was meant for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eir.diameter import dictionary
from eir.diameter.answer import Identity, build_refusal
from eir.diameter.capabilities import s13_application
from eir.diameter.message import (
    DiameterError,
    check_grammar,
    check_header,
    command_of,
    decode,
    encode_avp,
    groups_of,
    make_avp,
)

_ECA_AVPS: Final = (s13_application(), make_avp(dictionary.AUTH_SESSION_STATE, dictionary.NO_STATE_MAINTAINED))

_DEVICE_IDENTITIES: Final = frozenset({dictionary.IMEI.key, dictionary.MEID_3GPP2.key})
# Shown where neither is there: the IMEI, of the two, is the one that S13 is about, and its place is inside the group.
_IMEI_EXAMPLE: Final = encode_avp(make_avp(dictionary.TERMINAL_INFORMATION, (make_avp(dictionary.IMEI, ""),)))


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer: the whole message `data`, and the `code` in it, one of RFC 6733 7.1."""

    data: bytes
    code: int


def refuse(data: bytes, identity: Identity) -> Refusal | None:
    """The answer to an ECR that cannot be accepted, or None where nothing is wrong with it.

    The checks and their order are those of `message` (header, command, AVPs, grammar), then the IMEI. `data` is one
    request, from its first octet to its last; raises `ValueError` where it is not even the header of one.
    """
    try:
        _check_ecr(data)
    except DiameterError as error:
        return refuse_for(data, identity, error)
    return None


def refuse_for(data: bytes, identity: Identity, error: DiameterError) -> Refusal:
    """The answer to an ECR for an error already known, in the ECA's grammar (TS 29.272 7.2.20). Raises as `refuse`."""
    return Refusal(build_refusal(data, identity, error, _ECA_AVPS), error.result_code)


def _check_ecr(data: bytes) -> None:
    """Raises `DiameterError` for the first thing wrong with an ECR; returns where there is none."""
    command_of(check_header(data))
    avps = decode(data).avps
    check_grammar(dictionary.ME_IDENTITY_CHECK, avps)
    (terminal,) = groups_of(avps, dictionary.TERMINAL_INFORMATION)
    if not any(avp.key in _DEVICE_IDENTITIES for avp in terminal):
        raise DiameterError(dictionary.MISSING_AVP, _IMEI_EXAMPLE, "neither IMEI nor 3GPP2-MEID")
