"""The publisher's lists: in SQLite, and as the packages that nodes follow (docs/wire-format.md).

Every change is a delta of its own with the next sequence, signed, on the disk before it counts. A snapshot is all there
is as of the present sequence. Called by `server` and the command line, which may both have the catalogue open: SQLite
keeps them apart. Its methods block; they raise OSError and sqlite3.Error where the disk does.
"""

from __future__ import annotations

import csv
import fcntl
import gzip
import hashlib
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Final, TextIO

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from eir.lists import manifest as manifests
from eir.lists.package import ListFile, Manifest, PackageKind
from eir.lists.versions import MANIFEST, SIGNATURE, sync

LISTS: Final = ("white", "black", "grey")
MOST_CHANGES: Final = 1 << 26
"""Of one delta; nodes take no more."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS devices (imei INTEGER PRIMARY KEY, list TEXT, reason TEXT, until TEXT) STRICT;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT) STRICT, WITHOUT ROWID;
CREATE TEMP TABLE wanted (imei INTEGER PRIMARY KEY, list TEXT, reason TEXT, until TEXT) STRICT;
"""
_FILE: Final = "devices.csv.gz"
_BATCH: Final = 10_000
_COUNTRY: Final = re.compile(r"[a-z0-9-]{1,32}")
_REASON: Final = re.compile(r"[a-z0-9-]{0,32}")
_DAY: Final = re.compile(r"[0-9]{8}")
_IMEI: Final = re.compile(r"[0-9]{14,16}")
_LAST_DAY: Final = date(2106, 2, 5)
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Change:
    """What is said of a device from now on; `listed` None: nothing. `until`, YYYYMMDD: the last day of a grey one.

    Raises ValueError for what a node would not take: once it is signed, all nodes would wait for a snapshot.
    """

    imei: int
    listed: str | None
    reason: str = ""
    until: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.imei < 10**14:
            raise ValueError("no IMEI")
        if self.listed is not None and self.listed not in LISTS:
            raise ValueError(f"{self.listed!r} is no list")
        if not _REASON.fullmatch(self.reason):
            raise ValueError(f"{self.reason!r} is no reason: up to 32 of a-z, 0-9 and -")
        if self.until:
            if self.listed != "grey":
                raise ValueError("only a grey device has a last day")
            if not _DAY.fullmatch(self.until):
                raise ValueError(f"{self.until!r} is no day: YYYYMMDD")
            if not _EPOCH <= datetime.strptime(self.until, "%Y%m%d").date() <= _LAST_DAY:
                raise ValueError(f"{self.until} is not from {_EPOCH} to {_LAST_DAY}")


class Catalogue:
    """The catalogue in a directory, which is made, with a key, where there is none.

    It is of one country; None: of whichever it was made for, `kz` where it is new. Raises ValueError for another.
    """

    def __init__(self, directory: Path, country: str | None = None) -> None:
        if country is not None and not _COUNTRY.fullmatch(country):
            raise ValueError(f"{country!r} is no country: up to 32 of a-z, 0-9 and -")
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("deltas", "snapshots"):
            (directory / name).mkdir(exist_ok=True)
        self.directory = directory
        with _alone(directory):
            self._key = _key(directory)
        self._database = sqlite3.connect(directory / "lists.db", timeout=60.0, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(_SCHEMA)
        if not self._state("country", ""):
            self._database.execute("INSERT OR IGNORE INTO state VALUES ('country', ?)", (country or "kz",))
        self.country = self._state("country", "")
        if country not in (None, self.country):
            self.close()
            raise ValueError(f"the lists in {directory} are of {self.country}")

    def close(self) -> None:
        """Lets go of it."""
        self._database.close()

    @property
    def sequence(self) -> int:
        """The present state."""
        return self.current()[0]

    @property
    def snapshot(self) -> int | None:
        """The state that the newest snapshot is of."""
        return self.current()[1]

    def current(self) -> tuple[int, int | None]:
        """Both, as of one moment."""
        query = "SELECT name, value FROM state WHERE name IN ('sequence', 'snapshot')"
        found = {str(name): int(value) for name, value in self._database.execute(query)}
        return found.get("sequence", 0), found.get("snapshot")

    def change(self, changes: Iterable[Change]) -> int:
        """Makes a delta of changes, however many; of two of one device the last counts. Returns its sequence.

        Raises ValueError for too many, and what `changes` raises; then nothing has changed.
        """
        with self._transaction("IMMEDIATE"):
            self._database.execute("DELETE FROM wanted")
            rows = ((change.imei, change.listed, change.reason, change.until) for change in changes)
            self._database.executemany("INSERT OR REPLACE INTO wanted VALUES (?, ?, ?, ?)", rows)
            ((found,),) = self._database.execute("SELECT count(*) FROM wanted")
            if found > MOST_CHANGES:
                raise ValueError(f"{found} changes, where a delta has {MOST_CHANGES} at most")
            sequence, counts = self.sequence + 1, self._put()
            self._package("delta", sequence, self._changes(), counts)
            self._set_state("sequence", str(sequence))
            self._set_state("counts", msgspec.json.encode(counts).decode())
            self._database.execute("DELETE FROM wanted")
        return sequence

    def make_snapshot(self) -> int:
        """Makes a snapshot of the present state, if there is none yet. Returns its sequence.

        Changes may be made meanwhile, and are not in it.
        """
        with _alone(self.directory / "snapshots"):
            with self._transaction("DEFERRED"):
                sequence = self.sequence
                if sequence == self.snapshot:
                    # Nodes may be fetching it.
                    return sequence
                self._package("snapshot", sequence, self._rows(), self._counts())
            self._set_state("snapshot", str(sequence))
        return sequence

    def manifest(self, kind: PackageKind, sequence: int) -> Path:
        """Where the files of a package are."""
        return self.directory / f"{kind}s" / str(sequence)

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        self._database.execute(f"BEGIN {kind}")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise

    def _put(self) -> dict[str, int]:
        """Has the devices be as is wanted; how many are on each list then."""
        counts = self._counts()
        gone = "SELECT devices.list, count(*) FROM wanted JOIN devices USING (imei) GROUP BY 1"
        come = "SELECT list, count(*) FROM wanted WHERE list IS NOT NULL GROUP BY 1"
        for sign, query in ((-1, gone), (1, come)):
            for listed, count in self._database.execute(query):
                counts[listed] += sign * count
        self._database.execute("DELETE FROM devices WHERE imei IN (SELECT imei FROM wanted WHERE list IS NULL)")
        self._database.execute("INSERT OR REPLACE INTO devices SELECT * FROM wanted WHERE list IS NOT NULL")
        return counts

    def _changes(self) -> Iterator[str]:
        for imei, listed, reason, until in self._database.execute("SELECT * FROM wanted ORDER BY imei"):
            if listed is None:
                yield f"remove,{imei:014},,,\n"
            else:
                yield f"set,{imei:014},{listed},{reason},{until}\n"

    def _rows(self) -> Iterator[str]:
        for imei, listed, reason, until in self._database.execute("SELECT * FROM devices ORDER BY imei"):
            yield f"{imei:014},{listed},{reason},{until}\n"

    def _counts(self) -> dict[str, int]:
        counts = msgspec.json.decode(self._state("counts", "{}"), type=dict[str, int])
        return {name: counts.get(name, 0) for name in LISTS}

    def _package(self, kind: PackageKind, sequence: int, rows: Iterable[str], counts: Mapping[str, int]) -> None:
        """Writes a package, whole or not at all."""
        place = self.manifest(kind, sequence)
        # Only one process is here for a kind: what is there already was left by one that ended.
        for left in place.parent.glob("*.part"):
            shutil.rmtree(left)
        part = place.with_name(f"{sequence}.part")
        part.mkdir()
        try:
            self._fill(part, kind, sequence, rows, counts)
            for written in part.iterdir():
                sync(written)
            sync(part)
            # Of a change that was not committed: nobody was told of it.
            shutil.rmtree(place, ignore_errors=True)
            part.rename(place)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        sync(place.parent)

    def _fill(
        self, part: Path, kind: PackageKind, sequence: int, rows: Iterable[str], counts: Mapping[str, int]
    ) -> None:
        header = "imei,list,reason,until\n" if kind == "snapshot" else "change_type,imei,list,reason,until\n"
        # A file name in it, or the time, would make two files of the same rows differ.
        with (part / _FILE).open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, 0) as packed:
            count = _write(packed, header, rows)
        with (part / _FILE).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entry = ListFile(_FILE, "devices", (part / _FILE).stat().st_size, count, digest)
        previous = sequence - 1 if kind == "delta" else None
        manifest = Manifest(kind, self.country, sequence, previous, int(time.time()), None, (entry,), counts)
        octets = manifests.encode(manifest)
        (part / MANIFEST).write_bytes(octets)
        (part / SIGNATURE).write_bytes(manifests.sign(octets, self._key))

    def _state(self, name: str, otherwise: str) -> str:
        found = self._database.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return str(found[0]) if found is not None else otherwise

    def _set_state(self, name: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, value))


def _write(packed: gzip.GzipFile, header: str, rows: Iterable[str]) -> int:
    count = 0
    batch = [header]
    for row in rows:
        batch.append(row)
        count += 1
        if len(batch) == _BATCH:
            packed.write("".join(batch).encode())
            batch.clear()
    packed.write("".join(batch).encode())
    return count


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keeps other processes out that ask for the same; the system lets go of it for who ends."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _key(directory: Path) -> Ed25519PrivateKey:
    """The key of a catalogue, made with its first use; the public one lies beside it."""
    path, public_path = directory / "key.pem", directory / "key.pub.pem"
    try:
        key = manifests.private_key(path.read_bytes())
    except FileNotFoundError:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _put_file(path, pem, 0o600)
    if not public_path.exists():
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _put_file(public_path, public, 0o644)
    return key


def _put_file(path: Path, octets: bytes, mode: int) -> None:
    """Makes a file, whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(octets)
    sync(beside)
    beside.rename(path)
    sync(path.parent)


def read_changes(lines: TextIO) -> Iterator[Change]:
    """The changes that a file of devices (imei,list,reason[,until]) stands for, plain, as docs/formats.md has it.

    Raises ValueError, with the line, for the first that is wrong: a publisher's own lists have no wrong rows.
    """
    number = 0

    def told() -> Iterator[str]:
        nonlocal number
        for line in lines:
            number += 1
            if line.strip() and not line.startswith("#"):
                yield line

    rows = csv.reader(told(), strict=True)
    try:
        names = [name.strip().lower() for name in next(rows, ())]
        if any(names.count(name) != 1 for name in ("imei", "list", "reason")) or names.count("until") > 1:
            raise ValueError("the header has not imei, list and reason once each")
        for row in rows:
            if len(row) != len(names):
                raise ValueError(f"{len(row)} fields, where the header has {len(names)}")
            yield _change({name: value.strip() for name, value in zip(names, row, strict=True)})
    except (ValueError, csv.Error) as error:
        raise ValueError(f"line {number}: {error}") from error


def _change(row: Mapping[str, str]) -> Change:
    if not _IMEI.fullmatch(row["imei"]):
        raise ValueError("no IMEI of 14 to 16 digits")
    # The 15th digit says nothing in a list.
    imei = int(row["imei"][:14])
    listed = row["list"].lower()
    return Change(imei, listed, row["reason"].lower(), row.get("until", "").replace("-", ""))
