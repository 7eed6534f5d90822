"""SMPP with an SMSC that we did not write: Net::SMPP of Perl."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sms.gateway import Accepted, NotTakenError, Part, Receipt, RefusedError, UnansweredError, submit
from support.certificates import Authority
from support.sms import NUMBER, count, cut, gateway, links, part, settings, state, submit_all, until
from support.smsc import Smsc
from support.tls_relay import relay

KAZAKH = (
    "Құрметті абонент! Сіздің құрылғыңыз тіркелмеген. Әрбір ұялы құрылғыны 30 күн ішінде тіркеу қажет: "
    "өз құрылғыңызды «Менің құрылғым» қызметінде тіркеңіз. Һәм ғылым, ірі өзгеріс, ың-жың 😀."
)
RUSSIAN = (
    "Уважаемый абонент! Ваше устройство не зарегистрировано. Зарегистрируйте его в течение 30 дней, иначе "
    "обслуживание в сети будет приостановлено. Съёмка, подъезд, объём — ещё не всё."
)

MakeSmsc = Callable[..., Smsc]


@pytest.fixture
def make_smsc(tmp_path: Path) -> Iterator[MakeSmsc]:
    made: list[Smsc] = []

    def make(**how: object) -> Smsc:
        smsc = Smsc(tmp_path / str(len(made)), **how)
        made.append(smsc)
        smsc.start()
        return smsc

    yield make
    for smsc in made:
        smsc.stop()


def kinds(results: list[Any]) -> Counter[str]:
    return Counter(type(result).__name__ for result in results)


def joined(submits: list[dict[str, Any]], wide: bool) -> str:
    """The text of parts that have a user data header, put together as a telephone does."""
    pieces = {}
    for each in submits:
        octets = bytes.fromhex(each["octets"])
        assert each["esm_class"] == 0x40 and each["coding"] == 8
        header, octets = octets[: octets[0] + 1], octets[octets[0] + 1 :]
        if wide:
            assert header[:5] == bytes((6, 8, 4, 0xA1, 0xB2))
        else:
            assert header[:4] == bytes((5, 0, 3, 0xB2))
        assert header[-2] == len(submits)
        pieces[header[-1]] = octets
    return b"".join(pieces[number] for number in range(1, len(submits) + 1)).decode("utf-16-be")


@pytest.mark.parametrize("text", [KAZAKH, RUSSIAN], ids=["kazakh", "russian"])
@pytest.mark.parametrize("concatenation", ["udh8", "udh16"])
def test_texts_arrive_letter_for_letter(make_smsc: MakeSmsc, text: str, concatenation: str) -> None:
    smsc = make_smsc()

    async def run() -> None:
        at = settings(smsc.port, concatenation=concatenation, source_addr="EIR", source_ton=5, validity=86400)
        async with gateway(at) as (way, _):
            results = await submit_all(way, cut(text))
            assert kinds(results) == {"Accepted": 3}

    asyncio.run(run())
    submits = smsc.submits()
    assert joined(submits, concatenation == "udh16") == text
    assert {each["to"] for each in submits} == {NUMBER}
    assert {(submit["from"], submit["validity"], submit["registered"]) for submit in submits} == {
        ("EIR", "000001000000000R", 1)
    }


def test_a_text_in_one_part_has_no_header(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc()

    async def run() -> None:
        async with gateway(settings(smsc.port, receipts=False)) as (way, _):
            accepted = await submit(way, part("Ё"))
            assert accepted == Accepted("first", "")
            await submit(way, Part(NUMBER, "a@[", "gsm7", b"a\0\x1b<"))

    asyncio.run(run())
    ucs2, gsm7 = smsc.submits()
    assert (ucs2["octets"], ucs2["esm_class"], ucs2["coding"], ucs2["registered"]) == ("0401", 0, 8, 0)
    assert (gsm7["octets"], gsm7["coding"]) == ("61001b3c", 0)


def test_parts_with_tlvs(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc()

    async def run() -> None:
        async with gateway(settings(smsc.port, concatenation="sar", window=1)) as (way, _):
            for each in cut(KAZAKH):
                await submit(way, each)

    asyncio.run(run())
    submits = smsc.submits()
    assert b"".join(bytes.fromhex(each["octets"]) for each in submits).decode("utf-16-be") == KAZAKH
    for number, each in enumerate(submits, 1):
        assert each["esm_class"] == 0
        assert each["tlvs"] == {
            "sar_msg_ref_num": "a1b2",
            "sar_total_segments": "03",
            "sar_segment_seqnum": f"{number:02}",
        }


@pytest.mark.parametrize("concatenation", ["payload", "udh8"])
def test_a_long_text_goes_as_payload(make_smsc: MakeSmsc, concatenation: str) -> None:
    smsc = make_smsc()

    async def run() -> None:
        async with gateway(settings(smsc.port, concatenation=concatenation)) as (way, _):
            await submit(way, part(KAZAKH))

    asyncio.run(run())
    (sent,) = smsc.submits()
    assert sent["octets"] == ""
    assert bytes.fromhex(sent["tlvs"]["message_payload"]).decode("utf-16-be") == KAZAKH


@pytest.mark.parametrize("way_back", ["tlv", "text", "payload"])
@pytest.mark.parametrize("bind", ["transceiver", "transmitter-receiver"])
def test_receipts_come_back(make_smsc: MakeSmsc, way_back: str, bind: str) -> None:
    smsc = make_smsc(receipt=way_back, receipt_late=0.05)

    async def run() -> None:
        async with gateway(settings(smsc.port, bind=bind)) as (way, receipts):
            results = await submit_all(way, [part() for _ in range(50)])
            ids = {result.message_id for result in results if isinstance(result, Accepted)}
            assert len(ids) == 50
            await until(lambda: len(receipts) >= 50)
            assert set(receipts) == {Receipt("first", name, "delivered") for name in ids}
            smsc.behave(state=5, error=11)
            accepted = await submit(way, part())
            await until(lambda: len(receipts) >= 51)
            reason = "UNDELIV 3:11" if way_back == "tlv" else "UNDELIV 011"
            assert receipts[-1] == Receipt("first", accepted.message_id, "failed", reason)
            smsc.behave(state=3, error=0)
            accepted = await submit(way, part())
            await until(lambda: len(receipts) >= 52)
            assert receipts[-1] == Receipt("first", accepted.message_id, "expired", "EXPIRED")
            smsc.behave(state=1)
            await submit(way, part())
            await until(lambda: count(way, "intermediate") == 1)
            assert len(receipts) == 52

    asyncio.run(run())


@pytest.mark.parametrize(
    "receipt_ids, issued, receipted",
    [("hex-to-decimal", "hex", "decimal"), ("decimal-to-hex", "decimal", "hex")],
)
def test_receipts_that_write_ids_in_another_way(
    make_smsc: MakeSmsc, receipt_ids: str, issued: str, receipted: str
) -> None:
    smsc = make_smsc(receipt="text", ids=issued, receipt_ids=receipted)

    async def run() -> None:
        async with gateway(settings(smsc.port, receipt_ids=receipt_ids)) as (way, receipts):
            accepted = await submit(way, part())
            await until(lambda: receipts)
            assert receipts[0].message_id == accepted.message_id

    asyncio.run(run())


def test_doubled_and_unknown_receipts_are_handed_on(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc(receipt="tlv", receipts=2)

    async def run() -> None:
        async with gateway(settings(smsc.port)) as (way, receipts):
            accepted = await submit(way, part())
            await until(lambda: len(receipts) == 2)
            assert {receipt.message_id for receipt in receipts} == {accepted.message_id}
            smsc.behave(unknown_ids=1, receipts=1)
            await submit(way, part())
            await until(lambda: len(receipts) == 3)
            assert receipts[-1].message_id.startswith("none")

    asyncio.run(run())


def test_what_subscribers_write_is_dropped(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc()

    async def run() -> None:
        async with gateway(settings(smsc.port)) as (way, receipts):
            smsc.do("message")
            await until(lambda: count(way, "message") == 1)
            assert isinstance(await submit(way, part()), Accepted)
            assert receipts == []

    asyncio.run(run())


@pytest.mark.parametrize("status", [0x58, 0x14], ids=["throttled", "queue full"])
def test_an_smsc_that_has_too_many_is_left_alone_for_longer_each_time(make_smsc: MakeSmsc, status: int) -> None:
    smsc = make_smsc(status=status)

    async def run() -> None:
        async with gateway(settings(smsc.port)) as (way, _):
            waited = []
            for _ in range(3):
                with pytest.raises(NotTakenError) as error:
                    await submit(way, part())
                assert state(way) == "backing-off"
                waited.append(error.value.after)
                had = smsc.count()
                with pytest.raises(NotTakenError):
                    await submit(way, part())
                assert smsc.count() == had
                await until(lambda: state(way) == "bound")
            assert waited[2] > waited[0]
            assert count(way, "throttled") == 3
            smsc.behave(status=0)
            await submit(way, part())
            smsc.behave(status=status)
            with pytest.raises(NotTakenError) as error:
                await submit(way, part())
            assert error.value.after <= 0.1

    asyncio.run(run())


def test_statuses(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc()

    async def run() -> None:
        async with gateway(settings(smsc.port)) as (way, _):
            for status, reason in ((0x0B, "ESME_RINVDSTADR"), (0x45, "ESME_RSUBMITFAIL"), (0x400, "0x00000400")):
                smsc.behave(status=status)
                with pytest.raises(RefusedError) as refused:
                    await submit(way, part())
                assert (refused.value.smsc, refused.value.reason) == ("first", reason)
            for status in (0x08, 0x64):
                smsc.behave(status=status)
                with pytest.raises(NotTakenError):
                    await submit(way, part())
            assert state(way) == "bound"
            with pytest.raises(RefusedError):
                await submit(way, part(to="+99900000001"))
            assert count(way, "refused") == 4 and count(way, "temporary") == 2

    asyncio.run(run())


def test_answers_out_of_order_find_their_parts(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc(shuffle=10, receipt="tlv")

    async def run() -> None:
        async with gateway(settings(smsc.port, window=10)) as (way, receipts):
            parts = [part(to=f"999000001{number:02}") for number in range(100)]
            results = await submit_all(way, parts)
            assert kinds(results) == {"Accepted": 100}
            await until(lambda: len(receipts) == 100)
            # The SMSC issues its ids in the order in which it was submitted the parts.
            named = [int(result.message_id) for result in results if isinstance(result, Accepted)]
            assert [submit["to"] for submit in smsc.submits()] == [
                each.to for _, each in sorted(zip(named, parts, strict=True))
            ]

    asyncio.run(run())


def test_answers_that_come_late_or_twice_or_never(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc(late=0.8)

    async def run() -> None:
        async with gateway(settings(smsc.port, response_timeout=0.3)) as (way, _):
            with pytest.raises(UnansweredError) as error:
                await submit(way, part())
            assert error.value.reason == "no answer"
            await until(lambda: count(way, "late") == 1)
            smsc.behave(late=0, twice=1)
            await submit(way, part())
            await until(lambda: count(way, "unexpected") == 1)
            smsc.behave(twice=0, silent_every=10)
            results = await submit_all(way, [part() for _ in range(100)])
            assert kinds(results) == {"Accepted": 90, "UnansweredError": 10}
            assert count(way, "window_in_use") == 0 and count(way, "disconnects") == 0

    asyncio.run(run())


def test_a_part_that_was_given_up_keeps_its_place_in_the_window(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc(late=0.3)

    async def run() -> None:
        async with gateway(settings(smsc.port, window=1)) as (way, _):
            given_up = asyncio.create_task(submit(way, part()))
            await until(lambda: count(way, "submitted") == 1)
            given_up.cancel()
            next_one = asyncio.create_task(submit(way, part()))
            await asyncio.sleep(0.05)
            assert count(way, "submitted") == 1 and count(way, "window_in_use") == 1
            assert isinstance(await next_one, Accepted)
            assert count(way, "accepted") == 2

    asyncio.run(run())


def test_what_was_not_written_when_it_was_given_up_is_never_written(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc()

    async def run() -> None:
        async with gateway(settings(smsc.port, window=1)) as (way, _):
            given_up = asyncio.create_task(submit(way, part()))
            after = asyncio.create_task(submit(way, part("after")))
            await asyncio.sleep(0)
            given_up.cancel()
            async with asyncio.timeout(2):
                await asyncio.gather(given_up, after, return_exceptions=True)
            assert isinstance(after.result(), Accepted)
            assert len(smsc.submits()) == 1

    asyncio.run(run())


def test_the_window_and_the_rate_are_kept(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc(late=0.05)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with gateway(settings(smsc.port, window=7)) as (way, _):
            most = 0
            tasks = [asyncio.create_task(submit(way, part())) for _ in range(70)]
            while not all(task.done() for task in tasks):
                most = max(most, count(way, "window_in_use"))
                await asyncio.sleep(0.005)
            assert most == 7 and kinds([task.result() for task in tasks]) == {"Accepted": 70}
        smsc.behave(late=0)
        async with gateway(settings(smsc.port, rate=100, window=100)) as (way, _):
            begin = loop.time()
            results = await submit_all(way, [part(weight=2) for _ in range(50)])
            assert kinds(results) == {"Accepted": 50}
            # A hundred short messages at a hundred a second, a tenth of a second's at once.
            assert 0.8 <= loop.time() - begin < 3

    asyncio.run(run())


def test_a_connection_that_drops_leaves_its_parts_unanswered(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc(late=0.2, drop_after=30)

    async def run() -> None:
        async with gateway(settings(smsc.port, window=100)) as (way, _):
            results = await submit_all(way, [part() for _ in range(50)])
            assert kinds(results) == {"UnansweredError": 50}
            await until(lambda: state(way) == "bound")
            assert isinstance(await submit(way, part()), Accepted)

    asyncio.run(run())


def test_kill_9_in_mid_window(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc(late=0.01)

    async def run() -> None:
        async with gateway(settings(smsc.port, window=50)) as (way, _):
            tasks = [asyncio.create_task(submit(way, part())) for _ in range(2000)]
            await until(lambda: count(way, "accepted") >= 300)
            smsc.kill()
            results = kinds(await asyncio.gather(*tasks, return_exceptions=True))
            # Those that were written may have arrived; all the others never left.
            assert 1 <= results["UnansweredError"] <= 50
            assert results["Accepted"] >= 300
            assert results["Accepted"] + results["UnansweredError"] + results["NotTakenError"] == 2000
            assert state(way) == "connecting"
            with pytest.raises(NotTakenError):
                await submit(way, part())

    asyncio.run(run())


def test_the_second_smsc_stands_by(make_smsc: MakeSmsc) -> None:
    first, second = make_smsc(), make_smsc()

    async def run() -> None:
        both = (settings(first.port), settings(second.port, "second"))
        async with gateway(*both) as (way, _):
            assert (await submit(way, part())).smsc == "first"
            first.behave(status=0x58)
            with pytest.raises(NotTakenError) as error:
                await submit(way, part())
            assert error.value.after <= 0.1
            assert (await submit(way, part())).smsc == "second"
            first.behave(status=0)
            await until(lambda: state(way) == "bound")
            assert (await submit(way, part())).smsc == "first"
            # Its connection is lost, and made again: with a bind that is refused it stays away.
            first.behave(password="another")
            first.do("hang up")
            await until(lambda: state(way) == "connecting")
            assert (await submit(way, part())).smsc == "second"
            first.behave(password="secret")
            await until(lambda: state(way) == "bound")
            assert (await submit(way, part())).smsc == "first"
            first.do("unbind")
            await until(lambda: count(way, "disconnects") >= 2)
            await until(lambda: state(way) == "bound")
            # One whose window is full has the other help it.
            first.behave(late=0.3)
            results = await submit_all(way, [part() for _ in range(15)])
            assert Counter(result.smsc for result in results if isinstance(result, Accepted)) == {
                "first": 10,
                "second": 5,
            }
            first.kill()
            await until(lambda: state(way) == "connecting")
            results = await submit_all(way, [part() for _ in range(100)])
            assert {result.smsc for result in results if isinstance(result, Accepted)} == {"second"}

    asyncio.run(run())


def test_an_smsc_that_falls_silent_is_dropped(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc()

    async def run() -> None:
        async with gateway(settings(smsc.port, enquire_link=0.2, response_timeout=0.3)) as (way, _):
            await asyncio.sleep(0.8)
            assert count(way, "disconnects") == 0
            smsc.behave(silent=1)
            await until(lambda: count(way, "disconnects") >= 2)
            smsc.behave(silent=0)
            await until(lambda: state(way) == "bound")

    asyncio.run(run())


def test_an_smsc_that_stops_in_its_tracks(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc()

    async def run() -> None:
        async with gateway(settings(smsc.port, enquire_link=0.2, response_timeout=0.3, window=1000)) as (way, _):
            smsc.pause()
            # More than the system takes while nobody reads: some are never written.
            results = kinds(await submit_all(way, [part("я" * 20_000) for _ in range(500)]))
            assert set(results) == {"UnansweredError", "NotTakenError"}
            smsc.pause(False)
            await until(lambda: state(way) == "bound")
            assert isinstance(await submit(way, part()), Accepted)

    asyncio.run(run())


def test_close_waits_for_answers_and_unbinds(make_smsc: MakeSmsc) -> None:
    smsc = make_smsc(late=0.3)

    async def run() -> None:
        async with gateway(settings(smsc.port)) as (way, _):
            task = asyncio.create_task(submit(way, part()))
            await until(lambda: count(way, "submitted") == 1)
        assert isinstance(await task, Accepted)
        with pytest.raises(NotTakenError):
            await submit(way, part())

    asyncio.run(run())


def test_passwords(make_smsc: MakeSmsc, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    smsc = make_smsc(password="geheim")
    caplog.set_level(logging.DEBUG)

    async def run() -> None:
        file = tmp_path / "password"
        file.write_text("wrong\n")
        at = settings(smsc.port, password_file=str(file))
        async with gateway(at, bound=()) as (way, _):
            await until(lambda: count(way, "disconnects") >= 1)
            with pytest.raises(NotTakenError):
                await submit(way, part("тайна"))
            file.write_text("geheim\n")
            await until(lambda: state(way) == "bound")
            smsc.behave(status=0x0B)
            await submit_all(way, [part("тайна")])

    asyncio.run(run())
    fields = " ".join(str(vars(record)) for record in caplog.records)
    assert "ESME_RINVPASWD" in fields
    for secret in ("geheim", "wrong", "secret", NUMBER, "тайна"):
        assert secret not in fields


def test_tls(make_smsc: MakeSmsc, tmp_path: Path) -> None:
    smsc = make_smsc(receipt="tlv")
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    server, client, foreign = ours.issue("127.0.0.1"), ours.issue("client.test"), theirs.issue("client.test")
    another = ours.issue("another.test")

    def at(port: int, authority: Authority, own: tuple[Path, Path] | None = None) -> Any:
        files = {"certificate_file": str(own[0]), "key_file": str(own[1])} if own else {}
        return settings(port, tls=True, ca_file=str(authority.file), **files)

    async def refused(which: Any) -> None:
        async with gateway(which, bound=()) as (way, _):
            await until(lambda: count(way, "disconnects") >= 2)
            assert state(way) == "connecting" and set(links(way).values()) <= {"connecting", "binding"}

    async def run() -> None:
        async with relay(smsc.port, server) as port:
            async with gateway(at(port, ours)) as (way, receipts):
                results = await submit_all(way, cut(KAZAKH))
                assert kinds(results) == {"Accepted": 3}
                await until(lambda: len(receipts) == 3)
            await refused(at(port, theirs))
            await refused(settings(port))
            await refused(settings(port, tls=True, ca_file=str(tmp_path / "none")))
        async with relay(smsc.port, another) as port:
            await refused(at(port, ours))
        async with relay(smsc.port, server, clients=ours.file) as port:
            async with gateway(at(port, ours, client)) as (way, _):
                assert isinstance(await submit(way, part()), Accepted)
            await refused(at(port, ours))
            await refused(at(port, ours, foreign))

    asyncio.run(run())
    assert joined(smsc.submits()[:3], wide=False) == KAZAKH
