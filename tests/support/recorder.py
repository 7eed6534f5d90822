"""What two programs say to each other over TCP, seen from between them, for which no rights are needed."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from eir.diameter.message import HEADER_LENGTH, Header, peek_header


@dataclass(slots=True)
class Conversation:
    """One connection. `segments`: whether the node said it, and what, in the order in which it came by."""

    segments: list[tuple[bool, bytes]] = field(default_factory=list)

    def octets(self, from_node: bool) -> bytes:
        """All that one side said."""
        return b"".join(octets for says, octets in list(self.segments) if says is from_node)

    def messages(self) -> list[tuple[bool, bytes]]:
        """The Diameter messages, each where its last octet came by; what is not whole yet is left out."""
        buffers, whole = {True: b"", False: b""}, []
        for from_node, octets in list(self.segments):
            buffer = buffers[from_node] + octets
            while len(buffer) >= HEADER_LENGTH:
                length = int.from_bytes(buffer[1:4], "big")
                assert buffer[0] == 1 and length >= HEADER_LENGTH, "this is not Diameter"
                if len(buffer) < length:
                    break
                whole.append((from_node, buffer[:length]))
                buffer = buffer[length:]
            buffers[from_node] = buffer
        return whole

    def headers(self, from_node: bool) -> list[Header]:
        """The headers of the messages of one side."""
        headers = [peek_header(message) for says, message in self.messages() if says is from_node]
        return [header for header in headers if header]

    def count(self, from_node: bool, command: int, is_request: bool) -> int:
        """How many such messages one side sent."""
        return sum((header.command, header.is_request) == (command, is_request) for header in self.headers(from_node))


class Recorder:
    """Takes connections on a free loopback port and hands them on to `to`, the node's address, which may be changed.

    A connection that one side ends is ended to the other side too. With `from_node`, it is the node that connects.
    """

    def __init__(self, to: tuple[str, int], *, from_node: bool = False) -> None:
        self.to = to
        self.conversations: list[Conversation] = []
        """In the order in which they began."""
        self._from_node = from_node
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        """Where to connect to."""
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything."""
        # A thread that waits in accept or recv is woken by a shutdown, not by a close.
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                inner, _ = self._listener.accept()
                try:
                    outer = socket.create_connection(self.to, 10)
                except OSError:
                    inner.close()
                    continue
                outer.settimeout(None)
                self._sockets += (inner, outer)
                conversation = Conversation()
                self.conversations.append(conversation)
                for source, sink, from_node in ((inner, outer, self._from_node), (outer, inner, not self._from_node)):
                    arguments = (source, sink, from_node, conversation)
                    threading.Thread(target=self._copy, args=arguments, daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket, from_node: bool, conversation: Conversation) -> None:
        with suppress(OSError):
            while octets := source.recv(65536):
                conversation.segments.append((from_node, octets))
                sink.sendall(octets)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
