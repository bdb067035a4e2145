"""What has to be in order before a disk image is made, and what it is going to be."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core.compose.disk import boot
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import diskimage, grub, kargs, layout
from apt_ostree.model.machine import Machine
from apt_ostree.model.requests.images import ComposeDisk, ImageFormat
from apt_ostree.model.sizes import show_size
from apt_ostree.system import ext4, mmdebstrap, programs, qemu_img, sfdisk, source_date, space, useradd
from apt_ostree.system.ostree import bootfs, new_sysroot
from apt_ostree.system.ostree.repo import Repo

_KERNEL = "vmlinuz"


@dataclass(frozen=True, slots=True)
class Job:
    """What an image is made of.

    disk: its layout.
    arguments: of the kernel.
    needed: bytes of free space that making a raw image takes.
    used: bytes of the raw image that are no holes.
    timestamp: of the file systems and their files, in seconds since 1970.
    """

    repo: Path
    ref: str
    commit: str
    disk: diskimage.Layout
    arguments: kargs.Arguments
    needed: int
    used: int
    timestamp: int


def check_request(request: ComposeDisk) -> tuple[Path, ImageFormat]:
    """Return the output and its format.

    Raises UsageError for a request that cannot be, and Refused if the output exists or the host lacks a
    program.
    """
    if not (request.treefile or (request.repo and request.ref)):
        raise UsageError(
            "there is nothing to make a disk of", hint="name a TREEFILE, or a commit with --repo and --ref"
        )
    if os.geteuid() != 0:
        raise Refused("composing a disk needs root", hint="run it with sudo")
    output = Path(request.output).absolute()
    if not output.parent.is_dir():
        raise UsageError(f"the directory {output.parent} does not exist", hint="create it first")
    if os.path.lexists(output) and not output.is_file():
        raise UsageError(f"{output} is no regular file", hint="name a file for the image")
    if output.exists() and not request.force:
        raise Refused(f"{output} exists already", hint="give another name, or --force to replace it")
    form = request.format or (ImageFormat.QCOW2 if output.suffix == ".qcow2" else ImageFormat.RAW)
    _check_host(request, form)
    return output, form


def _check_host(request: ComposeDisk, form: ImageFormat) -> None:
    architecture = mmdebstrap.native_architecture()
    if architecture != "amd64":
        raise Refused(f"disk images are made for amd64, on such a machine, and not on {architecture}")
    needed = {**sfdisk.PROGRAMS, **ext4.PROGRAMS, **boot.PROGRAMS}
    needed |= qemu_img.PROGRAMS if form is ImageFormat.QCOW2 else {}
    needed |= useradd.PROGRAMS if request.user else {}
    programs.require("composing a disk", needed, boot.FILES)


def plan(path: Path, ref: str, request: ComposeDisk, machine: Machine) -> Job:
    """Return what to make of a commit.

    Raises UsageError and Refused for what the disk cannot be: see `diskimage.plan` for its size.
    """
    repo = Repo.open(path)
    checksum = repo.local_ref(ref)
    if checksum is None:
        raise UsageError(f"{path} has no ref {ref}", hint=f"'ostree refs --repo={path}' lists them")
    if _KERNEL not in bootfs.boot_files(repo, checksum):
        raise Refused(
            f"the tree of {ref} has no kernel, so that a disk of it would not boot",
            hint="add a kernel and dracut to the packages of its treefile, such as linux-image-amd64",
        )
    timestamp = source_date.settle(repo.timestamp(checksum))
    contents = new_sysroot.measure(repo, checksum)
    more = [*request.consoles, *request.kernel_arguments, request.boot_attempts]
    identity = json.dumps([checksum, ref, request.size, timestamp, machine.identity, more])
    disk = diskimage.plan(contents, request.size, identity)
    of_tree = repo.metadata(checksum).get(layout.META_KERNEL_ARGUMENTS, ())
    arguments = grub.kernel_arguments(disk.root_uuid, of_tree, request.consoles, request.kernel_arguments)
    _check_arguments(arguments)
    used = diskimage.used(contents)
    needed = used + _staged(contents, repo, path, Path(request.output).absolute().parent)
    return Job(path, ref, checksum, disk, arguments, needed, used, timestamp)


def _check_arguments(arguments: kargs.Arguments) -> None:
    keys = [kargs.key_of(argument) for argument in arguments]
    if keys.count("root") > 1 or "ostree" in keys:
        raise UsageError("the kernel arguments root= and ostree= are the disk's own", hint="leave them out")
    grub.refuse_unusable(arguments)


def _staged(contents: diskimage.Contents, repo: Repo, path: Path, directory: Path) -> int:
    """Return the space for the files that the image is made of; those of the tree may be hard links."""
    linked = not repo.is_archive and path.stat().st_dev == directory.stat().st_dev
    return contents.boot + (0 if linked else contents.root)


def check_space(job: Job, directory: Path, form: ImageFormat) -> None:
    """Raise Refused unless a directory has the space that making the image takes."""
    needed = job.needed + (job.used if form is ImageFormat.QCOW2 else 0)
    free = space.of(directory).for_root
    if needed > free:
        raise Refused(
            f"there is too little space in {directory}: {show_size(needed)} needed, {show_size(free)} free",
            hint="free some, or write the image to another file system",
        )
