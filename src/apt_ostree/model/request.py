"""What requests and queries share: the way from JSON and to JSON, and the title."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from typing import Any, ClassVar, Self, TypeVar

from apt_ostree.errors import UsageError
from apt_ostree.model import jsonvalue
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.reach import Reach

_Kind = TypeVar("_Kind")
#: Characters of a title; arguments may be long.
LONGEST_TITLE = 300


class Request:
    """What all requests share."""

    __slots__ = ()
    verb: ClassVar[str]
    command: ClassVar[str] = ""

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        return self.command or self.verb

    @property
    def is_for_users(self) -> bool:
        """Return whether a user may make it, if polkit allows it, and so whether the service takes it."""
        return True

    @property
    def is_recorded(self) -> bool:
        """Return whether it is recorded in the history: a dry run is not."""
        parts = (self, *(getattr(self, one.name) for one in fields(self)))  # type: ignore[arg-type]
        return not any(getattr(part, "dry_run", False) is True for part in parts)

    @property
    def is_automatic(self) -> bool:
        """Return whether systemd makes it at each boot; it is recorded only if there is something to tell."""
        return False

    @property
    def reach(self) -> Reach | None:
        """Return how far it goes; None if the policy is not about it.

        What goes back, repairs or tidies is never held up by the policy.
        """
        return None

    @property
    def preview(self) -> Self:
        """Return the request that only shows what would be done, from what is cached."""
        return replace(self, dry_run=True)  # type: ignore[type-var]  # see to_json

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read a request from a JSON object; UsageError names the field that is wrong."""
        return jsonvalue.read(cls, value, name=cls.verb)

    def to_json(self) -> dict[str, Any]:
        """Return the request as a JSON object."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]  # every request is a dataclass

    def given(self) -> dict[str, Any]:
        """Return what differs from the defaults, as a JSON object; of a file its name."""
        return _given(self)

    @property
    def open_files(self) -> tuple[OpenFile, ...]:
        """Return the files that have to be passed with the request."""
        return tuple(_open_files(self))

    def with_descriptors(self, descriptors: Sequence[int]) -> Self:
        """Return the request with descriptors in place of indexes; UsageError for an index without one."""
        changed: Self = _with_files(self, lambda file: _descriptor(file, descriptors))
        return changed

    def with_indexes(self) -> Self:
        """Return the request with the indexes of its files (`open_files`) in place of their descriptors."""
        indexes = itertools.count()
        changed: Self = _with_files(self, lambda file: OpenFile(next(indexes), file.name))
        return changed


def _given(value: Any) -> dict[str, Any]:
    found = {}
    for one in fields(value):
        item, default = getattr(value, one.name), one.default
        if one.default_factory is not MISSING:
            default = one.default_factory()
        if item != default:
            found[one.name] = _shown(item)
    return found


def _shown(item: Any) -> Any:
    if isinstance(item, OpenFile):
        return item.name
    if isinstance(item, tuple | list):
        return [_shown(part) for part in item]
    return _given(item) if is_dataclass(item) else item


def _open_files(value: Any) -> Iterator[OpenFile]:
    if isinstance(value, OpenFile):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _open_files(item)
    elif is_dataclass(value):
        for one in fields(value):
            yield from _open_files(getattr(value, one.name))


def _with_files(value: Any, change: Callable[[OpenFile], OpenFile]) -> Any:
    if isinstance(value, OpenFile):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_with_files(item, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        old = {one.name: getattr(value, one.name) for one in fields(value)}
        new = {name: _with_files(item, change) for name, item in old.items()}
        return replace(value, **{name: item for name, item in new.items() if item is not old[name]})
    return value


def _descriptor(file: OpenFile, descriptors: Sequence[int]) -> OpenFile:
    if file.fd >= len(descriptors):
        raise UsageError(f"{file.name} was not passed with the request (index {file.fd})")
    return OpenFile(descriptors[file.fd], file.name)


def find(kinds: Mapping[str, _Kind], what: str, name: Any) -> _Kind:
    """Return what has that name; UsageError where there is none."""
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise UsageError(f"there is no {what} {name!r}", hint=f"there are: {', '.join(kinds)}")
    return kind
