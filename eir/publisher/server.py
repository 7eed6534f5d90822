"""The publisher as a server: its packages over HTTP, its deltas at a broker, the nodes' reports into a file.

The paths are those of docs/wire-format.md. Called by `eir publisher serve`.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import threading
from typing import Final

import aiomqtt
import msgspec
from aiohttp import web
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from eir.lists.versions import MANIFEST, SIGNATURE
from eir.log import Log
from eir.publisher.catalogue import Catalogue

MAX_INLINE: Final = 256 << 10
"""Octets of the files of a delta up to which they are in the message itself."""
_MAX_REPORT: Final = 4 << 20
_MANY_DELTAS: Final = 500
"""Deltas behind a snapshot after which there is to be another: nodes have as many to read when they start."""
_LOOK: Final = 0.05
_SESSION_SECONDS: Final = 7 * 86400
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")

log = Log(__name__)


class Publisher:
    """A server of one catalogue. `broker` is (host, port) of an MQTT 5 broker, if there is one."""

    def __init__(self, catalogue: Catalogue, broker: tuple[str, int] | None) -> None:
        self._catalogue = catalogue
        self._country = catalogue.country
        self._topic = f"eir/{catalogue.country}/deltas"
        self._broker = broker
        self._writing = threading.Lock()
        if catalogue.snapshot is None:
            catalogue.make_snapshot()

    async def serve(self, host: str, port: int) -> tuple[web.AppRunner, int]:
        """Listens; the runner to clean up in the end, and the port."""
        app = web.Application(client_max_size=_MAX_REPORT)
        app.router.add_get("/v1/current", self._current)
        app.router.add_get("/v1/{kind:snapshots|deltas}/{sequence:[0-9]{1,18}}/{name}", self._file)
        app.router.add_post("/v1/reports", self._report)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, host, port)
        await site.start()
        return runner, int(runner.addresses[0][1])

    async def tell(self, every: float) -> None:
        """Makes a delta without changes where there was none for so many seconds: that the lists are still true is news
        to nodes; and a snapshot where there are many deltas behind the last. Never returns."""
        while True:
            before = self._catalogue.sequence
            await asyncio.sleep(every)
            try:
                if self._catalogue.sequence == before:
                    self._catalogue.change(())
                sequence, snapshot = self._catalogue.current()
                if sequence - (snapshot or 0) >= _MANY_DELTAS:
                    self._catalogue.make_snapshot()
            except (OSError, sqlite3.Error) as error:
                log.warning("no package can be made", error=str(error))

    async def publish(self) -> None:
        """Publishes each new delta at the broker, in order, from the present one on, and takes the reports that come
        there. Never returns."""
        assert self._broker is not None
        reached = self._catalogue.sequence
        while True:
            reason = "the broker has ended it"
            try:
                async with self._client(*self._broker) as client:
                    await client.subscribe(f"eir/{self._country}/reports/+", qos=1)
                    taking = asyncio.create_task(self._take_reports(client))
                    try:
                        while not taking.done():
                            while reached < self._catalogue.sequence:
                                await client.publish(self._topic, self._message(reached + 1), qos=1)
                                reached += 1
                            await asyncio.sleep(_LOOK)
                    finally:
                        taking.cancel()
                        await asyncio.gather(taking, return_exceptions=True)
            except (aiomqtt.MqttError, OSError, sqlite3.Error) as error:
                # Also where a delta cannot be read: it may be there again, and no later one goes before it.
                reason = str(error)
            log.warning("nothing is published at the broker", error=reason)
            await asyncio.sleep(1.0)

    def _client(self, host: str, port: int) -> aiomqtt.Client:
        """A client whose reports the broker keeps while it is away."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _SESSION_SECONDS
        properties.MaximumPacketSize = _MAX_REPORT
        client = aiomqtt.Client(
            host,
            port,
            identifier=f"eir-publisher-{self._country}",
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=properties,
        )
        # aiomqtt has no word for it: a report is acknowledged when it is in the file.
        client._client.manual_ack_set(True)
        return client

    async def _take_reports(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            line = _line(message.payload if isinstance(message.payload, bytes) else b"")
            if line is None:
                log.warning("a report at the broker is not readable")
            else:
                await asyncio.to_thread(self._append, line)
            client._client.ack(message.mid, message.qos)

    def _message(self, sequence: int) -> bytes:
        place = self._catalogue.manifest("delta", sequence)
        files = {path.name: path for path in place.iterdir() if path.name not in (MANIFEST, SIGNATURE)}
        told: dict[str, object] = {
            "manifest": (place / MANIFEST).read_bytes(),
            "signature": (place / SIGNATURE).read_bytes(),
        }
        if sum(path.stat().st_size for path in files.values()) <= MAX_INLINE:
            told["files"] = {name: path.read_bytes() for name, path in files.items()}
        return msgspec.msgpack.encode(told)

    async def _current(self, request: web.Request) -> web.Response:
        sequence, snapshot = self._catalogue.current()
        octets = msgspec.json.encode({"snapshot": snapshot, "sequence": sequence})
        etag = f'"{snapshot}-{sequence}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(body=octets, content_type="application/json", headers={"ETag": etag})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        kind, name = request.match_info["kind"], request.match_info["name"]
        path = self._catalogue.directory / kind / str(int(request.match_info["sequence"])) / name
        if not _NAME.fullmatch(name) or not path.is_file():
            raise web.HTTPNotFound
        return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})

    async def _report(self, request: web.Request) -> web.Response:
        line = _line(await request.read())
        if line is None:
            raise web.HTTPBadRequest
        await asyncio.to_thread(self._append, line)
        return web.Response(status=204)

    def _append(self, line: bytes) -> None:
        """Returns when it is on the disk: who sent it may forget it then."""
        path = self._catalogue.directory / "reports.jsonl"
        # Reports of pairs name subscribers.
        with self._writing, open(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "ab+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            if end and file.read(1) != b"\n":
                # A line that a full disk, or the end of the process, has cut off stays one of its own.
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _line(octets: bytes) -> bytes | None:
    """A batch of reports as a line of JSON; None for what is none."""
    try:
        batch = msgspec.msgpack.decode(octets, type=dict[str, object])
        return msgspec.json.encode(batch, order="deterministic") + b"\n"
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError, ValueError):
        return None
