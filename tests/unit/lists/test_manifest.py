"""`eir.lists.manifest`: the example of docs/wire-format.md octet by octet, and whatever else may come."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from eir.lists import manifest as manifests
from eir.lists.manifest import MAX_MANIFEST, ManifestError
from support.packages import KEY, OTHER_KEY, make

PAGE = (Path(__file__).parents[3] / "docs" / "wire-format.md").read_text()
FILE = PAGE.split("```csv\n")[1].split("```")[0].encode()
MANIFEST = PAGE.split("```json\n")[1].split("```")[0].encode()


def octets(after: str) -> bytes:
    """The first indented block of hexadecimal digits behind some words of the page."""
    match = re.search(r"\n\n((?:    [0-9a-f]+\n)+)", PAGE[PAGE.index(after) :])
    assert match is not None
    return bytes.fromhex(match[1].replace(" ", "").replace("\n", ""))


SIGNATURE = octets("with the signature")
EXAMPLE: dict[str, Any] = json.loads(MANIFEST)


def test_the_example_is_as_the_page_has_it() -> None:
    manifest = manifests.parse(MANIFEST)
    (file,) = manifest.files
    assert (file.octets, file.rows, file.sha256) == (len(FILE), 3, hashlib.sha256(FILE).hexdigest())
    assert (manifest.kind, manifest.sequence, manifest.previous) == ("delta", 1042, 1041)
    key = Ed25519PublicKey.from_public_bytes(octets("whose public key is"))
    assert manifests.is_signed(MANIFEST, SIGNATURE, [key])
    assert manifests.sign(MANIFEST, KEY) == SIGNATURE
    assert manifests.encode(manifest) == MANIFEST
    message = msgspec.msgpack.decode(octets("as a message at a broker"))
    assert message == {"manifest": MANIFEST, "signature": SIGNATURE, "files": {"devices.csv": FILE}}


def test_one_of_several_keys_will_do_and_no_other() -> None:
    ours, other = KEY.public_key(), OTHER_KEY.public_key()
    assert manifests.is_signed(MANIFEST, SIGNATURE, [other, ours])
    assert not manifests.is_signed(MANIFEST, SIGNATURE, [other])
    assert not manifests.is_signed(MANIFEST, SIGNATURE, [])
    assert not manifests.is_signed(MANIFEST + b" ", SIGNATURE, [ours])
    for wrong in (b"", SIGNATURE[:-1], SIGNATURE + b"\0", bytes(64)):
        assert not manifests.is_signed(MANIFEST, wrong, [ours])


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"kind": "patch"},
        {"country": "KZ"},
        {"country": "../kz"},
        {"sequence": -1},
        {"sequence": 1 << 63},
        {"sequence": 1.5},
        {"sequence": "1042"},
        {"previous": 1042},
        {"previous": None},
        {"as_of": 1 << 32},
        {"tac_as_of": 5},
        {"counts": {"white": 1}},
        {"counts": {"white": 1, "black": 1, "grey": 1, "red": 1}},
        {"counts": {"white": -1, "black": 0, "grey": 0}},
        {"files": [EXAMPLE["files"][0]] * 2},
        {"files": [{**EXAMPLE["files"][0], "name": f"f{number}"} for number in range(65)]},
        {"more": 1},
    ],
    ids=str,
)
def test_what_is_no_manifest(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        manifests.parse(json.dumps({**EXAMPLE, **change}).encode())


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"name": name}
            for name in ("", "..", "../x", "/etc/x", "a/b", "a..b", "A", ".x", "a\n", "a\0b", "é", "x" * 101)
        ),
        *({"name": name} for name in ("manifest.json", "manifest.json.sig", "lists.eirs", "reason.json")),
        {"kind": "ranges"},
        {"octets": -1},
        {"rows": None},
        {"sha256": "0" * 63},
        {"sha256": "Z" * 64},
    ],
    ids=str,
)
def test_files_that_are_not_taken(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        manifests.parse(json.dumps({**EXAMPLE, "files": [{**EXAMPLE["files"][0], **change}]}).encode())


def test_a_snapshot_follows_nothing() -> None:
    made = make(3, "35900000000001,white,\n")
    assert manifests.parse(made.manifest_bytes) == made.manifest
    with pytest.raises(ManifestError, match="follows no sequence"):
        manifests.encode(replace(made.manifest, previous=2))


@pytest.mark.parametrize("octets", [b"[" * 200_000, b"9" * 5000, b" " * (MAX_MANIFEST + 1), b"\xff\xfe{}", b"{}", b""])
def test_what_is_not_one_is_refused(octets: bytes) -> None:
    with pytest.raises(ManifestError):
        manifests.parse(octets)


@pytest.mark.parametrize("pem", [b"", b"x", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key(pem: bytes) -> None:
    with pytest.raises(ValueError, match="key"):
        manifests.public_key(pem)
    with pytest.raises(ValueError, match="key"):
        manifests.private_key(pem)
