"""What every verb works with: who asks, the way to tell and to ask, and the system, read once.

A verb is a function `(transaction, request) -> Result`. It opens the system with `changing`, which takes the
lock; a question to the user (`confirm`) lets go of it for as long as it is open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property

from apt_ostree.core.state.live import LiveState, read_live_state
from apt_ostree.errors import Cancelled, Refused, UsageError
from apt_ostree.model.caller import Caller
from apt_ostree.model.deployment import Deployment, Deployments
from apt_ostree.model.events import Message, PlanShown, Report, task
from apt_ostree.model.settings import Settings
from apt_ostree.system import mounts, statedb
from apt_ostree.system import settings as settings_files
from apt_ostree.system.caller import read_caller, require_root
from apt_ostree.system.ostree.sysroot import Sysroot, require_booted
from apt_ostree.system.statedb import StateDb

#: Asks the user; returns whether to go ahead with the plan that was shown.
Ask = Callable[[], bool]


class Clock:
    """Announces and measures the four steps of a live change."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._running: tuple[str, float] | None = None
        self.seconds: dict[str, float] = {}

    def begin(self, name: str) -> None:
        """Begin one of detection, preparation, application, verification; the one before ends."""
        self.stop()
        self._report(Message(f"{name.capitalize()}:"))
        self._running = (name, time.monotonic())

    def stop(self) -> None:
        """End the step that runs."""
        if self._running:
            name, began = self._running
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 3)
            self._running = None


class Transaction:
    """One request on its way.

    title: the command as the history shows it; ask: asks the user, None where nobody is asked; wait: whether
    to wait for another program that changes the system.
    """

    def __init__(self, report: Report, title: str, *, ask: Ask | None = None, wait: bool = True) -> None:
        self.report = report
        self.title = title
        self.clock = Clock(report)
        self._ask = ask
        self._wait = wait
        self._sysroot: Sysroot | None = None
        self._opened = ExitStack()

    # --- what happens

    def message(self, text: str) -> None:
        """Tell the user something."""
        self.report(Message(text))

    def warning(self, text: str) -> None:
        """Warn the user."""
        self.report(Message(text, "warning"))

    def task(self, title: str) -> AbstractContextManager[None]:
        """Announce a step, and its end when it succeeds."""
        return task(self.report, title)

    # --- the system

    @contextmanager
    def changing(self, what: str) -> Iterator[None]:
        """Open the running system for a change, as root and alone, in a private mount namespace."""
        require_root(what)
        require_booted()
        mounts.enter_private_namespace()
        with self._opened:
            self._sysroot = self._opened.enter_context(Sysroot(writable=True, on_wait=self._on_wait))
            yield

    def _on_wait(self) -> None:
        if not self._wait:
            raise Refused(
                "another program is changing the system",
                hint="wait for it to end, or leave --no-wait out",
            )
        self.message("Another program is changing the system; waiting for it to end...")

    @cached_property
    def caller(self) -> Caller:
        """Who asks."""
        return read_caller()

    @property
    def sysroot(self) -> Sysroot:
        """The system, which `changing` has opened."""
        assert self._sysroot, "the system is not open"
        return self._sysroot

    @cached_property
    def records(self) -> StateDb:
        """The records of live changes and overlays."""
        return self._opened.enter_context(statedb.opened())

    @cached_property
    def settings(self) -> Settings:
        """The administrator's settings; UsageError where a file is wrong."""
        return settings_files.load()

    @cached_property
    def safe_settings(self) -> Settings:
        """The settings, or the defaults: for going back, from which a mistake in a file keeps nobody."""
        try:
            return self.settings
        except UsageError:
            return Settings()

    @cached_property
    def deployments(self) -> Deployments:
        """The deployments, as this transaction saw them last."""
        return self.sysroot.deployments()

    @cached_property
    def live(self) -> LiveState:
        """What the running system shows, as this transaction saw it last."""
        return read_live_state(self.deployments, self.records)

    @property
    def merge_deployment(self) -> Deployment:
        """The deployment that a new one is made from."""
        merge = self.deployments.merge
        if merge is None:
            raise Refused("there is no deployment to start from")
        return merge

    def reread(self) -> None:
        """Have the state of the system read again, since it was changed."""
        for name in ("deployments", "live"):
            self.__dict__.pop(name, None)

    # --- the user

    def confirm(self, plan: PlanShown, *, commits: Iterable[str] = ()) -> None:
        """Show a plan, and ask whether to go ahead; Cancelled if not.

        While the question is open, others may change the system: an expiry of --confirm-within above all has
        to happen in time. So the answer is about what is there then; where that is something else, or one of
        `commits` is gone, Refused is raised.
        """
        if self._ask is None:
            self.report(plan)
            return
        self.clock.stop()  # a person's time is not ours
        before = self._fingerprint()
        with self.sysroot.unlocked():
            self.report(replace(plan, confirm=True))
            agreed = self._ask()
        self.reread()
        if not agreed:
            raise Cancelled("not confirmed; nothing was changed")
        gone = [commit for commit in commits if not self.sysroot.repo.has_commit(commit)]
        if gone or self._fingerprint() != before:
            raise Refused(
                "the system was changed while the question was open; the plan is about what was there before",
                hint="run the command again to see what it means now",
            )

    def _fingerprint(self) -> object:
        """Return what a plan rests on: two that are equal mean that nothing was changed in between."""
        generations = tuple((g.id, g.boot_id, g.phase, g.target) for g in self.records.generations())
        return self.deployments, generations, self.records.overlays()
