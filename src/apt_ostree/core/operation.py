"""The record of one request: who asked for what, how it ended, and what happened meanwhile.

The worker makes one for each request, `Transaction.changing` begins it, and the worker ends it. What is asked
for on a system that OSTree did not boot, a dry run, and a compose are not recorded. What systemd requests at
boot and shutdown is recorded only when there is something to tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from apt_ostree.errors import AptOstreeError, Cancelled, ExternalFailure, NotAuthorized, Refused, UsageError
from apt_ostree.model import audit
from apt_ostree.model.audit import Kind, Record
from apt_ostree.model.caller import Caller
from apt_ostree.model.events import Event, PlanShown
from apt_ostree.model.request import Request
from apt_ostree.model.result import Result
from apt_ostree.model.settings import Settings
from apt_ostree.system import auditlog, running
from apt_ostree.system.caller import is_of_service, read_caller

_KINDS: dict[type[AptOstreeError], Kind] = {
    Cancelled: Kind.CANCELLED,
    NotAuthorized: Kind.DENIED,
    Refused: Kind.REFUSED,
    UsageError: Kind.REFUSED,
}


class Operation:
    """One request while it is carried out.

    number: in the history; 0 as long as it has none.
    before, after: see Record.
    is_off: whether nothing is recorded.
    warn: tells the user that something could not be recorded.
    """

    def __init__(self, request: Request, warn: Callable[[str], None]) -> None:
        self.number = 0
        self.before = self.after = ""
        self._request = request
        self._warn = warn
        self._began = time.time_ns() // 1000
        self._plan: PlanShown | None = None
        self._is_listed = self._must_end = False
        self.is_off = not (request.is_recorded and running.booted_on_ostree())

    @cached_property
    def _caller(self) -> Caller:
        return read_caller()

    def note(self, event: Event) -> None:
        """Remember the plan that is shown."""
        if isinstance(event, PlanShown):
            self._plan = event

    def begin(self) -> None:
        """Record the begin, now that the system is locked.

        Raises ExternalFailure if that cannot be written and the request neither frees space nor goes back.
        """
        if self.is_off or self._request.is_automatic or self.number:
            return
        try:
            self.number = auditlog.begin(self._record(Kind.BEGAN))
        except (AptOstreeError, OSError) as error:
            if not _is_unhindered(self._request):
                raise ExternalFailure(
                    "nothing was begun, because it could not be recorded in the history",
                    details=(str(error),),
                    hint="free some space: 'apt-ostree cleanup' still works; move a damaged file away",
                ) from error
            self._fail(error)

    def number_for_history(self) -> int:
        """Return the number for an entry of the history: that of the operation, then later ones."""
        if self.is_off:
            return 0
        if not self.number:
            self._begin_late()
        if self.number and not self._is_listed:
            self._is_listed = True
            return self.number
        return auditlog.highest_number() + 1

    def event(self, kind: Kind, message: str, reasons: Sequence[str] = (), **further: str) -> None:
        """Record something that happens meanwhile.

        reasons: details of an error. further: fields of their own; see docs/audit.md.
        """
        if self.is_off:
            return
        self._begin_late()
        self._add(self._record(kind, message=message, reasons=tuple(reasons), further=further))

    def end(self, result: Result, settings: Settings) -> None:
        """Record that the request was carried out, and remove records that are too old."""
        self._end(
            Kind.DONE,
            settings,
            changed=result.changed,
            next_boot=result.next_boot,
            generation=_generation_of(result),
            exit_code=0,
        )

    def fail(self, error: AptOstreeError, settings: Settings) -> None:
        """Record that the request failed or was refused, and why."""
        kind = _kind_of(error)
        if error.concerns_trust:
            self.event(Kind.SECURITY, error.message, error.details)
        self._must_end = True
        self._end(
            kind,
            settings,
            changed=False,
            exit_code=error.exit_code,
            message=error.message,
            reasons=error.details,
        )

    def _end(self, kind: Kind, settings: Settings, **more: Any) -> None:
        if self.is_off or not (self.number or self._must_end or not self._request.is_automatic):
            return
        record = self._record(kind, **more)
        if not self._add(record, numbered=not self.number):
            return
        try:
            auditlog.prune(settings.history_keep, settings.history_records, record)
        except (AptOstreeError, OSError) as error:
            self._fail(error)

    def _begin_late(self) -> None:
        """Begin what is recorded only when there is something to tell."""
        if not self.number:
            try:
                self.number = auditlog.begin(self._record(Kind.BEGAN))
            except (AptOstreeError, OSError) as error:
                self._fail(error)

    def _add(self, record: Record, *, numbered: bool = False) -> bool:
        """Append a record, and return whether that was possible."""
        try:
            auditlog.add(record, numbered=numbered)
        except PermissionError:
            return False  # without root's rights: the systemd journal has it
        except (AptOstreeError, OSError) as error:
            self._fail(error)
            return False
        return True

    def _fail(self, error: AptOstreeError | OSError) -> None:
        self._warn(f"the history does not have it, only the systemd journal does: {error}")

    def _record(self, kind: Kind, **more: Any) -> Record:
        plan = self._plan.plan if self._plan else {}
        is_live = bool(self._plan and self._plan.kind == "live")
        return Record(
            kind=kind,
            operation=self.number,
            began=self._began,
            caller=self._caller,
            via="bus" if is_of_service() else "direct",
            **_asked(self._request),
            plan=audit.digest_of(plan) if plan else "",
            before=self.before,
            after=self.after,
            source=str(plan.get("source", "")) if is_live else "",
            target=str(plan.get("target", "")) if is_live else "",
            packages=audit.packages_of(plan),
            **more,
        )


def _is_unhindered(request: Request) -> bool:
    """Return whether a record that cannot be written is not in the way: it frees space or goes back."""
    goes_back = request.verb in ("apply-live", "usroverlay") and request.reach is None
    return goes_back or request.verb in audit.UNHINDERED


def _kind_of(error: AptOstreeError) -> Kind:
    return next((kind for cls, kind in _KINDS.items() if isinstance(error, cls)), Kind.FAILED)


def _generation_of(result: Result) -> int | None:
    number = result.details.get("generation")
    return number if isinstance(number, int) else None


def _asked(request: Request) -> dict[str, Any]:
    """Return the fields of a record about a request."""
    return {
        "verb": request.verb,
        "title": request.title,
        "arguments": audit.arguments_of(request.given()),
        "request": audit.digest_of(request.with_indexes().to_json()),
    }


def note_refusal(caller: Caller, what: Request | str, error: AptOstreeError) -> None:
    """Record that a request of a client of the service, or something else by this title, came to no worker.

    What cannot be written, or is too much of one user, is in the systemd journal alone.
    """
    if not running.booted_on_ostree():
        return
    record = Record(
        kind=_kind_of(error),
        caller=caller,
        via="bus",
        changed=False,
        exit_code=error.exit_code,
        message=error.message,
        reasons=error.details,
        **({"title": what, "verb": what.split()[0]} if isinstance(what, str) else _asked(what)),
    )
    if _DENIALS.may(caller.uid, time.monotonic()):
        try:
            auditlog.add(record, numbered=True)
        except (AptOstreeError, OSError):
            pass  # the journal has it
    else:
        auditlog.tell(record)


class Allowance:
    """How much may be recorded of each user in a while, so that nobody can fill the history.

    most: records that a user has at first, and gains again within `span` seconds.
    """

    def __init__(self, most: int, span: float) -> None:
        self._most, self._span = most, span
        self._left: dict[int, tuple[float, float]] = {}

    def may(self, uid: int, now: float) -> bool:
        """Return whether a record of a user may be made now, in seconds, and count it."""
        left, since = self._left.get(uid, (float(self._most), now))
        left = min(float(self._most), left + (now - since) * self._most / self._span)
        self._left[uid] = (left - 1 if left >= 1 else left, now)
        return left >= 1


_DENIALS = Allowance(20, 600.0)
