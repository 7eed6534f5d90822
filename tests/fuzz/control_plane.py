"""Fuzz what the control plane reads of peers: messages, CERs, CEAs, and the requests that it answers.

Messages that are right are taken from the test vectors and the seeds of the data plane's fuzzer and changed: octets,
lengths, AVPs left out, doubled, put into each other. What must hold: nothing but `DiameterError` comes out of the
decoder; every request has one answer, which frames as one message with the request's identifiers.

Python's own speed is what bounds it, so it is not guided by coverage: a run of ten times as many is worth more.
"""

import argparse
import multiprocessing
import random
import sys
import time
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from eir.diameter import capabilities, dictionary, requests
from eir.diameter.answer import Identity
from eir.diameter.message import (
    HEADER_LENGTH,
    MANDATORY,
    REQUEST,
    Avp,
    DiameterError,
    Header,
    check_grammar,
    decode,
    encode,
    encode_avp,
    peek_header,
    walk,
)

HERE = Path(__file__).resolve().parent
VECTORS = HERE.parent / "vectors" / "diameter"
BATCH = 2_000
LONGEST = 1024

IDENTITY = Identity("eir.test", "test", origin_state_id=1)
LOCAL = IPv4Address("127.0.0.1")
SENDERS = [requests.Sender("mme.test", role) for role in ("auto", "direct", "relay")]
CODES = [key for key, definition in dictionary.AVPS.items() if definition]
COMMANDS = list(dictionary.COMMANDS.values())


def seeds() -> list[bytes]:
    """Messages to begin with: the vectors, the seeds of the Rust target, and one of each command."""
    found = []
    for path in sorted(VECTORS.glob("*.hex")):
        lines = (line.partition("#")[0] for line in path.read_text().splitlines())
        found.append(bytes.fromhex("".join(lines)))
    found += [path.read_bytes() for path in sorted((HERE / "corpus" / "framing_ecr").iterdir())]
    for command in COMMANDS:
        avps = b"".join(
            encode_avp(Avp(rule.avp.code, rule.avp.vendor, MANDATORY, b"\x00\x01\x7f\x00\x00\x01"))
            for rule in command.rules
        )
        found.append(encode(Header(REQUEST, command.code, command.application, 1, 2), avps))
    return [seed[:LONGEST] for seed in found if len(seed) >= HEADER_LENGTH]


def avps_of(data: bytes) -> list[bytes]:
    """The AVPs of a message, as far as they can be told apart."""
    found = []
    with suppress(DiameterError):
        for raw in walk(data, HEADER_LENGTH, len(data)):
            found.append(data[raw.start : raw.end + -raw.end % 4])
    return found


def framed(head: bytes, body: bytes) -> bytes:
    """The head of a message with this body, and the right length."""
    body = body[: LONGEST - HEADER_LENGTH]
    body += bytes(-len(body) % 4)
    return head[:1] + (HEADER_LENGTH + len(body)).to_bytes(3, "big") + head[4:HEADER_LENGTH] + body


def any_avp(pick: random.Random) -> bytes:
    """An AVP, known as a rule, with any content."""
    vendor, code = pick.choice(CODES) if pick.random() < 0.9 else (pick.getrandbits(32), pick.getrandbits(32))
    content = pick.randbytes(pick.choice((0, 1, 4, 4, 4, 6, 8, 15, 24)))
    return encode_avp(Avp(code, vendor, pick.choice((0, MANDATORY, MANDATORY)), content))


def changed(data: bytes, pick: random.Random) -> bytes:
    """The message with one thing made otherwise."""
    how = pick.randrange(8)
    if how < 3:
        octets = bytearray(data)
        for _ in range(pick.randint(1, 4)):
            octets[pick.randrange(len(octets))] = pick.choice((0, 1, 255, 64, 128, pick.getrandbits(8)))
        return bytes(octets) if how else framed(bytes(octets), bytes(octets[HEADER_LENGTH:]))
    parts = avps_of(data)
    if how == 3 or not parts:
        parts.insert(pick.randint(0, len(parts)), any_avp(pick))
    elif how == 4:
        del parts[pick.randrange(len(parts))]
    elif how == 5:
        parts.insert(pick.randint(0, len(parts)), pick.choice(parts))
    elif how == 6:
        pick.shuffle(parts)
    else:
        vendor, code = pick.choice(CODES)
        at = pick.randrange(len(parts))
        parts[at] = encode_avp(Avp(code, vendor, MANDATORY, parts[at] + pick.choice((b"", any_avp(pick)))))
    return framed(data, b"".join(parts))


def try_one(data: bytes, pick: random.Random) -> None:
    """Everything that reads a peer's message; raises where something does not hold."""
    header = peek_header(data)
    with suppress(DiameterError):
        check_grammar(pick.choice(COMMANDS), decode(data).avps)
    for read in (capabilities.read_cer, capabilities.read_cea):
        with suppress(DiameterError):
            read(data)
    if header is None or not header.is_request:
        return
    outcome = requests.answer(data, header, IDENTITY, LOCAL, pick.choice(SENDERS))
    answer = peek_header(outcome.data)
    assert answer is not None
    assert not answer.is_request
    assert int.from_bytes(outcome.data[1:4], "big") == len(outcome.data)
    assert (answer.hop_by_hop, answer.end_to_end) == (header.hop_by_hop, header.end_to_end)
    assert 2000 < outcome.code < 6000


def worker(seed: int, until: float, most: int) -> tuple[int, str | None]:
    """Runs until the time is over or so many are done; how many there were, and the message that broke it, in hex."""
    pick = random.Random(seed)
    beginning = seeds()
    pool = list(beginning)
    count = 0
    while count < most and time.monotonic() < until:
        for _ in range(BATCH):
            data = changed(pick.choice(pool), pick)
            count += 1
            try:
                try_one(data, pick)
            except Exception as error:  # what it is about
                return count, f"{type(error).__name__}: {error}\n  {data.hex()}"
            # What has been changed is changed further, for a while.
            if pick.random() < 0.02:
                pool.append(data)
        del pool[len(beginning) + pick.randrange(400) :]
    return count, None


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description="Fuzz what the control plane reads of peers.")
    parser.add_argument("--seconds", type=float, default=10, help="how long at most (10)")
    parser.add_argument("--executions", type=int, default=1 << 62, help="how many at most")
    parser.add_argument("--processes", type=int, default=1, help="how many at once (1)")
    parser.add_argument("--seed", type=int, default=None, help="equal seeds try the same")
    given = parser.parse_args()
    seed = random.randrange(1 << 32) if given.seed is None else given.seed
    until, share = time.monotonic() + given.seconds, given.executions // given.processes
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        runs = pool.starmap(worker, [(seed + number, until, share) for number in range(given.processes)])
    count = sum(done for done, _ in runs)
    broken = [what for _, what in runs if what is not None]
    rate = count // max(int(given.seconds), 1)
    print(f"{'control_plane':<16} {count:>10} executions  {rate:>8}/s  {'FAILED' if broken else 'ok'}  seed {seed}")
    for what in broken:
        print(f"  {what}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
