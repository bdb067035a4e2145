"""Triggers of a live change: plans them, runs them, and takes back what they did to the running kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from apt_ostree.core.build import deferred
from apt_ostree.core.live.etc_planning import ETC
from apt_ostree.core.state import seeds
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import accounts, kernel_undo, triggers
from apt_ostree.model.filestate import ABSENT, FileState
from apt_ostree.model.generation import EtcRecord, Generation, KernelRecord
from apt_ostree.model.treediff import Kind, PathChange
from apt_ostree.model.triggers import ChangedFile, Trigger, TriggerStep
from apt_ostree.system import files, kernel_settings, systemd
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo

_LIBRARY_CACHE = "ld.so.cache"

#: Path relative to /etc -> its states before and after.
EtcStates = Mapping[str, tuple[FileState, FileState]]


# --- the plan


def plan_triggers(
    repo: Repo, target: str, changes: Iterable[PathChange], etc: EtcStates
) -> tuple[TriggerStep, ...]:
    """Return the triggers of a change to `target`.

    changes: of paths below /usr.
    etc: the paths of /etc that are written or removed.
    """
    changed = (*_changed_usr(repo, changes), *_changed_etc(etc))
    concerned = triggers.concerned(changed)
    if not concerned & {*triggers.BOOT_UNITS, *triggers.PROGRAMS}:
        return triggers.steps(changed)
    possible = _possible(repo, target, concerned)
    removed = [f.path for f in changed if f.kind is Kind.REMOVED and triggers.is_profile(f.path)]
    profiles = {path: kernel_settings.profiles_in(path) for path in removed if Trigger.APPARMOR in possible}
    return triggers.steps(changed, possible=possible, profiles=profiles)


def _changed_usr(repo: Repo, changes: Iterable[PathChange]) -> list[ChangedFile]:
    def text(path: str, checksum: str) -> str:
        state = repo.file_state(checksum) if checksum and triggers.is_read(path) else ABSENT
        return _text(state)

    paths = (
        (f"/usr/{change.path}", change)
        for change in changes
        if not change.is_dir and not change.path.startswith("etc/")
    )
    return [
        ChangedFile(path, change.kind, text(path, change.old), text(path, change.new))
        for path, change in paths
    ]


def _changed_etc(etc: EtcStates) -> list[ChangedFile]:
    return [
        ChangedFile(f"/etc/{path}", _kind(before, after), _text(before), _text(after))
        for path, (before, after) in etc.items()
        if "directory" not in (before.type, after.type)
    ]


def _kind(before: FileState, after: FileState) -> Kind:
    if after.type == "absent":
        return Kind.REMOVED
    return Kind.ADDED if before.type == "absent" else Kind.CHANGED


def _text(state: FileState) -> str:
    return state.content.decode(errors="replace") if state.type == "file" else ""


def _possible(repo: Repo, target: str, concerned: frozenset[Trigger]) -> frozenset[Trigger]:
    """Return those of triggers that the kernel allows, whose program is there and that nobody has masked."""
    programs = {t: program for t, program in triggers.PROGRAMS.items() if t in concerned}
    missing = {t for t, program in programs.items() if diff.file_of(repo, target, program) is None}
    possible = (concerned & kernel_settings.possible()) - missing
    boot_units = {t: unit for t, unit in triggers.BOOT_UNITS.items() if t in possible}
    units = systemd.units(boot_units.values())
    return possible - {t for t, unit in boot_units.items() if units[unit]["LoadState"] == "masked"}


def written_by(steps: Iterable[TriggerStep]) -> tuple[str, ...]:
    """Return the paths of /etc that the programs of triggers write."""
    run = {step.trigger for step in steps}
    users = accounts.WRITTEN if Trigger.SYSUSERS in run else ()
    return (*users, *((_LIBRARY_CACHE,) if Trigger.LDCONFIG in run else ()))


# --- running


def run(tx: Transaction, generation: int, steps: Sequence[TriggerStep]) -> None:
    """Run the triggers of a generation, which the system shows already.

    Raises ExternalFailure if users, directories or the cache of libraries cannot be made. What fails of the
    others is a warning, as it is to a boot and to dpkg.
    """
    for step in steps:
        if step.trigger in _NEEDED:
            _NEEDED[step.trigger](tx, step)
            written = written_by([step])
            tx.records.set_after(generation, {path: files.read_state(ETC / path) for path in written})
            continue
        if step.trigger in triggers.KERNEL:
            _with_record(tx, generation, step)
        else:
            _try(tx, step)
    failpoint("act.triggered")


def _try(tx: Transaction, step: TriggerStep) -> None:
    try:
        _RUN[step.trigger](step)
    except ExternalFailure as error:
        tx.warning("; ".join((error.message, *error.details[-1:])))


def _with_record(tx: Transaction, generation: int, step: TriggerStep) -> None:
    """Run a trigger that changes the kernel; the values before are on the disk first."""
    kept = next(g for g in tx.records.generations() if g.id == generation).kernel
    try:
        records = _read(step)
    except ExternalFailure as error:  # what cannot be taken back is not done
        tx.warning(error.message)
        return
    tx.records.set_kernel(generation, (*kept, *records))
    failpoint("act.kernel-recorded")
    if step.trigger is Trigger.SYSCTL:
        _give_back(tx, step.gone)
    _try(tx, step)
    failpoint("act.kernel")
    with contextlib.suppress(ExternalFailure):  # as if it was interrupted
        after = tuple(replace(record, after=_now(record)) for record in records)
        tx.records.set_kernel(generation, (*kept, *after))


def _give_back(tx: Transaction, keys: Iterable[str]) -> None:
    """Give keys that the live changes of this boot have set the values of before."""
    records = [record for g in tx.records.generations() for record in g.kernel if record.after is not None]
    for key in kernel_settings.expand(keys):
        mine = [record for record in records if (record.kind, record.name) == (Trigger.SYSCTL, key)]
        if mine and kernel_settings.value(key) == mine[-1].after:
            _set(tx, key, kernel_undo.value_before(mine))


def _set(tx: Transaction, key: str, value: str) -> None:
    try:
        kernel_settings.set_value(key, value)
    except ExternalFailure as error:
        tx.warning(error.message)


def _read(step: TriggerStep) -> tuple[KernelRecord, ...]:
    """Return the present settings of the kernel that a trigger may change."""
    if step.trigger is not Trigger.SYSCTL:
        record = KernelRecord(step.trigger, "", "")
        return (replace(record, before=_now(record)),)
    values = ((key, kernel_settings.value(key)) for key in kernel_settings.expand((*step.names, *step.gone)))
    return tuple(KernelRecord(step.trigger, key, value) for key, value in values if value is not None)


def _now(record: KernelRecord) -> str:
    if record.kind == Trigger.SYSCTL:
        return kernel_settings.value(record.name) or ""
    names = kernel_settings.formats() if record.kind == Trigger.BINFMT else kernel_settings.profiles()
    return "\n".join(sorted(names))


def _names(step: TriggerStep) -> list[str]:
    return [Path(path).name for path in step.files]


def _load_profiles(step: TriggerStep) -> None:
    present = [path for path in step.files if Path(path).exists()]
    if present:
        kernel_settings.load_profiles(present)
    gone = kernel_settings.profiles().intersection(step.gone)
    moved = {name for path in present for name in kernel_settings.profiles_in(path)} if gone else set()
    for name in sorted(gone - moved):
        kernel_settings.remove_profile(name)


def _register_formats(step: TriggerStep) -> None:
    if step.files:
        kernel_settings.register_formats(_names(step))
    for name in sorted(kernel_settings.formats().intersection(step.gone)):
        kernel_settings.remove_format(name)


def _create_users(_tx: Transaction, step: TriggerStep) -> None:
    systemd.create_users(_names(step))
    failpoint("act.users")


def _give_seeds(tx: Transaction, _step: TriggerStep) -> None:
    seeds.give(tx.report)
    failpoint("act.seeds")


def _create_files(_tx: Transaction, step: TriggerStep) -> None:
    systemd.create_files(_names(step))
    failpoint("act.tmpfiles")


def _configure(tx: Transaction, _step: TriggerStep) -> None:
    deferred.configure(tx, tx.records.generations()[-1].base)
    failpoint("act.configured")


#: Without them, what is new cannot run.
_NEEDED: Mapping[Trigger, Callable[[Transaction, TriggerStep], None]] = {
    Trigger.SYSUSERS: _create_users,
    Trigger.SEEDS: _give_seeds,
    Trigger.TMPFILES: _create_files,
    Trigger.CONFIGURE: _configure,
    Trigger.LDCONFIG: lambda _tx, _step: systemd.update_library_cache(),
}
_RUN: Mapping[Trigger, Callable[[TriggerStep], None]] = {
    Trigger.MODULES: lambda step: kernel_settings.load_modules(_names(step)),
    Trigger.SYSCTL: lambda step: kernel_settings.apply_sysctl(
        kernel_settings.expand((*step.names, *step.gone))
    ),
    Trigger.BINFMT: _register_formats,
    Trigger.UDEV: lambda _step: systemd.reload_udev(),
    Trigger.DBUS: lambda _step: systemd.reload_bus(),
    Trigger.POLKIT: lambda _step: systemd.reload_polkit(),
    Trigger.APPARMOR: _load_profiles,
    Trigger.CATALOG: lambda _step: systemd.update_catalog(),
    Trigger.FONTS: lambda _step: systemd.update_font_cache(),
    # It takes seconds. What an earlier change has begun would miss these pages.
    Trigger.MANUAL: lambda _step: systemd.restart_later(triggers.BOOT_UNITS[Trigger.MANUAL]),
}


# --- the way back


def plan_back(
    tx: Transaction,
    changes: Iterable[PathChange],
    generations: Sequence[Generation],
    etc: Sequence[EtcRecord],
) -> tuple[TriggerStep, ...]:
    """Return the triggers of undoing generations.

    changes: of /usr, from what is shown now to what was shown before.
    etc: the records of the generations, the oldest first.
    """
    first: dict[str, FileState] = {}
    last: dict[str, FileState] = {}
    for record in etc:
        first.setdefault(record.path, record.before)
        last[record.path] = record.after or ABSENT
    states = {path: (last[path], first[path]) for path in first if last[path] != first[path]}
    steps = plan_triggers(tx.sysroot.repo, generations[0].source, changes, states)
    keys = dict.fromkeys(r.name for g in generations for r in g.kernel if r.kind == Trigger.SYSCTL)
    reason = f"gives {', '.join(map(triggers.shown_key, keys))} back"
    values = TriggerStep(Trigger.SYSCTL, reason, (), tuple(keys))
    return (*([values] if keys else []), *(step for step in steps if step.trigger in triggers.REPEATED))


def undo(tx: Transaction, generations: Sequence[Generation], steps: Iterable[TriggerStep]) -> None:
    """Take back what generations did to the kernel, and run triggers again for what is shown now.

    Anything that fails is a warning, because it must not stop an undo. It can be repeated.
    """
    records = [record for generation in generations for record in generation.kernel]
    for record in reversed(records):
        try:
            _restore(tx, record, [other for other in records if other.name == record.name])
        except ExternalFailure as error:
            tx.warning(error.message)
    failpoint("undo.kernel")
    for step in steps:
        if step.trigger in triggers.REPEATED:
            _try(tx, step)


def _restore(tx: Transaction, record: KernelRecord, same: Sequence[KernelRecord]) -> None:
    """Take a record back; same: all that are undone of its name."""
    if record.kind != Trigger.SYSCTL:
        now = _now(record)
        _remove(tx, record.kind, kernel_undo.came(record, now).intersection(now.splitlines()))
        return
    value = kernel_settings.value(record.name)
    if value in (None, record.before):
        return
    if record.after in (None, value):
        _set(tx, record.name, record.before)
    elif not any(value in (other.before, other.after) for other in same):  # else this is repeated
        tx.warning(f"kept {triggers.shown_key(record.name)} = {value}: it was changed after the update")


def _remove(tx: Transaction, kind: str, names: Iterable[str]) -> None:
    remove = kernel_settings.remove_format if kind == Trigger.BINFMT else kernel_settings.remove_profile
    for name in sorted(names):
        try:
            remove(name)
        except ExternalFailure as error:
            tx.warning(error.message)
