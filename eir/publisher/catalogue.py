"""The publisher's lists: in SQLite, and as the packages that nodes follow (docs/wire-format.md).

Every change is a delta of its own with the next sequence, signed, on the disk before it counts. A snapshot is all there
is as of the present sequence. Called by `server` and the command line, which may both have the catalogue open: SQLite
keeps them apart. Its methods block; they raise OSError and sqlite3.Error where the disk does.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from eir.lists import manifest as manifests
from eir.lists.package import ListFile, Manifest, PackageKind
from eir.lists.versions import MANIFEST, SIGNATURE, sync

LISTS: Final = ("white", "black", "grey")
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS devices (imei INTEGER PRIMARY KEY, list TEXT, reason TEXT, until TEXT) STRICT;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT) STRICT, WITHOUT ROWID;
"""
_FILE: Final = "devices.csv.gz"
_BATCH: Final = 10_000


@dataclass(frozen=True, slots=True)
class Change:
    """What is said of a device from now on; `listed` None: nothing. `until`, YYYYMMDD: the last day of a grey one."""

    imei: int
    listed: str | None
    reason: str = ""
    until: str = ""

    def row(self) -> str:
        """As a delta has it."""
        if self.listed is None:
            return f"remove,{self.imei:014},,,\n"
        return f"set,{self.imei:014},{self.listed},{self.reason},{self.until}\n"


class Catalogue:
    """The catalogue in a directory, which is made, with a key, where there is none."""

    def __init__(self, directory: Path, country: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("deltas", "snapshots"):
            (directory / name).mkdir(exist_ok=True)
        self.directory = directory
        self._country = country
        self._key = _key(directory)
        self._database = sqlite3.connect(directory / "lists.db", timeout=60.0, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Lets go of it."""
        self._database.close()

    @property
    def sequence(self) -> int:
        """The present state."""
        return int(self._state("sequence", "0"))

    @property
    def snapshot(self) -> int | None:
        """The state that the newest snapshot is of."""
        found = self._state("snapshot", "")
        return int(found) if found else None

    def change(self, changes: Iterable[Change]) -> int:
        """Makes a delta of changes; of two of one device the last counts. Returns its sequence."""
        wanted = {change.imei: change for change in changes}
        with self._writing():
            sequence = self.sequence + 1
            counts = self._counts()
            for change in wanted.values():
                self._put(change, counts)
            self._package("delta", sequence, (change.row() for change in wanted.values()), counts)
            self._set_state("sequence", str(sequence))
            self._set_state("counts", msgspec.json.encode(counts).decode())
        return sequence

    def make_snapshot(self) -> int:
        """Makes a snapshot of the present state. Returns its sequence."""
        with self._writing():
            sequence = self.sequence
            self._package("snapshot", sequence, self._rows(), self._counts())
            self._set_state("snapshot", str(sequence))
        return sequence

    def manifest(self, kind: PackageKind, sequence: int) -> Path:
        """Where the files of a package are."""
        return self.directory / f"{kind}s" / str(sequence)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise

    def _put(self, change: Change, counts: dict[str, int]) -> None:
        before = self._database.execute("SELECT list FROM devices WHERE imei = ?", (change.imei,)).fetchone()
        if before is not None:
            counts[before[0]] -= 1
        if change.listed is None:
            self._database.execute("DELETE FROM devices WHERE imei = ?", (change.imei,))
            return
        counts[change.listed] += 1
        row = (change.imei, change.listed, change.reason, change.until)
        self._database.execute("INSERT OR REPLACE INTO devices VALUES (?, ?, ?, ?)", row)

    def _rows(self) -> Iterator[str]:
        for imei, listed, reason, until in self._database.execute("SELECT * FROM devices ORDER BY imei"):
            yield f"{imei:014},{listed},{reason},{until}\n"

    def _counts(self) -> dict[str, int]:
        counts = msgspec.json.decode(self._state("counts", "{}"), type=dict[str, int])
        return {name: counts.get(name, 0) for name in LISTS}

    def _package(self, kind: PackageKind, sequence: int, rows: Iterable[str], counts: Mapping[str, int]) -> None:
        """Writes a package, whole or not at all."""
        place = self.manifest(kind, sequence)
        part = place.with_name(f"{sequence}.{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        header = "imei,list,reason,until\n" if kind == "snapshot" else "change_type,imei,list,reason,until\n"
        # A file name in it, or the time, would make two files of the same rows differ.
        with (part / _FILE).open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, 0) as packed:
            count = _write(packed, header, rows)
        with (part / _FILE).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entry = ListFile(_FILE, "devices", (part / _FILE).stat().st_size, count, digest)
        previous = sequence - 1 if kind == "delta" else None
        manifest = Manifest(kind, self._country, sequence, previous, int(time.time()), None, (entry,), counts)
        octets = manifests.encode(manifest)
        (part / MANIFEST).write_bytes(octets)
        (part / SIGNATURE).write_bytes(manifests.sign(octets, self._key))
        for written in part.iterdir():
            sync(written)
        # Of a change that was not committed, or the same snapshot once more.
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
        sync(place.parent)

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


def _key(directory: Path) -> Ed25519PrivateKey:
    """The key of a catalogue, made with its first use; the public one lies beside it."""
    path = directory / "key.pem"
    try:
        return manifests.private_key(path.read_bytes())
    except FileNotFoundError:
        key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (directory / "key.pub.pem").write_bytes(public)
    return key


def read_changes(lines: TextIO) -> Iterator[Change]:
    """The changes that a file of devices (imei,list,reason[,until]) stands for. Raises ValueError."""
    import csv

    from eir import _core

    rows = (line for line in lines if line.strip() and not line.startswith("#"))
    for row in csv.DictReader(rows):
        listed = (row.get("list") or "").strip().lower()
        if listed not in LISTS:
            raise ValueError(f"{listed!r} is no list")
        yield Change(
            int(_core.imei_key((row.get("imei") or "").strip())),
            listed,
            (row.get("reason") or "").strip(),
            (row.get("until") or "").strip().replace("-", ""),
        )
