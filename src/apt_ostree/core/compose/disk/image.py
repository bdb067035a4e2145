"""`compose disk`: a disk image that starts by itself, by UEFI and by a BIOS, from one commit.

Nothing is mounted, and no device is used: file systems are made from directories, in their place in the
image. All work is done in a directory beside the output, which gets its name when it is whole. The same
commit and the same options give the same bytes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from apt_ostree.core.compose import tree
from apt_ostree.core.compose.disk import boot, machine, planning, verifying
from apt_ostree.core.compose.disk.planning import Job
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import UsageError
from apt_ostree.model import diskimage
from apt_ostree.model.requests.compose import ComposeTree
from apt_ostree.model.requests.images import ComposeDisk, ImageFormat
from apt_ostree.model.result import Result
from apt_ostree.system import ext4, qemu_img, scratch, sfdisk
from apt_ostree.system.ext4 import FileSystem
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import commit, new_sysroot
from apt_ostree.system.ostree.new_sysroot import NewSysroot

_WORK_PREFIX = ".apt-ostree-disk-"
_STATEROOT = "debian"


def compose_disk(tx: Transaction, request: ComposeDisk) -> Result:
    """Compose a disk image.

    Returns `ref`, `commit`, `output`, `format`, the `size` of the disk, the `bytes` of the file, and its
    SHA-256 as `verified` (verify). Raises UsageError for an error in the request, Refused if a precondition
    is not met or if it is not reproducible (verify), and ExternalFailure if a step fails. Until all is done
    there is no file of the output's name, or still the one that was there.
    """
    output, form = planning.check_request(request)
    wanted = machine.read(request)
    with scratch.directory(output.parent, _WORK_PREFIX) as work:
        repo, ref = _source(tx, request, work)
        job = planning.plan(repo, ref, request, wanted)
        planning.check_space(job, output.parent, form)
        sysroot = _deploy(tx, job, work)
        machine.furnish(tx, sysroot, job.disk, wanted)
        files = boot.take_boot(sysroot, work, request.consoles, request.boot_attempts)
        failpoint("disk.furnished")
        image = _write_image(tx, job, sysroot, files, work)
        second = verifying.build_again(tx, request, job, work) if request.verify else None
        if second:
            verifying.require_same_disk(job, image, second)
        if form is ImageFormat.QCOW2:
            image = _convert(tx, image)
            second = _convert(tx, second) if second else None
        failpoint("disk.written")
        result = _result(job, output, form, image)
        if second:
            digest = verifying.require_same_file(tx, job, image, second)
            result = replace(result, details={**result.details, "verified": digest})
        image.replace(output)
    return result


def _source(tx: Transaction, request: ComposeDisk, work: Path) -> tuple[Path, str]:
    """Return the repository and the ref; the tree of a treefile is composed first."""
    repo = Path(request.repo).absolute() if request.repo else work / "repo"
    if request.treefile:
        wanted = ComposeTree(
            treefile=request.treefile, repo=str(repo), ref=request.ref, verify=request.verify
        )
        return repo, str(tree.compose_tree(tx, wanted).details["ref"])
    if not commit.exists(repo):
        raise UsageError(f"there is no OSTree repository in {repo}")
    return repo, request.ref or ""


def _deploy(tx: Transaction, job: Job, work: Path) -> NewSysroot:
    root = work / "sysroot"
    root.mkdir()
    with tx.task(f"Deploying {job.ref} {job.commit[:12]}"):
        sysroot = new_sysroot.make(root, _STATEROOT, job.repo, job.commit, job.ref, arguments=job.arguments)
    failpoint("disk.deployed")
    return sysroot


def _write_image(tx: Transaction, job: Job, sysroot: NewSysroot, files: Path, work: Path) -> Path:
    """Write the raw image. files: the content of /boot."""
    image, disk = work / "disk.raw", job.disk
    with image.open("xb") as new:
        new.truncate(disk.size)
    sfdisk.write_table(image, diskimage.sfdisk_script(disk))
    with tx.task("Writing the boot loader and the kernel"):
        boot.write(image, disk, files, work, job.timestamp)
    failpoint("disk.boot-written")
    root = FileSystem(image, disk.root.start, disk.root.size, disk.root_uuid, disk.root_seed, disk.root.name)
    with tx.task("Writing the root file system"):
        ext4.make(root, sysroot.root, job.timestamp)
        ext4.make_immutable(root, f"/{sysroot.deployment}", job.timestamp)
    return image


def _convert(tx: Transaction, raw: Path) -> Path:
    image = raw.with_suffix(".qcow2")
    with tx.task("Writing the qcow2 image"):
        qemu_img.to_qcow2(raw, image)
    raw.unlink()
    return image


def _result(job: Job, output: Path, form: ImageFormat, image: Path) -> Result:
    details = {
        "ref": job.ref,
        "commit": job.commit,
        "output": str(output),
        "format": form,
        "size": job.disk.size,
        "bytes": image.stat().st_blocks * 512,  # without its holes
    }
    return Result(changed=True, details=details)
