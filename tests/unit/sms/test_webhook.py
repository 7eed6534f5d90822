"""Messages handed to an HTTP service: one of asyncio's own, which answers as each test says."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sms.gateway import Accepted, NotTakenError, RefusedError, UnansweredError, submit
from sms.settings import WebhookSettings
from sms.webhook import WebhookGateway
from support.certificates import Authority
from support.sms import NUMBER, part, until


class Request(NamedTuple):
    line: str
    headers: dict[str, str]
    message: dict[str, Any]


class Service:
    """What it is asked, and with what it answers: octets, or seconds of silence."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: bytes | float = response(200, b'{"id": "m-1"}')
        self.now = self.most = 0
        self.port = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
            body = await reader.readexactly(int(headers["content-length"]))
            self.requests.append(Request(head[0], headers, json.loads(body)))
            if isinstance(self.answer, bytes):
                await asyncio.sleep(0.01)
                writer.write(self.answer)
            else:
                await asyncio.sleep(self.answer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.now -= 1
            writer.close()


def response(status: int, body: bytes = b"", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n".encode() + body


@asynccontextmanager
async def served(tls: ssl.SSLContext | None = None) -> AsyncIterator[Service]:
    service = Service()
    server = await asyncio.start_server(service.accept, "127.0.0.1", 0, ssl=tls)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield service
    finally:
        server.close()


@asynccontextmanager
async def gateway(port: int, scheme: str = "http", **more: Any) -> AsyncIterator[WebhookGateway]:
    way = WebhookGateway(WebhookSettings(url=f"{scheme}://127.0.0.1:{port}/sms?key=hidden", **more))
    await way.start(lambda _: None)
    try:
        async with asyncio.timeout(20):
            yield way
    finally:
        await way.close()


async def outcome(way: WebhookGateway, error: type[Exception]) -> Any:
    with pytest.raises(error) as found:
        await submit(way, part())
    assert NUMBER not in str(found.value) and "hidden" not in str(found.value)
    return found.value


def test_a_message_is_posted_with_token_and_key(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t0ken\n")

    async def run() -> None:
        async with served() as service, gateway(service.port, token_file=str(token)) as way:
            assert await submit(way, part("Құрылғы", weight=3)) == Accepted("webhook", "")
            token.write_text("another\n")
            await submit(way, part("Құрылғы", weight=3))
            await submit(way, part("Құрылғы", reference=7))
            first, second, third = service.requests
            assert first.line == "POST /sms?key=hidden HTTP/1.1"
            assert first.headers["authorization"] == "Bearer t0ken"
            assert second.headers["authorization"] == "Bearer another"
            key = first.headers["idempotency-key"]
            assert first.message == {"id": key, "to": NUMBER, "text": "Құрылғы", "parts": 3}
            assert second.headers["idempotency-key"] == key != third.headers["idempotency-key"]
            token.unlink()
            assert (await outcome(way, NotTakenError)).reason == "token_file"
            assert len(service.requests) == 3

    asyncio.run(run())


@pytest.mark.parametrize(
    "body", [b"", b"ok", b"[]", b'{"id": 7}', b'{"id": "\\n"}', b"[" * 50_000, b"{" + b" " * 200_000]
)
def test_what_an_answer_holds_is_no_condition(body: bytes) -> None:
    async def run() -> None:
        async with served() as service, gateway(service.port) as way:
            service.answer = response(202, body)
            assert await submit(way, part()) == Accepted("webhook", "")

    asyncio.run(run())


@pytest.mark.parametrize(
    "status, error",
    [
        (302, RefusedError),
        (400, RefusedError),
        (404, RefusedError),
        (422, RefusedError),
        (401, NotTakenError),
        (408, NotTakenError),
        (500, UnansweredError),
        (502, UnansweredError),
        (504, UnansweredError),
    ],
)
def test_statuses(status: int, error: type[Exception]) -> None:
    async def run() -> None:
        async with served() as service, gateway(service.port) as way:
            service.answer = response(status, headers=f"Location: http://127.0.0.1:{service.port}/other\r\n")
            assert (await outcome(way, error)).reason == f"HTTP {status}"
            # No redirect is followed.
            assert len(service.requests) == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    "retry_after, least, most",
    [
        ("2", 2, 2),
        ("0", 1, 1),
        ("999999999999999999999", 3600, 3600),
        ("-5", 5, 5),
        ("soon", 5, 5),
        (timedelta(seconds=300), 200, 300),
        (timedelta(days=-300), 1, 1),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_asks_to_wait(status: int, retry_after: str | timedelta, least: float, most: float) -> None:
    async def run() -> None:
        async with served() as service, gateway(service.port) as way:
            when = retry_after
            if isinstance(when, timedelta):
                when = format_datetime(datetime.now(UTC) + when, usegmt=True)
            service.answer = response(status, headers=f"Retry-After: {when}\r\n")
            assert least <= (await outcome(way, NotTakenError)).after <= most
            assert way.status()[0]["state"] == "backing-off"
            assert 0 < (await outcome(way, NotTakenError)).after <= most
            assert len(service.requests) == 1

    asyncio.run(run())


def test_what_goes_wrong_before_there_is_a_connection_and_after() -> None:
    async def run() -> None:
        async with served() as service:
            async with gateway(service.port, timeout=0.2) as way:
                service.answer = 5.0
                assert (await outcome(way, UnansweredError)).reason == "timeout"
                for broken in (
                    b"",
                    b"HTTP/1.1 2",
                    b"nonsense\r\n\r\n",
                    b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{",
                ):
                    service.answer = broken
                    await outcome(way, UnansweredError)
                assert way.status()[0]["unanswered"] == 5
                service.answer = response(200)
                assert isinstance(await submit(way, part()), Accepted)
                assert way.status()[0]["state"] == "bound"
            port = service.port
        async with gateway(port) as way:
            await outcome(way, NotTakenError)
            assert way.status()[0]["not_taken"] == 1

    asyncio.run(run())


def test_concurrency_and_rate() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with served() as service:
            async with gateway(service.port, concurrency=3) as way:
                await asyncio.gather(*(submit(way, part()) for _ in range(30)))
                assert service.most == 3
            async with gateway(service.port, concurrency=100, rate=50) as way:
                begin = loop.time()
                await asyncio.gather(*(submit(way, part(weight=2)) for _ in range(25)))
                assert 0.8 <= loop.time() - begin < 4

    asyncio.run(run())


def test_one_that_is_given_up_leaves_its_place() -> None:
    async def run() -> None:
        async with served() as service, gateway(service.port, concurrency=1) as way:
            service.answer = 10.0
            for number in range(1, 4):
                task = asyncio.create_task(submit(way, part()))
                await until(lambda number=number: len(service.requests) == number)  # type: ignore[misc]
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            service.answer = response(200)
            assert isinstance(await submit(way, part()), Accepted)

    asyncio.run(run())


def test_certificates_are_verified(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")

    def context(name: str) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(*ours.issue(name))
        return made

    async def run() -> None:
        async with served(context("127.0.0.1")) as service:
            async with gateway(service.port, "https", ca_file=str(ours.file)) as way:
                assert isinstance(await submit(way, part()), Accepted)
            for wrong in (theirs.file, tmp_path / "none"):
                async with gateway(service.port, "https", ca_file=str(wrong)) as way:
                    await outcome(way, NotTakenError)
        async with served(context("another.test")) as service:
            async with gateway(service.port, "https", ca_file=str(ours.file)) as way:
                await outcome(way, NotTakenError)
            assert service.requests == []

    asyncio.run(run())


def test_neither_url_nor_token_is_shown() -> None:
    check: Callable[[object], str] = repr
    assert "hidden" not in check(WebhookSettings(url="https://127.0.0.1/sms?key=hidden"))
