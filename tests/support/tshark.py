"""Wireshark's dissector: what it makes of messages, and what it remarks on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from support.pcap import PORT, write_conversations
from support.programs import need
from support.recorder import Conversation, Recorder

_REMARKED = "_ws.malformed || _ws.expert"


def dissect(capture: Path, *options: str) -> str:
    """What tshark prints about a capture."""
    command = [need("tshark"), "-r", str(capture), "-d", f"tcp.port=={PORT},diameter", *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout


def remarks(capture: Path, conversations: Iterable[Conversation]) -> tuple[list[str], list[str]]:
    """What it remarks on in conversations, apart from what a Failed-AVP holds: (of the node, of its peers).

    Writes them to `capture`. Every message must be seen as one of Diameter.
    """
    messages = [conversation.messages() for conversation in conversations]
    count = sum(map(len, messages))
    assert count
    write_conversations(capture, messages)
    assert len(dissect(capture, "-Y", "diameter").splitlines()) == count
    fields = ("-T", "fields", "-E", "aggregator=|", "-e", "diameter.cmd.code", "-e", "_ws.expert.message")
    of_node, of_peers = (
        dissect(capture, "-Y", f"({_REMARKED}) && {side}", *fields).splitlines()
        for side in (f"tcp.srcport == {PORT} && !diameter.Failed-AVP", f"tcp.dstport == {PORT}")
    )
    return of_node, of_peers


def sees_nothing_wrong(directory: Path, *recorders: Recorder) -> None:
    """Fails where it remarks on anything that either side of these recorders said."""
    conversations = [conversation for recorder in recorders for conversation in recorder.conversations]
    assert remarks(directory / "conversations.pcap", conversations) == ([], [])
