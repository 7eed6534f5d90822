"""The store of one node: an SQLite file beside its journal.

Write-ahead log; every commit is on the disk (`synchronous=FULL`) before it returns. One thread owns the connection;
asyncio waits for it, and nothing else does. The file is this node's alone: a lock beside it keeps a second process out,
because two nodes that each take the file's changes for their own would each lack the other's. Interface: `store`;
layout: docs/formats.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from eir.timers.grey import NEVER, Shift
from eir.timers.store import (
    BehindError,
    Change,
    Counts,
    Head,
    Memory,
    Message,
    Page,
    Position,
    Stored,
    StoreError,
    StoreVersionError,
    decode,
    encode,
    memory,
)

_MIGRATIONS: Final = (
    # 1: timers, and what follows from them.
    """
    CREATE TABLE devices (imei INTEGER PRIMARY KEY, version INTEGER NOT NULL, state INTEGER NOT NULL,
        deadline INTEGER, record BLOB NOT NULL);
    CREATE INDEX devices_deadline ON devices (state, deadline) WHERE deadline IS NOT NULL;
    CREATE TABLE messages (kind INTEGER NOT NULL, imei INTEGER NOT NULL, imsi TEXT NOT NULL, mark INTEGER NOT NULL,
        at INTEGER NOT NULL, msisdn TEXT NOT NULL, apart INTEGER NOT NULL, state INTEGER NOT NULL,
        PRIMARY KEY (imei, imsi, kind, mark)) WITHOUT ROWID;
    CREATE TABLE changes (n INTEGER PRIMARY KEY AUTOINCREMENT, imei INTEGER NOT NULL, start INTEGER NOT NULL,
        deadline INTEGER NOT NULL);
    CREATE TABLE cursors (source TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    """,
    # 2: amnesties, and where audit trails stand.
    """
    CREATE TABLE shifts (id TEXT PRIMARY KEY, at INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
        days INTEGER NOT NULL, agent TEXT NOT NULL, reason TEXT NOT NULL, removed INTEGER NOT NULL DEFAULT 0)
        WITHOUT ROWID;
    CREATE TABLE heads (node TEXT PRIMARY KEY, n INTEGER NOT NULL, hash TEXT NOT NULL) WITHOUT ROWID;
    """,
)
_STATES: Final = {"running": 1, "expired": 2, "frozen": 3, "lifted": 4}
_ENDED: Final = 0
_KINDS: Final = ("grey-granted", "black-expired", "black-attempt", "report-expired")
_QUEUED, _WITHDRAWN = 0, 1
_POSITION: Final = 8
"""Octets of a position in the stream of changes: its last change's number."""
_CHUNK: Final = 500
"""Variables of one SELECT."""
_Result = TypeVar("_Result")


class SqliteStore:
    """A store in the file `path`; its directory must be there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "store")
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._changed = asyncio.Event()
        self._leases: dict[str, tuple[str, float]] = {}

    async def open(self) -> None:
        """As `Store.open`; also StoreError where another process has the file."""
        await self._run(self._open)

    async def close(self) -> None:
        """As `Store.close`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)

    async def load(self, imeis: Collection[int]) -> dict[int, Stored]:
        """As `Store.load`."""
        return await self._run(self._load, list(imeis))

    async def commit(
        self, changes: Sequence[Change], revision: int, source: str = "", position: int = 0
    ) -> frozenset[int]:
        """As `Store.commit`: here all changes are written, or none."""
        refused = await self._run(self._transact, self._commit, changes, revision, source, position)
        if not refused and any(change.tell == "all" for change in changes):
            self._changed.set()
        return refused

    async def mark(self, source: str, position: int) -> None:
        """As `Store.mark`."""
        await self._run(self._transact, self._mark, source, position)

    async def position(self, source: str) -> int:
        """As `Store.position`."""
        row = await self._one("SELECT position FROM cursors WHERE source = ?", source)
        return row[0] if row else 0

    async def due(self, until: int, most: int) -> list[int]:
        """As `Store.due`."""
        ask = "SELECT imei FROM devices WHERE state = 1 AND deadline <= ? ORDER BY deadline LIMIT ?"
        return [imei for (imei,) in await self._all(ask, until, most)]

    async def scan(self, after: bytes | None, most: int, first: int = 0, last: int = NEVER) -> Page:
        """As `Store.scan`, in the order of the IMEIs."""
        ask = "SELECT imei, record, version FROM devices WHERE imei > ?"
        given: list[int] = [int.from_bytes(after or b"", "big")]
        if (first, last) != (0, NEVER):
            # The plus keeps to the order of the IMEIs: pages must go on where they ended.
            ask += " AND +state IN (1, 2) AND +deadline BETWEEN ? AND ?"
            given += [first, last]
        rows = await self._all(f"{ask} ORDER BY imei LIMIT ?", *given, most)
        devices = [Stored(decode(record), version) for _, record, version in rows]
        return Page(devices, rows[-1][0].to_bytes(8, "big") if len(rows) == most else None)

    async def counts(self) -> Counts:
        """As `Store.counts`."""
        states = dict(await self._all("SELECT state, count(*) FROM devices WHERE deadline IS NOT NULL GROUP BY state"))
        stopped = await self._one("SELECT count(*) FROM devices WHERE state IN (3, 4)")
        queued = await self._one("SELECT count(*) FROM messages WHERE state = 0")
        return Counts(states.get(1, 0), stopped[0], states.get(2, 0), queued[0])

    async def end_of_changes(self) -> Position:
        """As `Store.end_of_changes`."""
        return (await self._run(self._last_change)).to_bytes(_POSITION, "big")

    async def changes(self, after: Position, most: int, wait: float) -> tuple[list[Memory], Position]:
        """As `Store.changes`."""
        if len(after) != _POSITION:
            raise BehindError(f"{self._path.name} gave no such position")
        number = int.from_bytes(after, "big")
        self._changed.clear()
        found = await self._run(self._changes_after, number, most)
        if not found and wait:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait)
            found = await self._run(self._changes_after, number, most)
        if not found:
            return [], after
        return [Memory(*row[1:]) for row in found], found[-1][0].to_bytes(_POSITION, "big")

    async def trim_changes(self, before: Position) -> None:
        """As `Store.trim_changes`."""
        statement = "DELETE FROM changes WHERE n <= ?"
        await self._run(self._transact, self._execute, statement, int.from_bytes(before, "big"))

    async def shifts(self) -> tuple[int, tuple[Shift, ...]]:
        """As `Store.shifts`."""
        return await self._run(self._shifts)

    async def put_shift(self, shift: Shift) -> None:
        """As `Store.put_shift`."""
        statement = (
            "INSERT OR IGNORE INTO shifts (at, id, first, last, days, agent, reason) VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        row = (shift.at, shift.id, shift.first, shift.last, shift.days, shift.agent, shift.reason)
        await self._run(self._transact, self._execute, statement, *row)

    async def remove_shift(self, identity: str) -> None:
        """As `Store.remove_shift`."""
        # Also one that is not there: it must not come into force afterwards.
        statement = "INSERT INTO shifts VALUES (?, 0, 0, 0, 0, '', '', 1) ON CONFLICT (id) DO UPDATE SET removed = 1"
        await self._run(self._transact, self._execute, statement, identity)

    async def setting(self, name: str) -> bytes | None:
        """As `Store.setting`."""
        row = await self._one("SELECT value FROM settings WHERE name = ?", name)
        return row[0] if row else None

    async def set_setting(self, name: str, value: bytes) -> None:
        """As `Store.set_setting`."""
        await self._run(self._transact, self._execute, "INSERT OR REPLACE INTO settings VALUES (?, ?)", name, value)

    async def lease(self, name: str, holder: str, seconds: float) -> bool:
        """As `Store.lease`; kept in memory, as the store is one process's."""
        await self._run(self._ready)
        present, until = self._leases.get(name, ("", 0.0))
        now = time.monotonic()
        if present != holder and now < until:
            return False
        self._leases[name] = (holder, now + seconds)
        return True

    async def publish(self, head: Head) -> None:
        """As `Store.publish`."""
        await self._run(self._transact, self._execute, "INSERT OR REPLACE INTO heads VALUES (?, ?, ?)", *head)

    async def heads(self) -> list[Head]:
        """As `Store.heads`."""
        return [Head(*row) for row in await self._all("SELECT node, n, hash FROM heads ORDER BY node")]

    async def queued(self, most: int) -> list[Message]:
        """As `Store.queued`."""
        ask = "SELECT kind, imei, imsi, mark, at, msisdn, apart FROM messages WHERE state = 0 ORDER BY at LIMIT ?"
        rows = await self._all(ask, most)
        return [Message(_KINDS[kind], *rest) for kind, *rest in rows]

    async def problems(self) -> list[str]:
        """As `Store.problems`: SQLite's own check of the whole file, and every record read."""
        return await self._run(self._problems)

    async def backup(self, path: Path) -> None:
        """Copies the store, as of one moment, to a file that is written whole or not at all. Raises StoreError."""
        await self._run(self._backup, path)

    # Everything below runs in the store's thread.

    async def _run(self, work: Callable[..., _Result], *given: Any) -> _Result:
        def guarded() -> _Result:
            try:
                return work(*given)
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"{self._path.name}: {error}") from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    async def _all(self, ask: str, *given: Any) -> list[Any]:
        return await self._run(lambda: self._ready().execute(ask, given).fetchall())

    async def _one(self, ask: str, *given: Any) -> Any:
        return await self._run(lambda: self._ready().execute(ask, given).fetchone())

    def _ready(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self._path.name} is not open")
        return self._connection

    def _transact(self, work: Callable[..., _Result], *given: Any) -> _Result:
        """Does work in one transaction."""
        connection = self._ready()
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection, *given)
            connection.execute("COMMIT")
        except BaseException:
            # SQLite may have rolled back by itself: a full disk does that.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def _execute(self, connection: sqlite3.Connection, statement: str, *given: Any) -> None:
        connection.execute(statement, given)

    def _open(self) -> None:
        self._close()
        self._lock = os.open(self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._close()
            raise StoreError(f"{self._path.name}: another node has it") from error
        try:
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._connection = connection
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA cache_size = -262144")
            connection.execute("PRAGMA wal_autocheckpoint = 50000")
            self._migrate(connection)
        except BaseException:
            self._close()
            raise

    def _migrate(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(_MIGRATIONS):
            raise StoreVersionError(
                f"{self._path.name} has layout {version}; this version understands {len(_MIGRATIONS)} and those before"
            )
        for number, script in enumerate(_MIGRATIONS[version:], version + 1):
            # One transaction with the number: executescript would end one that is begun here.
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in script.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        # Of each tree the root and the way to its last entry: a look at everything is `problems`, and takes minutes.
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchone()
        connection.execute("SELECT record FROM devices ORDER BY imei DESC LIMIT 1").fetchone()

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _load(self, imeis: list[int]) -> dict[int, Stored]:
        connection = self._ready()
        found: dict[int, Stored] = {}
        for first in range(0, len(imeis), _CHUNK):
            chunk = imeis[first : first + _CHUNK]
            marks = ",".join("?" * len(chunk))
            ask = f"SELECT imei, record, version FROM devices WHERE imei IN ({marks})"
            for imei, record, version in connection.execute(ask, chunk):
                found[imei] = Stored(decode(record), version)
        return found

    def _commit(
        self,
        connection: sqlite3.Connection,
        changes: Sequence[Change],
        revision: int,
        source: str,
        position: int,
    ) -> frozenset[int]:
        stale = self._stale(connection, changes, revision)
        if stale:
            return stale
        connection.executemany(
            "INSERT INTO devices VALUES (?, ?, ?, ?, ?) ON CONFLICT (imei) DO UPDATE SET version = excluded.version, "
            "state = excluded.state, deadline = excluded.deadline, record = excluded.record",
            (_row(change) for change in changes),
        )
        for apart, messages in _by_interval(changes):
            # A key stays for ever, so nothing goes out twice; where it may come again, its time is moved on.
            again = (
                f"DO UPDATE SET at = excluded.at, msisdn = excluded.msisdn, state = 0 WHERE excluded.at >= messages.at + {apart}"
            )
            connection.executemany(
                f"INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, {apart}, 0) "
                f"ON CONFLICT (imei, imsi, kind, mark) {again if apart else 'DO NOTHING'}",
                messages,
            )
        connection.executemany(
            "UPDATE messages SET state = 1 WHERE kind = ? AND imei = ? AND imsi = ? AND mark = ? AND state = 0",
            ((_KINDS.index(kind), *rest) for change in changes for kind, *rest in change.withdrawn),
        )
        connection.executemany(
            "INSERT INTO changes (imei, start, deadline) VALUES (?, ?, ?)",
            (memory(change.device, change.timer) for change in changes if change.tell == "all"),
        )
        if source:
            self._mark(connection, source, position)
        return frozenset()

    def _stale(self, connection: sqlite3.Connection, changes: Sequence[Change], revision: int) -> frozenset[int]:
        if revision != connection.execute("SELECT count(*) + coalesce(sum(removed), 0) FROM shifts").fetchone()[0]:
            return frozenset(change.device.imei for change in changes)
        versions: dict[int, int] = {}
        for first in range(0, len(changes), _CHUNK):
            chunk = [change.device.imei for change in changes[first : first + _CHUNK]]
            marks = ",".join("?" * len(chunk))
            versions.update(connection.execute(f"SELECT imei, version FROM devices WHERE imei IN ({marks})", chunk))
        stale = any(versions.get(change.device.imei, 0) != change.version for change in changes)
        return frozenset(change.device.imei for change in changes) if stale else frozenset()

    def _mark(self, connection: sqlite3.Connection, source: str, position: int) -> None:
        connection.execute(
            "INSERT INTO cursors VALUES (?, ?) "
            "ON CONFLICT (source) DO UPDATE SET position = max(position, excluded.position)",
            (source, position),
        )

    def _last_change(self) -> int:
        row = self._ready().execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
        return row[0] if row else 0

    def _changes_after(self, after: int, most: int) -> list[Any]:
        connection = self._ready()
        # Nobody but this node trims, and only up to where it has been: a gap means another file, or another node's.
        if after > self._last_change():
            raise BehindError(f"{self._path.name} has no change {after}: it is not the file of before")
        first = connection.execute("SELECT min(n) FROM changes").fetchone()[0]
        if (first if first is not None else self._last_change() + 1) > after + 1:
            raise BehindError(f"{self._path.name} no longer has the changes after {after}")
        ask = "SELECT n, imei, start, deadline FROM changes WHERE n > ? ORDER BY n LIMIT ?"
        return connection.execute(ask, (after, most)).fetchall()

    def _shifts(self) -> tuple[int, tuple[Shift, ...]]:
        rows = (
            self._ready()
            .execute("SELECT at, id, first, last, days, agent, reason, removed FROM shifts ORDER BY at, id")
            .fetchall()
        )
        # Rises with every shift that is put and with every one that is taken away.
        revision = len(rows) + sum(row[-1] for row in rows)
        return revision, tuple(Shift(*row[:-1]) for row in rows if not row[-1])

    def _problems(self) -> list[str]:
        connection = self._ready()
        found = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
        for imei, record in connection.execute("SELECT imei, record FROM devices"):
            try:
                sound = decode(record).imei == imei
            except StoreError:
                sound = False
            if not sound:
                found.append(f"the record of {imei:014} cannot be read")
        return found

    def _backup(self, path: Path) -> None:
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(beside)) as copy:
                # From a connection of its own: the copy is of one moment, and commits go on meanwhile.
                with contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as source:
                    source.execute("BEGIN")
                    source.backup(copy, pages=2000, sleep=0.001)
                copy.execute("PRAGMA journal_mode = DELETE")
            descriptor = os.open(beside, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def _row(change: Change) -> tuple[int, int, int, int | None, bytes]:
    timer = change.timer
    state = _ENDED if timer is None else _STATES[timer.state]
    deadline = None if timer is None else timer.deadline
    return change.device.imei, change.version + 1, state, deadline, encode(change.device)


def _by_interval(changes: Iterable[Change]) -> Iterable[tuple[int, list[tuple[Any, ...]]]]:
    """Rows of messages by their `apart`."""
    rows: dict[int, list[tuple[Any, ...]]] = {}
    for change in changes:
        for message in change.messages:
            row = (_KINDS.index(message.kind), message.imei, message.imsi, message.mark, message.at, message.msisdn)
            rows.setdefault(message.apart, []).append(row)
    return rows.items()
