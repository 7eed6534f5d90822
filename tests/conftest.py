"""What every test may ask for: nodes, running or to be run. The package under test is the installed wheel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

import eir
from support.node import MakeNode, NodeProcess, Settings, write_config

# Machines are shared: that an example was slow says nothing. Why one fails is seen without the search for it.
settings.register_profile("eir", deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink))
settings.load_profile("eir")

ROOT = Path(__file__).parents[1]

# A test of the source tree would not see what the wheel lacks.
assert Path(eir.__file__).parent != ROOT / "eir", "the tests must run against the installed wheel"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rounds`: how often the node is killed under load."""
    parser.addoption("--rounds", type=int, default=10, help="rounds of kill -9 under load")


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[MakeNode]:
    """Makes nodes that end with the test: `make_node(settings, lists=True, start=True)`, the lists those of `lists`."""
    nodes: list[NodeProcess] = []

    def make(given: Settings | None = None, *, lists: bool = True, start: bool = True) -> NodeProcess:
        directory = tmp_path / f"node{len(nodes)}"
        node = NodeProcess(write_config(directory, given))
        nodes.append(node)
        if lists:
            node.put_lists()
        if start:
            node.start()
        return node

    yield make
    for node in nodes:
        node.end()


@pytest.fixture(scope="session")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """One running node with lists, for tests that change nothing but counters and timers of devices of their own."""
    node = NodeProcess(write_config(tmp_path_factory.mktemp("shared")))
    node.put_lists()
    node.start()
    yield node
    node.end()
