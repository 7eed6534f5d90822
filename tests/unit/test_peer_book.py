"""`eir.peer_book`: what is added and disabled lasts, and a file that is damaged costs nothing that was known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eir import config
from eir.config import AnswersSection, Country, PeerSection
from eir.peer_book import PeerBook, PeerBookError

DRA = PeerSection("dra.test", ("192.0.2.0/24",), role="relay", answers=AnswersSection(grey="white"))
MME = PeerSection("mme.test", connect=("192.0.2.7:3868",), requests_per_second=5)


def book(directory: Path) -> PeerBook:
    made = PeerBook(directory / "peers.json")
    made.load()
    return made


def test_what_was_done_is_there_after_a_restart(tmp_path: Path) -> None:
    first = book(tmp_path)
    assert (first.added, first.disabled) == ((), frozenset())
    first.add(DRA)
    first.add(MME)
    first.disable("Bad.test")
    first.disable("worse.test")
    first.enable("WORSE.test")
    second = book(tmp_path)
    assert second.added == first.added == (DRA, MME)
    assert second.disabled == first.disabled == {"bad.test"}
    second.add(PeerSection("DRA.test", ("198.51.100.0/24",)))
    second.remove("MME.TEST")
    assert [(peer.origin_host, peer.networks) for peer in book(tmp_path).added] == [("DRA.test", ("198.51.100.0/24",))]
    assert [path.name for path in tmp_path.iterdir()] == ["peers.json"]


def test_what_cannot_be_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    made = book(tmp_path)
    made.add(DRA)
    attempts: tuple[tuple[Callable[[], None], str], ...] = (
        (lambda: made.remove("mme.test"), "was not added here"),
        (lambda: made.enable("mme.test"), "is not disabled"),
        (lambda: made.disable("*.test"), "not a pattern"),
        (lambda: made.add(PeerSection("*", connect=("192.0.2.7:3868",))), "connect needs a name"),
        (lambda: made.add(PeerSection("a.test", ("somewhere",))), "somewhere"),
        (lambda: made.add(PeerSection("a.test")), "no networks"),
    )
    for refused, text in attempts:
        with pytest.raises(PeerBookError, match=text):
            refused()
    assert (book(tmp_path).added, made.added) == ((DRA,), (DRA,))


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"no JSON",
        b"[]",
        b'{"added": 1}',
        b'{"added": [{"origin_host": "a.test"}]}',
        b'{"added": [{"origin_host": "a*", "networks": ["::/0"]}]}',
        b'{"added": [{"origin_host": "a.test", "networks": ["x"]}]}',
        b'{"unknown": []}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_said_and_left_alone(tmp_path: Path, written: bytes) -> None:
    made = book(tmp_path)
    made.add(DRA)
    path = tmp_path / "peers.json"
    path.write_bytes(written)
    with pytest.raises(PeerBookError, match=r"peers\.json"):
        made.load()
    assert made.added == (DRA,)
    assert path.read_bytes() == written


def test_entries_have_the_countrys_answers_where_they_have_none_of_their_own() -> None:
    country = Country("Test", "UTC", 30, (1,), (), (), (), (), AnswersSection(grey="white", unknown="black"))
    policy = config.peer_policy(config.Config(), country, (DRA, MME), frozenset({"mme.test"}))
    found = {entry.origin_host: entry for entry in policy.entries}
    assert (found["*"].grey, found["*"].unknown, found["*"].malformed) == ("white", "black", None)
    assert (found["dra.test"].grey, found["dra.test"].role) == ("white", "relay")
    assert found["mme.test"].requests_per_second == 5
    assert policy.is_disabled("MME.test")
