"""Messages as a capture file, as if they had been seen on a network."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

PORT = 3868
_RAW_IP = 101
_NODE, _CLIENT = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
_PUSH_ACK = 0x18


def write_pcap(path: Path, connections: Sequence[Sequence[bytes]]) -> None:
    """Each message from the node to a client is a segment of its own; each connection has its own client's port."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, _RAW_IP))
        for number, messages in enumerate(connections):
            sequence = 1
            for message in messages:
                tcp = struct.pack(">HHIIBBHHH", PORT, 40000 + number, sequence, 1, 5 << 4, _PUSH_ACK, 65535, 0, 0)
                length = 20 + len(tcp) + len(message)
                ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, 6, 0, _NODE, _CLIENT)
                file.write(struct.pack("<IIII", 1_700_000_000, 0, length, length) + ip + tcp + message)
                sequence += len(message)
