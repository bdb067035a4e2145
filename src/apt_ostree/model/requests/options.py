"""Options that requests share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from apt_ostree.model.plan import RestartPolicy


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Options of a live change.

    restart_services: the units that it acts on.
    confirm_within: seconds after which it is undone unless it is confirmed.
    allow_replacement: running packages may be replaced or removed.
    force: refuse only changes that could not be made or undone.
    override_policy: why root has the change made even if the policy does not allow it; empty: it is not.
    test: boot the result in a container first.
    allow_failed: make the change even if the same packages have failed before.
    """

    restart_services: RestartPolicy = RestartPolicy.NONE
    confirm_within: float | None = None
    allow_replacement: bool = False
    force: bool = False
    override_policy: str = ""
    test: bool = False
    allow_failed: bool = False

    def __post_init__(self) -> None:
        if self.confirm_within is not None and self.confirm_within <= 0:
            raise ValueError(f"confirm_within: expected a time above 0, got {self.confirm_within:g}")

    @property
    def marks(self) -> Mapping[str, Any]:
        """Return the options by which a live change differs from another one."""
        return {**asdict(self), "override_policy": ""}


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """Options of verbs that make a deployment.

    cache_only: download no package lists and archives.
    download_only: only download the archives.
    live: also apply the deployment to the running system.
    lock_finalization: no shutdown completes it before it is finalized.
    reboot: the caller reboots when there is something new to boot; the policy may not allow that.
    judge: with dry_run: nothing is built or run to show the plan of a live change or of a command.
    override_policy: see LiveOptions; that of `live` does not count.
    test: boot the result in a container first; of a live change, see `live`.
    allow_failed: see LiveOptions.
    """

    dry_run: bool = False
    cache_only: bool = False
    download_only: bool = False
    live: LiveOptions | None = None
    lock_finalization: bool = False
    reboot: bool = False
    judge: bool = False
    override_policy: str = ""
    test: bool = False
    allow_failed: bool = False

    @property
    def may_have_failed(self) -> bool:
        """Return whether the deployment is made even if the same packages have failed before."""
        return self.allow_failed or (self.live is not None and self.live.allow_failed)

    @property
    def only_judged(self) -> bool:
        """Return whether the request only wants to know what the policy decides."""
        return self.dry_run and self.judge
