"""The second step of a compose: gives a root directory with packages the form of a tree."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from apt_ostree.core.build.finish import finish_tree, reset_bytecode
from apt_ostree.core.compose import account_ids, machine_state, rootfs
from apt_ostree.core.compose.cache import Base, Cache
from apt_ostree.core.transaction import Transaction
from apt_ostree.model import initramfs_inputs, layout
from apt_ostree.model.account_ids import Ids
from apt_ostree.model.events import Report
from apt_ostree.model.treefile import MachineState, Treefile
from apt_ostree.system import confined, dpkg_query, files, rootstate, sandbox, source_date
from apt_ostree.system.failpoints import failpoint

_PROGRAM = "usr/bin/apt-ostree"
_IMAGES = f"*/{layout.INITRAMFS}"
_BESIDE_IMAGES = (layout.INITRAMFS_LIST, layout.INITRAMFS_INPUTS)


@dataclass(frozen=True, slots=True)
class Work:
    """How a root directory is postprocessed.

    timestamp: the time of the commit, which the treefile's scripts see, in seconds since 1970.
    source_date: the time that all other programs see, likewise.
    ids: the ids that accounts have to keep.
    base, cache: what the root directory is based on, and where initramfs images are kept; None: nowhere.
    """

    timestamp: int
    source_date: int
    ids: Ids = field(default_factory=Ids)
    base: Base | None = None
    cache: Cache | None = None


def postprocess(tx: Transaction, root: Path, tree: Treefile, work: Work) -> None:
    """Apply the settings of the treefile, then give the root directory the form of a tree."""

    def run_in_root(command: Sequence[str], what: str) -> None:
        sandbox.run(root, command, what=what)

    packages = {package.name for package in dpkg_query.installed(root / layout.DPKG_ADMINDIR)}
    with source_date.set_to(work.source_date):
        left = confined.call(root, partial(_leave_to_machines, packages, tree.machine_state), run_in_root)
        failpoint("compose.left-to-machines")
        with tx.task("Applying the treefile"), source_date.set_to(work.timestamp):
            rootfs.add_files(root, tree.add_files)
            rootfs.set_units(tree.units, run_in_root)
            rootfs.set_default_target(tree.default_target, run_in_root)
            rootfs.write_boot_configuration(root, tree)
            rootfs.remove_files(root, tree.remove_files)
            rootfs.run_scripts(root, tree.postprocess, run_in_root)
        failpoint("compose.treefile-applied")
        _tell_what_is_left(tx, root, left)
        rootfs.move_linked_directories(root)
        key = _restore_initramfs(tx, root, tree, work)
        confined.call(root, partial(finish, tx.report, work.ids), run_in_root)
        if key and work.cache:
            _keep_initramfs(work.cache, key, root)
    rootfs.make_top_level(root)
    failpoint("compose.tree-made")


def _leave_to_machines(
    packages: Collection[str], own: Sequence[MachineState], _run: confined.RunInRoot
) -> list[str]:
    return machine_state.leave_to_machines(Path("/"), packages, own)


def _tell_what_is_left(tx: Transaction, root: Path, packages: Sequence[str]) -> None:
    if packages:
        tx.message(f"Each machine configures itself: {', '.join(packages)}")
    if packages and not (root / _PROGRAM).exists():
        tx.warning("the tree does not have apt-ostree, which does that at the first boot")


def finish(report: Report, ids: Ids, run_in_root: confined.RunInRoot) -> None:
    """Finish the tree in the root directory of this process, in which all scripts have run.

    ids: the ids that accounts have to keep.
    run_in_root: runs a program there.

    Raises ExternalFailure if a program fails, and Refused for a second kernel and for an id that cannot be.
    """
    root = Path("/")
    account_ids.keep(root, ids)
    finish_tree(root, run_in_root=run_in_root, report=report)
    reset_bytecode(root / "usr", root / "usr")
    rootfs.drop_dates(root)


# --- the initramfs, which a cache may have


def _restore_initramfs(tx: Transaction, root: Path, tree: Treefile, work: Work) -> str | None:
    """Put the image into the root directory if it is kept; return the key of one that has to be kept."""
    modules = root / layout.KERNEL_MODULES
    if not (work.base and work.cache) or any(modules.glob(_IMAGES)):
        return None
    changed = rootstate.changed(root, work.base.moment)
    relevant = initramfs_inputs.relevant(changed, has_arguments=bool(tree.dracut.arguments))
    moves = confined.call(root, partial(_moves, work.ids), lambda *_: None)
    digest = rootstate.digest_of(root, relevant)
    key = work.cache.initramfs_key(work.base, digest, work.source_date, moves)
    if not work.cache.restore_initramfs(key, modules):
        return key
    held = {line for path in modules.glob(f"*/{layout.INITRAMFS_LIST}") for line in _lines(path)}
    if held.isdisjoint(changed - relevant):
        tx.message("The initramfs is that of an earlier compose")
        return None
    for name in (layout.INITRAMFS, *_BESIDE_IMAGES):
        for path in modules.glob(f"*/{name}"):
            path.unlink()
    return key


def _moves(ids: Ids, _run: confined.RunInRoot) -> list[list[list[int]]]:
    moves = account_ids.planned(Path("/"), ids)
    return [sorted([old, new] for old, new in table.items()) for table in (moves.users, moves.groups)]


def _lines(path: Path) -> list[str]:
    return files.text_of(path).splitlines()


def _keep_initramfs(cache: Cache, key: str, root: Path) -> None:
    modules = root / layout.KERNEL_MODULES
    images = [
        path for path in sorted(modules.glob(_IMAGES)) if path.with_name(layout.INITRAMFS_LIST).exists()
    ]
    names = [str(path.relative_to(modules)) for path in images]
    if names:
        beside = [name.replace(layout.INITRAMFS, other) for name in names for other in _BESIDE_IMAGES]
        cache.keep_initramfs(key, modules, [*names, *beside])
