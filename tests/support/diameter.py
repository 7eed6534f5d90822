"""A Diameter client of plain sockets, and the messages that it sends. It records every octet that it gets."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from eir.diameter import dictionary as d
from eir.diameter.message import (
    HEADER_LENGTH,
    PROXIABLE,
    REQUEST,
    Avp,
    Header,
    Message,
    Value,
    decode,
    encode,
    encode_avps,
    make_avp,
)

REALM = "epc.test"
PATIENCE = 10.0
"""Seconds to wait for what must come; more than any test needs, for machines that have other work."""

_identifiers = itertools.count(1)
_STATUSES = {0: "white", 1: "black", 2: "grey"}


def request(command: int, application: int, content: bytes | Sequence[Avp], flags: int = REQUEST) -> bytes:
    """A request with identifiers of its own."""
    number = next(_identifiers)
    octets = content if isinstance(content, bytes) else encode_avps(content)
    return encode(Header(flags, command, application, number, number ^ 0x5A5A0000), octets)


def origin(host: str) -> tuple[Avp, Avp]:
    """Origin-Host and Origin-Realm."""
    return make_avp(d.ORIGIN_HOST, host), make_avp(d.ORIGIN_REALM, REALM)


def cer(host: str, *applications: int) -> bytes:
    """A CER that offers these applications; S13 where none is given."""
    offers = [make_avp(d.AUTH_APPLICATION_ID, number) for number in applications or (d.APPLICATION_S13,)]
    own = (
        make_avp(d.HOST_IP_ADDRESS, ip_address("127.0.0.1")),
        make_avp(d.VENDOR_ID, 0),
        make_avp(d.PRODUCT_NAME, "tests"),
    )
    return request(d.CAPABILITIES_EXCHANGE.code, d.APPLICATION_BASE, (*origin(host), *own, *offers))


def dwr(host: str) -> bytes:
    """A DWR."""
    return request(d.DEVICE_WATCHDOG.code, d.APPLICATION_BASE, origin(host))


def dpr(host: str) -> bytes:
    """A DPR."""
    return request(d.DISCONNECT_PEER.code, d.APPLICATION_BASE, (*origin(host), make_avp(d.DISCONNECT_CAUSE, 0)))


def terminal(imei: str) -> Avp:
    """Terminal-Information with an IMEI."""
    return make_avp(d.TERMINAL_INFORMATION, (make_avp(d.IMEI, imei),))


def ecr_avps(host: str, terminal_information: Avp, imsi: str | None = None) -> list[Avp]:
    """What an ECR holds."""
    subscriber = [] if imsi is None else [make_avp(d.USER_NAME, imsi)]
    return [
        make_avp(d.SESSION_ID, f"{host};1;{next(_identifiers)}"),
        make_avp(d.AUTH_SESSION_STATE, d.NO_STATE_MAINTAINED),
        *origin(host),
        make_avp(d.DESTINATION_REALM, "eir.test"),
        terminal_information,
        *subscriber,
    ]


def ecr_of(avps: Sequence[Avp]) -> bytes:
    """An ECR that holds these AVPs."""
    return request(d.ME_IDENTITY_CHECK.code, d.APPLICATION_S13, avps, REQUEST | PROXIABLE)


@dataclass(frozen=True, slots=True)
class Received:
    """A message from the node, as it came and decoded."""

    data: bytes
    message: Message

    @property
    def header(self) -> Header:
        """Its header."""
        return self.message.header

    def values(self, definition: d.AvpDefinition) -> list[Value]:
        """The values of all AVPs of a kind."""
        return [avp.value for avp in self.message.avps if avp.key == definition.key]

    @property
    def code(self) -> int:
        """Its Result-Code, or its Experimental-Result-Code; 0 where it has neither."""
        numbers = [value for value in self.values(d.RESULT_CODE) if isinstance(value, int)]
        for avp in self.message.avps:
            if avp.key == (0, 297) and isinstance(avp.value, tuple):
                numbers += [
                    member.value for member in avp.value if member.code == 298 and isinstance(member.value, int)
                ]
        assert len(numbers) <= 1
        return numbers[0] if numbers else 0

    @property
    def verdict(self) -> str | int:
        """What an ECA says of the device: white, black or grey, else the code."""
        statuses = self.values(d.EQUIPMENT_STATUS)
        if not statuses:
            return self.code
        (status,) = statuses
        assert self.code == d.SUCCESS
        assert isinstance(status, int)
        return _STATUSES[status]


class Client:
    """A connection to a node, not open before `open`. As a context manager it closes its socket at the end."""

    def __init__(self, to: tuple[str, int] | socket.socket, host: str = "mme.epc.test") -> None:
        """`to`: an address to connect to, or what is connected already."""
        self.host = host
        self.received: list[bytes] = []
        """Every message that came, in order."""
        self._socket = to if isinstance(to, socket.socket) else socket.create_connection(to, PATIENCE)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Sends octets."""
        self._socket.sendall(data)

    def receive(self, patience: float = PATIENCE) -> Received | None:
        """The next message, decoded; None where the node has closed the connection. Raises TimeoutError."""
        data = self.receive_raw(patience)
        return None if data is None else Received(data, decode(data))

    def receive_raw(self, patience: float = PATIENCE) -> bytes | None:
        """The next message as it came, which may be an answer to something that does not decode."""
        self._socket.settimeout(patience)
        if not self._fill(HEADER_LENGTH):
            return None
        length = int.from_bytes(self._buffer[1:4], "big")
        assert self._fill(length), "the connection was closed within a message"
        data, self._buffer = self._buffer[:length], self._buffer[length:]
        self.received.append(data)
        return data

    def _fill(self, length: int) -> bool:
        while len(self._buffer) < length:
            try:
                octets = self._socket.recv(65536)
            except ConnectionResetError:
                octets = b""
            if not octets:
                return False
            self._buffer += octets
        return True

    def ask(self, data: bytes) -> Received:
        """Sends a request and returns its answer, which must be the next message."""
        self.send(data)
        answer = self.receive()
        assert answer is not None, "closed instead of an answer"
        assert data[12:20] == answer.data[12:20], "the identifiers do not come back"
        assert not answer.header.is_request
        assert answer.header.command == int.from_bytes(data[5:8], "big")
        return answer

    def open(self) -> Received:
        """Exchanges capabilities, successfully."""
        cea = self.ask(cer(self.host))
        assert cea.code == d.SUCCESS
        return cea

    def check(self, imei: str, imsi: str | None = None) -> str | int:
        """The verdict on a device."""
        return self.ask(ecr_of(ecr_avps(self.host, terminal(imei), imsi))).verdict

    def is_closed(self) -> bool:
        """Whether the node closes the connection, without another message."""
        return self.receive() is None
