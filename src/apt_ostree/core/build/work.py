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
    """The initramfs that a machine makes for itself.

    arguments: further arguments of dracut.
    anew: make it, though nothing else changes.
    """

    arguments: tuple[str, ...]
    anew: bool


@dataclass(frozen=True, slots=True)
class Work:
    """What is done in the build root.

    archives: of the packages; None if the plan is empty.
    initramfs: the machine's own, if it has one.
    """

    plan: PackagePlan
    archives: Archives | None
    commands: Sequence[Command]
    configure: Sequence[str]
    initramfs: OwnInitramfs | None

    @property
    def title(self) -> str:
        """Return the title of the task."""
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
        changes += ["own initramfs"] if self.initramfs and not changes else []
        return ", ".join([*changes, *(f"run {shlex.join(command)}" for command in self.commands)])
