"""The plan of an installation on a disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from apt_ostree.model.blockdevice import BlockDevice
from apt_ostree.model.diskimage import Layout


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """What is to be done to a disk.

    found: what is on it, see model.blockdevice.check_empty.
    repo: the path of the repository that has the commit; image: the container image that has it.
    follows: the branch, or the image, that upgrades come from; url: of its remote, "" without one.
    grows: whether root takes the rest of the disk when the system starts.
    """

    device: BlockDevice
    found: tuple[str, ...]
    disk: Layout
    commit: str
    version: str
    repo: str
    follows: str
    url: str
    grows: bool
    image: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        device = self.device
        return {
            **{name: getattr(device, name) for name in ("path", "model", "serial", "size")},
            "found": list(self.found),
            "parts": [asdict(part) for part in device.parts],
            "partitions": [{"name": part.name, "size": part.size} for part in self.disk.partitions],
            "grows": self.grows,
            "commit": self.commit,
            "version": self.version,
            "repo": self.repo,
            "image": self.image,
            "follows": self.follows,
            "url": self.url,
        }
