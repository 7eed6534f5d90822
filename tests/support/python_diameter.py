"""python-diameter, an implementation of which this one shares nothing, as an MME with its own state machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as version_of
from typing import Any

from diameter.message.avp.grouped import TerminalInformation, VendorSpecificApplicationId
from diameter.message.commands import MeIdentityCheckAnswer, MeIdentityCheckRequest
from diameter.message.constants import APP_3GPP_S13_S13, VENDOR_TGPP
from diameter.node import Node
from diameter.node.application import SimpleThreadingApplication

from support.node import NodeProcess

HOST, REALM = "mme.epc.mnc001.mcc001.3gppnetwork.org", "epc.mnc001.mcc001.3gppnetwork.org"


def version() -> str:
    """As its package says."""
    return f"python-diameter {version_of('python-diameter')}"


class Mme:
    """An MME that asks about devices: a node at its listener, or through another peer, `by` (name and address)."""

    def __init__(self, node: NodeProcess, by: tuple[str, tuple[str, int]] | None = None, host: str = HOST) -> None:
        self.host = host
        self.eir, self.realm = node.settings.node.origin_host, node.settings.node.origin_realm
        name, (address, port) = by or (self.eir, node.listening[0])
        self.application = SimpleThreadingApplication(APP_3GPP_S13_S13, is_auth_application=True)
        self.node = Node(host, REALM, vendor_ids=[VENDOR_TGPP])
        self.node.wakeup_interval = 0.1
        uri = f"aaa://{name}:{port};transport=tcp"
        self.peer = self.node.add_peer(uri, name.partition(".")[2], [address], is_persistent=True)
        self.peer.reconnect_wait = 1
        self.node.add_application(self.application, [self.peer], [self.realm])

    def request(self, imei: str, imsi: str | None = None, **others: Any) -> MeIdentityCheckRequest:
        """An ECR as this implementation builds it."""
        request = MeIdentityCheckRequest()
        request.session_id = self.node.session_generator.next_id()
        request.vendor_specific_application_id = VendorSpecificApplicationId(
            vendor_id=VENDOR_TGPP, auth_application_id=APP_3GPP_S13_S13
        )
        request.auth_session_state = 1
        request.origin_host, request.origin_realm = self.host.encode(), REALM.encode()
        request.destination_realm = self.realm.encode()
        request.terminal_information = TerminalInformation(imei=imei, software_version="01")
        if imsi is not None:
            request.user_name = imsi
        for name, value in others.items():
            setattr(request, name, value)
        return request

    def ask(self, request: MeIdentityCheckRequest) -> Any:
        """Whatever it is answered."""
        return self.application.send_request(request, timeout=10)

    def check(self, imei: str, imsi: str | None = None, **others: Any) -> Any:
        """The ECA to an ECR."""
        request = self.request(imei, imsi, **others)
        answer = self.ask(request)
        assert isinstance(answer, MeIdentityCheckAnswer)
        assert answer.session_id == request.session_id
        assert answer.origin_host == self.eir.encode()
        assert answer.auth_session_state == 1
        return answer


@contextmanager
def mme(node: NodeProcess, by: tuple[str, tuple[str, int]] | None = None, host: str = HOST) -> Iterator[Mme]:
    """A running MME, connected; it disconnects at the end as the protocol has it."""
    client = Mme(node, by, host)
    client.node.start()
    try:
        client.application.wait_for_ready(10)
        yield client
    finally:
        client.node.stop(wait_timeout=10)
