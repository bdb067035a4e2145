"""Whether a tree is reproducible: it is composed a second time, and the two are compared.

The second one is made by `compose install` in another worker, which has other surroundings and no network. Of
the first one it has the inputs only: package lists, archives, a lockfile, the ids of accounts, and the time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core.compose import committing, lockfiles, packages
from apt_ostree.core.compose.cache import Cache, open_cache
from apt_ostree.core.compose.committing import Job
from apt_ostree.core.compose.packages import Plan
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model import account_ids, layout, reproduction, rootfs_record
from apt_ostree.model.account_ids import Ids
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.reproduction import Difference
from apt_ostree.model.requests.compose import ComposeInstall
from apt_ostree.model.treediff import PathChange
from apt_ostree.model.unitfile import merged
from apt_ostree.system import another_worker, dpkg_query, files
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import commit, diff
from apt_ostree.system.ostree.repo import Repo


@dataclass(frozen=True, slots=True)
class Again:
    """What a second build has of the first.

    ids: the ids that accounts have to keep.
    cache: has the archives.
    """

    job: Job
    plan: Plan
    ids: Ids
    cache: Cache


def require_reproducible(tx: Transaction, job: Job, root: Path, second: Path) -> str:
    """Compare two builds of a tree; return libostree's checksum of the content, which both have.

    root: the first one, which stays as it is. second: the second one, which does not.

    Raises Refused, naming all paths that differ, if they are not the same.
    """
    for each in (root, second):
        committing.refuse_special_files(each)
    with tx.task("Comparing the two builds"):
        repo, one, other = _in_repository(root, second)
        if found := _differences(repo, one, other, root):
            raise Refused(
                f"the tree of {job.ref} is not reproducible: {len(found)} paths differ between two builds",
                details=reproduction.lines(found),
                reasons=[each.to_json() for each in found],
                hint="nothing was committed; scripts must write neither dates, but for that of "
                "SOURCE_DATE_EPOCH, nor random numbers, nor what depends on the machine",
            )
    content = repo.content_checksum(one)
    tx.message(f"Two builds gave the same tree, with the content checksum {content}")
    return content


def build_again(tx: Transaction, treefile: str, again: Again, place: Path) -> Path:
    """Compose a tree a second time in a new directory; return its root directory.

    treefile: of the first one.

    Raises what `compose install` raises.
    """
    place.mkdir(mode=0o700)
    request = ComposeInstall(
        treefile=str(place / "again.yaml"),
        destdir=str(place / "another/place"),
        ids=str(place / "ids"),
        cachedir=str(place / "inputs"),
        cache_only=True,
        lockfiles=(str(place / "lockfile"),),
        lock_strictly=True,
        postprocess=True,
    )
    included = {"include": [str(Path(treefile).absolute())], "ref": again.job.ref}
    files.write_text(Path(request.treefile), json.dumps(included))
    files.write_text(place / "ids", account_ids.format_ids(again.ids))
    lockfiles.write(str(place / "lockfile"), again.plan.packages)
    if again.cache.absent(again.plan.digests) and not again.plan.offline:
        packages.download(tx, again.plan, again.cache)
    inputs = open_cache(request.cachedir, apart_from={}, needed=True)
    Path(request.destdir).parent.mkdir()
    with tx.task("Composing the tree a second time"):
        if inputs:
            again.cache.give_inputs(inputs, again.plan.bootstrap, again.plan.lists, again.plan.digests)
        failpoint("compose.verification-begins")
        made = another_worker.carry_out(
            ComposeInstall.verb,
            request.to_json(),
            what="compose the tree a second time",
            place=place,
            source_date=again.job.timestamp,
        )
    return Path(made["rootfs"])


def _in_repository(root: Path, second: Path) -> tuple[Repo, str, str]:
    """Return a repository beside the second root directory, with a commit of each."""
    place = second.with_name("compared")
    commits = [
        commit.commit_directory(
            place,
            directory,
            ref,
            subject=ref,
            timestamp=0,
            metadata={},
            keep_parent=False,
            consume=directory == second,
            leave_out=rootfs_record.NAME,
        ).checksum
        for ref, directory in (("first", root), ("second", second))
    ]
    return Repo.open(place), commits[0], commits[1]


def _differences(repo: Repo, one: str, other: str, root: Path) -> list[Difference]:
    """Return how two commits differ. root: has the tree of the first one, with dpkg's database."""
    changes = diff.changed_paths(repo, one, other)
    if not changes:
        return []
    owners = _owners(root)
    return [
        reproduction.compare(
            path,
            _state(repo, change, change.old),
            _state(repo, change, change.new),
            sorted({name for known in reproduction.shipped_as(path) for name in owners.get(known, ())}),
        )
        for change in changes
        for path in (f"/{change.path}",)
    ]


def _owners(root: Path) -> dict[str, set[str]]:
    """Return path -> names of the packages that ship it, by where it is in a tree."""
    database = root / layout.DPKG_ADMINDIR
    diverted = dpkg_query.diversions(database)
    found: dict[str, set[str]] = {}
    for path, names in dpkg_query.owners_of_all(database).items():
        place = diverted[path][0] if path in diverted else path
        found.setdefault(merged(place), set()).update(names)
    return found


def _state(repo: Repo, change: PathChange, checksum: str) -> FileState:
    if not checksum:
        return ABSENT
    return repo.directory_state(checksum) if change.is_dir else repo.file_state(checksum)
