"""Messages as people may see them: decoded to lines, and what names a subscriber masked.

Called by `tracing` for `eir trace`. What cannot be decoded is shown by its length; what is not known to be harmless, an
AVP of a vendor's or an OctetString, is never shown either. It never raises, whatever the octets, and shows no more of a
message than its first lines: who is traced must not keep the control plane busy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from eir.diameter import dictionary
from eir.diameter.dictionary import AvpType
from eir.diameter.message import (
    ERROR,
    HEADER_LENGTH,
    PROXIABLE,
    REQUEST,
    DiameterError,
    RawAvp,
    peek_header,
    walk,
)

_RETRANSMITTED: Final = 0x10
_LONG_NUMBER: Final = re.compile(r"[0-9]{10,}")
_DEPTH: Final = 4
MOST_LINES: Final = 100
"""Lines of a message at most; the longest that is in order has half as many."""
_LONGEST: Final = 255
"""Characters of a value that are shown: those of the longest identity."""
_LOOKED_AT: Final = _LONGEST + 10
"""Characters of a value that are masked: a number is known as one also where it is cut."""
_MSISDN: Final = (dictionary.VENDOR_3GPP, 701)
_NUMBERS: Final = frozenset({AvpType.INTEGER32, AvpType.UNSIGNED32, AvpType.UNSIGNED64, AvpType.ENUMERATED})
_TEXTS: Final = frozenset({AvpType.UTF8_STRING, AvpType.IDENTITY, AvpType.URI})


def show(message: bytes) -> list[str]:
    """A message, from its first octet to its last, as lines; the first is its header."""
    header = peek_header(message)
    if header is None:
        return [f"{len(message)} octets, less than a header"]
    command = dictionary.COMMANDS.get(header.command)
    name = f"{command.name}-{'Request' if header.is_request else 'Answer'}" if command else f"command {header.command}"
    bits = ((REQUEST, "R"), (PROXIABLE, "P"), (ERROR, "E"), (_RETRANSMITTED, "T"))
    flags = "".join(letter for bit, letter in bits if header.flags & bit) or "-"
    ids = f"hop-by-hop {header.hop_by_hop:#010x} end-to-end {header.end_to_end:#010x}"
    shown = [f"{name} flags {flags} application {header.application} {ids}"]
    shown += islice(_avps(message, HEADER_LENGTH, len(message), 1), MOST_LINES)
    return [*shown[:MOST_LINES], "  and more"] if len(shown) > MOST_LINES else shown


def sender_of(message: bytes) -> str | None:
    """The Origin-Host of a message, whatever it is."""
    return next(_texts(message, dictionary.ORIGIN_HOST.key, 1), None)


def subscriber_of(message: bytes) -> str | None:
    """The User-Name of a request, whatever it is."""
    return next(_texts(message, dictionary.USER_NAME.key, 1), None)


def device_of(message: bytes) -> str | None:
    """The IMEI of a request, whatever it is."""
    return next(_texts(message, dictionary.IMEI.key, 2), None)


def masked(text: str) -> str:
    """A text whose long numbers keep only where the subscriber is from and their last two digits."""
    return _LONG_NUMBER.sub(lambda found: _mask(found[0]), text)


def _mask(digits: str) -> str:
    return f"{digits[:5]}{'*' * (len(digits) - 7)}{digits[-2:]}"


def _texts(message: bytes, key: tuple[int, int], depth: int) -> Iterator[str]:
    spans = [(HEADER_LENGTH, len(message))]
    for _ in range(depth):
        inner = []
        for start, end in spans:
            for raw in _walk(message, start, end):
                if raw.key == key:
                    yield message[raw.data_start : raw.end].decode("utf-8", "replace")
                if raw.key == dictionary.TERMINAL_INFORMATION.key:
                    inner.append((raw.data_start, raw.end))
        spans = inner


def _walk(message: bytes, start: int, end: int) -> Iterator[RawAvp]:
    """The AVPs as far as they can be told apart."""
    try:
        yield from walk(message, start, end)
    except DiameterError:
        return


def _avps(message: bytes, start: int, end: int, depth: int) -> Iterator[str]:
    indent, reached = "  " * depth, start
    for raw in _walk(message, start, end):
        reached = raw.end + -raw.end % 4
        definition = dictionary.AVPS.get(raw.key)
        name = definition.name if definition else f"AVP {raw.code}{f' of vendor {raw.vendor}' if raw.vendor else ''}"
        kind = definition.type if definition else None
        if kind is AvpType.GROUPED and depth < _DEPTH:
            yield f"{indent}{name}"
            yield from _avps(message, raw.data_start, raw.end, depth + 1)
        else:
            yield f"{indent}{name}: {_value(raw, kind, message[raw.data_start : raw.end])}"
    if reached < end:
        yield f"{indent}{end - reached} octets that are no AVP"


def _value(raw: RawAvp, kind: AvpType | None, content: bytes) -> str:
    if raw.key == _MSISDN:
        digits = "".join(f"{octet & 15:x}{octet >> 4:x}" for octet in content).rstrip("f")
        return f"{'*' * max(0, len(digits) - 2)}{digits[-2:] if digits[-2:].isdigit() else '**'}"
    if kind in _NUMBERS and len(content) in (4, 8):
        return str(int.from_bytes(content, "big", signed=kind in (AvpType.INTEGER32, AvpType.ENUMERATED)))
    if kind in _TEXTS:
        text = content.decode("utf-8", "replace")
        printable = "".join(character if character.isprintable() else "?" for character in text[:_LOOKED_AT])
        return _shortened(printable if raw.key == dictionary.IMEI.key else _hidden(raw, printable))
    return f"{len(content)} octets"


def _hidden(raw: RawAvp, text: str) -> str:
    if raw.key != dictionary.USER_NAME.key:
        return masked(text)
    # Of a short one too little would be left out.
    return _mask(text) if len(text) >= 10 else "*" * len(text)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
