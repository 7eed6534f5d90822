"""From journal records and audit lines to what the store must change."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from eir.timers import grey, projection
from eir.timers.grey import Act, Acted, Device, End, Ended, Expired, Expiry, Inherited, Rules, Seen, Started
from eir.timers.projection import Recorded, ShiftRemoved, ShiftSet
from eir.timers.store import Change, Message, Stored

IMEI = 35900400000001
IMSI = "001010000000009"
OTHER = "001010000000010"
AT = 1_795_000_000
RULES = Rules(30, ZoneInfo("Asia/Almaty"))
DEADLINE = RULES.deadline(AT)
DAY = 86400


def start(at: int = AT, imsi: str | None = IMSI, deadline: int | None = None) -> Recorded:
    return Recorded(Started(IMEI, at, imsi), RULES.deadline(at) if deadline is None else deadline)


def further(at: int, imsi: str) -> Recorded:
    return Recorded(Started(IMEI, at, imsi, first=False))


def end(at: int) -> Recorded:
    return Recorded(Ended(IMEI, End(at, "verified", 7)))


def expiry(at: int, deadline: int = DEADLINE) -> Recorded:
    return Recorded(Expired(IMEI, Expiry(deadline, at)))


def planned(*recorded: Recorded, stored: Stored | None = None) -> Change | None:
    changes = projection.changes(recorded, {} if stored is None else {IMEI: stored}, RULES)
    assert len(changes) <= 1
    return changes[0] if changes else None


def after(*recorded: Recorded) -> Stored:
    change = planned(*recorded)
    assert change is not None
    return Stored(change.device, 3)


def kinds(change: Change | None) -> list[tuple[str, str]]:
    assert change is not None
    return [(message.kind, message.imsi) for message in change.messages]


def test_a_first_attach_is_a_timer_and_a_message_and_other_nodes_are_told() -> None:
    change = planned(start())
    assert change == Change(
        Device(IMEI, (AT,), seen=(Seen(IMSI, AT),)),
        0,
        grey.Timer(AT, DEADLINE, "running"),
        (Message("grey-granted", IMEI, IMSI, 0, AT),),
        tell="others",
    )


def test_without_a_subscriber_there_is_nobody_to_tell() -> None:
    assert kinds(planned(start(imsi=None))) == []


def test_what_the_store_has_had_changes_nothing() -> None:
    assert planned(start(), further(AT + 5, OTHER), stored=after(start(), further(AT + 5, OTHER))) is None


def test_a_further_subscriber_gets_a_message_and_no_memory_is_told() -> None:
    change = planned(further(AT + 5, OTHER), stored=after(start()))
    assert kinds(change) == [("grey-granted", OTHER)]
    assert change is not None and (change.version, change.tell) == (3, "none")


def test_a_node_that_has_another_deadline_in_mind_is_told() -> None:
    extended = Recorded(Acted(IMEI, Act(AT + 9, "n:1", "extend", 5, "agent", "why")))
    change = planned(start(AT + 20), stored=after(start(), extended))
    assert change is not None and change.tell == "all" and change.timer is not None
    assert change.timer.deadline == RULES.deadline(AT + 5 * DAY)


def test_an_earlier_start_of_another_node_is_merged_and_told() -> None:
    change = planned(start(AT - 3 * DAY), stored=after(start()))
    assert change is not None and change.timer is not None and change.tell == "all"
    assert (change.timer.start, kinds(change)) == (AT - 3 * DAY, [])


def test_a_start_that_is_taken_back_at_once_leaves_no_timer_and_no_message() -> None:
    cancel = projection.from_journal(("cancel", IMEI, AT))
    change = planned(start(), cancel)
    assert change is not None and change.timer is None and not change.messages
    # The message was not in the store; in another batch it would have been.
    assert not change.withdrawn
    later = planned(cancel, stored=after(start()))
    assert later is not None and later.timer is None and later.tell == "all"
    assert ("grey-granted", IMEI, IMSI, 0) in later.withdrawn


def test_a_subscriber_that_is_told_of_before_the_timer_gets_the_message_with_it() -> None:
    stored = after(further(AT + 5, OTHER))
    assert sorted(kinds(planned(start(), stored=stored))) == [("grey-granted", IMSI), ("grey-granted", OTHER)]


def test_an_end_is_told_also_where_the_store_knows_of_no_timer() -> None:
    change = planned(end(AT))
    assert change is not None and change.timer is None and change.tell == "all"


def test_a_start_that_comes_after_its_cancel_starts_nothing() -> None:
    cancel = projection.from_journal(("cancel", IMEI, AT))
    change = planned(start(), stored=after(cancel))
    assert change is not None and change.timer is None and not change.messages and change.tell == "all"


def test_an_expiry_is_told_to_every_subscriber_once_and_reported() -> None:
    stored = after(start(), further(AT + 5, OTHER))
    change = planned(expiry(DEADLINE + 2), expiry(DEADLINE + 3), stored=stored)
    assert kinds(change) == [("report-expired", ""), ("black-expired", IMSI), ("black-expired", OTHER)]
    assert change is not None and change.timer is not None and change.timer.state == "expired"
    # The flip is the deadline's: memories know it already.
    assert change.tell == "none"


def test_an_expiry_that_an_agent_was_faster_than_tells_nobody() -> None:
    extended = Recorded(Acted(IMEI, Act(DEADLINE - 60, "n:1", "extend", 5, "agent", "why")))
    change = planned(expiry(DEADLINE + 2), stored=after(start(), extended))
    assert change is not None and not change.messages and change.timer is not None
    assert change.timer.state == "running"


def test_what_is_said_does_not_depend_on_the_order_of_events() -> None:
    change = planned(start(), stored=after(expiry(DEADLINE + 2)))
    assert kinds(change) == [("report-expired", ""), ("black-expired", IMSI)]


def test_a_second_timer_has_messages_of_its_own() -> None:
    stored = after(start(), end(AT + 10))
    change = planned(start(AT + 20), stored=stored)
    assert change is not None and change.timer is not None and change.timer.start == AT + 20
    assert [message.mark for message in change.messages] == [AT + 10]


def test_a_black_attempt_is_a_message_that_may_come_again_another_day() -> None:
    record = projection.from_journal(("attempt", IMEI, AT, IMSI, None, "black"))
    change = planned(record, record)
    assert change is not None
    assert change.messages == (Message("black-attempt", IMEI, IMSI, 0, AT, "", projection.ATTEMPT_APART),)
    assert planned(projection.from_journal(("attempt", IMEI, AT, None, None, "black"))) is None


def test_a_number_in_the_request_goes_with_the_message() -> None:
    change = planned(projection.from_journal(("start", IMEI, AT, IMSI, "77010000001", DEADLINE)))
    assert change is not None and change.messages[0].msisdn == "77010000001"


def line(kind: str, **fields: Any) -> dict[str, Any]:
    return {"n": 4, "at": AT, "node": "eir-1", "kind": kind, "agent": "agent", "reason": "why", **fields}


def test_audit_lines_become_events() -> None:
    assert projection.from_audit(line("extend", imeis=[f"{IMEI}"], days=5)) == [
        Acted(IMEI, Act(AT, "eir-1:000000000004", "extend", 5, "agent", "why"))
    ]
    assert projection.from_audit(line("expired", devices=[[f"{IMEI}", DEADLINE]])) == [
        Expired(IMEI, Expiry(DEADLINE, AT))
    ]
    assert projection.from_audit(line("ended", devices=[[f"{IMEI}", "blacklisted", AT + 3]], sequence=7)) == [
        Ended(IMEI, End(AT + 3, "blacklisted", 7))
    ]
    [shift] = projection.from_audit(line("shift", first=1, last=2, days=-3))
    assert isinstance(shift, ShiftSet) and shift.shift == grey.Shift(AT, "eir-1:000000000004", 1, 2, -3, "agent", "why")
    assert projection.from_audit(line("unshift", shift="eir-1:2")) == [ShiftRemoved("eir-1:2")]
    assert projection.from_audit(line("lists-set", imei=f"{IMEI}")) == []


def test_a_replacement_carries_everything_but_subscribers_over() -> None:
    old = after(start(), Recorded(Acted(IMEI, Act(AT + 9, "n:1", "extend", 5, "agent", "why")))).device
    carried = projection.carried_over(old)
    assert IMSI not in str(carried)
    new = IMEI + 1
    inherited, ended = projection.from_audit(line("replaced", old=f"{IMEI}", new=f"{new}", device=carried, at=AT + 60))
    assert isinstance(inherited, Inherited) and isinstance(ended, Ended)
    changes = projection.changes([Recorded(inherited), Recorded(ended)], {IMEI: Stored(old, 3)}, RULES)
    assert [(change.device.imei, change.timer) for change in changes] == [(new, grey.timer(old, RULES)), (IMEI, None)]


@pytest.mark.parametrize(
    "broken",
    [
        line("extend", days=5),
        line("expired", devices=[[f"{IMEI}"]]),
        line("replaced", old=1, new=2, device={"starts": "x"}),
        line("shift", first=1),
    ],
)
def test_a_line_that_is_not_understood_is_said(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="line 4"):
        projection.from_audit(broken)


def test_other_rules_change_those_devices_only_that_they_concern() -> None:
    concerned, other = after(start()), Stored(Device(IMEI + 1, (AT + 40 * DAY,)), 2)
    shift = grey.Shift(AT + 50 * DAY, "n:1", DEADLINE, DEADLINE, 4, "agent", "why")
    [change] = projection.reindexed([concerned, other], RULES, RULES.with_shifts((shift,)))
    assert change.timer is not None and change.timer.deadline == RULES.deadline(AT + 4 * DAY)
