"""The way out that sends nothing: one JSON line for each message, appended to a file.

For trials, and for whoever takes messages on by means of their own. A message is taken once it is on the disk. The
file may be renamed at any time; it is then made anew. It holds numbers and texts: only its owner can read it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from eir.log import Log
from sms.gateway import Accepted, NotTakenError, OnReceipt, Part, Receipt, Slot, UnansweredError
from sms.settings import FileSettings
from sms.slots import Slots

_MOST_AT_ONCE = 1000
"""Messages in one write."""
_AGAIN_SECONDS = 10.0

log = Log(__name__)


class _Waiting(NamedTuple):
    line: bytes
    outcome: asyncio.Future[None]


class _TornError(Exception):
    """Nobody knows what of the lines is in the file."""


class FileGateway:
    """Appends whole messages to a file."""

    whole = True

    def __init__(self, settings: FileSettings) -> None:
        self._settings = settings
        self._path = Path(settings.path)
        self._waiting: list[_Waiting] = []
        self._writer: asyncio.Task[None] | None = None
        self._file: int | None = None
        self._counts: Counter[str] = Counter()
        self._error = ""
        self._issued = 0
        self._closing = False
        self._on_receipt: OnReceipt | None = None
        self._slots = Slots(self._submit, _MOST_AT_ONCE)
        # Ids of two starts never meet.
        self._start = os.urandom(8).hex()

    async def start(self, on_receipt: OnReceipt) -> None:
        """Opens nothing yet: a file that cannot be opened is a part that is not taken."""
        self._on_receipt = on_receipt

    def take(self) -> Slot | None:
        """A turn, if there is one now."""
        return self._slots.take()

    async def room(self) -> None:
        """Waits until there may be a turn. Raises NotTakenError where the node is being stopped."""
        if self._closing:
            raise NotTakenError("closed")
        await self._slots.room()

    async def _submit(self, part: Part) -> Accepted:
        """Appends one message; many of them go to the disk together."""
        if self._closing:
            raise NotTakenError("closed")
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "to": part.to,
            "text": part.text,
            "weight": part.weight,
        }
        loop = asyncio.get_running_loop()
        waiting = _Waiting(
            json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n", loop.create_future()
        )
        self._waiting.append(waiting)
        self._counts["submitted"] += 1
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all())
        await waiting.outcome
        self._issued += 1
        self._counts["accepted"] += 1
        message_id = f"{self._start}-{self._issued}"
        # After whoever submitted it has heard of the id.
        loop.call_soon(self._deliver, message_id)
        return Accepted(self._settings.name, message_id)

    def _deliver(self, message_id: str) -> None:
        assert self._on_receipt is not None
        self._counts["receipts"] += 1
        try:
            self._on_receipt(Receipt(self._settings.name, message_id, "delivered"))
        except Exception:
            log.error("receipt not taken", exc_info=True, smsc=self._settings.name)

    async def _write_all(self) -> None:
        """Writes what waits until nothing does."""
        while self._waiting:
            group, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            error: Exception | None = None
            try:
                await asyncio.to_thread(self._append, b"".join(each.line for each in group))
                self._error = ""
            except OSError as failed:
                self._error = failed.strerror or type(failed).__name__
                error = NotTakenError(self._error, _AGAIN_SECONDS)
                self._counts["failed"] += len(group)
                log.warning("messages not written", count=len(group), reason=self._error)
            except _TornError as failed:
                self._error = str(failed)
                error = UnansweredError(self._settings.name, self._error)
                self._counts["unanswered"] += len(group)
                log.error("messages may be written or not", count=len(group), reason=self._error)
            for each in group:
                if each.outcome.done():
                    continue
                if error is None:
                    each.outcome.set_result(None)
                else:
                    each.outcome.set_exception(error)
        self._writer = None

    def _append(self, octets: bytes) -> None:
        """All of it, on the disk; or none, and OSError; or _TornError. In a thread, one at a time."""
        file = self._opened()
        before = os.fstat(file).st_size
        try:
            rest = memoryview(octets)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fdatasync(file)
        except OSError as error:
            self._close_file()
            try:
                os.truncate(self._path, before)
            except OSError:
                raise _TornError(error.strerror or type(error).__name__) from None
            raise

    def _opened(self) -> int:
        """The file of this name, whatever has become of the one before."""
        if self._file is not None:
            try:
                here, there = os.fstat(self._file), os.stat(self._path)
                if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
                    return self._file
            except FileNotFoundError:
                pass
            self._close_file()
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._file = file
        try:
            os.fchmod(file, 0o600)
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                # The last line is half of one: the machine stopped while it was written.
                os.write(file, b"\n")
        except OSError:
            self._close_file()
            raise
        return file

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def status(self) -> list[dict[str, object]]:
        """The file's state and counts."""
        names = ("submitted", "accepted", "failed", "unanswered", "receipts")
        state = "failing" if self._error else "bound"
        counts = {name: self._counts[name] for name in names}
        return [{"name": self._settings.name, "state": state, "error": self._error, **counts}]

    async def close(self) -> None:
        """Writes what waits, and closes the file."""
        self._closing = True
        if self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)
        self._close_file()
