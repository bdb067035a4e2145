"""The files of an overlay while it is edited: a draft of the content, and what it must not become."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.model.filestate import FileState
from apt_ostree.model.overlay import Definition, parents, shown
from apt_ostree.model.overlay_content import Node, Nodes
from apt_ostree.model.requests import PathEdit


@dataclass(frozen=True, slots=True)
class Content:
    """The files of an overlay while it is edited."""

    definition: Definition
    nodes: dict[str, Node] = field(default_factory=dict)
    templates: dict[str, Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EditBase:
    """What an edit is made against: the base that is shown, and what /etc holds without overlays."""

    base: str
    without: Mapping[str, FileState] = field(default_factory=dict)


@dataclass(slots=True)
class Draft:
    """Content that is being changed."""

    definition: Definition
    nodes: dict[str, Node]
    templates: dict[str, Node]
    against: dict[str, tuple[str, str]]
    conditions: dict[str, str]

    @classmethod
    def of(cls, content: Content) -> Draft:
        """Return a draft that can be changed without changing the content."""
        definition = content.definition
        nodes, templates = dict(content.nodes), dict(content.templates)
        return cls(definition, nodes, templates, dict(definition.against), dict(definition.conditions))

    def forget(self, name: str) -> bool:
        """Drop a path and what is below it; tell whether there was any."""
        found = False
        for rows in (self.nodes, self.templates, self.against, self.conditions):
            for path in [p for p in rows if p == name or p.startswith(f"{name}/")]:
                del rows[path]
                found = True
        return found

    def drop(self, edit: PathEdit, name: str) -> None:
        """Drop a path from the overlay, so that the base's shows; UsageError where the overlay has none."""
        if not self.forget(name):
            raise UsageError(f"the overlay has no {edit.path}")
        without_unused(self.nodes)
        without_unused(self.templates)

    def content(self) -> Content:
        """Return the content that came of it."""
        definition = replace(self.definition, against=self.against, conditions=self.conditions)
        return Content(definition, self.nodes, self.templates)


def refuse_conflicts(draft: Draft) -> None:
    """Refuse paths below what is no directory in the overlay."""
    nodes = {**draft.nodes, **draft.templates}
    for path in sorted(nodes):
        for above in parents(path):
            if above in nodes and nodes[above].kind != "directory":
                what = "removes" if nodes[above].kind == "whiteout" else "has a file"
                raise UsageError(
                    f"the overlay {what} {shown(above)}, so that it cannot have {shown(path)}",
                    hint=f"drop one of them first: --drop={shown(above)}",
                )


def with_metadata(edit: PathEdit, state: FileState, like: FileState, *, own: bool) -> FileState:
    """Return a state with the owner, mode and xattrs that it shall have.

    like: what the system shows at the path; own: whether that is where the state comes from.
    """
    if state.type == "symlink":
        return replace(state, uid=0, gid=0)
    if not own:
        if like.type == state.type:
            state = replace(state, mode=like.mode, uid=like.uid, gid=like.gid, xattrs=like.xattrs)
        else:
            state = replace(state, uid=0, gid=0, xattrs=())
    changes: dict[str, Any] = {}
    if edit.mode is not None and state.type == "file":
        changes["mode"] = edit.mode
    if edit.owner is not None:
        changes |= {"uid": edit.owner[0], "gid": edit.owner[1]}
    return replace(state, **changes)


def without_unused(nodes: dict[str, Node], *, keep: Collection[str] = ()) -> None:
    """Drop directories that lead to nothing, but for those to keep."""
    used = {above for path, node in nodes.items() if node.kind != "directory" for above in parents(path)}
    used |= {above for path in keep for above in (*parents(path), path)}
    for path in [p for p, node in nodes.items() if node.kind == "directory" and p not in used]:
        del nodes[path]


def lasting(definition: Definition, nodes: Nodes) -> dict[str, Node]:
    """Return the nodes of a hybrid overlay that outlive the boot, with the directories above them."""
    left = {p: node for p, node in nodes.items() if node.kind == "directory" or definition.stays(p)}
    without_unused(left)
    return left
