"""A damaged journal, and one that takes nothing more: the node answers on, and loses only what is damaged."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from eir import _core
from support import lists
from support.cli import eir
from support.mounts import small_disk
from support.node import MakeNode, NodeProcess, until, write_config

RECORD = 64
DEVICES = lists.new_devices(200)
PEER = 'peer="mme.epc.test"'


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, int]]]:
    """A stopped node's directory with a timer for each of `DEVICES`, record by record, in segments; and the timers."""
    directory = tmp_path_factory.mktemp("grown")
    node = NodeProcess(write_config(directory, {"journal": {"segment_bytes": 4096}}))
    node.put_lists()
    node.start()
    with node.peer() as peer:
        assert {peer.check(device) for device in DEVICES} == {"grey"}
    timers = [timer for timer in map(node.timer, DEVICES) if timer]
    assert len(timers) == len(DEVICES)
    # Not stopped: what image and store have would be let go.
    node.kill()
    (node.state / "control.sock").unlink()
    return node.state, timers


class Damaged:
    """A copy of a grown journal, and which of its records were touched."""

    def __init__(self, grown: Path, copy: Path) -> None:
        shutil.copytree(grown, copy)
        # Image and store would make good what the journal has lost; here the journal is alone.
        for path in copy.glob("timers.*"):
            path.unlink()
        self.segments = sorted((copy / "journal").glob("*.eirj"))
        self.lost: set[int] = set()
        """Numbers of the devices whose record was touched; a header that is touched costs no record."""

    def touch(self, segment: Path, offset: int) -> None:
        """Notes that the octet was touched."""
        if offset >= RECORD:
            self.lost.add(int(segment.stem) - 1 + offset // RECORD - 1)

    def flip(self, random_: random.Random) -> int:
        """Turns one bit over, anywhere, and leaves no record torn."""
        segment = random_.choice(self.segments)
        octets = bytearray(segment.read_bytes())
        offset = random_.randrange(len(octets))
        octets[offset] ^= 1 << random_.randrange(8)
        segment.write_bytes(octets)
        self.touch(segment, offset)
        return 0

    def cut(self, random_: random.Random) -> int:
        """Cuts the last segment with records; how many octets are left of a record that was cut through."""
        segment = max(path for path in self.segments if path.stat().st_size > RECORD)
        size = segment.stat().st_size
        length = random_.randrange(size)
        with segment.open("r+b") as file:
            file.truncate(length)
        for offset in range(max(length - length % RECORD, RECORD), size, RECORD):
            self.touch(segment, offset)
        return length % RECORD


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("how", ["flip", "cut"])
def test_only_what_is_damaged_is_lost(
    make_node: MakeNode, grown: tuple[Path, list[tuple[int, int]]], how: str, seed: int
) -> None:
    state, timers = grown
    random_ = random.Random(seed)
    node = make_node({"journal": {"segment_bytes": 4096}}, lists=False, start=False)
    damaged = Damaged(state, node.state)
    # One bit turned over is always seen; of several, two might be the same.
    torn = damaged.cut(random_) if how == "cut" else damaged.flip(random_)
    node.start()
    replayed = node.log("journal replayed")[-1]
    sound = len(DEVICES) - len(damaged.lost)
    assert (replayed["timers"], replayed["records"], replayed["torn"]) == (sound, sound, torn)
    counted = [entry["damaged"] for entry in node.log("journal records are damaged")]
    assert counted == ([1] if how == "flip" else [])
    found = [node.timer(device) for device in DEVICES]
    assert found == [None if number in damaged.lost else timer for number, timer in enumerate(timers)]
    # It goes on as if nothing had been: what was lost starts anew, and is kept.
    again = [DEVICES[number] for number in sorted(damaged.lost)[:3]]
    with node.peer() as peer:
        assert [peer.check(device) for device in again] == ["grey"] * len(again)
    anew = [node.timer(device) for device in again]
    assert all(anew)
    node.kill()
    node.start()
    assert [node.timer(device) for device in again] == anew
    survivor = next(number for number in range(len(DEVICES)) if number not in damaged.lost)
    assert node.timer(DEVICES[survivor]) == timers[survivor]


def test_garbage_among_the_segments(make_node: MakeNode, grown: tuple[Path, list[tuple[int, int]]]) -> None:
    state, timers = grown
    node = make_node(lists=False, start=False)
    shutil.copytree(state, node.state)
    journal = node.state / "journal"
    (journal / "notes.txt").write_text("not a segment")
    (journal / "x.eirj").write_bytes(b"no number")
    (journal / f"{10_000:020}.eirj").write_bytes(random.Random(1).randbytes(64 * 5 + 7))
    node.start()
    assert [node.timer(device) for device in DEVICES] == timers
    (damaged,) = node.log("journal records are damaged")
    assert damaged["damaged"] == 5
    assert "5 records are damaged" in eir("doctor", "-c", node.config).out
    with node.peer() as peer:
        peer.check("35900001000000")
    timer = node.timer("35900001000000")
    node.kill()
    node.start()
    assert node.timer("35900001000000") == timer is not None


def test_above_its_limit_it_takes_nothing_and_answers_on(make_node: MakeNode) -> None:
    node = make_node({"journal": {"segment_bytes": 4096, "max_bytes": 8192}})
    with node.peer() as peer:
        assert {peer.check(device) for device in DEVICES} == {"grey"}
        assert [peer.check(device) for device in (lists.WHITE, lists.BLACK)] == ["white", "black"]
        started = [device for device in DEVICES if node.timer(device)]
        assert started == DEVICES[: len(started)]
        assert 64 <= len(started) <= 8192 // RECORD
        metrics = node.metrics()
        assert metrics["eir_journal_available"] == 0
        assert metrics["eir_journal_bytes"] <= 8192 + RECORD
        # The first whose record is lost may be counted as started, where it is lost before its answer was held.
        refused = len(DEVICES) - len(started)
        assert metrics[f"eir_not_started_total{{{PEER}}}"] in (refused - 1, refused)
    assert eir("doctor", "-c", node.config).code == 1
    ran = eir("lists", "own", "add", lists.WHITE, "black", "--reason", "lost", "-c", node.config)
    assert (ran.code, "full or failing" in ran.err) == (1, True)
    timers = [node.timer(device) for device in started]

    # With more room, after a restart, all that had started is there, and the others start.
    node.stop()
    write_config(node.config.parent, {"journal": {"segment_bytes": 4096, "max_bytes": 1 << 20}})
    node.start()
    assert [node.timer(device) for device in started] == timers
    with node.peer() as peer:
        assert peer.check(DEVICES[-1]) == "grey"
    assert node.timer(DEVICES[-1])
    assert node.metrics()["eir_journal_available"] == 1


def test_a_full_disk(make_node: MakeNode, tmp_path: Path) -> None:
    node = make_node({"lists": {"snapshot": str(tmp_path / "lists.eirs")}}, lists=False, start=False)
    lists.build(tmp_path / "lists.eirs")
    with small_disk(node.state, 8 << 20):
        try:
            fill_and_empty(node)
        finally:
            node.end()


def fill_and_empty(node: NodeProcess) -> None:
    """Fills the disk under a node, restarts it on the full disk, and makes room again."""
    filler = node.state / "filler"
    node.start()
    asked = iter(lists.new_devices(100_000))
    with node.peer() as peer:
        early = [next(asked) for _ in range(20)]
        assert {peer.check(device) for device in early} == {"grey"}
        kept = {device: node.timer(device) for device in early}
        assert all(kept.values())
        fill(filler)
        # What is left of the last page may take a few records.
        until(lambda: peer.check(next(asked)) == "grey" and not node.metrics()["eir_journal_available"])
        late = [next(asked) for _ in range(5)]
        assert {peer.check(device) for device in late} == {"grey"}
        assert not any(map(node.timer, late))
        assert [peer.check(device) for device in (lists.WHITE, lists.BLACK)] == ["white", "black"]
        assert {device: node.timer(device) for device in early} == kept
        assert node.metrics()["eir_journal_failures_total"] > 0
        assert "full or failing" in eir("doctor", "-c", node.config).out

    # It starts on a full disk too, and knows what it knew.
    node.kill()
    node.start()
    assert {device: node.timer(device) for device in early} == kept
    assert node.metrics()["eir_journal_available"] == 0
    with node.peer() as peer:
        assert peer.check(late[0]) == "grey"
        assert node.timer(late[0]) is None

        # Room again, and it starts timers again, by itself.
        filler.unlink()
        until(lambda: node.metrics()["eir_journal_available"] == 1)
        assert peer.check(late[0]) == "grey"
        kept[late[0]] = node.timer(late[0])
        assert kept[late[0]]
    node.kill()
    node.start()
    assert {device: node.timer(device) for device in kept} == kept
    assert _core.inspect_journal(node.state / "journal")[1] == 0


def fill(path: Path) -> None:
    """Writes until nothing more goes."""
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                if not file.write(bytes(4096)):
                    return
            except OSError:
                return
