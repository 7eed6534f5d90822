"""Messages as a capture file, as if they had been seen on a network."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

PORT = 3868
_RAW_IP = 101
_NODE, _CLIENT = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
_PUSH_ACK = 0x18
_LONGEST = 32 << 10
"""Octets of a segment: an IP packet's length has 16 bits."""


def write_pcap(path: Path, connections: Sequence[Sequence[bytes]]) -> None:
    """Messages from the node to clients; as `write_conversations`."""
    write_conversations(path, [[(True, message) for message in messages] for messages in connections])


def write_conversations(path: Path, conversations: Sequence[Sequence[tuple[bool, bytes]]]) -> None:
    """Each message (whether it is the node's, octets) is a segment of its own, each connection a client's port."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, _RAW_IP))
        for number, messages in enumerate(conversations):
            sent = {True: 1, False: 1}
            for from_node, message in _segments(messages):
                ports = (PORT, 40000 + number) if from_node else (40000 + number, PORT)
                addresses = (_NODE, _CLIENT) if from_node else (_CLIENT, _NODE)
                sequence = (sent[from_node], sent[not from_node])
                tcp = struct.pack(">HHIIBBHHH", *ports, *sequence, 5 << 4, _PUSH_ACK, 65535, 0, 0)
                length = 20 + len(tcp) + len(message)
                ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, 6, 0, *addresses)
                file.write(struct.pack("<IIII", 1_700_000_000, 0, length, length) + ip + tcp + message)
                sent[from_node] += len(message)


def _segments(messages: Sequence[tuple[bool, bytes]]) -> Iterator[tuple[bool, bytes]]:
    for from_node, message in messages:
        for start in range(0, len(message), _LONGEST):
            yield from_node, message[start : start + _LONGEST]
