"""What has to be in order before refs are published, and what there is to do."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core.compose import places, publish
from apt_ostree.core.compose.image import planning as images
from apt_ostree.core.compose.image import reading
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import publication
from apt_ostree.model.oci import Form
from apt_ostree.model.publication import RECORD, Pair, Record
from apt_ostree.model.requests.compose import ComposePublish
from apt_ostree.system import files, gpg
from apt_ostree.system.ostree import archive, contents, deltas, signatures
from apt_ostree.system.ostree import commit as commits
from apt_ostree.system.ostree.archive import Summary
from apt_ostree.system.ostree.repo import Repo

_REPO, _IMAGES = "repo", "image"


@dataclass(frozen=True, slots=True)
class Place:
    """Where refs are published from and to.

    source: the repository with the refs.
    top: the directory that is served.
    homedir: of the keyring with the keys; None is the caller's own.
    """

    source: Path
    top: Path
    keys: tuple[str, ...]
    homedir: Path | None

    @property
    def repo(self) -> Path:
        """The repository that machines pull from."""
        return self.top / _REPO

    def record_is(self, record: Record) -> None:
        """Write the record."""
        files.replace_text(self.top / RECORD, record.to_text())

    def image(self, ref: str) -> Path:
        """Return where the image of a ref is."""
        return self.top / _IMAGES / ref


@dataclass(frozen=True, slots=True)
class Branch:
    """A ref.

    commits: those that stay, the newest first, which is the one that the ref is to name.
    before: all that count as published before the newest one, for static deltas.
    """

    ref: str
    commits: tuple[str, ...]
    before: tuple[str, ...] = ()

    @property
    def newest(self) -> str:
        """The commit that the ref is to name."""
        return self.commits[0]


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is to do.

    branches: the refs that are published.
    record: what has been published; its `refs` are those of the plan.
    pull: commits to copy. copy_signatures: of commits that are there. sign: the newest commits, if a key has
        not signed one.
    delta: static deltas to make. keep_deltas: those that stay. drop_deltas: those to remove.
    move: refs that are to name another commit.
    images: refs whose image is another one, or is not there yet.
    prune: commits to remove.
    is_current: the summary is as it is to be.
    """

    place: Place
    branches: tuple[Branch, ...]
    record: Record
    pull: tuple[str, ...]
    copy_signatures: tuple[str, ...]
    sign: tuple[str, ...]
    delta: tuple[Pair, ...]
    keep_deltas: frozenset[Pair]
    drop_deltas: frozenset[Pair]
    move: Mapping[str, str]
    images: tuple[str, ...]
    prune: frozenset[str]
    is_current: bool

    @property
    def is_done(self) -> bool:
        """Return whether there is nothing to do."""
        todo = (self.pull, self.copy_signatures, self.sign, self.delta, self.drop_deltas, self.move)
        is_whole = self.record.finished and self.is_current
        return is_whole and not any((*todo, self.images, self.prune))

    @property
    def kept(self) -> frozenset[str]:
        """All commits that stay."""
        return frozenset(commit for listed in self.record.refs.values() for commit in listed)


def check_request(request: ComposePublish) -> Place:
    """Return where refs are published. Raises UsageError and Refused, see `places.marked`."""
    source = Path(request.repo).resolve()
    if not commits.exists(source):
        raise UsageError(f"there is no OSTree repository in {source}")
    top = places.marked(request.directory, RECORD)
    if source == top or top in source.parents or source in top.parents:
        raise UsageError(
            f"{top} and the repository {source} are not apart", hint="publish to a directory of its own"
        )
    return Place(source, top, request.sign, publish.homedir(request.gpg_homedir))


def plan(place: Place, request: ComposePublish) -> Plan:
    """Return what there is to do.

    Raises UsageError for a ref or key that is not there, and Refused for what cannot be published.
    """
    source, record = Repo.open(place.source), _record(place)
    repo = Repo.open(place.repo) if archive.exists(place.repo) else None
    own = [gpg.secret_keys(key, place.homedir) for key in place.keys]
    _require_keys(place)
    here = _published(repo, record)
    refs = _wanted(source, place, request.refs)
    branches = tuple(
        _branch((source, repo), ref, commit, here.get(ref, ()), request) for ref, commit in refs.items()
    )
    lists = {**here, **{branch.ref: branch.commits for branch in branches}}
    there = deltas.pairs(repo) if repo else frozenset()
    with_deltas = [lists[ref] for ref in lists if request.static_deltas or ref not in refs]
    keep = publication.old_deltas(there, with_deltas, record)
    pull = _missing(repo, branches)
    copy = _unlike(source, repo, [c for b in branches for c in b.commits if c not in pull])
    newest = dict.fromkeys(branch.newest for branch in branches)
    sign = tuple(commit for commit in newest if _is_unsigned(repo, place, commit, pull))
    heads = {ref: listed[0] for ref, listed in lists.items()}
    return Plan(
        place=place,
        branches=branches,
        record=Record(record.finished, lists, record.deltas),
        pull=pull,
        copy_signatures=copy,
        sign=sign,
        delta=_new_deltas(branches, there, record) if request.static_deltas else (),
        keep_deltas=keep,
        drop_deltas=there - keep,
        move={ref: heads[ref] for ref in refs if repo is None or repo.local_ref(ref) != heads[ref]},
        images=_images(source, repo, place, branches, {*pull, *copy, *sign}) if request.image else (),
        prune=repo.commits() - {c for listed in lists.values() for c in listed} if repo else frozenset(),
        is_current=repo is not None and is_current(archive.read_summary(repo), heads, keep, own),
    )


def is_current(
    summary: Summary | None, heads: Mapping[str, str], pairs: frozenset[Pair], own: Sequence[Set[str]]
) -> bool:
    """Return whether a summary says what it is to say, and all keys of ours, and no others, have signed it.

    heads: ref -> its newest commit.
    own: of each key, the fingerprints of it and its subkeys.
    """
    if summary is None or (dict(summary.refs), summary.deltas) != (dict(heads), pairs):
        return False
    signed = [{one for one in summary.issuers if _is_of(one, prints)} for prints in own]
    return all(signed) and summary.issuers == frozenset().union(*signed)


def _is_of(issuer: str, prints: Set[str]) -> bool:
    """Return whether one of the fingerprints is the issuer of a signature, which may be a short id."""
    return any(one.endswith(issuer) for one in prints)


def _record(place: Place) -> Record:
    path = place.top / RECORD
    if not path.exists():
        return Record()
    try:
        return publication.read_record(files.text_of(path))
    except UsageError as error:
        raise Refused(
            f"{place.top} was not made by compose publish",
            details=[error.message],
            hint="publish to another directory",
        ) from error


def _require_keys(place: Place) -> None:
    """Refuse to take the signature of the summary away, without which machines would not pull any more."""
    if not place.keys and archive.is_signed(place.repo):
        raise Refused(
            f"the summary of {place.repo} is signed, and no key is given",
            hint=f"name it with --gpg-sign; to publish without, remove {place.repo / 'summary.sig'} first",
        )


def _published(repo: Repo | None, record: Record) -> dict[str, tuple[str, ...]]:
    """Return ref -> its commits that are published, the newest first; a ref that was removed has none."""
    if repo is None:
        return {}
    return {
        ref: publication.history([head], filter(repo.has_commit, record.refs.get(ref, ())))
        for ref, head in repo.local_refs().items()
    }


def _wanted(source: Repo, place: Place, refs: Sequence[str]) -> dict[str, str]:
    """Return ref -> commit of what is to be published."""
    there = source.local_refs()
    if unknown := [ref for ref in refs if ref not in there]:
        raise UsageError(
            f"there is no ref {unknown[0]} in {place.source}",
            hint=f"there are: {', '.join(sorted(there)) or 'none'}",
        )
    wanted = {ref: there[ref] for ref in (refs or sorted(there))}
    if not wanted:
        raise UsageError(f"{place.source} has no refs", hint="compose a tree first")
    if partial := [ref for ref, commit in wanted.items() if not source.has_commit(commit)]:
        raise Refused(f"{place.source} has {partial[0]} without its tree", hint="pull it as a whole")
    return wanted


def _branch(
    repos: tuple[Repo, Repo | None], ref: str, newest: str, before: Sequence[str], request: ComposePublish
) -> Branch:
    """Return what is to be published of a ref.

    repos: the source, and that which is published.
    before: the commits of the ref that are published.
    """
    source, repo = repos
    times = {commit: source.timestamp(commit) for commit in source.ancestry(newest)}
    if repo:
        times |= {commit: repo.timestamp(commit) for commit in before if commit not in times}
    kept = publication.kept(times, request.keep, request.keep_days, time.time())
    return Branch(ref, kept, publication.history(kept, before)[1:])


def _missing(repo: Repo | None, branches: Sequence[Branch]) -> tuple[str, ...]:
    """Return the commits to copy, the oldest of each ref first."""
    wanted = dict.fromkeys(commit for branch in branches for commit in reversed(branch.commits))
    return tuple(commit for commit in wanted if repo is None or not repo.has_commit(commit))


def _unlike(source: Repo, repo: Repo | None, there: Sequence[str]) -> tuple[str, ...]:
    """Return the commits of which the source has further signatures."""
    if repo is None:
        return ()
    found = (commit for commit in dict.fromkeys(there) if source.has_commit(commit))
    return tuple(commit for commit in found if signatures.lacking(repo, source, commit))


def _is_unsigned(repo: Repo | None, place: Place, commit: str, pull: Sequence[str]) -> bool:
    if repo is None or commit in pull:
        return bool(place.keys)
    return not all(signatures.has_signed(repo, commit, key, place.homedir) for key in place.keys)


def _new_deltas(branches: Sequence[Branch], there: frozenset[Pair], record: Record) -> tuple[Pair, ...]:
    lists = ((branch.newest, *branch.before) for branch in branches)
    found = (pair for listed in lists for pair in publication.new_deltas(listed, there, record))
    return tuple(dict.fromkeys(found))


def _images(
    source: Repo, repo: Repo | None, place: Place, branches: Sequence[Branch], changing: set[str]
) -> tuple[str, ...]:
    """Return the refs whose image is to be written; Refused for a tree that no image can hold."""
    found = [b for b in branches if b.newest in changing or not _has_image(repo, place, b)]
    for branch in found:
        reading.read(source, branch.newest)
    return tuple(branch.ref for branch in found)


def _has_image(repo: Repo | None, place: Place, branch: Branch) -> bool:
    there = images.image_at(place.image(branch.ref), Form.OCI)
    if repo is None or there is None:
        return False
    detached = base64.b64encode(contents.detached_metadata(repo, branch.newest)).decode()
    return there.commit == (branch.newest, detached)
