"""All peers under any sequence of connections, messages, policies and seconds: what their owner may rely on."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eir.diameter.actions import (
    Action,
    Close,
    Connect,
    Discard,
    Reason,
    Secure,
    Send,
    SendAndClose,
    SendAndOpen,
    SetTerms,
)
from eir.diameter.dictionary import DisconnectCause
from eir.diameter.message import peek_header
from eir.diameter.peer_policy import PeerEntry, PeerPolicy
from eir.diameter.peers import Owner, Peers, Security
from support.peers import ANY_MESSAGE, CERS, IDENTITY, LOCAL, REMOTES, SECONDS, answer_of, dpr_of

NEAR, FAR = (ip_network("192.0.2.0/24"),), (ip_network("198.51.100.0/24"),)
HERE = tuple((remote, 3868) for remote in REMOTES[:2])
ENTRIES = (
    PeerEntry("*", NEAR),
    PeerEntry("*", (*NEAR, *FAR), connections=2),
    PeerEntry("*.example.org", NEAR, role="relay", tls="never"),
    PeerEntry("mme1.example.org", NEAR),
    PeerEntry("mme1.example.org", NEAR, connections=3, connect=HERE[:1]),
    PeerEntry("mme1.example.org", FAR, connect=HERE, tls="required"),
    PeerEntry("a.example.org", connect=HERE[1:]),
    PeerEntry("a.example.org", NEAR, requests_per_second=5, connections=2),
)
POLICIES = st.builds(
    PeerPolicy,
    st.lists(st.sampled_from(ENTRIES), max_size=5, unique=True),
    st.sets(st.sampled_from(["mme1.example.org", "a.example.org", "b.example.org"]), max_size=1),
)


class PeersMachine(RuleBasedStateMachine):
    """The connections of a data plane, and what it was told of each."""

    @initialize(
        policy=POLICIES,
        inband=st.booleans(),
        certificates_required=st.booleans(),
        certified=st.sampled_from([None, True, False]),
        random=st.floats(0.0, 1.0, exclude_max=True),
    )
    def begin(
        self, policy: PeerPolicy, inband: bool, certificates_required: bool, certified: bool | None, random: float
    ) -> None:
        self.now = 0.0
        self.numbers = 0
        self.here: dict[int, str] = {}
        """new, serving, securing, closing; of those that are not gone."""
        self.names: dict[int, str] = {}
        """Whose the connections are that serve."""
        self.ours: set[int] = set()
        self.heard: dict[int, float] = {}
        self.last_request: dict[int, bytes] = {}
        self.terms: dict[str, PeerEntry] = {}
        self.stopped = False
        owner = Owner(lambda *_: certified, self.idle, lambda: random)
        self.peers = Peers(IDENTITY, policy, owner, security=Security(inband, certificates_required))
        self.obey(self.peers.start(self.now))

    def idle(self, number: int) -> float | None:
        return self.now - self.heard[number] if number in self.heard else None

    def obey(self, actions: list[Action]) -> None:
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
                    assert origin_host in self.terms
                    self.here[number], self.names[number] = "serving", origin_host.lower()
                case Secure(number):
                    assert self.here[number] == "new"
                    self.here[number] = "securing"
                case Close(number) | SendAndClose(number):
                    assert self.here[number] != "closing", "closed twice"
                    self.here[number] = "closing"
                    self.names.pop(number, None)
                case Connect():
                    self.dial(action)
                case SetTerms(origin_host, None):
                    del self.terms[origin_host]
                case SetTerms(origin_host, entry):
                    assert entry is not None
                    assert self.terms.get(origin_host) != entry
                    self.terms[origin_host] = entry
                case Discard():
                    pass

    def dial(self, action: Connect) -> None:
        assert not self.stopped
        self.numbers += 1
        if self.numbers % 7 == 0:
            self.obey(self.peers.connecting(action, None, self.now))
            return
        self.here[self.numbers] = "new"
        self.ours.add(self.numbers)
        self.heard[self.numbers] = self.now
        self.obey(self.peers.connecting(action, self.numbers, self.now))

    @rule(after=SECONDS)
    def wait(self, after: float) -> None:
        self.now += after

    @rule(remote=st.sampled_from(REMOTES), tls=st.booleans(), cer=CERS)
    def incoming(self, remote: object, tls: bool, cer: bytes) -> None:
        number = self.accept(remote, tls=tls)
        if self.here[number] == "new":
            self.receive(number, cer)

    @rule(remote=st.sampled_from(REMOTES), tls=st.booleans())
    def silent(self, remote: object, tls: bool) -> None:
        self.accept(remote, tls=tls)

    def accept(self, remote: object, *, tls: bool) -> int:
        self.numbers += 1
        number = self.numbers
        self.here[number] = "new"
        self.heard[number] = self.now
        endpoint = (remote, 40000)
        self.obey(self.peers.connected(number, endpoint, LOCAL, self.now, outgoing=False, tls=tls))  # type: ignore[arg-type]
        return number

    @precondition(lambda self: self.ours & self.here.keys())
    @rule(data=st.data())
    def connected(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.ours & self.here.keys())))
        self.ours.discard(number)
        self.obey(self.peers.connected(number, HERE[0], LOCAL, self.now, outgoing=True, tls=False))

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def lost(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.here)))
        del self.here[number]
        del self.heard[number]
        self.names.pop(number, None)
        self.ours.discard(number)
        self.obey(self.peers.closed(number, self.now))

    @precondition(lambda self: self.here)
    @rule(data=st.data(), message=ANY_MESSAGE)
    def message(self, data: st.DataObject, message: bytes) -> None:
        self.receive(data.draw(st.sampled_from(sorted(self.here))), message)

    @precondition(lambda self: self.last_request)
    @rule(
        data=st.data(),
        host=st.sampled_from(["mme1.example.org", "a.example.org"]),
        code=st.sampled_from([2001, 2001, 2001, 5012]),
    )
    def answer(self, data: st.DataObject, host: str, code: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.last_request)))
        self.receive(number, answer_of(self.last_request[number], host, code))

    @precondition(lambda self: self.names)
    @rule(data=st.data(), cause=st.integers(0, 3))
    def goodbye(self, data: st.DataObject, cause: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.names)))
        self.receive(number, dpr_of(self.names[number], cause))

    def receive(self, number: int, message: bytes) -> None:
        before = self.here.get(number)
        if before is not None:
            self.heard[number] = self.now
        actions = self.peers.receive(number, message, self.now)
        header = peek_header(message)
        about = [
            action
            for action in actions
            if not isinstance(action, Connect | SetTerms) and action.number == number and not is_question(action)
        ]
        if before is None:
            assert actions == []
        elif header is not None and header.is_request:
            electing = [view for view in self.peers.table(self.now) if len(view.connections) == 2]
            if not about:
                # A CER in an election has its outcome when that is over.
                assert header.command == 257
                assert number in [view.connections[1].number for view in electing]
            else:
                assert len(about) == 1, "a request has one outcome"
        else:
            assert len(about) <= 1
        if before == "closing":
            assert actions == [Discard(number, Reason.CLOSED)]
        self.obey(actions)

    @precondition(lambda self: "securing" in self.here.values())
    @rule()
    def secured(self) -> None:
        for number in [number for number, state in self.here.items() if state == "securing"]:
            self.obey(self.peers.secured(number, self.now))
            assert self.here[number] in ("serving", "closing")

    @rule()
    def timer(self) -> None:
        due = self.peers.timer()
        actions = self.peers.handle_timer(self.now)
        assert not actions or (due is not None and due <= self.now)
        self.obey(actions)
        due = self.peers.timer()
        assert due is None or due > self.now

    @rule(policy=POLICIES)
    def other_policy(self, policy: PeerPolicy) -> None:
        self.obey(self.peers.set_policy(policy, self.now))
        assert self.peers.set_policy(policy, self.now) == []

    @rule(host=st.sampled_from(["mme1.example.org", "A.example.org", "nobody"]))
    def connect_now(self, host: str) -> None:
        self.obey(self.peers.connect_now(host, self.now))

    @precondition(lambda self: self.now > 50.0)
    @rule(cause=st.sampled_from(DisconnectCause))
    def stop(self, cause: DisconnectCause) -> None:
        self.obey(self.peers.disconnect_all(cause, self.now))
        self.stopped = True

    def teardown(self) -> None:
        if not hasattr(self, "peers"):
            return
        # Whatever has happened: told to stop, all connections end in a bounded time, and nothing is left to wait for.
        self.obey(self.peers.disconnect_all(DisconnectCause.REBOOTING, self.now))
        self.stopped = True
        self.now += 20.0
        self.obey(self.peers.handle_timer(self.now))
        assert set(self.here.values()) <= {"closing"}
        for number in list(self.here):
            self.lost_at_the_end(number)
        assert self.peers.timer() is None
        assert self.peers.open_peers() == 0
        self.obey(self.peers.set_policy(PeerPolicy(()), self.now))
        assert list(self.peers.table(self.now)) == []
        assert self.terms == {}

    def lost_at_the_end(self, number: int) -> None:
        del self.here[number]
        self.heard.pop(number, None)
        self.obey(self.peers.closed(number, self.now))

    @invariant()
    def what_is_shown_is_what_is_there(self) -> None:
        shown = [connection.number for view in self.peers.table(self.now) for connection in view.connections]
        waiting = [connection.number for connection in self.peers.waiting(self.now)]
        assert sorted((*shown, *waiting)) == sorted(n for n, state in self.here.items() if state != "closing")
        closing = sum(view.state == "Closing" for view in self.peers.table(self.now))
        serving = sum(state == "serving" for state in self.here.values())
        assert self.peers.open_peers() + closing == serving

    @invariant()
    def a_peer_has_no_more_connections_than_it_may(self) -> None:
        for view in self.peers.table(self.now):
            assert len(view.connections) <= 2
            if view.state in ("R-Open", "I-Open", "Closing"):
                assert len(view.connections) == 1

    @invariant()
    def every_peer_has_terms(self) -> None:
        hosts = {view.origin_host for view in self.peers.table(self.now) if not view.disabled}
        assert hosts == set(self.terms)


def is_question(action: Action) -> bool:
    """Whether it is a request of the node's own, which no message of the peer's asks for."""
    return isinstance(action, Send) and action.result_code is None


TestPeers = PeersMachine.TestCase
TestPeers.settings = settings(max_examples=300, stateful_step_count=40)
