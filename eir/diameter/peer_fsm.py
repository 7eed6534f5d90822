"""The peer state machine of RFC 6733 5.6 as data: its states, events and actions, and its table row for row.

Executed by `peer`, one instance for each peer. `TABLE` is the RFC's and is held to it by a test; `ADDITIONS` are the
rows that the RFC leaves out and a node still needs, each with its reason. There is no code here but the look-up, and
no state.

The prefix I- is of the connection that this node initiated, R- of the one it responds on; an event without a prefix
has no connection (RFC 6733 5.6).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple


class PeerState(Enum):
    """The states (RFC 6733 5.6)."""

    CLOSED = "Closed"
    WAIT_CONN_ACK = "Wait-Conn-Ack"
    WAIT_I_CEA = "Wait-I-CEA"
    WAIT_CONN_ACK_ELECT = "Wait-Conn-Ack/Elect"
    WAIT_RETURNS = "Wait-Returns"
    R_OPEN = "R-Open"
    I_OPEN = "I-Open"
    CLOSING = "Closing"


class PeerEvent(Enum):
    """The events (RFC 6733 5.6.2)."""

    START = "Start"
    R_CONN_CER = "R-Conn-CER"
    I_RCV_CONN_ACK = "I-Rcv-Conn-Ack"
    I_RCV_CONN_NACK = "I-Rcv-Conn-Nack"
    TIMEOUT = "Timeout"
    I_RCV_CEA = "I-Rcv-CEA"
    I_RCV_NON_CEA = "I-Rcv-Non-CEA"
    I_PEER_DISC = "I-Peer-Disc"
    R_PEER_DISC = "R-Peer-Disc"
    WIN_ELECTION = "Win-Election"
    SEND_MESSAGE = "Send-Message"
    I_RCV_MESSAGE = "I-Rcv-Message"
    R_RCV_MESSAGE = "R-Rcv-Message"
    I_RCV_DWR = "I-Rcv-DWR"
    R_RCV_DWR = "R-Rcv-DWR"
    I_RCV_DWA = "I-Rcv-DWA"
    R_RCV_DWA = "R-Rcv-DWA"
    I_RCV_DPR = "I-Rcv-DPR"
    R_RCV_DPR = "R-Rcv-DPR"
    I_RCV_DPA = "I-Rcv-DPA"
    R_RCV_DPA = "R-Rcv-DPA"
    STOP = "Stop"


class PeerAction(Enum):
    """The actions (RFC 6733 5.6.3)."""

    I_SND_CONN_REQ = "I-Snd-Conn-Req"
    R_ACCEPT = "R-Accept"
    R_REJECT = "R-Reject"
    PROCESS_CER = "Process-CER"
    I_SND_CER = "I-Snd-CER"
    R_SND_CEA = "R-Snd-CEA"
    CLEANUP = "Cleanup"
    ERROR = "Error"
    PROCESS_CEA = "Process-CEA"
    I_DISC = "I-Disc"
    R_DISC = "R-Disc"
    ELECT = "Elect"
    I_SND_MESSAGE = "I-Snd-Message"
    R_SND_MESSAGE = "R-Snd-Message"
    PROCESS = "Process"
    PROCESS_DWR = "Process-DWR"
    PROCESS_DWA = "Process-DWA"
    I_SND_DWA = "I-Snd-DWA"
    R_SND_DWA = "R-Snd-DWA"
    I_SND_DPR = "I-Snd-DPR"
    R_SND_DPR = "R-Snd-DPR"
    I_SND_DPA = "I-Snd-DPA"
    R_SND_DPA = "R-Snd-DPA"


class PeerRow(NamedTuple):
    """One row: in `state`, when `event` happens, do `actions` and go to `next_state`; `clause` of RFC 6733."""

    state: PeerState
    event: PeerEvent
    actions: tuple[PeerAction, ...]
    next_state: PeerState
    clause: str


_S = PeerState
_E = PeerEvent
_A = PeerAction

TABLE: Final = (
    PeerRow(_S.CLOSED, _E.START, (_A.I_SND_CONN_REQ,), _S.WAIT_CONN_ACK, "2.1"),
    PeerRow(_S.CLOSED, _E.R_CONN_CER, (_A.R_ACCEPT, _A.PROCESS_CER, _A.R_SND_CEA), _S.R_OPEN, "5.6.1"),
    #
    PeerRow(_S.WAIT_CONN_ACK, _E.I_RCV_CONN_ACK, (_A.I_SND_CER,), _S.WAIT_I_CEA, "5.3.1"),
    PeerRow(_S.WAIT_CONN_ACK, _E.I_RCV_CONN_NACK, (_A.CLEANUP,), _S.CLOSED, "5.6.2"),
    PeerRow(_S.WAIT_CONN_ACK, _E.R_CONN_CER, (_A.R_ACCEPT, _A.PROCESS_CER), _S.WAIT_CONN_ACK_ELECT, "5.6.1"),
    PeerRow(_S.WAIT_CONN_ACK, _E.TIMEOUT, (_A.ERROR,), _S.CLOSED, "5.6.2"),
    #
    PeerRow(_S.WAIT_I_CEA, _E.I_RCV_CEA, (_A.PROCESS_CEA,), _S.I_OPEN, "5.3.2"),
    PeerRow(_S.WAIT_I_CEA, _E.R_CONN_CER, (_A.R_ACCEPT, _A.PROCESS_CER, _A.ELECT), _S.WAIT_RETURNS, "5.6.4"),
    PeerRow(_S.WAIT_I_CEA, _E.I_PEER_DISC, (_A.I_DISC,), _S.CLOSED, "5.6.2"),
    PeerRow(_S.WAIT_I_CEA, _E.I_RCV_NON_CEA, (_A.ERROR,), _S.CLOSED, "5.3.2"),
    PeerRow(_S.WAIT_I_CEA, _E.TIMEOUT, (_A.ERROR,), _S.CLOSED, "5.6.2"),
    #
    PeerRow(_S.WAIT_CONN_ACK_ELECT, _E.I_RCV_CONN_ACK, (_A.I_SND_CER, _A.ELECT), _S.WAIT_RETURNS, "5.6.4"),
    PeerRow(_S.WAIT_CONN_ACK_ELECT, _E.I_RCV_CONN_NACK, (_A.R_SND_CEA,), _S.R_OPEN, "5.6.2"),
    PeerRow(_S.WAIT_CONN_ACK_ELECT, _E.R_PEER_DISC, (_A.R_DISC,), _S.WAIT_CONN_ACK, "5.6.2"),
    PeerRow(_S.WAIT_CONN_ACK_ELECT, _E.R_CONN_CER, (_A.R_REJECT,), _S.WAIT_CONN_ACK_ELECT, "5.6.3"),
    PeerRow(_S.WAIT_CONN_ACK_ELECT, _E.TIMEOUT, (_A.ERROR,), _S.CLOSED, "5.6.2"),
    #
    PeerRow(_S.WAIT_RETURNS, _E.WIN_ELECTION, (_A.I_DISC, _A.R_SND_CEA), _S.R_OPEN, "5.6.4"),
    PeerRow(_S.WAIT_RETURNS, _E.I_PEER_DISC, (_A.I_DISC, _A.R_SND_CEA), _S.R_OPEN, "5.6.2"),
    PeerRow(_S.WAIT_RETURNS, _E.I_RCV_CEA, (_A.R_DISC,), _S.I_OPEN, "5.6.4"),
    PeerRow(_S.WAIT_RETURNS, _E.R_PEER_DISC, (_A.R_DISC,), _S.WAIT_I_CEA, "5.6.2"),
    PeerRow(_S.WAIT_RETURNS, _E.R_CONN_CER, (_A.R_REJECT,), _S.WAIT_RETURNS, "5.6.3"),
    PeerRow(_S.WAIT_RETURNS, _E.TIMEOUT, (_A.ERROR,), _S.CLOSED, "5.6.2"),
    #
    PeerRow(_S.R_OPEN, _E.SEND_MESSAGE, (_A.R_SND_MESSAGE,), _S.R_OPEN, "5.6.3"),
    PeerRow(_S.R_OPEN, _E.R_RCV_MESSAGE, (_A.PROCESS,), _S.R_OPEN, "5.6.3"),
    PeerRow(_S.R_OPEN, _E.R_RCV_DWR, (_A.PROCESS_DWR, _A.R_SND_DWA), _S.R_OPEN, "5.5.2"),
    PeerRow(_S.R_OPEN, _E.R_RCV_DWA, (_A.PROCESS_DWA,), _S.R_OPEN, "5.5.3"),
    PeerRow(_S.R_OPEN, _E.R_CONN_CER, (_A.R_REJECT,), _S.R_OPEN, "5.6.3"),
    PeerRow(_S.R_OPEN, _E.STOP, (_A.R_SND_DPR,), _S.CLOSING, "5.4.1"),
    PeerRow(_S.R_OPEN, _E.R_RCV_DPR, (_A.R_SND_DPA,), _S.CLOSING, "5.4.2"),
    PeerRow(_S.R_OPEN, _E.R_PEER_DISC, (_A.R_DISC,), _S.CLOSED, "5.6.2"),
    #
    PeerRow(_S.I_OPEN, _E.SEND_MESSAGE, (_A.I_SND_MESSAGE,), _S.I_OPEN, "5.6.3"),
    PeerRow(_S.I_OPEN, _E.I_RCV_MESSAGE, (_A.PROCESS,), _S.I_OPEN, "5.6.3"),
    PeerRow(_S.I_OPEN, _E.I_RCV_DWR, (_A.PROCESS_DWR, _A.I_SND_DWA), _S.I_OPEN, "5.5.2"),
    PeerRow(_S.I_OPEN, _E.I_RCV_DWA, (_A.PROCESS_DWA,), _S.I_OPEN, "5.5.3"),
    PeerRow(_S.I_OPEN, _E.R_CONN_CER, (_A.R_REJECT,), _S.I_OPEN, "5.6.3"),
    PeerRow(_S.I_OPEN, _E.STOP, (_A.I_SND_DPR,), _S.CLOSING, "5.4.1"),
    PeerRow(_S.I_OPEN, _E.I_RCV_DPR, (_A.I_SND_DPA,), _S.CLOSING, "5.4.2"),
    PeerRow(_S.I_OPEN, _E.I_PEER_DISC, (_A.I_DISC,), _S.CLOSED, "5.6.2"),
    #
    PeerRow(_S.CLOSING, _E.I_RCV_DPA, (_A.I_DISC,), _S.CLOSED, "5.4"),
    PeerRow(_S.CLOSING, _E.R_RCV_DPA, (_A.R_DISC,), _S.CLOSED, "5.4"),
    PeerRow(_S.CLOSING, _E.TIMEOUT, (_A.ERROR,), _S.CLOSED, "5.6.2"),
    PeerRow(_S.CLOSING, _E.I_PEER_DISC, (_A.I_DISC,), _S.CLOSED, "5.6.2"),
    PeerRow(_S.CLOSING, _E.R_PEER_DISC, (_A.R_DISC,), _S.CLOSED, "5.6.2"),
)
"""The table of RFC 6733 5.6, in its order."""

ADDITIONS: Final = (
    # Nothing is left to wait for once somebody has said that there is to be no connection.
    PeerRow(_S.WAIT_CONN_ACK, _E.STOP, (_A.CLEANUP,), _S.CLOSED, "5.6"),
    PeerRow(_S.WAIT_I_CEA, _E.STOP, (_A.I_DISC,), _S.CLOSED, "5.6"),
    PeerRow(_S.WAIT_CONN_ACK_ELECT, _E.STOP, (_A.ERROR,), _S.CLOSED, "5.6"),
    PeerRow(_S.WAIT_RETURNS, _E.STOP, (_A.ERROR,), _S.CLOSED, "5.6"),
    # A refusal of our CER ends our connection as a disconnection would, and leaves the peer's.
    PeerRow(_S.WAIT_RETURNS, _E.I_RCV_NON_CEA, (_A.I_DISC, _A.R_SND_CEA), _S.R_OPEN, "5.6.4"),
    # What was on its way when the DPR was sent is answered, a DPR of the other side too: both may send one at once.
    PeerRow(_S.CLOSING, _E.I_RCV_MESSAGE, (_A.PROCESS,), _S.CLOSING, "5.4"),
    PeerRow(_S.CLOSING, _E.R_RCV_MESSAGE, (_A.PROCESS,), _S.CLOSING, "5.4"),
    PeerRow(_S.CLOSING, _E.I_RCV_DWR, (_A.PROCESS_DWR, _A.I_SND_DWA), _S.CLOSING, "5.4"),
    PeerRow(_S.CLOSING, _E.R_RCV_DWR, (_A.PROCESS_DWR, _A.R_SND_DWA), _S.CLOSING, "5.4"),
    PeerRow(_S.CLOSING, _E.I_RCV_DWA, (_A.PROCESS_DWA,), _S.CLOSING, "5.4"),
    PeerRow(_S.CLOSING, _E.R_RCV_DWA, (_A.PROCESS_DWA,), _S.CLOSING, "5.4"),
    PeerRow(_S.CLOSING, _E.I_RCV_DPR, (_A.I_SND_DPA,), _S.CLOSING, "5.4"),
    PeerRow(_S.CLOSING, _E.R_RCV_DPR, (_A.R_SND_DPA,), _S.CLOSING, "5.4"),
    PeerRow(_S.CLOSING, _E.R_CONN_CER, (_A.R_REJECT,), _S.CLOSING, "5.4"),
)
"""Rows that the RFC does not have. Its table "constrains only the behavior as seen on the wire" (5.6)."""

TRANSITIONS: Final[Mapping[tuple[PeerState, PeerEvent], PeerRow]] = MappingProxyType(
    {(row.state, row.event): row for row in (*TABLE, *ADDITIONS)}
)
"""Every row by its state and event. An event that a state does not list does not happen in it."""
