"""The live engine: makes the running system show a goal, or leaves it as it was.

Every change is carried out in the same way. It is planned. Its view is prepared without a change of the
system. Then its steps are taken, from the journal to the end. After a failure all steps are undone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from apt_ostree.core import policing
from apt_ostree.core.live import watching
from apt_ostree.core.live.apply import Application
from apt_ostree.core.live.planning import Change, Prepared, plan_change
from apt_ostree.core.state import generations, marks, overlay_store, reserve, scanning
from apt_ostree.core.state.inventory import layered_packages
from apt_ostree.core.state.live import frozen_uppers
from apt_ostree.core.steps import Step, take
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import AptOstreeError, Refused
from apt_ostree.model.etc_delta import Delta
from apt_ostree.model.events import PlanShown
from apt_ostree.model.notes import Note
from apt_ostree.model.overlay import Goal, Transition
from apt_ostree.model.package import PackageDiff
from apt_ostree.model.plan import touches
from apt_ostree.model.policy import Incoming
from apt_ostree.model.requests.options import LiveOptions
from apt_ostree.model.settings import Settings
from apt_ostree.system import running, statedb, systemd, systemd_login, verdicts
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import layers


def plan(
    tx: Transaction, goal: Goal, options: LiveOptions, *, delta: Delta | None = None, ask: bool = True
) -> Change:
    """Plan a change to a goal and show the plan; nothing is changed.

    delta: what scripts did to /etc for the goal's base, unless /etc has it already.
    ask: whether to ask the user to confirm the plan.

    Returns the change. Raises Refused if the plan has refusals, and Cancelled if the user declines.
    """
    tx.clock.begin("detection")
    with tx.task("Comparing the trees"):
        change = plan_change(tx, goal, options, delta=delta)
    tx.clock.stop()
    _require_unfailed(tx, goal.base, options)
    policing.require_packages(tx, _incoming(tx, goal, change.plan.packages))
    policing.require_open(tx)
    policing.require_approval(tx, None, change.plan.source, change.plan.target)
    policing.require_scanned(tx, tx.live.base, goal.base)
    shown = PlanShown("live", change.plan.to_json())
    if change.plan.refusals:
        tx.report(shown)
        raise Refused(
            "the change cannot be applied live",
            details=change.plan.refusals,
            hint="see above; --allow-replacement lets running packages be replaced, and --force accepts all "
            "risks that can be accepted; a reboot into the deployment needs neither",
        )
    if ask:
        tx.confirm(shown, commits=(goal.base, goal.commit, *(applied.layer for applied in goal.overlays)))
    else:
        tx.report(shown)
    return change


def _require_unfailed(tx: Transaction, base: str, options: LiveOptions) -> None:
    """Raise Refused for a tree that has failed, unless it is a way back; for a preview only warn."""
    if base in (tx.live.base, tx.live.booted.checksum):
        return
    repo, memory = tx.sysroot.repo, verdicts.read()
    deployments = [deployment for deployment in tx.deployments.all if deployment.checksum == base]
    boots = (marks.of_boot(repo, memory, deployment) for deployment in deployments)
    found = marks.of_live(repo, memory, base) or next(filter(None, boots), None)
    preview = tx.reach is not None and tx.reach.preview
    policing.require_unfailed(tx, found, allowed=options.allow_failed, preview=preview)


def _incoming(tx: Transaction, goal: Goal, difference: PackageDiff) -> Iterator[Incoming]:
    """Yield the packages that a change makes current and that are not the base's own."""
    layered = {(package.name, package.version) for package in layered_packages(tx.sysroot.repo, goal.base)}
    for package in difference.added:
        if (package.name, package.version) in layered:
            yield Incoming(package.name, package.version)
    for change in difference.changed:
        if (change.name, change.new) in layered:
            yield Incoming(change.name, change.new, old=change.old)


def carry_out(
    tx: Transaction,
    change: Change,
    options: LiveOptions,
    *,
    transitions: Sequence[Transition] = (),
    while_settling: Sequence[Step] = (),
    dry_run: bool = False,
) -> dict[str, Any]:
    """Prepare and apply a change; after a failure everything is undone and the failure raised.

    transitions: what the change makes of overlays.
    while_settling: further steps, which are taken while restarted units settle. They are also taken if the
        system shows the commit already.

    Returns `plan`, `commit`, `changed`, `live` and, for a new generation, `generation` and `failed_units`,
    the new units that do not run, unless the settings undo the change then. Raises Refused if the
    system is shutting down or a scanner does not accept an overlay, ExternalFailure if a step fails, and
    Incomplete if it cannot be undone completely.
    """
    outcome: dict[str, Any] = {"plan": change.plan.to_json(), "commit": change.goal.base}
    same = change.plan.source == change.plan.target and not change.plan.etc
    if same and not transitions and change.goal.unlock is None:
        tx.message("The running system shows this commit already.")
        if not dry_run:
            take(while_settling)
        return outcome | {"changed": False, "live": False}
    if dry_run:
        return outcome | {"changed": True, "live": False}
    _refuse_shutdown()
    tx.tidy_at_end()
    reserve.keep(tx.sysroot)
    statedb.mark()  # after a failure, the next boot removes what was prepared
    tx.clock.begin("preparation")
    prepared = _prepare_and_test(tx, change, options)
    application = Application(tx, change, prepared, options, transitions)
    with systemd_login.inhibited("a change of the running system"):
        take(_steps(application, while_settling))
    if transitions:
        overlay_store.sync_refs(tx.sysroot, tx.records)
    _forget_old(tx, change.settings)
    if options.allow_failed:
        watching.unmark(tx, change.goal.base)
    tx.message(f"The running system shows {_named(change.goal)} (generation {application.generation}).")
    if application.failed:
        names = ", ".join(application.failed)
        tx.warning(f"{names} did not start, or not for long; see 'systemctl status' and 'apt-ostree status'.")
    done = {"generation": application.generation, "failed_units": application.failed}
    return outcome | {"changed": True, "live": True, **done}


def _prepare_and_test(tx: Transaction, change: Change, options: LiveOptions) -> Prepared:
    with tx.task("Preparing the layer"):
        prepared = _prepare(tx, change)
        _scan(tx, change, prepared)
    present = (tx.live.base, tx.live.booted.checksum)  # the way back is not held up
    if options.test or is_tested(tx, change.goal.base, present):
        _boot_before(tx, change, prepared.lowers)
    return prepared


def test(tx: Transaction, goal: Goal, *, delta: Delta | None = None) -> None:
    """Boot what the system would be with a goal; raise Refused if that fails, see `testboot`."""
    options = LiveOptions(allow_replacement=True, force=True)
    change = plan_change(tx, goal, options, delta=delta)
    tx.tidy_at_end()
    _boot_before(tx, change, _prepare(tx, change).lowers)


def _boot_before(tx: Transaction, change: Change, lowers: Sequence[Path]) -> None:
    from apt_ostree.core.live import testboot  # few changes need it, all would wait for the import

    testboot.require(tx, change, lowers)


def is_tested(tx: Transaction, commit: str, present: Collection[str]) -> bool:
    """Return whether the settings want a commit booted in a container first; not if it is in `present`."""
    return tx.settings.test_before_apply and commit not in present


def _forget_old(tx: Transaction, settings: Settings) -> None:
    """Keep as many steps back as the settings say; the change is live by now, so that an error only warns."""
    try:
        generations.forget_old(tx.sysroot, tx.records, tx.live, settings.keep_generations)
    except (AptOstreeError, OSError) as error:
        tx.warning(f"older generations are kept for now: {error}")
    tx.reread()


def _steps(application: Application, while_settling: Sequence[Step]) -> list[Step]:
    """Return the steps of a change; the undo of the journal step undoes all that follow it."""
    return [
        Step("journal", application.begin, application.undo),
        Step("application begins", lambda: application.tx.clock.begin("application")),
        *_visible_steps(application),
        *while_settling,
        Step("settle units", application.settle_units),
        Step("verification begins", lambda: application.tx.clock.begin("verification")),
        Step("verify", application.verify),
        Step("set the timer", application.arm),
        Step("end", application.end),
    ]


def _visible_steps(application: Application) -> list[Step]:
    """Return the steps that are visible on the running system."""
    return [
        Step("stop units", application.stop_units),
        Step("write /etc", application.write_etc),
        Step("switch", application.switch),
        Step("run triggers", application.run_triggers),
        Step("reload systemd", application.reload_systemd),
        Step("act on units", application.act_on_units),
    ]


def show_at_boot(tx: Transaction, goal: Goal) -> bool:
    """Show a goal before services start, without an action on units.

    Returns whether it changes unit files. Raises Refused if the goal cannot be shown, and ExternalFailure or
    Incomplete if a step fails.
    """
    options = LiveOptions(allow_replacement=True, force=True)
    change = plan_change(tx, goal, options, at_boot=True)
    if change.plan.refusals:
        raise Refused("overlays cannot be shown", details=change.plan.refusals)
    application = Application(tx, change, _prepare(tx, change), options)
    begin, end = Step("journal", application.begin, application.undo), Step("end", application.end)
    take([begin, *_visible_steps(application), end])
    tx.records.set_note(Note.BOOT, f"{application.generation} {running.boot_id()}")
    tx.message(f"The running system shows {_named(goal)}.")
    return touches(change.changes, "lib/systemd/system/", "etc/systemd/system/")


def _named(goal: Goal) -> str:
    names = ", ".join(applied.id for applied in goal.overlays)
    return f"commit {goal.base[:12]}" + (f" with {names}" if names else "")


def _refuse_shutdown() -> None:
    if systemd.state() == "stopping":
        raise Refused("the system is shutting down", hint="the deployment takes effect with the next boot")


def _prepare(tx: Transaction, change: Change) -> Prepared:
    """Write and check out the layers of the new view; return its directories."""
    sysroot, booted, goal = tx.sysroot, tx.live.booted, change.goal
    booted_usr = sysroot.directory(booted) / "usr"
    names = [applied.layer for applied in goal.overlays]
    if change.view_diff is not None:
        failpoint("prepare.before-layer")
        subject = f"live: {booted.checksum} to {goal.base}"
        names.append(layers.write_layer(sysroot.repo, change.view_diff, subject=subject))
    directories = [layers.check_out(sysroot.repo, name, generations.layers_dir(sysroot)) for name in names]
    uppers = () if goal.unlock == "none" else frozen_uppers(tx.live)
    is_writable = uppers or goal.unlock not in (None, "none")
    writable = generations.new_upper(sysroot, booted_usr) if is_writable else None
    lowers = (*directories, *(Path(upper) for upper in uppers), booted_usr)
    return Prepared(tuple(names), uppers, lowers, writable)


def _scan(tx: Transaction, change: Change, prepared: Prepared) -> None:
    """Run the administrator's scanner on overlays that are not shown yet; raise Refused if it fails."""
    scanner, shown = change.settings.overlay_scanner, {applied.layer for applied in tx.live.goal.overlays}
    for applied, directory in zip(change.goal.overlays, prepared.lowers, strict=False):
        if not scanner or applied.layer in shown:
            continue
        if error := scanning.scan(scanner, directory, timeout=change.settings.scan_timeout):
            raise Refused(
                f"the scanner {scanner[0]} does not accept overlay {applied.id}",
                details=error.details,
                internals=error.internals,
            ) from error
