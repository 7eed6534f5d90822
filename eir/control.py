"""The local socket of the command line: one JSON object asks, one answers, a line each.

The socket belongs to the node's user and nobody else may open it, so what comes over it is an operator's word; it is
checked all the same. `ControlServer` is the node's end, called by `app`; `ask` the command line's.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from eir.timers.store import StoreError

_LONGEST = 64 << 10
"""Octets of the longest question."""
_PATIENCE = 30.0
"""Seconds that the command line waits for an answer."""

Handler: TypeAlias = Callable[[Mapping[str, Any]], Any]
"""Takes a question, returns an answer or an awaitable of one, raises ValueError for what cannot be answered."""


class ControlError(Exception):
    """The node cannot be asked, or says no; the text says why."""


class ControlServer:
    """Answers questions by the handler that their `command` names."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._asking: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        """Begins to listen. Raises OSError; also where another node has the socket."""
        if self._path.is_socket():
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(self._path)) == 0:
                    raise OSError(f"{self._path}: another node listens on it")
            self._path.unlink()
        # Made for the owner alone from its first moment, not narrowed afterwards.
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path, limit=_LONGEST)
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Takes the socket away, and cuts off who has not asked yet."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for task, writer in self._asking.items():
            # Also one that is being answered: a look at every timer would hold up the stop for minutes.
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._asking[task] = writer
            task.add_done_callback(self._asking.pop)
        try:
            await self._converse(reader, writer)
        except asyncio.CancelledError:
            # By `stop` alone. Not passed on: asyncio's server would take it for a fault and log it.
            pass
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = await reader.readline()
        except ValueError:
            answer = {"error": "the question is too long"}
        except OSError:
            answer = {"error": "the question cannot be read"}
        else:
            answer = await self._answer(question)
        try:
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except OSError:
            pass

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            question = json.loads(line)
            handler = self._handlers[question["command"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"error": "the question is not understood"}
        try:
            answer = handler(question)
            return {"result": await answer if inspect.isawaitable(answer) else answer}
        except StoreError as error:
            return {"error": f"the store of timers: {error}"}
        except (ValueError, KeyError, TypeError, OverflowError, OSError) as error:
            return {"error": f"a {error} is missing" if isinstance(error, KeyError) else str(error)}


def ask(path: Path, command: str, /, **arguments: Any) -> Any:
    """Asks the node behind a socket. Raises ControlError."""
    return ask_patiently(path, _PATIENCE, command, **arguments)


def ask_patiently(path: Path, patience: float, command: str, /, **arguments: Any) -> Any:
    """Asks the node behind a socket what may take so many seconds. Raises ControlError."""
    question = json.dumps({"command": command, **arguments}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience)
            connection.connect(str(path))
            connection.sendall(question)
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline())
    except FileNotFoundError as error:
        raise ControlError(f"no node is running (there is no {path})") from error
    except ConnectionRefusedError as error:
        raise ControlError(f"no node is running (nobody listens on {path})") from error
    except (OSError, ValueError) as error:
        raise ControlError(f"the node cannot be asked over {path}: {error}") from error
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer["result"]
