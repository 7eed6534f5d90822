"""`eir.diameter.capabilities`: what a CER or CEA says, and what ours say."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from eir.diameter import dictionary
from eir.diameter.answer import Identity
from eir.diameter.capabilities import build_cea, build_cea_refusal, cer_avps, read_cea, read_cer
from eir.diameter.message import REQUEST, Avp, DiameterError, Header, decode, encode, encode_avps, make_avp

REMOTE = ip_address("192.0.2.10")
S13 = make_avp(dictionary.AUTH_APPLICATION_ID, 16777252)
BASE = (
    make_avp(dictionary.ORIGIN_HOST, "mme1.example.org"),
    make_avp(dictionary.ORIGIN_REALM, "example.org"),
    make_avp(dictionary.HOST_IP_ADDRESS, REMOTE),
    make_avp(dictionary.VENDOR_ID, 0),
    make_avp(dictionary.PRODUCT_NAME, "mme"),
)
SUCCESS = make_avp(dictionary.RESULT_CODE, 2001)


def cer(*avps: Avp) -> bytes:
    return encode(Header(REQUEST, 257, 0, 1, 2), encode_avps(avps))


def cea(*avps: Avp) -> bytes:
    return encode(Header(0, 257, 0, 1, 2), encode_avps(avps))


def code_of(data: bytes, read: Callable[[bytes], object] = read_cer) -> int:
    with pytest.raises(DiameterError) as caught:
        read(data)
    return caught.value.result_code


class TestCer:
    @pytest.mark.parametrize(
        ("application", "relay"),
        [
            (S13, False),
            (make_avp(dictionary.ACCT_APPLICATION_ID, 16777252), False),
            (make_avp(dictionary.AUTH_APPLICATION_ID, 0xFFFFFFFF), True),
            (make_avp(dictionary.VENDOR_SPECIFIC_APPLICATION_ID, (make_avp(dictionary.VENDOR_ID, 9), S13)), False),
            (
                make_avp(
                    dictionary.VENDOR_SPECIFIC_APPLICATION_ID, (make_avp(dictionary.ACCT_APPLICATION_ID, 16777252),)
                ),
                False,
            ),
        ],
    )
    def test_common_application(self, application: Avp, relay: bool) -> None:
        said = read_cer(cer(*BASE, application))
        assert (said.origin_host, said.common_application, said.relay) == ("mme1.example.org", True, relay)

    def test_cer_of_another_implementation(self, vector: Callable[[str], bytes]) -> None:
        said = read_cer(vector("cer_python_diameter"))
        assert said.origin_host == "mme1.epc.mnc001.mcc001.3gppnetwork.org"
        assert said.common_application

    def test_no_common_application(self) -> None:
        assert not read_cer(cer(*BASE)).common_application
        assert not read_cer(cer(*BASE, make_avp(dictionary.AUTH_APPLICATION_ID, 16777251))).common_application

    @pytest.mark.parametrize(
        ("ids", "offers_tls", "accepts_clear"),
        [((), False, True), ((0,), False, True), ((1,), True, False), ((1, 0), True, True), ((7,), False, False)],
    )
    def test_security(self, ids: tuple[int, ...], offers_tls: bool, accepts_clear: bool) -> None:
        said = read_cer(cer(*BASE, S13, *(make_avp(dictionary.INBAND_SECURITY_ID, number) for number in ids)))
        assert (said.offers_tls, said.accepts_clear) == (offers_tls, accepts_clear)

    def test_origin_state_id(self) -> None:
        assert read_cer(cer(*BASE)).origin_state_id == 0
        assert read_cer(cer(*BASE, make_avp(dictionary.ORIGIN_STATE_ID, 0xFFFFFFFF))).origin_state_id == 0xFFFFFFFF
        assert code_of(cer(*BASE, *[make_avp(dictionary.ORIGIN_STATE_ID, 1)] * 2)) == 5009

    @pytest.mark.parametrize("missing", range(5))
    def test_each_of_the_required(self, missing: int) -> None:
        assert code_of(cer(*BASE[:missing], *BASE[missing + 1 :], S13)) == 5005

    def test_another_command(self, vector: Callable[[str], bytes]) -> None:
        assert code_of(encode(Header(REQUEST, 257, 16777252, 1, 2), encode_avps(BASE))) == 3007

    def test_sixty_four_origin_hosts(self) -> None:
        assert code_of(cer(*[BASE[0]] * 64, *BASE[1:], S13)) == 5009

    def test_an_application_list_as_long_as_fits(self) -> None:
        # 12 octets each; what does not fit into the longest message that is decoded is refused before.
        many = [make_avp(dictionary.AUTH_APPLICATION_ID, number) for number in range(1330)]
        assert not read_cer(cer(*BASE, *many)).common_application
        assert read_cer(cer(*BASE, *many, S13)).common_application
        assert code_of(cer(*BASE, *many, *many)) == 5012

    def test_repeated_groups(self) -> None:
        group = make_avp(dictionary.VENDOR_SPECIFIC_APPLICATION_ID, (S13, S13))
        assert read_cer(cer(*BASE, *[group] * 500)).common_application

    @pytest.mark.parametrize("length", [9, 12, 15, 16, 17, 19, 24, 200])
    def test_truncated_group(self, length: int) -> None:
        group = encode_avps((make_avp(dictionary.VENDOR_SPECIFIC_APPLICATION_ID, (S13,)),))
        assert len(group) == 20
        content = group[8 : min(length, 20)]
        truncated = b"\x00\x00\x01\x04\x40\x00\x00" + bytes([length]) + content + bytes(-len(content) % 4)
        data = encode(Header(REQUEST, 257, 0, 1, 2), encode_avps(BASE) + truncated)
        assert code_of(data) == 5014

    def test_groups_within_groups(self) -> None:
        nested = S13
        for _ in range(20):
            nested = make_avp(dictionary.VENDOR_SPECIFIC_APPLICATION_ID, (nested,))
        assert code_of(cer(*BASE, nested)) == 5004


class TestCea:
    def test_success(self, vector: Callable[[str], bytes]) -> None:
        code, said = read_cea(vector("cea_success"))
        assert (code, said.origin_host, said.common_application) == (2001, "eir1.example.org", True)
        assert said.origin_state_id == 5

    def test_a_refusal_may_be_short(self) -> None:
        assert read_cea(cea(make_avp(dictionary.RESULT_CODE, 3010)))[0] == 3010
        assert read_cea(encode(Header(0x20, 257, 0, 1, 2), encode_avps((make_avp(dictionary.RESULT_CODE, 3010),))))

    def test_not_one_result_code(self) -> None:
        assert code_of(cea(*BASE, S13), read_cea) == 5005
        assert code_of(cea(SUCCESS, SUCCESS, *BASE, S13), read_cea) == 5005

    def test_a_success_has_the_whole_grammar(self) -> None:
        assert read_cea(cea(SUCCESS, *BASE, S13))[0] == 2001
        assert code_of(cea(SUCCESS, *BASE[1:], S13), read_cea) == 5005
        assert code_of(cea(SUCCESS, *BASE, *BASE[:1], S13), read_cea) == 5009

    def test_cut_short(self) -> None:
        assert code_of(cea(SUCCESS, *BASE, S13)[:-2], read_cea) == 5015


class TestOurs:
    def test_success(self, vector: Callable[[str], bytes], identity: Identity) -> None:
        answer = build_cea(vector("cer_python_diameter"), identity, ip_address("192.0.2.1"))
        assert answer == vector("cea_success")

    def test_with_tls_behind_it(self, vector: Callable[[str], bytes], identity: Identity) -> None:
        answer = build_cea(vector("cer_python_diameter"), identity, ip_address("192.0.2.1"), secure=True)
        assert [avp.value for avp in decode(answer).avps if avp.code == 299] == [1]

    def test_cer(self, identity: Identity) -> None:
        said = read_cer(cer(*cer_avps(identity, ip_address("192.0.2.1"))))
        assert (said.origin_host, said.common_application, said.relay) == ("eir1.example.org", True, False)
        assert (said.offers_tls, said.accepts_clear, said.origin_state_id) == (False, True, 5)

    def test_address_of_the_connection(self, identity: Identity) -> None:
        def address(local: str) -> object:
            avps = decode(build_cea(cer(), identity, ip_address(local))).avps
            return next(avp.value for avp in avps if avp.key == dictionary.HOST_IP_ADDRESS.key)

        assert address("2001:db8::1") == ip_address("2001:db8::1")
        assert address("::ffff:192.0.2.1") == ip_address("192.0.2.1")

    def test_refusal(self, identity: Identity) -> None:
        local = ip_address("192.0.2.1")
        codes = [
            avp.code for avp in decode(build_cea_refusal(cer(), identity, local, DiameterError(5010, None, ""))).avps
        ]
        assert codes == [268, 264, 296, 257, 266, 269, 281]
        codes = [
            avp.code for avp in decode(build_cea_refusal(cer(), identity, local, DiameterError(3010, None, ""))).avps
        ]
        assert codes == [268, 264, 296, 281]
