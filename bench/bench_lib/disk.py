"""Composing a disk image on the host, against one of the same packages by Debian 13's mkosi, in a chroot.

Debian 12's mkosi mounts what it makes, and starts containers, so that it needs vfat in the kernel and a bus.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_lib.compose import COMMAND, COMPOSE, IN_CHROOT, PRODUCT, TREEFILE
from bench_lib.measure import run, say, timed

_SUITE = "trixie"
_MKOSI = (
    *("mkosi", "systemd-repart", "dosfstools", "mtools", "e2fsprogs", "bubblewrap", "ca-certificates"),
    *("debian-archive-keyring", "dpkg-dev", "zstd", "cpio", "systemd-ukify", "systemd-boot-tools", "udev"),
)
_CONFIGURATION = """
[Distribution]
Distribution=debian
Release={suite}
Repositories=main

[Output]
Format=disk
Output=disk
OutputDirectory=/work/out

[Content]
Bootable=yes
Bootloader=systemd-boot
Packages={packages}

[Build]
WithNetwork=yes
"""
#: Without these, it asks for the archive of debugging symbols, too.
_SOURCES = """
Types: deb
URIs: http://deb.debian.org/debian
Suites: {suite} {suite}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: {suite}-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def measure() -> dict[str, Any]:
    """Return the seconds and the bytes of both images; holes of a file do not count."""
    with tempfile.TemporaryDirectory(prefix="apt-ostree-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        say("measuring: compose disk")
        image = directory / "ours.raw"
        found = {"ours": timed(*COMPOSE, "disk", TREEFILE, f"--output={image}", "--quiet", env=PRODUCT)}
        say("measuring: mkosi")
        root = directory / "root"
        _prepare_peer(root)
        began = time.perf_counter()
        run(*IN_CHROOT, root, "sh", "-ec", "cd /work && exec mkosi --force build")
        found["peer"] = time.perf_counter() - began
        return found | {"bytes": [_size(image), _size(root / "work/out/disk.raw")]}


def _prepare_peer(root: Path) -> None:
    run("mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(_MKOSI)}", _SUITE, root)
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    treefile = json.loads(run(*COMMAND, TREEFILE, "--print-only", env=PRODUCT))
    packages = ",".join([*treefile["packages"], "systemd-boot"])
    sources = root / "work/mkosi.sandbox/etc/apt/sources.list.d"
    sources.mkdir(parents=True)
    (root / "work/out").mkdir()
    (root / "work/mkosi.conf").write_text(_CONFIGURATION.format(suite=_SUITE, packages=packages))
    (sources / "mkosi.sources").write_text(_SOURCES.format(suite=_SUITE))


def _size(path: Path) -> int:
    return path.stat().st_blocks * 512
