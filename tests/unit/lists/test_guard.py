"""`eir.lists.guard`: what somebody must look at, at the limit and one beyond it."""

from __future__ import annotations

from typing import Any

import pytest

from eir.lists.guard import Limits, Prospect, objections

LIMITS = Limits(shrink=0.1, grow=0.5, ignored=10, turned_black=5, bad_rows=0.01)
BEFORE = {"white": 1000, "black": 1000, "grey": 1000}


def prospect(**given: Any) -> Prospect:
    return Prospect(**{"before": BEFORE, "after": BEFORE, "rows": 100, "wrong_rows": 0, **given})


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"before": None, "after": {}},
        {"before": None, "after": {"white": 10**9}},
        {"after": {**BEFORE, "white": 900}},
        {"after": {**BEFORE, "black": 1500}},
        # Grey devices come and go.
        {"after": {**BEFORE, "grey": 0}},
        # So few may come and go whatever the share is.
        {"before": {"white": 10, "black": 0, "grey": 1}, "after": {"white": 0, "black": 10, "grey": 1}},
        {"before": {"white": 0, "black": 0, "grey": 1}, "after": {"white": 10**6, "black": 0, "grey": 1}},
        {"wrong_rows": 1},
        {"rows": 0},
        {"turned_black": 5},
        {"ahead": 86_400},
        {"ahead": -(10**9)},
    ],
    ids=str,
)
def test_what_may_be_taken(given: dict[str, Any]) -> None:
    assert objections(prospect(**given), LIMITS) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"after": {**BEFORE, "white": 899}}, "the white list would shrink from 1000 to 899 devices"),
        ({"after": {**BEFORE, "black": 1501}}, "the black list would grow from 1000 to 1501 devices"),
        (
            {"before": {"white": 1, "black": 0, "grey": 2}, "after": {"white": 0, "black": 0, "grey": 0}},
            "there is no device in it, and 3 are in the lists in force",
        ),
        ({"wrong_rows": 2}, "2 of 100 rows are wrong"),
        ({"rows": 0, "wrong_rows": 1}, "1 of 0 rows are wrong"),
        ({"turned_black": 6}, "6 devices in use would turn black, where 5 may"),
        ({"ahead": 90_000}, "it says that it is of 25 hours ahead of this node's clock"),
    ],
)
def test_what_somebody_must_look_at(given: dict[str, Any], said: str) -> None:
    assert objections(prospect(**given), LIMITS) == [said]


def test_every_objection_is_told() -> None:
    told = objections(prospect(after={}, wrong_rows=50, turned_black=100, ahead=10**6), LIMITS)
    assert len(told) == 6
