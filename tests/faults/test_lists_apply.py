"""Whatever ends an apply, the old lists or the new ones are there afterwards, whole; damage is found and survived."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from support import lists
from support.cli import Ran, eir
from support.mounts import small_disk
from support.node import MakeNode, NodeProcess, until

SIGNED = ("--reason", "test", "--agent", "tester")
DEVICES = 3_000
SAMPLE = 40
GUARD = {"ignored": 1_000_000, "max_turned_black": 1_000_000}


def imported(node: NodeProcess, state: int, *, delta: bool) -> Ran:
    """Lists that say of each device `white` in even states and `black` in odd ones."""
    listed = ("white", "black")[state % 2]
    devices = lists.new_devices(DEVICES)
    path = node.config.with_name("import.csv")
    if delta:
        path.write_text("change_type,imei,list,reason\n" + "".join(f"set,{imei},{listed},\n" for imei in devices))
    else:
        path.write_text("imei,list,reason\n" + "".join(f"{imei},{listed},\n" for imei in devices))
    options = ("--delta",) if delta else ()
    return eir("lists", "import", "--devices", path, "--sequence", str(state), *options, *SIGNED, "-c", node.config)


def check_whole(node: NodeProcess) -> int:
    """The state in force, which every device is answered by."""
    state = int(node.ask("status")["position"]["sequence"])
    expected = ("white", "black")[state % 2]
    with node.peer() as peer:
        for imei in random.sample(lists.new_devices(DEVICES), SAMPLE):
            assert peer.check(imei) == expected, state
    return state


def test_killed_at_any_moment_of_an_apply(make_node: MakeNode, request: pytest.FixtureRequest) -> None:
    node = make_node({"lists": GUARD})
    state = 2
    assert imported(node, state, delta=False).code == 0
    took = {}
    for delta in (True, False):
        begin = time.monotonic()
        assert imported(node, state + 1, delta=delta).code == 0
        took[delta] = time.monotonic() - begin
        state = check_whole(node)
    fell = set()
    for turn in range(request.config.getoption("--rounds")):
        delta = turn % 2 == 0
        work = threading.Thread(target=imported, args=(node, state + 1), kwargs={"delta": delta})
        work.start()
        time.sleep(random.uniform(0.2, 1.2) * took[delta])
        node.kill()
        work.join()
        node.start()
        found = check_whole(node)
        assert found in (state, state + 1)
        fell.add(found - state)
        state = found
        assert not list((node.state / "lists" / "incoming").iterdir())
    assert not [entry for entry in node.log() if "damage" in entry.get("event", "")]


def flip(path: Path, at: int) -> None:
    octets = bytearray(path.read_bytes())
    octets[at] ^= 0x10
    # A new file in its place: what is mapped stays as it was.
    path.unlink()
    path.write_bytes(octets)


def test_damage_on_the_disk_costs_no_more_than_what_is_damaged(make_node: MakeNode) -> None:
    node = make_node({"lists": GUARD})
    for state, delta in ((2, False), (3, True), (4, False), (5, True), (6, True)):
        assert imported(node, state, delta=delta).code == 0
    kept = node.state / "lists"
    node.stop()
    # A delta: those before it count.
    flip(kept / "deltas" / "6" / "devices-0.csv", 200)
    node.start()
    assert check_whole(node) == 5
    assert node.metrics()["eir_lists_damaged"] == 1
    node.stop()
    # The snapshot's header: the one before it counts, with its deltas.
    flip(kept / "snapshots" / "4" / "lists.eirs", 40)
    node.start()
    assert check_whole(node) == 3
    # What comes next is taken.
    assert imported(node, 4, delta=True).code == 0
    assert check_whole(node) == 4
    node.stop()
    (kept / "in-force").write_text("{")
    node.start()
    # With the delta behind it, which was kept.
    assert check_whole(node) == 5


def test_damage_of_what_answers_is_found_and_the_version_before_comes_into_force(make_node: MakeNode) -> None:
    node = make_node({"lists": {**GUARD, "scrub": 1}})
    for state in (2, 3):
        assert imported(node, state, delta=False).code == 0
    assert check_whole(node) == 3
    until(lambda: node.metrics()["eir_lists_scrubbed_timestamp_seconds"])
    path = node.state / "lists" / "snapshots" / "3" / "lists.eirs"
    # In the file that is mapped, where a reason or an IMEI might stand.
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        octet = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([octet[0] ^ 0x10]))
    until(lambda: node.ask("status")["position"]["sequence"] == 2, 30)
    assert check_whole(node) == 2
    assert "fallback 2 by the node" in eir("lists", "history", "-c", node.config).out
    assert not path.exists()


@pytest.mark.parametrize("delta", [False, True])
def test_a_disk_that_is_full_at_any_step_leaves_the_lists_of_before(
    make_node: MakeNode, tmp_path: Path, delta: bool
) -> None:
    refused = 0
    for number, kilobytes in enumerate((60, 90, 130, 180, 240, 300, 400, 600, 1200)):
        disk = tmp_path / f"disk{number}"
        with small_disk(disk, kilobytes << 10):
            node = make_node({"lists": {**GUARD, "directory": str(disk / "lists")}})
            ran = imported(node, 2, delta=delta)
            state = int(node.ask("status")["position"]["sequence"])
            assert (ran.code == 0) == (state == 2), ran.err
            if state == 1:
                assert "No space left" in ran.err
                refused += 1
                with node.peer() as peer:
                    assert peer.check(lists.WHITE) == "white"
            else:
                check_whole(node)
            assert not list((disk / "lists" / "incoming").iterdir())
            node.kill()
            node.start()
            assert int(node.ask("status")["position"]["sequence"]) == state
            node.stop()
    assert 0 < refused < 9
