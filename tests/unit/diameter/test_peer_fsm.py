"""`eir.diameter.peer_fsm`: its table is RFC 6733's, and what was added to it is known."""

from __future__ import annotations

from eir.diameter.peer_fsm import ADDITIONS, TABLE, TRANSITIONS, PeerAction, PeerEvent, PeerState

# RFC 6733 5.6 as it is printed: state, event, action and next state by columns, continued on the lines that follow.
RFC_6733 = """
      state            event              action         next state
      -----------------------------------------------------------------
      Closed           Start            I-Snd-Conn-Req   Wait-Conn-Ack
                       R-Conn-CER       R-Accept,        R-Open
                                        Process-CER,
                                        R-Snd-CEA

      Wait-Conn-Ack    I-Rcv-Conn-Ack   I-Snd-CER        Wait-I-CEA
                       I-Rcv-Conn-Nack  Cleanup          Closed
                       R-Conn-CER       R-Accept,        Wait-Conn-Ack/
                                        Process-CER      Elect
                       Timeout          Error            Closed

      Wait-I-CEA       I-Rcv-CEA        Process-CEA      I-Open
                       R-Conn-CER       R-Accept,        Wait-Returns
                                        Process-CER,
                                        Elect
                       I-Peer-Disc      I-Disc           Closed
                       I-Rcv-Non-CEA    Error            Closed
                       Timeout          Error            Closed

      Wait-Conn-Ack/   I-Rcv-Conn-Ack   I-Snd-CER,Elect  Wait-Returns
      Elect            I-Rcv-Conn-Nack  R-Snd-CEA        R-Open
                       R-Peer-Disc      R-Disc           Wait-Conn-Ack
                       R-Conn-CER       R-Reject         Wait-Conn-Ack/
                                                         Elect
                       Timeout          Error            Closed

      Wait-Returns     Win-Election     I-Disc,R-Snd-CEA R-Open
                       I-Peer-Disc      I-Disc,          R-Open
                                        R-Snd-CEA
                       I-Rcv-CEA        R-Disc           I-Open
                       R-Peer-Disc      R-Disc           Wait-I-CEA
                       R-Conn-CER       R-Reject         Wait-Returns
                       Timeout          Error            Closed

      R-Open           Send-Message     R-Snd-Message    R-Open
                       R-Rcv-Message    Process          R-Open
                       R-Rcv-DWR        Process-DWR,     R-Open
                                        R-Snd-DWA
                       R-Rcv-DWA        Process-DWA      R-Open
                       R-Conn-CER       R-Reject         R-Open
                       Stop             R-Snd-DPR        Closing
                       R-Rcv-DPR        R-Snd-DPA        Closing
                       R-Peer-Disc      R-Disc           Closed

      I-Open           Send-Message     I-Snd-Message    I-Open
                       I-Rcv-Message    Process          I-Open
                       I-Rcv-DWR        Process-DWR,     I-Open
                                        I-Snd-DWA
                       I-Rcv-DWA        Process-DWA      I-Open
                       R-Conn-CER       R-Reject         I-Open
                       Stop             I-Snd-DPR        Closing
                       I-Rcv-DPR        I-Snd-DPA        Closing
                       I-Peer-Disc      I-Disc           Closed

      Closing          I-Rcv-DPA        I-Disc           Closed
                       R-Rcv-DPA        R-Disc           Closed
                       Timeout          Error            Closed
                       I-Peer-Disc      I-Disc           Closed
                       R-Peer-Disc      R-Disc           Closed
"""
COLUMNS = ((6, 23), (23, 40), (40, 57), (57, 80))


def rows_of_the_rfc() -> list[tuple[str, str, list[str], str]]:
    """(state, event, actions, next state) of each row: one begins with each event."""
    rows: list[list[str]] = []
    state = ""
    for line in RFC_6733.splitlines()[3:]:
        cells = [line[begin:end].strip() for begin, end in COLUMNS]
        if not any(cells):
            state = ""
        elif cells[1]:
            # A state in two lines is whole in the line of its second event.
            state += cells[0]
            rows.append(["", *cells[1:]])
        else:
            rows[-1][2] += cells[2]
            rows[-1][3] += cells[3]
        for row in reversed(rows if cells[1] else []):
            if row[0] and row[0] != state and not state.startswith(row[0]):
                break
            row[0] = state
    return [(state, event, actions.split(","), following) for state, event, actions, following in rows]


def test_the_table_is_that_of_the_rfc() -> None:
    ours = [
        (row.state.value, row.event.value, [action.value for action in row.actions], row.next_state.value)
        for row in TABLE
    ]
    theirs = rows_of_the_rfc()
    assert len(theirs) == 43
    assert ours == theirs


def test_each_row_is_of_the_rfcs_words_and_stands_once() -> None:
    assert {row.state for row in TABLE} == set(PeerState)
    assert {row.event for row in TABLE} == set(PeerEvent)
    assert {action for row in TABLE for action in row.actions} == set(PeerAction)
    assert len(TRANSITIONS) == len(TABLE) + len(ADDITIONS)
    assert all(row.clause[0].isdigit() for row in TRANSITIONS.values())


def test_what_was_added_does_not_lead_to_an_open_connection_but_from_a_refusal() -> None:
    opening = [row for row in ADDITIONS if row.next_state in (PeerState.R_OPEN, PeerState.I_OPEN)]
    assert [(row.state, row.event) for row in opening] == [(PeerState.WAIT_RETURNS, PeerEvent.I_RCV_NON_CEA)]
    assert {row.state for row in ADDITIONS} == {
        PeerState.WAIT_CONN_ACK,
        PeerState.WAIT_I_CEA,
        PeerState.WAIT_CONN_ACK_ELECT,
        PeerState.WAIT_RETURNS,
        PeerState.CLOSING,
    }


def test_every_state_can_be_left_and_every_wait_ends() -> None:
    waiting = set(PeerState) - {PeerState.CLOSED, PeerState.R_OPEN, PeerState.I_OPEN}
    for state in waiting:
        assert TRANSITIONS[state, PeerEvent.TIMEOUT].next_state is PeerState.CLOSED
    for state in set(PeerState) - {PeerState.CLOSED, PeerState.CLOSING}:
        assert TRANSITIONS[state, PeerEvent.STOP].next_state in (PeerState.CLOSED, PeerState.CLOSING)
