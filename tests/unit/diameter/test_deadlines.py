"""`eir.diameter.deadlines`: who is due, whatever was said before."""

from __future__ import annotations

from eir.diameter.deadlines import Deadlines


class Thing:
    def __init__(self, at: float | None) -> None:
        self.at = at

    def timer(self) -> float | None:
        return self.at


def test_the_first_of_all() -> None:
    deadlines: Deadlines[Thing] = Deadlines()
    assert deadlines.first() is None
    late, early, never = Thing(5.0), Thing(2.0), Thing(None)
    for thing in (late, early, never):
        deadlines.watch(thing)
    assert deadlines.first() == 2.0
    assert list(deadlines.take(1.9)) == []
    assert list(deadlines.take(5.0)) == [early, late]
    assert deadlines.first() is None


def test_what_was_said_last_counts() -> None:
    deadlines: Deadlines[Thing] = Deadlines()
    thing, other = Thing(2.0), Thing(4.0)
    deadlines.watch(thing)
    deadlines.watch(other)
    for at, first in ((6.0, 4.0), (3.0, 3.0), (None, 4.0), (2.0, 2.0)):
        thing.at = at
        deadlines.watch(thing)
        assert deadlines.first() == first
    deadlines.forget(thing)
    assert list(deadlines.take(10.0)) == [other]
    deadlines.forget(other)


def test_back_to_an_earlier_deadline_it_is_due_once() -> None:
    deadlines: Deadlines[Thing] = Deadlines()
    thing = Thing(2.0)
    for at in (2.0, 3.0, 2.0, 3.0, 2.0):
        thing.at = at
        deadlines.watch(thing)
    assert list(deadlines.take(10.0)) == [thing]


def test_one_that_is_always_due_does_not_hold_up_the_rest() -> None:
    deadlines: Deadlines[Thing] = Deadlines()
    eager, other = Thing(1.0), Thing(2.0)
    deadlines.watch(eager)
    deadlines.watch(other)
    seen = []
    for due in deadlines.take(5.0):
        seen.append(due)
        if due is eager:
            eager.at = 5.0
            deadlines.watch(due)
    assert seen[:2] == [eager, other]
    assert len(seen) <= 3


def test_one_may_be_forgotten_by_another() -> None:
    deadlines: Deadlines[Thing] = Deadlines()
    first, second = Thing(1.0), Thing(2.0)
    deadlines.watch(first)
    deadlines.watch(second)
    seen = []
    for due in deadlines.take(5.0):
        seen.append(due)
        deadlines.forget(second)
    assert seen == [first]


def test_what_is_old_does_not_pile_up() -> None:
    deadlines: Deadlines[Thing] = Deadlines()
    things = [Thing(0.0) for _ in range(10)]
    for at in range(1000):
        for thing in things:
            thing.at = float(at)
            deadlines.watch(thing)
    assert len(deadlines._heap) < 100
    assert sorted(map(id, deadlines.take(1000.0))) == sorted(map(id, things))
