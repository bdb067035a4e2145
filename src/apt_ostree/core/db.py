"""db: the packages of commits, and how they differ. It reads only, from the system or from a repository."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from apt_ostree.core.state import reading
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.core.state.live import read_live_state
from apt_ostree.errors import UsageError
from apt_ostree.model import changelog, layout
from apt_ostree.model.changelog import Advisory, ChangelogEntry
from apt_ostree.model.package import PackageChange, diff_packages
from apt_ostree.model.queries import CommitDiff, CommitPackages
from apt_ostree.model.refspec import is_revision
from apt_ostree.model.versions import version_key
from apt_ostree.system import statedb
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo

_DOC = "usr/share/doc"
#: Of a package with a Debian revision, and of a native one (Debian Policy, 12.7).
_CHANGELOGS = ("changelog.Debian.gz", "changelog.gz", "changelog.Debian", "changelog")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where commits are looked up. deployments: name, such as "booted" -> commit; empty for a repository."""

    repo: Repo
    deployments: Mapping[str, str]

    def resolve(self, name: str) -> str:
        """Return the commit of a deployment's name, a ref or a commit; raise UsageError if there is none."""
        return self.deployments.get(name) or self.repo.resolve(name)


def commit_packages(query: CommitPackages) -> list[dict[str, Any]]:
    """Return for each commit its packages, and a digest of them that is the same for the same packages.

    A name that is neither a deployment's, a ref nor a commit is a pattern of packages (fnmatch(3)). Raises
    UsageError for an unknown revision, and for a pattern that no package matches.
    """
    with _opened(query) as place:
        refs = {*place.deployments, *place.repo.refs("")}
        names = [name for name in query.names if is_revision(name, refs)]
        patterns = [name for name in query.names if name not in names]
        return [_listed(place, name, patterns) for name in names or _default(place)]


def _default(place: _Place) -> list[str]:
    if "booted" not in place.deployments:
        raise UsageError("no commit is named", hint="name a ref or a commit of the repository")
    return ["booted"]


def _listed(place: _Place, name: str, patterns: list[str]) -> dict[str, Any]:
    commit = place.resolve(name)
    packages = sorted(packages_of(place.repo, commit))
    text = "".join(f"{p.name} {p.version} {p.architecture}\n" for p in packages)
    chosen = [p for p in packages if not patterns or any(fnmatch.fnmatchcase(p.name, q) for q in patterns)]
    missing = [q for q in patterns if not any(fnmatch.fnmatchcase(p.name, q) for p in packages)]
    if missing:
        raise UsageError(
            f"{name} has no package {missing[0]!r}",
            hint="an argument that is no ref, commit or name of a deployment is a pattern of packages",
        )
    return {
        **_commit(place, name, commit),
        "packages": [asdict(package) for package in chosen],
        "digest": f"{len(packages)}:{hashlib.sha256(text.encode()).hexdigest()}",
    }


def _commit(place: _Place, name: str, commit: str) -> dict[str, Any]:
    version = place.repo.metadata(commit).get(layout.META_VERSION)
    return {"name": name, "checksum": commit, "version": version, "timestamp": place.repo.timestamp(commit)}


def commit_diff(query: CommitDiff) -> dict[str, Any]:
    """Return how the packages of two commits differ, with changelogs and vulnerabilities as requested.

    Without names, the booted deployment is compared with the pending one, or else the rollback one with it;
    with one name, the booted one with that.

    Raises UsageError for an unknown revision, and if there is nothing to compare.
    """
    with _opened(query) as place:
        names = _two(place, query.names)
        commits = [place.resolve(name) for name in names]
        if query.base:
            commits = [place.repo.base_of(commit) for commit in commits]
        old, new = commits
        packages = diff_packages(*(packages_of(place.repo, commit) for commit in commits))
        answer: dict[str, Any] = {
            "from": _commit(place, names[0], old),
            "to": _commit(place, names[1], new),
            "packages": asdict(packages),
        }
        if query.changelogs or query.advisories:
            entries = {c.name: _newer_entries(place.repo, new, c) for c in packages.changed}
        if query.changelogs:
            answer["changelogs"] = {name: [asdict(e) for e in rows] for name, rows in entries.items() if rows}
        if query.advisories:
            versions = {change.name: change.new for change in packages.changed}
            rows = [Advisory(n, versions[n], changelog.cves(one)) for n, one in entries.items()]
            answer["advisories"] = [asdict(row) for row in rows if row.cves]
        return answer


def _two(place: _Place, names: tuple[str, ...]) -> tuple[str, str]:
    if len(names) == 2:
        return names[0], names[1]
    if "booted" not in place.deployments:
        raise UsageError("two commits have to be named", hint="such as two refs of the repository")
    if names:
        return "booted", names[0]
    if "pending" in place.deployments:
        return "booted", "pending"
    if "rollback" in place.deployments:
        return "rollback", "booted"
    raise UsageError("there is only one deployment", hint="name a ref or a commit to compare it with")


def _newer_entries(repo: Repo, commit: str, change: PackageChange) -> tuple[ChangelogEntry, ...]:
    """Return the entries of an upgraded package's changelog, which its tree may not have."""
    from apt_ostree.system import changelogs

    if version_key(change.new) < version_key(change.old):
        return ()
    for name in _CHANGELOGS:
        content = _file(repo, commit, PurePosixPath(_DOC, change.name), name)
        if content and (entries := changelog.since(changelogs.entries(content), change.old)):
            return entries
    return ()


def _file(repo: Repo, commit: str, directory: PurePosixPath, name: str) -> bytes:
    """Return the content of a file; the directory may be a link to that of another package (Policy, 12.3)."""
    link = diff.file_of(repo, commit, str(directory))
    if link:
        directory = (
            directory.parent / PurePosixPath(repo.file_state(link).content.decode(errors="replace")).name
        )
    checksum = diff.file_of(repo, commit, str(directory / name))
    return repo.file_state(checksum).content if checksum else b""


@contextmanager
def _opened(query: CommitPackages | CommitDiff) -> Iterator[_Place]:
    if query.repo is not None:
        yield _Place(Repo.open(Path(query.repo)), {})
        return
    with reading.opened(query.sysroot) as sysroot:
        deployments = sysroot.deployments()
        places = {
            "booted": deployments.booted,
            "pending": deployments.pending,
            "rollback": deployments.rollback,
        }
        named = {name: deployment.checksum for name, deployment in places.items() if deployment}
        if query.sysroot == "/" and deployments.booted and statedb.is_readable():
            with statedb.read_only() as records:
                named["live"] = read_live_state(deployments, records).base
        yield _Place(sysroot.repo, named)
