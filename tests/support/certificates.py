"""A certification authority of a test's own and certificates for its peers, sound and unsound; made by `openssl`."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.programs import need

_CONFIG = """
[ca]
default_ca = own
[own]
database = {directory}/index.txt
new_certs_dir = {directory}/issued
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
"""


class Authority:
    """A certification authority; `file` is its certificate."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        (directory / "issued").mkdir(parents=True, exist_ok=True)
        (directory / "index.txt").touch()
        self._directory = directory
        self._config = directory / "ca.cnf"
        self._config.write_text(_CONFIG.format(directory=directory))
        self.file = directory / "ca.pem"
        self._key = directory / "ca.key"
        command = ["req", "-x509", "-days", "2", *_NEW_KEY, "-subj", f"/CN={name}"]
        _openssl(*command, "-keyout", str(self._key), "-out", str(self.file))

    def issue(self, *names: str, valid: tuple[int, int] = (-1, 2)) -> tuple[Path, Path]:
        """Certificate and key for a host of these names or addresses; `valid`: from and until which day from now.

        With no names the certificate has no subjectAltName.
        """
        stem = f"{names[0] if names else 'nameless'}.{valid[0]}.{valid[1]}"
        certificate, key, request = (self._directory / f"{stem}.{end}" for end in ("pem", "key", "csr"))
        command = ["req", "-new", *_NEW_KEY, "-subj", f"/CN={names[0] if names else 'nameless'}"]
        _openssl(*command, "-keyout", str(key), "-out", str(request))
        extensions = self._directory / f"{stem}.ext"
        alternatives = ",".join(f"{'IP' if name[:1].isdigit() else 'DNS'}:{name}" for name in names)
        extensions.write_text("basicConstraints=CA:FALSE\n" + (f"subjectAltName={alternatives}\n" if names else ""))
        start, end = (f"{datetime.now(UTC) + timedelta(days=days):%Y%m%d%H%M%SZ}" for days in valid)
        command = ["ca", "-batch", "-notext", "-config", str(self._config), "-startdate", start, "-enddate", end]
        own = ["-cert", str(self.file), "-keyfile", str(self._key), "-extfile", str(extensions)]
        _openssl(*command, *own, "-in", str(request), "-out", str(certificate))
        return certificate, key


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl(*arguments: str) -> None:
    made = subprocess.run([need("openssl"), *arguments], capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
