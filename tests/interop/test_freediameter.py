"""freeDiameter, a stack in C that this one shares nothing with: as an MME, and as the relay of other clients."""

from __future__ import annotations

from pathlib import Path

import pytest
from diameter.message.avp.grouped import ProxyInfo

from eir.diameter import dictionary as d
from eir.diameter.message import HEADER_LENGTH, decode, numbers_of, walk
from interop.conftest import MakeFreeDiameter, Record
from support import lists
from support.freediameter import FreeDiameter, Target
from support.node import MakeNode, NodeProcess, until
from support.python_diameter import HOST, mme
from support.recorder import Recorder
from support.redis import free_port
from support.tshark import sees_nothing_wrong

MME, DRA = "mme.epc.test", "dra.epc.test"
CLIENTS = (HOST, "*.epc.test")


def asker(make: MakeFreeDiameter, node: NodeProcess, address: tuple[str, int]) -> FreeDiameter:
    """An MME at the node, with its connection open."""
    name = node.settings.node.origin_host
    client = make(MME, Target(name, address), asks=node.settings.node.origin_realm)
    until(lambda: client.is_open(name))
    return client


def relay(make: MakeFreeDiameter, node: NodeProcess, address: tuple[str, int]) -> FreeDiameter:
    """A relay in front of the node, with its connection open."""
    made = make(DRA, Target(node.settings.node.origin_host, address), accepts=CLIENTS)
    until(lambda: made.is_open(node.settings.node.origin_host))
    return made


def asked(recorder: Recorder) -> list[bytes]:
    """The ECRs that the node got."""
    messages = [message for conversation in recorder.conversations for message in conversation.messages()]
    command = d.ME_IDENTITY_CHECK.code.to_bytes(3, "big")
    return [octets for from_node, octets in messages if not from_node and octets[5:8] == command]


def texts(message: bytes, code: int) -> list[str]:
    """The values of a kind of AVP in a message, which may be unsound elsewhere."""
    raws = walk(message, HEADER_LENGTH, len(message))
    return [message[raw.data_start : raw.end].decode() for raw in raws if raw.key == (0, code)]


def test_an_mme(make_node: MakeNode, make_freediameter: MakeFreeDiameter, record: Record, tmp_path: Path) -> None:
    node = make_node({"rules": {"malformed": "unknown"}})
    recorder, name = record(node), node.settings.node.origin_host
    client = asker(make_freediameter, node, recorder.address)
    for imei, imsi, code, status in (
        (lists.WHITE, lists.SUBSCRIBER, "2001", "0"),
        (lists.BLACK, "", "2001", "1"),
        (lists.NEW, lists.SUBSCRIBER, "2001", "2"),
        (lists.NEW + "0", lists.SUBSCRIBER, "2001", "2"),
        (lists.CLONED, lists.HOLDER, "2001", "0"),
        (lists.STOLEN, lists.ROAMER, "2001", "1"),
        ("nothing", lists.SUBSCRIBER, "5422", "-"),
    ):
        assert client.check(imei, imsi) == (code, status, name)
    assert node.timer(lists.NEW) is not None

    # Its DPR is answered, and it closes.
    assert client.stop() == 0
    until(lambda: node.log("connection closed"))
    assert [entry["reason"] for entry in node.log("connection closed")] == ["peer closed"]
    (conversation,) = recorder.conversations
    assert conversation.count(False, 282, True) == conversation.count(True, 282, False) == 1
    assert not any(key.startswith("eir_discarded") and value for key, value in node.metrics().items())
    sees_nothing_wrong(tmp_path, recorder)


@pytest.mark.parametrize("orderly", [True, False])
def test_an_mme_finds_the_node_again(
    make_node: MakeNode, make_freediameter: MakeFreeDiameter, record: Record, tmp_path: Path, orderly: bool
) -> None:
    node = make_node()
    recorder, name = record(node), node.settings.node.origin_host
    client = asker(make_freediameter, node, recorder.address)
    assert client.check(lists.NEW) == ("2001", "2", name)
    if orderly:
        assert node.stop() == 0
        assert [entry["reason"] for entry in node.log("connection closed")] == ["dpa-received"]
    else:
        node.kill()
    until(lambda: not client.is_open(name))
    # With nobody to ask, it makes its own answer: DIAMETER_UNABLE_TO_DELIVER.
    assert client.check(lists.NEW) == ("3002", "-", MME)

    node.start()
    recorder.to = node.listening[0]
    until(lambda: client.is_open(name))
    assert client.check(lists.NEW) == ("2001", "2", name)
    sees_nothing_wrong(tmp_path, recorder)


def test_a_whole_life_through_a_relay(
    make_node: MakeNode, make_freediameter: MakeFreeDiameter, record: Record, tmp_path: Path
) -> None:
    node = make_node({"rules": {"malformed": "unknown"}})
    recorder = record(node)
    dra = relay(make_freediameter, node, recorder.address)
    with mme(node, (DRA, dra.address)) as client:
        for imei, imsi, status in (
            (lists.WHITE, lists.SUBSCRIBER, 0),
            (lists.BLACK, None, 1),
            (lists.NEW, lists.SUBSCRIBER, 2),
            (lists.NEW + "0", "001010000000003", 2),
        ):
            answer = client.check(imei, imsi)
            assert (answer.result_code, answer.equipment_status) == (2001, status)
        unknown = client.check("nothing", lists.SUBSCRIBER)
        assert unknown.experimental_result.experimental_result_code == 5422
        refused = client.check(lists.WHITE, auth_session_state=7)
        assert refused.result_code == 5004
        assert [failed.additional_avps[0].code for failed in refused.failed_avp] == [277]
        # Proxies between it and the relay left these.
        proxies = [ProxyInfo(proxy_host=f"p{number}.epc.test".encode(), proxy_state=b"s" * number) for number in (1, 2)]
        proxied = client.check(lists.WHITE, proxy_info=proxies)
        assert [(each.proxy_host, each.proxy_state) for each in proxied.proxy_info] == [
            (each.proxy_host, each.proxy_state) for each in proxies
        ]
    assert node.timer(lists.NEW) is not None

    # The relay speaks for another and says whose request it is: Origin-Host is the MME's, Route-Record names it too.
    requests = asked(recorder)
    assert len(requests) == 7
    for request in requests:
        assert texts(request, 264) == texts(request, 282) == [HOST]
    # It advertises the relay application, and is counted as itself.
    offers = decode(recorder.conversations[0].messages()[0][1])
    assert d.APPLICATION_RELAY in numbers_of(offers.avps, d.AUTH_APPLICATION_ID)
    metrics = node.metrics()
    assert metrics[f'eir_refused_total{{code="5004",peer="{DRA}"}}'] == 1
    assert not any(key.startswith("eir_discarded") and value for key, value in metrics.items())

    assert dra.stop() == 0
    until(lambda: node.log("connection closed"))
    assert [entry["reason"] for entry in node.log("connection closed")] == ["peer closed"]
    (conversation,) = recorder.conversations
    assert conversation.count(False, 282, True) == conversation.count(True, 282, False) == 1
    sees_nothing_wrong(tmp_path, recorder)


def test_several_clients_through_one_relay(
    make_node: MakeNode, make_freediameter: MakeFreeDiameter, record: Record, tmp_path: Path
) -> None:
    node = make_node()
    recorder, name = record(node), node.settings.node.origin_host
    dra = relay(make_freediameter, node, recorder.address)
    other = make_freediameter(MME, Target(DRA, dra.address), asks=node.settings.node.origin_realm)
    until(lambda: other.is_open(DRA))
    with mme(node, (DRA, dra.address)) as client:
        for _ in range(5):
            assert client.check(lists.BLACK, lists.SUBSCRIBER).equipment_status == 1
            assert other.check(lists.WHITE, lists.SUBSCRIBER) == ("2001", "0", name)
    assert sorted(texts(request, 264)[0] for request in asked(recorder)) == [HOST] * 5 + [MME] * 5
    sees_nothing_wrong(tmp_path, recorder)


@pytest.mark.parametrize("orderly", [True, False])
def test_the_node_restarts_behind_a_relay(
    make_node: MakeNode, make_freediameter: MakeFreeDiameter, orderly: bool
) -> None:
    port = free_port()
    node = make_node({"diameter": {"listen": [f"127.0.0.1:{port}"]}})
    dra = relay(make_freediameter, node, ("127.0.0.1", port))
    with mme(node, (DRA, dra.address)) as client:
        assert client.check(lists.NEW, lists.SUBSCRIBER).equipment_status == 2
        timer = node.timer(lists.NEW)
        if orderly:
            assert node.stop() == 0
            assert [entry["reason"] for entry in node.log("connection closed")] == ["dpa-received"]
        else:
            node.kill()
        # The relay has nowhere to go with it.
        assert client.ask(client.request(lists.NEW)).result_code == 3002
        node.start()
        until(lambda: dra.is_open(node.settings.node.origin_host))
        assert client.check(lists.NEW).equipment_status == 2
        assert node.timer(lists.NEW) == timer
