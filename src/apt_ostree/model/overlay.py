"""A named overlay: its definition, which its commits carry, and its place among the others.

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

#: Directories of the root that are links into /usr on a merged system (file-hierarchy(7)).
_MERGED = ("bin/", "sbin/", "lib/", "lib32/", "lib64/", "libx32/")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
DEFAULT_PRIORITY = 50


class Scope(StrEnum):
    """Whose an overlay is."""

    SYSTEM = "system"  # the administrator's
    GLOBAL = "global"  # the image's
    USER = "user"  # made for a named user; it only adds


class Persistence(StrEnum):
    """What becomes of an overlay at the reboot."""

    PERSISTENT = "persistent"
    TEMPORARY = "temporary"
    HYBRID = "hybrid"  # the paths that match its patterns persist


class OnConflict(StrEnum):
    """What becomes of a path that the base has changed, too."""

    KEEP = "keep"  # the overlay's version stays
    DROP = "drop"  # the base's version shows
    DISABLE = "disable"  # the whole overlay is left out


class EditAction(StrEnum):
    """What an edit does to one path of an overlay."""

    ADD = "add"
    MODIFY = "modify"
    REMOVE_FILE = "remove-file"  # the path is not shown
    DROP = "drop"  # the overlay has nothing at the path any more


class UnlockMode(StrEnum):
    """How /usr is unlocked."""

    DEVELOPMENT = "development"  # until the reboot
    TRANSIENT = "transient"  # for those alone who remount it in a namespace of their own
    HOTFIX = "hotfix"  # for good, with a copy of the deployment to go back to


@dataclass(frozen=True, slots=True)
class Definition:
    """What an overlay is, but for its files.

    persists: patterns of paths that stay after a reboot (hybrid); inherits: overlays by name whose files it
    has as well; when: the condition under which it is shown; conditions: path -> condition; values: for its
    templates; allow: rules of content that it may break; user: for whom it is (scope user); hides: whether
    it removes paths; against: path -> (object of the base that it was made against, digest of the state that
    /etc had there, or "").
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
        """Return the name with its scope, as in the overlay's ref."""
        return f"{self.scope}/{self.name}"

    def stays(self, path: str) -> bool:
        """Tell whether a path outlives the reboot."""
        if self.persistence is Persistence.HYBRID:
            return any(fnmatch.fnmatchcase(shown(path), pattern) for pattern in self.persists)
        return self.persistence is Persistence.PERSISTENT

    def to_text(self) -> str:
        """Return the definition as it stands in a commit."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, slots=True)
class State:
    """An overlay on this machine. boot_id: of the boot in which it was made."""

    id: str
    commit: str
    enabled: bool
    boot_id: str


@dataclass(frozen=True, slots=True)
class Overlay:
    """An overlay with its definition."""

    definition: Definition
    state: State

    @property
    def id(self) -> str:
        """Return its name with its scope."""
        return self.state.id


@dataclass(frozen=True, slots=True)
class Applied:
    """An overlay in a view: its commit, and the layer that was made of it for the view's base."""

    id: str
    commit: str
    layer: str


@dataclass(frozen=True, slots=True)
class Transition:
    """What an operation makes of an overlay; None where there is none before or after."""

    id: str
    before: State | None
    after: State | None


def from_text(text: str) -> Definition:
    """Read a definition from a commit; UsageError when it is none."""
    try:
        found: dict[str, Any] = json.loads(text)
        return Definition(
            name=checked_name(found["name"]),
            scope=Scope(found["scope"]),
            priority=int(found["priority"]),
            persistence=Persistence(found["persistence"]),
            on_conflict=OnConflict(found["on_conflict"]),
            persists=tuple(map(str, found["persists"])),
            inherits=tuple(checked_name(name) for name in found["inherits"]),
            when=str(found["when"]),
            conditions={str(k): str(v) for k, v in found["conditions"].items()},
            values={str(k): str(v) for k, v in found["values"].items()},
            allow=tuple(map(str, found["allow"])),
            user=str(found["user"]),
            hides=bool(found["hides"]),
            against={str(k): (str(a), str(b)) for k, (a, b) in found["against"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"this is not the definition of an overlay: {error!r}") from error


def checked_name(name: str) -> str:
    """Return a name that is fit for an overlay, else raise UsageError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of an overlay",
            hint="use small letters, digits, dots, dashes and underscores, at most 63",
        )
    return name


def in_order(definitions: Iterable[Definition]) -> list[Definition]:
    """Return overlays, the topmost first: by priority, those of the same one by scope and name."""
    return sorted(definitions, key=lambda d: (-d.priority, d.name, d.scope))


def inside(path: str) -> str:
    """Return a path of the system as it stands in an overlay; UsageError for what no overlay may hold."""
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
    """Return a path in an overlay as the system shows it."""
    return f"/{path}" if path.startswith("etc/") or path == "etc" else f"/usr/{path}"


def parents(path: str) -> Iterable[str]:
    """Yield the directories above a path, the outermost first."""
    parts = path.split("/")
    for count in range(1, len(parts)):
        yield "/".join(parts[:count])


@dataclass(frozen=True, slots=True)
class Goal:
    """What the system is to show: a base with overlays on it.

    commit: of both together; overlays: the topmost first; expected: path of /etc -> digest of the state that
    an overlay was made against; notes: what the administrator should know about them; unlock: None leaves
    /usr as it is, "development" and "transient" unlock it (ostree-admin-unlock(1)), "none" locks it again.
    """

    base: str
    commit: str
    overlays: tuple[Applied, ...] = ()
    expected: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unlock: str | None = None
