"""What may be asked at any time, by anybody: one frozen request for each query. They change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from apt_ostree.model.requests import Request, find


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Request):
    """Deployments, layers and live state of the system below `sysroot`."""

    verb: ClassVar[str] = "status"
    sysroot: str = "/"
    booted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedPackages(Request):
    """The names of the packages that the next deployment requests."""

    verb: ClassVar[str] = "requested-packages"


@dataclass(frozen=True, slots=True, kw_only=True)
class History(Request):
    """All operations on the running system."""

    verb: ClassVar[str] = "history"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowOperation(Request):
    """One operation."""

    verb: ClassVar[str] = "history-show"
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOperations(Request):
    """What differs between what two operations made the system show; 0 is the booted tree."""

    verb: ClassVar[str] = "history-diff"
    one: int
    two: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Search(Request):
    """Packages whose name or summary holds all terms."""

    verb: ClassVar[str] = "search"
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlays(Request):
    """All overlays."""

    verb: ClassVar[str] = "overlays"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayNames(Request):
    """The names of all overlays."""

    verb: ClassVar[str] = "overlay-names"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayContents(Request):
    """One overlay with its paths."""

    verb: ClassVar[str] = "overlay-contents"
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayPaths(Request):
    """Each path that an overlay, or an unlocked /usr, shows."""

    verb: ClassVar[str] = "overlay-paths"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayHistory(Request):
    """An overlay's commits."""

    verb: ClassVar[str] = "overlay-history"
    name: str | None = None


#: The queries by name.
QUERIES: Mapping[str, type[Request]] = {
    request.verb: request
    for request in (
        CompareOperations,
        History,
        OverlayContents,
        OverlayHistory,
        OverlayNames,
        OverlayPaths,
        Overlays,
        RequestedPackages,
        Search,
        ShowOperation,
        Status,
    )
}


def read_query(name: Any, value: Any) -> Request:
    """Read a query from JSON; UsageError names what is wrong."""
    return find(QUERIES, "query", name).from_json(value)
