"""Makes the request of `usroverlay` of its options: which verb is meant, and what it is asked to do."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from apt_ostree.cli import options
from apt_ostree.errors import UsageError
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.overlay import EditAction, OnConflict, Persistence, Scope, UnlockMode
from apt_ostree.model.overlay_edit import DefinitionEdit, PathEdit
from apt_ostree.model.request import Request
from apt_ostree.model.requests import overlays as requests
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.system import openfiles

#: Options that create, edit or remove an overlay.
_ACTIONS = ("create", "add", "modify", "remove_file", "drop", "remove", "rename")
#: Options that are fields of the overlay's definition.
_FIELDS = ("scope", "user", "persistence", "persists", "on_conflict", "inherits", "allow")
#: Options that have a verb of their own.
_VERBS = ("transient", "hotfix", "save", "discard", "backup", "restore", "check", "cleanup")


@contextmanager
def request_of(name: str | None, given: Mapping[str, Any]) -> Iterator[Request]:
    """Yield the request of the options; its files are open until the end."""
    live, dry_run = options.live_options(given), given["dry_run"]
    verb = _verb_of_its_own(name, given)
    if verb is None:
        with _edits(given) as edits:
            yield _edit_overlay(name, given, edits, live)
    elif verb == "backup":
        with _destination(given["backup"]) as destination:
            yield requests.OverlayBackup(name=name, destination=destination)
    elif verb == "restore":
        with _restore(name, given, live) as request:
            yield request
    elif verb == "cleanup":
        limits = {key: given[key] for key in ("older_than", "keep", "larger_than", "archive")}
        yield requests.OverlayCleanup(dry_run=dry_run, **limits)
    elif verb == "save":
        yield requests.UnlockSave(name=given["save"], live=live, dry_run=dry_run)
    elif verb in ("discard", "check"):
        kind = requests.UnlockDiscard if verb == "discard" else requests.OverlayCheck
        yield kind(live=live, dry_run=dry_run)
    else:
        yield requests.Unlock(mode=UnlockMode(verb), live=live, dry_run=dry_run)


def _verb_of_its_own(name: str | None, given: Mapping[str, Any]) -> str | None:
    """Return the option that is a verb of its own, "development" without options, or None for an edit."""
    switched = [key for key in ("enable", "disable") if given[key] is not None]
    others = [key for key in (*_ACTIONS, *_FIELDS, "values", "when") if given[key]]
    others += ["priority"] if given["priority"] is not None else []  # which may be 0
    asked = [key for key in _VERBS if given[key] not in (None, False)]
    if not asked:
        return None if others or switched or name else UnlockMode.DEVELOPMENT
    verb = asked[0]
    excluded = [key for key in (*asked[1:], *others, *switched) if not (verb == "restore" and key == "allow")]
    if name and verb in ("check", "cleanup"):
        raise click.UsageError(f"--{verb} applies to all overlays")
    if excluded:
        raise click.UsageError(f"--{verb} and --{excluded[0].replace('_', '-')} exclude each other")
    return verb


@contextmanager
def _restore(
    name: str | None, given: Mapping[str, Any], live: LiveOptions
) -> Iterator[requests.OverlayRestore]:
    """Yield the request to restore overlays: from a backup, which is opened, or from a commit."""
    source = given["restore"]
    is_path = not source.startswith("apt-ostree/") and ("/" in source or Path(source).exists())
    with options.open_files([source] if is_path else []) as files:
        yield requests.OverlayRestore(
            backup=files[0] if files else None,
            commit=None if files else source,
            name=name,
            allow=given["allow"],
            allow_unsigned=given["allow_unsigned"],
            live=live,
            dry_run=given["dry_run"],
        )


@contextmanager
def _destination(path: str) -> Iterator[OpenFile | None]:
    """Open the destination of a backup; "" is the default. A new file gets its name when it is complete."""
    if not path:
        yield None
        return
    destination = Path(path)
    if path.endswith("/") or destination.is_dir():
        destination.mkdir(mode=0o700, parents=True, exist_ok=True)
        with options.open_files([str(destination)]) as (directory,):
            yield directory
        return
    with openfiles.created(destination) as file:
        yield file


def put_backup(request: requests.OverlayBackup, _result: Mapping[str, Any]) -> None:
    """Rename a backup that was written to a new file to its final name."""
    file = request.destination
    if file and not openfiles.is_directory(file):
        openfiles.put(file)


def _edit_overlay(
    name: str | None,
    given: Mapping[str, Any],
    edits: tuple[PathEdit, ...],
    live: LiveOptions,
) -> requests.EditOverlay:
    """Return the request to make, edit, switch or remove one overlay."""
    if given["enable"] is not None and given["disable"] is not None:
        raise click.UsageError("--enable and --disable exclude each other")
    others = [key for key in _ACTIONS if key != "remove" and given[key]]
    if given["remove"] and others:
        raise click.UsageError(f"--remove and --{others[0].replace('_', '-')} exclude each other")
    definition = _definition(given)
    switched = given["enable"] is not None or given["disable"] is not None
    if not (definition.given or switched or any(given[key] for key in _ACTIONS)):
        raise click.UsageError("no change is requested; see 'apt-ostree usroverlay --help'")
    return requests.EditOverlay(
        name=name,
        create=given["create"],
        remove=given["remove"],
        enable=given["enable"] is not None if switched else None,
        rename=given["rename"],
        definition=definition,
        edits=edits,
        live=live,
        dry_run=given["dry_run"],
    )


def _definition(given: Mapping[str, Any]) -> DefinitionEdit:
    """Return the changes of the overlay's definition."""
    return DefinitionEdit(
        scope=Scope(given["scope"]) if given["scope"] else None,
        user=given["user"],
        priority=given["priority"],
        persistence=Persistence(given["persistence"]) if given["persistence"] else None,
        persists=given["persists"] or None,
        on_conflict=OnConflict(given["on_conflict"]) if given["on_conflict"] else None,
        inherits=given["inherits"] or None,
        when=given["when"] if given["create"] and given["when"] else None,
        values=dict(map(_pair, given["values"])) or None,
        allow=given["allow"] or None,
    )


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not (separator and key.isidentifier()):
        raise click.UsageError(f"--set needs KEY=VALUE, not {text!r}")
    return key, value


@contextmanager
def _edits(given: Mapping[str, Any]) -> Iterator[tuple[PathEdit, ...]]:
    """Yield the edits of paths; a file to be modified without --from is opened in an editor."""
    paths = [(EditAction.ADD, path) for path in given["add"]]
    paths += [(EditAction.MODIFY, path) for path in given["modify"]]
    sources: Sequence[str] = given["sources"] or [""] * len(paths)
    if len(sources) != len(paths):
        raise click.UsageError(f"{len(paths)} paths need {len(paths)} --from, not {len(sources)}")
    removals = [(EditAction.REMOVE_FILE, path) for path in given["remove_file"]]
    removals += [(EditAction.DROP, path) for path in given["drop"]]
    with tempfile.TemporaryDirectory(prefix="apt-ostree-") as scratch, ExitStack() as opened:
        edits = []
        for number, ((action, path), name) in enumerate(zip(paths, sources, strict=True)):
            edited = action is EditAction.MODIFY and not name
            source = _from_editor(Path(path), Path(scratch, str(number))) if edited else name
            files = opened.enter_context(options.open_files([source] if source else []))
            edits.append(
                PathEdit(
                    action=action,
                    path=path,
                    source=files[0] if files else None,
                    mode=given["mode"],
                    owner=given["owner"],
                    template=given["template"],
                    when="" if given["create"] else given["when"] or "",
                )
            )
        yield (*edits, *(PathEdit(action=action, path=path) for action, path in removals))


def _from_editor(path: Path, copy: Path) -> str:
    """Open a copy of a file in the user's editor, and return its path."""
    if not sys.stdin.isatty():
        raise UsageError(f"there is no new content for {path}", hint="name a file with --from")
    if not path.is_file():
        raise UsageError(f"there is no file {path} to modify", hint="add it with --add")
    copy.write_bytes(path.read_bytes())
    click.edit(filename=str(copy), editor=os.environ.get("SUDO_EDITOR"))
    return str(copy)
