"""`eir.diameter.answer`: what an answer takes over from its request, whatever that request is."""

from __future__ import annotations

import pytest

from eir.diameter import dictionary
from eir.diameter.answer import Identity, build_answer, build_refusal
from eir.diameter.message import (
    ERROR,
    PROXIABLE,
    REQUEST,
    RETRANSMITTED,
    Avp,
    DiameterError,
    Header,
    decode,
    encode,
    encode_avp,
    encode_avps,
    example,
    make_avp,
)

SESSION = make_avp(dictionary.SESSION_ID, "mme;1;2")
FIRST = Avp(284, 0, 0x40, b"the first agent")
SECOND = Avp(284, 0, 0x40, b"the second agent")
OWN = (make_avp(dictionary.AUTH_SESSION_STATE, 1),)


def request(flags: int = 0, content: bytes = b"") -> bytes:
    return encode(Header(REQUEST | flags, 324, 16777252, 0xFFFFFFFF, 7), content)


def test_header(identity: Identity) -> None:
    answer = decode(build_answer(request(PROXIABLE | RETRANSMITTED), identity, 2001))
    assert answer.header == Header(PROXIABLE, 324, 16777252, 0xFFFFFFFF, 7)
    assert decode(build_answer(request(), identity, 2001)).header.flags == 0


def test_proxy_info_goes_back_in_order_and_session_id_comes_first(identity: Identity) -> None:
    answer = decode(build_answer(request(0, encode_avps((FIRST, SESSION, SECOND))), identity, 2001, OWN))
    assert answer.avps == (
        SESSION,
        make_avp(dictionary.RESULT_CODE, 2001),
        make_avp(dictionary.ORIGIN_HOST, "eir1.example.org"),
        make_avp(dictionary.ORIGIN_REALM, "example.org"),
        *OWN,
        FIRST,
        SECOND,
    )


def test_protocol_error_has_the_error_bit_and_the_short_grammar(identity: Identity) -> None:
    error = DiameterError(3001, None, "command not supported")
    answer = decode(build_refusal(request(PROXIABLE, encode_avps((SESSION, FIRST))), identity, error, OWN))
    assert answer.header.flags == PROXIABLE | ERROR
    assert [avp.code for avp in answer.avps] == [263, 268, 264, 296, 281, 284]


def test_other_error_has_the_grammar_of_the_command(identity: Identity) -> None:
    error = DiameterError(5005, example(dictionary.IMEI), "IMEI is missing")
    answer = decode(build_refusal(request(0, encode_avps((SESSION, FIRST))), identity, error, OWN))
    assert answer.header.flags == 0
    assert [avp.code for avp in answer.avps] == [263, 268, 264, 296, 277, 281, 279, 284]
    assert answer.avps[6].value == example(dictionary.IMEI)


def test_what_can_be_read_of_a_broken_request_goes_back(identity: Identity) -> None:
    broken = encode_avps((SESSION, FIRST)) + b"\x00\x00\x01\x0c\x40\xff\xff\xff" + encode_avp(SECOND)
    answer = decode(build_answer(request(0, broken), identity, 5014))
    assert [avp.value for avp in answer.avps if avp.code in (263, 284)] == ["mme;1;2", b"the first agent"]


def test_of_many_session_ids_one_goes_back(identity: Identity) -> None:
    answer = decode(build_answer(request(0, encode_avp(SESSION) * 3), identity, 5009))
    assert [avp for avp in answer.avps if avp.code == 263] == [SESSION]


def test_only_requests_are_answered(identity: Identity) -> None:
    with pytest.raises(ValueError, match="only a request"):
        build_answer(encode(Header(0, 324, 16777252, 1, 2), b""), identity, 2001)
    with pytest.raises(ValueError, match="only a request"):
        build_answer(b"\x01", identity, 2001)
