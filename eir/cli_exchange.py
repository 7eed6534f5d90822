"""The command line's part for snapshots as files: `eir lists export|diff|verify`.

Registered by `cli`. Works on files alone and asks no node.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from eir import _core
from eir.cli_options import CommandError, JsonOption

ExportKind = Literal[
    "devices",
    "ranges",
    "allocated-tacs",
    "exempt-tacs",
    "exempt-imsis",
    "pairs",
    "plain-white",
    "plain-black",
    "plain-grey",
    "dirbs-blacklist",
    "dirbs-exceptions",
    "dirbs-notifications",
    "stolen",
    "barred",
    "barred-tac",
    "golden",
    "registration",
    "pairing",
    "gsma-tac",
]
TimezoneOption = Annotated[
    str, typer.Option(help="In which dates of devices (column until) are meant, as the country's profile has it.")
]
_Snapshot = Annotated[Path, typer.Argument(help="A snapshot file.")]


def register(lists_cli: typer.Typer) -> None:
    """Adds the commands to those of `eir lists`."""
    for name, command in (("export", export), ("diff", diff), ("verify", verify)):
        lists_cli.command(name)(command)


def zone_named(name: str) -> ZoneInfo:
    """The zone of that name."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, ZoneInfoNotFoundError) as error:
        raise CommandError(f"timezone: {error}") from error


def export(
    kind: Annotated[ExportKind, typer.Argument(help="What to write (docs/formats.md).")],
    snapshot: _Snapshot,
    output: Annotated[Path, typer.Option("--output", "-o", help="Packed where its name ends in .gz or .zst.")],
    timezone: TimezoneOption = "Asia/Almaty",
) -> None:
    """Write one kind of a snapshot's rows as a list file, for `eir lists build` or for DIRBS."""
    from eir.lists.zone import transitions

    zone = transitions(zone_named(timezone))
    rows = _core.Snapshot.open(snapshot).export(kind, output, zone=zone)
    print(f"{output}: {rows} rows")


def diff(
    old: _Snapshot,
    new: _Snapshot,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the delta of devices (CSV, also .gz or .zst).")
    ] = None,
    pairs: Annotated[Path | None, typer.Option("--pairs", help="Also write the delta of pairs.")] = None,
    dirbs_blacklist: Annotated[
        Path | None, typer.Option("--dirbs-blacklist", help="Also write what is blocked, and no more, as DIRBS does.")
    ] = None,
    dirbs_notifications: Annotated[
        Path | None, typer.Option("--dirbs-notifications", help="Also write what will be blocked, as DIRBS does.")
    ] = None,
    dirbs_exceptions: Annotated[
        Path | None, typer.Option("--dirbs-exceptions", help="Also write the delta of pairs, as DIRBS does.")
    ] = None,
    as_json: JsonOption = False,
    timezone: TimezoneOption = "Asia/Almaty",
) -> None:
    """Say how two snapshots differ, and write the delta that leads from the one to the other.

    `eir lists import --delta --file KIND=FILE` takes what is written, of the kinds devices, pairs, dirbs-blacklist,
    dirbs-notifications and dirbs-exceptions.
    """
    from eir.lists.zone import transitions

    zone = transitions(zone_named(timezone))
    before, after = _core.Snapshot.open(old), _core.Snapshot.open(new)
    found = _core.compare(before, after)
    if as_json:
        print(json.dumps(found))
    else:
        _show(found)
    for kind, path in (
        ("devices", output),
        ("pairs", pairs),
        ("dirbs-blacklist", dirbs_blacklist),
        ("dirbs-notifications", dirbs_notifications),
        ("dirbs-exceptions", dirbs_exceptions),
    ):
        if path is not None:
            _core.write_delta(before, after, kind, path, zone=zone)


def verify(snapshot: _Snapshot) -> None:
    """Check every octet of a snapshot file, and count its devices anew."""
    opened = _core.Snapshot.open(snapshot)
    counts = opened.info["counts"]
    expected = {"white": counts["white"], "black": counts["black"], "grey": counts["grey"]}
    found = dict.fromkeys(expected, 0)
    for name, _, count in _core.compare(opened, opened)["moved"]:
        found[name] = count
    if found != expected:
        raise CommandError(f"{snapshot}: there are {_counts(found)} in it, and {_counts(expected)} by its header")
    print(f"{snapshot}: sequence {opened.info['sequence']}, sound: {_counts(found)}")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _show(found: _core.Comparison) -> None:
    moved = [(before, after, count) for before, after, count in found["moved"] if before != after]
    for before, after, count in moved:
        print(f"{before} -> {after}: {count}")
    if found["changed"]:
        print(f"same list, other reason or date: {found['changed']}")
    if found["pairs_gone"] or found["pairs_come"]:
        print(f"pairs: {found['pairs_gone']} gone, {found['pairs_come']} new")
    if found["others"]:
        names = ", ".join(name.replace("_", " ") for name in found["others"])
        print(f"differ too, which no delta brings: {names}")
    if not (moved or found["changed"] or found["pairs_gone"] or found["pairs_come"] or found["others"]):
        print("no difference")
