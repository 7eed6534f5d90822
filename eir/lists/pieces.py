"""Large files read and written in small pieces.

A kernel that does not preempt itself copies what one call asks for in one go, and every other thread of that processor
waits until it is done, those that answer too. Called by whatever lays down the files of a package, or checks them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

PIECE: Final = 1 << 16
"""Most octets of a call: some hundred microseconds, where the memory for them must be found first."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


def pieces(source: _Readable, most: int | None = None) -> Iterator[bytes]:
    """What is left of an open file, or its first `most` octets. Raises OSError."""
    left = most
    while left != 0 and (piece := source.read(PIECE if left is None else min(left, PIECE))):
        if left is not None:
            left -= len(piece)
        yield piece


def write(path: Path, octets: bytes) -> None:
    """Makes a file of these. Raises OSError."""
    view = memoryview(octets)
    with path.open("wb", buffering=0) as file:
        while view:
            view = view[file.write(view[:PIECE]) :]
