"""OTP's diameter application as an MME, by the modules in `otp`, which the test compiles; on the loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.peer_program import PATIENCE, PeerProgram
from support.programs import lacking, need
from support.redis import free_port

_OWN = Path(__file__).with_name("otp")
# The dictionary's module is made without files of headers, which Debian's package leaves out.
_BUILD = """
{ok, [Forms]} = diameter_make:codec("s13.dia", [return, forms]),
{ok, s13, Beam} = compile:forms(Forms, []),
ok = file:write_file("s13.beam", Beam),
{ok, s13_mme} = compile:file("s13_mme.erl", [warnings_as_errors, report]),
halt().
"""
_VERSION = """
ok = application:load(diameter), {ok, Version} = application:get_key(diameter, vsn),
io:format("OTP ~s, diameter ~s~n", [erlang:system_info(otp_release), Version]), halt().
"""


def _erl(code: str, directory: Path) -> str:
    command = [need("erl"), "-noshell", "-noinput", "-eval", " ".join(code.split())]
    made = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120)
    if "{undef,[{diameter_make" in made.stdout + made.stderr:
        lacking("Erlang's diameter application (erlang-diameter) is not installed")
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout


def version(directory: Path) -> str:
    """As it tells it itself."""
    return _erl(_VERSION, directory).strip()


class OtpDiameter(PeerProgram):
    """One MME: connects to `to`, or where there is none listens. Nothing runs before `start`."""

    def __init__(
        self,
        directory: Path,
        name: str,
        asks: str,
        to: tuple[str, int] | None = None,
        tw: int = 30,
        tls: Sequence[str | Path] = ("none",),
        listens: int = 0,
    ) -> None:
        """`asks`: the realm of the EIR; `tw`: seconds, at least 6; `tls`: as `otp/s13_mme.erl` has it."""
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(directory / "otp.log")
        self.name = name
        self.port = listens or (free_port() if to is None else 0)
        """Where it listens."""
        for source in _OWN.iterdir():
            (directory / source.name).write_text(source.read_text())
        _erl(_BUILD, directory)
        self._to = to
        self._arguments = (name, asks), (str(tw * 1000), *map(str, tls))

    def start(self) -> None:
        """Starts it and waits until it has started; that says nothing of its peers."""
        kind, port = ("listen", self.port) if self._to is None else ("connect", self._to[1])
        first, last = self._arguments
        run = "s13_mme:main(init:get_plain_arguments())."
        self.run([need("erl"), "-noshell", "-eval", run, "-extra", *first, kind, str(port), *last], "S13 ready ")

    def stop(self) -> int:
        """Has it disconnect and end, by the end of its input, and returns its exit code."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(PATIENCE)
