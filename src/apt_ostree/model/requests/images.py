"""The requests that make images of commits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from apt_ostree.model import image_layers
from apt_ostree.model.grubenv import MOST_ATTEMPTS
from apt_ostree.model.oci import Compression, Form
from apt_ostree.model.requests.compose import ComposeRequest


class ImageFormat(StrEnum):
    """The format of a disk image."""

    RAW = "raw"
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class OfCommit(ComposeRequest):
    """A request that makes a system of a commit.

    repo: a path of the caller, who must be root. ref: of it, which the new system follows.
    image: the name of a container image, see model.image_reference, whose commit it is instead.
    target_image: the one that the new system follows; None is `image`.
    """

    repo: str | None = None
    ref: str | None = None
    image: str | None = None
    target_image: str | None = None

    def __post_init__(self) -> None:
        if self.image and (self.repo or self.ref):
            raise ValueError("image: not together with repo and ref")
        if self.target_image and not self.image:
            raise ValueError("target_image: without image")


@dataclass(frozen=True, slots=True, kw_only=True)
class OfBoot(OfCommit):
    """A request that makes the boot menu of a machine.

    kernel_arguments: besides those of the tree.
    boot_attempts: how often a deployment is tried before the one before it is started; 0 does not count.
    """

    kernel_arguments: tuple[str, ...] = ()
    boot_attempts: int = 3

    def __post_init__(self) -> None:
        OfCommit.__post_init__(self)
        if not 0 <= self.boot_attempts <= MOST_ATTEMPTS:
            raise ValueError(f"boot_attempts: expected 0 to {MOST_ATTEMPTS}, got {self.boot_attempts}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OfMachine(OfBoot):
    """A request that makes the disk of a machine.

    user: an account to add, which `ssh_key`, a file with public keys, lets in; without one it lets root in.
    consoles: of the kernel and the boot menu, as console= has them.
    """

    hostname: str | None = None
    user: str | None = None
    ssh_key: str | None = None
    consoles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeDisk(OfMachine):
    """Compose a disk image that boots a commit.

    output, treefile and ssh_key are paths of the caller, too.

    treefile: compose the commit from it, into `repo` or, without one, for the image alone; its `ref` is
        then its own if it is None.
    format: None is that of the output's name.
    size: of the disk in bytes; None is what the tree needs, and room for changes.
    force: replace a file that is there.
    verify: make it a second time, its tree too, and write it only if both are the same.
    """

    verb: ClassVar[str] = "compose-disk"
    output: str
    treefile: str | None = None
    format: ImageFormat | None = None
    size: int | None = None
    force: bool = False
    verify: bool = False

    def __post_init__(self) -> None:
        OfMachine.__post_init__(self)
        if self.image and self.treefile:
            raise ValueError("image: not together with treefile")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallToDisk(OfMachine):
    """Install a commit on a disk of this machine, which another one may then start from.

    device: the disk. ssh_key is a path of the caller, too. Without a commit, it is what the booted deployment
    is based on.

    wipe: what is on the disk goes.
    dry_run: only show what would be done.
    """

    verb: ClassVar[str] = "install-to-disk"
    device: str
    wipe: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        OfMachine.__post_init__(self)
        if (self.repo is None) != (self.ref is None):
            raise ValueError("repo and ref: one without the other")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallToExistingRoot(OfBoot):
    """Have the next boot of the Debian that runs start a commit, on the same root file system.

    dry_run: only show what would be done.
    """

    verb: ClassVar[str] = "install-to-existing-root"
    dry_run: bool = False

    def __post_init__(self) -> None:
        OfBoot.__post_init__(self)
        if not (self.image or (self.repo and self.ref)):
            raise ValueError("repo and ref, or image: missing")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPrepare(ComposeRequest):
    """Fill /var of a container as on a machine, for the scripts of packages."""

    verb: ClassVar[str] = "container-prepare"
    command: ClassVar[str] = "container prepare"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerCommit(ComposeRequest):
    """Finish the image whose container this is.

    shared: patterns of absolute paths that seem to belong to one machine and that all are to have alike.
    account_ids: a file with lines of sysusers.d(5), whose ids accounts get.
    """

    verb: ClassVar[str] = "container-commit"
    command: ClassVar[str] = "container commit"
    shared: tuple[str, ...] = ()
    account_ids: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeImage(ComposeRequest):
    """Compose a container image (OCI) of a commit.

    output, treefile, repo, previous, cachedir and lockfiles are paths of the caller, who must be root.

    treefile: compose the commit from it, into `repo` or, without one, for the image alone.
    ref: a ref of `repo`, or a commit; of a treefile, None is its own ref.
    cachedir, lockfiles, force: as for ComposeTree.
    format: None is that of the output's name.
    max_layers: see model.image_layers.
    previous: an image, or its manifest, whose layers the new one keeps as far as possible; None is the one
        at `output`, if there is one.
    initialize: cut the layers anew, like no other image.
    labels: further labels of the image.
    copy_metadata, copy_optional: keys of the commit's metadata that become labels; those of the second may
        be missing.
    verify: as for ComposeDisk.
    """

    verb: ClassVar[str] = "compose-image"
    output: str
    treefile: str | None = None
    repo: str | None = None
    ref: str | None = None
    cachedir: str | None = None
    lockfiles: tuple[str, ...] = ()
    force: bool = False
    format: Form | None = None
    compression: Compression = Compression.ZSTD
    max_layers: int = image_layers.DEFAULT
    previous: str | None = None
    initialize: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    copy_metadata: tuple[str, ...] = ()
    copy_optional: tuple[str, ...] = ()
    dry_run: bool = False
    verify: bool = False

    def __post_init__(self) -> None:
        least, most = image_layers.LEAST, image_layers.MOST
        if not least <= self.max_layers <= most:
            raise ValueError(f"max_layers: expected {least} to {most}, got {self.max_layers}")
