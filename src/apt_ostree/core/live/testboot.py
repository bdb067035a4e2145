"""Test boots: boots a change in a container before the system is touched, and the present tree to compare.

The container has the new /usr, and copies of /etc and /var that are written to memory and thrown away. It has
no network and no devices, so that what fails there does not have to fail on the machine. Therefore a problem
counts only if the present tree, booted in the same way, does not have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from apt_ostree.core.live.etc_planning import ETC
from apt_ostree.core.live.health import required
from apt_ostree.core.live.planning import Change
from apt_ostree.core.state import generations, seeds
from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure, Refused
from apt_ostree.model import testboot
from apt_ostree.model.filestate import FileState
from apt_ostree.model.testboot import Boot
from apt_ostree.model.triggers import Trigger
from apt_ostree.system import confined, container, files, mounts, outputlog, sandbox, usrview

_VAR = Path("/var")


def require(tx: Transaction, change: Change, lowers: Sequence[Path]) -> None:
    """Boot what a change makes of the system; raise Refused if services or health checks fail only then.

    lowers: the directories of the new view.
    """
    container.require()
    if any(step.trigger is Trigger.CONFIGURE for step in change.plan.triggers):
        tx.warning("no test boot: packages are configured on this machine after the change")
        return
    etc = {path: change.etc.states[path] for path in change.etc.changed}
    checks = required(change.plan.health_checks)

    def mount_new(place: Path, empty: Path) -> None:
        usrview.mount_at(place, lowers, scratch=empty)

    with tx.task("Booting the result in a container"), _root(tx, mount_new) as root:
        _prepare(root, etc)
        target, logs = _boot(tx, root, checks)
    if not target.problems:
        return
    with tx.task("Booting the present tree to compare"), _root(tx, _present_usr) as root:
        present, _logs = _boot(tx, root, checks)
    wrong = testboot.regressions(target, present)
    if wrong:
        raise Refused(
            "the result does not boot as it should in a container; nothing was changed",
            details=[line for name, text in wrong.items() for line in _told(name, text, logs)],
            hint=f"the journal of the boot is in {outputlog.DIRECTORY}; without --test, and with "
            "[Live] TestBeforeApply=no, nothing is tested",
        )
    names = ", ".join(target.problems)
    tx.warning(f"{names}: not as it should be in a container, with the present tree neither")


def _told(name: str, text: str, logs: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{name}: {text}", *(f"{name}: {line}" for line in logs.get(name, ()))]


@contextmanager
def _root(tx: Transaction, mount_usr: Callable[[Path, Path], None]) -> Iterator[Path]:
    """Yield the root directory of a container: a /usr, and the machine's /etc and /var to be written to.

    mount_usr: gets the place to mount at, and an empty directory.
    """
    with generations.scratch(tx.sysroot) as scratch:
        mounts.mount("tmpfs", scratch, "tmpfs", data="mode=0700")
        try:
            root, view = scratch / "root", scratch / "view"
            for directory in (root, view):
                directory.mkdir()
            _copy_on_write(tx.sysroot.directory(tx.live.booted), root, scratch / "of-root")
            mount_usr(root / "usr", view)
            _copy_on_write(ETC, root / "etc", scratch / "of-etc")
            _copy_on_write(_VAR, root / "var", scratch / "of-var")
            yield root
        finally:
            mounts.umount(scratch, detach=True)


def _copy_on_write(directory: Path, target: Path, scratch: Path) -> None:
    """Mount a directory so that what is written to it goes to `scratch`, which is made."""
    upper, work, empty = (scratch / name for name in ("upper", "work", "view"))
    for path in (upper, work, empty):
        path.mkdir(parents=True)
    both = (str(upper), str(work))
    mounts.mount_overlay([str(directory)], target, source="apt-ostree", scratch=empty, upper=both)


def _present_usr(target: Path, _scratch: Path) -> None:
    mounts.mount(usrview.USR, target, flags=mounts.MS_BIND | mounts.MS_REC)


def _prepare(root: Path, etc: Mapping[str, FileState]) -> None:
    """Do to the copies what a change does to /etc and /var."""
    files.write_states([(root / "etc" / path, state) for path, state in etc.items()])
    sandbox.run(root, ["systemd-sysusers"], what="create users for the test boot")
    _give_seeds(root)
    sandbox.run(root, ["ldconfig"], what="update the cache of libraries for the test boot")


def _give_seeds(root: Path) -> None:
    device = root / "dev/null"  # of programs that copy
    device.touch()
    mounts.mount("/dev/null", device, flags=mounts.MS_BIND)
    try:
        confined.call(root, lambda _run: seeds.give_here(lambda _event: None), lambda _command, _what: None)
    finally:
        mounts.umount(device)


def _boot(tx: Transaction, root: Path, checks: Sequence[str]) -> tuple[Boot, dict[str, list[str]]]:
    """Boot a root directory; return how that went, and the last lines of what failed. The journal is kept."""
    settings = tx.settings
    with container.booted(root, output=root.parent / "output") as machine:
        state = machine.wait_for_boot(settings.test_timeout)
        rows = machine.units()
        late = {} if state in testboot.ENDED else testboot.unready(rows)
        failed = {}
        for check in checks:
            try:
                machine.run([check], what=f"pass the health check {check}", timeout=settings.check_timeout)
            except ExternalFailure as error:
                failed[check] = "; ".join((error.message, *error.details[-1:]))
        boot = Boot(state, {**late, **testboot.troubled(rows)}, failed)
        log = root.parent / "journal"
        log.write_text(machine.log())
        with outputlog.kept(tx.report, log, "test-boot"):
            return boot, {unit: machine.log_tail(unit) for unit in boot.units}
