"""How Redis is reached, as values: what `redis_nodes` connects by. Pure; made by `config` from the section `[redis]`.

Credentials have keys of their own and no place in a node's URL, so that a URL may be shown. No password is in the text
of what is defined here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

Mode: TypeAlias = Literal["alone", "sentinel", "cluster"]

PORT: Final = 6379
SENTINEL_PORT: Final = 26379
_NUMBER: Final = re.compile(r"/?([0-9]{0,4})")


class Endpoint(NamedTuple):
    """Where a server listens: a host and a port, or the path of a socket."""

    host: str
    port: int
    path: str = ""
    tls: bool = False
    database: int = 0

    def __str__(self) -> str:
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """`nodes`: the server; or the sentinels; or nodes of the cluster to begin with. `timeout` in seconds.

    `changes_kept`: how many entries a shard's stream of changes keeps; `min_replicas`: how many replicas must have
    confirmed a commit before it counts as done.
    """

    mode: Mode = "alone"
    nodes: tuple[str, ...] = ("redis://127.0.0.1:6379",)
    service: str = "eir"
    username: str = ""
    password: str = field(default="", repr=False)
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    prefix: str = "eir"
    timeout: float = 2.0
    changes_kept: int = 5000
    min_replicas: int = 0

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The nodes' addresses. Raises ValueError."""
        found = tuple(endpoint(url, SENTINEL_PORT if self.mode == "sentinel" else PORT) for url in self.nodes)
        if not found:
            raise ValueError("no node is named")
        if self.mode == "alone" and len(found) > 1:
            raise ValueError("a server that stands alone is one")
        if self.mode != "alone" and any(one.path for one in found):
            raise ValueError("only a server that stands alone is reached by a socket's path")
        if self.mode == "cluster" and any(one.database for one in found):
            raise ValueError("a cluster has no numbered databases")
        if len({(one.tls, one.database) for one in found}) > 1:
            raise ValueError("all nodes must be of one scheme and one database")
        return found


def endpoint(url: str, default_port: int = PORT) -> Endpoint:
    """The address in `redis://HOST[:PORT][/DB]`, `rediss://HOST[:PORT][/DB]` or `unix:///PATH`. Raises ValueError.

    What is wrong is said without the URL, which may hold a password.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("a URL with credentials; they have keys of their own")
    if parts.query or parts.fragment:
        raise ValueError("a URL with options")
    if parts.scheme == "unix" and not parts.netloc and parts.path:
        return Endpoint("", 0, parts.path)
    number = _NUMBER.fullmatch(parts.path)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or number is None:
        raise ValueError("not redis://HOST:PORT, rediss://HOST:PORT or unix:///PATH")
    port = parts.port or default_port
    return Endpoint(parts.hostname, port, "", parts.scheme == "rediss", int(number[1] or 0))
