"""Mosquitto of a test's own, on a free port of the loopback."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

from support.programs import need
from support.redis import free_port

PATIENCE = 20.0


class Mosquitto:
    """A broker that keeps sessions over restarts; nothing runs before `start`. Skips the test where there is none."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._log = directory / "mosquitto.log"
        config = directory / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {directory}/\nautosave_interval 1\nuser root\n"
        )
        self._command = [need("mosquitto"), "-c", str(config)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        limit = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            except OSError:
                assert self._process.poll() is None and time.monotonic() < limit, self._log.read_text()
                time.sleep(0.02)

    def pause(self, paused: bool = True) -> None:
        """Stops it where it is, connections open and silent; or lets it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def stop(self) -> None:
        """Ends it, if it runs."""
        if self._process is not None:
            self.pause(False)
            self._process.terminate()
            self._process.wait(10)
            self._process = None
