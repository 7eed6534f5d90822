"""An SMSC of a test's own, which we did not write: Net::SMPP of Perl, driven by `smsc.pl`; on a free loopback port."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from support.programs import lacking, need

SCRIPT = Path(__file__).with_name("smsc.pl")


class Smsc:
    """One SMSC; nothing runs before `start`. Skips the test where there is no Net::SMPP.

    How it behaves is said by keys that `smsc.pl` lists; what it was submitted is in `submits`.
    """

    def __init__(self, directory: Path, **how: object) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = 0
        self._record = directory / "submits.jsonl"
        self._log = directory / "smsc.log"
        self._how = how
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts it and waits until it listens: when it comes back, on the port that it had."""
        perl = need("perl")
        if subprocess.run([perl, "-MNet::SMPP", "-e", "1"], capture_output=True).returncode:
            lacking("Net::SMPP of Perl is not installed")
        how = [f"{key}={value}" for key, value in {"port": self.port, **self._how}.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [perl, str(SCRIPT), str(self._record), *how],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.port = int(self._read() or 0)
        assert self.port, self._log.read_text()

    def _read(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _tell(self, line: str) -> str:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._read()

    def behave(self, **how: object) -> None:
        """Changes how it behaves, from now on."""
        for key, value in how.items():
            assert self._tell(f"{key}={value}") == "ok", self._log.read_text()

    def do(self, what: str) -> None:
        """Has it "unbind" or "hang up" all its connections, or send a "message" as from a subscriber."""
        assert self._tell(what) == "ok", self._log.read_text()

    def count(self) -> int:
        """How many submits it has had."""
        return int(self._tell("count"))

    def submits(self) -> list[dict[str, Any]]:
        """What it was submitted, in its order."""
        return [json.loads(line) for line in self._record.read_text().splitlines()] if self._record.exists() else []

    def pause(self, paused: bool = True) -> None:
        """Stops it where it is, connections open and silent; or lets it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it, if it runs."""
        if self._process is not None:
            self.pause(False)
            self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process = None


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    """Waits, outside of an event loop."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)
