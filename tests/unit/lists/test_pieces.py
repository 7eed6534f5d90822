"""Files in pieces: nothing is lost between them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from eir.lists.pieces import PIECE, pieces, write

OCTETS = bytes(range(251)) * (2 * PIECE // 251 + 1)


@pytest.mark.parametrize("most", [None, 0, 1, PIECE, PIECE + 1, len(OCTETS), len(OCTETS) + 1])
def test_an_open_file_comes_in_pieces(most: int | None) -> None:
    found = list(pieces(io.BytesIO(OCTETS), most))
    assert b"".join(found) == OCTETS[:most]
    assert all(len(piece) <= PIECE for piece in found)


@pytest.mark.parametrize("octets", [b"", b"x", OCTETS])
def test_a_file_is_written_whole(tmp_path: Path, octets: bytes) -> None:
    (tmp_path / "file").write_bytes(b"longer than what comes next")
    write(tmp_path / "file", octets)
    assert (tmp_path / "file").read_bytes() == octets
