"""Edits the files of an overlay: adds, replaces, hides and drops paths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.etc_rules import digest
from apt_ostree.model.filestate import FileState
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.overlay import Definition, EditAction, inside, parents, shown
from apt_ostree.model.overlay_content import WHITEOUT, Node
from apt_ostree.model.overlay_edit import Content, Draft, EditBase, PathEdit, refuse_conflicts, with_metadata
from apt_ostree.system import files, openfiles
from apt_ostree.system.ostree import overlay_repo
from apt_ostree.system.ostree.repo import Repo


def read(repo: Repo, definition: Definition, commit: str) -> Content:
    """Return the content of an overlay's commit; raise ExternalFailure if the commit is damaged."""
    return Content(definition, overlay_repo.read(repo, commit), overlay_repo.read(repo, commit, "templates"))


def write(repo: Repo, content: Content, *, parent: str | None, subject: str) -> str:
    """Write content as a commit of an overlay; return the commit."""
    text = replace(content.definition, hides=WHITEOUT in content.nodes.values()).to_text()
    return overlay_repo.write(
        repo, content.nodes, content.templates, parent=parent, subject=subject, definition=text
    )


def apply(repo: Repo, content: Content, edits: Sequence[PathEdit], edit_base: EditBase) -> Content:
    """Return the content with edits.

    edit_base: what the edits are made against.

    Raises UsageError for a path that cannot be edited in this way, and Refused for a file that an overlay
    cannot contain.
    """
    draft = Draft.of(content)
    with repo.transaction():
        for edit in edits:
            name = inside(edit.path)
            if edit.action is EditAction.DROP:
                draft.drop(edit, name)
                continue
            change = _hide if edit.action is EditAction.REMOVE_FILE else _put
            for path in change(repo, edit, name, draft, edit_base.base):
                draft.against[path] = _made_against(repo, edit_base, path)
                if edit.when:
                    draft.conditions[path] = edit.when
            refuse_conflicts(draft)
        return _finished(repo, draft, edit_base.base)


def with_nodes(repo: Repo, content: Content, nodes: Mapping[str, Node], base: str) -> Content:
    """Return the content with nodes of /usr, which replace those of the same paths.

    base: the commit that the nodes were made against. Raises UsageError for a path below a file.
    """
    draft = Draft.of(content)
    for path, node in nodes.items():
        if node.kind != "directory":
            draft.forget(path)
            draft.against[path] = _made_against(repo, EditBase(base), path)
        draft.templates.pop(path, None)
        draft.nodes[path] = node
    refuse_conflicts(draft)
    with repo.transaction():
        return _finished(repo, draft, base)


def _finished(repo: Repo, draft: Draft, base: str) -> Content:
    for nodes in (draft.nodes, draft.templates):
        _with_directories(repo, nodes, base)
    return draft.content()


def _hide(repo: Repo, edit: PathEdit, name: str, draft: Draft, base: str) -> list[str]:
    """Hide a path of the base; a path that only the overlay has is removed from it."""
    exists = draft.forget(name) or name in overlay_repo.of_base(repo, base, [name])
    if not (exists or files.read_state(Path(shown(name))).type != "absent"):
        raise UsageError(f"there is no {edit.path} to remove")
    draft.nodes[name] = WHITEOUT
    return [name]


def _put(repo: Repo, edit: PathEdit, name: str, draft: Draft, _base: str) -> list[str]:
    """Add or replace a path, or all paths below a directory; return the paths of files and links."""
    original = files.read_state(Path(shown(name)))
    present = draft.nodes.get(name) or draft.templates.get(name)
    if edit.action is EditAction.MODIFY:
        if original.type == "absent" and present is None:
            raise UsageError(f"there is no {edit.path} to modify", hint="add it with --add")
        if not edit.source:
            raise UsageError(f"there is no new content for {edit.path}", hint="name a file with --from")
    elif not edit.source and original.type == "absent":
        raise UsageError(
            f"there is no {edit.path} to add to the overlay", hint="name a file with its content with --from"
        )
    changed = []
    target, other = draft.nodes, draft.templates
    if edit.template:
        target, other = other, target
    for path, state in _states(edit.source, name):
        current = files.read_state(Path(shown(path)))
        other.pop(path, None)
        target[path] = overlay_repo.put(repo, with_metadata(edit, state, current, own=edit.source is None))
        if state.type != "directory":
            changed.append(path)
    return changed


def _states(source: OpenFile | None, name: str) -> Iterator[tuple[str, FileState]]:
    """Yield the states of a source, or of the system, by their paths in the overlay."""
    entries = openfiles.walk(source) if source else files.walk(Path(shown(name)))
    for below, read in entries:
        state = read()
        label = f"{source.name if source else shown(name)}{below}"
        refuse_unfit(state, below, label)
        yield f"{name}{below}", state


def refuse_unfit(state: FileState, path: str, label: str) -> None:
    """Raise Refused for a file that an overlay cannot contain; label: its path for messages."""
    if state.type == "other":
        raise Refused(
            f"{label} is a device, a socket or a pipe, which an overlay cannot contain (rule device-node)"
        )
    try:  # OSTree stores names and targets as UTF-8
        os.fsencode(path).decode()
        if state.type == "symlink":
            state.content.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"the name or target of {label!r} is not UTF-8 (rule bad-path)") from error


def _made_against(repo: Repo, edit_base: EditBase, path: str) -> tuple[str, str]:
    node = overlay_repo.of_base(repo, edit_base.base, [path]).get(path)
    name = path.removeprefix("etc/")
    if name == path:
        return (node.checksum if node else "", "")
    state = edit_base.without.get(name) or files.read_state(Path(shown(path)))
    return (node.checksum if node else "", digest(state))


def _with_directories(repo: Repo, nodes: dict[str, Node], base: str) -> None:
    """Add the parent directories of nodes, as in the base, else as on the system."""
    missing = {above for path in nodes for above in parents(path)} - nodes.keys()
    below = overlay_repo.of_base(repo, base, missing)
    for path in sorted(missing):
        if path in below and below[path].kind == "directory":
            nodes[path] = below[path]
            continue
        state = files.read_state(Path(shown(path)))
        default = FileState("directory", 0o755)
        nodes[path] = overlay_repo.put(repo, state if state.type == "directory" else default)
