"""Whether a message has still to be said, and in which words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from eir.subscribers.directory import Subscriber
from eir.timers import grey
from eir.timers.grey import Act, Acted, Device, End, Ended, Event, Expired, Expiry, Started
from eir.timers.store import Message, MessageKind
from sms.hours import Hours, parse_time
from sms.wording import Leave, Say, Wait, day_of, mark_of, wording
from support.messages import TEMPLATES
from support.stores import DAY, FIRST_IMEI, NOON, RULES

IMSI = "001010000000001"
KNOWN = Subscriber(IMSI, "999000000001", "900101300007", "ru", False)


def device(*events: Event) -> Device:
    made = Device(FIRST_IMEI)
    for event in (Started(FIRST_IMEI, NOON, IMSI), *events):
        made = grey.apply(made, event)
    return made


def said(
    kind: MessageKind,
    of: Device | None,
    verdict: str,
    subscriber: Subscriber | None = KNOWN,
    mark: int = 0,
    msisdn: str = "",
    now: int = NOON + DAY,
) -> Say | Leave | Wait:
    message = Message(kind, FIRST_IMEI, IMSI, mark, NOON, msisdn)
    return wording(message, of, subscriber, lambda imei, imsi: verdict, RULES, TEMPLATES, now)


def act(kind: grey.ActKind, days: int = 0) -> Acted:
    return Acted(FIRST_IMEI, Act(NOON + 5, kind, kind, days, "an agent", "a reason"))


def today(now: int = NOON + DAY) -> int:
    return mark_of((datetime.fromtimestamp(now, UTC) + timedelta(hours=5)).date())


def expired() -> Device:
    timer = grey.timer(device(), RULES)
    assert timer is not None and timer.deadline is not None
    return device(Expired(FIRST_IMEI, Expiry(timer.deadline, timer.deadline)))


def test_the_date_is_the_last_day_with_access() -> None:
    timer = grey.timer(device(), RULES)
    assert timer is not None and timer.deadline is not None
    told = said("grey-granted", device(), "grey")
    last = (datetime.fromtimestamp(timer.deadline, UTC) + timedelta(hours=5, seconds=-1)).strftime("%d.%m.%Y")
    assert isinstance(told, Say) and last in told.texts[0] and "ИИН 900101300007" in told.texts[0]
    longer = said("grey-granted", device(act("extend", 3)), "grey")
    assert isinstance(longer, Say) and last not in longer.texts[0]


@pytest.mark.parametrize(
    ("kind", "of", "verdict", "mark", "expected"),
    [
        ("grey-granted", device(), "grey", 0, Say),
        ("grey-granted", device(), "white", 0, Leave("is-white")),
        ("grey-granted", device(), "black", 0, Wait(60, "is-black")),
        ("grey-granted", device(), "grey", 7, Leave("timer-over")),
        ("grey-granted", device(act("lift")), "grey", 0, Leave("timer-lifted")),
        ("grey-granted", device(act("freeze")), "grey", 0, Wait(3600, "frozen")),
        ("grey-granted", expired(), "black", 0, Leave("timer-expired")),
        ("grey-granted", None, "grey", 0, Leave("timer-over")),
        ("grey-granted", device(Ended(FIRST_IMEI, End(NOON + 9, "verified"))), "white", 0, Leave("timer-over")),
        ("reminder", device(), "grey", today(), Say),
        ("reminder", device(), "grey", today() - 1, Leave("day-over")),
        ("reminder", device(), "white", today(), Leave("is-white")),
        ("black-expired", expired(), "black", 0, Say),
        ("black-expired", expired(), "white", 0, Leave("is-white")),
        ("black-expired", device(act("extend", 3)), "grey", 0, Leave("timer-running")),
        ("black-attempt", None, "black", 0, Say),
        ("black-attempt", device(act("freeze")), "black", 0, Say),
        ("black-attempt", None, "white", 0, Wait(60, "is-white")),
        ("black-expired", expired(), "grey", 0, Wait(60, "is-grey")),
        ("report-expired", expired(), "black", 0, Leave("no-message")),
    ],
)
def test_what_is_true_is_said(
    kind: MessageKind, of: Device | None, verdict: str, mark: int, expected: type[Say] | Leave | Wait
) -> None:
    told = said(kind, of, verdict, mark=mark)
    assert isinstance(told, Say) if expected is Say else told == expected


def test_who_is_told_where_and_in_which_language() -> None:
    def told(**changed: object) -> Say | Leave | Wait:
        known = {"imsi": IMSI, "msisdn": "999000000001", "iin": None, "language": None, "m2m": False} | changed
        return said("black-attempt", None, "black", Subscriber(**known), msisdn="999000000002")  # type: ignore[arg-type]

    both = told()
    assert isinstance(both, Say) and both.to == "999000000001" and len(both.texts) == 2
    kazakh = told(language="kk")
    assert isinstance(kazakh, Say) and kazakh.texts == both.texts[:1]
    fallback = told(msisdn=None)
    assert isinstance(fallback, Say) and fallback.to == "999000000002"
    assert told(m2m=True) == Leave("m2m")
    assert said("black-attempt", None, "black", None) == Wait(3600, "no-number")
    stranger = said("black-attempt", None, "black", None, msisdn="999000000002")
    assert isinstance(stranger, Say) and len(stranger.texts) == 2


def test_a_node_that_is_behind_waits_longer_and_longer_and_then_gives_up() -> None:
    message = Message("black-attempt", FIRST_IMEI, IMSI, 0, NOON)
    told = [
        wording(message, None, KNOWN, lambda imei, imsi: "white", RULES, TEMPLATES, NOON, tries) for tries in range(5)
    ]
    assert told == [*(Wait(60 << tries, "is-white") for tries in range(4)), Leave("is-white")]


def test_a_day_and_its_mark() -> None:
    assert mark_of(day_of(20261231)) == 20261231
    with pytest.raises(ValueError):
        day_of(20261301)


@pytest.mark.parametrize("text", ["24:00", "8:00", "08:60", "08.00", "0800", "", "٠٨:٠٠", "08:00:00"])
def test_what_is_no_time_of_the_day(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


def test_hours_may_go_past_midnight() -> None:
    night = Hours(parse_time("22:00"), parse_time("08:00"))
    inside = [hour for hour in range(24) if night.contain(parse_time(f"{hour:02}:00"))]
    assert inside == [0, 1, 2, 3, 4, 5, 6, 7, 22, 23]
    assert not Hours(parse_time("08:00"), parse_time("08:00")).contain(parse_time("08:00"))
    assert night.contain_any(parse_time("21:00"), parse_time("22:30"))
    assert not night.contain_any(parse_time("08:00"), parse_time("22:00"))
    assert not Hours(parse_time("08:00"), parse_time("08:00")).contain_any(parse_time("07:00"), parse_time("09:00"))
