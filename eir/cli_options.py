"""What the command line's modules share: options, the error for people, how a time and a console look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eir import config, control
from eir.lists.package import DELTA_KINDS, SNAPSHOT_KINDS, PackageKind, is_kind

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_CONFIG = Path("/etc/eir/eir.toml")

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="EIR_CONFIG", help="The configuration file.", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]

FurtherFilesOption = Annotated[
    list[str] | None,
    typer.Option("--file", metavar="KIND=PATH", help="A file of any kind (docs/formats.md); may be given repeatedly."),
]


class CommandError(Exception):
    """A command cannot do what it was asked; the text is for the person who asked."""


def ask_node(path: Path, command: str, /, *, patience: float = 60.0, **arguments: Any) -> Any:
    """What the running node answers to a command that may take so many seconds. Raises ControlError, ConfigError."""
    settings, _ = config.load(path)
    return control.ask_patiently(settings.path(settings.control.socket), patience, command, **arguments)


def list_files(
    own: Mapping[str, Sequence[Path] | None], further: Sequence[str] | None, package: PackageKind
) -> dict[str, list[Path]]:
    """The files that were named, by kind: those of options of their own, and those of `FurtherFilesOption`."""
    found = {kind: list(paths) for kind, paths in own.items() if paths}
    for text in further or ():
        kind, _, path = text.partition("=")
        if not is_kind(kind, package):
            known = DELTA_KINDS if package == "delta" else (*SNAPSHOT_KINDS, "seen-before-YYYY-MM-DD")
            raise CommandError(f"--file {text}: not KIND=PATH of a {package}, whose kinds are {', '.join(known)}")
        if not Path(path).is_file():
            raise CommandError(f"--file {text}: there is no such file")
        found.setdefault(kind, []).append(Path(path))
    if not found:
        raise CommandError("no list file is given")
    return found


def new_console() -> Console:
    """Standard output for people."""
    from rich.console import Console

    return Console()


def when(seconds: int, zone: str = "UTC") -> str:
    """Unix seconds as people write them, in this time zone."""
    from zoneinfo import ZoneInfo

    return datetime.fromtimestamp(seconds, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S %Z")
