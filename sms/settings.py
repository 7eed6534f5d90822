"""How ways out for short messages are configured. Pure.

Each class stands for a table of the configuration file. What they look like when printed has no secret in it. Files
are named here and read when a way out starts; times are in seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}\Z")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Octet = Annotated[int, Meta(ge=0, le=255)]
Timeout = Annotated[float, Meta(ge=0.05, le=600)]
Answer = Annotated[float, Meta(ge=0.05, le=60)]
"""Less than the time after which another node takes a message over."""
Window = Annotated[int, Meta(ge=1, le=1000)]
Rate = Annotated[float, Meta(ge=0, le=100_000)]
"""Short messages a second; 0: no limit."""
Concatenation: TypeAlias = Literal["udh8", "udh16", "sar", "payload"]
ReceiptIds: TypeAlias = Literal["same", "hex-to-decimal", "decimal-to-hex"]


def _c_octets(length: int) -> Meta:
    """A C-octet string of SMPP of at most so many octets with its terminator: printable ASCII."""
    return Meta(pattern=rf"^[ -~]{{0,{length - 1}}}\Z")


class _Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in msgspec.structs.fields(self)}
        shown = (f"{name}={'…' if name in _SECRET and value else repr(value)}" for name, value in values.items())
        return f"{type(self).__name__}({', '.join(shown)})"


_SECRET = frozenset({"password", "url"})
"""A URL may have user and password in it, or a key in its query."""


class SmscSettings(_Settings, frozen=True, kw_only=True):
    """One SMSC, by SMPP 3.4. Those that come first in the configuration are preferred."""

    name: Name
    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Port = 2775
    system_id: Annotated[str, _c_octets(16)]
    password: Annotated[str, _c_octets(9)] = ""
    password_file: str = ""
    system_type: Annotated[str, _c_octets(13)] = ""
    bind: Literal["transceiver", "transmitter-receiver"] = "transceiver"
    tls: bool = False
    ca_file: str = ""
    """Empty: those that the machine trusts."""
    certificate_file: str = ""
    key_file: str = ""
    source_addr: Annotated[str, _c_octets(21)] = ""
    source_ton: Octet = 0
    source_npi: Octet = 0
    dest_ton: Octet = 1
    dest_npi: Octet = 1
    service_type: Annotated[str, _c_octets(6)] = ""
    data_coding_gsm7: Octet = 0
    data_coding_ucs2: Octet = 8
    concatenation: Concatenation = "udh8"
    window: Window = 10
    """Parts that may be unanswered at a time."""
    rate: Rate = 0.0
    enquire_link: Timeout = 30.0
    """Silence after which the SMSC is asked whether it is there."""
    response_timeout: Answer = 30.0
    connect_timeout: Timeout = 10.0
    receipts: bool = True
    receipt_ids: ReceiptIds = "same"
    """How a message_id of a response is to be written to be the one that receipts name."""
    validity: Annotated[int, Meta(ge=0, le=63 * 7 * 86400)] = 0
    """0: the SMSC's own."""


class FileSettings(_Settings, frozen=True, kw_only=True):
    """A file that messages are appended to, instead of being sent."""

    name: Name = "file"
    path: Annotated[str, Meta(min_length=1)]


class WebhookSettings(_Settings, frozen=True, kw_only=True):
    """An HTTP service that takes texts whole."""

    name: Name = "webhook"
    url: Annotated[str, Meta(pattern=r"^(https?://[!-~]{1,2000})?\Z")] = ""
    token_file: str = ""
    """Its first line is the bearer token; empty: none is sent."""
    ca_file: str = ""
    """Empty: those that the machine trusts."""
    timeout: Answer = 10.0
    connect_timeout: Answer = 5.0
    concurrency: Annotated[int, Meta(ge=1, le=1000)] = 10
    rate: Rate = 0.0
