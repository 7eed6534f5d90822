"""Rows that a person brings to the publisher: text in, what the book takes out. Pure.

The columns are those of docs/formats.md. One wrong row refuses the file: who publishes a country's lists mends them
first. Called by `cli_publisher` and by `server`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Final, Literal, NamedTuple, get_args

Listing = Literal["white", "grey", "black"]
LISTINGS: Final[tuple[Listing, ...]] = get_args(Listing)
WHOLE_KINDS: Final = {
    "ranges": "from,to,list,reason",
    "allocated-tacs": "tac",
    "exempt-tacs": "tac",
    "exempt-imsis": "imsi_from,imsi_to",
}
"""Kinds that no delta carries, with their columns: a change of these is a new snapshot."""
_IMEI = re.compile(r"[0-9]{14,16}", re.ASCII)
_IMSI = re.compile(r"[0-9]{6,15}", re.ASCII)
_REASON = re.compile(r"[a-z0-9-]{0,32}", re.ASCII)
_DAY = re.compile(r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})", re.ASCII)
_PLAIN = re.compile(r"[a-z0-9-]{0,64}", re.ASCII)


class Device(NamedTuple):
    """A listed device; `until` is YYYYMMDD or empty, as is the reason."""

    imei: int
    listing: str
    reason: str
    until: str


class RowError(ValueError):
    """A row or a header is wrong; the text says which, without an IMSI."""


def imei(text: str) -> int:
    """The 14 digits of an IMEI or IMEISV, as a number. Raises RowError."""
    text = text.strip()
    if _IMEI.fullmatch(text) is None or not int(text[:14]):
        raise RowError("not an IMEI")
    return int(text[:14])


def device(number: str, listing: str, reason: str = "", until: str = "") -> Device:
    """A device's entry. Raises RowError."""
    listing, reason = listing.strip().lower(), reason.strip().lower()
    if listing not in LISTINGS:
        raise RowError("not a list: white, grey or black")
    if _REASON.fullmatch(reason) is None:
        raise RowError("not a reason: up to 32 of a-z, 0-9 and -")
    day = _day(until.strip())
    if day and listing != "grey":
        raise RowError("a day until which there is access, and not grey")
    return Device(imei(number), listing, reason, day)


def _day(text: str) -> str:
    if not text:
        return ""
    match = _DAY.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        return date(int(match[1]), int(match[2]), int(match[3])).strftime("%Y%m%d")
    except ValueError:
        raise RowError("not a day: YYYYMMDD") from None


def read_devices(lines: Iterable[str]) -> Iterator[Device]:
    """The devices of a file. Raises RowError."""
    for number, fields in _read(lines, ("imei", "list"), ("reason", "until")):
        try:
            yield device(*fields)
        except RowError as error:
            raise RowError(f"line {number}: {error}") from None


def read_pairs(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The pairs of a file. Raises RowError."""
    for number, (device_, imsi) in _read(lines, ("imei", "imsi"), ()):
        try:
            if _IMSI.fullmatch(imsi.strip()) is None:
                raise RowError("not an IMSI")
            yield imei(device_), imsi.strip()
        except RowError as error:
            raise RowError(f"line {number}: {error}") from None


def read_others(kind: str, lines: Iterable[str]) -> Iterator[str]:
    """The rows of a file of one of `WHOLE_KINDS`, which are not looked into. Raises RowError."""
    for number, fields in _read(lines, tuple(WHOLE_KINDS[kind].split(",")), ()):
        if not all(_PLAIN.fullmatch(field.strip().lower()) for field in fields):
            raise RowError(f"line {number}: a value has other characters than letters, digits and -")
        yield ",".join(field.strip().lower() for field in fields)


def _read(lines: Iterable[str], needed: tuple[str, ...], optional: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, values of these columns) of every row; what is optional and not there is empty."""
    reader = csv.reader(line for line in lines if line.strip() and not line.startswith("#"))
    try:
        header = [name.strip().lstrip("\ufeff").lower() for name in next(reader, [])]
        if missing := [name for name in needed if header.count(name) != 1]:
            raise RowError(f"the header has no column {missing[0]}")
        places = [header.index(name) if name in header else None for name in (*needed, *optional)]
        for row in reader:
            if len(row) != len(header):
                raise RowError(f"line {reader.line_num}: {len(row)} fields, where the header has {len(header)}")
            yield reader.line_num, ["" if place is None else row[place] for place in places]
    except csv.Error as error:
        raise RowError(f"line {reader.line_num}: {error}") from None
