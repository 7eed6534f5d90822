"""What is in force behind what people did, and after a restart: `eir.lists.apply` above a data plane that is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from eir import _core
from eir.lists import manifest as manifests
from eir.lists.apply import ListRules, NationalLists
from eir.lists.guard import Limits
from eir.lists.package import ListFile, Manifest, Outcome, Package, Result
from eir.lists.versions import InForce, Versions
from support import lists, packages

NOW = 1_790_000_000
SNAPSHOT = f"{lists.WHITE},white,\n{lists.BLACK},black,stolen\n"


class Plane:
    """Holds what is put in force, by sequence."""

    def __init__(self) -> None:
        self.sequence: int | None = None
        self.refuses = False
        self.deltas = 0
        self.counts = {"white": 1, "black": 1, "grey": 0}

    def set_lists(self, snapshot: _core.Snapshot, deltas: list[tuple[_core.Delta, int, int]]) -> None:
        self.sequence = deltas[-1][1] if deltas else snapshot.info["sequence"]
        self.deltas = len(deltas)

    def apply_delta(self, delta: _core.Delta, sequence: int, as_of: int) -> None:
        if self.refuses:
            raise ValueError("too many deltas since the snapshot; a new snapshot is needed")
        self.sequence = sequence
        self.deltas += 1

    def lists_position(self) -> dict[str, int] | None:
        return None if self.sequence is None else {"sequence": self.sequence, "deltas": self.deltas}

    def lists_counts(self) -> dict[str, int]:
        return self.counts

    def foresee_lists(self, *_: object) -> dict[str, Any]:
        return {"turned_black": 0, "freed": 0, "first": [], "come": self.counts, "gone": self.counts}

    foresee_delta = foresee_lists


class Lists:
    """The lists of a node that can be started again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.versions = Versions(root)
        self.start()

    def start(self) -> None:
        rules = ListRules(
            country="test",
            keys=(manifests.public_key(packages.public_pem()),),
            limits=Limits(shrink=0.5, grow=0.5, ignored=100, turned_black=100, bad_rows=0.5),
            zone=ZoneInfo("UTC"),
            hard_reasons=("stolen",),
            keep=0,
            scrub=0,
        )
        self.plane = Plane()
        node = cast(_core.Node, self.plane)
        self.lists = NationalLists(node, self.versions, lambda: rules, lambda: None, lambda: NOW)
        self.lists.start()

    def imported(
        self,
        sequence: int,
        rows: str,
        *,
        previous: int | None = None,
        signed: bool = False,
        counts: Mapping[str, int] | None = None,
    ) -> Outcome:
        """A package by hand, a delta where `previous` is given; or one that comes by itself."""
        made = packages.make(sequence, rows, previous=previous, as_of=NOW, counts=counts)
        staged = self.lists.staging()
        for name, octets in made.files.items():
            (staged / name).write_bytes(octets)
        package = Package(made.manifest, made.manifest_bytes, made.signature if signed else b"", staged)
        if signed:
            return asyncio.run(self.lists.offer(package, "test"))
        return asyncio.run(self.lists.import_package(package, "a.agent", approved=False, dry_run=False))

    def back_to(self, sequence: int) -> None:
        asyncio.run(self.lists.roll_back(sequence, "a.agent"))

    def restarted(self) -> int | None:
        self.start()
        return self.plane.sequence


def change(device: str = lists.NEW) -> str:
    return f"set,{device},white,,\n"


@pytest.fixture
def followed(tmp_path: Path) -> Lists:
    """A snapshot and two deltas above it: sequences 5, 6 and 7."""
    found = Lists(tmp_path / "versions")
    assert found.imported(5, SNAPSHOT).result is Result.APPLIED
    for sequence in (6, 7):
        assert found.imported(sequence, change(), previous=sequence - 1).result is Result.APPLIED
    return found


def test_what_the_data_plane_does_not_take_is_not_kept(followed: Lists) -> None:
    followed.plane.refuses = True
    outcome = followed.imported(8, change(), previous=7)
    assert (outcome.result, outcome.reason) == (
        Result.REFUSED,
        "too many deltas since the snapshot; a new snapshot is needed",
    )
    assert followed.versions.deltas() == [6, 7]
    assert followed.restarted() == 7


@pytest.mark.parametrize(
    "act",
    [
        lambda found: found.imported(8, change(), previous=6),
        lambda found: found.imported(8, SNAPSHOT),
        lambda found: found.imported(7, SNAPSHOT),
    ],
    ids=["delta", "snapshot", "snapshot of a sequence that was there"],
)
def test_what_a_person_brings_after_going_back_stays_over_a_restart(
    followed: Lists, act: Callable[[Lists], Outcome]
) -> None:
    assert followed.imported(8, change(), previous=7).result is Result.APPLIED
    followed.back_to(6)
    assert act(followed).result is Result.APPLIED
    present = followed.plane.sequence
    assert followed.restarted() == present
    assert followed.lists.state.held


def test_going_back_stays_over_a_restart_and_a_load(followed: Lists) -> None:
    followed.back_to(6)
    assert followed.restarted() == 6
    path = followed.versions.snapshot(5) / "lists.eirs"
    followed.lists.take_file(_core.Snapshot.open(path), path)
    assert followed.plane.sequence == 6
    assert followed.versions.in_force() == InForce(5, until=6, held=True)
    assert followed.imported(8, SNAPSHOT, signed=True).result is Result.HELD
    asyncio.run(followed.lists.follow("a.agent"))
    assert followed.imported(8, SNAPSHOT, signed=True).result is Result.APPLIED
    assert followed.restarted() == 8


def test_a_national_snapshot_takes_the_place_of_deltas(followed: Lists) -> None:
    assert followed.imported(8, change(), previous=7).result is Result.APPLIED
    assert followed.imported(7, SNAPSHOT).result is Result.KNOWN
    assert followed.imported(5, SNAPSHOT, signed=True).result is Result.KNOWN
    assert followed.imported(7, SNAPSHOT, signed=True).result is Result.APPLIED
    assert (followed.plane.sequence, followed.plane.deltas) == (8, 1)
    assert followed.imported(8, SNAPSHOT, signed=True).result is Result.APPLIED
    assert (followed.restarted(), followed.plane.deltas) == (8, 0)
    assert followed.versions.in_force() == InForce(8)


def test_a_snapshot_whose_deltas_are_not_kept_is_refused(followed: Lists) -> None:
    followed.versions.discard(followed.versions.delta(7))
    outcome = followed.imported(6, SNAPSHOT, signed=True)
    assert outcome == Outcome(Result.REFUSED, "the deltas from it to sequence 7, in force, are not kept")
    assert followed.plane.sequence == 7


def test_damage_leads_no_further_than_where_somebody_went_back_to(followed: Lists) -> None:
    for sequence in (8, 9, 10):
        assert followed.imported(sequence, change(), previous=sequence - 1).result is Result.APPLIED
    assert followed.imported(8, SNAPSHOT, signed=True).result is Result.APPLIED
    followed.back_to(9)
    path = followed.versions.snapshot(8) / "lists.eirs"
    octets = bytearray(path.read_bytes())
    octets[-1] ^= 1
    path.write_bytes(octets)
    present = followed.lists._snapshot
    assert present is not None
    asyncio.run(followed.lists._fall_back(present, "damaged"))
    assert followed.versions.in_force() == InForce(5, until=9, held=True)
    assert [followed.plane.sequence, followed.restarted()] == [9, 9]


def test_lists_that_differ_want_a_snapshot_and_are_told(followed: Lists) -> None:
    sound = {"white": 1, "black": 1, "grey": 0}
    assert followed.imported(8, change(), previous=7, signed=True, counts=sound).result is Result.APPLIED
    assert (followed.lists.state.differ, followed.lists.wants(8)) == ("", False)
    other = {"white": 3, "black": 1, "grey": 0}
    assert followed.imported(9, change(), previous=8, signed=True, counts=other).result is Result.APPLIED
    assert followed.lists.state.differ == "1 white here and 3 there"
    assert [followed.lists.wants(sequence) for sequence in (5, 6, 9, 10)] == [False, True, True, False]
    assert followed.imported(8, SNAPSHOT, signed=True, counts=sound).result is Result.APPLIED
    assert followed.lists.state.differ == ""


def test_many_deltas_want_a_snapshot(followed: Lists) -> None:
    assert not followed.lists.wants(7)
    followed.plane.deltas = 1000
    assert followed.lists.wants(7)


def test_a_snapshot_that_holds_other_than_it_says_is_refused(followed: Lists) -> None:
    counts = {"white": 2, "black": 1, "grey": 0}
    outcome = followed.imported(8, SNAPSHOT, signed=True, counts=counts)
    assert outcome.result is Result.REFUSED
    assert outcome.reason.startswith("there are 1 white devices, and 2 by its manifest; ")
    # A row that is wrong may be what is missing.
    rows = SNAPSHOT + "no,white,\n"
    assert followed.imported(9, rows, signed=True, counts=counts).result is Result.APPLIED


def test_more_rows_than_the_manifest_says_are_not_read(followed: Lists) -> None:
    made = packages.make(8, "".join(change(imei) for imei in lists.new_devices(50)), previous=7, as_of=NOW)
    (file,) = made.manifest.files
    lying = Manifest("delta", "test", 8, 7, NOW, None, (ListFile(file.name, file.kind, file.octets, 3, file.sha256),))
    octets = manifests.encode(lying)
    staged = followed.lists.staging()
    (staged / file.name).write_bytes(made.files[file.name])
    package = Package(lying, octets, manifests.sign(octets, packages.KEY), staged)
    outcome = asyncio.run(followed.lists.offer(package, "test"))
    assert outcome.result is Result.REFUSED
    assert "more rows than are taken" in outcome.reason


def test_what_is_to_be_said_of_rows_is_told_and_counted(followed: Lists) -> None:
    rows = f"set,{lists.BLACK}1,white,,\nset,no,white,,\nset,{lists.WHITE},white,,\nset,{lists.NEW},white,,\n"
    outcome = followed.imported(8, rows, previous=7)
    assert outcome.result is Result.APPLIED
    assert "; 1 rows wrong; 1 rows with another check digit; devices.csv:3: not an IMEI" in outcome.reason
    assert followed.lists.history()[-1]["told"] == outcome.reason
    assert followed.lists.state.rows["rows"] == 4 + 2 + 1 + 1
    assert followed.lists.state.rows["check_digit_mismatches"] == 1
