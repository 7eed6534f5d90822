"""A connection and its watchdog under any sequence of messages, orders and seconds: they keep to their tables."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from eir.diameter.answer import Identity
from eir.diameter.capabilities import AllowedPeer, PeerPolicy
from eir.diameter.message import peek_header
from eir.diameter.peer import (
    TRANSITIONS,
    Action,
    Close,
    Discard,
    DisconnectCause,
    Peer,
    PeerState,
    Send,
    SendAndClose,
    SendAndOpen,
)
from eir.diameter.watchdog import TRANSITIONS as WATCHDOG_TRANSITIONS
from eir.diameter.watchdog import Watchdog, WatchdogAction, WatchdogState

VECTORS = Path(__file__).parents[1] / "vectors" / "diameter"
MESSAGES = {path.stem: bytes.fromhex(re.sub(r"#.*", "", path.read_text())) for path in sorted(VECTORS.glob("*.hex"))}
CER = MESSAGES["cer_python_diameter"]
IDENTITY = Identity("eir1.example.org", "example.org", origin_state_id=5)
POLICY = PeerPolicy((AllowedPeer("*", (ip_network("0.0.0.0/0"),)),))


class Step(NamedTuple):
    """What happens `after` seconds: a message (`data`), an answer to our last request, an order, or the timer."""

    kind: str
    after: float
    data: bytes = b""


AFTER = st.sampled_from([0.0, 0.5, 4.0, 6.0, 29.0, 31.0, 100.0])
SOME_OCTETS = st.tuples(st.sampled_from(sorted(MESSAGES.values())), st.integers(0, 300), st.binary(max_size=3)).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + len(parts[2]) :]
)
STEPS = st.lists(
    st.builds(
        Step,
        st.just("message"),
        AFTER,
        st.sampled_from(sorted(MESSAGES.values())) | SOME_OCTETS | st.binary(max_size=60),
    )
    | st.builds(Step, st.sampled_from(["timer", "timer", "answer", "disconnect", "lost"]), AFTER),
    max_size=25,
)


def allowed_after(before: PeerState) -> set[PeerState]:
    return {before, *TRANSITIONS[before].values()}


@settings(max_examples=300)
@given(st.booleans(), STEPS)
def test_a_connection_keeps_to_its_table(opened: bool, steps: list[Step]) -> None:
    now = heard = 0.0
    ours = b""
    peer = Peer(IDENTITY, POLICY, ip_address("192.0.2.1"), ip_address("192.0.2.2"), now, lambda: 0.5)
    if opened:
        peer.receive(CER, now)
    for step in steps:
        now += step.after
        before, actions, received = peer.state, list[Action](), b""
        if step.kind == "message" or (step.kind == "answer" and ours):
            received = step.data if step.kind == "message" else ours[:4] + b"\0" + ours[5:]
            heard = now
            actions = peer.receive(received, now)
        elif step.kind == "timer":
            actions = peer.handle_timer(now, heard)
        elif step.kind == "disconnect":
            actions = peer.disconnect(DisconnectCause.BUSY, now)
        elif step.kind == "lost":
            peer.connection_lost()
        assert peer.state in allowed_after(before)
        check_actions(actions, before, peer.state)
        if received:
            check_outcome(received, actions)
        ours = next(
            (action.data for action in actions if isinstance(action, Send) and action.result_code is None), ours
        )
        assert peer.timer() is None or peer.state is not PeerState.CLOSED
        assert peer.timer() is not None or peer.state is PeerState.CLOSED


def check_actions(actions: list[Action], before: PeerState, after: PeerState) -> None:
    """Actions and states tell the same story: a connection opens and closes once, and with the action that says so."""
    assert len(actions) <= 1
    for action in actions:
        if isinstance(action, SendAndOpen):
            assert (before, after) == (PeerState.WAIT_CER, PeerState.OPEN)
        elif isinstance(action, Close | SendAndClose):
            assert before is not PeerState.CLOSED
            assert after is PeerState.CLOSED
        elif isinstance(action, Send):
            assert after in (PeerState.OPEN, PeerState.CLOSING)


def check_outcome(received: bytes, actions: list[Action]) -> None:
    """A request ends in one outcome, and its answer is an answer to it; an answer is never answered."""
    header = peek_header(received)
    if header is None or not header.is_request:
        assert all(isinstance(action, Discard | Close) for action in actions)
        return
    (action,) = actions
    if isinstance(action, Send | SendAndOpen | SendAndClose):
        answer = peek_header(action.data)
        assert answer is not None
        assert not answer.is_request
        assert (answer.command, answer.hop_by_hop, answer.end_to_end) == (
            header.command,
            header.hop_by_hop,
            header.end_to_end,
        )


def reachable(states: set[WatchdogState]) -> set[WatchdogState]:
    return states | {after for state in states for after, _ in WATCHDOG_TRANSITIONS[state].values()}


@given(st.lists(st.tuples(st.sampled_from(["timer", "dwa", "traffic"]), AFTER), max_size=30), st.floats(0.0, 1.0))
def test_a_watchdog_keeps_to_its_table(steps: list[tuple[str, float]], random: float) -> None:
    now = heard = 0.0
    questions = 0
    watchdog = Watchdog(lambda: random)
    watchdog.connection_up(now)
    for kind, after in steps:
        now += after
        before = watchdog.state
        if kind == "traffic":
            heard = now
        elif kind == "dwa" and before is not WatchdogState.DOWN:
            heard = now
            watchdog.dwa_received(now)
            questions = 0
        elif kind == "timer":
            action = watchdog.handle_timer(now, heard)
            questions += action is WatchdogAction.SEND_DWR
            assert (action is WatchdogAction.CLOSE) is (before is not watchdog.state is WatchdogState.DOWN)
            # Silence since the last message is what a close needs: two whole intervals at the least.
            assert action is not WatchdogAction.CLOSE or now - heard >= 2 * 28.0
        assert questions <= 1
        # One call may make two moves of the table: traffic that is only now heard of, and then an expiry.
        assert watchdog.state in reachable(reachable({before}))
        assert (watchdog.timer() is None) is (watchdog.state is WatchdogState.DOWN)
