"""What every test of `eir.diameter` needs: the vectors, this node's identity, and messages to send it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from eir.diameter.answer import Identity

VECTORS = Path(__file__).parents[2] / "vectors" / "diameter"


@pytest.fixture
def vector() -> Callable[[str], bytes]:
    """Reads a vector by the name of its file, without `.hex`."""

    def read(name: str) -> bytes:
        return bytes.fromhex(re.sub(r"#.*", "", (VECTORS / f"{name}.hex").read_text()))

    return read


@pytest.fixture
def identity() -> Identity:
    """The node that the answers among the vectors are from."""
    return Identity("eir1.example.org", "example.org", origin_state_id=5)
