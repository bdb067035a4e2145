"""Boot counting by the menu of a composed disk (system.boot_counter): when it ends, what was given up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from apt_ostree.core.transaction import Transaction
from apt_ostree.model import grubenv
from apt_ostree.model.bootcounting import Counted, given_up
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.verdict import Return
from apt_ostree.system import boot_counter, systemd, verdicts
from apt_ostree.system.failpoints import failpoint

_COMPLETE = "boot-complete.target"


def is_due() -> bool:
    """Return whether the menu counts, or has given a deployment up."""
    return boot_counter.note() is not None


def left_behind(tx: Transaction) -> Iterator[tuple[Deployment, Counted]]:
    """Yield the deployment that the menu has given up, with its counter: it is still the newest."""
    first = tx.deployments.pending
    if boot_counter.note() == grubenv.GAVE_UP and first and not first.staged:
        yield first, Counted(0, boot_counter.attempts(Path(tx.sysroot.path)))


def settle(tx: Transaction) -> bool:
    """End the counting if the boot is complete, or went back; return whether it went back.

    What was started instead of a deployment that was given up is made the first. Until then, the menu would
    take the second one at each start, whichever that is.
    """
    gone_back = False
    for first, counted in left_behind(tx):
        booted = tx.deployments.booted
        assert booted  # else there was nothing to judge
        back = Return(first.id, booted.id, time.time(), given_up(counted))
        verdicts.write(replace(verdicts.read(), back=back))
        failpoint("counting.remembered")
        others = tuple(one for one in tx.deployments.all if one is not booted)
        with tx.task(f"Staying with {booted.id}"):
            tx.sysroot.write_order((booted, *others))
        tx.reread()
        gone_back = True
    first = tx.deployments.all[0]
    if boot_counter.note() == grubenv.COUNTED and first.booted and systemd.active([_COMPLETE]):
        boot_counter.stop(Path(tx.sysroot.path))
    return gone_back
