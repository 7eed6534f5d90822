"""`eir publisher`: the national side in small, for laboratories. Its directory has everything; no node is needed.

Commands work on the lists in the directory, whether `serve` runs or not: a running one sees what has changed.
"""

from __future__ import annotations

import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eir.cli_options import CommandError, JsonOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eir.publisher.book import Book
    from eir.publisher.packages import Packages

publisher_cli = typer.Typer(
    no_args_is_help=True, help="Publish lists, as the national database does; for laboratories."
)

_Directory = Annotated[
    Path, typer.Option("--directory", "-d", envvar="EIR_PUBLISHER", help="Where the publisher keeps everything.")
]
_Country = Annotated[str, typer.Option("--country", envvar="EIR_PUBLISHER_COUNTRY", help="Whose lists these are.")]
_HERE = Path("publisher")


def _book(directory: Path) -> Book:
    from eir.publisher.book import Book, BookError

    directory.mkdir(parents=True, exist_ok=True)
    try:
        return Book(directory / "lists.db")
    except BookError as error:
        raise CommandError(str(error)) from error


def _packages(directory: Path, country: str) -> Packages:
    from eir.lists import manifest as manifests
    from eir.publisher.packages import Packages

    file = directory / "key.pem"
    try:
        key = manifests.private_key(file.read_bytes())
    except FileNotFoundError:
        raise CommandError(f"{file} is not there: make one with `eir publisher key`") from None
    except ValueError as error:
        raise CommandError(f"{file}: {error}") from error
    return Packages(directory, country, key)


@publisher_cli.command("key")
def publisher_key(directory: _Directory = _HERE) -> None:
    """Make the key that packages are signed with, and print the public one, which nodes must trust."""
    import os

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    directory.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    try:
        descriptor = os.open(directory / "key.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(f"{directory / 'key.pem'} is there already") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(private)
    (directory / "key.pub").write_bytes(public)
    print(public.decode(), end="")


@publisher_cli.command("set")
def publisher_set(
    imei: str,
    listing: Annotated[str, typer.Argument(metavar="white|grey|black|none")],
    reason: Annotated[str, typer.Option(help="Why: up to 32 of a-z, 0-9 and -.")] = "",
    until: Annotated[str, typer.Option(help="The last day with access, YYYYMMDD; of grey devices.")] = "",
    directory: _Directory = _HERE,
) -> None:
    """Put a device on a list, or on none."""
    from eir import _core
    from eir.publisher import rows

    try:
        # A person's check digit must be right.
        number = _core.imei_key(imei)
        device = None if listing == "none" else rows.device(number, listing, reason, until)
    except ValueError as error:
        raise CommandError(str(error)) from error
    with closing(_book(directory)) as book:
        if device is None:
            book.remove(int(number))
        else:
            book.put([device])


@publisher_cli.command("import")
def publisher_import(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)],
    kind: Annotated[
        str, typer.Option(help="devices, pairs, ranges, allocated-tacs, exempt-tacs or exempt-imsis.")
    ] = "devices",
    replace: Annotated[bool, typer.Option("--replace", help="In place of all devices, or pairs, of before.")] = False,
    tac_as_of: Annotated[str, typer.Option(help="The date of a list of allocated TACs, YYYY-MM-DD.")] = "",
    directory: _Directory = _HERE,
) -> None:
    """Take over a CSV file (docs/formats.md), whole or not at all."""
    from datetime import UTC, datetime

    from eir.publisher import rows

    if kind not in ("devices", "pairs", *rows.WHOLE_KINDS):
        raise CommandError(f"{kind} is no kind of list")
    date = 0
    if kind == "allocated-tacs":
        try:
            date = int(datetime.strptime(tac_as_of, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
        except ValueError:
            raise CommandError("a list of allocated TACs needs its date: --tac-as-of YYYY-MM-DD") from None
    try:
        with closing(_book(directory)) as book:
            if kind == "devices":
                count = book.put(rows.read_devices(_lines(file)), replace=replace)
            elif kind == "pairs":
                count = book.put_pairs(rows.read_pairs(_lines(file)), replace=replace)
            else:
                count = book.put_others(kind, rows.read_others(kind, _lines(file)), date)
    except (rows.RowError, UnicodeDecodeError) as error:
        raise CommandError(f"{file}: {error}") from error
    print(f"{count} changed" if kind in ("devices", "pairs") else f"{count} rows")


def _lines(file: Path) -> Iterator[str]:
    import gzip

    with file.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(file, "rt", encoding="utf-8-sig") if compressed else file.open(encoding="utf-8-sig") as text:
        yield from text


@publisher_cli.command("publish")
def publisher_publish(directory: _Directory = _HERE, country: _Country = "kz") -> None:
    """Publish what has changed, as a delta where that can be."""
    import time

    packages = _packages(directory, country)
    with closing(_book(directory)) as book:
        sequence = packages.publish(book, int(time.time()))
    print("nothing has changed" if sequence is None else f"published {sequence}")


@publisher_cli.command("snapshot")
def publisher_snapshot(directory: _Directory = _HERE, country: _Country = "kz") -> None:
    """Publish what has changed, and all lists as they are now."""
    import time

    packages = _packages(directory, country)
    with closing(_book(directory)) as book:
        print(f"snapshot {packages.snapshot(book, int(time.time()))}")


@publisher_cli.command("reports")
def publisher_reports(as_json: JsonOption = False, directory: _Directory = _HERE) -> None:
    """Print what nodes have reported: how much, or all of it as JSON lines."""
    import json
    from collections import Counter

    import msgspec

    with closing(_book(directory)) as book:
        records = [msgspec.msgpack.decode(record) for _, _, record in book.reports()]
    if as_json:
        for record in records:
            print(json.dumps(record))
        return
    for (node, kind), count in sorted(Counter((record["node"], record["kind"]) for record in records).items()):
        print(f"{node}  {kind}  {count}")


@publisher_cli.command("serve")
def publisher_serve(
    listen: Annotated[str, typer.Option(help="HOST:PORT or [IPv6]:PORT; port 0: any.")] = "127.0.0.1:8080",
    broker: Annotated[str, typer.Option(help="The MQTT 5 broker, HOST:PORT; empty: none.")] = "",
    broker_tls: Annotated[bool, typer.Option("--broker-tls", help="TLS to the broker.")] = False,
    broker_ca: Annotated[Path | None, typer.Option(help="Who vouches for the broker (PEM).")] = None,
    broker_user: Annotated[str, typer.Option(help="Who the publisher is there.")] = "",
    broker_password_file: Annotated[Path | None, typer.Option(help="The first line is the password.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="The first line is what clients must show.")] = None,
    cert: Annotated[Path | None, typer.Option(help="The server's certificate (PEM): HTTPS.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    manual: Annotated[
        bool, typer.Option("--manual", help="Publish only when `eir publisher publish` says so.")
    ] = False,
    directory: _Directory = _HERE,
    country: _Country = "kz",
) -> None:
    """Serve packages over HTTP and announce deltas at a broker until SIGTERM; each change is published at once."""
    import asyncio
    import signal
    import ssl

    from eir import log
    from eir.config import parse_endpoint
    from eir.publisher.server import Broker, PublisherServer, Serving

    try:
        host, port = parse_endpoint(listen)
        tls = reached = None
        if cert is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(cert, key)
        if broker:
            name, _, number = broker.rpartition(":")
            context = ssl.create_default_context(cafile=broker_ca) if broker_tls else None
            password = _first_line(broker_password_file) or None
            reached = Broker(name.strip("[]"), int(number), broker_user or None, password, context)
    except ValueError as error:
        raise CommandError(str(error)) from error
    _book(directory).close()
    log.set_up("info")
    serving = Serving(str(host), port, country, not manual, _first_line(token_file), tls, reached)
    server = PublisherServer(serving, directory / "lists.db", _packages(directory, country))

    async def run() -> None:
        task = asyncio.ensure_future(server.run(lambda bound: print(f"ready {host}:{bound}", flush=True)))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
    sys.stdout.flush()


def _first_line(file: Path | None) -> str:
    return "" if file is None else file.read_text().partition("\n")[0].strip()
