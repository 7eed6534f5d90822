"""Lists over HTTPS: what the broker or the directory has not brought, and everything where there are neither.

Asks `BASE/v1/current` again and again (RFC 9110 13.1.2, If-None-Match), fetches the deltas that are missing one by one,
and the snapshot where there is none to begin with or the deltas are no longer there (docs/wire-format.md). A transfer
that breaks goes on where it stopped (Range, 14.2). Whatever the server sends, nothing ends this; waits grow, with
jitter, while it fails.

Called by `lists_desk`; brings packages to the `Receiver` and decides nothing.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import aiohttp
import msgspec
from msgspec import Meta

from eir.lists import manifest as manifests
from eir.lists.manifest import MAX_MANIFEST, SIGNATURE_OCTETS, ManifestError
from eir.lists.package import Outcome, Package, PackageKind, Receiver, Result
from eir.lists.versions import MANIFEST, SIGNATURE
from eir.log import Log

SOURCE: Final = "http"
_MAX_CURRENT: Final = 4096
_AT_ONCE: Final = 1 << 16
_TRIES: Final = 5
"""Times that a broken transfer is taken up again before the whole is begun anew."""
_LONGEST_PAUSE: Final = 900.0

log = Log(__name__)

_Number = Annotated[int, Meta(ge=0, le=1 << 62)]


class _Current(msgspec.Struct, frozen=True):
    """What the server has: the newest snapshot, and the sequence of the newest delta behind it."""

    snapshot: _Number
    sequence: _Number


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where lists are fetched. `url` is the base, without a slash at its end; `interval`: seconds between two
    questions; `stall`: seconds without an octet after which a transfer is given up; `token`: a bearer token."""

    url: str
    interval: float
    stall: float
    tls: ssl.SSLContext | None = None
    token: str | None = None


class _FetchError(Exception):
    """Something was not to be had; the text says what. `wait`: seconds that the server asks to be left alone."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class _MissingError(_FetchError):
    """The server does not have it, or no longer."""


class HttpSource:
    """The server that is followed."""

    def __init__(self, settings: HttpSettings, receiver: Receiver, random: Callable[[], float]) -> None:
        self.error = ""
        """Why nothing can be fetched; empty where all is well."""
        self._settings = settings
        self._receiver = receiver
        self._random = random
        self._wanted = asyncio.Event()
        self._etag = ""

    def wake(self) -> None:
        """Something is missing: asks at once, if nothing is wrong."""
        self._wanted.set()

    async def run(self) -> None:
        """Asks again and again. Never returns."""
        headers = {"Authorization": f"Bearer {self._settings.token}"} if self._settings.token else {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=self._settings.stall)
        connector = aiohttp.TCPConnector(ssl=self._settings.tls if self._settings.tls is not None else True)
        failed = 0
        async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
            while True:
                asked = 0.0
                try:
                    self._wanted.clear()
                    await self._follow(session)
                    self.error, failed = "", 0
                except (_FetchError, aiohttp.ClientError, OSError, ManifestError, ValueError) as error:
                    if not self.error:
                        log.error("lists cannot be fetched", error=str(error))
                    self.error, failed = str(error) or type(error).__name__, failed + 1
                    asked = error.wait if isinstance(error, _FetchError) else 0.0
                await self._pause(failed, asked)

    async def _pause(self, failed: int, asked: float) -> None:
        if failed:
            wait = min(2.0 ** min(failed, 20), _LONGEST_PAUSE)
            await asyncio.sleep(max(wait * (0.5 + self._random() / 2), min(asked, _LONGEST_PAUSE)))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.interval):
                await self._wanted.wait()

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        """Fetches what is missing. Raises _FetchError and what aiohttp raises."""
        current = await self._current(session)
        if current is None:
            return
        while (present := self._receiver.sequence) is None or present < current.sequence:
            outcome = Outcome(Result.GAP)
            if present is not None:
                with suppress(_MissingError):
                    outcome = await self._take(session, "delta", present + 1)
            if outcome.result is Result.GAP:
                if present is not None and current.snapshot <= present:
                    raise _FetchError(f"delta {present + 1} is not to be had, and no snapshot behind it")
                await self._take(session, "snapshot", current.snapshot)
            if self._receiver.sequence == present:
                raise _FetchError(f"what was fetched has not led beyond sequence {present}")

    async def _current(self, session: aiohttp.ClientSession) -> _Current | None:
        """What the server has; None: nothing new."""
        behind = self._receiver.sequence is None or bool(self.error)
        headers = {"If-None-Match": self._etag} if self._etag and not behind else {}
        async with session.get(f"{self._settings.url}/v1/current", headers=headers, allow_redirects=False) as answer:
            if answer.status == 304:
                return None
            _check(answer)
            octets = await _read(answer, _MAX_CURRENT)
            try:
                current = msgspec.json.decode(octets, type=_Current)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise _FetchError(f"what is current is not readable: {error}") from error
            self._etag = answer.headers.get("ETag", "")
            return current

    async def _take(self, session: aiohttp.ClientSession, kind: PackageKind, sequence: int) -> Outcome:
        """Fetches a package and has it decided about. Raises _FetchError where it is refused."""
        base = f"{self._settings.url}/v1/{kind}s/{sequence}"
        staged = await asyncio.to_thread(self._receiver.staging)
        try:
            octets = await self._whole(session, f"{base}/{MANIFEST}", MAX_MANIFEST)
            manifest = manifests.parse(octets)
            if (manifest.kind, manifest.sequence) != (kind, sequence):
                raise _FetchError(f"{base} is {manifest.kind} {manifest.sequence}")
            signature = await self._whole(session, f"{base}/{SIGNATURE}", SIGNATURE_OCTETS)
            for entry in manifest.files:
                await self._file(session, f"{base}/{entry.name}", staged / entry.name, entry.octets)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, staged, ignore_errors=True)
            raise
        outcome = await self._receiver.offer(Package(manifest, octets, signature, staged), SOURCE)
        if outcome.result is Result.REFUSED:
            # It is not fetched over and over: the next question is whether there is anything else.
            raise _FetchError(f"{kind} {sequence} is refused: {outcome.reason}", self._settings.interval)
        return outcome

    async def _whole(self, session: aiohttp.ClientSession, url: str, most: int) -> bytes:
        async with session.get(url, allow_redirects=False) as answer:
            _check(answer)
            return await _read(answer, most)

    async def _file(self, session: aiohttp.ClientSession, url: str, path: Path, octets: int) -> None:
        """Fetches a file of that length; goes on where a transfer has broken."""
        with path.open("wb") as file:
            for left in reversed(range(_TRIES)):
                try:
                    await self._rest(session, url, file, octets)
                    return
                except (aiohttp.ClientError, TimeoutError, ConnectionError):
                    if not left:
                        raise

    async def _rest(self, session: aiohttp.ClientSession, url: str, file: BinaryIO, octets: int) -> None:
        have = file.tell()
        headers = {"Range": f"bytes={have}-"} if have else {}
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            if answer.status == 416 or (have and answer.status == 200):
                # It is another file by now, or the server knows no parts.
                file.seek(0)
                file.truncate()
                have = 0
            if answer.status == 416:
                raise aiohttp.ClientPayloadError("the part is not to be had")
            _check(answer, 206 if have else 200)
            async for part in answer.content.iter_chunked(_AT_ONCE):
                have += len(part)
                if have > octets:
                    raise _FetchError(f"{url} is longer than {octets} octets")
                await asyncio.to_thread(file.write, part)
        if have < octets:
            raise aiohttp.ClientPayloadError(f"{url} ended after {have} of {octets} octets")


def _check(answer: aiohttp.ClientResponse, wanted: int = 200) -> None:
    if answer.status == wanted:
        return
    wait = answer.headers.get("Retry-After", "")
    text = f"{answer.url.path} is answered {answer.status}"
    if answer.status in (404, 410):
        raise _MissingError(text)
    raise _FetchError(text, float(wait) if wait.isascii() and wait.isdecimal() and len(wait) < 6 else 0.0)


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    octets = await answer.content.read(most + 1)
    while len(octets) <= most and (more := await answer.content.read(most + 1 - len(octets))):
        octets += more
    if len(octets) > most:
        raise _FetchError(f"{answer.url.path} is longer than {most} octets")
    return octets
