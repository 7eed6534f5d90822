"""`eir.diameter.trace`: messages become lines, and no line has a subscriber in it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eir.diameter import dictionary as d
from eir.diameter import trace
from eir.diameter.message import Avp, encode_avp, make_avp
from support.diameter import cer, dwr, ecr_avps, ecr_of, terminal

IMEI, IMSI = "352099001761481", "001010123456789"


def avps(*more: Avp) -> list[Avp]:
    return [*ecr_avps("mme.test", terminal(IMEI), IMSI), *more]


def test_a_request_is_shown_with_its_device_and_without_its_subscriber() -> None:
    msisdn = Avp(701, d.VENDOR_3GPP, 0x40, bytes.fromhex("7700000000f1"))
    foreign = Avp(9999, 193, 0, IMSI.encode())
    proxy = Avp(284, 0, 0x40, encode_avp(Avp(33, 0, 0x40, IMSI.encode())))
    session = make_avp(d.SESSION_ID, f"mme.test;1;2;{IMSI}")
    lines = trace.show(ecr_of([session, *avps(msisdn, foreign, proxy)[1:]]))
    assert re.fullmatch(r"ME-Identity-Check-Request flags RP application 16777252 hop-by-hop 0x\w+ .*", lines[0])
    assert lines[1] == "  Session-Id: mme.test;1;2;00101********89"
    assert "  Origin-Host: mme.test" in lines
    assert lines[lines.index("  Terminal-Information") + 1] == f"    IMEI: {IMEI}"
    assert "  User-Name: 00101********89" in lines
    assert "  MSISDN: *********01" in lines
    assert f"  AVP 9999 of vendor 193: {len(IMSI)} octets" in lines
    assert any(line.startswith("  Proxy-Info: ") and line.endswith(" octets") for line in lines)
    assert not any(IMSI in line for line in lines)


def test_other_messages() -> None:
    assert trace.show(cer("mme.test"))[0].startswith("Capabilities-Exchange-Request flags R application 0 ")
    assert "  Host-IP-Address: 6 octets" in trace.show(cer("mme.test"))
    assert trace.show(dwr("mme.test"))[1:] == ["  Origin-Host: mme.test", "  Origin-Realm: epc.test"]
    assert trace.show(b"") == ["0 octets, less than a header"]
    whole = dwr("mme.test")
    assert trace.show(whole[:-6])[-1] == "  10 octets that are no AVP"
    assert trace.show(whole[:4] + b"\xf0" + whole[5:])[0].split()[2] == "RPET"


def test_device_and_subscriber_are_found_wherever_they_stand() -> None:
    message = ecr_of(list(reversed(avps())))
    assert (trace.device_of(message), trace.subscriber_of(message)) == (IMEI, IMSI)
    assert trace.sender_of(message) == "mme.test"
    assert (trace.device_of(dwr("a")), trace.subscriber_of(b""), trace.sender_of(b"")) == (None, None, None)


@given(st.binary(max_size=300))
def test_whatever_the_octets_it_only_shows_them(octets: bytes) -> None:
    for message in (octets, dwr("a")[:20] + octets):
        assert trace.show(message)
        trace.device_of(message)
        trace.subscriber_of(message)
        trace.sender_of(message)


def test_no_more_is_shown_of_a_long_message_than_its_beginning() -> None:
    many = trace.show(ecr_of(avps(*[Avp(9999, 0, 0, b"")] * 8000)))
    assert len(many) == trace.MOST_LINES + 1
    assert many[-1] == "  and more"
    long = trace.show(ecr_of(avps(make_avp(d.ERROR_MESSAGE, f"{'x' * 250}{IMSI}{'x' * 60_000}"))))
    assert long[-1] == f"  Error-Message: {'x' * 250}00101..."
    for before in range(240, 260):
        cut = trace.show(ecr_of(avps(make_avp(d.ERROR_MESSAGE, f"{'x' * before}{IMSI}"))))[-1]
        assert not re.search(r"[0-9]{6,}", cut)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("", ""), ("123456789", "*" * 9), ("1234567890", "12345***90"), (f"{IMSI}@nai", "00101************ai")],
)
def test_user_names(name: str, shown: str) -> None:
    (line,) = [line for line in trace.show(ecr_of([make_avp(d.USER_NAME, name)])) if "User-Name" in line]
    assert line == f"  User-Name: {shown}"


DIGITS = st.text("0123456789", min_size=10, max_size=20)


@given(st.sampled_from([key for key in d.AVPS if key != d.IMEI.key]), DIGITS, st.text(max_size=5))
def test_no_long_number_is_shown_but_the_imei(key: tuple[int, int], digits: str, around: str) -> None:
    vendor, code = key
    avp = Avp(code, vendor, 0x40, f"{around}{digits}{around}".encode("utf-8", "replace"))
    lines = trace.show(ecr_of(avps(avp)))
    numbers = [number for line in lines[1:] for number in re.findall(r"[0-9]{10,}", line)]
    # Eight octets of digits are a number where the dictionary says so; no subscriber's is written that way.
    assert [number for number in numbers if number in digits] in ([], [IMEI])
