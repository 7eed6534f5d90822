"""`eir.publisher.server`: what a publisher makes by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eir.publisher import server
from eir.publisher.catalogue import Catalogue, Change
from eir.publisher.server import Publisher


def test_a_snapshot_follows_many_deltas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_MANY_DELTAS", 3)
    catalogue = Catalogue(tmp_path / "publisher", "test")
    publisher = Publisher(catalogue, None)

    async def told(until: int) -> None:
        telling = asyncio.create_task(publisher.tell(0.01))
        async with asyncio.timeout(10):
            while catalogue.sequence < until:
                await asyncio.sleep(0.01)
        telling.cancel()

    assert catalogue.current() == (0, 0)
    catalogue.change([Change(35900000000001, "white")])
    asyncio.run(told(2))
    assert catalogue.current() == (2, 0)
    asyncio.run(told(4))
    assert catalogue.current() == (4, 3)
    catalogue.close()
