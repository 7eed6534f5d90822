"""kill -9 of a process that commits: what was acknowledged is in the store, and devices and cursor agree."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from eir.timers import grey
from eir.timers.sqlite_store import SqliteStore
from eir.timers.store import encode
from support.stores import FIRST_IMEI, device

BATCH = 40
"""New devices in a commit; batch n has those from n times this, and changes the device HOT."""
HOT = 90_000_000

COMMITTER = f"""
import asyncio, sys
from pathlib import Path
from eir.timers import grey, sqlite_store
from support.stores import FIRST_IMEI, RULES, Change, change, device, message

# Bringing the log into the file must be met as well, and often.
sqlite_store._LOGGED = 200

async def run():
    store = sqlite_store.SqliteStore(Path(sys.argv[1]))
    await store.open()
    batch = await store.position("journal:a")
    print("open", flush=True)
    while True:
        numbers = range(batch * {BATCH}, (batch + 1) * {BATCH})
        changes = [change(device(n), messages=(message(n),)) for n in numbers]
        hot = (await store.load([FIRST_IMEI + {HOT}])).get(FIRST_IMEI + {HOT})
        seen = grey.Seen("001010000000001", batch)
        changes.append(change(grey.Device(FIRST_IMEI + {HOT}, seen=(seen,)), hot.version if hot else 0))
        assert not await store.commit(changes, 0, "journal:a", batch + 1)
        batch += 1
        print(batch, flush=True)

asyncio.run(run())
"""


def killed(path: Path, after: float) -> int:
    """Lets a process commit for so many seconds and kills it; the last batch that it acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMITTER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": ""},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        timer = threading.Timer(after, process.kill)
        timer.start()
        acknowledged = 0
        for line in process.stdout:
            if line.endswith("\n"):
                acknowledged = int(line)
        timer.cancel()
    assert process.returncode == -9
    return acknowledged


async def agree(path: Path, acknowledged: int) -> int:
    """Looks at what the store has after a kill; its cursor."""
    store = SqliteStore(path)
    await store.open()
    try:
        assert await store.problems() == []
        batches = await store.position("journal:a")
        assert batches >= acknowledged, "forgotten"
        loaded = await store.load(range(FIRST_IMEI, FIRST_IMEI + (batches + 2) * BATCH))
        assert len(loaded) == batches * BATCH == (await store.counts()).queued
        number = random.randrange(len(loaded)) if loaded else 0
        assert not loaded or encode(loaded[FIRST_IMEI + number].device) == encode(device(number))
        hot = (await store.load([FIRST_IMEI + HOT])).get(FIRST_IMEI + HOT)
        if hot is None:
            assert not batches
        else:
            assert hot.version == batches
            assert hot.device.seen == (grey.Seen("001010000000001", batches - 1),)
    finally:
        await store.close()
    return batches


def test_what_was_committed_is_not_forgotten(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    rounds = request.config.getoption("--rounds")
    path = tmp_path / "store.db"
    batches = in_load = 0
    for number in range(rounds):
        acknowledged = killed(path, random.uniform(0.0, 0.4))
        batches = asyncio.run(agree(path, max(acknowledged, batches)))
        in_load += bool(acknowledged)
        if number % 20 == 19:
            # A store that grows makes every look at it longer.
            for file in tmp_path.glob("store.db*"):
                file.unlink()
            batches = 0
    assert in_load >= rounds // 3
