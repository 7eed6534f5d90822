"""Certificates of a laboratory, by the openssl command: a CA, the node's certificate and one that all peers show."""

from __future__ import annotations

import subprocess
from pathlib import Path

NODE = "eir.epc.mnc001.mcc001.3gppnetwork.org"
"""The node's name, where its configuration says nothing else."""
_PEERS = ("*.epc.test", "load-0001.epc.test")
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Certificates:
    """Files in PEM: `ca`, `node`, `node_key`, `peer`, `peer_key`."""

    def __init__(
        self, directory: Path, node: str = NODE, peers: tuple[str, ...] = _PEERS, address: str = "127.0.0.1"
    ) -> None:
        """Makes them, good for 30 days. Raises FileNotFoundError where openssl is not installed."""
        directory.mkdir(parents=True)
        self.ca, ca_key = directory / "ca.pem", directory / "ca.key"
        self.node, self.node_key = directory / "node.pem", directory / "node.key"
        self.peer, self.peer_key = directory / "peer.pem", directory / "peer.key"
        # RFC 5280 4.2.1.3 has an authority say that it may sign; who checks strictly takes no other.
        signs = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        _openssl(*signs, "-subj", "/CN=laboratory", "-keyout", ca_key, "-out", self.ca)
        signed: tuple[object, ...] = ("-CA", self.ca, "-CAkey", ca_key, "-addext", "basicConstraints=critical,CA:false")
        both = (
            ("node", self.node, self.node_key, f"DNS:{node},IP:{address}"),
            ("peer", self.peer, self.peer_key, ",".join(f"DNS:{name}" for name in peers)),
        )
        for name, certificate, key, names in both:
            subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={names}")
            _openssl(*signed, *subject, "-keyout", key, "-out", certificate)

    def load_arguments(self, version: str) -> tuple[object, ...]:
        """The load generator's arguments for mutual TLS of a version, `1.2` or `1.3`."""
        shown = ("--certificate", self.peer, "--key", self.peer_key)
        return ("--tls", version, "--ca", self.ca, "--server-name", NODE, *shown)

    def configuration(self, port: int) -> str:
        """The node's `[diameter.tls]`, listening on a port of loopback."""
        return (
            f'[diameter.tls]\nlisten = ["127.0.0.1:{port}"]\ncertificate_file = "{self.node}"\n'
            f'key_file = "{self.node_key}"\nca_file = "{self.ca}"\nclient_certificate = "required"\n'
        )


def _openssl(*arguments: object) -> None:
    command = ["openssl", "req", "-x509", "-days", "30", *_KEY, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)
