"""Which source package the paths of a tree are of. Pure values.

What no package ships, such as compiled Python and caches, goes with the nearest directory above it that
packages ship, if that is of one source alone. What dpkg keeps of one package goes with the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from apt_ostree.model import layout
from apt_ostree.model.unitfile import in_tree

_VAR = "/var/"


def owners(
    lists: Mapping[str, str],
    sources: Mapping[str, str],
    diversions: Mapping[str, tuple[str, str]],
    info: Iterable[str] = (),
) -> dict[str, str]:
    """Return path -> source of what packages ship, and of what dpkg keeps of each; "" for several sources.

    lists: NAME or NAME:ARCHITECTURE of a package -> dpkg's list of its files.
    sources: name of a package -> its source.
    diversions: see dpkg_lists.diversions.
    info: paths of what dpkg keeps of one package, each DIRECTORY/NAME[:ARCHITECTURE].KIND.
    """
    found: dict[str, str] = {}
    for name, text in sorted(lists.items()):
        package = name.partition(":")[0]
        source = sources.get(package, package)
        for line in text.splitlines():
            target, by = diversions.get(line, (line, package))
            path = _placed(line if by == package else target)
            if found.setdefault(path, source) != source:
                found[path] = ""
    for path in info:
        package = path.rpartition("/")[2].rpartition(".")[0].partition(":")[0]
        if package in sources:
            found[path] = sources[package]
    return found


def source_of(path: str, owned: Mapping[str, str]) -> str:
    """Return the source of a path, or "". owned: see `owners`."""
    while path:
        if path in owned:
            return owned[path]
        path = path.rpartition("/")[0]
    return ""


def _placed(path: str) -> str:
    """Return where a package's path is in an image; what is below /var is given to it at the first boot."""
    path = in_tree(path)
    return f"{layout.FACTORY}{path}" if path.startswith(_VAR) else path.removeprefix("/")
