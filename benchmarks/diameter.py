"""The figures of peers: TLS beside an echo over TLS, full requests, many connections, and neighbours that misbehave."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.certificates import Certificates
from benchmarks.figure import Figure
from benchmarks.stage import IN_USE, LISTED, LOAD_CPU, NODE_CPU, RELEASE, TACS, Stage, ask, free_port, native, running

CONNECTIONS = 2000
PER_CONNECTION = 50
LIMIT = 1000
FLOOD = 100 * LIMIT
FLOODER = "flood.epc.test"
MUTE = "mute.epc.test"
EVERYBODY = '[[diameter.peers]]\norigin_host = "*"\nnetworks = ["127.0.0.0/8"]\n'
MANY = f"max_connections = {CONNECTIONS + 100}\nmax_connections_per_address = {CONNECTIONS + 100}\n"


def tls(stage: Stage) -> Iterator[Figure]:
    """The node over TLS beside an echo over TLS, in turn, medians of seven pairs; both ask for whole handshakes."""
    certificates, port = _certificates(stage), free_port()
    arguments = ("--window", 256, "--seconds", 2, *stage.about_listed())
    ours = stage.node("tls", diameter=certificates.configuration(port) + EVERYBODY)
    with ours, stage.echo(certificates) as echo:
        for name, version in (("tls", "1.3"), ("tls12", "1.2")):
            speaking = (*arguments, *certificates.load_arguments(version))
            pairs = [tuple(stage.load(to, *speaking)["rate"] for to in (port, echo)) for _ in range(7)]
            yield Figure(f"{name}_w256_per_s", median(node for node, _ in pairs), "1/s")
            yield Figure(f"{name}_w256_echo_per_s", median(bare for _, bare in pairs), "1/s")
            ratio = median(node / bare for node, bare in pairs)
            yield Figure(f"{name}_w256_vs_echo", ratio, "ratio", (">=", 0.5) if version == "1.3" else None)


def full(stage: Stage) -> Iterator[Figure]:
    """An ECR with all that may be in one beside the plain one, in process, median of five runs."""
    runs = [native("answer", stage.snapshot, LISTED, TACS, 2_000_000, IN_USE, cpu=NODE_CPU) for _ in range(5)]
    yield Figure("ecr_full_ns_p50", median(run["full_ns_p50"] for run in runs), "ns")
    ratio = median(run["full_ns_p50"] / run["answer_ns_p50"] for run in runs)
    yield Figure("ecr_full_vs_plain", ratio, "ratio", ("<=", 2))


def connections(stage: Stage) -> Iterator[Figure]:
    """Two thousand connections: what each takes while it is idle, and whether all are answered when none is."""
    certificates, tls_port = _certificates(stage), free_port()
    arguments = ("--connections", CONNECTIONS, *stage.about_listed())
    figures = (
        ("kb_per_conn", ("<=", 40.0), ()),
        ("tls_kb_per_conn", None, certificates.load_arguments("1.3")),
    )
    for name, target, speaking in figures:
        # Each on a fresh node: what another run has left behind would be taken for nothing.
        settings = MANY + certificates.configuration(tls_port) + EVERYBODY
        with stage.node(name, diameter=settings) as (process, config, plain_port):
            port = tls_port if speaking else plain_port
            # What a node takes once, and not for each connection, is to be there before.
            stage.load(port, "--window", 16, "--connections", 4, "--seconds", 2, *stage.about_listed(), *speaking)
            before = _resident_kb(process.pid)
            with _idle(port, *arguments, *speaking):
                each = (_resident_kb(process.pid) - before) / CONNECTIONS
            yield Figure(name, each, "kB", target)
            if not speaking:
                _until_none(config)
                rate = ("--rate", CONNECTIONS * PER_CONNECTION, "--seconds", 10, "--warm-up", 2, "--busy-poll")
                report = stage.try_load(port, *rate, *arguments)
                yield Figure("conn2000_answered", report["share_answered"], "share", (">=", 1.0))
                yield Figure("conn2000_p99_us", report["latency_ns"]["p99"] / 1000, "µs")


def flood(stage: Stage) -> Iterator[Figure]:
    """p99 of a peer while another sends a hundred times what it may and a third reads nothing; fifteen pairs."""
    entries = (
        f"{EVERYBODY}{_entry(FLOODER)}requests_per_second = {LIMIT}\n{_entry(MUTE)}"  # "*" is for the one that behaves
    )
    arguments = ("--rate", 5000, "--seconds", 2, "--busy-poll", *stage.about_listed())
    pairs, limited = [], []
    with stage.node("flood", diameter=entries) as (_, _, port):
        for _ in range(15):
            alone = stage.load(port, *arguments)["latency_ns"]["p99"]
            with _hostile(stage, port) as report:
                pairs.append((alone, stage.load(port, *arguments)["latency_ns"]["p99"]))
            limited.append(report["limited"] / report["seconds"])
    if median(limited) < FLOOD * 0.8:
        raise RuntimeError(f"the flood was not limited, or was none: {limited}")
    yield Figure("flood_limited_per_s", median(limited), "1/s")
    yield Figure("flood_p99_alone_us", median(alone for alone, _ in pairs) / 1000, "µs")
    yield Figure("flood_p99_us", median(beside for _, beside in pairs) / 1000, "µs")
    yield Figure("flood_p99_ratio", median(beside / alone for alone, beside in pairs), "ratio", ("<=", 3))


def diameter(stage: Stage) -> Iterator[Figure]:
    """All of them."""
    for group in (tls, full, connections, flood):
        yield from group(stage)


def _entry(origin_host: str) -> str:
    return f'[[diameter.peers]]\norigin_host = "{origin_host}"\nnetworks = ["127.0.0.0/8"]\n'


def _certificates(stage: Stage) -> Certificates:
    return Certificates(stage.directory / f"certificates-{time.monotonic_ns()}")


def _resident_kb(process: int) -> int:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))


@contextmanager
def _idle(port: int, *arguments: object) -> Iterator[None]:
    """Open connections on which next to nothing is asked."""
    command = [RELEASE / "load", "--target", f"127.0.0.1:{port}", "--rate", 1, "--seconds", 600, "--announce"]
    with running([*map(str, command), *map(str, arguments)], LOAD_CPU, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "open\n":
            raise RuntimeError("the connections do not open")
        time.sleep(3)
        yield


def _until_none(config: Path) -> None:
    """Waits until the node has seen that its peers are gone."""
    for _ in range(300):
        if ask(config, "status")["stats"]["connections"] == 0:
            return
        time.sleep(0.1)
    raise RuntimeError("the node keeps connections that are closed")


@contextmanager
def _hostile(stage: Stage, port: int) -> Iterator[dict[str, Any]]:
    """Who floods and who does not read, both open; what became of them is there after the block."""
    report: dict[str, Any] = {}
    command = [RELEASE / "hostile", "--target", f"127.0.0.1:{port}", "--imei-file", stage.sample]
    names = ["--flood-origin", FLOODER, "--flood-rate", FLOOD, "--mute-origin", MUTE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with running([*map(str, command), *map(str, names)], LOAD_CPU, **pipes) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("who floods, or who does not read, was not let in")
        yield report
        out, _ = process.communicate(timeout=30)
        report.update(json.loads(out))
