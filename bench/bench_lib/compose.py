"""Composing on the host, against mmdebstrap, dracut and `ostree commit` of the same packages."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_lib.measure import run, run_watched, say

_CHECKOUT = Path(__file__).resolve().parents[2]
TREEFILE = _CHECKOUT / "examples/debian-13-minimal.yaml"
PRODUCT = {"PYTHONPATH": str(_CHECKOUT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
COMPOSE = ("/usr/bin/python3", "-m", "apt_ostree", "compose")
COMMAND = (*COMPOSE, "tree")
#: Alone in mount and process namespaces, as the product runs it.
_CONTAINED = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")


_IN_ROOT = """
root=$1; shift
mount --bind "$root" "$root"
for name in proc sys dev; do mount --rbind /$name "$root/$name"; done
exec chroot "$root" "$@"
"""
#: Runs a command in a directory: IN_CHROOT, the directory, the command.
IN_CHROOT = (*_CONTAINED, "sh", "-ec", _IN_ROOT, "sh")


def measure() -> dict[str, Any]:
    """Return the seconds of both sides and of the peer's steps, and the product's peak memory."""
    with tempfile.TemporaryDirectory(prefix="apt-ostree-bench-", dir="/var/tmp") as name:
        directory = Path(name)
        say("measuring: compose")
        ours, memory = run_watched(*COMMAND, TREEFILE, f"--repo={directory / 'ours'}", "--quiet", env=PRODUCT)
        say("measuring: mmdebstrap, dracut, ostree commit")
        return {"compose": ours, "memory": memory, "peer": _peer(directory)}


def _peer(directory: Path) -> dict[str, float]:
    treefile = json.loads(run(*COMMAND, TREEFILE, "--print-only", env=PRODUCT))
    root, repo = directory / "root", directory / "peer"
    seconds = {}
    words = ["--mode=root", f"--variant={treefile.get('variant') or 'minbase'}"]
    words.append(f"--include={','.join(treefile['packages'])}")
    # INITRD=No: one initramfs is enough, and dracut's hook in the package would make another.
    command = (*_CONTAINED, "mmdebstrap", *words, treefile["suite"], root)
    seconds["mmdebstrap"] = _watched(*command, env={"INITRD": "No"})
    seconds["dracut"] = _watched(*IN_CHROOT, root, *_dracut(root))
    run("sh", "-ec", 'rm -rf "$1"/dev/* && mv "$1/etc" "$1/usr/etc"', "sh", root)
    run("ostree", "init", f"--repo={repo}", "--mode=bare")
    seconds["commit"] = _watched("ostree", "commit", f"--repo={repo}", "--branch=peer", f"--tree=dir={root}")
    return seconds


def _dracut(root: Path) -> list[str]:
    """Return the product's own command line for an initramfs."""
    sys.path.insert(0, str(_CHECKOUT / "src"))
    from apt_ostree.system import dracut

    kernel = max(path.name for path in (root / "usr/lib/modules").iterdir())
    return dracut.argv(kernel, f"/usr/lib/modules/{kernel}/initramfs.img", scratch="/var/tmp")


def _watched(*argv: str | Path, env: dict[str, str] | None = None) -> float:
    """Take the time of a program, and sample its memory as the product's is: the same disturbance."""
    began = time.perf_counter()
    run_watched(*argv, env=env)
    return time.perf_counter() - began
