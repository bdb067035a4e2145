"""Backups of overlays: an archive repository in a directory, or the same in one file.

Commits are copied with their ancestors and their signatures. Every object that is copied from a backup is
verified, as from a server.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.openfile import OpenFile
from apt_ostree.system.ostree.gi_ostree import Gio, GLib, OSTree, explained
from apt_ostree.system.ostree.repo import Repo

_UNTRUSTED = 4  # OSTREE_REPO_PULL_FLAGS_UNTRUSTED
#: Limit of the unpacked size, against decompression bombs; no overlay may be that large.
_MOST_BYTES = 8 * 2**30


def is_backup(path: Path) -> bool:
    """Return whether a path is a backup: a repository, or a file."""
    return (path / "objects").is_dir() or path.is_file()


def write_file(repo: Repo, file: OpenFile, commits: Mapping[str, str]) -> None:
    """Write commits (ref -> commit) with their ancestors into a file that is open for writing."""
    with tempfile.TemporaryDirectory(prefix="apt-ostree-backup-", dir="/var/tmp") as scratch:
        write(repo, Path(scratch) / "repo", commits)
        with (
            os.fdopen(os.dup(file.fd), "wb") as stream,
            tarfile.open(fileobj=stream, mode="w") as archive,  # the objects are compressed already
        ):
            archive.add(Path(scratch) / "repo", "repo")


def write(repo: Repo, path: Path, commits: Mapping[str, str], *, label: str = "") -> None:
    """Write commits (ref -> commit) with their ancestors into a directory; what it holds already is kept.

    label: the name of the directory in messages.
    UsageError is raised if the directory is neither a backup nor empty.
    """
    if not (path / "objects").is_dir():
        if path.is_dir() and any(path.iterdir()):
            raise UsageError(f"{label or path} is neither a backup nor an empty directory")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = OSTree.Repo.new(Gio.File.new_for_path(str(path)))
        with explained(f"make the backup {path}"):
            made.create(OSTree.RepoMode.ARCHIVE, None)
    target = Repo.open(path)
    for ref, commit in commits.items():
        _pull(target, _location(repo), commit)
        target.set_ref(ref, commit)


@contextmanager
def opened(path: Path, label: str = "") -> Iterator[Repo]:
    """Open a backup for reading; Refused or UsageError if it is none. label: its name in messages."""
    name = label or str(path)
    if path.is_dir():
        yield Repo.open(path)
        return
    with tempfile.TemporaryDirectory(prefix="apt-ostree-") as scratch:
        try:
            with tarfile.open(path, "r:") as archive:
                _unpack(archive, scratch, name)
        except (tarfile.TarError, EOFError) as error:
            raise UsageError(f"{name} is not a backup of overlays: {error}") from error
        unpacked = Path(scratch) / "repo"
        if not is_backup(unpacked):
            raise UsageError(f"{name} is not a whole backup of overlays")
        yield Repo.open(unpacked)


def _unpack(archive: tarfile.TarFile, place: str, name: str) -> None:
    """Unpack plain files and directories as our own; anything else is refused.

    The filter "data" would do that, but Debian 12's Python has none.
    """
    members = archive.getmembers()
    if sum(member.size for member in members) > _MOST_BYTES:
        raise Refused(f"the backup {name} is too large")
    for member in members:
        path = PurePosixPath(member.name)
        if not (member.isreg() or member.isdir()) or path.is_absolute() or ".." in path.parts:
            raise Refused(f"{name} is not a backup of overlays: it holds more than files")
        member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
        member.mode = 0o700 if member.isdir() else 0o600
    archive.extraction_filter = _as_it_is
    archive.extractall(place, members)


def _as_it_is(member: tarfile.TarInfo, _path: str) -> tarfile.TarInfo:
    return member


def fetch(repo: Repo, backup: Repo, commit: str) -> None:
    """Copy a commit and its ancestors from a backup; every object's checksum is verified."""
    _pull(repo, _location(backup), commit, hint="the backup is damaged, or not whole")


def _location(repo: Repo) -> str:
    return str(repo.handle.get_path().get_uri())


def _pull(target: Repo, source: str, commit: str, hint: str | None = None) -> None:
    options = {
        "refs": GLib.Variant("as", [commit]),
        "depth": GLib.Variant("i", -1),
        "flags": GLib.Variant("i", _UNTRUSTED),
    }
    with explained(f"copy commit {commit[:12]} of an overlay", hint=hint):
        target.handle.pull_with_options(source, GLib.Variant("a{sv}", options), None, None)
