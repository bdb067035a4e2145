"""Automatic updates: one run decides what may be done now, does it, and remembers how it ended.

`run` is the whole course of one run. It decides by model.automatic and acts through a `World`, so that a test
can give it another clock and another machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from apt_ostree.core import packages, policing, updates
from apt_ostree.core.apply_live import apply_pending
from apt_ostree.core.deploy import Target, deploy
from apt_ostree.core.live.planning import plan_change
from apt_ostree.core.overlays import stack
from apt_ostree.core.state import etc_deltas
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import AptOstreeError, Cancelled, ExternalFailure, Refused, from_os_error
from apt_ostree.model import automatic, layout
from apt_ostree.model.automatic import Facts, Offer, Reason, Record
from apt_ostree.model.automatic_settings import POLICY_KEY, AutomaticSettings, Policy
from apt_ostree.model.prediction import Prediction, predict
from apt_ostree.model.reach import Reach
from apt_ostree.model.requests.automatic import AutomaticUpdate
from apt_ostree.model.requests.live import ApplyLive
from apt_ostree.model.requests.options import DeployOptions, LiveOptions
from apt_ostree.model.requests.packages import Upgrade
from apt_ostree.model.result import Result
from apt_ostree.system import automatic_record, available_update, conditions, hooks, motd
from apt_ostree.system.caller import require_root


class World(Protocol):
    """What a run sees and does. Errors of what it does are those of the verbs."""

    def facts(self) -> Facts:
        """Return the facts of the machine, now."""

    def check(self) -> Offer | None:
        """Look for an update and note it; None if there is none."""

    def halt(self) -> str | None:
        """Return the text of the file that halts updates; None if it cannot be read."""

    def stage(self, *, live: bool) -> str:
        """Make a deployment of the update that was noted; return its commit. live: and apply it, or none."""

    def predict(self) -> Prediction | None:
        """Return what the pending deployment would mean; None if that cannot be told."""

    def pending(self) -> Offer | None:
        """Return what the pending deployment is; None without one."""

    def is_live(self) -> bool:
        """Return whether the running system shows the pending deployment."""

    def apply_live(self) -> None:
        """Apply the pending deployment to the running system."""

    def may_reboot(self) -> str:
        """Ask the administrator's command; return why not, or "". Raises Refused, too, as policies do."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended.

    changed: something was staged or applied.
    reboot: the caller is to reboot.
    failure: what the run failed with.
    """

    record: Record
    changed: bool = False
    reboot: bool = False
    failure: AptOstreeError | None = None


def run(policy: Policy, settings: AutomaticSettings, record: Record, world: World) -> Ran:
    """Do what the policy says, as far as nothing is against it now. Raises Cancelled."""
    facts = world.facts()
    record = replace(record, last_run=facts.now, policy=policy, reasons=())
    if reasons := automatic.against_run(settings, record, facts):
        return _deferred(record, reasons)
    offers: list[Offer | None] = []
    if problem := _problem(lambda: offers.append(world.check())):
        return _ended_by(record, problem)
    (offer,) = offers
    waits = bool(record.staged and world.pending()) and not world.is_live()
    record = _noted(record, offer, facts, waits=waits)
    if policy is Policy.CHECK or not (offer or waits):
        return Ran(record)
    ran = _stage(policy, settings, record, world, offer) if offer else Ran(record)
    return ran if ran.failure or ran.record.reasons else _put_in_force(policy, settings, ran, world)


def _noted(record: Record, offer: Offer | None, facts: Facts, *, waits: bool) -> Record:
    """Return the record after a check. waits: a deployment of ours is pending and not live."""
    if not (offer or waits):
        return replace(_fresh(record), outcome="current", waiting_since=0.0, staged="", prediction=None)
    record = replace(record, outcome="staged" if waits else "noted")
    record = replace(record, waiting_since=record.waiting_since or facts.now)
    if offer and offer.identity != record.target:
        record = replace(_fresh(record), outcome="noted", target=offer.identity, since=facts.now)
    return record


def _fresh(record: Record) -> Record:
    """Return the record without failures."""
    return replace(record, attempts=0, failed_at=0.0, failure="")


def _stage(policy: Policy, settings: AutomaticSettings, record: Record, world: World, offer: Offer) -> Ran:
    """Make a deployment of an update; apply it in the same step if it may and can be live.

    So an update that fails live is not there at the next boot either.
    """
    facts, halt = world.facts(), world.halt()
    failed = automatic.failed_before(policy, offer)
    if reasons := (*failed, *automatic.against_stage(settings, record, facts, offer, halt)):
        return _deferred(record, reasons)
    staged: list[str] = []
    if policy is Policy.LIVE and not automatic.against_live(settings, record, facts, offer, halt):
        problem = _problem(lambda: staged.append(world.stage(live=True)))
        if problem is None:
            record = replace(_fresh(record), outcome="live", staged=staged[0], waiting_since=0.0)
            return Ran(replace(record, prediction=None), changed=True)
        if not isinstance(problem, Refused):  # else it may be possible without
            return _failed(record, world, problem)
    if ended := _attempt(record, world, lambda: staged.append(world.stage(live=False))):
        return ended
    record = replace(_fresh(record), outcome="staged", staged=staged[0], prediction=world.predict())
    return Ran(record, changed=True)


def _put_in_force(policy: Policy, settings: AutomaticSettings, ran: Ran, world: World) -> Ran:
    """Reboot, or change the running system, for a deployment that an automatic update has made."""
    record, pending = ran.record, world.pending()
    if policy is Policy.STAGE or pending is None or world.is_live():
        return ran
    facts, halt = world.facts(), world.halt()
    if policy is Policy.LIVE:
        if reasons := automatic.against_live(settings, record, facts, pending, halt):
            return replace(_deferred(record, reasons), changed=ran.changed)
        if ended := _attempt(record, world, world.apply_live):
            return replace(ended, changed=ran.changed)
        return Ran(replace(_fresh(record), outcome="live", waiting_since=0.0), changed=True)
    if reasons := automatic.against_reboot(settings, record, facts, pending, halt):
        return replace(_deferred(record, reasons), changed=ran.changed)
    texts: list[str] = []
    if problem := _problem(lambda: texts.append(world.may_reboot())):
        return replace(_ended_by(record, problem), changed=ran.changed)
    if text := texts[0]:
        reason = Reason(text, "BeforeReboot", hard=True)
        return replace(_deferred(record, [reason]), changed=ran.changed)
    return replace(ran, record=replace(record, outcome="reboot"), reboot=True)


def _attempt(record: Record, world: World, act: Callable[[], object]) -> Ran | None:
    """Act; return how it ended unless it succeeded. A failure counts for this update."""
    problem = _problem(act)
    if problem is None:
        return None
    return _ended_by(record, problem) if isinstance(problem, Refused) else _failed(record, world, problem)


def _failed(record: Record, world: World, problem: AptOstreeError) -> Ran:
    now, attempts = world.facts().now, record.attempts + 1
    return _ended_by(replace(record, attempts=attempts, failed_at=now, failure=problem.message), problem)


def _problem(act: Callable[[], object]) -> AptOstreeError | None:
    """Act; return the error, unless it is a cancel, which is raised."""
    try:
        act()
    except Cancelled:
        raise
    except AptOstreeError as error:
        return error
    except OSError as error:
        return from_os_error(error)
    return None


def _ended_by(record: Record, problem: AptOstreeError) -> Ran:
    """Return how a run ended that an error ended. A refusal is no failure: it holds for now."""
    if not isinstance(problem, Refused):
        return Ran(replace(record, outcome="failed", reasons=(problem.message,)), failure=problem)
    return _deferred(record, [Reason("; ".join((problem.message, *problem.details)), hard=True)])


def _deferred(record: Record, reasons: Iterable[Reason]) -> Ran:
    told = tuple(f"{one.text} [{one.setting}]" if one.setting else one.text for one in reasons)
    return Ran(replace(record, outcome="deferred", reasons=told))


# --- the verb


def update(tx: Transaction, request: AutomaticUpdate) -> Result:
    """Carry out the policy of automatic updates.

    Returns `policy`, `outcome` (current, noted, staged, live, reboot, deferred) and `reasons`; a reboot is
    the caller's to make. Raises what a failed step raised, after it was recorded.
    """
    if request.after_reboot:
        return _after_reboot(tx)
    policy = request.policy or tx.settings.automatic_policy
    if policy is Policy.NONE:
        tx.message(f"Automatic updates are off ({POLICY_KEY}=none).")
        return Result(changed=False, details={"policy": policy, "outcome": "none", "reasons": []})
    settings = tx.settings.automatic
    with tx.changing("update the system automatically"):
        before = automatic_record.read() or Record()
        ran = run(policy, settings, before, _System(tx, settings))
        automatic_record.write(ran.record)
        if ran.reboot and settings.after_reboot:
            automatic_record.REBOOTING.touch()
    _tell(tx, settings, before, ran)
    if ran.failure:
        raise ran.failure
    return Result(
        changed=ran.changed,
        live=ran.record.outcome == "live",
        next_boot=ran.reboot,
        details={"policy": policy, "outcome": ran.record.outcome, "reasons": list(ran.record.reasons)},
    )


def _tell(tx: Transaction, settings: AutomaticSettings, before: Record, ran: Ran) -> None:
    """Tell how a run ended: its client, users who log in, and the administrator's command."""
    record = ran.record
    for line in automatic.describe(record):
        tx.message(line)
    motd.write("apt-ostree", automatic.message_of_the_day(record) if settings.motd else "")
    if settings.notify and (record.outcome, record.target) != (before.outcome, before.target):
        error = hooks.run(settings.notify, text=json.dumps(asdict(record)))
        if error:
            tx.warning(f"the command of Notify= failed: {error}")


def _after_reboot(tx: Transaction) -> Result:
    """Run the administrator's command after a reboot that an automatic update has made, until it succeeds."""
    require_root("run the command after a reboot")
    command = tx.settings.automatic.after_reboot
    if failure := hooks.run(command) if command else "":
        raise ExternalFailure("the command of AfterReboot= failed", details=(failure,))
    automatic_record.REBOOTING.unlink(missing_ok=True)
    return Result(changed=bool(command))


class _System:
    """This machine, as a run sees it."""

    def __init__(self, tx: Transaction, settings: AutomaticSettings) -> None:
        self._tx = tx
        self._settings = settings
        self._target: Target | None = None
        self._halt: list[str | None] = []

    def facts(self) -> Facts:
        return conditions.read()

    def check(self) -> Offer | None:
        tx, options = self._tx, DeployOptions(dry_run=True)
        with self._judged(Upgrade(check=True).reach):
            target = packages.upgrade_target(tx, Upgrade())
            result = deploy(tx, target, options)
        updates.note(tx, target, result.details["transaction"])
        if not result.changed:
            return None
        self._target = target
        offer = automatic.offer_of(available_update.read(tx.merge_deployment.checksum), target.commit)
        return replace(offer, failed=result.details.get("failed", {}))

    def halt(self) -> str | None:
        if not self._settings.halt:
            return ""
        if not self._halt:
            self._halt.append(conditions.fetch(self._settings.halt))
        return self._halt[0]

    def stage(self, *, live: bool) -> str:
        assert self._target, "there was a check before"
        options = DeployOptions(live=self._live_options if live else None)
        with self._judged(Upgrade(deploy=options).reach):
            deploy(self._tx, self._target, options)
        return self._tx.merge_deployment.checksum

    def predict(self) -> Prediction | None:
        tx, commit = self._tx, self._tx.merge_deployment.checksum
        plans = []

        def plan() -> None:
            delta = etc_deltas.read(commit)
            plans.append(plan_change(tx, stack.goal_on(tx, commit), self._live_options, delta=delta).plan)

        if problem := _problem(plan):
            tx.warning(f"what the update would mean cannot be told: {problem.message}")
            return None
        return predict(commit, plans[0], tx.records.history())

    def pending(self) -> Offer | None:
        pending, repo = self._tx.deployments.pending, self._tx.sysroot.repo
        if pending is None:
            return None
        base = repo.base_of(pending.checksum)
        return Offer(pending.checksum, base, repo.metadata(base).get(layout.META_VERSION))

    def is_live(self) -> bool:
        pending = self._tx.deployments.pending
        return pending is not None and self._tx.live.base == pending.checksum

    def apply_live(self) -> None:
        with self._judged(ApplyLive(live=self._live_options).reach):
            apply_pending(self._tx, self._live_options)

    @contextmanager
    def _judged(self, reach: Reach | None) -> Iterator[None]:
        """Have the policy judge a step as if somebody had asked for it; Refused if it may not be now."""
        tx = self._tx
        tx.reach, tx.reasons, tx.subject = reach, [], {}
        try:
            policing.require_open(tx)
            yield
        finally:
            tx.reach, tx.reasons, tx.subject = None, [], {}

    @property
    def _live_options(self) -> LiveOptions:
        return LiveOptions(restart_services=self._settings.restart_services, allow_replacement=True)

    def may_reboot(self) -> str:
        with self._judged(Reach(applies=False, reboots=True)):
            pending = self._tx.deployments.pending
        if pending and pending.locked:
            return "the deployment is locked, see 'apt-ostree finalize-deployment'"
        if not self._settings.before_reboot:
            return ""
        with self._tx.sysroot.unlocked():  # it may wait for others
            return hooks.run(self._settings.before_reboot)
