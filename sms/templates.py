"""The texts that subscribers read: a file of templates in, a text with a device's values out.

The head of `config/sms/kz.toml` says how templates are written. What is wrong in a file is found when it is loaded: a
text that was loaded can be rendered with every value known or unknown, and each way is whole sentences, since what may
be unknown can stand only in brackets that go with it. Pure; `setup` reads the file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date as Day
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from sms.segment import CodingChoice, Concatenation, segment

Kind: TypeAlias = Literal["grey-granted", "reminder", "black-expired", "black-attempt", "verified", "status"]
"""What happened that a subscriber is told of."""
Answer: TypeAlias = Literal["how-to-find-imei", "how-to-verify"]
"""What a subscriber asked."""
Style: TypeAlias = Literal["friendly", "legal"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
ANSWERS: Final[tuple[Answer, ...]] = get_args(Answer)
STYLES: Final[tuple[Style, ...]] = get_args(Style)

_ALWAYS: Final = ("imei", "obligations_link")
DATED: Final[tuple[Kind, ...]] = ("grey-granted", "reminder")
"""Kinds whose texts always have a date."""
_PLACEHOLDERS: Final = (*_ALWAYS, "msisdn", "iin", "date")
_MSISDN: Final = re.compile("[0-9]{5,15}")
_IIN: Final = re.compile("[0-9]{12}")
_IMEI: Final = re.compile("[0-9]{14}")

_Model = TypeVar("_Model")
_Word = Annotated[str, Meta(min_length=1, max_length=32)]
_Name = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z")]


class TemplateError(Exception):
    """The texts cannot be used; the text names the file and the key."""


class Values(NamedTuple):
    """What is known of a device and its subscriber; the directory's entries can be anything."""

    imei: str
    """14 digits."""
    msisdn: str = ""
    """5 to 15 digits; what is not, is unknown."""
    iin: str = ""
    """12 digits; what is not, is unknown."""
    date: Day | None = None
    """The last day of temporary access."""


LONGEST: Final = Values("9" * 14, "9" * 15, "9" * 12, Day(2099, 12, 31))
"""Values whose texts are as long as any."""


class Draft(NamedTuple):
    """A text in use whose wording is to be confirmed."""

    kind: Kind | Answer
    language: str


class _Language(Struct, frozen=True, forbid_unknown_fields=True):
    iin: _Word


class _Style(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The names of the texts that are used."""

    grey_granted: _Name = "grey-granted"
    reminder: _Name = "reminder"
    black_expired: _Name = "black-expired"
    black_attempt: _Name = "black-attempt"
    verified: _Name = "verified"
    status: _Name = "status"

    def names(self) -> dict[Kind, str]:
        return {kind: getattr(self, kind.replace("-", "_")) for kind in KINDS}


class _Styles(Struct, frozen=True, forbid_unknown_fields=True):
    friendly: _Style | None = None
    legal: _Style | None = None


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    languages: dict[str, Any]
    styles: _Styles
    texts: dict[str, Any]


class _Group(NamedTuple):
    """Literals and names of placeholders by turns, a literal first and last; all of it or nothing, where optional."""

    pieces: tuple[str, ...]
    optional: bool


_Template: TypeAlias = tuple[_Group, ...]


class Templates(Struct, frozen=True):
    """The texts of one style, checked."""

    style: Style
    languages: tuple[str, ...]
    drafts: tuple[Draft, ...]
    """The texts of this style and these languages whose wording is to be confirmed."""
    _texts: Mapping[tuple[str, str], _Template]
    _iin: Mapping[str, str]

    @classmethod
    def parse(
        cls,
        content: bytes,
        name: str,
        style: Style,
        obligations_link: str = "",
        languages: Iterable[str] = ("kk", "ru"),
    ) -> Templates:
        """Checks what a file of this name holds. Raises TemplateError."""
        try:
            return _checked(_model(content), style, obligations_link, tuple(languages))
        except TemplateError as error:
            raise TemplateError(f"{name}: {error}") from None

    def render(self, kind: Kind | Answer, language: str, values: Values) -> str:
        """The text for what happened, in a language, with these values.

        Raises ValueError: the IMEI is not 14 digits, or a text that always has a date gets none.
        """
        known = {
            "imei": _with_check_digit(values.imei),
            "msisdn": values.msisdn if _MSISDN.fullmatch(values.msisdn) else "",
            "iin": f"{self._iin[language]} {values.iin}" if _IIN.fullmatch(values.iin) else "",
            "date": f"{values.date:%d.%m.%Y}" if values.date else "",
        }
        text = []
        for pieces, optional in self._texts[kind, language]:
            found = [known[name] for name in pieces[1::2]]
            if all(found):
                text += [piece for pair in zip(pieces[::2], (*found, ""), strict=True) for piece in pair]
            elif not optional:
                raise ValueError(f"{kind} has no date")
        return "".join(text)

    def most_parts(
        self,
        kind: Kind | Answer,
        languages: Iterable[str],
        concatenation: Concatenation = "udh8",
        coding: CodingChoice = "auto",
    ) -> int:
        """Short messages that a text takes at most, in any of these languages. Raises ValueError as `segment` does."""
        texts = (self.render(kind, language, LONGEST) for language in languages)
        return max(segment(text, concatenation=concatenation, coding=coding).weight for text in texts)


_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
"""The sum of the digits of a digit's double (3GPP TS 23.003 annex B)."""


def _with_check_digit(imei: str) -> str:
    # The error does not repeat what was given: it may be a subscriber's number in the wrong place.
    if not _IMEI.fullmatch(imei):
        raise ValueError("an IMEI has 14 digits without its check digit")
    total = sum(map(int, imei[::2])) + sum(_DOUBLED[int(digit)] for digit in imei[1::2])
    return f"{imei}{-total % 10}"


def _model(content: bytes) -> _File:
    try:
        return _convert("", tomllib.loads(content.decode()), _File)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TemplateError(str(error)) from None


def _convert(key: str, value: object, model: type[_Model]) -> _Model:
    """What stands at a key of the file. Raises TemplateError."""
    try:
        return msgspec.convert(value, model)
    except msgspec.ValidationError as error:
        what, _, inner = str(error).partition(" - at `$")
        unknown = re.fullmatch(r"Object contains unknown field `(.+)`", what, re.DOTALL)
        where = [key, inner.rstrip("`").lstrip(".")]
        if unknown:
            where, what = [*where, unknown[1]], "unknown key"
        raise TemplateError(f"{'.'.join(filter(None, where)) or 'top level'}: {what}") from None


def _checked(file: _File, style: Style, link: str, languages: tuple[str, ...]) -> Templates:
    if link and not re.fullmatch("[!-~]+", link):
        raise TemplateError("obligations_link: not printable ASCII without spaces")
    iin = {name: _convert(f"languages.{name}", table, _Language).iin for name, table in file.languages.items()}
    for language in languages:
        if language not in iin:
            raise TemplateError(f"languages.{language}: missing")
    tables = {name: _entries(name, table, iin) for name, table in file.texts.items()}
    parsed = {
        (name, language): _parse(f"texts.{name}.{language}", text)
        for name, (wordings, _) in tables.items()
        for language, text in wordings.items()
    }
    texts: dict[tuple[str, str], _Template] = {}
    drafts = []
    for kind, name in _used(file.styles, style, tables):
        for language in languages:
            key = f"texts.{name}.{language}"
            if (name, language) not in parsed:
                raise TemplateError(f"{key}: missing")
            texts[kind, language] = _filled(key, kind, parsed[name, language], link)
            if language in tables[name][1]:
                drafts.append(Draft(kind, language))
    templates = Templates(style, languages, tuple(drafts), texts, iin)
    for kind, name in _used(file.styles, style, tables):
        for language in languages:
            try:
                templates.most_parts(kind, (language,))
            except ValueError as error:
                raise TemplateError(f"texts.{name}.{language}: {error}") from None
    return templates


def _used(styles: _Styles, style: Style, tables: Mapping[str, object]) -> list[tuple[Kind | Answer, str]]:
    """What is sent, and the name of its text, in this style; every style's are there."""
    if getattr(styles, style, None) is None:
        raise TemplateError(f"styles.{style}: missing")
    used: list[tuple[Kind | Answer, str]] = []
    for other in STYLES:
        names = getattr(styles, other)
        for kind, name in names.names().items() if names else ():
            if name not in tables:
                raise TemplateError(f"styles.{other}.{kind}: there is no text {name}")
            if other == style:
                used.append((kind, name))
    for answer in ANSWERS:
        if answer not in tables:
            raise TemplateError(f"texts.{answer}: missing")
        used.append((answer, answer))
    return used


def _entries(name: str, table: object, languages: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """A text's wordings by language, and the languages whose wording is a draft. Raises TemplateError."""
    if not isinstance(table, dict):
        raise TemplateError(f"texts.{name}: not a table")
    wordings = {}
    for key, value in table.items():
        if key == "drafts":
            continue
        if key not in languages:
            raise TemplateError(f"texts.{name}.{key}: unknown key")
        wordings[key] = _convert(f"texts.{name}.{key}", value, str)
    drafts = _convert(f"texts.{name}.drafts", table.get("drafts", ()), tuple[str, ...])
    for language in drafts:
        if language not in wordings:
            raise TemplateError(f"texts.{name}.drafts: there is no wording in {language}")
    return wordings, drafts


_TOKEN: Final = re.compile(r"(?P<escaped>\{\{|\}\}|\[\[|\]\])|\{(?P<name>[^{}]*)\}|(?P<bracket>[\[\]{}])|[^\[\]{}]+")


def _parse(key: str, text: str) -> _Template:
    """The groups of a template. Raises TemplateError."""
    if not text.strip():
        raise TemplateError(f"{key}: empty")
    for character in text:
        if (ord(character) < 0x20 and character != "\n") or 0x7F <= ord(character) < 0xA0:
            raise TemplateError(f"{key}: holds a control character, U+{ord(character):04X}")
    groups, pieces, inside = [], [""], False
    for token in _TOKEN.finditer(text):
        if (bracket := token["bracket"]) is None:
            if (name := token["name"]) is None:
                pieces[-1] += token[0][0] if token["escaped"] else token[0]
            elif name in _PLACEHOLDERS:
                pieces += (name, "")
            else:
                raise TemplateError(f"{key}: unknown placeholder {{{name}}}")
            continue
        if bracket in "{}" or (bracket == "[") == inside:
            raise TemplateError(f"{key}: {bracket} at character {token.start() + 1} has no counterpart, or is nested")
        if inside and all(name in _ALWAYS for name in pieces[1::2]):
            raise TemplateError(f"{key}: brackets without a placeholder that may be unknown")
        groups.append(_Group(tuple(pieces), inside))
        pieces, inside = [""], not inside
    if inside:
        raise TemplateError(f"{key}: [ has no ]")
    groups.append(_Group(tuple(pieces), False))
    if not any(piece.strip() for group in groups if not group.optional for piece in group.pieces):
        raise TemplateError(f"{key}: nothing stands outside brackets")
    return tuple(groups)


def _filled(key: str, kind: Kind | Answer, template: _Template, link: str) -> _Template:
    """A template for what happened, with the link in its place. Raises TemplateError."""
    certain = (*_ALWAYS, "date") if kind in DATED else _ALWAYS
    groups = []
    for pieces, optional in template:
        for name in pieces[1::2]:
            if not optional and name not in certain:
                raise TemplateError(f"{key}: {{{name}}} may be unknown in {kind}, and is in no [ ]")
            if kind in ANSWERS and name != "obligations_link":
                raise TemplateError(f"{key}: an answer has no {{{name}}}")
            if name == "obligations_link" and not link:
                raise TemplateError(f"{key}: obligations_link is not configured")
        kept = [pieces[0]]
        for name, literal in zip(pieces[1::2], pieces[2::2], strict=True):
            if name == "obligations_link":
                kept[-1] += link + literal
            else:
                kept += (name, literal)
        groups.append(_Group(tuple(kept), optional))
    return tuple(groups)
