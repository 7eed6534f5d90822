"""SMPP 3.4 in octets: what is written to an SMSC, and what it wrote. Pure.

smpplib encodes binds and the parts of submit_sm that are the same in all of them, once; it decodes deliver_sm. TLVs are
walked here: smpplib takes lengths from its own tables and raises for a TLV that it knows from another command only.
Whatever an SMSC writes, nothing but PduError comes out, and no error's text has octets of it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from smpplib import consts
from smpplib.command import DeliverSM
from smpplib.command_codes import commands
from smpplib.smpp import make_pdu

from sms.gateway import Part, ReceiptState
from sms.segment import header
from sms.settings import ReceiptIds, SmscSettings

MOST: Final = 64 << 10
"""Octets of the longest PDU that is taken."""
_LONGEST_TEXT: Final = 60_000

_HEADER: Final = struct.Struct(">IIII")
_TLV: Final = struct.Struct(">HH")
_RESPONSE: Final = 0x8000_0000

GENERIC_NACK: Final[int] = commands["generic_nack"]
SUBMIT_SM: Final[int] = commands["submit_sm"]
SUBMIT_SM_RESP: Final[int] = commands["submit_sm_resp"]
DELIVER_SM: Final[int] = commands["deliver_sm"]
DATA_SM: Final[int] = commands["data_sm"]
UNBIND: Final[int] = commands["unbind"]
UNBIND_RESP: Final[int] = commands["unbind_resp"]
ENQUIRE_LINK: Final[int] = commands["enquire_link"]
OUTBIND: Final[int] = commands["outbind"]
ALERT_NOTIFICATION: Final[int] = commands["alert_notification"]

ESME_ROK: Final = 0x00
ESME_RINVCMDID: Final = 0x03
ESME_RSYSERR: Final = 0x08
ESME_RMSGQFUL: Final = 0x14
ESME_RTHROTTLED: Final = 0x58
ESME_RX_T_APPN: Final = 0x64

_ESM_UDHI: Final = 0x40
_ESM_TYPE: Final = 0x3C
_ESM_RECEIPT: Final = 0x04
_ESM_INTERMEDIATE: Final = 0x20
_UCS2: Final = 8

_RECEIPTED_MESSAGE_ID: Final = 0x001E
_SAR_MSG_REF_NUM: Final = 0x020C
_SAR_TOTAL_SEGMENTS: Final = 0x020E
_SAR_SEGMENT_SEQNUM: Final = 0x020F
_NETWORK_ERROR_CODE: Final = 0x0423
_MESSAGE_PAYLOAD: Final = 0x0424
_MESSAGE_STATE: Final = 0x0427

_NAMES: Final = {
    status: name.removeprefix("SMPP_")
    for name, status in vars(consts).items()
    if name.startswith("SMPP_ESME_") and isinstance(status, int)
}

_STATES: Final[dict[int, str]] = {
    1: "ENROUTE",
    2: "DELIVRD",
    3: "EXPIRED",
    4: "DELETED",
    5: "UNDELIV",
    6: "ACCEPTD",
    7: "UNKNOWN",
    8: "REJECTD",
}
_FINAL: Final[dict[str, ReceiptState]] = {
    "DELIVRD": "delivered",
    "EXPIRED": "expired",
    "DELETED": "failed",
    "UNDELIV": "failed",
    "UNKNOWN": "failed",
    "REJECTD": "failed",
}
_TEXT_ID: Final = re.compile(r"\bid:([!-~]{1,64})", re.IGNORECASE)
_TEXT_STATE: Final = re.compile(r"\bstat:([A-Za-z]{4,8})\b", re.IGNORECASE)
_TEXT_ERROR: Final = re.compile(r"\berr:([0-9A-Za-z]{1,4})\b", re.IGNORECASE)

Bind: TypeAlias = Literal["transceiver", "transmitter", "receiver"]


class PduError(Exception):
    """What the SMSC wrote is not SMPP, or not what may come now. The text is of few kinds."""


class UnsendableError(Exception):
    """A part that cannot be put into a submit_sm; the text says why and is of few kinds."""


class Pdu(NamedTuple):
    """One PDU as it came."""

    command: int
    status: int
    sequence: int
    body: bytes


class Frames:
    """Cuts what comes into PDUs."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Pdu]:
        """The PDUs that are whole now. Raises PduError after the last before what is none."""
        octets = self._rest + data if self._rest else data
        at = 0
        try:
            while len(octets) - at >= 4:
                length = int.from_bytes(octets[at : at + 4], "big")
                if not _HEADER.size <= length <= MOST:
                    raise PduError("length of a PDU")
                if len(octets) - at < length:
                    break
                _, command, status, sequence = _HEADER.unpack_from(octets, at)
                body = octets[at + _HEADER.size : at + length]
                at += length
                yield Pdu(command, status, sequence, body)
        finally:
            self._rest = octets[at:]


def pdu(command: int, sequence: int, body: bytes = b"", status: int = ESME_ROK) -> bytes:
    """A PDU."""
    return _HEADER.pack(_HEADER.size + len(body), command, status, sequence) + body


def answer(command: int) -> int:
    """The command that answers a command."""
    return command | _RESPONSE


def is_answer(command: int) -> bool:
    """Whether a command answers another."""
    return command >= _RESPONSE


def status_name(status: int) -> str:
    """A command_status's name in the specification, or its number where it has none."""
    return _NAMES.get(status) or f"0x{status:08x}"


def bind(kind: Bind, settings: SmscSettings, password: str, sequence: int) -> bytes:
    """A bind_transceiver, bind_transmitter or bind_receiver."""
    made: bytes = make_pdu(
        f"bind_{kind}",
        client=None,
        sequence=sequence,
        system_id=settings.system_id,
        password=password,
        system_type=settings.system_type,
    ).generate()
    return pdu(commands[f"bind_{kind}"], sequence, made[_HEADER.size :])


def bind_answer(kind: Bind) -> int:
    """The command that answers a bind."""
    return answer(commands[f"bind_{kind}"])


class SubmitEncoder:
    """Makes the submit_sm for one SMSC.

    What is the same in all of them smpplib has encoded beforehand: it takes 50 µs, a fifth of a part's time.
    """

    def __init__(self, settings: SmscSettings) -> None:
        self._concatenation = settings.concatenation
        self._forms = {
            (coding, udhi): _around(settings, data_coding, _ESM_UDHI if udhi else 0)
            for coding, data_coding in (("gsm7", settings.data_coding_gsm7), ("ucs2", settings.data_coding_ucs2))
            for udhi in (False, True)
        }

    def encode(self, part: Part, sequence: int) -> bytes:
        """The PDU of a part. Raises UnsendableError."""
        if not (part.to.isascii() and part.to.isdigit() and len(part.to) <= 20):
            raise UnsendableError("no number")
        data = part.octets
        if len(data) > _LONGEST_TEXT:
            raise UnsendableError("too long")
        tlvs = b""
        udhi = False
        if part.of > 1:
            if not 1 <= part.number <= part.of <= 255:
                raise UnsendableError("too many parts")
            if self._concatenation in ("udh8", "udh16"):
                data = header(part.reference, part.number, part.of, self._concatenation == "udh16") + data
                udhi = True
            else:
                tlvs = _sar(part)
        if self._concatenation == "payload" or len(data) > 254:
            tlvs += _TLV.pack(_MESSAGE_PAYLOAD, len(data)) + data
            data = b""
        before, after = self._forms[part.coding, udhi]
        body = b"".join((before, part.to.encode(), after, bytes((len(data),)), data, tlvs))
        return _HEADER.pack(_HEADER.size + len(body), SUBMIT_SM, ESME_ROK, sequence) + body


def _around(settings: SmscSettings, data_coding: int, esm_class: int) -> tuple[bytes, bytes]:
    """What stands before destination_addr in a submit_sm, and from its terminator to before sm_length."""
    place = "0123456789" * 2
    made: bytes = make_pdu(
        "submit_sm",
        client=None,
        sequence=1,
        service_type=settings.service_type,
        source_addr_ton=settings.source_ton,
        source_addr_npi=settings.source_npi,
        source_addr=settings.source_addr,
        dest_addr_ton=settings.dest_ton,
        dest_addr_npi=settings.dest_npi,
        destination_addr=place,
        esm_class=esm_class,
        validity_period=_relative(settings.validity),
        registered_delivery=int(settings.receipts),
        data_coding=data_coding,
        short_message=b"",
    ).generate()
    # The last: source_addr may be these digits too.
    before, _, after = made[_HEADER.size :].rpartition(place.encode())
    return before, after[:-1]


def _relative(seconds: int) -> str:
    """A span as SMPP writes it: years of 365 days, months of 30; nothing for 0."""
    if not seconds:
        return ""
    days, seconds = divmod(seconds, 86400)
    years, days = divmod(days, 365)
    months, days = divmod(days, 30)
    hours, seconds = divmod(seconds, 3600)
    return f"{years:02}{months:02}{days:02}{hours:02}{seconds // 60:02}{seconds % 60:02}000R"


def _sar(part: Part) -> bytes:
    """The same in TLVs."""
    return b"".join(
        _TLV.pack(tag, length) + value.to_bytes(length, "big")
        for tag, length, value in (
            (_SAR_MSG_REF_NUM, 2, part.reference & 0xFFFF),
            (_SAR_TOTAL_SEGMENTS, 1, part.of),
            (_SAR_SEGMENT_SEQNUM, 1, part.number),
        )
    )


def submitted_id(body: bytes, ids: ReceiptIds) -> str:
    """The message_id of a submit_sm_resp as receipts will write it; empty where there is none."""
    text = _c_octets(body)
    if ids == "hex-to-decimal":
        return _renumbered(text, 16, "d")
    return _renumbered(text, 10, "x") if ids == "decimal-to-hex" else text


def _receipted_id(text: str, ids: ReceiptIds) -> str:
    """An id of a receipt without what tells apart two ways to write a number."""
    if ids == "hex-to-decimal":
        return _renumbered(text, 10, "d")
    return _renumbered(text, 16, "x") if ids == "decimal-to-hex" else text


def _renumbered(text: str, base: int, form: str) -> str:
    try:
        return format(int(text, base), form)
    except ValueError:
        return text


def _c_octets(octets: bytes) -> str:
    return octets[:65].partition(b"\0")[0].decode("ascii", "backslashreplace")


class Delivery(NamedTuple):
    """What a deliver_sm brings. One that is no receipt came from a subscriber, and nothing of it is kept."""

    kind: Literal["receipt", "intermediate", "message", "unreadable"]
    message_id: str = ""
    state: ReceiptState = "failed"
    reason: str = ""


class _DeliverSM(DeliverSM):  # type: ignore[misc]
    """As smpplib decodes it, but for TLVs, and for strings that have no end, after which it would start anew."""

    def __init__(self) -> None:
        super().__init__("deliver_sm", client=None, need_sequence=False)
        self.tlvs: dict[int, bytes] = {}

    def _parse_string(self, field: str, data: bytes, pos: int, length: int | None = None) -> Any:
        if data.find(b"\0", pos) < 0:
            raise PduError("fields of a deliver_sm")
        return super()._parse_string(field, data, pos, length)

    def parse_optional_params(self, data: bytes) -> None:
        self.tlvs = _tlvs(data)


def _tlvs(data: bytes) -> dict[int, bytes]:
    """Values by tag; of a tag that is there twice, the first."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if len(data) - at < _TLV.size:
            raise PduError("TLVs of a deliver_sm")
        tag, length = _TLV.unpack_from(data, at)
        at += _TLV.size
        if len(data) - at < length:
            raise PduError("TLVs of a deliver_sm")
        found.setdefault(tag, data[at : at + length])
        at += length
    return found


def delivery(body: bytes, ids: ReceiptIds) -> Delivery:
    """What a deliver_sm's body says: in TLVs, else in its text. Raises PduError."""
    decoded = _DeliverSM()
    try:
        decoded.parse_params(body)
    except struct.error:
        raise PduError("fields of a deliver_sm") from None
    if decoded.short_message is None and decoded.sm_length:
        raise PduError("fields of a deliver_sm")
    short_message: bytes = decoded.short_message or b""
    if decoded.sm_length is None or decoded.esm_class is None or len(short_message) != decoded.sm_length:
        raise PduError("fields of a deliver_sm")
    tlvs = decoded.tlvs
    kind = decoded.esm_class & _ESM_TYPE
    if kind == _ESM_INTERMEDIATE:
        return Delivery("intermediate")
    # Some SMSCs leave esm_class at 0; a subscriber can write text like a receipt's, but no TLVs.
    if kind != _ESM_RECEIPT and not (_RECEIPTED_MESSAGE_ID in tlvs and _MESSAGE_STATE in tlvs):
        return Delivery("message")
    octets = short_message or tlvs.get(_MESSAGE_PAYLOAD, b"")
    text = octets[:1000].decode("utf-16-be" if decoded.data_coding == _UCS2 else "latin-1", "replace")
    named = _c_octets(tlvs[_RECEIPTED_MESSAGE_ID]) if _RECEIPTED_MESSAGE_ID in tlvs else ""
    if not named and (match := _TEXT_ID.search(text)):
        named = match[1]
    state = _STATES.get(int.from_bytes(tlvs.get(_MESSAGE_STATE, b""), "big"), "")
    if not state and (match := _TEXT_STATE.search(text)):
        state = match[1].upper()
    if not named or not state:
        return Delivery("unreadable")
    if state not in _FINAL:
        # ACCEPTD too: with most SMSCs it says that they have the message, not that the subscriber has it.
        return Delivery("intermediate" if state in _STATES.values() else "unreadable")
    final = _FINAL[state]
    error = "" if final == "delivered" else _error(tlvs.get(_NETWORK_ERROR_CODE, b""), text)
    reason = "" if final == "delivered" else f"{state} {error}".rstrip()
    return Delivery("receipt", _receipted_id(named, ids), final, reason)


def _error(tlv: bytes, text: str) -> str:
    """The network's error code: its type and number, or as a text has it; nothing where it is 0."""
    if len(tlv) == 3 and any(tlv[1:]):
        return f"{tlv[0]}:{int.from_bytes(tlv[1:], 'big')}"
    match = _TEXT_ERROR.search(text)
    return match[1] if match and match[1].strip("0") else ""
