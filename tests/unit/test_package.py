"""Differences of sets of packages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model.package import Package, diff_packages

packages = st.builds(
    Package, st.sampled_from("abcd"), st.sampled_from("12"), st.sampled_from(["all", "amd64"])
)
package_sets = st.lists(packages, unique_by=lambda p: (p.name, p.architecture)).map(frozenset)


@given(package_sets, package_sets)
def test_a_package_difference_leads_from_one_set_to_the_other(
    old: frozenset[Package], new: frozenset[Package]
):
    diff = diff_packages(old, new)
    same = {(p.name, p.architecture) for p in old}
    # What was there before in another architecture, or in this one.
    changed = {
        Package(c.name, c.old, arch)
        for c in diff.changed
        for arch in ([c.architecture] if (c.name, c.architecture) in same else ["all", "amd64"])
    }
    result = old - set(diff.removed) - changed
    result |= {Package(c.name, c.new, c.architecture) for c in diff.changed} | set(diff.added)
    assert result == new
    assert bool(diff) == (old != new)
    assert diff.only_removed == (new < old)


def test_a_package_that_becomes_independent_of_the_architecture_is_changed():
    old = [Package("a", "1", "amd64"), Package("b", "1", "all"), Package("c", "1", "amd64")]
    new = [Package("a", "2", "all"), Package("b", "2", "amd64"), Package("c", "2", "i386")]
    diff = diff_packages(old, new)
    assert [(c.name, c.architecture, c.old, c.new) for c in diff.changed] == [
        ("a", "all", "1", "2"),
        ("b", "amd64", "1", "2"),
    ]
    assert (diff.removed, diff.added) == ((old[2],), (new[2],))


def test_it_is_not_when_another_architecture_of_it_stays_or_comes():
    one, other = Package("a", "1", "amd64"), Package("a", "1", "i386")
    assert diff_packages([one, other], [Package("a", "2", "all")]).changed == ()
    assert diff_packages([Package("a", "2", "all")], [one, other]).changed == ()
    assert [c.name for c in diff_packages([one, other], [other, Package("a", "2", "all")]).changed] == ["a"]
