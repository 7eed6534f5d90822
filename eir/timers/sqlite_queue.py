"""The messages of a store in SQLite, as `queue` says. Made by `sqlite_store`, in whose thread it works."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeVar, get_args

from eir.timers.queue import Outgoing, Place, Step
from eir.timers.sqlite_file import OVER, SENDING, SETTLED, WAITING
from eir.timers.store import Message, MessageKey, MessageKind

KINDS: Final[tuple[MessageKind, ...]] = get_args(MessageKind)
KIND: Final[dict[str, int]] = {kind: number for number, kind in enumerate(KINDS)}
"""Kinds of messages, as the column has them."""
_PLACES: Final[dict[Place, int]] = {"waiting": WAITING, "sending": SENDING, "over": OVER}

_COLUMNS: Final = "kind, imei, imsi, mark, at, msisdn, apart, progress, due"
# The state stands in the text: only then a partial index serves.
_DUE: Final = f"""SELECT {_COLUMNS} FROM messages CROSS JOIN devices ON n = device
    WHERE messages.state = {{}} AND due BETWEEN ? AND ? ORDER BY due LIMIT ?"""
_OF_KEY: Final = "device = (SELECT n FROM devices WHERE imei = ?) AND kind = ? AND imsi = ? AND mark = ?"
_FIND: Final = f"""SELECT {_COLUMNS} FROM messages JOIN devices ON n = device
    WHERE {_OF_KEY} AND messages.state IN ({WAITING}, {SENDING}, {OVER})"""
_STEP: Final = f"UPDATE messages SET state = ?, progress = ?, due = ? WHERE {_OF_KEY} AND state = ? AND progress IS ?"
_TAKEN: Final = f"SELECT 1 FROM messages WHERE {_OF_KEY} AND state = ? AND progress IS ?"
_NAME: Final = """INSERT OR REPLACE INTO receipts (name, at, device, kind, imsi, mark)
    SELECT ?, ?, n, ?, ?, ? FROM devices WHERE imei = ?"""
_PUT: Final = f"""INSERT OR IGNORE INTO messages (device, kind, imsi, mark, state, at, due, apart, msisdn)
    SELECT n, ?, ?, ?, {WAITING}, ?, ?, ?, ? FROM devices WHERE imei = ?"""
_COUNT: Final = """INSERT INTO told VALUES (?, ?, 1)
    ON CONFLICT (day, imsi) DO UPDATE SET n = n + 1 WHERE n < ?"""
_OLD: Final = f"SELECT device, kind, imsi, mark FROM messages WHERE state = {OVER} AND due < ? ORDER BY due LIMIT ?"
_THIS: Final = "WHERE device = ? AND kind = ? AND imsi = ? AND mark = ?"

_T = TypeVar("_T")


class _Store(Protocol):
    """What a queue needs of its store: work in the thread that writes, and transactions there."""

    async def run(self, work: Callable[[], _T]) -> _T: ...

    @property
    def connection(self) -> sqlite3.Connection: ...

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]: ...

    def wrote(self, rows: int) -> None: ...


class SqliteQueue:
    """The messages of a store in a file. `eir.timers.queue.Queue` says what the methods do."""

    def __init__(self, store: _Store) -> None:
        self._store = store

    async def due(self, place: Place, until: int, most: int, since: int = 0) -> list[Outgoing]:
        """Messages to subscribers in a place that are due, the earliest first. Raises StoreError."""
        query = _DUE.format(_PLACES[place])
        return await self._rows(lambda connection: connection.execute(query, (since, until, max(most, 0))))

    async def find(self, keys: Collection[MessageKey]) -> dict[MessageKey, Outgoing]:
        """Those that have not been withdrawn or forgotten, of these. Raises StoreError."""

        def each(connection: sqlite3.Connection) -> Iterable[tuple[Any, ...]]:
            for kind, imei, imsi, mark in keys:
                yield from connection.execute(_FIND, (imei, KIND[kind], imsi, mark))

        return {found.message.key: found for found in await self._rows(each)}

    async def _rows(self, read: Callable[[sqlite3.Connection], Iterable[tuple[Any, ...]]]) -> list[Outgoing]:
        def work() -> list[Outgoing]:
            return [
                Outgoing(Message(KINDS[kind], *rest), progress or b"", due)
                for kind, *rest, progress, due in read(self._store.connection)
            ]

        return await self._store.run(work)

    async def step(self, steps: Sequence[Step]) -> frozenset[MessageKey]:
        """Takes steps; returns the keys of those that were not taken. Raises StoreError."""

        def work() -> frozenset[MessageKey]:
            refused = set()
            more = 0
            with self._store.transaction() as connection:
                for key, come_from, before, place, after, due, receipts in steps:
                    kind, imei, imsi, mark = key
                    row = (imei, KIND[kind], imsi, mark)
                    taken = connection.execute(
                        _STEP, (_PLACES[place], after, due, *row, _PLACES[come_from], before or None)
                    ).rowcount
                    if taken:
                        more += (place == "waiting") - (come_from == "waiting")
                    elif connection.execute(_TAKEN, (*row, _PLACES[place], after)).fetchone() is None:
                        refused.add(key)
                        continue
                    for name in receipts:
                        connection.execute(_NAME, (name, due, KIND[kind], imsi, mark, imei))
                connection.execute("UPDATE numbers SET n = n + ? WHERE name = 'queued'", (more,))
            self._store.wrote(len(steps))
            return frozenset(refused)

        return await self._store.run(work)

    async def put(self, messages: Sequence[Message]) -> int:
        """Puts messages; how many were not there before. Raises StoreError."""
        rows = [
            (KIND[one.kind], one.imsi, one.mark, one.at, one.at, one.apart, one.msisdn, one.imei) for one in messages
        ]

        def work() -> int:
            with self._store.transaction() as connection:
                new = max(connection.executemany(_PUT, rows).rowcount, 0)
                connection.execute("UPDATE numbers SET n = n + ? WHERE name = 'queued'", (new,))
            self._store.wrote(new)
            return new

        return await self._store.run(work)

    async def by_receipts(self, names: Collection[str]) -> dict[str, MessageKey]:
        """The messages that receipts name, once. Raises StoreError."""
        query = "SELECT kind, imei, imsi, mark FROM receipts JOIN devices ON devices.n = device WHERE name = ?"

        def work() -> dict[str, MessageKey]:
            found: dict[str, MessageKey] = {}
            with self._store.transaction() as connection:
                for name in names:
                    for kind, imei, imsi, mark in connection.execute(query, (name,)).fetchall():
                        found[name] = KINDS[kind], imei, imsi, mark
                        connection.execute("DELETE FROM receipts WHERE name = ?", (name,))
            self._store.wrote(len(found))
            return found

        return await self._store.run(work)

    async def allow(self, day: int, imsis: Sequence[str], most: int) -> list[bool]:
        """Counts a message to each subscriber, where there were not too many on that day. Raises StoreError."""

        def work() -> list[bool]:
            with self._store.transaction() as connection:
                return [most > 0 and connection.execute(_COUNT, (day, imsi, most)).rowcount > 0 for imsi in imsis]

        return await self._store.run(work)

    async def forget(self, before: int, most: int) -> int:
        """Forgets what was over before then, and names and counts as old. Raises StoreError."""

        def work() -> int:
            with self._store.transaction() as connection:
                old = connection.execute(_OLD, (before, most)).fetchall()
                of_days = [row for row in old if KINDS[row[1]] == "reminder"]
                others = [row for row in old if KINDS[row[1]] != "reminder"]
                connection.executemany(f"DELETE FROM messages {_THIS}", of_days)
                connection.executemany(f"UPDATE messages SET state = {SETTLED}, progress = NULL {_THIS}", others)
                names = connection.execute(
                    "DELETE FROM receipts WHERE n IN (SELECT n FROM receipts WHERE at < ? ORDER BY n LIMIT ?)",
                    (before, most),
                ).rowcount
                counts = connection.execute(
                    "DELETE FROM told WHERE (day, imsi) IN (SELECT day, imsi FROM told WHERE day < ? LIMIT ?)",
                    (before // 86400, most),
                ).rowcount
            return len(old) + names + counts

        return await self._store.run(work)
