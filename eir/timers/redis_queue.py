"""The messages of a store in Redis, as `queue` says. Made by `redis_store`.

What sends messages names them in their shard. Names that receipts have, and counts of subscribers, have shards of
their own: they are written beside the steps, not with them, and are forgotten by themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Final, TypeAlias
from zlib import crc32

from eir.timers import redis_layout as layout
from eir.timers import redis_scripts
from eir.timers.queue import Outgoing, Place, Step
from eir.timers.redis_layout import SHARDS, Keys, shard_of
from eir.timers.redis_nodes import Command, Nodes, Reply, Script
from eir.timers.store import Message, MessageKey

_STEP, _PUT, _ALLOW, _FORGET = SCRIPTS = tuple(
    map(Script, (redis_scripts.STEP, redis_scripts.PUT, redis_scripts.ALLOW, redis_scripts.FORGET))
)
_PLACES: Final[tuple[Place, ...]] = ("waiting", "sending", "over")
_KEPT: Final = 7 * 86400
"""Seconds that names of receipts and counts of a day are kept."""
_CHUNK: Final = 500
"""Messages that one script takes, so that none holds up the others for long."""

Scored: TypeAlias = tuple[int, bytes, int]
First: TypeAlias = Callable[
    [int, Callable[[int, int], Command], Callable[[int, Reply], list[Scored]]], Awaitable[list[Scored]]
]


def scored(shard: int, flat: Sequence[bytes]) -> list[Scored]:
    """(score, member, shard) of a reply with scores."""
    return [(int(score), member, shard) for member, score in zip(flat[::2], flat[1::2], strict=True)]


class RedisQueue:
    """The messages of a store in Redis. `eir.timers.queue.Queue` says what the methods do.

    `first` merges what the shards give, each in its order.
    """

    def __init__(self, nodes: Nodes, keys: Sequence[Keys], first: First) -> None:
        self._nodes = nodes
        self._keys = keys
        self._first = first

    async def due(self, place: Place, until: int, most: int, since: int = 0) -> list[Outgoing]:
        """Messages to subscribers in a place that are due, the earliest first. Raises StoreError."""
        found = await self._first(
            most,
            lambda shard, count: (
                "ZRANGEBYSCORE", self._of(shard, place), since, until, "WITHSCORES", "LIMIT", 0, count
            ),
            scored,
        )  # fmt: skip
        return await self._read([(shard, field, due) for due, field, shard in found])

    def _of(self, shard: int, place: Place) -> str:
        keys = self._keys[shard]
        return (keys.queue, keys.sending, keys.over)[_PLACES.index(place)]

    async def _read(self, members: Sequence[tuple[int, bytes, int]]) -> list[Outgoing]:
        """Messages of (shard, field, due)."""
        by_shard: dict[int, list[bytes]] = {}
        for shard, field, _ in members:
            by_shard.setdefault(shard, []).append(field)
        commands: list[tuple[int, Command]] = []
        for shard, fields in by_shard.items():
            commands.append((shard, ("HMGET", self._keys[shard].messages, *fields)))
            commands.append((shard, ("HMGET", self._keys[shard].progress, *fields)))
        replies = await self._nodes.run(commands)
        known: dict[bytes, tuple[bytes | None, bytes | None]] = {}
        for fields, bodies, progresses in zip(by_shard.values(), replies[::2], replies[1::2], strict=True):
            known.update(zip(fields, zip(bodies, progresses, strict=True), strict=True))
        return [
            Outgoing(layout.message_of(field, body), progress or b"", due)
            for _, field, due in members
            for body, progress in [known[field]]
            if body is not None
        ]

    async def find(self, keys: Collection[MessageKey]) -> dict[MessageKey, Outgoing]:
        """Those that have not been withdrawn or forgotten, of these. Raises StoreError."""
        fields = [(shard_of(key[1]), layout.message_key(key).encode()) for key in keys]
        scores = await self._nodes.run(
            [(shard, ("ZSCORE", self._of(shard, place), field)) for shard, field in fields for place in _PLACES]
        )
        there = [
            (shard, field, int(float(score)))
            for number, (shard, field) in enumerate(fields)
            for score in [next((one for one in scores[3 * number : 3 * number + 3] if one is not None), None)]
            if score is not None
        ]
        return {found.message.key: found for found in await self._read(there)}

    async def step(self, steps: Sequence[Step]) -> frozenset[MessageKey]:
        """Takes steps; returns the keys of those that were not taken. Raises StoreError, after which some were."""
        refused: set[MessageKey] = set()
        names: list[tuple[int, Command]] = []
        shares = _by_shard(steps, lambda step: shard_of(step.key[1]))
        replies = await self._nodes.run([(shard, self._step_call(shard, share)) for shard, share in shares])
        for (_, share), reply in zip(shares, replies, strict=True):
            for step, taken in zip(share, reply, strict=True):
                if not taken:
                    refused.add(step.key)
                    continue
                for name in step.receipts:
                    of = _shard_of_name(name)
                    names.append(
                        (of, ("SET", self._receipt(of, name), layout.message_key(step.key), "EX", _KEPT))
                    )  # fmt: skip
        if names:
            await self._nodes.run(names)
        return frozenset(refused)

    def _step_call(self, shard: int, steps: Iterable[Step]) -> Command:
        keys = self._keys[shard]
        arguments: list[str | int | bytes] = []
        for step in steps:
            arguments += (
                layout.message_key(step.key),
                _PLACES.index(step.come_from) + 1,
                step.before,
                _PLACES.index(step.place) + 1,
                step.after,
                step.due,
            )
        return _STEP.call((keys.queue, keys.sending, keys.over, keys.progress), *arguments)

    def _receipt(self, shard: int, name: str) -> str:
        return f"{self._keys[shard].receipt}:{name}"

    async def put(self, messages: Sequence[Message]) -> int:
        """Puts messages; how many were not there before. Raises StoreError, after which some may have been put."""

        def call(shard: int, share: Iterable[Message]) -> Command:
            arguments: list[str | int] = []
            for message in share:
                arguments += (layout.message_key(message.key), layout.message_body(message), layout.due_of(message))
            return _PUT.call((self._keys[shard].messages, self._keys[shard].queue), *arguments)

        shares = _by_shard(messages, lambda message: shard_of(message.imei))
        return sum(await self._nodes.run([(shard, call(shard, share)) for shard, share in shares]))

    async def by_receipts(self, names: Collection[str]) -> dict[str, MessageKey]:
        """The messages that receipts name, once. Raises StoreError."""
        shards = [(_shard_of_name(name), name) for name in names]
        fields = await self._nodes.run([(shard, ("GETDEL", self._receipt(shard, name))) for shard, name in shards])
        return {
            name: layout.message_key_of(field)
            for (_, name), field in zip(shards, fields, strict=True)
            if field is not None
        }

    async def allow(self, day: int, imsis: Sequence[str], most: int) -> list[bool]:
        """Counts a message to each subscriber, where there were not too many on that day. Raises StoreError."""
        shares = _by_shard(list(enumerate(imsis)), lambda one: _shard_of_name(one[1]))
        replies = await self._nodes.run(
            [
                (shard, _ALLOW.call([f"{self._keys[shard].told}:{day}"], most, _KEPT, *(imsi for _, imsi in share)))
                for shard, share in shares
            ]
        )
        allowed = {
            number: bool(reply)
            for (_, share), answers in zip(shares, replies, strict=True)
            for (number, _), reply in zip(share, answers, strict=True)
        }
        return [allowed[number] for number in range(len(imsis))]

    async def forget(self, before: int, most: int) -> int:
        """Forgets what was over before then; names and counts go by themselves. Raises StoreError."""
        a_shard = max(1, most // SHARDS)
        return sum(
            await self._nodes.run(
                [
                    (shard, _FORGET.call((keys.over, keys.progress, keys.messages), before, a_shard, layout.OF_A_DAY))
                    for shard, keys in enumerate(self._keys)
                ]
            )
        )


def _by_shard(these: Sequence[Any], shard: Callable[[Any], int]) -> list[tuple[int, list[Any]]]:
    """What each shard gets of these, in chunks."""
    shares: dict[int, list[Any]] = {}
    for one in these:
        shares.setdefault(shard(one), []).append(one)
    return [
        (number, share[first : first + _CHUNK])
        for number, share in shares.items()
        for first in range(0, len(share), _CHUNK)
    ]


def _shard_of_name(name: str) -> int:
    return crc32(name.encode()) % SHARDS
