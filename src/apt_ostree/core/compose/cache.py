"""What composes keep in the directory of --cachedir: lists, archives, plans, roots and initramfs images.

A key is the digest of all that decides the content, so that a compose gives the same with a cache as without
one. What is kept is compared with its own digest before use (system.filestore).
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import apt_ostree
from apt_ostree.core.compose import inputs
from apt_ostree.errors import UsageError
from apt_ostree.model.package import Package
from apt_ostree.system import filestore, mmdebstrap, rootstate, tar
from apt_ostree.system.filestore import FileStore
from apt_ostree.system.mmdebstrap import Bootstrap

#: Kind -> so many are kept.
_MOST = {"lists": 3, "plans": 30, "roots": 3, "initramfs": 6, "archives": 4000}
_DAYS = 30.0

#: Package -> the digests of its archives.
Digests = Mapping[Package, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Base:
    """A root directory as the packages made it.

    digest: of all that is in it.
    moment: when it was so.
    """

    digest: str
    moment: rootstate.Moment


class Cache:
    """The cache of a compose."""

    def __init__(self, store: FileStore) -> None:
        self._store = store

    @cached_property
    def _program(self) -> Mapping[str, Any]:
        """What makes the content: this program, and this machine's tools."""
        code = sha256()
        top = Path(apt_ostree.__file__).parent
        for path in sorted(top.rglob("*.py")):
            code.update(f"{path.relative_to(top)}\0".encode() + path.read_bytes() + b"\0")
        return {
            "version": apt_ostree.__version__,
            "code": code.hexdigest(),
            "tools": mmdebstrap.tools(),
            "machine": platform.machine(),
        }

    def _key(self, **facts: Any) -> str:
        return inputs.digest_of({**self._program, **facts})

    def prune(self) -> None:
        """Remove what has not been used for long, and what is too much."""
        self._store.prune(_MOST, days=_DAYS)

    def work_directory(self) -> AbstractContextManager[Path]:
        """Return what yields an empty directory, which is removed after the block."""
        return self._store.work_directory()

    # --- package lists and what they make of a treefile

    def restore_lists(self, bootstrap: Bootstrap, lists: Path) -> str:
        """Put the last package lists into an empty directory; return a digest of them."""
        with self._store.opened("lists", self._lists_key(bootstrap)) as found:
            if found:
                tar.unpack(found, lists)
        return lists_digest(lists)

    def keep_lists(self, bootstrap: Bootstrap, lists: Path) -> None:
        """Keep package lists for the next compose."""
        with self._store.writing("lists", self._lists_key(bootstrap)) as new:
            tar.pack(lists, new, sorted(path.name for path in lists.iterdir() if path.is_file()))

    def _lists_key(self, bootstrap: Bootstrap) -> str:
        return self._key(sources=bootstrap.sources)

    def plan(self, bootstrap: Bootstrap, lists: Path, keys: Sequence[str]) -> Digests | None:
        """Return the packages that these lists make of a treefile, if that is known.

        keys: of the archives, as digests.
        """
        with self._store.opened("plans", self._plan_key(bootstrap, lists, keys)) as found:
            rows = json.load(found) if found else None
        return {Package(*row[:3]): row[3] for row in rows} if rows is not None else None

    def keep_plan(self, bootstrap: Bootstrap, lists: Path, keys: Sequence[str], plan: Digests) -> None:
        """Keep what lists make of a treefile."""
        rows = [[one.name, one.version, one.architecture, list(digests)] for one, digests in plan.items()]
        with self._store.writing("plans", self._plan_key(bootstrap, lists, keys)) as new:
            new.write_text(json.dumps(rows))

    def _plan_key(self, bootstrap: Bootstrap, lists: Path, keys: Sequence[str]) -> str:
        return self._key(bootstrap=asdict(bootstrap), lists=lists_digest(lists), keys=keys)

    # --- roots

    def root_key(
        self, bootstrap: Bootstrap, plan: Digests, keys: Sequence[str], source_date: int
    ) -> str | None:
        """Return the key of the root directory that these packages make, None if the archives are unknown."""
        if not all(plan.values()):
            return None
        rows = [[one.name, one.version, one.architecture, list(digests)] for one, digests in plan.items()]
        return self._key(bootstrap=asdict(bootstrap), packages=sorted(rows), keys=keys, date=source_date)

    def restore_root(self, key: str, root: Path) -> str | None:
        """Make the root directory if it is kept; return a digest of what is in it."""
        with self._store.opened("roots", key) as found:
            if found is None:
                return None
            root.mkdir()
            tar.unpack(found, root)
            return Path(str(found.name)).name.rpartition(".")[2]

    def keep_root(self, key: str, root: Path) -> str:
        """Keep a root directory; return a digest of what is in it."""
        with self._store.writing("roots", key) as new:
            tar.pack(root, new)
        with self._store.opened("roots", key) as found:
            return Path(str(found.name)).name.rpartition(".")[2] if found else ""

    # --- archives

    @contextmanager
    def _archive(self, digests: Sequence[str]) -> Iterator[IO[bytes] | None]:
        """Yield the open archive of a package, None if it is not kept."""
        if len(digests) != 1:  # the lists do not say which one it is
            yield None
            return
        with self._store.opened("archives", digests[0]) as found:
            # The name has the digest of the content; the archive's own lists have the same.
            is_it = found and Path(str(found.name)).name == f"{digests[0]}.{digests[0]}"
            yield found if is_it else None

    def absent(self, plan: Digests) -> list[Package]:
        """Return the packages whose archives are not kept."""
        absent = []
        for package, digests in plan.items():
            with self._archive(digests) as found:
                absent += [package] if found is None else []
        return absent

    def fill_shelf(self, shelf: mmdebstrap.Shelf, plan: Digests) -> list[Package]:
        """Put the archives that are kept into the shelf of a root directory to make; return what is not."""
        absent = []
        for package, digests in plan.items():
            with self._archive(digests) as found:
                if found is None:
                    absent.append(package)
                    continue
                with (shelf.given / mmdebstrap.archive_name(package)).open("wb") as target:
                    shutil.copyfileobj(found, target)
        return absent

    def keep_archives(self, paths: Iterable[Path], plan: Digests) -> None:
        """Keep archives that were downloaded, as far as the lists have them."""
        known = {digest for digests in plan.values() for digest in digests}
        for path in paths:
            digest = sha256(path.read_bytes()).hexdigest()
            if digest in known:
                with self._store.writing("archives", digest) as new:
                    shutil.copyfile(path, new)

    def give_inputs(self, other: Cache, bootstrap: Bootstrap, lists: Path, plan: Digests) -> None:
        """Keep package lists, and the archives of packages that are kept here, in another cache.

        That is what others have made, and nothing that an earlier compose has.
        """
        other.keep_lists(bootstrap, lists)
        for digests in plan.values():
            with self._archive(digests) as found:
                if found:
                    other._keep_archive(digests[0], found)

    def _keep_archive(self, digest: str, archive: IO[bytes]) -> None:
        with self._store.writing("archives", digest) as new, new.open("wb") as target:
            shutil.copyfileobj(archive, target)

    # --- initramfs images

    def initramfs_key(self, base: Base, changes: str, source_date: int, moves: Any) -> str:
        """Return the key of the initramfs of a root directory.

        changes: a digest of what differs from the base.
        moves: which ids of accounts are changed before the image is made.
        """
        return self._key(base=base.digest, changes=changes, date=source_date, moves=moves)

    def restore_initramfs(self, key: str, modules: Path) -> bool:
        """Put an image and its list below the directory of kernel modules; return whether it was kept."""
        with self._store.opened("initramfs", key) as found:
            if found:
                tar.unpack(found, modules)
            return found is not None

    def keep_initramfs(self, key: str, modules: Path, names: Sequence[str]) -> None:
        """Keep files below the directory of kernel modules."""
        with self._store.writing("initramfs", key) as new:
            tar.pack(modules, new, names)


def open_cache(path: str | None, *, apart_from: Mapping[str, Path], needed: bool = False) -> Cache | None:
    """Return the cache at a path, or None without one; raises what filestore.open_store raises.

    needed: raise UsageError without one.
    """
    if path is None:
        if needed:
            raise UsageError(
                "--cache-only and --download-only need a cache", hint="name its directory with --cachedir"
            )
        return None
    return Cache(filestore.open_store(Path(path).absolute(), apart_from=apart_from))


def lists_digest(lists: Path) -> str:
    """Return a digest of apt's package lists in a directory."""
    digest = sha256()
    for path in sorted(lists.iterdir()):
        if path.name != "lock" and path.is_file():
            with suppress(FileNotFoundError):
                digest.update(f"{path.name}\0".encode() + sha256(path.read_bytes()).digest())
    return digest.hexdigest()
