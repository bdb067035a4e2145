"""The cache of archives: keeps it to a size. libapt fills it, and `acquire.remove_downloads` empties it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import apt_pkg

from apt_ostree.model.package import Package
from apt_ostree.system.apt import config


def prune(limit: int, kept: Iterable[Package]) -> tuple[str, ...]:
    """Remove archives, those that were downloaded first, until all have `limit` bytes at most.

    Returns the names of the removed files. Nothing is removed while another program uses the cache.

    limit: 0 is none.
    kept: packages whose archives stay, whatever size they have: a deployment may be built from them again.
    """
    directory = Path(apt_pkg.config.find_dir("Dir::Cache::archives"))
    if not limit or not directory.is_dir():
        return ()
    names = {config.cached_archive(p.name, p.version, p.architecture).name for p in kept}
    removed: list[str] = []
    with suppress(apt_pkg.Error), apt_pkg.FileLock(f"{directory}/lock"):
        infos = {path: path.stat() for path in directory.glob("*.deb")}
        size = sum(info.st_size for info in infos.values())
        # The mtime is that of the file on the server; the ctime is when it came here.
        for path in sorted(infos, key=lambda path: infos[path].st_ctime_ns):
            if size <= limit:
                break
            if path.name not in names:
                path.unlink(missing_ok=True)
                removed.append(path.name)
                size -= infos[path].st_size
    return tuple(removed)
