"""The node's own watchdog: it asks silent peers, keeps those that answer and closes on the others."""

from __future__ import annotations

from eir.diameter import dictionary as d
from eir.diameter.message import decode
from support.node import until
from support.silence import QuietPeers


def reasons(quiet_peers: QuietPeers) -> list[object]:
    """Why the connection of the peer that does not answer was closed."""
    closed = quiet_peers.node.log("connection closed")
    return [entry["reason"] for entry in closed if entry["peer"] == quiet_peers.dead.host]


def test_of_two_silent_peers_the_one_that_answers_stays(quiet_peers: QuietPeers) -> None:
    quiet_peers.watch()
    # Three intervals of six seconds, two more or less each: asked, suspected, closed.
    assert 11.5 < quiet_peers.lasted < 30
    assert quiet_peers.verdict == "white"
    until(lambda: reasons(quiet_peers))
    assert reasons(quiet_peers) == ["watchdog"]
    to_dead = [decode(data) for data in quiet_peers.dead.received]
    # The CEA and one DWR: it is not repeated while its answer is owed.
    assert [message.header.command for message in to_dead] == [257, 280]
    to_alive = [decode(data) for data in quiet_peers.alive.received]
    commands = [message.header.command for message in to_alive]
    assert (commands[0], set(commands[1:-1]), commands[-1]) == (257, {280}, 324)
    assert len(commands) >= 3
    identifiers = [message.header.hop_by_hop for message in to_alive[1:-1]]
    assert len(set(identifiers)) == len(identifiers)
    for message in (*to_dead[1:], *to_alive[1:-1]):
        assert [avp.code for avp in message.avps] == [
            d.ORIGIN_HOST.code,
            d.ORIGIN_REALM.code,
            d.ORIGIN_STATE_ID.code,
        ]
