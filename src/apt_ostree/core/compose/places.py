"""Where root filesystems may be made and changed: the checks of directories that the caller names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apt_ostree.core.compose.tree import WORK_PREFIX
from apt_ostree.errors import Refused, UsageError
from apt_ostree.model import layout
from apt_ostree.system import files, mountinfo, scratch

#: What our own code opens by its path: a link there would lead out of the root filesystem.
_REAL = (
    *("boot", "etc", "usr", "usr/lib", "usr/lib/apt-ostree", "usr/lib/bootc", "usr/lib/modules"),
    *("usr/lib/sysimage", "usr/share", "var", "var/lib", "var/lib/apt", "var/lib/systemd", "var/tmp"),
)


@contextmanager
def new_directory(path: str) -> Iterator[Path]:
    """Yield a directory to fill, which is made if there is nothing; a failure removes it again.

    Raises UsageError for a path that cannot be one, and Refused for a directory with something in it.
    """
    real = _beside_others(path)
    created = not real.exists()
    if created:
        real.mkdir()
    else:
        scratch.remove_leftovers(real, WORK_PREFIX)
        if any(real.iterdir()):
            raise Refused(
                f"{path} is not empty", hint="name an empty directory, or a path where there is nothing"
            )
    try:
        yield real
    except BaseException:
        if created and not any(real.iterdir()):
            real.rmdir()
        raise


def new_root(path: str) -> Path:
    """Return the path of a root filesystem to make: there is nothing, or an empty directory.

    Raises UsageError and Refused as `new_directory` does, and Refused for a mount point.
    """
    real = _beside_others(path)
    if real.exists() and any(real.iterdir()):
        raise Refused(
            f"{path} is not empty", hint="name an empty directory, or a path where there is nothing"
        )
    _refuse_mounts(real)
    return real


def replaceable(path: str, mark: str) -> Path:
    """Return the path of a directory that may be replaced.

    There is nothing, or an empty directory, or one with a file `mark`.

    Raises UsageError and Refused as `new_root` does.
    """
    real = marked(path, mark)
    _refuse_mounts(real)
    return real


def marked(path: str, mark: str) -> Path:
    """Return the path of a directory as `replaceable` does; it may be a mount point, or have some in it."""
    real = _beside_others(path)
    names = [entry.name for entry in real.iterdir()] if real.exists() else []
    others = [name for name in names if not name.startswith(".apt-ostree-")]  # of programs that were killed
    if others and not (real / mark).is_file():
        raise Refused(
            f"{path} has files, and no {mark}",
            hint="name an empty directory, or a path where there is nothing",
        )
    return real


def _beside_others(path: str) -> Path:
    """Return a path without links, whose parent is there."""
    given = Path(path).absolute()
    real = given.parent.resolve() / given.name if given.name not in ("", "..") else Path("/")
    if real == Path("/") or real.is_symlink():
        kind = "a link" if real.is_symlink() else "not a directory to fill"
        raise UsageError(f"{path} is {kind}", hint="name a directory by its own path")
    if not real.parent.is_dir():
        raise UsageError(f"the directory {real.parent} does not exist", hint="create it first")
    if real.exists() and not real.is_dir():
        raise UsageError(f"{path} is not a directory")
    return real


def existing_root(path: str) -> Path:
    """Return the path, without links, of a root filesystem that is there and that nothing uses.

    Raises UsageError for what is none, and Refused for one that is not root's, that has mounts, or that is
    the running system.
    """
    real = Path(path).resolve()
    if not (real / "usr").is_dir():
        raise UsageError(f"{path} is not a root filesystem: it has no directory usr")
    if real == Path("/"):
        raise Refused("/ is the running system", hint="name the directory of a root filesystem")
    _refuse_mounts(real)
    if (info := real.stat()).st_uid != 0 or info.st_mode & 0o022:
        raise Refused(
            f"{path} is not root's alone (owner {info.st_uid}, mode {info.st_mode & 0o7777:04o})",
            hint="unpack it as root: 'tar --extract --numeric-owner --xattrs'",
        )
    if links := [name for name in _REAL if (real / name).is_symlink()]:
        raise Refused(f"{path} has links where directories belong: {', '.join(links)}")
    return real


def _refuse_mounts(real: Path) -> None:
    targets = [Path(entry.target) for entry in mountinfo.read()]
    if found := sorted(str(target) for target in targets if target == real or real in target.parents):
        raise Refused(
            f"something is mounted on {real} or below it", details=found, hint="unmount it first (umount(8))"
        )


def has_packages(root: Path) -> bool:
    """Return whether a root filesystem has dpkg's database."""
    places = (root / "var/lib/dpkg/status", root / layout.DPKG_ADMINDIR / "status")
    return any(path.is_file() and not path.is_symlink() for path in places)


def unlike_a_tree(root: Path) -> list[str]:
    """Return in what a root filesystem differs from the form of a tree."""
    problems = [] if (root / "usr/etc").is_dir() else ["there is no /usr/etc"]
    problems += ["there is /etc, which belongs to /usr/etc"] if (root / "etc").exists() else []
    problems += (
        [] if (root / layout.DPKG_ADMINDIR / "status").is_file() else ["dpkg's database is not in /usr"]
    )
    for name in layout.TOP_DIRECTORIES:
        place = root / name
        if place.is_symlink() or not place.is_dir():
            problems.append(f"there is no directory /{name}")
        elif held := sorted(path.name for path in place.iterdir()):
            problems.append(f"there is something in /{name}: {', '.join(held[:3])}")
    links = {name: target for name, target in layout.TOP_LINKS.items() if _target(root / name) != target}
    return problems + [f"/{name} is not a link to {target}" for name, target in links.items()]


def _target(path: Path) -> str:
    return str(path.readlink()) if path.is_symlink() else ""


def read_text(root: Path, name: str) -> str:
    """Return the text of a file of a root filesystem, "" without one; Refused for anything else there."""
    path = root / name
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise Refused(f"{path} is not a file")
    return files.text_of(path)
