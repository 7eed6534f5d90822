"""`eir.diameter.peer`: a connection from its CER to its end, one message and one second at a time."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from eir.diameter import dictionary
from eir.diameter.answer import Identity
from eir.diameter.capabilities import AllowedPeer, PeerPolicy
from eir.diameter.message import (
    ERROR,
    REQUEST,
    Avp,
    Header,
    Message,
    decode,
    encode,
    encode_avps,
    make_avp,
    numbers_of,
    peek_header,
)
from eir.diameter.peer import (
    TRANSITIONS,
    Close,
    Discard,
    DisconnectCause,
    Peer,
    PeerState,
    PeerTimers,
    Reason,
    Send,
    SendAndClose,
    SendAndOpen,
)
from eir.diameter.watchdog import WatchdogState

Vector = Callable[[str], bytes]
HOST = "mme1.epc.mnc001.mcc001.3gppnetwork.org"
POLICY = PeerPolicy((AllowedPeer("*.3gppnetwork.org", (ip_network("192.0.2.0/24"),)),))
LOCAL, REMOTE = ip_address("192.0.2.1"), ip_address("192.0.2.10")


@pytest.fixture
def waiting(identity: Identity) -> Peer:
    return Peer(identity, POLICY, LOCAL, REMOTE, 0.0, lambda: 0.5)


@pytest.fixture
def peer(waiting: Peer, vector: Vector) -> Peer:
    """A connection that opened at second 1."""
    (action,) = waiting.receive(vector("cer_python_diameter"), 1.0)
    assert action == SendAndOpen(vector("cea_success"), HOST)
    return waiting


def sent(peer: Peer, data: bytes, code: int) -> Message:
    """The answer that the peer gets, of which this checks everything that is the same for all."""
    (action,) = peer.receive(data, 2.0)
    assert isinstance(action, Send)
    assert action.result_code == code
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


def only_send(actions: list[object]) -> bytes:
    (action,) = actions
    assert isinstance(action, Send)
    assert action.result_code is None
    return action.data


def test_the_table_has_every_state() -> None:
    assert set(TRANSITIONS) == set(PeerState)


class TestFirstMessage:
    def test_opens(self, peer: Peer) -> None:
        assert (peer.state, peer.origin_host, peer.watchdog_state) == (PeerState.OPEN, HOST, WatchdogState.OKAY)
        assert peer.timer() == 31.0

    @pytest.mark.parametrize("name", ["dwr_python_diameter", "dpr_python_diameter", "ecr_minimal", "cea_success"])
    def test_is_not_a_cer(self, waiting: Peer, vector: Vector, name: str) -> None:
        assert waiting.receive(vector(name), 1.0) == [Close(Reason.NOT_CER)]
        assert (waiting.state, waiting.timer(), waiting.origin_host) == (PeerState.CLOSED, None, None)

    def test_is_nothing_at_all(self, waiting: Peer) -> None:
        assert waiting.receive(b"GET / HTTP/1.1", 1.0) == [Close(Reason.NOT_CER)]

    def test_does_not_come(self, waiting: Peer) -> None:
        assert waiting.timer() == 10.0
        assert waiting.handle_timer(9.9, 0.0) == []
        assert waiting.handle_timer(10.0, 9.9) == [Close(Reason.CER_TIMEOUT)]
        assert waiting.handle_timer(11.0, 9.9) == []

    def test_of_an_unknown_peer(self, identity: Identity, vector: Vector) -> None:
        stranger = Peer(identity, POLICY, LOCAL, ip_address("198.51.100.1"), 0.0, lambda: 0.5)
        (action,) = stranger.receive(vector("cer_python_diameter"), 1.0)
        assert isinstance(action, SendAndClose)
        assert (action.reason, action.result_code) == (Reason.CER_REFUSED, 3010)
        assert decode(action.data).header.flags == ERROR
        assert stranger.state is PeerState.CLOSED

    @pytest.mark.parametrize(
        ("broken", "code"),
        [
            (lambda cer: b"\x02" + cer[1:], 5011),
            (lambda cer: cer + b"\0\0\0\0", 5015),
            (lambda cer: cer[:8] + b"\x01\x00\x00\x24" + cer[12:], 3007),
            (lambda cer: cer[:4] + b"\xa0" + cer[5:], 3008),
        ],
    )
    def test_is_a_broken_cer(self, waiting: Peer, vector: Vector, broken: Callable[[bytes], bytes], code: int) -> None:
        (action,) = waiting.receive(broken(vector("cer_python_diameter")), 1.0)
        assert isinstance(action, SendAndClose)
        assert action.result_code == code
        assert waiting.state is PeerState.CLOSED

    def test_is_awaited_no_more(self, waiting: Peer) -> None:
        assert waiting.disconnect(DisconnectCause.REBOOTING, 1.0) == [Close(Reason.STOPPED)]
        assert waiting.state is PeerState.CLOSED


class TestOpen:
    def test_dwr(self, peer: Peer, vector: Vector) -> None:
        assert peer.receive(vector("dwr_python_diameter"), 2.0) == [Send(vector("dwa"), 2001)]

    def test_dwr_without_origin_host(self, peer: Peer) -> None:
        realm = encode_avps((make_avp(dictionary.ORIGIN_REALM, "example.org"),))
        sent(peer, encode(Header(REQUEST, 280, 0, 1, 2), realm), 5005)

    def test_second_cer_changes_nothing(self, peer: Peer, vector: Vector) -> None:
        answer = sent(peer, vector("cer_python_diameter"), 5012)
        assert dictionary.HOST_IP_ADDRESS.key in {avp.key for avp in answer.avps}
        assert peer.state is PeerState.OPEN

    @pytest.mark.parametrize(
        ("command", "application", "code"),
        [(316, 16777251, 3007), (324, 0, 3007), (280, 16777252, 3007), (999, 16777252, 3001), (274, 0, 3001)],
    )
    def test_unknown_command_or_application(self, peer: Peer, command: int, application: int, code: int) -> None:
        avps = (make_avp(dictionary.SESSION_ID, "mme;1;2"), Avp(284, 0, 0x40, b"an agent"))
        answer = sent(peer, encode(Header(REQUEST | 0x40, command, application, 1, 2), encode_avps(avps)), code)
        assert answer.header.flags == ERROR | 0x40
        assert [avp.code for avp in answer.avps] == [263, 268, 264, 296, 281, 284]

    def test_ecr_that_is_wrong(self, peer: Peer, vector: Vector) -> None:
        ecr = decode(vector("ecr_minimal"))
        answer = sent(peer, encode(ecr.header, encode_avps(ecr.avps[:-1])), 5005)
        assert numbers_of(answer.avps, dictionary.AUTH_SESSION_STATE) == [1]

    def test_ecr_that_is_right_is_our_failure(self, peer: Peer, vector: Vector) -> None:
        answer = sent(peer, vector("ecr_python_diameter"), 5012)
        sent_proxy_info = [avp for avp in decode(vector("ecr_python_diameter")).avps if avp.code == 284]
        assert [avp for avp in answer.avps if avp.code == 284] == sent_proxy_info

    def test_ecr_of_another_version_is_answered_as_an_ecr(self, peer: Peer, vector: Vector) -> None:
        answer = sent(peer, b"\x02" + vector("ecr_minimal")[1:], 5011)
        assert numbers_of(answer.avps, dictionary.AUTH_SESSION_STATE) == [1]

    @pytest.mark.parametrize("name", ["cea_success", "dwa", "eca_no_imei"])
    def test_answers_nobody_asked_for(self, peer: Peer, vector: Vector, name: str) -> None:
        assert peer.receive(vector(name), 2.0) == [Discard(Reason.UNSOLICITED_ANSWER)]
        assert peer.state is PeerState.OPEN

    def test_dpa_nobody_asked_for(self, peer: Peer, vector: Vector) -> None:
        assert peer.receive(answer_to(vector("dpr_python_diameter")), 2.0) == [Discard(Reason.UNSOLICITED_ANSWER)]

    def test_less_than_a_header(self, peer: Peer) -> None:
        assert peer.receive(b"\x01\x00", 2.0) == [Discard(Reason.UNREADABLE)]

    def test_lost(self, peer: Peer, vector: Vector) -> None:
        peer.connection_lost()
        assert (peer.state, peer.timer(), peer.watchdog_state) == (PeerState.CLOSED, None, WatchdogState.DOWN)
        assert peer.receive(vector("dwr_python_diameter"), 3.0) == [Discard(Reason.CLOSED)]
        assert peer.disconnect(DisconnectCause.BUSY, 3.0) == []
        peer.connection_lost()


class TestWatchdog:
    def test_silence_closes(self, peer: Peer) -> None:
        dwr = decode(only_send([*peer.handle_timer(31.0, 1.0)]))
        assert (dwr.header.flags, dwr.header.command, dwr.header.application) == (REQUEST, 280, 0)
        assert numbers_of(dwr.avps, dictionary.ORIGIN_STATE_ID) == [5]
        assert peer.handle_timer(61.0, 1.0) == []
        assert peer.watchdog_state is WatchdogState.SUSPECT
        assert peer.handle_timer(91.0, 1.0) == [Close(Reason.WATCHDOG)]
        assert (peer.state, peer.timer()) == (PeerState.CLOSED, None)

    def test_a_dwa_is_taken_once(self, peer: Peer) -> None:
        dwa = answer_to(only_send([*peer.handle_timer(31.0, 1.0)]))
        assert peer.receive(dwa, 32.0) == []
        assert peer.timer() == 62.0
        assert peer.receive(dwa, 33.0) == [Discard(Reason.UNSOLICITED_ANSWER)]

    def test_a_dwa_to_another_question_is_not_taken(self, peer: Peer, vector: Vector) -> None:
        peer.handle_timer(31.0, 1.0)
        assert peer.receive(vector("dwa"), 32.0) == [Discard(Reason.UNSOLICITED_ANSWER)]

    def test_each_dwr_has_its_own_identifier(self, peer: Peer) -> None:
        first = only_send([*peer.handle_timer(31.0, 1.0)])
        peer.receive(answer_to(first), 32.0)
        second = only_send([*peer.handle_timer(62.0, 32.0)])
        assert decode(first).header.hop_by_hop != decode(second).header.hop_by_hop

    def test_traffic_of_the_data_plane_counts(self, peer: Peer) -> None:
        assert peer.handle_timer(31.0, 30.0) == []
        assert peer.timer() == 60.0


class TestPeerDisconnects:
    def test_dpa_then_grace(self, peer: Peer, vector: Vector) -> None:
        answer = sent(peer, vector("dpr_python_diameter"), 2001)
        assert [avp.code for avp in answer.avps] == [268, 264, 296]
        assert (peer.state, peer.timer()) == (PeerState.CLOSING, 7.0)
        assert peer.handle_timer(6.9, 2.0) == []
        assert peer.handle_timer(7.0, 6.9) == [Close(Reason.DPR_GRACE)]
        assert peer.state is PeerState.CLOSED

    def test_what_still_comes_is_answered(self, peer: Peer, vector: Vector) -> None:
        sent(peer, vector("dpr_python_diameter"), 2001)
        sent(peer, vector("dwr_python_diameter"), 2001)
        sent(peer, vector("ecr_minimal"), 5012)
        sent(peer, vector("dpr_python_diameter"), 2001)
        assert (peer.state, peer.timer()) == (PeerState.CLOSING, 7.0)
        assert peer.disconnect(DisconnectCause.REBOOTING, 3.0) == []

    def test_dpr_without_a_cause_does_not_count(self, peer: Peer, vector: Vector) -> None:
        dpr = decode(vector("dpr_python_diameter"))
        sent(peer, encode(dpr.header, encode_avps(dpr.avps[:-1])), 5005)
        assert peer.state is PeerState.OPEN


class TestWeDisconnect:
    def test_the_dpa_closes(self, peer: Peer, vector: Vector) -> None:
        dpr = only_send([*peer.disconnect(DisconnectCause.REBOOTING, 50.0)])
        assert numbers_of(decode(dpr).avps, dictionary.DISCONNECT_CAUSE) == [0]
        assert (peer.state, peer.timer()) == (PeerState.CLOSING, 55.0)
        sent(peer, vector("ecr_minimal"), 5012)
        assert peer.receive(vector("dwa"), 51.0) == [Discard(Reason.UNSOLICITED_ANSWER)]
        assert peer.receive(answer_to(vector("dpr_python_diameter")), 51.0) == [Discard(Reason.UNSOLICITED_ANSWER)]
        refusal = answer_to(dpr, make_avp(dictionary.RESULT_CODE, 5012))
        assert peer.receive(refusal, 51.0) == [Close(Reason.DPA_RECEIVED)]
        assert peer.state is PeerState.CLOSED

    def test_no_dpa(self, peer: Peer) -> None:
        peer.disconnect(DisconnectCause.BUSY, 50.0)
        assert peer.handle_timer(55.0, 54.0) == [Close(Reason.DPA_TIMEOUT)]

    def test_both_at_once(self, peer: Peer, vector: Vector) -> None:
        dpr = only_send([*peer.disconnect(DisconnectCause.DO_NOT_WANT_TO_TALK_TO_YOU, 50.0)])
        sent(peer, vector("dpr_python_diameter"), 2001)
        assert peer.timer() == 55.0
        assert peer.receive(answer_to(dpr), 51.0) == [Close(Reason.DPA_RECEIVED)]

    def test_a_dwa_that_was_asked_for_before(self, peer: Peer) -> None:
        dwr = only_send([*peer.handle_timer(31.0, 1.0)])
        peer.disconnect(DisconnectCause.REBOOTING, 32.0)
        assert peer.receive(answer_to(dwr), 33.0) == []
        assert peer.timer() == 37.0


def test_timers_are_configured(identity: Identity, vector: Vector) -> None:
    timers = PeerTimers(cer_timeout=3.0, dpa_timeout=1.0, dpr_grace=2.0, tw=6.0)
    peer = Peer(identity, POLICY, LOCAL, REMOTE, 0.0, lambda: 0.5, timers)
    assert peer.timer() == 3.0
    peer.receive(vector("cer_python_diameter"), 1.0)
    assert peer.timer() == 7.0
    peer.disconnect(DisconnectCause.REBOOTING, 2.0)
    assert peer.timer() == 3.0
    with pytest.raises(ValueError, match="tw is"):
        Peer(identity, POLICY, LOCAL, REMOTE, 0.0, lambda: 0.5, PeerTimers(tw=1.0))
