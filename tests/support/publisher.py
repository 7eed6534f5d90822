"""`eir publisher` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.cli import eir

EIR = Path(sys.executable).with_name("eir")


class PublisherProcess:
    """A publisher of the test country; nothing runs before `start`."""

    def __init__(self, directory: Path, broker_port: int | None = None, every: float = 3600.0) -> None:
        self.directory = directory
        self._options = ["--every", str(every)]
        if broker_port is not None:
            self._options += ["--mqtt", f"127.0.0.1:{broker_port}"]
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def key(self) -> Path:
        return self.directory / "key.pub.pem"

    def start(self) -> None:
        command = [str(EIR), "publisher", "serve", str(self.directory), "--country", "test", *self._options]
        command += ["--listen", f"127.0.0.1:{self._port}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        assert "publisher ready" in ready
        self._port = int(ready.split("http=127.0.0.1:")[1].split()[0])

    def run(self, command: str, *arguments: object) -> str:
        ran = eir("publisher", command, self.directory, *map(str, arguments), "--country", "test")
        assert ran.code == 0, ran.err
        return ran.out

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            assert self._process.wait(20) == 0
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
