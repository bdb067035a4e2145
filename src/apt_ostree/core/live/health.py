"""Verifies the system after a change: units keep running, files are as packaged, health checks pass."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from apt_ostree.core.transaction import Transaction
from apt_ostree.errors import ExternalFailure
from apt_ostree.model import health as rules
from apt_ostree.model.filestate import FileState
from apt_ostree.model.package import PackageDiff, qualified
from apt_ostree.model.settings import Settings
from apt_ostree.model.unit import Unit
from apt_ostree.model.unitfile import merged
from apt_ostree.system import dpkg_query, mounts, process, systemd
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo

#: If a required check fails, the change is undone; a wanted check only warns. The directories are those of
#: apt-ostree and of greenboot.
_REQUIRED = (
    "/usr/lib/apt-ostree/health.d", "/etc/apt-ostree/health.d",
    "/usr/lib/greenboot/check/required.d", "/etc/greenboot/check/required.d",
)  # fmt: skip
_WANTED = ("/usr/lib/greenboot/check/wanted.d", "/etc/greenboot/check/wanted.d")
_INTERVAL = 0.1  # seconds


def checks(repo: Repo, target: str, etc: Mapping[str, FileState]) -> tuple[str, ...]:
    """Return the health checks that run with the target's /usr and these changes of /etc."""
    changed = {Path("/etc", path): state for path, state in etc.items()}

    def programs(directory: str) -> dict[str, bool]:
        if directory.startswith("/usr/"):
            tree = diff.directory_of(repo, target, directory.lstrip("/"))
            files = diff.read_dirtree(repo, tree[0])[0] if tree else {}
            names = {name: _is_program(repo.file_state(checksum)) for name, checksum in files.items()}
        else:
            names = _programs_now(directory)
        in_directory = (path for path in changed if str(path.parent) == directory)
        return names | {path.name: _is_program(changed[path]) for path in in_directory}

    return rules.checks_in_force((*_REQUIRED, *_WANTED), programs)


def required(paths: Iterable[str]) -> tuple[str, ...]:
    """Return those of the paths of health checks that have to pass."""
    return tuple(path for path in paths if path.rpartition("/")[0] in _REQUIRED)


def _programs_now(directory: str) -> dict[str, bool]:
    path = Path(directory)
    return {entry.name: _is_executable(entry) for entry in path.iterdir()} if path.is_dir() else {}


def _is_program(state: FileState) -> bool:
    return state.type == "file" and bool(state.mode & 0o111)


def _is_executable(path: Path) -> bool:
    return path.is_file() and bool(path.stat().st_mode & 0o111)


@dataclass(frozen=True, slots=True)
class Acted:
    """Units that were acted on.

    names: the units.
    before: the state of each unit just after the action; a restart by systemd since then is a failure.
    began: the time of the action, in seconds of the monotonic clock.
    new: whether they did not run before.
    """

    names: tuple[str, ...]
    before: Mapping[str, Unit]
    began: float
    new: bool = False


def settle(acted: Acted, settings: Settings) -> None:
    """Wait until units have run without a failure for some time; raise ExternalFailure if one does not."""
    for _name, failure in failures(acted, settings):
        raise failure


def failures(acted: Acted, settings: Settings) -> Iterator[tuple[str, ExternalFailure]]:
    """Wait until units have run for some time; yield the names and the failures of those that do not."""
    failpoint("settle.before")
    waiting = dict.fromkeys(acted.names)
    while waiting:
        now = time.monotonic()
        for name, unit in systemd.units(waiting).items():
            if reason := rules.problem(unit, acted.before.get(name), new=acted.new):
                yield name, _failure(name, reason)
            elif not rules.is_well(unit, now - max(acted.began, unit.active_since), settings.settle):
                passed = now - acted.began
                if unit["ActiveState"] == "active" or passed <= settings.unit_timeout:
                    continue
                yield name, _failure(name, f"it is still {unit['ActiveState']} after {passed:.0f} seconds")
            del waiting[name]
        if waiting:
            time.sleep(_INTERVAL)


def run_checks(tx: Transaction, settings: Settings) -> None:
    """Run the health checks; raise ExternalFailure, with its output, if a required one fails."""
    for program in rules.checks_in_force(_REQUIRED, _programs_now):
        with tx.task(f"Running {program}"):
            _run(program, settings)
    for program in rules.checks_in_force(_WANTED, _programs_now):
        try:
            _run(program, settings)
        except ExternalFailure as error:
            tx.warning("; ".join((error.message, *error.details[:1])))
    failpoint("health.checked")


def verify_packages(tx: Transaction, target: str, packages: PackageDiff) -> None:
    """Compare the files of added and changed packages below /usr with dpkg's database.

    What is elsewhere is the machine's (/var, /etc), or not part of the tree (/boot). A file that differs in
    the tree itself is accepted: a postprocess script may have changed it, or dpkg was configured to leave it
    out. Raises ExternalFailure for any other difference.
    """
    present = {(p.name, p.architecture) for p in packages.added}
    present |= {(c.name, c.architecture) for c in packages.changed}
    names = sorted(qualified(*key) for key in present)
    if not names:
        return
    with mounts.in_namespace_of(1):
        differing = [path for path in map(_merged, dpkg_query.verify(names)) if path.is_relative_to("/usr")]
    wrong = [str(path) for path in differing if not _is_as_composed(tx.sysroot.repo, target, path)]
    if wrong:
        raise ExternalFailure("files are not as their packages have them", details=wrong[:20])
    if differing:
        tx.message(f"{len(differing)} files are as the image has them, not as their packages have them")


def _merged(path: Path) -> Path:
    return Path(merged(str(path)))


def _is_as_composed(repo: Repo, target: str, path: Path) -> bool:
    checksum = diff.file_of(repo, target, str(path).lstrip("/"))
    try:
        there = path.lstat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return checksum is None
    return checksum is not None and there == repo.inode(checksum)


def _failure(name: str, reason: str) -> ExternalFailure:
    return ExternalFailure(
        f"{name} does not run properly: {reason}", details=systemd.log_tail(name), concerns_health=True
    )


def _run(program: str, settings: Settings) -> None:
    try:
        with mounts.in_namespace_of(1):
            process.run(
                [program],
                what=f"pass the health check {program}",
                merge_stderr=True,
                timeout=settings.check_timeout,
            )
    except ExternalFailure as error:
        error.concerns_health = not isinstance(error.__cause__, OSError)  # else it did not run
        raise
