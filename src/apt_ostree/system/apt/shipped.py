"""What the archives of packages have (apt_inst reads them)."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apt_inst
import apt_pkg

from apt_ostree.model import dpkg_lists
from apt_ostree.model.filestate import FileState
from apt_ostree.system.apt.config import explained

#: Package, path relative to /etc, and state.
Shipped = tuple[str, str, FileState]


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive has. paths: absolute ones, without directories."""

    name: str
    architecture: str
    paths: tuple[str, ...]


def contents(archive: Path) -> Contents:
    """Return what an archive has."""
    paths: list[str] = []

    def add(member: Any, _data: bytes | None) -> None:
        if not member.isdir():
            paths.append(f"/{member.name.removeprefix('.').strip('/')}")

    with explained(f"read the package {archive.name}"):
        deb = apt_inst.DebFile(str(archive))
        deb.data.go(add)
        section = _control(deb)
    return Contents(section["Package"], section["Architecture"], tuple(paths))


def _control(deb: Any) -> Any:
    return apt_pkg.TagSection(deb.control.extractdata("control").decode())


def etc(archives: Iterable[Path], info: Path) -> list[Shipped]:
    """Return what archives contain below /etc; parents come first.

    info: dpkg's directory with the lists of the installed packages' files, which says what need not be read.
    """
    lists = {path.name for path in info.glob("*.list")}
    rows: list[Shipped] = []
    for archive in archives:
        with explained(f"read the package {archive.name}"):
            deb = apt_inst.DebFile(str(archive))
            section = _control(deb)
            name = section["Package"]
            listed = f"{dpkg_lists.info_name(lists, name, section['Architecture'])}.list"
            if listed in lists and "\n/etc/" in (info / listed).read_text(errors="replace"):
                deb.data.go(partial(_add, rows, name))
    return rows


def _add(rows: list[Shipped], package: str, member: Any, data: bytes | None) -> None:
    path = member.name.removeprefix(".").strip("/")
    if not path.startswith("etc/"):
        return
    mode, owner, path = stat.S_IMODE(member.mode), (member.uid, member.gid), path.removeprefix("etc/")
    if member.isdir():
        rows.append((package, path, FileState("directory", mode, *owner)))
    elif member.issym():
        rows.append((package, path, FileState("symlink", 0o777, *owner, member.linkname.encode())))
    elif member.isfile():
        rows.append((package, path, FileState("file", mode, *owner, data or b"")))
