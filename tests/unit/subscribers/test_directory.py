"""`eir.subscribers.directory`: the packed form, and that nothing personal shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eir.subscribers.directory import DirectoryError, Subscriber, mask, pack, pack_digits, unpack, unpack_digits

SUBSCRIBERS = st.builds(
    Subscriber,
    st.from_regex(r"[0-9]{6,15}", fullmatch=True),
    st.none() | st.from_regex(r"[0-9]{5,15}", fullmatch=True),
    st.none() | st.from_regex(r"[0-9]{12}", fullmatch=True),
    st.sampled_from([None, "kk", "ru"]),
    st.booleans(),
)


@given(SUBSCRIBERS)
def test_what_is_packed_unpacks_to_the_same(subscriber: Subscriber) -> None:
    packed = pack(subscriber)
    assert unpack(packed) == unpack(list(packed)) == subscriber
    assert all(number is None or 0 <= number < 1 << 63 for number in packed)


@given(st.integers(-(1 << 64), 1 << 64))
def test_a_number_is_of_some_digits_or_damaged(number: int) -> None:
    try:
        digits = unpack_digits(number)
    except ValueError:
        return
    assert pack_digits(digits) == number


GOOD = pack(Subscriber("001010000000001", "77000000001", "000000000012", "kk", True))


@pytest.mark.parametrize(
    "packed",
    [
        None,
        GOOD[:3],
        (*GOOD, 1),
        (None, *GOOD[1:]),
        (0, *GOOD[1:]),
        (-GOOD[0], *GOOD[1:]),
        (str(GOOD[0]), *GOOD[1:]),
        (GOOD[0] + 16, *GOOD[1:]) if GOOD[0] & 15 < 15 else (GOOD[0] - 1, *GOOD[1:]),
        (GOOD[0], 1.5, *GOOD[2:]),
        (*GOOD[:2], 10**12, GOOD[3]),
        (*GOOD[:2], -1, GOOD[3]),
        (*GOOD[:3], 3),
        (*GOOD[:3], 8),
        (*GOOD[:3], None),
        (*GOOD[:3], True),
    ],
    ids=lambda _: "damaged",
)
def test_what_is_no_subscriber(packed: object) -> None:
    with pytest.raises(DirectoryError) as caught:
        unpack(packed)
    assert not any(character.isdigit() for character in str(caught.value))
    assert caught.value.__suppress_context__


@given(SUBSCRIBERS)
def test_nothing_personal_shows(subscriber: Subscriber) -> None:
    for shown in (repr(subscriber), str(subscriber), f"{[subscriber]}"):
        assert not any(character.isdigit() for character in shown.replace("m2m", ""))


def test_masks() -> None:
    assert mask("001010000000001", 5) == "00101********01"
    assert mask("77000000001") == "*********01"
    assert mask("12") == "**"
    assert mask("1234567", 5) == "*******"
    assert mask(None) == "-"
