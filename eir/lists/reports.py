"""Reports upward: what the national database is to know of this node, in batches, each at least once.

First attaches come from the journal; flips, timers that lists have ended, and agents' acts from the audit trail. Both
are durable, so nothing is kept here but how far they were reported, and what the batch is that is being reported: one
that is repeated after a crash is the same again, name and all (docs/wire-format.md). A batch goes to the broker, where
there is one, and into a file of its day. No subscriber is in these; pairs of devices and subscribers are for
`report_pairs`.

Called by `lists_desk`. What a journal lets go before it was reported is missing, and said.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import msgspec

from eir.log import Log

FORMAT: Final = 1
_BLOCK: Final = 1 << 16
_MOST: Final = 1000
"""Journal records, and lines of the audit trail, that are looked at for one batch."""
_TIMERS: Final = ("expired", "ended", "freeze", "unfreeze", "extend", "lift", "replaced", "shift", "unshift")
_LISTS: Final = ("lists-set", "lists-import", "lists-approve", "lists-rollback", "lists-follow")
_ACTS: Final = frozenset((*_TIMERS, *_LISTS))
_TOLD: Final = (
    "imei",
    "imeis",
    "devices",
    "old",
    "new",
    "change",
    "days",
    "first",
    "last",
    "shift",
    "sequence",
    "what",
)
"""Values of a line of the audit trail that are reported."""

log = Log(__name__)


def about(node: str, country: str) -> dict[str, Any]:
    """What every batch says of where it comes from."""
    return {"format": FORMAT, "country": country, "node": node}


class Journal(Protocol):
    """What is asked of `_core.Node` here."""

    def read_journal(self, after: int, most: int) -> tuple[Sequence[Any], int]:
        """Records above a number, and the number looked up to. Raises OSError."""


class Audit(Protocol):
    """What is asked of `AuditLog` here."""

    def read(self, after: int, most: int) -> Sequence[Mapping[str, Any]]:
        """Lines above a number. Raises OSError."""


class Position(msgspec.Struct, frozen=True):
    """How far was reported: of which journal and which audit trail, up to which number of each, and up to which the
    batch goes that is being reported."""

    journal: str
    journal_at: int
    journal_next: int
    audit: str
    audit_at: int
    audit_next: int

    @property
    def is_done(self) -> bool:
        """Whether no batch is being reported."""
        return (self.journal_at, self.audit_at) == (self.journal_next, self.audit_next)

    def done(self) -> Position:
        """The position behind the batch."""
        return msgspec.structs.replace(self, journal_at=self.journal_next, audit_at=self.audit_next)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is reported together."""

    octets: bytes
    lines: tuple[bytes, ...]
    position: Position


class Reporter:
    """The reports of one node. `publish` hands a batch to the broker and raises OSError where it has not; None: there
    is no broker. `journal_id` and `audit_id` change when journal or audit trail begin anew."""

    def __init__(
        self,
        journal: Journal,
        audit: Audit,
        directory: Path,
        *,
        node: str,
        country: str,
        journal_id: str,
        audit_id: str,
        publish: Callable[[bytes], Awaitable[None]] | None,
        clock: Callable[[], float],
    ) -> None:
        self.error = ""
        """Why nothing is reported at present; empty where all is well."""
        self.reported = 0
        """Records since start."""
        self._journal = journal
        self._audit = audit
        self._directory = directory
        self._about = about(node, country)
        self._ids = journal_id, audit_id
        self._publish = publish
        self._clock = clock

    async def run(self) -> None:
        """Reports what comes. Never returns."""
        while True:
            try:
                more = await self.report()
                self.error = ""
            except OSError as error:
                if not self.error:
                    log.error("nothing can be reported", error=str(error))
                self.error, more = str(error) or type(error).__name__, False
            await asyncio.sleep(0.0 if more else 2.0)

    async def report(self) -> bool:
        """Reports one batch; whether there may be more. Raises OSError; then it is reported again."""
        batch = await asyncio.to_thread(self._next)
        if batch is None:
            return False
        if batch.lines:
            if self._publish is not None:
                await self._publish(batch.octets)
            await asyncio.to_thread(self._write, batch)
            self.reported += len(batch.lines)
        await asyncio.to_thread(self._set_position, batch.position)
        return True

    def _next(self) -> Batch | None:
        self._directory.mkdir(exist_ok=True)
        present = self._position()
        if present.is_done:
            _, reached = self._journal.read_journal(present.journal_at, _MOST)
            lines = self._audit.read(present.audit_at, _MOST)
            last = int(lines[-1]["n"]) if lines else present.audit_at
            present = msgspec.structs.replace(present, journal_next=reached, audit_next=last)
            if present.is_done:
                return None
            self._set_position(present)
        return self._batch(present)

    def _batch(self, of: Position) -> Batch:
        told: list[dict[str, Any]] = []
        at = of.journal_at
        while at < of.journal_next:
            records, reached = self._journal.read_journal(at, of.journal_next - at)
            told += filter(None, map(_attach, records))
            if reached <= at:
                log.error("journal records were let go before they were reported", after=at)
                break
            at = reached
        lines = self._audit.read(of.audit_at, max(0, of.audit_next - of.audit_at))
        told += filter(None, map(_act, lines))
        name = f"{of.journal}:{of.journal_at}-{of.journal_next}/{of.audit}:{of.audit_at}-{of.audit_next}"
        octets = msgspec.msgpack.encode({**self._about, "id": name, "records": told})
        return Batch(octets, tuple(msgspec.json.encode({**one, "batch": name}) for one in told), of.done())

    def _position(self) -> Position:
        journal, audit = self._ids
        try:
            found = msgspec.json.decode((self._directory / "position").read_bytes(), type=Position)
        except FileNotFoundError:
            return Position(journal, 0, 0, audit, 0, 0)
        except msgspec.DecodeError as error:
            # Twice is better than never.
            log.error("how far was reported is not known, everything is reported again", error=str(error))
            return Position(journal, 0, 0, audit, 0, 0)
        if found.journal != journal:
            found = msgspec.structs.replace(found, journal=journal, journal_at=0, journal_next=0)
        if found.audit != audit:
            found = msgspec.structs.replace(found, audit=audit, audit_at=0, audit_next=0)
        return found

    def _set_position(self, position: Position) -> None:
        beside = self._directory / "position.new"
        with beside.open("wb") as file:
            file.write(msgspec.json.encode(position))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._directory / "position")

    def _write(self, batch: Batch) -> None:
        day = datetime.fromtimestamp(self._clock(), UTC).date()
        with (self._directory / f"{day}.jsonl").open("a+b") as file:
            _cut(file)
            file.write(b"".join(line + b"\n" for line in batch.lines))
            file.flush()
            os.fsync(file.fileno())


def _cut(file: BinaryIO) -> None:
    """Takes away a last line that an end of the process, or a full disk, has cut off: its batch comes again."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - _BLOCK)
        file.seek(begin)
        last = file.read(end - begin).rfind(b"\n")
        if last >= 0:
            file.truncate(begin + last + 1)
            return
        end = begin
    file.truncate(0)


def _attach(record: Sequence[Any]) -> dict[str, Any] | None:
    """The report of a journal record: of first attaches only, and of those that were taken back."""
    match record:
        case ("start", imei, at, *_):
            return {"kind": "first-attach", "imei": f"{imei:014}", "at": at}
        case ("cancel", imei, at, *_):
            return {"kind": "first-attach-cancelled", "imei": f"{imei:014}", "at": at}
    return None


def _act(line: Mapping[str, Any]) -> dict[str, Any] | None:
    if line.get("kind") not in _ACTS:
        return None
    told = {"kind": line["kind"], "at": line["at"], **{name: line[name] for name in _TOLD if name in line}}
    return {**told, "agent": line["agent"]} if line.get("agent") else told
