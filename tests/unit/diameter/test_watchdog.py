"""`eir.diameter.watchdog`: RFC 3539's table, with a clock that is a number."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import pytest

from eir.diameter.watchdog import TRANSITIONS, Watchdog, WatchdogAction, WatchdogEvent, WatchdogState


def without_jitter() -> float:
    return 0.5


@pytest.fixture
def watchdog() -> Watchdog:
    up = Watchdog(without_jitter)
    up.connection_up(100.0)
    return up


def test_the_table_is_that_of_the_rfc() -> None:
    assert set(TRANSITIONS) == set(WatchdogState)
    assert TRANSITIONS[WatchdogState.OKAY][WatchdogEvent.TIMER_EXPIRES][1] is WatchdogAction.SEND_DWR
    assert TRANSITIONS[WatchdogState.OKAY][WatchdogEvent.TIMER_EXPIRES_PENDING][0] is WatchdogState.SUSPECT
    closing = [
        (state, event)
        for state, events in TRANSITIONS.items()
        for event, (_, action) in events.items()
        if action is WatchdogAction.CLOSE
    ]
    assert closing == [(WatchdogState.SUSPECT, WatchdogEvent.TIMER_EXPIRES_PENDING)]


def test_nothing_is_watched_before_the_connection_is_up() -> None:
    fresh = Watchdog(without_jitter)
    assert fresh.state is WatchdogState.INITIAL
    assert fresh.timer() is None
    assert fresh.handle_timer(1e9, 0.0) is None


def test_silence_is_asked_about_then_suspected_then_closed(watchdog: Watchdog) -> None:
    assert watchdog.timer() == 130.0
    assert watchdog.handle_timer(129.9, 100.0) is None
    assert watchdog.handle_timer(130.0, 100.0) is WatchdogAction.SEND_DWR
    assert (watchdog.state, watchdog.pending, watchdog.timer()) == (WatchdogState.OKAY, True, 160.0)
    assert watchdog.handle_timer(160.0, 100.0) is None
    assert (watchdog.state, watchdog.timer()) == (WatchdogState.SUSPECT, 190.0)
    assert watchdog.handle_timer(190.0, 100.0) is WatchdogAction.CLOSE
    assert (watchdog.state, watchdog.timer()) == (WatchdogState.DOWN, None)
    assert watchdog.handle_timer(1e9, 1e9) is None


def test_traffic_moves_the_deadline_when_it_is_looked_at(watchdog: Watchdog) -> None:
    assert watchdog.handle_timer(130.0, 125.0) is None
    assert watchdog.timer() == 155.0


def test_a_dwa_ends_the_question(watchdog: Watchdog) -> None:
    watchdog.handle_timer(130.0, 100.0)
    watchdog.dwa_received(131.0)
    assert (watchdog.pending, watchdog.timer()) == (False, 161.0)
    assert watchdog.handle_timer(161.0, 131.0) is WatchdogAction.SEND_DWR


def test_other_traffic_leaves_the_dwa_owing(watchdog: Watchdog) -> None:
    watchdog.handle_timer(130.0, 100.0)
    watchdog.handle_timer(160.0, 100.0)
    assert watchdog.handle_timer(170.0, 165.0) is None
    assert (watchdog.state, watchdog.pending, watchdog.timer()) == (WatchdogState.OKAY, True, 195.0)
    assert watchdog.handle_timer(195.0, 165.0) is None
    assert watchdog.state is WatchdogState.SUSPECT


def test_a_dwa_in_suspect_is_okay_again(watchdog: Watchdog) -> None:
    watchdog.handle_timer(130.0, 100.0)
    watchdog.handle_timer(160.0, 100.0)
    watchdog.dwa_received(161.0)
    assert (watchdog.state, watchdog.pending) == (WatchdogState.OKAY, False)


def test_being_late_counts_as_one_expiry(watchdog: Watchdog) -> None:
    assert watchdog.handle_timer(10_000.0, 100.0) is WatchdogAction.SEND_DWR
    assert watchdog.timer() == 10_030.0


def test_a_message_from_the_future_counts_as_of_now(watchdog: Watchdog) -> None:
    assert watchdog.handle_timer(110.0, 1e9) is None
    assert watchdog.timer() == 140.0


def test_connection_down_ends_it(watchdog: Watchdog) -> None:
    watchdog.connection_down()
    assert (watchdog.state, watchdog.timer()) == (WatchdogState.DOWN, None)
    watchdog.connection_down()


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
