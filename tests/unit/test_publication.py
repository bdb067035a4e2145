"""`compose publish` on repositories in directories: what is there afterwards, and after an interruption."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from apt_ostree.cli import client, main
from apt_ostree.core.compose.publication import planning, publishing
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model import events, oci, publication
from apt_ostree.model.publication import RECORD, Record, Sizes
from apt_ostree.model.requests.compose import ComposePublish
from apt_ostree.system import mounts
from apt_ostree.system.ostree import archive, commit, deltas, signatures
from apt_ostree.system.ostree.gi_ostree import Gio, OSTree
from apt_ostree.system.ostree.repo import Repo
from tests.fixtures import image_tree
from tests.fixtures.image_tree import Image
from tests.unit import repos
from tests.unit.vendor import Signer, signer

MAIL = "signer@example.com"
REF = "os/server"
DAY = 86400
NOW = 1_700_000_000 + 100 * DAY

# --- what is kept


@pytest.mark.parametrize(
    ("number", "days", "expected"),
    [
        (None, None, "abcde"),
        (1, None, "a"),
        (3, None, "abc"),
        (9, None, "abcde"),
        (None, 5, "ab"),
        (None, 1, "a"),
        (4, 5, "abcd"),
        (1, 20, "abc"),
    ],
)
def test_a_commit_stays_if_one_of_the_limits_keeps_it(number, days, expected):
    times = {name: NOW - age * DAY for name, age in zip("abcde", (2, 4, 10, 30, 90), strict=True)}
    assert "".join(publication.kept(times, number, days, NOW)) == expected


def test_static_deltas_are_made_once_from_the_last_commits():
    record = Record(deltas={"b-a": Sizes(9, 9), "c-a": Sizes(1, 9)})
    assert publication.new_deltas("abcde", frozenset(), record) == (("c", "a"), ("d", "a"))
    assert publication.new_deltas("abcde", frozenset({("c", "a"), ("d", "a")}), record) == (("d", "a"),)
    assert publication.new_deltas("a", frozenset(), record) == ()


def test_static_deltas_stay_that_lead_to_the_last_two_commits():
    there = frozenset({("b", "a"), ("c", "a"), ("c", "b"), ("d", "c"), ("e", "a")})
    record = Record(deltas={"-".join(pair): Sizes(1, 2) for pair in there - {("e", "a")}})
    assert publication.old_deltas(there, ["abc"], record) == {("b", "a"), ("c", "a"), ("c", "b")}
    assert publication.old_deltas(there, [], record) == frozenset()


def test_a_record_is_read_as_it_was_written():
    record = Record(True, {"os": ("a", "b")}, {"b-a": Sizes(1, 2)})
    assert publication.read_record(record.to_text()) == record
    for text in ("", "[]", '{"x": 1}'):
        with pytest.raises(UsageError):
            publication.read_record(text)


def test_a_summary_is_current_if_each_key_has_signed_it():
    refs, prints = {"os": "a"}, [frozenset({"AA11", "AA12"}), frozenset({"BB21"})]

    def is_current(*issuers: str, own: Sequence[frozenset[str]] = prints) -> bool:
        summary = archive.Summary(refs, frozenset(), frozenset(issuers))
        return planning.is_current(summary, refs, frozenset(), own)

    assert is_current("AA12", "21") and is_current(own=[])
    assert not any((is_current("AA12"), is_current(), is_current("11", "21", "CC"), is_current("11", own=[])))
    assert not planning.is_current(None, refs, frozenset(), [])
    assert not planning.is_current(archive.Summary({}, frozenset()), refs, frozenset(), [])


# --- a publication


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    with signer() as made:
        keyring = tmp_path_factory.mktemp("keys") / "signer.gpg"
        keyring.write_bytes(made.gpg("--export"))
        made.keyring = keyring
        yield made


class World:
    """A repository with commits, and the directory that they are published in."""

    def __init__(self, path: Path) -> None:
        self.path, self.source, self.top = path, path / "source", path / "www"
        self.clients = 0
        self.source.mkdir()
        OSTree.Repo.new(Gio.File.new_for_path(str(self.source))).create(OSTree.RepoMode.ARCHIVE, None)
        (self.source / "config").write_text((self.source / "config").read_text() + "fsync=false\n")
        self.commits: list[str] = []
        self.events: list[events.Event] = []

    def add(self, ref: str = REF, *, text: str = "", age: int = 0, **options) -> str:
        """Commit a tree with a large file, of which little changes."""
        number = len(self.commits)
        work = self.path / f"tree{number}"
        lines = random.Random(1).randbytes(40_000).hex()
        repos.write_files(work, {"usr/large": f"{lines}{number}{lines}", "usr/small": text or str(number)})
        written = commit.commit_directory(
            self.source, work, ref, subject=str(number), timestamp=NOW - age * DAY, metadata={}, **options
        )
        self.commits.append(written.checksum)
        return written.checksum

    def publish(self, **options) -> dict:
        self.events = []
        request = ComposePublish(directory=str(self.top), repo=str(self.source), **options)
        result = publishing.publish(Transaction(self.events.append, request.title), request)
        return result.to_json()

    @property
    def repo(self) -> Repo:
        return Repo.open(self.top / "repo")

    @property
    def summary(self) -> archive.Summary:
        found = archive.read_summary(self.repo)
        assert found
        return found

    def tree(self) -> dict[str, bytes]:
        """Return the files that are served; what is removed or made anew each time is left out."""
        return {
            str(path.relative_to(self.top)): path.read_bytes()
            for path in sorted(self.top.rglob("*"))
            if path.is_file() and path.name != ".lock"
        }

    def pull(self, keyring: Path | None = None, ref: str = REF, **settings: str) -> str:
        """Pull with a new client, which verifies commit and summary by a keyring; return the commit."""
        self.clients += 1
        path = self.path / f"client{self.clients}"
        ostree("init", f"--repo={path}", "--mode=bare-user")
        how = [f"--gpg-import={keyring}", "--set=gpg-verify-summary=true"] if keyring else ["--no-gpg-verify"]
        how += [f"--set={name}={value}" for name, value in settings.items()]
        ostree("remote", f"--repo={path}", "add", *how, "os", f"file://{self.top}/repo")
        ostree("pull", f"--repo={path}", "os", ref)
        return ostree("rev-parse", f"--repo={path}", f"os:{ref}").strip()


def ostree(*words: str) -> str:
    return subprocess.run(["ostree", *words], check=True, capture_output=True, text=True).stdout


def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish at the time NOW, and without waiting for the disk."""
    monkeypatch.setattr(planning.time, "time", lambda: NOW)
    monkeypatch.setattr(publishing.signals, "ignore", lambda: None)
    monkeypatch.setattr(mounts, "sync_file_system", lambda _path: None)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    at_once(monkeypatch)
    with repos.memory_directory() as place:
        yield World(place)


def test_machines_pull_what_was_published(world: World):
    commits = [world.add(), world.add("os/desktop")]
    result = world.publish()
    assert result["changed"] and result["directory"] == str(world.top)
    assert {ref: row["commits"] for ref, row in result["refs"].items()} == {
        REF: [commits[0]],
        "os/desktop": [commits[1]],
    }
    assert world.repo.is_archive
    assert dict(world.summary.refs) == {REF: commits[0], "os/desktop": commits[1]}
    assert not (world.top / "repo/summary.sig").exists()
    assert [world.pull(), world.pull(ref="os/desktop")] == commits
    assert json.loads((world.top / RECORD).read_text())["finished"] is True


def test_a_second_time_there_is_nothing_to_do(world: World, key: Signer):
    for _ in range(3):
        world.add()
    given = {"sign": (MAIL,), "gpg_homedir": str(key.home), "keep": 2}
    first = world.publish(**given)
    before = world.tree()
    assert first["static-deltas"]
    again = world.publish(**given)
    assert not again["changed"] and again == {**first, "changed": False, "pruned": []}
    assert world.tree() == before


def test_only_named_refs_are_published_and_others_stay(world: World):
    first, other = world.add(), world.add("os/desktop")
    assert set(world.publish(refs=(REF,))["refs"]) == {REF}
    world.publish(refs=("os/desktop",), keep=1)
    assert dict(world.summary.refs) == {REF: first, "os/desktop": other}
    assert world.pull() == first


def test_commit_and_summary_are_signed(world: World, key: Signer):
    newest = world.add()
    world.publish(sign=(MAIL,), gpg_homedir=str(key.home))
    assert signatures.is_signed(world.repo, newest, key.keyring.parent)
    assert not signatures.is_signed(Repo.open(world.source), newest, key.keyring.parent)
    assert world.pull(key.keyring) == newest
    newest = world.add()
    world.publish(sign=(MAIL,), gpg_homedir=str(key.home))
    assert world.pull(key.keyring) == newest


def test_a_key_more_signs_again(world: World, key: Signer):
    newest = world.add()
    given = {"sign": (MAIL,), "gpg_homedir": str(key.home)}
    world.publish()
    assert world.publish(**given)["changed"]
    assert world.pull(key.keyring) == newest
    assert not world.publish(**given)["changed"]


def test_a_signature_is_not_taken_away(world: World, key: Signer):
    world.add()
    world.publish(sign=(MAIL,), gpg_homedir=str(key.home))
    with pytest.raises(Refused, match="is signed, and no key is given"):
        world.publish()
    (world.top / "repo/summary.sig").unlink()
    newest = world.add()
    world.publish()
    assert not (world.top / "repo/summary.sig").exists()
    assert world.pull() == newest


def test_signatures_that_are_made_later_are_published(world: World, key: Signer):
    newest = world.add()
    world.publish()
    signatures.sign(Repo.open(world.source), newest, MAIL, key.home)
    assert world.publish()["changed"]
    assert signatures.is_signed(world.repo, newest, key.keyring.parent)
    assert not world.publish()["changed"]


def test_the_history_is_published_and_pruned_by_number(world: World):
    commits = [world.add(age=10 - number) for number in range(4)][::-1]
    assert world.publish(keep=3)["refs"][REF]["commits"] == commits[:3]
    assert world.repo.commits() == set(commits[:3])
    newest = world.add()
    result = world.publish(keep=2)
    assert result["refs"][REF]["commits"] == [newest, commits[0]]
    assert result["pruned"] == sorted(commits[1:3])
    assert world.repo.commits() == {newest, commits[0]}
    ostree("fsck", f"--repo={world.top}/repo", "-q")
    assert world.pull() == newest
    objects = len(list((world.top / "repo/objects").glob("*/*")))
    world.publish(keep=1)
    assert len(list((world.top / "repo/objects").glob("*/*"))) < objects


def test_the_history_is_pruned_by_age_without_a_new_commit(world: World, monkeypatch: pytest.MonkeyPatch):
    commits = [world.add(age=age) for age in (20, 3, 1)]
    assert world.publish(keep_days=5)["refs"][REF]["commits"] == [commits[2], commits[1]]
    monkeypatch.setattr(planning.time, "time", lambda: NOW + 100 * DAY)
    result = world.publish(keep_days=5)
    assert result["changed"] and result["pruned"] == [commits[1]]
    assert world.repo.commits() == {commits[2]}


def test_commits_without_a_parent_follow_one_another(world: World):
    first = world.add(keep_parent=False)
    world.publish(keep=2)
    second = world.add(keep_parent=False)
    assert world.publish(keep=2)["refs"][REF]["commits"] == [second, first]
    third = world.add(keep_parent=False)
    assert world.publish(keep=2)["refs"][REF]["commits"] == [third, second]
    assert world.repo.commits() == {third, second}


def test_a_ref_that_was_removed_takes_its_commits_along(world: World):
    first, other = world.add(), world.add("os/desktop")
    world.publish()
    Repo.open(world.source).set_ref("os/desktop", None)
    assert not world.publish()["changed"]
    world.repo.set_ref("os/desktop", None)
    assert world.publish()["pruned"] == [other]
    assert dict(world.summary.refs) == {REF: first}


# --- static deltas


def test_static_deltas_that_save_bytes_are_published(world: World):
    first = world.add()
    assert world.publish()["static-deltas"] == []
    second = world.add()
    (made,) = world.publish()["static-deltas"]
    assert (made["from"], made["to"]) == (first, second) and made["bytes"] < made["objects"]
    assert world.summary.deltas == {(first, second)} == deltas.pairs(world.repo)
    third = world.add()
    assert [row["to"] for row in world.publish()["static-deltas"]] == [third, third]
    assert world.summary.deltas == {(first, second), (first, third), (second, third)}
    fourth = world.add()
    world.publish()
    assert world.summary.deltas == {
        (one, two) for two in (third, fourth) for one in world.commits[: world.commits.index(two)]
    }
    indexes = list((world.top / "repo/delta-indexes").glob("*/*"))
    assert len(indexes) == 2


def test_a_static_delta_that_saves_nothing_is_left_out(world: World, monkeypatch: pytest.MonkeyPatch):
    first, second = world.add(), world.add()
    real = deltas.make
    monkeypatch.setattr(deltas, "make", lambda *words: Sizes(10**9, real(*words).objects))
    assert world.publish()["static-deltas"] == []
    assert deltas.pairs(world.repo) == frozenset() == world.summary.deltas
    monkeypatch.setattr(deltas, "make", None)
    assert not world.publish()["changed"]
    assert {first, second} == world.repo.commits()


def test_none_removes_the_static_deltas(world: World):
    world.add()
    world.add()
    assert world.publish()["static-deltas"]
    result = world.publish(static_deltas=False)
    assert result["changed"] and deltas.pairs(world.repo) == frozenset() == world.summary.deltas
    assert not list((world.top / "repo/delta-indexes").glob("*/*"))
    assert not world.publish(static_deltas=False)["changed"]


def test_a_static_delta_starts_from_a_commit_that_is_pruned(world: World):
    first = world.add()
    world.publish(keep=1)
    second = world.add()
    world.publish(keep=1)
    assert world.repo.commits() == {second}
    assert world.summary.deltas == {(first, second)}
    assert not world.publish(keep=1)["changed"]


# --- images


@pytest.fixture
def images(world: World) -> World:
    image_tree.write(world.source, world.path / "tree")
    return world


def test_an_image_of_each_ref(images: World, key: Signer):
    given = {"image": True, "sign": (MAIL,), "gpg_homedir": str(key.home)}
    result = images.publish(**given)
    image = Image(images.top / "image" / image_tree.REF)
    assert result["refs"][image_tree.REF]["image"] == image.digest
    notes = image.manifest["annotations"]
    assert notes[oci.COMMIT] == result["refs"][image_tree.REF]["commits"][0]
    assert notes[oci.COMMIT_DETACHED]
    before = images.tree()
    assert not images.publish(**given)["changed"]
    assert images.tree() == before


def test_the_blobs_of_the_image_before_stay_until_the_next(images: World):
    blobs = images.top / "image" / image_tree.REF / "blobs/sha256"
    images.publish(image=True)
    seen = [names(blobs)]
    for text in ("newer", "newest"):
        image_tree.write(images.source, images.path / "tree", {"usr/lib/libc.so.6": text * 1000})
        assert images.publish(image=True)["changed"]
        seen.append(names(blobs))
    assert seen[0] < seen[1]
    assert seen[0] - seen[2] and len(seen[2]) == len(seen[1])


def test_a_tree_without_packages_is_refused_before_anything_is_written(world: World):
    world.add()
    with pytest.raises(Refused, match="has no packages of Debian"):
        world.publish(image=True)
    assert not world.top.exists()


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# --- refusals


def test_a_directory_with_something_else_is_refused(world: World):
    world.add()
    world.top.mkdir()
    (world.top / "index.html").write_text("x")
    with pytest.raises(Refused, match=f"no {RECORD}"):
        world.publish()
    assert names(world.top) == {"index.html"}
    (world.top / RECORD).write_text("{}")
    (world.top / "repo").mkdir()
    repos.make_repo(world.path / "bare")
    os.rename(world.path / "bare/config", world.top / "repo/config")
    os.rename(world.path / "bare/objects", world.top / "repo/objects")
    with pytest.raises((Refused, ExternalFailure)):
        world.publish()
    (world.top / RECORD).write_text('{"title": "my page"}')
    with pytest.raises(Refused, match="was not made by compose publish"):
        world.publish()


def test_what_a_killed_program_left_is_nothing_else(world: World):
    world.add()
    world.top.mkdir()
    (world.top / ".apt-ostree-0123").write_text("{")
    assert world.publish()["changed"]


def test_mistakes_in_a_request(world: World, key: Signer):
    with pytest.raises(UsageError, match="has no refs"):
        world.publish()
    world.add()
    for options, message in (
        ({"refs": ("os/none",)}, "no ref os/none"),
        ({"gpg_homedir": "/nothing", "sign": (MAIL,)}, "is not the directory of a GnuPG"),
    ):
        with pytest.raises(UsageError, match=message):
            world.publish(**options)
    with pytest.raises(ExternalFailure, match="the secret key nobody@"):
        world.publish(sign=("nobody@example.com",), gpg_homedir=str(key.home))
    assert not world.top.exists()
    for directory in (world.source, world.source / "www", world.path):
        request = ComposePublish(directory=str(directory), repo=str(world.source))
        with pytest.raises((Refused, UsageError)):
            publishing.publish(Transaction(world.events.append, "x"), request)
    request = ComposePublish(directory=str(world.top), repo=str(world.path / "none"))
    with pytest.raises(UsageError, match="no OSTree repository"):
        publishing.publish(Transaction(world.events.append, "x"), request)
    for name in ("keep", "keep_days"):
        with pytest.raises(ValueError, match=f"{name}: expected 1 or more"):
            ComposePublish(directory="d", repo="r", **{name: 0})


def test_two_do_not_publish_at_once(world: World):
    world.add()
    world.publish()
    fd = os.open(world.top, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(Refused, match="another program is publishing to"):
        world.publish()
    os.close(fd)
    assert not world.publish()["changed"]


# --- interruptions


POINTS = (
    *("publish.begun", "publish.commit-copied", "publish.delta-made", "publish.delta-recorded"),
    *("image.blob-added", "publish.written", "publish.ref-written", "archive.indexes-written"),
    *("archive.summary-written", "archive.summary-switched", "publish.image-switched", "publish.switched"),
    *("deltas.removed", "publish.pruned", "image.blob-removed", "publish.finished"),
)
INTERRUPTED = {"image": True, "keep": 2}


@pytest.fixture(scope="module")
def published_often(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a world with three publications, and another commit that is to be published."""
    made = World(tmp_path_factory.mktemp("often"))
    with pytest.MonkeyPatch.context() as patched:
        at_once(patched)
        for text in ("oldest", "older", "old", "new"):
            image_tree.write(made.source, made.path / "tree", {"usr/lib/libc.so.6": text * 1000})
            if text != "new":
                made.publish(**INTERRUPTED)
    return made.path


@pytest.mark.parametrize("point", POINTS)
def test_an_interrupted_publication_serves_the_old_or_the_new(
    published_often: Path, world: World, monkeypatch: pytest.MonkeyPatch, point: str
):
    for path in (world.source, world.top):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(published_often / path.name, path, symlinks=True)
    ref = image_tree.REF
    new = Repo.open(world.source).resolve(ref)
    old = world.summary.refs[ref]
    with monkeypatch.context() as patched:
        repos.fail_at(patched, point)
        with pytest.raises(OSError, match=f"failpoint {point}"):
            world.publish(**INTERRUPTED)
    is_new = POINTS.index(point) >= POINTS.index("archive.summary-switched")
    assert world.pull(ref=ref) == (new if is_new else old)
    image = Image(world.top / "image" / ref)
    rows = (image.manifest["config"], *image.manifest["layers"])
    assert all(image.blob(row["digest"]) for row in rows)

    again = world.publish(**INTERRUPTED)
    assert again["changed"] == (point != "publish.finished")
    assert again["refs"][ref]["commits"] == [new, old]
    assert world.summary.refs[ref] == new
    assert Image(world.top / "image" / ref).manifest["annotations"][oci.COMMIT] == new
    assert world.repo.commits() == {old, new}
    assert deltas.pairs(world.repo) == world.summary.deltas
    assert not list(world.top.rglob(".apt-ostree-*"))
    assert not world.publish(**INTERRUPTED)["changed"]


# --- the command line


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sequence[ComposePublish]:
    found: list[ComposePublish] = []

    def call(request, *_args, **_options):
        found.append(request)
        result = {"changed": False, "refs": {"os": {"commits": ["abc"], "image": None}}}
        return client.Answer(result, next_boot=False)

    monkeypatch.setattr(client, "call", call)
    return found


def test_all_options_are_in_the_request(sent, capsys):
    words = ["--repo=r", "--ref=a", "--ref=b", "--image", "--gpg-sign=k", "--gpg-homedir=h", "--keep=3"]
    words += ["--keep-days=7", "--static-deltas=none", "--unchanged-exit-77", "www"]
    assert main.run(["compose", "publish", *words]) == 77
    assert sent == [
        ComposePublish(
            directory="www", repo="r", refs=("a", "b"), image=True, sign=("k",), gpg_homedir="h", keep=3,
            keep_days=7, static_deltas=False,
        )
    ]  # fmt: skip
    assert capsys.readouterr().out == "os abc\n"


@pytest.mark.parametrize("words", [["www"], ["--repo=r"], ["--repo=r", "--keep=0", "www"]])
def test_mistakes_are_not_sent(sent, words: list[str]):
    assert main.run(["compose", "publish", *words]) == 2
    assert sent == []
