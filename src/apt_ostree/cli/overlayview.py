"""Turns what a query says of overlays into lines of text. Pure; `render` prints them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apt_ostree.cli import render
from apt_ostree.model.sizes import show_size


def overlay_lines(overlays: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a table of all overlays."""
    if not overlays:
        yield "There are no overlays."
        return
    yield from render.table(
        ("NAME", "PRIORITY", "STATE", "PERSISTENCE", "FILES", "SIZE"),
        [
            (
                row["id"] + (" *" if row["last"] else ""),
                str(row["priority"]),
                _state(row),
                row["persistence"],
                "?" if row["files"] is None else str(row["files"]),
                "?" if row["bytes"] is None else show_size(row["bytes"]),
            )
            for row in overlays
        ],
    )


def _state(row: Mapping[str, Any]) -> str:
    if row["bytes"] is None:
        return "damaged"
    if not row["enabled"]:
        return "disabled"
    return "shown" if row["shown"] else "empty" if not row["files"] else "not shown"


def content_lines(overlay: Mapping[str, Any]) -> Iterator[str]:
    """Yield one overlay with its paths."""
    yield f"{overlay['id']} (priority {overlay['priority']}, {overlay['persistence']})"
    for row in overlay["paths"]:
        notes = [note for note in ("template" if row["template"] else "", row["when"]) if note]
        yield f"  {row['kind']:9}{row['path']}" + (f" ({', '.join(notes)})" if notes else "")


def source_lines(paths: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield each path that overlays show, with what it hides."""
    if not paths:
        yield "No overlay shows anything."
    for row in paths:
        hides = f", hides {', '.join(row['hides'])}" if row["hides"] else ""
        yield f"{row['kind']:9}{row['path']} ({row['overlay']}{hides})"


def history_lines(commits: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the commits of an overlay."""
    for row in commits:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["timestamp"]))
        yield f"{row['commit'][:12]}  {when}  {row['subject']}" + (f" ({row['note']})" if row["note"] else "")
