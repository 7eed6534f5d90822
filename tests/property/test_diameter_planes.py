"""The fast path and the slow path agree about ECRs: what the data plane hands up, the control plane refuses.

Were there a request that the one does not answer and the other finds nothing wrong with, its sender would be told that
the node is unable to comply. The same octets go to both, generated right and then made wrong.
"""

from __future__ import annotations

from random import Random

from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from eir import _core
from eir.diameter import dictionary as d
from eir.diameter.answer import Identity
from eir.diameter.dictionary import AvpDefinition, AvpType
from eir.diameter.message import HEADER_LENGTH, PROXIABLE, REQUEST, Avp, Header, encode, encode_avp, peek_header, walk
from eir.diameter.s13 import refuse
from support.diameter import cer
from support.node import NodeProcess

CODES = [definition.code for definition in d.AVPS.values()]
EQUIPMENT_UNKNOWN = 5422
IDENTITY = Identity("eir1.example.org", "example.org", origin_state_id=5)
OF_THE_GRAMMAR = {rule.avp.key for rule in d.ME_IDENTITY_CHECK.rules}
NUMBERS = {AvpType.INTEGER32: 4, AvpType.UNSIGNED32: 4, AvpType.ENUMERATED: 4, AvpType.TIME: 4, AvpType.UNSIGNED64: 8}

OCTETS = st.binary(max_size=24)
DIGITS = st.text("0123456789", max_size=18).map(str.encode)
NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).map(str.encode)
TEXTS = st.text(max_size=12).map(str.encode)
ADDRESSES = st.binary(min_size=4, max_size=4).map(b"\0\1".__add__)
FLAGS = st.sampled_from([0x40, 0x40, 0x40, 0, 0x20, 0x60])


def frame(code: int, vendor: int, flags: int, content: bytes) -> bytes:
    return encode_avp(Avp(code, vendor, flags, content))


def right_content(definition: AvpDefinition) -> st.SearchStrategy[bytes]:
    """Contents of an AVP's type."""
    if definition.values is not None:
        return st.sampled_from(sorted(definition.values)).map(lambda number: number.to_bytes(4, "big"))
    if definition.type in NUMBERS:
        return st.binary(min_size=NUMBERS[definition.type], max_size=NUMBERS[definition.type])
    return {
        AvpType.UTF8_STRING: TEXTS | DIGITS,
        AvpType.IDENTITY: NAMES,
        AvpType.URI: NAMES,
        AvpType.ADDRESS: ADDRESSES,
        AvpType.GROUPED: st.just(b""),
    }.get(definition.type, OCTETS)


def right(definition: AvpDefinition) -> st.SearchStrategy[bytes]:
    return st.builds(frame, st.just(definition.code), st.just(definition.vendor), FLAGS, right_content(definition))


EXTRA = st.one_of([right(definition) for definition in d.AVPS.values() if definition.key not in OF_THE_GRAMMAR])
UNKNOWN = st.builds(frame, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.sampled_from([0, 0x20]), OCTETS)
TERMINAL = st.tuples(
    st.sampled_from([[d.IMEI], [d.MEID_3GPP2], [d.IMEI, d.SOFTWARE_VERSION], [d.IMEI, d.MEID_3GPP2]]), st.booleans()
).flatmap(lambda pick: st.tuples(*map(right, pick[0]), *([UNKNOWN] if pick[1] else [])).map(b"".join))
APPLICATION = st.lists(
    st.one_of(right(d.VENDOR_ID), right(d.AUTH_APPLICATION_ID), right(d.ACCT_APPLICATION_ID), UNKNOWN), max_size=4
)


def member(definition: AvpDefinition) -> st.SearchStrategy[bytes]:
    """A right AVP of the ECR's grammar."""
    if definition is d.TERMINAL_INFORMATION:
        content: st.SearchStrategy[bytes] = TERMINAL
    elif definition is d.VENDOR_SPECIFIC_APPLICATION_ID:
        content = APPLICATION.map(b"".join)
    else:
        return right(definition)
    return st.builds(frame, st.just(definition.code), st.just(definition.vendor), FLAGS, content)


@st.composite
def right_avps(draw: st.DrawFn) -> list[bytes]:
    """The AVPs of an ECR that nothing is wrong with, each encoded."""
    first, *rules = d.ME_IDENTITY_CHECK.rules
    parts = [draw(member(rule.avp)) for rule in rules if rule.least or draw(st.booleans())]
    parts += draw(st.lists(EXTRA | UNKNOWN, max_size=3))
    return [draw(right(first.avp)), *draw(st.permutations(parts))]


def message(
    parts: list[bytes],
    flags: int = REQUEST | PROXIABLE,
    command: int = 324,
    application: int = 16777252,
    number: int = 1,
) -> bytes:
    return encode(Header(flags, command, application, number, 2), b"".join(parts))


def any_avp(random: Random) -> bytes:
    code = random.choice([random.choice(CODES), random.getrandbits(32)])
    flags = random.choice([0x40, 0x40, 0, 0x20, 0x60])
    return frame(code, random.choice([0, d.VENDOR_3GPP, 99]), flags, random.randbytes(random.randrange(20)))


def broken(parts: list[bytes], random: Random) -> list[bytes]:
    """One or two things made wrong: an AVP left out, doubled, moved, put in, or its octets changed."""
    parts = list(parts)
    for _ in range(random.randint(1, 2)):
        at, other = random.randrange(len(parts)), random.randrange(len(parts))
        part = bytearray(parts[at])
        how = random.choice(["leave out", "double", "swap", "put in", "octet", "flags", "length", "content"])
        if how == "leave out":
            del parts[at : at + (len(parts) > 1)]
        elif how == "double":
            parts.insert(other, bytes(part))
        elif how == "swap":
            parts[at], parts[other] = parts[other], parts[at]
        elif how == "put in":
            parts.insert(other, any_avp(random))
        elif how == "content":
            head = 12 if part[4] & 0x80 else 8
            content = random.choice([random.randbytes(random.randrange(20)), any_avp(random) + any_avp(random)])
            length = (head + len(content)).to_bytes(3, "big")
            parts[at] = bytes(part[:5] + length + part[8:head] + content + bytes(-len(content) % 4))
        else:
            if how == "octet":
                part[random.randrange(len(part))] = random.getrandbits(8)
            elif how == "flags":
                part[4] = random.getrandbits(8)
            else:
                part[5:8] = random.randrange(len(part) + 9).to_bytes(3, "big")
            parts[at] = bytes(part)
    return parts


HEADERS = st.builds(
    message,
    right_avps(),
    st.integers(8, 15).map(lambda bits: bits << 4),
    st.sampled_from([324, 324, 324, 323]),
    st.sampled_from([16777252, 16777252, 0, 16777251]),
)


def agree(data: bytes) -> bool:
    """Whether the data plane answers; asserts that the control plane refuses what it does not."""
    answerable = _core.answerable(data)
    event("answered" if answerable else "handed up")
    if not answerable:
        refusal = refuse(data, IDENTITY)
        assert refusal is not None, data.hex()
        assert refusal.code != d.SUCCESS
        assert 3000 <= refusal.code < 6000
        # What goes back as it came, a Session-Id that is no text for one, may not decode; the header does.
        header = peek_header(refusal.data)
        assert header is not None
        assert not header.is_request
        assert refusal.data[12:20] == data[12:20]
    return answerable


@given(right_avps())
def test_what_is_right_is_answered_by_the_data_plane(parts: list[bytes]) -> None:
    assert agree(message(parts))
    assert refuse(message(parts), IDENTITY) is None


@given(right_avps(), st.integers(0, 2**64))
def test_what_the_data_plane_hands_up_is_refused(parts: list[bytes], seed: int) -> None:
    random = Random(seed)
    for _ in range(50):
        agree(message(broken(parts, random)))


@settings(max_examples=50)
@given(HEADERS)
def test_headers(data: bytes) -> None:
    agree(data)


@given(right_avps(), st.integers(0, 2**64))
def test_octets_anywhere(parts: list[bytes], seed: int) -> None:
    random = Random(seed)
    for _ in range(20):
        octets = bytearray(message(parts))
        for _ in range(random.randint(1, 3)):
            # The length of the header stays what it is, or the data plane would not have found the message; so do
            # its flags and its command.
            octets[random.randrange(8, len(octets))] = random.getrandbits(8)
        agree(bytes(octets))


@given(st.binary(max_size=120), st.integers(0, 3))
@example(b"", 0)
def test_bodies_of_nothing_in_particular(body: bytes, cut: int) -> None:
    # Cut, the message's length is no multiple of four.
    padded = body + bytes(-len(body) % 4)
    octets = message([padded + bytes(cut)])
    assert not agree(octets)


@settings(max_examples=20)
@given(right_avps(), st.integers(0, 2**64))
def test_over_the_wire_every_request_has_its_answer(shared_node: NodeProcess, parts: list[bytes], seed: int) -> None:
    random = Random(seed)
    requests = [message(broken(parts, random), number=number) for number in range(30)]
    answers: dict[int, bytes] = {}
    # A relay: whose each request is makes no difference.
    with shared_node.client("planes.epc.test") as client:
        assert client.ask(cer(client.host, d.APPLICATION_S13, d.APPLICATION_RELAY)).code == d.SUCCESS
        client.send(b"".join(requests))
        while len(answers) < len(requests):
            data = client.receive_raw()
            assert data is not None
            answers[int.from_bytes(data[12:16], "big")] = data
    for number, asked in enumerate(requests):
        header = peek_header(answers[number])
        assert header is not None
        assert (header.is_request, header.command, header.application) == (False, 324, 16777252)
        refusal = None if _core.answerable(asked) else refuse(asked, IDENTITY)
        assert code_of(answers[number]) in ((d.SUCCESS, EQUIPMENT_UNKNOWN) if refusal is None else (refusal.code,))


def code_of(answer: bytes) -> int:
    """The Result-Code or, last in its group, the Experimental-Result-Code of an answer that need not decode."""
    codes = [raw for raw in walk(answer, HEADER_LENGTH, len(answer)) if raw.key in ((0, 268), (0, 297))]
    (raw,) = codes
    return int.from_bytes(answer[raw.end - 4 : raw.end], "big")
