"""Sends reports upward: what journal and audit trail tell, and the pairs of past days, to a broker and into files.

Journal, audit trail and the days' files are the queue: a sender keeps where it is in them in a file of its own, and
goes on only after its way out has taken a batch for good. So each record goes out at least once by each way, and one
way that is down holds up no other. What the journal has let go meanwhile is missing (`journal.keep`). Called by `app`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import aiomqtt
import msgspec
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from eir.lists.reports import MAX_BATCH, Report, of_audit, of_journal, of_pairs, write_reports
from eir.lists.sync_mqtt import MqttSettings
from eir.log import Log

_LINES: Final = 100
_PAIRS: Final = 1000
"""Pairs of a record: a batch of one stays below what a broker takes."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0

log = Log(__name__)


class Cursor(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a sender is. `journal` and `audit` name which ones: others begin anew."""

    journal: str
    audit: str
    record: int = 0
    line: int = 0
    day: str = ""
    """The last day whose pairs are out, or going out: then `piece` is the octet of its file where the next begin."""
    piece: int = -1


class Trail(Protocol):
    """What is read of an audit trail."""

    def read(self, after: int, most: int) -> Sequence[Mapping[str, Any]]:
        """Lines with a number above `after`."""


class Journal(Protocol):
    """What is read of a journal."""

    def read_journal(self, after: int, most: int) -> tuple[Sequence[Any], int]:
        """Records with a number above `after`, and the number looked up to. Raises OSError."""


class Sources:
    """What a node has to tell. Blocks, and raises OSError. `pairs`: the directory of the days' files."""

    def __init__(
        self, node: str, journal: Journal, trail: Trail, pairs: Path, journal_name: str, audit_name: str
    ) -> None:
        self.node = node
        self._journal = journal
        self._trail = trail
        self._pairs = pairs
        self._names = (journal_name, audit_name)

    def begin(self, known: Cursor | None) -> Cursor:
        """Where a sender goes on; in a journal or an audit trail that it does not know, at the beginning."""
        journal, audit = self._names
        if known is None:
            return Cursor(journal, audit)
        record = known.record if known.journal == journal else 0
        line = known.line if known.audit == audit else 0
        return Cursor(journal, audit, record, line, known.day, known.piece)

    def read(self, cursor: Cursor) -> tuple[list[Report], Cursor]:
        """A batch, and where it ends; without a record and with the same cursor, there is nothing."""
        records, reached = self._journal.read_journal(cursor.record, MAX_BATCH)
        if reached > cursor.record:
            return of_journal(self.node, records), msgspec.structs.replace(cursor, record=reached)
        found: list[Report] = []
        line = cursor.line
        for entry in self._trail.read(cursor.line, _LINES):
            told = of_audit(entry)
            if found and len(found) + len(told) > MAX_BATCH:
                break
            found += told
            line = int(entry["n"])
        if line > cursor.line:
            return found, msgspec.structs.replace(cursor, line=line)
        return self._read_pairs(cursor)

    def _read_pairs(self, cursor: Cursor) -> tuple[list[Report], Cursor]:
        """The next piece of a day's pairs."""
        days = sorted(path.stem for path in self._pairs.glob("[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].csv"))
        for day in days:
            if day < cursor.day or (day == cursor.day and cursor.piece < 0):
                continue
            offset = cursor.piece if day == cursor.day else 0
            path = self._pairs / f"{day}.csv"
            at = int(path.stat().st_mtime)
            pairs, behind = _piece(path, offset)
            after = msgspec.structs.replace(cursor, day=day, piece=behind)
            return ([of_pairs(self.node, day, at, offset, pairs)] if pairs else []), after
        return [], cursor


def _piece(path: Path, offset: int) -> tuple[list[tuple[str, str]], int]:
    """Some pairs of a day's file, `imei,imsi`, and where the next begin; -1: there are no more."""
    with path.open("rb") as file:
        file.seek(offset)
        if not offset:
            file.readline()
        pairs = []
        for _ in range(_PAIRS):
            imei, _, imsi = file.readline().decode().strip().partition(",")
            if imsi:
                pairs.append((imei, imsi))
        after = file.tell()
        return pairs, after if file.readline() else -1


class Way(Protocol):
    """A way out."""

    async def take(self, node: str, reports: Sequence[Report]) -> None:
        """Takes a batch for good. Raises OSError or MqttError where that failed: the same batch comes again."""

    async def close(self) -> None:
        """Lets go of everything."""


class Reporter:
    """Brings what there is to one way out. `cursor` is the file that says how far it is."""

    def __init__(self, name: str, sources: Sources, way: Way, cursor: Path, random: Callable[[], float]) -> None:
        self.counts: Counter[str] = Counter()
        """sent, by kind; failed."""
        self.error = ""
        self._name = name
        self._sources = sources
        self._way = way
        self._file = cursor
        self._random = random
        self._cursor: Cursor | None = None

    async def run(self, interval: float) -> None:
        """Sends what comes, looking so often, and tries again after growing pauses. Never returns."""
        pause = _FIRST_PAUSE
        try:
            while True:
                try:
                    while await self.step():
                        self.error, pause = "", _FIRST_PAUSE
                except (OSError, aiomqtt.MqttError, ValueError) as error:
                    self.counts["failed"] += 1
                    if not self.error:
                        log.error("reports do not go out", way=self._name, error=str(error))
                    self.error = str(error) or type(error).__name__
                    await asyncio.sleep(pause * (0.5 + self._random()))
                    pause = min(2 * pause, _LONGEST_PAUSE)
                else:
                    self.error = ""
                    await asyncio.sleep(interval)
        finally:
            await self._way.close()

    async def step(self) -> bool:
        """Sends the next batch; whether there was anything. Raises what the way out does, OSError and ValueError."""
        if self._cursor is None:
            self._cursor = self._sources.begin(await asyncio.to_thread(_read_cursor, self._file))
        reports, after = await asyncio.to_thread(self._sources.read, self._cursor)
        if after == self._cursor:
            return False
        if reports:
            await self._way.take(self._sources.node, reports)
            self.counts.update(report.kind for report in reports)
        await asyncio.to_thread(_write_whole, self._file, msgspec.json.encode(after))
        self._cursor = after
        return True


def _read_cursor(path: Path) -> Cursor | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Cursor)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        # What was sent is sent again, which is harmless.
        log.error("how far reports are cannot be read, and they begin anew", path=str(path))
        return None


def _write_whole(path: Path, octets: bytes) -> None:
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


class DayFiles:
    """JSON, a record a line, a file for each UTC day in which it was sent; one without `.part` gets no more lines."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._clock = clock

    async def take(self, node: str, reports: Sequence[Report]) -> None:
        """Appends, and has it on the disk. Raises OSError."""
        day = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%d")
        lines = [json.dumps({"node": node, **msgspec.to_builtins(report)}, ensure_ascii=False) for report in reports]
        await asyncio.to_thread(self._append, day, "".join(f"{line}\n" for line in lines).encode())

    def _append(self, day: str, octets: bytes) -> None:
        self._directory.mkdir(exist_ok=True)
        name = f"reports-{day}.jsonl"
        for other in self._directory.glob("reports-*.jsonl.part"):
            if other.name != f"{name}.part":
                _cut(other)
                other.rename(other.with_suffix(""))
        path = self._directory / f"{name}.part"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            _cut(path)
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())

    async def close(self) -> None:
        """Nothing is held."""


def _cut(path: Path) -> None:
    """Takes away a last line that an end of the process cut off: its batch comes again."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            last = file.read(end - start).rfind(b"\n")
            if last >= 0:
                file.truncate(start + last + 1)
                return
            end = start
        file.truncate(0)


class BrokerWay:
    """The topic `eir/COUNTRY/reports/NODE`, QoS 1: taken when the broker has confirmed it."""

    def __init__(self, settings: MqttSettings) -> None:
        self._settings = settings
        self._client: aiomqtt.Client | None = None

    async def take(self, node: str, reports: Sequence[Report]) -> None:
        """Publishes. Raises OSError and MqttError."""
        try:
            if self._client is None:
                self._client = await self._connect()
            topic = f"eir/{self._settings.country}/reports/{node}"
            result = self._client.publish(topic, write_reports(node, reports), qos=1, timeout=20.0)
            await result
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> aiomqtt.Client:
        settings = self._settings
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = 1
        client = aiomqtt.Client(
            settings.host,
            settings.port,
            username=settings.username,
            password=settings.password,
            # Not that of the subscription, which a second connection of its name would end.
            identifier=f"{settings.client_id}-reports",
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            properties=properties,
            keepalive=settings.keepalive,
            timeout=10.0,
            tls_context=settings.tls,
        )
        return await client.__aenter__()

    async def close(self) -> None:
        """Ends the connection, if there is one."""
        client, self._client = self._client, None
        if client is not None:
            try:
                await client.__aexit__(None, None, None)
            except (aiomqtt.MqttError, OSError):
                log.debug("a connection to the broker of reports did not end well")
