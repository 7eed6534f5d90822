"""Lists from a directory that somebody else fills, by SFTP for example.

Each package is a directory of its own in it, with the manifest, its signature and the files (docs/wire-format.md); it
is complete when all of them are there in their length, whatever the order in which they came. What was taken goes
away, what was refused gets a name that ends in `.refused` and says why, what is incomplete, follows a state that is
not there yet, or comes while the lists are held is left alone.

Whoever may write there is not trusted: links are not followed, pipes not waited for, nothing outside is touched, and
files are copied before they are checked. Called by `app`; brings packages to the `Receiver` and decides nothing.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eir.lists import manifest as manifests
from eir.lists.manifest import MAX_MANIFEST, SIGNATURE_OCTETS, ManifestError
from eir.lists.package import Manifest, Outcome, Package, Receiver, Result
from eir.lists.pieces import pieces
from eir.lists.versions import MANIFEST, SIGNATURE
from eir.log import Log

SOURCE: Final = "directory"
_REFUSED: Final = ".refused"
_REASON: Final = "reason.txt"
_LEFT_ALONE: Final = (Result.GAP, Result.HELD)
_MOST: Final = 10_000
"""Entries of the directory that are looked at: more is somebody's mistake."""

log = Log(__name__)


class _IncompleteError(Exception):
    """Something is not there yet."""


@dataclass(slots=True)
class _Found:
    """A package in the directory, with its manifest and signature as they were read."""

    name: str
    manifest: Manifest
    octets: bytes
    signature: bytes


class DirectorySource:
    """The watched directory. `interval`: seconds between two looks."""

    def __init__(self, root: Path, receiver: Receiver, interval: float) -> None:
        self.error = ""
        """Why the directory cannot be used; empty where it can."""
        self._root = root
        self._receiver = receiver
        self._interval = interval
        self._stuck: set[tuple[str, int]] = set()
        """Packages that could not be put away, by name and inode: not looked at again."""

    async def run(self) -> None:
        """Looks again and again. Never returns."""
        while True:
            try:
                await self.look()
                self.error = ""
            except OSError as error:
                if not self.error:
                    log.error("the directory of lists cannot be used", error=str(error))
                self.error = str(error)
            await asyncio.sleep(self._interval)

    async def look(self) -> int:
        """Takes what is complete, in the order of the sequences; how many packages were applied. Raises OSError."""
        applied = 0
        for found in await asyncio.to_thread(lambda: sorted(self._complete(), key=_order)):
            outcome = self._receiver.place(found.manifest) or await self._bring(found)
            if outcome is None or outcome.result in _LEFT_ALONE:
                continue
            applied += outcome.result is Result.APPLIED
            await asyncio.to_thread(self._put_away, found.name, outcome)
        return applied

    async def _bring(self, found: _Found) -> Outcome | None:
        """What becomes of a package; None where it is not complete. Raises OSError."""
        staged = await asyncio.to_thread(self._receiver.staging)
        try:
            package = await asyncio.to_thread(self._stage, found, staged)
        except BaseException as error:
            await asyncio.to_thread(shutil.rmtree, staged, ignore_errors=True)
            if isinstance(error, _IncompleteError):
                return None
            raise
        return await self._receiver.offer(package, SOURCE)

    # What there is.

    def _complete(self) -> Iterator[_Found]:
        with os.scandir(self._root) as entries:
            names = sorted(
                entry.name
                for entry, _ in zip(entries, range(_MOST), strict=False)
                if entry.is_dir(follow_symlinks=False)
                and not entry.name.startswith(".")
                and not entry.name.endswith(_REFUSED)
                and (entry.name, entry.inode()) not in self._stuck
            )
        for name in names:
            try:
                octets, signature = self._read(name, MANIFEST, MAX_MANIFEST), self._read(name, SIGNATURE, 64)
            except _IncompleteError:
                continue
            if len(signature) < SIGNATURE_OCTETS:
                continue
            try:
                manifest = manifests.parse(octets)
            except ManifestError as error:
                # It may still be on its way; a manifest that is whole ends in a brace.
                if octets.rstrip().endswith(b"}"):
                    self._put_away(name, Outcome(Result.REFUSED, str(error)))
                continue
            yield _Found(name, manifest, octets, signature)

    def _read(self, directory: str, name: str, most: int) -> bytes:
        descriptor = self._open(directory, name)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(most + 1)

    def _open(self, directory: str, name: str) -> int:
        """Opens a regular file of a package. Raises _IncompleteError where there is none."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            inside = os.open(self._root / directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                descriptor = os.open(name, flags, dir_fd=inside)
            finally:
                os.close(inside)
        except OSError as error:
            raise _IncompleteError from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _IncompleteError
        return descriptor

    def _stage(self, found: _Found, staged: Path) -> Package:
        """Copies the files of a package. Raises _IncompleteError where one is not there in its length."""
        for entry in found.manifest.files:
            descriptor = self._open(found.name, entry.name)
            with os.fdopen(descriptor, "rb") as source:
                if os.fstat(descriptor).st_size < entry.octets:
                    raise _IncompleteError
                with (staged / entry.name).open("wb") as target:
                    # One octet more tells that it is too long; the rest is of no interest.
                    for part in pieces(source, entry.octets + 1):
                        target.write(part)
        return Package(found.manifest, found.octets, found.signature, staged)

    # What becomes of it.

    def _put_away(self, name: str, outcome: Outcome) -> None:
        place = self._root / name
        try:
            if outcome.result is Result.REFUSED:
                refused = self._root / f"{name}{_REFUSED}"
                shutil.rmtree(refused, ignore_errors=True)
                place.rename(refused)
                (refused / _REASON).write_text(f"{outcome.reason}\n")
            else:
                shutil.rmtree(place)
        except OSError as error:
            log.error("a package cannot be put away", name=name, error=str(error))
            if place.exists():
                self._stuck.add((name, place.stat().st_ino))


def _order(found: _Found) -> tuple[int, bool]:
    """Deltas before the snapshot of the same state: they are quicker."""
    return found.manifest.sequence, found.manifest.kind == "snapshot"
