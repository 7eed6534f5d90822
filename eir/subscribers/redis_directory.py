"""The directory of subscribers in Redis, and the writer that fills it.

Each import is a generation: its keys have its number in their names, and one key says which number is in force. So
readers see the old subscribers or the new ones, and never some of both. Called by `app`, which has the client, and
`cli_subscribers`. Keys: docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, WatchError

from eir.subscribers.directory import DirectoryError, Packed, Subscriber, is_imsi, unpack, unpack_digits

if TYPE_CHECKING:
    import redis
    import redis.asyncio

_BATCH = 500
"""IMSIs asked for at once, and of several requests the next is sent when the one before is answered."""
_WRITE_BATCH = 2000
_TURNS = 5
"""How often a reader begins anew because the generation was changed under it."""


def _generation_key(prefix: str) -> str:
    return f"{prefix}:sub:generation"


def _key(prefix: str, generation: int, imsi: str) -> str:
    return f"{prefix}:sub:{generation}:{imsi}"


class RedisDirectory:
    """A `Directory` in Redis. Where nothing was imported, nobody is known.

    The client, with `decode_responses` off, is the directory's from then on.
    """

    def __init__(self, client: redis.asyncio.Redis | redis.asyncio.RedisCluster, prefix: str) -> None:
        # Redis' own types cannot tell the clients that wait from those that do not.
        self._client: Any = client
        self._prefix = prefix
        self._generation = 0

    async def find(self, imsis: Iterable[str]) -> dict[str, Subscriber]:
        """The subscribers among these that are known. Raises DirectoryError: Redis does not answer as it should."""
        wanted = list(dict.fromkeys(filter(is_imsi, imsis)))
        if not wanted:
            return {}
        try:
            for _ in range(_TURNS):
                found = await self._find(wanted) if self._generation else {}
                # Asked behind the subscribers: those of a generation are there as long as it is the one in force.
                generation = int(await self._client.get(_generation_key(self._prefix)) or 0)
                if generation == self._generation:
                    return found
                self._generation = generation
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            # No more than its kind, and no cause: of a failed request redis-py tells the key.
            raise DirectoryError(f"the directory of subscribers in Redis: {type(error).__name__}") from None
        raise DirectoryError("the directory of subscribers in Redis: its generation changes all the time")

    async def _find(self, wanted: list[str]) -> dict[str, Subscriber]:
        found = {}
        for begin in range(0, len(wanted), _BATCH):
            batch = wanted[begin : begin + _BATCH]
            async with self._client.pipeline(transaction=False) as pipeline:
                for imsi in batch:
                    pipeline.get(_key(self._prefix, self._generation, imsi))
                values = await pipeline.execute()
            for imsi, value in zip(batch, values, strict=True):
                if value is not None:
                    found[imsi] = _decode(imsi, value)
        return found

    async def close(self) -> None:
        """Closes the client. Does not raise."""
        with suppress(RedisError, OSError):
            await self._client.aclose()


def _decode(imsi: str, value: bytes) -> Subscriber:
    try:
        subscriber = unpack(msgspec.msgpack.decode(value))
    except msgspec.DecodeError:
        raise DirectoryError("an entry of the directory of subscribers is damaged") from None
    if subscriber.imsi != imsi:
        raise DirectoryError("an entry of the directory of subscribers is another's")
    return subscriber


def _without_keys(error: RedisError) -> OSError:
    """For people: what is wrong. Of a failed request redis-py tells the key, in which there is an IMSI."""
    is_telling = isinstance(error, RedisConnectionError)
    return OSError(f"Redis: {error if is_telling else type(error).__name__}")


class RedisWriter:
    """Writes a new generation of subscribers, and puts it in force whole or not at all.

    `fill` once, then `commit` or `discard`. What a writer left that was killed is taken away by the next `commit`.
    """

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client: Any = client
        self._prefix = prefix
        self._generation = 0

    def fill(self, rows: Iterable[Packed]) -> int:
        """Writes all rows; of those with one IMSI the last stands. How many subscribers that are. Raises OSError."""
        encode = msgspec.msgpack.Encoder().encode
        left = iter(rows)
        count = 0
        try:
            self._generation = int(self._client.incr(f"{self._prefix}:sub:last"))
            while batch := list(islice(left, _WRITE_BATCH)):
                with self._client.pipeline(transaction=False) as pipeline:
                    for row in batch:
                        name = _key(self._prefix, self._generation, unpack_digits(row[0]))
                        # What was there tells a repeated IMSI from a new one.
                        pipeline.set(name, encode(row), get=True)
                    count += pipeline.execute().count(None)
        except RedisError as error:
            raise _without_keys(error) from None
        return count

    def commit(self) -> None:
        """Puts the generation in force, then removes older ones. Raises OSError; then that of before is in force."""
        name = _generation_key(self._prefix)
        try:
            with self._client.pipeline() as pipeline:
                pipeline.watch(name)
                if int(pipeline.get(name) or 0) > self._generation:
                    raise OSError("Redis: a newer import has been put in force meanwhile")
                pipeline.multi()
                pipeline.set(name, self._generation)
                pipeline.execute()
        except WatchError:
            raise OSError("Redis: another import has been put in force in this moment") from None
        except RedisError as error:
            raise _without_keys(error) from None
        # It is in force: what cannot be removed now is removed by the next import.
        with suppress(RedisError):
            self._remove(lambda generation: generation < self._generation)

    def discard(self) -> None:
        """Removes what was written, if it can be; else the next import does."""
        with suppress(RedisError):
            if self._generation and int(self._client.get(_generation_key(self._prefix)) or 0) != self._generation:
                self._remove(lambda generation: generation == self._generation)

    def _remove(self, is_old: Callable[[int], bool]) -> None:
        for batch in self._old_keys(is_old):
            self._client.unlink(*batch)

    def _old_keys(self, is_old: Callable[[int], bool]) -> Iterator[list[bytes]]:
        begin = f"{self._prefix}:sub:"
        pattern = "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in begin)
        found = self._client.scan_iter(match=f"{pattern}[0-9]*", count=_WRITE_BATCH)
        length = len(begin.encode())
        old = (name for name in found if is_old(int(name[length:].partition(b":")[0])))
        while batch := list(islice(old, _WRITE_BATCH)):
            yield batch
