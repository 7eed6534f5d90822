"""Peers of other people that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from support.freediameter import FreeDiameter, Target
from support.node import NodeProcess
from support.otp_diameter import OtpDiameter
from support.recorder import Recorder

Record = Callable[[NodeProcess], Recorder]
"""Makes a recorder in front of a node's first listener."""


class MakeFreeDiameter(Protocol):
    """Makes a freeDiameter, running, with the arguments of its class but for the directory."""

    def __call__(self, name: str, *targets: Target, **how: Any) -> FreeDiameter: ...


@pytest.fixture
def record() -> Iterator[Record]:
    with ExitStack() as stack:
        yield lambda node: stack.enter_context(Recorder(node.listening[0]))


@pytest.fixture
def make_freediameter(tmp_path: Path) -> Iterator[MakeFreeDiameter]:
    with ExitStack() as stack:

        def make(name: str, *targets: Target, **how: Any) -> FreeDiameter:
            made = FreeDiameter(tmp_path / name, name, *targets, **how)
            stack.callback(made.end)
            made.start()
            return made

        yield make


class MakeOtpDiameter(Protocol):
    """Makes an MME on OTP, running, with the arguments of its class but for the directory."""

    def __call__(self, name: str, asks: str, to: tuple[str, int] | None = None, **how: Any) -> OtpDiameter: ...


@pytest.fixture
def make_otp(tmp_path: Path) -> Iterator[MakeOtpDiameter]:
    with ExitStack() as stack:

        def make(name: str, asks: str, to: tuple[str, int] | None = None, **how: Any) -> OtpDiameter:
            made = OtpDiameter(tmp_path / name, name, asks, to, **how)
            stack.callback(made.end)
            made.start()
            return made

        yield make
