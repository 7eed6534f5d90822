"""`eir peers` and `eir trace` on a running node: who may connect changes at once and lasts; requests are seen live."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from eir.diameter import dictionary as d
from support import lists
from support.cli import eir
from support.diameter import Client, cer, dwr, ecr_avps, ecr_of, terminal
from support.node import EIR, MakeNode, NodeProcess, until

HOST = "mme.epc.test"
NETWORK = "127.0.0.0/8"


def change(node: NodeProcess, *words: str, code: int = 0) -> str:
    done = eir("peers", *words, "--reason", "test", "--agent", "tester", "-c", node.config)
    assert done.code == code, done
    return done.out + done.err


def acts(node: NodeProcess) -> list[str]:
    exported = eir("audit", "export", "-c", node.config).out
    return [json.loads(line).get("kind", "") for line in exported.splitlines()]


@pytest.fixture
def node(make_node: MakeNode) -> NodeProcess:
    return make_node({"diameter": {"peers": [{"origin_host": HOST, "networks": [NETWORK]}]}})


def test_a_peer_is_added_put_otherwise_and_removed(node: NodeProcess) -> None:
    def code_of_cer() -> int:
        with node.client("new.epc.test") as client:
            return client.ask(cer("new.epc.test")).code

    assert code_of_cer() == d.UNKNOWN_PEER
    change(node, "add", "new.epc.test", "--network", NETWORK, "--grey", "white")
    with node.peer("new.epc.test") as peer:
        (new,) = lists.new_devices(1)
        assert peer.check(new) == "white", "grey is answered as its entry has it"
        assert node.timer(new) is not None, "and its timer runs all the same"
        change(node, "add", "new.epc.test", "--network", NETWORK, "--requests-per-second", "1")
        # Other terms hold for a connection that is there.
        assert d.TOO_BUSY in {peer.check(lists.WHITE) for _ in range(10)}
        told = json.loads(eir("peers", "show", "NEW.epc.test", "--json", "-c", node.config).out)
        assert told["added"][0]["requests_per_second"] == 1
        assert told["counters"]["limited"] >= 1
        assert [state["state"] for state in told["states"]] == ["R-Open"]
        assert "above its limit" in eir("peers", "show", "new.epc.test", "-c", node.config).out
        assert node.stop() == 0
    node.start()
    assert code_of_cer() == d.SUCCESS, "it lasts over a restart"
    with node.peer("new.epc.test") as peer:
        change(node, "remove", "new.epc.test")
        # A peer that comes back is asked first whether it is there (RFC 3539: REOPEN).
        dwr_of_node, dpr = peer.receive(), peer.receive()
        assert dwr_of_node is not None
        assert dwr_of_node.header.command == d.DEVICE_WATCHDOG.code
        assert dpr is not None
        assert dpr.values(d.DISCONNECT_CAUSE) == [2]
    assert code_of_cer() == d.UNKNOWN_PEER
    assert [kind for kind in acts(node) if kind.startswith("peers-")] == ["peers-add", "peers-add", "peers-remove"]


def test_a_peer_is_kept_out_and_let_in_again(node: NodeProcess) -> None:
    with node.peer(HOST) as peer:
        change(node, "disable", HOST)
        dpr = peer.receive()
        assert dpr is not None
        assert dpr.header.command == d.DISCONNECT_PEER.code
    with node.client(HOST) as client:
        assert client.ask(cer(HOST)).code == d.UNKNOWN_PEER
    assert "DISABLED" in eir("peers", "show", HOST, "-c", node.config).out
    node.reload()
    with node.client(HOST) as client:
        assert client.ask(cer(HOST)).code == d.UNKNOWN_PEER
    change(node, "enable", HOST)
    with node.peer(HOST) as peer:
        assert peer.check(lists.WHITE) == "white"


def test_what_cannot_be_done_is_said(node: NodeProcess) -> None:
    assert "was not added here" in change(node, "remove", HOST, code=1)
    assert "is in the configuration" in change(node, "add", HOST, "--network", NETWORK, code=1)
    assert "is not disabled" in change(node, "enable", HOST, code=1)
    assert "not a pattern" in change(node, "disable", "*.test", code=1)
    assert "no networks" in change(node, "add", "new.epc.test", code=1)
    assert "no certificates" in change(node, "add", "a.test", "--network", NETWORK, "--tls", "required", code=1)
    assert "nothing is known" in eir("peers", "show", "nobody.test", "-c", node.config).err
    assert not (node.state / "peers.json").exists()


def test_a_damaged_file_of_added_peers_costs_no_other_peer(node: NodeProcess) -> None:
    change(node, "add", "new.epc.test", "--network", NETWORK)
    assert node.stop() == 0
    (node.state / "peers.json").write_text("{")
    node.start()
    assert node.log("peers that were added or disabled are not known")
    with node.peer(HOST) as peer:
        assert peer.check(lists.WHITE) == "white"
    assert "peers.json" in change(node, "disable", "other.test", code=1)
    assert (node.state / "peers.json").read_text() == "{", "what may be mended by hand is left alone"


class TestTrace:
    def start(self, node: NodeProcess, *words: str) -> subprocess.Popen[str]:
        command = [str(EIR), "trace", *words, "--json", "--agent", "tester", "-c", str(node.config)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        until(lambda: "trace" in acts(node))
        time.sleep(0.3)
        return process

    def test_requests_of_a_peer_with_their_answers_masked(self, node: NodeProcess) -> None:
        with node.peer(HOST) as peer:
            process = self.start(node, "--peer", HOST.upper(), "--count", "4")
            assert peer.check(lists.BLACK, lists.SUBSCRIBER) == "black"
            peer.ask(dwr(HOST))
            assert peer.ask(ecr_of(ecr_avps(HOST, terminal(lists.WHITE))[:-1])).code == d.MISSING_AVP
            assert peer.check(lists.NEW, lists.SUBSCRIBER) == "grey"
            out, _ = process.communicate(timeout=20)
        shown = [json.loads(line) for line in out.splitlines()]
        assert [(one["outcome"], one["rule"]) for one in shown] == [
            ("answered", "black"),
            ("watchdog", None),
            ("answered", None),
            ("answered", "first-attach"),
        ]
        assert any("Equipment-Status: 1" in line for line in shown[0]["answer"])
        assert any("Result-Code: 5005" in line for line in shown[2]["answer"])
        assert lists.SUBSCRIBER not in out
        assert lists.BLACK in out

    def test_a_peer_that_is_not_let_in(self, node: NodeProcess) -> None:
        process = self.start(node, "--peer", "stranger.epc.test", "--count", "1")
        with node.client("other.epc.test") as other, node.client("Stranger.epc.test") as stranger:
            assert other.ask(cer("other.epc.test")).code == d.UNKNOWN_PEER
            assert stranger.ask(cer("Stranger.epc.test")).code == d.UNKNOWN_PEER
        out, _ = process.communicate(timeout=20)
        (shown,) = map(json.loads, out.splitlines())
        assert "  Origin-Host: Stranger.epc.test" in shown["request"]
        assert "  Result-Code: 3010" in shown["answer"]

    def test_one_device_for_a_while(self, node: NodeProcess) -> None:
        with node.peer(HOST) as peer:
            process = self.start(node, "--imei", lists.WHITE, "--seconds", "2")
            peer.check(lists.BLACK)
            peer.check(lists.WHITE)
            out, _ = process.communicate(timeout=20)
        assert [one["rule"] for one in map(json.loads, out.splitlines())] == ["white"]

    def test_without_a_wish_there_is_none(self, node: NodeProcess) -> None:
        done = eir("trace", "--agent", "tester", "-c", node.config)
        assert done.code == 1
        assert "needs a device" in done.err


def test_memory_is_flat_however_broken_the_peers(make_node: MakeNode) -> None:
    node = make_node()
    assert node.process is not None

    def resident() -> int:
        assert node.process is not None
        with open(f"/proc/{node.process.pid}/statm") as file:
            return int(file.read().split()[1]) * 4096

    def trouble() -> None:
        for number in range(150):
            with Client(node.listening[0], HOST) as client:
                if number % 3 == 0:
                    client.send(cer(f"broken{number}.epc.test") + b"\1\0\0")
                    client.receive()
                elif number % 3 == 1:
                    client.send(b"\1\0\x40\0" + bytes(16_000))
                else:
                    client.send(cer(HOST)[:-1])

    trouble()
    before = resident()
    for _ in range(8):
        trouble()
    until(lambda: not node.ask("peers"))
    assert resident() - before < 8 << 20
    with node.peer() as peer:
        assert peer.check(lists.WHITE) == "white"
