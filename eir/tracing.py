"""Live traces of the running node: what the data plane copied and what the control plane answered, in one order.

Called by the control socket for `eir trace`, and by the Diameter server for each message that it sees. A trace that
nobody asks for ends by itself. Who traced is put on the record, not whom.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eir import _core
from eir.diameter import trace
from eir.diameter.message import peek_header

_MOST: Final = 1000
"""Messages of one trace that wait to be taken."""
_LEASE: Final = 10.0
"""Seconds after which a trace ends that nobody has asked for."""


@dataclass(slots=True)
class _Trace:
    peer: str | None
    imei: str | None
    imsi: str | None
    asked: float
    found: deque[dict[str, Any]] = field(default_factory=deque)
    left_out: int = 0

    def wants(self, peer: str, request: bytes) -> bool:
        """Whether it is a message that was asked for; `peer` is empty where it is not known yet."""
        # A peer that is not let in is looked for by what it calls itself.
        if self.peer is not None and self.peer.lower() != (peer or trace.sender_of(request) or "").lower():
            return False
        if self.imei is not None and (trace.device_of(request) or "")[:14] != self.imei:
            return False
        return self.imsi is None or trace.subscriber_of(request) == self.imsi


class Tracing:
    """The traces of one node. `record` puts on the record who traces; `clock` goes on, in seconds."""

    def __init__(
        self,
        node: _core.Node,
        record: Callable[..., Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._record = record
        self._clock = clock
        self._traces: dict[int, _Trace] = {}

    def commands(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        """The commands of the control socket."""
        return {"trace-start": self._start, "trace-take": self._take, "trace-stop": self._stop}

    def expire(self) -> None:
        """Ends the traces that nobody has asked for lately."""
        now = self._clock()
        for number in [number for number, one in self._traces.items() if now - one.asked > _LEASE]:
            self._end(number)

    def observe(self, at: int, connection: int, peer: str, request: bytes, answer: bytes | None, outcome: str) -> None:
        """Notes a message that the control plane has answered, or not, where somebody wants it.

        `at` is when it came, in nanoseconds since 1970.
        """
        for one in self._traces.values():
            if not one.wants(peer, request):
                continue
            if len(one.found) >= _MOST:
                one.left_out += 1
                continue
            one.found.append(_shown(at, connection, peer, request, answer, None, outcome))

    async def _start(self, ask: Mapping[str, Any]) -> int:
        wanted = {name: str(ask[name]) for name in ("peer", "imei", "imsi") if ask.get(name)}
        if not wanted:
            raise ValueError("a trace needs a device, a subscriber or a peer")
        imei = _core.imei_key(wanted["imei"]) if "imei" in wanted else None
        peer, imsi = wanted.get("peer"), wanted.get("imsi")
        self.expire()
        # On the record first: nobody's messages are looked at by somebody who is not.
        await self._record({"agent": ask.get("agent")}, kind="trace", by=sorted(wanted))
        number = self._node.trace_start(int(imei) if imei is not None else None, imsi, peer, _MOST)
        self._traces[number] = _Trace(peer, imei, imsi, self._clock())
        return number

    def _take(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        number = int(ask["trace"])
        one = self._traces.get(number)
        if one is None:
            raise ValueError("there is no such trace, or it has ended because nobody asked for it")
        one.asked = self._clock()
        copied, left_out = self._node.trace_take(number)
        found = [_shown(*traced) for traced in copied] + list(one.found)
        left_out += one.left_out
        one.found.clear()
        one.left_out = 0
        return {"messages": sorted(found, key=lambda shown: int(shown["at"])), "left_out": left_out}

    def _stop(self, ask: Mapping[str, Any]) -> None:
        self._end(int(ask["trace"]))

    def _end(self, number: int) -> None:
        if self._traces.pop(number, None) is not None:
            self._node.trace_stop(number)


def _shown(
    at: int, connection: int, peer: str, request: bytes, answer: bytes | None, rule: str | None, outcome: str
) -> dict[str, Any]:
    header = peek_header(request)
    return {
        "at": at,
        "connection": connection,
        "peer": peer,
        "outcome": outcome,
        "rule": rule,
        "command": header.command if header else None,
        "request": trace.show(request),
        "answer": trace.show(answer) if answer else [],
    }
