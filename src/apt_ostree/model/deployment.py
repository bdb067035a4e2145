"""Deployments, and plans to reorder or remove them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.model.origin import Origin


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment, in boot order.

    index: position in boot order.
    osname: its stateroot.
    checksum: its commit.
    serial: distinguishes deployments of one commit.
    path: its directory below the sysroot, such as ostree/deploy/debian/deploy/CHECKSUM.0.
    unlocked: ostree's state: none, development, transient or hotfix.
    boot_checksum: ostree's checksum of its boot files, the end of the name of their directory on /boot.
    locked: it is staged, and the shutdown does not complete it until it is finalized (finalize-deployment).
    """

    index: int
    osname: str
    checksum: str
    serial: int
    path: str
    origin: Origin
    booted: bool
    staged: bool
    pinned: bool
    unlocked: str
    kernel_arguments: tuple[str, ...] = ()
    boot_checksum: str = ""
    locked: bool = False

    @property
    def id(self) -> str:
        """Return rpm-ostree's identifier: OSNAME-CHECKSUM.SERIAL."""
        return f"{self.osname}-{self.checksum}.{self.serial}"


@dataclass(frozen=True, slots=True)
class Uncompleted:
    """A deployment that was staged and that no shutdown completed.

    staged: when it was staged, in seconds since 1970.
    reason: what ostree said when it tried, or empty.
    """

    checksum: str
    staged: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Deployments:
    """All deployments of a sysroot, the next boot's first."""

    all: tuple[Deployment, ...]

    @property
    def booted(self) -> Deployment | None:
        """Return the deployment that is running."""
        return next((d for d in self.all if d.booted), None)

    @property
    def pending(self) -> Deployment | None:
        """Return the deployment that the next boot starts, unless it is the booted one."""
        first = self.all[0] if self.all else None
        return first if first and not first.booted else None

    @property
    def staged(self) -> Deployment | None:
        """Return the deployment that the next shutdown is to complete."""
        return next((d for d in self.all if d.staged), None)

    @property
    def rollback(self) -> Deployment | None:
        """Return the next deployment of the same stateroot after the booted one."""
        behind = False
        for deployment in self.all:
            if behind and deployment.osname == (self.booted or deployment).osname:
                return deployment
            behind = behind or deployment.booted
        return None

    @property
    def merge(self) -> Deployment | None:
        """Return the deployment that a new one is made from: the pending one, else the booted one."""
        return self.pending or self.booted or (self.all[0] if self.all else None)


@dataclass(frozen=True, slots=True)
class OrderPlan:
    """The change of the list of deployments.

    order: the new list, the next boot's deployment first.
    dropped: (deployment, reason) of those that are removed.
    kept: (deployment, reason) of those that were requested to be removed, but are kept.
    """

    order: tuple[Deployment, ...]
    dropped: tuple[tuple[Deployment, str], ...] = ()
    kept: tuple[tuple[Deployment, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        return {
            "next": self.order[0].id,
            "order": [deployment.id for deployment in self.order],
            "dropped": [{"id": deployment.id, "reason": reason} for deployment, reason in self.dropped],
            "kept": [{"id": deployment.id, "reason": reason} for deployment, reason in self.kept],
        }


def plan_rollback(deployments: Deployments) -> OrderPlan | None:
    """Return the plan to boot the rollback deployment next, or else the booted one; None if nothing changes.

    A second rollback reverts the first one. None of the deployments may be staged: such a one can only be the
    first.
    """
    target = deployments.rollback or (deployments.booted if deployments.pending else None)
    if target is None:
        return None
    return OrderPlan((target, *(d for d in deployments.all if d is not target)))


def plan_cleanup(deployments: Deployments, osname: str, *, pending: bool, rollback: bool) -> OrderPlan:
    """Return the plan that drops pending deployments (before the booted one) or rollbacks (after it)."""
    booted = deployments.booted
    order, dropped, kept = [], [], []
    for deployment in deployments.all:
        before = booted is not None and deployment.index < booted.index
        reason = "pending" if before else "rollback"
        is_kind_requested = pending if before else rollback
        is_selected = is_kind_requested and deployment.osname == osname and not deployment.booted
        if is_selected and not deployment.pinned:
            dropped.append((deployment, reason))
            continue
        if is_selected:
            kept.append((deployment, "pinned"))
        order.append(deployment)
    return OrderPlan(tuple(order), tuple(dropped), tuple(kept))


def named(deployments: Deployments, name: str) -> Deployment:
    """Return the deployment of an index, or the booted, pending or rollback one; UsageError without it."""
    special = {
        "booted": deployments.booted,
        "pending": deployments.pending,
        "rollback": deployments.rollback,
    }
    by_name = {str(deployment.index): deployment for deployment in deployments.all}
    by_name |= {key: deployment for key, deployment in special.items() if deployment}
    if name not in by_name:
        raise UsageError(f"there is no deployment {name!r}", hint=f"there are: {', '.join(by_name)}")
    return by_name[name]
