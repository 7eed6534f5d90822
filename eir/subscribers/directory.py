"""A subscriber, as the operator's directory knows one, and what every directory can do.

Also the packed form, four numbers, in which both kinds of directory keep a subscriber. Pure. IMSI, MSISDN and IIN are
personal data: nothing here shows them unless it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

Language = Literal["kk", "ru"]
Packed = tuple[int, int | None, int | None, int]
"""IMSI, MSISDN, IIN and flags. See `pack`."""

_LANGUAGES: tuple[Language | None, ...] = (None, "kk", "ru")
_M2M = 4
_IIN_DIGITS = 12


class DirectoryError(Exception):
    """A directory cannot be asked now, or holds what no subscriber is. The text holds no personal data."""


@dataclass(frozen=True, slots=True, repr=False)
class Subscriber:
    """Who holds an IMSI. MSISDN without "+"; IIN of 12 digits; None where the operator does not know."""

    imsi: str
    msisdn: str | None
    iin: str | None
    language: Language | None
    m2m: bool

    def __repr__(self) -> str:
        def known(value: str | None) -> str:
            return "None" if value is None else "***"

        numbers = f"imsi=***, msisdn={known(self.msisdn)}, iin={known(self.iin)}"
        return f"Subscriber({numbers}, language={self.language!r}, m2m={self.m2m})"


class Directory(Protocol):
    """Finds subscribers. Not for the answer path: it may take seconds."""

    async def find(self, imsis: Iterable[str]) -> dict[str, Subscriber]:
        """The subscribers among these IMSIs that are known, by IMSI. Raises DirectoryError."""

    async def close(self) -> None:
        """Gives back what it holds. It is not asked any more after that."""


def pack_digits(digits: str) -> int:
    """Up to 15 digits as a number: filled up with zeros on the right to 15, times 16, plus their count."""
    return int(digits.ljust(15, "0")) << 4 | len(digits)


def unpack_digits(packed: int) -> str:
    """The digits that `pack_digits` packed. Raises ValueError."""
    length, number = packed & 15, packed >> 4
    digits = f"{number:015}"
    if not 0 < length <= 15 or number < 0 or len(digits) > 15 or digits[length:].strip("0"):
        raise ValueError("a packed number is damaged")
    return digits[:length]


def is_imsi(text: str) -> bool:
    """Whether a text is 6 to 15 decimal digits."""
    return text.isascii() and text.isdigit() and 6 <= len(text) <= 15


def pack(subscriber: Subscriber) -> Packed:
    """A subscriber as four numbers: IMSI and MSISDN as `pack_digits`, the IIN as a number, and flags.

    Flags are 0 for no language, 1 for kk, 2 for ru; plus 4 for M2M.
    """
    return (
        pack_digits(subscriber.imsi),
        None if subscriber.msisdn is None else pack_digits(subscriber.msisdn),
        None if subscriber.iin is None else int(subscriber.iin),
        _LANGUAGES.index(subscriber.language) | (_M2M if subscriber.m2m else 0),
    )


def unpack(packed: object) -> Subscriber:
    """The subscriber that `pack` packed, as a tuple or list. Raises DirectoryError for anything else."""
    try:
        if not isinstance(packed, tuple | list):
            raise ValueError
        imsi, msisdn, iin, flags = packed
        if type(imsi) is not int or type(flags) is not int or {type(msisdn), type(iin)} - {int, type(None)}:
            raise ValueError
        if not 0 <= flags < 8 or flags & 3 == 3 or (iin is not None and not 0 <= iin < 10**_IIN_DIGITS):
            raise ValueError
        return Subscriber(
            unpack_digits(imsi),
            None if msisdn is None else unpack_digits(msisdn),
            None if iin is None else f"{iin:0{_IIN_DIGITS}}",
            _LANGUAGES[flags & 3],
            bool(flags & _M2M),
        )
    except ValueError:
        # The cause is left out: it could name a number.
        raise DirectoryError("an entry of the directory of subscribers is damaged") from None


def mask(value: str | None, shown_first: int = 0, shown_last: int = 2) -> str:
    """A number with only its first and last digits; "-" for none."""
    if value is None:
        return "-"
    hidden = len(value) - shown_first - shown_last
    return f"{value[:shown_first]}{'*' * hidden}{value[len(value) - shown_last :]}" if hidden > 0 else "*" * len(value)
