"""`eir.diameter.s13`: every reason to refuse an ECR, and what is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from eir.diameter import dictionary
from eir.diameter.answer import Identity
from eir.diameter.message import (
    REQUEST,
    Avp,
    Header,
    decode,
    encode,
    encode_avp,
    encode_avps,
    example,
    make_avp,
    text_of,
)
from eir.diameter.s13 import refuse

IMEI = make_avp(dictionary.IMEI, "35209900176148")
VALID = {
    "Session-Id": make_avp(dictionary.SESSION_ID, "mme;1;2"),
    "Auth-Session-State": make_avp(dictionary.AUTH_SESSION_STATE, 1),
    "Origin-Host": make_avp(dictionary.ORIGIN_HOST, "mme.example.org"),
    "Origin-Realm": make_avp(dictionary.ORIGIN_REALM, "example.org"),
    "Destination-Realm": make_avp(dictionary.DESTINATION_REALM, "example.org"),
    "Terminal-Information": make_avp(dictionary.TERMINAL_INFORMATION, (IMEI,)),
}


def ecr(*avps: Avp, flags: int = REQUEST) -> bytes:
    return encode(Header(flags, 324, 16777252, 1, 2), encode_avps(avps))


def terminal(*members: Avp) -> bytes:
    group = make_avp(dictionary.TERMINAL_INFORMATION, members)
    return ecr(*(VALID | {"Terminal-Information": group}).values())


def refusal_of(data: bytes, identity: Identity) -> tuple[int, object]:
    """The code, and what the Failed-AVP of the answer holds; the answer itself is checked to be a right one."""
    refusal = refuse(data, identity)
    assert refusal is not None
    answer = decode(refusal.data)
    codes = [avp.value for avp in answer.avps if avp.key == dictionary.RESULT_CODE.key]
    assert codes == [refusal.code]
    failed = [avp.value for avp in answer.avps if avp.key == dictionary.FAILED_AVP.key]
    assert len(failed) <= 1
    return refusal.code, failed[0] if failed else None


@pytest.mark.parametrize("name", ["ecr_minimal", "ecr_python_diameter"])
def test_nothing_is_wrong_with_the_vectors(vector: Callable[[str], bytes], identity: Identity, name: str) -> None:
    assert refuse(vector(name), identity) is None


@pytest.mark.parametrize(
    "extra",
    [
        make_avp(dictionary.DESTINATION_HOST, "someone.else.example"),
        Avp(701, 10415, 0x40, bytes.fromhex("7710325476f8")),
        Avp(628, 10415, 0, (Avp(629, 10415, 0, 1), Avp(630, 10415, 0, 3))),
        Avp(4242, 99999, 0, b"a vendor's own"),
        make_avp(dictionary.USER_NAME, "001011234567890"),
    ],
)
def test_what_is_tolerated(identity: Identity, extra: Avp) -> None:
    assert refuse(ecr(*VALID.values(), extra), identity) is None


@pytest.mark.parametrize("imei", ["", "0", "3520990017614", "not an IMEI", "12345678901234567", "٣٥٢٠٩٩٠٠١٧٦١٤٨"])
def test_an_imei_that_is_none_is_for_the_verdict(identity: Identity, imei: str) -> None:
    assert refuse(terminal(make_avp(dictionary.IMEI, imei)), identity) is None


def test_a_meid_alone_is_for_the_verdict(identity: Identity) -> None:
    assert refuse(terminal(make_avp(dictionary.MEID_3GPP2, b"\xa1\0\0\x12\x34\x56\x78")), identity) is None


@pytest.mark.parametrize("name", VALID)
def test_each_is_required(identity: Identity, name: str) -> None:
    data = ecr(*(avp for other, avp in VALID.items() if other != name))
    definition = dictionary.AVPS[VALID[name].key]
    assert refusal_of(data, identity) == (5005, example(definition))


@pytest.mark.parametrize("name", VALID)
def test_each_occurs_once(identity: Identity, name: str) -> None:
    assert refusal_of(ecr(*VALID.values(), VALID[name]), identity) == (5009, encode_avp(VALID[name]))


@pytest.mark.parametrize(
    "extra",
    [
        make_avp(dictionary.DESTINATION_HOST, "eir.example.org"),
        make_avp(dictionary.USER_NAME, "001011234567890"),
        make_avp(dictionary.VENDOR_SPECIFIC_APPLICATION_ID, ()),
    ],
)
def test_optional_occurs_once_at_most(identity: Identity, extra: Avp) -> None:
    assert refusal_of(ecr(*VALID.values(), extra, extra), identity) == (5009, encode_avp(extra))


def test_no_device_identity(identity: Identity, vector: Callable[[str], bytes]) -> None:
    missing = encode_avp(make_avp(dictionary.TERMINAL_INFORMATION, (make_avp(dictionary.IMEI, ""),)))
    assert refusal_of(terminal(), identity) == (5005, missing)
    assert refusal_of(terminal(make_avp(dictionary.SOFTWARE_VERSION, "01")), identity) == (5005, missing)
    *rest, _ = decode(vector("ecr_minimal")).avps
    empty = encode(Header(REQUEST | 0x40, 324, 16777252, 1, 2), encode_avps((*rest, Avp(1401, 10415, 0x40, ()))))
    refusal = refuse(empty, identity)
    assert refusal is not None
    assert refusal.data == vector("eca_no_imei")


def test_two_imeis(identity: Identity) -> None:
    shown = encode_avp(make_avp(dictionary.TERMINAL_INFORMATION, (IMEI,)))
    assert refusal_of(terminal(IMEI, IMEI), identity) == (5009, shown)


def test_imei_that_is_no_text(identity: Identity) -> None:
    bad = Avp(1402, 10415, 0x40, b"\xff\xfe")
    shown = encode_avp(make_avp(dictionary.TERMINAL_INFORMATION, (bad,)))
    assert refusal_of(terminal(bad), identity) == (5004, shown)


def test_auth_session_state_out_of_range(identity: Identity) -> None:
    bad = Avp(277, 0, 0x40, 2)
    assert refusal_of(ecr(*(VALID | {"Auth-Session-State": bad}).values()), identity) == (5004, encode_avp(bad))


def test_vsai_that_does_not_decode(identity: Identity) -> None:
    bad = make_avp(dictionary.VENDOR_SPECIFIC_APPLICATION_ID, (Avp(266, 0, 0x40, b"\0\0\0"),))
    assert refusal_of(ecr(*VALID.values(), bad), identity) == (5014, encode_avp(bad))


def test_session_id_second(identity: Identity) -> None:
    first, second, *rest = VALID.values()
    data = ecr(second, first, *rest)
    assert refusal_of(data, identity) == (5005, example(dictionary.SESSION_ID))
    refusal = refuse(data, identity)
    assert refusal is not None
    assert text_of(decode(refusal.data).avps, dictionary.SESSION_ID) == "mme;1;2"


def test_header(identity: Identity) -> None:
    assert refusal_of(ecr(*VALID.values(), flags=REQUEST | 0x20), identity) == (3008, None)
    assert refusal_of(encode(Header(REQUEST, 324, 16777251, 1, 2), b""), identity) == (3007, None)


def test_only_requests_are_refused(identity: Identity) -> None:
    with pytest.raises(ValueError, match="only a request"):
        refuse(ecr(flags=0), identity)
