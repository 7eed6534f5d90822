"""What list sources hand over: a manifest, its signature and the files that it names; and what becomes of it.

The border between the sources (`sync_dir`, `sync_http`, `sync_mqtt`, `eir lists import`), which bring packages and
decide nothing, and `apply`, which decides. Nothing here reads or checks a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

PackageKind = Literal["snapshot", "delta"]


@dataclass(frozen=True, slots=True)
class ListFile:
    """A file of a package, as its manifest has it.

    `kind` is that of docs/formats.md: devices, ranges, allocated-tacs, exempt-tacs, exempt-imsis or pairs; a delta has
    devices and pairs only. `octets` and `sha256` (64 hexadecimal digits) are of the file as it lies there, compressed
    or not; `rows` are those below the header.
    """

    name: str
    kind: str
    octets: int
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a package is.

    `sequence` counts the states of the national lists; `previous` is the sequence that a delta starts from, None for a
    snapshot. `as_of`: when the lists were true, `tac_as_of` (None without such a list) when the allocated TACs were, in
    seconds since 1970. `counts`: devices on each list (white, black, grey) in that state, where it says so.
    """

    kind: PackageKind
    country: str
    sequence: int
    previous: int | None
    as_of: int
    tac_as_of: int | None
    files: tuple[ListFile, ...]
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Package:
    """A package as it came: `manifest_bytes` are what the signature (64 octets) is for, its files lie in
    `directory`."""

    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes
    directory: Path


class Result(StrEnum):
    """What became of a package."""

    APPLIED = "applied"
    KNOWN = "known"
    """It is in force already, or older than what is."""
    GAP = "gap"
    """A delta that follows another state than the present one: those between must come first, or a snapshot."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a package, and why."""

    result: Result
    reason: str = ""


class Receiver(Protocol):
    """Who takes packages."""

    @property
    def sequence(self) -> int | None:
        """The state in force; None: no lists yet."""

    def staging(self) -> Path:
        """An empty directory to lay a package's files in. `offer` takes it over; who gives up removes it."""

    async def offer(self, package: Package, source: str) -> Outcome:
        """Decides about a package, and puts it in force. Whatever is in it, that raises nothing."""
