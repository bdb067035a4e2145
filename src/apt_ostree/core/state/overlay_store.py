"""The overlays of this machine: their records, definitions and refs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from apt_ostree.errors import AptOstreeError
from apt_ostree.model.history import Intent, Outcome
from apt_ostree.model.overlay import Definition, Overlay, Scope, State, Transition, from_text
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import overlay_repo
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb

REFS = "apt-ostree/overlay"
#: Commits that an undo removed from their overlays; `--restore` can restore them.
UNDONE = "apt-ostree/undone"
#: Earlier commits of overlays; `/1` is the previous one.
PAST = "apt-ostree/past"
_KEPT = 20


def load(
    repo: Repo, states: Iterable[State], before: Mapping[str, Overlay] = MappingProxyType({})
) -> dict[str, Overlay]:
    """Return the overlays by id. One whose commit is damaged gets a default definition.

    before: overlays that were loaded before; those with the same commit are not read again.
    """
    return {
        state.id: replace(before[state.id], state=state)
        if _is_same(before.get(state.id), state)
        else _loaded(repo, state)
        for state in states
    }


def _is_same(overlay: Overlay | None, state: State) -> bool:
    return overlay is not None and overlay.state.commit == state.commit


def _loaded(repo: Repo, state: State) -> Overlay:
    try:
        return Overlay(from_text(overlay_repo.definition_text(repo, state.commit)), state)
    except AptOstreeError:
        # The commit is damaged. The overlay can still be listed, disabled, removed and repaired.
        scope, _, name = state.id.partition("/")
        return Overlay(Definition(name, Scope(scope)), state)


def record(
    sysroot: Sysroot, db: StateDb, transitions: Sequence[Transition], *, intent: Intent, message: str = ""
) -> None:
    """Record transitions of overlays that do not change what the system shows, as one operation."""
    number = db.log(intent)
    db.move(transitions)
    failpoint("overlay.recorded")
    sync_refs(sysroot, db)
    ids = ", ".join(transition.id for transition in transitions)
    db.end(number, Outcome.DONE, f"{ids}: {message}" if message else ids)


def files(repo: Repo, commit: str) -> dict[str, int]:
    """Return the size in bytes of each file object of an overlay's commit, templates included.

    Raises ExternalFailure if the commit is damaged.
    """
    nodes = (node for part in ("usr", "templates") for node in overlay_repo.read(repo, commit, part).values())
    return {checksum: repo.size(checksum) for checksum in {n.checksum for n in nodes if n.kind == "file"}}


def sync_refs(sysroot: Sysroot, db: StateDb) -> None:
    """Update the refs of overlays from their records; commits that an undo removed get a ref below UNDONE.

    Earlier commits have refs of their own, because pruning keeps only what refs name.
    """
    repo, states = sysroot.repo, db.overlays()
    current = {f"{REFS}/{state.id}": state.commit for state in states}
    past: dict[str, str] = {}
    for state in states:
        prefix = f"{PAST}/{state.id}"
        commits = repo.ancestry(state.commit)
        rows = {f"{prefix}/{number}": c for number, c in enumerate(commits[1 : _KEPT + 1], start=1)}
        past |= rows if commits else repo.refs(prefix)  # the refs of a damaged overlay are kept
    repo.sync_refs(PAST, past)
    for ref, commit in repo.refs(REFS).items():
        name = ref.removeprefix(f"{REFS}/")
        is_removed = current.get(ref) != commit and not _is_ancestor(repo, commit, current.get(ref))
        if is_removed and repo.has_commit(commit):  # a damaged commit is of no use
            repo.set_ref(f"{UNDONE}/{name}", commit)
    repo.sync_refs(REFS, current)


def is_overlay_commit(repo: Repo, commit: str) -> bool:
    """Return whether a commit is, or was, that of an overlay of this machine."""
    newest = {*repo.refs(REFS).values(), *repo.refs(UNDONE).values()}
    past = repo.refs(PAST).values()
    return commit in past or any(_is_ancestor(repo, commit, of) for of in newest)


def _is_ancestor(repo: Repo, commit: str, of: str | None) -> bool:
    return of is not None and commit in repo.ancestry(of)
