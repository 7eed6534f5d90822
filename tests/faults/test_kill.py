"""kill -9 in the middle of load: what was answered is not forgotten."""

from __future__ import annotations

import random
import shutil
import threading
import time
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from eir import _core, config
from eir.timers import grey
from support import lists
from support.node import MakeNode, NodeProcess, replica

ROOM = 1_000_000
"""Devices that a round may ask about: more than it will."""
SAMPLE = 100
"""Devices that the restarted node itself is asked about; the journal is asked about all of them."""

Timers = dict[str, tuple[int, int]]


class Load(threading.Thread):
    """First attaches, one after the other, until the node is gone."""

    def __init__(self, node: NodeProcess, first: int) -> None:
        super().__init__()
        self.grey: list[str] = []
        """Devices that were answered grey."""
        self._address = config.parse_endpoint("{}:{}".format(*node.listening[0]))
        self._first = first

    def run(self) -> None:
        try:
            report = _core.run_load(
                *self._address,
                window=32,
                connections=3,
                duration=30,
                imei_range=(self._first, self._first + ROOM),
                walk=True,
                imsis=(1_010_000_000_000, ROOM),
                record_answers=True,
            )
        except OSError:
            return  # Killed before it had let anyone in.
        self.grey = [str(imei) for imei, status in report["answers"] if status == "grey"]


def timers_of(node: NodeProcess, devices: list[str], scratch: Path) -> Timers:
    """The timers that a copy of a node's journal gives these devices."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(node.state / "journal", scratch)
    now = int(time.time())
    copy = replica(node, scratch)
    copy.set_lists(_core.Snapshot.open(node.settings.path(node.settings.lists.snapshot)))
    assert copy.replayed[1] == 0, "records are damaged"
    told = {device: copy.explain(device, None, now)["timer"] for device in devices}
    copy.stop()
    return {device: timer for device, timer in told.items() if timer is not None}


def test_what_was_answered_is_not_forgotten(
    make_node: MakeNode, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    rounds = request.config.getoption("--rounds")
    # So many starts would trip the breaker; and no answer may leave before its record is safe.
    breaker = {"starts_per_minute": 1 << 40, "running": 1 << 40}
    node = make_node({"breaker": breaker, "journal": {"hold_ms": 60_000, "segment_bytes": 1 << 16}})
    zone = ZoneInfo("Asia/Almaty")
    known: Timers = {}
    killed_in_load = 0
    for number in range(rounds):
        begin = int(time.time())
        load = Load(node, int(lists.NEW) + (number + 1) % 90 * ROOM + number // 90 * 50_000)
        load.start()
        time.sleep(random.uniform(0.0, 0.3))
        node.kill()
        load.join()
        killed_in_load += bool(load.grey)
        found = timers_of(node, load.grey, tmp_path / "replica")
        assert set(found) == set(load.grey), f"round {number}: forgotten"
        for start, deadline in found.values():
            assert begin <= start <= time.time()
            assert deadline == grey.deadline(start, 30, zone)
        node.start()
        known |= found
        for device in random.sample(sorted(known), min(SAMPLE, len(known))):
            assert node.timer(device) == known[device], f"round {number}"
    assert not node.log("journal records are damaged")
    # All of them, after all the restarts.
    assert timers_of(node, list(known), tmp_path / "replica") == known
    assert killed_in_load >= rounds // 2
    print(f"{len(known)} timers over {rounds} kills")
