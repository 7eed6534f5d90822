"""`eir.diameter.peer`: a peer from its first connection to its last, one message and one second at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from eir.diameter import dictionary
from eir.diameter.actions import Action, Close, Connect, Discard, Reason, Secure, Send, SendAndClose, SendAndOpen
from eir.diameter.answer import Identity
from eir.diameter.capabilities import Incoming, build_cea, build_cea_refusal, cer_avps, read_cer
from eir.diameter.dictionary import DisconnectCause
from eir.diameter.message import (
    ERROR,
    REQUEST,
    Avp,
    DiameterError,
    Header,
    Message,
    decode,
    encode,
    encode_avps,
    make_avp,
    numbers_of,
    peek_header,
    text_of,
)
from eir.diameter.peer import Peer
from eir.diameter.peer_fsm import PeerState
from eir.diameter.peer_policy import PeerEntry
from eir.diameter.peer_timers import PeerTimers
from eir.diameter.peer_view import StateChanges
from eir.diameter.watchdog import WatchdogState

Vector = Callable[[str], bytes]
HOST = "mme1.epc.mnc001.mcc001.3gppnetwork.org"
"""Higher than the node's own name, so the peer wins elections."""
LOWER = "a.example.org"
LOCAL, REMOTE = ip_address("192.0.2.1"), ip_address("192.0.2.10")
ENTRY = PeerEntry(HOST, (ip_network("192.0.2.0/24"),))
PORT = 3868
TLS_ENTRY = replace(ENTRY, tls="required")
R, OURS = 1, 2
"""Numbers of connections: one of the peer's, and ours."""


def make(identity: Identity, host: str = HOST, *, connect: bool = False, entry: PeerEntry = ENTRY) -> Peer:
    return Peer(identity, host, entry, lambda: 0.5, connect=(REMOTE, PORT) if connect else None)


def cer_of(host: str, state_id: int = 5, *more: Avp) -> bytes:
    theirs = Identity(host, "example.org", state_id)
    return encode(Header(REQUEST, 257, 0, 77, 78), encode_avps((*cer_avps(theirs, REMOTE), *more)))


def incoming(number: int = R, cer: bytes = cer_of(HOST), *, inband: bool = False) -> Incoming:
    return Incoming(number, LOCAL, REMOTE, cer, read_cer(cer), inband)


@pytest.fixture
def waiting(identity: Identity) -> Peer:
    """A peer that is not connected to."""
    return make(identity)


@pytest.fixture
def peer(waiting: Peer, vector: Vector) -> Peer:
    """One with a connection that opened at second 1."""
    cer = vector("cer_python_diameter")
    assert waiting.accept(incoming(cer=cer), 1.0) == [SendAndOpen(R, vector("cea_success"), HOST, "auto", False)]
    return waiting


@pytest.fixture
def connecting(identity: Identity) -> Peer:
    """One that is being connected to since second 1."""
    return dialled(make(identity, connect=True))


def dialled(peer: Peer, now: float = 1.0) -> Peer:
    assert peer.start(now) == [Connect(peer.origin_host, REMOTE, PORT, None)]
    assert peer.connecting(OURS, now) == []
    return peer


def cer_sent(peer: Peer, now: float = 2.0) -> bytes:
    (sent,) = peer.connected(OURS, LOCAL, now)
    assert isinstance(sent, Send)
    assert (sent.number, sent.result_code) == (OURS, None)
    assert read_cer(sent.data).origin_host == "eir1.example.org"
    return sent.data


def cea_to(cer: bytes, host: str = HOST) -> bytes:
    return build_cea(cer, Identity(host, "example.org", 9), REMOTE)


def refusal_of(cer: bytes, code: int) -> bytes:
    return build_cea_refusal(cer, Identity(HOST, "example.org", 9), REMOTE, DiameterError(code, None, "no"))


@pytest.fixture
def initiator(connecting: Peer) -> Peer:
    """One with a connection of ours that opened at second 3."""
    cea = cea_to(cer_sent(connecting))
    assert connecting.receive(OURS, cea, 3.0) == [SendAndOpen(OURS, b"", HOST, "auto", False)]
    return connecting


def sent(peer: Peer, data: bytes, code: int, number: int = R) -> Message:
    """The answer that the peer gets, of which this checks everything that is the same for all."""
    (action,) = peer.receive(number, data, 2.0)
    assert isinstance(action, Send)
    assert (action.number, action.result_code) == (number, code)
    answer, request = decode(action.data), peek_header(data)
    assert request is not None
    assert numbers_of(answer.avps, dictionary.RESULT_CODE) == [code]
    assert bool(answer.header.flags & ERROR) is (3000 <= code < 4000)
    assert (answer.header.hop_by_hop, answer.header.end_to_end) == (request.hop_by_hop, request.end_to_end)
    return answer


def answer_to(request: bytes, *avps: Avp) -> bytes:
    header = decode(request).header
    return encode(
        Header(0, header.command, header.application, header.hop_by_hop, header.end_to_end), encode_avps(avps)
    )


def only_send(actions: list[Action]) -> bytes:
    (action,) = actions
    assert isinstance(action, Send)
    assert action.result_code is None
    return action.data


def dpr(cause: int = 0) -> bytes:
    own = Identity(HOST, "example.org", 5).avps()
    avps = (*own, Avp(273, 0, 0x40, cause.to_bytes(4, "big")))
    return encode(Header(REQUEST, 282, 0, 41, 42), encode_avps(avps))


class TestIncoming:
    def test_opens(self, peer: Peer) -> None:
        assert (peer.state, peer.watchdog_state) == (PeerState.R_OPEN, WatchdogState.OKAY)
        assert (peer.is_open, peer.number, peer.numbers, peer.has_incoming) == (True, R, (R,), True)
        assert peer.timer() == 31.0

    def test_the_role_goes_down_with_it(self, identity: Identity) -> None:
        relay = make(identity, entry=replace(ENTRY, role="relay"))
        offer = make_avp(dictionary.AUTH_APPLICATION_ID, dictionary.APPLICATION_RELAY)
        (opened,) = relay.accept(incoming(cer=cer_of(HOST, 5, offer)), 1.0)
        assert isinstance(opened, SendAndOpen)
        assert (opened.sender, opened.advertised_relay) == ("relay", True)

    def test_another_is_rejected(self, peer: Peer) -> None:
        (action,) = peer.accept(incoming(7), 2.0)
        assert isinstance(action, SendAndClose)
        assert (action.number, action.reason, action.result_code) == (7, Reason.DUPLICATE, 4003)
        message = decode(action.data)
        assert message.header.flags == 0
        assert text_of(message.avps, dictionary.ERROR_MESSAGE)
        assert (peer.state, peer.numbers) == (PeerState.R_OPEN, (R,))

    def test_timers_are_configured(self, identity: Identity) -> None:
        timers = PeerTimers(dpa_timeout=1.0, dpr_grace=2.0, tw=6.0)
        peer = Peer(identity, HOST, ENTRY, lambda: 0.5, timers)
        peer.accept(incoming(), 1.0)
        assert peer.timer() == 7.0
        peer.disconnect(DisconnectCause.REBOOTING, 2.0)
        assert peer.timer() == 3.0
        with pytest.raises(ValueError, match="tw is"):
            Peer(identity, HOST, ENTRY, lambda: 0.5, PeerTimers(tw=1.0))


class TestOpen:
    def test_dwr(self, peer: Peer, vector: Vector) -> None:
        assert peer.receive(R, vector("dwr_python_diameter"), 2.0) == [Send(R, vector("dwa"), 2001)]

    def test_dwr_without_origin_host(self, peer: Peer) -> None:
        realm = encode_avps((make_avp(dictionary.ORIGIN_REALM, "example.org"),))
        sent(peer, encode(Header(REQUEST, 280, 0, 1, 2), realm), 5005)

    def test_second_cer_changes_nothing(self, peer: Peer, vector: Vector) -> None:
        answer = sent(peer, vector("cer_python_diameter"), 5012)
        assert dictionary.HOST_IP_ADDRESS.key in {avp.key for avp in answer.avps}
        assert peer.state is PeerState.R_OPEN

    def test_ecr_that_is_wrong(self, peer: Peer, vector: Vector) -> None:
        ecr = decode(vector("ecr_minimal"))
        answer = sent(peer, encode(ecr.header, encode_avps(ecr.avps[:-1])), 5005)
        assert numbers_of(answer.avps, dictionary.AUTH_SESSION_STATE) == [1]

    def test_ecr_that_is_right_is_our_failure(self, peer: Peer, vector: Vector) -> None:
        sent(peer, vector("ecr_python_diameter"), 5012)

    def test_ecr_of_another_version_is_answered_as_an_ecr(self, peer: Peer, vector: Vector) -> None:
        answer = sent(peer, b"\x02" + vector("ecr_minimal")[1:], 5011)
        assert numbers_of(answer.avps, dictionary.AUTH_SESSION_STATE) == [1]

    def test_a_change_of_role_holds_at_once(self, peer: Peer, vector: Vector) -> None:
        ecr = decode(vector("ecr_python_diameter"))
        avps = [make_avp(dictionary.ORIGIN_HOST, "x.org") if avp.code == 264 else avp for avp in ecr.avps]
        data = encode(ecr.header, encode_avps([avp for avp in avps if avp.code != 282]))
        sent(peer, data, 5004)
        peer.entry = replace(ENTRY, role="relay")
        sent(peer, data, 5012)

    def test_the_same_identifiers_twice(self, peer: Peer, vector: Vector) -> None:
        for _ in range(3):
            assert peer.receive(R, vector("dwr_python_diameter"), 2.0) == [Send(R, vector("dwa"), 2001)]

    @pytest.mark.parametrize("name", ["cea_success", "dwa", "eca_no_imei"])
    def test_answers_nobody_asked_for(self, peer: Peer, vector: Vector, name: str) -> None:
        assert peer.receive(R, vector(name), 2.0) == [Discard(R, Reason.UNSOLICITED_ANSWER)]
        assert peer.state is PeerState.R_OPEN

    def test_dpa_nobody_asked_for(self, peer: Peer, vector: Vector) -> None:
        dpa = answer_to(vector("dpr_python_diameter"))
        assert peer.receive(R, dpa, 2.0) == [Discard(R, Reason.UNSOLICITED_ANSWER)]

    def test_less_than_a_header(self, peer: Peer) -> None:
        assert peer.receive(R, b"\x01\x00", 2.0) == [Discard(R, Reason.UNREADABLE)]

    def test_lost(self, peer: Peer, vector: Vector) -> None:
        assert peer.closed(R, 2.0) == []
        assert (peer.state, peer.timer(), peer.watchdog_state) == (PeerState.CLOSED, None, WatchdogState.DOWN)
        assert peer.receive(R, vector("dwr_python_diameter"), 3.0) == [Discard(R, Reason.CLOSED)]
        assert peer.disconnect(DisconnectCause.BUSY, 3.0) == []
        assert peer.closed(R, 3.0) == []

    def test_a_connection_of_another(self, peer: Peer, vector: Vector) -> None:
        assert peer.receive(99, vector("dwr_python_diameter"), 3.0) == [Discard(99, Reason.CLOSED)]
        assert peer.closed(99, 3.0) == []
        assert peer.connected(99, LOCAL, 3.0) == []
        assert peer.secured(3.0, certified=True) == []
        assert peer.is_open


class TestWatchdog:
    def test_silence_closes(self, peer: Peer) -> None:
        dwr = decode(only_send(peer.handle_timer(31.0, 1.0)))
        assert (dwr.header.flags, dwr.header.command, dwr.header.application) == (REQUEST, 280, 0)
        assert numbers_of(dwr.avps, dictionary.ORIGIN_STATE_ID) == [5]
        assert peer.handle_timer(61.0, 1.0) == []
        assert peer.watchdog_state is WatchdogState.SUSPECT
        assert peer.handle_timer(91.0, 1.0) == [Close(R, Reason.WATCHDOG)]
        assert (peer.state, peer.timer()) == (PeerState.CLOSED, None)

    def test_a_dwa_is_taken_once(self, peer: Peer) -> None:
        dwa = answer_to(only_send(peer.handle_timer(31.0, 1.0)))
        assert peer.receive(R, dwa, 32.0) == []
        assert peer.timer() == 62.0
        assert peer.receive(R, dwa, 33.0) == [Discard(R, Reason.UNSOLICITED_ANSWER)]

    def test_a_dwa_to_another_question_is_not_taken(self, peer: Peer, vector: Vector) -> None:
        peer.handle_timer(31.0, 1.0)
        assert peer.receive(R, vector("dwa"), 32.0) == [Discard(R, Reason.UNSOLICITED_ANSWER)]

    def test_each_dwr_has_its_own_identifier(self, peer: Peer) -> None:
        first = only_send(peer.handle_timer(31.0, 1.0))
        peer.receive(R, answer_to(first), 32.0)
        second = only_send(peer.handle_timer(62.0, 32.0))
        assert decode(first).header.hop_by_hop != decode(second).header.hop_by_hop

    def test_traffic_of_the_data_plane_counts(self, peer: Peer) -> None:
        assert peer.handle_timer(31.0, 30.0) == []
        assert peer.timer() == 60.0

    def test_after_a_failure_it_is_asked_at_once_and_answered_meanwhile(self, peer: Peer, vector: Vector) -> None:
        peer.closed(R, 2.0)
        opened, dwr = peer.accept(incoming(8), 50.0)
        assert isinstance(opened, SendAndOpen)
        assert (peer.watchdog_state, peer.timer()) == (WatchdogState.REOPEN, 80.0)
        assert peer.receive(8, vector("dwr_python_diameter"), 51.0) == [Send(8, vector("dwa"), 2001)]
        assert isinstance(dwr, Send)
        for now in (51.0, 81.0, 111.0):
            assert peer.watchdog_state is WatchdogState.REOPEN
            assert peer.receive(8, answer_to(dwr.data), now) == []
            if now < 111.0:
                (dwr,) = peer.handle_timer(now + 29.0, now)
                assert isinstance(dwr, Send)
        assert peer.watchdog_state is WatchdogState.OKAY

    def test_a_dwa_of_an_earlier_connection_is_not_taken(self, peer: Peer) -> None:
        dwa = answer_to(only_send(peer.handle_timer(31.0, 1.0)))
        peer.closed(R, 32.0)
        peer.accept(incoming(8), 50.0)
        assert peer.receive(8, dwa, 51.0) == [Discard(8, Reason.UNSOLICITED_ANSWER)]

    def test_one_that_is_admitted_with_many_others_starts_anew(self, identity: Identity) -> None:
        anyone = make(identity, entry=PeerEntry("*", ENTRY.networks))
        anyone.accept(incoming(), 1.0)
        anyone.closed(R, 2.0)
        assert anyone.watchdog_state is WatchdogState.INITIAL


class TestPeerDisconnects:
    def test_dpa_then_grace(self, peer: Peer) -> None:
        answer = sent(peer, dpr(), 2001)
        assert [avp.code for avp in answer.avps] == [268, 264, 296]
        assert (peer.state, peer.timer()) == (PeerState.CLOSING, 7.0)
        assert peer.watchdog_state is WatchdogState.INITIAL
        assert peer.handle_timer(6.9, 2.0) == []
        assert peer.handle_timer(7.0, 6.9) == [Close(R, Reason.DPR_GRACE)]
        assert peer.state is PeerState.CLOSED

    def test_what_still_comes_is_answered(self, peer: Peer, vector: Vector) -> None:
        sent(peer, dpr(), 2001)
        sent(peer, vector("dwr_python_diameter"), 2001)
        sent(peer, vector("ecr_python_diameter"), 5012)
        sent(peer, vector("cer_python_diameter"), 5012)
        sent(peer, dpr(), 2001)
        assert (peer.state, peer.timer()) == (PeerState.CLOSING, 7.0)
        assert peer.disconnect(DisconnectCause.REBOOTING, 3.0) == []

    def test_dpr_without_a_cause_does_not_count(self, peer: Peer) -> None:
        message = decode(dpr())
        sent(peer, encode(message.header, encode_avps(message.avps[:-1])), 5005)
        assert peer.state is PeerState.R_OPEN

    def test_it_closes(self, peer: Peer) -> None:
        sent(peer, dpr(), 2001)
        assert peer.closed(R, 3.0) == []
        assert (peer.state, peer.watchdog_state) == (PeerState.CLOSED, WatchdogState.INITIAL)
        (opened,) = peer.accept(incoming(8), 4.0)
        assert isinstance(opened, SendAndOpen)
        assert peer.watchdog_state is WatchdogState.OKAY

    @pytest.mark.parametrize(("cause", "again"), [(0, 3.0 + 30.0), (1, 3.0 + 300.0), (2, None)])
    def test_when_to_connect_again(self, initiator: Peer, cause: int, again: float | None) -> None:
        sent(initiator, dpr(cause), 2001, OURS)
        assert initiator.closed(OURS, 3.0) == []
        assert initiator.timer() == again
        assert initiator.waits_to_connect is (again is not None)
        if again is None:
            assert initiator.start(5000.0) == [Connect(HOST, REMOTE, PORT, None)]
        else:
            assert initiator.handle_timer(again, 0.0) == [Connect(HOST, REMOTE, PORT, None)]
        # The next attempt does not wait for what was said before the last.
        assert initiator.connecting(None, 6000.0) == []
        assert initiator.timer() == 6030.0

    @pytest.mark.parametrize("number", [R, OURS])
    def test_dpr_before_the_connection_is_open(self, connecting: Peer, number: int) -> None:
        cer_sent(connecting)
        connecting.accept(incoming(), 2.0)
        assert connecting.state is PeerState.WAIT_RETURNS
        (action, *_) = connecting.receive(number, dpr(), 2.0)
        assert action == (Discard(R, Reason.NOT_OPEN) if number == R else Close(OURS, Reason.NOT_CEA))


class TestWeDisconnect:
    def test_the_dpa_closes(self, peer: Peer, vector: Vector) -> None:
        asked = only_send(peer.disconnect(DisconnectCause.REBOOTING, 50.0))
        assert numbers_of(decode(asked).avps, dictionary.DISCONNECT_CAUSE) == [0]
        assert (peer.state, peer.timer()) == (PeerState.CLOSING, 55.0)
        sent(peer, vector("ecr_python_diameter"), 5012)
        assert peer.receive(R, vector("dwa"), 51.0) == [Discard(R, Reason.UNSOLICITED_ANSWER)]
        assert peer.receive(R, answer_to(dpr()), 51.0) == [Discard(R, Reason.UNSOLICITED_ANSWER)]
        refusal = answer_to(asked, make_avp(dictionary.RESULT_CODE, 5012))
        assert peer.receive(R, refusal, 51.0) == [Close(R, Reason.DPA_RECEIVED)]
        assert peer.state is PeerState.CLOSED

    def test_no_dpa(self, peer: Peer) -> None:
        peer.disconnect(DisconnectCause.BUSY, 50.0)
        assert peer.handle_timer(55.0, 54.0) == [Close(R, Reason.DPA_TIMEOUT)]

    def test_both_at_once(self, peer: Peer) -> None:
        asked = only_send(peer.disconnect(DisconnectCause.DO_NOT_WANT_TO_TALK_TO_YOU, 50.0))
        sent(peer, dpr(), 2001)
        assert peer.timer() == 55.0
        assert peer.receive(R, answer_to(asked), 51.0) == [Close(R, Reason.DPA_RECEIVED)]

    def test_a_dwa_that_was_asked_for_before(self, peer: Peer) -> None:
        dwr = only_send(peer.handle_timer(31.0, 1.0))
        peer.disconnect(DisconnectCause.REBOOTING, 32.0)
        assert peer.receive(R, answer_to(dwr), 33.0) == []
        assert peer.timer() == 37.0

    def test_another_connection_is_rejected_meanwhile(self, peer: Peer) -> None:
        peer.disconnect(DisconnectCause.BUSY, 50.0)
        (action,) = peer.accept(incoming(8), 51.0)
        assert isinstance(action, SendAndClose)
        assert peer.numbers == (R,)

    @pytest.mark.parametrize(
        ("cause", "again"),
        [
            (DisconnectCause.REBOOTING, 81.0),
            (DisconnectCause.BUSY, 351.0),
            (DisconnectCause.DO_NOT_WANT_TO_TALK_TO_YOU, None),
        ],
    )
    def test_when_to_connect_again(self, initiator: Peer, cause: DisconnectCause, again: float | None) -> None:
        asked = only_send(initiator.disconnect(cause, 50.0))
        initiator.receive(OURS, answer_to(asked), 51.0)
        assert initiator.timer() == again

    def test_before_it_is_connected_to(self, connecting: Peer) -> None:
        assert connecting.disconnect(DisconnectCause.BUSY, 2.0) == [Close(OURS, Reason.STOPPED)]
        assert connecting.state is PeerState.CLOSED
        assert connecting.connected(OURS, LOCAL, 3.0) == []
        assert connecting.closed(OURS, 3.0) == []

    def test_while_it_waits_to_be_connected_to(self, connecting: Peer) -> None:
        connecting.closed(OURS, 2.0)
        assert connecting.timer() == 32.0
        assert connecting.disconnect(DisconnectCause.DO_NOT_WANT_TO_TALK_TO_YOU, 3.0) == []
        assert connecting.timer() is None

    @pytest.mark.parametrize("elected", [False, True])
    def test_in_the_middle_of_an_election(self, connecting: Peer, elected: bool) -> None:
        if elected:
            cer_sent(connecting)
        connecting.accept(incoming(), 2.0)
        closed = [Close(OURS, Reason.STOPPED), Close(R, Reason.STOPPED)]
        assert connecting.disconnect(DisconnectCause.REBOOTING, 3.0) == closed
        assert (connecting.state, connecting.numbers) == (PeerState.CLOSED, ())


class TestOutgoing:
    def test_opens(self, initiator: Peer) -> None:
        assert (initiator.state, initiator.watchdog_state) == (PeerState.I_OPEN, WatchdogState.OKAY)
        assert (initiator.number, initiator.numbers, initiator.has_incoming) == (OURS, (OURS,), False)
        assert initiator.timer() == 33.0

    def test_with_tls(self, identity: Identity) -> None:
        peer = make(identity, connect=True, entry=TLS_ENTRY)
        assert peer.start(0.0) == [Connect(HOST, REMOTE, PORT, HOST)]

    def test_without_an_address(self, waiting: Peer) -> None:
        assert waiting.start(1.0) == []

    def test_only_when_closed(self, initiator: Peer) -> None:
        assert initiator.start(4.0) == []

    def test_is_served(self, initiator: Peer, vector: Vector) -> None:
        assert initiator.receive(OURS, vector("dwr_python_diameter"), 4.0) == [Send(OURS, vector("dwa"), 2001)]
        only_send(initiator.handle_timer(33.0, 3.0))
        (rejected,) = initiator.accept(incoming(), 34.0)
        assert isinstance(rejected, SendAndClose)

    def test_disconnects(self, initiator: Peer) -> None:
        asked = only_send(initiator.disconnect(DisconnectCause.BUSY, 4.0))
        assert initiator.receive(OURS, answer_to(asked), 5.0) == [Close(OURS, Reason.DPA_RECEIVED)]

    def test_not_made(self, connecting: Peer) -> None:
        assert connecting.closed(OURS, 2.0) == []
        assert (connecting.state, connecting.timer()) == (PeerState.CLOSED, 32.0)
        assert connecting.handle_timer(31.9, 0.0) == []
        assert connecting.handle_timer(32.0, 0.0) == [Connect(HOST, REMOTE, PORT, None)]

    def test_attempts_do_not_keep_step(self, identity: Identity) -> None:
        numbers = iter([0.5, 0.0, 1.0, 0.25])
        peer = Peer(identity, HOST, ENTRY, lambda: next(numbers), connect=(REMOTE, PORT))
        waits = []
        for _ in range(3):
            peer.start(0.0)
            peer.connecting(None, 0.0)
            waits.append(peer.timer())
        assert waits == [27.0, 33.0, 28.5]

    def test_takes_too_long(self, connecting: Peer) -> None:
        assert connecting.timer() == 11.0
        assert connecting.handle_timer(11.0, 0.0) == [Close(OURS, Reason.CONNECT_TIMEOUT)]
        assert connecting.timer() == 41.0

    def test_no_cea(self, connecting: Peer) -> None:
        cer_sent(connecting)
        assert connecting.timer() == 12.0
        assert connecting.handle_timer(12.0, 2.0) == [Close(OURS, Reason.CEA_TIMEOUT)]

    def test_lost_before_the_cea(self, connecting: Peer) -> None:
        cer_sent(connecting)
        assert connecting.closed(OURS, 3.0) == []
        assert connecting.timer() == 33.0

    @pytest.mark.parametrize("code", [3010, 4003, 5010, 5017, 5012])
    def test_refused(self, connecting: Peer, code: int) -> None:
        refusal = refusal_of(cer_sent(connecting), code)
        assert connecting.receive(OURS, refusal, 3.0) == [Close(OURS, Reason.CEA_REFUSED)]
        assert connecting.timer() == 33.0

    def test_another_peer_answers(self, connecting: Peer) -> None:
        cea = cea_to(cer_sent(connecting), "another.example.org")
        assert connecting.receive(OURS, cea, 3.0) == [Close(OURS, Reason.NOT_CEA)]

    def test_names_in_another_case(self, connecting: Peer) -> None:
        (opened,) = connecting.receive(OURS, cea_to(cer_sent(connecting), HOST.upper()), 3.0)
        assert isinstance(opened, SendAndOpen)
        assert opened.origin_host == HOST

    def test_no_common_application(self, connecting: Peer) -> None:
        avps = (make_avp(dictionary.RESULT_CODE, 2001), *decode(cer_of(HOST)).avps)
        cea = answer_to(cer_sent(connecting), *(avp for avp in avps if avp.code != 260))
        assert connecting.receive(OURS, cea, 3.0) == [Close(OURS, Reason.NOT_CEA)]

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda cer: cea_to(cer)[:12] + b"\0\0\0\1" + cea_to(cer)[16:],
            lambda cer: cer,
            lambda cer: dpr(),
            lambda cer: answer_to(cer),
            lambda cer: cea_to(cer)[:-4],
            lambda cer: b"\x01",
            lambda cer: b"",
            lambda cer: answer_to(encode(Header(REQUEST, 280, 0, decode(cer).header.hop_by_hop, 1), b"")),
            lambda cer: cea_to(cer)[:8] + b"\x01\x00\x00\x24" + cea_to(cer)[12:],
        ],
    )
    def test_something_else_than_the_cea(self, connecting: Peer, wrong: Callable[[bytes], bytes]) -> None:
        assert connecting.receive(OURS, wrong(cer_sent(connecting)), 3.0) == [Close(OURS, Reason.NOT_CEA)]
        assert connecting.state is PeerState.CLOSED

    def test_a_message_before_the_connection_is_made(self, connecting: Peer) -> None:
        assert connecting.receive(OURS, dpr(), 1.5) == [Discard(OURS, Reason.NOT_OPEN)]

    def test_lost_and_made_again(self, initiator: Peer) -> None:
        assert initiator.closed(OURS, 10.0) == []
        assert (initiator.timer(), initiator.watchdog_state) == (40.0, WatchdogState.DOWN)
        assert initiator.handle_timer(40.0, 0.0) == [Connect(HOST, REMOTE, PORT, None)]
        initiator.connecting(OURS + 1, 40.0)
        (cer,) = initiator.connected(OURS + 1, LOCAL, 41.0)
        assert isinstance(cer, Send)
        opened, dwr = initiator.receive(OURS + 1, cea_to(cer.data), 42.0)
        assert isinstance(opened, SendAndOpen)
        assert only_send([dwr])
        assert initiator.watchdog_state is WatchdogState.REOPEN

    def test_its_address_is_forgotten(self, connecting: Peer, initiator: Peer) -> None:
        initiator.forget_address()
        assert initiator.is_open
        initiator.closed(OURS, 5.0)
        assert initiator.timer() is None
        assert initiator.start(6.0) == []

    def test_its_address_is_forgotten_while_it_waits(self, connecting: Peer) -> None:
        connecting.closed(OURS, 2.0)
        connecting.forget_address()
        assert connecting.timer() is None

    def test_the_number_comes_too_late(self, identity: Identity) -> None:
        peer = make(identity, connect=True)
        peer.start(0.0)
        peer.handle_timer(10.0, 0.0)
        assert peer.state is PeerState.CLOSED
        assert peer.connecting(OURS, 11.0) == [Close(OURS, Reason.STOPPED)]
        assert peer.connecting(None, 11.0) == []


class TestElection:
    """eir1.example.org is lower than mme1..., and higher than a.example.org."""

    @pytest.fixture
    def winning(self, identity: Identity) -> Peer:
        """One that we win against, being connected to."""
        entry = replace(ENTRY, origin_host=LOWER)
        return dialled(make(identity, LOWER, connect=True, entry=entry))

    def test_won_when_their_cer_comes_second(self, winning: Peer) -> None:
        cer_sent(winning)
        closed, opened = winning.accept(incoming(cer=cer_of(LOWER)), 3.0)
        assert closed == Close(OURS, Reason.ELECTION_WON)
        assert isinstance(opened, SendAndOpen)
        assert (opened.number, winning.state, winning.numbers) == (R, PeerState.R_OPEN, (R,))

    def test_won_when_their_cer_comes_first(self, winning: Peer) -> None:
        assert winning.accept(incoming(cer=cer_of(LOWER)), 2.0) == []
        assert winning.state is PeerState.WAIT_CONN_ACK_ELECT
        cer, closed, opened = winning.connected(OURS, LOCAL, 3.0)
        assert isinstance(cer, Send)
        assert closed == Close(OURS, Reason.ELECTION_WON)
        assert isinstance(opened, SendAndOpen)
        assert (winning.state, winning.numbers) == (PeerState.R_OPEN, (R,))

    def test_names_of_either_case_are_alike(self, identity: Identity) -> None:
        # By octets as they come, "F" would be lower than "e"; and "EIR0" lower than "eir1" either way.
        for host, won in (("F.example.org", False), ("EIR0.example.org", True), ("EIR1.EXAMPLE.org", False)):
            peer = dialled(make(identity, host, connect=True, entry=replace(ENTRY, origin_host=host)))
            cer_sent(peer)
            peer.accept(incoming(cer=cer_of(host)), 3.0)
            assert (peer.state is PeerState.R_OPEN) is won, host

    def test_lost_then_their_cea(self, connecting: Peer) -> None:
        cer = cer_sent(connecting)
        assert connecting.accept(incoming(), 3.0) == []
        assert (connecting.state, connecting.numbers) == (PeerState.WAIT_RETURNS, (OURS, R))
        refused, opened = connecting.receive(OURS, cea_to(cer), 4.0)
        assert isinstance(refused, SendAndClose)
        assert (refused.number, refused.reason, refused.result_code) == (R, Reason.ELECTION_LOST, 4003)
        assert opened == SendAndOpen(OURS, b"", HOST, "auto", False)
        assert (connecting.state, connecting.numbers, connecting.timer()) == (PeerState.I_OPEN, (OURS,), 34.0)

    def test_lost_then_they_close_theirs(self, connecting: Peer) -> None:
        cer = cer_sent(connecting)
        connecting.accept(incoming(), 3.0)
        assert connecting.closed(R, 4.0) == []
        assert (connecting.state, connecting.timer()) == (PeerState.WAIT_I_CEA, 12.0)
        assert connecting.receive(OURS, cea_to(cer), 5.0) == [SendAndOpen(OURS, b"", HOST, "auto", False)]

    def test_lost_but_they_close_ours(self, connecting: Peer) -> None:
        cer_sent(connecting)
        connecting.accept(incoming(), 3.0)
        (opened,) = connecting.closed(OURS, 4.0)
        assert isinstance(opened, SendAndOpen)
        assert (opened.number, connecting.state) == (R, PeerState.R_OPEN)

    @pytest.mark.parametrize("code", [4003, 3010])
    def test_lost_but_they_refuse_ours(self, connecting: Peer, code: int) -> None:
        cer = cer_sent(connecting)
        connecting.accept(incoming(), 3.0)
        closed, opened = connecting.receive(OURS, refusal_of(cer, code), 4.0)
        assert closed == Close(OURS, Reason.CEA_REFUSED)
        assert isinstance(opened, SendAndOpen)
        assert connecting.state is PeerState.R_OPEN

    def test_lost_and_nothing_follows(self, connecting: Peer) -> None:
        cer_sent(connecting)
        connecting.accept(incoming(), 3.0)
        assert connecting.timer() == 12.0
        closed = [Close(OURS, Reason.CEA_TIMEOUT), Close(R, Reason.CEA_TIMEOUT)]
        assert connecting.handle_timer(12.0, 3.0) == closed
        assert (connecting.state, connecting.timer()) == (PeerState.CLOSED, 42.0)

    def test_ours_is_not_made(self, connecting: Peer) -> None:
        assert connecting.accept(incoming(), 2.0) == []
        (opened,) = connecting.closed(OURS, 3.0)
        assert isinstance(opened, SendAndOpen)
        assert (connecting.state, connecting.numbers) == (PeerState.R_OPEN, (R,))

    def test_theirs_is_lost_while_ours_is_made(self, connecting: Peer) -> None:
        connecting.accept(incoming(), 2.0)
        assert connecting.closed(R, 3.0) == []
        assert (connecting.state, connecting.timer()) == (PeerState.WAIT_CONN_ACK, 11.0)

    def test_neither_comes_to_an_end(self, connecting: Peer) -> None:
        connecting.accept(incoming(), 2.0)
        closed = [Close(OURS, Reason.CONNECT_TIMEOUT), Close(R, Reason.CONNECT_TIMEOUT)]
        assert connecting.handle_timer(11.0, 2.0) == closed

    @pytest.mark.parametrize("elected", [False, True])
    def test_a_third_connection_is_rejected(self, connecting: Peer, elected: bool) -> None:
        if elected:
            cer_sent(connecting)
        connecting.accept(incoming(), 2.0)
        before = connecting.state
        (action,) = connecting.accept(incoming(9), 2.0)
        assert isinstance(action, SendAndClose)
        assert (action.number, connecting.state, connecting.numbers) == (9, before, (OURS, R))

    def test_when_theirs_has_ended_ours_is_made_after_tc(self, winning: Peer) -> None:
        cer_sent(winning)
        winning.accept(incoming(cer=cer_of(LOWER)), 3.0)
        assert winning.closed(R, 100.0) == []
        assert winning.timer() == 130.0


class TestGivingWay:
    @pytest.mark.parametrize(
        ("before", "after", "silent", "to_the_same", "to_another"),
        [
            (5, 5, 0.0, False, False),
            (5, 6, 0.0, True, False),
            (6, 5, 0.0, False, False),
            (0, 6, 0.0, False, False),
            (5, 0, 0.0, False, False),
            (5, 5, 5.9, False, False),
            (5, 5, 6.0, True, False),
            (5, 5, None, True, True),
        ],
    )
    def test_when(
        self, waiting: Peer, before: int, after: int, silent: float | None, to_the_same: bool, to_another: bool
    ) -> None:
        waiting.accept(incoming(cer=cer_of(HOST, before)), 1.0)
        later = incoming(8, cer_of(HOST, after))
        assert waiting.gives_way(later, silent, 10.0, trusted=True) is to_the_same
        assert waiting.gives_way(later, silent, 10.0, trusted=False) is to_another

    def test_when_it_is_suspect(self, peer: Peer) -> None:
        peer.handle_timer(31.0, 1.0)
        peer.handle_timer(61.0, 1.0)
        assert peer.watchdog_state is WatchdogState.SUSPECT
        assert not peer.gives_way(incoming(8), 0.5, 62.0, trusted=False)
        assert peer.gives_way(incoming(8), 5.5, 62.0, trusted=False)

    def test_when_it_has_said_goodbye(self, peer: Peer) -> None:
        sent(peer, dpr(), 2001)
        assert peer.gives_way(incoming(8), 0.0, 3.0, trusted=False)
        assert peer.give_way(3.0) == [Close(R, Reason.REPLACED)]
        (opened,) = peer.accept(incoming(8), 3.0)
        assert isinstance(opened, SendAndOpen)

    def test_not_when_we_have(self, peer: Peer) -> None:
        peer.disconnect(DisconnectCause.BUSY, 2.0)
        assert not peer.gives_way(incoming(8), 0.0, 3.0, trusted=True)

    def test_not_when_nothing_is_open(self, connecting: Peer) -> None:
        assert not connecting.gives_way(incoming(8), None, 3.0, trusted=True)
        assert connecting.give_way(3.0) == []

    def test_one_of_ours(self, initiator: Peer) -> None:
        assert initiator.gives_way(incoming(8), 6.0, 9.0, trusted=True)
        assert initiator.give_way(9.0) == [Close(OURS, Reason.REPLACED)]
        opened, _ = initiator.accept(incoming(8), 9.0)
        assert isinstance(opened, SendAndOpen)
        assert (initiator.numbers, initiator.state) == ((8,), PeerState.R_OPEN)


class TestInbandTls:
    @pytest.fixture
    def securing(self, waiting: Peer) -> Peer:
        (action,) = waiting.accept(incoming(inband=True), 1.0)
        assert isinstance(action, Secure)
        assert (action.number, numbers_of(decode(action.data).avps, dictionary.INBAND_SECURITY_ID)) == (R, [1])
        return waiting

    def test_opens_when_it_is_secured(self, securing: Peer) -> None:
        assert (securing.state, securing.is_open, securing.timer()) == (PeerState.R_OPEN, False, 11.0)
        assert securing.watchdog_state is WatchdogState.INITIAL
        assert securing.secured(2.0, certified=True) == [SendAndOpen(R, b"", HOST, "auto", False)]
        assert (securing.is_open, securing.timer(), securing.watchdog_state) == (True, 32.0, WatchdogState.OKAY)
        assert securing.secured(2.0, certified=True) == []

    def test_the_certificate_will_not_do(self, securing: Peer) -> None:
        assert securing.secured(2.0, certified=False) == [Close(R, Reason.CERTIFICATE_REFUSED)]
        assert (securing.state, securing.timer()) == (PeerState.CLOSED, None)

    def test_takes_too_long(self, securing: Peer) -> None:
        assert securing.handle_timer(10.9, 10.0) == []
        assert securing.handle_timer(11.0, 10.0) == [Close(R, Reason.TLS_TIMEOUT)]
        assert securing.timer() is None

    def test_fails(self, securing: Peer) -> None:
        assert securing.closed(R, 2.0) == []
        assert securing.state is PeerState.CLOSED

    def test_nothing_is_taken_in_clear_text(self, securing: Peer) -> None:
        assert securing.receive(R, dpr(), 2.0) == [Discard(R, Reason.NOT_OPEN)]

    def test_told_to_disconnect(self, securing: Peer) -> None:
        assert securing.disconnect(DisconnectCause.REBOOTING, 2.0) == [Close(R, Reason.STOPPED)]

    def test_after_an_election(self, connecting: Peer) -> None:
        connecting.accept(incoming(inband=True), 2.0)
        (action,) = connecting.closed(OURS, 3.0)
        assert isinstance(action, Secure)
        assert connecting.timer() == 13.0


def test_changes_are_counted(identity: Identity) -> None:
    changes = StateChanges()
    peer = Peer(identity, HOST, ENTRY, lambda: 0.5, connect=(REMOTE, PORT), changes=changes)
    dialled(peer)
    cer_sent(peer)
    peer.accept(incoming(), 3.0)
    peer.closed(OURS, 4.0)
    assert changes.peers == {
        ("closed", "wait-conn-ack"): 1,
        ("wait-conn-ack", "wait-i-cea"): 1,
        ("wait-i-cea", "wait-returns"): 1,
        ("wait-returns", "r-open"): 1,
    }
    assert changes.watchdogs == {("initial", "okay"): 1}
