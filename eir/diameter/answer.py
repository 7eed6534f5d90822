"""Answers to requests: who this node says it is, and what every answer takes over from its request.

Implements RFC 6733 6.2 (answer processing), 7.2 (the short grammar of protocol errors) and 7.5 (Failed-AVP), and what
RFC 7944 (priority) and RFC 7683 5.1.3 (overload) have an answer say. Called by `capabilities`, `requests` and `s13`,
which add what their commands ask for.

It has to answer requests that do not decode, so it reads no more of one than it needs: the header, and the AVPs that
go back as they came, as far as they can be told apart. It never judges a request, and never answers an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from eir.diameter import dictionary
from eir.diameter.message import (
    ERROR,
    HEADER_LENGTH,
    MAX_LENGTH,
    PROXIABLE,
    Avp,
    DiameterError,
    Header,
    RawAvp,
    copy_avp,
    encode,
    encode_avp,
    encode_avps,
    make_avp,
    peek_header,
    walk,
)


@dataclass(frozen=True, slots=True)
class Identity:
    """What this node says of itself, in every answer and request of its own.

    `origin_state_id` grows with every start of the node (RFC 6733 8.16). `vendor_id` is the enterprise number of
    whoever made the software, not of whoever defined the application; 0 is reserved to mean "ignore this" (5.3.3),
    which is right for those who have none.
    """

    origin_host: str
    origin_realm: str
    origin_state_id: int
    product_name: str = "eir"
    vendor_id: int = 0
    firmware_revision: int = 1

    def avps(self) -> tuple[Avp, ...]:
        """Origin-Host and Origin-Realm, as every message has them (RFC 6733 6.3, 6.4)."""
        return (
            make_avp(dictionary.ORIGIN_HOST, self.origin_host),
            make_avp(dictionary.ORIGIN_REALM, self.origin_realm),
        )

    def state_avp(self) -> Avp:
        """Origin-State-Id (RFC 6733 8.16)."""
        return make_avp(dictionary.ORIGIN_STATE_ID, self.origin_state_id)


_LOWEST_PROTOCOL_ERROR: Final = 3000
_HIGHEST_PROTOCOL_ERROR: Final = 3999


def is_protocol_error(result_code: int) -> bool:
    """Whether an answer with this Result-Code carries the E bit and the short grammar (RFC 6733 7.1.3, 7.2)."""
    return _LOWEST_PROTOCOL_ERROR <= result_code <= _HIGHEST_PROTOCOL_ERROR


def build_answer(request: bytes, identity: Identity, result_code: int, own: Sequence[Avp] = ()) -> bytes:
    """The answer to `request` with `result_code` and then the AVPs that the command asks for, `own`.

    Raises `ValueError` where `request` is not the beginning of a request: there is nothing to answer, and the caller
    has looked.
    """
    return _build(request, identity, result_code, encode_avps(own), b"")


def build_refusal(request: bytes, identity: Identity, error: DiameterError, own: Sequence[Avp] = ()) -> bytes:
    """The answer that tells the sender of `request` what was wrong with it.

    A protocol error has the short grammar, and `own` is left out; any other has the grammar of its command, for which
    `own` is what that asks for besides the Result-Code and the identity. Raises as `build_answer`.
    """
    content = b"" if is_protocol_error(error.result_code) else encode_avps(own)
    details = encode_avp(make_avp(dictionary.ERROR_MESSAGE, error.text))
    if error.failed_avp is not None:
        details += encode_avp(make_avp(dictionary.FAILED_AVP, error.failed_avp))
    return _build(request, identity, error.result_code, content, details)


def _build(request: bytes, identity: Identity, result_code: int, own: bytes, details: bytes) -> bytes:
    header = peek_header(request)
    if header is None or not header.is_request:
        raise ValueError("only a request is answered")
    # P as it came, T cleared, E by the code; both identifiers as they came, for they are how the answer finds its
    # request.
    flags = header.flags & PROXIABLE | (ERROR if is_protocol_error(result_code) else 0)
    answer = Header(flags, header.command, header.application, header.hop_by_hop, header.end_to_end)
    returned = _returned(request)
    result = encode_avp(make_avp(dictionary.RESULT_CODE, result_code))
    features = _SUPPORTED_FEATURES if header.application == dictionary.APPLICATION_S13 and returned.features else b""
    content = (returned.session_id, returned.priority, result, encode_avps(identity.avps()), own, details, features)
    return encode(answer, b"".join((*content, *returned.proxy_info)))


# The answer to a node that speaks of overload: so does this one (RFC 7683 5.1.3).
_SUPPORTED_FEATURES: Final = encode_avp(
    make_avp(dictionary.OC_SUPPORTED_FEATURES, (make_avp(dictionary.OC_FEATURE_VECTOR, dictionary.LOSS_ALGORITHM),))
)


@dataclass(slots=True)
class _Returned:
    """What an answer takes over, encoded."""

    session_id: bytes = b""
    priority: bytes = b""
    features: bool = False
    proxy_info: list[bytes] = field(default_factory=list)


def _returned(request: bytes) -> _Returned:
    """What goes back as it came: the first Session-Id, the first DRMP (RFC 7944 8), and every Proxy-Info in its order
    (RFC 6733 6.2); and whether the first OC-Supported-Features is to be answered.

    Taken from the bytes, not from decoded AVPs: a request that fails at its fifth AVP still has the four before it,
    and the agent that left a Proxy-Info finds it unchanged.
    """
    returned, asked = _Returned(), False
    try:
        for raw in walk(request, HEADER_LENGTH, min(len(request), MAX_LENGTH)):
            if raw.key == dictionary.SESSION_ID.key and not returned.session_id:
                returned.session_id = copy_avp(request, raw)
            elif raw.key == dictionary.DRMP.key and not returned.priority and raw.end - raw.data_start == _DRMP_LENGTH:
                returned.priority = copy_avp(request, raw)
            elif raw.key == dictionary.OC_SUPPORTED_FEATURES.key and not asked:
                asked, returned.features = True, _knows_loss(request, raw)
            elif raw.key == dictionary.PROXY_INFO.key:
                returned.proxy_info.append(copy_avp(request, raw))
    except DiameterError:
        pass  # It was, or is about to be, reported by who decoded the message.
    return returned


_DRMP_LENGTH: Final = dictionary.FIXED_LENGTHS[dictionary.DRMP.type]


def _knows_loss(request: bytes, group: RawAvp) -> bool:
    """Whether an OC-Supported-Features names the loss algorithm, as one without a vector does (RFC 7683 7.1)."""
    try:
        vectors = [
            int.from_bytes(request[raw.data_start : raw.end], "big")
            for raw in walk(request, group.data_start, group.end)
            if raw.key == dictionary.OC_FEATURE_VECTOR.key
        ]
    except DiameterError:
        return False
    return not vectors or bool(vectors[0] & dictionary.LOSS_ALGORITHM)
