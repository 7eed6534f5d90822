"""What a store of timers must hold, worked out from what the nodes have recorded, and what it does hold."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from eir.audit import AuditLog
from eir.timers import grey, projection
from eir.timers.grey import Device, Event, Rules, Shift, Timer
from eir.timers.projection import ShiftRemoved, ShiftSet
from eir.timers.store import Message, Store, pages
from support.node import NodeProcess, replica, until

PATIENCE = 60.0


class Contents(NamedTuple):
    """Devices and their timers by IMEI, and the keys of the messages that wait."""

    devices: dict[int, Device]
    timers: dict[int, Timer | None]
    messages: frozenset[tuple[str, int, str, int]]


def settled(node: NodeProcess, patience: float = PATIENCE) -> None:
    """Waits until everything that a node has recorded is in its store."""

    def there() -> bool:
        told = node.ask("status")
        timers = told["timers"]
        return bool(
            timers["store_up"]
            and timers["journal_position"] >= timers["journal_durable"]
            and timers["audit_position"] >= told["audit_lines"]
        )

    until(there, patience)


def recorded(node: NodeProcess, scratch: Path) -> list[Event | ShiftSet | ShiftRemoved]:
    """Every event that a node has recorded and still keeps, the journal's first."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(node.settings.path(node.settings.journal.directory), scratch / "journal")
    shutil.copytree(node.settings.path(node.settings.audit.directory), scratch / "audit")
    copy = replica(node, scratch / "journal")
    events: list[Event | ShiftSet | ShiftRemoved] = []
    position = 0
    while True:
        records, reached = copy.read_journal(position, 10_000)
        events += [projection.from_journal(record).event for record in records]
        if reached == position:
            break
        position = reached
    copy.stop()
    audit = AuditLog.open(scratch / "audit", node.settings.node.origin_host, 1 << 20)
    for line in audit.read(0, 1_000_000):
        events += projection.from_audit(line)
    audit.close()
    return events


def expected(events: Iterable[Event | ShiftSet | ShiftRemoved], rules: Rules) -> tuple[dict[int, Device], Rules]:
    """The devices that these events make, and the rules with the shifts among them."""
    devices: dict[int, Device] = {}
    shifts: dict[str, Shift] = {}
    removed: set[str] = set()
    for event in events:
        if isinstance(event, ShiftSet):
            shifts[event.shift.id] = event.shift
        elif isinstance(event, ShiftRemoved):
            removed.add(event.id)
        else:
            before = devices.get(event.imei, Device(event.imei))
            devices[event.imei] = grey.apply(before, event)
    in_force = tuple(shift for name, shift in shifts.items() if name not in removed)
    return devices, rules.with_shifts(in_force)


async def contents(store: Store, rules: Rules) -> Contents:
    """What an open store holds."""
    devices: dict[int, Device] = {}
    async for page in pages(store, 5000):
        for device, _ in page:
            assert device.imei not in devices
            devices[device.imei] = device
    rules = rules.with_shifts((await store.shifts())[1])
    queued: list[Message] = await store.queued(1_000_000)
    keys = [message.key for message in queued]
    assert len(keys) == len(set(keys))
    return Contents(devices, {imei: grey.timer(device, rules) for imei, device in devices.items()}, frozenset(keys))
