"""`eir.cli_trace`: everything that came in time is printed, and for machines nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eir import cli_trace

MESSAGE = {
    "at": 1,
    "connection": 7,
    "peer": "mme.test",
    "outcome": "answered",
    "rule": "white",
    "request": ["asked"],
    "answer": ["told"],
}


class FakeNode:
    """A node, and the clock of whoever asks it: a message comes at a time, or Ctrl-C does."""

    def __init__(self, comes: float, left_out: int = 0, interrupted: bool = False) -> None:
        self.now, self.comes, self.left_out, self.interrupted = 0.0, comes, left_out, interrupted
        self.asked: list[str] = []

    def ask(self, path: Path, command: str, **arguments: Any) -> Any:
        self.asked.append(command)
        if command != "trace-take":
            return 1
        if self.interrupted:
            raise KeyboardInterrupt
        if self.now < self.comes:
            return {"messages": [], "left_out": 0}
        self.comes = float("inf")
        return {"messages": [MESSAGE, MESSAGE], "left_out": self.left_out}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def run(monkeypatch: pytest.MonkeyPatch, node: FakeNode, **wanted: Any) -> None:
    monkeypatch.setattr(cli_trace, "ask_node", node.ask)
    monkeypatch.setattr(cli_trace, "time", node)
    cli_trace.trace(agent="tester", peer="mme.test", path=Path("eir.toml"), **wanted)
    assert node.asked[-1] == "trace-stop"


@pytest.mark.parametrize("comes", [0.0, 0.1, 0.45, 0.5])
def test_what_comes_before_the_end_is_shown(
    comes: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = FakeNode(comes)
    run(monkeypatch, node, seconds=0.5)
    assert capsys.readouterr().out.count("mme.test connection 7: answered by rule white\n> asked\n< told\n") == 2
    assert node.now == 0.5


def test_for_machines_each_line_is_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, FakeNode(0.0, left_out=3), seconds=0.5, as_json=True)
    told = capsys.readouterr()
    assert [json.loads(line) for line in told.out.splitlines()] == [MESSAGE, MESSAGE]
    assert "3 more" in told.err


def test_it_ends_with_the_count(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    node = FakeNode(0.3)
    run(monkeypatch, node, count=1, as_json=True)
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert node.now < 0.5


def test_it_is_stopped_also_by_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, FakeNode(0.0, interrupted=True))
