"""dpkg-query(1): which packages a dpkg database holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from apt_ostree.model.package import Package
from apt_ostree.system import process

_FORMAT = "${db:Status-Status}\\t${Package}\\t${Version}\\t${Architecture}\\n"


def installed(admindir: Path) -> tuple[Package, ...]:
    """Return the installed packages of the database in `admindir`, sorted."""
    return _in_state(admindir, "installed")


def removed(admindir: Path) -> tuple[Package, ...]:
    """Return the packages of which only the configuration is left, sorted."""
    return _in_state(admindir, "config-files")


def _in_state(admindir: Path, state: str) -> tuple[Package, ...]:
    done = process.run(
        ["dpkg-query", f"--admindir={admindir}", "--show", f"--showformat={_FORMAT}"],
        what=f"list the packages in {admindir}",
    )
    rows = (line.split("\t") for line in done.stdout.splitlines())
    return tuple(sorted(Package(*row[1:]) for row in rows if row[0] == state))


def verify(names: Sequence[str]) -> tuple[Path, ...]:
    """Return the files of packages that differ from the running system's database, except for conffiles."""
    command = ["dpkg", "--verify", "--", *names]
    done = process.run(command, what="compare files with the database of packages", check=False)
    if done.returncode > 1:  # 1 means that files differ
        raise process.failure("compare files with the database of packages", done, done.stderr)
    rows = (line.split(maxsplit=1) for line in done.stdout.splitlines())
    return tuple(Path(row[1]) for row in rows if len(row) == 2 and not row[1].startswith("c "))
