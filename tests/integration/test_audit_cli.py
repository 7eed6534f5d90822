"""`eir audit`: the trail checked and handed out, also while a node has it open."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from eir.audit import AuditLog
from eir.audit_chain import Head
from support.cli import Ran, eir
from support.node import write_config

DEVICE = "35209900100001"
DAY = 1_735_671_600
"""1 January 2025, 0:00 in Almaty."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, {"node": {"origin_host": "eir1.test"}})


@pytest.fixture
def directory(config: Path) -> Path:
    return config.parent / "state" / "audit"


@pytest.fixture
def log(directory: Path) -> Iterator[AuditLog]:
    """A trail that is open for appending all the time."""
    with AuditLog.open(directory, "eir1.test", 4096) as opened:
        opened.append(DAY - 1, [{"kind": "override", "agent": "a.agent", "reason": "=1+1"}])
        opened.append(
            DAY, [{"kind": "lists-set", "agent": "b.agent", "imei": DEVICE, "reason": "құжат", "change": "white"}]
        )
        opened.append(DAY + 86399, [{"kind": "note"}])
        opened.append(DAY + 86400, [{"kind": "note", "imei": "35209900100002"}])
        yield opened


def lines(ran: Ran) -> list[int]:
    assert ran.code == 0, ran.err
    return [json.loads(line)["n"] for line in ran.out.splitlines()]


class TestVerify:
    def test_a_sound_trail(self, config: Path, log: AuditLog) -> None:
        ran = eir("audit", "verify", "-c", config)
        assert (ran.code, ran.out) == (0, f"4 lines are sound; the last is {log.head[1]}\n")
        told = json.loads(eir("audit", "verify", "--json", "-c", config).out)
        head = {"node": "eir1.test", "n": 4, "hash": log.head[1]}
        assert told == {"sound": True, "lines": 4, "head": head, "compared": 0, "unfinished": 0, "first_break": None}

    def test_a_broken_trail(self, config: Path, directory: Path, log: AuditLog) -> None:
        (path,) = directory.glob("*.jsonl")
        path.write_bytes(path.read_bytes().replace(b"white", b"black"))
        ran = eir("audit", "verify", "-c", config)
        assert ran.code == 1
        assert ran.out.startswith(f"BROKEN at {path}:2: ")
        ran = eir("audit", "verify", "--json", "-c", config)
        told = json.loads(ran.out)
        assert (ran.code, told["sound"], told["lines"]) == (1, False, 1)
        assert (told["first_break"]["path"], told["first_break"]["line"]) == (str(path), 2)

    def test_what_others_have_witnessed(self, config: Path, directory: Path, log: AuditLog, tmp_path: Path) -> None:
        with AuditLog.open(tmp_path / "other", "eir2.test", 4096) as other:
            other.witness(Head("eir1.test", *log.head))
            ran = eir("audit", "verify", "--witnessed", tmp_path / "other" / "witnessed.jsonl", "-c", config)
            assert (ran.code, "1 witnessed heads of this node compared, of 1" in ran.out) == (0, True)
            other.witness(Head("eir1.test", 9, "0" * 64))
        ran = eir("audit", "verify", "--witnessed", tmp_path / "other" / "witnessed.jsonl", "-c", config)
        assert ran.code == 1
        assert "the trail ends before line 9" in ran.out

    def test_no_trail(self, config: Path) -> None:
        ran = eir("audit", "verify", "-c", config)
        assert (ran.code, ran.err.startswith("eir: ")) == (1, True)


class TestExport:
    def test_choices(self, config: Path, log: AuditLog) -> None:
        def export(*options: object) -> list[int]:
            return lines(eir("audit", "export", *options, "-c", config))

        assert export() == [1, 2, 3, 4]
        assert export("--from", "2025-01-01") == [2, 3, 4]
        assert export("--to", "2025-01-01") == [1, 2, 3]
        assert export("--from", "2025-01-01T00:00:01", "--to", "2025-01-02T00:00:00") == [3, 4]
        assert export("--imei", DEVICE) == [2]
        assert export("--agent", "a.agent") == [1]

    def test_csv(self, config: Path, log: AuditLog) -> None:
        ran = eir("audit", "export", "--format", "csv", "-c", config)
        rows = list(csv.DictReader(io.StringIO(ran.out)))
        assert [row["n"] for row in rows] == ["1", "2", "3", "4"]
        assert rows[0]["reason"] == "'=1+1"
        assert (rows[1]["at"], rows[1]["imei"]) == ("2025-01-01 00:00:00 +05", DEVICE)
        assert (rows[1]["reason"], json.loads(rows[1]["details"])) == ("құжат", {"change": "white"})
        assert rows[3]["hash"] == log.head[1]

    @pytest.mark.parametrize("options", [("--from", "yesterday"), ("--to", "2025-02-30"), ("--imei", "12")])
    def test_what_is_no_choice(self, config: Path, log: AuditLog, options: tuple[str, str]) -> None:
        ran = eir("audit", "export", *options, "-c", config)
        assert (ran.code, ran.err.startswith("eir: ")) == (1, True)
