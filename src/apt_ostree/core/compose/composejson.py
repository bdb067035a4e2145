"""The file of `--write-composejson-to`: what a compose has made, with the keys that rpm-ostree gives it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from apt_ostree.errors import UsageError
from apt_ostree.model import layout
from apt_ostree.model.package import diff_packages
from apt_ostree.model.rpmostree.packages import differences
from apt_ostree.system import files
from apt_ostree.system.ostree.repo import Repo

#: libostree's counts by the keys of the file.
_COUNTS = {
    "ostree-n-metadata-total": "metadata_objects_total",
    "ostree-n-metadata-written": "metadata_objects_written",
    "ostree-n-content-total": "content_objects_total",
    "ostree-n-content-written": "content_objects_written",
    "ostree-n-cache-hits": "devino_cache_hits",
    "ostree-content-bytes-written": "content_bytes_written",
}


def place(path: str | None) -> Path | None:
    """Return where the file is to be written, if it is wanted; UsageError if there can be none."""
    if path is None:
        return None
    file = Path(path).absolute()
    if not file.parent.is_dir():
        raise UsageError(f"the directory {file.parent} does not exist", hint="create it first")
    if file.is_dir():
        raise UsageError(f"{path} is a directory, and --write-composejson-to names a file")
    return file


def write(file: Path, repo: Repo, ref: str, checksum: str, counts: Mapping[str, int]) -> None:
    """Write the file about the commit of a ref.

    counts: what was written to the repository, see commit.Written; empty if nothing was.
    """
    counted = {key: counts[name] for key, name in _COUNTS.items() if name in counts}
    described = {"ref": ref, **counted, **describe(repo, checksum)}
    files.replace_text(file, json.dumps(described, indent=1) + "\n")


def describe(repo: Repo, checksum: str) -> dict[str, Any]:
    """Return what is to be said of a commit; `pkgdiff` is the difference to its parent, if that is here."""
    metadata, parent = repo.metadata(checksum), repo.parent(checksum)
    known = {
        "ostree-version": metadata.get(layout.META_VERSION),
        "ostree-parent-commit": parent,
        "rpm-ostree-inputhash": metadata.get(layout.META_INPUTS),
        "pkgdiff": _difference(repo, parent, checksum) if parent else None,
    }
    return {
        "ostree-commit": checksum,
        "ostree-content-checksum": repo.content_checksum(checksum),
        "ostree-timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(repo.timestamp(checksum))),
        **{key: value for key, value in known.items() if value is not None},
    }


def _difference(repo: Repo, old: str, new: str) -> list[Any] | None:
    """Return the difference between the packages of two commits, None if they are not known."""
    packages = [repo.packages(one) if repo.has_commit(one) else None for one in (old, new)]
    before, after = packages
    if before is None or after is None:
        return None
    return [list(row) for row in differences(asdict(diff_packages(before, after)))]
