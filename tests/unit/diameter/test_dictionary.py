"""`eir.diameter.dictionary`: the tables agree with one another and, where a slip would be costly, with others'."""

from __future__ import annotations

import pytest

from eir.diameter import dictionary
from eir.diameter.dictionary import AvpType


def test_no_two_avps_share_a_key() -> None:
    definitions = dictionary._NAMED + dictionary._TOLERATED
    assert len(dictionary.AVPS) == len(definitions)
    assert len({definition.name for definition in definitions}) == len(definitions)


def test_rules_speak_of_known_avps() -> None:
    rules = [rule for command in dictionary.COMMANDS.values() for rule in command.rules]
    rules += [rule for members in dictionary.GROUP_RULES.values() for rule in members]
    assert all(dictionary.AVPS[rule.avp.key] is rule.avp for rule in rules)
    assert all(rule.most is None or rule.least <= rule.most for rule in rules)


def test_only_enumerated_avps_limit_their_values() -> None:
    assert all(avp.values is None or avp.type is AvpType.ENUMERATED for avp in dictionary.AVPS.values())


@pytest.mark.parametrize(
    "key",
    [(0, 301), (0, 621), (0, 623), (0, 650), (10415, 628), (10415, 629), (10415, 630), (10415, 701), (10415, 1471)]
    + [(0, code) for code in (1, 25, 33, 55, 259, 267, 278, 279, 280, 281, 282, 284, 297, 298, 299)],
)
def test_avps_that_clients_add_are_known(key: tuple[int, int]) -> None:
    assert key in dictionary.KNOWN_AVPS


def test_a_3gpp_avp_is_not_known_without_its_vendor() -> None:
    assert (10415, 1402) in dictionary.KNOWN_AVPS
    assert (0, 1402) not in dictionary.KNOWN_AVPS


def test_agrees_with_python_diameter() -> None:
    """A second opinion on what each code is, where that implementation is installed."""
    reference = pytest.importorskip("diameter.message.avp")
    # It has some numbers as signed, text as octets, and its own name for one AVP: nothing that shows on the wire.
    number, octets, group = (
        {"AvpInteger32", "AvpUnsigned32", "AvpTime"},
        {"AvpOctetString", "AvpUtf8String"},
        {"AvpGrouped"},
    )
    types = {
        AvpType.UNSIGNED64: {"AvpUnsigned64"},
        AvpType.ADDRESS: {"AvpAddress"},
        AvpType.GROUPED: group,
        AvpType.OPAQUE_GROUP: group,
        **dict.fromkeys((AvpType.INTEGER32, AvpType.UNSIGNED32, AvpType.ENUMERATED, AvpType.TIME), number),
        **dict.fromkeys((AvpType.OCTET_STRING, AvpType.UTF8_STRING, AvpType.IDENTITY, AvpType.URI), octets),
    }
    names = {"Accounting-Multi-Session-Id": "Acct-Multi-Session-Id"}
    for definition in dictionary.AVPS.values():
        theirs = reference.Avp.new(definition.code, definition.vendor)
        assert names.get(theirs.name, theirs.name) == definition.name
        assert type(theirs).__name__ in types[definition.type], definition.name
