"""Packages out of the publisher's lists: files, manifest and signature, in a directory that is served as it is.

    deltas/SEQUENCE/     manifest.json, manifest.json.sig and the files it names
    snapshots/SEQUENCE/  the same

A package is whole before it has its name, and is known to the book afterwards. Rows go to the disk as they are read:
a snapshot of any size takes little memory. Called by `server` and `cli_publisher`.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from eir.lists import manifest as manifests
from eir.lists.package import ListFile, Manifest, PackageKind
from eir.publisher.book import Book
from eir.publisher.rows import WHOLE_KINDS

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.json.sig"
FOLDERS: Final[dict[PackageKind, str]] = {"snapshot": "snapshots", "delta": "deltas"}
SNAPSHOTS_KEPT: Final = 2
_ROWS_AT_ONCE: Final = 4096


class Packages:
    """The directory of packages. Its methods block, and raise OSError and sqlite3.Error."""

    def __init__(self, directory: Path, country: str, key: Ed25519PrivateKey) -> None:
        self._directory = directory
        self._country = country
        self._key = key
        for folder in FOLDERS.values():
            (directory / folder).mkdir(parents=True, exist_ok=True)

    def place(self, kind: PackageKind, sequence: int) -> Path:
        """Where a package lies."""
        return self._directory / FOLDERS[kind] / str(sequence)

    def publish(self, book: Book, now: int) -> int | None:
        """Puts what has changed into a package; its number, or None where nothing has.

        A delta, unless something has changed that only a snapshot carries.
        """
        if book.number("whole"):
            return self._publish_whole(book, now)
        with book.transaction():
            if book.number("whole") or not book.is_changed():
                return None
            sequence = book.number("sequence") + 1
            files = {
                "devices.csv": ("devices", "change_type,imei,list,reason,until", _device_changes(book)),
                "pairs.csv": ("pairs", "change_type,imei,imsi", _pair_changes(book)),
            }
            self._write(book, "delta", sequence, now, files, compress=False)
            book.took_changes(sequence)
            book.add_package("delta", sequence)
        return sequence

    def _publish_whole(self, book: Book, now: int) -> int:
        """A snapshot of a state of its own number: no delta leads to it."""
        with book.transaction():
            if not book.number("whole"):
                # Somebody else was quicker.
                return book.number("sequence")
            sequence = book.number("sequence") + 1
            self._write_snapshot(book, sequence, now)
            book.took_changes(sequence)
            book.set_number("whole", 0)
            book.add_package("snapshot", sequence)
            self._forget(book)
        return sequence

    def snapshot(self, book: Book, now: int) -> int:
        """Publishes what has changed, and then a snapshot; its number. Others may change the lists meanwhile."""
        with closing(book.other()) as reading:
            while True:
                self.publish(book, now)
                with reading.transaction("DEFERRED"):
                    # From the first read on, this sees the lists as they are then.
                    if reading.is_changed():
                        continue
                    sequence = reading.number("sequence")
                    if sequence not in reading.packages("snapshot"):
                        self._write_snapshot(reading, sequence, now)
                    break
        with book.transaction():
            book.add_package("snapshot", sequence)
            self._forget(book)
        return sequence

    def _write_snapshot(self, book: Book, sequence: int, now: int) -> None:
        files: dict[str, tuple[str, str, Iterable[str]]] = {
            "devices.csv.gz": ("devices", "imei,list,reason,until", _devices(book)),
            "pairs.csv.gz": ("pairs", "imei,imsi", (f"{imei:014},{imsi}" for imei, imsi in book.pairs())),
        }
        for kind, header in WHOLE_KINDS.items():
            files[f"{kind}.csv.gz"] = (kind, header, book.others(kind))
        self._write(book, "snapshot", sequence, now, files, compress=True)

    def _write(
        self,
        book: Book,
        kind: PackageKind,
        sequence: int,
        now: int,
        files: Mapping[str, tuple[str, str, Iterable[str]]],
        *,
        compress: bool,
    ) -> None:
        place = self.place(kind, sequence)
        making = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
        try:
            entries = []
            for name, (file_kind, header, rows) in files.items():
                entry = _write_file(making / name, file_kind, header, rows, compress)
                # Devices are always there; of the others only what has rows.
                if entry.rows or (kind == "snapshot" and file_kind == "devices"):
                    entries.append(entry)
                else:
                    (making / name).unlink()
            tac_as_of = book.number("tac_as_of") if any(entry.kind == "allocated-tacs" for entry in entries) else None
            previous = sequence - 1 if kind == "delta" else None
            manifest = Manifest(kind, self._country, sequence, previous, now, tac_as_of, tuple(entries), book.counts())
            octets = manifests.encode(manifest)
            _write_whole(making / MANIFEST, octets)
            _write_whole(making / SIGNATURE, manifests.sign(octets, self._key))
            making.chmod(0o755)
            # One that no book knows of: its making was ended before its commit.
            shutil.rmtree(place, ignore_errors=True)
            making.rename(place)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise

    def _forget(self, book: Book) -> None:
        """Removes what nobody needs: all but the newest snapshots, and the deltas that lead to the oldest of these."""
        kept = book.packages("snapshot", SNAPSHOTS_KEPT)
        if len(kept) < SNAPSHOTS_KEPT:
            return
        for kind, up_to in (("snapshot", kept[-1] - 1), ("delta", kept[-1])):
            for number in book.remove_packages(kind, up_to):  # type: ignore[arg-type]
                shutil.rmtree(self.place(kind, number), ignore_errors=True)  # type: ignore[arg-type]

    def message(self, sequence: int, longest: int) -> bytes | None:
        """The package of a state as it is published at a broker: without its files where it would be too long.

        None where there is none any more.
        """
        place = self.place("delta", sequence)
        with_files = place.is_dir()
        if not with_files:
            place = self.place("snapshot", sequence)
        try:
            octets, signature = (place / MANIFEST).read_bytes(), (place / SIGNATURE).read_bytes()
            told: dict[str, object] = {"manifest": octets, "signature": signature}
            manifest = manifests.parse(octets)
            if with_files and sum(file.octets for file in manifest.files) < longest - len(octets) - 4096:
                told["files"] = {file.name: (place / file.name).read_bytes() for file in manifest.files}
        except FileNotFoundError:
            return None
        return msgspec.msgpack.encode(told)


def _device_changes(book: Book) -> Iterator[str]:
    for imei, device in book.changes():
        if device is None:
            yield f"remove,{imei:014},,,"
        else:
            yield f"set,{imei:014},{device.listing},{device.reason},{device.until}"


def _pair_changes(book: Book) -> Iterator[str]:
    for imei, imsi, there in book.changed_pairs():
        yield f"{'set' if there else 'remove'},{imei:014},{imsi}"


def _devices(book: Book) -> Iterator[str]:
    for imei, listing, reason, until in book.devices():
        yield f"{imei:014},{listing},{reason},{until}"


class _Counted:
    """A file that counts and digests what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.octets, self.digest = 0, hashlib.sha256()

    def write(self, octets: bytes) -> int:
        self.digest.update(octets)
        self.octets += len(octets)
        return self._file.write(octets)

    def flush(self) -> None:
        self._file.flush()


def _write_file(path: Path, kind: str, header: str, rows: Iterable[str], compress: bool) -> ListFile:
    with path.open("xb") as file:
        counted = _Counted(file)
        # Without a time or a name in it, the same rows are the same octets.
        target = gzip.GzipFile("", "wb", 1, counted, 0) if compress else counted
        count, waiting = 0, [header]
        for row in rows:
            waiting.append(row)
            count += 1
            if len(waiting) >= _ROWS_AT_ONCE:
                target.write(("\n".join(waiting) + "\n").encode())
                waiting.clear()
        if waiting:
            target.write(("\n".join(waiting) + "\n").encode())
        if isinstance(target, gzip.GzipFile):
            target.close()
        file.flush()
        os.fsync(file.fileno())
    return ListFile(path.name, kind, counted.octets, count, counted.digest.hexdigest())


def _write_whole(path: Path, octets: bytes) -> None:
    with path.open("xb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
