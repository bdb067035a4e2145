"""When a boot has failed, what is done then, and what is remembered of trees that have failed.

docs/rollback-policy.md says what the settings mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from apt_ostree.model.deployment import Deployment, Deployments
from apt_ostree.model.package import Package

#: Marks and deployments that are remembered at most; the oldest are forgotten.
_MOST = 50
_NAMES = 5


class BootPolicy(StrEnum):
    """What a boot that has failed leads to, each with all of the ones before."""

    NONE = "none"  # boots are not judged
    TELL = "tell"  # its tree is marked
    ROLLBACK = "rollback"  # the system goes back to the previous deployment, and reboots


class Way(StrEnum):
    """How a tree came into force when it failed."""

    BOOT = "boot"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Mark:
    """A tree that has failed.

    identity: of its content, see `identity_of`.
    way: how it came into force.
    commit: its commit.
    time: seconds since 1970.
    reason: why it failed.
    arguments: the kernel arguments that it was booted with.
    """

    identity: str
    way: Way
    commit: str
    time: float
    reason: str
    arguments: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return "boot on DATE: REASON"."""
        when = datetime.fromtimestamp(self.time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return f"{self.way} on {when}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Return:
    """A way back that was taken by itself.

    left, to: the deployments, by their ids.
    time: seconds since 1970.
    reason: why the boot of the one that was left had failed.
    """

    left: str
    to: str
    time: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is remembered from one boot to the next.

    marks: the trees that have failed, the oldest first.
    judged: the deployments of which a boot was judged, by names that no later one has; the oldest first.
    well: the units that were loaded in the last good boot and had not failed; None if there was none.
    back: the last way back.
    boot: the id of the boot that was judged last.
    """

    marks: tuple[Mark, ...] = ()
    judged: tuple[str, ...] = ()
    well: tuple[str, ...] | None = None
    back: Return | None = None
    boot: str = ""


def identity_of(
    base: str,
    packages: Iterable[Package],
    commands: Sequence[Sequence[str]] = (),
    initramfs: Sequence[str] | None = None,
    initramfs_etc: Sequence[str] = (),
) -> str:
    """Return what is the same for trees of the same content, though each build of it is another commit.

    base: the base commit.
    commands, initramfs, initramfs_etc: see model.origin.Origin.
    """
    rows = sorted((package.name, package.version, package.architecture) for package in packages)
    tracked = [list(initramfs_etc)] if initramfs_etc else []
    text = json.dumps(
        [base, rows, [list(command) for command in commands], initramfs and list(initramfs), *tracked]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# --- marks


def find(memory: Memory, identity: str, way: Way, arguments: Sequence[str] | None = None) -> Mark | None:
    """Return the newest mark of a content that failed in this way.

    arguments: the kernel arguments to boot with; None: any.
    """
    alike = (mark for mark in reversed(memory.marks) if (mark.identity, mark.way) == (identity, way))
    return next((m for m in alike if arguments is None or m.arguments == tuple(arguments)), None)


def marked(memory: Memory, mark: Mark) -> Memory:
    """Return the memory with a mark, which replaces one of the same tree."""
    others = [one for one in memory.marks if _key(one) != _key(mark)]
    return replace(memory, marks=(*others, mark)[-_MOST:])


def unmarked(memory: Memory, mark: Mark) -> Memory:
    """Return the memory without the mark of a tree."""
    return replace(memory, marks=tuple(one for one in memory.marks if _key(one) != _key(mark)))


def _key(mark: Mark) -> tuple[str, Way, tuple[str, ...]]:
    return mark.identity, mark.way, mark.arguments


def judged(memory: Memory, deployment: str) -> Memory:
    """Return the memory with a deployment of which a boot was judged. deployment: its name, see Memory."""
    others = (one for one in memory.judged if one != deployment)
    return replace(memory, judged=(*others, deployment)[-_MOST:])


# --- the boot


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a boot is judged by.

    late: seconds in which it has not come to its end; 0 if it has.
    complete: boot-complete.target is active.
    check: why a required health check fails, or empty.
    failed: the units that have failed.
    well: those that had not failed in the last good boot; None: not known, so that units do not count.
    """

    late: float = 0.0
    complete: bool = True
    check: str = ""
    failed: frozenset[str] = frozenset()
    well: frozenset[str] | None = None


def judge(facts: Facts) -> str:
    """Return why a boot has failed; "" if it is good."""
    reasons = []
    if facts.late:
        reasons.append(f"it did not come to its end in {facts.late:.0f} seconds")
    elif not facts.complete:
        reasons.append("boot-complete.target was not reached")
    if facts.check:
        reasons.append(facts.check)
    # A unit that is new may need configuration first: what that means is said when it is installed.
    if new := sorted(facts.failed & (facts.well or frozenset())):
        verb = "has" if len(new) == 1 else "have"
        reasons.append(f"{_some(new)} {verb} failed, not so in the last good boot")
    return "; ".join(reasons)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMES
    return ", ".join([*names[:_NAMES], *([f"{more} more"] if more > 0 else [])])


def way_back(
    policy: BootPolicy, deployments: Deployments, has_failed: Callable[[Deployment], bool], *, first: bool
) -> Deployment | None:
    """Return the deployment to go back to, now that the boot of the present one has failed.

    There is none unless the policy wants it, no boot of the deployment was judged before, and the next boot
    would start it again. A deployment that has failed is none to go back to, so that a system never goes back
    and forth.

    first: no boot of the present deployment was judged before.
    """
    booted = deployments.booted
    if policy is not BootPolicy.ROLLBACK or not first or booted is None or deployments.all[0] is not booted:
        return None
    behind = (d for d in deployments.all[1:] if d.osname == booted.osname)
    return next((deployment for deployment in behind if not has_failed(deployment)), None)


# --- text


def format_memory(memory: Memory) -> str:
    """Return the text of a memory."""
    return json.dumps(asdict(memory))


def parse_memory(text: str) -> Memory:
    """Return a memory, without what a newer version has added; an empty one for a text that is none."""
    try:
        value = json.loads(text)
        back = value.get("back")
        well = value.get("well")
        return Memory(
            marks=tuple(map(_mark, value.get("marks", ()))),
            judged=tuple(value.get("judged", ())),
            well=None if well is None else tuple(well),
            back=Return(**_known(Return, back)) if back else None,
            boot=str(value.get("boot", "")),
        )
    except (ValueError, TypeError, AttributeError):
        return Memory()


def _mark(value: Mapping[str, Any]) -> Mark:
    known = _known(Mark, value)
    return Mark(**{**known, "way": Way(known["way"]), "arguments": tuple(known.get("arguments", ()))})


def _known(cls: type[Mark | Return], value: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(cls)}
    return {name: item for name, item in value.items() if name in names}
