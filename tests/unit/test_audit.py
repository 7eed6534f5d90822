"""`eir.audit`: lines that stay, and what is found out of those that do not."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eir import audit
from eir.audit import AuditLog, export, read_witnessed, verify
from eir.audit_chain import GENESIS, Head, Link, encode, link

NODE = "eir1.test"
NOTE = {"kind": "note", "imei": "35209900100001", "agent": "a.agent", "reason": "seen"}
FORMATS = Path(__file__).parents[2] / "docs" / "formats.md"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[AuditLog]:
    with AuditLog.open(tmp_path / "audit", NODE, 4096) as opened:
        yield opened


def broken(directory: Path, *heads: Head) -> str:
    found = verify(directory, heads, NODE).first_break
    return "" if found is None else str(found).replace(f"{directory}/", "")


def test_the_documented_lines_are_a_trail() -> None:
    text = FORMATS.read_text()
    lines = re.findall(r'^    (\{"n":.*\})$', text[text.index("## The audit trail") :], re.MULTILINE)
    assert len(lines) == 2
    before = GENESIS
    for line in lines:
        said = json.loads(line)
        assert said["prev"] == before
        entry = {name: value for name, value in said.items() if name not in ("n", "at", "node", "prev", "hash")}
        assert encode(said["n"], said["at"], said["node"], entry, before) == (f"{line}\n".encode(), said["hash"])
        # As another program would do it.
        content, own = line[: -len(f',"hash":"{GENESIS}"}}')] + "}", said["hash"]
        assert hashlib.sha256(content.encode()).hexdigest() == own
        before = own


class TestAppend:
    def test_numbers_go_on_over_segments_and_openings(self, tmp_path: Path) -> None:
        told = []
        for at in range(5):
            with AuditLog.open(tmp_path, NODE, 4096) as log:
                told += [log.append(at, [NOTE] * 7) for _ in range(2)]
                assert log.damage == ()
        assert told == [(1 + 7 * turn, 7 + 7 * turn) for turn in range(10)]
        assert len(list(tmp_path.glob("*.jsonl"))) > 2
        checked = verify(tmp_path)
        with AuditLog.open(tmp_path, NODE, 4096) as log:
            assert checked.head == Head(NODE, *log.head)
            assert log.head[0] == checked.lines == 70

    def test_an_empty_trail(self, log: AuditLog, tmp_path: Path) -> None:
        assert log.head == (0, GENESIS)
        assert log.read(0, 10) == []
        checked = verify(tmp_path / "audit")
        assert (checked.lines, checked.head, checked.first_break) == (0, None, None)

    @pytest.mark.parametrize(
        "entry",
        [
            {"kind": "x", "imsi": "y"},
            {"kind": "x", "IMSI": None},
            {"kind": "x", "to": [{"msisdn": "y"}]},
            {"kind": "x", "holder": {"IIN": "y"}},
            {},
            {"kind": ""},
            {"kind": 1},
            {"kind": "x", "n": 1},
            {"kind": "x", "hash": "y"},
            {"kind": "x", "y": float("nan")},
            {"kind": "x", "y": b"z"},
            {"kind": "x", "y": {1: 2}},
            {"kind": "x", "y": "\ud800"},
            {"kind": "x", "y": "z" * (1 << 20)},
        ],
        ids=str,
    )
    def test_what_is_refused_leaves_nothing(self, log: AuditLog, entry: dict[str, object]) -> None:
        with pytest.raises(ValueError) as caught:
            log.append(1, [NOTE, entry])
        assert "y" not in str(caught.value).split() or "imsi" not in entry
        assert log.head[0] == 0
        assert log.append(1, [NOTE]) == (1, 1)

    def test_what_refers_to_itself_and_no_entry_are_refused(self, log: AuditLog) -> None:
        entry: dict[str, object] = {"kind": "x"}
        entry["again"] = entry
        for entries in ([entry], []):
            with pytest.raises(ValueError):
                log.append(1, entries)

    @pytest.mark.parametrize("fails", ["write", "fsync", "short"])
    def test_a_failure_leaves_nothing_and_the_next_call_tries_anew(
        self, log: AuditLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
    ) -> None:
        log.append(1, [NOTE])
        write = os.write

        def fail(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def write_a_part(descriptor: int, data: memoryview) -> int:
            monkeypatch.setattr(os, "write", fail)
            return write(descriptor, data[:100])

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync" if fails == "fsync" else "write", write_a_part if fails == "short" else fail)
            for _ in range(3):
                with pytest.raises(OSError):
                    log.append(2, [NOTE] * 3)
                assert log.head[0] == 1
                assert [line["n"] for line in log.read(0, 10)] == [1]
            monkeypatch.undo()
        assert log.append(3, [NOTE] * 2) == (2, 3)
        assert verify(tmp_path / "audit").lines == 3
        assert [line["at"] for line in log.read(0, 10)] == [1, 3, 3]

    def test_only_one_may_append(self, log: AuditLog, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="another process appends"):
            AuditLog.open(tmp_path / "audit", NODE, 4096)
        log.close()
        AuditLog.open(tmp_path / "audit", NODE, 4096).close()
        with pytest.raises(OSError, match="closed"):
            log.append(1, [NOTE])

    def test_threads(self, log: AuditLog, tmp_path: Path) -> None:
        followed: list[object] = []

        def follow() -> None:
            while len(followed) < 200:
                followed.extend(line["n"] for line in log.read(len(followed), 7))

        def append() -> None:
            for _ in range(25):
                log.append(1, [NOTE] * 2)

        threads = [threading.Thread(target=target) for target in (append, append, append, append, follow)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert followed == list(range(1, 201))
        assert verify(tmp_path / "audit").lines == 200


class TestRead:
    def test_any_place_and_any_number(self, log: AuditLog) -> None:
        for at in range(20):
            log.append(at, [NOTE] * 5)
        for after in (0, 1, 13, 50, 99, 100, 1000):
            for most in (1, 3, 200):
                numbers = [line["n"] for line in log.read(after, most)]
                assert numbers == list(range(after + 1, min(after + most, 100) + 1))

    def test_who_follows_is_not_searched_for(self, log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
        for at in range(20):
            log.append(at, [NOTE] * 5)
        asked = []

        def count(line: bytes) -> Link | None:
            asked.append(line)
            return link(line)

        monkeypatch.setattr("eir.audit.link", count)
        after = 0
        while lines := log.read(after, 1):
            after += len(lines)
        assert after == 100
        assert len(asked) <= 250

    def test_damage_is_left_out(self, tmp_path: Path) -> None:
        with AuditLog.open(tmp_path, NODE, 1 << 20) as log:
            log.append(1, [NOTE] * 5)
        (path,) = tmp_path.glob("*.jsonl")
        lines = path.read_bytes().splitlines(keepends=True)
        for damaged in (2, 4):
            lines[damaged] = lines[damaged].replace(b"seen", b"sent")
        path.write_bytes(b"".join(lines))
        with AuditLog.open(tmp_path, NODE, 1 << 20) as log:
            assert [(found.path, found.line) for found in log.damage] == [(path, 3), (path, 5)]
            assert log.head[0] == 4
            # Number 5 had been given away.
            assert log.append(2, [NOTE]) == (6, 6)
            assert [line["n"] for line in log.read(0, 10)] == [1, 2, 4, 6]
            assert log.read(4, 1)[0]["prev"] == log.read(3, 1)[0]["hash"]
        assert "jsonl:3: " in broken(tmp_path)

    def test_who_follows_comes_over_damage_at_a_segment_s_end(self, tmp_path: Path) -> None:
        with AuditLog.open(tmp_path, NODE, 1 << 20) as log:
            log.append(1, [NOTE] * 3)
        (path,) = tmp_path.glob("*.jsonl")
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
        with AuditLog.open(tmp_path, NODE, 1 << 20) as log:
            assert [found.line for found in log.damage] == [3]
            assert [line["n"] for line in log.read(0, 9)] == [1, 2]
            assert log.read(2, 9) == []
            assert log.append(2, [NOTE] * 2) == (4, 5)
            assert [line["n"] for line in log.read(2, 1)] == [4]
            assert [line["n"] for line in log.read(4, 9)] == [5]


class TestVerify:
    @pytest.fixture
    def trail(self, tmp_path: Path) -> list[Path]:
        with AuditLog.open(tmp_path, NODE, 4096) as log:
            for at in range(10):
                log.append(at, [NOTE] * 5)
        return sorted(tmp_path.glob("*.jsonl"))

    def test_a_missing_segment(self, trail: list[Path], tmp_path: Path) -> None:
        trail[1].unlink()
        assert broken(tmp_path) == f"{trail[2].name}: line {int(trail[1].stem)} should be its first"
        with AuditLog.open(tmp_path, NODE, 4096) as log:
            assert len(log.damage) == 1
            assert log.append(1, [NOTE]) == (51, 51)

    def test_a_line_that_is_missing_or_twice_or_of_another_form(self, trail: list[Path], tmp_path: Path) -> None:
        lines = trail[1].read_bytes().splitlines(keepends=True)
        said = json.loads(lines[1])
        own = said.pop("hash")
        spaced = (json.dumps(said)[:-1] + f', "hash": "{own}"}}\n').encode()
        for changed in (
            [lines[0], *lines[2:]],
            [*lines[:2], *lines[1:]],
            [lines[0], spaced, *lines[2:]],
            [b"x" * 3_000_000],
        ):
            trail[1].write_bytes(b"".join(changed))
            assert broken(tmp_path).startswith(f"{trail[1].name}:")

    def test_a_trail_that_was_rewritten(self, trail: list[Path], tmp_path: Path) -> None:
        first = json.loads(trail[0].read_bytes().splitlines()[0])
        checked = verify(tmp_path)
        assert checked.head is not None
        heads = [Head(NODE, 1, first["hash"]), checked.head, Head("other.test", 3, "0" * 64)]
        assert verify(tmp_path, heads).compared == 2
        assert broken(tmp_path, *heads) == ""
        for path in trail:
            path.unlink()
        with AuditLog.open(tmp_path, NODE, 4096) as log:
            log.append(0, [{**NOTE, "reason": "other"}])
        assert broken(tmp_path) == ""
        assert broken(tmp_path, heads[0]).endswith(":1: line 1 is not the one that others have witnessed")
        assert broken(tmp_path, heads[1]).endswith("the trail ends before line 50, which others have witnessed")
        for path in tmp_path.glob("*.jsonl"):
            path.unlink()
        assert "ends before line 1" in broken(tmp_path, heads[0])
        assert broken(tmp_path, heads[2]) == ""

    def test_while_it_is_written(self, trail: list[Path], tmp_path: Path) -> None:
        with trail[-1].open("ab") as file:
            file.write(b'{"n":51,"at":1')
        checked = verify(tmp_path)
        assert (checked.lines, checked.unfinished, checked.first_break) == (50, 14, None)

    def test_another_node_in_the_line_is_no_way_out(self, trail: list[Path], tmp_path: Path) -> None:
        head = Head(NODE, 50, "1" * 64)
        assert "line 50 is not" in broken(tmp_path, head)


def test_witnessing(tmp_path: Path) -> None:
    heads = [Head("a.test", 1, "1" * 64), Head("b.test", 1, "2" * 64), Head("a.test", 2, "3" * 64)]
    with AuditLog.open(tmp_path, NODE, 4096) as log:
        assert [log.witness(head) for head in (*heads, heads[1], heads[2])] == [True, True, True, False, False]
    path = tmp_path / audit.WITNESSED
    path.write_bytes(path.read_bytes() + b'no head\n{"node":"a.test","n":')
    with AuditLog.open(tmp_path, NODE, 4096) as log:
        assert not log.witness(heads[2])
        # The same number and another hash is what witnesses are for.
        assert log.witness(Head("a.test", 2, "4" * 64))
    assert list(read_witnessed(path)) == [*heads, Head("a.test", 2, "4" * 64)]


def test_export(tmp_path: Path) -> None:
    with AuditLog.open(tmp_path, NODE, 4096) as log:
        log.append(
            10, [NOTE, {"kind": "replace", "agent": "b.agent", "old": "352099001000019", "new": "35209900100002"}]
        )
        log.append(20, [{"kind": "note", "imeis": ["35209900100002"]}, {"kind": "note", "text": "35209900100001 seen"}])

    def numbers(*arguments: object, **named: object) -> list[object]:
        return [line["n"] for line in export(tmp_path, *arguments, **named)]  # type: ignore[arg-type]

    assert numbers() == [1, 2, 3, 4]
    assert numbers(11) == [3, 4]
    assert numbers(None, 10) == [1, 2]
    assert numbers(imei="35209900100001") == [1, 2]
    assert numbers(imei="352099001000027") == [2, 3]
    assert numbers(agent="b.agent") == [2]
    assert numbers(20, 20, "35209900100002", "b.agent") == []
