"""`eir.metrics`: names and labels are a promise to those who have dashboards. To change one is to break it."""

from __future__ import annotations

import time
import urllib.request
from collections import Counter
from ipaddress import ip_address
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from eir import metrics
from eir.diameter.server import DiameterServer, Outcomes
from eir.lists.apply import ListsState
from eir.lists_desk import ListsDesk
from eir.metrics import NodeCollector
from eir.timers.keeper import Keeper, KeeperState
from eir.timers.store import Counts
from eir.timers.sweep import Sweep, SweepState
from sms.outbox import OutboxState
from sms.reminders import Planned, RemindersState
from sms.service import Messages

if TYPE_CHECKING:
    from eir import _core

HISTOGRAM = "histogram"
PROMISED = {
    "eir_answers_total": ("counter", {"protocol", "peer", "rule", "list"}),
    "eir_watchdogs_total": ("counter", {"peer"}),
    "eir_not_started_total": ("counter", {"peer"}),
    "eir_hold_timeouts_total": ("counter", {"peer"}),
    "eir_punted_total": ("counter", {"peer"}),
    "eir_answer_seconds_bucket": (HISTOGRAM, {"le"}),
    "eir_answer_seconds_count": (HISTOGRAM, set()),
    "eir_answer_seconds_sum": (HISTOGRAM, set()),
    "eir_refused_total": ("counter", {"peer", "code"}),
    "eir_discarded_total": ("counter", {"reason"}),
    "eir_undelivered_total": ("counter", set()),
    "eir_lost_answers_total": ("counter", set()),
    "eir_connections": ("gauge", set()),
    "eir_open_peers": ("gauge", set()),
    "eir_connections_accepted_total": ("counter", set()),
    "eir_connections_refused_total": ("counter", {"reason"}),
    "eir_connections_closed_total": ("counter", {"reason"}),
    "eir_journal_available": ("gauge", set()),
    "eir_journal_bytes": ("gauge", set()),
    "eir_journal_depth": ("gauge", set()),
    "eir_journal_records_total": ("counter", set()),
    "eir_journal_syncs_total": ("counter", set()),
    "eir_journal_failures_total": ("counter", set()),
    "eir_journal_skipped_total": ("counter", set()),
    "eir_timers": ("gauge", set()),
    "eir_timers_running": ("gauge", set()),
    "eir_breaker_tripped": ("gauge", set()),
    "eir_store_up": ("gauge", set()),
    "eir_store_failures_total": ("counter", set()),
    "eir_store_behind": ("gauge", set()),
    "eir_store_projected_total": ("counter", set()),
    "eir_store_refused_total": ("counter", set()),
    "eir_store_timers": ("gauge", {"state"}),
    "eir_messages_queued": ("gauge", set()),
    "eir_audit_lines": ("gauge", set()),
    "eir_audit_behind": ("gauge", set()),
    "eir_audit_not_understood_total": ("counter", set()),
    "eir_image_age_seconds": ("gauge", set()),
    "eir_sweep_leading": ("gauge", set()),
    "eir_sweep_expired_total": ("counter", set()),
    "eir_sweep_ended_total": ("counter", set()),
    "eir_in_use_pairs": ("gauge", set()),
    "eir_in_use_dropped_total": ("counter", set()),
    "eir_sms_leading": ("gauge", set()),
    "eir_sms_stopped": ("gauge", set()),
    "eir_sms_active": ("gauge", set()),
    "eir_sms_oldest_seconds": ("gauge", set()),
    "eir_sms_messages_total": ("counter", {"kind", "state", "reason"}),
    "eir_sms_parts_total": ("counter", {"outcome"}),
    "eir_sms_receipts_unknown_total": ("counter", set()),
    "eir_sms_reminders_queued": ("gauge", set()),
    "eir_sms_reminders_passes": ("gauge", set()),
    "eir_sms_window_use": ("gauge", set()),
    "eir_smsc_up": ("gauge", {"smsc"}),
    "eir_smsc_window_in_use": ("gauge", {"smsc"}),
    "eir_smsc_events_total": ("counter", {"smsc", "event"}),
    "eir_limited_total": ("counter", {"peer"}),
    "eir_peer_overload_percent": ("gauge", {"peer"}),
    "eir_tls_failures_total": ("counter", set()),
    "eir_tls_certificate_expires_seconds": ("gauge", set()),
    "eir_load": ("gauge", set()),
    "eir_peer_state": ("gauge", {"peer", "state"}),
    "eir_watchdog_state": ("gauge", {"peer", "state"}),
    "eir_peer_changes_total": ("counter", {"before", "after"}),
    "eir_watchdog_changes_total": ("counter", {"before", "after"}),
    "eir_control_messages_total": ("counter", {"direction", "command"}),
    "eir_lists_valid": ("gauge", set()),
    "eir_overlay_entries": ("gauge", set()),
    "eir_lists_sequence": ("gauge", set()),
    "eir_lists_snapshot_sequence": ("gauge", set()),
    "eir_lists_deltas": ("gauge", set()),
    "eir_lists_delta_devices": ("gauge", set()),
    "eir_lists_packages_total": ("counter", {"source", "kind", "result"}),
    "eir_lists_rows_total": ("counter", {"what"}),
    "eir_lists_held": ("gauge", set()),
    "eir_lists_differ": ("gauge", set()),
    "eir_lists_source_up": ("gauge", {"source"}),
    "eir_lists_announced_sequence": ("gauge", set()),
    "eir_lists_damaged": ("gauge", set()),
    "eir_lists_scrubbed_timestamp_seconds": ("gauge", set()),
    "eir_lists_age_seconds": ("gauge", set()),
    "eir_lists_stale": ("gauge", set()),
    "eir_lists_entries": ("gauge", {"section"}),
}
OF_A_SNAPSHOT = {"eir_lists_sequence", "eir_lists_age_seconds", "eir_lists_stale", "eir_lists_entries"} | {
    f"eir_lists_{name}" for name in ("snapshot_sequence", "deltas", "delta_devices")
}

COUNTS: _core.Counts = {
    "white": 1,
    "black": 2,
    "grey": 3,
    "ranges": 4,
    "exempt_tacs": 5,
    "allocated_tacs": 6,
    "exempt_imsis": 7,
    "pairs": 8,
    "deadlines": 9,
}


def peer(**counts: int) -> _core.PeerStats:
    stats: _core.PeerStats = {
        "answers": [("white", "white", 5), ("first-attach", "grey", 2)],
        "watchdogs": 3,
        "not_started": 1,
        "hold_timeouts": 2,
        "lost": 4,
        "limited": 8,
        "overload": 9,
        "punted": 6,
        "discarded": 7,
    }
    return cast("_core.PeerStats", {**stats, **counts})


class FakeNode:
    """The calls of a node that the collector makes."""

    def __init__(self, created_at: int | None) -> None:
        self._created_at = created_at

    def stats(self, now: int) -> _core.Stats:
        assert abs(now - time.time()) < 60
        return {
            "peers": {"mme1": peer(), 'mme"2': peer(lost=1)},
            "before_open": peer(discarded=1),
            "answer_bounds_ns": [1_000, 2_000_000],
            "answer_buckets": [1, 2, 4],
            "answer_sum_ns": 3_500_000_000,
            "connections": 4,
            "accepted": 10,
            "refused": 1,
            "refused_by": {"address": 1},
            "tls_failures": 2,
            "load": 65535,
            "unframeable": 1,
            "stuck": 1,
            "journal_available": True,
            "journal_bytes": 640,
            "journal_depth": 1,
            "journal_records": 9,
            "journal_syncs": 8,
            "journal_skipped": 0,
            "journal_failures": 0,
            "timers": 11,
            "timers_running": 10,
            "breaker_tripped": False,
            "overlay_entries": 2,
            "in_use_pairs": 12,
            "in_use_dropped": 13,
            "in_use_bytes": 4096,
        }

    def tls_expires(self) -> int | None:
        return 4_000_000_000

    def journal_position(self) -> int:
        return 25

    def lists_position(self) -> _core.ListsPosition | None:
        if self._created_at is None:
            return None
        return {"sequence": 78, "as_of": self._created_at, "deltas": 1, "devices": 3}

    def snapshot_info(self) -> _core.SnapshotInfo | None:
        if self._created_at is None:
            return None
        return {"sequence": 77, "created_at": self._created_at, "tac_as_of": 0, "counts": COUNTS, "bytes": 4096}


class FakeServer:
    """What the collector reads of a Diameter server."""

    def __init__(self) -> None:
        self.outcomes = Outcomes(
            refused=Counter({("mme1", 5005): 2}),
            discarded=Counter({"unreadable": 1}),
            undelivered=1,
            closed=Counter({"peer closed": 3}),
            messages=Counter({("in", "CER"): 4}),
        )
        self.peer_changes = Counter({("Closed", "R-Open"): 6})
        self.watchdog_changes = Counter({("INITIAL", "OKAY"): 7})

    def peer_table(self) -> list[SimpleNamespace]:
        def peer(name: str, state: str, *, disabled: bool = False) -> SimpleNamespace:
            return SimpleNamespace(origin_host=name, state=state, watchdog="OKAY", disabled=disabled)

        return [
            peer("mme1", "R-Open"),
            peer("dra", "I-Open"),
            peer("dra", "I-Open"),
            peer("x", "Closed", disabled=True),
        ]

    def open_peers(self) -> int:
        return 3


class FakeTrail:
    """The end of an audit trail."""

    head = (9, "")


class FakeKeeper:
    """What the collector reads of a keeper."""

    audit = FakeTrail()
    state = KeeperState(
        store_up=True,
        journal_position=20,
        audit_position=8,
        projected=19,
        refused=3,
        not_understood=1,
        store_failures=2,
    )


class FakeSweep:
    """What the collector reads of a sweep."""

    state = SweepState(leading=True, expired=4, ended=5, counts=Counts(running=10, stopped=2, expired=3, queued=6))


class FakeMessages:
    """What the collector reads of what sends messages."""

    outbox = SimpleNamespace(
        state=OutboxState(
            leading=True,
            stopped="paused",
            outcomes=Counter({("reminder", "failed", "unanswered"): 2}),
            parts=Counter({"accepted": 7}),
            oldest=1,
        ),
        active=3,
        receipts=SimpleNamespace(unknown=1),
    )
    window_use = staticmethod(lambda: 0.5)
    planner = SimpleNamespace(state=RemindersState(planned=Planned(20260101, 1, None, 9)))
    gateway = SimpleNamespace(
        status=lambda: [
            {"name": "first", "state": "bound", "accepted": 5, "window_in_use": 2, "window": 10, "rate": 0.0}
        ]
    )


class FakeLists:
    state = ListsState(
        Counter({("mqtt", "delta", "applied"): 2}), held=True, rows=Counter({"rows": 5, "wrong_rows": 1})
    )
    lists = SimpleNamespace(state=state)
    sources = staticmethod(lambda: [("http", ""), ("mqtt", "refused")])
    announced = staticmethod(lambda: 79)


def collector(age: int | None = 0, stale_after: int = 3600) -> NodeCollector:
    created_at = None if age is None else int(time.time()) - age
    node, server = cast("_core.Node", FakeNode(created_at)), cast(DiameterServer, FakeServer())
    keeper, sweep = cast(Keeper, FakeKeeper()), cast(Sweep, FakeSweep())
    found = NodeCollector(node, server, keeper, sweep, cast(Messages, FakeMessages()), stale_after)
    found.lists = cast(ListsDesk, FakeLists())
    return found


def samples(of: NodeCollector) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for metric in of.collect()
        for sample in metric.samples
    }


def value(of: NodeCollector, name: str, **labels: str) -> float:
    return samples(of)[name, frozenset(labels.items())]


def test_names_kinds_and_labels() -> None:
    found = {
        sample.name: (metric.type, set(sample.labels)) for metric in collector().collect() for sample in metric.samples
    }
    assert found == PROMISED


def test_every_metric_says_what_it_is() -> None:
    assert all(metric.documentation for metric in collector().collect())


def test_without_lists() -> None:
    bare = collector(age=None)
    assert {name for name, _ in samples(bare)} == set(PROMISED) - OF_A_SNAPSHOT
    assert value(bare, "eir_lists_valid") == 0


def test_values() -> None:
    node = collector()
    for expected, name, labels in [
        (5, "eir_answers_total", {"protocol": "s13", "peer": "mme1", "rule": "white", "list": "white"}),
        (2, "eir_answers_total", {"protocol": "s13", "peer": "mme1", "rule": "first-attach", "list": "grey"}),
        (2, "eir_refused_total", {"peer": "mme1", "code": "5005"}),
        (1, "eir_discarded_total", {"reason": "unreadable"}),
        (15, "eir_discarded_total", {"reason": "control-plane-full"}),
        (9, "eir_lost_answers_total", {}),
        (1, "eir_answer_seconds_bucket", {"le": "1e-06"}),
        (3, "eir_answer_seconds_bucket", {"le": "0.002"}),
        (7, "eir_answer_seconds_bucket", {"le": "+Inf"}),
        (7, "eir_answer_seconds_count", {}),
        (3.5, "eir_answer_seconds_sum", {}),
        (8, "eir_limited_total", {"peer": "mme1"}),
        (9, "eir_peer_overload_percent", {"peer": "mme1"}),
        (1, "eir_load", {}),
        (2, "eir_peer_state", {"peer": "dra", "state": "I-Open"}),
        (1, "eir_watchdog_state", {"peer": "mme1", "state": "OKAY"}),
        (3, "eir_lists_entries", {"section": "grey"}),
        (78, "eir_lists_sequence", {}),
        (77, "eir_lists_snapshot_sequence", {}),
        (3, "eir_lists_delta_devices", {}),
        (2, "eir_lists_packages_total", {"source": "mqtt", "kind": "delta", "result": "applied"}),
        (1, "eir_lists_held", {}),
        (1, "eir_lists_source_up", {"source": "http"}),
        (0, "eir_lists_source_up", {"source": "mqtt"}),
        (79, "eir_lists_announced_sequence", {}),
        (0, "eir_lists_damaged", {}),
    ]:
        assert value(node, name, **labels) == expected, (name, labels)


@pytest.mark.parametrize(("age", "stale"), [(0, 0), (3500, 0), (3700, 1)])
def test_stale_lists(age: int, stale: int) -> None:
    node = collector(age)
    assert value(node, "eir_lists_stale") == stale
    assert abs(value(node, "eir_lists_age_seconds") - age) <= 2


def test_lists_of_the_future_have_no_age() -> None:
    assert value(collector(-1000), "eir_lists_age_seconds") == 0


def test_served_as_prometheus_reads_it() -> None:
    port = metrics.serve(collector(), (ip_address("127.0.0.1"), 0))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert 'eir_answers_total{list="white",peer="mme\\"2",protocol="s13",rule="white"} 5.0\n' in text
    names = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if line.startswith("eir_")}
    assert names == set(PROMISED)
