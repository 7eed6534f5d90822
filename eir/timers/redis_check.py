"""What is not as it should be with the store in Redis: the servers' settings, and every record, index and queue.

Called by `redis_store`. Finds and tells; it mends nothing. No IMSI is in what it tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from eir.timers import redis_layout as layout
from eir.timers.redis_layout import SHARDS, Keys
from eir.timers.redis_nodes import Command, Nodes
from eir.timers.store import StoreError

_PAGE: Final = 1000

PageCall = Callable[[int, str | bytes, str, int], Command]
"""(shard, first member, last member, how many) to the command that reads a page of the index with its records."""


def info(reply: bytes) -> dict[str, str]:
    """The fields of an answer to INFO."""
    lines = (line.partition(":") for line in reply.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}


async def servers(nodes: Nodes) -> list[str]:
    """What is wrong with the masters. Raises StoreError."""
    found = []
    sections: list[Command] = [("INFO", name) for name in ("persistence", "memory", "replication")]
    for address, replies in (await nodes.each(*sections)).items():
        at = f"Redis at {address}"
        persistence, memory, replication = map(info, replies)
        if persistence.get("aof_enabled") != "1":
            found.append(f"{at} has appendonly no: a restart loses what came after its last snapshot")
        for what in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"):
            if persistence.get(what, "ok") != "ok":
                found.append(f"{at} cannot write to its disk: {what} is {persistence[what]}")
        limit, used = int(memory.get("maxmemory", 0)), int(memory.get("used_memory", 0))
        if limit and used > limit * 0.8:
            found.append(f"{at} uses {used} of {limit} octets that it may")
        replicas = int(replication.get("connected_slaves", 0))
        if nodes.settings.mode == "sentinel" and not replicas:
            found.append(f"{at} has no replica")
        if replicas < nodes.settings.min_replicas:
            found.append(f"{at} has {replicas} replicas, and commits wait for {nodes.settings.min_replicas}")
    return found


async def contents(nodes: Nodes, keys: Sequence[Keys], page: PageCall) -> list[str]:
    """What is wrong with what the shards hold, as far as it stood still meanwhile. Raises StoreError."""
    found = []
    for shard in range(SHARDS):
        wrong = await _devices(nodes, shard, page) + await _messages(nodes, shard, keys[shard])
        devices, indexed = await nodes.run(
            [(shard, ("HLEN", keys[shard].devices)), (shard, ("ZCARD", keys[shard].index))]
        )
        if devices != indexed:
            wrong["devices more than index members"] += devices - indexed
        found += [f"{layout.TAGS[shard]}: {count} {what}" for what, count in sorted(wrong.items())]
    return found


async def _devices(nodes: Nodes, shard: int, page: PageCall) -> Counter[str]:
    wrong: Counter[str] = Counter()
    first: str | bytes = "-"
    while True:
        [(members, records)] = await nodes.run([(shard, page(shard, first, "+", _PAGE))])
        for member, record in zip(members, records, strict=True):
            if record is None:
                wrong["index members without a record"] += 1
                continue
            try:
                imei = layout.stored_of(record).device.imei
            except StoreError:
                wrong["records that cannot be read"] += 1
                continue
            if member != layout.state_in(record) + b"%014d" % imei:
                wrong["index members that their record contradicts"] += 1
            if layout.shard_of(imei) != shard:
                wrong["devices that belong to another shard"] += 1
        if len(members) < _PAGE:
            return wrong
        first = b"(" + members[-1]


async def _messages(nodes: Nodes, shard: int, keys: Keys) -> Counter[str]:
    wrong: Counter[str] = Counter()
    at = 0
    while True:
        [waiting] = await nodes.run([(shard, ("ZRANGE", keys.queue, at, at + _PAGE - 1))])
        if not waiting:
            return wrong
        [bodies] = await nodes.run([(shard, ("HMGET", keys.messages, *waiting))])
        for key, body in zip(waiting, bodies, strict=True):
            try:
                if body is not None:
                    layout.message_of(key, body)
                    continue
            except StoreError:
                pass
            wrong["messages that wait and cannot be read"] += 1
        at += len(waiting)
