"""Updates that are known, and the order of versions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import apt_pkg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.model.package import Package, PackageChange, PackageDiff
from apt_ostree.model.package_plan import PackagePlan, Step
from apt_ostree.model.update import Update, packages_after, parse_record
from apt_ostree.model.versions import epoch_of, version_key
from apt_ostree.system import available_update, files

VERSIONS = st.from_regex(r"([0-9]{1,2}:)?[0-9][a-zA-Z0-9.+~]{0,8}(-[a-zA-Z0-9.+~]{1,6})?", fullmatch=True)


def update(**changes: Any) -> Update:
    fields: dict[str, Any] = {
        "against": "a" * 64, "osname": "debian", "origin": "r:debian/13", "commit": "b" * 64, "version": None,
        "timestamp": 5, "new_base": False, "gpg_enabled": True, "diff": PackageDiff(),
    }  # fmt: skip
    return Update(**{**fields, **changes})


@given(VERSIONS, VERSIONS)
def test_the_order_of_versions_is_libapts(one: str, two: str):
    apt_pkg.init_system()
    first, second = version_key(one), version_key(two)
    sign = (first > second) - (first < second)
    theirs = apt_pkg.version_compare(one, two)
    assert sign == (theirs > 0) - (theirs < 0)


@pytest.mark.parametrize(("version", "epoch"), [("1:2-3", 1), ("2:1:0", 2), ("2-3", 0)])
def test_epochs(version: str, epoch: int):
    assert epoch_of(version) == epoch


def test_packages_after_a_plan():
    now = [Package("a", "1", "amd64"), Package("b", "1", "all"), Package("c", "1", "amd64")]
    plan = PackagePlan(
        install=(Step("d", "amd64", new="1"),),
        upgrade=(Step("a", "amd64", "1", "2"),),
        remove=(Step("b", "all", "1"),),
    )
    after = packages_after(now, asdict(plan))
    assert {package.label for package in after} == {"a 2", "c 1", "d 1"}


def test_packages_after_a_plan_that_changes_an_architecture():
    now = [Package("a", "1", "amd64"), Package("b", "1", "amd64"), Package("b", "1", "i386")]
    plan = PackagePlan(
        upgrade=(Step("b", "amd64", "1", "2"), Step("b", "i386", "1", "2")),
        downgrade=(Step("a", "all", "1", "0"),),
    )
    after = {(p.label, p.architecture) for p in packages_after(now, asdict(plan))}
    assert after == {("a 0", "all"), ("b 2", "amd64"), ("b 2", "i386")}


def test_a_record_is_read_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(available_update, "RECORD", tmp_path / "x")
    found = update(diff=PackageDiff(changed=(PackageChange("a", "amd64", "1", "2"),)), layered=("a",))
    available_update.write(found)
    assert available_update.read(found.against) == found
    assert available_update.read("f" * 64) is available_update.read(None) is None
    available_update.write(update())  # nothing to update
    assert available_update.read(found.against) is None and not (tmp_path / "x").exists()
    files.write_text(tmp_path / "x", '{"against": 1}')
    assert available_update.read(found.against) is None
    assert parse_record("{") is None and parse_record("") is None
