"""`eir doctor`: looks at everything that the node stands on, and says what is wrong before the night does.

Called by `cli`. It changes nothing but a file of its own that it takes away again.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eir import _core, config, control
from eir.config import Config, ConfigError
from sms import setup

_SLOW_SYNC_MS = 20.0
_LITTLE_DISK = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `fail` keeps the node from its work, `warn` may."""

    grade: Literal["ok", "warn", "fail"]
    subject: str
    text: str


def examine(path: Path) -> Iterator[Finding]:
    """Every finding, the configuration first; without one there is nothing more to look at."""
    try:
        settings, country = config.load(path)
    except ConfigError as error:
        yield Finding("fail", "configuration", str(error))
        return
    yield Finding("ok", "configuration", f"{path}, {country.name}")
    yield from _messages(path, settings)
    yield from _clock()
    yield from _directory(settings)
    yield from _journal(settings)
    yield from _snapshot(settings)
    yield from _descriptors(settings)
    yield from _realtime()
    yield from _node(settings)


def _messages(path: Path, settings: Config) -> Iterator[Finding]:
    try:
        read = setup.read(path, settings)
    except ConfigError as error:
        yield Finding("fail", "messages", str(error))
        return
    if read.drafts:
        names = ", ".join(f"{draft.kind} {draft.language}" for draft in read.drafts)
        yield Finding("warn", "texts", f"drafts that nobody has confirmed: {names}")
    text = {"off": "are not sent", "file": f"are only written to {settings.path(settings.sms.file)}"}
    known = text.get(settings.sms.gateway, f"go out by {settings.sms.gateway}")
    yield Finding("warn" if settings.sms.gateway in text else "ok", "messages", known)


def _clock() -> Iterator[Finding]:
    sound = time.time() > 1_700_000_000
    yield Finding("ok" if sound else "fail", "clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def _directory(settings: Config) -> Iterator[Finding]:
    directory = Path(settings.node.directory)
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".doctor-") as file:
            begin = time.perf_counter()
            file.write(b"\0" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            took = (time.perf_counter() - begin) * 1000
    except OSError as error:
        yield Finding("fail", "directory", f"{directory} cannot be written: {error.strerror}")
        return
    grade: Literal["ok", "warn"] = "warn" if took > _SLOW_SYNC_MS else "ok"
    yield Finding(grade, "disk", f"{directory} takes {took:.1f} ms to the disk; first attaches wait for that")
    free = shutil.disk_usage(directory).free
    yield Finding("warn" if free < _LITTLE_DISK else "ok", "space", f"{free >> 20} MiB free")


def _journal(settings: Config) -> Iterator[Finding]:
    directory = settings.path(settings.journal.directory)
    try:
        records, damaged, torn, starts = _core.inspect_journal(directory)
    except FileNotFoundError:
        yield Finding("ok", "journal", f"{directory} is not there yet")
        return
    except OSError as error:
        yield Finding("fail", "journal", f"{directory}: {error}")
        return
    text = f"{records} records, {starts} timers started"
    if damaged:
        yield Finding("fail", "journal", f"{text}; {damaged} records are damaged and lost")
    else:
        yield Finding("ok", "journal", f"{text}{f', {torn} octets cut off at the end' if torn else ''}")


def _snapshot(settings: Config) -> Iterator[Finding]:
    path = settings.path(settings.lists.snapshot)
    try:
        info = _core.Snapshot.open(path).info
    except _core.SnapshotError as error:
        answer = settings.lists.no_list_policy
        yield Finding("fail", "lists", f"{path}: {error}; everything is answered {answer}")
        return
    age = time.time() - info["created_at"]
    if age > settings.lists.stale_after:
        yield Finding("fail", "lists", f"{age / 3600:.0f} h old: stale, no timer expires")
    else:
        listed = sum(info["counts"][name] for name in ("white", "black", "grey"))
        yield Finding("ok", "lists", f"sequence {info['sequence']}, {listed} devices, {age / 3600:.1f} h old")
    if info["tac_as_of"] and time.time() - info["tac_as_of"] > settings.lists.tac_max_age:
        yield Finding("warn", "allocated TACs", "too old: rule `unallocated` does not match")


def _descriptors(settings: Config) -> Iterator[Finding]:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.diameter.max_connections + 64
    grade: Literal["ok", "warn"] = "ok" if limit >= needed else "warn"
    yield Finding(grade, "descriptors", f"{limit} for this shell; the node needs {needed} for all its connections")


def _realtime() -> Iterator[Finding]:
    limit, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
    allowed = os.geteuid() == 0 or limit != 0
    text = "the answering threads may be real-time" if allowed else "no real-time threads: some answers wait for a tick"
    yield Finding("ok" if allowed else "warn", "priority", f"{text} (LimitRTPRIO, in this shell)")


def _node(settings: Config) -> Iterator[Finding]:
    try:
        told = control.ask(settings.path(settings.control.socket), "status")
    except control.ControlError as error:
        yield Finding("warn", "node", str(error))
        return
    stats = told["stats"]
    yield Finding("ok", "node", f"running, {told['open_peers']} open peers, {stats['timers_running']} timers")
    if not stats["journal_available"]:
        yield Finding("fail", "node", "its journal is full or failing: no timer starts")
    if stats["breaker_tripped"]:
        yield Finding("fail", "node", "its breaker is tripped: no timer starts until `eir breaker reset`")
    if not told["timers"]["store_up"]:
        yield Finding("fail", "node", f"its store of timers fails: {told['timers']['store_error']}")
    if told["lists"] is None:
        yield Finding("fail", "node", f"it has no valid lists: everything is answered {settings.lists.no_list_policy}")
