"""`eir.subscribers.rows`: what a row says, and what is wrong with it, without its values."""

from __future__ import annotations

import pytest

from eir.subscribers.directory import Packed, Subscriber, unpack
from eir.subscribers.rows import COLUMNS, HeaderError, RowError, Rows, delimiter_of

IMSI = "001010000000001"
MSISDN = "77000000001"
IIN = "000000000012"


def parse(*fields: str, header: tuple[str, ...] = COLUMNS) -> Packed:
    return Rows(header).parse(list(fields))


@pytest.mark.parametrize(
    ("fields", "subscriber"),
    [
        ((IMSI, MSISDN, IIN, "kk", "1"), Subscriber(IMSI, MSISDN, IIN, "kk", True)),
        ((IMSI, f"+{MSISDN}", "", "ru", "0"), Subscriber(IMSI, MSISDN, None, "ru", False)),
        ((IMSI, "", IIN, "", ""), Subscriber(IMSI, None, IIN, None, False)),
        ((f" {IMSI} ", f" +{MSISDN}", f"{IIN}\t", " KK", "1 "), Subscriber(IMSI, MSISDN, IIN, "kk", True)),
        (("001010", "00123", "", "", ""), Subscriber("001010", "00123", None, None, False)),
        ((IMSI, "9" * 15, "9" * 12, "ru", "1"), Subscriber(IMSI, "9" * 15, "9" * 12, "ru", True)),
    ],
    ids=["all", "plus", "few", "spaces", "zeros in front", "longest"],
)
def test_what_a_row_says(fields: tuple[str, ...], subscriber: Subscriber) -> None:
    assert unpack(parse(*fields)) == subscriber


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (0, "", "imsi is empty"),
        (0, "00101", "imsi is not 6 to 15 digits"),
        (0, "0" * 16, "imsi is not 6 to 15 digits"),
        (0, "00101000000000x", "imsi is not 6 to 15 digits"),
        (0, "٠٠١٠١٠٠٠٠٠٠٠٠٠١", "imsi is not 6 to 15 digits"),
        (0, "00101\udcff00000", "imsi is not 6 to 15 digits"),
        (1, "1234", "msisdn is not 5 to 15 digits"),
        (1, "++12345", "msisdn is not 5 to 15 digits"),
        (1, "1" * 16, "msisdn is not 5 to 15 digits"),
        (1, "12 345", "msisdn is not 5 to 15 digits"),
        (1, "1_2345", "msisdn is not 5 to 15 digits"),
        (2, "1" * 11, "iin is not 12 digits"),
        (2, "11111111111²", "iin is not 12 digits"),
        (3, "en", "language is neither kk nor ru"),
        (4, "yes", "m2m is neither 0 nor 1"),
    ],
    ids=lambda value: "value" if isinstance(value, str) and value[:1] in "0123456789+٠" else None,
)
def test_what_is_wrong(place: int, value: str, reason: str) -> None:
    fields = [IMSI, MSISDN, IIN, "kk", "1"]
    fields[place] = value
    with pytest.raises(RowError) as caught:
        parse(*fields)
    assert str(caught.value) == reason


def test_the_number_of_fields() -> None:
    with pytest.raises(RowError, match="1 fields where the header has 5"):
        parse(IMSI)
    with pytest.raises(RowError, match="6 fields"):
        parse(*[""] * 6)


def test_columns_by_name() -> None:
    rows = Rows(("Name", " M2M", "IMSI "))
    assert (rows.ignored, rows.missing) == (("name",), ("msisdn", "iin", "language"))
    assert unpack(rows.parse(["x", "1", IMSI])) == Subscriber(IMSI, None, None, None, True)


@pytest.mark.parametrize("header", [(), ("imei",), ("imsi", "IMSI"), ("imsi", "iin", "iin")])
def test_headers_that_say_nothing(header: tuple[str, ...]) -> None:
    with pytest.raises(HeaderError):
        Rows(header)


@pytest.mark.parametrize(("header", "delimiter"), [("imsi", ","), ("a;b,c", ";"), ("a,b;c", ","), ("a;b", ";")])
def test_delimiters(header: str, delimiter: str) -> None:
    assert delimiter_of(header) == delimiter
