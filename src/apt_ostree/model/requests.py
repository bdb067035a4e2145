"""The requests: one frozen record for each verb (those of queries are in model.queries).

The command line makes them, and they are passed to the worker as JSON, which is validated (`read_request`).
The caller and the title in the history are no fields, so that they cannot be forged: the worker determines
them.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from apt_ostree.model.kargs import Changes
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.overlay_requests import (
    EditOverlay,
    OverlayBackup,
    OverlayCheck,
    OverlayCleanup,
    OverlayRestore,
    Unlock,
    UnlockDiscard,
    UnlockSave,
)
from apt_ostree.model.plan import RestartPolicy
from apt_ostree.model.request import LONGEST_TITLE, Request, find
from apt_ostree.model.request_options import DeployOptions, LiveOptions
from apt_ostree.model.selection import EVERYTHING, Selection


class Moment(StrEnum):
    """When recovery is requested: by a user (CALL), or by systemd."""

    CALL = "call"
    BOOT = "boot"  # before services start
    STATE = "state"  # the same, if the machine has not all state of the tree
    CONFIGURE = "configure"  # the same, if it has to configure packages of the tree itself
    BOOTED = "booted"  # when the boot has succeeded
    DEADLINE = "deadline"  # a change was not confirmed in time
    SHUTDOWN = "shutdown"  # before ostree merges /etc
    FINALIZED = "finalized"  # after that


# --- verbs that make deployments


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployRequest(Request):
    """What verbs that make deployments share."""

    deploy: DeployOptions = DeployOptions()

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        words = [self.verb, *(["-A"] if self.deploy.live else []), *self._operands]
        return " ".join(words)[:LONGEST_TITLE]

    @property
    def _operands(self) -> tuple[str, ...]:
        """Return the arguments that the title has."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Install(DeployRequest):
    """Layer packages.

    packages: NAME or NAME=VERSION of each.
    files: .deb files.
    uninstall: requested packages to drop.
    idempotent: accept packages that are requested already.
    allow_inactive: accept packages of the base.
    """

    verb: ClassVar[str] = "install"
    packages: tuple[str, ...] = ()
    files: tuple[OpenFile, ...] = ()
    uninstall: tuple[str, ...] = ()
    idempotent: bool = False
    allow_inactive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Uninstall(DeployRequest):
    """Drop requested packages.

    install, files: packages to layer.
    everything: drop all.
    idempotent: accept packages that are not requested.
    """

    verb: ClassVar[str] = "uninstall"
    packages: tuple[str, ...] = ()
    install: tuple[str, ...] = ()
    files: tuple[OpenFile, ...] = ()
    everything: bool = False
    idempotent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade(DeployRequest):
    """Upgrade the base from its remote and packages from the archives.

    check: only show the upgrades.
    allow_downgrade: take the remote's commit even if it is older than the present one.
    """

    verb: ClassVar[str] = "upgrade"
    base: bool = True
    packages: bool = True
    check: bool = False
    allow_downgrade: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy(DeployRequest):
    """Deploy a commit of the base's branch.

    revision: the commit, see model.refspec.Revision.
    skip_branch_check: it need not be of the branch.
    disallow_downgrade: refuse a commit that is older than the present base.
    """

    verb: ClassVar[str] = "deploy"
    revision: str
    skip_branch_check: bool = False
    disallow_downgrade: bool = False

    @property
    def _operands(self) -> tuple[str, ...]:
        return (self.revision,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebase(DeployRequest):
    """Follow another branch.

    refspec: the branch, see model.refspec.Refspec.parse_partial, or a commit.
    revision: a commit of the branch; None is its newest one.
    skip_purge: keep what was pulled of the branch that is left.
    disallow_downgrade: refuse a commit that is older than the present base.
    """

    verb: ClassVar[str] = "rebase"
    refspec: str
    revision: str | None = None
    skip_purge: bool = False
    disallow_downgrade: bool = False

    @property
    def _operands(self) -> tuple[str, ...]:
        return (self.refspec, self.revision) if self.revision else (self.refspec,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Override(DeployRequest):
    """Remove or replace packages of the base.

    remove: their names.
    replace: NAME=VERSION of each that is replaced.
    files: .deb files that replace packages of the base.
    reset: names of packages that become the base's own again.
    reset_all: reset all of them.
    install, uninstall: packages to layer, and requests to drop, in the same transaction.
    """

    verb: ClassVar[str] = "override"
    remove: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    files: tuple[OpenFile, ...] = ()
    reset: tuple[str, ...] = ()
    reset_all: bool = False
    install: tuple[str, ...] = ()
    uninstall: tuple[str, ...] = ()

    @property
    def _operands(self) -> tuple[str, ...]:
        replaced = (*self.replace, *(file.name for file in self.files))
        actions = {"remove": self.remove, "replace": replaced, "reset": self.reset}
        words = [(name, *rest) for name, rest in actions.items() if rest]
        return (*(word for group in words for word in group), *(["reset --all"] if self.reset_all else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset(DeployRequest):
    """Deploy the base as it is, or give up a part of what the deployment has besides.

    layers: drop the layered packages. overrides: reset the base's. Without one of them, drop all, with the
        commands and upgrades from the archives.
    install: packages to layer.
    """

    verb: ClassVar[str] = "reset"
    layers: bool = False
    overrides: bool = False
    install: tuple[str, ...] = ()


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
class Run(DeployRequest):
    """Run a program in the next deployment.

    forget: do not run it, but build the deployment without it.
    """

    verb: ClassVar[str] = "run"
    program: str
    arguments: tuple[str, ...] = ()
    forget: bool = False

    @property
    def command_line(self) -> tuple[str, ...]:
        """Return the program and its arguments."""
        return (self.program, *self.arguments)

    @property
    def _operands(self) -> tuple[str, ...]:
        return (*(["--forget"] if self.forget else []), shlex.join(self.command_line))


# --- verbs on deployments and archives


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback(Request):
    """Boot the previous deployment next."""

    verb: ClassVar[str] = "rollback"
    dry_run: bool = False


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
class RefreshMd(Request):
    """Download the package lists. force: also if they are current."""

    verb: ClassVar[str] = "refresh-md"
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeTree(Request):
    """Compose a tree from a treefile.

    treefile, repo and workdir are paths of the caller, who must be root: a treefile refers to other files, so
    that it cannot be passed as a descriptor.
    """

    verb: ClassVar[str] = "compose-tree"
    treefile: str
    repo: str | None = None
    ref: str | None = None
    version: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    print_only: bool = False
    dry_run: bool = False
    force: bool = False
    keep_parent: bool = True


# --- verbs on the running system


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyLive(Request):
    """Apply the pending deployment, a selection of it, or a commit to the running system.

    target: the commit.
    reset: apply the booted commit.
    """

    verb: ClassVar[str] = "apply-live"
    target: str | None = None
    reset: bool = False
    selection: Selection = EVERYTHING
    live: LiveOptions = LiveOptions()
    dry_run: bool = False

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        return "apply-live --reset" if self.reset else "apply-live"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackLive(Request):
    """Roll the running system back to a generation (None: the previous one), or only some packages."""

    verb: ClassVar[str] = "rollback-live"
    command: ClassVar[str] = "rollback --live"
    generation: int | None = None
    packages: tuple[str, ...] = ()
    restart_services: RestartPolicy = RestartPolicy.NONE
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm(Request):
    """Confirm live changes, so that they are not undone."""

    verb: ClassVar[str] = "confirm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover(Request):
    """Finish or undo interrupted operations. at: when it is requested."""

    verb: ClassVar[str] = "recover"
    at: Moment = Moment.CALL

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        return "boot" if self.at is Moment.BOOT else self.verb


#: Verb -> its request.
VERBS: Mapping[str, type[Request]] = {
    request.verb: request
    for request in (
        ApplyLive, Cleanup, ComposeTree, Confirm, Deploy, EditOverlay, Install, Kargs, OverlayBackup,
        OverlayCheck, OverlayCleanup, OverlayRestore, Override, Rebase, Recover, RefreshMd, Reset,
        Rollback, RollbackLive, Run, Uninstall, Unlock, UnlockDiscard, UnlockSave, Upgrade,
    )
}  # fmt: skip


def read_request(verb: Any, value: Any) -> Request:
    """Return the request of a verb from a JSON object; UsageError names a mistake."""
    return find(VERBS, "verb", verb).from_json(value)
