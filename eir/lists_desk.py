"""The lists' place in the node: what is in force at start and after a reload, and the commands behind `eir lists`.

Called by `app`. What comes into force, and whether, is decided by `lists.apply`; a snapshot file that an operator built
and named in the configuration counts where it is newer than what came otherwise.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from zoneinfo import ZoneInfo

from eir import _core, audit, in_use
from eir.audit import AuditLog
from eir.config import Config, ConfigError, Country, HttpSection, MqttSection, secret
from eir.lists import manifest as manifests
from eir.lists.apply import ListRules, NationalLists
from eir.lists.guard import Limits
from eir.lists.package import ListFile, Manifest, Outcome, Package, PackageKind, Result
from eir.lists.pieces import pieces
from eir.lists.report_pairs import PairReporter
from eir.lists.reports import Reporter
from eir.lists.source_settings import HttpSettings, MqttSettings
from eir.lists.sync_dir import DirectorySource
from eir.lists.versions import Versions
from eir.log import Log
from eir.timers.sweep import Sweep

if TYPE_CHECKING:
    from eir.lists.sync_http import HttpSource
    from eir.lists.sync_mqtt import MqttSource

log = Log(__name__)

_BRIEFLY = 5.0
"""Seconds that a reload waits for lists that are being taken."""
_AGAIN = 10.0
"""Seconds after which what has failed begins again."""

_TROUBLE: Final = {
    "directory": "the directory of lists cannot be used",
    "mqtt": "no connection to the broker of lists",
    "http": "lists cannot be fetched",
    "reports": "nothing is reported to the national database",
    "pairs": "no pairs are reported to the national database",
}

Record = Callable[..., Awaitable[None]]


def list_rules(settings: Config, country: Country) -> ListRules:
    """What packages are held to. Raises ConfigError for a key that cannot be read."""
    lists = settings.lists
    keys = []
    for name in lists.trusted_keys:
        try:
            keys.append(manifests.public_key(settings.path(name).read_bytes()))
        except (OSError, ValueError) as error:
            raise ConfigError(f"lists.trusted_keys: {name}: {error}") from error
    limits = Limits(lists.max_shrink, lists.max_grow, lists.ignored, lists.max_turned_black, lists.max_bad_rows)
    zone = ZoneInfo(country.timezone)
    hard = tuple(country.hard_reasons)
    return ListRules(settings.node.country, tuple(keys), limits, zone, hard, lists.keep, lists.scrub)


def _ways(settings: Config) -> tuple[HttpSettings | None, MqttSettings | None]:
    """How server and broker of lists are reached, with what their files hold now; None for what there is not. Raises
    ConfigError."""
    lists = settings.lists
    return (
        _http_settings(settings) if lists.http.url else None,
        _mqtt_settings(settings) if lists.mqtt.host else None,
    )


def _mqtt_settings(settings: Config) -> MqttSettings:
    mqtt = settings.lists.mqtt
    return MqttSettings(
        mqtt.host,
        mqtt.port,
        f"eir-{settings.node.origin_host}",
        settings.node.country,
        mqtt.username or None,
        secret(settings, "lists.mqtt.password_file", mqtt.password_file) or None,
        _context(settings, "lists.mqtt", mqtt) if mqtt.tls else None,
    )


def _http_settings(settings: Config) -> HttpSettings:
    http = settings.lists.http
    token = secret(settings, "lists.http.token_file", http.token_file) or None
    context = _context(settings, "lists.http", http) if http.url.startswith("https:") else None
    return HttpSettings(http.url, http.interval, http.stall, context, token)


def _context(settings: Config, key: str, section: MqttSection | HttpSection) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(settings.path(section.ca_file)) if section.ca_file else None)
        if section.certificate_file:
            context.load_cert_chain(settings.path(section.certificate_file), settings.path(section.key_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{key}: {error}") from error
    return context


async def _for_ever(run: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await run()
        except Exception:
            # One source's trouble must not end the others, nor itself.
            log.error("what follows the lists has failed, and begins again", exc_info=True)
        await asyncio.sleep(_AGAIN)


class Source(Protocol):
    """What brings lists."""

    async def run(self) -> None:
        """Goes on until it is cancelled."""


@dataclass(frozen=True, slots=True)
class Trail:
    """What reports are made from: the audit trail, and the names of it and of the journal, which change with them."""

    log: AuditLog
    journal_id: str
    audit_id: str


class ListsDesk:
    """The lists of a node. `record` puts an agent's act on the record, `replace_timer` carries a timer over."""

    def __init__(
        self,
        node: _core.Node,
        settings: Config,
        country: Country,
        sweep: Sweep,
        record: Record,
        replace_timer: Callable[[Mapping[str, Any]], Awaitable[object]],
        trail: Trail,
    ) -> None:
        self._trail = trail
        self._replace_timer = replace_timer
        self._node = node
        self._settings = settings
        self._rules = list_rules(settings, country)
        self._sweep = sweep
        self._record = record
        versions = Versions(settings.path(settings.lists.directory))
        self._tasks: list[asyncio.Task[None]] = []
        self._drop: DirectorySource | None = None
        self._mqtt: MqttSource | None = None
        self._http: HttpSource | None = None
        self._reporter: Reporter | None = None
        self._pair_reporter: PairReporter | None = None
        self.lists = NationalLists(node, versions, lambda: self._rules, sweep.lists_changed)

    def start(self) -> None:
        """Puts in force what there is, and begins to look after it and to follow the sources. Raises OSError and
        ConfigError."""
        self.lists.start()
        try:
            if not self.lists.state.held:
                self._load(self._configured, self.lists.reopen, asked=False, force=False)
        except ValueError as error:
            if self.lists.sequence is None:
                log.error("no valid lists", error=str(error), answer=self._settings.lists.no_list_policy)
        http, mqtt = _ways(self._settings)
        runs = (self.lists.scrub, lambda: self._follow_sources(http, mqtt))
        self._tasks = [asyncio.create_task(_for_ever(run)) for run in runs]

    async def stop(self) -> None:
        """Follows nothing any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow_sources(self, http: HttpSettings | None, mqtt: MqttSettings | None) -> None:
        # What they need takes a while to be loaded, and no peer waits for it.
        sources = await asyncio.to_thread(lambda: list(self._sources(http, mqtt)))
        await asyncio.gather(*(_for_ever(source.run) for source in sources))

    def _sources(self, http: HttpSettings | None, mqtt: MqttSettings | None) -> Iterator[Source]:
        lists = self._settings.lists
        if lists.drop.directory:
            self._drop = DirectorySource(self._settings.path(lists.drop.directory), self.lists, lists.drop.interval)
            yield self._drop
        if mqtt is not None:
            from eir.lists.sync_mqtt import MqttSource

            self._mqtt = MqttSource(mqtt, self.lists, self._behind, random.random)
            yield self._mqtt
        if http is not None:
            from eir.lists.sync_http import HttpSource

            self._http = HttpSource(http, self.lists, random.random)
            yield self._http
        if lists.reports.directory:
            self._reporter = self._make_reporter(self._settings.path(lists.reports.directory))
            yield self._reporter
        if lists.reports.pairs and self._mqtt is not None:
            node, directory = self._settings.node, self._settings.path(lists.reports.directory)
            self._pair_reporter = PairReporter(
                self._settings.path(in_use.DIRECTORY),
                directory,
                node=node.origin_host,
                country=node.country,
                publish=self._mqtt.report,
            )
            yield self._pair_reporter

    def _make_reporter(self, directory: Path) -> Reporter:
        node, lists = self._settings.node, self._settings.lists
        return Reporter(
            self._node,
            self._trail.log,
            directory,
            node=node.origin_host,
            country=node.country,
            journal_id=self._trail.journal_id,
            audit_id=self._trail.audit_id,
            publish=self._mqtt.report if lists.reports.mqtt and self._mqtt is not None else None,
            clock=time.time,
        )

    def _behind(self) -> None:
        """Deltas are missing that the broker has not."""
        if self._http is not None:
            self._http.wake()

    def _take_again(self) -> None:
        """What was refused may be taken now."""
        if self._http is not None:
            self._http.take_again()

    def reload(self, settings: Config, country: Country) -> Callable[[], None]:
        """What puts other settings in force, when they are found in order. Raises ConfigError."""
        rules = list_rules(settings, country)
        http, mqtt = _ways(settings)

        def take() -> None:
            self._settings, self._rules = settings, rules
            if self._http is not None and http is not None:
                self._http.renew(http)
            if self._mqtt is not None and mqtt is not None:
                self._mqtt.renew(mqtt)
            self._take_again()

        return take

    async def load(self, path: Path | None = None, *, asked: bool = False, force: bool = False) -> None:
        """Puts a snapshot file in force, the configured one if none is named, when all of it was checked. Raises
        ValueError; then nothing changes.

        Refused, unless forced: lists older than those in force, and lists without any device where there are some.
        Where nobody has `asked` for it the configured file may be older: then others came since; and nobody waits long
        for it while other lists are being taken.
        """
        path = path or self._configured
        try:
            async with asyncio.timeout(None if asked else _BRIEFLY):
                await self.lists.alone.acquire()
        except TimeoutError:
            raise ValueError("other lists are being taken at present") from None
        try:
            if asked or not self.lists.state.held:
                await asyncio.to_thread(self._load, path, _core.Snapshot.open, asked, force)
        finally:
            self.lists.alone.release()

    @property
    def _configured(self) -> Path:
        return self._settings.path(self._settings.lists.snapshot)

    def _load(self, path: Path, read: Callable[[Path], _core.Snapshot], asked: bool, force: bool) -> None:
        try:
            if not asked and path.samefile(self.lists.file):
                return
        except OSError:
            # Where there is none, it is said when it is read.
            pass
        try:
            snapshot = read(path)
        except _core.SnapshotError as error:
            raise ValueError(f"{path}: {error}") from error
        info, present = snapshot.info, self.lists.sequence
        if present is not None and not force:
            if info["sequence"] < present:
                if not asked:
                    return
                raise ValueError(f"{path}: sequence {info['sequence']} is older than {present}, in force")
            counts, before = info["counts"], self.lists.counts
            if not counts["white"] + counts["black"] + counts["grey"] and any(before.values()):
                raise ValueError(f"{path}: there is no device in it, and {sum(before.values())} in the lists in force")
        self.lists.take_file(snapshot, path)
        log.info("lists in force", path=str(path), sequence=info["sequence"], **info["counts"])

    def alarms(self, now: int) -> Iterator[str]:
        """What somebody must be called for."""
        lists, position = self._settings.lists, self._node.lists_position()
        if position is None:
            yield f"no valid lists: everything is answered {lists.no_list_policy}"
        elif now - position["as_of"] > lists.stale_after:
            yield "the lists are stale: no timer expires"
        state = self.lists.state
        if state.damage:
            yield f"lists on the disk are damaged: {state.damage}"
        if state.differ:
            yield f"the lists differ from the national database's: {state.differ}"
        if state.held:
            yield "the lists are held where somebody went back to"
        if state.last_refusal:
            yield f"lists were refused: {state.last_refusal}"
        for name, error in self.sources():
            if error:
                yield f"{_TROUBLE[name]}: {error}"

    def sources(self) -> Iterator[tuple[str, str | None]]:
        """Each source of lists, and where reports go, with why it cannot be used at present; empty where it can, None
        where that is not known yet."""
        sources = {
            "directory": self._drop,
            "mqtt": self._mqtt,
            "http": self._http,
            "reports": self._reporter,
            "pairs": self._pair_reporter,
        }
        for name, source in sources.items():
            if source is not None:
                yield name, source.error

    def announced(self) -> int | None:
        """The newest state that a source has told of; None where none has."""
        return None if self._http is None else self._http.announced

    # Commands.

    def commands(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """By name, what the control socket is asked."""
        return {
            "lists-load": self._load_other,
            "lists-import": self._import,
            "lists-approve": self._approve,
            "lists-rollback": self._roll_back,
            "lists-follow": self._follow,
            "lists-history": self._history,
            "lists-own": self._own,
            "lists-set": self._set_own,
            "lists-replace": self._replace,
        }

    async def _load_other(self, ask: Mapping[str, Any]) -> Mapping[str, Any]:
        path = Path(ask["path"]) if ask.get("path") else None
        force = bool(ask.get("force"))
        await self.load(path, asked=True, force=force)
        info = self._node.snapshot_info()
        assert info is not None
        await self._record(ask, kind="lists-load", sequence=info["sequence"], forced=force)
        return info

    async def _set_own(self, ask: Mapping[str, Any]) -> None:
        imei, change, reason = ask["imei"], ask["change"], ask["reason"]
        key = _core.imei_key(imei)
        # The journal's disk may take its time; other questions need not wait.
        await asyncio.to_thread(self._node.set_overlay, imei, change, reason, int(time.time()))
        self._sweep.lists_changed()
        log.info("operator changed a listing", imei=key, change=change, reason=reason)
        await self._record(ask, kind="lists-set", imei=key, change=change)

    async def _replace(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        """An authorised service centre has given a device another IMEI: what is said of it is said of that one."""
        old, new = _core.imei_key(ask["old"]), _core.imei_key(ask["new"])
        if old == new:
            raise ValueError("the two are the same")
        told = self._node.explain(old, None, int(time.time()))
        carried = []
        if told["timer"] is not None:
            await self._replace_timer(ask)
            carried.append("timer")
        if told["listing"] is not None and (told["listing"][0] != "grey" or told["listing"][2]):
            # Grey by the national lists has a time, which an entry of ours would lift: only they can carry it over.
            listed, reason, _ = told["listing"]
            await self._set_own({**ask, "imei": new, "change": listed, "reason": reason or "replaced"})
            carried.append(listed)
        if not carried:
            raise ValueError("nothing that can be carried over is said of the old IMEI")
        # No device has it any more: who comes with it has made it his own.
        await self._set_own({**ask, "imei": old, "change": "black", "reason": "replaced"})
        return {"old": old, "new": new, "carried": carried}

    async def _own(self, _: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The operator's entries, each with who made it as far as the audit trail goes back."""
        entries = self._node.own_entries()
        made = await asyncio.to_thread(_last_acts, self._settings.path(self._settings.audit.directory))
        found = []
        for imei, listed, reason in entries:
            at, agent = made.get(imei, (0, ""))
            found.append({"imei": imei, "list": listed, "reason": reason, "agent": agent, "at": at})
        return found

    async def _import(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        """Files that an operator has, as a package of his own."""
        agent, dry_run, approved = str(ask.get("agent") or ""), bool(ask.get("dry_run")), bool(ask.get("approve"))
        files = [(str(kind), Path(name)) for kind, name in ask["files"]]
        kind: PackageKind = "delta" if ask.get("delta") else "snapshot"
        present = self.lists.sequence
        previous = present if kind == "delta" else None
        sequence = ask.get("sequence") or (present or 0) + 1
        tac_as_of = ask.get("tac_as_of")
        staged = self.lists.staging()
        try:
            entries = await asyncio.to_thread(_stage, files, staged)
            as_of = int(ask.get("as_of") or time.time())
            manifest = Manifest(kind, self._settings.node.country, sequence, previous, as_of, tac_as_of, tuple(entries))
            package = Package(manifest, manifests.encode(manifest), b"", staged)
        except (OSError, ValueError):
            await asyncio.to_thread(shutil.rmtree, staged, ignore_errors=True)
            raise
        outcome = await self.lists.import_package(package, agent, approved=approved, dry_run=dry_run)
        if outcome.result is Result.APPLIED and not dry_run:
            await self._record(ask, kind="lists-import", sequence=sequence, what=kind, approved=approved)
        return _told(outcome, sequence)

    async def _approve(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        kind, sequence = ask["kind"], int(ask["sequence"])
        outcome = await self.lists.approve(kind, sequence, str(ask.get("agent") or ""))
        if outcome.result is Result.APPLIED:
            self._take_again()
            await self._record(ask, kind="lists-approve", sequence=sequence, what=kind)
        return _told(outcome, sequence)

    async def _roll_back(self, ask: Mapping[str, Any]) -> str:
        told = await self.lists.roll_back(int(ask["sequence"]), str(ask.get("agent") or ""))
        await self._record(ask, kind="lists-rollback", sequence=int(ask["sequence"]))
        return told

    async def _follow(self, ask: Mapping[str, Any]) -> str:
        told = await self.lists.follow(str(ask.get("agent") or ""))
        self._take_again()
        await self._record(ask, kind="lists-follow")
        return told

    async def _history(self, _: Mapping[str, Any]) -> dict[str, Any]:
        refused = await asyncio.to_thread(self.lists.refused)
        return {
            "history": await asyncio.to_thread(self.lists.history),
            "refused": [
                {"kind": one.kind, "sequence": one.sequence, "at": one.at, "by": one.source, "reasons": one.reasons}
                for one in refused
            ],
        }


def _last_acts(directory: Path) -> dict[str, tuple[int, str]]:
    """When the operator's entry of each device was last changed, and by whom."""
    found: dict[str, tuple[int, str]] = {}
    for line in audit.export(directory):
        if line.get("kind") == "lists-set":
            found[str(line.get("imei"))] = (int(str(line["at"])), str(line.get("agent", "")))
    return found


def _told(outcome: Outcome, sequence: int) -> dict[str, Any]:
    return {"result": outcome.result.value, "reason": outcome.reason, "sequence": sequence}


def _stage(files: Sequence[tuple[str, Path]], staged: Path) -> list[ListFile]:
    """Copies files into a package, so that nobody changes them meanwhile. Raises OSError and ValueError."""
    entries = []
    for number, (kind, path) in enumerate(files):
        name = f"{kind}-{number}.csv"
        digest, octets = hashlib.sha256(), 0
        # To open a pipe is to wait for who writes into it.
        if not path.is_file():
            raise ValueError(f"{path} is no file")
        with path.open("rb") as source, (staged / name).open("wb") as target:
            for part in pieces(source):
                digest.update(part)
                octets += len(part)
                target.write(part)
        entries.append(ListFile(name, kind, octets, 0, digest.hexdigest()))
    return entries
