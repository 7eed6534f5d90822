"""The audit trail and kill -9, and a full disk: what was acknowledged is there, and nothing is there in part."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eir.audit import AuditLog, verify
from support.mounts import small_disk

APPEND = """
import sys
from pathlib import Path
from eir.audit import AuditLog
log = AuditLog.open(Path(sys.argv[1]), "eir1.test", 8192)
number = 0
while True:
    number += 1
    first, last = log.append(number, [{"kind": "note", "number": number}] * (number % 4 + 1))
    print(first, last, number, flush=True)
"""


def test_acknowledged_lines_outlive_the_process(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    acknowledged = {}
    for _ in range(request.config.getoption("--rounds")):
        process = subprocess.Popen([sys.executable, "-c", APPEND, tmp_path], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        told = [process.stdout.readline()]
        time.sleep(random.uniform(0.0, 0.1))
        process.kill()
        told += process.stdout.readlines()
        process.wait(30)
        for line in told:
            if line.endswith("\n"):
                first, last, number = map(int, line.split())
                acknowledged.update(dict.fromkeys(range(first, last + 1), number))
    with AuditLog.open(tmp_path, "eir1.test", 8192) as log:
        assert log.damage == ()
        found = {line["n"]: line["number"] for line in log.read(0, 1 << 30)}
    assert acknowledged
    assert acknowledged.items() <= found.items()
    assert list(found) == list(range(1, len(found) + 1))
    assert verify(tmp_path).first_break is None


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 256 << 10):
        directory = tmp_path / "disk" / "audit"
        ballast = tmp_path / "disk" / "ballast"
        ballast.write_bytes(bytes(128 << 10))
        entry = {"kind": "note", "text": "x" * 1000}
        with AuditLog.open(directory, "eir1.test", 16 << 10) as log:
            last = 0
            with pytest.raises(OSError):
                while True:
                    _, last = log.append(1, [entry] * 7)
            assert log.head[0] == last
            with pytest.raises(OSError):
                log.append(1, [entry] * 20)
            ballast.unlink()
            assert log.append(2, [entry] * 7) == (last + 1, last + 7)
        checked = verify(directory)
        assert (checked.lines, checked.first_break) == (last + 7, None)
