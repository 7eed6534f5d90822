"""OTP's diameter application, a stack in Erlang that this one shares nothing with, as an MME."""

from __future__ import annotations

from pathlib import Path

from interop.conftest import MakeFreeDiameter, MakeOtpDiameter, Record
from support import lists
from support.freediameter import Target
from support.node import MakeNode, NodeProcess, until
from support.otp_diameter import OtpDiameter
from support.tshark import sees_nothing_wrong

MME, DRA = "mme.otp.test", "dra.epc.test"


def lives(client: OtpDiameter, node: NodeProcess) -> None:
    """Asks about every kind of device."""
    name = node.settings.node.origin_host
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
    # It reads every answer by the grammar and has no objection.
    assert not client.told("errors", "failed")


def test_an_mme(make_node: MakeNode, make_otp: MakeOtpDiameter, record: Record, tmp_path: Path) -> None:
    node = make_node({"rules": {"malformed": "unknown"}})
    recorder, own = record(node), node.settings.node
    client = make_otp(MME, own.origin_realm, recorder.address)
    until(lambda: client.is_open(own.origin_host))
    lives(client, node)
    assert client.stop() == 0
    until(lambda: node.log("connection closed"))
    assert [entry["reason"] for entry in node.log("connection closed")] == ["peer closed"]
    (conversation,) = recorder.conversations
    assert conversation.count(False, 282, True) == conversation.count(True, 282, False) == 1
    assert not any(key.startswith("eir_discarded") and value for key, value in node.metrics().items())
    sees_nothing_wrong(tmp_path, recorder)


def test_the_node_leaves_first(make_node: MakeNode, make_otp: MakeOtpDiameter, record: Record, tmp_path: Path) -> None:
    node = make_node()
    recorder, own = record(node), node.settings.node
    client = make_otp(MME, own.origin_realm, recorder.address)
    until(lambda: client.is_open(own.origin_host))
    assert client.check(lists.WHITE) == ("2001", "0", own.origin_host)
    assert node.stop() == 0
    assert [entry["reason"] for entry in node.log("connection closed")] == ["dpa-received"]
    until(lambda: not client.is_open(own.origin_host))
    sees_nothing_wrong(tmp_path, recorder)


def test_an_mme_behind_a_relay(
    make_node: MakeNode,
    make_freediameter: MakeFreeDiameter,
    make_otp: MakeOtpDiameter,
    record: Record,
    tmp_path: Path,
) -> None:
    node = make_node({"rules": {"malformed": "unknown"}})
    recorder, own = record(node), node.settings.node
    dra = make_freediameter(DRA, Target(own.origin_host, recorder.address), accepts=(MME,))
    client = make_otp(MME, own.origin_realm, dra.address)
    until(lambda: client.is_open(DRA))
    until(lambda: dra.is_open(own.origin_host))
    lives(client, node)
    assert client.stop() == 0
    sees_nothing_wrong(tmp_path, recorder)
