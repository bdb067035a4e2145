"""The status of a system: every deployment with its commit, its packages and its live state.

The JSON keys are rpm-ostree's. Our own are `automatic-updates`, `busy`, `pending` and
`uncompleted-deployment`, and of a deployment `commands`, `diff`, `etc-beside`, `failed`, `index`,
`live-diff`, `live-failed-units`, `live-generation`, `live-overlays`, `mounted-over`, `newer-versions`,
`rolled-back`, and `upgraded-packages`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from apt_ostree.model.deployment import Deployment, Uncompleted
from apt_ostree.model.generation import Generation, Phase
from apt_ostree.model.newer import Newer
from apt_ostree.model.origin import Origin, request_name
from apt_ostree.model.package import Package, PackageChange, PackageDiff
from apt_ostree.model.signature import Signature

if TYPE_CHECKING:  # most systems know of none
    from apt_ostree.model.prediction import Prediction
    from apt_ostree.model.update import Update
    from apt_ostree.model.verdict import Mark, Return

#: ostree's key of a commit whose branch gets no more commits: what its users are to do.
_END_OF_LIFE = "ostree.endoflife"


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit.

    timestamp: seconds since 1970.
    metadata: without the list of packages.
    """

    checksum: str
    timestamp: int
    version: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Live:
    """The live state of the running system.

    commit: the base of the newest finished change, if any.
    generation: the number of that change.
    diff: packages of that commit against those of the booted one.
    overlays: ids of the overlays that are shown, the topmost first.
    unfinished: the target of an unfinished change, if any.
    shown: /usr shows the recorded generation.
    confirm_by: when the change is undone unless it is confirmed, in seconds since 1970.
    failed: units that live changes started and that have failed.
    """

    commit: str | None = None
    generation: int | None = None
    diff: PackageDiff = field(default_factory=PackageDiff)
    overlays: tuple[str, ...] = ()
    unfinished: str | None = None
    shown: bool = True
    confirm_by: float | None = None
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveRecords:
    """The live state according to the generations of this boot.

    newest: the last finished generation.
    unfinished: the base of a later, unfinished one.
    mounted: the numbers of generations that /usr may show.
    confirm_by: when the first unconfirmed one is undone, in seconds of CLOCK_MONOTONIC.
    """

    newest: Generation | None
    unfinished: str | None
    mounted: frozenset[int]
    confirm_by: float | None


def live_records(generations: Sequence[Generation]) -> LiveRecords:
    """Return the live state of this boot's generations, the oldest first; there must be at least one."""
    done = [generation for generation in generations if generation.phase is Phase.LIVE]
    last = generations[-1]
    deadlines = [g.confirm_by for g in done if g.confirm_by is not None]
    return LiveRecords(
        newest=done[-1] if done else None,
        unfinished=last.base if last.phase is not Phase.LIVE else None,
        mounted=frozenset({last.id, *(g.id for g in done[-1:])}),
        confirm_by=min(deadlines, default=None),
    )


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """One deployment.

    base: the base commit of a layered deployment.
    layered: requested packages that are installed on top of the base.
    upgraded: packages of the base with another version.
    removed: packages of the base that are absent, as the origin wants it.
    diff: packages against those of the booted deployment.
    newer: newer versions, in the archives, of packages that stay at theirs.
    etc_beside: paths of /etc with what packages' scripts made of files that were edited.
    gpg_enabled: commits of its remote must be signed.
    signatures: of its base, if they are checked.
    remote_error: why nothing is known of its remote.
    mounted_over: the source of another program's overlay over /usr, such as "sysext", if there is one.
    failed: how the same packages have failed before.
    back: why it is booted, if the system went back to it by itself.
    """

    deployment: Deployment
    commit: Commit
    base: Commit | None = None
    layered: tuple[str, ...] = ()
    upgraded: tuple[PackageChange, ...] = ()
    removed: tuple[Package, ...] = ()
    diff: PackageDiff | None = None
    live: Live | None = None
    newer: tuple[Newer, ...] = ()
    etc_beside: tuple[str, ...] = ()
    gpg_enabled: bool = False
    signatures: tuple[Signature, ...] = ()
    remote_error: str | None = None
    mounted_over: str | None = None
    failed: tuple[Mark, ...] = ()
    back: Return | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object of the deployment in `status --json`."""
        deployment, origin = self.deployment, self.deployment.origin
        base = self.base or self.commit
        replaced = {change.name for change in self.upgraded} & origin.names
        overriding = {*replaced, *origin.overriding}
        elsewhere = {*overriding, *origin.replacing}
        result: dict[str, Any] = {
            "id": deployment.id,
            "osname": deployment.osname,
            **_commit_json("", self.commit),
            "serial": deployment.serial,
            "index": deployment.index,
            "booted": deployment.booted,
            "staged": deployment.staged,
            "pinned": deployment.pinned,
            "unlocked": deployment.unlocked,
            **_followed_json(origin),
            "gpg-enabled": self.gpg_enabled,
            "signatures": [asdict(signature) for signature in self.signatures],
            "base-commit-meta": dict(base.metadata),
            "packages": list(self.layered),
            "requested-packages": list(origin.requested),
            "requested-local-packages": [p.label for p in origin.local if p.name not in elsewhere],
            "requested-local-fileoverride-packages": [
                p.label for p in origin.local if p.name in origin.replacing
            ],
            "commands": [list(command) for command in origin.commands],
            "requested-base-removals": list(origin.removed),
            "requested-base-local-replacements": [p.label for p in origin.local if p.name in overriding],
            "base-removals": [asdict(package) for package in self.removed],
            "base-local-replacements": [asdict(c) for c in self.upgraded if c.name in replaced],
            "base-remote-replacements": {},
            "upgraded-packages": [asdict(change) for change in self.upgraded],
            "newer-versions": [asdict(newer) for newer in self.newer],
            "etc-beside": list(self.etc_beside),
            **_initramfs_json(origin),
        }
        optional = {
            **(_commit_json("base-", self.base) if self.base else {}),
            "endoflife": base.metadata.get(_END_OF_LIFE),
            "remote-error": self.remote_error,
            "finalization-locked": deployment.locked or None,
            "layered-commit-meta": dict(self.commit.metadata) if self.base else None,
            "mounted-over": self.mounted_over,
            "diff": asdict(self.diff) if self.diff is not None else None,
        }
        result |= {key: value for key, value in optional.items() if value is not None}
        result |= _verdicts_json(self.failed, self.back)
        return result | (_live_json(self.live) if self.live else {})


def _followed_json(origin: Origin) -> dict[str, str | None]:
    """Return what the base is of; the keys of an image are only there if it is of one."""
    result = {"origin": origin.refspec or None}
    if origin.image:
        result["container-image-reference"] = origin.image
        result["container-image-reference-digest"] = origin.image_digest
    return result


def _initramfs_json(origin: Origin) -> dict[str, Any]:
    """Return what the initramfs has of the machine; without arguments or files there are no such keys."""
    result: dict[str, Any] = {"regenerate-initramfs": origin.initramfs is not None}
    if origin.initramfs:
        result["initramfs-args"] = list(origin.initramfs)
    if origin.initramfs_etc:
        result["initramfs-etc"] = list(origin.initramfs_etc)
    return result


def _verdicts_json(failed: Sequence[Mark], back: Return | None) -> dict[str, Any]:
    rows = [{"way": mark.way, "time": mark.time, "reason": mark.reason} for mark in failed]
    return {"failed": rows, **({"rolled-back": asdict(back)} if back else {})}


def _commit_json(prefix: str, commit: Commit) -> dict[str, Any]:
    """Return what tells which commit it is; prefix: of the keys. Without a version there is no such key."""
    result: dict[str, Any] = {"checksum": commit.checksum, "timestamp": commit.timestamp}
    if commit.version is not None:
        result["version"] = commit.version
    return {f"{prefix}{key}": value for key, value in result.items()}


def package_name(request: str) -> str:
    """Return the package name of a request (NAME, NAME=VERSION, NAME:ARCHITECTURE)."""
    return request_name(request).partition(":")[0]


@dataclass(frozen=True, slots=True)
class AutomaticStatus:
    """Automatic updates.

    policy: what is done without a request, see model.automatic_settings.Policy.
    timer: whether their timer is active.
    last_run, outcome, reasons: of the last run, in seconds since 1970.
    waiting_since: since when the system is not up to date, in seconds since 1970.
    attempts: how often the update that waits has failed.
    prediction: what the pending deployment would mean for the running system.
    """

    policy: str
    timer: bool
    last_run: float | None = None
    outcome: str = ""
    reasons: tuple[str, ...] = ()
    waiting_since: float | None = None
    attempts: int = 0
    prediction: Prediction | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object of `automatic-updates` in `status --json`."""
        return {
            "policy": self.policy,
            "timer": "active" if self.timer else "inactive",
            "last-run": self.last_run,
            "outcome": self.outcome or None,
            "reasons": list(self.reasons),
            "waiting-since": self.waiting_since,
            "failed-attempts": self.attempts,
            "prediction": self.prediction.to_json() if self.prediction else None,
        }


@dataclass(frozen=True, slots=True)
class DriverStatus:
    """The update driver, see model.driver. active: whether its unit is."""

    name: str
    unit: str
    active: bool

    def to_json(self) -> dict[str, Any]:
        """Return the object, with rpm-ostree's keys."""
        return {"driver-name": self.name, "driver-sd-unit": self.unit, "driver-active": self.active}


@dataclass(frozen=True, slots=True)
class Status:
    """All deployments, the next boot's first.

    pending: the next boot starts another than the booted one.
    uncompleted: a staged deployment that is gone, as no shutdown completed it.
    busy: another program holds the lock for changes.
    transaction: of the service, which is at work: its title, its user and its object.
    update: what the last check for upgrades found, if that is still true.
    automatic: automatic updates, unless they are off.
    driver: the program that decides about updates, if one has registered.
    """

    deployments: tuple[DeploymentStatus, ...]
    pending: bool = False
    busy: bool = False
    uncompleted: Uncompleted | None = None
    transaction: tuple[str, str, str] | None = None
    update: Update | None = None
    automatic: AutomaticStatus | None = None
    driver: DriverStatus | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object of `status --json`."""
        return {
            "deployments": [entry.to_json() for entry in self.deployments],
            "busy": self.busy,
            "pending": self.pending,
            "transaction": list(self.transaction) if self.transaction else None,
            "cached-update": _update_json(self.update) if self.update else None,
            "update-driver": self.driver.to_json() if self.driver else None,
            "automatic-updates": self.automatic.to_json() if self.automatic else None,
            "uncompleted-deployment": asdict(self.uncompleted) if self.uncompleted else None,
        }


def _update_json(update: Update) -> dict[str, Any]:
    """Return an update with rpm-ostree's keys."""
    from apt_ostree.model.rpmostree import deployments, packages

    found = update.to_json()
    result = {key: value for key, (_type, value) in deployments.update(found).items()}
    if update.diff:
        changes = packages.rpm_diff(found["diff"], update.layered)
        result["rpm-diff"] = {key: rows for key, (_type, rows) in changes.items()}
    return result


def _live_json(live: Live) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if live.unfinished:
        result["live-inprogress"] = live.unfinished
    if live.commit:
        result["live-replaced"] = live.commit
        result["live-generation"] = {
            "number": live.generation,
            "shown": live.shown,
            "confirm-by": live.confirm_by,
        }
        result["live-diff"] = asdict(live.diff)
        result["live-overlays"] = list(live.overlays)
        result["live-failed-units"] = list(live.failed)
    return result
