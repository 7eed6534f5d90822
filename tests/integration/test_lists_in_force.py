"""Lists that come into a running node by hand: imported, refused, approved, gone back from, there after a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import lists
from support.cli import Ran, eir
from support.node import MakeNode, NodeProcess, until

SIGNED = ("--reason", "test", "--agent", "tester")
CHANGES = "change_type,imei,list,reason,until\n"


@pytest.fixture
def node(make_node: MakeNode) -> NodeProcess:
    return make_node({"lists": {"ignored": 2, "max_turned_black": 1}})


def imported(node: NodeProcess, text: str, *options: str, kind: str = "devices") -> Ran:
    path = node.config.with_name("import.csv")
    path.write_text(text)
    return eir("lists", "import", f"--{kind}", path, *options, *SIGNED, "-c", node.config)


def change(node: NodeProcess, rows: str, *options: str) -> Ran:
    return imported(node, CHANGES + rows, "--delta", *options)


def sequence(node: NodeProcess) -> Any:
    return node.ask("status")["position"]["sequence"]


def snapshot_of(*rows: str) -> str:
    return "imei,list,reason\n" + "".join(f"{row}\n" for row in rows)


def test_a_delta_is_in_force_at_once_and_after_a_restart(node: NodeProcess) -> None:
    device = lists.new_devices(3)[2]
    with node.peer() as peer:
        assert peer.check(lists.BLACK) == "black"
        ran = change(node, f"set,{lists.BLACK},white,,\nset,{device},black,stolen,\nremove,{lists.WHITE},,,\n")
        assert ran.code == 0, ran.err
        assert "sequence 2 is in force: 3 devices and 0 pairs change" in ran.out
        assert [peer.check(imei) for imei in (lists.BLACK, device)] == ["white", "black"]
        assert peer.check(lists.WHITE) == "grey"
    assert sequence(node) == 2
    node.kill()
    node.start()
    with node.peer() as peer:
        assert [peer.check(imei) for imei in (lists.BLACK, device)] == ["white", "black"]
    assert sequence(node) == 2
    metrics = node.metrics()
    assert (metrics["eir_lists_sequence"], metrics["eir_lists_snapshot_sequence"]) == (2, 1)
    assert (metrics["eir_lists_deltas"], metrics["eir_lists_delta_devices"]) == (1, 3)


def test_pairs_come_and_go(node: NodeProcess) -> None:
    rows = f"change_type,imei,imsi\nset,{lists.BLACK},{lists.SUBSCRIBER}\nremove,{lists.CLONED},{lists.HOLDER}\n"
    with node.peer() as peer:
        assert peer.check(lists.CLONED, lists.HOLDER) == "white"
        assert imported(node, rows, "--delta", kind="pairs").code == 0
        assert peer.check(lists.CLONED, lists.HOLDER) == "black"
        assert peer.check(lists.BLACK, lists.SUBSCRIBER) == "white"
        assert peer.check(lists.BLACK) == "black"


def given(node: NodeProcess, files: dict[str, str], *options: str) -> Ran:
    """Imports files of kinds that have no option of their own."""
    named: list[object] = []
    for kind, text in files.items():
        path = node.config.with_name(f"{kind}.csv")
        path.write_text(text)
        named += ["--file", f"{kind}={path}"]
    return eir("lists", "import", *named, *options, *SIGNED, "-c", node.config)


def test_changes_that_dirbs_gives_out_come_into_force(node: NodeProcess) -> None:
    device = lists.new_devices(1)[0]
    listed, paired = "imei,block_date,reasons", "imei,imsi,msisdn"
    files = {
        "dirbs-blocked": f"{listed}\n{device},20260101,Stolen|dup\n3520990000000A,20260101,dup\n",
        "dirbs-unblocked": f"{listed}\n{lists.BLACK},20260101,dup\n",
        "dirbs-notifications": f"{paired},block_date,reasons,change_type\n"
        f"{lists.BLACK},{lists.HOLDER},1,20000101,dup,new\n{device},{lists.HOLDER},1,20000101,dup,blacklisted\n",
        "dirbs-removed": f"{paired}\n{lists.CLONED},{lists.HOLDER},1\n",
    }
    with node.peer() as peer:
        assert peer.check(lists.CLONED, lists.HOLDER) == "white"
        ran = given(node, files, "--delta")
        assert ran.code == 0, ran.err
        assert "2 devices and 1 pairs change" in ran.out
        assert [peer.check(imei) for imei in (device, lists.CLONED)] == ["black", "black"]
        # Its day is over.
        assert peer.check(lists.BLACK, lists.HOLDER) == "black"
    assert given(node, files).code == 1


def test_lists_that_others_make_come_into_force(node: NodeProcess) -> None:
    device = lists.new_devices(1)[0]
    files = {"plain-white": f"{lists.BLACK}\n", "stolen": f"imei,reporting_date\n{device},\n"}
    with node.peer() as peer:
        ran = given(node, {**files, "gsma-tac": "TAC|Maker\n35209900|x\n"}, "--approve")
        assert "allocated TACs need --tac-as-of" in ran.err
        ran = given(node, files, "--approve")
        assert ran.code == 0, ran.err
        assert [peer.check(imei) for imei in (lists.BLACK, device)] == ["white", "black"]
    node.kill()
    node.start()
    assert sequence(node) == 2


def test_a_grey_entry_ends_with_its_day(node: NodeProcess) -> None:
    past, ahead = lists.new_devices(2)
    assert change(node, f"set,{past},grey,,20260101\nset,{ahead},grey,,20990101\n").code == 0
    with node.peer() as peer:
        assert (peer.check(past), peer.check(ahead)) == ("black", "grey")
    told = eir("check", past, "--explain", "-c", node.config).out
    assert "2026-01-02 00:00:00" in told or "2026-01-01" in told, told


def test_all_lists_anew(node: NodeProcess) -> None:
    assert change(node, f"set,{lists.BLACK},white,,\n").code == 0
    text = snapshot_of(f"{lists.BLACK},black,stolen", f"{lists.WHITE},white,", f"{lists.CLONED},black,")
    refused = imported(node, text, "--sequence", "2")
    assert refused.code == 1
    assert "known: sequence 2 is in force" in refused.err
    assert imported(node, text, "--sequence", "7").code == 0
    with node.peer() as peer:
        assert (peer.check(lists.BLACK), peer.check(lists.WHITE)) == ("black", "white")
        node.kill()
    node.start()
    assert sequence(node) == 7
    with node.peer() as peer:
        assert (peer.check(lists.BLACK), peer.check(lists.WHITE)) == ("black", "white")


def test_what_a_dry_run_says_changes_nothing(node: NodeProcess) -> None:
    with node.peer() as peer:
        assert peer.check(lists.WHITE) == "white"
        ran = change(node, f"set,{lists.WHITE},black,,\n", "--dry-run")
        assert ran.code == 0, ran.err
        assert "would be in force: 1 devices and 0 pairs change; 1 devices in use would turn black" in ran.out
        assert lists.WHITE in ran.out
        assert peer.check(lists.WHITE) == "white"
    assert sequence(node) == 1


def test_what_the_guard_refuses_may_be_approved(node: NodeProcess) -> None:
    used = [lists.WHITE, *lists.new_devices(2)]
    rows = "".join(f"set,{imei},black,,\n" for imei in used)
    with node.peer() as peer:
        for imei in used:
            peer.check(imei)
        refused = change(node, rows)
        assert refused.code == 1
        assert "3 devices in use would turn black, where 1 may" in refused.err
        assert peer.check(lists.WHITE) == "white"
        again = change(node, rows)
        assert again.code == 1
        told = json.loads(eir("lists", "history", "--json", "-c", node.config).out)
        assert [(one["kind"], one["sequence"]) for one in told["refused"]] == [("delta", 2)]
        approved = eir("lists", "approve", "delta", "2", *SIGNED, "-c", node.config)
        assert approved.code == 0, approved.err
        assert [peer.check(imei) for imei in used] == ["black"] * 3
    shown = eir("lists", "history", "-c", node.config).out
    assert "refused delta 2" in shown
    assert "delta 2 by approved by tester, approved" in shown
    assert "waits for" not in shown
    assert eir("lists", "approve", "delta", "2", *SIGNED, "-c", node.config).code == 1


def test_a_removal_that_turns_devices_black_is_seen(node: NodeProcess) -> None:
    within = [f"3577000010000{number}" for number in range(3)]
    assert change(node, "".join(f"set,{imei},white,,\n" for imei in within), "--approve").code == 0
    with node.peer() as peer:
        assert [peer.check(imei) for imei in within] == ["white"] * 3
        refused = change(node, "".join(f"remove,{imei},,,\n" for imei in within))
        assert refused.code == 1
        assert "3 devices in use would turn black, where 1 may" in refused.err
        assert [peer.check(imei) for imei in within] == ["white"] * 3


def test_a_rollback_stays_where_the_configured_file_is_newer(node: NodeProcess) -> None:
    assert change(node, f"set,{lists.new_devices(1)[0]},white,,\n").code == 0
    assert eir("lists", "rollback", "1", *SIGNED, "-c", node.config).code == 0
    node.put_lists(sequence=9)
    node.kill()
    node.start()
    assert sequence(node) == 1
    assert eir("lists", "follow", *SIGNED, "-c", node.config).code == 0
    node.kill()
    node.start()
    assert sequence(node) == 9


def test_a_list_that_shrinks_is_refused(node: NodeProcess) -> None:
    assert change(node, "".join(f"set,{imei},white,,\n" for imei in lists.new_devices(40)), "--approve").code == 0
    refused = imported(node, snapshot_of(f"{lists.WHITE},white,"))
    assert refused.code == 1
    assert "the white list would shrink from 41 to 1 devices" in refused.err
    assert "the black list would shrink from 3 to 0 devices" in refused.err
    empty = imported(node, snapshot_of())
    assert "there is no device in it" in empty.err
    with node.peer() as peer:
        assert peer.check(lists.new_devices(1)[0]) == "white"
    assert node.metrics()["eir_lists_sequence"] == 2


def test_back_to_an_earlier_state_and_on_again(node: NodeProcess) -> None:
    first, second, third = lists.new_devices(3)
    assert imported(node, snapshot_of(f"{first},white,", f"{lists.BLACK},black,"), "--approve").code == 0
    for imei in (second, third):
        assert change(node, f"set,{imei},black,,\n").code == 0
    assert sequence(node) == 4
    assert "nothing of sequence 0 is kept" in eir("lists", "rollback", "0", *SIGNED, "-c", node.config).err
    back = eir("lists", "rollback", "3", *SIGNED, "-c", node.config)
    assert back.code == 0, back.err
    with node.peer() as peer:
        assert [peer.check(imei) for imei in (first, second, third)] == ["white", "black", "grey"]
    node.kill()
    node.start()
    assert sequence(node) == 3
    assert node.metrics()["eir_lists_held"] == 1
    assert eir("lists", "follow", *SIGNED, "-c", node.config).code == 0
    assert node.metrics()["eir_lists_held"] == 0
    assert change(node, f"set,{second},white,,\n").code == 0
    node.kill()
    node.start()
    with node.peer() as peer:
        assert [peer.check(imei) for imei in (first, second)] == ["white", "white"]
    assert sequence(node) == 4


def test_own_entries_lie_above_and_are_shown(node: NodeProcess) -> None:
    assert eir("lists", "own", "add", lists.WHITE, "black", *SIGNED, "-c", node.config).code == 0
    assert change(node, f"set,{lists.WHITE},white,,\n").code == 0
    with node.peer() as peer:
        assert peer.check(lists.WHITE) == "black"
        (entry,) = json.loads(eir("lists", "own", "list", "--json", "-c", node.config).out)
        assert (entry["imei"], entry["list"], entry["reason"]) == (lists.WHITE, "black", "test")
        assert entry["agent"] == "tester"
        assert "tester" in eir("lists", "own", "list", "-c", node.config).out
        assert eir("lists", "own", "remove", lists.WHITE, *SIGNED, "-c", node.config).code == 0
        assert peer.check(lists.WHITE) == "white"


def test_a_replaced_imei_carries_listing_and_timer_over(node: NodeProcess) -> None:
    timed, other, *new = lists.new_devices(5)
    with node.peer() as peer:
        assert peer.check(timed, lists.SUBSCRIBER) == "grey"
        until(lambda: node.timer(timed) is not None)
        until(lambda: eir("grey", "show", timed, "-c", node.config).code == 0)
        timer = node.timer(timed)
        for old, with_it in ((timed, new[0]), (lists.WHITE, new[1]), (lists.STOLEN, new[2])):
            ran = eir("lists", "own", "replace", old, with_it, *SIGNED, "-c", node.config)
            assert ran.code == 0, ran.err
            assert peer.check(old) == "black"
        assert node.timer(new[0]) == timer
        assert [peer.check(imei) for imei in new] == ["grey", "white", "black"]
    # A national deadline cannot be carried over by an entry of ours, which would lift it.
    assert change(node, f"set,{lists.NATIONAL_GREY},grey,dup,20990501\n").code == 0
    for old in (other, lists.NATIONAL_GREY):
        ran = eir("lists", "own", "replace", old, new[0], *SIGNED, "-c", node.config)
        assert "nothing that can be carried over is said of the old IMEI" in ran.err
        with node.peer() as peer:
            assert peer.check(old) == "grey"


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("imei\n", (), "is no file of devices"),
        (CHANGES + "set,35209900100009,white,,\nset,35209900100009,black,,\n", ("--delta",), "two different things"),
        (CHANGES + "set,x,white,,\n", ("--delta",), "1 of 1 rows are wrong"),
        (CHANGES, (), "is no file of devices"),
    ],
)
def test_what_cannot_be_taken(node: NodeProcess, text: str, options: tuple[str, ...], said: str) -> None:
    ran = imported(node, text, *options)
    assert ran.code == 1
    assert said in ran.err
    assert sequence(node) == 1
    assert not list((node.state / "lists" / "incoming").iterdir())


def test_a_file_that_is_none(node: NodeProcess, tmp_path: Path) -> None:
    assert eir("lists", "import", *SIGNED, "-c", node.config).code == 1
    with pytest.raises(Exception, match="is no file"):
        node.ask("lists-import", files=[["devices", str(tmp_path)]], agent="x", reason="x")
