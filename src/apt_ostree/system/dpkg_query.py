"""dpkg-query(1): which packages a dpkg database holds."""

from __future__ import annotations

from pathlib import Path

from apt_ostree.model.package import Package
from apt_ostree.system import process

_FORMAT = "${db:Status-Status}\\t${Package}\\t${Version}\\t${Architecture}\\n"


def installed(admindir: Path) -> tuple[Package, ...]:
    """Return the installed packages of the database in `admindir`, sorted."""
    done = process.run(
        ["dpkg-query", f"--admindir={admindir}", "--show", f"--showformat={_FORMAT}"],
        what=f"list the packages in {admindir}",
    )
    rows = (line.split("\t") for line in done.stdout.splitlines())
    return tuple(sorted(Package(*row[1:]) for row in rows if row[0] == "installed"))
