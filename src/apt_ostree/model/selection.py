"""A selection of the packages that a live change applies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.kernel import is_kernel
from apt_ostree.model.origin import request_name
from apt_ostree.model.package import PackageDiff

#: Metadata of a commit that was built for a selection; both are strings.
META_SELECTION = "apt-ostree.selection"  # the options that chose the packages
META_SELECTED_FROM = "apt-ostree.selected-from"  # the commit that the packages were taken from, if any

_NAMES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Selection:
    """The packages of a pending deployment, or of the archives, to apply on the running system.

    A package is selected if it meets all criteria.

    packages: requests (NAME, NAME=VERSION); none selects all packages.
    excluded: names of packages that do not change.
    security: only packages with a security update.
    """

    packages: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    security: bool = False

    def __bool__(self) -> bool:
        return bool(self.packages or self.excluded or self.security)

    def __str__(self) -> str:
        options = []
        if self.security:
            options.append("--security")
        if self.packages:
            options.append(f"--packages={','.join(self.packages)}")
        if self.excluded:
            options.append(f"--except={','.join(self.excluded)}")
        return " ".join(options)

    @property
    def names(self) -> frozenset[str]:
        """Return the names of the requested packages."""
        return frozenset(map(request_name, self.packages))

    @property
    def versioned(self) -> tuple[str, ...]:
        """Return the requests with a version."""
        return tuple(request for request in self.packages if "=" in request)

    def to_json(self) -> dict[str, Any]:
        """Return the selection as a JSON object."""
        return asdict(self)


#: Selects all packages.
EVERYTHING = Selection()


def check(selection: Selection) -> None:
    """Raise UsageError for a selection that contradicts itself."""
    both = sorted(selection.names & frozenset(selection.excluded))
    if both:
        raise UsageError(f"{', '.join(both)} cannot be selected and excepted")
    if selection.security and selection.versioned:
        raise UsageError(
            f"{selection.versioned[0]!r} names a version, which --security chooses",
            hint="leave the version or --security out",
        )
    request_of: dict[str, str] = {}
    for request in selection.packages:
        other = request_of.setdefault(request_name(request), request)
        if other != request:
            raise UsageError(f"{other!r} and {request!r} are requests for the same package")


def choose(
    selection: Selection,
    offered: PackageDiff,
    *,
    source: str,
    all_names: frozenset[str],
    settled: frozenset[str],
) -> frozenset[str]:
    """Return the names of the selected packages.

    Refused is raised if a removal would be selected, which only the whole of the source can do: a selection
    is built by installing packages. UsageError names unknown and unchanged packages.

    offered: the difference between the packages that are shown and those of the source.
    source: of the packages, for messages.
    all_names: names that may be excluded.
    settled: names that may be requested without a difference.
    """
    new = frozenset([p.name for p in offered.added] + [c.name for c in offered.changed])
    removed = frozenset(p.name for p in offered.removed) - new
    unknown = sorted(frozenset(selection.excluded) - all_names)
    if unknown:
        raise UsageError(f"no package is named {', '.join(unknown)} (--except)", hint=_offer(new))
    if not selection.packages:
        staying = {name for name in removed.difference(selection.excluded) if not is_kernel(name)}
        if staying and not selection.security:
            raise _only_whole(staying, source, f"add --except={','.join(sorted(staying))} to leave them")
        return new.difference(selection.excluded)
    if selection.names & removed:
        raise _only_whole(selection.names & removed, source, "leave them out, or take all of it")
    missing = sorted(selection.names - new - settled)
    if missing:
        raise UsageError(f"{source} does not change {', '.join(missing)}", hint=_offer(new))
    return selection.names & new


def enumerate_names(names: Iterable[str]) -> str:
    """Return names as a list for a message; only the first ones if there are many."""
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
