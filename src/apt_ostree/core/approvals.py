"""approve: a person agrees to one exact plan."""

from __future__ import annotations

import time

from apt_ostree.core import policing
from apt_ostree.core.transaction import Transaction
from apt_ostree.model.approval import Approval, checked_name
from apt_ostree.model.requests.policy import Approve
from apt_ostree.model.result import Result
from apt_ostree.system import approvals
from apt_ostree.system.caller import require_root


def approve(tx: Transaction, request: Approve) -> Result:
    """Record that the caller agrees to a plan, until the approval expires.

    Returns `plan`, `user` and `expires`, in seconds since 1970. Raises UsageError for a text that is no plan
    or a mistake in the settings, and NotAuthorized without root's rights.
    """
    require_root("approve a plan")
    plan, lasting, now = checked_name(request.plan), policing.approval_lasts(tx), time.time()
    approval = Approval(plan, tx.caller.user, policing.person(tx), now)
    approvals.write(approval, lambda old: old.time < now - lasting)
    tx.message(f"Plan {plan} is approved by {approval.user}.")
    details = {"plan": plan, "user": approval.user, "expires": now + lasting}
    return Result(changed=True, details=details)
