"""The command line of the national side in small: `eir publisher`. Registered by `cli`."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eir import _core
from eir.cli_options import CommandError
from eir.config import parse_endpoint

if TYPE_CHECKING:
    from eir.publisher.catalogue import Catalogue

publisher_cli = typer.Typer(no_args_is_help=True, help="The national database in small, for laboratories.")

_Directory = Annotated[Path, typer.Argument(help="Where its lists, packages and key are; made if not there.")]
_Country = Annotated[
    str | None, typer.Option(help="The country's name in manifests: kz where the directory is new and none is given.")
]


@contextmanager
def _catalogue(directory: Path, country: str | None) -> Iterator[Catalogue]:
    """The catalogue, and its errors for people."""
    from eir.publisher.catalogue import Catalogue

    try:
        catalogue = Catalogue(directory, country)
        try:
            yield catalogue
        finally:
            catalogue.close()
    except (ValueError, sqlite3.Error) as error:
        raise CommandError(f"{directory}: {error}") from error


@publisher_cli.command()
def key(directory: _Directory, country: _Country = None) -> None:
    """Make the key that signs, if there is none yet, and say where its public half is, for nodes to trust."""
    with _catalogue(directory, country):
        print(directory / "key.pub.pem")


@publisher_cli.command("set")
def set_(
    directory: _Directory,
    imei: str,
    listed: Annotated[Literal["white", "black", "grey", "none"], typer.Argument(help="What it is to be.")],
    reason: Annotated[str, typer.Option(help="Why, in a-z, 0-9 and -.")] = "",
    until: Annotated[str, typer.Option(help="The last day of a grey device, YYYYMMDD or YYYY-MM-DD.")] = "",
    country: _Country = None,
) -> None:
    """Change what is said of one device: a delta of its own."""
    from eir.publisher.catalogue import Change

    try:
        wanted = None if listed == "none" else listed
        change = Change(int(_core.imei_key(imei)), wanted, reason.lower(), until.replace("-", ""))
    except ValueError as error:
        raise CommandError(str(error)) from error
    with _catalogue(directory, country) as catalogue:
        print(f"sequence {catalogue.change([change])}")


@publisher_cli.command("import")
def import_(
    directory: _Directory,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    country: _Country = None,
) -> None:
    """Take a file of devices (imei,list,reason[,until]) over: one delta."""
    from eir.publisher.catalogue import read_changes

    with _catalogue(directory, country) as catalogue, file.open(encoding="utf-8-sig", newline="") as lines:
        try:
            sequence = catalogue.change(read_changes(lines))
        except ValueError as error:
            raise CommandError(f"{file}: {error}") from error
        print(f"sequence {sequence}")


@publisher_cli.command()
def snapshot(directory: _Directory, country: _Country = None) -> None:
    """Make a snapshot of all lists as they are now."""
    with _catalogue(directory, country) as catalogue:
        print(f"snapshot {catalogue.make_snapshot()}")


@publisher_cli.command()
def serve(
    directory: _Directory,
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0: any.")] = "127.0.0.1:8088",
    mqtt: Annotated[str, typer.Option(help="HOST:PORT of an MQTT 5 broker; empty: none.")] = "",
    every: Annotated[
        float, typer.Option(min=1.0, help="Seconds without a change after which a delta says that there is none.")
    ] = 3600.0,
    country: _Country = None,
) -> None:
    """Serve packages over HTTP, publish deltas at a broker, and take reports, until SIGTERM."""
    from eir.publisher.server import Publisher

    try:
        host, port = parse_endpoint(listen)
        endpoint = parse_endpoint(mqtt) if mqtt else None
    except ValueError as error:
        raise CommandError(str(error)) from error
    broker = (str(endpoint[0]), endpoint[1]) if endpoint else None

    async def run(catalogue: Catalogue) -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        publisher = Publisher(catalogue, broker)
        runner, bound = await publisher.serve(str(host), port)
        print(f"publisher ready http={host}:{bound} key={directory / 'key.pub.pem'}", flush=True)
        tasks = [asyncio.create_task(publisher.tell(every))]
        if broker:
            tasks.append(asyncio.create_task(publisher.publish()))
        await stopping.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()

    with _catalogue(directory, country) as catalogue:
        asyncio.run(run(catalogue))
