"""What the running system shows: the booted deployment, and the live changes since boot."""

from __future__ import annotations

from dataclasses import dataclass

from apt_ostree.errors import Refused
from apt_ostree.model.deployment import Deployment, Deployments
from apt_ostree.model.generation import Generation
from apt_ostree.model.notes import Note
from apt_ostree.model.overlay import Goal
from apt_ostree.system import usrview
from apt_ostree.system.running import boot_id
from apt_ostree.system.statedb import StateDb


@dataclass(frozen=True, slots=True)
class LiveState:
    """The live state.

    booted: the booted deployment.
    generations: the live generations of this boot, the oldest first.
    first: the number of the generation that was made before services started, or 0.
    """

    booted: Deployment
    generations: tuple[Generation, ...]
    first: int = 0

    @property
    def current(self) -> Generation | None:
        """Return the generation that /usr shows, or None for the booted tree."""
        return self.generations[-1] if self.generations else None

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return the numbers of the generations."""
        return tuple(generation.id for generation in self.generations)

    @property
    def commit(self) -> str:
        """Return the commit that /usr shows."""
        return self.current.target if self.current else self.booted.checksum

    @property
    def base(self) -> str:
        """Return the commit that /usr shows, without overlays."""
        return self.current.base if self.current else self.booted.checksum

    @property
    def goal(self) -> Goal:
        """Return what /usr shows, as a goal."""
        return Goal(self.base, self.commit, self.current.overlays if self.current else ())


def read_live_state(deployments: Deployments, records: StateDb | None) -> LiveState:
    """Return the live state; raise Refused if the system was not booted from a deployment."""
    booted = deployments.booted
    if booted is None:
        raise Refused("this system was not booted from an OSTree deployment")
    this_boot = boot_id()
    generations = records.generations() if records else ()
    number, _, boot = (records.note(Note.BOOT) or "").partition(" ") if records else ("", "", "")
    first = int(number) if boot == this_boot and number in {str(g.id) for g in generations} else 0
    return LiveState(booted, tuple(g for g in generations if g.boot_id == this_boot), first)


def frozen_uppers(live: LiveState) -> tuple[str, ...]:
    """Return the upper directories of an unlocked /usr, which a new view uses as lower directories."""
    if live.current:
        return live.current.uppers
    upper = usrview.unlocked_upper()
    return (upper,) if upper else ()
