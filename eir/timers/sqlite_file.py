"""The file of an SQLite store: its lock, its schema and the migrations to it, opening, checking, copying.

`sqlite_store` puts devices into it and takes them out; this knows how there comes to be a file that can be trusted.
The lock is a file of its own, with flock: it goes with its process, however that ends, it can name who holds it, and
other than SQLite's exclusive mode it lets `sqlite3 -readonly` look into the store of a running node.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from eir.timers.store import StoreError, StoreVersionError, decode

APPLICATION: Final = 0x4549_5254
"""`EIRT`: whose file it is, in its header."""
STATES: Final = {None: None, "running": 1, "frozen": 2, "lifted": 3, "expired": 4}
"""States of timers, as the column has them."""
WAITING: Final = 1
WITHDRAWN: Final = 2
SENDING: Final = 3
OVER: Final = 4
SETTLED: Final = 5
"""States of messages, as the column has them; settled: over, and nothing more is known of it."""

_PAGE: Final = 4096
"""Octets. What is changed here and there costs a page in the log each time, so a page must not be large."""
_CACHE_KIB: Final = 64 * 1024
_SHORT_LOG: Final = 64 << 20
"""Octets that the log keeps when it begins anew, so that a burst does not occupy the disk for ever."""
_STEP: Final = 4096
"""Pages that a copy takes in one go."""
_SHOWN: Final = 20
"""Problems of one sort that are told of one by one."""
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

# What is in a step is final: files have it. A change of the schema is one more step, and a line in docs/formats.md.
_MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    # New devices, their deadlines and their messages come to stand at the ends of their trees, because `n` rises; only
    # one small tree is in the order of IMEIs, which come from anywhere.
    (
        """CREATE TABLE devices (
            n INTEGER PRIMARY KEY, imei INTEGER NOT NULL UNIQUE, version INTEGER NOT NULL,
            state INTEGER, deadline INTEGER, record BLOB NOT NULL)""",
        "CREATE INDEX deadlines ON devices (state, deadline) WHERE deadline IS NOT NULL",
        """CREATE TABLE messages (
            device INTEGER, kind INTEGER, imsi TEXT, mark INTEGER,
            state INTEGER NOT NULL, at INTEGER NOT NULL, apart INTEGER NOT NULL, msisdn TEXT NOT NULL,
            PRIMARY KEY (device, kind, imsi, mark)) WITHOUT ROWID""",
        "CREATE INDEX waiting ON messages (at) WHERE state = 1",
        """CREATE TABLE changes (
            n INTEGER PRIMARY KEY AUTOINCREMENT, imei INTEGER NOT NULL,
            start INTEGER NOT NULL, deadline INTEGER NOT NULL)""",
        "CREATE TABLE cursors (source TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE numbers (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID",
        "INSERT INTO numbers VALUES ('store', 0), ('trimmed', 0)",
    ),
    (
        "CREATE TABLE shifts (id TEXT PRIMARY KEY, record BLOB) WITHOUT ROWID",
        "CREATE TABLE heads (node TEXT PRIMARY KEY, n INTEGER NOT NULL, hash TEXT NOT NULL) WITHOUT ROWID",
        """INSERT INTO numbers
            SELECT 'running', count(*) FROM devices WHERE state = 1 UNION ALL
            SELECT 'stopped', count(*) FROM devices WHERE state IN (2, 3) UNION ALL
            SELECT 'expired', count(*) FROM devices WHERE state = 4 UNION ALL
            SELECT 'queued', count(*) FROM messages WHERE state = 1 UNION ALL
            SELECT 'revision', 0""",
    ),
    # What sends messages. `due` is when one is to be looked at; reports (kind 3) stand behind all others.
    (
        "ALTER TABLE messages ADD COLUMN due INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE messages ADD COLUMN progress BLOB",
        "UPDATE messages SET due = at + (kind = 3) * (1 << 40) WHERE state = 1",
        "DROP INDEX waiting",
        "CREATE INDEX waiting ON messages (due) WHERE state = 1",
        "CREATE INDEX sending ON messages (due) WHERE state = 3",
        "CREATE INDEX over ON messages (due) WHERE state = 4",
        """CREATE TABLE receipts (
            n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, at INTEGER NOT NULL,
            device INTEGER NOT NULL, kind INTEGER NOT NULL, imsi TEXT NOT NULL, mark INTEGER NOT NULL)""",
        "CREATE TABLE told (day INTEGER, imsi TEXT, n INTEGER NOT NULL, PRIMARY KEY (day, imsi)) WITHOUT ROWID",
    ),
)
VERSION: Final = len(_MIGRATIONS)

_SMALL: Final = ("cursors", "settings", "numbers", "shifts", "heads")
"""Tables that are so small that opening looks through them."""


class StoreFile:
    """An open store file, locked for this process.

    `writer` is the connection that writes, `tender` one that brings the log into the file; each is for one thread at a
    time.
    """

    def __init__(self, path: Path) -> None:
        """Locks, checks, makes or migrates the file. Raises StoreError and StoreVersionError."""
        self.path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._lock = _locked(path)
        self._connections: list[sqlite3.Connection] = []
        self._looking: list[sqlite3.Connection] = []
        try:
            try:
                self._sized()
                self.writer = self._connect()
                self._prepare()
                self.tender = self._connect()
                self._here = self._inodes()
            except sqlite3.Error as error:
                raise self.failed(error) from error
            except OSError as error:
                raise StoreError(f"{path}: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes what is open, in whatever state, and lets go of the lock. Must not race other uses."""
        for connection in self._connections:
            with suppress(sqlite3.Error):
                connection.close()
        os.close(self._lock)

    def _connect(self) -> sqlite3.Connection:
        """One more connection; `close` closes it."""
        # Without memory maps: an error of the disk would be a signal that ends the node, and not an error here.
        connection = sqlite3.connect(self.path, timeout=5, isolation_level=None, check_same_thread=False)
        self._connections.append(connection)
        for pragma in (
            f"cache_size = -{_CACHE_KIB}",
            "mmap_size = 0",
            "synchronous = FULL",
            "foreign_keys = OFF",
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {_SHORT_LOG}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def interrupt(self) -> None:
        """Ends copies and checks, in other threads."""
        for connection in list(self._looking):
            # It may have come to its end by itself.
            with suppress(sqlite3.Error):
                connection.interrupt()

    def check_there(self) -> None:
        """Raises StoreError where the file was moved, removed or replaced: SQLite would write into what has no name."""
        try:
            if self._inodes() == self._here:
                return
            what = "another file has taken its place: start the node anew, or bring it back"
        except OSError as error:
            what = f"{error.strerror}: bring it back with its -wal, and start the node anew if that cannot be"
        raise StoreError(f"{self.path}: {what}")

    def failed(self, error: sqlite3.Error) -> StoreError:
        """What an error of SQLite is to those who use the store."""
        # Not every error has a code: what is wrong with the use of the module has none.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            return StoreError(
                f"{self.path}: damaged ({error}): stop the node and put a backup in its place, or move it away "
                f"with its -wal and -shm; what is missing comes from the journals and audit trails that are still there"
            )
        return StoreError(f"{self.path}: {error}")

    def backup(self, path: Path) -> None:
        """A copy as of now, whole or not at all; the writer goes on. Raises StoreError and sqlite3.Error.

        The copy is another store: positions in the stream of changes of this one say nothing about it.
        """
        if path.resolve() == self.path.resolve():
            raise StoreError(f"{path}: is the store itself")
        new = path.with_name(f"{path.name}.new")
        try:
            new.unlink(missing_ok=True)
            os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
            with self._look() as source, closing(sqlite3.connect(new, isolation_level=None)) as target:
                source.backup(target, pages=_STEP, sleep=0)
                target.execute("PRAGMA journal_mode = DELETE")
                target.execute("UPDATE numbers SET n = ? WHERE name = 'store'", (secrets.randbits(63),))
            os.replace(new, path)
            _sync(path.parent)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        finally:
            with suppress(OSError):
                new.unlink(missing_ok=True)

    def problems(self) -> list[str]:
        """What is wrong, by a look at everything as of now; the writer goes on. Raises sqlite3.Error."""
        try:
            with self._look() as connection:
                found = [text for (text,) in connection.execute(f"PRAGMA integrity_check({_SHOWN})") if text != "ok"]
                # Behind a damaged tree there is nothing to be learned from what it holds.
                return found or [*_wrong_records(connection), *_wrong_numbers(connection)]
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                raise
            return [str(error)]

    @contextmanager
    def _look(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees the store as it is now, whatever is written meanwhile."""
        connection = self._connect()
        self._looking.append(connection)
        try:
            connection.execute("BEGIN")
            # Only what is read begins to look; a copy of what goes on changing would begin anew with every change.
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            yield connection
        finally:
            self._looking.remove(connection)
            self._connections.remove(connection)
            connection.close()

    def _inodes(self) -> list[tuple[int, int]]:
        return [(found.st_dev, found.st_ino) for found in (os.stat(self.path), os.stat(self._log))]

    def _sized(self) -> None:
        """Makes a file with the right rights, or sees that one is not cut. Raises StoreError and OSError."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            head, size = os.pread(descriptor, 100, 0), os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if not size:
            _sync(self.path.parent)
            return
        pages, page = int.from_bytes(head[28:32], "big"), int.from_bytes(head[16:18], "big")
        # With a log behind it the file itself may be of any size; and the number of pages counts if this says so.
        logged = self._log.exists() and self._log.stat().st_size
        if not logged and head[24:28] == head[92:96] and pages * (page if page > 1 else 1 << 16) > size:
            raise self.failed(_damaged("it was cut"))

    def _prepare(self) -> None:
        """Brings the open file up to this version, and looks at what is quickly looked at."""
        writer = self.writer
        (application,), (version,) = (
            writer.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        (objects,) = writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if objects and application != APPLICATION:
            raise StoreError(f"{self.path}: is a database, but not a store of timers")
        if version > VERSION:
            raise StoreVersionError(
                f"{self.path}: has version {version}; this program understands versions up to {VERSION}. "
                f"Use the program that made it, or a backup from before"
            )
        if not objects:
            writer.execute(f"PRAGMA page_size = {_PAGE}")
            writer.execute(f"PRAGMA application_id = {APPLICATION}")
        elif version < VERSION:
            # Going back to the program from before must remain possible.
            self.backup(self.path.with_name(f"{self.path.name}.version-{version}"))
        (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{self.path}: this file system does not let SQLite keep a write-ahead log ({mode})")
        migrate(writer, version)
        for table in _SMALL:
            (text,) = writer.execute(f"PRAGMA quick_check('{table}')").fetchone()
            if text != "ok":
                raise self.failed(_damaged(text))
        for order in ("", "DESC"):
            for where, column in (("n > 0", "n"), ("imei > 0", "imei"), ("state = 1 AND deadline > 0", "deadline")):
                writer.execute(f"SELECT * FROM devices WHERE {where} ORDER BY {column} {order} LIMIT 1").fetchall()


def migrate(connection: sqlite3.Connection, version: int, target: int = VERSION) -> None:
    """Takes a schema of one version to another, in one transaction. Raises sqlite3.Error, and nothing has changed."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in _MIGRATIONS[version:target]:
            for statement in step:
                connection.execute(statement)
        connection.execute("UPDATE numbers SET n = ? WHERE name = 'store' AND n = 0", (secrets.randbits(63),))
        connection.execute(f"PRAGMA user_version = {target}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _locked(path: Path) -> int:
    """The descriptor of the lock file, locked. Raises StoreError."""
    name = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StoreError(f"{name}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise StoreError(f"{path}: process {holder} has it open; a store in a file is for one node alone") from error
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"{name}: {error.strerror}") from error
    return descriptor


def _damaged(text: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _wrong_records(connection: sqlite3.Connection) -> list[str]:
    """Devices whose record cannot be read, or is not what its row says. Without IMSI: a record is never shown."""
    found = []
    wrong = 0

    def tell(imei: int, what: str) -> None:
        nonlocal wrong
        wrong += 1
        if wrong <= _SHOWN:
            found.append(f"device {imei:014}: {what}")

    for imei, state, deadline, record in connection.execute("SELECT imei, state, deadline, record FROM devices"):
        try:
            if decode(record).imei != imei:
                tell(imei, "its record is another device's")
        except (StoreError, TypeError) as error:
            tell(imei, str(error))
        if (state in (STATES["running"], STATES["expired"])) != (deadline is not None):
            tell(imei, f"state {state} with deadline {deadline}")
    if wrong > _SHOWN:
        found.append(f"and {wrong - _SHOWN} more devices")
    return found


def _wrong_numbers(connection: sqlite3.Connection) -> list[str]:
    """Counts that are not those of what is there."""
    found = []
    states = dict(connection.execute("SELECT state, count(*) FROM devices GROUP BY state"))
    (waiting,) = connection.execute("SELECT count(*) FROM messages WHERE state = 1").fetchone()
    numbers = dict(connection.execute("SELECT name, n FROM numbers"))
    for name, there in {
        "running": states.pop(1, 0),
        "stopped": states.pop(2, 0) + states.pop(3, 0),
        "expired": states.pop(4, 0),
        "queued": waiting,
    }.items():
        if numbers.get(name) != there:
            found.append(f"{name}: {numbers.get(name)} are counted, {there} are there")
    states.pop(None, None)
    found += [f"{count} devices have the unknown state {state}" for state, count in states.items()]
    return found
