"""The way out by SMPP 3.4: one SMSC or several, of which the first that can takes a part.

An SMSC can take a part while it is bound, does not back off and has room in its window. Who has a part waits for room
and rate, and not at all where no SMSC could take it later: that is NotTakenError. Connections are made again
after a growing time, and so are parts again submitted to an SMSC that had too many.

No number, text or password gets into logs or errors.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from eir.log import Log
from sms import smpp_pdu
from sms.gateway import Accepted, NotTakenError, OnReceipt, Part, Receipt, RefusedError, Slot, UnansweredError
from sms.rate import Bucket, Delay
from sms.settings import SmscSettings
from sms.slots import Waiters
from sms.smpp_pdu import Bind, Pdu, SubmitEncoder, UnsendableError
from sms.smpp_session import Outcome, Session, State

_THROTTLED: Final = frozenset({smpp_pdu.ESME_RTHROTTLED, smpp_pdu.ESME_RMSGQFUL})
_TEMPORARY: Final = frozenset({smpp_pdu.ESME_RSYSERR, smpp_pdu.ESME_RX_T_APPN})
_TEMPORARY_SECONDS: Final = 5.0
_LONGEST_PASSWORD: Final = 8
"""Octets; smpplib would cut a longer one."""
_SETTLED: Final = 30.0
"""Seconds for which a connection was bound, after which the next one is not delayed for those before it."""
_MOST_REASONS: Final = 200
"""An SMSC may put any number into its errors, and reasons become labels."""
_UNBIND_SECONDS: Final = 3.0
_COUNTS: Final = (
    *("submitted", "accepted", "refused", "unanswered", "throttled", "temporary", "late", "unexpected"),
    *("receipts", "intermediate", "message", "unreadable", "broken", "disconnects"),
)

log = Log(__name__)


class _Smsc:
    """One SMSC: its connections, and what is known of it."""

    def __init__(self, settings: SmscSettings, gateway: SmppGateway, rng: random.Random) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.bucket = Bucket(settings.rate)
        self.backing_off_until = 0.0
        self.reserved = 0
        """Room in the window that slots have."""
        self.kinds: tuple[Bind, ...] = (
            ("transceiver",) if settings.bind == "transceiver" else ("transmitter", "receiver")
        )
        self.sessions: dict[Bind, Session] = {}
        self._gateway = gateway
        self._encoder = SubmitEncoder(settings)
        self._delay = Delay(rng, *gateway.delays)
        self._reconnect = {kind: Delay(rng, *gateway.delays) for kind in self.kinds}
        self._reasons: set[str] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def sender(self) -> Session | None:
        """The connection that takes parts, where there is one."""
        return self.sessions.get(self.kinds[0])

    def is_bound(self) -> bool:
        """Whether it takes parts."""
        return self.sender is not None and self.sender.state is State.BOUND

    def usable(self, now: float) -> bool:
        """Whether it takes parts and is not to be left alone."""
        return self.is_bound() and now >= self.backing_off_until

    def free(self) -> int:
        """Parts that it has room for."""
        sender = self.sender
        if sender is None or not sender.has_room():
            return 0
        return self.settings.window - sender.outstanding - self.reserved

    def submit(self, part: Part, outcome: Outcome) -> None:
        """Writes a part, for which a token was taken already; there is room."""
        assert self.sender is not None
        sequence = self.sender.next_sequence()
        try:
            submit_sm = self._encoder.encode(part, sequence)
        except UnsendableError as error:
            self.counts["refused"] += 1
            outcome.set_exception(RefusedError(self.settings.name, str(error)))
            return
        self.bucket.take(part.weight - 1)
        self.sender.submit(sequence, submit_sm, outcome)

    async def keep_connected(self, kind: Bind) -> None:
        """Connects, and connects again, until it is cancelled."""
        name, delay = self.settings.name, self._reconnect[kind]
        while True:
            begin = self._loop.time()
            reason = await self._connect(kind)
            if self._loop.time() - begin >= _SETTLED:
                delay.reset()
            seconds = delay.next()
            self.counts["disconnects"] += 1
            log.warning("no SMSC", smsc=name, bind=kind, reason=reason, again_in=round(seconds, 1))
            await asyncio.sleep(seconds)

    async def _connect(self, kind: Bind) -> str:
        """Has a connection until it is lost, and says why it was."""
        settings = self.settings
        try:
            password = _first_line(settings.password_file) or settings.password
            if len(password) > _LONGEST_PASSWORD:
                return "password too long"
            context = _tls(settings) if settings.tls else None
            async with asyncio.timeout(settings.connect_timeout):
                _, session = await self._loop.create_connection(
                    lambda: Session(kind, settings, password, self), settings.host, settings.port, ssl=context
                )
        except TimeoutError:
            return "no connection in time"
        except (OSError, ValueError) as error:
            # Of ssl's errors and the system's only what has no address or path in it.
            return getattr(error, "verify_message", None) or getattr(error, "strerror", None) or type(error).__name__
        except Exception:
            # A fault of ours must not be the last connection that was tried.
            log.error("SMSC not connected", exc_info=True, smsc=settings.name)
            return "fault"
        self.sessions[kind] = session
        try:
            return await asyncio.shield(session.gone)
        finally:
            session.drop("closed")
            del self.sessions[kind]

    async def unbind(self) -> None:
        """Ends connections in good order."""
        await asyncio.gather(*(session.unbind(_UNBIND_SECONDS) for session in list(self.sessions.values())))

    def bound(self, session: Session) -> None:
        log.info("SMSC bound", smsc=self.settings.name)
        # The session becomes `sender` in this turn of the loop or the next.
        self._loop.call_soon(self.room)

    def answered(self, outcome: Outcome, pdu: Pdu) -> None:
        name, status = self.settings.name, pdu.status
        result: Accepted | Exception
        if status == smpp_pdu.ESME_ROK and pdu.command == smpp_pdu.SUBMIT_SM_RESP:
            self.counts["accepted"] += 1
            if self._loop.time() >= self.backing_off_until:
                self._delay.reset()
            for delay in self._reconnect.values():
                delay.reset()
            # An id that no receipt will name would be kept for nothing.
            named = smpp_pdu.submitted_id(pdu.body, self.settings.receipt_ids) if self.settings.receipts else ""
            result = Accepted(name, named)
        elif status in _THROTTLED:
            self.counts["throttled"] += 1
            self._back_off()
            result = NotTakenError(smpp_pdu.status_name(status), self._gateway.after())
        elif status in _TEMPORARY:
            self.counts["temporary"] += 1
            result = NotTakenError(smpp_pdu.status_name(status), _TEMPORARY_SECONDS)
        else:
            self.counts["refused"] += 1
            result = RefusedError(name, self._few(smpp_pdu.status_name(status) if status else "generic_nack"))
        _settle(outcome, result)

    def _back_off(self) -> None:
        """Leaves it alone for a time: a longer one each time that it has had too many since it last took one."""
        now = self._loop.time()
        if now >= self.backing_off_until:
            self.backing_off_until = now + self._delay.next()

    def unanswered(self, outcome: Outcome, reason: str) -> None:
        self.counts["unanswered"] += 1
        _settle(outcome, UnansweredError(self.settings.name, reason))

    def unwritten(self, outcome: Outcome) -> None:
        _settle(outcome, NotTakenError("connection lost before it was written", self._gateway.after()))

    def delivered(self, body: bytes) -> None:
        found = smpp_pdu.delivery(body, self.settings.receipt_ids)
        if found.kind != "receipt":
            self.counts[found.kind] += 1
            return
        self.counts["receipts"] += 1
        receipt = Receipt(self.settings.name, found.message_id, found.state, self._few(found.reason))
        self._gateway.hand_on(receipt)

    def room(self) -> None:
        self._gateway.pump()

    def _few(self, reason: str) -> str:
        """The reason, while there are not too many of them."""
        if reason and reason not in self._reasons:
            if len(self._reasons) >= _MOST_REASONS:
                return "other"
            self._reasons.add(reason)
        return reason

    def status(self, now: float) -> dict[str, object]:
        """For people and metrics."""
        bound = "backing-off" if now < self.backing_off_until else "bound"
        return {
            "name": self.settings.name,
            "state": bound if self.is_bound() else "connecting",
            "links": {
                kind: self.sessions[kind].state.name.lower() if kind in self.sessions else "connecting"
                for kind in self.kinds
            },
            **{name: self.counts[name] for name in _COUNTS},
            "window_in_use": self.sender.outstanding if self.sender else 0,
            "window": self.settings.window,
            "rate": self.settings.rate,
        }


def _settle(outcome: Outcome, result: Accepted | Exception) -> None:
    """Hands on what became of a part, unless whoever submitted it has gone."""
    if outcome.done():
        return
    if isinstance(result, Exception):
        outcome.set_exception(result)
    else:
        outcome.set_result(result)


def _first_line(name: str) -> str:
    """Of a file, each time anew: it may have been replaced."""
    return Path(name).read_text().partition("\n")[0].strip() if name else ""


def _tls(settings: SmscSettings) -> ssl.SSLContext:
    """Verifies certificate and host name. Raises OSError and ValueError."""
    context = ssl.create_default_context(cafile=settings.ca_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate_file:
        context.load_cert_chain(settings.certificate_file, settings.key_file or None)
    return context


class _SmscSlot:
    """Room at an SMSC."""

    def __init__(self, gateway: SmppGateway, smsc: _Smsc) -> None:
        self._gateway = gateway
        self._smsc = smsc

    async def submit(self, part: Part) -> Accepted:
        """Writes the part and waits for the answer. Raises NotTakenError, RefusedError and UnansweredError."""
        self._smsc.reserved -= 1
        loop = asyncio.get_running_loop()
        if self._gateway.closing or not self._smsc.usable(loop.time()):
            self._gateway.pump()
            raise NotTakenError("no SMSC", self._gateway.after())
        outcome: Outcome = loop.create_future()
        self._smsc.submit(part, outcome)
        return await outcome

    def release(self) -> None:
        """Gives the room back, unused."""
        self._smsc.reserved -= 1
        self._smsc.bucket.take(-1)
        self._gateway.pump()


class SmppGateway:
    """Submits parts to the first of the SMSCs that can take them."""

    whole = False

    def __init__(
        self,
        settings: Sequence[SmscSettings],
        rng: random.Random | None = None,
        delays: tuple[float, float] = (1.0, 60.0),
    ) -> None:
        """`delays`: the shortest and the longest before trying again, in seconds."""
        self.delays = delays
        self._settings = tuple(settings)
        self._rng = rng or random.Random()
        self._smscs: list[_Smsc] = []
        self._waiters = Waiters()
        self._tasks: list[asyncio.Task[None]] = []
        self.closing = False
        self._on_receipt: OnReceipt | None = None

    async def start(self, on_receipt: OnReceipt) -> None:
        """Begins to connect, and returns at once."""
        self._loop = asyncio.get_running_loop()
        self._on_receipt = on_receipt
        self._smscs = [_Smsc(settings, self, self._rng) for settings in self._settings]
        self._tasks = [asyncio.create_task(smsc.keep_connected(kind)) for smsc in self._smscs for kind in smsc.kinds]

    def take(self) -> Slot | None:
        """Room at the first SMSC that has some, if there is one now."""
        now = self._loop.time()
        for smsc in self._usable(now):
            if smsc.free() > 0:
                # It has its turn all the same: a rate is no reason to go to another SMSC.
                if smsc.bucket.delay(now):
                    return None
                smsc.bucket.take(1)
                smsc.reserved += 1
                return _SmscSlot(self, smsc)
        return None

    def _usable(self, now: float) -> list[_Smsc]:
        return [] if self.closing else [smsc for smsc in self._smscs if smsc.usable(now)]

    async def room(self) -> None:
        """Waits until `take` may give something. Raises NotTakenError where there is no SMSC, or all back off."""
        now = self._loop.time()
        usable = self._usable(now)
        if not usable:
            raise NotTakenError("closed" if self.closing else "no SMSC", self.after())
        first = next((smsc for smsc in usable if smsc.free() > 0), None)
        delay = first.bucket.delay(now) if first is not None else 0.0
        if first is None or delay:
            await self._waiters.wait(delay)

    def pump(self) -> None:
        """Wakes those who wait, as far as there is room. For the SMSCs, which call it when something has changed."""
        usable = self._usable(self._loop.time())
        # Where there is nothing to wait for, all are to know.
        self._waiters.wake(sum(max(smsc.free(), 0) for smsc in usable) if usable else 1 << 30)

    def after(self) -> float:
        """Seconds after which an SMSC may take parts again."""
        now = self._loop.time()
        waits = [max(0.1, smsc.backing_off_until - now) for smsc in self._smscs if smsc.is_bound()]
        return min(waits, default=1.0)

    def hand_on(self, receipt: Receipt) -> None:
        """Hands on a receipt. For the SMSCs."""
        assert self._on_receipt is not None
        try:
            self._on_receipt(receipt)
        except Exception:
            # The SMSC did nothing wrong: its connection stays.
            log.error("receipt not taken", exc_info=True, smsc=receipt.smsc)

    def status(self) -> list[dict[str, object]]:
        """Each SMSC's name, state and counts."""
        now = self._loop.time() if self._smscs else 0.0
        return [smsc.status(now) for smsc in self._smscs]

    async def close(self) -> None:
        """Unbinds; parts that are not submitted yet are not taken."""
        self.closing = True
        if not self._smscs:
            return
        self.pump()
        await asyncio.gather(*(smsc.unbind() for smsc in self._smscs), return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
