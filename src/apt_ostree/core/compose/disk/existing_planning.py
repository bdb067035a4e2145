"""What of a running Debian goes along to the system that takes it over. Only reads, and refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path

from apt_ostree.core.compose.disk import planning
from apt_ostree.core.compose.disk.existing_host import Host
from apt_ostree.errors import Refused
from apt_ostree.model import accounts, carried_accounts, existing_root, grub, kargs, layout
from apt_ostree.model.carried_accounts import Carried
from apt_ostree.model.existing_root import KEPT, NETWORK, PLAIN, Left, Mounts, TakeoverPlan
from apt_ostree.model.requests.images import InstallToExistingRoot
from apt_ostree.model.unitfile import merged
from apt_ostree.system import dpkg_query, files
from apt_ostree.system.ostree import diff
from apt_ostree.system.ostree.new_sysroot import Source
from apt_ostree.system.ostree.repo import Repo

#: In a tree that has it, boot-complete.target ends the counting.
_PROGRAM = "usr/bin/apt-ostree"
_DPKG = Path("var/lib/dpkg")


@dataclass(frozen=True, slots=True)
class Job:
    """What is made of the running system.

    accounts: those of the new one. mounts: its fstab(5), without root.
    shared: directories that both show: in the old root -> in the new one.
    counted: whether the first boot is, too.
    """

    source: Source
    arguments: kargs.Arguments
    accounts: Carried
    mounts: Mounts
    shared: dict[str, str]
    attempts: int
    counted: bool
    plan: TakeoverPlan


def plan(root: Path, host: Host, source: Source, request: InstallToExistingRoot) -> Job:
    """Return what to make of the running system. Raises UsageError and Refused for what cannot be."""
    repo = Repo.open(source.repo)

    def has_path(path: str) -> bool:
        return repo.has_path(source.commit, merged(f"/{path.lstrip('/')}").lstrip("/"))

    arguments, without_arguments = _arguments(host, repo, source.commit, request)
    paths, without_program = _choose(root / "etc", has_path)
    people = carried_accounts.carry(_texts(root / "etc"), _texts_of_tree(repo, source.commit), has_path)
    mounts = existing_root.take_mounts(files.text_of(root / "etc/fstab"))
    shared = existing_root.shared(_directories(root), (*host.mount_points, *mounts.points))
    attempts = request.boot_attempts if host.counts else 0
    counted = attempts > 0 and has_path(_PROGRAM)
    left = [
        *without_arguments,
        *without_program,
        *starmap(Left, people.left),
        *_homes(root, people.users, shared, mounts),
        *(Left(f"the mount of {what}", reason) for what, reason in mounts.left),
    ]
    plan = TakeoverPlan(
        system=host.name,
        device=host.device,
        filesystem=host.filesystem,
        commit=source.commit,
        version=repo.version(source.commit) or "",
        repo="" if source.image else str(source.repo),
        image=source.image,
        follows=source.follows,
        url=source.remote.url if source.remote else "",
        arguments=arguments,
        attempts=attempts if counted else 0,
        files=paths,
        users=people.users,
        shared=tuple(f"/{old}" for old in shared),
        mounts=mounts.points,
        left=tuple(left),
        packages=_missing_packages(root, repo, source.commit),
    )
    return Job(source, arguments, people, mounts, shared, attempts, counted, plan)


def _arguments(
    host: Host, repo: Repo, commit: str, request: InstallToExistingRoot
) -> tuple[kargs.Arguments, list[Left]]:
    """Return the kernel arguments, and those of the running system that are not among them."""
    of_tree = tuple(repo.metadata(commit).get(layout.META_KERNEL_ARGUMENTS, ()))
    kept, dropped = existing_root.kept_arguments(host.arguments, (*of_tree, *request.kernel_arguments))
    arguments = grub.kernel_arguments(host.uuid, of_tree, (), (*kept, *request.kernel_arguments))
    planning.check_arguments(arguments)
    left = [Left(f"kernel arguments: {' '.join(dropped)}", "--karg adds one")] if dropped else []
    return arguments, left


def _choose(etc: Path, has_path: Callable[[str], bool]) -> tuple[tuple[str, ...], list[Left]]:
    """Return the paths in /etc that go along, and those kinds for which the tree has no program."""
    kept: list[str] = []
    left: list[Left] = []
    configured = []
    for kind in KEPT:
        found = sorted({str(path.relative_to(etc)) for path in _matching(etc, kind.patterns)})
        is_usable = not kind.needs or has_path(kind.needs)
        if is_usable:
            kept += found
        elif found:
            left.append(Left(f"the configuration of {kind.what}", f"the tree does not have /{kind.needs}"))
        if kind in NETWORK and any(_configures_network(etc, path) for path in found):
            configured.append((kind, is_usable))
    if configured and not any(is_usable for _kind, is_usable in configured):
        raise Refused(
            "the tree has none of the programs that set up the network of this machine",
            details=[f"{kind.what} (/{kind.needs})" for kind, _is_usable in configured],
            hint="add one of them to the packages of the tree; nothing was changed",
        )
    return tuple(kept), left


def _matching(etc: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for path in (path for pattern in patterns for path in etc.glob(pattern)):
        is_file = path.is_symlink() or path.is_file()
        if is_file and path.name != "README" and not (path.name == PLAIN and path.is_symlink()):
            yield path


def _configures_network(etc: Path, path: str) -> bool:
    return existing_root.configures_network(path, files.text_of(etc / path))


def _texts(etc: Path) -> dict[str, str]:
    return {name: files.text_of(etc / name) for name in carried_accounts.ALL_FILES}


def _texts_of_tree(repo: Repo, commit: str) -> dict[str, str]:
    found = {name: diff.file_of(repo, commit, f"usr/etc/{name}") for name in carried_accounts.ALL_FILES}
    return {
        name: repo.file_state(checksum).content.decode(errors="surrogateescape") if checksum else ""
        for name, checksum in found.items()
    }


def _directories(root: Path) -> list[str]:
    there = (root / name for name in existing_root.shareable())
    return [str(path.relative_to(root)) for path in there if path.is_dir() and not path.is_symlink()]


def _homes(root: Path, users: tuple[str, ...], shared: dict[str, str], mounts: Mounts) -> Iterator[Left]:
    """Yield the home directories that the new system does not show."""
    shown = tuple(f"/{new}/" for new in shared.values()) + tuple(f"{point}/" for point in mounts.points)
    for user in accounts.parse_passwd(files.text_of(root / "etc/passwd")):
        place = f"{existing_root.new_place(user.home)}/"
        if user.name in users and not place.startswith(shown):
            yield Left(f"the home directory {user.home} of {user.name}", f"it is at /sysroot{user.home}")


def _missing_packages(root: Path, repo: Repo, commit: str) -> tuple[str, ...]:
    """Return what is installed and not in the tree; nothing if the commit does not say what it has."""
    in_tree = repo.packages(commit)
    if in_tree is None:
        return ()
    names = {package.name for package in in_tree}
    return tuple(sorted({package.name for package in dpkg_query.installed(root / _DPKG)} - names))
