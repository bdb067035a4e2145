"""Approvals: a person's agreement to one exact plan, which is named by a digest of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.model import jsonvalue
from apt_ostree.model.package_plan import PackagePlan
from apt_ostree.model.policy import Policy, Reason, Rule
from apt_ostree.model.reach import Reach

#: Hexadecimal digits of the name of a plan: who asks for a change chooses what is in it.
_DIGITS = 40


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval.

    plan: the name of the plan.
    user, uid: who approved it: the user who logged in, even if root's rights were used.
    time: when, in seconds since 1970.
    """

    plan: str
    user: str
    uid: int
    time: float

    def to_text(self) -> str:
        """Return the text of its record."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_text(text: str) -> Approval:
        """Return the approval of a record; raise UsageError for a text that is none."""
        try:
            value = json.loads(text)
        except ValueError as error:
            raise UsageError(f"the record of an approval cannot be read: {error}") from error
        return jsonvalue.read(Approval, value, name="the record of an approval")


@dataclass(frozen=True, slots=True)
class Asked:
    """A plan for which an approval may be needed.

    plan: its name.
    uid: of the user who asks for the change.
    """

    plan: str
    uid: int


def checked_name(text: str) -> str:
    """Return the name of a plan; raise UsageError for another text."""
    if len(text) != _DIGITS or set(text) - set("0123456789abcdef"):
        raise UsageError(
            f"{text!r} is no plan: its name has {_DIGITS} hexadecimal digits",
            hint="'apt-ostree policy VERB ...' shows it",
        )
    return text


def name_of(reach: Reach, subject: Mapping[str, Any], plan: PackagePlan | None) -> str:
    """Return the name of a plan: a digest of what is done, to which state, with which packages.

    subject: the commits and the origin that the request is about.
    """
    steps = [
        (kind, step.name, step.architecture, step.old, step.new)
        for kind in ("install", "upgrade", "downgrade", "remove")
        for step in (getattr(plan, kind) if plan else ())
    ]
    value = {"verb": reach.verb, "live": reach.live, "subject": subject, "steps": steps}
    text = json.dumps(value, sort_keys=True, default=sorted)  # sets have no order of their own
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:_DIGITS]


def judge_approval(
    policy: Policy, reach: Reach, asked: Asked, approvals: Iterable[Approval], *, since: float
) -> tuple[Reason, ...]:
    """Return what the settings say about a plan, if it needs an approval.

    since: the time, in seconds since 1970, before which an approval is too old.
    """
    if policy.approval is None or not policy.needs_approval(reach):
        return ()
    given = [approval for approval in approvals if approval.plan == asked.plan]
    fresh = [approval for approval in given if approval.time >= since]
    others = [approval for approval in fresh if approval.uid != asked.uid]
    needs_other = policy.approval_by is not None and policy.approval_by.other
    if valid := (others if needs_other else fresh):
        text = f"plan {asked.plan} was approved by {valid[-1].user}"
        return (Reason(Rule.APPROVAL, True, text, policy.approval.setting, asked.plan),)
    setting = policy.approval.setting
    text = f"{reach.verb} needs an approval of plan {asked.plan}"
    if fresh and policy.approval_by:
        text, setting = f"{text} by another person than {fresh[-1].user}", policy.approval_by.setting
    elif given:
        text = f"{text}; that of {given[-1].user} has expired"
        setting = policy.approval_expires.setting if policy.approval_expires else setting
    return (Reason(Rule.APPROVAL, False, text, setting, asked.plan),)
