"""The encoding of IMEIs: what the lists of a country, and of the world, take in the snapshot, and how long
a look-up takes in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figure import Figure
from benchmarks.stage import NODE_CPU, Stage, forget, native

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


def billion(stage: Stage) -> Iterator[Figure]:
    """A billion devices over 50,000 TACs, from CSV: file and memory, and the time from the start of a node's process to
    its first answer, where the file is on the disk only and where it is in memory."""
    snapshot, sample = stage.directory / "billion.eirs", stage.directory / "billion.sample"
    built = native("lists", snapshot, sample, _BILLION, 50_000, 1)
    yield Figure("billion_gb", built["bytes"] / 1e9, "GB", ("<=", 1.5))
    yield Figure("billion_build_s", built["build_s"], "s")
    yield Figure("billion_build_peak_rss_mb", built["build_peak_rss_mb"], "MB")
    listed = sample.read_text().split("\n", 1)[0]
    config, _ = stage.configure("billion", snapshot=snapshot)
    forget(snapshot)
    yield Figure("billion_start_s", stage.start_ms(config, listed) / 1000, "s", ("<=", 1))
    yield Figure("billion_start_again_s", stage.start_ms(config, listed) / 1000, "s")
    snapshot.unlink()


def _written(section: Path, about: tuple[object, ...]) -> dict[str, Any]:
    return native("test_set", *about, "--section", section)


def _looked_up(section: Path, about: tuple[object, ...]) -> dict[str, Any]:
    return native("lookup", *about, "--section", section, cpu=NODE_CPU)
