"""`eir.lists.sync_http`: what is fetched, and servers that do what they should not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from io import FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import aiohttp
import pytest

from eir.lists import manifest as manifests
from eir.lists import sync_http
from eir.lists.source_settings import HttpSettings
from eir.lists.sync_http import HttpSource, _FetchError
from support.odd_http import Request, answer, odd_server
from support.packages import KEY, FakeReceiver, make

IMEI = "35900000000001"
T = TypeVar("T")


@pytest.fixture
def receiver(tmp_path: Path) -> FakeReceiver:
    return FakeReceiver(tmp_path / "incoming")


def run(work: Coroutine[Any, Any, T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(limited())


def source_of(base: str, receiver: FakeReceiver, **more: Any) -> HttpSource:
    settings = replace(HttpSettings(base, 0.05, 0.5), **more)
    return HttpSource(settings, receiver, lambda: 0.0)


async def look(source: HttpSource) -> int:
    async with source._session() as session:
        return await source.look(session)


def delta(sequence: int, rows: int = 1) -> Any:
    text = "".join(f"set,{35900000000000 + n},white,,\n" for n in range(rows))
    return make(sequence, text, previous=sequence - 1)


def nothing_left(receiver: FakeReceiver, source: HttpSource) -> bool:
    source._forget()
    return not receiver.root.exists() or not list(receiver.root.iterdir())


class TestFollowing:
    def test_a_hole_in_the_chain_is_healed_by_the_snapshot(self, receiver: FakeReceiver) -> None:
        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2), delta(3), make(3, f"{IMEI},white,\n"), delta(4))
                del server.contents["/v1/deltas/2/manifest.json"]
                assert await look(source_of(server.base, receiver)) == 2
                assert receiver.taken == [(3, "http"), (4, "http")]

        run(work())

    def test_who_is_too_far_behind_gets_the_snapshot(self, receiver: FakeReceiver) -> None:
        async def work() -> None:
            async with odd_server() as server:
                server.has(*map(delta, range(2, 8)), make(6, f"{IMEI},white,\n"))
                assert await look(source_of(server.base, receiver, max_deltas=3)) == 2
                assert receiver.taken == [(6, "http"), (7, "http")]

        run(work())

    @pytest.mark.parametrize("refused", [False, True])
    def test_who_is_in_step_gets_the_snapshot_that_is_wanted(self, receiver: FakeReceiver, refused: bool) -> None:
        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2), make(2, f"{IMEI},white,\n"), delta(3))
                receiver.sequence, receiver.wanted, receiver.refuse = 3, (2,), refused
                source = source_of(server.base, receiver)
                assert [await look(source) for _ in range(3)] == [0 if refused else 1, 0, 0]
                assert receiver.taken == ([] if refused else [(2, "http")])
                assert len(server.asked("devices.csv")) == 1

        run(work())

    def test_it_looks_at_once_when_it_is_woken(self, receiver: FakeReceiver) -> None:
        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2))
                source = source_of(server.base, receiver, interval=3600.0)
                task = asyncio.create_task(source.run())
                while receiver.sequence != 2:
                    await asyncio.sleep(0.01)
                server.has(delta(2), delta(3))
                source.wake()
                while receiver.sequence != 3:
                    await asyncio.sleep(0.01)
                task.cancel()

        run(work())

    def test_a_token_is_renewed_on_the_way(self, receiver: FakeReceiver) -> None:
        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2))
                source = source_of(server.base, receiver, token="before", interval=3600.0)
                task = asyncio.create_task(source.run())
                while receiver.sequence != 2:
                    await asyncio.sleep(0.01)
                server.has(delta(2), delta(3))
                source.renew(HttpSettings(server.base, 3600.0, 0.5, token="behind"))
                source.wake()
                while receiver.sequence != 3:
                    await asyncio.sleep(0.01)
                task.cancel()
                told = [one.headers["authorization"] for one in server.requests]
                assert told == sorted(told)
                assert set(told) == {"Bearer before", "Bearer behind"}

        run(work())

    def test_what_is_known_by_its_etag_is_not_read_again(self, receiver: FakeReceiver) -> None:
        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2))
                body = server.contents["/v1/current"]
                server.odd["current"] = [answer(200, body, 'ETag: "a"\r\n'), answer(304), answer(304)]
                server.odd["2/manifest.json"] = [answer(500)]
                source = source_of(server.base, receiver, token="open sesame")
                with pytest.raises(_FetchError, match="500"):
                    await look(source)
                # It is not in force yet: that nothing is new there does not say that all is here.
                assert await look(source) == 1
                assert await look(source) == 0
                asked = server.asked("current")
                assert [one.headers.get("if-none-match") for one in asked] == [None, '"a"', '"a"']
                assert {one.headers["authorization"] for one in server.requests} == {"Bearer open sesame"}

        run(work())


class TestBrokenTransfers:
    def test_a_file_that_breaks_off_is_gone_on_with(self, receiver: FakeReceiver) -> None:
        made = delta(2, 100_000)
        body = made.files["devices.csv"]

        async def work() -> None:
            async with odd_server() as server:
                server.has(made)
                cut = len(body) // 3
                server.odd["devices.csv"] = [answer(200, body[:cut], length=len(body))]
                source = source_of(server.base, receiver)
                assert await look(source) == 1
                assert [one.headers.get("range") for one in server.asked("devices.csv")] == [None, f"bytes={cut}-"]
                assert source.counts["resumed"] == 1

        run(work())

    def test_a_stall_in_mid_body_ends_and_is_gone_on_with(self, receiver: FakeReceiver) -> None:
        made = delta(2, 100_000)
        body = made.files["devices.csv"]

        async def stall(_: Request, writer: asyncio.StreamWriter) -> None:
            writer.write(answer(200, body[:100_000], length=len(body)))
            await writer.drain()
            await asyncio.sleep(20)

        async def work() -> None:
            async with odd_server() as server:
                server.has(made)
                server.odd["devices.csv"] = [stall]
                began = time.monotonic()
                assert await look(source_of(server.base, receiver)) == 1
                assert time.monotonic() - began < 5
                assert server.asked("devices.csv")[1].headers["range"] == "bytes=100000-"

        run(work())

    def test_what_was_fetched_stays_for_the_next_look(self, receiver: FakeReceiver) -> None:
        made = delta(2, 10_000)
        body = made.files["devices.csv"]

        async def work() -> None:
            async with odd_server() as server:
                server.has(made)
                server.odd["devices.csv"] = [answer(200, body[:5000], length=len(body)), *[answer(200)] * 9]
                source = source_of(server.base, receiver, stall=0.2)
                with pytest.raises(_FetchError, match="another length"):
                    await look(source)
                server.odd["devices.csv"] = [answer(200, body[:5000], length=len(body)), *[answer(503)] * 1]
                with pytest.raises(_FetchError, match="503"):
                    await look(source)
                assert await look(source) == 1
                assert server.asked("devices.csv")[-1].headers["range"] == "bytes=5000-"

        run(work())

    def test_a_server_that_ignores_ranges_is_borne(self, receiver: FakeReceiver) -> None:
        made = delta(2, 10_000)
        body = made.files["devices.csv"]

        async def work() -> None:
            async with odd_server() as server:
                server.has(made)
                server.odd["devices.csv"] = [answer(200, body[:5000], length=len(body)), answer(200, body)]
                assert await look(source_of(server.base, receiver)) == 1

        run(work())

    @pytest.mark.parametrize(
        ("second", "reason"),
        [
            (answer(416, headers="Content-Range: bytes */3\r\n"), "another file"),
            (answer(206, b"x" * 9, "Content-Range: bytes 0-8/9\r\n"), "another file"),
            (answer(206, b"x" * 9), "another file"),
        ],
    )
    def test_a_server_whose_file_is_another_makes_it_begin_anew(
        self, receiver: FakeReceiver, second: bytes, reason: str
    ) -> None:
        made = delta(2, 10_000)
        body = made.files["devices.csv"]

        async def work() -> None:
            async with odd_server() as server:
                server.has(made)
                server.odd["devices.csv"] = [answer(200, body[:5000], length=len(body)), second]
                source = source_of(server.base, receiver)
                with pytest.raises(_FetchError, match=reason):
                    await look(source)
                assert await look(source) == 1
                assert "range" not in server.asked("devices.csv")[-1].headers

        run(work())

    def test_a_file_that_arrives_wrong_is_fetched_anew(self, receiver: FakeReceiver) -> None:
        made = delta(2, 1000)
        body = made.files["devices.csv"]

        async def work() -> None:
            async with odd_server() as server:
                server.has(made)
                server.odd["devices.csv"] = [answer(200, body[:-1] + b"!")]
                source = source_of(server.base, receiver)
                with pytest.raises(_FetchError, match="SHA-256"):
                    await look(source)
                assert receiver.taken == []
                assert await look(source) == 1

        run(work())

    def test_a_disk_that_is_full_for_a_while_spoils_nothing(
        self, receiver: FakeReceiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It takes some of what comes, then nothing, then all."""
        takes = iter([1000, 0, 500, 0])

        class Filling(FileIO):
            def write(self, octets: Any) -> int:
                room = next(takes, len(octets))
                if not room:
                    raise OSError(28, "No space left on device")
                return super().write(octets[:room])

        opened = Path.open

        def filling(path: Path, mode: str, *more: Any, **options: Any) -> Any:
            return Filling(path, "a+") if mode == "a+b" else opened(path, mode, *more, **options)

        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2, 1000))
                with monkeypatch.context() as patched:
                    patched.setattr(Path, "open", filling)
                    assert await look(source_of(server.base, receiver)) == 1
                asked = [one.headers.get("range") for one in server.asked("devices.csv")]
                assert asked == [None, "bytes=1000-", "bytes=1500-"]

        run(work())

    def test_a_server_that_gives_an_octet_a_time_is_not_asked_all_the_time(self, receiver: FakeReceiver) -> None:
        made = delta(2, 1000)
        body = made.files["devices.csv"]

        async def grudge(request: Request, writer: asyncio.StreamWriter) -> None:
            start = int(request.headers.get("range", "bytes=0-")[6:-1])
            place = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}\r\n"
            writer.write(answer(206 if start else 200, body[start : start + 1], place, len(body) - start))

        async def work() -> None:
            async with odd_server() as server:
                server.has(made)
                server.odd["devices.csv"] = [grudge] * 5
                source = source_of(server.base, receiver)
                with pytest.raises(_FetchError, match="at 5 of"):
                    await look(source)
                assert await look(source) == 1
                assert server.asked("devices.csv")[-1].headers["range"] == "bytes=5-"

        run(work())


ODD_HEADS = (
    b"",
    b"\0\xff" * 100,
    b"HTTP/1.1 200 X\r\nContent-Length: -5\r\n\r\n",
    b"HTTP/1.1 200 X\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
    b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
    b"HTTP/1.1 999999 X\r\n\r\n",
    b"HTTP/9.9 200 X\r\n\r\n{}",
    b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n{}",
    b"HTTP/1.1 204 X\r\n\r\n",
    b"HTTP/1.1 304 X\r\n\r\n",
    b"HTTP/1.1 200 X\r\nETag: " + b"a" * 70_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 X\r\n" + b"a: b\r\n" * 50_000 + b"\r\n",
    b"HTTP/1.1 200 X\r\nContent-Encoding: \xff\r\n\r\n{}",
    b"HTTP/1.1 302 X\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 X\r\nRetry-After: \xff\xfe\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 X\r\nRetry-After: Mon, 99 Nov 99999 99:99:99 +9999\r\nContent-Length: 0\r\n\r\n",
    answer(200, b"[" * 4000),
    answer(200, b'{"sequence": 99999999999999999999}'),
    answer(200, b'{"sequence": 1e3}'),
    answer(200, b"\xff{}"),
)


class TestOddAnswers:
    def test_whatever_comes_it_goes_on_and_follows_when_the_server_is_well(
        self, receiver: FakeReceiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sync_http, "_FIRST_PAUSE", 0.001)
        monkeypatch.setattr(sync_http, "_LONGEST_PAUSE", 0.001)

        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2))
                source = source_of(server.base, receiver)
                ends = ("current", "2/manifest.json", "2/manifest.json.sig")
                server.odd = {end: list(ODD_HEADS) for end in ends}
                task = asyncio.create_task(source.run())
                while not receiver.taken:
                    assert not task.done()
                    await asyncio.sleep(0.01)
                assert not any(server.odd.values())
                assert source.counts["failed"] > len(ODD_HEADS)
                task.cancel()

        run(work())

    def test_a_fault_that_nobody_has_foreseen_does_not_end_it(
        self, receiver: FakeReceiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sync_http, "_FIRST_PAUSE", 0.001)
        fails = iter([True])

        def parse(octets: bytes) -> Any:
            if next(fails, False):
                raise AssertionError
            return manifests.parse(octets)

        monkeypatch.setattr(sync_http, "manifests", SimpleNamespace(parse=parse))

        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2))
                source = source_of(server.base, receiver)
                task = asyncio.create_task(source.run())
                while not receiver.taken:
                    await asyncio.sleep(0.01)
                assert source.counts["failed"] == 1
                task.cancel()

        run(work())

    @pytest.mark.parametrize("end", ["current", "devices.csv"])
    def test_interim_answers_without_end_are_not_waited_for(self, receiver: FakeReceiver, end: str) -> None:
        async def hesitate(_: Request, writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)

        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2))
                server.odd[end] = [hesitate]
                source = source_of(server.base, receiver, stall=0.1)
                if end == "current":
                    with pytest.raises(TimeoutError):
                        await look(source)
                assert await look(source) == 1

        run(work())

    @pytest.mark.parametrize(
        ("end", "odd", "reason"),
        [
            ("current", answer(200, b"{"), "current"),
            ("current", answer(200, b'{"snapshot": null}'), "current"),
            ("current", answer(200, b" " * 70_000), "more than 4096"),
            ("current", answer(302, headers="Location: http://127.0.0.1:1/\r\n"), "redirect"),
            ("current", answer(200, b"{}", "Content-Encoding: gzip\r\n"), "compressed"),
            ("2/manifest.json", answer(200, b"x" * 300_000), "more than"),
            ("2/manifest.json", answer(200, b"{}"), "no manifest"),
            ("2/manifest.json.sig", answer(200, b"x" * 65), "more than 64"),
            ("2/manifest.json.sig", answer(200, b"x" * 63), "of 63 octets"),
            ("devices.csv", answer(200, b"x" * 5000), "another length"),
            ("devices.csv", answer(301, headers="Location: http://127.0.0.1:1/\r\n"), "redirect"),
            ("devices.csv", b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n" + b"x" * 50_000, "longer"),
            ("devices.csv", answer(500), "HTTP 500"),
        ],
    )
    def test_an_odd_answer_ends_the_look_and_the_next_is_well(
        self, receiver: FakeReceiver, end: str, odd: bytes, reason: str
    ) -> None:
        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2))
                server.odd[end] = [odd]
                source = source_of(server.base, receiver)
                with pytest.raises((_FetchError, ValueError, aiohttp.ClientError), match=reason):
                    await look(source)
                assert receiver.taken == []
                assert await look(source) == 1
                assert nothing_left(receiver, source)

        run(work())

    def test_a_body_without_end_is_cut_off(self, receiver: FakeReceiver) -> None:
        sent = 0

        async def pour(_: Request, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n")
            while True:
                writer.write(b"x" * 65536)
                sent += 65536
                await writer.drain()

        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2))
                server.odd["devices.csv"] = [pour]
                with pytest.raises(_FetchError, match="longer"):
                    await look(source_of(server.base, receiver))

        run(work())
        assert sent < 64 << 20

    def test_a_package_of_another_place_is_not_taken(self, receiver: FakeReceiver) -> None:
        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2), delta(3))
                server.contents["/v1/deltas/2/manifest.json"] = server.contents["/v1/deltas/3/manifest.json"]
                with pytest.raises(manifests.ManifestError, match="another package"):
                    await look(source_of(server.base, receiver))

        run(work())

    def test_a_package_that_is_too_long_is_not_begun(self, receiver: FakeReceiver) -> None:
        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2, 1000))
                with pytest.raises(manifests.ManifestError, match="longer than"):
                    await look(source_of(server.base, receiver, max_octets=1000))
                assert not server.asked("devices.csv")

        run(work())

    def test_what_was_refused_is_not_fetched_again(self, receiver: FakeReceiver) -> None:
        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2))
                receiver.refuse = True
                source = source_of(server.base, receiver)
                for _ in range(3):
                    with pytest.raises(_FetchError, match="delta 2 is refused: because"):
                        await look(source)
                assert len(server.asked("devices.csv")) == 1
                receiver.refuse = False
                other = make(2, f"set,{IMEI},black,,\n", previous=1, key=KEY)
                server.has(other)
                assert await look(source) == 1

        run(work())

    def test_what_was_refused_is_taken_again_when_somebody_has_acted(self, receiver: FakeReceiver) -> None:
        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2))
                receiver.refuse = True
                source = source_of(server.base, receiver, interval=3600.0)
                task = asyncio.create_task(source.run())
                while "because" not in (source.error or ""):
                    await asyncio.sleep(0.01)
                receiver.refuse = False
                source.wake()
                await asyncio.sleep(0.1)
                assert not receiver.taken
                source.take_again()
                while not receiver.taken:
                    await asyncio.sleep(0.01)
                task.cancel()

        run(work())

    def test_what_was_refused_is_fetched_again_after_a_while(
        self, receiver: FakeReceiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sync_http, "_REFUSED_FOR", 0.0)

        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2))
                receiver.refuse = True
                source = source_of(server.base, receiver)
                with pytest.raises(_FetchError, match="because"):
                    await look(source)
                receiver.refuse = False
                assert await look(source) == 1

        run(work())

    def test_the_right_signature_is_taken_after_a_wrong_one(self, receiver: FakeReceiver) -> None:
        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2))
                server.odd["2/manifest.json.sig"] = [answer(200, b"x" * 64)]
                receiver.refuse = True
                source = source_of(server.base, receiver)
                with pytest.raises(_FetchError, match="because"):
                    await look(source)
                receiver.refuse = False
                assert await look(source) == 1

        run(work())

    def test_a_server_that_wants_to_be_left_alone_is(self, receiver: FakeReceiver) -> None:
        async def work() -> None:
            async with odd_server() as server:
                server.has(delta(2))
                server.odd["current"] = [answer(503, headers="Retry-After: 2\r\n")]
                source = source_of(server.base, receiver)
                task = asyncio.create_task(source.run())
                began = time.monotonic()
                while not receiver.taken:
                    source.wake()
                    await asyncio.sleep(0.01)
                assert 1.9 < time.monotonic() - began < 10
                assert source.error == ""
                task.cancel()

        run(work())

    def test_a_server_that_is_not_there_is_asked_again(self, receiver: FakeReceiver) -> None:
        async def work() -> None:
            async with odd_server() as server:
                base = server.base
            source = source_of(base, receiver)
            task = asyncio.create_task(source.run())
            while not source.counts["failed"]:
                await asyncio.sleep(0.01)
            assert source.error
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()

        run(work())
