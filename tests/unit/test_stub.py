"""`eir/_core.pyi` says what `eir._core` is, no more and no less."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import eir
from eir import _core, config
from eir.app import build_policy
from eir.diameter.dictionary import KNOWN_AVPS
from support import lists
from support.node import NodeProcess, write_config

STUB = Path(eir.__file__).with_name("_core.pyi")
CLASSES = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ClassDef)]
TYPED_DICTS: dict[str, set[str]] = {}
for node in CLASSES:
    (base,) = [ast.unparse(base) for base in node.bases] or [""]
    if base == "TypedDict" or base in TYPED_DICTS:
        TYPED_DICTS[node.name] = TYPED_DICTS.get(base, set()) | {
            field.target.id
            for field in node.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        }
# Names that are for type checkers alone, and the list of names that PyO3 makes.
OF_TYPES_ALONE = {"__all__", "Event", "JournalRecord", "StrPath", "Traced", *TYPED_DICTS}


def test_the_stub_is_the_module(tmp_path: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "eir._core", "--concise"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    # That those are found shows that the stub is: without a py.typed marker it would not be, nor any fault in it.
    remarks = dict(line.split(" ", 1) for line in checked.stdout.splitlines())
    absent = dict.fromkeys(OF_TYPES_ALONE - {"__all__"}, "is not present at runtime")
    assert remarks == {
        f"eir._core.{name}": text for name, text in (*absent.items(), ("__all__", "is not present in stub"))
    }


def test_dictionaries_have_the_keys_of_the_stub(tmp_path: Path, shared_node: NodeProcess) -> None:
    path = write_config(tmp_path)
    settings, country = config.load(path)
    now = int(time.time())
    policy = build_policy(settings, country, now)
    report = lists.build(tmp_path / "lists.eirs")
    snapshot = _core.Snapshot.open(tmp_path / "lists.eirs")
    delta = _core.Delta.read([], zone=[(0, 0)], max_bad_share=0.0)
    host, port = config.parse_endpoint(f"127.0.0.1:{shared_node.listening[0][1]}")
    load = _core.run_load(host, port, window=1, duration=0.05, imeis=[int(lists.WHITE)])
    status = shared_node.ask("status")
    found: dict[str, Any] = {
        "BuildReport": report,
        "RowsReport": delta.report,
        "Counts": report["counts"],
        "SnapshotInfo": snapshot.info,
        "Explanation": snapshot.explain(lists.WHITE, None, policy, now),
        "LoadReport": load,
        "Stats": status["stats"],
        "PeerStats": status["stats"]["before_open"],
        "ListsPosition": status["position"],
        "Forecast": forecast(tmp_path, policy, snapshot),
        "Comparison": _core.compare(snapshot, snapshot),
    }
    assert {name: set(value) for name, value in found.items()} == TYPED_DICTS


def forecast(directory: Path, policy: _core.Policy, snapshot: _core.Snapshot) -> _core.Forecast:
    node = _core.Node(
        origin_host="eir.test",
        origin_realm="test",
        origin_state_id=1,
        workers=1,
        max_events=64,
        hold_ms=1000,
        journal_directory=directory / "journal",
        journal_segment_bytes=1 << 20,
        journal_max_bytes=1 << 30,
        policy=policy,
        in_use_bytes=1 << 20,
    )
    try:
        return node.foresee_lists(snapshot, [], 1)
    finally:
        node.stop()


def test_both_planes_know_the_same_avps() -> None:
    assert set(_core.KNOWN_AVPS) == KNOWN_AVPS
    assert len(_core.KNOWN_AVPS) == len(KNOWN_AVPS)
