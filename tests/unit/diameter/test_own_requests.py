"""`eir.diameter.own_requests`: what this node asks, and which answer is to what."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from eir.diameter import dictionary
from eir.diameter.answer import Identity
from eir.diameter.capabilities import read_cer
from eir.diameter.dictionary import DisconnectCause
from eir.diameter.message import REQUEST, Header, check_grammar, decode, numbers_of, peek_header
from eir.diameter.own_requests import OwnRequests

LOCAL = ip_address("192.0.2.1")


@pytest.fixture
def own(identity: Identity) -> OwnRequests:
    return OwnRequests(identity, lambda: 0.5)


def header_of(data: bytes) -> Header:
    header = peek_header(data)
    assert header is not None
    return header


def answer_to(data: bytes) -> Header:
    asked = header_of(data)
    return Header(0, asked.command, asked.application, asked.hop_by_hop, asked.end_to_end)


def test_each_is_in_order(own: OwnRequests) -> None:
    assert read_cer(own.cer(LOCAL)).origin_host == "eir1.example.org"
    for data, command in (
        (own.dwr(), dictionary.DEVICE_WATCHDOG),
        (own.dpr(DisconnectCause.BUSY), dictionary.DISCONNECT_PEER),
    ):
        message = decode(data)
        check_grammar(command, message.avps)
        # Not proxiable, and of the base protocol (RFC 6733 5.4.1, 5.5.1).
        assert (message.header.flags, message.header.application) == (REQUEST, 0)
    assert numbers_of(decode(own.dpr(DisconnectCause.BUSY)).avps, dictionary.DISCONNECT_CAUSE) == [1]


def test_identifiers_count_up_and_around(identity: Identity) -> None:
    own = OwnRequests(identity, lambda: 0.9999999999)
    first = header_of(own.dwr()).hop_by_hop
    numbers = [header_of(own.dwr()).hop_by_hop for _ in range(3)]
    assert numbers == [(first + step) % (1 << 32) for step in (1, 2, 3)]


def test_an_answer_is_taken_once(own: OwnRequests) -> None:
    answer = answer_to(own.dwr())
    assert own.answered(answer) is dictionary.DEVICE_WATCHDOG
    assert own.answered(answer) is None


def test_answers_to_nothing(own: OwnRequests) -> None:
    asked = header_of(own.dwr())
    for wrong in (
        Header(0, 280, 0, asked.hop_by_hop + 1, asked.end_to_end),
        Header(0, 282, 0, asked.hop_by_hop, asked.end_to_end),
        Header(0, 280, 16777252, asked.hop_by_hop, asked.end_to_end),
        Header(0, 999, 0, asked.hop_by_hop, asked.end_to_end),
    ):
        assert own.answered(wrong) is None
    # The Hop-by-Hop Identifier is what an answer is found by (RFC 6733 3).
    assert own.answered(Header(0, 280, 0, asked.hop_by_hop, 0)) is dictionary.DEVICE_WATCHDOG


def test_what_was_asked_on_a_connection_that_is_gone(own: OwnRequests) -> None:
    answer = answer_to(own.dpr(DisconnectCause.BUSY))
    own.forget()
    assert own.answered(answer) is None
