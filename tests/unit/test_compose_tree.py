"""`compose tree` up to where packages are installed: treefiles, sources, and what counts as a change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from apt_ostree.core.compose import inputs, tree
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model import events, layout
from apt_ostree.model.package import Package
from apt_ostree.model.requests.compose import ComposeTree
from apt_ostree.model.treefile import Units
from apt_ostree.system import mmdebstrap, process
from apt_ostree.system.ostree import commit
from tests.unit import repos
from tests.unit.repos import Programs

PLAIN = "ref: test/${arch}\nsuite: trixie\narchives: [{suite: trixie, mirror: 'http://deb.example/debian'}]\n"
FORESEEN = "Inst base (1 Debian:13 [all])\nInst tool (1.0 Debian:13 [amd64])\n"


@pytest.fixture
def programs(monkeypatch) -> Programs:
    """Other programs: mmdebstrap foresees two packages."""
    found = Programs()
    found.results["dpkg"] = lambda _words: (0, "amd64\n")
    monkeypatch.setattr(process, "run", found.run)
    monkeypatch.setattr(mmdebstrap, "simulate", lambda _wanted, _lists: PACKAGES)
    monkeypatch.setattr(mmdebstrap, "refresh", lambda _wanted, _lists: None)
    monkeypatch.setattr(mmdebstrap, "native_architecture", lambda: "amd64")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    return found


PACKAGES = (Package("base", "1", "all"), Package("tool", "1.0", "amd64"))


def write(place: Path, files: dict[str, str]) -> Path:
    repos.write_files(place, files)
    return place / "os.yaml"


def compose(treefile: Path, **options):
    told: list[events.Event] = []
    tx = Transaction(told.append, "compose-tree")
    result = tree.compose_tree(tx, ComposeTree(treefile=str(treefile), **options))
    return result, told


# --- treefiles


OVER = """
include: [parts/base.yaml, other.yaml]
ref: over
packages: [cc]
units: {enable: [c.service]}
"""
BASE = """
include: deep/deep.yaml
ref: base
suite: trixie
packages: [bb]
add-files: [{src: motd, dest: /etc/motd}]
"""
DEEP = """
packages: [aa]
units: {enable: [a.service]}
postprocess: [{file: run}]
"""


def test_what_is_included_lies_below_what_includes_it(tmp_path):
    files = {
        "os.yaml": OVER,
        "parts/base.yaml": BASE,
        "parts/motd": "hello",
        "parts/deep/deep.yaml": DEEP,
        "parts/deep/run": "#!/bin/sh\n",
        "other.yaml": "suite: sid\nmetadata: {who: other}\n",
    }
    found = inputs.load_treefile(write(tmp_path, files))
    assert (found.ref, found.suite, found.packages) == ("over", "sid", ("aa", "bb", "cc"))
    assert found.units == Units(enable=("a.service", "c.service"))
    assert found.add_files[0].path == str(tmp_path / "parts/motd")
    assert found.postprocess[0].path == str(tmp_path / "parts/deep/run")
    assert found.include == ()


@pytest.mark.parametrize(
    "files",
    [
        {"os.yaml": "include: os.yaml"},
        {"os.yaml": "include: a.yaml", "a.yaml": "include: b.yaml", "b.yaml": "include: ./a.yaml"},
        {"os.yaml": "include: link.yaml", "link.yaml": "-> os.yaml"},
    ],
)
def test_nothing_includes_itself(tmp_path, files):
    with pytest.raises(UsageError, match="includes itself"):
        inputs.load_treefile(write(tmp_path, files))


def test_a_file_may_be_included_twice(tmp_path):
    files = {
        "os.yaml": "include: [a.yaml, b.yaml]",
        "a.yaml": "include: c.yaml",
        "b.yaml": "include: c.yaml",
        "c.yaml": "packages: [x1]",
    }
    assert inputs.load_treefile(write(tmp_path, files)).packages == ("x1",)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("include: nosuch.yaml", "nosuch.yaml"),
        ("add-files: [{src: nosuch, dest: /x}]", r"add-files\[0\]\.src"),
        ("postprocess: [{inline: 'true'}, {file: nosuch}]", r"postprocess\[1\]\.file"),
        (
            "archives: [{suite: x, mirror: 'http://x/', signed-by: nosuch.gpg}]",
            r"archives\[0\]\.signed-by",
        ),
    ],
)
def test_a_file_that_is_not_there_is_named_by_its_key(tmp_path, text, key):
    with pytest.raises(UsageError, match=key):
        inputs.load_treefile(write(tmp_path, {"os.yaml": text}))


# --- the request


def test_the_request_has_the_last_word(tmp_path):
    path = write(tmp_path, {"os.yaml": PLAIN + "version: '1'\nmetadata: {a: '1', b: '1'}\n"})
    result, told = compose(path, print_only=True, ref="mine", version="2", metadata={"b": "2", "c": "2"})
    assert not result.changed
    assert told == []
    found = result.details["treefile"]
    assert (found["ref"], found["version"]) == ("mine", "2")
    assert found["metadata"] == {"a": "1", "b": "2", "c": "2"}


def test_metadata_of_files_has_types_and_strings_win(tmp_path):
    files = {
        "os.yaml": PLAIN + "version: '1'\nmetadata: {a: '1', b: '1'}\n",
        "one.json": '{"b": {"x": [1, true]}, "c": 2, "d": 2.5, "version": "2"}',
        "two.json": '{"c": 3, "d": "word"}',
    }
    path = write(tmp_path, files)
    given = tuple(str(tmp_path / name) for name in ("one.json", "two.json"))
    result, _told = compose(path, print_only=True, metadata_files=given, metadata={"d": "4"})
    found = result.details["treefile"]
    assert found["metadata"] == {"a": "1", "b": {"x": [1, True]}, "c": 3, "d": "4"}
    assert found["version"] == "2"
    result, _told = compose(path, print_only=True, metadata={"version": "3"})
    assert (result.details["treefile"]["version"], result.details["treefile"]["metadata"]["a"]) == ("3", "1")
    for name in ("missing.json", "os.yaml"):
        with pytest.raises(UsageError, match=name):
            compose(path, print_only=True, metadata_files=(str(tmp_path / name),))


@pytest.mark.parametrize("text", ["suite: trixie", "ref: x"])
def test_a_treefile_that_is_not_whole_is_a_mistake(tmp_path, text):
    with pytest.raises(UsageError, match="expected a value here or in an included file"):
        compose(write(tmp_path, {"os.yaml": text}), print_only=True)


def test_a_compose_needs_a_repository_and_root(tmp_path, monkeypatch):
    path = write(tmp_path, {"os.yaml": PLAIN})
    with pytest.raises(UsageError, match="needs a repository") as caught:
        compose(path)
    assert "--repo" in str(caught.value.hint)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Refused, match="needs root"):
        compose(path, repo=str(tmp_path / "repo"))


def test_a_dry_run_tells_the_packages_and_makes_nothing(tmp_path, programs):
    path = write(tmp_path, {"os.yaml": PLAIN})
    result, _told = compose(path, repo=str(tmp_path / "repo"), dry_run=True)
    assert result.details["packages"] == [["base", "1", "all"], ["tool", "1.0", "amd64"]]
    assert not (tmp_path / "repo").exists()


def test_what_is_no_repository_is_not_touched(tmp_path, programs):
    path = write(tmp_path, {"os.yaml": PLAIN, "repo/mine": "x"})
    with pytest.raises(UsageError, match="is not an OSTree repository"):
        compose(path, repo=str(tmp_path / "repo"))
    assert [p.name for p in (tmp_path / "repo").iterdir()] == ["mine"]


def composed(tmp_path: Path, path: Path, **options: str) -> tuple[Path, str]:
    """Make a commit as a compose of the treefile has it; return the repository and the commit."""
    digest = inputs.inputs_digest(inputs.load_treefile(path), PACKAGES)
    repo = repos.make_repo(tmp_path / "repo")
    words = {layout.META_INPUTS: digest, **options}
    return tmp_path / "repo", repos.write_commit(repo, {"usr/x": "x"}, ref="test/amd64", **words)


def test_the_same_inputs_are_no_change(tmp_path, programs):
    path = write(tmp_path, {"os.yaml": PLAIN})
    repo, checksum = composed(tmp_path, path)
    result, told = compose(path, repo=str(repo))
    assert (result.changed, result.details["commit"], result.details["packages"]) == (False, checksum, 2)
    assert any("No change: test/amd64" in e.text for e in told if isinstance(e, events.Message))
    assert not programs.calls


def test_a_dry_run_says_whether_there_would_be_a_commit(tmp_path, programs):
    path = write(tmp_path, {"os.yaml": PLAIN})
    options = {"repo": str(tmp_path / "repo"), "dry_run": True}
    assert compose(path, **options)[0].changed
    composed(tmp_path, path)
    assert not compose(path, **options)[0].changed
    assert compose(path, force=True, **options)[0].changed
    path.write_text(PLAIN + "packages: [more]\n")
    assert compose(path, **options)[0].changed


def test_the_commit_to_compare_with_may_be_another_one(tmp_path, programs):
    path = write(tmp_path, {"os.yaml": PLAIN})
    repo, earlier = composed(tmp_path, path)
    repos.write_commit(repos.open_repo(repo), {"usr/x": "y"}, ref="test/amd64")
    options = {"repo": str(repo), "dry_run": True}
    assert compose(path, **options)[0].changed
    assert not compose(path, **options, previous_commit=earlier)[0].changed
    result, told = compose(path, repo=str(repo), previous_commit=earlier)
    assert (result.changed, result.details["commit"]) == (False, earlier)
    assert any(earlier[:12] in event.text for event in told if isinstance(event, events.Message))
    for where in (repo, tmp_path / "new"):
        with pytest.raises(UsageError, match="no commit or ref 'none'"):
            compose(path, repo=str(where), previous_commit="none")
    assert not programs.calls


def test_inputs_to_compare_with_may_be_given(tmp_path, programs):
    path = write(tmp_path, {"os.yaml": PLAIN})
    digest = inputs.inputs_digest(inputs.load_treefile(path), PACKAGES)
    file, repo = str(tmp_path / "told.json"), str(tmp_path / "repo")
    result, _told = compose(path, repo=repo, previous_inputs=digest, write_composejson=file)
    assert (result.changed, result.details["commit"], result.details["version"]) == (False, None, None)
    assert {entry.name for entry in tmp_path.iterdir()} == {"os.yaml"}
    composed(tmp_path, path)
    assert compose(path, repo=repo, previous_inputs="0" * 64, dry_run=True)[0].changed
    result, _told = compose(path, repo=repo, previous_inputs=digest)
    assert result.details["commit"] == commit.head(tmp_path / "repo", "test/amd64")


def test_without_a_change_the_commit_that_is_there_is_told(tmp_path, programs):
    path = write(tmp_path, {"os.yaml": PLAIN})
    repo, checksum = composed(tmp_path, path)
    compose(path, repo=str(repo), write_composejson=str(tmp_path / "told.json"))
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["ref"], told["ostree-commit"]) == ("test/amd64", checksum)
    assert told["rpm-ostree-inputhash"] == inputs.inputs_digest(inputs.load_treefile(path), PACKAGES)


@pytest.mark.parametrize("options", [{"parent": "none"}, {"write_composejson": "/none/told.json"}])
def test_what_is_wrong_about_the_commit_is_said_before_anything_is_done(tmp_path, monkeypatch, options):
    monkeypatch.setattr(mmdebstrap, "native_architecture", lambda: "amd64")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    path = write(tmp_path, {"os.yaml": PLAIN})
    monkeypatch.setattr(process, "run", lambda *_words, **_how: pytest.fail("a program was run"))
    with pytest.raises(UsageError):
        compose(path, repo=str(tmp_path / "repo"), **options)
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize("change", ["treefile", "force"])
def test_other_inputs_are_composed(tmp_path, programs, change, monkeypatch):
    path = write(tmp_path, {"os.yaml": PLAIN})
    repo, checksum = composed(tmp_path, path)
    if change == "treefile":
        path.write_text(PLAIN + "packages: [more]\n")

    def make_root(*_words, **_options):
        raise ExternalFailure("the mirror is down")

    monkeypatch.setattr(mmdebstrap, "make_root", make_root)
    with pytest.raises(ExternalFailure, match="the mirror is down"):
        compose(path, repo=str(repo), force=change == "force")
    assert commit.head(repo, "test/amd64") == checksum
    assert not list((repo / "tmp").glob(".apt-ostree-compose-*"))


# --- inputs


def test_the_digest_is_of_all_that_counts(tmp_path):
    def digest(text: str = PLAIN, motd: str = "a", packages=PACKAGES, **files: str) -> str:
        path = write(tmp_path, {"os.yaml": text + "add-files: [{src: motd, dest: /etc/motd}]\n", **files})
        (tmp_path / "motd").write_text(motd)
        return inputs.inputs_digest(inputs.load_treefile(path), packages)

    (tmp_path / "motd").touch()
    first = digest()
    assert digest() == first
    others = [
        digest(PLAIN + "recommends: true\n"),
        digest(motd="b"),
        digest(packages=PACKAGES[:1]),
        digest(packages=(Package("base", "2", "all"), PACKAGES[1])),
        digest(PLAIN + "postprocess: echo one\n"),
        digest(PLAIN + "postprocess: echo two\n"),
    ]
    assert len({first, *others}) == 7


# --- sources


def planned(tmp_path, programs, monkeypatch, text: str):
    """Return how packages would be installed."""
    wanted = []
    monkeypatch.setattr(mmdebstrap, "simulate", lambda bootstrap, _lists: wanted.append(bootstrap) or ())
    path = write(tmp_path, {"os.yaml": f"ref: x\nsuite: trixie\n{text}", "key.gpg": "key"})
    compose(path, repo=str(tmp_path / "repo"), dry_run=True)
    return wanted[0]


def test_archives_with_a_mirror_are_as_written(tmp_path, programs, monkeypatch):
    text = """
archives:
  - {suite: trixie, mirror: "http://one/debian", components: [main, contrib]}
  - {suite: mine, mirror: "file:/two", signed-by: key.gpg, trusted: true}
"""
    wanted = planned(tmp_path, programs, monkeypatch, text)
    assert wanted.sources == (
        "deb http://one/debian trixie main contrib",
        f"deb [trusted=yes signed-by={tmp_path}/key.gpg] file:/two mine main",
    )
    assert (wanted.suite, wanted.variant, wanted.recommends) == ("trixie", "minbase", False)


def test_archives_without_a_mirror_are_the_defaults(tmp_path, programs, monkeypatch):
    lines = ("deb http://d/debian trixie main", "deb http://s/debian-security trixie-security main")
    monkeypatch.setattr(mmdebstrap, "default_sources", lambda _suite, _components: lines)
    assert planned(tmp_path, programs, monkeypatch, "").sources == lines
    text = "archives: [{suite: trixie-security, components: [main, contrib]}]"
    found = planned(tmp_path, programs, monkeypatch, text).sources
    assert found == ("deb http://s/debian-security trixie-security main contrib",)
    with pytest.raises(UsageError, match=r"archives\[0\]\.suite: expected one of trixie, trixie-security"):
        planned(tmp_path, programs, monkeypatch, "archives: [{suite: sid}]")
