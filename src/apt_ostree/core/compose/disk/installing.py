"""`install-to-disk`: makes a disk of this machine one that starts by itself, as those of `compose disk` do.

The disk is made in a file, as an image is, and then copied. Two things speak against file systems that are
made in place. Those who make them rely on zeros where they write nothing, which a disk that was in use does
not have. And mke2fs claims the disk itself, so that nobody could hold it from the first byte to the last.

The disk starts either nothing or all of the system: its first sector is emptied first, and is written last,
alone, when all else is on the disk. A BIOS starts only a disk with the signature in that sector. For UEFI and
for Linux, a GPT counts only with the protective MBR, which is in that sector, too.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

from apt_ostree.core.compose.disk import building, machine, planning, sources
from apt_ostree.core.compose.disk.planning import Job
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import AptOstreeError, Incomplete, Refused
from apt_ostree.model import blockdevice, diskimage, growth
from apt_ostree.model.blockdevice import BlockDevice
from apt_ostree.model.diskimage import MIB, SECTOR
from apt_ostree.model.events import PlanShown, Progress
from apt_ostree.model.installation import InstallPlan
from apt_ostree.model.origin import Origin
from apt_ostree.model.requests.images import InstallToDisk
from apt_ostree.model.result import Result
from apt_ostree.system import blockdevice as devices
from apt_ostree.system import scratch, signals
from apt_ostree.system.blockdevice import Disk
from apt_ostree.system.caller import require_root
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import remotes
from apt_ostree.system.ostree.new_sysroot import Source
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.ostree.sysroot import Sysroot, is_booted_on_ostree

_WORK_PREFIX = "apt-ostree-install-"
_NAMED = "name a commit with --repo and --ref, or a container image with --image"
_SYSTEM_REPO = Path("/ostree/repo")


def install_to_disk(tx: Transaction, request: InstallToDisk) -> Result:
    """Install a commit on a disk.

    Returns `device`, `ref` (the branch, or the image, that the new system follows), `commit`, the `size`
    that is laid out, which may be less than the disk's, and for a dry run the `plan`. Raises UsageError for
    an error in the request, Refused if a precondition is not met, Cancelled if the user declines, and
    ExternalFailure if a step fails before the disk is touched; after that, Incomplete, and nothing starts
    from the disk.
    """
    require_root("install on a disk")
    planning.check_programs("installing on a disk", request, {})
    wanted = machine.read(request)
    device, found = _look_at(request)
    place = Path(os.environ.get("TMPDIR", "/var/tmp"))  # not /tmp, which is memory
    with scratch.directory(place, _WORK_PREFIX) as work:
        source = sources.of_request(tx, request, work) or _of_system()
        contents = planning.measure(source)
        blockdevice.check_size(device, diskimage.least_size(contents))
        size = min(diskimage.usual_size(contents), device.size // MIB * MIB)
        # Other identifiers than those of a disk that was made alike, and may be in the same machine.
        unique = str(uuid.uuid4())
        job = planning.plan(source, contents, request, wanted, size=size, work=work, unique=unique)
        planning.check_space(job.needed, place, "name another directory with the variable TMPDIR")
        shown = _plan(job, device, found)
        if request.dry_run:
            tx.report(PlanShown("install-to-disk", shown.to_json()))
            return Result(True, details={**_details(shown), "plan": shown.to_json()})
        tx.agree(PlanShown("install-to-disk", shown.to_json()))
        built = building.build(tx, job, request, wanted, work)
        failpoint("install.built")
        _install(tx, request, shown, built.file)
    return Result(True, details=_details(shown))


def _look_at(request: InstallToDisk) -> tuple[BlockDevice, tuple[str, ...]]:
    """Return the disk and what is on it; UsageError and Refused if nothing can be installed there."""
    device = devices.read(Path(request.device))
    blockdevice.check_disk(device)
    blockdevice.check_unused(device)
    devices.check_free(device.path)
    found = devices.signatures(device.path)
    blockdevice.check_empty(device, found, wipe=request.wipe)
    return device, found


def _of_system() -> Source:
    """Return what the booted deployment is based on, and what it follows."""
    if not is_booted_on_ostree():
        raise Refused(
            "this system was not booted from an OSTree deployment, so that it is none to install",
            hint=_NAMED,
        )
    return _of_booted(Sysroot())


def _of_booted(sysroot: Sysroot) -> Source:
    """Return what the booted deployment is based on, without the packages and commands of this machine."""
    booted = sysroot.deployments().booted
    if booted is None:
        raise Refused("no deployment is booted", hint=_NAMED)
    present = booted.origin
    origin = Origin(
        refspec=present.refspec,
        image=present.image,
        image_digest=present.image_digest,
        unconfigured=present.unconfigured,
    )
    remote = remotes.read(_SYSTEM_REPO, present.remote) if present.remote else None
    return Source(_SYSTEM_REPO, sysroot.repo.base_of(booted.checksum), origin, remote)


def _plan(job: Job, device: BlockDevice, found: tuple[str, ...]) -> InstallPlan:
    source, repo = job.source, Repo.open(job.source.repo)
    return InstallPlan(
        device=device,
        found=found,
        disk=job.disk,
        commit=source.commit,
        version=repo.version(source.commit) or "",
        repo="" if source.image else str(source.repo),
        image=source.image,
        follows=source.follows,
        url=source.remote.url if source.remote else "",
        grows=all(repo.has_path(source.commit, program) for program in growth.NEEDS),
    )


def _install(tx: Transaction, request: InstallToDisk, plan: InstallPlan, image: Path) -> None:
    """Copy the disk from a file; its first sector comes last, see above."""
    path = plan.device.path
    if _look_at(request) != (plan.device, plan.found):
        raise Refused(
            f"{path} is not what it was when the plan was made",
            hint="run the command again to see what it means now",
        )
    with devices.claimed(path) as disk:
        try:
            _write(tx, disk, plan, image)
        except (AptOstreeError, OSError) as error:
            raise Incomplete(
                f"{path} is written in part, and nothing starts from it",
                details=(str(error),),
                hint="run the command again",
            ) from error
        disk.read_table()


def _write(tx: Transaction, disk: Disk, plan: InstallPlan, image: Path) -> None:
    path, size = plan.device.path, plan.disk.size
    with tx.task(f"Emptying {path}"):
        disk.empty()
    failpoint("install.emptied")
    title = f"Writing to {path}"
    with image.open("rb") as file, tx.task(title):
        disk.copy(file.fileno(), MIB, size, _progress(tx, title, size - MIB))
        disk.sync()
        failpoint("install.contents-written")
        disk.copy(file.fileno(), SECTOR, MIB, lambda _bytes: None)
        disk.sync()
        failpoint("install.table-written")
        signals.ignore()  # from here on it starts, or does not
        disk.copy(file.fileno(), 0, SECTOR, lambda _bytes: None)
        disk.sync()
    failpoint("install.written")


def _progress(tx: Transaction, title: str, total: int) -> Callable[[int], None]:
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        tx.report(Progress(title, done, total))

    return tell


def _details(plan: InstallPlan) -> dict[str, object]:
    return {
        "device": plan.device.path,
        "ref": plan.follows,
        "commit": plan.commit,
        "size": plan.disk.size,
    }
