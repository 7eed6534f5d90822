"""`make demo-certs`: what it makes is good for TLS, and its keys are their owner's alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.programs import need

ROOT = Path(__file__).parents[2]


def make(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.demo_certs", "--directory", str(directory), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_node_and_peer_are_vouched_for(tmp_path: Path) -> None:
    openssl = need("openssl")
    directory = tmp_path / "certs"
    for _ in range(2):
        made = make(directory, "--node", "eir.lab.test", "--peer", "mme.lab.test")
        assert made.returncode == 0, made.stderr
    for name, host in (("node", "eir.lab.test"), ("peer", "mme.lab.test")):
        command = [openssl, "verify", "-x509_strict", "-CAfile", str(directory / "ca.pem"), "-verify_hostname", host]
        subprocess.run([*command, str(directory / f"{name}.pem")], check=True, capture_output=True)
    for key in directory.glob("*.key"):
        assert key.stat().st_mode & 0o077 == 0
    assert f'certificate_file = "{directory / "node.pem"}"' in made.stdout
    assert "[diameter.tls]" in made.stdout


def test_what_is_something_else_is_left_alone(tmp_path: Path) -> None:
    need("openssl")
    for mine in ("mine", "ca.pem"):
        (tmp_path / mine).write_text("mine")
        assert make(tmp_path).returncode == 1
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"mine": "mine", "ca.pem": "mine"}
