"""Watchdogs (RFC 3539) between the node and each of the stacks, in both directions, as fast as they may be."""

from __future__ import annotations

from pathlib import Path

from interop.conftest import MakeFreeDiameter, MakeOtpDiameter, Record
from support import lists
from support.freediameter import Target
from support.node import MakeNode, until
from support.python_diameter import mme
from support.recorder import Recorder
from support.tshark import sees_nothing_wrong

FREEDIAMETER, OTP, PYTHON = "free.epc.test", "mme.otp.test", "mme.python.test"
LEAST = 6
"""The least Tw in seconds (RFC 3539 3.4.1)."""
LONG = 60.0


def dwrs(recorder: Recorder, from_node: bool) -> int:
    """How many DWRs of one side the other answered."""
    each = [
        (conversation.count(from_node, 280, True), conversation.count(not from_node, 280, False))
        for conversation in recorder.conversations
    ]
    return min(sum(asked for asked, _ in each), sum(answered for _, answered in each))


def test_both_ways(
    make_node: MakeNode,
    make_freediameter: MakeFreeDiameter,
    make_otp: MakeOtpDiameter,
    record: Record,
    tmp_path: Path,
) -> None:
    asks, is_asked = make_node({"diameter": {"watchdog": float(LEAST)}}), make_node()
    name, realm = asks.settings.node.origin_host, asks.settings.node.origin_realm
    # Those that the node asks have a long Tw of their own, and those that ask a short one.
    asked_free, asked_otp, asked_python = record(asks), record(asks), record(asks)
    asking_free, asking_otp = record(is_asked), record(is_asked)
    programs = [
        make_freediameter(FREEDIAMETER, Target(name, asked_free.address), asks=realm),
        make_otp(OTP, realm, asked_otp.address),
        make_freediameter(f"asking.{FREEDIAMETER}", Target(name, asking_free.address), asks=realm, tw=LEAST),
        make_otp(f"asking.{OTP}", realm, asking_otp.address, tw=LEAST),
    ]
    with mme(asks, (name, asked_python.address), PYTHON) as python:
        until(lambda: all(program.is_open(name) for program in programs))
        # OTP is told nothing more by this node, and takes it up again only after three DWAs.
        is_asked.kill()
        is_asked.start()
        asking_free.to = asking_otp.to = is_asked.listening[0]
        expected = (
            (asked_free, True, 1),
            (asked_otp, True, 1),
            (asked_python, True, 1),
            (asking_free, False, 1),
            (asking_otp, False, 3),
        )
        until(lambda: all(dwrs(recorder, way) >= count for recorder, way, count in expected), LONG)
        until(lambda: all(program.is_open(name) for program in programs))
        for program in programs:
            assert program.check(lists.WHITE) == ("2001", "0", name)
        assert python.check(lists.WHITE).equipment_status == 0
    assert ["watchdog", "down", "reopen"] in programs[3].told("watchdog")
    assert ["watchdog", "reopen", "okay"] in programs[3].told("watchdog")
    sees_nothing_wrong(tmp_path, asked_free, asked_otp, asked_python, asking_free, asking_otp)
