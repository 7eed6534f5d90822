"""Cuts a text into short messages: alphabets of 3GPP TS 23.038, parts of 3GPP TS 23.040 9.2.3.24. Pure.

`segment` finds the coding that a text needs and cuts it so that no part is longer than a short message has room for, no
surrogate pair and no escape sequence lies in two parts. `header` is what joins the parts again in the phone; `decode`
is what the phone reads. Called by `templates`, the outbox and the command line's preview.
"""

from __future__ import annotations

import codecs
import re
from typing import Final, Literal, NamedTuple, TypeAlias

from sms.gateway import Coding

Concatenation: TypeAlias = Literal["udh8", "udh16", "sar", "payload"]
"""How parts are joined: a header with 8 or 16 bits of reference, the SMSC's header from SAR parameters, or one message
that the SMSC cuts."""
CodingChoice: TypeAlias = Literal["auto", "gsm7", "ucs2"]

MOST_PARTS: Final = 255
"""The header counts parts in one octet."""
SINGLE: Final[dict[Coding, int]] = {"gsm7": 160, "ucs2": 70}
"""Septets or 16-bit units that a short message without a header has room for: 140 octets."""

_ESCAPE: Final = "\x1b"
_ALPHABET: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""6.2.1; a character's place is its code. The escape is no character of a text."""
_EXTENSION: Final = {
    "\n": "\f",
    "Λ": "^",
    "(": "{",
    ")": "}",
    "/": "\\",
    "<": "[",
    "=": "~",
    ">": "]",
    "¡": "|",
    "e": "€",
}
"""6.2.1.1, by the character that the code after the escape has in the default alphabet."""
_ENCODING: Final = {ord(character): code for code, character in enumerate(_ALPHABET) if character != _ESCAPE} | {
    ord(character): bytes((0x1B, _ALPHABET.index(base))) for base, character in _EXTENSION.items()
}
_ESCAPED: Final = re.compile(r"\x1b(.?)", re.DOTALL)

# Octets of `Segments.octets` that a part has room for beside a header of 6 or 7 octets; the SMSC's, from SAR parameters
# or a payload, is the short one.
_ROOM: Final[dict[tuple[Coding, bool], int]] = {
    ("gsm7", False): 153,
    ("gsm7", True): 152,
    ("ucs2", False): 134,
    ("ucs2", True): 132,
}


class Segments(NamedTuple):
    """A text as short messages."""

    coding: Coding
    parts: tuple[str, ...]
    """The text of each part."""
    octets: tuple[bytes, ...]
    """The user data of each part without a header: septets one an octet, or UTF-16BE."""
    weight: int
    """Short messages that the text is on the air: the number of parts, but where it goes whole."""


def segment(text: str, *, concatenation: Concatenation = "udh8", coding: CodingChoice = "auto") -> Segments:
    """Cuts a text; "auto" takes UCS-2 only where the default alphabet lacks a character.

    Raises ValueError: the coding cannot have this text, or it is longer than 255 parts.
    """
    used, octets = _encode(text, coding)
    if len(octets) <= _single_octets(used):
        return Segments(used, (text,), (octets,), 1)
    cut = _cut(octets, used, _ROOM[used, concatenation == "udh16"])
    if len(cut) > MOST_PARTS:
        raise ValueError(f"the text takes {len(cut)} short messages; {MOST_PARTS} can be joined")
    if concatenation == "payload":
        return Segments(used, (text,), (octets,), len(cut))
    return Segments(used, tuple(_texts(text, used, cut)), tuple(cut), len(cut))


def room(coding: Coding, concatenation: Concatenation, parts: int) -> int:
    """Septets or 16-bit units that each of so many parts has room for."""
    if parts == 1:
        return SINGLE[coding]
    octets = _ROOM[coding, concatenation == "udh16"]
    return octets if coding == "gsm7" else octets // 2


def header(reference: int, number: int, of: int, wide: bool) -> bytes:
    """The user data header of part `number` of `of`, its length first; where not `wide`, 8 bits of the reference.

    Raises ValueError: no such part, or a reference that is not of 16 bits.
    """
    if not 1 <= number <= of <= MOST_PARTS:
        raise ValueError(f"there is no part {number} of {of}")
    if not 0 <= reference <= 0xFFFF:
        raise ValueError(f"{reference} is no reference of 16 bits")
    if wide:
        return bytes((6, 0x08, 4, reference >> 8, reference & 0xFF, of, number))
    return bytes((5, 0x00, 3, reference & 0xFF, of, number))


def decode(coding: Coding, octets: bytes) -> str:
    """The text that a phone reads in user data without a header. Anything can be read.

    As TS 23.038 6.2.1.1 has it, an unknown code after an escape is read in the default alphabet, and an escape before
    nothing or another escape is a space. What is no septet, and half of a pair, is U+FFFD.
    """
    if coding == "ucs2":
        return octets.decode("utf-16-be", "replace")
    text, _ = codecs.charmap_decode(octets, "replace", _ALPHABET)
    return _ESCAPED.sub(_unescaped, text) if _ESCAPE in text else text


def _unescaped(match: re.Match[str]) -> str:
    base = match[1]
    return " " if base in ("", _ESCAPE) else _EXTENSION.get(base, base)


def _encode(text: str, coding: CodingChoice) -> tuple[Coding, bytes]:
    if coding != "ucs2":
        try:
            return "gsm7", codecs.charmap_encode(text, "strict", _ENCODING)[0]
        except UnicodeEncodeError:
            if coding == "gsm7":
                raise ValueError(f"not in the GSM 7 bit alphabet: {_strangers(text)}") from None
    try:
        return "ucs2", text.encode("utf-16-be")
    except UnicodeEncodeError as error:
        # Not the error itself: it carries the text, and with it a subscriber's number.
        raise ValueError(f"half of a surrogate pair at character {error.start}") from None


def _strangers(text: str) -> str:
    """The characters that are not in the default alphabet, each once, as people can read them in one line."""
    found = list(dict.fromkeys(character for character in text if ord(character) not in _ENCODING))
    shown = " ".join(f"{c} (U+{ord(c):04X})" if c.isprintable() else f"U+{ord(c):04X}" for c in found[:20])
    return f"{shown} and {len(found) - 20} more" if len(found) > 20 else shown


def _single_octets(coding: Coding) -> int:
    return SINGLE[coding] if coding == "gsm7" else 2 * SINGLE[coding]


def _texts(text: str, coding: Coding, cut: list[bytes]) -> list[str]:
    if coding == "ucs2" and max(text) > "\uffff":
        return [part.decode("utf-16-be") for part in cut]
    texts, start = [], 0
    for part in cut:
        end = start + (len(part) - part.count(b"\x1b") if coding == "gsm7" else len(part) // 2)
        texts.append(text[start:end])
        start = end
    return texts


def _cut(octets: bytes, coding: Coding, most: int) -> list[bytes]:
    cut, start, length = [], 0, len(octets)
    while length - start > most:
        end = start + most
        if coding == "gsm7":
            # No other octet is an escape: codes after one are not.
            end -= octets[end - 1] == 0x1B
        elif octets[end - 2] & 0xFC == 0xD8:
            end -= 2
        cut.append(octets[start:end])
        start = end
    cut.append(octets[start:])
    return cut
