"""What people ask and do about peers: the commands behind `eir peers`.

Called by the control socket, and by `app` at a reload. It changes the peer book and puts the policy in force that
follows from it and the configuration; who is let in is not decided here.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import msgspec

from eir import _core, config
from eir.config import Config, Country, PeerSection
from eir.diameter.peer_policy import PeerEntry
from eir.diameter.server import DiameterServer
from eir.log import Log
from eir.peer_book import PeerBook, PeerBookError

_NOT_OPEN_FOR = 300.0
"""Seconds after which a peer that the node connects to, and is not open, is somebody's business."""

log = Log(__name__)


def terms_of(entry: PeerEntry) -> _core.Terms:
    """What the data plane is told of an entry."""
    return _core.Terms(
        requests_per_second=entry.requests_per_second,
        load=entry.load,
        grey=entry.grey or "grey",
        unknown=entry.unknown or "unknown",
        malformed=entry.malformed,
    )


class PeerDesk:
    """Peers as the operator sees them.

    `settings` gives the configuration in force; `record` puts acts on the record.
    """

    def __init__(
        self,
        node: _core.Node,
        server: DiameterServer,
        book: PeerBook,
        settings: Callable[[], tuple[Config, Country]],
        record: Callable[..., Awaitable[None]],
    ) -> None:
        self._node = node
        self._server = server
        self._book = book
        self._settings = settings
        self._record = record
        self._not_open_since: dict[str, float] = {}

    def commands(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        """The commands of the control socket."""
        return {
            "peers": lambda _: self._list(),
            "peers-show": self._show,
            "peers-add": self._add,
            "peers-remove": lambda ask: self._change(ask, "peers-remove", self._book.remove),
            "peers-disable": lambda ask: self._change(ask, "peers-disable", self._book.disable),
            "peers-enable": self._enable,
        }

    def reload(self) -> None:
        """Reads the book anew and puts in force what follows from it and the configuration."""
        try:
            self._book.load()
        except PeerBookError as error:
            log.error("peers that were added or disabled are those of before", error=str(error))
        self._put_in_force()

    def _put_in_force(self) -> None:
        self._server.policy = config.peer_policy(*self._settings(), self._book.added, self._book.disabled)
        self._server.set_terms_again()
        self.set_gate()

    def set_gate(self) -> None:
        """Tells the data plane where connections may come from, and how many."""
        diameter = self._settings()[0].diameter
        self._node.set_gate(
            [str(network) for network in self._server.policy.networks()],
            diameter.max_connections,
            diameter.max_connections_per_address,
            diameter.max_unopened,
        )
        self._node.set_node_limit(diameter.requests_per_second)

    def alarms(self, now: float) -> Iterator[str]:
        """A book that cannot be read, and peers that the node connects to and that have not been open for a while.

        `now` is of a clock that goes on.
        """
        if self._book.damage:
            yield f"peers that were added or disabled are not known: {self._book.damage}"
        missing = {
            f"{view.origin_host} at {view.connect}"
            for view in self._server.peer_table()
            if view.connect is not None and not view.disabled and view.state not in ("I-Open", "R-Open")
        }
        self._not_open_since = {name: self._not_open_since.get(name, now) for name in missing}
        for name, since in sorted(self._not_open_since.items()):
            if now - since >= _NOT_OPEN_FOR:
                yield f"the peer {name} has not been open for more than {_NOT_OPEN_FOR:.0f} s"

    def _list(self) -> list[dict[str, Any]]:
        limits = {view.origin_host: view.requests_per_second for view in self._server.peer_table()}
        return [{**asdict(row), "requests_per_second": limits.get(row.origin_host, 0)} for row in self._server.peers()]

    def _show(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        name = str(ask["origin_host"]).lower()
        states = [asdict(view) for view in self._server.peer_table() if view.origin_host.lower() == name]
        added = [peer for peer in self._book.added if peer.origin_host.lower() == name]
        configured = [peer for peer in self._settings()[0].diameter.peers if peer.origin_host.lower() == name]
        stats = self._node.stats(int(time.time()))["peers"].get(name)
        disabled = name in self._book.disabled
        if not states and not added and not configured and stats is None and not disabled:
            raise ValueError(f"nothing is known of {ask['origin_host']}")
        refused = self._server.outcomes.refused
        for state in states:
            for connection in state["connections"]:
                connection["tls_version"] = self._node.tls_version(connection["number"])
        return {
            "origin_host": ask["origin_host"],
            "disabled": disabled,
            "configured": [msgspec.to_builtins(peer) for peer in configured],
            "added": [msgspec.to_builtins(peer) for peer in added],
            "states": states,
            "counters": stats,
            "refused": {str(code): count for (peer, code), count in refused.items() if peer.lower() == name},
        }

    async def _add(self, ask: Mapping[str, Any]) -> None:
        try:
            peer = msgspec.convert(ask["peer"], PeerSection)
        except msgspec.ValidationError as error:
            raise ValueError(f"not a peer: {error}") from error
        settings, _ = self._settings()
        if any(other.origin_host.lower() == peer.origin_host.lower() for other in settings.diameter.peers):
            raise ValueError(f"{peer.origin_host} is in the configuration: change it there, followed by a reload")
        if peer.tls == "required" and not settings.diameter.tls.certificate_file:
            raise ValueError("diameter.tls has no certificates")
        self._book.add(peer)
        await self._changed(ask, "peers-add", peer.origin_host)

    async def _enable(self, ask: Mapping[str, Any]) -> None:
        await self._change(ask, "peers-enable", self._book.enable)
        self._server.connect_now(str(ask["origin_host"]))

    async def _change(self, ask: Mapping[str, Any], kind: str, change: Callable[[str], None]) -> None:
        change(str(ask["origin_host"]))
        await self._changed(ask, kind, str(ask["origin_host"]))

    async def _changed(self, ask: Mapping[str, Any], kind: str, origin_host: str) -> None:
        self._put_in_force()
        log.info("operator changed a peer", kind=kind, peer=origin_host)
        await self._record(ask, kind=kind, peer=origin_host)
