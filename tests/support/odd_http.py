"""A server of lists that misbehaves: it answers each request as the test says, else as it should."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from support.packages import Made


class Request(NamedTuple):
    path: str
    headers: dict[str, str]


Writing = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


class OddServer:
    """Packages by path, requests as they came, and for paths an answer of the test's own, a list: each once."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.contents: dict[str, bytes] = {}
        self.odd: dict[str, list[bytes | Writing]] = {}
        self.port = 0

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def has(self, *packages: Made) -> None:
        """Has these, the newest delta and snapshot of them to be fetched."""
        for made in packages:
            folder = "deltas" if made.manifest.kind == "delta" else "snapshots"
            place = f"/v1/{folder}/{made.manifest.sequence}"
            self.contents[f"{place}/manifest.json"] = made.manifest_bytes
            self.contents[f"{place}/manifest.json.sig"] = made.signature
            for name, octets in made.files.items():
                self.contents[f"{place}/{name}"] = octets
        numbers = {
            kind: [made.manifest.sequence for made in packages if made.manifest.kind == kind]
            for kind in ("delta", "snapshot")
        }
        current = {
            "country": "test",
            "sequence": max(made.manifest.sequence for made in packages),
            "snapshot": max(numbers["snapshot"], default=None),
            "first_delta": min(numbers["delta"], default=None),
        }
        self.contents["/v1/current"] = json.dumps(current).encode()

    def asked(self, end: str) -> list[Request]:
        return [request for request in self.requests if request.path.endswith(end)]

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
            request = Request(head[0].split()[1], headers)
            self.requests.append(request)
            odd = next((answers for end, answers in self.odd.items() if request.path.endswith(end) and answers), None)
            if odd:
                answer = odd.pop(0)
                if isinstance(answer, bytes):
                    writer.write(answer)
                else:
                    await answer(request, writer)
            else:
                writer.write(self._answer(request))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _answer(self, request: Request) -> bytes:
        body = self.contents.get(request.path)
        if body is None:
            return answer(404)
        if "range" in request.headers:
            start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
            return answer(206, body[start:], f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}\r\n")
        return answer(200, body)


def answer(status: int, body: bytes = b"", headers: str = "", length: int | None = None) -> bytes:
    """A whole answer, or one that says another length than it has."""
    said = len(body) if length is None else length
    return f"HTTP/1.1 {status} X\r\nContent-Length: {said}\r\nConnection: close\r\n{headers}\r\n".encode() + body


@asynccontextmanager
async def odd_server() -> AsyncIterator[OddServer]:
    odd = OddServer()
    server = await asyncio.start_server(odd.accept, "127.0.0.1", 0)
    odd.port = server.sockets[0].getsockname()[1]
    try:
        yield odd
    finally:
        server.close()
