"""Judges a boot, once it has come to its end or takes too long, and goes back if the settings say so."""

from __future__ import annotations

import time
from dataclasses import replace

from apt_ostree.core.boot import counting
from apt_ostree.core.live import health
from apt_ostree.core.state import marks
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure
from apt_ostree.model.audit import Kind
from apt_ostree.model.bootcounting import given_up
from apt_ostree.model.deployment import Deployment
from apt_ostree.model.requests.live import Moment
from apt_ostree.model.result import Result
from apt_ostree.model.verdict import (
    BootPolicy,
    Facts,
    Mark,
    Memory,
    Return,
    Way,
    judge,
    judged,
    marked,
    unmarked,
    way_back,
)
from apt_ostree.system import motd, systemd, verdicts
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.running import boot_id

_COMPLETE = "boot-complete.target"
_TIMER = "apt-ostree-boot-timeout"
_COMMAND = ("/usr/bin/apt-ostree", "recover", "--at=timeout")


def is_due() -> bool:
    """Return whether this boot is to be judged, or the boot loader has given a deployment up."""
    return verdicts.UNJUDGED.exists() or any(verdicts.given_up()) or counting.is_due()


def judge_boot(tx: Transaction, at: Moment) -> Result:
    """Judge the boot. The result has `next_boot` if the caller is to reboot, into another deployment.

    At the moment TIMEOUT the boot has failed if it was not judged yet; a timer is set if that is too early.
    """
    _mark_given_up(tx)
    gone_back = counting.settle(tx)
    memory, booted, policy = verdicts.read(), tx.deployments.booted, tx.safe_settings.boot_policy
    if not verdicts.UNJUDGED.exists() or booted is None or memory.boot == boot_id():
        if gone_back and booted:
            _tell_return(tx, memory, booted)
        return Result(changed=gone_back)
    if policy is BootPolicy.NONE:
        return _settle(_judged(tx, memory, booted))
    if at is Moment.TIMEOUT and (left := tx.safe_settings.boot_timeout - systemd.userspace_seconds()) > 0:
        systemd.run_later(_TIMER, _COMMAND, left)
        return Result(changed=False)
    _tell_return(tx, memory, booted)
    mark = marks.of_boot(tx.sysroot.repo, memory, booted)
    if _name(tx, booted) in memory.judged and mark is None:
        return _settle(memory)
    facts = _facts(tx, memory, late=at is Moment.TIMEOUT)
    if reason := judge(facts):
        return _failed(tx, memory, booted, reason)
    return _succeeded(tx, memory, booted, facts)


def _facts(tx: Transaction, memory: Memory, *, late: bool) -> Facts:
    if late:
        return Facts(late=tx.safe_settings.boot_timeout)
    complete, check = bool(systemd.active([_COMPLETE])), ""
    try:
        health.run_checks(tx, tx.safe_settings)
    except ExternalFailure as error:
        check = error.message
    well = None if memory.well is None else frozenset(memory.well)
    return Facts(complete=complete, check=check, failed=systemd.failed_units(), well=well)


def _new_mark(tx: Transaction, deployment: Deployment, reason: str) -> Mark:
    content = marks.content_of(tx.sysroot.repo, deployment.checksum, deployment.origin)
    arguments = deployment.kernel_arguments
    return Mark(content, Way.BOOT, deployment.checksum, time.time(), reason, arguments)


# --- a good boot


def _succeeded(tx: Transaction, memory: Memory, booted: Deployment, facts: Facts) -> Result:
    """Remember a good boot, which takes the marks from its tree."""
    memory = replace(_judged(tx, memory, booted), well=tuple(sorted(systemd.well_units())))
    for mark in marks.of_deployment(tx.sysroot.repo, memory, booted):
        memory = unmarked(memory, mark)
    if memory.back and memory.back.to != booted.id:
        memory = replace(memory, back=None)
    tx.message(f"The boot of {booted.id} is good.")
    return _settle(memory)


def _judged(tx: Transaction, memory: Memory, booted: Deployment) -> Memory:
    return replace(judged(memory, _name(tx, booted)), boot=boot_id())


def _name(tx: Transaction, booted: Deployment) -> str:
    """Return a name that the same commit does not have when it is deployed again."""
    root = tx.sysroot.directory(booted).stat()
    return f"{booted.id} {root.st_ino} {root.st_ctime_ns}"


def _settle(memory: Memory) -> Result:
    """Remember that there is nothing more to judge until another deployment is booted."""
    verdicts.write(memory)
    failpoint("verdict.settled")
    verdicts.UNJUDGED.unlink(missing_ok=True)
    return Result(changed=True)


# --- a boot that has failed


def _failed(tx: Transaction, memory: Memory, booted: Deployment, reason: str) -> Result:
    """Mark the tree of a boot that has failed, tell of it, and go back if that is due."""
    mark = _new_mark(tx, booted, reason)
    memory = marked(memory, mark)
    repo, policy = tx.sysroot.repo, tx.safe_settings.boot_policy
    first = _name(tx, booted) not in memory.judged
    back = way_back(policy, tx.deployments, lambda d: bool(marks.of_boot(repo, memory, d)), first=first)
    if back:
        memory = replace(memory, back=Return(booted.id, back.id, mark.time, reason))
    verdicts.write(memory)
    failpoint("verdict.marked")
    tx.warning(f"The boot of {booted.id} has failed: {reason}")
    tx.record(
        Kind.MARKED, f"the boot of {booted.id} has failed: {reason}", commit=booted.checksum, way="boot"
    )
    _write_motd(tx, f"The boot of this system has failed: {reason}")
    if back:
        _go_back(tx, back)
    verdicts.write(_judged(tx, memory, booted))
    failpoint("verdict.recorded")
    return Result(changed=True, next_boot=back is not None)


def _go_back(tx: Transaction, back: Deployment) -> None:
    """Have the next boot, which follows, start another deployment."""
    others = tuple(deployment for deployment in tx.deployments.all if deployment is not back)
    with tx.task(f"Going back to {back.id}"):
        tx.sysroot.write_order((back, *others))
    tx.reread()
    tx.record(Kind.UNDONE, f"the system reboots into {back.id}, as the boot has failed", undone="boot")


def _tell_return(tx: Transaction, memory: Memory, booted: Deployment) -> None:
    """Tell why this deployment is booted, if another one was left by itself; once for each way back."""
    back = memory.back
    if back is None or back.to != booted.id:
        return
    text = f"{booted.id} is booted again, because the boot of {back.left} has failed: {back.reason}"
    tx.warning(text)
    tx.record(Kind.RETURNED, text, left=back.left)
    _write_motd(tx, f"This is the previous system again. The boot of the new one has failed: {back.reason}")


def _write_motd(tx: Transaction, text: str) -> None:
    if tx.safe_settings.automatic.motd:
        motd.write("apt-ostree-boot", f"Rollback: {text}\nRollback: see 'apt-ostree status'.\n")


def _mark_given_up(tx: Transaction) -> None:
    """Mark the deployments that the boot loader has given up; see model.bootcounting."""
    by_path = {deployment.path: deployment for deployment in tx.deployments.all}
    found = [(by_path.get(path), counted) for path, counted in verdicts.given_up()]
    for deployment, counted in (*found, *counting.left_behind(tx)):
        if deployment is None or deployment.booted:
            continue
        if marks.of_boot(tx.sysroot.repo, verdicts.read(), deployment):
            continue
        reason = given_up(counted)
        marks.note(_new_mark(tx, deployment, reason))
        tx.warning(f"The boot of {deployment.id} has failed: {reason}")
        text = f"the boot of {deployment.id} has failed: {reason}"
        tx.record(Kind.MARKED, text, commit=deployment.checksum, way="boot")
