"""What every verb works with: the caller, the report, questions to the user, and the system's state.

A verb is a function `(transaction, request) -> Result`. It opens the system with `changing`, which takes the
lock. While a question to the user is open (`confirm`), the lock is released.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

from apt_ostree.core.operation import Operation
from apt_ostree.core.state import leftovers, reserve
from apt_ostree.core.state.live import LiveState, read_live_state
from apt_ostree.errors import AptOstreeError, Cancelled, Refused, UsageError
from apt_ostree.model.audit import Kind
from apt_ostree.model.caller import Caller
from apt_ostree.model.deployment import Deployment, Deployments
from apt_ostree.model.events import Message, PlanShown, Report, task
from apt_ostree.model.policy import Policy, Reason
from apt_ostree.model.policy_settings import read_policy
from apt_ostree.model.reach import Reach
from apt_ostree.model.settings import Settings
from apt_ostree.system import mounts, signals, statedb
from apt_ostree.system import settings as settings_files
from apt_ostree.system.caller import read_caller, require_root
from apt_ostree.system.ostree.sysroot import Sysroot, require_booted
from apt_ostree.system.statedb import StateDb

#: Asks the user; returns whether to proceed with the plan that was shown.
Ask = Callable[[], bool]


class Clock:
    """Reports and measures the four phases of a live change.

    seconds: the duration of each phase, by its name.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._running: tuple[str, float] | None = None
        self.seconds: dict[str, float] = {}

    def begin(self, name: str) -> None:
        """Begin one of detection, preparation, application, verification; the phase before it ends."""
        self.stop()
        self._report(Message(f"{name.capitalize()}:"))
        self._running = (name, time.monotonic())

    def stop(self) -> None:
        """End the current phase, if any."""
        if self._running:
            name, began = self._running
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 3)
            self._running = None


class Transaction:
    """One request while it is carried out.

    report: receives the events.
    title: the command as the history shows it.
    clock: measures a live change.
    ask: asks the user; None: plans are not confirmed.
    wait: whether to wait for another program that changes the system.
    reach: how far the request goes; None: the policy is not about it.
    reasons: what the policy's rules say about it so far (core.policing).
    scanned: the commits that the policy's scanner has looked at.
    subject: the commits and the origin that it is about, once they are determined.
    operation: the record of the request; None: it is not recorded.
    """

    def __init__(
        self,
        report: Report,
        title: str,
        *,
        ask: Ask | None = None,
        wait: bool = True,
        reach: Reach | None = None,
        operation: Operation | None = None,
    ) -> None:
        self.report = report
        self.title = title
        self.clock = Clock(report)
        self.reach = reach
        self.reasons: list[Reason] = []
        self.scanned: set[str] = set()
        self.subject: Mapping[str, Any] = {}
        self._ask = ask
        self._wait = wait
        self._operation = operation
        self._sysroot: Sysroot | None = None
        self._opened = ExitStack()
        self._untidy = self._thorough = False

    # --- events

    def message(self, text: str) -> None:
        """Report a message to the user."""
        self.report(Message(text))

    def warning(self, text: str) -> None:
        """Report a warning to the user."""
        self.report(Message(text, "warning"))

    def task(self, title: str) -> AbstractContextManager[None]:
        """Return a context manager that reports a task's begin, and its end if it succeeds."""
        return task(self.report, title)

    def record(self, kind: Kind, message: str, **further: str) -> None:
        """Record an event of this request, in the history and in the systemd journal; see docs/audit.md."""
        if self._operation:
            self._operation.event(kind, message, **further)

    # --- the system

    @contextmanager
    def changing(self, what: str) -> Iterator[None]:
        """Open and lock the running system for a change, in a private mount namespace.

        what: the change, for messages.

        Raises NotAuthorized without root's rights. Raises Refused if the system was not booted with OSTree,
        or if it is locked and the client does not wait.
        """
        require_root(what)
        require_booted()
        mounts.enter_private_namespace()
        with self._opened:
            self._sysroot = self._opened.enter_context(Sysroot(writable=True, on_wait=self._on_wait))
            if self._operation and not self._operation.is_off:
                with suppress(AptOstreeError, OSError):  # what needs the deployments tells of it
                    self._operation.before = self._next_commit()
                self._operation.begin()
            try:
                yield
            finally:
                if self._untidy:
                    self._tidy()
                if self._operation and self._operation.number:
                    self.reread()
                    with suppress(AptOstreeError, OSError):  # which the change has told of
                        self._operation.after = self._next_commit()

    def _next_commit(self) -> str:
        """Return the commit that the next boot starts; "" without one."""
        merge = self.deployments.merge
        return merge.checksum if merge else ""

    def tidy_at_end(self, *, thorough: bool = False) -> None:
        """Have what nothing needs any more removed when the change has ended, with or without an error.

        It is called before anything is written that may become superfluous.

        thorough: see Sysroot.cleanup.
        """
        self._untidy = True
        self._thorough |= thorough

    def _tidy(self) -> None:
        self.reread()
        with signals.held(lambda: None) as too_late:
            try:
                leftovers.remove(self.sysroot, self.records, self.deployments, thorough=self._thorough)
                reserve.keep(self.sysroot)
            except (AptOstreeError, OSError) as error:  # the change itself has ended by now
                self.warning(f"not everything that nothing needs any more was removed: {error}")
            too_late.clear()

    def _on_wait(self) -> None:
        if not self._wait:
            raise Refused(
                "another program is changing the system",
                hint="wait for it to end, or leave --no-wait out",
            )
        self.message("Another program is changing the system; waiting for it to end...")

    @cached_property
    def caller(self) -> Caller:
        """The user who made the request."""
        return read_caller()

    @property
    def sysroot(self) -> Sysroot:
        """The system root, which `changing` has opened."""
        assert self._sysroot, "the system is not open"
        return self._sysroot

    @cached_property
    def records(self) -> StateDb:
        """The state database: live changes, overlays and the history."""
        operation = self._operation
        return self._opened.enter_context(
            statedb.opened(operation.number_for_history) if operation else statedb.opened()
        )

    @cached_property
    def settings(self) -> Settings:
        """The administrator's settings. Raises UsageError for a file with an error."""
        return settings_files.load()

    @cached_property
    def safe_settings(self) -> Settings:
        """The settings, or the defaults if a file has an error: that must not prevent an undo."""
        try:
            return self.settings
        except UsageError:
            return Settings()

    @cached_property
    def policy(self) -> Policy:
        """The policy of this moment. Raises UsageError for a mistake in it, or in another setting."""
        return read_policy(self.settings.policy).at(datetime.now().astimezone())

    @cached_property
    def deployments(self) -> Deployments:
        """The deployments, as last read."""
        return self.sysroot.deployments()

    @cached_property
    def live(self) -> LiveState:
        """The live state, as last read. Raises Refused if no deployment is booted."""
        return read_live_state(self.deployments, self.records)

    @property
    def merge_deployment(self) -> Deployment:
        """The deployment that a new one is based on. Raises Refused if there is none."""
        merge = self.deployments.merge
        if merge is None:
            raise Refused("there is no deployment to start from")
        return merge

    def reread(self) -> None:
        """Discard the cached state, so that it is read again after a change."""
        for name in ("deployments", "live"):
            self.__dict__.pop(name, None)

    # --- the user

    def agree(self, plan: PlanShown) -> None:
        """Show a plan that is not about this system and ask the user; Cancelled if the user declines."""
        self.report(replace(plan, confirm=self._ask is not None))
        if self._ask and not self._ask():
            raise Cancelled("not confirmed; nothing was changed")

    def confirm(self, plan: PlanShown, *, commits: Iterable[str] = ()) -> None:
        """Show a plan and ask the user whether to proceed.

        The lock is released while the question is open, because an unconfirmed change (--confirm-within) must
        be undone in time. Raises Cancelled if the user declines. Raises Refused if the system was changed
        before the answer came, or if one of `commits` was removed.
        """
        if self._ask is None:
            self.report(plan)
            return
        self.clock.stop()  # the time that the user takes does not count
        fingerprint = self._fingerprint()
        with self.sysroot.unlocked():
            self.report(replace(plan, confirm=True))
            agreed = self._ask()
        self.__dict__.pop("records", None)  # another program may have made the database meanwhile
        self.reread()
        if not agreed:
            raise Cancelled("not confirmed; nothing was changed")
        removed = [commit for commit in commits if not self.sysroot.repo.has_commit(commit)]
        if removed or self._fingerprint() != fingerprint:
            raise Refused(
                "the system was changed while the question was open; the plan is about its earlier state",
                hint="run the command again to see what it means now",
            )

    def _fingerprint(self) -> object:
        """Return the state that a plan depends on; equal values mean that nothing was changed in between."""
        generations = tuple((g.id, g.boot_id, g.phase, g.target) for g in self.records.generations())
        return self.deployments, generations, self.records.overlays()
