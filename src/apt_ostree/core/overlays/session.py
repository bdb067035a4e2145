"""What every overlay verb works with, and the function that changes overlays.

The live engine makes a change of what the system shows, as a generation with a plan and an undo. A change of
an overlay that is not shown (disabled or empty) is made in the state database alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from apt_ostree.core import policing
from apt_ostree.core.live import engine, undo
from apt_ostree.core.overlays import stack
from apt_ostree.core.state import overlay_store
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model import overlay_choice
from apt_ostree.model.history import Intent
from apt_ostree.model.notes import Note
from apt_ostree.model.overlay import Goal, Overlay, State, Transition
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.model.result import Result
from apt_ostree.model.sizes import show_size
from apt_ostree.system.ostree import overlay_repo


@dataclass(frozen=True, slots=True)
class OverlaySession:
    """A transaction with overlays.

    tx: the transaction.
    overlays: the overlays of this machine, by id.
    """

    tx: Transaction
    overlays: Mapping[str, Overlay]


@contextmanager
def opened(tx: Transaction, what: str, *, dry_run: bool = False) -> Iterator[OverlaySession]:
    """Open the system for a change of overlays, undo interrupted changes, and yield a session.

    what: the change, for messages.

    Raises what `Transaction.changing` and `undo.recover_interrupted` raise.
    """
    with tx.changing(what):
        undo.recover_interrupted(tx, dry_run=dry_run)
        overlay_store.sync_refs(tx.sysroot, tx.records)  # a killed process may have left old refs
        yield OverlaySession(tx, overlay_store.load(tx.sysroot.repo, tx.records.overlays()))


def change(
    session: OverlaySession,
    transitions: Sequence[Transition],
    options: LiveOptions,
    *,
    unlock: str | None = None,
    within_quota: bool = True,
    dry_run: bool = False,
) -> Result:
    """Change overlays, and what the running system shows of them.

    transitions: the changes.
    unlock: how /usr is unlocked afterwards; "none" locks it, None leaves it as it is.
    within_quota: whether to refuse overlays that are larger than Quota=.

    Returns `overlays` and what `engine.carry_out` returns. Raises Refused for a breach of a rule or of the
    quota, and what the engine raises.
    """
    tx = session.tx
    effective = [transition for transition in transitions if transition.before != transition.after]
    details: dict[str, Any] = {"overlays": [transition.id for transition in transitions]}
    if not (effective or unlock):
        tx.message("No change.")
        return Result(changed=False, live=False, details=details)
    if within_quota:
        _refuse_over_quota(session, effective)
    _require_approval(session, effective, unlock)
    goal = replace(_goal_after(session, effective), unlock=unlock)
    if goal.commit == tx.live.commit and not overlay_choice.is_shown(goal, effective) and not unlock:
        if not dry_run:
            _record(session, effective)
        return Result(changed=True, live=False, details=details)
    plan = engine.plan(tx, goal, options, ask=not dry_run)
    outcome = engine.carry_out(tx, plan, options, transitions=effective, dry_run=dry_run)
    if not dry_run:
        _remember(session, effective)
    del outcome["changed"]
    return Result(changed=True, live=outcome.pop("live"), details=details | outcome)


def _require_approval(session: OverlaySession, transitions: Sequence[Transition], unlock: str | None) -> None:
    """Judge whether the plan has the approval that it needs, unless it only changes what nothing shows.

    The plan has the content of all overlays as they will be: one may include the files of another one, or be
    shown later. It has the last operation, so that an approval is for one change.
    """
    tx, overlays = session.tx, session.overlays
    states = overlay_choice.after({o.id: o.state for o in overlays.values()}, transitions)
    enabled = {name for name, state in states.items() if state.enabled}
    includes = any(overlays[name].definition.inherits for name in enabled & overlays.keys())
    shows = any(t.after is None or t.after.enabled or (t.before and t.before.enabled) for t in transitions)
    if tx.reach is None or not (unlock or shows or includes):
        return
    last = tx.records.history(1)
    tx.subject = {
        "unlock": unlock,
        "last": [entry.number for entry in last],
        "overlays": [[name, state.enabled, _content(session, state)] for name, state in states.items()],
    }
    policing.require_approval(tx, None, tx.live.base)


def _content(session: OverlaySession, state: State) -> Sequence[Any]:
    """Return an overlay's content, which has no time as its commit has; of a damaged one, its commit."""
    repo = session.tx.sysroot.repo
    try:
        return [*repo.tree_checksums(state.commit), overlay_repo.definition_text(repo, state.commit)]
    except ExternalFailure:
        return [state.commit]


def _refuse_over_quota(session: OverlaySession, transitions: Sequence[Transition]) -> None:
    """Refuse transitions that make all overlays together larger than Quota= of the settings."""
    quota = session.tx.settings.overlay_quota
    if not quota:
        return
    before = {overlay.id: overlay.state for overlay in session.overlays.values()}
    after = overlay_choice.after(before, transitions)
    size, now = (_size(session, (s.commit for s in states.values())) for states in (after, before))
    if size > max(quota, now):
        raise Refused(
            f"the overlays would have {show_size(size)}, and Quota= of apt-ostree.conf is {show_size(quota)}",
            hint="remove some, see --list and --cleanup, or raise it",
        )


def _size(session: OverlaySession, commits: Iterable[str]) -> int:
    """Return the bytes of commits together; equal files count once, damaged commits do not count."""
    sizes: dict[str, int] = {}
    for commit in commits:
        with suppress(ExternalFailure):
            sizes |= overlay_store.files(session.tx.sysroot.repo, commit)
    return sum(sizes.values())


def _goal_after(session: OverlaySession, transitions: Sequence[Transition]) -> Goal:
    """Return what the system shows after these transitions."""
    states = overlay_choice.after({o.id: o.state for o in session.overlays.values()}, transitions)
    overlays = overlay_store.load(session.tx.sysroot.repo, states.values(), session.overlays)
    return stack.goal_with(session.tx, session.tx.live.base, overlays)


def _record(session: OverlaySession, transitions: Sequence[Transition]) -> None:
    """Record transitions that do not change what the system shows."""
    tx = session.tx
    intent = Intent(tx.title, tx.caller.user, tx.live.commit, tx.live.commit)
    overlay_store.record(tx.sysroot, tx.records, transitions, intent=intent)
    _remember(session, transitions)
    for transition in transitions:
        done = "made" if transition.before is None else "changed" if transition.after else "removed"
        tx.message(f"Overlay {transition.id} was {done}.")


def _remember(session: OverlaySession, transitions: Sequence[Transition]) -> None:
    """Record which overlay was worked on last."""
    present = [transition.id for transition in transitions if transition.after]
    session.tx.records.set_note(Note.LAST_OVERLAY, present[-1] if present else None)
