"""Makes lines of text of the JSON of a status, as rpm-ostree does. `render` prints them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from apt_ostree.model.signature import Signature
from apt_ostree.model.status import package_name

#: The number of names that a line lists; further names are counted.
_NAMES = 8

Row = tuple[str, str]
_DIFF_KINDS = ("upgraded", "downgraded", "removed", "added")


def lines(status: Mapping[str, Any], *, verbose: bool = False, bullet: str = "●") -> Iterator[str]:
    """Yield the lines of `status`. status: the JSON object (model.status)."""
    yield f"State: {'busy' if status['busy'] else 'idle'}"
    yield from _driver(status["update-driver"])
    yield from _automatic(status["automatic-updates"])
    if status["transaction"]:
        title, user, _path = status["transaction"]
        yield f"Transaction: {title} (of {user})"
    if status["uncompleted-deployment"]:
        yield _warning(status["uncompleted-deployment"])
    yield "Deployments:"
    for number, entry in enumerate(status["deployments"]):
        if number:
            yield ""
        yield f"{bullet if entry['booted'] else ' '} {_origin(entry)}"
        yield from _table(_rows(entry, busy=status["busy"], verbose=verbose))
    if status["cached-update"]:
        yield ""
        yield "AvailableUpdate:"
        yield from _table(_available(status["cached-update"], verbose=verbose))


def _driver(driver: Mapping[str, Any] | None) -> Iterator[str]:
    if driver:
        state = "active" if driver["driver-active"] else "not active, so that it holds up nothing"
        yield f"AutomaticUpdatesDriver: {driver['driver-name']} ({driver['driver-sd-unit']}; {state})"


def _automatic(automatic: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what there is to say of automatic updates, as rpm-ostree does, and why one was deferred."""
    if automatic is None:
        return
    last = f"last run {_time(automatic['last-run'])}" if automatic["last-run"] else "no run yet"
    state = last if automatic["timer"] == "active" else f"inactive, {last}"
    yield f"AutomaticUpdates: {automatic['policy']}; apt-ostree-automatic.timer: {state}"
    for reason in automatic["reasons"]:
        yield f"  {automatic['outcome']}: {reason}"
    if automatic["prediction"]:
        from apt_ostree.model import prediction

        yield from (f"  {line}" for line in prediction.describe(automatic["prediction"]))


def _available(update: Mapping[str, Any], *, verbose: bool) -> Iterator[Row]:
    """Yield what is to be said of the update that the last check has noted."""
    if digest := update.get("container-image-reference-digest"):
        yield "Digest", digest
        return  # the packages are known once the image is fetched
    if update["ref-has-new-commit"]:
        yield "Version", f"{update.get('version', '')} ({_time(update['timestamp'])})".lstrip()
        yield "Commit", update["checksum"]
    diff = update.get("rpm-diff", {})
    kinds = [(kind, [row[1] for row in diff.get(kind, ())]) for kind in _DIFF_KINDS]
    counts = (
        f"{len(names)} {kind} ({', '.join(names if verbose else _shortened(names))})"
        for kind, names in kinds
        if names
    )
    yield "Diff", ", ".join(counts) or "no packages"


def _warning(uncompleted: Mapping[str, Any]) -> str:
    """Return a line about a staged deployment that no shutdown completed."""
    reason = uncompleted["reason"] or "see 'journalctl -u ostree-finalize-staged.service'"
    return (
        f"Warning: deployment {uncompleted['checksum'][:12]} was staged, but the shutdown did not complete "
        f"it ({reason}); stage it again"
    )


def brief(status: Mapping[str, Any], *, bullet: str = "●") -> Iterator[str]:
    """Yield one line for each deployment."""
    for entry in status["deployments"]:
        fields = (
            bullet if entry["booted"] else " ",
            _origin(entry),
            entry.get("version"),
            entry["checksum"][:12],
        )
        yield " ".join(filter(None, fields))


def _rows(entry: Mapping[str, Any], *, busy: bool, verbose: bool) -> Iterator[Row]:
    yield from _commits(entry, verbose=verbose)
    yield from _verdicts(entry)
    yield from _live(entry, busy=busy, verbose=verbose)
    if verbose:
        yield "StateRoot", entry["osname"]
        yield "Index", str(entry["index"])
    if "diff" in entry:
        yield "Diff", _diff(entry["diff"], verbose=verbose)
    if "advisories" in entry:
        told = (f"{row['package']} {row['version']}: {' '.join(row['cves'])}" for row in entry["advisories"])
        yield "SecAdvisories", "; ".join(told) or "none"
    yield from _packages(entry, verbose=verbose)
    yield from _signatures(entry, verbose=verbose)
    if entry["unlocked"] != "none":
        yield "Unlocked", entry["unlocked"]
    if "mounted-over" in entry:
        yield "MountedOver", f"/usr, by another program: {entry['mounted-over']}"
    if entry["pinned"]:
        yield "Pinned", "yes"
    if entry["staged"]:
        yield "Staged", "yes"
    if entry.get("finalization-locked"):
        yield "Finalization", "locked, until 'apt-ostree finalize-deployment' is run"


def _commits(entry: Mapping[str, Any], *, verbose: bool) -> Iterator[Row]:
    """Yield which commits a deployment and its base are, and whether there will be no more of them."""
    booted = "Booted" if "live-replaced" in entry else ""
    base = entry.get("base-checksum")
    if digest := entry.get("container-image-reference-digest"):
        yield "Digest", digest
    if entry.get("version"):
        yield "Version", f"{entry['version']} ({_time(entry['timestamp'])})"
    else:
        yield "Timestamp", _time(entry["timestamp"])
    if base:
        yield f"{booted}BaseCommit", base
    if verbose or not base:
        yield (f"{booted}Commit" if not base else "Commit"), entry["checksum"]
    if end := entry.get("endoflife"):
        yield "EndOfLife", end


def _verdicts(entry: Mapping[str, Any]) -> Iterator[Row]:
    """Yield what has failed, and why the system went back to a deployment."""
    if back := entry.get("rolled-back"):
        commit = back["left"].rpartition("-")[2].partition(".")[0]
        yield "RolledBack", f"on {_local(back['time'])} from {commit[:12]}: {back['reason']}"
    for mark in entry.get("failed", ()):
        yield "Failed", f"{mark['way']} on {_local(mark['time'])}: {mark['reason']}"


def _local(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _signatures(entry: Mapping[str, Any], *, verbose: bool) -> Iterator[Row]:
    """Yield what is to be said of the signatures of the base: a valid one, or else what is wrong with all."""
    remote = (entry["origin"] or "").rpartition(":")[0]
    if "remote-error" in entry:
        yield "RemoteError", entry["remote-error"]
    elif remote and not entry["gpg-enabled"]:
        yield "GPGSignature", f"not required (gpg-verify=false of the remote {remote})"
    if not entry["gpg-enabled"]:
        return
    signatures = [Signature(**row) for row in entry["signatures"]]
    valid = [signature for signature in signatures if signature.valid]
    for signature in signatures if verbose or not valid else valid[:1]:
        yield "GPGSignature", signature.describe()
    if not signatures:
        yield "GPGSignature", "none, but the remote's configuration requires one"


#: Titles of lists of packages, and their keys.
_LISTED = (
    ("LayeredPackages", "packages"),
    ("LocalPackages", "requested-local-packages"),
    ("LocalForcedPackages", "requested-local-fileoverride-packages"),
)


def _packages(entry: Mapping[str, Any], *, verbose: bool) -> Iterator[Row]:
    for title, key in _LISTED:
        if entry[key]:
            yield title, " ".join(entry[key])
    yield from _overrides(entry)
    replaced = (row["name"] for row in entry["base-local-replacements"])
    active = {*entry["packages"], *replaced}
    if inactive := [r for r in entry["requested-packages"] if package_name(r) not in active]:
        yield "InactiveRequests", " ".join(inactive)  # the base has them already
    if entry["regenerate-initramfs"]:
        yield "Initramfs", shlex.join(["regenerate", *entry.get("initramfs-args", ())])
    if tracked := entry.get("initramfs-etc"):
        yield "InitramfsEtc", " ".join(tracked)
    if entry["commands"]:
        yield "Commands", "; ".join(map(shlex.join, entry["commands"]))
    if entry["newer-versions"]:
        yield "NewerVersions", ", ".join(map(_newer, entry["newer-versions"]))
    if entry["etc-beside"]:
        yield "ToMerge", " ".join(entry["etc-beside"])
    if upgraded := entry["upgraded-packages"]:
        changes = [f"{c['name']} {c['old']} -> {c['new']}" for c in upgraded]
        names = _shortened([change["name"] for change in upgraded])
        yield "UpgradedPackages", ", ".join(changes if verbose else names)


def _overrides(entry: Mapping[str, Any]) -> Iterator[Row]:
    """Yield what is replaced and removed of the base, and what is not as the base lacks it."""
    replaced, removed = entry["base-local-replacements"], entry["base-removals"]
    if replaced:
        yield (
            "ReplacedBasePackages",
            ", ".join(f"{row['name']} {row['old']} -> {row['new']}" for row in replaced),
        )
    if removed:
        yield "RemovedBasePackages", ", ".join(f"{row['name']} {row['version']}" for row in removed)
    gone = {row["name"] for row in removed}
    if others := [name for name in entry["requested-base-removals"] if name not in gone]:
        yield "InactiveBaseRemovals", " ".join(others)
    changed = {row["name"] for row in replaced}
    if others := [r for r in entry["requested-base-local-replacements"] if package_name(r) not in changed]:
        yield "InactiveBaseReplacements", " ".join(others)


def _newer(newer: Mapping[str, Any]) -> str:
    return f"{newer['request']}: {newer['version']}{' (security)' if newer['security'] else ''}"


def _live(entry: Mapping[str, Any], *, busy: bool, verbose: bool) -> Iterator[Row]:
    if "live-replaced" in entry:
        live = entry["live-generation"]
        yield "LiveCommit", f"{entry['live-replaced']} (generation {live['number']})"
        yield "LiveDiff", _diff(entry["live-diff"], verbose=verbose)
        if entry["live-overlays"]:
            yield "Overlays", ", ".join(entry["live-overlays"])
        if entry["live-failed-units"]:
            yield "FailedUnits", ", ".join(entry["live-failed-units"])
        if not live["shown"]:
            yield "LiveState", "not visible: something else is mounted over /usr"
        if live["confirm-by"]:
            when = datetime.fromtimestamp(live["confirm-by"]).astimezone().strftime("%H:%M:%S")
            yield "Unconfirmed", f"undone at {when} unless 'apt-ostree confirm' is run"
    if unfinished := entry.get("live-inprogress"):
        if busy:
            yield "ApplyingLiveCommit", unfinished
        else:
            yield "InterruptedLiveCommit", f"{unfinished} (run 'apt-ostree recover')"


def _diff(diff: Mapping[str, Any], *, verbose: bool) -> str:
    """Return counts with names: "1 added (htop), 2 changed (bash, dash)"."""

    def of(package: Mapping[str, Any]) -> str:
        return f"{package['name']} {package['version']}" if verbose else str(package["name"])

    groups = (
        ("added", [of(package) for package in diff["added"]]),
        ("removed", [of(package) for package in diff["removed"]]),
        (
            "changed",
            [f"{c['name']} {c['old']} -> {c['new']}" if verbose else c["name"] for c in diff["changed"]],
        ),
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


def _origin(entry: Mapping[str, Any]) -> str:
    return str(entry.get("container-image-reference") or entry["origin"] or entry["checksum"])


def _time(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _table(rows: Iterable[Row]) -> Iterator[str]:
    """Yield KEY: VALUE lines, with right-aligned keys as in rpm-ostree."""
    pairs = list(rows)
    width = max((len(key) for key, _value in pairs), default=0) + 2
    for key, value in pairs:
        yield f"{key:>{max(width, 25)}}: {value}"
