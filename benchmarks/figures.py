"""Each figure: how it is measured, beside its baseline where it has one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from benchmarks import encoding, timers
from benchmarks.diameter import diameter
from benchmarks.figure import Figure
from benchmarks.following import following
from benchmarks.messages import messages
from benchmarks.stage import IN_USE, LISTED, NODE_CPU, TACS, UNLISTED, Stage, ask, native


def lists(stage: Stage) -> Iterator[Figure]:
    """The file's size and the time to build it, from CSV."""
    built = stage.built
    yield Figure("snapshot_bytes_per_imei", built["snapshot_bytes_per_imei"], "B", ("<=", 2.2))
    yield Figure("build_10m_s", built["build_s"], "s")


def answer(stage: Stage) -> Iterator[Figure]:
    """One ECR in process, median of five runs."""
    runs = [native("answer", stage.snapshot, LISTED, TACS, 2_000_000, IN_USE, cpu=NODE_CPU) for _ in range(5)]
    yield Figure("answer_ns_p50", median(run["answer_ns_p50"] for run in runs), "ns", ("<=", 400))
    yield Figure("answer_ns_p99", median(run["answer_ns_p99"] for run in runs), "ns")


def start(stage: Stage) -> Iterator[Figure]:
    """Process start to first answer, median of five."""
    took = [stage.start_ms(stage.configure(f"start-{run}")[0]) for run in range(5)]
    yield Figure("start_ms", median(took), "ms", ("<=", 500))


def tcp(stage: Stage) -> Iterator[Figure]:
    """The node beside the echo, in turn, medians of seven pairs."""
    cases: tuple[tuple[str, tuple[object, ...], Callable[[dict[str, Any]], float]], ...] = (
        ("w256", ("--window", 256, "--seconds", 2), lambda report: report["rate"]),
        ("w1", ("--window", 1, "--seconds", 2, "--busy-poll"), lambda report: report["latency_ns"]["p50"]),
        ("c200", ("--window", 16, "--connections", 200, "--seconds", 2), lambda report: report["rate"]),
    )
    with stage.node("tcp") as (_, _, node), stage.echo() as echo:
        for name, arguments, figure in cases:
            pairs = []
            for _ in range(7):
                pairs.append(
                    tuple(figure(stage.load(port, *arguments, *stage.about_listed())) for port in (node, echo))
                )
            ours, bare = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
            ratio = median(pair[0] / pair[1] for pair in pairs)
            if name == "w1":
                yield Figure("tcp_w1_rtt_us", ours / 1000, "µs")
                yield Figure("tcp_w1_vs_echo", ratio, "ratio", ("<=", 1.15))
                continue
            yield Figure(f"tcp_{name}_per_s", ours, "1/s", (">=", 1_000_000) if name == "w256" else None)
            yield Figure(f"tcp_{name}_echo_per_s", bare, "1/s")
            yield Figure(f"tcp_{name}_vs_echo", ratio, "ratio", (">=", 0.5))


def disturbed(stage: Stage) -> Iterator[Figure]:
    """p99 at 20,000/s with a spinning Python thread and snapshot swaps, beside without; median of fifteen pairs."""
    arguments = ("--rate", 20_000, "--seconds", 2, "--busy-poll", *stage.about_listed())
    with stage.node("disturbed", "disturbed_node.py") as (process, config, port):
        assert process.stdin is not None
        pairs = []
        for _ in range(15):
            quiet = stage.load(port, *arguments)["latency_ns"]["p99"]
            process.stdin.write("spin\n")
            process.stdin.flush()
            over = threading.Event()
            swaps = threading.Thread(target=_swap, args=(config, over))
            swaps.start()
            pairs.append((quiet, stage.load(port, *arguments)["latency_ns"]["p99"]))
            over.set()
            swaps.join()
            process.stdin.write("rest\n")
            process.stdin.flush()
    yield Figure("p99_quiet_us", median(quiet for quiet, _ in pairs) / 1000, "µs")
    yield Figure("p99_disturbed_us", median(spun for _, spun in pairs) / 1000, "µs")
    yield Figure("p99_disturbed_ratio", median(spun / quiet for quiet, spun in pairs), "ratio", ("<=", 3))


def _swap(config: Any, over: threading.Event) -> None:
    while not over.wait(0.5):
        ask(config, "lists-load")


def first_attach(stage: Stage) -> Iterator[Figure]:
    """A minute of devices never seen, each on the disk before its answer."""
    walk = ("--walk", "--first-imei", UNLISTED, "--imeis", 60_000_000)
    with stage.node("first-attach") as (_, config, port):
        before = ask(config, "status")["stats"]
        report = stage.load(port, "--window", 64, "--connections", 8, "--seconds", 60, "--warm-up", 1, *walk)
        after = ask(config, "status")["stats"]
    timeouts = sum(peer["hold_timeouts"] + peer["not_started"] for peer in after["peers"].values())
    if report["grey"] != report["answered"] or timeouts or after["timers"] < report["answered"]:
        raise RuntimeError(f"not every first attach was held and started: {report} {timeouts}")
    yield Figure("first_attach_per_s", report["rate"], "1/s", (">=", 50_000))
    yield Figure("first_attach_p99_ms", report["latency_ns"]["p99"] / 1e6, "ms", ("<=", 30))
    yield Figure("first_attach_fdatasyncs", after["journal_syncs"] - before["journal_syncs"], "count")
    yield Figure("first_attach_hold_timeouts", timeouts, "count", ("<=", 0))


def build_100m(stage: Stage) -> Iterator[Figure]:
    """A hundred million devices over 20,000 TACs, 90/5/5 white, grey, black, from CSV: time and memory."""
    snapshot, sample = stage.directory / "100m.eirs", stage.directory / "100m.sample"
    built = native("lists", snapshot, sample, 100_000_000, 20_000, 1)
    snapshot.unlink()
    yield Figure("build_100m_s", built["build_s"], "s", ("<=", 180))
    yield Figure("build_peak_rss_mb", built["build_peak_rss_mb"], "MB", ("<=", 2_000))


ALL = (
    lists,
    encoding.encoding,
    answer,
    start,
    tcp,
    diameter,
    disturbed,
    following,
    first_attach,
    *timers.main_figures(),
    messages,
)
LONG = (build_100m, encoding.billion)
"""What takes minutes, and gigabytes of disk: `make bench-long`."""
