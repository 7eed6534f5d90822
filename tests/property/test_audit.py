"""The audit trail under changes of any octet and cuts at any place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from eir.audit import AuditLog, verify
from eir.audit_chain import decode

SEGMENT_BYTES = 4096
NAMES = st.text(max_size=8).filter(lambda name: name.casefold() not in {"imsi", "msisdn", "iin"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(NAMES, values, max_size=3),
    max_leaves=6,
)
OWN = ("n", "at", "node", "kind", "prev", "hash")
ENTRIES = st.builds(
    lambda kind, fields: {"kind": kind, **fields},
    st.text(min_size=1, max_size=8),
    st.dictionaries(NAMES.filter(lambda name: name not in OWN), VALUES, max_size=4),
)


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for one example."""
    directory = Path(tempfile.mkdtemp())
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def make_trail(directory: Path) -> list[Path]:
    """A trail of several segments."""
    with AuditLog.open(directory, "eir1.test", SEGMENT_BYTES) as log:
        for number in range(12):
            log.append(1_700_000_000 + number, [{"kind": "note", "text": "é\n" * 60, "x": {"hash": "0" * 64}}] * 4)
    return sorted(directory.glob("*.jsonl"))


@cache
def content_of_a_trail() -> dict[str, bytes]:
    with scratch() as directory:
        return {path.name: path.read_bytes() for path in make_trail(directory)}


@contextmanager
def trail() -> Iterator[list[Path]]:
    """The segments of a trail that a test may do with as it likes."""
    with scratch() as directory:
        for name, content in content_of_a_trail().items():
            (directory / name).write_bytes(content)
        yield sorted(directory.iterdir())


@given(st.lists(st.lists(ENTRIES, min_size=1, max_size=3), min_size=1, max_size=4))
def test_what_is_appended_is_read_and_verifies(batches: list[list[dict[str, object]]]) -> None:
    with scratch() as directory, AuditLog.open(directory, "узел.test", SEGMENT_BYTES) as log:
        for at, batch in enumerate(batches):
            log.append(at, batch)
        wanted = [(at, entry) for at, batch in enumerate(batches) for entry in batch]
        found = log.read(0, len(wanted) + 1)
        assert [line["n"] for line in found] == list(range(1, len(wanted) + 1))
        for line, (at, entry) in zip(found, wanted, strict=True):
            assert {name: value for name, value in line.items() if name in entry} == entry
            assert (line["at"], line["node"]) == (at, "узел.test")
        checked = verify(directory)
        assert (checked.lines, checked.first_break) == (len(wanted), None)


@given(st.data())
def test_any_octet_that_is_changed_is_found(data: st.DataObject) -> None:
    with trail() as segments:
        assert len(segments) > 2
        path = data.draw(st.sampled_from(segments))
        content = bytearray(path.read_bytes())
        # Line feeds are few, and what ends a line is what is easiest to get wrong.
        feeds = [at for at, octet in enumerate(content) if octet == 10]
        at = data.draw(st.sampled_from(feeds) | st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        found = verify(path.parent).first_break
        assert found is not None
        assert found.path == path
        # A change that makes or removes a line feed moves what follows, never what is before.
        assert found.line == content[:at].count(b"\n") + 1
        # It does not keep the node from going on, and no number is given twice.
        before = {line["n"] for other in segments for line in map(decode, other.open("rb")) if line}
        with AuditLog.open(path.parent, "eir1.test", SEGMENT_BYTES) as log:
            first, last = log.append(1_800_000_000, [{"kind": "note"}] * 2)
            assert first > max(number for number in before if isinstance(number, int))
            assert [line["n"] for line in log.read(first - 1, 9)] == [first, last]
            assert log.damage or path != segments[-1]


@given(st.data())
def test_a_cut_at_any_octet_leaves_what_was_complete(data: st.DataObject) -> None:
    with trail() as segments:
        path = segments[-1]
        content = path.read_bytes()
        ends = [at for at, octet in enumerate(content) if octet == 10]
        near = [at + offset for at in ends for offset in (-1, 0, 1)]
        cut = data.draw(st.sampled_from(near) | st.integers(0, len(content)))
        path.write_bytes(content[:cut])
        whole = int(path.stem) - 1 + content[:cut].count(b"\n")
        checked = verify(path.parent)
        assert (checked.lines, checked.first_break) == (whole, None)
        assert checked.unfinished == cut - (content.rfind(b"\n", 0, cut) + 1)
        with AuditLog.open(path.parent, "eir1.test", SEGMENT_BYTES) as log:
            assert log.damage == ()
            assert log.head[0] == whole
            assert log.append(1_800_000_000, [{"kind": "note"}]) == (whole + 1, whole + 1)
        checked = verify(path.parent)
        assert (checked.lines, checked.unfinished, checked.first_break) == (whole + 1, 0, None)


@given(st.binary(max_size=300), st.integers(0, 3))
def test_files_of_anything_open_and_verify(octets: bytes, kept: int) -> None:
    with trail() as segments:
        for path in segments[kept:-1]:
            path.write_bytes(octets)
        (segments[-1].parent / "00000000000000009999.jsonl").write_bytes(octets)
        verify(segments[-1].parent)
        with AuditLog.open(segments[-1].parent, "eir1.test", SEGMENT_BYTES) as log:
            first, _ = log.append(0, [{"kind": "note"}])
            assert first >= 9999
            assert [line["n"] for line in log.read(first - 1, 2)] == [first]
