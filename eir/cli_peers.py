"""The command line's part for Diameter peers: `eir peers`. Asks the running node over its local socket.

Registered by `cli`. What is added or disabled here lasts over restarts; the configuration's own peers are changed in
it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from eir.cli_options import DEFAULT_CONFIG, ConfigOption, JsonOption, ask_node, new_console
from eir.cli_timers import AgentOption, ReasonOption

peers_cli = typer.Typer(help="Diameter peers: who is connected, and who may be.")

_Name = Annotated[str, typer.Argument(metavar="ORIGIN-HOST", help="The peer's Origin-Host.")]


@peers_cli.callback(invoke_without_command=True)
def peers(context: typer.Context, as_json: JsonOption = False, path: ConfigOption = DEFAULT_CONFIG) -> None:
    """List the connections of the running node, or change who may connect."""
    if context.invoked_subcommand is not None:
        return
    rows = ask_node(path, "peers")
    if as_json:
        print(json.dumps(rows))
        return
    from rich.table import Table

    columns = ("Origin-Host", "address", "way", "state", "watchdog", "limit", "since", "heard")
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row["origin_host"] or "-",
            row["remote"],
            f"{row['direction']}, TLS" if row["tls"] else row["direction"],
            row["state"],
            row["watchdog"],
            f"{row['requests_per_second']}/s" if row["requests_per_second"] else "-",
            f"{row['since']:.0f} s",
            f"{row['idle']:.1f} s",
        )
    new_console().print(table)


@peers_cli.command()
def show(origin_host: _Name, as_json: JsonOption = False, path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Show all that is known of one peer: entry, states, connections, counters."""
    told = ask_node(path, "peers-show", origin_host=origin_host)
    if as_json:
        print(json.dumps(told))
        return
    for line in _lines(told):
        print(line)


def _lines(told: dict[str, Any]) -> list[str]:
    lines = [f"{told['origin_host']}{'  DISABLED' if told['disabled'] else ''}"]
    for source in ("configured", "added"):
        lines += [f"  {source}: {json.dumps(entry)}" for entry in told[source]]
    for state in told["states"]:
        way = f", connected to at {state['connect']}" if state["connect"] else ""
        lines.append(f"  state {state['state']}, watchdog {state['watchdog']}, role {state['role']}{way}")
        for connection in state["connections"]:
            tls = f"TLS {connection['tls_version'] or ''}".strip() if connection["tls"] else "no TLS"
            lines.append(
                f"    {connection['direction']} {connection['remote']}, {tls}, since {connection['since']:.0f} s, "
                f"last heard {connection['idle']:.1f} s ago"
            )
    if (counters := told["counters"]) is not None:
        answered = sum(count for _, _, count in counters["answers"])
        lines.append(f"  answered {answered}, above its limit {counters['limited']}, handed up {counters['punted']}")
        if counters["overload"]:
            lines.append(f"  is told to send {counters['overload']} % less")
    lines += [f"  refused with {code}: {count}" for code, count in sorted(told["refused"].items())]
    return lines


@peers_cli.command()
def add(
    origin_host: _Name,
    reason: ReasonOption,
    agent: AgentOption,
    network: Annotated[list[str] | None, typer.Option(help="Where it may come from: 10.0.0.0/24.")] = None,
    connect: Annotated[list[str] | None, typer.Option(help="Where the node connects to it: HOST:PORT.")] = None,
    role: Annotated[Literal["auto", "direct", "relay"], typer.Option(help="Whom it may speak for.")] = "auto",
    tls: Annotated[Literal["optional", "required", "never"], typer.Option(help="TLS.")] = "optional",
    connections: Annotated[int, typer.Option(help="Connections at once.")] = 1,
    requests_per_second: Annotated[int, typer.Option(help="Above it is answered 3004; 0: no limit.")] = 0,
    load: Annotated[bool, typer.Option("--load", help="Tell it how busy the node is.")] = False,
    grey: Annotated[str | None, typer.Option(help="What grey is answered as.")] = None,
    unknown: Annotated[str | None, typer.Option(help="What unknown is answered as.")] = None,
    malformed: Annotated[str | None, typer.Option(help="What is no IMEI is answered as.")] = None,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Let a peer in from now on, or put one that was added here on other terms. Also "*.REALM" and "*"."""
    answers = {"grey": grey, "unknown": unknown, "malformed": malformed}
    peer = {
        "origin_host": origin_host,
        "networks": network or [],
        "connect": connect or [],
        "role": role,
        "tls": tls,
        "connections": connections,
        "requests_per_second": requests_per_second,
        "load": load,
        "answers": {name: value for name, value in answers.items() if value is not None},
    }
    ask_node(path, "peers-add", peer=peer, reason=reason, agent=agent)
    print(f"{origin_host}: added")


@peers_cli.command()
def remove(origin_host: _Name, reason: ReasonOption, agent: AgentOption, path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Take away a peer that was added here; it is disconnected."""
    _change(path, "peers-remove", origin_host, reason, agent)
    print(f"{origin_host}: removed")


@peers_cli.command()
def disable(origin_host: _Name, reason: ReasonOption, agent: AgentOption, path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Keep a peer out, whatever entry lets it in, until it is enabled; it is disconnected."""
    _change(path, "peers-disable", origin_host, reason, agent)
    print(f"{origin_host}: disabled")


@peers_cli.command()
def enable(origin_host: _Name, reason: ReasonOption, agent: AgentOption, path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Let a peer in again; if the node connects to it, at once."""
    _change(path, "peers-enable", origin_host, reason, agent)
    print(f"{origin_host}: enabled")


def _change(path: Path, command: str, origin_host: str, reason: str, agent: str) -> None:
    ask_node(path, command, origin_host=origin_host, reason=reason, agent=agent)
