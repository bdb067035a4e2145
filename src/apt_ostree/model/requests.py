"""What is asked for: one frozen request for each verb (model.queries has those that only read).

The command line makes them, and they travel to the worker as JSON. Reading one is strict (`read_request`).
Who asks, and how the history calls the command, is no field, so that nobody can claim it: the worker knows
the first, and the second is `title`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any, ClassVar, Self

from apt_ostree.errors import UsageError
from apt_ostree.model import jsonvalue
from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.overlay import EditAction, OnConflict, Persistence, Scope, UnlockMode
from apt_ostree.model.plan import RestartPolicy
from apt_ostree.model.selection import EVERYTHING, Selection

_LONGEST_TITLE = 300


class Moment(StrEnum):
    """When recovery is asked for; all but the first by systemd."""

    CALL = "call"
    BOOT = "boot"  # before services start
    BOOTED = "booted"  # when the boot has succeeded
    DEADLINE = "deadline"  # nobody confirmed a change in time
    SHUTDOWN = "shutdown"  # before ostree merges /etc
    FINALIZED = "finalized"  # after that


class Request:
    """What all requests share."""

    __slots__ = ()
    verb: ClassVar[str]
    command: ClassVar[str] = ""

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        return self.command or self.verb

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read a request from a JSON object; UsageError names the field that is wrong."""
        return jsonvalue.read(cls, value, name=cls.verb)

    def to_json(self) -> dict[str, Any]:
        """Return the request as a JSON object."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]  # every request is a dataclass

    @property
    def open_files(self) -> tuple[OpenFile, ...]:
        """Return the files that have to be passed with the request."""
        return tuple(_open_files(self))


def _open_files(value: Any) -> Iterator[OpenFile]:
    if isinstance(value, OpenFile):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _open_files(item)
    elif is_dataclass(value):
        for one in fields(value):
            yield from _open_files(getattr(value, one.name))


# --- options that requests share


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How a live change is made.

    restart_services: which units it acts on; confirm_within: seconds after which it is undone unless it is
    confirmed; allow_replacement: running packages may be replaced or removed; force: refuse only what could
    not be done or undone.
    """

    restart_services: RestartPolicy = RestartPolicy.NONE
    confirm_within: float | None = None
    allow_replacement: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        if self.confirm_within is not None and self.confirm_within <= 0:
            raise ValueError(f"confirm_within: expected a time above 0, got {self.confirm_within:g}")


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """How a deployment is made.

    live: make it current on the running system, too; cache_only: use the package lists and archives that are
    here; download_only: stop when the archives are here.
    """

    dry_run: bool = False
    cache_only: bool = False
    download_only: bool = False
    live: LiveOptions | None = None


# --- verbs that make deployments


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeployRequest(Request):
    deploy: DeployOptions = DeployOptions()

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        return f"{self.verb} -A" if self.deploy.live else self.verb


@dataclass(frozen=True, slots=True, kw_only=True)
class Install(_DeployRequest):
    """Layer packages.

    packages: names, or NAME=VERSION; files: .deb files; uninstall: requested packages to drop; idempotent:
    accept what is requested already; allow_inactive: request what the base holds.
    """

    verb: ClassVar[str] = "install"
    packages: tuple[str, ...] = ()
    files: tuple[OpenFile, ...] = ()
    uninstall: tuple[str, ...] = ()
    idempotent: bool = False
    allow_inactive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Uninstall(_DeployRequest):
    """Drop requested packages, or all (everything); install, files: further ones to layer."""

    verb: ClassVar[str] = "uninstall"
    packages: tuple[str, ...] = ()
    install: tuple[str, ...] = ()
    files: tuple[OpenFile, ...] = ()
    everything: bool = False
    idempotent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade(_DeployRequest):
    """Upgrade the base from its remote and packages from the archives; check: only tell what is newer."""

    verb: ClassVar[str] = "upgrade"
    base: bool = True
    packages: bool = True
    check: bool = False


# --- verbs on deployments and archives


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback(Request):
    """Boot the previous deployment next."""

    verb: ClassVar[str] = "rollback"
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup(Request):
    """Remove leftovers (base), the pending or the rollback deployment, downloads (repomd)."""

    verb: ClassVar[str] = "cleanup"
    base: bool = False
    pending: bool = False
    rollback: bool = False
    repomd: bool = False
    stateroot: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshMd(Request):
    """Download the package lists; force: also where they are current."""

    verb: ClassVar[str] = "refresh-md"
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeTree(Request):
    """Compose a tree from a treefile.

    Its paths (treefile, repo, workdir) are the caller's, who is root and on this machine: a treefile includes
    others and names files beside it, so that it cannot travel as a descriptor.
    """

    verb: ClassVar[str] = "compose-tree"
    treefile: str
    repo: str | None = None
    ref: str | None = None
    version: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    workdir: str | None = None
    print_only: bool = False
    dry_run: bool = False
    force: bool = False
    keep_parent: bool = True


# --- verbs on the running system


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyLive(Request):
    """Make the pending deployment, a part of it, or a commit (target) current; reset: the booted commit."""

    verb: ClassVar[str] = "apply-live"
    target: str | None = None
    reset: bool = False
    selection: Selection = EVERYTHING
    live: LiveOptions = LiveOptions()
    dry_run: bool = False

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        return "apply-live --reset" if self.reset else "apply-live"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackLive(Request):
    """Go back to what a generation showed (None: the one before), or only some packages."""

    verb: ClassVar[str] = "rollback-live"
    command: ClassVar[str] = "rollback --live"
    generation: int | None = None
    packages: tuple[str, ...] = ()
    restart_services: RestartPolicy = RestartPolicy.NONE
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm(Request):
    """Keep live changes that wait to be confirmed."""

    verb: ClassVar[str] = "confirm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover(Request):
    """Finish or undo what was interrupted; at: the moment at which systemd asks for it."""

    verb: ClassVar[str] = "recover"
    at: Moment = Moment.CALL

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        return "boot" if self.at is Moment.BOOT else self.verb


# --- verbs on overlays


@dataclass(frozen=True, slots=True, kw_only=True)
class _OverlayRequest(Request):
    command: ClassVar[str] = "usroverlay"
    live: LiveOptions = LiveOptions()
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PathEdit:
    """One edit of one path of an overlay.

    source: what is added, else what the system shows there now; mode: of files; owner: (uid, gid); template:
    the source is one; when: the condition under which the path is shown.
    """

    action: EditAction
    path: str
    source: OpenFile | None = None
    mode: int | None = None
    owner: tuple[int, int] | None = None
    template: bool = False
    when: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionEdit:
    """What becomes of an overlay's definition; None leaves a field alone.

    An empty string in a list alone empties it. values are added to those that are there.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class EditOverlay(_OverlayRequest):
    """Make, edit, order, switch or remove one overlay, in one step.

    name: the overlay, else the one last worked on; enable: None leaves it as it is.
    """

    verb: ClassVar[str] = "usroverlay"
    name: str | None = None
    create: bool = False
    remove: bool = False
    enable: bool | None = None
    rename: str | None = None
    definition: DefinitionEdit = DefinitionEdit()
    edits: tuple[PathEdit, ...] = ()

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        switches = {"create": self.create, "remove": self.remove, "enable": self.enable is True}
        switches |= {"disable": self.enable is False}
        options = [f"--name={self.name}"] if self.name else []
        options += [f"--{name}" for name, given in switches.items() if given]
        options += [f"--{edit.action}={edit.path}" for edit in self.edits]
        return " ".join(["usroverlay", *options])[:_LONGEST_TITLE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlock(_OverlayRequest):
    """Make /usr writable."""

    verb: ClassVar[str] = "unlock"
    mode: UnlockMode = UnlockMode.DEVELOPMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockSave(_OverlayRequest):
    """Make an overlay of what was changed in an unlocked /usr, and lock it."""

    verb: ClassVar[str] = "unlock-save"
    name: str

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        return f"usroverlay --save={self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockDiscard(_OverlayRequest):
    """Lock /usr; what was changed there shows no more."""

    verb: ClassVar[str] = "unlock-discard"
    command: ClassVar[str] = "usroverlay --discard"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayBackup(Request):
    """Write an overlay, or all, to a backup: a directory, or a file that is open for writing."""

    verb: ClassVar[str] = "overlay-backup"
    command: ClassVar[str] = "usroverlay --backup"
    name: str | None = None
    destination: OpenFile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayRestore(_OverlayRequest):
    """Bring overlays back, from a backup or from an earlier commit of one; allow: rules they may break."""

    verb: ClassVar[str] = "overlay-restore"
    backup: OpenFile | None = None
    commit: str | None = None
    name: str | None = None
    allow: tuple[str, ...] = ()
    allow_unsigned: bool = False

    def __post_init__(self) -> None:
        if (self.backup is None) == (self.commit is None):
            raise ValueError("expected either a backup or a commit")

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        source = self.backup.name if self.backup else self.commit
        return f"usroverlay --restore={source}"[:_LONGEST_TITLE]


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayCheck(_OverlayRequest):
    """Look for damage of overlays, and repair it."""

    verb: ClassVar[str] = "overlay-check"
    command: ClassVar[str] = "usroverlay --check"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayCleanup(Request):
    """Remove disabled overlays.

    older_than: seconds since they were changed; keep: how many stay, the newest; larger_than: bytes that all
    of them may have; archive: back them up first.
    """

    verb: ClassVar[str] = "overlay-cleanup"
    command: ClassVar[str] = "usroverlay --cleanup"
    older_than: float | None = None
    keep: int | None = None
    larger_than: int | None = None
    archive: bool = False
    dry_run: bool = False


#: The verbs: one at a time changes the system.
VERBS: Mapping[str, type[Request]] = {
    request.verb: request
    for request in (
        ApplyLive, Cleanup, ComposeTree, Confirm, EditOverlay, Install, OverlayBackup, OverlayCheck,
        OverlayCleanup, OverlayRestore, Recover, RefreshMd, Rollback, RollbackLive, Uninstall, Unlock,
        UnlockDiscard, UnlockSave, Upgrade,
    )
}  # fmt: skip


def read_request(verb: Any, value: Any) -> Request:
    """Read the request of a verb from JSON; UsageError names what is wrong."""
    return find(VERBS, "verb", verb).from_json(value)


def find(kinds: Mapping[str, type[Request]], what: str, name: Any) -> type[Request]:
    """Return the request of that name; UsageError where there is none."""
    kind = kinds.get(name) if isinstance(name, str) else None
    if kind is None:
        raise UsageError(f"there is no {what} {name!r}", hint=f"there are: {', '.join(kinds)}")
    return kind
