"""Measures every figure, prints a table and writes build/bench.json: name -> {value, unit}.

`python -m benchmarks [GROUP ...]` measures some groups only and writes nothing; `long` is only measured
when it is named. Needs two processors and a disk that is not in memory: the journal's figures are about the disk.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.figures import ALL, LONG
from benchmarks.stage import ROOT, Stage


def _disk(directory: Path) -> str:
    done = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{os.cpu_count()} x {model}, {platform.system()} {platform.release().partition('-')[0]}"


def _print(figure: Figure) -> None:
    target = "" if figure.target is None else f"{figure.target[0]} {figure.target[1]:,g}"
    verdict = "" if figure.target is None else ("met" if figure.met() else "MISSED")
    value = f"{figure.value:,.0f}" if abs(figure.value) >= 1000 else f"{figure.value:,.3g}"
    print(f"{figure.name:<28} {value:>12} {figure.unit:<6} {target:>14} {verdict}", flush=True)


def main(groups: list[str]) -> None:
    """Measures the named groups, or all."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    wanted = [group for group in (*ALL, *LONG) if group.__name__ in groups] if groups else ALL
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=build, prefix="bench-") as directory:
        if _disk(Path(directory)) in {"tmpfs", "ramfs"}:
            sys.exit("benchmarks: build/ lies in memory; the journal's figures would be about nothing")
        machine = f"{_machine()}, {_disk(Path(directory))}, {time.strftime('%Y-%m-%d')}"
        print(machine)
        stage = Stage(Path(directory))
        for group in wanted:
            for figure in group(stage):
                _print(figure)
                figures.append(figure)
    if not groups:
        values: dict[str, object] = {figure.name: {"value": figure.value, "unit": figure.unit} for figure in figures}
        (build / "bench.json").write_text(json.dumps({"machine": {"value": machine, "unit": ""}, **values}, indent=2))


main(sys.argv[1:])
