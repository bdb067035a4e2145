"""Decides whether the system is well after a change: units settle, files are as packaged, checks pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from apt_ostree.errors import ExternalFailure
from apt_ostree.model.events import Message, Report, task
from apt_ostree.model.filestate import FileState
from apt_ostree.model.package import PackageDiff
from apt_ostree.model.settings import Settings
from apt_ostree.model.unit import Unit
from apt_ostree.system import dpkg_query, mounts, process, systemd
from apt_ostree.system.failpoints import failpoint
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.repo import Repo

#: Required checks undo the change when they fail; wanted ones only warn. greenboot's directories, and ours.
_REQUIRED = (
    "/usr/lib/apt-ostree/health.d", "/etc/apt-ostree/health.d",
    "/usr/lib/greenboot/check/required.d", "/etc/greenboot/check/required.d",
)  # fmt: skip
_WANTED = ("/usr/lib/greenboot/check/wanted.d", "/etc/greenboot/check/wanted.d")
#: systemd considers these started when it has started a process; whether it works shows a moment later.
_STARTED_BLINDLY = ("simple", "exec", "idle", "forking")
_INTERVAL = 0.1  # seconds
_QUICK = 0.25  # of the settle time, for services that say when they are ready


def checks(repo: Repo, target: str, etc: Mapping[str, FileState]) -> tuple[str, ...]:
    """Return the health checks that will be there with the target's /usr and these changes of /etc."""
    changed = {Path("/etc", path): state for path, state in etc.items()}

    def programs(directory: str) -> dict[str, bool]:
        if directory.startswith("/usr/"):
            tree = diff.directory_of(repo, target, directory.lstrip("/"))
            files = diff.read_tree(repo, tree[0])[0] if tree else {}
            names = {name: _is_program(repo.file_state(checksum)) for name, checksum in files.items()}
        else:
            names = _programs_now(directory)
        mine = (path for path in changed if str(path.parent) == directory)
        return names | {path.name: _is_program(changed[path]) for path in mine}

    return tuple(map(str, _in_force((*_REQUIRED, *_WANTED), programs)))


def _in_force(directories: Sequence[str], programs: Callable[[str], Mapping[str, bool]]) -> list[Path]:
    """Return the programs of directories; one in /etc hides the vendor's of the same name and kind.

    programs: returns what a directory has, and whether it can be executed. What cannot, such as a link to
    /dev/null, hides as well.
    """
    found: dict[tuple[str, str], tuple[Path, bool]] = {}
    for directory in directories:
        for name, is_program in programs(directory).items():
            found[_kind(directory), name] = (Path(directory, name), is_program)
    return [path for _key, (path, is_program) in sorted(found.items()) if is_program]


def _programs_now(directory: str) -> dict[str, bool]:
    path = Path(directory)
    return {entry.name: _is_executable(entry) for entry in path.iterdir()} if path.is_dir() else {}


def _is_program(state: FileState) -> bool:
    return state.type == "file" and bool(state.mode & 0o111)


def _is_executable(path: Path) -> bool:
    return path.is_file() and bool(path.stat().st_mode & 0o111)


def _kind(directory: str) -> str:
    """Return what directories share of which one in /etc hides the vendor's programs."""
    return directory.removeprefix("/usr/lib/").removeprefix("/etc/")


def settle(names: Collection[str], before: Mapping[str, Unit], settings: Settings, *, began: float) -> None:
    """Wait until units have run without trouble for a while; ExternalFailure names the one that does not.

    before: the units when they had just been acted on, at `began` (s, monotonic); a restart by systemd itself
    since then is trouble.
    """
    failpoint("settle.before")
    waiting = dict.fromkeys(names)
    while waiting:
        passed = time.monotonic() - began
        for name, unit in systemd.units(waiting).items():
            _check(name, unit, before.get(name))
            needed = settings.settle * (1 if unit["Type"] in _STARTED_BLINDLY else _QUICK)
            if unit["ActiveState"] == "active" and passed >= needed:
                del waiting[name]
            elif passed > settings.unit_timeout:
                raise _failure(name, f"it is still {unit['ActiveState']} after {passed:.0f} seconds")
        if waiting:
            time.sleep(_INTERVAL)


def run_checks(report: Report, settings: Settings) -> None:
    """Run the health checks; ExternalFailure with the output of a required one that fails."""
    for program in _in_force(_REQUIRED, _programs_now):
        with task(report, f"Running {program}"):
            _run(program, settings)
    for program in _in_force(_WANTED, _programs_now):
        try:
            _run(program, settings)
        except ExternalFailure as error:
            report(Message("; ".join((error.message, *error.details[:1])), "warning"))
    failpoint("health.checked")


def verify_packages(report: Report, repo: Repo, target: str, packages: PackageDiff) -> None:
    """Compare the files of added and changed packages with dpkg's database.

    Where the image itself has something else (a postprocess script, files that dpkg was told to leave out),
    the image is right.
    """
    present = {(p.name, p.architecture) for p in packages.added}
    present |= {(c.name, c.architecture) for c in packages.changed}
    names = sorted(_dpkg_name(*key) for key in present)
    if not names:
        return
    with mounts.in_namespace_of(1):
        differing = dpkg_query.verify(names)
    wrong = [str(path) for path in differing if not _is_as_composed(repo, target, path)]
    if wrong:
        raise ExternalFailure("files are not as their packages have them", details=wrong[:20])
    if differing:
        report(Message(f"{len(differing)} files are as the image has them, not as their packages have them"))


def _dpkg_name(name: str, architecture: str) -> str:
    """Return how dpkg tells a package from the same one of another architecture."""
    return name if architecture == "all" else f"{name}:{architecture}"


def _is_as_composed(repo: Repo, target: str, path: Path) -> bool:
    checksum = diff.file_of(repo, target, str(path).lstrip("/"))
    try:
        return checksum is not None and path.lstat().st_ino == repo.inode(checksum)
    except FileNotFoundError:
        return checksum is None


def _check(name: str, unit: Unit, before: Unit | None) -> None:
    if unit["ActiveState"] == "failed" or (unit["ActiveState"] == "inactive" and unit["Type"] != "oneshot"):
        raise _failure(name, f"it is {unit['ActiveState']} ({unit['Result']})")
    restarts = int(unit["NRestarts"] or 0)
    if unit["SubState"] == "auto-restart" or (before and restarts > int(before["NRestarts"] or 0)):
        raise _failure(name, "it ends and is restarted again and again")


def _failure(name: str, why: str) -> ExternalFailure:
    return ExternalFailure(f"{name} does not run well: {why}", details=systemd.log_tail(name))


def _run(program: Path, settings: Settings) -> None:
    with mounts.in_namespace_of(1):
        process.run(
            [program],
            what=f"pass the health check {program}",
            merge_stderr=True,
            timeout=settings.check_timeout,
        )
