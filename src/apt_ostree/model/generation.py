"""A generation: the numbered record of one live switch, with the data for its undo."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from apt_ostree.errors import Refused, UsageError
from apt_ostree.model.filestate import FileState
from apt_ostree.model.overlay import Applied


class Phase(StrEnum):
    """The phase of a generation. It is unfinished in every phase but LIVE."""

    ACTING = "acting"
    LIVE = "live"
    UNDOING = "undoing"


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """What a generation changed in the running kernel.

    kind: a `triggers.Trigger`: a key of sysctl, or a set: all formats of binfmt, all profiles of AppArmor.
    name: the key; "" for a set.
    before: the value before, or the names in the set, one a line.
    after: the same after the change; None until then.
    """

    kind: str
    name: str
    before: str
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """One switch.

    id: its number.
    boot_id: of the boot in which it was made.
    deployment: id of the booted deployment.
    source: the commit before, overlays included.
    target: the commit after, overlays included.
    base: the target without overlays.
    overlays: the topmost first.
    layers: commits of the view's layers, the topmost first.
    uppers: frozen upper directories of an unlocked system, the newest first.
    created: when it was made, in seconds of CLOCK_MONOTONIC, as processes and units have it.
    began: likewise, of the first of those that were folded into it.
    confirm_by: when it is undone unless it is confirmed, in seconds of CLOCK_MONOTONIC, as systemd's timers.
    kernel: what it changed in the running kernel, in the order of the changes.
    """

    id: int
    boot_id: str
    deployment: str
    source: str
    target: str
    base: str
    overlays: tuple[Applied, ...]
    layers: tuple[str, ...]
    uppers: tuple[str, ...]
    phase: Phase
    created: float
    confirm_by: float | None = None
    kernel: tuple[KernelRecord, ...] = ()
    began: float = 0.0


@dataclass(frozen=True, slots=True)
class Held:
    """A generation that keeps space on the disk.

    reason: why.
    pid, command, unit: the process in whose mount namespace it is, unless it is live.
    """

    generation: int
    reason: str
    pid: int | None = None
    command: str = ""
    unit: str = ""


def target_generation(
    first: int, numbers: Iterable[int], requested: int | None, *, forgotten: Collection[int] = ()
) -> int:
    """Return the generation to roll back to.

    Refused is raised if there is no earlier one, UsageError if there is none of the requested number.

    first: the generation that was made at boot, or 0.
    numbers: the generations of this boot, in order.
    requested: None is the previous one, 0 the state after boot: the booted tree with persistent overlays.
    forgotten: generations of this boot that became part of a later one.
    """
    reachable = [first, *(number for number in numbers if number > first)]
    if len(reachable) == 1:
        raise Refused("nothing was changed live since boot", hint="see 'apt-ostree history'")
    target = reachable[-2] if requested is None else requested or first
    if target not in reachable:
        hint = f"there are {', '.join(map(str, reachable))}; 0 is how the boot began"
        if target in forgotten:
            raise UsageError(
                f"generation {target} was forgotten, as only the newest ones are kept",
                hint=f"{hint}; [Live] KeepGenerations says how many are kept (apt-ostree.conf(5))",
            )
        raise UsageError(f"generation {target} is not live", hint=hint)
    return target


@dataclass(frozen=True, slots=True)
class EtcRecord:
    """One path of /etc that a generation changed.

    path: relative to /etc.
    before: the state before the change.
    after: the state after the change; None until another program has written it.
    """

    path: str
    before: FileState
    after: FileState | None


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """One unit that a generation acts on.

    action: a `plan.UnitAction`.
    begun: whether the action was begun.
    """

    unit: str
    action: str
    begun: bool = False


@dataclass(frozen=True, slots=True)
class ViewRecord:
    """The parts of a view, for its record; for the other fields see Generation.

    hidden: path of /etc that overlays show -> its state before that, and what the base shipped at that time.
    """

    base: str
    overlays: tuple[Applied, ...]
    layers: tuple[str, ...]
    uppers: tuple[str, ...]
    hidden: Mapping[str, tuple[FileState, FileState]] = field(default_factory=dict)
