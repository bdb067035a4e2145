"""Whether the boot files of a new deployment fit on /boot, as ostree will write them at shutdown.

ostree copies kernel, initramfs and device trees of a deployment to a directory on /boot, unless that is on
the file system of the repository, where it makes links. Deployments with the same boot files share one.
Directories that no deployment needs any more are removed afterwards; since libostree 2023.7 before, if the
space is needed and a deployment is booted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from apt_ostree.errors import Refused
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.sizes import show_size

#: Bytes for boot entries, and for what the file system itself needs; as much as libostree leaves.
MARGIN = 1 << 20


@dataclass(frozen=True, slots=True)
class BootDirectory:
    """A directory with boot files.

    bytes: on the disk.
    deployments: the deployments that share it.
    """

    path: str
    bytes: int
    deployments: tuple[Deployment, ...]


@dataclass(frozen=True, slots=True)
class BootSpace:
    """The space on /boot, and what a new deployment needs.

    needed: bytes that are to be written; 0 if the boot files are there already.
    free: bytes, including those reserved for root.
    directories: what is there.
    osname: the stateroot of the new deployment.
    removes_first: ostree removes directories that are not needed any more before it writes.
    """

    needed: int
    free: int
    directories: tuple[BootDirectory, ...]
    osname: str
    removes_first: bool

    @property
    def usable(self) -> int:
        """Return the bytes that the new boot files may have."""
        going = (directory.bytes for directory in self.directories if not self._stays(directory))
        return self.free + (sum(going) if self.removes_first else 0)

    def refusal(self) -> Refused | None:
        """Return why the new deployment does not fit, and how to make it fit; None if it does."""
        if not self.needed or self.needed + MARGIN <= self.usable:
            return None
        becoming = " or becoming free" if self.usable > self.free else ""
        ways = (*dict.fromkeys(self._ways()), "remove other files from /boot", "or enlarge it")
        return Refused(
            f"/boot is too small for kernel and initramfs of the new deployment: "
            f"{show_size(self.needed + MARGIN)} needed, {show_size(self.usable)} free{becoming}",
            details=[self._text(directory) for directory in self.directories],
            hint=f"{', '.join(ways)}; nothing was changed",
        )

    def _stays(self, directory: BootDirectory) -> bool:
        return any(self._is_kept(deployment) for deployment in directory.deployments)

    def _is_kept(self, deployment: Deployment) -> bool:
        """Return whether ostree keeps a deployment when it completes the new one."""
        return deployment.booted or deployment.pinned or deployment.osname != self.osname

    def _text(self, directory: BootDirectory) -> str:
        owners = [f"deployment {_described(deployment)}" for deployment in directory.deployments]
        return f"{directory.path}: {show_size(directory.bytes)}, of {' and '.join(owners) or 'no deployment'}"

    def _ways(self) -> Iterator[str]:
        """Yield what frees space: what removes deployments whose boot files no others need that stay."""
        for directory in self.directories:
            if any(d.booted or d.osname != self.osname for d in directory.deployments):
                continue
            pinned = [d.index for d in directory.deployments if d.pinned]
            yield from (f"unpin deployment {n} with 'ostree admin pin --unpin {n}'" for n in pinned)
            if pinned or not self.removes_first:
                yield "remove deployments with 'apt-ostree cleanup -p -r'"


def _described(deployment: Deployment) -> str:
    state = "booted" if deployment.booted else "pinned" if deployment.pinned else ""
    return f"{deployment.index} ({state})" if state else str(deployment.index)


def by_directory(deployments: Sequence[Deployment], path: str) -> tuple[Deployment, ...]:
    """Return the deployments whose boot files are in a directory, by its name (OSNAME-CHECKSUM)."""
    name = path.rpartition("/")[2]
    return tuple(d for d in deployments if f"{d.osname}-{d.boot_checksum}" == name and not d.staged)
