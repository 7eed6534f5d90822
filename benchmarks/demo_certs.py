"""Certificates for a laboratory: `make demo-certs`, or `python -m benchmarks.demo_certs --node NAME --peer NAME`.

Not for a network: the authority's key lies beside what it has vouched for.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from benchmarks.certificates import NODE, Certificates

DIRECTORY = Path("build/certs")
_MADE = {f"{name}.{end}" for name in ("ca", "node", "peer") for end in ("pem", "key")}


def main() -> int:
    """Makes them and says what to do with them; the exit status."""
    parser = argparse.ArgumentParser(description="Make an authority, a certificate for the node and one for peers.")
    parser.add_argument("--node", default=NODE, help="the node's Origin-Host")
    parser.add_argument("--peer", action="append", help="a peer's Origin-Host, also *.REALM; may be given again")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="where to; certificates of before go away")
    given = parser.parse_args()
    if shutil.which("openssl") is None:
        print("openssl is not installed", file=sys.stderr)
        return 1
    # Whose directory it is cannot be told by its having a ca.pem: everything in it is to be of this program's making.
    if given.directory.exists() and {path.name for path in given.directory.iterdir()} - _MADE:
        print(f"{given.directory} holds something else", file=sys.stderr)
        return 1
    shutil.rmtree(given.directory, ignore_errors=True)
    made = Certificates(given.directory.absolute(), given.node, tuple(given.peer or ("*.epc.test",)))
    print(f"For the node, in its configuration:\n\n{made.configuration(5658)}")
    print("For peers: ca.pem, peer.pem and peer.key beside them. To try it:\n")
    print(
        f"openssl s_client -connect 127.0.0.1:5658 -CAfile {made.ca} -cert {made.peer} -key {made.peer_key} "
        f"-verify_hostname {given.node}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
