"""Removes from the disk what nothing needs any more, and says what is in use longer than it is shown."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from apt_ostree.core.state import etc_deltas, generations, seeds
from apt_ostree.model.deployment import Deployments
from apt_ostree.model.generation import Generation, Held
from apt_ostree.system import local_debs, running, scratch, usrview
from apt_ostree.system.ostree import image_refs
from apt_ostree.system.ostree.sysroot import Sysroot
from apt_ostree.system.statedb import StateDb

#: The ref of the pending deployment's commit while another one is staged.
PREVIOUS = "apt-ostree/previous"
#: What a killed worker may leave behind: prefixes in the directory `work`, patterns in the state directory.
_SCRATCH = ("build-", "tree-", "repair-")
_LEFTOVERS = ("view-*", "layers/*.partial")


def remove(sysroot: Sysroot, records: StateDb, deployments: Deployments, *, thorough: bool = False) -> None:
    """Remove refs, layers, upper directories, scratch directories, local packages and objects not in use.

    Copies of seeds that were not finished go, too.

    thorough: also objects without a commit, see Sysroot.cleanup.

    Raises ExternalFailure or OSError if something cannot be removed.
    """
    sysroot.sync_base_refs()
    sysroot.repo.sync_refs(PREVIOUS, {})
    image_refs.sync(sysroot.repo, (d.origin.image_digest for d in deployments.all))
    etc_deltas.drop_others(deployments)
    generations.reclaim(sysroot, records)
    seeds.discard_leftovers()
    for prefix in _SCRATCH:
        scratch.remove_leftovers(sysroot.state_dir / "work", prefix)
    for pattern in _LEFTOVERS:
        for leftover in sysroot.state_dir.glob(pattern):
            shutil.rmtree(leftover)
    local_debs.remove_unused(frozenset(p.sha256 for d in deployments.all for p in d.origin.local))
    sysroot.cleanup(thorough=thorough)


def held(live: Sequence[Generation]) -> tuple[Held, ...]:
    """Return the generations that keep space: those that are live, and those that a mount still shows.

    live: the live generations of this boot.
    """
    numbers = {generation.id for generation in live}
    steps_back = [Held(generation.id, "it is live") for generation in live]
    others = [view for view in usrview.in_use() if view.generation not in numbers and view.pid != os.getpid()]
    below = {view.generation for view in others if view.pid == usrview.PID1}
    # A new namespace gets the mounts of PID 1's again.
    shown = [view for view in others if view.pid == usrview.PID1 or view.generation not in below]
    return (*steps_back, *map(_held, shown))


def _held(view: usrview.ViewInUse) -> Held:
    if view.pid == usrview.PID1:
        return Held(view.generation, "its view is below that of /usr, from where no kernel can take it away")
    name, unit = running.name_and_unit(view.pid)
    reason = f"the mount namespace of {name or 'a process'} (PID {view.pid}) shows it"
    return Held(view.generation, reason, view.pid, name, unit)
