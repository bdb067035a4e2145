"""Detects damaged objects of overlays and of what is shown, and repairs them.

Objects are replaced from the layers that are checked out (directories, missing files) and from the default
backup. An overlay that is still damaged is disabled, so that other overlays can be changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from apt_ostree.core.overlays import edit, stack
from apt_ostree.core.overlays.keeping import BACKUP_DIRECTORY
from apt_ostree.core.overlays.session import OverlaySession, change, opened
from apt_ostree.core.state import generations
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import overlay_choice
from apt_ostree.model.audit import Kind
from apt_ostree.model.overlay import Overlay, State, Transition, from_text
from apt_ostree.model.requests.overlays import OverlayCheck
from apt_ostree.model.result import Result
from apt_ostree.system import scratch
from apt_ostree.system.ostree import backups, damage, overlay_repo
from apt_ostree.system.ostree.repo import Repo


@dataclass(frozen=True, slots=True)
class Survey:
    """The objects that are missing or damaged, as CHECKSUM.KIND.

    overlays: those of the commit of each overlay, by its id.
    layers: those of the shown layer of each overlay, by its id.
    shown: those of the shown commit, without the others and without those of the base.
    """

    overlays: Mapping[str, list[str]] = field(default_factory=dict)
    layers: Mapping[str, list[str]] = field(default_factory=dict)
    shown: tuple[str, ...] = ()

    @property
    def objects(self) -> set[str]:
        """Return all damaged objects."""
        parts = (*self.overlays.values(), *self.layers.values(), self.shown)
        return {name for part in parts for name in part}


def check(tx: Transaction, request: OverlayCheck) -> Result:
    """Read every object of overlays and of what is shown; repair damage, or disable the overlay.

    Returns `damaged`, `view`, `repaired` and what a live change returns. Raises what `session.change` raises.
    """
    with opened(tx, "check overlays", dry_run=request.dry_run) as session:
        base = _names_of_base(session)
        before = _survey(session, base)
        details: dict[str, Any] = {
            "damaged": dict(before.overlays),
            "view": sorted({*before.shown, *(name for names in before.layers.values() for name in names)}),
        }
        _report(session, before)
        if request.dry_run or not before.objects:
            return Result(bool(before.objects), details=details)
        replaced = _replace(session, base)
        replaced |= _write_again(session, _survey(session, base))
        after = _survey(session, base)
        transitions = list(_transitions(session, after, replaced))
        repaired = len(before.objects - (after.objects - replaced))
        tx.message(f"{repaired} of {len(before.objects)} damaged objects can be repaired.")
        result = Result(changed=True)
        if transitions:
            result = change(session, transitions, request.live, within_quota=False)
        details["repaired"] = sorted(before.overlays.keys() - after.overlays.keys())
        return replace(result, changed=True, details={**result.details, **details})


def _names_of_base(session: OverlaySession) -> set[str] | None:
    """Return the objects of the base below the shown overlays; None if there are none or it is damaged."""
    goal = session.tx.live.goal
    if not goal.overlays:
        return None
    try:
        return damage.names(session.tx.sysroot.repo, goal.base)
    except ExternalFailure as error:
        session.tx.warning(f"the base itself is damaged, see 'ostree fsck': {error.message}")
        return None


def _survey(session: OverlaySession, base: set[str] | None) -> Survey:
    """Read every object of all overlays and of what is shown, except those of the base, once."""
    repo, goal = session.tx.sysroot.repo, session.tx.live.goal
    verdicts: dict[str, bool] = {}
    commits = {overlay.id: overlay.state.commit for overlay in session.overlays.values()}
    overlays = {n: broken for n, c in commits.items() if (broken := damage.broken(repo, c, verdicts))}
    layers = {a.id: broken for a in goal.overlays if (broken := damage.broken(repo, a.layer, verdicts))}
    if base is None:
        return Survey(overlays, layers)
    shown = damage.broken(repo, goal.commit, verdicts, apart_from=base)
    return Survey(overlays, layers, tuple(sorted(set(shown) - Survey(overlays, layers).objects)))


def _report(session: OverlaySession, damaged: Survey) -> None:
    """Report what is damaged."""
    if not damaged.objects:
        session.tx.message(f"{len(session.overlays)} overlays are undamaged.")
    for overlay in sorted(damaged.overlays.keys() | damaged.layers.keys()):
        count = len({*damaged.overlays.get(overlay, ()), *damaged.layers.get(overlay, ())})
        _warn(session, f"overlay {overlay}: {count} objects are missing or damaged")
    if damaged.shown:
        _warn(session, f"of what is shown, {len(damaged.shown)} objects are missing or damaged")


def _warn(session: OverlaySession, text: str) -> None:
    session.tx.warning(text)
    session.tx.record(Kind.SECURITY, text)


def _replace(session: OverlaySession, base: set[str] | None) -> set[str]:
    """Replace damaged objects from the layers and the backup; return those that were replaced."""
    replaced: set[str] = set()
    with _from_layers(session) as layers, _from_backup() as backup:
        for source in filter(None, (layers, backup)):
            # Damage below a damaged directory is detected after that directory is repaired.
            while names := damage.replace(session.tx.sysroot.repo, source, _survey(session, base).objects):
                replaced |= names
    return replaced


@contextmanager
def _from_layers(session: OverlaySession) -> Iterator[Repo]:
    """Yield a scratch repository with the objects of the layers that are checked out."""
    sysroot, goal = session.tx.sysroot, session.tx.live.goal
    with scratch.directory(sysroot.state_dir / "work", "repair-") as directory:
        copy = Repo.create(directory)
        stack.renew_layers(copy, sysroot.repo, goal, generations.layers_dir(sysroot))
        yield copy


@contextmanager
def _from_backup() -> Iterator[Repo | None]:
    if not backups.is_backup(BACKUP_DIRECTORY):
        yield None
        return
    with backups.opened(BACKUP_DIRECTORY) as source:
        yield source


def _write_again(session: OverlaySession, damaged: Survey) -> set[str]:
    """Write objects again that are made from others; return rendered files, which the next layer contains."""
    repo = session.tx.sysroot.repo
    rendered: set[str] = set()
    if not damaged.overlays:  # then damaged files of layers were rendered from templates
        rendered = {n for names in damaged.layers.values() for n in names if n.endswith(".file")}
        damage.discard(repo, rendered)
    if damaged.shown:
        damage.discard(repo, damaged.shown)
        stack.renew_commit(repo, session.tx.live.goal)
    return rendered


def _transitions(session: OverlaySession, damaged: Survey, replaced: set[str]) -> Iterator[Transition]:
    """Yield transitions that disable damaged overlays, and that show repaired ones with a new commit."""
    repo = session.tx.sysroot.repo
    layers = {applied.id: applied.layer for applied in session.tx.live.goal.overlays}
    for overlay in session.overlays.values():
        broken = [*damaged.overlays.get(overlay.id, ()), *damaged.layers.get(overlay.id, ())]
        if broken and not replaced.issuperset(broken):
            if overlay.state.enabled:
                session.tx.warning(f"Overlay {overlay.id} is to be disabled: it is still damaged.")
                yield overlay_choice.transition(overlay, replace(overlay.state, enabled=False))
        elif replaced and overlay.id in layers and replaced & damage.names(repo, layers[overlay.id]):
            yield overlay_choice.transition(overlay, _with_new_commit(repo, overlay))


def _with_new_commit(repo: Repo, overlay: Overlay) -> State:
    """Return the overlay's state with a new commit, and so a new layer: the checkout is damaged."""
    commit = overlay.state.commit
    # The definition is read again: it may have been unreadable before the repair.
    definition = from_text(overlay_repo.definition_text(repo, commit))
    new_commit = edit.write(repo, edit.read(repo, definition, commit), parent=commit, subject="repaired")
    return replace(overlay.state, commit=new_commit)
