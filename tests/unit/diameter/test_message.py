"""`eir.diameter.message`: what decodes, what does not, which code that gets, and what its Failed-AVP shows."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from eir.diameter import dictionary
from eir.diameter.message import (
    ERROR,
    HEADER_LENGTH,
    MANDATORY,
    MAX_LENGTH,
    PROXIABLE,
    REQUEST,
    Avp,
    DiameterError,
    Header,
    check_grammar,
    check_header,
    command_of,
    decode,
    encode,
    encode_avp,
    encode_avps,
    example,
    groups_of,
    make_avp,
    numbers_of,
    text_of,
)

HEADER = Header(REQUEST | PROXIABLE, 324, 16777252, 1, 2)


def message(*parts: bytes) -> bytes:
    return encode(HEADER, b"".join(parts))


def refused(data: bytes) -> tuple[int, bytes | None]:
    with pytest.raises(DiameterError) as caught:
        decode(data)
    return caught.value.result_code, caught.value.failed_avp


def ungrammatical(*avps: Avp, command: dictionary.CommandDefinition) -> tuple[int, bytes | None]:
    with pytest.raises(DiameterError) as caught:
        check_grammar(command, avps)
    return caught.value.result_code, caught.value.failed_avp


class TestVectors:
    def test_minimal_ecr(self, vector: Callable[[str], bytes]) -> None:
        decoded = decode(vector("ecr_minimal"))
        assert decoded.header == Header(REQUEST | PROXIABLE, 324, 16777252, 1, 2)
        assert text_of(decoded.avps, dictionary.SESSION_ID) == "mme;1;2"
        assert numbers_of(decoded.avps, dictionary.AUTH_SESSION_STATE) == [1]
        (terminal,) = groups_of(decoded.avps, dictionary.TERMINAL_INFORMATION)
        assert text_of(terminal, dictionary.IMEI) == "35209900176148"
        check_grammar(dictionary.ME_IDENTITY_CHECK, decoded.avps)

    def test_ecr_of_another_implementation(self, vector: Callable[[str], bytes]) -> None:
        avps = decode(vector("ecr_python_diameter")).avps
        (terminal,) = groups_of(avps, dictionary.TERMINAL_INFORMATION)
        assert text_of(terminal, dictionary.SOFTWARE_VERSION) == "01"
        assert text_of(avps, dictionary.USER_NAME) == "001011234567890"
        check_grammar(dictionary.ME_IDENTITY_CHECK, avps)

    def test_cer_of_another_implementation(self, vector: Callable[[str], bytes]) -> None:
        avps = decode(vector("cer_python_diameter")).avps
        addresses = [avp.value for avp in avps if avp.key == dictionary.HOST_IP_ADDRESS.key]
        assert addresses == [ip_address("192.0.2.10"), ip_address("2001:db8::10")]
        check_grammar(dictionary.CAPABILITIES_EXCHANGE, avps)

    @pytest.mark.parametrize(
        "name",
        [
            "ecr_minimal",
            "ecr_python_diameter",
            "cer_python_diameter",
            "dwr_python_diameter",
            "dpr_python_diameter",
            "cea_success",
            "dwa",
            "eca_no_imei",
        ],
    )
    def test_encodes_to_what_it_was(self, vector: Callable[[str], bytes], name: str) -> None:
        data = vector(name)
        decoded = decode(data)
        assert encode(decoded.header, encode_avps(decoded.avps)) == data


class TestHeader:
    def test_shorter_than_a_header(self) -> None:
        assert refused(message()[:19]) == (5015, None)
        assert refused(b"") == (5015, None)

    def test_other_version_comes_before_a_wrong_length(self) -> None:
        assert refused(b"\x02" + message()[1:] + b"more") == (5011, None)

    def test_length_that_is_not_that_of_the_message(self) -> None:
        assert refused(message() + b"more") == (5015, None)
        assert refused(message(example(dictionary.RESULT_CODE))[:-4]) == (5015, None)

    def test_length_that_is_no_multiple_of_four(self) -> None:
        data = message() + b"\x00"
        assert refused(b"\x01\x00\x00\x15" + data[4:]) == (5015, None)

    def test_too_long(self) -> None:
        assert refused(encode(HEADER, bytes(MAX_LENGTH))) == (5012, None)

    def test_error_bit_in_a_request(self) -> None:
        assert refused(encode(Header(REQUEST | ERROR, 324, 16777252, 1, 2), b"")) == (3008, None)

    def test_reserved_bits_are_ignored(self) -> None:
        data = bytearray(message())
        data[4] |= 0x0F
        assert check_header(bytes(data)) == HEADER

    @pytest.mark.parametrize(
        ("command", "application", "code"),
        [
            (324, 16777251, 3007),  # a command of ours under S6a
            (324, 0, 3007),
            (280, 16777252, 3007),  # a base command under S13
            (316, 16777251, 3007),  # neither is ours: the application is named first
            (316, 16777252, 3001),
            (271, 0, 3001),
        ],
    )
    def test_command_that_is_not_ours(self, command: int, application: int, code: int) -> None:
        with pytest.raises(DiameterError) as caught:
            command_of(Header(REQUEST, command, application, 1, 2))
        assert caught.value.result_code == code


class TestAvpFraming:
    @pytest.mark.parametrize("length", [0, 7, 13, 0xFFFFFF])
    def test_wrong_length_shows_header_and_least_payload(self, length: int) -> None:
        broken = b"\x00\x00\x01\x0c\x40" + length.to_bytes(3, "big") + b"\x00\x00\x07\xd1"
        assert refused(message(broken)) == (5014, example(dictionary.RESULT_CODE))

    def test_vendor_specific_avp_shorter_than_its_header(self) -> None:
        broken = bytes.fromhex("0000057a c000000b 000028af 33353230")
        assert refused(message(broken)) == (5014, example(dictionary.IMEI))

    def test_vendor_id_cut_off(self) -> None:
        broken = bytes.fromhex("0000057a c000000c")
        assert refused(message(broken)) == (5014, bytes.fromhex("0000057a 40000008"))

    def test_header_cut_off(self) -> None:
        assert refused(message(bytes.fromhex("00000108"))) == (5014, bytes.fromhex("00000108 00000008"))

    def test_inside_a_group_shows_the_group(self) -> None:
        broken = bytes.fromhex("00000579 c0000018 000028af 0000057a c00000ff 000028af")
        expected = bytes.fromhex("00000579 c0000018 000028af 0000057a c000000c 000028af")
        assert refused(message(broken)) == (5014, expected)

    def test_group_whose_last_padding_is_cut(self) -> None:
        broken = bytes.fromhex("00000579 c0000026 000028af 0000057a c000001a 000028af") + b"35209900176148\0\0"
        assert refused(message(broken))[0] == 5014

    def test_padding_need_not_be_zero(self) -> None:
        (avp,) = decode(message(bytes.fromhex("00000107 4000000b 61623bff"))).avps
        assert avp.value == "ab;"

    def test_reserved_bits_are_ignored(self) -> None:
        (avp,) = decode(message(bytes.fromhex("00000115 5f00000c 00000001"))).avps
        assert avp == make_avp(dictionary.AUTH_SESSION_STATE, 1)

    def test_vendor_zero_is_no_vendor(self) -> None:
        (avp,) = decode(message(bytes.fromhex("00000115 c0000010 00000000 00000001"))).avps
        assert avp == make_avp(dictionary.AUTH_SESSION_STATE, 1)


class TestAvpValue:
    def test_unknown_with_the_m_bit(self) -> None:
        unknown = encode_avp(Avp(9999, 4242, MANDATORY, b"abc"))
        assert refused(message(unknown)) == (5001, unknown)

    def test_unknown_without_the_m_bit_is_carried(self) -> None:
        assert decode(message(encode_avp(Avp(9999, 4242, 0, b"abc")))).avps == (Avp(9999, 4242, 0, b"abc"),)

    def test_unknown_within_a_group(self) -> None:
        group = encode_avp(make_avp(dictionary.TERMINAL_INFORMATION, (Avp(9999, 0, MANDATORY, b""),)))
        assert refused(message(group)) == (5001, group)

    @pytest.mark.parametrize("content", ["", "000001", "0000000000000001"])
    def test_fixed_length(self, content: str) -> None:
        wrong = encode_avp(Avp(268, 0, MANDATORY, bytes.fromhex(content)))
        assert refused(message(wrong)) == (5014, wrong)

    @pytest.mark.parametrize(
        ("definition", "content"),
        [
            (dictionary.AUTH_SESSION_STATE, "00000002"),
            (dictionary.DISCONNECT_CAUSE, "ffffffff"),
            (dictionary.IMEI, "c328"),
            (dictionary.ORIGIN_HOST, ""),
            (dictionary.ORIGIN_HOST, "6d6d6520"),
            (dictionary.ORIGIN_HOST, "6d6d65c3a9"),
            (dictionary.HOST_IP_ADDRESS, ""),
            (dictionary.HOST_IP_ADDRESS, "0001"),
            (dictionary.HOST_IP_ADDRESS, "0001c00002"),
            (dictionary.HOST_IP_ADDRESS, "0002c0000201"),
            (dictionary.HOST_IP_ADDRESS, "0008"),
        ],
    )
    def test_invalid_value(self, definition: dictionary.AvpDefinition, content: str) -> None:
        wrong = encode_avp(Avp(definition.code, definition.vendor, MANDATORY, bytes.fromhex(content)))
        assert refused(message(wrong)) == (5004, wrong)

    def test_address_of_another_family_is_carried(self) -> None:
        e164 = encode_avp(Avp(257, 0, MANDATORY, b"\x00\x08+7701"))
        assert decode(message(e164)).avps[0].value == b"\x00\x08+7701"

    def test_groups_nested_without_end(self) -> None:
        nested = b""
        for _ in range(1000):
            nested = encode_avp(Avp(260, 0, MANDATORY, nested))
        assert refused(message(nested))[0] == 5004

    def test_what_an_agent_left_is_not_looked_into(self) -> None:
        proxy_info = encode_avp(Avp(284, 0, MANDATORY, b"\xff" * 5))
        assert decode(message(proxy_info)).avps[0].value == b"\xff" * 5

    def test_the_first_error_of_the_message_is_the_one(self) -> None:
        bad_value = encode_avp(Avp(277, 0, MANDATORY, b"\0\0\0\x09"))
        unknown = encode_avp(Avp(9999, 0, MANDATORY, b""))
        assert refused(message(bad_value, unknown))[0] == 5004
        assert refused(message(unknown, bad_value))[0] == 5001


class TestGrammar:
    DWR = (make_avp(dictionary.ORIGIN_HOST, "mme.example"), make_avp(dictionary.ORIGIN_REALM, "example"))

    def test_missing(self) -> None:
        failed = ungrammatical(self.DWR[0], command=dictionary.DEVICE_WATCHDOG)
        assert failed == (5005, bytes.fromhex("00000128 40000008"))

    def test_missing_number_has_zeros(self) -> None:
        failed = ungrammatical(*self.DWR, command=dictionary.DISCONNECT_PEER)
        assert failed == (5005, bytes.fromhex("00000111 4000000c 00000000"))

    def test_the_first_extra_one_is_shown(self) -> None:
        second, third = make_avp(dictionary.ORIGIN_HOST, "second"), make_avp(dictionary.ORIGIN_HOST, "third")
        failed = ungrammatical(*self.DWR, second, third, command=dictionary.DEVICE_WATCHDOG)
        assert failed == (5009, encode_avp(second))

    def test_too_many_come_before_missing(self) -> None:
        failed = ungrammatical(self.DWR[0], self.DWR[0], command=dictionary.DEVICE_WATCHDOG)
        assert failed == (5009, encode_avp(self.DWR[0]))

    def test_extra_in_a_group_is_shown_in_it(self, vector: Callable[[str], bytes]) -> None:
        imei = make_avp(dictionary.IMEI, "35209900176148")
        group = make_avp(dictionary.TERMINAL_INFORMATION, (imei, imei))
        avps = (*decode(vector("ecr_minimal")).avps[:-1], group)
        shown = encode_avp(make_avp(dictionary.TERMINAL_INFORMATION, (imei,)))
        assert ungrammatical(*avps, command=dictionary.ME_IDENTITY_CHECK) == (5009, shown)

    def test_session_id_in_the_second_place(self, vector: Callable[[str], bytes]) -> None:
        first, second, *rest = decode(vector("ecr_minimal")).avps
        failed = ungrammatical(second, first, *rest, command=dictionary.ME_IDENTITY_CHECK)
        assert failed == (5005, example(dictionary.SESSION_ID))
        assert ungrammatical(command=dictionary.ME_IDENTITY_CHECK) == failed

    def test_order_of_the_rest_does_not_matter(self, vector: Callable[[str], bytes]) -> None:
        first, *rest = decode(vector("ecr_minimal")).avps
        check_grammar(dictionary.ME_IDENTITY_CHECK, (first, *reversed(rest)))


class TestEncode:
    def test_number_for_an_avp_that_holds_none(self) -> None:
        with pytest.raises(ValueError, match="does not hold a number"):
            encode_avp(make_avp(dictionary.IMEI, 35209900176148))
        with pytest.raises(ValueError, match="does not hold a number"):
            encode_avp(Avp(9999, 0, 0, 1))

    def test_number_out_of_range(self) -> None:
        with pytest.raises(ValueError, match="Result-Code cannot hold"):
            encode_avp(make_avp(dictionary.RESULT_CODE, -1))

    def test_length_is_that_of_header_and_content(self) -> None:
        assert len(encode(HEADER, bytes(8))) == HEADER_LENGTH + 8
