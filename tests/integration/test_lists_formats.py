"""`eir lists build --file`: lists as others make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from eir import _core
from eir.lists.package import DELTA_KINDS, SNAPSHOT_KINDS, is_kind
from support import lists
from support.cli import Ran, eir

FILES = {
    "dirbs-blacklist": f"imei,block_date,reasons\n{lists.BLACK},20260101,dup|gsma\n3520990000000A,20260101,dup\n",
    "dirbs-notifications": "imei,imsi,msisdn,block_date,reasons\n"
    f"{lists.NATIONAL_GREY},{lists.SUBSCRIBER},1,20990601,dup\n{lists.NATIONAL_GREY},{lists.HOLDER},2,20990501,dup\n",
    "dirbs-exceptions": f"imei,imsi,msisdn\n{lists.CLONED},{lists.HOLDER},1\n",
    "stolen": f"imei,reporting_date,status\n{lists.STOLEN},20260101,\n{lists.METER},20260101,recovered\n",
    "gsma-tac": 'Name|TAC\n5" phone|35209900\n',
    "seen-before-2026-05-01": f"imei,first_seen\n{lists.WHITE},20260430\n{lists.NEW},20260501\n",
}


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Where the snapshot goes."""
    return tmp_path / "lists.eirs"


def build(snapshot: Path, files: dict[str, str]) -> Ran:
    options: list[object] = []
    for kind, text in files.items():
        path = snapshot.with_name(f"{kind}.txt")
        path.write_text(text)
        options += ["--file", f"{kind}={path}"]
    return eir("lists", "build", "-o", snapshot, "--sequence", 1, *options)


def test_lists_of_others_become_a_snapshot(snapshot: Path) -> None:
    ran = build(snapshot, FILES)
    assert ran.code == 0, ran.err
    assert "1 rows have an IMEI with signs that are no digits, 2 say nothing of the lists" in ran.err
    counts = {kind: count for kind, count in _core.Snapshot.open(snapshot).info["counts"].items() if count}
    assert counts == {"white": 1, "black": 2, "grey": 1, "allocated_tacs": 1, "pairs": 1, "deadlines": 1}


@pytest.mark.parametrize("given", ["devices", "nothing=x", "devices=/nowhere", "dirbs-new=x", "seen-before-x=y"])
def test_what_is_no_file_of_a_kind_is_refused(snapshot: Path, given: str) -> None:
    ran = eir("lists", "build", "-o", snapshot, "--sequence", 1, "--file", given)
    assert ran.code == 1
    assert ran.err.startswith(f"eir: --file {given}: ")


def test_every_kind_is_known_to_the_core(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    for kind in (*SNAPSHOT_KINDS, "seen-before-2026-05-01"):
        assert is_kind(kind, "snapshot")
        builder = _core.SnapshotBuilder(
            strict=True, max_bad_share=0.0, sequence=1, created_at=1, tac_as_of=0, hard_reasons=[]
        )
        with pytest.raises(OSError, match="nothing"):
            builder.add(kind, nothing, lambda _: None)
    for kind in DELTA_KINDS:
        assert is_kind(kind, "delta")
        with pytest.raises(OSError, match="nothing"):
            _core.Delta.read([(kind, nothing)], zone=[(0, 0)], max_bad_share=0.0)


def test_a_delta_of_dirbs_is_read(tmp_path: Path) -> None:
    blocked, gone = tmp_path / "blocked.csv", tmp_path / "removed.csv"
    blocked.write_text(f"imei,block_date,reasons\n{lists.BLACK},20260101,dup\n")
    gone.write_text(f"imei,imsi,msisdn\n{lists.CLONED},{lists.HOLDER},1\n")
    delta = _core.Delta.read([("dirbs-blocked", blocked), ("dirbs-removed", gone)], zone=[(0, 0)], max_bad_share=0.0)
    assert (delta.devices, delta.pairs) == (1, 1)
