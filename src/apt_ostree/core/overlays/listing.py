"""Tells what overlays there are, what they hold, and which of them each shown path comes from. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apt_ostree.core import host
from apt_ostree.core.live import engine
from apt_ostree.core.live.planning import Situation, look
from apt_ostree.core.state import overlay_store
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import overlay_choice
from apt_ostree.model.overlay import Overlay, in_order, shown
from apt_ostree.model.overlay_content import Nodes
from apt_ostree.model.upper import changed_paths
from apt_ostree.system import statedb, uppers, usrview
from apt_ostree.system.ostree import overlays as trees
from apt_ostree.system.ostree.repo import Repo


def overlays() -> list[dict[str, Any]]:
    """Return all overlays, the topmost first, each as a JSON object."""
    with _opened() as (repo, known, situation, last):
        if situation is None:
            return []
        showing = {(applied.id, applied.commit) for applied in situation.goal.overlays}
        return [
            _summary(repo, overlay)
            | {
                "shown": (overlay.id, overlay.state.commit) in showing,
                "last": overlay.id == last,
            }
            for definition in in_order(o.definition for o in known.values())
            for overlay in [known[definition.id]]
        ]


def contents(name: str | None) -> dict[str, Any]:
    """Return one overlay with its paths: added, modified or removed."""
    with _opened() as (repo, known, situation, last):
        overlay = overlay_choice.choose(known, name, last)
        assert situation  # there is an overlay, so there is a record
        commit = overlay.state.commit
        own, templates = trees.read(repo, commit), trees.read(repo, commit, "templates")
        below = trees.of_base(repo, situation.base, (*own, *templates))
        conditions = overlay.definition.conditions
        rows = [
            {
                "path": shown(path),
                "kind": _kind(node.kind, path in below),
                "template": path in templates,
                "when": conditions.get(path, ""),
            }
            for path, node in sorted({**own, **templates}.items())
            if node.kind != "directory" or path not in below
        ]
        return _summary(repo, overlay) | {"paths": rows}


def sources() -> list[dict[str, Any]]:
    """Return each path that an overlay, or an unlocked /usr, shows: what it does, and what it hides."""
    with _opened() as (repo, _known, situation, _last):
        applied = situation.goal.overlays if situation else ()
        nodes = {a.id: trees.read(repo, a.layer, "/") for a in applied}
        below = trees.of_base(repo, situation.base, _files(nodes)) if situation else {}
        written = engine.frozen_uppers(situation) if situation and usrview.unlocked() != "none" else ()
        oldest_first = map(Path, reversed(written))
        rows = [
            {"path": shown(path), "overlay": "unlocked /usr", "kind": kind, "hides": []}
            for path, kind in sorted(changed_paths(map(uppers.walk, oldest_first)).items())
        ]
        for path in sorted(_files(nodes)):
            having = [name for name, found in nodes.items() if path in found]
            hidden = [*having[1:], *(["the base"] if path in below else [])]
            kind = _kind(nodes[having[0]][path].kind, path in below or len(having) > 1)
            rows.append({"path": shown(path), "overlay": having[0], "kind": kind, "hides": hidden})
        return rows


def history(name: str | None) -> list[dict[str, Any]]:
    """Return an overlay's commits, the newest first, and what an undo took away from it."""
    with _opened() as (repo, known, _situation, last):
        overlay = overlay_choice.choose(known, name, last)
        rows = [_commit(repo, checksum, "") for checksum in repo.ancestry(overlay.state.commit)]
        undone = repo.resolve_or_none(f"{overlay_store.UNDONE}/{overlay.id}")
        return [*rows, *([_commit(repo, undone, "undone")] if undone else [])]


def names() -> list[str]:
    """Return the names of all overlays, to complete a command line."""
    with host.reading() as sysroot:
        return sorted(ref.rpartition("/")[2] for ref in sysroot.repo.refs(overlay_store.REFS))


def _commit(repo: Repo, checksum: str, note: str) -> dict[str, Any]:
    subject = repo.subject(checksum)
    return {"commit": checksum, "timestamp": repo.timestamp(checksum), "subject": subject, "note": note}


@contextmanager
def _opened() -> Iterator[tuple[Repo, Mapping[str, Overlay], Situation | None, str | None]]:
    host.require_root("read the overlays")
    with host.reading() as sysroot, statedb.read_only() as db:
        if db is None:
            yield sysroot.repo, {}, None, None
            return
        known = overlay_store.load(sysroot.repo, db.overlays())
        yield sysroot.repo, known, look(sysroot, db), db.note(overlay_store.LAST)


def _summary(repo: Repo, overlay: Overlay) -> dict[str, Any]:
    definition = asdict(overlay.definition)
    del definition["against"]
    files, size = _extent(repo, overlay.state.commit)
    return definition | {
        "id": overlay.id,
        "commit": overlay.state.commit,
        "enabled": overlay.state.enabled,
        "files": files,
        "bytes": size,
    }


def _extent(repo: Repo, commit: str) -> tuple[int | None, int | None]:
    """Return how many files an overlay has and how much they hold; None for what damage hides."""
    count = None
    try:
        nodes = [*trees.read(repo, commit).values(), *trees.read(repo, commit, "templates").values()]
        files = [node for node in nodes if node.kind != "directory"]
        count = len(files)
        return count, sum(overlay_store.files(repo, commit).values())
    except ExternalFailure:
        return count, None


def _kind(kind: str, hides: bool) -> str:
    if kind == "whiteout":
        return "removed"
    return "modified" if hides else "added"


def _files(nodes: Mapping[str, Nodes]) -> set[str]:
    return {path for found in nodes.values() for path, node in found.items() if node.kind != "directory"}
