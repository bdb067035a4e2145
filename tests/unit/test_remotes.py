"""Pulls over HTTP from a real server on this machine."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from apt_ostree.errors import Refused
from apt_ostree.model import events
from apt_ostree.system.ostree import commit, deltas, remotes
from apt_ostree.system.ostree.gi_ostree import Gio, GLib, OSTree
from apt_ostree.system.ostree.repo import Repo
from tests.unit import repos
from tests.unit.vendor import Signer, signer


class Server:
    """An archive repository that is served, with two commits of the branch `test` and what was asked for."""

    def __init__(self, path: Path, work: Path) -> None:
        self.path = path
        path.mkdir()
        OSTree.Repo.new(Gio.File.new_for_path(str(path))).create(OSTree.RepoMode.ARCHIVE, None)
        self.commits = [self._add(work / text, text) for text in ("one", "two")]
        self.repo = Repo.open(path)
        self.asked: list[str] = []

    def _add(self, tree: Path, text: str) -> str:
        files = {f"usr/file{n}": "line\n" * 20_000 + f"{text} {n}" for n in range(20)}
        repos.write_files(tree, files)
        return commit.commit_directory(
            self.path, tree, "test", subject="test", timestamp=1_700_000_000, metadata={}
        ).checksum

    def handler(self) -> type[SimpleHTTPRequestHandler]:
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, _format: str, *arguments: object) -> None:
                asked.append(str(arguments[0]))

        return Handler


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    """A server, and its address."""
    made = Server(tmp_path / "served", tmp_path / "trees")
    listening = ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(made.handler(), directory=str(made.path))
    )
    with listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield made, f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def client(path: Path, url: str, made: Server, *keys: Signer) -> Repo:
    """Make a repository that has the first commit of a server's branch."""
    repo = repos.make_repo(path)
    options = {"gpg-verify": GLib.Variant("b", bool(keys))}
    repo.handle.remote_add("vendor", url, GLib.Variant("a{sv}", options), None)
    for key in keys:
        key.trusted_by(repo, "vendor")
    remotes.pull_commit(repo, "vendor", made.commits[0], events.silent)
    repo.handle.set_ref_immediate("vendor", "test", made.commits[0], None)
    made.asked.clear()
    return repo


def files_asked(made: Server) -> int:
    return sum(".filez" in line for line in made.asked)


def test_a_static_delta_is_used_and_told(server: tuple[Server, str], tmp_path: Path):
    made, url = server
    plain, other = (client(tmp_path / name, url, made) for name in ("plain", "other"))
    told: list[events.Event] = []
    remotes.pull(plain, "vendor:test", told.append)
    assert files_asked(made) == 20 and not [e for e in told if isinstance(e, events.Message)]

    made.asked.clear()
    delta = deltas.make(made.repo, *made.commits)
    assert delta.bytes < delta.objects
    remotes.pull(other, "vendor:test", told.append)
    assert other.has_commit(made.commits[1])
    # Debian 12's 2022.7 downloads the objects, too (https://github.com/ostreedev/ostree/issues/2680).
    assert files_asked(made) == 0 or not OSTree.check_version(2025, 2)
    (message,) = [e.text for e in told if isinstance(e, events.Message)]
    assert message.startswith("Received a static delta of ")


def test_a_static_delta_brings_no_unsigned_commit(server: tuple[Server, str], tmp_path: Path):
    made, url = server
    with signer() as key:
        key.sign(made.repo, made.commits[0])
        repo = client(tmp_path / "client", url, made, key)
        deltas.make(made.repo, *made.commits)
        with pytest.raises(Refused):
            remotes.pull(repo, "vendor:test", events.silent)
        assert repo.resolve_or_none("vendor:test") == made.commits[0]
        assert not repo.has_commit(made.commits[1])
        key.sign(made.repo, made.commits[1])
        deltas.make(made.repo, *made.commits)
        remotes.pull(repo, "vendor:test", events.silent)
    assert repo.resolve_or_none("vendor:test") == made.commits[1]
