"""`eir.lists.sync_dir`: what is taken from a directory that anybody may write to, and what is not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from eir.lists.sync_dir import DirectorySource
from support.packages import FakeReceiver, make

IMEI = "35900000000001"


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    path = tmp_path / "drop"
    path.mkdir()
    return path


@pytest.fixture
def receiver(tmp_path: Path) -> FakeReceiver:
    return FakeReceiver(tmp_path / "incoming")


@pytest.fixture
def source(drop: Path, receiver: FakeReceiver) -> DirectorySource:
    return DirectorySource(drop, receiver, 0.01)


def look(source: DirectorySource) -> int:
    return asyncio.run(source.look())


def names(drop: Path) -> list[str]:
    return sorted(path.name for path in drop.iterdir())


def test_packages_are_taken_in_their_order_and_go_away(
    source: DirectorySource, drop: Path, receiver: FakeReceiver
) -> None:
    for sequence, name in ((4, "a"), (2, "b"), (3, "c")):
        make(sequence, f"set,{IMEI},white,,\n", previous=sequence - 1).write(drop / name)
    assert look(source) == 3
    assert receiver.taken == [(2, "directory"), (3, "directory"), (4, "directory")]
    assert names(drop) == []
    assert not list(receiver.root.iterdir())


def test_what_is_not_complete_is_left_alone(source: DirectorySource, drop: Path, receiver: FakeReceiver) -> None:
    made = make(2, f"set,{IMEI},white,,\n", previous=1)
    place = drop / "delta"
    place.mkdir()
    whole = made.files["devices.csv"]
    steps = [
        ("devices.csv", whole[:-5]),
        ("manifest.json", made.manifest_bytes[:40]),
        ("manifest.json", made.manifest_bytes),
        ("manifest.json.sig", made.signature[:10]),
        ("manifest.json.sig", made.signature),
    ]
    for name, octets in steps:
        (place / name).write_bytes(octets)
        assert look(source) == 0
        assert names(drop) == ["delta"]
    (place / "devices.csv").write_bytes(whole)
    assert look(source) == 1


def test_what_follows_a_state_that_is_not_there_waits(
    source: DirectorySource, drop: Path, receiver: FakeReceiver
) -> None:
    make(3, f"set,{IMEI},white,,\n", previous=2).write(drop / "late")
    assert look(source) == 0
    assert names(drop) == ["late"]
    make(2, f"set,{IMEI},white,,\n", previous=1).write(drop / "z")
    assert look(source) == 2


def test_what_is_refused_says_why_and_is_not_looked_at_again(
    source: DirectorySource, drop: Path, receiver: FakeReceiver
) -> None:
    receiver.refuse = True
    make(2, f"set,{IMEI},white,,\n", previous=1).write(drop / "one")
    assert look(source) == 0
    assert names(drop) == ["one.refused"]
    assert (drop / "one.refused" / "reason.txt").read_text() == "because\n"
    receiver.refuse = False
    assert look(source) == 0
    (drop / "bad").mkdir()
    (drop / "bad" / "manifest.json").write_text('{"format": 1}')
    (drop / "bad" / "manifest.json.sig").write_bytes(bytes(64))
    assert look(source) == 0
    assert names(drop) == ["bad.refused", "one.refused"]


def test_what_comes_while_the_lists_are_held_waits(source: DirectorySource, drop: Path, receiver: FakeReceiver) -> None:
    make(2, f"set,{IMEI},white,,\n", previous=1).write(drop / "one")
    receiver.held = True
    assert look(source) == 0
    assert names(drop) == ["one"]
    assert not receiver.root.exists()
    receiver.held = False
    assert look(source) == 1


def test_nothing_outside_is_read_and_nothing_waited_for(
    source: DirectorySource, drop: Path, receiver: FakeReceiver, tmp_path: Path
) -> None:
    made = make(2, f"set,{IMEI},white,,\n", previous=1)
    elsewhere = made.write(tmp_path / "elsewhere")
    (drop / "link").symlink_to(elsewhere)
    (drop / "file").write_bytes(b"x")
    os.mkfifo(drop / "pipe")
    linked = drop / "linked"
    linked.mkdir()
    for name in ("manifest.json", "manifest.json.sig", "devices.csv"):
        (linked / name).symlink_to(elsewhere / name)
    piped = made.write(drop / "piped")
    (piped / "devices.csv").unlink()
    os.mkfifo(piped / "devices.csv")
    nested = made.write(drop / "nested")
    (nested / "devices.csv").unlink()
    (nested / "devices.csv").mkdir()
    assert look(source) == 0
    assert receiver.taken == []
    assert len(names(drop)) == 6
    assert (elsewhere / "devices.csv").exists()


def test_a_directory_that_is_not_there_is_said_and_waited_for(drop: Path, receiver: FakeReceiver) -> None:
    async def watch() -> None:
        source = DirectorySource(drop / "later", receiver, 0.01)
        watching = asyncio.create_task(source.run())
        while not source.error:
            await asyncio.sleep(0.01)
        (drop / "later").mkdir()
        make(2, f"set,{IMEI},white,,\n", previous=1).write(drop / "later" / "x")
        while receiver.sequence != 2 or source.error:
            await asyncio.sleep(0.01)
        watching.cancel()

    asyncio.run(asyncio.wait_for(watch(), 20))
