"""The requests that make images of commits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from apt_ostree.model.grubenv import MOST_ATTEMPTS
from apt_ostree.model.requests.compose import ComposeRequest


class ImageFormat(StrEnum):
    """The format of a disk image."""

    RAW = "raw"
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeDisk(ComposeRequest):
    """Compose a disk image that boots a commit.

    output, treefile, repo and ssh_key are paths of the caller, who must be root.

    treefile: compose the commit from it, into `repo` or, without one, for the image alone.
    ref: the commit that machines follow; of a treefile, None is its own.
    format: None is that of the output's name.
    size: of the disk in bytes; None is what the tree needs, and room for changes.
    user: an account to add, which `ssh_key`, a file with public keys, lets in; without one it lets root in.
    consoles: of the kernel and the boot menu, as console= has them.
    kernel_arguments: besides those of the tree.
    boot_attempts: how often a deployment is tried before the one before it is started; 0 does not count.
    force: replace a file that is there.
    """

    verb: ClassVar[str] = "compose-disk"
    output: str
    treefile: str | None = None
    repo: str | None = None
    ref: str | None = None
    format: ImageFormat | None = None
    size: int | None = None
    hostname: str | None = None
    user: str | None = None
    ssh_key: str | None = None
    consoles: tuple[str, ...] = ()
    kernel_arguments: tuple[str, ...] = ()
    boot_attempts: int = 3
    force: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.boot_attempts <= MOST_ATTEMPTS:
            raise ValueError(f"boot_attempts: expected 0 to {MOST_ATTEMPTS}, got {self.boot_attempts}")
