"""`eir.peer_desk`: what a change makes of policy and gate, what is refused, and what somebody is called for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eir import _core
from eir.config import Config, Country, DiameterSection, PeerSection
from eir.diameter.peer_policy import PeerPolicy
from eir.diameter.server import DiameterServer
from eir.peer_book import PeerBook, PeerBookError
from eir.peer_desk import PeerDesk

COUNTRY = Country("Test", "UTC", 30, (1,), (), (), (), ())
MME = PeerSection("mme.test", ("192.0.2.0/24",))
NEW = {"origin_host": "New.test", "networks": ["198.51.100.0/24"], "requests_per_second": 7}


@dataclass(frozen=True)
class Row:
    """A connection, as far as it matters here."""

    origin_host: str


class FakeServer:
    """What the desk asks of a Diameter server."""

    def __init__(self) -> None:
        self.policy = PeerPolicy(())
        self.outcomes = SimpleNamespace(refused=Counter({("mme.test", 5005): 2, ("x.test", 3010): 1}))
        self.table: list[SimpleNamespace] = []
        self.connected: list[str] = []
        self.terms_set = 0

    def set_terms_again(self) -> None:
        self.terms_set += 1

    def connect_now(self, origin_host: str) -> None:
        self.connected.append(origin_host)

    def peer_table(self) -> list[SimpleNamespace]:
        return self.table

    def peers(self) -> Iterator[Row]:
        return iter([Row("mme.test"), Row("")])


class FakeNode:
    """What the desk asks of a data plane."""

    def __init__(self) -> None:
        self.gates: list[tuple[Any, ...]] = []
        self.limits: list[int] = []

    def set_gate(self, *gate: Any) -> None:
        self.gates.append(gate)

    def set_node_limit(self, requests_per_second: int) -> None:
        self.limits.append(requests_per_second)

    def stats(self, now: int) -> dict[str, Any]:
        return {"peers": {"mme.test": {"limited": 3}}}


class Place:
    """A desk with what belongs to it."""

    def __init__(self, directory: Path) -> None:
        self.node, self.server = FakeNode(), FakeServer()
        self.book = PeerBook(directory / "peers.json")
        self.settings = Config(diameter=DiameterSection(peers=(MME,), requests_per_second=9))
        self.recorded: list[dict[str, Any]] = []
        self.desk = PeerDesk(
            cast("_core.Node", self.node),
            cast(DiameterServer, self.server),
            self.book,
            lambda: (self.settings, COUNTRY),
            self.record,
        )

    async def record(self, ask: dict[str, Any], **entry: Any) -> None:
        self.recorded.append(entry)

    def ask(self, command: str, **arguments: Any) -> Any:
        told = self.desk.commands()[command](arguments)
        return asyncio.run(told) if asyncio.iscoroutine(told) else told


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_change_is_in_force_and_on_record(place: Place) -> None:
    place.ask("peers-add", peer=NEW)
    assert [entry.origin_host for entry in place.server.policy.entries] == ["mme.test", "New.test"]
    assert place.node.gates[-1] == (["192.0.2.0/24", "198.51.100.0/24"], 2000, 256, 1024)
    assert place.node.limits[-1] == 9
    assert place.server.terms_set == 1
    place.ask("peers-disable", origin_host="MME.test")
    assert place.server.policy.find("mme.test", ip_address("192.0.2.1")) is None
    place.ask("peers-enable", origin_host="mme.TEST")
    assert place.server.policy.find("mme.test", ip_address("192.0.2.1")) is not None
    assert place.server.connected == ["mme.TEST"]
    place.ask("peers-remove", origin_host="new.test")
    assert place.node.gates[-1][0] == ["192.0.2.0/24"]
    assert [(entry["kind"], entry["peer"]) for entry in place.recorded] == [
        ("peers-add", "New.test"),
        ("peers-disable", "MME.test"),
        ("peers-enable", "mme.TEST"),
        ("peers-remove", "new.test"),
    ]


@pytest.mark.parametrize(
    ("command", "arguments", "text"),
    [
        ("peers-add", {"peer": {"origin_host": "a.test"}}, "no networks"),
        ("peers-add", {"peer": {**NEW, "colour": 1}}, "not a peer"),
        ("peers-add", {"peer": {**NEW, "connections": 0}}, "not a peer"),
        ("peers-add", {"peer": "mme"}, "not a peer"),
        ("peers-add", {"peer": {**NEW, "origin_host": "MME.test"}}, "is in the configuration"),
        ("peers-add", {"peer": {**NEW, "tls": "required"}}, "no certificates"),
        ("peers-remove", {"origin_host": "mme.test"}, "taken out there, followed by a reload, or kept out by"),
        ("peers-enable", {"origin_host": "mme.test"}, "is not disabled"),
        ("peers-show", {"origin_host": "nobody.test"}, "nothing is known"),
    ],
)
def test_what_cannot_be_done_changes_nothing(place: Place, command: str, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        place.ask(command, **arguments)
    assert (place.recorded, place.node.gates, place.book.added) == ([], [], ())


def test_one_peer_and_all(place: Place) -> None:
    place.server.table = [SimpleNamespace(origin_host="mme.test", requests_per_second=5)]
    assert place.ask("peers") == [
        {"origin_host": "mme.test", "requests_per_second": 5},
        {"origin_host": "", "requests_per_second": 0},
    ]
    place.server.table = []
    told = place.ask("peers-show", origin_host="MME.test")
    assert [list(peer["networks"]) for peer in told["configured"]] == [["192.0.2.0/24"]]
    assert (told["added"], told["disabled"], told["counters"]) == ([], False, {"limited": 3})
    assert told["refused"] == {"5005": 2}


def test_a_peer_that_stays_away_is_somebodys_business(place: Place) -> None:
    def view(state: str, connect: str | None = "192.0.2.7:3868", *, disabled: bool = False) -> SimpleNamespace:
        return SimpleNamespace(origin_host="mme.test", connect=connect, state=state, disabled=disabled)

    def alarms(now: float, *table: SimpleNamespace) -> list[str]:
        place.server.table = list(table)
        return list(place.desk.alarms(now))

    assert not alarms(0.0, view("Closed"))
    assert not alarms(299.0, view("Wait-Conn-Ack"))
    assert alarms(300.0, view("Closed")) == [
        "the peer mme.test at 192.0.2.7:3868 has not been open for more than 300 s"
    ]
    assert not alarms(305.0, view("I-Open")), "it is over"
    assert not alarms(310.0, view("Closed")), "and begins anew"
    assert not alarms(9999.0, view("Closed", None)), "who connects himself may stay away"
    assert not alarms(99999.0, view("Closed", disabled=True))


def test_a_book_that_cannot_be_read_is_somebodys_business(place: Place, tmp_path: Path) -> None:
    place.ask("peers-add", peer=NEW)
    (tmp_path / "peers.json").write_text("{")
    place.desk.reload()
    (alarm,) = place.desk.alarms(0.0)
    assert "peers.json" in alarm
    assert [entry.origin_host for entry in place.server.policy.entries] == ["mme.test", "New.test"]
    with pytest.raises(PeerBookError, match="mend it"):
        place.ask("peers-disable", origin_host="mme.test")
    (tmp_path / "peers.json").unlink()
    place.desk.reload()
    assert not list(place.desk.alarms(0.0))
    assert [entry.origin_host for entry in place.server.policy.entries] == ["mme.test"]
