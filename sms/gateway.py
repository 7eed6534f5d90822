"""The ways out: what the outbox asks of whatever takes short messages on to subscribers. Pure.

`smpp` drives SMSCs, `webhook` an HTTP service, `file` appends to a file. The outbox has made durable that a part is
about to be submitted before it does so, and what came of it afterwards. So that no part stands there as submitted while
it only waits for its turn, a turn comes first: a `Slot`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, TypeAlias

Coding: TypeAlias = Literal["gsm7", "ucs2"]
"""GSM 7 bit default alphabet with its extension table, or UCS-2 (3GPP TS 23.038); surrogate pairs pass as they are."""

ReceiptState: TypeAlias = Literal["delivered", "failed", "expired"]


class Part(NamedTuple):
    """One short message of those that a text is cut into, or a whole text for a way out that cuts by itself."""

    to: str
    """The subscriber's number: E.164 digits without a plus."""
    text: str
    coding: Coding
    octets: bytes
    """The text as user data without a header: septets one an octet, or UTF-16BE."""
    reference: int = 0
    """The same in all parts of a text; 0 to 65,535. A way out that has 8 bits for it takes the low ones."""
    number: int = 1
    of: int = 1
    weight: int = 1
    """Short messages that it counts for in rates: more than one where a text goes whole."""


class Accepted(NamedTuple):
    """A part was taken."""

    smsc: str
    """Name of the way out that took it, as configured."""
    message_id: str
    """By which a receipt will name it; empty: no receipt will come."""

    @property
    def name(self) -> str:
        """What its receipt has as a name too; empty: no receipt will come."""
        return f"{self.smsc} {self.message_id}" if self.message_id else ""


class Receipt(NamedTuple):
    """What became of a part that was taken."""

    smsc: str
    message_id: str
    state: ReceiptState
    reason: str = ""
    """Short and of few kinds (it becomes a metric's label): an SMPP message state or error code."""

    @property
    def name(self) -> str:
        """The name of what it is about."""
        return f"{self.smsc} {self.message_id}"


class NotTakenError(Exception):
    """The part was not taken, and may be submitted again after so many seconds: no way out is there, or it is full."""

    def __init__(self, reason: str, after: float = 1.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.after = after


class RefusedError(Exception):
    """The part will never be taken: `reason` is short and of few kinds."""

    def __init__(self, smsc: str, reason: str) -> None:
        super().__init__(f"{smsc}: {reason}")
        self.smsc = smsc
        self.reason = reason


class UnansweredError(Exception):
    """The part was written to a way out, and no answer came: nobody knows whether it was taken."""

    def __init__(self, smsc: str, reason: str) -> None:
        super().__init__(f"{smsc}: {reason}")
        self.smsc = smsc
        self.reason = reason


OnReceipt: TypeAlias = Callable[[Receipt], None]


class Slot(Protocol):
    """Room for one part in window and rate; must be used or given back."""

    async def submit(self, part: Part) -> Accepted:
        """Writes the part at once, and waits for the answer.

        Raises NotTakenError, RefusedError, and UnansweredError; where it is cancelled, the part counts as unanswered if
        it was written.
        """

    def release(self) -> None:
        """Gives the room back, unused."""


class Gateway(Protocol):
    """A way out."""

    whole: bool
    """It takes texts whole, and does not want them cut."""

    async def start(self, on_receipt: OnReceipt) -> None:
        """Begins to connect, and returns at once. Receipts are handed to `on_receipt`, on the event loop."""

    def take(self) -> Slot | None:
        """Room for one part, if there is some now."""

    async def room(self) -> None:
        """Waits until `take` may give something. Raises NotTakenError where no way out is there, or it backs off."""

    def status(self) -> list[dict[str, object]]:
        """Each SMSC's name, state and counts, for people and metrics."""

    async def close(self) -> None:
        """Ends connections in good order (unbind), waiting a few seconds at most for answers. Does not raise."""


async def submit(gateway: Gateway, part: Part) -> Accepted:
    """Submits one part as soon as there is room. Raises what `room` and `Slot.submit` do."""
    while (slot := gateway.take()) is None:
        await gateway.room()
    return await slot.submit(part)
