"""The further packages that must change when some change to their versions in another consistent set.

Pure: packages with their relations in, packages and reasons out. The caller compares versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from apt_ostree.model.package import Package

Key = tuple[str, str]  # name, architecture
#: (version, operator, other version) -> whether it holds; the operator is <, <=, =, >=, > or empty.
Satisfies = Callable[[str, str, str], bool]


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation to a package.

    operator, version: empty if any version satisfies it.
    architecture: that of the package; empty if any will do.
    """

    name: str
    operator: str = ""
    version: str = ""
    architecture: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.operator} {self.version})" if self.operator else self.name


@dataclass(frozen=True, slots=True)
class Member:
    """A package with its relations.

    depends: groups of alternatives.
    conflicts: Conflicts and Breaks.
    provides: (virtual package, version or empty).
    """

    package: Package
    depends: tuple[tuple[Relation, ...], ...] = ()
    conflicts: tuple[Relation, ...] = ()
    provides: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> Key:
        """Return the key of the package in a set."""
        return self.package.name, self.package.architecture


Members = Mapping[Key, Member]


@dataclass(frozen=True, slots=True)
class Pulled:
    """A further package that must change, in its new version, and the reason."""

    package: Package
    reason: str


@dataclass(frozen=True, slots=True)
class Closure:
    """The packages that have to change.

    chosen: the selected packages.
    pulled: further packages that these need.
    blocked: reasons why the change is not possible.
    """

    chosen: tuple[Package, ...] = ()
    pulled: tuple[Pulled, ...] = ()
    blocked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Problem:
    """An unsatisfied relation.

    group: alternatives that no member satisfies, or a relation that `other` must not satisfy.
    """

    member: Member
    group: tuple[Relation, ...]
    other: Member | None = None

    def __str__(self) -> str:
        if self.other:
            return f"{self.member.package.label} conflicts with {self.other.package.label}"
        return f"{self.member.package.label} depends on {' | '.join(map(str, self.group))}"


@dataclass
class _Mix:
    """A set of packages, in which members are replaced by those of another set."""

    satisfies: Satisfies
    members: dict[Key, Member] = field(default_factory=dict)
    _by_name: dict[str, dict[Key, Member]] = field(default_factory=dict)

    def put(self, member: Member) -> None:
        """Add a member, or replace that of its name and architecture; `all` equals every architecture."""
        name, architecture = member.key
        for key, present in list(self._by_name.get(name, {}).items()):
            if key == member.key or (key[0] == name and "all" in (key[1], architecture)):
                del self.members[key]
                for provided in _names(present):
                    del self._by_name[provided][key]
        self.members[member.key] = member
        for provided in _names(member):
            self._by_name.setdefault(provided, {})[member.key] = member

    def matching(self, relation: Relation) -> list[Member]:
        """Return the members that match a relation."""
        candidates = self._by_name.get(relation.name, {}).values()
        return [member for member in candidates if matches(member, relation, self.satisfies)]

    def of_name(self, key: Key) -> Member | None:
        """Return the member of that name and architecture, or one of that name that has replaced it."""
        others = (member for other, member in self._by_name.get(key[0], {}).items() if other[0] == key[0])
        return self.members.get(key) or next(others, None)

    def problems(self) -> Iterator[_Problem]:
        """Yield the unsatisfied relations of the set."""
        for member in self.members.values():
            for group in member.depends:
                if not any(self.matching(relation) for relation in group):
                    yield _Problem(member, group)
            for relation in member.conflicts:
                for other in self.matching(relation):
                    if other.package.name != member.package.name:
                        yield _Problem(member, (relation,), other)

    def still_has(self, problem: _Problem) -> bool:
        """Return whether a problem still exists."""
        if self.members.get(problem.member.key) is not problem.member:
            return False
        if problem.other:
            return self.members.get(problem.other.key) is problem.other
        return not any(self.matching(relation) for relation in problem.group)


def close(
    shown: Members, target: Members, chosen: frozenset[str], *, excluded: frozenset[str], satisfies: Satisfies
) -> Closure:
    """Return the packages that change if the chosen names of `shown` get the versions of `target`.

    Missing dependencies are taken from the target, and packages that no longer fit are changed to their
    versions there. As the target is consistent, this ends with all of it at the latest. Problems that `shown`
    or `target` has already are ignored; the resolver handles the latter.

    chosen: names of the packages to change.
    excluded: names of packages that must not change.
    satisfies: compares versions.
    """
    mix, goal = _Mix(satisfies), _Mix(satisfies)
    for member in shown.values():
        mix.put(member)
    for member in target.values():
        goal.put(member)
    ignored = set(mix.problems())
    picked = [m for key, m in sorted(target.items()) if key[0] in chosen and not _same(shown.get(key), m)]
    for member in picked:
        mix.put(member)
    pulled: dict[Key, Pulled] = {}
    blocked: list[str] = []
    while problems := [problem for problem in mix.problems() if problem not in ignored]:
        for problem in problems:
            if not mix.still_has(problem):
                continue
            key = _remedy(problem, mix, goal)
            successor = goal.of_name(key) if key else None
            if key is None or successor is None or key[0] in excluded:
                ignored.add(problem)
                blocked += [f"{problem}, and {_obstacle(key, excluded)}"] if key else []
                continue
            mix.put(successor)
            pulled[successor.key] = Pulled(successor.package, str(problem))
    return Closure(
        tuple(m.package for m in picked), tuple(p for _key, p in sorted(pulled.items())), tuple(blocked)
    )


def _remedy(problem: _Problem, mix: _Mix, goal: _Mix) -> Key | None:
    """Return the key of the member to replace by the target's, or None if the target has the same problem."""

    def is_old(member: Member) -> bool:
        return not _same(goal.members.get(member.key), member)

    if problem.other and is_old(problem.other):
        return problem.other.key
    if is_old(problem.member):
        return problem.member.key
    if problem.other:
        return None
    for relation in problem.group:
        for member in sorted(goal.matching(relation), key=lambda member: member.key):
            if not _same(mix.members.get(member.key), member):
                return member.key
    return None


def _obstacle(key: Key, excluded: frozenset[str]) -> str:
    if key[0] in excluded:
        return f"{key[0]} is excepted"
    return f"only the whole deployment can remove {key[0]}"


def _same(one: Member | None, other: Member) -> bool:
    return one is not None and one.package == other.package


def _names(member: Member) -> set[str]:
    return {member.package.name, *(name for name, _version in member.provides)}


def matches(member: Member, relation: Relation, satisfies: Satisfies) -> bool:
    """Return whether a package, or what it provides, satisfies a relation."""
    if relation.architecture and member.package.architecture not in (relation.architecture, "all"):
        return False
    versions = [member.package.version] if member.package.name == relation.name else []
    versions += [version for name, version in member.provides if name == relation.name]
    return any(
        not relation.operator or (version and satisfies(version, relation.operator, relation.version))
        for version in versions
    )
