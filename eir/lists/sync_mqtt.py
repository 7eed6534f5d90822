"""Deltas from an MQTT 5 broker, as the national database publishes them.

The topic `eir/COUNTRY/deltas` with QoS 1 and a session that the broker keeps, so that what is published while this node
is away comes later. A message is msgpack (docs/wire-format.md): a manifest, its signature and, unless they are too
long, the files. What comes without its files, or is missing in between since a crash or a full broker has lost it, is
somebody else's to fetch: `behind` is called. Broker, repeats, old messages and other people's are all survived.

Called by `app`; brings packages to the `Receiver` and decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from typing import Final

import aiomqtt
import msgspec
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from eir.lists import manifest as manifests
from eir.lists.manifest import ManifestError
from eir.lists.package import Package, Receiver, Result
from eir.lists.pieces import write
from eir.lists.source_settings import MqttSettings
from eir.log import Log

SOURCE: Final = "mqtt"
MAX_MESSAGE: Final = 1 << 20
"""Octets of the longest message that the broker is to send."""
MAX_WAITING: Final = 16 << 20
"""Octets of messages that wait here at most."""
_RECEIVE_MAXIMUM: Final = 16
_SESSION_SECONDS: Final = 7 * 86400
_LONGEST_PAUSE: Final = 60.0

log = Log(__name__)
_quiet = logging.getLogger(f"{__name__}.client")
# What it says of single messages, the counts say.
_quiet.setLevel(logging.ERROR)


class _OverflowError(Exception):
    """Messages came that there was no place for: they are not acknowledged, and come again with another connection."""


class _Waiting(asyncio.Queue[aiomqtt.Message]):
    """Messages that wait, bounded: not every broker keeps to the number that it was told (Mosquitto 2.0.11 does not).

    After one that found no place none is taken any more, so that they stay in their order.
    """

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._octets = 0
        self._full = False

    def put_nowait(self, message: aiomqtt.Message) -> None:
        octets = _length(message)
        self._full = self._full or (not self.empty() and self._octets + octets > MAX_WAITING)
        if self._full:
            raise asyncio.QueueFull
        self._octets += octets
        super().put_nowait(message)

    def get_nowait(self) -> aiomqtt.Message:
        message = super().get_nowait()
        self._octets -= _length(message)
        return message

    def is_over(self) -> bool:
        """Whether all that found a place are out, and some did not."""
        return self._full and self.empty()


def _length(message: aiomqtt.Message) -> int:
    return len(message.payload) + 1024


class _Message(msgspec.Struct, frozen=True):
    manifest: bytes
    signature: bytes
    files: dict[str, bytes] | None = None


class MqttSource:
    """The subscription. `behind` is called when deltas are missing here that must be fetched elsewhere."""

    def __init__(
        self,
        settings: MqttSettings,
        receiver: Receiver,
        behind: Callable[[], None],
        random: Callable[[], float],
    ) -> None:
        self.connected = False
        self.messages: Counter[str] = Counter()
        """Messages by what became of them: the results of packages, "unreadable", "without files"; "overflows"."""
        self.error: str | None = None
        """Why there is no connection; empty where there is one, None before there was a first."""
        self._client_now: aiomqtt.Client | None = None
        self._settings = settings
        self._receiver = receiver
        self._behind = behind
        self._random = random

    def renew(self, settings: MqttSettings) -> None:
        """Has it connect with other settings the next time: a password or certificate that was changed."""
        self._settings = settings

    async def run(self) -> None:
        """Connects, and again after growing pauses. Never returns."""
        pause = 1.0
        while True:
            try:
                async with self._client() as client:
                    pause = 1.0
                    await self._follow(client)
            except _OverflowError:
                self.messages["overflows"] += 1
                continue
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                if not self.error:
                    log.error("no connection to the broker of lists", error=str(error))
                self.error = str(error) or type(error).__name__
            finally:
                self.connected, self._client_now = False, None
            # Jitter: all nodes of a country have the same broker.
            await asyncio.sleep(pause * (0.5 + self._random()))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def report(self, octets: bytes) -> None:
        """Publishes a report upward, and returns when the broker has it. Raises OSError where it has not."""
        client, settings = self._client_now, self._settings
        if client is None:
            raise ConnectionError("no connection to the broker of lists")
        try:
            await client.publish(f"eir/{settings.country}/reports/{settings.client_id}", octets, qos=1, timeout=10.0)
        except (aiomqtt.MqttError, ValueError) as error:
            raise ConnectionError(str(error)) from error

    def _client(self) -> aiomqtt.Client:
        settings = self._settings
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = _SESSION_SECONDS
        properties.ReceiveMaximum = _RECEIVE_MAXIMUM
        properties.MaximumPacketSize = MAX_MESSAGE
        client = aiomqtt.Client(
            settings.host,
            settings.port,
            username=settings.username,
            password=settings.password,
            identifier=settings.client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=properties,
            keepalive=settings.keepalive,
            timeout=10.0,
            tls_context=settings.tls,
            queue_type=_Waiting,
            logger=_quiet,
        )
        # aiomqtt has no word for it (its issue 345): without, a message is acknowledged before it is looked at.
        client._client.manual_ack_set(True)
        return client

    async def _follow(self, client: aiomqtt.Client) -> None:
        # Also where the broker has kept the session: it may be another broker.
        await client.subscribe(f"eir/{self._settings.country}/deltas", options=SubscribeOptions(qos=1))
        self.connected, self.error, self._client_now = True, "", client
        log.info("following the broker of lists")
        # What was published before there was a session is nowhere in it.
        self._behind()
        async for message in client.messages:
            payload = message.payload
            await self.take(payload if isinstance(payload, bytes) else b"")
            # Now it is durable, or of no use; a node that ends before gets it again.
            client._client.ack(message.mid, message.qos)
            if isinstance(client._queue, _Waiting) and client._queue.is_over():
                raise _OverflowError("more came than was to be sent at once")

    async def take(self, payload: bytes) -> None:
        """One message. Whatever is in it, that raises nothing; OSError where it cannot be staged."""
        try:
            package = await asyncio.to_thread(self._unpack, payload)
        except ManifestError as error:
            self.messages["unreadable"] += 1
            log.warning("a message of the broker of lists is not readable", error=str(error))
            return
        if package is None:
            self.messages["without files"] += 1
            self._behind()
            return
        outcome = await self._receiver.offer(package, SOURCE)
        self.messages[outcome.result.value] += 1
        if outcome.result is Result.GAP:
            self._behind()

    def _unpack(self, payload: bytes) -> Package | None:
        """The package of a message; None where its files must be fetched. Raises ManifestError, OSError."""
        read = _read(payload)
        manifest, files = manifests.parse(read.manifest), read.files or {}
        if read.files is None and manifest.files:
            return None
        staged = self._receiver.staging()
        try:
            known = self._receiver.place(manifest)
            # What is known already is not worth the disk's time; what is not taken now may be when it is offered.
            if known is None or known.result is not Result.KNOWN:
                for entry in manifest.files:
                    if entry.name not in files:
                        raise ManifestError(f"{entry.name} is not in the message")
                    write(staged / entry.name, files[entry.name])
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
        return Package(manifest, read.manifest, read.signature, staged)


def _read(payload: bytes) -> _Message:
    if len(payload) > MAX_MESSAGE:
        raise ManifestError("the message is too long")
    try:
        return msgspec.msgpack.decode(payload, type=_Message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"no message of deltas: {error}") from error
