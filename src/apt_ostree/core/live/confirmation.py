"""Deferred rollback: a systemd timer undoes a change that is not confirmed in time."""

from __future__ import annotations

import time

from apt_ostree.core.live import undo
from apt_ostree.core.state.generations import Ending
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model.audit import Kind
from apt_ostree.model.history import Outcome
from apt_ostree.model.requests.live import Confirm
from apt_ostree.model.result import Result
from apt_ostree.system import systemd
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.running import boot_id

_UNIT = "apt-ostree-unconfirmed"
#: The command of the timer. It also runs after the terminal or the connection was lost.
_COMMAND = ("/usr/bin/apt-ostree", "recover", "--at=deadline")


def arm(tx: Transaction, generation: int, seconds: float) -> None:
    """Set the timer that undoes a generation after `seconds`, unless it is confirmed."""
    tx.records.set_confirm_by(generation, time.monotonic() + seconds)
    _set_timer(tx)
    failpoint("confirm.armed")


def _set_timer(tx: Transaction) -> None:
    """Set the one timer to the earliest deadline of all generations, or remove it."""
    systemd.disarm(_UNIT)
    waiting = [
        g.confirm_by for g in tx.records.generations() if g.boot_id == boot_id() and g.confirm_by is not None
    ]
    if waiting:
        systemd.run_later(_UNIT, _COMMAND, max(1.0, min(waiting) - time.monotonic()))


def confirm(tx: Transaction, _request: Confirm) -> Result:
    """Confirm all generations that wait for it.

    Returns their numbers as `generations`. Raises Refused if there is none.
    """
    with tx.changing("confirm a live change"):
        waiting = [g for g in tx.live.generations if g.confirm_by is not None]
        if not waiting:
            raise Refused("no live change waits to be confirmed")
        for generation in waiting:
            tx.records.set_confirm_by(generation.id, None)
        failpoint("confirm.recorded")
        systemd.disarm(_UNIT)
        text = f"Generation {waiting[-1].id} is kept."
        tx.message(text)
        tx.record(Kind.CONFIRMED, text)
    return Result(changed=True, details={"generations": [generation.id for generation in waiting]})


def expire(tx: Transaction) -> bool:
    """Undo the first generation whose deadline has passed, and all later ones; return whether there was one.

    Raises Incomplete if a generation cannot be undone completely.
    """
    generations = tx.live.generations
    expired = [g for g in generations if g.confirm_by is not None and g.confirm_by <= time.monotonic() + 1]
    if not expired:
        _set_timer(tx)
        return False
    undone = [g for g in generations if g.id >= expired[0].id]
    tx.message(f"Generation {expired[0].id} was not confirmed in time and is undone.")
    ending = Ending(Outcome.UNCONFIRMED, "it was not confirmed in time")
    undo.finish_undo(tx, undone, ending)
    pending = tx.deployments.pending
    if pending and pending.staged and pending.checksum in {g.base for g in undone}:
        tx.sysroot.keep(lambda deployment: not deployment.staged)
        tx.reread()
        tx.message("The pending deployment with the same content was dropped, too.")
    _set_timer(tx)
    return True
