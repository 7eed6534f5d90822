"""How the sources of lists are reached. Apart from the sources: these need what takes a while to be loaded."""

from __future__ import annotations

import ssl
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """How the server is reached. `url` is the base, without a slash at its end; times in seconds.

    `stall`: without an octet for so long, a transfer is broken off. `max_deltas`: further behind, the snapshot is
    fetched where there is one. `max_octets`: of a package, whatever its manifest says.
    """

    url: str
    interval: float
    stall: float
    tls: ssl.SSLContext | None = None
    token: str | None = None
    max_deltas: int = 1000
    max_octets: int = 64 << 30


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """How the broker is reached; `client_id` names the session, and no two nodes may have the same."""

    host: str
    port: int
    client_id: str
    country: str
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    keepalive: int = 15
