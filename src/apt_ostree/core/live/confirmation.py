"""Deferred rollback: a change that is undone unless somebody confirms it, kept by systemd and not by us."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from apt_ostree.core import host
from apt_ostree.core.live import undo
from apt_ostree.core.live.planning import look
from apt_ostree.errors import Refused
from apt_ostree.model.events import Message, Report
from apt_ostree.model.history import Outcome
from apt_ostree.system import statedb, systemd
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb, boot_id

_UNIT = "apt-ostree-unconfirmed"
#: What the timer runs. A lost connection, or a lost terminal, then still rolls back.
_COMMAND = ("/usr/bin/apt-ostree", "recover", "--at=deadline")


def arm(db: StateDb, generation: int, seconds: float) -> None:
    """Have a generation undone after `seconds`, unless it is confirmed."""
    db.set_confirm_by(generation, time.monotonic() + seconds)
    _set_timer(db)
    failpoint("confirm.armed")


def _set_timer(db: StateDb) -> None:
    """Have systemd call us when the first generation's time is over: there is one timer for all."""
    systemd.disarm(_UNIT)
    waiting = [g.confirm_by for g in db.generations() if g.boot_id == boot_id() and g.confirm_by is not None]
    if waiting:
        systemd.run_later(_UNIT, _COMMAND, max(1.0, min(waiting) - time.monotonic()))


def confirm(report: Report) -> Mapping[str, Any]:
    """Keep what waits to be confirmed."""
    with host.changing("confirm a live change", report) as sysroot, statedb.opened() as db:
        waiting = [g for g in look(sysroot, db).generations if g.confirm_by is not None]
        if not waiting:
            raise Refused("no live change waits to be confirmed")
        for generation in waiting:
            db.set_confirm_by(generation.id, None)
        failpoint("confirm.recorded")
        systemd.disarm(_UNIT)
        report(Message(f"Generation {waiting[-1].id} is kept."))
    return {"changed": True, "generations": [generation.id for generation in waiting]}


def expire(report: Report, sysroot: Sysroot, db: StateDb) -> bool:
    """Undo from the first generation on whose time is over; tell whether there was one."""
    generations = look(sysroot, db).generations
    late = [g for g in generations if g.confirm_by is not None and g.confirm_by <= time.monotonic() + 1]
    if not late:
        _set_timer(db)
        return False
    going = [g for g in generations if g.id >= late[0].id]
    report(Message(f"Generation {late[0].id} was not confirmed in time and is undone."))
    ending = undo.Ending(Outcome.UNCONFIRMED, "it was not confirmed in time")
    undo.finish_undo(report, sysroot, db, going, ending)
    pending = sysroot.deployments().pending
    if pending and pending.staged and pending.checksum in {g.base for g in going}:
        sysroot.keep(lambda deployment: not deployment.staged)
        report(Message("The pending deployment with the same content was dropped, too."))
    _set_timer(db)
    return True
