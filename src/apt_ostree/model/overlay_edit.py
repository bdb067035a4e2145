"""Edits of an overlay: the requested edits, a draft of the content, and its checks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.model.filestate import FileState
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.overlay import (
    Definition,
    EditAction,
    OnConflict,
    Persistence,
    Scope,
    parents,
    shown,
)
from apt_ostree.model.overlay_content import Node, Nodes

_LARGEST_MODE = 0o7777
#: The largest user or group id; the number after it means "no change" (chown(2)).
LARGEST_ID = 2**32 - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PathEdit:
    """One edit of one path of an overlay.

    source: the file to add; None is the present state of the path.
    mode: of files.
    owner: (uid, gid).
    template: the source is a template.
    when: the condition under which the path is shown.
    """

    action: EditAction
    path: str
    source: OpenFile | None = None
    mode: int | None = None
    owner: tuple[int, int] | None = None
    template: bool = False
    when: str = ""

    def __post_init__(self) -> None:
        if self.mode is not None and not 0 <= self.mode <= _LARGEST_MODE:
            raise ValueError(f"mode: expected 0 to 0o{_LARGEST_MODE:o}, got {self.mode}")
        if self.owner is not None and not all(0 <= number <= LARGEST_ID for number in self.owner):
            raise ValueError(f"owner: expected two numbers from 0 to {LARGEST_ID}, got {self.owner}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionEdit:
    """Changes of an overlay's definition; None keeps a field.

    A list of one empty string clears a list. values are added to the present ones.
    """

    scope: Scope | None = None
    user: str | None = None
    priority: int | None = None
    persistence: Persistence | None = None
    persists: tuple[str, ...] | None = None
    on_conflict: OnConflict | None = None
    inherits: tuple[str, ...] | None = None
    when: str | None = None
    values: Mapping[str, str] | None = None
    allow: tuple[str, ...] | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Return the fields that change, by name."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


NO_CHANGES = DefinitionEdit()


@dataclass(frozen=True, slots=True)
class Content:
    """The definition and the files of an overlay.

    nodes: path -> node.
    templates: path -> node of a template.
    """

    definition: Definition
    nodes: dict[str, Node] = field(default_factory=dict)
    templates: dict[str, Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EditBase:
    """The state that an edit is made against.

    base: the commit without overlays.
    without: path of /etc -> state without overlays.
    """

    base: str
    without: Mapping[str, FileState] = field(default_factory=dict)


@dataclass(slots=True)
class Draft:
    """Content that can be changed; for the fields see Content.

    against, conditions: see Definition.
    """

    definition: Definition
    nodes: dict[str, Node]
    templates: dict[str, Node]
    against: dict[str, tuple[str, str]]
    conditions: dict[str, str]

    @classmethod
    def of(cls, content: Content) -> Draft:
        """Return a draft with a copy of the content."""
        definition = content.definition
        nodes, templates = dict(content.nodes), dict(content.templates)
        return cls(definition, nodes, templates, dict(definition.against), dict(definition.conditions))

    def forget(self, name: str) -> bool:
        """Drop a path and all paths below it; return whether there was any."""
        dropped = False
        for rows in (self.nodes, self.templates, self.against, self.conditions):
            for path in [p for p in rows if p == name or p.startswith(f"{name}/")]:
                del rows[path]
                dropped = True
        return dropped

    def drop(self, edit: PathEdit, name: str) -> None:
        """Drop a path from the overlay, so that the base's is shown; UsageError if the overlay has none."""
        if not self.forget(name):
            raise UsageError(f"the overlay has no {edit.path}")
        without_unused(self.nodes)
        without_unused(self.templates)

    def content(self) -> Content:
        """Return the content of the draft."""
        definition = replace(self.definition, against=self.against, conditions=self.conditions)
        return Content(definition, self.nodes, self.templates)


def refuse_conflicts(draft: Draft) -> None:
    """Raise UsageError for paths below a path of the overlay that is no directory."""
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
    """Return a state with the owner, mode and xattrs for an edit.

    like: the state that the system shows at the path.
    own: whether `state` is that of the system, and not of a file that was added.
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
    """Drop directories without any other node below them, except for those to keep."""
    used = {above for path, node in nodes.items() if node.kind != "directory" for above in parents(path)}
    used |= {above for path in keep for above in (*parents(path), path)}
    for path in [p for p, node in nodes.items() if node.kind == "directory" and p not in used]:
        del nodes[path]


def lasting(definition: Definition, nodes: Nodes) -> dict[str, Node]:
    """Return the nodes of a hybrid overlay that persist after a reboot, with their parent directories."""
    left = {p: node for p, node in nodes.items() if node.kind == "directory" or definition.stays(p)}
    without_unused(left)
    return left
