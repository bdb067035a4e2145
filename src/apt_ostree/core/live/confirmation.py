"""Deferred rollback: a change that is undone unless somebody confirms it, kept by systemd and not by us."""

from __future__ import annotations

import time

from apt_ostree.core.live import undo
from apt_ostree.core.state.generations import Ending
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model.history import Outcome
from apt_ostree.model.requests import Confirm
from apt_ostree.model.result import Result
from apt_ostree.system import systemd
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.statedb import boot_id

_UNIT = "apt-ostree-unconfirmed"
#: What the timer runs. A lost connection, or a lost terminal, then still rolls back.
_COMMAND = ("/usr/bin/apt-ostree", "recover", "--at=deadline")


def arm(tx: Transaction, generation: int, seconds: float) -> None:
    """Have a generation undone after `seconds`, unless it is confirmed."""
    tx.records.set_confirm_by(generation, time.monotonic() + seconds)
    _set_timer(tx)
    failpoint("confirm.armed")


def _set_timer(tx: Transaction) -> None:
    """Have systemd call us when the first generation's time is over: there is one timer for all."""
    systemd.disarm(_UNIT)
    waiting = [
        g.confirm_by for g in tx.records.generations() if g.boot_id == boot_id() and g.confirm_by is not None
    ]
    if waiting:
        systemd.run_later(_UNIT, _COMMAND, max(1.0, min(waiting) - time.monotonic()))


def confirm(tx: Transaction, _request: Confirm) -> Result:
    """Keep what waits to be confirmed."""
    with tx.changing("confirm a live change"):
        waiting = [g for g in tx.live.generations if g.confirm_by is not None]
        if not waiting:
            raise Refused("no live change waits to be confirmed")
        for generation in waiting:
            tx.records.set_confirm_by(generation.id, None)
        failpoint("confirm.recorded")
        systemd.disarm(_UNIT)
        tx.message(f"Generation {waiting[-1].id} is kept.")
    return Result(changed=True, details={"generations": [generation.id for generation in waiting]})


def expire(tx: Transaction) -> bool:
    """Undo from the first generation on whose time is over; tell whether there was one."""
    generations = tx.live.generations
    late = [g for g in generations if g.confirm_by is not None and g.confirm_by <= time.monotonic() + 1]
    if not late:
        _set_timer(tx)
        return False
    going = [g for g in generations if g.id >= late[0].id]
    tx.message(f"Generation {late[0].id} was not confirmed in time and is undone.")
    ending = Ending(Outcome.UNCONFIRMED, "it was not confirmed in time")
    undo.finish_undo(tx, going, ending)
    pending = tx.deployments.pending
    if pending and pending.staged and pending.checksum in {g.base for g in going}:
        tx.sysroot.keep(lambda deployment: not deployment.staged)
        tx.reread()
        tx.message("The pending deployment with the same content was dropped, too.")
    _set_timer(tx)
    return True
