"""How the store in Redis is laid out: shards, keys, and what values look like. Pure.

Called by `redis_store`; docs/formats.md has the same in words. What an operator may look for by hand is text; versions
and changes, of which there are many, are octets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from struct import Struct as Packer
from typing import Final, NamedTuple, TypeAlias
from zlib import crc32

from msgspec import convert, msgpack

from eir.timers.grey import NEVER, Timer
from eir.timers.queue import REPORTS_DUE
from eir.timers.store import (
    BehindError,
    Change,
    Memory,
    Message,
    MessageKey,
    MessageKind,
    Position,
    Stored,
    StoreError,
    decode,
    encode,
    memory,
)

SCHEMA: Final = "1"
SHARDS: Final = 32
COMMON: Final = SHARDS
"""The part that is no shard: leases, settings, heads."""
TAGS: Final = (*(f"s{number:02d}" for number in range(SHARDS)), "all")

_FIBONACCI: Final = 0x9E37_79B9_7F4A_7C15
_VERSION: Final = Packer(">Q")
_MEMORY: Final = Packer(">QII")
_HEAD: Final = 19
"""Octets before a device's record: version, and the part of its index member that is not the IMEI."""

_KINDS: Final[dict[str, MessageKind]] = {
    "g": "grey-granted",
    "e": "black-expired",
    "a": "black-attempt",
    "r": "report-expired",
    "d": "reminder",
}
OF_A_DAY: Final = "d"
"""The letter of messages that are of one day."""
_LETTERS: Final[dict[str, str]] = {kind: letter for letter, kind in _KINDS.items()}

Id: TypeAlias = tuple[int, int]
"""An entry of a stream: milliseconds and number."""
START: Final[Id] = (0, 0)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a shard."""

    meta: str
    cursors: str
    devices: str
    index: str
    messages: str
    queue: str
    changes: str
    shifts: str
    progress: str
    sending: str
    over: str
    told: str
    receipt: str


class Followed(NamedTuple):
    """How far a shard's stream was followed: the last entry that was taken whole, and how much of the next."""

    last: Id
    of_next: int


def keys(prefix: str, shard: int) -> Keys:
    """The keys of a shard."""
    return Keys(*(f"{prefix}:{{{TAGS[shard]}}}:{name}" for name in Keys.__slots__))


def common_key(prefix: str, name: str) -> str:
    """A key of the part that is no shard."""
    return f"{prefix}:{{{TAGS[COMMON]}}}:{name}"


def shard_of(imei: int) -> int:
    """The shard of a device: the upper five bits of the IMEI's product with 2^64 / phi."""
    return (imei * _FIBONACCI & 0xFFFF_FFFF_FFFF_FFFF) >> 59


def state_of(timer: Timer | None) -> str:
    """The part of an index member before the IMEI: how the timer stands, and its deadline."""
    if timer is None:
        return "n0000000000"
    if timer.deadline is None:
        return "s0000000000"
    return f"{'r' if timer.state == 'running' else 'x'}{timer.deadline:010d}"


def version_octets(version: int) -> bytes:
    """What a record that has this version begins with; nothing where there is none."""
    return _VERSION.pack(version) if version else b""


def record_of(change_version: int, state: str, record: bytes) -> bytes:
    """The value of a device that had version `change_version`.

    The version is a count, and a checksum of the record: where a failover has lost a device's last change and another
    has taken its number, it is another version.
    """
    version = ((change_version >> 32) + 1 & 0xFFFF_FFFF) << 32 | crc32(record)
    return _VERSION.pack(version) + state.encode() + record


def stored_of(value: bytes) -> Stored:
    """The device in a value. Raises StoreError."""
    if len(value) <= _HEAD:
        raise StoreError("a record is too short")
    return Stored(decode(value[_HEAD:]), _VERSION.unpack_from(value)[0])


def state_in(value: bytes) -> bytes:
    """The state that a value says its index member has."""
    return value[8:_HEAD]


def message_key(key: MessageKey) -> str:
    """The field of a message: letter, IMEI, IMSI, mark."""
    kind, imei, imsi, mark = key
    return f"{_LETTERS[kind]}{imei:014d}{imsi}.{mark}"


def due_of(message: Message) -> int:
    """The score of a message in the queue, where reports stand behind all others."""
    return message.at + REPORTS_DUE * (message.kind == "report-expired")


def message_key_of(text: bytes) -> MessageKey:
    """The key that a field has. Raises StoreError."""
    return message_of(text, b"00000000000:").key


def message_body(message: Message) -> str:
    """The value of a message: when, how far apart, and the number of the subscriber."""
    return f"{message.at:010d}{message.apart}:{message.msisdn}"


def message_of(key: bytes, body: bytes) -> Message:
    """The message of a field and its value. Raises StoreError."""
    try:
        name, text = key.decode(), body.decode()
        who, _, mark = name[1:].rpartition(".")
        apart, _, msisdn = text[10:].partition(":")
        return Message(_KINDS[name[0]], int(who[:14]), who[14:], int(mark), int(text[:10]), msisdn, int(apart))
    except (ValueError, LookupError):
        raise StoreError("a message cannot be read") from None


def pack_memory(memory: Memory) -> bytes:
    """16 octets of an entry of a stream."""
    return _MEMORY.pack(*memory)


def unpack_memories(octets: bytes) -> list[Memory]:
    """What an entry of a stream tells. Raises StoreError."""
    if len(octets) % _MEMORY.size:
        raise StoreError("an entry of the stream of changes cannot be read")
    return [Memory(*one) for one in _MEMORY.iter_unpack(octets)]


def read_id(text: bytes | None) -> Id:
    """The id of a stream's entry; None: the place before the first. Raises StoreError."""
    if text is None:
        return START
    try:
        milliseconds, number = text.split(b"-")
        return int(milliseconds), int(number)
    except ValueError:
        raise StoreError("an id of the stream of changes cannot be read") from None


def write_id(place: Id) -> str:
    """The id as Redis writes it."""
    return f"{place[0]}-{place[1]}"


def write_position(followed: list[Followed]) -> Position:
    """How far all streams were followed."""
    return msgpack.encode(followed)


def read_position(position: Position) -> list[Followed]:
    """How far all streams were followed. Raises BehindError where it is no position of this store's."""
    try:
        followed = convert(msgpack.decode(position), list[Followed])
    except ValueError:
        followed = []
    if len(followed) != SHARDS:
        raise BehindError("not a position in the changes of this store")
    return followed


def range_parts(first: int, last: int) -> list[tuple[str, str]]:
    """The ranges of the index that hold what a scan asks for."""
    if first <= 0 and last >= NEVER:
        return [("-", "+")]
    return [(f"[{state}{max(first, 0):010d}", f"({state}{last + 1:010d}") for state in "rx"]


@dataclass(slots=True)
class Share:
    """What a commit has for one shard, in the blocks that the script wants."""

    imeis: list[str] = field(default_factory=list)
    expected: list[bytes] = field(default_factory=list)
    records: list[str | bytes] = field(default_factory=list)
    members: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    message_keys: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    scores: list[str | int] = field(default_factory=list)
    all: list[bytes] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)

    def put(self, change: Change) -> None:
        """Adds a change of a device of this shard."""
        imei = f"{change.device.imei:014d}"
        state = state_of(change.timer)
        self.imeis.append(imei)
        self.expected.append(version_octets(change.version))
        self.records += (imei, record_of(change.version, state, encode(change.device)))
        self.members += ("0", state + imei)
        for message in change.messages:
            key = message_key(message.key)
            self.message_keys.append(key)
            self.bodies += (key, message_body(message))
            self.scores += (due_of(message), key)
        for withdrawn in change.withdrawn:
            self.withdrawn.append(message_key(withdrawn))
        if change.tell != "none":
            told = self.all if change.tell == "all" else self.others
            told.append(pack_memory(memory(change.device, change.timer)))

    def blocks(self) -> tuple[str | int | bytes, ...]:
        """The script's arguments from what is told on."""
        return (
            b"".join(self.all),
            b"".join(self.others),
            len(self.imeis),
            len(self.message_keys),
            len(self.withdrawn),
        )

    def lists(self) -> Iterator[str | int | bytes]:
        """The script's last arguments."""
        return chain(
            self.imeis,
            self.expected,
            self.records,
            self.members,
            self.withdrawn,
            self.message_keys,
            self.bodies,
            self.scores,
        )
