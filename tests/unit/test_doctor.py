"""`eir.doctor`: what it finds, and how bad that is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from eir import config, control, doctor
from eir.doctor import Finding
from support import lists
from support.node import NodeProcess, Settings, write_config


def findings(path: Path) -> dict[str, Finding]:
    """The last finding on every subject."""
    return {finding.subject: finding for finding in doctor.examine(path)}


def prepared(directory: Path, settings: Settings | None = None, *, age: int = 0) -> Path:
    """A configuration whose state and lists are there."""
    path = write_config(directory, settings)
    state = Path(config.load(path)[0].node.directory)
    state.mkdir()
    lists.build(state / "lists.eirs", created_at=int(time.time()) - age)
    return path


def test_a_sound_node_that_does_not_run(tmp_path: Path) -> None:
    found = findings(prepared(tmp_path))
    assert found["configuration"] == Finding("ok", "configuration", f"{tmp_path / 'eir.toml'}, Kazakhstan")
    assert found["clock"].grade == found["lists"].grade == found["journal"].grade == "ok"
    assert "5 devices" in found["lists"].text
    assert found["journal"].text.endswith("is not there yet")
    assert found["node"].grade == "warn"
    assert "no node is running" in found["node"].text


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    path = prepared(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    findings(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_running_node(shared_node: NodeProcess) -> None:
    found = findings(shared_node.config)
    assert found["node"].grade == "ok"
    assert "running" in found["node"].text
    assert found["journal"].grade == "ok"


def test_a_configuration_that_is_none_ends_it(tmp_path: Path) -> None:
    path = prepared(tmp_path)
    path.write_text("[node]\ncolour = 1\n")
    (finding,) = doctor.examine(path)
    assert (finding.grade, finding.subject) == ("fail", "configuration")
    assert "node.colour" in finding.text


def test_no_directory(tmp_path: Path) -> None:
    found = findings(write_config(tmp_path))
    assert found["directory"].grade == "fail"
    assert "cannot be written" in found["directory"].text


def test_no_lists(tmp_path: Path) -> None:
    path = prepared(tmp_path)
    (tmp_path / "state" / "lists.eirs").write_bytes(b"garbage")
    found = findings(path)
    assert found["lists"].grade == "fail"
    assert found["lists"].text.endswith("everything is answered white")


def test_stale_lists(tmp_path: Path) -> None:
    found = findings(prepared(tmp_path, age=50 * 3600))
    assert found["lists"] == Finding("fail", "lists", "50 h old: stale, no timer expires")


def test_an_old_tac_list(tmp_path: Path) -> None:
    path = prepared(tmp_path, {"lists": {"tac_max_age": 1}})
    time.sleep(1.1)
    assert findings(path)["allocated TACs"].grade == "warn"


def test_a_journal(tmp_path: Path) -> None:
    path = prepared(tmp_path)
    journal = tmp_path / "state" / "journal"
    journal.mkdir()
    (journal / f"{1:020}.eirj").write_bytes(bytes(64 + 64 + 3))
    assert findings(path)["journal"].grade == "fail"
    assert "2 records are damaged" in findings(path)["journal"].text
    (journal / f"{1:020}.eirj").write_bytes(b"EIR")
    found = findings(path)["journal"]
    assert (found.grade, found.text) == ("ok", "0 records, 0 timers started, 3 octets cut off at the end")


def test_a_journal_that_is_none(tmp_path: Path) -> None:
    path = prepared(tmp_path)
    (tmp_path / "state" / "journal").write_text("")
    assert findings(path)["journal"].grade == "fail"


def test_few_descriptors(tmp_path: Path) -> None:
    path = prepared(tmp_path, {"diameter": {"max_connections": 1 << 40}})
    assert findings(path)["descriptors"].grade == "warn"


@pytest.mark.parametrize(
    ("stats", "lists_in_force", "text"),
    [
        ({"journal_available": False, "breaker_tripped": False}, {}, "full or failing"),
        ({"journal_available": True, "breaker_tripped": True}, {}, "breaker is tripped"),
        ({"journal_available": True, "breaker_tripped": False}, None, "no valid lists"),
    ],
)
def test_a_node_in_trouble(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stats: dict[str, bool],
    lists_in_force: dict[str, int] | None,
    text: str,
) -> None:
    told = {
        "open_peers": 0,
        "lists": lists_in_force,
        "stats": {"timers_running": 0, **stats},
        "timers": {"store_up": True, "store_error": ""},
    }
    monkeypatch.setattr(control, "ask", lambda *_: told)
    found = [finding for finding in doctor.examine(prepared(tmp_path)) if finding.subject == "node"]
    assert [finding.grade for finding in found] == ["ok", "fail"]
    assert text in found[1].text


def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    path = prepared(tmp_path)
    os.rename(tmp_path / "state", tmp_path / "away")
    (tmp_path / "state").write_text("a file")
    assert findings(path)["directory"].grade == "fail"
