"""The command line's part for short messages: `eir sms`. `preview` works on the file of texts and needs no node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from eir import _core, config
from eir.cli_options import DEFAULT_CONFIG, CommandError, ConfigOption, JsonOption

if TYPE_CHECKING:
    from sms.segment import Concatenation, Segments
    from sms.templates import Answer, Kind, Templates, Values

sms_cli = typer.Typer(no_args_is_help=True, help="Short messages to subscribers.")

_LANGUAGES = ("kk", "ru")
_Known = tuple[str, "Values"]


@sms_cli.callback()
def _sms() -> None:
    """Short messages to subscribers."""


@sms_cli.command()
def preview(
    kind: Annotated[str, typer.Argument(help="What happened, or an answer: reminder, how-to-verify...; all: each.")],
    language: Annotated[Literal["kk", "ru", "both"], typer.Option(help="As the subscriber's.")] = "both",
    style: Annotated[Literal["friendly", "legal"], typer.Option(help="Wording.")] = "friendly",
    imei: Annotated[str, typer.Option(help="14 digits, 15 with the check digit, or 16.")] = "35900100000003",
    msisdn: Annotated[str, typer.Option(help="The subscriber's number; empty: unknown.")] = "77000000001",
    iin: Annotated[str, typer.Option(help="The subscriber's IIN; empty: unknown.")] = "123456789012",
    date: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="Last day of access.", show_default="2026-12-31")
    ] = datetime(2026, 12, 31),
    obligations_link: Annotated[
        str, typer.Option(help="The operator's terms, for the legal style.")
    ] = "https://operator.example/terms",
    concatenation: Annotated[
        Literal["udh8", "udh16", "sar", "payload"], typer.Option(help="How the SMSC is told of parts.")
    ] = "udh8",
    coding: Annotated[Literal["auto", "gsm7", "ucs2"], typer.Option(help="Alphabet.")] = "auto",
    texts: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="File of texts; sms/COUNTRY.toml beside the configuration file if not given."
        ),
    ] = None,
    as_json: JsonOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Show a text as a phone will, cut into its parts, and what it is where IIN or number are unknown."""
    from sms.setup import read_texts
    from sms.templates import ANSWERS, KINDS, TemplateError, Values

    kinds = [known for known in (*KINDS, *ANSWERS) if kind in (known, "all")]
    if not kinds:
        raise CommandError(f"{kind!r} is none of {', '.join((*KINDS, *ANSWERS))}, all")
    file = _texts_file(path) if texts is None else texts
    languages = _LANGUAGES if language == "both" else (language,)
    try:
        loaded = read_texts(file, style, obligations_link, languages)
        key = _core.imei_key(imei)
    except (TemplateError, ValueError) as error:
        raise CommandError(str(error)) from error
    values = Values(key, msisdn, iin, date.date())
    for shown, in_language in product(kinds, languages):
        told = _told(loaded, shown, in_language, values, concatenation, coding)
        print(json.dumps(told, ensure_ascii=False)) if as_json else _show(told)


def _texts_file(path: Path) -> Path:
    settings, _ = config.load(path)
    return path.parent / "sms" / f"{settings.node.country}.toml"


def _told(
    templates: Templates,
    kind: Kind | Answer,
    language: str,
    values: Values,
    concatenation: Concatenation,
    coding: Literal["auto", "gsm7", "ucs2"],
) -> dict[str, Any]:
    from sms.segment import segment

    ways: list[dict[str, Any]] = []
    for what, some in _knowledge(kind, values):
        text = templates.render(kind, language, some)
        if any(way["text"] == text for way in ways):
            continue
        try:
            segments = segment(text, concatenation=concatenation, coding=coding)
        except ValueError as error:
            raise CommandError(f"{kind}, {language}: {error}") from error
        ways.append({"known": what, "text": text, **_cut(segments, concatenation)})
    draft = any((draft.kind, draft.language) == (kind, language) for draft in templates.drafts)
    return {"kind": kind, "language": language, "style": templates.style, "draft": draft, "ways": ways}


def _knowledge(kind: Kind | Answer, values: Values) -> Iterator[_Known]:
    """The values as given, and with less of them known."""
    from sms.templates import DATED

    yield "as given", values
    yield "IIN unknown", values._replace(iin="")
    yield "number unknown", values._replace(msisdn="")
    yield "IIN and number unknown", values._replace(iin="", msisdn="")
    if kind not in DATED:
        yield "also without a date", values._replace(iin="", msisdn="", date=None)


def _cut(segments: Segments, concatenation: Concatenation) -> dict[str, Any]:
    """How a text goes on the air; octets are without the header, septets packed as they are there."""
    from sms.segment import room

    most = room(segments.coding, concatenation, segments.weight)
    parts = []
    for text, octets in zip(segments.parts, segments.octets, strict=True):
        gsm7 = segments.coding == "gsm7"
        used, packed = (len(octets), (7 * len(octets) + 7) // 8) if gsm7 else (len(octets) // 2, len(octets))
        parts.append({"text": text, "used": used, "room": most, "octets": packed})
    return {"coding": segments.coding, "messages": segments.weight, "parts": parts}


def _show(told: dict[str, Any]) -> None:
    draft = "; a DRAFT: the wording is to be confirmed" if told["draft"] else ""
    print(f"{told['kind']}, {told['language']}, {told['style']}{draft}")
    for way in told["ways"]:
        count = f"{way['messages']} short message{'s' if way['messages'] > 1 else ''}"
        print(f"  {way['known']}: {count} in {way['coding']}")
        if way is not told["ways"][0]:
            print(_framed(way["text"]))
            continue
        unit = "septets" if way["coding"] == "gsm7" else "units"
        for number, part in enumerate(way["parts"], 1):
            whole = len(way["parts"]) < way["messages"]
            size = f"{part['used']} {unit}" + (f", {part['room']} a message" if whole else f" of {part['room']}")
            print(f"  part {number} of {len(way['parts'])}: {size}, {part['octets']} octets")
            print(_framed(part["text"]))
    print()


def _framed(text: str) -> str:
    """A text with its ends to be seen: a part may begin or end with a space."""
    return "\n".join(f"    |{line}|" for line in text.split("\n"))
