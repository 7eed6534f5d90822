"""`eir lists build`: list files as they come into a snapshot, and every wrong row by its name."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from support import lists
from support.cli import Ran, eir
from support.node import write_config
from support.programs import need

DEVICES = f"imei,list,reason\n{lists.WHITE},white,\n{lists.BLACK},black,stolen\n"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where the snapshot goes."""
    return tmp_path / "lists.eirs"


def build(output: Path, devices: bytes | str, *options: object, name: str = "devices.csv") -> Ran:
    """Builds from one file of devices."""
    source = output.with_name(name)
    source.write_bytes(devices.encode() if isinstance(devices, str) else devices)
    return eir("lists", "build", "-o", output, "--sequence", 1, "--devices", source, *options)


def counts(output: Path) -> dict[str, int]:
    found = json.loads(eir("lists", "info", output).out)["counts"]
    return {kind: count for kind, count in found.items() if count}


def status(output: Path, imei: str) -> str:
    config = write_config(output.parent)
    return str(json.loads(eir("check", imei, "--offline", output, "--json", "-c", config).out)["status"])


@pytest.mark.parametrize(
    "text",
    [
        DEVICES.encode(),
        b"\xef\xbb\xbf" + DEVICES.encode(),
        DEVICES.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf# made today\r\n\r\n" + DEVICES.replace("\n", "\r\n").encode(),
        DEVICES.rstrip("\n").encode(),
        gzip.compress(DEVICES.encode()),
        gzip.compress(b"\xef\xbb\xbf" + DEVICES.encode()[:20]) + gzip.compress(DEVICES.encode()[20:]),
        f'LIST;x,Imei,Reason, list \na,{lists.WHITE},,White\nb,"{lists.BLACK}",stolen,BLACK\n'.encode(),
    ],
    ids=["plain", "BOM", "CRLF", "BOM CRLF comment", "no last newline", "gzip", "gzip members", "columns"],
)
def test_files_as_they_come(output: Path, text: bytes) -> None:
    ran = build(output, text)
    assert ran.code == 0, ran.err
    assert counts(output) == {"white": 1, "black": 1}
    assert (status(output, lists.WHITE), status(output, lists.BLACK)) == ("white", "black")


def test_zstd(output: Path) -> None:
    packed = subprocess.run([need("zstd"), "-q", "-c"], input=DEVICES.encode(), capture_output=True, check=True).stdout
    assert build(output, packed, name="devices.csv.zst").code == 0
    assert counts(output) == {"white": 1, "black": 1}
    assert build(output, packed[:-3], name="cut.zst").code == 1


def test_every_kind_of_file(output: Path) -> None:
    options: list[object] = []
    for kind, text in lists.FILES.items():
        path = output.with_name(f"{kind}.csv")
        path.write_text(text)
        options += [f"--{kind}", path]
    ran = eir("lists", "build", "-o", output, "--sequence", 7, *options)
    assert ran.code == 0, ran.err
    assert counts(output) == {
        "white": 1,
        "black": 3,
        "grey": 1,
        "ranges": 3,
        "exempt_tacs": 1,
        "allocated_tacs": 103,
        "exempt_imsis": 1,
        "pairs": 1,
    }
    info = json.loads(eir("lists", "info", output).out)
    assert info["sequence"] == 7
    assert abs(info["created_at"] - time.time()) < 60
    # The allocated TACs are as old as their file.
    assert abs(info["tac_as_of"] - time.time()) < 60


def test_dates(output: Path) -> None:
    path = output.with_name("tacs.csv")
    path.write_text("tac\n35209900\n")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    arguments = ["lists", "build", "-o", output, "--sequence", 1, "--allocated-tacs", path]
    assert eir(*arguments, "--as-of", "2026-05-01T12:00:00").code == 0
    info = json.loads(eir("lists", "info", output).out)
    assert (info["created"], info["tac_as_of"]) == ("2026-05-01 12:00:00 UTC", 1_600_000_000)
    assert eir(*arguments, "--tac-as-of", "2026-05-01").code == 0
    assert json.loads(eir("lists", "info", output).out)["tac_as_of"] == 1_777_593_600
    ran = eir(*arguments, "--as-of", "1960-01-01")
    assert (ran.code, "out of range" in ran.err) == (1, True)
    ran = eir(*arguments[:5], "-1", *arguments[6:])
    assert ran.code == 1


def test_several_files_of_a_kind(output: Path) -> None:
    more = output.with_name("more.csv")
    more.write_text(f"imei,list,reason\n{lists.NATIONAL_GREY},grey,\n{lists.WHITE},white,\n")
    assert build(output, DEVICES, "--devices", more).code == 0
    assert counts(output) == {"white": 1, "black": 1, "grey": 1}


def test_a_date_until_which_there_is_access(output: Path) -> None:
    text = f"imei,list,reason,until\n{lists.NATIONAL_GREY},grey,,2036-05-01\n{lists.STOLEN},grey,seen,20260501\n"
    config = write_config(output.parent)
    for zone, ends in (("UTC", "2036-05-02 05:00:00"), ("Asia/Almaty", "2036-05-02 00:00:00")):
        assert build(output, text, "--timezone", zone).code == 0
        ran = eir("check", lists.NATIONAL_GREY, "--offline", output, "--explain", "-c", config)
        assert f"by the national database access until {ends} +05" in ran.out, ran.out
    assert counts(output) == {"grey": 2, "deadlines": 2}
    # The lists were true a moment ago, and its day is over.
    told = json.loads(eir("check", lists.STOLEN, "--offline", output, "--json", "--explain", "-c", config).out)
    assert (told["status"], told["rule"], told["timer"]) == ("black", "expired", None)
    assert told["deadline"] == 1_777_662_000
    assert status(output, lists.NATIONAL_GREY) == "grey"
    ran = build(output, text, "--timezone", "Asia/Nowhere")
    assert (ran.code, "timezone: " in ran.err) == (1, True)


class TestWrongRows:
    ROWS = (
        f"imei,list,reason\n{lists.WHITE},white,\n3520990020000,black,\n{lists.BLACK},blue,\n"
        f"{lists.STOLEN},black,Not a Reason\n{lists.CLONED},black\n"
    )
    REASONS = (
        "3: not an IMEI: 14 to 16 digits, not all zero",
        "4: not a list that may stand here",
        "5: not a reason: at most 32 of a-z, 0-9 and -",
        "6: 2 fields, not as many as the header has",
    )

    def test_each_is_named_by_file_line_and_reason(self, output: Path) -> None:
        ran = build(output, self.ROWS, "--max-bad-share", 0.9)
        assert ran.code == 0
        # The terminal may break lines; what they say is there.
        told = "".join(ran.err.split())
        for reason in self.REASONS:
            assert "".join(f"{output.with_name('devices.csv')}:{reason}".split()) in told
        assert "5rows(4wrong" in told
        assert counts(output) == {"white": 1}

    def test_too_large_a_share_is_refused_and_the_old_snapshot_stays(self, output: Path) -> None:
        assert build(output, DEVICES).code == 0
        before = output.read_bytes()
        ran = build(output, self.ROWS)
        assert ran.code == 1
        assert "4 of 5 rows are wrong" in " ".join(ran.err.split()), ran.err
        for reason in self.REASONS[:1]:
            assert "".join(reason.split()) in "".join(ran.err.split())
        assert output.read_bytes() == before
        assert not list(output.parent.glob("*.part"))

    def test_the_share_is_a_limit(self, output: Path) -> None:
        rows = "imei,list,reason\n" + "".join(f"{imei},white,\n" for imei in lists.new_devices(998))
        assert build(output, rows + "x,white,\n" + "y,white,\n", "--max-bad-share", 0.002).code == 0
        assert build(output, rows + "x,white,\n" + "y,white,\n", "--max-bad-share", 0.0019).code == 1

    def test_strict_refuses_the_first(self, output: Path) -> None:
        ran = build(output, self.ROWS, "--strict", "--max-bad-share", 1)
        assert ran.code == 1
        assert "devices.csv: line 3: not an IMEI" in ran.err
        assert not output.exists()

    def test_no_subscriber_is_shown(self, output: Path) -> None:
        pairs = output.with_name("pairs.csv")
        pairs.write_text(f"imei,imsi\n{lists.CLONED},00101x000000002\nIMEI,{lists.HOLDER}\n")
        ran = eir("lists", "build", "-o", output, "--sequence", 1, "--pairs", pairs, "--max-bad-share", 1)
        assert ran.code == 0
        assert "000000002" not in ran.err
        # Nor is the header, where it is a row.
        pairs.write_text(f"{lists.CLONED},{lists.HOLDER}\n")
        ran = eir("lists", "build", "-o", output, "--sequence", 1, "--pairs", pairs)
        assert ran.code == 1
        assert lists.HOLDER not in ran.err


def test_contradictions_are_named_and_the_strictest_stands(output: Path) -> None:
    ran = build(output, f"imei,list,reason\n{lists.WHITE},white,\n{lists.WHITE},black,stolen\n")
    assert ran.code == 0
    assert f"{lists.WHITE}: contradictory entries; the strictest stands" in ran.err
    assert status(output, lists.WHITE) == "black"


def test_check_digits_are_counted_and_say_nothing(output: Path) -> None:
    ran = build(output, f"imei,list,reason\n{lists.WHITE}5,white,\n{lists.BLACK}0,black,\n")
    assert ran.code == 0
    assert "1withanothercheckdigit" in "".join(ran.err.split())
    assert counts(output) == {"white": 1, "black": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("imei,reason\n", "imei"),
        ("imei,imei,list,reason\n", "imei"),
        ('imei,list,reason\n"never closed' + "\n" * 70_000, "line 2"),
        (gzip.compress(DEVICES.encode() * 50)[:-9], "devices.csv"),
    ],
    ids=["empty", "columns", "column twice", "quote", "cut gzip"],
)
def test_files_that_are_none(output: Path, text: str | bytes, said: str) -> None:
    ran = build(output, text)
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("eir: ") or "eir: " in ran.err
    assert said in ran.err
    assert not output.exists()


def test_nothing_to_build_and_nowhere_to_write(output: Path) -> None:
    assert eir("lists", "build", "-o", output, "--sequence", 1).code == 1
    assert build(output, DEVICES).code == 0
    source = output.with_name("devices.csv")
    ran = eir("lists", "build", "-o", output.parent / "no" / "x.eirs", "--sequence", 1, "--devices", source)
    assert (ran.code, "eir: " in ran.err) == (1, True)
    # A file that is not there is a mistake in the command.
    assert eir("lists", "build", "-o", output, "--sequence", 1, "--devices", output.with_name("none")).code == 2
