"""`eir.timers.grey`: a device is a function of the set of its events, in whatever order and however often they come."""

from __future__ import annotations

from functools import reduce
from zoneinfo import ZoneInfo

from hypothesis import assume, example, given
from hypothesis import strategies as st

from eir.timers.grey import (
    MOST_ACTS,
    MOST_STARTS,
    MOST_SUBSCRIBERS,
    NEVER,
    Act,
    Acted,
    ActKind,
    Attempted,
    Device,
    End,
    Ended,
    Event,
    Expired,
    Expiry,
    Inherited,
    National,
    Rules,
    Seen,
    Shift,
    Started,
    Timed,
    apply,
    day_bounds,
    last_day,
    timer,
)
from eir.timers.store import decode, encode, memory

IMEI = 1_010_000_000_001
OTHER = 1_010_000_000_002
DAY = 86400
FIRST = 1_795_374_000  # 2026-11-23, 00:00 in Almaty.
ZONES = [ZoneInfo(name) for name in ("Asia/Almaty", "Europe/Kyiv", "America/Santiago", "Africa/Cairo")]

# Few values, so that much happens in the same second, and spans from less than a day to several timers.
MOMENTS = st.one_of(st.integers(0, 6), st.integers(0, 9).map(lambda n: n * 10 * DAY)).map(lambda after: FIRST + after)
DEADLINES = st.integers(-1, 12).map(lambda n: FIRST + n * 10 * DAY)
SEQUENCES = st.integers(0, 5)
DAYS = st.sampled_from([-20, -1, 0, 1, 10, 40])

STARTS = st.builds(
    Started,
    st.just(IMEI),
    MOMENTS,
    st.sampled_from([None, "001010000000001", "001010000000002", "001010000000003"]),
    st.sampled_from([None, "", "10001", "10002", "10003"]),
    st.booleans(),
)
ATTEMPTS = st.builds(Attempted, st.just(IMEI), MOMENTS)
ACTS = st.builds(
    Act,
    MOMENTS,
    st.sampled_from("abc"),
    st.sampled_from(["freeze", "unfreeze", "extend", "lift"]),
    DAYS,
    st.just("agent"),
    st.just("reason"),
)
ENDS = st.builds(End, MOMENTS, st.sampled_from(["verified", "blacklisted", "replaced", ""]), SEQUENCES)
NATIONALS = st.builds(National, SEQUENCES, MOMENTS, DEADLINES)
EXPIRIES = st.builds(Expiry, DEADLINES, MOMENTS)
SHIFTS = st.builds(
    Shift, MOMENTS, st.sampled_from("abc"), DEADLINES, DEADLINES, DAYS, st.just("agent"), st.just("reason")
)
OWN: st.SearchStrategy[Event] = st.one_of(
    STARTS,
    ATTEMPTS,
    ACTS.map(lambda act: Acted(IMEI, act)),
    ENDS.map(lambda end: Ended(IMEI, end)),
    NATIONALS.map(lambda national: Timed(IMEI, national)),
    EXPIRIES.map(lambda expiry: Expired(IMEI, expiry)),
)


def result(events: list[Event], imei: int = IMEI) -> Device:
    return reduce(apply, events, Device(imei))


INHERITED = st.lists(OWN, max_size=6).map(lambda events: Inherited(IMEI, result(events, OTHER)))
EVENTS = st.lists(st.one_of(OWN, OWN, OWN, INHERITED), max_size=10)


def within_caps(events: list[Event]) -> bool:
    """Whether all events together are within the caps, also when no end takes anything away."""
    device = result([event for event in events if not isinstance(event, Ended)])
    return len(device.starts) < MOST_STARTS and len(device.acts) < MOST_ACTS and len(device.seen) < MOST_SUBSCRIBERS


@st.composite
def tellings(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    """The same events told twice: in some order each, with repetitions."""
    events = draw(EVENTS)
    assume(within_caps(events))
    again = st.lists(st.sampled_from(events), max_size=6) if events else st.just([])
    return draw(st.permutations(events + draw(again))), draw(st.permutations(events + draw(again)))


SUBSCRIBER = "001010000000001"


@given(tellings(), st.lists(SHIFTS, max_size=3), st.sampled_from(ZONES), st.sampled_from([30, 60, 90, 120]))
@example(
    # A number told of before the end is not known after it, whether or not the end came between.
    (
        [Started(IMEI, 5, SUBSCRIBER, "9"), Started(IMEI, 15, SUBSCRIBER, "1"), Ended(IMEI, End(10))],
        [Started(IMEI, 5, SUBSCRIBER, "9"), Ended(IMEI, End(10)), Started(IMEI, 15, SUBSCRIBER, "1")],
    ),
    [],
    ZONES[0],
    30,
)
@example(
    # An end by newer lists counts for the national database's words although a later one names older lists.
    (
        [Ended(IMEI, End(10, "verified", 100)), Timed(IMEI, National(60, 5, 50)), Ended(IMEI, End(20, "replaced", 50))],
        [Ended(IMEI, End(20, "replaced", 50)), Timed(IMEI, National(60, 5, 50)), Ended(IMEI, End(10, "verified", 100))],
    ),
    [],
    ZONES[0],
    30,
)
@example(
    # An expiry with a later deadline that was noticed before the end, and an earlier one noticed after it.
    (
        [Expired(IMEI, Expiry(100, 5)), Expired(IMEI, Expiry(50, 15)), Ended(IMEI, End(10))],
        [Expired(IMEI, Expiry(100, 5)), Ended(IMEI, End(10)), Expired(IMEI, Expiry(50, 15))],
    ),
    [],
    ZONES[0],
    30,
)
def test_the_same_events_give_the_same_device(
    told: tuple[list[Event], list[Event]], shifts: list[Shift], zone: ZoneInfo, days: int
) -> None:
    one, other = map(result, told)
    assert one == other
    assert encode(one) == encode(other)
    forwards, backwards = Rules(days, zone, tuple(shifts)), Rules(days, zone, tuple(reversed(shifts)))
    assert timer(one, forwards) == timer(other, backwards)


@given(EVENTS)
def test_an_event_that_is_known_gives_the_same_object(events: list[Event]) -> None:
    device = result(events)
    assume(within_caps(events))
    for event in events:
        assert apply(device, event) is device


@given(st.lists(OWN, max_size=12))
def test_a_device_is_what_its_events_say(events: list[Event]) -> None:
    assume(within_caps(events))
    ends = [event.end for event in events if isinstance(event, Ended)]
    over = max((end.at for end in ends), default=0)
    sequence = max((end.sequence for end in ends), default=0)
    started = [event for event in events if isinstance(event, Started) and event.at >= over]
    device = result(events)
    assert device.end == End(over, max((end.why for end in ends if end.at == over), default=""), sequence)
    assert device.starts == tuple(sorted({event.at for event in started if event.first}))
    assert device.acts == tuple(
        sorted({event.act for event in events if isinstance(event, Acted) and event.act.at >= over})
    )
    assert device.national == max(
        (event.national for event in events if isinstance(event, Timed) and event.national.sequence > sequence),
        default=None,
    )
    assert device.expiry == max((event.expiry for event in events if isinstance(event, Expired)), default=Expiry())
    subscribers = []
    for imsi in sorted({event.imsi for event in started if event.imsi is not None}):
        told = [event for event in started if event.imsi == imsi]
        at = max(event.at for event in told)
        when, number = max(((event.at, event.msisdn) for event in told if event.msisdn), default=(at, ""))
        subscribers.append(Seen(imsi, at, number, at - when))
    assert device.seen == tuple(subscribers)


@given(EVENTS)
def test_a_record_holds_the_whole_device(events: list[Event]) -> None:
    device = result(events)
    assert decode(encode(device)) == device


@given(st.lists(OWN, max_size=10), st.sampled_from(ZONES))
def test_a_new_imei_keeps_the_timer(events: list[Event], zone: ZoneInfo) -> None:
    old = result(events, OTHER)
    new = apply(Device(IMEI), Inherited(IMEI, old))
    assert timer(new, Rules(30, zone)) == timer(old, Rules(30, zone))


@given(EVENTS, st.lists(SHIFTS, max_size=3), st.sampled_from(ZONES))
def test_what_is_told_is_true(events: list[Event], shifts: list[Shift], zone: ZoneInfo) -> None:
    device = result(events)
    now = timer(device, Rules(30, zone, tuple(shifts)))
    in_memory = memory(device, now)
    if now is None:
        assert (in_memory.start, in_memory.deadline) == (0, 0)
    elif now.deadline is None:
        assert now.state in ("frozen", "lifted")
        assert (in_memory.start, in_memory.deadline) == (now.start, NEVER)
    else:
        assert now.state in ("running", "expired")
        assert 0 < now.deadline < NEVER
        first, last = day_bounds(last_day(now.deadline, zone), last_day(now.deadline, zone), zone)
        assert first <= now.deadline <= last


@given(EVENTS, st.lists(SHIFTS, max_size=3), st.sampled_from(ZONES))
def test_what_is_noticed_has_expired(events: list[Event], shifts: list[Shift], zone: ZoneInfo) -> None:
    device, rules = result(events), Rules(30, zone, tuple(shifts))
    now = timer(device, rules)
    assume(now is not None and now.deadline is not None)
    assert now is not None
    assert now.deadline is not None
    noticed = apply(device, Expired(IMEI, Expiry(now.deadline, now.deadline)))
    assert timer(noticed, rules) == (now.start, now.deadline, "expired")


@given(EVENTS, SHIFTS, SHIFTS)
def test_a_shift_taken_back_leaves_nothing(events: list[Event], kept: Shift, taken: Shift) -> None:
    device, rules = result(events), Rules(30, ZONES[0], (kept,))
    both = rules.with_shifts((kept, taken))
    timer(device, both)
    assert timer(device, both.with_shifts((kept,))) == timer(device, rules)


@given(
    st.integers(-(2**62), 2**62),
    st.integers(-(2**62), 2**62),
    st.integers(-(2**62), 2**62),
    st.sampled_from(["extend", "unfreeze"]),
    st.sampled_from(ZONES),
)
def test_no_number_is_too_large(deadline: int, days: int, at: int, kind: ActKind, zone: ZoneInfo) -> None:
    first = Act(0, "a", "freeze" if kind == "unfreeze" else "extend", 0, "", "")
    acts = (first, Act(at, "b", kind, days, "", ""))
    device = Device(IMEI, starts=(FIRST,), acts=tuple(sorted(acts)), national=National(1, FIRST, deadline))
    now = timer(device, Rules(30, zone, (Shift(at, "c", 0, NEVER, days, "", ""),)))
    assert now is not None
    assert now.deadline is None or 0 < now.deadline < NEVER
