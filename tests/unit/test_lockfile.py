"""Lockfiles: what is written is read again, and what differs is refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.core.compose import lockfiles
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import lockfile
from apt_ostree.model.package import Package

_names = st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,8}(:i386)?", fullmatch=True)
_versions = st.from_regex(r"([0-9]:)?[0-9][A-Za-z0-9.+~-]{0,8}", fullmatch=True)
_packages = st.lists(
    st.builds(Package, _names, _versions, st.sampled_from(["all", "amd64", "i386"])),
    unique_by=lambda p: p.name,
)
BASH, DASH = Package("bash", "5.2-1", "amd64"), Package("dash", "0.5-1", "amd64")


@given(_packages)
def test_what_is_written_is_read(packages: list[Package]):
    locked = lockfile.parse(lockfile.format_lockfile(packages), name="x")
    assert locked == {package.name: package.version for package in packages}
    lockfile.check(packages, locked, strict=True)


def test_the_format_is_rpm_ostrees():
    text = '{"packages": {"bash": {"evra": "5.2-1.amd64"}}, "metadata": {"generated": "2026"}}'
    assert lockfile.parse(text, name="x") == {"bash": "5.2-1"}
    assert lockfile.parse(lockfile.format_lockfile([BASH]), name="x") == {"bash": "5.2-1"}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"packages": []}', '{"packages": {"bash": {}}}', '{"packages": {"bash": "5"}}']
)
def test_what_is_no_lockfile(text: str):
    with pytest.raises(UsageError, match="x"):
        lockfile.parse(text, name="x")


@pytest.mark.parametrize(
    ("package", "evra"),
    [("bash", "5"), ("bash", ""), ("bash", ".amd64"), ("bash", "5."), ("bash", "5 6.amd64")]
    + [("bash", "5.2-1\n.amd64"), ("bash", "5.2-1.amd64\n"), ("bash", "5*.amd64")]
    + [(name, "5.2-1.amd64") for name in ("", "ba sh", "bash\n", "bash\n\nPackage: *", "*", "bash:", "/a/")],
)
def test_a_package_or_version_that_is_none_is_named(package: str, evra: str):
    with pytest.raises(UsageError) as caught:
        lockfile.parse(json.dumps({"packages": {package: {"evra": evra}}}), name="x")
    assert caught.value.message.startswith("x: packages") and repr(package) in caught.value.message


def test_what_differs_is_named():
    with pytest.raises(Refused) as caught:
        lockfile.check([BASH, DASH], {"bash": "5.2-2"}, strict=True)
    assert caught.value.details == (
        "bash 5.2-2 is locked, and 5.2-1 is what there is",
        "dash 0.5-1 is not locked",
    )
    lockfile.check([BASH, DASH], {"bash": "5.2-1", "gone": "1"}, strict=False)


def test_the_last_file_wins(tmp_path):
    for name, version in (("one", "1"), ("two", "2")):
        lockfiles.write(str(tmp_path / name), [Package("bash", version, "amd64")])
    assert lockfiles.read([str(tmp_path / "one"), str(tmp_path / "two")]) == {"bash": "2"}
    lockfiles.write(None, [BASH])
    with pytest.raises(UsageError, match="missing"):
        lockfiles.read([str(tmp_path / "missing")])
