"""Edits the files of an overlay: what is added, replaced, removed, and what it was made against."""

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
from apt_ostree.model.overlay_content import GONE, Node
from apt_ostree.model.overlay_edit import Content, Draft, EditBase, refuse_conflicts, with_metadata
from apt_ostree.model.requests import PathEdit
from apt_ostree.system import files, openfiles
from apt_ostree.system.ostree import overlays as trees
from apt_ostree.system.ostree.repo import Repo


def read(repo: Repo, definition: Definition, commit: str) -> Content:
    """Return the content of an overlay's commit."""
    return Content(definition, trees.read(repo, commit), trees.read(repo, commit, "templates"))


def write(repo: Repo, content: Content, *, parent: str | None, subject: str) -> str:
    """Write content as an overlay's commit."""
    text = replace(content.definition, hides=GONE in content.nodes.values()).to_text()
    return trees.write(
        repo, content.nodes, content.templates, parent=parent, subject=subject, definition=text
    )


def apply(repo: Repo, content: Content, edits: Sequence[PathEdit], edit_base: EditBase) -> Content:
    """Return the content with edits; UsageError names the path that cannot be edited so."""
    draft = Draft.of(content)
    with repo.transaction():
        for edit in edits:
            name = inside(edit.path)
            if edit.action is EditAction.DROP:
                draft.drop(edit, name)
                continue
            touched = _hide if edit.action is EditAction.REMOVE_FILE else _put
            for path in touched(repo, edit, name, draft, edit_base.base):
                draft.against[path] = _made_against(repo, edit_base, path)
                if edit.when:
                    draft.conditions[path] = edit.when
            refuse_conflicts(draft)
        return _finished(repo, draft, edit_base.base)


def taken_in(repo: Repo, content: Content, nodes: Mapping[str, Node], base: str) -> Content:
    """Return the content with nodes of /usr, which replace what it has at their paths."""
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
    """Remove a path: what the base has is hidden, what only the overlay has goes."""
    there = draft.forget(name) or name in trees.of_base(repo, base, [name])
    if not (there or files.read_state(Path(shown(name))).type != "absent"):
        raise UsageError(f"there is no {edit.path} to remove")
    draft.nodes[name] = GONE
    return [name]


def _put(repo: Repo, edit: PathEdit, name: str, draft: Draft, _base: str) -> list[str]:
    """Add or replace a path, or what is below a directory; return the paths."""
    original = files.read_state(Path(shown(name)))
    present = draft.nodes.get(name) or draft.templates.get(name)
    if edit.action is EditAction.MODIFY:
        if original.type == "absent" and present is None:
            raise UsageError(f"there is no {edit.path} to modify", hint="add it with --add")
        if not edit.source:
            raise UsageError(f"nothing says what {edit.path} shall hold", hint="name a file with --from")
    elif not edit.source and original.type == "absent":
        raise UsageError(
            f"there is no {edit.path} to take into the overlay", hint="name what it shall hold with --from"
        )
    touched = []
    target, other = draft.nodes, draft.templates
    if edit.template:
        target, other = other, target
    for path, state in _states(edit.source, name):
        like = files.read_state(Path(shown(path)))
        other.pop(path, None)
        target[path] = trees.put(repo, with_metadata(edit, state, like, own=edit.source is None))
        if state.type != "directory":
            touched.append(path)
    return touched


def _states(source: OpenFile | None, name: str) -> Iterator[tuple[str, FileState]]:
    """Yield what a source, or the system, holds, by the paths that it gets; other than files is refused."""
    entries = openfiles.walk(source) if source else files.walk(Path(shown(name)))
    for below, read in entries:
        state = read()
        label = f"{source.name if source else shown(name)}{below}"
        refuse_unfit(state, below, label)
        yield f"{name}{below}", state


def refuse_unfit(state: FileState, path: str, label: str) -> None:
    """Refuse what an overlay cannot hold; label: the path for messages."""
    if state.type == "other":
        raise Refused(
            f"{label} is a device, a socket or a pipe, and an overlay holds none (rule device-node)"
        )
    try:  # OSTree keeps names and targets as UTF-8
        os.fsencode(path).decode()
        if state.type == "symlink":
            state.content.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"the name or target of {label!r} is not UTF-8 (rule bad-path)") from error


def _made_against(repo: Repo, edit_base: EditBase, path: str) -> tuple[str, str]:
    node = trees.of_base(repo, edit_base.base, [path]).get(path)
    name = path.removeprefix("etc/")
    if name == path:
        return (node.checksum if node else "", "")
    state = edit_base.without.get(name) or files.read_state(Path(shown(path)))
    return (node.checksum if node else "", digest(state))


def _with_directories(repo: Repo, nodes: dict[str, Node], base: str) -> None:
    """Add the directories above nodes, as the base has them, or as the system shows them."""
    missing = {above for path in nodes for above in parents(path)} - nodes.keys()
    below = trees.of_base(repo, base, missing)
    for path in sorted(missing):
        if path in below and below[path].kind == "directory":
            nodes[path] = below[path]
            continue
        state = files.read_state(Path(shown(path)))
        plain = FileState("directory", 0o755)
        nodes[path] = trees.put(repo, state if state.type == "directory" else plain)
