"""Two nodes that connect to each other: the state machines of both ends over real connections."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from eir import _core, config
from eir.app import build_policy
from eir.diameter.answer import Identity
from eir.diameter.dictionary import DisconnectCause
from eir.diameter.peer_policy import Endpoint, PeerEntry, PeerPolicy, Tls
from eir.diameter.peer_timers import PeerTimers
from eir.diameter.server import DiameterServer
from support.node import write_config

LOOPBACK = ip_address("127.0.0.1")
LOW, HIGH = "A.example.org", "b.example.org"
TIMERS = PeerTimers(tc=0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((str(LOOPBACK), 0))
        return int(probe.getsockname()[1])


class End:
    """A node of its own, in this process."""

    def __init__(self, directory: Path, host: str, port: int) -> None:
        path = write_config(directory)
        settings, country = config.load(path)
        given: dict[str, Any] = {
            "origin_host": host,
            "origin_realm": "example.org",
            "origin_state_id": 1,
            "workers": 1,
            "max_events": 64,
            "hold_ms": 0,
            "journal_directory": directory / "journal",
            "journal_segment_bytes": 1 << 20,
            "journal_max_bytes": 1 << 40,
            "policy": build_policy(settings, country, int(time.time())),
        }
        self.host = host
        self.endpoint: Endpoint = (LOOPBACK, port)
        self.node: Any = _core.Node(**given)
        self.server = DiameterServer(self.node, Identity(host, "example.org", 1), PeerPolicy(()), TIMERS)

    def start(self, *, tls: bool = False) -> None:
        self.node.listen(*self.endpoint, tls)
        self.server.start()

    def let_in(self, other: End, *, connect: bool, tls: Tls = "optional") -> None:
        there = (other.endpoint,) if connect else ()
        entry = PeerEntry(other.host, (ip_network("127.0.0.0/8"),), connect=there, tls=tls)
        self.server.policy = PeerPolicy((entry,))

    def states(self) -> list[str]:
        return [view.state for view in self.server.peer_table()]

    def open(self) -> list[str]:
        """The directions of its connections that are open."""
        return [row.direction for row in self.server.peers() if row.state == "open"]


async def settled(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def certify(directory: Path, *ends: End) -> None:
    """Gives each a certificate for its name, of one CA."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", "-days", "2", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=tests")
    for number, end in enumerate(ends):
        (directory / f"{number}.ext").write_text(f"subjectAltName=DNS:{end.host}\nbasicConstraints=CA:FALSE\n")
        openssl("req", *new, "-keyout", f"{number}.key", "-out", f"{number}.csr", "-subj", "/CN=node")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        files = ("-in", f"{number}.csr", "-extfile", f"{number}.ext", "-out", f"{number}.pem")
        openssl("x509", "-req", *files, *signed)
        end.node.set_tls(directory / f"{number}.pem", directory / f"{number}.key", directory / "ca.pem", True)


@asynccontextmanager
async def two_ends(directory: Path, *, tls: bool = False) -> AsyncIterator[tuple[End, End]]:
    ends = []
    for host in (LOW, HIGH):
        (directory / host).mkdir()
        ends.append(End(directory / host, host, free_port()))
    low, high = ends
    try:
        if tls:
            certify(directory, low, high)
        for end in ends:
            end.start(tls=tls)
        yield low, high
        for end in ends:
            await end.server.disconnect_all(DisconnectCause.REBOOTING, 5.0)
            # A CER may find its connection gone where the handshake has failed meanwhile.
            outcomes = end.server.outcomes
            assert outcomes.undelivered <= outcomes.closed["tls certificate of another name"]
    finally:
        for end in ends:
            end.server.stop()
            end.node.stop()


def test_one_connects_to_the_other(tmp_path: Path) -> None:
    async def test() -> None:
        async with two_ends(tmp_path) as (low, high):
            high.let_in(low, connect=False)
            low.let_in(high, connect=True)
            await settled(lambda: (low.open(), high.open()) == (["out"], ["in"]))
            assert (low.states(), high.states()) == (["I-Open"], ["R-Open"])
            # Told that it is not wanted any more, it stays away.
            high.server.policy = PeerPolicy(())
            await settled(lambda: not low.open() and not high.open())
            await asyncio.sleep(0.5)
            assert (low.states(), high.states()) == (["Closed"], [])
            # Wanted again, it has to be told.
            high.let_in(low, connect=False)
            low.server.connect_now(HIGH)
            await settled(lambda: high.open() == ["in"])

    asyncio.run(test())


def test_what_is_not_there_yet_is_connected_to_when_it_is(tmp_path: Path) -> None:
    async def test() -> None:
        async with two_ends(tmp_path) as (low, high):
            low.let_in(high, connect=True)
            # It is there, and does not know who comes.
            await settled(
                lambda: low.server.peer_changes["wait-conn-ack", "closed"] + low.server.outcomes.closed.total() > 1
            )
            high.let_in(low, connect=False)
            await settled(lambda: low.open() == ["out"])

    asyncio.run(test())


@pytest.mark.parametrize("turn", range(5))
def test_both_connect_at_once_and_one_connection_stays(tmp_path: Path, turn: int) -> None:
    async def test() -> None:
        async with two_ends(tmp_path) as (low, high):
            for end, other in ((low, high), (high, low))[:: -1 if turn % 2 else 1]:
                end.let_in(other, connect=True)
            await settled(lambda: low.open() and high.open())
            # What Tc has still to bring, and what is still being closed.
            await asyncio.sleep(0.5)
            assert sorted((*low.open(), *high.open())) == ["in", "out"]
            # The higher name closes the connection that it has made itself, where there was an election.
            if high.server.outcomes.closed["election-won"]:
                assert (low.open(), high.open()) == (["out"], ["in"])
            assert not low.server.outcomes.closed["election-won"]

    asyncio.run(test())


def test_over_tls(tmp_path: Path) -> None:
    async def test() -> None:
        async with two_ends(tmp_path, tls=True) as (low, high):
            high.let_in(low, connect=False, tls="required")
            low.let_in(high, connect=True, tls="required")
            await settled(lambda: (low.open(), high.open()) == (["out"], ["in"]))
            assert [row.tls for end in (low, high) for row in end.server.peers()] == [True, True]

    asyncio.run(test())


def test_over_tls_to_another_name(tmp_path: Path) -> None:
    async def test() -> None:
        async with two_ends(tmp_path, tls=True) as (low, high):
            high.host = "c.example.org"
            low.let_in(high, connect=True, tls="required")
            await settled(lambda: low.server.outcomes.closed.total())
            assert set(low.server.outcomes.closed) == {"tls certificate of another name"}
            assert not high.open()

    asyncio.run(test())
