"""Finds the packages of requests (NAME, NAME=VERSION, NAME:ARCH), and makes the error for unknown ones."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import apt_pkg

from apt_ostree.errors import UsageError

_SEARCH = "check the name with 'apt-ostree search', or run 'apt-ostree refresh-md'"


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request names no package that can be installed.

    name: of the request.
    reason: the rest of a sentence that begins with the name.
    remedy: a hint for the user, or empty.
    unknown: no archive has a package of this name.
    """

    name: str
    reason: str
    remedy: str = ""
    unknown: bool = False


def find(cache: apt_pkg.Cache, name: str) -> apt_pkg.Package | Problem:
    """Return the package of a name (NAME or NAME:ARCH), or the only one that provides the name."""
    plain, _, architecture = name.partition(":")
    try:
        pkg = cache[plain, architecture] if architecture else cache[plain]
    except KeyError:
        return Problem(name, "is not known", unknown=True)
    if pkg.has_versions:
        return pkg
    providers = sorted({row[2].parent_pkg.name for row in pkg.provides_list})
    if len(providers) == 1:
        return cache[providers[0]]
    if providers:
        return Problem(name, "is virtual", "choose one that provides it: " + ", ".join(providers))
    return Problem(name, "is not known", unknown=True)


def no_version(pkg: apt_pkg.Package, name: str, version: str) -> Problem:
    """Return the problem that a package has no such version."""
    offered = ", ".join(sorted({other.ver_str for other in pkg.version_list}))
    return Problem(name, f"has no version {version!r}", f"known: {offered}")


def refusal(problems: Sequence[Problem], cache: apt_pkg.Cache) -> UsageError:
    """Return one error about all problems; unknown names get a proposal from the cache."""
    begins = {problem.name[:1] for problem in problems if problem.unknown}
    names = {pkg.name for pkg in cache.packages if begins and pkg.name[:1] in begins and pkg.has_versions}
    return explain([with_proposal(problem, names) for problem in problems])


def with_proposal(problem: Problem, names: Iterable[str]) -> Problem:
    """Add a similar name to the problem of an unknown one.

    Only names with the same first letter are compared, as comparing is slow.
    """
    if not problem.unknown:
        return problem
    plain = problem.name.partition(":")[0]
    alike = [name for name in names if name[:1] == plain[:1] and abs(len(name) - len(plain)) <= 3]
    near = difflib.get_close_matches(plain, sorted(alike), n=1, cutoff=0.75)
    return replace(problem, remedy=f"did you mean '{near[0]}'?") if near else problem


def explain(problems: Collection[Problem]) -> UsageError:
    """Return one error about all problems, each with its reason."""
    search = _SEARCH if any(problem.unknown for problem in problems) else ""
    if len(problems) == 1:
        (problem,) = problems
        hint = " ".join(filter(None, (problem.remedy, search)))
        return UsageError(f"package {problem.name!r} {problem.reason}", hint=hint or None)
    what = "are not known" if all(problem.unknown for problem in problems) else "cannot be found"
    names = ", ".join(problem.name for problem in problems)
    return UsageError(
        f"{len(problems)} packages {what}: {names}",
        details=["; ".join(filter(None, (f"{p.name} {p.reason}", p.remedy))) for p in problems],
        hint=search or "nothing was changed",
    )
