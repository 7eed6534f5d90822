"""`eir.diameter.server`: events in, calls out, with a data plane that only takes notes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from eir.diameter import dictionary
from eir.diameter.answer import Identity
from eir.diameter.capabilities import build_cea, cer_avps
from eir.diameter.dictionary import DisconnectCause
from eir.diameter.message import REQUEST, Header, decode, encode, encode_avps, make_avp, numbers_of, peek_header
from eir.diameter.peer_policy import PeerEntry, PeerPolicy
from eir.diameter.peer_timers import PeerTimers
from eir.diameter.peers import Security
from eir.diameter.server import DiameterServer

MME = "mme1.example.org"
REMOTE = ip_address("192.0.2.10")
NETWORKS = (ip_network("192.0.2.0/24"),)
ANYONE = PeerEntry("*", NETWORKS)
DIALLED = PeerEntry(MME, NETWORKS, connect=((REMOTE, 3868),))
QUICK = PeerTimers(cer_timeout=0.05, connect_timeout=0.05, tc=0.05)


def cer(host: str = MME, security: tuple[int, ...] = ()) -> bytes:
    offers = (make_avp(dictionary.INBAND_SECURITY_ID, number) for number in security)
    avps = (*cer_avps(Identity(host, "example.org", 5), REMOTE), *offers)
    return encode(Header(REQUEST, 257, 0, 77, 78), encode_avps(avps))


def dwr(avps: bytes = b"") -> bytes:
    return encode(Header(REQUEST, 280, 0, 5, 6), avps)


@dataclass
class FakeNode:
    """The data plane's methods, which note what they are called with."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    numbers: int = 100
    faults: dict[str, Exception] = field(default_factory=dict)
    deaf: bool = False
    """It takes no messages."""
    idle: float | None = 0.0

    def __post_init__(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)

    def happen(self, *events: tuple[Any, ...]) -> None:
        self.events += events
        os.write(self.writing, b".")

    def called(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]

    def _note(self, *call: Any) -> bool:
        self.calls.append(call)
        if fault := self.faults.get(call[0]):
            raise fault
        return not self.deaf

    def events_fileno(self) -> int:
        return self.reading

    def take_events(self, most: int) -> list[tuple[Any, ...]]:
        taken, self.events = self.events[:most], self.events[most:]
        if not self.events:
            # Readable while there are events.
            with suppress(BlockingIOError):
                os.read(self.reading, 100)
        return taken

    def send(self, connection: int, data: bytes) -> bool:
        return self._note("send", connection, data)

    def open(self, connection: int, data: bytes, origin_host: str, sender: str, advertised_relay: bool) -> bool:
        return self._note("open", connection, data, origin_host, sender, advertised_relay)

    def secure(self, connection: int, data: bytes) -> bool:
        return self._note("secure", connection, data)

    def close(self, connection: int, data: bytes) -> bool:
        return self._note("close", connection, data)

    def connect(self, host: Any, port: int, tls_name: str | None) -> int:
        self._note("connect", host, port, tls_name)
        self.numbers += 1
        return self.numbers

    def set_terms(self, origin_host: str, terms: Any) -> None:
        self._note("set_terms", origin_host, terms)

    def certified(self, connection: int, origin_host: str) -> bool | None:
        self._note("certified", connection, origin_host)
        return True

    def idle_seconds(self, connection: int) -> float | None:
        return self.idle


def connected(number: int, way: str = "in", host: str = "192.0.2.10", port: int = 40000) -> tuple[Any, ...]:
    return ("connected", number, host, port, "192.0.2.1", way)


async def settled(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(
    *entries: PeerEntry,
    timers: PeerTimers = QUICK,
    terms: Callable[[PeerEntry], object] | None = None,
    security: Security | None = None,
    node: FakeNode | None = None,
) -> AsyncIterator[tuple[FakeNode, DiameterServer]]:
    node = node or FakeNode()
    identity = Identity("eir1.example.org", "example.org", 5)
    server = DiameterServer(node, identity, PeerPolicy(entries or (ANYONE,)), timers, terms=terms, security=security)
    server.start()
    try:
        yield node, server
    finally:
        server.stop()
        os.close(node.reading)
        os.close(node.writing)


Test = Callable[[], Awaitable[None]]


def run(test: Test) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def test_a_peer_comes_and_goes() -> None:
    async def test() -> None:
        async with running() as (node, server):
            node.happen(connected(1), ("message", 1, cer()))
            await settled(lambda: node.called("open"))
            ((number, cea, host, sender, advertised_relay),) = node.called("open")
            assert (number, host, sender, advertised_relay) == (1, MME, "auto", False)
            assert numbers_of(decode(cea).avps, dictionary.RESULT_CODE) == [2001]
            (row,) = server.peers()
            assert (row.origin_host, row.remote, row.state, row.watchdog) == (MME, "192.0.2.10:40000", "open", "okay")
            assert (row.number, row.direction, row.tls, row.idle) == (1, "in", False, 0.0)
            assert server.open_peers() == 1
            assert [view.state for view in server.peer_table()] == ["R-Open"]
            node.happen(("closed", 1, "closed by the peer"))
            await settled(lambda: not list(server.peers()))
            assert server.outcomes.closed == {"closed by the peer": 1}
            assert server.outcomes.messages == {("in", "CER"): 1, ("out", "CEA"): 1}
            assert server.peer_changes == {("closed", "r-open"): 1, ("r-open", "closed"): 1}
            assert server.watchdog_changes[("initial", "okay")] == 1

    run(test)


def test_who_observes_sees_messages_as_of_when_they_came() -> None:
    class Late(FakeNode):
        """One that says when it is told to write."""

        def open(self, connection: int, data: bytes, origin_host: str, sender: str, advertised_relay: bool) -> bool:
            self.calls.append(("written", time.time_ns()))
            return super().open(connection, data, origin_host, sender, advertised_relay)

    async def test() -> None:
        seen: list[tuple[Any, ...]] = []
        async with running(node=Late()) as (node, server):
            server.observe = lambda *message: seen.append(message)
            before = time.time_ns()
            node.happen(connected(1), ("message", 1, cer()), connected(2), ("message", 2, b"?"))
            await settled(lambda: len(seen) == 2)
            ((written,),) = node.called("written")
            ((_, cea, *_),) = node.called("open")
        (at, *told), (_, *unreadable) = seen
        assert before <= at <= written
        assert told == [1, MME, cer(), cea, "answered"]
        assert unreadable == [2, "", b"?", None, "handed up"]

    run(test)


def test_before_its_cer_it_is_nobody() -> None:
    async def test() -> None:
        async with running() as (node, server):
            node.happen(connected(1, "in-tls", "2001:db8::1"), connected(2, "in-tls"))
            await settled(lambda: node.calls)
            # The first is from nowhere that a peer is at.
            assert node.called("close") == [(1, b"")]
            (row,) = server.peers()
            assert (row.number, row.origin_host, row.state, row.tls) == (2, "", "wait_cer", True)
            await settled(lambda: (2, b"") in node.called("close"))
            node.happen(("closed", 1, "closed"), ("closed", 2, "closed"), ("closed", 3, "what is this"))
            await settled(lambda: sum(server.outcomes.closed.values()) == 2)
            assert server.outcomes.closed == {"address-not-allowed": 1, "cer-timeout": 1}

    run(test)


def test_refusals_are_counted_by_peer() -> None:
    async def test() -> None:
        async with running() as (node, server):
            node.happen(connected(1), ("message", 1, cer("eir1.example.org")))
            node.happen(connected(2), ("message", 2, cer()), ("message", 2, dwr()), ("message", 2, b"\x01"))
            node.happen(("message", 2, encode(Header(REQUEST, 999, 0, 1, 2), b"")), ("message", 77, dwr()))
            await settled(lambda: len(node.called("send")) == 2)
            assert server.outcomes.refused == {("", 3010): 1, (MME, 5005): 1, (MME, 3001): 1}
            assert server.outcomes.discarded == {"unreadable": 1}
            assert server.outcomes.messages[("out", "DWA")] == 1
            assert server.outcomes.messages[("out", "other")] == 1
            assert server.outcomes.undelivered == 0
            node.deaf = True
            node.happen(("message", 2, dwr()))
            await settled(lambda: server.outcomes.undelivered == 1)

    run(test)


def test_names_that_peers_make_up_do_not_pile_up() -> None:
    async def test() -> None:
        async with running() as (node, server):
            for number in range(1, 1101):
                node.events += [
                    connected(number),
                    ("message", number, cer(f"mme{number}.example.org")),
                    ("message", number, dwr()),
                    ("closed", number, "closed"),
                ]
            for _ in range(30):
                node.happen()
            await settled(lambda: server.outcomes.closed["closed"] == 1100)
            assert len(server.outcomes.refused) == 1001
            assert server.outcomes.refused[("(others)", 5005)] == 100
            assert server.peer_table() == []

    run(test)


def test_one_connections_fault_is_its_own() -> None:
    async def test() -> None:
        async with running() as (node, _):
            node.faults["open"] = ValueError("no such role")
            node.happen(connected(1), ("message", 1, cer()), ("connected", 2, "no address", 1, "?", "in"))
            node.happen(connected(3), ("message", 3, dwr()))
            await settled(lambda: (3, b"") in node.called("close"))
            assert node.called("close") == [(1, b""), (2, b""), (3, b"")]
            del node.faults["open"]
            node.happen(("closed", 1, "closed"), connected(4), ("message", 4, cer()))
            await settled(lambda: len(node.called("open")) == 2)
            assert [call[0] for call in node.called("open")] == [1, 4]

    run(test)


def test_terms_go_down_before_the_peer_is_served() -> None:
    async def test() -> None:
        limited = PeerEntry(MME, NETWORKS, requests_per_second=5)
        async with running(ANYONE, limited, terms=lambda entry: entry.requests_per_second) as (node, server):
            assert node.calls == [("set_terms", MME, 5)]
            node.happen(connected(1), ("message", 1, cer("other.example.org")))
            await settled(lambda: node.called("open"))
            assert [call[:2] for call in node.calls[1:]] == [("set_terms", "other.example.org"), ("open", 1)]
            node.calls.clear()
            server.set_terms_again()
            assert sorted(node.calls) == [("set_terms", MME, 5), ("set_terms", "other.example.org", 0)]
            node.calls.clear()
            server.policy = PeerPolicy((ANYONE,))
            assert node.calls == [("set_terms", MME, None)]
            assert server.policy.entries == (ANYONE,)

    run(test)


def test_a_peer_is_connected_to() -> None:
    async def test() -> None:
        async with running(DIALLED) as (node, server):
            assert node.called("connect") == [(REMOTE, 3868, None)]
            node.happen(connected(101, "out", port=3868))
            await settled(lambda: node.called("send"))
            ((number, asked),) = node.called("send")
            cea = build_cea(asked, Identity(MME, "example.org", 9), REMOTE)
            node.happen(("message", number, cea))
            await settled(lambda: server.open_peers())
            assert node.called("open") == [(101, b"", MME, "auto", False)]
            (row,) = server.peers()
            assert (row.direction, row.remote) == ("out", "192.0.2.10:3868")
            assert server.outcomes.messages == {("out", "CER"): 1, ("in", "CEA"): 1}
            # Lost, and made again after Tc.
            node.happen(("closed", 101, "closed by the peer"))
            await settled(lambda: len(node.called("connect")) == 2)

    run(test)


def test_a_connection_that_cannot_be_made() -> None:
    async def test() -> None:
        node = FakeNode(faults={"connect": OSError("too many open files")})
        async with running(DIALLED, node=node) as (_, server):
            assert server.outcomes.closed == {"connect failed": 1}
            await settled(lambda: len(node.called("connect")) == 2)
            node.faults.clear()
            await settled(lambda: len(node.called("connect")) == 3)
            node.happen(("closed", node.numbers, "connect refused"))
            await settled(lambda: server.outcomes.closed["connect refused"] == 1)
            server.connect_now(MME)
            await settled(lambda: len(node.called("connect")) >= 4)

    run(test)


def test_tls_that_a_cer_asks_for() -> None:
    async def test() -> None:
        async with running(security=Security(inband=True)) as (node, server):
            node.happen(connected(1), ("message", 1, cer(security=(1,))))
            await settled(lambda: node.called("secure"))
            assert not node.called("open")
            node.happen(("secured", 1))
            await settled(lambda: node.called("open"))
            assert node.called("certified") == [(1, MME)]
            assert [row.tls for row in server.peers()] == [True]

    run(test)


def test_tls_that_there_are_no_certificates_for() -> None:
    async def test() -> None:
        async with running(security=Security(inband=True)) as (node, server):
            node.deaf = True
            node.happen(connected(1), ("message", 1, cer(security=(1,))))
            await settled(lambda: node.called("close"))
            assert server.outcomes.undelivered == 1
            server.security = Security()
            assert not server.security.inband

    run(test)


def test_all_are_told_and_waited_for() -> None:
    async def test() -> None:
        async with running(timers=PeerTimers()) as (node, server):
            node.happen(connected(1), ("message", 1, cer()), connected(2))
            await settled(lambda: len(list(server.peers())) == 2)
            stopping = asyncio.create_task(server.disconnect_all(DisconnectCause.REBOOTING, 5.0))
            await settled(lambda: node.called("send"))
            ((number, dpr),) = node.called("send")
            asked = peek_header(dpr)
            assert asked is not None
            assert (number, asked.command) == (1, 282)
            assert node.called("close") == [(2, b"")]
            dpa = encode(Header(0, 282, 0, asked.hop_by_hop, asked.end_to_end), b"")
            node.happen(("closed", 2, "closed"), ("message", 1, dpa))
            await settled(lambda: (1, b"") in node.called("close"))
            assert not stopping.done()
            node.happen(("closed", 1, "closed"))
            await stopping
            assert server.outcomes.closed == {"stopped": 1, "dpa-received": 1}

    run(test)


@pytest.mark.parametrize("within", [0.0, 0.05])
def test_but_not_for_ever(within: float) -> None:
    async def test() -> None:
        async with running(timers=PeerTimers()) as (node, server):
            node.happen(connected(1), ("message", 1, cer()))
            await settled(server.open_peers)
            await server.disconnect_all(DisconnectCause.REBOOTING, within)
            assert len(list(server.peers())) == 1

    run(test)
