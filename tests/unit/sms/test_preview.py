"""`eir sms preview`: what people see of a text before subscribers do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from eir.cli import cli
from eir.cli_options import CommandError

CONFIG = Path(__file__).parents[3] / "config" / "eir.toml"


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["sms", "preview", "--config", str(CONFIG), *arguments])
    if isinstance(result.exception, CommandError):
        raise result.exception
    return result


def told(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments, "--json").stdout.splitlines()]


def test_shows_each_part_and_what_is_left_where_less_is_known() -> None:
    lines = run("reminder", "--language", "ru").stdout.splitlines()
    assert lines[:5] == [
        "reminder, ru, friendly",
        "  as given: 4 short messages in ucs2",
        "  part 1 of 4: 67 units of 67, 134 octets",
        "    |Срок временного доступа к сети для устройства с IMEI 35900100000003|",
        "  part 2 of 4: 67 units of 67, 134 octets",
    ]
    assert [line.partition(":")[0].strip() for line in lines if ": 3 short" in line or ": 4 short" in line] == [
        "as given",
        "IIN unknown",
        "number unknown",
        "IIN and number unknown",
    ]
    assert lines[-2].startswith(
        "    |Срок временного доступа к сети для устройства с IMEI 359001000000039 истекает 31.12.2026"
    )


def test_both_languages_the_texts_file_beside_the_configuration() -> None:
    shown = told("all", "--style", "legal")
    assert [text["language"] for text in shown] == ["kk", "ru"] * 8
    assert [text["kind"] for text in shown if text["draft"]] == [
        "grey-granted",
        "black-expired",
        "verified",
        "verified",
        "status",
        "status",
    ]
    assert "a DRAFT" in run("verified").stdout and "a DRAFT" not in run("reminder").stdout


def test_values_as_given() -> None:
    (text,) = told("status", "--language", "ru", "--imei", "490154203237518", "--msisdn", "", "--date", "2027-01-05")
    assert [way["known"] for way in text["ways"]] == ["as given", "IIN unknown", "also without a date"]
    start = (
        "Данные вашего устройства: IMEI 490154203237518, ИИН 123456789012. Вам предоставлен временный доступ к сети "
    )
    assert text["ways"][0]["text"].startswith(f"{start}до 05.01.2027.")


def test_ways_of_joining() -> None:
    arguments = ("black-attempt", "--language", "ru")
    rooms = {
        way: [part["room"] for part in told(*arguments, "--concatenation", way)[0]["ways"][0]["parts"]]
        for way in ("udh8", "udh16", "sar", "payload")
    }
    assert rooms == {"udh8": [67] * 4, "udh16": [66] * 4, "sar": [67] * 4, "payload": [67]}
    assert "part 1 of 1: 239 units, 67 a message, 478 octets" in run(*arguments, "--concatenation", "payload").stdout


def test_a_text_in_septets(tmp_path: Path) -> None:
    texts = (CONFIG.parent / "sms" / "kz.toml").read_text(encoding="utf-8")
    start = texts.index('ru = "Устройство с IMEI {imei} верифицировано')
    file = tmp_path / "texts.toml"
    file.write_text(
        f'{texts[:start]}ru = "Device {{imei}} is verified.\\n{"x" * 160}"\n#{texts[start:]}', encoding="utf-8"
    )
    (text,) = told("verified", "--language", "ru", "--texts", str(file))
    (way,) = text["ways"]
    assert way["coding"] == "gsm7" and way["messages"] == 2
    assert [(part["used"], part["room"], part["octets"]) for part in way["parts"]] == [(153, 153, 134), (43, 153, 38)]
    lines = run("verified", "--language", "ru", "--texts", str(file)).stdout.splitlines()
    assert lines[2:5] == [
        "  part 1 of 2: 153 septets of 153, 134 octets",
        "    |Device 359001000000039 is verified.|",
        f"    |{'x' * 117}|",
    ]


@pytest.mark.parametrize(
    "arguments, error",
    [
        (("greeting",), "'greeting' is none of grey-granted, reminder,"),
        (("reminder", "--imei", "12"), "not an IMEI"),
        (("reminder", "--coding", "gsm7"), "reminder, kk: not in the GSM 7 bit alphabet: "),
        (("reminder", "--texts", "none.toml"), r"none\.toml: No such file"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments: tuple[str, ...], error: str) -> None:
    with pytest.raises(CommandError, match=error):
        run(*arguments)
