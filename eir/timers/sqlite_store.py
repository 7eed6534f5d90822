"""The store of one node, in an SQLite file beside it: the default, that nobody has to install or to look after.

One thread owns the connection that writes; SQLite lets go of the interpreter while it works, so the event loop goes on.
A commit is in the write-ahead log, and the log on the disk, before `commit` returns. Bringing the log into the file is
done by another thread beside the commits, so that none of them waits for it. `sqlite_file` has schema and soundness.
"""

from __future__ import annotations

import asyncio
import sqlite3
import struct
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec import msgpack

from eir.audit_chain import Head
from eir.timers.grey import NEVER, Shift
from eir.timers.queue import REPORTS_DUE
from eir.timers.sqlite_file import STATES, WAITING, StoreFile
from eir.timers.sqlite_queue import KIND, KINDS, SqliteQueue
from eir.timers.store import (
    BehindError,
    Change,
    Counts,
    Memory,
    Message,
    MessageKey,
    Page,
    Position,
    Stored,
    StoreError,
    decode,
    encode,
    memory,
    state,
)

_COUNTED: Final[dict[int | None, str]] = {1: "running", 2: "stopped", 3: "stopped", 4: "expired"}
"""Under what a device is counted, by its state."""
_RUNNING: Final = STATES["running"]
_EXPIRED: Final = STATES["expired"]
_POSITION: Final = struct.Struct(">QQ")
"""Whose it is, and the number of the last change."""
_NEXT: Final = struct.Struct(">BQQ")
"""Where a scan goes on: state and deadline of the last device (0 without a range), and its number."""
_LOGGED: Final = 50_000
"""Devices after which the log is brought into the file."""
_TRIMMED: Final = 20_000
"""Changes that are forgotten in one transaction."""

_LOAD: Final = "SELECT imei, version, record FROM json_each(?) JOIN devices ON imei = value"
_HAVE: Final = "SELECT imei, version, state, n FROM json_each(?) JOIN devices ON imei = value"
_PUT_DEVICE: Final = "INSERT INTO devices (imei, version, state, deadline, record, n) VALUES (?, ?, ?, ?, ?, ?)"
_CHANGE_DEVICE: Final = "UPDATE devices SET version = ?2, state = ?3, deadline = ?4, record = ?5 WHERE n = ?6"
_PUT_MESSAGE: Final = """INSERT INTO messages (device, kind, imsi, mark, state, at, due, apart, msisdn)
    VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""
_LAST_MESSAGE: Final = "SELECT state, at FROM messages WHERE device = ? AND kind = ? AND imsi = ? AND mark = ?"
_PUT_AGAIN: Final = """UPDATE messages SET state = 1, at = ?, due = ?, apart = ?, msisdn = ?, progress = NULL
    WHERE device = ? AND kind = ? AND imsi = ? AND mark = ?"""
_WITHDRAW: Final = """UPDATE messages SET state = 2
    WHERE device = ? AND kind = ? AND imsi = ? AND mark = ? AND state = 1"""
_QUEUED: Final = """SELECT kind, imei, imsi, mark, at, msisdn, apart FROM messages CROSS JOIN devices ON n = device
    WHERE messages.state = 1 ORDER BY due LIMIT ?"""
_PUT_CHANGE: Final = "INSERT INTO changes (imei, start, deadline) VALUES (?, ?, ?)"
_PUT_CURSOR: Final = """INSERT INTO cursors VALUES (?, ?)
    ON CONFLICT (source) DO UPDATE SET position = max(position, excluded.position)"""
_SCAN: Final = "SELECT version, record, n FROM devices WHERE n > ? ORDER BY n LIMIT ?"
# In two parts: of a comparison of pairs SQLite uses the first in the index only, and reads a deadline anew each page.
_SCAN_RANGE: Final = """SELECT version, record, n, deadline FROM devices
    WHERE state = ?1 AND deadline = ?3 AND n > ?4 AND deadline <= ?2
    UNION ALL SELECT version, record, n, deadline FROM devices WHERE state = ?1 AND deadline > ?3 AND deadline <= ?2
    ORDER BY deadline, n LIMIT ?5"""

_T = TypeVar("_T")
_shift_encoder = msgpack.Encoder()
_shift_decoder = msgpack.Decoder(Shift)


class SqliteStore:
    """A store in a file, for the one node that has it open. `eir.timers.store.Store` says what the methods do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: StoreFile | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._leases: dict[str, tuple[str, float]] = {}
        """Holders, and until when. Only this process can ask, so they need not outlive it."""
        self._logged = 0
        self._log_pass: Future[None] | None = None
        self.queue = SqliteQueue(self)

    # --- coming and going --------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Opens the file, or makes it. Raises StoreError, also where another process has it, and StoreVersionError."""
        if self._file is not None:
            raise StoreError(f"{self._path}: is open already")
        self._writer = ThreadPoolExecutor(1, "store")
        # Copies and checks take long, and the log must not wait for them.
        self._aside = ThreadPoolExecutor(3, "store-aside")
        try:
            loop = asyncio.get_running_loop()
            self._file = await loop.run_in_executor(self._writer, StoreFile, self._path)
            self._connection = self._file.writer
            self._tender = self._file.tender
        except BaseException:
            self._writer.shutdown(wait=False)
            self._aside.shutdown(wait=False)
            raise

    async def close(self) -> None:
        """Waits for what is being written, ends what takes long, and closes the file."""
        file, self._file = self._file, None
        if file is None:
            return
        self._wake()

        def end() -> None:
            self._writer.shutdown()
            file.interrupt()
            self._aside.shutdown()
            file.close()

        await asyncio.get_running_loop().run_in_executor(None, end)

    async def backup(self, path: Path) -> None:
        """Copies the store as it is now to `path`, whole or not at all; what was there is replaced. Raises StoreError.

        Nothing waits for it. The copy can be put in the store's place when the node is stopped: its cursors say from
        where on journal and audit trail are to be read again.
        """
        file = self._opened()
        await self.run(lambda: file.backup(path), self._aside)

    async def problems(self) -> list[str]:
        """What is wrong with file, records and counts. Nothing waits for it; 5 million devices take half a minute."""
        return await self.run(self._opened().problems, self._aside)

    # --- devices -----------------------------------------------------------------------------------------------------

    async def load(self, imeis: Collection[int]) -> dict[int, Stored]:
        """The devices that the store knows, of these. Raises StoreError."""
        rows = await self._fetch(_LOAD, _list(imeis))
        return {imei: Stored(decode(record), version) for imei, version, record in rows}

    async def commit(
        self, changes: Sequence[Change], revision: int, source: str = "", position: int = 0
    ) -> frozenset[int]:
        """Writes changes and how far `source` is in; returns the IMEIs of those that were refused.

        Raises StoreError, and ValueError where a device has two changes, or messages that are another's.
        """
        try:
            return await self.run(lambda: self._commit(changes, revision, source, position))
        finally:
            # Also where this is cancelled: who waits asks the same thread, and so after what it is writing.
            self._wake()

    async def mark(self, source: str, position: int) -> None:
        """Says that everything of `source` up to a position is in. Raises StoreError."""
        await self._write(_PUT_CURSOR, source, position)

    async def position(self, source: str) -> int:
        """Up to where everything of `source` is in. Raises StoreError."""
        rows = await self._fetch("SELECT position FROM cursors WHERE source = ?", source)
        return int(rows[0][0]) if rows else 0

    async def due(self, until: int, most: int) -> list[int]:
        """IMEIs of running timers with a deadline up to `until`, the earliest first. Raises StoreError."""
        query = "SELECT imei FROM devices WHERE state = ? AND deadline <= ? ORDER BY deadline LIMIT ?"
        return [imei for (imei,) in await self._fetch(query, _RUNNING, until, max(most, 0))]

    async def scan(self, after: bytes | None, most: int, first: int = 0, last: int = NEVER) -> Page:
        """Devices in the order in which they came, or with a range of state and deadline. Raises StoreError."""
        whole = first <= 0 and last >= NEVER
        try:
            number, deadline, last_one = _NEXT.unpack(after) if after else (0 if whole else _RUNNING, first, 0)
        except struct.error as error:
            raise StoreError("a scan goes on where no scan has been") from error
        most = max(most, 1)
        if whole:
            rows = await self._fetch(_SCAN, last_one, most)
        else:
            rows = await self._fetch(_SCAN_RANGE, number, last, deadline, last_one, most)
        devices = [Stored(decode(row[1]), row[0]) for row in rows]
        if len(rows) == most:
            return Page(devices, _NEXT.pack(number, 0 if whole else rows[-1][3], rows[-1][2]))
        if number == _RUNNING:
            return Page(devices, _NEXT.pack(_EXPIRED, first, 0))
        return Page(devices, None)

    async def counts(self) -> Counts:
        """How many there are; they are kept up to date by every commit. Raises StoreError."""
        numbers = dict(await self._fetch("SELECT name, n FROM numbers"))
        return Counts(*(numbers[name] for name in Counts._fields))

    async def queued(self, most: int) -> list[Message]:
        """The oldest messages that wait. Raises StoreError."""
        return [Message(KINDS[kind], *rest) for kind, *rest in await self._fetch(_QUEUED, max(most, 0))]

    # --- the stream of changes ---------------------------------------------------------------------------------------

    async def end_of_changes(self) -> Position:
        """Where the stream of changes ends now. Raises StoreError."""
        return await self.run(lambda: _POSITION.pack(self._number("store"), self._last_change()))

    async def changes(self, after: Position, most: int, wait: float) -> tuple[list[Memory], Position]:
        """The changes after a position; those of this node alone, and only where all are told, for it knows the others.

        Raises BehindError and StoreError.
        """
        until = time.monotonic() + wait
        while True:
            # Before the question: what is committed after it must not be slept through.
            woken = asyncio.get_running_loop().create_future()
            self._waiting.add(woken)
            try:
                found, end = await self.run(lambda: self._changes(after, max(most, 0)))
                left = until - time.monotonic()
                if found or left <= 0:
                    return found, end
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await woken
            finally:
                self._waiting.discard(woken)

    async def trim_changes(self, before: Position) -> None:
        """Forgets changes up to and with a position, if it is this store's. Raises StoreError, with some forgotten."""

        def trim(until: int) -> bool:
            with self.transaction() as connection:
                end = min(until, self._last_change(), self._number("trimmed") + _TRIMMED)
                if end <= self._number("trimmed"):
                    return False
                connection.execute("DELETE FROM changes WHERE n <= ?", (end,))
                connection.execute("UPDATE numbers SET n = ? WHERE name = 'trimmed'", (end,))
            return end < until

        try:
            until = await self.run(lambda: self._change_number(before))
        except BehindError:
            return
        while await self.run(lambda: trim(until)):
            pass

    # --- shifts, settings, leases, heads -----------------------------------------------------------------------------

    async def shifts(self) -> tuple[int, tuple[Shift, ...]]:
        """(revision, shifts in force, sorted). Raises StoreError."""

        def read() -> tuple[int, list[tuple[bytes]]]:
            query = "SELECT record FROM shifts WHERE record IS NOT NULL"
            return self._number("revision"), self._connection.execute(query).fetchall()

        revision, records = await self.run(read)
        try:
            return revision, tuple(sorted(_shift_decoder.decode(record) for (record,) in records))
        except ValueError as error:
            raise StoreError(f"a shift cannot be read: {error}") from error

    async def put_shift(self, shift: Shift) -> None:
        """Adds a shift, once. Raises StoreError."""
        record = _shift_encoder.encode(shift)
        await self.run(lambda: self._shift("INSERT OR IGNORE INTO shifts VALUES (?, ?)", shift.id, record))

    async def remove_shift(self, identity: str) -> None:
        """Takes a shift away, for good: its row stays, without a record. Raises StoreError."""

        def remove() -> None:
            self._shift("UPDATE shifts SET record = NULL WHERE id = ? AND record IS NOT NULL", identity)
            with self.transaction() as connection:
                connection.execute("INSERT OR IGNORE INTO shifts VALUES (?, NULL)", (identity,))

        await self.run(remove)

    async def setting(self, name: str) -> bytes | None:
        """A value that the control plane keeps. Raises StoreError."""
        rows = await self._fetch("SELECT value FROM settings WHERE name = ?", name)
        return rows[0][0] if rows else None

    async def set_setting(self, name: str, value: bytes) -> None:
        """Keeps a value. Raises StoreError."""
        await self._write(
            "INSERT INTO settings VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, value
        )

    async def lease(self, name: str, holder: str, seconds: float) -> bool:
        """Whether `holder` may do a work, for so long from now. Raises StoreError."""
        self._opened()
        now = time.monotonic()
        other, until = self._leases.get(name, (holder, now))
        if other != holder and now < until:
            return False
        self._leases[name] = holder, now + seconds
        return True

    async def publish(self, head: Head) -> None:
        """Keeps where the audit trail stands. Raises StoreError."""
        put = "INSERT INTO heads VALUES (?, ?, ?) ON CONFLICT (node) DO UPDATE SET n = excluded.n, hash = excluded.hash"
        await self._write(put, *head)

    async def heads(self) -> list[Head]:
        """Where the audit trail stands, and those of nodes that had the file before. Raises StoreError."""
        return [Head(*row) for row in await self._fetch("SELECT node, n, hash FROM heads")]

    # --- on the loop -------------------------------------------------------------------------------------------------

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection that writes: for `queue`, in a work that `run` does."""
        return self._connection

    def _opened(self) -> StoreFile:
        if self._file is None:
            raise StoreError(f"{self._path}: is not open")
        return self._file

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def run(self, work: Callable[[], _T], where: ThreadPoolExecutor | None = None) -> _T:
        """Does a work in a thread, the writer's if none is given. What SQLite raises becomes StoreError."""
        file = self._opened()

        def guarded() -> _T:
            try:
                file.check_there()
                return work()
            except sqlite3.Error as error:
                raise file.failed(error) from error

        return await asyncio.get_running_loop().run_in_executor(where or self._writer, guarded)

    async def _fetch(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return await self.run(lambda: self._connection.execute(query, values).fetchall())

    async def _write(self, statement: str, *values: object) -> None:
        def write() -> None:
            with self.transaction() as connection:
                connection.execute(statement, values)

        await self.run(write)

    # --- in the writer's thread --------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written in it, or nothing."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            # Of a full disk SQLite rolls back by itself.
            with suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                # A log that is brought into the file gives room on the disk.
                self._logged = _LOGGED
                self._tend_log()
            raise

    def _number(self, name: str) -> int:
        return int(self._connection.execute("SELECT n FROM numbers WHERE name = ?", (name,)).fetchone()[0])

    def _last_change(self) -> int:
        found = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
        return int(found[0]) if found else 0

    def _change_number(self, position: Position) -> int:
        """The number of the change at a position. Raises BehindError."""
        if len(position) == _POSITION.size:
            store, number = _POSITION.unpack(position)
            if store == self._number("store") and self._number("trimmed") <= number <= self._last_change():
                return int(number)
        raise BehindError(f"{self._path}: the changes after this position are not all there")

    def _changes(self, after: Position, most: int) -> tuple[list[Memory], Position]:
        number = self._change_number(after)
        query = "SELECT imei, start, deadline, n FROM changes WHERE n > ? ORDER BY n LIMIT ?"
        rows = self._connection.execute(query, (number, most)).fetchall()
        end = rows[-1][3] if rows else number
        return [Memory(*row[:3]) for row in rows], _POSITION.pack(self._number("store"), end)

    def _shift(self, statement: str, *values: object) -> None:
        """Changes a shift; the revision rises if that changes something."""
        with self.transaction() as connection:
            if connection.execute(statement, values).rowcount > 0:
                connection.execute("UPDATE numbers SET n = n + 1 WHERE name = 'revision'")

    def _commit(self, changes: Sequence[Change], revision: int, source: str, position: int) -> frozenset[int]:
        by_imei = {change.device.imei: change for change in changes}
        if len(by_imei) != len(changes):
            raise ValueError("a device has two changes in one commit")
        with self.transaction() as connection:
            if changes and revision != self._number("revision"):
                return frozenset(by_imei)
            have = {imei: row for imei, *row in connection.execute(_HAVE, (_list(by_imei),))}
            nothing = (0, None, 0)
            refused = frozenset(
                imei for imei, change in by_imei.items() if have.get(imei, nothing)[0] != change.version
            )
            # In the order of the tree that they go into.
            taken = [by_imei[imei] for imei in sorted(by_imei.keys() - refused)]
            (last,) = connection.execute("SELECT ifnull(max(n), 0) FROM devices").fetchone()
            counted: Counter[str | None] = Counter()
            new, changed, numbers = [], [], []
            for change in taken:
                _, before, number = have.get(change.device.imei, nothing)
                now = STATES[state(change.timer)]
                if now != before:
                    counted[_COUNTED.get(now)] += 1
                    counted[_COUNTED.get(before)] -= 1
                until = None if change.timer is None else change.timer.deadline
                row = (change.device.imei, change.version + 1, now, until, encode(change.device))
                if number:
                    changed.append((*row, number))
                else:
                    number = last = last + 1
                    new.append((*row, number))
                numbers.append(number)
            connection.executemany(_PUT_DEVICE, new)
            connection.executemany(_CHANGE_DEVICE, changed)
            counted["queued"] = self._put_messages(connection, taken, numbers)
            told = (memory(change.device, change.timer) for change in taken if change.tell == "all")
            connection.executemany(_PUT_CHANGE, told)
            differences = ((number, name) for name, number in counted.items() if name and number)
            connection.executemany("UPDATE numbers SET n = n + ? WHERE name = ?", differences)
            if source and not refused:
                connection.execute(_PUT_CURSOR, (source, position))
        self.wrote(len(taken))
        return refused

    def wrote(self, rows: int) -> None:
        """Says that so much is in the log, which is brought into the file from time to time."""
        self._logged += rows
        self._tend_log()

    def _put_messages(self, connection: sqlite3.Connection, changes: list[Change], numbers: list[int]) -> int:
        """Puts and withdraws the messages of changes to the devices with these numbers; by how many more wait then."""
        once: list[tuple[object, ...]] = []
        withdrawn: list[tuple[object, ...]] = []
        more = 0
        for change, number in zip(changes, numbers, strict=True):
            imei = change.device.imei
            for message in change.messages:
                key = _key(message.key, imei, number)
                if not message.apart:
                    due = message.at + REPORTS_DUE * (message.kind == "report-expired")
                    once.append((*key, message.at, due, message.apart, message.msisdn))
                    continue
                last = connection.execute(_LAST_MESSAGE, key).fetchone()
                if last is None:
                    connection.execute(_PUT_MESSAGE, (*key, message.at, message.at, message.apart, message.msisdn))
                    more += 1
                elif message.at >= last[1] + message.apart:
                    connection.execute(_PUT_AGAIN, (message.at, message.at, message.apart, message.msisdn, *key))
                    more += last[0] != WAITING
            withdrawn += [_key(key, imei, number) for key in change.withdrawn]
        more += max(connection.executemany(_PUT_MESSAGE, once).rowcount, 0)
        return more - max(connection.executemany(_WITHDRAW, withdrawn).rowcount, 0)

    def _tend_log(self) -> None:
        """Has the log brought into the file when enough is in it, beside the commits, and the rest here.

        Only a log that is in the file as a whole is begun anew, and under commits without end another thread never
        gets to the end. What it leaves is little.
        """
        if self._log_pass is None:
            if self._logged >= _LOGGED:
                self._logged = 0
                self._log_pass = self._aside.submit(_log_into_file, self._tender)
        elif self._log_pass.done():
            self._log_pass = None
            _log_into_file(self._connection)


def _log_into_file(connection: sqlite3.Connection) -> None:
    """Brings the log into the file, as far as nobody reads what is older."""
    # An error is not this commit's; the log grows then, and when the disk is full a commit fails.
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def _key(key: MessageKey, of: int, number: int) -> tuple[int, int, str, int]:
    """A message's key as the table has it: with the number of the device instead of its IMEI. Raises ValueError."""
    kind, imei, imsi, mark = key
    if imei != of:
        raise ValueError("a change has a message that is another device's")
    return number, KIND[kind], imsi, mark


def _list(imeis: Collection[int]) -> str:
    """IMEIs as SQLite takes them, in the order of the tree."""
    return f"[{','.join(map(str, sorted(imeis)))}]"
