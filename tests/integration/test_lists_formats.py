"""Lists as others make them, in by `eir lists build --file` and out by `eir lists export` and `diff`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


def build(snapshot: Path, files: dict[str, str], *further: object) -> Ran:
    options: list[object] = []
    for kind, text in files.items():
        path = snapshot.with_name(f"{kind}.txt")
        path.write_text(text)
        options += ["--file", f"{kind}={path}"]
    return eir("lists", "build", "-o", snapshot, "--sequence", 1, *options, *further)


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


def export(snapshot: Path, kind: str, output: Path) -> Path:
    ran = eir("lists", "export", kind, snapshot, "-o", output)
    assert ran.code == 0, ran.err
    return output


def differences(old: Path, new: Path) -> dict[str, Any]:
    ran = eir("lists", "diff", old, new, "--json")
    assert ran.code == 0, ran.err
    found = dict(json.loads(ran.out))
    found["moved"] = [move for move in found["moved"] if move[0] != move[1]]
    return found


NOTHING = {"moved": [], "changed": 0, "pairs_gone": 0, "pairs_come": 0, "others": []}


@pytest.mark.parametrize("end", ["", ".gz", ".zst"])
def test_what_is_exported_builds_the_same_snapshot(snapshot: Path, end: str) -> None:
    lists.build(snapshot)
    again = snapshot.with_name("again.eirs")
    options: list[object] = []
    for kind in lists.FILES:
        options += ["--file", f"{kind}={export(snapshot, kind, snapshot.with_name(f'{kind}.csv{end}'))}"]
    ran = eir("lists", "build", "-o", again, "--sequence", 1, *options)
    assert ran.code == 0, ran.err
    assert differences(snapshot, again) == NOTHING
    ran = eir("lists", "diff", snapshot, again)
    assert ran.out == "no difference\n"
    devices = snapshot.with_name(f"devices.csv{end}").read_bytes()
    assert {"": b"imei", ".gz": b"\x1f\x8b", ".zst": b"\x28\xb5"}[end] in devices[:4]


def test_an_export_for_dirbs_is_read_as_one_of_its_own(snapshot: Path) -> None:
    build(snapshot, FILES)
    files = {
        kind: export(snapshot, kind, snapshot.with_name("exported.csv")).read_text()
        for kind in ("dirbs-blacklist", "dirbs-notifications", "dirbs-exceptions", "plain-white")
    }
    again = snapshot.with_name("again.eirs")
    assert build(again, files).code == 0
    assert differences(snapshot, again) == {**NOTHING, "others": ["allocated_tacs"]}


TO_OTHERS = {
    "stolen": f"imei,reporting_date,status\n{lists.STOLEN},,blacklist\n",
    "barred": f"imei\n{lists.BLACK}\n",
    "barred-tac": "tac\n35209901\n35209902\n",
    "golden": f"golden_imei\n{lists.WHITE}\n",
    "registration": "approved_imei,make,model,status,model_number,brand_name,device_type,radio_interface,device_id\n"
    f"{lists.WHITE},,,whitelist,,,,,{lists.WHITE}\n",
    "pairing": f"imei,imsi\n{lists.CLONED},{lists.HOLDER}\n",
    "gsma-tac": "TAC|Manufacturer|Model_Name|Bands|Allocation_Date|Device_Type|Optional_Fields\n35209900||||||\n",
}


def test_what_dirbs_and_the_gsma_are_read_by_is_written(snapshot: Path) -> None:
    own = {
        "devices": f"imei,list,reason\n{lists.WHITE},white,import\n{lists.STOLEN},black,stolen\n"
        f"{lists.BLACK},black,barred\n{lists.CLONED},black,dup\n{lists.NATIONAL_GREY},grey,barred\n",
        # Of what begins or ends within a TAC, only the whole TACs are barred.
        "ranges": "from,to,list,reason\n35209900999999,35209902999999,black,barred\n35209904,35209904,black,dup\n"
        "35209905000000,35209905999998,black,barred\n35209906,35209906,white,barred\n",
        "pairs": f"imei,imsi\n{lists.CLONED},{lists.HOLDER}\n",
        "allocated-tacs": "tac\n35209900\n",
    }
    assert build(snapshot, own, "--tac-as-of", "2026-01-01").code == 0
    written = {kind: export(snapshot, kind, snapshot.with_name(f"{kind}.csv")).read_text() for kind in TO_OTHERS}
    assert written == TO_OTHERS
    # A registered device and one that is never blocked are both white here.
    again, once_more = snapshot.with_name("again.eirs"), snapshot.with_name("once-more.eirs")
    assert build(again, written, "--tac-as-of", "2026-01-01").code == 0
    for kind in TO_OTHERS:
        written[kind] = export(again, kind, snapshot.with_name(f"{kind}.csv")).read_text()
    assert written == TO_OTHERS
    assert build(once_more, written, "--tac-as-of", "2026-01-01").code == 0
    assert differences(again, once_more) == NOTHING


def test_a_difference_is_written_as_dirbs_writes_it(snapshot: Path) -> None:
    other = snapshot.with_name("other.eirs")
    build(
        snapshot,
        {
            "devices": f"imei,list,reason,until\n{lists.BLACK},black,dup,\n{lists.STOLEN},black,stolen,\n"
            f"{lists.NATIONAL_GREY},grey,dup,20990501\n{lists.METER},grey,dup,20990501\n{lists.WHITE},grey,dup,20990501\n",
            "pairs": f"imei,imsi\n{lists.CLONED},{lists.HOLDER}\n",
        },
    )
    build(
        other,
        {
            "devices": f"imei,list,reason,until\n{lists.STOLEN},black,court,\n{lists.NATIONAL_GREY},grey,dup,20990601\n"
            f"{lists.METER},black,dup,\n{lists.WHITE},white,,\n{lists.NEW},grey,gsma,20990502\n",
            "pairs": f"imei,imsi\n{lists.CLONED},{lists.SUBSCRIBER}\n",
        },
        "--as-of",
        "2026-05-01T12:00:00",
    )
    files = {kind: snapshot.with_name(kind) for kind in ("dirbs-blacklist", "dirbs-notifications", "dirbs-exceptions")}
    options = [word for kind, path in files.items() for word in (f"--{kind}", path)]
    assert eir("lists", "diff", snapshot, other, *options).code == 0
    rows = {kind: path.read_text().splitlines() for kind, path in files.items()}
    assert rows == {
        "dirbs-blacklist": [
            "imei,block_date,reasons,change_type",
            f"{lists.BLACK},20260501,dup,unblocked",
            f"{lists.STOLEN},20260501,court,changed",
            f"{lists.METER},20260501,dup,blocked",
        ],
        "dirbs-notifications": [
            "imei,imsi,msisdn,block_date,reasons,change_type",
            f"{lists.WHITE},,,20990501,dup,resolved",
            f"{lists.NATIONAL_GREY},,,20990601,dup,changed",
            f"{lists.NEW},,,20990502,gsma,new",
            f"{lists.METER},,,20990501,dup,blacklisted",
        ],
        "dirbs-exceptions": [
            "imei,imsi,msisdn,change_type",
            f"{lists.CLONED},{lists.HOLDER},,removed",
            f"{lists.CLONED},{lists.SUBSCRIBER},,added",
        ],
    }
    read = _core.Delta.read(list(files.items()), zone=[(0, 0)], max_bad_share=0.0)
    assert (read.devices, read.pairs) == (6, 2)


def test_a_difference_is_told_and_written_as_a_delta(snapshot: Path) -> None:
    other, delta, pairs = (snapshot.with_name(name) for name in ("other.eirs", "delta.csv", "pairs.csv.gz"))
    lists.build(snapshot)
    changed = {
        "devices": f"imei,list,reason,until\n{lists.WHITE},black,court,\n{lists.BLACK},black,unverified,\n"
        f"{lists.STOLEN},black,stolen,\n{lists.NEW},white,,\n{lists.NATIONAL_GREY},grey,,2026-05-01\n",
    }
    lists.build(other, changed)
    ran = eir("lists", "diff", snapshot, other, "-o", delta, "--pairs", pairs, "--timezone", "UTC")
    assert ran.out.splitlines() == [
        "white -> black: 1",
        "black -> unlisted: 1",
        "unlisted -> white: 1",
        "same list, other reason or date: 1",
        "pairs: 1 gone, 0 new",
        "differ too, which no delta brings: ranges, exempt tacs, allocated tacs, exempt imsis",
    ]
    assert delta.read_text().splitlines() == [
        "change_type,imei,list,reason,until",
        f"set,{lists.WHITE},black,court,",
        f"remove,{lists.CLONED},,,",
        f"set,{lists.NATIONAL_GREY},grey,,20260501",
        f"set,{lists.NEW},white,,",
    ]
    read = _core.Delta.read([("devices", delta), ("pairs", pairs)], zone=[(0, 0)], max_bad_share=0.0)
    assert (read.devices, read.pairs) == (4, 1)


def test_a_sound_snapshot_is_verified_and_a_damaged_one_is_not(snapshot: Path) -> None:
    lists.build(snapshot, sequence=7)
    assert eir("lists", "verify", snapshot).out == f"{snapshot}: sequence 7, sound: 1 white, 3 black, 1 grey\n"
    octets = bytearray(snapshot.read_bytes())
    octets[700] ^= 1
    snapshot.write_bytes(octets)
    ran = eir("lists", "verify", snapshot)
    assert (ran.code, ran.out) == (1, "")


def test_an_export_that_fails_leaves_what_was_there(snapshot: Path) -> None:
    lists.build(snapshot)
    output = snapshot.with_name("devices.csv")
    output.write_text("before")
    octets = snapshot.read_bytes()
    snapshot.write_bytes(octets[:-1])
    assert eir("lists", "export", "devices", snapshot, "-o", output).code == 1
    snapshot.write_bytes(octets)
    assert eir("lists", "export", "devices", snapshot, "-o", output, "--timezone", "Nowhere").code == 1
    assert eir("lists", "export", "everything", snapshot, "-o", output).code == 2
    assert eir("lists", "export", "devices", snapshot, "-o", output.with_name("none") / "x.csv").code == 1
    assert output.read_text() == "before"
