"""A part of what could be made current: what was asked for, and the choice among what differs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.origin import request_name
from apt_ostree.model.package import PackageDiff

#: Metadata of a commit that holds a selection; both are texts.
META_SELECTION = "apt-ostree.selection"  # the options that chose the packages
META_SELECTED_FROM = "apt-ostree.selected-from"  # the commit that the packages were taken from, if any

_KERNEL = "linux-image-"
_NAMES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a pending deployment, or of the archives, is wanted on the running system.

    packages: requests (NAME, NAME=VERSION), or none for everything; excluded: names of packages that stay as
    they are; security: only what brings a security update. Each further one narrows the choice.
    """

    packages: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    security: bool = False

    def __bool__(self) -> bool:
        return bool(self.packages or self.excluded or self.security)

    def __str__(self) -> str:
        words = []
        if self.security:
            words.append("--security")
        if self.packages:
            words.append(f"--packages={','.join(self.packages)}")
        if self.excluded:
            words.append(f"--except={','.join(self.excluded)}")
        return " ".join(words)

    @property
    def names(self) -> frozenset[str]:
        """Return the names of the packages that were asked for."""
        return frozenset(map(request_name, self.packages))

    @property
    def versioned(self) -> tuple[str, ...]:
        """Return the requests for a certain version."""
        return tuple(request for request in self.packages if "=" in request)

    def to_json(self) -> dict[str, Any]:
        """Return the selection as a JSON object."""
        return asdict(self)


#: No choice at all.
EVERYTHING = Selection()


def check(selection: Selection) -> None:
    """Raise UsageError for what contradicts itself."""
    both = sorted(selection.names & frozenset(selection.excluded))
    if both:
        raise UsageError(f"{', '.join(both)} cannot be selected and excepted")
    if selection.security and selection.versioned:
        raise UsageError(
            f"{selection.versioned[0]!r} names a version, which --security chooses",
            hint="leave the version or --security out",
        )
    seen: dict[str, str] = {}
    for request in selection.packages:
        other = seen.setdefault(request_name(request), request)
        if other != request:
            raise UsageError(f"{other!r} and {request!r} are requests for the same package")


def choose(
    selection: Selection,
    offered: PackageDiff,
    *,
    source: str,
    known: frozenset[str],
    settled: frozenset[str],
) -> frozenset[str]:
    """Return the names of the packages to change, of those that `offered` (from what is shown) brings.

    source: what offers them, for messages; known: all names that may be excepted; settled: names that may be
    asked for although nothing is to be done about them. Removals are never chosen: a commit is built by
    installing, and what a removed package leaves behind only a tree without it lacks.
    """
    new = frozenset([p.name for p in offered.added] + [c.name for c in offered.changed])
    gone = frozenset(p.name for p in offered.removed) - new
    strange = sorted(frozenset(selection.excluded) - known)
    if strange:
        raise UsageError(f"package {strange[0]!r}, which is to be excepted, is not known", hint=_offer(new))
    if not selection.packages:
        staying = {name for name in gone.difference(selection.excluded) if not is_kernel(name)}
        if staying and not selection.security:
            raise _only_whole(staying, source, f"add --except={','.join(sorted(staying))} to leave them")
        return new.difference(selection.excluded)
    if selection.names & gone:
        raise _only_whole(selection.names & gone, source, "leave them out, or take all of it")
    missing = sorted(selection.names - new - settled)
    if missing:
        raise UsageError(f"{source} does not change package {missing[0]!r}", hint=_offer(new))
    return selection.names & new


def is_kernel(name: str) -> bool:
    """Tell whether a package carries a kernel or depends on the newest: both wait for the reboot anyway."""
    return name.startswith(_KERNEL)


def enumerate_names(names: Iterable[str]) -> str:
    """Return names for a message, the first ones if there are many."""
    ordered = sorted(names)
    more = len(ordered) - _NAMES_SHOWN
    return ", ".join(ordered[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _offer(names: frozenset[str]) -> str:
    return f"it would change: {enumerate_names(names)}" if names else "nothing differs"


def _only_whole(names: Iterable[str], source: str, hint: str) -> Refused:
    ordered = sorted(names)
    return Refused(
        f"packages can be removed with the whole of {source} only",
        details=[f"{source} has no package {name}" for name in ordered],
        hint=hint,
    )
