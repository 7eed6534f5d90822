"""Parts of texts, and ways out that are started and ended around a test."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from sms.gateway import Accepted, Part, Receipt, submit
from sms.settings import SmscSettings
from sms.smpp import SmppGateway

NUMBER = "99900000001"
PATIENCE = 15.0


def settings(port: int, name: str = "first", **more: Any) -> SmscSettings:
    """An SMSC on loopback."""
    return SmscSettings(name=name, host="127.0.0.1", port=port, system_id="eir", password="secret", **more)


def part(text: str = "Құрылғы", to: str = NUMBER, number: int = 1, of: int = 1, **more: Any) -> Part:
    """A part in UCS-2."""
    return Part(to, text, "ucs2", text.encode("utf-16-be"), more.pop("reference", 0x1234), number, of, **more)


def cut(text: str, each: int = 66, reference: int = 0xA1B2) -> list[Part]:
    """A text in UCS-2 in parts of so many characters."""
    pieces = [text[at : at + each] for at in range(0, len(text), each)]
    return [part(piece, number=n, of=len(pieces), reference=reference) for n, piece in enumerate(pieces, 1)]


async def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Waits until it is so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def gateway(
    *smscs: SmscSettings, bound: Iterable[int] | None = None
) -> AsyncIterator[tuple[SmppGateway, list[Receipt]]]:
    """A gateway that tries again soon, once all its SMSCs or those named are bound; and the receipts that come."""
    receipts: list[Receipt] = []
    made = SmppGateway(smscs, random.Random(1), delays=(0.05, 0.4))
    await made.start(receipts.append)
    try:
        wanted = range(len(smscs)) if bound is None else bound
        await until(lambda: all(set(links(made, n).values()) == {"bound"} for n in wanted))
        yield made, receipts
    finally:
        async with asyncio.timeout(PATIENCE):
            await made.close()


def links(made: SmppGateway, number: int = 0) -> dict[str, str]:
    """The state of each connection to an SMSC."""
    found = made.status()[number]["links"]
    assert isinstance(found, dict)
    return found


def state(made: SmppGateway, number: int = 0) -> str:
    """The state of an SMSC."""
    return str(made.status()[number]["state"])


def count(made: SmppGateway, name: str, number: int = 0) -> int:
    """One of an SMSC's counts."""
    found = made.status()[number][name]
    assert isinstance(found, int)
    return found


async def submit_all(made: SmppGateway, parts: Iterable[Part]) -> list[Accepted | BaseException]:
    """What became of each; none may take for ever."""
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*(submit(made, each) for each in parts), return_exceptions=True)
