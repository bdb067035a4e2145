"""Overlays of the image: directories in /usr/lib/apt-ostree/overlays, imported when they are enabled.

NAME/usr and NAME/etc contain the files. NAME/overlay.conf may set Priority, OnConflict and When in a section
[Overlay]. The directories are read from the booted tree, so that no overlay can replace another one.
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
from apt_ostree.model.overlay_edit import Content, EditBase, PathEdit
from apt_ostree.system import openfiles
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.running import boot_id

_DIRECTORY = "usr/lib/apt-ostree/overlays"
_SETTINGS = ("priority", "onconflict", "when")


def names(sysroot: Sysroot, booted: Deployment) -> list[str]:
    """Return the names of the image's overlays."""
    parent = sysroot.directory(booted) / _DIRECTORY
    return sorted(path.name for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def imported(sysroot: Sysroot, booted: Deployment, name: str, recorded: Overlay | None) -> Overlay:
    """Return an overlay of the image as it is in the booted tree, with a new commit if it differs.

    recorded: the overlay as it is recorded; without it, the new overlay is disabled.

    Raises UsageError for an invalid name or overlay.conf, and Refused for a file that an overlay cannot
    contain.
    """
    directory = sysroot.directory(booted) / _DIRECTORY / checked_name(name)
    definition = _definition(directory, name)
    with ExitStack() as stack:
        files = [
            (f"/{top}/{path.name}", stack.enter_context(openfiles.opened(path)))
            for top, path in _tops(directory)
        ]
        edits = [PathEdit(action=EditAction.ADD, path=path, source=file) for path, file in files]
        content = edit.apply(sysroot.repo, Content(definition), edits, EditBase(booted.checksum))
    if recorded and edit.read(sysroot.repo, recorded.definition, recorded.state.commit) == content:
        return recorded
    parent = recorded.state.commit if recorded else None
    commit = edit.write(sysroot.repo, content, parent=parent, subject=f"as in {booted.checksum[:12]}")
    enabled = recorded.state.enabled if recorded else False
    return Overlay(content.definition, State(definition.id, commit, enabled, boot_id()))


def updates(sysroot: Sysroot, booted: Deployment, overlays: Sequence[Overlay]) -> Iterator[Transition]:
    """Yield the transitions that update the enabled overlays of the image to those of the booted tree.

    Raises what `imported` raises.
    """
    present = names(sysroot, booted)
    for overlay in overlays:
        if overlay.definition.scope is Scope.GLOBAL and overlay.state.enabled:
            name = overlay.definition.name
            after = imported(sysroot, booted, name, overlay).state if name in present else None
            if after != overlay.state:
                yield overlay_choice.transition(overlay, after)


def _tops(directory: Path) -> Iterator[tuple[str, Path]]:
    for top in ("usr", "etc"):
        if (directory / top).is_dir():
            yield from ((top, path) for path in sorted((directory / top).iterdir()))


def _definition(directory: Path, name: str) -> Definition:
    definition = Definition(name, Scope.GLOBAL)
    file = directory / "overlay.conf"
    if not file.is_file():
        return definition
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    try:
        parser.read_string(file.read_text(), str(file))
        rows = dict(parser["Overlay"]) if parser.has_section("Overlay") else {}
        if unknown := sorted(rows.keys() - set(_SETTINGS)):
            raise UsageError(
                f"{file}: unknown setting {unknown[0]!r}", hint="settings: Priority, OnConflict, When"
            )
        return replace(
            definition,
            priority=int(rows.get("priority", definition.priority)),
            on_conflict=OnConflict(rows.get("onconflict", definition.on_conflict)),
            when=rows.get("when", ""),
        )
    except (configparser.Error, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
