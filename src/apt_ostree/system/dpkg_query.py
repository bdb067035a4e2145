"""dpkg-query(1): which packages a dpkg database holds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from apt_ostree.model import dpkg_lists
from apt_ostree.model.package import Package
from apt_ostree.system import files, inside, process

_STATUS, _WANT = "${db:Status-Status}", "${db:Status-Want}"
_FINISHED = ("installed", "config-files", "not-installed")
#: Packages for which it is worth to start another dpkg.
_VERIFIED_AT_ONCE = 10
_FORMAT = "\\t${Package}\\t${Version}\\t${Architecture}\\n"


def installed(admindir: Path) -> tuple[Package, ...]:
    """Return the installed packages of the database in `admindir`, sorted."""
    return _selected(admindir, _STATUS, "installed")


def removed(admindir: Path) -> tuple[Package, ...]:
    """Return the packages of which only the configuration is left, sorted."""
    return _selected(admindir, _STATUS, "config-files")


def half_configured(admindir: Path) -> tuple[Package, ...]:
    """Return the packages whose configuration was begun and has not succeeded, sorted."""
    return _selected(admindir, _STATUS, "half-configured")


def held(admindir: Path) -> tuple[Package, ...]:
    """Return the packages that are on hold (apt-mark(8)), sorted."""
    return _selected(admindir, _WANT, "hold")


def unfinished(admindir: Path) -> tuple[tuple[Package, str], ...]:
    """Return the packages that are neither installed nor removed, with the state that they are in, sorted."""
    return tuple((package, state) for package, state in _states(admindir, _STATUS) if state not in _FINISHED)


def drop_scripts(admindir: Path, packages: Iterable[Package], name: str) -> None:
    """Remove a maintainer script of packages from the database in `admindir`."""
    for package in packages:
        for prefix in (package.name, f"{package.name}:{package.architecture}"):
            (admindir / "info" / f"{prefix}.{name}").unlink(missing_ok=True)


def _selected(admindir: Path, field: str, value: str) -> tuple[Package, ...]:
    return tuple(package for package, found in _states(admindir, field) if found == value)


def _states(admindir: Path, field: str) -> list[tuple[Package, str]]:
    """Return the packages with the value of a field, sorted."""
    done = process.run(
        ["dpkg-query", f"--admindir={admindir}", "--show", f"--showformat={field}{_FORMAT}"],
        what=f"list the packages in {admindir}",
    )
    rows = (line.split("\t") for line in done.stdout.splitlines())
    return sorted((Package(*row[1:]), row[0]) for row in rows)


@contextmanager
def copied(root: Path, admindir: str) -> Iterator[Path]:
    """Yield a copy of what dpkg-query needs of the database in somebody else's root directory."""
    with tempfile.TemporaryDirectory(prefix="apt-ostree-dpkg-") as directory:
        copy = Path(directory)
        for name in ("info", "updates"):
            (copy / name).mkdir()
        updates = inside.glob(root, f"{admindir}/updates/*")
        for path in (f"{admindir}/status", *updates):
            (copy / path.removeprefix(f"{admindir}/")).write_bytes(inside.read(root, path))
        yield copy


def listed(admindir: Path, top: str) -> frozenset[str]:
    """Return the paths below `top`, which ends with a slash, in dpkg's lists of the packages' files."""
    texts = _lists(admindir).values()
    return frozenset(line for text in texts for line in text.splitlines() if line.startswith(top))


def digests(admindir: Path) -> frozenset[str]:
    """Return the MD5 digests of the files that packages ship, except for conffiles (deb-md5sums(5))."""
    texts = (inside.text_of(admindir, path) for path in inside.glob(admindir, "info/*.md5sums"))
    return frozenset(line.partition(" ")[0] for text in texts for line in text.splitlines())


def diversions(admindir: Path) -> dict[str, tuple[str, str]]:
    """Return the diversions of the database in `admindir`, see dpkg_lists.diversions."""
    return dpkg_lists.diversions(files.text_of(admindir / "diversions"))


def owners_of_all(admindir: Path) -> dict[str, set[str]]:
    """Return path -> names of the packages that ship it; directories are among them."""
    found: dict[str, set[str]] = {}
    for name, text in _lists(admindir).items():
        for path in text.splitlines():
            found.setdefault(path, set()).add(name.partition(":")[0])
    return found


def owners(admindir: Path, path: str) -> tuple[str, ...]:
    """Return the names of the packages that ship a path."""
    return tuple(name for name, text in _lists(admindir).items() if path in text.splitlines())


def _lists(admindir: Path) -> dict[str, str]:
    """Return name -> text of the list of files of each package."""
    paths = inside.glob(admindir, "info/*.list")
    return {Path(path).stem: inside.text_of(admindir, path) for path in paths}


def verify(names: Sequence[str]) -> tuple[Path, ...]:
    """Return the files of packages that differ from the running system's database, except for conffiles."""
    what = "compare files with the database of packages"
    # Nearly all of the time is for digests, which dpkg makes one after the other.
    parts = min(len(os.sched_getaffinity(0)), -(-len(names) // _VERIFIED_AT_ONCE))
    commands = [["/usr/bin/dpkg", "--verify", "--", *names[part::parts]] for part in range(parts)]
    every = process.run_at_once(commands, what=what)
    for done in every:
        if done.returncode not in (0, 1):  # 1 means that files differ
            raise process.failure(what, done, done.stderr)
    rows = (line.split(maxsplit=1) for done in every for line in done.stdout.splitlines())
    return tuple(Path(row[1]) for row in rows if len(row) == 2 and not row[1].startswith("c "))
