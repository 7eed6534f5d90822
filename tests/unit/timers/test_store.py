"""`eir.timers.store`: records, and what memories and stores take from a device."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eir.timers import grey
from eir.timers.grey import NEVER, Act, Device, End, Expiry, National, Seen, Timer
from eir.timers.store import Memory, Message, StoreError, decode, encode, memory, state

TIMES = st.integers(0, NEVER - 1)
TEXTS = st.text(max_size=10)
IMSIS = st.from_regex(r"00101\d{10}", fullmatch=True)
DEVICES = st.builds(
    Device,
    st.integers(1, 10**14 - 1),
    st.lists(TIMES, max_size=3).map(tuple),
    st.builds(End, TIMES, st.sampled_from(["", "verified", "blacklisted", "replaced"]), TIMES),
    st.lists(
        st.builds(Act, TIMES, TEXTS, st.sampled_from(["freeze", "lift"]), st.integers(-9, 999), TEXTS, TEXTS),
        max_size=3,
    ).map(tuple),
    st.none() | st.builds(National, TIMES, TIMES, TIMES),
    st.builds(Expiry, TIMES, TIMES),
    st.lists(st.builds(Seen, IMSIS, TIMES, TEXTS), max_size=3).map(tuple),
)


@given(DEVICES)
def test_a_record_is_the_device(device: Device) -> None:
    assert decode(encode(device)) == device


@given(DEVICES, st.data())
def test_a_damaged_record_is_another_device_or_an_error(device: Device, data: st.DataObject) -> None:
    record = encode(device)
    cut = data.draw(st.integers(0, len(record) - 1))
    with pytest.raises(StoreError):
        decode(record[:cut])
    try:
        assert isinstance(decode(record[:cut] + data.draw(st.binary(min_size=1, max_size=4)) + record[cut:]), Device)
    except StoreError as error:
        # Whose record it is must not be found in a log.
        assert not any(seen.imsi in str(error) for seen in device.seen)


def test_what_memories_hold() -> None:
    device = Device(1)
    assert memory(device, None) == Memory(1, 0, 0)
    assert memory(device, Timer(5, 9, "running")) == Memory(1, 5, 9)
    assert memory(device, Timer(5, None, "frozen")) == Memory(1, 5, NEVER)


def test_how_a_timer_stands() -> None:
    assert state(None) is None
    assert state(grey.Timer(5, None, "lifted")) == "lifted"


def test_what_must_never_go_out_twice() -> None:
    message = Message("grey-granted", 7, "001010000000001", 3, 5, "999", 9)
    assert message.key == ("grey-granted", 7, "001010000000001", 3)
