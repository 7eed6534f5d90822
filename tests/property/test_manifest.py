"""Manifests: reading what was written gives it back, and nothing that comes raises anything else than it may."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eir.lists import manifest as manifests
from eir.lists.manifest import ManifestError
from eir.lists.package import ListFile, Manifest
from support.packages import KEY, OTHER_KEY, make

NUMBERS = st.integers(0, 1 << 62)
MOMENTS = st.integers(0, (1 << 32) - 1)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,40}\.csv(\.gz|\.zst)?", fullmatch=True)
HEX = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
COUNTS: st.SearchStrategy[dict[str, int]] = st.one_of(
    st.just({}), st.fixed_dictionaries(dict.fromkeys(("white", "black", "grey"), NUMBERS))
)
SOUND = json.loads(make(2, "set,35900000000001,white,,\n", previous=1, as_of=1).manifest_bytes)


@st.composite
def sound_manifests(draw: st.DrawFn) -> Manifest:
    delta = draw(st.booleans())
    kinds = ["devices", "pairs"] if delta else ["devices", "pairs", "ranges", "exempt-tacs", "allocated-tacs"]
    names = draw(st.lists(NAMES, max_size=5, unique=True))
    files = tuple(
        ListFile(name, draw(st.sampled_from(kinds)), draw(NUMBERS), draw(NUMBERS), draw(HEX)) for name in names
    )
    tac_as_of = draw(MOMENTS) if any(file.kind == "allocated-tacs" for file in files) else None
    sequence = draw(st.integers(1, 1 << 62))
    return Manifest(
        "delta" if delta else "snapshot",
        draw(st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True)),
        sequence,
        sequence - 1 if delta else None,
        draw(MOMENTS),
        tac_as_of,
        files,
        draw(COUNTS),
    )


@given(sound_manifests())
def test_what_is_written_is_read(manifest: Manifest) -> None:
    assert manifests.parse(manifests.encode(manifest)) == manifest


@given(st.binary(max_size=500))
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    with suppress(ManifestError):
        manifests.parse(octets)


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*SOUND, "x"]), inner, max_size=4),
    max_leaves=20,
)


@given(st.sampled_from(sorted(SOUND)), JSON)
def test_any_value_of_a_member_is_read_or_refused(member: str, value: Any) -> None:
    with suppress(ManifestError):
        manifests.parse(json.dumps({**SOUND, member: value}).encode())


@given(st.data())
def test_a_manifest_that_was_changed_is_not_signed(data: st.DataObject) -> None:
    octets = bytearray(make(2, "", previous=1, as_of=1).manifest_bytes)
    signature = bytearray(manifests.sign(bytes(octets), KEY))
    keys = [OTHER_KEY.public_key(), KEY.public_key()]
    assert manifests.is_signed(bytes(octets), bytes(signature), keys)
    assert not manifests.is_signed(bytes(octets), bytes(signature), keys[:1])
    changed = data.draw(st.sampled_from([octets, signature]))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert not manifests.is_signed(bytes(octets), bytes(signature), keys)
