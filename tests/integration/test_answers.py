"""A running node answers each device by its rule, and tells on every channel the same."""

from __future__ import annotations

import json
import time
from zoneinfo import ZoneInfo

import pytest

from eir.diameter import dictionary as d
from eir.diameter.message import PROXIABLE, Avp, make_avp
from eir.timers import grey
from support import lists
from support.cli import eir
from support.diameter import ecr_avps, ecr_of, terminal
from support.node import MakeNode, NodeProcess, until


@pytest.mark.parametrize(
    ("imei", "imsi", "answer", "rule"),
    [
        (lists.WHITE, None, "white", "white"),
        (lists.WHITE, lists.SUBSCRIBER, "white", "white"),
        (lists.WHITE + "9", None, "white", "white"),
        (lists.WHITE + "99", None, "white", "white"),
        (lists.BLACK, lists.SUBSCRIBER, "black", "black"),
        (lists.STOLEN, lists.SUBSCRIBER, "black", "black-hard"),
        (lists.STOLEN, lists.ROAMER, "black", "black-hard"),
        (lists.STOLEN, lists.MACHINE, "black", "black-hard"),
        (lists.CLONED, lists.SUBSCRIBER, "black", "black"),
        (lists.CLONED, lists.HOLDER, "white", "paired"),
        (lists.CLONED, None, "black", "black"),
        (lists.BLACK, lists.ROAMER, "white", "exempt-roamer"),
        (lists.BLACK, lists.MACHINE, "white", "exempt-subscriber"),
        (lists.NATIONAL_GREY, lists.SUBSCRIBER, "grey", "grey"),
        (lists.IN_BLACK_RANGE, None, "black", "black-range"),
        (lists.IN_WHITE_RANGE, None, "white", "white-range"),
        (lists.METER, None, "white", "exempt-device"),
        (lists.TEST_DEVICE, None, "black", "test-imei"),
        (lists.UNALLOCATED, None, "black", "unallocated"),
        ("3520990010000", None, "black", "malformed"),
        ("35209900100001000", None, "black", "malformed"),
        ("0" * 15, None, "black", "malformed"),
        ("35209900x00001", None, "black", "malformed"),
        ("", None, "black", "malformed"),
        ("٣٥٢٠٩٩٠٠١٠٠٠٠١", None, "black", "malformed"),
        ("malformed", lists.ROAMER, "white", "exempt-roamer"),
    ],
)
def test_each_rule(shared_node: NodeProcess, imei: str, imsi: str | None, answer: str, rule: str) -> None:
    with shared_node.peer() as peer:
        assert peer.check(imei, imsi) == answer
    told = shared_node.ask("check", imei=imei, imsi=imsi)
    assert (told["status"], told["rule"], told["asked"][-1]) == (answer, rule, rule)


def test_a_first_attach_starts_one_timer(shared_node: NodeProcess) -> None:
    (device,) = lists.new_devices(1, first=1000)
    assert shared_node.ask("check", imei=device)["rule"] == "first-attach"
    before = int(time.time())
    with shared_node.peer() as peer:
        assert peer.check(device, lists.SUBSCRIBER) == "grey"
        after = int(time.time())
        timer = shared_node.timer(device)
        assert timer is not None
        start, deadline = timer
        assert before <= start <= after
        assert deadline == grey.deadline(start, 30, ZoneInfo("Asia/Almaty"))
        # Another subscriber, another form of the IMEI, none: the same timer.
        assert peer.check(device, "001010000000099") == "grey"
        assert peer.check(device + "7", None) == "grey"
    assert shared_node.ask("check", imei=device)["rule"] == "grey"
    assert shared_node.timer(device) == timer


def test_a_visitors_device_starts_none(shared_node: NodeProcess) -> None:
    (device,) = lists.new_devices(1, first=1001)
    with shared_node.peer() as peer:
        assert peer.check(device, lists.ROAMER) == "white"
    assert shared_node.timer(device) is None


def test_a_meid_alone_is_unknown(shared_node: NodeProcess) -> None:
    meid = make_avp(d.TERMINAL_INFORMATION, (make_avp(d.MEID_3GPP2, b"\xa1\0\0\x12\x34\x56\x78"),))
    with shared_node.peer() as peer:
        answer = peer.ask(ecr_of(ecr_avps(peer.host, meid)))
    assert answer.code == 5422
    assert not answer.values(d.RESULT_CODE)
    assert not answer.values(d.EQUIPMENT_STATUS)


def test_what_an_answer_holds(shared_node: NodeProcess) -> None:
    proxies = [Avp(284, 0, 0x40, bytes([number]) * 12) for number in (1, 2)]
    with shared_node.peer() as peer:
        avps = [*ecr_avps(peer.host, terminal(lists.WHITE)), *proxies]
        answer = peer.ask(ecr_of(avps))
    assert answer.header.flags == PROXIABLE
    assert answer.header.application == d.APPLICATION_S13
    assert [avp.code for avp in answer.message.avps] == [263, 260, 268, 277, 264, 296, 1445, 284, 284]
    assert answer.values(d.SESSION_ID) == [avps[0].value]
    assert answer.values(d.PROXY_INFO) == [proxy.value for proxy in proxies]
    assert answer.values(d.ORIGIN_HOST) == [shared_node.settings.node.origin_host]
    assert answer.values(d.AUTH_SESSION_STATE) == [1]


def test_many_requests_at_once_each_have_their_answer(shared_node: NodeProcess) -> None:
    devices = [*lists.new_devices(200, first=2000), lists.WHITE, lists.BLACK] * 2
    with shared_node.peer() as peer:
        requests = [ecr_of(ecr_avps(peer.host, terminal(device))) for device in devices]
        peer.send(b"".join(requests))
        answers = {}
        for _ in requests:
            answer = peer.receive()
            assert answer is not None
            answers[answer.header.hop_by_hop] = answer.verdict
    expected = {lists.WHITE: "white", lists.BLACK: "black"}
    for request, device in zip(requests, devices, strict=True):
        assert answers[int.from_bytes(request[12:16], "big")] == expected.get(device, "grey")


def test_byte_by_byte_is_the_same(shared_node: NodeProcess) -> None:
    with shared_node.peer() as peer:
        request = ecr_of(ecr_avps(peer.host, terminal(lists.BLACK)))
        for octet in request:
            peer.send(bytes([octet]))
        answer = peer.receive()
    assert answer is not None
    assert answer.verdict == "black"


@pytest.mark.parametrize("policy", ["white", "grey", "black", "unknown"])
def test_without_lists_a_policy_answers_and_nothing_starts(make_node: MakeNode, policy: str) -> None:
    node = make_node({"lists": {"no_list_policy": policy}}, lists=False)
    with node.peer() as peer:
        for device in (lists.NEW, lists.STOLEN, "malformed"):
            assert peer.check(device, lists.SUBSCRIBER) == (5422 if policy == "unknown" else policy)
    told = node.ask("check", imei=lists.NEW)
    assert (told["rule"], told["timer"]) == ("no-list", None)
    assert node.metrics()["eir_timers"] == 0
    assert node.metrics()["eir_lists_valid"] == 0
    assert [entry["answer"] for entry in node.log("no valid lists")] == [policy]


def test_the_override_answers_everything_white(make_node: MakeNode) -> None:
    node = make_node({"rules": {"override": "white"}})
    with node.peer() as peer:
        assert [peer.check(device) for device in (lists.STOLEN, lists.NEW, "")] == ["white"] * 3
    assert node.metrics()["eir_timers"] == 0


def test_malformed_may_be_unknown(make_node: MakeNode) -> None:
    node = make_node({"rules": {"malformed": "unknown"}})
    with node.peer() as peer:
        assert peer.check("no IMEI") == 5422


def test_stale_lists_expire_no_timer(make_node: MakeNode) -> None:
    # Lists of three days ago are stale after two: an alarm, and answers as before.
    node = make_node(lists=False, start=False)
    node.put_lists(created_at=int(time.time()) - 3 * 86400)
    node.start()
    with node.peer() as peer:
        assert peer.check(lists.WHITE) == "white"
        assert peer.check(lists.NEW) == "grey"
    assert node.metrics()["eir_lists_stale"] == 1


def test_the_breaker_trips_and_holds_until_an_operator_resets_it(make_node: MakeNode) -> None:
    node = make_node({"breaker": {"starts_per_minute": 5}})
    devices = lists.new_devices(8)
    with node.peer() as peer:
        assert [peer.check(device) for device in devices] == ["grey"] * 8
    started = [device for device in devices if node.timer(device)]
    assert started == devices[:5]
    metrics = node.metrics()
    assert metrics["eir_breaker_tripped"] == 1
    assert metrics['eir_not_started_total{peer="mme.epc.test"}'] == 3
    assert eir("breaker", "show", "-c", node.config).out.startswith("tripped")

    # A restart, be it a crash, does not reset it.
    for end in (node.stop, node.kill):
        end()
        node.start()
        with node.peer() as peer:
            assert peer.check(devices[5]) == "grey"
        assert node.timer(devices[5]) is None
        assert node.metrics()["eir_breaker_tripped"] == 1

    assert eir("breaker", "reset", "-c", node.config).code == 0
    assert eir("breaker", "show", "-c", node.config).out.startswith("closed")
    with node.peer() as peer:
        assert peer.check(devices[5]) == "grey"
    assert node.timer(devices[5]) is not None
    assert node.log("operator reset the breaker")
    node.stop()
    node.start()
    assert node.metrics()["eir_breaker_tripped"] == 0


def test_running_timers_trip_the_breaker_too(make_node: MakeNode) -> None:
    node = make_node({"breaker": {"running": 3}})
    with node.peer() as peer:
        assert [peer.check(device) for device in lists.new_devices(5)] == ["grey"] * 5
    assert node.metrics()["eir_timers_running"] == 3
    assert node.metrics()["eir_breaker_tripped"] == 1


def test_metrics_after_traffic(make_node: MakeNode) -> None:
    node = make_node()
    with node.peer("mme1.epc.test") as peer:
        for device in (lists.WHITE, lists.WHITE, lists.BLACK, lists.NEW, lists.NEW, "malformed"):
            peer.check(device)
        peer.ask(ecr_of(ecr_avps(peer.host, make_avp(d.TERMINAL_INFORMATION, ()))))
    until(lambda: node.metrics()["eir_connections"] == 0)
    metrics = node.metrics()
    answers = {
        (rule, listed): metrics[
            f'eir_answers_total{{list="{listed}",peer="mme1.epc.test",protocol="s13",rule="{rule}"}}'
        ]
        for rule, listed in (
            ("white", "white"),
            ("black", "black"),
            ("first-attach", "grey"),
            ("grey", "grey"),
            ("malformed", "black"),
        )
    }
    assert list(answers.values()) == [2, 1, 1, 1, 1]
    assert metrics["eir_answer_seconds_count"] == 6
    assert metrics['eir_refused_total{code="5005",peer="mme1.epc.test"}'] == 1
    assert metrics['eir_punted_total{peer="mme1.epc.test"}'] == 1
    assert metrics['eir_connections_closed_total{reason="peer closed"}'] == 1
    assert metrics["eir_connections_accepted_total"] == 1
    assert metrics["eir_open_peers"] == 0
    assert metrics["eir_timers"] == metrics["eir_timers_running"] == 1
    # The start, and the black device's attempt.
    assert metrics["eir_journal_records_total"] == 2
    assert metrics["eir_journal_available"] == 1
    assert metrics['eir_lists_entries{section="black"}'] == 3
    assert metrics["eir_lists_sequence"] == 1


def test_no_subscriber_is_in_log_or_metrics(make_node: MakeNode) -> None:
    node = make_node({"log": {"level": "debug"}})
    subscribers = [f"00101{number:010}" for number in range(7_000_000_000, 7_000_000_012)]
    devices = [lists.WHITE, lists.BLACK, lists.STOLEN, lists.NEW, "malformed", lists.CLONED]
    with node.peer() as peer:
        for number, imsi in enumerate(subscribers):
            peer.check(devices[number % len(devices)], imsi)
            # An ECR that is refused, with the subscriber in it, in what is wrong with it and in another's name.
            avps = ecr_avps(peer.host, terminal(lists.NEW), imsi)
            peer.ask(ecr_of([*avps, make_avp(d.USER_NAME, imsi)]))
            peer.ask(ecr_of([*avps, Avp(4242, 0, 0x40, imsi.encode())]))
            node.ask("check", imei=lists.NEW, imsi=imsi)
            eir("check", lists.NEW, "--imsi", imsi, "--explain", "-c", node.config)
    node.reload()
    told = node.metrics_text() + json.dumps(node.ask("status")) + json.dumps(node.ask("peers"))
    node.stop()
    told += node.stderr.read_text()
    assert "peer open" in told
    for imsi in subscribers:
        assert imsi not in told
        assert imsi[5:] not in told
    assert all(device not in told for device in devices if device != "malformed")
