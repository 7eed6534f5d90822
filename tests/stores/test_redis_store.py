"""`eir.timers.redis_store`: what only a store for many nodes must do, on real servers, with losses."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from eir.timers import grey, redis_layout, redis_nodes
from eir.timers.grey import Device, Rules, Shift, Started
from eir.timers.redis_settings import RedisSettings
from eir.timers.redis_store import RedisStore
from eir.timers.store import (
    BehindError,
    Change,
    LostError,
    Memory,
    Message,
    Position,
    Stored,
    StoreError,
    StoreVersionError,
    memory,
)
from support import node
from support.redis import RedisCluster, RedisServer, Sentinels

RULES = Rules(30, ZoneInfo("Asia/Almaty"))
NOW = 1_790_000_000
IMEI = 35900100000000
SOURCE = "journal:a.test"
TIMEOUT = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server that several tests use, one after the other."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(server: RedisServer) -> RedisSettings:
    """The settings for an empty server."""
    server.cli("FLUSHALL")
    return RedisSettings(nodes=(server.url,), timeout=TIMEOUT)


@asynccontextmanager
async def opened(settings: RedisSettings) -> AsyncIterator[RedisStore]:
    store = RedisStore(settings)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def started(imei: int, at: int = NOW, stored: Stored | None = None, subscriber: int = 1) -> Change:
    """The change that a first attach makes."""
    imsi = f"00101{subscriber:010d}"
    before = stored.device if stored is not None else Device(imei)
    device = grey.apply(before, Started(imei, at, imsi))
    message = Message("grey-granted", imei, imsi, 0, at)
    version = stored.version if stored is not None else 0
    return Change(device, version, grey.timer(device, RULES), (message,))


async def offer(store: RedisStore, journal: Sequence[int], until: int | None = None) -> None:
    """Projects a journal of first attaches as a node does: from where the store is."""
    position = await store.position(SOURCE)
    for first in range(position, until or len(journal), 50):
        last = min(first + 50, until or len(journal))
        todo: Sequence[int] = journal[first:last]
        while todo:
            stored = await store.load(todo)
            changes = [started(imei) for imei in todo if imei not in stored]
            todo = sorted(await store.commit(changes, (await store.shifts())[0], SOURCE, last))
    await store.mark(SOURCE, until or len(journal))


async def everything(store: RedisStore) -> tuple[dict[int, Device], set[Message], int]:
    page = await store.scan(None, 10_000)
    assert page.next is None
    devices = {device.imei: device for device, _ in page.devices}
    assert len(devices) == len(page.devices)
    return devices, set(await store.queued(10_000)), await store.position(SOURCE)


async def drained(store: RedisStore, after: Position) -> tuple[set[Memory], Position]:
    """All changes after a position."""
    found: set[Memory] = set()
    while True:
        memories, after = await store.changes(after, 37, 0)
        if not memories:
            return found, after
        assert len(memories) <= 37
        found |= set(memories)


def remembered(change: Change) -> Memory:
    return memory(change.device, change.timer)


async def until(condition: Callable[[], object]) -> None:
    """Waits until something holds, while the loop goes on."""
    await asyncio.to_thread(node.until, condition, 20.0)


def offset(server: RedisServer) -> str:
    """How far a server's replication is."""
    info = dict(line.partition(":")[::2] for line in server.cli("INFO", "replication").splitlines())
    return info.get("slave_repl_offset", info["master_repl_offset"]).strip()


class Door:
    """A socket behind which is one server, and later another, as when an address changes hands."""

    def __init__(self, path: Path, server: RedisServer) -> None:
        self.path = path
        self._port = server.port
        self._inside: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Door:
        self._server = await asyncio.start_unix_server(self._enter, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._close()

    async def lead_to(self, server: RedisServer) -> None:
        """From now on there is this server behind it."""
        self._port = server.port
        self._close()

    def _close(self) -> None:
        for writer in self._inside:
            writer.close()
        self._inside.clear()

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        self._inside |= {writer, to_server}
        await asyncio.gather(self._pass(reader, to_server), self._pass(from_server, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while octets := await reader.read(1 << 16):
                writer.write(octets)
                await writer.drain()
        writer.close()


async def pinged(settings: RedisSettings) -> None:
    """Asks through the client that is made for others."""
    client = redis_nodes.client(settings)
    assert await client.set("pinged", "once")
    assert await client.get("pinged") == b"once"
    await client.delete("pinged")
    await client.aclose()


class TestTwoNodes:
    async def test_of_two_that_change_a_device_at_once_one_is_refused(self, settings: RedisSettings) -> None:
        async with opened(settings) as one, opened(settings) as other:
            refused = await asyncio.gather(
                one.commit([started(IMEI)], 0, SOURCE, 1),
                other.commit([started(IMEI, NOW + 9)], 0, "journal:b.test", 7),
            )
            assert sorted(map(len, refused)) == [0, 1]
            shard = redis_layout.shard_of(IMEI)
            other_imeis = [imei for imei in range(IMEI, IMEI + 999) if redis_layout.shard_of(imei) != shard]
            # A shard is written whole or not at all; the others are.
            near = next(imei for imei in range(IMEI + 1, IMEI + 999) if redis_layout.shard_of(imei) == shard)
            changes = [started(imei) for imei in (IMEI, near, other_imeis[0])]
            assert await one.commit(changes, 0, SOURCE, 9) == {IMEI, near}
            assert set(await one.load([IMEI, near, other_imeis[0]])) == {IMEI, other_imeis[0]}

    async def test_a_change_is_with_the_other_node_at_once(self, settings: RedisSettings) -> None:
        async with opened(settings) as one, opened(settings) as other:
            after = await other.end_of_changes()
            assert await other.changes(after, 100, 0) == ([], after)
            took = []
            for number in range(20):
                waiting = asyncio.create_task(other.changes(after, 100, 5))
                await asyncio.sleep(0.01)
                change = started(IMEI + number)
                begin = time.monotonic()
                await one.commit([change], 0)
                found, after = await waiting
                took.append(time.monotonic() - begin)
                assert found == [remembered(change)]
            assert sorted(took)[10] < 0.05

    async def test_what_is_told_to_others_does_not_come_back(self, settings: RedisSettings) -> None:
        async with opened(settings) as one, opened(settings) as other:
            after = await one.end_of_changes()
            changes = [replace_tell(started(IMEI + number), number) for number in range(9)]
            await one.commit(changes, 0)
            told = {
                tell: {remembered(change) for change in changes if change.tell == tell} for tell in ("all", "others")
            }
            assert (await drained(one, after))[0] == told["all"]
            assert (await drained(other, after))[0] == told["all"] | told["others"]

    async def test_shifts_of_two_nodes_come_together(self, settings: RedisSettings) -> None:
        shifts = [Shift(NOW, f"{name}:1", 1, 2, 3, "somebody", "a holiday") for name in "ab"]
        async with opened(settings) as one, opened(settings) as other:
            await asyncio.gather(one.put_shift(shifts[0]), other.put_shift(shifts[1]))
            revision, found = await one.shifts()
            assert found == tuple(shifts) and await other.shifts() == (revision, found)
            assert await one.commit([started(IMEI)], 0) == {IMEI}
            assert not await one.commit([started(IMEI)], revision)
            await other.remove_shift("a:1")
            await one.put_shift(shifts[0])
            assert (await one.shifts())[1] == (shifts[1],)
            assert (await one.shifts())[0] > revision

    async def test_a_shift_that_a_shard_lacks_is_given_to_it(
        self, server: RedisServer, settings: RedisSettings
    ) -> None:
        async with opened(settings) as store:
            await store.put_shift(Shift(NOW, "a:1", 1, 2, 3, "somebody", "a holiday"))
            before = await store.shifts()
            server.cli("DEL", "eir:{s05}:shifts")
            server.cli("HDEL", "eir:{s05}:meta", "revision")
            assert await store.shifts() == before
            assert server.cli("HGET", "eir:{s05}:meta", "revision").startswith(f"{before[0]}-")


def replace_tell(change: Change, number: int) -> Change:
    tell = ("all", "others", "none")[number % 3]
    return Change(change.device, change.version, change.timer, tell=tell)  # type: ignore[arg-type]


class TestChanges:
    async def test_a_follower_takes_them_in_pieces_and_misses_none(self, settings: RedisSettings) -> None:
        changes = [started(imei) for imei in range(IMEI, IMEI + 3000)]
        async with opened(settings) as one, opened(settings) as other:
            after = await other.end_of_changes()
            await one.commit(changes[:1000], 0)
            found, after = await drained(other, after)
            await one.commit(changes[1000:], 0)
            more, after = await drained(other, after)
            assert found | more == {remembered(change) for change in changes}
            # A position is good for another process, later.
            assert (await drained(one, after))[0] == set()

    async def test_a_stream_that_was_trimmed_is_told(self, settings: RedisSettings) -> None:
        async with opened(replace(settings, changes_kept=100)) as store:
            after = await store.end_of_changes()
            await store.commit([started(IMEI)], 0)
            for _ in range(250):
                # One device, one shard, an entry each.
                stored = (await store.load([IMEI]))[IMEI]
                await store.commit([Change(stored.device, stored.version, None)], 0)
            with pytest.raises(BehindError):
                await drained(store, after)

    async def test_a_stream_that_has_lost_its_end_is_told(self, server: RedisServer, settings: RedisSettings) -> None:
        async with opened(settings) as store:
            await store.commit([started(IMEI)], 0)
            after = await store.end_of_changes()
            server.cli("FLUSHALL")
            await store.open()
            with pytest.raises(BehindError):
                await store.changes(after, 10, 0)
            # Later entries have higher numbers, but do not follow on what was there.
            await store.commit([started(IMEI)], 0)
            with pytest.raises(BehindError):
                await store.changes(after, 10, 0)

    async def test_a_position_of_another_store_is_none(self, settings: RedisSettings) -> None:
        async with opened(settings) as store:
            with pytest.raises(StoreError):
                await store.changes(b"\x00\x00\x00\x01", 10, 0)


class TestServers:
    async def test_scripts_that_are_gone_are_loaded_again(self, server: RedisServer, settings: RedisSettings) -> None:
        async with opened(settings) as store:
            await store.commit([started(IMEI)], 0)
            server.cli("SCRIPT", "FLUSH")
            assert not await store.commit([started(IMEI + 1)], 0)
            assert len(await store.load([IMEI, IMEI + 1])) == 2

    async def test_the_librarys_own_client(self, settings: RedisSettings) -> None:
        await pinged(settings)

    async def test_the_rights_that_the_guide_names_are_enough(
        self, server: RedisServer, settings: RedisSettings
    ) -> None:
        guide = (Path(__file__).parents[2] / "docs" / "operators-guide.md").read_text()
        found = re.search(r"`user eir on >\.\.\. (.+?)`", guide)
        assert found
        server.cli("ACL", "SETUSER", "eir", "on", ">a secret", *found[1].split())
        try:
            async with opened(replace(settings, username="eir", password="a secret")) as store:
                after = await store.end_of_changes()
                await offer(store, range(IMEI, IMEI + 9))
                assert len((await store.changes(after, 10, 0))[0]) == 9
                assert await store.lease("sweep", "a.test", 1)
                await store.problems()
        finally:
            server.cli("ACL", "DELUSER", "eir")

    async def test_a_server_that_evicts_is_refused(self, server: RedisServer, settings: RedisSettings) -> None:
        server.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(StoreError, match="noeviction"):
                await RedisStore(settings).open()
        finally:
            server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")

    async def test_a_newer_schema_is_refused(self, server: RedisServer, settings: RedisSettings) -> None:
        async with opened(settings) as store:
            server.cli("HSET", "eir:{s03}:meta", "schema", "2")
            with pytest.raises(StoreVersionError, match="2"):
                await RedisStore(settings).open()
            imei = next(imei for imei in range(IMEI, IMEI + 999) if redis_layout.shard_of(imei) == 3)
            with pytest.raises(StoreVersionError):
                await store.commit([started(imei)], 0)

    async def test_problems_are_found(self, server: RedisServer, settings: RedisSettings) -> None:
        async with opened(settings) as store:
            await store.commit([started(IMEI + number) for number in range(100)], 0)
            assert [problem for problem in await store.problems() if "appendonly" not in problem] == []
            assert any("appendonly" in problem for problem in await store.problems())
            shard = redis_layout.TAGS[redis_layout.shard_of(IMEI)]
            server.cli("HSET", f"eir:{{{shard}}}:devices", str(IMEI), "nonsense")
            server.cli("HSET", f"eir:{{{shard}}}:messages", f"g{IMEI}001010000000001.0", "nonsense")
            told = [problem for problem in await store.problems() if problem.startswith(shard)]
            assert any("records that cannot be read" in problem for problem in told)
            assert any("messages that wait and cannot be read" in problem for problem in told)
            assert not any("00101" in problem for problem in told)

    async def test_a_server_that_hangs_is_not_waited_for(self, server: RedisServer, settings: RedisSettings) -> None:
        async with opened(settings) as store:
            await store.commit([started(IMEI)], 0, SOURCE, 1)
            after = await store.end_of_changes()
            assert (await store.changes(after, 10, 0))[0] == []
            server.pause()
            try:
                asking = [store.load([IMEI]), store.commit([started(IMEI + 1)], 0), store.changes(after, 10, 0.1)]
                begin = time.monotonic()
                answers = await asyncio.gather(*asking, return_exceptions=True)
                assert time.monotonic() - begin < TIMEOUT + 0.5
                assert all(isinstance(answer, StoreError) for answer in answers), answers
            finally:
                server.resume()
            assert set(await store.load([IMEI])) == {IMEI}
            assert not await store.commit([started(IMEI + 2)], 0, SOURCE, 2)
            assert len((await drained(store, after))[0]) >= 1

    async def test_no_server(self, settings: RedisSettings, server: RedisServer) -> None:
        with pytest.raises(StoreError):
            await RedisStore(replace(settings, nodes=("redis://127.0.0.1:1",))).open()
        with pytest.raises(StoreError) as caught:
            await RedisStore(replace(settings, username="eir", password="a secret")).open()
        assert "secret" not in str(caught.value)

    async def test_replicas_that_do_not_confirm(self, settings: RedisSettings) -> None:
        async with opened(replace(settings, min_replicas=1)) as store:
            with pytest.raises(StoreError, match="0 replicas have confirmed"):
                await store.commit([started(IMEI)], 0, SOURCE, 1)

    async def test_what_was_acknowledged_survives_a_kill(self, tmp_path: Path) -> None:
        server = RedisServer(tmp_path, None, "--appendonly", "yes", "--appendfsync", "always")
        server.start()
        try:
            async with opened(RedisSettings(nodes=(server.url,), timeout=TIMEOUT)) as store:
                journal = list(range(IMEI, IMEI + 200))
                await offer(store, journal)
                before = await everything(store)
                server.kill()
                with pytest.raises(StoreError):
                    await store.load([IMEI])
                server.start()
                assert await everything(store) == before
                assert (await store.problems()) == []
        finally:
            server.stop()


class TestLosses:
    """A failover has lost what was acknowledged: it is noticed, and comes back out of the journal."""

    journal = range(IMEI, IMEI + 500)

    async def expected(self, settings: RedisSettings) -> tuple[dict[int, Device], set[Message], int]:
        async with opened(replace(settings, prefix="whole")) as store:
            await offer(store, self.journal)
            return await everything(store)

    @pytest.fixture
    def pair(self, tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
        """A master and its replica."""
        master = RedisServer(tmp_path / "master")
        replica = RedisServer(tmp_path / "replica", None, "--replicaof", "127.0.0.1", str(master.port))
        servers = (master, replica)
        try:
            for server in servers:
                server.start()
            node.until(lambda: "master_link_status:up" in replica.cli("INFO", "replication"))
            yield servers
        finally:
            for server in servers:
                server.stop()

    @pytest.mark.parametrize("first", ["commit", "mark", "changes"])
    async def test_a_silent_failover(self, pair: tuple[RedisServer, RedisServer], tmp_path: Path, first: str) -> None:
        master, replica = pair
        async with Door(tmp_path / "door", master) as door:
            settings = RedisSettings(nodes=(f"unix://{door.path}",), timeout=TIMEOUT)
            async with opened(settings) as store:
                await offer(store, self.journal, 200)
                await until(lambda: replica.cli("DBSIZE") == master.cli("DBSIZE"))
                master.cli("WAIT", "1", "1000")
                await until(lambda: offset(replica) == offset(master))
                replica.cli("REPLICAOF", "NO", "ONE")
                await offer(store, self.journal, 400)
                follower = await store.end_of_changes()
                await store.changes(follower, 10, 0)
                # From here on the store talks to the other one, and nobody has told it.
                await door.lead_to(replica)
                await store.close()
                with pytest.raises(LostError):
                    if first == "commit":
                        await store.commit([started(imei) for imei in self.journal[400:500]], 0, SOURCE, 500)
                    elif first == "mark":
                        await store.mark(SOURCE, 500)
                    else:
                        await store.changes(follower, 10, 0)
                with pytest.raises(LostError):
                    await store.mark(SOURCE, 500)
                assert await store.position(SOURCE) == 200
                with pytest.raises(BehindError):
                    await store.changes(follower, 10, 0)
                await offer(store, self.journal)
                found = await everything(store)
                assert found == await self.expected(settings)

    async def test_sentinel_names_another_master(self, pair: tuple[RedisServer, RedisServer], tmp_path: Path) -> None:
        master, replica = pair
        sentinels = Sentinels(tmp_path / "sentinels", master, 3)
        sentinels.start()
        try:
            settings = RedisSettings("sentinel", sentinels.urls, timeout=TIMEOUT)
            await until(lambda: all("slaves=1,sentinels=3" in one.cli("INFO", "sentinel") for one in sentinels.servers))
            async with opened(settings) as store:
                await pinged(settings)
                await offer(store, self.journal, 300)
                # One sentinel that hangs holds nobody up.
                sentinels.servers[0].pause()
                master.kill()
                begin = time.monotonic()
                while True:
                    try:
                        await offer(store, self.journal)
                        break
                    except StoreError:
                        assert time.monotonic() - begin < 20
                        await asyncio.sleep(0.1)
                assert await everything(store) == await self.expected(settings)
                assert "role:master" in replica.cli("INFO", "replication")
        finally:
            sentinels.stop()

    async def test_a_cluster_puts_a_replica_in_a_masters_place(self, tmp_path: Path) -> None:
        cluster = RedisCluster(tmp_path, 3, 1)
        try:
            cluster.start()
            settings = RedisSettings("cluster", cluster.urls, timeout=TIMEOUT)
            async with opened(settings) as store, opened(settings) as other:
                await pinged(settings)
                after = await other.end_of_changes()
                await offer(store, self.journal, 300)
                assert len((await drained(other, after))[0]) == 300
                cluster.masters[0].kill()
                begin = time.monotonic()
                while True:
                    try:
                        await offer(store, self.journal)
                        break
                    except StoreError:
                        assert time.monotonic() - begin < 20
                        await asyncio.sleep(0.1)
                assert await everything(store) == await self.expected(settings)
                # The follower's line may have been to the one that is gone.
                with suppress(StoreError):
                    await drained(other, after)
                with suppress(BehindError):
                    await drained(other, after)
                assert await everything(other) == await everything(store)
        finally:
            cluster.stop()
