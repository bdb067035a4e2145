"""usroverlay: makes, edits, orders, switches and removes named overlays.

What shows on the system changes by the live engine, as a generation with a plan and a way back; what does
not show (an overlay that is disabled, or empty) changes in the record alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from apt_ostree.core import host
from apt_ostree.core.live import engine, undo
from apt_ostree.core.live.planning import Situation, look, without_overlays
from apt_ostree.core.overlays import edit, image, stack
from apt_ostree.core.state import overlay_store
from apt_ostree.errors import ExternalFailure, Refused, UsageError
from apt_ostree.model import overlay_choice
from apt_ostree.model.events import Message, Report
from apt_ostree.model.history import Intent
from apt_ostree.model.overlay import (
    Definition,
    Goal,
    Overlay,
    Scope,
    State,
    Transition,
)
from apt_ostree.model.overlay_edit import Content, Edit, Ground
from apt_ostree.model.sizes import show_size
from apt_ostree.system import settings, statedb
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb, boot_id


@dataclass(frozen=True, slots=True)
class Bench:
    """What an overlay verb works with."""

    report: Report
    sysroot: Sysroot
    db: StateDb
    situation: Situation
    known: Mapping[str, Overlay]


def usroverlay(
    report: Report,
    *,
    name: str | None = None,
    create: bool = False,
    remove: bool = False,
    enable: bool | None = None,
    rename: str | None = None,
    edits: Sequence[Mapping[str, Any]] = (),
    changes: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    **options: Any,
) -> Mapping[str, Any]:
    """Make, edit, order, switch or remove one overlay, all that is asked for as one step.

    name: of the overlay, else the one last worked on; changes: fields of its definition; edits: fields of
    `Edit` each; options: fields of `engine.Wishes`.
    """
    wishes = engine.Wishes(**{"verb": "usroverlay", **options})
    with prepared("change an overlay", report, dry_run=dry_run) as bench:
        overlay = None if create else _chosen(bench, name)
        if overlay and overlay.definition.scope is Scope.GLOBAL and (edits or changes or rename or remove):
            raise Refused(
                f"overlay {overlay.id} belongs to the image and cannot be changed",
                hint="enable or disable it, or make one of your own that inherits from it",
            )
        if overlay and remove:
            return change(bench, [Transition(overlay.id, overlay.state, None)], wishes, dry_run=dry_run)
        wanted = _defined(bench, overlay, name, rename, changes or {})
        state = _written(bench, overlay, wanted, [Edit(**words) for words in edits])
        if enable is not None:
            state = replace(state, enabled=enable)
        moves = overlay_choice.transitions_to(bench.known, overlay, state)
        return change(bench, moves, wishes, dry_run=dry_run)


@contextmanager
def prepared(what: str, report: Report, *, dry_run: bool = False) -> Iterator[Bench]:
    """Open the system for a change of overlays; what was interrupted is finished first."""
    with host.changing(what, report) as sysroot, statedb.opened() as db:
        undo.recover_interrupted(report, sysroot, db, dry_run=dry_run)
        overlay_store.sync_refs(sysroot, db)  # a killed call may not have come to that
        known = overlay_store.load(sysroot.repo, db.overlays())
        yield Bench(report, sysroot, db, look(sysroot, db), known)


def _chosen(bench: Bench, name: str | None) -> Overlay:
    """Return the overlay of that name, also one that only the image has, else the one last worked on."""
    known = {o.id for o in bench.known.values()} | {o.definition.name for o in bench.known.values()}
    if name and name not in known:
        place = (bench.sysroot, bench.situation.booted)
        if name.removeprefix("global/") in image.names(*place):
            return image.taken_in(*place, name.removeprefix("global/"), None)
    overlay = overlay_choice.choose(bench.known, name, bench.db.note(overlay_store.LAST))
    if not name:
        bench.report(Message(f"Working on overlay {overlay.id}."))
    return overlay


def _defined(
    bench: Bench, overlay: Overlay | None, name: str | None, rename: str | None, changes: Mapping[str, Any]
) -> Definition:
    definition = overlay_choice.defined(bench.known, overlay, name, rename, changes)
    if "user" in changes and not host.is_user(definition.user):
        raise UsageError(f"there is no user {definition.user!r} on this machine")
    return definition


def _written(bench: Bench, overlay: Overlay | None, definition: Definition, edits: Sequence[Edit]) -> State:
    """Write the overlay's new commit, and return what becomes of it on this machine."""
    if overlay and not edits and definition == overlay.definition:
        return overlay.state
    repo = bench.sysroot.repo
    content = Content(definition)
    if overlay:
        content = edit.read(repo, definition, overlay.state.commit)
    if edits:
        content = edit.apply(repo, content, edits, _ground(bench))
    if overlay and content == edit.read(repo, overlay.definition, overlay.state.commit):
        return overlay.state
    subject = ", ".join(f"{e.action} {e.path}" for e in edits) or "definition"
    commit = edit.write(
        repo, content, parent=overlay.state.commit if overlay else None, subject=subject[:200]
    )
    enabled = overlay.state.enabled if overlay else True
    born = overlay.state.boot_id if overlay else boot_id()
    return State(content.definition.id, commit, enabled, born)


def _ground(bench: Bench) -> Ground:
    base = bench.situation.base
    return Ground(base, without_overlays(bench.sysroot.repo, bench.db, bench.situation, base))


def change(
    bench: Bench,
    transitions: Sequence[Transition],
    wishes: engine.Wishes,
    *,
    unlock: str | None = None,
    within_quota: bool = True,
    dry_run: bool = False,
) -> Mapping[str, Any]:
    """Make overlays what the transitions say, on the running system too where it shows them."""
    moves = [t for t in transitions if t.before != t.after]
    names = [t.id for t in transitions]
    answer: dict[str, Any] = {"overlays": names, "changed": bool(moves or unlock)}
    if not (moves or unlock):
        bench.report(Message("No change."))
        return answer | {"live": False}
    if within_quota:
        _refuse_over_quota(bench, moves)
    goal = replace(goal_after(bench, moves), unlock=unlock)
    if goal.commit == bench.situation.commit and not overlay_choice.is_shown(goal, moves) and not unlock:
        if not dry_run:
            _record(bench, moves, wishes)
        return answer | {"live": False}
    live = engine.plan(bench.report, bench.sysroot, bench.db, goal, wishes)
    result = engine.carry_out(
        bench.report, bench.sysroot, bench.db, live, wishes, transitions=moves, dry_run=dry_run
    )
    if not dry_run:
        _remember(bench, moves)
    return answer | result | {"changed": True}


def _refuse_over_quota(bench: Bench, moves: Sequence[Transition]) -> None:
    """Refuse what makes overlays larger together than the administrator wants them to be."""
    quota = settings.load().overlay_quota
    if not quota:
        return
    before = {o.id: o.state for o in bench.known.values()}
    after = overlay_choice.after(before, moves)
    size, now = (_size(bench, (s.commit for s in states.values())) for states in (after, before))
    if size > max(quota, now):
        raise Refused(
            f"the overlays would have {show_size(size)}, and Quota= of apt-ostree.conf is {show_size(quota)}",
            hint="remove some, see --list and --cleanup, or raise it",
        )


def _size(bench: Bench, commits: Iterable[str]) -> int:
    """Return the bytes that commits have together; the same content, and what is damaged, do not count."""
    found: dict[str, int] = {}
    for commit in commits:
        with suppress(ExternalFailure):
            found |= overlay_store.files(bench.sysroot.repo, commit)
    return sum(found.values())


def goal_after(bench: Bench, moves: Sequence[Transition]) -> Goal:
    """Return what the system shows when overlays have become what the moves say."""
    states = overlay_choice.after({o.id: o.state for o in bench.known.values()}, moves)
    known = overlay_store.load(bench.sysroot.repo, states.values())
    enabled = [overlay for overlay in known.values() if overlay.state.enabled]
    return stack.goal(
        bench.sysroot.repo,
        bench.situation.base,
        enabled,
        known=known,
        shown_now=bench.situation.goal,
        allowed=settings.load().overlay_allow,
    )


def _record(bench: Bench, moves: Sequence[Transition], wishes: engine.Wishes) -> None:
    """Change the record alone: nothing of it shows."""
    commit = bench.situation.commit
    overlay_store.record(
        bench.sysroot, bench.db, moves, intent=Intent(wishes.verb, host.caller(), commit, commit)
    )
    _remember(bench, moves)
    for move in moves:
        what = "made" if move.before is None else "changed" if move.after else "removed"
        bench.report(Message(f"Overlay {move.id} was {what}."))


def _remember(bench: Bench, moves: Sequence[Transition]) -> None:
    """Note which overlay was worked on last."""
    left = [move.id for move in moves if move.after]
    bench.db.set_note(overlay_store.LAST, left[-1] if left else None)
