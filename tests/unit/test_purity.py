"""Who may touch the world: a few modules have sockets, files, tasks or a clock, and all the others are pure."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import eir

PACKAGE = Path(eir.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
WORLDLY = {
    "app.py",
    "audit.py",
    "cli.py",
    "cli_audit.py",
    "cli_options.py",
    "cli_sms.py",
    "cli_subscribers.py",
    "cli_timers.py",
    "config.py",
    "control.py",
    "diameter/server.py",
    "doctor.py",
    "in_use.py",
    "lists/build.py",
    "log.py",
    "metrics.py",
    "subscribers/importing.py",
    "subscribers/redis_directory.py",
    "subscribers/sqlite_directory.py",
    "timers/desk.py",
    "timers/keeper.py",
    "timers/redis_check.py",
    "timers/redis_nodes.py",
    "timers/redis_store.py",
    "timers/sqlite_file.py",
    "timers/sqlite_store.py",
    "timers/sweep.py",
}
# What pure code may import, and of what else only these names: values, not the clock or the system.
PURE_MODULES = {
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "hashlib",
    "ipaddress",
    "itertools",
    "json",
    "msgspec",
    "operator",
    "re",
    "struct",
    "types",
    "typing",
    "zlib",
    "zoneinfo",
}
PURE_NAMES = {"datetime": {"UTC", "date", "datetime", "time", "timedelta"}, "urllib.parse": {"urlsplit"}}
# Of the project's own, what is itself pure.
CLOCKS = {"now", "today", "utcnow"}


def name_of(module: Path) -> str:
    return str(module.relative_to(PACKAGE))


PURE = [module for module in MODULES if name_of(module) not in WORLDLY and module.stem not in ("__init__", "__main__")]


def imports_of(module: Path) -> set[tuple[str, str]]:
    """(module, name) of everything that a module imports; the name is empty where the module itself is."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            found |= {(node.module or "", alias.name) for alias in node.names}
    return found


def test_the_worldly_modules_are_there() -> None:
    assert {name_of(module) for module in MODULES} >= WORLDLY
    assert {name_of(module) for module in PURE} == {
        *(
            f"diameter/{name}.py"
            for name in ("answer", "capabilities", "dictionary", "message", "peer", "s13", "watchdog")
        ),
        "audit_chain.py",
        "subscribers/directory.py",
        "subscribers/rows.py",
        "timers/grey.py",
        "timers/projection.py",
        "timers/redis_layout.py",
        "timers/redis_scripts.py",
        "timers/redis_settings.py",
        "timers/store.py",
    }


@pytest.mark.parametrize("module", PURE, ids=name_of)
def test_imports_nothing_that_has_a_socket_a_file_or_a_clock(module: Path) -> None:
    pure_own = {f"eir.{name_of(other).removesuffix('.py').replace('/', '.')}" for other in PURE}
    for imported, name in imports_of(module):
        if imported.partition(".")[0] == "eir":
            assert imported in pure_own or f"{imported}.{name}" in pure_own, (imported, name)
        else:
            known = imported.partition(".")[0] in PURE_MODULES or name in PURE_NAMES.get(imported, set())
            assert known, (imported, name)


@pytest.mark.parametrize("module", PURE, ids=name_of)
def test_asks_no_clock_and_opens_nothing(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert called not in CLOCKS | {"open", "__import__", "print", "input"}, called


@pytest.mark.parametrize("module", [*(m for m in MODULES if m.stem in ("__init__",))], ids=name_of)
def test_packages_hold_no_code(module: Path) -> None:
    assert not imports_of(module)
