"""`eir.tracing`: two sources in one order, bounded, ended when nobody asks."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from eir import _core
from eir.tracing import Tracing
from support.diameter import cer, dwr, ecr_avps, ecr_of, terminal

IMEI, IMSI = "35209900176148", "001010123456789"
REQUEST = ecr_of(ecr_avps("mme.test", terminal(IMEI + "1"), IMSI))


class FakeNode:
    """A data plane that has copied one message."""

    def __init__(self) -> None:
        self.started: list[tuple[Any, ...]] = []
        self.stopped: list[int] = []

    def trace_start(self, *wanted: Any) -> int:
        self.started.append(wanted)
        return len(self.started)

    def trace_take(self, number: int) -> tuple[list[Any], int]:
        return [(1, 7, "mme.test", REQUEST, b"", "white", "answered")], 2

    def trace_stop(self, number: int) -> bool:
        self.stopped.append(number)
        return True


class Desk:
    """A tracing with a clock and a record of its own."""

    def __init__(self) -> None:
        self.node, self.now = FakeNode(), 0.0
        self.recorded: list[dict[str, Any]] = []
        self.tracing = Tracing(cast("_core.Node", self.node), self.record, lambda: self.now)

    async def record(self, ask: dict[str, Any], **entry: Any) -> None:
        self.recorded.append({**ask, **entry})

    def ask(self, command: str, **arguments: Any) -> Any:
        told = self.tracing.commands()[command](arguments)
        return asyncio.run(told) if asyncio.iscoroutine(told) else told


def test_what_both_planes_have_seen_comes_in_order() -> None:
    desk = Desk()
    number = desk.ask("trace-start", imei=IMEI, imsi=IMSI, peer="MME.test", agent="tester")
    assert desk.node.started == [(int(IMEI), IMSI, "MME.test", 1000)]
    assert desk.recorded == [{"agent": "tester", "kind": "trace", "by": ["imei", "imsi", "peer"]}]
    desk.tracing.observe(2, 7, "mme.test", REQUEST, dwr("a"), "answered")
    desk.tracing.observe(3, 8, "other.test", REQUEST, None, "answered")
    desk.tracing.observe(4, 9, "mme.test", dwr("mme.test"), None, "answered")
    told = desk.ask("trace-take", trace=number)
    assert [(one["connection"], one["rule"]) for one in told["messages"]] == [(7, "white"), (7, None)]
    assert told["left_out"] == 2
    assert IMSI not in str(told)
    assert len(desk.ask("trace-take", trace=number)["messages"]) == 1, "each is told once"
    desk.ask("trace-stop", trace=number)
    desk.ask("trace-stop", trace=number)
    assert desk.node.stopped == [number]
    with pytest.raises(ValueError, match="no such trace"):
        desk.ask("trace-take", trace=number)


def test_who_is_not_known_yet_is_found_by_its_name() -> None:
    desk = Desk()
    number = desk.ask("trace-start", peer="MME.test")
    desk.tracing.observe(2, 7, "", cer("mme.test"), dwr("a"), "answered")
    desk.tracing.observe(3, 8, "", cer("other.test"), dwr("a"), "answered")
    desk.tracing.observe(0, 9, "", b"", None, "handed up")
    told = desk.ask("trace-take", trace=number)
    assert [one["connection"] for one in told["messages"]] == [7, 7]


def test_a_trace_that_nobody_asks_for_ends() -> None:
    desk = Desk()
    number = desk.ask("trace-start", peer="mme.test")
    for _ in range(3):
        desk.now += 9
        desk.tracing.expire()
        desk.ask("trace-take", trace=number)
    desk.now += 11
    desk.tracing.expire()
    assert desk.node.stopped == [number]


def test_what_waits_is_bounded() -> None:
    desk = Desk()
    number = desk.ask("trace-start", peer="mme.test")
    for _ in range(1500):
        desk.tracing.observe(2, 7, "mme.test", REQUEST, None, "answered")
    told = desk.ask("trace-take", trace=number)
    assert (len(told["messages"]), told["left_out"]) == (1001, 502)


@pytest.mark.parametrize("wanted", [{}, {"peer": ""}, {"imei": "12"}, {"imei": IMEI + "9"}])
def test_what_is_no_wish_is_refused(wanted: dict[str, str]) -> None:
    desk = Desk()
    with pytest.raises(ValueError, match=r"."):
        desk.ask("trace-start", **wanted)
    assert not desk.node.started
