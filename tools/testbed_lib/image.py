"""Makes bootable disk images: one ext4 file system labelled `root` with a deployed commit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed_lib.common import run, say, wait_until
from testbed_lib.store import loop_devices_of, make_scratch, open_store

STATEROOT = "debian"
_SIZE = "8G"  # sparse
#: Bump when images made by older code must not be used any more.
FORMAT = "1"


@contextmanager
def mounted_disk(disk: Path) -> Iterator[Path]:
    """Mount a disk image, once the loop device of an earlier mount is gone."""
    # Two loop devices on one file would corrupt it.
    wait_until(lambda: not loop_devices_of(disk), seconds=60, what=f"{disk} being free")
    with _mounted("-o", "loop,noatime", source=disk) as point:
        yield point


@contextmanager
def bind_mounted(source: Path) -> Iterator[Path]:
    """Mount a directory at a second place."""
    with _mounted("--bind", source=source) as point:
        yield point


@contextmanager
def _mounted(*options: str, source: Path) -> Iterator[Path]:
    point = make_scratch()
    try:
        run("mount", *options, source, point)
        try:
            yield point
        finally:
            run("umount", point)
    finally:
        point.rmdir()


def make_base_image(target: Path, repo: Path, commit: str, ref: str) -> None:
    """Make a disk image that boots a commit, deployed from `ref`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    run("truncate", f"--size={_SIZE}", partial)
    run("mkfs.ext4", "-q", "-L", "root", "-m", "0", "-E", "nodiscard,lazy_itable_init=1", partial)
    with mounted_disk(partial) as disk:
        run("ostree", "admin", "init-fs", "--modern", disk)
        (disk / "boot").mkdir(exist_ok=True)
        run("ostree", "admin", "os-init", f"--sysroot={disk}", STATEROOT)
        inner = disk / "ostree/repo"
        run("ostree", "config", f"--repo={inner}", "set", "sysroot.bootloader", "none")
        run("ostree", "config", f"--repo={inner}", "set", "sysroot.readonly", "true")
        run("ostree", "pull-local", f"--repo={inner}", "--disable-fsync", repo, commit)
        run("ostree", "refs", f"--repo={inner}", f"--create={ref}", commit)
        run("ostree", "admin", "deploy", f"--sysroot={disk}", f"--os={STATEROOT}",
            "--karg=root=LABEL=root", "--karg=rw", ref)  # fmt: skip
    partial.rename(target)


def prune_siblings(image: Path, keep: int) -> None:
    """Remove all but the newest images beside this one: each change of the code makes another."""
    siblings = sorted(image.parent.parent.iterdir(), key=lambda path: path.stat().st_mtime)
    for old in siblings[:-keep]:
        if old != image.parent:
            say(f"removing the old image {old.name}")
            shutil.rmtree(old)


def images() -> Path:
    """Return the directory of images in the store."""
    return open_store() / "images"
