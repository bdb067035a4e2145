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
    changed = {(c.name, c.architecture): c for c in diff.changed}
    result = {p for p in old - set(diff.removed) if (p.name, p.architecture) not in changed}
    result |= {Package(c.name, c.new, c.architecture) for c in diff.changed} | set(diff.added)
    assert result == new
    assert bool(diff) == (old != new)
    assert diff.only_removed == (new < old)
