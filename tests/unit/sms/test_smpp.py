"""SMSCs that are none: whatever comes from one, the client raises nothing, hangs nowhere and connects again."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from smpplib.command import DeliverSM, SubmitSM

from sms import smpp_pdu
from sms.gateway import NotTakenError, Part, RefusedError, UnansweredError, submit
from sms.smpp_pdu import Delivery, Frames, Pdu, PduError, SubmitEncoder, UnsendableError
from support.sms import count, gateway, part, settings, state, until

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class _Sequence:
    """What smpplib asks for its sequence numbers."""

    sequence = 1

    def next_sequence(self) -> int:
        return self.sequence


def pdu(command: int, sequence: int = 1, body: bytes = b"", status: int = 0, length: int | None = None) -> bytes:
    return struct.pack(">IIII", 16 + len(body) if length is None else length, command, status, sequence) + body


BOUND = pdu(0x80000009, 1, b"smsc\0")


def deliver_sm(**fields: Any) -> bytes:
    """A body that smpplib makes."""
    made = DeliverSM("deliver_sm", client=_Sequence(), source_addr="99900000001", destination_addr="EIR", **fields)
    octets: bytes = made.generate()[16:]
    return octets


@asynccontextmanager
async def served(peer: Peer) -> AsyncIterator[int]:
    """A server that treats each connection so; the port."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await peer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def read_pdu(reader: asyncio.StreamReader) -> Pdu:
    length, command, status, sequence = struct.unpack(">IIII", await reader.readexactly(16))
    return Pdu(command, status, sequence, await reader.readexactly(length - 16))


def writes(*octets: bytes) -> Peer:
    """Answers each PDU that comes with the next of these, and then reads until an unbind."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for each in octets:
            await read_pdu(reader)
            writer.write(each)
        while (await read_pdu(reader)).command != 0x06:
            pass

    return peer


GARBAGE = {
    "length 0": pdu(0x15, length=0),
    "length 3": pdu(0x15, length=3),
    "length 15": pdu(0x15, length=15),
    "length 65 Ki": pdu(0x15, length=(64 << 10) + 1),
    "length 2^31": pdu(0x15, length=1 << 31),
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "TLV without a value": pdu(5, body=deliver_sm(short_message=b"x", esm_class=4) + b"\x00\x1e\x00\x05ab"),
    "TLV without a length": pdu(5, body=deliver_sm(short_message=b"x", esm_class=4) + b"\x00\x1e\x00"),
    "no ends of strings": pdu(5, body=b"A" * 50),
    "short message that ends early": pdu(5, body=deliver_sm(short_message=b"x" * 20)[:-5]),
}


@pytest.mark.parametrize("octets", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_ends_the_connection_and_the_next_one_comes(octets: bytes) -> None:
    async def run() -> None:
        async with served(writes(BOUND + octets)) as port, gateway(settings(port), bound=()) as (way, receipts):
            await until(lambda: count(way, "broken") >= 2)
            assert not receipts

    asyncio.run(run())


@pytest.mark.parametrize(
    "octets",
    [
        *GARBAGE.values(),
        pdu(0x80000002, 1, b"smsc\0"),
        pdu(0x80000004, 1, b"1\0"),
        pdu(0x80000009, 1, b"", status=0x0F),
        pdu(0x80000000, 1, status=3),
        pdu(0x06),
    ],
    ids=[*GARBAGE, "another bind's", "a part's", "refused", "generic_nack", "unbind"],
)
def test_anything_but_an_answer_to_the_bind_ends_the_connection(octets: bytes) -> None:
    async def run() -> None:
        async with served(writes(octets)) as port, gateway(settings(port), bound=()) as (way, _):
            await until(lambda: count(way, "disconnects") >= 2)
            with pytest.raises(NotTakenError):
                await submit(way, part())

    asyncio.run(run())


def test_a_server_that_never_answers_the_bind() -> None:
    async def run() -> None:
        async with (
            served(writes(pdu(0x0B, 7, b"smsc\0\0"))) as port,
            gateway(settings(port, response_timeout=0.1), bound=()) as (way, _),
        ):
            await until(lambda: count(way, "disconnects") >= 2)

    asyncio.run(run())


@pytest.mark.parametrize(
    "request_, answer",
    [
        (pdu(0x15, 9), (0x80000015, 0)),
        (pdu(0x06, 9), (0x80000006, 0)),
        (pdu(0x103, 9, b"x" * 40), (0x80000103, 3)),
        (pdu(0x03, 9, b"1\0\0\0\0"), (0x80000000, 3)),
        (pdu(0x777, 9), (0x80000000, 3)),
        (pdu(0x05, 9, deliver_sm(short_message=b"Hello")), (0x80000005, 0)),
        (pdu(0x05, 9, deliver_sm(short_message=b"id:1 stat:DELIVRD", esm_class=4)), (0x80000005, 0)),
        (pdu(0x05, 9, deliver_sm(short_message=b"not a receipt", esm_class=4)), (0x80000005, 0)),
    ],
    ids=["enquire_link", "unbind", "data_sm", "query_sm", "unknown", "message", "receipt", "unreadable"],
)
def test_requests_of_the_smsc_are_answered(request_: bytes, answer: tuple[int, int]) -> None:
    answers: list[Pdu] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_pdu(reader)
        # What is ignored comes first: outbind, alert_notification, answers that nobody waits for.
        ignored = pdu(0x0B, 8, b"a\0b\0") + pdu(0x102, 8, b"\0" * 6) + pdu(0x80000015, 77) + pdu(0x80000777, 77)
        writer.write(BOUND + ignored + request_)
        while not answers or answers[-1].command != 0x06:
            answers.append(await read_pdu(reader))

    async def run() -> None:
        async with served(peer) as port, gateway(settings(port), bound=()) as (_, _):
            await until(lambda: answers)
            assert (answers[0].command, answers[0].status, answers[0].sequence) == (*answer, 9)

    asyncio.run(run())


def test_answers_to_a_part_that_are_none() -> None:
    nack = pdu(0x80000000, 2, status=2)
    bare = pdu(0x80000004, 3)
    endless = pdu(0x80000004, 4, b"7" * 200)
    unknown = pdu(0x80000004, 99, b"1\0") + pdu(0x80000000, 0, status=3)

    async def run() -> None:
        async with (
            served(writes(BOUND, unknown + nack, bare, endless, b"", b"")) as port,
            gateway(settings(port, window=1)) as (way, _),
        ):
            with pytest.raises(RefusedError) as error:
                await submit(way, part())
            assert error.value.reason == "ESME_RINVCMDLEN"
            assert count(way, "unexpected") == 2
            assert (await submit(way, part())).message_id == ""
            assert (await submit(way, part())).message_id == "7" * 65
            task = asyncio.create_task(submit(way, part()))
            await until(lambda: count(way, "submitted") == 4)
        with pytest.raises(UnansweredError):
            await task

    asyncio.run(run())


def test_an_smsc_that_asks_and_never_reads() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_pdu(reader)
        writer.write(BOUND)
        while True:
            writer.write(pdu(0x15) * 1000)
            await writer.drain()

    async def run() -> None:
        async with served(peer) as port, gateway(settings(port), bound=()) as (way, _):
            await until(lambda: count(way, "disconnects") >= 1, 30)

    asyncio.run(run())


def test_an_outbox_that_fails_costs_no_connection() -> None:
    receipt = pdu(0x05, 9, deliver_sm(short_message=b"id:1 stat:DELIVRD", esm_class=4))

    async def run() -> None:
        async with served(writes(BOUND + receipt, b"")) as port, gateway(settings(port), bound=()) as (way, _):
            way._on_receipt = lambda _: 1 / 0  # type: ignore[assignment]
            await until(lambda: count(way, "receipts") == 1)
            assert state(way) == "bound"

    asyncio.run(run())


_VALID = [pdu(5, 9, deliver_sm(short_message=b"id:1 stat:DELIVRD", esm_class=4, message_state=2)), BOUND, pdu(0x15)]
_COMMANDS = [0x80000004, 0x80000000, 0x80000009, 5, 6, 0x15, 0x103, 0x80000015, 0xB, 0x777]


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Octets that begin like an SMSC, more or less."""
    pieces = st.one_of(
        st.sampled_from(_VALID),
        st.binary(max_size=64),
        st.builds(pdu, st.sampled_from(_COMMANDS), st.integers(0, 5), st.binary(max_size=48)),
    )
    octets = bytearray(b"".join(draw(st.lists(pieces, max_size=5))))
    for place in draw(st.lists(st.integers(0, 400), max_size=3)):
        if place < len(octets):
            octets[place] = draw(st.integers(0, 255))
    return bytes(octets)


@given(st.lists(streams(), min_size=1, max_size=8), st.booleans())
@hypothesis_settings(max_examples=40)
def test_random_octets(attempts: list[bytes], bind_first: bool) -> None:
    left = list(attempts)

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bind = await read_pdu(reader)
        if left:
            writer.write((BOUND if bind_first else b"") + left.pop(0))
            await writer.drain()
            return
        # In the end it is an SMSC after all.
        writer.write(pdu(0x80000009, bind.sequence, b"\0"))
        while True:
            asked = await read_pdu(reader)
            writer.write(pdu(0x80000000 | asked.command, asked.sequence, b"1\0"))

    async def run() -> None:
        failed: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
        async with served(peer) as port, gateway(settings(port), bound=()) as (way, _):
            way.delays = (0.001, 0.002)
            for delay in way._smscs[0]._reconnect.values():
                delay._least, delay._most, delay._next = 0.001, 0.002, 0.001
            async with asyncio.timeout(15):
                while left or state(way) != "bound":
                    await asyncio.sleep(0.002)
                while True:
                    try:
                        await submit(way, part())
                        break
                    except (NotTakenError, UnansweredError, RefusedError):
                        await asyncio.sleep(0.002)
        assert failed == []

    asyncio.run(run())


@given(st.binary(max_size=300))
@example(b"\0" * 18 + b"\xff\xff\x00\x00")
def test_no_body_of_a_deliver_sm_brings_out_another_error(body: bytes) -> None:
    try:
        found = smpp_pdu.delivery(body, "same")
    except PduError:
        return
    assert found.kind in ("receipt", "intermediate", "message", "unreadable")


@given(st.lists(st.integers(0, 40), max_size=6), st.data())
def test_frames_do_not_depend_on_how_they_are_cut(lengths: list[int], data: st.DataObject) -> None:
    whole = [Pdu(0x15, 0, number, bytes(length)) for number, length in enumerate(lengths)]
    octets = b"".join(pdu(each.command, each.sequence, each.body) for each in whole)
    frames = Frames()
    found: list[Pdu] = []
    while octets:
        size = data.draw(st.integers(1, len(octets)))
        found += frames.feed(octets[:size])
        octets = octets[size:]
    assert found == whole


def receipt_of(**fields: Any) -> Delivery:
    return smpp_pdu.delivery(deliver_sm(**fields), "same")


def test_receipts_that_say_the_same_in_different_ways() -> None:
    delivered = Delivery("receipt", "a1", "delivered", "")
    assert receipt_of(esm_class=4, receipted_message_id="a1", message_state=2) == delivered
    assert receipt_of(esm_class=0, receipted_message_id="a1", message_state=2) == delivered
    assert receipt_of(esm_class=4, short_message=b"id:a1 sub:001 stat:DELIVRD err:000 text:x") == delivered
    assert receipt_of(esm_class=4, short_message=b"ID:a1 STAT:delivrd") == delivered
    assert receipt_of(esm_class=4, message_payload=b"id:a1 stat:DELIVRD") == delivered
    assert receipt_of(esm_class=4, data_coding=8, short_message="id:a1 stat:DELIVRD".encode("utf-16-be")) == delivered
    # TLVs are believed first.
    both = {"short_message": b"id:b2 stat:UNDELIV err:001", "esm_class": 4}
    assert receipt_of(**both, receipted_message_id="a1", message_state=2) == delivered
    assert receipt_of(**both) == Delivery("receipt", "b2", "failed", "UNDELIV 001")
    assert receipt_of(**both, receipted_message_id="a1", message_state=3) == Delivery(
        "receipt", "a1", "expired", "EXPIRED 001"
    )
    failed = receipt_of(esm_class=4, receipted_message_id="a1", message_state=8, network_error_code=b"\x03\x00\x0b")
    assert failed == Delivery("receipt", "a1", "failed", "REJECTD 3:11")


@pytest.mark.parametrize("known", [1, 6])
def test_what_is_not_final_is_no_receipt(known: int) -> None:
    assert receipt_of(esm_class=4, receipted_message_id="a1", message_state=known).kind == "intermediate"
    assert receipt_of(esm_class=0x20, receipted_message_id="a1", message_state=2).kind == "intermediate"
    assert receipt_of(esm_class=4, receipted_message_id="a1", message_state=99).kind == "unreadable"


@given(
    to=st.text("0123456789", min_size=1, max_size=20),
    source=st.text("0123456789EIR", max_size=20),
    octets=st.binary(max_size=140),
    reference=st.integers(0, 65535),
    wide=st.booleans(),
    validity=st.integers(0, 63 * 7 * 86400),
)
def test_submit_sm_is_what_smpplib_makes(
    to: str, source: str, octets: bytes, reference: int, wide: bool, validity: int
) -> None:
    how = settings(1, source_addr=source, concatenation="udh16" if wide else "udh8", validity=validity)
    made = SubmitEncoder(how).encode(Part(to, "", "ucs2", octets, reference, 2, 3), 77)
    high = reference >> 8
    low = reference & 0xFF
    header = bytes((6, 8, 4, high, low, 3, 2)) if wide else bytes((5, 0, 3, low, 3, 2))
    theirs = SubmitSM(
        "submit_sm",
        client=_Sequence(),
        source_addr=source,
        dest_addr_ton=1,
        dest_addr_npi=1,
        destination_addr=to,
        esm_class=0x40,
        registered_delivery=1,
        data_coding=8,
        short_message=header + octets,
        validity_period=made[16:].split(b"\x40\0\0\0", 1)[1].partition(b"\0")[0].decode(),
    ).generate()
    assert made[16:] == theirs[16:]
    assert made[:16] == pdu(4, 77, made[16:])[:16]


@pytest.mark.parametrize(
    "seconds, text",
    [(0, ""), (1, "000000000001000R"), (86400, "000001000000000R"), (63 * 7 * 86400, "010216000000000R")],
)
def test_validity(seconds: int, text: str) -> None:
    made = SubmitEncoder(settings(1, validity=seconds)).encode(part(), 1)
    assert text.encode() + b"\0" in made


@pytest.mark.parametrize(
    "unsendable",
    [part(to=""), part(to="+9990"), part(to="٣٣٣"), part(to="9" * 21), part(number=3, of=2), part(number=1, of=256)],
)
def test_parts_that_cannot_be_sent(unsendable: Part) -> None:
    with pytest.raises(UnsendableError):
        SubmitEncoder(settings(1)).encode(unsendable, 1)
    with pytest.raises(UnsendableError):
        SubmitEncoder(settings(1)).encode(part("я" * 31_000), 1)


@pytest.mark.parametrize(
    "ids, submitted, receipted",
    [("same", "0aF", "0aF"), ("hex-to-decimal", "0aF", "0000000175"), ("decimal-to-hex", "0175", "0AF")],
)
def test_ids_in_other_ways(ids: Any, submitted: str, receipted: str) -> None:
    found = smpp_pdu.delivery(deliver_sm(esm_class=4, receipted_message_id=receipted, message_state=2), ids)
    assert smpp_pdu.submitted_id(submitted.encode() + b"\0", ids) == found.message_id
    # What is no number stays as it is.
    assert smpp_pdu.submitted_id(b"x-1\0", ids) == "x-1"


def test_no_password_is_shown() -> None:
    shown = repr(settings(1))
    assert "secret" not in shown and "password=…" in shown and "host='127.0.0.1'" in shown
