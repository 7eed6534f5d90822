"""The command line's part for short messages: `eir sms`. `preview` works on the file of texts and needs no node.

The others ask the running node over its local socket; registered by `cli`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from eir import _core, config
from eir.cli_options import DEFAULT_CONFIG, CommandError, ConfigOption, JsonOption, ask_node, when
from eir.cli_timers import AgentOption, DryRunOption, ReasonOption, UnmaskOption

if TYPE_CHECKING:
    from sms.segment import Concatenation, Segments
    from sms.templates import Answer, Kind, Templates, Values

sms_cli = typer.Typer(no_args_is_help=True, help="Short messages to subscribers.")

_LANGUAGES = ("kk", "ru")
_Known = tuple[str, "Values"]


@sms_cli.command()
def preview(
    kind: Annotated[str, typer.Argument(help="What happened, or an answer: reminder, how-to-verify...; all: each.")],
    language: Annotated[Literal["kk", "ru", "both"], typer.Option(help="As the subscriber's.")] = "both",
    style: Annotated[
        Literal["friendly", "legal"] | None, typer.Option(help="Wording; as configured if not given.")
    ] = None,
    imei: Annotated[str, typer.Option(help="14 digits, 15 with the check digit, or 16.")] = "35900100000003",
    msisdn: Annotated[str, typer.Option(help="The subscriber's number; empty: unknown.")] = "77000000001",
    iin: Annotated[str, typer.Option(help="The subscriber's IIN; empty: unknown.")] = "123456789012",
    date: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="Last day of access.", show_default="2026-12-31")
    ] = datetime(2026, 12, 31),
    obligations_link: Annotated[
        str, typer.Option(help="The operator's terms, for the legal style; as configured if not given.")
    ] = "",
    concatenation: Annotated[
        Literal["udh8", "udh16", "sar", "payload"] | None,
        typer.Option(help="How the SMSC is told of parts; as configured if not given."),
    ] = None,
    coding: Annotated[Literal["auto", "gsm7", "ucs2"], typer.Option(help="Alphabet.")] = "auto",
    texts: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="File of texts; as configured if not given."),
    ] = None,
    as_json: JsonOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Show a text as a phone will, cut into its parts, and what it is where IIN or number are unknown."""
    from sms.setup import read_texts, texts_file
    from sms.templates import ANSWERS, KINDS, TemplateError, Values

    kinds = [known for known in (*KINDS, *ANSWERS) if kind in (known, "all")]
    if not kinds:
        raise CommandError(f"{kind!r} is none of {', '.join((*KINDS, *ANSWERS))}, all")
    sms = config.load(path)[0].sms if texts is None or path.exists() else config.SmsSection()
    link = obligations_link or sms.obligations_link or "https://operator.example/terms"
    languages = _LANGUAGES if language == "both" else (language,)
    try:
        loaded = read_texts(texts or texts_file(path, config.load(path)[0]), style or sms.style, link, languages)
        key = _core.imei_key(imei)
    except (TemplateError, ValueError) as error:
        raise CommandError(str(error)) from error
    values = Values(key, msisdn, iin, date.date())
    for shown, in_language in product(kinds, languages):
        told = _told(loaded, shown, in_language, values, concatenation or sms.concatenation, coding)
        print(json.dumps(told, ensure_ascii=False)) if as_json else _show(told)


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


_LONG = 1800.0
"""Seconds that a question about all messages or devices may take."""


@sms_cli.command()
def queue(
    place: Annotated[str, typer.Option(help="Messages that are waiting, sending or over.")] = "waiting",
    most: Annotated[int, typer.Option(min=0, help="How many messages to show.")] = 10,
    unmask: UnmaskOption = False,
    as_json: JsonOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Show how it stands with messages: what waits, who sends, the ways out, and some messages."""
    told = ask_node(path, "sms-queue", place=place, most=most, unmask=unmask)
    if as_json:
        print(json.dumps(told, ensure_ascii=False))
        return
    outbox, planned = told["outbox"], told["reminders"]
    sender = "this node sends" if outbox["leading"] else "another node sends"
    stopped = f"; stopped: {outbox['stopped']}" if outbox["stopped"] else ""
    stopped += f" by {told['paused_by']}" if told["paused_by"] else ""
    print(f"{told['queued']} wait, the oldest that is due for {told['oldest_waits']} s; {sender}{stopped}")
    if planned["day"]:
        print(f"reminders of {planned['day']}: {planned['queued']} queued, gone through {planned['passes']} times")
    for smsc in told["ways_out"]:
        counts = ", ".join(f"{name} {count}" for name, count in smsc.items() if name not in ("name", "state") and count)
        print(f"{smsc['name']}: {smsc['state']}{': ' if counts else ''}{counts}")
    for kind, state, reason, count in outbox["outcomes"]:
        print(f"since start: {kind} {state}{f' ({reason})' if reason else ''}: {count}")
    zone = config.load(path)[1].timezone
    for one in told["messages"]:
        state = f"{one['state']} ({one['reason']})" if one["reason"] else one["state"]
        print(f"{one['imei']}  {one['kind']:<13} to {one['imsi']}  due {when(one['due'], zone)}  {state}")


@sms_cli.command()
def pause(reason: ReasonOption, agent: AgentOption, path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Let no node begin a message until `eir sms resume`."""
    ask_node(path, "sms-pause", reason=reason, agent=agent)
    print("no message is begun until eir sms resume")


@sms_cli.command()
def resume(reason: ReasonOption, agent: AgentOption, path: ConfigOption = DEFAULT_CONFIG) -> None:
    """Let messages go out again."""
    ask_node(path, "sms-resume", reason=reason, agent=agent)
    print("messages go out")


@sms_cli.command("send-test")
def send_test(
    to: Annotated[str, typer.Argument(help="A number, international, with or without +.")],
    reason: ReasonOption,
    agent: AgentOption,
    text: Annotated[str, typer.Option(help="What to say.")] = "Сынақ / Проверка",
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Send a text past the queue, by the way out that is configured."""
    told = ask_node(path, "sms-send-test", to=to, text=text, reason=reason, agent=agent)
    print(f"taken: {told['weight']} short messages in {told['coding']}: {', '.join(told['parts'])}")


@sms_cli.command()
def retry(
    reason: ReasonOption,
    agent: AgentOption,
    kind: Annotated[str | None, typer.Option(help="Only messages of this kind.")] = None,
    failure: Annotated[str | None, typer.Option(help="Only what failed for this reason, as `queue` shows it.")] = None,
    dry_run: DryRunOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Let messages that failed, or came too late, wait once more. A subscriber may get some of their parts twice."""
    told = ask_node(
        path,
        "sms-retry",
        patience=_LONG,
        reason=reason,
        agent=agent,
        kind=kind,
        reason_of_failure=failure,
        dry_run=dry_run,
    )
    for what, count in told["found"].items():
        print(f"{what}: {count}")
    print("nothing was changed" if dry_run else f"{told['queued']} wait once more")


@sms_cli.command()
def reminders(
    date: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The local day.")],
    dry_run: DryRunOption = False,
    unmask: UnmaskOption = False,
    as_json: JsonOption = False,
    path: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Count what the reminders of a day come to, and show some. Only with --dry-run: the node plans by itself."""
    if not dry_run:
        raise CommandError("the node plans each day by itself; --dry-run counts what a day comes to")
    told = ask_node(path, "sms-reminders", patience=_LONG, date=date.date().isoformat(), unmask=unmask)
    if as_json:
        print(json.dumps(told, ensure_ascii=False))
        return
    zone = config.load(path)[1].timezone
    begin, end = told["window"]
    print(f"{told['date']}: {told['subscribers']} subscribers of {told['devices']} devices, {told['parts']} parts")
    print(f"from {when(begin, zone)} to {when(end, zone)}: {told['parts_per_second']:g} parts a second")
    for what, count in told["left_out"].items():
        print(f"left out, {what}: {count}")
    for sample in told["samples"]:
        print(f"to {sample['to']}, {when(sample['at'], zone)}, parts: {' + '.join(map(str, sample['parts']))}")
        for text in sample["texts"]:
            print(_framed(text))
