"""What the figures are measured on: a node and an echo on one processor, the load on the other."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.certificates import Certificates
from benchmarks.wire import first_answer

ROOT = Path(__file__).parents[1]
RELEASE = ROOT / "target" / "release"
PYTHON = Path(os.environ.get("EIR_PYTHON", sys.executable))

NODE_CPU = 1
LOAD_CPU = 0
LISTED = 10_000_000
TACS = 2_000
IN_USE = 64 << 20
"""Octets of the table of devices in use."""
UNLISTED = 36_000_000_000_000
"""The first of devices that no list knows."""

_CONFIG = """
[node]
directory = "{directory}"
country = "lab"
{settings}
[diameter]
listen = ["127.0.0.1:{port}"]
{diameter}
[journal]
hold_ms = 1000
[breaker]
starts_per_minute = 1000000000
running = 1000000000
[metrics]
listen = ""
[log]
level = "warning"
"""

_NO_MESSAGES = """
[sms]
gateway = "off"
texts = "{directory}/sms/kz.toml"
"""


def native(program: str, *arguments: object, cpu: int | None = None) -> dict[str, Any]:
    """Runs a benchmark program to its end and returns what it printed as JSON."""
    command = [str(RELEASE / program), *map(str, arguments)]
    if cpu is not None:
        command = ["taskset", "-c", str(cpu), *command]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def forget(path: Path) -> None:
    """Takes a file out of the memory in which the system keeps what was read or written."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], cpu: int | None = NODE_CPU, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program, on one processor or on any, that ends with the block."""
    pinned = [] if cpu is None else ["taskset", "-c", str(cpu)]
    process = subprocess.Popen([*pinned, *command], text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


class Stage:
    """A directory with the lists of ten million devices, and what is started in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        # For as many connections as the machine lets one process have, in all that is started from here.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.snapshot = directory / "lists.eirs"
        self.sample = directory / "sample"
        self.built = native("lists", self.snapshot, self.sample, LISTED, TACS, 1)
        self.listed = self.sample.read_text().split("\n", 1)[0]
        self.eca_octets = 0

    def configure(
        self, name: str, settings: str = "", diameter: str = "", snapshot: Path | None = None
    ) -> tuple[Path, int]:
        """A fresh node's directory and configuration, with more `settings`; gives its path and the port.

        The lists are those of the stage, or those of another `snapshot`.

        Settings that come before a section's head belong to `[node]`, those of `diameter` to `[diameter]`.
        """
        home = self.directory / name
        home.mkdir()
        (home / "lists.eirs").symlink_to(snapshot or self.snapshot)
        for name in ("countries", "sms"):
            (home / name).symlink_to(ROOT / "config" / name)
        port = free_port()
        config = home / "eir.toml"
        # Who has no number for its subscribers would only wait for them.
        text = _CONFIG + ("" if "[sms]" in settings else _NO_MESSAGES)
        config.write_text(text.format(directory=home, port=port, settings=settings, diameter=diameter))
        return config, port

    @contextmanager
    def node(
        self, name: str, script: str | None = None, settings: str = "", diameter: str = ""
    ) -> Iterator[tuple[subprocess.Popen[str], Path, int]]:
        """A node; `script` is one of the benchmarks' own that runs it. Gives its process, configuration and port."""
        config, port = self.configure(name, settings, diameter)
        program = [str(Path(__file__).parent / script)] if script else [str(PYTHON.parent / "eir"), "serve", "-c"]
        with running([str(PYTHON), *program, str(config)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert "ready" in process.stdout.readline()
            self.eca_octets = len(first_answer(port, self.listed, 5))
            yield process, config, port

    @contextmanager
    def started(self, config: Path) -> Iterator[int]:
        """A node of a configuration that is there already; gives its port."""
        command = [str(PYTHON), str(PYTHON.parent / "eir"), "serve", "-c", str(config)]
        with running(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert "ready" in ready
            yield int(ready.split("diameter=127.0.0.1:")[1].split()[0])

    def start_ms(self, config: Path, listed: str | None = None) -> float:
        """Milliseconds from the start of a node's process to its first answer, about a `listed` device."""
        port = int(config.read_text().split("127.0.0.1:")[1].split('"')[0])
        command = [str(PYTHON), str(PYTHON.parent / "eir"), "serve", "-c", str(config)]
        begin = time.perf_counter()
        with running(command, stdout=subprocess.DEVNULL):
            first_answer(port, listed or self.listed, 60)
            return (time.perf_counter() - begin) * 1000

    @contextmanager
    def echo(self, certificates: Certificates | None = None) -> Iterator[int]:
        """The bare echo, in clear or over TLS, which answers with as many octets as the node; gives its port."""
        port = free_port()
        command = [RELEASE / "echo", "--listen", f"127.0.0.1:{port}", "--reply-bytes", self.eca_octets]
        if certificates is not None:
            command += ["--certificate", certificates.node, "--key", certificates.node_key]
        with running(list(map(str, command)), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            yield port

    def load(self, port: int, *arguments: object) -> dict[str, Any]:
        """Runs the load generator on its processor. Raises RuntimeError where an answer was lost."""
        report = self.try_load(port, *arguments)
        if report["lost"] or report["connections_lost"] or report["errors"]:
            raise RuntimeError(f"not every request was answered: {report}")
        return report

    def try_load(self, port: int, *arguments: object) -> dict[str, Any]:
        """As `load`, but answers may be missing."""
        return native("load", "--target", f"127.0.0.1:{port}", "--cpu", LOAD_CPU, *arguments)

    def about_listed(self) -> tuple[object, ...]:
        """The load's arguments for devices that the lists know, at random."""
        return ("--imei-file", self.sample)


def ask(config: Path, command: str, **arguments: Any) -> Any:
    """Asks the node of a configuration over its control socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(config.parent / "control.sock"))
        connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
        answer = json.loads(connection.makefile("rb").readline())
    return answer["result"]
