"""From an attach to a telephone: the node tells subscribers by an SMSC, and people see and steer it."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eir.control import ControlError
from support import lists
from support.cli import eir
from support.node import MakeNode, NodeProcess, until
from support.smsc import Smsc
from support.timers import settled

SIGNED = ("--agent", "agent-7", "--reason", "a ticket")
NUMBERS = {"001010000000001": ("999000000001", "kk"), "001010000000002": ("999000000002", "")}

Setting = dict[str, dict[str, object]]


@pytest.fixture
def smsc(tmp_path: Path) -> Iterator[Smsc]:
    smsc = Smsc(tmp_path / "smsc", receipt="tlv")
    smsc.start()
    yield smsc
    smsc.stop()


def by_smpp(smsc: Smsc, **more: object) -> Setting:
    """A node's settings with this SMSC, and no quiet hours."""
    one = {"name": "first", "host": "127.0.0.1", "port": smsc.port, "system_id": "eir", "password": "secret"}
    sms = {"gateway": "smpp", "quiet_from": "00:00", "quiet_to": "00:00", "smsc": [one], **more}
    return {"sms": sms}


def with_subscribers(make_node: MakeNode, settings: Setting, tmp_path: Path) -> NodeProcess:
    node = make_node(settings, start=False)
    exported = tmp_path / "subscribers.csv"
    rows = [f"{imsi},{msisdn},,{language},0\n" for imsi, (msisdn, language) in NUMBERS.items()]
    exported.write_text("imsi,msisdn,iin,language,m2m\n" + "".join(rows))
    ran = eir("subscribers", "import", exported, "-c", node.config)
    assert ran.code == 0, ran.err
    node.start()
    return node


def texts(smsc: Smsc) -> dict[str, list[str]]:
    """What each number was told: parts put together by reference, in the order in which the first ones came."""
    parts: dict[tuple[str, int], dict[int, str]] = defaultdict(dict)
    sizes: dict[tuple[str, int], int] = {}
    for one in smsc.submits():
        octets = bytes.fromhex(one["octets"])
        assert one["esm_class"] == 0x40 and one["coding"] == 8
        reference, of, number = octets[3:6]
        whole = parts[one["to"], reference]
        assert number not in whole, "a part came twice"
        whole[number] = octets[6:].decode("utf-16-be")
        sizes[one["to"], reference] = of
    found: dict[str, list[str]] = defaultdict(list)
    for (to, reference), whole in parts.items():
        if len(whole) == sizes[to, reference]:
            found[to].append("".join(whole[number] for number in sorted(whole)))
    return found


def outcomes(node: NodeProcess, state: str) -> float:
    return sum(value for name, value in node.metrics().items() if "eir_sms_messages" in name and f'"{state}"' in name)


def last_day(node: NodeProcess, device: str) -> str:
    timer = node.timer(device)
    assert timer is not None
    # The test country's zone is 5 hours ahead.
    return (datetime.fromtimestamp(timer[1] - 1, UTC) + timedelta(hours=5)).strftime("%d.%m.%Y")


def test_a_first_attach_is_told_letter_for_letter(make_node: MakeNode, smsc: Smsc, tmp_path: Path) -> None:
    node = with_subscribers(make_node, by_smpp(smsc), tmp_path)
    (device,) = lists.new_devices(1)
    with node.peer() as peer:
        for imsi in (*NUMBERS, *NUMBERS):
            assert peer.check(device, imsi) == "grey"
    until(lambda: outcomes(node, "delivered") == 2)
    told, day = texts(smsc), last_day(node, device)
    imei = f"{device}7"
    kazakh = (
        "Құрылғы дұрыс жұмыс істеуі үшін оны қайта жүктеу керек. {imei} деген IMEI-коды бар құрылғыңыз "
        "сәйкестендіруден өтпеген және мемлекеттік сәйкестендіру кодтарының дерекқорында «сұр тізімге» енген. {day} "
        "дейін IMEI {imei}, нөмір {to} дерегі бойынша желіні уақытша пайдалануға рұқсат берілді. Байланысты толық "
        "пайдалану үшін мемлекеттік базада құрылғыңызды сәйкестендіріңіз: http://kz-imei.kz/"
    )
    russian = (
        "Перезагрузите устройство, чтобы всё работало корректно. Ваше устройство с {imei} не верифицировано и "
        "внесено в «серый список» государственной базы данных идентификационных кодов. Вам предоставлен временный "
        "доступ к сети до {day} по данным: IMEI {imei}, номер {to}. Чтобы получить полный доступ, пройдите "
        "верификацию устройства в госбазе: http://kz-imei.kz/"
    )
    for to, expected in {"999000000001": (kazakh,), "999000000002": (kazakh, russian)}.items():
        assert told[to] == [text.format(imei=imei, day=day, to=to) for text in expected]
    assert set(told) == {"999000000001", "999000000002"}
    # Nobody is told twice by a restart.
    node.stop()
    node.start()
    with node.peer() as peer:
        assert peer.check(device, "001010000000001") == "grey"
    settled(node)
    time.sleep(1.5)
    assert texts(smsc) == told
    assert not {"999000000001", "001010000000001"} & set(node.stderr.read_text().split('"'))


def test_a_blacklisted_attempt_is_told_once_a_day(make_node: MakeNode, smsc: Smsc, tmp_path: Path) -> None:
    node = with_subscribers(make_node, by_smpp(smsc), tmp_path)
    with node.peer() as peer:
        for _ in range(3):
            assert peer.check(lists.BLACK, "001010000000001") == "black"
    until(lambda: outcomes(node, "delivered") == 1)
    (text,) = texts(smsc)["999000000001"]
    assert text.startswith(f"{lists.BLACK}") and "«қара тізімге»" in text


def test_a_pause_holds_messages_and_verified_devices_hear_nothing(
    make_node: MakeNode, smsc: Smsc, tmp_path: Path
) -> None:
    node = with_subscribers(make_node, by_smpp(smsc), tmp_path)
    assert eir("sms", "pause", *SIGNED, "-c", node.config).code == 0
    until(lambda: node.ask("sms-queue")["outbox"]["stopped"] == "paused")
    first, second = lists.new_devices(2)
    with node.peer() as peer:
        for device in (first, second):
            assert peer.check(device, "001010000000001") == "grey"
    settled(node)
    told = eir("sms", "queue", "-c", node.config).out
    assert told.startswith("2 wait") and "stopped: paused by agent-7" in told and "grey-granted" in told
    assert "001010000000001" not in told
    assert eir("lists", "own", "add", first, "white", "--reason", "verified", "-c", node.config).code == 0
    until(lambda: json.loads(eir("sms", "queue", "--json", "-c", node.config).out)["queued"] == 1)
    assert eir("sms", "resume", *SIGNED, "-c", node.config).code == 0
    until(lambda: outcomes(node, "delivered") == 1)
    (text,) = texts(smsc)["999000000001"]
    assert f"{second}" in text and f"{first}" not in text


def test_what_failed_is_sent_once_more_when_told_to(make_node: MakeNode, smsc: Smsc, tmp_path: Path) -> None:
    smsc.behave(status=0x0B)
    node = with_subscribers(make_node, by_smpp(smsc), tmp_path)
    (device,) = lists.new_devices(1)
    with node.peer() as peer:
        assert peer.check(device, "001010000000001") == "grey"
    until(lambda: outcomes(node, "failed") == 1)
    smsc.behave(status=0)
    ran = eir("sms", "retry", "--dry-run", *SIGNED, "-c", node.config)
    assert "grey-granted failed first:ESME_RINVDSTADR: 1" in ran.out and "nothing was changed" in ran.out
    assert "0 wait once more" in eir("sms", "retry", "--kind", "reminder", *SIGNED, "-c", node.config).out
    assert "1 wait once more" in eir("sms", "retry", *SIGNED, "-c", node.config).out
    until(lambda: outcomes(node, "delivered") == 1)


def test_a_trial_goes_past_the_queue(make_node: MakeNode, smsc: Smsc, tmp_path: Path) -> None:
    node = make_node(by_smpp(smsc))
    until(lambda: node.ask("sms-queue")["ways_out"][0]["state"] == "bound")
    ran = eir("sms", "send-test", "+999000000009", "--text", "Ұйқы, объём", *SIGNED, "-c", node.config)
    assert ran.code == 0 and "taken: 1 short messages in ucs2: first " in ran.out
    (sent,) = smsc.submits()
    assert (sent["to"], bytes.fromhex(sent["octets"]).decode("utf-16-be")) == ("999000000009", "Ұйқы, объём")
    wrong = eir("sms", "send-test", "9", *SIGNED, "-c", node.config)
    assert wrong.code and "5 to 15 digits" in wrong.err
    smsc.behave(status=0x0B)
    assert "0 of 1 parts were taken" in eir("sms", "send-test", "999000000009", *SIGNED, "-c", node.config).err


def test_a_days_reminders_are_counted_before_they_go_out(make_node: MakeNode, smsc: Smsc, tmp_path: Path) -> None:
    node = with_subscribers(make_node, by_smpp(smsc), tmp_path)
    devices = lists.new_devices(30)
    with node.peer() as peer:
        for device in devices:
            assert peer.check(device, "001010000000001") == "grey"
    settled(node)

    def counted(day: datetime) -> Mapping[str, Any]:
        ran = eir("sms", "reminders", "--date", f"{day:%Y-%m-%d}", "--dry-run", "--json", "-c", node.config)
        found: dict[str, Any] = json.loads(ran.out)
        return found

    local = datetime.now(UTC) + timedelta(hours=5)
    assert counted(local)["subscribers"] == 0
    tomorrow = counted(local + timedelta(days=1))
    assert (tomorrow["devices"], tomorrow["subscribers"], tomorrow["parts"] % 30) == (30, 30, 0)
    assert "999000000001" not in json.dumps(tomorrow) and len(tomorrow["samples"]) == 3
    assert counted(local + timedelta(days=40))["subscribers"] == 0
    text = eir("sms", "reminders", "--date", f"{local:%Y-%m-%d}", "--dry-run", "-c", node.config).out
    assert "0 subscribers of 0 devices" in text
    assert "--dry-run counts" in eir("sms", "reminders", "--date", "2026-01-01", "-c", node.config).err


def test_a_reload_takes_texts_and_limits(make_node: MakeNode, smsc: Smsc, tmp_path: Path) -> None:
    (tmp_path / "stopped").write_text("")
    node = with_subscribers(make_node, by_smpp(smsc, stop_list=str(tmp_path / "stopped")), tmp_path)
    (tmp_path / "stopped").write_text("+999000000001 # asked for it\n")
    texts_file = node.config.parent / "sms" / "test.toml"
    texts_file.write_text(texts_file.read_text().replace("Перезагрузите", "Выключите"))
    assert node.ask("reload") is None
    (device,) = lists.new_devices(1)
    with node.peer() as peer:
        for imsi in NUMBERS:
            assert peer.check(device, imsi) == "grey"
    until(lambda: outcomes(node, "delivered") == 1 and outcomes(node, "cancelled") == 1)
    told = texts(smsc)
    assert list(told) == ["999000000002"] and told["999000000002"][1].startswith("Выключите")
    texts_file.write_text("nonsense")
    with pytest.raises(ControlError, match="everything is as before"):
        node.ask("reload")


def test_a_file_is_the_embedded_way_out(make_node: MakeNode, tmp_path: Path) -> None:
    settings: Setting = {"sms": {"gateway": "file", "quiet_from": "00:00", "quiet_to": "00:00"}}
    node = with_subscribers(make_node, settings, tmp_path)
    (device,) = lists.new_devices(1)
    with node.peer() as peer:
        assert peer.check(device, "001010000000001") == "grey"
    until(lambda: outcomes(node, "delivered") == 1)
    (line,) = (node.state / "messages.jsonl").read_text().splitlines()
    assert json.loads(line)["to"] == "999000000001"


def test_without_lists_nothing_is_sent(make_node: MakeNode, smsc: Smsc, tmp_path: Path) -> None:
    node = make_node(by_smpp(smsc), lists=False)
    until(lambda: node.ask("sms-queue")["outbox"]["stopped"] == "no valid lists")


def test_switched_off_it_says_so(make_node: MakeNode) -> None:
    ran = eir("sms", "queue", "-c", make_node().config)
    assert ran.code and 'sms.gateway is "off"' in ran.err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda sms: sms.update(stop_list="stopped.txt"), "sms.stop_list"),
        (lambda sms: sms.update(style="legal"), "obligations_link"),
        (lambda sms: sms.update(texts="none.toml"), "none.toml"),
        (lambda sms: sms["smsc"][0].update(rate=1.0), "do not fit into"),
    ],
)
def test_what_cannot_work_is_refused(
    make_node: MakeNode, change: Callable[[Any], None], told: str, tmp_path: Path
) -> None:
    settings = by_smpp(Smsc(tmp_path / "smsc"))
    settings["sms"]["smsc"][0]["port"] = 1  # type: ignore[index]
    settings["sms.reminders"] = {"devices": 100_000}
    change(settings["sms"])
    node = make_node(settings, start=False)
    ran = eir("config", "check", "-c", node.config)
    assert ran.code and told in ran.err
    assert told in eir("doctor", "-c", node.config).out
