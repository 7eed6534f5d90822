"""`eir.diameter.peers`: whose a connection is, who comes in, and what a change of the policy does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import cast

import pytest

from eir.diameter import dictionary
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
from eir.diameter.answer import Identity
from eir.diameter.capabilities import build_cea, cer_avps
from eir.diameter.dictionary import DisconnectCause
from eir.diameter.message import ERROR, REQUEST, Avp, Header, decode, encode, encode_avps, make_avp, numbers_of
from eir.diameter.peer_policy import PeerEntry, PeerPolicy, Tls
from eir.diameter.peers import Owner, Peers, Security

Vector = Callable[[str], bytes]
NETWORKS = (ip_network("192.0.2.0/24"),)
LOCAL, REMOTE, FAR = ip_address("192.0.2.1"), ip_address("192.0.2.10"), ip_address("198.51.100.1")
PORT = 3868
MME = "mme1.example.org"
ANYONE = PeerEntry("*", NETWORKS)
NAMED = PeerEntry(MME, NETWORKS)
DIALLED = replace(NAMED, connect=((REMOTE, PORT),))
TWICE = replace(NAMED, connect=((REMOTE, PORT), (ip_address("192.0.2.11"), PORT)))
OFFERS_TLS, OFFERS_CLEAR = make_avp(dictionary.INBAND_SECURITY_ID, 1), make_avp(dictionary.INBAND_SECURITY_ID, 0)
DO_NOT_WANT = DisconnectCause.DO_NOT_WANT_TO_TALK_TO_YOU


def cer_of(host: str = MME, *more: Avp, state_id: int = 5) -> bytes:
    theirs = Identity(host, "example.org", state_id)
    return encode(Header(REQUEST, 257, 0, 77, 78), encode_avps((*cer_avps(theirs, REMOTE), *more)))


@dataclass
class Table:
    """Peers, with an owner of their connections."""

    peers: Peers
    certificates: dict[int, bool] = field(default_factory=dict)
    idle: dict[int, float | None] = field(default_factory=dict)
    numbers: int = 0

    def incoming(self, remote: object = REMOTE, *, tls: bool = False, now: float = 0.0) -> int:
        self.numbers += 1
        address = ip_address(str(remote))
        actions = self.peers.connected(self.numbers, (address, 40000), LOCAL, now, outgoing=False, tls=tls)
        assert actions == []
        return self.numbers

    def offer(self, cer: bytes, remote: object = REMOTE, *, tls: bool = False, now: float = 1.0) -> list[Action]:
        """What a new connection's CER leads to, but for the terms."""
        actions = self.peers.receive(self.incoming(remote, tls=tls, now=now), cer, now)
        return [action for action in actions if not isinstance(action, SetTerms)]

    def open(self, host: str = MME, *, now: float = 1.0, state_id: int = 5) -> int:
        """The number of a new connection, which is opened."""
        (opened,) = self.offer(cer_of(host, state_id=state_id), now=now)
        assert isinstance(opened, SendAndOpen)
        assert opened.number == self.numbers
        return opened.number

    def dial(self, connect: Action, now: float = 1.0) -> int:
        assert isinstance(connect, Connect)
        self.numbers += 1
        assert self.peers.connecting(connect, self.numbers, now) == []
        return self.numbers

    def dialled(self, connect: Action, now: float = 1.0) -> int:
        """The number of a connection of ours that has opened."""
        number = self.dial(connect, now)
        assert isinstance(connect, Connect)
        endpoint = (connect.address, connect.port)
        (cer,) = self.peers.connected(number, endpoint, LOCAL, now, outgoing=True, tls=False)
        assert isinstance(cer, Send)
        cea = build_cea(cer.data, Identity(connect.origin_host, "example.org", 9), REMOTE)
        opened, *_ = self.peers.receive(number, cea, now)
        assert opened == SendAndOpen(number, b"", connect.origin_host, "auto", False)
        return number

    def end(self, number: int, now: float = 2.0) -> list[Action]:
        return self.peers.closed(number, now)


MakeTable = Callable[..., Table]


@pytest.fixture
def make(identity: Identity) -> MakeTable:
    def made(*entries: PeerEntry, security: Security | None = None) -> Table:
        certificates: dict[int, bool] = {}
        idle: dict[int, float | None] = {}
        owner = Owner(lambda number, _: certificates.get(number), lambda number: idle.get(number, 0.0), lambda: 0.5)
        peers = Peers(identity, PeerPolicy(entries or (ANYONE,)), owner, security=security or Security())
        return Table(peers, certificates, idle)

    return made


@pytest.fixture
def table(make: MakeTable) -> Table:
    return make()


def refused(actions: list[Action], code: int) -> None:
    (action,) = actions
    assert isinstance(action, SendAndClose)
    assert (action.reason, action.result_code) == (Reason.CER_REFUSED, code)
    message = decode(action.data)
    assert numbers_of(message.avps, dictionary.RESULT_CODE) == [code]
    assert message.header.flags == (ERROR if code < 4000 else 0)


def duplicate(actions: list[Action]) -> None:
    (action,) = actions
    assert isinstance(action, SendAndClose)
    assert (action.reason, action.result_code) == (Reason.DUPLICATE, 4003)


def opened(actions: list[Action]) -> SendAndOpen:
    (action,) = actions
    assert isinstance(action, SendAndOpen)
    return action


class TestBeforeTheCer:
    def test_opens(self, table: Table, vector: Vector) -> None:
        host = "mme1.epc.mnc001.mcc001.3gppnetwork.org"
        number = table.incoming()
        actions = table.peers.receive(number, vector("cer_python_diameter"), 1.0)
        assert actions == [SetTerms(host, ANYONE), SendAndOpen(number, vector("cea_success"), host, "auto", False)]

    @pytest.mark.parametrize("name", ["dwr_python_diameter", "dpr_python_diameter", "ecr_minimal", "cea_success"])
    def test_something_else(self, table: Table, vector: Vector, name: str) -> None:
        assert table.offer(vector(name)) == [Close(1, Reason.NOT_CER)]
        assert table.peers.receive(1, vector("cer_python_diameter"), 2.0) == [Discard(1, Reason.CLOSED)]
        assert table.end(1) == []
        assert table.peers.receive(1, vector("cer_python_diameter"), 3.0) == []

    @pytest.mark.parametrize("data", [b"", b"\x01", b"GET / HTTP/1.1", bytes(20), b"\xff" * 40])
    def test_nothing_at_all(self, table: Table, data: bytes) -> None:
        assert table.offer(data) == [Close(1, Reason.NOT_CER)]

    def test_it_does_not_come(self, table: Table) -> None:
        table.incoming(now=0.0)
        table.incoming(now=5.0)
        assert table.peers.timer() == 10.0
        assert table.peers.handle_timer(9.9) == []
        assert table.peers.handle_timer(10.0) == [Close(1, Reason.CER_TIMEOUT)]
        assert table.peers.timer() == 15.0
        assert table.peers.receive(1, cer_of(), 11.0) == [Discard(1, Reason.CLOSED)]
        table.end(2)
        assert table.peers.timer() is None

    def test_it_is_awaited_no_more(self, table: Table) -> None:
        table.incoming()
        assert table.peers.disconnect_all(DisconnectCause.REBOOTING, 1.0) == [Close(1, Reason.STOPPED)]
        assert table.peers.timer() is None
        later = table.peers.connected(2, (REMOTE, 1), LOCAL, 2.0, outgoing=False, tls=False)
        assert later == [Close(2, Reason.STOPPED)]

    @pytest.mark.parametrize("remote", [FAR, ip_address("2001:db8::1")])
    def test_from_no_peers_network(self, table: Table, remote: object) -> None:
        address = ip_address(str(remote))
        actions = table.peers.connected(1, (address, 40000), LOCAL, 0.0, outgoing=False, tls=False)
        assert actions == [Close(1, Reason.ADDRESS_NOT_ALLOWED)]
        assert table.peers.timer() is None

    def test_an_ipv4_peer_on_a_socket_for_both(self, table: Table) -> None:
        opened(table.offer(cer_of(), "::ffff:192.0.2.10"))

    @pytest.mark.parametrize(
        ("broken", "code"),
        [
            (lambda cer: b"\x02" + cer[1:], 5011),
            (lambda cer: cer + b"\0\0\0\0", 5015),
            (lambda cer: cer[:8] + b"\x01\x00\x00\x24" + cer[12:], 3007),
            (lambda cer: cer[:4] + b"\xa0" + cer[5:], 3008),
        ],
    )
    def test_broken_cers(self, table: Table, broken: Callable[[bytes], bytes], code: int) -> None:
        refused(table.offer(broken(cer_of())), code)

    def test_sixty_four_origin_hosts(self, table: Table) -> None:
        hosts = [make_avp(dictionary.ORIGIN_HOST, f"mme{number}.example.org") for number in range(63)]
        refused(table.offer(cer_of(MME, *hosts)), 5009)
        assert list(table.peers.table(1.0)) == []


class TestWhoIsLetIn:
    def test_unknown_peers(self, make: MakeTable) -> None:
        table = make(NAMED, PeerEntry("*.example.net", (ip_network("198.51.100.0/24"),)))
        refused(table.offer(cer_of("mme2.example.org")), 3010)
        refused(table.offer(cer_of("a.example.net")), 3010)
        opened(table.offer(cer_of("a.example.net"), FAR))
        refused(table.offer(cer_of(), FAR), 3010)
        opened(table.offer(cer_of(MME.upper())))

    @pytest.mark.parametrize(
        "name",
        ["*", "*.example.org", ".example.org", "a..b", "a.", "mme 1", "a\nb", "мме.example.org", "a/b", "x" * 256],
    )
    def test_what_is_no_name(self, table: Table, name: str) -> None:
        refused(table.offer(cer_of(name)), 5004)

    @pytest.mark.parametrize("name", ["mme", "MME_1.epc.mnc001.mcc001.3gppnetwork.org", "x" * 255])
    def test_what_is_one(self, table: Table, name: str) -> None:
        opened(table.offer(cer_of(name)))

    def test_no_one_has_this_nodes_name(self, table: Table) -> None:
        refused(table.offer(cer_of("EIR1.example.org")), 3010)

    def test_unknown_comes_before_what_it_supports(self, table: Table, make: MakeTable) -> None:
        nothing = encode(
            Header(REQUEST, 257, 0, 1, 2),
            encode_avps([avp for avp in cer_avps(Identity(MME, "x", 1), REMOTE) if avp.code != 260]),
        )
        refused(table.offer(nothing), 5010)
        refused(make(PeerEntry("other", NETWORKS)).offer(nothing), 3010)

    def test_terms_are_those_of_its_entry(self, make: MakeTable) -> None:
        relay = replace(NAMED, role="relay", requests_per_second=5)
        table = make(ANYONE, relay)
        assert table.peers.start(0.0) == [SetTerms(MME, relay)]
        # It is told once, and has the name of its entry.
        number = table.incoming()
        (action,) = table.peers.receive(number, cer_of(MME.upper()), 1.0)
        assert isinstance(action, SendAndOpen)
        assert (action.origin_host, action.sender) == (MME, "relay")


class TestTls:
    @pytest.mark.parametrize(
        ("tls", "offers", "inband", "on_tls", "expected"),
        [
            # In clear text
            ("optional", (), False, False, "open"),
            ("optional", (OFFERS_CLEAR,), False, False, "open"),
            ("optional", (OFFERS_TLS,), False, False, 5017),
            ("optional", (OFFERS_TLS, OFFERS_CLEAR), False, False, "open"),
            ("required", (), False, False, 5017),
            ("required", (OFFERS_CLEAR,), True, False, 5017),
            ("never", (OFFERS_TLS,), True, False, 5017),
            ("never", (OFFERS_TLS, OFFERS_CLEAR), True, False, "open"),
            ("never", (), True, False, "open"),
            # By what the CER offers
            ("optional", (OFFERS_TLS,), True, False, "secure"),
            ("optional", (OFFERS_TLS, OFFERS_CLEAR), True, False, "secure"),
            ("required", (OFFERS_TLS,), True, False, "secure"),
            ("required", (OFFERS_TLS,), False, False, 5017),
            # Before the CER, which then may say what it likes
            ("optional", (), False, True, "open"),
            ("optional", (OFFERS_TLS,), True, True, "open"),
            ("required", (OFFERS_CLEAR,), False, True, "open"),
            ("never", (), False, True, 5017),
        ],
    )
    def test_what_is_agreed(
        self, make: MakeTable, tls: str, offers: tuple[Avp, ...], inband: bool, on_tls: bool, expected: str | int
    ) -> None:
        table = make(replace(ANYONE, tls=cast(Tls, tls)), security=Security(inband=inband))
        table.certificates[1] = True
        actions = table.offer(cer_of(MME, *offers), tls=on_tls)
        if isinstance(expected, int):
            refused(actions, expected)
        else:
            (action,) = actions
            assert isinstance(action, Secure if expected == "secure" else SendAndOpen)

    @pytest.mark.parametrize("inband", [False, True])
    @pytest.mark.parametrize(
        ("tls", "certificate", "certificates_required", "admitted"),
        [
            ("optional", True, True, True),
            ("optional", False, False, False),
            ("required", False, False, False),
            ("optional", None, True, True),
            ("required", None, True, False),
            ("required", None, False, True),
        ],
    )
    def test_certificates(
        self,
        make: MakeTable,
        inband: bool,
        tls: str,
        certificate: bool | None,
        certificates_required: bool,
        admitted: bool,
    ) -> None:
        table = make(replace(NAMED, tls=cast(Tls, tls)), security=Security(True, certificates_required))
        if certificate is not None:
            table.certificates[1] = certificate
        table.peers.start(0.0)
        if not inband:
            actions = table.offer(cer_of(), tls=True)
            opened(actions) if admitted else refused(actions, 3010)
            return
        (action,) = table.offer(cer_of(MME, OFFERS_TLS))
        assert isinstance(action, Secure)
        assert table.peers.timer() == 11.0
        secured = table.peers.secured(1, 2.0)
        expected = SendAndOpen(1, b"", MME, "auto", False) if admitted else Close(1, Reason.CERTIFICATE_REFUSED)
        assert secured == [expected]

    def test_it_is_shown_once_it_is_there(self, make: MakeTable) -> None:
        table = make(security=Security(inband=True, certificates_required=False))
        table.offer(cer_of(MME, OFFERS_TLS))
        assert [view.connections[0].tls for view in table.peers.table(2.0)] == [False]
        table.peers.secured(1, 2.0)
        assert [view.connections[0].tls for view in table.peers.table(2.0)] == [True]
        assert table.peers.open_peers() == 1

    def test_of_nobody(self, table: Table) -> None:
        assert table.peers.secured(1, 1.0) == []
        assert table.peers.secured(table.incoming(), 1.0) == []

    def test_the_rules_may_change(self, table: Table) -> None:
        table.peers.security = Security(inband=True)
        (action,) = table.offer(cer_of(MME, OFFERS_TLS))
        assert isinstance(action, Secure)


class TestDuplicates:
    def test_the_second_is_refused(self, table: Table) -> None:
        first = table.open()
        duplicate(table.offer(cer_of()))
        assert table.peers.receive(2, cer_of(), 2.0) == [Discard(2, Reason.CLOSED)]
        assert [view.connections[0].number for view in table.peers.table(2.0)] == [first]

    @pytest.mark.parametrize(("state_id", "idle"), [(6, 0.0), (5, 6.0), (5, None)])
    @pytest.mark.parametrize("entry", [ANYONE, NAMED])
    def test_the_second_takes_the_place_of_the_first(
        self, make: MakeTable, entry: PeerEntry, state_id: int, idle: float | None
    ) -> None:
        table = make(entry)
        first = table.open()
        table.idle[first] = idle
        closed, taken, *watchdog = table.offer(cer_of(state_id=state_id))
        assert closed == Close(first, Reason.REPLACED)
        assert isinstance(taken, SendAndOpen)
        assert taken.number == 2
        # One that the policy names is known to have failed; another of that name need not be the same.
        assert len(watchdog) == (entry is NAMED)
        assert table.end(first) == []
        assert table.peers.open_peers() == 1

    @pytest.mark.parametrize(("state_id", "idle"), [(6, 0.0), (5, 6.0)])
    def test_a_name_alone_takes_no_place(self, table: Table, state_id: int, idle: float) -> None:
        first = table.open()
        table.idle[first] = idle
        duplicate(table.offer(cer_of(state_id=state_id), "192.0.2.66"))
        # With a certificate that is valid for the name it is the same peer.
        table.certificates[3] = True
        closed, taken = table.offer(cer_of(state_id=state_id), "192.0.2.66", tls=True)
        assert closed == Close(first, Reason.REPLACED)
        assert isinstance(taken, SendAndOpen)

    def test_one_that_is_dead_is_replaced_from_anywhere(self, table: Table) -> None:
        table.idle[table.open()] = None
        closed, _ = table.offer(cer_of(), "192.0.2.66")
        assert closed == Close(1, Reason.REPLACED)

    def test_who_has_yet_to_show_a_certificate_displaces_nobody(self, make: MakeTable) -> None:
        table = make(security=Security(inband=True))
        first = table.open()
        duplicate(table.offer(cer_of(MME, OFFERS_TLS, state_id=9), "192.0.2.66"))
        assert [view.connections[0].number for view in table.peers.table(2.0)] == [first]

    def test_nor_an_attempt_of_ours(self, make: MakeTable) -> None:
        table = make(DIALLED, security=Security(inband=True))
        _, connect = table.peers.start(0.0)
        duplicate(table.offer(cer_of(MME, OFFERS_TLS)))
        table.dialled(connect)

    def test_nor_does_it_keep_anybody_out(self, make: MakeTable) -> None:
        table = make(security=Security(inband=True))
        (secure,) = table.offer(cer_of(MME, OFFERS_TLS), "192.0.2.66")
        assert isinstance(secure, Secure)
        closed, taken = table.offer(cer_of())
        assert closed == Close(1, Reason.REPLACED)
        assert isinstance(taken, SendAndOpen)
        assert table.peers.secured(1, 3.0) == []

    def test_as_many_as_its_entry_says(self, make: MakeTable) -> None:
        table = make(replace(NAMED, connections=3))
        table.peers.start(0.0)
        numbers = [table.open() for _ in range(3)]
        duplicate(table.offer(cer_of()))
        table.idle[numbers[1]] = 6.0
        closed, *_ = table.offer(cer_of())
        assert closed == Close(numbers[1], Reason.REPLACED)
        for number in (numbers[0], numbers[2], 5):
            table.end(number)
        assert len(list(table.peers.table(3.0))) == 3
        again, _ = table.offer(cer_of(), now=4.0)
        assert isinstance(again, SendAndOpen)

    def test_those_of_an_entry_for_many_go_with_their_connections(self, make: MakeTable) -> None:
        table = make(replace(ANYONE, connections=2))
        first, second = table.open(), table.open()
        assert table.end(first) == []
        assert table.end(second) == [SetTerms(MME, None)]
        assert list(table.peers.table(3.0)) == []
        assert table.peers.timer() is None

    def test_ours_counts_too(self, make: MakeTable) -> None:
        table = make(DIALLED)
        _, connect = table.peers.start(0.0)
        number = table.dialled(connect)
        duplicate(table.offer(cer_of()))
        table.idle[number] = 6.0
        closed, taken, _ = table.offer(cer_of())
        assert closed == Close(number, Reason.REPLACED)
        assert isinstance(taken, SendAndOpen)

    def test_one_that_leaves_may_come_back_at_once(self, table: Table) -> None:
        first = table.open()
        own = Identity(MME, "example.org", 5).avps()
        dpr = encode(Header(REQUEST, 282, 0, 1, 2), encode_avps((*own, make_avp(dictionary.DISCONNECT_CAUSE, 0))))
        (dpa,) = table.peers.receive(first, dpr, 2.0)
        assert isinstance(dpa, Send)
        closed, taken = table.offer(cer_of(), now=2.0)
        assert closed == Close(first, Reason.REPLACED)
        assert isinstance(taken, SendAndOpen)

    def test_refusing_tells_no_other_terms(self, make: MakeTable) -> None:
        other = PeerEntry(MME, (ip_network("198.51.100.0/24"),), requests_per_second=9)
        table = make(NAMED, other)
        table.peers.start(0.0)
        table.open()
        number = table.incoming(FAR)
        (action,) = table.peers.receive(number, cer_of(), 1.0)
        assert isinstance(action, SendAndClose)


class TestOutgoing:
    def test_every_address_is_connected_to(self, make: MakeTable) -> None:
        table = make(TWICE, ANYONE)
        terms, *connects = table.peers.start(0.0)
        assert terms == SetTerms(MME, TWICE)
        assert connects == [Connect(MME, *endpoint, None) for endpoint in TWICE.connect]
        for connect in connects:
            table.dialled(connect)
        assert table.peers.open_peers() == 2
        duplicate(table.offer(cer_of()))

    def test_what_is_not_made_is_tried_again(self, make: MakeTable) -> None:
        table = make(DIALLED)
        _, connect = table.peers.start(0.0)
        assert table.end(table.dial(connect), 2.0) == []
        assert table.peers.timer() == 32.0
        assert table.peers.handle_timer(32.0) == [connect]
        assert isinstance(connect, Connect)
        assert table.peers.connecting(connect, None, 32.0) == []
        assert table.peers.timer() == 62.0

    def test_it_is_given_up(self, make: MakeTable) -> None:
        table = make(DIALLED)
        _, connect = table.peers.start(0.0)
        number = table.dial(connect)
        assert table.peers.handle_timer(10.0) == [Close(number, Reason.CONNECT_TIMEOUT)]
        late = table.peers.connected(number, (REMOTE, PORT), LOCAL, 11.0, outgoing=True, tls=False)
        assert late == []
        assert table.end(number) == []

    def test_a_number_that_nobody_asked_for(self, table: Table) -> None:
        assert table.peers.connecting(Connect(MME, REMOTE, PORT, None), 5, 1.0) == [Close(5, Reason.STOPPED)]
        assert table.peers.connecting(Connect(MME, REMOTE, PORT, None), None, 1.0) == []
        assert table.peers.connected(77, (REMOTE, PORT), LOCAL, 11.0, outgoing=True, tls=False) == []

    def test_an_election_with_the_one_at_that_address(self, make: MakeTable) -> None:
        # mme1.example.org is higher than eir1.example.org: the peer's own connection to us goes.
        table = make(TWICE)
        _, first, second = table.peers.start(0.0)
        table.dial(first)
        other = table.dial(second)
        assert table.offer(cer_of(), "192.0.2.11") == []
        states = {view.connect: view.state for view in table.peers.table(1.0)}
        assert states == {"192.0.2.10:3868": "Wait-Conn-Ack", "192.0.2.11:3868": "Wait-Conn-Ack/Elect"}
        taken = opened(table.end(other))
        assert taken.number == 3

    def test_one_that_is_closed_takes_the_connection(self, make: MakeTable) -> None:
        table = make(DIALLED)
        _, connect = table.peers.start(0.0)
        table.end(table.dial(connect))
        opened(table.offer(cer_of()))
        assert table.peers.timer() == 31.0

    def test_somebody_says_so(self, make: MakeTable) -> None:
        table = make(DIALLED)
        _, connect = table.peers.start(0.0)
        table.end(table.dial(connect))
        assert table.peers.connect_now(MME.upper(), 3.0) == [connect]
        assert table.peers.connect_now("nobody", 3.0) == []


class TestPolicy:
    def test_a_peer_is_added(self, make: MakeTable) -> None:
        table = make(ANYONE)
        number = table.open("other.example.org")
        actions = table.peers.set_policy(PeerPolicy((ANYONE, DIALLED)), 5.0)
        assert actions == [SetTerms(MME, DIALLED), Connect(MME, REMOTE, PORT, None)]
        assert table.peers.set_policy(PeerPolicy((ANYONE, DIALLED)), 6.0) == []
        assert table.end(number) == [SetTerms("other.example.org", None)]

    @pytest.mark.parametrize(
        "policy",
        [PeerPolicy(()), PeerPolicy((NAMED,), {MME}), PeerPolicy((replace(NAMED, networks=(ip_network(FAR),)),))],
    )
    def test_one_that_is_not_wanted_any_more_is_told(self, make: MakeTable, policy: PeerPolicy) -> None:
        table = make(NAMED)
        table.peers.start(0.0)
        number = table.open()
        actions = [action for action in table.peers.set_policy(policy, 5.0) if not isinstance(action, SetTerms)]
        (dpr,) = actions
        assert isinstance(dpr, Send)
        assert numbers_of(decode(dpr.data).avps, dictionary.DISCONNECT_CAUSE) == [DO_NOT_WANT]
        assert table.peers.handle_timer(10.0)[0] == Close(number, Reason.DPA_TIMEOUT)
        assert table.peers.timer() is None

    def test_it_is_forgotten_when_it_is_gone(self, make: MakeTable) -> None:
        table = make(NAMED)
        table.peers.start(0.0)
        number = table.open()
        table.peers.set_policy(PeerPolicy(()), 5.0)
        assert [view.state for view in table.peers.table(6.0)] == ["Closing"]
        assert table.end(number) == [SetTerms(MME, None)]
        assert list(table.peers.table(6.0)) == []

    def test_and_may_be_wanted_again_meanwhile(self, make: MakeTable) -> None:
        table = make(NAMED)
        table.peers.start(0.0)
        number = table.open()
        table.peers.set_policy(PeerPolicy(()), 5.0)
        assert table.peers.set_policy(PeerPolicy((NAMED,)), 6.0) == []
        assert table.end(number) == []
        assert [view.named for view in table.peers.table(6.0)] == [True]

    def test_one_that_is_not_connected_is_just_forgotten(self, make: MakeTable) -> None:
        table = make(NAMED)
        table.peers.start(0.0)
        assert table.peers.set_policy(PeerPolicy(()), 5.0) == [SetTerms(MME, None)]

    def test_a_wider_entry_may_still_have_it(self, make: MakeTable) -> None:
        table = make(NAMED, ANYONE)
        table.peers.start(0.0)
        number = table.open()
        assert table.peers.set_policy(PeerPolicy((ANYONE,)), 5.0) == [SetTerms(MME, ANYONE)]
        (view,) = table.peers.table(6.0)
        assert (view.state, view.named) == ("R-Open", False)
        assert table.end(number) == [SetTerms(MME, None)]

    def test_and_an_own_one_may_take_it_over(self, make: MakeTable) -> None:
        table = make(ANYONE)
        number = table.open()
        named = replace(NAMED, requests_per_second=7)
        assert table.peers.set_policy(PeerPolicy((named, ANYONE)), 5.0) == [SetTerms(MME, named)]
        assert table.end(number) == []
        (view,) = table.peers.table(6.0)
        assert (view.named, view.requests_per_second) == (True, 7)

    def test_other_terms_hold_at_once(self, make: MakeTable) -> None:
        table = make(NAMED)
        table.peers.start(0.0)
        table.open()
        limited = replace(NAMED, requests_per_second=7, load=True)
        assert table.peers.set_policy(PeerPolicy((limited,)), 5.0) == [SetTerms(MME, limited)]
        assert table.peers.terms() == [SetTerms(MME, limited)]

    @pytest.mark.parametrize("made", [False, True])
    def test_an_address_is_taken_away(self, make: MakeTable, made: bool) -> None:
        table = make(TWICE)
        _, first, second = table.peers.start(0.0)
        number = table.dialled(first) if made else table.dial(first)
        table.dialled(second)
        kept = replace(TWICE, connect=TWICE.connect[1:])
        actions = table.peers.set_policy(PeerPolicy((kept,)), 5.0)
        (told,) = [action for action in actions if not isinstance(action, SetTerms)]
        if made:
            assert isinstance(told, Send)
            assert told.number == number
        else:
            assert told == Close(number, Reason.STOPPED)
        table.end(number)
        assert [view.connect for view in table.peers.table(6.0)] == ["192.0.2.11:3868"]

    def test_an_address_is_taken_away_from_one_that_has_come_itself(self, make: MakeTable) -> None:
        table = make(DIALLED)
        _, connect = table.peers.start(0.0)
        table.end(table.dial(connect))
        number = table.open()
        assert table.peers.set_policy(PeerPolicy((NAMED,)), 5.0) == [SetTerms(MME, NAMED)]
        table.end(number)
        assert table.peers.timer() is None

    def test_connections_whose_cer_has_not_come(self, make: MakeTable) -> None:
        table = make(ANYONE)
        table.incoming()
        assert table.peers.set_policy(PeerPolicy(()), 5.0) == [Close(1, Reason.ADDRESS_NOT_ALLOWED)]
        assert table.peers.timer() is None

    def test_nobody_is_connected_to_while_it_stops(self, make: MakeTable) -> None:
        table = make(DIALLED)
        _, connect = table.peers.start(0.0)
        number = table.dialled(connect)
        (dpr,) = table.peers.disconnect_all(DisconnectCause.REBOOTING, 5.0)
        assert isinstance(dpr, Send)
        assert numbers_of(decode(dpr.data).avps, dictionary.DISCONNECT_CAUSE) == [0]
        table.end(number)
        assert table.peers.timer() is None
        assert table.peers.connect_now(MME, 6.0) == []
        assert table.peers.set_policy(PeerPolicy((TWICE,)), 6.0) == [SetTerms(MME, TWICE)]


class TestTimers:
    def test_many_deadlines_one_timer(self, make: MakeTable) -> None:
        table = make(replace(ANYONE, connections=1))
        for number in range(50):
            table.open(f"mme{number}.example.org", now=float(number))
        assert table.peers.timer() == 30.0
        questions = table.peers.handle_timer(35.0)
        # Each has just been heard of, as far as its owner knows.
        assert questions == []
        assert table.peers.timer() == 36.0

    def test_silence(self, table: Table) -> None:
        number = table.open()
        table.idle[number] = 30.0
        (dwr,) = table.peers.handle_timer(31.0)
        assert isinstance(dwr, Send)
        table.idle[number] = 90.0
        assert table.peers.handle_timer(61.0) == []
        assert table.peers.handle_timer(91.0) == [Close(number, Reason.WATCHDOG), SetTerms(MME, None)]

    def test_a_connection_that_is_gone_was_heard_of_when_it_came(self, table: Table) -> None:
        number = table.open(now=1.0)
        table.idle[number] = None
        (dwr,) = table.peers.handle_timer(31.0)
        assert isinstance(dwr, Send)


class TestViews:
    def test_everything_is_shown(self, make: MakeTable) -> None:
        relay = replace(DIALLED, role="relay", tls="required", requests_per_second=3, load=True, connections=2)
        table = make(relay, PeerEntry("b.example.org", NETWORKS), ANYONE)
        table.peers.set_policy(
            PeerPolicy((relay, PeerEntry("b.example.org", NETWORKS), ANYONE), {"b.example.org"}), 0.0
        )
        table.open("c.example.org", now=2.0)
        table.idle[1] = 1.5
        table.incoming(now=3.0)
        dialled, other, disabled = table.peers.table(10.0)
        assert (dialled.origin_host, dialled.state, dialled.connect, dialled.waiting) == (
            MME,
            "Wait-Conn-Ack",
            "192.0.2.10:3868",
            False,
        )
        assert (dialled.role, dialled.tls, dialled.most_connections) == ("relay", "required", 2)
        assert (dialled.requests_per_second, dialled.load, dialled.named) == (3, True, True)
        assert (other.origin_host, other.state, other.watchdog, other.named) == (
            "c.example.org",
            "R-Open",
            "OKAY",
            False,
        )
        (connection,) = other.connections
        assert (connection.number, connection.remote, connection.direction) == (1, "192.0.2.10:40000", "in")
        assert (connection.tls, connection.since, connection.idle) == (False, 8.0, 1.5)
        assert (disabled.origin_host, disabled.disabled, disabled.connections) == ("b.example.org", True, ())
        (waiting,) = table.peers.waiting(10.0)
        assert (waiting.number, waiting.since) == (2, 7.0)

    def test_changes_are_counted(self, table: Table) -> None:
        table.end(table.open())
        assert table.peers.changes.peers == {("closed", "r-open"): 1, ("r-open", "closed"): 1}
        assert table.peers.changes.watchdogs[("initial", "okay")] == 1
