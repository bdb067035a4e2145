"""Finds programs and files of other packages before they are needed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from apt_ostree.errors import Refused
from apt_ostree.system.process import BASE_ENVIRONMENT


def require(what: str, programs: Mapping[str, str], files: Mapping[Path, str]) -> None:
    """Raise Refused, with the packages to install, if a program or a file is missing.

    what: the purpose, for the message.
    programs, files: each with the Debian package that has it.
    """
    path = BASE_ENVIRONMENT["PATH"]
    missing = {name: package for name, package in programs.items() if not shutil.which(name, path=path)}
    missing |= {str(file): package for file, package in files.items() if not file.exists()}
    if missing:
        raise Refused(
            f"{what} needs what is not installed",
            details=[f"{name} of the package {package}" for name, package in missing.items()],
            hint=f"install it: apt-get install {' '.join(_ordered(missing.values()))}",
        )


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted({*names})
