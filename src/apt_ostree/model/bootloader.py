"""Loaders on the EFI system partition: what they are, whose they are, and what an update or the way back do.

Debian's shim, signed by Microsoft, starts Debian's GRUB beside it. A tree ships both as files of packages;
the partition has copies. Only these paths are ever written, and only where all loaders of a directory are
known: those that a record of ours names, and those that equal what a deployment of the machine ships.

Order matters, as the power may go between two files. A new shim may no longer start an old GRUB (model.sbat),
but an old shim starts a new GRUB. So GRUB is replaced first and shim last; on the way back shim goes first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from apt_ostree.model.sbat import Sbat, read_program
from apt_ostree.model.versions import version_key

#: Of the loaders that were put on the partition, relative to its root.
RECORD = "EFI/debian/apt-ostree.json"
#: What a previous loader is called.
OLD = ".old"
#: The script of GRUB that finds the menu; the prefix of Debian's signed GRUB is its directory.
SCRIPT = "EFI/debian/grub.cfg"
_DIRECTORIES = ("EFI/BOOT", "EFI/debian")
#: In the GRUB that `compose disk` makes itself (model.grub.first_script).
_OWN_MARK = b"configfile ($root)/grub/grub.cfg"


class Component(StrEnum):
    """A loader, in the order in which they are replaced."""

    GRUB = "grub"
    MOK_MANAGER = "mok-manager"
    FALLBACK = "fallback"
    SHIM = "shim"
    #: GRUB that the machine which composed the disk has made; no tree ships it.
    COMPOSED_GRUB = "composed-grub"


#: Component -> file of the tree.
SOURCES: Mapping[Component, str] = {
    Component.GRUB: "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
    Component.MOK_MANAGER: "usr/lib/shim/mmx64.efi.signed",
    Component.FALLBACK: "usr/lib/shim/fbx64.efi.signed",
    Component.SHIM: "usr/lib/shim/shimx64.efi.signed",
}
#: Component -> package.
PACKAGES: Mapping[Component, str] = {
    Component.GRUB: "grub-efi-amd64-signed",
    Component.SHIM: "shim-signed",
}
#: Path on the partition -> component, in the order in which they are replaced.
PLACES: Mapping[str, Component] = {
    f"{directory}/{name}": component
    for component, names in (
        (Component.GRUB, ("grubx64.efi", "grubx64.efi")),
        (Component.MOK_MANAGER, ("mmx64.efi", "mmx64.efi")),
        (Component.FALLBACK, ("fbx64.efi", "fbx64.efi")),
        (Component.SHIM, ("BOOTX64.EFI", "shimx64.efi")),
    )
    for directory, name in zip(_DIRECTORIES, names, strict=True)
}
#: What `compose disk` writes of a tree that has both shim and GRUB. The fallback loader is left out: beside
#: shim, it would be started in the place of GRUB, to write boot entries into the firmware.
INSTALLED: Mapping[str, Component] = {
    "EFI/BOOT/BOOTX64.EFI": Component.SHIM,
    "EFI/BOOT/grubx64.efi": Component.GRUB,
    "EFI/BOOT/mmx64.efi": Component.MOK_MANAGER,
}


class Owner(StrEnum):
    """Whose a loader is."""

    RECORDED = "recorded"  # the record names it
    SHIPPED = "shipped"  # a deployment ships the same file
    COMPOSED = "composed"  # `compose disk` has made it
    OTHER = "other"


class Action(StrEnum):
    """What happens to a loader."""

    REPLACE = "replace"
    KEEP = "keep"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Loader:
    """A loader, of the partition or of a tree.

    digest: sha256, hexadecimal.
    version: as the loader itself tells; "" if it does not.
    size: in bytes.
    """

    path: str
    component: Component
    digest: str
    size: int
    sbat: Sbat

    @property
    def version(self) -> str:
        """The version, as the loader itself tells it."""
        return self.sbat.version

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        rest = {"digest": self.digest, "size": self.size, "sbat": dict(self.sbat.generations)}
        return {"path": self.path, "component": self.component, "version": self.version, **rest}


def read_loader(path: str, component: Component, data: bytes) -> Loader:
    """Return the loader that a file is."""
    sbat = read_program(data)
    if component is Component.SHIM and sbat is None and _OWN_MARK in data:
        component = Component.COMPOSED_GRUB
    return Loader(path, component, hashlib.sha256(data).hexdigest(), len(data), sbat or Sbat({}))


# --- the record


@dataclass(frozen=True, slots=True)
class Entry:
    """What the record says of a path.

    digest: of the loader that was put there, or is about to be.
    was: of the one before, which PATH.old has; "" without one.
    """

    digest: str
    was: str = ""


Record = Mapping[str, Entry]


def read_record(text: str) -> Record:
    """Return the record of a partition; an empty one for any other text: then digests have to match."""
    try:
        rows = json.loads(text)["loaders"]
        return {path: Entry(str(row["digest"]), str(row["was"])) for path, row in rows.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}


def format_record(record: Record) -> str:
    """Return the text of a record."""
    rows = {path: asdict(record[path]) for path in sorted(record)}
    return json.dumps({"version": 1, "loaders": rows}, indent=1) + "\n"


# --- what is there


@dataclass(frozen=True, slots=True)
class State:
    """The facts that a plan is made of.

    loaders: on the partition, in the order in which they are replaced.
    previous: the loaders beside them under PATH.old, by PATH.
    record: see Entry.
    shipped: what the booted deployment ships.
    known: digests of what any deployment ships.
    secure_boot: whether the firmware has it on; None if that is not known.
    level: the least generations that shim starts (model.sbat).
    """

    loaders: Sequence[Loader]
    previous: Mapping[str, Loader]
    record: Record
    shipped: Mapping[Component, Loader]
    known: frozenset[str]
    secure_boot: bool | None
    level: Mapping[str, int]

    def owner(self, loader: Loader) -> Owner:
        """Return whose a loader is."""
        entry = self.record.get(loader.path)
        if entry and loader.digest in (entry.digest, entry.was):
            return Owner.RECORDED
        if loader.digest in self.known:
            return Owner.SHIPPED
        return Owner.COMPOSED if loader.component is Component.COMPOSED_GRUB else Owner.OTHER

    def others_beside(self, loader: Loader) -> list[str]:
        """Return the paths in the directory of a loader that are not ours: shim and GRUB belong together."""
        directory = _directory(loader.path)
        beside = (one for one in self.loaders if _directory(one.path) == directory)
        return [one.path for one in beside if self.owner(one) is Owner.OTHER]

    def refused(self, loader: Loader) -> list[str]:
        """Return why the firmware would not start a loader; nothing if it would."""
        return loader.sbat.below(self.level) if self.secure_boot else []


def _directory(path: str) -> str:
    return path.rpartition("/")[0]


# --- the plan


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to one loader.

    loader: the present one.
    new: the one that takes its place; None unless the action is to replace.
    """

    loader: Loader
    owner: Owner
    action: Action
    reason: str
    new: Loader | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object: the present loader, and `new-version` and `new-digest`."""
        new = {"new-version": self.new.version, "new-digest": self.new.digest} if self.new else {}
        return {
            **self.loader.to_json(),
            "owner": self.owner,
            "action": self.action,
            "reason": self.reason,
            **new,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What an update, or the way back, does: its steps in their order."""

    steps: tuple[Step, ...]

    @property
    def replaced(self) -> tuple[Step, ...]:
        """The steps that replace a loader."""
        return tuple(step for step in self.steps if step.action is Action.REPLACE)

    @property
    def is_about_ours(self) -> bool:
        """Whether there is any loader that an update may touch."""
        return any(step.action is not Action.LEAVE for step in self.steps)

    @property
    def needed(self) -> int:
        """Bytes that the partition has to have free: the backups, and one new file at a time."""
        sizes = [step.new.size for step in self.replaced if step.new]
        return sum(step.loader.size for step in self.replaced) + max(sizes, default=0)

    def lines(self) -> list[str]:
        """Return a line for each step, for errors."""
        return [f"{step.loader.path}: {step.reason}" for step in self.steps]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"loaders": [step.to_json() for step in self.steps]}


def plan_update(state: State) -> Plan:
    """Return what an update does, GRUB first."""
    return Plan(tuple(_update(state, loader) for loader in state.loaders))


def plan_rollback(state: State) -> Plan:
    """Return what the way back does: each loader that was replaced gets its place again, shim first.

    The way back from the way back is an update, with GRUB first.
    """
    steps = [_rollback(state, loader) for loader in state.loaders]
    is_forward = any(step.new and _is_older(step.loader, step.new) for step in steps)
    return Plan(tuple(steps if is_forward else reversed(steps)))


def _update(state: State, loader: Loader) -> Step:
    owner = state.owner(loader)
    if reason := _left_alone(state, loader, owner):
        return Step(loader, owner, Action.LEAVE, reason)
    new = state.shipped.get(loader.component)
    if reason := _kept(state, loader, new):
        return Step(loader, owner, Action.KEEP, reason)
    assert new
    return Step(loader, owner, Action.REPLACE, f"the booted tree has {new.version or 'another one'}", new)


def _left_alone(state: State, loader: Loader, owner: Owner) -> str:
    """Return why a loader is not ours to touch; "" if it is."""
    if owner is Owner.OTHER:
        return "neither apt-ostree nor a deployment has this file, so that something else owns it"
    if owner is Owner.COMPOSED:
        return "GRUB of the machine that composed the disk; no tree has a newer one"
    others = state.others_beside(loader)
    return f"it belongs together with {', '.join(others)}, which something else owns" if others else ""


def _kept(state: State, loader: Loader, new: Loader | None) -> str:
    """Return why a loader of ours stays as it is; "" if it is to be replaced."""
    if new is None:
        return "the booted tree has none"
    if new.digest == loader.digest:
        return "the booted tree has the same"
    if _is_older(new, loader):
        return f"the booted tree has an older one, {new.version}"
    if refused := state.refused(new):
        return f"Secure Boot would not start that of the booted tree: {', '.join(refused)}"
    return ""


def _is_older(one: Loader, other: Loader) -> bool:
    """Return whether a loader is older than another one of the same component."""
    if one.sbat.below(other.sbat.generations):
        return True
    return version_key(one.version) < version_key(other.version)


def _rollback(state: State, loader: Loader) -> Step:
    owner = state.owner(loader)
    if reason := _left_alone(state, loader, owner):
        return Step(loader, owner, Action.LEAVE, reason)
    entry, old = state.record.get(loader.path), state.previous.get(loader.path)
    if entry is None or old is None or not entry.was or old.digest not in (entry.was, entry.digest):
        return Step(loader, owner, Action.KEEP, "no update has replaced it")
    if old.digest == loader.digest:
        return Step(loader, owner, Action.KEEP, "it is the one from before the update")
    if refused := state.refused(old):
        return Step(
            loader, owner, Action.KEEP, f"Secure Boot would not start the one before: {', '.join(refused)}"
        )
    return Step(loader, owner, Action.REPLACE, f"{old.version or 'another one'} was there before", old)


def recorded(record: Record, steps: Iterable[Step]) -> Record:
    """Return the record in which the steps are carried out, or are being carried out: both files are ours."""
    return {**record, **dict(_entries(steps))}


def _entries(steps: Iterable[Step]) -> Iterator[tuple[str, Entry]]:
    for step in steps:
        if step.new:
            yield step.loader.path, Entry(step.new.digest, step.loader.digest)
