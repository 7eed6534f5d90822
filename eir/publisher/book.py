"""The publisher's lists: a SQLite file that several processes may have open, and what in it is not published yet.

What is set is remembered as changed until it is in a package. `publishing` hands out what has changed and takes a
package's number, in one transaction with what the caller does meanwhile. Called by `packages`, which writes the
packages, `server`, and `cli_publisher`. It knows no key and no network.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple

from eir.lists.package import PackageKind
from eir.publisher.rows import Device

_APPLICATION: Final = 0x45495250
_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE devices (imei INTEGER PRIMARY KEY, list TEXT NOT NULL, reason TEXT NOT NULL, until TEXT NOT NULL);
CREATE TABLE pairs (imei INTEGER, imsi TEXT, PRIMARY KEY (imei, imsi)) WITHOUT ROWID;
CREATE TABLE others (kind TEXT NOT NULL, n INTEGER PRIMARY KEY, row TEXT NOT NULL);
CREATE TABLE changed (imei INTEGER PRIMARY KEY);
CREATE TABLE changed_pairs (imei INTEGER, imsi TEXT, PRIMARY KEY (imei, imsi)) WITHOUT ROWID;
CREATE TABLE tallies (list TEXT PRIMARY KEY, n INTEGER NOT NULL);
INSERT INTO tallies VALUES ('white', 0), ('grey', 0), ('black', 0);
CREATE TRIGGER devices_in AFTER INSERT ON devices BEGIN UPDATE tallies SET n = n + 1 WHERE list = new.list; END;
CREATE TRIGGER devices_out AFTER DELETE ON devices BEGIN UPDATE tallies SET n = n - 1 WHERE list = old.list; END;
CREATE TRIGGER devices_other AFTER UPDATE OF list ON devices BEGIN
    UPDATE tallies SET n = n - 1 WHERE list = old.list; UPDATE tallies SET n = n + 1 WHERE list = new.list; END;
CREATE TABLE packages (kind TEXT, sequence INTEGER, PRIMARY KEY (kind, sequence)) WITHOUT ROWID;
CREATE TABLE numbers (name TEXT PRIMARY KEY, n INTEGER NOT NULL);
INSERT INTO numbers VALUES ('sequence', 0), ('whole', 1), ('announced', 0), ('tac_as_of', 0);
CREATE TABLE reports (id TEXT PRIMARY KEY, node TEXT NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
"""
_INCOMING: Final = (
    "CREATE TEMP TABLE IF NOT EXISTS incoming (imei INTEGER PRIMARY KEY, list TEXT, reason TEXT, until TEXT)"
)
_PUT_DEVICE: Final = """INSERT INTO devices SELECT * FROM incoming WHERE true ON CONFLICT (imei) DO UPDATE
    SET list = excluded.list, reason = excluded.reason, until = excluded.until"""
_CHANGED: Final = """INSERT OR IGNORE INTO changed SELECT i.imei FROM incoming i LEFT JOIN devices d USING (imei)
    WHERE (d.list, d.reason, d.until) IS NOT (i.list, i.reason, i.until)"""
_GONE: Final = "SELECT imei FROM devices WHERE imei NOT IN (SELECT imei FROM incoming)"


class Available(NamedTuple):
    """What has been published: the newest state, the newest snapshot, and the first of the deltas without a hole."""

    sequence: int
    snapshot: int | None
    first_delta: int | None


class BookError(Exception):
    """The lists cannot be opened; the text says why."""


class Book:
    """The file. Its methods block, and raise sqlite3.Error where it cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(path, timeout=60.0, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise BookError(f"{path}: {error}") from error
        except BookError:
            self._connection.close()
            raise

    def _open(self) -> None:
        connection = self._connection
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("PRAGMA synchronous = full")
        # Who only reads waits for nobody.
        if self._version() == (0, 0):
            with self.transaction():
                if self._version() == (0, 0) and not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    for statement in _statements(_SCHEMA):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
        if self._version() != (_APPLICATION, _VERSION):
            raise BookError(f"{self._path}: not a publisher's lists of version {_VERSION}")

    def _version(self) -> tuple[int, int]:
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        return application, version

    def close(self) -> None:
        """Lets go of the file."""
        self._connection.close()

    def other(self) -> Book:
        """The same file once more, for another thread."""
        return Book(self._path)

    @contextmanager
    def transaction(self, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE") -> Iterator[None]:
        """One for writing, or one that sees the lists as they are now."""
        self._connection.execute(f"BEGIN {kind}")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    # Changes.

    def put(self, devices: Iterable[Device], *, replace: bool = False) -> int:
        """Lists devices, with `replace` these and no others; how many were otherwise before.

        What iterating raises, this raises, and nothing has changed.
        """
        connection = self._connection
        connection.execute(_INCOMING)
        with self.transaction():
            connection.execute("DELETE FROM temp.incoming")
            connection.executemany("INSERT OR REPLACE INTO temp.incoming VALUES (?, ?, ?, ?)", devices)
            changed = connection.execute(_CHANGED).rowcount
            connection.execute(_PUT_DEVICE)
            if replace:
                changed += connection.execute(f"INSERT OR IGNORE INTO changed {_GONE}").rowcount
                connection.execute(f"DELETE FROM devices WHERE imei IN ({_GONE})")
            connection.execute("DELETE FROM temp.incoming")
        return changed

    def remove(self, imei: int) -> bool:
        """Takes a device from the lists; whether it was there."""
        with self.transaction():
            gone = self._connection.execute("DELETE FROM devices WHERE imei = ?", (imei,)).rowcount > 0
            if gone:
                self._connection.execute("INSERT OR IGNORE INTO changed VALUES (?)", (imei,))
        return gone

    def find(self, imei: int) -> Device | None:
        """A device's entry."""
        row = self._connection.execute("SELECT * FROM devices WHERE imei = ?", (imei,)).fetchone()
        return None if row is None else Device(*row)

    def put_pairs(self, pairs: Iterable[tuple[int, str]], *, replace: bool = False) -> int:
        """Pairs devices and subscribers, with `replace` these and no others; how many are new or gone."""
        connection = self._connection
        with self.transaction():
            before = set(connection.execute("SELECT imei, imsi FROM pairs")) if replace else set()
            changed = 0
            for pair in pairs:
                before.discard(pair)
                if connection.execute("INSERT OR IGNORE INTO pairs VALUES (?, ?)", pair).rowcount > 0:
                    changed += 1
                    connection.execute("INSERT OR IGNORE INTO changed_pairs VALUES (?, ?)", pair)
            connection.executemany("DELETE FROM pairs WHERE imei = ? AND imsi = ?", before)
            connection.executemany("INSERT OR IGNORE INTO changed_pairs VALUES (?, ?)", before)
        return changed + len(before)

    def put_others(self, kind: str, rows: Iterable[str], tac_as_of: int = 0) -> int:
        """Replaces all rows of one of `WHOLE_KINDS`; how many there are. The next package is a snapshot then."""
        with self.transaction():
            self._connection.execute("DELETE FROM others WHERE kind = ?", (kind,))
            given = ((kind, row) for row in rows)
            count = self._connection.executemany("INSERT INTO others (kind, row) VALUES (?, ?)", given).rowcount
            self.set_number("whole", 1)
            if kind == "allocated-tacs":
                self.set_number("tac_as_of", tac_as_of if count > 0 else 0)
        return max(count, 0)

    # What is to be published, and what has been.

    def number(self, name: str) -> int:
        """One of `sequence`, `whole` (1: a snapshot is due), `announced`, `tac_as_of`."""
        (n,) = self._connection.execute("SELECT n FROM numbers WHERE name = ?", (name,)).fetchone()
        return int(n)

    def set_number(self, name: str, n: int) -> None:
        """Sets one."""
        self._connection.execute("UPDATE numbers SET n = ? WHERE name = ?", (n, name))

    def is_changed(self) -> bool:
        """Whether there is anything to be published."""
        query = "SELECT EXISTS (SELECT 1 FROM changed) OR EXISTS (SELECT 1 FROM changed_pairs)"
        return bool(self._connection.execute(query).fetchone()[0]) or self.number("whole") != 0

    def counts(self) -> dict[str, int]:
        """Devices on each list."""
        return dict(self._connection.execute("SELECT list, n FROM tallies"))

    def changes(self) -> Iterator[tuple[int, Device | None]]:
        """The devices that have changed, with what is said of them now."""
        query = "SELECT c.imei, d.* FROM changed c LEFT JOIN devices d USING (imei) ORDER BY c.imei"
        for imei, *row in self._connection.execute(query):
            yield imei, None if row[0] is None else Device(*row)

    def changed_pairs(self) -> Iterator[tuple[int, str, bool]]:
        """The pairs that have changed, and whether they are there now."""
        query = """SELECT c.imei, c.imsi, p.imei IS NOT NULL FROM changed_pairs c
            LEFT JOIN pairs p ON p.imei = c.imei AND p.imsi = c.imsi"""
        for imei, imsi, there in self._connection.execute(query):
            yield imei, imsi, bool(there)

    def devices(self) -> Iterator[Device]:
        """All of them, in the order of the IMEIs."""
        return (Device(*row) for row in self._connection.execute("SELECT * FROM devices ORDER BY imei"))

    def pairs(self) -> Iterator[tuple[int, str]]:
        """All of them."""
        yield from self._connection.execute("SELECT imei, imsi FROM pairs ORDER BY imei, imsi")

    def others(self, kind: str) -> Iterator[str]:
        """The rows of one of `WHOLE_KINDS`."""
        for (row,) in self._connection.execute("SELECT row FROM others WHERE kind = ? ORDER BY n", (kind,)):
            yield row

    def took_changes(self, sequence: int) -> None:
        """Says that the state with all changes has this number; within the transaction in which they were read."""
        self._connection.execute("DELETE FROM changed")
        self._connection.execute("DELETE FROM changed_pairs")
        self.set_number("sequence", sequence)

    def add_package(self, kind: PackageKind, sequence: int) -> None:
        """Says that there is a package."""
        self._connection.execute("INSERT OR IGNORE INTO packages VALUES (?, ?)", (kind, sequence))

    def remove_packages(self, kind: PackageKind, up_to: int) -> list[int]:
        """Says that there are none any more up to a number, inclusive; which there were."""
        query = "DELETE FROM packages WHERE kind = ? AND sequence <= ? RETURNING sequence"
        return [number for (number,) in self._connection.execute(query, (kind, up_to)).fetchall()]

    def packages(self, kind: PackageKind, most: int = -1) -> list[int]:
        """The numbers of the newest packages of a kind, the newest first."""
        query = "SELECT sequence FROM packages WHERE kind = ? ORDER BY sequence DESC LIMIT ?"
        return [number for (number,) in self._connection.execute(query, (kind, most))]

    def available(self) -> Available:
        """What can be fetched."""
        snapshots, deltas = self.packages("snapshot", 1), self.packages("delta")
        snapshot = snapshots[0] if snapshots else None
        newest = deltas[0] if deltas else 0
        first = None
        for number in deltas:
            if first is not None and number != first - 1:
                break
            first = number
        if snapshot is not None and snapshot > newest:
            return Available(snapshot, snapshot, None)
        return Available(newest, snapshot, first)

    # Reports.

    def take_reports(self, reports: Iterable[tuple[str, str, bytes]]) -> int:
        """Takes reports (id, node, record), each once; how many are new."""
        with self.transaction():
            return max(
                self._connection.executemany("INSERT OR IGNORE INTO reports VALUES (?, ?, ?)", reports).rowcount, 0
            )

    def reports(self) -> list[tuple[str, str, bytes]]:
        """All of them."""
        return list(self._connection.execute("SELECT id, node, record FROM reports ORDER BY id"))


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
