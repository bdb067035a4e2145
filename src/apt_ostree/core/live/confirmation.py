"""Deferred rollback: a timer undoes a change that nobody confirms, or that fails while it is watched."""

from __future__ import annotations

import time

from apt_ostree.core.live import undo, watching
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


def arm(tx: Transaction, generation: int, *, within: float | None, watched: float) -> None:
    """Set the timer for a generation.

    within: seconds after which it is undone unless it is confirmed; None: it is kept.
    watched: seconds in which it is undone if something fails; 0: it is not watched.
    """
    if within:
        tx.records.set_confirm_by(generation, time.monotonic() + within)
    if watched:
        watching.begin(tx, generation, watched)
    _set_timer(tx)
    failpoint("confirm.armed")


def _set_timer(tx: Transaction) -> None:
    """Set the one timer to the earliest deadline of all generations or the next look, or remove it."""
    systemd.disarm(_UNIT)
    waiting = [
        g.confirm_by for g in tx.records.generations() if g.boot_id == boot_id() and g.confirm_by is not None
    ]
    if look := watching.next_look(tx):
        waiting.append(look)
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
        _set_timer(tx)
        text = f"Generation {waiting[-1].id} is kept."
        tx.message(text)
        tx.record(Kind.CONFIRMED, text)
    return Result(changed=True, details={"generations": [generation.id for generation in waiting]})


def expire(tx: Transaction) -> bool:
    """Undo the first generation whose deadline has passed, or with which something has failed while it was
    watched, and all later ones; return whether there was one.

    Raises Incomplete if a generation cannot be undone completely.
    """
    generations = tx.live.generations
    expired = [g for g in generations if g.confirm_by is not None and g.confirm_by <= time.monotonic() + 1]
    if expired:
        tx.message(f"Generation {expired[0].id} was not confirmed in time and is undone.")
        _undo_from(tx, expired[0].id, Ending(Outcome.UNCONFIRMED, "it was not confirmed in time"))
    elif found := watching.look(tx):
        number, reason = found
        tx.warning(f"Generation {number} is undone: {reason}")
        _undo_watched(tx, number, reason)
    else:
        _set_timer(tx)
        return False
    _set_timer(tx)
    return True


def _undo_watched(tx: Transaction, number: int, reason: str) -> None:
    """Undo a generation that has failed while it was watched, and mark its tree if it changed that."""
    base = next(generation.base for generation in tx.live.generations if generation.id == number)
    try:
        _undo_from(tx, number, Ending(Outcome.UNHEALTHY, reason))
    finally:
        if base != tx.live.base:
            watching.mark(tx, base, reason)


def _undo_from(tx: Transaction, first: int, ending: Ending) -> None:
    """Undo a generation and all later ones, with the pending deployment of the same content."""
    undone = [generation for generation in tx.live.generations if generation.id >= first]
    undo.finish_undo(tx, undone, ending)
    pending = tx.deployments.pending
    if pending and pending.staged and pending.checksum in {g.base for g in undone}:
        tx.sysroot.keep(lambda deployment: not deployment.staged)
        tx.reread()
        tx.message("The pending deployment with the same content was dropped, too.")
