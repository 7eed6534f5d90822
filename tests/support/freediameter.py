"""freeDiameter of a test's own: a relay, or an MME by the extension `freediameter_s13.c`; on a free loopback port.

It is ended by SIGTERM, on which it disconnects from its peers.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.certificates import Authority
from support.peer_program import PeerProgram
from support.programs import lacking, need
from support.redis import free_port

_OWN = Path(__file__).parent
_NOWHERE = "203.0.113.1"
"""An address of no machine, for freeDiameter to name in its CER; `freediameter_loopback.c` tells why."""
_DICTIONARIES = ("nasreq", "rfc5777", "mip6i", "dcca", "dcca_3gpp")
_DH = ("genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048")
"""A group that is known, for it would take seconds to make one."""


def compile_c(source: str, directory: Path) -> Path:
    """A file of this directory as a shared object in `directory`."""
    target = (directory / source).with_suffix(".so")
    command = [need("gcc"), "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(target), str(_OWN / source)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "freeDiameter/extension.h: No such file" in made.stderr:
        lacking("the headers of freeDiameter (libfreediameter-dev) are not installed")
    assert made.returncode == 0, made.stderr
    return target


def version() -> str:
    """As it prints it itself."""
    told = subprocess.run([need("freeDiameterd"), "--version"], capture_output=True, text=True, timeout=60)
    return told.stdout.splitlines()[0]


@dataclass(frozen=True, slots=True)
class Target:
    """A peer to connect to. `tls`: "none", "port" (before the CER) or "inband" (after it)."""

    name: str
    address: tuple[str, int]
    tls: str = "none"

    def lines(self) -> str:
        """As the configuration has it."""
        host, port = self.address
        tls = {"none": "No_TLS; ", "port": "", "inband": "TLS_old_method; "}[self.tls]
        return f'ConnectPeer = "{self.name}" {{ ConnectTo = "{host}"; Port = {port}; {tls}No_IPv6; }};\n'


_STATE = re.compile(r"'?STATE_\w+'?\s+-> '?STATE_(\w+)'?.*\s'([^']+)'$")


class FreeDiameter(PeerProgram):
    """One freeDiameter; nothing runs before `start`."""

    def __init__(
        self,
        directory: Path,
        name: str,
        *targets: Target,
        realm: str = "epc.test",
        asks: str | None = None,
        accepts: tuple[str, ...] = (),
        tw: int = 30,
        routes: tuple[str, ...] = (),
        port: int | None = None,
        credentials: tuple[Path, ...] | None = None,
    ) -> None:
        """With `asks`, the realm of an EIR, it is an MME and no relay. `accepts`: names of peers, "*.suffix" too.

        `routes`: names of peers to which requests go; the targets where none are given.
        `credentials`: certificate, key and the authorities that it trusts, of which it wants its own to be one; where
        none are given they make no difference.
        """
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory / "freediameter.log")
        self.name = name
        self.port = port or free_port()
        self._config = directory / "freediameter.conf"
        self._loopback = compile_c("freediameter_loopback.c", directory)
        if credentials is None:
            authority = Authority(directory / "authority")
            credentials = (*authority.issue(name), authority.file)
        certificate, key, *trusted = credentials
        group = directory / "dh.pem"
        subprocess.run([need("openssl"), *_DH, "-out", str(group)], check=True, capture_output=True, timeout=60)
        allowed = directory / "allowed"
        allowed.write_text("".join(f"ALLOW_IPSEC {peer}\n" for peer in accepts))
        extensions = [f"dict_{each}.fdx" for each in _DICTIONARIES]
        lines = [f'LoadExtension = "{each}";\n' for each in extensions]
        if asks is not None:
            extension = compile_c("freediameter_s13.c", directory)
            lines.append(f'LoadExtension = "{extension}" : "{asks}";\nNoRelay;\n')
        routes = routes or tuple(target.name for target in targets)
        if routes:
            # By itself it sends a request to any peer of the realm that offers the application, to another MME too,
            # and to none of another realm.
            rules = directory / "routes"
            rules.write_text("".join(f'* : "{route}" += 50 ;\n' for route in routes))
            lines.append(f'LoadExtension = "rt_default.fdx" : "{rules}";\n')
        if accepts:
            lines.append(f'LoadExtension = "acl_wl.fdx" : "{allowed}";\n')
        self._config.write_text(
            f'Identity = "{name}"; Realm = "{realm}"; Port = {self.port}; SecPort = 0; ListenOn = "{_NOWHERE}";\n'
            f'No_SCTP; No_IPv6; TLS_Cred = "{certificate}", "{key}";\n'
            f'TLS_DH_File = "{group}"; '
            f"TcTimer = 1; TwTimer = {tw}; AppServThreads = 2;\n"
            + "".join(f'TLS_CA = "{authority}";\n' for authority in trusted)
            + "".join(lines)
            + "".join(target.lines() for target in targets)
        )

    @property
    def address(self) -> tuple[str, int]:
        """Where its clients connect to."""
        return "127.0.0.1", self.port

    def is_open(self, peer: str) -> bool:
        """Whether it may send to that peer.

        It tells its extension of a connection that it takes up again before it does so: not before it has had answers
        to its watchdog (RFC 3539 3.4.1, REOPEN). Its log tells of states.
        """
        states = [found for found in map(_STATE.search, self.text().splitlines()) if found and found[2] == peer]
        return bool(states) and states[-1][1] == "OPEN"

    def start(self) -> None:
        """Starts it and waits until it has started; that says nothing of its peers."""
        environment = {"LD_PRELOAD": str(self._loopback)}
        self.run([need("freeDiameterd"), "-c", str(self._config)], "freeDiameterd daemon initialized", environment)
