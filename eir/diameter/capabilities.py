"""Capabilities exchange: who may connect, and the answer to the Capabilities-Exchange-Request.

Implements RFC 6733 5.3 (CER and CEA), 2.4 (common applications) and, for S13, 3GPP TS 29.272 7.1.7 (the application is
advertised inside a Vendor-Specific-Application-Id). Called by `peer` with the first message of a connection.

It keeps no state and knows nothing of other connections: that a peer is connected already is for the server to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, TypeAlias

from eir.diameter import dictionary
from eir.diameter.answer import Identity, build_answer, build_refusal
from eir.diameter.message import (
    Avp,
    DiameterError,
    check_grammar,
    decode,
    groups_of,
    make_avp,
    numbers_of,
    text_of,
)

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class AllowedPeer:
    """Peers that may connect: an Origin-Host and where from.

    `origin_host` is a name, compared without regard to case (RFC 6733 4.3.1), or "*.suffix" for every name below that
    suffix, or "*" for every name. `networks` are those the connection may come from. Raises `ValueError` for a star
    anywhere else, an empty name, or no network: each would be a mistake that lets in nobody or, worse, everybody.
    """

    origin_host: str
    networks: tuple[Network, ...]

    def __post_init__(self) -> None:
        fixed = self.origin_host.removeprefix("*") if self.origin_host == "*" else self.origin_host.removeprefix("*.")
        if "*" in fixed or (not fixed and self.origin_host != "*"):
            raise ValueError(f"origin_host {self.origin_host!r} is neither a name, nor '*.suffix', nor '*'")
        if not self.networks:
            raise ValueError(f"no networks for origin_host {self.origin_host!r}")

    def admits(self, origin_host: str, address: Address) -> bool:
        """Whether a peer of this name may connect from this address, which is not an IPv4-mapped one."""
        return self._is_named(origin_host.lower()) and any(address in network for network in self.networks)

    def _is_named(self, name: str) -> bool:
        pattern = self.origin_host.lower()
        if pattern == "*":
            return True
        if pattern.startswith("*."):
            return name.endswith(pattern[1:]) and len(name) > len(pattern) - 1
        return name == pattern


@dataclass(frozen=True, slots=True)
class PeerPolicy:
    """Which peers are let in: those that one entry at least admits. No entries, no peers."""

    allowed: tuple[AllowedPeer, ...]

    def admits(self, origin_host: str, address: Address) -> bool:
        """Whether a peer of this name may connect from this address."""
        address = _unmapped(address)
        return any(peer.admits(origin_host, address) for peer in self.allowed)

    def knows(self, address: Address) -> bool:
        """Whether any peer may connect from this address."""
        address = _unmapped(address)
        return any(address in network for peer in self.allowed for network in peer.networks)


def _unmapped(address: Address) -> Address:
    """A socket that takes both families shows an IPv4 peer as ::ffff:a.b.c.d; the networks are written without."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def check_cer(cer: bytes, policy: PeerPolicy, remote: Address) -> str:
    """The Origin-Host of the peer that sent this CER, where it may be let in.

    The order: what the message is (`message`), who it is from (3010), what it supports (5010), what security it wants
    (5017). Raises `DiameterError`; the connection is then closed behind the answer (RFC 6733 5.3).
    """
    avps = decode(cer).avps
    check_grammar(dictionary.CAPABILITIES_EXCHANGE, avps)
    origin_host = text_of(avps, dictionary.ORIGIN_HOST)
    if not policy.admits(origin_host, remote):
        raise DiameterError(dictionary.UNKNOWN_PEER, None, "unknown peer")
    if not _advertised(avps) & _COMMON:
        raise DiameterError(dictionary.NO_COMMON_APPLICATION, None, "no common application")
    security = numbers_of(avps, dictionary.INBAND_SECURITY_ID)
    if security and dictionary.NO_INBAND_SECURITY not in security:
        raise DiameterError(dictionary.NO_COMMON_SECURITY, None, "no common security")
    return origin_host


_COMMON: Final = frozenset({dictionary.APPLICATION_S13, dictionary.APPLICATION_RELAY})
_APPLICATION_IDS: Final = (dictionary.AUTH_APPLICATION_ID, dictionary.ACCT_APPLICATION_ID)


def _advertised(avps: Sequence[Avp]) -> set[int]:
    """All application ids of a CER, as authentication, as accounting or within a vendor-specific group.

    Which of the three, and which vendor, makes no difference: the id alone is unique, and clients are found that use
    each.
    """
    places = [avps, *groups_of(avps, dictionary.VENDOR_SPECIFIC_APPLICATION_ID)]
    return {number for place in places for kind in _APPLICATION_IDS for number in numbers_of(place, kind)}


def build_cea(cer: bytes, identity: Identity, local: Address) -> bytes:
    """The CEA that opens the connection; `local` is our address on it. Raises `ValueError` if `cer` is no request."""
    own = (
        *_mandatory(identity, local),
        identity.state_avp(),
        make_avp(dictionary.SUPPORTED_VENDOR_ID, dictionary.VENDOR_3GPP),
        s13_application(),
        make_avp(dictionary.FIRMWARE_REVISION, identity.firmware_revision),
    )
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
    if isinstance(local, IPv6Address) and local.ipv4_mapped is not None:
        local = local.ipv4_mapped
    return (
        make_avp(dictionary.HOST_IP_ADDRESS, local),
        make_avp(dictionary.VENDOR_ID, identity.vendor_id),
        make_avp(dictionary.PRODUCT_NAME, identity.product_name),
    )
