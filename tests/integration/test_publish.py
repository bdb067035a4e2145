"""`compose publish`: what is served over HTTP with signatures verified, and what after each failure."""

from __future__ import annotations

import functools
import http.server
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import pytest
from tests.fixtures import image_tree
from tests.fixtures.image_tree import REF, Image
from tests.unit.vendor import Signer, signer

SOURCE = Path(__file__).resolve().parents[2] / "src"
MAIL = "signer@example.com"
#: Failpoints that a publication with all options passes before machines get the new commit, and after it.
BEFORE = (
    *("publish.begun", "publish.commit-copied", "publish.commit-signed", "publish.delta-made"),
    *("publish.delta-recorded", "image.blob-written", "image.blob-added", "publish.written"),
    *("publish.ref-written", "archive.indexes-written", "archive.summary-written"),
)
AFTER = (
    *("archive.summary-switched", "publish.image-switched", "publish.switched", "deltas.removed"),
    *("publish.pruned", "image.blob-removed", "publish.finished"),
)
#: Those around which what is served changes.
OFTEN = ("publish.delta-made", "publish.ref-written", "archive.summary-written", *AFTER[:2], "publish.pruned")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and keeps the paths that were asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        # Two publications of one second have the same time of change.
        del self.headers["If-Modified-Since"]
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


class Server:
    """A server of a directory. asked: the paths that were asked for."""

    def __init__(self, top: Path) -> None:
        class Own(Handler):
            asked: ClassVar[list[str]] = []

        self.asked = Own.asked
        handler = functools.partial(Own, directory=str(top))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Client:
    """A machine's repository, whose remote wants commit and summary signed."""

    def __init__(self, path: Path, url: str, keyring: Path) -> None:
        self.path = path
        ostree("init", "--mode=bare-user", f"--repo={path}")
        keys = [f"--gpg-import={keyring}", "--set=gpg-verify-summary=true"]
        ostree("remote", f"--repo={path}", "add", *keys, "os", f"{url}/repo")

    def pull(self, ref: str = REF, *options: str) -> str:
        """Pull, and check all objects; return the commit."""
        ostree("pull", f"--repo={self.path}", *options, "os", ref)
        ostree("fsck", "-q", f"--repo={self.path}")
        return ostree("rev-parse", f"--repo={self.path}", f"os:{ref}").strip()


class World:
    """A repository, and the directory that it is published in, which is served."""

    def __init__(self, path: Path, key: Signer, url: str = "") -> None:
        self.path, self.key, self.url = path, key, url
        self.source, self.top = path / "source", path / "www"
        self.clients = 0
        if not self.source.exists():
            ostree("init", f"--mode={'bare' if image_tree.IS_ROOT else 'bare-user'}", f"--repo={self.source}")

    def add(self, text: str) -> str:
        """Commit a tree with a large file, of which little changes."""
        lines = random.Random(1).randbytes(200_000).hex()
        changed = {"usr/lib/libc.so.6": f"{lines}{text}{lines}", "usr/bin/ldd": text}
        return image_tree.write(self.source, self.path / "tree", changed, note=text)

    def words(self, *options: str) -> list[str]:
        signed = [f"--gpg-sign={MAIL}", f"--gpg-homedir={self.key.home}"]
        own = ["compose", "publish", f"--repo={self.source}", *signed, *options, str(self.top)]
        return [sys.executable, "-m", "apt_ostree", *own, "--json", "--unchanged-exit-77"]

    def publish(self, *options: str, failpoint: str = "", code: int = 0) -> dict:
        """Publish; return the result, or the error."""
        done = subprocess.run(
            self.words(*options), env=environment(failpoint), capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else {}

    def client(self) -> Client:
        self.clients += 1
        return Client(self.path / f"client{self.clients}", self.url, self.key.keyring)

    @property
    def image(self) -> Image:
        return Image(self.top / "image" / REF)

    def commits(self) -> set[str]:
        """Return the commits that are published."""
        paths = (self.top / "repo/objects").glob("*/*.commit")
        return {path.parent.name + path.stem for path in paths}


def environment(failpoint: str = "") -> dict[str, str]:
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "APT_OSTREE_FAILPOINT": failpoint}


def ostree(*words: str) -> str:
    done = subprocess.run(["ostree", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    with signer() as made:
        made.keyring = tmp_path_factory.mktemp("keys") / "signer.gpg"
        made.keyring.write_bytes(made.gpg("--export"))
        yield made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "www") as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, key: Signer, server: Server) -> World:
    return World(tmp_path, key, server.url)


def test_machines_pull_with_signatures_verified(world: World, key: Signer):
    first = world.add("1")
    result = world.publish("--image")
    assert result["refs"][REF]["commits"] == [first]
    machine = world.client()
    assert machine.pull() == first
    shown = ostree("show", f"--repo={machine.path}", f"os:{REF}", "--gpg-verify-remote=os")
    assert "Good signature" in shown
    assert ostree("remote", f"--repo={machine.path}", "refs", "os").split() == [f"os:{REF}"]

    second = world.add("2")
    world.publish("--image")
    assert machine.pull() == second
    assert ostree("log", f"--repo={world.top}/repo", REF).count(f"commit {first}") == 1
    assert world.image.digest and world.publish("--image", code=77)["changed"] is False


def test_what_was_changed_by_somebody_else_is_not_pulled(world: World):
    """The signature of the summary is of use: a mirror names another commit of the vendor's."""
    first = world.add("1")
    world.publish()
    old = {name: (world.top / "repo" / name).read_bytes() for name in ("summary", "summary.sig")}
    world.add("2")
    world.publish()
    summary = world.top / "repo/summary"
    summary.unlink()
    summary.write_bytes(old["summary"])
    with pytest.raises(AssertionError, match="BAD signature"):
        world.client().pull()
    world.add("3")
    assert first != (newest := world.publish()["refs"][REF]["commits"][0])
    assert summary.is_symlink() and world.client().pull() == newest


def test_a_machine_pulls_by_static_delta(world: World, server: Server):
    first = world.add("1")
    world.publish()
    machine = world.client()
    machine.pull()
    second = world.add("2")
    (made,) = world.publish()["static-deltas"]
    assert (made["from"], made["to"]) == (first, second) and made["bytes"] < made["objects"]
    server.asked.clear()
    assert machine.pull(REF, "--require-static-deltas") == second
    assert [path for path in server.asked if "/deltas/" in path and path.endswith("/0")]
    files = (path for path in (world.top / "repo/deltas").rglob("*") if path.is_file())
    assert sum(path.stat().st_size for path in files) == made["bytes"]

    server.asked.clear()
    third = world.add("3")
    world.publish("--static-deltas=none")
    assert not (list((world.top / "repo/deltas").glob("*/*")))
    assert machine.pull() == third
    assert not [path for path in server.asked if "/deltas/" in path]


def test_old_commits_are_pruned_and_the_rest_is_whole(world: World):
    commits = [world.add(str(number)) for number in range(3)]
    assert world.publish("--keep=2")["refs"][REF]["commits"] == commits[:0:-1]
    assert world.commits() == set(commits[1:])
    newest = world.add("3")
    result = world.publish("--keep=2")
    assert result["pruned"] == [commits[1]]
    assert world.commits() == {commits[2], newest}
    ostree("fsck", "-q", f"--repo={world.top}/repo")
    ostree("init", "--mode=archive", f"--repo={world.path}/again")
    ostree("pull-local", f"--repo={world.path}/again", "--depth=1", f"{world.top}/repo", REF)
    assert objects(world.top / "repo") == objects(world.path / "again")
    assert world.client().pull() == newest
    # All commits are as old as the fixture says, and the newest stays.
    assert world.publish("--keep-days=1")["refs"][REF]["commits"] == [newest]
    assert world.client().pull() == newest


def objects(repo: Path) -> set[str]:
    return {path.name for path in (repo / "objects").glob("*/*")}


def test_the_directory_is_served_as_files_that_anybody_can_read(world: World):
    world.add("1")
    world.publish("--image")
    closed = [path for path in world.top.rglob("*") if not path.stat().st_mode & 0o004]
    assert [path for path in closed if path.parts[-2] != "tmp" and path.name != ".lock"] == []


def test_a_second_publication_at_once_is_refused(world: World):
    world.add("1")
    env = environment("publish.written=stop")
    first = subprocess.Popen(world.words(), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_for_stopped(first)
        error = world.publish(code=3)
        assert "another program is publishing" in error["message"]
    finally:
        stopped = children(first.pid)
        for number in stopped:
            os.kill(number, signal.SIGCONT)
        first.communicate(timeout=300)
    assert first.returncode == 0
    world.publish(code=77)


def test_a_publication_is_not_for_other_directories(world: World):
    world.add("1")
    world.top.mkdir()
    (world.top / "index.html").write_text("x")
    assert "publication.json" in world.publish(code=3)["message"]
    assert [path.name for path in world.top.iterdir()] == ["index.html"]


def children(pid: int) -> list[int]:
    """Return the processes below one, and itself."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(number for child in below for number in children(int(child)))]


def wait_for_stopped(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process of a command has stopped itself."""
    while process.poll() is None:
        with suppress(FileNotFoundError, ProcessLookupError):  # one has just ended
            stats = (Path(f"/proc/{number}/stat").read_text() for number in children(process.pid))
            if "T" in {stat.rpartition(")")[2].split()[0] for stat in stats}:
                return
        time.sleep(0.1)
    raise AssertionError("it has ended")


# --- failures


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, key: Signer) -> Path:
    """A world with three publications of all kinds, and a commit that is to be published."""
    made = World(tmp_path_factory.mktemp("published"), key)
    for text in ("1", "2", "3"):
        made.add(text)
        made.publish("--image", "--keep=2")
    made.add("4")
    return made.path


def cases() -> Iterator[object]:
    """Yield each failpoint with what happens there; those near to others are for `make extended`."""
    for point in (*BEFORE, *AFTER):
        marks = () if point in OFTEN else pytest.mark.extended
        yield pytest.param(point, "kill", marks=marks)
        yield pytest.param(point, "error", marks=pytest.mark.extended)


@pytest.mark.parametrize(("point", "action"), cases())
def test_an_interruption_leaves_the_old_or_the_new_whole(
    published: Path, tmp_path: Path, key: Signer, server: Server, point: str, action: str
):
    for name in ("source", "www"):
        shutil.copytree(published / name, tmp_path / name, symlinks=True)
    world = World(tmp_path, key, server.url)
    new, old = (ostree("rev-parse", f"--repo={world.source}", rev).strip() for rev in (REF, f"{REF}^"))
    machine = world.client()
    assert machine.pull() == old
    world.publish("--image", "--keep=2", failpoint=f"{point}={action}", code=1)

    for one in (machine, world.client()):
        assert one.pull() == (old if point in BEFORE else new)
    image = world.image
    rows = (image.manifest["config"], *image.manifest["layers"])
    assert all(image.blob(row["digest"]) for row in rows)

    if point == "publish.finished":
        world.publish("--image", "--keep=2", code=77)
    else:
        assert world.publish("--image", "--keep=2")["refs"][REF]["commits"] == [new, old]
    for one in (machine, world.client()):
        assert one.pull() == new
    assert world.commits() == {new, old}
    ostree("fsck", "-q", f"--repo={world.top}/repo")
    assert not list(world.top.rglob(".apt-ostree-*"))
    world.publish("--image", "--keep=2", code=77)


def test_machines_pull_while_refs_are_published(world: World):
    """No pull fails, but for one that reads the signature before the summary's change, and succeeds then."""
    commits = [world.add("0")]
    world.publish("--keep=3")
    ended, pulled = threading.Event(), []

    def pull() -> None:
        while not ended.is_set():
            machine = world.client()
            try:
                pulled.append(machine.pull())
            except AssertionError as error:
                assert "BAD signature" in str(error)
                pulled.append(machine.pull())

    reader = threading.Thread(target=pull)
    reader.start()
    try:
        for number in range(1, 5):
            commits.append(world.add(str(number)))
            world.publish("--keep=3")
    finally:
        ended.set()
        reader.join()
    assert pulled and set(pulled) <= set(commits)
    assert [commits.index(one) for one in pulled] == sorted(commits.index(one) for one in pulled)
