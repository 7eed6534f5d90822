"""Which peers there are: who may connect and from where, whom this node connects to, and on what terms.

The configuration's peers and those of the command line become one `PeerPolicy`; `peers` asks it at each CER and at
each change. RFC 6733 2.6 calls what is made of it the peer table.

It never looks at a message, and holds no peer: only what was said of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, Literal, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Endpoint: TypeAlias = tuple[Address, int]
"""Address and port."""

Role: TypeAlias = Literal["auto", "direct", "relay"]
Tls: TypeAlias = Literal["optional", "required", "never"]


@dataclass(frozen=True, slots=True)
class PeerEntry:
    """What is said of one peer, or of all peers whose names end alike.

    `origin_host` is a name, compared without regard to case (RFC 6733 4.3.1), or "*.suffix" for every name below that
    suffix, or "*" for every name. `networks` are those the connection may come from; left out, they are the addresses
    of `connect`. Raises `ValueError` for a star anywhere else, an empty name, no network, or a `connect` without a
    name: each would be a mistake that lets in nobody or, worse, everybody.
    """

    origin_host: str
    networks: tuple[Network, ...] = ()
    role: Role = "auto"
    """Whom it may speak for: itself (`direct`), anyone (`relay`), or as its messages show (`auto`)."""
    tls: Tls = "optional"
    connections: int = 1
    """How many connections it may have open to this node at once."""
    connect: tuple[Endpoint, ...] = ()
    """Addresses that this node connects to, one connection for each."""
    requests_per_second: int = 0
    """0: no limit."""
    load: bool = False
    grey: str | None = None
    unknown: str | None = None
    malformed: str | None = None
    """What these are answered as; None: as the country's profile has it."""

    def __post_init__(self) -> None:
        fixed = self.origin_host.removeprefix("*") if self.origin_host == "*" else self.origin_host.removeprefix("*.")
        if "*" in fixed or (not fixed and self.origin_host != "*"):
            raise ValueError(f"origin_host {self.origin_host!r} is neither a name, nor '*.suffix', nor '*'")
        if self.connect and not self.is_name:
            raise ValueError(f"connect needs a name, and origin_host is {self.origin_host!r}")
        if len(set(self.connect)) != len(self.connect):
            raise ValueError(f"connect of {self.origin_host!r} has an address twice")
        if self.connections < 1:
            raise ValueError(f"connections of {self.origin_host!r} is {self.connections}, and at least 1 is meant")
        if not self.networks:
            object.__setattr__(self, "networks", tuple(ip_network(address) for address, _ in self.connect))
        if not self.networks:
            raise ValueError(f"no networks for origin_host {self.origin_host!r}")

    @property
    def is_name(self) -> bool:
        """Whether it is for one peer alone."""
        return not self.origin_host.startswith("*")

    def holds(self, address: Address) -> bool:
        """Whether the peer may connect from this address, which is not an IPv4-mapped one."""
        return any(address in network for network in self.networks)


class PeerPolicy:
    """All entries. The one that names a peer most exactly decides alone: the name, the longest suffix, then "*"."""

    __slots__ = ("_by_pattern", "_disabled", "_entries", "_named", "_prefixes")

    def __init__(self, entries: Iterable[PeerEntry], disabled: Iterable[str] = ()) -> None:
        """`disabled` are names that are kept out whatever the entries say."""
        self._entries: Final = tuple(entries)
        self._disabled: Final = frozenset(name.lower() for name in disabled)
        self._by_pattern: dict[str, list[PeerEntry]] = {}
        for entry in self._entries:
            self._by_pattern.setdefault(entry.origin_host.lower(), []).append(entry)
        self._named: Final = {
            name: entries
            for name, entries in self._by_pattern.items()
            if entries[0].is_name and name not in self._disabled
        }
        # Prefixes by family and length: an address is looked up as often as there are lengths, not networks.
        self._prefixes: dict[tuple[int, int], set[int]] = {}
        for network in self.networks():
            shift = network.max_prefixlen - network.prefixlen
            self._prefixes.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)

    @property
    def entries(self) -> tuple[PeerEntry, ...]:
        """The entries, as given."""
        return self._entries

    @property
    def disabled(self) -> frozenset[str]:
        """The names that are kept out, in lower case."""
        return self._disabled

    def is_disabled(self, origin_host: str) -> bool:
        """Whether a peer of this name is kept out."""
        return origin_host.lower() in self._disabled

    def find(self, origin_host: str, address: Address) -> PeerEntry | None:
        """The entry for a peer of this name at this address; None: it is not let in."""
        name = origin_host.lower()
        if name in self._disabled:
            return None
        address = unmapped(address)
        for pattern in _patterns(name):
            if entries := self._by_pattern.get(pattern):
                return next((entry for entry in entries if entry.holds(address)), None)
        return None

    @property
    def named(self) -> Mapping[str, list[PeerEntry]]:
        """The entries of each peer that has its own and is not disabled, by its name in lower case."""
        return self._named

    def networks(self) -> tuple[Network, ...]:
        """The networks of all entries, each once, in their order: who is kept out is told so, at his CER."""
        return tuple(dict.fromkeys(network for entry in self._entries for network in entry.networks))

    def knows(self, address: Address) -> bool:
        """Whether any peer may connect from this address."""
        address = unmapped(address)
        number = int(address)
        return any(
            version == address.version and number >> shift in prefixes
            for (version, shift), prefixes in self._prefixes.items()
        )


def _patterns(name: str) -> Iterable[str]:
    """What a name is matched by, the most exact first."""
    # A name in which somebody put a star is matched by no entry but that for all.
    if not name.startswith("*"):
        yield name
    at = name.find(".", 1)
    while at >= 0:
        yield f"*{name[at:]}"
        at = name.find(".", at + 1)
    yield "*"


def unmapped(address: Address) -> Address:
    """A socket that takes both families shows an IPv4 peer as ::ffff:a.b.c.d; the networks are written without."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
