"""What list sources hand over: a manifest, its signature and the files that it names; and what becomes of it.

The border between the sources (`sync_dir`, `sync_http`, `sync_mqtt`, `eir lists import`), which bring packages and
decide nothing, and `apply`, which decides. Nothing here reads or checks a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal, Protocol

PackageKind = Literal["snapshot", "delta"]

SNAPSHOT_KINDS: Final = (
    *("devices", "ranges", "allocated-tacs", "exempt-tacs", "exempt-imsis", "pairs", "plain-white", "plain-black"),
    *("gsma-tac", "dirbs-blacklist", "dirbs-exceptions", "dirbs-notifications"),
    *("stolen", "barred", "barred-tac", "golden", "pairing", "registration"),
)
"""Kinds of a snapshot's files, but for records of first sightings, whose kind names a day."""
DELTA_KINDS: Final = (
    *("devices", "pairs", "dirbs-blacklist", "dirbs-blocked", "dirbs-unblocked"),
    *("dirbs-exceptions", "dirbs-added", "dirbs-removed", "dirbs-notifications", "dirbs-new", "dirbs-resolved"),
)
"""Kinds of a delta's files."""
TAC_KINDS: Final = ("allocated-tacs", "gsma-tac")
"""Kinds of allocated TACs, which come with their date."""
_SEEN_BEFORE: Final = re.compile(r"seen-before-\d{4}-?\d\d-?\d\d", re.ASCII)


def is_kind(kind: str, package: PackageKind) -> bool:
    """Whether files of this kind may be in such a package."""
    if package == "delta":
        return kind in DELTA_KINDS
    return kind in SNAPSHOT_KINDS or _SEEN_BEFORE.fullmatch(kind) is not None


@dataclass(frozen=True, slots=True)
class ListFile:
    """A file of a package, as its manifest has it.

    `kind` is that of docs/formats.md, one for which `is_kind` holds. `octets` and `sha256` (64 hexadecimal
    digits) are of the file as it lies there, compressed or not; `rows` are those below the header.
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
    HELD = "held"
    """Nothing that comes by itself is taken at present; it may be offered again later."""
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

    def wants(self, snapshot: int) -> bool:
        """Whether a snapshot that is no newer than what is in force is worth fetching."""

    def place(self, manifest: Manifest) -> Outcome | None:
        """What is to be said of a package whose files are not here yet; None: it is what comes next."""

    def staging(self) -> Path:
        """An empty directory to lay a package's files in. `offer` takes it over; who gives up removes it."""

    async def offer(self, package: Package, source: str) -> Outcome:
        """Decides about a package, and puts it in force. Whatever is in it, that raises nothing."""
