"""Cuts a tree into the layers of an image, so that what changes together is fetched together. Pure values.

Packages that are built from one source change together. The biggest sources have a layer each; the others
share some, chosen by a hash of the source's name, so that no other source moves when one comes or goes. What
changes for its own reasons is apart: the kernel, the initramfs, what dpkg keeps of all packages together,
/etc, and what no package has. Which sources had a layer in the previous image counts, as each move is fetched
by every machine.

Paths are those of the image: relative, with `etc` in the place of `usr/etc`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from apt_ostree.model import layout

#: How many layers an image can be given. Runtimes take at most 127, and images that are derived need some.
LEAST, DEFAULT, MOST = 8, 64, 120

KERNEL = "kernel"
INITRAMFS = "initramfs"
PACKAGES = "dpkg"
ETC = "etc"
GENERATED = "generated"
SBOM = "sbom"
#: In their order in the image, behind the layers of sources: runtimes unpack from the first that differs.
_FIXED = (GENERATED, ETC, PACKAGES, INITRAMFS, KERNEL, SBOM)
_SOURCE = "source "
_BUCKET = "bucket "

#: A source takes the layer of another one only if it has become so many times as big.
_STICKY = 2
#: What we write into directories of packages.
_OURS = frozenset(
    {
        layout.TMPFILES_LAYOUT,
        layout.TMPFILES_VAR,
        layout.SYSUSERS,
        layout.KERNEL_ARGUMENTS,
        layout.DRACUT_ARGUMENTS,
    }
)


@dataclass(frozen=True, slots=True)
class Layer:
    """What is to be a layer.

    name: "source NAME", "bucket NUMBER", or one of the names above.
    sources: the source packages whose files it has; none where these do not matter.
    paths: of files, links and empty directories, sorted.
    size: bytes of the files.
    """

    name: str
    sources: tuple[str, ...]
    paths: tuple[str, ...]
    size: int


def cut(
    sizes: Mapping[str, int], source_of: Callable[[str], str], most: int, apart: Collection[str] = ()
) -> tuple[Layer, ...]:
    """Return the layers of a tree; each path is in exactly one of them.

    sizes: path of each file, link and empty directory -> bytes.
    source_of: returns the source package of a path, "" without one.
    most: the number of layers, from LEAST to MOST; one of them is left for SBOM.
    apart: the sources that have a layer in the previous image (see `sources_apart`).
    """
    sources = {path: source_of(path) for path in sizes}
    fixed = _fixed(sources)
    weights: Counter[str] = Counter()
    for path, source in sources.items():
        if path not in fixed:
            weights[source] += sizes[path]
    buckets = most // 4
    biggest = _biggest(weights, most - buckets - len(_FIXED), apart)
    paths_of: dict[str, list[str]] = {}
    for path in sorted(sizes):
        name = fixed.get(path) or _shared(sources[path], biggest, buckets)
        paths_of.setdefault(name, []).append(path)
    return tuple(
        Layer(name, _sources(name, paths, sources), tuple(paths), sum(sizes[path] for path in paths))
        for name, paths in sorted(paths_of.items(), key=lambda item: _order(item[0]))
    )


def sources_apart(names: Iterable[str]) -> frozenset[str]:
    """Return the sources that have a layer in an image whose layers have these names."""
    return frozenset(name.removeprefix(_SOURCE) for name in names if name.startswith(_SOURCE))


def with_parents(paths: Iterable[str]) -> tuple[str, ...]:
    """Return paths and the directories above them, parents first; "." is the root.

    Each layer has these: programs that unpack a layer alone would make them up.
    """
    found: set[str] = set()
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]  # noqa: PLW2901
    return (".", *sorted(found))


def _fixed(sources: Mapping[str, str]) -> dict[str, str]:
    """Return path -> layer of what is in the layer of no source."""
    # What else is of the kernel's source, such as its documentation, changes with each kernel as well.
    kernels = {source for path, source in sources.items() if _part(path) == KERNEL} - {""}
    fixed = {}
    for path, source in sources.items():
        if (
            name := _part(path)
            or (KERNEL if source in kernels else "")
            or ("" if source else _unshipped(path))
        ):
            fixed[path] = name
    return fixed


def _unshipped(path: str) -> str:
    """Return the layer of a path that is of no source."""
    return PACKAGES if path.startswith(f"{layout.SYSIMAGE}/") else GENERATED


def _part(path: str) -> str:
    """Return the layer that a path is in for its place, or ""."""
    if path == "etc" or path.startswith("etc/"):
        return ETC
    if path.startswith(f"{layout.KERNEL_MODULES}/"):
        parts = path.split("/")
        return INITRAMFS if len(parts) == 5 and parts[4].startswith("initramfs.") else KERNEL
    return GENERATED if path in _OURS else ""


def _biggest(weights: Mapping[str, int], room: int, apart: Collection[str]) -> frozenset[str]:
    def rank(source: str) -> tuple[int, bool, str]:
        is_apart = source in apart
        return -weights[source] * (_STICKY if is_apart else 1), not is_apart, source

    return frozenset(sorted(weights, key=rank)[:room])


def _shared(source: str, biggest: Collection[str], buckets: int) -> str:
    if source in biggest:
        return f"{_SOURCE}{source}"
    number = int.from_bytes(hashlib.sha256(source.encode()).digest()[:4], "big")
    return f"{_BUCKET}{number % buckets}"


def _sources(name: str, paths: Iterable[str], sources: Mapping[str, str]) -> tuple[str, ...]:
    """Return the sources of a layer; in those that are about a place, such as /etc, they do not matter."""
    if name in _FIXED and name != KERNEL:
        return ()
    return tuple(sorted({sources[path] for path in paths} - {""}))


def _order(name: str) -> tuple[int, int, str]:
    if name in _FIXED:
        return 2 + _FIXED.index(name), 0, ""
    if name.startswith(_BUCKET):
        return 1, int(name.removeprefix(_BUCKET)), ""
    return 0, 0, name
