"""A node that follows the national lists: from a directory and from a broker, signed, in order, through restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest

from support import lists
from support.cli import eir
from support.mosquitto import Mosquitto
from support.node import MakeNode, NodeProcess, until
from support.packages import OTHER_KEY, Made, make, public_pem

ONE, TWO, THREE = lists.new_devices(3)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop()


def sequence(node: NodeProcess) -> Any:
    return node.ask("status")["position"]["sequence"]


def following(make_node: MakeNode, tmp_path: Path, **sections: dict[str, object]) -> NodeProcess:
    key = tmp_path / "national.pem"
    key.write_bytes(public_pem())
    given = {f"lists.{name}": section for name, section in sections.items()}
    node = make_node({"lists": {"trusted_keys": [str(key)], "ignored": 100}, **given})
    if "mqtt" in sections:
        # What is published before the node has its session at the broker does not come.
        until(lambda: node.ask("status")["sources"]["mqtt"] == "")
    return node


def publish(broker: Mosquitto, *payloads: bytes, topic: str = "eir/test/deltas") -> None:
    async def send() -> None:
        async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            for payload in payloads:
                await client.publish(topic, payload, qos=1)

    asyncio.run(send())


def of_broker(broker: Mosquitto) -> dict[str, object]:
    return {"host": "127.0.0.1", "port": broker.port, "tls": False}


def delta(number: int, *rows: str) -> Made:
    return make(number, "".join(f"{row}\n" for row in rows), previous=number - 1)


def test_a_directory_is_followed(make_node: MakeNode, tmp_path: Path) -> None:
    drop = tmp_path / "drop"
    drop.mkdir()
    node = following(make_node, tmp_path, drop={"directory": str(drop), "interval": 0.05})
    forged = make(2, f"set,{ONE},white,,\n", previous=1, key=OTHER_KEY)
    forged.write(drop / "forged")
    until((drop / "forged.refused").exists)
    assert "the signature is not that of a trusted key" in (drop / "forged.refused" / "reason.txt").read_text()
    make(2, f"set,{ONE},white,,\n", previous=1, country="xx").write(drop / "foreign")
    until((drop / "foreign.refused").exists)
    delta(2, f"set,{ONE},white,,").write(drop / "two")
    until(lambda: sequence(node) == 2)
    with node.peer() as peer:
        assert peer.check(ONE) == "white"
    make(9, f"{ONE},black,stolen\n{TWO},white,\n").write(drop / "all")
    until(lambda: sequence(node) == 9)
    with node.peer() as peer:
        assert (peer.check(ONE), peer.check(TWO)) == ("black", "white")
    until(lambda: not [path for path in drop.iterdir() if path.suffix != ".refused"])
    metrics = node.metrics()
    assert metrics['eir_lists_packages_total{kind="delta",result="refused",source="directory"}'] == 2
    assert metrics['eir_lists_packages_total{kind="snapshot",result="applied",source="directory"}'] == 1


def test_a_device_that_is_verified_is_white_at_its_next_attach(
    make_node: MakeNode, tmp_path: Path, broker: Mosquitto
) -> None:
    node = following(make_node, tmp_path, mqtt=of_broker(broker))
    with node.peer() as peer:
        assert peer.check(ONE) == "grey"
        publish(broker, delta(2, f"set,{ONE},white,,").message())
        until(lambda: peer.check(ONE) == "white")
    assert sequence(node) == 2


def test_what_is_published_while_a_node_is_away_comes_later(
    make_node: MakeNode, tmp_path: Path, broker: Mosquitto
) -> None:
    node = following(make_node, tmp_path, mqtt=of_broker(broker))
    publish(broker, delta(2, f"set,{ONE},white,,").message())
    until(lambda: sequence(node) == 2)
    node.kill()
    publish(broker, delta(3, f"set,{TWO},white,,").message(), delta(4, f"remove,{ONE},,,").message())
    node.start()
    until(lambda: sequence(node) == 4)
    with node.peer() as peer:
        assert (peer.check(ONE), peer.check(TWO)) == ("grey", "white")


def test_repeats_old_messages_and_other_peoples_change_nothing(
    make_node: MakeNode, tmp_path: Path, broker: Mosquitto
) -> None:
    node = following(make_node, tmp_path, mqtt=of_broker(broker))
    two, three = delta(2, f"set,{ONE},white,,"), delta(3, f"set,{TWO},white,,")
    forged = make(3, f"set,{ONE},black,,\n", previous=2, key=OTHER_KEY)
    odd = [b"", b"\xc1", b"\x80", b"\x93\x01\x02\x03", b"x" * 100_000, two.message()[:-1], b"\x91" * 5000]
    publish(broker, three.message(), *odd, two.message(), two.message(), forged.message(), three.message())
    publish(broker, two.message(), three.message(with_files=False), topic="eir/test/deltas")
    until(lambda: sequence(node) == 3)
    publish(broker, delta(4, f"set,{THREE},black,stolen,").message())
    until(lambda: sequence(node) == 4)
    with node.peer() as peer:
        assert [peer.check(imei) for imei in (ONE, TWO, THREE)] == ["white", "white", "black"]


def test_a_broker_that_goes_or_falls_silent_is_come_back_to(
    make_node: MakeNode, tmp_path: Path, broker: Mosquitto
) -> None:
    node = following(make_node, tmp_path, mqtt=of_broker(broker))
    publish(broker, delta(2, f"set,{ONE},white,,").message())
    until(lambda: sequence(node) == 2)
    broker.stop()
    with node.peer() as peer:
        assert peer.check(ONE) == "white"
    time.sleep(1.0)
    broker.start()
    publish(broker, delta(3, f"set,{TWO},white,,").message())
    until(lambda: sequence(node) == 3, 60)


def test_first_attaches_and_acts_are_reported_to_the_broker(
    make_node: MakeNode, tmp_path: Path, broker: Mosquitto
) -> None:
    reports = {"directory": str(tmp_path / "reports"), "mqtt": True}
    node = following(make_node, tmp_path, mqtt=of_broker(broker), reports=reports)
    heard: list[Any] = []

    async def listen() -> None:
        async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            await client.subscribe("eir/test/reports/#", qos=1)
            with node.peer() as peer:
                assert peer.check(ONE, lists.SUBSCRIBER) == "grey"
            own = eir("lists", "own", "add", TWO, "black", "--reason", "x", "--agent", "care", "-c", node.config)
            assert own.code == 0
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                heard.extend(msgspec.msgpack.decode(message.payload)["records"])
                if {"first-attach", "lists-set"} <= {one["kind"] for one in heard}:
                    return

    asyncio.run(asyncio.wait_for(listen(), 30))
    assert [one["imei"] for one in heard if one["kind"] == "first-attach"] == [ONE]
    (act,) = [one for one in heard if one["kind"] == "lists-set"]
    assert (act["imei"], act["change"], act["agent"]) == (TWO, "black", "care")
    assert lists.SUBSCRIBER not in str(heard)
    until(lambda: "lists-set" in "".join(path.read_text() for path in (tmp_path / "reports").glob("*.jsonl")))
