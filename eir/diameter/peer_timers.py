"""How long a peer is waited for, and when it is connected to again.

Implements the times of RFC 6733 2.1 (Tc) and 5.4.3 (what a Disconnect-Cause means for the next attempt). Read by
`peer` and `peers`; the configuration fills it in. It measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from eir.diameter.dictionary import DisconnectCause
from eir.diameter.watchdog import DEFAULT_TW, MINIMUM_TW

SILENCE: Final = MINIMUM_TW
"""Seconds after which a connection gives way to a new one of its peer."""

NEVER: Final = float("inf")

_PAUSES: Final[Mapping[DisconnectCause, float]] = MappingProxyType(
    {
        DisconnectCause.REBOOTING: 1.0,
        DisconnectCause.BUSY: 10.0,
        DisconnectCause.DO_NOT_WANT_TO_TALK_TO_YOU: NEVER,
    }
)

_TC_JITTER: Final = 0.1
"""The part of Tc by which attempts differ from it, either way, so that nodes do not keep step."""


@dataclass(frozen=True, slots=True)
class PeerTimers:
    """Seconds to wait: for the CER; for a connection of ours, then for its CEA; for the DPA to our DPR; for the close
    after our DPA; for a TLS handshake that a CER asked for; Tw of the watchdog; Tc between attempts to connect."""

    cer_timeout: float = 10.0
    connect_timeout: float = 10.0
    cea_timeout: float = 10.0
    dpa_timeout: float = 5.0
    dpr_grace: float = 5.0
    tls_timeout: float = 10.0
    tw: float = DEFAULT_TW
    tc: float = 30.0

    def tc_with_jitter(self, random: float) -> float:
        """Tc for one attempt; `random` is from 0 up to 1."""
        return self.tc * (1.0 + _TC_JITTER * (2.0 * random - 1.0))


DEFAULT_TIMERS: Final = PeerTimers()


def pause_after(cause: DisconnectCause) -> float:
    """How many Tc to wait before connecting again to a peer that said, or was told, why not: one that is busy for
    longer, and one that does not want to for ever, which is until somebody says otherwise (RFC 6733 5.4.3)."""
    return _PAUSES[cause]
