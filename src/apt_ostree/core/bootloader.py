"""bootloader: shows the loaders of the machine, and brings those on the EFI system partition up to date.

The loaders come from the deployment that is booted, whose kernel they have started. What something else owns
is never touched, and neither are the variables of the firmware.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from apt_ostree.core import policing
from apt_ostree.core.state import reading
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Incomplete, NotAuthorized, Refused
from apt_ostree.model import bootloader
from apt_ostree.model.bootloader import OLD, PLACES, RECORD, SOURCES, Component, Loader, Plan, State, Step
from apt_ostree.model.events import PlanShown
from apt_ostree.model.queries import BootloaderStatus
from apt_ostree.model.requests.deployments import BootloaderRollback, BootloaderUpdate
from apt_ostree.model.result import Result
from apt_ostree.model.sizes import show_size
from apt_ostree.system import bios_boot, efi, space
from apt_ostree.system.efi import Esp
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree.sysroot import Sysroot

_BIOS = (
    "written when the disk was composed; it is not updated, as it would be overwritten in place, and a power "
    "cut meanwhile would leave a disk that no BIOS starts"
)
_HINT = "'apt-ostree bootloader status' shows them; nothing was changed"


def status(_query: BootloaderStatus) -> dict[str, Any]:
    """Return the loaders of the machine, and what an update would do, as a JSON object.

    Raises Refused if the system was not booted with OSTree, and NotAuthorized if only root may look at the
    EFI system partition.
    """
    with reading.opened() as sysroot:
        esp = efi.find()
        state = _read(sysroot, esp)
    core = bios_boot.find()
    plan, back = bootloader.plan_update(state), bootloader.plan_rollback(state)
    return {
        "firmware": "uefi" if efi.is_uefi() else "bios",
        "secure-boot": state.secure_boot,
        "sbat-level": dict(state.level),
        "esp": str(esp.root) if esp else None,
        **plan.to_json(),
        "previous": [state.previous[path].to_json() for path in sorted(state.previous)],
        "shipped": [loader.to_json() for loader in state.shipped.values()],
        "bios": {"device": core.device, "digest": core.digest or None, "reason": _BIOS} if core else None,
        "update-available": bool(plan.replaced),
        "rollback-available": bool(back.replaced),
    }


def update(tx: Transaction, request: BootloaderUpdate) -> Result:
    """Replace the loaders on the EFI system partition by those of the booted deployment.

    Returns `loaders`, the steps. The loaders before stay beside the new ones. Raises Refused if no loader
    there is apt-ostree's, NotAuthorized, ExternalFailure if the disk fails and all was undone, and Incomplete
    if that failed, too.
    """
    with tx.changing("update the boot loader"):
        esp, state = _gather(tx)
        plan = bootloader.plan_update(state)
        _require_ours(state, plan)
        policing.require_approval(tx, None, *(step.new.digest for step in plan.replaced if step.new))
        return _carry_out(tx, esp, state, plan, dry_run=request.dry_run)


def roll_back(tx: Transaction, request: BootloaderRollback) -> Result:
    """Put the loaders back that the last update has replaced; a second time, the new ones.

    Returns and raises what `update` does. Raises Refused if there is nothing to go back to.
    """
    with tx.changing("roll the boot loader back"):
        esp, state = _gather(tx)
        plan = bootloader.plan_rollback(state)
        _require_ours(state, plan)
        if not plan.replaced:
            raise Refused("there is no loader to go back to", details=plan.lines(), hint=_HINT)
        return _carry_out(tx, esp, state, plan, dry_run=request.dry_run)


# --- gather


def _gather(tx: Transaction) -> tuple[Esp, State]:
    esp = efi.find()
    if esp is None:
        raise Refused(
            "no EFI system partition is mounted, and only loaders on one are updated",
            details=[f"{core.device}: {_BIOS}"] if (core := bios_boot.find()) else (),
            hint="if the machine has one, mount it at /boot/efi; nothing was changed",
        )
    return esp, _read(tx.sysroot, esp)


def _read(sysroot: Sysroot, esp: Esp | None) -> State:
    """Return the facts. Raises NotAuthorized if only root may look at the partition."""
    deployments = sysroot.deployments()
    shipped = {}
    known: set[str] = set()
    for deployment in deployments.all:
        found = dict(_shipped(sysroot.directory(deployment)))
        known |= {loader.digest for loader in found.values()}
        if deployment.booted:
            shipped = found
    try:
        if esp:
            efi.require_readable(esp)
        there = dict(_loaders(esp)) if esp else {}
        before = dict(_loaders(esp, OLD)) if esp else {}
        record = (efi.read(esp, RECORD) if esp else None) or b""
    except PermissionError as error:
        raise NotAuthorized(
            f"only root may look at the EFI system partition, {esp.root if esp else ''}",
            hint="run the command with sudo: it shows the loaders there, their versions and digests",
        ) from error
    return State(
        loaders=tuple(there.values()),
        previous=before,
        record=bootloader.read_record(record.decode(errors="replace")),
        shipped=shipped,
        known=frozenset(known),
        secure_boot=efi.secure_boot(),
        level=efi.least_generations(),
    )


def _loaders(esp: Esp, suffix: str = "") -> Iterator[tuple[str, Loader]]:
    for path, component in PLACES.items():
        data = efi.read(esp, path + suffix)
        if data is not None:
            yield path, bootloader.read_loader(path + suffix, component, data)


def _shipped(tree: Path) -> Iterator[tuple[Component, Loader]]:
    for component, source in SOURCES.items():
        path = tree / source
        if path.is_file():
            yield component, bootloader.read_loader(f"/{source}", component, path.read_bytes())


# --- plan


def _require_ours(state: State, plan: Plan) -> None:
    """Raise Refused if there is no loader that an update may touch."""
    if not plan.steps:
        raise Refused("there is no loader on the EFI system partition that an update is for", hint=_HINT)
    if plan.is_about_ours:
        return
    composed = any(loader.component is Component.COMPOSED_GRUB for loader in state.loaders)
    packages = " and ".join(sorted(bootloader.PACKAGES.values()))
    raise Refused(
        "no loader on the EFI system partition is apt-ostree's to update",
        details=plan.lines(),
        hint=f"compose a disk from a tree with {packages}; nothing was changed"
        if composed
        else "update them with what has installed them; nothing was changed",
    )


# --- act


def _carry_out(tx: Transaction, esp: Esp, state: State, plan: Plan, *, dry_run: bool) -> Result:
    details = plan.to_json()
    if not plan.replaced:
        tx.report(PlanShown("bootloader", details))
        return Result(changed=False, details=details)
    _require_room(esp, plan)
    if dry_run:
        tx.report(PlanShown("bootloader", details))
        return Result(changed=True, details=details)
    tx.confirm(PlanShown("bootloader", details))
    with tx.task("Replacing the loaders"):
        _replace(tx, esp, state, plan)
    return Result(changed=True, details=details)


def _require_room(esp: Esp, plan: Plan) -> None:
    if not esp.is_writable:
        raise Refused(
            f"{esp.root} is mounted read-only", hint=f"'mount -o remount,rw {esp.root}'; nothing was changed"
        )
    free = space.of(esp.root).for_root
    if plan.needed > free:
        raise Refused(
            f"{esp.root} has too little space: {show_size(plan.needed)} needed, {show_size(free)} free",
            hint="remove what nothing needs there; nothing was changed",
        )


def _replace(tx: Transaction, esp: Esp, state: State, plan: Plan) -> None:
    """Replace loaders one by one; all or none of them if the disk fails.

    The record comes first: whatever happens then, the old loaders and the new ones are known as ours.
    """
    contents = [(step, _content(tx, esp, step), _bytes(esp, step.loader.path)) for step in plan.replaced]
    failpoint("bootloader.before-record")
    record = bootloader.recorded(state.record, plan.replaced)
    with ExitStack() as undo:
        try:
            undo.callback(efi.put, esp, RECORD, bootloader.format_record(state.record).encode())
            efi.put(esp, RECORD, bootloader.format_record(record).encode())
            for step, new, old in contents:
                _exchange(esp, step, new, old, undo)
        except OSError as error:
            _undo(undo, error)
        undo.pop_all()


def _exchange(esp: Esp, step: Step, new: bytes, old: bytes, undo: ExitStack) -> None:
    """Replace one loader, and keep the one before.

    That is kept before it is replaced, so that it is never lost; but a loader that comes from there is put in
    its place first.
    """
    path = step.loader.path
    undo.callback(efi.put, esp, path, old)
    pairs = [(path + OLD, old), (path, new)]
    for place, data in reversed(pairs) if _is_backup(step) else pairs:
        efi.put(esp, place, data)


def _undo(undo: ExitStack, error: OSError) -> None:
    try:
        undo.close()
    except OSError as again:
        raise Incomplete(
            f"cannot replace the loaders: {error}, and cannot put the present ones back: {again}",
            hint="each file is whole, and the machine starts; when the disk works, "
            "run 'apt-ostree bootloader update' again",
        ) from error
    raise ExternalFailure(
        f"cannot replace the loaders: {error}", hint="the present ones are in place"
    ) from error


def _content(tx: Transaction, esp: Esp, step: Step) -> bytes:
    """Return the loader that takes the place of another one, as it was when the plan was made."""
    assert step.new
    if _is_backup(step):
        data = _bytes(esp, step.new.path)
    else:
        booted = tx.deployments.booted
        assert booted
        data = (tx.sysroot.directory(booted) / step.new.path.lstrip("/")).read_bytes()
    again = bootloader.read_loader(step.new.path, step.new.component, data)
    if again.digest != step.new.digest:
        raise Refused(f"{step.new.path} was changed meanwhile", hint="run the command again")
    return data


def _is_backup(step: Step) -> bool:
    """Return whether the new loader is on the partition already: the way back."""
    return step.new is not None and step.new.path == step.loader.path + OLD


def _bytes(esp: Esp, path: str) -> bytes:
    data = efi.read(esp, path)
    if data is None:
        raise Refused(f"{path} was removed meanwhile", hint="run the command again")
    return data
