"""How the steps of installing and applying live grow with the change and with the tree."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench_lib import product
from bench_lib.measure import interleaved, run, say

_EXTRA = Path("/var/lib/bench/extra")
_PER_DIRECTORY = 100


def measure_changes(counts: Sequence[int], rounds: int) -> dict[str, Any]:
    """Return the steps of installing, and of applying live (several rounds), for numbers of packages.

    Each number is installed once. Then all are applied in turns, so that a machine that gets slower meanwhile
    does not look like a step that grows.
    """
    found: dict[str, Any] = {}
    commits: dict[str, str] = {}
    for count in counts:
        names = [f"fx-many-{number:03}" for number in range(1, count + 1)]
        found[str(count)] = {"install": [_install(names)], "apply-live": []}
        commits[str(count)] = product.keep_pending(f"bench/changes-{count}")
        product.drop_pending()

    def side(count: str) -> Callable[[], None]:
        def apply() -> None:
            found[count]["apply-live"].append(product.steps("apply-live", target=commits[count]))
            product.undo_live()

        return apply

    for number in interleaved(rounds, *map(side, commits)):
        say(f"growth: round {number + 1} of {rounds}")
    product.forget_kept("bench")
    return found


def measure_tree(rounds: int) -> dict[str, Any]:
    """Return the steps with the tree as it is, for the small set."""
    installing = _install(product.SMALL)
    applying = []
    for _ in range(rounds):
        applying.append(product.steps("apply-live"))
        product.undo_live()
    product.drop_pending()
    return {"install": [installing], "apply-live": applying}


def _install(names: Sequence[str]) -> dict[str, float]:
    say(f"growth: installing {len(names)} packages")
    product.packages_of(names)  # libapt's cache of the lists is there when the clock runs
    return product.steps("install", packages=list(names))


def enlarge_base(files: int) -> None:
    """Commit so many more files into the base and deploy it; the caller reboots."""
    say(f"growth: {files} more files in the base")
    for number in range(files):
        directory = _EXTRA / f"usr/share/bench/{files}-{number // _PER_DIRECTORY:04}"
        if number % _PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        (directory / f"{number:06}").write_text(f"extra file {number} of {files}\n" * 8)
    ref = run("ostree", "refs", "--list", "debian").split()[0]
    keys = run("ostree", "show", "--list-metadata-keys", ref).split()
    kept = [f"--keep-metadata={key}" for key in keys if not key.startswith("ostree.")]
    words = ["ostree", "commit", "--repo=/sysroot/ostree/repo", f"--branch={ref}", f"--parent={_head(ref)}",
             f"--tree=ref={ref}", f"--tree=dir={_EXTRA}", "--owner-uid=0", "--owner-gid=0", "--bootable",
             *kept]  # fmt: skip
    product.run_writable(*words)
    shutil.rmtree(_EXTRA)
    run("ostree", "admin", "deploy", ref)


def forget_old_base() -> None:
    """Leave the booted deployment alone, as before the base was enlarged."""
    run("apt-ostree", "cleanup", "-r", "-q")


def _head(ref: str) -> str:
    return run("ostree", "rev-parse", ref).strip()
