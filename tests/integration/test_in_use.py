"""Which devices are in use, and what they were answered, as a running node keeps it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from eir import _core, config
from eir.app import build_policy
from support import lists
from support.diameter import Client, cer
from support.node import MakeNode, until, write_config

NO_ROOM = "in_use_dropped"
SHORT = lists.SUBSCRIBER[:8]
"""An IMSI of few digits."""


def test_a_node_counts_them(make_node: MakeNode) -> None:
    node = make_node()
    with node.peer() as peer:
        for imei, imsi in ((lists.WHITE, lists.SUBSCRIBER), (lists.WHITE, None), (lists.BLACK, lists.SUBSCRIBER)) * 2:
            peer.check(imei, imsi)
        peer.check("malformed", lists.SUBSCRIBER)
    stats = node.ask("status")["stats"]
    assert (stats["in_use_pairs"], stats[NO_ROOM]) == (3, 0)
    assert 0 < stats["in_use_bytes"] <= node.settings.in_use.max_bytes
    metrics = node.metrics()
    assert (metrics["eir_in_use_pairs"], metrics["eir_in_use_dropped_total"]) == (3, 0)


def test_switched_off_nothing_is_kept(make_node: MakeNode) -> None:
    node = make_node({"in_use": {"max_bytes": 0}})
    with node.peer() as peer:
        assert peer.check(lists.BLACK) == "black"
    stats = node.ask("status")["stats"]
    assert (stats["in_use_pairs"], stats[NO_ROOM], stats["in_use_bytes"]) == (0, 0, 0)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[_core.Node]:
    """A data plane in this process."""
    settings, country = config.load(write_config(tmp_path))
    lists.build(tmp_path / "lists.eirs")
    node = _core.Node(
        origin_host="eir.test",
        origin_realm="test",
        origin_state_id=1,
        workers=1,
        max_events=64,
        hold_ms=1000,
        journal_directory=tmp_path / "journal",
        journal_segment_bytes=1 << 20,
        journal_max_bytes=1 << 30,
        policy=build_policy(settings, country, int(time.time())),
        in_use_bytes=1 << 20,
    )
    node.set_lists(_core.Snapshot.open(tmp_path / "lists.eirs"))
    yield node
    node.stop()


def open_peer(node: _core.Node) -> Client:
    """A connection that is open without a capability exchange of the control plane's."""
    client = Client(node.listen(ip_address("127.0.0.1"), 0))
    client.send(cer(client.host))
    messages: list[int] = []

    def asked() -> list[int]:
        messages.extend(event[1] for event in node.take_events(10) if event[0] == "message")
        return messages

    until(asked)
    assert node.open(messages[0], b"", client.host, "auto", False)
    return client


def test_the_days_and_the_answers_of_a_device(node: _core.Node, tmp_path: Path) -> None:
    begin = int(time.time())
    (new,) = lists.new_devices(1)
    with open_peer(node) as peer:
        assert peer.check(lists.BLACK, lists.SUBSCRIBER) == "black"
        assert peer.check(lists.BLACK) == "black"
        assert peer.check(lists.WHITE, lists.SUBSCRIBER) == "white"
        assert peer.check(new, SHORT) == "grey"
    today = int(time.time()) // 86400
    black = node.recent(int(lists.BLACK))
    assert [answer[1:] for answer in black] == [(None, "black", "black"), (lists.SUBSCRIBER, "black", "black")]
    assert all(begin <= answer[0] <= time.time() for answer in black)
    assert [answer[1:] for answer in node.recent(int(new))] == [(SHORT, "grey", "first-attach")]
    assert node.recent(int(lists.WHITE)) == []
    assert node.last_seen(int(lists.WHITE)) in (begin // 86400, today)
    assert node.last_seen(int(lists.STOLEN)) is None
    # All of one day, unless it has just ended.
    path = tmp_path / "pairs.csv"
    if begin // 86400 == today:
        assert node.write_pairs(today, path) == 4
        head, *rows = path.read_text().splitlines()
        assert head == "imei,imsi"
        assert sorted(rows) == sorted(
            (
                f"{lists.BLACK},{lists.SUBSCRIBER}",
                f"{lists.BLACK},",
                f"{lists.WHITE},{lists.SUBSCRIBER}",
                f"{new},{SHORT}",
            )
        )
    node.rotate_in_use(today + 14)
    assert node.last_seen(int(lists.WHITE)) is None
    assert node.stats(0)["in_use_pairs"] == 0


def test_what_is_no_key_of_a_device(node: _core.Node) -> None:
    for key in (0, 10**14):
        with pytest.raises(ValueError, match="14 digits"):
            node.recent(key)
        with pytest.raises(ValueError, match="14 digits"):
            node.last_seen(key)
    with pytest.raises(OSError, match=r"No such file"):
        node.write_pairs(20_000, "/nonexistent/pairs.csv")
