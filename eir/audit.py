"""The control plane's durable record: what was done and why, append-only, each line tied to the one before by its hash.

It is the audit trail and also a journal that is replayed into a store, the position being the line number: a line
that `append` returned from is on the disk. A directory has one writer, `AuditLog`; `verify` and `export` read the files
and may do so while it writes. Form of a line: `audit_chain`, and docs/formats.md. Called by `app` and `cli_audit`.
No IMSI, MSISDN or IIN gets in here.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from eir.audit_chain import (
    GENESIS,
    MAX_LINE,
    Entry,
    Head,
    Link,
    check_entry,
    decode,
    decode_head,
    encode,
    encode_head,
    is_torn,
    link,
    names_device,
)

WITNESSED = "witnessed.jsonl"
"""The file of heads of other nodes' trails."""

_SEGMENT = re.compile(r"([0-9]{20})\.jsonl")
_MOST_DAMAGE = 100
"""Breaks that opening reports."""
_CURSORS = 16
"""Readers that may follow the trail without a search."""
_TAIL = 1 << 16


@dataclass(frozen=True, slots=True)
class Break:
    """Where the chain does not hold: a file, the line in it (from 1; 0: the file as a whole), and why."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}" if self.line else f"{self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found: sound lines before the first break, the last of them, and the heads that were compared.

    `unfinished` is the octets of an append that has not ended: one that goes on, or that a crash cut off.
    """

    lines: int
    head: Head | None
    compared: int
    unfinished: int
    first_break: Break | None


def _segment(directory: Path, first: int) -> Path:
    return directory / f"{first:020}.jsonl"


def _firsts(directory: Path) -> list[int]:
    """The numbers that the segments are named by, rising."""
    return sorted(int(match[1]) for path in directory.iterdir() if (match := _SEGMENT.fullmatch(path.name)))


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Lines with their line feed, and their octets; the last may lack it. What is too long comes as a wrong line."""
    while line := file.readline(MAX_LINE + 1):
        octets = len(line)
        if octets > MAX_LINE and not line.endswith(b"\n"):
            while not line.endswith(b"\n") and (line := file.readline(MAX_LINE)):
                octets += len(line)
            line = b"\n" if line else b"\0"
        yield line, octets


def _last_link(path: Path) -> Link | None:
    """The link of a segment's last line; None where it is not sound."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for octets in (_TAIL, MAX_LINE + 1):
            file.seek(max(0, size - octets))
            tail = file.read()
            begin = tail.rfind(b"\n", 0, -1) + 1
            if begin or size <= octets:
                return link(tail[begin:])
    return None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes) -> None:
    """Writes all of it, which is one call but for a disk that becomes full or a signal, and syncs."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class _End:
    """Where a directory's chain ends: the number to come, the last sound line, damage, the file to go on in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.firsts = _firsts(directory)
        self.next = 1
        self.last: Link | None = None
        self.damage: list[Break] = []
        self.size = 0
        """Octets of the last segment that count; what is behind them is a torn line."""
        self.is_whole = True
        """Whether the last segment may be gone on in: one with damage is left as it is."""
        for number in self.firsts[:-1]:
            self._pass(number)
        if self.firsts:
            self._scan(self.firsts[-1])

    def _report(self, path: Path, line: int, reason: str) -> None:
        if len(self.damage) < _MOST_DAMAGE:
            self.damage.append(Break(path, line, reason))

    def _begin(self, first: int) -> Path:
        path = _segment(self.directory, first)
        if self.next and first != self.next:
            self._report(path, 0, f"line {self.next} should be its first")
        return path

    def _pass(self, first: int) -> None:
        """An earlier segment: only its last line is looked at, so that a long trail opens as fast as a short one."""
        path = self._begin(first)
        last = _last_link(path)
        if last is None:
            self._report(path, 0, "its last line is damaged")
            self.next = 0
        else:
            self.last = last
            self.next = last.n + 1

    def _scan(self, first: int) -> None:
        path = self._begin(first)
        prev = (self.last.hash if self.last else GENESIS) if first == self.next else None
        self.next = max(self.next, first)
        reported = len(self.damage)
        with path.open("rb") as file:
            for number, (line, octets) in enumerate(_lines(file), 1):
                if not line.endswith(b"\n") and is_torn(line):
                    break
                self.size += octets
                found = link(line)
                if found is None:
                    self._report(path, number, "damaged")
                    # The number was given away: whoever has read the line must not find another under it.
                    self.next += 1
                    prev = None
                    continue
                if found.n != self.next or (prev is not None and found.prev != prev):
                    self._report(path, number, "does not follow the line before")
                self.last, prev = found, found.hash
                self.next = max(self.next, found.n) + 1
        self.is_whole = len(self.damage) == reported


class AuditLog:
    """A node's audit trail, open for appending, once for a directory. Its methods may be called in any thread."""

    damage: tuple[Break, ...]
    """What opening found wrong; for an alarm. Of segments before the last only the ends are looked at."""

    def __init__(self, directory: Path, node: str, segment_bytes: int) -> None:
        """Use `open`."""
        self._directory = directory
        self._node = node
        self._segment_bytes = segment_bytes
        self._mutex = threading.Lock()
        self._segment_fd = -1
        self._unsure = False
        """Whether there may be octets behind `_size`, of an append that failed."""
        self._cursors: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """Where a line is, by its number: segment and offset, of readers that follow."""
        self._witnessed: dict[str, Head] = {}
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync_directory(directory.parent)
        self._lock_fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BlockingIOError(
                    error.errno, "another process appends to this audit trail", str(directory)
                ) from None
            self._find_end()
            self._open_witnessed()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, directory: Path, node: str, segment_bytes: int) -> Self:
        """Opens a node's trail, which is made where there is none.

        A torn last line is cut off. Damage does not stop it: the chain goes on from the last sound line, in a new
        segment, under numbers that were not given before; see `damage`. Raises OSError, also where another has it open.
        """
        return cls(directory, node, segment_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the directory free. Everything appended is on the disk already."""
        with self._mutex:
            for descriptor in (self._segment_fd, self._lock_fd):
                if descriptor >= 0:
                    os.close(descriptor)
            self._segment_fd = self._lock_fd = -1

    def _find_end(self) -> None:
        end = _End(self._directory)
        self.damage = tuple(end.damage)
        self._segments, self._size = end.firsts, end.size
        self._next = end.next
        self._head = (end.last.n, end.last.hash) if end.last else (0, GENESIS)
        self._must_begin = not (end.firsts and end.is_whole)
        if not end.firsts:
            return
        self._segment_fd = os.open(_segment(self._directory, end.firsts[-1]), os.O_WRONLY | os.O_APPEND)
        if os.fstat(self._segment_fd).st_size != self._size:
            self._restore()
        # Whole lines of an append that a crash cut short count from now on.
        os.fsync(self._segment_fd)

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last line; 0 and zeros where there is none."""
        return self._head

    def append(self, at: int, entries: Sequence[Mapping[str, object]]) -> tuple[int, int]:
        """Writes entries, all or none, and returns the first and the last line number; they are on the disk then.

        `at` is in Unix seconds. Blocks for the disk. Raises ValueError for an entry that `audit_chain.check_entry`
        refuses, and OSError where it cannot be written; both leave the trail as it was, and the next call tries anew.
        """
        checked = [check_entry(entry) for entry in entries]
        if not checked:
            raise ValueError("there is no entry to append")
        with self._mutex:
            if self._lock_fd < 0:
                raise OSError("the audit trail is closed")
            first, own = self._next, self._head[1]
            lines = []
            for n, entry in enumerate(checked, first):
                line, own = encode(n, at, self._node, entry, own)
                lines.append(line)
            self._write(b"".join(lines))
            self._next = first + len(lines)
            self._head = (self._next - 1, own)
            return first, self._next - 1

    def _write(self, data: bytes) -> None:
        if self._unsure:
            self._restore()
        if self._must_begin or (self._size and self._size + len(data) > self._segment_bytes):
            self._begin_segment()
        try:
            _write(self._segment_fd, data)
        except BaseException:
            self._unsure = True
            with suppress(OSError):
                self._restore()
            raise
        self._size += len(data)

    def _restore(self) -> None:
        """Takes away what is behind the last line."""
        os.ftruncate(self._segment_fd, self._size)
        os.fsync(self._segment_fd)
        self._unsure = False

    def _begin_segment(self) -> None:
        # Nothing that counts can be in a file of this name: the number has never been given away.
        descriptor = os.open(_segment(self._directory, self._next), _APPEND | os.O_TRUNC, 0o600)
        try:
            _sync_directory(self._directory)
        except BaseException:
            os.close(descriptor)
            raise
        if self._segment_fd >= 0:
            os.close(self._segment_fd)
        self._segment_fd, self._size, self._must_begin = descriptor, 0, False
        if self._next not in self._segments:
            self._segments.append(self._next)

    def read(self, after: int, most: int) -> list[Entry]:
        """Up to `most` lines with numbers above `after`, in order. Raises OSError.

        Damaged lines are left out, so numbers may be missing where `damage` or `verify` says so. Who goes on with the
        last number that he got is not searched for.
        """
        with self._mutex:
            segments, last = list(self._segments), self._head[0]
            position = self._cursors.pop(after, None)
        if after >= last or not segments:
            if position is not None:
                self._keep(after, position)
            return []
        begin, offset = position or (segments[max(0, bisect_right(segments, after + 1) - 1)], 0)
        found: list[Entry] = []
        for segment in segments[segments.index(begin) :]:
            is_last = segment == segments[-1]
            is_done = is_last
            with _segment(self._directory, segment).open("rb") as file:
                file.seek(offset)
                for line, octets in _lines(file):
                    here = link(line)
                    # What is beyond is being written, or has failed to be and goes away.
                    is_beyond = (here is not None and here.n > last) or (is_last and not line.endswith(b"\n"))
                    if is_beyond or len(found) == most:
                        is_done = True
                        break
                    offset += octets
                    if here is not None and here.n > after and (said := decode(line)) is not None:
                        found.append(said)
            if is_done:
                break
            offset = 0
        newest = found[-1]["n"] if found else after
        assert isinstance(newest, int)
        self._keep(newest, (segment, offset))
        return found

    def _keep(self, after: int, position: tuple[int, int]) -> None:
        with self._mutex:
            self._cursors[after] = position
            while len(self._cursors) > _CURSORS:
                self._cursors.popitem(last=False)

    def _open_witnessed(self) -> None:
        """Learns what was witnessed last, and cuts off a torn line."""
        with suppress(FileNotFoundError), (self._directory / WITNESSED).open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
            file.truncate(size - (len(tail) - (tail.rfind(b"\n") + 1)))
            for line in tail.splitlines():
                if head := decode_head(line):
                    self._witnessed[head.node] = head

    def witness(self, head: Head) -> bool:
        """Keeps what another node says is the head of its trail; False where that is what it said last. Raises OSError.

        If that node's trail is rewritten, `verify` with this head finds it out.
        """
        with self._mutex:
            if self._lock_fd < 0:
                raise OSError("the audit trail is closed")
            if self._witnessed.get(head.node) == head:
                return False
            path = self._directory / WITNESSED
            is_new = not path.exists()
            descriptor = os.open(path, _APPEND, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                try:
                    _write(descriptor, encode_head(head))
                except BaseException:
                    with suppress(OSError):
                        os.ftruncate(descriptor, size)
                    raise
            finally:
                os.close(descriptor)
            if is_new:
                _sync_directory(self._directory)
            self._witnessed[head.node] = head
            return True


def read_witnessed(path: Path) -> Iterator[Head]:
    """The heads in a file that `AuditLog.witness` wrote, lines that are none left out. Raises OSError."""
    with path.open("rb") as file:
        for line, _ in _lines(file):
            if head := decode_head(line):
                yield head


class _Heads:
    """Witnessed heads, compared with the lines as they pass."""

    def __init__(self, heads: Sequence[Head], node: str | None) -> None:
        self._wanted: dict[int, list[Head]] = {}
        for head in heads:
            self._wanted.setdefault(head.n, []).append(head)
        self._nodes = {node} if node else set()
        self._differing: list[tuple[Head, Path, int]] = []
        self._agreeing: list[Head] = []

    def compare(self, node: str, found: Link, path: Path, number: int) -> None:
        """Compares a sound line."""
        self._nodes.add(node)
        for head in self._wanted.pop(found.n, ()):
            if head.hash == found.hash:
                self._agreeing.append(head)
            else:
                self._differing.append((head, path, number))

    def compared(self) -> int:
        """How many heads of this trail's node have been met."""
        differing = [head for head, _, _ in self._differing]
        return sum(head.node in self._nodes for head in (*self._agreeing, *differing))

    def first_break(self, end: Path) -> Break | None:
        """The first line that is not what was witnessed, or what was witnessed and is not there."""
        for head, path, number in self._differing:
            if head.node in self._nodes:
                return Break(path, number, f"line {head.n} is not the one that others have witnessed")
        missing = [head.n for heads in self._wanted.values() for head in heads if head.node in self._nodes and head.n]
        if missing:
            return Break(end, 0, f"the trail ends before line {min(missing)}, which others have witnessed")
        return None


def verify(directory: Path, heads: Sequence[Head] = (), node: str | None = None) -> Verification:
    """Checks every line, and the heads of this trail's node that others have witnessed. Raises OSError.

    Heads of other nodes say nothing here and are passed over. `node` says whose trail it is also where no line does.
    A line without its end at the end of the last file is an append that goes on, or that a crash cut off: no break.
    """
    witnessed = _Heads(heads, node)
    path, last, unfinished = directory, Link(0, "", GENESIS), 0
    head: Head | None = None
    first_break: Break | None = None
    firsts = _firsts(directory)
    for first in firsts:
        path = _segment(directory, first)
        if first != last.n + 1:
            first_break = Break(path, 0, f"line {last.n + 1} should be its first")
            break
        with path.open("rb") as file:
            for number, (line, octets) in enumerate(_lines(file), 1):
                found = link(line)
                if not line.endswith(b"\n") and first == firsts[-1] and is_torn(line):
                    unfinished = octets
                elif found is None or (said := decode(line)) is None:
                    first_break = Break(
                        path, number, "it is damaged or was changed: its hash is not that of its content"
                    )
                elif found.n != last.n + 1:
                    first_break = Break(path, number, f"line {last.n + 1} should be here, and not {found.n}")
                elif found.prev != last.hash:
                    first_break = Break(path, number, "it does not follow the line before")
                else:
                    last, head = found, Head(str(said["node"]), found.n, found.hash)
                    witnessed.compare(head.node, found, path, number)
                if first_break or unfinished:
                    break
        if first_break:
            break
    else:
        first_break = witnessed.first_break(path)
    return Verification(last.n, head, witnessed.compared(), unfinished, first_break)


def export(
    directory: Path,
    first_at: int | None = None,
    last_at: int | None = None,
    imei: str | None = None,
    agent: str | None = None,
) -> Iterator[Entry]:
    """The sound lines of a time (Unix seconds, both ends included), of a device and of an agent. Raises OSError.

    `imei` is 14 digits or more; a line is the device's where any of its values is one of its IMEIs.
    """
    key = imei[:14] if imei is not None else None
    needle = key.encode() if key is not None else b""
    for first in _firsts(directory):
        with _segment(directory, first).open("rb") as file:
            for line, _ in _lines(file):
                if needle not in line or link(line) is None or (said := decode(line)) is None:
                    continue
                at = said["at"]
                assert isinstance(at, int)
                if (first_at is not None and at < first_at) or (last_at is not None and at > last_at):
                    continue
                if (agent is None or said.get("agent") == agent) and (key is None or names_device(said, key)):
                    yield said
