"""The requests that this node makes of a peer, CER, DWR and DPR, and which answer belongs to which.

Implements RFC 6733 3 (identifiers), 5.3.1, 5.4.1 and 5.5.1. Called by `peer`, one instance for each. An answer belongs
to a request by its command and its Hop-by-Hop Identifier; what else it says is for the caller to see. It sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from eir.diameter import dictionary
from eir.diameter.answer import Identity
from eir.diameter.capabilities import cer_avps
from eir.diameter.dictionary import CommandDefinition, DisconnectCause
from eir.diameter.message import REQUEST, Avp, Header, encode, encode_avps, make_avp
from eir.diameter.peer_policy import Address


class OwnRequests:
    """What was asked of one peer. At most one request of a kind is unanswered: the last."""

    __slots__ = ("_identifier", "_identity", "_outstanding")

    def __init__(self, identity: Identity, random: Callable[[], float]) -> None:
        """`random` gives numbers from 0 up to 1, for the first identifier."""
        self._identity = identity
        # RFC 6733 3 wants identifiers that do not repeat soon after a restart: they begin at random and count up.
        self._identifier = int(random() * 0xFFFFFFFF)
        self._outstanding: dict[int, int] = {}

    def cer(self, local: Address) -> bytes:
        """A CER; `local` is our address on the connection."""
        return self._build(dictionary.CAPABILITIES_EXCHANGE, cer_avps(self._identity, local))

    def dwr(self) -> bytes:
        """A DWR."""
        return self._build(dictionary.DEVICE_WATCHDOG, (*self._identity.avps(), self._identity.state_avp()))

    def dpr(self, cause: DisconnectCause) -> bytes:
        """A DPR."""
        own = (*self._identity.avps(), make_avp(dictionary.DISCONNECT_CAUSE, int(cause)))
        return self._build(dictionary.DISCONNECT_PEER, own)

    def answered(self, answer: Header) -> CommandDefinition | None:
        """The request that an answer belongs to, which is then no longer outstanding; None: nobody asked for it."""
        command = dictionary.COMMANDS.get(answer.command)
        number = self._outstanding.get(answer.command)
        if command is None or answer.application != command.application or answer.hop_by_hop != number:
            return None
        del self._outstanding[answer.command]
        return command

    def forget(self) -> None:
        """The connection is gone, and with it the answers."""
        self._outstanding.clear()

    def _build(self, command: CommandDefinition, own: tuple[Avp, ...]) -> bytes:
        self._identifier = (self._identifier + 1) & 0xFFFFFFFF
        self._outstanding[command.code] = self._identifier
        header = Header(REQUEST, command.code, command.application, self._identifier, self._identifier)
        return encode(header, encode_avps(own))
