"""Makes a sysroot in a directory, with one deployment, and measures what a commit will take there.

It uses the program ostree: a pull and a deployment take seconds, in which a cancel must be handled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_ostree.model import diskimage
from apt_ostree.model.origin import Origin, format_origin
from apt_ostree.model.refspec import Refspec
from apt_ostree.system import process
from apt_ostree.system.ostree import image_refs
from apt_ostree.system.ostree.bootfs import boot_files
from apt_ostree.system.ostree.gi_ostree import OSTree, explained
from apt_ostree.system.ostree.remotes import Remote
from apt_ostree.system.ostree.repo import Repo

#: Else the deployment's root is immutable, and only who knows that can remove a directory that was left over.
_MUTABLE: Mapping[str, str] = {"OSTREE_SYSROOT_DEBUG": "mutable-deployments"}


@dataclass(frozen=True, slots=True)
class NewSysroot:
    """A sysroot with one deployment.

    deployment: the root of the deployment, relative to that of the sysroot.
    """

    root: Path
    stateroot: str
    deployment: str

    @property
    def etc(self) -> Path:
        """The deployment's /etc."""
        return self.root / self.deployment / "etc"

    @property
    def var(self) -> Path:
        """The stateroot's /var."""
        return self.root / "ostree/deploy" / self.stateroot / "var"


@dataclass(frozen=True, slots=True)
class Source:
    """What a deployment is made of.

    repo: the repository that has the commit.
    origin: of the deployment.
    remote: the one that the origin names, if it is configured.
    image: the name of the container image from which the commit was imported.
    """

    repo: Path
    commit: str
    origin: Origin
    remote: Remote | None = None
    image: str = ""

    @property
    def follows(self) -> str:
        """The branch, or the image, that upgrades come from."""
        return self.origin.refspec or self.origin.image


def make(root: Path, stateroot: str, source: Source, *, arguments: Sequence[str]) -> NewSysroot:
    """Make a sysroot in an empty directory, with one deployment.

    arguments: of the kernel.
    """
    _ostree("admin", "init-fs", "--modern", root)
    (root / "boot").mkdir(exist_ok=True)
    _ostree("admin", "os-init", f"--sysroot={root}", stateroot)
    repo = root / "ostree/repo"
    # The boot menu reads libostree's entries, and nothing else is to be written for the boot loader.
    _ostree("config", f"--repo={repo}", "set", "sysroot.bootloader", "none")
    _ostree("config", f"--repo={repo}", "set", "sysroot.readonly", "true")
    refs = image_refs.of(Repo.open(source.repo), source.origin.image_digest)
    _ostree("pull-local", "--disable-fsync", f"--repo={repo}", source.repo, source.commit, *refs)
    if source.remote:
        source.remote.write(repo)
    if branch := Refspec.parse(source.origin.refspec):
        _ostree("refs", f"--repo={repo}", f"--create={branch}", source.commit)
    origin = root / "origin"
    origin.write_text(format_origin(source.origin))
    # The option --karg would replace an earlier one of the same key, such as console=.
    given = [f"--karg-append={argument}" for argument in arguments]
    options = [f"--sysroot={root}", f"--os={stateroot}", f"--origin-file={origin}"]
    _ostree("admin", "deploy", *options, *given, source.commit)
    origin.unlink()
    (deployment,) = (root / "ostree/deploy" / stateroot / "deploy").glob("*.0")
    return NewSysroot(root, stateroot, str(deployment.relative_to(root)))


def _ostree(*words: str | Path) -> None:
    what = f"make the system root (ostree {words[0]} {words[1] if words[0] == 'admin' else ''}".rstrip() + ")"
    process.run(["ostree", *words], what=what, env=_MUTABLE)


def measure(source: Source) -> diskimage.Contents:
    """Return what the deployment of a commit takes, with the repository that it is checked out from."""
    repo, commit = Repo.open(source.repo), source.commit
    layers = map(repo.local_ref, image_refs.of(repo, source.origin.image_digest))
    names: set[Any] = set()
    for one in (commit, *filter(None, layers)):
        with explained(f"read commit {one[:12]}"):
            names.update(repo.handle.traverse_commit(one, 0, None)[1])
    objects = [OSTree.object_name_deserialize(name) for name in names]
    files = [checksum for checksum, kind in objects if kind == OSTree.ObjectType.FILE]
    content = sum(diskimage.allotted(repo.outline(checksum).size) for checksum in files)
    # Each other object is a file of the repository, and at most one directory of the deployment.
    others = 2 * diskimage.BLOCK * (len(objects) - len(files))
    boot = boot_files(repo, commit).values()
    return diskimage.Contents(
        root=content + others, boot=sum(diskimage.allotted(repo.outline(checksum).size) for checksum in boot)
    )
