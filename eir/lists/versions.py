"""The versions of the lists on the disk: snapshots, the log of deltas, what was refused, and which state is in force.

A directory of the node's own. Everything that is put there is whole and on the disk before it has its name, so after a
crash there is the state of before or the new one. Called by `apply`, which alone decides what is put in force. It
knows no list's content.

    in-force                which state: a small JSON document, replaced whole
    snapshots/SEQUENCE/     lists.eirs, manifest.json, manifest.json.sig
    deltas/SEQUENCE/        manifest.json, manifest.json.sig and the files it names
    refused/KIND-SEQUENCE/  a package that was refused, with reason.json
    incoming/               packages on their way; emptied at start
    history.jsonl           what was done, one JSON object a line
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from eir.lists.package import PackageKind

SNAPSHOT = "lists.eirs"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
_REASON = "reason.json"
_HISTORY_READ = 1 << 20
"""Octets of the history that are read from its end."""


class InForce(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state in force: a snapshot and the deltas behind it.

    `until`: deltas above it do not count; None: all do. `held`: nothing that comes by itself is taken, since somebody
    went back to this state.
    """

    snapshot: int
    until: int | None = None
    held: bool = False


class Refused(msgspec.Struct, frozen=True):
    """A package that was refused and may be approved."""

    kind: PackageKind
    sequence: int
    at: int
    source: str
    reasons: tuple[str, ...]


class Versions:
    """The directory. Its methods block, and raise OSError where the disk does."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def prepare(self) -> None:
        """Makes the directory and takes away what was on its way when the node ended."""
        shutil.rmtree(self._root / "incoming", ignore_errors=True)
        for name in ("snapshots", "deltas", "refused", "incoming"):
            (self._root / name).mkdir(parents=True, exist_ok=True)

    def staging(self) -> Path:
        """A new empty directory."""
        return Path(tempfile.mkdtemp(dir=self._root / "incoming"))

    # The state in force.

    def in_force(self) -> InForce | None:
        """The state in force; None where there was never one. Raises ValueError where the file is damaged."""
        try:
            return msgspec.json.decode((self._root / "in-force").read_bytes(), type=InForce)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise ValueError(f"{self._root / 'in-force'}: {error}") from error

    def set_in_force(self, state: InForce) -> None:
        """Puts another state in force, from the next start on."""
        beside = self._root / "in-force.new"
        beside.write_bytes(msgspec.json.encode(state) + b"\n")
        sync(beside)
        beside.replace(self._root / "in-force")
        sync(self._root)

    # Snapshots and deltas.

    def snapshot(self, sequence: int) -> Path:
        """Where the files of a snapshot are, or would be."""
        return self._root / "snapshots" / str(sequence)

    def snapshots(self) -> list[int]:
        """The snapshots that are kept, the oldest first."""
        return _numbers(self._root / "snapshots")

    def delta(self, sequence: int) -> Path:
        """Where the files of a delta are, or would be."""
        return self._root / "deltas" / str(sequence)

    def deltas(self) -> list[int]:
        """The deltas that are kept, the oldest first."""
        return _numbers(self._root / "deltas")

    def keep(self, staged: Path, place: Path) -> None:
        """Gives a staged directory its place, when all of it is on the disk; what was there is gone then. Where that
        fails, so is what was staged."""
        try:
            for entry in staged.iterdir():
                sync(entry)
            sync(staged)
            self.discard(place)
            staged.rename(place)
        except OSError:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        sync(place.parent)

    def adopt(self, path: Path, sequence: int) -> None:
        """Keeps a snapshot file that lies elsewhere, under a second name; it must not be written to there."""
        staged = self.staging()
        try:
            (staged / SNAPSHOT).hardlink_to(path.resolve())
        except OSError:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        self.keep(staged, self.snapshot(sequence))

    def discard(self, place: Path) -> None:
        """Takes a directory away, if it is there: at once, whatever happens meanwhile."""
        if not place.exists():
            return
        aside = self.staging()
        place.rename(aside / place.name)
        sync(place.parent)
        shutil.rmtree(aside, ignore_errors=True)

    def prune(self, older_than: float, kept: frozenset[int]) -> None:
        """Takes away snapshots and refused packages from before a moment, but those `kept`; and the deltas before the
        oldest snapshot that is left."""
        for sequence in self.snapshots():
            place = self.snapshot(sequence)
            if sequence not in kept and place.stat().st_mtime < older_than:
                self.discard(place)
        oldest = min(self.snapshots(), default=0)
        for sequence in self.deltas():
            if sequence <= oldest:
                self.discard(self.delta(sequence))
        for entry in (self._root / "refused").iterdir():
            if entry.stat().st_mtime < older_than:
                self.discard(entry)

    # What was refused.

    def _refused(self, kind: PackageKind, sequence: int) -> Path:
        return self._root / "refused" / f"{kind}-{sequence}"

    def refuse(self, staged: Path, refused: Refused) -> None:
        """Keeps a package, with the reasons."""
        try:
            (staged / _REASON).write_bytes(msgspec.json.encode(refused) + b"\n")
        except OSError:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        self.keep(staged, self._refused(refused.kind, refused.sequence))

    def refused(self) -> Iterator[Refused]:
        """What was refused and is kept."""
        for entry in sorted((self._root / "refused").iterdir()):
            try:
                yield msgspec.json.decode((entry / _REASON).read_bytes(), type=Refused)
            except (OSError, msgspec.DecodeError):
                continue

    def refused_manifest(self, kind: PackageKind, sequence: int) -> bytes | None:
        """The manifest of a package that was refused; None where none was."""
        try:
            return (self._refused(kind, sequence) / MANIFEST).read_bytes()
        except OSError:
            return None

    def stage_refused(self, kind: PackageKind, sequence: int) -> Path:
        """A refused package, staged again; its files are the same. Raises ValueError where there is none."""
        place = self._refused(kind, sequence)
        if not place.is_dir():
            raise ValueError(f"no {kind} {sequence} was refused and kept")
        staged = self.staging()
        for entry in place.iterdir():
            if entry.name != _REASON:
                (staged / entry.name).hardlink_to(entry)
        return staged

    def forget_refused(self, kind: PackageKind, sequence: int) -> None:
        """Keeps a refused package no longer."""
        self.discard(self._refused(kind, sequence))

    # The history.

    def note(self, entry: Mapping[str, Any]) -> None:
        """Adds a line to the history."""
        with (self._root / "history.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def history(self) -> list[dict[str, Any]]:
        """The last lines of the history, the oldest first; a line that was cut by a crash is left out."""
        try:
            with (self._root / "history.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _HISTORY_READ))
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(msgspec.json.decode(line, type=dict[str, Any]))
            except msgspec.DecodeError:
                continue
        return found


def _numbers(directory: Path) -> list[int]:
    return sorted(int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal())


def sync(path: Path) -> None:
    """Waits until a file or directory is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
