"""The command line against a running node and against files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support import lists
from support.cli import eir
from support.node import EIR, MakeNode, NodeProcess, write_config


class TestCheck:
    def test_in_short(self, shared_node: NodeProcess) -> None:
        ran = eir("check", lists.WHITE, "-c", shared_node.config)
        assert (ran.code, ran.out.split()) == (0, f"{lists.WHITE} white by rule white".split())

    def test_explained(self, shared_node: NodeProcess) -> None:
        ran = eir("check", lists.STOLEN, "--imsi", lists.ROAMER, "--explain", "-c", shared_node.config)
        lines = [line.split() for line in ran.out.splitlines()]
        assert lines[:2] == [
            f"{lists.STOLEN} black by rule black-hard".split(),
            ["listed", "black", "(stolen)", "by", "the", "snapshot"],
        ]
        assert lines[2:] == [f"{rule} does not match".split() for rule in ("override", "no-list", "paired")] + [
            ["black-hard", "matches"]
        ]

    def test_in_a_range(self, shared_node: NodeProcess) -> None:
        ran = eir("check", lists.IN_BLACK_RANGE, "--explain", "-c", shared_node.config)
        assert "in a black range (recall)" in ran.out

    def test_with_its_timer(self, shared_node: NodeProcess) -> None:
        (device,) = lists.new_devices(1, first=3000)
        assert "timer" not in eir("check", device, "-c", shared_node.config).out
        with shared_node.peer() as peer:
            peer.check(device)
        out = eir("check", device, "-c", shared_node.config).out
        assert "timer since" in out
        # The last second of access is before midnight, so the first without it is the day after.
        assert out.split("access until ")[1].split()[1] == "00:00:00"

    def test_json(self, shared_node: NodeProcess) -> None:
        told = json.loads(eir("check", lists.BLACK, "--json", "-c", shared_node.config).out)
        assert told == {"imei": lists.BLACK, "status": "black", "rule": "black", "timer": None}
        told = json.loads(eir("check", lists.BLACK, "--json", "--explain", "-c", shared_node.config).out)
        assert told["listing"] == ["black", "unverified", False]
        assert told["range"] is None
        assert told["asked"][-1] == "black"

    def test_as_a_person_types_it(self, shared_node: NodeProcess) -> None:
        for typed in ("35209900100001", "352099001000010", "3520990010000199"):
            assert lists.WHITE in eir("check", typed, "-c", shared_node.config).out, typed

    @pytest.mark.parametrize(
        ("imei", "imsi", "text"),
        [
            ("3520990010000", None, "not an IMEI"),
            ("IMEI", None, "not an IMEI"),
            ("352099001000011", None, "check digit is wrong"),
            (lists.WHITE, "12", "an IMSI has 6 to 15 digits"),
            (lists.WHITE, "nobody", "an IMSI has 6 to 15 digits"),
        ],
    )
    def test_mistypes(self, shared_node: NodeProcess, imei: str, imsi: str | None, text: str) -> None:
        subscriber = [] if imsi is None else ["--imsi", imsi]
        for where in ([], ["--offline", shared_node.state / "lists.eirs"]):
            ran = eir("check", imei, *subscriber, *where, "-c", shared_node.config)
            assert ran.code == 1
            assert ran.err.startswith("eir: ")
            assert text in ran.err

    def test_offline(self, tmp_path: Path) -> None:
        config = write_config(tmp_path)
        lists.build(tmp_path / "some.eirs")
        ran = eir("check", lists.BLACK, "--offline", tmp_path / "some.eirs", "--json", "-c", config)
        assert json.loads(ran.out)["status"] == "black"
        ran = eir("check", lists.BLACK, "--imsi", lists.ROAMER, "--offline", tmp_path / "some.eirs", "-c", config)
        assert "white by rule exempt-roamer" in " ".join(ran.out.split())
        ran = eir("check", lists.BLACK, "--offline", tmp_path / "none.eirs", "-c", config)
        assert (ran.code, ran.err[:5]) == (1, "eir: ")


class TestWithoutANode:
    @pytest.mark.parametrize(
        "command",
        [
            ["check", lists.WHITE],
            ["peers"],
            ["status"],
            ["breaker", "show"],
            ["breaker", "reset"],
            ["lists", "load"],
            ["lists", "own", "add", lists.WHITE, "black", "--reason", "test"],
        ],
        ids=" ".join,
    )
    def test_commands_say_so(self, tmp_path: Path, command: list[str]) -> None:
        ran = eir(*command, "-c", write_config(tmp_path))
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("eir: no node is running")

    def test_doctor(self, tmp_path: Path) -> None:
        config = write_config(tmp_path)
        ran = eir("doctor", "-c", config)
        assert ran.code == 1
        assert "FAIL" in ran.out
        (tmp_path / "state").mkdir()
        lists.build(tmp_path / "state" / "lists.eirs")
        ran = eir("doctor", "-c", config)
        assert (ran.code, "FAIL" in ran.out) == (0, False)


def test_status(shared_node: NodeProcess) -> None:
    told = json.loads(eir("status", "-c", shared_node.config).out)
    assert told["lists"]["sequence"] == 1
    assert told["stats"]["journal_available"] is True


def test_doctor_of_a_running_node(shared_node: NodeProcess) -> None:
    ran = eir("doctor", "-c", shared_node.config)
    assert ran.code == 0
    assert "node: running" in ran.out


def test_config_check(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    ran = eir("config", "check", "-c", config)
    assert (ran.code, ran.out) == (
        0,
        f"{config}: sound; eir.epc.mnc001.mcc001.3gppnetwork.org, Kazakhstan, 1 peer entries\n",
    )
    config.write_text("[diameter]\nwatchdog = 1\n")
    ran = eir("config", "check", "-c", config)
    assert ran.code == 1
    assert ran.err == f"eir: {config}: diameter.watchdog: Expected `float` >= 6.0\n"


def test_the_installed_command(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    run = subprocess.run([EIR, "config", "check"], env={"EIR_CONFIG": str(config)}, capture_output=True, timeout=20)
    assert run.returncode == 0
    told = subprocess.run([EIR, "config", "check", "-c", tmp_path / "none"], capture_output=True, timeout=20)
    assert (told.returncode, told.stderr.decode()) == (1, f"eir: {tmp_path / 'none'}: No such file or directory\n")


class TestListsSet:
    def test_it_counts_at_once_and_survives_a_restart(self, make_node: MakeNode) -> None:
        node = make_node()
        with node.peer() as peer:
            assert eir("lists", "own", "add", lists.WHITE, "black", "--reason", "stolen", "-c", node.config).code == 0
            assert peer.check(lists.WHITE, lists.ROAMER) == "black"
            assert (
                eir("lists", "own", "add", lists.BLACK, "unlisted", "--reason", "mistake", "-c", node.config).code == 0
            )
            assert peer.check(lists.BLACK) == "grey"
            assert eir("lists", "own", "add", lists.NATIONAL_GREY, "white", "--reason", "", "-c", node.config).code == 0
            assert peer.check(lists.NATIONAL_GREY) == "white"
        assert "listed black (stolen) by the operator's entry" in " ".join(
            eir("check", lists.WHITE, "--explain", "-c", node.config).out.split()
        )
        timer = node.timer(lists.BLACK)
        assert timer is not None
        node.kill()
        node.start()
        with node.peer() as peer:
            assert peer.check(lists.WHITE) == "black"
            assert peer.check(lists.NATIONAL_GREY) == "white"
            assert node.timer(lists.BLACK) == timer
            assert node.metrics()["eir_overlay_entries"] == 3
            # Withdrawn, the snapshot speaks again.
            assert eir("lists", "own", "remove", lists.WHITE, "--reason", "found", "-c", node.config).code == 0
            assert peer.check(lists.WHITE) == "white"
        changes = [(entry["imei"], entry["change"]) for entry in node.log("operator changed a listing")]
        assert changes == [
            (lists.WHITE, "black"),
            (lists.BLACK, "unlisted"),
            (lists.NATIONAL_GREY, "white"),
            (lists.WHITE, "withdrawn"),
        ]

    def test_a_first_attach_that_is_verified_becomes_white_at_once(self, make_node: MakeNode) -> None:
        node = make_node()
        with node.peer() as peer:
            assert peer.check(lists.NEW) == "grey"
            eir("lists", "own", "add", lists.NEW, "white", "--reason", "verified", "-c", node.config)
            assert peer.check(lists.NEW) == "white"

    @pytest.mark.parametrize(
        ("imei", "change", "reason", "text"),
        [
            ("12", "black", "x", "not an IMEI"),
            ("352099001000011", "black", "x", "check digit"),
            (lists.WHITE, "black", "x" * 33, "at most 32 octets"),
            (lists.WHITE, "black", "x\0y", "no NUL"),
        ],
    )
    def test_what_is_refused(self, shared_node: NodeProcess, imei: str, change: str, reason: str, text: str) -> None:
        ran = eir("lists", "own", "add", imei, change, "--reason", reason, "-c", shared_node.config)
        assert ran.code == 1
        assert text in ran.err
        assert shared_node.metrics()["eir_overlay_entries"] == 0


class TestListsLoad:
    def test_a_swap(self, make_node: MakeNode, tmp_path: Path) -> None:
        node = make_node()
        other = tmp_path / "other.eirs"
        lists.build(other, {"devices": f"imei,list,reason\n{lists.WHITE},black,lost\n"}, sequence=9)
        with node.peer() as peer:
            assert peer.check(lists.WHITE) == "white"
            ran = eir("lists", "load", other, "-c", node.config)
            assert (ran.code, ran.out) == (0, "sequence 9 in force\n")
            assert peer.check(lists.WHITE) == "black"
            # Without a file, the configured one; it is older by now, and that must be meant.
            assert "sequence 1 is older than 9" in eir("lists", "load", "-c", node.config).err
            assert peer.check(lists.WHITE) == "black"
            assert eir("lists", "load", "--force", "-c", node.config).out == "sequence 1 in force\n"
            assert peer.check(lists.WHITE) == "white"
        assert [entry["sequence"] for entry in node.log("lists in force")] == [1, 9, 1]

    def test_lists_without_a_device_are_refused(self, make_node: MakeNode, tmp_path: Path) -> None:
        node = make_node()
        empty = tmp_path / "empty.eirs"
        lists.build(empty, {"devices": "imei,list,reason\n"}, sequence=9)
        assert "there is no device in it" in eir("lists", "load", empty, "-c", node.config).err
        with node.peer() as peer:
            assert peer.check(lists.WHITE) == "white"

    def test_what_is_no_snapshot_is_refused(self, make_node: MakeNode, tmp_path: Path) -> None:
        node = make_node()
        bad = tmp_path / "bad.eirs"
        sound = (node.state / "lists.eirs").read_bytes()
        for content in (None, b"", b"imei,list,reason\n", bytes(5000), sound[:-1], sound[:100] + sound[101:]):
            if content is not None:
                bad.write_bytes(content)
            ran = eir("lists", "load", bad, "-c", node.config)
            assert ran.code == 1
            assert str(bad) in ran.err
        with node.peer() as peer:
            assert peer.check(lists.BLACK) == "black"
        assert node.metrics()["eir_lists_sequence"] == 1


def test_lists_info(tmp_path: Path) -> None:
    lists.build(tmp_path / "some.eirs", sequence=5, created_at=1_700_000_000)
    told = json.loads(eir("lists", "info", tmp_path / "some.eirs").out)
    assert (told["sequence"], told["created"]) == (5, "2023-11-14 22:13:20 UTC")
    assert told["counts"]["black"] == 3
    assert eir("lists", "info", tmp_path / "none.eirs").code == 1


class TestLoad:
    def test_a_short_load(self, shared_node: NodeProcess) -> None:
        to = f"127.0.0.1:{shared_node.listening[0][1]}"
        span = "35900000500000-35900000500099"
        ran = eir("load", "--to", to, "--window", 4, "--duration", 5, "--range", span, "--walk", "--json")
        report = json.loads(ran.out)
        assert (report["sent"], report["answered"], report["grey"], report["lost"]) == (100, 100, 100, 0)
        ran = eir("load", "--to", to, "--rate", 100, "--duration", 0.2, "--subscribers", 10, "--full")
        assert ran.code == 0
        assert "answers a second" in ran.out

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--to", "127.0.0.1:1"],
            ["--to", "127.0.0.1:1", "--window", 1, "--rate", 1],
            ["--to", "nowhere", "--window", 1],
            ["--to", "127.0.0.1:1", "--window", 1, "--range", "1"],
            ["--to", "127.0.0.1:1", "--window", 0],
            ["--to", "127.0.0.1:1", "--window", 1],
            ["--to", "127.0.0.1:1", "--window", 1, "--ca", "ca.pem"],
            ["--to", "127.0.0.1:1", "--window", 1, "--tls", "--ca", "none.pem"],
            ["--to", "127.0.0.1:1", "--window", 1, "--tls", "--cert", "none.pem"],
            ["--to", "127.0.0.1:1", "--window", 1, "--tls", "--tls-version", "1.1"],
            ["--to", "127.0.0.1:1", "--window", 1, "--tls", "--server-name", "no name"],
        ],
    )
    def test_what_cannot_be_run(self, arguments: list[object]) -> None:
        ran = eir("load", *arguments)
        assert ran.code == 1
        assert ran.err.startswith("eir: ")
