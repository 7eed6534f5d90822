"""`eir.diameter.watchdog`: RFC 3539's table, with a clock that is a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import repeat

import pytest

from eir.diameter.watchdog import TABLE, TRANSITIONS, Watchdog, WatchdogAction, WatchdogState

SEND, CLOSE, OPEN = (
    (WatchdogAction.SEND_WATCHDOG,),
    (WatchdogAction.CLOSE_CONNECTION,),
    (WatchdogAction.ATTEMPT_OPEN,),
)

# RFC 3539 appendix A, "the state machine equivalent": state; event; actions; new state.
RFC_3539 = """
OKAY    ; Receive DWA                            ; Pending = FALSE, SetWatchdog()                           ; OKAY
OKAY    ; Receive non-DWA                        ; SetWatchdog()                                            ; OKAY
SUSPECT ; Receive DWA                            ; Pending = FALSE, Failback(), SetWatchdog()               ; OKAY
SUSPECT ; Receive non-DWA                        ; Failback(), SetWatchdog()                                ; OKAY
REOPEN  ; Receive DWA & NumDWA == 2              ; Pending = FALSE, NumDWA++, Failback()                    ; OKAY
REOPEN  ; Receive DWA & NumDWA < 2               ; Pending = FALSE, NumDWA++                                ; REOPEN
REOPEN  ; Receive non-DWA                        ; Throwaway()                                              ; REOPEN
INITIAL ; Receive DWA                            ; Pending = FALSE, Throwaway()                             ; INITIAL
INITIAL ; Receive non-DWA                        ; Throwaway()                                              ; INITIAL
DOWN    ; Receive DWA                            ; Pending = FALSE, Throwaway()                             ; DOWN
DOWN    ; Receive non-DWA                        ; Throwaway()                                              ; DOWN
OKAY    ; Timer expires & !Pending               ; SendWatchdog(), SetWatchdog(), Pending = TRUE            ; OKAY
OKAY    ; Timer expires & Pending                ; Failover(), SetWatchdog()                                ; SUSPECT
SUSPECT ; Timer expires                          ; CloseConnection(), SetWatchdog()                         ; DOWN
INITIAL ; Timer expires                          ; AttemptOpen(), SetWatchdog()                             ; INITIAL
DOWN    ; Timer expires                          ; AttemptOpen(), SetWatchdog()                             ; DOWN
REOPEN  ; Timer expires & !Pending               ; SendWatchdog(), SetWatchdog(), Pending = TRUE            ; REOPEN
REOPEN  ; Timer expires & Pending & NumDWA < 0   ; CloseConnection(), SetWatchdog()                         ; DOWN
REOPEN  ; Timer expires & Pending & NumDWA >= 0  ; NumDWA = -1, SetWatchdog()                               ; REOPEN
INITIAL ; Connection up                          ; SetWatchdog()                                            ; OKAY
DOWN    ; Connection up                          ; NumDWA = 0, SendWatchdog(), SetWatchdog(), Pending = TRUE; REOPEN
OKAY    ; Connection down                        ; CloseConnection(), Failover(), SetWatchdog()             ; DOWN
SUSPECT ; Connection down                        ; CloseConnection(), SetWatchdog()                         ; DOWN
REOPEN  ; Connection down                        ; CloseConnection(), SetWatchdog()                         ; DOWN
"""


def without_jitter() -> float:
    return 0.5


@pytest.fixture
def watchdog() -> Watchdog:
    up = Watchdog(without_jitter)
    assert up.connection_up(100.0) == ()
    return up


@pytest.fixture
def reopened(watchdog: Watchdog) -> Watchdog:
    """Connected again, at second 1000, after a failure."""
    watchdog.connection_down(200.0)
    assert watchdog.connection_up(1000.0) == SEND
    return watchdog


def test_the_table_is_that_of_the_rfc() -> None:
    rows = [
        "; ".join(
            (
                row.state.value,
                row.event.value,
                ", ".join(action.value for action in row.actions),
                row.next_state.value,
            )
        )
        for row in TABLE
    ]
    assert rows == ["; ".join(part.strip() for part in line.split(";")) for line in RFC_3539.strip().splitlines()]
    assert len(TRANSITIONS) == len(TABLE)


def test_nothing_is_watched_before_the_connection_is_up() -> None:
    fresh = Watchdog(without_jitter)
    assert fresh.state is WatchdogState.INITIAL
    assert fresh.timer() is None
    assert fresh.handle_timer(1e9, 0.0) == ()


def test_silence_is_asked_about_then_suspected_then_closed(watchdog: Watchdog) -> None:
    assert watchdog.timer() == 130.0
    assert watchdog.handle_timer(129.9, 100.0) == ()
    assert watchdog.handle_timer(130.0, 100.0) == SEND
    assert (watchdog.state, watchdog.pending, watchdog.timer()) == (WatchdogState.OKAY, True, 160.0)
    assert watchdog.handle_timer(160.0, 100.0) == ()
    assert (watchdog.state, watchdog.timer()) == (WatchdogState.SUSPECT, 190.0)
    assert watchdog.handle_timer(190.0, 100.0) == CLOSE
    assert (watchdog.state, watchdog.timer()) == (WatchdogState.DOWN, None)
    assert watchdog.handle_timer(1e9, 1e9) == ()


def test_traffic_moves_the_deadline_when_it_is_looked_at(watchdog: Watchdog) -> None:
    assert watchdog.handle_timer(130.0, 125.0) == ()
    assert watchdog.timer() == 155.0


def test_a_dwa_ends_the_question(watchdog: Watchdog) -> None:
    watchdog.handle_timer(130.0, 100.0)
    watchdog.dwa_received(131.0)
    assert (watchdog.pending, watchdog.timer()) == (False, 161.0)
    assert watchdog.handle_timer(161.0, 131.0) == SEND


def test_other_traffic_leaves_the_dwa_owing(watchdog: Watchdog) -> None:
    watchdog.handle_timer(130.0, 100.0)
    watchdog.handle_timer(160.0, 100.0)
    assert watchdog.handle_timer(170.0, 165.0) == ()
    assert (watchdog.state, watchdog.pending, watchdog.timer()) == (WatchdogState.OKAY, True, 195.0)
    assert watchdog.handle_timer(195.0, 165.0) == ()
    assert watchdog.state is WatchdogState.SUSPECT


def test_a_dwa_in_suspect_is_okay_again(watchdog: Watchdog) -> None:
    watchdog.handle_timer(130.0, 100.0)
    watchdog.handle_timer(160.0, 100.0)
    watchdog.dwa_received(161.0)
    assert (watchdog.state, watchdog.pending) == (WatchdogState.OKAY, False)


def test_what_has_come_since_clears_the_suspicion_before_it_is_looked_at(watchdog: Watchdog) -> None:
    watchdog.handle_timer(130.0, 100.0)
    watchdog.handle_timer(160.0, 100.0)
    assert watchdog.suspects(100.0)
    assert not watchdog.suspects(161.0)


def test_being_late_counts_as_one_expiry(watchdog: Watchdog) -> None:
    assert watchdog.handle_timer(10_000.0, 100.0) == SEND
    assert watchdog.timer() == 10_030.0


def test_a_message_from_the_future_counts_as_of_now(watchdog: Watchdog) -> None:
    assert watchdog.handle_timer(110.0, 1e9) == ()
    assert watchdog.timer() == 140.0


def test_connection_down_ends_it(watchdog: Watchdog) -> None:
    watchdog.connection_down(110.0)
    assert (watchdog.state, watchdog.timer()) == (WatchdogState.DOWN, None)
    watchdog.connection_down(111.0)


class TestReopen:
    def test_three_answers_make_it_well(self, reopened: Watchdog) -> None:
        now = 1000.0
        for answers in (1, 2, 3):
            assert (reopened.state, reopened.pending) == (WatchdogState.REOPEN, True)
            reopened.dwa_received(now + 1.0)
            assert (reopened.num_dwa, reopened.pending) == (answers, False)
            # An answer does not set the timer: the next question comes when this one's time is up.
            assert reopened.timer() == now + 30.0
            now += 30.0
            if answers < 3:
                assert reopened.handle_timer(now, now - 29.0) == SEND
        assert reopened.state is WatchdogState.OKAY

    def test_other_messages_are_no_sign_of_health(self, reopened: Watchdog) -> None:
        assert reopened.handle_timer(1010.0, 1009.0) == ()
        assert (reopened.state, reopened.timer()) == (WatchdogState.REOPEN, 1030.0)

    def test_no_answer_in_two_intervals_closes(self, reopened: Watchdog) -> None:
        assert reopened.handle_timer(1030.0, 1000.0) == ()
        assert (reopened.state, reopened.num_dwa, reopened.timer()) == (WatchdogState.REOPEN, -1, 1060.0)
        assert reopened.handle_timer(1060.0, 1059.0) == CLOSE
        assert (reopened.state, reopened.timer()) == (WatchdogState.DOWN, None)

    def test_a_late_answer_begins_the_count_anew(self, reopened: Watchdog) -> None:
        reopened.dwa_received(1001.0)
        assert reopened.handle_timer(1030.0, 1001.0) == SEND
        assert reopened.handle_timer(1060.0, 1001.0) == ()
        reopened.dwa_received(1061.0)
        assert (reopened.state, reopened.num_dwa) == (WatchdogState.REOPEN, 0)

    def test_lost_again(self, reopened: Watchdog) -> None:
        reopened.connection_down(1001.0)
        assert reopened.state is WatchdogState.DOWN
        assert reopened.connection_up(1002.0) == SEND


def test_after_an_orderly_goodbye_it_is_trusted_at_once(watchdog: Watchdog) -> None:
    watchdog.handle_timer(130.0, 100.0)
    watchdog.start_over()
    assert (watchdog.state, watchdog.pending, watchdog.timer()) == (WatchdogState.INITIAL, False, None)
    assert watchdog.connection_up(200.0) == ()
    assert watchdog.state is WatchdogState.OKAY


def test_what_an_earlier_connection_owed_is_not_owed_on_the_next(reopened: Watchdog) -> None:
    for _ in range(3):
        reopened.dwa_received(1001.0)
    reopened.handle_timer(1030.0, 1001.0)
    assert (reopened.state, reopened.pending) == (WatchdogState.OKAY, True)
    reopened.start_over()
    reopened.connection_up(1050.0)
    assert not reopened.pending


def test_time_to_connect_again(watchdog: Watchdog) -> None:
    assert Watchdog(without_jitter).tc_expired(5.0) == OPEN
    assert watchdog.tc_expired(110.0) == ()
    watchdog.connection_down(110.0)
    assert watchdog.tc_expired(140.0) == OPEN
    assert (watchdog.state, watchdog.timer()) == (WatchdogState.DOWN, None)


def test_a_dwa_without_a_connection_changes_nothing() -> None:
    fresh = Watchdog(without_jitter)
    assert fresh.dwa_received(1.0) == ()
    assert (fresh.state, fresh.timer()) == (WatchdogState.INITIAL, None)


def test_changes_are_counted() -> None:
    changes: Counter[tuple[str, str]] = Counter()
    counted = Watchdog(without_jitter, changes=changes)
    counted.connection_up(0.0)
    counted.handle_timer(15.0, 10.0)
    counted.connection_down(20.0)
    counted.connection_up(30.0)
    assert changes == {("initial", "okay"): 1, ("okay", "down"): 1, ("down", "reopen"): 1}


@pytest.mark.parametrize(("numbers", "deadline"), [(repeat(0.0), 28.0), (repeat(1.0), 32.0), (repeat(0.25), 29.0)])
def test_jitter(numbers: Iterator[float], deadline: float) -> None:
    jittered = Watchdog(lambda: next(numbers))
    jittered.connection_up(0.0)
    assert jittered.timer() == deadline


@pytest.mark.parametrize("tw", [5.9, 0.0, -1.0, float("nan")])
def test_tw_below_the_minimum(tw: float) -> None:
    with pytest.raises(ValueError, match="tw is"):
        Watchdog(without_jitter, tw)
    Watchdog(without_jitter, 6.0)
