"""A program of other people's that asks a node, and is told to by lines; what it says are lines that begin with "S13 ".

The lines are listed in `freediameter_s13.c` and `otp/s13_mme.erl`. It is ended by its process id.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.node import until

PATIENCE = 30.0
"""Seconds for what takes one or two."""


class PeerProgram:
    """One program; nothing runs before `run`. What it says goes to the file `log`."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: subprocess.Popen[str] | None = None

    def run(self, command: Sequence[str], ready: str, environment: Mapping[str, str] | None = None) -> None:
        """Starts it and waits until it says `ready`; what it said before is forgotten."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.log.parent,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
            )
        until(lambda: ready in self.text() or not self.runs(), PATIENCE)
        assert self.runs(), self.text()

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def text(self) -> str:
        """All that it said."""
        return self.log.read_text(errors="replace")

    def told(self, *kinds: str) -> list[list[str]]:
        """The words behind "S13" of the lines of these kinds."""
        lines = [line.split()[1:] for line in self.text().splitlines() if line.startswith("S13 ")]
        return [line for line in lines if line[0] in kinds]

    def is_open(self, peer: str) -> bool:
        """Whether its last word of that peer, since it started, is that it is connected."""
        words = [line[0] for line in self.told("ready", "open", "down") if line[0] == "ready" or line[1] == peer]
        return words[-1:] == ["open"]

    def check(self, imei: str, imsi: str = "") -> tuple[str, str, str]:
        """What it is answered: (result code, status, Origin-Host), each "-" where the answer has none."""
        before = len(self.told("answer"))
        self._write(f"{imei} {imsi}\n")
        until(lambda: len(self.told("answer")) > before or not self.runs(), PATIENCE)
        (_, asked, code, status, host) = self.told("answer")[before]
        assert asked == imei
        return code, status, host

    def _write(self, text: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def stop(self) -> int:
        """Asks it to disconnect and to end, and returns its exit code."""
        assert self._process is not None and self._process.stdin is not None
        self._process.terminate()
        self._process.stdin.close()
        return self._process.wait(PATIENCE)

    def end(self) -> None:
        """Ends it whatever it does: for whoever made it."""
        if self.runs():
            assert self._process is not None
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise
