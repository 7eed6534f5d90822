"""`eir.lists.sync_http` against a server that does what servers do: it stalls, breaks off, lies, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from eir.lists.sync_http import HttpSettings, HttpSource
from support.packages import FakeReceiver, Made, make

IMEI = "35900000000001"
ROWS = "".join(f"{35_900_000_000_000 + number},white,\n" for number in range(5000))


class Server:
    """Serves packages; `trouble` may answer in its place, and is asked with each request and how many there were."""

    def __init__(self, *packages: Made) -> None:
        self.packages = {(made.manifest.kind, made.manifest.sequence): made for made in packages}
        self.asked: list[tuple[str, str]] = []
        self.trouble: Callable[[web.Request, int], Awaitable[web.StreamResponse | None]] | None = None
        self.url = ""

    async def __aenter__(self) -> Server:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, request.headers.get("Range", "")))
        if self.trouble is not None and (answer := await self.trouble(request, len(self.asked))) is not None:
            return answer
        if request.path == "/v1/current":
            snapshot = max((sequence for kind, sequence in self.packages if kind == "snapshot"), default=0)
            return web.json_response({"snapshot": snapshot, "sequence": max(one for _, one in self.packages)})
        _, _, kind, sequence, name = request.path.split("/")
        made = self.packages.get((kind.removesuffix("s"), int(sequence)))  # type: ignore[arg-type]
        if made is None:
            raise web.HTTPNotFound
        files = {**made.files, "manifest.json": made.manifest_bytes, "manifest.json.sig": made.signature}
        octets = files[name]
        if part := request.headers.get("Range"):
            begin = int(part.removeprefix("bytes=").removesuffix("-"))
            said = {"Content-Range": f"bytes {begin}-{len(octets) - 1}/{len(octets)}"}
            return web.Response(status=206, body=octets[begin:], headers=said)
        return web.Response(body=octets)


@pytest.fixture
def receiver(tmp_path: Path) -> FakeReceiver:
    return FakeReceiver(tmp_path / "incoming", None)


def delta(sequence: int) -> Made:
    return make(sequence, f"set,{IMEI},white,,\n", previous=sequence - 1)


def follow(server: Server, receiver: FakeReceiver, sequence: int, within: float = 30.0) -> HttpSource:
    """Runs a source until the receiver is as far; it must never end by itself."""

    async def run() -> HttpSource:
        async with server:
            settings = HttpSettings(server.url, 0.05, 0.5)
            source = HttpSource(settings, receiver, lambda: 0.0)
            running = asyncio.create_task(source.run())
            while receiver.sequence != sequence:
                assert not running.done(), running.exception()
                await asyncio.sleep(0.02)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            return source

    return asyncio.run(asyncio.wait_for(run(), within))


def test_the_snapshot_first_and_then_delta_by_delta(receiver: FakeReceiver) -> None:
    server = Server(make(3, ROWS), delta(2), delta(4), delta(5))
    follow(server, receiver, 5)
    assert receiver.taken == [(3, "http"), (4, "http"), (5, "http")]
    assert not list(receiver.root.iterdir())


def test_the_snapshot_where_deltas_are_gone(receiver: FakeReceiver) -> None:
    receiver.sequence = 1
    follow(Server(delta(4), make(5, ROWS), delta(6)), receiver, 6)
    assert [sequence for sequence, _ in receiver.taken] == [5, 6]


def test_a_transfer_that_breaks_goes_on_where_it_stopped(receiver: FakeReceiver) -> None:
    server = Server(make(1, ROWS))
    cut = iter((1000, 2500))

    async def trouble(request: web.Request, _: int) -> web.StreamResponse | None:
        if not request.path.endswith("devices.csv") or (end := next(cut, None)) is None:
            return None
        octets = server.packages["snapshot", 1].files["devices.csv"]
        begin = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        answer = web.StreamResponse(status=206 if begin else 200)
        answer.content_length = len(octets) - begin
        if begin:
            answer.headers["Content-Range"] = f"bytes {begin}-{len(octets) - 1}/{len(octets)}"
        await answer.prepare(request)
        await answer.write(octets[begin:end])
        assert request.transport is not None
        request.transport.close()
        return answer

    server.trouble = trouble
    follow(server, receiver, 1)
    parts = [part for path, part in server.asked if path.endswith("devices.csv")]
    assert parts == ["", "bytes=1000-", "bytes=2500-"]


async def stall(request: web.Request, _: int) -> web.StreamResponse | None:
    answer = web.StreamResponse()
    answer.content_length = 1 << 20
    await answer.prepare(request)
    await answer.write(b"x" * 100)
    await asyncio.sleep(60)
    return answer


async def endless(request: web.Request, _: int) -> web.StreamResponse | None:
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b"x" * 10_000)


async def redirect(request: web.Request, _: int) -> web.StreamResponse | None:
    return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/elsewhere"})


async def short(request: web.Request, _: int) -> web.StreamResponse | None:
    return web.Response(body=b"imei")


async def no_parts(request: web.Request, _: int) -> web.StreamResponse | None:
    return web.Response(status=416) if request.headers.get("Range") else None


async def failing(request: web.Request, _: int) -> web.StreamResponse | None:
    return web.Response(status=503, headers={"Retry-After": "1"})


async def garbage(request: web.Request, _: int) -> web.StreamResponse | None:
    return web.Response(body=b'{"snapshot": -1, "sequence": "x"}')


@pytest.mark.parametrize("where", ["current", "manifest.json", "manifest.json.sig", "devices.csv"])
@pytest.mark.parametrize("trouble", [stall, endless, redirect, short, no_parts, failing, garbage])
def test_whatever_it_does_it_is_followed_again_when_it_has_come_to_its_senses(
    receiver: FakeReceiver,
    where: str,
    trouble: Callable[[web.Request, int], Awaitable[web.StreamResponse | None]],
) -> None:
    server = Server(make(1, ROWS))
    times = 0

    async def once(request: web.Request, number: int) -> web.StreamResponse | None:
        nonlocal times
        if request.path.endswith(f"/{where}") and times < 1:
            times += 1
            return await trouble(request, number)
        return None

    server.trouble = once
    source = follow(server, receiver, 1)
    assert source.error == "" or receiver.sequence == 1
    assert not list(receiver.root.iterdir())


def test_what_is_refused_is_not_fetched_over_and_over(receiver: FakeReceiver) -> None:
    receiver.refuse = True
    server = Server(make(1, ROWS))

    async def run() -> None:
        async with server:
            source = HttpSource(HttpSettings(server.url, 3600.0, 0.5), receiver, lambda: 0.0)
            running = asyncio.create_task(source.run())
            while not source.error:
                await asyncio.sleep(0.01)
            count = len(server.asked)
            await asyncio.sleep(2.5)
            assert len(server.asked) == count
            assert "snapshot 1 is refused: because" in source.error
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(asyncio.wait_for(run(), 20))
