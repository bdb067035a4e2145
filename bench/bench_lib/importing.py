"""Importing an image into an empty repository, against `ostree pull-local` of the same commit; on the host.

Where a machine imports, its own repository has most objects already, and pull-local would copy nothing. So
the product's function is called by itself, as it is where a disk is made of an image.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testbed_lib.common import CHECKOUT

from bench_lib.measure import BenchError, interleaved, run, say, timed


def measure(source: Path, ref: str, image: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of both sides in every round.

    source, ref: the repository with the commit, which is one of mode archive.
    image: that of the commit, a directory in OCI's layout with one image.
    """
    commit = run("ostree", "rev-parse", f"--repo={source}", ref).strip()
    found: dict[str, list[float]] = {"ours": [], "peer": []}

    def ours() -> None:
        with _empty(source.parent) as repo:
            found["ours"].append(_import(image, repo, commit))

    def peer() -> None:
        with _empty(source.parent) as repo:
            found["peer"].append(timed("ostree", "pull-local", f"--repo={repo}", source, commit))

    for number in interleaved(rounds, ours, peer):
        say(f"importing an image: round {number + 1} of {rounds}")
    return found


@contextmanager
def _empty(directory: Path) -> Iterator[Path]:
    repo = directory / "empty"
    run("ostree", "init", f"--repo={repo}", "--mode=bare")
    try:
        yield repo
    finally:
        shutil.rmtree(repo)


def _import(image: Path, repo: Path, commit: str) -> float:
    """Import an image, of which the commit has to come; return the seconds."""
    sys.path.insert(0, str(CHECKOUT / "src"))
    from apt_ostree.core.images import importing
    from apt_ostree.core.transaction import Transaction
    from apt_ostree.system.ostree.repo import Repo

    fetched, tx = _fetched(image), Transaction(lambda _event: None, "import")
    run("sync", "--file-system", repo)
    began = time.perf_counter()
    imported = importing.take_in(tx, Repo.open(repo), fetched)
    seconds = time.perf_counter() - began
    if imported != commit:
        raise BenchError(f"the image of {commit} was imported as {imported}")
    return seconds


def _fetched(image: Path) -> Any:
    """Return an image as it is when it was fetched."""
    from apt_ostree.core.images.importing import Fetched
    from apt_ostree.model import oci_image
    from apt_ostree.model.image_reference import ImageReference
    from apt_ostree.system.ocilayout import KeptLayout

    blobs = KeptLayout(image)
    digest = run("skopeo", "inspect", "--format={{.Digest}}", f"oci:{image}").strip()
    manifest = oci_image.read_manifest(blobs.text(digest))
    config = oci_image.read_config(blobs.text(manifest.config.digest), len(manifest.layers))
    return Fetched(
        ImageReference.parse(f"ostree-unverified-image:oci:{image}"), digest, manifest, config, blobs
    )
