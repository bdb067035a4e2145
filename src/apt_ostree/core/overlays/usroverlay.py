"""usroverlay: makes, edits, orders, switches and removes a named overlay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from apt_ostree.core.live.planning import without_overlays
from apt_ostree.core.overlays import edit, image
from apt_ostree.core.overlays.session import OverlaySession, change, opened
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import overlay_choice
from apt_ostree.model.notes import Note
from apt_ostree.model.overlay import Definition, Overlay, Scope, State, Transition
from apt_ostree.model.overlay_edit import Content, DefinitionEdit, EditBase, PathEdit
from apt_ostree.model.requests.overlays import EditOverlay
from apt_ostree.model.result import Result
from apt_ostree.system.caller import is_user
from apt_ostree.system.running import boot_id


def usroverlay(tx: Transaction, request: EditOverlay) -> Result:
    """Make, edit, order, switch or remove one overlay, as one change.

    Returns the result of `session.change`. Raises UsageError for an unknown overlay or an invalid edit, and
    Refused for a change of an overlay of the image or a breach of a rule.
    """
    options, dry_run = request.live, request.dry_run
    with opened(tx, "change an overlay", dry_run=dry_run) as session:
        overlay = None if request.create else _choose(session, request.name)
        if overlay:
            _refuse_to_change_image(overlay, request)
        if overlay and request.remove:
            removal = Transition(overlay.id, overlay.state, None)
            return change(session, [removal], options, dry_run=dry_run)
        definition = _define(session, overlay, request)
        state = _write(session, overlay, definition, request.edits)
        if request.enable is not None:
            state = replace(state, enabled=request.enable)
        transitions = overlay_choice.transitions_to(session.overlays, overlay, state)
        return change(session, transitions, options, dry_run=dry_run)


def _choose(session: OverlaySession, name: str | None) -> Overlay:
    """Return the named overlay, which is imported if only the image has it, else the one last worked on."""
    tx, overlays = session.tx, session.overlays
    names = {o.id for o in overlays.values()} | {o.definition.name for o in overlays.values()}
    if name and name not in names:
        sysroot, booted = tx.sysroot, tx.live.booted
        if name.removeprefix("global/") in image.names(sysroot, booted):
            return image.imported(sysroot, booted, name.removeprefix("global/"), None)
    overlay = overlay_choice.choose(overlays, name, tx.records.note(Note.LAST_OVERLAY))
    if not name:
        tx.message(f"Working on overlay {overlay.id}.")
    return overlay


def _refuse_to_change_image(overlay: Overlay, request: EditOverlay) -> None:
    changes = request.edits or request.definition.given or request.rename or request.remove
    if overlay.definition.scope is Scope.GLOBAL and changes:
        raise Refused(
            f"overlay {overlay.id} belongs to the image and cannot be changed",
            hint="enable or disable it, or make one of your own that inherits from it",
        )


def _define(session: OverlaySession, overlay: Overlay | None, request: EditOverlay) -> Definition:
    """Return the overlay's new definition."""
    edits: DefinitionEdit = request.definition
    definition = overlay_choice.defined(session.overlays, overlay, request.name, request.rename, edits.given)
    if edits.user is not None and not is_user(definition.user):
        raise UsageError(f"there is no user {definition.user!r} on this machine")
    return definition


def _write(
    session: OverlaySession, overlay: Overlay | None, definition: Definition, edits: Sequence[PathEdit]
) -> State:
    """Write the overlay's new commit, if it differs; return the overlay's new state."""
    if overlay and not edits and definition == overlay.definition:
        return overlay.state
    repo = session.tx.sysroot.repo
    content = edit.read(repo, definition, overlay.state.commit) if overlay else Content(definition)
    if edits:
        base = session.tx.live.base
        content = edit.apply(repo, content, edits, EditBase(base, without_overlays(session.tx, base)))
    if overlay and content == edit.read(repo, overlay.definition, overlay.state.commit):
        return overlay.state
    subject = ", ".join(f"{e.action} {e.path}" for e in edits) or "definition"
    parent = overlay.state.commit if overlay else None
    commit = edit.write(repo, content, parent=parent, subject=subject[:200])
    enabled = overlay.state.enabled if overlay else True
    return State(content.definition.id, commit, enabled, overlay.state.boot_id if overlay else boot_id())
