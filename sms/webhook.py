"""The way out by HTTP: one POST of JSON for each message, which the service cuts and sends by itself.

Once there is a connection for a request, the request counts as written: whatever goes wrong from there on leaves it
open whether the service has the message. The Idempotency-Key is the same each time that a message is submitted, so
that a service that knows it takes the message once.

No number, text, token or URL gets into logs or errors.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections import Counter
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import aiohttp

from sms.gateway import Accepted, NotTakenError, OnReceipt, Part, RefusedError, Slot, UnansweredError
from sms.settings import WebhookSettings
from sms.slots import Slots

_LONGEST_ANSWER: Final = 64 << 10
_AGAIN_SECONDS: Final = 5.0
_LONGEST_WAIT: Final = 3600.0
"""Seconds for which a service may ask to be left alone."""
_BUSY: Final = frozenset({429, 503})
_NOT_OF_THE_MESSAGE: Final = frozenset({401, 408})
"""These say that our token is not right or that we were slow, and nothing about the message."""


class WebhookGateway:
    """Hands whole messages to an HTTP service."""

    whole = True

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._slots = Slots(self._submit, settings.concurrency, settings.rate)
        self._counts: Counter[str] = Counter()
        self._leave_alone_until = 0.0
        self._error = ""

    async def start(self, on_receipt: OnReceipt) -> None:
        """Connects to nothing yet. No receipts come by this way."""
        self._loop = asyncio.get_running_loop()
        try:
            context = ssl.create_default_context(cafile=self._settings.ca_file or None)
        except OSError as error:
            # As with all that can be put right while the node runs: said in the status, and tried at each message.
            self._error = f"ca_file: {error.strerror or type(error).__name__}"
            return
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        connected = aiohttp.TraceConfig()
        connected.on_connection_create_end.append(_mark_connected)
        connected.on_connection_reuseconn.append(_mark_connected)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=context),
            timeout=aiohttp.ClientTimeout(
                total=self._settings.timeout + self._settings.connect_timeout,
                sock_connect=self._settings.connect_timeout,
                sock_read=self._settings.timeout,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trace_configs=[connected],
        )

    def take(self) -> Slot | None:
        """A turn, if there is one now."""
        return self._slots.take()

    async def room(self) -> None:
        """Waits until there may be a turn. Raises NotTakenError while the service wants to be left alone."""
        self._check_left_alone()
        await self._slots.room()

    def _check_left_alone(self) -> None:
        if (left := self._leave_alone_until - asyncio.get_running_loop().time()) > 0:
            raise NotTakenError("asked to wait", left)

    async def _submit(self, part: Part) -> Accepted:
        """Posts one message."""
        if self._session is None:
            await self.start(lambda _: None)
        if self._session is None:
            raise NotTakenError("ca_file", _AGAIN_SECONDS)
        self._check_left_alone()
        return await self._post(self._session, part)

    async def _post(self, session: aiohttp.ClientSession, part: Part) -> Accepted:
        name = self._settings.name
        key = hashlib.sha256(json.dumps([part.to, part.text, part.reference]).encode()).hexdigest()[:32]
        headers = {"Idempotency-Key": key, "Accept-Encoding": "identity", **self._authorization()}
        message = {"id": key, "to": part.to, "text": part.text, "parts": part.weight}
        progress = SimpleNamespace(connected=False)
        self._counts["submitted"] += 1
        try:
            async with session.post(
                self._settings.url, json=message, headers=headers, allow_redirects=False, trace_request_ctx=progress
            ) as response:
                await _read(response)
                status, retry_after = response.status, response.headers.get("Retry-After", "")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # OSError has TimeoutError in it. No error's own text: it may have the URL in it.
            reason = "timeout" if isinstance(error, TimeoutError) else type(error).__name__
            self._error = reason
            if progress.connected:
                self._counts["unanswered"] += 1
                raise UnansweredError(name, reason) from None
            self._counts["not_taken"] += 1
            raise NotTakenError(reason, _AGAIN_SECONDS) from None
        return self._judge(status, retry_after)

    def _judge(self, status: int, retry_after: str) -> Accepted:
        name, reason = self._settings.name, f"HTTP {status}"
        if 200 <= status < 300:
            self._counts["accepted"] += 1
            self._error = ""
            return Accepted(name, "")
        self._error = reason
        if status in _BUSY:
            after = _seconds(retry_after)
            self._leave_alone_until = self._loop.time() + after
            self._counts["throttled"] += 1
            raise NotTakenError(reason, after)
        if status in _NOT_OF_THE_MESSAGE:
            self._counts["not_taken"] += 1
            raise NotTakenError(reason, _AGAIN_SECONDS)
        if status >= 500:
            self._counts["unanswered"] += 1
            raise UnansweredError(name, reason)
        self._counts["refused"] += 1
        raise RefusedError(name, reason)

    def _authorization(self) -> dict[str, str]:
        """The token as it is in its file now. Raises NotTakenError."""
        if not self._settings.token_file:
            return {}
        try:
            token = Path(self._settings.token_file).read_text().partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError):
            raise NotTakenError("token_file", _AGAIN_SECONDS) from None
        if not (token.isascii() and token.isprintable()):
            raise NotTakenError("token_file", _AGAIN_SECONDS)
        return {"Authorization": f"Bearer {token}"}

    def status(self) -> list[dict[str, object]]:
        """The service's state and counts."""
        waits = self._session is not None and self._leave_alone_until > self._loop.time()
        names = ("submitted", "accepted", "refused", "unanswered", "throttled", "not_taken")
        return [
            {
                "name": self._settings.name,
                "state": "backing-off" if waits else "failing" if self._error else "bound",
                "error": self._error,
                **{name: self._counts[name] for name in names},
                "rate": self._settings.rate,
            }
        ]

    async def close(self) -> None:
        """Ends connections."""
        if self._session is not None:
            await self._session.close()


async def _mark_connected(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
    context.trace_request_ctx.connected = True


async def _read(response: aiohttp.ClientResponse) -> None:
    """Reads the body, of which nothing is needed, so that the connection can be used again; not a long one."""
    left = _LONGEST_ANSWER
    while left > 0 and (chunk := await response.content.read(left)):
        left -= len(chunk)


def _seconds(retry_after: str) -> float:
    """What a Retry-After asks for (RFC 9110 10.2.3), bounded."""
    asked = _AGAIN_SECONDS
    if retry_after.isascii() and retry_after.isdigit():
        asked = float(retry_after[:10])
    elif retry_after:
        try:
            date = parsedate_to_datetime(retry_after)
            asked = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            pass
    return min(max(asked, 1.0), _LONGEST_WAIT)
