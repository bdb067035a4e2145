"""Which packages of the present tree are kept because no archive offers them any more; their archives anew.

Pure: what is asked for, what is there and what is offered in, packages out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from apt_ostree.model.closure import Member, Members, Relation, Satisfies, matches
from apt_ostree.model.origin import request_name
from apt_ostree.model.package import Package

#: Fields of dpkg's database that are none of a package's own (deb-control(5)).
_FIELDS_OF_DPKG = ("status", "conffiles", "config-version", "triggers-pending", "triggers-awaited")

#: The first id that is not the same on every Debian system.
_DYNAMIC_IDS = 100


def kept(
    requests: Sequence[str],
    lost: Collection[str],
    present: Members,
    is_offered: Callable[[Relation], bool],
    satisfies: Satisfies,
    *,
    native: str,
) -> tuple[Package, ...]:
    """Return the packages to keep: those that were asked for and are not offered, and what these need.

    A request without a version is offered if any version is. A dependency is kept if nothing that is offered
    satisfies it.

    requests: NAME, NAME=VERSION or NAME:ARCH.
    lost: requests that must come from the present tree whatever is offered.
    present: the packages that may be kept.
    is_offered: whether a package that can be installed satisfies a relation.
    satisfies: compares versions.
    native: the architecture of requests that name none.
    """
    relations = [_relation(request, native) for request in requests]
    waiting = [relation for relation in relations if not is_offered(relation)]
    waiting += [_relation(request) for request in lost]
    result: set[Package] = set()
    while waiting:
        for member in _matching(present, waiting.pop(), satisfies):
            if member.package not in result:
                result.add(member.package)
                unmet = (group for group in member.depends if not any(map(is_offered, group)))
                waiting += [relation for group in unmet for relation in group]
    return tuple(sorted(result))


def needed(names: Collection[str], present: Members, satisfies: Satisfies) -> frozenset[Package]:
    """Return the packages of these names, and those that they depend on, directly or not."""
    waiting = [member for member in present.values() if member.package.name in names]
    result: set[Package] = set()
    while waiting:
        member = waiting.pop()
        if member.package not in result:
            result.add(member.package)
            relations = (relation for group in member.depends for relation in group)
            waiting += [other for one in relations for other in _matching(present, one, satisfies)]
    return frozenset(result)


def _relation(request: str, native: str = "") -> Relation:
    version = request.partition("=")[2]
    name, _, architecture = request_name(request).partition(":")
    return Relation(name, "=" if version else "", version, architecture or native)


def _matching(present: Members, relation: Relation, satisfies: Satisfies) -> Iterator[Member]:
    return (member for member in present.values() if matches(member, relation, satisfies))


def control(paragraph: str) -> str:
    """Return the control file of a package, from its paragraph in dpkg's database."""
    lines: list[str] = []
    own = True
    for line in paragraph.splitlines():
        if not line.startswith((" ", "\t")):
            own = line.partition(":")[0].lower() not in _FIELDS_OF_DPKG
        if own and line:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def as_shipped(mode: int, owner: int, group: int) -> tuple[int, int, int]:
    """Return the mode, owner and group that a path had in its package.

    Packages ship what belongs to static ids (Debian Policy, 9.2.2). What belongs to other ids was given to
    them by scripts, which do it again; until then, the same number may be somebody else's.
    """
    if max(owner, group) < _DYNAMIC_IDS:
        return mode, owner, group
    return mode & 0o1777, owner if owner < _DYNAMIC_IDS else 0, group if group < _DYNAMIC_IDS else 0


def truename(path: str, package: str, diversions: Mapping[str, tuple[str, str]]) -> str:
    """Return where a package's file is.

    diversions: path -> where it is diverted to, and the package whose own file is not diverted.
    """
    target, diverter = diversions.get(path, (path, package))
    return path if diverter == package else target
