"""A node with a Python thread that spins while it is told to: `spin` and `rest`, a line each on standard input."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

from eir import log
from eir.app import Application

spinning = threading.Event()


def _spin() -> None:
    while True:
        spinning.wait()
        for _ in range(10_000):
            pass


def _obey() -> None:
    for line in sys.stdin:
        (spinning.set if line.strip() == "spin" else spinning.clear)()


def _announce(line: str) -> None:
    # Started here, where the node is up: like every thread of the control plane, they stand back behind the data plane.
    for target in (_spin, _obey):
        threading.Thread(target=target, daemon=True).start()
    print(line, flush=True)


log.set_up("warning")
asyncio.run(Application(Path(sys.argv[1]), announce=_announce).run())
