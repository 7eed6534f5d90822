"""Rows of the operator's CSV export of subscribers: a header, then one subscriber a row, as docs/formats.md has it.

Pure: fields in, packed subscribers out. Called by `importing` for every row, so what is in order takes few steps. What
is wrong with a row is said without its values, which are personal data.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from eir.subscribers.directory import Packed, is_imsi, pack_digits

COLUMNS = ("imsi", "msisdn", "iin", "language", "m2m")
_LANGUAGES = {"": 0, "kk": 1, "ru": 2}
_M2M = {"": 0, "0": 0, "1": 4}
_FLAGS = {(language, m2m): _LANGUAGES[language] | _M2M[m2m] for language in _LANGUAGES for m2m in _M2M}
_SCALE = [10 ** (15 - length) * 16 for length in range(16)]
"""By how much so many digits are multiplied to make room for zeros and for their count; see `pack_digits`."""


class HeaderError(Exception):
    """The first line does not say where the IMSI is."""


class RowError(Exception):
    """A row is wrong; the text says why and holds none of its values."""


def delimiter_of(header: str) -> str:
    """The delimiter of a file whose header this is: a semicolon where one is there before any comma."""
    at = {found: header.find(found) for found in ";," if found in header}
    return min(at, key=lambda found: at[found], default=",")


class Rows:
    """Reads the rows under one header."""

    def __init__(self, header: Sequence[str]) -> None:
        """Raises HeaderError."""
        names = [name.strip().lower() for name in header]
        self.ignored = tuple(name for name in names if name not in COLUMNS)
        """Columns that say nothing here."""
        self.missing = tuple(name for name in COLUMNS if name not in names)
        """Columns that could be there and are not."""
        # Whether a comment could pass for a row: a known column holds no "#".
        self.first_is_ignored = not set(names[:1]) <= set(COLUMNS)
        if "imsi" in self.missing:
            raise HeaderError("the header names no column imsi")
        for name in COLUMNS:
            if names.count(name) > 1:
                raise HeaderError(f"the header names the column {name} twice")
        self._width = len(names)
        # A column that is not there is read from an empty field behind the last.
        self._pick = itemgetter(*(names.index(name) if name in names else self._width for name in COLUMNS))

    def parse(self, fields: list[str]) -> Packed:
        """A row's subscriber, packed. Raises RowError."""
        if len(fields) != self._width:
            raise RowError(f"{len(fields)} fields where the header has {self._width}")
        fields.append("")
        imsi, msisdn, iin, language, m2m = self._pick(fields)
        # This runs for every row of many million; what most rows are is asked first, and nothing is called in vain.
        flags = _FLAGS.get((language, m2m))
        if flags is None or not (imsi.isdigit() and imsi.isascii() and 6 <= len(imsi) <= 15):
            return self._parse_slowly(imsi, msisdn, iin, language, m2m)
        if msisdn:
            number = msisdn[1:] if msisdn[0] == "+" else msisdn
            length = len(number)
            if not (number.isdigit() and number.isascii() and 5 <= length <= 15):
                return self._parse_slowly(imsi, msisdn, iin, language, m2m)
            packed_msisdn = int(number) * _SCALE[length] + length
        else:
            packed_msisdn = None
        if iin and not (len(iin) == 12 and iin.isdigit() and iin.isascii()):
            return self._parse_slowly(imsi, msisdn, iin, language, m2m)
        length = len(imsi)
        return int(imsi) * _SCALE[length] + length, packed_msisdn, int(iin) if iin else None, flags

    @staticmethod
    def _parse_slowly(imsi: str, msisdn: str, iin: str, language: str, m2m: str) -> Packed:
        """The same of fields that have space around them or are wrong."""
        imsi, msisdn, iin = imsi.strip(), msisdn.strip().removeprefix("+"), iin.strip()
        if not is_imsi(imsi):
            raise RowError("imsi is not 6 to 15 digits" if imsi else "imsi is empty")
        if msisdn and not (msisdn.isascii() and msisdn.isdigit() and 5 <= len(msisdn) <= 15):
            raise RowError("msisdn is not 5 to 15 digits")
        if iin and not (len(iin) == 12 and iin.isascii() and iin.isdigit()):
            raise RowError("iin is not 12 digits")
        if (language := language.strip().lower()) not in _LANGUAGES:
            raise RowError("language is neither kk nor ru")
        if (m2m := m2m.strip()) not in _M2M:
            raise RowError("m2m is neither 0 nor 1")
        return (
            pack_digits(imsi),
            pack_digits(msisdn) if msisdn else None,
            int(iin) if iin else None,
            _FLAGS[language, m2m],
        )
