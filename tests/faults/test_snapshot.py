"""A snapshot that is missing, empty or damaged: the node starts without lists, or keeps those that it has."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from eir import _core, config
from eir.app import build_policy
from support import lists
from support.cli import eir
from support.mounts import small_disk
from support.node import MakeNode, write_config


def flipped(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[random.Random(7).randrange(len(octets))] ^= 4
    replace(path, bytes(octets))


def replace(path: Path, octets: bytes) -> None:
    """Puts other octets in the place of a file, as a file of their own: the old one is mapped."""
    other = path.with_suffix(".new")
    other.write_bytes(octets)
    other.replace(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


FAULTS: dict[str, Callable[[Path], None]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: replace(path, b""),
    "text": lambda path: replace(path, b"imei,list,reason\n"),
    "cut": lambda path: replace(path, path.read_bytes()[: path.stat().st_size // 2]),
    "longer": lambda path: replace(path, path.read_bytes() + bytes(64)),
    "flipped": flipped,
    "directory": directory,
}


@pytest.mark.parametrize("fault", ["missing", "empty", "flipped"])
def test_at_start_the_policy_answers(make_node: MakeNode, fault: str) -> None:
    node = make_node(start=False)
    FAULTS[fault](node.state / "lists.eirs")
    node.start()
    with node.peer() as peer:
        assert [peer.check(device) for device in (lists.STOLEN, lists.NEW)] == ["white", "white"]
    metrics = node.metrics()
    assert (metrics["eir_lists_valid"], metrics["eir_timers"]) == (0, 0)
    (entry,) = node.log("no valid lists")
    assert (entry["level"], entry["answer"]) == ("error", "white")
    assert eir("doctor", "-c", node.config).code == 1


def test_at_reload_the_old_lists_stay(make_node: MakeNode) -> None:
    node = make_node()
    path = node.state / "lists.eirs"
    sound = path.read_bytes()
    with node.peer() as peer:
        assert peer.check(lists.NEW) == "grey"
        timer = node.timer(lists.NEW)
        for number, fault in enumerate(FAULTS.values()):
            replace(path, sound)
            fault(path)
            node.reload()
            assert len(node.log("reload refused")) == number + 1
            assert [peer.check(device) for device in (lists.STOLEN, lists.WHITE)] == ["black", "white"]
            assert node.timer(lists.NEW) == timer is not None
            assert eir("lists", "load", "-c", node.config).code == 1
            assert peer.check(lists.STOLEN) == "black"
    assert node.metrics()["eir_lists_valid"] == 1


DEVICES = (
    lists.WHITE,
    lists.BLACK,
    lists.STOLEN,
    lists.CLONED,
    lists.NATIONAL_GREY,
    lists.IN_BLACK_RANGE,
    lists.IN_WHITE_RANGE,
    lists.METER,
    lists.UNALLOCATED,
    lists.NEW,
)


def test_no_damage_changes_an_answer(tmp_path: Path) -> None:
    config_path = write_config(tmp_path)
    policy = build_policy(*config.load(config_path), 1_800_000_000)
    path = tmp_path / "lists.eirs"
    lists.build(path)
    octets = path.read_bytes()

    def answers() -> list[object]:
        snapshot = _core.Snapshot.open(path)
        asked = [(device, imsi) for device in DEVICES for imsi in (None, lists.HOLDER, lists.MACHINE)]
        told = [snapshot.explain(device, imsi, policy, snapshot.info["created_at"]) for device, imsi in asked]
        return [snapshot.info, *told]

    assert len(answers()) > len(DEVICES)
    random_ = random.Random(3)
    for place in random_.sample(range(len(octets)), 600):
        replace(path, octets[:place] + bytes([octets[place] ^ 1 << random_.randrange(8)]) + octets[place + 1 :])
        with pytest.raises(_core.SnapshotError):
            _core.Snapshot.open(path)
    for length in {0, len(octets) - 1, *(random_.randrange(len(octets)) for _ in range(100))}:
        replace(path, octets[:length])
        for whole in (True, False):
            with pytest.raises(_core.SnapshotError):
                _core.Snapshot.open(path, whole)


def test_damage_in_a_large_file_is_found_by_a_scrub(tmp_path: Path) -> None:
    path = tmp_path / "lists.eirs"
    rows = "".join(f"{imei},white,\n" for imei in lists.new_devices(900_000))
    pairs = "".join(f"{imei},001010{number:09}\n" for number, imei in enumerate(lists.new_devices(300_000)))
    lists.build(path, {"devices": f"imei,list,reason\n{rows}", "pairs": f"imei,imsi\n{pairs}"})
    octets = path.read_bytes()

    def scrubbed(snapshot: _core.Snapshot, step: int) -> int:
        at: int | None = 0
        steps = 0
        while at is not None:
            at = snapshot.scrub(at, step)
            steps += 1
        return steps

    sound = _core.Snapshot.open(path, whole=False)
    assert sound.info["bytes"] == len(octets) > 5 << 20
    assert (scrubbed(sound, 1), scrubbed(sound, 2 << 20), scrubbed(sound, 1 << 40)) == (
        (len(octets) >> 20) + 1,
        ((len(octets) >> 20) + 2) // 2,
        1,
    )
    found = 0
    for place in random.Random(5).sample(range(len(octets)), 60):
        replace(path, octets[:place] + bytes([octets[place] ^ 1]) + octets[place + 1 :])
        with pytest.raises(_core.SnapshotError):
            _core.Snapshot.open(path)
        try:
            snapshot = _core.Snapshot.open(path, whole=False)
        except _core.SnapshotError:
            continue
        with pytest.raises(_core.SnapshotError, match="damaged"):
            scrubbed(snapshot, 1 << 20)
        found += 1
    assert found > 20
    # The one that was mapped first is another file, and sound.
    scrubbed(sound, 1 << 20)


def test_of_the_version_before_it_is_said_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "lists.eirs"
    lists.build(path)
    octets = path.read_bytes()
    path.write_bytes(octets[:8] + b"\1" + octets[9:])
    with pytest.raises(_core.SnapshotError, match="build it anew"):
        _core.Snapshot.open(path)


BUILD = """
import sys
from pathlib import Path
from support import lists
rows = "".join(f"{imei},white,\\n" for imei in lists.new_devices(200_000))
print("begin", flush=True)
for sequence in range(2, 1000):
    lists.build(Path(sys.argv[1]), {"devices": f"imei,list,reason\\n{rows}"}, sequence=sequence, run_rows=30_000)
"""


def test_a_build_that_is_killed_leaves_lists_that_are_whole_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    path = tmp_path / "lists.eirs"
    lists.build(path)
    random_ = random.Random(9)
    environment = {**os.environ, "PYTHONPATH": str(Path(lists.__file__).parents[1])}
    for _ in range(12):
        command = [sys.executable, "-c", BUILD, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(random_.uniform(0.0, 0.5))
            process.kill()
        _core.Snapshot.open(path)
    lists.build(path)
    # Its list file is left by the test's own way of building.
    assert {file.name for file in tmp_path.iterdir()} <= {"lists.eirs", "lists.eirs.devices.csv"}


def test_a_disk_that_is_full_leaves_the_old_lists_and_nothing_else(tmp_path: Path) -> None:
    rows = "".join(f"{imei},white,\n" for imei in lists.new_devices(200_000))
    text = f"imei,list,reason\n{rows}"
    refused = 0
    for kilobytes in (64, 200, 300, 420, 700, 1000, 1700, 2000, 4000):
        directory = tmp_path / str(kilobytes)
        path = directory / "lists.eirs"
        with small_disk(directory, kilobytes << 10):
            lists.build(path, {})
            before = path.read_bytes()
            source = tmp_path / "devices.csv"
            source.write_text(text)
            try:
                builder = _core.SnapshotBuilder(
                    strict=True,
                    max_bad_share=0.0,
                    sequence=2,
                    created_at=1,
                    tac_as_of=0,
                    hard_reasons=[],
                    aside=directory,
                    run_rows=50_000,
                )
                builder.add("devices", source, lambda _: None)
                builder.finish(path)
            except _core.BuildError as error:
                assert "No space left" in str(error)
                assert path.read_bytes() == before
                refused += 1
            else:
                assert _core.Snapshot.open(path).info["sequence"] == 2
            assert [file.name for file in directory.iterdir()] == ["lists.eirs"]
            del builder
    assert 0 < refused < 9
