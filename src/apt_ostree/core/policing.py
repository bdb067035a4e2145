"""Carries out what the policy decides about a request: refuses it, or records that root overrides it.

A verb gathers facts where its plan is complete and nothing is touched yet, and calls `require`. The rules are
in `model.policy_rules`; `Request.reach` says which requests it is about.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from apt_ostree.core.state import marks, scanning
from apt_ostree.core.state.inventory import packages_of
from apt_ostree.errors import NotAuthorized, Refused, UsageError
from apt_ostree.model.events import PlanShown
from apt_ostree.model.policy import Decision, Incoming, Policy, Reason, Rule, Setting, Times, Windows
from apt_ostree.model.policy_rules import decide, judge_packages, judge_scan, judge_window, refuses_version
from apt_ostree.model.result import Result
from apt_ostree.system import calendar, journal

if TYPE_CHECKING:
    from apt_ostree.core.transaction import Transaction
    from apt_ostree.model.package import Package
    from apt_ostree.model.package_plan import PackagePlan
    from apt_ostree.model.verdict import Mark
    from apt_ostree.system.apt.resolver import Resolver

#: Seconds that the scanner may take, unless the settings say another number.
_SCAN_SECONDS = 600.0
#: How long an approval lasts, where the settings do not say (systemd.time(7)).
_APPROVAL_LASTS = "24h"
#: Reasons that the text of a refusal has.
_LINES = 20


def admit(tx: Transaction) -> None:
    """Judge the request itself, before anything is read or downloaded for it.

    Raises UsageError for a mistake in [Policy], NotAuthorized for an override by somebody else than root, and
    Refused.
    """
    if tx.reach is None:
        return
    if tx.reach.override and tx.caller.uid != 0:
        raise NotAuthorized("only root may override the policy", hint="leave --override-policy out")
    require_open(tx)


def require_open(tx: Transaction) -> None:
    """Judge the moment; raise Refused if a window is closed that has to be open for the request.

    It is judged again when a change is ready, which may be long after it was asked for.
    """
    if tx.reach is not None:
        windows = tx.policy.windows_for(tx.reach)
        judged = [judge_window(rule, row.setting, times_of(row)) for rule, row in windows.items()]
        require(tx, lambda _policy: judged)


def times_of(windows: Windows) -> Times:
    """Return how this moment lies to windows; raise UsageError for a text that systemd cannot read."""
    with _placed(windows.setting):
        return calendar.times(windows.windows, time.time())


@contextmanager
def _placed(setting: Setting | None) -> Iterator[None]:
    """Have a UsageError about a value say where it is set."""
    try:
        yield
    except UsageError as error:
        if setting is None:
            raise
        message = f"{setting.file}: [{setting.section}] {setting.key} cannot be read: {error.message}"
        raise UsageError(message, details=error.details, hint=error.hint) from error


def require_packages(tx: Transaction, packages: Iterable[Incoming]) -> None:
    """Judge the packages that a change brings; raise Refused if the policy does not allow one of them."""
    require(tx, lambda policy: judge_packages(policy, packages))


def require_plan(
    tx: Transaction, resolver: Resolver, plan: PackagePlan, present: Collection[Package]
) -> None:
    """Judge what a resolved plan brings; raise Refused if the policy does not allow it.

    present: the packages that the system has.
    """
    if tx.reach is not None:
        from apt_ostree.system.apt import offers

        require_packages(tx, offers.incoming(resolver, plan, present))


def require_approval(tx: Transaction, plan: PackagePlan | None = None, *commits: str) -> None:
    """Judge whether the plan of the request has the approval that it needs; raise Refused if not.

    The first place that knows a plan decides: what follows from it needs no other approval.

    commits: those that the plan is about, besides the transaction's subject.
    """
    if tx.reach is None or any(reason.rule is Rule.APPROVAL for reason in tx.reasons):
        return
    if not tx.policy.needs_approval(tx.reach):
        return
    from apt_ostree.model.approval import Asked, judge_approval, name_of
    from apt_ostree.system import approvals

    name = name_of(tx.reach, {**tx.subject, "commits": commits}, plan)
    reach, asked, since = tx.reach, Asked(name, person(tx)), time.time() - approval_lasts(tx)
    require(tx, lambda policy: judge_approval(policy, reach, asked, approvals.read(), since=since))


def approval_lasts(tx: Transaction) -> float:
    """Return the seconds that an approval lasts; raise UsageError for a text that systemd cannot read."""
    span = tx.policy.approval_expires
    with _placed(span.setting if span else None):
        return calendar.seconds_of(span.text if span else _APPROVAL_LASTS)


def person(tx: Transaction) -> int:
    """Return the id of the user who logged in, or else that of the caller."""
    return tx.caller.uid if tx.caller.login_uid is None else tx.caller.login_uid


def require_scanned(tx: Transaction, old: str, new: str) -> None:
    """Have the scanner look at what a commit has new; raise Refused if it does not accept that.

    It looks once at each commit, and not for a preview, which has none.

    old: the commit that the new one takes the place of.
    """
    if tx.reach is None or tx.policy.scanner is None or new in (old, *tx.scanned):
        return
    scanner, limit = tx.policy.scanner, tx.policy.scan_timeout
    name, failure = scanner.command[0], None
    if not tx.reach.preview:
        tx.tidy_at_end()  # of the files to look at
        with tx.task(f"Running {name}"), scanning.new_files(tx.sysroot, old, new) as directory:
            failure = directory and scanning.scan(
                scanner.command,
                directory,
                timeout=limit.value if limit else _SCAN_SECONDS,
                packages=packages_of(tx.sysroot.repo, new),
            )
    tx.scanned.add(new)
    complaint = (failure.details or (failure.message,)) if failure else None
    require(tx, lambda _policy: [judge_scan(scanner, complaint)])


def require_unfailed(tx: Transaction, mark: Mark | None, *, allowed: bool, preview: bool) -> None:
    """Raise Refused for a tree that has failed, unless the request allows that; for a preview only warn.

    mark: of the tree, if it has one.
    """
    if mark is None:
        return
    if allowed:
        tx.message(f"It has failed before and is tried again: {mark.describe()}")
    elif preview:
        tx.warning(f"it is refused without --allow-failed, as it has failed before: {mark.describe()}")
    else:
        raise marks.refusal(mark)


def hold_back(tx: Transaction, resolver: Resolver, *, tell: bool) -> None:
    """Have a resolver choose no version that the policy does not let in. tell: which upgrades that are."""
    if tx.reach is None or not tx.policy.holds_back:
        return
    from apt_ostree.system.apt import offers

    with tx.task("Applying the policy"):
        held = offers.hold_back(resolver, partial(refuses_version, tx.policy))
    if tell:
        tx.reasons += held
        for line in _some([str(reason) for reason in held]):
            tx.message(line)


def require(tx: Transaction, judge: Callable[[Policy], Iterable[Reason]]) -> None:
    """Add reasons to the decision about the request; raise Refused if it is not allowed.

    A preview is not refused: its decision is told at the end.
    """
    if tx.reach is None:
        return
    before = {(reason.rule, reason.subject) for reason in decision(tx).refusals}
    tx.reasons += judge(tx.policy)
    now = decision(tx)
    if tx.reach.preview:
        return
    if not now.allowed:
        raise _refusal(tx, now)
    _record(tx, [r for r in now.refusals if (r.rule, r.subject) not in before])


def told(tx: Transaction, result: Result) -> Result:
    """Return a result with the decision, which a preview also shows; without one if no rule is set."""
    if tx.reach is None or not tx.reasons:
        return result
    final = decision(tx).to_json()
    if tx.reach.preview:
        tx.report(PlanShown("policy", final))
    return replace(result, details={**result.details, "policy": final})


def decision(tx: Transaction) -> Decision:
    """Return the decision about the request, by the reasons so far."""
    return decide(tx.policy, tx.reasons, tx.reach.override if tx.reach else "")


def _refusal(tx: Transaction, refused: Decision) -> Refused:
    switch = tx.policy.override
    hint = "'apt-ostree policy' lists the settings"
    if plans := [reason.subject for reason in refused.refusals if reason.rule is Rule.APPROVAL]:
        hint += f"; 'apt-ostree approve {plans[0]}' approves the plan"
    if switch is None or switch.on:
        hint += "; root overrides them with --override-policy=REASON"
    return Refused(
        "the policy does not allow this change",
        details=_some([str(reason) for reason in refused.refusals]),
        hint=hint,
        reasons=[reason.to_json() for reason in refused.refusals],
    )


def _some(lines: Sequence[str]) -> list[str]:
    """Return the lines that fit a screen; all are in the JSON of the error."""
    more = len(lines) - _LINES
    return [*lines[:_LINES], *([f"and {more} more"] if more > 0 else [])]


def _record(tx: Transaction, overridden: Iterable[Reason]) -> None:
    """Write to the systemd journal which rules root overrides, and why."""
    assert tx.reach
    for reason in overridden:
        fields = {
            "APT_OSTREE_POLICY_RULE": reason.rule,
            "APT_OSTREE_POLICY_SETTING": str(reason.setting),
            "APT_OSTREE_POLICY_OVERRIDE": tx.reach.override,
            "APT_OSTREE_USER": tx.caller.user,
        }
        text = f"{tx.title}: {tx.caller.user} overrides the policy ({tx.reach.override}): {reason}"
        journal.send([text], fields=fields)
        tx.warning(f"overridden: {reason}")
