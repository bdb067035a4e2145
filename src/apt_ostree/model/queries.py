"""The queries: one frozen request for each. They are read-only and permitted to all users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from apt_ostree.model.request import Request, find


@dataclass(frozen=True, kw_only=True)
class Status(Request):
    """Deployments, packages and live state of a system.

    sysroot: its root directory.
    booted: only the booted deployment.
    """

    verb: ClassVar[str] = "status"
    sysroot: str = "/"
    booted: bool = False

    @property
    def is_for_users(self) -> bool:
        """The service tells of the running system only."""
        return self.sysroot == "/"


@dataclass(frozen=True, kw_only=True)
class KernelArguments(Request):
    """The kernel arguments of a deployment.

    deploy_index: its index; None is the next boot's.
    running: those of the running kernel instead.
    """

    verb: ClassVar[str] = "kernel-arguments"
    deploy_index: int | None = None
    running: bool = False


@dataclass(frozen=True, kw_only=True)
class RequestedPackages(Request):
    """The names of the packages that the next deployment requests."""

    verb: ClassVar[str] = "requested-packages"


@dataclass(frozen=True, kw_only=True)
class History(Request):
    """All operations. most: the number of the newest ones to tell; None: all."""

    verb: ClassVar[str] = "history"
    most: int | None = None


@dataclass(frozen=True, kw_only=True)
class ShowOperation(Request):
    """One operation."""

    verb: ClassVar[str] = "history-show"
    number: int


@dataclass(frozen=True, kw_only=True)
class VerifyHistory(Request):
    """Whether the records of operations are as they were written."""

    verb: ClassVar[str] = "history-verify"


@dataclass(frozen=True, kw_only=True)
class CompareOperations(Request):
    """The difference between the states after two operations; 0 is the booted tree."""

    verb: ClassVar[str] = "history-diff"
    one: int
    two: int


@dataclass(frozen=True, kw_only=True)
class CommitQuery(Request):
    """What queries on commits share.

    sysroot: the system whose commits they are.
    repo: the repository that has them instead, a path.
    """

    sysroot: str = "/"
    repo: str | None = None

    @property
    def is_for_users(self) -> bool:
        """The service tells of the running system only: it would read another one with its own rights."""
        return self.sysroot == "/" and self.repo is None


@dataclass(frozen=True, kw_only=True)
class CommitPackages(CommitQuery):
    """The packages of commits. names: of deployments, refs or commits, and patterns of packages."""

    verb: ClassVar[str] = "db-list"
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CommitDiff(CommitQuery):
    """The difference between the packages of two commits.

    names: at most two, of deployments, refs or commits.
    base: compare the commits that packages are layered on.
    changelogs, advisories: also what the changelogs of upgraded packages say.
    """

    verb: ClassVar[str] = "db-diff"
    names: tuple[str, ...] = ()
    base: bool = False
    changelogs: bool = False
    advisories: bool = False

    def __post_init__(self) -> None:
        if len(self.names) > 2:
            raise ValueError("names: at most two commits can be compared")


@dataclass(frozen=True, kw_only=True)
class OfferedPackages(Request):
    """The names of the archives' packages that begin with a prefix."""

    verb: ClassVar[str] = "offered-packages"
    prefix: str = ""


@dataclass(frozen=True, kw_only=True)
class Search(Request):
    """Packages whose name or summary contains all terms."""

    verb: ClassVar[str] = "search"
    terms: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Packages(Request):
    """The archives' packages of these names, or the first of each group that a search for terms finds."""

    verb: ClassVar[str] = "packages"
    names: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Archives(Request):
    """The configured archives."""

    verb: ClassVar[str] = "archives"


@dataclass(frozen=True, kw_only=True)
class AvailableUpdate(Request):
    """What the last check for updates found, or else what the pending deployment changes."""

    verb: ClassVar[str] = "available-update"


@dataclass(frozen=True, kw_only=True)
class DeploymentDiff(Request):
    """The difference between the packages of two deployments, by their ids."""

    verb: ClassVar[str] = "deployment-diff"
    one: str
    two: str


@dataclass(frozen=True, kw_only=True)
class Metrics(Request):
    """The metrics of the running system, as text for Prometheus."""

    verb: ClassVar[str] = "metrics"


@dataclass(frozen=True, kw_only=True)
class PolicySettings(Request):
    """The settings of the policy."""

    verb: ClassVar[str] = "policy-settings"


@dataclass(frozen=True, kw_only=True)
class Overlays(Request):
    """All overlays."""

    verb: ClassVar[str] = "overlays"


@dataclass(frozen=True, kw_only=True)
class OverlayNames(Request):
    """The names of all overlays."""

    verb: ClassVar[str] = "overlay-names"


@dataclass(frozen=True, kw_only=True)
class OverlayContents(Request):
    """One overlay with its paths; None: the one that was edited last."""

    verb: ClassVar[str] = "overlay-contents"
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class OverlayPaths(Request):
    """Each path that an overlay, or an unlocked /usr, shows."""

    verb: ClassVar[str] = "overlay-paths"


@dataclass(frozen=True, kw_only=True)
class OverlayHistory(Request):
    """The commits of one overlay; None: the one that was edited last."""

    verb: ClassVar[str] = "overlay-history"
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class ContainerLint(Request):
    """Which rules about images a root directory breaks.

    rootfs: a path of the caller.
    skip: names of rules that are left out.
    """

    verb: ClassVar[str] = "container-lint"
    rootfs: str = "/"
    skip: tuple[str, ...] = ()

    @property
    def is_for_users(self) -> bool:
        """The service would read it with its own rights."""
        return False


@dataclass(frozen=True, kw_only=True)
class BootloaderStatus(Request):
    """The loaders of the machine, and what an update would do."""

    verb: ClassVar[str] = "bootloader-status"


@dataclass(frozen=True, kw_only=True)
class ContainerRules(Request):
    """The rules about images."""

    verb: ClassVar[str] = "container-rules"


#: The queries by name.
QUERIES: Mapping[str, type[Request]] = {
    request.verb: request
    for request in (
        Archives,
        AvailableUpdate,
        BootloaderStatus,
        CommitDiff,
        CommitPackages,
        CompareOperations,
        ContainerLint,
        ContainerRules,
        DeploymentDiff,
        History,
        KernelArguments,
        Metrics,
        OfferedPackages,
        OverlayContents,
        OverlayHistory,
        OverlayNames,
        OverlayPaths,
        Overlays,
        Packages,
        PolicySettings,
        RequestedPackages,
        Search,
        ShowOperation,
        Status,
        VerifyHistory,
    )
}


def read_query(name: Any, value: Any) -> Request:
    """Read a query from JSON; UsageError names a mistake."""
    return find(QUERIES, "query", name).from_json(value)
