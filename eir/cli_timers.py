"""The command line's part for timers: `eir grey`, `eir why` and `eir store`.

Asks the running node over its local socket; registered by `cli`.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from eir import _core, config
from eir.cli_options import DEFAULT_CONFIG, CommandError, ConfigOption, JsonOption, ask_node

grey_cli = typer.Typer(no_args_is_help=True, help="Timers of temporary access: look at them and change them.")
store_cli = typer.Typer(no_args_is_help=True, help="The store of timers.")

_LONG = 1800.0
"""Seconds that a question about all timers may take."""
_DEVICES = 1000
"""Devices of one question."""

ReasonOption = Annotated[str, typer.Option(help="Why; kept in the audit trail.")]
AgentOption = Annotated[
    str, typer.Option(envvar="EIR_AGENT", help="Who; the login name if not given.", default_factory=getpass.getuser)
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")]
UnmaskOption = Annotated[bool, typer.Option("--unmask", help="Show subscribers' numbers whole.")]
DevicesArgument = Annotated[list[str] | None, typer.Argument(help="IMEIs.")]
FileOption = Annotated[Path | None, typer.Option("--file", exists=True, dir_okay=False, help="More IMEIs, one a line.")]
DayOption = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"])]


def _zone(path: Path) -> Any:
    from zoneinfo import ZoneInfo

    return ZoneInfo(config.load(path)[1].timezone)


def _when(seconds: int | None, zone: Any) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, zone).strftime("%Y-%m-%d %H:%M:%S")


def _key(text: str) -> str:
    try:
        return _core.imei_key(text)
    except ValueError as error:
        raise CommandError(f"{text}: {error}") from error


@grey_cli.command("list")
def grey_list(
    state: Annotated[str | None, typer.Option(help="running, frozen, lifted or expired; all if not given.")] = None,
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="Last day of access.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day of access.")] = None,
    most: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    as_json: JsonOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """List timers; with --json one object a line."""
    if state not in (None, "running", "frozen", "lifted", "expired"):
        raise CommandError(f"{state!r} is no state of a timer")
    zone, shown = _zone(path), 0
    bounds = {name: day.date().isoformat() for name, day in (("first", first), ("last", last)) if day is not None}
    for timer in _pages(path, most, state=state, **bounds):
        shown += 1
        if as_json:
            print(json.dumps(timer))
        else:
            until = timer["last_day"] or "no end"
            since = _when(timer["start"], zone)
            print(
                f"{timer['imei']}  {timer['state']:<8} since {since}  until {until}  {timer['subscribers']} subscribers"
            )
    if shown == most and not as_json:
        print(f"... the first {most}; --most for more")


def _pages(path: Path, most: int, **ask: Any) -> Iterator[dict[str, Any]]:
    after = None
    while most > 0:
        told = ask_node(path, "grey-list", patience=_LONG, most=min(most, 1000), after=after, **ask)
        yield from told["timers"][:most]
        most -= len(told["timers"])
        after = told["next"]
        if after is None:
            return


@grey_cli.command("show")
def grey_show(
    imei: str, unmask: UnmaskOption = False, as_json: JsonOption = False, path: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Show one device's timer, what was done to it, and the subscribers seen in it."""
    told = ask_node(path, "grey-show", imei=_key(imei), unmask=unmask)
    if as_json:
        print(json.dumps(told))
    else:
        _show_device(told, _zone(path))


def _show_device(told: dict[str, Any], zone: Any) -> None:
    timer = told["timer"]
    if timer is None:
        print("no timer")
    else:
        until = f"access until {timer['last_day']} inclusive" if timer["last_day"] else "no end"
        print(f"timer {timer['state']}, since {_when(timer['start'], zone)}, {until}")
    for start in told["starts"]:
        print(f"  {_when(start, zone)}  first attach recorded")
    for act in told["acts"]:
        days = f" by {act['days']} days" if act["days"] else ""
        print(f"  {_when(act['at'], zone)}  {act['act']}{days}, {act['agent']}: {act['reason']}")
    for shift in told["shifts"]:
        print(f"  {_when(shift['at'], zone)}  shifted by {shift['days']} days, {shift['agent']}: {shift['reason']}")
    if told["national"]:
        print(f"  national database: until {_when(told['national']['deadline'], zone)}")
    if told["expiry_noted_at"]:
        print(f"  {_when(told['expiry_noted_at'], zone)}  ran out")
    if told["last_end"]:
        print(f"  {_when(told['last_end']['at'], zone)}  the timer before ended: {told['last_end']['why']}")
    for subscriber in told["subscribers"]:
        number = f", {subscriber['msisdn']}" if subscriber["msisdn"] else ""
        print(f"  subscriber {subscriber['imsi']}{number}")
    if told["subscribers_error"]:
        print(f"  the directory of subscribers: {told['subscribers_error']}")


@grey_cli.command("extend")
def grey_extend(
    days: Annotated[int, typer.Option(min=1, help="Calendar days; from today on where the timer has run out.")],
    reason: ReasonOption,
    agent: AgentOption,
    imeis: DevicesArgument = None,
    file: FileOption = None,
    dry_run: DryRunOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Give timers more days."""
    _act(path, "extend", imeis, file, dry_run, days=days, agent=agent, reason=reason)


@grey_cli.command("freeze")
def grey_freeze(
    reason: ReasonOption,
    agent: AgentOption,
    imeis: DevicesArgument = None,
    file: FileOption = None,
    dry_run: DryRunOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Stop the clock: access goes on, and the days that are left stay, until it is unfrozen."""
    _act(path, "freeze", imeis, file, dry_run, agent=agent, reason=reason)


@grey_cli.command("unfreeze")
def grey_unfreeze(
    reason: ReasonOption,
    agent: AgentOption,
    imeis: DevicesArgument = None,
    file: FileOption = None,
    dry_run: DryRunOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Let the clock go on, with the days that were left."""
    _act(path, "unfreeze", imeis, file, dry_run, agent=agent, reason=reason)


@grey_cli.command("lift")
def grey_lift(
    reason: ReasonOption,
    agent: AgentOption,
    imeis: DevicesArgument = None,
    file: FileOption = None,
    dry_run: DryRunOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Take the deadline away: access without end, until a list speaks of the device or the timer is extended."""
    _act(path, "lift", imeis, file, dry_run, agent=agent, reason=reason)


def _act(path: Path, kind: str, imeis: list[str] | None, file: Path | None, dry_run: bool, **ask: Any) -> None:
    given = [*(imeis or []), *(file.read_text().split() if file is not None else [])]
    keys = list(dict.fromkeys(_key(text) for text in given))
    if not keys:
        raise CommandError("no IMEI is given")
    done = without = 0
    in_force = True
    for first in range(0, len(keys), _DEVICES):
        told = ask_node(path, "grey-act", act=kind, imeis=keys[first : first + _DEVICES], dry_run=dry_run, **ask)
        for row in told.get("timers", ()):
            print(f"{row['imei']}  {_brief(row['before'])}  ->  {_brief(row['after'])}")
        for imei in told.get("without", ()):
            print(f"{imei}  has no timer, or none that can be frozen")
        done += len(told.get("timers", ()))
        without += len(told.get("without", ()))
        in_force = in_force and bool(told.get("in_force", True))
    print(f"{done} timers{' would be' if dry_run else ''} changed, {without} devices have none")
    _tell_if_waiting(in_force)
    if without and not done:
        raise typer.Exit(1)


def _brief(timer: dict[str, Any]) -> str:
    return f"{timer['state']} until {timer['last_day'] or 'no end'}" if timer else "no timer"


def _tell_if_waiting(in_force: bool) -> None:
    if not in_force:
        print("recorded; it comes into force when the store has it")


@grey_cli.command("replace")
def grey_replace(
    old: str, new: str, reason: ReasonOption, agent: AgentOption, path: ConfigOption = DEFAULT_CONFIG
) -> None:
    """Carry a timer over to the IMEI that an authorised service centre has given the device."""
    told = ask_node(path, "grey-replace", old=_key(old), new=_key(new), agent=agent, reason=reason)
    print("carried over")
    _tell_if_waiting(told["in_force"])


@grey_cli.command("shift-deadlines")
def grey_shift(
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="Last day of access, the earliest.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day of access, the latest.")],
    days: Annotated[int, typer.Option(help="Calendar days, earlier if negative.")],
    reason: ReasonOption,
    agent: AgentOption,
    dry_run: DryRunOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Move the deadlines of many timers by a rule (an amnesty); `unshift` takes it back."""
    bounds = {"first": first.date().isoformat(), "last": last.date().isoformat()}
    told = ask_node(
        path, "grey-shift", patience=_LONG, days=days, agent=agent, reason=reason, dry_run=dry_run, **bounds
    )
    _show_shifted(told)


@grey_cli.command("unshift")
def grey_unshift(
    identity: Annotated[str, typer.Argument(help="As `eir grey shifts` has it.")],
    reason: ReasonOption,
    agent: AgentOption,
    dry_run: DryRunOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Take a shift back."""
    told = ask_node(path, "grey-unshift", patience=_LONG, id=identity, agent=agent, reason=reason, dry_run=dry_run)
    _show_shifted(told)


def _show_shifted(told: dict[str, Any]) -> None:
    if told["recorded"]:
        print("done" if told["in_force"] else "recorded; deadlines are being moved, see `eir grey shifts`")
        return
    moved, over, back = told["moved"], told["would_expire"], told["would_return"]
    print(f"{moved} timers would move: {over} would run out, {back} would come back")
    for row in told["samples"]:
        print(f"  {row['imei']}  {_brief(row['before'])}  ->  {_brief(row['after'])}")


@grey_cli.command("shifts")
def grey_shifts(as_json: JsonOption = False, path: ConfigOption = DEFAULT_CONFIG) -> None:
    """List the shifts in force."""
    shifts, zone = ask_node(path, "grey-shifts"), _zone(path)
    for shift in shifts:
        if as_json:
            print(json.dumps(shift))
            continue
        under_way = "  (under way)" if shift["applied"] is False else ""
        span = f"{shift['first']} to {shift['last']} by {shift['days']} days"
        print(f"{shift['id']}  {_when(shift['at'], zone)}  {span}, {shift['agent']}: {shift['reason']}{under_way}")


def why(
    imei: str,
    imsi: Annotated[str | None, typer.Option(help="The subscriber, where the answer depends on it.")] = None,
    unmask: UnmaskOption = False,
    as_json: JsonOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Say why a device is answered as it is: rule, list entry, timer and its history, last answers."""
    told = ask_node(path, "why", imei=_key(imei), imsi=imsi, unmask=unmask)
    if as_json:
        print(json.dumps(told))
        return
    zone, verdict = _zone(path), told["verdict"]
    print(f"{told['imei']}  {verdict['status']}  by rule {verdict['rule']}")
    lists = told["lists"]
    print(f"lists: sequence {lists['sequence']} of {_when(lists['created_at'], zone)}" if lists else "no valid lists")
    if verdict["listing"] is not None:
        listed, reason, overlay = verdict["listing"]
        print(f"  listed {listed}{f' ({reason})' if reason else ''} by the {'operator' if overlay else 'snapshot'}")
    if verdict["range"] is not None:
        listed, reason = verdict["range"]
        print(f"  in a {listed} range{f' ({reason})' if reason else ''}")
    if told["device"] is not None:
        _show_device(told["device"], zone)
    if verdict["timer"] is not None and (told["device"] is None or told["device"]["timer"] is None):
        start, deadline = verdict["timer"]
        print(f"timer in memory since {_when(start, zone)}, deadline {_when(deadline, zone)}; not in the store")
    elif told["device"] is None:
        print("no timer")
    if told["store_error"]:
        print(f"the store of timers cannot be asked: {told['store_error']}")
    if told["last_seen"] is not None:
        print(f"last seen on {datetime.fromtimestamp(told['last_seen'] * 86400, UTC).date()} (UTC)")
    print("last answers that were not white:" if told["answers"] else "no answer lately that was not white")
    for answer in told["answers"]:
        subscriber = f"  subscriber {answer['imsi']}" if answer["imsi"] else ""
        print(f"  {_when(answer['at'], zone)}  {answer['status']}  by rule {answer['rule']}{subscriber}")


@store_cli.command("backup")
def store_backup(output: Path, path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Copy the running node's SQLite store into a file, whole and of one moment."""
    ask_node(path, "store-backup", patience=_LONG, path=str(output.absolute()))
    print(f"{output}: written")


@store_cli.command("check")
def store_check(path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Look at the whole store and say what is wrong with it."""
    problems = ask_node(path, "store-check", patience=_LONG)
    for problem in problems:
        print(problem)
    if problems:
        raise typer.Exit(1)
    print("sound")
