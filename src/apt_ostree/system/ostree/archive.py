"""The archive repository that a web server serves: its summary, and what it keeps.

Machines read it while it is changed. So objects and static deltas come first. Then one rename changes the
summary and its signature together: both are links through a third one, `summary.d/current`. libostree itself
would remove the signature before it writes the summary. Nothing is removed that the present summary names.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.errors import Refused
from apt_ostree.model.publication import Pair
from apt_ostree.system import files, mounts, scratch
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import deltas, signatures
from apt_ostree.system.ostree.gi_ostree import Gio, GLib, OSTree, explained
from apt_ostree.system.ostree.repo import Repo

_SUMMARY, _SIGNATURE = "summary", "summary.sig"
_STORE, _CURRENT = "summary.d", "current"
#: See ostree_repo_regenerate_summary().
_FORMAT = "(a(s(taya{sv}))a{sv})"
_DELTAS = "ostree.static-deltas"
_PREFIX = ".apt-ostree-stand-in-"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a summary says.

    refs: ref -> commit.
    issuers: the fingerprints, or the ids, of the keys that have signed it.
    """

    refs: Mapping[str, str]
    deltas: frozenset[Pair]
    issuers: frozenset[str] = frozenset()


def exists(path: Path) -> bool:
    """Return whether there is an archive repository; Refused for one of another mode."""
    if not (path / "config").is_file():
        return False
    if not Repo.open(path).is_archive:
        raise Refused(
            f"the repository {path} is not of the mode archive", hint="publish to another directory"
        )
    return True


def opened(path: Path) -> Repo:
    """Open the repository, which is made if it is not there."""
    if not exists(path):
        path.mkdir(exist_ok=True)
        repo = OSTree.Repo.new(Gio.File.new_for_path(str(path)))
        with explained(f"create the repository {path}"):
            repo.create(OSTree.RepoMode.ARCHIVE, None)
        failpoint("archive.created")
    return Repo.open(path)


def is_signed(path: Path) -> bool:
    """Return whether the summary of a repository has a signature."""
    return (path / _SIGNATURE).exists()


def read_summary(repo: Repo) -> Summary | None:
    """Return the summary; None if there is none that `write_summary` has written."""
    top = _path(repo)
    if not ((top / _SUMMARY).is_symlink() and (top / _SUMMARY).is_file()):
        return None
    data = (top / _SUMMARY).read_bytes()
    variant = GLib.Variant.new_from_bytes(GLib.VariantType(_FORMAT), GLib.Bytes.new(data), False)
    if not variant.is_normal_form():
        return None
    rows, metadata = variant.unpack()
    names = (name.partition("-") for name in metadata.get(_DELTAS, ()))
    signed = (top / _SIGNATURE).read_bytes() if is_signed(top) else b""
    return Summary(
        refs={ref: bytes(checksum).hex() for ref, (_size, checksum, _metadata) in rows},
        deltas=frozenset((old, new) for old, _dash, new in names),
        issuers=signatures.issuers_of_data(repo, data, signed) if signed else frozenset(),
    )


def write_summary(
    repo: Repo, refs: Mapping[str, str], pairs: Iterable[Pair], keys: Sequence[str], homedir: Path | None
) -> None:
    """Write the summary, and its signature if there are keys, which take the place of the old ones at once.

    pairs: the static deltas that it names.
    keys, homedir: see gpg.secret_keys.
    """
    with _stand_in(repo, refs, pairs) as stand_in:
        with explained("write the summary"):
            stand_in.handle.regenerate_summary(None, None)
            if keys:
                stand_in.handle.add_gpg_signature_summary(list(keys), str(homedir) if homedir else None, None)
        deltas.copy_indexes(_path(stand_in), repo)
        failpoint("archive.indexes-written")
        _switch(_path(stand_in), _path(repo))


def _switch(made: Path, top: Path) -> None:
    """Give a summary and its signature, if it has one, their places."""
    store, parts = top / _STORE, [name for name in (_SIGNATURE, _SUMMARY) if (made / name).exists()]
    digest = hashlib.sha256(b"".join((made / name).read_bytes() for name in parts))
    new = store / digest.hexdigest()[:16]
    if not _leads_to(store / _CURRENT, new.name):
        files.remove_all(new)  # of a program that was killed
        new.mkdir(parents=True)
        for name in parts:
            (made / name).replace(new / name)
    mounts.sync_file_system(top)
    failpoint("archive.summary-written")
    _link(store / _CURRENT, new.name)
    failpoint("archive.summary-switched")
    for name in parts:
        _link(top / name, f"{_STORE}/{_CURRENT}/{name}")
        failpoint("archive.summary-linked")
    mounts.sync_file_system(top)
    for path in store.iterdir():
        if path.name not in (_CURRENT, new.name):
            files.remove_all(path)


def _link(path: Path, target: str) -> None:
    """Make a link, in the place of what is there, unless it is there already."""
    if _leads_to(path, target):
        return
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)


def _leads_to(path: Path, target: str) -> bool:
    return path.is_symlink() and str(path.readlink()) == target


def keep_only(repo: Repo, commits: Collection[str]) -> None:
    """Remove all other commits, and the objects that none of these needs."""
    with _stand_in(repo, {f"kept/{commit}": commit for commit in commits}) as stand_in:
        stand_in.prune()


@contextmanager
def _stand_in(repo: Repo, refs: Mapping[str, str], pairs: Iterable[Pair] = ()) -> Iterator[Repo]:
    """Yield a repository with the same objects and other refs; of static deltas it has only the heads."""
    top = _path(repo)
    with scratch.directory(top, _PREFIX) as place:
        for name in ("tmp/cache", "state", "extensions", "refs/heads", "refs/remotes", "refs/mirrors"):
            (place / name).mkdir(parents=True)
        shutil.copyfile(top / "config", place / "config")
        (place / "objects").symlink_to(top / "objects")
        for pair in pairs:
            head = deltas.directory_of(*pair) / "superblock"
            (place / head).parent.mkdir(parents=True)
            os.link(top / head, place / head)
        stand_in = Repo.open(place)
        for ref, commit in refs.items():
            stand_in.set_ref(ref, commit)
        yield stand_in


def _path(repo: Repo) -> Path:
    return Path(repo.handle.get_path().get_path())
