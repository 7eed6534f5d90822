"""One SMPP connection: bind, submit_sm and their answers, enquire_link, deliver_sm, unbind. On the event loop.

It knows of every part whether it was written and whether it was answered, and says so to its owner exactly once. What
the SMSC writes may be anything: at what is no SMPP the connection is dropped, and no exception leaves.

Called by `smpp`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from enum import Enum
from typing import Final, Protocol, cast

from eir.log import Log
from sms import smpp_pdu
from sms.gateway import Accepted
from sms.settings import SmscSettings
from sms.smpp_pdu import Bind, Frames, Pdu, PduError

_HELD_BACK: Final = 64 << 10
"""Octets that the system has not taken yet, above which no part is written."""
_UNREAD: Final = 1 << 20
"""Octets of the same, our answers included, above which the SMSC counts as gone: it asks and does not read."""
_LATE: Final = 10_000
"""Parts whose answers are recognised after their time."""
_LAST_SEQUENCE: Final = 0x7FFF_FFFF

log = Log(__name__)

Outcome = asyncio.Future[Accepted]


class State(Enum):
    """Of a connection."""

    BINDING = 1
    BOUND = 2
    CLOSED = 3


class Owner(Protocol):
    """Who is told. None of these may raise."""

    counts: Counter[str]

    def bound(self, session: Session) -> None:
        """Parts may be submitted."""

    def answered(self, outcome: Outcome, pdu: Pdu) -> None:
        """A submit_sm_resp or generic_nack for a part."""

    def unanswered(self, outcome: Outcome, reason: str) -> None:
        """A part was written, and there will be no answer."""

    def unwritten(self, outcome: Outcome) -> None:
        """A part was not written."""

    def delivered(self, body: bytes) -> None:
        """A deliver_sm. The only one that may raise, PduError."""

    def room(self) -> None:
        """There may be room for parts, or none any more."""


class Session(asyncio.Protocol):
    """One connection, from its being made to its being lost; `gone` then has the reason."""

    def __init__(self, kind: Bind, settings: SmscSettings, password: str, owner: Owner) -> None:
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[str] = self._loop.create_future()
        self.state = State.BINDING
        self._kind = kind
        self._settings = settings
        self._password = password
        self._owner = owner
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._sequence = 0
        self._pending: dict[int, tuple[Outcome, float]] = {}
        """Parts by sequence number, with when their answer is due; the oldest first."""
        self._unwritten: dict[int, bytes] = {}
        self._late: OrderedDict[int, None] = OrderedDict()
        self._paused = False
        self._flushing = False
        self._reason = ""
        self._heard = self._asked = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def outstanding(self) -> int:
        """Parts that have no answer yet."""
        return len(self._pending)

    def has_room(self) -> bool:
        """Whether a part may be submitted now."""
        return self.state is State.BOUND and not self._paused and len(self._pending) < self._settings.window

    def next_sequence(self) -> int:
        """A sequence number for a part."""
        self._sequence = self._sequence % _LAST_SEQUENCE + 1
        return self._sequence

    def submit(self, sequence: int, submit_sm: bytes, outcome: Outcome) -> None:
        """Writes a part before the loop's next turn is over. Only while there is room."""
        self._pending[sequence] = (outcome, self._loop.time() + self._settings.response_timeout)
        self._unwritten[sequence] = submit_sm
        if not self._flushing:
            self._flushing = True
            # All parts of one turn in one write.
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        assert self._transport is not None
        given_up = [number for number in self._unwritten if self._pending[number][0].cancelled()]
        for sequence in given_up:
            # Whoever submitted it does not wait any more: it need not be written at all.
            del self._pending[sequence], self._unwritten[sequence]
        while self._unwritten and not self._paused and self.state is State.BOUND:
            taken, octets = [], 0
            for sequence, submit_sm in self._unwritten.items():
                taken.append(sequence)
                octets += len(submit_sm)
                if octets >= _HELD_BACK:
                    break
            self._owner.counts["submitted"] += len(taken)
            self._transport.write(b"".join(map(self._unwritten.pop, taken)))
        if given_up:
            self._owner.room()

    def _send(self, command: int, sequence: int, body: bytes = b"", status: int = smpp_pdu.ESME_ROK) -> None:
        assert self._transport is not None
        self._transport.write(smpp_pdu.pdu(command, sequence, body, status))
        if self._transport.get_write_buffer_size() > _UNREAD:
            self.drop("it does not read")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Binds."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_HELD_BACK)
        self._heard = self._loop.time()
        self._transport.write(smpp_pdu.bind(self._kind, self._settings, self._password, self.next_sequence()))
        self._look()

    def data_received(self, data: bytes) -> None:
        """Takes what the SMSC wrote."""
        if self.state is State.CLOSED:
            return
        try:
            for pdu in self._frames.feed(data):
                self._heard = self._loop.time()
                self._asked = 0.0
                self._take(pdu)
                if cast(State, self.state) is State.CLOSED:
                    return
        except PduError as error:
            self._owner.counts["broken"] += 1
            self.drop(str(error))
        except Exception:
            # A fault of ours, which one PDU could bring out again and again.
            log.error("SMPP not handled", exc_info=True, smsc=self._settings.name)
            self.drop("fault")
        finally:
            self._owner.room()

    def _take(self, pdu: Pdu) -> None:
        match pdu.command:
            case smpp_pdu.SUBMIT_SM_RESP | smpp_pdu.GENERIC_NACK if pdu.sequence in self._pending:
                outcome, _ = self._pending.pop(pdu.sequence)
                if self._unwritten.pop(pdu.sequence, None) is None:
                    self._owner.answered(outcome, pdu)
                else:
                    self._owner.unwritten(outcome)
                    raise PduError("answer to what was not written")
            case smpp_pdu.OUTBIND | smpp_pdu.ALERT_NOTIFICATION:
                pass
            case smpp_pdu.ENQUIRE_LINK:
                self._send(smpp_pdu.answer(pdu.command), pdu.sequence)
            case smpp_pdu.UNBIND:
                self._send(smpp_pdu.UNBIND_RESP, pdu.sequence)
                self._end("unbound by the SMSC")
            case _ if self.state is State.BINDING:
                self._take_bind_answer(pdu)
            case smpp_pdu.DELIVER_SM:
                self._owner.delivered(pdu.body)
                # With the empty message_id that the specification wants.
                self._send(smpp_pdu.answer(pdu.command), pdu.sequence, b"\0")
            case smpp_pdu.UNBIND_RESP:
                self._end("unbound")
            case smpp_pdu.DATA_SM:
                self._send(smpp_pdu.answer(pdu.command), pdu.sequence, b"\0", smpp_pdu.ESME_RINVCMDID)
            case command if not smpp_pdu.is_answer(command):
                self._send(smpp_pdu.GENERIC_NACK, pdu.sequence, status=smpp_pdu.ESME_RINVCMDID)
            case smpp_pdu.SUBMIT_SM_RESP | smpp_pdu.GENERIC_NACK if pdu.sequence in self._late:
                del self._late[pdu.sequence]
                self._owner.counts["late"] += 1
            case smpp_pdu.SUBMIT_SM_RESP | smpp_pdu.GENERIC_NACK:
                self._owner.counts["unexpected"] += 1
            case _:
                # An enquire_link_resp, or an answer to what was never asked.
                pass

    def _take_bind_answer(self, pdu: Pdu) -> None:
        if pdu.command not in (smpp_pdu.bind_answer(self._kind), smpp_pdu.GENERIC_NACK):
            raise PduError("something else before the answer to the bind")
        if pdu.status != smpp_pdu.ESME_ROK or pdu.command == smpp_pdu.GENERIC_NACK:
            self.drop(f"bind refused: {smpp_pdu.status_name(pdu.status)}")
            return
        self.state = State.BOUND
        self._owner.bound(self)

    def _look(self) -> None:
        """What time brings: answers that are due, silence."""
        settings, now = self._settings, self._loop.time()
        if self.state is State.BINDING and now - self._heard >= settings.response_timeout:
            self.drop("no answer to the bind")
        elif self.state is State.BOUND:
            self._give_up(now)
            if self._asked:
                if now - self._asked >= settings.response_timeout:
                    self.drop("no answer to enquire_link")
            elif now - self._heard >= settings.enquire_link:
                self._asked = now
                self._send(smpp_pdu.ENQUIRE_LINK, self.next_sequence())
        if self.state is not State.CLOSED:
            each = min(1.0, settings.response_timeout / 8, settings.enquire_link / 8)
            self._timer = self._loop.call_later(each, self._look)

    def _give_up(self, now: float) -> None:
        """Ends the wait for answers that are overdue."""
        overdue = []
        for sequence, (_, due) in self._pending.items():
            if due > now:
                break
            overdue.append(sequence)
        for sequence in overdue:
            outcome, _ = self._pending.pop(sequence)
            if self._unwritten.pop(sequence, None) is not None:
                self._owner.unwritten(outcome)
                continue
            self._late[sequence] = None
            if len(self._late) > _LATE:
                self._late.popitem(last=False)
            self._owner.unanswered(outcome, "no answer")
        if overdue:
            self._owner.room()

    def pause_writing(self) -> None:
        """The SMSC reads more slowly than parts come."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._paused = False
        self._flush()
        self._owner.room()

    def drop(self, reason: str) -> None:
        """Ends the connection at once."""
        self._reason = self._reason or reason
        self.state = State.CLOSED
        if self._transport is not None:
            self._transport.abort()

    def _end(self, reason: str) -> None:
        """Ends the connection once what was written has gone out."""
        self._reason = self._reason or reason
        self.state = State.CLOSED
        if self._transport is not None:
            self._transport.close()
            self._timer_off()
            self._timer = self._loop.call_later(1.0, self._transport.abort)

    async def unbind(self, within: float) -> None:
        """Waits for answers that are outstanding, unbinds, and ends the connection; in so many seconds at most."""
        until = self._loop.time() + within
        try:
            while self.state is State.BOUND and self._pending and self._loop.time() < until - 1.0:
                await asyncio.sleep(0.01)
            if self.state is State.BOUND:
                self._send(smpp_pdu.UNBIND, self.next_sequence())
                async with asyncio.timeout_at(until):
                    await asyncio.shield(self.gone)
        except TimeoutError:
            pass
        finally:
            self.drop("closed")

    def connection_lost(self, error: Exception | None) -> None:
        """Says what has become of parts that have no answer."""
        self._timer_off()
        self._reason = self._reason or (type(error).__name__ if error else "closed by the SMSC")
        self.state = State.CLOSED
        pending, self._pending = self._pending, {}
        for sequence, (outcome, _) in pending.items():
            if sequence in self._unwritten:
                self._owner.unwritten(outcome)
            else:
                self._owner.unanswered(outcome, "connection lost")
        self._unwritten.clear()
        if not self.gone.done():
            self.gone.set_result(self._reason)
        self._owner.room()

    def _timer_off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
