"""`sms.segment`: whatever the text, its parts are the text, and each fits into a short message by itself."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from sms.gateway import Coding
from sms.segment import Concatenation, decode, header, room, segment

GSM7 = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./019:;<=>?¡AZÄÖÑÜ§¿azäöñüà"
EXTENSION = "\f^{}\\[~]|€"
# Made of repeated pieces: long enough to be cut, with every kind of character at the seams.
PIECES = st.one_of(
    st.text(max_size=40),
    st.text(GSM7 + EXTENSION * 5, max_size=40),
    st.sampled_from(["ж", "\N{GRINNING FACE}", "€", "a", "a€", "ж\N{GRINNING FACE}"]),
)
TEXTS = st.lists(st.tuples(PIECES, st.integers(1, 80)), max_size=6).map(
    lambda got: "".join(p * n for p, n in got)[:2000]
)
CUT: st.SearchStrategy[Concatenation] = st.sampled_from(["udh8", "udh16", "sar"])


@given(TEXTS, CUT)
@example("a" * 152 + "€" * 160, "udh8")
@example("ж" * 66 + "\N{GRINNING FACE}" * 70, "udh16")
def test_the_parts_are_the_text_and_each_fits(text: str, concatenation: Concatenation) -> None:
    coding, parts, octets, weight = segment(text, concatenation=concatenation)
    assert "".join(parts) == text
    assert [decode(coding, part) for part in octets] == list(parts)
    assert weight == len(parts) == len(octets)
    most = room(coding, concatenation, len(parts))
    for part in octets:
        assert len(part) <= (most if coding == "gsm7" else 2 * most)
        if coding == "gsm7":
            assert not part.endswith(b"\x1b") and max(part, default=0) < 0x80
        else:
            part.decode("utf-16-be")  # Strict: half of a pair would not pass.
    # No part is left shorter than it need be: the next character would not have fitted.
    for part, after in zip(octets, parts[1:], strict=False):
        following = segment(after[0], coding=coding).octets[0]
        assert len(part) + len(following) > (most if coding == "gsm7" else 2 * most)


@given(TEXTS)
def test_a_payload_is_the_text_and_weighs_as_its_parts(text: str) -> None:
    whole = segment(text, concatenation="payload")
    assert whole.parts == (text,) and decode(whole.coding, whole.octets[0]) == text
    assert whole.weight == segment(text).weight


@given(st.text(GSM7 + EXTENSION))
def test_the_alphabet_there_and_back(text: str) -> None:
    got = segment(text, concatenation="payload", coding="gsm7")
    assert decode("gsm7", got.octets[0]) == text


@given(st.sampled_from(["gsm7", "ucs2"]), st.binary(max_size=300))
def test_anything_can_be_read(coding: Coding, octets: bytes) -> None:
    text = decode(coding, octets)
    if coding == "gsm7" and "\ufffd" not in text:
        assert segment(text, concatenation="payload").coding == "gsm7"


@given(st.integers(0, 0xFFFF), st.integers(1, 255), st.integers(1, 255), st.booleans())
def test_headers_there_and_back(reference: int, one: int, other: int, wide: bool) -> None:
    number, of = sorted((one, other))
    made = header(reference, number, of, wide)
    length, element, element_length, *content = made
    assert (length, element_length) == (len(made) - 1, len(content))
    assert tuple(content[-2:]) == (of, number)
    told = int.from_bytes(content[:-2], "big")
    assert (element, told) == ((0x08, reference) if wide else (0x00, reference & 0xFF))
