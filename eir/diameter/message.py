"""The codec of whole Diameter messages: bytes to a header and a tree of AVPs, and back.

Implements RFC 6733 3 (header), 4.1-4.4 (AVPs), 3.2 (what a command's grammar asks of its AVPs) and 7.1.5 with 7.5
(which error, and what its Failed-AVP holds). Called by `answer`, `capabilities`, `requests` and `s13` for the messages
that the data plane hands up; the data plane has a codec of its own for those it answers.

Whatever the bytes are, reading them raises `DiameterError` and nothing else. One error is reported, the first in this
order:

1. the header: 5015 shorter than a header, 5011 version, 5015 Message Length, 5012 longer than `MAX_LENGTH`, 3008 R
   and E bits;
2. the command (`command_of`): 3007 application, then 3001 command;
3. each AVP in the order of the message, groups depth first (`decode`): 5014 AVP Length, 3009 known but for its V bit
   and with the M bit, 5001 unknown with the M bit, 5014 wrong length for its type, 5004 value;
4. the grammar (`check_grammar`): 5005 Session-Id not in the first place, then in the order of the message 5009 the
   first AVP too many, then in the order of the grammar 5005 the first AVP missing.

Reserved bits, of the header and of AVPs, are ignored (RFC 6733 3, 4.1), and so is what the padding holds. It never
keeps a message, and never builds an answer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from eir.diameter import dictionary
from eir.diameter.dictionary import AvpDefinition, AvpType, CommandDefinition, Rule

HEADER_LENGTH: Final = 20
MAX_LENGTH: Final = 16384
"""Octets of the longest message decoded: no CER or ECR comes near it, and decoding takes the control plane's time."""

REQUEST: Final = 0x80
PROXIABLE: Final = 0x40
ERROR: Final = 0x20
RETRANSMITTED: Final = 0x10

_VENDOR_SPECIFIC: Final = 0x80
MANDATORY: Final = 0x40
PROTECTED: Final = 0x20

# No group of the dictionary has, by its specification, another group in it: what goes deeper than this is meant to.
_MAX_DEPTH: Final = 4

_HEADER: Final = struct.Struct(">5I")
_AVP_HEADER: Final = struct.Struct(">2I")
_U24: Final = 0xFFFFFF

_FAMILY_IPV4: Final = b"\x00\x01"
_FAMILY_IPV6: Final = b"\x00\x02"
_SIGNED: Final = frozenset({AvpType.INTEGER32, AvpType.ENUMERATED})

Value: TypeAlias = "int | str | bytes | IPv4Address | IPv6Address | tuple[Avp, ...]"
"""The data of an AVP, as its `AvpType` has it; `bytes` for an AVP that the dictionary does not know."""


class DiameterError(Exception):
    """A message cannot be accepted, and this is what to tell its sender.

    `result_code` is one of the codes of RFC 6733 7.1; `failed_avp` is what goes into the Failed-AVP, whole and
    encoded, or None where the error has no AVP to show; `text` is for the Error-Message and never repeats the peer's
    bytes.
    """

    def __init__(self, result_code: int, failed_avp: bytes | None, text: str) -> None:
        super().__init__(f"{result_code} {text}")
        self.result_code = result_code
        self.failed_avp = failed_avp
        self.text = text


@dataclass(frozen=True, slots=True)
class Header:
    """A message header (RFC 6733 3) without version and length. `flags` has the R, P, E and T bits in their places."""

    flags: int
    command: int
    application: int
    hop_by_hop: int
    end_to_end: int

    @property
    def is_request(self) -> bool:
        """Whether the R bit is set."""
        return bool(self.flags & REQUEST)


@dataclass(frozen=True, slots=True)
class Avp:
    """One AVP (RFC 6733 4.1). `flags` has the M and P bits in their places; V is set where `vendor` is not 0."""

    code: int
    vendor: int
    flags: int
    value: Value

    @property
    def key(self) -> tuple[int, int]:
        """(vendor, code), as in the dictionary."""
        return (self.vendor, self.code)


@dataclass(frozen=True, slots=True)
class Message:
    """A decoded message: its header and its AVPs in their order."""

    header: Header
    avps: tuple[Avp, ...]


@dataclass(frozen=True, slots=True)
class RawAvp:
    """Where one AVP lies in a message: header from `start`, data from `data_start` up to `end`, without the padding."""

    code: int
    vendor: int
    flags: int
    start: int
    data_start: int
    end: int

    @property
    def key(self) -> tuple[int, int]:
        """(vendor, code), as in the dictionary."""
        return (self.vendor, self.code)


def peek_header(data: bytes) -> Header | None:
    """The header unchecked, so that even a message with a wrong one can be answered; None below 20 octets."""
    if len(data) < HEADER_LENGTH:
        return None
    _, flags_and_command, application, hop_by_hop, end_to_end = _HEADER.unpack_from(data)
    flags = (flags_and_command >> 24) & 0xF0
    return Header(flags, flags_and_command & _U24, application, hop_by_hop, end_to_end)


def check_header(data: bytes) -> Header:
    """The header of the one message that `data` holds, from its first octet to its last.

    Raises `DiameterError` with 5015, 5011, 5012 or 3008 (RFC 6733 3, 7.1).
    """
    header = peek_header(data)
    if header is None:
        raise DiameterError(dictionary.INVALID_MESSAGE_LENGTH, None, "shorter than a header")
    if data[0] != 1:
        raise DiameterError(dictionary.UNSUPPORTED_VERSION, None, "version is not 1")
    length = int.from_bytes(data[1:4], "big")
    if length != len(data) or length % 4:
        raise DiameterError(dictionary.INVALID_MESSAGE_LENGTH, None, "wrong Message Length")
    if length > MAX_LENGTH:
        raise DiameterError(dictionary.UNABLE_TO_COMPLY, None, "message too long")
    if header.flags & REQUEST and header.flags & ERROR:
        raise DiameterError(dictionary.INVALID_HDR_BITS, None, "E bit set in a request")
    return header


def command_of(header: Header) -> CommandDefinition:
    """The command that a request asks for.

    A command of ours under another application than its own is an application we do not have (3007), also where both
    are known: an ECR of the base protocol exists as little as a DWR of S13. The application is looked at first, since
    it is what gives a Command-Code its meaning. Raises `DiameterError` with 3007 or 3001 (RFC 6733 7.1.3).
    """
    command = dictionary.COMMANDS.get(header.command)
    if command is not None and command.application == header.application:
        return command
    if command is not None or header.application not in dictionary.APPLICATIONS:
        raise DiameterError(dictionary.APPLICATION_UNSUPPORTED, None, "application not supported")
    raise DiameterError(dictionary.COMMAND_UNSUPPORTED, None, "command not supported")


def decode(data: bytes) -> Message:
    """The message that `data` holds, from its first octet to its last.

    Raises `DiameterError` for the steps 1 and 3 above.
    """
    header = check_header(data)
    return Message(header, _decode_avps(data, HEADER_LENGTH, len(data), 1))


def walk(data: bytes, start: int, end: int) -> Iterator[RawAvp]:
    """The AVPs between two offsets of a message, their data not looked at.

    Yields those before the first that does not fit, then raises `DiameterError` with 5014 (RFC 6733 7.1.5).
    """
    while start < end:
        if end - start < _AVP_HEADER.size:
            # A header cut short, made whole with zeros; the code is all that can be told of it, if that.
            code = int.from_bytes(data[start:end][:4].ljust(4, b"\x00"), "big")
            raise _invalid_length(code, dictionary.VENDOR_NONE, 0)
        code, flags_and_length = _AVP_HEADER.unpack_from(data, start)
        flags, length = flags_and_length >> 24, flags_and_length & _U24
        vendor, data_start = dictionary.VENDOR_NONE, start + _AVP_HEADER.size
        if flags & _VENDOR_SPECIFIC:
            vendor = int.from_bytes(data[data_start : min(data_start + 4, end)].ljust(4, b"\x00"), "big")
            data_start += 4
        stop = start + length
        # The padding is a part of the group around it (RFC 6733 4.4): where it is missing, the AVP does not fit.
        following = stop + -length % 4
        if stop < data_start or following > end:
            raise _invalid_length(code, vendor, flags)
        yield RawAvp(code, vendor, flags & (MANDATORY | PROTECTED), start, data_start, stop)
        start = following


def _invalid_length(code: int, vendor: int, flags: int) -> DiameterError:
    """5014 with the offending header and a zero-filled payload of least length (RFC 6733 7.1.5).

    The length in that header is made true again: were the wrong one repeated, the answer could not be decoded either.
    """
    definition = dictionary.AVPS.get((vendor, code))
    payload = _zeros(definition) if definition is not None else b""
    failed = _frame(code, vendor, flags & (MANDATORY | PROTECTED), payload)
    return DiameterError(dictionary.INVALID_AVP_LENGTH, failed, "wrong AVP Length")


def _zeros(definition: AvpDefinition) -> bytes:
    return bytes(dictionary.MINIMUM_LENGTHS.get(definition.type, 0))


def _decode_avps(data: bytes, start: int, end: int, depth: int) -> tuple[Avp, ...]:
    return tuple(_decode_avp(data, raw, depth) for raw in walk(data, start, end))


def _decode_avp(data: bytes, raw: RawAvp, depth: int) -> Avp:
    definition = dictionary.AVPS.get(raw.key)
    content = data[raw.data_start : raw.end]
    if definition is None:
        if raw.flags & MANDATORY:
            if raw.key in dictionary.MISPLACED:
                text = "AVP with the V bit of another"
                raise DiameterError(dictionary.INVALID_AVP_BITS, copy_avp(data, raw), text)
            raise DiameterError(dictionary.AVP_UNSUPPORTED, copy_avp(data, raw), "AVP with the M bit not supported")
        return Avp(raw.code, raw.vendor, raw.flags, content)
    if definition.type is AvpType.GROUPED:
        if depth == _MAX_DEPTH:
            raise DiameterError(dictionary.INVALID_AVP_VALUE, copy_avp(data, raw), "groups nested too deep")
        try:
            members = _decode_avps(data, raw.data_start, raw.end, depth + 1)
        except DiameterError as error:
            raise _within(raw, error) from None
        return Avp(raw.code, raw.vendor, raw.flags, members)
    fixed = dictionary.FIXED_LENGTHS.get(definition.type)
    if fixed is not None and len(content) != fixed:
        raise DiameterError(dictionary.INVALID_AVP_LENGTH, copy_avp(data, raw), f"{definition.name} has a wrong length")
    try:
        return Avp(raw.code, raw.vendor, raw.flags, _decode_value(definition, content))
    except ValueError:
        text = f"{definition.name} has an invalid value"
        raise DiameterError(dictionary.INVALID_AVP_VALUE, copy_avp(data, raw), text) from None


def _decode_value(definition: AvpDefinition, content: bytes) -> int | str | bytes | IPv4Address | IPv6Address:
    """The value of an AVP that is no group and, where its length is fixed, has it. Raises `ValueError`."""
    kind = definition.type
    if kind in dictionary.FIXED_LENGTHS:
        number = int.from_bytes(content, "big", signed=kind in _SIGNED)
        if definition.values is not None and number not in definition.values:
            raise ValueError("not one of the enumerated values")
        return number
    if kind is AvpType.UTF8_STRING:
        return content.decode("utf-8")
    if kind is AvpType.IDENTITY or kind is AvpType.URI:
        identity = content.decode("ascii")
        if not identity or not all("!" <= character <= "~" for character in identity):
            raise ValueError("not an identity")
        return identity
    if kind is AvpType.ADDRESS:
        return _decode_address(content)
    return content


def _decode_address(content: bytes) -> bytes | IPv4Address | IPv6Address:
    family, address = content[:2], content[2:]
    # The constructors refuse octets of another number than their family has.
    if family == _FAMILY_IPV4:
        return IPv4Address(address)
    if family == _FAMILY_IPV6:
        return IPv6Address(address)
    if not address:
        raise ValueError("no address")
    return content


def copy_avp(data: bytes, raw: RawAvp) -> bytes:
    """An AVP of a received message, its data untouched and padded with zeros."""
    return _frame(raw.code, raw.vendor, raw.flags, data[raw.data_start : raw.end])


def _within(group: RawAvp | Avp, error: DiameterError) -> DiameterError:
    """The same error, its AVP shown inside the group that it was found in (RFC 6733 7.5)."""
    failed = _frame(group.code, group.vendor, group.flags, error.failed_avp or b"")
    return DiameterError(error.result_code, failed, error.text)


def invalid_value(avps: Sequence[Avp], definition: AvpDefinition, text: str) -> DiameterError:
    """5004 for the one AVP of a definition, of a message whose grammar was checked, with that AVP (RFC 6733 7.1.5)."""
    (avp,) = (avp for avp in avps if avp.key == definition.key)
    return DiameterError(dictionary.INVALID_AVP_VALUE, encode_avp(avp), text)


def check_grammar(command: CommandDefinition, avps: Sequence[Avp]) -> None:
    """Hold decoded AVPs to a command's grammar; raises `DiameterError` with 5005 or 5009 (RFC 6733 3.2, 7.1.5).

    Session-Id in another place than the first is reported as missing (5005): RFC 6733 8.8 only says SHOULD, but the
    grammar of the command has it in angle brackets, "fixed position" (3.2), there is no code for an AVP in the wrong
    place, and the example in the Failed-AVP tells the sender which one is meant.
    """
    if command.session and (not avps or avps[0].key != dictionary.SESSION_ID.key):
        raise _missing(dictionary.SESSION_ID)
    _check_rules(command.rules, avps)


def _check_rules(rules: Sequence[Rule], avps: Sequence[Avp]) -> None:
    rule_of = {rule.avp.key: rule for rule in rules}
    seen: dict[tuple[int, int], int] = {}
    for avp in avps:
        seen[avp.key] = seen.get(avp.key, 0) + 1
        rule = rule_of.get(avp.key)
        if rule is not None and rule.most is not None and seen[avp.key] > rule.most:
            text = f"{rule.avp.name} occurs too many times"
            raise DiameterError(dictionary.AVP_OCCURS_TOO_MANY_TIMES, encode_avp(avp), text)
        members = dictionary.GROUP_RULES.get(avp.key)
        if members is not None and isinstance(avp.value, tuple):
            try:
                _check_rules(members, avp.value)
            except DiameterError as error:
                raise _within(avp, error) from None
    for rule in rules:
        if seen.get(rule.avp.key, 0) < rule.least:
            raise _missing(rule.avp)


def _missing(definition: AvpDefinition) -> DiameterError:
    return DiameterError(dictionary.MISSING_AVP, example(definition), f"{definition.name} is missing")


def example(definition: AvpDefinition) -> bytes:
    """The AVP with a zero-filled payload of the least length: how a Failed-AVP shows a missing one (RFC 6733 7.5)."""
    return _frame(definition.code, definition.vendor, MANDATORY if definition.mandatory else 0, _zeros(definition))


def make_avp(definition: AvpDefinition, value: Value) -> Avp:
    """An AVP of this node's own, with the M bit as the dictionary has it."""
    return Avp(definition.code, definition.vendor, MANDATORY if definition.mandatory else 0, value)


def text_of(avps: Sequence[Avp], definition: AvpDefinition) -> str:
    """The value of the first such AVP, of a text type; "" where there is none."""
    return next((avp.value for avp in avps if avp.key == definition.key and isinstance(avp.value, str)), "")


def numbers_of(avps: Sequence[Avp], definition: AvpDefinition) -> list[int]:
    """The values of all such AVPs, of a number type, in the order of the message."""
    return [avp.value for avp in avps if avp.key == definition.key and isinstance(avp.value, int)]


def groups_of(avps: Sequence[Avp], definition: AvpDefinition) -> list[tuple[Avp, ...]]:
    """The members of all such AVPs, of type Grouped, in the order of the message."""
    return [avp.value for avp in avps if avp.key == definition.key and isinstance(avp.value, tuple)]


def encode(header: Header, content: bytes) -> bytes:
    """A whole message: `header` with version and length, then `content`: AVPs already encoded, padding included."""
    length = HEADER_LENGTH + len(content)
    flags_and_command = header.flags << 24 | header.command
    ids = (header.application, header.hop_by_hop, header.end_to_end)
    return _HEADER.pack(1 << 24 | length, flags_and_command, *ids) + content


def encode_avp(avp: Avp) -> bytes:
    """One AVP with its padding.

    Raises `ValueError` for a value that is not of the AVP's type; never for one that was decoded.
    """
    return _frame(avp.code, avp.vendor, avp.flags, _encode_value(avp))


def encode_avps(avps: Sequence[Avp]) -> bytes:
    """AVPs with their padding, in their order. Raises as `encode_avp`."""
    return b"".join(map(encode_avp, avps))


def _frame(code: int, vendor: int, flags: int, content: bytes) -> bytes:
    header_length = 12 if vendor else 8
    length = header_length + len(content)
    vendor_field = vendor.to_bytes(4, "big") if vendor else b""
    flags |= _VENDOR_SPECIFIC if vendor else 0
    return _AVP_HEADER.pack(code, flags << 24 | length) + vendor_field + content + bytes(-length % 4)


def _encode_value(avp: Avp) -> bytes:
    value = avp.value
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, tuple):
        return encode_avps(value)
    if isinstance(value, IPv4Address):
        return _FAMILY_IPV4 + value.packed
    if isinstance(value, IPv6Address):
        return _FAMILY_IPV6 + value.packed
    definition = dictionary.AVPS.get(avp.key)
    fixed = None if definition is None else dictionary.FIXED_LENGTHS.get(definition.type)
    if definition is None or fixed is None:
        raise ValueError(f"AVP {avp.key} does not hold a number")
    try:
        return value.to_bytes(fixed, "big", signed=definition.type in _SIGNED)
    except OverflowError as error:
        raise ValueError(f"{definition.name} cannot hold {value}") from error
