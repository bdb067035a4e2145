"""What is done in a build root, and how it is told."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apt_ostree.model.origin import Command
from apt_ostree.model.package_plan import PackagePlan

if TYPE_CHECKING:
    from apt_ostree.system.apt.acquire import Archives


@dataclass(frozen=True, slots=True)
class OwnInitramfs:
    """What the initramfs has of the machine.

    arguments: further arguments of dracut, with which the machine makes its own; None: it makes none.
    etc: paths below /etc that are also in it.
    anew: make it, though nothing else changes.
    """

    arguments: tuple[str, ...] | None
    etc: tuple[str, ...]
    anew: bool


@dataclass(frozen=True, slots=True)
class Work:
    """What is done in the build root.

    archives: of the packages; None if the plan is empty.
    initramfs: what it has of the machine, if anything.
    replacing: names of packages that may replace files of others.
    rehearsal: whether only scripts are run, for what they do to /etc.
    """

    plan: PackagePlan
    archives: Archives | None
    commands: Sequence[Command]
    configure: Sequence[str]
    initramfs: OwnInitramfs | None
    replacing: frozenset[str] = frozenset()
    rehearsal: bool = False

    @property
    def dracut_arguments(self) -> tuple[str, ...] | None:
        """Return the arguments of dracut for an initramfs of the machine's own; None if it makes none."""
        return self.initramfs.arguments if self.initramfs else None

    @property
    def title(self) -> str:
        """Return the title of the task."""
        if self.rehearsal:
            return "Running the scripts of dropped packages"
        if not (self.plan or self.commands or self.configure):
            return "Preparing the tree"
        if not self.plan:
            return "Running the command" if self.commands else "Configuring packages"
        return "Removing packages" if self.plan.only_removes else "Installing packages"

    def summary(self) -> list[str]:
        """Return lines for the log."""
        configured = [f"configure: {' '.join(self.configure)}"] if self.configure else []
        commands = [f"run: {shlex.join(command)}" for command in self.commands]
        return [*self.plan.summary(), *configured, *commands]

    @property
    def subject(self) -> str:
        """Return what the commit's subject says."""
        counts: Sequence[tuple[str, Sequence[object]]] = (
            ("installed", self.plan.install),
            ("upgraded", self.plan.upgrade),
            ("downgraded", self.plan.downgrade),
            ("removed", self.plan.remove),
        )
        changes = [f"{len(steps)} packages {done}" for done, steps in counts if steps]
        changes += [f"{len(self.configure)} packages configured"] if self.configure else []
        if self.initramfs and not changes:
            own = self.initramfs.arguments is not None
            changes.append("own initramfs" if own else "files of /etc in the initramfs")
        return ", ".join([*changes, *(f"run {shlex.join(command)}" for command in self.commands)])
