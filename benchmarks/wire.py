"""A Diameter peer on a plain socket: one ECR at a time, for the demonstration and the time to a first answer.

It shares no code with the node, and needs only the standard library.
"""

from __future__ import annotations

import socket
import struct
import time
from types import TracebackType

_S13 = 16777252
_3GPP = 10415
_EQUIPMENT_STATUS = struct.pack(">IIII", 1445, 0xC0 << 24 | 16, _3GPP, 0)[:12]
_STATUS = {0: "white", 1: "black", 2: "grey"}


def _avp(code: int, data: bytes, vendor: int = 0) -> bytes:
    head = struct.pack(">II", code, (0xC0 if vendor else 0x40) << 24 | (len(data) + (12 if vendor else 8)))
    return head + (struct.pack(">I", vendor) if vendor else b"") + data + b"\0" * (-len(data) % 4)


def _message(flags: int, command: int, application: int, *avps: bytes) -> bytes:
    body = b"".join(avps)
    return struct.pack(">IIIII", 1 << 24 | (20 + len(body)), flags << 24 | command, application, 1, 1) + body


def _number(value: int) -> bytes:
    return struct.pack(">I", value)


class WirePeer:
    """An open connection to a node on loopback. Raises OSError where it cannot be had or is closed."""

    def __init__(self, port: int) -> None:
        self._origin = _avp(264, b"mme.demo.epc.test") + _avp(296, b"epc.test")
        self._connection = socket.create_connection(("127.0.0.1", port), 5)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._asked = 0
        host = _avp(257, b"\0\1\x7f\0\0\1")
        product = _avp(266, _number(_3GPP)) + _avp(269, b"demo") + _avp(258, _number(_S13))
        self._exchange(_message(0x80, 257, 0, self._origin, host, product))

    def __enter__(self) -> WirePeer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def ask(self, imei: str, imsi: str | None = None) -> bytes:
        """Sends an ECR and returns the ECA."""
        self._asked += 1
        session = _avp(263, f"mme.demo.epc.test;1;{self._asked}".encode())
        subscriber = _avp(1, imsi.encode()) if imsi else b""
        terminal = _avp(1401, _avp(1402, imei.encode(), _3GPP), _3GPP)
        state, realm = _avp(277, _number(1)), _avp(283, b"epc.test")
        return self._exchange(_message(0xC0, 324, _S13, session, state, self._origin, realm, subscriber, terminal))

    def _exchange(self, request: bytes) -> bytes:
        self._connection.sendall(request)
        data = b""
        while len(data) < 4 or len(data) < int.from_bytes(data[1:4], "big"):
            more = self._connection.recv(65536)
            if not more:
                raise OSError("the node closed the connection")
            data += more
        return data


def status_of(eca: bytes) -> str:
    """The Equipment-Status in an answer, or "none"."""
    _, found, rest = eca.partition(_EQUIPMENT_STATUS)
    return _STATUS[int.from_bytes(rest[:4], "big")] if found else "none"


def first_answer(port: int, imei: str, within: float) -> bytes:
    """Asks a node about a device as soon as it answers, and returns the ECA. Raises TimeoutError."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            with WirePeer(port) as peer:
                return peer.ask(imei)
        except ConnectionRefusedError:
            time.sleep(0.001)
    raise TimeoutError("no answer")
