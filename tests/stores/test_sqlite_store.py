"""The SQLite store where others have no like: its file, its lock, versions, copies, and disks that fail."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from eir.timers import sqlite_file
from eir.timers.sqlite_store import SqliteStore
from eir.timers.store import BehindError, Counts, StoreError, StoreVersionError
from support.mounts import small_disk
from support.stores import FIRST_IMEI, NOON, change, device, message, put

IMSI = message(1).imsi


async def opened(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    await store.open()
    return store


async def filled(path: Path, devices: int = 500) -> SqliteStore:
    store = await opened(path)
    await put(store, [change(device(n), messages=(message(n),)) for n in range(devices)], "journal:a", 9)
    return store


async def refuses_to_open(path: Path) -> str:
    """What opening says; the lock must not be left behind."""
    for _ in range(2):
        with pytest.raises(StoreError) as refused:
            await opened(path)
    return str(refused.value)


# --- one process -----------------------------------------------------------------------------------------------------


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await opened(path)
    program = (
        "import asyncio, sys; from pathlib import Path; from eir.timers.sqlite_store import SqliteStore\n"
        "try: asyncio.run(SqliteStore(Path(sys.argv[1])).open())\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    command = [sys.executable, "-c", program, str(path)]
    other = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert other.stdout.startswith(f"StoreError {path}: process {os.getpid()} has it open"), other
    with pytest.raises(StoreError, match="has it open"):
        await opened(path)
    with pytest.raises(StoreError, match="is open already"):
        await store.open()
    await put(store, [change(device(1))])
    await store.close()
    await (await opened(path)).close()


async def test_others_may_look_into_an_open_store(tmp_path: Path) -> None:
    store = await filled(tmp_path / "store.db")
    other = sqlite3.connect(f"file:{tmp_path}/store.db?mode=ro", uri=True)
    assert other.execute("SELECT count(*) FROM devices").fetchone() == (500,)
    await put(store, [change(device(1000))])
    other.close()
    await store.close()


async def test_the_file_is_for_its_owner(tmp_path: Path) -> None:
    store = await filled(tmp_path / "store.db")
    await store.backup(tmp_path / "copy.db")
    for file in tmp_path.iterdir():
        assert not stat.S_IMODE(file.stat().st_mode) & 0o137, file
    await store.close()


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    with pytest.raises(StoreError, match="is not open"):
        await store.load([1])
    await store.open()
    waiting = asyncio.create_task(store.changes(await store.end_of_changes(), 1, 60))
    await asyncio.sleep(0.05)
    await store.close()
    with pytest.raises(StoreError, match="is not open"):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(StoreError, match="is not open"):
        await store.lease("sweep", "a", 1)
    # It can be opened again.
    await store.open()
    await put(store, [change(device(1))])
    await store.close()


async def test_closing_ends_what_takes_long(tmp_path: Path) -> None:
    store = await filled(tmp_path / "store.db", 20_000)
    checking = [asyncio.create_task(store.problems()) for _ in range(3)]
    await asyncio.sleep(0.02)
    await asyncio.wait_for(store.close(), 20)
    for result in await asyncio.gather(*checking, return_exceptions=True):
        assert result == [] or isinstance(result, StoreError), result
    store = await opened(tmp_path / "store.db")
    assert await store.problems() == []
    await store.close()


async def test_a_device_has_one_change_in_a_commit(tmp_path: Path) -> None:
    store = await opened(tmp_path / "store.db")
    with pytest.raises(ValueError, match="two changes"):
        await store.commit([change(device(1)), change(device(1))], 0)
    with pytest.raises(ValueError, match="another device's"):
        await store.commit([change(device(1), messages=(message(2),))], 0)
    assert await store.counts() == Counts(0, 0, 0, 0)
    await store.close()


async def test_the_log_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eir.timers.sqlite_store._LOGGED", 100)
    store = await opened(tmp_path / "store.db")
    sizes = []
    for number in range(60):
        await put(store, [change(device(n)) for n in range(number * 100, number * 100 + 100)])
        sizes.append((tmp_path / "store.db-wal").stat().st_size)
    assert max(sizes) < 2 << 20
    assert (tmp_path / "store.db").stat().st_size > 200_000
    await store.close()
    assert not (tmp_path / "store.db-wal").exists()


# --- versions --------------------------------------------------------------------------------------------------------


def of_version(path: Path, version: int) -> None:
    """Makes an older store with a running and a frozen device, and a message that waits."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA application_id = {sqlite_file.APPLICATION}")
    sqlite_file.migrate(connection, 0, version)
    rows = [
        (n, FIRST_IMEI + n, 1, state, until, sqlite_file_record(n)) for n, state, until in [(1, 1, 5), (2, 2, None)]
    ]
    connection.executemany("INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.execute("INSERT INTO messages VALUES (1, 0, '', 0, 1, 7, 0, '')")
    connection.execute("INSERT INTO cursors VALUES ('journal:a', 77)")
    connection.close()


def sqlite_file_record(number: int) -> bytes:
    from eir.timers.store import encode

    return encode(device(number))


async def test_an_older_store_is_migrated_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    of_version(path, 1)
    store = await opened(path)
    assert await store.counts() == Counts(running=1, stopped=1, expired=0, queued=1)
    assert await store.position("journal:a") == 77
    assert await store.shifts() == (0, ())
    assert (await store.load([FIRST_IMEI + 2]))[FIRST_IMEI + 2].device == device(2)
    assert await store.problems() == []
    await store.close()
    kept = sqlite3.connect(tmp_path / "store.db.version-1")
    assert kept.execute("PRAGMA user_version").fetchone() == (1,)
    assert kept.execute("SELECT count(*) FROM devices").fetchone() == (2,)
    kept.close()
    await (await opened(path)).close()


async def test_a_migration_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.db"
    of_version(path, 1)
    steps = sqlite_file._MIGRATIONS
    monkeypatch.setattr(sqlite_file, "_MIGRATIONS", (steps[0], (*steps[1], "INSERT INTO nowhere VALUES (1)")))
    assert "nowhere" in await refuses_to_open(path)
    monkeypatch.undo()
    store = await opened(path)
    assert (await store.counts()).running == 1
    await store.close()


async def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await (await filled(path)).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {sqlite_file.VERSION + 3}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreVersionError, match=f"version {sqlite_file.VERSION + 3}.*up to {sqlite_file.VERSION}"):
        await opened(path)
    assert path.read_bytes() == before


async def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE devices (a)")
    connection.close()
    assert "not a store of timers" in await refuses_to_open(path)


# --- damage ----------------------------------------------------------------------------------------------------------


async def damaged(path: Path, how: str) -> None:
    await (await filled(path, 5000)).close()
    octets = bytearray(path.read_bytes())
    if how == "cut":
        octets = octets[: len(octets) // 2]
    elif how == "no database":
        octets = bytearray(b"IMEI,list\n" * 1000)
    elif how == "header":
        octets[:16] = bytes(16)
    elif how == "first page":
        octets[100:4096] = bytes(3996)
    path.write_bytes(octets)


@pytest.mark.parametrize("how", ["cut", "no database", "header", "first page"])
async def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, how: str) -> None:
    path = tmp_path / "store.db"
    await damaged(path, how)
    before = path.read_bytes()
    assert "put a backup in its place" in await refuses_to_open(path)
    assert path.read_bytes() == before


async def test_damage_within_is_found_when_it_is_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await (await filled(path, 5000)).close()
    octets = bytearray(path.read_bytes())
    page = octets.index(IMSI.encode()) & -4096
    octets[page : page + 64] = b"\xff" * 64
    path.write_bytes(octets)
    store = await opened(path)
    found = await store.problems()
    assert found and not any(IMSI in problem for problem in found)
    with pytest.raises(StoreError, match="put a backup in its place"):
        while True:
            await store.load(range(FIRST_IMEI, FIRST_IMEI + 5000))
            await put(store, [change(device(n), 1, messages=(message(n, subscriber=2),)) for n in range(5000)])
    await store.close()


async def test_records_and_counts_that_are_wrong_are_found(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await (await filled(path)).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE devices SET record = x'00' WHERE imei = ?", (FIRST_IMEI,))
    connection.execute("UPDATE devices SET record = ? WHERE imei = ?", (sqlite_file_record(7), FIRST_IMEI + 1))
    connection.execute("UPDATE devices SET deadline = NULL WHERE imei = ?", (FIRST_IMEI + 2,))
    connection.execute("UPDATE devices SET state = 9 WHERE imei = ?", (FIRST_IMEI + 3,))
    connection.execute("UPDATE numbers SET n = 3 WHERE name = 'queued'")
    connection.close()
    store = await opened(path)
    found = "\n".join(await store.problems())
    for text in (
        "device 35209900000000: a record cannot be read",
        "device 35209900000001: its record is another device's",
        "device 35209900000002: state 1 with deadline None",
        "1 devices have the unknown state 9",
        "running: 500 are counted, 499 are there",
        "queued: 3 are counted, 500 are there",
    ):
        assert text in found
    with pytest.raises(StoreError, match="cannot be read"):
        await store.load([FIRST_IMEI])
    await store.close()


# --- copies ----------------------------------------------------------------------------------------------------------


async def test_a_copy_is_whole_while_the_store_is_written(tmp_path: Path) -> None:
    path, copy = tmp_path / "store.db", tmp_path / "copies" / "copy.db"
    copy.parent.mkdir()
    store = await filled(path, 20_000)
    begin = await store.end_of_changes()
    copying = asyncio.create_task(store.backup(copy))
    commits = 0
    while not copying.done():
        await put(store, [change(device(100_000 + commits))], "journal:a", 10 + commits)
        commits += 1
    await copying
    assert list(copy.parent.iterdir()) == [copy]
    end = await store.end_of_changes()
    await store.close()
    for file in tmp_path.glob("store.db*"):
        file.unlink()
    copy.rename(path)
    store = await opened(path)
    assert await store.problems() == []
    there = (await store.counts()).running
    assert 20_000 <= there <= 20_000 + commits
    # The cursor is of the same moment as the devices.
    assert await store.position("journal:a") == (9 + there - 20_000)
    for position in (begin, end):
        with pytest.raises(BehindError):
            await store.changes(position, 1, 0)
    await store.close()


async def test_a_copy_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    store = await filled(tmp_path / "store.db")
    with pytest.raises(StoreError, match="is the store itself"):
        await store.backup(tmp_path / "." / "store.db")
    with pytest.raises(StoreError, match="No such file"):
        await store.backup(tmp_path / "nowhere" / "copy.db")
    copy = tmp_path / "copy.db"
    copy.mkdir()
    with pytest.raises(StoreError):
        await store.backup(copy)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "copy.db",
        "store.db",
        "store.db-shm",
        "store.db-wal",
        "store.db.lock",
    ]
    copy.rmdir()
    await store.backup(copy)
    await store.backup(copy)
    await store.close()


# --- disks -----------------------------------------------------------------------------------------------------------


async def test_a_store_that_cannot_be_written_works_again(tmp_path: Path) -> None:
    store = await filled(tmp_path / "store.db")
    store._connection.execute("PRAGMA query_only = ON")
    for attempt in (
        store.commit([change(device(1000), messages=(message(1000),))], 0, "journal:a", 50),
        store.mark("journal:a", 50),
        store.set_setting("a", b"1"),
    ):
        with pytest.raises(StoreError, match="readonly"):
            await attempt
    assert await store.counts() == Counts(500, 0, 0, 500)
    assert await store.position("journal:a") == 9
    store._connection.execute("PRAGMA query_only = OFF")
    await put(store, [change(device(1000))], "journal:a", 50)
    assert await store.problems() == []
    await store.close()


@pytest.mark.parametrize("what", ["store.db", "store.db-wal"])
async def test_a_file_that_is_gone_is_missed(tmp_path: Path, what: str) -> None:
    store = await filled(tmp_path / "store.db")
    (tmp_path / what).rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="bring it back"):
        await store.commit([change(device(1000))], 0)
    with pytest.raises(StoreError, match="bring it back"):
        await store.load([FIRST_IMEI])
    (tmp_path / what).write_bytes(b"")
    with pytest.raises(StoreError, match="another file has taken its place"):
        await store.load([FIRST_IMEI])
    (tmp_path / "elsewhere").rename(tmp_path / what)
    await put(store, [change(device(1000))])
    assert await store.problems() == []
    await store.close()


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file or directory" in await refuses_to_open(tmp_path / "nowhere" / "store.db")
    (tmp_path / "store.db").mkdir()
    await refuses_to_open(tmp_path / "store.db")


async def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 << 20):
        store = await opened(tmp_path / "disk" / "store.db")
        acknowledged = 0
        with pytest.raises(StoreError, match=r"full|I/O"):
            while True:
                numbers = range(acknowledged, acknowledged + 100)
                await put(
                    store, [change(device(n), messages=(message(n),)) for n in numbers], "journal:a", numbers.stop
                )
                acknowledged = numbers.stop
        assert acknowledged
        for _ in range(3):
            assert await store.counts() == Counts(acknowledged, 0, 0, acknowledged)
            assert await store.position("journal:a") == acknowledged
            with pytest.raises(StoreError, match=r"full|I/O"):
                await put(store, [change(device(n)) for n in range(acknowledged, acknowledged + 50_000)])
        await store.close()
        subprocess.run(["mount", "-o", "remount,size=64M", tmp_path / "disk"], check=True, timeout=30)
        store = await opened(tmp_path / "disk" / "store.db")
        assert await store.problems() == []
        assert await store.position("journal:a") == acknowledged
        assert len(await store.load(range(FIRST_IMEI, FIRST_IMEI + acknowledged + 100))) == acknowledged
        await store.close()


async def test_a_disk_that_was_full_needs_no_restart(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8 << 20):
        store = await filled(tmp_path / "disk" / "store.db")
        ballast = tmp_path / "disk" / "ballast"
        with pytest.raises(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                assert file.write(b"\0" * 4096) == 4096
                os.fsync(file.fileno())
        with pytest.raises(StoreError, match=r"full|I/O"):
            await put(store, [change(device(n)) for n in range(500, 20_000)], "journal:a", 20_000)
        with pytest.raises(StoreError):
            await store.backup(tmp_path / "disk" / "copy.db")
        ballast.unlink()
        await put(store, [change(device(n)) for n in range(500, 1000)], "journal:a", 1000)
        assert await store.counts() == Counts(1000, 0, 0, 500)
        assert await store.problems() == []
        assert not list((tmp_path / "disk").glob("copy*"))
        await store.close()


async def test_no_error_tells_of_a_subscriber(tmp_path: Path) -> None:
    store = await filled(tmp_path / "store.db")
    bad = message(1000, at=NOON << 64, subscriber=7)
    with pytest.raises((StoreError, OverflowError)) as refused:
        await put(store, [change(device(1000), messages=(bad,))])
    assert bad.imsi not in str(refused.value) and bad.msisdn not in str(refused.value)
    assert await store.counts() == Counts(500, 0, 0, 500)
    await store.close()
