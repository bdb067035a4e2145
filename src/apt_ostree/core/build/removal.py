"""Has dpkg forget removed packages, as apt-get's purge does, but without a change of the machine's /etc."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from apt_ostree.errors import ExternalFailure
from apt_ostree.model import layout
from apt_ostree.model.package import Package
from apt_ostree.model.package_plan import PackagePlan
from apt_ostree.system import buildroot, dpkg_query, sandbox


def kept_of(root: Path, plan: PackagePlan) -> tuple[Package, ...]:
    """Return the packages of a plan of which dpkg keeps a state after their removal from a root."""
    going = {step.name for step in plan.remove}
    removed = dpkg_query.removed(root / layout.DPKG_ADMINDIR) if going else ()
    return tuple(package for package in removed if package.name in going)


def purge(
    root: Path, scratch: Path, removed: Sequence[Package], lowers: tuple[Path, ...], timeout: float
) -> list[str]:
    """Make dpkg forget removed packages; return the paths below /etc that this would have removed.

    The scripts see an /etc that is discarded: files that were edited, keys and data stay on the machine.

    lowers: the layers of the root's /etc. timeout: seconds that it may take.
    """
    if not removed:
        return []
    admindir = root / layout.DPKG_ADMINDIR

    def run(packages: Sequence[Package]) -> None:
        command = ["dpkg", "--purge", *(package.qualified for package in packages)]
        sandbox.run(root, command, what="purge packages", timeout=timeout)

    with buildroot.machine_etc(scratch, root, "etc-purged", lowers) as discarded:
        try:
            run(removed)
        except ExternalFailure:  # `apt remove` would not even run the script, and what it does is discarded
            left = frozenset(dpkg_query.removed(admindir))
            failed = [package for package in removed if package in left]
            dpkg_query.drop_scripts(admindir, failed, "postrm")
            run(failed)
        return buildroot.removed_from(discarded)
