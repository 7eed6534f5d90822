"""A peer and its watchdog under any sequence of messages, orders, losses and seconds: they keep to their tables."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eir.diameter import watchdog
from eir.diameter.actions import Action, Close, Connect, Discard, Reason, Secure, Send, SendAndClose, SendAndOpen
from eir.diameter.capabilities import Incoming, read_cer
from eir.diameter.dictionary import DisconnectCause
from eir.diameter.message import peek_header
from eir.diameter.peer import Peer
from eir.diameter.peer_fsm import TRANSITIONS, PeerState
from eir.diameter.peer_policy import PeerEntry
from eir.diameter.watchdog import Watchdog, WatchdogAction, WatchdogState
from support.peers import ANY_MESSAGE, IDENTITY, LOCAL, REMOTES, SECONDS, answer_of, cer_of, dpr_of

OPEN = {PeerState.R_OPEN, PeerState.I_OPEN}
NETWORKS = (ip_network("0.0.0.0/0"),)
RANDOM = st.floats(0.0, 1.0, exclude_max=True)


def reachable(states: set[WatchdogState]) -> set[WatchdogState]:
    return states | {row.next_state for row in watchdog.TABLE if row.state in states}


class WatchdogMachine(RuleBasedStateMachine):
    """A watchdog whose connection comes and goes."""

    @initialize(random=RANDOM)
    def begin(self, random: float) -> None:
        self.watchdog = Watchdog(lambda: random)
        self.now = self.heard = 0.0
        self.up = False
        self.questions = 0
        self.answers = 0

    def note(self, wanted: tuple[WatchdogAction, ...]) -> None:
        assert len(wanted) <= 1
        if WatchdogAction.SEND_WATCHDOG in wanted:
            assert self.up
            self.questions += 1
        if WatchdogAction.CLOSE_CONNECTION in wanted:
            # Silence, of all or of DWAs, for two whole intervals at the least.
            assert self.up
            assert self.now - self.answered >= 2 * 28.0
            self.up = False
        assert self.questions <= 1

    @rule(after=SECONDS)
    def wait(self, after: float) -> None:
        self.now += after

    @rule(after=SECONDS)
    def traffic(self, after: float) -> None:
        self.now += after
        self.heard = self.now

    @precondition(lambda self: not self.up)
    @rule()
    def connect(self) -> None:
        before = self.watchdog.state
        self.up, self.questions, self.answers, self.heard = True, 0, 0, self.now
        self.answered = self.now
        self.note(self.watchdog.connection_up(self.now))
        assert (self.questions == 1) is (before is WatchdogState.DOWN)
        assert self.watchdog.state is (WatchdogState.REOPEN if self.questions else WatchdogState.OKAY)

    @precondition(lambda self: self.up)
    @rule(orderly=st.booleans())
    def disconnect(self, orderly: bool) -> None:
        self.up = False
        if orderly:
            self.watchdog.start_over()
        else:
            self.watchdog.connection_down(self.now)
        assert self.watchdog.state is (WatchdogState.INITIAL if orderly else WatchdogState.DOWN)

    @precondition(lambda self: self.up and self.questions)
    @rule()
    def answer(self) -> None:
        reopening = self.watchdog.state is WatchdogState.REOPEN
        counted = self.watchdog.num_dwa
        self.heard = self.answered = self.now
        self.note(self.watchdog.dwa_received(self.now))
        self.questions = 0
        if reopening:
            assert (self.watchdog.state is WatchdogState.OKAY) is (counted == 2)
        else:
            assert self.watchdog.state is WatchdogState.OKAY

    @rule()
    def timer(self) -> None:
        before = self.watchdog.state
        self.note(self.watchdog.handle_timer(self.now, self.heard))
        # One call may make two moves of the table: traffic that is only now heard of, and then an expiry.
        assert self.watchdog.state in reachable(reachable({before}))

    @rule()
    def tc(self) -> None:
        wanted = self.watchdog.tc_expired(self.now)
        assert wanted == (() if self.up else (WatchdogAction.ATTEMPT_OPEN,))

    @invariant()
    def watched_while_connected(self) -> None:
        assert (self.watchdog.timer() is not None) is self.up
        assert (self.watchdog.state in (WatchdogState.INITIAL, WatchdogState.DOWN)) is not self.up
        if self.up:
            assert self.watchdog.pending is bool(self.questions)


class PeerMachine(RuleBasedStateMachine):
    """A peer with the connections that its owner has, and what the owner must be able to rely on."""

    @initialize(
        host=st.sampled_from(["a.example.org", "mme1.example.org"]),
        dialled=st.booleans(),
        named=st.booleans(),
        random=RANDOM,
    )
    def begin(self, host: str, dialled: bool, named: bool, random: float) -> None:
        self.host = host
        entry = PeerEntry(host if named or dialled else "*", NETWORKS)
        connect = (REMOTES[0], 3868) if dialled else None
        self.peer = Peer(IDENTITY, host, entry, lambda: random, connect=connect)
        self.now = self.heard = 0.0
        self.numbers = 0
        self.here: dict[int, str] = {}
        """Connections that the data plane still has: new, serving, securing or closing."""
        self.ours: set[int] = set()
        self.last_request: dict[int, bytes] = {}

    # What the owner does with actions, and what must hold of them.

    def obey(self, actions: list[Action]) -> list[Action]:
        for action in actions:
            match action:
                case Send(number, data, result_code):
                    assert self.here[number] in ("new", "serving")
                    header = peek_header(data)
                    assert header is not None
                    assert header.is_request is (result_code is None)
                    if header.is_request:
                        self.last_request[number] = data
                case SendAndOpen(number, _, origin_host):
                    assert self.here[number] in ("new", "securing")
                    assert origin_host == self.host
                    self.here[number] = "serving"
                case Secure(number):
                    assert self.here[number] == "new"
                    self.here[number] = "securing"
                case Close(number) | SendAndClose(number):
                    assert self.here[number] != "closing", "closed twice"
                    self.here[number] = "closing"
                case Connect():
                    self.dial(action)
                case Discard():
                    pass
                case _:
                    raise AssertionError(action)
        return actions

    def dial(self, action: Connect) -> None:
        assert (action.origin_host, action.address, action.port) == (self.host, REMOTES[0], 3868)
        self.numbers += 1
        self.here[self.numbers] = "new"
        self.ours.add(self.numbers)
        self.obey(self.peer.connecting(self.numbers, self.now))

    def numbers_in(self, *states: str) -> list[int]:
        return [number for number, state in self.here.items() if state in states]

    # What happens.

    @rule(after=SECONDS)
    def wait(self, after: float) -> None:
        self.now += after

    @rule()
    def traffic(self) -> None:
        self.heard = self.now

    @rule(
        state_id=st.sampled_from([0, 4, 5, 6]),
        inband=st.booleans(),
        silent=st.sampled_from([None, 0.0, 7.0]),
        trusted=st.booleans(),
    )
    def incoming(self, state_id: int, inband: bool, silent: float | None, trusted: bool) -> None:
        self.numbers += 1
        number = self.numbers
        self.here[number] = "new"
        cer = cer_of(self.host, state_id)
        incoming = Incoming(number, LOCAL, REMOTES[0], cer, read_cer(cer), inband)
        before = self.peer.state
        if self.peer.gives_way(incoming, silent, self.now, trusted=trusted):
            assert before in OPEN or before is PeerState.CLOSING
            self.obey(self.peer.give_way(self.now))
            assert self.peer.state is PeerState.CLOSED
        actions = self.obey(self.peer.accept(incoming, self.now))
        rejected = any(isinstance(action, SendAndClose) and action.number == number for action in actions)
        assert rejected is (number not in self.peer.numbers)

    @precondition(lambda self: self.ours & set(self.numbers_in("new")))
    @rule()
    def connected(self) -> None:
        for number in self.ours & set(self.numbers_in("new")):
            self.obey(self.peer.connected(number, LOCAL, self.now))

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def lost(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.here)))
        known = number in self.peer.numbers
        closing = self.here.pop(number) == "closing"
        assert not (known and closing)
        self.obey(self.peer.closed(number, self.now))
        assert number not in self.peer.numbers

    @precondition(lambda self: self.here)
    @rule(data=st.data(), message=ANY_MESSAGE)
    def message(self, data: st.DataObject, message: bytes) -> None:
        self.receive(data.draw(st.sampled_from(sorted(self.here))), message)

    @precondition(lambda self: self.last_request)
    @rule(data=st.data(), code=st.sampled_from([2001, 2001, 2001, 4003, 5012]), own=st.booleans())
    def answer(self, data: st.DataObject, code: int, own: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.last_request)))
        host = self.host if own else "another.example.org"
        self.receive(number, answer_of(self.last_request[number], host, code))

    @precondition(lambda self: self.numbers_in("serving"))
    @rule(cause=st.integers(0, 3))
    def goodbye(self, cause: int) -> None:
        for number in self.numbers_in("serving"):
            self.receive(number, dpr_of(self.host, cause))

    def receive(self, number: int, message: bytes) -> None:
        state, serving = self.peer.state, self.here.get(number) == "serving"
        if serving:
            self.heard = self.now
        actions = self.peer.receive(number, message, self.now)
        check_outcome(number, message, actions, serving=serving)
        self.obey(actions)
        assert self.peer.state in {state, *(row.next_state for row in TRANSITIONS.values() if row.state is state)}

    @precondition(lambda self: self.numbers_in("securing"))
    @rule(certified=st.booleans())
    def secured(self, certified: bool) -> None:
        (number,) = self.numbers_in("securing")
        self.obey(self.peer.secured(self.now, certified=certified))
        assert self.here[number] == ("serving" if certified else "closing")

    @rule()
    def timer(self) -> None:
        due = self.peer.timer()
        actions = self.obey(self.peer.handle_timer(self.now, self.heard))
        assert not actions or (due is not None and self.now >= due)

    @rule(cause=st.sampled_from(DisconnectCause))
    def disconnect(self, cause: DisconnectCause) -> None:
        self.obey(self.peer.disconnect(cause, self.now))
        assert self.peer.state in (PeerState.CLOSED, PeerState.CLOSING)

    @rule()
    def start(self) -> None:
        self.obey(self.peer.start(self.now))

    @rule(role=st.sampled_from(["auto", "direct", "relay"]))
    def other_terms(self, role: str) -> None:
        self.peer.entry = replace(self.peer.entry, role=role)  # type: ignore[arg-type]

    # What always holds.

    @invariant()
    def at_most_one_connection_is_open(self) -> None:
        serving = self.numbers_in("serving", "securing")
        assert len(serving) <= 1
        assert (self.peer.state in OPEN or self.peer.state is PeerState.CLOSING) is bool(serving)
        assert self.peer.is_open is bool(self.peer.state in OPEN and self.numbers_in("serving"))
        if serving:
            assert (self.peer.number, self.peer.numbers) == (serving[0], (serving[0],))

    @invariant()
    def every_connection_is_the_peers_or_closed(self) -> None:
        assert set(self.peer.numbers) == {number for number, state in self.here.items() if state != "closing"}

    @invariant()
    def whoever_waits_has_a_deadline(self) -> None:
        waits = self.peer.state is not PeerState.CLOSED
        assert self.peer.timer() is not None or not waits
        if not waits and self.peer.connect is None:
            assert self.peer.timer() is None

    @invariant()
    def the_watchdog_watches_what_is_open(self) -> None:
        resting = self.peer.watchdog_state in (WatchdogState.INITIAL, WatchdogState.DOWN)
        assert resting is not self.peer.is_open


def check_outcome(number: int, message: bytes, actions: list[Action], *, serving: bool) -> None:
    """A request ends in one outcome, and its answer is an answer to it; an answer is never answered."""
    header = peek_header(message)
    about = [action for action in actions if not isinstance(action, Connect) and action.number == number]  # type: ignore[union-attr]
    if header is None or not header.is_request:
        # A CEA opens, and what is no answer to a question of ours is discarded; none is answered.
        assert not [action for action in about if isinstance(action, SendAndClose)]
        assert all(action.result_code is None for action in about if isinstance(action, Send))
        return
    (action,) = about
    if serving:
        assert isinstance(action, Send)
        answer = peek_header(action.data)
        assert answer is not None
        assert not answer.is_request
        assert (answer.command, answer.hop_by_hop, answer.end_to_end) == (
            header.command,
            header.hop_by_hop,
            header.end_to_end,
        )
    else:
        assert isinstance(action, Discard) or action == Close(number, Reason.NOT_CEA)


TestWatchdog = WatchdogMachine.TestCase
TestWatchdog.settings = settings(max_examples=200, stateful_step_count=40)
TestPeer = PeerMachine.TestCase
TestPeer.settings = settings(max_examples=300, stateful_step_count=40)
