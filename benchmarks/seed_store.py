"""Fills a SQLite store with timers that run out at given seconds: `seed_store.py FILE COUNT DEADLINE...`.

COUNT devices for each deadline, as the national database would have timed them. The file's directory must be there.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from eir.timers.grey import Device, National, Timer
from eir.timers.sqlite_store import SqliteStore
from eir.timers.store import Change

_FIRST = 37_000_000_000_000
_BATCH = 5000


async def main(path: Path, count: int, deadlines: list[int]) -> None:
    """Writes every device in a transaction of some thousand."""
    store = SqliteStore(path)
    await store.open()
    for number, deadline in enumerate(deadlines):
        for first in range(0, count, _BATCH):
            changes = []
            for device in range(first, min(first + _BATCH, count)):
                imei = _FIRST + (number * count + device) * 7919
                start = deadline - 30 * 86400
                national = National(1, start, deadline)
                changes.append(Change(Device(imei, national=national), 0, Timer(start, deadline, "running")))
            await store.commit(changes, 0)
    await store.close()


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), [int(text) for text in sys.argv[3:]]))
