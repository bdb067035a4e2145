"""The peer of installing: `apt-get install` in a plain chroot, and `ostree admin deploy` of the result.

The chroot is an independent copy of the machine's tree with dpkg's database where Debian has it. Lists and
archives are the machine's own, libapt's cache is warm, and every run begins with the same files.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from apt_ostree.model import layout
from bench_lib import product
from bench_lib.measure import BenchError, run, timed

_HOME = Path("/var/lib/bench")
_ROOT, _PRISTINE = _HOME / "chroot", _HOME / "chroot.pristine"
_SHARED = ("var/lib/apt/lists", "var/cache/apt/archives")
_MOUNTS = ("proc", "sys", "dev")
_POLICY = "#!/bin/sh\nexit 101\n"
_NONINTERACTIVE = {"DEBIAN_FRONTEND": "noninteractive"}


def build(sets: Sequence[Sequence[str]]) -> None:
    """Make the chroot; what the sets need is downloaded, and libapt's cache written."""
    _copy_tree()
    for names in sets:
        _apt_get("--download-only", *names)
    _PRISTINE.mkdir()
    for name in ("usr", "etc", "var"):
        _copy(_ROOT / name, _PRISTINE / name)


def restore() -> None:
    """Bring the chroot back to its first state; only what differs is written."""
    for name in ("usr", "etc", "var"):
        _restore(_PRISTINE / name, _ROOT / name)


def install(names: Sequence[str]) -> float:
    """Install packages in the chroot; return the seconds."""
    return timed(*_apt_get_words(*names), env=_NONINTERACTIVE)


def packages_of(names: Sequence[str]) -> int:
    """Return how many packages an installation brings."""
    said = run(*_apt_get_words("--simulate", *names), env=_NONINTERACTIVE)
    return sum(line.startswith("Inst ") for line in said.splitlines())


def commit(ref: str) -> None:
    """Commit the chroot's present state, so that it can be deployed."""
    base = product.booted_directory().name.partition(".")[0]
    script = f"""set -e
        mount -o remount,bind,rw /sysroot
        mkdir -p {_HOME}/tree/usr
        mount --bind {_ROOT}/usr {_HOME}/tree/usr
        mount --bind {_ROOT}/etc {_HOME}/tree/usr/etc
        ostree commit --repo=/sysroot/ostree/repo --branch={ref} --tree=ref={base} --tree=dir={_HOME}/tree
    """
    run("unshare", "--mount", "sh", "-c", script)


def deploy(ref: str, *options: str) -> float:
    """Deploy a commit beside the booted one, and take it away again; return the seconds of deploying."""
    seconds = timed("ostree", "admin", "deploy", *options, ref)
    run("ostree", "admin", "undeploy", "0")
    return seconds


def remove() -> None:
    """Unmount and remove the chroot and its copy."""
    for path in (*_SHARED, *_MOUNTS):
        # With what is below it. One that is not there, for the copy was not finished, is no reason to leave
        # the others.
        run("sh", "-c", 'umount --lazy "$1" || true', "sh", _ROOT / path)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    if left := [line for line in mounts if f" {_ROOT}/" in line]:
        raise BenchError(f"something is still mounted below {_ROOT}: {left}")
    for directory in (_ROOT, _PRISTINE, _HOME / "tree"):
        shutil.rmtree(directory, ignore_errors=True)


def _apt_get(*words: str) -> None:
    run(*_apt_get_words(*words), env=_NONINTERACTIVE)


def _apt_get_words(*words: str) -> list[str | Path]:
    return ["chroot", _ROOT, "apt-get", "install", "--yes", "--quiet=2", *words]


# --- the tree


def _copy_tree() -> None:
    _ROOT.mkdir(parents=True)
    _copy(Path("/usr"), _ROOT / "usr")
    _copy(_ROOT / "usr/etc", _ROOT / "etc")
    (_ROOT / "etc/resolv.conf").unlink(missing_ok=True)
    shutil.copy("/etc/resolv.conf", _ROOT / "etc/resolv.conf")
    for name in ("bin", "sbin", "lib", "lib64"):
        (_ROOT / name).symlink_to(f"usr/{name}")
    for name in (*_MOUNTS, "run", "tmp", "root", "var"):
        (_ROOT / name).mkdir()
    (_ROOT / "tmp").chmod(0o1777)
    for name in _MOUNTS:
        run("mount", "--rbind", f"/{name}", _ROOT / name)
        # Else unmounting what is below it would unmount it in the machine, too: /sys/fs/cgroup, for one.
        run("mount", "--make-rprivate", _ROOT / name)
    run("chroot", _ROOT, "systemd-tmpfiles", "--create", "--prefix=/var")
    for path, target in layout.SYSIMAGE_LINKS.items():
        (_ROOT / path).unlink()
        shutil.move(_ROOT / target, _ROOT / path)
    (_ROOT / layout.TMPFILES_LAYOUT).unlink()  # it would make the links again
    for path in _SHARED:
        (_ROOT / path).mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", f"/{path}", _ROOT / path)
    policy = _ROOT / "usr/sbin/policy-rc.d"
    policy.write_text(_POLICY)
    policy.chmod(0o755)


def _copy(source: Path, target: Path) -> None:
    run("cp", "--archive", "--one-file-system", source, target)


# --- back to the first state


def _restore(pristine: Path, work: Path) -> None:
    if str(work.relative_to(_ROOT)) in _SHARED:
        return
    wanted = {entry.name: entry for entry in os.scandir(pristine)}
    present = {entry.name: entry for entry in os.scandir(work)}
    for name in present.keys() - wanted.keys():
        _remove(work / name)
    for name, entry in wanted.items():
        if name not in present or not _same(entry, present[name]):
            if name in present:
                _remove(work / name)
            _copy(Path(entry.path), work / name)
        elif entry.is_dir(follow_symlinks=False):
            _restore(Path(entry.path), work / name)


def _same(one: os.DirEntry[str], other: os.DirEntry[str]) -> bool:
    """Tell whether two entries have the same type, owner, mode, and, but for directories, size and time."""
    a, b = one.stat(follow_symlinks=False), other.stat(follow_symlinks=False)
    if (a.st_mode, a.st_uid, a.st_gid) != (b.st_mode, b.st_uid, b.st_gid):
        return False
    return stat.S_ISDIR(a.st_mode) or (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
