"""The command line of the national side in small: `eir publisher`. Registered by `cli`."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated, Literal

import typer

from eir import _core
from eir.cli_options import CommandError
from eir.config import parse_endpoint

publisher_cli = typer.Typer(no_args_is_help=True, help="The national database in small, for laboratories.")

_Directory = Annotated[Path, typer.Argument(help="Where its lists, packages and key are; made if not there.")]
_Country = Annotated[str, typer.Option(help="The country's name in manifests.")]


@publisher_cli.command("set")
def set_(
    directory: _Directory,
    imei: str,
    listed: Annotated[Literal["white", "black", "grey", "none"], typer.Argument(help="What it is to be.")],
    reason: Annotated[str, typer.Option(help="Why, in a-z, 0-9 and -.")] = "",
    until: Annotated[str, typer.Option(help="The last day of a grey device, YYYYMMDD.")] = "",
    country: _Country = "kz",
) -> None:
    """Change what is said of one device: a delta of its own."""
    from eir.publisher.catalogue import Catalogue, Change

    try:
        change = Change(int(_core.imei_key(imei)), None if listed == "none" else listed, reason, until)
    except ValueError as error:
        raise CommandError(str(error)) from error
    print(f"sequence {Catalogue(directory, country).change([change])}")


@publisher_cli.command("import")
def import_(
    directory: _Directory,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    country: _Country = "kz",
) -> None:
    """Take a file of devices (imei,list,reason[,until]) over: one delta."""
    from eir.publisher.catalogue import Catalogue, read_changes

    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            print(f"sequence {Catalogue(directory, country).change(read_changes(lines))}")
    except (ValueError, UnicodeDecodeError) as error:
        raise CommandError(f"{file}: {error}") from error


@publisher_cli.command()
def snapshot(directory: _Directory, country: _Country = "kz") -> None:
    """Make a snapshot of all lists as they are now."""
    from eir.publisher.catalogue import Catalogue

    print(f"snapshot {Catalogue(directory, country).make_snapshot()}")


@publisher_cli.command()
def serve(
    directory: _Directory,
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0: any.")] = "127.0.0.1:8088",
    mqtt: Annotated[str, typer.Option(help="HOST:PORT of an MQTT 5 broker; empty: none.")] = "",
    country: _Country = "kz",
) -> None:
    """Serve packages over HTTP, publish deltas at a broker, and take reports, until SIGTERM."""
    from eir.publisher.catalogue import Catalogue
    from eir.publisher.server import Publisher

    try:
        host, port = parse_endpoint(listen)
        broker = tuple(map(str, parse_endpoint(mqtt))) if mqtt else None
    except ValueError as error:
        raise CommandError(str(error)) from error

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        publisher = Publisher(Catalogue(directory, country), country, (broker[0], int(broker[1])) if broker else None)
        runner, bound = await publisher.serve(str(host), port)
        print(f"publisher ready http={host}:{bound} key={directory / 'key.pub.pem'}", flush=True)
        publishing = asyncio.create_task(publisher.publish()) if broker else None
        await stopping.wait()
        if publishing is not None:
            publishing.cancel()
        await runner.cleanup()

    asyncio.run(run())
