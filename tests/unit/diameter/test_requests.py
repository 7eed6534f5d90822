"""`eir.diameter.requests`: one answer to each request, and who may speak for whom."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from eir.diameter import dictionary
from eir.diameter.answer import Identity
from eir.diameter.dictionary import DisconnectCause
from eir.diameter.message import (
    ERROR,
    PROXIABLE,
    REQUEST,
    Avp,
    Header,
    Message,
    decode,
    encode,
    encode_avp,
    encode_avps,
    make_avp,
    numbers_of,
    peek_header,
)
from eir.diameter.peer_policy import Role
from eir.diameter.requests import Outcome, Sender, answer

Vector = Callable[[str], bytes]
HOST = "mme1.epc.mnc001.mcc001.3gppnetwork.org"
LOCAL = ip_address("192.0.2.1")
ITSELF = Sender(HOST)
ROUTE = make_avp(dictionary.ROUTE_RECORD, "dra.example.org")
ECR = (
    make_avp(dictionary.SESSION_ID, "mme;1;2"),
    make_avp(dictionary.AUTH_SESSION_STATE, 1),
    make_avp(dictionary.ORIGIN_HOST, HOST),
    make_avp(dictionary.ORIGIN_REALM, "example.org"),
    make_avp(dictionary.DESTINATION_REALM, "example.org"),
    make_avp(dictionary.TERMINAL_INFORMATION, (make_avp(dictionary.IMEI, "01234567890123"),)),
)


def request(avps: tuple[Avp, ...] | bytes, command: int = 324, application: int = 16777252) -> bytes:
    content = avps if isinstance(avps, bytes) else encode_avps(avps)
    return encode(Header(REQUEST | PROXIABLE, command, application, 1, 2), content)


def ask(identity: Identity, data: bytes, sender: Sender = ITSELF) -> Outcome:
    header = peek_header(data)
    assert header is not None
    return answer(data, header, identity, LOCAL, sender)


def refused(identity: Identity, data: bytes, code: int, sender: Sender = ITSELF) -> Message:
    """The answer, of which this checks everything that is the same for all."""
    outcome = ask(identity, data, sender)
    message, asked = decode(outcome.data), peek_header(data)
    assert asked is not None
    assert outcome.code == code
    assert outcome.disconnect_cause is None
    assert numbers_of(message.avps, dictionary.RESULT_CODE) == [code]
    assert bool(message.header.flags & ERROR) is (3000 <= code < 4000)
    assert message.header.flags & PROXIABLE == asked.flags & PROXIABLE
    assert (message.header.hop_by_hop, message.header.end_to_end) == (asked.hop_by_hop, asked.end_to_end)
    return message


def failed(message: Message) -> list[object]:
    return [avp.value for avp in message.avps if avp.key == dictionary.FAILED_AVP.key]


class TestBase:
    def test_dwr(self, identity: Identity, vector: Vector) -> None:
        assert ask(identity, vector("dwr_python_diameter")) == Outcome(vector("dwa"), 2001)

    @pytest.mark.parametrize("cause", list(DisconnectCause))
    def test_dpr(self, identity: Identity, cause: DisconnectCause) -> None:
        dpr = request((*ECR[2:4], make_avp(dictionary.DISCONNECT_CAUSE, int(cause))), 282, 0)
        outcome = ask(identity, dpr)
        assert (outcome.code, outcome.disconnect_cause) == (2001, cause)
        assert [avp.code for avp in decode(outcome.data).avps] == [268, 264, 296]

    def test_dpr_of_an_unknown_cause(self, identity: Identity) -> None:
        refused(identity, request((*ECR[2:4], Avp(273, 0, 0x40, b"\0\0\0\x03")), 282, 0), 5004)

    def test_second_cer(self, identity: Identity, vector: Vector) -> None:
        message = refused(identity, vector("cer_python_diameter"), 5012)
        assert dictionary.HOST_IP_ADDRESS.key in {avp.key for avp in message.avps}

    @pytest.mark.parametrize("command", [257, 280, 282])
    def test_without_origin_host(self, identity: Identity, command: int) -> None:
        refused(identity, request(ECR[3:4], command, 0), 5005)

    def test_dwr_of_another_name_is_answered(self, identity: Identity) -> None:
        outcome = ask(identity, request(ECR[2:4], 280, 0), Sender("another.example.org", "direct"))
        assert outcome.code == 2001


class TestRefusals:
    @pytest.mark.parametrize(
        ("command", "application", "code"),
        [(316, 16777251, 3007), (324, 0, 3007), (280, 16777252, 3007), (999, 16777252, 3001), (274, 0, 3001)],
    )
    def test_unknown_command_or_application(
        self, identity: Identity, command: int, application: int, code: int
    ) -> None:
        avps = (make_avp(dictionary.SESSION_ID, "mme;1;2"), Avp(284, 0, 0x40, b"an agent"))
        message = refused(identity, request(avps, command, application), code)
        assert message.header.flags == ERROR | PROXIABLE
        assert [avp.code for avp in message.avps] == [263, 268, 264, 296, 281, 284]

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"\x02" + request(ECR)[1:], 5011),
            (request(ECR) + b"\0\0\0\0", 5015),
            (request(ECR)[:4] + b"\xe0" + request(ECR)[5:], 3008),
            (request((*ECR, Avp(4242, 99, 0x40, b"what"))), 5001),
            (request((*ECR[:1], make_avp(dictionary.AUTH_SESSION_STATE, 7), *ECR[2:])), 5004),
            (request(ECR[1:]), 5005),
            (request(ECR[:-1]), 5005),
            (request((*ECR, ECR[-1])), 5009),
            (request((*ECR[:1], Avp(277, 0, 0x40, b"\0\0\0"), *ECR[2:])), 5014),
            (request(encode_avps(ECR) + b"\0\0\x01\x0b\x40\0\0\x20"), 5014),
        ],
    )
    def test_codes(self, identity: Identity, data: bytes, code: int) -> None:
        message = refused(identity, data, code)
        assert (numbers_of(message.avps, dictionary.AUTH_SESSION_STATE) == [1]) is not (3000 <= code < 4000)

    def test_an_ecr_that_is_right_is_our_failure(self, identity: Identity, vector: Vector) -> None:
        message = refused(identity, vector("ecr_python_diameter"), 5012)
        sent_proxy_info = [avp for avp in decode(vector("ecr_python_diameter")).avps if avp.code == 284]
        assert [avp for avp in message.avps if avp.code == 284] == sent_proxy_info != []

    @pytest.mark.parametrize(
        "slip",
        [
            Avp(1401, 0, 0x40, b""),
            Avp(1445, 0, 0x40, b"\0\0\0\0"),
            Avp(264, 10415, 0x40, HOST.encode()),
            Avp(485, 10415, 0x40, b"\0\0\0\0"),
        ],
    )
    def test_a_v_bit_forgotten_or_set_by_mistake(self, identity: Identity, slip: Avp) -> None:
        assert failed(refused(identity, request((*ECR, slip)), 3009)) == [encode_avp(slip)]
        # In place of what it was meant for, too: it is the slip that is told, not that something is missing.
        assert failed(refused(identity, request((*ECR[:-1], slip)), 3009)) == [encode_avp(slip)]

    def test_a_slip_in_a_group_is_shown_in_it(self, identity: Identity) -> None:
        slip = make_avp(dictionary.TERMINAL_INFORMATION, (Avp(1402, 0, 0x40, b"01234567890123"),))
        assert failed(refused(identity, request((*ECR[:-1], slip)), 3009)) == [encode_avp(slip)]

    @pytest.mark.parametrize(
        "other",
        [
            Avp(1, 10415, 0x40, b"001010123456789"),
            Avp(301, 10415, 0x40, b"?"),
            Avp(625, 10415, 0x40, b"?"),
            Avp(701, 0, 0x40, b"?"),
        ],
    )
    def test_numbers_that_both_have_are_no_slips(self, identity: Identity, other: Avp) -> None:
        assert failed(refused(identity, request((*ECR, other)), 5001)) == [encode_avp(other)]

    def test_a_slip_without_the_m_bit_is_an_avp_like_any_other(self, identity: Identity) -> None:
        refused(identity, request((*ECR[:-1], Avp(1401, 0, 0, b""))), 5005)


class TestWhatGoesBack:
    def test_priority(self, identity: Identity) -> None:
        priority = make_avp(dictionary.DRMP, 3)
        message = refused(identity, request((*ECR[:-1], priority, make_avp(dictionary.DRMP, 4))), 5005)
        assert [avp for avp in message.avps if avp.code == 301] == [priority]
        assert [avp.code for avp in message.avps][:3] == [263, 301, 268]

    def test_a_priority_that_is_none(self, identity: Identity) -> None:
        message = refused(identity, request((*ECR, Avp(301, 0, 0, b"\0\0\3"))), 5014)
        assert [avp.code for avp in message.avps if avp.code == 301] == []

    @pytest.mark.parametrize(
        ("members", "answered"),
        [
            ((), True),
            ((make_avp(dictionary.OC_FEATURE_VECTOR, 1),), True),
            ((make_avp(dictionary.OC_FEATURE_VECTOR, 3),), True),
            ((make_avp(dictionary.OC_FEATURE_VECTOR, 2),), False),
            ((Avp(999, 0, 0, b"?"), make_avp(dictionary.OC_FEATURE_VECTOR, 1)), True),
        ],
    )
    @pytest.mark.parametrize("application", [16777252, 16777251])
    def test_overload_features(
        self, identity: Identity, members: tuple[Avp, ...], answered: bool, application: int
    ) -> None:
        asked = make_avp(dictionary.OC_SUPPORTED_FEATURES, members)
        message = decode(ask(identity, request((*ECR[:-1], asked), application=application)).data)
        ours = [avp.value for avp in message.avps if avp.code == 621]
        vector = (make_avp(dictionary.OC_FEATURE_VECTOR, 1),)
        assert ours == ([vector] if answered and application == 16777252 else [])

    def test_overload_features_that_cannot_be_read(self, identity: Identity) -> None:
        message = refused(identity, request((*ECR, Avp(621, 0, 0, b"\0\0\x02\x6e\0\0\0\xff"))), 5014)
        assert [avp.code for avp in message.avps if avp.code == 621] == []

    def test_proxy_info_in_its_order(self, identity: Identity) -> None:
        agents = [Avp(284, 0, 0x40, octets) for octets in (b"first", b"second!", b"third")]
        message = refused(identity, request((agents[0], *ECR[:3], agents[1], *ECR[3:], agents[2])), 5005)
        assert [avp for avp in message.avps if avp.code == 284] == agents


class TestBinding:
    @pytest.mark.parametrize(
        ("role", "advertised_relay", "routed", "allowed"),
        [
            ("auto", False, False, False),
            ("auto", False, True, True),
            ("auto", True, False, True),
            ("relay", False, False, True),
            ("direct", True, True, False),
        ],
    )
    def test_for_others(
        self, identity: Identity, role: Role, advertised_relay: bool, routed: bool, allowed: bool
    ) -> None:
        ecr = request((*ECR, ROUTE) if routed else ECR)
        sender = Sender("another.example.org", role, advertised_relay)
        message = refused(identity, ecr, 5012 if allowed else 5004, sender)
        assert failed(message) == ([] if allowed else [encode_avp(ECR[2])])

    @pytest.mark.parametrize("role", ["auto", "relay", "direct"])
    def test_for_itself(self, identity: Identity, role: Role) -> None:
        # 5012: the data plane would have answered it.
        refused(identity, request(ECR), 5012, Sender(HOST.upper(), role))

    def test_what_is_wrong_besides_comes_first(self, identity: Identity) -> None:
        refused(identity, request(ECR[:-1]), 5005, Sender("another.example.org", "direct"))
