"""Whatever fails, timers are what the recorded events make them: afterwards all is as in a run without the fault."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from eir import _core, config
from eir.app import _rules, _store
from eir.audit import verify
from eir.timers import grey
from eir.timers.store import Store
from support import lists
from support.mounts import small_disk
from support.node import MakeNode, NodeProcess, until
from support.programs import need
from support.redis import RedisServer
from support.timers import Contents, contents, expected, recorded, settled

ROOM = 100_000
SIGNED = {"agent": "agent-7", "reason": "a ticket"}
WIDE = {"starts_per_minute": 1 << 40, "running": 1 << 40}


def load(node: NodeProcess, first: int, seconds: float, rate: int | None = None) -> list[str]:
    """Devices never seen that were answered grey, asked about until the node is gone or the time over."""
    try:
        report = _core.run_load(
            *config.parse_endpoint("{}:{}".format(*node.listening[0])),
            window=None if rate else 32,
            rate=rate,
            connections=2,
            duration=seconds,
            imei_range=(first, first + ROOM),
            walk=True,
            imsis=(1_010_000_000_000, ROOM),
            record_answers=True,
        )
    except OSError:
        return []  # Killed before it had let anyone in.
    return [f"{imei:014}" for imei, status in report["answers"] if status == "grey"]


def stored(node: NodeProcess, *, running: bool) -> Contents:
    """What a node's store holds; an SQLite store can be read only while the node does not run."""
    assert not running or node.settings.store.kind == "redis"
    store: Store = _store(node.settings)

    async def read() -> Contents:
        await store.open()
        try:
            assert await store.problems() == []
            return await contents(store, _rules(node.country))
        finally:
            await store.close()

    return asyncio.run(read())


def assert_as_recorded(nodes: Sequence[NodeProcess], found: Contents, scratch: Path) -> None:
    """The store holds what the journals and audit trails of its nodes make, no more and no less."""
    events = [event for number, node in enumerate(nodes) for event in recorded(node, scratch / str(number))]
    devices, rules = expected(events, _rules(nodes[0].country))
    assert found.devices.keys() == devices.keys()
    assert found.devices == devices
    granted = {key[1] for key in found.messages if key[0] == "grey-granted"}
    running = {imei for imei, device in devices.items() if grey.timer(device, rules) is not None and device.seen}
    assert running <= granted


def test_killed_at_any_moment(make_node: MakeNode, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    rounds = request.config.getoption("--rounds")
    # Images and segments come and go, so that a kill falls between each step and the next.
    node = make_node(
        {
            "breaker": WIDE,
            "journal": {"hold_ms": 60_000, "segment_bytes": 1 << 16, "keep": 0},
            "timers": {"image_interval": 1.0},
        }
    )
    every: set[str] = set()
    """All that were answered grey; `answered`: those of them that were asked about after a restart, as they stood."""
    answered: dict[str, tuple[int, int]] = {}
    for number in range(rounds):
        taken: list[str] = []
        first = int(lists.NEW) + (number + 1) % 90 * 1_000_000 + number // 90 * ROOM
        asking = threading.Thread(
            target=lambda first=first, taken=taken: taken.extend(load(node, first, 30, rate=20_000))
        )
        asking.start()
        acting = random.sample(sorted(answered), min(len(answered), 5))
        if acting:
            node.ask("grey-act", act="extend", imeis=acting, days=1, **SIGNED)
            answered |= {imei: (start, end + 86400) for imei, (start, end) in answered.items() if imei in acting}
        time.sleep(random.uniform(0.0, 0.6))
        node.kill()
        asking.join()
        node.start()
        settled(node)
        every.update(taken)
        for imei in random.sample(taken, min(len(taken), 30)):
            timer = node.timer(imei)
            assert timer is not None, f"round {number}: forgotten"
            assert timer[1] == grey.deadline(timer[0], 30, _rules(node.country).zone)
            answered[imei] = timer
        for imei in random.sample(sorted(answered), min(len(answered), 20)):
            assert node.timer(imei) == answered[imei], f"round {number}"
    assert not node.log("journal records are damaged", "the image of the timers is damaged")
    node.stop()
    found = stored(node, running=False)
    for imei, (start, end) in answered.items():
        kept = found.timers[int(imei)]
        assert kept is not None and (kept.start, kept.deadline) == (start, end)
    told = [key[1] for key in found.messages]
    assert len(told) == len(set(told))
    assert {int(imei) for imei in every} <= set(told)
    assert all(found.timers[int(imei)] is not None for imei in every)
    assert verify(node.settings.path(node.settings.audit.directory)).first_break is None


def test_the_store_cannot_be_written_for_a_while(make_node: MakeNode, tmp_path: Path) -> None:
    """A full disk under the store alone: answers and journal go on, and the store catches up."""
    place = tmp_path / "small"
    with small_disk(place, 1 << 20):
        node = make_node({"store": {"path": str(place / "timers.db")}, "breaker": WIDE})
        filler = place / "filler"
        filler.write_bytes(b"\0" * (500 << 10))
        devices = load(node, int(lists.NEW), 3, rate=3000)
        assert len(devices) > 5000
        until(lambda: not node.ask("status")["timers"]["store_up"], 30)
        with node.peer() as peer:
            assert peer.check(lists.new_devices(1, 500_000)[0], lists.SUBSCRIBER) == "grey"
        filler.unlink()
        # What is left is still too little for all; the rest of the disk comes back with a larger file system.
        assert os.system(f"mount -o remount,size=64m {place}") == 0
        settled(node)
        node.stop()
        assert_as_recorded([node], stored(node, running=False), tmp_path / "replica")


def test_what_people_do_while_the_store_is_away_is_done_when_it_is_back(
    make_node: MakeNode, redis_server: RedisServer, tmp_path: Path
) -> None:
    node = make_node(in_redis(redis_server, "eir-1.test"))
    devices = load(node, int(lists.NEW), 0.3, rate=200)
    settled(node)
    before = node.timer(devices[0])
    redis_server.kill()
    until(lambda: not node.ask("status")["timers"]["store_up"])
    told = node.ask("grey-act", act="extend", imeis=devices[:1], days=3, **SIGNED)
    assert told["recorded"] and not told["in_force"]
    late = load(node, int(lists.NEW) + 1_000_000, 0.3, rate=200)
    assert len(late) > 20
    redis_server.start()
    settled(node)
    assert before is not None
    has(node, devices[0], (before[0], before[1] + 3 * 86400))
    assert_as_recorded([node], stored(node, running=True), tmp_path / "replica")


def agree(first: NodeProcess, second: NodeProcess, device: str) -> None:
    """Waits until both have the same timer in memory."""
    until(lambda: first.timer(device) is not None and first.timer(device) == second.timer(device))


def has(node: NodeProcess, device: str, timer: tuple[int, int]) -> None:
    """Waits until a device has this timer."""
    until(lambda: node.timer(device) == timer)


def in_redis(server: RedisServer, name: str, **more: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of a node that has its store in Redis."""
    return {
        "node": {"origin_host": name},
        "store": {"kind": "redis"},
        "redis": {"nodes": [server.url], "timeout": 1.0},
        "breaker": WIDE,
        **more,
    }


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    need("redis-server")
    server = RedisServer(tmp_path / "redis", None, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    yield server
    server.stop()


def test_redis_hangs_and_goes_on(make_node: MakeNode, redis_server: RedisServer, tmp_path: Path) -> None:
    node = make_node(in_redis(redis_server, "eir-1.test"))
    load(node, int(lists.NEW), 0.3, rate=200)
    redis_server.pause()
    with node.peer() as peer:
        begin = time.monotonic()
        for device in lists.new_devices(50, 200_000):
            assert peer.check(device, lists.SUBSCRIBER) == "grey"
        assert time.monotonic() - begin < 2.0
    until(lambda: not node.ask("status")["timers"]["store_up"])
    redis_server.pause(False)
    settled(node)
    assert_as_recorded([node], stored(node, running=True), tmp_path / "replica")


def test_redis_forgets_everything_and_is_told_again(
    make_node: MakeNode, redis_server: RedisServer, tmp_path: Path
) -> None:
    """More than a failover ever loses: nodes offer their journals and audit trails again."""
    node = make_node(in_redis(redis_server, "eir-1.test"))
    devices = load(node, int(lists.NEW), 0.5, rate=400)
    settled(node)
    node.ask("grey-act", act="freeze", imeis=devices[:10], **SIGNED)
    redis_server.kill()
    for file in (tmp_path / "redis").rglob("*"):
        if file.is_file() and file.suffix in (".aof", ".rdb", ".manifest"):
            file.unlink()
    redis_server.start()
    load(node, int(lists.NEW) + 1_000_000, 0.3, rate=200)
    settled(node)
    until(lambda: len(stored(node, running=True).devices) >= len(devices))
    assert_as_recorded([node], stored(node, running=True), tmp_path / "replica")


def test_two_nodes_and_one_device(make_node: MakeNode, redis_server: RedisServer, tmp_path: Path) -> None:
    """Within a millisecond: one timer, one message; and both answer by it."""
    first, second = (make_node(in_redis(redis_server, f"eir-{number}.test")) for number in (1, 2))
    devices = lists.new_devices(40)
    with first.peer() as here, second.peer() as there:
        for device in devices:
            asking = threading.Thread(target=here.check, args=(device, lists.SUBSCRIBER))
            asking.start()
            there.check(device, lists.SUBSCRIBER)
            asking.join()
    settled(first)
    settled(second)
    found = stored(first, running=True)
    assert_as_recorded([first, second], found, tmp_path / "replica")
    assert len([key for key in found.messages if key[0] == "grey-granted"]) == len(devices)
    for device in devices:
        agree(first, second, device)
    # What an agent does at one, the other has at once.
    first.ask("grey-act", act="extend", imeis=devices[:5], days=9, **SIGNED)
    for device in devices[:5]:
        agree(first, second, device)
    # A device first seen by one is known to the other, with its start.
    (late,) = lists.new_devices(1, 900)
    with first.peer() as here:
        here.check(late, lists.SUBSCRIBER)
    agree(first, second, late)


def test_a_node_that_was_away(make_node: MakeNode, redis_server: RedisServer, tmp_path: Path) -> None:
    """Longer than the stream of changes reaches: it reads everything anew, and its own late records count."""
    settings = [in_redis(redis_server, f"eir-{number}.test") for number in (1, 2)]
    for one in settings:
        one["redis"] |= {"changes_kept": 100}
    first, second = (make_node(one) for one in settings)
    (shared,) = lists.new_devices(1, 5)
    with second.peer() as there:
        there.check(shared, lists.SUBSCRIBER)
    settled(second)
    redis_server.pause()
    (own,) = lists.new_devices(1, 6)
    with second.peer() as there:
        assert there.check(own, lists.SUBSCRIBER) == "grey"
    second.kill()
    redis_server.pause(False)
    settled(first)
    devices = load(first, int(lists.NEW) + 1_000_000, 8, rate=3000)
    settled(first)
    first.ask("grey-act", act="extend", imeis=[shared], days=2, **SIGNED)
    second.start()
    settled(second)
    for device in (shared, own, devices[0], devices[len(devices) // 2], devices[-1]):
        agree(first, second, device)
    assert_as_recorded([first, second], stored(first, running=True), tmp_path / "replica")


def test_one_node_sweeps_and_another_takes_over(make_node: MakeNode, redis_server: RedisServer) -> None:
    nodes = [make_node(in_redis(redis_server, f"eir-{number}.test")) for number in (1, 2)]

    def leading() -> list[NodeProcess]:
        return [node for node in nodes if node.ask("status")["sweep"]["leading"]]

    until(lambda: len(leading()) == 1)
    (leader,) = leading()
    (other,) = (node for node in nodes if node is not leader)
    leader.kill()
    nodes.remove(leader)
    until(lambda: leading() == [other], 30)


def record(sequence: int, kind: int, imei: str, imsi: int, at: int, deadline: int = 0) -> bytes:
    """A journal record, by docs/formats.md."""
    body = struct.pack("<BBHQQQII24x", kind, 0, 0, sequence, int(imei), imsi, at, deadline)
    return struct.pack("<I", zlib.crc32(body)) + body


def segment(*records: bytes) -> bytes:
    """A segment that begins with record 1."""
    head = struct.pack("<8sQ44x", b"EIRJRNL1", 1)
    return head + struct.pack("<I", zlib.crc32(head)) + b"".join(records)


def test_a_device_verified_during_the_hold_has_no_timer_and_no_message(make_node: MakeNode) -> None:
    """What the data plane leaves of it: a start, and its cancel. And beside it one that was not taken back."""
    node = make_node(start=False)
    verified, other = lists.new_devices(2)
    imsi = int(lists.SUBSCRIBER) << 4 | 15
    now = int(time.time())
    (node.state / "journal").mkdir(parents=True)
    (node.state / "journal" / f"{1:020}.eirj").write_bytes(
        segment(
            record(1, 1, verified, imsi, now, now + 99 * 86400),
            record(2, 1, other, imsi, now, now + 99 * 86400),
            record(3, 4, verified, 0, now),
        )
    )
    node.start()
    settled(node)
    assert node.timer(verified) is None
    # The deadline that a node recorded does not count, but what the country's rules make of the start.
    assert node.timer(other) == (now, grey.deadline(now, 30, _rules(node.country).zone))
    node.stop()
    found = stored(node, running=False)
    assert found.timers == {int(verified): None, int(other): found.timers[int(other)]}
    assert found.messages == {("grey-granted", int(other), lists.SUBSCRIBER, 0)}


def test_stopped_in_the_middle_of_an_amnesty(make_node: MakeNode, tmp_path: Path) -> None:
    """kill -9 while deadlines are being moved: all are, or with the line not on the disk none."""
    node = make_node({"breaker": WIDE})
    devices = load(node, int(lists.NEW), 2, rate=10_000)
    settled(node)
    (row,) = node.ask("grey-list", most=1)["timers"][:1]
    ask = {"first": row["last_day"], "last": row["last_day"], "days": 7, **SIGNED}
    before = {device: node.timer(device) for device in random.sample(devices, 50)}
    asking = threading.Thread(target=lambda: _swallow(lambda: node.ask("grey-shift", **ask)))
    asking.start()
    time.sleep(0.25)
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGKILL)
    node.wait()
    asking.join()
    node.start()
    settled(node)
    shifted = 7 * 86400 if node.ask("grey-shifts") else 0
    for device, timer in before.items():
        assert timer is not None
        has(node, device, (timer[0], timer[1] + shifted))


def _swallow(work: Any) -> None:
    try:
        work()
    except Exception:
        return
