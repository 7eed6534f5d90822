"""The command line's part for live traces: `eir trace`. Asks the running node over its local socket, again and again.

Registered by `cli`. What is shown is masked by the node already.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

import typer

from eir import _core
from eir.cli_options import DEFAULT_CONFIG, CommandError, ConfigOption, JsonOption, ask_node
from eir.cli_timers import AgentOption

_EVERY = 0.2


def trace(
    agent: AgentOption,
    imei: Annotated[str | None, typer.Option(help="The device.")] = None,
    imsi: Annotated[str | None, typer.Option(help="The subscriber.")] = None,
    peer: Annotated[str | None, typer.Option(help="The peer's Origin-Host.")] = None,
    count: Annotated[int, typer.Option(min=0, help="End after so many messages; 0: not.")] = 0,
    seconds: Annotated[float, typer.Option(min=0, help="End after so many seconds; 0: not.")] = 0,
    as_json: JsonOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Show requests and their answers as they come, decoded and masked, until Ctrl-C."""
    try:
        key = _core.imei_key(imei) if imei else None
    except ValueError as error:
        raise CommandError(str(error)) from error
    number = ask_node(path, "trace-start", imei=key, imsi=imsi, peer=peer, agent=agent)
    end = time.monotonic() + seconds if seconds else None
    shown = 0
    try:
        while True:
            # What came in the last moment is asked for after the end, not lost.
            over = end is not None and time.monotonic() >= end
            told = ask_node(path, "trace-take", trace=number)
            messages = told["messages"][: count - shown] if count else told["messages"]
            for message in messages:
                print(json.dumps(message) if as_json else "\n".join(_lines(message)), flush=True)
            if told["left_out"]:
                # For machines beside what is shown: there, each line is a message.
                out = sys.stderr if as_json else sys.stdout
                print(f"({told['left_out']} more were left out: too many)", file=out, flush=True)
            shown += len(messages)
            if over or (count and shown >= count):
                break
            time.sleep(_EVERY if end is None else min(_EVERY, max(0.0, end - time.monotonic())))
    except KeyboardInterrupt:
        pass
    finally:
        with suppress(Exception):
            ask_node(path, "trace-stop", trace=number)


def _lines(message: dict[str, Any]) -> Iterator[str]:
    at = datetime.fromtimestamp(message["at"] / 1e9).strftime("%H:%M:%S.%f")
    rule = f" by rule {message['rule']}" if message["rule"] else ""
    yield f"{at} {message['peer'] or '-'} connection {message['connection']}: {message['outcome']}{rule}"
    for sign, lines in ((">", message["request"]), ("<", message["answer"])):
        yield from (f"{sign} {line}" for line in lines)
    yield ""
