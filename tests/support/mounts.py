"""A file system of a few pages, so that a test can fill it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.programs import lacking

_MAY_MOUNT = 1 << 21
"""CAP_SYS_ADMIN."""


def _may_mount() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return os.geteuid() == 0 and bool(int(effective.split()[1], 16) & _MAY_MOUNT)


@contextmanager
def small_disk(path: Path, octets: int) -> Iterator[None]:
    """Mounts an empty tmpfs of this size at `path`; skips the test where that needs rights that it has not."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={octets},mode=0750", "eir-test", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        if _may_mount():
            lacking(f"mount says {mounted.stderr.strip()!r}")
        pytest.skip("NOT TESTED: a full disk needs a file system of its own, and so the right to mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True, timeout=30)
