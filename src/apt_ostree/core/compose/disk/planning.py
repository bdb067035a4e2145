"""What has to be in order before a disk is made, and what it is going to be."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core.compose.disk import boot, sources
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import diskimage, grub, kargs, layout
from apt_ostree.model.diskimage import Contents
from apt_ostree.model.machine import Machine
from apt_ostree.model.requests.images import ComposeDisk, ImageFormat, OfMachine
from apt_ostree.model.sizes import show_size
from apt_ostree.system import ext4, files, mmdebstrap, programs, qemu_img, sfdisk, source_date, space, useradd
from apt_ostree.system.ostree import bootfs, new_sysroot
from apt_ostree.system.ostree.new_sysroot import Source
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

    source: Source
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
    if not (request.treefile or (request.repo and request.ref) or request.image):
        raise UsageError(
            "there is nothing to make a disk of",
            hint="name a TREEFILE, a commit with --repo and --ref, or a container image with --image",
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
    check_programs("composing a disk", request, qemu_img.PROGRAMS if form is ImageFormat.QCOW2 else {})


def check_programs(what: str, request: OfMachine, further: Mapping[str, str]) -> None:
    """Raise Refused if this host cannot make disks: for its architecture, or for lack of a program.

    further: programs that are needed besides, each with its package.
    """
    architecture = mmdebstrap.native_architecture()
    if architecture != "amd64":
        raise Refused(f"disks are made for amd64, on such a machine, and not on {architecture}")
    needed = {**sfdisk.PROGRAMS, **ext4.PROGRAMS, **boot.PROGRAMS, **further}
    needed |= useradd.PROGRAMS if request.user else {}
    programs.require(what, needed, boot.FILES)


def measure(source: Source) -> Contents:
    """Return what the tree of a commit takes; Refused if it has no kernel."""
    repo = Repo.open(source.repo)
    if _KERNEL not in bootfs.boot_files(repo, source.commit):
        raise Refused(
            f"the tree of {sources.name_of(source)} has no kernel, so that a disk of it would not boot",
            hint="add a kernel and dracut to the packages of its treefile, such as linux-image-amd64",
        )
    return new_sysroot.measure(source)


def plan(
    source: Source,
    contents: Contents,
    request: OfMachine,
    machine: Machine,
    *,
    size: int | None,
    work: Path,
    unique: str = "",
) -> Job:
    """Return what to make of a commit.

    size: of the disk, see `diskimage.plan`.
    work: the directory in which the work is done.
    unique: makes the identifiers of the disk differ from those of others that are made alike.

    Raises UsageError and Refused for what the disk cannot be.
    """
    repo = Repo.open(source.repo)
    timestamp = source_date.settle(repo.timestamp(source.commit))
    more = [*request.consoles, *request.kernel_arguments, request.boot_attempts]
    alike = [source.commit, sources.name_of(source), size, timestamp, machine.identity, more]
    disk = diskimage.plan(contents, size, json.dumps([*alike, unique] if unique else alike))
    of_tree = repo.metadata(source.commit).get(layout.META_KERNEL_ARGUMENTS, ())
    arguments = grub.kernel_arguments(disk.root_uuid, of_tree, request.consoles, request.kernel_arguments)
    check_arguments(arguments)
    used = diskimage.used(contents)
    linked = not repo.is_archive and files.can_link(source.repo / "config", work)
    # The files that the image is made of; those of the tree may be hard links.
    staged = contents.boot + (0 if linked else contents.root)
    return Job(source, disk, arguments, used + staged, used, timestamp)


def check_arguments(arguments: kargs.Arguments) -> None:
    """Raise UsageError for an argument that is not the caller's, Refused for one that breaks the menu."""
    keys = [kargs.key_of(argument) for argument in arguments]
    if keys.count("root") > 1 or "ostree" in keys:
        raise UsageError("the kernel arguments root= and ostree= are the disk's own", hint="leave them out")
    grub.refuse_unusable(arguments)


def check_space(needed: int, directory: Path, hint: str) -> None:
    """Raise Refused unless a directory has so much space, in bytes. hint: where to take it."""
    free = space.of(directory).for_root
    if needed > free:
        raise Refused(
            f"there is too little space in {directory}: {show_size(needed)} needed, {show_size(free)} free",
            hint=f"free some, or {hint}",
        )
