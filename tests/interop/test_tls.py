"""TLS as others speak it: OpenSSL's s_client below a client of ours, GnuTLS in freeDiameter, Erlang's in OTP."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eir import config
from eir.diameter import dictionary as d
from eir.diameter.message import Avp
from interop.conftest import MakeFreeDiameter, MakeOtpDiameter
from support import lists
from support.certificates import Authority
from support.diameter import PATIENCE, Client, Received, cer, dpr, dwr, ecr_avps, ecr_of, terminal
from support.freediameter import Target
from support.node import MakeNode, NodeProcess, Settings, until
from support.openssl import TlsClient
from support.pcap import write_conversations
from support.recorder import Recorder
from support.redis import free_port
from support.tshark import dissect

pytestmark = pytest.mark.skipif(
    "tls" not in config.DiameterSection.__struct_fields__, reason="NOT TESTED: the node that is installed has no TLS"
)

HOST = "mme.epc.test"
INBAND_TLS = Avp(299, 0, 0x40, 1)
Credentials = tuple[Path, Path]


class Place:
    """A node with a TLS listener, the authority that it trusts, and two that it does not, one of the same name."""

    def __init__(self, directory: Path, make_node: MakeNode, tls: dict[str, object], peer: dict[str, object]) -> None:
        self.ours = Authority(directory / "ours")
        self.theirs = Authority(directory / "theirs", "another authority")
        self.namesake = Authority(directory / "namesake")
        self.address = ("127.0.0.1", free_port())
        self.files = (directory / "node.pem", directory / "node.key")
        peers = [{"origin_host": "*", "networks": ["127.0.0.0/8"], **peer}]
        files = {"certificate_file": self.files[0], "key_file": self.files[1], "ca_file": self.ours.file}
        settings: Settings = {
            "diameter": {"peers": peers},
            "diameter.tls": {
                "listen": [f"127.0.0.1:{self.address[1]}"],
                **{key: str(path) for key, path in files.items()},
                "client_certificate": "required",
                **tls,
            },
        }
        self.name = config.NodeSection().origin_host
        self.renew()
        self.node = make_node(settings)

    def renew(self, valid: tuple[int, int] = (-1, 2)) -> None:
        """Gives the node another certificate, which it reads when it is told to."""
        for made, place in zip(self.ours.issue(self.name, valid=valid), self.files, strict=True):
            shutil.copyfile(made, place)

    def client(self, certificate: Credentials | None, *options: str, to: tuple[str, int] | None = None) -> TlsClient:
        """A client over `s_client`, which believes in our authority and wants the node's name."""
        wanted = ("-verify_hostname", self.name, *options)
        return TlsClient(to or self.address, HOST, self.ours.file, certificate, wanted)

    def counted(self, reason: str) -> bool:
        """Whether one connection was closed for that reason."""
        return self.node.metrics().get(f'eir_connections_closed_total{{reason="{reason}"}}') == 1


@pytest.fixture
def make_place(tmp_path: Path, make_node: MakeNode) -> Callable[..., Place]:
    def make(tls: dict[str, object] | None = None, peer: dict[str, object] | None = None) -> Place:
        return Place(tmp_path, make_node, tls or {}, peer or {})

    return make


MakePlace = Callable[..., Place]


def refused(client: Client, first: bytes) -> Received | None:
    """The CEA with an error, if there is one; the connection must end behind it."""
    client.send(first)
    answer = client.receive()
    if answer is not None:
        assert answer.code != d.SUCCESS
        assert client.is_closed()
    return answer


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_whole_life(make_place: MakePlace, tmp_path: Path, version: str) -> None:
    place = make_place()
    with Recorder(place.address) as recorder:
        certificate = place.ours.issue(HOST)
        with place.client(certificate, f"-tls{version.replace('.', '_')}", to=recorder.address) as client:
            client.open()
            for imei, verdict in ((lists.WHITE, "white"), (lists.BLACK, "black"), (lists.NEW, "grey")):
                assert client.check(imei, lists.SUBSCRIBER) == verdict
            assert client.ask(dwr(HOST)).code == d.SUCCESS
            # Many at once, more than a record holds.
            requests = [ecr_of(ecr_avps(HOST, terminal(lists.BLACK))) for _ in range(500)]
            client.send(b"".join(requests))
            answers = [client.receive() for _ in requests]
            assert {answer and answer.verdict for answer in answers} == {"black"}
            assert client.ask(dpr(HOST)).code == d.SUCCESS
        (conversation,) = recorder.conversations
    # Nothing of it was in the clear, in either direction: no device, no subscriber, no header of an ECR or ECA, no
    # Session-Id. What is shorter may be in ciphertext by chance.
    secrets = (lists.BLACK.encode(), lists.SUBSCRIBER.encode(), bytes.fromhex("00014401000024"), f"{HOST};1;".encode())
    for from_node in (True, False):
        octets = conversation.octets(from_node)
        assert not [secret for secret in secrets if secret in octets]
    capture = tmp_path / "tls.pcap"
    write_conversations(capture, [conversation.segments])
    as_tls = ("-d", "tcp.port==3868,tls")
    assert "Application Data" in dissect(capture, *as_tls, "-V", "-O", "tls")
    assert not dissect(capture, *as_tls, "-Y", "diameter || _ws.malformed")


def test_an_older_version_is_refused(make_place: MakePlace) -> None:
    place = make_place()
    certificate = place.ours.issue(HOST)
    with place.client(certificate, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0") as client:
        assert refused(client, cer(HOST)) is None
        assert "alert" in client.failure()
    until(lambda: place.counted("tls failed"))
    with place.client(certificate) as client:
        client.open()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda place: None, "tls certificate missing"),
        (lambda place: place.ours.issue(HOST, valid=(-9, -2)), "tls certificate expired"),
        (lambda place: place.ours.issue(HOST, valid=(2, 9)), "tls certificate not trusted"),
        (lambda place: place.theirs.issue(HOST), "tls certificate not trusted"),
        (lambda place: place.namesake.issue(HOST), "tls certificate not trusted"),
    ],
)
def test_a_certificate_that_does_not_do(
    make_place: MakePlace, version: str, make: Callable[[Place], Credentials | None], reason: str
) -> None:
    place = make_place()
    with place.client(make(place), version) as client:
        assert refused(client, cer(HOST)) is None
        # It is told why, by TLS.
        assert "alert" in client.failure()
    until(lambda: place.counted(reason))
    with place.client(place.ours.issue(HOST), version) as client:
        client.open()
        assert client.check(lists.WHITE) == "white"


@pytest.mark.parametrize("names", [("other.epc.test",), (), ("epc.test",), ("127.0.0.1",)])
def test_a_certificate_of_another_name(make_place: MakePlace, names: tuple[str, ...]) -> None:
    place = make_place()
    with place.client(place.ours.issue(*names)) as client:
        answer = refused(client, cer(HOST))
        assert answer is not None
        assert answer.code == d.UNKNOWN_PEER
    until(lambda: place.counted("cer-refused"))


def test_a_certificate_of_several_names(make_place: MakePlace) -> None:
    place = make_place()
    with place.client(place.ours.issue("first.epc.test", HOST)) as client:
        client.open()
        assert client.check(lists.WHITE) == "white"


def test_a_certificate_may_be_left_to_the_client(make_place: MakePlace) -> None:
    place = make_place({"client_certificate": "optional"})
    with place.client(None) as client:
        client.open()
        assert client.check(lists.WHITE) == "white"
    with place.client(place.theirs.issue(HOST)) as client:
        assert refused(client, cer(HOST)) is None


def test_the_clients_view_of_the_nodes_certificate(make_place: MakePlace) -> None:
    place = make_place()
    certificate = place.ours.issue(HOST)
    with TlsClient(place.address, HOST, place.theirs.file, certificate) as client:
        assert refused(client, cer(HOST)) is None
        assert "verify failed" in client.failure()
    until(lambda: place.counted("tls failed"))


def test_clear_text_and_tls_on_each_others_port(make_place: MakePlace) -> None:
    place = make_place()
    with Client(place.address, HOST) as client:
        client.send(cer(HOST))
        # An alert of TLS may come, an answer may not.
        octets = client._socket.recv(4096)
        assert not octets or octets[0] == 21
    with place.client(place.ours.issue(HOST), to=place.node.listening[0]) as client:
        assert refused(client, cer(HOST)) is None
    with place.node.client(HOST) as client:
        client.open()
        assert client.check(lists.WHITE) == "white"


def test_a_peer_that_must_use_tls(make_place: MakePlace) -> None:
    place = make_place(peer={"tls": "required"})
    with place.node.client(HOST) as client:
        answer = refused(client, cer(HOST))
        assert answer is not None
        assert answer.code == d.NO_COMMON_SECURITY
    with place.client(place.ours.issue(HOST)) as client:
        client.open()


def test_a_peer_that_must_not_use_tls(make_place: MakePlace) -> None:
    place = make_place(peer={"tls": "never"})
    with place.client(place.ours.issue(HOST)) as client:
        refused(client, cer(HOST))
    with place.node.client(HOST) as client:
        client.open()


def test_certificates_are_read_anew_and_connections_go_on(make_place: MakePlace) -> None:
    place = make_place()
    certificate = place.ours.issue(HOST)

    def shown() -> bytes:
        context = ssl.create_default_context(cafile=str(place.ours.file))
        context.load_cert_chain(*certificate)
        plain = socket.create_connection(place.address, PATIENCE)
        with context.wrap_socket(plain, server_hostname=place.name) as secured:
            return secured.getpeercert(binary_form=True) or b""

    before = shown()
    with place.client(certificate) as client:
        client.open()
        place.renew()
        place.node.reload()
        assert shown() != before
        assert client.check(lists.WHITE) == "white"
        # A certificate that is none changes nothing.
        place.files[0].write_text("no certificate")
        place.node.reload()
        assert place.node.log("reload refused")
        assert shown() != b""
        assert client.check(lists.BLACK) == "black"


def asks(client: Any, name: str) -> None:
    """A program asks about each kind of device, when its connection is open."""
    until(lambda: client.is_open(name))
    for imei, imsi, status in ((lists.WHITE, lists.SUBSCRIBER, "0"), (lists.BLACK, "", "1"), (lists.NEW, "", "2")):
        assert client.check(imei, imsi) == ("2001", status, name)


def freediameter(place: Place, make: MakeFreeDiameter, authority: Authority, target: Target) -> Any:
    credentials = (*authority.issue(HOST), place.ours.file, place.theirs.file)
    return make(HOST, target, asks=place.node.settings.node.origin_realm, credentials=credentials)


def test_freediameter(make_place: MakePlace, make_freediameter: MakeFreeDiameter) -> None:
    place = make_place()
    client = freediameter(place, make_freediameter, place.ours, Target(place.name, place.address, "port"))
    asks(client, place.name)
    assert client.stop() == 0
    until(lambda: place.node.log("connection closed"))


def test_freediameter_with_a_certificate_of_another_authority(
    make_place: MakePlace, make_freediameter: MakeFreeDiameter
) -> None:
    place = make_place()
    client = freediameter(place, make_freediameter, place.theirs, Target(place.name, place.address, "port"))
    # GnuTLS shows no certificate at all where the node names no authority that it has one of.
    until(lambda: place.node.metrics().get('eir_connections_closed_total{reason="tls certificate missing"}'))
    assert not client.is_open(place.name)


def test_freediameter_asks_for_tls_in_its_cer(make_place: MakePlace, make_freediameter: MakeFreeDiameter) -> None:
    place = make_place({"inband": True})
    target = Target(place.name, place.node.listening[0], "inband")
    client = freediameter(place, make_freediameter, place.ours, target)
    asks(client, place.name)
    assert client.stop() == 0


@pytest.mark.parametrize("way", ["port", "inband"])
def test_otp(make_place: MakePlace, make_otp: MakeOtpDiameter, way: str) -> None:
    place = make_place({"inband": way == "inband"})
    to = place.address if way == "port" else place.node.listening[0]
    tls = (way, *place.ours.issue(HOST), place.ours.file, place.name)
    client = make_otp(HOST, place.node.settings.node.origin_realm, to, tls=tls)
    asks(client, place.name)
    assert not client.told("errors", "failed")
    assert client.stop() == 0


class TestInband:
    """Inband-Security-Id: the CER and the CEA in the clear, and TLS from then on (RFC 6733 13.1, RFC 3588)."""

    @staticmethod
    def begin(place: Place, node: NodeProcess) -> tuple[socket.socket, Received]:
        """A connection on which the CER asked for TLS, and the CEA to it."""
        plain = socket.create_connection(node.listening[0], PATIENCE)
        client = Client(plain, HOST)
        asked = cer(HOST)
        more = b"\0\0\x01\x2b\x40\0\0\x0c\0\0\0\x01"
        asked = asked[:1] + (len(asked) + len(more)).to_bytes(3, "big") + asked[4:] + more
        return plain, client.ask(asked)

    def test_tls_follows(self, make_place: MakePlace) -> None:
        place = make_place({"inband": True})
        plain, cea = self.begin(place, place.node)
        assert cea.code == d.SUCCESS
        assert cea.values(d.INBAND_SECURITY_ID) == [1]
        context = ssl.create_default_context(cafile=str(place.ours.file))
        context.load_cert_chain(*place.ours.issue(HOST))
        with context.wrap_socket(plain, server_hostname=place.name) as secured, Client(secured, HOST) as client:
            assert client.check(lists.BLACK) == "black"
            assert client.ask(dwr(HOST)).code == d.SUCCESS

    def test_clear_text_behind_it_is_not_served(self, make_place: MakePlace) -> None:
        place = make_place({"inband": True})
        plain, cea = self.begin(place, place.node)
        assert cea.code == d.SUCCESS
        plain.sendall(ecr_of(ecr_avps(HOST, terminal(lists.BLACK))))
        octets = b""
        while more := plain.recv(4096):
            octets += more
        plain.close()
        # An alert of TLS, at most.
        assert not octets or octets[0] == 21

    def test_it_is_refused_where_the_node_does_not_have_it(self, make_place: MakePlace) -> None:
        place = make_place()
        plain, cea = self.begin(place, place.node)
        plain.close()
        assert cea.code == d.NO_COMMON_SECURITY
