"""Every test here runs on each kind of store, and may be a coroutine."""

from __future__ import annotations

import asyncio
import inspect
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from support.stores import Kind, MakeClient, MakeNodes, Nodes

STORES = ["sqlite"]
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
