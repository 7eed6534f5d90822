"""`eir audit`: the audit trail checked and handed out. Works on the files, also while the node runs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import typer

from eir import _core, config
from eir.cli_options import DEFAULT_CONFIG, CommandError, ConfigOption, JsonOption, when

audit_cli = typer.Typer(no_args_is_help=True, help="Check the audit trail and hand it out.")

_COLUMNS = ("n", "at", "node", "kind", "agent", "imei", "reason", "details", "hash")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a text for a formula."""


@audit_cli.command("verify")
def audit_verify(
    witnessed: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="The witnessed.jsonl of another node, to compare with."),
    ] = None,
    as_json: JsonOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Check every line of this node's audit trail. Exit code 1, and the first break named, if it does not hold."""
    from eir.audit import read_witnessed, verify

    settings, _ = config.load(path)
    heads = [head for file in witnessed or () for head in read_witnessed(file)]
    found = verify(settings.path(settings.audit.directory), heads, settings.node.origin_host)
    broken = found.first_break
    if as_json:
        head = found.head._asdict() if found.head else None
        first_break = {**asdict(broken), "path": str(broken.path)} if broken else None
        told = {"sound": broken is None, "lines": found.lines, "head": head, "compared": found.compared}
        print(json.dumps({**told, "unfinished": found.unfinished, "first_break": first_break}))
    else:
        if broken:
            print(f"BROKEN at {broken}")
        last = f"; the last is {found.head.hash}" if found.head else ""
        print(f"{found.lines} lines are sound{last}")
        if heads:
            print(f"{found.compared} witnessed heads of this node compared, of {len(heads)} given")
        if found.unfinished:
            print(f"an append has not ended: {found.unfinished} octets")
    if broken:
        raise typer.Exit(1)


@audit_cli.command("export")
def audit_export(
    first: Annotated[str | None, typer.Option("--from", help="First day, or moment, in the country's time.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day, which is included, or moment.")] = None,
    imei: Annotated[str | None, typer.Option(help="Only what names this device.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only what this agent did.")] = None,
    form: Annotated[Literal["json", "csv"], typer.Option("--format", help="One JSON object a line, or CSV.")] = "json",
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Print the audit trail's lines, oldest first. In CSV a text that looks like a formula has ' before it."""
    from eir.audit import export

    settings, country = config.load(path)
    zone = ZoneInfo(country.timezone)
    try:
        first_at = _moment(first, zone) if first else None
        last_at = _moment(last, zone, is_end=True) if last else None
        key = _core.imei_key(imei) if imei else None
    except ValueError as error:
        raise CommandError(str(error)) from error
    lines = export(settings.path(settings.audit.directory), first_at, last_at, key, agent)
    if form == "csv":
        _print_csv(lines, country.timezone)
        return
    for line in lines:
        print(json.dumps(line, ensure_ascii=False))


def _moment(text: str, zone: ZoneInfo, is_end: bool = False) -> int:
    """Unix seconds of YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS; of a day its first second, or its last. Raises ValueError."""
    if len(text) == len("YYYY-MM-DD"):
        day = date.fromisoformat(text)
        if is_end:
            return int(datetime.combine(day + timedelta(days=1), time(), zone).timestamp()) - 1
        return int(datetime.combine(day, time(), zone).timestamp())
    found = datetime.fromisoformat(text)
    return int((found if found.tzinfo else found.replace(tzinfo=zone)).timestamp())


def _print_csv(lines: Iterable[Mapping[str, object]], zone: str) -> None:
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for line in lines:
        rest = {name: value for name, value in line.items() if name not in (*_COLUMNS, "prev")}
        at = line["at"]
        assert isinstance(at, int)
        shown = {**line, "at": when(at, zone), "details": json.dumps(rest, ensure_ascii=False) if rest else ""}
        rows.writerow([_cell(shown.get(name, "")) for name in _COLUMNS])


def _cell(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(_FORMULA) else text
