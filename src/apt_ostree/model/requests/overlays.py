"""The requests on overlays: one frozen record for each verb; see model.requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from apt_ostree.model.openfile import OpenFile
from apt_ostree.model.overlay import UnlockMode
from apt_ostree.model.overlay_edit import NO_CHANGES, DefinitionEdit, PathEdit
from apt_ostree.model.reach import Reach
from apt_ostree.model.request import LONGEST_TITLE, Request
from apt_ostree.model.requests.options import LiveOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayRequest(Request):
    """What verbs that change overlays share."""

    command: ClassVar[str] = "usroverlay"
    live: LiveOptions = LiveOptions()
    dry_run: bool = False

    @property
    def _own_reach(self) -> Reach:
        options = self.live
        override, live = options.override_policy, options.marks
        return Reach(self.dry_run, override=override, verb=OverlayRequest.command, live=live)


@dataclass(frozen=True, slots=True, kw_only=True)
class EditOverlay(OverlayRequest):
    """Create, edit, enable, disable or remove one overlay, in one step.

    name: the overlay; None is the one that was edited last.
    enable: None keeps the state.
    """

    verb: ClassVar[str] = "usroverlay"
    name: str | None = None
    create: bool = False
    remove: bool = False
    enable: bool | None = None
    rename: str | None = None
    definition: DefinitionEdit = NO_CHANGES
    edits: tuple[PathEdit, ...] = ()

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        switches = {"create": self.create, "remove": self.remove, "enable": self.enable is True}
        switches |= {"disable": self.enable is False}
        options = [f"--name={self.name}"] if self.name else []
        options += [f"--{name}" for name, given in switches.items() if given]
        options += [f"--{edit.action}={edit.path}" for edit in self.edits]
        return " ".join(["usroverlay", *options])[:LONGEST_TITLE]

    @property
    def reach(self) -> Reach | None:
        """Return how far it goes."""
        only_hides = self.remove or (self.enable is False and not self.edits)
        return None if only_hides else self._own_reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlock(OverlayRequest):
    """Make /usr writable."""

    verb: ClassVar[str] = "unlock"
    mode: UnlockMode = UnlockMode.DEVELOPMENT

    @property
    def reach(self) -> Reach:
        """Return how far it goes."""
        return self._own_reach


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockSave(OverlayRequest):
    """Make an overlay of the changes in an unlocked /usr, and lock /usr."""

    verb: ClassVar[str] = "unlock-save"
    name: str

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        return f"usroverlay --save={self.name}"

    @property
    def reach(self) -> Reach:
        """Return how far it goes."""
        return self._own_reach


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockDiscard(OverlayRequest):
    """Lock /usr and discard its changes."""

    verb: ClassVar[str] = "unlock-discard"
    command: ClassVar[str] = "usroverlay --discard"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayBackup(Request):
    """Write one overlay or all (None) to a backup: a directory, or a file that is open for writing."""

    verb: ClassVar[str] = "overlay-backup"
    command: ClassVar[str] = "usroverlay --backup"
    name: str | None = None
    destination: OpenFile | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayRestore(OverlayRequest):
    """Restore overlays from a backup, or one from an earlier commit.

    allow: rules of content that are switched off.
    """

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
        return f"usroverlay --restore={source}"[:LONGEST_TITLE]

    @property
    def reach(self) -> Reach:
        """Return how far it goes."""
        return self._own_reach


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayCheck(OverlayRequest):
    """Check overlays for damage, and repair it."""

    verb: ClassVar[str] = "overlay-check"
    command: ClassVar[str] = "usroverlay --check"


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayCleanup(Request):
    """Remove disabled overlays.

    older_than: maximum time since the last change, in seconds.
    keep: maximum number of overlays.
    larger_than: maximum total size, in bytes.
    archive: back them up first.
    """

    verb: ClassVar[str] = "overlay-cleanup"
    command: ClassVar[str] = "usroverlay --cleanup"
    older_than: float | None = None
    keep: int | None = None
    larger_than: int | None = None
    archive: bool = False
    dry_run: bool = False
