"""Subscribers from the operator's export into SQLite and Redis, and found there again."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import sqlite3
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import redis
import redis.asyncio

from eir.subscribers.directory import DirectoryError, Subscriber, pack
from eir.subscribers.importing import ImportRefused, import_file
from eir.subscribers.redis_directory import RedisDirectory, RedisWriter
from eir.subscribers.sqlite_directory import SqliteDirectory, SqliteWriter
from support.cli import Ran, eir
from support.node import EIR, write_config
from support.redis import RedisServer, free_port

FIRST = Subscriber("001010000000001", "77000000001", "000000000012", "kk", False)
SECOND = Subscriber("001010000000002", None, None, None, True)
TEXT = f"imsi,msisdn,iin,language,m2m\n{FIRST.imsi},+{FIRST.msisdn},{FIRST.iin},kk,0\n{SECOND.imsi},,,,1\n"
UNKNOWN = "001010000009999"

Result = TypeVar("Result")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = write_config(tmp_path)
    (tmp_path / "state").mkdir()
    return path


@pytest.fixture
def database(config: Path) -> Path:
    return config.parent / "state" / "subscribers.db"


def take(config: Path, text: str | bytes, *options: object) -> Ran:
    source = config.with_name("export.csv")
    source.write_bytes(text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text)
    return eir("subscribers", "import", source, "-c", config, *options)


def find(path: Path, *imsis: str) -> dict[str, Subscriber]:
    async def ask() -> dict[str, Subscriber]:
        directory = SqliteDirectory(path)
        try:
            return await directory.find(imsis)
        finally:
            await directory.close()

    return asyncio.run(ask())


def others(count: int, language: str = "ru") -> str:
    rows = "".join(f"00101{number:010},{77000000000 + number},,{language},0\n" for number in range(count))
    return f"imsi,msisdn,iin,language,m2m\n{rows}"


class TestImport:
    @pytest.mark.parametrize(
        "text",
        [
            TEXT.encode(),
            b"\xef\xbb\xbf" + TEXT.encode(),
            TEXT.replace(",", ";").replace("\n", "\r\n").encode(),
            b"\xef\xbb\xbf# made today\n\n" + TEXT.encode() + b"# the end, of it, all, is, here\n\n",
            gzip.compress(TEXT.encode()[:30]) + gzip.compress(TEXT.encode()[30:]),
            (
                f"Name,M2M,Language,IIN,IMSI,MSISDN\n#x,,,,{UNKNOWN},\n"
                f'"Doe, J.",0,KK,{FIRST.iin},"{FIRST.imsi}",{FIRST.msisdn}\n\xff,1,,,{SECOND.imsi},\n'
            ).encode("latin-1"),
        ],
        ids=["plain", "BOM", "semicolon CRLF", "BOM comments", "gzip members", "columns"],
    )
    def test_files_as_they_come(self, config: Path, database: Path, text: bytes) -> None:
        ran = take(config, text, "--strict")
        assert ran.code == 0, ran.err
        assert "2 subscribers from 2 rows (0 wrong, 0 repeated" in ran.err
        found = find(database, FIRST.imsi, SECOND.imsi, UNKNOWN, "x", "")
        assert found == {FIRST.imsi: FIRST, SECOND.imsi: SECOND}
        assert database.stat().st_mode & 0o777 == 0o600
        assert not list(database.parent.glob("*.new"))

    def test_the_last_of_repeated_rows_counts(self, config: Path, database: Path) -> None:
        ran = take(config, TEXT + f"{FIRST.imsi},,,ru,\n{FIRST.imsi},,,,1\n")
        assert "2 subscribers from 4 rows (0 wrong, 2 repeated" in ran.err
        assert find(database, FIRST.imsi) == {FIRST.imsi: Subscriber(FIRST.imsi, None, None, None, True)}

    def test_wrong_rows_are_named_without_their_values(self, config: Path, database: Path) -> None:
        text = others(3000) + f"00101999x,,,,\n{UNKNOWN},5555,,,\n{UNKNOWN},,6666,,\n"
        ran = take(config, text)
        assert ran.code == 0
        for line, reason in ((3002, "imsi is"), (3003, "msisdn is"), (3004, "iin is not 12 digits")):
            assert f"export.csv:{line}: {reason}" in ran.err
        assert not any(value in ran.err for value in ("00101", "5555", "6666"))
        assert find(database, UNKNOWN) == {}
        before = database.read_bytes()
        for options in (["--strict"], ["--max-bad-share", 0.0009]):
            ran = take(config, text, *options)
            assert ran.code == 1
            assert "export.csv:3002: imsi is" in ran.err
            assert not any(value in ran.err for value in ("00101", "5555", "6666"))
            assert database.read_bytes() == before

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (b"", "is empty"),
            (b"imei,list\n1,white\n", "names no column imsi"),
            (b"imsi,imsi\n1,1\n", "twice"),
            (b"imsi\n", "there is no subscriber in it"),
            (TEXT.encode("utf-16"), "names no column imsi"),
            (gzip.compress(others(1000).encode())[:-100], "is cut or damaged"),
            (b"\x28\xb5\x2f\xfd0000", "is zstd"),
            (b"imsi,m2m\n" + b'"' + b"001010000000001,1\n" * 10_000, "field larger than field limit"),
            (b"imsi\n" + b"1\n" * 20_000, "10000 of 10000 rows are wrong"),
        ],
        ids=["empty", "other columns", "twice", "no row", "UTF-16", "cut", "zstd", "quote", "hopeless"],
    )
    def test_files_that_are_refused(self, config: Path, database: Path, text: bytes, reason: str) -> None:
        take(config, TEXT)
        before = database.read_bytes()
        ran = take(config, text)
        assert ran.code == 1
        assert reason in ran.err
        assert database.read_bytes() == before
        assert sorted(path.name for path in database.parent.iterdir()) == [".subscribers.db.lock", "subscribers.db"]

    def test_killed_in_the_middle(self, config: Path, database: Path) -> None:
        take(config, TEXT)
        before = database.read_bytes()
        source = config.with_name("many.csv")
        source.write_text(others(1_000_000))
        command: list[str | Path] = [EIR, "subscribers", "import", source, "-c", config]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        leftover = database.with_name(".subscribers.db.new")
        limit = time.monotonic() + 60
        while not leftover.exists():
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.01)
        # A million rows take seconds.
        time.sleep(random.uniform(0.0, 0.5))
        with pytest.raises(OSError, match="another import"):
            SqliteWriter(database)
        process.kill()
        process.wait(30)
        assert leftover.exists()
        assert database.read_bytes() == before
        assert find(database, FIRST.imsi) == {FIRST.imsi: FIRST}
        assert take(config, others(10)).code == 0
        assert not leftover.exists()
        assert len(find(database, *(f"00101{number:010}" for number in range(20)))) == 10

    def test_a_full_disk_leaves_the_old_file(
        self, config: Path, database: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        take(config, TEXT)

        def fail(_: int) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        ran = take(config, others(10))
        assert (ran.code, "No space" in ran.err) == (1, True)
        monkeypatch.undo()
        assert find(database, FIRST.imsi) == {FIRST.imsi: FIRST}


class TestShow:
    def test_masked_and_not(self, config: Path) -> None:
        take(config, TEXT)
        shown = json.loads(eir("subscribers", "show", FIRST.imsi, "--json", "-c", config).out)
        masked = {"imsi": "00101********01", "msisdn": "*********01", "iin": "**********12"}
        assert shown == {**masked, "language": "kk", "m2m": False}
        out = eir("subscribers", "show", SECOND.imsi, "-c", config).out
        assert out.split() == ["imsi", "00101********02", "msisdn", "-", "iin", "-", "language", "-", "m2m", "yes"]
        shown = json.loads(eir("subscribers", "show", FIRST.imsi, "--json", "--unmask", "-c", config).out)
        assert (shown["msisdn"], shown["iin"]) == (FIRST.msisdn, FIRST.iin)

    @pytest.mark.parametrize("imsi", [UNKNOWN, "12", "x"], ids=["unknown", "short", "no digits"])
    def test_nobody(self, config: Path, imsi: str) -> None:
        ran = eir("subscribers", "show", imsi, "-c", config)
        assert ran.code == 1
        assert imsi not in ran.err.split()


class TestSqlite:
    def test_a_file_that_comes_and_goes_and_is_replaced(self, config: Path, database: Path) -> None:
        async def ask() -> None:
            directory = SqliteDirectory(database)
            assert await directory.find([FIRST.imsi]) == {}
            take(config, TEXT)
            assert await directory.find([FIRST.imsi]) == {FIRST.imsi: FIRST}
            take(config, others(1200))
            found = await directory.find(f"00101{number:010}" for number in range(2000))
            assert len(found) == 1200
            database.unlink()
            assert await directory.find([FIRST.imsi]) == {}
            database.write_bytes(b"no database" * 100)
            with pytest.raises(DirectoryError, match=r"subscribers\.db"):
                await directory.find([FIRST.imsi])
            take(config, TEXT)
            assert await directory.find([FIRST.imsi, FIRST.imsi]) == {FIRST.imsi: FIRST}
            await directory.close()

        asyncio.run(ask())

    def test_damage_is_one_kind_of_error(self, config: Path, database: Path) -> None:
        take(config, others(2000))
        sound = database.read_bytes()
        damaged = []
        for at in range(0, len(sound), 4096):
            damaged.append(sound[:at] + b"\xa5" * 4096 + sound[at + 4096 :])
            damaged.append(sound[:at])
        errors = 0
        for content in damaged:
            database.unlink()
            database.write_bytes(content)
            try:
                find(database, *(f"00101{number:010}" for number in range(2000)))
            except DirectoryError as error:
                errors += 1
                assert "00101" not in str(error)
        assert errors == len(damaged)

    def test_another_program_s_database(self, database: Path) -> None:
        with sqlite3.connect(database) as connection:
            connection.execute("CREATE TABLE subscribers (imsi, msisdn, iin, flags)")
        connection.close()
        with pytest.raises(DirectoryError, match="is no file of subscribers"):
            find(database, FIRST.imsi)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), free_port())
    server.start()
    yield server
    server.stop()


def in_redis(server: RedisServer, prefix: str, what: Callable[[RedisDirectory], Awaitable[Result]]) -> Result:
    async def ask() -> Result:
        async with redis.asyncio.Redis.from_url(server.url, socket_timeout=0.5, retry=None) as client:
            return await what(RedisDirectory(client, prefix))

    return asyncio.run(ask())


def find_in_redis(server: RedisServer, prefix: str, imsis: Iterable[str]) -> dict[str, Subscriber]:
    return in_redis(server, prefix, lambda directory: directory.find(imsis))


class TestRedis:
    def test_generations(self, config: Path, server: RedisServer) -> None:
        options = ("--to-redis", "--redis", server.url, "--prefix", "a[b]*")
        client = redis.Redis.from_url(server.url)
        client.set("a[b]*:other", "1")
        assert find_in_redis(server, "a[b]*", [FIRST.imsi]) == {}
        ran = take(config, TEXT + f"{SECOND.imsi},,,,1\n", *options)
        assert "Redis: 2 subscribers from 3 rows (0 wrong, 1 repeated" in ran.err, ran.err
        both = {FIRST.imsi: FIRST, SECOND.imsi: SECOND}
        assert find_in_redis(server, "a[b]*", [FIRST.imsi, SECOND.imsi, UNKNOWN, "x"]) == both

        async def over_a_change(directory: RedisDirectory) -> None:
            assert await directory.find([FIRST.imsi]) == {FIRST.imsi: FIRST}
            assert take(config, others(5000), *options).code == 0
            found = await directory.find(f"00101{number:010}" for number in range(6000))
            assert len(found) == 5000
            assert await directory.find([]) == {}

        in_redis(server, "a[b]*", over_a_change)
        # A refused file and a killed import leave nothing for long, and what is in force stays.
        assert take(config, others(100) + "x,,,,\n", *options).code == 1
        assert client.get("a[b]*:sub:generation") == b"2"
        RedisWriter(client, "a[b]*").fill([pack(SECOND)])
        assert take(config, TEXT, *options).code == 0
        # A scan may name a key twice.
        names = sorted(set(client.scan_iter("*")))
        sub = b"a[b]*:sub:"
        assert names == sorted(
            [b"a[b]*:other", sub + b"generation", sub + b"last"]
            + [sub + b"5:" + subscriber.imsi.encode() for subscriber in (FIRST, SECOND)]
        )
        client.close()

    def test_a_newer_import_wins(self, tmp_path: Path, server: RedisServer) -> None:
        client = redis.Redis.from_url(server.url)
        older, newer = RedisWriter(client, "race"), RedisWriter(client, "race")
        source = tmp_path / "export.csv"
        source.write_text(TEXT)
        older.fill([pack(SECOND)])
        import_file(source, newer)
        with pytest.raises(OSError, match="newer import"):
            older.commit()
        older.discard()
        assert find_in_redis(server, "race", [FIRST.imsi]) == {FIRST.imsi: FIRST}
        client.close()

    def test_show(self, tmp_path: Path, server: RedisServer) -> None:
        config = write_config(tmp_path, {"subscribers": {"source": "redis"}})
        assert take(config, TEXT, "--to-redis", "--redis", server.url).code == 0
        ran = eir("subscribers", "show", FIRST.imsi, "-c", config, "--redis", server.url)
        assert "00101********01" in ran.out
        assert "say with --redis" in eir("subscribers", "show", FIRST.imsi, "-c", config).err

    def test_damage_and_silence_are_one_kind_of_error(self, tmp_path: Path) -> None:
        server = RedisServer(tmp_path / "redis", free_port(), "--maxmemory", "100mb")
        server.start()
        try:
            client = redis.Redis.from_url(server.url)
            source = tmp_path / "export.csv"
            source.write_text(TEXT)
            import_file(source, RedisWriter(client, "eir"))
            for value in (b"", b"\xc1", b"\x93\x01\x02\x03", b"\x94\x01\xc0\xc0\x00"):
                client.set(f"eir:sub:1:{FIRST.imsi}", value)
                with pytest.raises(DirectoryError) as caught:
                    find_in_redis(server, "eir", [FIRST.imsi])
                assert "00101" not in str(caught.value)
            # A request that fails names its key to redis-py; not to anybody else.
            client.config_set("maxmemory", "1")
            with pytest.raises(OSError) as refused:
                import_file(source, RedisWriter(client, "eir"))
            assert "00101" not in str(refused.value)
            client.config_set("maxmemory", "100mb")
            server.pause()
            with pytest.raises(DirectoryError):
                find_in_redis(server, "eir", [FIRST.imsi])
            server.pause(False)
            server.kill()
            with pytest.raises(DirectoryError):
                find_in_redis(server, "eir", [FIRST.imsi])
            assert "eir: Redis: " in take(write_config(tmp_path), TEXT, "--to-redis", "--redis", server.url).err
            client.close()
        finally:
            server.stop()


def test_a_wrong_file_is_refused_whatever_the_writer(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused):
        source = tmp_path / "export.csv"
        source.write_text("imsi\n")
        import_file(source, SqliteWriter(tmp_path / "subscribers.db"))
    assert not (tmp_path / "subscribers.db").exists()
