"""The figures of timers: into the store, in memory, at start, at midnight, between nodes."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.figure import Figure
from benchmarks.stage import NODE_CPU, PYTHON, UNLISTED, Stage, ask, free_port, native, running
from benchmarks.wire import WirePeer, status_of

STARTS = 2_000_000
REDIS_STARTS = 1_000_000
TIMERS = 5_000_000
PER_MIDNIGHT = 200_000
MIDNIGHTS = 5
QUIET_SECONDS = 20
AFTER_SECONDS = 60
AGREED = 500
SUBSCRIBERS = 1_000_000


def _walk(count: int) -> tuple[object, ...]:
    """The load's arguments for so many devices never seen, each with a subscriber, as fast as the node takes them."""
    devices = ("--walk", "--first-imei", UNLISTED, "--imeis", count, "--imsis", SUBSCRIBERS)
    return ("--window", 64, "--connections", 8, "--seconds", 600, "--warm-up", 0, *devices)


def _projected_per_s(stage: Stage, config: Path, port: int, starts: int) -> float:
    """Starts a second that reach the store, from the first attach to the last commit."""
    begin = time.perf_counter()
    report = stage.load(port, *_walk(starts))
    if report["grey"] != starts:
        raise RuntimeError(f"not every first attach started a timer: {report}")
    while True:
        timers = ask(config, "status")["timers"]
        if timers["journal_position"] >= timers["journal_durable"] >= starts:
            break
        if not timers["store_up"]:
            raise RuntimeError(f"the store fails: {timers['store_error']}")
        time.sleep(0.5)
    return starts / (time.perf_counter() - begin)


def projection(stage: Stage) -> Iterator[Figure]:
    """First attaches into the stores, Python and the store's own work included."""
    with stage.node("project-sqlite") as (_, config, port):
        rate = _projected_per_s(stage, config, port, STARTS)
    yield Figure("project_sqlite_per_s", rate, "1/s", (">=", 10_000))
    with _redis(stage) as url:
        if url is not None:
            with stage.node("project-redis", settings=_in_redis(url)) as (_, config, port):
                rate = _projected_per_s(stage, config, port, REDIS_STARTS)
            yield Figure("project_redis_per_s", rate, "1/s", (">=", 20_000))


def memory(_: Stage) -> Iterator[Figure]:
    """What five million timers, each with a subscriber seen, take in the data plane."""
    yield Figure("bytes_per_timer", native("timers", TIMERS, cpu=NODE_CPU)["bytes_per_timer"], "B", ("<=", 64))


def restart(stage: Stage) -> Iterator[Figure]:
    """Five million timers, most of them not in the store yet: from the process's start to its first answer."""
    with stage.node("five-million") as (_, config, port):
        stage.load(port, *_walk(TIMERS))
    took = [stage.start_ms(config) / 1000 for _ in range(3)]
    yield Figure("start_5m_timers_s", median(took), "s", ("<=", 5))


def midnight(stage: Stage) -> Iterator[Figure]:
    """Many deadlines passing in one second: p99 of ordinary answers in the minute after, beside the time before."""
    ordinary = ("--rate", 20_000, "--busy-poll", *stage.about_listed())
    config, _ = stage.configure("midnight")
    first = int(time.time()) + 150
    each = QUIET_SECONDS + AFTER_SECONDS + 15
    deadlines = [first + number * each for number in range(MIDNIGHTS)]
    seed = [str(PYTHON), str(Path(__file__).parent / "seed_store.py"), str(config.parent / "timers.db")]
    subprocess.run([*seed, str(PER_MIDNIGHT), *map(str, deadlines)], check=True)
    ratios, before, after = [], [], []
    with stage.started(config) as port:
        for number, deadline in enumerate(deadlines, 1):
            wait = deadline - QUIET_SECONDS - 3 - time.time()
            if wait < 0:
                raise RuntimeError("the store took too long to be read: the first midnight has passed")
            time.sleep(wait)
            quiet = stage.load(port, *ordinary, "--seconds", QUIET_SECONDS)["latency_ns"]["p99"]
            time.sleep(max(0.0, deadline - time.time()))
            passing = stage.load(port, *ordinary, "--seconds", AFTER_SECONDS)["latency_ns"]["p99"]
            swept = ask(config, "status")["sweep"]["expired"]
            if swept < number * PER_MIDNIGHT:
                raise RuntimeError(f"only {swept} deadlines were noted after midnight {number}")
            before.append(quiet)
            after.append(passing)
            ratios.append(passing / quiet)
    yield Figure("midnight_p99_before_us", median(before) / 1000, "µs")
    yield Figure("midnight_p99_after_us", median(after) / 1000, "µs")
    yield Figure("midnight_p99_ratio", median(ratios), "ratio", ("<=", 3))


def agree(stage: Stage) -> Iterator[Figure]:
    """From a first attach answered by one node until another has the same deadline in memory, over Redis."""
    with _redis(stage) as url:
        if url is None:
            return
        first = stage.node("agree-1", settings=_in_redis(url, "eir-1.test"))
        second = stage.node("agree-2", settings=_in_redis(url, "eir-2.test"))
        took = []
        with first as (_, here, port), second as (_, there, _), WirePeer(port) as peer:
            for number in range(AGREED):
                imei = f"{UNLISTED + number * 7919:014}"
                if status_of(peer.ask(imei, f"00101{number:010}")) != "grey":
                    raise RuntimeError("a device never seen was not answered grey")
                begin = time.perf_counter()
                wanted = ask(here, "check", imei=imei)["timer"][1]
                while (ask(there, "check", imei=imei)["timer"] or (0, 0))[1] != wanted:
                    if time.perf_counter() - begin > 10:
                        raise RuntimeError("the nodes do not come to agree")
                took.append((time.perf_counter() - begin) * 1000)
    yield Figure("agree_ms_p50", median(took), "ms")
    yield Figure("agree_ms_p99", quantiles(took, n=100)[98], "ms", ("<=", 200))


def _in_redis(url: str, name: str = "") -> str:
    """The part of a configuration that puts the store into Redis."""
    node = f'origin_host = "{name}"\n' if name else ""
    return f'{node}[store]\nkind = "redis"\n[redis]\nnodes = ["{url}"]\n'


@contextmanager
def _redis(stage: Stage) -> Iterator[str | None]:
    """A Redis of our own on the load's processor, with its log on the disk; None, said aloud, where there is none."""
    program = shutil.which("redis-server")
    if program is None:
        print("NOT MEASURED: redis-server is not installed", flush=True)
        yield None
        return
    directory = stage.directory / f"redis-{time.monotonic_ns()}"
    directory.mkdir()
    port = free_port()
    command = [program, "--port", port, "--bind", "127.0.0.1", "--dir", directory, "--appendonly", "yes", "--save", ""]
    with running(list(map(str, command)), cpu=None, stdout=subprocess.DEVNULL):
        yield f"redis://127.0.0.1:{port}"


def main_figures() -> tuple[Any, ...]:
    """The groups, in the order in which they are measured."""
    return (projection, memory, restart, midnight, agree)
