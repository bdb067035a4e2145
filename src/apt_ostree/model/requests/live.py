"""The requests that change the running system."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from apt_ostree.model.plan import RestartPolicy
from apt_ostree.model.reach import Reach
from apt_ostree.model.request import Request
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.model.selection import EVERYTHING, Selection


class Moment(StrEnum):
    """When recovery is requested: by a user (CALL), or by systemd."""

    CALL = "call"
    BOOT = "boot"  # before services start
    STATE = "state"  # the same, if the machine has not all state of the tree
    CONFIGURE = "configure"  # the same, if it has to configure packages of the tree itself
    BOOTED = "booted"  # when the boot has succeeded
    VERDICT = "verdict"  # when the boot has come to its end
    TIMEOUT = "timeout"  # when it takes long
    DEADLINE = "deadline"  # a change was not confirmed in time, or is watched
    SHUTDOWN = "shutdown"  # before ostree merges /etc
    FINALIZED = "finalized"  # after that


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyLive(Request):
    """Apply the pending deployment, a selection of it, or a commit to the running system.

    target: the commit.
    reset: apply the booted commit.
    """

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

    @property
    def reach(self) -> Reach | None:
        """Return how far it goes."""
        if self.reset:
            return None
        override = self.live.override_policy
        return Reach(self.dry_run, override=override, verb=self.verb, live=self.live.marks)


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackLive(Request):
    """Roll the running system back to a generation (None: the previous one), or only some packages."""

    verb: ClassVar[str] = "rollback-live"
    command: ClassVar[str] = "rollback --live"
    generation: int | None = None
    packages: tuple[str, ...] = ()
    restart_services: RestartPolicy = RestartPolicy.NONE
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm(Request):
    """Confirm live changes, so that they are not undone."""

    verb: ClassVar[str] = "confirm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover(Request):
    """Finish or undo interrupted operations. at: when it is requested."""

    verb: ClassVar[str] = "recover"
    at: Moment = Moment.CALL

    @property
    def title(self) -> str:
        """Return the command as the history shows it."""
        titles = {Moment.BOOT: "boot", Moment.VERDICT: "verdict", Moment.TIMEOUT: "verdict"}
        return titles.get(self.at, self.verb)

    @property
    def is_for_users(self) -> bool:
        """A user can ask for it; at the other moments systemd does."""
        return self.at is Moment.CALL

    @property
    def is_automatic(self) -> bool:
        """Return whether systemd makes it."""
        return self.at is not Moment.CALL
