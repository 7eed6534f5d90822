"""Every test here runs on each kind of store, and may be a coroutine."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from eir.timers.redis_settings import RedisSettings
from support.redis import RedisCluster, RedisServer
from support.stores import Kind, MakeClient, MakeNodes, Nodes

STORES = ["sqlite", "redis", "redis-cluster"]
"""The kinds of store; each is a fixture of that name, with `_` for `-`, that returns a Kind."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test that is a coroutine, and closes the stores that it leaves open."""
    test: Any = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}

    async def run() -> None:
        nodes = arguments.get("nodes")
        if isinstance(nodes, Nodes):
            async with nodes:
                await test(**arguments)
        else:
            await test(**arguments)

    asyncio.run(run())
    return True


@pytest.fixture
def sqlite(tmp_path: Path) -> Kind:
    from eir.timers.sqlite_store import SqliteStore

    numbers = count()

    def make() -> MakeClient:
        path = tmp_path / f"store{next(numbers)}.db"
        return lambda: SqliteStore(path)

    return Kind(False, make)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for many stores, each with a prefix of its own."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), None, "--appendonly", "yes")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A cluster for many stores."""
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"), 3, 0, "--appendonly", "yes")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


_PREFIXES = count()


def _in_redis(settings: RedisSettings) -> Kind:
    from eir.timers.redis_store import RedisStore

    def make() -> MakeClient:
        own = replace(settings, prefix=f"store{next(_PREFIXES)}")
        return lambda: RedisStore(own)

    return Kind(True, make)


@pytest.fixture
def redis(redis_server: RedisServer) -> Kind:
    return _in_redis(RedisSettings(nodes=(redis_server.url,)))


@pytest.fixture
def redis_cluster(cluster: RedisCluster) -> Kind:
    return _in_redis(RedisSettings("cluster", cluster.urls))


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of store in turn."""
    made = request.getfixturevalue(request.param.replace("-", "_"))
    assert isinstance(made, Kind)
    return made


@pytest.fixture
def make_nodes(kind: Kind) -> MakeNodes:
    """Makes an empty store, for tests that need more than one; `async with` closes its clients."""
    return lambda: Nodes(kind)


@pytest.fixture
def nodes(kind: Kind) -> Nodes:
    """The nodes around an empty store."""
    return Nodes(kind)
