"""Manifests and their signatures: bytes in, a checked `Manifest` out, and back (docs/wire-format.md).

Pure. Called by the sources for what comes, by the publisher for what goes out, and by `apply`. A manifest is JSON
(RFC 8259); its signature is Ed25519 (RFC 8032) over the manifest's bytes as they are, so nobody needs a canonical form.
Whatever the bytes are, reading them raises `ManifestError` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from msgspec import Meta, Struct

from eir.lists.package import TAC_KINDS, ListFile, Manifest, is_kind

MAX_MANIFEST: Final = 256 << 10
"""Octets of the longest manifest that is read."""
MAX_FILES: Final = 64
SIGNATURE_OCTETS: Final = 64
FORMAT: Final = 1

TrustedKey = Ed25519PublicKey

_Number = Annotated[int, Meta(ge=0, le=(1 << 62))]
_Moment = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
_Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}\Z")]


class ManifestError(ValueError):
    """What was read is no manifest; the text says why."""


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    name: _Name
    kind: str
    octets: _Number
    rows: _Number
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _Counts(Struct, frozen=True, forbid_unknown_fields=True):
    white: _Number
    black: _Number
    grey: _Number


class _Manifest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    format: int
    kind: Literal["snapshot", "delta"]
    country: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z")]
    sequence: _Number
    as_of: _Moment
    files: Annotated[tuple[_File, ...], Meta(max_length=MAX_FILES)]
    previous: _Number | None = None
    tac_as_of: _Moment | None = None
    counts: _Counts | None = None


def parse(octets: bytes) -> Manifest:
    """A manifest from its bytes. Raises ManifestError."""
    if len(octets) > MAX_MANIFEST:
        raise ManifestError(f"a manifest of {len(octets)} octets, where {MAX_MANIFEST} are taken")
    try:
        read = msgspec.json.decode(octets, type=_Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"no manifest: {error}") from error
    _check(read)
    files = tuple(ListFile(file.name, file.kind, file.octets, file.rows, file.sha256) for file in read.files)
    counts = {} if read.counts is None else msgspec.structs.asdict(read.counts)
    return Manifest(read.kind, read.country, read.sequence, read.previous, read.as_of, read.tac_as_of, files, counts)


def _check(read: _Manifest) -> None:
    """What a type cannot say."""
    if read.format != FORMAT:
        raise ManifestError(f"format {read.format}, where {FORMAT} is known")
    if len({file.name for file in read.files}) != len(read.files):
        raise ManifestError("two files have one name")
    if any(
        ".." in file.name or file.name.startswith("manifest.json") or file.name in ("lists.eirs", "reason.json")
        for file in read.files
    ):
        raise ManifestError("a file has a name that is taken")
    if read.kind == "delta":
        if read.previous is None or read.previous >= read.sequence:
            raise ManifestError("a delta that follows no earlier sequence")
    elif read.previous is not None:
        raise ManifestError("a snapshot follows no sequence")
    for file in read.files:
        if not is_kind(file.kind, read.kind):
            raise ManifestError(f"a {read.kind} has no files of kind {file.kind!r}")
    if any(file.kind in TAC_KINDS for file in read.files) != (read.tac_as_of is not None):
        raise ManifestError("allocated TACs come with tac_as_of, and it with them")


def encode(manifest: Manifest) -> bytes:
    """The bytes of a manifest. Raises ManifestError for one that would not be taken."""
    counts = None if not manifest.counts else _Counts(*(manifest.counts[name] for name in ("white", "black", "grey")))
    files = tuple(_File(file.name, file.kind, file.octets, file.rows, file.sha256) for file in manifest.files)
    written = _Manifest(
        FORMAT,
        manifest.kind,
        manifest.country,
        manifest.sequence,
        manifest.as_of,
        files,
        manifest.previous,
        manifest.tac_as_of,
        counts,
    )
    octets = msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n"
    parse(octets)
    return octets


def is_signed(manifest_bytes: bytes, signature: bytes, keys: Iterable[TrustedKey]) -> bool:
    """Whether one of the keys has signed these bytes."""
    for key in keys:
        try:
            key.verify(signature, manifest_bytes)
        except InvalidSignature:
            continue
        return True
    return False


def sign(manifest_bytes: bytes, key: Ed25519PrivateKey) -> bytes:
    """The signature, 64 octets."""
    return key.sign(manifest_bytes)


def public_key(pem: bytes) -> TrustedKey:
    """A key that may sign, from PEM (SubjectPublicKeyInfo). Raises ValueError."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"no public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")
    return key


def private_key(pem: bytes) -> Ed25519PrivateKey:
    """A key to sign with, from PEM (PKCS #8, not encrypted). Raises ValueError."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"no private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return key
