"""Finds damage of overlays and of what they show, and repairs it.

Objects are replaced by what the layers that are checked out say of them (directories, missing files), and by
the default backup's. An overlay that is damaged still is disabled, so that it keeps no other from changing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from apt_ostree.core.live import engine, undo
from apt_ostree.core.overlays import edit, stack
from apt_ostree.core.overlays.keeping import PLACE
from apt_ostree.core.overlays.verbs import Bench, change, prepared
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import overlay_choice
from apt_ostree.model.events import Message, Report
from apt_ostree.model.overlay import Overlay, State, Transition, from_text
from apt_ostree.system import buildroot
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


def check(report: Report, *, dry_run: bool = False, **options: Any) -> Mapping[str, Any]:
    """Read every object of overlays and of what they show; repair what is damaged, else disable."""
    wishes = engine.Wishes(**{"verb": "usroverlay --check", **options})
    with prepared("check overlays", report, dry_run=dry_run) as bench:
        base = _names_of_base(bench)
        before = _survey(bench, base)
        answer: dict[str, Any] = {
            "changed": bool(before.objects),
            "damaged": dict(before.overlays),
            "view": sorted({*before.shown, *(n for found in before.layers.values() for n in found)}),
        }
        _tell(report, bench, before)
        if dry_run or not before.objects:
            return answer
        replaced = _replaced(bench, base)
        replaced |= _renewed(bench, _survey(bench, base))
        left = _survey(bench, base)
        moves = list(_moves(bench, left, replaced))
        repaired = len(before.objects - (left.objects - replaced))
        report(Message(f"{repaired} of {len(before.objects)} damaged objects can be repaired."))
        result = change(bench, moves, wishes, within_quota=False) if moves else {}
        return {**result, **answer, "repaired": sorted(before.overlays.keys() - left.overlays.keys())}


def _names_of_base(bench: Bench) -> set[str] | None:
    """Return the objects of the base that is shown with overlays; None where it is damaged itself."""
    goal = bench.situation.goal
    if not goal.overlays:
        return None
    try:
        return damage.names(bench.sysroot.repo, goal.base)
    except ExternalFailure as error:
        bench.report(Message(f"the base itself is damaged, see 'ostree fsck': {error.message}", "warning"))
        return None


def _survey(bench: Bench, base: set[str] | None) -> Survey:
    """Read every object of all overlays, and of what is shown but for the base, once."""
    repo, goal = bench.sysroot.repo, bench.situation.goal
    verdicts: dict[str, bool] = {}
    commits = {overlay.id: overlay.state.commit for overlay in bench.known.values()}
    overlays = {n: found for n, c in commits.items() if (found := damage.broken(repo, c, verdicts))}
    layers = {a.id: found for a in goal.overlays if (found := damage.broken(repo, a.layer, verdicts))}
    if base is None:
        return Survey(overlays, layers)
    shown = damage.broken(repo, goal.commit, verdicts, apart_from=base)
    return Survey(overlays, layers, tuple(sorted(set(shown) - Survey(overlays, layers).objects)))


def _tell(report: Report, bench: Bench, found: Survey) -> None:
    """Say what is damaged."""
    if not found.objects:
        report(Message(f"{len(bench.known)} overlays are sound."))
    for overlay in sorted(found.overlays.keys() | found.layers.keys()):
        count = len({*found.overlays.get(overlay, ()), *found.layers.get(overlay, ())})
        report(Message(f"overlay {overlay}: {count} objects are missing or damaged", "warning"))
    if found.shown:
        report(Message(f"of what is shown, {len(found.shown)} objects are missing or damaged", "warning"))


def _replaced(bench: Bench, base: set[str] | None) -> set[str]:
    """Replace damaged objects by sound ones, wherever there are any; return which."""
    replaced: set[str] = set()
    with _from_layers(bench) as layers, _from_backup() as backup:
        for source in filter(None, (layers, backup)):
            # What lies below a damaged directory is found when that is repaired.
            while found := damage.replace(bench.sysroot.repo, source, _survey(bench, base).objects):
                replaced |= found
    return replaced


@contextmanager
def _from_layers(bench: Bench) -> Iterator[Repo]:
    """Give a repository of what the layers that are checked out say of themselves."""
    sysroot, goal = bench.sysroot, bench.situation.goal
    with buildroot.scratch_directory(sysroot.state_dir / "work") as directory:
        scratch = Repo.create(directory)
        stack.renew_layers(scratch, sysroot.repo, goal, undo.layers_dir(sysroot))
        yield scratch


@contextmanager
def _from_backup() -> Iterator[Repo | None]:
    if not backups.is_backup(PLACE):
        yield None
        return
    with backups.opened(PLACE) as source:
        yield source


def _renewed(bench: Bench, left: Survey) -> set[str]:
    """Write again what is made of other objects, all of which are sound; return files that are to come."""
    repo = bench.sysroot.repo
    rendered: set[str] = set()
    if not left.overlays:  # then damaged files of layers are what templates gave, and give again
        rendered = {n for found in left.layers.values() for n in found if n.endswith(".file")}
        damage.discard(repo, rendered)
    if left.shown:
        damage.discard(repo, left.shown)
        stack.renew_commit(repo, bench.situation.goal)
    return rendered


def _moves(bench: Bench, left: Survey, replaced: set[str]) -> Iterator[Transition]:
    """Yield what disables overlays that are damaged still, and what shows others with their new files."""
    repo = bench.sysroot.repo
    layers = {applied.id: applied.layer for applied in bench.situation.goal.overlays}
    for overlay in bench.known.values():
        lost = [*left.overlays.get(overlay.id, ()), *left.layers.get(overlay.id, ())]
        if lost and not replaced.issuperset(lost):
            if overlay.state.enabled:
                bench.report(
                    Message(f"Overlay {overlay.id} is to be disabled: it is damaged still.", "warning")
                )
                yield overlay_choice.transition(overlay, replace(overlay.state, enabled=False))
        elif replaced and overlay.id in layers and replaced & damage.names(repo, layers[overlay.id]):
            yield overlay_choice.transition(overlay, _with_new_commit(repo, overlay))


def _with_new_commit(repo: Repo, overlay: Overlay) -> State:
    """Return the overlay with a new commit, and so a new layer: the one that is checked out is damaged."""
    commit = overlay.state.commit
    definition = from_text(trees.definition_text(repo, commit))  # which may not have been readable before
    made = edit.write(repo, edit.read(repo, definition, commit), parent=commit, subject="repaired")
    return replace(overlay.state, commit=made)
