"""What the outbox knows of a message between two steps, and how that changes: pure.

In the store it is octets, which `eir.timers.queue` compares and moves. A message is one or two texts, each cut into
parts; all parts are kept in one row, in the order in which they are submitted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

from msgspec import Struct, msgpack, structs

from eir.timers.queue import Place, Step
from eir.timers.store import Message
from sms.gateway import Receipt

State: TypeAlias = Literal["queued", "sent", "accepted", "delivered", "failed", "expired", "cancelled"]
PartState: TypeAlias = Literal["", "sent", "accepted", "delivered", "failed", "expired", "unanswered"]
"""Empty: not submitted yet. Sent: about to be submitted, or submitted, and not answered yet."""

_FINAL: Final = frozenset({"delivered", "failed", "expired", "unanswered"})


class PartProgress(Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One part: how it stands, and under which name a receipt will come."""

    state: PartState = ""
    name: str = ""


class Progress(Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A message: how it stands since when, who sends it, and its parts.

    `texts` and `to` are there only while parts are left to submit: they are personal data, and a crash between two
    parts must go on with the same words, also if the device's deadline has changed meanwhile.
    """

    state: State
    at: int
    sender: str = ""
    reason: str = ""
    reference: int = 0
    parts: tuple[PartProgress, ...] = ()
    to: str = ""
    texts: tuple[str, ...] = ()
    tries: int = 0
    counted: int = 0
    """The local day, since 1970, on which it was counted as one of the subscriber's."""
    retried: int = 0
    """How often people have had it sent once more."""
    since: int = 0
    """When it began to be worth sending, if not when it was put: it was retried then."""

    @property
    def begun(self) -> bool:
        """Whether a part has left, so that the rest is to follow in the same words."""
        return any(part.state for part in self.parts)

    @property
    def next_part(self) -> int | None:
        """The first part that is still to be submitted."""
        return next((number for number, part in enumerate(self.parts) if not part.state), None)

    @property
    def place(self) -> Place:
        """Where a message with this progress belongs in the store."""
        if self.state in ("queued", "sent"):
            return "waiting" if self.state == "queued" else "sending"
        return "over"


_encoder = msgpack.Encoder()
_decoder = msgpack.Decoder(Progress)


def encode(progress: Progress) -> bytes:
    """Progress as the store keeps it."""
    return _encoder.encode(progress)


def decode(octets: bytes) -> Progress | None:
    """Progress from the store; None where there is none, or none that is understood."""
    try:
        return _decoder.decode(octets) if octets else None
    except ValueError:
        return None


def step(
    message: Message, come_from: Place, before: bytes, progress: Progress, now: int, names: Iterable[str] = ()
) -> Step:
    """The step that makes progress what it is now; a message that waits is looked at again at `progress.at`."""
    place = progress.place
    due = progress.at if place == "waiting" else now
    return Step(message.key, come_from, before, place, encode(progress), due, tuple(names))


def with_part(progress: Progress, number: int, state: PartState, name: str = "") -> Progress:
    """The same with one part as it stands now."""
    parts = list(progress.parts)
    parts[number] = PartProgress(state, name)
    return structs.replace(progress, parts=tuple(parts))


def submitted(progress: Progress, at: int) -> Progress:
    """After the last part was answered: over, without the words."""
    lost = sum(part.state == "unanswered" for part in progress.parts)
    ended = structs.replace(progress, state="accepted", at=at, to="", texts=(), sender="")
    if lost:
        return structs.replace(ended, state="failed", reason="unanswered")
    return concluded(ended, at)


def abandoned(progress: Progress, state: State, reason: str, at: int) -> Progress:
    """Over, with parts that were never submitted."""
    return structs.replace(progress, state=state, reason=reason, at=at, to="", texts=(), sender="")


def received(progress: Progress, receipts: Iterable[Receipt], at: int) -> Progress:
    """With what receipts say."""
    for receipt in receipts:
        name = receipt.name
        for number, part in enumerate(progress.parts):
            # A receipt does not take back what another has said.
            if part.name == name and part.state == "accepted":
                progress = with_part(progress, number, receipt.state, name)
                if receipt.state != "delivered":
                    reason = f"{receipt.smsc}:{receipt.reason or receipt.state}"
                    progress = structs.replace(progress, reason=reason)
    return concluded(progress, at)


def merged(progress: Progress, other: Progress) -> Progress:
    """With what receipts have said of the same parts in another version of it."""
    for number, part in enumerate(other.parts):
        same = PartProgress("accepted", part.name)
        if part.name and part.state in _FINAL and progress.parts[number : number + 1] == (same,):
            progress = with_part(progress, number, part.state, part.name)
    return concluded(progress, progress.at)


def concluded(progress: Progress, at: int) -> Progress:
    """Delivered when all parts are, failed or expired as soon as all are known and one is."""
    states = {part.state for part in progress.parts}
    if progress.state != "accepted" or not states <= _FINAL:
        return progress
    for state in ("failed", "expired", "delivered"):
        if state in states:
            return structs.replace(progress, state=state, at=at)
    return progress
