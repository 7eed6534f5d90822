"""`eir.log`: one JSON object a line for every event, from the level that was asked for."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from eir import log


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """Leaves the root logger as it was."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_an_event_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("info")
    log.Log("a").info("peer open", peer="mme.test", remote="127.0.0.1:1", number=5, text="one\ntwo", name_kk="Әлем")
    (line,) = lines(capsys)
    time = line.pop("time")
    assert datetime.fromisoformat(time).utcoffset() is not None
    assert line == {
        "level": "info",
        "event": "peer open",
        "peer": "mme.test",
        "remote": "127.0.0.1:1",
        "number": 5,
        "text": "one\ntwo",
        "name_kk": "Әлем",
    }


def test_levels(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["debug", "info", "warning", "error"]
    for number, level in enumerate(names):
        log.set_up(level)
        logger = log.Log("a")
        for name in names:
            getattr(logger, name)("event")
        assert [line["level"] for line in lines(capsys)] == names[number:]


def test_what_json_does_not_know_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("info")
    log.Log("a").info("event", error=OSError("disk"), octets=b"\x00")
    (line,) = lines(capsys)
    assert (line["error"], line["octets"]) == ("disk", "b'\\x00'")


def test_an_exception_is_part_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("info")
    try:
        raise ValueError("wrong")
    except ValueError:
        log.Log("a").error("event not handled", exc_info=True, kind="message")
    (line,) = lines(capsys)
    assert line["kind"] == "message"
    assert line["exception"].endswith("ValueError: wrong")


def test_other_loggers_say_it_in_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("info")
    logging.getLogger("asyncio").warning("took %d ms", 500)
    (line,) = lines(capsys)
    assert (line["level"], line["event"]) == ("warning", "took 500 ms")


def test_per_cent_signs_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up("info")
    log.Log("a").info("100 %s")
    (line,) = lines(capsys)
    assert line["event"] == "100 %s"
