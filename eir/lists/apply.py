"""Apply: the one way by which national lists come into force, whatever brought them.

Takes packages (`package.Receiver`), checks them, has the `guard` look at them, makes them durable (`versions`) and then
puts them in force in the data plane; goes back to a version that is kept; reads what is in force again and again, and
falls back where it is damaged. Called by `app`, by the sources, and for `eir lists`.

What is refused changes nothing. One package is looked at after the other; what takes time is done beside the event
loop, and answers never wait for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from eir import _core
from eir.lists import manifest as manifests
from eir.lists.guard import Limits, Prospect, objections
from eir.lists.manifest import ManifestError, TrustedKey
from eir.lists.package import Manifest, Outcome, Package, PackageKind, Result
from eir.lists.pieces import pieces
from eir.lists.versions import MANIFEST, SIGNATURE, SNAPSHOT, InForce, Refused, Versions
from eir.lists.zone import transitions
from eir.log import Log

_LISTS: Final = ("white", "black", "grey")
_SCRUBBED_AT_ONCE: Final = 1 << 20
_SCRUBBED_AT_START: Final = 64 << 20
"""Octets of a snapshot that are read before it answers, where it was checked before: some ten milliseconds."""
_SOON: Final = 0.005
"""Seconds between two pieces of the scrub that follows a start, which reads what was not read then."""
_MANY_DELTAS: Final = 1000
"""Deltas after which a newer snapshot below them is worth having: a start reads them one by one, a second in all."""
_APPROVED: Final = "approved"
_TOLD: Final[Mapping[str, str]] = {
    "wrong_rows": "wrong",
    "check_digit_mismatches": "with another check digit",
    "not_decimal": "with signs in the IMEI that are no digits",
    "left_out": "that say nothing of the lists",
}
_WRONG_TOLD: Final = 3
"""Wrong rows that are told of one by one."""

log = Log(__name__)


@dataclass(frozen=True, slots=True)
class ListRules:
    """What packages are held to. `keys` may sign them; without any key only a person's own are taken. `zone`: in which
    the days of grey devices end; `keep`: seconds that versions are kept; `scrub`: seconds in which the snapshot is read
    once, 0 for never."""

    country: str
    keys: tuple[TrustedKey, ...]
    limits: Limits
    zone: ZoneInfo
    hard_reasons: tuple[str, ...]
    keep: int
    scrub: int


@dataclass(slots=True)
class ListsState:
    """What is told of the lists, since start."""

    outcomes: Counter[tuple[str, str, str]]
    """Packages by source, kind and result."""
    last_refusal: str = ""
    """Why the last package was refused; empty once one is applied."""
    damage: str = ""
    """What is wrong with lists on the disk."""
    held: bool = False
    """Nothing that comes by itself is taken."""
    scrubbed_at: int = 0
    """When the snapshot in force was last found sound as a whole."""
    differ: str = ""
    """How many devices there are on lists where the national database has others; empty where it has said the same."""
    rows: Counter[str] = field(default_factory=Counter)
    """Rows of the packages that were read, all and by what is to be said of some: the names of `_TOLD`."""


class _Refusal(Exception):
    """A package is not taken. `soft`: somebody may approve it."""

    def __init__(self, *reasons: str, soft: bool = False) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons
        self.soft = soft


class NationalLists:
    """The lists of one node, on the disk and in force.

    `rules` gives what holds now, `changed` is called after every change, `record` puts an agent's act on the record.
    """

    def __init__(
        self,
        node: _core.Node,
        versions: Versions,
        rules: Callable[[], ListRules],
        changed: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.state = ListsState(Counter())
        self._node = node
        self._versions = versions
        self._rules = rules
        self._changed = changed
        self._clock = clock
        self.alone = asyncio.Lock()
        """Held by whoever changes which lists are in force."""
        self._counts: dict[str, int] = {}
        self._snapshot: _core.Snapshot | None = None

    # What is in force.

    @property
    def sequence(self) -> int | None:
        """The state in force; None: no lists yet."""
        position = self._node.lists_position()
        return None if position is None else position["sequence"]

    @property
    def _base(self) -> int:
        """The state that the snapshot in force is of; -1: there is none."""
        return -1 if self._snapshot is None else self._snapshot.info["sequence"]

    @property
    def file(self) -> Path:
        """Where the snapshot in force is kept, if it is."""
        return self._versions.snapshot(self._base) / SNAPSHOT

    @property
    def counts(self) -> Mapping[str, int]:
        """Devices on each list in force."""
        return dict(self._counts)

    def wants(self, snapshot: int) -> bool:
        """Whether a snapshot of that state is worth fetching though it is no newer than what is in force: it would take
        the place of many deltas, or of lists that differ from the national database's."""
        position = self._node.lists_position()
        if position is None or not self._base < snapshot <= position["sequence"]:
            return False
        return position["deltas"] >= _MANY_DELTAS or bool(self.state.differ)

    def start(self) -> bool:
        """Puts in force what was in force, or where that is damaged the newest state that is not; whether there is one.

        Raises OSError where the directory cannot be used.
        """
        self._versions.prepare()
        wanted = self._wanted()
        kept = self._versions.snapshots()
        if wanted is not None:
            self.state.held = wanted.held
            kept = [sequence for sequence in kept if sequence <= wanted.snapshot]
        for sequence in reversed(kept):
            until = wanted.until if wanted is not None else None
            if self._put_in_force(sequence, until):
                return True
        return False

    def _wanted(self) -> InForce | None:
        """The state that a start would put in force; None where there is none, or the file that says so is damaged: a
        start tries the newest then."""
        try:
            return self._versions.in_force()
        except ValueError as error:
            self._damaged(f"which lists were in force is not known: {error}")
            return None

    def _until(self) -> int | None:
        """Where a rollback has the deltas in force end; None where there was none."""
        wanted = self._wanted()
        return None if wanted is None else wanted.until

    def take_file(self, snapshot: _core.Snapshot, path: Path) -> None:
        """Puts a snapshot in force that lies elsewhere, one that somebody built and named; and what has come since.

        It is one to go back to where its file can have another name here: on the same disk."""
        sequence = snapshot.info["sequence"]
        self._set(snapshot, self._chain(sequence, self._until()))
        try:
            self._versions.adopt(path, sequence)
        except OSError as error:
            log.warning("the snapshot file is none of the versions that are kept", path=str(path), error=str(error))

    @staticmethod
    def reopen(path: Path) -> _core.Snapshot:
        """A snapshot that was checked as a whole before: what is small, and the beginning, are looked at again now, the
        rest by the scrub. Raises SnapshotError."""
        snapshot = _core.Snapshot.open(path, whole=False)
        snapshot.scrub(0, _SCRUBBED_AT_START)
        return snapshot

    def _put_in_force(self, sequence: int, until: int | None) -> bool:
        path = self._versions.snapshot(sequence) / SNAPSHOT
        try:
            snapshot = self.reopen(path)
        except _core.SnapshotError as error:
            self._damaged(f"{path}: {error}")
            return False
        try:
            self._set(snapshot, self._chain(sequence, until))
        except ValueError as error:
            self._damaged(f"deltas above {sequence}: {error}")
            return False
        return True

    def _set(self, snapshot: _core.Snapshot, deltas: list[tuple[_core.Delta, int, int]]) -> None:
        self._node.set_lists(snapshot, deltas)
        self._snapshot = snapshot
        self._counts = self._node.lists_counts()
        self._changed()

    def _chain(self, base: int, until: int | None) -> list[tuple[_core.Delta, int, int]]:
        """The deltas that follow a state, as far as there are no gaps."""
        found: list[tuple[_core.Delta, int, int]] = []
        present = base
        for sequence in self._versions.deltas():
            if sequence <= present or (until is not None and sequence > until):
                continue
            try:
                package = self._stored(self._versions.delta(sequence))
                if package.manifest.previous != present:
                    break
                self._check_files(package)
                delta = self._read_delta(package)
            except (OSError, ManifestError, _Refusal, _core.BuildError) as error:
                self._damaged(f"delta {sequence}: {error}")
                break
            found.append((delta, sequence, package.manifest.as_of))
            present = sequence
        return found

    def _stored(self, directory: Path) -> Package:
        octets = (directory / MANIFEST).read_bytes()
        return Package(manifests.parse(octets), octets, (directory / SIGNATURE).read_bytes(), directory)

    def _damaged(self, what: str) -> None:
        self.state.damage = what
        log.error("lists on the disk are damaged", what=what)

    # Packages.

    def staging(self) -> Path:
        """An empty directory to lay a package's files in; `offer` takes it over."""
        return self._versions.staging()

    async def offer(self, package: Package, source: str) -> Outcome:
        """Decides about a package that came by itself. Whatever is in it, that raises nothing."""
        return await self._offer(package, source, by_hand=False, approved=False)

    async def import_package(self, package: Package, agent: str, *, approved: bool, dry_run: bool) -> Outcome:
        """As `offer`, for what a person brings, who needs no signature; with `dry_run` it only says what would be."""
        return await self._offer(package, f"import by {agent}", by_hand=True, approved=approved, dry_run=dry_run)

    async def _offer(
        self, package: Package, source: str, *, by_hand: bool, approved: bool, dry_run: bool = False
    ) -> Outcome:
        manifest = package.manifest
        try:
            async with self.alone:
                outcome = self._place_of(manifest, bool(package.signature)) if by_hand else self.place(manifest)
                if outcome is None:
                    outcome = await self._decide(package, source, by_hand, approved, dry_run)
        except Exception as error:
            # Whatever a package brings about, the lists in force stay, and so does who brought it.
            log.error("a package could not be handled", exc_info=True, kind=manifest.kind, sequence=manifest.sequence)
            outcome = Outcome(Result.REFUSED, f"could not be handled: {error}")
        finally:
            await asyncio.to_thread(shutil.rmtree, package.directory, ignore_errors=True)
        self.state.outcomes[source.partition(" ")[0], manifest.kind, outcome.result.value] += 1
        if outcome.result is Result.REFUSED:
            self.state.last_refusal = f"{manifest.kind} {manifest.sequence} from {source}: {outcome.reason}"
            log.error(
                "lists refused", kind=manifest.kind, sequence=manifest.sequence, source=source, why=outcome.reason
            )
        elif outcome.result is Result.APPLIED and not dry_run:
            self.state.last_refusal = ""
        return outcome

    def place(self, manifest: Manifest) -> Outcome | None:
        """What is to be said of a package that comes by itself, before anybody looks into it; None: it is what comes
        next."""
        outcome = self._place_of(manifest, signed=True)
        if outcome is None and self.state.held:
            return Outcome(Result.HELD, "held after somebody went back; `eir lists follow` ends that")
        return outcome

    def _place_of(self, manifest: Manifest, signed: bool) -> Outcome | None:
        if manifest.country != self._rules().country:
            # Its sequence says nothing here; it is refused when it is offered.
            return None
        present = self.sequence
        if present is not None and manifest.sequence <= present:
            if manifest.kind == "snapshot" and signed and manifest.sequence > self._base:
                # What it and the deltas behind it say is said with fewer of them.
                return None
            return Outcome(Result.KNOWN, f"sequence {present} is in force")
        if manifest.kind == "delta" and manifest.previous != present:
            return Outcome(Result.GAP, f"follows sequence {manifest.previous}, and {present} is in force")
        return None

    async def _decide(self, package: Package, source: str, by_hand: bool, approved: bool, dry_run: bool) -> Outcome:
        manifest = package.manifest
        if manifest.country != self._rules().country:
            return Outcome(Result.REFUSED, f"is for country {manifest.country!r}")
        same = await asyncio.to_thread(self._versions.refused_manifest, manifest.kind, manifest.sequence)
        if same == package.manifest_bytes and not approved and not dry_run:
            return Outcome(Result.REFUSED, "was refused before; `eir lists approve` takes it all the same")
        try:
            if not by_hand:
                await asyncio.to_thread(self._check_signature, package)
            await asyncio.to_thread(self._check_files, package)
            take = self._take_delta if manifest.kind == "delta" else self._take_snapshot
            told = await asyncio.to_thread(take, package, source, approved, dry_run)
        except _Refusal as refusal:
            if refusal.soft and not dry_run:
                try:
                    await asyncio.to_thread(self._keep_refused, package, source, refusal.reasons)
                except OSError as error:
                    return Outcome(Result.REFUSED, f"{refusal}; and it cannot be kept: {error}")
            return Outcome(Result.REFUSED, str(refusal))
        except (_core.BuildError, _core.SnapshotError, OSError, ValueError) as error:
            return Outcome(Result.REFUSED, str(error))
        return Outcome(Result.APPLIED, told)

    def _check_signature(self, package: Package) -> None:
        keys = self._rules().keys
        if not keys:
            raise _Refusal("no key is trusted: lists.trusted_keys is empty")
        if not manifests.is_signed(package.manifest_bytes, package.signature, keys):
            raise _Refusal("the signature is not that of a trusted key")

    def _check_files(self, package: Package) -> None:
        for entry in package.manifest.files:
            path = package.directory / entry.name
            if path.is_symlink() or not path.is_file():
                raise _Refusal(f"{entry.name} is not there")
            digest, octets = hashlib.sha256(), 0
            with path.open("rb") as file:
                for part in pieces(file):
                    digest.update(part)
                    octets += len(part)
            if octets != entry.octets:
                raise _Refusal(f"{entry.name} has {octets} octets, and {entry.octets} by the manifest")
            if digest.hexdigest() != entry.sha256:
                raise _Refusal(f"{entry.name} has another SHA-256 than the manifest says")

    # Deltas.

    def _read_delta(self, package: Package) -> _core.Delta:
        rules = self._rules()
        files = [(entry.kind, package.directory / entry.name) for entry in package.manifest.files]
        # How many may be wrong is for the guard to say.
        expected = _rows(package)
        most = sys.maxsize if expected is None else expected
        delta = _core.Delta.read(list(files), zone=transitions(rules.zone), max_bad_share=1.0, max_rows=most)
        _check_rows(expected, delta.report["rows"])
        return delta

    def _take_delta(self, package: Package, source: str, approved: bool, dry_run: bool) -> str:
        manifest = package.manifest
        delta = self._read_delta(package)
        report = delta.report
        forecast = self._node.foresee_delta(delta, int(self._clock()))
        before = dict(self._counts)
        after = {name: before[name] + forecast["come"][name] - forecast["gone"][name] for name in _LISTS}
        turned_black, ahead = forecast["turned_black"], manifest.as_of - int(self._clock())
        prospect = Prospect(before, after, report["rows"], report["wrong_rows"], turned_black, ahead)
        told = f"{delta.devices} devices and {delta.pairs} pairs change; {_in_use(forecast)}{self._note_rows(report)}"
        self._guard(prospect, approved, told)
        if dry_run:
            return told
        place = self._versions.delta(manifest.sequence)
        state = self._wanted()
        if state is not None and state.until is not None:
            # What somebody went back from is another branch; a start would follow it past this delta.
            self._discard_deltas(state.until)
        self._versions.keep(self._copied(package), place)
        try:
            if state is not None and state.until is not None:
                self._versions.set_in_force(InForce(state.snapshot, manifest.sequence, state.held))
            self._node.apply_delta(delta, manifest.sequence, manifest.as_of)
        except (OSError, ValueError):
            # What is not in force now is not to be so after a restart.
            self._versions.discard(place)
            raise
        self._counts = after
        self._compare(manifest)
        self._done(manifest, source, approved, told)
        return told

    # Snapshots.

    def _take_snapshot(self, package: Package, source: str, approved: bool, dry_run: bool) -> str:
        manifest, rules = package.manifest, self._rules()
        building = self._versions.staging()
        try:
            report = self._build(package, building / SNAPSHOT, rules)
            snapshot = _core.Snapshot.open(building / SNAPSHOT)
            present = self.sequence
            # One below what is in force: the deltas behind it stay.
            below = present is not None and manifest.sequence <= present
            deltas = self._chain(manifest.sequence, present) if below else []
            if below and present != (deltas[-1][1] if deltas else manifest.sequence):
                raise _Refusal(f"the deltas from it to sequence {present}, in force, are not kept")
            forecast = self._node.foresee_lists(snapshot, deltas, int(self._clock()))
            before = dict(self._counts) if present is not None else None
            after = dict(forecast["come"])
            turned_black, ahead = forecast["turned_black"], manifest.as_of - int(self._clock())
            miscounted = _miscounted(manifest, _counts_of(snapshot), report)
            prospect = Prospect(before, after, report["rows"], report["wrong_rows"], turned_black, ahead, miscounted)
            listed = ", ".join(f"{after[name]} {name}" for name in _LISTS)
            told = f"{listed}; {_in_use(forecast)}{self._note_rows(report)}"
            self._guard(prospect, approved, told)
            if dry_run:
                return told
            (building / MANIFEST).write_bytes(package.manifest_bytes)
            (building / SIGNATURE).write_bytes(package.signature)
            if not below:
                # None follow it, unless somebody went back before them: then they are another branch.
                self._discard_deltas(manifest.sequence)
            place = self._versions.snapshot(manifest.sequence)
            self._versions.keep(building, place)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        until = self._until() if below else None
        self._versions.set_in_force(InForce(manifest.sequence, until, self.state.held))
        # The mapping goes with the file, whatever its name.
        self._set(snapshot, deltas)
        if below:
            # Whether it has helped is for the next delta to say.
            self.state.differ = ""
        else:
            self._compare(manifest)
        self._done(manifest, source, approved, told)
        self._prune()
        return told

    def _build(self, package: Package, output: Path, rules: ListRules) -> _core.BuildReport:
        manifest = package.manifest
        builder = _core.SnapshotBuilder(
            strict=False,
            # How many may be wrong is for the guard to say.
            max_bad_share=1.0,
            sequence=manifest.sequence,
            created_at=manifest.as_of,
            tac_as_of=manifest.tac_as_of or 0,
            hard_reasons=list(rules.hard_reasons),
            zone=transitions(rules.zone),
            aside=output.parent,
        )
        for entry in manifest.files:
            builder.add(entry.kind, package.directory / entry.name, lambda _: None)
        report = builder.finish(output)
        _check_rows(_rows(package), report["rows"])
        return report

    # After both.

    def _compare(self, manifest: Manifest) -> None:
        """Whether the national database has as many devices on its lists as are in force, where it says so."""
        others = {name: count for name, count in manifest.counts.items() if count != self._counts.get(name)}
        told = ", ".join(f"{self._counts.get(name)} {name} here and {count} there" for name, count in others.items())
        if told and not self.state.differ:
            log.error("the lists differ from the national database's", sequence=manifest.sequence, counts=told)
        self.state.differ = told

    def _guard(self, prospect: Prospect, approved: bool, told: str) -> None:
        reasons = objections(prospect, self._rules().limits)
        if reasons and not approved:
            raise _Refusal(*reasons, told, soft=True)

    def _note_rows(self, report: _core.RowsReport) -> str:
        """Counts what was read, and says what is to be said of it; nothing where all rows are right."""
        counts: Mapping[str, Any] = report
        self.state.rows["rows"] += report["rows"]
        for name in _TOLD:
            self.state.rows[name] += counts[name]
        told = [f"{counts[name]} rows {what}" for name, what in _TOLD.items() if counts[name]]
        first = [f"{Path(file).name}:{line}: {why}" for file, line, why in report["first_wrong_rows"][:_WRONG_TOLD]]
        return "".join(f"; {part}" for part in [*told, *first])

    def _done(self, manifest: Manifest, source: str, approved: bool, told: str) -> None:
        self._changed()
        self._note(manifest.kind, manifest.sequence, source, told, approved)
        log.info("lists in force", kind=manifest.kind, sequence=manifest.sequence, source=source)

    def _note(self, what: str, sequence: int, who: str, told: str = "", approved: bool = False) -> None:
        entry: dict[str, Any] = {"at": int(self._clock()), "what": what, "sequence": sequence, "by": who, "told": told}
        try:
            self._versions.note({**entry, _APPROVED: True} if approved else entry)
        except OSError as error:
            # What was done is done.
            log.error("the history of the lists cannot be written", error=str(error))

    def _copied(self, package: Package) -> Path:
        """A package's files by themselves, as they are kept."""
        kept = self._versions.staging()
        try:
            for entry in package.manifest.files:
                (package.directory / entry.name).rename(kept / entry.name)
            (kept / MANIFEST).write_bytes(package.manifest_bytes)
            (kept / SIGNATURE).write_bytes(package.signature)
        except OSError:
            shutil.rmtree(kept, ignore_errors=True)
            raise
        return kept

    def _keep_refused(self, package: Package, source: str, reasons: tuple[str, ...]) -> None:
        manifest = package.manifest
        refused = Refused(manifest.kind, manifest.sequence, int(self._clock()), source, reasons)
        self._versions.refuse(self._copied(package), refused)
        self._note(f"refused {manifest.kind}", manifest.sequence, source, "; ".join(reasons))

    def _prune(self) -> None:
        state = self._wanted()
        kept = self._versions.snapshots()
        # The one in force, and one to fall back to.
        keep = frozenset(sequence for sequence in kept[-2:]) | ({state.snapshot} if state is not None else frozenset())
        self._versions.prune(self._clock() - self._rules().keep, keep)

    # What people ask for.

    async def approve(self, kind: PackageKind, sequence: int, agent: str) -> Outcome:
        """Takes a package that the guard had refused; it stays there until it is in force.

        Raises ValueError where none is kept, OSError."""
        staged = await asyncio.to_thread(self._versions.stage_refused, kind, sequence)
        try:
            package = await asyncio.to_thread(self._stored, staged)
        except ManifestError as error:
            raise ValueError(f"what is kept of it is damaged: {error}") from error
        outcome = await self._offer(package, f"approved by {agent}", by_hand=True, approved=True)
        if outcome.result in (Result.APPLIED, Result.KNOWN):
            await asyncio.to_thread(self._versions.forget_refused, kind, sequence)
        return outcome

    async def roll_back(self, sequence: int, agent: str) -> str:
        """Goes back to a state that is kept, and holds it. Raises ValueError where it is not kept whole, OSError."""
        async with self.alone:
            return await asyncio.to_thread(self._roll_back, sequence, agent)

    def _roll_back(self, sequence: int, agent: str) -> str:
        bases = [base for base in self._versions.snapshots() if base <= sequence]
        if not bases:
            raise ValueError(f"nothing of sequence {sequence} is kept; kept are {self._kept()}")
        base = bases[-1]
        try:
            snapshot = _core.Snapshot.open(self._versions.snapshot(base) / SNAPSHOT)
        except _core.SnapshotError as error:
            raise ValueError(f"snapshot {base}: {error}") from error
        deltas = self._chain(base, sequence)
        reached = deltas[-1][1] if deltas else base
        if reached != sequence:
            raise ValueError(f"of sequence {sequence} only {reached} can be reached; kept are {self._kept()}")
        before = self.sequence
        self._versions.set_in_force(InForce(base, until=sequence, held=True))
        self.state.held = True
        self._set(snapshot, deltas)
        self._note("rollback", sequence, agent, f"from {before}")
        log.warning("somebody went back to earlier lists, which are held", sequence=sequence, before=before)
        return f"sequence {sequence} is in force, and held until `eir lists follow`"

    def _kept(self) -> str:
        return f"snapshots {self._versions.snapshots()} and deltas {self._versions.deltas()}"

    async def follow(self, agent: str) -> str:
        """Takes what comes by itself again. Raises OSError."""
        async with self.alone:
            return await asyncio.to_thread(self._follow, agent)

    def _follow(self, agent: str) -> str:
        state = self._wanted()
        if state is not None and state.until is not None:
            # They come again, from where they came, if they still hold.
            self._discard_deltas(state.until)
        if state is not None:
            self._versions.set_in_force(InForce(state.snapshot))
        self.state.held = False
        self._note("follow", self.sequence or 0, agent)
        return "what comes is taken again"

    def _discard_deltas(self, above: int) -> None:
        for sequence in self._versions.deltas():
            if sequence > above:
                self._versions.discard(self._versions.delta(sequence))

    def history(self) -> list[dict[str, Any]]:
        """What was done, the oldest first. Raises OSError."""
        return self._versions.history()

    def refused(self) -> list[Refused]:
        """What was refused and may be approved. Raises OSError."""
        return list(self._versions.refused())

    # Damage.

    async def scrub(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Reads the snapshot in force over and over, slowly but for the first time; where it is damaged, the version
        before comes into force. Never returns."""
        first = True
        while True:
            period = self._rules().scrub
            await pause(1.0 if first else min(period or 60.0, 60.0))
            snapshot = self._snapshot
            if snapshot is None or not period:
                continue
            at: int | None = 0
            each = _SOON if first else period * min(1.0, _SCRUBBED_AT_ONCE / max(1, snapshot.info["bytes"]))
            first = False
            try:
                while at is not None and snapshot is self._snapshot:
                    await pause(min(each, 60.0))
                    at = await asyncio.to_thread(snapshot.scrub, at, _SCRUBBED_AT_ONCE)
            except _core.SnapshotError as error:
                await self._fall_back(snapshot, str(error))
                continue
            if at is None:
                self.state.scrubbed_at = int(self._clock())

    async def _fall_back(self, damaged: _core.Snapshot, why: str) -> None:
        async with self.alone:
            if damaged is not self._snapshot:
                return
            sequence = damaged.info["sequence"]
            self._damaged(f"snapshot {sequence}: {why}")
            await asyncio.to_thread(self._put_other, sequence)

    def _put_other(self, damaged: int) -> None:
        until = self._until()
        for sequence in reversed([kept for kept in self._versions.snapshots() if kept < damaged]):
            if self._put_in_force(sequence, until):
                self._versions.set_in_force(InForce(sequence, until, self.state.held))
                self._versions.discard(self._versions.snapshot(damaged))
                self._note("fallback", self.sequence or 0, "the node", f"snapshot {damaged} is damaged")
                log.error("an earlier version of the lists is in force", sequence=self.sequence)
                return
        log.error("there is no earlier version of the lists; the damaged one stays in force")


def _counts_of(snapshot: _core.Snapshot) -> dict[str, int]:
    counts = snapshot.info["counts"]
    return {"white": counts["white"], "black": counts["black"], "grey": counts["grey"]}


def _miscounted(manifest: Manifest, found: Mapping[str, int], report: _core.BuildReport) -> str:
    """How the devices of a snapshot differ from what its manifest says, by more than its rows tell."""
    told = sum((report["wrong_rows"], report["not_decimal"], report["left_out"]))
    # Who counts rows counts these more than once.
    told += report["contradictions"] + report["duplicates"]
    others = [name for name, count in manifest.counts.items() if abs(count - found.get(name, 0)) > told]
    return ", ".join(
        f"{found.get(name, 0)} {name} devices, and {manifest.counts[name]} by its manifest" for name in others
    )


def _rows(package: Package) -> int | None:
    """Rows of its files by its manifest; None: nobody has counted what a person brings."""
    return sum(entry.rows for entry in package.manifest.files) if package.signature else None


def _check_rows(expected: int | None, found: int) -> None:
    if expected is not None and found != expected:
        raise _Refusal(f"{found} rows, and {expected} by the manifest")


def _in_use(forecast: _core.Forecast) -> str:
    told = f"{forecast['turned_black']} devices in use would turn black, {forecast['freed']} would no longer be"
    return f"{told} ({', '.join(forecast['first'])} ...)" if forecast["first"] else told
