"""The encoding of IMEIs: what a country's lists take in the snapshot, and how long a look-up takes in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figure import Figure
from benchmarks.stage import NODE_CPU, Stage, native

_COUNTRY = 100_000_000
_BILLION = 1_000_000_000


def encoding(stage: Stage) -> Iterator[Figure]:
    """100 million IMEIs, at random in 20,000 TACs and in runs; look-ups one after the other, median of five runs."""
    section = stage.directory / "imeis"
    about: tuple[object, ...] = ("--shape", "clustered", "--imeis", _COUNTRY)
    yield Figure("bytes_per_imei_clustered", _written(section, about)["bytes_per_imei"], "B", ("<=", 0.35))
    about = ("--shape", "uniform", "--imeis", _COUNTRY, "--tacs", 20_000)
    yield Figure("uniform_vs_entropy", _written(section, about)["vs_entropy"], "ratio", ("<=", 1.3))
    runs = [_looked_up(section, about) for _ in range(5)]
    yield Figure("lookup_ns_p50", median(run["lookup_ns_p50"] for run in runs), "ns", ("<=", 150))
    yield Figure("lookup_grouped_ns_p50", median(run["grouped_ns_p50"] for run in runs), "ns")
    yield Figure("memory_ns_p50", median(run["memory_ns_p50"] for run in runs), "ns")
    section.unlink()


def long(stage: Stage) -> Iterator[Figure]:
    """A billion IMEIs, at random in 50,000 TACs."""
    section = stage.directory / "imeis"
    about = ("--shape", "uniform", "--imeis", _BILLION, "--tacs", 50_000)
    yield Figure("billion_gb", _written(section, about)["bytes"] / 1e9, "GB", ("<=", 1.5))
    run = _looked_up(section, about)
    yield Figure("billion_start_s", run["start_s"], "s", ("<=", 1))
    yield Figure("billion_lookup_ns_p50", run["lookup_ns_p50"], "ns")
    section.unlink()


def _written(section: Path, about: tuple[object, ...]) -> dict[str, Any]:
    return native("test_set", *about, "--section", section)


def _looked_up(section: Path, about: tuple[object, ...]) -> dict[str, Any]:
    return native("lookup", *about, "--section", section, cpu=NODE_CPU)
