"""Which image a machine gets: a base image, and on it one with this checkout's code, both cached by key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed_lib.base import DEFAULT_TREEFILE, base_of_ref, composed_base
from testbed_lib.common import CACHE, hash_of, locked, say
from testbed_lib.fixtures import fixture_repository, fixtures_key
from testbed_lib.image import FORMAT, images, make_base_image, prune_siblings
from testbed_lib.install import code_key, install_into_image

_KEPT_BASE_IMAGES = 6
_KEPT_CODE_IMAGES = 16


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an image is to hold.

    repo:     boot `ref` of this repository instead of composing `treefile`.
    suite:    compose from this suite instead of the treefile's.
    force:    compose anew; stale: be content with an older tree.
    fixtures: include the repository of fixture packages.
    recommended: install its package for the wrappers of Debian's tools, too, as apt does for users.
    fast:     copy the code's files, do not build and install its package.
    """

    repo: Path | None = None
    ref: str = "debian/13/amd64/minimal"
    treefile: Path = DEFAULT_TREEFILE
    suite: str | None = None
    force: bool = False
    stale: bool = False
    fixtures: bool = True
    recommended: bool = False
    fast: bool = False


def image(wanted: Wanted) -> Path:
    """Return the image, made if it is not cached."""
    with locked(CACHE / "build.lock"):
        if wanted.repo:
            base = base_of_ref(wanted.repo, wanted.ref)
        else:
            base = composed_base(wanted.treefile, wanted.suite, force=wanted.force, stale=wanted.stale)
        base_key = hash_of(FORMAT, base.commit, base.ref)
        how = (str(wanted.fast), *(["recommended"] if wanted.recommended else []))
        key = hash_of(base_key, code_key(), fixtures_key() if wanted.fixtures else "", *how)
        base_image = images() / "base" / base_key / "disk.img"
        target = images() / "code" / key / "disk.img"
        if not base_image.exists():
            say(f"making the disk image of {base.ref} {base.commit[:12]}")
            make_base_image(base_image, base.repo, base.commit, base.ref)
            prune_siblings(base_image, _KEPT_BASE_IMAGES)
        if not target.exists():
            fixtures = fixture_repository() if wanted.fixtures else None
            say("installing this checkout's code")
            names = ("apt-ostree", *(["apt-ostree-wrappers"] if wanted.recommended else []))
            packages = None if wanted.fast else names
            install_into_image(base_image, target, base.ref, fixtures=fixtures, packages=packages)
            prune_siblings(target, _KEPT_CODE_IMAGES)
    return target
