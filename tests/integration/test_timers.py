"""Timers as people see and change them: `eir grey`, `eir why`, `eir store`, on a running node."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eir.timers.grey import Device, National, Seen, Timer
from eir.timers.sqlite_store import SqliteStore
from eir.timers.store import Change
from support import lists
from support.cli import eir
from support.node import MakeNode, NodeProcess, until, write_config
from support.timers import settled

DAY = 86400
SIGNED = ("--agent", "agent-7", "--reason", "a ticket")
NEVER = 0xFFFFFFFF


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    node = NodeProcess(write_config(tmp_path_factory.mktemp("timers")))
    node.put_lists()
    node.start()
    yield node
    node.end()


def attach(node: NodeProcess, first: int, count: int = 1, imsi: str | None = lists.SUBSCRIBER) -> list[str]:
    """So many devices never seen before, with their timers in the store."""
    devices = lists.new_devices(count, first=first)
    with node.peer() as peer:
        assert {peer.check(device, imsi) for device in devices} == {"grey"}
    settled(node)
    return devices


def shown(node: NodeProcess, device: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(eir("grey", "show", device, "--json", "-c", node.config).out)
    return told


def deadline(node: NodeProcess, device: str) -> int:
    timer = node.timer(device)
    assert timer is not None
    return timer[1]


def test_a_timer_is_shown_with_its_subscribers_masked(node: NodeProcess) -> None:
    (device,) = attach(node, 0)
    told = shown(node, device)
    assert told["timer"]["state"] == "running"
    assert told["timer"]["deadline"] == deadline(node, device)
    assert [subscriber["imsi"] for subscriber in told["subscribers"]] == ["*" * 13 + lists.SUBSCRIBER[-2:]]
    assert lists.SUBSCRIBER in eir("grey", "show", device, "--unmask", "-c", node.config).out
    text = eir("grey", "show", device, "-c", node.config).out
    assert "timer running" in text and "first attach recorded" in text and lists.SUBSCRIBER not in text


def test_a_further_subscriber_is_seen(node: NodeProcess) -> None:
    (device,) = attach(node, 1)
    with node.peer() as peer:
        assert peer.check(device, lists.MACHINE) == "white"
        assert peer.check(device, "001010000000055") == "grey"
    settled(node)
    assert len(shown(node, device)["subscribers"]) == 2


def test_extended_at_once_and_after_a_restart(make_node: MakeNode) -> None:
    node = make_node()
    (device,) = attach(node, 0)
    before = deadline(node, device)
    ran = eir("grey", "extend", device, "--days", 5, *SIGNED, "-c", node.config)
    assert ran.code == 0 and "1 timers changed" in ran.out
    assert deadline(node, device) == before + 5 * DAY
    (act,) = shown(node, device)["acts"]
    assert (act["act"], act["days"], act["agent"], act["reason"]) == ("extend", 5, "agent-7", "a ticket")
    node.kill()
    node.start()
    assert deadline(node, device) == before + 5 * DAY
    node.stop()
    (node.state / "timers.eiri").unlink()
    node.start()
    assert deadline(node, device) == before + 5 * DAY


def test_frozen_and_unfrozen_on_one_day_is_as_before(node: NodeProcess) -> None:
    (device,) = attach(node, 2)
    before = deadline(node, device)
    assert eir("grey", "freeze", device, *SIGNED, "-c", node.config).code == 0
    assert deadline(node, device) == NEVER
    assert shown(node, device)["timer"]["state"] == "frozen"
    assert eir("grey", "unfreeze", device, *SIGNED, "-c", node.config).code == 0
    assert deadline(node, device) == before


def test_lifted(node: NodeProcess) -> None:
    (device,) = attach(node, 3)
    assert eir("grey", "lift", device, *SIGNED, "-c", node.config).code == 0
    assert deadline(node, device) == NEVER
    with node.peer() as peer:
        assert peer.check(device, lists.SUBSCRIBER) == "grey"


def test_a_dry_run_only_says(node: NodeProcess, tmp_path: Path) -> None:
    devices = attach(node, 4, 3)
    file = tmp_path / "devices"
    file.write_text("\n".join(devices) + "\n")
    before = [deadline(node, device) for device in devices]
    lines = node.ask("status")["audit_lines"]
    ran = eir("grey", "extend", "--file", file, "--days", 3, "--dry-run", *SIGNED, "-c", node.config)
    assert "3 timers would be changed" in ran.out
    assert [deadline(node, device) for device in devices] == before
    assert node.ask("status")["audit_lines"] == lines


def test_what_has_no_timer_is_said(node: NodeProcess) -> None:
    ran = eir("grey", "extend", lists.WHITE, "--days", 3, *SIGNED, "-c", node.config)
    assert ran.code == 1 and "has no timer" in ran.out
    ran = eir("grey", "show", lists.WHITE, "-c", node.config)
    assert ran.code == 1 and "knows nothing" in ran.err


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        ({"act": "extend", "imeis": [lists.NEW], "days": 0}, "days: 1 to"),
        ({"act": "extend", "imeis": [lists.NEW], "days": 10**9}, "days: 1 to"),
        ({"act": "extend", "imeis": [lists.NEW], "days": "5"}, "days: 1 to"),
        ({"act": "erase", "imeis": [lists.NEW]}, "no act"),
        ({"act": "lift", "imeis": []}, "1 to 1000 devices"),
        ({"act": "lift", "imeis": [lists.NEW], "reason": ""}, "reason"),
        ({"act": "lift", "imeis": [lists.NEW], "agent": "a\nb"}, "agent"),
        ({"act": "lift", "imeis": ["35"]}, "14"),
        ({"act": "lift", "imeis": 7}, "not iterable"),
    ],
)
def test_what_cannot_be_done_is_refused(node: NodeProcess, ask: dict[str, Any], text: str) -> None:
    with pytest.raises(Exception, match=text):
        node.ask("grey-act", **{"agent": "a", "reason": "b", **ask})


def test_listed_by_state_and_day(node: NodeProcess) -> None:
    devices = attach(node, 10, 5)
    eir("grey", "freeze", devices[0], *SIGNED, "-c", node.config)
    out = eir("grey", "list", "--json", "--most", 1000, "-c", node.config).out
    found = {row["imei"]: row for row in map(json.loads, out.splitlines())}
    assert set(devices) <= set(found)
    frozen = eir("grey", "list", "--state", "frozen", "-c", node.config).out
    assert devices[0] in frozen and devices[1] not in frozen
    day = found[devices[1]]["last_day"]
    on_the_day = eir("grey", "list", "--from", day, "--to", day, "--most", 1000, "-c", node.config).out
    assert devices[1] in on_the_day and devices[0] not in on_the_day
    assert eir("grey", "list", "--to", "2020-01-01", "-c", node.config).out == ""


def test_an_amnesty_is_previewed_applied_and_taken_back(make_node: MakeNode) -> None:
    node = make_node()
    devices = attach(node, 0, 20)
    eir("grey", "freeze", devices[0], *SIGNED, "-c", node.config)
    before = {device: deadline(node, device) for device in devices}
    day = shown(node, devices[1])["timer"]["last_day"]
    ask = ("grey", "shift-deadlines", "--from", day, "--to", day, "--days", 14, *SIGNED, "-c", node.config)
    assert "19 timers would move: 0 would run out" in eir(*ask, "--dry-run").out
    assert {device: deadline(node, device) for device in devices} == before
    assert eir(*ask).out.strip() == "done"
    moved = {device: before[device] + 14 * DAY for device in devices[1:]}
    assert {device: deadline(node, device) for device in devices[1:]} == moved
    # A frozen timer goes on with the days that it has then, the amnesty's among them.
    assert deadline(node, devices[0]) == NEVER
    eir("grey", "unfreeze", devices[0], *SIGNED, "-c", node.config)
    assert deadline(node, devices[0]) == before[devices[1]] + 14 * DAY
    (shift,) = node.ask("grey-shifts")
    assert shift["applied"] and shift["days"] == 14
    node.kill()
    node.start()
    assert {device: deadline(node, device) for device in devices[1:]} == moved
    assert eir("grey", "unshift", shift["id"], *SIGNED, "-c", node.config).out.strip() == "done"
    assert {device: deadline(node, device) for device in devices[1:]} == {d: before[d] for d in devices[1:]}
    assert node.ask("grey-shifts") == []
    again = eir("grey", "unshift", shift["id"], *SIGNED, "-c", node.config)
    assert again.code == 1 and "no shift" in again.err


def test_a_replaced_imei_keeps_its_timer(node: NodeProcess) -> None:
    old, new = attach(node, 20)[0], lists.new_devices(1, first=30)[0]
    eir("grey", "extend", old, "--days", 4, *SIGNED, "-c", node.config)
    timer = node.timer(old)
    time.sleep(1.0)
    ran = eir("grey", "replace", old, new, *SIGNED, "-c", node.config)
    assert (ran.code, ran.err) == (0, "")
    assert node.timer(new) == timer
    assert node.timer(old) is None


def test_a_device_that_is_verified_has_no_timer_any_more(node: NodeProcess) -> None:
    (device,) = attach(node, 40)
    eir("lists", "own", "add", device, "white", "--reason", "verified", "-c", node.config)
    until(lambda: shown(node, device)["timer"] is None)
    told = shown(node, device)
    assert node.timer(device) is None and told["last_end"]["why"] == "verified"
    # Off the list again it is a device never seen, with a timer of its own.
    time.sleep(1.0)
    eir("lists", "own", "remove", device, "--reason", "a mistake", "-c", node.config)
    with node.peer() as peer:
        assert peer.check(device, lists.SUBSCRIBER) == "grey"
    settled(node)
    assert shown(node, device)["timer"]["state"] == "running"


def test_why(node: NodeProcess) -> None:
    (device,) = attach(node, 50)
    eir("grey", "extend", device, "--days", 2, *SIGNED, "-c", node.config)
    out = eir("why", device, "-c", node.config).out
    for part in ("grey  by rule grey", "lists: sequence 1", "timer running", "extend by 2 days, agent-7: a ticket"):
        assert part in out, part
    assert "last answers that were not white:" in out and "grey  by rule first-attach" in out
    assert lists.SUBSCRIBER not in out and lists.SUBSCRIBER in eir("why", device, "--unmask", "-c", node.config).out
    with node.peer() as peer:
        peer.check(lists.STOLEN, lists.SUBSCRIBER)
    told = json.loads(eir("why", lists.STOLEN, "--json", "-c", node.config).out)
    assert (told["verdict"]["rule"] == "black-hard" and told["device"] is None) or told["device"]["timer"] is None
    assert told["answers"][0]["rule"] == "black-hard"
    assert told["last_seen"] is not None


def test_the_audit_trail_tells_who_and_why_and_verifies(node: NodeProcess) -> None:
    (device,) = attach(node, 60)
    eir("grey", "lift", device, *SIGNED, "-c", node.config)
    out = eir("audit", "export", "--imei", device, "-c", node.config).out
    assert '"lift"' in out and "agent-7" in out
    assert lists.SUBSCRIBER not in eir("audit", "export", "-c", node.config).out
    assert eir("audit", "verify", "-c", node.config).code == 0


def test_the_store_is_checked_and_copied(node: NodeProcess, tmp_path: Path) -> None:
    attach(node, 70)
    assert eir("store", "check", "-c", node.config).out.strip() == "sound"
    copy = tmp_path / "copy.db"
    assert eir("store", "backup", copy, "-c", node.config).code == 0
    with sqlite3.connect(copy) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM devices").fetchone()[0] > 0


def test_the_journal_is_let_go_when_image_and_store_have_it(make_node: MakeNode) -> None:
    node = make_node({"journal": {"segment_bytes": 4096, "keep": 0}, "timers": {"image_interval": 1.0}})
    devices = attach(node, 0, 300)
    timers = [node.timer(device) for device in devices]
    until(lambda: len(list((node.state / "journal").glob("*.eirj"))) == 1)
    node.kill()
    node.start()
    assert [node.timer(device) for device in devices] == timers
    # What comes after has higher numbers, and is not taken for what was let go.
    (late,) = attach(node, 1000)
    assert shown(node, late)["timer"]["state"] == "running"


def test_a_damaged_image_is_passed_over(make_node: MakeNode) -> None:
    node = make_node()
    devices = attach(node, 0, 10)
    timers = [node.timer(device) for device in devices]
    node.stop()
    image = node.state / "timers.eiri"
    octets = bytearray(image.read_bytes())
    octets[len(octets) // 2] ^= 1
    image.write_bytes(octets)
    node.start()
    assert [node.timer(device) for device in devices] == timers
    assert node.log("the image of the timers is damaged")


def test_deadlines_that_pass_are_noted_and_stay_black(make_node: MakeNode, tmp_path: Path) -> None:
    """A store in which a deadline lies a few seconds ahead, as the national database could have set it."""
    node = make_node(start=False)
    (device,) = lists.new_devices(1)
    ends = int(time.time()) + 6

    async def seed() -> None:
        store = SqliteStore(node.settings.path(node.settings.store.path))
        await store.open()
        start = ends - 30 * DAY
        seen = (Seen(lists.SUBSCRIBER, start),)
        record = Device(int(device), (start,), national=National(1, start, ends), seen=seen)
        await store.commit([Change(record, 0, Timer(start, ends, "running"))], 0)
        await store.close()

    asyncio.run(seed())
    node.start()
    with node.peer() as peer:
        assert peer.check(device, lists.SUBSCRIBER) == "grey"
        until(lambda: time.time() >= ends)
        assert peer.check(device, lists.SUBSCRIBER) == "black"
    until(lambda: node.ask("status")["sweep"]["expired"] == 1)
    told = shown(node, device)
    assert told["timer"]["state"] == "expired" and told["expiry_noted_at"] >= ends
    # Lists that do not name it leave it as it is; so does a restart.
    node.put_lists({"devices": f"imei,list,reason\n{lists.WHITE},white,\n"}, sequence=9)
    node.ask("lists-load")
    node.stop()
    node.start()
    with node.peer() as peer:
        assert peer.check(device, lists.SUBSCRIBER) == "black"
    with sqlite3.connect(node.settings.path(node.settings.store.path)) as connection:
        kinds = connection.execute("SELECT kind FROM messages WHERE state = 1 ORDER BY kind").fetchall()
    # To the subscriber that it ran out, and that it was refused; and the report upwards.
    assert kinds == [(1,), (2,), (3,)]
    # An agent's act lies above it.
    eir("grey", "extend", device, "--days", 3, *SIGNED, "-c", node.config)
    with node.peer() as peer:
        assert peer.check(device, lists.SUBSCRIBER) == "grey"
