"""`eir.control`: the local socket is the owner's alone, and whatever comes over it costs one answer."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from eir.control import ControlError, ControlServer, ask

Result = TypeVar("Result")


def refuse(_: Mapping[str, Any]) -> None:
    raise ValueError("no such device")


def fail(_: Mapping[str, Any]) -> None:
    raise OSError("the journal is full")


HANDLERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "echo": lambda question: question["text"],
    "refuse": refuse,
    "fail": fail,
    "kind": lambda question: question["text"] + 1,
}


def while_serving(path: Path, act: Callable[[], Result]) -> Result:
    """What `act` returns, called in a thread while a server listens."""

    async def serve() -> Result:
        server = ControlServer(path, HANDLERS)
        await server.start()
        try:
            return await asyncio.to_thread(act)
        finally:
            await server.stop()

    return asyncio.run(serve())


def say(path: Path, octets: bytes) -> bytes:
    """All that a server answers to these octets."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        try:
            connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the socket is to be."""
    return tmp_path / "control.sock"


def test_question_and_answer(path: Path) -> None:
    assert while_serving(path, lambda: ask(path, "echo", text="сәлем")) == "сәлем"
    assert not path.exists()


def test_only_its_owner_may_open_it(path: Path) -> None:
    mode = while_serving(path, lambda: path.stat().st_mode)
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.parametrize(
    ("command", "arguments", "text"),
    [
        ("refuse", {}, "no such device"),
        ("fail", {}, "the journal is full"),
        ("echo", {}, "a 'text' is missing"),
        ("kind", {"text": "a"}, "can only concatenate str"),
        ("unheard", {}, "the question is not understood"),
    ],
)
def test_what_cannot_be_answered_is_said(path: Path, command: str, arguments: dict[str, str], text: str) -> None:
    with pytest.raises(ControlError, match=text):
        while_serving(path, lambda: ask(path, command, **arguments))


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\n",
        b"\xff\xfe\n",
        b"garbage\n",
        b"1\n",
        b"[]\n",
        b'"command"\n',
        b'{"command": []}\n',
        b'{"command": null}\n',
        b"{}\n",
        b"[" * 60_000 + b"\n",
        b'{"command": "echo"',
    ],
    ids=lambda octets: octets[:20].decode("latin-1"),
)
def test_garbage_is_answered_and_does_no_harm(path: Path, octets: bytes) -> None:
    def act() -> tuple[bytes, Any]:
        return say(path, octets), ask(path, "echo", text="still there")

    answer, after = while_serving(path, act)
    assert json.loads(answer) == {"error": "the question is not understood"}
    assert after == "still there"


@pytest.mark.parametrize("size", [70_000, 10_000_000])
def test_an_oversized_question_is_refused(path: Path, size: int) -> None:
    def act() -> Any:
        # The answer may be lost with the connection, as there is more to read than the node will.
        try:
            answer = say(path, b'{"command": "echo", "text": "' + b"a" * size + b'"}\n')
        except ConnectionResetError:
            answer = b""
        assert not answer or json.loads(answer) == {"error": "the question is too long"}
        return ask(path, "echo", text="still there")

    assert while_serving(path, act) == "still there"


def test_one_who_asks_nothing_keeps_nobody_waiting(path: Path) -> None:
    def act() -> Any:
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(str(path))
            return ask(path, "echo", text="next")

    assert while_serving(path, act) == "next"


def test_a_stale_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert path.is_socket()
    assert while_serving(path, lambda: ask(path, "echo", text="new")) == "new"


def test_a_second_node_is_refused(path: Path) -> None:
    def act() -> Any:
        with pytest.raises(OSError, match="another node listens on it"):
            while_serving(path, lambda: None)
        return ask(path, "echo", text="first")

    assert while_serving(path, act) == "first"


def test_what_is_no_socket_is_not_removed(path: Path) -> None:
    path.write_text("a file of somebody's")
    with pytest.raises(OSError, match="in use"):
        while_serving(path, lambda: None)
    assert path.read_text() == "a file of somebody's"


def test_nobody_there(path: Path) -> None:
    with pytest.raises(ControlError, match="no node is running"):
        ask(path, "status")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(ControlError, match="no node is running"):
        ask(path, "status")


def test_a_node_that_closes_without_an_answer(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        async def act() -> None:
            asked = asyncio.create_task(asyncio.to_thread(ask, path, "status"))
            connection, _ = await asyncio.to_thread(server.accept)
            connection.close()
            with pytest.raises(ControlError, match="cannot be asked"):
                await asked

        asyncio.run(act())
