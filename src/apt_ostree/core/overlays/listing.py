"""Lists overlays, their content and history, and the overlay of each path that is shown. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apt_ostree.core.state import overlay_store, reading
from apt_ostree.core.state.live import LiveState, frozen_uppers, read_live_state
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import overlay_choice
from apt_ostree.model.notes import Note
from apt_ostree.model.overlay import Overlay, in_order, shown
from apt_ostree.model.overlay_content import Nodes
from apt_ostree.model.queries import (
    OverlayContents,
    OverlayHistory,
    OverlayNames,
    OverlayPaths,
    Overlays,
)
from apt_ostree.model.upper import changed_paths
from apt_ostree.system import statedb, uppers, usrview
from apt_ostree.system.caller import require_root
from apt_ostree.system.ostree import overlay_repo
from apt_ostree.system.ostree.repo import Repo


def overlays(_query: Overlays) -> list[dict[str, Any]]:
    """Return all overlays, the topmost first, each as a JSON object; raise NotAuthorized without root."""
    with _opened() as (repo, present, live, last):
        if live is None:
            return []
        showing = {(applied.id, applied.commit) for applied in live.goal.overlays}
        return [
            _summary(repo, overlay)
            | {
                "shown": (overlay.id, overlay.state.commit) in showing,
                "last": overlay.id == last,
            }
            for definition in in_order(o.definition for o in present.values())
            for overlay in [present[definition.id]]
        ]


def overlay_contents(query: OverlayContents) -> dict[str, Any]:
    """Return one overlay with its paths: added, modified or removed.

    Raises UsageError for an unknown overlay, and NotAuthorized without root's rights.
    """
    with _opened() as (repo, present, live, last):
        overlay = overlay_choice.choose(present, query.name, last)
        assert live  # an overlay exists, so the state database exists
        commit = overlay.state.commit
        own, templates = overlay_repo.read(repo, commit), overlay_repo.read(repo, commit, "templates")
        below = overlay_repo.of_base(repo, live.base, (*own, *templates))
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


def overlay_paths(_query: OverlayPaths) -> list[dict[str, Any]]:
    """Return each path of an overlay or of the unlocked /usr, with its kind and what it hides.

    Raises NotAuthorized without root's rights.
    """
    with _opened() as (repo, _present, live, _last):
        applied = live.goal.overlays if live else ()
        nodes = {a.id: overlay_repo.read(repo, a.layer, "/") for a in applied}
        below = overlay_repo.of_base(repo, live.base, _files(nodes)) if live else {}
        upper_directories = frozen_uppers(live) if live and usrview.unlocked() != "none" else ()
        oldest_first = map(Path, reversed(upper_directories))
        rows = [
            {"path": shown(path), "overlay": "unlocked /usr", "kind": kind, "hides": []}
            for path, kind in sorted(changed_paths(map(uppers.walk, oldest_first)).items())
        ]
        for path in sorted(_files(nodes)):
            containing = [name for name, paths in nodes.items() if path in paths]
            hidden = [*containing[1:], *(["the base"] if path in below else [])]
            kind = _kind(nodes[containing[0]][path].kind, path in below or len(containing) > 1)
            rows.append({"path": shown(path), "overlay": containing[0], "kind": kind, "hides": hidden})
        return rows


def overlay_history(query: OverlayHistory) -> list[dict[str, Any]]:
    """Return the commits of an overlay, the newest first, then the one that an undo removed from it.

    Raises UsageError for an unknown overlay, and NotAuthorized without root's rights.
    """
    with _opened() as (repo, present, _live, last):
        overlay = overlay_choice.choose(present, query.name, last)
        rows = [_commit(repo, checksum, "") for checksum in repo.ancestry(overlay.state.commit)]
        undone = repo.resolve_or_none(f"{overlay_store.UNDONE}/{overlay.id}")
        return [*rows, *([_commit(repo, undone, "undone")] if undone else [])]


def overlay_names(_query: OverlayNames) -> list[str]:
    """Return the names of all overlays, for shell completion."""
    with reading.opened() as sysroot:
        return sorted(ref.rpartition("/")[2] for ref in sysroot.repo.refs(overlay_store.REFS))


def _commit(repo: Repo, checksum: str, note: str) -> dict[str, Any]:
    subject = repo.subject(checksum)
    return {"commit": checksum, "timestamp": repo.timestamp(checksum), "subject": subject, "note": note}


@contextmanager
def _opened() -> Iterator[tuple[Repo, Mapping[str, Overlay], LiveState | None, str | None]]:
    require_root("read the overlays")
    with reading.opened() as sysroot, statedb.read_only() as records:
        if records is None:
            yield sysroot.repo, {}, None, None
            return
        present = overlay_store.load(sysroot.repo, records.overlays())
        live = read_live_state(sysroot.deployments(), records)
        yield sysroot.repo, present, live, records.note(Note.LAST_OVERLAY)


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
    """Return the number of files of an overlay and their bytes; None for what cannot be read."""
    try:
        return overlay_repo.extent(repo, commit)
    except ExternalFailure:
        return None, None


def _kind(kind: str, hides: bool) -> str:
    if kind == "whiteout":
        return "removed"
    return "modified" if hides else "added"


def _files(nodes: Mapping[str, Nodes]) -> set[str]:
    return {path for paths in nodes.values() for path, node in paths.items() if node.kind != "directory"}
