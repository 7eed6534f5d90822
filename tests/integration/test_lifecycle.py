"""Start, reload and stop of a node, and what its service manager is told."""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eir.diameter import dictionary as d
from eir.diameter.message import Header, encode
from support import lists
from support.cli import eir
from support.diameter import cer
from support.node import MakeNode, NodeProcess, Settings, until, write_config


class Manager:
    """A service manager's end of sd_notify."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(15)
        self.address = str(path)

    def told(self) -> str:
        """The next thing that it is told."""
        return self.socket.recv(4096).decode()


def test_the_service_manager_is_told(make_node: MakeNode, tmp_path: Path) -> None:
    manager = Manager(tmp_path / "notify")
    node = make_node(start=False)
    node.environment["NOTIFY_SOCKET"] = manager.address
    begin = time.monotonic_ns() // 1000
    node.start()
    assert manager.told() == "READY=1"
    # A reload is over when it says so, be it a good one or not.
    for text in (None, "[node]\ncolour = 1\n"):
        if text:
            node.config.write_text(text)
        node.reload()
        reloading, clock = manager.told().split("\n")
        assert reloading == "RELOADING=1"
        assert begin <= int(clock.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        assert manager.told() == "READY=1"
    assert node.stop() == 0
    assert manager.told() == "STOPPING=1"


def test_a_service_manager_with_an_abstract_address(make_node: MakeNode, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0eir-test-{os.getpid()}")
        manager.settimeout(15)
        node = make_node(start=False)
        node.environment["NOTIFY_SOCKET"] = f"@eir-test-{os.getpid()}"
        node.start()
        assert manager.recv(100) == b"READY=1"


def test_a_service_manager_that_is_gone_is_only_missed(make_node: MakeNode, tmp_path: Path) -> None:
    node = make_node(start=False)
    node.environment["NOTIFY_SOCKET"] = str(tmp_path / "nobody")
    node.start()
    until(lambda: node.log("the service manager cannot be told"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_end_it(make_node: MakeNode, number: signal.Signals) -> None:
    node = make_node()
    assert node.process is not None
    control_socket = node.settings.path("control.sock")
    assert control_socket.is_socket()
    node.process.send_signal(number)
    assert node.wait() == 0
    assert not control_socket.exists()
    assert [entry["event"] for entry in node.log()][-1] == "stopping"


def test_it_is_ready_within_a_second(make_node: MakeNode) -> None:
    # What holds is half a second on a machine of its own; this one has other work too.
    node = make_node(start=False)
    begin = time.monotonic()
    node.start()
    assert time.monotonic() - begin < 5


def test_only_its_owner_may_ask_it(shared_node: NodeProcess) -> None:
    assert stat.S_IMODE(shared_node.settings.path("control.sock").stat().st_mode) == 0o600


def test_what_it_writes_is_its_users_alone(make_node: MakeNode) -> None:
    node = make_node(lists=False)
    with node.peer() as peer:
        peer.check(lists.NEW)
    written = [node.state, *node.state.rglob("*")]
    assert len(written) > 3
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in written} == {0}


def test_no_metrics(make_node: MakeNode) -> None:
    node = make_node({"metrics": {"listen": ""}})
    assert node.metrics_port is None
    with node.peer() as peer:
        assert peer.check(lists.WHITE) == "white"


class TestNotStarted:
    """What keeps a node from starting is one line on standard error and exit code 1."""

    @staticmethod
    def refused(node: NodeProcess) -> str:
        node.launch()
        assert node.wait(20) == 1
        lines = node.stderr.read_text().splitlines()
        assert "Traceback" not in "\n".join(lines)
        assert lines[-1].startswith("eir: ")
        node.stderr.unlink()
        return lines[-1]

    def test_a_second_node_on_the_same_journal(self, make_node: MakeNode) -> None:
        node = make_node()
        second = NodeProcess(node.config)
        second.stderr = node.stderr.with_name("second.log")
        assert "another node uses the journal" in self.refused(second)
        with node.peer() as peer:
            assert peer.check(lists.WHITE) == "white"
        assert node.ask("status")["open_peers"] in (0, 1)

    def test_an_address_in_use(self, make_node: MakeNode) -> None:
        first = make_node()
        _, port = first.listening[0]
        second = make_node({"diameter": {"listen": [f"127.0.0.1:{port}"]}}, start=False)
        assert "in use" in self.refused(second)

    def test_metrics_in_use(self, make_node: MakeNode) -> None:
        first = make_node()
        second = make_node({"metrics": {"listen": f"127.0.0.1:{first.metrics_port}"}}, start=False)
        assert "in use" in self.refused(second)
        # Nothing of it is in the way of the next start.
        second.config.write_text(second.config.read_text().replace(f":{first.metrics_port}", ":0"))
        second.start()

    def test_a_configuration_that_is_none(self, make_node: MakeNode) -> None:
        node = make_node(start=False)
        node.config.write_text("[node]\ncolour = 1\n")
        assert "node.colour: unknown key" in self.refused(node)

    def test_certificates_that_are_none(self, make_node: MakeNode) -> None:
        tls: dict[str, object] = {"certificate_file": "node.pem", "key_file": "node.key", "ca_file": "ca.pem"}
        node = make_node({"diameter.tls": {**tls, "listen": ["127.0.0.1:0"]}}, start=False)
        assert f"diameter.tls: {node.state / 'node.pem'}: " in self.refused(node)
        (node.state / "node.pem").write_text("no certificate")
        assert f"diameter.tls: {node.state / 'node.pem'}: " in self.refused(node)

    def test_a_directory_that_is_none(self, make_node: MakeNode) -> None:
        node = make_node(lists=False, start=False)
        node.state.write_text("a file")
        self.refused(node)


class TestReload:
    def test_peers_rules_and_lists(self, make_node: MakeNode) -> None:
        node = make_node()
        (device,) = lists.new_devices(1)
        with node.peer() as peer:
            assert peer.check("malformed") == "black"
            assert peer.check(device) == "grey"
            timer = node.timer(device)
            write_config(
                node.config.parent,
                {
                    "rules": {"malformed": "unknown"},
                    "diameter": {"peers": [{"origin_host": "new.epc.test", "networks": ["127.0.0.0/8"]}]},
                },
            )
            node.put_lists({**lists.FILES, "devices": f"imei,list,reason\n{lists.WHITE},black,lost\n"}, sequence=2)
            node.reload()
            # A peer that is none any more is told so; until it has answered it is served, by the new rules and lists.
            asked = peer.receive()
            assert asked is not None
            assert (asked.header.command, asked.values(d.DISCONNECT_CAUSE)) == (282, [2])
            assert peer.check("malformed") == 5422
            assert peer.check(lists.WHITE) == "black"
            assert peer.check(device) == "grey"
            assert node.timer(device) == timer
            peer.send(encode(Header(0, 282, 0, asked.header.hop_by_hop, asked.header.end_to_end), b""))
            assert peer.is_closed()
        with node.client() as client:
            assert client.ask(cer(client.host)).code == 3010
        node.peer("new.epc.test").close()
        assert node.metrics()["eir_lists_sequence"] == 2
        assert node.log("reloaded")

    def test_a_bad_one_leaves_all_as_before(self, make_node: MakeNode) -> None:
        node = make_node()
        (device,) = lists.new_devices(1)
        # Every one of them also has what would be seen if it were taken.
        seen: Settings = {"rules": {"override": "white", "malformed": "unknown"}}
        wrong_peers = {"diameter": {"peers": [{"origin_host": "a*b", "networks": ["127.0.0.0/8"]}]}}

        faults: list[Callable[[], object]] = [
            lambda: node.config.write_text(node.config.read_text() + "\n[log]\nlevel = 'loud'\n"),
            lambda: node.config.write_text(node.config.read_text() + "\n]\n"),
            lambda: (node.config.parent / "countries" / "test.toml").unlink(),
            lambda: write_config(node.config.parent, {**seen, **wrong_peers}),
        ]
        with node.peer() as peer:
            peer.check(device)
            before = node.ask("check", imei=device), node.ask("status")["lists"]
            for number, fault in enumerate(faults):
                write_config(node.config.parent, seen)
                fault()
                node.reload()
                refused = node.log("reload refused")
                assert [entry["level"] for entry in refused] == ["error"] * (number + 1)
                assert peer.check("malformed") == "black"
                assert peer.check(lists.STOLEN) == "black"
                assert (node.ask("check", imei=device), node.ask("status")["lists"]) == before
        node.peer("another.epc.test").close()

    def test_unsound_lists_leave_the_lists_and_no_more_as_before(self, make_node: MakeNode) -> None:
        node = make_node()
        before = node.ask("status")["lists"]
        snapshot = node.state / "lists.eirs"
        new = node.state / "new"
        with node.peer() as peer:
            for override, stolen in (("white", "white"), ("off", "black")):
                write_config(node.config.parent, {"rules": {"override": override}})
                new.write_bytes(b"EIR" * 1000)
                new.replace(snapshot)
                node.reload()
                assert "lists are those of before" in node.log("reload refused")[-1]["error"]
                assert peer.check(lists.STOLEN) == stolen
                assert node.ask("status")["lists"] == before

    def test_lists_that_are_in_force_are_not_read_again(self, make_node: MakeNode) -> None:
        node = make_node()
        node.reload()
        assert len(node.log("lists in force")) == 1
        node.put_lists(sequence=2)
        node.reload()
        assert [entry["sequence"] for entry in node.log("lists in force")] == [1, 2]

    def test_over_the_control_socket(self, make_node: MakeNode) -> None:
        node = make_node()
        write_config(node.config.parent, {"rules": {"malformed": "unknown"}})
        assert node.ask("reload") is None
        with node.peer() as peer:
            assert peer.check("malformed") == 5422

    def test_a_missing_snapshot_comes_later(self, make_node: MakeNode) -> None:
        node = make_node(lists=False)
        with node.peer() as peer:
            assert peer.check(lists.BLACK) == "white"
            node.put_lists()
            node.reload()
            assert peer.check(lists.BLACK) == "black"
        assert node.metrics()["eir_lists_valid"] == 1


def test_timers_survive_a_restart(make_node: MakeNode) -> None:
    node = make_node()
    devices = lists.new_devices(20)
    with node.peer() as peer:
        for device in devices:
            assert peer.check(device, lists.SUBSCRIBER) == "grey"
    before = [node.timer(device) for device in devices]
    assert all(before)
    for end in (node.stop, node.kill):
        end()
        node.start()
        assert [node.timer(device) for device in devices] == before
    replayed = node.log("journal replayed")[-1]
    assert (replayed["timers"], replayed["torn"]) == (20, 0)
    assert eir("doctor", "-c", node.config).code == 0


def test_someone_who_only_holds_the_control_socket_does_not_keep_it_up(make_node: MakeNode) -> None:
    node = make_node()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(node.settings.path("control.sock")))
        until(lambda: node.ask("status"))
        begin = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - begin < 3
