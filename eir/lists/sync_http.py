"""Lists over HTTP: asks the national database what there is, and fetches it (docs/wire-format.md, HTTP).

Deltas one after the other where the chain reaches back to what is in force, else the snapshot. A file that breaks off
is gone on with where it broke off, also after minutes; one that arrives wrong is begun anew. No redirect is followed,
no answer is longer than it may be, nothing waits for a server that sends nothing.

Called by `lists_desk`; brings packages to the `Receiver` and decides nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import FileIO
from pathlib import Path
from typing import Annotated, Final

import aiohttp
import msgspec
from msgspec import Meta

from eir.lists import manifest as manifests
from eir.lists.manifest import MAX_MANIFEST, SIGNATURE_OCTETS, ManifestError
from eir.lists.package import ListFile, Manifest, Outcome, Package, PackageKind, Receiver, Result
from eir.lists.pieces import PIECE, pieces
from eir.lists.source_settings import HttpSettings
from eir.log import Log

SOURCE: Final = "http"
_LONGEST_CURRENT: Final = 4096
_WAITING: Final = 1 << 20
"""Octets that wait for the disk: what has come stays where the connection ends."""
_TRIES: Final = 5
"""Attempts in a row at a file that bring next to nothing, after which the look ends."""
_PROGRESS: Final = 1 << 16
"""Octets that an attempt must bring: a server that gives one octet a time would be asked for ever."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_LONGEST_LEFT_ALONE: Final = 3600.0
"""Seconds for which a server may ask to be left alone."""
_REFUSED_FOR: Final = 600.0
"""Seconds after which a package that was refused is fetched and offered again: keys, rules and holds change."""
_FOLDERS: Final[dict[PackageKind, str]] = {"snapshot": "snapshots", "delta": "deltas"}

log = Log(__name__)

_Sequence = Annotated[int, Meta(ge=0, le=1 << 62)]


class _Current(msgspec.Struct, frozen=True):
    """What the server has: the newest snapshot, and the newest state that deltas lead to. What is more is ignored."""

    sequence: _Sequence
    snapshot: _Sequence | None = None


class _FetchError(Exception):
    """This did not work and may work later. `after`: seconds for which the server wants to be left alone."""

    def __init__(self, reason: str, after: float = 0.0, missing: bool = False) -> None:
        super().__init__(reason)
        self.after = after
        self.missing = missing


class _NotTakenError(_FetchError):
    """What is there was not taken. No server asks to be left alone: who acts on it need not wait."""


class _Partial:
    """A file that is being fetched: what of it is there, with its digest. Blocks, and raises OSError."""

    def __init__(self, path: Path) -> None:
        # Without a buffer, which would keep what a full disk has not taken and write it later.
        self.file: FileIO = path.open("a+b", buffering=0)
        self.begin_anew(keep=True)

    def begin_anew(self, keep: bool = False) -> None:
        """Forgets what is there, or reads it again."""
        if not keep:
            self.file.truncate(0)
        self.octets, self.digest = 0, hashlib.sha256()
        self.file.seek(0)
        for part in pieces(self.file):
            self.digest.update(part)
            self.octets += len(part)

    def put(self, part: bytes) -> None:
        """Adds to its end; where the disk is full, as much as it takes."""
        left = memoryview(part)
        while left:
            written = self.file.write(left[:PIECE])
            self.digest.update(left[:written])
            self.octets += written
            left = left[written:]


@dataclass(frozen=True, slots=True)
class _Refused:
    """The last package that was refused: it is not fetched again until some time of the loop's clock."""

    manifest: bytes
    signature: bytes
    reason: str
    until: float


@dataclass(slots=True)
class _Begun:
    """A package whose files are being fetched."""

    manifest: Manifest
    octets: bytes
    signature: bytes
    directory: Path

    def take(self) -> Package:
        return Package(self.manifest, self.octets, self.signature, self.directory)


class HttpSource:
    """The server, as it is asked again and again."""

    def __init__(self, settings: HttpSettings, receiver: Receiver, random: Callable[[], float]) -> None:
        self.error: str | None = None
        """Why the last look failed; empty where it did not."""
        self.counts: Counter[str] = Counter()
        """looks, unchanged, failed, resumed (files), octets, and packages by what became of them."""
        self._settings = settings
        self._receiver = receiver
        self._random = random
        self._wanted = asyncio.Event()
        self._acted = asyncio.Event()
        self._etag = ""
        self._current: _Current | None = None
        self._begun: _Begun | None = None
        self._refused: _Refused | None = None
        self._pause = _FIRST_PAUSE

    @property
    def announced(self) -> int | None:
        """The newest state that the server has told of; None: it has told of none yet."""
        return None if self._current is None else max(self._current.sequence, self._current.snapshot or 0)

    def renew(self, settings: HttpSettings) -> None:
        """Has it ask with other settings from the next look on: a token or certificate that was changed."""
        self._settings, self._etag = settings, ""

    def wake(self) -> None:
        """Has it look at once, unless the server is being left alone."""
        self._wanted.set()

    def take_again(self) -> None:
        """Has it offer what was refused again: somebody has done something about it."""
        self._refused = None
        self._wanted.set()
        self._acted.set()

    async def run(self) -> None:
        """Looks again and again. Never returns."""
        try:
            while True:
                used = self._settings
                async with self._session() as session:
                    while used is self._settings:
                        await self._turn(session)
        finally:
            self._forget()

    async def _turn(self, session: aiohttp.ClientSession) -> None:
        """One look, and the time until the next."""
        self._wanted.clear()
        self._acted.clear()
        left_alone, asked = 0.0, False
        try:
            await self.look(session)
            self.error, self._pause = "", _FIRST_PAUSE
        except Exception as error:
            # Whatever a server brings about, in aiohttp too. Its texts name host and port, nothing secret.
            self.counts["failed"] += 1
            reason = str(error) or type(error).__name__
            foreseen = isinstance(error, (_FetchError, aiohttp.ClientError, OSError, ValueError))
            if not self.error:
                log.error("the server of lists cannot be used", error=reason, exc_info=not foreseen)
            self.error = reason
            asked = not isinstance(error, _NotTakenError)
            # All nodes of a country have the same server.
            left_alone = max(self._pause, getattr(error, "after", 0.0)) * (1 + self._random() / 2)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        if asked:
            await asyncio.sleep(left_alone)
        elif left_alone:
            await _wait(self._acted, left_alone)
        else:
            await _wait(self._wanted, self._settings.interval * (0.75 + self._random() / 2))

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._settings.tls if self._settings.tls is not None else True),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._settings.stall, sock_read=self._settings.stall
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=1 << 18,
        )

    async def look(self, session: aiohttp.ClientSession) -> int:
        """Fetches what is there and not in force; how many packages were applied.

        Raises _FetchError, aiohttp.ClientError, OSError and ValueError.
        """
        self.counts["looks"] += 1
        current = await self._ask_current(session)
        applied = 0
        trouble = ""
        while (found := self._next(current, bool(trouble))) is not None:
            kind, number = found
            before = self._receiver.sequence
            try:
                outcome = await self._bring(session, kind, number)
            except _FetchError as error:
                if kind == "snapshot" or not error.missing:
                    raise
                outcome = Outcome(Result.GAP, "it is not there")
            applied += outcome.result is Result.APPLIED
            trouble = ""
            if self._receiver.sequence == before and outcome.result is not Result.APPLIED:
                # A delta that is gone, or does not fit, is healed by a later snapshot.
                trouble = f"{kind} {number} is {outcome.result.value}: {outcome.reason}"
                if kind == "snapshot":
                    break
        if trouble and self._receiver.sequence != self.announced:
            raise _NotTakenError(trouble, self._settings.interval)
        return applied

    def _next(self, current: _Current, without_chain: bool) -> tuple[PackageKind, int] | None:
        """The package to be fetched next; None where there is nothing to be had."""
        present = self._receiver.sequence
        newer = current.snapshot if present is None or (current.snapshot or 0) > present else None
        if present is None or current.sequence <= present:
            if newer is None and not without_chain and self._receiver.wants(current.snapshot or 0):
                newer = current.snapshot
            return None if newer is None else ("snapshot", newer)
        far = current.sequence - present > self._settings.max_deltas
        if newer is not None and (without_chain or far):
            return "snapshot", newer
        return None if without_chain else ("delta", present + 1)

    # One package.

    async def _bring(self, session: aiohttp.ClientSession, kind: PackageKind, number: int) -> Outcome:
        place = f"{_FOLDERS[kind]}/{number}"
        octets = await self._small(session, f"{place}/manifest.json", MAX_MANIFEST)
        signature = await self._small(session, f"{place}/manifest.json.sig", SIGNATURE_OCTETS)
        if len(signature) != SIGNATURE_OCTETS:
            raise _FetchError(f"a signature of {len(signature)} octets, where it has {SIGNATURE_OCTETS}")
        now = asyncio.get_running_loop().time()
        known = self._refused
        if known is not None and (known.manifest, known.signature) == (octets, signature) and now < known.until:
            return Outcome(Result.REFUSED, known.reason)
        manifest = manifests.parse(octets)
        if (manifest.kind, manifest.sequence) != (kind, number):
            raise ManifestError(f"{place} is another package")
        if sum(file.octets for file in manifest.files) > self._settings.max_octets:
            raise ManifestError(f"{place} is longer than {self._settings.max_octets} octets")
        if (outcome := self._receiver.place(manifest)) is not None:
            self.counts[outcome.result.value] += 1
            return outcome
        begun = await self._begin(manifest, octets, signature)
        for file in manifest.files:
            await self._fetch(session, place, file, begun.directory / file.name)
        self._begun = None
        outcome = await self._receiver.offer(begun.take(), SOURCE)
        self.counts[outcome.result.value] += 1
        # What somebody did while it was being refused may be what it lacked.
        refused = outcome.result is Result.REFUSED and not self._acted.is_set()
        self._refused = _Refused(octets, signature, outcome.reason, now + _REFUSED_FOR) if refused else None
        return outcome

    async def _begin(self, manifest: Manifest, octets: bytes, signature: bytes) -> _Begun:
        """Where the files go: among those of an earlier attempt at the same package, if there was one."""
        if self._begun is not None and self._begun.octets == octets:
            self._begun.signature = signature
            return self._begun
        self._forget()
        directory = await asyncio.to_thread(self._receiver.staging)
        self._begun = _Begun(manifest, octets, signature, directory)
        return self._begun

    def _forget(self) -> None:
        if self._begun is not None:
            shutil.rmtree(self._begun.directory, ignore_errors=True)
            self._begun = None

    async def _fetch(self, session: aiohttp.ClientSession, place: str, file: ListFile, path: Path) -> None:
        """Fetches a file, or what of it is not there yet. Raises as `look` does; what came then stays."""
        target = await asyncio.to_thread(_Partial, path)
        try:
            tries = 0
            while target.octets < file.octets:
                before, reason = target.octets, "broke off"
                try:
                    await self._transfer(session, f"{place}/{file.name}", file, target)
                except (aiohttp.ClientError, OSError) as error:
                    reason = str(error) or type(error).__name__
                if target.octets >= file.octets:
                    break
                tries = 0 if target.octets - before >= _PROGRESS else tries + 1
                if tries >= _TRIES:
                    raise _FetchError(f"{file.name}: {reason}, at {target.octets} of {file.octets} octets")
                await asyncio.sleep(min(0.2 * 2**tries, 5.0) * (0.5 + self._random()))
                self.counts["resumed"] += target.octets > 0
            if target.digest.hexdigest() != file.sha256:
                target.begin_anew()
                raise _FetchError(f"{file.name}: another SHA-256 than its manifest says")
        finally:
            target.file.close()

    async def _transfer(self, session: aiohttp.ClientSession, name: str, file: ListFile, target: _Partial) -> None:
        """One request for the rest of a file; what comes is kept, also where it ends early."""
        have = target.octets
        async with self._get(session, name, {"Range": f"bytes={have}-"} if have else {}) as response:
            if response.status == 416 or (response.status == 206 and not _goes_on(response, have, file.octets)):
                # What is here is not of what is there.
                target.begin_anew()
                raise _FetchError(f"{file.name}: the server has another file than its manifest says")
            if response.status not in (200, 206):
                raise _failure(response)
            if response.status == 200 and have:
                # Ranges are a server's to ignore (RFC 9110 14.2).
                target.begin_anew()
            _check_plain(response)
            if response.content_length is not None and response.content_length != file.octets - target.octets:
                target.begin_anew()
                raise _FetchError(f"{file.name}: another length than its manifest says")
            waiting = bytearray()
            try:
                async for piece in response.content.iter_any():
                    waiting += piece
                    self.counts["octets"] += len(piece)
                    if target.octets + len(waiting) > file.octets:
                        waiting.clear()
                        target.begin_anew()
                        raise _FetchError(f"{file.name}: longer than its manifest says")
                    if len(waiting) >= _WAITING:
                        await asyncio.to_thread(target.put, bytes(waiting))
                        waiting.clear()
            finally:
                # Not much: no wait that a cancellation could come into.
                target.put(bytes(waiting))

    # Small answers.

    async def _ask_current(self, session: aiohttp.ClientSession) -> _Current:
        known = {"If-None-Match": self._etag} if self._etag and self._current else {}
        async with asyncio.timeout(4 * self._settings.stall):
            async with self._get(session, "current", known) as response:
                if response.status == 304 and self._current is not None:
                    self.counts["unchanged"] += 1
                    return self._current
                told = await _read_small(response, _LONGEST_CURRENT)
                etag = response.headers.get("ETag", "")
        try:
            current = msgspec.json.decode(told, type=_Current)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _FetchError(f"current: {error}") from error
        self._current, self._etag = current, etag[:256]
        return current

    async def _small(self, session: aiohttp.ClientSession, name: str, most: int) -> bytes:
        async with asyncio.timeout(4 * self._settings.stall):
            async with self._get(session, name, {}) as response:
                return await _read_small(response, most)

    @asynccontextmanager
    async def _get(
        self, session: aiohttp.ClientSession, name: str, more: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer, its body not read yet."""
        headers = {"Accept-Encoding": "identity", **more}
        if self._settings.token:
            headers["Authorization"] = f"Bearer {self._settings.token}"
        # A server may send interim answers (RFC 9110 15.2) without end, and is never silent then.
        async with asyncio.timeout(4 * self._settings.stall):
            url = f"{self._settings.url}/v1/{name}"
            response = await session.get(url, headers=headers, allow_redirects=False)
        async with response:
            yield response


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def _read_small(response: aiohttp.ClientResponse, most: int) -> bytes:
    if response.status != 200:
        raise _failure(response)
    _check_plain(response)
    read = bytearray()
    while part := await response.content.read(most + 1 - len(read)):
        read += part
        if len(read) > most:
            raise _FetchError(f"an answer of more than {most} octets")
    return bytes(read)


def _check_plain(response: aiohttp.ClientResponse) -> None:
    """Ends what is compressed on its way: lengths and sums are of files as they are."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _FetchError("an answer is compressed, which was not asked for")


def _goes_on(response: aiohttp.ClientResponse, have: int, octets: int) -> bool:
    """Whether a 206 is the rest of a file that is so long, from where it was asked for."""
    return response.headers.get("Content-Range", "").strip() == f"bytes {have}-{octets - 1}/{octets}"


def _failure(response: aiohttp.ClientResponse) -> _FetchError:
    status = response.status
    if 300 <= status < 400:
        return _FetchError(f"HTTP {status}: a redirect, which is not followed")
    asked = response.headers.get("Retry-After", "")
    return _FetchError(f"HTTP {status}", _seconds(asked) if status in (429, 503) else 0.0, status in (404, 410))


def _seconds(retry_after: str) -> float:
    """What a Retry-After asks for (RFC 9110 10.2.3), bounded."""
    asked = 0.0
    if retry_after.isascii() and retry_after.isdigit():
        asked = float(retry_after[:10])
    elif retry_after:
        try:
            date = parsedate_to_datetime(retry_after)
            asked = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            pass
    return min(max(asked, 0.0), _LONGEST_LEFT_ALONE)
