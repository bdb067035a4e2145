"""Pulling the security updates of a base: by static delta, object by object, and apt's download of the same.

The host composes the base without the updates and with them, makes the static delta and serves the
repository; the machine pulls. Bytes are those that the server sends.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

from bench_lib.measure import run, say, timed

_HOME = Path("/var/lib/bench/pull")
REF = "bench/pull"
#: The base of the example, with nothing but the release, and with its updates.
_TREEFILES = {
    "old": "include: {example}\nref: bench/pull\narchives: [{{suite: trixie}}]\n",
    "new": "include: {example}\nref: bench/pull\n",
}


@dataclass(frozen=True, slots=True)
class Served:
    """A repository that is served.

    repo, url: of the repository.
    commits: the base without the updates, and with them.
    packages: NAME=VERSION of each updated package.
    sent: the bytes sent so far, in one item.
    """

    repo: Path
    url: str
    commits: tuple[str, str]
    packages: tuple[str, ...]
    sent: list[int]


@contextmanager
def served(command: Sequence[str | Path], env: Mapping[str, str], example: Path) -> Iterator[Served]:
    """Compose both bases, and serve them. command: `compose tree`; example: its treefile."""
    with tempfile.TemporaryDirectory(prefix="apt-ostree-bench-", dir="/var/tmp") as name:
        directory, repo = Path(name), Path(name) / "repo"
        run("ostree", "init", f"--repo={repo}", "--mode=archive")
        commits = []
        for which, text in _TREEFILES.items():
            say(f"composing the {which} base")
            treefile = directory / f"{which}.yaml"
            treefile.write_text(text.format(example=example))
            run(*command, treefile, f"--repo={repo}", "--static-delta", "--quiet", env=env)
            commits.append(run("ostree", "rev-parse", f"--repo={repo}", REF).strip())
        diff = run(
            "/usr/bin/python3",
            "-m",
            "apt_ostree",
            "db",
            "diff",
            f"--repo={repo}",
            "--json",
            *commits,
            env=env,
        )
        changes = [two.get("NewPackage") for _name, _kind, two in json.loads(diff)["pkgdiff"]]
        packages = [f"{new[0]}={new[1]}" for new in changes if new]
        with _listening(repo) as (url, sent):
            yield Served(repo, url, (commits[0], commits[1]), tuple(packages), sent)


@contextmanager
def _listening(repo: Path) -> Iterator[tuple[str, list[int]]]:
    sent = [0]

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def copyfile(self, source: IO[bytes], target: IO[bytes]) -> None:  # type: ignore[override]
            while part := source.read(1 << 16):
                sent[0] += len(part)
                target.write(part)

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(repo))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()


# --- in the machine


def prepare(url: str, old: str) -> None:
    """Make a repository that has the old base."""
    shutil.rmtree(_HOME, ignore_errors=True)
    _HOME.mkdir(parents=True)
    base = f"--repo={_HOME / 'base'}"
    run("ostree", "init", base, "--mode=bare")
    run("ostree", "remote", "add", base, "--no-gpg-verify", "bench", url)
    run("ostree", "pull", base, "bench", old)
    run("ostree", "refs", base, f"--create=bench:{REF}", old)


def measure(options: Sequence[str]) -> float:
    """Pull the new base, with options of `ostree pull`, into a copy of the repository; return the seconds."""
    copy = _HOME / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    run("cp", "-al", _HOME / "base", copy)
    return timed("ostree", "pull", f"--repo={copy}", *options, f"bench:{REF}")


def archives_of(packages: Sequence[str]) -> int:
    """Return the bytes of packages' archives; what the mirror has no more counts as nothing."""
    run("apt-get", "update")
    total = 0
    for package in packages:
        uris = run("sh", "-c", 'apt-get --print-uris download "$1" 2>/dev/null || true', "sh", package)
        total += sum(int(line.split()[2]) for line in uris.splitlines() if line.startswith("'"))
    return total
