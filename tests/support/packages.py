"""Packages of lists as the national database makes them, signed with a key of the tests."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from eir.lists import manifest as manifests
from eir.lists.package import ListFile, Manifest, Outcome, Package, Result

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
CHANGES = "change_type,imei,list,reason,until\n"


def public_pem(key: Ed25519PrivateKey = KEY) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class Made:
    """A package in memory."""

    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes
    files: Mapping[str, bytes]

    def write(self, directory: Path) -> Path:
        """Lays it down as a drop directory has it."""
        directory.mkdir(parents=True)
        for name, octets in self.files.items():
            (directory / name).write_bytes(octets)
        (directory / "manifest.json").write_bytes(self.manifest_bytes)
        (directory / "manifest.json.sig").write_bytes(self.signature)
        return directory

    def message(self, *, with_files: bool = True) -> bytes:
        """As it is published at a broker."""
        told: dict[str, object] = {"manifest": self.manifest_bytes, "signature": self.signature}
        return msgspec.msgpack.encode({**told, "files": dict(self.files)} if with_files else told)


def make(
    sequence: int,
    rows: str,
    *,
    previous: int | None = None,
    key: Ed25519PrivateKey = KEY,
    country: str = "test",
    as_of: int | None = None,
    counts: Mapping[str, int] | None = None,
) -> Made:
    """A package of one file of devices: a delta where `previous` is given (rows of `CHANGES`), else a snapshot."""
    header = "imei,list,reason\n" if previous is None else CHANGES
    octets = (header + rows).encode()
    file = ListFile("devices.csv", "devices", len(octets), rows.count("\n"), hashlib.sha256(octets).hexdigest())
    kind = "snapshot" if previous is None else "delta"
    manifest = Manifest(
        "delta" if kind == "delta" else "snapshot",
        country,
        sequence,
        previous,
        as_of or int(time.time()),
        None,
        (file,),
        counts or {},
    )
    encoded = manifests.encode(manifest)
    return Made(manifest, encoded, manifests.sign(encoded, key), {"devices.csv": octets})


@dataclass
class FakeReceiver:
    """Takes what follows, and notes what came."""

    root: Path
    sequence: int | None = 1
    taken: list[tuple[int, str]] = field(default_factory=list)
    wanted: tuple[int, ...] = ()
    refuse: bool = False
    held: bool = False

    def wants(self, snapshot: int) -> bool:
        return snapshot in self.wanted

    def staging(self) -> Path:
        self.root.mkdir(exist_ok=True)
        path = self.root / str(len(list(self.root.iterdir())) + len(self.taken))
        path.mkdir()
        return path

    def place(self, manifest: Manifest) -> Outcome | None:
        if self.held:
            return Outcome(Result.HELD)
        if self.wants(manifest.sequence) and manifest.kind == "snapshot":
            return None
        if self.sequence is not None and manifest.sequence <= self.sequence:
            return Outcome(Result.KNOWN)
        if manifest.kind == "delta" and manifest.previous != self.sequence:
            return Outcome(Result.GAP)
        return None

    async def offer(self, package: Package, source: str) -> Outcome:
        manifest = package.manifest
        try:
            if self.refuse:
                return Outcome(Result.REFUSED, "because")
            if (outcome := self.place(manifest)) is not None:
                return outcome
            for entry in manifest.files:
                octets = (package.directory / entry.name).read_bytes()
                if hashlib.sha256(octets).hexdigest() != entry.sha256:
                    return Outcome(Result.REFUSED, "another SHA-256")
            self.sequence = max(self.sequence or 0, manifest.sequence)
            self.wanted = ()
            self.taken.append((manifest.sequence, source))
            return Outcome(Result.APPLIED)
        finally:
            for path in package.directory.iterdir():
                path.unlink()
            package.directory.rmdir()
