"""The Diameter code is bytes and times in, bytes and times out: of its modules only `server.py` may do I/O."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

MODULES = sorted(
    path for path in (Path(__file__).parents[3] / "eir" / "diameter").glob("*.py") if path.stem != "server"
)
PURE = {"__future__", "collections", "dataclasses", "enum", "ipaddress", "struct", "types", "typing", "eir"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_imports_nothing_that_has_a_socket_a_file_or_a_clock(module: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= PURE
