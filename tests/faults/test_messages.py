"""Whatever fails, no subscriber is told twice, and none is left out but those of whom it is said that nobody knows."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from eir.app import _store
from eir.timers.grey import Device, Seen, Started, apply
from eir.timers.sqlite_store import SqliteStore
from eir.timers.store import Message
from sms import progress as progresses
from support import lists
from support.cli import eir
from support.node import MakeNode, NodeProcess, until
from support.redis import RedisServer
from support.smsc import Smsc
from support.stores import change, put

DEVICES = 40
PATIENCE = 120.0

Setting = dict[str, dict[str, object]]


@pytest.fixture
def smsc(tmp_path: Path) -> Iterator[Smsc]:
    smsc = Smsc(tmp_path / "smsc", receipt="tlv")
    smsc.start()
    yield smsc
    smsc.stop()


def settings(smsc: Smsc, more: Setting | None = None, rate: float = 150.0) -> Setting:
    """As fast as it takes some seconds, so that a fault falls into it."""
    one = {"name": "first", "host": "127.0.0.1", "port": smsc.port, "system_id": "eir", "password": "secret"}
    one |= {"window": 10, "rate": rate, "response_timeout": 2.0}
    sms = {"gateway": "smpp", "quiet_from": "00:00", "quiet_to": "00:00", "in_flight": 20, "smsc": [one]}
    return {"sms": sms, **(more or {})}


def imsi(number: int) -> str:
    return f"00101{number:010}"


def msisdn(number: int) -> str:
    return f"999{number:09}"


def know_subscribers(node: NodeProcess, count: int = DEVICES) -> None:
    exported = node.config.with_name("subscribers.csv")
    rows = [f"{imsi(number)},{msisdn(number)},,ru,0\n" for number in range(count)]
    exported.write_text("imsi,msisdn,iin,language,m2m\n" + "".join(rows))
    ran = eir("subscribers", "import", exported, "-c", node.config)
    assert ran.code == 0, ran.err


def attach(node: NodeProcess, count: int = DEVICES) -> None:
    with node.peer() as peer:
        for number, device in enumerate(lists.new_devices(count)):
            assert peer.check(device, imsi(number)) == "grey"


def whole(smsc: Smsc) -> dict[str, int]:
    """How many whole texts each number got. No part may have come twice."""
    parts: dict[tuple[str, int], set[int]] = defaultdict(set)
    sizes: dict[tuple[str, int], int] = {}
    for one in smsc.submits():
        reference, of, number = bytes.fromhex(one["octets"])[3:6]
        assert number not in parts[one["to"], reference], "a part was submitted twice"
        parts[one["to"], reference].add(number)
        sizes[one["to"], reference] = of
    found: dict[str, int] = defaultdict(int)
    for key, numbers in parts.items():
        found[key[0]] += len(numbers) == sizes[key]
    return found


def left(node: NodeProcess) -> tuple[set[str], list[Message]]:
    """Numbers whose message ended as one of which nobody knows, and messages that are not over.

    Of a node whose store can be opened: one that is stopped, or has it in Redis.
    """

    async def read() -> tuple[set[str], list[Message]]:
        store = _store(node.settings)
        await store.open()
        try:
            unknown = set()
            for one in await store.queue.due("over", 1 << 39, 10_000):
                known = progresses.decode(one.progress)
                assert known is not None
                if known.reason == "unanswered":
                    unknown.add(msisdn(int(one.message.imsi[5:])))
                else:
                    assert known.state in ("accepted", "delivered"), known
            pending = [
                one.message for place in ("waiting", "sending") for one in await store.queue.due(place, 1 << 39, 99)
            ]
            return unknown, pending
        finally:
            await store.close()

    return asyncio.run(read())


def all_said(node: NodeProcess) -> bool:
    # Twice: what is asked for first may be over, and what is asked for next not have begun, at no one moment.
    asked = [node.ask("sms-queue") for _ in range(2)]
    return not any(told["queued"] or told["outbox"]["active"] for told in asked)


def assert_told_once(smsc: Smsc, node: NodeProcess, count: int = DEVICES) -> None:
    """Afterwards: each got one whole text, but those that are counted as not known, and nothing is left."""
    until(lambda: all_said(node), PATIENCE)
    # What the process before was sending is taken over first.
    time.sleep(2.5)
    until(lambda: all_said(node), PATIENCE)
    node.stop()
    unknown, pending = left(node)
    assert pending == []
    told = whole(smsc)
    assert all(texts == 1 or (texts == 0 and number in unknown) for number, texts in told.items())
    assert {msisdn(number) for number in range(count)} - {number for number, texts in told.items() if texts} <= unknown


def test_killed_while_first_attaches_are_told(make_node: MakeNode, smsc: Smsc, request: pytest.FixtureRequest) -> None:
    node = make_node(settings(smsc), start=False)
    know_subscribers(node)
    node.start()
    attach(node)
    for _ in range(max(3, request.config.getoption("--rounds") // 4)):
        time.sleep(random.uniform(0.0, 1.2))
        node.kill()
        node.start()
    assert_told_once(smsc, node)


def noon_now(node: NodeProcess) -> None:
    """Gives the node's country a zone where it is between 12 and 13 o'clock now."""
    profile = node.config.parent / "countries" / "test.toml"
    offset = 12 - datetime.now(UTC).hour
    lines = profile.read_text().splitlines()
    changed = [f'timezone = "Etc/GMT{-offset:+d}"' if line.startswith("timezone") else line for line in lines]
    profile.write_text("\n".join(changed) + "\n")


def test_killed_while_reminders_go_out(make_node: MakeNode, smsc: Smsc, request: pytest.FixtureRequest) -> None:
    minute = 12 * 60 + datetime.now(UTC).minute
    times = {"begin": minute - 1, "end": minute, "late_until": 16 * 60}
    # A window of a minute, which is over or about to be: turns are in the minute from now on.
    window: dict[str, object] = {name: f"{at // 60:02}:{at % 60:02}" for name, at in times.items()}
    node = make_node(settings(smsc, {"sms.reminders": window}), start=False)
    noon_now(node)
    know_subscribers(node)
    start = int(time.time()) - 5 * 86400

    async def seed() -> None:
        store = SqliteStore(node.state / "timers.db")
        await store.open()
        devices = []
        for number, device in enumerate(lists.new_devices(DEVICES)):
            made = apply(Device(int(device)), Started(int(device), start, imsi(number)))
            assert made.seen == (Seen(imsi(number), start),)
            devices.append(made)
        await put(store, map(change, devices))
        await store.close()

    asyncio.run(seed())
    node.start()
    end = time.monotonic() + 62
    kills = 0
    while time.monotonic() < end or not kills:
        time.sleep(random.uniform(2.0, 12.0))
        node.kill()
        node.start()
        kills += 1
    until(lambda: node.ask("sms-queue")["reminders"]["passes"] == 2, PATIENCE)
    assert_told_once(smsc, node)


@pytest.mark.parametrize(
    "how",
    [
        {"status": 0x58, "times": 12},
        {"status": 0x14, "times": 12},
        {"late": 0.4},
        {"late": 3.0},
        {"shuffle": 5},
        {"twice": 1},
        {"silent_every": 7},
        {"unknown_ids": 1, "receipts": 3},
    ],
    ids=lambda how: "-".join(how),
)
def test_whatever_an_smsc_does(make_node: MakeNode, smsc: Smsc, how: dict[str, object]) -> None:
    few = 6
    node = make_node(settings(smsc, rate=0.0), start=False)
    know_subscribers(node, few)
    smsc.behave(**how)
    node.start()
    attach(node, few)
    # Until the first attaches are in the store there is nothing to say.
    until(lambda: len({one["to"] for one in smsc.submits()}) == few, PATIENCE)
    time.sleep(1.0)
    if "shuffle" in how:
        # The last ones of all would be kept back for ever.
        time.sleep(1.0)
        smsc.behave(shuffle=0)
    assert_told_once_but_refused(smsc, node, few, throttled="status" in how)


def assert_told_once_but_refused(smsc: Smsc, node: NodeProcess, count: int, throttled: bool) -> None:
    """As `assert_told_once`; submits that were refused as too many are in the SMSC's record too."""
    if not throttled:
        assert_told_once(smsc, node, count)
        return
    until(lambda: all_said(node), PATIENCE)
    node.stop()
    unknown, pending = left(node)
    assert (unknown, pending) == (set(), [])
    assert {one["to"] for one in smsc.submits()} == {msisdn(number) for number in range(count)}


def test_an_smsc_that_is_killed_and_comes_back(make_node: MakeNode, smsc: Smsc) -> None:
    node = make_node(settings(smsc), start=False)
    know_subscribers(node)
    node.start()
    attach(node)
    for _ in range(2):
        time.sleep(random.uniform(0.3, 1.0))
        smsc.kill()
        time.sleep(0.5)
        smsc.start()
    assert_told_once(smsc, node)


def test_two_nodes_of_which_one_is_killed(make_node: MakeNode, smsc: Smsc, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    server.start()
    try:
        nodes = []
        for name in ("eir1.test", "eir2.test"):
            more: Setting = {
                "node": {"origin_host": name},
                "store": {"kind": "redis"},
                "redis": {"nodes": [server.url]},
            }
            node = make_node(settings(smsc, more, rate=80.0), start=False)
            know_subscribers(node)
            node.start()
            nodes.append(node)
        attach(nodes[0])
        until(lambda: smsc.count() > 30, PATIENCE)
        leader = next(node for node in nodes if node.ask("sms-queue")["outbox"]["leading"])
        leader.kill()
        (other,) = (node for node in nodes if node is not leader)
        until(lambda: all_said(other), PATIENCE)
        # What the one that is gone was sending is left alone until it is certain that it does not any more.
        until(lambda: not left(other)[1], PATIENCE)
        leader.start()
        assert_told_once(smsc, leader)
    finally:
        for node in nodes:
            node.end()
        server.stop()


def test_a_store_that_stands_still_and_one_that_is_killed(make_node: MakeNode, smsc: Smsc, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", None, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    node = None
    try:
        more: Setting = {"store": {"kind": "redis"}, "redis": {"nodes": [server.url]}}
        node = make_node(settings(smsc, more, rate=80.0), start=False)
        know_subscribers(node)
        node.start()
        attach(node)
        until(lambda: smsc.count() > 20, PATIENCE)
        server.pause()
        time.sleep(3.0)
        server.resume()
        until(lambda: smsc.count() > 60, PATIENCE)
        server.kill()
        time.sleep(1.0)
        server.start()
        assert_told_once(smsc, node)
    finally:
        if node is not None:
            node.end()
        server.stop()
