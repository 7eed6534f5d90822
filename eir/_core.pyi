"""The data plane and the bulk work, in Rust (`rust/eir-node/src/python.rs`)."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias, TypedDict, final

StrPath: TypeAlias = str | PathLike[str]
Event: TypeAlias = (
    tuple[Literal["connected"], int, str, int, str, Literal["in", "in-tls", "out", "out-tls"]]
    | tuple[Literal["message"], int, bytes]
    | tuple[Literal["secured"], int]
    | tuple[Literal["closed"], int, str]
)
"""(kind, connection, ...): connected with remote host, remote port, local host and who made it, with TLS or without;
message with its octets; secured, after `secure`; closed with the reason, also where a `connect` failed."""
Traced: TypeAlias = tuple[int, int, str, bytes, bytes, str | None, Literal["answered", "limited", "watchdog"]]
"""(at in nanoseconds since 1970, connection, peer, request, answer, verdict's rule, what became of it)."""
JournalRecord: TypeAlias = (
    tuple[Literal["start"], int, int, str | None, str | None, int]
    | tuple[Literal["seen"], int, int, str, str | None]
    | tuple[Literal["attempt"], int, int, str | None, str | None, str]
    | tuple[Literal["cancel"], int, int]
)
"""(kind, IMEI, time, IMSI, MSISDN, the deadline or the verdict's rule)."""

KNOWN_AVPS: list[tuple[int, int]]
"""(vendor, code) of the AVPs that may carry the M bit in a request; the same as the dictionary's."""

class SnapshotError(Exception):
    """A snapshot file cannot be read or is not sound."""

class BuildError(Exception):
    """List files were refused, or the snapshot cannot be written."""

class Counts(TypedDict):
    """How many entries a snapshot holds."""

    white: int
    black: int
    grey: int
    ranges: int
    exempt_tacs: int
    allocated_tacs: int
    exempt_imsis: int
    pairs: int
    deadlines: int

class SnapshotInfo(TypedDict):
    """What a snapshot says of itself; times in seconds since 1970, `tac_as_of` 0 without an allocated-TAC list, `bytes`
    the file's length."""

    sequence: int
    created_at: int
    tac_as_of: int
    counts: Counts
    bytes: int

class Comparison(TypedDict):
    """How two snapshots differ. `moved`: (list, list, devices), the lists being `unlisted` too, and those that stay
    among them; `changed`: on the same list with another reason or deadline; `others`: what else differs, as `counts`
    names it."""

    moved: list[tuple[str, str, int]]
    changed: int
    pairs_gone: int
    pairs_come: int
    others: list[str]

class Forecast(TypedDict):
    """What other lists would change. Of devices in use: `black` now, `turned_black` (the `first` of them by IMEI) and
    `freed`. `gone` and `come`: how many devices leave each list and come to it; of lists anew all of them."""

    black: int
    turned_black: int
    freed: int
    first: list[str]
    gone: dict[str, int]
    come: dict[str, int]

class ListsPosition(TypedDict):
    """The state of the lists in force: `sequence`, when they were true (`as_of`), `deltas` above the snapshot, and how
    many `devices` those speak of."""

    sequence: int
    as_of: int
    deltas: int
    devices: int

class Explanation(TypedDict):
    """A verdict and how it was come to: `timer` is (start, deadline), `listing` (list, reason, by the overlay),
    `deadline` the first second without access by the national grey list, `range` (list, reason)."""

    status: str
    rule: str
    asked: list[str]
    timer: tuple[int, int] | None
    listing: tuple[str, str, bool] | None
    deadline: int | None
    range: tuple[str, str] | None

class PeerStats(TypedDict):
    """Counters of one peer; `answers` is (rule, list, count), `overload` the percentage that it is now told to send
    less."""

    answers: list[tuple[str, str, int]]
    watchdogs: int
    not_started: int
    hold_timeouts: int
    lost: int
    limited: int
    overload: int
    punted: int
    discarded: int

class Stats(TypedDict):
    """Everything that the data plane counts or measures; `load` is 0 to 65535, `refused_by` counts connections that
    were closed at once, by the reason."""

    peers: dict[str, PeerStats]
    before_open: PeerStats
    answer_bounds_ns: list[int]
    answer_buckets: list[int]
    answer_sum_ns: int
    connections: int
    accepted: int
    refused: int
    refused_by: dict[str, int]
    tls_failures: int
    load: int
    unframeable: int
    stuck: int
    journal_available: bool
    journal_bytes: int
    journal_depth: int
    journal_records: int
    journal_syncs: int
    journal_failures: int
    journal_skipped: int
    timers: int
    timers_running: int
    breaker_tripped: bool
    overlay_entries: int
    in_use_pairs: int
    in_use_dropped: int
    in_use_bytes: int

class RowsReport(TypedDict):
    """What was read of list files; `first_wrong_rows` is (file, line, reason).

    `not_decimal` rows are no wrong ones: files of DIRBS have IMEIs as networks record them; `left_out` are right ones
    that say nothing of the lists."""

    rows: int
    wrong_rows: int
    first_wrong_rows: list[tuple[str, int, str]]
    not_decimal: int
    left_out: int
    check_digit_mismatches: int

class BuildReport(RowsReport):
    """What a build did."""

    duplicates: int
    contradictions: int
    first_contradictions: list[str]
    dropped_reasons: int
    counts: Counts
    bytes: int

class LoadReport(TypedDict):
    """What a load found: counts of requests and answers, latencies in nanoseconds, `rate` in answers a second, and with
    `record_answers` every (IMEI of 14 digits, status)."""

    sent: int
    answered: int
    white: int
    black: int
    grey: int
    no_status: int
    errors: dict[int, int]
    lost: int
    unsent: int
    unmatched: int
    connections_lost: int
    first_loss: str | None
    seconds: float
    rate: float
    mean_ns: float
    p50_ns: int
    p90_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int
    answers: list[tuple[int, str | None]]

@final
class Policy:
    """The settings that the verdict goes by; times in seconds. Raises ValueError for a status that is none."""

    def __new__(
        cls,
        *,
        all_white: bool,
        no_list: str,
        malformed: str,
        home_mccs: list[int],
        roamer_plmns: list[str],
        non_roamer_plmns: list[str],
        hard_reasons: list[str],
        test_tacs: list[str],
        tac_max_age: int,
        stale_after: int,
        schedule: list[tuple[int, int]],
        grey_seconds: int,
        starts_per_minute: int,
        running: int,
    ) -> Policy: ...

@final
class Terms:
    """What a peer may and how its answers look: requests a second (0: any number), whether answers carry the node's
    load (RFC 8583), what grey, unknown and malformed are answered as (None: as the policy has it). Raises ValueError
    for a status that is none."""

    def __new__(
        cls,
        *,
        requests_per_second: int = 0,
        load: bool = False,
        grey: str = "grey",
        unknown: str = "unknown",
        malformed: str | None = None,
    ) -> Terms: ...

@final
class Snapshot:
    """A mapped snapshot file."""

    @staticmethod
    def open(path: StrPath, whole: bool = True) -> Snapshot:
        """Maps a file and checks it, whole or only header, lengths and what is small; raises SnapshotError.

        Without `whole` that takes no longer for a large file than for a small one, and `scrub` finds damage later."""

    def scrub(self, start: int, octets: int, /) -> int | None:
        """Checks checksums from the octet `start` on, for about so many octets, and returns where to go on; None at the
        end. Who begins with 0 and goes on until then has checked the whole file. Raises SnapshotError for damage."""

    @property
    def info(self) -> SnapshotInfo: ...
    def export(self, kind: str, path: StrPath, *, zone: Sequence[tuple[int, int]]) -> int:
        """Writes one kind of its rows as a list file, and returns how many: a kind of `eir.cli_exchange.ExportKind`.
        Dates are those of the zone, given as `SnapshotBuilder` has it; a name that ends in `.gz` or `.zst` is packed.
        Raises OSError, then nothing is changed, and ValueError for an unknown kind."""

    def explain(self, imei: str, imsi: str | None, policy: Policy, now: int) -> Explanation:
        """The verdict of this snapshot alone, without timers and overlay. Raises ValueError for what is no IMSI."""

@final
class Delta:
    """What a delta changes."""

    @staticmethod
    def read(
        files: list[tuple[str, StrPath]],
        *,
        zone: Sequence[tuple[int, int]],
        max_bad_share: float,
        max_rows: int = ...,
    ) -> Delta:
        """Reads the files of a delta, each with its kind, one of `eir.lists.package.DELTA_KINDS`. Raises OSError, and
        BuildError where one is refused, all have more rows than `max_rows`, or two things are said of one device."""

    @property
    def devices(self) -> int:
        """How many devices it speaks of."""

    @property
    def pairs(self) -> int:
        """How many pairs it speaks of."""

    @property
    def report(self) -> RowsReport:
        """What was read."""

@final
class Node:
    """A running data plane. Raises OSError where the journal or the system's means are not to be had.

    With `in_use_bytes` above 0 it notes in a table of that size which devices are in use; days are numbers since 1970,
    UTC."""

    def __new__(
        cls,
        *,
        origin_host: str,
        origin_realm: str,
        origin_state_id: int,
        workers: int,
        max_events: int,
        hold_ms: int,
        journal_directory: StrPath,
        journal_segment_bytes: int,
        journal_max_bytes: int,
        policy: Policy,
        image: StrPath | None = None,
        in_use_bytes: int = 0,
    ) -> Node: ...
    @property
    def image_state(self) -> str:
        """What became of the image at start: `none`, `loaded`, or `damaged: ` and why; then nothing of it was taken."""

    @property
    def image_follow(self) -> bytes | None:
        """The position in the store that was given with the image; None where none was loaded."""

    def write_image(self, path: StrPath, follow: bytes) -> int:
        """Writes timers, subscribers seen, overlay and breaker to a file, whole or not at all; answers go on.

        `follow` (64 KiB at most) comes back as `image_follow` after the next start. Returns the number of the journal
        record up to which everything is in the file. Raises OSError."""

    def journal_fileno(self) -> int:
        """A descriptor that becomes readable when records have come to the disk after `read_journal`."""

    def clear_journal_event(self) -> None:
        """Makes that descriptor unreadable; the next `read_journal` has it watch again."""

    def journal_position(self) -> int:
        """The number of the last record that is on the disk."""

    def read_journal(self, after: int, most: int) -> tuple[list[JournalRecord], int]:
        """Records on the disk with a number above `after`, looking at `most` at the most, and the number looked up to.

        Records that only the data plane has use for are left out; so are damaged ones. Raises OSError."""

    def trim_journal(self, before: int) -> int:
        """Deletes segments without a record above `before`; returns their octets. Raises OSError."""

    def set_timers(self, entries: Sequence[tuple[int, int, int]]) -> None:
        """Puts timers as the store has them: (IMEI, start, deadline); start 0: none; deadline 0xffffffff: no end."""

    def timers_listed(self, now: int) -> list[tuple[int, int, str]]:
        """(IMEI, start, verdict's rule) of every timer whose device a list now decides, whoever its subscriber."""

    @property
    def replayed(self) -> tuple[int, int, int]:
        """(sound records, damaged records, torn octets) that the replay of the journal met at start."""

    def listen(self, host: Any, port: int, tls: bool = False) -> tuple[str, int]:
        """Listens on an `ipaddress` address; port 0 takes a free one. Returns what was bound; raises OSError."""

    def connect(self, host: Any, port: int, tls_name: str | None) -> int:
        """Begins to make a connection, with TLS where there is a name, which the certificate there must be valid for.

        Returns its number; an event `connected` or `closed` follows. Raises OSError where there are no certificates."""

    def set_gate(self, networks: list[str], max_connections: int, max_per_address: int, max_unopened: int) -> None:
        """Where connections may come from ("10.0.0.0/8"), and how many at once: in all, from one address (IPv6: one
        /64), and such as have not exchanged capabilities yet. Until then all are let in. Raises ValueError."""

    def set_tls(
        self, certificate_file: StrPath, key_file: StrPath, ca_file: StrPath, require_client_certificate: bool
    ) -> None:
        """Secures connections with these PEM files from now on; those that are there keep what they have.

        Raises ValueError that names the file; then nothing changes."""

    def tls_expires(self) -> int | None:
        """When this node's certificate expires, in seconds since 1970; None where there is none."""

    def set_terms(self, origin_host: str, terms: Terms | None) -> None:
        """Puts terms of a peer in force, also for connections that are open; None: the standard's."""

    def set_node_limit(self, requests_per_second: int) -> None:
        """How many requests of all peers are answered a second, the others 3004; 0: all."""

    def stop_listening(self) -> None:
        """Takes no more connections."""

    def stop(self) -> None:
        """Closes every connection and stops; the journal is on the disk afterwards."""

    def events_fileno(self) -> int:
        """A descriptor that is readable while there are events."""

    def take_events(self, most: int) -> list[Event]:
        """Up to `most` events, the oldest first."""

    def send(self, connection: int, data: bytes) -> bool:
        """Writes to a connection; False where it is gone or its queue is full."""

    def open(self, connection: int, data: bytes, origin_host: str, sender: str, advertised_relay: bool) -> bool:
        """Writes to a connection and from then on answers on it, counted for that peer; False where it is gone.

        `sender` is its role: `direct`, it asks for itself; `relay`, for anyone; `auto`, for anyone if it advertised the
        relay application, else for itself and, with a Route-Record, for anyone. Other requests are handed up. Raises
        ValueError for another role."""

    def secure(self, connection: int, data: bytes) -> bool:
        """Writes to a connection in clear text and has it secured by the peer; the event `secured` follows, or
        `closed`. False where it is gone or there are no certificates."""

    def certified(self, connection: int, origin_host: str) -> bool | None:
        """Whether the certificate that the peer has shown is valid for a name; None where it has shown none."""

    def tls_version(self, connection: int) -> str | None:
        """`1.2` or `1.3`; None without TLS."""

    def trace_start(self, imei: int | None, imsi: str | None, peer: str | None, most: int) -> int:
        """Begins to copy requests that fit all that is given, and their answers, and keeps up to `most` until they are
        taken; the trace's number. Raises ValueError for what is no IMEI or IMSI, and where there are too many."""

    def trace_take(self, trace: int) -> tuple[list[Traced], int]:
        """What was copied since, and how many found no place. Raises ValueError where there is no such trace."""

    def trace_stop(self, trace: int) -> bool:
        """Ends a trace; False where there was none."""

    def close(self, connection: int, data: bytes) -> bool:
        """Writes to a connection and closes it; False where it is gone."""

    def idle_seconds(self, connection: int) -> float | None:
        """Seconds since the last whole message came; None where the connection is gone."""

    def set_policy(self, policy: Policy) -> None:
        """Puts other settings in force."""

    def set_lists(self, snapshot: Snapshot, deltas: list[tuple[Delta, int, int]] = ...) -> None:
        """Puts a snapshot in force and the deltas above it, each with its sequence and the moment for which it is
        true, at once. Raises ValueError for more deltas than are taken."""

    def apply_delta(self, delta: Delta, sequence: int, as_of: int) -> None:
        """Puts a delta in force, whole. Raises ValueError where there is no snapshot, or no more is taken above it."""

    def foresee_lists(self, snapshot: Snapshot, deltas: list[tuple[Delta, int, int]], now: int) -> Forecast:
        """What other lists would change for the devices in use. Raises ValueError as `set_lists`."""

    def foresee_delta(self, delta: Delta, now: int) -> Forecast:
        """What a delta would change."""

    def lists_position(self) -> ListsPosition | None:
        """How far the lists in force are; None: there are none."""

    def lists_counts(self) -> dict[str, int]:
        """Devices on each of the national lists; asks every device that the deltas speak of."""

    def own_entries(self) -> list[tuple[str, str | None, str]]:
        """(IMEI, list or None, reason) of every entry of the operator's own, by IMEI."""

    def snapshot_info(self) -> SnapshotInfo | None:
        """The snapshot in force, without the deltas above it."""

    def set_overlay(self, imei: str, change: str, reason: str, at: int) -> None:
        """Changes what the operator says of one device: `white`, `black`, `grey`, `unlisted` (on no list, whatever the
        snapshot says) or `withdrawn` (the snapshot speaks again). On the disk before this returns. Raises ValueError
        for what is no IMEI or no change, OSError where it cannot be recorded."""

    def set_breaker(self, tripped: bool, at: int) -> None:
        """Trips the breaker, or lets timers start again. Raises OSError where that cannot be recorded."""

    def explain(self, imei: str, imsi: str | None, now: int) -> Explanation:
        """What would be answered now, and why; starts nothing. Raises ValueError for what is no IMSI."""

    def prune(self, now: int) -> None:
        """Forgets black attempts that no longer count."""

    def recent(self, imei: int) -> list[tuple[int, str | None, str, str]]:
        """(at, IMSI, status, rule) of the last answers to a device, a number of 14 digits, that were not white; the
        newest first. Raises ValueError for what is no such number."""

    def last_seen(self, imei: int) -> int | None:
        """The last day, of the last 14, on which a device was seen. Raises ValueError for what is no such number."""

    def rotate_in_use(self, day: int) -> None:
        """A new day: forgets the one that is then too old. Takes a while; in a thread, once a day."""

    def write_pairs(self, day: int, path: StrPath) -> int:
        """Writes a CSV file, `imei,imsi`, of devices and subscribers that were seen on a day, whole or not at all, and
        returns how many there were. Raises OSError."""

    def stats(self, now: int) -> Stats:
        """Everything that is counted or measured."""

@final
class SnapshotBuilder:
    """List files on their way into a snapshot; `created_at` and `tac_as_of` in seconds since 1970.

    A black entry with one of `hard_reasons` is not displaced by another black one and always keeps its reason. Dates
    are meant in a zone, given as (first second, seconds that local time is ahead of UTC), rising; without, in UTC. With
    a directory `aside` no more than `run_rows` devices are held in memory, 48 million if not given, and the others in a
    file there that has no name. Raises ValueError for more hard reasons than a snapshot holds, or what is no zone."""

    def __new__(
        cls,
        *,
        strict: bool,
        max_bad_share: float,
        sequence: int,
        created_at: int,
        tac_as_of: int,
        hard_reasons: list[str],
        zone: Sequence[tuple[int, int]] | None = None,
        aside: StrPath | None = None,
        run_rows: int | None = None,
    ) -> SnapshotBuilder: ...
    def add(self, kind: str, path: StrPath, progress: Callable[[int], object]) -> None:
        """Reads a file of a kind: one of `eir.lists.package.SNAPSHOT_KINDS`, or `seen-before-YYYY-MM-DD`.

        `progress` is called with the octets read so far; what it raises comes out. Raises BuildError where the file is
        refused, OSError where it cannot be opened, ValueError for an unknown kind."""

    def finish(self, path: StrPath) -> BuildReport:
        """Writes the snapshot, whole or not at all. Raises BuildError."""

def compare(old: Snapshot, new: Snapshot) -> Comparison:
    """How two snapshots differ."""

def write_delta(old: Snapshot, new: Snapshot, kind: str, path: StrPath, *, zone: Sequence[tuple[int, int]]) -> int:
    """Writes a file of the delta that leads from one snapshot to another, and returns how many rows it has. The kind is
    `devices`, `pairs`, `dirbs-blacklist`, `dirbs-notifications` or `dirbs-exceptions`; the file and what is raised as
    `Snapshot.export` has it."""

def imei_key(text: str) -> str:
    """The 14 digits of what a person typed; raises ValueError, for a wrong check digit too."""

def answerable(data: bytes) -> bool:
    """Whether the data plane answers this ECR itself, with a status; what it does not, the slow path refuses."""

def inspect_journal(directory: StrPath) -> tuple[int, int, int, int]:
    """(sound records, damaged records, torn octets, timers started) of a journal directory; raises OSError."""

def run_load(
    host: Any,
    port: int,
    *,
    window: int | None = None,
    rate: int | None = None,
    duration: float,
    warm_up: float = 0.0,
    connections: int = 1,
    imeis: list[int] | None = None,
    imei_range: tuple[int, int] | None = None,
    walk: bool = False,
    imsis: tuple[int, int] | None = None,
    max_outstanding: int = 10_000,
    seed: int = 1,
    busy_poll: bool = False,
    record_answers: bool = False,
    realm: str | None = None,
    origin_prefix: str | None = None,
    full: bool = False,
    tls: bool = False,
    ca_file: StrPath | None = None,
    certificate_file: StrPath | None = None,
    key_file: StrPath | None = None,
    server_name: str | None = None,
    tls_version: str | None = None,
) -> LoadReport:
    """Asks a node about devices and times the answers: closed loop with `window`, open loop with `rate` (a second).

    Devices are 14-digit numbers: a list drawn from at random, or a range (end excluded) drawn from at random or, with
    `walk`, gone through once. `imsis` is (first, count) of test subscribers of MCC 001; without, requests name none.
    Connections call themselves `<origin_prefix>-0001.<realm>` and so on. With `full`, requests carry everything that an
    agent and a talkative client add. With `tls` the node's certificate must be valid for `server_name`, by default the
    address; without a `ca_file` any is taken. Raises ValueError for a plan that cannot be run and OSError where a
    connection cannot be opened."""
