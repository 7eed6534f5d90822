"""A Redis server of a test's own: on a free port of the loopback, in a directory of its own, nothing on the disk."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

from support.programs import need

PATIENCE = 20.0
"""Seconds to wait until it answers."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


class RedisServer:
    """A server; nothing runs before `start`. Skips the test where there is no redis-server."""

    def __init__(self, directory: Path, port: int, *arguments: str) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}"
        directory.mkdir(parents=True, exist_ok=True)
        fixed = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(directory))
        self._command = [need("redis-server"), "--port", str(port), *fixed, *arguments]
        self._log = directory / "redis.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        limit = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < limit, self._log.read_text()
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as client:
                client.sendall(b"PING\r\n")
                return bool(client.recv(64))
        except OSError:
            return False

    def pause(self, paused: bool = True) -> None:
        """Stops it where it is, connections open and silent; or lets it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it, if it runs; what it held is gone."""
        if self._process is not None:
            self.pause(False)
            self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(PATIENCE)
        self._process = None
