"""The command line's part for lists in force: `eir lists import|approve|rollback|follow|history|own`.

Asks the running node over its local socket.

Registered by `cli`. What these change is made durable and put in force by the node, and is on its audit trail.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from eir.cli_options import (
    DEFAULT_CONFIG,
    CommandError,
    ConfigOption,
    FurtherFilesOption,
    JsonOption,
    ask_node,
    list_files,
    new_console,
)
from eir.cli_timers import AgentOption, ReasonOption
from eir.lists.package import TAC_KINDS

own_cli = typer.Typer(no_args_is_help=True, help="The operator's own entries, above the national lists.")

_Files = Annotated[list[Path] | None, typer.Option(exists=True, dir_okay=False)]
_Kind = Annotated[Literal["snapshot", "delta"], typer.Argument(help="What it is.")]
_Sequence = Annotated[int, typer.Argument(min=0, help="Its sequence.")]
_PATIENCE = 3600.0
"""Seconds that an import may take."""


def register(lists_cli: typer.Typer) -> None:
    """Adds the commands to those of `eir lists`."""
    lists_cli.add_typer(own_cli, name="own")
    for name, command in (
        ("import", import_lists),
        ("approve", approve),
        ("rollback", rollback),
        ("follow", follow),
        ("history", history),
    ):
        lists_cli.command(name)(command)


def import_lists(
    agent: AgentOption,
    reason: ReasonOption,
    devices: _Files = None,
    ranges: _Files = None,
    allocated_tacs: _Files = None,
    exempt_tacs: _Files = None,
    exempt_imsis: _Files = None,
    pairs: _Files = None,
    file: FurtherFilesOption = None,
    sequence: Annotated[int | None, typer.Option(min=0, help="Which state this is; the next if not given.")] = None,
    delta: Annotated[bool, typer.Option("--delta", help="The files are changes (change_type,...).")] = False,
    as_of: Annotated[datetime | None, typer.Option(help="When this was true, UTC; now if not given.")] = None,
    tac_as_of: Annotated[datetime | None, typer.Option(help="When the allocated TACs were true, UTC.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    force: Annotated[bool, typer.Option("--approve", help="Also where the guard would refuse it.")] = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Put list files in force in the running node: all lists anew, or with --delta changes to them."""
    given = {
        "devices": devices,
        "ranges": ranges,
        "allocated-tacs": allocated_tacs,
        "exempt-tacs": exempt_tacs,
        "exempt-imsis": exempt_imsis,
        "pairs": pairs,
    }
    found = list_files(given, file, "delta" if delta else "snapshot")
    files = [(kind, str(one.absolute())) for kind, paths in found.items() for one in paths]
    if any(kind in TAC_KINDS for kind in found) and tac_as_of is None:
        raise CommandError("allocated TACs need --tac-as-of")
    told = ask_node(
        path,
        "lists-import",
        patience=_PATIENCE,
        files=files,
        delta=delta,
        sequence=sequence,
        as_of=_utc(as_of),
        tac_as_of=_utc(tac_as_of),
        dry_run=dry_run,
        approve=force,
        agent=agent,
        reason=reason,
    )
    _show(told, dry_run)


def approve(
    kind: _Kind, sequence: _Sequence, agent: AgentOption, reason: ReasonOption, path: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Take a package that the guard has refused."""
    told = ask_node(path, "lists-approve", patience=_PATIENCE, kind=kind, sequence=sequence, agent=agent, reason=reason)
    _show(told, False)


def rollback(
    sequence: _Sequence, agent: AgentOption, reason: ReasonOption, path: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Go back to a state that is kept, and hold it until `eir lists follow`."""
    print(ask_node(path, "lists-rollback", patience=_PATIENCE, sequence=sequence, agent=agent, reason=reason))


def follow(agent: AgentOption, reason: ReasonOption, path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Take what comes from the national database again, after a rollback."""
    print(ask_node(path, "lists-follow", agent=agent, reason=reason))


def history(as_json: JsonOption = False, path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Show what came into force and what was refused, the last at the end."""
    told = ask_node(path, "lists-history")
    if as_json:
        print(json.dumps(told))
        return
    for line in told["history"]:
        approved = ", approved" if line.get("approved") else ""
        print(f"{_when(line['at'])}  {line['what']} {line['sequence']} by {line['by']}{approved}  {line['told']}")
    for refused in told["refused"]:
        print(f"waits for `eir lists approve {refused['kind']} {refused['sequence']}`: {'; '.join(refused['reasons'])}")


@own_cli.command("add")
def own_add(
    imei: str,
    listed: Annotated[Literal["white", "black", "grey", "unlisted"], typer.Argument(help="What it is to be.")],
    agent: AgentOption,
    reason: ReasonOption,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Say of one device what counts above the national lists, at once and until it is removed."""
    ask_node(path, "lists-set", imei=imei, change=listed, reason=reason, agent=agent)
    print(f"{imei}: {listed}")


@own_cli.command("remove")
def own_remove(imei: str, agent: AgentOption, reason: ReasonOption, path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Take an entry away: the national lists count again."""
    ask_node(path, "lists-set", imei=imei, change="withdrawn", reason=reason, agent=agent)
    print(f"{imei}: as the national lists have it")


@own_cli.command("replace")
def own_replace(
    old: str, new: str, agent: AgentOption, reason: ReasonOption, path: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Carry listing and timer of a device over to the IMEI that a service centre has given it; the old one is black."""
    told = ask_node(path, "lists-replace", old=old, new=new, reason=reason, agent=agent)
    print(f"{told['new']} has what {told['old']} had: {', '.join(told['carried'])}")


@own_cli.command("list")
def own_list(as_json: JsonOption = False, path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Show all entries, with who made each."""
    entries: list[dict[str, Any]] = ask_node(path, "lists-own", patience=60.0)
    if as_json:
        print(json.dumps(entries))
        return
    from rich.table import Table

    table = Table("IMEI", "list", "reason", "by", "since", box=None, pad_edge=False)
    for entry in entries:
        since = _when(entry["at"]) if entry["at"] else ""
        table.add_row(entry["imei"], entry["list"] or "unlisted", entry["reason"], entry["agent"], since)
    new_console().print(table)


def _show(told: dict[str, Any], dry_run: bool) -> None:
    if told["result"] != "applied":
        raise CommandError(f"sequence {told['sequence']}: {told['result']}: {told['reason']}")
    print(f"sequence {told['sequence']} {'would be' if dry_run else 'is'} in force: {told['reason']}")


def _utc(when: datetime | None) -> int | None:
    return None if when is None else int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


def _when(at: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))
