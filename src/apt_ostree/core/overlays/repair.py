"""Finds damage of overlays and of what they show, and repairs it.

Objects are replaced by what the layers that are checked out say of them (directories, missing files), and by
the default backup's. An overlay that is damaged still is disabled, so that it keeps no other from changing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from apt_ostree.core.overlays import edit, stack
from apt_ostree.core.overlays.keeping import PLACE
from apt_ostree.core.overlays.session import OverlaySession, change, opened
from apt_ostree.core.state import generations
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import overlay_choice
from apt_ostree.model.overlay import Overlay, State, Transition, from_text
from apt_ostree.model.requests import OverlayCheck
from apt_ostree.model.result import Result
from apt_ostree.system import scratch
from apt_ostree.system.ostree import backups, damage
from apt_ostree.system.ostree import overlays as trees
from apt_ostree.system.ostree.repo import Repo


@dataclass(frozen=True, slots=True)
class Survey:
    """The objects that are missing or damaged, as CHECKSUM.KIND.

    overlays: by overlay, those of its commit; layers: by overlay, those of its layer that is shown; shown: of
    the commit that is shown, without these and without the base's.
    """

    overlays: Mapping[str, list[str]] = field(default_factory=dict)
    layers: Mapping[str, list[str]] = field(default_factory=dict)
    shown: tuple[str, ...] = ()

    @property
    def objects(self) -> set[str]:
        """Return all of them."""
        parts = (*self.overlays.values(), *self.layers.values(), self.shown)
        return {name for part in parts for name in part}


def check(tx: Transaction, request: OverlayCheck) -> Result:
    """Read every object of overlays and of what they show; repair what is damaged, else disable."""
    with opened(tx, "check overlays", dry_run=request.dry_run) as session:
        base = _names_of_base(session)
        before = _survey(session, base)
        details: dict[str, Any] = {
            "damaged": dict(before.overlays),
            "view": sorted({*before.shown, *(name for names in before.layers.values() for name in names)}),
        }
        _tell(session, before)
        if request.dry_run or not before.objects:
            return Result(bool(before.objects), details=details)
        replaced = _replaced(session, base)
        replaced |= _renewed(session, _survey(session, base))
        left = _survey(session, base)
        moves = list(_moves(session, left, replaced))
        repaired = len(before.objects - (left.objects - replaced))
        tx.message(f"{repaired} of {len(before.objects)} damaged objects can be repaired.")
        done = change(session, moves, request.live, within_quota=False) if moves else Result(changed=True)
        details["repaired"] = sorted(before.overlays.keys() - left.overlays.keys())
        return replace(done, changed=True, details={**done.details, **details})


def _names_of_base(session: OverlaySession) -> set[str] | None:
    """Return the objects of the base that is shown with overlays; None where it is damaged itself."""
    goal = session.tx.live.goal
    if not goal.overlays:
        return None
    try:
        return damage.names(session.tx.sysroot.repo, goal.base)
    except ExternalFailure as error:
        session.tx.warning(f"the base itself is damaged, see 'ostree fsck': {error.message}")
        return None


def _survey(session: OverlaySession, base: set[str] | None) -> Survey:
    """Read every object of all overlays, and of what is shown but for the base, once."""
    repo, goal = session.tx.sysroot.repo, session.tx.live.goal
    verdicts: dict[str, bool] = {}
    commits = {overlay.id: overlay.state.commit for overlay in session.overlays.values()}
    overlays = {n: found for n, c in commits.items() if (found := damage.broken(repo, c, verdicts))}
    layers = {a.id: found for a in goal.overlays if (found := damage.broken(repo, a.layer, verdicts))}
    if base is None:
        return Survey(overlays, layers)
    shown = damage.broken(repo, goal.commit, verdicts, apart_from=base)
    return Survey(overlays, layers, tuple(sorted(set(shown) - Survey(overlays, layers).objects)))


def _tell(session: OverlaySession, damaged: Survey) -> None:
    """Say what is damaged."""
    if not damaged.objects:
        session.tx.message(f"{len(session.overlays)} overlays are sound.")
    for overlay in sorted(damaged.overlays.keys() | damaged.layers.keys()):
        count = len({*damaged.overlays.get(overlay, ()), *damaged.layers.get(overlay, ())})
        session.tx.warning(f"overlay {overlay}: {count} objects are missing or damaged")
    if damaged.shown:
        session.tx.warning(f"of what is shown, {len(damaged.shown)} objects are missing or damaged")


def _replaced(session: OverlaySession, base: set[str] | None) -> set[str]:
    """Replace damaged objects by sound ones, wherever there are any; return which."""
    replaced: set[str] = set()
    with _from_layers(session) as layers, _from_backup() as backup:
        for source in filter(None, (layers, backup)):
            # What lies below a damaged directory is found when that is repaired.
            while found := damage.replace(session.tx.sysroot.repo, source, _survey(session, base).objects):
                replaced |= found
    return replaced


@contextmanager
def _from_layers(session: OverlaySession) -> Iterator[Repo]:
    """Give a repository of what the layers that are checked out say of themselves."""
    sysroot, goal = session.tx.sysroot, session.tx.live.goal
    with scratch.directory(sysroot.state_dir / "work", "repair-") as directory:
        copy = Repo.create(directory)
        stack.renew_layers(copy, sysroot.repo, goal, generations.layers_dir(sysroot))
        yield copy


@contextmanager
def _from_backup() -> Iterator[Repo | None]:
    if not backups.is_backup(PLACE):
        yield None
        return
    with backups.opened(PLACE) as source:
        yield source


def _renewed(session: OverlaySession, left: Survey) -> set[str]:
    """Write again what is made of other objects, all of which are sound; return files that are to come."""
    repo = session.tx.sysroot.repo
    rendered: set[str] = set()
    if not left.overlays:  # then damaged files of layers are what templates gave, and give again
        rendered = {n for found in left.layers.values() for n in found if n.endswith(".file")}
        damage.discard(repo, rendered)
    if left.shown:
        damage.discard(repo, left.shown)
        stack.renew_commit(repo, session.tx.live.goal)
    return rendered


def _moves(session: OverlaySession, left: Survey, replaced: set[str]) -> Iterator[Transition]:
    """Yield what disables overlays that are damaged still, and what shows others with their new files."""
    repo = session.tx.sysroot.repo
    layers = {applied.id: applied.layer for applied in session.tx.live.goal.overlays}
    for overlay in session.overlays.values():
        lost = [*left.overlays.get(overlay.id, ()), *left.layers.get(overlay.id, ())]
        if lost and not replaced.issuperset(lost):
            if overlay.state.enabled:
                session.tx.warning(f"Overlay {overlay.id} is to be disabled: it is damaged still.")
                yield overlay_choice.transition(overlay, replace(overlay.state, enabled=False))
        elif replaced and overlay.id in layers and replaced & damage.names(repo, layers[overlay.id]):
            yield overlay_choice.transition(overlay, _with_new_commit(repo, overlay))


def _with_new_commit(repo: Repo, overlay: Overlay) -> State:
    """Return the overlay with a new commit, and so a new layer: the one that is checked out is damaged."""
    commit = overlay.state.commit
    definition = from_text(trees.definition_text(repo, commit))  # which may not have been readable before
    made = edit.write(repo, edit.read(repo, definition, commit), parent=commit, subject="repaired")
    return replace(overlay.state, commit=made)
