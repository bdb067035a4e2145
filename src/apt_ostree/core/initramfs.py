"""initramfs: whether the machine makes its own, with further arguments of dracut and what is in its /etc."""

from __future__ import annotations

from dataclasses import replace

from apt_ostree.core.deploy import Recipe, Target, deploy
from apt_ostree.core.packages import changed
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model.origin import Origin
from apt_ostree.model.requests.deployments import Initramfs
from apt_ostree.model.result import Result

_DRACUT = "usr/bin/dracut"


def change(tx: Transaction, request: Initramfs) -> Result:
    """Build the next deployment with an initramfs of the machine's own, or with that of its base.

    It is made also if the machine has one already: files of /etc that it holds may have changed.

    Returns the result of `deploy`. Raises Refused if the tree has no dracut, and what `deploy` raises.
    """
    with tx.changing("change the initramfs"):
        merge = tx.merge_deployment
        if request.enable and not (tx.sysroot.directory(merge) / _DRACUT).exists():
            raise Refused(
                "the deployment has no dracut to make an initramfs with", hint="install dracut first"
            )
        arguments = request.arguments if request.enable else None
        return deploy(tx, _target(tx, replace(merge.origin, initramfs=arguments)), request.deploy)


def _target(tx: Transaction, origin: Origin) -> Target:
    if origin.initramfs is None:
        return changed(tx, origin)
    present = tx.merge_deployment.checksum
    return Target(origin, present, Recipe(tx.sysroot.repo.base_of(present), initramfs=True))
