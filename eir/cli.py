"""The command line.

`eir serve` runs the node; the others ask a running one over its local socket, or work on files. Imports what a command
needs when it runs: a node must be up in half a second.
"""

from __future__ import annotations

import getpass
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from eir import _core, cli_exchange, cli_lists, config, control
from eir.cli_audit import audit_cli
from eir.cli_exchange import TimezoneOption, zone_named
from eir.cli_options import (
    DEFAULT_CONFIG,
    CommandError,
    ConfigOption,
    FurtherFilesOption,
    JsonOption,
    list_files,
    new_console,
    when,
)
from eir.cli_peers import peers_cli
from eir.cli_publisher import publisher_cli
from eir.cli_sms import sms_cli
from eir.cli_subscribers import subscribers_cli
from eir.cli_timers import grey_cli, store_cli, why
from eir.cli_trace import trace
from eir.config import ConfigError
from eir.lists.package import TAC_KINDS

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
lists_cli = typer.Typer(no_args_is_help=True, help="Build lists and put them in force.")
config_cli = typer.Typer(no_args_is_help=True, help="Look at the configuration.")
breaker_cli = typer.Typer(no_args_is_help=True, help="The breaker that stops new timers.")
cli.add_typer(lists_cli, name="lists")
cli_lists.register(lists_cli)
cli_exchange.register(lists_cli)
cli.add_typer(config_cli, name="config")
cli.add_typer(breaker_cli, name="breaker")
cli.add_typer(grey_cli, name="grey")
cli.add_typer(store_cli, name="store")
cli.command()(why)
cli.command()(trace)
cli.add_typer(audit_cli, name="audit")
cli.add_typer(subscribers_cli, name="subscribers")
cli.add_typer(sms_cli, name="sms")
cli.add_typer(peers_cli, name="peers")
cli.add_typer(publisher_cli, name="publisher")


def main() -> None:
    """Entry point: errors that a person can mend are one line on standard error and exit code 1."""
    try:
        cli()
    except (CommandError, ConfigError, control.ControlError, _core.BuildError, _core.SnapshotError, OSError) as error:
        print(f"eir: {error}", file=sys.stderr)
        sys.exit(1)


def _ask(config_path: Path, command: str, /, **arguments: Any) -> Any:
    settings, _ = config.load(config_path)
    return control.ask(settings.path(settings.control.socket), command, **arguments)


@cli.command()
def serve(path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the node until SIGTERM; SIGHUP reloads peers, rules and lists."""
    import asyncio
    import signal

    from eir import log
    from eir.app import Application

    # Until the node listens to it: a reload that comes too early must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    log.set_up(config.load(path)[0].log.level)
    application = Application(path, announce=lambda line: print(line, flush=True))
    asyncio.run(application.run())


@cli.command()
def check(
    imei: str,
    imsi: Annotated[str | None, typer.Option(help="The subscriber, where the answer depends on it.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show every rule that was asked.")] = False,
    as_json: JsonOption = False,
    offline: Annotated[Path | None, typer.Option(help="Ask this snapshot file instead of the running node.")] = None,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Say what the node answers for a device now, and why. Starts nothing."""
    settings, country = config.load(path)
    try:
        key = _core.imei_key(imei)
        if offline is None:
            told = control.ask(settings.path(settings.control.socket), "check", imei=key, imsi=imsi)
        else:
            from eir.app import build_policy

            now = int(time.time())
            told = _core.Snapshot.open(offline).explain(key, imsi, build_policy(settings, country, now), now)
    except ValueError as error:
        raise CommandError(str(error)) from error
    if as_json:
        told = {"imei": key, **told}
        print(json.dumps(told if explain else {name: told[name] for name in ("imei", "status", "rule", "timer")}))
        return
    _show_check(key, told, country.timezone, explain)


def _show_check(imei: str, told: _core.Explanation, zone: str, explain: bool) -> None:
    colour = {"white": "green", "black": "red", "grey": "yellow"}.get(told["status"], "magenta")
    console = new_console()
    console.print(f"{imei}  [bold {colour}]{told['status']}[/]  by rule [bold]{told['rule']}[/]", highlight=False)
    if told["timer"] is not None:
        start, deadline = told["timer"]
        console.print(f"  timer since {when(start, zone)}, access until {when(deadline, zone)}", highlight=False)
    if not explain:
        return
    if told["listing"] is not None:
        listed, reason, overlay = told["listing"]
        source = "operator's entry" if overlay else "snapshot"
        console.print(f"  listed {listed} {f'({reason}) ' if reason else ''}by the {source}", highlight=False)
    if told["deadline"] is not None:
        console.print(f"  by the national database access until {when(told['deadline'], zone)}", highlight=False)
    if told["range"] is not None:
        listed, reason = told["range"]
        console.print(f"  in a {listed} range {f'({reason})' if reason else ''}", highlight=False)
    for number, rule in enumerate(told["asked"]):
        matched = "matches" if number == len(told["asked"]) - 1 else "does not match"
        console.print(f"  {rule:<18} {matched}", highlight=False)


@cli.command()
def status(path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Print the running node's lists and counters as JSON."""
    print(json.dumps(_ask(path, "status"), indent=2))


@cli.command()
def doctor(path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Look for what keeps, or will keep, the node from doing its work."""
    from eir.doctor import examine

    findings = list(examine(path))
    console = new_console()
    for finding in findings:
        mark = {"ok": "[green]ok[/]  ", "warn": "[yellow]warn[/]", "fail": "[red]FAIL[/]"}[finding.grade]
        console.print(f"{mark}  {finding.subject}: {finding.text}", highlight=False, soft_wrap=True)
    if any(finding.grade == "fail" for finding in findings):
        raise typer.Exit(1)


@cli.command()
def load(
    to: Annotated[str, typer.Option(help="The node: HOST:PORT or [IPv6]:PORT.")],
    window: Annotated[int | None, typer.Option(help="Closed loop: requests out at once on each connection.")] = None,
    rate: Annotated[int | None, typer.Option(help="Open loop: requests a second in all.")] = None,
    duration: Annotated[float, typer.Option(help="Seconds.")] = 10.0,
    connections: Annotated[int, typer.Option(help="Connections.")] = 1,
    imei_file: Annotated[Path | None, typer.Option("--imeis", help="Devices, one IMEI a line.")] = None,
    imei_range: Annotated[str, typer.Option("--range", help="Devices: FIRST-LAST, 14 digits each.")] = (
        "35900000000000-35900000999999"
    ),
    walk: Annotated[bool, typer.Option(help="Go through the range once, each device one request.")] = False,
    subscribers: Annotated[int, typer.Option(help="Test IMSIs (MCC 001) to name; 0: none.")] = 0,
    seed: Annotated[int, typer.Option(help="Equal seeds ask the same.")] = 1,
    busy_poll: Annotated[bool, typer.Option(help="Spin instead of sleeping: better times, a whole processor.")] = False,
    full: Annotated[bool, typer.Option(help="Requests with ten optional AVPs, Proxy-Info and Route-Record.")] = False,
    origin_prefix: Annotated[str, typer.Option(help="Origin-Hosts are PREFIX-0001.REALM and so on.")] = "load",
    realm: Annotated[str | None, typer.Option(help="Realm of both sides; epc.test and eir.test without.")] = None,
    tls: Annotated[bool, typer.Option(help="TLS from the first octet.")] = False,
    ca: Annotated[Path | None, typer.Option(help="Who vouches for the node (PEM); without, anyone may.")] = None,
    cert: Annotated[Path | None, typer.Option(help="The certificate to be shown to the node (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    server_name: Annotated[str | None, typer.Option(help="The name in the node's certificate; else HOST.")] = None,
    tls_version: Annotated[str | None, typer.Option(help="1.2 or 1.3 alone; both without.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Put load on a node and print its rate and answer times.

    With --rate, times count from when a request was due, so a node that stalls is charged for all it delayed.
    With --cert, the certificate must be valid for the Origin-Host: that of the first connection is load-0001.epc.test.
    """
    try:
        host, port = config.parse_endpoint(to)
        listed, span = None, None
        if imei_file is not None:
            listed = [int(_core.imei_key(line)) for line in imei_file.read_text().split()]
        else:
            first, _, last = imei_range.partition("-")
            span = (int(first), int(last) + 1)
        if (window is None) == (rate is None):
            raise CommandError("give one of --window and --rate")
        report = _core.run_load(
            host,
            port,
            window=window,
            rate=rate,
            duration=duration,
            connections=connections,
            imeis=listed,
            imei_range=span,
            walk=walk,
            imsis=(1_010_000_000_000, subscribers) if subscribers else None,
            seed=seed,
            busy_poll=busy_poll,
            realm=realm,
            origin_prefix=origin_prefix,
            full=full,
            tls=tls,
            ca_file=ca,
            certificate_file=cert,
            key_file=key,
            server_name=server_name,
            tls_version=tls_version,
        )
    except (ValueError, OverflowError) as error:
        raise CommandError(str(error)) from error
    if as_json:
        print(json.dumps({name: value for name, value in report.items() if name != "answers"}))
    else:
        _show_load(report)
    if report["lost"] or report["connections_lost"]:
        raise typer.Exit(1)


def _show_load(report: _core.LoadReport) -> None:
    from rich.table import Table

    table = Table(show_header=False)
    table.add_row("answers a second", f"{report['rate']:,.0f}")
    table.add_row("sent, answered, lost", f"{report['sent']:,}  {report['answered']:,}  {report['lost']:,}")
    if report["unsent"]:
        table.add_row("due and not sent", f"{report['unsent']:,}")
    table.add_row("white, grey, black", f"{report['white']:,}  {report['grey']:,}  {report['black']:,}")
    if report["errors"]:
        table.add_row("errors", ", ".join(f"{code}: {count:,}" for code, count in report["errors"].items()))
    for name in ("p50", "p90", "p99", "p999", "max"):
        nanoseconds = report[f"{name}_ns"]  # type: ignore[literal-required]
        table.add_row(name, f"{nanoseconds / 1000:,.1f} µs")
    if report["first_loss"]:
        table.add_row("connections lost", f"{report['connections_lost']}: {report['first_loss']}")
    new_console().print(table)


@config_cli.command("check")
def config_check(path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Say whether the node would start with this configuration."""
    from sms import setup

    settings, country = config.load(path)
    setup.read(path, settings)
    print(f"{path}: sound; {settings.node.origin_host}, {country.name}, {len(settings.diameter.peers)} peer entries")


_Files = Annotated[list[Path] | None, typer.Option(exists=True, dir_okay=False)]


@lists_cli.command("build")
def lists_build(
    output: Annotated[Path, typer.Option("--output", "-o", help="The snapshot file to write.")],
    sequence: Annotated[int, typer.Option(help="Which state of the national lists this is.")],
    devices: _Files = None,
    ranges: _Files = None,
    allocated_tacs: _Files = None,
    exempt_tacs: _Files = None,
    exempt_imsis: _Files = None,
    pairs: _Files = None,
    file: FurtherFilesOption = None,
    as_of: Annotated[datetime | None, typer.Option(help="When the lists were true, UTC; now if not given.")] = None,
    tac_as_of: Annotated[
        datetime | None, typer.Option(help="The allocated-TAC list's date, UTC; its file's date if not given.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a file at its first wrong row.")] = False,
    max_bad_share: Annotated[float, typer.Option(min=0, max=1, help="Wrong rows that a file may have.")] = 0.001,
    hard_reasons: Annotated[
        str, typer.Option(help="Black reasons that no exemption lifts, as the country's profile has them.")
    ] = "stolen,forged,court",
    timezone: TimezoneOption = "Asia/Almaty",
) -> None:
    """Compile list files (CSV, also gzip or zstd) into a snapshot.

    Each kind of file may be given more than once: devices (imei,list,reason[,until]), ranges (from,to,list,reason),
    allocated and exempt TACs (tac), exempt IMSI ranges (imsi_from,imsi_to) and pairs (imei,imsi); and with --file those
    that others make, as --file dirbs-blacklist=FILE.
    """
    from rich.console import Console

    from eir.lists.build import build, show

    given = {
        "devices": devices,
        "ranges": ranges,
        "allocated-tacs": allocated_tacs,
        "exempt-tacs": exempt_tacs,
        "exempt-imsis": exempt_imsis,
        "pairs": pairs,
    }
    files = list_files(given, file, "snapshot")
    tacs = [path for kind in TAC_KINDS for path in files.get(kind, ())]
    if tacs and tac_as_of is None:
        tac_as_of = datetime.fromtimestamp(min(path.stat().st_mtime for path in tacs), UTC)
    zone = zone_named(timezone)
    console = Console(stderr=True)
    try:
        report = build(
            files,
            output,
            strict=strict,
            max_bad_share=max_bad_share,
            sequence=sequence,
            created_at=_utc(as_of) if as_of else int(time.time()),
            tac_as_of=_utc(tac_as_of) if tac_as_of else 0,
            hard_reasons=[reason for reason in hard_reasons.split(",") if reason],
            zone=zone,
            console=console,
        )
    except (OverflowError, ValueError) as error:
        raise CommandError(f"a number is out of range: {error}") from error
    show(report, output, console)


def _utc(when: datetime) -> int:
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


@lists_cli.command("info")
def lists_info(snapshot: Path) -> None:
    """Check a snapshot file and print what it says of itself, as JSON."""
    info = _core.Snapshot.open(snapshot).info
    print(json.dumps({**info, "created": when(info["created_at"])}, indent=2))


@lists_cli.command("load")
def lists_load(
    snapshot: Annotated[Path | None, typer.Argument(help="The configured one if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Also an older one, or one without devices.")] = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Put a snapshot file in force in the running node, without a restart; a restart takes the configured one again."""
    file = str(snapshot.absolute()) if snapshot else None
    info = _ask(path, "lists-load", path=file, force=force, agent=getpass.getuser())
    print(f"sequence {info['sequence']} in force")


@breaker_cli.command("reset")
def breaker_reset(path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Let timers start again after the breaker has tripped."""
    _ask(path, "breaker-reset", agent=getpass.getuser())
    print("timers start again")


@breaker_cli.command("show")
def breaker_show(path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Say whether the breaker is tripped."""
    stats = _ask(path, "status")["stats"]
    state = "tripped: no timer starts" if stats["breaker_tripped"] else "closed: timers start"
    print(f"{state}; {stats['timers_running']} running")
