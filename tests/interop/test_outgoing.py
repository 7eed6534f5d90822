"""Connections that the node opens: to an MME on OTP, and to the relay, which may open one at the same time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from eir import config
from interop.conftest import MakeFreeDiameter, MakeOtpDiameter
from support import lists
from support.freediameter import Target
from support.node import MakeNode, NodeProcess, until
from support.otp_diameter import OtpDiameter
from support.python_diameter import HOST, mme
from support.recorder import Recorder
from support.redis import free_port
from support.tshark import sees_nothing_wrong

pytestmark = pytest.mark.skipif(
    "connect" not in config.PeerSection.__struct_fields__, reason="NOT TESTED: the node that is installed only listens"
)

MME = "mme.otp.test"
EIR, REALM = config.NodeSection().origin_host, config.NodeSection().origin_realm


def connecting(make: MakeNode, peer: str, to: tuple[str, int], **more: Any) -> NodeProcess:
    """A node that connects to that peer, again after a second."""
    entry = {"origin_host": peer, "connect": [f"{to[0]}:{to[1]}"], "networks": ["127.0.0.0/8"], **more}
    return make({"diameter": {"peers": [entry], "reconnect": 1.0}, "rules": {"malformed": "unknown"}})


def opened(node: NodeProcess, peer: str) -> Sequence[Any]:
    """The node's open connections to that peer."""
    return [view for view in node.ask("peers") if view["origin_host"] == peer and view["state"] in ("open", "i_open")]


def lives(client: OtpDiameter) -> None:
    """Asks about each kind of device."""
    for imei, imsi, code, status in (
        (lists.WHITE, lists.SUBSCRIBER, "2001", "0"),
        (lists.BLACK, "", "2001", "1"),
        (lists.NEW, lists.SUBSCRIBER, "2001", "2"),
        ("nothing", "", "5422", "-"),
    ):
        assert client.check(imei, imsi) == (code, status, EIR)
    assert not client.told("errors", "failed")


def test_to_an_mme(make_node: MakeNode, make_otp: MakeOtpDiameter, tmp_path: Path) -> None:
    client = make_otp(MME, REALM)
    with Recorder(("127.0.0.1", client.port), from_node=True) as recorder:
        node = connecting(make_node, MME, recorder.address)
        until(lambda: client.is_open(EIR))
        lives(client)
        # The node sent the CER.
        assert recorder.conversations[0].count(True, 257, True) == 1

        # The MME leaves and comes back: the node finds it, and the MME, on whose watchdog it was, takes it up.
        assert client.stop() == 0
        until(lambda: not opened(node, MME))
        client.start()
        until(lambda: client.is_open(EIR), 30)
        lives(client)

        # The node leaves: a DPR, which is answered.
        assert node.stop() == 0
        assert node.log("connection closed")[-1]["reason"] == "dpa-received"
        until(lambda: not client.is_open(EIR))
        sees_nothing_wrong(tmp_path, recorder)


def test_to_an_mme_that_is_not_there_yet(make_node: MakeNode, make_otp: MakeOtpDiameter) -> None:
    port = free_port()
    node = connecting(make_node, MME, ("127.0.0.1", port))
    time.sleep(0.5)
    assert not opened(node, MME)
    client = make_otp(MME, REALM, listens=port)
    until(lambda: client.is_open(EIR), 30)
    lives(client)


def test_to_a_relay(make_node: MakeNode, make_freediameter: MakeFreeDiameter, tmp_path: Path) -> None:
    dra = make_freediameter("dra.epc.test", accepts=(HOST, EIR), routes=(EIR,))
    with Recorder(dra.address, from_node=True) as recorder:
        node = connecting(make_node, dra.name, recorder.address)
        until(lambda: opened(node, dra.name))
        with mme(node, (dra.name, dra.address)) as client:
            for imei, status in ((lists.WHITE, 0), (lists.BLACK, 1), (lists.NEW, 2)):
                assert client.check(imei, lists.SUBSCRIBER).equipment_status == status
        assert node.stop() == 0
        assert node.log("connection closed")[-1]["reason"] == "dpa-received"
        sees_nothing_wrong(tmp_path, recorder)


@pytest.mark.parametrize("name", ["dra.epc.test", "zebra.epc.test"])
def test_both_connect_and_one_connection_stays(
    make_node: MakeNode, make_freediameter: MakeFreeDiameter, tmp_path: Path, name: str
) -> None:
    # Either has the greater name once (RFC 6733 5.6.4).
    ports = free_port(), free_port()
    dra = make_freediameter(
        name, Target(EIR, ("127.0.0.1", ports[0])), accepts=(HOST, EIR), routes=(EIR,), port=ports[1]
    )
    entry = {"origin_host": name, "connect": [f"127.0.0.1:{ports[1]}"], "networks": ["127.0.0.0/8"]}
    node = make_node({"diameter": {"peers": [entry], "reconnect": 1.0, "listen": [f"127.0.0.1:{ports[0]}"]}})
    until(lambda: opened(node, name), 30)
    with mme(node, (name, dra.address)) as client:
        for _ in range(20):
            assert client.check(lists.BLACK).equipment_status == 1
            assert len(opened(node, name)) == 1
