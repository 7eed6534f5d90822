"""Stores under test: a kind of store, the nodes around one store, and devices with their changes to put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from eir.timers import grey
from eir.timers.grey import Device, Event, Started
from eir.timers.store import Change, Message, MessageKey, MessageKind, Store

MakeClient: TypeAlias = Callable[[], Store]
"""Makes a client of one store, not yet opened; every call is another node's."""

RULES = grey.Rules(30, ZoneInfo("Asia/Almaty"))
NOON = 1_750_000_000
"""Some time."""
DAY = 86_400
FIRST_IMEI = 35_209_900_000_000


class Kind(NamedTuple):
    """A kind of store: whether several nodes may have one open, and how an empty one is made."""

    shared: bool
    make: Callable[[], MakeClient]


class Nodes:
    """The nodes around one store, which is empty at first. To be left in the loop in which it was used."""

    def __init__(self, kind: Kind) -> None:
        self.shared = kind.shared
        self._client = kind.make()
        self._open: list[Store] = []

    async def open(self) -> Store:
        """One more node's client, open; only a shared store can have two."""
        store = self._client()
        self._open.append(store)
        await store.open()
        return store

    async def another(self, store: Store) -> Store:
        """What another node sees the store through; where there can be none, the same client."""
        return await self.open() if self.shared else store

    async def reopen(self, store: Store) -> Store:
        """Closes a client and opens another."""
        self._open.remove(store)
        await store.close()
        return await self.open()

    async def __aenter__(self) -> Nodes:
        return self

    async def __aexit__(self, *error: object) -> None:
        for store in self._open:
            await store.close()
        self._open.clear()


MakeNodes: TypeAlias = Callable[[], Nodes]


def device(number: int, *events: Event, start: int | None = NOON) -> Device:
    """The device with this number after a first attach at `start` and these events."""
    made = Device(FIRST_IMEI + number)
    for event in (*([] if start is None else [Started(made.imei, start)]), *events):
        made = grey.apply(made, event)
    return made


def change(
    of: Device,
    version: int = 0,
    *,
    messages: tuple[Message, ...] = (),
    withdrawn: tuple[MessageKey, ...] = (),
    tell: Literal["none", "others", "all"] = "all",
    rules: grey.Rules = RULES,
) -> Change:
    """The change that makes a device what it is now."""
    return Change(of, version, grey.timer(of, rules), messages, withdrawn, tell)


def message(
    number: int, at: int = NOON, kind: MessageKind = "grey-granted", subscriber: int = 1, mark: int = 0, apart: int = 0
) -> Message:
    """A message to one of a device's subscribers."""
    return Message(kind, FIRST_IMEI + number, f"00101{subscriber:010}", mark, at, f"999{subscriber:09}", apart)


async def put(store: Store, changes: Iterable[Change], source: str = "", position: int = 0) -> None:
    """Commits changes that nothing stands against."""
    revision, _ = await store.shifts()
    assert await store.commit(list(changes), revision, source, position) == frozenset()
