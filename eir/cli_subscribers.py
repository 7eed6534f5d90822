"""`eir subscribers`: the operator's directory of subscribers, filled and looked into. Needs no running node.

IMSI, MSISDN and IIN are personal data: shown only to who asks for that, and never in what is wrong with a row.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eir import config
from eir.cli_options import DEFAULT_CONFIG, CommandError, ConfigOption, JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from eir.subscribers.directory import Subscriber
    from eir.subscribers.importing import Report

subscribers_cli = typer.Typer(no_args_is_help=True, help="The directory of subscribers.")

_SHOWN = 20
_RedisOption = Annotated[str | None, typer.Option("--redis", envvar="EIR_REDIS_URL", help="URL of Redis.")]
_PrefixOption = Annotated[str, typer.Option("--prefix", help="What the names of keys in Redis begin with.")]


@subscribers_cli.command("import")
def subscribers_import(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    strict: Annotated[bool, typer.Option("--strict", help="Refuse the file at its first wrong row.")] = False,
    max_bad_share: Annotated[float, typer.Option(min=0, max=1, help="Wrong rows that the file may have.")] = 0.001,
    to_redis: Annotated[bool, typer.Option("--to-redis", help="Into Redis instead of the file.")] = False,
    redis_url: _RedisOption = None,
    prefix: _PrefixOption = "eir",
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Take over an export of all subscribers (CSV, also gzip), in place of those of before; whole or not at all.

    Columns by name, in any order: imsi, and any of msisdn, iin, language (kk, ru), m2m (0, 1). Comma or semicolon.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from eir.subscribers.importing import ImportRefused, Writer, import_file
    from eir.subscribers.sqlite_directory import SqliteWriter

    settings, _ = config.load(path)
    writer: Writer
    if to_redis:
        import redis

        from eir.subscribers.redis_directory import RedisWriter

        if redis_url is None:
            raise CommandError("--to-redis: say with --redis where that is")
        try:
            writer = RedisWriter(redis.Redis.from_url(redis_url), prefix)
        except ValueError as error:
            raise CommandError(f"--redis: {error}") from error
        target = "Redis"
    else:
        database = settings.path(settings.subscribers.database)
        writer = SqliteWriter(database)
        target = str(database)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    try:
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            task = progress.add_task(file.name, total=file.stat().st_size)
            report = import_file(
                file,
                writer,
                strict=strict,
                max_bad_share=max_bad_share,
                progress=lambda octets: progress.update(task, completed=octets),
            )
    except ImportRefused as error:
        raise CommandError(f"refused: {error}") from error
    _show_report(report, file, target, console)


def _show_report(report: Report, file: Path, target: str, console: Console) -> None:
    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    for line, reason in report.first_wrong[:_SHOWN]:
        say(f"{file}:{line}: {reason}", "yellow")
    if report.missing_columns:
        say(f"{file}: there is no column {', '.join(report.missing_columns)}", "yellow")
    if report.ignored_columns:
        say(f"{file}: ignored: {len(report.ignored_columns)} other columns", "yellow")
    say(
        f"{target}: {report.subscribers} subscribers from {report.rows} rows "
        f"({report.wrong} wrong, {report.duplicates} repeated; of those the last counts)"
    )


@subscribers_cli.command("show")
def subscribers_show(
    imsi: str,
    unmask: Annotated[bool, typer.Option("--unmask", help="Show the numbers.")] = False,
    redis_url: _RedisOption = None,
    prefix: _PrefixOption = "eir",
    as_json: JsonOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Say who holds an IMSI; numbers are masked. Exit code 1 if nobody is known."""
    import asyncio

    from eir.subscribers.directory import DirectoryError, is_imsi, mask

    settings, _ = config.load(path)
    if not is_imsi(imsi):
        raise CommandError("an IMSI is 6 to 15 digits")
    if settings.subscribers.source == "redis" and redis_url is None:
        raise CommandError("subscribers are in Redis: say with --redis where that is")
    database = settings.path(settings.subscribers.database)
    try:
        in_redis = redis_url if settings.subscribers.source == "redis" else None
        found = asyncio.run(_find(imsi, database, in_redis, prefix))
    except (DirectoryError, ValueError) as error:
        raise CommandError(str(error)) from error
    if found is None:
        raise CommandError("nobody is known to hold this IMSI")
    told = {
        "imsi": found.imsi if unmask else mask(found.imsi, shown_first=5),
        "msisdn": found.msisdn if unmask or found.msisdn is None else mask(found.msisdn),
        "iin": found.iin if unmask or found.iin is None else mask(found.iin),
        "language": found.language,
        "m2m": found.m2m,
    }
    if as_json:
        print(json.dumps(told))
        return
    for name, value in told.items():
        shown = ("yes" if value else "no") if isinstance(value, bool) else value or "-"
        print(f"{name:<9} {shown}")


async def _find(imsi: str, database: Path, redis_url: str | None, prefix: str) -> Subscriber | None:
    from eir.subscribers.directory import Directory
    from eir.subscribers.sqlite_directory import SqliteDirectory

    if redis_url is None:
        directory: Directory = SqliteDirectory(database)
        try:
            return (await directory.find([imsi])).get(imsi)
        finally:
            await directory.close()
    import redis.asyncio

    from eir.subscribers.redis_directory import RedisDirectory

    async with redis.asyncio.Redis.from_url(redis_url) as client:
        return (await RedisDirectory(client, prefix).find([imsi])).get(imsi)
