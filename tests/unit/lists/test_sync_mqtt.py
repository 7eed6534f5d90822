"""`eir.lists.sync_mqtt` on a real broker: acknowledged when durable; a broker that falls silent."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import aiomqtt
import pytest

from eir.lists import sync_mqtt
from eir.lists.package import Outcome, Package
from eir.lists.source_settings import MqttSettings
from eir.lists.sync_mqtt import MqttSource
from support.mosquitto import Mosquitto
from support.packages import FakeReceiver, Made, make

T = TypeVar("T")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def receiver(tmp_path: Path) -> FakeReceiver:
    return FakeReceiver(tmp_path / "incoming")


def run(work: Coroutine[Any, Any, T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(limited())


class Behind:
    calls = 0

    def __call__(self) -> None:
        self.calls += 1


def source_of(broker: Mosquitto, receiver: Any, behind: Behind | None = None) -> MqttSource:
    settings = MqttSettings("127.0.0.1", broker.port, "eir-test", "test", keepalive=2)
    return MqttSource(settings, receiver, behind or Behind(), lambda: 0.0)


async def publish(broker: Mosquitto, *payloads: bytes) -> None:
    async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        for payload in payloads:
            await client.publish("eir/test/deltas", payload, qos=1)


async def until(true: Any) -> None:
    while not true():
        await asyncio.sleep(0.01)


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def delta(sequence: int) -> Made:
    return make(sequence, f"set,{35900000000000 + sequence},white,,\n", previous=sequence - 1)


class SlowReceiver(FakeReceiver):
    """Takes nothing before it may; `offered` counts."""

    offered = 0
    may = False

    async def offer(self, package: Package, source: str) -> Outcome:
        self.offered += 1
        while not self.may:
            await asyncio.sleep(0.01)
        return await super().offer(package, source)


def test_what_was_not_durable_comes_again(broker: Mosquitto, tmp_path: Path) -> None:
    async def work() -> None:
        slow = SlowReceiver(tmp_path / "incoming")
        source = source_of(broker, slow)
        task = asyncio.create_task(source.run())
        await until(lambda: source.connected)
        await publish(broker, delta(2).message(), delta(3).message())
        await until(lambda: slow.offered)
        await end(task)
        assert slow.taken == []
        slow.may = True
        again = source_of(broker, slow)
        task = asyncio.create_task(again.run())
        await until(lambda: slow.sequence == 3)
        await end(task)
        # And what was acknowledged does not.
        last = source_of(broker, slow)
        task = asyncio.create_task(last.run())
        await until(lambda: last.connected)
        await asyncio.sleep(0.3)
        assert not last.messages
        await end(task)

    run(work())


def test_more_than_fits_into_the_window_arrives_in_order(broker: Mosquitto, receiver: FakeReceiver) -> None:
    async def work() -> None:
        behind = Behind()
        source = source_of(broker, receiver, behind)
        task = asyncio.create_task(source.run())
        await until(lambda: source.connected)
        await publish(broker, *(delta(number).message() for number in range(2, 152)))
        await until(lambda: receiver.sequence == 151)
        assert behind.calls == 1
        await end(task)

    run(work())


def test_what_finds_no_place_comes_again(
    broker: Mosquitto, receiver: FakeReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_mqtt, "MAX_WAITING", 20_000)

    async def work() -> None:
        source = source_of(broker, receiver)
        task = asyncio.create_task(source.run())
        await until(lambda: source.connected)
        await publish(broker, *(delta(number).message() for number in range(2, 102)))
        await until(lambda: receiver.sequence == 101)
        assert source.messages["gap"] == 0
        assert source.messages["overflows"]
        await end(task)

    run(work())


def test_repeats_gaps_and_garbage_are_counted(broker: Mosquitto, receiver: FakeReceiver) -> None:
    async def work() -> None:
        behind = Behind()
        source = source_of(broker, receiver, behind)
        task = asyncio.create_task(source.run())
        await until(lambda: source.connected)
        odd = [b"", b"\xc1", b"\x80", b"x" * 100_000, delta(2).message()[:-1], b"\x91" * 5000, b"x" * 2_000_000]
        late = [delta(4).message(), delta(2).message(with_files=False)]
        await publish(broker, *odd, *late, delta(2).message(), delta(2).message(), delta(3).message())
        await until(lambda: receiver.sequence == 3)
        # The longest is more than the node lets the broker send.
        assert source.messages == {"unreadable": 6, "gap": 1, "without files": 1, "applied": 2, "known": 1}
        assert behind.calls == 3
        await end(task)

    run(work())


def test_a_broker_that_falls_silent_is_left_and_come_back_to(broker: Mosquitto, receiver: FakeReceiver) -> None:
    async def work() -> None:
        source = source_of(broker, receiver)
        task = asyncio.create_task(source.run())
        await until(lambda: source.connected)
        broker.pause()
        await until(lambda: not source.connected)
        assert source.error
        broker.pause(False)
        await until(lambda: source.connected)
        await publish(broker, delta(2).message())
        await until(lambda: receiver.sequence == 2)
        await end(task)

    run(work())
