"""db: the packages of commits, their differences, and what changelogs say of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apt_ostree.cli import main
from apt_ostree.core import db
from apt_ostree.errors import UsageError
from apt_ostree.model import changelog
from apt_ostree.model.changelog import ChangelogEntry
from apt_ostree.model.package import Package
from apt_ostree.model.queries import CommitDiff, CommitPackages
from apt_ostree.model.refspec import is_revision
from apt_ostree.system import changelogs
from tests.unit import repos
from tests.unit.repos import System

CHANGELOG = """\
tool (2.0) unstable; urgency=high

  * Mend CVE-2026-1234, and CVE-2026-99 which is no such number.
  * Mend CVE-2025-10001 and once more CVE-2026-1234.

 -- A <a@example.org>  Sat, 28 Nov 2026 10:00:00 +0000

tool (1.5-1) unstable; urgency=low

  * Between.

 -- A <a@example.org>  Fri, 27 Nov 2026 10:00:00 +0000

tool (1.0) unstable; urgency=low

  * Mend CVE-2020-1111.

 -- A <a@example.org>  Thu, 26 Nov 2026 10:00:00 +0000
"""


def write(system: System, name: str, version: str, **tree: str) -> str:
    packages = [Package("tool", version, "amd64"), Package("bc", "1", "amd64")]
    return repos.write_commit(system.repo, {**repos.ONE, **tree}, ref=name, packages=packages)


def test_the_packages_of_commits(system: System):
    booted, two = db.commit_packages(CommitPackages(names=("booted", "two")))
    assert (booted["name"], booted["checksum"], two["checksum"]) == ("booted", system.one, system.two)
    assert [p["name"] for p in booted["packages"]] == ["base", "tool"]
    assert [p["name"] for p in two["packages"]] == ["base", "extra", "tool"]
    assert booted["digest"] != two["digest"]
    assert db.commit_packages(CommitPackages()) == [booted]
    by_checksum = db.commit_packages(CommitPackages(names=(system.one[:10],)))
    assert by_checksum[0]["digest"] == booted["digest"]


def test_patterns_choose_packages_and_the_digest_is_of_all(system: System):
    all_of_them = db.commit_packages(CommitPackages(names=("two",)))
    (chosen,) = db.commit_packages(CommitPackages(names=("two", "ex*", "base")))
    assert [p["name"] for p in chosen["packages"]] == ["base", "extra"]
    assert chosen["digest"] == all_of_them[0]["digest"]
    write(system, "more", "1")
    assert db.commit_packages(CommitPackages(names=("more", "bc")))[0]["packages"][0]["name"] == "bc"
    with pytest.raises(UsageError, match="no package 'nosuch'"):
        db.commit_packages(CommitPackages(names=("nosuch",)))
    with pytest.raises(UsageError, match="no commit"):
        db.commit_packages(CommitPackages(names=("no/such/ref",)))


def test_what_is_compared_by_default(system: System):
    with pytest.raises(UsageError, match="only one deployment"):
        db.commit_diff(CommitDiff())
    answer = db.commit_diff(CommitDiff(names=("two",)))
    assert (answer["from"]["name"], answer["to"]["checksum"]) == ("booted", system.two)
    back = db.commit_diff(CommitDiff(names=("two", "booted")))
    assert back["packages"]["removed"] == answer["packages"]["added"] != []
    with pytest.raises(ValueError, match="at most two"):
        CommitDiff(names=("a", "b", "c"))


def test_a_repository_alone(system: System):
    repo = str(system.place / "ostree/repo")
    answer = db.commit_diff(CommitDiff(names=("one", "two"), repo=repo))
    assert [p["name"] for p in answer["packages"]["added"]] == ["extra"]
    for wrong in ((), ("one",), ("booted", "two")):
        with pytest.raises(UsageError):
            db.commit_diff(CommitDiff(names=wrong, repo=repo))


@pytest.mark.parametrize("name", ["tool", "linked"])
def test_changelogs_and_vulnerabilities(system: System, name: str):
    tree = {f"usr/share/doc/{name}/changelog": CHANGELOG}
    if name != "tool":
        tree["usr/share/doc/tool"] = f"-> {name}"
    write(system, "old", "1.0")
    write(system, "new", "2.0", **tree)
    asked = CommitDiff(names=("old", "new"), changelogs=True, advisories=True)
    answer = db.commit_diff(asked)
    assert [entry["version"] for entry in answer["changelogs"]["tool"]] == ["2.0", "1.5-1"]
    (advisory,) = answer["advisories"]
    assert advisory == {"package": "tool", "version": "2.0", "cves": ("CVE-2025-10001", "CVE-2026-1234")}
    back = db.commit_diff(CommitDiff(names=("new", "old"), changelogs=True, advisories=True))
    assert (back["changelogs"], back["advisories"]) == ({}, [])


def test_the_command_line(system: System, capsys):
    write(system, "old", "2.0", **{"usr/share/doc/tool/changelog": CHANGELOG})
    write(system, "new", "1.0")

    def said(*words: str) -> str:
        assert main.run(["db", *words]) == 0
        return capsys.readouterr().out

    one = system.repo.resolve("old")
    assert said("diff", "old", one) == (
        f"ostree diff commit from: old ({one})\nostree diff commit to:   {one}\n"
    )
    assert said("diff", "-F", "diff", one, one) == said("diff", "-c", "-a", one, one)
    assert json.loads(said("diff", "--json", one, one))["pkgdiff"] == []
    assert "Downgraded:\n  tool 2.0 -> 1.0\n" in said("diff", "old", "new")
    text = said("diff", "new", "old", "--changelogs", "-a")
    assert text.startswith(f"ostree diff commit from: new ({system.repo.resolve('new')})\n")
    assert "Upgraded:\n  tool 1.0 -> 2.0\n" in text
    assert said("diff", "-F", "diff", "old", "new").splitlines()[2:] == ["!tool 2.0", "=tool 1.0"]
    document = json.loads(said("diff", "-F", "json", "old", "new"))
    assert document["advisories"] == [] and "changelogs" not in document
    assert document["pkgdiff"] == [
        [
            "tool",
            3,
            {"PreviousPackage": ["tool", "2.0", "amd64"], "NewPackage": ["tool", "1.0", "amd64"]},
        ]
    ]
    assert document["ostree-commit-from"] == system.repo.resolve("old")
    (advisory,) = json.loads(said("diff", "--json", "new", "old"))["advisories"]
    assert advisory["cves"] == ["CVE-2025-10001", "CVE-2026-1234"]
    assert said("list", "old", "to*").splitlines()[1:] == [" tool 2.0 amd64"]
    (digest,) = json.loads(said("version", "old", "--json"))
    assert digest["digest"].startswith("2:") and "packages" not in digest
    assert f"packages: {digest['digest']}" in said("version", "old")
    assert main.run(["db", "diff", "a", "b", "c"]) == 2
    assert main.run(["db", "list", "nosuch"]) == 2


# --- pure


def test_entries_are_read_compressed_and_plain():
    versions = ["2.0", "1.5-1", "1.0"]
    for content in (CHANGELOG.encode(), gzip.compress(CHANGELOG.encode())):
        assert [entry.version for entry in changelogs.entries(content)] == versions
    assert "Between." in list(changelogs.entries(CHANGELOG.encode()))[1].text
    whole = gzip.compress(CHANGELOG.encode())
    for wrong in (b"", b"\x1f\x8b", whole[:40], whole[:-3], b"\xff\xfe text", b"no changelog\n"):
        assert list(changelogs.entries(wrong)) == []


@given(st.binary())
def test_no_content_is_an_error(content: bytes):
    list(changelogs.entries(content))
    list(changelogs.entries(gzip.compress(content)))


@given(st.lists(st.sampled_from(["1.0", "1.0-1", "1:0.1", "1.0~rc1", "2"]), unique=True), st.data())
def test_entries_above_a_version(versions: list[str], data):
    ordered = sorted(versions, key=changelog.version_key, reverse=True)
    entries = [ChangelogEntry(version, version) for version in ordered]
    if ordered:
        version = data.draw(st.sampled_from(ordered))
        assert changelog.since(entries, version) == tuple(entries[: ordered.index(version)])
    assert changelog.since(entries, "9:9") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bc", False), ("ed", False), ("deadbee", True), ("0" * 64, True), ("main", True),
        ("a/b", True), ("remote:x", True), ("libc*", False), ("", False),
    ],
)  # fmt: skip
def test_packages_are_told_from_revisions(text: str, expected: bool):
    assert is_revision(text, {"main"}) is expected


def test_real_changelogs_are_read():
    """Those of the machine that runs the tests, if it has some."""
    for path in sorted(Path("/usr/share/doc").glob("*/changelog.Debian.gz"))[:20]:
        assert list(changelogs.entries(path.read_bytes())), path
