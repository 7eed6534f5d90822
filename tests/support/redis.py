"""Redis of a test's own: a server, a cluster, sentinels; on free ports of the loopback, in directories of its own."""

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

    def __init__(self, directory: Path, port: int | None = None, *arguments: str, config: Path | None = None) -> None:
        """A sentinel, where `config` is one's; else a server that keeps nothing unless `arguments` say so."""
        self.port = port = port or free_port()
        self.url = f"redis://127.0.0.1:{port}"
        directory.mkdir(parents=True, exist_ok=True)
        fixed = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(directory)]
        # Without this a replica waits for others that might come.
        fixed += ["--repl-diskless-sync-delay", "0"]
        if config is None:
            self._command = [need("redis-server"), "--port", str(port), *fixed, *arguments]
        else:
            own = ("--sentinel", "--bind", "127.0.0.1", "--dir", str(directory))
            self._command = [need("redis-server"), str(config), "--port", str(port), *own, *arguments]
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

    def resume(self) -> None:
        """Lets it go on."""
        self.pause(False)

    def cli(self, *command: str) -> str:
        """What it answers to a command."""
        asked = subprocess.run(
            [need("redis-cli"), "-h", "127.0.0.1", "-p", str(self.port), *command],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert asked.returncode == 0, asked.stderr
        return asked.stdout.strip()

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


class RedisCluster:
    """A cluster of masters, each with so many replicas; nothing runs before `start`."""

    def __init__(self, directory: Path, masters: int = 3, replicas: int = 0, *arguments: str) -> None:
        ports = [free_port() for _ in range(masters * (1 + replicas))]
        # The line between nodes is not 10,000 above, where there may be no port any more.
        self.servers = [
            RedisServer(
                directory / str(port),
                port,
                *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", str(free_port())),
                *arguments,
            )
            for port in ports
        ]
        self.masters = self.servers[:masters]
        self._replicas = replicas
        self.urls = tuple(server.url for server in self.masters)

    def start(self) -> None:
        """Starts its nodes, joins them, and waits until every one of them has the whole."""
        for server in self.servers:
            server.start()
        addresses = [f"127.0.0.1:{server.port}" for server in self.servers]
        command = [need("redis-cli"), "--cluster", "create", *addresses]
        command += ["--cluster-replicas", str(self._replicas), "--cluster-yes"]
        joined = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert joined.returncode == 0, joined.stdout + joined.stderr
        limit = time.monotonic() + PATIENCE
        while not all(map(_is_in, self.servers)):
            assert time.monotonic() < limit, "the cluster does not come together"
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends all nodes that run."""
        for server in self.servers:
            server.stop()


def _is_in(server: RedisServer) -> bool:
    """Whether a node of a cluster knows all of it, and has what its master has."""
    whole = "cluster_state:ok" in server.cli("CLUSTER", "INFO")
    role = server.cli("INFO", "replication")
    return whole and ("role:master" in role or "master_link_status:up" in role)


class Sentinels:
    """Sentinels that watch one master; nothing runs before `start`."""

    def __init__(self, directory: Path, master: RedisServer, count: int = 1, service: str = "eir") -> None:
        self.servers = []
        for number in range(count):
            port = free_port()
            here = directory / str(number)
            here.mkdir(parents=True, exist_ok=True)
            config = here / "sentinel.conf"
            config.write_text(
                f"sentinel monitor {service} 127.0.0.1 {master.port} {count // 2 + 1}\n"
                f"sentinel down-after-milliseconds {service} 400\n"
                f"sentinel failover-timeout {service} 3000\n"
            )
            self.servers.append(RedisServer(here, port, config=config))
        self.urls = tuple(server.url for server in self.servers)

    def start(self) -> None:
        """Starts them."""
        for server in self.servers:
            server.start()

    def stop(self) -> None:
        """Ends those that run."""
        for server in self.servers:
            server.stop()
