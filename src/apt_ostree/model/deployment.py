"""Deployments as values, and which of them is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apt_ostree.model.origin import Origin


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment, in boot order.

    path: its directory below the sysroot, such as ostree/deploy/debian/deploy/CHECKSUM.0.
    unlocked: none, development, transient or hotfix (ostree's words).
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

    @property
    def id(self) -> str:
        """Return rpm-ostree's identifier: OSNAME-CHECKSUM.SERIAL."""
        return f"{self.osname}-{self.checksum}.{self.serial}"


@dataclass(frozen=True, slots=True)
class Deployments:
    """All deployments of a sysroot, the next boot's first."""

    all: tuple[Deployment, ...]

    @property
    def booted(self) -> Deployment | None:
        """Return the deployment that this system runs."""
        return next((d for d in self.all if d.booted), None)

    @property
    def pending(self) -> Deployment | None:
        """Return the deployment that the next boot starts, unless it is the booted one."""
        first = self.all[0] if self.all else None
        return first if first and not first.booted else None

    @property
    def rollback(self) -> Deployment | None:
        """Return the newest deployment behind the booted one."""
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


def layered_commits(deployments: Sequence[Deployment]) -> frozenset[str]:
    """Return the commits of the deployments that carry layers."""
    return frozenset(d.checksum for d in deployments if d.origin.layered)
