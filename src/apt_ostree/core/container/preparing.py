"""`container prepare`: gives packages' scripts in a container the /var that they find on a machine.

An image has no files below /var. apt calls this before it runs dpkg (data/apt.conf.d).
"""

from __future__ import annotations

from pathlib import Path

from apt_ostree.core.compose import rootfs
from apt_ostree.core.container import places
from apt_ostree.core.state import seeds
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model import layout
from apt_ostree.model.events import Report
from apt_ostree.model.requests.images import ContainerPrepare
from apt_ostree.model.result import Result
from apt_ostree.system import process

_ROOT = Path("/")


def prepare(tx: Transaction, _request: ContainerPrepare) -> Result:
    """Fill /var with what the tree gives to machines; what the container has already stays as it is.

    Raises Refused outside of a container, and what `fill_var` raises.
    """
    places.require_container(_ROOT, "prepare the container for packages")
    return Result(changed=fill_var(tx.report))


def fill_var(report: Report) -> bool:
    """Make the directories of /var, and give it the seeds that it has not been given; return whether any.

    Raises Refused if the database of packages was replaced, and ExternalFailure if a program fails.
    """
    _refuse_replaced(_ROOT)
    rootfs.move_state(_ROOT)  # apt writes over the link to its extended_states, and tmpfiles.d over that
    process.run(["systemd-tmpfiles", "--create", "--prefix=/var"], what="prepare /var for the packages")
    return seeds.give_here(report)


def _refuse_replaced(root: Path) -> None:
    """Refuse state of packages where a link to it belongs: two of them cannot be made one."""
    replaced = [path for path in layout.SYSIMAGE_LINKS if _is_directory(root / path)]
    if replaced:
        raise Refused(
            "state of packages is below /var, where machines do not get it",
            details=[
                f"/{path} is a directory, and no link to /{layout.SYSIMAGE_LINKS[path]}" for path in replaced
            ],
            hint="a step of the Containerfile has replaced the link",
        )


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
