"""python-diameter as an MME of the node's own."""

from __future__ import annotations

import pytest
from diameter.message.avp.grouped import ExperimentalResult
from diameter.message.constants import APP_3GPP_S13_S13, VENDOR_TGPP

from support import lists
from support.node import MakeNode, until
from support.python_diameter import HOST, Mme, mme


def test_a_whole_life(make_node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    node = make_node({"rules": {"malformed": "unknown"}})
    with mme(node) as client:
        connection = client.peer.connection
        assert connection.auth_application_ids == [APP_3GPP_S13_S13]
        assert connection.host_identity == node.settings.node.origin_host

        for imei, imsi, status in (
            (lists.WHITE, lists.SUBSCRIBER, 0),
            (lists.BLACK, None, 1),
            (lists.NEW, lists.SUBSCRIBER, 2),
            (lists.NEW + "0", "001010000000003", 2),
            (lists.CLONED, lists.HOLDER, 0),
            (lists.STOLEN, lists.ROAMER, 1),
        ):
            answer = client.check(imei, imsi)
            assert (answer.result_code, answer.equipment_status) == (2001, status), imei
            assert answer.experimental_result is None

        unknown = client.check("not an IMEI", lists.SUBSCRIBER)
        assert unknown.result_code is None
        assert unknown.equipment_status is None
        result = unknown.experimental_result
        assert isinstance(result, ExperimentalResult)
        assert (result.vendor_id, result.experimental_result_code) == (VENDOR_TGPP, 5422)

        refused = client.check(lists.WHITE, auth_session_state=7)
        assert refused.result_code == 5004
        assert [failed.additional_avps[0].code for failed in refused.failed_avp] == [277]

        # Silent for a second, it asks whether the node is there, and goes on when it hears so.
        client.peer.idle_timeout = 1
        until(lambda: node.metrics()[f'eir_watchdogs_total{{peer="{HOST}"}}'] >= 1, 15)
        client.peer.idle_timeout = 30
        assert client.check(lists.WHITE).equipment_status == 0
    # Its DPR was answered, or it would have waited; after that it is for it to close, which it does by a reset.
    assert "shutdown timeout" not in caplog.text
    until(lambda: node.log("connection closed"))
    assert [entry["reason"] for entry in node.log("connection closed")] in (["peer closed"], ["connection lost"])
    metrics = node.metrics()
    assert metrics[f'eir_refused_total{{code="5004",peer="{HOST}"}}'] == 1
    assert not any(name.startswith("eir_discarded") and value for name, value in metrics.items())


def test_the_node_leaves_first(make_node: MakeNode) -> None:
    node = make_node()
    client = Mme(node)
    client.node.start()
    try:
        client.application.wait_for_ready(10)
        assert client.check(lists.WHITE).equipment_status == 0
        assert node.stop() == 0
        assert [entry["reason"] for entry in node.log("connection closed")] == ["dpa-received"]
    finally:
        client.node.stop(force=True)
