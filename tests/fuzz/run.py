"""Build the fuzz targets and run each of them for a bounded time.

The targets are plain libFuzzer programs, built on stable Rust with the coverage flags that cargo-fuzz would give, and
without a sanitizer: there is next to no unsafe code below them, and what they look for is a panic, an endless loop, too
much memory, or an invariant of their own that does not hold. `corpus/<target>/` holds seeds and is only read.

Exit status: 0 where all is well, or where there is no C++ compiler to build libFuzzer with (1 then if `CI` is set, so
that it does not go unnoticed there); 1 where a target fails, with what to run to see it again.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "target" / "fuzz"
FINDINGS = BUILD / "findings"
COVERAGE_FLAGS = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Ccodegen-units=1",
    "--cfg",
    "fuzzing",
]
LONGEST_INPUT = 4096
SLOWEST_INPUT_S = 10


@dataclass(frozen=True, slots=True)
class Run:
    """What one target came to."""

    failed: bool
    executions: int
    log: str


def host() -> str:
    """Name the target triple of this machine."""
    said = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    match = re.search(r"^host: (\S+)$", said, re.MULTILINE)
    if match is None:
        raise SystemExit("rustc -vV does not name the host")
    return match.group(1)


def build() -> Path:
    """Build every target; return the directory that they are in."""
    triple = host()
    # With a target named, the flags do not reach build scripts, which have no libFuzzer to link to.
    command = ["cargo", "build", "--locked", "--release", "--quiet", "--target", triple]
    environment = os.environ | {"CARGO_TARGET_DIR": str(BUILD), "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(COVERAGE_FLAGS)}
    if subprocess.run(command, cwd=HERE, env=environment).returncode:
        raise SystemExit("The fuzz targets do not build.")
    return BUILD / triple / "release"


def run(program: Path, seconds: int, memory_mb: int) -> Run:
    """Run one target from its seeds; what it finds goes to a directory that is thrown away, failures to FINDINGS."""
    FINDINGS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{program.name}-") as found:
        command = [
            str(program),
            f"-max_total_time={seconds}",
            f"-rss_limit_mb={memory_mb}",
            f"-timeout={SLOWEST_INPUT_S}",
            f"-max_len={LONGEST_INPUT}",
            f"-artifact_prefix={FINDINGS / program.name}-",
            "-print_final_stats=1",
            found,
            str(HERE / "corpus" / program.name),
        ]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    count = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    return Run(done.returncode != 0, int(count.group(1)) if count else 0, done.stderr)


def reproduction(program: Path, log: str) -> str:
    """Say how to see a failure again."""
    artifact = re.search(r"Test unit written to (\S+)", log)
    if artifact is None:
        return f"  no input was kept; run {program} on tests/fuzz/corpus/{program.name}"
    return f"  reproduce: {program} {artifact.group(1)}"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Run the fuzz targets for a bounded time.")
    parser.add_argument("targets", nargs="*", help="which (all)")
    parser.add_argument("--seconds", type=int, default=15, help="for each target (15)")
    parser.add_argument("--memory-mb", type=int, default=2048, help="above which a target has failed (2048)")
    return parser.parse_args()


def main() -> int:
    """Build and run; return the exit status."""
    given = arguments()
    known = sorted(path.stem for path in (HERE / "targets").glob("*.rs"))
    targets: list[str] = given.targets or known
    unknown = sorted(set(targets) - set(known))
    if unknown:
        print(f"no such target: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 1
    compilers = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    if not any(shutil.which(compiler) for compiler in compilers if compiler):
        print("*** NOTHING WAS FUZZED: there is no C++ compiler here (tried c++, g++, clang++).", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    programs = build()
    total, failed = 0, False
    for target in targets:
        result = run(programs / target, given.seconds, given.memory_mb)
        total += result.executions
        rate = result.executions // max(given.seconds, 1)
        print(f"{target:<16} {result.executions:>10} executions  {rate:>8}/s  {'FAILED' if result.failed else 'ok'}")
        if result.failed:
            failed = True
            print("\n".join(f"  | {line}" for line in result.log.splitlines()[-40:]))
            print(reproduction(programs / target, result.log))
    print(f"{'total':<16} {total:>10} executions")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
