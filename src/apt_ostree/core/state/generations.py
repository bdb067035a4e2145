"""What generations keep on the disk: refs that hold their commits, layers, uppers, scratch directories.

Everything lies in the state directory on the repository's file system (`Sysroot.state_dir`), or in refs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core.state import overlay_store
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import layout
from apt_ostree.model.accounts import described_names
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.generation import Generation
from apt_ostree.model.history import Outcome
from apt_ostree.system import buildroot, usrview
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff, layers
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb

_REFS = "apt-ostree/live"


@dataclass(frozen=True, slots=True)
class Ending:
    """How generations end that are undone.

    note: for the history; with_units: not while the system starts, when nothing runs yet.
    """

    outcome: Outcome
    note: str
    with_units: bool = True


# --- refs and records


def pin(sysroot: Sysroot, number: int, shown: Sequence[str], further: Sequence[str]) -> None:
    """Keep a generation's commits from being pruned: what it shows, the base first, and further ones."""
    prefix = f"{_REFS}/{number}"
    layers_and_overlays = [name for name in dict.fromkeys((*further, *shown[1:])) if name != shown[0]]
    refs = {f"{prefix}/layer{i}": name for i, name in enumerate(layers_and_overlays)}
    sysroot.repo.sync_refs(prefix, {f"{prefix}/target": shown[0], **refs})


def unpin_all_but(sysroot: Sysroot, numbers: frozenset[int]) -> None:
    """Remove the refs of generations of which neither a record nor a mount is left."""
    for ref in sysroot.repo.refs(_REFS):
        number = ref.removeprefix(f"{_REFS}/").partition("/")[0]
        if not (number.isdecimal() and int(number) in numbers):
            sysroot.repo.set_ref(ref, None)


def pinned_target(sysroot: Sysroot, number: int) -> str | None:
    """Return the base commit of a generation as its ref has it, which anybody may read."""
    ref = f"{_REFS}/{number}/target"
    return sysroot.repo.refs(f"{_REFS}/{number}").get(ref)


def forget(sysroot: Sysroot, records: StateDb, number: int, ending: Ending) -> None:
    """Remove a generation's refs and its record; the history keeps how it ended.

    What it made of overlays is undone with it, unless that was settled (StateDb.settle_overlays).
    """
    if records.transitions(number):
        records.revert(number)
        failpoint("undo.overlays")
        overlay_store.sync_refs(sysroot, records)
    sysroot.repo.sync_refs(f"{_REFS}/{number}", {})
    failpoint("undo.unpinned")
    records.end(number, ending.outcome, ending.note)
    records.remove(number)


# --- what a view is made of


def layers_dir(sysroot: Sysroot) -> Path:
    """Return where layers are checked out."""
    return sysroot.state_dir / "layers"


def lowers(sysroot: Sysroot, booted: Deployment, generation: Generation) -> tuple[Path, ...]:
    """Return the directories that a generation's view is made of, the topmost first."""
    checked_out = (layers.check_out(sysroot.repo, name, layers_dir(sysroot)) for name in generation.layers)
    return (*checked_out, *map(Path, generation.uppers), sysroot.directory(booted) / "usr")


def remove_layers_but(sysroot: Sysroot, generations: Sequence[Generation]) -> None:
    """Remove the checkouts of layers that none of these generations shows."""
    used = frozenset(name for generation in generations for name in generation.layers)
    layers.remove_checkouts(layers_dir(sysroot), used)


def described_accounts(sysroot: Sysroot, generation: Generation) -> frozenset[str]:
    """Return the names of accounts that a generation's tree describes, as far as it is still here."""
    try:
        checksum = diff.file_of(sysroot.repo, generation.target, layout.SYSUSERS)
    except ExternalFailure:
        return frozenset()
    return described_names(sysroot.repo.file_state(checksum).content.decode()) if checksum else frozenset()


def settle_unlocked(sysroot: Sysroot) -> None:
    """Have ostree tell whether /usr is unlocked as the mount that is shown has it."""
    booted = sysroot.deployments().booted
    if booted and booted.unlocked != "hotfix":
        sysroot.mark_unlocked(booted, usrview.unlocked())


# --- uppers of an unlocked /usr


def uppers_dir(sysroot: Sysroot) -> Path:
    """Return where the writable layers of an unlocked /usr are."""
    return sysroot.state_dir / "uppers"


def new_upper(sysroot: Sysroot, like: Path) -> Path:
    """Make a directory with an upper and a work directory for an unlocked system's view."""
    parent = uppers_dir(sysroot)
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="upper-", dir=parent))
    for name in ("upper", "work"):
        (directory / name).mkdir()
    buildroot.copy_directory_metadata(like, directory / "upper")
    return directory


def remove_uppers_but(sysroot: Sysroot, generations: Sequence[Generation]) -> None:
    """Remove the writable layers that none of these generations shows."""
    used = {Path(upper).parent for generation in generations for upper in generation.uppers}
    for directory in uppers_dir(sysroot).glob("*"):
        if directory not in used:
            shutil.rmtree(directory, ignore_errors=True)


# --- scratch directories


@contextmanager
def scratch(sysroot: Sysroot) -> Iterator[Path]:
    """Give an empty directory to assemble a view on."""
    sysroot.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="view-", dir=sysroot.state_dir))
    try:
        yield directory
    finally:
        directory.rmdir()


def discard_scratch(sysroot: Sysroot) -> None:
    """Remove what `scratch` made and a killed process left behind. The caller holds the system's lock."""
    for directory in sysroot.state_dir.glob("view-*"):
        directory.rmdir()
