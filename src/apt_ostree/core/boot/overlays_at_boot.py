"""Overlays at boot: removes temporary ones and shows persistent ones.

Overlays that may have kept the last boot from succeeding are disabled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from apt_ostree.core.boot.resume import Prepared
from apt_ostree.core.live import engine
from apt_ostree.core.live.triggers import plan_triggers
from apt_ostree.core.overlays import edit, image, stack
from apt_ostree.core.state import generations, overlay_store
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import AptOstreeError
from apt_ostree.model import overlay_choice
from apt_ostree.model.audit import Kind
from apt_ostree.model.generation import Generation, Phase
from apt_ostree.model.history import Intent
from apt_ostree.model.notes import Note
from apt_ostree.model.overlay import Applied, Goal, Overlay, Persistence, Transition
from apt_ostree.model.overlay_edit import Content, lasting
from apt_ostree.model.overlay_stack import is_plain
from apt_ostree.model.plan import touches
from apt_ostree.model.treediff import flatten
from apt_ostree.system import systemd
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff, overlay_repo
from apt_ostree.system.running import boot_id
from apt_ostree.system.statedb import StateDb

#: Overlays with which a boot has succeeded are disabled only after so many failed boots.
_TRIES = 3


def last_shown(tx: Transaction) -> Goal | None:
    """Return what the last boot showed at its end, if it is still there and the same on every boot.

    Not at the first boot of a deployment, which tells where its base and overlays differ.
    """
    repo, earlier = tx.sysroot.repo, [g for g in tx.records.generations() if g.boot_id != boot_id()]
    live = [generation for generation in earlier if generation.phase is Phase.LIVE]
    if not live or live[-1].deployment != tx.live.booted.id:
        return None
    last = Goal(live[-1].base, live[-1].target, live[-1].overlays)
    commits = [last.commit, *(layer for a in last.overlays for layer in (a.commit, a.layer))]
    if not all(map(repo.has_commit, commits)):
        return None
    # What templates become depends on the machine, whose name or memory may be another one now.
    return None if any(overlay_repo.has_templates(repo, a.commit) for a in last.overlays) else last


def show_overlays(tx: Transaction, last: Goal | None = None) -> None:
    """Show the enabled overlays. One with an error is disabled, so that the boot continues without it.

    last: what the last boot showed; its overlays are not checked again, and their layers are used.
    """
    _remove_temporary(tx)
    _disable_suspected(tx)
    _update_image_overlays(tx)
    overlays = overlay_store.load(tx.sysroot.repo, tx.records.overlays())
    enabled = [overlay for overlay in overlays.values() if overlay.state.enabled]
    if not enabled:
        tx.records.set_note(Note.TRYING, None)
        return
    if last:
        try:
            _show(tx, _goal(tx, overlays, enabled, last))
        except AptOstreeError as error:  # then the slow way finds which overlay it is
            tx.warning(f"what the last boot showed cannot be shown again: {error.message}")
            tx.reread()
        else:
            return
    _show(tx, _goal(tx, overlays, enabled))


def prepare(tx: Transaction) -> None:
    """Note how the next boot can show the same, if it has nothing else to do for that (`resume`)."""
    try:
        _prepare(tx, tx.live.current)
    except (AptOstreeError, OSError) as error:  # then the next boot finds what is wrong, too
        tx.warning(f"the next boot of these overlays is not prepared: {error}")


def _prepare(tx: Transaction, current: Generation | None) -> None:
    if current is None or not _is_all_in_usr(tx) or not _are_plain(tx, current.overlays):
        return
    repo, booted = tx.sysroot.repo, tx.live.booted
    changes = tuple(flatten(diff.diff_commits(repo, booted.checksum, current.target)))
    if touches(changes, "lib/systemd/", "etc/") or plan_triggers(repo, current.target, changes, {}):
        return
    lowers = tuple(map(str, generations.lowers(tx.sysroot, booted, current)))
    tx.records.set_note(Note.PREPARED, Prepared(current.id, lowers).to_text())


def _is_all_in_usr(tx: Transaction) -> bool:
    """Return whether the live changes are confirmed overlays on the booted tree, and only in /usr."""
    records, live = tx.records, tx.live
    return (
        live.commit != live.base == live.booted.checksum
        and live.booted.unlocked == "none"
        and not any(g.uppers or g.kernel or g.confirm_by for g in live.generations)
        and all(g.phase is Phase.LIVE for g in records.generations())
        and not any(records.etc_records(g.id) or records.unit_records(g.id) for g in live.generations)
    )


def _are_plain(tx: Transaction, applied: Sequence[Applied]) -> bool:
    """Return whether all overlays persist, and the enabled ones are shown and the same at every boot."""
    repo, overlays = tx.sysroot.repo, overlay_store.load(tx.sysroot.repo, tx.records.overlays()).values()
    enabled = {(overlay.id, overlay.state.commit) for overlay in overlays if overlay.state.enabled}
    return (
        enabled == {(one.id, one.commit) for one in applied}
        and all(overlay.definition.persistence is Persistence.PERSISTENT for overlay in overlays)
        and all(is_plain(overlay.definition) for overlay in overlays if overlay.state.enabled)
        and not any(overlay_repo.has_templates(repo, one.commit) for one in applied)
    )


def _show(tx: Transaction, goal: Goal) -> None:
    if goal.commit == tx.live.commit:
        return
    for note in goal.notes:
        tx.warning(note)
    if engine.show_at_boot(tx, goal):
        systemd.start(("default.target",), block=False)


def _update_image_overlays(tx: Transaction) -> None:
    """Update the enabled overlays of the image to what the booted tree contains."""
    present = tuple(overlay_store.load(tx.sysroot.repo, tx.records.overlays()).values())
    try:
        transitions = list(image.updates(tx.sysroot, tx.live.booted, present))
    except AptOstreeError as error:
        tx.warning(f"the overlays of the image were not updated: {error.message}")
        return
    _record(tx, transitions, "updated from the booted image")


def _remove_temporary(tx: Transaction) -> None:
    """Remove temporary overlays, and temporary paths of hybrid overlays, of earlier boots."""
    transitions = []
    for overlay in overlay_store.load(tx.sysroot.repo, tx.records.overlays()).values():
        if overlay.state.boot_id == boot_id() or overlay.definition.persistence is Persistence.PERSISTENT:
            continue
        after = None
        if overlay.definition.persistence is Persistence.HYBRID:
            content = edit.read(tx.sysroot.repo, overlay.definition, overlay.state.commit)
            parts = (content.nodes, content.templates)
            nodes, templates = (lasting(content.definition, nodes) for nodes in parts)
            remaining = Content(content.definition, nodes, templates)
            if remaining == content:
                continue
            commit = edit.write(
                tx.sysroot.repo, remaining, parent=overlay.state.commit, subject="the boot ended"
            )
            after = replace(overlay.state, commit=commit)
        transitions.append(overlay_choice.transition(overlay, after))
        what = "was temporary and is removed" if after is None else "loses its temporary paths"
        tx.message(f"Overlay {overlay.id} {what}.")
    _record(tx, transitions, "temporary overlays were removed")


def _disable_suspected(tx: Transaction) -> None:
    """Disable overlays that may have kept the last boot from succeeding, first those that are new."""
    text = tx.records.note(Note.TRYING)
    last: dict[str, Any] = json.loads(text) if text else {"boot": boot_id(), "failed": 0}
    failed = last["failed"] + (last["boot"] != boot_id())
    proven = json.loads(tx.records.note(Note.PROVEN) or "[]")
    enabled = [s for s in tx.records.overlays() if s.enabled]
    new = [s for s in enabled if [s.id, s.commit] not in proven]
    suspected = new if failed else []
    if failed >= _TRIES:
        suspected = enabled
    present = overlay_store.load(tx.sysroot.repo, tx.records.overlays())
    transitions = [overlay_choice.transition(present[s.id], replace(s, enabled=False)) for s in suspected]
    for transition in transitions:
        _tell_disabled(tx, transition.id, "the last boot with it did not succeed.")
    _record(tx, transitions, "disabled, because the last boot with them did not succeed")
    tx.records.set_note(Note.TRYING, json.dumps({"boot": boot_id(), "failed": 0 if transitions else failed}))
    failpoint("boot.overlays-chosen")


def _tell_disabled(tx: Transaction, overlay: str, reason: str) -> None:
    text = f"Overlay {overlay} is disabled: {reason}"
    tx.warning(text)
    tx.record(Kind.UNDONE, text, overlay=overlay)


def note_success(records: StateDb) -> None:
    """Record that the boot has succeeded with the overlays that it shows."""
    records.set_note(Note.TRYING, None)
    records.set_note(Note.PROVEN, json.dumps([[s.id, s.commit] for s in records.overlays() if s.enabled]))


def _goal(
    tx: Transaction, overlays: Mapping[str, Overlay], enabled: Sequence[Overlay], last: Goal | None = None
) -> Goal:
    """Return the goal of the boot; an overlay that cannot be shown is disabled, with the reason."""
    allowed = tx.safe_settings.overlay_allow
    repo, base = tx.sysroot.repo, tx.live.base
    try:
        return stack.goal(repo, base, enabled, overlays=overlays, shown_now=last, allowed=allowed)
    except AptOstreeError:
        usable = list(enabled)
    for overlay in enabled:
        try:
            stack.goal(repo, base, [overlay], overlays=overlays, allowed=allowed)
        except AptOstreeError as error:
            usable.remove(overlay)
            reason = "; ".join((error.message, *error.details[:3]))
            _tell_disabled(tx, overlay.id, reason)
            transition = overlay_choice.transition(overlay, replace(overlay.state, enabled=False))
            _record(tx, [transition], f"disabled: {reason}")
    return stack.goal(repo, base, usable, overlays=overlays, allowed=allowed)


def _record(tx: Transaction, transitions: Sequence[Transition], message: str) -> None:
    if transitions:
        booted = tx.live.booted.checksum
        intent = Intent(tx.title, tx.caller.user, booted, booted)
        overlay_store.record(tx.sysroot, tx.records, transitions, intent=intent, message=message)
