"""Connections to Redis: one server, the master that Sentinel names, or the masters of a cluster.

Commands are given by part: a part is what is never divided, a hash tag of its own, and lies on one master. All
commands for a master go in one write. Nothing is tried again here, but for scripts that a master does not know yet:
whatever fails is a StoreError within the time limit, and before the next command it is found out anew who the masters
are. A command that failed may have been done.

Called by `redis_store`. No error's text has a command's arguments in it: they name subscribers.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from hiredis import pack_command
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from eir.timers.redis_settings import Endpoint, RedisSettings
from eir.timers.store import StoreError, StoreVersionError

Command: TypeAlias = tuple[str | int | bytes, ...]
Prepared: TypeAlias = Command | Callable[[], Command]
"""A command, or what makes it when it is its turn: then the server works on one while the next is made."""
Reply: TypeAlias = Any
_SHARE: Final = 0.25
"""The part of the time limit in which those who know the masters may answer; one of them may hang."""
_OTHER_MASTER: Final = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY"})


class Script:
    """A Lua script, by its text and by the hash that a server that has it knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str | bytes], *arguments: str | int | bytes) -> Command:
        """The command that runs it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


class _Node:
    """One server, and connections to it that are free."""

    def __init__(self, endpoint: Endpoint, nodes: Nodes) -> None:
        self.endpoint = endpoint
        self._nodes = nodes
        self._free: list[AbstractConnection] = []

    async def run(self, commands: Sequence[Prepared]) -> list[Reply]:
        """The replies; an error that the server replied is one of them. Raises what the client library raises."""
        connection = self._free.pop() if self._free else self._nodes.connection(self.endpoint)
        try:
            replies = await _exchange(connection, commands)
            again = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if again:
                # A script that is not known has done nothing.
                await _exchange(connection, [("SCRIPT", "LOAD", script.text) for script in self._nodes.scripts])
                for number, reply in zip(
                    again, await _exchange(connection, [commands[number] for number in again]), strict=True
                ):
                    replies[number] = reply
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        if self._nodes.are_with(self):
            self._free.append(connection)
        else:
            await connection.disconnect(nowait=True)
        return replies

    async def close(self) -> None:
        free, self._free = self._free, []
        for connection in free:
            await connection.disconnect(nowait=True)


class Bell:
    """A connection on which a channel is listened to; what rings is collected until it is asked for."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._rung: set[bytes] = set()
        self._changed = asyncio.Event()
        self._error: StoreError | None = None
        self._answered = True
        self._task: asyncio.Task[None] | None = None

    async def open(self, channel: str) -> None:
        """Subscribes. Raises what the client library raises."""
        await self._connection.send_packed_command(_packed(("SUBSCRIBE", channel)))
        await self._connection.read_response()
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            while True:
                message = await self._connection.read_response()
                if message[0] == b"message":
                    self._rung.add(message[2])
                    self._changed.set()
                else:
                    self._answered = True
        except (RedisError, OSError) as error:
            self._error = _told(error)
            self._changed.set()

    async def wait(self, seconds: float) -> set[bytes]:
        """What has rung since it was asked last; waits for the first. Raises StoreError where the line is dead."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass
        return self.rung()

    def rung(self) -> set[bytes]:
        """What has rung since it was asked last. Raises StoreError where the line is dead."""
        if self._error is not None:
            raise self._error
        self._changed.clear()
        rung, self._rung = self._rung, set()
        return rung

    async def check(self) -> None:
        """Asks the other end whether it is there; that it did not answer is told the next time. Raises StoreError."""
        if self._error is not None:
            raise self._error
        # The client library would connect again by itself, and nobody would have subscribed.
        if not self._answered or not self._connection.is_connected:
            raise StoreError("Redis does not answer on the line of changes")
        self._answered = False
        try:
            await self._connection.send_packed_command(_packed(("PING",)))
        except (RedisError, OSError) as error:
            raise _told(error) from None

    async def close(self) -> None:
        """Hangs up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._connection.disconnect(nowait=True)


class Nodes:
    """The masters that hold the parts with these hash tags."""

    def __init__(self, settings: RedisSettings, tags: Sequence[str], scripts: Iterable[Script]) -> None:
        self.settings = settings
        self.scripts = tuple(scripts)
        try:
            self._endpoints = settings.endpoints()
        except ValueError as error:
            raise StoreError(str(error)) from error
        self._slots = [key_slot(tag.encode()) for tag in tags]
        self._masters: dict[Endpoint, _Node] = {}
        self._of_part: list[_Node] = []
        self._stale = True
        self._finding = asyncio.Lock()

    def connection(self, endpoint: Endpoint, sentinel: bool = False) -> AbstractConnection:
        """A connection that is not open yet."""
        settings = self.settings
        common: dict[str, Any] = {
            "db": 0 if sentinel else endpoint.database,
            "username": (settings.sentinel_username if sentinel else settings.username) or None,
            "password": (settings.sentinel_password if sentinel else settings.password) or None,
            # The time limit is one for all that a command needs, and this module's; so is what is done after a failure.
            "socket_timeout": None,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        if endpoint.path:
            return UnixDomainSocketConnection(path=endpoint.path, **common)
        common |= {"host": endpoint.host, "port": endpoint.port, "socket_connect_timeout": None}
        if not endpoint.tls:
            return Connection(**common)
        return SSLConnection(
            ssl_ca_certs=settings.ca_file or None,
            ssl_certfile=settings.certificate_file or None,
            ssl_keyfile=settings.key_file or None,
            **common,
        )

    async def close(self) -> None:
        """Closes every connection. Does not raise."""
        self._stale = True
        masters, self._masters, self._of_part = self._masters, {}, []
        for node in masters.values():
            await node.close()

    async def run(self, commands: Sequence[tuple[int, Prepared]]) -> list[Reply]:
        """Runs commands, each where its part lies; the replies in the same order. Raises StoreError."""
        return (await self.run_confirmed(commands, 0))[0]

    async def run_confirmed(self, commands: Sequence[tuple[int, Prepared]], replicas: int) -> tuple[list[Reply], int]:
        """Runs commands as `run` does, and waits for so many replicas of each master to confirm them.

        Gives the replies, and how many replicas have at least confirmed. Raises StoreError.
        """
        if not commands:
            return [], replicas
        # Half the time limit is left for the commands.
        behind: list[Prepared] = [("WAIT", replicas, int(self.settings.timeout * 500))] if replicas else []
        async with self._limit():
            await self._find()
            by_node: dict[_Node, list[int]] = {}
            for number, (part, _) in enumerate(commands):
                by_node.setdefault(self._of_part[part], []).append(number)
            done = await asyncio.gather(
                *(node.run([*(commands[n][1] for n in numbers), *behind]) for node, numbers in by_node.items()),
                return_exceptions=True,
            )
            replies: list[Reply] = [None] * len(commands)
            confirmed = []
            for numbers, result in zip(by_node.values(), done, strict=True):
                if isinstance(result, BaseException):
                    raise result
                for reply in result:
                    if isinstance(reply, ResponseError):
                        raise reply
                for number, reply in zip(numbers, result, strict=False):
                    replies[number] = reply
                confirmed += result[len(numbers) :]
            return replies, min(confirmed, default=replicas)
        raise AssertionError

    async def each(self, *commands: Command) -> dict[str, list[Reply]]:
        """Runs commands on every master; the replies by its address. Raises StoreError."""
        async with self._limit():
            await self._find()
            masters = list(self._masters.values())
            done = await asyncio.gather(*(node.run(commands) for node in masters))
            for reply in (reply for replies in done for reply in replies):
                if isinstance(reply, ResponseError):
                    raise reply
            return {str(node.endpoint): replies for node, replies in zip(masters, done, strict=True)}

    async def bell(self, channel: str) -> Bell:
        """Listens to a channel; in a cluster any node hears what is published on another. Raises StoreError."""
        async with self._limit():
            await self._find()
            connection = self.connection(self._of_part[-1].endpoint)
            bell = Bell(connection)
            try:
                await bell.open(channel)
            except BaseException:
                await bell.close()
                raise
            return bell

    def _limit(self) -> _Limit:
        return _Limit(self)

    def are_with(self, node: _Node) -> bool:
        """Whether a server is still one of the masters."""
        return self._masters.get(node.endpoint) is node

    def failed(self) -> None:
        """Something failed: who the masters are is to be found out again."""
        self._stale = True

    async def _find(self) -> None:
        """Finds the masters, where that is not known."""
        if not self._stale:
            return
        async with self._finding:
            if not self._stale:
                return
            before = self._masters
            for node in before.values():
                await node.close()
            slots = await self._who()
            found = {one: before.get(one) or _Node(one, self) for one in dict.fromkeys(slots)}
            self._masters, self._of_part = found, [found[one] for one in slots]
            self._stale = False

    async def _who(self) -> list[Endpoint]:
        """The master of each part."""
        match self.settings.mode:
            case "alone":
                master = self._endpoints[0]
            case "sentinel":
                master = await self._named_by_sentinels()
            case "cluster":
                return await self._of_cluster()
        [role] = await self._ask(master, ("ROLE",))
        if role[0] != b"master":
            raise StoreError(f"Redis at {master} is no master")
        return [master] * len(self._slots)

    async def _ask(self, endpoint: Endpoint, command: Command, sentinel: bool = False) -> list[Reply]:
        """Asks a server over a connection of its own. Raises what the client library raises."""
        connection = self.connection(endpoint, sentinel)
        try:
            replies = await _exchange(connection, [command])
        finally:
            await connection.disconnect(nowait=True)
        if isinstance(replies[0], ResponseError):
            raise replies[0]
        return replies

    async def _asked(
        self, endpoints: Iterable[Endpoint], command: Command, sentinel: bool
    ) -> list[tuple[Endpoint, Any]]:
        """What those answered that did so soon."""
        asking = {asyncio.create_task(self._ask(one, command, sentinel)): one for one in endpoints}
        try:
            await asyncio.wait(asking, timeout=self.settings.timeout * _SHARE)
        finally:
            for task in asking:
                task.cancel()
        results = await asyncio.gather(*asking, return_exceptions=True)
        return [
            (one, result[0])
            for one, result in zip(asking.values(), results, strict=True)
            if not isinstance(result, BaseException)
        ]

    async def _named_by_sentinels(self) -> Endpoint:
        answers = await self._asked(self._endpoints, ("SENTINEL", "MASTER", self.settings.service), True)
        if not answers:
            raise StoreError(f"no sentinel names a master for {self.settings.service!r}")
        # After a failover the epoch is higher: a sentinel that was cut off may still name the one of before.
        named = max((_pairs(answer) for _, answer in answers), key=lambda one: int(one.get(b"config-epoch", 0)))
        first = self._endpoints[0]
        return Endpoint(named[b"ip"].decode(), int(named[b"port"]), "", first.tls, first.database)

    async def _of_cluster(self) -> list[Endpoint]:
        known = list(dict.fromkeys([*self._endpoints, *self._masters]))
        tls = self._endpoints[0].tls
        views: dict[tuple[Endpoint, ...], None] = {}
        for asked, rows in await self._asked(known, ("CLUSTER", "SLOTS"), False):
            owner: dict[int, Endpoint] = {}
            for first, last, master, *_ in rows:
                host = master[0].decode() if master[0] else asked.host
                for slot in self._slots:
                    if first <= slot <= last:
                        owner[slot] = Endpoint(host, master[1], "", tls)
            if all(slot in owner for slot in self._slots):
                views[tuple(owner[slot] for slot in self._slots)] = None
        # After a failover some nodes may not know yet: one is believed whose masters are there and say that they are.
        for view in views:
            masters = set(view)
            answers = await self._asked(masters, ("ROLE",), False)
            if len(answers) == len(masters) and all(role[0] == b"master" for _, role in answers):
                return list(view)
        raise StoreError("no node of the cluster knows a master for every part of it")


def client(settings: RedisSettings) -> Redis | RedisCluster:
    """A client of the library's own, for who has no scripts: it finds masters by itself. Raises ValueError."""
    endpoints = settings.endpoints()
    first = endpoints[0]
    common: dict[str, Any] = {
        "username": settings.username or None,
        "password": settings.password or None,
        "socket_timeout": settings.timeout,
        "socket_connect_timeout": settings.timeout,
    }
    tls: dict[str, Any] = {}
    if first.tls:
        files = {"ca_certs": settings.ca_file, "certfile": settings.certificate_file, "keyfile": settings.key_file}
        tls = {"ssl": True, **{f"ssl_{name}": value or None for name, value in files.items()}}
    match settings.mode:
        case "alone" if first.path:
            return Redis(unix_socket_path=first.path, **common)
        case "alone":
            return Redis(host=first.host, port=first.port, db=first.database, **common, **tls)
        case "sentinel":
            of_sentinel = common | {
                "username": settings.sentinel_username or None,
                "password": settings.sentinel_password or None,
            }
            sentinels = [(one.host, one.port) for one in endpoints]
            finder: Any = Sentinel(sentinels, sentinel_kwargs=of_sentinel | tls, db=first.database, **common, **tls)  # type: ignore[no-untyped-call]
            master: Redis = finder.master_for(settings.service)
            return master
        case "cluster":
            nodes = [ClusterNode(one.host, one.port) for one in endpoints]
            return RedisCluster(startup_nodes=nodes, **common, **tls)


class _Limit:
    """The time limit of one call, and what becomes of its errors."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._timeout = asyncio.timeout(nodes.settings.timeout)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            self._nodes.failed()
            raise StoreError(f"Redis did not answer within {self._nodes.settings.timeout} s") from None
        if isinstance(error, StoreError):
            self._nodes.failed()
        elif isinstance(error, RedisError | OSError):
            self._nodes.failed()
            raise _told(error) from None


def _told(error: RedisError | OSError) -> StoreError:
    """What may be told of an error: of a reply its kind only, for the rest may have been the command's arguments."""
    if isinstance(error, ResponseError):
        code = error.status_code or str(error).partition(" ")[0]
        if code == "SCHEMA":
            return StoreVersionError("another version of this program has made the store in Redis anew: " + str(error))
        if code in _OTHER_MASTER:
            return StoreError(f"Redis has changed masters, or is about to ({code})")
        return StoreError(f"Redis refused a command ({code if code.isupper() else type(error).__name__})")
    if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):
        return StoreError(f"Redis cannot be reached: {error}")
    return StoreError(f"Redis was not understood: {type(error).__name__}")


async def _exchange(connection: AbstractConnection, commands: Sequence[Prepared]) -> list[Reply]:
    made: list[bytes] = []
    for command in commands:
        if callable(command):
            await connection.send_packed_command(_packed(command()))
        else:
            made.append(_packed(command))
    if made:
        await connection.send_packed_command(b"".join(made))
    replies: list[Reply] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies


def _pairs(flat: Sequence[Any]) -> Mapping[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _packed(command: Command) -> bytes:
    octets: bytes = pack_command(command)  # type: ignore[arg-type]  # its stub has tuples of one
    return octets
