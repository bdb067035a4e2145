"""What `status` tells: every deployment with its commit, its packages and its live state, as values.

The JSON keys are rpm-ostree's; keys of our own are `diff`, `live-diff`, `live-generation`, `live-overlays`,
and `upgraded-packages`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from apt_ostree.model.deployment import Deployment
from apt_ostree.model.generation import Generation, Phase
from apt_ostree.model.origin import request_name
from apt_ostree.model.package import PackageChange, PackageDiff


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: its time in seconds since 1970, its version or none, and its metadata but the packages."""

    checksum: str
    timestamp: int
    version: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Live:
    """What the running system shows instead of the booted commit.

    commit, generation: the newest finished change, if any; diff: its packages against the booted commit;
    overlays: the ids of those that show, the topmost first.
    unfinished: the commit that an unfinished change was aiming at; shown: /usr shows what is recorded;
    confirm_by: seconds since 1970 when it is undone unless it is confirmed.
    """

    commit: str | None = None
    generation: int | None = None
    diff: PackageDiff = field(default_factory=PackageDiff)
    overlays: tuple[str, ...] = ()
    unfinished: str | None = None
    shown: bool = True
    confirm_by: float | None = None


@dataclass(frozen=True, slots=True)
class LiveRecords:
    """What the records of this boot's generations say of the live state.

    newest: the last one that came to its end; unfinished: the base of a later one that did not; mounted: the
    generations that /usr may show; confirm_by: when the first unconfirmed one is undone, by the boot's clock.
    """

    newest: Generation | None
    unfinished: str | None
    mounted: frozenset[int]
    confirm_by: float | None


def live_records(generations: Sequence[Generation]) -> LiveRecords:
    """Read the records of this boot's generations, the oldest first; there is at least one."""
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

    base: the base commit of a layered one; layered: requests that are installed on top of the base;
    upgraded: the base's packages in another version; diff: packages against the booted deployment.
    """

    deployment: Deployment
    commit: Commit
    base: Commit | None = None
    layered: tuple[str, ...] = ()
    upgraded: tuple[PackageChange, ...] = ()
    diff: PackageDiff | None = None
    live: Live | None = None
    gpg_enabled: bool = False

    @property
    def inactive(self) -> tuple[str, ...]:
        """Return the requests that the base fulfils by itself."""
        return tuple(r for r in self.deployment.origin.requested if package_name(r) not in self.layered)

    def to_json(self) -> dict[str, Any]:
        """Return the object that stands in `deployments`."""
        deployment, origin = self.deployment, self.deployment.origin
        base = self.base or self.commit
        found: dict[str, Any] = {
            "id": deployment.id,
            "osname": deployment.osname,
            "checksum": deployment.checksum,
            "serial": deployment.serial,
            "booted": deployment.booted,
            "staged": deployment.staged,
            "pinned": deployment.pinned,
            "unlocked": deployment.unlocked,
            "origin": origin.refspec or None,
            "version": self.commit.version,
            "timestamp": self.commit.timestamp,
            "gpg-enabled": self.gpg_enabled,
            "base-commit-meta": dict(base.metadata),
            "packages": list(self.layered),
            "requested-packages": list(origin.requested),
            "requested-local-packages": [package.label for package in origin.local],
            "requested-local-fileoverride-packages": [],
            "requested-base-removals": [],
            "requested-base-local-replacements": [],
            "base-removals": [],
            "base-local-replacements": [],
            "base-remote-replacements": {},
            "upgraded-packages": [asdict(change) for change in self.upgraded],
            "regenerate-initramfs": False,
        }
        if self.base:
            found["base-checksum"] = self.base.checksum
            found["base-version"] = self.base.version
            found["base-timestamp"] = self.base.timestamp
            found["layered-commit-meta"] = dict(self.commit.metadata)
        if self.diff is not None:
            found["diff"] = asdict(self.diff)
        return found | (_live_json(self.live) if self.live else {})


def package_name(request: str) -> str:
    """Return the plain name of a request (NAME, NAME=VERSION, NAME:ARCHITECTURE)."""
    return request_name(request).partition(":")[0]


@dataclass(frozen=True, slots=True)
class Status:
    """All deployments, the next boot's first.

    pending: the next boot starts another than the booted one; busy: a program is changing them now.
    """

    deployments: tuple[DeploymentStatus, ...]
    pending: bool = False
    busy: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the object of `status --json`."""
        return {
            "deployments": [entry.to_json() for entry in self.deployments],
            "transaction": None,
            "cached-update": None,
            "update-driver": None,
        }


def _live_json(live: Live) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if live.unfinished:
        found["live-inprogress"] = live.unfinished
    if live.commit:
        found["live-replaced"] = live.commit
        found["live-generation"] = {
            "number": live.generation,
            "shown": live.shown,
            "confirm-by": live.confirm_by,
        }
        found["live-diff"] = asdict(live.diff)
        found["live-overlays"] = list(live.overlays)
    return found
