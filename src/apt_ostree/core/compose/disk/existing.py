"""`install-to-existing-root`: the next boot of the Debian that runs starts a commit, on the same file system.

The new system is made in a directory beside the old one, which stays as it is: its /usr, /etc, /var and the
menu of its GRUB. That menu ends by running a file that is not there by default, custom.cfg. With it, GRUB
shows our menu first, whose last entry is the old one. So the last step is one rename, before which the old
system starts, and after which the new one does.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from apt_ostree.core.compose.disk import (
    boot,
    building,
    carrying,
    existing_host,
    existing_planning,
    planning,
    sources,
)
from apt_ostree.core.compose.disk.existing_host import Host
from apt_ostree.core.compose.disk.existing_planning import Job
from apt_ostree.core.steps import Step, take
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import Refused
from apt_ostree.model import grub, grubenv
from apt_ostree.model.events import PlanShown
from apt_ostree.model.existing_root import UNFINISHED
from apt_ostree.model.requests.images import InstallToExistingRoot
from apt_ostree.model.result import Result
from apt_ostree.system import dirlock, files, mounts, scratch, signals
from apt_ostree.system.caller import require_root
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.grub import MENUS
from apt_ostree.system.ostree.new_sysroot import NewSysroot, Source

_ROOT = Path("/")
_IMPORT_PREFIX, _WORK_PREFIX = ".apt-ostree-import-", ".apt-ostree-takeover-"
_VERB = "install-to-existing-root"
#: Of our boot entries, in /boot: the last one is the link that libostree reads.
_OF_BOOT = ("ostree", "loader.0", "loader.1", "loader")


def install_to_existing_root(tx: Transaction, request: InstallToExistingRoot) -> Result:
    """Have the next boot start a commit, and keep the running system as it is.

    Returns `ref`, `commit`, `hook` (the file without which the old system is started), and for a dry run the
    `plan`. Raises UsageError for an error in the request, Refused if a precondition is not met, Cancelled if
    the user declines, and ExternalFailure if a step fails: then the old system starts, as before.
    """
    require_root("take over this system")
    host = existing_host.look(_ROOT)
    with scratch.directory(_ROOT, _IMPORT_PREFIX) as place:
        source = sources.of_request(tx, request, place)
        assert source, "the request names a commit"
        return _install(tx, request, host, source)


def _install(tx: Transaction, request: InstallToExistingRoot, host: Host, source: Source) -> Result:
    existing_host.check_space(_ROOT, host, planning.measure(source))
    job = existing_planning.plan(_ROOT, host, source, request)
    shown = PlanShown(_VERB, job.plan.to_json())
    if request.dry_run:
        tx.report(shown)
        return Result(True, details={**_details(job), "plan": job.plan.to_json()})
    tx.agree(shown)
    with dirlock.held(_ROOT / "boot", "installing on"), scratch.directory(_ROOT, _WORK_PREFIX) as work:
        _require_same(host)
        _remove_unfinished(work)
        sysroot = building.deploy(tx, source, job.arguments, work)
        boot.check_titles(sysroot.root / "boot")
        with tx.task("Taking users and configuration along"):
            carrying.furnish(_ROOT, host, sysroot, job)
        failpoint("existing.furnished")
        with tx.task("Adding it to the boot menu"):
            _put(host, sysroot, job)
    return Result(True, details=_details(job))


def _details(job: Job) -> dict[str, object]:
    return {
        "ref": sources.name_of(job.source),
        "commit": job.source.commit,
        "hook": str(_hook(Path("/"))),
    }


def _hook(root: Path) -> Path:
    return root / MENUS / grub.HOOK


def _require_same(host: Host) -> None:
    if existing_host.look(_ROOT) != host:
        raise Refused(
            "the system is not what it was when the plan was made",
            hint="run the command again to see what it means now",
        )


def _remove_unfinished(work: Path) -> None:
    """Remove what an earlier takeover left that was killed; the old system starts as long as it is there."""
    if existing_host.is_unfinished(_ROOT):
        for name in reversed(_OF_BOOT):
            files.remove_all(_ROOT / "boot" / name)
        (_ROOT / "ostree").rename(work / "earlier")  # goes with that; its mark is there to the end


# --- from the directory to its place


def _put(host: Host, sysroot: NewSysroot, job: Job) -> None:
    """Move the new system to its place, and have GRUB start it. A failure takes all of it back."""
    menu = grub.menu_beside(sysroot.stateroot, host.boot_uuid, host.boot, host.name)
    take(
        (
            Step("repository", lambda: _place_repository(sysroot), lambda _failure: _take_back(sysroot)),
            Step("boot files", lambda: _place_boot_files(sysroot), lambda _failure: _remove_boot_files()),
            _writing("attempts", _ROOT / MENUS / "grubenv", _environment(job)),
            _writing("menu", _ROOT / MENUS / grub.BESIDE, menu),
            Step("order", _sync),
            _writing("next boot", _hook(_ROOT), grub.hook()),
            Step("end", lambda: failpoint("existing.default-set")),
        )
    )
    (_ROOT / "ostree" / UNFINISHED).unlink()
    files.make_immutable(_ROOT / sysroot.deployment)


def _place_repository(sysroot: NewSysroot) -> None:
    (sysroot.root / "ostree" / UNFINISHED).touch()
    mounts.sync_file_system(sysroot.root)
    (sysroot.root / "ostree").rename(_ROOT / "ostree")
    mounts.sync_file_system(_ROOT)
    failpoint("existing.repository-placed")


def _take_back(sysroot: NewSysroot) -> None:
    if not (sysroot.root / "ostree").exists():
        (_ROOT / "ostree").rename(sysroot.root / "ostree")


def _place_boot_files(sysroot: NewSysroot) -> None:
    for name in _OF_BOOT:
        source = sysroot.root / "boot" / name
        if os.path.lexists(source):
            _move(source, _ROOT / "boot" / name)
    failpoint("existing.boot-placed")


def _move(source: Path, target: Path) -> None:
    """Move a path, to another file system, too: there it appears as a whole."""
    with suppress(OSError):
        source.rename(target)
        return
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    partial = target.with_name(f"{target.name}{_WORK_PREFIX}")
    try:
        files.remove_all(partial)
        shutil.copytree(source, partial, symlinks=True)
        partial.rename(target)
    finally:
        files.remove_all(partial)


def _remove_boot_files() -> None:
    for name in reversed(_OF_BOOT):
        files.remove_all(_ROOT / "boot" / name)


def _environment(job: Job) -> str:
    """Return GRUB's environment block, with what it has already."""
    try:
        there = grubenv.parse(files.text_of(_ROOT / MENUS / "grubenv"))
    except ValueError:
        there = {}
    variables = grubenv.stopped(there) | {grubenv.ATTEMPTS: str(job.attempts)}
    return grubenv.format_block(grubenv.started(variables) if job.counted else variables)


def _writing(name: str, path: Path, text: str) -> Step:
    """Return the step that writes a file, which is durable, or was not written."""
    before = files.read_state(path)

    def write() -> None:
        files.replace_text(path, text)
        mounts.sync_file_system(path.parent)

    return Step(name, write, lambda _failure: files.write_states([(path, before)]))


def _sync() -> None:
    """Have all of it on the disk before the last step."""
    failpoint("existing.menu-written")
    mounts.sync_file_system(_ROOT)
    mounts.sync_file_system(_ROOT / "boot")
    signals.ignore()  # from here on it is taken over, or it is not
