"""The bytes of a disk that starts by itself, by UEFI and by a BIOS, in a file: what all that make one share.

Nothing is mounted, and no device is used: file systems are made from directories, in their place in the
file. All work is done in one directory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core.compose.disk import boot, machine
from apt_ostree.core.compose.disk.planning import Job
from apt_ostree.core.compose.disk.sources import name_of
from apt_ostree.core.transaction import Transaction
from apt_ostree.model import diskimage, kargs
from apt_ostree.model.machine import Machine
from apt_ostree.model.requests.images import OfMachine
from apt_ostree.system import ext4, sfdisk
from apt_ostree.system.ext4 import FileSystem
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import new_sysroot
from apt_ostree.system.ostree.new_sysroot import NewSysroot, Source

_STATEROOT = "debian"


@dataclass(frozen=True, slots=True)
class Built:
    """The bytes of a disk.

    file: it is sparse; zero is what is not in it.
    signed: UEFI starts the disk with Secure Boot on.
    """

    file: Path
    signed: bool


def build(tx: Transaction, job: Job, request: OfMachine, wanted: Machine, work: Path) -> Built:
    """Make the disk in a directory.

    Raises UsageError and Refused for a tree that such a disk cannot have, and ExternalFailure if a step
    fails.
    """
    sysroot = deploy(tx, job.source, job.arguments, work)
    machine.furnish(tx, sysroot, job.disk, wanted)
    files = boot.take_boot(sysroot, work, request.consoles, request.boot_attempts)
    loaders = boot.make_loaders(tx, sysroot.root / sysroot.deployment, job.disk, work)
    failpoint("disk.furnished")
    image = _make_file(job, work)
    with tx.task("Writing the boot loader and the kernel"):
        boot.write(image, job.disk, files, loaders, job.timestamp)
    failpoint("disk.boot-written")
    _write_root(tx, job, sysroot, image)
    return Built(image, loaders.signed)


def deploy(tx: Transaction, source: Source, arguments: kargs.Arguments, work: Path) -> NewSysroot:
    """Deploy a commit in a new sysroot below a directory. arguments: of the kernel."""
    root = work / "sysroot"
    root.mkdir()
    with tx.task(f"Deploying {name_of(source)} {source.commit[:12]}"):
        sysroot = new_sysroot.make(root, _STATEROOT, source, arguments=arguments)
    failpoint("disk.deployed")
    return sysroot


def _make_file(job: Job, work: Path) -> Path:
    """Make the file, with its partition table."""
    image = work / "disk.raw"
    with image.open("xb") as new:
        new.truncate(job.disk.size)
    sfdisk.write_table(image, diskimage.sfdisk_script(job.disk))
    return image


def _write_root(tx: Transaction, job: Job, sysroot: NewSysroot, image: Path) -> None:
    disk = job.disk
    root = FileSystem(image, disk.root.start, disk.root.size, disk.root_uuid, disk.root_seed, disk.root.name)
    with tx.task("Writing the root file system"):
        ext4.make(root, sysroot.root, job.timestamp)
        ext4.make_immutable(root, f"/{sysroot.deployment}", job.timestamp)
