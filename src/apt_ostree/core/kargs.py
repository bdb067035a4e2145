"""kargs: shows and changes the kernel arguments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from apt_ostree.core.deploy import Target, deploy
from apt_ostree.core.state import reading
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import grub as menu
from apt_ostree.model import kargs
from apt_ostree.model.deployment import Deployment, Deployments
from apt_ostree.model.events import PlanShown
from apt_ostree.model.queries import KernelArguments
from apt_ostree.model.requests.deployments import Kargs
from apt_ostree.model.result import Result
from apt_ostree.system import grub

_RUNNING = Path("/proc/cmdline")


def change(tx: Transaction, request: Kargs) -> Result:
    """Build the next deployment with other kernel arguments; its tree is the present one.

    Returns the result of `deploy` with `kernel-arguments`: `before` and `after`. Raises UsageError for an
    argument that is not there, Refused if the arguments are not those that the caller has seen, or if they
    would break the boot menu, and what `deploy` raises.
    """
    with tx.changing("change the kernel arguments"):
        merge = tx.merge_deployment
        present = _of(tx.deployments, request.deploy_index) if request.deploy_index is not None else merge
        before = running() if request.import_running else present.kernel_arguments
        if request.seen is not None and request.seen != before:
            raise Refused("the kernel arguments were changed meanwhile", hint="run the command again")
        after = request.changes.apply(before) if request.whole is None else request.whole
        if grub.has_own_menu(Path(tx.sysroot.path)):
            menu.refuse_unusable(after)
        details = {"before": list(merge.kernel_arguments), "after": list(after)}
        if details["before"] != details["after"]:
            tx.report(PlanShown("kernel-arguments", details))
        result = deploy(tx, Target(merge.origin, merge.checksum, kernel_arguments=after), request.deploy)
        return replace(result, details={**result.details, "kernel-arguments": details})


def kernel_arguments(query: KernelArguments) -> list[str]:
    """Return the kernel arguments of a deployment: that of an index, else the next boot's."""
    if query.running:
        return list(running())
    with reading.opened() as sysroot:
        deployments = sysroot.deployments()
        index = 0 if query.deploy_index is None else query.deploy_index
        return list(_of(deployments, index).kernel_arguments)


def running() -> kargs.Arguments:
    """Return the arguments of the running kernel."""
    return kargs.own(kargs.split(_RUNNING.read_text()))


def _of(deployments: Deployments, index: int) -> Deployment:
    if not 0 <= index < len(deployments.all):
        raise UsageError(
            f"there is no deployment {index}", hint=f"'apt-ostree status' lists {len(deployments.all)}"
        )
    return deployments.all[index]
