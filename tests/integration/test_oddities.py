"""What clients in the field send that is unusual and allowed, or wrong and forgivable, is answered as if it were not.

Beside it what is refused whatever else a request holds, with what an error answer has to give back.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from itertools import permutations

import pytest

from eir import _core
from eir.diameter import dictionary as d
from eir.diameter.message import PROXIABLE, REQUEST, Avp, encode_avps, make_avp, walk
from support import lists
from support.diameter import Received, cer, dpr, dwr, ecr_avps, origin, request, terminal
from support.node import NodeProcess, until

HOST = "mme.epc.test"
RETRANSMITTED = 0x10
"""The T bit of a command's flags."""
needs_priorities = pytest.mark.skipif(
    not hasattr(_core, "Terms"), reason="NOT TESTED: the data plane that is installed knows no priorities"
)
M, P = 0x40, 0x20
"""Bits of an AVP's flags: M, and the one that RFC 6733 calls P and reserves."""


def vendor_specific(*members: tuple[int, int]) -> Avp:
    """A Vendor-Specific-Application-Id of these (code, number)."""
    return Avp(260, 0, M, tuple(Avp(code, 0, M, number) for code, number in members))


def features(flags: int = 0) -> Avp:
    """Supported-Features (TS 29.229 6.3.29)."""
    members = (Avp(266, 0, M, 10415), Avp(629, 10415, 0, 1), Avp(630, 10415, 0, 3))
    return Avp(628, 10415, flags, members)


def proxy_info(host: str, state: bytes, *others: Avp) -> Avp:
    """Proxy-Info (RFC 6733 6.7.2)."""
    return Avp(284, 0, M, encode_avps((Avp(280, 0, M, host), Avp(33, 0, M, state), *others)))


def device(*members: Avp, flags: int = M) -> Avp:
    """Terminal-Information of these members."""
    return Avp(1401, 10415, flags, members)


def plain(imei: str = lists.BLACK) -> list[Avp]:
    """What the least ECR holds that asks about a black device."""
    return ecr_avps(HOST, terminal(imei))


def ecr(avps: Sequence[Avp] | bytes, flags: int = REQUEST | PROXIABLE) -> bytes:
    """An ECR of these AVPs."""
    return request(d.ME_IDENTITY_CHECK.code, d.APPLICATION_S13, avps, flags)


def kept(data: bytes, key: tuple[int, int]) -> list[bytes]:
    """The AVPs of a kind in a message, octet for octet."""
    return [data[raw.start : raw.end + -raw.end % 4] for raw in walk(data, 20, len(data)) if raw.key == key]


def without(avps: Sequence[Avp], definition: d.AvpDefinition) -> list[Avp]:
    return [avp for avp in avps if avp.key != definition.key]


OVERLOAD = Avp(621, 0, 0, (Avp(622, 0, 0, 1),))
LOAD = Avp(650, 0, 0, (Avp(651, 0, 0, 1), Avp(652, 0, 0, 4000), Avp(649, 0, 0, "mme.epc.test")))

ODDITIES: dict[str, list[Avp]] = {
    "no Vendor-Specific-Application-Id, Software-Version, Destination-Host or User-Name": plain(),
    "Vendor-Specific-Application-Id": [*plain(), vendor_specific((266, 10415), (258, 16777252))],
    "its members the other way about": [*plain(), vendor_specific((258, 16777252), (266, 10415))],
    "it as for accounting": [*plain(), vendor_specific((266, 10415), (259, 16777252))],
    "it with two vendors": [*plain(), vendor_specific((266, 10415), (266, 0), (258, 16777252))],
    "it empty": [*plain(), vendor_specific()],
    "it of another application": [*plain(), vendor_specific((266, 10415), (258, 16777251))],
    "Auth-Application-Id beside it": [*plain(), Avp(258, 0, M, 16777252)],
    "Destination-Host": [*plain(), make_avp(d.DESTINATION_HOST, "eir.epc.mnc001.mcc001.3gppnetwork.org")],
    "Destination-Host of another": [*plain(), make_avp(d.DESTINATION_HOST, "eir2.epc.test")],
    "Origin-Host in capitals": [
        *without(plain(), d.ORIGIN_HOST),
        make_avp(d.ORIGIN_HOST, HOST.upper()),
    ],
    "session that is kept": [*without(plain(), d.AUTH_SESSION_STATE), make_avp(d.AUTH_SESSION_STATE, 0)],
    "MSISDN": [*plain(), Avp(701, 10415, M, bytes.fromhex("1032547698f0"))],
    "MSISDN without M": [*plain(), Avp(701, 10415, 0, bytes.fromhex("1032547698f0"))],
    "MSISDN that is none": [*plain(), Avp(701, 10415, M, b"\xff\xff")],
    "MSISDN twice": [*plain(), Avp(701, 10415, M, b"\x21\x43"), Avp(701, 10415, M, b"\x21\xf3")],
    "MSISDN empty": [*plain(), Avp(701, 10415, 0, b"")],
    "AVPs of unknown vendors without M": [
        *plain(),
        Avp(1, 99, 0, b"what"),
        Avp(4242, 193, P, b"?"),
        Avp(1, 99, 0, b""),
    ],
    "AVPs of no vendor that are unknown, without M": [*plain(), Avp(4242, 0, 0, b"what"), Avp(0, 0, 0, b"")],
    "3GPP's AVPs that are not S13's, without M": [
        *plain(),
        Avp(1032, 10415, 0, bytes(4)),
        Avp(1407, 10415, 0, b"\0\1\2"),
    ],
    "Terminal-Information without M": [
        *plain()[:-1],
        device(Avp(1402, 10415, 0, lists.BLACK), Avp(1403, 10415, 0, "01"), flags=0),
    ],
    "Terminal-Information with everything": [
        *plain()[:-1],
        device(
            Avp(1471, 10415, M, bytes(7)),
            Avp(1403, 10415, M, "01"),
            Avp(7, 99, 0, b"x"),
            Avp(1402, 10415, M, lists.BLACK),
        ),
    ],
    "Software-Version empty": [*plain()[:-1], device(Avp(1402, 10415, M, lists.BLACK), Avp(1403, 10415, M, ""))],
    "IMEI of 15 digits": plain(lists.BLACK + "4"),
    "IMEI with software version, 16 digits": plain(lists.BLACK + "42"),
    "DRMP": [*plain(), Avp(301, 0, 0, 4)],
    "DRMP with M": [*plain(), Avp(301, 0, M, 0)],
    "DRMP out of range": [*plain(), Avp(301, 0, 0, 99)],
    "OC-Supported-Features": [*plain(), OVERLOAD],
    "OC-Supported-Features empty": [*plain(), Avp(621, 0, 0, ())],
    "Supported-Features": [*plain(), features(), features(M)],
    "Load": [*plain(), LOAD, LOAD],
    "Origin-State-Id": [*plain(), make_avp(d.ORIGIN_STATE_ID, 7)],
    "Route-Record": [*plain(), *(Avp(282, 0, M, f"dra{number}.epc.test") for number in range(3))],
    "Route-Record of a long way": [*plain(), *(Avp(282, 0, M, f"dra{number}.epc.test") for number in range(64))],
    "User-Name that is no IMSI": [*plain(), make_avp(d.USER_NAME, "0001010000000001@nai.epc.test")],
    "User-Name empty": [*plain(), make_avp(d.USER_NAME, "")],
    "Session-Id without the usual form": [make_avp(d.SESSION_ID, "x"), *plain()[1:]],
    "Session-Id that is long": [make_avp(d.SESSION_ID, "mme;" + "7" * 4000), *plain()[1:]],
    "Session-Id not of ASCII": [make_avp(d.SESSION_ID, "mme;сессия"), *plain()[1:]],
    "the P bit of AVPs": [Avp(avp.code, avp.vendor, avp.flags | P, avp.value) for avp in plain()],
    "no M bit anywhere": [Avp(avp.code, avp.vendor, 0, avp.value) for avp in plain()],
    "everything at once": [
        *plain(),
        Avp(301, 0, 0, 4),
        OVERLOAD,
        features(),
        LOAD,
        Avp(701, 10415, M, bytes.fromhex("1032547698f0")),
        make_avp(d.USER_NAME, lists.SUBSCRIBER),
        make_avp(d.DESTINATION_HOST, "eir.epc.test"),
        vendor_specific((266, 10415), (258, 16777252)),
        Avp(4242, 99, 0, b"what"),
        proxy_info("dra1.epc.test", b"1"),
        Avp(282, 0, M, "dra1.epc.test"),
    ],
}


def judged(answer: Received, node: NodeProcess) -> None:
    """An ECA that says black, as any other is."""
    assert answer.verdict == "black"
    assert answer.header.application == d.APPLICATION_S13
    assert answer.values(d.ORIGIN_HOST) == [node.settings.node.origin_host]
    assert answer.values(d.AUTH_SESSION_STATE) == [d.NO_STATE_MAINTAINED]
    (application,) = answer.values(d.VENDOR_SPECIFIC_APPLICATION_ID)
    assert isinstance(application, tuple)
    assert [(avp.code, avp.value) for avp in application] == [(266, 10415), (258, 16777252)]
    # What is not for the answer does not come back.
    assert not {avp.code for avp in answer.message.avps} & {1, 282, 283, 293, 701, 1401, 4242}


@pytest.mark.parametrize("oddity", ODDITIES)
def test_an_oddity_is_answered(shared_node: NodeProcess, oddity: str) -> None:
    avps = ODDITIES[oddity]
    with shared_node.peer() as peer:
        sent = ecr(avps)
        answer = peer.ask(sent)
        judged(answer, shared_node)
        assert kept(answer.data, (0, 263)) == kept(sent, (0, 263))
        assert kept(answer.data, (0, 284)) == kept(sent, (0, 284))


def test_avps_in_any_order_behind_the_session_id(shared_node: NodeProcess) -> None:
    first, *rest = [*plain(), make_avp(d.USER_NAME, lists.SUBSCRIBER)]
    with shared_node.peer() as peer:
        for order in permutations(rest):
            judged(peer.ask(ecr([first, *order])), shared_node)


def test_several_proxy_infos_go_back_unchanged_and_in_order(shared_node: NodeProcess) -> None:
    proxies = [
        proxy_info("dra2.epc.test", b"state"),
        proxy_info("dra1.epc.test", b"", Avp(4242, 99, 0, b"more")),
        # No padding of its own, one of another flag, one that is none at all: they are the agent's.
        Avp(284, 0, M, b"odd"),
        Avp(284, 0, P, bytes(range(64))),
        Avp(284, 0, 0, b""),
        proxy_info("dra2.epc.test", b"state"),
    ]
    with shared_node.peer() as peer:
        for place in (1, len(plain())):
            avps = plain()
            avps[place:place] = proxies
            sent = ecr(avps)
            answer = peer.ask(sent)
            judged(answer, shared_node)
            assert kept(answer.data, (0, 284)) == kept(sent, (0, 284)) == [encode_avps((proxy,)) for proxy in proxies]
        # An error answer has them too.
        sent = ecr([*plain(), *proxies, Avp(4242, 99, M, b"what")])
        answer = peer.ask(sent)
        assert answer.code == 5001
        assert kept(answer.data, (0, 284)) == kept(sent, (0, 284))


def test_padding_that_is_not_zero(shared_node: NodeProcess) -> None:
    first = encode_avps((make_avp(d.SESSION_ID, "mme;1"),))
    assert first.endswith(b"1\0\0\0")
    with shared_node.peer() as peer:
        answer = peer.ask(ecr(first[:-3] + b"abc" + encode_avps(plain()[1:])))
        judged(answer, shared_node)
        assert answer.values(d.SESSION_ID) == ["mme;1"]


@pytest.mark.parametrize("flags", [REQUEST | PROXIABLE, REQUEST])
def test_a_retransmission_is_answered_without_the_t_bit(shared_node: NodeProcess, flags: int) -> None:
    with shared_node.peer() as peer:
        answer = peer.ask(ecr(plain(), flags | RETRANSMITTED))
        judged(answer, shared_node)
        # P as it came, neither R, E nor T.
        assert answer.header.flags == flags & PROXIABLE
        refused = peer.ask(ecr([*plain(), Avp(4242, 99, M, b"what")], flags | RETRANSMITTED))
        assert (refused.code, refused.header.flags) == (5001, flags & PROXIABLE)
        for asked in (dwr(HOST), dpr(HOST)):
            assert peer.ask(asked[:4] + bytes([asked[4] | RETRANSMITTED]) + asked[5:]).header.flags == 0


@pytest.mark.parametrize("bit", [0x08, 0x04, 0x02, 0x01])
def test_reserved_bits_of_the_command_flags_are_ignored(shared_node: NodeProcess, bit: int) -> None:
    with shared_node.peer() as peer:
        answer = peer.ask(ecr(plain(), REQUEST | PROXIABLE | bit))
        judged(answer, shared_node)
        assert answer.header.flags == PROXIABLE


def test_a_request_repeated_and_an_identifier_used_again(shared_node: NodeProcess) -> None:
    first, second = ecr(plain()), ecr(plain(lists.WHITE))
    second = second[:12] + first[12:20] + second[20:]
    with shared_node.peer() as peer:
        peer.send(first + first + second)
        answers = [peer.receive() for _ in range(3)]
    assert [answer and answer.verdict for answer in answers] == ["black", "black", "white"]
    assert {answer and answer.data[12:20] for answer in answers} == {first[12:20]}


@pytest.mark.parametrize(
    ("imei", "verdict"),
    [
        (lists.WHITE, "white"),
        (lists.WHITE + "0", "white"),
        (lists.WHITE + "9", "white"),
        (lists.WHITE + "01", "white"),
        (lists.NATIONAL_GREY, "grey"),
        (lists.NATIONAL_GREY + "5", "grey"),
        (lists.NATIONAL_GREY + "78", "grey"),
    ],
)
def test_an_imei_with_and_without_what_follows_it(shared_node: NodeProcess, imei: str, verdict: str) -> None:
    with shared_node.peer() as peer:
        assert peer.check(imei, lists.SUBSCRIBER) == verdict


def test_an_sgsn_asks_by_s13_prime(shared_node: NodeProcess) -> None:
    # The same application and the same command (TS 29.272 6.2, 7.1.7): nothing but its name tells an SGSN.
    with shared_node.peer("sgsn.epc.test") as peer:
        assert peer.check(lists.BLACK, lists.SUBSCRIBER) == "black"
        assert peer.check(lists.WHITE) == "white"


PROXIES = (proxy_info("dra2.epc.test", b"two"), proxy_info("dra1.epc.test", b"one"))


@pytest.mark.parametrize(
    ("code", "command", "application", "flags"),
    [
        (3001, 325, 16777252, REQUEST | PROXIABLE),
        (3001, 318, 16777252, REQUEST | PROXIABLE | RETRANSMITTED),
        (3001, 271, 0, REQUEST),
        (3007, 316, 16777251, REQUEST | PROXIABLE),
        (3007, 324, 16777251, REQUEST | PROXIABLE),
        (3007, 324, 0xFFFFFFFF, REQUEST | PROXIABLE),
        (3008, 324, 16777252, REQUEST | PROXIABLE | 0x20),
    ],
)
def test_a_protocol_error_in_its_short_form(
    shared_node: NodeProcess, code: int, command: int, application: int, flags: int
) -> None:
    sent = request(command, application, [*plain(), *PROXIES], flags)
    with shared_node.peer() as peer:
        answer = peer.ask(sent)
        assert answer.code == code
        # The E bit, P as it came, not T; the application as it came; Session-Id and Proxy-Info (RFC 6733 7.2).
        assert answer.header.flags == flags & PROXIABLE | 0x20
        assert answer.header.application == application
        assert kept(answer.data, (0, 263)) == kept(sent, (0, 263))
        assert kept(answer.data, (0, 284)) == kept(sent, (0, 284))
        assert {avp.code for avp in answer.message.avps} <= {263, 264, 296, 268, 278, 281, 284, 294, 297, 279}
        assert peer.check(lists.WHITE) == "white"


CAPABILITIES: dict[str, list[Avp]] = {
    "S13 as an authentication application alone": [Avp(258, 0, M, 16777252)],
    "S13 as an accounting application": [Avp(259, 0, M, 16777252)],
    "S13 in a Vendor-Specific-Application-Id alone": [vendor_specific((266, 10415), (258, 16777252))],
    "that, the other way about": [vendor_specific((258, 16777252), (266, 10415))],
    "that, for accounting": [vendor_specific((266, 10415), (259, 16777252))],
    "that, with no vendor": [vendor_specific((258, 16777252))],
    "that, of another vendor": [vendor_specific((266, 193), (258, 16777252))],
    "S6a too": [vendor_specific((266, 10415), (258, 16777251)), vendor_specific((266, 10415), (258, 16777252))],
    "a relay": [Avp(258, 0, M, 0xFFFFFFFF)],
    "a relay that names S13 too": [Avp(258, 0, M, 0xFFFFFFFF), Avp(258, 0, M, 16777252)],
    "a thousand applications": [*(Avp(258, 0, M, number) for number in range(1000)), Avp(258, 0, M, 16777252)],
    "many addresses": [
        Avp(258, 0, M, 16777252),
        *(make_avp(d.HOST_IP_ADDRESS, ip_address(f"192.0.2.{number}")) for number in range(1, 40)),
        make_avp(d.HOST_IP_ADDRESS, ip_address("2001:db8::1")),
    ],
    "an address of another family": [Avp(258, 0, M, 16777252), Avp(257, 0, M, b"\0\x08\x11\x22\x33")],
    "no security": [Avp(258, 0, M, 16777252), Avp(299, 0, M, 0)],
    "no security or TLS": [Avp(258, 0, M, 16777252), Avp(299, 0, M, 0), Avp(299, 0, M, 1)],
    "Origin-State-Id, Firmware-Revision, vendors": [
        Avp(258, 0, M, 16777252),
        Avp(278, 0, M, 5),
        Avp(267, 0, 0, 1),
        *(Avp(265, 0, M, number) for number in (10415, 193, 0, 10415)),
    ],
    "AVPs that are unknown, without M": [Avp(258, 0, M, 16777252), Avp(4242, 99, 0, b"what"), Avp(4242, 0, 0, b"?")],
}


@pytest.mark.parametrize("oddity", CAPABILITIES)
def test_an_oddity_of_a_cer_is_accepted(shared_node: NodeProcess, oddity: str) -> None:
    base = encode_avps(
        (
            *origin(HOST),
            make_avp(d.HOST_IP_ADDRESS, ip_address("127.0.0.1")),
            make_avp(d.VENDOR_ID, 10415),
            make_avp(d.PRODUCT_NAME, ""),
        )
    )
    with shared_node.client() as client:
        cea = client.ask(request(257, 0, base + encode_avps(CAPABILITIES[oddity])))
        assert cea.code == 2001, cea.values(d.ERROR_MESSAGE)
        assert client.check(lists.WHITE) == "white"


def test_watchdogs_with_more_than_they_need(shared_node: NodeProcess) -> None:
    more: list[list[Avp]] = [[make_avp(d.ORIGIN_STATE_ID, 5)], [Avp(4242, 99, 0, b"what")], [LOAD], [Avp(301, 0, 0, 0)]]
    with shared_node.peer() as peer:
        for avps in more:
            answer = peer.ask(request(280, 0, [*origin(HOST), *avps]))
            assert answer.code == 2001
            assert len(answer.values(d.ORIGIN_STATE_ID)) == 1
        # A proxiable one, which a DWR must not be, is no worse.
        assert peer.ask(request(280, 0, origin(HOST), REQUEST | PROXIABLE)).code == 2001


@pytest.mark.parametrize("cause", [0, 1, 2])
def test_each_cause_of_a_disconnection(shared_node: NodeProcess, cause: int) -> None:
    host = f"leaving{cause}.epc.test"
    with shared_node.peer(host) as peer:
        assert peer.ask(request(282, 0, [*origin(host), Avp(273, 0, M, cause)])).code == 2001
    until(lambda: host not in str(shared_node.ask("peers")))


def test_a_cer_behind_another_before_the_cea(shared_node: NodeProcess) -> None:
    with shared_node.client() as client:
        client.send(cer(HOST) + cer(HOST))
        codes = [answer and answer.code for answer in (client.receive(), client.receive())]
        assert codes == [2001, 5012]
        assert client.check(lists.WHITE) == "white"


@needs_priorities
@pytest.mark.parametrize("priority", [0, 7, 15])
def test_drmp_goes_back(shared_node: NodeProcess, priority: int) -> None:
    with shared_node.peer() as peer:
        answer = peer.ask(ecr([*plain(), Avp(301, 0, 0, priority)]))
        judged(answer, shared_node)
        assert [avp.value for avp in answer.message.avps if avp.code == 301] == [priority]


@needs_priorities
def test_overload_control_is_agreed_on(shared_node: NodeProcess) -> None:
    with shared_node.peer() as peer:
        answer = peer.ask(ecr([*plain(), OVERLOAD]))
        judged(answer, shared_node)
        # The one algorithm that is chosen: loss, which every reacting node has (RFC 7683 5.1.2, 7.2); no report.
        (chosen,) = [avp.value for avp in answer.message.avps if avp.code == 621]
        assert isinstance(chosen, tuple)
        assert [(avp.code, avp.value) for avp in chosen] in ([], [(622, 1)])
        assert not [avp for avp in answer.message.avps if avp.code == 623]


def test_overload_control_is_not_forced_on_anybody(shared_node: NodeProcess) -> None:
    with shared_node.peer() as peer:
        answer = peer.ask(ecr(plain()))
        assert not [avp for avp in answer.message.avps if avp.code in (301, 621, 623, 650)]
