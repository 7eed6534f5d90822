"""Takes over the operator's CSV export of subscribers, whole or not at all.

Reads the file, counts what is wrong with it and refuses it where that is too much; where it goes is the writer's
(`sqlite_directory`, `redis_directory`). Called by `cli_subscribers`. Wrong rows are reported without their values.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO

from eir.subscribers.directory import Packed
from eir.subscribers.rows import HeaderError, RowError, Rows, delimiter_of

_SHOWN = 100
"""Wrong rows that a report names; all are counted."""
_HOPELESS_ROWS = 10_000
"""Rows after which a file that is more than half wrong is not read to its end."""
_PROGRESS_MASK = (1 << 14) - 1
"""Progress is told after this many rows and one."""
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


class ImportRefused(Exception):
    """The file is not taken over, and everything is as before. The text holds no personal data."""


class Writer(Protocol):
    """Where subscribers go: `fill` once, then `commit` or `discard`. All raise OSError."""

    def fill(self, rows: Iterator[Packed]) -> int:
        """Takes all rows; of those with one IMSI the last stands. How many subscribers that are."""

    def commit(self) -> None:
        """Puts them in force, and those of before out of it."""

    def discard(self) -> None:
        """Takes back what `fill` did."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an import did. `first_wrong` are (line, reason); `duplicates` rows whose IMSI came again after them."""

    rows: int
    wrong: int
    duplicates: int
    subscribers: int
    first_wrong: tuple[tuple[int, str], ...]
    ignored_columns: tuple[str, ...]
    missing_columns: tuple[str, ...]


class _Source:
    """The rows of a file, with what was wrong with them."""

    def __init__(self, path: Path, strict: bool, max_bad_share: float, progress: Callable[[int], None]) -> None:
        self._path = path
        self._strict = strict
        self._max_bad_share = max_bad_share
        self._progress = progress
        self.rows = 0
        self.wrong = 0
        self.first_wrong: list[tuple[int, str]] = []
        self.header: Rows | None = None

    def packed(self) -> Iterator[Packed]:
        """Every sound row. Raises ImportRefused and OSError."""
        with self._path.open("rb") as raw:
            begin = raw.read(4)
            raw.seek(0)
            if begin == _ZSTD:
                raise ImportRefused(f"{self._path}: is zstd; unpack it first (zstd -d), or compress it with gzip")
            try:
                packed: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if begin[:2] == _GZIP else raw
                # What is no UTF-8 makes the field wrong that it is in, if it is one that counts.
                with io.TextIOWrapper(packed, "utf-8-sig", "surrogateescape", newline="") as text:
                    yield from self._read(text, raw)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ImportRefused(f"{self._path}: is cut or damaged: {error}") from error
            except HeaderError as error:
                raise ImportRefused(f"{self._path}: {error}") from error
        self._judge()

    def _read(self, text: TextIO, raw: BinaryIO) -> Iterator[Packed]:
        before = 0
        while (first := text.readline(1 << 16)) and (not first.strip() or first.startswith("#")):
            before += 1
        if not first:
            raise ImportRefused(f"{self._path}: is empty")
        delimiter = delimiter_of(first)
        header = self.header = Rows(next(csv.reader([first], delimiter=delimiter)))
        before += 1
        reader = csv.reader(text, delimiter=delimiter)
        parse = header.parse
        rows = 0
        # A comment is no row under a header that begins with a known column; elsewhere it could pass for one.
        may_pass = header.first_is_ignored
        try:
            for fields in reader:
                if may_pass and fields and fields[0].startswith("#"):
                    continue
                try:
                    yield parse(fields)
                except RowError as error:
                    if not fields or fields[0].startswith("#"):
                        continue
                    self.rows = rows + 1
                    self._note(before + reader.line_num, str(error))
                rows += 1
                if not rows & _PROGRESS_MASK:
                    self._progress(raw.tell())
        except csv.Error as error:
            raise ImportRefused(f"{self._path}:{before + reader.line_num}: {error}") from error
        self.rows = rows
        with suppress(ValueError):
            self._progress(raw.tell())

    def _note(self, line: int, reason: str) -> None:
        self.wrong += 1
        if len(self.first_wrong) < _SHOWN:
            self.first_wrong.append((line, reason))
        if self._strict:
            raise ImportRefused(f"{self._path}:{line}: {reason}")
        if self.rows >= _HOPELESS_ROWS and self.wrong * 2 > self.rows and self._max_bad_share <= 0.5:
            raise ImportRefused(self._too_many())

    def _judge(self) -> None:
        if self.wrong > self._max_bad_share * self.rows:
            raise ImportRefused(self._too_many())
        # An export that went wrong must not make everybody unknown.
        if self.rows == self.wrong:
            raise ImportRefused(f"{self._path}: there is no subscriber in it")

    def _too_many(self) -> str:
        shown = "".join(f"\n{self._path}:{line}: {reason}" for line, reason in self.first_wrong[:20])
        return f"{self._path}: {self.wrong} of {self.rows} rows are wrong{shown}"


def import_file(
    path: Path,
    writer: Writer,
    *,
    strict: bool = False,
    max_bad_share: float = 0.001,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Gives all sound rows of a file to the writer and commits; on any failure discards.

    `progress` is called now and then with the octets of the file that are read. Raises ImportRefused and OSError.
    """
    source = _Source(path, strict, max_bad_share, progress)
    try:
        subscribers = writer.fill(source.packed())
        writer.commit()
    except BaseException:
        writer.discard()
        raise
    assert source.header is not None
    return Report(
        rows=source.rows,
        wrong=source.wrong,
        duplicates=source.rows - source.wrong - subscribers,
        subscribers=subscribers,
        first_wrong=tuple(source.first_wrong),
        ignored_columns=source.header.ignored,
        missing_columns=source.header.missing,
    )
