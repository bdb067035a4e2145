"""initramfs and initramfs-etc: what the initramfs has of the machine.

With the former the machine makes its own, with further arguments of dracut and what is in its /etc. With the
latter, files of its /etc are in the initramfs, whoever has made that.
"""

from __future__ import annotations

from dataclasses import replace

from apt_ostree.core.build import initramfs_etc
from apt_ostree.core.deploy import Recipe, Target, deploy
from apt_ostree.core.packages import changed
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model.initramfs_etc import path_of, tracked_after
from apt_ostree.model.origin import Origin
from apt_ostree.model.requests.deployments import Initramfs, InitramfsEtc
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
        origin = replace(merge.origin, initramfs=arguments)
        target = changed(tx, origin) if arguments is None else _made_again(tx, origin)
        return deploy(tx, target, request.deploy)


def track(tx: Transaction, request: InitramfsEtc) -> Result:
    """Build the next deployment with other files of /etc in its initramfs.

    Returns the result of `deploy`. Raises UsageError for a path that is not below /etc, Refused for one that
    does not exist or is no file, directory or symlink, and what `deploy` raises.
    """
    with tx.changing("change which files of /etc are in the initramfs"):
        old = tx.merge_deployment.origin
        tracked = tracked_after(
            old.initramfs_etc, track=request.track, untrack=request.untrack, untrack_all=request.untrack_all
        )
        initramfs_etc.require_usable(tuple(map(path_of, request.track)))
        origin = replace(old, initramfs_etc=tracked)
        return deploy(tx, _tracking(tx, origin, sync=request.force_sync), request.deploy)


def _tracking(tx: Transaction, origin: Origin, *, sync: bool) -> Target:
    """Return the target of an origin whose tracked files may be others. sync: read unchanged ones, too."""
    merge = tx.merge_deployment
    if origin != merge.origin and not origin.layered:
        return Target(origin, tx.sysroot.repo.base_of(merge.checksum))
    if origin != merge.origin or (sync and origin.initramfs_etc):
        return _made_again(tx, origin)
    return Target(origin, merge.checksum)


def _made_again(tx: Transaction, origin: Origin) -> Target:
    """Return the target of the present tree with another initramfs."""
    present = tx.merge_deployment.checksum
    return Target(origin, present, Recipe(tx.sysroot.repo.base_of(present), initramfs=True))
