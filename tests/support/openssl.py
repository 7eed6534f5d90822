"""`openssl s_client` as the TLS below a Diameter client: the handshake is OpenSSL's, what goes over it the client's."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from support.diameter import PATIENCE, Client
from support.programs import need


def version() -> str:
    """As it prints it itself."""
    told = subprocess.run([need("openssl"), "version"], capture_output=True, text=True, timeout=60)
    return " ".join(told.stdout.split()[:2])


class TlsClient(Client):
    """A connection by `s_client`, which ends with it; the handshake may still be going on, or have failed.

    `certificate`: certificate and key of the client; `options`: more of `s_client`'s own.
    """

    def __init__(
        self,
        address: tuple[str, int],
        host: str,
        trusted: Path,
        certificate: tuple[Path, Path] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        ours, theirs = socket.socketpair()
        command = [need("openssl"), "s_client", "-quiet", "-connect", f"{address[0]}:{address[1]}", *options]
        command += ["-CAfile", str(trusted), "-verify_return_error"]
        if certificate is not None:
            command += ["-cert", str(certificate[0]), "-key", str(certificate[1])]
        with theirs:
            self._process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.PIPE, text=True
            )
        super().__init__(ours, host)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._process.poll() is None:
            self._process.terminate()
        self._process.communicate(timeout=PATIENCE)

    def failure(self) -> str:
        """What it said, once the connection is over."""
        _, errors = self._process.communicate(timeout=PATIENCE)
        return errors

    def send(self, data: bytes) -> None:
        """Sends octets; into nothing, where the handshake has failed."""
        try:
            super().send(data)
        except BrokenPipeError:
            self._process.wait(PATIENCE)
