"""The directory of subscribers in an SQLite file, read only, and the writer that makes such a file.

The file is made once and never changed: a newer one takes its place by renaming, and the reader notices. Called by
`app` and `cli_subscribers`. Format: docs/formats.md.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from operator import itemgetter
from pathlib import Path

from eir.subscribers.directory import (
    DirectoryError,
    Packed,
    Subscriber,
    is_imsi,
    pack_digits,
    unpack,
)

_APPLICATION_ID = 0x45495253
"""What says in the file's header whose it is: EIRS."""
_VERSION = 1
_BATCH = 500
"""IMSIs asked for with one statement."""
_CACHE_KIB = 256 << 10
"""Memory for building: rows that come in no order go all over the tree."""
_RUN = 1 << 18
"""Rows that are sorted before they go in, so that neighbours meet in memory."""
_TABLE = """
    CREATE TABLE subscribers (imsi INTEGER PRIMARY KEY, msisdn INTEGER, iin INTEGER, flags INTEGER NOT NULL) STRICT
"""


class SqliteDirectory:
    """A `Directory` in a file. Where there is no file, nobody is known."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # One thread of its own: a slow disk takes none of those that others wait for.
        self._thread = ThreadPoolExecutor(1, "subscribers")
        self._connection: sqlite3.Connection | None = None
        self._opened = (0, 0)
        """Device and inode of the file that is open."""

    async def find(self, imsis: Iterable[str]) -> dict[str, Subscriber]:
        """The subscribers among these that are known. Raises DirectoryError: the file is damaged or cannot be read."""
        wanted = {pack_digits(imsi): imsi for imsi in imsis if is_imsi(imsi)}
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._find, wanted)

    async def close(self) -> None:
        """Closes the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    def _find(self, wanted: dict[int, str]) -> dict[str, Subscriber]:
        found = {}
        try:
            connection = self._connect()
            if connection is None:
                return {}
            left = iter(wanted)
            while batch := list(islice(left, _BATCH)):
                marks = ",".join("?" * len(batch))
                rows = connection.execute(
                    f"SELECT imsi, msisdn, iin, flags FROM subscribers WHERE imsi IN ({marks})", batch
                )
                found.update({subscriber.imsi: subscriber for subscriber in map(unpack, rows)})
        except (sqlite3.Error, OSError) as error:
            # Opened anew the next time: somebody may have put it right.
            self._disconnect()
            raise DirectoryError(f"{self._path}: {error}") from error
        except DirectoryError as error:
            self._disconnect()
            raise DirectoryError(f"{self._path}: {error}") from None
        return found

    def _connect(self) -> sqlite3.Connection | None:
        """The connection to the file that is there now; None where there is none."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._disconnect()
            return None
        # As long as the old file is open its inode is not given to another.
        if self._connection is not None and self._opened == (status.st_dev, status.st_ino):
            return self._connection
        self._disconnect()
        # It never changes, so it needs no locks; whoever must not write into it can read it.
        uri = f"{self._path.absolute().as_uri()}?mode=ro&immutable=1"
        self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        ((application,),) = self._connection.execute("PRAGMA application_id")
        ((version,),) = self._connection.execute("PRAGMA user_version")
        if (application, version) != (_APPLICATION_ID, _VERSION):
            raise sqlite3.DatabaseError("is no file of subscribers, or of another version")
        self._opened = (status.st_dev, status.st_ino)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _runs(rows: Iterable[Packed]) -> Iterator[Packed]:
    """The rows, sorted by IMSI within each run; those of one IMSI stay in their order."""
    left = iter(rows)
    while run := list(islice(left, _RUN)):
        run.sort(key=itemgetter(0))
        yield from run


class SqliteWriter:
    """Makes a file of subscribers beside its place, and puts it there whole or not at all. One at a time for a place.

    `fill` once, then `commit` or `discard`.
    """

    def __init__(self, path: Path) -> None:
        """Takes away what a writer left that was killed. Raises OSError, also where another is at work."""
        self._path = path
        self._new = path.with_name(f".{path.name}.new")
        self._lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(error.errno, "another import is writing this file", str(path)) from None
            self._new.unlink(missing_ok=True)
            # Personal data: for the node's user alone, whoever runs the import.
            descriptor = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                if os.geteuid() == 0:
                    owner = path.parent.stat()
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
            finally:
                os.close(descriptor)
        except BaseException:
            os.close(self._lock)
            raise

    def fill(self, rows: Iterable[Packed]) -> int:
        """Writes all rows; of those with one IMSI the last stands. How many subscribers that are. Raises OSError."""
        try:
            # Nothing is safe before `commit`, so nothing is made safe on the way.
            connection = sqlite3.connect(self._new, isolation_level=None)
            try:
                for pragma in (
                    "journal_mode=OFF",
                    "synchronous=OFF",
                    "locking_mode=EXCLUSIVE",
                    f"cache_size=-{_CACHE_KIB}",
                    f"application_id={_APPLICATION_ID}",
                    f"user_version={_VERSION}",
                ):
                    connection.execute(f"PRAGMA {pragma}")
                connection.execute(_TABLE)
                connection.execute("BEGIN")
                connection.executemany("INSERT OR REPLACE INTO subscribers VALUES (?, ?, ?, ?)", _runs(rows))
                connection.execute("COMMIT")
                ((count,),) = connection.execute("SELECT count(*) FROM subscribers")
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise OSError(f"{self._new}: {error}") from error
        assert isinstance(count, int)
        return count

    def commit(self) -> None:
        """Puts the new file in its place, safe on the disk. Raises OSError; then the old one is still there."""
        for path in (self._new, self._path.parent):
            if path == self._path.parent:
                self._new.replace(self._path)
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        os.close(self._lock)

    def discard(self) -> None:
        """Takes the new file away; the old one has not been touched."""
        with suppress(OSError):
            self._new.unlink(missing_ok=True)
        os.close(self._lock)
