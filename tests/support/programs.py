"""Programs and rights that a test needs and a machine may lack."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skips the test for what the machine lacks; under CI, where nothing may be lacking, fails it."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and under CI that is an error")
    pytest.skip(f"NOT TESTED: {what}")


def need(program: str) -> str:
    """The path of a program; skips or fails as `lacking` where there is none."""
    path = shutil.which(program)
    if path is None:
        lacking(f"{program} is not installed")
    return path
