"""Unit files before and after a change: which definition of a unit will be in force. It changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from apt_ostree.model import layout, unitfile
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.treediff import PathChange
from apt_ostree.model.unit import Unit
from apt_ostree.model.unitfile import UnitFile, template
from apt_ostree.system import systemd
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo

#: Init scripts, of which systemd-sysv-generator(8) makes units.
_SCRIPTS = "/etc/init.d"
_GENERATED = "/run/systemd/generator"
_PLACES = ("lib/systemd/system/", "etc/systemd/system/")
_OPT = f"{layout.OPT}/".removeprefix("usr/")


def states(
    repo: Repo, changes: Iterable[PathChange], etc: Mapping[str, FileState] | None = None
) -> dict[str, FileState]:
    """Return the new state of each unit file, drop-in and init script that differs, by its path.

    etc: the new states of the paths of /etc that are written; None: what differs in the trees.
    """
    written = etc or {}
    new_states = {
        f"/etc/{path}": state
        for path, state in written.items()
        if path.startswith(("systemd/system/", "init.d/")) and state.type != "directory"
    }
    for change in changes:
        if change.is_dir or not _is_unit_file(change.path):
            continue
        state = repo.file_state(change.new) if change.new else ABSENT
        if not change.path.startswith("etc/"):
            new_states[f"/usr/{change.path}"] = state
        elif etc is None:
            new_states[f"/{change.path}"] = state
    return new_states


def is_in_tree(repo: Repo, commit: str, unit: str) -> bool:
    """Return whether a tree, or the administrator, has a unit file of that name."""
    own = os.path.lexists(f"/etc/systemd/system/{unit}")
    return own or any(diff.file_of(repo, commit, f"usr/{place}{unit}") for place in _PLACES)


def _is_unit_file(path: str) -> bool:
    """Return whether a path relative to /usr is a unit file; those below /opt are linked from /etc."""
    return path.startswith(_PLACES) or (path.startswith(_OPT) and unitfile.is_unit_file(path))


def without_definition(repo: Repo, changes: Iterable[PathChange]) -> frozenset[str]:
    """Return the active units that have no unit file after these changes."""
    new = states(repo, changes)
    if not new:
        return frozenset()
    return frozenset(name for name, unit in systemd.active_units().items() if definitions(unit, new)[2])


def definitions(
    unit: Unit, new_states: Mapping[str, FileState]
) -> tuple[UnitFile | None, UnitFile | None, bool]:
    """Return the definition of a unit before and after, and whether it is removed.

    Both definitions are None if none of its files differs.
    """
    script = new_states.get(f"{_SCRIPTS}/{unit.name.removesuffix('.service')}")
    if script == ABSENT and unit.fragment.startswith(_GENERATED):
        return unitfile.parse([_text(unit.fragment, {})]), None, True
    names = unitfile.drop_in_directories(unit.name)
    own_states = {
        path: state for path, state in new_states.items()
        if Path(path).name in (unit.name, template(unit.name)) or Path(path).parent.name in names
    }  # fmt: skip
    if not own_states or not unit.fragment.startswith(systemd.TREE_DIRECTORIES):
        return None, None, False
    fragment = _new_fragment(unit.name, own_states)
    old = unitfile.parse(_text(path, {}) for path in (unit.fragment, *unit.drop_ins))
    if fragment is None:
        return old, None, True
    drop_ins = unitfile.new_drop_ins(unit.drop_ins, own_states)
    return old, unitfile.parse(_text(path, own_states) for path in (fragment, *drop_ins)), False


def _new_fragment(name: str, new: Mapping[str, FileState]) -> str | None:
    """Return the path of the unit file that will be in force, or None if there is none or it is masked."""
    for candidate in dict.fromkeys((name, template(name))):
        for directory in unitfile.DIRECTORIES:
            path = f"{directory}/{candidate}"
            if path not in new:
                path = _linked(path)
            state = new.get(path)
            if _masks(state) if state else _is_null(path):
                return None
            if state.type != "absent" if state else Path(path).is_file():
                return path
    return None


def _linked(path: str) -> str:
    """Return the unit file below /opt that a path is a link to, else the path."""
    real = os.path.realpath(path)
    return real if real.startswith(f"/{layout.OPT}/") else path


def _masks(state: FileState) -> bool:
    return state.type == "symlink" and state.content == b"/dev/null"  # whoever owns it


def _is_null(path: str) -> bool:
    return Path(path).is_symlink() and os.fspath(Path(path).readlink()) == "/dev/null"


def _text(path: str, new: Mapping[str, FileState]) -> str:
    if path in new:
        return new[path].content.decode(errors="replace")
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def on_disk(unit: Unit) -> UnitFile:
    """Return the definition of a unit that is in force now."""
    paths = (unit.fragment, *unit.drop_ins) if unit.fragment else ()
    return unitfile.parse(_text(path, {}) for path in paths)


def is_masked(unit: str) -> bool:
    """Return whether the administrator has masked a unit."""
    return _is_null(f"{unitfile.DIRECTORIES[0]}/{unit}")
