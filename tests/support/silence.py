"""Two peers that say nothing of their own, watched for half a minute in a thread beside the other tests."""

from __future__ import annotations

import threading
import time

from eir.diameter.message import Header, encode
from support import lists
from support.diameter import Client
from support.node import NodeProcess

_LONGEST = 60.0


class QuietPeers(threading.Thread):
    """`alive` answers the node's DWRs and `dead` does not; ends when `dead` is cut off. `watch` waits for that."""

    def __init__(self, node: NodeProcess) -> None:
        super().__init__(daemon=True)
        self.node = node
        self.alive = node.peer("alive.epc.test")
        self.dead = node.peer("dead.epc.test")
        self.lasted = 0.0
        """Seconds until the node closed the silent connection."""
        self.verdict: str | int = ""
        """What `alive` was answered after that."""
        self._failure: BaseException | None = None
        self.start()

    def watch(self) -> None:
        """Waits until it is over. Raises what went wrong."""
        self.join(_LONGEST + 10)
        if self._failure is not None:
            raise self._failure

    def run(self) -> None:
        try:
            with self.alive, self.dead:
                self._watch()
        except BaseException as error:
            self._failure = error

    def _watch(self) -> None:
        begin = time.monotonic()
        while not self._is_closed(self.dead):
            assert not self._is_closed(self.alive)
            assert time.monotonic() - begin < _LONGEST
        self.lasted = time.monotonic() - begin
        self.verdict = self.alive.check(lists.WHITE)

    def _is_closed(self, peer: Client) -> bool:
        """Takes what comes within a moment; whether that is the end."""
        try:
            asked = peer.receive(0.1)
        except TimeoutError:
            return False
        if asked is None:
            return True
        header = asked.header
        assert (header.command, header.application, header.is_request) == (280, 0, True)
        if peer is self.alive:
            peer.send(encode(Header(0, 280, 0, header.hop_by_hop, header.end_to_end), b""))
        return False
