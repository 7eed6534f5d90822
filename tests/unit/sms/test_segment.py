"""`sms.segment`: alphabets, limits, headers. The alphabet is compared with the list of the standard, by name."""

from __future__ import annotations

import timeit
import unicodedata

import pytest

from sms.gateway import Coding
from sms.segment import CodingChoice, Concatenation, decode, header, room, segment

# 3GPP TS 23.038 6.2.1: code and Unicode name, but for ASCII letters and digits, which have their ASCII codes.
DEFAULT = {
    0x00: "COMMERCIAL AT",
    0x01: "POUND SIGN",
    0x02: "DOLLAR SIGN",
    0x03: "YEN SIGN",
    0x04: "LATIN SMALL LETTER E WITH GRAVE",
    0x05: "LATIN SMALL LETTER E WITH ACUTE",
    0x06: "LATIN SMALL LETTER U WITH GRAVE",
    0x07: "LATIN SMALL LETTER I WITH GRAVE",
    0x08: "LATIN SMALL LETTER O WITH GRAVE",
    0x09: "LATIN CAPITAL LETTER C WITH CEDILLA",
    0x0B: "LATIN CAPITAL LETTER O WITH STROKE",
    0x0C: "LATIN SMALL LETTER O WITH STROKE",
    0x0E: "LATIN CAPITAL LETTER A WITH RING ABOVE",
    0x0F: "LATIN SMALL LETTER A WITH RING ABOVE",
    0x10: "GREEK CAPITAL LETTER DELTA",
    0x11: "LOW LINE",
    0x12: "GREEK CAPITAL LETTER PHI",
    0x13: "GREEK CAPITAL LETTER GAMMA",
    0x14: "GREEK CAPITAL LETTER LAMDA",
    0x15: "GREEK CAPITAL LETTER OMEGA",
    0x16: "GREEK CAPITAL LETTER PI",
    0x17: "GREEK CAPITAL LETTER PSI",
    0x18: "GREEK CAPITAL LETTER SIGMA",
    0x19: "GREEK CAPITAL LETTER THETA",
    0x1A: "GREEK CAPITAL LETTER XI",
    0x1C: "LATIN CAPITAL LETTER AE",
    0x1D: "LATIN SMALL LETTER AE",
    0x1E: "LATIN SMALL LETTER SHARP S",
    0x1F: "LATIN CAPITAL LETTER E WITH ACUTE",
    0x20: "SPACE",
    0x21: "EXCLAMATION MARK",
    0x22: "QUOTATION MARK",
    0x23: "NUMBER SIGN",
    0x24: "CURRENCY SIGN",
    0x25: "PERCENT SIGN",
    0x26: "AMPERSAND",
    0x27: "APOSTROPHE",
    0x28: "LEFT PARENTHESIS",
    0x29: "RIGHT PARENTHESIS",
    0x2A: "ASTERISK",
    0x2B: "PLUS SIGN",
    0x2C: "COMMA",
    0x2D: "HYPHEN-MINUS",
    0x2E: "FULL STOP",
    0x2F: "SOLIDUS",
    0x3A: "COLON",
    0x3B: "SEMICOLON",
    0x3C: "LESS-THAN SIGN",
    0x3D: "EQUALS SIGN",
    0x3E: "GREATER-THAN SIGN",
    0x3F: "QUESTION MARK",
    0x40: "INVERTED EXCLAMATION MARK",
    0x5B: "LATIN CAPITAL LETTER A WITH DIAERESIS",
    0x5C: "LATIN CAPITAL LETTER O WITH DIAERESIS",
    0x5D: "LATIN CAPITAL LETTER N WITH TILDE",
    0x5E: "LATIN CAPITAL LETTER U WITH DIAERESIS",
    0x5F: "SECTION SIGN",
    0x60: "INVERTED QUESTION MARK",
    0x7B: "LATIN SMALL LETTER A WITH DIAERESIS",
    0x7C: "LATIN SMALL LETTER O WITH DIAERESIS",
    0x7D: "LATIN SMALL LETTER N WITH TILDE",
    0x7E: "LATIN SMALL LETTER U WITH DIAERESIS",
    0x7F: "LATIN SMALL LETTER A WITH GRAVE",
}
EXTENSION = {0x0A: 0x0C, 0x14: 0x5E, 0x28: 0x7B, 0x29: 0x7D, 0x2F: 0x5C, 0x3C: 0x5B, 0x3D: 0x7E, 0x3E: 0x5D, 0x40: 0x7C}
BY_CODE = {
    **{code: unicodedata.lookup(name) for code, name in DEFAULT.items()},
    **{code: chr(code) for span in ((0x30, 0x3A), (0x41, 0x5B), (0x61, 0x7B)) for code in range(*span)},
    0x0A: "\n",
    0x0D: "\r",
}
ESCAPED = {**{code: chr(point) for code, point in EXTENSION.items()}, 0x65: "\N{EURO SIGN}"}
ALL = {**{bytes((code,)): c for code, c in BY_CODE.items()}, **{bytes((27, code)): c for code, c in ESCAPED.items()}}


def test_the_list_is_whole() -> None:
    assert len(BY_CODE) == 127 and len(ESCAPED) == 10


@pytest.mark.parametrize("octets", ALL, ids=bytes.hex)
def test_every_character_of_the_default_alphabet_and_its_extension(octets: bytes) -> None:
    assert segment(ALL[octets]) == ("gsm7", (ALL[octets],), (octets,), 1)
    assert decode("gsm7", octets) == ALL[octets]


def test_nothing_else_is_in_the_alphabet() -> None:
    known = set(ALL.values())
    for point in (*range(0xD800), *range(0xE000, 0x10000, 7)):
        expected = "gsm7" if chr(point) in known else "ucs2"
        assert segment(chr(point)).coding == expected, hex(point)


def test_a_phone_reads_anything() -> None:
    assert decode("gsm7", b"a\x1b") == "a "
    assert decode("gsm7", b"\x1b\x1ba") == " a"
    assert decode("gsm7", b"\x1ba\x1b\x0d") == "a\r"
    assert decode("gsm7", b"\x80\xffa") == "\ufffd\ufffda"
    assert decode("ucs2", b"\xd8\x3d\x00\x41\x04") == "\ufffdA\ufffd"
    assert decode("gsm7", b"") == decode("ucs2", b"") == ""


@pytest.mark.parametrize(
    "concatenation, gsm7, ucs2", [("udh8", 153, 67), ("sar", 153, 67), ("udh16", 152, 66)], ids=lambda v: str(v)
)
def test_limits(concatenation: Concatenation, gsm7: int, ucs2: int) -> None:
    for letter, coding, single, most in (("a", "gsm7", 160, gsm7), ("ж", "ucs2", 70, ucs2)):
        assert len(segment(letter * single, concatenation=concatenation).parts) == 1
        cut = segment(letter * (single + 1), concatenation=concatenation)
        assert cut.coding == coding and [len(part) for part in cut.parts] == [most, single + 1 - most]
        assert [len(segment(letter * n, concatenation=concatenation).parts) for n in (3 * most, 3 * most + 1)] == [3, 4]
        assert cut.weight == 2


def test_room_is_what_parts_have() -> None:
    codings: tuple[Coding, ...] = ("gsm7", "ucs2")
    assert [room(coding, "udh8", parts) for coding in codings for parts in (1, 2)] == [160, 153, 70, 67]
    assert [room(coding, "udh16", parts) for coding in codings for parts in (1, 2)] == [160, 152, 70, 66]


def test_an_escape_sequence_is_in_one_part() -> None:
    cut = segment("a" * 152 + "€" + "b" * 10)
    assert cut.parts == ("a" * 152, "€" + "b" * 10)
    assert cut.octets[1].startswith(b"\x1be")
    assert segment("a" * 158 + "€").parts == ("a" * 158 + "€",)


def test_a_surrogate_pair_is_in_one_part() -> None:
    cut = segment("ж" * 66 + "\N{GRINNING FACE}" + "ж" * 10)
    assert cut.parts == ("ж" * 66, "\N{GRINNING FACE}" + "ж" * 10)
    assert cut.octets[1].startswith(b"\xd8\x3d\xde\x00")
    assert len(segment("\N{GRINNING FACE}" * 35).parts) == 1


def test_one_stranger_makes_a_text_ucs2() -> None:
    assert segment("abc").coding == "gsm7"
    assert segment("abc«").coding == segment("abc\x1b").coding == segment("abc`").coding == "ucs2"
    assert segment("abc", coding="ucs2") == ("ucs2", ("abc",), (b"\0a\0b\0c",), 1)


@pytest.mark.parametrize("letter, most", [("a", 153), ("ж", 67)])
def test_a_payload_is_whole_and_counts_as_its_parts(letter: str, most: int) -> None:
    whole = segment(letter * (2 * most + 1), concatenation="payload")
    assert whole.parts == (letter * (2 * most + 1),) and len(whole.octets) == 1
    assert whole.weight == 3
    assert segment(letter * 70, concatenation="payload").weight == 1


def test_an_empty_text_is_one_short_message() -> None:
    assert segment("") == ("gsm7", ("",), (b"",), 1)


@pytest.mark.parametrize("concatenation", ["udh8", "payload"])
def test_more_than_255_parts_are_refused(concatenation: Concatenation) -> None:
    assert segment("ж" * (67 * 255), concatenation=concatenation).weight == 255
    with pytest.raises(ValueError, match="takes 256 short messages"):
        segment("ж" * (67 * 255 + 1), concatenation=concatenation)


def test_what_is_not_in_the_alphabet_is_named() -> None:
    with pytest.raises(ValueError, match=r"not in the GSM 7 bit alphabet: « \(U\+00AB\) U\+0000 U\+001B$"):
        segment("a««\0\x1b", coding="gsm7")
    with pytest.raises(ValueError, match="and 12 more"):
        segment("".join(map(chr, range(0x430, 0x450))), coding="gsm7")


@pytest.mark.parametrize("coding", ["auto", "ucs2"])
@pytest.mark.parametrize("text", ["a\ud83d", "\ude00a", "\ude00\ud83d"], ids=ascii)
def test_half_a_pair_is_refused_without_telling_the_text(text: str, coding: CodingChoice) -> None:
    with pytest.raises(ValueError, match="half of a surrogate pair") as refused:
        segment(text, coding=coding)
    assert not isinstance(refused.value, UnicodeError)


def test_headers() -> None:
    assert header(0x1234, 2, 3, wide=False) == bytes.fromhex("050003340302")
    assert header(0x1234, 2, 3, wide=True) == bytes.fromhex("06080412340302")
    assert header(0, 255, 255, wide=False) == bytes.fromhex("05000300ffff")


@pytest.mark.parametrize("reference, number, of", [(0, 0, 1), (0, 2, 1), (0, 1, 256), (-1, 1, 1), (65536, 1, 1)])
def test_headers_of_no_part(reference: int, number: int, of: int) -> None:
    with pytest.raises(ValueError, match=r"no part|no reference"):
        header(reference, number, of, wide=True)


@pytest.mark.parametrize("text", ["ж" * 300, "a" * 300, "a{" * 150], ids=["ucs2", "gsm7", "escapes"])
def test_is_quick(text: str) -> None:
    # Ten times what it takes, so that a busy machine does not fail it and work by the character does.
    assert min(timeit.repeat(lambda: segment(text), number=100, repeat=5)) / 100 < 300e-6
