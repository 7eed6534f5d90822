"""A publisher in the test's own event loop, over a directory of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from eir.publisher.book import Book
from eir.publisher.packages import Packages
from eir.publisher.rows import device
from eir.publisher.server import Broker, PublisherServer, Serving
from support.packages import KEY


@dataclass
class Publisher:
    """Its lists, its packages, and where it is served."""

    book: Book
    packages: Packages
    server: PublisherServer
    base: str

    def set(self, imei: str, listing: str, reason: str = "", until: str = "") -> None:
        self.book.put([device(imei, listing, reason, until)])

    def publish(self, now: int = 1_790_000_000) -> int | None:
        return self.packages.publish(self.book, now)


@asynccontextmanager
async def publishing(
    directory: Path, *, automatic: bool = False, token: str = "", broker: int | None = None
) -> AsyncIterator[Publisher]:
    directory.mkdir(exist_ok=True)
    book = Book(directory / "lists.db")
    packages = Packages(directory, "test", KEY)
    reached = None if broker is None else Broker("127.0.0.1", broker)
    server = PublisherServer(
        Serving("127.0.0.1", 0, "test", automatic, token, None, reached), directory / "lists.db", packages
    )
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.run(ready.set_result))
    try:
        await asyncio.wait((ready, task), timeout=10, return_when=asyncio.FIRST_COMPLETED)
        yield Publisher(book, packages, server, f"http://127.0.0.1:{ready.result()}")
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        book.close()
