"""Lists with a device and a subscriber for every rule. Subscribers are of the test network, MCC 001."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from eir import _core

WHITE = "35209900100001"
BLACK = "35209900200001"
STOLEN = "35209900300001"
CLONED = "35209900400001"
"""Black, and lawful with the subscriber `HOLDER`."""
NATIONAL_GREY = "35209900500001"
IN_BLACK_RANGE = "35770000100000"
IN_WHITE_RANGE = "35770000500001"
"""In a white range within the black one."""
METER = "86000000000001"
"""Its TAC is exempt."""
TEST_DEVICE = "00100000000001"
UNALLOCATED = "99000099000001"
NEW = "35900000000000"
"""The first of a million that no list names; `new_devices` gives more."""

SUBSCRIBER = "001010000000001"
HOLDER = "001010000000002"
ROAMER = "001990000000001"
"""Of a network that the test country counts as foreign."""
MACHINE = "001019000000007"
"""In an exempt range."""

FILES: Mapping[str, str] = {
    "devices": f"imei,list,reason\n{WHITE},white,\n{BLACK},black,unverified\n{STOLEN},black,stolen\n"
    f"{CLONED},black,cloned\n{NATIONAL_GREY},grey,\n",
    "ranges": "from,to,list,reason\n35770000,35770000,black,recall\n35770000500000,35770000599999,white,\n",
    "allocated-tacs": "tac\n35209900\n35770000\n86000000\n" + "".join(f"{tac}\n" for tac in range(35900000, 35900100)),
    "exempt-tacs": "tac\n86000000\n",
    "exempt-imsis": "imsi_from,imsi_to\n001019,001019\n",
    "pairs": f"imei,imsi\n{CLONED},{HOLDER}\n",
}


def new_devices(count: int, first: int = 0) -> list[str]:
    """So many devices that no list names, of allocated TACs."""
    return [str(int(NEW) + first + number) for number in range(count)]


def build(
    path: Path,
    files: Mapping[str, str] = FILES,
    *,
    sequence: int = 1,
    created_at: int | None = None,
    run_rows: int | None = None,
) -> _core.BuildReport:
    """Compiles list texts, by kind, into the snapshot `path`; with `run_rows` as one that memory does not hold."""
    now = int(time.time())
    builder = _core.SnapshotBuilder(
        strict=True,
        max_bad_share=0.0,
        sequence=sequence,
        created_at=created_at or now,
        tac_as_of=now,
        hard_reasons=["stolen", "forged", "court"],
        aside=path.parent if run_rows else None,
        run_rows=run_rows,
    )
    for kind, text in files.items():
        source = path.with_name(f"{path.name}.{kind}.csv")
        source.write_text(text)
        builder.add(kind, source, lambda _: None)
        source.unlink()
    return builder.finish(path)
