"""Messages that any peer may send to any node, whole and broken: what the state machines are tried with."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from pathlib import Path

from hypothesis import strategies as st

from eir.diameter import dictionary as d
from eir.diameter.answer import Identity
from eir.diameter.capabilities import cer_avps
from eir.diameter.message import REQUEST, Avp, Header, encode, encode_avps, make_avp

IDENTITY = Identity("eir1.example.org", "example.org", origin_state_id=5)
LOCAL = IPv4Address("192.0.2.1")
HOSTS = ("a.example.org", "mme1.example.org", "MME1.example.org", "eir1.example.org", "mme1.example.net")
"""Below and above the node's own name, one in two spellings, the node's own, and one that nobody knows."""
REMOTES = (IPv4Address("192.0.2.10"), IPv4Address("192.0.2.11"), IPv4Address("198.51.100.1"))

VECTORS = Path(__file__).parents[1] / "vectors" / "diameter"
MESSAGES = tuple(bytes.fromhex(re.sub(r"#.*", "", path.read_text())) for path in sorted(VECTORS.glob("*.hex")))


def cer_of(host: str, state_id: int = 5, security: tuple[int, ...] = (), application: int | None = None) -> bytes:
    """The CER of a peer that supports S13 or, instead, another application."""
    avps = cer_avps(Identity(host, "example.org", state_id), REMOTES[0])
    if application is not None:
        avps = (*(avp for avp in avps if avp.code != 260), make_avp(d.AUTH_APPLICATION_ID, application))
    offers = (make_avp(d.INBAND_SECURITY_ID, number) for number in security)
    return encode(Header(REQUEST, 257, 0, 77, 78), encode_avps((*avps, *offers)))


def answer_of(request: bytes, host: str, code: int) -> bytes:
    """An answer to a request of the node's, such as a peer of this name gives it."""
    said = cer_avps(Identity(host, "example.org", 5), REMOTES[0])
    content = encode_avps((make_avp(d.RESULT_CODE, code), *said))
    return encode(Header(0, 0, 0, 0, 0), content)[:4] + b"\0" + request[5:20] + content


def dpr_of(host: str, cause: int) -> bytes:
    """A DPR; a `cause` above 2 is none that there is."""
    own = Identity(host, "example.org", 5).avps()
    avps = (*own, Avp(273, 0, 0x40, cause.to_bytes(4, "big")))
    return encode(Header(REQUEST, 282, 0, 41, 42), encode_avps(avps))


SOME_OCTETS = st.tuples(st.sampled_from(MESSAGES), st.integers(0, 300), st.binary(max_size=3)).map(
    lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + len(parts[2]) :]
)
CERS = st.builds(
    cer_of,
    st.sampled_from(HOSTS),
    st.sampled_from([0, 4, 5, 6]),
    st.sampled_from([(), (), (0,), (1,), (0, 1)]),
    st.sampled_from([None, None, None, d.APPLICATION_RELAY, 16777251]),
)
ANY_MESSAGE = (
    CERS
    | st.builds(dpr_of, st.sampled_from(HOSTS), st.integers(0, 3))
    | st.sampled_from(MESSAGES)
    | SOME_OCTETS
    | st.binary(max_size=60)
)
SECONDS = st.sampled_from([0.0, 0.5, 4.0, 6.0, 11.0, 29.0, 31.0, 100.0])
