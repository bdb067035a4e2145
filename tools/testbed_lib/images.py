"""Which image a machine gets: a base image, and on it one with this checkout's code, both cached by key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed_lib.common import CACHE, hash_of, locked, run, say
from testbed_lib.fixtures import fixture_repository, fixtures_key
from testbed_lib.image import FORMAT, images, make_base_image, prune_siblings
from testbed_lib.install import code_key, install_into_image

_KEPT_BASE_IMAGES = 3
_KEPT_CODE_IMAGES = 6


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an image is to hold.

    repo:     boot `ref` of this repository; None composes a tree.
    fixtures: include the repository of fixture packages.
    fast:     copy the code's files, do not build and install its package.
    """

    repo: Path | None
    ref: str
    fixtures: bool = True
    fast: bool = False


def image(wanted: Wanted) -> Path:
    """Return the image, made if it is not cached."""
    fixtures = fixture_repository() if wanted.fixtures else None
    repo = wanted.repo
    assert repo
    commit = run("ostree", "rev-parse", f"--repo={repo}", wanted.ref).strip()
    base_key = hash_of(FORMAT, commit, wanted.ref)
    key = hash_of(base_key, code_key(), fixtures_key() if fixtures else "", str(wanted.fast))
    base = images() / "base" / base_key / "disk.img"
    target = images() / "code" / key / "disk.img"
    with locked(CACHE / "build.lock"):
        if not base.exists():
            say(f"making the disk image of {wanted.ref} {commit[:12]}")
            make_base_image(base, repo, commit, wanted.ref)
            prune_siblings(base, _KEPT_BASE_IMAGES)
        if not target.exists():
            say("installing this checkout's code")
            install_into_image(base, target, wanted.ref, fixtures=fixtures, fast=wanted.fast)
            prune_siblings(target, _KEPT_CODE_IMAGES)
    return target
