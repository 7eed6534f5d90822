"""The configuration: TOML in, frozen typed models out.

Called once at start and at every reload by `app` and `cli`. A key that is unknown, of the wrong type or out of range
is an error that names the key. `config/eir.toml` holds every key with its default; a test compares the two.
"""

from __future__ import annotations

import re
import tomllib
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct

from eir.diameter.peer_policy import PeerEntry, PeerPolicy, Role, Tls
from eir.timers.redis_settings import Mode, RedisSettings
from sms.hours import Hours, parse_time
from sms.settings import Concatenation, SmscSettings, WebhookSettings

Positive = Annotated[int, Meta(ge=1, le=1 << 62)]
Octets = Annotated[int, Meta(ge=4096, le=1 << 62)]
Seconds = Annotated[int, Meta(ge=1, le=3650 * 86400)]
"""A span that the data plane can add to any time it may meet."""
Timeout = Annotated[float, Meta(gt=0, le=3600)]
Identity = Annotated[str, Meta(pattern=r"^[!-~]{1,255}\Z")]
"""A DiameterIdentity (RFC 6733 4.3.1): printable ASCII without spaces."""
Status = Literal["white", "grey", "black", "unknown"]
Rate = Annotated[int, Meta(ge=0, le=10_000_000)]
"""Requests a second; 0: any number."""
Share = Annotated[float, Meta(ge=0, le=1)]
Plmn = Annotated[str, Meta(pattern=r"^[0-9]{5,6}\Z")]


class ConfigError(Exception):
    """The configuration cannot be used; the text names the file and the key."""


class _Section(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class NodeSection(_Section, frozen=True):
    """Who the node is and where it keeps its state."""

    origin_host: Identity = "eir.epc.mnc001.mcc001.3gppnetwork.org"
    origin_realm: Identity = "epc.mnc001.mcc001.3gppnetwork.org"
    country: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z")] = "kz"
    directory: Annotated[str, Meta(min_length=1)] = "/var/lib/eir"
    workers: Annotated[int, Meta(ge=0, le=256)] = 0


class AnswersSection(_Section, frozen=True, omit_defaults=True):
    """What a peer is answered instead; what is left out is the country's, or the standard's."""

    grey: Status | None = None
    unknown: Status | None = None
    malformed: Status | None = None


STANDARD_ANSWERS = AnswersSection()


class PeerSection(_Section, frozen=True):
    """A peer, or all whose names end alike."""

    origin_host: Identity
    networks: tuple[str, ...] = ()
    role: Role = "auto"
    tls: Tls = "optional"
    connections: Annotated[int, Meta(ge=1, le=1000)] = 1
    connect: tuple[str, ...] = ()
    requests_per_second: Rate = 0
    load: bool = False
    answers: AnswersSection = STANDARD_ANSWERS


class TlsSection(_Section, frozen=True):
    """How connections are secured."""

    listen: tuple[str, ...] = ()
    certificate_file: str = ""
    key_file: str = ""
    ca_file: str = ""
    client_certificate: Literal["required", "optional"] = "required"
    inband: bool = False


class DiameterSection(_Section, frozen=True):
    """Where Diameter peers find the node; times in seconds."""

    listen: tuple[str, ...] = ("127.0.0.1:3868", "[::1]:3868")
    max_connections: Positive = 2000
    max_connections_per_address: Positive = 256
    max_unopened: Positive = 1024
    requests_per_second: Rate = 0
    cer_timeout: Timeout = 10.0
    watchdog: Annotated[float, Meta(ge=6, le=3600)] = 30.0
    reconnect: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0
    drain_timeout: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    max_events: Annotated[int, Meta(ge=64, le=1 << 24)] = 4096
    tls: TlsSection = TlsSection()
    peers: tuple[PeerSection, ...] = (PeerSection("*", ("127.0.0.0/8", "::1/128")),)


class DropSection(_Section, frozen=True):
    """A directory that somebody fills with packages of lists."""

    directory: str = ""
    interval: Timeout = 5.0


class MqttSection(_Section, frozen=True):
    """The broker that deltas come from."""

    host: str = ""
    port: Annotated[int, Meta(ge=1, le=65535)] = 8883
    tls: bool = True
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    username: str = ""
    password_file: str = ""


class HttpSection(_Section, frozen=True):
    """The server that lists are fetched from; times in seconds."""

    url: Annotated[str, Meta(pattern=r"^(https?://[!-~]+[^/]|)\Z")] = ""
    interval: Annotated[float, Meta(ge=0.1, le=86400)] = 60.0
    stall: Timeout = 30.0
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    token_file: str = ""


class ReportsSection(_Section, frozen=True):
    """What the national database is told."""

    directory: str = ""
    mqtt: bool = False
    pairs: bool = False


class ListsSection(_Section, frozen=True):
    """The lists; times in seconds."""

    snapshot: Annotated[str, Meta(min_length=1)] = "lists.eirs"
    directory: Annotated[str, Meta(min_length=1)] = "lists"
    trusted_keys: tuple[str, ...] = ()
    max_shrink: Share = 0.05
    max_grow: Annotated[float, Meta(ge=0)] = 0.5
    ignored: Annotated[int, Meta(ge=0, le=1 << 62)] = 1000
    max_turned_black: Annotated[int, Meta(ge=0, le=1 << 62)] = 1000
    max_bad_rows: Share = 0.001
    keep: Seconds = 7 * 86400
    scrub: Annotated[int, Meta(ge=0, le=3650 * 86400)] = 86400
    drop: DropSection = DropSection()
    mqtt: MqttSection = MqttSection()
    http: HttpSection = HttpSection()
    reports: ReportsSection = ReportsSection()
    no_list_policy: Status = "white"
    stale_after: Seconds = 2 * 86400
    tac_max_age: Seconds = 30 * 86400


class RulesSection(_Section, frozen=True):
    """What the operator decides about verdicts."""

    override: Literal["off", "white"] = "off"
    malformed: Literal["black", "unknown"] = "black"


class JournalSection(_Section, frozen=True):
    """What is recorded before it is answered."""

    directory: Annotated[str, Meta(min_length=1)] = "journal"
    hold_ms: Annotated[int, Meta(ge=0, le=60_000)] = 500
    segment_bytes: Octets = 64 << 20
    max_bytes: Octets = 8 << 30
    keep: Annotated[int, Meta(ge=0, le=30 * 86400)] = 86400


class StoreSection(_Section, frozen=True):
    """Where timers are stored."""

    kind: Literal["sqlite", "redis"] = "sqlite"
    path: Annotated[str, Meta(min_length=1)] = "timers.db"


class RedisSection(_Section, frozen=True):
    """How Redis is reached; times in seconds. What it looks like when printed has no password in it."""

    mode: Mode = "alone"
    nodes: Annotated[tuple[str, ...], Meta(min_length=1)] = ("redis://127.0.0.1:6379",)
    service: Annotated[str, Meta(pattern=r"^[!-~]{1,64}\Z")] = "eir"
    username: str = ""
    password: str = ""
    password_file: str = ""
    sentinel_username: str = ""
    sentinel_password_file: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    prefix: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9:._-]{1,64}\Z")] = "eir"
    timeout: Annotated[float, Meta(ge=0.1, le=60)] = 2.0
    changes_kept: Annotated[int, Meta(ge=100, le=10_000_000)] = 5000
    min_replicas: Annotated[int, Meta(ge=0, le=10)] = 0

    def __repr__(self) -> str:
        return repr(_redis_settings(self))


class TimersSection(_Section, frozen=True):
    """How timers are kept; times in seconds."""

    image: Annotated[str, Meta(min_length=1)] = "timers.eiri"
    image_interval: Annotated[float, Meta(ge=1, le=86400)] = 300.0
    sweep_per_second: Annotated[int, Meta(ge=1, le=1_000_000)] = 5000


class AuditSection(_Section, frozen=True):
    """The record of what was done and why."""

    directory: Annotated[str, Meta(min_length=1)] = "audit"
    segment_bytes: Octets = 8 << 20


class SubscribersSection(_Section, frozen=True):
    """Where it is looked up who holds an IMSI."""

    source: Literal["sqlite", "redis"] = "sqlite"
    database: Annotated[str, Meta(min_length=1)] = "subscribers.db"


class RemindersSection(_Section, frozen=True):
    """When the daily reminders go out, in local time."""

    begin: str = "11:00"
    end: str = "13:00"
    late_until: str = "18:00"
    devices: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0


class SmsSection(_Section, frozen=True):
    """What subscribers are told and how; times in seconds, times of the day local."""

    gateway: Literal["off", "file", "smpp", "webhook"] = "file"
    texts: str = ""
    style: Literal["friendly", "legal"] = "friendly"
    obligations_link: str = ""
    file: Annotated[str, Meta(min_length=1)] = "messages.jsonl"
    concatenation: Concatenation = "udh8"
    in_flight: Annotated[int, Meta(ge=1, le=10_000)] = 100
    quiet_from: str = "22:00"
    quiet_to: str = "08:00"
    daily_cap: Annotated[int, Meta(ge=0, le=10_000)] = 10
    stop_list: str = ""
    validity: Seconds = 3 * 86400
    unanswered: Literal["skip", "again"] = "skip"
    kept: Annotated[int, Meta(ge=2 * 86400, le=3650 * 86400)] = 7 * 86400
    reminders: RemindersSection = RemindersSection()
    smsc: tuple[SmscSettings, ...] = ()
    webhook: WebhookSettings = WebhookSettings()


class BreakerSection(_Section, frozen=True):
    """When timers stop starting."""

    starts_per_minute: Positive = 100_000
    running: Positive = 5_000_000


class InUseSection(_Section, frozen=True):
    """Which devices are in use."""

    max_bytes: Annotated[int, Meta(ge=0, le=1 << 40)] = 256 << 20
    report_days: Annotated[int, Meta(ge=0, le=3650)] = 0


class MetricsSection(_Section, frozen=True):
    """Where Prometheus finds the counters."""

    listen: str = "127.0.0.1:9464"


class ControlSection(_Section, frozen=True):
    """Where the command line finds the node."""

    socket: Annotated[str, Meta(min_length=1)] = "control.sock"


class LogSection(_Section, frozen=True):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Country(_Section, frozen=True):
    """A country's profile: its rules in numbers."""

    name: str
    timezone: str
    grey_days: Annotated[int, Meta(ge=1, le=3650)]
    home_mccs: tuple[Annotated[int, Meta(ge=0, le=999)], ...]
    roamer_plmns: tuple[Plmn, ...]
    non_roamer_plmns: tuple[Plmn, ...]
    hard_reasons: tuple[Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z")], ...]
    test_tacs: tuple[Annotated[str, Meta(pattern=r"^[0-9]{1,8}\Z")], ...]
    answers: AnswersSection = STANDARD_ANSWERS


class Config(_Section, frozen=True):
    """The whole configuration file."""

    node: NodeSection = NodeSection()
    diameter: DiameterSection = DiameterSection()
    lists: ListsSection = ListsSection()
    rules: RulesSection = RulesSection()
    journal: JournalSection = JournalSection()
    store: StoreSection = StoreSection()
    redis: RedisSection = RedisSection()
    timers: TimersSection = TimersSection()
    audit: AuditSection = AuditSection()
    subscribers: SubscribersSection = SubscribersSection()
    sms: SmsSection = SmsSection()
    breaker: BreakerSection = BreakerSection()
    in_use: InUseSection = InUseSection()
    metrics: MetricsSection = MetricsSection()
    control: ControlSection = ControlSection()
    log: LogSection = LogSection()

    def path(self, value: str) -> Path:
        """A path of this configuration; relative ones start at `node.directory`."""
        return Path(self.node.directory) / value


_Model = TypeVar("_Model", bound=Struct)

Endpoint = tuple[IPv4Address | IPv6Address, int]


def parse_endpoint(text: str) -> Endpoint:
    """Address and port of "HOST:PORT" or "[IPv6]:PORT", the host being numeric. Raises ValueError."""
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]+)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    host = ip_address(match[1] or match[2])
    if isinstance(host, IPv6Address) and host.scope_id is not None:
        raise ValueError(f"{text!r} has a zone, which cannot be listened on")
    return host, int(match[3])


def peer_entry(peer: PeerSection, answers: AnswersSection = STANDARD_ANSWERS) -> PeerEntry:
    """The entry of the peer policy that this section stands for, with the country's answers where it has none.

    Raises ValueError.
    """
    own = peer.answers
    return PeerEntry(
        peer.origin_host,
        tuple(ip_network(text) for text in peer.networks),
        role=peer.role,
        tls=peer.tls,
        connections=peer.connections,
        connect=tuple(parse_endpoint(text) for text in peer.connect),
        requests_per_second=peer.requests_per_second,
        load=peer.load,
        grey=own.grey or answers.grey,
        unknown=own.unknown or answers.unknown,
        malformed=own.malformed or answers.malformed,
    )


def peer_policy(
    config: Config, country: Country, added: tuple[PeerSection, ...] = (), disabled: frozenset[str] = frozenset()
) -> PeerPolicy:
    """All peers: those of the configuration and those that were added, without those that are disabled."""
    entries = (peer_entry(peer, country.answers) for peer in (*config.diameter.peers, *added))
    return PeerPolicy(entries, disabled)


def redis_settings(config: Config) -> RedisSettings:
    """How Redis is reached, with what its password files hold now. Raises ConfigError."""
    section = config.redis
    return _redis_settings(
        section,
        password=secret(config, "redis.password_file", section.password_file) or section.password,
        sentinel_password=secret(config, "redis.sentinel_password_file", section.sentinel_password_file),
    )


def _redis_settings(section: RedisSection, password: str = "", sentinel_password: str = "") -> RedisSettings:
    return RedisSettings(
        mode=section.mode,
        nodes=section.nodes,
        service=section.service,
        username=section.username,
        password=password,
        sentinel_username=section.sentinel_username,
        sentinel_password=sentinel_password,
        ca_file=section.ca_file,
        certificate_file=section.certificate_file,
        key_file=section.key_file,
        prefix=section.prefix,
        timeout=section.timeout,
        changes_kept=section.changes_kept,
        min_replicas=section.min_replicas,
    )


def secret(config: Config, key: str, name: str) -> str:
    """The first line of a file; nothing where none is named."""
    if not name:
        return ""
    try:
        return config.path(name).read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: {getattr(error, 'strerror', None) or 'not a text'}") from None


def load(path: Path) -> tuple[Config, Country]:
    """Reads a configuration file and the country profile that it names. Raises ConfigError."""
    config = _read(path, Config)
    country = _read(path.parent / "countries" / f"{config.node.country}.toml", Country)
    _check(path, config)
    try:
        ZoneInfo(country.timezone)
    except (OSError, ValueError, ZoneInfoNotFoundError) as error:
        raise ConfigError(f"{config.node.country}.toml: timezone: {error}") from error
    return config, country


def _read(path: Path, model: type[_Model]) -> _Model:
    try:
        with path.open("rb") as file:
            return msgspec.convert(tomllib.load(file), model)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except msgspec.ValidationError as error:
        what, _, key = str(error).partition(" - at `$")
        unknown = re.fullmatch(r"Object contains unknown field `(.+)`", what, re.DOTALL)
        where = key.rstrip("`").lstrip(".")
        if unknown:
            where, what = ".".join(filter(None, (where, unknown[1]))), "unknown key"
        raise ConfigError(f"{path}: {where or 'top level'}: {what}") from error


def _check(path: Path, config: Config) -> None:
    """What a type cannot say."""
    listening = (
        ("diameter.listen", config.diameter.listen),
        ("diameter.tls.listen", config.diameter.tls.listen),
        ("metrics.listen", filter(None, (config.metrics.listen,))),
    )
    for key, texts in listening:
        for text in texts:
            try:
                parse_endpoint(text)
            except ValueError as error:
                raise ConfigError(f"{path}: {key}: {error}") from error
    _check_peers(path, config.diameter)
    try:
        _redis_settings(config.redis).endpoints()
    except ValueError as error:
        raise ConfigError(f"{path}: redis.nodes: {error}") from None
    if config.redis.password and config.redis.password_file:
        raise ConfigError(f"{path}: redis.password_file: there is a redis.password too")
    _check_sms(path, config.sms)
    reports = config.lists.reports
    if reports.mqtt and not (config.lists.mqtt.host and reports.directory):
        raise ConfigError(f"{path}: lists.reports.mqtt: lists.mqtt.host and lists.reports.directory are needed")
    if reports.pairs and not (reports.mqtt and config.in_use.report_days):
        raise ConfigError(f"{path}: lists.reports.pairs: lists.reports.mqtt and in_use.report_days are needed")
    # The journal grows by segments: a limit below one would not be kept.
    if config.journal.max_bytes < 2 * config.journal.segment_bytes:
        # The segment that is written to stays, so one that fills the journal would never be let go.
        raise ConfigError(f"{path}: journal.max_bytes: smaller than two journal.segment_bytes")


def _check_peers(path: Path, diameter: DiameterSection) -> None:
    tls = diameter.tls
    files = (tls.certificate_file, tls.key_file, tls.ca_file)
    if not all(files) and (any(files) or tls.listen or tls.inband):
        raise ConfigError(f"{path}: diameter.tls: certificate_file, key_file and ca_file are needed")
    if not diameter.listen and not tls.listen and not any(peer.connect for peer in diameter.peers):
        raise ConfigError(f"{path}: diameter.listen: there is no way to any peer")
    for number, peer in enumerate(diameter.peers):
        key = f"{path}: diameter.peers[{number}]"
        try:
            peer_entry(peer)
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from error
        if peer.tls == "required" and not all(files):
            raise ConfigError(f"{key}.tls: diameter.tls has no certificates")


def _check_sms(path: Path, sms: SmsSection) -> None:
    times = {"sms.quiet_from": sms.quiet_from, "sms.quiet_to": sms.quiet_to}
    times |= {f"sms.reminders.{key}": getattr(sms.reminders, key) for key in ("begin", "end", "late_until")}
    for key, text in times.items():
        try:
            parse_time(text)
        except ValueError as error:
            raise ConfigError(f"{path}: {key}: {error}") from None
    if not parse_time(sms.reminders.begin) < parse_time(sms.reminders.end) <= parse_time(sms.reminders.late_until):
        raise ConfigError(f"{path}: sms.reminders: begin, end and late_until do not follow one another")
    quiet = Hours(parse_time(sms.quiet_from), parse_time(sms.quiet_to))
    if quiet.contain_any(parse_time(sms.reminders.begin), parse_time(sms.reminders.end)):
        raise ConfigError(f"{path}: sms.reminders: the window reaches into the quiet hours")
    if sms.validity < quiet.seconds() + 3600:
        raise ConfigError(f"{path}: sms.validity: not an hour longer than the quiet hours")
    if sms.kept < sms.validity:
        raise ConfigError(f"{path}: sms.kept: shorter than sms.validity")
    if sms.gateway == "smpp" and not sms.smsc:
        raise ConfigError(f"{path}: sms.smsc: there is none")
    if len({smsc.name for smsc in sms.smsc}) != len(sms.smsc):
        raise ConfigError(f"{path}: sms.smsc: two have the same name")
    if sms.gateway == "webhook" and not sms.webhook.url:
        raise ConfigError(f"{path}: sms.webhook.url: there is none")
