"""Which image a machine gets: a base image, and on it one with this checkout's code, both cached by key."""

from __future__ import annotations

from pathlib import Path

from testbed_lib import code
from testbed_lib.common import CACHE, hash_of, locked, run, say
from testbed_lib.image import FORMAT, derive_image, images, make_base_image, prune_siblings

_KEPT_CODE_IMAGES = 4


def image_of_ref(repo: Path, ref: str) -> Path:
    """Return an image of a commit that lies in some repository, with the checkout's code installed."""
    commit = run("ostree", "rev-parse", f"--repo={repo}", ref).strip()
    key = hash_of(FORMAT, commit, ref)
    with locked(CACHE / "build.lock"):
        base = images() / "base" / key / "disk.img"
        if not base.exists():
            say(f"making the disk image of {ref} {commit[:12]}")
            make_base_image(base, repo, commit, ref)
        return _with_code(base, key, ref)


def _with_code(base: Path, base_key: str, ref: str) -> Path:
    target = images() / "code" / hash_of(base_key, code.source_key()) / "disk.img"
    if not target.exists():
        say("installing this checkout's code")
        with code.copied_tree() as tree:
            derive_image(base, target, tree, ref)
        prune_siblings(target, _KEPT_CODE_IMAGES)
    return target
