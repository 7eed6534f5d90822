"""The codec on generated trees and on bytes that nobody meant as a message."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from eir.diameter import dictionary
from eir.diameter.answer import Identity
from eir.diameter.dictionary import AvpDefinition, AvpType
from eir.diameter.message import (
    ERROR,
    Avp,
    DiameterError,
    Header,
    Message,
    check_grammar,
    decode,
    encode,
    encode_avp,
    encode_avps,
    peek_header,
)
from eir.diameter.s13 import refuse

VECTORS = Path(__file__).parents[1] / "vectors" / "diameter"
MESSAGES = [bytes.fromhex(re.sub(r"#.*", "", path.read_text())) for path in sorted(VECTORS.glob("*.hex"))]
IDENTITY = Identity("eir1.example.org", "example.org", origin_state_id=5)

UNSIGNED32 = st.integers(0, 2**32 - 1)
AVP_FLAGS = st.sampled_from([0, 0x20, 0x40, 0x60])
FAMILY_OF_NO_IP = b"\x00\x08"

SCALARS: dict[AvpType, st.SearchStrategy[object]] = {
    AvpType.OCTET_STRING: st.binary(max_size=40),
    AvpType.OPAQUE_GROUP: st.binary(max_size=40),
    AvpType.INTEGER32: st.integers(-(2**31), 2**31 - 1),
    AvpType.ENUMERATED: st.integers(-(2**31), 2**31 - 1),
    AvpType.UNSIGNED32: UNSIGNED32,
    AvpType.TIME: UNSIGNED32,
    AvpType.UNSIGNED64: st.integers(0, 2**64 - 1),
    AvpType.UTF8_STRING: st.text(st.characters(codec="utf-8"), max_size=20),
    AvpType.IDENTITY: st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20),
    AvpType.URI: st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20),
    AvpType.ADDRESS: st.builds(IPv4Address, UNSIGNED32)
    | st.builds(IPv6Address, st.integers(0, 2**128 - 1))
    | st.binary(min_size=1, max_size=20).map(FAMILY_OF_NO_IP.__add__),
}


def avps_of(definition: AvpDefinition, members: st.SearchStrategy[Avp] | None) -> st.SearchStrategy[Avp]:
    values: st.SearchStrategy[object]
    if definition.type is AvpType.GROUPED:
        values = st.just(()) if members is None else st.lists(members, max_size=3).map(tuple)
    elif definition.values is not None:
        values = st.sampled_from(sorted(definition.values))
    else:
        values = SCALARS[definition.type]
    return st.builds(Avp, st.just(definition.code), st.just(definition.vendor), AVP_FLAGS, values)


def known_avps(members: st.SearchStrategy[Avp] | None) -> st.SearchStrategy[Avp]:
    return st.one_of([avps_of(definition, members) for definition in dictionary.AVPS.values()])


UNKNOWN = st.builds(Avp, UNSIGNED32, UNSIGNED32, st.sampled_from([0, 0x20]), st.binary(max_size=20)).filter(
    lambda avp: avp.key not in dictionary.AVPS
)
AVPS = known_avps(known_avps(None) | UNKNOWN) | UNKNOWN
HEADERS = st.builds(
    Header,
    st.sampled_from([0, 0x20, 0x40, 0x80, 0xC0, 0xD0]),
    st.integers(0, 2**24 - 1),
    UNSIGNED32,
    UNSIGNED32,
    UNSIGNED32,
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A message that was right once: some octets changed, some cut or put in, the length mostly made true again."""
    data = bytearray(draw(st.sampled_from(MESSAGES)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data) - 1)) if data else 0
        data[at : at + draw(st.sampled_from([0, 1, 1, 4]))] = draw(st.binary(max_size=4))
    if len(data) >= 4 and draw(st.integers(0, 3)):
        data += bytes(-len(data) % 4)
        data[0:4] = b"\x01" + len(data).to_bytes(3, "big")
    return bytes(data)


HOSTILE = st.binary(max_size=200) | mutated()


@given(HEADERS, st.lists(AVPS, max_size=8))
def test_what_is_encoded_decodes_to_the_same(header: Header, avps: list[Avp]) -> None:
    assert decode(encode(header, encode_avps(avps))) == Message(header, tuple(avps))


@given(HOSTILE)
def test_hostile_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        message = decode(data)
        for command in dictionary.COMMANDS.values():
            check_grammar(command, message.avps)
    except DiameterError as error:
        # What goes back is itself something that decodes, or the answer would be as broken as the request was.
        decode(encode(Header(0, 324, 16777252, 1, 2), encode_avp(Avp(279, 0, 0x40, error.failed_avp or b""))))


@given(HOSTILE)
def test_a_request_is_refused_with_one_answer_or_not_at_all(data: bytes) -> None:
    header = peek_header(data)
    if header is None or not header.is_request:
        return
    refusal = refuse(data, IDENTITY)
    if refusal is None:
        return
    answer = peek_header(refusal.data)
    assert answer is not None
    assert (answer.hop_by_hop, answer.end_to_end) == (header.hop_by_hop, header.end_to_end)
    assert not answer.is_request
    assert bool(answer.flags & ERROR) is (3000 <= refusal.code < 4000)
    assert int.from_bytes(refusal.data[1:4], "big") == len(refusal.data)
