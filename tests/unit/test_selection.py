"""Choosing a part of what differs, and what has to come along with it."""

from __future__ import annotations

import apt_pkg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.errors import AptOstreeError, Refused, UsageError
from apt_ostree.model.closure import Closure, Key, Member, Relation, close
from apt_ostree.model.package import Package, PackageDiff, diff_packages
from apt_ostree.model.selection import Selection, check, choose
from apt_ostree.system.apt import status

SHOWN = [Package(name, "1", "all") for name in ("a", "b", "c", "gone", "linux-image-1")]
TARGET = [Package(name, "2", "all") for name in ("a", "b")] + [
    Package("c", "1", "all"), Package("new", "2", "all"), Package("linux-image-2", "2", "all")
]  # fmt: skip
OFFERED = diff_packages(SHOWN, TARGET)
KNOWN = frozenset(p.name for p in SHOWN + TARGET)


def chosen(selection: Selection, settled: frozenset[str] = frozenset(), offered: PackageDiff = OFFERED):
    return choose(selection, offered, source="the deployment", all_names=KNOWN, settled=settled)


def test_choice_by_name():
    assert chosen(Selection(("a",))) == {"a"}
    assert chosen(Selection(("a", "new"))) == {"a", "new"}
    assert chosen(Selection(("new=2",))) == {"new"}
    assert chosen(Selection(("linux-image-2",))) == {"linux-image-2"}


def test_choice_by_exception():
    assert chosen(Selection((), ("a", "gone"))) == {"b", "new", "linux-image-2"}
    assert chosen(Selection((), ("a",), security=True)) == {"b", "new", "linux-image-2"}
    assert chosen(Selection((), ("c", "gone"))) == {"a", "b", "new", "linux-image-2"}


def test_names_that_are_not_there():
    with pytest.raises(UsageError) as caught:
        chosen(Selection(("c",)))
    assert "does not change c" in caught.value.message and "a, b, linux-image-2, new" in (
        caught.value.hint or ""
    )
    assert chosen(Selection(("c", "a")), settled=frozenset("c")) == {"a"}
    with pytest.raises(UsageError):
        chosen(Selection((), ("typo",)))
    with pytest.raises(UsageError) as caught:
        chosen(Selection(("c",)), offered=PackageDiff())
    assert caught.value.hint == "nothing differs"
    many = PackageDiff(added=tuple(Package(f"p{n:03}", "1", "all") for n in range(100)))
    with pytest.raises(UsageError) as caught:
        chosen(Selection(("c",)), offered=many)
    assert "p019 and 80 more" in (caught.value.hint or "")


def test_removals_are_the_whole_deployments():
    for selection in (Selection(("a", "gone")), Selection((), ("a",))):
        with pytest.raises(Refused) as caught:
            chosen(selection)
        assert caught.value.details == ("the deployment has no package gone",)


@pytest.mark.parametrize(
    "selection",
    [
        Selection(("a", "b"), ("b",)), Selection(("a=1",), ("a",)), Selection(("a=1",), security=True),
        Selection(("a=1", "a=2")), Selection(("a", "a=2")),
    ],
)  # fmt: skip
def test_contradictions(selection: Selection):
    with pytest.raises(UsageError):
        check(selection)


def test_selection_as_text():
    assert str(Selection(("a=1", "b"), ("c",))) == "--packages=a=1,b --except=c"
    assert str(Selection((), ("c", "d"), security=True)) == "--security --except=c,d"
    assert not Selection()
    check(Selection(("a", "b"), ("c",), security=True))


NAMES = st.sampled_from("abcdefgh")


@given(
    st.sets(st.builds(Package, NAMES, st.sampled_from("12"), st.just("all")), max_size=8),
    st.sets(st.builds(Package, NAMES, st.sampled_from("12"), st.just("all")), max_size=8),
    st.sets(NAMES, max_size=3),
    st.sets(NAMES, max_size=3),
)
def test_choice_is_of_what_differs(old, new, names, excluded):
    offered = diff_packages(old, new)
    selection = Selection(tuple(names), tuple(excluded))
    try:
        check(selection)
        found = choose(selection, offered, source="it", all_names=frozenset("abcdefgh"), settled=frozenset())
    except AptOstreeError:
        return
    assert found <= {p.name for p in offered.added} | {c.name for c in offered.changed}
    assert not found & excluded
    assert not names or found == names


# --- what comes along


def satisfies(version: str, operator: str, other: str) -> bool:
    return {
        "<": version < other, "<=": version <= other, "=": version == other, ">=": version >= other,
        ">": version > other,
    }[operator]  # fmt: skip


def relation(text: str) -> Relation:
    return Relation(*text.split())


def member(name: str, *depends: str, breaks: tuple[str, ...] = (), provides: tuple[str, ...] = ()) -> Member:
    """Return a member from "NAME VERSION", groups such as "x >= 2|y", and relations."""
    plain, version = name.split()
    groups = tuple(tuple(map(relation, group.split("|"))) for group in depends)
    virtual = tuple((words[0], words[1] if len(words) > 1 else "") for p in provides if (words := p.split()))
    return Member(Package(plain, version, "all"), groups, tuple(map(relation, breaks)), virtual)


def closed(shown: list[Member], target: list[Member], *names: str, excluded: str = "") -> Closure:
    sets: list[dict[Key, Member]] = [{m.key: m for m in members} for members in (shown, target)]
    return close(*sets, frozenset(names), excluded=frozenset(excluded.split()), satisfies=satisfies)


def changes(closure: Closure) -> tuple[list[str], list[str]]:
    return [p.name for p in closure.chosen], [p.package.name for p in closure.pulled]


ONE, TWO = [member(f"{n} 1") for n in "xyz"], [member(f"{n} 2") for n in "xyz"]


def test_nothing_comes_along_without_need():
    assert changes(closed(ONE, TWO, "x")) == (["x"], [])
    assert changes(closed(ONE, TWO, "x", "z")) == (["x", "z"], [])
    assert changes(closed(ONE, [*TWO[:2], member("z 2", "x")], "z")) == (["z"], [])
    assert changes(closed(ONE, ONE, "x")) == ([], [])


def test_dependencies_come_along():
    target = [member("x 2", "y >= 2"), member("y 2", "new"), member("z 2"), member("new 1")]
    found = closed(ONE, target, "x")
    assert changes(found) == (["x"], ["new", "y"])
    assert [entry.reason for entry in found.pulled] == ["y 2 depends on new", "x 2 depends on y (>= 2)"]
    blocked = closed(ONE, target, "x", excluded="new").blocked
    assert blocked == ("y 2 depends on new, and new is excepted",)


def test_what_needs_the_old_version_comes_along():
    shown = [member("x 1"), member("y 1", "x = 1"), member("z 1")]
    target = [member("x 2"), member("y 2", "x = 2"), member("z 2")]
    assert changes(closed(shown, target, "x")) == (["x"], ["y"])
    assert closed(shown, target, "x", excluded="y").blocked == ("y 1 depends on x (= 1), and y is excepted",)
    gone = closed(shown, [*target[:1], target[2]], "x")
    assert gone.blocked == ("y 1 depends on x (= 1), and only the whole deployment can remove y",)


def test_what_is_broken_comes_along():
    target = [member("x 2", breaks=("y < 2",)), *TWO[1:]]
    assert changes(closed(ONE, target, "x")) == (["x"], ["y"])
    shown = [member("x 1", breaks=("y > 1",)), *ONE[1:]]
    assert changes(closed(shown, TWO, "y")) == (["y"], ["x"])
    assert closed(ONE, [target[0]], "x").blocked == (
        "x 2 conflicts with y 1, and only the whole deployment can remove y",
    )


def test_alternatives_and_virtual_packages():
    target = [member("x 2", "w|v"), *TWO[1:], member("u 1", provides=("v",))]
    assert changes(closed(ONE, target, "x")) == (["x"], ["u"])
    target = [member("x 2", "v >= 2"), member("y 2", provides=("v 2",)), TWO[2]]
    assert changes(closed([ONE[0], member("y 1", provides=("v 1",)), ONE[2]], target, "x")) == (["x"], ["y"])
    own = [member("x 2", breaks=("mta",), provides=("mta",)), *TWO[1:]]
    assert changes(closed(ONE, own, "x")) == (["x"], [])


def test_a_package_that_changes_its_architecture():
    native = [Member(Package(m.package.name, "2", "amd64"), m.depends, m.conflicts) for m in TWO]
    target = [native[0], Member(Package("y", "2", "amd64"), ((relation("x >= 2"),),)), native[2]]
    assert changes(closed(ONE, target, "y")) == (["y"], ["x"])


def test_old_troubles_are_left_alone():
    shown = [member("x 1", "missing"), member("y 1", breaks=("z",)), member("z 1")]
    assert changes(closed(shown, TWO, "z")) == (["z"], ["y"])  # a new z is a new trouble, which a new y ends
    assert changes(closed(shown, [shown[0], *TWO[1:]], "y")) == (["y"], [])


def problems(members: dict[Key, Member]) -> int:
    found = 0
    for one in members.values():
        versions = {m.package.name: m.package.version for m in members.values()}
        for group in one.depends:
            found += not any(
                r.name in versions and (not r.operator or satisfies(versions[r.name], r.operator, r.version))
                for r in group
            )
        for r in one.conflicts:
            other = versions.get(r.name)
            found += other is not None and r.name != one.package.name and satisfies(other, "<", r.version)
    return found


RELATION = st.builds(Relation, NAMES, st.sampled_from(("<", "=", ">=")), st.sampled_from("123"))
GROUP = st.lists(st.one_of(RELATION, st.builds(Relation, NAMES)), min_size=1, max_size=2).map(tuple)
BREAKS = st.builds(Relation, NAMES, st.just("<"), st.sampled_from("23"))


@st.composite
def whole_sets(draw: st.DrawFn) -> dict[Key, Member]:
    """Sets of packages without a problem: what would have one is left out, as long as there is any."""
    found: dict[Key, Member] = {}
    for name in draw(st.sets(NAMES)):
        package = Package(name, draw(st.sampled_from("123")), "all")
        depends = tuple(draw(st.lists(GROUP, max_size=2)))
        one = Member(package, depends, tuple(draw(st.lists(BREAKS, max_size=1))))
        found[one.key] = one
    for key in sorted(found):
        without = {k: Member(m.package, (), m.conflicts) if k == key else m for k, m in found.items()}
        if problems({**found}) != problems(without):
            found = without
    return found if not problems(found) else {k: Member(m.package) for k, m in found.items()}


@given(whole_sets(), whole_sets(), st.sets(NAMES), st.sets(NAMES, max_size=2))
def test_the_mixture_is_whole(shown, target, names, excluded):
    names -= excluded
    found = close(shown, target, frozenset(names), excluded=frozenset(excluded), satisfies=satisfies)
    if found.blocked:
        return
    pulled = {entry.package.name for entry in found.pulled}
    assert not pulled & (names | excluded)
    assert {p.name for p in found.chosen} <= names
    moved = {p.name for p in found.chosen} | pulled
    mixture = shown | {key: m for key, m in target.items() if key[0] in moved}
    # A version that both sets hold is one package; the sets that are made up may give it two descriptions.
    if all(shown[key] == target[key] for key in shown.keys() & target.keys()
           if shown[key].package == target[key].package):  # fmt: skip
        assert not problems(mixture)
    again = close(mixture, target, frozenset(names), excluded=frozenset(excluded), satisfies=satisfies)
    assert not again.chosen


# --- from dpkg's own words


STATUS = b"""\
Package: one
Status: install ok installed
Version: 1:2.0-1
Architecture: amd64
Pre-Depends: init
Depends: libc6 (>= 2.3), python3:any (<< 4) | perl
Breaks: two (<< 2~)
Provides: mail-agent, api (= 3)

Package: two
Status: deinstall ok config-files
Version: 1
Architecture: all
"""


def test_members_of_a_database():
    apt_pkg.init_system()
    assert list(status.members(STATUS).values()) == [
        Member(
            Package("one", "1:2.0-1", "amd64"),
            (
                (Relation("init"),),
                (Relation("libc6", ">=", "2.3"),),
                (Relation("python3", "<", "4"), Relation("perl")),
            ),
            (Relation("two", "<", "2~"),),
            (("mail-agent", ""), ("api", "3")),
        )
    ]
