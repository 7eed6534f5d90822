"""`eir.publisher`: what is set is published, signed, over HTTP and at a broker; reports are taken once."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import aiomqtt
import msgspec
import pytest

from eir.lists import manifest as manifests
from eir.lists.reports import Report, write_reports
from eir.publisher.book import Available, Book, BookError
from eir.publisher.packages import Packages
from eir.publisher.rows import Device, RowError, read_devices, read_others, read_pairs
from support.mosquitto import Mosquitto
from support.packages import KEY
from support.publisher import Publisher, publishing

ONE, TWO, THREE = 35900000000001, 35900000000002, 35900000000003
NOW = 1_790_000_000
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(limited())


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path, "test", KEY)


@pytest.fixture
def book(tmp_path: Path) -> Any:
    with closing(Book(tmp_path / "lists.db")) as book:
        yield book


def text_of(packages: Packages, kind: Any, sequence: int, name: str = "devices.csv") -> list[str]:
    octets = (packages.place(kind, sequence) / name).read_bytes()
    return (gzip.decompress(octets) if name.endswith(".gz") else octets).decode().splitlines()


class TestPackages:
    def test_the_first_is_a_snapshot_and_then_come_deltas(self, book: Book, packages: Packages) -> None:
        book.put([Device(ONE, "white", "", ""), Device(TWO, "grey", "", "20270101")])
        assert packages.publish(book, NOW) == 1
        assert text_of(packages, "snapshot", 1, "devices.csv.gz") == [
            "imei,list,reason,until",
            "35900000000001,white,,",
            "35900000000002,grey,,20270101",
        ]
        assert packages.publish(book, NOW) is None
        book.put([Device(ONE, "black", "stolen", "")])
        book.remove(TWO)
        book.put_pairs([(ONE, "001010000000001")])
        assert packages.publish(book, NOW) == 2
        assert text_of(packages, "delta", 2) == [
            "change_type,imei,list,reason,until",
            "set,35900000000001,black,stolen,",
            "remove,35900000000002,,,",
        ]
        assert text_of(packages, "delta", 2, "pairs.csv") == [
            "change_type,imei,imsi",
            "set,35900000000001,001010000000001",
        ]
        assert book.available() == Available(2, 1, 2)

    def test_manifests_are_true_and_signed(self, book: Book, packages: Packages) -> None:
        book.put([Device(ONE, "white", "", "")])
        book.put_others("allocated-tacs", ["35900000"], NOW - 86400)
        packages.publish(book, NOW)
        book.put([Device(TWO, "black", "", "")])
        packages.publish(book, NOW + 1)
        for kind, sequence in (("snapshot", 1), ("delta", 2)):
            place = packages.place(kind, sequence)  # type: ignore[arg-type]
            octets = (place / "manifest.json").read_bytes()
            assert manifests.is_signed(octets, (place / "manifest.json.sig").read_bytes(), [KEY.public_key()])
            manifest = manifests.parse(octets)
            assert (manifest.kind, manifest.sequence, manifest.country) == (kind, sequence, "test")
            for file in manifest.files:
                body = (place / file.name).read_bytes()
                assert (len(body), hashlib.sha256(body).hexdigest()) == (file.octets, file.sha256)
                assert len(text_of(packages, kind, sequence, file.name)) == file.rows + 1
        assert manifest.previous == 1
        assert manifest.counts == {"white": 1, "grey": 0, "black": 1}

    def test_what_no_delta_carries_makes_a_snapshot_of_its_own_number(self, book: Book, packages: Packages) -> None:
        book.put([Device(ONE, "white", "", "")])
        packages.publish(book, NOW)
        book.put([Device(TWO, "white", "", "")])
        book.put_others("ranges", ["35900001,35900002,white,"])
        assert packages.publish(book, NOW) == 2
        assert book.available() == Available(2, 2, None)
        book.remove(ONE)
        packages.publish(book, NOW)
        assert book.available() == Available(3, 2, 3)
        assert packages.snapshot(book, NOW) == 3
        assert book.available() == Available(3, 3, 3)

    def test_old_packages_go(self, book: Book, packages: Packages) -> None:
        for number in range(6):
            book.put([Device(ONE + number, "white", "", "")])
            packages.publish(book, NOW)
            if number % 2:
                packages.snapshot(book, NOW)
        assert book.packages("snapshot") == [6, 4]
        assert book.packages("delta") == [6, 5]
        assert sorted(path.name for path in (packages.place("delta", 1).parent).iterdir()) == ["5", "6"]

    def test_a_package_whose_making_was_ended_is_made_again(self, book: Book, packages: Packages) -> None:
        book.put([Device(ONE, "white", "", "")])
        packages.place("snapshot", 1).mkdir(parents=True)
        (packages.place("snapshot", 1) / "manifest.json").write_text("half")
        assert packages.publish(book, NOW) == 1
        manifests.parse((packages.place("snapshot", 1) / "manifest.json").read_bytes())

    def test_a_replacement_changes_what_is_otherwise_only(self, book: Book, packages: Packages) -> None:
        devices = [Device(ONE, "white", "", ""), Device(TWO, "white", "", "")]
        assert book.put(devices) == 2
        packages.publish(book, NOW)
        assert book.put([devices[0], Device(THREE, "black", "", "")], replace=True) == 2
        packages.publish(book, NOW)
        assert text_of(packages, "delta", 2)[1:] == ["remove,35900000000002,,,", "set,35900000000003,black,,"]
        assert book.counts() == {"white": 1, "grey": 0, "black": 1}

    def test_another_programs_file_is_refused(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "other.db")) as other:
            other.execute("CREATE TABLE t (x)")
        (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at " * 10)
        for name in ("other.db", "text.db"):
            with pytest.raises(BookError, match=name):
                Book(tmp_path / name)

    def test_what_is_longer_than_a_message_may_be_goes_without_its_files(self, book: Book, packages: Packages) -> None:
        book.put([Device(ONE, "white", "", "")])
        packages.publish(book, NOW)
        book.put(Device(ONE + number, "black", "", "") for number in range(1000))
        packages.publish(book, NOW)
        assert packages.message(3, 1 << 20) is None
        for sequence, longest, names in ((1, 1 << 20, None), (2, 1 << 20, ["devices.csv"]), (2, 20_000, None)):
            message = packages.message(sequence, longest)
            assert message is not None
            told = msgspec.msgpack.decode(message)
            assert (list(told["files"]) if "files" in told else None) == names


class TestRows:
    def test_columns_may_be_in_any_order(self) -> None:
        lines = [
            "# a comment\n",
            "Until,list,IMEI,more\n",
            "\n",
            "2027-01-01,grey,359000000000012,x\n",
            ",WHITE,359000000000020,\n",
        ]
        assert list(read_devices(lines)) == [Device(ONE, "grey", "", "20270101"), Device(TWO, "white", "", "")]
        assert list(read_pairs(["imei,imsi\n", f"{ONE},001010000000001\n"])) == [(ONE, "001010000000001")]
        assert list(read_others("ranges", ["reason,from,to,list\n", "x,35900001,35900002,WHITE\n"])) == [
            "35900001,35900002,white,x"
        ]

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("35900000000001,red,,", "not a list"),
            ("0,white,,", "not an IMEI"),
            ("٣٥٩٠٠٠٠٠٠٠٠٠٠١,white,,", "not an IMEI"),
            ("35900000000001,white,No!,", "not a reason"),
            ("35900000000001,white,,20270101", "not grey"),
            ("35900000000001,grey,,20270230", "not a day"),
            ("35900000000001,white", "2 fields"),
        ],
    )
    def test_a_wrong_row_refuses_the_file(self, book: Book, line: str, reason: str) -> None:
        lines = ["imei,list,reason,until\n", "35900000000002,white,,\n", line + "\n"]
        with pytest.raises(RowError, match=reason):
            book.put(read_devices(lines))
        assert (list(book.devices()), book.find(TWO)) == ([], None)

    def test_an_imsi_is_not_in_what_is_wrong_with_it(self) -> None:
        with pytest.raises(RowError) as caught:
            list(read_pairs(["imei,imsi\n", f"{ONE},00101000000000199\n"]))
        assert str(caught.value) == "line 2: not an IMSI"


class TestServing:
    def test_what_is_set_is_published_at_once(self, tmp_path: Path) -> None:
        async def work() -> None:
            async with (
                publishing(tmp_path / "publisher", automatic=True) as publisher,
                aiohttp.ClientSession() as client,
            ):
                publisher.set(str(ONE), "white")
                seen = 0
                while seen < 1:
                    async with client.get(f"{publisher.base}/v1/current") as response:
                        seen = (await response.json())["sequence"]
                publisher.set(str(ONE), "black", "stolen")
                while seen < 2:
                    async with client.get(f"{publisher.base}/v1/current") as response:
                        seen = (await response.json())["sequence"]

        run(work())

    def test_an_etag_and_ranges_are_known(self, tmp_path: Path) -> None:
        async def work() -> None:
            async with publishing(tmp_path / "publisher") as publisher, aiohttp.ClientSession() as client:
                publisher.set(str(ONE), "white")
                publisher.publish()
                url = f"{publisher.base}/v1/current"
                async with client.get(url) as response:
                    etag = response.headers["ETag"]
                    assert await response.json() == {
                        "country": "test",
                        "sequence": 1,
                        "snapshot": 1,
                        "first_delta": None,
                    }
                async with client.get(url, headers={"If-None-Match": etag}) as response:
                    assert (response.status, await response.read()) == (304, b"")
                url = f"{publisher.base}/v1/snapshots/1/devices.csv.gz"
                whole = (publisher.packages.place("snapshot", 1) / "devices.csv.gz").read_bytes()
                async with client.get(url) as response:
                    assert "Content-Encoding" not in response.headers
                    assert await response.read() == whole
                async with client.get(url, headers={"Range": "bytes=10-"}) as response:
                    assert response.status == 206
                    assert response.headers["Content-Range"] == f"bytes 10-{len(whole) - 1}/{len(whole)}"
                    assert await response.read() == whole[10:]
                async with client.get(url, headers={"Range": "bytes=99999-"}) as response:
                    assert response.status == 416

        run(work())

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/deltas/1/..%2f..%2f..%2fkey.pem",
            "/v1/snapshots/1/.hidden",
            "/v1/keys/1/key.pem",
            "/lists.db",
            "/v1/deltas/99999999999999999999/x",
        ],
    )
    def test_nothing_else_is_served(self, tmp_path: Path, path: str) -> None:
        async def work() -> None:
            async with publishing(tmp_path / "publisher") as publisher, aiohttp.ClientSession() as client:
                (tmp_path / "publisher" / "key.pem").write_text("secret")
                async with client.get(f"{publisher.base}{path}") as response:
                    assert response.status == 404

        run(work())

    def test_without_the_token_nothing_is_told(self, tmp_path: Path) -> None:
        async def work() -> None:
            async with (
                publishing(tmp_path / "publisher", token="right") as publisher,
                aiohttp.ClientSession() as client,
            ):
                for token, status in (("", 401), ("Bearer wrong", 401), ("Bearer rïght", 401), ("Bearer right", 200)):
                    async with client.get(f"{publisher.base}/v1/current", headers={"Authorization": token}) as response:
                        assert response.status == status

        run(work())

    def test_reports_are_taken_once(self, tmp_path: Path) -> None:
        reports = [Report(id=f"n/start/{ONE}/{at}", kind="first-attach", at=at, imei=str(ONE)) for at in (1, 2)]

        async def work() -> None:
            async with publishing(tmp_path / "publisher") as publisher, aiohttp.ClientSession() as client:
                for body, status, taken in (
                    (write_reports("n", reports[:1]), 200, 1),
                    (write_reports("n", reports), 200, 1),
                    (b"\xc1", 400, None),
                    (b"x" * (5 << 20), 413, None),
                ):
                    async with client.post(f"{publisher.base}/v1/reports", data=body) as response:
                        assert response.status == status
                        if taken is not None:
                            assert (await response.json())["taken"] == taken
                assert [identity for identity, _, _ in publisher.book.reports()] == [one.id for one in reports]

        run(work())


class TestBroker:
    @pytest.fixture
    def broker(self, tmp_path: Path) -> Any:
        broker = Mosquitto(tmp_path / "broker")
        broker.start()
        yield broker
        broker.stop()

    def test_a_change_is_announced_with_a_valid_signature(self, tmp_path: Path, broker: Mosquitto) -> None:
        async def work() -> None:
            async with (
                aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client,
                publishing(tmp_path / "publisher", automatic=True, broker=broker.port) as publisher,
            ):
                await client.subscribe("eir/test/deltas", qos=1)
                publisher.set(str(ONE), "white")
                messages = aiter(client.messages)
                first = msgspec.msgpack.decode((await anext(messages)).payload)
                assert manifests.parse(first["manifest"]).kind == "snapshot"
                assert "files" not in first
                publisher.set(str(ONE), "black", "stolen")
                second = msgspec.msgpack.decode((await anext(messages)).payload)
                assert manifests.is_signed(second["manifest"], second["signature"], [KEY.public_key()])
                assert manifests.parse(second["manifest"]).sequence == 2
                assert second["files"]["devices.csv"].splitlines()[1:] == [b"set,35900000000001,black,stolen,"]
                await client.publish("eir/test/reports/n", b"\xc1", qos=1)
                report = Report(id="a", kind="first-attach", at=1, imei=str(ONE))
                await client.publish("eir/test/reports/n", write_reports("n", [report]), qos=1)
                while not publisher.book.reports():
                    await asyncio.sleep(0.01)

        run(work())

    def test_what_was_published_without_a_broker_is_announced_later(self, tmp_path: Path, broker: Mosquitto) -> None:
        broker.stop()

        async def change(publisher: Publisher, imei: int) -> None:
            publisher.set(str(imei), "white")
            while publisher.book.is_changed():
                await asyncio.sleep(0.01)

        async def work() -> None:
            async with publishing(tmp_path / "publisher", automatic=True, broker=broker.port) as publisher:
                await change(publisher, ONE)
                await change(publisher, TWO)
                broker.start()
                async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client:
                    await client.subscribe("eir/test/deltas", qos=1)
                    while publisher.book.number("announced") < 2:
                        await asyncio.sleep(0.01)
                    await change(publisher, THREE)
                    async for message in client.messages:
                        if manifests.parse(msgspec.msgpack.decode(message.payload)["manifest"]).sequence == 3:
                            break

        run(work())
