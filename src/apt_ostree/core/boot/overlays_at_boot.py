"""Overlays at boot: temporary ones end, persistent ones show, unless they kept a boot from succeeding."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from apt_ostree.core.live import engine
from apt_ostree.core.overlays import edit, image, stack
from apt_ostree.core.state import overlay_store
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import AptOstreeError
from apt_ostree.model import overlay_choice
from apt_ostree.model.history import Intent
from apt_ostree.model.overlay import Goal, Overlay, Persistence, Transition
from apt_ostree.model.overlay_edit import Content, lasting
from apt_ostree.system import systemd
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.statedb import StateDb, boot_id

#: A note from the begin of a boot until it has succeeded: its id, and how many failed before it.
_TRYING = "boot-trying"
#: A note of the overlays with which a boot succeeded last.
_PROVEN = "boot-proven"
#: An overlay with which boots have succeeded is suspected only after so many failures.
_TRIES = 3


def show_overlays(tx: Transaction) -> None:
    """Show what persists. Whatever is wrong with an overlay, the boot goes on without it."""
    _end_temporary(tx)
    _leave_out_suspects(tx)
    _renew_image_overlays(tx)
    overlays = overlay_store.load(tx.sysroot.repo, tx.records.overlays())
    enabled = [overlay for overlay in overlays.values() if overlay.state.enabled]
    if not enabled:
        tx.records.set_note(_TRYING, None)
        return
    goal = _goal(tx, overlays, enabled)
    if goal.commit == tx.live.commit:
        return
    for note in goal.notes:
        tx.warning(note)
    if engine.show_at_boot(tx, goal):
        systemd.start(("default.target",), block=False)


def _renew_image_overlays(tx: Transaction) -> None:
    """Have the overlays of the image as the booted tree has them."""
    present = tuple(overlay_store.load(tx.sysroot.repo, tx.records.overlays()).values())
    try:
        moves = list(image.renewed(tx.sysroot, tx.live.booted, present))
    except AptOstreeError as error:
        tx.warning(f"overlays of the image stay as they were: {error.message}")
        return
    _record(tx, moves, "as the booted image has them")


def _end_temporary(tx: Transaction) -> None:
    """Remove the overlays, and of hybrid ones the paths, that end with the boot in which they were made."""
    moves = []
    for overlay in overlay_store.load(tx.sysroot.repo, tx.records.overlays()).values():
        if overlay.state.boot_id == boot_id() or overlay.definition.persistence is Persistence.PERSISTENT:
            continue
        after = None
        if overlay.definition.persistence is Persistence.HYBRID:
            content = edit.read(tx.sysroot.repo, overlay.definition, overlay.state.commit)
            parts = (content.nodes, content.templates)
            nodes, templates = (lasting(content.definition, nodes) for nodes in parts)
            kept = Content(content.definition, nodes, templates)
            if kept == content:
                continue
            commit = edit.write(tx.sysroot.repo, kept, parent=overlay.state.commit, subject="the boot ended")
            after = replace(overlay.state, commit=commit)
        moves.append(overlay_choice.transition(overlay, after))
        what = "ended with the boot" if after is None else "lost its temporary paths with the boot"
        tx.message(f"Overlay {overlay.id} {what}.")
    _record(tx, moves, "temporary overlays ended")


def _leave_out_suspects(tx: Transaction) -> None:
    """Disable what may have kept the last boot from succeeding: overlays that are new since one that did."""
    text = tx.records.note(_TRYING)
    last: dict[str, Any] = json.loads(text) if text else {"boot": boot_id(), "failed": 0}
    failed = last["failed"] + (last["boot"] != boot_id())
    proven = json.loads(tx.records.note(_PROVEN) or "[]")
    enabled = [s for s in tx.records.overlays() if s.enabled]
    fresh = [s for s in enabled if [s.id, s.commit] not in proven]
    suspects = fresh if failed else []
    if failed >= _TRIES:
        suspects = enabled
    present = overlay_store.load(tx.sysroot.repo, tx.records.overlays())
    moves = [overlay_choice.transition(present[s.id], replace(s, enabled=False)) for s in suspects]
    for move in moves:
        tx.warning(f"Overlay {move.id} is disabled: the last boot with it did not succeed.")
    _record(tx, moves, "disabled, since the last boot with them did not succeed")
    tx.records.set_note(_TRYING, json.dumps({"boot": boot_id(), "failed": 0 if moves else failed}))
    failpoint("boot.overlays-chosen")


def note_success(records: StateDb) -> None:
    """Note that the boot succeeded with the overlays that it has shown."""
    records.set_note(_TRYING, None)
    records.set_note(_PROVEN, json.dumps([[s.id, s.commit] for s in records.overlays() if s.enabled]))


def _goal(tx: Transaction, overlays: Mapping[str, Overlay], enabled: Sequence[Overlay]) -> Goal:
    """Return what is to be shown; an overlay that cannot be is disabled, with the reason."""
    allowed = tx.safe_settings.overlay_allow
    repo, base = tx.sysroot.repo, tx.live.base
    try:
        return stack.goal(repo, base, enabled, known=overlays, allowed=allowed)
    except AptOstreeError:
        usable = list(enabled)
    for overlay in enabled:
        try:
            stack.goal(repo, base, [overlay], known=overlays, allowed=allowed)
        except AptOstreeError as error:
            usable.remove(overlay)
            reason = "; ".join((error.message, *error.details[:3]))
            tx.warning(f"Overlay {overlay.id} is disabled: {reason}")
            move = overlay_choice.transition(overlay, replace(overlay.state, enabled=False))
            _record(tx, [move], f"disabled: {reason}")
    return stack.goal(repo, base, usable, known=overlays, allowed=allowed)


def _record(tx: Transaction, moves: Sequence[Transition], message: str) -> None:
    if moves:
        booted = tx.live.booted.checksum
        intent = Intent(tx.title, tx.caller.user, booted, booted)
        overlay_store.record(tx.sysroot, tx.records, moves, intent=intent, message=message)
