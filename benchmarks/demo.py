"""`make demo`: a node on loopback, a device of each kind, a grey timer, a verification, a short load.

Everything happens in a temporary directory; node, publisher and broker (where Mosquitto is installed) are started and
ended here, and the requests go over TCP.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.stage import ask, free_port, running
from benchmarks.wire import WirePeer, status_of

ROOT = Path(__file__).parents[1]
EIR = Path(sys.executable).with_name("eir")
SAMPLE = ROOT / "config" / "sample"

_CONFIG = """
[node]
directory = "{directory}"
country = "lab"
[diameter]
listen = ["127.0.0.1:0"]
[metrics]
listen = ""
[sms]
texts = "{directory}/sms/kz.toml"
quiet_from = "00:00"
quiet_to = "00:00"
[lists]
trusted_keys = ["{directory}/national/key.pub.pem"]
[lists.http]
url = "{publisher}"
interval = {interval}
{mqtt}
[log]
level = "warning"
"""

_MQTT = """
[lists.mqtt]
host = "127.0.0.1"
port = {port}
tls = false
"""

# Of an invented network.
_SUBSCRIBERS = "imsi,msisdn,iin,language,m2m\n001010000000009,999000000009,,ru,0\n"

# What it is, its IMEI and its subscriber's IMSI; the laboratory's profile has the test network 001 at home.
_DEVICES = (
    ("verified", "35900100000001", "001010000000001"),
    ("not verified in time", "35900100000003", "001010000000003"),
    ("malformed", "3590010000", "001010000000004"),
    ("roaming", "35900100000003", "999700000000001"),
    ("M2M meter", "35900300000001", "001010000000005"),
    ("in an imported range", "35900200123456", "001010000000006"),
    ("stolen, with its lawful holder", "35900100000004", "001010000000077"),
    ("stolen", "35900100000004", "001010000000007"),
    ("of a TAC not allocated", "35900999000001", "001010000000008"),
    ("never seen", "35900400000001", "001010000000009"),
)
_COLOUR = {"white": "green", "black": "red", "grey": "yellow"}

console = Console(width=110)


def eir(*arguments: str) -> str:
    """What a command of the command line prints. Raises CalledProcessError."""
    return subprocess.run([str(EIR), *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def national_database(directory: Path) -> Iterator[tuple[str, int | None]]:
    """The publisher with the sample's devices as sequence 1; its URL, and the port of a broker if there is one."""
    eir("publisher", "import", str(directory), str(SAMPLE / "devices.csv"), "--country", "lab")
    command = [str(EIR), "publisher", "serve", str(directory), "--country", "lab", "--listen", "127.0.0.1:0"]
    broker = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    with ExitStack() as ended:
        port = None
        if broker is not None:
            port = free_port()
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            ended.enter_context(running([broker, "-p", str(port)], None, **quiet))
            command += ["--mqtt", f"127.0.0.1:{port}"]
        publisher = ended.enter_context(running(command, None, stdout=subprocess.PIPE))
        assert publisher.stdout is not None
        ready = publisher.stdout.readline()
        if "ready" not in ready:
            sys.exit("the publisher did not start")
        yield f"http://{ready.split('http=')[1].split()[0]}", port


@contextmanager
def node(directory: Path, publisher: str, broker: int | None) -> Iterator[tuple[Path, int]]:
    """A running node that follows the publisher; gives its configuration and its port."""
    for part in ("countries", "sms"):
        shutil.copytree(ROOT / "config" / part, directory / part)
    config = directory / "eir.toml"
    # By the broker at once, without one by asking again and again.
    mqtt, interval = ("", 0.5) if broker is None else (_MQTT.format(port=broker), 60)
    config.write_text(_CONFIG.format(directory=directory, publisher=publisher, interval=interval, mqtt=mqtt))
    subscribers = directory / "subscribers.csv"
    subscribers.write_text(_SUBSCRIBERS)
    eir("subscribers", "import", str(subscribers), "-c", str(config))
    process = subprocess.Popen([str(EIR), "serve", "-c", str(config)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        if "ready" not in ready:
            sys.exit("the node did not start")
        console.print(f"[dim]{ready.strip()}[/]")
        yield config, int(ready.split("diameter=127.0.0.1:")[1].split()[0])
    finally:
        process.terminate()
        process.wait(30)


def build_lists(output: Path) -> None:
    """Compiles the sample lists with the command that an operator uses."""
    kinds = ("devices", "ranges", "allocated-tacs", "exempt-tacs", "exempt-imsis", "pairs")
    names = ("devices", "ranges", "allocated-tacs", "m2m-tacs", "exempt-imsis", "pairs")
    files = [
        part for kind, name in zip(kinds, names, strict=True) for part in (f"--{kind}", str(SAMPLE / f"{name}.csv"))
    ]
    tac_date = time.strftime("%Y-%m-%d", time.gmtime())
    command = [str(EIR), "lists", "build", "-o", str(output), "--sequence", "1", "--tac-as-of", tac_date, *files]
    subprocess.run(command, check=True)


def show_verdicts(config: Path, port: int) -> None:
    """Asks about one device of each kind and shows what is answered, by which rule, and how long it took."""
    table = Table("device", "IMEI", "answer", "rule", "round trip")
    with WirePeer(port) as peer:
        for what, imei, imsi in _DEVICES:
            rule = ask(config, "check", imei=imei, imsi=imsi)["rule"]
            begin = time.perf_counter()
            answer = status_of(peer.ask(imei, imsi))
            took = (time.perf_counter() - begin) * 1e6
            table.add_row(what, imei, f"[{_COLOUR.get(answer, 'magenta')}]{answer}[/]", rule, f"{took:,.0f} µs")
    console.print(table)


def show_verification(publisher: Path, port: int, imei: str) -> None:
    """Has a device verified at the national database, and shows how soon its next attach is white."""
    with WirePeer(port) as peer:
        before = status_of(peer.ask(imei))
        begin = time.monotonic()
        eir("publisher", "set", str(publisher), imei, "white", "--country", "lab")
        while (after := status_of(peer.ask(imei))) != "white":
            if time.monotonic() - begin > 15:
                sys.exit("the verification did not come")
            time.sleep(0.001)
    took = (time.monotonic() - begin) * 1000
    console.print(f"{imei}: {before}, verified, {after} within {took:,.0f} ms of the command's start", highlight=False)


def show_messages(file: Path) -> None:
    """Waits for the first message and shows it."""
    end = time.monotonic() + 15
    while not (file.exists() and file.read_text()):
        if time.monotonic() > end:
            sys.exit("no message was written")
        time.sleep(0.1)
    message = json.loads(file.read_text().splitlines()[0])
    console.print(f"to {message['to']}, {message['weight']} short messages: {message['text']}", highlight=False)


def main() -> None:
    """Shows the node's main job; ends with 0 where it was done."""
    with tempfile.TemporaryDirectory(prefix="eir-demo-") as name:
        directory = Path(name)
        console.rule("national lists, compiled")
        build_lists(directory / "lists.eirs")
        console.rule("a node on loopback, and a national database that it follows")
        national = directory / "national"
        with national_database(national) as (url, broker), node(directory, url, broker) as (config, port):
            console.rule("S13 requests over TCP")
            show_verdicts(config, port)
            device = (_DEVICES[-1][1], "--config", str(config))
            console.rule("the device never seen now has a timer; an agent gives it ten days more")
            act = ("--days", "10", "--reason", "demonstration", "--agent", "demo")
            console.print(eir("grey", "extend", *act, *device).strip(), highlight=False)
            console.rule("why is it answered as it is?")
            console.print(eir("why", *device).strip(), highlight=False)
            console.rule("what its subscriber is told (into a file, for want of an SMSC)")
            show_messages(directory / "messages.jsonl")
            console.rule(
                f"it is verified: by {'HTTP' if broker is None else 'MQTT'} the node knows, the next attach is white"
            )
            show_verification(national, port, _DEVICES[-1][1])
            console.rule("a short load: one connection, window 256")
            known = ("--range", "35900100000001-35900100000003", "--window", "256", "--duration", "3")
            console.print(eir("load", "--to", f"127.0.0.1:{port}", *known).rstrip())
    console.print("[green]done[/]")


main()
