"""The publisher and nodes that follow it: by HTTP, by a broker, and by HTTP where the broker has lost something."""

from __future__ import annotations

import asyncio
import gzip
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest

from eir.lists import manifest as manifests
from support import lists
from support.cli import eir
from support.mosquitto import Mosquitto
from support.node import MakeNode, NodeProcess, until
from support.publisher import PublisherProcess

ONE, TWO, THREE = lists.new_devices(3)
MakePublisher = Callable[..., PublisherProcess]


@pytest.fixture
def make_publisher(tmp_path: Path) -> Iterator[MakePublisher]:
    made: list[PublisherProcess] = []

    def make(broker_port: int | None = None, **more: float) -> PublisherProcess:
        publisher = PublisherProcess(tmp_path / f"publisher{len(made)}", broker_port, **more)
        made.append(publisher)
        publisher.start()
        return publisher

    yield make
    for publisher in made:
        publisher.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop()


def following(make_node: MakeNode, publisher: PublisherProcess, **more: dict[str, object]) -> NodeProcess:
    given: dict[str, dict[str, object]] = {
        "lists": {"trusted_keys": [str(publisher.key)], "ignored": 1000, "max_turned_black": 1000},
        "lists.http": {"url": publisher.url, "interval": 0.2},
        **{f"lists.{name}": section for name, section in more.items()},
    }
    return make_node(given, lists=False)


def sequence(node: NodeProcess) -> Any:
    position = node.ask("status")["position"]
    return position and position["sequence"]


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_node_without_lists_gets_them_and_follows(make_node: MakeNode, make_publisher: MakePublisher) -> None:
    publisher = make_publisher()
    assert publisher.run("set", ONE, "black", "--reason", "stolen") == "sequence 1\n"
    node = following(make_node, publisher)
    until(lambda: sequence(node) == 1)
    with node.peer() as peer:
        assert (peer.check(ONE), peer.check(TWO)) == ("black", "grey")
        publisher.run("set", TWO, "white")
        until(lambda: peer.check(TWO) == "white")
        publisher.run("set", ONE, "none")
        until(lambda: peer.check(ONE) == "grey")
    # Away, while snapshots and deltas are made.
    node.kill()
    for imei, listed in ((ONE, "white"), (THREE, "black")):
        publisher.run("set", imei, listed)
    assert publisher.run("snapshot") == "snapshot 5\n"
    node.start()
    until(lambda: sequence(node) == 5)
    with node.peer() as peer:
        assert [peer.check(imei) for imei in (ONE, TWO, THREE)] == ["white", "white", "black"]


def test_that_nothing_has_changed_is_news(make_node: MakeNode, make_publisher: MakePublisher) -> None:
    publisher = make_publisher(every=1.0)
    node = following(make_node, publisher)
    until(lambda: (sequence(node) or 0) >= 2)
    position = node.ask("status")["position"]
    until(lambda: node.ask("status")["position"]["as_of"] > position["as_of"])
    assert position["devices"] == 0


def test_lists_that_differ_are_told_and_healed_by_the_next_snapshot(
    make_node: MakeNode, make_publisher: MakePublisher, tmp_path: Path
) -> None:
    publisher = make_publisher()
    node = following(make_node, publisher)
    publisher.run("set", ONE, "white")
    until(lambda: sequence(node) == 1)
    changes = tmp_path / "changes.csv"
    changes.write_text(f"change_type,imei,list,reason\nset,{TWO},black,\n")
    # What a person imports has the number that the national database gives its next change.
    ran = eir("lists", "import", "--delta", "--devices", changes, "--reason", "x", "--agent", "x", "-c", node.config)
    assert ran.code == 0, ran.err
    publisher.run("set", THREE, "white")
    publisher.run("set", ONE, "black")
    until(lambda: sequence(node) == 3)
    with node.peer() as peer:
        assert [peer.check(imei) for imei in (ONE, TWO, THREE)] == ["black", "black", "grey"]
        until(lambda: node.metrics()["eir_lists_differ"] == 1)
        assert publisher.run("snapshot") == "snapshot 3\n"
        until(lambda: [peer.check(imei) for imei in (ONE, TWO, THREE)] == ["black", "grey", "white"])
    metrics = node.metrics()
    assert (metrics["eir_lists_sequence"], metrics["eir_lists_deltas"], metrics["eir_lists_differ"]) == (3, 0, 0)
    node.kill()
    node.start()
    assert node.metrics()["eir_lists_snapshot_sequence"] == 3


def test_what_comes_while_the_lists_are_held_is_taken_afterwards(
    make_node: MakeNode, make_publisher: MakePublisher
) -> None:
    publisher = make_publisher()
    node = following(make_node, publisher)
    publisher.run("set", ONE, "white")
    until(lambda: sequence(node) == 1)
    assert eir("lists", "rollback", "0", "--reason", "x", "-c", node.config).code == 0
    until(lambda: node.metrics()['eir_lists_source_up{source="http"}'] == 0)
    assert node.metrics()["eir_lists_announced_sequence"] == 1
    assert sequence(node) == 0
    assert eir("lists", "follow", "--reason", "x", "-c", node.config).code == 0
    until(lambda: sequence(node) == 1)


def test_a_publisher_that_begins_anew_is_not_followed_backwards(
    make_node: MakeNode, make_publisher: MakePublisher
) -> None:
    first, second = make_publisher(), make_publisher()
    for _ in range(3):
        first.run("set", ONE, "white")
    node = following(make_node, first)
    until(lambda: sequence(node) == 3)
    second.run("set", ONE, "black")
    text = node.config.read_text().replace(first.url, second.url).replace(str(first.key), str(second.key))
    node.kill()
    node.config.write_text(text)
    node.start()
    with node.peer() as peer:
        assert peer.check(ONE) == "white"
    assert sequence(node) == 3


def test_what_the_broker_has_lost_is_fetched(
    make_node: MakeNode, make_publisher: MakePublisher, broker: Mosquitto, tmp_path: Path
) -> None:
    publisher = make_publisher(broker.port)
    mqtt = {"host": "127.0.0.1", "port": broker.port, "tls": False}
    node = following(make_node, publisher, mqtt=mqtt, http={"url": publisher.url, "interval": 3600.0})
    until(lambda: sequence(node) == 0)
    publisher.run("set", ONE, "white")
    until(lambda: sequence(node) == 1)
    # Published to nobody.
    publisher.stop()
    publisher.run("set", TWO, "white")
    publisher.start()
    publisher.run("set", THREE, "white")
    until(lambda: sequence(node) == 3, 30)
    with node.peer() as peer:
        assert [peer.check(imei) for imei in (ONE, TWO, THREE)] == ["white"] * 3
    # Too long for a message.
    devices = lists.new_devices(60_000)
    export = tmp_path / "export.csv"
    export.write_text("imei,list,reason\n" + "".join(f"{imei},white,\n" for imei in devices[::2]))
    publisher.run("import", export)
    eir("lists", "history", "-c", node.config)
    until(lambda: node.ask("lists-history")["refused"] or sequence(node) == 4, 30)
    told = node.ask("lists-history")["refused"]
    assert [one["sequence"] for one in told] == [4]
    assert eir("lists", "approve", "delta", "4", "--reason", "x", "-c", node.config).code == 0
    with node.peer() as peer:
        assert peer.check(devices[1000]) == "white"


def test_what_the_server_says(make_publisher: MakePublisher, tmp_path: Path) -> None:
    publisher = make_publisher()
    publisher.run("set", ONE, "grey", "--until", "20300101")
    status, octets = get(f"{publisher.url}/v1/current")
    assert (status, json.loads(octets)) == (200, {"snapshot": 0, "sequence": 1})
    assert get(f"{publisher.url}/v1/current", **{"If-None-Match": '"0-1"'})[0] == 304
    _, octets = get(f"{publisher.url}/v1/deltas/1/manifest.json")
    manifest = manifests.parse(octets)
    _, signature = get(f"{publisher.url}/v1/deltas/1/manifest.json.sig")
    assert manifests.is_signed(octets, signature, [manifests.public_key(publisher.key.read_bytes())])
    assert manifest.counts == {"white": 0, "black": 0, "grey": 1}
    _, packed = get(f"{publisher.url}/v1/deltas/1/{manifest.files[0].name}")
    assert gzip.decompress(packed).decode() == f"change_type,imei,list,reason,until\nset,{ONE},grey,,20300101\n"
    assert get(f"{publisher.url}/v1/deltas/1/{manifest.files[0].name}", Range="bytes=5-9")[1] == packed[5:10]
    for wrong in ("deltas/2/manifest.json", "deltas/1/..%2f..%2f..%2fkey.pem", "deltas/1/lists.db", "x"):
        assert get(f"{publisher.url}/v1/{wrong}")[0] == 404
    batch = msgspec.msgpack.encode({"id": "a", "records": []})
    request = urllib.request.Request(f"{publisher.url}/v1/reports", data=batch)
    assert urllib.request.urlopen(request, timeout=10).status == 204
    assert json.loads((publisher.directory / "reports.jsonl").read_text()) == {"id": "a", "records": []}
    assert (publisher.directory / "key.pem").stat().st_mode & 0o77 == 0


def test_a_report_behind_a_line_that_was_cut_off_is_one_of_its_own(make_publisher: MakePublisher) -> None:
    publisher = make_publisher()
    taken = publisher.directory / "reports.jsonl"
    taken.write_bytes(b'{"id":"a","rec')
    for name in ("b", "c"):
        body = msgspec.msgpack.encode({"id": name})
        urllib.request.urlopen(urllib.request.Request(f"{publisher.url}/v1/reports", data=body), timeout=10).close()
    assert taken.read_text().splitlines() == ['{"id":"a","rec', '{"id":"b"}', '{"id":"c"}']


@pytest.mark.parametrize(
    "wrong",
    [
        ("x", "white"),
        (ONE, "pink"),
        (ONE, "black", "--reason", "a,b"),
        (ONE, "white", "--until", "20300101"),
        (ONE, "white", "--country", "KZ"),
    ],
)
def test_what_is_no_change(tmp_path: Path, wrong: tuple[str, ...]) -> None:
    ran = eir("publisher", "set", tmp_path / "p", *wrong)
    assert ran.code != 0
    assert "Traceback" not in ran.err
    assert not list(tmp_path.glob("p/deltas/*"))


def test_the_command_line(tmp_path: Path) -> None:
    directory = tmp_path / "p"
    assert eir("publisher", "key", directory, "--country", "test").out == f"{directory / 'key.pub.pem'}\n"
    assert manifests.public_key((directory / "key.pub.pem").read_bytes())
    export = tmp_path / "export.csv"
    export.write_text(f"imei,list,reason,until\n{ONE},grey,,2030-01-01\n{TWO},black,a b,\n")
    refused = eir("publisher", "import", directory, export)
    assert (refused.code, refused.err) == (
        1,
        f"eir: {export}: line 3: 'a b' is no reason: up to 32 of a-z, 0-9 and -\n",
    )
    export.write_text(export.read_text().replace("a b", "stolen"))
    assert eir("publisher", "import", directory, export).out == "sequence 1\n"
    other = eir("publisher", "set", directory, ONE, "white", "--country", "kz")
    assert (other.code, other.err) == (1, f"eir: {directory}: the lists in {directory} are of test\n")
    assert eir("publisher", "snapshot", directory).out == "snapshot 1\n"
    manifest = manifests.parse((directory / "snapshots" / "1" / "manifest.json").read_bytes())
    assert (manifest.country, manifest.counts) == ("test", {"white": 0, "black": 1, "grey": 1})


def test_reports_are_taken_at_the_broker_also_those_of_the_time_before(
    make_publisher: MakePublisher, broker: Mosquitto
) -> None:
    publisher = make_publisher(broker.port)
    taken = publisher.directory / "reports.jsonl"

    def send(*payloads: bytes) -> None:
        async def work() -> None:
            async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
                for payload in payloads:
                    await client.publish("eir/test/reports/node", payload, qos=1)

        asyncio.run(work())

    def ids() -> list[str]:
        return [json.loads(line)["id"] for line in taken.read_text().splitlines()] if taken.exists() else []

    def some() -> bool:
        send(msgspec.msgpack.encode({"id": "0"}))
        return bool(ids())

    # Until it has subscribed for the first time nothing is kept for it.
    until(some)
    send(b"\xc1", b"\x91" * 5000, msgspec.msgpack.encode({"id": "a"}))
    until(lambda: "a" in ids())
    publisher.stop()
    send(msgspec.msgpack.encode({"id": "b"}))
    publisher.start()
    until(lambda: "b" in ids())
    assert ids()[-2:] == ["a", "b"]


def test_what_a_node_reports_reaches_the_publisher(
    make_node: MakeNode, make_publisher: MakePublisher, broker: Mosquitto
) -> None:
    publisher = make_publisher(broker.port)
    given: dict[str, dict[str, object]] = {
        "lists": {"trusted_keys": [str(publisher.key)]},
        "lists.http": {"url": publisher.url},
        "lists.mqtt": {"host": "127.0.0.1", "port": broker.port, "tls": False},
        "lists.reports": {"directory": "reports", "mqtt": True, "pairs": True},
        "in_use": {"report_days": 1},
    }
    node = make_node(given, lists=False)
    until(lambda: sequence(node) == 0)
    with node.peer() as peer:
        assert peer.check(ONE) == "grey"
    pairs = node.config.parent / "state" / "pairs"
    pairs.mkdir(exist_ok=True)
    (pairs / "2026-01-15.part").write_text(f"imei,imsi\n{TWO},001010000000001\n{THREE},\n")
    (pairs / "2026-01-15.part").rename(pairs / "2026-01-15.csv")
    taken = publisher.directory / "reports.jsonl"

    def records() -> list[Any]:
        lines = taken.read_text().splitlines() if taken.exists() else []
        return [record for line in lines for record in json.loads(line)["records"]]

    until(lambda: {record["kind"] for record in records()} >= {"first-attach", "pairs"}, 30)
    attached = [record["imei"] for record in records() if record["kind"] == "first-attach"]
    assert attached == [ONE]
    (told,) = [record for record in records() if record["kind"] == "pairs"]
    assert told["pairs"] == [[TWO, "001010000000001"], [THREE, ""]]
    assert taken.stat().st_mode & 0o777 == 0o600
    assert node.metrics()['eir_lists_source_up{source="pairs"}'] == 1
