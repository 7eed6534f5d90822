"""`eir.diameter.capabilities`: who is let in, and what the CEA says."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from eir.diameter import dictionary
from eir.diameter.answer import Identity
from eir.diameter.capabilities import AllowedPeer, PeerPolicy, build_cea, build_cea_refusal, check_cer
from eir.diameter.message import REQUEST, Avp, DiameterError, Header, decode, encode, encode_avps, make_avp

V4, V6 = ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")
REMOTE = ip_address("192.0.2.10")
ANYONE = PeerPolicy((AllowedPeer("*", (V4, V6)),))
S13 = make_avp(dictionary.AUTH_APPLICATION_ID, 16777252)
BASE = (
    make_avp(dictionary.ORIGIN_HOST, "mme1.example.org"),
    make_avp(dictionary.ORIGIN_REALM, "example.org"),
    make_avp(dictionary.HOST_IP_ADDRESS, REMOTE),
    make_avp(dictionary.VENDOR_ID, 0),
    make_avp(dictionary.PRODUCT_NAME, "mme"),
)


def cer(*avps: Avp) -> bytes:
    return encode(Header(REQUEST, 257, 0, 1, 2), encode_avps(avps))


def code_of(data: bytes, policy: PeerPolicy = ANYONE) -> int:
    with pytest.raises(DiameterError) as caught:
        check_cer(data, policy, REMOTE)
    return caught.value.result_code


class TestPolicy:
    @pytest.mark.parametrize(
        ("pattern", "name", "admitted"),
        [
            ("mme1.example.org", "MME1.Example.org", True),
            ("mme1.example.org", "mme11.example.org", False),
            ("*.example.org", "a.b.EXAMPLE.org", True),
            ("*.example.org", "example.org", False),
            ("*.example.org", ".example.org", False),
            ("*.example.org", "mme.notexample.org", False),
            ("*", "anything", True),
        ],
    )
    def test_names(self, pattern: str, name: str, admitted: bool) -> None:
        assert PeerPolicy((AllowedPeer(pattern, (V4,)),)).admits(name, REMOTE) is admitted

    @pytest.mark.parametrize(
        ("address", "admitted"),
        [
            ("192.0.2.1", True),
            ("198.51.100.1", False),
            ("2001:db8::1", True),
            ("::ffff:192.0.2.1", True),
            ("::1", False),
        ],
    )
    def test_addresses(self, address: str, admitted: bool) -> None:
        assert ANYONE.admits("mme", ip_address(address)) is admitted

    def test_name_and_network_are_of_one_entry(self) -> None:
        policy = PeerPolicy((AllowedPeer("a", (V4,)), AllowedPeer("b", (V6,))))
        assert policy.admits("a", REMOTE)
        assert not policy.admits("b", REMOTE)

    def test_no_entries_no_peers(self) -> None:
        assert not PeerPolicy(()).admits("mme", REMOTE)

    @pytest.mark.parametrize("pattern", ["", "*.", "*example.org", "mme*.example.org", "**"])
    def test_patterns_that_are_mistakes(self, pattern: str) -> None:
        with pytest.raises(ValueError, match="origin_host"):
            AllowedPeer(pattern, (V4,))

    def test_no_networks_is_a_mistake(self) -> None:
        with pytest.raises(ValueError, match="no networks"):
            AllowedPeer("*", ())


class TestCheck:
    @pytest.mark.parametrize(
        "application",
        [
            S13,
            make_avp(dictionary.ACCT_APPLICATION_ID, 16777252),
            make_avp(dictionary.AUTH_APPLICATION_ID, 0xFFFFFFFF),
            make_avp(dictionary.VENDOR_SPECIFIC_APPLICATION_ID, (make_avp(dictionary.VENDOR_ID, 9), S13)),
            make_avp(dictionary.VENDOR_SPECIFIC_APPLICATION_ID, (make_avp(dictionary.ACCT_APPLICATION_ID, 16777252),)),
        ],
    )
    def test_common_application(self, application: Avp) -> None:
        assert check_cer(cer(*BASE, application), ANYONE, REMOTE) == "mme1.example.org"

    def test_cer_of_another_implementation(self, vector: Callable[[str], bytes]) -> None:
        host = check_cer(vector("cer_python_diameter"), ANYONE, REMOTE)
        assert host == "mme1.epc.mnc001.mcc001.3gppnetwork.org"

    def test_no_common_application(self) -> None:
        assert code_of(cer(*BASE)) == 5010
        assert code_of(cer(*BASE, make_avp(dictionary.AUTH_APPLICATION_ID, 16777251))) == 5010

    def test_unknown_peer_comes_before_its_applications(self) -> None:
        assert code_of(cer(*BASE), PeerPolicy(())) == 3010

    def test_security(self) -> None:
        tls, none = make_avp(dictionary.INBAND_SECURITY_ID, 1), make_avp(dictionary.INBAND_SECURITY_ID, 0)
        assert code_of(cer(*BASE, S13, tls)) == 5017
        check_cer(cer(*BASE, S13, tls, none), ANYONE, REMOTE)

    @pytest.mark.parametrize("missing", range(5))
    def test_each_of_the_required(self, missing: int) -> None:
        assert code_of(cer(*BASE[:missing], *BASE[missing + 1 :], S13)) == 5005

    def test_sixty_four_origin_hosts(self) -> None:
        assert code_of(cer(*[BASE[0]] * 64, *BASE[1:], S13)) == 5009

    def test_thousands_of_application_ids(self) -> None:
        many = [make_avp(dictionary.AUTH_APPLICATION_ID, number) for number in range(4000)]
        assert code_of(cer(*BASE, *many)) == 5010
        check_cer(cer(*BASE, *many, S13), ANYONE, REMOTE)

    def test_repeated_groups(self) -> None:
        group = make_avp(dictionary.VENDOR_SPECIFIC_APPLICATION_ID, (S13, S13))
        check_cer(cer(*BASE, group, group), ANYONE, REMOTE)

    def test_truncated_group(self) -> None:
        group = encode_avps((make_avp(dictionary.VENDOR_SPECIFIC_APPLICATION_ID, (S13,)),))
        truncated = b"\x00\x00\x01\x04\x40\x00\x00\x10" + group[8:16]
        data = encode(Header(REQUEST, 257, 0, 1, 2), encode_avps(BASE) + truncated)
        assert code_of(data) == 5014


class TestAnswer:
    def test_success(self, vector: Callable[[str], bytes], identity: Identity) -> None:
        cea = build_cea(vector("cer_python_diameter"), identity, ip_address("192.0.2.1"))
        assert cea == vector("cea_success")

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
