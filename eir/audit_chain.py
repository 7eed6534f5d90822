"""A line of the audit trail: its canonical form, its hash, and how it follows the line before.

docs/formats.md has the form in words. Called by `audit`, which knows the files. Pure: octets in, octets out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

GENESIS = "0" * 64
"""What the first line names as the hash before it."""
MAX_LINE = 1 << 20
"""Octets of a line with its line feed at most, so that no reader must hold more."""

_OWN = frozenset({"n", "at", "node", "prev", "hash"})
"""Names that a line gives itself."""
_PERSONAL = frozenset({"imsi", "msisdn", "iin"})
"""Names of what never is in the audit trail."""
_MAX_DEPTH = 16
# Within an entry fields are sorted: there `prev` never stands before `hash`.
_END = re.compile(rb',"prev":"[0-9a-f]{64}","hash":"[0-9a-f]{64}"\}')
_LINE = re.compile(
    rb'\{"n":([1-9][0-9]{0,18}),"at":[0-9]{1,18},"node":".*,"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}\n'
)
_HASH_LENGTH = len(',"hash":""}\n') + 64

Entry = dict[str, object]
"""An entry as it will be written: JSON values only, `kind` among them."""


class Head(NamedTuple):
    """A line that somebody has seen: the node whose trail it is in, its number and its hash (64 hex digits)."""

    node: str
    n: int
    hash: str


@dataclass(frozen=True, slots=True)
class Link:
    """What ties a line to its neighbours: its number, the hash of the line before and its own."""

    n: int
    prev: str
    hash: str


def check_entry(entry: Mapping[str, object]) -> Entry:
    """A copy of an entry that can be written. Raises ValueError, which names no value.

    Refused are an entry without a kind, names that a line gives itself, personal data by its name at any depth, and
    what JSON has no form for.
    """
    checked = _checked(entry, _MAX_DEPTH)
    assert isinstance(checked, dict)
    if not isinstance(checked.get("kind"), str) or not checked["kind"]:
        raise ValueError("an entry must have a kind")
    if own := _OWN & checked.keys():
        raise ValueError(f"an entry cannot have the field {min(own)!r}: each line has its own")
    return checked


def _checked(value: object, depth: int) -> object:
    if value is None or isinstance(value, str | int | float):
        return value
    if not depth:
        raise ValueError(f"an entry is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ValueError("a field's name must be a text")
            if name.casefold() in _PERSONAL:
                raise ValueError(f"the audit trail takes no personal data: field {name!r}")
        return {name: _checked(member, depth - 1) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_checked(member, depth - 1) for member in value]
    raise ValueError(f"a value of type {type(value).__name__} has no form in the audit trail")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def encode(n: int, at: int, node: str, entry: Entry, prev: str) -> tuple[bytes, str]:
    """The line for a checked entry, with its line feed, and its hash. `at` is in Unix seconds. Raises ValueError."""
    if isinstance(at, bool) or not isinstance(at, int) or not 0 <= at < 10**18:
        raise ValueError("the time must be a whole number of Unix seconds")
    fields = {name: value for name, value in entry.items() if name != "kind"}
    text = f'{{"n":{n},"at":{at},"node":{_json(node)},"kind":{_json(entry["kind"])},'
    if fields:
        text += _json(fields)[1:-1] + ","
    content = f'{text}"prev":"{prev}"'.encode()
    own = hashlib.sha256(content + b"}").hexdigest()
    line = content + f',"hash":"{own}"}}\n'.encode()
    if len(line) > MAX_LINE:
        raise ValueError(f"an entry makes a line of more than {MAX_LINE} octets")
    return line, own


def link(line: bytes) -> Link | None:
    """What ties this line, with its line feed, to its neighbours; None where its hash is not that of its content."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    own = match[3].decode()
    if hashlib.sha256(line[:-_HASH_LENGTH] + b"}").hexdigest() != own:
        return None
    return Link(int(match[1]), match[2].decode(), own)


def decode(line: bytes) -> Entry | None:
    """A line whose link is sound, as what it says; None where it is not the canonical form of that."""
    try:
        said = json.loads(line)
        entry = {name: value for name, value in said.items() if name == "kind" or name not in _OWN}
        # Not only the hash: a name that is there twice means different things to different readers.
        again, own = encode(said["n"], said["at"], said["node"], entry, said["prev"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return said if again == line and own == said["hash"] else None


def is_torn(tail: bytes) -> bool:
    """Whether octets without a line feed at the end of a file are an append that never ended.

    A line's hash is the last thing written before its line feed. Where anything stands behind a hash, the line had
    been written and was changed since.
    """
    match = _END.search(tail)
    return match is None or match.end() == len(tail)


def encode_head(head: Head) -> bytes:
    """A witnessed head as a line."""
    return _json({"node": head.node, "n": head.n, "hash": head.hash}).encode() + b"\n"


def decode_head(line: bytes) -> Head | None:
    """The head that a line says was witnessed; None where it is none."""
    try:
        said = json.loads(line)
        node, n, own = said["node"], said["n"], said["hash"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(node, str) or type(n) is not int or not isinstance(own, str):
        return None
    return Head(node, n, own)


def names_device(said: object, key: str) -> bool:
    """Whether an entry names a device in any of its values: these 14 digits, alone or with what follows in an IMEI."""
    if isinstance(said, str):
        return said.startswith(key) and len(said) <= 16 and said.isascii() and said.isdigit()
    if isinstance(said, dict):
        return any(names_device(value, key) for value in said.values())
    return isinstance(said, list) and any(names_device(value, key) for value in said)
