"""Overlays at boot: temporary ones end, persistent ones show, unless they kept a boot from succeeding."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from apt_ostree.core.live import engine
from apt_ostree.core.live.planning import Situation, look
from apt_ostree.core.overlays import edit, image, stack
from apt_ostree.core.state import overlay_store
from apt_ostree.errors import AptOstreeError
from apt_ostree.model import overlay_choice
from apt_ostree.model.events import Message, Report
from apt_ostree.model.history import Intent
from apt_ostree.model.overlay import Goal, Overlay, Persistence, Transition
from apt_ostree.model.overlay_edit import Content, lasting
from apt_ostree.system import settings, systemd
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb, boot_id

#: A note from the begin of a boot until it has succeeded: its id, and how many failed before it.
_TRYING = "boot-trying"
#: A note of the overlays with which a boot succeeded last.
_PROVEN = "boot-proven"
#: An overlay with which boots have succeeded is suspected only after so many failures.
_TRIES = 3


def show_overlays(report: Report, sysroot: Sysroot, db: StateDb) -> None:
    """Show what persists. Whatever is wrong with an overlay, the boot goes on without it."""
    _end_temporary(report, sysroot, db)
    _leave_out_suspects(report, sysroot, db)
    _renew_image_overlays(report, sysroot, db)
    known = overlay_store.load(sysroot.repo, db.overlays())
    enabled = [overlay for overlay in known.values() if overlay.state.enabled]
    if not enabled:
        db.set_note(_TRYING, None)
        return
    situation = look(sysroot, db)
    goal = _goal(report, sysroot, db, situation, known=known, enabled=enabled)
    if goal.commit == situation.commit:
        return
    for note in goal.notes:
        report(Message(note, "warning"))
    if engine.show_at_boot(report, sysroot, db, goal):
        systemd.start(("default.target",), block=False)


def _renew_image_overlays(report: Report, sysroot: Sysroot, db: StateDb) -> None:
    """Have the overlays of the image as the booted tree has them."""
    known = tuple(overlay_store.load(sysroot.repo, db.overlays()).values())
    try:
        moves = list(image.renewed(sysroot, look(sysroot, db).booted, known))
    except AptOstreeError as error:
        report(Message(f"overlays of the image stay as they were: {error.message}", "warning"))
        return
    _record(sysroot, db, moves, "as the booted image has them")


def _end_temporary(report: Report, sysroot: Sysroot, db: StateDb) -> None:
    """Remove the overlays, and of hybrid ones the paths, that end with the boot in which they were made."""
    moves = []
    for overlay in overlay_store.load(sysroot.repo, db.overlays()).values():
        if overlay.state.boot_id == boot_id() or overlay.definition.persistence is Persistence.PERSISTENT:
            continue
        after = None
        if overlay.definition.persistence is Persistence.HYBRID:
            content = edit.read(sysroot.repo, overlay.definition, overlay.state.commit)
            parts = (content.nodes, content.templates)
            nodes, templates = (lasting(content.definition, nodes) for nodes in parts)
            kept = Content(content.definition, nodes, templates)
            if kept == content:
                continue
            commit = edit.write(sysroot.repo, kept, parent=overlay.state.commit, subject="the boot ended")
            after = replace(overlay.state, commit=commit)
        moves.append(overlay_choice.transition(overlay, after))
        what = "ended with the boot" if after is None else "lost its temporary paths with the boot"
        report(Message(f"Overlay {overlay.id} {what}."))
    _record(sysroot, db, moves, "temporary overlays ended")


def _leave_out_suspects(report: Report, sysroot: Sysroot, db: StateDb) -> None:
    """Disable what may have kept the last boot from succeeding: overlays that are new since one that did."""
    text = db.note(_TRYING)
    last: dict[str, Any] = json.loads(text) if text else {"boot": boot_id(), "failed": 0}
    failed = last["failed"] + (last["boot"] != boot_id())
    proven = json.loads(db.note(_PROVEN) or "[]")
    enabled = [s for s in db.overlays() if s.enabled]
    fresh = [s for s in enabled if [s.id, s.commit] not in proven]
    suspects = fresh if failed else []
    if failed >= _TRIES:
        suspects = enabled
    known = overlay_store.load(sysroot.repo, db.overlays())
    moves = [overlay_choice.transition(known[s.id], replace(s, enabled=False)) for s in suspects]
    for move in moves:
        report(Message(f"Overlay {move.id} is disabled: the last boot with it did not succeed.", "warning"))
    _record(sysroot, db, moves, "disabled, since the last boot with them did not succeed")
    db.set_note(_TRYING, json.dumps({"boot": boot_id(), "failed": 0 if moves else failed}))
    failpoint("boot.overlays-chosen")


def note_success(db: StateDb) -> None:
    """Note that the boot succeeded with the overlays that it has shown."""
    db.set_note(_TRYING, None)
    db.set_note(_PROVEN, json.dumps([[s.id, s.commit] for s in db.overlays() if s.enabled]))


def _goal(
    report: Report,
    sysroot: Sysroot,
    db: StateDb,
    situation: Situation,
    *,
    known: Mapping[str, Overlay],
    enabled: Sequence[Overlay],
) -> Goal:
    """Return what is to be shown; an overlay that cannot be is disabled, with the reason."""
    allowed = settings.load_or_default().overlay_allow
    repo, base = sysroot.repo, situation.base
    try:
        return stack.goal(repo, base, enabled, known=known, allowed=allowed)
    except AptOstreeError:
        usable = list(enabled)
    for overlay in enabled:
        try:
            stack.goal(repo, base, [overlay], known=known, allowed=allowed)
        except AptOstreeError as error:
            usable.remove(overlay)
            reason = "; ".join((error.message, *error.details[:3]))
            report(Message(f"Overlay {overlay.id} is disabled: {reason}", "warning"))
            move = overlay_choice.transition(overlay, replace(overlay.state, enabled=False))
            _record(sysroot, db, [move], f"disabled: {reason}")
    return stack.goal(repo, base, usable, known=known, allowed=allowed)


def _record(sysroot: Sysroot, db: StateDb, moves: Sequence[Transition], message: str) -> None:
    if moves:
        booted = look(sysroot, db).booted.checksum
        overlay_store.record(
            sysroot, db, moves, intent=Intent("boot", "root", booted, booted), message=message
        )
