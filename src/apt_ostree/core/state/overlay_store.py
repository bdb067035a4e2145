"""The overlays of this machine: which there are, what they are, and their refs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from apt_ostree.errors import AptOstreeError
from apt_ostree.model.history import Intent, Outcome
from apt_ostree.model.overlay import Definition, Overlay, Scope, State, Transition, from_text
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import overlays as trees
from apt_ostree.system.ostree.repo import Repo
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb

REFS = "apt-ostree/overlay"
#: Commits that an undo took away from their overlays: `--restore` can bring them back.
UNDONE = "apt-ostree/undone"
#: Earlier commits of overlays: `/1` is the one before.
PAST = "apt-ostree/past"
_KEPT = 20
#: The note that names the overlay last worked on.
LAST = "overlay"


def load(repo: Repo, states: Iterable[State]) -> dict[str, Overlay]:
    """Return the overlays by their ids."""
    return {state.id: _loaded(repo, state) for state in states}


def _loaded(repo: Repo, state: State) -> Overlay:
    try:
        return Overlay(from_text(trees.definition_text(repo, state.commit)), state)
    except AptOstreeError:
        # Its commit is damaged. It can still be listed, disabled, removed, and repaired.
        scope, _, name = state.id.partition("/")
        return Overlay(Definition(name, Scope(scope)), state)


def record(
    sysroot: Sysroot, db: StateDb, moves: Sequence[Transition], *, intent: Intent, message: str = ""
) -> None:
    """Change the record of overlays, nothing of which shows."""
    number = db.log(intent)
    db.move(moves)
    failpoint("overlay.recorded")
    sync_refs(sysroot, db)
    told = ", ".join(move.id for move in moves)
    db.end(number, Outcome.DONE, f"{told}: {message}" if message else told)


def files(repo: Repo, commit: str) -> dict[str, int]:
    """Return the files that an overlay's commit has, templates included: object -> bytes."""
    nodes = (node for part in ("usr", "templates") for node in trees.read(repo, commit, part).values())
    return {checksum: repo.size(checksum) for checksum in {n.checksum for n in nodes if n.kind == "file"}}


def sync_refs(sysroot: Sysroot, db: StateDb) -> None:
    """Make the overlays' refs what the record says; commits that nobody has any more are kept aside.

    Earlier commits have refs of their own: whoever cleans a system root up keeps only what refs name.
    """
    repo, states = sysroot.repo, db.overlays()
    wanted = {f"{REFS}/{state.id}": state.commit for state in states}
    past: dict[str, str] = {}
    for state in states:
        place = f"{PAST}/{state.id}"
        commits = repo.ancestry(state.commit)
        rows = {f"{place}/{number}": c for number, c in enumerate(commits[1 : _KEPT + 1], start=1)}
        past |= rows if commits else repo.refs(place)  # what came before a damaged one is kept
    repo.sync_refs(PAST, past)
    for ref, commit in repo.refs(REFS).items():
        name = ref.removeprefix(f"{REFS}/")
        taken_away = wanted.get(ref) != commit and not _is_ancestor(repo, commit, wanted.get(ref))
        if taken_away and repo.has_commit(commit):  # nobody can use a damaged one
            repo.set_ref(f"{UNDONE}/{name}", commit)
    repo.sync_refs(REFS, wanted)


def is_known(repo: Repo, commit: str) -> bool:
    """Tell whether a commit is, or was, one of an overlay of this machine."""
    newest = {*repo.refs(REFS).values(), *repo.refs(UNDONE).values()}
    past = repo.refs(PAST).values()
    return commit in past or any(_is_ancestor(repo, commit, of) for of in newest)


def _is_ancestor(repo: Repo, commit: str, of: str | None) -> bool:
    return of is not None and commit in repo.ancestry(of)
