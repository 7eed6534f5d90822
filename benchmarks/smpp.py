"""Parts a second through one SMPP connection, against an SMSC in Perl that has a processor of its own."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.stage import Stage, running
from sms.gateway import Part, submit
from sms.settings import SmscSettings
from sms.smpp import SmppGateway

SCRIPT = Path(__file__).parents[1] / "tests" / "support" / "smsc.pl"
WINDOW = 100
PARTS = 60_000
_TEXT = ("Құрылғыңызды тіркеңіз. " * 3)[:66].encode("utf-16-be")


def smpp(stage: Stage) -> Iterator[Figure]:
    """Parts submitted and accepted, none written down by the SMSC: its disk is not what is measured."""
    perl = shutil.which("perl")
    if perl is None or subprocess.run([perl, "-MNet::SMPP", "-e", "1"], capture_output=True).returncode:
        print("NOT MEASURED: Net::SMPP of Perl is not installed", flush=True)
        return
    command = [perl, str(SCRIPT), str(stage.directory / "submits.jsonl"), "record=0"]
    with running(command, cpu=None, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as smsc:
        assert smsc.stdout is not None
        port = int(smsc.stdout.readline())
        yield Figure("parts_per_s", asyncio.run(parts_per_s(port)), "1/s", (">=", 4000))


async def parts_per_s(port: int, parts: int = PARTS) -> float:
    """The rate with a full window, once it is bound."""
    gateway = SmppGateway([SmscSettings(name="smsc", host="127.0.0.1", port=port, system_id="eir", window=WINDOW)])
    await gateway.start(lambda _: None)
    async with asyncio.timeout(10):
        while gateway.status()[0]["state"] != "bound":
            await asyncio.sleep(0.01)
    numbers = iter(range(parts))

    async def submit_some() -> None:
        for number in numbers:
            await submit(gateway, Part(f"999{number:08}", "", "ucs2", _TEXT, number & 0xFFFF, 1, 2))

    begin = time.perf_counter()
    await asyncio.gather(*(submit_some() for _ in range(WINDOW)))
    took = time.perf_counter() - begin
    await gateway.close()
    return parts / took
