"""Overlays that ship with the image: directories in /usr/lib/apt-ostree/overlays, taken in when enabled.

NAME/usr and NAME/etc hold the files, NAME/overlay.conf may set Priority, OnConflict and When in a section
[Overlay]. They are read from the booted tree, so that no overlay can replace another one.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from apt_ostree.core.overlays import edit
from apt_ostree.errors import UsageError
from apt_ostree.model import overlay_choice
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.overlay import (
    Definition,
    EditAction,
    OnConflict,
    Overlay,
    Scope,
    State,
    Transition,
    checked_name,
)
from apt_ostree.model.overlay_edit import Content, EditBase
from apt_ostree.model.requests import PathEdit
from apt_ostree.system import openfiles
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import boot_id

_PLACE = "usr/lib/apt-ostree/overlays"
_SETTINGS = ("priority", "onconflict", "when")


def names(sysroot: Sysroot, booted: Deployment) -> list[str]:
    """Return the names of the image's overlays."""
    place = sysroot.directory(booted) / _PLACE
    return sorted(path.name for path in place.iterdir() if path.is_dir()) if place.is_dir() else []


def taken_in(sysroot: Sysroot, booted: Deployment, name: str, known: Overlay | None) -> Overlay:
    """Return an overlay of the image as it is in the booted tree; what is the same keeps its commit.

    known: the overlay as it is recorded; without, it is disabled.
    """
    place = sysroot.directory(booted) / _PLACE / checked_name(name)
    definition = _definition(place, name)
    with ExitStack() as stack:
        files = [
            (f"/{top}/{path.name}", stack.enter_context(openfiles.opened(path))) for top, path in _tops(place)
        ]
        edits = [PathEdit(action=EditAction.ADD, path=path, source=file) for path, file in files]
        content = edit.apply(sysroot.repo, Content(definition), edits, EditBase(booted.checksum))
    if known and edit.read(sysroot.repo, known.definition, known.state.commit) == content:
        return known
    parent = known.state.commit if known else None
    commit = edit.write(sysroot.repo, content, parent=parent, subject=f"as in {booted.checksum[:12]}")
    enabled = known.state.enabled if known else False
    return Overlay(content.definition, State(definition.id, commit, enabled, boot_id()))


def renewed(sysroot: Sysroot, booted: Deployment, known: Sequence[Overlay]) -> Iterator[Transition]:
    """Yield what makes the image's overlays that are enabled what they are in the booted tree."""
    present = names(sysroot, booted)
    for overlay in known:
        if overlay.definition.scope is Scope.GLOBAL and overlay.state.enabled:
            name = overlay.definition.name
            after = taken_in(sysroot, booted, name, overlay).state if name in present else None
            if after != overlay.state:
                yield overlay_choice.transition(overlay, after)


def _tops(place: Path) -> Iterator[tuple[str, Path]]:
    for top in ("usr", "etc"):
        if (place / top).is_dir():
            yield from ((top, path) for path in sorted((place / top).iterdir()))


def _definition(place: Path, name: str) -> Definition:
    definition = Definition(name, Scope.GLOBAL)
    file = place / "overlay.conf"
    if not file.is_file():
        return definition
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    try:
        parser.read_string(file.read_text(), str(file))
        rows = dict(parser["Overlay"]) if parser.has_section("Overlay") else {}
        if unknown := sorted(rows.keys() - set(_SETTINGS)):
            raise UsageError(
                f"{file}: unknown setting {unknown[0]!r}", hint="known: Priority, OnConflict, When"
            )
        return replace(
            definition,
            priority=int(rows.get("priority", definition.priority)),
            on_conflict=OnConflict(rows.get("onconflict", definition.on_conflict)),
            when=rows.get("when", ""),
        )
    except (configparser.Error, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
