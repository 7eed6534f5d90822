"""Capabilities exchange: what a CER or CEA says of its sender, and those that this node sends.

Implements RFC 6733 5.3 (CER and CEA), 2.4 (common applications), 6.10 (Inband-Security-Id) and, for S13, 3GPP TS
29.272 7.1.7 (the application is advertised inside a Vendor-Specific-Application-Id). Called by `peers` with the first
message of an incoming connection and by `peer` with the first answer on one of our own.

It keeps no state and knows no policy: who is let in is for `peers` to say.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from eir.diameter import dictionary
from eir.diameter.answer import Identity, build_answer, build_refusal
from eir.diameter.message import (
    Avp,
    DiameterError,
    check_grammar,
    check_header,
    command_of,
    decode,
    groups_of,
    invalid_value,
    make_avp,
    numbers_of,
    text_of,
)
from eir.diameter.peer_policy import Address, unmapped

_COMMON: Final = frozenset({dictionary.APPLICATION_S13, dictionary.APPLICATION_RELAY})
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
"""Letters, digits, hyphens and, as is found, underscores between single dots (RFC 6733 4.3.1, RFC 1035 2.3.1)."""
_MAX_NAME: Final = 255
"""Octets of a name (RFC 1035 2.3.4)."""
_APPLICATION_IDS: Final = (dictionary.AUTH_APPLICATION_ID, dictionary.ACCT_APPLICATION_ID)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a peer says of itself."""

    origin_host: str
    origin_state_id: int
    """0 where it keeps none (RFC 6733 8.16)."""
    common_application: bool
    relay: bool
    """It advertised the relay application: it may speak for others."""
    offers_tls: bool
    """It asks for TLS after the CEA (RFC 6733 6.10)."""
    accepts_clear: bool
    """It does without TLS, or says nothing."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A connection that a peer opened, with its CER, which was found in order: an R-Conn-CER (RFC 6733 5.6.1)."""

    number: int
    local: Address
    remote: Address
    cer: bytes
    capabilities: Capabilities
    inband_tls: bool = False
    """TLS is to begin behind the CEA."""


def read_cer(cer: bytes) -> Capabilities:
    """What a CER says. Raises `DiameterError` where it is none or is not in order."""
    command_of(check_header(cer))
    avps = decode(cer).avps
    check_grammar(dictionary.CAPABILITIES_EXCHANGE, avps)
    said = _capabilities(avps)
    if len(said.origin_host) > _MAX_NAME or not _NAME.fullmatch(said.origin_host):
        # It becomes a name in metrics, logs and answers, and is what policies are written for.
        raise invalid_value(avps, dictionary.ORIGIN_HOST, "Origin-Host is not a name")
    return said


def read_cea(cea: bytes) -> tuple[int, Capabilities]:
    """The Result-Code of a CEA and what it says. Raises `DiameterError` where it is not in order.

    Of a refusal nothing is asked but its code: with a protocol error it has the short grammar (RFC 6733 7.2).
    """
    check_header(cea)
    avps = decode(cea).avps
    codes = numbers_of(avps, dictionary.RESULT_CODE)
    if len(codes) != 1:
        raise DiameterError(dictionary.MISSING_AVP, None, "not one Result-Code")
    if codes[0] == dictionary.SUCCESS:
        check_grammar(dictionary.CAPABILITIES_EXCHANGE, avps)
    return codes[0], _capabilities(avps)


def _capabilities(avps: Sequence[Avp]) -> Capabilities:
    applications = _advertised(avps)
    security = numbers_of(avps, dictionary.INBAND_SECURITY_ID)
    return Capabilities(
        origin_host=text_of(avps, dictionary.ORIGIN_HOST),
        origin_state_id=next(iter(numbers_of(avps, dictionary.ORIGIN_STATE_ID)), 0),
        common_application=not _COMMON.isdisjoint(applications),
        relay=dictionary.APPLICATION_RELAY in applications,
        offers_tls=dictionary.INBAND_TLS in security,
        accepts_clear=not security or dictionary.NO_INBAND_SECURITY in security,
    )


def _advertised(avps: Sequence[Avp]) -> set[int]:
    """All application ids of a CER, as authentication, as accounting or within a vendor-specific group.

    Which of the three, and which vendor, makes no difference: the id alone is unique, and clients are found that use
    each.
    """
    places = [avps, *groups_of(avps, dictionary.VENDOR_SPECIFIC_APPLICATION_ID)]
    return {number for place in places for kind in _APPLICATION_IDS for number in numbers_of(place, kind)}


def cer_avps(identity: Identity, local: Address) -> tuple[Avp, ...]:
    """What the CER says that this node sends on a connection of its own; `local` is our address on it.

    Inband-Security-Id is left out, which says NO_INBAND_SECURITY (RFC 6733 6.10): where TLS is wanted it is up already.
    """
    return (*identity.avps(), *_mandatory(identity, local), *_optional(identity))


def build_cea(cer: bytes, identity: Identity, local: Address, *, secure: bool = False) -> bytes:
    """The CEA that opens the connection; `local` is our address on it. Raises `ValueError` if `cer` is no request.

    With `secure` it says that TLS begins behind it (RFC 6733 6.10).
    """
    security = (make_avp(dictionary.INBAND_SECURITY_ID, dictionary.INBAND_TLS),) if secure else ()
    own = (*_mandatory(identity, local), *_optional(identity), *security)
    return build_answer(cer, identity, dictionary.SUCCESS, own)


def build_cea_refusal(cer: bytes, identity: Identity, local: Address, error: DiameterError) -> bytes:
    """The CEA that says why the connection is about to be closed. Raises as `build_cea`."""
    return build_refusal(cer, identity, error, _mandatory(identity, local))


def s13_application() -> Avp:
    """The Vendor-Specific-Application-Id of S13 (TS 29.272 7.1.7), as a CEA and an ECA carry it.

    The relay's id is not advertised beside it: this node forwards nothing.
    """
    members = (
        make_avp(dictionary.VENDOR_ID, dictionary.VENDOR_3GPP),
        make_avp(dictionary.AUTH_APPLICATION_ID, dictionary.APPLICATION_S13),
    )
    return make_avp(dictionary.VENDOR_SPECIFIC_APPLICATION_ID, members)


def _mandatory(identity: Identity, local: Address) -> tuple[Avp, ...]:
    """What the grammar of a CEA asks for whatever its Result-Code is (RFC 6733 5.3.2)."""
    return (
        make_avp(dictionary.HOST_IP_ADDRESS, unmapped(local)),
        make_avp(dictionary.VENDOR_ID, identity.vendor_id),
        make_avp(dictionary.PRODUCT_NAME, identity.product_name),
    )


def _optional(identity: Identity) -> tuple[Avp, ...]:
    return (
        identity.state_avp(),
        make_avp(dictionary.SUPPORTED_VENDOR_ID, dictionary.VENDOR_3GPP),
        s13_application(),
        make_avp(dictionary.FIRMWARE_REVISION, identity.firmware_revision),
    )
