"""What every test may ask for: nodes, running or to be run. The package under test is the installed wheel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

import eir
from support.node import MakeNode, NodeProcess, Settings, write_config
from support.silence import QuietPeers

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


@pytest.fixture(scope="session")
def quiet_peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietPeers]:
    """Two silent peers of a node whose watchdog asks as often as RFC 3539 lets it; they may still be watched."""
    node = NodeProcess(write_config(tmp_path_factory.mktemp("quiet"), {"diameter": {"watchdog": 6.0}}))
    node.put_lists()
    node.start()
    peers = QuietPeers(node)
    yield peers
    peers.watch()
    node.end()


@pytest.fixture(scope="session", autouse=True)
def what_takes_long_begins_first(request: pytest.FixtureRequest) -> None:
    """Has the silent peers watched while the other tests run, where a test asks for them."""
    if any("quiet_peers" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("quiet_peers")
