"""The Diameter dictionary: which AVPs, commands and result codes this node knows, as data.

Implements the tables of RFC 6733 (3.1, 4.5, 5.3-5.5, 7.1), of 3GPP TS 29.272 (S13: 6.2, 7.2.19-20, 7.3) and the few
AVPs of RFC 7683, RFC 7944 and RFC 8583 that clients put into any request. Read by `message` (how to decode an AVP),
`answer`, `capabilities` and `s13` (what to put into an answer), and by the test that holds the data plane to the same
`KNOWN_AVPS`.

It never decodes a byte and decides nothing: a rule that needs an `if` belongs to the module that applies it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Final

VENDOR_NONE: Final = 0
"""The vendor of an AVP without Vendor-ID field: the IETF's own (RFC 6733 4.1)."""
VENDOR_3GPP: Final = 10415

APPLICATION_BASE: Final = 0
APPLICATION_S13: Final = 16777252
APPLICATION_RELAY: Final = 0xFFFFFFFF
"""Advertised by a relay, and common with every application (RFC 6733 2.4)."""

# Result codes (RFC 6733 7.1), and no more of them than are sent.
SUCCESS: Final = 2001
COMMAND_UNSUPPORTED: Final = 3001
TOO_BUSY: Final = 3004
APPLICATION_UNSUPPORTED: Final = 3007
INVALID_HDR_BITS: Final = 3008
INVALID_AVP_BITS: Final = 3009
UNKNOWN_PEER: Final = 3010
ELECTION_LOST: Final = 4003
AVP_UNSUPPORTED: Final = 5001
INVALID_AVP_VALUE: Final = 5004
MISSING_AVP: Final = 5005
AVP_OCCURS_TOO_MANY_TIMES: Final = 5009
NO_COMMON_APPLICATION: Final = 5010
UNSUPPORTED_VERSION: Final = 5011
UNABLE_TO_COMPLY: Final = 5012
INVALID_AVP_LENGTH: Final = 5014
INVALID_MESSAGE_LENGTH: Final = 5015
NO_COMMON_SECURITY: Final = 5017

NO_STATE_MAINTAINED: Final = 1
"""Auth-Session-State (RFC 6733 8.11): S13 keeps no session (TS 29.272 7.1.4)."""
NO_INBAND_SECURITY: Final = 0
INBAND_TLS: Final = 1
"""Inband-Security-Id (RFC 6733 6.10): TLS is already up when the CER comes, or not wanted; or begins after the CEA."""
LOSS_ALGORITHM: Final = 1
"""The bit of OC-Feature-Vector for OLR_DEFAULT_ALGO (RFC 7683 7.2), which every node that speaks of overload has."""


class DisconnectCause(IntEnum):
    """Disconnect-Cause (RFC 6733 5.4.3)."""

    REBOOTING = 0
    BUSY = 1
    DO_NOT_WANT_TO_TALK_TO_YOU = 2


class AvpType(Enum):
    """A data format of RFC 6733 4.2-4.4, with the Python type that `message` gives its values."""

    OCTET_STRING = "OctetString"
    """`bytes`, any length."""
    INTEGER32 = "Integer32"
    """`int`, 4 octets, signed."""
    UNSIGNED32 = "Unsigned32"
    """`int`, 4 octets."""
    UNSIGNED64 = "Unsigned64"
    """`int`, 8 octets."""
    ENUMERATED = "Enumerated"
    """`int`, 4 octets, signed; limited to `AvpDefinition.values` where those are given."""
    TIME = "Time"
    """`int`, 4 octets: NTP seconds. Carried, never read."""
    UTF8_STRING = "UTF8String"
    """`str`, any length."""
    IDENTITY = "DiameterIdentity"
    """`str`, at least one octet, printable ASCII without spaces."""
    URI = "DiameterURI"
    """`str`, as an identity."""
    ADDRESS = "Address"
    """`IPv4Address` or `IPv6Address`; `bytes` (with the two family octets) for any other address family."""
    GROUPED = "Grouped"
    """`tuple[Avp, ...]`."""
    OPAQUE_GROUP = "Grouped, not looked into"
    """`bytes`: a group whose content is not this node's to judge, an agent's state or an AVP known to be broken."""


FIXED_LENGTHS: Final[Mapping[AvpType, int]] = MappingProxyType(
    {
        AvpType.INTEGER32: 4,
        AvpType.UNSIGNED32: 4,
        AvpType.UNSIGNED64: 8,
        AvpType.ENUMERATED: 4,
        AvpType.TIME: 4,
    }
)
"""Octets of data of the types whose length is fixed; any other length is answered 5014."""

MINIMUM_LENGTHS: Final[Mapping[AvpType, int]] = MappingProxyType({**FIXED_LENGTHS, AvpType.ADDRESS: 6})
"""Octets of zero that stand for a value in a Failed-AVP (RFC 6733 7.1.5); types that are not here have none."""


@dataclass(frozen=True, slots=True)
class AvpDefinition:
    """One AVP as its specification defines it.

    `vendor` is 0 for an AVP without Vendor-ID field; `mandatory` is whether the M bit is set when this node sends it
    (the M bit of a received AVP is not held against the definition); `values`, for an Enumerated AVP, are all the
    values it may have, or None where a value is only carried.
    """

    name: str
    code: int
    type: AvpType
    vendor: int = VENDOR_NONE
    mandatory: bool = True
    values: frozenset[int] | None = None

    @property
    def key(self) -> tuple[int, int]:
        """(vendor, code): what identifies an AVP on the wire (RFC 6733 4.1)."""
        return (self.vendor, self.code)


@dataclass(frozen=True, slots=True)
class Rule:
    """How often an AVP occurs in a message or a group: at least `least`, at most `most` times (None: any number)."""

    avp: AvpDefinition
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class CommandDefinition:
    """A request that this node answers, and the grammar its AVPs are held to (RFC 6733 3.2).

    AVPs without a rule may occur in any number: every grammar here ends with `*[AVP]`. `session` is whether the
    grammar begins with `< Session-Id >`, in that place.
    """

    name: str
    code: int
    application: int
    session: bool
    rules: tuple[Rule, ...]


# RFC 6733, in the order of codes.
USER_NAME: Final = AvpDefinition("User-Name", 1, AvpType.UTF8_STRING)
SESSION_ID: Final = AvpDefinition("Session-Id", 263, AvpType.UTF8_STRING)
HOST_IP_ADDRESS: Final = AvpDefinition("Host-IP-Address", 257, AvpType.ADDRESS)
AUTH_APPLICATION_ID: Final = AvpDefinition("Auth-Application-Id", 258, AvpType.UNSIGNED32)
ACCT_APPLICATION_ID: Final = AvpDefinition("Acct-Application-Id", 259, AvpType.UNSIGNED32)
VENDOR_SPECIFIC_APPLICATION_ID: Final = AvpDefinition("Vendor-Specific-Application-Id", 260, AvpType.GROUPED)
ORIGIN_HOST: Final = AvpDefinition("Origin-Host", 264, AvpType.IDENTITY)
SUPPORTED_VENDOR_ID: Final = AvpDefinition("Supported-Vendor-Id", 265, AvpType.UNSIGNED32)
VENDOR_ID: Final = AvpDefinition("Vendor-Id", 266, AvpType.UNSIGNED32)
FIRMWARE_REVISION: Final = AvpDefinition("Firmware-Revision", 267, AvpType.UNSIGNED32, mandatory=False)
RESULT_CODE: Final = AvpDefinition("Result-Code", 268, AvpType.UNSIGNED32)
PRODUCT_NAME: Final = AvpDefinition("Product-Name", 269, AvpType.UTF8_STRING, mandatory=False)
DISCONNECT_CAUSE: Final = AvpDefinition(
    "Disconnect-Cause", 273, AvpType.ENUMERATED, values=frozenset(map(int, DisconnectCause))
)
AUTH_SESSION_STATE: Final = AvpDefinition("Auth-Session-State", 277, AvpType.ENUMERATED, values=frozenset({0, 1}))
ORIGIN_STATE_ID: Final = AvpDefinition("Origin-State-Id", 278, AvpType.UNSIGNED32)
# Never looked into: what a Failed-AVP holds is wrong by definition.
FAILED_AVP: Final = AvpDefinition("Failed-AVP", 279, AvpType.OPAQUE_GROUP)
ERROR_MESSAGE: Final = AvpDefinition("Error-Message", 281, AvpType.UTF8_STRING, mandatory=False)
ROUTE_RECORD: Final = AvpDefinition("Route-Record", 282, AvpType.IDENTITY)
DESTINATION_REALM: Final = AvpDefinition("Destination-Realm", 283, AvpType.IDENTITY)
# Never looked into: the local state of an agent on the way, which goes back as it came (RFC 6733 6.2).
PROXY_INFO: Final = AvpDefinition("Proxy-Info", 284, AvpType.OPAQUE_GROUP)
DESTINATION_HOST: Final = AvpDefinition("Destination-Host", 293, AvpType.IDENTITY)
ORIGIN_REALM: Final = AvpDefinition("Origin-Realm", 296, AvpType.IDENTITY)
INBAND_SECURITY_ID: Final = AvpDefinition("Inband-Security-Id", 299, AvpType.UNSIGNED32)

# RFC 7944: message priority; RFC 7683: overload.
DRMP: Final = AvpDefinition("DRMP", 301, AvpType.ENUMERATED, mandatory=False)
OC_SUPPORTED_FEATURES: Final = AvpDefinition("OC-Supported-Features", 621, AvpType.GROUPED, mandatory=False)
OC_FEATURE_VECTOR: Final = AvpDefinition("OC-Feature-Vector", 622, AvpType.UNSIGNED64, mandatory=False)

# 3GPP TS 29.272 7.3.
TERMINAL_INFORMATION: Final = AvpDefinition("Terminal-Information", 1401, AvpType.GROUPED, VENDOR_3GPP)
IMEI: Final = AvpDefinition("IMEI", 1402, AvpType.UTF8_STRING, VENDOR_3GPP)
SOFTWARE_VERSION: Final = AvpDefinition("Software-Version", 1403, AvpType.UTF8_STRING, VENDOR_3GPP)
EQUIPMENT_STATUS: Final = AvpDefinition(
    "Equipment-Status", 1445, AvpType.ENUMERATED, VENDOR_3GPP, values=frozenset({0, 1, 2})
)
MEID_3GPP2: Final = AvpDefinition("3GPP2-MEID", 1471, AvpType.OCTET_STRING, VENDOR_3GPP)

_NAMED: Final = (
    USER_NAME,
    SESSION_ID,
    HOST_IP_ADDRESS,
    AUTH_APPLICATION_ID,
    ACCT_APPLICATION_ID,
    VENDOR_SPECIFIC_APPLICATION_ID,
    ORIGIN_HOST,
    SUPPORTED_VENDOR_ID,
    VENDOR_ID,
    FIRMWARE_REVISION,
    RESULT_CODE,
    PRODUCT_NAME,
    DISCONNECT_CAUSE,
    AUTH_SESSION_STATE,
    ORIGIN_STATE_ID,
    FAILED_AVP,
    ERROR_MESSAGE,
    ROUTE_RECORD,
    DESTINATION_REALM,
    PROXY_INFO,
    DESTINATION_HOST,
    ORIGIN_REALM,
    INBAND_SECURITY_ID,
    DRMP,
    OC_SUPPORTED_FEATURES,
    OC_FEATURE_VECTOR,
    TERMINAL_INFORMATION,
    IMEI,
    SOFTWARE_VERSION,
    EQUIPMENT_STATUS,
    MEID_3GPP2,
)

# AVPs that are understood and then not used. They are listed because the M bit on an AVP that is not known costs its
# sender a 5001 (RFC 6733 4.1), and clients do send these with it: in the ECR or, for the accounting and routing ones,
# through an agent.
_TOLERATED: Final = (
    # RFC 6733 4.5
    AvpDefinition("Class", 25, AvpType.OCTET_STRING),
    AvpDefinition("Session-Timeout", 27, AvpType.UNSIGNED32),
    AvpDefinition("Proxy-State", 33, AvpType.OCTET_STRING),
    AvpDefinition("Acct-Session-Id", 44, AvpType.OCTET_STRING),
    AvpDefinition("Acct-Multi-Session-Id", 50, AvpType.UTF8_STRING),
    AvpDefinition("Event-Timestamp", 55, AvpType.TIME),
    AvpDefinition("Acct-Interim-Interval", 85, AvpType.UNSIGNED32),
    AvpDefinition("Redirect-Host-Usage", 261, AvpType.ENUMERATED),
    AvpDefinition("Redirect-Max-Cache-Time", 262, AvpType.UNSIGNED32),
    AvpDefinition("Session-Binding", 270, AvpType.UNSIGNED32),
    AvpDefinition("Session-Server-Failover", 271, AvpType.ENUMERATED),
    AvpDefinition("Multi-Round-Time-Out", 272, AvpType.UNSIGNED32),
    AvpDefinition("Auth-Request-Type", 274, AvpType.ENUMERATED),
    AvpDefinition("Auth-Grace-Period", 276, AvpType.UNSIGNED32),
    AvpDefinition("Proxy-Host", 280, AvpType.IDENTITY),
    AvpDefinition("Re-Auth-Request-Type", 285, AvpType.ENUMERATED),
    AvpDefinition("Accounting-Sub-Session-Id", 287, AvpType.UNSIGNED64),
    AvpDefinition("Authorization-Lifetime", 291, AvpType.UNSIGNED32),
    AvpDefinition("Redirect-Host", 292, AvpType.URI),
    AvpDefinition("Error-Reporting-Host", 294, AvpType.IDENTITY, mandatory=False),
    AvpDefinition("Termination-Cause", 295, AvpType.ENUMERATED),
    AvpDefinition("Experimental-Result", 297, AvpType.GROUPED),
    AvpDefinition("Experimental-Result-Code", 298, AvpType.UNSIGNED32),
    AvpDefinition("Accounting-Record-Type", 480, AvpType.ENUMERATED),
    AvpDefinition("Accounting-Realtime-Required", 483, AvpType.ENUMERATED),
    AvpDefinition("Accounting-Record-Number", 485, AvpType.UNSIGNED32),
    # RFC 7683: overload
    AvpDefinition("OC-OLR", 623, AvpType.GROUPED, mandatory=False),
    AvpDefinition("OC-Sequence-Number", 624, AvpType.UNSIGNED64, mandatory=False),
    AvpDefinition("OC-Validity-Duration", 625, AvpType.UNSIGNED32, mandatory=False),
    AvpDefinition("OC-Report-Type", 626, AvpType.ENUMERATED, mandatory=False),
    AvpDefinition("OC-Reduction-Percentage", 627, AvpType.UNSIGNED32, mandatory=False),
    # RFC 8581, RFC 8583: load
    AvpDefinition("SourceID", 649, AvpType.IDENTITY, mandatory=False),
    AvpDefinition("Load", 650, AvpType.GROUPED, mandatory=False),
    AvpDefinition("Load-Type", 651, AvpType.ENUMERATED, mandatory=False),
    AvpDefinition("Load-Value", 652, AvpType.UNSIGNED64, mandatory=False),
    # 3GPP TS 29.229: feature negotiation; TS 29.329: the subscriber's number, in some vendors' ECR
    AvpDefinition("Supported-Features", 628, AvpType.GROUPED, VENDOR_3GPP, mandatory=False),
    AvpDefinition("Feature-List-ID", 629, AvpType.UNSIGNED32, VENDOR_3GPP, mandatory=False),
    AvpDefinition("Feature-List", 630, AvpType.UNSIGNED32, VENDOR_3GPP, mandatory=False),
    AvpDefinition("MSISDN", 701, AvpType.OCTET_STRING, VENDOR_3GPP),
)

AVPS: Final[Mapping[tuple[int, int], AvpDefinition]] = MappingProxyType(
    {definition.key: definition for definition in _NAMED + _TOLERATED}
)
"""Every AVP this node knows, by (vendor, code). One flat table: where an AVP may stand is a matter of grammars."""

KNOWN_AVPS: Final = frozenset(AVPS)
"""The (vendor, code) of AVPs that may carry the M bit; any other that does is answered 5001.

The data plane holds the same set."""

_OF_S13: Final = frozenset(
    definition.key for definition in (TERMINAL_INFORMATION, IMEI, SOFTWARE_VERSION, EQUIPMENT_STATUS, MEID_3GPP2)
)
_FIRST_OF_DIAMETER: Final = 257
_LAST_OF_THE_BASE: Final = 485

MISPLACED: Final = frozenset(
    {(VENDOR_NONE, code) for _, code in _OF_S13}
    | {
        (VENDOR_3GPP, code)
        for vendor, code in KNOWN_AVPS
        if vendor == VENDOR_NONE and _FIRST_OF_DIAMETER <= code <= _LAST_OF_THE_BASE and code != DRMP.code
    }
)
"""The (vendor, code) that an AVP of S13 or of the base protocol gets by a V bit forgotten or set by mistake.

No others: 3GPP has AVPs of its own under the numbers below 257 (TS 29.061; 1 is its IMSI), under 301 (TS 29.234) and
from 600 on (TS 29.229), so those are AVPs that this node does not know, and no slips."""


def _required(avp: AvpDefinition) -> Rule:
    return Rule(avp, 1, 1)


def _optional(avp: AvpDefinition) -> Rule:
    return Rule(avp, 0, 1)


CAPABILITIES_EXCHANGE: Final = CommandDefinition(
    "Capabilities-Exchange",
    257,
    APPLICATION_BASE,
    session=False,
    rules=(
        _required(ORIGIN_HOST),
        _required(ORIGIN_REALM),
        Rule(HOST_IP_ADDRESS, 1, None),
        _required(VENDOR_ID),
        _required(PRODUCT_NAME),
        _optional(ORIGIN_STATE_ID),
        _optional(FIRMWARE_REVISION),
    ),
)
DEVICE_WATCHDOG: Final = CommandDefinition(
    "Device-Watchdog",
    280,
    APPLICATION_BASE,
    session=False,
    rules=(_required(ORIGIN_HOST), _required(ORIGIN_REALM), _optional(ORIGIN_STATE_ID)),
)
DISCONNECT_PEER: Final = CommandDefinition(
    "Disconnect-Peer",
    282,
    APPLICATION_BASE,
    session=False,
    rules=(_required(ORIGIN_HOST), _required(ORIGIN_REALM), _required(DISCONNECT_CAUSE)),
)
ME_IDENTITY_CHECK: Final = CommandDefinition(
    "ME-Identity-Check",
    324,
    APPLICATION_S13,
    session=True,
    rules=(
        _required(SESSION_ID),
        _optional(VENDOR_SPECIFIC_APPLICATION_ID),
        _required(AUTH_SESSION_STATE),
        _required(ORIGIN_HOST),
        _required(ORIGIN_REALM),
        _optional(DESTINATION_HOST),
        _required(DESTINATION_REALM),
        _required(TERMINAL_INFORMATION),
        _optional(USER_NAME),
    ),
)

COMMANDS: Final[Mapping[int, CommandDefinition]] = MappingProxyType(
    {command.code: command for command in (CAPABILITIES_EXCHANGE, DEVICE_WATCHDOG, DISCONNECT_PEER, ME_IDENTITY_CHECK)}
)
"""The commands this node answers, by Command-Code."""

APPLICATIONS: Final = frozenset(command.application for command in COMMANDS.values())

GROUP_RULES: Final[Mapping[tuple[int, int], tuple[Rule, ...]]] = MappingProxyType(
    {TERMINAL_INFORMATION.key: (_optional(IMEI), _optional(MEID_3GPP2), _optional(SOFTWARE_VERSION))}
)
"""Grammars of Grouped AVPs, by the group's (vendor, code). A group that is not here needs only to decode: a
Vendor-Specific-Application-Id that repeats an id, or names no vendor, still says what its sender supports."""
