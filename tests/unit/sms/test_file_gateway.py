"""Messages appended to a file."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from sms.file_gateway import FileGateway
from sms.gateway import Accepted, NotTakenError, Receipt, UnansweredError, submit
from sms.settings import FileSettings
from support.sms import NUMBER, part


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_messages_are_lines_and_their_receipts_come_after(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    known: set[str] = set()
    receipts: list[Receipt] = []

    def take(receipt: Receipt) -> None:
        assert receipt.message_id in known
        receipts.append(receipt)

    async def run() -> None:
        way = FileGateway(FileSettings(path=str(path)))
        await way.start(take)

        async def one(number: int) -> Accepted:
            accepted = await submit(way, part(f"Құрылғы №{number}\n", weight=2))
            known.add(accepted.message_id)
            return accepted

        results = await asyncio.gather(*map(one, range(500)))
        await asyncio.sleep(0.01)
        assert len({result.message_id for result in results}) == 500
        assert {receipt.state for receipt in receipts} == {"delivered"} and len(receipts) == 500
        assert way.status()[0]["accepted"] == 500
        await way.close()
        with pytest.raises(NotTakenError):
            await submit(way, part())

    asyncio.run(run())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = lines(path)
    assert [line["text"] for line in found] == [f"Құрылғы №{number}\n" for number in range(500)]
    assert {(line["to"], line["weight"]) for line in found} == {(NUMBER, 2)}
    assert all(str(line["time"]).endswith("+00:00") for line in found)


def test_a_file_that_others_could_read_is_closed_to_them_and_a_torn_line_ended(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    path.write_text('{"to": "9')
    path.chmod(0o644)

    async def run() -> None:
        way = FileGateway(FileSettings(path=str(path)))
        await way.start(lambda _: None)
        await submit(way, part("a"))
        path.rename(tmp_path / "old")
        await submit(way, part("b"))
        await way.close()

    asyncio.run(run())
    torn, whole = (tmp_path / "old").read_text().splitlines()
    assert torn == '{"to": "9' and json.loads(whole)["text"] == "a"
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o600
    assert [line["text"] for line in lines(path)] == ["b"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "messages.jsonl"
    full = True
    write = os.write

    def half(file: int, octets: bytes) -> int:
        if full:
            write(file, bytes(octets[:10]))
            raise OSError(28, "No space left on device")
        return write(file, octets)

    monkeypatch.setattr(os, "write", half)

    async def run() -> None:
        nonlocal full
        way = FileGateway(FileSettings(path=str(path)))
        await way.start(lambda _: None)
        results = await asyncio.gather(*(submit(way, part()) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(result, NotTakenError) for result in results)
        assert way.status()[0]["state"] == "failing"
        assert path.read_bytes() == b""
        full = False
        assert isinstance(await submit(way, part("b")), Accepted)
        assert way.status()[0]["state"] == "bound"
        full = True

        def no(*_: object) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "truncate", no)
        with pytest.raises(UnansweredError):
            await submit(way, part("c"))
        await way.close()

    asyncio.run(run())


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    async def run() -> None:
        way = FileGateway(FileSettings(path=str(tmp_path / "none" / "messages.jsonl")))
        await way.start(lambda _: None)
        with pytest.raises(NotTakenError) as error:
            await submit(way, part())
        assert error.value.reason == "No such file or directory"
        (tmp_path / "none").mkdir()
        assert isinstance(await submit(way, part()), Accepted)
        await way.close()

    asyncio.run(run())
