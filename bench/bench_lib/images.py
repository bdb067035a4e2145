"""Bases that differ in nothing but security updates, and container images of them; the host composes them.

Which versions a base has, lockfiles say: one of the release alone, and one of all that has come since.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from testbed_lib.common import CHECKOUT
from testbed_lib.image import make_base_image, mounted_disk
from testbed_lib.install import install_into_image
from testbed_lib.store import open_store

from bench_lib import importing
from bench_lib.compose import COMMAND, COMPOSE, PRODUCT, TREEFILE
from bench_lib.measure import BenchError, run, say

#: The packages of the source nginx that a base with nginx has.
_NGINX = ("nginx", "nginx-common")
#: Packages of which the sources often have security updates; the base has others.
_UPDATED = (
    "exim4-daemon-light",
    "haproxy",
    "libgd3",
    "needrestart",
    "nginx",
    "php8.4-cli",
    "ruby3.3",
    "runc",
)
_INCLUDED = (TREEFILE, CHECKOUT / "tools/testbed-tree.yaml")

#: Name of a package -> VERSION.ARCHITECTURE.
Lock = dict[str, str]


@dataclass(frozen=True, slots=True)
class Update:
    """A security update of nginx.

    disk: boots the base without it.
    images: of the base without it, and with it.
    versions: of nginx in these.
    bytes: of the second image (whole), of each of its layers that the first one has not (new), and of the
        one with nginx (nginx).
    """

    disk: Path
    images: tuple[Path, Path]
    versions: tuple[str, str]
    bytes: Mapping[str, Any]


@contextmanager
def nginx_update() -> Iterator[Update]:
    """Compose both bases, and make images of them, and the disk."""
    # Disks are where those of the machines are, so that a copy costs nothing.
    with _bases(["nginx"]) as bases, TemporaryDirectory(prefix="bench-", dir=open_store()) as disks:
        locks = {"old": bases.new | {name: bases.old[name] for name in _NGINX}, "new": bases.new}
        if locks["old"] == locks["new"]:
            raise BenchError("nginx has had no security update since the release")
        images: list[Path] = []
        for which, lock in locks.items():
            bases.compose(which, lock)
            with mounted_disk(_make_disk(Path(disks), bases.repo, which)) as disk:
                previous = [f"--previous={image}" for image in images]
                images.append(bases.directory / which)
                made = _make_image(disk / "ostree/repo", which, images[-1], *previous)
        old, new = (lock["nginx"].rpartition(".")[0] for lock in locks.values())
        yield Update(Path(disks) / "old.img", (images[0], images[1]), (old, new), _bytes_of(made))


def measure_updates(updates: int, imports: int) -> dict[str, Any]:
    """Return what images of successive updates take, each of one more source, and how the last is imported.

    An update is called by the first name of its packages; they are the first ones since the release, by name.
    """
    with _bases(_UPDATED) as bases:
        since: dict[str, Lock] = {}  # by version, which the packages of one source share
        for name, evra in bases.new.items():
            if bases.old.get(name) != evra:
                since.setdefault(evra.rpartition(".")[0], {})[name] = evra
        if len(since) < updates:
            raise BenchError(f"only {len(since)} sources have been updated since the release")
        image, lock, steps = bases.directory / "image", bases.old, []
        for theirs in ({}, *list(since.values())[:updates]):
            lock = lock | theirs
            bases.compose("next", lock)
            made = _make_image(bases.repo, "next", image)  # in place of the one before, with its layers
            steps.append({"update": min(theirs, default=""), "whole": made["size"], "new": made["new_size"]})
        imported = importing.measure(bases.repo, "next", image, imports)
        return {"updates": steps[1:], "import": imported}


def _bytes_of(made: Mapping[str, Any]) -> dict[str, Any]:
    nginx = next(layer for layer in made["layers"] if "nginx" in layer["sources"])
    new = {layer["name"]: layer["size"] for layer in made["layers"] if not layer["reused"]}
    return {"whole": made["size"], "new": new, "nginx": nginx["size"]}


def _make_disk(directory: Path, repo: Path, ref: str) -> Path:
    """Make a disk that boots a base with this checkout's package."""
    say(f"making the disk of the {ref} base")
    base, disk = directory / f"{ref}-base.img", directory / f"{ref}.img"
    make_base_image(base, repo, run("ostree", "rev-parse", f"--repo={repo}", ref).strip(), ref)
    install_into_image(base, disk, ref, fixtures=None, packages=("apt-ostree",))
    return disk


def _make_image(repo: Path, ref: str, image: Path, *options: str) -> dict[str, Any]:
    """Make the image of a base; return what the command says."""
    say(f"making the image of the {ref} base")
    words = (f"--repo={repo}", f"--ref={ref}", "-o", image, *options, "--json")
    made: dict[str, Any] = json.loads(run(*COMPOSE, "image", *words, env=PRODUCT))
    return made


@contextmanager
def _bases(packages: Sequence[str]) -> Iterator[_Bases]:
    """Make a treefile with these packages beside those of the test bed, and a repository."""
    with TemporaryDirectory(prefix="apt-ostree-bench-", dir="/var/tmp") as name:
        yield _Bases(Path(name), packages)


class _Bases:
    """Composes one treefile with versions that lockfiles name.

    directory, repo: of its own, and the repository in it.
    old, new: the versions of the release alone, and those of today.
    """

    def __init__(self, directory: Path, packages: Sequence[str]) -> None:
        self.directory, self.repo = directory, directory / "repo"
        run("ostree", "init", f"--repo={self.repo}", "--mode=archive")
        tree = {"include": list(map(str, _INCLUDED)), "ref": "bench/images", "packages": list(packages)}
        self.old = self._versions("old", {**tree, "archives": [{"suite": "trixie"}]})
        self.new = self._versions("new", tree)

    def compose(self, ref: str, lock: Lock) -> None:
        """Commit a base with these versions."""
        say(f"composing the {ref} base")
        lockfile = self.directory / "lock"
        lockfile.write_text(json.dumps({"packages": {name: {"evra": evra} for name, evra in lock.items()}}))
        treefile = self.directory / "new.yaml"
        self._run(treefile, f"--ref={ref}", f"--lockfile={lockfile}")

    def _versions(self, which: str, tree: Mapping[str, Any]) -> Lock:
        treefile, lockfile = self.directory / f"{which}.yaml", self.directory / f"{which}.lock"
        treefile.write_text(json.dumps(tree))
        self._run(treefile, "--dry-run", f"--write-lockfile-to={lockfile}")
        packages = json.loads(lockfile.read_text())["packages"]
        return {name: row["evra"] for name, row in packages.items()}

    def _run(self, *words: str | Path) -> None:
        cache = self.directory / "cache"  # so that archives are downloaded once
        run(*COMMAND, *words, f"--repo={self.repo}", f"--cachedir={cache}", "--quiet", env=PRODUCT)
