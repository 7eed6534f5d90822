"""What a node tells the national database: records, and the batches that carry them. Pure.

First attaches come from the journal, flips and agents' acts from the audit trail, pairs from a day's file. A record's
`id` follows from what it tells, so one that is sent twice is known again. docs/wire-format.md, Reports. Called by
`reporting`, and by the publisher for what comes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

MAX_BATCH: Final = 5000
"""Records of a batch at most; so many pairs in a record of these."""

Kind = Literal["first-attach", "cancelled", "flip", "act", "pairs"]
ACTS: Final = frozenset(
    {"freeze", "unfreeze", "extend", "lift", "shift", "unshift", "lists-set", "replaced", "breaker-reset", "override"}
)
"""Kinds of audit lines that are reported as acts."""

_Imei = Annotated[str, Meta(pattern=r"^[0-9]{14}\Z")]
_Imsi = Annotated[str, Meta(pattern=r"^[0-9]{6,15}\Z")]
_Text = Annotated[str, Meta(max_length=1000)]
_Moment = Annotated[int, Meta(ge=0, le=(1 << 40))]


class ReportError(ValueError):
    """What came is no batch of reports; the text says why, and repeats no value."""


class Report(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A record. Which members it has depends on its kind; times are seconds since 1970."""

    id: Annotated[str, Meta(min_length=1, max_length=400)]
    kind: Kind
    at: _Moment
    node: Annotated[str, Meta(pattern=r"^[!-~]{1,255}\Z")] = "-"
    """Who reports; in a batch it stands once for all."""
    imei: _Imei | None = None
    deadline: _Moment | None = None
    act: _Text = ""
    agent: _Text = ""
    reason: _Text = ""
    imeis: Annotated[tuple[_Imei, ...], Meta(max_length=100_000)] = ()
    days: int = 0
    day: Annotated[str, Meta(pattern=r"^[0-9-]{0,10}\Z")] = ""
    pairs: Annotated[tuple[tuple[_Imei, _Imsi], ...], Meta(max_length=MAX_BATCH)] = ()


class _Batch(Struct, frozen=True):
    node: Annotated[str, Meta(pattern=r"^[!-~]{1,255}\Z")]
    reports: Annotated[tuple[Report, ...], Meta(max_length=MAX_BATCH)]


def write_reports(node: str, reports: Sequence[Report]) -> bytes:
    """A batch as msgpack."""
    return msgspec.msgpack.encode(_Batch(node, tuple(reports)))


def read_reports(octets: bytes) -> list[Report]:
    """The records of a batch, each with its node. Raises ReportError."""
    try:
        batch = msgspec.msgpack.decode(octets, type=_Batch)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(f"no batch of reports: {error}") from None
    return [msgspec.structs.replace(report, node=batch.node) for report in batch.reports]


def of_journal(node: str, records: Iterable[Sequence[Any]]) -> list[Report]:
    """What is to be told of journal records, as `Node.read_journal` gives them."""
    found = []
    for record in records:
        match record:
            case ("start", imei, at, _, _, deadline):
                known = deadline if deadline <= _LAST_DEADLINE else None
                found.append(
                    Report(
                        id=f"{node}/start/{imei:014}/{at}",
                        kind="first-attach",
                        at=at,
                        imei=f"{imei:014}",
                        deadline=known,
                    )
                )
            case ("cancel", imei, at):
                found.append(Report(id=f"{node}/cancel/{imei:014}/{at}", kind="cancelled", at=at, imei=f"{imei:014}"))
    return found


_LAST_DEADLINE: Final = 0xFFFFFFFE
"""Above it: a timer that does not run out."""


def of_audit(line: Mapping[str, Any]) -> list[Report]:
    """What is to be told of a line of the audit trail; nothing of most kinds, or of what is not understood."""
    try:
        name, at, kind = f"{line['node']}/audit/{line['n']}", line["at"], line["kind"]
        if kind == "expired":
            return [
                Report(id=f"{name}/{int(imei):014}", kind="flip", at=at, imei=f"{int(imei):014}", deadline=deadline)
                for imei, deadline in line["devices"]
            ]
        if kind not in ACTS:
            return []
        imeis = line.get("imeis") or [line[member] for member in ("imei", "old", "new") if line.get(member)]
        act = f"{kind} {line['change']}" if line.get("change") else kind
        return [
            Report(
                id=name,
                kind="act",
                at=at,
                act=act,
                agent=str(line.get("agent", ""))[:1000],
                reason=str(line.get("reason", ""))[:1000],
                imeis=tuple(f"{int(str(imei)[:14]):014}" for imei in imeis),
                days=int(line.get("days", 0)),
            )
        ]
    except (KeyError, TypeError, ValueError):
        return []


def of_pairs(node: str, day: str, at: int, offset: int, pairs: Sequence[tuple[str, str]]) -> Report:
    """A piece of a day's pairs, from this octet of the day's file on."""
    return Report(id=f"{node}/pairs/{day}/{offset}", kind="pairs", at=at, day=day, pairs=tuple(pairs))
