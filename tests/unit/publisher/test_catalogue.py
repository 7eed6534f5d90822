"""`eir.publisher.catalogue`: changes, and the packages they make; what is no change; what an end in between leaves."""

from __future__ import annotations

import gzip
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eir.lists import manifest as manifests
from eir.lists.package import Manifest
from eir.publisher import catalogue as catalogues
from eir.publisher.catalogue import Catalogue, Change, read_changes

ONE, TWO, THREE = 35900000000001, 35900000000002, 35900000000003
DELTA = "change_type,imei,list,reason,until\n"
SNAPSHOT = "imei,list,reason,until\n"


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    made = Catalogue(tmp_path / "publisher", "test")
    yield made
    made.close()


def manifest_of(place: Path) -> Manifest:
    octets = (place / "manifest.json").read_bytes()
    key = manifests.public_key((place.parents[1] / "key.pub.pem").read_bytes())
    assert manifests.is_signed(octets, (place / "manifest.json.sig").read_bytes(), [key])
    return manifests.parse(octets)


def rows(place: Path) -> str:
    return gzip.decompress((place / "devices.csv.gz").read_bytes()).decode()


def files(catalogue: Catalogue) -> set[str]:
    found = (path for kind in ("deltas", "snapshots") for path in (catalogue.directory / kind).iterdir())
    return {f"{path.parent.name}/{path.name}" for path in found}


def test_each_change_is_a_delta_and_a_snapshot_is_all_of_them(catalogue: Catalogue) -> None:
    assert catalogue.change([Change(TWO, "black", "stolen"), Change(ONE, "grey", "", "20300101")]) == 1
    assert catalogue.change([Change(TWO, "white"), Change(THREE, "white"), Change(TWO, None)]) == 2
    first, second = (catalogue.manifest("delta", number) for number in (1, 2))
    assert rows(first) == f"{DELTA}set,{ONE},grey,,20300101\nset,{TWO},black,stolen,\n"
    assert rows(second) == f"{DELTA}remove,{TWO},,,\nset,{THREE},white,,\n"
    assert (manifest_of(first).counts, manifest_of(first).files[0].rows) == ({"white": 0, "black": 1, "grey": 1}, 2)
    assert manifest_of(second).previous == 1
    assert catalogue.make_snapshot() == 2
    place = catalogue.manifest("snapshot", 2)
    assert rows(place) == f"{SNAPSHOT}{ONE},grey,,20300101\n{THREE},white,,\n"
    assert manifest_of(place).counts == manifest_of(second).counts == {"white": 1, "black": 0, "grey": 1}
    assert catalogue.current() == (2, 2)


def test_a_delta_without_changes_says_that_the_lists_are_still_true(catalogue: Catalogue) -> None:
    assert catalogue.change([]) == 1
    assert rows(catalogue.manifest("delta", 1)) == DELTA


def test_a_snapshot_that_nodes_may_be_fetching_stays_as_it_is(catalogue: Catalogue) -> None:
    catalogue.make_snapshot()
    before = (catalogue.manifest("snapshot", 0) / "manifest.json").stat().st_ino
    assert catalogue.make_snapshot() == 0
    assert (catalogue.manifest("snapshot", 0) / "manifest.json").stat().st_ino == before


@pytest.mark.parametrize(
    ("listed", "reason", "until"),
    [
        ("pink", "", ""),
        ("black", "a,b", ""),
        ("black", "a\nremove,35900000000002,,,", ""),
        ("black", "x" * 33, ""),
        ("black", "\u049b", ""),
        ("black", "", "20300101"),
        ("grey", "", "tomorrow"),
        ("grey", "", "20300230"),
        ("grey", "", "19691231"),
        ("grey", "", "21060206"),
        ("grey", "", "\u0662" * 8),
    ],
)
def test_what_nodes_would_not_take_is_no_change(listed: str, reason: str, until: str) -> None:
    with pytest.raises(ValueError):
        Change(ONE, listed, reason, until)


@pytest.mark.parametrize("imei", [0, -1, 10**14])
def test_what_is_no_device(imei: int) -> None:
    with pytest.raises(ValueError, match="IMEI"):
        Change(imei, "white")


class TestFilesOfDevices:
    def test_they_are_read_as_the_formats_have_it(self) -> None:
        text = f"# of a day\nLIST,more,IMEI,Reason,until\r\n\nBlack,x,{ONE}9,Stolen,\r\n"
        text += f'# and\ngrey,"a, b",{TWO}99, ,2030-01-01\n'
        changes = list(read_changes(io.StringIO(text, newline="")))
        assert changes == [Change(ONE, "black", "stolen"), Change(TWO, "grey", "", "20300101")]

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "header"),
            ("imei,list\n", "header"),
            ("imei,imei,list,reason\n", "header"),
            (f"imei,list,reason\n{ONE},white,\n{TWO},white\n", "line 3: 2 fields"),
            (f"imei,list,reason\n#\n{ONE},pink,\n", "line 3: 'pink' is no list"),
            ("imei,list,reason\n3590000000000,white,\n", "line 2: no IMEI"),
            ("imei,list,reason\n00000000000000,white,\n", "line 2: no IMEI"),
            (f"imei,list,reason\n{ONE},white,{'x' * 200_000}\n", "line 2: field larger"),
            (f'imei,list,reason\n{ONE},white,"x\n', "line 2: "),
        ],
    )
    def test_the_first_wrong_line_is_named(self, text: str, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            list(read_changes(io.StringIO(text, newline="")))

    def test_a_wrong_one_changes_nothing(self, catalogue: Catalogue) -> None:
        text = f"imei,list,reason\n{ONE},white,\n{TWO},pink,\n"
        with pytest.raises(ValueError, match="line 3"):
            catalogue.change(read_changes(io.StringIO(text)))
        assert (catalogue.current(), files(catalogue)) == ((0, None), set())
        assert catalogue.change([Change(TWO, "white")]) == 1
        assert manifest_of(catalogue.manifest("delta", 1)).counts == {"white": 1, "black": 0, "grey": 0}

    def test_too_many_changes_are_refused(self, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(catalogues, "MOST_CHANGES", 1)
        with pytest.raises(ValueError, match="2 changes"):
            catalogue.change([Change(ONE, "white"), Change(TWO, "white")])


@pytest.mark.parametrize("name", ["sync", "_write"])
def test_a_disk_that_is_full_leaves_nothing_behind(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(catalogues, name, full)
        with pytest.raises(OSError, match="No space"):
            catalogue.change([Change(ONE, "white")])
        with pytest.raises(OSError, match="No space"):
            catalogue.make_snapshot()
    assert (catalogue.current(), files(catalogue)) == ((0, None), set())
    assert catalogue.change([Change(TWO, "white")]) == 1
    assert rows(catalogue.manifest("delta", 1)) == f"{DELTA}set,{TWO},white,,\n"


def test_what_was_being_made_when_it_ended_is_made_anew(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `kill -9` leaves it: half a package, and a whole one that was not committed."""

    def end(*_: object) -> None:
        os._exit(0)

    process = os.fork()
    if process == 0:
        try:
            (catalogue.directory / "deltas" / "1.part").mkdir()
            monkeypatch.setattr(Catalogue, "_set_state", end)
            Catalogue(catalogue.directory).change([Change(ONE, "black")])
        finally:
            os._exit(1)
    assert os.waitpid(process, 0)[1] == 0
    assert (catalogue.current(), files(catalogue)) == ((0, None), {"deltas/1"})
    assert catalogue.change([Change(TWO, "white")]) == 1
    assert rows(catalogue.manifest("delta", 1)) == f"{DELTA}set,{TWO},white,,\n"
    assert files(catalogue) == {"deltas/1"}


def test_changes_are_made_while_a_snapshot_is_written(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.change([Change(ONE, "white")])
    write, writing, changed = catalogues._write, threading.Event(), threading.Event()

    def slow(packed: gzip.GzipFile, header: str, lines: Iterator[str]) -> int:
        if header == SNAPSHOT:
            writing.set()
            assert changed.wait(20)
        return write(packed, header, lines)

    def snapshot() -> None:
        own = Catalogue(catalogue.directory)
        own.make_snapshot()
        own.close()

    monkeypatch.setattr(catalogues, "_write", slow)
    thread = threading.Thread(target=snapshot)
    thread.start()
    assert writing.wait(20)
    catalogue.change([Change(TWO, "white")])
    changed.set()
    thread.join(20)
    assert catalogue.current() == (2, 1)
    assert rows(catalogue.manifest("snapshot", 1)) == f"{SNAPSHOT}{ONE},white,,\n"


def test_a_directory_is_of_one_country(tmp_path: Path, catalogue: Catalogue) -> None:
    other = Catalogue(catalogue.directory)
    assert other.country == "test"
    other.close()
    with pytest.raises(ValueError, match="of test"):
        Catalogue(catalogue.directory, "kz")
    with pytest.raises(ValueError, match="no country"):
        Catalogue(tmp_path / "new", "../kz")
    assert not (tmp_path / "new").exists()


def test_the_key_is_made_once_and_only_its_owner_reads_it(catalogue: Catalogue) -> None:
    private, public = (catalogue.directory / name for name in ("key.pem", "key.pub.pem"))
    before = private.read_bytes(), public.read_bytes()
    assert private.stat().st_mode & 0o777 == 0o600
    public.unlink()
    Catalogue(catalogue.directory).close()
    assert (private.read_bytes(), public.read_bytes()) == before
