"""Reports upward of the pairs of devices and subscribers, day by day: what `in_use` has written down, to the broker.

They name subscribers, so they go only where that was asked for, and nothing is kept of them here but how far they were
reported. A batch that is repeated after a crash is the same again, name and all (docs/wire-format.md).

Called by `lists_desk`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from eir.lists.reports import about
from eir.log import Log

_MOST: Final = 10_000
"""Pairs of a batch."""
_PAUSE: Final = 10.0

log = Log(__name__)


class Reached(msgspec.Struct, frozen=True):
    """How far was reported: of which day's file, up to which octet."""

    day: str = ""
    octets: int = 0


@dataclass(frozen=True, slots=True)
class _Batch:
    octets: bytes
    reached: Reached


class PairReporter:
    """The pairs of one node: `files` is where its days are, `directory` where it keeps how far they were reported.
    `publish` hands a batch to the broker and raises OSError where it has not."""

    def __init__(
        self, files: Path, directory: Path, *, node: str, country: str, publish: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self.error = ""
        """Why nothing is reported at present; empty where all is well."""
        self._files = files
        self._position = directory / "pairs-position"
        self._about = about(node, country)
        self._publish = publish

    async def run(self) -> None:
        """Reports what comes. Never returns."""
        while True:
            try:
                more = await self.report()
                self.error = ""
            except OSError as error:
                if not self.error:
                    log.error("no pairs can be reported", error=str(error))
                self.error, more = str(error) or type(error).__name__, False
            await asyncio.sleep(0.0 if more else _PAUSE)

    async def report(self) -> bool:
        """Reports one batch; whether there may be more. Raises OSError; then it is reported again."""
        batch = await asyncio.to_thread(self._next)
        if batch is None:
            return False
        await self._publish(batch.octets)
        await asyncio.to_thread(self._set_reached, batch.reached)
        return True

    def _next(self) -> _Batch | None:
        self._position.parent.mkdir(exist_ok=True)
        reached = self._reached()
        # A file has its name when it is whole, and stays as it is.
        for path in sorted(self._files.glob("[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].csv")):
            if path.stem < reached.day:
                continue
            begin = reached.octets if path.stem == reached.day else 0
            if path.stat().st_size > begin and (batch := self._read(path, begin)) is not None:
                return batch
        return None

    def _read(self, path: Path, begin: int) -> _Batch | None:
        with path.open("rb") as file:
            file.seek(begin)
            header = b"" if begin else file.readline()
            lines = list(islice(file, _MOST))
        if not lines:
            return None
        end = begin + len(header) + sum(map(len, lines))
        pairs = [line.decode("ascii", "replace").strip().split(",") for line in lines]
        at = int(datetime.fromisoformat(path.stem).replace(tzinfo=UTC).timestamp())
        told: Mapping[str, object] = {
            **self._about,
            "id": f"pairs:{path.stem}:{begin}-{end}",
            "records": [{"kind": "pairs", "at": at, "pairs": pairs}],
        }
        return _Batch(msgspec.msgpack.encode(told), Reached(path.stem, end))

    def _reached(self) -> Reached:
        try:
            return msgspec.json.decode(self._position.read_bytes(), type=Reached)
        except FileNotFoundError:
            return Reached()
        except msgspec.DecodeError as error:
            # Twice is better than never.
            log.error("which pairs were reported is not known, all are reported again", error=str(error))
            return Reached()

    def _set_reached(self, reached: Reached) -> None:
        beside = self._position.with_suffix(".new")
        with beside.open("wb") as file:
            file.write(msgspec.json.encode(reached))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._position)
