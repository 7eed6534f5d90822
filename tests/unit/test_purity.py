"""Who may touch the world: a few modules have sockets, files, tasks or a clock, and all the others are pure."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import eir

ROOT = Path(eir.__file__).parents[1]
MODULES = sorted(module for package in ("eir", "sms") for module in (ROOT / package).rglob("*.py"))
WORLDLY = {
    "eir/app.py",
    "eir/audit.py",
    "eir/cli.py",
    "eir/cli_audit.py",
    "eir/cli_exchange.py",
    "eir/cli_lists.py",
    "eir/cli_options.py",
    "eir/cli_publisher.py",
    "eir/cli_peers.py",
    "eir/cli_sms.py",
    "eir/cli_subscribers.py",
    "eir/cli_timers.py",
    "eir/cli_trace.py",
    "eir/config.py",
    "eir/control.py",
    "eir/diameter/server.py",
    "eir/doctor.py",
    "eir/in_use.py",
    "eir/lists/apply.py",
    "eir/lists/build.py",
    "eir/lists/pieces.py",
    "eir/lists/report_pairs.py",
    "eir/lists/reports.py",
    "eir/lists/source_settings.py",
    "eir/lists/sync_dir.py",
    "eir/lists/sync_http.py",
    "eir/lists/sync_mqtt.py",
    "eir/lists/versions.py",
    "eir/lists_desk.py",
    "eir/log.py",
    "eir/metrics.py",
    "eir/peer_book.py",
    "eir/publisher/catalogue.py",
    "eir/publisher/server.py",
    "eir/peer_desk.py",
    "eir/subscribers/importing.py",
    "eir/subscribers/redis_directory.py",
    "eir/subscribers/sqlite_directory.py",
    "eir/timers/desk.py",
    "eir/timers/keeper.py",
    "eir/timers/redis_check.py",
    "eir/timers/redis_nodes.py",
    "eir/timers/redis_queue.py",
    "eir/timers/redis_store.py",
    "eir/timers/sqlite_file.py",
    "eir/timers/sqlite_queue.py",
    "eir/timers/sqlite_store.py",
    "eir/timers/sweep.py",
    "eir/tracing.py",
    "sms/desk.py",
    "sms/file_gateway.py",
    "sms/outbox.py",
    "sms/receipts.py",
    "sms/reminders.py",
    "sms/service.py",
    "sms/setup.py",
    "sms/slots.py",
    "sms/smpp.py",
    "sms/smpp_session.py",
    "sms/webhook.py",
}
# What pure code may import, and of what else only these names: values, not the clock or the system.
PURE_MODULES = {
    "__future__",
    "codecs",
    "collections",
    "cryptography",
    "dataclasses",
    "enum",
    "hashlib",
    "heapq",
    "ipaddress",
    "itertools",
    "json",
    "msgspec",
    "operator",
    "re",
    "smpplib",
    "struct",
    "tomllib",
    "types",
    "typing",
    "zlib",
    "zoneinfo",
}
PURE_NAMES = {
    "bisect": {"bisect_left"},
    "functools": {"cache"},
    "pathlib": {"Path"},
    "datetime": {"UTC", "date", "datetime", "time", "timedelta"},
    "random": {"Random"},
    "urllib.parse": {"urlsplit"},
}
# Of the project's own, what is itself pure.
CLOCKS = {"now", "today", "utcnow"}


def name_of(module: Path) -> str:
    return str(module.relative_to(ROOT))


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
            f"eir/diameter/{name}.py"
            for name in (
                "actions",
                "answer",
                "capabilities",
                "deadlines",
                "dictionary",
                "message",
                "own_requests",
                "peer",
                "peer_fsm",
                "peer_policy",
                "peer_timers",
                "peer_view",
                "peers",
                "requests",
                "s13",
                "trace",
                "watchdog",
            )
        ),
        "eir/audit_chain.py",
        *(f"eir/lists/{name}.py" for name in ("guard", "manifest", "package", "zone")),
        "eir/subscribers/directory.py",
        "eir/subscribers/rows.py",
        *(
            f"eir/timers/{name}.py"
            for name in ("grey", "projection", "queue", "redis_layout", "redis_scripts", "redis_settings", "store")
        ),
        *(
            f"sms/{name}.py"
            for name in (
                "gateway",
                "hours",
                "progress",
                "rate",
                "segment",
                "settings",
                "smpp_pdu",
                "templates",
                "wording",
            )
        ),
    }


@pytest.mark.parametrize("module", PURE, ids=name_of)
def test_imports_nothing_that_has_a_socket_a_file_or_a_clock(module: Path) -> None:
    pure_own = {name_of(other).removesuffix(".py").replace("/", ".") for other in PURE}
    for imported, name in imports_of(module):
        if imported.partition(".")[0] in ("eir", "sms"):
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
