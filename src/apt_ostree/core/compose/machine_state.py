"""Keeps what belongs to one machine out of a tree.

It runs before the treefile's own files and scripts: what these put into the tree is the author's.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from apt_ostree.errors import Refused
from apt_ostree.model import identities, layout, tmpfiles
from apt_ostree.model.identities import Identity
from apt_ostree.model.tmpfiles import Treatment
from apt_ostree.model.treefile import MachineState
from apt_ostree.system import dpkg_query, files, inside, rootstate

#: Where packages' scripts write; the content of those in `layout.TOP_LINKS` goes to /var.
_TOPS = ("etc", "usr", "var", "home", "opt", "root", "srv")
#: An empty file of this name is what systemd needs to make one (machine-id(5)).
MACHINE_ID = "etc/machine-id"
#: So much of a file is examined, in bytes.
_EXAMINED = 65536
_CHUNK = 1 << 20
#: The directories in / that are links to those of the same names in /usr.
_MERGED = ("/bin/", "/lib", "/sbin/")
#: dracut lets others not read it; what is in it comes from the tree.
_INITRAMFS = f"/{layout.KERNEL_MODULES}/*/{layout.INITRAMFS}"


def leave_to_machines(root: Path, packages: Collection[str], own: Sequence[MachineState]) -> list[str]:
    """Remove what packages made for one machine; write and return which ones each machine configures itself.

    What the root says of that already, as the tree of an image does, stays true.

    packages: the names of the installed packages.
    own: the treefile's entries.

    Raises Refused if there is more that seems to belong to one machine.
    """
    shared = _record_shared(root, [item.path for item in own if item.shared])
    identities_of_tree = [*identities.KNOWN, *(_identity(item) for item in own if item.package)]
    before = _deferred(root)
    deferred = {name: sorted(paths) for name, paths in before.items() if name in packages}
    for name in sorted(packages):
        for identity in identities.of_package(name, [*identities_of_tree, *_recorded(before)]):
            removed = _remove(root, identity, shared)
            if removed and identity.configure:
                deferred[name] = sorted({*deferred.get(name, []), *removed})
    files.write_text(root / layout.DEFERRED, identities.format_deferred(deferred))
    _refuse_unknown(root)
    return sorted(deferred)


def known(root: Path, packages: Collection[str]) -> list[tuple[str, str]]:
    """Return what packages made for one machine: its paths, relative to the root, and the packages' names."""
    shared, recorded = _shared(root), _recorded(_deferred(root))
    return [
        (str(path.relative_to(root)), name)
        for name in sorted(packages)
        for identity in identities.of_package(name, [*identities.KNOWN, *recorded])
        for paths in _made(root, identity, shared).values()
        for path in paths
    ]


def unknown(root: Path, packages: Collection[str] = (), shared: Sequence[str] = ()) -> list[str]:
    """Return a text for each file that no package ships, is not known, and seems to be of one machine.

    packages: those whose known files are left out. shared: patterns besides those of the tree.
    """
    admindir = inside.directory_of(root, layout.DPKG_ADMINDIR)
    digests = dpkg_query.digests(admindir) if admindir else frozenset()
    of_packages = (f"/{path}" for path, _package in known(root, packages))
    patterns = [_INITRAMFS, *_shared(root), *shared, *of_packages]
    return [
        f"/{path}: {reason}"
        for path in _made_by_scripts(root)
        if not identities.matches_any(path, patterns)
        and (reason := _suspicion(root, path))
        and _digest(root, path) not in digests  # a copy of a shipped file
    ]


def _record_shared(root: Path, paths: Sequence[str]) -> list[str]:
    """Add patterns to the tree's record of what all machines have alike; return all of them."""
    shared = sorted({*_shared(root), *paths})
    if shared:
        files.write_text(root / layout.SHARED, "".join(f"{path}\n" for path in shared))
    return shared


def _shared(root: Path) -> list[str]:
    return inside.text_of(root, layout.SHARED).splitlines()


def _deferred(root: Path) -> dict[str, list[str]]:
    return identities.parse(inside.text_of(root, layout.DEFERRED))


def _recorded(deferred: identities.Deferred) -> list[Identity]:
    """Return what an earlier step has left to machines."""
    return [
        Identity(re.escape(name), tuple(path.removeprefix("/") for path in paths))
        for name, paths in deferred.items()
    ]


def _identity(item: MachineState) -> Identity:
    return Identity(re.escape(item.package or ""), (item.path.removeprefix("/"),))


def _made(root: Path, identity: Identity, shared: Sequence[str]) -> dict[str, list[Path]]:
    """Return what a package made, by the patterns of which there is something."""
    found = {
        pattern: [root / path for path in inside.glob(root, pattern) if not _is_shared(path, shared)]
        for pattern in identity.paths
    }
    return {pattern: paths for pattern, paths in found.items() if paths}


def _remove(root: Path, identity: Identity, shared: Sequence[str]) -> list[str]:
    """Remove what a package made; return the patterns, with a slash before, of which there was something."""
    made = _made(root, identity, shared)
    for path in (path for paths in made.values() for path in paths):
        files.remove_all(path)
        _remove_links(path)
    return [f"/{pattern}" for pattern in made]


def _is_shared(path: str, shared: Sequence[str]) -> bool:
    return identities.matches_any(path, shared)


def _remove_links(target: Path) -> None:
    """Remove links beside a removed path that led to it, such as the names that openssl uses."""
    for path in target.parent.iterdir():
        if path.is_symlink() and str(path.readlink()) == target.name:
            path.unlink()


def _refuse_unknown(root: Path) -> None:
    if suspicions := unknown(root):
        raise Refused(
            "scripts of packages made what seems to belong to one machine; all machines would have it",
            details=suspicions,
            hint="name each path under machine-state in the treefile, with the package that makes it on each "
            "machine, or with 'shared: true' to keep it",
        )


def _made_by_scripts(root: Path) -> Iterator[str]:
    """Yield the paths, relative to the root, that no package ships and that a tree would hold."""
    admindir = inside.directory_of(root, layout.DPKG_ADMINDIR)
    shipped = {_merged(path) for path in dpkg_query.listed(admindir, "/")} if admindir else set()
    for top in _TOPS:
        for path, info in rootstate.of_image(root, top):
            is_state = top != "var" or tmpfiles.treatment(path) is Treatment.KEEP
            if is_state and not stat.S_ISDIR(info.st_mode) and f"/{path}" not in shipped:
                yield path


def _merged(path: str) -> str:
    return f"/usr{path}" if path.startswith(_MERGED) else path


def _suspicion(root: Path, path: str) -> str | None:
    info = os.lstat(root / path)
    if path == MACHINE_ID or not stat.S_ISREG(info.st_mode):
        return None
    with inside.opened(root, path) as fd:
        return identities.suspicion(path, info.st_mode, inside.head(fd, _EXAMINED))


def _digest(root: Path, path: str) -> str:
    digest = hashlib.md5()
    with inside.opened(root, path) as fd:
        while data := os.read(fd, _CHUNK):
            digest.update(data)
    return digest.hexdigest()
