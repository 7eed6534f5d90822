"""One Diameter peer on a plain socket, for the moment a node takes to its first answer."""

from __future__ import annotations

import socket
import struct
import time

_S13 = 16777252
_3GPP = 10415


def _avp(code: int, data: bytes, vendor: int = 0) -> bytes:
    head = struct.pack(">II", code, (0xC0 if vendor else 0x40) << 24 | (len(data) + (12 if vendor else 8)))
    return head + (struct.pack(">I", vendor) if vendor else b"") + data + b"\0" * (-len(data) % 4)


def _message(flags: int, command: int, application: int, *avps: bytes) -> bytes:
    body = b"".join(avps)
    return struct.pack(">IIIII", 1 << 24 | (20 + len(body)), flags << 24 | command, application, 1, 1) + body


def _number(value: int) -> bytes:
    return struct.pack(">I", value)


_ORIGIN = _avp(264, b"first.epc.test") + _avp(296, b"epc.test")
_CER = _message(
    0x80,
    257,
    0,
    _ORIGIN,
    _avp(257, b"\0\1\x7f\0\0\1"),
    _avp(266, _number(_3GPP)),
    _avp(269, b"first"),
    _avp(258, _number(_S13)),
)


def _ecr(imei: str) -> bytes:
    terminal = _avp(1402, imei.encode(), _3GPP)
    return _message(
        0xC0,
        324,
        _S13,
        _avp(263, b"first.epc.test;1;1"),
        _avp(277, _number(1)),
        _ORIGIN,
        _avp(283, b"epc.test"),
        _avp(1401, terminal, _3GPP),
    )


def _read(connection: socket.socket) -> bytes:
    data = b""
    while len(data) < 4 or len(data) < int.from_bytes(data[1:4], "big"):
        more = connection.recv(65536)
        if not more:
            raise OSError("the node closed the connection")
        data += more
    return data


def first_answer(port: int, imei: str, within: float) -> bytes:
    """Asks the node on loopback about a device as soon as it answers, and returns the ECA. Raises TimeoutError."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(_CER)
                _read(connection)
                connection.sendall(_ecr(imei))
                return _read(connection)
        except ConnectionRefusedError:
            time.sleep(0.001)
    raise TimeoutError("no answer")
