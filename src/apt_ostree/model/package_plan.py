"""What a change of packages is going to do, as a value that can be shown, refused and carried out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """One package of the plan.

    old, new: versions; the missing side is empty. reason: requested, dependency or upgrade.
    origin:   where the new version comes from, such as "Debian:trixie/main".
    size:     bytes to download; 0 when the archive is here already. kernel: it carries a kernel.
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
    """Packages to install, upgrade, downgrade and remove, each list sorted by name."""

    install: tuple[Step, ...] = ()
    upgrade: tuple[Step, ...] = ()
    downgrade: tuple[Step, ...] = ()
    remove: tuple[Step, ...] = ()
    download_bytes: int = 0
    disk_bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.install or self.upgrade or self.downgrade or self.remove)

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
