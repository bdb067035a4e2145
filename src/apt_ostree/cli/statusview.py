"""Turns a status into lines of text, as rpm-ostree does, without side effects. `render` prints them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from apt_ostree.model.deployment import Uncompleted
from apt_ostree.model.newer import Newer
from apt_ostree.model.package import PackageDiff
from apt_ostree.model.status import Commit, DeploymentStatus, Live, Status

#: The number of names that a line lists; further names are counted.
_NAMES = 8

Row = tuple[str, str]


def lines(status: Status, *, verbose: bool = False, bullet: str = "●") -> Iterator[str]:
    """Yield the lines of `status`."""
    yield f"State: {'busy' if status.busy else 'idle'}"
    if status.uncompleted:
        yield _warning(status.uncompleted)
    yield "Deployments:"
    for number, entry in enumerate(status.deployments):
        if number:
            yield ""
        yield f"{bullet if entry.deployment.booted else ' '} {_origin(entry)}"
        yield from _table(_rows(entry, busy=status.busy, verbose=verbose))


def _warning(uncompleted: Uncompleted) -> str:
    """Return a line about a staged deployment that no shutdown completed."""
    reason = uncompleted.reason or "see 'journalctl -u ostree-finalize-staged.service'"
    return (
        f"Warning: deployment {uncompleted.checksum[:12]} was staged, but the shutdown did not complete it "
        f"({reason}); stage it again"
    )


def brief(status: Status, *, bullet: str = "●") -> Iterator[str]:
    """Yield one line for each deployment."""
    for entry in status.deployments:
        fields = (
            bullet if entry.deployment.booted else " ",
            _origin(entry),
            entry.commit.version,
            entry.commit.checksum[:12],
        )
        yield " ".join(filter(None, fields))


def _rows(entry: DeploymentStatus, *, busy: bool, verbose: bool) -> Iterator[Row]:
    deployment, live = entry.deployment, entry.live
    booted = "Booted" if live and live.commit else ""
    yield from _version(entry.commit)
    if entry.base:
        yield f"{booted}BaseCommit", entry.base.checksum
    if verbose or not entry.base:
        yield (f"{booted}Commit" if not entry.base else "Commit"), entry.commit.checksum
    if live:
        yield from _live(live, busy=busy, verbose=verbose)
    if verbose:
        yield "StateRoot", deployment.osname
        yield "Index", str(deployment.index)
    if entry.diff is not None:
        yield "Diff", _diff(entry.diff, verbose=verbose)
    yield from _packages(entry, verbose=verbose)
    if deployment.unlocked != "none":
        yield "Unlocked", deployment.unlocked
    if deployment.pinned:
        yield "Pinned", "yes"
    if deployment.staged:
        yield "Staged", "yes"


def _packages(entry: DeploymentStatus, *, verbose: bool) -> Iterator[Row]:
    if entry.layered:
        yield "LayeredPackages", " ".join(entry.layered)
    if entry.deployment.origin.local:
        yield "LocalPackages", " ".join(package.label for package in entry.deployment.origin.local)
    if entry.inactive:
        yield "InactiveRequests", " ".join(entry.inactive)
    if commands := entry.deployment.origin.commands:
        yield "Commands", "; ".join(map(shlex.join, commands))
    if entry.newer:
        yield "NewerVersions", ", ".join(map(_newer, entry.newer))
    if entry.etc_beside:
        yield "ToMerge", " ".join(entry.etc_beside)
    if entry.upgraded:
        changes = [f"{c.name} {c.old} -> {c.new}" for c in entry.upgraded]
        names = _shortened([change.name for change in entry.upgraded])
        yield "UpgradedPackages", ", ".join(changes if verbose else names)


def _newer(newer: Newer) -> str:
    return f"{newer.request}: {newer.version}{' (security)' if newer.security else ''}"


def _version(commit: Commit) -> Iterator[Row]:
    if commit.version:
        yield "Version", f"{commit.version} ({_time(commit)})"
    else:
        yield "Timestamp", _time(commit)


def _live(live: Live, *, busy: bool, verbose: bool) -> Iterator[Row]:
    if live.commit:
        yield "LiveCommit", f"{live.commit} (generation {live.generation})"
        yield "LiveDiff", _diff(live.diff, verbose=verbose)
        if live.overlays:
            yield "Overlays", ", ".join(live.overlays)
        if live.failed:
            yield "FailedUnits", ", ".join(live.failed)
        if not live.shown:
            yield "LiveState", "not visible: something else is mounted over /usr"
    if live.confirm_by:
        when = datetime.fromtimestamp(live.confirm_by).astimezone().strftime("%H:%M:%S")
        yield "Unconfirmed", f"undone at {when} unless 'apt-ostree confirm' is run"
    if live.unfinished and busy:
        yield "ApplyingLiveCommit", live.unfinished
    elif live.unfinished:
        yield "InterruptedLiveCommit", f"{live.unfinished} (run 'apt-ostree recover')"


def _diff(diff: PackageDiff, *, verbose: bool) -> str:
    """Return counts with names: "1 added (htop), 2 changed (bash, dash)"."""
    groups = (
        ("added", [p.label if verbose else p.name for p in diff.added]),
        ("removed", [p.label if verbose else p.name for p in diff.removed]),
        ("changed", [f"{c.name} {c.old} -> {c.new}" if verbose else c.name for c in diff.changed]),
    )
    counts = (
        f"{len(names)} {what} ({', '.join(names if verbose else _shortened(names))})"
        for what, names in groups
        if names
    )
    return ", ".join(counts) or "no packages"


def _shortened(names: Sequence[str]) -> list[str]:
    more = len(names) - _NAMES
    return [*names[:_NAMES], f"{more} more"] if more > 0 else list(names)


def _origin(entry: DeploymentStatus) -> str:
    return entry.deployment.origin.refspec or entry.commit.checksum


def _time(commit: Commit) -> str:
    return datetime.fromtimestamp(commit.timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _table(rows: Iterable[Row]) -> Iterator[str]:
    """Yield KEY: VALUE lines, with right-aligned keys as in rpm-ostree."""
    pairs = list(rows)
    width = max((len(key) for key, _value in pairs), default=0) + 2
    for key, value in pairs:
        yield f"{key:>{max(width, 25)}}: {value}"
