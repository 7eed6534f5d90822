"""A snapshot that is missing, empty or damaged: the node starts without lists, or keeps those that it has."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from eir import _core, config
from eir.app import build_policy
from support import lists
from support.cli import eir
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

    sound, refused = answers(), 0
    random_ = random.Random(3)
    places = random_.sample(range(len(octets)), 600)
    for place in places:
        replace(path, octets[:place] + bytes([octets[place] ^ 1 << random_.randrange(8)]) + octets[place + 1 :])
        try:
            # Between the sections there are octets that nobody reads.
            assert answers() == sound, place
        except _core.SnapshotError:
            refused += 1
    assert refused > len(places) * 0.8
    for length in {0, len(octets) - 1, *(random_.randrange(len(octets)) for _ in range(100))}:
        replace(path, octets[:length])
        with pytest.raises(_core.SnapshotError):
            _core.Snapshot.open(path)
