"""`eir publisher serve`: the publisher's packages over HTTP, its deltas at a broker, and reports taken by both ways.

The lists are changed by other processes, in the same SQLite file: this looks several times a second whether anything
is to be published or announced. What is announced is remembered after the broker has confirmed it, so each package is
announced at least once, in order. Called by `cli_publisher`. docs/wire-format.md has all that is said here.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import sqlite3
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self, TypeVar

import aiomqtt
import msgspec
from aiohttp import web
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from eir.lists.reports import Report, ReportError, read_reports
from eir.log import Log
from eir.publisher.book import Book
from eir.publisher.packages import FOLDERS, Packages

log = Log(__name__)

_T = TypeVar("_T")

LONGEST_MESSAGE: Final = 1 << 20
"""Octets of the longest message to the broker: what nodes take."""
LONGEST_REPORT: Final = 4 << 20
_LOOK_SECONDS: Final = 0.05
_LONGEST_PAUSE: Final = 10.0
_SESSION_SECONDS: Final = 7 * 86400
_FILE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)
_KINDS: Final = {folder: kind for kind, folder in FOLDERS.items()}


@dataclass(frozen=True, slots=True)
class Broker:
    """How the broker is reached."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served, and where. `token`: what clients must show, empty: nothing. `automatic`: each change at once."""

    host: str
    port: int
    country: str
    automatic: bool = True
    token: str = ""
    tls: ssl.SSLContext | None = None
    broker: Broker | None = None


class _Current(msgspec.Struct):
    country: str
    sequence: int
    snapshot: int | None
    first_delta: int | None


class _Clerk:
    """The lists in a thread of their own, which ends with the work that it has begun."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "publisher")
        self._book: Book | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._thread.submit(self._close)
        self._thread.shutdown()

    async def do(self, work: Callable[[Book], _T]) -> _T:
        """What `work` makes of the lists. Raises what it does."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)

    def _do(self, work: Callable[[Book], _T]) -> _T:
        if self._book is None:
            self._book = Book(self._path)
        return work(self._book)

    def _close(self) -> None:
        if self._book is not None:
            self._book.close()


class PublisherServer:
    """The running publisher."""

    def __init__(self, serving: Serving, book: Path, packages: Packages) -> None:
        self.counts: Counter[str] = Counter()
        """requests, published, announced, reports."""
        self.port = 0
        self._serving = serving
        self._book = book
        self._packages = packages

    async def run(self, ready: Callable[[int], None]) -> None:
        """Serves until it is cancelled; `ready` is told the port."""
        application = web.Application(client_max_size=LONGEST_REPORT, middlewares=[self._check])
        application.router.add_get("/v1/current", self._current)
        application.router.add_get("/v1/{folder}/{sequence:[0-9]{1,19}}/{name}", self._file)
        application.router.add_post("/v1/reports", self._reports)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._serving.host, self._serving.port, ssl_context=self._serving.tls)
            await site.start()
            self.port = runner.addresses[0][1]
            ready(self.port)
            async with asyncio.TaskGroup() as tasks:
                if self._serving.automatic:
                    tasks.create_task(self._publish_changes())
                if self._serving.broker is not None:
                    tasks.create_task(self._follow_broker(self._serving.broker))
                # The site serves by itself.
                await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    # HTTP.

    @web.middleware
    async def _check(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.counts["requests"] += 1
        expected = f"Bearer {self._serving.token}"
        shown = request.headers.get("Authorization", "")
        if self._serving.token and not hmac.compare_digest(shown.encode(), expected.encode()):
            raise web.HTTPUnauthorized
        return await handler(request)

    async def _current(self, request: web.Request) -> web.Response:
        available = await asyncio.to_thread(self._with_book, lambda book: book.available())
        body = msgspec.json.encode(_Current(self._serving.country, *available))
        etag = hashlib.sha256(body).hexdigest()[:16]
        if any(one.value in (etag, "*") for one in request.if_none_match or ()):
            raise web.HTTPNotModified(headers={"ETag": f'"{etag}"'})
        return web.Response(body=body, content_type="application/json", headers={"ETag": f'"{etag}"'})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        kind = _KINDS.get(request.match_info["folder"])
        name = request.match_info["name"]
        if kind is None or _FILE.fullmatch(name) is None:
            raise web.HTTPNotFound
        path = self._packages.place(kind, int(request.match_info["sequence"])) / name
        if not path.is_file():
            raise web.HTTPNotFound
        # Files are served as they are: a name that ends in .gz is no coding of the transfer.
        return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})

    async def _reports(self, request: web.Request) -> web.Response:
        try:
            reports = read_reports(await request.read())
        except ReportError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        taken = await self._take(reports)
        return web.json_response({"taken": taken})

    async def _take(self, reports: Sequence[Report]) -> int:
        rows = [(report.id, report.node, msgspec.msgpack.encode(report)) for report in reports]
        taken: int = await asyncio.to_thread(self._with_book, lambda book: book.take_reports(rows))
        self.counts["reports"] += taken
        return taken

    def _with_book(self, work: Callable[[Book], _T]) -> _T:
        with closing(Book(self._book)) as book:
            return work(book)

    # Publishing.

    async def _publish_changes(self) -> None:
        """Has each change in a package as soon as it is seen."""

        def publish(book: Book) -> int | None:
            return self._packages.publish(book, int(time.time())) if book.is_changed() else None

        async with _Clerk(self._book) as clerk:
            while True:
                try:
                    sequence = await clerk.do(publish)
                    if sequence is not None:
                        self.counts["published"] += 1
                        log.info("published", sequence=sequence)
                except (sqlite3.Error, OSError) as error:
                    log.error("not published", error=str(error))
                    await asyncio.sleep(1.0)
                await asyncio.sleep(_LOOK_SECONDS)

    async def _follow_broker(self, broker: Broker) -> None:
        """Announces packages and takes reports at the broker, and connects again after growing pauses."""
        pause = 0.5
        while True:
            try:
                async with self._client(broker) as client:
                    await client.subscribe(f"eir/{self._serving.country}/reports/+", qos=1)
                    log.info("connected to the broker")
                    pause = 0.5
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(self._announce(client))
                        tasks.create_task(self._take_messages(client))
            except* (aiomqtt.MqttError, OSError, sqlite3.Error, ValueError) as errors:
                log.error("the broker cannot be used", error=str(errors.exceptions[0]))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _client(self, broker: Broker) -> aiomqtt.Client:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _SESSION_SECONDS
        properties.ReceiveMaximum = 16
        properties.MaximumPacketSize = LONGEST_REPORT
        return aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.password,
            tls_context=broker.tls,
            identifier=f"eir-publisher-{self._serving.country}",
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=properties,
            keepalive=15,
            timeout=10.0,
        )

    async def _announce(self, client: aiomqtt.Client) -> None:
        topic = f"eir/{self._serving.country}/deltas"
        async with _Clerk(self._book) as clerk:
            announced = await clerk.do(lambda book: book.number("announced"))
            while True:
                sequence = await clerk.do(lambda book: book.number("sequence"))
                while announced < sequence:
                    message = await asyncio.to_thread(self._packages.message, announced + 1, LONGEST_MESSAGE)
                    if message is not None:
                        await client.publish(topic, message, qos=1)
                        self.counts["announced"] += 1
                    announced += 1
                    await clerk.do(partial(_note_announced, sequence=announced))
                await asyncio.sleep(_LOOK_SECONDS / 2)

    async def _take_messages(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            try:
                reports = read_reports(message.payload if isinstance(message.payload, bytes) else b"")
                await self._take(reports)
            except (ReportError, sqlite3.Error) as error:
                log.warning("a message of reports was not taken", error=str(error))


def _note_announced(book: Book, sequence: int) -> None:
    with book.transaction():
        book.set_number("announced", sequence)
