"""A named overlay: its definition, which is stored in its commits, and its state.

Paths in an overlay are relative to /usr, and those of /etc begin with `etc/`, as in a tree (model.layout).
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from apt_ostree.errors import UsageError

#: Directories of the root that are symlinks into /usr (file-hierarchy(7)).
_MERGED = ("bin/", "sbin/", "lib/", "lib32/", "lib64/", "libx32/")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
DEFAULT_PRIORITY = 50


class Scope(StrEnum):
    """The owner of an overlay."""

    SYSTEM = "system"  # the administrator
    GLOBAL = "global"  # part of the image
    USER = "user"  # a named user; such an overlay only adds paths


class Persistence(StrEnum):
    """Whether an overlay persists after a reboot."""

    PERSISTENT = "persistent"
    TEMPORARY = "temporary"
    HYBRID = "hybrid"  # only paths that match its patterns persist


class OnConflict(StrEnum):
    """How a conflict is resolved: a path that the base has changed, too."""

    KEEP = "keep"  # the overlay's version is shown
    DROP = "drop"  # the base's version is shown
    DISABLE = "disable"  # the whole overlay is left out


class EditAction(StrEnum):
    """The action of an edit on one path of an overlay."""

    ADD = "add"
    MODIFY = "modify"
    REMOVE_FILE = "remove-file"  # hide the path of the base
    DROP = "drop"  # remove the path from the overlay


class UnlockMode(StrEnum):
    """How /usr is unlocked."""

    DEVELOPMENT = "development"  # until the reboot
    TRANSIENT = "transient"  # only for processes that remount it in their own mount namespace
    HOTFIX = "hotfix"  # permanently, with a copy of the deployment for a rollback


@dataclass(frozen=True, slots=True)
class Definition:
    """The properties of an overlay, without its files.

    persists: patterns of paths that persist after a reboot (hybrid).
    inherits: names of overlays whose files it includes.
    when: the condition under which it is shown.
    conditions: path -> condition under which the path is shown.
    values: variables of its templates.
    allow: rules of content that are switched off.
    user: whom it is for (scope user).
    hides: it has whiteouts.
    against: path -> (object of the base that it was made against, digest of the state in /etc or "").
    """

    name: str
    scope: Scope = Scope.SYSTEM
    priority: int = DEFAULT_PRIORITY
    persistence: Persistence = Persistence.PERSISTENT
    on_conflict: OnConflict = OnConflict.KEEP
    persists: tuple[str, ...] = ()
    inherits: tuple[str, ...] = ()
    when: str = ""
    conditions: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    user: str = ""
    hides: bool = False
    against: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Return SCOPE/NAME, as in the overlay's ref."""
        return f"{self.scope}/{self.name}"

    def stays(self, path: str) -> bool:
        """Return whether a path persists after a reboot."""
        if self.persistence is Persistence.HYBRID:
            return any(fnmatch.fnmatchcase(shown(path), pattern) for pattern in self.persists)
        return self.persistence is Persistence.PERSISTENT

    def to_text(self) -> str:
        """Return the text of the definition in a commit."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, slots=True)
class State:
    """The state of an overlay on this machine.

    id: SCOPE/NAME.
    boot_id: of the boot in which it was made.
    """

    id: str
    commit: str
    enabled: bool
    boot_id: str


@dataclass(frozen=True, slots=True)
class Overlay:
    """An overlay: its definition and its state."""

    definition: Definition
    state: State

    @property
    def id(self) -> str:
        """Return SCOPE/NAME."""
        return self.state.id


@dataclass(frozen=True, slots=True)
class Applied:
    """An overlay in a view.

    commit: of the overlay.
    layer: commit of the layer that was made of it for the view's base.
    """

    id: str
    commit: str
    layer: str


@dataclass(frozen=True, slots=True)
class Transition:
    """The change of an overlay's state; None is no overlay."""

    id: str
    before: State | None
    after: State | None


def from_text(text: str) -> Definition:
    """Return the definition of a text in a commit; UsageError if it is invalid."""
    try:
        fields: dict[str, Any] = json.loads(text)
        return Definition(
            name=checked_name(fields["name"]),
            scope=Scope(fields["scope"]),
            priority=int(fields["priority"]),
            persistence=Persistence(fields["persistence"]),
            on_conflict=OnConflict(fields["on_conflict"]),
            persists=tuple(map(str, fields["persists"])),
            inherits=tuple(checked_name(name) for name in fields["inherits"]),
            when=str(fields["when"]),
            conditions={str(k): str(v) for k, v in fields["conditions"].items()},
            values={str(k): str(v) for k, v in fields["values"].items()},
            allow=tuple(map(str, fields["allow"])),
            user=str(fields["user"]),
            hides=bool(fields["hides"]),
            against={str(k): (str(a), str(b)) for k, (a, b) in fields["against"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"this is not the definition of an overlay: {error!r}") from error


def checked_name(name: str) -> str:
    """Return a name that is valid for an overlay, else raise UsageError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of an overlay",
            hint="use small letters, digits, dots, dashes and underscores, at most 63",
        )
    return name


def in_order(definitions: Iterable[Definition]) -> list[Definition]:
    """Return definitions, the topmost first: by descending priority, then by name and scope."""
    return sorted(definitions, key=lambda d: (-d.priority, d.name, d.scope))


def inside(path: str) -> str:
    """Return the path in an overlay of a path of the system; UsageError if no overlay may have it."""
    parts = path.removeprefix("/").split("/")
    if not path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise UsageError(
            f"{path!r} is not a plain absolute path", hint="such as /usr/bin/tool or /etc/tool.conf"
        )
    name = path.removeprefix("/")
    if name.startswith("usr/") and not name.startswith("usr/etc/"):
        return name.removeprefix("usr/")
    if name.startswith(("etc/", *_MERGED)):
        return name
    raise UsageError(f"{path} lies outside of /usr and /etc", hint="an overlay holds paths below these two")


def shown(path: str) -> str:
    """Return the path of the system for a path in an overlay."""
    return f"/{path}" if path.startswith("etc/") or path == "etc" else f"/usr/{path}"


def parents(path: str) -> Iterable[str]:
    """Yield the parent directories of a path, the outermost first."""
    parts = path.split("/")
    for count in range(1, len(parts)):
        yield "/".join(parts[:count])


@dataclass(frozen=True, slots=True)
class Goal:
    """The state that the system is to show: a base with overlays.

    base: the commit without overlays.
    commit: the commit with overlays.
    overlays: the topmost first.
    expected: path of /etc -> digest of the state that an overlay was made against.
    notes: messages about overlays.
    unlock: "development" or "transient" unlock /usr (ostree-admin-unlock(1)), "none" locks it, None neither.
    """

    base: str
    commit: str
    overlays: tuple[Applied, ...] = ()
    expected: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unlock: str | None = None
