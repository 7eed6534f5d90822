"""`eir serve` in a process of its own: its configuration, its start and its end, and what it says."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from eir import _core, config, control
from eir.app import build_policy
from support import lists
from support.diameter import PATIENCE, Client

EIR = Path(sys.executable).with_name("eir")
"""The command as the wheel installs it."""
KZ = Path(__file__).parents[2] / "config" / "countries" / "kz.toml"
TEXTS = KZ.parents[1] / "sms" / "kz.toml"
START_PATIENCE = 30.0
"""Seconds to wait for the ready line."""

Settings = Mapping[str, Mapping[str, object]]
"""Keys of the configuration file by section; `diameter.peers` is a list of mappings."""

_READY = re.compile(r"eir ready diameter=(\S+?)(?: tls=(\S+?))?(?: metrics=:(\d+))?\n")


def write_config(directory: Path, settings: Settings | None = None) -> Path:
    """A configuration file in `directory` that differs from the defaults by `settings` and by what a test needs.

    Free ports of the loopback, the state in `directory`/state, and a country like Kazakhstan whose MCC is 001.
    """
    countries = directory / "countries"
    countries.mkdir(parents=True, exist_ok=True)
    country = KZ.read_text()
    for old, new in (("home_mccs = [401]", "home_mccs = [1]"), ("\nroamer_plmns = []", '\nroamer_plmns = ["00199"]')):
        assert old in country
        country = country.replace(old, new)
    (countries / "test.toml").write_text(country)
    texts = directory / "sms"
    texts.mkdir(exist_ok=True)
    (texts / "test.toml").write_text(TEXTS.read_text())
    base: Settings = {
        "node": {"country": "test", "directory": str(directory / "state"), "workers": 1},
        "diameter": {"listen": ["127.0.0.1:0"]},
        "metrics": {"listen": "127.0.0.1:0"},
        "sms": {"gateway": "off"},
    }
    given = settings or {}
    merged = {name: {**base.get(name, {}), **given.get(name, {})} for name in (*base, *given)}
    text = "".join(_section(name, keys) for name, keys in merged.items())
    path = directory / "eir.toml"
    path.write_text(text)
    return path


def _section(name: str, keys: Mapping[str, object]) -> str:
    tables = {key: value for key, value in keys.items() if isinstance(value, list) and value and is_table(value[0])}
    lines = [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items() if key not in tables)]
    for key, entries in tables.items():
        for entry in entries:
            lines += [f"[[{name}.{key}]]", *(f"{member} = {json.dumps(value)}" for member, value in entry.items())]
    return "\n".join(lines) + "\n"


def is_table(value: object) -> bool:
    """Whether a value is written as a table of its own."""
    return isinstance(value, dict)


class NodeProcess:
    """A node; nothing runs before `start`."""

    def __init__(self, config_path: Path) -> None:
        self.config = config_path
        self.settings, self.country = config.load(config_path)
        self.state = Path(self.settings.node.directory)
        self.stderr = config_path.with_name("stderr.log")
        self.listening: list[tuple[str, int]] = []
        """Addresses of the Diameter listeners."""
        self.tls_listening: list[tuple[str, int]] = []
        """Addresses of those with TLS."""
        self.metrics_port: int | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        self.launch()
        assert self.process is not None
        line = self._first_line(self.process)
        ready = _READY.fullmatch(line)
        assert ready, f"instead of a ready line: {line!r}; {self.stderr.read_text()}"
        self.listening = [(str(host), port) for host, port in map(config.parse_endpoint, ready[1].split(","))]
        if ready[2]:
            self.tls_listening = [(str(host), port) for host, port in map(config.parse_endpoint, ready[2].split(","))]
        self.metrics_port = int(ready[3]) if ready[3] else None

    def launch(self) -> None:
        """Starts it and waits for nothing."""
        assert self.process is None or self.process.poll() is not None
        with self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                [EIR, "serve", "--config", self.config],
                cwd=self.config.parent,
                env={**os.environ, **self.environment},
                stdout=subprocess.PIPE,
                stderr=stderr,
            )

    def _first_line(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        line, end = b"", time.monotonic() + START_PATIENCE
        while not line.endswith(b"\n") and time.monotonic() < end:
            if select.select([process.stdout], [], [], 0.5)[0]:
                octets = os.read(process.stdout.fileno(), 4096)
                if not octets:
                    break
                line += octets
        return line.decode()

    def wait(self, patience: float = PATIENCE) -> int:
        """Waits for its end and returns the exit code."""
        assert self.process is not None
        code = self.process.wait(patience)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def stop(self) -> int:
        """Asks it to end, by SIGTERM, and returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.wait(PATIENCE + self.settings.diameter.drain_timeout)

    def kill(self) -> None:
        """Ends it at once, by SIGKILL, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.wait()

    def reload(self) -> None:
        """Sends SIGHUP and waits until the log tells how the reload went."""
        assert self.process is not None
        before = len(self.log("reloaded", "reload refused"))
        self.process.send_signal(signal.SIGHUP)
        until(lambda: len(self.log("reloaded", "reload refused")) > before)

    def end(self) -> None:
        """Ends it whatever it does, and sees that its log is in order: for whoever made it."""
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        if self.stderr.exists():
            assert not [entry for entry in self.log() if "exception" in entry or "fault" in entry]

    def log(self, *events: str) -> list[dict[str, Any]]:
        """The log, or its entries of these events. Every line must be a JSON object."""
        text = self.stderr.read_text()
        whole = text[: text.rfind("\n") + 1]
        entries = [json.loads(line) for line in whole.splitlines()]
        return [entry for entry in entries if not events or entry["event"] in events]

    def client(self, host: str = "mme.epc.test") -> Client:
        """A connection to it, on which nothing was sent yet."""
        return Client(self.listening[0], host)

    def peer(self, host: str = "mme.epc.test") -> Client:
        """An open connection to it."""
        client = self.client(host)
        client.open()
        return client

    def ask(self, command: str, **arguments: object) -> Any:
        """Asks over its control socket."""
        return control.ask(self.settings.path(self.settings.control.socket), command, **arguments)

    def timer(self, imei: str) -> tuple[int, int] | None:
        """(start, deadline) of a device's timer."""
        timer = self.ask("check", imei=imei)["timer"]
        return None if timer is None else (timer[0], timer[1])

    def metrics_text(self) -> str:
        """/metrics as Prometheus would read it."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def metrics(self) -> dict[str, float]:
        """Values by name and labels, as they are written: `eir_answers_total{list="white",...}`."""
        lines = (line for line in self.metrics_text().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def put_lists(self, files: Mapping[str, str] = lists.FILES, **options: int) -> None:
        """Builds the snapshot that its configuration names."""
        self.state.mkdir(exist_ok=True)
        lists.build(self.settings.path(self.settings.lists.snapshot), files, **options)


def replica(node: NodeProcess, journal: Path) -> _core.Node:
    """A data plane in this process, that serves nobody, on a copy of a node's journal."""
    return _core.Node(
        origin_host="replica.test",
        origin_realm="test",
        origin_state_id=1,
        workers=1,
        max_events=64,
        hold_ms=0,
        journal_directory=journal,
        journal_segment_bytes=1 << 20,
        journal_max_bytes=1 << 40,
        policy=build_policy(node.settings, node.country, int(time.time())),
    )


class MakeNode(Protocol):
    """Makes a node that ends with the test: with the lists of `lists`, and running, unless told otherwise."""

    def __call__(self, given: Settings | None = None, *, lists: bool = True, start: bool = True) -> NodeProcess: ...


def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Waits until something holds; fails where it never does."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)
