"""The figures of messages: a day's reminders planned, parts submitted, and whether answers feel any of it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figure import Figure
from benchmarks.stage import ROOT, Stage, ask, running
from eir.timers.grey import Device, National, Seen, Timer
from eir.timers.sqlite_store import SqliteStore
from eir.timers.store import Change
from sms.gateway import Part, submit
from sms.settings import SmscSettings
from sms.smpp import SmppGateway

DEVICES = 1_000_000
PAIRS = 15
SUBMIT_SECONDS = 15
WINDOW = 100
SESSION_PARTS = 60_000
SCRIPT = ROOT / "tests" / "support" / "smsc.pl"
_FIRST = 37_000_000_000_000
_BATCH = 5000
_TEXT = ("Құрылғыңызды тіркеңіз. " * 3)[:66].encode("utf-16-be")
"""A part of a text in UCS-2, as long as one that is not the last."""
_SIGNED = {"agent": "bench", "reason": "bench"}
_SETTINGS = """[sms]
gateway = "smpp"
texts = "{texts}"
quiet_from = "00:00"
quiet_to = "00:00"
in_flight = 200
[[sms.smsc]]
name = "smsc"
host = "127.0.0.1"
port = {port}
system_id = "eir"
window = {window}
[sms.reminders]
begin = "{begin}"
end = "{end}"
late_until = "23:00"
"""


def messages(stage: Stage) -> Iterator[Figure]:
    """A million grey devices with a subscriber each, whose language nobody knows: two texts, nine parts."""
    with _smsc(stage) as port:
        if port is None:
            return
        yield Figure("smpp_session_parts_per_s", asyncio.run(_session_parts_per_s(port)), "1/s")
        texts = ROOT / "config" / "sms" / "kz.toml"
        # Nothing is planned until the window is put where the present is.
        later = {"begin": "21:00", "end": "22:00"}
        fixed = {"texts": texts, "port": port, "window": WINDOW}
        settings = _SETTINGS.format(**fixed, **later)
        config, _ = stage.configure("messages", settings)
        _put_noon_now(config)
        asyncio.run(_seed(config.parent / "timers.db"))
        with stage.started(config) as node:
            process = _pid_of(config)
            ask(config, "sms-pause", **_SIGNED)
            while ask(config, "status")["stats"]["timers"] < DEVICES:
                time.sleep(0.5)
            time.sleep(5)
            idle = _reset_peak(process)
            config.write_text(config.read_text().replace(settings, _SETTINGS.format(**fixed, **_now())))
            begin = time.perf_counter()
            ask(config, "reload")
            while not ask(config, "sms-queue")["reminders"]["passes"]:
                time.sleep(0.2)
            took = time.perf_counter() - begin
            queued = ask(config, "sms-queue")["reminders"]["queued"]
            if queued != DEVICES:
                raise RuntimeError(f"{queued} reminders were queued, not {DEVICES}")
            yield Figure("reminders_queued_s", took, "s", ("<=", 90))
            yield Figure("reminders_rss_mb", (_memory(process, "VmHWM") - idle) / 1e6, "MB", ("<=", 200))
            yield Figure("parts_per_s", _parts_per_s(config), "1/s", (">=", 2000))
            yield from _felt(stage, config, node)


def _now() -> dict[str, str]:
    """A window of ten minutes from now on, in the zone where it is noon: more than an SMSC can take."""
    minute = 12 * 60 + time.gmtime().tm_min
    return {name: f"{at // 60:02}:{at % 60:02}" for name, at in (("begin", minute), ("end", minute + 10))}


def _put_noon_now(config: Path) -> None:
    """Gives the laboratory's country a zone where it is between 12 and 13 o'clock now."""
    countries = config.parent / "countries"
    profile = (countries / "lab.toml").read_text().splitlines()
    countries.unlink()
    countries.mkdir()
    offset = 12 - time.gmtime().tm_hour
    zone = f"Etc/GMT{-offset:+d}"
    changed = [f'timezone = "{zone}"' if line.startswith("timezone") else line for line in profile]
    (countries / "lab.toml").write_text("\n".join(changed) + "\n")


async def _seed(path: Path) -> None:
    """Timers that began a week ago."""
    store = SqliteStore(path)
    await store.open()
    start = int(time.time()) - 7 * 86400
    deadline = start + 30 * 86400
    for first in range(0, DEVICES, _BATCH):
        changes = []
        for number in range(first, first + _BATCH):
            seen = (Seen(f"00101{number:010}", start, f"999{number:09}"),)
            device = Device(_FIRST + number * 7919, national=National(1, start, deadline), seen=seen)
            changes.append(Change(device, 0, Timer(start, deadline, "running")))
        await store.commit(changes, 0)
    await store.close()


async def _session_parts_per_s(port: int) -> float:
    """Parts a second through the bare session with its window full, once it is bound: no outbox and no store."""
    gateway = SmppGateway([SmscSettings(name="smsc", host="127.0.0.1", port=port, system_id="eir", window=WINDOW)])
    await gateway.start(lambda _: None)
    async with asyncio.timeout(10):
        while gateway.status()[0]["state"] != "bound":
            await asyncio.sleep(0.01)
    numbers = iter(range(SESSION_PARTS))

    async def submit_some() -> None:
        for number in numbers:
            await submit(gateway, Part(f"999{number:08}", "", "ucs2", _TEXT, number & 0xFFFF, 1, 2))

    begin = time.perf_counter()
    await asyncio.gather(*(submit_some() for _ in range(WINDOW)))
    took = time.perf_counter() - begin
    await gateway.close()
    return SESSION_PARTS / took


def _parts_per_s(config: Path) -> float:
    """Parts that the SMSC has taken, through outbox and store, with its window full."""
    ask(config, "sms-resume", **_SIGNED)
    time.sleep(3)
    before, begin = _accepted(config), time.perf_counter()
    time.sleep(SUBMIT_SECONDS)
    rate = (_accepted(config) - before) / (time.perf_counter() - begin)
    ask(config, "sms-pause", **_SIGNED)
    return rate


def _felt(stage: Stage, config: Path, port: int) -> Iterator[Figure]:
    """p99 of ordinary answers while reminders go out, beside without; median of fifteen pairs."""
    arguments = ("--rate", 20_000, "--seconds", 2, "--busy-poll", *stage.about_listed())
    pairs, rates = [], []
    for _ in range(PAIRS):
        _wait_for_rest(config)
        quiet = stage.load(port, *arguments)["latency_ns"]["p99"]
        ask(config, "sms-resume", **_SIGNED)
        time.sleep(2)
        before, begin = _accepted(config), time.perf_counter()
        sending = stage.load(port, *arguments)["latency_ns"]["p99"]
        rates.append((_accepted(config) - before) / (time.perf_counter() - begin))
        ask(config, "sms-pause", **_SIGNED)
        if not rates[-1]:
            raise RuntimeError("no reminder went out meanwhile")
        pairs.append((quiet, sending))
    yield Figure("sms_p99_quiet_us", median(quiet for quiet, _ in pairs) / 1000, "µs")
    yield Figure("sms_p99_sending_us", median(sending for _, sending in pairs) / 1000, "µs")
    yield Figure("sms_p99_parts_per_s", median(rates), "1/s")
    yield Figure("sms_p99_ratio", median(sending / quiet for quiet, sending in pairs), "ratio", ("<=", 3))


def _wait_for_rest(config: Path) -> None:
    """Until a pause holds and what was under way has ended."""
    end = time.monotonic() + 30
    while (outbox := ask(config, "sms-queue")["outbox"])["stopped"] != "paused" or outbox["active"]:
        if time.monotonic() > end:
            raise RuntimeError(f"messages do not rest: {outbox}")
        time.sleep(0.1)
    time.sleep(0.5)


def _accepted(config: Path) -> int:
    parts: dict[str, Any] = ask(config, "sms-queue")["outbox"]["parts"]
    return int(parts.get("accepted", 0))


def _pid_of(config: Path) -> int:
    """The node's process, as its store's lock names it."""
    return int((config.parent / "timers.db.lock").read_text())


def _memory(process: int, name: str) -> int:
    """Octets, from /proc/PID/status."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) * 1024


def _reset_peak(process: int) -> int:
    """Lets the peak of the resident memory begin anew, and gives what is resident now."""
    Path(f"/proc/{process}/clear_refs").write_text("5")
    return _memory(process, "VmRSS")


@contextmanager
def _smsc(stage: Stage) -> Iterator[int | None]:
    """An SMSC that writes nothing down: its disk is not what is measured. None, said aloud, where there is none.

    On the node's processor, like the control plane: the load is to have its own for itself.
    """
    perl = shutil.which("perl")
    if perl is None or subprocess.run([perl, "-MNet::SMPP", "-e", "1"], capture_output=True).returncode:
        print("NOT MEASURED: Net::SMPP of Perl is not installed", flush=True)
        yield None
        return
    command = ["nice", "-n", "10", perl, str(SCRIPT), str(stage.directory / "submits.jsonl"), "record=0"]
    with running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as smsc:
        assert smsc.stdout is not None
        yield int(smsc.stdout.readline())
