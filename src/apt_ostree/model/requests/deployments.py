"""The requests that choose, configure and remove deployments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from apt_ostree.model.kargs import Changes
from apt_ostree.model.reach import Reach
from apt_ostree.model.request import LONGEST_TITLE, Request
from apt_ostree.model.requests.packages import BaseRequest, DeployRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy(BaseRequest):
    """Deploy a commit of the base's branch, or an image of its repository.

    revision: the commit, see model.refspec.Revision, or the image's digest; empty to register a driver only.
    skip_branch_check: it need not be of the branch.
    disallow_downgrade: refuse a commit that is older than the present base.
    register_driver: the name under which the caller drives updates from now on, or empty.
    bypass_driver: deploy even if another program drives updates.
    """

    verb: ClassVar[str] = "deploy"
    revision: str = ""
    skip_branch_check: bool = False
    disallow_downgrade: bool = False
    register_driver: str = ""
    bypass_driver: bool = False

    def __post_init__(self) -> None:
        if not (self.revision or self.register_driver):
            raise ValueError("revision: expected a commit or a version, or a driver to register")
        if self.changes_packages and not self.revision:
            raise ValueError("revision: packages are layered and dropped on a commit, which is not named")

    @property
    def reach(self) -> Reach | None:
        """Return how far it goes; registering a driver changes nothing of the system."""
        return self._reach if self.revision else None

    @property
    def _of_base(self) -> tuple[str, ...]:
        driver = f"--register-driver={self.register_driver}" if self.register_driver else ""
        return tuple(filter(None, (driver, self.revision)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebase(BaseRequest):
    """Follow another branch or an image.

    refspec: the branch, see model.refspec.Refspec.parse_partial, a commit, or an image, see
        model.image_reference.
    revision: a commit of the branch; None is its newest one.
    skip_purge: keep what was pulled of the branch that is left.
    disallow_downgrade: refuse a commit that is older than the present base.
    bypass_driver: see Deploy.
    """

    verb: ClassVar[str] = "rebase"
    refspec: str
    revision: str | None = None
    skip_purge: bool = False
    disallow_downgrade: bool = False
    bypass_driver: bool = False

    @property
    def _of_base(self) -> tuple[str, ...]:
        return (self.refspec, self.revision) if self.revision else (self.refspec,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kargs(DeployRequest):
    """Change the kernel arguments.

    changes: of the present ones.
    whole: all arguments instead.
    seen: the present ones as the caller knows them; others are refused.
    import_running: start from those of the running kernel.
    deploy_index: start from those of this deployment; None is the next boot's.
    """

    verb: ClassVar[str] = "kargs"
    changes: Changes = Changes()
    whole: tuple[str, ...] | None = None
    seen: tuple[str, ...] | None = None
    import_running: bool = False
    deploy_index: int | None = None

    def __post_init__(self) -> None:
        if self.deploy.live or self.deploy.download_only:
            raise ValueError("deploy: kernel arguments change with the next boot, and nothing is downloaded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Initramfs(DeployRequest):
    """Have the machine make its own initramfs, or have that of the base again.

    enable: make it, now and in each later deployment.
    arguments: further arguments of dracut(8).
    """

    verb: ClassVar[str] = "initramfs"
    enable: bool
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.arguments and not self.enable:
            raise ValueError("arguments: they are for an initramfs that the machine makes")
        if self.deploy.live or self.deploy.download_only:
            raise ValueError("deploy: an initramfs changes with the next boot, and nothing is downloaded")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitramfsEtc(DeployRequest):
    """Change which files of /etc are also in the initramfs.

    track, untrack: absolute paths of files or directories below /etc.
    untrack_all: track nothing but `track`.
    force_sync: make a deployment whose initramfs has what the files contain now, if that is something else.
    """

    verb: ClassVar[str] = "initramfs-etc"
    track: tuple[str, ...] = ()
    untrack: tuple[str, ...] = ()
    untrack_all: bool = False
    force_sync: bool = False

    def __post_init__(self) -> None:
        if not (self.track or self.untrack or self.untrack_all or self.force_sync):
            raise ValueError("track, untrack, untrack_all or force_sync: one of them is needed")
        if self.deploy.live or self.deploy.download_only:
            raise ValueError("deploy: an initramfs changes with the next boot, and nothing is downloaded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback(Request):
    """Boot the previous deployment next. allow_failed: even if a boot of it has failed."""

    verb: ClassVar[str] = "rollback"
    dry_run: bool = False
    allow_failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup(Request):
    """Remove unused files and deployments.

    base: temporary files.
    pending, rollback: the deployment.
    repomd: downloads.
    """

    verb: ClassVar[str] = "cleanup"
    base: bool = False
    pending: bool = False
    rollback: bool = False
    repomd: bool = False
    stateroot: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin(Request):
    """Keep deployments until they are unpinned. deployments: index, "booted", "pending" or "rollback"."""

    verb: ClassVar[str] = "pin"
    deployments: tuple[str, ...]

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        return " ".join((self.verb, *self.deployments))[:LONGEST_TITLE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpin(Pin):
    """Keep deployments no longer than others. deployments: see Pin."""

    verb: ClassVar[str] = "unpin"


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalizeDeployment(Request):
    """Let the next shutdown complete the staged deployment, which was locked.

    checksum: its commit or base as the caller knows it; another one is refused.
    allow_missing_checksum: accept any.
    allow_unlocked: accept one that is not locked.
    dry_run: only check that this is possible.
    override_policy: see LiveOptions.
    """

    verb: ClassVar[str] = "finalize-deployment"
    checksum: str | None = None
    allow_missing_checksum: bool = False
    allow_unlocked: bool = False
    dry_run: bool = False
    override_policy: str = ""

    def __post_init__(self) -> None:
        if (self.checksum is None) != self.allow_missing_checksum:
            raise ValueError("checksum: either a checksum or allow_missing_checksum is needed")

    @property
    def reach(self) -> Reach:
        """Return how far it goes."""
        return Reach(self.dry_run, reboots=True, override=self.override_policy, verb=self.verb)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootloaderUpdate(Request):
    """Replace the loaders on the EFI system partition by those of the booted deployment.

    dry_run: only show what would be done.
    override_policy: see LiveOptions.
    """

    verb: ClassVar[str] = "bootloader-update"
    command: ClassVar[str] = "bootloader update"
    dry_run: bool = False
    override_policy: str = ""

    @property
    def reach(self) -> Reach:
        """Return how far it goes."""
        return Reach(self.dry_run, override=self.override_policy, verb=self.verb)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootloaderRollback(Request):
    """Put the loaders back that the last update has replaced."""

    verb: ClassVar[str] = "bootloader-rollback"
    command: ClassVar[str] = "bootloader rollback"
    dry_run: bool = False
