"""What the command line's modules share: options, the error for people, how a time and a console look."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eir import config, control

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_CONFIG = Path("/etc/eir/eir.toml")

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="EIR_CONFIG", help="The configuration file.", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


class CommandError(Exception):
    """A command cannot do what it was asked; the text is for the person who asked."""


def ask_node(path: Path, command: str, /, *, patience: float = 60.0, **arguments: Any) -> Any:
    """What the running node answers to a command that may take so many seconds. Raises ControlError, ConfigError."""
    settings, _ = config.load(path)
    return control.ask_patiently(settings.path(settings.control.socket), patience, command, **arguments)


def new_console() -> Console:
    """Standard output for people."""
    from rich.console import Console

    return Console()


def when(seconds: int, zone: str = "UTC") -> str:
    """Unix seconds as people write them, in this time zone."""
    from zoneinfo import ZoneInfo

    return datetime.fromtimestamp(seconds, ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M:%S %Z")
