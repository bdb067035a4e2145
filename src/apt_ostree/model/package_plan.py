"""The plan of a change of packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from apt_ostree.model.newer import Newer


@dataclass(frozen=True, slots=True)
class Step:
    """One package of the plan.

    old: the present version, or empty.
    new: the version after the change, or empty.
    reason: such as requested, dependency or upgrade.
    origin: of the new version, such as "Debian:trixie/main".
    size: of the archive, in bytes.
    security: the new version is a security update.
    """

    name: str
    architecture: str
    old: str = ""
    new: str = ""
    reason: str = "dependency"
    origin: str = ""
    size: int = 0
    security: bool = False


@dataclass(frozen=True, slots=True)
class PackagePlan:
    """Packages to install, upgrade, downgrade and remove, each list sorted by name.

    download_bytes: size of the archives to be installed.
    disk_bytes: additional disk space; negative if less is used.
    taken: security updates that replace versions that were requested.
    newer: newer versions of packages that stay at theirs.
    protected: packages that nothing requested needs any more; they become requests.
    initramfs: for which kernels an initramfs is made, and why.
    """

    install: tuple[Step, ...] = ()
    upgrade: tuple[Step, ...] = ()
    downgrade: tuple[Step, ...] = ()
    remove: tuple[Step, ...] = ()
    download_bytes: int = 0
    disk_bytes: int = 0
    taken: tuple[Newer, ...] = ()
    newer: tuple[Newer, ...] = ()
    protected: tuple[str, ...] = ()
    initramfs: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.install or self.upgrade or self.downgrade or self.remove)

    @property
    def only_removes(self) -> bool:
        """Return whether packages are removed and none is unpacked."""
        return bool(self.remove) and not (self.install or self.upgrade or self.downgrade)

    def summary(self) -> list[str]:
        """Return a line for each kind of step: "install: NAME VERSION, NAME VERSION"."""
        kinds = {
            "install": self.install,
            "upgrade": self.upgrade,
            "downgrade": self.downgrade,
            "remove": self.remove,
        }
        return [
            f"{kind}: " + ", ".join(f"{step.name} {step.new or step.old}" for step in steps)
            for kind, steps in kinds.items()
            if steps
        ]

    def to_json(self) -> Mapping[str, Any]:
        """Return the plan as a JSON object."""
        return asdict(self)
