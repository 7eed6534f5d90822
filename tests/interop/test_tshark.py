"""Every kind of message that a node sends, read by Wireshark's dissector: nothing malformed, every name known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from eir.diameter import dictionary as d
from eir.diameter.message import Avp, Header, encode, encode_avps, make_avp, peek_header
from support import lists
from support.diameter import Client, cer, dpr, dwr, ecr_avps, ecr_of, origin, request, terminal
from support.node import MakeNode, NodeProcess
from support.pcap import write_pcap
from support.silence import QuietPeers
from support.tshark import dissect

HOST = "mme.epc.test"
MEID = make_avp(d.TERMINAL_INFORMATION, (make_avp(d.MEID_3GPP2, b"\xa1\0\0\x12\x34\x56\x78"),))


def proxy_info() -> Avp:
    """A Proxy-Info as RFC 6733 has it: Proxy-Host and Proxy-State."""
    members = (Avp(280, 0, 0x40, "proxy.epc.test"), Avp(33, 0, 0x40, b"state"))
    return Avp(284, 0, 0x40, encode_avps(members))


def scenario(node: NodeProcess) -> list[list[bytes]]:
    """All that the node says to several clients, one of which sees almost everything."""
    recorded = []

    def refused(first: bytes) -> None:
        with node.client() as client:
            client.send(first)
            while client.receive_raw() is not None:
                pass
            recorded.append(client.received)

    with node.client(HOST) as client:
        client.open()
        for imei in (lists.WHITE, lists.BLACK, lists.NEW, "malformed"):
            client.check(imei, lists.SUBSCRIBER)
        client.ask(ecr_of([*ecr_avps(HOST, MEID), proxy_info(), proxy_info()]))
        for mistake in mistakes():
            client.send(mistake)
            assert client.receive_raw() is not None
        client.ask(dwr(HOST))
        client.ask(request(280, 0, (*origin(HOST), Avp(4242, 0, 0, b"?"))))
        client.ask(dpr(HOST))
        recorded.append(client.received)
    refused(cer(HOST, 16777251))
    refused(cer("stranger.example.org"))
    refused(request(257, 0, origin(HOST)))
    with Client(node.listening[1], "second.epc.test") as client:
        client.open()
        assert node.process is not None
        node.process.terminate()
        asked = client.receive()
        assert asked is not None
        assert asked.header.command == 282
        recorded.append(client.received)
    return recorded


def mistakes() -> Iterator[bytes]:
    """A request for each error answer."""
    sound = ecr_avps(HOST, terminal(lists.WHITE))
    yield request(325, 16777252, origin(HOST))
    yield request(316, 16777251, origin(HOST))
    yield request(324, 16777252, sound, 0xA0)
    yield ecr_of([*sound, Avp(4242, 99, 0x40, b"what")])
    yield ecr_of([*sound[:1], make_avp(d.AUTH_SESSION_STATE, 7), *sound[2:]])
    yield ecr_of(sound[:-1])
    yield ecr_of([*sound[:-1], make_avp(d.TERMINAL_INFORMATION, ())])
    yield ecr_of([*sound, sound[-1]])
    yield ecr_of([*sound[:1], Avp(277, 0, 0x40, b"\0\0\0"), *sound[2:]])
    yield cer(HOST)
    yield request(280, 0, ())
    yield request(282, 0, origin(HOST))


def test_every_message_is_dissected(make_node: MakeNode, quiet_peers: QuietPeers, tmp_path: Path) -> None:
    peers = [{"origin_host": "*.epc.test", "networks": ["127.0.0.0/8", "::1/128"]}]
    listen = ["127.0.0.1:0", "[::1]:0"]
    node = make_node(
        {
            "diameter": {"peers": peers, "listen": listen, "drain_timeout": 1.0},
            "rules": {"malformed": "unknown"},
        }
    )
    # The node's own DWRs are to those who were silent.
    quiet_peers.watch()
    recorded = [*scenario(node), quiet_peers.alive.received]
    capture = tmp_path / "node.pcap"
    write_pcap(capture, recorded)
    messages = [message for connection in recorded for message in connection]

    # What is remarked on is inside a Failed-AVP: the peer's own AVP as it came, or an empty example of a missing one.
    fields = ("-T", "fields", "-E", "aggregator=|", "-e", "diameter.Result-Code", "-e", "_ws.expert.message")
    remarks = dissect(capture, "-Y", "_ws.malformed || _ws.expert", *fields).splitlines()
    assert {tuple(remark.split("\t")) for remark in remarks} == {
        (
            "5001",
            "Unknown AVP 4242 (vendor=SNMP Research), if you know what this is you can add it to dictionary.xml|"
            "Unknown Vendor, if you know whose this is you can add it to dictionary.xml",
        ),
        ("5005", "Data is empty"),
        ("5014", "Bad Integer32 Length (3)"),
    }
    assert not dissect(capture, "-Y", "(_ws.malformed || _ws.expert) && !diameter.Failed-AVP")

    packets = json.loads(dissect(capture, "-T", "json"))
    assert len(packets) == len(messages)
    headers = [header for header in map(peek_header, messages) if header]
    kinds = {(header.command, header.is_request) for header in headers}
    assert kinds >= {(257, False), (280, False), (280, True), (282, False), (282, True), (324, False)}
    assert all("diameter" in packet["_source"]["layers"] for packet in packets)

    text = dissect(capture, "-V", "-O", "diameter")
    for name in (
        "Command Code: Capabilities-Exchange",
        "Command Code: Device-Watchdog",
        "Command Code: Disconnect-Peer",
        "Command Code: 3GPP-ME-Identity-Check",
        "ApplicationId: 3GPP S13/S13'",
        "Equipment-Status: WHITELISTED (0)",
        "Equipment-Status: BLACKLISTED (1)",
        "Equipment-Status: GREYLISTED (2)",
        "Result-Code: DIAMETER_SUCCESS (2001)",
        "Experimental-Result-Code: DIAMETER_ERROR_EQUIPMENT_UNKNOWN (5422)",
        "Result-Code: DIAMETER_UNKNOWN_PEER (3010)",
        "Result-Code: DIAMETER_NO_COMMON_APPLICATION (5010)",
        "Auth-Session-State: NO_STATE_MAINTAINED (1)",
        "Disconnect-Cause: REBOOTING (0)",
        "Proxy-Host: proxy.epc.test",
        "Host-IP-Address Address: ::1",
    ):
        assert name in text, name
    codes = {int(line.rpartition("(")[2].rstrip(")")) for line in text.splitlines() if " Result-Code: " in line}
    assert codes == {2001, 3001, 3007, 3008, 3010, 5001, 5004, 5005, 5009, 5010, 5012, 5014}


def test_the_check_sees_what_is_malformed(tmp_path: Path) -> None:
    capture = tmp_path / "bad.pcap"
    host = encode_avps((make_avp(d.ORIGIN_HOST, HOST),))
    good, bad = (
        encode(Header(0, 280, 0, 1, number), b"\0\0\x01\x0c\x40\0\0" + bytes([length]) + b"\0\0\x07\xd1" + host)
        for number, length in ((1, 12), (2, 11))
    )
    for messages, marked in (([good], False), ([good, bad], True)):
        write_pcap(capture, [messages])
        assert "cmd=Device-Watchdog" in dissect(capture)
        assert bool(dissect(capture, "-Y", "_ws.malformed || _ws.expert")) is marked
