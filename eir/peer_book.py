"""Peers that were added, and peers that are kept out, while the node runs: what the configuration does not say.

One file in the node's directory, written whole or not at all. Called by `app` for `eir peers add|remove|disable|enable`
and at start and reload, where what is in it is put beside the configuration's peers. A file that is damaged is said,
and left alone: what is in it may be mended by hand.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from eir.config import PeerSection, peer_entry


class PeerBookError(ValueError):
    """What was asked cannot be done, or the file cannot be used; the text is for people."""


class _Written(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    added: tuple[PeerSection, ...] = ()
    disabled: tuple[str, ...] = ()


class PeerBook:
    """The file and what is in it. `disabled` are names in lower case."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = _Written()
        self._damage = ""

    @property
    def added(self) -> tuple[PeerSection, ...]:
        """The peers that were added."""
        return self._written.added

    @property
    def disabled(self) -> frozenset[str]:
        """The names that are kept out."""
        return frozenset(self._written.disabled)

    @property
    def damage(self) -> str:
        """Why the file cannot be used; empty where it can."""
        return self._damage

    def load(self) -> None:
        """Reads the file, if there is one.

        Raises `PeerBookError`; what was known before is then still known, and nothing is written until it is mended.
        """
        self._damage = ""
        try:
            written = msgspec.json.decode(self._path.read_bytes(), type=_Written)
            for peer in written.added:
                peer_entry(peer)
        except FileNotFoundError:
            written = _Written()
        except (OSError, ValueError) as error:
            self._damage = f"{self._path}: {error}"
            raise PeerBookError(self._damage) from error
        self._written = written

    def add(self, peer: PeerSection) -> None:
        """Adds a peer, or puts an added one of that name otherwise. Raises `PeerBookError`, OSError."""
        try:
            peer_entry(peer)
        except ValueError as error:
            raise PeerBookError(str(error)) from error
        others = tuple(other for other in self.added if not _same(other.origin_host, peer.origin_host))
        self._write(_Written((*others, peer), self._written.disabled))

    def remove(self, origin_host: str) -> None:
        """Takes an added peer away. Raises `PeerBookError` where it was not added, OSError."""
        others = tuple(other for other in self.added if not _same(other.origin_host, origin_host))
        if len(others) == len(self.added):
            raise PeerBookError(
                f"{origin_host} was not added here; a peer of the configuration is taken out there, followed by a "
                "reload, or kept out by `eir peers disable`"
            )
        self._write(_Written(others, self._written.disabled))

    def disable(self, origin_host: str) -> None:
        """Keeps a name out whatever the entries say. Raises `PeerBookError` for a pattern, OSError."""
        if "*" in origin_host:
            raise PeerBookError("a name is disabled, not a pattern")
        self._write(_Written(self.added, tuple(sorted({*self._written.disabled, origin_host.lower()}))))

    def enable(self, origin_host: str) -> None:
        """Lets a name in again. Raises `PeerBookError` where it was not kept out, OSError."""
        if origin_host.lower() not in self._written.disabled:
            raise PeerBookError(f"{origin_host} is not disabled")
        self._write(_Written(self.added, tuple(sorted(self.disabled - {origin_host.lower()}))))

    def _write(self, written: _Written) -> None:
        if self._damage:
            raise PeerBookError(f"{self._damage}; mend it, or take it away, followed by a reload")
        beside = self._path.with_suffix(".new")
        with beside.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._written = written


def _same(one: str, other: str) -> bool:
    return one.lower() == other.lower()
