"""TLS in front of a server that has none, and certificates for it, made by `openssl`."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from support.programs import need


class Authority:
    """A certification authority of a test's own; `file` is its certificate."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.file = directory / "ca.pem"
        self._key = directory / "ca.key"
        command = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority"]
        _openssl(*command, "-keyout", str(self._key), "-out", str(self.file))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key for a host of this name or address."""
        certificate, key, request = (self._directory / f"{name}.{end}" for end in ("pem", "key", "csr"))
        extensions = self._directory / f"{name}.ext"
        kind = "IP" if name[:1].isdigit() else "DNS"
        extensions.write_text(f"subjectAltName={kind}:{name}\n")
        command = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"]
        _openssl(*command, "-keyout", str(key), "-out", str(request))
        command = ["x509", "-req", "-days", "2", "-CA", str(self.file), "-CAkey", str(self._key), "-CAcreateserial"]
        _openssl(*command, "-in", str(request), "-out", str(certificate), "-extfile", str(extensions))
        return certificate, key


def _openssl(*arguments: str) -> None:
    made = subprocess.run([need("openssl"), *arguments], capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr


@asynccontextmanager
async def relay(to: int, certificate: tuple[Path, Path], clients: Path | None = None) -> AsyncIterator[int]:
    """Takes TLS on a free loopback port, which it gives, and hands on what is inside to another port.

    With `clients`, only clients are let in whose certificates are of that authority.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while octets := await reader.read(1 << 16):
            writer.write(octets)
            await writer.drain()
    writer.close()
