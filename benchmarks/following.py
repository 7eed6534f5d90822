"""Following the national database: a large delta while answers go on, and how soon a published one is on the wire."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import aiomqtt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.figure import Figure
from benchmarks.stage import UNLISTED, Stage, ask, free_port, running
from benchmarks.wire import WirePeer, status_of
from eir.lists import manifest as manifests
from eir.lists.package import ListFile, Manifest

_CHANGES = 1_000_000
_PUBLISHED = 200
_GUARD = "[lists]\nignored = 1000000000\nmax_turned_black = 1000000000\n"
_HEADER = "change_type,imei,list,reason,until\n"


def following(stage: Stage) -> Iterator[Figure]:
    """p99 at 20,000/s while one delta of a million changes comes upon the other, beside without, median of fifteen
    pairs; and the rate at which they come into force."""
    files = [stage.directory / f"delta-{number}.csv" for number in range(2)]
    for path, listed in zip(files, ("white", "black"), strict=True):
        rows = (f"set,{UNLISTED + 7 * number},{listed},,\n" for number in range(_CHANGES))
        path.write_text(_HEADER + "".join(rows))
    arguments = ("--rate", 20_000, "--seconds", 3, "--busy-poll", *stage.about_listed())
    with stage.node("following", settings=_GUARD) as (_, config, port):
        pairs: list[tuple[float, float]] = []
        took: list[float] = []
        for _ in range(15):
            quiet = stage.load(port, *arguments)["latency_ns"]["p99"]
            over, turns = threading.Event(), len(took)
            imports = threading.Thread(target=_import_until, args=(over, config, files, took))
            imports.start()
            pairs.append((quiet, stage.load(port, *arguments)["latency_ns"]["p99"]))
            over.set()
            imports.join()
            if len(took) == turns:
                raise RuntimeError("no delta came into force")
    yield Figure("delta_per_s", _CHANGES / median(took), "1/s", (">=", 500_000))
    yield Figure("delta_p99_quiet_us", median(quiet for quiet, _ in pairs) / 1000, "µs")
    yield Figure("delta_p99_ratio", median(with_delta / quiet for quiet, with_delta in pairs), "ratio", ("<=", 3))
    yield from _published(stage)


def _import_until(over: threading.Event, config: Path, files: list[Path], took: list[float]) -> None:
    """One delta upon the other, each the opposite of the one before; how long each took goes to `took`."""
    while not over.is_set():
        path = files[len(took) % len(files)]
        begin = time.perf_counter()
        told = ask(config, "lists-import", files=[["devices", str(path)]], delta=True, agent="bench", reason="bench")
        if told["result"] != "applied":
            raise RuntimeError(f"the delta was not taken: {told}")
        took.append(time.perf_counter() - begin)


def _published(stage: Stage) -> Iterator[Figure]:
    """From the publication at a broker to the changed answer."""
    broker = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if broker is None:
        print("no mosquitto: sync_latency_ms_p99 is not measured", flush=True)
        return
    key, port = Ed25519PrivateKey.generate(), free_port()
    pem = stage.directory / "national.pem"
    pem.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    mqtt = f'[lists.mqtt]\nhost = "127.0.0.1"\nport = {port}\ntls = false\n'
    settings = f'{_GUARD}trusted_keys = ["{pem}"]\n{mqtt}'
    with (
        running([broker, "-p", str(port)], cpu=None, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
        stage.node("published", settings=settings) as (_, config, node),
    ):
        took = asyncio.run(_publish(config, port, node, key))
    yield Figure("sync_latency_ms_p50", median(took) * 1000, "ms")
    yield Figure("sync_latency_ms_p99", quantiles(took, n=100)[98] * 1000, "ms", ("<=", 300))


async def _publish(config: Path, port: int, node: int, key: Ed25519PrivateKey) -> list[float]:
    took = []
    device = str(UNLISTED)
    first = ask(config, "status")["position"]["sequence"]
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        with WirePeer(node) as peer:
            while ask(config, "status")["sources"]["mqtt"] != "":
                # What is published before the node has its session at the broker does not come.
                await asyncio.sleep(0.1)
            for number in range(_PUBLISHED):
                listed = ("white", "black")[number % 2]
                message = _message(key, first + number + 1, f"set,{device},{listed},,\n")
                begin = time.perf_counter()
                await client.publish("eir/lab/deltas", message, qos=1)
                while status_of(peer.ask(device)) != listed:
                    if time.perf_counter() - begin > 30:
                        raise RuntimeError("a published change is not answered")
                took.append(time.perf_counter() - begin)
                # As changes come, not one upon the other.
                await asyncio.sleep(0.02)
    return took


def _message(key: Ed25519PrivateKey, sequence: int, rows: str) -> bytes:
    octets = (_HEADER + rows).encode()
    file = ListFile("devices.csv", "devices", len(octets), rows.count("\n"), hashlib.sha256(octets).hexdigest())
    manifest = manifests.encode(Manifest("delta", "lab", sequence, sequence - 1, int(time.time()), None, (file,)))
    told: dict[str, Any] = {"manifest": manifest, "signature": manifests.sign(manifest, key)}
    return msgspec.msgpack.encode({**told, "files": {file.name: octets}})
