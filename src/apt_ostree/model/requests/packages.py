"""The requests that change the packages of a deployment."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.reach import Reach
from apt_ostree.model.request import LONGEST_TITLE, Request
from apt_ostree.model.requests.options import DeployOptions


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
    def reach(self) -> Reach | None:
        """Return how far it goes."""
        return self._reach

    @property
    def _reach(self) -> Reach:
        options = self.deploy
        waits = options.download_only or (options.lock_finalization and options.live is None)
        live = options.live.marks if options.live else None
        return Reach(
            self._only_shows,
            not waits,
            options.reboot,
            options.override_policy,
            self.verb,
            live,
            layers=self._layers,
        )

    @property
    def _layers(self) -> bool:
        """Return whether packages are layered."""
        return False

    @property
    def _only_shows(self) -> bool:
        return self.deploy.dry_run

    @property
    def preview(self) -> Self:
        """Return the request that only shows what would be done.

        A live change would have to be built, with downloads; it is judged by its packages before that.
        """
        return replace(self, deploy=replace(self.deploy, dry_run=True, cache_only=True, judge=True))

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
    recommends: layer what they recommend, too; None: as apt is configured.
    replace_files: let them replace files of other packages.
    """

    verb: ClassVar[str] = "install"
    packages: tuple[str, ...] = ()
    files: tuple[OpenFile, ...] = ()
    uninstall: tuple[str, ...] = ()
    idempotent: bool = False
    allow_inactive: bool = False
    recommends: bool | None = None
    replace_files: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Uninstall(DeployRequest):
    """Drop requested packages.

    install, files: packages to layer.
    recommends: see Install; of those.
    everything: drop all but those that override packages of the base.
    idempotent: accept packages that are not requested.
    """

    verb: ClassVar[str] = "uninstall"
    packages: tuple[str, ...] = ()
    install: tuple[str, ...] = ()
    files: tuple[OpenFile, ...] = ()
    recommends: bool | None = None
    everything: bool = False
    idempotent: bool = False

    @property
    def _layers(self) -> bool:
        return bool(self.install or self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRequest(DeployRequest):
    """What verbs share that deploy a base: packages are layered and dropped in the same transaction.

    install, files: packages to layer.
    recommends: see Install; of those.
    uninstall: requested packages to drop.
    """

    install: tuple[str, ...] = ()
    files: tuple[OpenFile, ...] = ()
    recommends: bool | None = None
    uninstall: tuple[str, ...] = ()

    @property
    def changes_packages(self) -> bool:
        """Return whether packages are layered or dropped."""
        return bool(self.install or self.files or self.uninstall)

    @property
    def _layers(self) -> bool:
        return bool(self.install or self.files)

    @property
    def _operands(self) -> tuple[str, ...]:
        return (*self._of_base, *self._of_packages)

    @property
    def _of_base(self) -> tuple[str, ...]:
        """Return the arguments of the title that name the base."""
        return ()

    @property
    def _of_packages(self) -> tuple[str, ...]:
        installed = (*self.install, *(file.name for file in self.files))
        given = {"--install": installed, "--uninstall": self.uninstall}
        return tuple(f"{option}={name}" for option, names in given.items() for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade(BaseRequest):
    """Upgrade the base from its remote and packages from the archives.

    check: only show the upgrades.
    allow_downgrade: take the remote's commit even if it is older than the present one.
    bypass_driver: upgrade even if another program drives updates.
    """

    verb: ClassVar[str] = "upgrade"
    base: bool = True
    packages: bool = True
    check: bool = False
    allow_downgrade: bool = False
    bypass_driver: bool = False

    @property
    def _only_shows(self) -> bool:
        return self.check or self.deploy.dry_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Override(DeployRequest):
    """Remove or replace packages of the base.

    remove: their names.
    replace: NAME=VERSION of each that is replaced.
    files: .deb files that replace packages of the base.
    reset: names of packages that become the base's own again.
    reset_all: reset all of them.
    install, install_files, uninstall: packages to layer, and requests to drop, in the same transaction.
    recommends: see Install; of those that are layered.
    """

    verb: ClassVar[str] = "override"
    remove: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    files: tuple[OpenFile, ...] = ()
    reset: tuple[str, ...] = ()
    reset_all: bool = False
    install: tuple[str, ...] = ()
    install_files: tuple[OpenFile, ...] = ()
    recommends: bool | None = None
    uninstall: tuple[str, ...] = ()

    @property
    def _layers(self) -> bool:
        return bool(self.install or self.install_files)

    @property
    def _operands(self) -> tuple[str, ...]:
        replaced = (*self.replace, *(file.name for file in self.files))
        actions = {"remove": self.remove, "replace": replaced, "reset": self.reset}
        words = [(name, *rest) for name, rest in actions.items() if rest]
        return (*(word for group in words for word in group), *(["reset --all"] if self.reset_all else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset(BaseRequest):
    """Deploy the base as it is, or give up a part of what the deployment has besides.

    layers: drop the layered packages. overrides: reset the base's. initramfs: have that of the base. Without
        one of them, drop all, with the commands and upgrades from the archives.
    """

    verb: ClassVar[str] = "reset"
    layers: bool = False
    overrides: bool = False
    initramfs: bool = False


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
