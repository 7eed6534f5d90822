"""What a store of timers must do: the interface, and what passes through it. Pure.

A store holds one record a device, with a version; the messages that follow from changes; cursors that say how far each
node's journal and audit trail are in it; the shifts; and a stream of changes that every node follows. What belongs
together is changed together or not at all. `sqlite_store` is for one node, `redis_store` for many. Called by
`projection`, `sweep`, `follower` and `acts`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct, msgpack

from eir.audit_chain import Head
from eir.timers.grey import NEVER, Device, Shift, State, Timer

if TYPE_CHECKING:
    from eir.timers.queue import Queue

MessageKind = Literal["grey-granted", "black-expired", "black-attempt", "report-expired", "reminder"]
MessageKey: TypeAlias = tuple[str, int, str, int]
"""(kind, IMEI, IMSI, mark): what must never go out twice."""
Position: TypeAlias = bytes
"""How far a follower is in the stream of changes; only the store that gave it knows what it says."""


class StoreError(Exception):
    """The store cannot do it now: not there, not writable, or not sound. Try again."""


class StoreVersionError(StoreError):
    """The store was made by a version that this one does not understand. Trying again is of no use."""


class BehindError(StoreError):
    """The changes after a position are no longer all there: everything must be read anew."""


class LostError(StoreError):
    """The store has lost what it had said was in it. It is offered again: from `position`, which has gone back."""


class Message(Struct, frozen=True, array_like=True, gc=False):
    """Something that must go out: an SMS to a subscriber of a device, or a report upwards (without a subscriber).

    `mark` tells the timers of one device apart: it is the end of the timer before. `apart`: only so many seconds, or
    more, after the last one with this key, whose place it takes if that still waits; an earlier one that comes late is
    not put, as it cannot be told from one that comes twice. 0: never again, also when the one that was put has gone
    out or was withdrawn. A replayed event changes no device, so it does not bring back what was withdrawn.
    """

    kind: MessageKind
    imei: int
    imsi: str
    mark: int
    at: int
    msisdn: str = ""
    apart: int = 0

    @property
    def key(self) -> MessageKey:
        """What must never go out twice."""
        return self.kind, self.imei, self.imsi, self.mark


class Stored(NamedTuple):
    """A device as the store has it; `version` rises with every change, 0 where there is none."""

    device: Device
    version: int


class Change(Struct, frozen=True, gc=False):
    """A device's new state, with everything that follows from it.

    Written only where the store still has `version` (0: has nothing). `timer` is what `grey.timer` makes of the device
    by the rules in force. `withdrawn` messages are taken back if they have not gone out, after `messages` were put;
    what was never put is not kept from coming. Both are this device's. `tell`: whose memories lack it: nobody's, those
    of other nodes, or all.
    """

    device: Device
    version: int
    timer: Timer | None
    messages: tuple[Message, ...] = ()
    withdrawn: tuple[MessageKey, ...] = ()
    tell: Literal["none", "others", "all"] = "all"


class Memory(NamedTuple):
    """What a node's memory is to hold of a device: `start` 0: no timer; `deadline` `NEVER`: it does not run out."""

    imei: int
    start: int
    deadline: int


class Page(NamedTuple):
    """Some devices, in the store's order, and where to go on; `next` None: there are no more."""

    devices: list[Stored]
    next: bytes | None


class Counts(NamedTuple):
    """Devices by the state of their timer, and messages that wait."""

    running: int
    stopped: int
    """Frozen and lifted."""
    expired: int
    queued: int


class Store(Protocol):
    """A store of timers. Every method may raise StoreError, and then has changed nothing of what it was to change."""

    @property
    def queue(self) -> Queue:
        """The messages, as who sends them sees them."""

    async def open(self) -> None:
        """Connects, checks version and soundness, migrates what is older. Raises StoreVersionError."""

    async def close(self) -> None:
        """Lets go of everything. Does not raise."""

    async def load(self, imeis: Collection[int]) -> dict[int, Stored]:
        """The devices that the store knows, of these."""

    async def commit(
        self, changes: Sequence[Change], revision: int, source: str = "", position: int = 0
    ) -> frozenset[int]:
        """Writes changes and, in the same transaction, how far `source` is in the store (never backwards).

        Returns the IMEIs of changes that were not written, to be worked out and committed again: where another node has
        changed one of the devices meanwhile, all of the same part of the store; where the shifts have changed
        (`revision`), all. A part is written whole, its cursor included, or not at all, so that what was refused is not
        behind the cursor. Raises LostError, until `position` has been asked again.
        Of a device there is at most one change in a commit.
        """

    async def mark(self, source: str, position: int) -> None:
        """Says that everything of `source` up to a position is in, for all parts of the store. Raises LostError."""

    async def position(self, source: str) -> int:
        """Up to where everything of `source` is in all parts of the store, whatever they may have lost; 0 at first."""

    async def due(self, until: int, most: int) -> list[int]:
        """IMEIs of running timers with a deadline up to `until`, inclusive, the earliest first."""

    async def scan(self, after: bytes | None, most: int, first: int = 0, last: int = NEVER) -> Page:
        """Devices page by page (about `most` each): all of them, or those with a deadline from `first` to `last`.

        With a range, only running and expired timers: others have no deadline in the index. What changes meanwhile may
        be seen or not, or twice; what does not is seen once.
        """

    async def counts(self) -> Counts:
        """How many there are."""

    async def end_of_changes(self) -> Position:
        """Where the stream of changes ends now."""

    async def changes(self, after: Position, most: int, wait: float) -> tuple[list[Memory], Position]:
        """The changes after a position, and the position behind them; waits so many seconds for the first.

        Of one device they come in their order, and may leave out all but the last. Raises BehindError, also for a
        position that is another store's, and LostError: who has nothing to commit learns of a loss here.
        """

    async def trim_changes(self, before: Position) -> None:
        """Forgets changes that this node needs no more; a store for many nodes keeps them as long as it is set to."""

    async def shifts(self) -> tuple[int, tuple[Shift, ...]]:
        """(revision, shifts in force)."""

    async def put_shift(self, shift: Shift) -> None:
        """Adds a shift, once by its `id`; the revision rises if it was added."""

    async def remove_shift(self, identity: str) -> None:
        """Takes a shift away, for good: it cannot be added again, or at all. The revision rises if there was one."""

    async def setting(self, name: str) -> bytes | None:
        """A value that the control plane keeps in the store."""

    async def set_setting(self, name: str, value: bytes) -> None:
        """Keeps a value."""

    async def lease(self, name: str, holder: str, seconds: float) -> bool:
        """Whether `holder` may do a work that one node does, for so long from now; asked again, it goes on.

        Saves work, and is no fence: a holder that was held up may overlap with the next, so what they do must be the
        same done twice.
        """

    async def publish(self, head: Head) -> None:
        """Shows the other nodes where this node's audit trail stands."""

    async def heads(self) -> list[Head]:
        """Where the audit trails of all nodes stand."""

    async def queued(self, most: int) -> list[Message]:
        """The oldest messages that wait."""

    async def problems(self) -> list[str]:
        """What is not as it should be, in words; a look at everything, that takes its time."""


async def pages(store: Store, most: int, first: int = 0, last: int = NEVER) -> AsyncIterator[list[Stored]]:
    """All that `Store.scan` gives, about `most` devices at a time. Raises StoreError."""
    after = None
    while True:
        page = await store.scan(after, most, first, last)
        yield page.devices
        if page.next is None:
            return
        after = page.next


_encoder = msgpack.Encoder()
_decoder = msgpack.Decoder(Device)


def encode(device: Device) -> bytes:
    """A device's record."""
    return _encoder.encode(device)


def decode(record: bytes) -> Device:
    """The device in a record. Raises StoreError."""
    try:
        return _decoder.decode(record)
    except ValueError as error:
        raise StoreError(f"a record cannot be read: {error}") from error


def memory(device: Device, timer: Timer | None) -> Memory:
    """What a node's memory is to hold of a device."""
    if timer is None:
        return Memory(device.imei, 0, 0)
    return Memory(device.imei, timer.start, NEVER if timer.deadline is None else timer.deadline)


def state(timer: Timer | None) -> State | None:
    """How a device's timer stands."""
    return None if timer is None else timer.state
