"""From the configuration to texts, times and ways out. Reads the files that it names.

Called by `app` when a node starts and by `cli` when a configuration is checked. What is wrong is an error that names
the key.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, get_args

from msgspec import structs

from eir.config import Config, ConfigError
from eir.timers.store import MessageKind
from sms.gateway import Gateway
from sms.hours import Hours, parse_time
from sms.outbox import OutboxSettings
from sms.reminders import ReminderSettings
from sms.settings import FileSettings, SmscSettings
from sms.templates import Draft, Style, TemplateError, Templates


class Setup(NamedTuple):
    """What the node's outbox and reminders are made with."""

    templates: Templates
    drafts: tuple[Draft, ...]
    """Texts that are sent and that nobody has confirmed."""
    outbox: OutboxSettings
    reminders: ReminderSettings
    parts_of_a_reminder: int
    """Short messages that a reminder takes at most."""
    rate: float
    """Short messages a second of the slowest way out; 0: no limit."""


def read(path: Path, config: Config) -> Setup:
    """What a configuration, read from `path`, says of messages. Raises ConfigError."""
    sms = config.sms
    try:
        templates = read_texts(texts_file(path, config), sms.style, sms.obligations_link)
    except TemplateError as error:
        raise ConfigError(str(error)) from error
    window = ReminderSettings(*(parse_time(getattr(sms.reminders, key)) for key in ReminderSettings._fields))
    # Who has no known language gets both.
    parts = sum(templates.most_parts("reminder", (language,), sms.concatenation) for language in templates.languages)
    # Of several SMSCs the slowest may have to do it alone.
    rates = {"smpp": [smsc.rate for smsc in sms.smsc if smsc.rate], "webhook": [sms.webhook.rate]}
    rate = min(rates.get(sms.gateway, []), default=0.0)
    seconds = Hours(window.begin, window.end).seconds()
    if rate and sms.reminders.devices * parts > rate * seconds:
        raise ConfigError(
            f"{path}: sms.reminders: {sms.reminders.devices} reminders of up to {parts} parts do not fit into "
            f"{seconds} seconds at {rate:g} parts a second, which hold {int(rate * seconds / parts)}"
        )
    answers = {"smpp": [smsc.response_timeout for smsc in sms.smsc], "webhook": [sms.webhook.timeout]}
    outbox = OutboxSettings(
        concatenation=sms.concatenation,
        in_flight=sms.in_flight,
        quiet=Hours(parse_time(sms.quiet_from), parse_time(sms.quiet_to)),
        late_until=window.late_until,
        daily_cap=sms.daily_cap,
        validity=sms.validity,
        unanswered=sms.unanswered,
        abandoned=int(2 * max(answers.get(sms.gateway, []), default=10.0)) + 15,
        kept=sms.kept,
        stop_list=_stop_list(config),
    )
    drafts = tuple(draft for draft in templates.drafts if draft.kind in get_args(MessageKind))
    return Setup(templates, drafts, outbox, window, parts, rate)


def texts_file(path: Path, config: Config) -> Path:
    """The file of texts of a configuration that was read from `path`."""
    return config.path(config.sms.texts) if config.sms.texts else path.parent / "sms" / f"{config.node.country}.toml"


def read_texts(
    path: Path, style: Style, obligations_link: str = "", languages: Iterable[str] = ("kk", "ru")
) -> Templates:
    """Reads and checks a file of texts. Raises TemplateError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TemplateError(f"{path}: {error.strerror}") from error
    return Templates.parse(content, str(path), style, obligations_link, languages)


def gateway(config: Config) -> Gateway | None:
    """The way out that is configured; None: there is none. What is not used is not loaded."""
    sms = config.sms
    if sms.gateway == "smpp":
        from sms.smpp import SmppGateway

        return SmppGateway([_smsc(config, smsc) for smsc in sms.smsc])
    if sms.gateway == "webhook":
        from sms.webhook import WebhookGateway

        files = {key: _path(config, getattr(sms.webhook, key)) for key in ("token_file", "ca_file")}
        return WebhookGateway(structs.replace(sms.webhook, **files))
    if sms.gateway == "file":
        from sms.file_gateway import FileGateway

        return FileGateway(FileSettings(path=str(config.path(sms.file))))
    return None


def _smsc(config: Config, smsc: SmscSettings) -> SmscSettings:
    names = ("password_file", "ca_file", "certificate_file", "key_file")
    files = {key: _path(config, getattr(smsc, key)) for key in names}
    return structs.replace(smsc, concatenation=config.sms.concatenation, **files)


def _path(config: Config, name: str) -> str:
    return str(config.path(name)) if name else ""


def _stop_list(config: Config) -> frozenset[str]:
    """Numbers and IMSIs that are sent nothing. Raises ConfigError."""
    if not config.sms.stop_list:
        return frozenset()
    try:
        lines = config.path(config.sms.stop_list).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"sms.stop_list: {getattr(error, 'strerror', None) or 'not a text'}") from None
    stopped = set()
    for number, line in enumerate(lines, 1):
        entry = line.partition("#")[0].strip().removeprefix("+")
        if entry and not (entry.isascii() and entry.isdigit() and len(entry) <= 15):
            raise ConfigError(f"sms.stop_list: line {number} is no number")
        if entry:
            stopped.add(entry)
    return frozenset(stopped)
