"""What the owner of the connections is to do: the words in which `peer` and `peers` answer, and `server` obeys.

A connection is its number, as the data plane counts them. Nothing is done here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from eir.diameter.peer_policy import Address, PeerEntry, Role


class Reason(StrEnum):
    """Why a connection is closed or a message discarded; the values are for counters and logs."""

    CER_TIMEOUT = "cer-timeout"
    NOT_CER = "not-cer"
    """The first message was something else."""
    CER_REFUSED = "cer-refused"
    ADDRESS_NOT_ALLOWED = "address-not-allowed"
    """No peer may connect from there, whatever it calls itself."""
    DUPLICATE = "duplicate"
    """The peer is connected already, and that connection is alive (RFC 6733 5.6: R-Reject)."""
    REPLACED = "replaced"
    """The peer has connected anew."""
    CONNECT_TIMEOUT = "connect-timeout"
    CEA_TIMEOUT = "cea-timeout"
    NOT_CEA = "not-cea"
    """The first answer was no CEA to our CER, or one that says what a CEA may not."""
    CEA_REFUSED = "cea-refused"
    """The peer does not want us."""
    ELECTION_LOST = "election-lost"
    """The peer's connection to us stays (RFC 6733 5.6.4: the winner closes the connection it initiated)."""
    ELECTION_WON = "election-won"
    TLS_TIMEOUT = "tls-timeout"
    """The handshake that a CER asked for did not come to its end."""
    CERTIFICATE_REFUSED = "certificate-refused"
    """The certificate is missing, or not valid for the Origin-Host."""
    WATCHDOG = "watchdog"
    DPA_RECEIVED = "dpa-received"
    DPA_TIMEOUT = "dpa-timeout"
    """Our DPR was not answered in time."""
    DPR_GRACE = "dpr-grace"
    """The peer said it would disconnect, got its DPA, and did not."""
    STOPPED = "stopped"
    """Told to disconnect before the connection was open."""
    UNSOLICITED_ANSWER = "unsolicited-answer"
    UNREADABLE = "unreadable"
    """Shorter than a header, so it cannot even be told whether it is a request."""
    NOT_OPEN = "not-open"
    """Came while the connection waits for something else than messages."""
    CLOSED = "closed"
    """Came after the connection was closed."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send `data`. `result_code` is what an answer says; None for a request of our own."""

    number: int
    data: bytes
    result_code: int | None = None


@dataclass(frozen=True, slots=True)
class SendAndOpen:
    """Send `data`, a CEA with 2001 or nothing, and in the same step let the data plane serve the peer.

    `sender` is the role in its entry, `advertised_relay` whether its capabilities named the relay application.
    """

    number: int
    data: bytes
    origin_host: str
    sender: Role
    advertised_relay: bool


@dataclass(frozen=True, slots=True)
class Secure:
    """Send `data`, a CEA with 2001 and Inband-Security-Id 1, and then expect a TLS handshake (RFC 6733 6.10)."""

    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class SendAndClose:
    """Send `data`, an answer with `result_code`, and close the connection behind it."""

    number: int
    data: bytes
    reason: Reason
    result_code: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection, or give up its attempt."""

    number: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Discard:
    """Do nothing but count: the message was dropped."""

    number: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect to the peer, with TLS to `tls_name` where that is given, and say which number it has."""

    origin_host: str
    address: Address
    port: int
    tls_name: str | None


@dataclass(frozen=True, slots=True)
class SetTerms:
    """The entry of a peer is this from now on, whether it is connected or not; None: it is forgotten."""

    origin_host: str
    entry: PeerEntry | None


Action: TypeAlias = Send | SendAndOpen | Secure | SendAndClose | Close | Discard | Connect | SetTerms
