"""What generations keep on disk: refs for their commits, layers, upper directories, scratch directories.

All of it is in refs, or in the state directory on the repository's file system (`Sysroot.state_dir`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core.state import account_files, overlay_store
from apt_ostree.core.state.live import LiveState
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import folding
from apt_ostree.model.accounts import described_names
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.generation import Generation
from apt_ostree.model.history import Outcome
from apt_ostree.system import buildroot, usrview
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import layers
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb

_REFS = "apt-ostree/live"
#: Refs of layers and overlays, each named by its commit: most are in many generations.
_PARTS = f"{_REFS}/parts"


#: Outcomes that nobody has asked for.
_AUTOMATIC = (Outcome.FAILED, Outcome.INTERRUPTED, Outcome.UNCONFIRMED, Outcome.UNHEALTHY)


@dataclass(frozen=True, slots=True)
class Ending:
    """How generations that are undone end.

    outcome: the outcome in the history.
    note: the message in the history.
    with_units: whether to act on units; False while the system starts, when none runs yet.
    """

    outcome: Outcome
    note: str
    with_units: bool = True

    @property
    def is_automatic(self) -> bool:
        """Return whether nobody has asked for it."""
        return self.outcome in _AUTOMATIC


# --- refs and records


def pin(sysroot: Sysroot, number: int, shown: Sequence[str], further: Sequence[str]) -> None:
    """Keep the commits of a generation from being pruned.

    shown: the base, the target and the overlays that it shows, in this order.
    further: other commits to keep, such as layers.
    """
    repo = sysroot.repo
    repo.sync_refs(f"{_REFS}/{number}", {f"{_REFS}/{number}/target": shown[0]})
    present = repo.refs(_PARTS).values()
    for commit in sorted({*further, *shown[1:]} - {shown[0], *present}):
        repo.set_ref(f"{_PARTS}/{commit}", commit)


def forget_old(sysroot: Sysroot, records: StateDb, live: LiveState, keep: int) -> None:
    """Make older generations part of later ones, so that `keep` of this boot stay.

    A step back cannot lead to what they showed any more. Nothing that is shown changes.
    """
    for older, newer in folding.to_fold(live.generations, live.first, keep):
        failpoint("generations.before-fold")
        records.fold(older, newer)
        failpoint("generations.folded")
        sysroot.repo.sync_refs(f"{_REFS}/{older.id}", {})


def reclaim(sysroot: Sysroot, records: StateDb) -> None:
    """Remove refs, layers and upper directories of generations that are over and that no mount shows."""
    recorded = records.generations()
    views = usrview.in_use()
    in_use = frozenset(path for view in views for path in view.directories)
    # A view of PID 1's that is over can be on top again (Linux before 6.5).
    stacked = {path.name for view in views if view.pid == usrview.PID1 for path in view.directories}
    parts = stacked.union(*(_parts(records, generation) for generation in recorded))
    unpin_all_but(sysroot, frozenset({g.id for g in recorded} | {*usrview.stacked()}), parts)
    remove_layers_but(sysroot, recorded, in_use)
    remove_uppers_but(sysroot, recorded, in_use)


def _parts(records: StateDb, generation: Generation) -> set[str]:
    """Return the commits that a generation, and going back from it, needs."""
    applied = {commit for one in generation.overlays for commit in (one.commit, one.layer)}
    states = (s for t in records.transitions(generation.id) for s in (t.before, t.after) if s)
    return {generation.target, *generation.layers, *applied, *(state.commit for state in states)}


def unpin_all_but(sysroot: Sysroot, numbers: Collection[int], parts: Collection[str]) -> None:
    """Remove the refs of generations, except those with these numbers, and of parts, except these commits."""
    kept = {f"{_REFS}/{number}/target" for number in numbers} | {f"{_PARTS}/{commit}" for commit in parts}
    for ref in sysroot.repo.refs(_REFS).keys() - kept:
        sysroot.repo.set_ref(ref, None)


def remove_generation(sysroot: Sysroot, records: StateDb, number: int, ending: Ending) -> None:
    """Remove the refs and the record of a generation; the history keeps how it ended.

    Its changes of overlays are reverted, unless they were made permanent (StateDb.settle_overlays).
    """
    if records.transitions(number):
        records.revert(number)
        failpoint("undo.overlays")
        overlay_store.sync_refs(sysroot, records)
    sysroot.repo.sync_refs(f"{_REFS}/{number}", {})
    failpoint("undo.unpinned")
    records.end(number, ending.outcome, ending.note)
    records.remove(number)


# --- the parts of a view


def layers_dir(sysroot: Sysroot) -> Path:
    """Return the directory in which layers are checked out."""
    return sysroot.state_dir / "layers"


def lowers(sysroot: Sysroot, booted: Deployment, generation: Generation) -> tuple[Path, ...]:
    """Return the lower directories of a generation's view, the topmost first.

    Layers that are not checked out are checked out. Raises ExternalFailure if that fails.
    """
    checked_out = (layers.check_out(sysroot.repo, name, layers_dir(sysroot)) for name in generation.layers)
    return (*checked_out, *map(Path, generation.uppers), sysroot.directory(booted) / "usr")


def remove_layers_but(
    sysroot: Sysroot, generations: Sequence[Generation], in_use: frozenset[Path] = frozenset()
) -> None:
    """Remove the checkouts of layers, except those that these generations show or that are in use."""
    used = {directory.name for directory in in_use if directory.parent == layers_dir(sysroot)}
    used.update(name for generation in generations for name in generation.layers)
    layers.remove_checkouts(layers_dir(sysroot), frozenset(used))


def described_accounts(sysroot: Sysroot, generation: Generation) -> frozenset[str]:
    """Return the names of the accounts that a generation's tree describes; none if its commit is missing."""
    try:
        return described_names(account_files.described(sysroot.repo, generation.target))
    except ExternalFailure:
        return frozenset()


def mark_unlocked(sysroot: Sysroot) -> None:
    """Set the unlocked state that ostree shows for the booted deployment to that of the mount at /usr."""
    booted = sysroot.deployments().booted
    if booted and booted.unlocked != "hotfix":
        sysroot.mark_unlocked(booted, usrview.unlocked())


# --- upper directories of an unlocked /usr


def uppers_dir(sysroot: Sysroot) -> Path:
    """Return the directory of the upper directories of an unlocked /usr."""
    return sysroot.state_dir / "uppers"


def new_upper(sysroot: Sysroot, like: Path) -> Path:
    """Make and return a directory that contains an upper and a work directory for an unlocked /usr.

    like: the directory whose metadata the upper directory gets.
    """
    parent = uppers_dir(sysroot)
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="upper-", dir=parent))
    for name in ("upper", "work"):
        (directory / name).mkdir()
    buildroot.copy_directory_metadata(like, directory / "upper")
    return directory


def remove_uppers_but(
    sysroot: Sysroot, generations: Sequence[Generation], in_use: frozenset[Path] = frozenset()
) -> None:
    """Remove the upper directories, except those that these generations show or that are in use."""
    used = {Path(upper).parent for generation in generations for upper in generation.uppers}
    used |= {directory.parent for directory in in_use}
    for directory in uppers_dir(sysroot).glob("*"):
        if directory not in used:
            shutil.rmtree(directory, ignore_errors=True)


# --- scratch directories


@contextmanager
def scratch(sysroot: Sysroot) -> Iterator[Path]:
    """Yield an empty directory as a temporary mount point for a view."""
    sysroot.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="view-", dir=sysroot.state_dir))
    try:
        yield directory
    finally:
        directory.rmdir()


def discard_scratch(sysroot: Sysroot) -> None:
    """Remove the directories of `scratch` that a killed process left. The caller holds the system's lock."""
    for directory in sysroot.state_dir.glob("view-*"):
        directory.rmdir()
