"""The running node: puts the data plane and the control plane together, and takes them down again.

Called by `cli` for `eir serve`. Start: journal replayed, lists mapped, listeners open, control socket, metrics, ready.
Stop: no more connections, DPR to all, journal on the disk. A reload that fails leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from eir import _core, config, in_use
from eir.audit import AuditLog
from eir.config import Config, ConfigError, Country
from eir.control import ControlServer
from eir.diameter.answer import Identity
from eir.diameter.dictionary import DisconnectCause
from eir.diameter.peer_timers import PeerTimers
from eir.diameter.peers import Security
from eir.diameter.server import DiameterServer
from eir.lists_desk import ListsDesk, Trail
from eir.log import Log
from eir.metrics import NodeCollector, serve
from eir.peer_book import PeerBook, PeerBookError
from eir.peer_desk import PeerDesk, terms_of
from eir.subscribers.directory import Directory
from eir.timers import grey
from eir.timers.desk import Desk
from eir.timers.grey import Rules
from eir.timers.keeper import Keeper, KeeperSettings
from eir.timers.store import Store
from eir.timers.sweep import Sweep
from eir.tracing import Tracing
from sms.service import Messages

_NICE = 10
"""How much the control plane stands back behind the threads that answer."""
_WATCH_SECONDS = 5.0
_STORE_PATIENCE = 2.0
"""Seconds that a start waits for the store; answers do not need it."""
_LAG = 100_000
"""Journal records that the store may be behind before somebody is called."""
_EXPIRES_SOON = 14 * 86400
_UPKEEP_TURNS = 120
"""Turns of the watch after which deadlines are computed ahead and old attempts forgotten: ten minutes."""

log = Log(__name__)


def build_policy(settings: Config, country: Country, now: int) -> _core.Policy:
    """What the data plane needs of the configuration, with the deadlines of the next weeks."""
    zone = ZoneInfo(country.timezone)
    return _core.Policy(
        all_white=settings.rules.override == "white",
        no_list=settings.lists.no_list_policy,
        malformed=settings.rules.malformed,
        home_mccs=list(country.home_mccs),
        roamer_plmns=list(country.roamer_plmns),
        non_roamer_plmns=list(country.non_roamer_plmns),
        hard_reasons=list(country.hard_reasons),
        test_tacs=list(country.test_tacs),
        tac_max_age=settings.lists.tac_max_age,
        stale_after=settings.lists.stale_after,
        schedule=grey.schedule(now, country.grey_days, zone),
        grey_seconds=country.grey_days * 86400,
        starts_per_minute=settings.breaker.starts_per_minute,
        running=settings.breaker.running,
    )


def _security(settings: Config) -> Security:
    tls = settings.diameter.tls
    return Security(inband=tls.inband, certificates_required=tls.client_certificate == "required")


def _workers(settings: Config) -> int:
    return settings.node.workers or max(1, len(os.sched_getaffinity(0)) - 1)


def _rules(country: Country) -> Rules:
    return Rules(country.grey_days, ZoneInfo(country.timezone))


def _store(settings: Config) -> Store:
    """The store that the configuration names; nothing is opened. What is not used is not loaded."""
    if settings.store.kind == "redis":
        from eir.timers.redis_store import RedisStore

        return RedisStore(config.redis_settings(settings))
    from eir.timers.sqlite_store import SqliteStore

    return SqliteStore(settings.path(settings.store.path))


def _directory(settings: Config) -> Directory:
    """Where subscribers are looked up."""
    if settings.subscribers.source == "redis":
        from eir.subscribers.redis_directory import RedisDirectory
        from eir.timers.redis_nodes import client

        return RedisDirectory(client(config.redis_settings(settings)), settings.redis.prefix)
    from eir.subscribers.sqlite_directory import SqliteDirectory

    return SqliteDirectory(settings.path(settings.subscribers.database))


def _identity(directory: Path) -> str:
    """What tells a directory of records from one that begins anew in its place, where numbers begin at 1 again.

    Made with its first use. Raises OSError.
    """
    file = directory / "identity"
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        beside = file.with_suffix(".new")
        beside.write_text(f"{secrets.token_hex(8)}\n")
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(file)
        return file.read_text().strip()


def _notify(state: str) -> None:
    """Tells the service manager, where there is one (sd_notify)."""
    if not (address := os.environ.get("NOTIFY_SOCKET")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        try:
            notifier.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            log.warning("the service manager cannot be told", error=str(error))


class Application:
    """One node. `announce` is called with the ready line."""

    def __init__(self, path: Path, announce: Callable[[str], None]) -> None:
        self._path = path
        self._announce = announce
        self._settings, self._country = config.load(path)
        self._stopping = asyncio.Event()
        self._reloads: set[asyncio.Task[None]] = set()
        # Also the Origin-State-Id, which rises with every start.
        self._started = int(time.time())

    async def run(self) -> None:
        """Serves until told to stop. Raises OSError and ConfigError where the node cannot start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        settings = self._settings
        # The journal names subscribers: what the node makes is its user's alone.
        os.umask(0o077)
        Path(settings.node.directory).mkdir(parents=True, exist_ok=True)
        self._node = _core.Node(
            origin_host=settings.node.origin_host,
            origin_realm=settings.node.origin_realm,
            origin_state_id=self._started,
            workers=_workers(settings),
            max_events=settings.diameter.max_events,
            hold_ms=settings.journal.hold_ms,
            journal_directory=settings.path(settings.journal.directory),
            journal_segment_bytes=settings.journal.segment_bytes,
            journal_max_bytes=settings.journal.max_bytes,
            policy=build_policy(settings, self._country, self._started),
            image=settings.path(settings.timers.image),
            in_use_bytes=settings.in_use.max_bytes,
        )
        # From here on: the threads that answer have started, and those that start later inherit this.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        try:
            await self._serve()
        finally:
            self._node.stop()

    async def _serve(self) -> None:
        settings = self._settings
        records, damaged, torn = self._node.replayed
        log.info("journal replayed", records=records, torn=torn, timers=self._node.stats(0)["timers"])
        if damaged:
            log.error("journal records are damaged", damaged=damaged)
        if (state := self._node.image_state) not in ("none", "loaded"):
            log.error("the image of the timers is damaged", state=state)
        self._make_timers(settings)
        self._lists = ListsDesk(
            self._node, settings, self._country, self._sweep, self._record, self._desk.replace, self._trail
        )
        self._lists.start()
        await self._keeper.start(_STORE_PATIENCE)
        self._messages.start()
        bound = self._meet_peers(settings)
        control = ControlServer(settings.path(settings.control.socket), self._commands())
        await control.start()
        self._collector = NodeCollector(
            self._node, self._server, self._keeper, self._sweep, self._messages, settings.lists.stale_after
        )
        self._collector.lists = self._lists
        metrics = ""
        if settings.metrics.listen:
            port = serve(self._collector, config.parse_endpoint(settings.metrics.listen))
            metrics = f" metrics=:{port}"
        upkeep = asyncio.create_task(self._upkeep())
        # Not earlier: a reload needs all of the above. Until here the signal is ignored.
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hung_up)
        _notify("READY=1")
        self._announce(f"eir ready {bound}{metrics}")
        await self._stopping.wait()
        _notify("STOPPING=1")
        log.info("stopping")
        upkeep.cancel()
        await self._lists.stop()
        await control.stop()
        self._node.stop_listening()
        await self._server.disconnect_all(DisconnectCause.REBOOTING, settings.diameter.drain_timeout)
        self._server.stop()
        await self._messages.stop()
        await self._keeper.stop()
        await self._directory.close()
        self._audit.close()

    def _meet_peers(self, settings: Config) -> str:
        """Begins to serve peers; what the ready line says of it. Raises ConfigError and OSError."""
        diameter = settings.diameter
        book = PeerBook(settings.path("peers.json"))
        try:
            book.load()
        except PeerBookError as error:
            log.error("peers that were added or disabled are not known", error=str(error))
        policy = config.peer_policy(settings, self._country, book.added, book.disabled)
        timers = PeerTimers(cer_timeout=diameter.cer_timeout, tw=diameter.watchdog, tc=diameter.reconnect)
        identity = Identity(settings.node.origin_host, settings.node.origin_realm, self._started)
        self._server = DiameterServer(
            self._node, identity, policy, timers, terms=terms_of, security=_security(settings)
        )
        self._tracing = Tracing(self._node, self._record)
        self._server.observe = self._tracing.observe
        self._peers = PeerDesk(self._node, self._server, book, lambda: (self._settings, self._country), self._record)
        try:
            self._secure(settings)
        except ValueError as error:
            raise ConfigError(f"diameter.tls: {error}") from error
        self._peers.set_gate()
        self._server.start()
        plain = [self._node.listen(*config.parse_endpoint(text)) for text in diameter.listen]
        secured = [self._node.listen(*config.parse_endpoint(text), tls=True) for text in diameter.tls.listen]
        text = " ".join(
            f"{kind}={','.join(f'[{host}]:{port}' if ':' in host else f'{host}:{port}' for host, port in bound)}"
            for kind, bound in (("diameter", plain), ("tls", secured))
            if bound
        )
        return text or "diameter=none"

    def _secure(self, settings: Config) -> None:
        """Reads the certificates. Raises ValueError; then those of before are in force."""
        tls = settings.diameter.tls
        if tls.certificate_file:
            certificate, key, authorities = map(settings.path, (tls.certificate_file, tls.key_file, tls.ca_file))
            self._node.set_tls(certificate, key, authorities, tls.client_certificate == "required")
        elif self._settings.diameter.tls.certificate_file:
            log.warning("diameter.tls names no certificate any more: those of before are used until a restart")

    def _make_timers(self, settings: Config) -> None:
        """Puts together what keeps the timers and tells of them. Raises OSError and ConfigError."""
        name = settings.node.origin_host
        self._audit = AuditLog.open(settings.path(settings.audit.directory), name, settings.audit.segment_bytes)
        for damage in self._audit.damage:
            log.error("the audit trail is damaged", damage=damage)
        keeping = KeeperSettings(
            name=name,
            image=settings.path(settings.timers.image),
            image_interval=settings.timers.image_interval,
            journal_source=f"journal:{name}:{_identity(settings.path(settings.journal.directory))}",
            audit_source=f"audit:{name}:{_identity(settings.path(settings.audit.directory))}",
            journal_keep=settings.journal.keep,
            journal_max_bytes=settings.journal.max_bytes,
        )
        self._trail = Trail(self._audit, keeping.journal_source, keeping.audit_source)
        self._keeper = Keeper(self._node, _store(settings), self._audit, keeping, _rules(self._country))
        self._sweep = Sweep(self._node, self._keeper, name, settings.timers.sweep_per_second, self._horizon)
        self._keeper.besides = self._sweep.run
        self._directory = _directory(settings)
        self._desk = Desk(self._node, self._keeper, self._directory)
        self._messages = Messages(
            self._path,
            settings,
            self._node,
            self._keeper.store,
            self._directory,
            rules=lambda: self._keeper.rules,
            record=self._record,
        )

    def _horizon(self, now: int) -> int | None:
        """The second up to which timers expire; None while nothing is to follow from that."""
        position = self._node.lists_position()
        if position is None or self._settings.rules.override == "white":
            return None
        return min(now, position["as_of"] + self._settings.lists.stale_after)

    async def _reload(self) -> None:
        """Takes the configuration anew: peers, rules and lists; the rest waits for a restart. Raises ValueError.

        A configuration that is not sound changes nothing. A snapshot that is not sound leaves the lists of before and
        nothing else: who is in trouble with a list must be able to switch everything to white.
        """
        try:
            settings, country = config.load(self._path)
            take_texts = self._messages.reload(self._path, settings)
            take_rules = self._lists.reload(settings, country)
        except ConfigError as error:
            raise ValueError(f"everything is as before: {error}") from error
        try:
            self._secure(settings)
        except ValueError as error:
            raise ValueError(f"everything is as before: diameter.tls: {error}") from error
        policy = build_policy(settings, country, int(time.time()))
        self._settings, self._country = settings, country
        self._node.set_policy(policy)
        self._server.security = _security(settings)
        self._peers.reload()
        self._keeper.set_calendar(_rules(country))
        take_texts()
        take_rules()
        self._collector.stale_after = settings.lists.stale_after
        try:
            await self._lists.load()
        except ValueError as error:
            raise ValueError(f"settings are in force, the lists are those of before: {error}") from error

    def _hung_up(self) -> None:
        task = asyncio.create_task(self._reload_logged())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload_logged(self) -> None:
        _notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            await self._reload()
            log.info("reloaded")
        except ValueError as error:
            log.error("reload refused", error=str(error))
        finally:
            # Whatever went wrong: without it systemd would end the node, which answers.
            _notify("READY=1")

    async def _upkeep(self) -> None:
        """What must be done again and again, and waits for nobody: alarms, deadlines ahead, old attempts forgotten."""
        alarms: set[str] = set()
        day = self._started // in_use.SECONDS_PER_DAY
        for turn in itertools.count(1):
            await asyncio.sleep(_WATCH_SECONDS)
            self._tracing.expire()
            now = int(time.time())
            present = set(self._alarms(now))
            for alarm in sorted(present - alarms):
                log.error("alarm", alarm=alarm)
            for alarm in sorted(alarms - present):
                log.info("alarm over", alarm=alarm)
            alarms = present
            if turn % _UPKEEP_TURNS == 0:
                self._node.set_policy(build_policy(self._settings, self._country, now))
                self._node.prune(now)
            day_before, day = day, now // in_use.SECONDS_PER_DAY
            if day != day_before:
                directory, report_days = self._settings.path(in_use.DIRECTORY), self._settings.in_use.report_days
                await asyncio.to_thread(in_use.turn, self._node, directory, report_days, day_before, day)

    def _alarms(self, now: int) -> Iterator[str]:
        """What somebody must be called for."""
        stats = self._node.stats(now)
        keeper = self._keeper.state
        if not keeper.store_up:
            yield f"the store of timers fails: {keeper.store_error}"
        if self._node.journal_position() - keeper.journal_position > _LAG:
            yield f"the store is more than {_LAG} journal records behind"
        if self._sweep.state.error:
            yield f"the audit trail cannot be written, and no deadline is noted: {self._sweep.state.error}"
        if keeper.image_error:
            yield f"the image of the timers cannot be written: {keeper.image_error}"
        yield from self._messages.alarms()
        yield from self._peers.alarms(time.monotonic())
        expires = self._node.tls_expires()
        if expires is not None and expires - now < _EXPIRES_SOON:
            yield "the node's certificate expires within two weeks, or has expired"
        if not stats["journal_available"]:
            yield "the journal is full or failing: no timer starts"
        if stats["breaker_tripped"]:
            yield "the breaker is tripped: no timer starts until an operator confirms"
        yield from self._lists.alarms(now)

    def _commands(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        return {
            "check": self._check,
            **self._peers.commands(),
            **self._tracing.commands(),
            "status": self._status,
            "reload": lambda _: self._reload(),
            **self._lists.commands(),
            "breaker-reset": self._reset_breaker,
            "grey-list": self._desk.page,
            "grey-show": self._desk.show,
            "grey-act": self._desk.act,
            "grey-replace": self._desk.replace,
            "grey-shift": self._desk.shift,
            "grey-unshift": self._desk.unshift,
            "grey-shifts": self._desk.shifts,
            "why": self._desk.why,
            "store-check": lambda _: self._keeper.store.problems(),
            "store-backup": self._backup,
            **self._messages.commands(),
        }

    def _check(self, ask: Mapping[str, Any]) -> _core.Explanation:
        return self._node.explain(ask["imei"], ask.get("imsi"), int(time.time()))

    def _status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        stats = self._node.stats(int(time.time()))
        return {
            "lists": self._node.snapshot_info(),
            "position": self._node.lists_position(),
            "sources": dict(self._lists.sources()),
            "stats": stats,
            "open_peers": self._server.open_peers(),
            "timers": {**asdict(self._keeper.state), "journal_durable": self._node.journal_position()},
            "audit_lines": self._audit.head[0],
            "sweep": asdict(self._sweep.state),
        }

    async def _reset_breaker(self, ask: Mapping[str, Any]) -> None:
        await asyncio.to_thread(self._node.set_breaker, False, int(time.time()))
        log.info("operator reset the breaker")
        await self._record(ask, kind="breaker-reset")

    async def _record(self, ask: Mapping[str, Any], **entry: Any) -> None:
        """Puts an operator's act on the record; what cannot be recorded has been done all the same, and is said."""
        signed = {"agent": str(ask.get("agent") or "")[:64], "reason": str(ask.get("reason") or "")[:200]}
        try:
            await self._keeper.record([{**entry, **signed}])
        except OSError as error:
            raise ValueError(f"done, but the audit trail cannot be written: {error}") from error

    async def _backup(self, ask: Mapping[str, Any]) -> None:
        backup = getattr(self._keeper.store, "backup", None)
        if backup is None:
            raise ValueError("a store in Redis is backed up with Redis' own means")
        await backup(Path(ask["path"]))
