"""The store of timers in Redis, for many nodes: one server, a master behind Sentinel, or a cluster; Redis or Valkey.

Devices are divided among 32 shards, each written by a script whole or not at all. Replication is asynchronous, so a
failover can lose what was acknowledged. That is noticed without asking who is master: every commit says how far its
source is known to have been in the shard, and a shard that is not there any more has lost something. What a node has
recorded is then offered again from where the shards are. Followers notice it by a chain: each entry of a stream of
changes names the one before.

Made by `app`, used through `store.Store`. Keys and values are `redis_layout`'s, connections `redis_nodes`'.
"""

from __future__ import annotations

import asyncio
import heapq
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

from msgspec import msgpack

from eir.audit_chain import Head
from eir.log import Log
from eir.timers import redis_check, redis_queue, redis_scripts
from eir.timers import redis_layout as layout
from eir.timers.grey import NEVER, Shift
from eir.timers.redis_layout import COMMON, SCHEMA, SHARDS, Followed, Id, Share, shard_of
from eir.timers.redis_nodes import Bell, Command, Nodes, Reply, Script
from eir.timers.redis_queue import RedisQueue, scored
from eir.timers.redis_settings import RedisSettings
from eir.timers.store import (
    BehindError,
    Change,
    Counts,
    LostError,
    Memory,
    Message,
    Page,
    Position,
    Stored,
    StoreError,
    StoreVersionError,
)

_CHECK: Final = 5.0
"""Seconds after which a follower makes sure that nothing was lost and that its line is alive."""
_ROUNDS: Final = 5
"""How often shards that differ in their shifts are brought together before somebody else is to try."""
_PAGE: Final = 1000

_COMMIT, _MARK, _SCHEMA, _PAGE_OF, _SHIFTS, _MERGE_SHIFTS, _LEASE = _SCRIPTS = tuple(
    map(
        Script,
        (
            redis_scripts.COMMIT,
            redis_scripts.MARK,
            redis_scripts.SCHEMA,
            redis_scripts.PAGE,
            redis_scripts.SHIFTS,
            redis_scripts.MERGE_SHIFTS,
            redis_scripts.LEASE,
        ),
    )
)

log = Log(__name__)

_Ordered = TypeVar("_Ordered", bytes, tuple[int, bytes, int])


class RedisStore:
    """A store of timers in Redis; nothing is connected before `open`."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._nodes = Nodes(settings, layout.TAGS, (*_SCRIPTS, *redis_queue.SCRIPTS))
        self._keys = [layout.keys(settings.prefix, shard) for shard in range(SHARDS)]
        self._channel = f"{settings.prefix}:bell"
        self._writer = secrets.token_hex(8)
        """Tells this store's changes apart from those of others."""
        self._known: dict[str, list[int]] = {}
        """By source, where each shard's cursor is known to have been."""
        self._revisions = {0: "0"}
        """What shards call a revision: also shards that differ must not have the same one."""
        self._bell: Bell | None = None
        self._returned: Position | None = None
        """The position that the follower was given last: with that, shards in `_quiet` have nothing new."""
        self._quiet: set[int] = set()
        self._per_entry = 1.0
        """About how many devices an entry of a stream tells of."""
        self._checked = 0.0
        self.queue = RedisQueue(self._nodes, self._keys, self.first)

    # To and from Redis.

    async def open(self) -> None:
        """Connects, and gives shards that are empty their schema. Raises StoreError, StoreVersionError."""
        await self._refuse_eviction()
        schemas = await self._every(lambda shard: ("HGET", self._keys[shard].meta, "schema"))
        new = [shard for shard, schema in enumerate(schemas) if schema is None]
        for schema in schemas:
            if schema is not None and schema.decode() != SCHEMA:
                raise StoreVersionError(f"the store in Redis has schema {schema.decode()!r}, not {SCHEMA!r}")
        if new and len(new) < SHARDS:
            log.error("parts of the store are empty: what they held comes back as far as journals reach", shards=new)
        await self._on(new, lambda shard: _SCHEMA.call([self._keys[shard].meta], SCHEMA))

    async def _refuse_eviction(self) -> None:
        for address, [memory_info] in (await self._nodes.each(("INFO", "memory"))).items():
            policy = redis_check.info(memory_info).get("maxmemory_policy", "noeviction")
            if policy != "noeviction":
                raise StoreError(
                    f"Redis at {address} has maxmemory-policy {policy}, which loses timers: set noeviction"
                )

    async def close(self) -> None:
        """Closes every connection."""
        await self._hang_up()
        await self._nodes.close()

    async def _on(self, shards: Iterable[int], command: Callable[[int], Command]) -> list[Reply]:
        return await self._nodes.run([(shard, command(shard)) for shard in shards])

    async def _every(self, command: Callable[[int], Command]) -> list[Reply]:
        return await self._on(range(SHARDS), command)

    async def _common(self, *command: str | int | bytes) -> Reply:
        return (await self._nodes.run([(COMMON, command)]))[0]

    def _key(self, name: str) -> str:
        return layout.common_key(self._settings.prefix, name)

    # Devices.

    async def load(self, imeis: Collection[int]) -> dict[int, Stored]:
        """The devices that the store knows, of these. Raises StoreError."""
        wanted: dict[int, list[int]] = {}
        for imei in imeis:
            wanted.setdefault(shard_of(imei), []).append(imei)
        replies = await self._on(
            wanted, lambda shard: ("HMGET", self._keys[shard].devices, *(f"{imei:014d}" for imei in wanted[shard]))
        )
        return {
            imei: layout.stored_of(value)
            for of_shard, values in zip(wanted.values(), replies, strict=True)
            for imei, value in zip(of_shard, values, strict=True)
            if value is not None
        }

    async def commit(
        self, changes: Sequence[Change], revision: int, source: str = "", position: int = 0
    ) -> frozenset[int]:
        """See `Store.commit`. A shard in which one change is refused refuses all. Raises StoreError, LostError."""
        shares: dict[int, list[Change]] = {}
        for change in changes:
            shares.setdefault(shard_of(change.device.imei), []).append(change)
        known = self._known.get(source) or [0] * SHARDS
        commands = [
            (shard, partial(self._commit_call, shard, share, revision, source, position, known[shard]))
            for shard, share in shares.items()
        ]
        replies, confirmed = await self._nodes.run_confirmed(commands, self._settings.min_replicas)
        self._told(source, position, shares, replies)
        if confirmed < self._settings.min_replicas:
            raise StoreError(f"{confirmed} replicas have confirmed a commit, not {self._settings.min_replicas}")
        return frozenset(
            change.device.imei
            for share, reply in zip(shares.values(), replies, strict=True)
            if reply == redis_scripts.REFUSED
            for change in share
        )

    def _commit_call(
        self, shard: int, changes: Iterable[Change], revision: int, source: str, position: int, known: int
    ) -> Command:
        keys = self._keys[shard]
        share = Share()
        for change in changes:
            share.put(change)
        return _COMMIT.call(
            (
                keys.meta,
                keys.cursors,
                keys.devices,
                keys.index,
                keys.messages,
                keys.queue,
                keys.changes,
                keys.progress,
                keys.sending,
                keys.over,
            ),
            SCHEMA,
            source,
            position,
            known,
            self._revisions.get(revision, str(revision)),
            self._settings.changes_kept,
            self._channel,
            self._writer,
            *share.blocks(),
            shard,
            int(len(set(share.message_keys)) == len(share.message_keys)),
            *share.lists(),
        )

    def _told(self, source: str, position: int, shards: Iterable[int], replies: Iterable[Reply]) -> None:
        """Remembers how far shards say that they are. Raises LostError."""
        lost = []
        for shard, reply in zip(shards, replies, strict=True):
            if reply == redis_scripts.LOST:
                lost.append(shard)
            elif reply == redis_scripts.WRITTEN and source:
                known = self._known.setdefault(source, [0] * SHARDS)
                known[shard] = max(known[shard], position)
        if lost:
            raise LostError(f"Redis has lost what it had acknowledged, in {len(lost)} of {SHARDS} shards")

    async def mark(self, source: str, position: int) -> None:
        """See `Store.mark`. Raises StoreError, LostError."""
        known = self._known.get(source) or [0] * SHARDS
        replies = await self._every(
            lambda shard: _MARK.call(
                (self._keys[shard].meta, self._keys[shard].cursors), SCHEMA, source, position, known[shard]
            )
        )
        self._told(source, position, range(SHARDS), replies)

    async def position(self, source: str) -> int:
        """The least of all shards' cursors. From here on less than what they are is a loss. Raises StoreError."""
        self._known[source] = cursors = await self._cursors(source)
        return min(cursors)

    async def _cursors(self, source: str) -> list[int]:
        replies = await self._every(lambda shard: ("HGET", self._keys[shard].cursors, source))
        return [int(reply or 0) for reply in replies]

    async def due(self, until: int, most: int) -> list[int]:
        """See `Store.due`. Raises StoreError."""
        end = f"(r{until + 1:010d}"
        members = await self.first(
            most, lambda shard, count: ("ZRANGEBYLEX", self._keys[shard].index, "[r", end, "LIMIT", 0, count), _as_it_is
        )
        return [int(member[11:]) for member in members]

    async def first(
        self, most: int, command: Callable[[int, int], Command], read: Callable[[int, Reply], list[_Ordered]]
    ) -> list[_Ordered]:
        """The `most` least of what the shards hold, each of which gives the first ones of its own, in order."""
        count = max(1, most if most <= 2 * SHARDS else 2 * most // SHARDS)
        while True:
            asked = count
            replies = await self._every(partial(_swapped, command, asked))
            found = [read(shard, reply) for shard, reply in enumerate(replies)]
            merged = list(heapq.merge(*found))
            # Behind the last of what a shard gave there may be more of its own.
            ends = [of_shard[-1] for of_shard in found if len(of_shard) == count]
            if not ends or count >= most:
                return merged[:most]
            sure = [one for one in merged if one <= min(ends)]
            if len(sure) >= most:
                return sure[:most]
            count *= 4

    async def scan(self, after: bytes | None, most: int, first: int = 0, last: int = NEVER) -> Page:
        """See `Store.scan`: shard by shard, in the order of the index. Raises StoreError."""
        parts = [(shard, *bounds) for shard in range(SHARDS) for bounds in layout.range_parts(first, last)]
        at, begin = (0, b"") if after is None else msgpack.decode(after, type=tuple[int, bytes])
        devices: list[Stored] = []
        together = 1
        while at < len(parts):
            asked = parts[at : at + together]
            limit = max(1, (most - len(devices)) // len(asked))
            replies = await self._nodes.run(
                [
                    (shard, self._page_call(shard, b"(" + begin if begin and not number else low, high, limit))
                    for number, (shard, low, high) in enumerate(asked)
                ]
            )
            for members, records in replies:
                for member, record in zip(members, records, strict=True):
                    if record is not None:
                        devices.append(layout.stored_of(record))
                    begin = member
                    if len(devices) >= most:
                        return Page(devices, msgpack.encode((at, begin)))
                if len(members) == limit:
                    together = 0
                    break
                at, begin = at + 1, b""
            # Shards with little in them are asked together, one that has more by itself.
            together = max(1, min(2 * together, 16))
        return Page(devices, None)

    def _page_call(self, shard: int, low: str | bytes, high: str, limit: int) -> Command:
        return _PAGE_OF.call((self._keys[shard].index, self._keys[shard].devices), low, high, limit)

    async def counts(self) -> Counts:
        """How many there are. Raises StoreError."""
        ranges = [(f"[{state}", f"({chr(ord(state) + 1)}") for state in "rsx"]
        commands: list[tuple[int, Command]] = []
        for shard, keys in enumerate(self._keys):
            commands += [(shard, ("ZLEXCOUNT", keys.index, *bounds)) for bounds in ranges]
            commands.append((shard, ("ZCARD", keys.queue)))
        replies = await self._nodes.run(commands)
        return Counts(*(sum(replies[which::4]) for which in range(4)))

    # Messages.

    async def queued(self, most: int) -> list[Message]:
        """See `Store.queued`. Raises StoreError."""
        found = await self.first(
            most, lambda shard, count: ("ZRANGE", self._keys[shard].queue, 0, count - 1, "WITHSCORES"), scored
        )
        by_shard: dict[int, list[bytes]] = {}
        for _, key, shard in found:
            by_shard.setdefault(shard, []).append(key)
        replies = await self._on(by_shard, lambda shard: ("HMGET", self._keys[shard].messages, *by_shard[shard]))
        bodies = {
            key: body
            for keys, reply in zip(by_shard.values(), replies, strict=True)
            for key, body in zip(keys, reply, strict=True)
        }
        # What has been taken back meanwhile has no body.
        return [layout.message_of(key, body) for _, key, _ in found if (body := bodies[key]) is not None]

    # The stream of changes.

    async def end_of_changes(self) -> Position:
        """Where the streams end now. Raises StoreError."""
        return layout.write_position([Followed(last, 0) for last in await self._ends()])

    async def _ends(self) -> list[Id]:
        return [
            layout.read_id(last) for last in await self._every(lambda shard: ("HGET", self._keys[shard].meta, "last"))
        ]

    async def changes(self, after: Position, most: int, wait: float) -> tuple[list[Memory], Position]:
        """See `Store.changes`. One task at a time may follow. Raises StoreError, BehindError, LostError."""
        try:
            return await self._follow(after, most, wait)
        except StoreError:
            await self._hang_up()
            self._nodes.failed()
            raise

    async def _follow(self, after: Position, most: int, wait: float) -> tuple[list[Memory], Position]:
        loop = asyncio.get_running_loop()
        end = loop.time() + wait
        if self._bell is None:
            # Before the first look, so that what comes after it is heard.
            self._bell = await self._nodes.bell(self._channel)
            self._returned = None
        followed = layout.read_position(after)
        if after != self._returned:
            self._quiet.clear()
            self._checked = 0.0
        while True:
            now = loop.time()
            if now >= self._checked + _CHECK:
                await self._check(followed)
                self._checked = now
            self._quiet -= {int(shard) for shard in self._bell.rung()}
            all_read = not self._quiet
            found, followed = await self._read(followed, most)
            now = loop.time()
            if found or (now >= end and all_read):
                self._returned = layout.write_position(followed)
                return found, self._returned
            heard = await self._bell.wait(min(end - now, _CHECK)) if now < end else set()
            # A bell comes a little later than what it rings for, and may not come, where the node that passes it on
            # has just been cut off. So without one all are looked at, also before it is said that there is nothing.
            self._quiet = self._quiet - {int(shard) for shard in heard} if heard else set()

    async def _hang_up(self) -> None:
        bell, self._bell = self._bell, None
        if bell is not None:
            await bell.close()

    async def _check(self, followed: Sequence[Followed]) -> None:
        """Makes sure that nothing that was in is gone. Raises LostError, BehindError."""
        assert self._bell is not None
        await self._bell.check()
        # What is known may grow while the shards are asked: they must have what it was before.
        for source, known in [(source, tuple(known)) for source, known in self._known.items()]:
            replies = await self._cursors(source)
            if any(has < had for has, had in zip(replies, known, strict=True)):
                raise LostError("Redis has lost what it had acknowledged")
        if any(end < place.last for end, place in zip(await self._ends(), followed, strict=True)):
            raise BehindError("Redis has lost changes that this node had followed")

    async def _read(self, followed: list[Followed], most: int) -> tuple[list[Memory], list[Followed]]:
        """What is new in the shards that may have something. Raises BehindError."""
        shards = [shard for shard in range(SHARDS) if shard not in self._quiet]
        entries = max(1, int(most / len(shards) / self._per_entry)) if shards else 0
        replies = await self._on(
            shards,
            lambda shard: (
                "XREAD", "COUNT", entries, "STREAMS", self._keys[shard].changes, layout.write_id(followed[shard].last)
            ),
        )  # fmt: skip
        found: list[Memory] = []
        reached = list(followed)
        told = read = 0
        for shard, reply in zip(shards, replies, strict=True):
            rows = reply[0][1] if reply else []
            if len(rows) < entries:
                self._quiet.add(shard)
            for name, fields in rows:
                entry = dict(zip(fields[::2], fields[1::2], strict=True))
                last, skip = reached[shard]
                if layout.read_id(entry[b"before"]) != last:
                    raise BehindError("changes after this position are no longer there")
                memories = layout.unpack_memories(entry[b"all"])
                if entry[b"writer"].decode() != self._writer:
                    memories += layout.unpack_memories(entry[b"others"])
                told, read = told + len(memories), read + 1
                taken = memories[skip : skip + most - len(found)]
                found += taken
                if skip + len(taken) < len(memories):
                    reached[shard] = Followed(last, skip + len(taken))
                    self._quiet.discard(shard)
                    break
                reached[shard] = Followed(layout.read_id(name), 0)
        if read:
            self._per_entry = max(1.0, told / read)
        return found, reached

    async def trim_changes(self, before: Position) -> None:
        """Does nothing: other nodes may be further behind, and the streams' length is bounded."""

    # Shifts, settings, leases, heads.

    async def shifts(self) -> tuple[int, tuple[Shift, ...]]:
        """See `Store.shifts`. Shards that lack one, after a loss or half a `put_shift`, get it. Raises StoreError."""
        replies = await self._every(lambda shard: _SHIFTS.call((self._keys[shard].meta, self._keys[shard].shifts)))
        return await self._agreed(replies)

    async def _agreed(self, replies: list[Reply]) -> tuple[int, tuple[Shift, ...]]:
        """What all shards have, after each was given what another has."""
        for _ in range(_ROUNDS):
            known: dict[bytes, bytes] = {}
            for _, flat in replies:
                for identity, shift in zip(flat[::2], flat[1::2], strict=True):
                    # What was taken away anywhere is taken away.
                    known[identity] = known.get(identity, shift) and shift
            if len({revision for revision, _ in replies}) == 1:
                name = replies[0][0].decode()
                revision = int(name.partition("-")[0])
                self._revisions = {revision: name}
                return revision, tuple(sorted(_read_shift(shift) for shift in known.values() if shift))
            replies = await self._merge([part for pair in known.items() for part in pair])
        raise StoreError("the shards do not come to agree about the shifts")

    async def _merge(self, pairs: Sequence[str | bytes]) -> list[Reply]:
        return await self._every(
            lambda shard: _MERGE_SHIFTS.call((self._keys[shard].meta, self._keys[shard].shifts), *pairs)
        )

    async def put_shift(self, shift: Shift) -> None:
        """See `Store.put_shift`. Raises StoreError."""
        await self._agreed(await self._merge((shift.id, msgpack.encode(shift))))

    async def remove_shift(self, identity: str) -> None:
        """See `Store.remove_shift`. Raises StoreError."""
        await self._agreed(await self._merge((identity, b"")))

    async def setting(self, name: str) -> bytes | None:
        """See `Store.setting`. Raises StoreError."""
        value: bytes | None = await self._common("HGET", self._key("settings"), name)
        return value

    async def set_setting(self, name: str, value: bytes) -> None:
        """See `Store.set_setting`. Raises StoreError."""
        await self._common("HSET", self._key("settings"), name, value)

    async def lease(self, name: str, holder: str, seconds: float) -> bool:
        """See `Store.lease`. After a failover two may think for a moment that they hold it. Raises StoreError."""
        call = _LEASE.call([self._key(f"lease:{name}")], holder, max(1, int(seconds * 1000)))
        return bool(await self._common(*call))

    async def publish(self, head: Head) -> None:
        """See `Store.publish`. Raises StoreError."""
        await self._common("HSET", self._key("heads"), head.node, msgpack.encode((head.n, head.hash)))

    async def heads(self) -> list[Head]:
        """See `Store.heads`. Raises StoreError."""
        flat = await self._common("HGETALL", self._key("heads"))
        try:
            return sorted(
                Head(node.decode(), *msgpack.decode(value, type=tuple[int, str]))
                for node, value in zip(flat[::2], flat[1::2], strict=True)
            )
        except ValueError:
            raise StoreError("the head of an audit trail cannot be read") from None

    async def problems(self) -> list[str]:
        """See `Store.problems`. Raises StoreError."""
        return [
            *await redis_check.servers(self._nodes),
            *await redis_check.contents(self._nodes, self._keys, self._page_call),
        ]


def _swapped(command: Callable[[int, int], Command], count: int, shard: int) -> Command:
    return command(shard, count)


def _as_it_is(_: int, members: list[bytes]) -> list[bytes]:
    return members


def _read_shift(value: bytes) -> Shift:
    try:
        return msgpack.decode(value, type=Shift)
    except ValueError:
        raise StoreError("a shift cannot be read") from None
