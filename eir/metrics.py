"""The counters as Prometheus reads them.

A collector that asks the data plane and the Diameter server when it is scraped; nothing is counted here. Metric names
are a promise to those who have dashboards: a test holds them. Called by `app`, in a thread of its own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from eir.config import Endpoint

if TYPE_CHECKING:
    from eir import _core
    from eir.diameter.server import DiameterServer
    from eir.lists.apply import ListsState
    from eir.lists_desk import ListsDesk
    from eir.timers.keeper import Keeper
    from eir.timers.sweep import Sweep
    from sms.service import Messages

PROTOCOL = "s13"


class NodeCollector(Collector):
    """Everything that the node counts; `stale_after` in seconds."""

    def __init__(
        self,
        node: _core.Node,
        server: DiameterServer,
        keeper: Keeper,
        sweep: Sweep,
        messages: Messages,
        stale_after: int,
    ) -> None:
        self.stale_after = stale_after
        self.lists: ListsDesk | None = None
        """What brings lists; None: nothing yet."""
        self._node = node
        self._server = server
        self._keeper = keeper
        self._sweep = sweep
        self._messages_out = messages

    def describe(self) -> Iterator[Metric]:
        """Nothing: what there is depends on the peers that were seen."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they stand."""
        now = int(time.time())
        stats = self._node.stats(now)
        yield from _answers(stats)
        yield from self._messages(stats)
        yield from self._connections(stats)
        yield from self._peers()
        yield from _journal(stats)
        yield from _timers(stats)
        yield from self._store(now)
        yield from _in_use(stats)
        yield from self._sms(now)
        yield from self._lists(stats, now)

    def _messages(self, stats: _core.Stats) -> Iterator[Metric]:
        outcomes = self._server.outcomes
        refused = CounterMetricFamily(
            "eir_refused", "Answers other than success, by peer and Result-Code", labels=("peer", "code")
        )
        for (peer, code), count in list(outcomes.refused.items()):
            refused.add_metric((peer, str(code)), count)
        yield refused
        discarded = CounterMetricFamily("eir_discarded", "Messages discarded, by reason", labels=("reason",))
        for reason, count in list(outcomes.discarded.items()):
            discarded.add_metric((str(reason),), count)
        peers = [stats["before_open"], *stats["peers"].values()]
        discarded.add_metric(("control-plane-full",), sum(peer["discarded"] for peer in peers))
        yield discarded
        yield CounterMetricFamily(
            "eir_undelivered", "Messages of the control plane that a connection did not take", outcomes.undelivered
        )
        yield CounterMetricFamily(
            "eir_lost_answers", "Requests whose connection was gone before the answer", sum(p["lost"] for p in peers)
        )

    def _connections(self, stats: _core.Stats) -> Iterator[Metric]:
        yield GaugeMetricFamily("eir_connections", "Connections, open or not", stats["connections"])
        yield GaugeMetricFamily("eir_open_peers", "Connections whose peer is open", self._server.open_peers())
        yield CounterMetricFamily("eir_connections_accepted", "Connections accepted", stats["accepted"])
        refused = CounterMetricFamily(
            "eir_connections_refused", "Connections closed before anything was read, by reason", labels=("reason",)
        )
        for reason, count in stats["refused_by"].items():
            refused.add_metric((reason,), count)
        yield refused
        yield CounterMetricFamily("eir_tls_failures", "Connections closed because TLS failed", stats["tls_failures"])
        if (expires := self._node.tls_expires()) is not None:
            yield GaugeMetricFamily(
                "eir_tls_certificate_expires_seconds",
                "When the node's certificate expires, seconds since 1970",
                expires,
            )
        yield GaugeMetricFamily(
            "eir_load", "Share of their time that the answering threads were busy", stats["load"] / 65535
        )
        closed = CounterMetricFamily("eir_connections_closed", "Connections ended, by reason", labels=("reason",))
        for reason, count in list(self._server.outcomes.closed.items()):
            closed.add_metric((str(reason),), count)
        yield closed

    def _peers(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("eir_peer_state", "Peers in a state of RFC 6733 5.6", labels=("peer", "state"))
        watchdogs = GaugeMetricFamily(
            "eir_watchdog_state", "Peers whose watchdog is in a state of RFC 3539", labels=("peer", "state")
        )
        table = [view for view in self._server.peer_table() if not view.disabled]
        for metric, found in (
            (states, Counter((view.origin_host, view.state) for view in table)),
            (watchdogs, Counter((view.origin_host, view.watchdog) for view in table)),
        ):
            for labels, count in found.items():
                metric.add_metric(labels, count)
            yield metric
        for name, text, changes in (
            ("eir_peer_changes", "Peers that went from one state to another", self._server.peer_changes),
            ("eir_watchdog_changes", "Watchdogs that went from one state to another", self._server.watchdog_changes),
        ):
            counter = CounterMetricFamily(name, text, labels=("before", "after"))
            for labels, count in list(changes.items()):
                counter.add_metric(labels, count)
            yield counter
        messages = CounterMetricFamily(
            "eir_control_messages", "Messages of the control plane", labels=("direction", "command")
        )
        for labels, count in list(self._server.outcomes.messages.items()):
            messages.add_metric(labels, count)
        yield messages

    def _store(self, now: int) -> Iterator[Metric]:
        keeper, sweep = self._keeper.state, self._sweep.state
        behind = max(0, self._node.journal_position() - keeper.journal_position)
        yield GaugeMetricFamily("eir_store_up", "1 where the store of timers answers", int(keeper.store_up))
        yield CounterMetricFamily("eir_store_failures", "Times that the store failed", keeper.store_failures)
        yield GaugeMetricFamily("eir_store_behind", "Journal records that the store does not have yet", behind)
        yield CounterMetricFamily("eir_store_projected", "Journal records brought into the store", keeper.projected)
        yield CounterMetricFamily("eir_store_refused", "Changes that another node was faster with", keeper.refused)
        audit = self._keeper.audit.head[0]
        yield GaugeMetricFamily("eir_audit_lines", "Lines of the audit trail", audit)
        yield GaugeMetricFamily(
            "eir_audit_behind", "Audit lines that the store does not have yet", max(0, audit - keeper.audit_position)
        )
        yield CounterMetricFamily(
            "eir_audit_not_understood", "Audit lines that were passed over", keeper.not_understood
        )
        image_age = now - keeper.image_at if keeper.image_at else 0
        yield GaugeMetricFamily("eir_image_age_seconds", "Seconds since the image was written; 0: not yet", image_age)
        yield GaugeMetricFamily("eir_sweep_leading", "1 where this node does the sweep", int(sweep.leading))
        yield CounterMetricFamily("eir_sweep_expired", "Deadlines that were noted as passed", sweep.expired)
        yield CounterMetricFamily("eir_sweep_ended", "Timers that a list has ended", sweep.ended)
        if sweep.counts is not None:
            timers = GaugeMetricFamily("eir_store_timers", "Timers in the store, by state", labels=("state",))
            for state in ("running", "stopped", "expired"):
                timers.add_metric((state,), getattr(sweep.counts, state))
            yield timers
            yield GaugeMetricFamily("eir_messages_queued", "Messages that wait to go out", sweep.counts.queued)

    def _sms(self, now: int) -> Iterator[Metric]:
        outbox, planner, gateway = self._messages_out.outbox, self._messages_out.planner, self._messages_out.gateway
        if outbox is None or planner is None or gateway is None:
            return
        state, planned = outbox.state, planner.state.planned
        yield GaugeMetricFamily("eir_sms_leading", "1 where this node sends messages", int(state.leading))
        yield GaugeMetricFamily("eir_sms_stopped", "1 where no message is begun", int(bool(state.stopped)))
        yield GaugeMetricFamily("eir_sms_active", "Messages that are being sent", outbox.active)
        yield GaugeMetricFamily(
            "eir_sms_oldest_seconds",
            "Seconds since the oldest message that waits was due",
            max(0, now - state.oldest) if state.oldest else 0,
        )
        outcomes = CounterMetricFamily(
            "eir_sms_messages", "Messages by kind, state and reason", labels=("kind", "state", "reason")
        )
        for labels, count in list(state.outcomes.items()):
            outcomes.add_metric(labels, count)
        yield outcomes
        parts = CounterMetricFamily("eir_sms_parts", "Parts by what came of them", labels=("outcome",))
        for outcome, count in list(state.parts.items()):
            parts.add_metric((outcome,), count)
        yield parts
        yield CounterMetricFamily(
            "eir_sms_receipts_unknown", "Receipts of no message that is known", outbox.receipts.unknown
        )
        yield GaugeMetricFamily("eir_sms_reminders_queued", "Reminders that were queued for today", planned.queued)
        yield GaugeMetricFamily("eir_sms_reminders_passes", "Times that today was planned", planned.passes)
        yield GaugeMetricFamily(
            "eir_sms_window_use", "Share of the window that today's reminders take", self._messages_out.window_use()
        )
        yield from _smscs(gateway.status())

    def _lists(self, stats: _core.Stats, now: int) -> Iterator[Metric]:
        info = self._node.snapshot_info()
        yield GaugeMetricFamily("eir_lists_valid", "1 where there is a valid snapshot", int(info is not None))
        yield GaugeMetricFamily("eir_overlay_entries", "Devices in the overlay", stats["overlay_entries"])
        if self.lists is not None:
            yield from _packages(self.lists.lists.state)
            yield from _sources(self.lists)
        if info is None:
            return
        position = self._node.lists_position()
        assert position is not None
        age = max(0, now - position["as_of"])
        yield GaugeMetricFamily("eir_lists_sequence", "State of the national lists in force", position["sequence"])
        yield GaugeMetricFamily(
            "eir_lists_snapshot_sequence", "State that the snapshot in force is of", info["sequence"]
        )
        yield GaugeMetricFamily("eir_lists_deltas", "Deltas above the snapshot", position["deltas"])
        yield GaugeMetricFamily("eir_lists_delta_devices", "Devices that those speak of", position["devices"])
        yield GaugeMetricFamily("eir_lists_age_seconds", "Seconds since the lists were last known to be true", age)
        yield GaugeMetricFamily("eir_lists_stale", "1 where timers no longer expire", int(age > self.stale_after))
        entries = GaugeMetricFamily("eir_lists_entries", "Entries of the snapshot, by section", labels=("section",))
        for section, count in info["counts"].items():
            assert isinstance(count, int)
            entries.add_metric((section,), count)
        yield entries


def _packages(state: ListsState) -> Iterator[Metric]:
    packages = CounterMetricFamily(
        "eir_lists_packages", "Packages of lists, by what became of them", labels=("source", "kind", "result")
    )
    for (source, kind, result), count in list(state.outcomes.items()):
        packages.add_metric((source, kind, result), count)
    yield packages
    rows = CounterMetricFamily(
        "eir_lists_rows",
        "Rows of packages that were read: all of them, and by what is to be said of some",
        labels=("what",),
    )
    for what, count in list(state.rows.items()):
        rows.add_metric((what.replace("_", "-"),), count)
    yield rows
    yield GaugeMetricFamily("eir_lists_held", "1 where nothing that comes by itself is taken", int(state.held))
    yield GaugeMetricFamily(
        "eir_lists_differ", "1 where the national database has other counts of devices", int(bool(state.differ))
    )
    damaged = int(bool(state.damage))
    yield GaugeMetricFamily("eir_lists_damaged", "1 where lists on the disk were found damaged", damaged)
    yield GaugeMetricFamily(
        "eir_lists_scrubbed_timestamp_seconds", "When the whole snapshot was last read", state.scrubbed_at
    )


def _sources(desk: ListsDesk) -> Iterator[Metric]:
    up = GaugeMetricFamily("eir_lists_source_up", "1 where a source of lists can be used", labels=("source",))
    for source, error in desk.sources():
        up.add_metric((source,), int(error == ""))
    yield up
    if (announced := desk.announced()) is not None:
        yield GaugeMetricFamily("eir_lists_announced_sequence", "The newest state that a source has told of", announced)


def _smscs(smscs: list[dict[str, object]]) -> Iterator[Metric]:
    up = GaugeMetricFamily("eir_smsc_up", "1 where an SMSC takes parts", labels=("smsc",))
    window = GaugeMetricFamily("eir_smsc_window_in_use", "Parts that an SMSC has not answered yet", labels=("smsc",))
    counts = CounterMetricFamily("eir_smsc_events", "What happened with an SMSC", labels=("smsc", "event"))
    for smsc in smscs:
        name = str(smsc["name"])
        up.add_metric((name,), int(smsc["state"] == "bound"))
        for event, count in smsc.items():
            if event == "window_in_use" and isinstance(count, int):
                window.add_metric((name,), count)
            elif isinstance(count, int) and event not in ("window", "rate"):
                counts.add_metric((name, event), count)
    yield from (up, window, counts)


def _answers(stats: _core.Stats) -> Iterator[Metric]:
    answers = CounterMetricFamily(
        "eir_answers", "Answers, by protocol, peer, rule and list", labels=("protocol", "peer", "rule", "list")
    )
    by_peer: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
        "watchdogs": CounterMetricFamily("eir_watchdogs", "Device-Watchdog-Requests answered", labels=("peer",)),
        "not_started": CounterMetricFamily(
            "eir_not_started", "First attaches that started no timer: journal or breaker", labels=("peer",)
        ),
        "hold_timeouts": CounterMetricFamily(
            "eir_hold_timeouts", "Answers that left before their record was safe", labels=("peer",)
        ),
        "punted": CounterMetricFamily("eir_punted", "Messages handed to the control plane", labels=("peer",)),
        "limited": CounterMetricFamily("eir_limited", "Requests above a limit, answered 3004", labels=("peer",)),
        "overload": GaugeMetricFamily(
            "eir_peer_overload_percent", "By how much a peer is now told to send less", labels=("peer",)
        ),
    }
    for name, peer in stats["peers"].items():
        for rule, listed, count in peer["answers"]:
            answers.add_metric((PROTOCOL, name, rule, listed), count)
        by_peer["watchdogs"].add_metric((name,), peer["watchdogs"])
        by_peer["not_started"].add_metric((name,), peer["not_started"])
        by_peer["hold_timeouts"].add_metric((name,), peer["hold_timeouts"])
        by_peer["punted"].add_metric((name,), peer["punted"])
        by_peer["limited"].add_metric((name,), peer["limited"])
        by_peer["overload"].add_metric((name,), peer["overload"])
    yield answers
    yield from by_peer.values()
    total = 0
    buckets = []
    for bound, count in zip([*stats["answer_bounds_ns"], None], stats["answer_buckets"], strict=True):
        total += count
        buckets.append(("+Inf" if bound is None else repr(bound / 1e9), total))
    yield HistogramMetricFamily(
        "eir_answer_seconds",
        "Time from the read of a request to the write of its answer",
        buckets=buckets,
        sum_value=stats["answer_sum_ns"] / 1e9,
    )


def _journal(stats: _core.Stats) -> Iterator[Metric]:
    yield GaugeMetricFamily("eir_journal_available", "1 where records are kept", int(stats["journal_available"]))
    yield GaugeMetricFamily("eir_journal_bytes", "Octets of the journal", stats["journal_bytes"])
    yield GaugeMetricFamily("eir_journal_depth", "Records that are not on the disk yet", stats["journal_depth"])
    yield CounterMetricFamily("eir_journal_records", "Records taken in", stats["journal_records"])
    yield CounterMetricFamily("eir_journal_syncs", "Calls of fdatasync", stats["journal_syncs"])
    yield CounterMetricFamily("eir_journal_failures", "Writes and syncs that failed", stats["journal_failures"])
    yield CounterMetricFamily(
        "eir_journal_skipped", "Further subscribers and black attempts not recorded: too many", stats["journal_skipped"]
    )


def _timers(stats: _core.Stats) -> Iterator[Metric]:
    yield GaugeMetricFamily("eir_timers", "Timers, expired ones among them", stats["timers"])
    yield GaugeMetricFamily("eir_timers_running", "Timers that have not expired", stats["timers_running"])
    yield GaugeMetricFamily("eir_breaker_tripped", "1 where no timer starts", int(stats["breaker_tripped"]))


def _in_use(stats: _core.Stats) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "eir_in_use_pairs", "Devices and subscribers seen in the last 14 days", stats["in_use_pairs"]
    )
    yield CounterMetricFamily(
        "eir_in_use_dropped", "Times a device in use was not noted: no place", stats["in_use_dropped"]
    )


def serve(collector: NodeCollector, endpoint: Endpoint) -> int:
    """Serves /metrics from a thread of its own and returns the port. Raises OSError."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    host, port = endpoint
    server, _ = start_http_server(port, str(host), registry)
    return int(server.server_port)
