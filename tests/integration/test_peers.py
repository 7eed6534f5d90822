"""Connections over real sockets: who is let in, what is refused, and how a connection ends."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address

import pytest

from eir.diameter import dictionary as d
from eir.diameter.message import REQUEST, Avp, Header, encode, encode_avp, encode_avps, make_avp
from support import lists
from support.cli import eir
from support.diameter import Client, Received, cer, dpr, dwr, ecr_avps, ecr_of, origin, request, terminal
from support.node import MakeNode, NodeProcess, until

HOST = "mme.epc.test"


def ecr(imei: str = lists.WHITE) -> bytes:
    return ecr_of(ecr_avps(HOST, terminal(imei)))


def failed_avp(answer: Received) -> bytes:
    """What the Failed-AVP of an answer holds."""
    (value,) = answer.values(d.FAILED_AVP)
    assert isinstance(value, bytes)
    return value


class TestCapabilities:
    def test_cea(self, shared_node: NodeProcess) -> None:
        with shared_node.client() as client:
            cea = client.open()
        assert cea.values(d.ORIGIN_HOST) == [shared_node.settings.node.origin_host]
        assert cea.values(d.HOST_IP_ADDRESS) == [ip_address("127.0.0.1")]
        assert cea.values(d.SUPPORTED_VENDOR_ID) == [d.VENDOR_3GPP]
        (application,) = cea.values(d.VENDOR_SPECIFIC_APPLICATION_ID)
        assert isinstance(application, tuple)
        assert {avp.value for avp in application} == {d.VENDOR_3GPP, d.APPLICATION_S13}

    def test_requests_right_behind_the_cer_are_answered_after_it(self, shared_node: NodeProcess) -> None:
        with shared_node.client() as client:
            client.send(cer(HOST) + ecr() + dwr(HOST) + ecr(lists.BLACK))
            answers = [answer for answer in (client.receive() for _ in range(4)) if answer]
        assert [answer.header.command for answer in answers] == [257, 324, 280, 324]
        assert [answer.verdict for answer in answers] == [2001, "white", 2001, "black"]

    def test_no_common_application(self, shared_node: NodeProcess) -> None:
        with shared_node.client() as client:
            assert client.ask(cer(HOST, 16777251)).code == 5010
            assert client.is_closed()

    def test_a_relay_has_every_application(self, shared_node: NodeProcess) -> None:
        with shared_node.client() as client:
            assert client.ask(cer(HOST, d.APPLICATION_RELAY)).code == 2001
            assert client.check(lists.WHITE) == "white"

    def test_peers_by_name_and_network(self, make_node: MakeNode) -> None:
        peers = [
            {"origin_host": "*.epc.test", "networks": ["127.0.0.1/32"]},
            {"origin_host": "far.example.org", "networks": ["192.0.2.0/24"]},
        ]
        node = make_node({"diameter": {"peers": peers}})
        for host in ("mme.example.org", "epc.test", "far.example.org"):
            with node.client(host) as client:
                answer = client.ask(cer(host))
                assert answer.code == 3010
                assert answer.header.flags & 0x20
                assert client.is_closed()
        with node.peer("MME1.EPC.test") as peer:
            assert peer.check(lists.WHITE) == "white"
        metrics = node.metrics()
        assert metrics['eir_connections_closed_total{reason="cer-refused"}'] == 3
        assert metrics['eir_refused_total{code="3010",peer=""}'] == 3

    def test_a_broken_cer(self, shared_node: NodeProcess) -> None:
        with shared_node.client() as client:
            hosts = [make_avp(d.ORIGIN_HOST, HOST)] * 64
            assert client.ask(request(257, 0, hosts)).code == 5009
            assert client.is_closed()

    def test_a_second_cer_changes_nothing(self, shared_node: NodeProcess) -> None:
        with shared_node.peer() as peer:
            assert peer.ask(cer("another.epc.test")).code == 5012
            assert peer.check(lists.WHITE) == "white"

    @pytest.mark.parametrize("first", [ecr(), dwr(HOST), dpr(HOST), encode(Header(0, 257, 0, 1, 1), b"")])
    def test_any_other_message_first_closes(self, shared_node: NodeProcess, first: bytes) -> None:
        with shared_node.client() as client:
            client.send(first)
            assert client.is_closed()

    @pytest.mark.parametrize(
        "octets", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x01\x00\x00\x13" + bytes(20), b"\xff" * 64]
    )
    def test_what_cannot_be_framed_closes(self, shared_node: NodeProcess, octets: bytes) -> None:
        with shared_node.client() as client:
            client.send(octets)
            assert client.is_closed()
        with shared_node.peer() as peer:
            peer.send(octets)
            assert peer.is_closed()

    def test_one_who_sends_no_cer_is_cut_off(self, make_node: MakeNode) -> None:
        node = make_node({"diameter": {"cer_timeout": 0.3}})
        with node.client() as silent, node.client() as slow:
            slow.send(cer(HOST)[:50])
            assert silent.is_closed()
            assert slow.is_closed()
        until(lambda: node.metrics()['eir_connections_closed_total{reason="cer-timeout"}'] == 2)

    def test_too_many_connections(self, make_node: MakeNode) -> None:
        node = make_node({"diameter": {"max_connections": 2}})
        with node.peer("a.epc.test") as first, node.peer("b.epc.test"):
            with node.client() as third:
                assert third.is_closed()
            assert first.check(lists.WHITE) == "white"
        until(lambda: node.metrics()["eir_connections"] == 0)
        node.peer().close()
        assert node.metrics()['eir_connections_refused_total{reason="connections"}'] == 1


def without(name: str) -> Callable[[], bytes]:
    definition = {avp.name: avp for avp in d.AVPS.values()}[name]
    return lambda: ecr_of([avp for avp in ecr_avps(HOST, terminal(lists.WHITE)) if avp.key != definition.key])


def with_also(*avps: Avp) -> Callable[[], bytes]:
    return lambda: ecr_of([*ecr_avps(HOST, terminal(lists.WHITE)), *avps])


def cut() -> bytes:
    data = ecr() + b"\0"
    return data[:1] + len(data).to_bytes(3, "big") + data[4:]


def longer_than_it_is() -> bytes:
    content = encode_avps(ecr_avps(HOST, terminal(lists.WHITE)))
    return request(324, 16777252, content + b"\0\0\x01\x0b\x40\0\0\x20" + bytes(4), 0xC0)


UNKNOWN = Avp(4242, 99, 0x40, b"what")
NOT_TEXT = make_avp(d.TERMINAL_INFORMATION, (Avp(1402, 10415, 0x40, b"\xff\xfe"),))


@pytest.mark.parametrize(
    ("code", "make"),
    [
        (3001, lambda: request(325, 16777252, origin(HOST))),
        (3001, lambda: request(271, 0, origin(HOST))),
        (3007, lambda: request(316, 16777251, origin(HOST))),
        (3007, lambda: request(324, 16777251, origin(HOST))),
        (3008, lambda: request(324, 16777252, ecr_avps(HOST, terminal(lists.WHITE)), REQUEST | 0x20)),
        (5001, with_also(UNKNOWN)),
        (5004, lambda: ecr_of(ecr_avps(HOST, NOT_TEXT))),
        (5004, with_also(make_avp(d.AUTH_SESSION_STATE, 7))),
        (5005, without("Session-Id")),
        (5005, without("Auth-Session-State")),
        (5005, without("Origin-Realm")),
        (5005, without("Terminal-Information")),
        (5005, lambda: ecr_of(ecr_avps(HOST, make_avp(d.TERMINAL_INFORMATION, (make_avp(d.SOFTWARE_VERSION, "01"),))))),
        (5009, with_also(make_avp(d.ORIGIN_HOST, HOST))),
        (5009, with_also(terminal(lists.BLACK))),
        (5011, lambda: b"\x02" + ecr()[1:]),
        (5014, with_also(Avp(277, 0, 0x40, b"\0\0\0"))),
        (5014, longer_than_it_is),
        (5015, cut),
        (5005, lambda: request(280, 0, ())),
        (5005, lambda: request(282, 0, origin(HOST))),
    ],
)
def test_error_answers(shared_node: NodeProcess, code: int, make: Callable[[], bytes]) -> None:
    with shared_node.peer() as peer:
        asked = make()
        answer = peer.ask(asked)
        assert answer.code == code
        # The E bit for protocol errors and for them alone; no verdict; and the connection goes on.
        assert bool(answer.header.flags & 0x20) is (3000 <= code < 4000)
        assert not answer.values(d.EQUIPMENT_STATUS)
        assert answer.values(d.ERROR_MESSAGE)
        assert answer.values(d.ORIGIN_HOST) == [shared_node.settings.node.origin_host]
        assert peer.check(lists.WHITE) == "white"


def test_failed_avps(shared_node: NodeProcess) -> None:
    with shared_node.peer() as peer:
        assert failed_avp(peer.ask(with_also(UNKNOWN)())) == encode_avp(UNKNOWN)
        example = b"\0\0\x01\x08\x40\0\0\x08"
        assert failed_avp(peer.ask(without("Origin-Host")())) == example
        assert failed_avp(peer.ask(ecr_of(ecr_avps(HOST, NOT_TEXT)))) == encode_avp(NOT_TEXT)


def test_answers_nobody_asked_for_are_discarded(make_node: MakeNode) -> None:
    node = make_node()
    with node.peer() as peer:
        for command, application in ((280, 0), (324, 16777252), (257, 0), (282, 0)):
            peer.send(encode(Header(0, command, application, 99, 99), b""))
        assert peer.check(lists.WHITE) == "white"
        until(lambda: node.metrics().get('eir_discarded_total{reason="unsolicited-answer"}') == 4)


def test_watchdog_requests_are_answered(shared_node: NodeProcess) -> None:
    with shared_node.peer() as peer:
        plain = peer.ask(dwr(HOST))
        # One that the data plane leaves to the control plane has the same answer.
        other = peer.ask(request(280, 0, (*origin(HOST), Avp(4242, 0, 0, b"?"))))
    assert plain.code == other.code == 2001
    assert plain.values(d.ORIGIN_STATE_ID) == other.values(d.ORIGIN_STATE_ID) != []
    assert [avp.code for avp in plain.message.avps] == [avp.code for avp in other.message.avps]


class TestDisconnecting:
    def test_a_peers_dpr_is_answered_and_the_peer_closes(self, shared_node: NodeProcess) -> None:
        with shared_node.peer("leaving.epc.test") as peer:
            assert peer.ask(dpr(HOST)).code == 2001
            # Until it closes it is served.
            assert peer.check(lists.WHITE) == "white"
        until(lambda: "leaving.epc.test" not in str(shared_node.ask("peers")))

    def test_the_node_says_goodbye_and_waits_for_the_answer(self, make_node: MakeNode) -> None:
        node = make_node()
        assert node.process is not None
        with node.peer("a.epc.test") as first, node.peer("b.epc.test") as second, node.client() as unopened:
            node.process.terminate()
            assert unopened.is_closed()
            for peer in (first, second):
                asked = peer.receive()
                assert asked is not None
                assert (asked.header.command, asked.header.is_request) == (282, True)
                assert asked.values(d.DISCONNECT_CAUSE) == [0]
                # What is on the way is still answered.
                assert peer.check(lists.BLACK) == "black"
                peer.send(encode(Header(0, 282, 0, asked.header.hop_by_hop, asked.header.end_to_end), b""))
                assert peer.is_closed()
        assert node.wait() == 0
        closed = [entry["reason"] for entry in node.log("connection closed")]
        assert sorted(closed) == ["dpa-received", "dpa-received", "stopped"]

    @pytest.mark.parametrize("drain", [0.0, 0.5])
    def test_it_does_not_wait_for_ever(self, make_node: MakeNode, drain: float) -> None:
        node = make_node({"diameter": {"drain_timeout": drain}})
        assert node.process is not None
        with node.peer() as peer:
            node.process.terminate()
            begin = time.monotonic()
            assert node.wait() == 0
            assert time.monotonic() - begin < drain + 3
            assert peer.receive() is not None
            assert peer.is_closed()
        assert node.log("peers did not disconnect in time")

    def test_nobody_is_let_in_while_it_stops(self, make_node: MakeNode) -> None:
        node = make_node()
        assert node.process is not None
        with node.peer() as peer:
            node.process.terminate()
            asked = peer.receive()
            assert asked is not None
            with pytest.raises(ConnectionError):
                Client(node.listening[0])
            peer.send(encode(Header(0, 282, 0, asked.header.hop_by_hop, asked.header.end_to_end), b""))
        assert node.wait() == 0


def test_ipv6_and_several_listeners(make_node: MakeNode) -> None:
    node = make_node({"diameter": {"listen": ["127.0.0.1:0", "[::1]:0"]}})
    assert [host for host, _ in node.listening] == ["127.0.0.1", "::1"]
    for address in node.listening:
        with Client(address) as client:
            cea = client.open()
            assert cea.values(d.HOST_IP_ADDRESS) == [ip_address(address[0])]
            assert client.check(lists.WHITE) == "white"
            (view,) = node.ask("peers")
            assert view["remote"].startswith("[::1]:" if ":" in address[0] else "127.0.0.1:")
        until(lambda: not node.ask("peers"))


def test_peers_are_listed(make_node: MakeNode) -> None:
    node = make_node()
    with node.peer("mme1.epc.test") as peer, node.client():
        until(lambda: len(node.ask("peers")) == 2)
        peer.check(lists.WHITE)
        views = json.loads(eir("peers", "--json", "-c", node.config).out)
        table = eir("peers", "-c", node.config).out
    opened, unopened = sorted(views, key=lambda view: str(view["state"]))
    assert (opened["origin_host"], opened["state"], opened["watchdog"]) == ("mme1.epc.test", "open", "okay")
    assert (unopened["origin_host"], unopened["state"], unopened["watchdog"]) == ("", "wait_cer", "initial")
    assert 0 <= opened["idle"] <= opened["since"] < 60
    assert "mme1.epc.test" in table


def test_requests_that_are_only_to_be_refused_keep_nobody_elses_cer_waiting(make_node: MakeNode) -> None:
    node = make_node()
    stop = threading.Event()
    many = [make_avp(d.ROUTE_RECORD, "agent.epc.test")] * 200
    strange = ecr_of([*ecr_avps(HOST, terminal(lists.WHITE)), *many, Avp(4242, 0, 0x40, b"")])

    def flood(number: int) -> Counter[int | None]:
        codes: Counter[int | None] = Counter()
        with node.peer(f"flood{number}.epc.test") as peer:
            while not stop.is_set():
                peer.send(strange * 100)
                codes.update(answer.code for answer in (peer.receive() for _ in range(100)) if answer)
        return codes

    with ThreadPoolExecutor(8) as pool:
        floods = [pool.submit(flood, number) for number in range(8)]
        try:
            until(lambda: 'eir_refused_total{code="5001",peer="flood7.epc.test"}' in node.metrics())
            waits = []
            for _ in range(20):
                begun = time.monotonic()
                with node.peer("good.epc.test") as peer:
                    waits.append(time.monotonic() - begun)
                    assert peer.check(lists.WHITE) == "white"
        finally:
            stop.set()
    assert sorted(waits)[10] < 0.5
    assert all(set(flood.result()) == {5001, 3004} for flood in floods)
